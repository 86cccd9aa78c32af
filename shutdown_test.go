package firebreak_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// A shutting is a Shutdown on a goroutine of its own, in a bubble.
type shutting struct{ ended chan error }

func beginShutdown(ctx context.Context, reg *firebreak.Registry) *shutting {
	s := &shutting{ended: make(chan error, 1)}
	go func() { s.ended <- reg.Shutdown(ctx) }()
	synctest.Wait()
	return s
}

func (s *shutting) waits(t testing.TB) {
	t.Helper()
	require.Empty(t, s.ended, "Shutdown has returned")
}

func (s *shutting) result(t testing.TB) error {
	t.Helper()
	synctest.Wait()
	require.Len(t, s.ended, 1, "Shutdown waits")
	return <-s.ended
}

// S72: from the moment that new calls are refused, and not before.
func TestDrainingFromShutdownOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		call, err := reg.Command("dep", firebreak.Config{}).Begin(t.Context())
		require.NoError(t, err)
		require.False(t, reg.Draining())
		s := beginShutdown(t.Context(), reg)
		require.True(t, reg.Draining(), "while it waits")
		call.End()
		require.NoError(t, s.result(t))
		require.True(t, reg.Draining())
	})
}

// S72: it returns at once if no permit is out, also if its context is over; and from
// then on every call is refused, in every way of making one.
func TestShutdownRefusesCalls(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{Isolation: isolation})
		_, err := firebreak.Do(t.Context(), cmd, succeed)
		require.NoError(t, err)
		for range 20 {
			require.NoError(t, reg.Shutdown(canceled(t)))
		}
		require.NoError(t, reg.Shutdown(t.Context()))

		never := func(context.Context) (int, error) { panic("run was called") }
		_, err = firebreak.Do(t.Context(), cmd, never)
		require.Equal(t, &firebreak.Error{Command: "dep", Reason: firebreak.ErrShutdown}, err)
		require.Zero(t, err.(*firebreak.Error).RetryAfter())
		require.ErrorIs(t, cmd.Run(t.Context(), func(context.Context) error { panic("run was called") }), firebreak.ErrShutdown)
		_, err = cmd.Begin(t.Context())
		require.ErrorIs(t, err, firebreak.ErrShutdown)
		_, err = firebreak.Bind(cmd, func(context.Context, int) (int, error) { panic("run was called") })(t.Context(), 1)
		require.ErrorIs(t, err, firebreak.ErrShutdown)

		v, err := firebreak.Do(t.Context(), cmd, never, firebreak.Static(7))
		require.NoError(t, err, "fallbacks still answer")
		require.Equal(t, 7, v)
		_, err = firebreak.Do(canceled(t), cmd, never)
		require.Equal(t, context.Canceled, err, "a dead context beats it (S1)")
		require.Equal(t, firebreak.Counts{Success: 1, Shutdown: 5, GaveUp: 1, FallbackSuccess: 1, FallbackMissing: 3}, total(cmd))
	})
}

// S1: shutdown beats short_circuited, that beats rejected.
func TestShutdownIsTheFirstRefusal(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{Isolation: isolation, MaxConcurrent: 1})
		h := hold(t.Context(), cmd)
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
		cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrOpen)
		s := beginShutdown(t.Context(), reg)
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrShutdown)
		cmd.Override(firebreak.Override{Mode: firebreak.ForceClosed})
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrShutdown)
		cmd.Override(firebreak.Override{})
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrShutdown)
		h.ends(succeed)
		require.NoError(t, s.result(t))
	})
}

