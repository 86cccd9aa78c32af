package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak"
)

// begun is Begin of a call that is not to be refused.
func begun(t *testing.T, ctx context.Context, cmd *firebreak.Command) *firebreak.Call {
	t.Helper()
	call, err := cmd.Begin(ctx)
	require.NoError(t, err)
	require.NotNil(t, call)
	return call
}

// S62: the first Settle is run's end in the table of verdicts. Its context is always
// watched: who ended it is known.
func TestS62_SettleIsRunsEnd(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{Mode: firebreak.ForceClosed})
		for c := range verdictCases {
			if !c.watched || c.cancel && c.left == deadlineOfCase {
				continue
			}
			before := total(p.cmd)
			ctx, cancel := c.context(t.Context())
			call := begun(t, ctx, p.cmd)
			c.runUntilEnd(cancel)
			err := call.Settle(c.err)
			want, wantErr := c.verdict()
			requireVerdict(t, c, want, wantErr, before, total(p.cmd), err)
			require.Zero(t, counted(before, total(p.cmd))["FallbackMissing"])
			call.End()
			cancel()
		}
	})
}

// The circuit sees a verdict of Settle as one of Do, and RetryAfter's hint too.
func TestS62_SettleTellsTheCircuit(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		for err, want := range map[error]string{
			nil: "good", errBoom: "bad", firebreak.Mark(errBoom, firebreak.Expected): "good", firebreak.Mark(errBoom, firebreak.Ignored): "neutral",
		} {
			p := newPlace(t, in, firebreak.Config{})
			_, _ = firebreak.Do(t.Context(), p.cmd, succeed)
			_, _ = firebreak.Do(t.Context(), p.cmd, fail)
			call := begun(t, t.Context(), p.cmd)
			_ = call.Settle(err)
			require.InDelta(t, errorPercentage[want], p.cmd.Snapshot().ErrorPercentage, 1e-9, "%v", err)
			call.End()
		}
		p := newPlace(t, in, firebreak.Config{ConsecutiveFailures: 1})
		call := begun(t, t.Context(), p.cmd)
		require.True(t, call.Settle(firebreak.RetryAfter(errBoom, 20*time.Second)) == errBoom)
		require.Equal(t, 20*time.Second, time.Until(p.cmd.Snapshot().Evidence.NextProbe))
		call.End()

		time.Sleep(20 * time.Second)
		probe := begun(t, t.Context(), p.cmd)
		require.Equal(t, firebreak.StateHalfOpen, p.cmd.Snapshot().State)
		require.NoError(t, probe.Settle(nil))
		require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
		probe.End()
	})
}

