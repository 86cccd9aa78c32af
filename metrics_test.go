package firebreak_test

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak"
)

func TestS54_CallsAreTheSumOfTheOutcomes(t *testing.T) {
	var c firebreak.Counts
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		v.Field(i).SetUint(1 << i) // so that a sum tells its terms
	}
	executed := c.Success | c.Expected | c.Ignored | c.Failure | c.Timeout | c.Panic | c.Canceled | c.CallerDeadline
	require.Equal(t, executed, c.Executed())
	require.Equal(t, executed|c.Rejected|c.ShortCircuited|c.Shutdown|c.GaveUp, c.Calls())
}

// requireConsistent checks what S54 says of every snapshot of a command, and of two
// that follow each other.
func requireConsistent(t require.TestingT, before, s firebreak.Snapshot) {
	was, total, window := reflect.ValueOf(before.Total), reflect.ValueOf(s.Total), reflect.ValueOf(s.Window)
	for i := range total.NumField() {
		name := total.Type().Field(i).Name
		require.GreaterOrEqual(t, total.Field(i).Uint(), was.Field(i).Uint(), "%s fell", name)
		require.LessOrEqual(t, window.Field(i).Uint(), total.Field(i).Uint(), "%s in the window", name)
	}
	c := s.Total
	require.LessOrEqual(t, c.FallbackSuccess+c.FallbackFailure+c.FallbackRejected+c.FallbackMissing,
		c.Failure+c.Timeout+c.Panic+c.Rejected+c.ShortCircuited+c.Shutdown, "more fallbacks than calls that asked for one")
	require.LessOrEqual(t, s.RunHistogram.Count, c.Executed())
	require.LessOrEqual(t, s.CallHistogram.Count, c.Executed())
	requireHistogram(t, before.RunHistogram, s.RunHistogram)
	requireHistogram(t, before.CallHistogram, s.CallHistogram)
	requireOrdered(t, s.RunLatency)
	requireOrdered(t, s.CallLatency)
	require.LessOrEqual(t, s.Evidence.Refused, c.ShortCircuited)
	require.True(t, s.ErrorPercentage >= 0 && s.ErrorPercentage <= 100)
	require.False(t, s.Time.Before(before.Time))

	require.GreaterOrEqual(t, s.InFlight, 0)
	require.GreaterOrEqual(t, s.MaxInFlight, s.InFlight)
	require.GreaterOrEqual(t, s.Fallbacks, 0)
	b := s.Bulkhead
	require.GreaterOrEqual(t, b.InFlight, 0)
	require.GreaterOrEqual(t, b.MaxInFlight, b.InFlight)
	require.GreaterOrEqual(t, b.Queued, 0)
	require.GreaterOrEqual(t, b.Abandoned, 0)
	require.LessOrEqual(t, b.Abandoned, b.InFlight)
	if b.Limit != firebreak.Unlimited {
		require.LessOrEqual(t, b.MaxInFlight, b.Limit)
	}
}

func requireHistogram(t require.TestingT, before, h firebreak.Histogram) {
	require.GreaterOrEqual(t, h.Count, before.Count)
	require.GreaterOrEqual(t, h.Sum, before.Sum)
	last := uint64(0)
	for _, n := range h.Buckets() {
		require.GreaterOrEqual(t, n, last)
		last = n
	}
	require.LessOrEqual(t, last, h.Count)
}

func requireOrdered(t require.TestingT, p firebreak.Percentiles) {
	require.True(t, slices.IsSorted([]time.Duration{p.Min, p.P25, p.P50, p.P75, p.P90, p.P95, p.P99, p.P995, p.Max}), "%+v", p)
	require.True(t, p.Min <= p.Mean && p.Mean <= p.Max, "%+v", p)
}

// answering is a fallback that takes so long.
func answering(d time.Duration, v int, err error) firebreak.Fallback[int] {
	return func(context.Context, error) (int, error) {
		time.Sleep(d)
		return v, err
	}
}

// Calls of every kind, and a reader at each millisecond, when some of them end. The
// windows roll meanwhile.
func TestS54_EverySnapshotUnderLoadAddsUp(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		c := roomToWait(in)
		c.MaxConcurrent, c.QueueSize, c.MaxFallbacks = 6, 3, 2
		c.Timeout, c.Window, c.SleepWindow, c.ErrorThresholdPercentage = 20*time.Millisecond, 50*time.Millisecond, 10*time.Millisecond, 60
		c.RecoverPanics, c.Classify = firebreak.On, firebreak.ExpectErrors(errNotFound)
		p := newPlace(t, in, c)
		runs := []func(context.Context) (int, error){
			succeed, succeed, deaf(3*time.Millisecond, 1, nil), deaf(25*time.Millisecond, 1, nil), deaf(25*time.Millisecond, 1, errBoom),
			heeds(1, nil), fail, returns(0, errNotFound), returns(0, errIgnored), panicking,
		}
		const callers = 12
		var wg sync.WaitGroup
		for seed := range uint64(callers) {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, 54))
				for range 100 {
					ctx, cancel := context.WithCancel(t.Context())
					if r.IntN(4) == 0 {
						ctx, cancel = context.WithTimeout(t.Context(), time.Duration(r.IntN(25))*time.Millisecond)
					}
					var fallback firebreak.Fallback[int]
					switch r.IntN(4) {
					case 0:
						fallback = answering(time.Duration(r.IntN(3))*time.Millisecond, 2, nil)
					case 1:
						fallback = answering(0, 0, errCache)
					}
					_, _ = firebreak.Do(ctx, p.cmd, runs[r.IntN(len(runs))], fallback)
					cancel()
					time.Sleep(time.Duration(r.IntN(4)) * time.Millisecond)
				}
			})
		}
		over := make(chan struct{})
		go func() {
			wg.Wait()
			close(over)
		}()
		var last firebreak.Snapshot
		kinds := map[string]bool{}
		for running := true; running; {
			select {
			case <-over:
				running = false
			case <-time.After(time.Millisecond):
			}
			s := p.cmd.Snapshot()
			requireConsistent(t, last, s)
			require.LessOrEqual(t, s.InFlight, callers)
			require.LessOrEqual(t, s.Fallbacks, c.MaxFallbacks)
			require.LessOrEqual(t, s.Bulkhead.Queued, c.QueueSize)
			for name := range counted(firebreak.Counts{}, s.Window) {
				kinds[name] = true
			}
			last = s
		}
		time.Sleep(time.Second) // runs that were left are over
		require.Greater(t, len(kinds), 14, "it was too tame: %v", kinds)
	})
}