// S72: waiters and queued calls end at once; what runs ends as ever, and nothing is
// cancelled.
func TestShutdownWakesWaiters(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", waiting(isolation))
		first, second := hold(t.Context(), cmd), hold(t.Context(), cmd)
		third := hold(t.Context(), cmd, firebreak.Static(7))
		requireWaits(t, second, third)
		time.Sleep(time.Second)
		s := beginShutdown(t.Context(), reg)
		requireRefused(t, second, firebreak.ErrShutdown)
		require.Equal(t, time.Second, second.took)
		require.True(t, third.over())
		require.NoError(t, third.err)
		require.Equal(t, 7, third.v)
		requireRuns(t, first)
		require.NoError(t, first.run().Err())
		requireGauges(t, cmd, 1, 0, 0)

		time.Sleep(time.Second)
		s.waits(t)
		first.ends(succeed)
		requireSucceeded(t, first)
		require.NoError(t, s.result(t))
		require.Equal(t, firebreak.Counts{Success: 1, Shutdown: 2, FallbackSuccess: 1, FallbackMissing: 1}, total(cmd))
	})
}

// S72: it waits for Begin until End, whatever was settled.
func TestShutdownWaitsForBegin(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{Isolation: isolation})
		call, err := cmd.Begin(t.Context())
		require.NoError(t, err)
		s := beginShutdown(t.Context(), reg)
		require.NoError(t, call.Context().Err())
		require.NoError(t, call.Settle(nil))
		synctest.Wait()
		s.waits(t)
		call.End()
		require.NoError(t, s.result(t))
		require.Equal(t, firebreak.Counts{Success: 1}, total(cmd))
	})
}

// S72: it waits for runs whose caller has left.
func TestShutdownWaitsForAbandonedRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{Isolation: firebreak.PoolIsolation, Timeout: time.Second})
		h := hold(t.Context(), cmd)
		time.Sleep(time.Second)
		synctest.Wait()
		require.True(t, h.over())
		requireGauges(t, cmd, 1, 0, 1)
		s := beginShutdown(t.Context(), reg)
		time.Sleep(time.Hour)
		s.waits(t)
		h.ends(runPanics)
		require.NoError(t, s.result(t))
	})
}

// S72: it does not wait for fallbacks.
func TestShutdownDoesNotWaitForFallbacks(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{Isolation: isolation})
		answer := make(chan int)
		h := hold(t.Context(), cmd, func(context.Context, error) (int, error) { return <-answer, nil })
		h.ends(fail)
		require.NoError(t, reg.Shutdown(t.Context()))
		require.False(t, h.over())
		answer <- 7
		synctest.Wait()
		require.NoError(t, h.err)
		require.Equal(t, 7, h.v)
	})
}

// S72: at the end of its context it says what is stuck, how much of it, and for how
// long at least.
func TestShutdownSaysWhatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{Timeout: firebreak.Off})
		pool := reg.Dependency("pool", firebreak.Config{Isolation: firebreak.PoolIsolation})
		a, idle := pool.Command("a", firebreak.Config{}), pool.Command("idle", firebreak.Config{})
		b := reg.Dependency("semaphore", firebreak.Config{}).Keyed("b", 2, firebreak.Config{}).Command("x")
		_, err := firebreak.Do(t.Context(), idle, succeed)
		require.NoError(t, err)
		calls := []*liveCall{hold(t.Context(), a), hold(t.Context(), a), hold(t.Context(), b)}
		left, leave := context.WithCancel(t.Context())
		calls = append(calls, hold(left, a))
		leave()
		open, err := b.Begin(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Minute)

		ctx, cancel := context.WithTimeout(t.Context(), 1999600*time.Microsecond)
		defer cancel()
		err = reg.Shutdown(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, err, "firebreak: shutdown: a: 3 in flight for at least 1.999s; b[x]: 2 in flight for at least 1.999s: context deadline exceeded")

		open.End()
		for _, h := range calls[:3] {
			h.ends(succeed)
		}
		s := beginShutdown(canceled(t), reg)
		err = s.result(t)
		require.ErrorIs(t, err, context.Canceled)
		require.EqualError(t, err, "firebreak: shutdown: a: 1 in flight for at least 0s: context canceled")
		calls[3].ends(succeed)
		require.NoError(t, reg.Shutdown(canceled(t)), "all is back")
	})
}

