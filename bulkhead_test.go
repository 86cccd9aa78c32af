package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak"
)

// A liveCall is a call on a goroutine of its own, in a bubble. Its run is deaf to
// its context: it goes on until the test lets it end.
type liveCall struct {
	end   chan func(context.Context) (int, error)
	began atomic.Pointer[context.Context] // run's, once that is called
	ended atomic.Bool                     // the call is over: the rest is written before

	took     time.Duration
	v        int
	err      error
	panicked any
	exited   bool
}

// hold makes a call and returns when it runs, waits or is over.
func hold(ctx context.Context, cmd *firebreak.Command, fallbacks ...firebreak.Fallback[int]) *liveCall {
	h := &liveCall{end: make(chan func(context.Context) (int, error), 1)}
	submitted := time.Now()
	go func() {
		returned := false
		defer func() {
			h.panicked = recover()
			h.exited = !returned && h.panicked == nil
			h.took = time.Since(submitted)
			h.ended.Store(true)
		}()
		h.v, h.err = firebreak.Do(ctx, cmd, func(ctx context.Context) (int, error) {
			h.began.Store(&ctx)
			return (<-h.end)(ctx)
		}, fallbacks...)
		returned = true
	}()
	synctest.Wait()
	return h
}

func (h *liveCall) over() bool { return h.ended.Load() }

// run is the context that run was called with, nil if it was not.
func (h *liveCall) run() context.Context {
	if ctx := h.began.Load(); ctx != nil {
		return *ctx
	}
	return nil
}

// ends lets run end as how does.
func (h *liveCall) ends(how func(context.Context) (int, error)) {
	h.end <- how
	synctest.Wait()
}

func runPanics(context.Context) (int, error) { panic("boom") }
func runExits(context.Context) (int, error)  { runtime.Goexit(); return 0, nil }

func requireRuns(t testing.TB, calls ...*liveCall) {
	t.Helper()
	for i, h := range calls {
		require.NotNil(t, h.run(), "call %d runs", i)
		require.False(t, h.over(), "call %d is over", i)
	}
}

func requireWaits(t testing.TB, calls ...*liveCall) {
	t.Helper()
	for i, h := range calls {
		require.Nil(t, h.run(), "call %d runs", i)
		require.False(t, h.over(), "call %d is over", i)
	}
}

// requireRefused checks that the call is over, by an error of ours, and never ran.
func requireRefused(t testing.TB, h *liveCall, reason error) {
	t.Helper()
	require.True(t, h.over(), "the call is not over")
	require.Nil(t, h.run(), "run was called")
	require.ErrorIs(t, h.err, reason)
	ours, ok := errors.AsType[*firebreak.Error](h.err)
	require.True(t, ok, "not ours: %v", h.err)
	require.Equal(t, reason, ours.Reason)
	require.NoError(t, ours.Fallback)
}

// requireGaveUp checks that the call is over, by its context's error, and never ran.
func requireGaveUp(t testing.TB, h *liveCall, err error) {
	t.Helper()
	require.True(t, h.over(), "the call is not over")
	require.Nil(t, h.run(), "run was called")
	require.Equal(t, err, h.err)
}

func requireSucceeded(t testing.TB, calls ...*liveCall) {
	t.Helper()
	for i, h := range calls {
		require.True(t, h.over(), "call %d is not over", i)
		require.NoError(t, h.err, "call %d", i)
		require.Equal(t, 1, h.v, "call %d", i)
	}
}

// requireGauges checks what the bulkhead of cmd shows now.
func requireGauges(t testing.TB, cmd *firebreak.Command, inFlight, queued, abandoned int) {
	t.Helper()
	b := cmd.Snapshot().Bulkhead
	require.Equal(t, fmt.Sprintf("%d in flight, %d queued, %d abandoned", inFlight, queued, abandoned),
		fmt.Sprintf("%d in flight, %d queued, %d abandoned", b.InFlight, b.Queued, b.Abandoned))
}

// resize has a document say c about the dependency dep.
func resize(t rapid.TB, reg *firebreak.Registry, c firebreak.Config) {
	t.Helper()
	require.NoError(t, reg.Update(firebreak.Document{Dependencies: map[string]firebreak.Config{"dep": c}}))
}

// inBothIsolations runs a test in a bubble for each isolation.
func inBothIsolations(t *testing.T, test func(t *testing.T, isolation firebreak.Isolation)) {
	for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		t.Run(isolation.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, isolation) })
		})
	}
}

// waiting is a bulkhead of one permit where calls wait, in either isolation.
func waiting(isolation firebreak.Isolation) firebreak.Config {
	c := firebreak.Config{Isolation: isolation, MaxConcurrent: 1, QueueSize: 3, Timeout: 10 * time.Second}
	if isolation == firebreak.SemaphoreIsolation {
		c.MaxWait = 10 * time.Second
	}
	return c
}

// A quietContext ends without waking anybody: its Err turns, its Done does not.
type quietContext struct {
	context.Context
	ended atomic.Bool
}

func (q *quietContext) Err() error {
	if q.ended.Load() {
		return context.Canceled
	}
	return q.Context.Err()
}

// S41: exactly the limit runs, and each that is over lets one in.
func TestI1LimitIsExact(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		for _, limit := range []int{1, 2, 7, 100} {
			cmd := newCommand(t, firebreak.Config{Isolation: isolation, MaxConcurrent: limit, Timeout: firebreak.Off})
			calls := make([]*liveCall, limit)
			for i := range calls {
				calls[i] = hold(t.Context(), cmd)
			}
			requireRuns(t, calls...)
			requireGauges(t, cmd, limit, 0, 0)
			requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
			_, err := cmd.Begin(t.Context())
			require.ErrorIs(t, err, firebreak.ErrRejected)
			requireGauges(t, cmd, limit, 0, 0)

			calls[limit-1].ends(succeed)
			calls[limit-1] = hold(t.Context(), cmd)
			requireRuns(t, calls[limit-1])
			requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
			for _, c := range calls {
				c.ends(succeed)
			}
			require.EqualValues(t, limit+1, total(cmd).Success)
			require.EqualValues(t, 3, total(cmd).Rejected)
		}
	})
}

