package firebreak_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// pool is a command with a pool of one worker and a queue of two, where c says
// nothing else.
func pool(t testing.TB, c firebreak.Config) *firebreak.Command {
	t.Helper()
	c.Isolation = firebreak.PoolIsolation
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = 1
	}
	if c.QueueSize == 0 {
		c.QueueSize = 2
	}
	return newCommand(t, c)
}

// A gate is a context whose next Err, once it is shut, waits until it opens: a test
// holds a worker, or a caller, at the point where it asks.
type gate struct {
	context.Context
	shut  atomic.Bool
	opens chan struct{}
}

func newGate(ctx context.Context) *gate { return &gate{Context: ctx, opens: make(chan struct{})} }

// Err says what was so when it was asked.
func (g *gate) Err() error {
	err := g.Context.Err()
	if g.shut.CompareAndSwap(true, false) {
		<-g.opens
	}
	return err
}

func (g *gate) open(t testing.TB) {
	t.Helper()
	require.False(t, g.shut.Load(), "nobody has asked")
	g.opens <- struct{}{}
	synctest.Wait()
}

// goroutine names the goroutine that calls it.
func goroutine() string {
	buf := make([]byte, 64)
	name, _, _ := strings.Cut(string(buf[:runtime.Stack(buf, false)]), " [")
	return name
}

// S44, S49: run is on a worker; with Begin it is the caller's.
func TestPoolRunsOnAWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{})
		here, there := goroutine(), ""
		v, err := firebreak.Do(t.Context(), cmd, func(context.Context) (int, error) {
			there = goroutine()
			return 1, errBoom
		}, func(context.Context, error) (int, error) {
			require.Equal(t, here, goroutine(), "fallbacks are the caller's")
			return 2, errors.New("no")
		})
		require.ErrorIs(t, err, errBoom)
		require.Equal(t, 1, v, "what run returned beside its error")
		require.NotEqual(t, here, there)
	})
}

// S45: – → running, – → queued, – → rejected; queued → running → done.
func TestPoolQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{})
		calls := []*liveCall{hold(t.Context(), cmd), hold(t.Context(), cmd), hold(t.Context(), cmd)}
		requireRuns(t, calls[0])
		requireWaits(t, calls[1:]...)
		requireGauges(t, cmd, 1, 2, 0)
		require.Equal(t, 1, cmd.Snapshot().InFlight, "who is queued is not in flight")
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
		for _, h := range calls {
			requireRuns(t, h)
			time.Sleep(time.Millisecond)
			h.ends(succeed)
		}
		requireSucceeded(t, calls...)
		require.Equal(t, firebreak.Counts{Success: 3, Rejected: 1, FallbackMissing: 1}, total(cmd))
		s := cmd.Snapshot()
		require.InEpsilon(t, 1*time.Millisecond, s.RunLatency.Max, 0.02)
		require.InEpsilon(t, 3*time.Millisecond, s.CallLatency.Max, 0.02, "from submission: queueing counts")
	})
}

// S45: queued → dropped. A call whose time is over when its turn comes never runs;
// whoever is behind it does.
func TestPoolQueuedCallNeverRunsAfterItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		dep := reg.Dependency("dep", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 1, QueueSize: 2})
		slow := dep.Command("slow", firebreak.Config{Timeout: time.Minute})
		cmd := dep.Command("cmd", firebreak.Config{Timeout: time.Second})
		for range 50 { // the caller's timer and the worker, at one moment: either may be first
			first := hold(t.Context(), slow)
			second, third := hold(t.Context(), cmd), hold(t.Context(), slow)
			time.Sleep(time.Second)
			first.ends(succeed)
			requireRefused(t, second, firebreak.ErrRejected)
			require.ErrorIs(t, second.err, context.DeadlineExceeded)
			require.Equal(t, time.Second, second.took)
			requireRuns(t, third)
			requireGauges(t, cmd, 1, 0, 0)
			third.ends(succeed)
		}
		require.Equal(t, firebreak.Counts{Rejected: 50, FallbackMissing: 50}, total(cmd))

		first, second := hold(t.Context(), slow), hold(t.Context(), cmd)
		time.Sleep(time.Second - 1)
		first.ends(succeed)
		requireRuns(t, second)
		second.ends(succeed)
		requireSucceeded(t, second)
	})
}

// S45: queued → dropped, as its caller has gone without a sound.
func TestPoolDropsACallWhoseCallerHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{})
		ctx := &quietContext{Context: t.Context()}
		first, second := hold(t.Context(), cmd), hold(ctx, cmd)
		ctx.ended.Store(true)
		first.ends(succeed)
		requireGaveUp(t, second, context.Canceled)
		requireGauges(t, cmd, 0, 0, 0)
		require.Equal(t, firebreak.Counts{Success: 1, GaveUp: 1}, total(cmd))
	})
}