// Begin's error is the refusal, as of Do without fallbacks; none is missing.
func TestS62_BeginIsRefusedAsDoIs(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
		p.occupy(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		both := func() error {
			call, err := p.cmd.Begin(ctx)
			require.Nil(t, call)
			_, same := firebreak.Do(ctx, p.cmd, succeed)
			require.True(t, err == same, "%v, %v", err, same)
			return err
		}
		ours(firebreak.ErrRejected, nil)(t, both())
		p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		ours(firebreak.ErrOpen, nil)(t, both())
		shutDown(t, p)
		ours(firebreak.ErrShutdown, nil)(t, both())
		cancel()
		itself(context.Canceled)(t, both())
		require.Equal(t, map[string]uint64{"Rejected": 2, "ShortCircuited": 2, "Shutdown": 2, "GaveUp": 2, "FallbackMissing": 3}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// It takes a permit of a pool, but no worker and no place in its queue; of a
// semaphore it may wait for one, and that counts against its time.
func TestBeginTakesAPermit(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		c := roomToWait(in)
		c.Timeout = time.Second
		p := newPlace(t, in, c)
		goroutines := runtime.NumGoroutine()
		first := begun(t, context.Background(), p.cmd)
		requireNoMoreGoroutines(t, goroutines)
		s := p.cmd.Snapshot()
		require.Equal(t, 1, s.InFlight)
		require.Equal(t, 1, s.Bulkhead.InFlight)
		require.Zero(t, s.Bulkhead.Abandoned)

		queued := later(func() (int, error) { return firebreak.Do(context.Background(), p.neighbour, succeed) })
		require.Equal(t, 1, p.cmd.Snapshot().Bulkhead.Queued)
		if in == pools {
			_, err := p.cmd.Begin(t.Context())
			ours(firebreak.ErrRejected, nil)(t, err)
			first.End()
		} else {
			time.AfterFunc(time.Second/2, first.End)
			second := begun(t, t.Context(), p.cmd) // half of its time is over
			time.Sleep(time.Second/2 - 1)
			require.NoError(t, second.Context().Err())
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			require.Equal(t, context.DeadlineExceeded, second.Context().Err())
			second.End()
		}
		require.Equal(t, answer{value: 1}, queued())
	})
}

// An End without a verdict: what came first decides, and else it was thrown off its
// way. At a tie of the two deadlines it is the command's.
func TestS62_EndWithoutAVerdict(t *testing.T) {
	for _, row := range []struct {
		name   string
		ctx    func(context.Context) (context.Context, context.CancelFunc)
		end    time.Duration
		want   string
		health string
	}{
		{"at once", nil, 0, "Panic", "bad"},
		{"just before the deadline", nil, time.Second - 1, "Panic", "bad"},
		{"at the deadline", nil, time.Second, "Timeout", "bad"},
		{"long after it", nil, time.Minute, "Timeout", "bad"},
		{"just before the cancel", canceledAfter(time.Second / 2), time.Second/2 - 1, "Panic", "bad"},
		{"just after the cancel", canceledAfter(time.Second / 2), time.Second/2 + 1, "Canceled", "neutral"},
		{"long after the cancel", canceledAfter(time.Second / 2), 2 * time.Second, "Canceled", "neutral"},
		{"after deadline and cancel", canceledAfter(time.Second + 1), 2 * time.Second, "Timeout", "bad"},
		{"just before the caller's deadline", deadlineAfter(time.Second / 2), time.Second/2 - 1, "Panic", "bad"},
		{"at the caller's deadline", deadlineAfter(time.Second / 2), time.Second / 2, "CallerDeadline", "neutral"},
		{"long after the caller's deadline", deadlineAfter(time.Second / 2), 2 * time.Second, "CallerDeadline", "neutral"},
		{"at both deadlines", deadlineAfter(time.Second), time.Second, "Timeout", "bad"},
		{"after both deadlines", deadlineAfter(time.Second), 2 * time.Second, "Timeout", "bad"},
	} {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{Window: time.Hour})
				_, _ = firebreak.Do(t.Context(), p.cmd, succeed)
				_, _ = firebreak.Do(t.Context(), p.cmd, fail)
				before := total(p.cmd)
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if row.ctx != nil {
					ctx, cancel = row.ctx(ctx)
				}
				defer cancel()
				call := begun(t, ctx, p.cmd)
				time.Sleep(row.end)
				call.End()
				got := counted(before, total(p.cmd))
				delete(got, "Overran")
				require.Equal(t, map[string]uint64{row.want: 1}, got)
				s := p.cmd.Snapshot()
				require.InDelta(t, errorPercentage[row.health], s.ErrorPercentage, 1e-9)
				require.Zero(t, s.InFlight)
				require.Zero(t, s.Bulkhead.InFlight)
			})
		})
	}
}

// S62: the first of each counts, whatever comes later and in which order.
func TestS62_OnlyTheFirstSettleAndEndCount(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		call := begun(t, t.Context(), p.cmd)
		require.NoError(t, call.Settle(nil))
		want := map[string]uint64{"Success": 1}
		require.True(t, call.Settle(errBoom) == errBoom)
		require.NoError(t, call.Settle(nil))
		time.Sleep(time.Hour) // past what was its deadline
		require.True(t, call.Settle(errBoom) == errBoom)
		require.Equal(t, want, counted(firebreak.Counts{}, total(p.cmd)))
		call.End()
		call.End()
		require.True(t, call.Settle(errBoom) == errBoom)
		require.Equal(t, want, counted(firebreak.Counts{}, total(p.cmd)))
		require.Zero(t, p.cmd.Snapshot().Bulkhead.InFlight)

		call = begun(t, t.Context(), p.cmd)
		call.End()
		require.NoError(t, call.Settle(nil))
		require.Equal(t, map[string]uint64{"Success": 1, "Panic": 1}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// Many at once: of each kind one is the first. What is counted is one outcome, and
// the permit is back once.
func TestS62_ConcurrentSettleEndAndExtend(t *testing.T) {
	for _, in := range []firebreak.Isolation{semaphores, pools} {
		t.Run(in.String(), func(t *testing.T) {
			p := newPlace(t, in, firebreak.Config{MaxConcurrent: 2, Mode: firebreak.ForceClosed, Timeout: time.Hour})
			const calls = 300
			for i := range calls {
				ctx, cancel := context.WithCancel(t.Context())
				call := begun(t, ctx, p.cmd)
				var all sync.WaitGroup
				for n := range 2 {
					all.Go(func() {
						if i%3 != 0 {
							_ = call.Settle([]error{nil, errBoom}[n])
						}
					})
					all.Go(call.End)
					all.Go(func() { call.Extend(time.Duration(n+1) * time.Hour) })
					all.Go(func() {
						if i%2 == 0 {
							cancel()
						}
						_ = call.Context().Err()
					})
				}
				all.Wait()
				require.Equal(t, context.Canceled, call.Context().Err())
				require.False(t, call.Extend(time.Hour))
				cancel()
			}
			got := total(p.cmd)
			require.EqualValues(t, calls, got.Calls())
			require.EqualValues(t, calls, got.Executed())
			require.Zero(t, got.Timeout)
		})
	}
}

// InFlight counts to End: a call that is settled still holds its permit.
func TestS62_InFlightCountsToEnd(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
		call := begun(t, t.Context(), p.cmd)
		_ = call.Settle(nil)
		time.Sleep(time.Hour) // the timeout is lifted
		require.NoError(t, call.Context().Err())
		s := p.cmd.Snapshot()
		require.Equal(t, 1, s.InFlight)
		require.Equal(t, 1, s.Bulkhead.InFlight)
		require.Equal(t, map[string]uint64{"Success": 1}, counted(firebreak.Counts{}, s.Total))
		_, err := firebreak.Do(t.Context(), p.cmd, succeed)
		require.ErrorIs(t, err, firebreak.ErrRejected)
		call.End()
		_, err = firebreak.Do(t.Context(), p.cmd, succeed)
		require.NoError(t, err)
	})
}