// collide opens further cells in the metrics of a command, by successful calls that
// find the lock of the only one taken. It returns how many they were.
func collide(t testing.TB, cmd *firebreak.Command) (calls uint64) {
	t.Helper()
	ctx := t.Context()
	release := firebreak.Collide(cmd)
	var wg sync.WaitGroup
	var one sync.Mutex // at a time, or the bulkhead might reject some
	for range 8 {
		wg.Go(func() {
			one.Lock()
			defer one.Unlock()
			_, _ = firebreak.Do(ctx, cmd, succeed)
		})
	}
	wg.Wait()
	release()
	require.Greater(t, firebreak.Cells(cmd), 1)
	return 8
}

// Goroutines that never wait, where all is counted in one cell until processors
// collide, and where they have.
func TestS54_NothingIsLostWhereProcessorsCollide(t *testing.T) {
	const callers, rounds = 8, 100
	ctx := context.Background()
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	for _, collided := range []bool{false, true} {
		t.Run(fmt.Sprintf("collided=%t", collided), func(t *testing.T) {
			reg := newRegistry(t, firebreak.Config{
				Timeout: time.Hour, SleepWindow: time.Hour, Window: time.Hour, RecoverPanics: firebreak.On, MaxFallbacks: firebreak.Unlimited,
			})
			busy := reg.Command("busy", firebreak.Config{ErrorThresholdPercentage: firebreak.Off})
			open, shadow := reg.Command("open", firebreak.Config{}), reg.Command("shadow", firebreak.Config{})
			dep := reg.Dependency("dep", firebreak.Config{MaxConcurrent: 20})
			full, neighbour := dep.Command("full", firebreak.Config{}), dep.Command("neighbour", firebreak.Config{})
			all := []*firebreak.Command{busy, open, shadow, full}
			if collided {
				for _, cmd := range all {
					collide(t, cmd)
				}
			}
			failUntilItOpens(t, open)
			failUntilItOpens(t, shadow)
			shadow.Override(firebreak.Override{Mode: firebreak.Shadow})
			for range 20 {
				defer begin(t, neighbour).End()
			}
			var before [4]firebreak.Counts
			for i, cmd := range all {
				before[i] = total(cmd)
			}

			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for range rounds {
						_, _ = firebreak.Do(ctx, busy, succeed)
						_, _ = firebreak.Do(ctx, busy, fail)
						_, _ = firebreak.Do(ctx, busy, fail, firebreak.Static(2))
						_, _ = firebreak.Do(ctx, busy, fail, answering(0, 0, errCache))
						_, _ = firebreak.Do(ctx, busy, returns(0, errExpected))
						_, _ = firebreak.Do(ctx, busy, returns(0, errIgnored))
						_, _ = firebreak.Do(ctx, busy, panicking)
						_, _ = firebreak.Do(canceled, busy, succeed)
						within, cancel := context.WithCancel(ctx)
						_, _ = firebreak.Do(within, busy, func(context.Context) (int, error) { cancel(); return 0, errBoom })
						_, _ = firebreak.Do(ctx, open, succeed)
						_, _ = firebreak.Do(ctx, open, succeed, firebreak.Static(2))
						_, _ = firebreak.Do(ctx, shadow, succeed)
						_, _ = firebreak.Do(ctx, full, succeed)
						_, _ = firebreak.Do(ctx, full, succeed, answering(0, 0, errCache))
					}
				})
			}
			var over atomic.Bool
			go func() {
				wg.Wait()
				over.Store(true)
			}()
			var last [4]firebreak.Snapshot
			for !over.Load() {
				for i, cmd := range all {
					s := cmd.Snapshot()
					requireConsistent(t, last[i], s)
					last[i] = s
				}
			}
			const n = callers * rounds
			for i, want := range []map[string]uint64{
				{
					"Success": n, "Failure": 3 * n, "Expected": n, "Ignored": n, "Panic": n, "Canceled": n, "GaveUp": n,
					"FallbackMissing": 2 * n, "FallbackSuccess": n, "FallbackFailure": n,
				},
				{"ShortCircuited": 2 * n, "FallbackMissing": n, "FallbackSuccess": n},
				{"WouldShortCircuit": n, "Success": n},
				{"Rejected": 2 * n, "FallbackMissing": n, "FallbackFailure": n},
			} {
				require.Equal(t, want, counted(before[i], total(all[i])), all[i].Name())
				s := all[i].Snapshot()
				require.Equal(t, s.Total, s.Window)
				require.Zero(t, s.InFlight)
				require.Equal(t, s.Total.Executed(), s.RunHistogram.Count)
				require.Equal(t, s.Total.Executed(), s.CallHistogram.Count)
			}
			require.EqualValues(t, 2*n, open.Snapshot().Evidence.Refused)
		})
	}
}

// Refusals are counted without a lock, and all the same none is lost where processors
// count them at the same moment.
func TestS54_NoRefusalIsLost(t *testing.T) {
	const callers, each = 8, 30_000
	cmd := newCommand(t, firebreak.Config{Window: time.Hour})
	cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				_, _ = firebreak.Do(context.Background(), cmd, succeed)
			}
		})
	}
	wg.Wait()
	s := cmd.Snapshot()
	want := firebreak.Counts{ShortCircuited: callers * each, FallbackMissing: callers * each}
	require.Equal(t, want, s.Total)
	require.Equal(t, want, s.Window)
}

