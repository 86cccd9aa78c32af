package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/chaos"
)

// What each fault comes to, for the caller and in the counts, whatever way the call
// was made. The timeout is a second.
func TestFaultsAndWhatTheyCountAs(t *testing.T) {
	expected := errors.New("not found")
	wrapped := fmt.Errorf("inner: %w", firebreak.ErrOpen)
	for _, row := range []struct {
		fault  chaos.Fault
		want   error // Is; nil: run was called, and is delivered
		reason error // of an *Error; nil: the error is unchanged
		after  time.Duration
		counts firebreak.Counts
	}{
		{chaos.Latency(chaos.Constant(0)), nil, nil, 0, firebreak.Counts{Success: 1}},
		{chaos.Latency(chaos.Constant(300 * ms)), nil, nil, 300 * ms, firebreak.Counts{Success: 1}},
		{chaos.Latency(chaos.Constant(time.Second - 1)), nil, nil, time.Second - 1, firebreak.Counts{Success: 1}},
		{chaos.Latency(chaos.Constant(time.Second + 1)), context.DeadlineExceeded, firebreak.ErrTimeout, time.Second, firebreak.Counts{Timeout: 1}},
		{chaos.Latency(chaos.Constant(chaos.Longest)), context.DeadlineExceeded, firebreak.ErrTimeout, time.Second, firebreak.Counts{Timeout: 1}},
		{chaos.Error(errBoom), errBoom, nil, 0, firebreak.Counts{Failure: 1}},
		{chaos.Error(firebreak.Mark(expected, firebreak.Expected)), expected, nil, 0, firebreak.Counts{Expected: 1}},
		{chaos.Error(wrapped), wrapped, nil, 0, firebreak.Counts{Failure: 1}},
		{chaos.Error(firebreak.ErrShutdown), firebreak.ErrShutdown, nil, 0, firebreak.Counts{Failure: 1}},
		{chaos.Open(), firebreak.ErrOpen, firebreak.ErrOpen, 0, firebreak.Counts{ShortCircuited: 1}},
		{chaos.Error(firebreak.ErrOpen), firebreak.ErrOpen, firebreak.ErrOpen, 0, firebreak.Counts{ShortCircuited: 1}},
		{chaos.Reject(), firebreak.ErrRejected, firebreak.ErrRejected, 0, firebreak.Counts{Rejected: 1}},
		{chaos.Error(firebreak.ErrRejected), firebreak.ErrRejected, firebreak.ErrRejected, 0, firebreak.Counts{Rejected: 1}},
		{chaos.Timeout(), context.DeadlineExceeded, firebreak.ErrTimeout, 0, firebreak.Counts{Timeout: 1}},
		{chaos.Error(firebreak.ErrTimeout), context.DeadlineExceeded, firebreak.ErrTimeout, 0, firebreak.Counts{Timeout: 1}},
		{chaos.Hang(), context.DeadlineExceeded, firebreak.ErrTimeout, time.Second, firebreak.Counts{Timeout: 1}},
		{chaos.Sequence(chaos.Latency(chaos.Constant(300*ms)), chaos.Error(errBoom)), errBoom, nil, 300 * ms, firebreak.Counts{Failure: 1}},
		{chaos.Sequence(chaos.Latency(chaos.Constant(300*ms)), chaos.Latency(chaos.Constant(400*ms))), nil, nil, 700 * ms, firebreak.Counts{Success: 1}},
		{chaos.Sequence(chaos.Error(errBoom), chaos.Hang()), errBoom, nil, 0, firebreak.Counts{Failure: 1}},
		{chaos.Sequence(chaos.Hang(), chaos.Error(errBoom)), context.DeadlineExceeded, firebreak.ErrTimeout, time.Second, firebreak.Counts{Timeout: 1}},
	} {
		for _, verb := range verbs {
			t.Run(row.fault.String()+", "+verb.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cmd := newCommand(t, firebreak.Config{Isolation: verb.isolation})
					start(t, drill(row.fault), cmd)
					ran := 0
					var err error
					require.Equal(t, row.after, took(func() {
						err = makes(t.Context(), cmd, verb.begin, func(context.Context) error { ran++; return nil })
					}))
					require.Equal(t, row.want == nil, ran == 1)
					require.ErrorIs(t, err, row.want)
					if row.reason != nil {
						e, ok := errors.AsType[*firebreak.Error](err)
						require.True(t, ok)
						require.Equal(t, row.reason, e.Reason)
					} else {
						require.True(t, err == row.want)
					}
					want := row.counts
					if !verb.begin && row.want != nil && want.Expected == 0 {
						want.FallbackMissing = 1
					}
					s := cmd.Snapshot()
					require.Equal(t, want, s.Total)
					require.Equal(t, want.Executed(), s.RunHistogram.Count)
					if want.Executed() == 1 {
						require.Equal(t, row.after, s.RunHistogram.Sum, "what is injected is the dependency's latency")
					}
				})
			})
		}
	}
}

