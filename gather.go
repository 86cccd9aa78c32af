package firebreak

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// Gather calls fn once for each distinct key, at most limit of them at a time, and
// returns the values there are. If a key has none, the error is a [KeyErrors] with
// those keys, and the values of the others are there all the same; a value beside an
// error is dropped.
//
// fn is mostly what [Bind] or [Cached] made: keep limit at or below what its bulkhead
// has room for, or keys are rejected. For an fn that [Collapse] made, which must see
// all keys at once, say [Unlimited].
//
// It returns when the last fn has. When ctx ends, keys whose turn has not come get
// its error; those that have begun end as fn heeds its context. A panic of fn is its
// key's error, a [*PanicError]. Gather panics if ctx or fn is nil, or limit neither
// positive nor Unlimited.
func Gather[K comparable, V any](ctx context.Context, keys []K, limit int, fn func(context.Context, K) (V, error)) (map[K]V, error) {
	if ctx == nil || fn == nil {
		panic("firebreak: Gather needs a context and a function")
	}
	if limit < 1 && limit != Unlimited {
		panic(fmt.Sprintf("firebreak: Gather: limit: %d is neither positive nor Unlimited", limit))
	}
	g := &gathering[K, V]{ctx: ctx, fn: fn, results: make([]gathered[K, V], 0, len(keys))}
	seen := make(map[K]struct{}, len(keys))
	for _, key := range keys {
		if _, twice := seen[key]; !twice {
			seen[key] = struct{}{}
			g.results = append(g.results, gathered[K, V]{key: key})
		}
	}
	if limit == Unlimited {
		limit = len(g.results)
	}
	for range min(limit, len(g.results)) {
		g.workers.Go(g.work)
	}
	g.workers.Wait()
	return g.sum()
}

// A gathering is one Gather. Each result is its worker's until the workers are done.
type gathering[K comparable, V any] struct {
	ctx     context.Context
	fn      func(context.Context, K) (V, error)
	next    atomic.Int64 // the first result that no worker has
	results []gathered[K, V]
	workers sync.WaitGroup
}

type gathered[K comparable, V any] struct {
	key K
	v   V
	err error
}

// work takes keys until there are no more.
func (g *gathering[K, V]) work() {
	for {
		i := int(g.next.Add(1)) - 1
		if i >= len(g.results) {
			return
		}
		g.one(&g.results[i])
	}
}

func (g *gathering[K, V]) one(r *gathered[K, V]) {
	returned := false
	defer func() {
		if returned {
			return
		}
		p := recover()
		r.err = panicked(p).err
		if p == nil { // Goexit: this goroutine ends, and another goes on
			g.workers.Go(g.work)
		}
	}()
	if r.err = g.ctx.Err(); r.err == nil {
		r.v, r.err = g.fn(g.ctx, r.key)
	}
	returned = true
}

func (g *gathering[K, V]) sum() (map[K]V, error) {
	values := make(map[K]V, len(g.results))
	var failed KeyErrors[K]
	for i := range g.results {
		r := &g.results[i]
		if r.err == nil {
			values[r.key] = r.v
			continue
		}
		if failed == nil {
			failed = KeyErrors[K]{}
		}
		failed[r.key] = r.err
	}
	if failed == nil {
		return values, nil
	}
	return values, failed
}
