package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

type (
	seq     = iter.Seq2[int, error]
	streams = func(context.Context) seq        // run
	backups = func(context.Context, error) seq // a fallback
)

// an item of a stream that is written down: it comes after so long.
type item struct {
	after time.Duration
	v     int
	err   error
}

// yields is a run that is deaf to its context, and ends after the items.
func yields(items ...item) streams {
	return func(context.Context) seq { return seqOf(items...) }
}

func seqOf(items ...item) seq {
	return func(yield func(int, error) bool) {
		for _, i := range items {
			time.Sleep(i.after)
			if !yield(i.v, i.err) {
				return
			}
		}
	}
}

// counts is a run of n items, from 1, that come at once.
func counts(n int) streams {
	var items []item
	for i := range n {
		items = append(items, item{v: i + 1})
	}
	return yields(items...)
}

// backup is a fallback of these items.
func backup(items ...item) backups {
	return func(context.Context, error) seq { return seqOf(items...) }
}

// A streamed is what a loop over a stream got.
type streamed struct {
	items    []int
	beside   int // the error
	err      error
	panicked any
	exited   bool
}

// drained is a whole loop over a stream, on a goroutine of its own. Its error is the last thing
// that comes.
func drained(t *testing.T, s seq) streamed {
	t.Helper()
	var got streamed
	a := answerOf(func() (int, error) {
		for v, err := range s {
			require.NoError(t, got.err, "something came after the error")
			if err != nil {
				got.beside, got.err = v, err
				continue
			}
			got.items = append(got.items, v)
		}
		return 0, nil
	})
	got.panicked, got.exited = a.panicked, a.exited
	return got
}

// streaming is Stream as a verb. Its streams have no items: a value comes beside an
// error, or by another way.
func streaming(ctx context.Context, cmd *firebreak.Command, run func(context.Context) (int, error), fallback firebreak.Fallback[int]) (int, error) {
	value := 0
	var fallbacks []backups
	if fallback != nil {
		fallbacks = append(fallbacks, nil, func(ctx context.Context, cause error) seq {
			return func(yield func(int, error) bool) {
				v, err := fallback(ctx, cause)
				if err != nil {
					yield(v, err)
					return
				}
				value = v
			}
		})
	}
	for v, err := range firebreak.Stream(ctx, cmd, func(ctx context.Context) seq {
		return func(yield func(int, error) bool) {
			v, err := run(ctx)
			if err != nil {
				yield(v, err)
				return
			}
			value = v
		}
	}, fallbacks...) {
		return v, err
	}
	return value, nil
}

// ofAStream is the row as it is of a stream without items, or nil where that cannot be:
// it runs on its caller's goroutine, and in a pool it never waits.
func (row *outcomeRow) ofAStream(in firebreak.Isolation) *outcomeRow {
	if row.in == pools || in == pools && (row.config.MaxWait > 0 || row.config.QueueSize > 0) {
		return nil
	}
	r := *row
	switch row.name {
	case "success at the deadline", "late success": // its context had ended
		r.counted, r.health, r.overran, r.asks, r.value, r.err = "Timeout", "bad", false, true, 0, ours(firebreak.ErrTimeout, context.DeadlineExceeded)
	}
	return &r
}

// S64: the outcomes of a stream are Do's, in the same words. An end that comes too
// late is a timeout, as its context had ended.
func TestS64_AStreamWithoutItemsIsDo(t *testing.T) {
	for _, mode := range []struct {
		name           string
		given, answers bool
	}{{"without a fallback", false, false}, {"answered", true, true}, {"failed", true, false}} {
		for _, in := range []firebreak.Isolation{semaphores, pools} {
			for i := range outcomeRows {
				row := outcomeRows[i].ofAStream(in)
				if row == nil {
					continue
				}
				t.Run(mode.name+"/"+in.String()+"/"+row.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { requireOutcome(t, in, row, streaming, mode.given, mode.answers) })
				})
			}
		}
	}
}

func TestStreamPanicsOnNilArguments(t *testing.T) {
	var (
		noContext context.Context
		noCommand *firebreak.Command
		cmd       = newCommand(t, firebreak.Config{})
	)
	for name, call := range map[string]func(){
		"without a context": func() { firebreak.Stream(noContext, cmd, counts(1)) },
		"without a command": func() { firebreak.Stream(t.Context(), noCommand, counts(1)) },
		"without run":       func() { firebreak.Stream[int](t.Context(), cmd, nil) },
	} {
		require.Regexp(t, "^firebreak: .*needs", panicText(t, call), name)
	}
}

// S64: each range is one call, admitted when its loop begins; a range within a range
// too.
func TestS64_EachRangeIsACall(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 2})
		begun := 0
		s := firebreak.Stream(t.Context(), p.cmd, func(ctx context.Context) seq { begun++; return counts(3)(ctx) })
		require.Zero(t, begun)
		require.Zero(t, total(p.cmd))
		for n := range 2 {
			require.Equal(t, streamed{items: []int{1, 2, 3}}, drained(t, s))
			require.Equal(t, n+1, begun)
		}
		require.Equal(t, map[string]uint64{"Success": 2, "Emitted": 6}, counted(firebreak.Counts{}, total(p.cmd)))

		var pairs [][2]int
		for v, err := range s {
			require.NoError(t, err)
			for w, err := range s {
				require.NoError(t, err)
				require.Equal(t, 2, p.cmd.Snapshot().InFlight)
				for _, err := range s { // a third permit
					ours(firebreak.ErrRejected, nil)(t, err)
				}
				pairs = append(pairs, [2]int{v, w})
			}
		}
		require.Len(t, pairs, 9)
		require.Equal(t, map[string]uint64{"Success": 6, "Emitted": 18, "Rejected": 9, "FallbackMissing": 9}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// S49: in a pool it takes a permit, but no worker and no place in a queue, and runs on
// the ranging goroutine. At a semaphore it may wait.
func TestS49_AStreamTakesAPermitAndNoWorker(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, roomToWait(in))
		s := firebreak.Stream(t.Context(), p.cmd, counts(2))
		for _, err := range s {
			require.NoError(t, err)
			now := p.cmd.Snapshot()
			require.Equal(t, 1, now.InFlight)
			require.Equal(t, 1, now.Bulkhead.InFlight)
			require.Zero(t, workers())
		}
		p.occupy(time.Second)
		began, got := time.Now(), drained(t, s)
		if in == pools {
			ours(firebreak.ErrRejected, nil)(t, got.err)
			require.Equal(t, began, time.Now())
		} else {
			require.Equal(t, streamed{items: []int{1, 2}}, got)
			require.Equal(t, time.Second, time.Since(began))
		}
		time.Sleep(time.Second)
	})
}