// S45: queued → withdrawn.
func TestPoolCallerWithdraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		dep := reg.Dependency("dep", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 1, QueueSize: 2})
		first := hold(t.Context(), dep.Command("slow", firebreak.Config{Timeout: time.Minute}))
		cmd := dep.Command("cmd", firebreak.Config{Timeout: time.Second})
		ctx, leave := context.WithCancel(t.Context())
		second, third := hold(t.Context(), cmd), hold(ctx, cmd)
		time.Sleep(time.Second / 2)
		leave()
		synctest.Wait()
		requireGaveUp(t, third, context.Canceled)
		requireGauges(t, cmd, 1, 1, 0)
		fourth := hold(t.Context(), cmd)
		requireWaits(t, second, fourth)

		time.Sleep(time.Second / 2)
		synctest.Wait()
		requireRefused(t, second, firebreak.ErrRejected)
		require.ErrorIs(t, second.err, context.DeadlineExceeded)
		require.Equal(t, time.Second, second.took)
		requireWaits(t, fourth)
		first.ends(succeed)
		requireRuns(t, fourth)
		fourth.ends(succeed)
		require.Equal(t, firebreak.Counts{Success: 1, Rejected: 1, GaveUp: 1, FallbackMissing: 1}, total(cmd))
	})
}

// S45: running → left at D, and left to its end. The caller is back on time, the
// permit when run is, and what run came to is nobody's.
func TestPoolCallerLeavesAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{Timeout: time.Second})
		first := hold(t.Context(), cmd)
		time.Sleep(time.Second - 1)
		synctest.Wait()
		require.False(t, first.over())
		requireGauges(t, cmd, 1, 0, 0)

		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.True(t, first.over())
		require.Equal(t, time.Second, first.took)
		require.Equal(t, &firebreak.Error{Command: "dep", Reason: firebreak.ErrTimeout}, first.err)
		require.ErrorIs(t, first.err, context.DeadlineExceeded)
		requireGauges(t, cmd, 1, 0, 1)
		before := cmd.Snapshot()
		require.Equal(t, 1, before.InFlight)
		require.Equal(t, firebreak.Counts{Timeout: 1, FallbackMissing: 1}, before.Total)
		require.Equal(t, time.Second, before.RunHistogram.Sum, "up to the caller's leaving")

		second := hold(t.Context(), cmd)
		requireWaits(t, second)
		time.Sleep(time.Millisecond)
		first.ends(succeed)
		requireRuns(t, second)
		require.Zero(t, first.v)
		second.ends(succeed)
		after := cmd.Snapshot()
		before.Total.Success++
		before.Total.Overran++
		require.Equal(t, before.Total, after.Total, "no outcome")
		require.EqualValues(t, 2, after.RunHistogram.Count, "no sample")
		require.Equal(t, time.Second, after.RunHistogram.Sum)
		requireGauges(t, cmd, 0, 0, 0)
	})
}

// S45: running → left at C.
func TestPoolCallerLeavesByItsOwnContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{MaxConcurrent: 2, Timeout: time.Minute, ConsecutiveFailures: 1})
		fickle, cancel := context.WithCancelCause(t.Context())
		impatient, stop := context.WithTimeout(t.Context(), 2*time.Second)
		defer stop()
		asked := func(context.Context, error) (int, error) { panic("nobody asked for it") }
		first, second := hold(fickle, cmd, asked), hold(impatient, cmd, asked)
		time.Sleep(time.Second)
		cancel(errBoom)
		synctest.Wait()
		require.True(t, first.over())
		require.Equal(t, time.Second, first.took)
		require.Equal(t, context.Canceled, first.err)
		require.Equal(t, context.Canceled, first.run().Err(), "run's context ends with its caller's")
		require.Equal(t, errBoom, context.Cause(first.run()))
		requireGauges(t, cmd, 2, 0, 1)

		time.Sleep(time.Second - 1)
		synctest.Wait()
		requireRuns(t, second)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.True(t, second.over())
		require.Equal(t, context.DeadlineExceeded, second.err)
		requireGauges(t, cmd, 2, 0, 2)
		require.Equal(t, firebreak.Counts{Canceled: 1, CallerDeadline: 1}, total(cmd))

		first.ends(fail)
		requireGauges(t, cmd, 1, 0, 1)
		second.ends(runPanics)
		requireGauges(t, cmd, 0, 0, 0)
		require.Equal(t, firebreak.Counts{Canceled: 1, CallerDeadline: 1}, total(cmd))
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
	})
}

