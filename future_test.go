package firebreak_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// going is Go as a verb.
func going(ctx context.Context, cmd *firebreak.Command, run func(context.Context) (int, error), fallback firebreak.Fallback[int]) (int, error) {
	return firebreak.Go(ctx, cmd, run, nil, fallback).Wait(context.Background())
}

// ofAFuture is the row as it is where no goroutine of a caller's runs: what went on up
// there is an error here, and with RecoverPanics even Goexit has fallbacks asked.
func (row *outcomeRow) ofAFuture() *outcomeRow {
	r := *row
	switch row.name {
	case "panic":
		r.err = panics("boom")
	case "Goexit", "Classify calls Goexit":
		r.err = panics(nil)
	case "Goexit, which nothing recovers":
		r.err, r.asks = panics(nil), true
	case "Classify panics":
		r.err, r.value = panics("what is this?"), 7
	default:
		return row
	}
	r.goesUp = nil
	return &r
}

// S61: every outcome, in the words of Do's own test.
func TestS61_GoIsDo(t *testing.T) {
	for _, mode := range []struct {
		name           string
		given, answers bool
	}{{"without a fallback", false, false}, {"answered", true, true}, {"failed", true, false}} {
		t.Run(mode.name, func(t *testing.T) {
			eachOutcome(t, func(t *testing.T, in firebreak.Isolation, row *outcomeRow) {
				requireOutcome(t, in, row.ofAFuture(), going, mode.given, mode.answers)
			})
		})
	}
}

// A sight is all that can be seen of one call.
type sight struct {
	value    int
	err      string
	took     time.Duration
	counts   map[string]uint64
	state    firebreak.State
	bad      float64 // ErrorPercentage
	latency  time.Duration
	asked    []string // the causes that fallbacks saw
	events   []string
	ofCaller bool // observers and fallbacks had the caller's context
}

// sightOf makes the row's call in a bubble of its own.
func (row *outcomeRow) sightOf(t *testing.T, in firebreak.Isolation, limit int, fallbacks []firebreak.Fallback[int],
	how func(context.Context, *firebreak.Command, func(context.Context) (int, error), ...firebreak.Fallback[int]) (int, error),
) (s sight) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := row.config
		c.MaxFallbacks = limit
		p := newPlace(t, in, c)
		if limit == 1 { // it is taken
			all := context.Background()
			go func() { _, _ = firebreak.Do(all, p.cmd, fail, answering(time.Hour, 0, nil)) }()
			synctest.Wait()
		}
		if row.before != nil {
			row.before(t, p)
		}
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		if row.ctx != nil {
			ctx, cancel = row.ctx(ctx)
		}
		defer cancel()
		var mu sync.Mutex
		s.ofCaller = true
		tell := func(what string) func(context.Context, firebreak.CallEvent) {
			return func(within context.Context, e firebreak.CallEvent) {
				if e.Command != "cmd" {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				s.ofCaller = s.ofCaller && within == ctx
				s.events = append(s.events, fmt.Sprint(what, e.Outcome, e.Fallback, e.Err, e.Run, e.Call))
			}
		}
		stop := p.reg.Observe(firebreak.Observer{Call: tell("call"), Fallback: tell("fallback"), Overrun: tell("overrun")})
		var watched []firebreak.Fallback[int]
		for _, f := range fallbacks {
			if f == nil {
				watched = append(watched, nil)
				continue
			}
			watched = append(watched, func(within context.Context, cause error) (int, error) {
				mu.Lock()
				s.ofCaller = s.ofCaller && within == ctx
				s.asked = append(s.asked, fmt.Sprintf("%T %v", cause, cause))
				mu.Unlock()
				return f(within, cause)
			})
		}
		before, began := total(p.cmd), time.Now()
		v, err := how(ctx, p.cmd, func(ctx context.Context) (int, error) { return row.run(ctx) }, watched...)
		s.value, s.err, s.took = v, fmt.Sprintf("%T %v", err, err), time.Since(began)
		time.Sleep(2 * time.Second) // whatever goes on is over
		synctest.Wait()
		then := p.cmd.Snapshot()
		s.counts, s.state, s.bad, s.latency = counted(before, then.Total), then.State, then.ErrorPercentage, then.CallHistogram.Sum
		stop()
		time.Sleep(time.Hour)
	})
	return s
}

// S61: the same again, side by side: the same answer, in the same time, with the same
// counts, and told in the same events, whatever the fallbacks do.
func TestS61_GoAndDoSideBySide(t *testing.T) {
	slow := answering(time.Second, 9, nil)
	fails := answering(time.Millisecond, 8, errCache)
	for name, chain := range map[string]struct {
		limit     int
		fallbacks []firebreak.Fallback[int]
	}{
		"none":         {0, nil},
		"nil ones":     {0, []firebreak.Fallback[int]{nil, nil}},
		"an answer":    {0, []firebreak.Fallback[int]{nil, fails, slow, fails}},
		"failures":     {0, []firebreak.Fallback[int]{fails, nil, fails}},
		"none may run": {firebreak.Off, []firebreak.Fallback[int]{slow}},
		"too many":     {1, []firebreak.Fallback[int]{slow}},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range outcomeRows {
				row := &outcomeRows[i]
				if row.goesUp != nil || row.name == "run hears of the deadline, in a pool" { // whoever is first
					continue
				}
				for _, in := range []firebreak.Isolation{semaphores, pools} {
					if row.in != 0 && row.in != in {
						continue
					}
					t.Run(in.String()+"/"+row.name, func(t *testing.T) {
						do := row.sightOf(t, in, chain.limit, chain.fallbacks, firebreak.Do[int])
						future := row.sightOf(t, in, chain.limit, chain.fallbacks,
							func(ctx context.Context, cmd *firebreak.Command, run func(context.Context) (int, error), fallbacks ...firebreak.Fallback[int]) (int, error) {
								return firebreak.Go(ctx, cmd, run, fallbacks...).Wait(context.Background())
							})
						require.True(t, future.ofCaller, "the caller's own context")
						require.Equal(t, do, future)
					})
				}
			}
		})
	}
}