// What goes on now: runs, permits, who waits, who is in a fallback, and runs whose
// caller left.
func TestS54_Gauges(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		c := roomToWait(in)
		c.MaxConcurrent = 2
		p := newPlace(t, in, c)
		gauges := func(inFlight, permits, queued, fallbacks, abandoned int) {
			t.Helper()
			s := p.cmd.Snapshot()
			require.Equal(t, [...]int{inFlight, permits, queued, fallbacks, abandoned},
				[...]int{s.InFlight, s.Bulkhead.InFlight, s.Bulkhead.Queued, s.Fallbacks, s.Bulkhead.Abandoned})
		}
		do := func(run func(context.Context) (int, error), fallback firebreak.Fallback[int]) func() answer {
			return later(func() (int, error) { return firebreak.Do(t.Context(), p.cmd, run, fallback) })
		}
		gauges(0, 0, 0, 0, 0)
		p.occupy(time.Second)
		gauges(0, 1, 0, 0, 0)
		first := do(deaf(2*time.Second, 0, errBoom), answering(2*time.Second, 2, nil))
		gauges(1, 2, 0, 0, 0)
		second := do(deaf(2*time.Minute, 1, nil), nil)
		gauges(1, 2, 1, 0, 0)
		time.Sleep(time.Second)
		synctest.Wait()
		gauges(2, 2, 0, 0, 0)
		time.Sleep(time.Second)
		synctest.Wait()
		gauges(1, 1, 0, 1, 0)
		first()
		gauges(1, 1, 0, 0, 0)
		time.Sleep(time.Minute)
		synctest.Wait()
		if in == pools {
			gauges(1, 1, 0, 0, 1)
		}
		second()
		time.Sleep(time.Hour)
		gauges(0, 0, 0, 0, 0)
	})
}

// MaxInFlight is noted by the calls that end, and where runs are counted in several
// cells by who looks.
func TestS54_InFlightWhereProcessorsCollided(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{Window: time.Hour})
	collide(t, cmd)
	calls := []*firebreak.Call{begin(t, cmd), begin(t, cmd), begin(t, cmd)}
	require.Equal(t, 3, cmd.Snapshot().InFlight)
	end(calls[0])
	require.Equal(t, 2, cmd.Snapshot().InFlight)
	end(calls[1:]...)
	s := cmd.Snapshot()
	require.Zero(t, s.InFlight)
	require.Equal(t, 3, s.MaxInFlight)
}

// A run that ends in another cell than it began in is over all the same.
func TestS54_ARunEndsInAnotherCell(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		release := func() {}
		_, err := firebreak.Do(t.Context(), p.cmd, func(context.Context) (int, error) {
			release = firebreak.Collide(p.cmd)
			return 1, nil
		})
		release()
		require.NoError(t, err)
		require.Equal(t, 2, firebreak.Cells(p.cmd))
		require.Zero(t, p.cmd.Snapshot().InFlight)
		require.EqualValues(t, 1, total(p.cmd).Success)
	})
}

// Overran counts runs in either isolation, when they end.
func TestS54_Overran(t *testing.T) {
	const limit = time.Second
	canceled := func(ctx context.Context) (context.Context, context.CancelFunc) { return canceledAfter(limit / 2)(ctx) }
	for _, row := range []struct {
		name string
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		run  func(context.Context) (int, error)
		want uint64
	}{
		{name: "a value just in time", run: deaf(limit-1, 1, nil)},
		{name: "a value just too late", run: deaf(limit+1, 1, nil), want: 1},
		{name: "an error in time", run: deaf(limit-1, 0, errBoom)},
		{name: "an error a tenth late", run: deaf(limit+limit/10, 0, errBoom)},
		{name: "an error later than that", run: deaf(limit+limit/10+1, 0, errBoom), want: 1},
		{name: "it heeds its context", run: heeds(0, nil)},
		{name: "a value in time for a caller that left", ctx: canceled, run: deaf(limit-1, 1, nil)},
		{name: "a value too late for a caller that left", ctx: canceled, run: deaf(limit+1, 1, nil), want: 1},
		{name: "an error a tenth late for a caller that left", ctx: canceled, run: deaf(limit+limit/10, 0, errBoom)},
		{name: "an error later than that for a caller that left", ctx: canceled, run: deaf(limit+limit/10+1, 0, errBoom), want: 1},
		{name: "a panic too late", run: func(context.Context) (int, error) { time.Sleep(2 * limit); panic("boom") }, want: 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{Timeout: limit})
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if row.ctx != nil {
					ctx, cancel = row.ctx(ctx)
				}
				defer cancel()
				overruns := 0
				p.reg.Observe(firebreak.Observer{Overrun: func(context.Context, firebreak.CallEvent) { overruns++ }})
				began := time.Now()
				answerOf(func() (int, error) { return firebreak.Do(ctx, p.cmd, row.run) })
				synctest.Wait()
				if time.Since(began) <= limit {
					require.Zero(t, total(p.cmd).Overran, "it goes on")
				}
				time.Sleep(2 * limit)
				synctest.Wait()
				require.Equal(t, row.want, total(p.cmd).Overran)
				require.Equal(t, row.want, p.cmd.Snapshot().Window.Overran)
				require.EqualValues(t, row.want, overruns)
			})
		})
	}
	t.Run("without a timeout", func(t *testing.T) {
		inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
			p := newPlace(t, in, firebreak.Config{Timeout: firebreak.Off})
			_, _ = firebreak.Do(t.Context(), p.cmd, deaf(1000*time.Hour, 1, nil))
			require.Zero(t, total(p.cmd).Overran)
		})
	})
	t.Run("in two steps", func(t *testing.T) {
		inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
			p := newPlace(t, in, firebreak.Config{Timeout: limit})
			call := begin(t, p.cmd)
			time.Sleep(limit + 1)
			call.Settle(nil)
			require.EqualValues(t, 1, total(p.cmd).Overran)
			call.End()
			require.EqualValues(t, 1, total(p.cmd).Overran)
		})
	})
}

// A countedRow is something that is counted, and how it is brought about.
type countedRow struct {
	name    string
	config  firebreak.Config
	before  func(t *testing.T, p *place) // makes it possible
	takes   time.Duration                // until it is counted
	happens func(t *testing.T, p *place)
	counted []string
}

// call is one call with a live context.
func call(run func(context.Context) (int, error), fallbacks ...firebreak.Fallback[int]) func(*testing.T, *place) {
	return func(t *testing.T, p *place) {
		t.Helper()
		answerOf(func() (int, error) { return firebreak.Do(t.Context(), p.cmd, run, fallbacks...) })
	}
}

func callUnder(ctx func(context.Context) (context.Context, context.CancelFunc), run func(context.Context) (int, error)) func(*testing.T, *place) {
	return func(t *testing.T, p *place) {
		t.Helper()
		ctx, cancel := ctx(t.Context())
		defer cancel()
		_, _ = firebreak.Do(ctx, p.cmd, run)
	}
}