// S64: however a loop is left after an item, the call is a success: the dependency was
// answering. The permit is back, run was told to stop, and its context has ended.
func TestS64_ALoopThatIsLeftIsASuccess(t *testing.T) {
	for _, recovers := range []firebreak.Switch{firebreak.Off, firebreak.On} {
		for name, row := range map[string]struct {
			loop func(s seq) (int, error)
			want answer
		}{
			"break": {func(s seq) (int, error) {
				for _, err := range s {
					if err == nil {
						break
					}
				}
				return 7, nil
			}, answer{value: 7}},
			"break at the second": {func(s seq) (int, error) {
				for v, err := range s {
					if v == 2 && err == nil {
						break
					}
				}
				return 7, nil
			}, answer{value: 7}},
			"return": {func(s seq) (int, error) {
				for v, err := range s {
					return v, err
				}
				return 7, nil
			}, answer{value: 1}},
			"an outer loop's continue": {func(s seq) (int, error) {
				n := 0
			outer:
				for range 1 {
					for v, err := range s {
						if err == nil {
							n += v
							continue outer
						}
					}
				}
				return n, nil
			}, answer{value: 1}},
			"panic": {func(s seq) (int, error) {
				for _, err := range s {
					panic(fmt.Sprint("the loop's ", err))
				}
				return 7, nil
			}, answer{panicked: "the loop's <nil>"}},
			"Goexit": {func(s seq) (int, error) {
				for _, err := range s {
					if err == nil {
						runtime.Goexit()
					}
				}
				return 7, nil
			}, answer{exited: true}},
		} {
			t.Run(fmt.Sprintf("%s/recovers=%v", name, recovers == firebreak.On), func(t *testing.T) {
				inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
					p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, RecoverPanics: recovers, ConsecutiveFailures: 1, SleepWindow: time.Second})
					for _, probe := range []bool{false, true} {
						if probe { // S64: neutral probes would never close a circuit
							_, _ = firebreak.Do(t.Context(), p.cmd, fail)
							time.Sleep(time.Second)
						}
						before := total(p.cmd)
						var within context.Context
						cleaned := false
						s := firebreak.Stream(t.Context(), p.cmd, func(ctx context.Context) seq {
							within = ctx
							return func(yield func(int, error) bool) {
								defer func() { cleaned = true }()
								for i := 1; yield(i, nil); i++ {
								}
							}
						}, func(context.Context, error) seq { t.Error("a fallback was asked"); return nil })
						require.Equal(t, row.want, answerOf(func() (int, error) { return row.loop(s) }))
						require.True(t, cleaned)
						require.Equal(t, context.Canceled, within.Err())
						got := counted(before, total(p.cmd))
						delete(got, "Emitted")
						require.Equal(t, map[string]uint64{"Success": 1}, got)
						require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
						requireAtRest(t, p.cmd)
					}
				})
			})
		}
	}
}

// Left when its caller's context is over, or after an hour in the loop's body: still a
// success.
func TestS64_TheLoopsOwnTimeIsNotCounted(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var within context.Context
		run := func(ctx context.Context) seq {
			within = ctx
			return yields(item{after: time.Second - 1, v: 1}, item{after: time.Second - 1, v: 2})(ctx)
		}
		for v, err := range firebreak.Stream(ctx, p.cmd, run) {
			require.NoError(t, err)
			time.Sleep(time.Hour)
			synctest.Wait()
			require.NoError(t, within.Err())
			if v == 2 {
				cancel()
				break
			}
		}
		require.Equal(t, map[string]uint64{"Success": 1, "Emitted": 2}, counted(firebreak.Counts{}, total(p.cmd)))
		require.Equal(t, 2*time.Second-2, p.cmd.Snapshot().RunHistogram.Sum)
	})
}

// S64: the timeout is for each wait: the first from the beginning, the others from the
// moment that the loop asks for more; for the end of the stream too.
func TestS64_TimeoutBoundsEachWait(t *testing.T) {
	const sooner, at, later = time.Second - 1, time.Second, time.Second + 1
	for _, row := range []struct {
		name    string
		timeout time.Duration
		items   []item
		end     time.Duration // and then the end
		want    []int
		late    bool
	}{
		{"the first, just before", 0, []item{{sooner, 1, nil}}, 0, []int{1}, false},
		{"the first, at the deadline", 0, []item{{at, 1, nil}}, 0, nil, true},
		{"the first, after it", 0, []item{{later, 1, nil}}, 0, nil, true},
		{"the first, long after it", 0, []item{{time.Hour, 1, nil}}, 0, nil, true},
		{"each just before", 0, []item{{sooner, 1, nil}, {sooner, 2, nil}, {sooner, 3, nil}}, sooner, []int{1, 2, 3}, false},
		{"one at the deadline", 0, []item{{sooner, 1, nil}, {at, 2, nil}}, 0, []int{1}, true},
		{"one after it", 0, []item{{0, 1, nil}, {0, 2, nil}, {later, 3, nil}}, 0, []int{1, 2}, true},
		{"no item, the end just before", 0, nil, sooner, nil, false},
		{"no item, the end at the deadline", 0, nil, at, nil, true},
		{"no item, the end after it", 0, nil, later, nil, true},
		{"the end at the deadline", 0, []item{{0, 1, nil}}, at, []int{1}, true},
		{"the end after it", 0, []item{{sooner, 1, nil}}, later, []int{1}, true},
		{"off", firebreak.Off, []item{{time.Hour, 1, nil}, {time.Hour, 2, nil}}, time.Hour, []int{1, 2}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{Timeout: row.timeout})
				got := streamed{}
				for v, err := range firebreak.Stream(t.Context(), p.cmd, func(ctx context.Context) seq {
					return func(yield func(int, error) bool) {
						for v, err := range seqOf(row.items...) {
							if !yield(v, err) {
								return
							}
						}
						time.Sleep(row.end)
					}
				}) {
					if err != nil {
						got.err = err
						continue
					}
					got.items = append(got.items, v)
					time.Sleep(3 * time.Second) // this is not counted
				}
				require.Equal(t, row.want, got.items)
				want := map[string]uint64{"Success": 1}
				if row.late {
					ours(firebreak.ErrTimeout, context.DeadlineExceeded)(t, got.err)
					want = map[string]uint64{"Timeout": 1}
					if row.want == nil {
						want["FallbackMissing"] = 1
					}
				} else {
					require.NoError(t, got.err)
				}
				if row.want != nil {
					want["Emitted"] = uint64(len(row.want))
				}
				counts := counted(firebreak.Counts{}, total(p.cmd))
				delete(counts, "Overran")
				require.Equal(t, want, counts)
			})
		})
	}
}

// Its context ends at the deadline of each wait, and not before. A run that hears of it
// may say so, say something else or just end: the stream ends with the timeout, never
// as if it were whole.
func TestS64_RunHearsOfTheTimeout(t *testing.T) {
	for name, says := range map[string]func(ctx context.Context, yield func(int, error) bool){
		"its context's error": func(ctx context.Context, yield func(int, error) bool) { yield(0, ctx.Err()) },
		"another error":       func(_ context.Context, yield func(int, error) bool) { yield(0, errBoom) },
		"nothing":             func(context.Context, func(int, error) bool) {},
		"an item":             func(_ context.Context, yield func(int, error) bool) { yield(9, nil) },
	} {
		for _, items := range []int{0, 2} {
			t.Run(fmt.Sprintf("%s, after %d items", name, items), func(t *testing.T) {
				inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
					p := newPlace(t, in, firebreak.Config{})
					var waited time.Duration
					s := firebreak.Stream(t.Context(), p.cmd, func(ctx context.Context) seq {
						return func(yield func(int, error) bool) {
							_, limited := ctx.Deadline()
							require.False(t, limited, "the deadline moves")
							for i := range items {
								yield(i, nil)
							}
							since := time.Now()
							<-ctx.Done()
							waited = time.Since(since)
							require.Equal(t, context.DeadlineExceeded, ctx.Err())
							require.Equal(t, firebreak.ErrTimeout, context.Cause(ctx))
							says(ctx, yield)
						}
					})
					var got []int
					var last error
					for v, err := range s {
						require.NoError(t, last)
						if last = err; err == nil {
							got = append(got, v)
							time.Sleep(400 * time.Millisecond) // so the timer fires before the deadline
						}
					}
					require.Equal(t, time.Second, waited)
					require.Len(t, got, items)
					require.ErrorIs(t, last, firebreak.ErrTimeout)
					require.Equal(t, name == "another error", errors.Is(last, errBoom))
					require.EqualValues(t, 1, total(p.cmd).Timeout)
					require.EqualValues(t, items, total(p.cmd).Emitted)
				})
			})
		}
	}
}