// S19: MaxFallbacks is for Futures as for all: one too many is refused, at once.
func TestS61_AFuturesFallbacksAreLimited(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxFallbacks: 1, Mode: firebreak.ForceClosed})
		first := firebreak.Go(t.Context(), p.cmd, fail, answering(time.Second, 9, nil))
		synctest.Wait()
		require.Equal(t, 1, p.cmd.Snapshot().Fallbacks)
		p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		for _, run := range []func(context.Context) (int, error){fail, succeed} {
			began := time.Now()
			_, err := firebreak.Go(t.Context(), p.cmd, run, firebreak.Static(9)).Wait(t.Context())
			require.ErrorIs(t, err, firebreak.ErrFallbackRejected)
			require.ErrorIs(t, err, firebreak.ErrOpen)
			require.Equal(t, began, time.Now())
		}
		v, err := first.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 9, v)
		require.Equal(t, map[string]uint64{"Failure": 1, "ShortCircuited": 2, "FallbackSuccess": 1, "FallbackRejected": 2}, counted(firebreak.Counts{}, total(p.cmd)))
		require.Zero(t, p.cmd.Snapshot().Fallbacks)
	})
}

func TestGoPanicsOnNilArguments(t *testing.T) {
	var (
		noContext context.Context
		noCommand *firebreak.Command
		cmd       = newCommand(t, firebreak.Config{})
	)
	for name, call := range map[string]func(){
		"Go without a context":   func() { firebreak.Go(noContext, cmd, succeed) },
		"Go without a command":   func() { firebreak.Go(t.Context(), noCommand, succeed) },
		"Go without run":         func() { firebreak.Go[int](t.Context(), cmd, nil) },
		"Wait without a context": func() { _, _ = new(firebreak.Future[int]).Wait(noContext) },
	} {
		require.Regexp(t, "^firebreak: ", panicText(t, call), name)
	}
	require.Zero(t, total(cmd))
}

// S61: a call is admitted in the caller, who waits for a permit as in Do; in a pool it
// has its worker or its place in the queue when Go returns.
func TestS61_GoAdmitsInTheCaller(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, roomToWait(in))
		p.occupy(3 * time.Second)
		began := time.Now()
		f := firebreak.Go(t.Context(), p.cmd, deaf(time.Second, 7, nil))
		if in == semaphores {
			require.Equal(t, 3*time.Second, time.Since(began), "it waited")
			require.Equal(t, 1, p.cmd.Snapshot().InFlight)
		} else {
			require.Equal(t, began, time.Now())
			s := p.cmd.Snapshot()
			require.Equal(t, 1, s.Bulkhead.Queued)
			require.Zero(t, s.InFlight)
		}
		_, err := firebreak.Go(t.Context(), p.neighbour, succeed).Wait(t.Context())
		require.NoError(t, err, "it queued behind that")
		require.Equal(t, 4*time.Second, time.Since(began))
		v, err := f.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 7, v)
	})
}

// Its caller goes on while it runs.
func TestAFutureGoesOnByItself(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		began := time.Now()
		var all []*firebreak.Future[int]
		for i := range 10 {
			all = append(all, firebreak.Go(t.Context(), p.cmd, deaf(time.Second/2, i, nil)))
		}
		require.Equal(t, began, time.Now())
		require.Equal(t, 10, p.cmd.Snapshot().InFlight)
		for i, f := range all {
			v, err := f.Wait(t.Context())
			require.NoError(t, err)
			require.Equal(t, i, v)
		}
		require.Equal(t, time.Second/2, time.Since(began))
	})
}

// Run has the call's context: values, deadline and end.
func TestAFuturesRunHasTheCallsContext(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), contextKey("user"), "ada"))
		var within context.Context
		f := firebreak.Go(ctx, p.cmd, func(c context.Context) (int, error) {
			within = c
			require.Equal(t, "ada", c.Value(contextKey("user")))
			require.Equal(t, time.Second, time.Until(deadlineOf(t, c)))
			<-c.Done()
			return 0, c.Err()
		})
		time.Sleep(time.Millisecond)
		cancel()
		_, err := f.Wait(t.Context())
		require.True(t, err == context.Canceled)
		require.Error(t, within.Err())
		require.Equal(t, map[string]uint64{"Canceled": 1}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// refusals are the ways to be refused at once.
var refusals = map[string]func(t *testing.T, p *place) context.Context{
	"open": func(t *testing.T, p *place) context.Context {
		p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		return t.Context()
	},
	"full": func(t *testing.T, p *place) context.Context {
		held := begin(t, p.neighbour)
		t.Cleanup(func() { end(held) })
		return t.Context()
	},
	"shut down": func(t *testing.T, p *place) context.Context {
		require.NoError(t, p.reg.Shutdown(t.Context()))
		return t.Context()
	},
	"gave up": func(t *testing.T, _ *place) context.Context { return canceled(t) },
}

// flights counts the goroutines of Futures.
func flights() int {
	buf := make([]byte, 1<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), ".fly(")
}

