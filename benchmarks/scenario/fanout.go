package scenario

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
)

// Where many keys are asked for, what is looped over is a round of asks, and all units are
// per ask. A round answers how many of its asks ended as they must.

const (
	roundOf     = 100              // keys, and callers where each is another's
	atATime     = 10               // of Gather
	fetchTakes  = time.Millisecond // less is no sleep that an idle machine can sleep
	batchWindow = time.Second      // batches are full long before
)

var keys = func() []string {
	out := make([]string, roundOf)
	for i := range out {
		out[i] = fmt.Sprintf("users:%05d", i)
	}
	return out
}()

// valueOf is what there is of a key, its last two digits: values below 256 cost nothing
// to put into an interface, in favour of those who must.
func valueOf(key string) int {
	n := len(key)
	return int(key[n-2]-'0')*10 + int(key[n-1]-'0')
}

func fetchAtOnce(_ context.Context, key string) (int, error) { return valueOf(key), nil }

func fetchOrFail(_ context.Context, key string) (int, error) {
	if oneInTen(key) {
		return 0, columns.ErrBoom
	}
	return valueOf(key), nil
}

// fetchAfterSome waits, as for an answer from elsewhere.
func fetchAfterSome(_ context.Context, key string) (int, error) {
	time.Sleep(fetchTakes)
	return valueOf(key), nil
}

func oneInTen(key string) bool { return valueOf(key)%10 == 0 }

func none(string) bool { return false }

func loadAll(_ context.Context, keys []string, answer func(i, v int)) error {
	for i, key := range keys {
		answer(i, valueOf(key))
	}
	return nil
}

// inRounds is how a load whose call is a round of so many asks is repeated.
func inRounds(b *testing.B, l *load) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	call, asks, wrong := l.call, l.want, 0
	for range max(1, warmUp/asks) {
		_, _ = call(ctx)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start, cpu := time.Now(), processTime()
	for b.Loop() {
		right, err := call(ctx)
		if err != nil {
			right = 0
		}
		wrong += asks - right
	}
	passed, spent := time.Since(start), processTime()-cpu
	runtime.ReadMemStats(&after)
	per := func(total float64) float64 { return total / float64(b.N) / float64(asks) }
	b.ReportMetric(per(float64(spent)), CPU)
	b.ReportMetric(per(float64(passed)), Wall)
	b.ReportMetric(per(float64(after.TotalAlloc-before.TotalAlloc)), Bytes)
	b.ReportMetric(per(float64(after.Mallocs-before.Mallocs)), Allocs)
	b.ReportMetric(per(float64(wrong)), Wrong)
}

// gathering fetches all keys. Of what comes back the numbers are looked at and one key,
// another each round: to look at all would be a good part of the work.
func gathering(fetch columns.Fetch, fails func(key string) bool) func(columns.Column) (*load, error) {
	values := 0
	for _, key := range keys {
		if !fails(key) {
			values++
		}
	}
	return func(column columns.Column) (*load, error) {
		if column.Gather == nil {
			return nil, nil
		}
		gather := column.Gather.Gather
		found, errs := gather(context.Background(), keys, atATime, fetch)
		for _, key := range keys {
			if !cameTo(key, fails, found, errs) {
				return nil, fmt.Errorf("%s: %s came to %d and the error %q", column.Name, key, found[key], fmt.Sprint(errs[key]))
			}
		}
		i := 0
		l := &load{want: roundOf, repeat: inRounds, call: func(ctx context.Context) (int, error) {
			found, errs := gather(ctx, keys, atATime, fetch)
			right := min(len(found), values) + min(len(errs), roundOf-values)
			if i = (i + 1) % roundOf; !cameTo(keys[i], fails, found, errs) {
				right--
			}
			return right, nil
		}}
		return l.ready(column)
	}
}

// cameTo tells whether there is of a key what there must be, and nothing else.
func cameTo(key string, fails func(string) bool, found map[string]int, errs map[string]error) bool {
	v, ok := found[key]
	if fails(key) {
		return !ok && errors.Is(errs[key], columns.ErrBoom)
	}
	return ok && v == valueOf(key) && errs[key] == nil
}

// hits asks for what is kept, a hundred values in one request.
func hits(repeat func(*testing.B, *load)) func(columns.Column) (*load, error) {
	return func(column columns.Column) (*load, error) {
		if column.Cache == nil {
			return nil, nil
		}
		var fetches atomic.Int64
		asks := column.Cache.New(func(ctx context.Context, key string) (int, error) {
			fetches.Add(1)
			return fetchAtOnce(ctx, key)
		})
		requested, cancel := context.WithCancel(context.Background())
		request, get := asks.Begin(requested)
		for _, key := range keys {
			_, _ = get(request, key)
		}
		key := keys[1] // for all, as they may ask at once
		l := &load{want: valueOf(key), repeat: repeat, runs: func() int64 { return fetches.Load() - roundOf }}
		l.call = func(context.Context) (int, error) { return get(request, key) }
		l.close = func() { cancel(); closeAsks(asks) }
		return l.ready(column)
	}
}

