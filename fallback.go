package firebreak

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/firebreak-go/firebreak/internal/mono"
)

// A Fallback answers in place of a call that failed, timed out or was refused;
// cause is the error of a call without fallbacks. It is called on the caller's
// goroutine, under the caller's context, live or not, and within
// [Config.MaxFallbacks]; it holds no permit, and no timeout of ours bounds it. By
// returning an error it passes on to the next.
type Fallback[T any] func(ctx context.Context, cause error) (T, error)

// Static answers v, always. Where run's T is an interface, or v is nil, say T:
// Static[Store](mem).
func Static[T any](v T) Fallback[T] {
	return func(context.Context, error) (T, error) { return v, nil }
}

// Why a stale fallback has no answer.
var (
	errNeverFresh = errors.New("no good value yet")
	errTooStale   = errors.New("the last good value is too old")
)

// Stale returns run, made to remember its last good value, and a fallback that
// answers that value while it is no older than maxAge (and always, if maxAge is
// [Unlimited]). Make the pair once, beside the command. run takes no argument, so
// one user's value cannot become another's. Both may be used concurrently; the
// value is shared, so nobody may change what it points to. It panics if run is nil
// or maxAge is neither positive nor Unlimited.
func Stale[T any](run func(context.Context) (T, error), maxAge time.Duration) (remember func(context.Context) (T, error), stale Fallback[T]) {
	if run == nil || maxAge <= 0 && maxAge != Unlimited {
		panic("firebreak: Stale needs run, and a maxAge above 0 or Unlimited")
	}
	var (
		mu    sync.Mutex
		last  T
		since time.Time // zero: there is none
	)
	remember = func(ctx context.Context) (T, error) {
		// What began last is the freshest, whichever run ends last.
		began := time.Now()
		v, err := run(ctx)
		if err == nil {
			mu.Lock()
			// A moment in the future is of a clock that went back since: outside this
			// test bubble, say.
			if since.IsZero() || began.Sub(since) >= 0 || time.Since(since) < 0 {
				last, since = v, began
			}
			mu.Unlock()
		}
		return v, err
	}
	stale = func(context.Context, error) (v T, err error) {
		mu.Lock()
		defer mu.Unlock()
		switch age := time.Since(since); {
		case since.IsZero():
			return v, errNeverFresh
		case maxAge != Unlimited && (age > maxAge || age < 0):
			return v, errTooStale
		}
		return last, nil
	}
	return remember, stale
}

func given[T any](fallbacks []Fallback[T]) bool {
	for _, f := range fallbacks {
		if f != nil {
			return true
		}
	}
	return false
}

// A chain is the fallbacks of a call, nil ones among them, as [answer] asks them.
type chain[T any] []Fallback[T]

func (fs chain[T]) ask(i int, ctx context.Context, cause error) (v T, err error, asked bool) { //nolint:revive // the order of answer's other callers
	if fs[i] == nil {
		return v, nil, false
	}
	v, err = fs[i](ctx, cause)
	return v, err, true
}

// answer asks the fallbacks of a call that ended with v and cause, in order, for
// the first that has an answer. ask calls the i-th of n, or tells that there is none.
func answer[T any](c *call, v T, cause error, n int, ask func(i int, ctx context.Context, cause error) (v T, err error, asked bool)) (T, error) {
	if !c.cmd.fallbacks.take(c.set.maxFallbacks) {
		c.answered(eventFallbackRejected, ErrFallbackRejected)
		return v, c.unanswered(cause, ErrFallbackRejected)
	}
	returned := false
	defer func() {
		if !returned { // a panic or Goexit, which goes on up
			c.cmd.fallbacks.putBack()
			if c.looping { // not of the fallback
				c.answered(eventFallbackSuccess, nil)
			} else {
				c.answered(eventFallbackFailure, nil)
			}
		}
	}()
	var failures []error
	for i := range n {
		answer, err, asked := ask(i, c.caller, cause)
		switch {
		case !asked:
			continue
		case err == nil:
			returned = true
			c.cmd.fallbacks.putBack()
			c.answered(eventFallbackSuccess, nil)
			tellMended(c.caller)
			return answer, nil
		default:
			failures = append(failures, err)
		}
	}
	returned = true
	c.cmd.fallbacks.putBack()
	failure := failures[0]
	if len(failures) > 1 {
		failure = errors.Join(failures...)
	}
	c.answered(eventFallbackFailure, failure)
	return v, c.unanswered(cause, failure)
}

// answered counts how the fallbacks ended and tells observers.
func (c *call) answered(what event, err error) {
	now := c.cmd.clock.Now()
	c.cmd.metrics.add(c.cell, now, what, c.outcome.executed(), now.Sub(c.submitted))
	if c.set.requestLog {
		c.note(what, c.took(now))
	}
	if !c.cmd.registry.watched.Load() {
		return
	}
	e := c.event(err)
	switch what {
	case eventFallbackSuccess:
		e.Fallback = OutcomeSuccess
	case eventFallbackFailure:
		e.Fallback = OutcomeFailure
	case eventFallbackRejected:
		e.Fallback = OutcomeRejected
	}
	e.Call = c.took(now)
	c.cmd.observe(func(o *Observer) {
		if o.Fallback != nil {
			o.Fallback(c.caller, e)
		}
	})
}

// took is how long the call has taken by now, fallbacks included.
func (c *call) took(now mono.Time) time.Duration {
	if !c.timed { // it was refused as soon as it was submitted
		return now.Sub(c.now)
	}
	return now.Sub(c.submitted)
}

// unanswered is the error of a call whose fallbacks failed too.
func (c *call) unanswered(cause, fallback error) error {
	if ours, ok := cause.(*Error); ok && c.outcome != OutcomeFailure { //nolint:errorlint // the call's own, not one further in
		return ours.withFallback(fallback)
	}
	e := c.error(ErrFailed, cause)
	e.Fallback = fallback
	return e
}
