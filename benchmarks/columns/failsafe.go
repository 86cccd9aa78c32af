package columns

import (
	"context"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/fallback"
	"github.com/failsafe-go/failsafe-go/timeout"
)

var failsafeGo = Column{
	Name: "failsafe-go",
	New: func(s Spec) *Guard {
		does := Does{Breaker: "10 × 1 s window", Metrics: "window counts", Runs: "caller"}
		if s.Mode != BreakerOnly {
			does.Timeout, does.Limit, does.Fallback = "context", "semaphore", "library"
		}
		if s.Mode == Pool {
			does.Runs = "1 goroutine" // and yet its timeout waits for run to return
		}
		executor, _ := newFailsafe(s)
		return &Guard{Call: failsafeCall(executor, s), Does: does}
	},
	Fleet: func(names []string, s Spec) *Fleet {
		var calls sync.Map
		var all []circuitbreaker.CircuitBreaker[int]
		for _, name := range names {
			executor, breaker := newFailsafe(s)
			all = append(all, breaker)
			calls.Store(name, failsafeCall(executor, s))
		}
		return &Fleet{
			Call: func(ctx context.Context, name string) (int, error) {
				call, _ := calls.Load(name)
				return call.(Run)(ctx)
			},
			Snapshot: func() (seen int) {
				for _, breaker := range all {
					m := breaker.Metrics()
					seen += int(m.Executions()) + int(m.Failures()) + int(m.Successes()) + int(m.FailureRate()) + int(breaker.State())
				}
				return seen
			},
			Close: func() {},
		}
	},
	HTTP: failsafeHTTP,
}

func newFailsafe(s Spec) (failsafe.Executor[int], circuitbreaker.CircuitBreaker[int]) {
	volume := uint(never)
	if s.Trips {
		volume = tripVolume
	}
	breaker := circuitbreaker.NewBuilder[int]().
		WithFailureRateThreshold(0.5, volume, 10*time.Second).WithDelay(time.Hour).Build()
	if s.Mode == BreakerOnly {
		return failsafe.With[int](breaker), breaker
	}
	policies := []failsafe.Policy[int]{timeout.New[int](s.Timeout), breaker, bulkhead.New[int](uint(s.MaxConcurrent))}
	if s.Fallback {
		policies = append([]failsafe.Policy[int]{fallback.NewWithResult(FallbackValue)}, policies...)
	}
	return failsafe.With(policies...), breaker
}

func failsafeCall(executor failsafe.Executor[int], s Spec) Run {
	run := func(e failsafe.Execution[int]) (int, error) { return s.Run(e.Context()) }
	switch s.Mode {
	case BreakerOnly:
		return func(ctx context.Context) (int, error) {
			return executor.Get(func() (int, error) { return s.Run(ctx) })
		}
	case Pool:
		return func(ctx context.Context) (int, error) {
			return executor.WithContext(ctx).GetAsyncWithExecution(run).Get()
		}
	default:
		return func(ctx context.Context) (int, error) {
			return executor.WithContext(ctx).GetWithExecution(run)
		}
	}
}