// The wait for a permit is part of the wait for the first item.
func TestTheWaitForAPermitCountsAgainstTheFirstItem(t *testing.T) {
	for after, want := range map[time.Duration]error{time.Second/2 - 1: nil, time.Second / 2: firebreak.ErrTimeout} {
		synctest.Test(t, func(t *testing.T) {
			p := newPlace(t, semaphores, firebreak.Config{MaxConcurrent: 1, MaxWait: time.Minute})
			p.occupy(time.Second / 2)
			got := drained(t, firebreak.Stream(t.Context(), p.cmd, yields(item{after: after, v: 1}, item{after: time.Second - 1, v: 2})))
			require.ErrorIs(t, got.err, want)
			require.Equal(t, want == nil, len(got.items) == 2)
		})
	}
}

// I14: another timeout, or RecoverPanics, is for the next loop.
func TestI14_ALoopKeepsItsSettings(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{Timeout: 5 * time.Second})
		put := func(d time.Duration) {
			require.NoError(t, p.reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{"cmd": {Timeout: d}}}))
		}
		s := firebreak.Stream(t.Context(), p.cmd, yields(item{time.Second / 2, 1, nil}, item{2 * time.Second, 2, nil}))
		var got []int
		for v, err := range s {
			require.NoError(t, err)
			got = append(got, v)
			put(time.Second)
		}
		require.Equal(t, []int{1, 2}, got)
		again := drained(t, s)
		require.Equal(t, []int{1}, again.items)
		require.ErrorIs(t, again.err, firebreak.ErrTimeout)
		for _, err := range s {
			put(firebreak.Off)
			if err != nil {
				require.ErrorIs(t, err, firebreak.ErrTimeout)
			}
		}
		require.NoError(t, drained(t, s).err)
	})
}

// S64: the first error is the call's and ends the stream; after an item no fallback is
// asked and none is missing.
func TestS64_TheFirstErrorIsTheCalls(t *testing.T) {
	for _, row := range []struct {
		name   string
		config firebreak.Config
		err    error
		after  time.Duration
		want   string
		check  func(*testing.T, error)
		asks   bool
	}{
		{"failure", firebreak.Config{}, errBoom, 0, "Failure", itself(errBoom), true},
		{"expected", firebreak.Config{Classify: firebreak.ExpectErrors(errNotFound)}, errNotFound, 0, "Expected", itself(errNotFound), false},
		{"marked", firebreak.Config{}, firebreak.Mark(errNotFound, firebreak.Expected), 0, "Expected", itself(errNotFound), false},
		{"ignored", firebreak.Config{}, firebreak.Mark(errNotFound, firebreak.Ignored), 0, "Ignored", itself(errNotFound), false},
		{"with a hint", firebreak.Config{}, firebreak.RetryAfter(errBoom, time.Hour), 0, "Failure", itself(errBoom), true},
		{"late", firebreak.Config{}, errBoom, time.Second, "Timeout", ours(firebreak.ErrTimeout, errBoom), true},
		{"late, though expected", firebreak.Config{}, firebreak.Mark(errNotFound, firebreak.Expected), time.Second, "Timeout", ours(firebreak.ErrTimeout, errNotFound), true},
		{"Classify panics, recovered", firebreak.Config{Classify: panicAtNotFound, RecoverPanics: firebreak.On}, errNotFound, 0, "Panic", panics("what is this?"), true},
	} {
		for _, items := range []int{0, 1, 3} {
			t.Run(fmt.Sprintf("%s, after %d items", row.name, items), func(t *testing.T) {
				inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
					p := newPlace(t, in, row.config)
					all := make([]item, items, items+1)
					all = append(all, item{row.after, 8, row.err})
					stopped := false
					run := func(context.Context) seq {
						return func(yield func(int, error) bool) {
							for _, i := range all {
								time.Sleep(i.after)
								if !yield(i.v, i.err) {
									stopped = true
									return
								}
							}
						}
					}
					got := drained(t, firebreak.Stream(t.Context(), p.cmd, run))
					require.True(t, stopped)
					require.Len(t, got.items, items)
					require.Equal(t, 8, got.beside, "S8: run's value comes beside its error")
					row.check(t, got.err)
					want := map[string]uint64{row.want: 1}
					if items > 0 {
						want["Emitted"] = uint64(items)
					} else if row.asks {
						want["FallbackMissing"] = 1
					}
					require.Equal(t, want, counted(firebreak.Counts{}, total(p.cmd)))

					before := total(p.cmd)
					var cause error
					got = drained(t, firebreak.Stream(t.Context(), p.cmd, run, nil, func(_ context.Context, err error) seq { cause = err; return seqOf(item{v: 99}) }))
					delete(want, "FallbackMissing")
					if row.asks && items == 0 {
						want["FallbackSuccess"] = 1
						require.Equal(t, streamed{items: []int{99}}, got)
						row.check(t, cause)
					} else {
						require.Len(t, got.items, items)
						row.check(t, got.err)
						require.NoError(t, cause)
					}
					require.Equal(t, want, counted(before, total(p.cmd)))
					requireAtRest(t, p.cmd)
				})
			})
		}
	}
}

// To a circuit: each verdict of a stream is what it is of a call.
func TestS64_StreamsMoveTheCircuit(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{ConsecutiveFailures: 2, SleepWindow: time.Second})
		stream := func(items ...item) { drained(t, firebreak.Stream(t.Context(), p.cmd, yields(items...))) }
		is := func(want firebreak.State) { t.Helper(); require.Equal(t, want, p.cmd.Snapshot().State) }
		bad := item{err: errBoom}
		stream(bad)
		stream(item{}) // resets
		stream(item{}, bad)
		stream(item{err: firebreak.Mark(errBoom, firebreak.Ignored)}) // does not
		is(firebreak.StateClosed)
		stream(item{after: 2 * time.Second})
		is(firebreak.StateOpen)
		s := p.cmd.Snapshot()
		require.Equal(t, "consecutive failures", s.Evidence.Rule)
		require.Contains(t, s.Evidence.LastError, "deadline")

		got := drained(t, firebreak.Stream(t.Context(), p.cmd, counts(1)))
		require.ErrorIs(t, got.err, firebreak.ErrOpen)
		time.Sleep(time.Second)
		stream(item{err: firebreak.Mark(errBoom, firebreak.Ignored)}) // a probe that says nothing
		is(firebreak.StateHalfOpen)
		stream(item{}, item{err: firebreak.RetryAfter(errBoom, 5*time.Second)}) // and one that fails
		is(firebreak.StateOpen)
		require.Equal(t, 5*time.Second, time.Until(p.cmd.Snapshot().Evidence.NextProbe))
		time.Sleep(5 * time.Second)
		for _, err := range firebreak.Stream(t.Context(), p.cmd, counts(2)) {
			require.NoError(t, err)
			is(firebreak.StateHalfOpen) // until the loop is left
			_, err = firebreak.Do(t.Context(), p.cmd, succeed)
			require.ErrorIs(t, err, firebreak.ErrOpen)
		}
		is(firebreak.StateClosed)
	})
}

