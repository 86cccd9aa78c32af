package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

//go:noinline
func panicDeepDown(v any) { panic(v) }

func panicsWith(v any) func(context.Context) (int, error) {
	return func(context.Context) (int, error) {
		panicDeepDown(v)
		return 0, nil
	}
}

// It goes on up, and is not raised again: one panic on the stack, from where it was.
func TestS23_APanicGoesOnUpWithItsOwnStack(t *testing.T) {
	value := &struct{ why string }{"boom"}
	p := newPlace(t, semaphores, firebreak.Config{MaxConcurrent: 1})
	p.reg.Observe(firebreak.Observer{Call: func(context.Context, firebreak.CallEvent) {}})
	verbs := map[string]func(){
		"Do":  func() { _, _ = firebreak.Do(t.Context(), p.cmd, panicsWith(value), firebreak.Static(1)) },
		"Run": func() { _ = p.cmd.Run(t.Context(), func(context.Context) error { panicDeepDown(value); return nil }) },
		"Bind": func() {
			_, _ = firebreak.Bind(p.cmd, func(_ context.Context, v any) (int, error) { panicDeepDown(v); return 0, nil })(t.Context(), value)
		},
	}
	for name, call := range verbs {
		func() {
			defer func() {
				stack := string(debug.Stack())
				require.True(t, recover() == any(value), name)
				require.Contains(t, stack, "panicDeepDown")
				require.Equal(t, 1, strings.Count(stack, "\npanic("), stack)
			}()
			call()
		}()
		require.Zero(t, p.cmd.Snapshot().Bulkhead.InFlight)
	}
	require.Equal(t, map[string]uint64{"Panic": 3}, counted(firebreak.Counts{}, total(p.cmd))) // no ObserverPanics
}

func TestS23_APanicOfAWorkerIsAnError(t *testing.T) {
	value := fmt.Errorf("wrapped: %w", errBoom)
	p := newPlace(t, pools, firebreak.Config{MaxConcurrent: 1})
	for range 3 { // the permit comes back each time
		_, err := firebreak.Do(t.Context(), p.cmd, panicsWith(value), firebreak.Static(1))
		e, ok := err.(*firebreak.PanicError)
		require.True(t, ok)
		require.True(t, e.Value == any(value))
		require.Contains(t, string(e.Stack), "panicDeepDown")
		require.ErrorIs(t, err, errBoom)
	}
	require.Equal(t, map[string]uint64{"Panic": 3}, counted(firebreak.Counts{}, total(p.cmd)))
}

// A worker that Goexit has ended hands its permit on to those who are queued.
func TestS24_GoexitWedgesNobody(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		c := roomToWait(in)
		c.QueueSize = 9
		p := newPlace(t, in, c)
		ctx := t.Context()
		var all []func() answer
		for range 3 {
			all = append(all,
				later(func() (int, error) {
					return firebreak.Do(ctx, p.cmd, func(context.Context) (int, error) {
						time.Sleep(time.Second)
						runtime.Goexit()
						return 0, nil
					}, firebreak.Static(1))
				}),
				later(func() (int, error) { return firebreak.Do(ctx, p.cmd, succeed) }))
		}
		began := time.Now()
		for i, wait := range all {
			switch a := wait(); {
			case i%2 == 1:
				require.Equal(t, answer{value: 1}, a)
			case in == semaphores:
				exits(t, a)
			default:
				panics(nil)(t, a.err)
				require.EqualError(t, a.err, "run called runtime.Goexit")
			}
		}
		require.Equal(t, 3*time.Second, time.Since(began))
		require.Equal(t, map[string]uint64{"Panic": 3, "Success": 3}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// The text of an error is user code that the circuit calls when it opens. Once its
// Goexit took the permit with it, and a pool's caller without a deadline waited for ever.
func TestS26_AnErrorsTextThatCallsGoexitWedgesNobody(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, Timeout: firebreak.Off, ConsecutiveFailures: 1})
		got, err := firebreak.Do(t.Context(), p.cmd, func(context.Context) (int, error) { return 0, goneError{} },
			func(_ context.Context, cause error) (int, error) {
				if cause == (goneError{}) {
					return 1, nil
				}
				return 0, errBoom
			})
		require.NoError(t, err)
		require.Equal(t, 1, got)
		require.Equal(t, firebreak.StateOpen, p.cmd.Snapshot().State)
		require.Equal(t, map[string]uint64{"Failure": 1, "FallbackSuccess": 1}, counted(firebreak.Counts{}, total(p.cmd)))
		requireAtRest(t, p.cmd)
	})
}