// A lateContext is over, and says so from the second time on that it is asked.
type lateContext struct {
	context.Context
	asked atomic.Bool
}

func (l *lateContext) Err() error {
	if l.asked.CompareAndSwap(false, true) {
		return nil
	}
	return l.Context.Err()
}

// S45: a caller may leave before its worker has begun. The call is running all the
// same: run is called, once, and its permit goes back once.
func TestPoolCallerLeavesBeforeItsWorkerBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{})
		var runs atomic.Int64
		for i := range 100 {
			left := make(chan struct{})
			_, err := firebreak.Do(&lateContext{Context: canceled(t)}, cmd, func(context.Context) (int, error) {
				runs.Add(1)
				<-left
				return 1, nil
			})
			require.Equal(t, context.Canceled, err)
			close(left)
			synctest.Wait()
			require.EqualValues(t, i+1, runs.Load())
			requireGauges(t, cmd, 0, 0, 0)
		}
		require.Equal(t, firebreak.Counts{Canceled: 100}, total(cmd))
	})
}

// S10: of a caller's deadline and the command's at one moment, the command's was first.
func TestPoolDeadlinesTie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{Timeout: time.Second})
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			h := hold(ctx, cmd)
			time.Sleep(time.Second)
			synctest.Wait()
			require.ErrorIs(t, h.err, firebreak.ErrTimeout)
			h.ends(succeed)
			cancel()
		}
		require.EqualValues(t, 20, total(cmd).Timeout)
	})
}

// A context may end sooner than the deadline that it tells, as that of a Call does,
// whose timeout it does not tell. Its end is the caller's all the same: a caller in
// a pool stayed until the command's deadline, and at a semaphore it was a failure.
func TestCallerEndsBeforeTheDeadlineItTells(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		cmd := newCommand(t, firebreak.Config{Isolation: isolation, Timeout: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		outer, err := newRegistry(t, firebreak.Config{}).Command("outer", firebreak.Config{Timeout: time.Second}).Begin(ctx)
		require.NoError(t, err)
		defer outer.End()
		_, err = firebreak.Do(outer.Context(), cmd, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
		require.Equal(t, context.DeadlineExceeded, err)
		require.ErrorIs(t, outer.Settle(err), firebreak.ErrTimeout)
		synctest.Wait()
		require.Equal(t, firebreak.Counts{CallerDeadline: 1}, total(cmd))
	})
}

// A contextAtItsEnd has ended, at whatever moment one asks when.
type contextAtItsEnd struct {
	context.Context
	wall  bool
	ended bool
}

func (c *contextAtItsEnd) Deadline() (time.Time, bool) {
	if c.wall {
		return time.Now().Round(0), true
	}
	return time.Now(), true
}

func (c *contextAtItsEnd) Err() error {
	if c.ended {
		return context.DeadlineExceeded
	}
	return nil
}

// Row 4: a caller's deadline that came after run's end is not why it failed. The wall
// clock cannot tell, as it steps: there the context's own word counts.
func TestCallersDeadlineJustAfterTheEnd(t *testing.T) {
	for _, wall := range []bool{false, true} {
		cmd := newCommand(t, firebreak.Config{Timeout: time.Hour})
		ctx := &contextAtItsEnd{Context: t.Context(), wall: wall}
		_, err := firebreak.Do(ctx, cmd, func(context.Context) (int, error) {
			ctx.ended = true
			return 0, errBoom
		})
		if wall {
			require.Equal(t, context.DeadlineExceeded, err)
			require.Equal(t, firebreak.Counts{CallerDeadline: 1}, total(cmd))
		} else {
			require.Equal(t, errBoom, err)
			require.Equal(t, firebreak.Counts{Failure: 1, FallbackMissing: 1}, total(cmd))
		}
	}
}

// I2, S44: a hung dependency costs its pool and no more: when all workers hang,
// callers are refused, whoever leaves, and are let in as each run returns.
func TestI2PermitIsHeldUntilRunReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{MaxConcurrent: 3, QueueSize: firebreak.Off, Timeout: time.Second, Mode: firebreak.ForceClosed})
		var hung []*liveCall
		for range 3 {
			hung = append(hung, hold(t.Context(), cmd))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for range 10 {
			requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
		}
		requireGauges(t, cmd, 3, 0, 3)
		for i, how := range []func(context.Context) (int, error){succeed, runPanics, runExits} {
			require.True(t, hung[i].over())
			hung[i].ends(how)
			requireGauges(t, cmd, 2-i, 0, 2-i)
			for range i + 1 {
				_, err := firebreak.Do(t.Context(), cmd, succeed)
				require.NoError(t, err)
			}
		}
		require.Equal(t, firebreak.Counts{Success: 6, Timeout: 3, Rejected: 10, FallbackMissing: 13}, total(cmd))
	})
}