// S30: a stream that takes long is slow, good or bad.
func TestSlowStreams(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		for _, row := range []struct {
			waits time.Duration
			state firebreak.State
		}{{time.Second / 4, firebreak.StateClosed}, {time.Second/4 + 1, firebreak.StateOpen}} {
			p := newPlace(t, in, firebreak.Config{SlowCallDuration: time.Second / 2, RequestVolumeThreshold: 2})
			for range 2 {
				got := drained(t, firebreak.Stream(t.Context(), p.cmd, yields(item{after: row.waits}, item{after: row.waits})))
				require.NoError(t, got.err)
			}
			require.Equal(t, row.state, p.cmd.Snapshot().State)
		}
	})
}

// S23, S24, S64: a panic of run goes on up with its own stack, wherever it comes; under
// RecoverPanics it is the last thing that the loop gets, if it still listens. What is
// counted is a panic. Goexit goes on, always.
func TestS64_RunThatPanics(t *testing.T) {
	thrown := map[string]func(){"panic": func() { panicDeepDown("run's") }, "Goexit": runtime.Goexit}
	for what, throw := range thrown {
		for where, row := range map[string]struct {
			run   streams
			items []int
			left  bool
		}{
			"before there is a sequence": {func(context.Context) seq { throw(); return nil }, nil, false},
			"before an item":             {func(context.Context) seq { return func(func(int, error) bool) { throw() } }, nil, false},
			"after an item": {func(context.Context) seq {
				return func(yield func(int, error) bool) { yield(1, nil); throw() }
			}, []int{1}, false},
			"long after its time": {func(context.Context) seq {
				return func(func(int, error) bool) { time.Sleep(time.Hour); throw() }
			}, nil, false},
			"after the loop was left": {func(context.Context) seq {
				return func(yield func(int, error) bool) {
					defer throw()
					yield(1, nil)
				}
			}, []int{1}, true},
		} {
			for _, recovers := range []firebreak.Switch{firebreak.Off, firebreak.On} {
				for _, given := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s/recovers=%v/given=%t", what, where, recovers == firebreak.On, given), func(t *testing.T) {
						inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
							p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, RecoverPanics: recovers})
							var fallbacks []backups
							asked := 0
							if given {
								fallbacks = append(fallbacks, func(_ context.Context, cause error) seq {
									asked++
									panics("run's")(t, cause)
									return seqOf(item{v: 99})
								})
							}
							var items []int
							var last error
							a := answerOf(func() (int, error) {
								for v, err := range firebreak.Stream(t.Context(), p.cmd, row.run, fallbacks...) {
									if last = err; err != nil {
										continue
									}
									items = append(items, v)
									if row.left {
										break
									}
								}
								return 7, nil
							})
							want := map[string]uint64{"Panic": 1}
							wantItems := row.items
							if row.items != nil {
								want["Emitted"] = 1
							}
							switch recovered := what == "panic" && recovers == firebreak.On; {
							case recovered && row.items == nil && given:
								want["FallbackSuccess"] = 1
								wantItems = []int{99}
								require.NoError(t, last)
							case recovered && row.left:
								require.NoError(t, last, "nobody listens any more")
							case recovered:
								if row.items == nil {
									want["FallbackMissing"] = 1
								}
								panics("run's")(t, last)
								require.Contains(t, string(last.(*firebreak.PanicError).Stack), "panicDeepDown")
							default:
								require.NoError(t, last)
							}
							switch {
							case what == "Goexit":
								exits(t, a)
							case recovers == firebreak.On:
								require.Equal(t, answer{value: 7}, a)
							default:
								goesUp("run's")(t, a)
							}
							require.Equal(t, wantItems, items)
							got := counted(firebreak.Counts{}, total(p.cmd))
							delete(got, "Overran")
							require.Equal(t, want, got)
							require.Equal(t, want["FallbackSuccess"], uint64(asked))
							requireAtRest(t, p.cmd)
						})
					})
				}
			}
		}
	}
}

// Where it has yielded its error already and throws as it cleans up, the failure is
// counted, and so is the end of its fallbacks: they used to be missing from the books,
// and with them the call's time.
func TestS64_RunThatPanicsBehindItsError(t *testing.T) {
	for what, throw := range map[string]func(){"panic": func() { panic("run's") }, "Goexit": runtime.Goexit} {
		for _, recovers := range []firebreak.Switch{firebreak.Off, firebreak.On} {
			t.Run(fmt.Sprintf("%s/recovers=%v", what, recovers == firebreak.On), func(t *testing.T) {
				inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
					p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, RecoverPanics: recovers})
					told := 0
					p.reg.Observe(firebreak.Observer{Fallback: func(context.Context, firebreak.CallEvent) { told++ }})
					run := func(context.Context) seq {
						return func(yield func(int, error) bool) {
							defer throw()
							yield(0, errBoom)
						}
					}
					got := drained(t, firebreak.Stream(t.Context(), p.cmd, run, backup(item{v: 99})))
					want := map[string]uint64{"Failure": 1, "FallbackFailure": 1}
					switch {
					case what == "Goexit":
						require.True(t, got.exited)
					case recovers == firebreak.On:
						want = map[string]uint64{"Failure": 1, "FallbackSuccess": 1}
						require.Equal(t, streamed{items: []int{99}}, got)
					default:
						require.Equal(t, streamed{panicked: "run's"}, got)
					}
					require.Equal(t, want, counted(firebreak.Counts{}, total(p.cmd)))
					require.Equal(t, 1, told)
					requireAtRest(t, p.cmd)
				})
			})
		}
	}
}

// A run that does not stop when it is told to, by an item or an error, meets a panic of
// the runtime's, which is its own.
func TestS64_RunThatDoesNotStop(t *testing.T) {
	for name, more := range map[string]error{"an item": nil, "an error": errBoom} {
		for first, behind := range map[string]error{"after the loop was left": nil, "after its error": errNotFound} {
			for _, recovers := range []firebreak.Switch{firebreak.Off, firebreak.On} {
				t.Run(fmt.Sprintf("%s %s/recovers=%v", name, first, recovers == firebreak.On), func(t *testing.T) {
					inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
						p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, RecoverPanics: recovers})
						seen := 0
						a := answerOf(func() (int, error) {
							for _, err := range firebreak.Stream(t.Context(), p.cmd, func(context.Context) seq {
								return func(yield func(int, error) bool) {
									yield(1, behind)
									yield(2, more)
								}
							}) {
								seen++
								require.Equal(t, behind == nil, err == nil)
								break
							}
							return 7, nil
						})
						want := map[string]uint64{"Panic": 1, "Emitted": 1}
						if behind != nil {
							want = map[string]uint64{"Failure": 1, "FallbackMissing": 1}
						}
						if recovers == firebreak.On {
							require.Equal(t, answer{value: 7}, a)
							require.Equal(t, 1, seen)
						} else {
							require.ErrorContains(t, a.panicked.(error), "range function continued iteration")
						}
						require.Equal(t, want, counted(firebreak.Counts{}, total(p.cmd)))
						requireAtRest(t, p.cmd)
					})
				})
			}
		}
	}
}