// S61: a refused Future without fallbacks is complete when Go returns: no goroutine,
// and nothing is allocated but the Future.
func TestS61_ARefusedFutureIsComplete(t *testing.T) {
	for name, refuse := range refusals {
		for _, in := range []firebreak.Isolation{semaphores, pools} {
			t.Run(in.String()+"/"+name, func(t *testing.T) {
				p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
				ctx := refuse(t, p)
				_, want := firebreak.Do(ctx, p.cmd, succeed)
				require.Error(t, want)
				for _, fallbacks := range [][]firebreak.Fallback[int]{nil, {nil, nil}} {
					f := firebreak.Go(ctx, p.cmd, succeed, fallbacks...)
					require.Zero(t, flights())
					_, err := f.Wait(canceled(t))
					require.True(t, err == want, "%v", err)
				}
				times, _ := allocates(func() { firebreak.Go(ctx, p.cmd, succeed) })
				require.LessOrEqual(t, times, 1)
				if name == "gave up" { // and its fallbacks are not asked
					fallbacks := []firebreak.Fallback[int]{firebreak.Static(2)}
					times, _ = allocates(func() { firebreak.Go(ctx, p.cmd, succeed, fallbacks...) })
					require.LessOrEqual(t, times, 1)
				}
			})
		}
	}
}

// S61: with fallbacks, one goroutine runs them.
func TestS61_ARefusedFuturesFallbacksHaveOneGoroutine(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		began := time.Now()
		f := firebreak.Go(t.Context(), p.cmd, succeed, answering(time.Second, 8, errCache), answering(time.Second, 9, nil))
		require.Equal(t, began, time.Now())
		synctest.Wait()
		require.Equal(t, 1, flights())
		require.Zero(t, p.cmd.Snapshot().Bulkhead.InFlight, "it has no permit")
		v, err := f.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 9, v)
		require.Equal(t, 2*time.Second, time.Since(began))
		synctest.Wait()
		require.Zero(t, flights())
	})
}

// What an admitted one allocates: itself and its channel, the flight, the timeout, and
// in a pool what carries a call to its worker.
func TestWhatAFutureAllocates(t *testing.T) {
	for _, row := range []struct {
		in      firebreak.Isolation
		timeout time.Duration
		times   int
	}{{semaphores, firebreak.Off, 4}, {semaphores, time.Hour, 5}, {pools, time.Hour, 9}} {
		p := newPlace(t, row.in, firebreak.Config{Timeout: row.timeout})
		ctx := t.Context()
		times, _ := allocates(func() { _, _ = firebreak.Go(ctx, p.cmd, succeed).Wait(ctx) })
		require.LessOrEqual(t, times, row.times, "%v, timeout %v", row.in, row.timeout)
	}
}

// What was given when Go was called is asked, whatever becomes of the slice.
func TestGoKeepsItsFallbacks(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		fallbacks := []firebreak.Fallback[int]{firebreak.Static(7)}
		f := firebreak.Go(t.Context(), p.cmd, deaf(time.Millisecond, 0, errBoom), fallbacks...)
		fallbacks[0] = nil
		v, err := f.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 7, v)
	})
}

