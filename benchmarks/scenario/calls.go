package scenario

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
)

// A load is a guard made ready, and how all its calls must end: with a value, or
// refused, with none.
type load struct {
	call    columns.Run
	want    int
	refused bool
	runs    func() int64 // of refused calls, how many reached run all the same; nil if it cannot be asked
	close   func()
	repeat  func(*testing.B, *load)
}

// right says if a call ended as it must. Loops have their own copy of the load's words,
// so that this adds next to nothing to what is measured.
func right(v int, err error, want int, refused bool) bool {
	return v == want && (err != nil) == refused
}

// ready makes sure of the first call before any is measured.
func (l *load) ready(column columns.Column) (*load, error) {
	if l.close == nil {
		l.close = func() {}
	}
	if v, err := l.call(context.Background()); !right(v, err, l.want, l.refused) {
		l.close()
		return nil, fmt.Errorf("%s: the first call ended with %d and the error %q", column.Name, v, fmt.Sprint(err))
	}
	return l, nil
}

func (l *load) loop(b *testing.B) {
	b.Helper()
	l.repeat(b, l)
}

// warmUp is enough for what is made at the first calls: buckets, shards, stacks.
const warmUp = 1000

// oneByOne calls under the context of a request, which can be cancelled.
func oneByOne(b *testing.B, l *load) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	serial(b, ctx, l)
}

// fromBackground calls under a context that never ends, which is cheaper to derive from.
func fromBackground(b *testing.B, l *load) {
	b.Helper()
	serial(b, context.Background(), l)
}

func serial(b *testing.B, ctx context.Context, l *load) {
	b.Helper()
	for range warmUp {
		_, _ = l.call(ctx)
	}
	ran := l.ran()
	runtime.GC()
	b.ReportAllocs()
	call, want, refused, wrong := l.call, l.want, l.refused, int64(0)
	start := processTime()
	for b.Loop() {
		if v, err := call(ctx); !right(v, err, want, refused) {
			wrong++
		}
	}
	b.ReportMetric(float64(processTime()-start)/float64(b.N), CPU)
	b.ReportMetric(float64(wrong+l.ran()-ran)/float64(b.N), Wrong)
}

// together calls from GOMAXPROCS goroutines, each under a request's context of its own.
func together(b *testing.B, l *load) {
	b.Helper()
	for range warmUp {
		_, _ = l.call(context.Background())
	}
	ran := l.ran()
	runtime.GC()
	b.ReportAllocs()
	b.ResetTimer()
	var wrong atomic.Int64
	start := processTime()
	b.RunParallel(func(pb *testing.PB) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		call, want, refused, n := l.call, l.want, l.refused, int64(0)
		for pb.Next() {
			if v, err := call(ctx); !right(v, err, want, refused) {
				n++
			}
		}
		wrong.Add(n)
	})
	b.ReportMetric(float64(processTime()-start)/float64(b.N), CPU)
	b.ReportMetric(float64(wrong.Load()+l.ran()-ran)/float64(b.N), Wrong)
}

func (l *load) ran() int64 {
	if l.runs == nil {
		return 0
	}
	return l.runs()
}

func success(mode columns.Mode, repeat func(*testing.B, *load)) func(columns.Column) (*load, error) {
	return answered(mode, succeed, 1, repeat)
}

func done(column columns.Column) (*load, error) {
	run := func(ctx context.Context) (int, error) {
		_ = ctx.Done()
		return 1, nil
	}
	return answered(columns.Everything, run, 1, oneByOne)(column)
}

func failure(column columns.Column) (*load, error) {
	return answered(columns.Everything, fail, columns.FallbackValue, oneByOne)(column)
}

// answered is a load whose calls all have an answer, run's or the fallback's.
func answered(mode columns.Mode, run columns.Run, want int, repeat func(*testing.B, *load)) func(columns.Column) (*load, error) {
	return func(column columns.Column) (*load, error) {
		spec := everything(mode, run)
		spec.Fallback = mode != columns.BreakerOnly
		g := guard(column, spec)
		if g == nil {
			return nil, nil
		}
		l := &load{call: g.Call, want: want, repeat: repeat, close: func() { closeGuard(g) }}
		return l.ready(column)
	}
}

// open trips the circuit as failures do, and makes sure that run is not reached.
func open(repeat func(*testing.B, *load)) func(columns.Column) (*load, error) {
	return func(column columns.Column) (*load, error) {
		var runs atomic.Int64
		spec := everything(columns.Everything, func(context.Context) (int, error) {
			runs.Add(1)
			return 0, columns.ErrBoom
		})
		spec.Trips = true
		g := guard(column, spec)
		if g == nil {
			return nil, nil
		}
		if g.Does.Breaker == "" {
			closeGuard(g)
			return nil, nil
		}
		if err := trip(g, &runs); err != nil {
			closeGuard(g)
			return nil, fmt.Errorf("%s: %w", column.Name, err)
		}
		l := &load{call: g.Call, refused: true, runs: runs.Load, repeat: repeat, close: func() { closeGuard(g) }}
		return l.ready(column)
	}
}

// trip calls until run is not reached any more. Some count behind the caller's back,
// so that it may take a moment.
func trip(g *columns.Guard, runs *atomic.Int64) error {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		before := runs.Load()
		if _, err := g.Call(context.Background()); err != nil && runs.Load() == before {
			return nil
		}
	}
	return fmt.Errorf("the circuit did not open after %d failures", runs.Load())
}

// full has one call inside, which holds the only permit until the load is closed.
func full(column columns.Column) (*load, error) {
	var runs atomic.Int64
	inside, leave := make(chan struct{}), make(chan struct{})
	spec := everything(columns.Everything, func(context.Context) (int, error) {
		if runs.Add(1) == 1 {
			close(inside)
			<-leave
		}
		return 1, nil
	})
	spec.MaxConcurrent, spec.Timeout = 1, time.Hour
	g := guard(column, spec)
	if g == nil {
		return nil, nil
	}
	if g.Does.Limit == "" {
		closeGuard(g)
		return nil, nil
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		for runs.Load() == 0 { // go-resiliency may reject even the first, by chance
			_, _ = g.Call(context.Background())
		}
	}()
	<-inside
	l := &load{call: g.Call, refused: true, runs: runs.Load, repeat: oneByOne, close: func() {
		close(leave)
		<-left
		closeGuard(g)
	}}
	return l.ready(column)
}

// names are of the length that names have.
func names(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("payments.partner-%05d.authorize", i)
	}
	return out
}

func fleet(column columns.Column, names []string) *columns.Fleet {
	if column.Fleet == nil {
		return nil
	}
	spec := everything(columns.Everything, succeed)
	spec.Fallback = true
	return column.Fleet(names, spec)
}

// byName steps through the names by a prime, so that no cache sees the next one coming.
func byName(n int) func(columns.Column) (*load, error) {
	return func(column columns.Column) (*load, error) {
		if column.New == nil {
			return nil, nil
		}
		names := names(n)
		f := fleet(column, names)
		if f == nil {
			return nil, nil
		}
		for _, name := range names {
			_, _ = f.Call(context.Background(), name)
		}
		i := 0
		l := &load{want: 1, repeat: oneByOne, close: f.Close, call: func(ctx context.Context) (int, error) {
			i = (i + 7919) % n
			return f.Call(ctx, names[i])
		}}
		return l.ready(column)
	}
}