// One that swallows the panic of the loop's body cannot hide it: the runtime has it go
// on up. The dependency was answering all the same.
func TestS64_RunThatSwallowsTheLoopsPanic(t *testing.T) {
	for _, recovers := range []firebreak.Switch{firebreak.Off, firebreak.On} {
		for _, goesOn := range []bool{false, true} {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, RecoverPanics: recovers})
				a := answerOf(func() (int, error) {
					for _, err := range firebreak.Stream(t.Context(), p.cmd, func(context.Context) seq {
						return func(yield func(int, error) bool) {
							func() {
								defer func() { _ = recover() }()
								yield(1, nil)
							}()
							if goesOn {
								yield(2, nil)
							}
						}
					}) {
						panic(fmt.Sprint("the loop's ", err))
					}
					return 7, nil
				})
				require.NotNil(t, a.panicked)
				require.Equal(t, map[string]uint64{"Success": 1, "Emitted": 1}, counted(firebreak.Counts{}, total(p.cmd)))
				requireAtRest(t, p.cmd)
			})
		}
	}
}

// Classify is part of run: what it throws goes on up through run's sequence.
func TestS26_ClassifyPanicsInAStream(t *testing.T) {
	for name, classify := range map[string]func(error) firebreak.Verdict{"panic": panicAtNotFound, "Goexit": exitAtNotFound} {
		t.Run(name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, Classify: classify})
				got := drained(t, firebreak.Stream(t.Context(), p.cmd, yields(item{err: errNotFound}), backup(item{v: 99})))
				require.Equal(t, name == "Goexit", got.exited)
				require.Equal(t, name == "panic", got.panicked == "what is this?")
				require.Equal(t, map[string]uint64{"Panic": 1}, counted(firebreak.Counts{}, total(p.cmd)))
				requireAtRest(t, p.cmd)
			})
		})
	}
}

// A run that gives no sequence at all.
func TestARunWithoutASequence(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
		none := func(context.Context) seq { return nil }
		got := drained(t, firebreak.Stream(t.Context(), p.cmd, none))
		require.ErrorContains(t, got.panicked.(error), "nil pointer")
		got = drained(t, firebreak.Stream(t.Context(), p.cmd, yields(item{err: errBoom}), func(context.Context, error) seq { return nil }))
		require.ErrorContains(t, got.panicked.(error), "nil pointer")
		require.Equal(t, map[string]uint64{"Panic": 1, "Failure": 1, "FallbackFailure": 1}, counted(firebreak.Counts{}, total(p.cmd)))
		requireAtRest(t, p.cmd)
	})
}

// S64: before an item fallbacks are asked in order. One whose first yield is an error
// passes to the next; after an item its error ends the stream.
func TestS64_FallbacksBeforeAnItem(t *testing.T) {
	never := func(context.Context, error) seq { panic("one too many was asked") }
	refused := backup(item{err: errCache}, item{v: 5})
	for _, row := range []struct {
		name      string
		fallbacks []backups
		items     []int
		err       func(*testing.T, error)
		want      string
	}{
		{"items", []backups{backup(item{v: 1}, item{v: 2}), never}, []int{1, 2}, noError, "FallbackSuccess"},
		{"empty", []backups{backup(), never}, nil, noError, "FallbackSuccess"},
		{"nil ones, then items", []backups{nil, nil, backup(item{v: 1})}, []int{1}, noError, "FallbackSuccess"},
		{"it passes on", []backups{refused, nil, refused, backup(item{v: 1}), never}, []int{1}, noError, "FallbackSuccess"},
		{"it fails later", []backups{backup(item{v: 1}, item{v: 3, err: errCache}, item{v: 2}), never}, []int{1}, itself(errCache), "FallbackSuccess"},
		{"all pass on", []backups{refused, backup(item{err: errNotFound})}, nil, func(t *testing.T, err error) {
			e := err.(*firebreak.Error)
			require.Equal(t, firebreak.ErrFailed, e.Reason)
			require.True(t, e.Cause == errBoom)
			require.ErrorIs(t, e.Fallback, errCache)
			require.ErrorIs(t, e.Fallback, errNotFound)
		}, "FallbackFailure"},
		{"none", nil, nil, itself(errBoom), "FallbackMissing"},
		{"nil ones", []backups{nil, nil}, nil, itself(errBoom), "FallbackMissing"},
	} {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
				var events []firebreak.CallEvent
				p.reg.Observe(firebreak.Observer{Fallback: func(_ context.Context, e firebreak.CallEvent) { events = append(events, e) }})
				ctx := context.WithValue(t.Context(), contextKey("user"), "ada")
				var fallbacks []backups
				for _, f := range row.fallbacks {
					if f == nil {
						fallbacks = append(fallbacks, nil)
						continue
					}
					fallbacks = append(fallbacks, func(within context.Context, cause error) seq {
						require.True(t, within == ctx, "the caller's context")
						require.True(t, cause == errBoom)
						s := p.cmd.Snapshot()
						require.Equal(t, 1, s.Fallbacks)
						require.Zero(t, s.Bulkhead.InFlight, "it holds no permit")
						return f(within, cause)
					})
				}
				s := firebreak.Stream(ctx, p.cmd, yields(item{v: 8, err: errBoom}), fallbacks...)
				for range 2 {
					before := total(p.cmd)
					events = nil
					got := drained(t, s)
					require.Equal(t, row.items, got.items)
					row.err(t, got.err)
					if got.err != nil && row.items == nil {
						require.Equal(t, 8, got.beside, "run's value, not that of a fallback that failed")
					}
					require.Equal(t, map[string]uint64{"Failure": 1, row.want: 1}, counted(before, total(p.cmd)), "no item of a fallback's is Emitted")
					require.Equal(t, row.want != "FallbackMissing", len(events) == 1)
				}
			})
		})
	}
}