// S62: an End that is forgotten is a permit lost; nothing else ends a call, but its
// context ends with the caller's.
func TestS62_AForgottenEndIsAPermitLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, semaphores, firebreak.Config{MaxConcurrent: 1})
		ctx, cancel := context.WithCancel(t.Context())
		call := begun(t, ctx, p.cmd)
		_ = call.Settle(nil)
		cancel()
		synctest.Wait()
		require.Equal(t, context.Canceled, call.Context().Err())
		time.Sleep(time.Hour)
		require.Equal(t, 1, p.cmd.Snapshot().InFlight)
		_, err := firebreak.Do(t.Context(), p.cmd, succeed)
		require.ErrorIs(t, err, firebreak.ErrRejected)
		require.Equal(t, uint64(2), total(p.cmd).Calls())
		call.End()
	})
}

// S5 for End: when observers are told, the permit is back.
func TestS5_EndTellsObserversLast(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, ConsecutiveFailures: 1})
		var told []string
		step := func(name string) {
			told = append(told, name)
			s := p.cmd.Snapshot()
			require.Equal(t, map[string]uint64{"Panic": 1}, counted(firebreak.Counts{}, s.Total), name)
			require.Equal(t, firebreak.StateOpen, s.State)
			require.Zero(t, s.InFlight, name)
			require.Zero(t, s.Bulkhead.InFlight, name)
		}
		stop := p.reg.Observe(firebreak.Observer{
			Transition: func(firebreak.Transition) { step("transition") },
			Call: func(_ context.Context, e firebreak.CallEvent) {
				require.Equal(t, firebreak.OutcomePanic, e.Outcome)
				require.Error(t, e.Err)
				step("call")
			},
		})
		begun(t, t.Context(), p.cmd).End()
		stop()
		require.Equal(t, []string{"transition", "call"}, told)

		// And one that calls Goexit keeps no permit.
		time.Sleep(5 * time.Second)
		stop = p.reg.Observe(firebreak.Observer{Call: func(context.Context, firebreak.CallEvent) { runtime.Goexit() }})
		exits(t, answerOf(func() (int, error) {
			call, err := p.cmd.Begin(t.Context())
			if err == nil {
				call.End()
			}
			return 0, err
		}))
		stop()
		require.Zero(t, p.cmd.Snapshot().Bulkhead.InFlight)
	})
}

// End is there to be deferred: a panic on the way counts as one.
func TestS62_EndDeferredDuringAPanic(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
		work := func(settles bool, end func()) answer {
			return answerOf(func() (int, error) {
				call, err := p.cmd.Begin(t.Context())
				if err != nil {
					return 0, err
				}
				defer call.End()
				if settles {
					_ = call.Settle(nil)
				}
				end()
				return 0, call.Settle(nil)
			})
		}
		goesUp("boom")(t, work(false, func() { panic("boom") }))
		exits(t, work(false, runtime.Goexit))
		require.Equal(t, map[string]uint64{"Panic": 2}, counted(firebreak.Counts{}, total(p.cmd)))

		// After the verdict it is no news of the dependency's.
		goesUp("boom")(t, work(true, func() { panic("boom") }))
		require.Equal(t, map[string]uint64{"Panic": 2, "Success": 1}, counted(firebreak.Counts{}, total(p.cmd)))
		require.Equal(t, answer{}, work(false, func() {}))
		require.Zero(t, p.cmd.Snapshot().Bulkhead.InFlight)
	})
}

