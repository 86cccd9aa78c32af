package chaos

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/firebreak-go/firebreak"
)

// A Fault is what happens to a call instead of its run, or before it. Makers and
// combinators of this package make faults, [Parse] reads them. A Fault is a value
// that never changes: it may be shared, and used in several drills at once, each of
// which has its own schedule and chances. The zero Fault is not usable.
type Fault struct {
	text  string
	parts []Fault // of a Sequence; nil for all else
	do    func(*hit) error
}

// A hit is one call as a fault sees it. It belongs to the call's goroutine.
type hit struct {
	ctx   context.Context
	drill *drilled
	since time.Duration // the drill began; as the call came
	rand  *rand.Rand
	grown float64 // share of their full length that latencies have, 0 to 1
}

// String is the fault in the words that [Parse] reads; "" for zero.
func (f Fault) String() string { return f.text }

// MarshalText returns String's text.
func (f Fault) MarshalText() ([]byte, error) { return []byte(f.text), nil }

// UnmarshalText is [Parse]. A text that it refuses leaves f as it was.
func (f *Fault) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err == nil {
		*f = parsed
	}
	return err
}

// Latency makes a call wait as long as d says, then lets it go on. The wait counts
// against the call's timeout, and ends with its context, whose error is then the
// call's: mostly it counts as a timeout.
func Latency(d Distribution) Fault { return must(latency(d)) }

func latency(d Distribution) (Fault, error) {
	if d.draw == nil {
		return Fault{}, errors.New("latency: no distribution")
	}
	return Fault{text: "latency " + d.text, do: func(h *hit) error {
		// What is drawn is a week at most, so the product fits.
		return h.drill.wait(h.ctx, time.Duration(float64(d.Draw(h.rand))*h.grown))
	}}, nil
}

// Error ends a call with err, as if its run had returned it: [firebreak.Mark] and
// Classify hold for it. [firebreak.ErrOpen], [firebreak.ErrRejected] and
// [firebreak.ErrTimeout] themselves are [Open], [Reject] and [Timeout]. Its text,
// asked for once, is all that String tells of err, so a verdict is lost in [Parse].
// Error panics if err is nil.
func Error(err error) Fault {
	//nolint:errorlint // these stand for themselves; wrapped, they are another command's
	switch err {
	case nil:
		panic("chaos: error: nil is none")
	case firebreak.ErrOpen:
		return Open()
	case firebreak.ErrRejected:
		return Reject()
	case firebreak.ErrTimeout:
		return Timeout()
	}
	return ending("error "+strconv.Quote(err.Error()), err)
}

// Open ends a call as if its circuit were open: it counts as short_circuited, and
// the circuit stays as it is.
func Open() Fault { return ending("open", firebreak.ErrOpen) }

// Reject ends a call as if its bulkhead were full: it counts as rejected.
func Reject() Fault { return ending("reject", firebreak.ErrRejected) }

// Timeout ends a call at once as if its time were over: it counts as a timeout, but
// costs nobody the wait. [Hang] does.
func Timeout() Fault { return ending("timeout", firebreak.ErrTimeout) }

func ending(text string, err error) Fault {
	return Fault{text: text, do: func(*hit) error { return err }}
}

// Hang holds a call until its context ends, and returns the context's error: mostly
// it counts as a timeout. Where that never comes, as with Timeout Off and a caller
// without a deadline, the end of the drill releases the call, and it goes on.
func Hang() Fault {
	return Fault{text: "hang", do: func(h *hit) error { return h.drill.wait(h.ctx, Longest) }}
}

// Sequence is all of the faults in order, until one of them ends the call: a Latency
// and then an Error is an error that comes late. Each draws its own chances. It
// panics if there are none.
func Sequence(faults ...Fault) Fault { return must(sequence(faults)) }