// S61: a panic or Goexit on that goroutine is the Future's error, whoever threw: the
// process lives, the permit is back, and the counts are Do's.
func TestS61_NothingThrownLeavesAFuture(t *testing.T) {
	throwing := map[string]func(context.Context, error) (int, error){
		"panics": func(context.Context, error) (int, error) { panicDeepDown("a fallback's"); return 0, nil },
		"exits":  func(context.Context, error) (int, error) { runtime.Goexit(); return 0, nil },
	}
	type counts = map[string]uint64
	for _, row := range []struct {
		name     string
		config   firebreak.Config
		refused  bool
		run      func(context.Context) (int, error)
		fallback func(context.Context, error) (int, error)
		want     counts
		thrown   any // nil: Goexit
	}{
		{"run panics", firebreak.Config{}, false, panicsWith("run's"), nil, counts{"Panic": 1}, "run's"},
		{"run exits", firebreak.Config{}, false, exiting, nil, counts{"Panic": 1}, nil},
		{"run panics, with a fallback", firebreak.Config{}, false, panicsWith("run's"), firebreak.Static(1), counts{"Panic": 1}, "run's"},
		{"run exits, with a fallback", firebreak.Config{}, false, exiting, firebreak.Static(1), counts{"Panic": 1}, nil},
		{"run panics after it was late", firebreak.Config{Timeout: firebreak.Off}, false, func(context.Context) (int, error) { time.Sleep(time.Hour); panic("run's") }, nil, counts{"Panic": 1}, "run's"},
		{"Classify panics", firebreak.Config{Classify: panicAtNotFound}, false, returns(0, errNotFound), firebreak.Static(1), counts{"Panic": 1}, "what is this?"},
		{"Classify exits", firebreak.Config{Classify: exitAtNotFound}, false, returns(0, errNotFound), firebreak.Static(1), counts{"Panic": 1}, nil},
		{"a fallback panics", firebreak.Config{}, false, fail, throwing["panics"], counts{"Failure": 1, "FallbackFailure": 1}, "a fallback's"},
		{"a fallback exits", firebreak.Config{}, false, fail, throwing["exits"], counts{"Failure": 1, "FallbackFailure": 1}, nil},
		{"a refused call's fallback panics", firebreak.Config{}, true, succeed, throwing["panics"], counts{"ShortCircuited": 1, "FallbackFailure": 1}, "a fallback's"},
		{"a refused call's fallback exits", firebreak.Config{}, true, succeed, throwing["exits"], counts{"ShortCircuited": 1, "FallbackFailure": 1}, nil},
		{"run and then a fallback panic", firebreak.Config{RecoverPanics: firebreak.On}, false, panicsWith("run's"), throwing["panics"], counts{"Panic": 1, "FallbackFailure": 1}, "a fallback's"},
		{"run exits and then a fallback panics", firebreak.Config{RecoverPanics: firebreak.On}, false, exiting, throwing["panics"], counts{"Panic": 1, "FallbackFailure": 1}, "a fallback's"},
		{"run and then a fallback exit", firebreak.Config{RecoverPanics: firebreak.On}, false, exiting, throwing["exits"], counts{"Panic": 1, "FallbackFailure": 1}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				row.config.MaxConcurrent, row.config.MaxFallbacks = 1, 1
				p := newPlace(t, in, row.config)
				if row.refused {
					p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
				}
				next := func(context.Context, error) (int, error) { t.Error("the next was asked"); return 0, nil }
				for range 3 {
					before := total(p.cmd)
					var f *firebreak.Future[int]
					if row.fallback != nil {
						f = firebreak.Go(t.Context(), p.cmd, row.run, row.fallback, next)
					} else {
						f = firebreak.Go(t.Context(), p.cmd, row.run)
					}
					v, err := f.Wait(t.Context())
					panics(row.thrown)(t, err)
					require.Zero(t, v)
					require.Equal(t, row.want, counted(before, total(p.cmd)))
					requireAtRest(t, p.cmd)
				}
			})
		})
	}
}

// The stack is of where it was thrown.
func TestAFuturesPanicHasItsOwnStack(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		deep := func(context.Context, error) (int, error) { panicDeepDown(errBoom); return 0, nil }
		for _, f := range []*firebreak.Future[int]{
			firebreak.Go(t.Context(), p.cmd, panicsWith(errBoom)), firebreak.Go(t.Context(), p.cmd, fail, deep),
		} {
			_, err := f.Wait(t.Context())
			panics(errBoom)(t, err)
			require.ErrorIs(t, err, errBoom)
			require.Contains(t, string(err.(*firebreak.PanicError).Stack), "panicDeepDown")
		}
	})
}

// S25, S61: RecoverPanics alone has fallbacks asked for a panic, on that goroutine for
// Goexit too.
func TestS61_RecoverPanicsHasFallbacksAsked(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{RecoverPanics: firebreak.On, MaxConcurrent: 1})
		for value, run := range map[any]func(context.Context) (int, error){"boom": panicking, nil: exiting} {
			before := total(p.cmd)
			v, err := firebreak.Go(t.Context(), p.cmd, run, func(_ context.Context, cause error) (int, error) {
				panics(value)(t, cause)
				return 0, errCache
			}, firebreak.Static(9)).Wait(t.Context())
			require.NoError(t, err)
			require.Equal(t, 9, v)
			require.Equal(t, map[string]uint64{"Panic": 1, "FallbackSuccess": 1}, counted(before, total(p.cmd)))

			_, err = firebreak.Go(t.Context(), p.cmd, run, answering(0, 0, errCache)).Wait(t.Context())
			require.ErrorIs(t, err, firebreak.ErrFailed)
			require.ErrorIs(t, err, errCache)
			require.Equal(t, 0, p.cmd.Snapshot().Bulkhead.InFlight)
		}
	})
}

// S26: an observer's panic is its own, also where it is told on a Future's goroutine.
func TestS26_AnObserversPanicIsNoFutures(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{ConsecutiveFailures: 1})
		boom := func(context.Context, firebreak.CallEvent) { panic("boom") }
		p.reg.Observe(firebreak.Observer{Transition: func(firebreak.Transition) { panic("boom") }, Call: boom, Fallback: boom})
		for _, want := range []map[string]uint64{
			{"Failure": 1, "FallbackSuccess": 1, "ObserverPanics": 3}, {"ShortCircuited": 1, "FallbackSuccess": 1, "ObserverPanics": 2},
		} {
			before := total(p.cmd)
			v, err := firebreak.Go(t.Context(), p.cmd, fail, firebreak.Static(9)).Wait(t.Context())
			require.NoError(t, err)
			require.Equal(t, 9, v)
			require.Equal(t, want, counted(before, total(p.cmd)))
		}
	})
}