// A loop that is left in a fallback, or throws there, was answered; a fallback that
// throws has failed, also after its items. The permit of MaxFallbacks comes back.
func TestS64_FallbacksThatAreLeft(t *testing.T) {
	three := backup(item{v: 1}, item{v: 2}, item{v: 3})
	throwing := func(items int, throw func()) backups {
		return func(context.Context, error) seq {
			return func(yield func(int, error) bool) {
				for i := range items {
					yield(i, nil)
				}
				throw()
			}
		}
	}
	boom := func() { panic("a fallback's") }
	for _, row := range []struct {
		name string
		fall backups
		body func() bool // false: break
		want answer
		ends string
	}{
		{"break", three, func() bool { return false }, answer{value: 7}, "FallbackSuccess"},
		{"panic", three, func() bool { panic("the loop's") }, answer{panicked: "the loop's"}, "FallbackSuccess"},
		{"Goexit", three, func() bool { runtime.Goexit(); return false }, answer{exited: true}, "FallbackSuccess"},
		{"panic at the error of a fallback", backup(item{v: 1}, item{err: errCache}), nil, answer{panicked: "at the error"}, "FallbackSuccess"},
		{"it panics", throwing(0, boom), nil, answer{panicked: "a fallback's"}, "FallbackFailure"},
		{"it panics after items", throwing(2, boom), nil, answer{panicked: "a fallback's"}, "FallbackFailure"},
		{"it exits", throwing(0, runtime.Goexit), nil, answer{exited: true}, "FallbackFailure"},
		{"it exits after items", throwing(2, runtime.Goexit), nil, answer{exited: true}, "FallbackFailure"},
	} {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				for _, refused := range []bool{false, true} {
					p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, MaxFallbacks: 1, RecoverPanics: firebreak.On})
					outcome := "Failure"
					if refused {
						p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
						outcome = "ShortCircuited"
					}
					for range 2 {
						before := total(p.cmd)
						require.Equal(t, row.want, answerOf(func() (int, error) {
							for _, err := range firebreak.Stream(t.Context(), p.cmd, yields(item{err: errBoom}), row.fall) {
								if err != nil {
									panic("at the error")
								}
								if row.body != nil && !row.body() {
									break
								}
							}
							return 7, nil
						}))
						require.Equal(t, map[string]uint64{outcome: 1, row.ends: 1}, counted(before, total(p.cmd)))
						requireAtRest(t, p.cmd)
					}
				}
			})
		})
	}
}

// S19: within MaxFallbacks, for as long as the fallback is looped over.
func TestS19_AStreamsFallbacksAreLimited(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxFallbacks: 1})
		s := firebreak.Stream(t.Context(), p.cmd, yields(item{err: errBoom}), backup(item{v: 1}))
		for _, err := range s {
			require.NoError(t, err)
			got := drained(t, s)
			require.Empty(t, got.items)
			require.ErrorIs(t, got.err, firebreak.ErrFallbackRejected)
			require.ErrorIs(t, got.err, errBoom)
		}
		require.Equal(t, map[string]uint64{"Failure": 2, "FallbackSuccess": 1, "FallbackRejected": 1}, counted(firebreak.Counts{}, total(p.cmd)))
		require.Equal(t, []int{1}, drained(t, s).items)
	})
}

// What was given when Stream was called is asked, whatever becomes of the slice.
func TestStreamKeepsItsFallbacks(t *testing.T) {
	p := newPlace(t, semaphores, firebreak.Config{})
	fallbacks := []backups{backup(item{v: 7})}
	s := firebreak.Stream(t.Context(), p.cmd, yields(item{err: errBoom}), fallbacks...)
	fallbacks[0] = nil
	require.Equal(t, streamed{items: []int{7}}, drained(t, s))
}

// A refused loop has one thing to say, and run is not called.
func TestS64_ARefusedStream(t *testing.T) {
	for name, refuse := range refusals {
		for _, in := range []firebreak.Isolation{semaphores, pools} {
			t.Run(in.String()+"/"+name, func(t *testing.T) {
				p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
				ctx := refuse(t, p)
				_, want := firebreak.Do(ctx, p.cmd, succeed)
				require.Error(t, want)
				doing := counted(firebreak.Counts{}, total(p.cmd))
				before := total(p.cmd)
				never := func(context.Context) seq { panic("run was called") }
				got := drained(t, firebreak.Stream(ctx, p.cmd, never))
				require.Empty(t, got.items)
				require.True(t, got.err == want, "%v", got.err)
				require.Equal(t, doing, counted(before, total(p.cmd)))
				for _, err := range firebreak.Stream(ctx, p.cmd, never) {
					require.Error(t, err)
					break // it may be left there
				}
				got = drained(t, firebreak.Stream(ctx, p.cmd, never, backup(item{v: 9})))
				if name == "gave up" {
					require.True(t, got.err == want)
				} else {
					require.Equal(t, streamed{items: []int{9}}, got)
				}
			})
		}
	}
}

// The caller's end, at each point of a stream: S10 decides between it and the timeout.
func TestS64_TheCallersEnd(t *testing.T) {
	for _, row := range []struct {
		name  string
		ctx   func(context.Context) (context.Context, context.CancelFunc)
		items []item
		ends  error // run's, when its context has ended; nil: it just ends
		want  string
		err   error
	}{
		{"canceled before the first item", canceledAfter(time.Second / 2), nil, errBoom, "Canceled", context.Canceled},
		{"canceled before the first item, and run says so", canceledAfter(time.Second / 2), nil, errReading, "Canceled", errReading},
		{"canceled between items", canceledAfter(time.Second), []item{{after: time.Second / 2}}, errBoom, "Canceled", context.Canceled},
		{"canceled just before the deadline of an item", canceledAfter(3*time.Second/2 - 1), []item{{after: time.Second / 2}}, errBoom, "Canceled", context.Canceled},
		{"canceled just after it", canceledAfter(3*time.Second/2 + 1), []item{{after: time.Second / 2}}, errBoom, "Timeout", firebreak.ErrTimeout},
		{"its deadline comes first", deadlineAfter(3*time.Second/2 - 1), []item{{after: time.Second / 2}}, errBoom, "CallerDeadline", context.DeadlineExceeded},
		{"both deadlines at once", deadlineAfter(3 * time.Second / 2), []item{{after: time.Second / 2}}, errBoom, "Timeout", firebreak.ErrTimeout},
		{"an end without an error is one, as of Do", canceledAfter(time.Second / 2), nil, nil, "Success", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{})
				ctx, cancel := row.ctx(t.Context())
				defer cancel()
				got := drained(t, firebreak.Stream(ctx, p.cmd, func(ctx context.Context) seq {
					return func(yield func(int, error) bool) {
						for v, err := range seqOf(row.items...) {
							yield(v, err)
						}
						<-ctx.Done()
						if row.ends != nil {
							yield(0, row.ends)
						}
					}
				}))
				require.Len(t, got.items, len(row.items))
				if row.err == firebreak.ErrTimeout {
					require.ErrorIs(t, got.err, row.err)
				} else {
					require.True(t, got.err == row.err, "%v", got.err)
				}
				want := map[string]uint64{row.want: 1}
				if len(row.items) > 0 {
					want["Emitted"] = uint64(len(row.items))
				}
				require.Equal(t, want, counted(firebreak.Counts{}, total(p.cmd)))
				time.Sleep(time.Second)
			})
		})
	}
}