// full takes the only permit.
func full(t *testing.T, p *place) {
	t.Helper()
	t.Cleanup(begin(t, p.neighbour).End)
}

func forceOpen(t *testing.T, p *place) {
	t.Helper()
	p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
}

const moment = 20 * time.Millisecond

var (
	onePermit   = firebreak.Config{MaxConcurrent: 1}
	shortLimit  = firebreak.Config{Timeout: moment}
	failing     = answering(0, 0, errCache)
	countedRows = []countedRow{
		{name: "success", happens: call(succeed), counted: []string{"Success"}},
		{name: "expected", happens: call(returns(0, errExpected)), counted: []string{"Expected"}},
		{name: "ignored", happens: call(returns(0, errIgnored)), counted: []string{"Ignored"}},
		{name: "failure", happens: call(fail), counted: []string{"Failure", "FallbackMissing"}},
		{name: "timeout", config: shortLimit, takes: moment, happens: call(heeds(0, nil)), counted: []string{"Timeout", "FallbackMissing"}},
		{name: "late value", config: shortLimit, takes: 2 * moment, happens: call(deaf(2*moment, 1, nil)), counted: []string{"Timeout", "Overran"}},
		{name: "panic", happens: call(panicking), counted: []string{"Panic"}},
		{name: "canceled", takes: moment, happens: callUnder(canceledAfter(moment), heeds(0, nil)), counted: []string{"Canceled"}},
		{name: "caller's deadline", takes: moment, happens: callUnder(deadlineAfter(moment), heeds(0, nil)), counted: []string{"CallerDeadline"}},
		{name: "rejected", config: onePermit, before: full, happens: call(succeed), counted: []string{"Rejected", "FallbackMissing"}},
		{name: "rejected, with a fallback", config: onePermit, before: full, happens: call(succeed, firebreak.Static(2)), counted: []string{"Rejected", "FallbackSuccess"}},
		{name: "short-circuited", before: forceOpen, happens: call(succeed), counted: []string{"ShortCircuited", "FallbackMissing"}},
		{name: "short-circuited, with a fallback", before: forceOpen, happens: call(succeed, failing), counted: []string{"ShortCircuited", "FallbackFailure"}},
		{name: "shut down", before: shutDown, happens: call(succeed), counted: []string{"Shutdown", "FallbackMissing"}},
		{name: "shut down, with a fallback", before: shutDown, happens: call(succeed, firebreak.Static(2)), counted: []string{"Shutdown", "FallbackSuccess"}},
		{name: "gave up", happens: callUnder(alreadyCanceled, succeed), counted: []string{"GaveUp"}},
		{name: "fallback failure", takes: moment, happens: call(fail, answering(moment, 0, errCache)), counted: []string{"FallbackFailure"}},
		{name: "fallback success", takes: moment, happens: call(fail, answering(moment, 2, nil)), counted: []string{"FallbackSuccess"}},
		{
			name: "fallback rejected", config: firebreak.Config{MaxFallbacks: 1},
			before: func(t *testing.T, p *place) {
				full := make(chan bool)
				go call(fail, func(context.Context, error) (int, error) { <-full; return 2, nil })(t, p)
				t.Cleanup(func() { close(full); synctest.Wait() })
				synctest.Wait()
			},
			happens: call(fail, firebreak.Static(2)), counted: []string{"FallbackRejected"},
		},
		{
			name: "would short-circuit", config: firebreak.Config{SleepWindow: time.Hour, ConsecutiveFailures: 5},
			before: func(t *testing.T, p *place) {
				failUntilItOpens(t, p.cmd)
				p.cmd.Override(firebreak.Override{Mode: firebreak.Shadow})
			},
			happens: call(succeed), counted: []string{"WouldShortCircuit"},
		},
		{
			name: "observer's panic",
			before: func(_ *testing.T, p *place) {
				p.reg.Observe(firebreak.Observer{Call: func(context.Context, firebreak.CallEvent) { panic("boom") }})
			},
			happens: call(succeed), counted: []string{"ObserverPanics"},
		},
		{
			name: "hit of a cache",
			happens: func(t *testing.T, p *place) {
				t.Helper()
				get, ctx := firebreak.Cached(p.cmd, twice), firebreak.WithScope(t.Context())
				askAll(ctx, get, 1, 1)
			},
			counted: []string{"CacheHits"},
		},
		{
			name: "batch", takes: moment, config: firebreak.Config{BatchWindow: moment},
			happens: func(t *testing.T, p *place) {
				t.Helper()
				askAll(t.Context(), firebreak.Collapse(p.cmd, loadDoubles), 1)
			},
			counted: []string{"Success", "Batches", "Collapsed"},
		},
		{
			name: "item of a stream",
			happens: func(t *testing.T, p *place) {
				t.Helper()
				for _, err := range firebreak.Stream(t.Context(), p.cmd, func(context.Context) iter.Seq2[int, error] { return oneItem(1, nil) }) {
					require.NoError(t, err)
				}
			},
			counted: []string{"Success", "Emitted"},
		},
	}
)

// S28, S37: what ends in a bucket, at its first or its last nanosecond, is in the
// window until the tenth after it begins; in one cell and in several.
func TestS28_WhatIsCountedAtBothEndsOfEachBucket(t *testing.T) {
	const bucket = time.Second
	for _, row := range countedRows {
		for _, within := range []time.Duration{0, bucket - 1} {
			for _, collided := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%v/collided=%t", row.name, within, collided), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { requireWindow(t, &row, bucket, within, collided) })
				})
			}
		}
	}
}

