package columns

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// byHand is what a careful person writes without a library for it: gobreaker, a
// channel as semaphore, context.WithTimeout, and an if for the fallback.
var byHand = Column{
	Name: "by-hand",
	New: func(s Spec) *Guard {
		if s.Mode == BreakerOnly {
			return nil // that is the column gobreaker
		}
		does := Does{
			Timeout: "context", Limit: "semaphore", Breaker: "10 × 1 s window", Fallback: "by hand",
			Metrics: "window counts", Runs: "caller",
		}
		if s.Mode == Pool {
			does.Timeout, does.Runs = "leaves", "1 goroutine"
		}
		return &Guard{Call: handmadeCall(s), Does: does}
	},
	Fleet: func(names []string, s Spec) *Fleet {
		var calls sync.Map
		for _, name := range names {
			calls.Store(name, handmadeCall(s))
		}
		return &Fleet{
			Call: func(ctx context.Context, name string) (int, error) {
				call, _ := calls.Load(name)
				return call.(Run)(ctx)
			},
			Close: func() {},
		}
	},
	HTTP: handmadeHTTP,
	Gather: &Gatherer{
		Gather: handmadeGather,
		Does:   GatherDoes{Twice: "twice", Ended: "have its error", Panic: "ends the program", Goroutines: "one a key"},
	},
	Cache: &Cache{
		New:  handmadeCache,
		Does: CacheDoes{Runs: "1 goroutine", Ended: "leaves", AllLeft: "goes on", Panic: "ends the program"},
	},
}

var errFull = errors.New("full")

func handmadeCall(s Spec) Run {
	h := &handmade{spec: s, breaker: newGobreaker[int](s), permits: make(chan struct{}, s.MaxConcurrent)}
	h.over = h.release // bound once: a method value in a call is an allocation
	if s.Mode == Pool {
		return orElse(s, h.callElsewhere)
	}
	return orElse(s, h.call)
}

type handmade struct {
	spec    Spec
	breaker *gobreaker.CircuitBreaker[int]
	permits chan struct{}
	over    func()
}

func (h *handmade) acquire() bool {
	select {
	case h.permits <- struct{}{}:
		return true
	default:
		return false
	}
}

func (h *handmade) release() { <-h.permits }

func (h *handmade) call(ctx context.Context) (int, error) {
	if !h.acquire() {
		return 0, errFull
	}
	defer h.release()
	return h.breaker.Execute(func() (int, error) {
		ctx, cancel := context.WithTimeout(ctx, h.spec.Timeout)
		defer cancel()
		return h.spec.Run(ctx)
	})
}

// callElsewhere gives the permit back when run is over, not when the caller leaves.
func (h *handmade) callElsewhere(ctx context.Context) (int, error) {
	if !h.acquire() {
		return 0, errFull
	}
	began := false
	v, err := h.breaker.Execute(func() (int, error) {
		began = true
		return elsewhere(ctx, h.spec.Timeout, h.spec.Run, h.over)
	})
	if !began {
		h.release()
	}
	return v, err
}

// elsewhere calls run on another goroutine and comes back at the deadline at the
// latest: a goroutine, a channel and a timer.
func elsewhere(ctx context.Context, timeout time.Duration, run Run, over func()) (int, error) {
	type answer struct {
		v   int
		err error
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answers := make(chan answer, 1)
	go func() {
		defer over()
		v, err := run(ctx)
		answers <- answer{v, err}
	}()
	select {
	case a := <-answers:
		return a.v, a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