// The same of a run whose caller has left: with an observer, who is told first or
// last but delays nobody, and without.
func TestS24_ALateGoexitOrPanicWedgesNobody(t *testing.T) {
	for name, end := range map[string]func(){
		"Goexit": runtime.Goexit,
		"panic":  func() { panic("boom") },
		"return": func() {},
	} {
		for _, watched := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/watched=%t", name, watched), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPlace(t, pools, firebreak.Config{MaxConcurrent: 1, QueueSize: 9})
					told := 0
					if watched {
						p.reg.Observe(firebreak.Observer{Overrun: func(context.Context, firebreak.CallEvent) {
							told++
							time.Sleep(time.Minute)
						}})
					}
					_, err := firebreak.Do(t.Context(), p.cmd, func(context.Context) (int, error) {
						time.Sleep(3 * time.Second / 2)
						end()
						return 0, nil
					})
					require.ErrorIs(t, err, firebreak.ErrTimeout)
					began := time.Now()
					_, err = firebreak.Do(t.Context(), p.cmd, succeed)
					require.NoError(t, err)
					require.Equal(t, time.Second/2, time.Since(began))
					time.Sleep(time.Hour)
					synctest.Wait()
					require.Equal(t, watched, told == 1)
				})
			})
		}
	}
}

func TestS25_NoFallbackForAPanic(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		for _, run := range []func(context.Context) (int, error){panicking, exiting} {
			answerOf(func() (int, error) {
				return firebreak.Do(t.Context(), p.cmd, run, func(context.Context, error) (int, error) {
					t.Error("a fallback was asked")
					return 0, nil
				})
			})
		}
		require.Equal(t, map[string]uint64{"Panic": 2}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// RecoverPanics makes the panic an error and asks the fallbacks; in the counts and
// to the circuit it is a panic still.
func TestS25_RecoverPanics(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{RecoverPanics: firebreak.On, ConsecutiveFailures: 1, SleepWindow: time.Second})
		var cause error
		_, err := firebreak.Do(t.Context(), p.cmd, panicsWith(errBoom), func(_ context.Context, err error) (int, error) {
			cause = err
			return 0, errCache
		})
		panics(errBoom)(t, cause)
		require.Contains(t, string(cause.(*firebreak.PanicError).Stack), "panicDeepDown")
		require.Equal(t, &firebreak.Error{Command: "cmd", Reason: firebreak.ErrFailed, Cause: cause, Fallback: errCache}, err)
		require.ErrorIs(t, err, errBoom)
		s := p.cmd.Snapshot()
		require.Equal(t, map[string]uint64{"Panic": 1, "FallbackFailure": 1}, counted(firebreak.Counts{}, s.Total))
		require.Equal(t, firebreak.StateOpen, s.State)
		require.Equal(t, "run panicked: boom", s.Evidence.LastError)

		// A panic without a value is one still: Go gives it an error for a value.
		time.Sleep(time.Second)
		_, err = firebreak.Do(t.Context(), p.cmd, panicsWith(nil))
		var none *runtime.PanicNilError
		require.ErrorAs(t, err, &none)
	})
}

