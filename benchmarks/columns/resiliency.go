package columns

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/eapache/go-resiliency/breaker"
	"github.com/eapache/go-resiliency/deadline"
	"github.com/eapache/go-resiliency/semaphore"
)

// goResiliency is three packages put together. Its only timeout is the one that
// leaves run behind, so that Everything is the same as Pool.
var goResiliency = Column{
	Name: "go-resiliency",
	New: func(s Spec) *Guard {
		threshold := never
		if s.Trips {
			threshold = 1
		}
		br := breaker.New(threshold, 1, time.Hour)
		if s.Mode == BreakerOnly {
			return &Guard{
				Does: Does{Breaker: "error count", Runs: "caller"},
				Call: func(ctx context.Context) (v int, err error) {
					err = br.Run(func() (err error) { v, err = s.Run(ctx); return err })
					return v, err
				},
			}
		}
		// Its semaphore cannot be tried. With a short wait the permit and the timer
		// are often ready together, and then it rejects by chance.
		wait := 10 * time.Millisecond
		if s.MaxConcurrent < 10 {
			wait = time.Nanosecond // where it is meant to reject
		}
		permits, limit := semaphore.New(s.MaxConcurrent, wait), deadline.New(s.Timeout)
		return &Guard{
			Does: Does{Timeout: "leaves", Limit: "semaphore", Breaker: "error count", Fallback: "by hand", Runs: "1 goroutine"},
			Call: orElse(s, func(ctx context.Context) (int, error) {
				if err := permits.Acquire(); err != nil {
					return 0, err
				}
				defer permits.Release() // when the caller leaves: run may go on without
				var value atomic.Int64
				err := br.Run(func() error {
					return limit.Run(func(<-chan struct{}) error {
						v, err := s.Run(ctx)
						value.Store(int64(v))
						return err
					})
				})
				return int(value.Load()), err
			}),
		}
	},
}