// S45: the permit of a run that panics, or calls Goexit, goes on to those behind it,
// each of which may do the same.
func TestI2PermitGoesOnAfterPanicAndGoexit(t *testing.T) {
	for _, row := range []struct {
		name   string
		how    func(context.Context) (int, error)
		first  any
		leaves bool // before run ends
	}{
		{"panic", runPanics, "boom", false},
		{"Goexit", runExits, nil, false},
		{"panic after the caller left", runPanics, nil, true},
		{"Goexit after the caller left", runExits, nil, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cmd := pool(t, firebreak.Config{Timeout: time.Minute, Mode: firebreak.ForceClosed, QueueSize: 4})
				ctx, cancel := context.WithCancel(t.Context())
				first := hold(ctx, cmd)
				second := hold(t.Context(), cmd)
				third, fourth := hold(t.Context(), cmd), hold(t.Context(), cmd)
				if row.leaves {
					cancel()
					synctest.Wait()
				}
				first.ends(row.how)
				require.True(t, first.over())
				if !row.leaves {
					requirePanicError(t, first.err, row.first)
				}
				requireRuns(t, second)
				requireWaits(t, third, fourth)
				requireGauges(t, cmd, 1, 2, 0)
				second.ends(row.how)
				requireRuns(t, third)
				third.ends(row.how)
				requireRuns(t, fourth)
				fourth.ends(succeed)
				requireSucceeded(t, fourth)
				requireGauges(t, cmd, 0, 0, 0)
				cancel()
			})
		})
	}
}

func requirePanicError(t testing.TB, err error, value any) {
	t.Helper()
	p, ok := errors.AsType[*firebreak.PanicError](err)
	require.True(t, ok, "%v", err)
	require.Same(t, p, err, "as it is")
	require.Equal(t, value, p.Value)
	require.NotEmpty(t, p.Stack)
}

// S23, S25: a panic on a worker is the caller's error, and asks for no fallback
// unless panics are to be errors.
func TestPoolPanicIsTheCallersError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{})
		_, err := firebreak.Do(t.Context(), cmd, func(context.Context) (int, error) { panic(errBoom) }, firebreak.Static(7))
		requirePanicError(t, err, errBoom)
		require.ErrorIs(t, err, errBoom)
		require.Contains(t, string(err.(*firebreak.PanicError).Stack), "TestPoolPanicIsTheCallersError")
		require.Equal(t, firebreak.Counts{Panic: 1}, total(cmd))

		cmd = pool(t, firebreak.Config{RecoverPanics: firebreak.On})
		v, err := firebreak.Do(t.Context(), cmd, runExits, firebreak.Static(7))
		require.NoError(t, err)
		require.Equal(t, 7, v)
		require.Equal(t, firebreak.Counts{Panic: 1, FallbackSuccess: 1}, total(cmd))
	})
}

// S26: a run that panics after its caller left tells observers, nothing else. Late
// runs are told of too, if they are late enough.
func TestPoolOverruns(t *testing.T) {
	for _, row := range []struct {
		name    string
		how     func(context.Context) (int, error)
		late    time.Duration
		told    bool
		overran uint64
	}{
		{"answer, at the deadline", succeed, 0, false, 0},
		{"answer, just late", succeed, 1, true, 1},
		{"error, a tenth late", fail, 100 * time.Millisecond, false, 0},
		{"error, later", fail, 100*time.Millisecond + 1, true, 1},
		{"panic, at the deadline", runPanics, 0, true, 0},
		{"Goexit, later", runExits, time.Second, true, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newRegistry(t, firebreak.Config{})
				cmd := reg.Command("dep", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 1, QueueSize: 1, Timeout: time.Second})
				var calls, overruns []firebreak.CallEvent
				reg.Observe(firebreak.Observer{
					Call:    func(_ context.Context, e firebreak.CallEvent) { calls = append(calls, e) },
					Overrun: func(_ context.Context, e firebreak.CallEvent) { overruns = append(overruns, e) },
				})
				h := hold(t.Context(), cmd)
				time.Sleep(time.Second)
				synctest.Wait()
				require.ErrorIs(t, h.err, firebreak.ErrTimeout)
				time.Sleep(row.late)
				h.ends(row.how)
				require.Len(t, calls, 1)
				require.Equal(t, time.Second, calls[0].Run)
				require.Equal(t, row.overran, total(cmd).Overran)
				if !row.told {
					require.Empty(t, overruns)
					return
				}
				require.Len(t, overruns, 1)
				require.Equal(t, firebreak.OutcomeTimeout, overruns[0].Outcome)
				require.Equal(t, time.Second+row.late, overruns[0].Run)
				require.Equal(t, time.Second+row.late, overruns[0].Call)
			})
		})
	}
}

