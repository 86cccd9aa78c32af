package scenario

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
)

// The units of calls in flight. Those per call include the caller's goroutine.
const (
	HeapPerCall       = "heap-B/call"
	StackPerCall      = "stack-B/call"
	GoroutinesPerCall = "goroutines/call"
	Admission         = "admission-ns/call"
	FurtherIdle       = "further-call-ns/none-in-flight" // the median of one more call
	FurtherLoaded     = "further-call-ns/all-in-flight"
	Drain             = "drain-ns/call"
)

// inFlight has many calls blocked at once.
type inFlight struct {
	mode  columns.Mode
	calls int
}

func (f inFlight) what() string {
	return fmt.Sprintf("%d calls blocked at once, %v; what each costs, and what one more call costs then", f.calls, f.mode)
}

func (f inFlight) measure(column columns.Column) (Metrics, error) {
	var inside atomic.Int64
	var blocking atomic.Bool
	leave := make(chan struct{})
	spec := everything(f.mode, func(context.Context) (int, error) {
		if blocking.Load() {
			inside.Add(1)
			<-leave
		}
		return 1, nil
	})
	spec.Timeout, spec.MaxConcurrent, spec.Fallback = 10*time.Minute, 2*f.calls, true
	g := guard(column, spec)
	if g == nil {
		return nil, nil
	}
	defer closeGuard(g)
	if onCaller := g.Does.Runs == "caller"; onCaller != (f.mode == columns.Everything) {
		return nil, nil
	}

	furtherIdle := furtherCall(g)
	before := usageNow()
	blocking.Store(true)
	var callers sync.WaitGroup
	start := time.Now()
	for range f.calls {
		callers.Go(func() { _, _ = g.Call(context.Background()) })
	}
	// A column that rejects by chance never has all of them inside.
	for enough := int64(f.calls) * 99 / 100; inside.Load() < enough; time.Sleep(time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			close(leave)
			return nil, fmt.Errorf("%s: only %d of %d calls came in", column.Name, inside.Load(), f.calls)
		}
	}
	admission := time.Since(start)
	loaded := usageNow().since(before)
	blocking.Store(false)
	furtherLoaded := furtherCall(g)

	start = time.Now()
	close(leave)
	callers.Wait()
	n := float64(f.calls)
	return Metrics{
		HeapPerCall: loaded.heap / n, StackPerCall: loaded.stack / n, GoroutinesPerCall: loaded.goroutines / n,
		Admission: float64(admission.Nanoseconds()) / n, Drain: float64(time.Since(start).Nanoseconds()) / n,
		FurtherIdle: float64(furtherIdle.Nanoseconds()), FurtherLoaded: float64(furtherLoaded.Nanoseconds()),
	}, nil
}

func furtherCall(g *columns.Guard) time.Duration {
	times := make([]time.Duration, 2000)
	for i := range times {
		start := time.Now()
		_, _ = g.Call(context.Background())
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	return percentile(times, 50)
}