func TestDefaultLimit(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		cmd := newCommand(t, firebreak.Config{Isolation: isolation})
		b := cmd.Snapshot().Bulkhead
		require.Equal(t, firebreak.Bulkhead{Isolation: isolation, Limit: 100}, b)
	})
}

// The error of a rejection is the command's, made beforehand and shared.
func TestRejectionIsShared(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		cmd := newCommand(t, firebreak.Config{Isolation: isolation, MaxConcurrent: 1})
		h := hold(t.Context(), cmd)
		first, second := hold(t.Context(), cmd), hold(t.Context(), cmd)
		require.Equal(t, &firebreak.Error{Command: "dep", Reason: firebreak.ErrRejected}, first.err)
		require.Same(t, first.err, second.err)
		require.NotErrorIs(t, first.err, context.DeadlineExceeded)
		require.Zero(t, first.took)
		h.ends(succeed)
	})
}

// S4: a full bulkhead neither trips a circuit nor keeps one from closing.
func TestRejectionsAreNeutral(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		dep := reg.Dependency("dep", firebreak.Config{Isolation: isolation, MaxConcurrent: 1, Timeout: firebreak.Off})
		cmd, other := dep.Command("cmd", firebreak.Config{}), dep.Command("other", firebreak.Config{})
		h := hold(t.Context(), other)
		for range 100 {
			requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
		}
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
		h.ends(succeed)

		trip(t, cmd)
		h = hold(t.Context(), other)
		time.Sleep(5 * time.Second)
		for range 3 { // each a probe that gives its lease back
			requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
			require.Equal(t, firebreak.StateHalfOpen, cmd.Snapshot().State)
		}
		h.ends(succeed)
		_, err := firebreak.Do(t.Context(), cmd, succeed)
		require.NoError(t, err)
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
	})
}

// S42: the permit is back when Do returns, whichever way run ended, and not before
// run is over.
func TestI2PermitGoesBackOnce(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		for _, recoverPanics := range []firebreak.Switch{firebreak.Off, firebreak.On} {
			cmd := newCommand(t, firebreak.Config{Isolation: isolation, MaxConcurrent: 2, RecoverPanics: recoverPanics, Mode: firebreak.ForceClosed})
			other := hold(t.Context(), cmd)
			for range 3 { // a permit returned twice would let two in
				for _, how := range []func(context.Context) (int, error){succeed, fail, runPanics, runExits} {
					h := hold(t.Context(), cmd)
					requireRuns(t, h)
					requireGauges(t, cmd, 2, 0, 0)
					requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
					h.ends(how)
					require.True(t, h.over())
					requireGauges(t, cmd, 1, 0, 0)
				}
			}
			other.ends(succeed)
			requireGauges(t, cmd, 0, 0, 0)
			require.EqualValues(t, 6, total(cmd).Panic)
		}
	})
}

// S42: a panic of Classify is run's, and gives the permit back as one.
func TestI2PermitGoesBackWhenClassifyPanics(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		c := waiting(isolation)
		c.Classify = func(error) firebreak.Verdict { panic("classify") }
		cmd := newCommand(t, c)
		first, next := hold(t.Context(), cmd), hold(t.Context(), cmd)
		first.ends(fail)
		require.True(t, first.over())
		require.EqualValues(t, 1, total(cmd).Panic)
		requireRuns(t, next)
		next.ends(succeed)
	})
}

// S42: fallbacks hold no permit.
func TestFallbackHoldsNoPermit(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		cmd := newCommand(t, firebreak.Config{Isolation: isolation, MaxConcurrent: 1})
		answer := make(chan int)
		h := hold(t.Context(), cmd, func(context.Context, error) (int, error) { return <-answer, nil })
		h.ends(fail)
		require.False(t, h.over(), "in its fallback")
		requireGauges(t, cmd, 0, 0, 0)
		require.Equal(t, 1, cmd.Snapshot().Fallbacks)
		_, err := firebreak.Do(t.Context(), cmd, succeed)
		require.NoError(t, err)
		answer <- 7
		synctest.Wait()
		require.NoError(t, h.err)
		require.Equal(t, 7, h.v)
	})
}

// S5: statistics, circuit, permit back, observers. Those who hear of a call, or of
// what it did to the circuit, find its permit free and the call counted.
func TestObserversFindThePermitFree(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{Isolation: isolation, MaxConcurrent: 1, ConsecutiveFailures: 1, Timeout: time.Second})
		var told []string
		tell := func(what string) {
			s := cmd.Snapshot()
			told = append(told, fmt.Sprintf("%s: %d in flight, %d calls, %v", what, s.Bulkhead.InFlight, s.Total.Calls(), s.State))
		}
		reg.Observe(firebreak.Observer{
			Transition: func(firebreak.Transition) { tell("transition") },
			Call:       func(context.Context, firebreak.CallEvent) { tell("call") },
			Fallback:   func(context.Context, firebreak.CallEvent) { tell("fallback") },
		})
		h := hold(t.Context(), cmd, firebreak.Static(1))
		h.ends(fail)
		requireSucceeded(t, h)
		require.Equal(t, []string{
			"transition: 0 in flight, 1 calls, open",
			"call: 0 in flight, 1 calls, open",
			"fallback: 0 in flight, 1 calls, open",
		}, told)
	})
}

// S60: a slow observer delays the call that told it and no other. A transition was
// told with the permit held, and nobody came in meanwhile.
func TestSlowObserverHoldsNoPermit(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		dep := reg.Dependency("dep", waiting(isolation))
		cmd := dep.Command("cmd", firebreak.Config{ConsecutiveFailures: 1})
		other := dep.Command("other", firebreak.Config{})
		slow := make(chan struct{})
		reg.Observe(firebreak.Observer{Transition: func(tr firebreak.Transition) {
			if tr.Command == "cmd" && tr.To == firebreak.StateOpen {
				<-slow
			}
		}})
		h, next := hold(t.Context(), cmd), hold(t.Context(), other)
		h.ends(fail)
		require.False(t, h.over(), "in the observer")
		requireRuns(t, next)
		next.ends(succeed)
		requireSucceeded(t, next)
		close(slow)
		synctest.Wait()
		require.True(t, h.over())
	})
}