// Nobody waits longer than his context: neither a caller that goes nor, in a pool,
// the worker that he leaves.
func TestWaitsEndWithTheirCaller(t *testing.T) {
	for _, fault := range []chaos.Fault{chaos.Hang(), chaos.Latency(chaos.Constant(time.Minute))} {
		for _, verb := range verbs {
			t.Run(fault.String()+", "+verb.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cmd := newCommand(t, firebreak.Config{Isolation: verb.isolation, Timeout: firebreak.Off})
					start(t, drill(fault), cmd)
					run := func(context.Context) error { t.Error("run was called"); return nil }

					ctx, cancel := context.WithCancel(t.Context())
					time.AfterFunc(50*ms, cancel)
					var err error
					require.Equal(t, 50*ms, took(func() { err = makes(ctx, cmd, verb.begin, run) }))
					require.ErrorIs(t, err, context.Canceled)

					ctx, cancel = context.WithTimeout(t.Context(), 70*ms)
					defer cancel()
					require.Equal(t, 70*ms, took(func() { err = makes(ctx, cmd, verb.begin, run) }))
					require.ErrorIs(t, err, context.DeadlineExceeded)

					synctest.Wait()
					s := cmd.Snapshot()
					require.Zero(t, s.Bulkhead.InFlight, "permits out")
					require.EqualValues(t, 1, s.Total.Canceled)
					require.EqualValues(t, 1, s.Total.CallerDeadline)
					require.EqualValues(t, 2, s.Total.Calls())
				})
			})
		}
	}
}

func TestErrorTakesTheTextOnceAndRefusesNil(t *testing.T) {
	require.PanicsWithValue(t, "chaos: error: nil is none", func() { chaos.Error(nil) })
	asked := 0
	f := chaos.Error(textError(func() string { asked++; return "line\n\"two\"\xff" }))
	require.Equal(t, `error "line\n\"two\"\xff"`, f.String())
	require.Equal(t, `50% error "line\n\"two\"\xff"`, chaos.Chance(50, f).String())
	require.Equal(t, 1, asked)
}

type textError func() string

func (f textError) Error() string { return f() }

// The same seed hits the same calls, to the last: these were counted once.
func TestChanceIsRepeatableWithASeed(t *testing.T) {
	seeded := func(seed uint64, percentage float64) []int {
		cmd := newCommand(t, firebreak.Config{Mode: firebreak.ForceClosed})
		d := drill(chaos.Chance(percentage, chaos.Error(errBoom)))
		d.Seed = seed
		start(t, d, cmd)
		require.Contains(t, cmd.Snapshot().Override.Reason, fmt.Sprintf(", seed %d: ticket 123", seed))
		return hits(t, cmd, 1000)
	}
	first := seeded(7, 20)
	require.Len(t, first, 217)
	require.Equal(t, []int{5, 6, 11, 12, 19}, first[:5])
	require.Equal(t, first, seeded(7, 20))
	require.NotEqual(t, first, seeded(8, 20))
	require.Subset(t, seeded(7, 21), first, "a higher chance hits the same and more")
	require.Empty(t, seeded(7, 0))
	require.Len(t, seeded(7, 100), 1000)
}