// S26: an observer's panic is recovered and counted, and the others are told.
func TestS26_AnObserversPanicIsItsOwn(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{ConsecutiveFailures: 1})
		p.reg.Observe(firebreak.Observer{Transition: func(firebreak.Transition) { panic("boom") }})
		p.reg.Observe(firebreak.Observer{Call: func(context.Context, firebreak.CallEvent) { panic("boom") }})
		p.reg.Observe(firebreak.Observer{Fallback: func(context.Context, firebreak.CallEvent) { panic("boom") }})
		p.reg.Observe(firebreak.Observer{Overrun: func(context.Context, firebreak.CallEvent) { panic("boom") }})
		told := make(chan string, 9)
		p.reg.Observe(firebreak.Observer{
			Transition: func(firebreak.Transition) { told <- "transition" },
			Call:       func(context.Context, firebreak.CallEvent) { told <- "call" },
			Fallback:   func(context.Context, firebreak.CallEvent) { told <- "fallback" },
			Overrun:    func(context.Context, firebreak.CallEvent) { told <- "overrun" },
		})
		v, err := firebreak.Do(t.Context(), p.cmd, deaf(2*time.Second, 0, errBoom), firebreak.Static(9))
		require.NoError(t, err)
		require.Equal(t, 9, v)
		time.Sleep(2 * time.Second)
		require.Equal(t, map[string]uint64{"Timeout": 1, "Overran": 1, "FallbackSuccess": 1, "ObserverPanics": 4}, counted(firebreak.Counts{}, total(p.cmd)))
		require.ElementsMatch(t, []string{"transition", "call", "fallback", "overrun"}, []string{<-told, <-told, <-told, <-told})
		require.Empty(t, told)
	})
}

// An unreadable error is user code that panics, or asks something of ours.
type unreadable struct{ text func() string }

func (e unreadable) Error() string { return e.text() }

func TestS26_TheTextForTheEvidenceIsAskedForOutsideLocks(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{ConsecutiveFailures: 1})
		curious := unreadable{func() string {
			_, _ = firebreak.Do(t.Context(), p.neighbour, succeed)
			p.cmd.Override(firebreak.Override{})
			return p.cmd.Snapshot().State.String() + " so far"
		}}
		_, _ = firebreak.Do(t.Context(), p.cmd, returns(0, curious))
		require.Equal(t, "closed so far", p.cmd.Snapshot().Evidence.LastError)

		time.Sleep(5 * time.Second)
		_, _ = firebreak.Do(t.Context(), p.cmd, returns(0, curious))
		require.Equal(t, "half_open so far", p.cmd.Snapshot().Evidence.LastError)

		time.Sleep(5 * time.Second)
		broken := unreadable{func() string { panic("no text") }}
		a := answerOf(func() (int, error) { return firebreak.Do(t.Context(), p.cmd, returns(0, broken)) })
		require.Nil(t, a.panicked)
		require.IsType(t, unreadable{}, a.err) //nolint:testifylint // errors.As would ask it for a text
		s := p.cmd.Snapshot()
		require.Equal(t, firebreak.StateOpen, s.State)
		require.Contains(t, s.Evidence.LastError, "unreadable")
		require.Zero(t, s.Bulkhead.InFlight)
	})
}