// requireWindow has the row happen once in each of 13 buckets, and looks at the
// window at each edge until it is empty.
func requireWindow(t *testing.T, row *countedRow, bucket, within time.Duration, collided bool) {
	t.Helper()
	began := time.Now()
	at := func(d time.Duration) { time.Sleep(d - time.Since(began)) }
	config := row.config
	config.ErrorThresholdPercentage = firebreak.Off // an open circuit is for those who want it
	p := newPlace(t, semaphores, config)
	if collided {
		collide(t, p.cmd)
	}
	if row.before != nil {
		row.before(t, p)
	}
	before := total(p.cmd)

	var ends []int // by number of bucket
	edge := func(n int) time.Duration { return bucket * time.Duration(n) }
	check := func() {
		t.Helper()
		inWindow := 0
		for _, n := range ends {
			if int(time.Since(began)/bucket)-n < 10 {
				inWindow++
			}
		}
		s := p.cmd.Snapshot()
		window, all := reflect.ValueOf(s.Window), counted(before, s.Total)
		for _, name := range row.counted {
			require.EqualValues(t, inWindow, window.FieldByName(name).Uint(), "%s in the window after %v", name, time.Since(began))
			require.EqualValues(t, len(ends), all[name], name)
		}
	}
	const first = 20 // what came before is forgotten by then
	for n := first; n < first+13; n++ {
		end := edge(n) + within
		at(end - row.takes)
		check()
		row.happens(t, p)
		require.Equal(t, end, time.Since(began))
		ends = append(ends, n)
		check()
	}
	for n := first + 13; n < first+25; n++ {
		at(edge(n) - 1)
		check()
		at(edge(n))
		check()
	}
}

// Buckets are a tenth of the window, rounded down to nanoseconds, and begin with the
// registry.
func TestS28_TheLengthOfABucket(t *testing.T) {
	for _, row := range []struct{ window, bucket time.Duration }{
		{10 * time.Microsecond, time.Microsecond},
		{10*time.Microsecond + 9, time.Microsecond},
		{10*time.Microsecond + 10, time.Microsecond + 1},
		{time.Hour, 6 * time.Minute},
		{365 * 24 * time.Hour, 876 * time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			reg := newRegistry(t, firebreak.Config{})
			began := time.Now()
			time.Sleep(12345) // the command is younger
			cmd := reg.Command("dep", firebreak.Config{Window: row.window})
			edge := (time.Since(began) + 3*row.bucket).Truncate(row.bucket)
			for _, end := range []time.Duration{edge - 1, edge} {
				time.Sleep(end - time.Since(began))
				_, _ = firebreak.Do(t.Context(), cmd, succeed)
			}
			time.Sleep(9*row.bucket - 1)
			require.EqualValues(t, 2, cmd.Snapshot().Window.Success, row)
			time.Sleep(time.Nanosecond)
			require.EqualValues(t, 1, cmd.Snapshot().Window.Success, row)
			time.Sleep(row.bucket - 1)
			require.EqualValues(t, 1, cmd.Snapshot().Window.Success, row)
			time.Sleep(time.Nanosecond)
			require.Zero(t, cmd.Snapshot().Window, row)
		})
	}
}

// However long nobody called, the window holds what ended in its ten buckets.
func TestS28_IdleGaps(t *testing.T) {
	for _, row := range []struct {
		gap  time.Duration // from 3.5s on
		left uint64        // of 5
	}{
		{time.Second, 5},
		{9500*time.Millisecond - 1, 5},
		{9500 * time.Millisecond, 0},
		{10 * time.Second, 0},
		{11 * time.Second, 0},
		{20 * time.Second, 0},
		{100*time.Second - 1, 0},
		{100 * 365 * 24 * time.Hour, 0},
	} {
		for _, collided := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				cmd, all := newCommand(t, firebreak.Config{}), uint64(5)
				if collided {
					all += collide(t, cmd)
				}
				time.Sleep(3500 * time.Millisecond)
				for range 5 {
					_, _ = firebreak.Do(t.Context(), cmd, succeed)
				}
				time.Sleep(row.gap)
				want := row.left
				if collided && row.gap == time.Second {
					want = all
				}
				require.Equal(t, want, cmd.Snapshot().Window.Success, row)
				_, _ = firebreak.Do(t.Context(), cmd, succeed)
				s := cmd.Snapshot()
				require.Equal(t, want+1, s.Window.Success, row)
				require.Equal(t, all+1, s.Total.Success, row)
			})
		}
	}
}

// S53: after a long freeze the window and the percentiles are empty but for what was
// under way, and nothing that only grows is lost.
func TestS53_TheStatisticsOfAFrozenProcess(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		const freeze = 100 * time.Hour
		p := newPlace(t, in, firebreak.Config{Timeout: firebreak.Off})
		end(begin(t, p.cmd), begin(t, p.cmd), begin(t, p.cmd))
		require.Equal(t, 3, p.cmd.Snapshot().MaxInFlight)
		require.Equal(t, 3, p.cmd.Snapshot().Bulkhead.MaxInFlight)
		_, err := firebreak.Do(t.Context(), p.cmd, deaf(freeze, 1, nil))
		require.NoError(t, err)

		s := p.cmd.Snapshot()
		require.Equal(t, firebreak.Counts{Success: 1}, s.Window)
		require.Equal(t, firebreak.Counts{Success: 4}, s.Total)
		require.Equal(t, 1, s.MaxInFlight)
		require.Equal(t, 1, s.Bulkhead.MaxInFlight)
		requirePercentiles(t, []time.Duration{freeze}, s.RunLatency)
		require.EqualValues(t, 4, s.RunHistogram.Count)
		require.Equal(t, freeze, s.RunHistogram.Sum)

		time.Sleep(freeze)
		s = p.cmd.Snapshot()
		require.Zero(t, s.Window)
		require.Zero(t, s.MaxInFlight)
		require.Zero(t, s.Bulkhead.MaxInFlight)
		require.Zero(t, s.RunLatency)
		require.Zero(t, s.CallLatency)
		require.Zero(t, s.ErrorPercentage)
		require.EqualValues(t, 4, s.RunHistogram.Count)
	})
}

