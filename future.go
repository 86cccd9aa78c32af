package firebreak

import (
	"context"
	"slices"
)

// A Future is the result of a call that goes on by itself; see [Go]. It may be
// dropped, and waited for by many at once. A finished one holds the result and
// nothing else.
type Future[T any] struct {
	done chan struct{} // closed when v and err are there; nil: they were at once
	v    T
	err  error
}

// Go is [Do] on another goroutine. The call is admitted or refused before Go
// returns, waiting as [Config.MaxWait] says: a refused call starts no goroutine
// unless it has fallbacks to ask.
//
// ctx is the call's: it must live as long as the result is wanted. A panic of run, or
// of a fallback, is the Future's error, a [*PanicError]: there is no caller for it to
// go up to. Go panics if ctx, cmd or run is nil.
func Go[T any](ctx context.Context, cmd *Command, run func(context.Context) (T, error), fallbacks ...Fallback[T]) *Future[T] {
	must(ctx != nil && cmd != nil && run != nil)
	f := &Future[T]{}
	fl := flight[T]{future: f, task: task[struct{}, T]{run: run}, fallbacks: fallbacks}
	if fl.begin(ctx, cmd) {
		f.done = make(chan struct{})
		flies := fl // not before: a refused call allocates nothing but its Future
		flies.fallbacks = slices.Clone(fallbacks)
		go flies.fly()
	}
	return f
}

// Wait returns what Do would, once it is there, or ctx's error when ctx ends before.
// That ends this waiting, not the call.
func (f *Future[T]) Wait(ctx context.Context) (T, error) {
	must(ctx != nil)
	if f.done != nil {
		select {
		case <-f.done:
		default: // a result goes before the end of ctx
			select {
			case <-f.done:
			case <-ctx.Done():
				var none T
				return none, ctx.Err()
			}
		}
	}
	return f.v, f.err
}

// A flight is a call on a goroutine of ours: nothing that is thrown leaves it.
type flight[T any] struct {
	future    *Future[T]
	call      call
	task      task[struct{}, T]
	job       *job[struct{}, T] // under pool isolation
	fallbacks []Fallback[T]
	refused   bool
	counted   bool // among the registry's goroutines
}

// begin admits the call or refuses it, and tells whether there is anything left to do.
func (fl *flight[T]) begin(ctx context.Context, cmd *Command) (flies bool) {
	defer func() {
		if !flies { // refused; or an observer that was told called Goexit
			fl.land()
		}
	}()
	c, f := &fl.call, fl.future
	c.given, c.ours = given(fl.fallbacks), true
	c.of(ctx, cmd)
	fl.counted = cmd.registry.goroutines.TryAcquire() // first: Shutdown waits for all that it did not refuse
	f.err = c.admit()
	if f.err == nil && cmd.dependency.bulkhead.isolation == PoolIsolation {
		fl.job, f.err = enlist(c, fl.task)
	}
	fl.refused = f.err != nil
	return !fl.refused || c.asks
}

// fly makes the call. Its steps are deferred in their reverse order, as run and the
// fallbacks may panic or call Goexit: the goroutine ends with the last of them.
func (fl *flight[T]) fly() {
	defer fl.land()
	defer fl.answer()
	if fl.refused {
		return
	}
	f := fl.future
	returned := false
	defer func() {
		if !returned { // by Goexit: perform recovers a panic
			f.err = panicked(recover()).err
		}
	}()
	if fl.job != nil {
		f.v, f.err = fl.job.wait(&fl.call)
	} else {
		f.v, f.err = perform(&fl.call, fl.task)
	}
	returned = true
}

// answer asks the fallbacks, if they are wanted.
func (fl *flight[T]) answer() {
	if !fl.call.asks {
		return
	}
	f := fl.future
	answered := false
	defer func() {
		if !answered {
			f.err = panicked(recover()).err
		}
	}()
	f.v, f.err = answer(&fl.call, f.v, f.err, len(fl.fallbacks), chain[T](fl.fallbacks).ask)
	answered = true
}

// land lets go of everything but the result.
func (fl *flight[T]) land() {
	if done := fl.future.done; done != nil {
		close(done)
	}
	if fl.counted {
		fl.call.cmd.registry.goroutines.Release()
	}
}
