package columns

import (
	"context"
	"sync"
	"time"

	"github.com/firebreak-go/firebreak"
)

var ours = Column{
	Name: "firebreak",
	New: func(s Spec) *Guard {
		reg := firebreak.NewRegistry(firebreak.Config{})
		does := Does{
			Timeout: "context", Limit: "semaphore", Breaker: "10 × 1 s window", Fallback: "library",
			Metrics: "counts, percentiles, histogram", Runs: "caller",
		}
		switch s.Mode {
		case BreakerOnly:
			does.Timeout, does.Limit, does.Fallback = "", "", ""
		case Pool:
			does.Timeout, does.Limit, does.Runs = "leaves", "pool", "1 goroutine"
		}
		return &Guard{
			Call:  firebreakCall(reg.Command("benchmark", firebreakConfig(s)), s),
			Does:  does,
			Close: func() { shutDown(reg) },
		}
	},
	Fleet: func(names []string, s Spec) *Fleet {
		reg := firebreak.NewRegistry(firebreakConfig(s))
		var commands sync.Map
		for _, name := range names {
			commands.Store(name, reg.Command(name, firebreak.Config{}))
		}
		fallback := firebreak.Static(FallbackValue)
		return &Fleet{
			Call: func(ctx context.Context, name string) (int, error) {
				cmd, _ := commands.Load(name)
				return firebreak.Do(ctx, cmd.(*firebreak.Command), s.Run, fallback)
			},
			Snapshot: func() (seen int) {
				for cmd := range reg.Commands() {
					shot := cmd.Snapshot()
					seen += int(shot.Window.Calls()) + shot.InFlight + int(shot.RunLatency.P99)
				}
				return seen
			},
			Close: func() { shutDown(reg) },
		}
	},
	HTTP: firebreakHTTP,
	Gather: &Gatherer{
		Gather: firebreakGather,
		Does:   GatherDoes{Twice: "once", Ended: "have its error", Panic: "the key's error", Goroutines: "the limit"},
	},
	Cache: &Cache{
		New:  firebreakCache,
		Does: CacheDoes{Runs: "1 goroutine", Ended: "leaves", AllLeft: "its context ends", Panic: "everybody's error"},
	},
	Collapse: &Collapser{
		New: firebreakCollapse,
		Does: CollapseDoes{
			Timeout: "context", Limit: "semaphore", Breaker: "10 × 1 s window", Metrics: "counts, percentiles, histogram",
			Twice: "is loaded once", Ended: "leaves", AllLeft: "its context ends", Panic: "everybody's error",
		},
	},
}

func firebreakConfig(s Spec) firebreak.Config {
	c := firebreak.Config{Timeout: s.Timeout, MaxConcurrent: s.MaxConcurrent, RequestVolumeThreshold: never}
	switch s.Mode {
	case BreakerOnly:
		c.Timeout, c.MaxConcurrent, c.MaxFallbacks = firebreak.Off, firebreak.Unlimited, firebreak.Off
	case Pool:
		c.Isolation = firebreak.PoolIsolation
	}
	if s.Trips {
		c.RequestVolumeThreshold, c.SleepWindow = tripVolume, time.Hour
	}
	return c
}

func firebreakCall(cmd *firebreak.Command, s Spec) Run {
	if !s.Fallback {
		return func(ctx context.Context) (int, error) { return firebreak.Do(ctx, cmd, s.Run) }
	}
	fallback := firebreak.Static(FallbackValue)
	return func(ctx context.Context) (int, error) { return firebreak.Do(ctx, cmd, s.Run, fallback) }
}

// shutDown waits for what is still running: a scenario has ended all its runs by then,
// so a permit that is never given back shows as a hang.
func shutDown(reg *firebreak.Registry) { _ = reg.Shutdown(context.Background()) }