// An observer that calls Goexit, as a test's does that fails, takes its call's
// goroutine along, but no permit.
func TestI2ObserverThatExitsKeepsNoPermit(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{Isolation: isolation, MaxConcurrent: 1, ConsecutiveFailures: 1})
		reg.Observe(firebreak.Observer{Transition: func(tr firebreak.Transition) {
			if tr.To == firebreak.StateOpen {
				runtime.Goexit()
			}
		}})
		h := hold(t.Context(), cmd)
		h.ends(fail)
		require.True(t, h.exited)
		requireGauges(t, cmd, 0, 0, 0)
		require.EqualValues(t, 1, total(cmd).Failure)
	})
}

// By default nobody waits, and in a semaphore QueueSize alone changes nothing.
func TestNobodyWaitsByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{MaxConcurrent: 1, QueueSize: 5})
		h := hold(t.Context(), cmd)
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
		h.ends(succeed)
	})
}

// S43: first come, first served, and nobody overtakes.
func TestWaitersGoInOrder(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		cmd := newCommand(t, waiting(isolation))
		first := hold(t.Context(), cmd)
		second, third := hold(t.Context(), cmd), hold(t.Context(), cmd)
		requireRuns(t, first)
		requireWaits(t, second, third)
		requireGauges(t, cmd, 1, 2, 0)

		first.ends(succeed)
		requireSucceeded(t, first)
		requireRuns(t, second)
		requireWaits(t, third)
		fourth := hold(t.Context(), cmd)
		requireWaits(t, third, fourth)
		_, err := cmd.Begin(canceled(t)) // a caller that is gone overtakes nobody either
		require.ErrorIs(t, err, context.Canceled)

		second.ends(succeed)
		requireRuns(t, third)
		requireWaits(t, fourth)
		third.ends(succeed)
		requireRuns(t, fourth)
		requireGauges(t, cmd, 1, 0, 0)
		fourth.ends(succeed)
		requireSucceeded(t, second, third, fourth)
	})
}

func canceled(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// S43: QueueSize bounds how many wait; with MaxWait it is as many as may run, unless
// somebody says otherwise.
func TestQueueSize(t *testing.T) {
	for _, row := range []struct {
		name string
		c    firebreak.Config
		room int
	}{
		{"semaphore", firebreak.Config{MaxConcurrent: 2, MaxWait: time.Second, QueueSize: 3}, 3},
		{"semaphore, default", firebreak.Config{MaxConcurrent: 2, MaxWait: time.Second}, 2},
		{"semaphore, off", firebreak.Config{MaxConcurrent: 2, MaxWait: time.Second, QueueSize: firebreak.Off}, 0},
		{"pool", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 2, QueueSize: 3}, 3},
		{"pool, default", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 2}, 0},
		{"pool, MaxWait means nothing", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 2, MaxWait: time.Second}, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cmd := newCommand(t, row.c)
				calls := []*liveCall{hold(t.Context(), cmd), hold(t.Context(), cmd)}
				requireRuns(t, calls...)
				for range row.room {
					calls = append(calls, hold(t.Context(), cmd))
				}
				requireWaits(t, calls[2:]...)
				for range 2 {
					requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
				}
				requireGauges(t, cmd, 2, row.room, 0)
				for _, c := range calls {
					c.ends(succeed)
				}
				requireSucceeded(t, calls...)
			})
		})
	}
}

// S43, by default, follows an Update of MaxConcurrent; and MaxWait is live.
func TestUpdateMaxWaitAndDefaultQueueSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{MaxConcurrent: 1, Timeout: 10 * time.Second})
		h := hold(t.Context(), cmd)
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)

		resize(t, reg, firebreak.Config{MaxWait: time.Second, MaxConcurrent: 2})
		calls := []*liveCall{h, hold(t.Context(), cmd)}
		requireRuns(t, calls...)
		waiters := []*liveCall{hold(t.Context(), cmd), hold(t.Context(), cmd)}
		requireWaits(t, waiters...)
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)

		resize(t, reg, firebreak.Config{MaxConcurrent: 2}) // those who wait go on doing so
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
		time.Sleep(time.Second - 1)
		requireWaits(t, waiters...)
		for _, c := range append(calls, waiters...) {
			c.ends(succeed)
		}
		requireSucceeded(t, append(calls, waiters...)...)
	})
}

// S43: a wait is as long as MaxWait, to the nanosecond.
func TestMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{MaxConcurrent: 1, MaxWait: time.Second, QueueSize: 2, Timeout: time.Minute})
		first := hold(t.Context(), cmd)
		time.Sleep(time.Millisecond)
		second, third := hold(t.Context(), cmd), hold(t.Context(), cmd)
		time.Sleep(time.Second - 1)
		requireWaits(t, second, third)
		first.ends(succeed)
		requireRuns(t, second)

		time.Sleep(time.Nanosecond)
		synctest.Wait()
		requireRefused(t, third, firebreak.ErrRejected)
		require.NotErrorIs(t, third.err, context.DeadlineExceeded)
		require.Equal(t, time.Second, third.took)
		requireGauges(t, cmd, 1, 0, 0)
		require.Equal(t, time.Now().Add(59*time.Second), deadlineOf(t, second.run()), "waiting counts against the timeout")
		second.ends(succeed)
		requireSucceeded(t, second)
		require.Equal(t, firebreak.Counts{Success: 2, Rejected: 1, FallbackMissing: 1}, total(cmd))
	})
}

func deadlineOf(t testing.TB, ctx context.Context) time.Time {
	t.Helper()
	at, ok := ctx.Deadline()
	require.True(t, ok)
	return at
}

