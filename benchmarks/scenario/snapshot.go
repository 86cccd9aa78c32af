package scenario

import (
	"context"
	"math"
	"runtime"
	"sync"
	"testing"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
)

// snapshot reads a thousand commands that have been called and are being called.
func snapshot(column columns.Column) (*load, error) {
	names := names(1000)
	f := fleet(column, names)
	if f == nil {
		return nil, nil
	}
	if f.Snapshot == nil {
		f.Close()
		return nil, nil
	}
	callAll := func() {
		for _, name := range names {
			_, _ = f.Call(context.Background(), name)
		}
	}
	for range 50 {
		callAll()
	}
	l := &load{close: f.Close, want: 1, call: func(context.Context) (int, error) {
		return min(f.Snapshot(), 1), nil // more than nothing was seen
	}}
	l.repeat = func(b *testing.B, l *load) {
		b.Helper()
		scrape(b, l, callAll)
	}
	return l.ready(column)
}

// scrape counts the processor time of its own thread: the load has the other one, and
// what the load costs is no part of a snapshot. Allocations are counted before the
// load begins, for the same reason.
func scrape(b *testing.B, l *load, callAll func()) {
	b.Helper()
	ctx := context.Background()
	bytes, allocs := allocations(func() { _, _ = l.call(ctx) })

	var load sync.WaitGroup
	stop := make(chan struct{})
	load.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				callAll()
			}
		}
	})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	wrong, start := 0, threadTime()
	for b.Loop() {
		if v, err := l.call(ctx); !right(v, err, l.want, l.refused) {
			wrong++
		}
	}
	b.ReportMetric(float64(threadTime()-start)/float64(b.N), CPU)
	b.ReportMetric(float64(wrong)/float64(b.N), Wrong)
	b.ReportMetric(bytes, Bytes)
	b.ReportMetric(allocs, Allocs)
	close(stop)
	load.Wait()
}

// allocations is the least that f was seen to allocate: the runtime, too, allocates now
// and then.
func allocations(f func()) (bytes, allocs float64) {
	f()
	var before, after runtime.MemStats
	bytes, allocs = math.Inf(1), math.Inf(1)
	for range 20 {
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		bytes = min(bytes, float64(after.TotalAlloc-before.TotalAlloc))
		allocs = min(allocs, float64(after.Mallocs-before.Mallocs))
	}
	return bytes, allocs
}
