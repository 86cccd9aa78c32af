package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// exitAt is an observer that calls Goexit whenever it is told of what.
func exitAt(what string) firebreak.Observer {
	exit := func(of string) {
		if of == what {
			runtime.Goexit()
		}
	}
	return firebreak.Observer{
		Transition: func(firebreak.Transition) { exit("transition") },
		Call:       func(context.Context, firebreak.CallEvent) { exit("call") },
		Fallback:   func(context.Context, firebreak.CallEvent) { exit("fallback") },
		Overrun:    func(context.Context, firebreak.CallEvent) { exit("overrun") },
	}
}

// An observer that calls Goexit, as a failed require does, ends the goroutine that
// told it, and the books are right all the same. Where it did so before the fallbacks,
// their end and the call's time used to be missing for ever.
func TestS60_AnObserverThatCallsGoexitSpoilsNoBooks(t *testing.T) {
	for _, what := range []string{"transition", "call", "fallback", "overrun"} {
		for name, run := range map[string]func(context.Context) (int, error){
			"failure": fail, "timeout": deaf(2*time.Second, 0, errBoom),
		} {
			t.Run(what+"/"+name, func(t *testing.T) {
				inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
					p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, ConsecutiveFailures: 1})
					stop := p.reg.Observe(exitAt(what))
					answerOf(func() (int, error) { return firebreak.Do(t.Context(), p.cmd, run, firebreak.Static(2)) })
					answerOf(func() (int, error) { return firebreak.Do(t.Context(), p.cmd, run, firebreak.Static(2)) }) // refused
					time.Sleep(time.Minute)
					synctest.Wait()
					stop()
					s := p.cmd.Snapshot()
					require.EqualValues(t, 2, s.Total.Calls())
					c := s.Total
					require.EqualValues(t, 2, c.FallbackSuccess+c.FallbackFailure)
					require.Equal(t, c.Executed(), s.CallHistogram.Count)
				})
			})
		}
	}
}

// A call that waited and becomes a probe tells of it with its permit in hand.
func TestS60_AnObserverThatEndsAWaitingCallHoldsNoPermit(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		c := roomToWait(in)
		c.ConsecutiveFailures = 1
		p := newPlace(t, in, c)
		held := begin(t, p.cmd)
		wait := later(func() (int, error) { return firebreak.Do(t.Context(), p.cmd, succeed) })
		held.Settle(errBoom)
		time.Sleep(6 * time.Second) // it may probe
		told := 0
		p.reg.Observe(firebreak.Observer{Transition: func(firebreak.Transition) {
			if told++; told == 1 {
				runtime.Goexit()
			}
		}})
		held.End()
		a := wait()
		require.Zero(t, p.cmd.Snapshot().Bulkhead.InFlight)
		if in == semaphores { // its own goroutine was the one to end
			exits(t, a)
			_, err := firebreak.Do(t.Context(), p.cmd, succeed)
			require.NoError(t, err, "its place is the next call's")
		} else {
			require.Equal(t, answer{value: 1}, a)
		}
		require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
	})
}

// So does one that did not wait; it used to keep its place as a probe for a lease.
func TestS60_AnObserverThatEndsAProbeFreesItsPlace(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		trip(t, p.cmd)
		time.Sleep(5 * time.Second)
		stop := p.reg.Observe(exitAt("transition"))
		exits(t, answerOf(func() (int, error) { return firebreak.Do(t.Context(), p.cmd, succeed) }))
		stop()
		_, err := firebreak.Do(t.Context(), p.cmd, succeed)
		require.NoError(t, err)
		require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
		require.EqualValues(t, 1, total(p.cmd).Success)
	})
}

// What such an observer left untold is told all the same, in order.
func TestS60_AnObserverThatCallsGoexitLosesNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{})
		seen := watch(reg)
		reg.Observe(firebreak.Observer{Transition: func(tr firebreak.Transition) {
			if tr.Override.Reason == "1" {
				time.Sleep(time.Hour)
				runtime.Goexit()
			}
		}})
		note := func(reason string) { cmd.Override(firebreak.Override{Reason: reason}) }
		go note("1")
		synctest.Wait()
		note("2")
		note("3")
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.Equal(t, []string{"1", "2", "3"}, reasons(*seen))
		note("4")
		require.Equal(t, []string{"1", "2", "3", "4"}, reasons(*seen))
	})
}

// reasons are those of the overrides in force after each transition.
func reasons(seen []firebreak.Transition) (rs []string) {
	for _, tr := range seen {
		rs = append(rs, tr.Override.Reason)
	}
	return rs
}