// Latency is from Begin to the verdict, not to End.
func TestSettleEndsTheLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, semaphores, firebreak.Config{Timeout: firebreak.Off})
		call := begun(t, t.Context(), p.cmd)
		time.Sleep(3 * time.Second)
		_ = call.Settle(nil)
		time.Sleep(4 * time.Second)
		call.End()
		s := p.cmd.Snapshot()
		require.Equal(t, 3*time.Second, s.RunHistogram.Sum)
		require.Equal(t, 3*time.Second, s.CallHistogram.Sum)
	})
}

// S63: Context ends at the timeout, with its cause, and reports no deadline of ours.
func TestS63_TheContextOfACall(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		parent := context.WithValue(t.Context(), contextKey("user"), "ada")
		call := begun(t, parent, p.cmd)
		ctx := call.Context()
		child, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		_, ok := ctx.Deadline()
		require.False(t, ok)
		require.Equal(t, "ada", ctx.Value(contextKey("user")))
		require.True(t, ctx == call.Context())

		time.Sleep(time.Second - 1)
		synctest.Wait()
		require.NoError(t, ctx.Err())
		require.NoError(t, context.Cause(ctx))
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		for _, ctx := range []context.Context{ctx, child} {
			<-ctx.Done()
			require.True(t, ctx.Err() == context.DeadlineExceeded)
			require.True(t, context.Cause(ctx) == firebreak.ErrTimeout)
		}
		require.NoError(t, parent.Err())
		call.End()
		require.True(t, ctx.Err() == context.DeadlineExceeded, "it stays so")
		require.Equal(t, uint64(1), total(p.cmd).Timeout)
	})
}

func TestS63_TheContextReportsTheCallersDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, semaphores, firebreak.Config{})
		for _, callers := range []time.Duration{time.Second / 2, time.Hour} {
			ctx, cancel := context.WithTimeout(t.Context(), callers)
			call := begun(t, ctx, p.cmd)
			deadline, ok := call.Context().Deadline()
			require.True(t, ok)
			require.Equal(t, callers, time.Until(deadline))
			<-call.Context().Done()
			require.Equal(t, context.DeadlineExceeded, call.Context().Err())
			if callers < time.Second {
				require.Equal(t, context.DeadlineExceeded, context.Cause(call.Context()))
			} else {
				require.Equal(t, firebreak.ErrTimeout, context.Cause(call.Context()))
			}
			call.End()
			cancel()
		}
		require.Equal(t, map[string]uint64{"CallerDeadline": 1, "Timeout": 1}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

func TestS63_TheContextEndsWithTheCallersAndAtEnd(t *testing.T) {
	errHungUp := errors.New("the client hung up")
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		parent, cancel := context.WithCancelCause(t.Context())
		settled, unsettled := begun(t, parent, p.cmd), begun(t, parent, p.cmd)
		_ = settled.Settle(nil)
		time.Sleep(time.Minute)
		cancel(errHungUp)
		synctest.Wait()
		require.Equal(t, context.Canceled, settled.Context().Err())
		require.True(t, context.Cause(settled.Context()) == errHungUp)
		require.Equal(t, context.DeadlineExceeded, unsettled.Context().Err(), "its time was over before")
		settled.End()
		unsettled.End()

		call := begun(t, t.Context(), p.cmd)
		call.End()
		<-call.Context().Done()
		require.Equal(t, context.Canceled, call.Context().Err())
		require.Equal(t, context.Canceled, context.Cause(call.Context()))
	})
}