// An observer that calls Goexit ends the goroutine that told it: Go's caller, if the
// call was refused, or the Future's. Neither is missed by Shutdown, which used to wait
// for ever for the first.
func TestS60_AnObserverThatCallsGoexitWedgesNoFuture(t *testing.T) {
	for _, what := range []string{"transition", "call", "fallback", "overrun"} {
		for name, run := range map[string]func(context.Context) (int, error){"success": succeed, "failure": fail, "timeout": deaf(2*time.Second, 0, errBoom)} {
			t.Run(what+"/"+name, func(t *testing.T) {
				inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
					for _, fallbacks := range [][]firebreak.Fallback[int]{nil, {firebreak.Static(9)}} {
						p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, ConsecutiveFailures: 1, SleepWindow: time.Minute})
						stop := p.reg.Observe(exitAt(what))
						called := 0
						try := func() {
							answerOf(func() (int, error) {
								called++
								return firebreak.Go(t.Context(), p.cmd, run, fallbacks...).Wait(t.Context())
							})
						}
						try()
						try() // refused, unless that was a success
						time.Sleep(time.Minute)
						try() // a probe
						time.Sleep(time.Minute)
						synctest.Wait()
						stop()
						s := p.cmd.Snapshot()
						require.Equal(t, 3, called)
						require.LessOrEqual(t, s.Total.Calls(), uint64(3))
						require.GreaterOrEqual(t, s.Total.Calls(), uint64(2), "a probe that an observer ended is no call")
						requireAtRest(t, p.cmd)
						require.NoError(t, p.reg.Shutdown(canceled(t)), "nothing is left to wait for")
					}
				})
			})
		}
	}
}

// A caller's context that panics goes up through Go, and leaves nothing either.
type brokenContext struct{ context.Context }

func (brokenContext) Err() error { panic("no Err") }

func TestGoUnderABrokenContext(t *testing.T) {
	p := newPlace(t, semaphores, firebreak.Config{})
	require.PanicsWithValue(t, "no Err", func() { firebreak.Go(brokenContext{t.Context()}, p.cmd, succeed) })
	require.NoError(t, p.reg.Shutdown(canceled(t)))
}

// S61: many may wait; the end of one's context ends that waiting alone.
func TestS61_ManyWaitEachUnderItsOwnContext(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{Timeout: time.Minute})
		f := firebreak.Go(t.Context(), p.cmd, deaf(10*time.Second+1, 7, nil))
		began := time.Now()
		type waiter struct {
			patience time.Duration
			wait     func() answer
		}
		var all []waiter
		for i := range 20 {
			patience := time.Duration(i+1) * time.Second
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			all = append(all, waiter{patience, later(func() (int, error) { return f.Wait(ctx) })})
		}
		ctx, leave := context.WithCancelCause(t.Context())
		left := later(func() (int, error) { return f.Wait(ctx) })
		leave(errBoom)
		require.Equal(t, answer{err: context.Canceled}, left())
		require.Equal(t, began, time.Now())
		for _, w := range all {
			if w.patience <= 10*time.Second {
				require.Equal(t, answer{err: context.DeadlineExceeded}, w.wait())
				require.Equal(t, w.patience, time.Since(began))
			} else {
				require.Equal(t, answer{value: 7}, w.wait())
				require.Equal(t, 10*time.Second+1, time.Since(began))
			}
		}
		require.Equal(t, map[string]uint64{"Success": 1}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// S61: a result that is there goes before the end of the waiter's context. A select
// alone would miss it every other time.
func TestS61_AResultGoesBeforeAnEndedContext(t *testing.T) {
	p := newPlace(t, semaphores, firebreak.Config{})
	f := firebreak.Go(t.Context(), p.cmd, returns(7, nil))
	_, err := f.Wait(t.Context())
	require.NoError(t, err)
	ended := canceled(t)
	for range 100 {
		v, err := f.Wait(ended)
		require.NoError(t, err)
		require.Equal(t, 7, v)
	}
}

// The end of the waiting is not that of the call, and one may come back for it.
func TestS61_WhoStoppedWaitingMayComeBack(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		f := firebreak.Go(t.Context(), p.cmd, func(ctx context.Context) (int, error) {
			time.Sleep(time.Second / 2)
			return 7, ctx.Err()
		})
		_, err := f.Wait(canceled(t))
		require.True(t, err == context.Canceled)
		v, err := f.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 7, v)
	})
}

// A big is something whose end can be seen.
type big struct {
	bytes [1 << 16]byte
	name  string
}

func watched(freed chan string, name string) *big {
	b := &big{name: name}
	runtime.AddCleanup(b, func(name string) { freed <- name }, name)
	return b
}

// requireFreed collects garbage until all of these were.
func requireFreed(t *testing.T, freed chan string, names ...string) {
	t.Helper()
	missing := map[string]bool{}
	for _, name := range names {
		missing[name] = true
	}
	waitUntil(t, func() bool {
		runtime.GC()
		for len(freed) > 0 {
			delete(missing, <-freed)
		}
		return len(missing) == 0
	})
}

