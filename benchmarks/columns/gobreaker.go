package columns

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

var gobreakerAlone = Column{
	Name: "gobreaker",
	New: func(s Spec) *Guard {
		if s.Mode == Pool {
			return nil
		}
		does := Does{Breaker: "10 × 1 s window", Metrics: "window counts", Runs: "caller"}
		if s.Mode == Everything {
			does.Fallback = "by hand"
		}
		return &Guard{Call: gobreakerCall(newGobreaker[int](s), s), Does: does}
	},
	Fleet: func(names []string, s Spec) *Fleet {
		var calls sync.Map
		var all []*gobreaker.CircuitBreaker[int]
		for _, name := range names {
			breaker := newGobreaker[int](s)
			all = append(all, breaker)
			calls.Store(name, gobreakerCall(breaker, s))
		}
		return &Fleet{
			Call: func(ctx context.Context, name string) (int, error) {
				call, _ := calls.Load(name)
				return call.(Run)(ctx)
			},
			Snapshot: func() (seen int) {
				for _, breaker := range all {
					c := breaker.Counts()
					seen += int(c.Requests) + int(c.TotalFailures) + int(breaker.State())
				}
				return seen
			},
			Close: func() {},
		}
	},
}

func newGobreaker[T any](s Spec) *gobreaker.CircuitBreaker[T] {
	volume := uint32(math.MaxUint32)
	if s.Trips {
		volume = tripVolume
	}
	return gobreaker.NewCircuitBreaker[T](gobreaker.Settings{
		Interval: 10 * time.Second, BucketPeriod: time.Second, Timeout: time.Hour,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.Requests >= volume && c.TotalFailures*2 >= c.Requests
		},
	})
}

func gobreakerCall(breaker *gobreaker.CircuitBreaker[int], s Spec) Run {
	return orElse(s, func(ctx context.Context) (int, error) {
		return breaker.Execute(func() (int, error) { return s.Run(ctx) })
	})
}