// Canceled in the loop's body: the item was there. What comes then is run's to say.
func TestACancelInTheLoopsBody(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last error
		for _, err := range firebreak.Stream(ctx, p.cmd, func(ctx context.Context) seq {
			return func(yield func(int, error) bool) {
				for ctx.Err() == nil {
					yield(1, nil)
				}
				yield(0, ctx.Err())
			}
		}) {
			last = err
			cancel()
			synctest.Wait()
		}
		require.True(t, last == context.Canceled)
		require.Equal(t, map[string]uint64{"Canceled": 1, "Emitted": 1}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// What observers are told of a stream: once, with its outcome, before its fallbacks.
func TestS60_WhatIsToldOfAStream(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		var events []firebreak.CallEvent
		ctx := context.WithValue(t.Context(), contextKey("user"), "ada")
		tell := func(within context.Context, e firebreak.CallEvent) {
			require.True(t, within == ctx)
			e.Dependency, e.Command = "", ""
			events = append(events, e)
		}
		p.reg.Observe(firebreak.Observer{Call: tell, Fallback: tell, Overrun: tell})
		half := time.Second / 2
		for _, row := range []struct {
			items []item
			falls []backups
			want  []firebreak.CallEvent
		}{
			{[]item{{after: half}, {after: half}}, nil, []firebreak.CallEvent{{Outcome: firebreak.OutcomeSuccess, Run: time.Second, Call: time.Second}}},
			{[]item{{after: half}, {after: half, err: errBoom}}, []backups{backup()}, []firebreak.CallEvent{
				{Outcome: firebreak.OutcomeFailure, Err: errBoom, Run: time.Second, Call: time.Second},
			}},
			{[]item{{after: half, err: errBoom}}, []backups{backup(item{after: half})}, []firebreak.CallEvent{
				{Outcome: firebreak.OutcomeFailure, Err: errBoom, Run: half, Call: half},
				{Outcome: firebreak.OutcomeFailure, Fallback: firebreak.OutcomeSuccess, Run: half, Call: time.Second},
			}},
		} {
			events = nil
			for _, err := range firebreak.Stream(ctx, p.cmd, yields(row.items...), row.falls...) {
				if err == nil {
					require.Less(t, len(events), len(row.want), "it is not over")
				}
				time.Sleep(time.Second)
			}
			require.Equal(t, row.want, events)
		}
	})
}

// S72: Shutdown waits for a stream until its loop is left, and cancels nothing.
func TestS72_ShutdownWaitsForAStream(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		next, stop := iter.Pull2(firebreak.Stream(t.Context(), p.cmd, counts(3)))
		v, err, ok := next()
		require.True(t, ok)
		require.NoError(t, err)
		require.Equal(t, 1, v)
		s := beginShutdown(t.Context(), p.reg)
		require.ErrorContains(t, p.reg.Shutdown(canceled(t)), "cmd: 1 in flight for at least 0s")
		v, err, _ = next()
		require.NoError(t, err)
		require.Equal(t, 2, v)
		s.waits(t)
		stop()
		require.NoError(t, s.result(t))
		require.Equal(t, map[string]uint64{"Success": 1, "Emitted": 2}, counted(firebreak.Counts{}, total(p.cmd)))
		require.ErrorIs(t, drained(t, firebreak.Stream(t.Context(), p.cmd, counts(3))).err, firebreak.ErrShutdown)
	})
}

// A pulled stream: its call begins with the first next and ends with stop, or with its
// end.
func TestAPulledStream(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
		s := firebreak.Stream(t.Context(), p.cmd, yields(item{after: time.Second - 1, v: 1}, item{after: time.Second - 1, v: 2}))
		next, stop := iter.Pull2(s)
		time.Sleep(time.Hour)
		require.Zero(t, p.cmd.Snapshot().InFlight)
		for want := range 2 {
			v, err, ok := next()
			require.True(t, ok)
			require.NoError(t, err)
			require.Equal(t, want+1, v)
			require.Equal(t, 1, p.cmd.Snapshot().InFlight)
			time.Sleep(time.Hour)
		}
		_, _, ok := next()
		require.False(t, ok)
		require.Zero(t, p.cmd.Snapshot().InFlight)
		stop()

		_, stop = iter.Pull2(s)
		stop()
		next, stop = iter.Pull2(s)
		_, _, _ = next()
		stop()
		stop()
		require.Equal(t, map[string]uint64{"Success": 2, "Emitted": 3}, counted(firebreak.Counts{}, total(p.cmd)))
		requireAtRest(t, p.cmd)
	})
}

// S39: Inject stands where run would, under the call's timeout and RecoverPanics; what
// it lets pass is run's own.
func TestInjectInAStream(t *testing.T) {
	for name, row := range map[string]struct {
		inject func(context.Context) error
		want   map[string]uint64
		asks   bool
		err    func(*testing.T, error)
		goesUp any
	}{
		"nil":                {func(context.Context) error { return nil }, map[string]uint64{"Success": 1, "Emitted": 3}, false, noError, nil},
		"an error":           {func(context.Context) error { return errBoom }, map[string]uint64{"Failure": 1}, true, itself(errBoom), nil},
		"an expected error":  {func(context.Context) error { return firebreak.Mark(errBoom, firebreak.Expected) }, map[string]uint64{"Expected": 1}, false, itself(errBoom), nil},
		"ErrOpen":            {func(context.Context) error { return firebreak.ErrOpen }, map[string]uint64{"ShortCircuited": 1}, true, ours(firebreak.ErrOpen, nil), nil},
		"ErrRejected":        {func(context.Context) error { return firebreak.ErrRejected }, map[string]uint64{"Rejected": 1}, true, ours(firebreak.ErrRejected, nil), nil},
		"ErrTimeout":         {func(context.Context) error { return firebreak.ErrTimeout }, map[string]uint64{"Timeout": 1}, true, ours(firebreak.ErrTimeout, nil), nil},
		"it waits":           {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, map[string]uint64{"Timeout": 1}, true, ours(firebreak.ErrTimeout, context.DeadlineExceeded), nil},
		"a panic":            {func(context.Context) error { panic("boom") }, map[string]uint64{"Panic": 1}, false, nil, "boom"},
		"a panic, recovered": {func(context.Context) error { panic("boom") }, map[string]uint64{"Panic": 1}, true, panics("boom"), nil},
	} {
		for _, given := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/given=%t", name, given), func(t *testing.T) {
				inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
					c := firebreak.Config{MaxConcurrent: 1}
					if name == "a panic, recovered" {
						c.RecoverPanics = firebreak.On
					}
					p := newPlace(t, in, c)
					p.cmd.Override(firebreak.Override{Inject: row.inject})
					want := maps.Clone(row.want)
					var cause error
					var fallbacks []backups
					if given {
						fallbacks = append(fallbacks, func(_ context.Context, err error) seq { cause = err; return seqOf(item{v: 9}) })
					}
					got := drained(t, firebreak.Stream(t.Context(), p.cmd, counts(3), fallbacks...))
					switch {
					case row.goesUp != nil:
						require.Equal(t, row.goesUp, got.panicked)
					case row.asks && given:
						want["FallbackSuccess"] = 1
						require.Equal(t, streamed{items: []int{9}}, got)
						row.err(t, cause)
					default:
						if row.asks {
							want["FallbackMissing"] = 1
						}
						row.err(t, got.err)
					}
					require.Equal(t, want, counted(firebreak.Counts{}, total(p.cmd)))
					requireAtRest(t, p.cmd)

					p.cmd.Override(firebreak.Override{Inject: func(context.Context) error { return nil }})
					require.True(t, drained(t, firebreak.Stream(t.Context(), p.cmd, yields(item{}, item{err: firebreak.ErrOpen}))).err == firebreak.ErrOpen)
				})
			})
		}
	}
}