// S63: Extend moves the deadline, for the context and for the verdict.
func TestS63_ExtendMovesTheDeadline(t *testing.T) {
	type step struct {
		wait   time.Duration
		extend time.Duration // 0: not
		ok     bool
	}
	for _, row := range []struct {
		name    string
		timeout time.Duration
		steps   []step
		over    bool // the context, in the end
		want    string
	}{
		{"not at all, just before", 0, []step{{time.Second - 1, 0, false}}, false, "Failure"},
		{"not at all, at the deadline", 0, []step{{time.Second, 0, false}}, true, "Timeout"},
		{"to later, just before", 0, []step{{time.Second - 1, time.Second, true}, {time.Second - 1, 0, false}}, false, "Failure"},
		{"to later, at the new one", 0, []step{{time.Second - 1, time.Second, true}, {time.Second, 0, false}}, true, "Timeout"},
		{"to sooner, just before", 0, []step{{0, time.Second / 2, true}, {time.Second/2 - 1, 0, false}}, false, "Failure"},
		{"to sooner, at the new one", 0, []step{{0, time.Second / 2, true}, {time.Second / 2, 0, false}}, true, "Timeout"},
		{"too late", 0, []step{{time.Second, time.Minute, false}}, true, "Timeout"},
		{"again and again", 0, []step{{time.Second / 2, time.Second, true}, {time.Second / 2, time.Second, true}, {time.Second / 2, time.Second, true}, {time.Second - 1, 0, false}}, false, "Failure"},
		{"too late for the second time", 0, []step{{time.Second / 2, time.Second, true}, {time.Second, time.Second, false}}, true, "Timeout"},
		{"lifted", 0, []step{{time.Second / 2, firebreak.Off, true}, {time.Hour, 0, false}}, false, "Failure"},
		{"lifted and set again", 0, []step{{time.Second / 2, firebreak.Off, true}, {time.Hour, time.Second, true}, {time.Second - 1, 0, false}}, false, "Failure"},
		{"lifted and set again, at the new one", 0, []step{{time.Second / 2, firebreak.Off, true}, {time.Hour, time.Second, true}, {time.Second, 0, false}}, true, "Timeout"},
		{"none, and set", firebreak.Off, []step{{time.Hour, time.Second, true}, {time.Second - 1, 0, false}}, false, "Failure"},
		{"none, and set, at the new one", firebreak.Off, []step{{time.Hour, time.Second, true}, {time.Second, 0, false}}, true, "Timeout"},
		{"none, and lifted", firebreak.Off, []step{{time.Hour, firebreak.Off, true}, {time.Hour, 0, false}}, false, "Failure"},
	} {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{Timeout: row.timeout})
				call := begun(t, t.Context(), p.cmd)
				for _, s := range row.steps {
					time.Sleep(s.wait)
					if s.extend != 0 {
						require.Equal(t, s.ok, call.Extend(s.extend))
					}
				}
				synctest.Wait()
				if row.over {
					require.Equal(t, context.DeadlineExceeded, call.Context().Err())
					require.Equal(t, firebreak.ErrTimeout, context.Cause(call.Context()))
					require.False(t, call.Extend(time.Hour))
				} else {
					require.NoError(t, call.Context().Err())
				}
				err := call.Settle(errBoom)
				require.ErrorIs(t, err, errBoom)
				require.Equal(t, row.want == "Timeout", errors.Is(err, firebreak.ErrTimeout))
				require.Equal(t, uint64(1), counted(firebreak.Counts{}, total(p.cmd))[row.want])
				require.False(t, call.Extend(time.Hour), "lifted by Settle")
				call.End()
			})
		})
	}
}

func TestExtendAfterSettleOrEndDoesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, semaphores, firebreak.Config{})
		call := begun(t, t.Context(), p.cmd)
		_ = call.Settle(nil)
		require.False(t, call.Extend(time.Second))
		require.False(t, call.Extend(firebreak.Off))
		time.Sleep(time.Hour)
		require.NoError(t, call.Context().Err())
		call.End()
		require.False(t, call.Extend(time.Second))

		call = begun(t, t.Context(), p.cmd)
		require.True(t, call.Extend(0)) // now + 0
		synctest.Wait()
		require.Equal(t, context.DeadlineExceeded, call.Context().Err())
		call.End()
		require.Equal(t, map[string]uint64{"Success": 1, "Timeout": 1}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// A stream: the first message is guarded by the timeout, the rest is not; or each is.
func TestAStreamMayGoOnAfterItsVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, semaphores, firebreak.Config{})
		call := begun(t, t.Context(), p.cmd)
		defer call.End()
		messages := make(chan int)
		go func() {
			for i := range 5 {
				time.Sleep(900 * time.Millisecond)
				messages <- i
			}
			close(messages)
		}()
		for range messages {
			require.NoError(t, call.Context().Err())
			require.True(t, call.Extend(time.Second))
		}
		require.NoError(t, call.Settle(nil))
		require.Equal(t, uint64(1), total(p.cmd).Success)
	})
}