func sequence(faults []Fault) (Fault, error) {
	var parts []Fault // flat, so that the text needs no parentheses
	var texts []string
	for _, f := range faults {
		if err := missing("sequence", f); err != nil {
			return Fault{}, err
		}
		inner := f.parts
		if inner == nil {
			inner = []Fault{f}
		}
		for _, part := range inner {
			parts, texts = append(parts, part), append(texts, part.text)
		}
	}
	switch len(parts) {
	case 0:
		return Fault{}, errors.New("sequence: no fault")
	case 1:
		return parts[0], nil
	}
	return Fault{text: strings.Join(texts, "; "), parts: parts, do: func(h *hit) error {
		for _, part := range parts {
			if err := part.do(h); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

// Chance is f for so many of a hundred calls, each drawn by itself; 0 to 100, and
// fractions of a percent are fine. The others go on untouched.
func Chance(percentage float64, f Fault) Fault { return must(chance(percentage, f)) }

func chance(percentage float64, f Fault) (Fault, error) {
	if err := isPercentage(percentage); err != nil {
		return Fault{}, err
	}
	return f.filtered(percent(percentage), func(h *hit) bool { return h.draws(percentage) })
}

// Ramp is [Chance] that goes from one percentage to another, linearly over the time
// over since the drill began, and stays there. over is from 1ns to [Longest].
func Ramp(from, to float64, over time.Duration, f Fault) Fault { return must(ramp(from, to, over, f)) }

func ramp(from, to float64, over time.Duration, f Fault) (Fault, error) {
	for _, p := range []float64{from, to} {
		if err := isPercentage(p); err != nil {
			return Fault{}, err
		}
	}
	if err := inRange("ramp: over", over, 1); err != nil {
		return Fault{}, err
	}
	return f.filtered(percent(from)+" to "+percent(to)+" over "+short(over), func(h *hit) bool {
		done := h.share(over)
		return h.draws(from*(1-done) + to*done)
	})
}

// Flap is f for the time on, then nothing for the time off, and so on from the
// start of the drill: a dependency that comes and goes. The moment that a call
// comes to the injection decides. Both are from 1ns to [Longest].
func Flap(on, off time.Duration, f Fault) Fault { return must(flap(on, off, f)) }

func flap(on, off time.Duration, f Fault) (Fault, error) {
	if err := inRange("flap: on", on, 1); err != nil {
		return Fault{}, err
	}
	if err := inRange("flap: off", off, 1); err != nil {
		return Fault{}, err
	}
	return f.filtered(short(on)+" on "+short(off)+" off", func(h *hit) bool { return h.since%(on+off) < on })
}

// After is f once the drill has lasted for d, from 1ns to [Longest], and nothing
// before.
func After(d time.Duration, f Fault) Fault { return must(after(d, f)) }

func after(d time.Duration, f Fault) (Fault, error) {
	if err := inRange("after", d, 1); err != nil {
		return Fault{}, err
	}
	return f.filtered("after "+short(d), func(h *hit) bool { return h.since >= d })
}

// Grow is f with latencies that grow, linearly over the time over since the drill
// began, from nothing to their full length. over is from 1ns to [Longest].
func Grow(over time.Duration, f Fault) Fault { return must(grow(over, f)) }

func grow(over time.Duration, f Fault) (Fault, error) {
	if err := inRange("growing: over", over, 1); err != nil {
		return Fault{}, err
	}
	if err := missing("growing", f); err != nil {
		return Fault{}, err
	}
	return Fault{text: "growing over " + short(over) + " " + f.operand(), do: func(h *hit) error {
		within := *h
		within.grown *= h.share(over)
		return f.do(&within)
	}}, nil
}

// Only is f for the calls whose context match says yes to: test traffic, one tenant.
// whose tells people which those are. match is called for each call, concurrently,
// and should be quick; a panic in it counts as one in run. [Parse] cannot read an
// Only: wrap what it did read. Only panics if match is nil.
func Only(whose string, match func(context.Context) bool, f Fault) Fault {
	if match == nil {
		panic("chaos: only: no match")
	}
	return must(f.filtered("only "+strconv.Quote(whose), func(h *hit) bool { return match(h.ctx) }))
}

// filtered is f where holds says yes.
func (f Fault) filtered(text string, holds func(*hit) bool) (Fault, error) {
	if err := missing(text, f); err != nil {
		return Fault{}, err
	}
	return Fault{text: text + " " + f.operand(), do: func(h *hit) error {
		if !holds(h) {
			return nil
		}
		return f.do(h)
	}}, nil
}

// operand is f's text behind a combinator, which takes what comes next and no more.
func (f Fault) operand() string {
	if f.parts != nil {
		return "(" + f.text + ")"
	}
	return f.text
}

func missing(what string, f Fault) error {
	if f.do == nil {
		return fmt.Errorf("%s: no fault", what)
	}
	return nil
}

// draws tells whether a call is among so many of a hundred: never at 0, always at 100.
func (h *hit) draws(percentage float64) bool { return h.rand.Float64() < percentage/100 }

// share is how much of over has passed, 0 to 1.
func (h *hit) share(over time.Duration) float64 { return min(1, float64(h.since)/float64(over)) }

func isPercentage(p float64) error {
	if !(p >= 0 && p <= 100) { // NaN neither
		return fmt.Errorf("%v is not a percentage from 0 to 100", p)
	}
	return nil
}

// percent is a percentage as [Parse] reads it: without a sign, which -0 has.
func percent(p float64) string { return strconv.FormatFloat(math.Abs(p), 'g', -1, 64) + "%" }
