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

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// Every outcome, with a fallback and without, is in TestOutcomes and its like.

func TestS18_OneEndIsCountedForEachCallThatAsks(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		answers := firebreak.Static(9)
		fails := func(context.Context, error) (int, error) { return 0, errCache }
		for _, row := range []struct {
			name      string
			limit     int
			fallbacks []firebreak.Fallback[int]
			want      string
		}{
			{"none", 0, nil, "FallbackMissing"},
			{"a nil one", 0, []firebreak.Fallback[int]{nil, nil}, "FallbackMissing"},
			{"off", firebreak.Off, []firebreak.Fallback[int]{answers}, "FallbackMissing"},
			{"an answer", 0, []firebreak.Fallback[int]{answers}, "FallbackSuccess"},
			{"an answer at last", 0, []firebreak.Fallback[int]{fails, nil, fails, answers}, "FallbackSuccess"},
			{"no answer", 0, []firebreak.Fallback[int]{fails, fails}, "FallbackFailure"},
		} {
			p := newPlace(t, in, firebreak.Config{MaxFallbacks: row.limit})
			var events []firebreak.CallEvent
			p.reg.Observe(firebreak.Observer{Fallback: func(_ context.Context, e firebreak.CallEvent) { events = append(events, e) }})
			v, err := firebreak.Do(t.Context(), p.cmd, returns(7, errBoom), row.fallbacks...)
			require.Equal(t, map[string]uint64{"Failure": 1, row.want: 1}, counted(firebreak.Counts{}, total(p.cmd)), row.name)
			switch row.want {
			case "FallbackMissing":
				require.True(t, err == errBoom, row.name)
				require.Equal(t, 7, v)
				require.Empty(t, events, row.name)
			case "FallbackSuccess":
				require.NoError(t, err, row.name)
				require.Equal(t, 9, v)
				require.Len(t, events, 1)
				require.Equal(t, firebreak.OutcomeSuccess, events[0].Fallback)
				require.NoError(t, events[0].Err)
			default:
				require.ErrorIs(t, err, errBoom, row.name)
				require.ErrorIs(t, err, errCache, row.name)
				require.Equal(t, 7, v)
				require.Len(t, events, 1)
				require.Equal(t, firebreak.OutcomeFailure, events[0].Fallback)
				require.ErrorIs(t, events[0].Err, errCache)
				require.NotErrorIs(t, events[0].Err, errBoom)
			}
		}
	})
}

// All that a fallback can change is the answer.
func TestS18_TheOutcomeIsSettledBefore(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, ConsecutiveFailures: 1})
		_, err := firebreak.Do(t.Context(), p.cmd, fail, func(ctx context.Context, _ error) (int, error) {
			s := p.cmd.Snapshot()
			require.Equal(t, map[string]uint64{"Failure": 1}, counted(firebreak.Counts{}, s.Total))
			require.Equal(t, firebreak.StateOpen, s.State)
			require.Equal(t, 1, s.Fallbacks)
			require.Zero(t, s.Bulkhead.InFlight)
			return firebreak.Do(ctx, p.neighbour, succeed) // the permit is free
		})
		require.NoError(t, err)
		require.Zero(t, p.cmd.Snapshot().Fallbacks)
	})
}

func TestS19_MaxFallbacksIsTriedAndNeverWaitedFor(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxFallbacks: 1})
		ctx := t.Context()
		slow := func(context.Context, error) (int, error) {
			time.Sleep(time.Second)
			return 0, errCache
		}
		// One permit covers the whole chain.
		first := later(func() (int, error) { return firebreak.Do(ctx, p.cmd, fail, slow, slow, firebreak.Static(9)) })
		for _, wait := range []time.Duration{0, time.Second, time.Second - 1} {
			time.Sleep(wait)
			before, began := total(p.cmd), time.Now()
			v, err := firebreak.Do(ctx, p.cmd, returns(7, errBoom), firebreak.Static(9))
			require.Equal(t, began, time.Now())
			require.Equal(t, 7, v)
			require.Equal(t, &firebreak.Error{Command: "cmd", Reason: firebreak.ErrFailed, Cause: errBoom, Fallback: firebreak.ErrFallbackRejected}, err)
			require.ErrorIs(t, err, firebreak.ErrFallbackRejected)
			require.ErrorIs(t, err, errBoom)
			require.Equal(t, map[string]uint64{"Failure": 1, "FallbackRejected": 1}, counted(before, total(p.cmd)))
		}
		require.Equal(t, answer{value: 9}, first())
		_, err := firebreak.Do(ctx, p.cmd, fail, firebreak.Static(9))
		require.NoError(t, err)
	})
}