// S60: an observer that is slow to hear of an overrun keeps neither the permit nor
// those who are queued.
func TestPoolSlowOverrunObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 1, QueueSize: 2, Timeout: time.Second})
		slow := make(chan struct{})
		stop := reg.Observe(firebreak.Observer{Overrun: func(context.Context, firebreak.CallEvent) { <-slow }})
		first := hold(t.Context(), cmd)
		time.Sleep(2 * time.Second)
		second, third := hold(t.Context(), cmd), hold(t.Context(), cmd)
		first.ends(succeed)
		requireRuns(t, second)
		requireGauges(t, cmd, 1, 1, 0)
		stop()
		second.ends(succeed)
		requireRuns(t, third)
		third.ends(succeed)
		requireSucceeded(t, second, third)
		close(slow)
	})
}

// S51: the context of a run whose caller left at D ends by its deadline, also if the
// caller cancels its own right afterwards, as callers do.
func TestPoolRunsContextEndsByItsDeadline(t *testing.T) {
	for _, watches := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			cmd := pool(t, firebreak.Config{Timeout: time.Second})
			ctx, cancel := context.WithCancel(t.Context())
			h := hold(ctx, cmd)
			if watches {
				h.run().Done()
			}
			time.Sleep(time.Second)
			synctest.Wait()
			require.True(t, h.over())
			cancel()
			require.Equal(t, context.DeadlineExceeded, h.run().Err())
			require.Equal(t, context.DeadlineExceeded, context.Cause(h.run()))
			select {
			case <-h.run().Done():
			default:
				require.Fail(t, "not done")
			}
			h.ends(succeed)
			require.Equal(t, context.DeadlineExceeded, h.run().Err(), "and stays so")
		})
	}
}

// S50: and when the call is over in time, run's context is over too.
func TestPoolRunsContextEndsWithTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{Timeout: time.Second})
		h := hold(t.Context(), cmd)
		require.Equal(t, time.Now().Add(time.Second), deadlineOf(t, h.run()))
		require.NoError(t, h.run().Err())
		h.ends(succeed)
		require.Equal(t, context.Canceled, h.run().Err())
		time.Sleep(time.Minute)
		require.Equal(t, context.Canceled, h.run().Err())
	})
}

// S46: a probe whose caller left gives its lease back at once, although its run goes
// on; that keeps the context that ended.
func TestPoolProbeWhoseCallerLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{MaxConcurrent: 3, ConsecutiveFailures: 1, Timeout: time.Minute})
		_, err := firebreak.Do(t.Context(), cmd, fail)
		require.ErrorIs(t, err, errBoom)
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		probe := hold(ctx, cmd)
		requireRuns(t, probe)
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrOpen)
		cancel()
		synctest.Wait()
		require.Equal(t, context.Canceled, probe.err)
		require.Equal(t, context.Canceled, probe.run().Err())
		require.Equal(t, firebreak.StateHalfOpen, cmd.Snapshot().State)

		next := hold(t.Context(), cmd)
		requireRuns(t, next)
		requireGauges(t, cmd, 2, 0, 1)
		probe.ends(fail) // it decides nothing any more
		require.Equal(t, firebreak.StateHalfOpen, cmd.Snapshot().State)
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrOpen)
		next.ends(succeed)
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
	})
}

// A probe whose caller left at D is a failed probe, whatever its run comes to.
func TestPoolProbeThatTimedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{ConsecutiveFailures: 1, Timeout: time.Second})
		_, err := firebreak.Do(t.Context(), cmd, fail)
		require.ErrorIs(t, err, errBoom)
		time.Sleep(5 * time.Second)
		probe := hold(t.Context(), cmd)
		time.Sleep(time.Second)
		synctest.Wait()
		require.ErrorIs(t, probe.err, firebreak.ErrTimeout)
		require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
		probe.ends(succeed)
		require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
	})
}