// S43, S15: a call whose time is over before its turn is rejected, and its error
// matches DeadlineExceeded.
func TestDeadlineWhileWaiting(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		dep := reg.Dependency("dep", waiting(isolation))
		first := hold(t.Context(), dep.Command("slow", firebreak.Config{Timeout: time.Minute}))
		cmd := dep.Command("cmd", firebreak.Config{Timeout: time.Second})
		second := hold(t.Context(), cmd)
		third := hold(t.Context(), cmd)
		time.Sleep(time.Second - 1)
		requireWaits(t, second, third)
		first.ends(succeed)
		requireRuns(t, second)
		require.NoError(t, second.run().Err())
		second.ends(succeed)
		requireRuns(t, third)
		fourth := hold(t.Context(), cmd)
		third.ends(succeed)
		requireRuns(t, fourth)

		fifth := hold(t.Context(), cmd)
		time.Sleep(time.Second)
		synctest.Wait()
		requireRefused(t, fifth, firebreak.ErrRejected)
		require.Equal(t, &firebreak.Error{Command: "cmd", Reason: firebreak.ErrRejected, Cause: context.DeadlineExceeded}, fifth.err)
		require.NotErrorIs(t, fifth.err, firebreak.ErrTimeout)
		require.Equal(t, time.Second, fifth.took)
		fourth.ends(succeed)
		require.EqualValues(t, 1, total(cmd).Rejected)
		requireGauges(t, cmd, 0, 0, 0)
	})
}

// S43: without a timeout MaxWait alone bounds a wait; also where the registry was
// made before a test bubble began, to which time goes back by decades.
func TestMaxWaitWithoutTimeout(t *testing.T) {
	reg := firebreak.NewRegistry(firebreak.Config{})
	cmd := reg.Command("dep", firebreak.Config{MaxConcurrent: 1, MaxWait: time.Second, Timeout: firebreak.Off})
	synctest.Test(t, func(t *testing.T) {
		first, second := hold(t.Context(), cmd), hold(t.Context(), cmd)
		time.Sleep(time.Second - 1)
		synctest.Wait()
		requireWaits(t, second)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		requireRefused(t, second, firebreak.ErrRejected)
		require.NotErrorIs(t, second.err, context.DeadlineExceeded)
		third := hold(t.Context(), cmd)
		requireWaits(t, third)
		first.ends(succeed)
		requireRuns(t, third)
		third.ends(succeed)
		requireAtRest(t, cmd)
	})
}

// S2, S43: a caller that leaves while it waits gave up: its context's own error, no
// fallback, nothing for the circuit.
func TestCallerLeavesWhileWaiting(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		c := waiting(isolation)
		c.ConsecutiveFailures = 1
		c.CountRejections, c.CountCallerDeadlines = firebreak.On, firebreak.On
		cmd := newCommand(t, c)
		first := hold(t.Context(), cmd)
		asked := false
		fallback := func(context.Context, error) (int, error) { asked = true; return 0, nil }

		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		fickle, leave := context.WithCancelCause(t.Context())
		second, third := hold(impatient, cmd, fallback), hold(fickle, cmd, fallback)
		time.Sleep(time.Second - 1)
		requireWaits(t, second, third)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		requireGaveUp(t, second, context.DeadlineExceeded)
		require.Equal(t, time.Second, second.took)
		requireWaits(t, third)
		leave(errBoom)
		synctest.Wait()
		requireGaveUp(t, third, context.Canceled)
		require.False(t, asked)
		requireGauges(t, cmd, 1, 0, 0)
		first.ends(succeed)
		require.Equal(t, firebreak.Counts{Success: 1, GaveUp: 2}, total(cmd))
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
	})
}

// A waiter that left takes nothing, wherever it stood.
func TestI10WaiterThatGaveUpConsumesNothing(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		for leaver := range 3 {
			cmd := newCommand(t, waiting(isolation))
			first := hold(t.Context(), cmd)
			ctx, leave := context.WithCancel(t.Context())
			var stay []*liveCall
			for i := range 3 {
				if i == leaver {
					defer func(h *liveCall) { requireGaveUp(t, h, context.Canceled) }(hold(ctx, cmd))
				} else {
					stay = append(stay, hold(t.Context(), cmd))
				}
			}
			requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
			leave()
			synctest.Wait()
			requireGauges(t, cmd, 1, 2, 0)
			stay = append(stay, hold(t.Context(), cmd)) // its place is free
			requireWaits(t, stay...)
			first.ends(succeed)
			for i, h := range stay {
				requireRuns(t, h)
				requireGauges(t, cmd, 1, 2-i, 0)
				h.ends(succeed)
			}
			requireSucceeded(t, stay...)
			require.EqualValues(t, 1, total(cmd).GaveUp)
		}
	})
}

// A waiter whose turn comes when its caller has gone passes the permit on.
func TestI10TurnOfACallerThatHasGone(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		cmd := newCommand(t, waiting(isolation))
		first := hold(t.Context(), cmd)
		ctx := &quietContext{Context: t.Context()}
		second, third := hold(ctx, cmd), hold(t.Context(), cmd)
		ctx.ended.Store(true)
		first.ends(succeed)
		requireGaveUp(t, second, context.Canceled)
		requireRuns(t, third)
		requireGauges(t, cmd, 1, 0, 0)
		third.ends(succeed)
		require.Equal(t, firebreak.Counts{Success: 2, GaveUp: 1}, total(cmd))
	})
}

// A waiter whose turn comes at its deadline, to the nanosecond, passes it on too.
func TestI10TurnAtTheDeadline(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		for range 20 { // either of two timers may fire first
			reg := newRegistry(t, firebreak.Config{})
			dep := reg.Dependency("dep", waiting(isolation))
			cmd := dep.Command("cmd", firebreak.Config{Timeout: time.Second})
			patient := dep.Command("patient", firebreak.Config{Timeout: time.Minute})
			first := hold(t.Context(), patient)
			second, third := hold(t.Context(), cmd), hold(t.Context(), patient)
			time.Sleep(time.Second)
			first.ends(succeed)
			requireRefused(t, second, firebreak.ErrRejected)
			require.ErrorIs(t, second.err, context.DeadlineExceeded)
			requireRuns(t, third)
			third.ends(succeed)
		}
	})
}

