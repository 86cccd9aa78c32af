// Package columns makes the libraries that are compared look alike, one file each, so
// that a scenario asks the same of all. What each of them really does stands in its
// [Does]; the tests hold them to it.
package columns

import (
	"context"
	"errors"
	"time"
)

// Run is the protected function. It has a value, as nearly all real ones do: a
// library whose functions have only an error must bring it out by other means, as its
// users must.
type Run = func(ctx context.Context) (int, error)

// ErrBoom is what a run that fails returns.
var ErrBoom = errors.New("boom")

// FallbackValue is what every fallback answers.
const FallbackValue = -7

// A Mode says how much of a library is asked for, and where run is called.
type Mode int

const (
	BreakerOnly Mode = iota // the circuit breaker and nothing else
	Everything              // limit, breaker, timeout, fallback, metrics: all there is, on the caller's goroutine if that can be had
	Pool                    // the same on another goroutine: the caller can leave at its deadline, whatever run does
)

func (m Mode) String() string { return [...]string{"breaker only", "everything on", "pool"}[m] }

// A Spec is a command as a scenario wants it.
type Spec struct {
	Mode          Mode
	Run           Run
	MaxConcurrent int           // not for BreakerOnly
	Timeout       time.Duration // not for BreakerOnly
	Fallback      bool          // a call without an answer gets FallbackValue
	Trips         bool          // the circuit opens at the first few failures, for an hour; otherwise it counts and never opens
}

// The volume at which a circuit trips, and one that no run of the benchmarks reaches.
const (
	tripVolume = 5
	never      = 1 << 30
)

// A Guard is a command made ready. It may be called concurrently.
type Guard struct {
	Call  func(ctx context.Context) (int, error)
	Does  Does
	Close func() // nil: there is nothing to close
}

// Does says which parts of the job a guard does. Empty is: not at all.
type Does struct {
	Timeout  string // "context": run is told; "leaves": the caller is back as well
	Limit    string
	Breaker  string
	Fallback string // "library", or "by hand": an if around the call
	Metrics  string
	Runs     string // where run is called: "caller", or how many goroutines a call starts
}

// A Fleet is many commands called by name, the way the library's users would.
type Fleet struct {
	Call     func(ctx context.Context, name string) (int, error)
	Snapshot func() int // reads all that the library shows of all its commands, and returns some of it; nil: it shows nothing
	Close    func()
}

// A Column is one of the libraries.
type Column struct {
	Name  string
	New   func(Spec) *Guard                   // nil: it is no single command; a nil Guard: it does not have that mode
	Fleet func(names []string, s Spec) *Fleet // nil: nothing is called by name
	HTTP  RoundTripper                        // nil: it has none

	// What it has for many keys; nil: nothing.
	Gather   *Gatherer
	Cache    *Cache
	Collapse *Collapser
}

// All returns the columns in the order in which they are measured.
func All() []Column {
	return []Column{
		ours, byHand, gobreakerAlone, failsafeGo, hystrixGo, goResiliency, direct, leastSnapshot,
		errgroupAlone, singleflightAlone, dataloaderAlone,
	}
}

// Named returns the column of that name.
func Named(name string) (Column, bool) {
	for _, c := range All() {
		if c.Name == name {
			return c, true
		}
	}
	return Column{}, false
}

// orElse puts the fallback around a call, as users of a library without one do.
func orElse(s Spec, call Run) Run {
	if !s.Fallback {
		return call
	}
	return func(ctx context.Context) (int, error) {
		if v, err := call(ctx); err == nil {
			return v, nil
		}
		return FallbackValue, nil
	}
}
