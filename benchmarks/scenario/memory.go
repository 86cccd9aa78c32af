package scenario

import (
	"context"
	"runtime"
	"time"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
)

// The units of what a command holds.
const (
	HeapAtRest          = "heap-B/at-rest"
	HeapAfterOne        = "heap-B/after-1"
	HeapAfterMany       = "heap-B/after-100"
	StackAfterMany      = "stack-B/after-100"
	GoroutinesAfterMany = "goroutines/after-100"
)

func memory(column columns.Column) (Metrics, error) {
	if column.New == nil {
		return nil, nil
	}
	const n = 10_000
	names := names(n)
	before := usageNow()
	f := fleet(column, names)
	if f == nil {
		return nil, nil
	}
	defer f.Close()
	call := func(times int) usage {
		for range times {
			for _, name := range names {
				_, _ = f.Call(context.Background(), name)
			}
		}
		time.Sleep(300 * time.Millisecond) // for those that count behind the caller's back
		return usageNow().since(before)
	}
	rest, one, many := call(0), call(1), call(99)
	runtime.KeepAlive(names)
	runtime.KeepAlive(f)
	return Metrics{
		HeapAtRest: rest.heap / n, HeapAfterOne: one.heap / n, HeapAfterMany: many.heap / n,
		StackAfterMany: many.stack / n, GoroutinesAfterMany: many.goroutines / n,
	}, nil
}

// usage is what the process holds.
type usage struct{ heap, stack, goroutines float64 }

func usageNow() usage {
	for range 3 { // what finalizers and pools keep for a cycle or two is garbage too
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{float64(m.HeapAlloc), float64(m.StackInuse), float64(runtime.NumGoroutine())}
}

func (u usage) since(before usage) usage {
	return usage{u.heap - before.heap, u.stack - before.stack, u.goroutines - before.goroutines}
}
