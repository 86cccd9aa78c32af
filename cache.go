package firebreak

import (
	"context"
	"sync/atomic"
	"time"
)

// Cached returns fn, run once for each key in a scope ([WithScope]): who asks for a key
// that is being fetched waits for it, who asks later gets what came of it. Errors are
// not kept, nor values that a fallback made: the next one asks again. Without a scope
// it is fn.
//
// fn runs in a goroutine of its own, under the values of the first caller's context
// but not its end: each caller waits as long as its own context lasts, and when the
// last has left, the context of fn ends. A panic of fn is everybody's error, a
// [*PanicError]. Values are shared: do not change one. An fn that asks for its own key
// waits for itself.
//
// fn is not guarded by cmd: it is what [Bind] or [Collapse] made. cmd is where those
// are counted who got a value, or an error, that somebody else asked for
// ([Counts.CacheHits]); they are no calls. Cached panics if cmd or fn is nil. In a scope,
// what it returns panics on a key that cannot be compared: an interface with a slice.
func Cached[K comparable, V any](cmd *Command, fn func(context.Context, K) (V, error)) func(context.Context, K) (V, error) {
	if cmd == nil || fn == nil {
		panic("firebreak: Cached needs a command and a function")
	}
	cached.Store(true)
	c := &cache[K, V]{cmd: cmd, fn: fn}
	return c.get
}

type cache[K comparable, V any] struct {
	cmd *Command
	fn  func(context.Context, K) (V, error)
}

// A sharing is one run of fn, for all who ask meanwhile or, if it is kept, later.
// Invariant: whoever finds it in the scope's cache joins it, and it is there from its
// beginning until it comes to nothing that is kept, or its last waiter leaves.
type sharing[V any] struct {
	done   chan struct{} // closed when v and err are there
	cancel context.CancelFunc
	v      V
	err    error
	mended mended

	// Guarded by the scope's mu.
	waiters int
	over    bool
}

func (c *cache[K, V]) get(ctx context.Context, key K) (V, error) {
	must(ctx != nil)
	s := scopeOf(ctx)
	if s == nil {
		return c.fn(ctx, key)
	}
	sh, hit := c.join(ctx, s, key)
	switch {
	case sh == nil:
		return c.fn(ctx, key)
	case !sh.wait(ctx):
		c.leave(s, key, sh)
		var none V
		return none, ctx.Err()
	case hit:
		c.cmd.hit(s)
	}
	if sh.mended.is() {
		tellMended(ctx)
	}
	return sh.v, sh.err
}

// join finds the run that a caller is to wait for, or begins it. It is nil for a caller
// whose context is over, unless there is a value: whoever makes the call says so.
func (c *cache[K, V]) join(ctx context.Context, s *scope, key K) (sh *sharing[V], hit bool) {
	gone := ctx.Err() != nil
	s.mu.Lock()
	defer s.mu.Unlock() // also if the key cannot be compared
	sh = c.of(s)[key]
	switch {
	case gone && (sh == nil || !sh.over):
		return nil, false
	case sh == nil:
		return c.shareLocked(ctx, s, key), false
	}
	sh.waiters++
	return sh, true
}

// of returns the values of one scope.
func (c *cache[K, V]) of(s *scope) map[K]*sharing[V] {
	for i := range s.caches {
		if s.caches[i].of == c {
			return s.caches[i].values.(map[K]*sharing[V])
		}
	}
	all := map[K]*sharing[V]{}
	s.caches = append(s.caches, scopeCache{c, all})
	return all
}

func (c *cache[K, V]) shareLocked(ctx context.Context, s *scope, key K) *sharing[V] {
	sh := &sharing[V]{done: make(chan struct{}), waiters: 1}
	ctx, sh.cancel = context.WithCancel(sh.mended.below(ctx))
	c.of(s)[key] = sh
	counted := c.cmd.registry.goroutines.TryAcquire()
	go func() {
		defer func() {
			c.end(s, key, sh)
			if counted {
				c.cmd.registry.goroutines.Release()
			}
		}()
		returned := false
		defer func() {
			if !returned {
				sh.err = panicked(recover()).err
			}
		}()
		sh.v, sh.err = c.fn(ctx, key)
		returned = true
	}()
	return sh
}

// end hands out what came of it.
func (c *cache[K, V]) end(s *scope, key K, sh *sharing[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh.over = true
	if sh.err != nil || sh.mended.is() {
		c.forgetLocked(s, key, sh)
	}
	close(sh.done)
	sh.cancel()
}

func (c *cache[K, V]) forgetLocked(s *scope, key K, sh *sharing[V]) {
	if all := c.of(s); all[key] == sh {
		delete(all, key)
	}
}

// wait tells whether the run was over before ctx.
func (sh *sharing[V]) wait(ctx context.Context) bool {
	select {
	case <-sh.done: // what is there goes before the end of ctx
		return true
	default:
	}
	select {
	case <-sh.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// leave takes one waiter away; the last one ends what nobody wants any more.
func (c *cache[K, V]) leave(s *scope, key K, sh *sharing[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh.waiters--
	if sh.waiters == 0 && !sh.over {
		c.forgetLocked(s, key, sh)
		sh.cancel()
	}
}

// mended is the context above a run for several callers. It has the values of the
// first, but not its end, and is told if a fallback answered a call in it, so that what
// came of the run is not the dependency's and not to be kept. What is one object here
// would be two of package context's. It is to have a cancelable context below it, and
// nothing else: asked by itself for package context's own key, it would answer with the
// caller's.
type mended struct {
	flag   atomic.Bool
	values context.Context
}

type mendedKey struct{}

// cached is set when there is something that must know (the first [Cached]): till then
// fallbacks do not look for it.
var cached atomic.Bool

// below makes m the context of a run that caller begins.
func (m *mended) below(caller context.Context) context.Context {
	m.values = caller
	return m
}

func (*mended) Deadline() (time.Time, bool) { return time.Time{}, false }
func (*mended) Done() <-chan struct{}       { return nil }
func (*mended) Err() error                  { return nil }

func (m *mended) Value(key any) any {
	if key == (mendedKey{}) {
		return m
	}
	return m.values.Value(key)
}

func (m *mended) is() bool { return m.flag.Load() }

// tellMended is for a fallback that has answered in ctx.
func tellMended(ctx context.Context) {
	if !cached.Load() {
		return
	}
	if m, ok := ctx.Value(mendedKey{}).(*mended); ok {
		m.flag.Store(true)
	}
}