// S3: calls that waited while the circuit tripped do not run into the outage.
func TestTrippedWhileWaiting(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		dep := reg.Dependency("dep", waiting(isolation))
		cmd := dep.Command("cmd", firebreak.Config{ConsecutiveFailures: 1})
		other := dep.Command("other", firebreak.Config{})
		first, second, third := hold(t.Context(), cmd), hold(t.Context(), cmd), hold(t.Context(), other)
		time.Sleep(time.Second)
		first.ends(fail)
		requireRefused(t, second, firebreak.ErrOpen)
		require.Equal(t, time.Second, second.took)
		ours, _ := errors.AsType[*firebreak.Error](second.err)
		require.Equal(t, 5*time.Second, ours.RetryAfter())
		requireRuns(t, third)
		requireGauges(t, cmd, 1, 0, 0)
		third.ends(succeed)
		require.Equal(t, firebreak.Counts{Failure: 1, ShortCircuited: 1, FallbackMissing: 2}, total(cmd))
	})
}

// S3: one that waited until the sleep window was over is the probe, those behind it
// are not, and what it finds decides.
func TestWaiterBecomesTheProbe(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		for _, row := range []struct {
			how  func(context.Context) (int, error)
			then firebreak.State
		}{
			{succeed, firebreak.StateClosed},
			{fail, firebreak.StateOpen},
			{runPanics, firebreak.StateOpen},
		} {
			reg := newRegistry(t, firebreak.Config{Timeout: time.Minute})
			c := waiting(isolation)
			c.MaxConcurrent, c.Timeout = 2, 0
			dep := reg.Dependency("dep", c)
			cmd := dep.Command("cmd", firebreak.Config{ConsecutiveFailures: 1})
			other := dep.Command("other", firebreak.Config{})
			first, holder := hold(t.Context(), cmd), hold(t.Context(), other)
			next, probe, late := hold(t.Context(), other), hold(t.Context(), cmd), hold(t.Context(), cmd)
			first.ends(fail)
			requireRuns(t, next)
			require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
			requireWaits(t, probe, late)
			time.Sleep(5 * time.Second)
			requireWaits(t, probe, late)
			next.ends(succeed)
			requireRuns(t, probe)
			require.Equal(t, firebreak.StateHalfOpen, cmd.Snapshot().State)
			holder.ends(succeed)
			requireRefused(t, late, firebreak.ErrOpen)
			probe.ends(row.how)
			require.Equal(t, row.then, cmd.Snapshot().State)
		}
	})
}

// S3: a call that waited takes the token of the new era, where its outcome counts.
func TestWaiterCountsInTheNewEra(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		c := waiting(isolation)
		c.ConsecutiveFailures = 1
		cmd := newCommand(t, c)
		first, second := hold(t.Context(), cmd), hold(t.Context(), cmd)
		cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		cmd.Override(firebreak.Override{})
		first.ends(fail)
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State, "of an era that is over")
		requireRuns(t, second)
		second.ends(fail)
		require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
	})
}

// S3: forced open while it waited.
func TestForcedOpenWhileWaiting(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		cmd := newCommand(t, waiting(isolation))
		first, second, third := hold(t.Context(), cmd), hold(t.Context(), cmd), hold(t.Context(), cmd)
		cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		synctest.Wait()
		requireWaits(t, second, third)
		first.ends(succeed)
		requireRefused(t, second, firebreak.ErrOpen)
		requireRefused(t, third, firebreak.ErrOpen)
		require.Equal(t, firebreak.Counts{Success: 1, ShortCircuited: 2, FallbackMissing: 2}, total(cmd))
	})
}

// S3: a probe that waits while its half-open era ends asks again, and gives its
// first lease back only once.
func TestProbeWaitsAcrossEras(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{Timeout: time.Minute})
		c := waiting(isolation)
		c.MaxConcurrent, c.Timeout = 2, 0
		dep := reg.Dependency("dep", c)
		cmd := dep.Command("cmd", firebreak.Config{ConsecutiveFailures: 1, Probes: 2})
		other := dep.Command("other", firebreak.Config{})
		_, err := firebreak.Do(t.Context(), cmd, fail)
		require.ErrorIs(t, err, errBoom)
		time.Sleep(5 * time.Second)

		holder := hold(t.Context(), other)
		one := hold(t.Context(), cmd)
		requireRuns(t, one)
		two := hold(t.Context(), cmd) // a probe that waits
		requireWaits(t, two)
		one.ends(fail)
		requireRefused(t, two, firebreak.ErrOpen)
		require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
		holder.ends(succeed)
	})
}

// S32: waiting for a permit is part of a probe's lease, and a probe that gave up
// waiting leaves its place to the very next call.
func TestProbeGivesUpWaiting(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{Timeout: time.Minute})
		c := waiting(isolation)
		c.Timeout = 0
		dep := reg.Dependency("dep", c)
		cmd := dep.Command("cmd", firebreak.Config{ConsecutiveFailures: 1})
		_, err := firebreak.Do(t.Context(), cmd, fail)
		require.ErrorIs(t, err, errBoom)
		time.Sleep(5 * time.Second)

		holder := hold(t.Context(), dep.Command("other", firebreak.Config{}))
		ctx, leave := context.WithCancel(t.Context())
		probe := hold(ctx, cmd)
		requireWaits(t, probe)
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrOpen)
		leave()
		synctest.Wait()
		requireGaveUp(t, probe, context.Canceled)
		next := hold(t.Context(), cmd)
		requireWaits(t, next)
		holder.ends(succeed)
		requireRuns(t, next)
		next.ends(succeed)
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
	})
}