// With Timeout Off the caller's own context is run's, and alone ends a stay in the
// queue, also where the registry was made before a test bubble began.
func TestPoolWithoutTimeout(t *testing.T) {
	reg := firebreak.NewRegistry(firebreak.Config{})
	cmd := reg.Command("dep", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 1, QueueSize: 1, Timeout: firebreak.Off})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		first := hold(ctx, cmd)
		require.Equal(t, ctx, first.run())
		impatient, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		second := hold(impatient, cmd)
		time.Sleep(time.Hour - 1)
		requireWaits(t, second)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		requireGaveUp(t, second, context.DeadlineExceeded)
		cancel()
		synctest.Wait()
		require.Equal(t, context.Canceled, first.err)
		requireGauges(t, cmd, 1, 0, 1)
		third := hold(t.Context(), cmd)
		requireWaits(t, third)
		first.ends(succeed)
		requireRuns(t, third)
		time.Sleep(24 * time.Hour)
		third.ends(succeed)
		requireSucceeded(t, third)
		require.Equal(t, firebreak.Counts{Success: 1, Canceled: 1, GaveUp: 1}, total(cmd))
		requireAtRest(t, cmd)
	})
}

// S45: a turn that comes as the caller withdraws. The worker has the call in hand
// when its caller leaves: it runs nothing, and goes on with the next.
func TestPoolTurnMeetsWithdrawal(t *testing.T) {
	for _, next := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			cmd := pool(t, firebreak.Config{Timeout: time.Minute})
			base, cancel := context.WithCancel(t.Context())
			ctx := newGate(base)
			first, second := hold(t.Context(), cmd), hold(ctx, cmd)
			var third *liveCall
			if next {
				third = hold(t.Context(), cmd)
			}
			ctx.shut.Store(true)
			first.ends(succeed)
			requireSucceeded(t, first)
			require.False(t, second.over())
			require.Equal(t, 1, cmd.Snapshot().Bulkhead.InFlight, "the permit is on its way")
			cancel()
			synctest.Wait()
			requireGaveUp(t, second, context.Canceled)
			ctx.open(t)
			require.Nil(t, second.run())
			if next {
				requireRuns(t, third)
				requireGauges(t, cmd, 1, 0, 0)
				third.ends(succeed)
			}
			requireGauges(t, cmd, 0, 0, 0)
			require.Zero(t, cmd.Snapshot().InFlight)
			require.EqualValues(t, 1, total(cmd).GaveUp)
			require.Equal(t, total(cmd).Success, total(cmd).Executed())
		})
	}
}

// The same, of a call that by its turn would have become a probe: the lease that it
// took for nothing is there for the very next call.
func TestPoolTurnMeetsWithdrawalOfAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{Timeout: time.Minute})
		dep := reg.Dependency("dep", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 2, QueueSize: 3})
		cmd, other := dep.Command("cmd", firebreak.Config{ConsecutiveFailures: 1}), dep.Command("other", firebreak.Config{})
		base, cancel := context.WithCancel(t.Context())
		ctx := newGate(base)
		tripper, holder := hold(t.Context(), cmd), hold(t.Context(), other)
		another, probe := hold(t.Context(), other), hold(ctx, cmd)
		tripper.ends(fail)
		requireRuns(t, another)
		time.Sleep(5 * time.Second)
		ctx.shut.Store(true)
		holder.ends(succeed)
		cancel()
		synctest.Wait()
		requireGaveUp(t, probe, context.Canceled)
		ctx.open(t)
		_, err := firebreak.Do(t.Context(), cmd, succeed)
		require.NoError(t, err, "the next call probes")
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
		another.ends(succeed)
	})
}

// S45: whoever loses looks again. The caller finds the result of a run that was over
// before it could leave.
func TestPoolLeavingMeetsTheEnd(t *testing.T) {
	for _, how := range []func(context.Context) (int, error){succeed, runExits} {
		synctest.Test(t, func(t *testing.T) {
			cmd := pool(t, firebreak.Config{Timeout: time.Minute})
			base, cancel := context.WithCancel(t.Context())
			ctx := newGate(base)
			h := hold(ctx, cmd)
			ctx.shut.Store(true)
			cancel()
			synctest.Wait() // the caller is leaving
			require.False(t, ctx.shut.Load())
			h.ends(how)
			requireGauges(t, cmd, 0, 0, 0)
			require.False(t, h.over())
			ctx.open(t)
			require.True(t, h.over())
			if h.err != nil {
				requirePanicError(t, h.err, nil)
				require.Equal(t, firebreak.Counts{Panic: 1}, total(cmd))
			} else {
				requireSucceeded(t, h)
				require.Equal(t, firebreak.Counts{Success: 1}, total(cmd))
			}
		})
	}
}