// Classify is part of the work: a panic in it goes on up, the call counts as one, and
// the permit comes back with End.
func TestS26_ClassifyPanicsInSettle(t *testing.T) {
	for name, row := range map[string]struct {
		classify func(error) firebreak.Verdict
		check    func(*testing.T, answer)
	}{
		"panic":  {panicAtNotFound, goesUp("what is this?")},
		"Goexit": {exitAtNotFound, exits},
	} {
		t.Run(name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, Classify: row.classify})
				row.check(t, answerOf(func() (int, error) {
					call, err := p.cmd.Begin(t.Context())
					if err != nil {
						return 0, err
					}
					defer call.End()
					return 0, call.Settle(errNotFound)
				}))
				s := p.cmd.Snapshot()
				require.Equal(t, map[string]uint64{"Panic": 1}, counted(firebreak.Counts{}, s.Total))
				require.InDelta(t, 100, s.ErrorPercentage, 0)
				require.Zero(t, s.Bulkhead.InFlight)
				require.Zero(t, s.InFlight)
			})
		})
	}
}

// S25: Settle returns what Do would, so RecoverPanics makes it an error here too.
func TestS25_SettleRecoversAPanicOfClassify(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{Classify: panicAtNotFound, RecoverPanics: firebreak.On})
		call := begun(t, t.Context(), p.cmd)
		a := answerOf(func() (int, error) { return 0, call.Settle(errNotFound) })
		require.Nil(t, a.panicked)
		panics("what is this?")(t, a.err)
		call.End()
		require.Equal(t, map[string]uint64{"Panic": 1}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// What an override injects stands where the work would: an error of it is Begin's.
func TestBeginInjects(t *testing.T) {
	for _, row := range []struct {
		name   string
		inject func(context.Context) error
		want   map[string]uint64
		err    func(*testing.T, error)
	}{
		{"nil", func(context.Context) error { return nil }, map[string]uint64{"Success": 1}, nil},
		{"an error", func(context.Context) error { return errBoom }, map[string]uint64{"Failure": 1}, itself(errBoom)},
		{"a marked error", func(context.Context) error { return firebreak.Mark(errBoom, firebreak.Expected) }, map[string]uint64{"Expected": 1}, itself(errBoom)},
		{"ErrOpen", func(context.Context) error { return firebreak.ErrOpen }, map[string]uint64{"ShortCircuited": 1}, ours(firebreak.ErrOpen, nil)},
		{"ErrRejected", func(context.Context) error { return firebreak.ErrRejected }, map[string]uint64{"Rejected": 1}, ours(firebreak.ErrRejected, nil)},
		{"ErrTimeout", func(context.Context) error { return firebreak.ErrTimeout }, map[string]uint64{"Timeout": 1}, ours(firebreak.ErrTimeout, nil)},
		{"ErrOpen, wrapped", func(context.Context) error { return fmt.Errorf("inner: %w", firebreak.ErrOpen) }, map[string]uint64{"Failure": 1}, func(t *testing.T, err error) {
			require.EqualError(t, err, "inner: circuit open")
		}},
		{"it waits, until the timeout", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, map[string]uint64{"Timeout": 1}, ours(firebreak.ErrTimeout, context.DeadlineExceeded)},
	} {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
				p.cmd.Override(firebreak.Override{Inject: row.inject})
				call, err := p.cmd.Begin(t.Context())
				if row.err != nil {
					row.err(t, err)
					require.Nil(t, call)
				} else {
					require.NoError(t, err)
					require.Empty(t, counted(firebreak.Counts{}, total(p.cmd)), "it goes on")
					require.NoError(t, call.Settle(nil))
					call.End()
				}
				require.Equal(t, row.want, counted(firebreak.Counts{}, total(p.cmd)))
				require.Zero(t, p.cmd.Snapshot().Bulkhead.InFlight)

				p.cmd.Override(firebreak.Override{})
				call = begun(t, t.Context(), p.cmd)
				require.Equal(t, 1, p.cmd.Snapshot().InFlight, "no run was taken off twice")
				call.End()
			})
		})
	}
}

// What it stands for stands, however late it says so and whoever has left.
func TestInjectedOutcomesHoldWheneverTheyCome(t *testing.T) {
	for err, want := range map[error]string{firebreak.ErrOpen: "ShortCircuited", firebreak.ErrRejected: "Rejected", firebreak.ErrTimeout: "Timeout"} {
		for name, callers := range map[string]func(context.Context) (context.Context, context.CancelFunc){
			"canceled": canceledAfter(time.Second / 2), "at its deadline": deadlineAfter(time.Second / 2), "waiting": deadlineAfter(time.Hour),
		} {
			t.Run(want+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPlace(t, semaphores, firebreak.Config{})
					p.cmd.Override(firebreak.Override{Inject: func(ctx context.Context) error {
						<-ctx.Done()
						return err
					}})
					ctx, cancel := callers(t.Context())
					defer cancel()
					_, got := firebreak.Do(ctx, p.cmd, succeed)
					ours(err, nil)(t, got)
					require.Equal(t, map[string]uint64{want: 1, "FallbackMissing": 1}, counted(firebreak.Counts{}, total(p.cmd)))
				})
			})
		}
	}
}