// The draws of a call do not depend on what others drew, so which calls run at once
// changes nothing in the sum.
func TestSeededDrillsCountTheSameConcurrently(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{Mode: firebreak.ForceClosed, MaxConcurrent: firebreak.Unlimited})
	d := drill(chaos.Chance(20, chaos.Error(errBoom)))
	d.Seed = 7
	start(t, d, cmd)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { hits(t, cmd, 125) })
	}
	wg.Wait()
	require.EqualValues(t, 217, cmd.Snapshot().Total.Failure)
}

// Calls in a row draw as if the generator went on, though each has its own: no
// percentage, however small, is missed or met too often.
func TestChanceIsWhatItSays(t *testing.T) {
	const n = 10_000
	for _, seed := range []uint64{0, 1, 2, 1 << 63, math.MaxUint64} {
		for _, percentage := range []float64{0.5, 20, 50, 99} {
			cmd := newCommand(t, firebreak.Config{Mode: firebreak.ForceClosed})
			d := drill(chaos.Chance(percentage, chaos.Error(errBoom)))
			d.Seed = seed
			start(t, d, cmd)
			p := percentage / 100
			sd := math.Sqrt(n * p * (1 - p))
			require.InDelta(t, n*p, len(hits(t, cmd, n)), 6*sd, "seed %d, %v%%", seed, percentage)
		}
	}
}

// Each part draws for itself, one after the other.
func TestChancesInASequenceAreIndependent(t *testing.T) {
	other := errors.New("other")
	cmd := newCommand(t, firebreak.Config{Mode: firebreak.ForceClosed})
	d := drill(chaos.Sequence(chaos.Chance(50, chaos.Error(errBoom)), chaos.Chance(50, chaos.Error(other))))
	d.Seed = 1
	start(t, d, cmd)
	counts := map[error]int{}
	for range 4000 {
		counts[cmd.Run(t.Context(), succeed)]++
	}
	require.InDelta(t, 2000, counts[errBoom], 200)
	require.InDelta(t, 1000, counts[other], 200)
	require.InDelta(t, 1000, counts[nil], 200)
}

func TestLatencyIsRepeatableWithASeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := func(seed uint64) (all []time.Duration) {
			cmd := newCommand(t, firebreak.Config{Timeout: firebreak.Off})
			d := drill(chaos.Latency(chaos.LogNormal(50*ms, 400*ms)))
			d.Seed = seed
			start(t, d, cmd)
			for range 20 {
				all = append(all, took(func() { cmd.Run(t.Context(), succeed) }))
			}
			return all
		}
		first := waits(7)
		require.Equal(t, first, waits(7))
		require.NotEqual(t, first, waits(8))
		require.NotEqual(t, first[0], first[1])
		once, again := waits(0), waits(0)
		require.NotEqual(t, once, again, "without a seed")
	})
}

// Both sides of each edge, and that the schedule begins with the drill.
func TestSchedules(t *testing.T) {
	boom := chaos.Error(errBoom)
	for _, row := range []struct {
		fault chaos.Fault
		off   []time.Duration // since the drill began
		on    []time.Duration
	}{
		{
			chaos.Flap(10*time.Second, 50*time.Second, boom),
			[]time.Duration{10 * time.Second, 60*time.Second - 1, 70 * time.Second},
			[]time.Duration{0, 10*time.Second - 1, 60 * time.Second, 70*time.Second - 1, 1200 * time.Second},
		},
		{
			chaos.Flap(1, 1, boom),
			[]time.Duration{1, 3},
			[]time.Duration{0, 2, 4},
		},
		{
			chaos.After(5*time.Minute, boom),
			[]time.Duration{0, 5*time.Minute - 1},
			[]time.Duration{5 * time.Minute, 30 * time.Minute},
		},
		{
			chaos.After(5*time.Minute, chaos.Flap(time.Minute, time.Minute, boom)),
			[]time.Duration{0, 2 * time.Minute, 5 * time.Minute, 7 * time.Minute},
			[]time.Duration{6 * time.Minute, 8 * time.Minute},
		},
		{
			chaos.Ramp(0, 100, time.Minute, boom),
			[]time.Duration{0},
			[]time.Duration{time.Minute, time.Hour - 1},
		},
		{
			chaos.Ramp(100, 0, time.Minute, boom),
			[]time.Duration{time.Minute, time.Hour - 1},
			[]time.Duration{0},
		},
		{
			boom, // the drill's own end
			[]time.Duration{time.Hour, 2 * time.Hour},
			[]time.Duration{0, time.Hour - 1},
		},
	} {
		at := func(t *testing.T, since time.Duration) error {
			t.Helper()
			cmd := newCommand(t, firebreak.Config{})
			time.Sleep(time.Hour) // the registry's time is not the drill's
			start(t, drill(row.fault), cmd)
			time.Sleep(since)
			return cmd.Run(t.Context(), succeed)
		}
		t.Run(row.fault.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, since := range row.off {
					require.NoError(t, at(t, since), since)
				}
				for _, since := range row.on {
					require.ErrorIs(t, at(t, since), errBoom, since)
				}
			})
		})
	}
}