// The most at once is of the calls that ended in the window; the bulkhead's is of all
// its commands.
func TestMaxInFlightIsOfTheRollingWindow(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		began := time.Now()
		at := func(d time.Duration) { time.Sleep(d - time.Since(began)) }
		most := func(command, bulkhead int) {
			t.Helper()
			s := p.cmd.Snapshot()
			require.Equal(t, command, s.MaxInFlight, "after %v", time.Since(began))
			require.Equal(t, bulkhead, s.Bulkhead.MaxInFlight, "after %v", time.Since(began))
		}
		most(0, 0)
		other := begin(t, p.neighbour)
		calls := []*firebreak.Call{begin(t, p.cmd), begin(t, p.cmd), begin(t, p.cmd)}
		most(3, 4)
		at(5*time.Second - 1)
		end(calls[0])
		most(3, 4)
		at(7 * time.Second)
		end(calls[1])
		at(9 * time.Second)
		end(calls[2], other)
		at(14*time.Second - 1)
		most(3, 4)
		at(14 * time.Second) // what ended in the fifth bucket is gone
		most(2, 3)
		at(17*time.Second - 1)
		most(2, 3)
		at(17 * time.Second)
		most(1, 2)
		at(19*time.Second - 1)
		most(1, 2)
		at(19 * time.Second)
		most(0, 0)
	})
}

// nearest is the percentile of a sorted list by nearest rank.
func nearest(sorted []time.Duration, permille int) time.Duration {
	return sorted[(permille*len(sorted)+999)/1000-1]
}

// requirePercentiles compares percentiles with those of a list: within 1.6 % from
// 1 µs on, within 16 ns below, and the mean exact but within Min and Max.
func requirePercentiles(t require.TestingT, list []time.Duration, p firebreak.Percentiles) {
	if len(list) == 0 {
		require.Zero(t, p)
		return
	}
	sorted := slices.Sorted(slices.Values(list))
	for _, row := range []struct {
		name      string
		want, got time.Duration
	}{
		{"Min", sorted[0], p.Min},
		{"P25", nearest(sorted, 250), p.P25},
		{"P50", nearest(sorted, 500), p.P50},
		{"P75", nearest(sorted, 750), p.P75},
		{"P90", nearest(sorted, 900), p.P90},
		{"P95", nearest(sorted, 950), p.P95},
		{"P99", nearest(sorted, 990), p.P99},
		{"P995", nearest(sorted, 995), p.P995},
		{"Max", sorted[len(sorted)-1], p.Max},
	} {
		off := max(16, row.want*16/1000)
		require.True(t, row.got >= row.want-off && row.got <= row.want+off, "%s is %v, not %v", row.name, row.got, row.want)
	}
	sum := time.Duration(0)
	for _, d := range sorted {
		sum += d
	}
	mean := sum / time.Duration(len(sorted))
	require.Equal(t, min(max(mean, p.Min), p.Max), p.Mean)
}

// together makes a call of each length, all of which end at the same moment.
func together(t *testing.T, cmd *firebreak.Command, lengths []time.Duration) {
	t.Helper()
	longest := slices.Max(lengths)
	var wg sync.WaitGroup
	for _, d := range lengths {
		wg.Go(func() {
			time.Sleep(longest - d)
			_, _ = firebreak.Do(t.Context(), cmd, deaf(d, 1, nil))
		})
	}
	wg.Wait()
}

// S55, against the sorted list of the latencies themselves.
func TestS55_PercentilesAgainstASortedList(t *testing.T) {
	const day = 24 * time.Hour
	r := rand.New(rand.NewPCG(55, 55))
	between := func(n int, least, most time.Duration) (ds []time.Duration) {
		for range n {
			ds = append(ds, least+time.Duration(r.Int64N(int64(most-least))))
		}
		return ds
	}
	for name, lengths := range map[string][]time.Duration{
		"one":     {123456789},
		"two":     {time.Millisecond, time.Second},
		"zero":    {0, 0, 0},
		"steady":  slices.Repeat([]time.Duration{20 * time.Millisecond}, 300),
		"uniform": between(999, time.Millisecond, time.Second),
		"bimodal": append(between(950, 2*time.Millisecond, 3*time.Millisecond), between(50, time.Second, 2*time.Second)...),
		"tails":   append(between(995, 50*time.Millisecond, 60*time.Millisecond), between(5, time.Microsecond, time.Minute)...),
		"tiny":    between(500, 0, 2*time.Microsecond),
		"huge":    between(200, time.Hour, 6*day),
		"all":     slices.Concat(between(100, 0, time.Microsecond), between(100, 0, time.Second), between(100, 0, time.Hour), between(100, 0, 6*day)),
	} {
		t.Run(name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{MaxConcurrent: firebreak.Unlimited, Timeout: firebreak.Off})
				together(t, p.cmd, lengths)
				s := p.cmd.Snapshot()
				requirePercentiles(t, lengths, s.RunLatency)
				require.Equal(t, s.RunLatency, s.CallLatency)
			})
		})
	}
	t.Run("longer than six days", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cmd := newCommand(t, firebreak.Config{Timeout: firebreak.Off})
			together(t, cmd, []time.Duration{30 * day, 365 * day})
			s := cmd.Snapshot()
			require.Greater(t, s.RunLatency.Min, 6*day)
			require.Less(t, s.RunLatency.Max, 7*day, "they are not told apart")
			require.Equal(t, 395*day, s.RunHistogram.Sum)
		})
	})
}

// S55: percentiles are of slots of 20 s, the present one and the two before.
func TestS55_PercentilesAreOfTheLast40To60Seconds(t *testing.T) {
	const slot = 20 * time.Second
	for _, row := range []struct{ end, gone time.Duration }{
		{0, 3 * slot},
		{1, 3 * slot},
		{slot - 1, 3 * slot},
		{slot, 4 * slot},
		{3*slot - 1, 5 * slot},
		{3 * slot, 6 * slot},
		{100 * slot, 103 * slot},
	} {
		for _, split := range []bool{false, true} { // with and without a fallback behind it
			synctest.Test(t, func(t *testing.T) {
				cmd := newCommand(t, firebreak.Config{})
				began := time.Now()
				at := func(d time.Duration) { time.Sleep(d - time.Since(began)) }
				at(row.end)
				if split {
					_, _ = firebreak.Do(t.Context(), cmd, fail, firebreak.Static(2))
				} else {
					_, _ = firebreak.Do(t.Context(), cmd, succeed)
				}
				want := cmd.Snapshot().RunLatency
				require.NotZero(t, want)
				at(row.gone - 1)
				s := cmd.Snapshot()
				require.Equal(t, want, s.RunLatency, row)
				require.Equal(t, want, s.CallLatency, row)
				at(row.gone)
				s = cmd.Snapshot()
				require.Zero(t, s.RunLatency, row)
				require.Zero(t, s.CallLatency, row)
				require.EqualValues(t, 1, s.RunHistogram.Count)
			})
		}
	}
}