// After Inject has let it go on, ErrOpen from the work is the work's, and a failure.
func TestAfterInjectTheWorksErrorIsItsOwn(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		p.cmd.Override(firebreak.Override{Inject: func(context.Context) error { return nil }})
		call := begun(t, t.Context(), p.cmd)
		require.True(t, call.Settle(firebreak.ErrOpen) == firebreak.ErrOpen)
		call.End()
		_, err := firebreak.Do(t.Context(), p.cmd, returns(0, firebreak.ErrRejected))
		require.True(t, err == firebreak.ErrRejected)
		require.Equal(t, map[string]uint64{"Failure": 2, "FallbackMissing": 1}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

func TestInjectThatPanicsInBegin(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
				p.cmd.Override(firebreak.Override{Inject: func(context.Context) error { end(); return nil }})
				a := answerOf(func() (int, error) {
					_, err := p.cmd.Begin(t.Context())
					return 0, err
				})
				if name == "panic" {
					goesUp("boom")(t, a)
				} else {
					exits(t, a)
				}
				s := p.cmd.Snapshot()
				require.Equal(t, map[string]uint64{"Panic": 1}, counted(firebreak.Counts{}, s.Total))
				require.Zero(t, s.Bulkhead.InFlight)
			})
		})
	}
}

// Do's Inject, where the others are of use: in a pool it is still at it when the
// caller leaves.
func TestInjectInDo(t *testing.T) {
	for _, row := range []struct {
		name   string
		inject error
		want   map[string]uint64
		asks   bool
		err    func(*testing.T, error)
	}{
		{"nil", nil, map[string]uint64{"Success": 1}, false, noError},
		{"an error", errBoom, map[string]uint64{"Failure": 1}, true, itself(errBoom)},
		{"ErrOpen", firebreak.ErrOpen, map[string]uint64{"ShortCircuited": 1}, true, ours(firebreak.ErrOpen, nil)},
		{"ErrRejected", firebreak.ErrRejected, map[string]uint64{"Rejected": 1}, true, ours(firebreak.ErrRejected, nil)},
		{"ErrTimeout", firebreak.ErrTimeout, map[string]uint64{"Timeout": 1}, true, ours(firebreak.ErrTimeout, nil)},
		{"ErrShutdown is an error like any other", firebreak.ErrShutdown, map[string]uint64{"Failure": 1}, true, itself(firebreak.ErrShutdown)},
	} {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				for _, given := range []bool{false, true} {
					p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
					p.cmd.Override(firebreak.Override{Inject: func(context.Context) error { return row.inject }})
					ran, cause := false, error(nil)
					run := func(context.Context) (int, error) { ran = true; return 7, nil }
					var err error
					want := map[string]uint64{}
					maps.Copy(want, row.want)
					if given {
						_, err = firebreak.Do(t.Context(), p.cmd, run, func(_ context.Context, c error) (int, error) { cause = c; return 9, nil })
						require.NoError(t, err)
						row.err(t, cause)
						if row.asks {
							want["FallbackSuccess"] = 1
						}
					} else {
						_, err = firebreak.Do(t.Context(), p.cmd, run)
						row.err(t, err)
						if row.asks {
							want["FallbackMissing"] = 1
						}
					}
					require.Equal(t, row.inject == nil, ran)
					require.Equal(t, want, counted(firebreak.Counts{}, total(p.cmd)))
					require.Zero(t, p.cmd.Snapshot().Bulkhead.InFlight)
				}
			})
		})
	}
}

// Inject lets run go on when its caller has left already: what the caller took along
// and what the worker goes on with are apart. They used to be one, which was a race.
func TestInjectOutlastsACallerInAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, pools, firebreak.Config{})
		p.cmd.Override(firebreak.Override{Inject: func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		}})
		for range 20 {
			_, err := firebreak.Do(t.Context(), p.cmd, heeds(0, errBoom))
			require.ErrorIs(t, err, firebreak.ErrTimeout)
			synctest.Wait()
			p.cmd.Override(firebreak.Override{Mode: firebreak.ForceClosed, Inject: p.cmd.Snapshot().Override.Inject})
		}
		require.Equal(t, uint64(20), total(p.cmd).Timeout)
	})
}