// S19: where a reason of ours asked for the fallback, the error matches that, and
// shared errors stay as they are.
func TestS19_ARefusedFallbackMatchesTheReasonToo(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxFallbacks: 1})
		ctx := t.Context()
		failUntilItOpens(t, p.cmd)
		_, plain := firebreak.Do(ctx, p.cmd, succeed)
		holding := later(func() (int, error) {
			return firebreak.Do(ctx, p.cmd, succeed, func(context.Context, error) (int, error) {
				time.Sleep(time.Second)
				return 9, nil
			})
		})
		var events []firebreak.CallEvent
		stop := p.reg.Observe(firebreak.Observer{Fallback: func(_ context.Context, e firebreak.CallEvent) { events = append(events, e) }})
		_, err := firebreak.Do(ctx, p.cmd, succeed, firebreak.Static(9))
		stop()
		require.ErrorIs(t, err, firebreak.ErrOpen)
		require.ErrorIs(t, err, firebreak.ErrFallbackRejected)
		require.Equal(t, plain.(*firebreak.Error).RetryAt, err.(*firebreak.Error).RetryAt)
		require.NoError(t, plain.(*firebreak.Error).Fallback)
		require.Len(t, events, 1)
		require.Equal(t, firebreak.OutcomeRejected, events[0].Fallback)
		require.Equal(t, firebreak.OutcomeShortCircuited, events[0].Outcome)
		require.ErrorIs(t, events[0].Err, firebreak.ErrFallbackRejected)
		holding()
	})
}

// I13: fallbacks in flight ≤ their limit: as many as it says at once, not one more.
func TestI13_FallbacksInFlightStayWithinTheirLimit(t *testing.T) {
	for _, row := range []struct{ limit, calls, answered int }{
		{1, 10, 1}, {3, 10, 3}, {10, 10, 10}, {firebreak.Unlimited, 200, 200}, {0, 150, 100}, {firebreak.Off, 10, 0},
	} {
		t.Run(fmt.Sprint(row.limit), func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{MaxFallbacks: row.limit, Mode: firebreak.ForceClosed})
				ctx := t.Context()
				var all []func() answer
				for range row.calls {
					all = append(all, later(func() (int, error) {
						return firebreak.Do(ctx, p.cmd, fail, func(context.Context, error) (int, error) {
							time.Sleep(time.Second)
							return 9, nil
						})
					}))
				}
				require.Equal(t, row.answered, p.cmd.Snapshot().Fallbacks)
				answered := 0
				for _, wait := range all {
					if wait().err == nil {
						answered++
					}
				}
				require.Equal(t, row.answered, answered)
				require.Zero(t, p.cmd.Snapshot().Fallbacks)
			})
		})
	}
}

// I13 where callers race for the last permit.
func TestI13_UnderContention(t *testing.T) {
	const limit, callers, calls = 3, 8, 6000
	p := newPlace(t, semaphores, firebreak.Config{MaxFallbacks: limit, Mode: firebreak.ForceClosed})
	var inFlight, most, asked atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range calls {
				_, _ = firebreak.Do(t.Context(), p.cmd, fail, func(context.Context, error) (int, error) {
					asked.Add(1)
					n := inFlight.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					runtime.Gosched()
					inFlight.Add(-1)
					return 0, errCache
				})
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, most.Load(), int64(limit))
	got := total(p.cmd)
	require.EqualValues(t, callers*calls, got.Failure)
	require.EqualValues(t, asked.Load(), got.FallbackFailure)
	require.Equal(t, got.Failure, got.FallbackFailure+got.FallbackRejected)
}

// MaxFallbacks is each command's own, like the fallbacks that run.
func TestMaxFallbacksIsPerCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, semaphores, firebreak.Config{MaxFallbacks: 1})
		_, err := firebreak.Do(t.Context(), p.cmd, fail, func(ctx context.Context, _ error) (int, error) {
			return firebreak.Do(ctx, p.neighbour, fail, firebreak.Static(9))
		})
		require.NoError(t, err)
		_, err = firebreak.Do(t.Context(), p.cmd, fail, func(ctx context.Context, _ error) (int, error) {
			return firebreak.Do(ctx, p.cmd, fail, firebreak.Static(9)) // within its own
		})
		require.ErrorIs(t, err, firebreak.ErrFallbackRejected)
	})
}