// S55: run's time is run's, to its end or to its caller's leaving; the call's is from
// submission to the answer.
func TestS55_RunAndCallLatency(t *testing.T) {
	const s = time.Second
	const both = firebreak.Isolation(0)
	for _, row := range []struct {
		name      string
		in        firebreak.Isolation
		config    firebreak.Config
		wait      time.Duration // the permit is taken for so long
		run       func(context.Context) (int, error)
		fallback  firebreak.Fallback[int]
		runs, all time.Duration // what is to be told
	}{
		{name: "success", run: deaf(2*s, 1, nil), runs: 2 * s, all: 2 * s},
		{name: "failure without a fallback", run: deaf(2*s, 1, errBoom), runs: 2 * s, all: 2 * s},
		{name: "expected", run: deaf(2*s, 1, errExpected), fallback: answering(5*s, 2, nil), runs: 2 * s, all: 2 * s},
		{name: "fallback that answers", run: deaf(2*s, 1, errBoom), fallback: answering(5*s, 2, nil), runs: 2 * s, all: 7 * s},
		{name: "fallback that fails", run: deaf(2*s, 1, errBoom), fallback: answering(5*s, 2, errCache), runs: 2 * s, all: 7 * s},
		{name: "fallback that panics", run: deaf(2*s, 1, errBoom), fallback: func(context.Context, error) (int, error) { time.Sleep(5 * s); panic("boom") }, runs: 2 * s, all: 7 * s},
		{name: "fallback that is off", config: firebreak.Config{MaxFallbacks: firebreak.Off}, run: deaf(2*s, 1, errBoom), fallback: answering(5*s, 2, nil), runs: 2 * s, all: 2 * s},
		{name: "wait", wait: 3 * s, run: deaf(2*s, 1, nil), runs: 2 * s, all: 5 * s},
		{name: "wait and fallback", wait: 3 * s, run: deaf(2*s, 1, errBoom), fallback: answering(5*s, 2, nil), runs: 2 * s, all: 10 * s},
		{name: "late value", in: semaphores, run: deaf(70*s, 1, nil), runs: 70 * s, all: 70 * s},
		{name: "timeout", in: semaphores, run: heeds(0, nil), fallback: answering(5*s, 2, nil), runs: 60 * s, all: 65 * s},
		{name: "the caller leaves", in: pools, run: deaf(70*s, 1, nil), runs: 60 * s, all: 60 * s},
		{name: "the caller leaves for a fallback", in: pools, wait: 3 * s, run: deaf(70*s, 1, nil), fallback: answering(5*s, 2, nil), runs: 57 * s, all: 65 * s},
		{name: "a panic", run: func(context.Context) (int, error) { time.Sleep(2 * s); panic("boom") }, runs: 2 * s, all: 2 * s},
	} {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				if row.in != both && row.in != in {
					return
				}
				config := roomToWait(in)
				config.MaxFallbacks = row.config.MaxFallbacks
				p := newPlace(t, in, config)
				_, _ = firebreak.Do(t.Context(), p.cmd, deaf(time.Millisecond, 1, nil)) // one whose total is its run
				if row.wait > 0 {
					p.occupy(row.wait)
				}
				var told firebreak.CallEvent // the last that is told of it
				tell := func(_ context.Context, e firebreak.CallEvent) {
					if e.Command == "cmd" {
						told = e
					}
				}
				stop := p.reg.Observe(firebreak.Observer{Call: tell, Fallback: tell})
				answerOf(func() (int, error) { return firebreak.Do(t.Context(), p.cmd, row.run, row.fallback) })
				stop()
				require.Equal(t, row.runs, told.Run)
				require.Equal(t, row.all, told.Call)
				got := p.cmd.Snapshot()
				require.Equal(t, time.Millisecond+row.runs, got.RunHistogram.Sum)
				require.Equal(t, time.Millisecond+row.all, got.CallHistogram.Sum)
				require.EqualValues(t, 2, got.RunHistogram.Count)
				require.EqualValues(t, 2, got.CallHistogram.Count)
				run, all := []time.Duration{time.Millisecond, row.runs}, []time.Duration{time.Millisecond, row.all}
				if row.all >= 60*s { // the first is forgotten
					run, all = run[1:], all[1:]
				}
				requirePercentiles(t, run, got.RunLatency)
				requirePercentiles(t, all, got.CallLatency)
				time.Sleep(time.Minute) // a run that was left is no sample
				synctest.Wait()
				require.EqualValues(t, 2, p.cmd.Snapshot().RunHistogram.Count)
			})
		})
	}
}

// S55: refused calls have no latency, however long they waited.
func TestS55_LatenciesAreOfExecutedCalls(t *testing.T) {
	for _, row := range countedRows {
		if row.before == nil {
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlace(t, semaphores, row.config)
				row.before(t, p)
				before := p.cmd.Snapshot()
				row.happens(t, p)
				after := p.cmd.Snapshot()
				executed := after.Total.Executed() - before.Total.Executed()
				require.Equal(t, before.RunHistogram.Count+executed, after.RunHistogram.Count)
				require.Equal(t, before.CallHistogram.Count+executed, after.CallHistogram.Count)
			})
		})
	}
}