// S41: when Update returns, those whom a greater limit lets in are in, in order.
func TestI1GrowthLetsWaitersIn(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", waiting(isolation))
		var calls []*liveCall
		for range 4 {
			calls = append(calls, hold(t.Context(), cmd))
		}
		requireWaits(t, calls[1:]...)
		resize(t, reg, firebreak.Config{MaxConcurrent: 3})
		requireGauges(t, cmd, 3, 1, 0) // at once
		require.Equal(t, 3, cmd.Snapshot().Bulkhead.Limit)
		synctest.Wait()
		requireRuns(t, calls[:3]...)
		requireWaits(t, calls[3])

		resize(t, reg, firebreak.Config{MaxConcurrent: firebreak.Unlimited})
		requireGauges(t, cmd, 4, 0, 0)
		synctest.Wait()
		requireRuns(t, calls...)
		for _, c := range calls {
			c.ends(succeed)
		}
		requireSucceeded(t, calls...)
	})
}

// S41: after a shrink what is in flight only falls until it fits; nothing is
// cancelled, and those who wait keep their place.
func TestI1ShrinkAdmitsNobodyUntilItFits(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		c := waiting(isolation)
		c.MaxConcurrent = 3
		cmd := reg.Command("dep", c)
		var calls []*liveCall
		for range 5 {
			calls = append(calls, hold(t.Context(), cmd))
		}
		resize(t, reg, firebreak.Config{MaxConcurrent: 1, QueueSize: 1})
		synctest.Wait()
		requireRuns(t, calls[:3]...)
		requireWaits(t, calls[3:]...)
		requireGauges(t, cmd, 3, 2, 0)
		require.Equal(t, 1, cmd.Snapshot().Bulkhead.Limit)
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
		for i := range 2 {
			require.NoError(t, calls[i].run().Err())
			calls[i].ends(succeed)
			requireGauges(t, cmd, 2-i, 2, 0)
		}
		requireWaits(t, calls[3:]...)
		calls[2].ends(succeed)
		requireRuns(t, calls[3])
		requireWaits(t, calls[4])
		requireGauges(t, cmd, 1, 1, 0)
		calls[3].ends(succeed)
		requireRuns(t, calls[4])
		calls[4].ends(succeed)
		requireSucceeded(t, calls...)
	})
}

// S41: without a bound, too, what is in flight is counted.
func TestUnlimitedCounts(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{Isolation: isolation, MaxConcurrent: firebreak.Unlimited, Timeout: firebreak.Off})
		var calls []*liveCall
		for range 150 {
			calls = append(calls, hold(t.Context(), cmd))
		}
		requireRuns(t, calls...)
		requireGauges(t, cmd, 150, 0, 0)
		require.Equal(t, firebreak.Unlimited, cmd.Snapshot().Bulkhead.Limit)

		resize(t, reg, firebreak.Config{MaxConcurrent: 100})
		require.Equal(t, 100, cmd.Snapshot().Bulkhead.Limit)
		for i, c := range calls {
			requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
			c.ends(succeed)
			if i == 50 {
				break
			}
		}
		calls[0] = hold(t.Context(), cmd)
		requireRuns(t, calls[0])
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
		calls[0].ends(succeed)
		for _, c := range calls[51:] {
			c.ends(succeed)
		}
	})
}

// S43: a nested call needs a permit of its own. It is refused or waits so long, and
// the outer call goes on.
func TestNestedCallNeverDeadlocks(t *testing.T) {
	for _, row := range []struct {
		name  string
		c     firebreak.Config
		after time.Duration
		late  bool
	}{
		{"semaphore", firebreak.Config{MaxConcurrent: 1}, 0, false},
		{"semaphore with a wait", firebreak.Config{MaxConcurrent: 1, MaxWait: 300 * time.Millisecond}, 300 * time.Millisecond, false},
		{"pool", firebreak.Config{MaxConcurrent: 1, Isolation: firebreak.PoolIsolation}, 0, false},
		{"pool with a queue", firebreak.Config{MaxConcurrent: 1, Isolation: firebreak.PoolIsolation, QueueSize: 1}, 500 * time.Millisecond, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newRegistry(t, firebreak.Config{})
				dep := reg.Dependency("dep", row.c)
				outer := dep.Command("outer", firebreak.Config{Timeout: time.Second})
				inner := dep.Command("inner", firebreak.Config{Timeout: 500 * time.Millisecond})
				submitted := time.Now()
				_, err := firebreak.Do(t.Context(), outer, func(ctx context.Context) (int, error) {
					_, err := firebreak.Do(ctx, inner, succeed)
					require.ErrorIs(t, err, firebreak.ErrRejected)
					require.Equal(t, row.late, errors.Is(err, context.DeadlineExceeded))
					return 1, nil
				})
				require.NoError(t, err)
				require.Equal(t, row.after, time.Since(submitted))
				require.EqualValues(t, 1, total(outer).Success)
				require.EqualValues(t, 1, total(inner).Rejected)
			})
		})
	}
}

// The commands of a dependency share its bulkhead; each counts its own calls.
func TestCommandsShareABulkhead(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		c := waiting(isolation)
		c.MaxConcurrent, c.QueueSize = 2, 1
		dep := reg.Dependency("dep", c)
		keyed := dep.Keyed("keyed", 2, firebreak.Config{})
		cmds := []*firebreak.Command{dep.Command("a", firebreak.Config{}), dep.Command("b", firebreak.Config{}), keyed.Command("x"), keyed.Command("y")}
		first, second, third := hold(t.Context(), cmds[0]), hold(t.Context(), cmds[2]), hold(t.Context(), cmds[1])
		requireRuns(t, first, second)
		requireWaits(t, third)
		requireRefused(t, hold(t.Context(), cmds[3]), firebreak.ErrRejected)
		for i, inFlight := range []int{1, 0, 1, 0} {
			s := cmds[i].Snapshot()
			require.Equal(t, "dep", s.Dependency)
			require.Equal(t, inFlight, s.InFlight, cmds[i].Name())
			requireGauges(t, cmds[i], 2, 1, 0)
		}
		require.Equal(t, cmds[0].Snapshot().Bulkhead, keyed.Snapshot().Bulkhead)
		require.Equal(t, 1, keyed.Snapshot().InFlight)
		require.EqualValues(t, 1, total(cmds[3]).Rejected)
		require.Zero(t, total(cmds[1]).Calls())
		other := reg.Command("neighbour", firebreak.Config{})
		_, err := firebreak.Do(t.Context(), other, succeed)
		require.NoError(t, err, "another dependency's bulkhead is another one")
		first.ends(succeed)
		requireRuns(t, third)
		second.ends(succeed)
		third.ends(succeed)
		requireGauges(t, cmds[3], 0, 0, 0)
	})
}

