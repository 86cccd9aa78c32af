package firebreak

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Collapse makes one call of load, through cmd, of keys that are asked for one by one:
// the first key of a batch waits [Config.BatchWindow] for others, unless there are
// [Config.MaxBatch] of them before. Callers in a scope ([WithScope]) share batches
// with that scope's alone, the others with each other: load sees the context values
// of a batch's first caller.
//
// load gets each key once, in the order they were first asked for and in a slice that
// is its own, and answers with a map. An error of load is every key's, unless it is a
// [KeyErrors] (or wraps one): then those keys have theirs, the others their value, and
// the call is [Expected], unless a [Mark] says otherwise. A key that the map lacks has
// [ErrNoResult]. Fallbacks answer for all keys of the batch, where [Do]'s would. A
// panic in a batch is everybody's error, a [*PanicError].
//
// Each caller waits as long as its own context lasts. load's context ends with
// [Config.Timeout], which begins when the batch leaves, and when all callers have left;
// a batch that all have left before is no call. If the circuit refuses calls, a key
// is refused at once, as a call of [Do]. Batches and the keys asked
// for in them are counted in [Counts.Batches] and [Counts.Collapsed], and
// [Snapshot.BatchSizes] tells how large batches were.
//
// Make it once, beside the command. It panics if cmd or load is nil; what it returns
// panics on a key that cannot be compared: an interface with a slice.
func Collapse[K comparable, V any](cmd *Command, load func(context.Context, []K) (map[K]V, error), fallbacks ...func(ctx context.Context, keys []K, cause error) (map[K]V, error)) func(context.Context, K) (V, error) {
	if cmd == nil || load == nil {
		panic("firebreak: Collapse needs a command and a function")
	}
	c := &collapser[K, V]{cmd: cmd, load: load, fallbacks: fallbacks, open: map[*scope]*batch[K, V]{}}
	return c.get
}

type collapser[K comparable, V any] struct {
	cmd       *Command
	load      func(context.Context, []K) (map[K]V, error)
	fallbacks []func(ctx context.Context, keys []K, cause error) (map[K]V, error)

	mu   sync.Mutex              // guards open, and batches till they leave
	open map[*scope]*batch[K, V] // that take keys; nil is for callers without a scope
}

// A batch is keys that go to load together.
//
//	open ──▶ left ──▶ done        its window is over, it is full, or Shutdown
//	  └────▶ dropped              everybody has gone
//
// Invariant: it is open while it is in collapser.open, and whoever takes it out does
// what follows.
type batch[K comparable, V any] struct {
	of      *collapser[K, V]
	scope   *scope
	ctx     context.Context // load's
	cancel  context.CancelFunc
	timer   *time.Timer
	counted bool // among the registry's goroutines, from the beginning
	mended  mended

	// Guarded by collapser.mu.
	keys    []K
	askers  map[K]int // of each key
	waiting int       // askers, all together

	asked uint64 // askers when it left
	// Written before done is closed.
	done   chan struct{}
	values map[K]V
	err    error
}

func (c *collapser[K, V]) get(ctx context.Context, key K) (V, error) {
	must(ctx != nil)
	_ = map[K]struct{}(nil)[key] // panics if it cannot be compared: not with a batch half made
	if ctx.Err() != nil || c.cmd.present().refuses() {
		keys := []K{key}
		values, err := Do(ctx, c.cmd, c.loading(keys), c.falling(keys)...)
		return resultFor(key, values, err)
	}
	return c.join(ctx, key).wait(ctx, key)
}

// loading is what the call of some keys runs.
func (c *collapser[K, V]) loading(keys []K) func(context.Context) (map[K]V, error) {
	return func(ctx context.Context) (map[K]V, error) {
		// Keys of its own: past the deadline a fallback may read them meanwhile.
		values, err := c.load(ctx, slices.Clone(keys))
		if _, ok := keyErrorsOf[K](err); ok && markOf(err) == nil {
			err = Mark(err, Expected)
		}
		return values, err
	}
}

// falling is the fallbacks of the call of some keys.
func (c *collapser[K, V]) falling(keys []K) []Fallback[map[K]V] {
	fs := make([]Fallback[map[K]V], 0, len(c.fallbacks))
	for _, f := range c.fallbacks {
		if f != nil {
			fs = append(fs, func(ctx context.Context, cause error) (map[K]V, error) { return f(ctx, slices.Clone(keys), cause) })
		}
	}
	return fs
}

// keyErrorsOf finds the errors of keys in an error of load's, but not in one of
// another command's or of other keys, which speaks of those. There may be some in it
// and none of them: a nil KeyErrors is no nil error.
func keyErrorsOf[K comparable](err error) (errs KeyErrors[K], ok bool) {
	switch e := err.(type) { //nolint:errorlint // this is the walk
	case KeyErrors[K]:
		return e, true
	case *Error, *PanicError, keyErrors:
		return nil, false
	case interface{ Unwrap() error }:
		return keyErrorsOf[K](e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			if errs, ok := keyErrorsOf[K](err); ok {
				return errs, true
			}
		}
	}
	return nil, false
}

// resultFor is one key's share of what the call of a batch came to.
func resultFor[K comparable, V any](key K, values map[K]V, err error) (v V, _ error) {
	if err != nil {
		errs, ok := keyErrorsOf[K](err)
		if !ok {
			return v, err
		}
		if err := errs[key]; err != nil {
			return v, unmark(err) // a mark is for one command
		}
	}
	v, ok := values[key]
	if !ok {
		return v, fmt.Errorf("%w: %v", ErrNoResult, key)
	}
	return v, nil
}