// S56: cumulative counts have bounds that double, and the sum is exact.
func TestS56_BucketsOnBothSidesOfEachBound(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: firebreak.Unlimited, Timeout: firebreak.Off})
		var lengths []time.Duration
		sum := time.Duration(0)
		for i := 15; i <= 37; i++ {
			lengths = append(lengths, 1<<i-1, 1<<i, 1<<i+1)
		}
		lengths = append(lengths, 0, 1, time.Hour)
		for _, d := range lengths {
			sum += d
		}
		check := func(h *firebreak.Histogram) {
			t.Helper()
			require.EqualValues(t, len(lengths), h.Count)
			require.Equal(t, sum, h.Sum)
			var bounds []time.Duration
			for bound, n := range h.Buckets() {
				bounds = append(bounds, bound)
				below := 0
				for _, d := range lengths {
					if d < bound {
						below++
					}
				}
				require.EqualValues(t, below, n, bound)
			}
			require.Len(t, bounds, 21)
			for i, bound := range bounds {
				require.Equal(t, time.Duration(1<<(16+i)), bound)
			}
		}
		together(t, p.cmd, lengths)
		s := p.cmd.Snapshot()
		check(&s.RunHistogram)
		check(&s.CallHistogram)

		// Nothing of it is in a window any more, but in a snapshot it is.
		time.Sleep(time.Hour)
		s = p.cmd.Snapshot()
		require.Zero(t, s.RunLatency)
		check(&s.RunHistogram)
		_, _ = firebreak.Do(t.Context(), p.cmd, deaf(time.Second, 0, errBoom), answering(time.Second, 2, nil))
		s = p.cmd.Snapshot()
		lengths, sum = append(lengths, time.Second), sum+time.Second
		check(&s.RunHistogram)
		lengths[len(lengths)-1], sum = 2*time.Second, sum+time.Second
		check(&s.CallHistogram)
		for range 5 {
			time.Sleep(20 * time.Second)
			_, _ = firebreak.Do(t.Context(), p.cmd, succeed)
			lengths = append(lengths, 0)
			s = p.cmd.Snapshot()
			check(&s.CallHistogram)
		}
	})
}

func TestBucketsMayStop(t *testing.T) {
	var h firebreak.Histogram
	n := 0
	for _, below := range h.Buckets() {
		require.Zero(t, below)
		n++
		if n == 3 {
			break
		}
	}
	require.Equal(t, 3, n)
}

// Percentiles and histograms against lists of all latencies there ever were.
func TestS55_LatenciesAgainstAList(t *testing.T) {
	const slot = 20 * time.Second
	type sample struct {
		slot time.Duration
		d    time.Duration
	}
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			reg := firebreak.NewRegistry(firebreak.Config{})
			cmd := reg.Command("dep", firebreak.Config{MaxConcurrent: 1, MaxWait: time.Hour, Timeout: firebreak.Off, ErrorThresholdPercentage: firebreak.Off})
			began := time.Now()
			var runs, calls []sample
			now := func() time.Duration { return time.Since(began) / slot }
			lengths := rapid.OneOf(rapid.Int64Range(0, 100), rapid.Int64Range(0, 1e6), rapid.Int64Range(0, 1e9), rapid.Int64Range(0, 70e9))
			length := func(rt *rapid.T, what string) time.Duration { return time.Duration(lengths.Draw(rt, what)) }
			live := func(list []sample) (ds []time.Duration) {
				for _, s := range list {
					if now()-s.slot < 3 {
						ds = append(ds, s.d)
					}
				}
				return ds
			}
			cumulative := func(rt *rapid.T, list []sample, h firebreak.Histogram) {
				require.EqualValues(rt, len(list), h.Count)
				sum := time.Duration(0)
				for _, s := range list {
					sum += s.d
				}
				require.Equal(rt, sum, h.Sum)
				for bound, n := range h.Buckets() {
					below := 0
					for _, s := range list {
						if s.d < bound {
							below++
						}
					}
					require.EqualValues(rt, below, n)
				}
			}
			rt.Repeat(map[string]func(*rapid.T){
				"wait": func(rt *rapid.T) { time.Sleep(pauses(slot, 3*slot).Draw(rt, "pause")) },
				"wait for an edge": func(rt *rapid.T) {
					next := slot - time.Since(began)%slot
					time.Sleep(next + rapid.SampledFrom([]time.Duration{-1, 0}).Draw(rt, "side"))
				},
				"call": func(rt *rapid.T) {
					d := length(rt, "run")
					_, _ = firebreak.Do(rt.Context(), cmd, deaf(d, 1, nil))
					runs, calls = append(runs, sample{now(), d}), append(calls, sample{now(), d})
				},
				"fallback": func(rt *rapid.T) {
					d, f := length(rt, "run"), length(rt, "fallback")
					_, _ = firebreak.Do(rt.Context(), cmd, deaf(d, 1, errBoom), func(context.Context, error) (int, error) {
						runs = append(runs, sample{now(), d})
						time.Sleep(f)
						return 2, nil
					})
					calls = append(calls, sample{now(), d + f})
				},
				"queue": func(rt *rapid.T) {
					wait, d := length(rt, "wait"), length(rt, "run")
					held, err := cmd.Begin(rt.Context())
					require.NoError(rt, err)
					time.AfterFunc(wait, held.End)
					_, _ = firebreak.Do(rt.Context(), cmd, deaf(d, 1, nil))
					ended := (time.Since(began) - d) / slot
					runs, calls = append(runs, sample{ended, wait}, sample{now(), d}), append(calls, sample{ended, wait}, sample{now(), wait + d})
				},
				"collide": func(rt *rapid.T) {
					release := firebreak.Collide(cmd)
					_, _ = firebreak.Do(rt.Context(), cmd, succeed)
					release()
					runs, calls = append(runs, sample{now(), 0}), append(calls, sample{now(), 0})
				},
				"": func(rt *rapid.T) {
					s := cmd.Snapshot()
					requirePercentiles(rt, live(runs), s.RunLatency)
					requirePercentiles(rt, live(calls), s.CallLatency)
					cumulative(rt, runs, s.RunHistogram)
					cumulative(rt, calls, s.CallHistogram)
				},
			})
		})
	})
}

// S54: counters never fall: a Snapshot that began before the first call whose total
// is not its run does not take that call's run for a total.
func TestS54_TheFirstPendingTotalUnderASnapshot(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{})
	_, err := firebreak.Do(t.Context(), cmd, succeed)
	require.NoError(t, err)
	release := firebreak.Collide(cmd)
	first := make(chan firebreak.Snapshot)
	go func() { first <- cmd.Snapshot() }()
	time.Sleep(20 * time.Millisecond) // it waits for the cell by now, or there is nothing to see
	asked, answer, done := make(chan bool), make(chan bool), make(chan bool)
	go func() {
		defer close(done)
		_, _ = firebreak.Do(context.Background(), cmd, fail, func(context.Context, error) (int, error) {
			asked <- true
			<-answer
			return 1, nil
		})
	}()
	<-asked
	release()
	require.EqualValues(t, 1, (<-first).CallHistogram.Count)
	require.EqualValues(t, 1, cmd.Snapshot().CallHistogram.Count)
	close(answer)
	<-done
}