// S63: at random the deadline is moved to later or sooner, lifted and set again, and
// time passes to around it. A simple model knows when the context ends: one timer that
// is moved by nobody but its own firing shall not be seen to be one.
func TestS63_ExtendModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			timeout := rapid.SampledFrom([]time.Duration{firebreak.Off, time.Second, 3 * time.Second}).Draw(t, "timeout")
			cmd := firebreak.NewRegistry(firebreak.Config{}).Command("dep", firebreak.Config{Timeout: timeout})
			call, err := cmd.Begin(context.Background())
			require.NoError(t, err)
			began := time.Now()
			const never = time.Duration(math.MaxInt64)
			var ended atomic.Int64 // when the context did
			stop := context.AfterFunc(call.Context(), func() { ended.Store(int64(time.Since(began))) })

			deadline, over, settled := never, false, false // as they should be
			if timeout > 0 {
				deadline = timeout
			}
			pass := func(d time.Duration) {
				time.Sleep(d)
				synctest.Wait()
				if !settled && !over && time.Since(began) >= deadline {
					over = true
				}
				require.Equal(t, over, call.Context().Err() != nil, "after %v, with the deadline at %v", time.Since(began), deadline)
				if over {
					require.Equal(t, context.DeadlineExceeded, call.Context().Err())
					require.Equal(t, firebreak.ErrTimeout, context.Cause(call.Context()))
					require.EqualValues(t, deadline, ended.Load())
				}
			}
			t.Repeat(map[string]func(*rapid.T){
				"extend": func(t *rapid.T) {
					d := rapid.SampledFrom([]time.Duration{firebreak.Off, 0, 1, time.Second / 2, time.Second, 2 * time.Second, time.Minute}).Draw(t, "to")
					ok := call.Extend(d)
					require.Equal(t, !over && !settled, ok)
					if !ok {
						return
					}
					if deadline = never; d != firebreak.Off {
						deadline = time.Since(began) + d
					}
					pass(0)
				},
				"wait": func(t *rapid.T) {
					pass(time.Duration(rapid.IntRange(0, 1500).Draw(t, "ms")) * time.Millisecond)
				},
				"wait for the deadline": func(t *rapid.T) {
					if left := deadline - time.Since(began); deadline != never && left > 0 {
						pass(max(0, left+time.Duration(rapid.IntRange(-1, 1).Draw(t, "ns"))))
					}
				},
				"settle, sometimes": func(t *rapid.T) {
					if rapid.IntRange(0, 9).Draw(t, "sometimes") > 0 {
						return
					}
					err := call.Settle(errBoom)
					if !settled {
						require.Equal(t, over, errors.Is(err, firebreak.ErrTimeout))
					}
					settled = true
					pass(time.Hour)
				},
			})
			call.End()
			stop()
			require.False(t, call.Extend(time.Second))
			require.Error(t, call.Context().Err())
			c := total(cmd)
			require.EqualValues(t, 1, c.Calls())
			switch {
			case over:
				require.EqualValues(t, 1, c.Timeout)
			case settled:
				require.EqualValues(t, 1, c.Failure)
			default:
				require.EqualValues(t, 1, c.Panic)
			}
			require.Zero(t, cmd.Snapshot().InFlight)
		})
	})
}

// Many at once move it, while time passes and somebody settles: the context ends by
// the timeout or with End, and what is counted is one outcome.
func TestS63_ExtendUnderContention(t *testing.T) {
	p := newPlace(t, semaphores, firebreak.Config{MaxConcurrent: 1, Timeout: 50 * time.Microsecond, Mode: firebreak.ForceClosed})
	const calls = 200
	for range calls {
		call := begun(t, t.Context(), p.cmd)
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				for n := range 20 {
					if !call.Extend([]time.Duration{firebreak.Off, time.Microsecond, time.Millisecond, 20 * time.Microsecond}[(i+n)%4]) {
						return
					}
					runtime.Gosched()
				}
				_ = call.Settle(nil)
			})
		}
		all.Wait()
		past := call.Context().Err()
		require.False(t, call.Extend(time.Hour))
		call.End()
		require.Error(t, call.Context().Err())
		if past != nil {
			require.Equal(t, context.DeadlineExceeded, past)
		}
	}
	c := total(p.cmd)
	require.EqualValues(t, calls, c.Calls())
	require.EqualValues(t, calls, c.Success+c.Timeout)
}