// S54: the most at once in the rolling window, seen without a Snapshot meanwhile.
func TestMaxInFlight(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{Timeout: firebreak.Off})
		dep := reg.Dependency("dep", firebreak.Config{Isolation: isolation, MaxConcurrent: 5})
		a, b := dep.Command("a", firebreak.Config{}), dep.Command("b", firebreak.Config{})
		most := func() [3]int {
			return [3]int{a.Snapshot().MaxInFlight, b.Snapshot().MaxInFlight, a.Snapshot().Bulkhead.MaxInFlight}
		}
		var calls []*liveCall
		for range 2 {
			calls = append(calls, hold(t.Context(), a))
		}
		calls = append(calls, hold(t.Context(), b))
		for _, c := range calls {
			c.ends(succeed)
		}
		require.Equal(t, [3]int{2, 1, 3}, most())
		time.Sleep(9*time.Second - 1)
		require.Equal(t, [3]int{2, 1, 3}, most())
		time.Sleep(time.Second + 1)
		require.Equal(t, [3]int{}, most(), "a window later")

		h := hold(t.Context(), a)
		require.Equal(t, [3]int{1, 0, 1}, most(), "what is in flight now, at least")
		time.Sleep(time.Minute)
		require.Equal(t, [3]int{1, 0, 1}, most())
		h.ends(succeed)
	})
}

// S54: who is rejected has seen the bulkhead full.
func TestMaxInFlightSeenByRejections(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		cmd := newCommand(t, firebreak.Config{Isolation: isolation, MaxConcurrent: 2, Timeout: firebreak.Off})
		first, second := hold(t.Context(), cmd), hold(t.Context(), cmd)
		time.Sleep(time.Minute)
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
		time.Sleep(5 * time.Second)
		first.ends(succeed)
		time.Sleep(4*time.Second - 1)
		second.ends(succeed)
		require.Equal(t, 2, cmd.Snapshot().Bulkhead.MaxInFlight)
	})
}

// S49: Begin takes a permit of either bulkhead, on the caller's goroutine. It waits
// at a semaphore as Do does, and in a pool it never queues.
func TestBeginAtAFullBulkhead(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		cmd := newCommand(t, waiting(isolation))
		call, err := cmd.Begin(t.Context())
		require.NoError(t, err)
		requireGauges(t, cmd, 1, 0, 0)
		require.Equal(t, 1, cmd.Snapshot().InFlight)
		behind := hold(t.Context(), cmd)
		requireWaits(t, behind)

		var second *firebreak.Call
		var refused error
		began := false
		go func() {
			second, refused = cmd.Begin(t.Context())
			began = true
		}()
		synctest.Wait()
		if isolation == firebreak.PoolIsolation {
			require.True(t, began)
			require.ErrorIs(t, refused, firebreak.ErrRejected)
		} else {
			require.False(t, began)
			requireGauges(t, cmd, 1, 2, 0)
		}

		require.NoError(t, call.Settle(nil))
		synctest.Wait()
		requireWaits(t, behind) // the permit stays until End
		call.End()
		call.End()
		synctest.Wait()
		requireRuns(t, behind)
		behind.ends(succeed)
		if isolation == firebreak.SemaphoreIsolation {
			require.True(t, began)
			require.NoError(t, refused)
			requireGauges(t, cmd, 1, 0, 0)
			second.Settle(nil)
			second.End()
		}
		requireGauges(t, cmd, 0, 0, 0)
	})
}

// S7: a call keeps the settings that it began with, also while it waits: its
// deadline, what becomes of its panic and whether its fallback is asked belong
// together. Only the limit of the bulkhead is live.
func TestI14WaitingCallsKeepTheirSettings(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", waiting(isolation))
		strict := firebreak.Config{Timeout: 3 * time.Second, MaxFallbacks: firebreak.Off, RecoverPanics: firebreak.On, Mode: firebreak.ForceClosed}
		lenient := firebreak.Config{Timeout: 5 * time.Second, MaxFallbacks: 1, RecoverPanics: firebreak.On, Mode: firebreak.ForceClosed}
		update := func(c firebreak.Config) {
			require.NoError(t, reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{"dep": c}}))
		}
		for range 2 {
			for _, how := range []func(context.Context) (int, error){fail, runPanics} {
				update(strict)
				first := hold(t.Context(), cmd, firebreak.Static(7))
				second := hold(t.Context(), cmd, firebreak.Static(7))
				update(lenient)
				third := hold(t.Context(), cmd, firebreak.Static(7))
				require.Equal(t, time.Now().Add(3*time.Second), deadlineOf(t, first.run()))
				first.ends(how)
				require.Error(t, first.err)
				requireRuns(t, second)
				require.Equal(t, time.Now().Add(3*time.Second), deadlineOf(t, second.run()))
				second.ends(how)
				require.Error(t, second.err)
				requireRuns(t, third)
				update(strict)
				require.Equal(t, time.Now().Add(5*time.Second), deadlineOf(t, third.run()))
				third.ends(how)
				require.NoError(t, third.err)
				require.Equal(t, 7, third.v)
			}
		}
		require.Equal(t, firebreak.Counts{Failure: 6, Panic: 6, FallbackMissing: 8, FallbackSuccess: 4}, total(cmd))
	})
}