// Its caller left before it panicked: observers are told, and nothing else happens.
func TestS26_ALatePanicTellsObserversAlone(t *testing.T) {
	for name, leaves := range map[string]struct {
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		want string
		as   firebreak.Outcome
	}{
		"at the deadline":  {deadlineAfter(time.Hour), "Timeout", firebreak.OutcomeTimeout},
		"by a cancel":      {canceledAfter(time.Second - 1), "Canceled", firebreak.OutcomeCanceled},
		"by a deadline":    {deadlineAfter(time.Second - 1), "CallerDeadline", firebreak.OutcomeCallerDeadline},
		"by an old cancel": {canceledAfter(time.Millisecond), "Canceled", firebreak.OutcomeCanceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlace(t, pools, firebreak.Config{})
				var calls, overruns []firebreak.CallEvent
				p.reg.Observe(firebreak.Observer{
					Call:    func(_ context.Context, e firebreak.CallEvent) { calls = append(calls, e) },
					Overrun: func(_ context.Context, e firebreak.CallEvent) { overruns = append(overruns, e) },
				})
				ctx, cancel := leaves.ctx(t.Context())
				defer cancel()
				_, err := firebreak.Do(ctx, p.cmd, func(context.Context) (int, error) {
					time.Sleep(time.Second + 1)
					panicDeepDown("boom")
					return 0, nil
				})
				require.Error(t, err)
				require.Len(t, calls, 1)
				before := p.cmd.Snapshot()
				require.Equal(t, 1, before.Bulkhead.Abandoned)
				require.Equal(t, 1, before.Bulkhead.InFlight)
				require.Equal(t, 1, before.InFlight)
				time.Sleep(time.Second)
				synctest.Wait()
				after := p.cmd.Snapshot()

				require.Empty(t, counted(before.Total, after.Total))
				require.Equal(t, uint64(1), counted(firebreak.Counts{}, after.Total)[leaves.want])
				require.InDelta(t, before.ErrorPercentage, after.ErrorPercentage, 0)
				require.Equal(t, before.RunHistogram, after.RunHistogram)
				require.Zero(t, after.Bulkhead.Abandoned)
				require.Zero(t, after.Bulkhead.InFlight)
				require.Zero(t, after.InFlight)
				require.Len(t, calls, 1)
				require.Len(t, overruns, 1)
				e := overruns[0]
				panics("boom")(t, e.Err)
				require.Equal(t, leaves.as, e.Outcome)
				require.Equal(t, time.Second+1, e.Run)
				require.Equal(t, time.Second+1, e.Call)

				_, err = firebreak.Do(t.Context(), p.cmd, func(context.Context) (int, error) {
					s := p.cmd.Snapshot()
					require.Equal(t, 1, s.InFlight, "no run was taken off twice")
					require.Zero(t, s.Bulkhead.Abandoned, "and none is missing")
					return 0, nil
				})
				require.NoError(t, err)
			})
		})
	}
}

// A run that ends in peace soon after its caller left is no news.
func TestAnEndALittleLateIsNoOverrun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, pools, firebreak.Config{})
		p.reg.Observe(firebreak.Observer{Overrun: func(context.Context, firebreak.CallEvent) { t.Error("an overrun") }})
		for _, run := range []func(context.Context) (int, error){deaf(1100*time.Millisecond, 0, errBoom), heeds(0, errBoom)} {
			_, err := firebreak.Do(t.Context(), p.cmd, run)
			require.ErrorIs(t, err, firebreak.ErrTimeout)
			time.Sleep(time.Second)
		}
		require.Zero(t, total(p.cmd).Overran)
	})
}

// A probe may panic or call Goexit: that is a failed probe, and no wedge.
func TestAProbeThatPanicsOpensAgain(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		trip(t, p.cmd)
		for _, run := range []func(context.Context) (int, error){panicking, exiting} {
			time.Sleep(5 * time.Second)
			answerOf(func() (int, error) { return firebreak.Do(t.Context(), p.cmd, run) })
			s := p.cmd.Snapshot()
			require.Equal(t, firebreak.StateOpen, s.State)
			require.Equal(t, time.Now().Add(5*time.Second), s.Evidence.NextProbe)
		}
		time.Sleep(5 * time.Second)
		_, err := firebreak.Do(t.Context(), p.cmd, succeed)
		require.NoError(t, err)
	})
}

func TestPanicErrorUnwraps(t *testing.T) {
	require.True(t, errors.Unwrap(&firebreak.PanicError{Value: errBoom}) == errBoom)
	require.NoError(t, errors.Unwrap(&firebreak.PanicError{Value: "boom"}))
	require.NoError(t, errors.Unwrap(&firebreak.PanicError{}))
	require.EqualError(t, &firebreak.PanicError{Value: 7}, "run panicked: 7")
	require.EqualError(t, &firebreak.PanicError{}, "run called runtime.Goexit")
}