// Who comes later is told of what happens from then on, not of what others are still
// being told.
func TestS60_ANewObserverIsToldOfNothingOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{})
		slow := 0
		reg.Observe(firebreak.Observer{Transition: func(firebreak.Transition) {
			slow++
			time.Sleep(time.Hour)
		}})
		force := func(m firebreak.Mode) { cmd.Override(firebreak.Override{Mode: m}) }
		go force(firebreak.ForceOpen)
		synctest.Wait()
		force(firebreak.ForceClosed) // left with the goroutine that tells
		seen := watch(reg)
		force(firebreak.Auto)
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		require.Equal(t, 3, slow)
		require.Len(t, *seen, 1)
		require.Equal(t, firebreak.Auto, (*seen)[0].Mode)
	})
}

// S60: of all that happened to a circuit at the hands of many, nothing is missing, and
// each transition goes on where the one before it ended.
func TestS60_TransitionsComeInOrder(t *testing.T) {
	const callers, each = 8, 50
	reg := newRegistry(t, firebreak.Config{})
	cmd := reg.Command("dep", firebreak.Config{ConsecutiveFailures: 2, SleepWindow: 10 * time.Microsecond})
	var telling atomic.Int32
	var first, second []firebreak.Transition
	reg.Observe(firebreak.Observer{Transition: func(tr firebreak.Transition) {
		assert.EqualValues(t, 1, telling.Add(1), "one at a time")
		first = append(first, tr)
	}})
	reg.Observe(firebreak.Observer{Transition: func(tr firebreak.Transition) {
		second = append(second, tr)
		telling.Add(-1)
	}})
	var wg sync.WaitGroup
	modes := []firebreak.Mode{firebreak.Auto, firebreak.ForceOpen, firebreak.ForceClosed, firebreak.Shadow}
	for i := range callers {
		wg.Go(func() {
			for n := range each {
				for range 3 {
					_, _ = firebreak.Do(context.Background(), cmd, fail)
				}
				_, _ = firebreak.Do(context.Background(), cmd, succeed)
				cmd.Override(firebreak.Override{Mode: modes[(i+n)%len(modes)], Reason: fmt.Sprint(i, n)})
			}
		})
	}
	wg.Wait()
	s := cmd.Snapshot()
	require.Equal(t, first, second)
	last, noted := firebreak.Transition{Mode: firebreak.Auto}, map[string]bool{}
	for _, tr := range first {
		require.Equal(t, last.To, tr.From)
		if tr.Mode != firebreak.Auto && tr.Mode != firebreak.Shadow {
			require.Equal(t, tr.Mode == firebreak.ForceOpen, tr.To == firebreak.StateOpen)
		}
		if tr.From != firebreak.StateOpen && tr.To == firebreak.StateOpen && tr.Mode == firebreak.Auto {
			require.NotEmpty(t, tr.Evidence.Rule)
		}
		noted[tr.Override.Reason] = true
		last = tr
	}
	require.Equal(t, s.State, last.To)
	require.Equal(t, s.Mode, last.Mode)
	require.Equal(t, s.Override, last.Override)
	delete(noted, "") // before the first
	require.Len(t, noted, callers*each)
}