// A snitch is an error whose text, which the evidence asks for, says what can be
// seen at that moment.
type snitch struct{ cmd *firebreak.Command }

func (s *snitch) Error() string {
	is := s.cmd.Snapshot()
	return fmt.Sprintf("%d calls, %d in flight", is.Total.Calls(), is.Bulkhead.InFlight)
}

// S5: statistics, circuit, permit back: whoever gets the permit next sees the news.
func TestPermitGoesBackAfterTheCircuitKnows(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		cmd := newCommand(t, firebreak.Config{Isolation: isolation, MaxConcurrent: 1, ConsecutiveFailures: 1})
		_, err := firebreak.Do(t.Context(), cmd, func(context.Context) (int, error) { return 0, &snitch{cmd} })
		require.Error(t, err)
		require.Equal(t, "1 calls, 1 in flight", cmd.Snapshot().Evidence.LastError)
		require.Equal(t, "1 calls, 0 in flight", err.Error())
	})
}

// S5: when Do returns its permit is free, without a wait: one call after the other
// finds the only one.
func TestI2PermitIsBackWhenDoReturns(t *testing.T) {
	for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		cmd := newCommand(t, firebreak.Config{Isolation: isolation, MaxConcurrent: 1, Timeout: time.Minute})
		for range 2000 {
			_, err := firebreak.Do(t.Context(), cmd, succeed)
			require.NoError(t, err)
		}
	}
}

// S73: a key is not unused while a call of its waits, and is once that is over,
// however it ended.
func TestWaitingKeepsAKey(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{Window: time.Second})
		dep := reg.Dependency("dep", waiting(isolation))
		holder := dep.Command("holder", firebreak.Config{Timeout: time.Minute})
		for _, row := range []struct {
			name string
			end  func(first *liveCall, ctx *quietContext, leave func())
		}{
			{"turn", func(first *liveCall, _ *quietContext, _ func()) { first.ends(succeed) }},
			{"gives up", func(_ *liveCall, _ *quietContext, leave func()) { leave() }},
			{"gave up without a sound", func(first *liveCall, ctx *quietContext, _ func()) {
				ctx.ended.Store(true)
				first.ends(succeed)
			}},
			{"deadline", func(*liveCall, *quietContext, func()) { time.Sleep(10 * time.Second) }},
		} {
			keyed := dep.Keyed(row.name, 1, firebreak.Config{})
			first := hold(t.Context(), holder)
			ctx, leave := context.WithCancel(t.Context())
			quiet := &quietContext{Context: ctx}
			waits := hold(quiet, keyed.Command("a"))
			requireWaits(t, waits)
			time.Sleep(2 * time.Second)
			require.Equal(t, row.name+"[*]", keyed.Command("b").Name(), "a is still needed")
			row.end(first, quiet, leave)
			synctest.Wait()
			if !waits.over() {
				waits.ends(succeed)
			}
			if !first.over() {
				first.ends(succeed)
			}
			time.Sleep(2 * time.Second)
			require.Equal(t, row.name+"[b]", keyed.Command("b").Name(), "a makes way")
			leave()
		}
	})
}

// S71: with another Window the rolling maximum begins again, and is kept as long.
func TestMaxInFlightWithAnotherWindow(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{Isolation: isolation})
		most := func() int { return cmd.Snapshot().Bulkhead.MaxInFlight }
		hold(t.Context(), cmd).ends(succeed)
		require.Equal(t, 1, most())
		resize(t, reg, firebreak.Config{Window: time.Minute})
		require.Zero(t, most())
		hold(t.Context(), cmd).ends(succeed)
		time.Sleep(50 * time.Second)
		require.Equal(t, 1, most())
		time.Sleep(10 * time.Second)
		require.Zero(t, most())
	})
}

// I9: a call that is over has left no timer behind, which would keep what the call
// held until its deadline.
func TestI9NoTimerIsLeft(t *testing.T) {
	for name, c := range map[string]firebreak.Config{
		"semaphore":       {Timeout: time.Hour},
		"pool":            {Timeout: time.Hour, Isolation: firebreak.PoolIsolation},
		"turn in a queue": {Timeout: time.Hour, Isolation: firebreak.PoolIsolation, MaxConcurrent: 1, QueueSize: 1},
		"turn":            {Timeout: time.Hour, MaxWait: time.Hour, MaxConcurrent: 1},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := newCommand(t, c)
			freed := make(chan struct{})
			leavesNothing(t, cmd, freed)
			waitUntil(t, func() bool {
				runtime.GC()
				select {
				case <-freed:
					return true
				default:
					return false
				}
			})
		})
	}
}

// leavesNothing makes a call under a context that closes freed when it is garbage,
// behind one that goes on meanwhile.
func leavesNothing(t *testing.T, cmd *firebreak.Command, freed chan struct{}) {
	t.Helper()
	goOn, over := make(chan struct{}), make(chan struct{})
	if cmd.Config().MaxConcurrent == 1 {
		holder, err := cmd.Begin(t.Context())
		require.NoError(t, err)
		go func() {
			<-goOn
			holder.Settle(nil)
			holder.End()
		}()
	} else {
		close(goOn)
	}
	go func() {
		defer close(over)
		ctx := &struct{ context.Context }{t.Context()}
		runtime.AddCleanup(ctx, func(c chan struct{}) { close(c) }, freed)
		_, err := firebreak.Do(ctx, cmd, func(ctx context.Context) (int, error) {
			ctx.Done()
			return 1, nil
		})
		assert.NoError(t, err)
	}()
	if cmd.Config().MaxConcurrent == 1 {
		waitUntil(t, func() bool { return cmd.Snapshot().Bulkhead.Queued == 1 })
		close(goOn)
	}
	<-over
}

// waitUntil waits for what must come about outside bubbles.
func waitUntil(t testing.TB, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
		require.True(t, time.Now().Before(until), "it does not come about")
	}
}