// S72: each of several waits, and answers for itself.
func TestShutdownSeveralTimesAtOnce(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{Isolation: isolation})
		h := hold(t.Context(), cmd)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		patient := beginShutdown(t.Context(), reg)
		impatient := beginShutdown(ctx, reg)
		time.Sleep(time.Second - 1)
		impatient.waits(t)
		time.Sleep(time.Nanosecond)
		require.ErrorIs(t, impatient.result(t), context.DeadlineExceeded)
		late := beginShutdown(t.Context(), reg)
		patient.waits(t)
		late.waits(t)
		h.ends(succeed)
		require.NoError(t, patient.result(t))
		require.NoError(t, late.result(t))
	})
}

// S72: one inside a run waits for that very run, till its context ends.
func TestShutdownInsideARun(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{Isolation: isolation, Timeout: time.Minute})
		v, err := firebreak.Do(t.Context(), cmd, func(ctx context.Context) (int, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			began := time.Now()
			err := reg.Shutdown(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "dep: 1 in flight for at least 1s")
			require.Equal(t, time.Second, time.Since(began))
			return 1, nil
		})
		require.NoError(t, err)
		require.Equal(t, 1, v)
	})
}

// S72: what is made after it is shut from the start, and nothing opens it again.
func TestShutdownIsForWhatIsMadeLater(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{Isolation: isolation})
		old := reg.Dependency("dep", firebreak.Config{})
		keyed := old.Keyed("keyed", 2, firebreak.Config{})
		require.NoError(t, reg.Shutdown(t.Context()))
		resize(t, reg, firebreak.Config{Isolation: isolation, MaxConcurrent: 1000})
		for _, cmd := range []*firebreak.Command{
			old.Command("cmd", firebreak.Config{}),
			old.Command("forced", firebreak.Config{Mode: firebreak.ForceClosed}),
			keyed.Command("a"),
			reg.Command("another", firebreak.Config{}),
			reg.Dependency("a third", firebreak.Config{}).Keyed("more", 1, firebreak.Config{}).Command("b"),
		} {
			requireRefused(t, hold(t.Context(), cmd), firebreak.ErrShutdown)
			_, err := cmd.Begin(t.Context())
			require.ErrorIs(t, err, firebreak.ErrShutdown)
			require.EqualValues(t, 2, total(cmd).Shutdown)
		}
		require.NoError(t, reg.Shutdown(t.Context()))
	})
}

// S62, S72: it waits for all dependencies, one after the other or together.
func TestShutdownWaitsForEveryDependency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		var calls []*liveCall
		for _, name := range []string{"a", "b", "c"} {
			calls = append(calls, hold(t.Context(), reg.Command(name, firebreak.Config{Timeout: firebreak.Off})))
		}
		s := beginShutdown(t.Context(), reg)
		for i := range calls {
			s.waits(t)
			calls[len(calls)-1-i].ends(succeed)
		}
		require.NoError(t, s.result(t))
	})
}

// After Shutdown and the last call nothing of ours is left: the bubble could not end
// otherwise. Waits that were given up on leave nothing either.
func TestI9NothingIsLeftAfterShutdown(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		c := waiting(isolation)
		c.Timeout = time.Second
		cmd := reg.Command("dep", c)
		ctx, leave := context.WithCancel(t.Context())
		calls := []*liveCall{hold(t.Context(), cmd), hold(ctx, cmd), hold(t.Context(), cmd), hold(t.Context(), cmd)}
		leave()
		begun, err := cmd.Begin(t.Context())
		if err == nil {
			begun.End()
		}
		for range 3 {
			beginShutdown(canceled(t), reg)
		}
		time.Sleep(2 * time.Second)
		calls[0].ends(fail)
		require.NoError(t, reg.Shutdown(t.Context()))
		require.Zero(t, workers())
		for _, h := range calls {
			require.True(t, h.over())
		}
		requireAtRest(t, cmd)
	})
}