// Whatever they are told of, observers are told outside all locks, and may call
// anything of ours: also what tells observers.
func TestS60_ObserversMayCallAnything(t *testing.T) {
	for _, what := range []string{"transition", "call", "fallback", "overrun"} {
		t.Run(what, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{MaxConcurrent: 2, ConsecutiveFailures: 1})
				k := p.dep.Keyed("keyed", 1, firebreak.Config{})
				ctx := t.Context()
				over, cancel := context.WithCancel(ctx)
				cancel()
				run := func(context.Context) error { return nil }
				told, done := false, make(chan bool)
				anything := func(of string) {
					if of != what || told { // what it calls tells observers in its turn
						return
					}
					told = true
					p.cmd.Override(firebreak.Override{Mode: firebreak.ForceClosed, Reason: "so that calls pass"})
					for cmd := range p.reg.Commands() {
						cmd.Snapshot()
						cmd.Config()
						cmd.Origins()
					}
					_, err := firebreak.Do(ctx, p.cmd, fail, firebreak.Static(2))
					assert.NoError(t, err)
					assert.NoError(t, p.neighbour.Run(ctx, run))
					call, err := p.cmd.Begin(ctx)
					if assert.NoError(t, err) {
						call.Extend(time.Hour)
						assert.NoError(t, call.Settle(nil))
						call.End()
					}
					p.cmd.Override(firebreak.Override{})
					assert.NoError(t, k.Command("a").Run(ctx, run))
					k.Command("b").Override(firebreak.Override{Mode: firebreak.ForceOpen})
					k.Snapshot()
					p.reg.Command("new", firebreak.Config{}).Snapshot()
					stop := p.reg.Observe(firebreak.Observer{Call: func(context.Context, firebreak.CallEvent) {}})
					assert.NoError(t, p.reg.Update(forCommand("cmd", firebreak.Config{Mode: firebreak.Shadow})))
					p.reg.Document()
					p.reg.Unclaimed()
					stop()
					if err := p.reg.Shutdown(over); err != nil { // the run of a caller that left goes on
						assert.ErrorIs(t, err, context.Canceled)
					}
					close(done)
				}
				p.reg.Observe(firebreak.Observer{
					Transition: func(tr firebreak.Transition) {
						if tr.Command == "cmd" {
							anything("transition")
						}
					},
					Call:     func(context.Context, firebreak.CallEvent) { anything("call") },
					Fallback: func(context.Context, firebreak.CallEvent) { anything("fallback") },
					Overrun:  func(context.Context, firebreak.CallEvent) { anything("overrun") },
				})
				_, err := firebreak.Do(ctx, p.cmd, deaf(2*time.Second, 0, errBoom), firebreak.Static(2))
				require.NoError(t, err)
				<-done
			})
		})
	}
}

// S60: a slow observer delays the call that told it, and no other.
func TestS60_ASlowObserverDelaysItsOwnCallAlone(t *testing.T) {
	for _, what := range []string{"transition", "call", "fallback", "overrun"} {
		t.Run(what, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				c := roomToWait(in)
				c.Timeout, c.ConsecutiveFailures = time.Second, 1
				p := newPlace(t, in, c)
				var slowIsDone atomic.Bool
				var mu sync.Mutex
				count := map[string]int{}
				note := func(of string) (before int) {
					mu.Lock()
					defer mu.Unlock()
					count[of]++
					return count[of] - 1
				}
				slow := func(of string) {
					if note(of) == 0 && of == what {
						time.Sleep(time.Hour)
						slowIsDone.Store(true)
					}
				}
				p.reg.Observe(firebreak.Observer{
					Transition: func(firebreak.Transition) { slow("transition") },
					Call:       func(context.Context, firebreak.CallEvent) { slow("call") },
					Fallback:   func(context.Context, firebreak.CallEvent) { slow("fallback") },
					Overrun:    func(context.Context, firebreak.CallEvent) { slow("overrun") },
				})
				began := time.Now()
				wait := later(func() (int, error) {
					return firebreak.Do(t.Context(), p.cmd, deaf(2*time.Second, 0, errBoom), firebreak.Static(2))
				})
				queued := later(func() (int, error) { return firebreak.Do(t.Context(), p.neighbour, succeed) })
				require.Equal(t, answer{value: 1}, queued())
				require.Equal(t, 2*time.Second, time.Since(began), "the permit went on to the next")

				// A failure of a probe and the next one's success: transitions, too.
				for _, run := range []func(context.Context) (int, error){fail, succeed, succeed} {
					time.Sleep(5 * time.Second)
					now := time.Now()
					_, _ = firebreak.Do(t.Context(), p.cmd, run)
					require.Equal(t, now, time.Now())
				}
				require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
				require.False(t, slowIsDone.Load())

				require.Equal(t, answer{value: 2}, wait())
				switch {
				case in == semaphores:
					require.Equal(t, 2*time.Second+time.Hour, time.Since(began))
				case what == "overrun": // of a run without a caller
					require.Less(t, time.Since(began), time.Hour)
				default:
					require.Equal(t, time.Second+time.Hour, time.Since(began))
				}
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				require.Equal(t, map[string]int{"transition": 5, "call": 5, "fallback": 1, "overrun": 1}, count)
			})
		})
	}
}

// outcomeOf is the outcome that a field of Counts counts.
var outcomeOf = map[string]firebreak.Outcome{
	"Success": firebreak.OutcomeSuccess, "Expected": firebreak.OutcomeExpected, "Ignored": firebreak.OutcomeIgnored,
	"Failure": firebreak.OutcomeFailure, "Timeout": firebreak.OutcomeTimeout, "Panic": firebreak.OutcomePanic,
	"Canceled": firebreak.OutcomeCanceled, "CallerDeadline": firebreak.OutcomeCallerDeadline, "Rejected": firebreak.OutcomeRejected,
	"ShortCircuited": firebreak.OutcomeShortCircuited, "Shutdown": firebreak.OutcomeShutdown, "GaveUp": firebreak.OutcomeGaveUp,
}