// In order, on the caller's goroutine, each with the same cause, until one answers.
func TestS20_FallbacksRunInOrder(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		ctx := context.WithValue(t.Context(), contextKey("user"), "ada")
		var order []int
		nth := func(n int, err error) firebreak.Fallback[int] {
			return func(within context.Context, cause error) (int, error) {
				require.True(t, within == ctx, "the caller's context, as it is")
				require.True(t, cause == errNotFound, "what Do would have returned")
				order = append(order, n)
				return n, err
			}
		}
		v, err := firebreak.Do(ctx, p.cmd, returns(0, firebreak.Mark(errNotFound, firebreak.Failure)),
			nil, nth(1, errCache), nil, nth(2, errBoom), nth(3, nil), nth(4, nil))
		require.NoError(t, err)
		require.Equal(t, 3, v)
		require.Equal(t, []int{1, 2, 3}, order)

		// The goroutine is the caller's: it can end it.
		exits(t, answerOf(func() (int, error) {
			return firebreak.Do(ctx, p.cmd, fail, func(context.Context, error) (int, error) {
				runtime.Goexit()
				return 0, nil
			})
		}))
	})
}

// The caller's context may be over by then; a fallback has no limit of time of ours.
func TestS20_AFallbackIsAskedWhateverTheCallersContext(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second+1)
		defer cancel()
		v, err := firebreak.Do(ctx, p.cmd, heeds(0, errBoom), func(within context.Context, cause error) (int, error) {
			require.True(t, within == ctx)
			require.NoError(t, within.Err(), "it is not run's context, which has ended")
			require.ErrorIs(t, cause, firebreak.ErrTimeout)
			time.Sleep(time.Hour)
			require.Equal(t, context.DeadlineExceeded, within.Err())
			return 9, nil
		})
		require.NoError(t, err)
		require.Equal(t, 9, v)

		ctx, cancel = context.WithCancel(t.Context())
		_, err = firebreak.Do(ctx, p.cmd, fail, func(within context.Context, _ error) (int, error) {
			cancel()
			return 0, within.Err()
		}, func(within context.Context, _ error) (int, error) {
			require.Error(t, within.Err())
			return 9, nil
		})
		require.NoError(t, err)
	})
}

func TestS20_ARefusedCallHasItsFallback(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
		var causes []error
		ask := func() {
			v, err := firebreak.Do(t.Context(), p.cmd, succeed, func(_ context.Context, cause error) (int, error) {
				causes = append(causes, cause)
				return 9, nil
			})
			require.NoError(t, err)
			require.Equal(t, 9, v)
		}
		p.occupy(time.Second)
		ask()
		p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		ask()
		shutDown(t, p)
		ask()
		require.Len(t, causes, 3)
		for i, reason := range []error{firebreak.ErrRejected, firebreak.ErrOpen, firebreak.ErrShutdown} {
			ours(reason, nil)(t, causes[i])
		}
		require.Equal(t, map[string]uint64{"Rejected": 1, "ShortCircuited": 1, "Shutdown": 1, "FallbackSuccess": 3}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

func TestS21_WhenAllFailTheErrorNamesThemAll(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		failing := func(err error) firebreak.Fallback[int] {
			return func(context.Context, error) (int, error) { return 0, err }
		}
		_, err := firebreak.Do(t.Context(), p.cmd, fail, failing(errCache))
		require.True(t, err.(*firebreak.Error).Fallback == errCache, "one is not joined")

		_, err = firebreak.Do(t.Context(), p.cmd, fail, failing(errCache), nil, failing(errNotFound))
		require.Equal(t, &firebreak.Error{Command: "cmd", Reason: firebreak.ErrFailed, Cause: errBoom, Fallback: errors.Join(errCache, errNotFound)}, err)
		for _, is := range []error{firebreak.ErrFailed, errBoom, errCache, errNotFound} {
			require.ErrorIs(t, err, is)
		}
		require.EqualError(t, err, "cmd: failed: boom; fallback: cache is empty\nnot found")

		_, err = firebreak.Do(t.Context(), p.cmd, heeds(0, errBoom), failing(errCache))
		e := err.(*firebreak.Error)
		require.True(t, e.Reason == firebreak.ErrTimeout)
		require.True(t, e.Fallback == errCache)
	})
}