func TestRampGoesThroughThePercentagesBetween(t *testing.T) {
	for _, row := range []struct{ from, to, third float64 }{{0, 90, 30}, {90, 0, 60}, {40, 10, 30}} {
		synctest.Test(t, func(t *testing.T) {
			cmd := newCommand(t, firebreak.Config{Mode: firebreak.ForceClosed})
			d := drill(chaos.Ramp(row.from, row.to, 3*time.Minute, chaos.Error(errBoom)))
			d.Seed = 1
			start(t, d, cmd)
			time.Sleep(time.Minute)
			require.InDelta(t, 100*row.third, len(hits(t, cmd, 10_000)), 300)
			time.Sleep(5 * time.Minute)
			require.InDelta(t, 100*row.to, len(hits(t, cmd, 10_000)), 300, "it stays there")
		})
	}
}

func TestGrowLengthensLatencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{})
		grow := chaos.Grow(10*time.Minute, chaos.Latency(chaos.Constant(400*ms)))
		for since, want := range map[time.Duration]time.Duration{
			0: 0, 1 * time.Minute: 40 * ms, 5 * time.Minute: 200 * ms, 10 * time.Minute: 400 * ms, 40 * time.Minute: 400 * ms,
		} {
			stop := start(t, drill(chaos.Sequence(grow, chaos.Latency(chaos.Constant(ms)))), cmd)
			time.Sleep(since)
			require.Equal(t, want+ms, took(func() { cmd.Run(t.Context(), succeed) }), "after %v; the part beside it is as ever", since)
			stop()
		}
	})
}

func TestGrowInGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{})
		start(t, drill(chaos.Grow(10*time.Minute, chaos.Grow(20*time.Minute, chaos.Latency(chaos.Constant(800*ms))))), cmd)
		time.Sleep(5 * time.Minute)
		require.Equal(t, 100*ms, took(func() { cmd.Run(t.Context(), succeed) }))
	})
}

type testTraffic struct{}

func TestOnly(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{})
	isTest := func(ctx context.Context) bool { return ctx.Value(testTraffic{}) != nil }
	start(t, drill(chaos.Only(`test "traffic"`, isTest, chaos.Error(errBoom))), cmd)
	require.NoError(t, cmd.Run(t.Context(), succeed))
	require.ErrorIs(t, cmd.Run(context.WithValue(t.Context(), testTraffic{}, true), succeed), errBoom)
	require.Equal(t, `drill: only "test \"traffic\"" error "boom": ticket 123`, cmd.Snapshot().Override.Reason)

	require.PanicsWithValue(t, "chaos: only: no match", func() { chaos.Only("x", nil, chaos.Hang()) })
	require.PanicsWithValue(t, `chaos: only "x": no fault`, func() { chaos.Only("x", isTest, chaos.Fault{}) })
}

func TestOnlyThatPanicsIsARunThatPanics(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{RecoverPanics: firebreak.On})
	start(t, drill(chaos.Only("x", func(context.Context) bool { panic("boom") }, chaos.Hang())), cmd)
	e, ok := errors.AsType[*firebreak.PanicError](cmd.Run(t.Context(), succeed))
	require.True(t, ok)
	require.Equal(t, "boom", e.Value)
	require.EqualValues(t, 1, cmd.Snapshot().Total.Panic)
}

