package columns

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/afex/hystrix-go/hystrix"
)

// hystrixGo has one way to run: a goroutine for the call, a second one that watches
// it, and two more for the metrics of every command, which are never ended.
var hystrixGo = Column{
	Name: "hystrix-go",
	New: func(s Spec) *Guard {
		// Its commands are global: without a name of its own, one guard would find
		// the last one's circuit.
		name := fmt.Sprintf("benchmark-%d", hystrixCommands.Add(1))
		configureHystrix(name, s)
		return &Guard{
			Call: func(ctx context.Context) (int, error) { return hystrixDo(ctx, name, s) },
			Does: Does{
				Timeout: "leaves", Limit: "tickets", Breaker: "10 × 1 s window", Fallback: "library",
				Metrics: "counts, percentiles", Runs: "2 goroutines",
			},
		}
	},
	Fleet: func(names []string, s Spec) *Fleet {
		for _, name := range names {
			configureHystrix(name, s)
			_, _, _ = hystrix.GetCircuit(name) // makes it
		}
		return &Fleet{
			Call:  func(ctx context.Context, name string) (int, error) { return hystrixDo(ctx, name, s) },
			Close: hystrix.Flush,
		}
	},
}

var hystrixCommands atomic.Int64

func configureHystrix(name string, s Spec) {
	c := hystrix.CommandConfig{
		Timeout: int(s.Timeout.Milliseconds()), MaxConcurrentRequests: s.MaxConcurrent,
		RequestVolumeThreshold: never, SleepWindow: int(time.Hour.Milliseconds()), ErrorPercentThreshold: 50,
	}
	if s.Mode == BreakerOnly { // as near as it comes to it
		c.Timeout, c.MaxConcurrentRequests = int(time.Hour.Milliseconds()), 1000
	}
	if s.Trips {
		c.RequestVolumeThreshold = tripVolume
	}
	hystrix.ConfigureCommand(name, c)
}

// hystrixDo keeps the value in an atomic, since a run that is late still writes its
// own while the fallback's is read.
func hystrixDo(ctx context.Context, name string, s Spec) (int, error) {
	var value atomic.Int64
	var fallback func(context.Context, error) error
	if s.Fallback {
		fallback = func(context.Context, error) error { value.Store(FallbackValue); return nil }
	}
	err := hystrix.DoC(ctx, name, func(ctx context.Context) error {
		v, err := s.Run(ctx)
		if err == nil {
			value.Store(int64(v))
		}
		return err
	}, fallback)
	return int(value.Load()), err
}