// S61: a finished Future holds only the result: not its context, what run and the
// fallbacks had hold of, nor the call.
func TestS61_AFinishedFutureHoldsOnlyTheResult(t *testing.T) {
	for _, in := range []firebreak.Isolation{semaphores, pools} {
		for _, refused := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/refused=%t", in, refused), func(t *testing.T) {
				p := newPlace(t, in, firebreak.Config{})
				if refused {
					p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
				}
				freed := make(chan string, 9)
				f := func() *firebreak.Future[*big] {
					ofContext, ofRun, ofFallback := watched(freed, "the context's"), watched(freed, "run's"), watched(freed, "the fallback's")
					ctx := context.WithValue(context.Background(), contextKey("big"), ofContext)
					return firebreak.Go(ctx, p.cmd, func(ctx context.Context) (*big, error) {
						ctx.Done()
						return nil, fmt.Errorf("not %s", ofRun.name)
					}, func(context.Context, error) (*big, error) {
						_ = ofFallback.bytes
						return watched(freed, "the result"), nil
					})
				}()
				v, err := f.Wait(t.Context())
				require.NoError(t, err)
				require.Equal(t, "the result", v.name)
				v = nil
				requireFreed(t, freed, "the context's", "run's", "the fallback's")
				v, _ = f.Wait(t.Context())
				require.Equal(t, "the result", v.name)
				v = nil
				f = nil
				requireFreed(t, freed, "the result")
				runtime.KeepAlive(p.cmd)
			})
		}
	}
}

// A dropped Future is garbage once its call is over: nobody has to fetch the result.
func TestS61_ADroppedFutureIsGarbage(t *testing.T) {
	for _, in := range []firebreak.Isolation{semaphores, pools} {
		t.Run(in.String(), func(t *testing.T) {
			p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
			freed, goOn := make(chan string, 9), make(chan struct{})
			func() {
				f := firebreak.Go(context.Background(), p.cmd, func(context.Context) (*big, error) {
					<-goOn
					return watched(freed, "the result"), nil
				})
				runtime.AddCleanup(f, func(name string) { freed <- name }, "the Future")
				_, err := f.Wait(canceled(t))
				require.Error(t, err)
			}()
			require.Equal(t, 1, p.cmd.Snapshot().InFlight, "it goes on")
			close(goOn)
			requireFreed(t, freed, "the Future", "the result")
			require.EqualValues(t, 1, total(p.cmd).Success)
			require.Zero(t, p.cmd.Snapshot().Bulkhead.InFlight)
		})
	}
}

// S57: nothing of a Future outlives it, its timer for instance.
func TestS57_NothingOutlivesAFuture(t *testing.T) {
	for _, in := range []firebreak.Isolation{semaphores, pools} {
		t.Run(in.String(), func(t *testing.T) {
			p := newPlace(t, in, firebreak.Config{Timeout: time.Hour, ErrorThresholdPercentage: firebreak.Off})
			use := func() {
				ctx, cancel := context.WithCancel(t.Context())
				f := firebreak.Go(ctx, p.cmd, heeds(0, nil), firebreak.Static(1))
				cancel()
				_, _ = f.Wait(t.Context())
				_, _ = firebreak.Go(t.Context(), p.cmd, fail, firebreak.Static(1)).Wait(t.Context())
			}
			const calls = 500
			use()
			left := leastInUse(100, calls, func() any {
				for range calls {
					use()
				}
				waitUntil(t, func() bool { return p.cmd.Snapshot().InFlight == 0 })
				return nil
			})
			require.LessOrEqual(t, left, 100, "bytes are left of each call")
		})
	}
}

// S72: Shutdown waits for Futures, and for their fallbacks: it says what is stuck.
func TestS72_ShutdownWaitsForFutures(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 3})
		answer := make(chan int)
		fallback := func(context.Context, error) (int, error) { return <-answer, nil }
		running := firebreak.Go(t.Context(), p.cmd, deaf(time.Second/2, 0, errBoom), fallback)
		p.neighbour.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		refused := firebreak.Go(t.Context(), p.neighbour, succeed, fallback)
		s := beginShutdown(t.Context(), p.reg)
		err := p.reg.Shutdown(canceled(t))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "cmd: 1 in flight for at least 0s")
		time.Sleep(time.Second)
		synctest.Wait()
		s.waits(t)
		require.Zero(t, p.cmd.Snapshot().InFlight, "run is over")
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		err = p.reg.Shutdown(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Regexp(t, `^firebreak: shutdown: 2 futures.* for at least 1.5s: context deadline exceeded$`, err.Error())

		answer <- 7
		synctest.Wait()
		s.waits(t)
		answer <- 8
		require.NoError(t, s.result(t))
		sum := 0
		for _, f := range []*firebreak.Future[int]{running, refused} {
			v, err := f.Wait(canceled(t))
			require.NoError(t, err)
			sum += v
		}
		require.Equal(t, 15, sum)
	})
}