// A told event, and when.
type toldEvent struct {
	firebreak.CallEvent
	ctx context.Context
	at  time.Time
}

// S60: what is told of a call, for every outcome.
func TestS60_WhatACallEventSays(t *testing.T) {
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprintf("answers=%t", answers), func(t *testing.T) {
			eachOutcome(t, func(t *testing.T, in firebreak.Isolation, row *outcomeRow) {
				requireEvents(t, in, row, answers)
			})
		})
	}
}

func requireEvents(t *testing.T, in firebreak.Isolation, row *outcomeRow, answers bool) {
	t.Helper()
	p := newPlace(t, in, row.config)
	if row.before != nil {
		row.before(t, p)
	}
	var calls, fallbacks, overruns []toldEvent
	tell := func(list *[]toldEvent) func(context.Context, firebreak.CallEvent) {
		return func(ctx context.Context, e firebreak.CallEvent) {
			if e.Command == "cmd" {
				*list = append(*list, toldEvent{e, ctx, time.Now()})
			}
		}
	}
	p.reg.Observe(firebreak.Observer{Call: tell(&calls), Fallback: tell(&fallbacks), Overrun: tell(&overruns)})

	var callers context.Context
	var submitted, started, ended time.Time
	var cause error
	asked := false
	fallback := func(_ context.Context, err error) (int, error) {
		asked, cause = true, err
		time.Sleep(3 * time.Second)
		if answers {
			return 99, nil
		}
		return 0, errCache
	}
	_, runs := row.call(t, p, func(ctx context.Context, cmd *firebreak.Command, run func(context.Context) (int, error), fallback firebreak.Fallback[int]) (int, error) {
		callers, submitted = ctx, time.Now()
		v, err := firebreak.Do(ctx, cmd, func(ctx context.Context) (int, error) {
			started = time.Now()
			defer func() { ended = time.Now() }()
			return run(ctx)
		}, fallback)
		if !asked {
			cause = err
		}
		return v, err
	}, fallback)

	require.Len(t, calls, 1)
	e := calls[0]
	require.True(t, e.ctx == callers, "the caller's own context")
	want := firebreak.CallEvent{Dependency: "dep", Command: "cmd", Outcome: outcomeOf[row.counted], Err: cause, Call: e.at.Sub(submitted)}
	if runs > 0 {
		over := ended
		if e.at.Before(ended) { // the caller left
			over = e.at
		}
		want.Run = over.Sub(started)
	}
	if cause == nil && row.counted != "Success" { // a panic, or a value that came too late
		require.Error(t, e.Err)
		require.Equal(t, row.counted == "Timeout", errors.Is(e.Err, firebreak.ErrTimeout))
		want.Err = e.Err
	}
	require.Equal(t, want, e.CallEvent)

	if !row.asks {
		require.Empty(t, fallbacks)
	} else {
		require.Len(t, fallbacks, 1)
		f := fallbacks[0]
		require.True(t, f.ctx == callers)
		require.Equal(t, e.at.Add(3*time.Second), f.at)
		want.Fallback, want.Err, want.Call = firebreak.OutcomeSuccess, nil, f.at.Sub(submitted)
		if !answers {
			want.Fallback, want.Err = firebreak.OutcomeFailure, errCache
		}
		require.Equal(t, want, f.CallEvent)
	}

	if !row.overran {
		require.Empty(t, overruns)
		return
	}
	require.Len(t, overruns, 1)
	o := overruns[0]
	require.True(t, o.ctx == callers)
	require.Equal(t, ended, o.at)
	require.Equal(t, firebreak.OutcomeTimeout, o.Outcome)
	require.Equal(t, ended.Sub(started), o.Run)
	require.Equal(t, ended.Sub(submitted), o.Call)
	require.Equal(t, "cmd", o.Command)
	require.Equal(t, "dep", o.Dependency)
}

func TestS60_FallbacksThatAreRefused(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxFallbacks: 1})
		wait := later(func() (int, error) { return firebreak.Do(t.Context(), p.cmd, fail, answering(time.Hour, 2, nil)) })
		var events []firebreak.CallEvent
		stop := p.reg.Observe(firebreak.Observer{Fallback: func(_ context.Context, e firebreak.CallEvent) { events = append(events, e) }})
		_, err := firebreak.Do(t.Context(), p.cmd, fail, firebreak.Static(2))
		require.ErrorIs(t, err, firebreak.ErrFallbackRejected)
		stop()
		wait()
		require.Equal(t, []firebreak.CallEvent{{
			Dependency: "dep", Command: "cmd", Outcome: firebreak.OutcomeFailure, Fallback: firebreak.OutcomeRejected, Err: firebreak.ErrFallbackRejected,
		}}, events)
	})
}