// A fallback may call another command, which fails in its own way. Ours is found
// first, and RetryAt is ours.
func TestS21_OurErrorIsFoundBeforeTheFallbacks(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		backup := p.reg.Command("backup", firebreak.Config{SleepWindow: time.Hour})
		failUntilItOpens(t, p.cmd)
		failUntilItOpens(t, backup)
		_, err := firebreak.Do(t.Context(), p.cmd, succeed, func(ctx context.Context, _ error) (int, error) {
			return firebreak.Do(ctx, backup, succeed)
		})
		var first *firebreak.Error
		require.ErrorAs(t, err, &first)
		require.Equal(t, "cmd", first.Command)
		require.Equal(t, 5*time.Second, first.RetryAfter())
		var second *firebreak.Error
		require.ErrorAs(t, first.Fallback, &second)
		require.Equal(t, "backup", second.Command)
		require.Equal(t, time.Hour, second.RetryAfter())

		// The same where run's own failure is another command's error.
		p2 := newPlace(t, in, firebreak.Config{})
		_, err = firebreak.Do(t.Context(), p2.cmd, func(ctx context.Context) (int, error) {
			return firebreak.Do(ctx, backup, succeed)
		}, func(context.Context, error) (int, error) { return 0, errCache })
		require.Equal(t, &firebreak.Error{Command: "cmd", Reason: firebreak.ErrFailed, Cause: second, Fallback: errCache}, err)
		require.ErrorIs(t, err, firebreak.ErrOpen) // the inner one's reason: the first *Error tells whose it is
		require.Zero(t, err.(*firebreak.Error).RetryAt)
	})
}

// Whatever a fallback does, its permit comes back, and the end is counted.
func TestS22_AFallbackThatPanicsGivesItsPermitBack(t *testing.T) {
	for name, end := range map[string]func(){
		"panic":  func() { panic("boom") },
		"Goexit": runtime.Goexit,
	} {
		for _, recovers := range []firebreak.Switch{firebreak.Off, firebreak.On} {
			t.Run(fmt.Sprintf("%s/RecoverPanics=%d", name, recovers), func(t *testing.T) {
				inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
					p := newPlace(t, in, firebreak.Config{MaxFallbacks: 1, RecoverPanics: recovers})
					var events []firebreak.CallEvent
					p.reg.Observe(firebreak.Observer{Fallback: func(_ context.Context, e firebreak.CallEvent) { events = append(events, e) }})
					for i := range 3 {
						a := answerOf(func() (int, error) {
							return firebreak.Do(t.Context(), p.cmd, fail, func(context.Context, error) (int, error) {
								end()
								return 0, nil
							}, func(context.Context, error) (int, error) {
								t.Error("the next was asked")
								return 0, nil
							})
						})
						if name == "panic" {
							goesUp("boom")(t, a)
						} else {
							exits(t, a)
						}
						s := p.cmd.Snapshot()
						require.Zero(t, s.Fallbacks)
						n := uint64(i + 1)
						require.Equal(t, map[string]uint64{"Failure": n, "FallbackFailure": n}, counted(firebreak.Counts{}, s.Total))
						require.Equal(t, n, s.CallHistogram.Count)
						require.Len(t, events, i+1)
						require.Equal(t, firebreak.OutcomeFailure, events[i].Fallback)
					}
				})
			})
		}
	}
}

func TestStatic(t *testing.T) {
	p := newPlace(t, semaphores, firebreak.Config{})
	v, err := firebreak.Do(t.Context(), p.cmd, fail, firebreak.Static(9))
	require.NoError(t, err)
	require.Equal(t, 9, v)

	// The type is to be named where v alone does not say it.
	got, err := firebreak.Do(t.Context(), p.cmd, func(context.Context) (fmt.Stringer, error) { return nil, errBoom }, firebreak.Static[fmt.Stringer](time.Second))
	require.NoError(t, err)
	require.Equal(t, "1s", got.String())
	none, err := firebreak.Do(t.Context(), p.cmd, func(context.Context) ([]int, error) { return nil, errBoom }, firebreak.Static[[]int](nil))
	require.NoError(t, err)
	require.Nil(t, none)
}

func TestStaleAnswersTheLastGoodValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, semaphores, firebreak.Config{})
		next, err := 1, error(nil)
		run, stale := firebreak.Stale(func(context.Context) (int, error) { return next, err }, time.Minute)
		get := func() (int, error) { return firebreak.Do(t.Context(), p.cmd, run, stale) }

		err = errBoom
		v, got := get()
		require.ErrorIs(t, got, errBoom)
		require.ErrorContains(t, got, "no good value yet")
		require.Equal(t, 1, v, "run's value beside its error")

		err = nil
		for next = range 3 {
			v, got = get()
			require.NoError(t, got)
			require.Equal(t, next, v)
		}
		err, next = errBoom, 99 // a value beside an error is not good
		v, got = get()
		require.NoError(t, got)
		require.Equal(t, 2, v)

		time.Sleep(time.Minute) // just young enough
		v, got = get()
		require.NoError(t, got)
		require.Equal(t, 2, v)
		time.Sleep(time.Nanosecond)
		_, got = get()
		require.ErrorIs(t, got, errBoom)
		require.ErrorContains(t, got, "too old")

		err = nil
		_, got = get()
		require.NoError(t, got)
		err = errBoom
		v, got = get()
		require.NoError(t, got)
		require.Equal(t, 99, v)
	})
}

func TestStaleWithoutALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run, stale := firebreak.Stale(returns(7, nil), firebreak.Unlimited)
		_, err := stale(t.Context(), errBoom)
		require.Error(t, err)
		_, _ = run(t.Context())
		time.Sleep(1000 * time.Hour)
		v, err := stale(t.Context(), errBoom)
		require.NoError(t, err)
		require.Equal(t, 7, v)
	})
}

// A value is as old as the run that brought it: the run that began last has the
// freshest, whichever ends last.
func TestStaleKeepsWhatBeganLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		takes := make(chan time.Duration, 1)
		run, stale := firebreak.Stale(func(context.Context) (time.Duration, error) {
			d := <-takes
			time.Sleep(d)
			return d, nil
		}, time.Minute)
		var all sync.WaitGroup
		for _, d := range []time.Duration{30 * time.Second, 10 * time.Second} { // the second overtakes the first
			all.Go(func() { _, _ = run(t.Context()) })
			synctest.Wait()
			takes <- d
			time.Sleep(time.Second)
		}
		all.Wait()
		v, err := stale(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 10*time.Second, v)

		// It began at second 1, and this is second 30.
		time.Sleep(31 * time.Second)
		_, err = stale(t.Context(), nil)
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = stale(t.Context(), nil)
		require.ErrorContains(t, err, "too old")
	})
}

// A pair made outside a test bubble goes on inside, where it is decades earlier: what
// is good there is answered there.
func TestStaleInsideABubble(t *testing.T) {
	value := 1
	run, stale := firebreak.Stale(func(context.Context) (int, error) { return value, nil }, time.Minute)
	_, err := run(t.Context())
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		_, err := stale(t.Context(), nil)
		require.ErrorContains(t, err, "too old")
		value = 2
		_, err = run(t.Context())
		require.NoError(t, err)
		v, err := stale(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 2, v)
	})
}

func TestStaleUnderConcurrency(t *testing.T) {
	var n atomic.Int64
	run, stale := firebreak.Stale(func(context.Context) (int64, error) {
		if i := n.Add(1); i%3 != 0 {
			return i, nil
		}
		return 0, errBoom
	}, time.Hour)
	p := newPlace(t, semaphores, firebreak.Config{Mode: firebreak.ForceClosed})
	_, _ = run(t.Context())
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				v, err := firebreak.Do(t.Context(), p.cmd, run, stale)
				if err != nil || v == 0 {
					t.Errorf("%d, %v", v, err)
				}
			}
		})
	}
	all.Wait()
	got := total(p.cmd)
	require.NotZero(t, got.FallbackSuccess)
	require.Equal(t, got.Failure, got.FallbackSuccess)
}

func TestStalePanicsOnBadArguments(t *testing.T) {
	for _, age := range []time.Duration{0, -1, -3, -time.Second} {
		require.Panics(t, func() { firebreak.Stale(succeed, age) }, "%v", age)
	}
	require.Panics(t, func() { firebreak.Stale[int](nil, time.Second) })
	require.NotPanics(t, func() { firebreak.Stale(succeed, 1) })
	require.NotPanics(t, func() { firebreak.Stale(succeed, firebreak.Unlimited) })
}