// S72: a Future that waits when it comes ends shutdown, in the caller or in a queue,
// and has its fallbacks, which Shutdown waits for.
func TestS72_ShutdownWakesFuturesThatWait(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, roomToWait(in))
		p.occupy(time.Second)
		bare := later(func() (int, error) { return firebreak.Go(t.Context(), p.cmd, succeed).Wait(t.Context()) })
		asks := later(func() (int, error) {
			return firebreak.Go(t.Context(), p.cmd, succeed, answering(time.Minute, 9, nil)).Wait(t.Context())
		})
		s := beginShutdown(t.Context(), p.reg)
		ours(firebreak.ErrShutdown, nil)(t, bare().err)
		time.Sleep(time.Minute - 1)
		s.waits(t)
		time.Sleep(time.Nanosecond)
		require.NoError(t, s.result(t))
		require.Equal(t, answer{value: 9}, asks())
		require.Equal(t, map[string]uint64{"Shutdown": 2, "FallbackMissing": 1, "FallbackSuccess": 1}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// S72, I9: whenever Shutdown comes, a Future that was not refused is finished when it
// returns nil, and so is one that a bulkhead had refused before.
func TestI9_ShutdownRacesWithGo(t *testing.T) {
	for _, in := range []firebreak.Isolation{semaphores, pools} {
		t.Run(in.String(), func(t *testing.T) {
			ended := canceled(t)
			for round := range 60 {
				c := firebreak.Config{Isolation: in, MaxConcurrent: 4, QueueSize: 2}
				if round%2 == 0 && in == semaphores {
					c.MaxWait = time.Minute
				}
				reg := firebreak.NewRegistry(firebreak.Config{Timeout: time.Minute})
				cmd := reg.Command("dep", c)
				goroutines := runtime.NumGoroutine()
				var all sync.WaitGroup
				start := make(chan struct{})
				futures := make([][]*firebreak.Future[int], 4)
				for i := range futures {
					all.Go(func() {
						<-start
						for n := range 40 {
							run := func(context.Context) (int, error) {
								for range n {
									runtime.Gosched()
								}
								if n%2 == 0 {
									return 0, errBoom
								}
								return 1, nil
							}
							var fallbacks []firebreak.Fallback[int]
							if n%3 == 0 {
								fallbacks = append(fallbacks, func(_ context.Context, cause error) (int, error) {
									runtime.Gosched()
									return 0, cause
								})
							}
							futures[i] = append(futures[i], firebreak.Go(context.Background(), cmd, run, fallbacks...))
						}
					})
				}
				close(start)
				for range rand.IntN(200) {
					runtime.Gosched()
				}
				require.NoError(t, reg.Shutdown(context.Background()))
				executed := total(cmd).Executed()
				all.Wait()
				for _, some := range futures {
					for _, f := range some {
						if _, err := f.Wait(ended); err == context.Canceled {
							_, err = f.Wait(context.Background()) // in its fallbacks, as it came too late
							assert.ErrorIs(t, err, firebreak.ErrShutdown, "it is not finished, and was not refused")
						}
					}
				}
				require.Equal(t, executed, total(cmd).Executed(), "nothing ran after it")
				requireAtRest(t, cmd)
				waitUntil(t, func() bool { return runtime.NumGoroutine() <= goroutines })
			}
		})
	}
}

// S73: a handle that was kept after its key made way is good for a Future too.
func TestS73_GoUnderACommandThatMadeWay(t *testing.T) {
	for _, in := range []firebreak.Isolation{semaphores, pools} {
		synctest.Test(t, func(t *testing.T) {
			reg, k := newKeyed(t, 1, firebreak.Config{Isolation: in})
			a := k.Command("a")
			time.Sleep(time.Minute)
			require.True(t, hasPlace(k, "b"))
			v, err := firebreak.Go(t.Context(), a, fail, firebreak.Static(9)).Wait(t.Context())
			require.NoError(t, err)
			require.Equal(t, 9, v)
			_, err = firebreak.Go(canceled(t), a, succeed).Wait(t.Context())
			require.True(t, err == context.Canceled)
			require.Equal(t, map[string]uint64{"Failure": 1, "FallbackSuccess": 1, "GaveUp": 1}, counted(firebreak.Counts{}, k.Snapshot().Total))
			require.NoError(t, reg.Shutdown(canceled(t)))
		})
	}
}

// A Future within a Future, of one dependency: it needs a second permit, and without
// one is refused, never stuck.
func TestGoWithinGo(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		for permits, want := range map[int]error{1: firebreak.ErrRejected, 2: nil} {
			p := newPlace(t, in, firebreak.Config{MaxConcurrent: permits})
			v, err := firebreak.Go(t.Context(), p.cmd, func(ctx context.Context) (int, error) {
				v, err := firebreak.Go(ctx, p.cmd, deaf(time.Millisecond, 7, nil)).Wait(ctx)
				return v + 1, err
			}).Wait(t.Context())
			if want != nil {
				require.ErrorIs(t, err, want)
				require.Equal(t, 1, v)
			} else {
				require.NoError(t, err)
				require.Equal(t, 8, v)
			}
		}
	})
}