// And the worker drops the result of a run whose caller had gone before it could
// hand it over.
func TestPoolEndMeetsLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{Timeout: time.Minute})
		base, cancel := context.WithCancel(t.Context())
		ctx := newGate(base)
		h, next := hold(ctx, cmd), hold(t.Context(), cmd)
		ctx.shut.Store(true)
		h.ends(fail) // the worker is at the verdict
		require.False(t, h.over())
		cancel()
		synctest.Wait()
		require.True(t, h.over())
		require.Equal(t, context.Canceled, h.err)
		requireGauges(t, cmd, 1, 1, 1)
		ctx.open(t)
		requireRuns(t, next)
		requireGauges(t, cmd, 1, 0, 0)
		next.ends(succeed)
		require.Equal(t, firebreak.Counts{Success: 1, Canceled: 1}, total(cmd))
	})
}

// What an override put in the place of run is still at work when the caller leaves:
// caller and worker wrote and read the call at the same time.
func TestPoolInjectOutlastsItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{Timeout: time.Second})
		cmd.Override(firebreak.Override{Inject: func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Nanosecond)
			return nil
		}})
		var ran atomic.Bool
		_, err := firebreak.Do(t.Context(), cmd, func(context.Context) (int, error) {
			ran.Store(true)
			return 1, nil
		})
		require.ErrorIs(t, err, firebreak.ErrTimeout)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.True(t, ran.Load())
		require.Equal(t, firebreak.Counts{Timeout: 1, FallbackMissing: 1, Overran: 1}, total(cmd))
	})
}

// S44: a worker that is done takes the next queued call: one goroutine served them.
func TestPoolWorkerTakesTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{})
		var workers []string
		work := func(context.Context) (int, error) {
			workers = append(workers, goroutine())
			return 1, nil
		}
		calls := []*liveCall{hold(t.Context(), cmd), hold(t.Context(), cmd), hold(t.Context(), cmd)}
		for _, h := range calls {
			h.ends(work)
		}
		require.Len(t, workers, 3)
		require.Equal(t, workers[0], workers[1])
		require.Equal(t, workers[1], workers[2])
	})
}

// workers counts the goroutines that serve pools.
func workers() int {
	buf := make([]byte, 1<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "firebreak.work(")
}

// S44: none is parked: there are as many workers as runs. Besides, no bubble ends
// while one is left.
func TestI9NoWorkerIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{MaxConcurrent: 20})
		var calls []*liveCall
		for range 22 {
			calls = append(calls, hold(t.Context(), cmd))
		}
		require.Equal(t, 20, workers())
		for i, h := range calls {
			h.ends(succeed)
			require.Equal(t, min(20, 21-i), workers())
		}
	})
}

// S48: shrinking ends workers at the end of their run, and a smaller queue sends
// nobody away.
func TestPoolShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 2, QueueSize: 3, Timeout: time.Minute})
		var calls []*liveCall
		for range 5 {
			calls = append(calls, hold(t.Context(), cmd))
		}
		resize(t, reg, firebreak.Config{MaxConcurrent: 1, QueueSize: firebreak.Off})
		synctest.Wait()
		requireWaits(t, calls[2:]...)
		requireRefused(t, hold(t.Context(), cmd), firebreak.ErrRejected)
		calls[0].ends(succeed)
		requireWaits(t, calls[2:]...)
		require.Equal(t, 1, workers())
		for _, h := range calls[1:] {
			requireRuns(t, h)
			h.ends(succeed)
		}
		requireSucceeded(t, calls...)
	})
}

// S48: isolation is fixed for life.
func TestIsolationIsFixedForLife(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	cmd := reg.Command("dep", firebreak.Config{Isolation: firebreak.PoolIsolation})
	other := reg.Command("other", firebreak.Config{})
	for _, doc := range []firebreak.Document{
		{Dependencies: map[string]firebreak.Config{"dep": {Isolation: firebreak.SemaphoreIsolation, MaxConcurrent: 7}}},
		{Defaults: firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 7}},
	} {
		require.ErrorContains(t, reg.Update(doc), "Isolation")
		require.Equal(t, firebreak.PoolIsolation, cmd.Snapshot().Bulkhead.Isolation)
		require.Equal(t, firebreak.SemaphoreIsolation, other.Snapshot().Bulkhead.Isolation)
		require.Equal(t, 100, cmd.Snapshot().Bulkhead.Limit, "nothing of it is applied")
	}
}