func TestMakersOfFaultsPanicOnBadLiterals(t *testing.T) {
	hang := chaos.Hang()
	for want, f := range map[string]func(){
		"chaos: -1 is not a percentage from 0 to 100":        func() { chaos.Chance(-1, hang) },
		"chaos: 100.5 is not a percentage from 0 to 100":     func() { chaos.Chance(100.5, hang) },
		"chaos: NaN is not a percentage from 0 to 100":       func() { chaos.Chance(math.NaN(), hang) },
		"chaos: +Inf is not a percentage from 0 to 100":      func() { chaos.Chance(math.Inf(1), hang) },
		"chaos: -Inf is not a percentage from 0 to 100":      func() { chaos.Ramp(math.Inf(-1), 5, 1, hang) },
		"chaos: 101 is not a percentage from 0 to 100":       func() { chaos.Ramp(5, 101, 1, hang) },
		"chaos: ramp: over: 0s is not from 1ns to 168h":      func() { chaos.Ramp(5, 10, 0, hang) },
		"chaos: flap: on: 0s is not from 1ns to 168h":        func() { chaos.Flap(0, 1, hang) },
		"chaos: flap: off: -1ns is not from 1ns to 168h":     func() { chaos.Flap(1, -1, hang) },
		"chaos: after: 0s is not from 1ns to 168h":           func() { chaos.After(0, hang) },
		"chaos: growing: over: 200h is not from 1ns to 168h": func() { chaos.Grow(200*time.Hour, hang) },
		"chaos: 20%: no fault":                               func() { chaos.Chance(20, chaos.Fault{}) },
		"chaos: 1% to 2% over 1s: no fault":                  func() { chaos.Ramp(1, 2, time.Second, chaos.Fault{}) },
		"chaos: 1s on 1s off: no fault":                      func() { chaos.Flap(time.Second, time.Second, chaos.Fault{}) },
		"chaos: after 1s: no fault":                          func() { chaos.After(time.Second, chaos.Fault{}) },
		"chaos: growing: no fault":                           func() { chaos.Grow(time.Second, chaos.Fault{}) },
		"chaos: sequence: no fault":                          func() { chaos.Sequence() },
	} {
		assert.PanicsWithValue(t, want, f)
	}
	require.PanicsWithValue(t, "chaos: sequence: no fault", func() { chaos.Sequence(hang, chaos.Fault{}) })
}

func TestNegativeZeroIsZero(t *testing.T) {
	zero := math.Copysign(0, -1)
	require.Equal(t, "0% hang", chaos.Chance(zero, chaos.Hang()).String())
	require.Equal(t, "0% to 0% over 1s hang", chaos.Ramp(zero, zero, time.Second, chaos.Hang()).String())
}

func TestASequenceOfOneOrOfSequencesIsFlat(t *testing.T) {
	a, b, c := chaos.Open(), chaos.Reject(), chaos.Timeout()
	require.Equal(t, "open", chaos.Sequence(a).String())
	flat := chaos.Sequence(a, chaos.Sequence(b, c))
	require.Equal(t, "open; reject; timeout", flat.String())
	require.Equal(t, "5% (open; reject; timeout)", chaos.Chance(5, flat).String())
	require.Equal(t, "5% open; reject", chaos.Sequence(chaos.Chance(5, a), b).String())
}

// What the caller does with the slice he gave is not the fault's business.
func TestASequenceKeepsItsOwnFaults(t *testing.T) {
	faults := []chaos.Fault{chaos.Error(errBoom), chaos.Hang()}
	f := chaos.Sequence(faults...)
	faults[0] = chaos.Open()
	cmd := newCommand(t, firebreak.Config{})
	start(t, drill(f), cmd)
	require.ErrorIs(t, cmd.Run(t.Context(), succeed), errBoom)
	require.True(t, strings.HasPrefix(f.String(), `error "boom"`))
}