// S39: Inject stands where run would, in a Future as in Do.
func TestInjectInGo(t *testing.T) {
	for name, row := range map[string]struct {
		inject func(context.Context) error
		want   map[string]uint64
		err    func(*testing.T, error)
	}{
		"nil":          {func(context.Context) error { return nil }, map[string]uint64{"Success": 1}, noError},
		"an error":     {func(context.Context) error { return errBoom }, map[string]uint64{"Failure": 1}, itself(errBoom)},
		"ErrOpen":      {func(context.Context) error { return firebreak.ErrOpen }, map[string]uint64{"ShortCircuited": 1}, ours(firebreak.ErrOpen, nil)},
		"ErrRejected":  {func(context.Context) error { return firebreak.ErrRejected }, map[string]uint64{"Rejected": 1}, ours(firebreak.ErrRejected, nil)},
		"ErrTimeout":   {func(context.Context) error { return firebreak.ErrTimeout }, map[string]uint64{"Timeout": 1}, ours(firebreak.ErrTimeout, nil)},
		"a panic":      {func(context.Context) error { panic("boom") }, map[string]uint64{"Panic": 1}, panics("boom")},
		"a Goexit":     {func(context.Context) error { runtime.Goexit(); return nil }, map[string]uint64{"Panic": 1}, panics(nil)},
		"a long delay": {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, map[string]uint64{"Timeout": 1}, func(t *testing.T, err error) { require.ErrorIs(t, err, firebreak.ErrTimeout) }},
	} {
		t.Run(name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				for _, given := range []bool{false, true} {
					p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
					p.cmd.Override(firebreak.Override{Inject: row.inject})
					want := maps.Clone(row.want)
					asks := want["Success"]+want["Panic"] == 0
					var cause error
					var fallbacks []firebreak.Fallback[int]
					if given {
						fallbacks = append(fallbacks, func(_ context.Context, err error) (int, error) { cause = err; return 9, nil })
					}
					v, err := firebreak.Go(t.Context(), p.cmd, returns(7, nil), fallbacks...).Wait(t.Context())
					switch {
					case given && asks:
						want["FallbackSuccess"] = 1
						require.NoError(t, err)
						require.Equal(t, 9, v)
						row.err(t, cause)
					case asks:
						want["FallbackMissing"] = 1
						fallthrough
					default:
						row.err(t, err)
					}
					synctest.Wait()
					require.Equal(t, want, counted(firebreak.Counts{}, total(p.cmd)))
					requireAtRest(t, p.cmd)
				}
			})
		})
	}
}

// Futures of every kind at once, waited for by several or by nobody. What is counted
// agrees with what the runs, the fallbacks and the waiters saw.
func TestFuturesUnderStress(t *testing.T) {
	for _, in := range []firebreak.Isolation{semaphores, pools} {
		t.Run(in.String(), func(t *testing.T) {
			const callers, calls = 8, 400
			p := newPlace(t, in, firebreak.Config{
				MaxConcurrent: 6, QueueSize: 4, MaxFallbacks: 4, Mode: firebreak.ForceClosed, Timeout: time.Minute,
				Classify: firebreak.ExpectErrors(errNotFound),
			})
			var begun, asked, results, panicked, rejected atomic.Int64
			ends := []func() (int, error){
				func() (int, error) { return 1, nil }, func() (int, error) { return 1, nil },
				func() (int, error) { return 0, errBoom }, func() (int, error) { return 0, errNotFound },
				func() (int, error) { panic("boom") }, func() (int, error) { runtime.Goexit(); return 0, nil },
			}
			var all sync.WaitGroup
			for i := range callers {
				random := rand.New(rand.NewPCG(61, uint64(i)))
				all.Go(func() {
					for range calls {
						ctx, cancel := context.WithCancel(context.Background())
						how, waiters, back := random.IntN(len(ends)), random.IntN(3), random.IntN(4)
						var fallbacks []firebreak.Fallback[int]
						if back < 3 {
							fallbacks = append(fallbacks, nil, func(context.Context, error) (int, error) {
								asked.Add(1)
								runtime.Gosched()
								return ends[back]()
							})
						}
						f := firebreak.Go(ctx, p.cmd, func(context.Context) (int, error) {
							begun.Add(1)
							runtime.Gosched()
							return ends[how]()
						}, fallbacks...)
						if random.IntN(8) == 0 {
							cancel()
						}
						for n := range waiters {
							all.Go(func() {
								_, err := f.Wait(context.Background())
								if n > 0 {
									return
								}
								results.Add(1)
								switch err.(type) {
								case *firebreak.PanicError:
									panicked.Add(1)
								case *firebreak.Error:
									if reasonOf(err) == firebreak.ErrRejected.Error() {
										rejected.Add(1)
									}
								}
							})
						}
						_, _ = f.Wait(context.Background())
						cancel()
					}
				})
			}
			all.Wait()
			require.NoError(t, p.reg.Shutdown(context.Background()))
			s := p.cmd.Snapshot()
			c := s.Total
			require.EqualValues(t, callers*calls, c.Calls())
			require.EqualValues(t, begun.Load(), c.Executed())
			require.EqualValues(t, asked.Load(), c.FallbackSuccess+c.FallbackFailure)
			require.Equal(t, c.Failure+c.Timeout+c.Rejected, c.FallbackSuccess+c.FallbackFailure+c.FallbackRejected+c.FallbackMissing)
			require.Zero(t, c.Timeout)
			require.NotZero(t, c.Panic)
			require.NotZero(t, results.Load())
			require.LessOrEqual(t, rejected.Load(), int64(c.Rejected))
			requireAtRest(t, p.cmd)
		})
	}
}