// misses is a request in which each key is asked for once, by one goroutine.
func misses(column columns.Column) (*load, error) {
	if column.Cache == nil {
		return nil, nil
	}
	asks := column.Cache.New(fetchAtOnce)
	l := &load{want: roundOf, repeat: inRounds, close: func() { closeAsks(asks) }}
	l.call = func(ctx context.Context) (int, error) {
		right := 0
		ctx, get := asks.Begin(ctx)
		for _, key := range keys {
			if v, err := get(ctx, key); err == nil && v == valueOf(key) {
				right++
			}
		}
		return right, nil
	}
	return l.ready(column)
}

// shared is a request in which all callers ask for the same key at once: the fetch waits
// until all are there.
func shared(column columns.Column) (*load, error) {
	if column.Cache == nil {
		return nil, nil
	}
	var came, fetches atomic.Int64
	allCame := make(chan struct{}, 1)
	asks := column.Cache.New(func(ctx context.Context, key string) (int, error) {
		if fetches.Add(1) == 1 {
			<-allCame
		}
		return fetchAtOnce(ctx, key)
	})
	all := newCallers(func(ctx context.Context, _ int, get columns.Fetch) bool {
		if came.Add(1) == roundOf {
			allCame <- struct{}{}
		}
		v, err := get(ctx, keys[1])
		return err == nil && v == valueOf(keys[1])
	})
	l := &load{want: roundOf, repeat: inRounds, close: func() { all.leave(); closeAsks(asks) }}
	l.call = func(ctx context.Context) (int, error) {
		came.Store(0)
		fetches.Store(0)
		right := all.ask(asks.Begin(ctx))
		return right - int(fetches.Load()-1), nil // none too many, none too few
	}
	return l.ready(column)
}

// batches is a batch of a hundred keys, each another caller's. It is full with the last one,
// so that no time is waited for. Where values are kept all then ask once more.
func batches(keep bool) func(columns.Column) (*load, error) {
	return func(column columns.Column) (*load, error) {
		if column.Collapse == nil {
			return nil, nil
		}
		var loads atomic.Int64
		asks := column.Collapse.New(everything(columns.Everything, nil), columns.Batch{
			Most: roundOf, Window: batchWindow, Keep: keep,
			Load: func(ctx context.Context, keys []string, answer func(i, v int)) error {
				loads.Add(1)
				return loadAll(ctx, keys, answer)
			},
		})
		all := newCallers(func(ctx context.Context, i int, get columns.Fetch) bool {
			v, err := get(ctx, keys[i])
			return err == nil && v == valueOf(keys[i])
		})
		l := &load{want: roundOf, repeat: inRounds, close: func() { all.leave(); closeAsks(asks) }}
		if keep {
			l.want *= 2
		}
		l.call = func(ctx context.Context) (int, error) {
			loads.Store(0)
			ctx, get := asks.Begin(ctx)
			right := 0
			for range l.want / roundOf {
				right += all.ask(ctx, get)
			}
			return right - int(loads.Load()-1), nil
		}
		return l.ready(column)
	}
}

func closeAsks(asks *columns.Asks) {
	if asks.Close != nil {
		asks.Close()
	}
}

// callers are a hundred goroutines that stay: what it costs to start one is no column's.
type callers struct {
	turns chan int
	asked sync.WaitGroup
	gone  sync.WaitGroup
	right atomic.Int64

	// Of the round.
	ctx context.Context
	get columns.Fetch
}

// newCallers makes callers who do ask, each with a number of its own, and tell if the answer
// was right.
func newCallers(ask func(ctx context.Context, i int, get columns.Fetch) bool) *callers {
	c := &callers{turns: make(chan int, roundOf)}
	for range roundOf {
		c.gone.Go(func() {
			for i := range c.turns {
				if ask(c.ctx, i, c.get) {
					c.right.Add(1)
				}
				c.asked.Done()
			}
		})
	}
	return c
}

// ask has each ask once, and returns how many had the right answer.
func (c *callers) ask(ctx context.Context, get columns.Fetch) int {
	c.ctx, c.get = ctx, get
	c.right.Store(0)
	c.asked.Add(roundOf)
	for i := range roundOf {
		c.turns <- i
	}
	c.asked.Wait()
	return int(c.right.Load())
}

func (c *callers) leave() {
	close(c.turns)
	c.gone.Wait()
}