// Bind and Run go through the pool as Do does.
func TestPoolServesEveryVerb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := pool(t, firebreak.Config{Timeout: time.Second})
		here := goroutine()
		elsewhere := func(ctx context.Context) error {
			require.NotEqual(t, here, goroutine())
			<-ctx.Done()
			return ctx.Err()
		}
		require.ErrorIs(t, cmd.Run(t.Context(), elsewhere), firebreak.ErrTimeout)
		synctest.Wait()
		double := firebreak.Bind(cmd, func(_ context.Context, n int) (int, error) {
			require.NotEqual(t, here, goroutine())
			return 2 * n, nil
		})
		n, err := double(t.Context(), 21)
		require.NoError(t, err)
		require.Equal(t, 42, n)
	})
}

// The event of a queued call that a shutdown ended says how long it had waited.
func TestQueuedCallIsToldOfWithItsTime(t *testing.T) {
	inBothIsolations(t, func(t *testing.T, isolation firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", waiting(isolation))
		var events []firebreak.CallEvent
		reg.Observe(firebreak.Observer{Call: func(_ context.Context, e firebreak.CallEvent) { events = append(events, e) }})
		first, second := hold(t.Context(), cmd), hold(t.Context(), cmd)
		time.Sleep(time.Second)
		go reg.Shutdown(t.Context())
		synctest.Wait()
		requireRefused(t, second, firebreak.ErrShutdown)
		require.Len(t, events, 1)
		require.Equal(t, firebreak.OutcomeShutdown, events[0].Outcome)
		require.Equal(t, time.Second, events[0].Call)
		first.ends(succeed)
	})
}

// A call that queued is timed from its turn, if its caller leaves too: the run's
// latency is the time in run, to the leaving.
func TestPoolTimesARunFromItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		dep := reg.Dependency("dep", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 1, QueueSize: 1})
		cmd := dep.Command("cmd", firebreak.Config{Timeout: 3 * time.Second})
		var calls, overruns []firebreak.CallEvent
		reg.Observe(firebreak.Observer{
			Call: func(_ context.Context, e firebreak.CallEvent) {
				if e.Command == "cmd" {
					calls = append(calls, e)
				}
			},
			Overrun: func(_ context.Context, e firebreak.CallEvent) { overruns = append(overruns, e) },
		})
		first := hold(t.Context(), dep.Command("other", firebreak.Config{}))
		second := hold(t.Context(), cmd)
		time.Sleep(time.Second)
		first.ends(succeed)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.True(t, second.over())
		s := cmd.Snapshot()
		require.Equal(t, 2*time.Second, s.RunHistogram.Sum)
		require.Equal(t, 3*time.Second, s.CallHistogram.Sum)
		time.Sleep(time.Second)
		second.ends(succeed)
		require.Len(t, calls, 1)
		require.Equal(t, [2]time.Duration{2 * time.Second, 3 * time.Second}, [2]time.Duration{calls[0].Run, calls[0].Call})
		require.Len(t, overruns, 1)
		require.Equal(t, [2]time.Duration{3 * time.Second, 4 * time.Second}, [2]time.Duration{overruns[0].Run, overruns[0].Call})
	})
}

// S3, S46: a call that its turn made a probe gives the lease back when its caller
// leaves by C, and fails as a probe when that leaves at D.
func TestPoolProbeByItsTurnWhoseCallerLeft(t *testing.T) {
	for _, atD := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			reg := newRegistry(t, firebreak.Config{})
			dep := reg.Dependency("dep", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 3, QueueSize: 3})
			cmd := dep.Command("cmd", firebreak.Config{ConsecutiveFailures: 1, Timeout: 10 * time.Second})
			other := dep.Command("other", firebreak.Config{Timeout: time.Minute})
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			holders := []*liveCall{hold(t.Context(), other), hold(t.Context(), other)}
			tripper, probe := hold(t.Context(), cmd), (*liveCall)(nil)
			probe = hold(ctx, cmd)
			resize(t, reg, firebreak.Config{MaxConcurrent: 2})
			tripper.ends(fail)
			requireWaits(t, probe)
			time.Sleep(5 * time.Second)
			holders[0].ends(succeed)
			requireRuns(t, probe)
			require.Equal(t, firebreak.StateHalfOpen, cmd.Snapshot().State)
			holders[1].ends(succeed)
			requireRefused(t, hold(t.Context(), cmd), firebreak.ErrOpen)
			if atD {
				time.Sleep(5 * time.Second)
				synctest.Wait()
				require.ErrorIs(t, probe.err, firebreak.ErrTimeout)
				require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
			} else {
				leave()
				synctest.Wait()
				require.Equal(t, context.Canceled, probe.err)
				next := hold(t.Context(), cmd)
				requireRuns(t, next)
				next.ends(succeed)
				require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
			}
			probe.ends(succeed)
		})
	}
}