// A probe that Shutdown finds waiting is refused like any other, and the circuit of
// a registry that is shut changes no more.
func TestShutdownEndsTheCircuit(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{Timeout: time.Minute})
		c := waiting(isolation)
		c.MaxConcurrent, c.Timeout = 2, 0
		dep := reg.Dependency("dep", c)
		cmd, other := dep.Command("cmd", firebreak.Config{ConsecutiveFailures: 1, Probes: 2}), dep.Command("other", firebreak.Config{})
		_, err := firebreak.Do(t.Context(), cmd, fail)
		require.ErrorIs(t, err, errBoom)
		time.Sleep(5 * time.Second)
		holder, probe, waits := hold(t.Context(), other), hold(t.Context(), cmd), hold(t.Context(), cmd)
		requireRuns(t, holder, probe)
		requireWaits(t, waits)
		s := beginShutdown(t.Context(), reg)
		requireRefused(t, waits, firebreak.ErrShutdown)
		probe.ends(succeed)
		requireSucceeded(t, probe)
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrShutdown)
		time.Sleep(time.Minute)
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrShutdown)
		holder.ends(fail)
		require.NoError(t, s.result(t))
	})
}

// A turn that comes after the circuits are shut and before the bulkheads are.
func TestShutdownMeetsATurn(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", waiting(isolation))
		first, second, third := hold(t.Context(), cmd), hold(t.Context(), cmd), hold(t.Context(), cmd)
		firebreak.ShutCircuit(cmd)
		requireWaits(t, second, third)
		first.ends(succeed)
		requireSucceeded(t, first)
		requireRefused(t, second, firebreak.ErrShutdown)
		requireRefused(t, third, firebreak.ErrShutdown)
		require.NoError(t, reg.Shutdown(t.Context()))
		require.Equal(t, firebreak.Counts{Success: 1, Shutdown: 2, FallbackMissing: 2}, total(cmd))
	})
}

// A nested command finds its registry shut while the outer one still runs.
func TestShutdownWhileNested(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{Isolation: isolation})
		outer, inner := reg.Command("outer", firebreak.Config{}), reg.Command("inner", firebreak.Config{})
		h := hold(t.Context(), outer)
		s := beginShutdown(t.Context(), reg)
		h.ends(func(ctx context.Context) (int, error) {
			_, err := firebreak.Do(ctx, inner, succeed)
			return 0, err
		})
		ours, ok := errors.AsType[*firebreak.Error](h.err)
		require.True(t, ok)
		require.Equal(t, "inner", ours.Command)
		require.Equal(t, firebreak.ErrShutdown, ours.Reason)
		require.EqualValues(t, 1, total(outer).Failure, "an ordinary error (S14)")
		require.NoError(t, s.result(t))
	})
}

// S60, S72: an observer that is slow to hear of a shutdown keeps nobody waiting.
func TestShutdownUnderASlowObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{MaxConcurrent: 1, Timeout: time.Minute, MaxWait: time.Minute})
		var commands []*firebreak.Command
		for _, name := range []string{"a", "b"} {
			commands = append(commands, reg.Command(name, firebreak.Config{}))
		}
		held := []*firebreak.Call{begin(t, commands[0]), begin(t, commands[1])}
		heard := make(chan bool)
		var slow atomic.Bool
		reg.Observe(firebreak.Observer{Transition: func(firebreak.Transition) {
			if slow.CompareAndSwap(false, true) { // whichever is told first
				<-heard
			}
		}})
		errs := make(chan error, 2)
		for _, cmd := range commands {
			go func() {
				_, err := firebreak.Do(context.Background(), cmd, succeed)
				errs <- err
			}()
		}
		synctest.Wait()
		s := beginShutdown(t.Context(), reg)
		synctest.Wait()
		for _, cmd := range commands {
			require.Zero(t, cmd.Snapshot().Bulkhead.Queued, cmd.Name())
			require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State, cmd.Name())
		}
		close(heard)
		for range commands {
			require.ErrorIs(t, <-errs, firebreak.ErrShutdown)
		}
		end(held...)
		require.NoError(t, s.result(t))
	})
}