// Events of a keyed command bear the family's name and the key.
func TestEventsOfAKeyedCommand(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{Isolation: in, ConsecutiveFailures: 1})
		k := reg.Dependency("web", firebreak.Config{}).Keyed("web.get", 2, firebreak.Config{})
		names := make(chan [3]string, 4)
		event := func(_ context.Context, e firebreak.CallEvent) { names <- [3]string{e.Dependency, e.Command, e.Key} }
		reg.Observe(firebreak.Observer{
			Transition: func(tr firebreak.Transition) { names <- [3]string{tr.Dependency, tr.Command, tr.Key} },
			Call:       event, Fallback: event, Overrun: event,
		})
		_, _ = firebreak.Do(t.Context(), k.Command("a.example"), deaf(2*time.Second, 0, errBoom), firebreak.Static(2))
		for range 4 {
			require.Equal(t, [3]string{"web", "web.get", "a.example"}, <-names)
		}
	})
}

func TestObserversAreToldUntilTheyAreStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{})
		told := ""
		observer := func(name string) firebreak.Observer {
			note := func(context.Context, firebreak.CallEvent) { told += name }
			return firebreak.Observer{Transition: func(firebreak.Transition) { told += name }, Call: note, Fallback: note, Overrun: note}
		}
		happens := func() string {
			told = ""
			_, _ = firebreak.Do(t.Context(), cmd, deaf(2*time.Second, 0, errBoom), firebreak.Static(2)) // three events
			cmd.Override(firebreak.Override{Reason: time.Now().String()})
			return told
		}
		require.Empty(t, happens())
		a := observer("a")
		stopA := reg.Observe(a)
		require.Equal(t, "aaaa", happens())
		reg.Observe(firebreak.Observer{}) // one that has nothing to say
		stopB := reg.Observe(observer("b"))
		stopAgain := reg.Observe(a)
		require.Equal(t, "aabbaa"+"aba"+"aba", happens(), "in the order in which they came")
		stopA()
		require.Equal(t, "bbaa"+"ba"+"ba", happens(), "the same observer is still there once")
		stopA()
		require.Equal(t, "bbaa"+"ba"+"ba", happens(), "to stop twice does nothing")
		stopB()
		stopAgain()
		require.Empty(t, happens())

		// One that comes while a call is under way is told of its end.
		_, _ = firebreak.Do(t.Context(), cmd, func(context.Context) (int, error) { reg.Observe(a); return 1, nil })
		require.Equal(t, "a", told)
	})
}

// Without observers nothing is queued, nor told to one that comes later.
func TestS60_WithoutObserversNothingIsKept(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	cmd := reg.Command("dep", firebreak.Config{})
	note := func(reason string) { cmd.Override(firebreak.Override{Reason: reason}) }
	note("0")
	kept := leastInUse(49_999, 1, func() any {
		for range 5000 {
			note("1")
		}
		return nil
	})
	require.Less(t, kept, 50_000)
	seen := watch(reg)
	note("2")
	require.Equal(t, []string{"2"}, reasons(*seen))
}

// S26: each panic of each observer is counted, and the others are told of everything.
func TestS26_PanicsOfObserversAreCountedOneByOne(t *testing.T) {
	const callers, each = 8, 50
	reg := newRegistry(t, firebreak.Config{})
	cmd, other := reg.Command("dep", firebreak.Config{}), reg.Command("other", firebreak.Config{})
	var told atomic.Int64
	for i := range 4 {
		reg.Observe(firebreak.Observer{Call: func(_ context.Context, e firebreak.CallEvent) {
			switch {
			case e.Command == "other":
			case i == 0:
				panic("boom")
			case i == 2:
				panic(nil) //nolint:govet // some do
			default:
				told.Add(1)
			}
		}})
	}
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				_, err := firebreak.Do(context.Background(), cmd, succeed)
				assert.NoError(t, err)
				_, _ = firebreak.Do(context.Background(), other, succeed)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 2*callers*each, told.Load())
	require.Equal(t, map[string]uint64{"Success": callers * each, "ObserverPanics": 2 * callers * each}, counted(firebreak.Counts{}, total(cmd)))
	require.Zero(t, total(other).ObserverPanics)
}