// refuses tells whether a call now would find the circuit shut.
func (c *Command) refuses() bool {
	e, simple := c.circuit.present()
	if simple && e.admits() {
		return false
	}
	now := c.clock.Now()
	if o := c.circuit.override.Load(); o != nil {
		c.circuit.overrideAt(o, now) // lifts one that is over
		e = c.circuit.era.Load()
	}
	d := e.door.Load()
	return d != nil && d.shut(now) && !c.circuit.shadowing(e)
}

func (c *collapser[K, V]) newBatch(ctx context.Context, s *scope) *batch[K, V] {
	b := &batch[K, V]{of: c, scope: s, done: make(chan struct{}), askers: map[K]int{}}
	b.ctx, b.cancel = context.WithCancel(b.mended.below(ctx))
	b.counted = c.cmd.registry.goroutines.TryAcquire()
	return b
}

// join puts a key into the batch of its scope.
func (c *collapser[K, V]) join(ctx context.Context, key K) *batch[K, V] {
	s, rules := scopeOf(ctx), &c.cmd.present().settings.Load().batch
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.open[s]
	if b == nil {
		b = c.newBatch(ctx, s)
		c.open[s] = b
		b.timer = time.AfterFunc(rules.window, b.leave)
		c.cmd.registry.batches.add(b)
	}
	b.add(key)
	// Full, or the registry is shutting down: that may have looked for batches before
	// this one was among them.
	if len(b.keys) >= rules.most || c.cmd.registry.shut.Load() {
		b.closeLocked()
		go b.run()
	}
	return b
}

func (b *batch[K, V]) add(key K) {
	if b.askers[key] == 0 {
		b.keys = append(b.keys, key)
	}
	b.askers[key]++
	b.waiting++
}

// closeLocked takes a batch out of those that take keys.
func (b *batch[K, V]) closeLocked() {
	b.asked = uint64(b.waiting)
	delete(b.of.open, b.scope)
	b.timer.Stop()
	b.of.cmd.registry.batches.remove(b)
}

// leave is the end of the window, or Shutdown.
func (b *batch[K, V]) leave() {
	c := b.of
	c.mu.Lock()
	open := c.open[b.scope] == b
	if open {
		b.closeLocked()
	}
	c.mu.Unlock()
	if open {
		b.run()
	}
}

// run is the call. Nobody adds keys any more.
func (b *batch[K, V]) run() {
	defer b.end()
	c := b.of
	c.cmd.present().metrics.batch(len(b.keys), b.asked, c.cmd.clock.Now())
	fallbacks := c.falling(b.keys)
	fl := &flight[map[K]V]{
		future: &Future[map[K]V]{done: make(chan struct{})}, // b.done is what askers wait for
		call:   call{given: given(fallbacks), ours: true, collapsed: true},
		task:   task[struct{}, map[K]V]{run: c.loading(b.keys)}, fallbacks: fallbacks,
	}
	fl.call.of(b.ctx, c.cmd)
	defer func() { b.values, b.err = fl.future.v, fl.future.err }() // also if load called Goexit
	if b.admit(fl) || fl.call.asks {
		fl.fly()
	}
}

// admit admits the call of a batch, or refuses it.
func (b *batch[K, V]) admit(fl *flight[map[K]V]) bool {
	c, f := &fl.call, fl.future
	returned := false
	defer func() {
		if !returned { // an observer that was told called Goexit
			f.err = panicked(recover()).err
		}
	}()
	f.err = c.admit()
	if f.err == nil && c.cmd.dependency.bulkhead.isolation == PoolIsolation {
		fl.job, f.err = enlist(c, fl.task)
	}
	returned = true
	fl.refused = f.err != nil
	return !fl.refused
}

// end hands out what came of it.
func (b *batch[K, V]) end() {
	close(b.done)
	b.cancel()
	if b.counted {
		b.of.cmd.registry.goroutines.Release()
	}
}

func (b *batch[K, V]) wait(ctx context.Context, key K) (V, error) {
	select {
	case <-b.done:
	default: // what is there goes before the end of ctx
		select {
		case <-b.done:
		case <-ctx.Done():
			b.forsake(key)
			var none V
			return none, ctx.Err()
		}
	}
	if b.mended.is() {
		tellMended(ctx)
	}
	return resultFor(key, b.values, b.err)
}

// forsake takes one asker away. The last one of a key takes that out of a batch that
// has not left; the last one of all ends the batch.
func (b *batch[K, V]) forsake(key K) {
	c := b.of
	c.mu.Lock()
	defer c.mu.Unlock()
	b.waiting--
	b.askers[key]--
	open := c.open[b.scope] == b
	if open && b.askers[key] == 0 {
		b.keys = slices.DeleteFunc(b.keys, func(k K) bool { return k == key })
	}
	switch {
	case b.waiting > 0:
	case open:
		b.closeLocked()
		b.end()
	default:
		b.cancel()
	}
}

// batches are the open batches of a registry, for Shutdown to send off.
type batches struct {
	mu   sync.Mutex
	open map[interface{ leave() }]struct{}
}

func (bs *batches) add(b interface{ leave() }) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if bs.open == nil {
		bs.open = map[interface{ leave() }]struct{}{}
	}
	bs.open[b] = struct{}{}
}

func (bs *batches) remove(b interface{ leave() }) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	delete(bs.open, b)
}

// leave has all of them leave, each on a goroutine of its own.
func (bs *batches) leave() {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for b := range bs.open {
		go b.leave()
	}
}