// An observer that calls Goexit ends the ranging goroutine, and keeps nothing.
func TestS60_AnObserverThatCallsGoexitWedgesNoStream(t *testing.T) {
	for _, what := range []string{"transition", "call", "fallback", "overrun"} {
		for name, run := range map[string]streams{
			"success": counts(2), "failure": yields(item{err: errBoom}), "failure after an item": yields(item{}, item{err: errBoom}),
			"timeout": yields(item{after: 2 * time.Second}), "panic": func(context.Context) seq { panic("boom") },
		} {
			t.Run(what+"/"+name, func(t *testing.T) {
				inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
					for _, recovers := range []firebreak.Switch{firebreak.Off, firebreak.On} {
						p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, MaxFallbacks: 1, ConsecutiveFailures: 1, RecoverPanics: recovers})
						stop := p.reg.Observe(exitAt(what))
						for range 3 {
							answerOf(func() (int, error) {
								for _, err := range firebreak.Stream(t.Context(), p.cmd, run, backup(item{v: 9})) {
									if err != nil {
										return 0, err
									}
								}
								return 0, nil
							})
							time.Sleep(5 * time.Second) // a probe is due
						}
						stop()
						requireAtRest(t, p.cmd)
						c := total(p.cmd)
						require.NotZero(t, c.Calls())
						require.LessOrEqual(t, c.FallbackSuccess+c.FallbackFailure, c.Calls())
						require.NoError(t, p.reg.Shutdown(canceled(t)))
					}
				})
			})
		}
	}
}

// S73: a handle that was kept after its key made way is good for a stream too.
func TestS73_AStreamUnderACommandThatMadeWay(t *testing.T) {
	for _, in := range []firebreak.Isolation{semaphores, pools} {
		synctest.Test(t, func(t *testing.T) {
			_, k := newKeyed(t, 1, firebreak.Config{Isolation: in})
			s := firebreak.Stream(t.Context(), k.Command("a"), counts(2))
			for _, err := range s {
				require.NoError(t, err)
				time.Sleep(time.Minute) // it is in use
				require.False(t, hasPlace(k, "b"))
			}
			time.Sleep(time.Minute)
			require.True(t, hasPlace(k, "b"))
			require.Len(t, drained(t, s).items, 2)
			require.Equal(t, map[string]uint64{"Success": 2, "Emitted": 4}, counted(firebreak.Counts{}, k.Snapshot().Total))
		})
	}
}

// One sequence may be looped over by many at once: what is counted is what they saw.
func TestStreamsUnderStress(t *testing.T) {
	for _, in := range []firebreak.Isolation{semaphores, pools} {
		t.Run(in.String(), func(t *testing.T) {
			const callers, loops = 8, 150
			p := newPlace(t, in, firebreak.Config{MaxConcurrent: 6, Timeout: time.Minute, Mode: firebreak.ForceClosed, RecoverPanics: firebreak.On})
			var begun, emitted, asked, n atomic.Int64
			s := firebreak.Stream(t.Context(), p.cmd, func(context.Context) seq {
				begun.Add(1)
				how := n.Add(1)
				return func(yield func(int, error) bool) {
					for range how % 5 {
						runtime.Gosched()
						if !yield(1, nil) {
							return
						}
					}
					switch how % 3 {
					case 0:
						yield(0, errBoom)
					case 1:
						panic("boom")
					}
				}
			}, func(context.Context, error) seq { asked.Add(1); return seqOf(item{v: -1}, item{v: -1}) })
			var all sync.WaitGroup
			for i := range callers {
				all.Go(func() {
					for range loops {
						seen := 0
						for v, err := range s {
							if v == 1 && err == nil {
								emitted.Add(1)
							}
							if seen++; seen > i {
								break
							}
						}
					}
				})
			}
			all.Wait()
			c := total(p.cmd)
			require.EqualValues(t, callers*loops, c.Calls())
			require.EqualValues(t, begun.Load(), c.Executed())
			require.EqualValues(t, emitted.Load(), c.Emitted)
			require.EqualValues(t, asked.Load(), c.FallbackSuccess)
			require.Zero(t, c.FallbackMissing+c.FallbackFailure)
			requireAtRest(t, p.cmd)
		})
	}
}

// An item costs no timer, nor anything else of the heap.
func TestAnItemAllocatesNothing(t *testing.T) {
	p := newPlace(t, semaphores, firebreak.Config{Timeout: time.Hour})
	loop := func(items int) int {
		s := firebreak.Stream(t.Context(), p.cmd, func(context.Context) seq {
			return func(yield func(int, error) bool) {
				for i := 0; i < items && yield(i, nil); i++ {
				}
			}
		})
		times, _ := allocates(func() {
			for _, err := range s {
				require.NoError(t, err)
			}
		})
		return times
	}
	require.Equal(t, loop(1), loop(100))
}

// S64: the loop's own time is none of the dependency's, in the latencies as in what is
// slow; also where the loop ends by a panic, or goes over a fallback's items.
func TestS64_TheLoopsTimeIsNotTheCalls(t *testing.T) {
	for name, row := range map[string]struct {
		run  func(context.Context) iter.Seq2[int, error]
		loop func(i int)
	}{
		"to the end": {run: everySecond(3, nil), loop: func(int) { time.Sleep(time.Hour) }},
		"an error":   {run: everySecond(2, errBoom), loop: func(int) { time.Sleep(time.Hour) }},
		"it is left": {run: everySecond(9, nil), loop: func(i int) {
			time.Sleep(time.Hour)
			if i == 2 {
				panic("left")
			}
		}},
		"of a fallback's": {run: everySecond(0, errBoom), loop: func(int) { time.Sleep(time.Hour) }},
	} {
		t.Run(name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{Timeout: 5 * time.Second, SlowCallDuration: 4 * time.Second, RequestVolumeThreshold: 1, ErrorThresholdPercentage: firebreak.Off, Window: 24 * time.Hour})
				func() {
					defer func() { _ = recover() }()
					items := firebreak.Stream(t.Context(), p.cmd, row.run, func(context.Context, error) iter.Seq2[int, error] {
						return everySecond(2, nil)(t.Context())
					})
					for i, err := range items {
						if err == nil {
							row.loop(i)
						}
					}
				}()
				s := p.cmd.Snapshot()
				require.Equal(t, firebreak.StateClosed, s.State, "nothing was slow")
				require.LessOrEqual(t, s.RunHistogram.Sum, 3*time.Second)
				require.Positive(t, s.RunHistogram.Sum)
				require.LessOrEqual(t, s.CallHistogram.Sum, 3*time.Second)
				require.GreaterOrEqual(t, s.CallHistogram.Sum, s.RunHistogram.Sum)
			})
		})
	}
}

// everySecond yields n items, a second before each, and then an error a second later,
// if there is one.
func everySecond(n int, err error) func(context.Context) iter.Seq2[int, error] {
	return func(context.Context) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i := range n {
				time.Sleep(time.Second)
				if !yield(i, nil) {
					return
				}
			}
			if err != nil {
				time.Sleep(time.Second)
				yield(0, err)
			}
		}
	}
}
