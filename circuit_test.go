package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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

// A breaker is a command under test: its methods make calls and say how they must
// end.
type breaker struct {
	*firebreak.Command
	t     testing.TB
	began time.Time
	held  map[string]*firebreak.Call
}

func newBreaker(t testing.TB, c firebreak.Config) *breaker {
	t.Helper()
	return breakerOf(t, newCommand(t, c))
}

func breakerOf(t testing.TB, cmd *firebreak.Command) *breaker {
	t.Helper()
	return &breaker{Command: cmd, t: t, began: time.Now(), held: map[string]*firebreak.Call{}}
}

// at waits until so long after the command was made.
func (b *breaker) at(d time.Duration) { time.Sleep(d - time.Since(b.began)) }

// ends makes n calls whose run returns err.
func (b *breaker) ends(n int, err error) { b.t.Helper(); b.takes(n, 0, err) }

func (b *breaker) succeeds(n int) { b.t.Helper(); b.ends(n, nil) }
func (b *breaker) fails(n int)    { b.t.Helper(); b.ends(n, errBoom) }

// takes makes n calls whose run takes so long and returns err, which their caller
// gets back without its mark.
func (b *breaker) takes(n int, d time.Duration, err error) {
	b.t.Helper()
	for range n {
		ran := false
		_, got := firebreak.Do(b.t.Context(), b.Command, func(context.Context) (int, error) {
			ran = true
			time.Sleep(d)
			return 0, err
		})
		require.True(b.t, ran, "the call was refused: %v", got)
		require.ErrorIs(b.t, err, got)
	}
}

// canceled makes n calls that fail because their caller leaves.
func (b *breaker) canceled(n int) {
	b.t.Helper()
	for range n {
		ctx, cancel := context.WithCancel(b.t.Context())
		_, err := firebreak.Do(ctx, b.Command, func(ctx context.Context) (int, error) {
			cancel()
			<-ctx.Done()
			return 0, ctx.Err()
		})
		require.ErrorIs(b.t, err, context.Canceled)
	}
}

// refused makes a call that must be short-circuited.
func (b *breaker) refused() { b.t.Helper(); _ = b.refusal() }

// refusal is refused, and returns the call's error.
func (b *breaker) refusal() *firebreak.Error {
	b.t.Helper()
	_, err := firebreak.Do(b.t.Context(), b.Command, func(context.Context) (int, error) {
		b.t.Error("a call was let through")
		return 0, nil
	})
	require.ErrorIs(b.t, err, firebreak.ErrOpen)
	e, ok := errors.AsType[*firebreak.Error](err)
	require.True(b.t, ok)
	require.Equal(b.t, firebreak.ErrOpen, e.Reason)
	require.NoError(b.t, e.Cause)
	return e
}

// begins makes a call that stays open until home ends it.
func (b *breaker) begins(name string) {
	b.t.Helper()
	call, err := b.Begin(b.t.Context())
	require.NoError(b.t, err)
	require.Nil(b.t, b.held[name], "the test has two calls %q", name)
	b.held[name] = call
}

// home ends a call that was begun, with run's error.
func (b *breaker) home(name string, err error) {
	b.t.Helper()
	call := b.held[name]
	require.NotNil(b.t, call, "the test has no call %q", name)
	call.Settle(err)
	call.End()
	delete(b.held, name)
}

func (b *breaker) is(want firebreak.State) {
	b.t.Helper()
	require.Equal(b.t, want, b.Snapshot().State)
}

// trips opens the circuit by as many failures as the default rules want.
func (b *breaker) trips() { b.t.Helper(); trip(b.t, b.Command) }

// sleeps waits for the moment of the first probe.
func (b *breaker) sleeps() { time.Sleep(time.Until(b.Snapshot().Evidence.NextProbe)) }

// halfOpens trips the circuit and begins its first probe.
func (b *breaker) halfOpens(probe string) {
	b.t.Helper()
	b.trips()
	b.sleeps()
	b.begins(probe)
	b.is(firebreak.StateHalfOpen)
}

// recovers closes an open circuit.
func (b *breaker) recovers() {
	b.t.Helper()
	b.sleeps()
	for range b.Config().Probes {
		b.succeeds(1)
	}
	b.is(firebreak.StateClosed)
}

// lengths of the sleep window, from the last opening to its first probe.
func (b *breaker) sleepLength() time.Duration {
	e := b.Snapshot().Evidence
	return e.NextProbe.Sub(e.At)
}

// What run may say of its own errors.
var (
	errIgnored  = firebreak.Mark(errors.New("not its fault"), firebreak.Ignored)
	errExpected = firebreak.Mark(errors.New("not found"), firebreak.Expected)
)

// watch collects the transitions of a registry, whose calls must come from one
// goroutine at a time.
func watch(reg *firebreak.Registry) *[]firebreak.Transition {
	seen := new([]firebreak.Transition)
	reg.Observe(firebreak.Observer{Transition: func(tr firebreak.Transition) { *seen = append(*seen, tr) }})
	return seen
}

// The rows of the table in semantics.md, section 5, but for those of modes, which
// are in override_test.go.
func TestCircuitStateTable(t *testing.T) {
	const (
		closed   = firebreak.StateClosed
		open     = firebreak.StateOpen
		halfOpen = firebreak.StateHalfOpen
	)
	type step struct {
		at    time.Duration // since the circuit was made
		do    func(*breaker)
		state firebreak.State // afterwards
	}
	fails := func(n int) func(*breaker) { return func(b *breaker) { b.t.Helper(); b.fails(n) } }
	succeeds := func(n int) func(*breaker) { return func(b *breaker) { b.t.Helper(); b.succeeds(n) } }
	begins := func(names ...string) func(*breaker) {
		return func(b *breaker) {
			b.t.Helper()
			for _, name := range names {
				b.begins(name)
			}
		}
	}
	home := func(name string, err error) func(*breaker) {
		return func(b *breaker) { b.t.Helper(); b.home(name, err) }
	}
	refused := func(b *breaker) { b.t.Helper(); b.refused() }
	canceled := func(b *breaker) { b.t.Helper(); b.canceled(1) }
	nothing := func(*breaker) {}

	const sleep, ns = 5 * time.Second, time.Nanosecond
	for _, row := range []struct {
		name   string
		probes int
		steps  []step
	}{
		{"closed: calls pass and are counted", 1, []step{
			{0, succeeds(100), closed},
			{0, fails(99), closed},
			{0, fails(1), open},
		}},
		{"closed: a rule holds", 1, []step{
			{0, fails(19), closed},
			{0, fails(1), open},
			{0, refused, open},
		}},
		{"closed: any outcome while the era is lacking", 1, []step{
			{0, fails(10), closed},
			{0, succeeds(9), closed},
			{0, succeeds(1), open},
		}},
		{"open: short-circuited before the probe moment, a probe from it on", 1, []step{
			{0, fails(20), open},
			{sleep - ns, refused, open},
			{sleep, nothing, open},
			{sleep, begins("probe"), halfOpen},
			{sleep, refused, halfOpen},
			{sleep, home("probe", nil), closed},
		}},
		{"open: a probe also long after", 1, []step{
			{0, fails(20), open},
			{time.Hour, nothing, open},
			{time.Hour, begins("probe"), halfOpen},
			{time.Hour, home("probe", nil), closed},
		}},
		{"half-open: as many probes as there are places", 3, []step{
			{0, fails(20), open},
			{sleep, begins("a", "b", "c"), halfOpen},
			{sleep, refused, halfOpen},
			{sleep, home("a", nil), halfOpen},
			{sleep, refused, halfOpen}, // a good answer keeps its place
			{sleep, home("b", nil), halfOpen},
			{sleep, refused, halfOpen},
			{sleep, home("c", nil), closed},
		}},
		{"half-open: good answers one after the other", 3, []step{
			{0, fails(20), open},
			{sleep, succeeds(1), halfOpen},
			{sleep + time.Minute, succeeds(1), halfOpen},
			{sleep + time.Hour, begins("c"), halfOpen},
			{sleep + time.Hour, refused, halfOpen},
			{sleep + time.Hour, home("c", nil), closed},
		}},
		{"half-open: the last good answer begins an empty window", 1, []step{
			{0, fails(20), open},
			{sleep, succeeds(1), closed},
			{sleep, fails(19), closed},
			{sleep, fails(1), open},
		}},
		{"half-open: a bad probe re-opens", 1, []step{
			{0, fails(20), open},
			{sleep, fails(1), open},
			{2*sleep - ns, refused, open},
			{2 * sleep, succeeds(1), closed},
		}},
		{"half-open: a bad probe re-opens, whatever the others have said and will say", 3, []step{
			{0, fails(20), open},
			{sleep, succeeds(1), halfOpen},
			{sleep, begins("bad", "late"), halfOpen},
			{sleep, home("bad", errBoom), open},
			{sleep, home("late", nil), open},
			{2*sleep - ns, refused, open},
			{2 * sleep, succeeds(2), halfOpen}, // the good answer before counts no more
			{2 * sleep, succeeds(1), closed},
		}},
		{"half-open: a neutral probe gives its lease back", 1, []step{
			{0, fails(20), open},
			{sleep, begins("neutral"), halfOpen},
			{sleep, refused, halfOpen},
			{sleep, home("neutral", errIgnored), halfOpen},
			{sleep, canceled, halfOpen},
			{sleep, canceled, halfOpen},
			{sleep, succeeds(1), closed},
		}},
		{"half-open: a neutral probe gives back its own place only", 3, []step{
			{0, fails(20), open},
			{sleep, begins("a", "b", "c"), halfOpen},
			{sleep, home("b", errIgnored), halfOpen},
			{sleep, begins("d"), halfOpen},
			{sleep, refused, halfOpen},
			{sleep, home("a", nil), halfOpen},
			{sleep, home("c", nil), halfOpen},
			{sleep, home("d", nil), closed},
		}},
		{"half-open: the end of a lease frees its place and does nothing else", 1, []step{
			{0, fails(20), open},
			{sleep, begins("hung"), halfOpen},
			{2*sleep - ns, refused, halfOpen},
			{2 * sleep, nothing, halfOpen},
			{2 * sleep, begins("next"), halfOpen},
			{2 * sleep, refused, halfOpen},
			{2 * sleep, home("next", nil), closed},
			{2 * sleep, home("hung", errBoom), closed},
		}},
		{"half-open: a probe comes home good after its lease", 1, []step{
			{0, fails(20), open},
			{sleep, begins("late"), halfOpen},
			{2 * sleep, begins("next"), halfOpen},
			{2 * sleep, home("late", nil), closed},
			{2 * sleep, home("next", errBoom), closed},
		}},
		{"half-open: a probe comes home good after its lease, its place still free", 1, []step{
			{0, fails(20), open},
			{sleep, begins("late"), halfOpen},
			{10 * sleep, home("late", nil), closed},
		}},
		{"half-open: a probe comes home bad after its lease", 1, []step{
			{0, fails(20), open},
			{sleep, begins("late"), halfOpen},
			{2 * sleep, begins("next"), halfOpen},
			{2 * sleep, home("late", errBoom), open},
			{2 * sleep, home("next", nil), open},
			{3*sleep - ns, refused, open},
			{3 * sleep, succeeds(1), closed},
		}},
		{"half-open: a probe that comes home neutral after its lease gives nothing back", 1, []step{
			{0, fails(20), open},
			{sleep, begins("late"), halfOpen},
			{2 * sleep, begins("next"), halfOpen},
			{2 * sleep, home("late", errIgnored), halfOpen},
			{2 * sleep, refused, halfOpen},
			{2 * sleep, home("next", nil), closed},
		}},
		{"half-open: a lease that has ended is no lease, also while its probe is out", 2, []step{
			{0, fails(20), open},
			{sleep, begins("late"), halfOpen},
			{sleep + time.Second, begins("b"), halfOpen},
			{2*sleep + ns, home("b", nil), halfOpen},
			{2*sleep + ns, begins("c"), halfOpen}, // in late's place
			{2*sleep + ns, refused, halfOpen},
			{2*sleep + ns, home("c", nil), closed},
			{2*sleep + ns, home("late", nil), closed},
		}},
		{"half-open: good answers and leases together never exceed the places", 2, []step{
			{0, fails(20), open},
			{sleep, begins("late"), halfOpen},
			{sleep + time.Second, begins("b"), halfOpen},
			{2 * sleep, begins("c"), halfOpen}, // in late's place
			{2 * sleep, home("late", nil), halfOpen},
			{2 * sleep, home("b", errIgnored), halfOpen},
			{2 * sleep, refused, halfOpen}, // late's answer and c's lease
			{2 * sleep, home("c", nil), closed},
		}},
		{"half-open: the end of a lease frees no place that a good answer keeps", 2, []step{
			{0, fails(20), open},
			{sleep, begins("late"), halfOpen},
			{sleep + time.Second, begins("b"), halfOpen},
			{2 * sleep, begins("c"), halfOpen}, // in late's place
			{2 * sleep, home("late", nil), halfOpen},
			{2*sleep + time.Second, refused, halfOpen}, // b's lease has ended; there are late's answer and c's lease
			{2*sleep + time.Second, home("c", nil), closed},
			{2*sleep + time.Second, home("b", errBoom), closed},
		}},
		{"any: an outcome of an older era is for the statistics only", 1, []step{
			{0, begins("good", "bad", "bad too", "neutral"), closed},
			{0, fails(20), open},
			{0, home("good", nil), open},
			{sleep, begins("probe"), halfOpen},
			{sleep, home("bad", errBoom), halfOpen},
			{sleep, home("neutral", errIgnored), halfOpen},
			{sleep, refused, halfOpen},
			{sleep, home("probe", nil), closed},
			{sleep, fails(19), closed},
			{sleep, home("bad too", errBoom), closed},
			{sleep, fails(1), open},
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, firebreak.Config{Timeout: firebreak.Off, Probes: row.probes})
				for i, s := range row.steps {
					b.at(s.at)
					s.do(b)
					require.Equal(t, s.state, b.Snapshot().State, "after step %d, at %v", i, s.at)
				}
			})
		})
	}
}

// The row "the registry shuts down": no mode begins another era after that.
func TestCircuitShutIsTheLastEra(t *testing.T) {
	modes := []firebreak.Mode{firebreak.Auto, firebreak.ForceClosed, firebreak.Shadow, firebreak.ForceOpen}
	for _, config := range modes {
		t.Run(config.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newRegistry(t, firebreak.Config{Timeout: firebreak.Off})
				b := breakerOf(t, reg.Command("dep", firebreak.Config{}))
				b.halfOpens("probe")
				configures(t, reg, config)
				done := make(chan error)
				go func() { done <- reg.Shutdown(context.Background()) }()
				synctest.Wait()
				b.home("probe", nil)
				require.NoError(t, <-done)
				before := total(b.Command)

				for _, mode := range modes {
					b.Override(firebreak.Override{Mode: mode, Until: time.Now().Add(time.Minute)})
					for range 3 { // while it is in force, when it is over, and when it has been lifted
						b.is(firebreak.StateOpen)
						_, err := firebreak.Do(t.Context(), b.Command, succeed)
						require.ErrorIs(t, err, firebreak.ErrShutdown)
						before.Shutdown++
						before.FallbackMissing++
						require.Equal(t, before, total(b.Command))
						time.Sleep(time.Minute)
					}
				}
			})
		})
	}
}

func TestS27_TheHealthWindowBelongsToItsEra(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{Timeout: firebreak.Off, MaxConcurrent: firebreak.Unlimited})
		for i := range 100 {
			b.begins(fmt.Sprint(i))
		}
		b.trips()
		b.recovers()
		require.Zero(t, b.Snapshot().ErrorPercentage)
		for i := range 100 {
			b.home(fmt.Sprint(i), errBoom)
		}
		b.is(firebreak.StateClosed)
		require.Zero(t, b.Snapshot().ErrorPercentage, "they wrote where nobody looks")
		require.EqualValues(t, 120, total(b.Command).Failure, "the statistics count all")

		b.fails(19)
		b.is(firebreak.StateClosed)
		b.fails(1)
		b.is(firebreak.StateOpen)
	})
}

func TestS27_OpenShowsTheWindowThatTrippedAgeing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{SleepWindow: time.Minute})
		b.succeeds(10)
		b.at(time.Second)
		b.fails(10)
		require.InDelta(t, 50.0, b.Snapshot().ErrorPercentage, 0)
		b.at(10*time.Second - time.Nanosecond)
		require.InDelta(t, 50.0, b.Snapshot().ErrorPercentage, 0)
		b.at(10 * time.Second)
		require.InDelta(t, 100.0, b.Snapshot().ErrorPercentage, 0, "the successes have left the window")
		b.at(11*time.Second - time.Nanosecond)
		require.InDelta(t, 100.0, b.Snapshot().ErrorPercentage, 0)
		b.at(11 * time.Second)
		require.Zero(t, b.Snapshot().ErrorPercentage)

		b.at(time.Minute + time.Second)
		b.begins("probe")
		require.Zero(t, b.Snapshot().ErrorPercentage)
		b.home("probe", errBoom)
		require.Zero(t, b.Snapshot().ErrorPercentage, "a probe is in no window")
		require.Zero(t, b.Snapshot().Evidence.Calls)
	})
}

func TestS28_ABucketExpiresAsAWhole(t *testing.T) {
	const bucket = time.Second
	for _, row := range []struct {
		name        string
		first, last time.Duration
		trips       bool
	}{
		{"the newest and the nine before it", 0, 10*bucket - 1, true},
		{"the tenth before it is gone", 0, 10 * bucket, false},
		{"from the end of a bucket", bucket - 1, 10*bucket - 1, true},
		{"which expires with its beginning", bucket - 1, 10 * bucket, false},
		{"the next bucket expires later", bucket, 11*bucket - 1, true},
		{"and then", bucket, 11 * bucket, false},
		{"a gap longer than the window empties it", 0, time.Hour, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, firebreak.Config{})
				b.at(row.first)
				b.fails(19)
				b.at(row.last)
				b.fails(1)
				if row.trips {
					b.is(firebreak.StateOpen)
					return
				}
				b.is(firebreak.StateClosed)
				require.InDelta(t, 100.0, b.Snapshot().ErrorPercentage, 0)
				b.fails(18)
				b.is(firebreak.StateClosed)
				b.fails(1)
				b.is(firebreak.StateOpen)
			})
		})
	}
}

func TestS28_AnOutcomeBelongsToTheBucketInWhichItEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{Timeout: firebreak.Off})
		for i := range 19 {
			b.begins(fmt.Sprint(i))
		}
		b.at(5 * time.Second)
		for i := range 19 {
			b.home(fmt.Sprint(i), errBoom)
		}
		b.at(15*time.Second - time.Nanosecond)
		b.fails(1)
		b.is(firebreak.StateOpen)
	})
}

func TestS28_TheWindowIsOfTheConfiguredLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{Window: 100 * time.Millisecond})
		b.fails(19)
		b.at(100*time.Millisecond - time.Nanosecond)
		require.InDelta(t, 100.0, b.Snapshot().ErrorPercentage, 0)
		b.at(100 * time.Millisecond)
		require.Zero(t, b.Snapshot().ErrorPercentage)
		b.fails(19)
		b.is(firebreak.StateClosed)
		b.fails(1)
		b.is(firebreak.StateOpen)
	})
}

func TestS29_FailuresThatSuccessesFollowCanTripToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{})
		b.fails(15)
		b.succeeds(4)
		b.is(firebreak.StateClosed)
		b.succeeds(1)
		b.is(firebreak.StateOpen)
		e := b.Snapshot().Evidence
		require.Equal(t, "error percentage", e.Rule)
		require.Equal(t, "boom", e.LastError)
		require.EqualValues(t, 20, e.Calls)
		require.EqualValues(t, 15, e.Failures)
	})
}

func TestS29_FailuresDilutedBelowTheThresholdDoNotTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{})
		b.fails(9)
		b.succeeds(100)
		b.is(firebreak.StateClosed)
	})
}

func TestS29_ExpectedOutcomesCompleteTheVolumeAndNeutralOnesDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{})
		b.fails(19)
		b.ends(100, errIgnored)
		b.canceled(100)
		b.is(firebreak.StateClosed)
		b.ends(1, errExpected)
		b.is(firebreak.StateOpen)
	})
}

func TestS29_PassingTimeAloneTripsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{RequestVolumeThreshold: 10})
		b.succeeds(15)
		b.at(5 * time.Second)
		b.fails(10)
		b.is(firebreak.StateClosed)

		b.at(10 * time.Second)
		require.InDelta(t, 100.0, b.Snapshot().ErrorPercentage, 0, "the successes have expired")
		b.is(firebreak.StateClosed)
		b.succeeds(1)
		b.is(firebreak.StateClosed)
		b.fails(1)
		b.is(firebreak.StateOpen)
	})
}

// Whether good outcomes are judged shows where a threshold is lowered meanwhile.
func TestS29_GoodOutcomesAreJudgedWhileLackingAndNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		lower := func(percentage float64) {
			require.NoError(t, reg.Update(firebreak.Document{Defaults: firebreak.Config{
				RequestVolumeThreshold: 8, ErrorThresholdPercentage: percentage,
			}}))
		}
		lacking := breakerOf(t, reg.Command("lacking", firebreak.Config{}))
		lacking.succeeds(3)
		lacking.fails(5)
		diluted := breakerOf(t, reg.Command("diluted", firebreak.Config{}))
		diluted.fails(5)
		diluted.succeeds(6) // at the sixth: below the threshold, whatever the volume

		lower(40)
		diluted.succeeds(1)
		diluted.is(firebreak.StateClosed) // 5 of 12
		lacking.succeeds(1)
		lacking.is(firebreak.StateOpen) // 5 of 9
		diluted.fails(1)
		diluted.is(firebreak.StateOpen)
	})
}

// Ten failures and ten successes in any order are half of twenty: whoever ends
// last must see it.
func TestS29_NoOrderOfOutcomesMissesATrip(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{Window: time.Hour})
	for round := range 300 {
		cmd := reg.Command(fmt.Sprint(round), firebreak.Config{})
		var calls [20]*firebreak.Call
		for i := range calls {
			var err error
			calls[i], err = cmd.Begin(t.Context())
			require.NoError(t, err)
		}
		var wg sync.WaitGroup
		for worker := range 4 {
			wg.Go(func() {
				for i := worker; i < len(calls); i += 4 {
					if worker%2 == 0 {
						calls[i].Settle(errBoom)
					} else {
						calls[i].Settle(nil)
					}
					calls[i].End()
				}
			})
		}
		wg.Wait()
		require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
	}
}

func TestS30_PercentageIsComparedUnrounded(t *testing.T) {
	for _, row := range []struct {
		threshold float64
		good, bad int
		trips     bool
	}{
		{50, 10, 10, true},
		{50, 11, 10, false},
		{50, 501, 499, false}, // 49.9, which rounds to 50
		{67, 1, 2, false},     // 66.7, which rounds to 67
		{66.6, 1, 2, true},
		{0.1, 999, 1, true},
		{0.1, 1000, 1, false},
		{33.5, 667, 333, false},
		{99.9, 1, 998, false},
		{99.9, 1, 999, true},
		{100, 0, 20, true},
		{100, 1, 999, false},
	} {
		t.Run(fmt.Sprintf("%v %% and %d bad of %d", row.threshold, row.bad, row.good+row.bad), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, firebreak.Config{ErrorThresholdPercentage: row.threshold, RequestVolumeThreshold: row.good + row.bad})
				b.succeeds(row.good)
				b.fails(row.bad)
				want := firebreak.StateClosed
				if row.trips {
					want = firebreak.StateOpen
				}
				b.is(want)
			})
		})
	}
}

func TestS30_VolumeIsGoodAndBadCallsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{})
		b.ends(50, errIgnored)
		b.canceled(50)
		b.fails(19)
		b.is(firebreak.StateClosed)
		require.InDelta(t, 100.0, b.Snapshot().ErrorPercentage, 0)
		b.fails(1)
		b.is(firebreak.StateOpen)
		require.EqualValues(t, 20, b.Snapshot().Evidence.Calls)
	})
}

func TestS30_ConsecutiveFailures(t *testing.T) {
	for _, row := range []struct {
		name    string
		between func(*breaker)
		trips   bool
	}{
		{"in a row", func(*breaker) {}, true},
		{"reset by success", func(b *breaker) { b.succeeds(1) }, false},
		{"reset by expected", func(b *breaker) { b.ends(1, errExpected) }, false},
		{"untouched by ignored", func(b *breaker) { b.ends(1, errIgnored) }, true},
		{"untouched by canceled", func(b *breaker) { b.canceled(5) }, true},
		{"not bounded by the window", func(*breaker) { time.Sleep(time.Hour) }, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, firebreak.Config{ConsecutiveFailures: 5, ErrorThresholdPercentage: firebreak.Off})
				b.fails(4)
				row.between(b)
				b.is(firebreak.StateClosed)
				b.fails(1)
				if !row.trips {
					b.is(firebreak.StateClosed)
					b.fails(3)
					b.is(firebreak.StateClosed)
					b.fails(1)
				}
				b.is(firebreak.StateOpen)
				require.Equal(t, "consecutive failures", b.Snapshot().Evidence.Rule)
			})
		})
	}
}

func TestS30_SlowCalls(t *testing.T) {
	const slow = 10 * time.Millisecond
	for _, row := range []struct {
		name  string
		calls func(*breaker)
		trips bool
	}{
		{"as long as allowed", func(b *breaker) { b.takes(20, slow, nil) }, false},
		{"longer", func(b *breaker) { b.takes(20, slow+time.Nanosecond, nil) }, true},
		{"slow and expected", func(b *breaker) { b.takes(20, 2*slow, errExpected) }, true},
		{"exactly at the threshold", func(b *breaker) { b.succeeds(10); b.takes(10, 2*slow, nil) }, true},
		{"below the threshold", func(b *breaker) { b.succeeds(11); b.takes(10, 2*slow, nil) }, false},
		{"below the volume", func(b *breaker) { b.takes(19, 2*slow, nil) }, false},
		{"fast calls reach the volume", func(b *breaker) { b.takes(10, 2*slow, nil); b.succeeds(10) }, true},
		{"slow and failed, few of many", func(b *breaker) { b.succeeds(40); b.takes(19, 2*slow, errBoom) }, false},
		{"some succeed, some fail", func(b *breaker) { b.succeeds(10); b.takes(8, 2*slow, nil); b.takes(2, 2*slow, errBoom) }, true},
		{"neutral ones count nowhere", func(b *breaker) { b.takes(100, 2*slow, errIgnored); b.succeeds(20) }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, firebreak.Config{SlowCallDuration: slow})
				row.calls(b)
				if !row.trips {
					b.is(firebreak.StateClosed)
					return
				}
				b.is(firebreak.StateOpen)
				require.Equal(t, "slow calls", b.Snapshot().Evidence.Rule)
			})
		})
	}
}

func TestS30_SlowCallThresholdPercentage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{SlowCallDuration: time.Millisecond, SlowCallThresholdPercentage: 90})
		b.succeeds(2)
		b.takes(17, 10*time.Millisecond, nil)
		b.takes(1, 10*time.Millisecond, nil)
		b.is(firebreak.StateOpen) // 18 of 20
		require.EqualValues(t, 18, b.Snapshot().Evidence.Slow)
		require.Zero(t, b.Snapshot().Evidence.Failures)
		require.Empty(t, b.Snapshot().Evidence.LastError)
	})
}

func TestS30_WaitingForAPermitIsNotSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{
			SlowCallDuration: 10 * time.Millisecond, MaxConcurrent: 1, MaxWait: time.Second, QueueSize: 100,
		})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { b.takes(1, 10*time.Millisecond, nil) })
		}
		wg.Wait()
		b.is(firebreak.StateClosed)
	})
}

func TestS30_ASlowProbeThatSucceedsIsGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{SlowCallDuration: time.Millisecond})
		b.trips()
		b.sleeps()
		b.takes(1, time.Second, nil)
		b.is(firebreak.StateClosed)
	})
}

// "With all four rules Off, nothing trips": also not by what was slow before.
func TestS30_SlowCallsTurnedOffTripNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		b := breakerOf(t, reg.Command("dep", firebreak.Config{
			ErrorThresholdPercentage: firebreak.Off, SlowCallDuration: time.Millisecond, SlowCallThresholdPercentage: 100,
		}))
		b.takes(19, 2*time.Millisecond, nil)
		b.succeeds(1)
		require.NoError(t, reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{
			"dep": {SlowCallDuration: firebreak.Off, SlowCallThresholdPercentage: 50},
		}}))
		b.fails(1)
		b.is(firebreak.StateClosed)
	})
}

func TestS30_Evidence(t *testing.T) {
	const off = firebreak.Off
	for _, row := range []struct {
		name      string
		threshold float64
		good, bad int // the last is bad
		trips     bool
	}{
		{"five failures alone", 50, 0, 5, false},
		{"six failures alone", 50, 0, 6, true},
		{"six failures, the error threshold off", off, 0, 6, true},
		{"five failures, the error threshold off", off, 0, 5, false},
		{"half of a few calls", 50, 9, 9, false},
		{"most of a few calls", 50, 2, 11, true},
		{"not quite most of a few calls", 50, 2, 10, false},
		{"more than half of many calls", 50, 38, 62, true},
		{"not certainly more than half of many calls", 50, 39, 61, false},
		{"a low threshold", 10, 0, 1, true},
		{"a low threshold, at some distance", 10, 3, 2, false},
		{"a low threshold, nearer", 10, 2, 2, true},
		{"certainty there is none", 100, 0, 19, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, firebreak.Config{
					Evidence: firebreak.On, ErrorThresholdPercentage: row.threshold, RequestVolumeThreshold: 1000,
				})
				b.succeeds(row.good)
				b.fails(row.bad)
				if !row.trips {
					b.is(firebreak.StateClosed)
					return
				}
				b.is(firebreak.StateOpen)
				require.Equal(t, "evidence", b.Snapshot().Evidence.Rule)
			})
		})
	}
}

func TestS30_EvidenceLooksAtTheWindowAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{Evidence: firebreak.On})
		b.fails(5)
		b.at(10 * time.Second)
		b.fails(5)
		b.is(firebreak.StateClosed)
		b.at(20*time.Second - time.Nanosecond)
		b.fails(1)
		b.is(firebreak.StateOpen)
	})
}

func TestS30_WithAllRulesOffNothingTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{ErrorThresholdPercentage: firebreak.Off})
		b.fails(1000)
		b.takes(100, time.Minute, nil)
		b.is(firebreak.StateClosed)
		require.Empty(t, b.Snapshot().Evidence)
	})
}

// The rules are or-ed, and the first in this order has its name in the evidence.
func TestS30_OneRuleIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := firebreak.Config{
			RequestVolumeThreshold: 6, SlowCallDuration: time.Millisecond, ConsecutiveFailures: 6, Evidence: firebreak.On,
		}
		b := newBreaker(t, all)
		b.takes(6, 2*time.Millisecond, errBoom)
		b.is(firebreak.StateOpen)
		require.Equal(t, "error percentage", b.Snapshot().Evidence.Rule)

		all.ErrorThresholdPercentage = firebreak.Off
		b = newBreaker(t, all)
		b.takes(6, 2*time.Millisecond, errBoom)
		require.Equal(t, "slow calls", b.Snapshot().Evidence.Rule)

		all.RequestVolumeThreshold = 7
		b = newBreaker(t, all)
		b.takes(6, 2*time.Millisecond, errBoom)
		require.Equal(t, "consecutive failures", b.Snapshot().Evidence.Rule)

		all.ConsecutiveFailures = 7
		b = newBreaker(t, all)
		b.takes(6, 2*time.Millisecond, errBoom)
		require.Equal(t, "evidence", b.Snapshot().Evidence.Rule)
	})
}

func TestS31_ALeaseIsAsLongAsTimeoutOrSleepWindow(t *testing.T) {
	for _, row := range []struct {
		name                 string
		timeout, sleep, want time.Duration
	}{
		{"the sleep window is longer", time.Second, 5 * time.Second, 5 * time.Second},
		{"the timeout is longer", time.Minute, 5 * time.Second, time.Minute},
		{"there is no timeout", firebreak.Off, 5 * time.Second, 5 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, firebreak.Config{Timeout: row.timeout, SleepWindow: row.sleep})
				b.halfOpens("hung")
				ends := time.Now().Add(row.want)
				require.Equal(t, ends, b.refusal().RetryAt)
				time.Sleep(row.want - time.Nanosecond)
				b.refused()
				time.Sleep(time.Nanosecond)
				b.is(firebreak.StateHalfOpen)
				b.begins("next")
				require.Equal(t, ends.Add(row.want), b.refusal().RetryAt)
				b.home("next", nil)
				b.is(firebreak.StateClosed)
				b.home("hung", nil)
			})
		})
	}
}

// Growth and jitter lengthen the sleep, not the lease.
func TestS31_ALeaseDoesNotGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{MaxSleepWindow: time.Minute, Timeout: firebreak.Off})
		b.trips()
		for range 3 {
			b.sleeps()
			b.fails(1)
		}
		b.sleeps()
		b.begins("hung")
		require.Equal(t, time.Now().Add(5*time.Second), b.refusal().RetryAt)
		b.home("hung", nil)
	})
}

func TestS32_LeasesEndOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{Timeout: firebreak.Off, Probes: 2})
		b.halfOpens("a")
		p := time.Since(b.began)
		b.at(p + time.Second)
		b.begins("b")
		require.Equal(t, b.began.Add(p+5*time.Second), b.refusal().RetryAt, "the first end of a lease")
		b.at(p + 5*time.Second)
		b.begins("c")
		require.Equal(t, b.began.Add(p+6*time.Second), b.refusal().RetryAt)
		b.at(p + 6*time.Second - time.Nanosecond)
		b.refused()
		b.home("c", nil)
		require.Equal(t, b.began.Add(p+6*time.Second), b.refusal().RetryAt, "an answer keeps its place")
		b.at(p + 6*time.Second)
		b.begins("d")
		b.refused()
		b.home("d", nil)
		b.is(firebreak.StateClosed)
		b.home("a", nil)
		b.home("b", errBoom)
		b.is(firebreak.StateClosed)
	})
}

func TestS32_RunsMayBeOneMoreForEachLeaseThatEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{Timeout: firebreak.Off})
		b.halfOpens("0")
		for i := range 5 {
			b.refused()
			time.Sleep(5 * time.Second)
			b.begins(fmt.Sprint(i + 1))
			require.Equal(t, i+2, b.Snapshot().InFlight)
		}
		b.refused()
		b.home("3", nil)
		b.is(firebreak.StateClosed)
		for _, name := range []string{"0", "1", "2", "4", "5"} {
			b.home(name, errBoom)
		}
		b.is(firebreak.StateClosed)
		require.Zero(t, b.Snapshot().ErrorPercentage)
	})
}

func TestS32_WaitingForAPermitIsPartOfTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{Timeout: firebreak.Off})
		dep := reg.Dependency("dep", firebreak.Config{MaxConcurrent: 1, MaxWait: time.Minute})
		b, other := breakerOf(t, dep.Command("b", firebreak.Config{})), breakerOf(t, dep.Command("other", firebreak.Config{}))
		b.trips()
		b.sleeps()
		other.begins("the only permit")
		var wg sync.WaitGroup
		wg.Go(func() { b.takes(1, 2*time.Second, nil) })
		synctest.Wait()
		p := time.Now()
		b.is(firebreak.StateHalfOpen)
		require.Equal(t, p.Add(5*time.Second), b.refusal().RetryAt)
		time.Sleep(4 * time.Second)
		other.home("the only permit", nil)
		synctest.Wait()
		require.Equal(t, 1, b.Snapshot().InFlight)
		require.Equal(t, p.Add(5*time.Second), b.refusal().RetryAt)
		wg.Wait()
		require.Equal(t, p.Add(6*time.Second), time.Now())
		b.is(firebreak.StateClosed)
	})
}

func TestS32_ProbesEnterNoWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{Probes: 3})
		b.trips()
		b.sleeps()
		b.succeeds(2)
		b.fails(1)
		require.EqualValues(t, 20, b.Snapshot().Evidence.Calls)
		require.EqualValues(t, 20, b.Snapshot().Evidence.Failures)
		b.recovers()
		require.Zero(t, b.Snapshot().ErrorPercentage)
		b.fails(19)
		b.is(firebreak.StateClosed)
		b.fails(1)
		b.is(firebreak.StateOpen)
	})
}

// What a single probe may do, and what the circuit makes of it at once.
func TestProbeEndings(t *testing.T) {
	const (
		closed   = firebreak.StateClosed
		open     = firebreak.StateOpen
		halfOpen = firebreak.StateHalfOpen
	)
	do := func(ctx context.Context, b *breaker, run func(context.Context) (int, error)) error {
		_, err := firebreak.Do(ctx, b.Command, run)
		return err
	}
	for _, row := range []struct {
		name  string
		probe func(*breaker)
		want  firebreak.State // after the probe; half-open: and the very next call is one
	}{
		{"success", func(b *breaker) { b.succeeds(1) }, closed},
		{"expected", func(b *breaker) { b.ends(1, errExpected) }, closed},
		{"ignored", func(b *breaker) { b.ends(1, errIgnored) }, halfOpen},
		{"failure", func(b *breaker) { b.fails(1) }, open},
		{"canceled", func(b *breaker) { b.canceled(1) }, halfOpen},
		{"timeout", func(b *breaker) {
			require.ErrorIs(b.t, do(b.t.Context(), b, func(ctx context.Context) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			}), firebreak.ErrTimeout)
		}, open},
		{"late success", func(b *breaker) { b.takes(1, time.Second+time.Nanosecond, nil) }, open}, // S13
		{"success at the deadline", func(b *breaker) { b.takes(1, time.Second, nil) }, closed},
		{"caller's deadline", func(b *breaker) {
			ctx, cancel := context.WithTimeout(b.t.Context(), time.Millisecond)
			defer cancel()
			require.ErrorIs(b.t, do(ctx, b, func(ctx context.Context) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			}), context.DeadlineExceeded)
			require.EqualValues(b.t, 1, total(b.Command).CallerDeadline)
		}, halfOpen},
		{"gave up on arrival", func(b *breaker) {
			ctx, cancel := context.WithCancel(b.t.Context())
			cancel()
			require.ErrorIs(b.t, do(ctx, b, succeed), context.Canceled)
			b.is(open) // it did not even ask
			b.canceled(1)
		}, halfOpen},
		{"panic", func(b *breaker) {
			require.PanicsWithValue(b.t, "boom", func() {
				_ = do(b.t.Context(), b, func(context.Context) (int, error) { panic("boom") })
			})
		}, open},
		{"Goexit", func(b *breaker) {
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				_ = do(b.t.Context(), b, func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
			}()
			<-gone
			require.EqualValues(b.t, 1, total(b.Command).Panic)
		}, open},
		{"not settled", func(b *breaker) {
			call, err := b.Begin(b.t.Context())
			require.NoError(b.t, err)
			call.End()
		}, open},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, firebreak.Config{})
				b.trips()
				b.sleeps()
				row.probe(b)
				b.is(row.want)
				switch row.want {
				case open:
					require.Equal(t, "probe", b.Snapshot().Evidence.Rule)
					require.Equal(t, time.Now().Add(5*time.Second), b.refusal().RetryAt)
					b.recovers()
				case halfOpen:
					b.begins("next")
					b.refused()
					b.home("next", nil)
					b.is(closed)
				}
			})
		})
	}
}

func TestProbeThatTheBulkheadRejectsGivesItsLeaseBack(t *testing.T) {
	for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		t.Run(isolation.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newRegistry(t, firebreak.Config{CountRejections: firebreak.On})
				dep := reg.Dependency("dep", firebreak.Config{MaxConcurrent: 1, Isolation: isolation})
				b, other := breakerOf(t, dep.Command("b", firebreak.Config{})), breakerOf(t, dep.Command("other", firebreak.Config{}))
				b.trips()
				b.sleeps()
				other.begins("the only permit")
				for range 5 {
					_, err := firebreak.Do(t.Context(), b.Command, succeed)
					require.ErrorIs(t, err, firebreak.ErrRejected)
					b.is(firebreak.StateHalfOpen)
				}
				other.home("the only permit", nil)
				b.succeeds(1)
				b.is(firebreak.StateClosed)
			})
		})
	}
}

func TestProbeThatGivesUpWaitingGivesItsLeaseBack(t *testing.T) {
	for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		t.Run(isolation.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newRegistry(t, firebreak.Config{})
				c := firebreak.Config{MaxConcurrent: 1, Isolation: isolation, QueueSize: 5}
				if isolation == firebreak.SemaphoreIsolation {
					c.MaxWait = 100 * time.Millisecond
				}
				dep := reg.Dependency("dep", c)
				b, other := breakerOf(t, dep.Command("b", firebreak.Config{})), breakerOf(t, dep.Command("other", firebreak.Config{}))
				b.trips()
				b.sleeps()
				other.begins("the only permit")

				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				_, err := firebreak.Do(ctx, b.Command, succeed)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.EqualValues(t, 1, total(b.Command).GaveUp)
				b.is(firebreak.StateHalfOpen)

				// The next one is a probe too, and waits until it is rejected.
				_, err = firebreak.Do(t.Context(), b.Command, succeed)
				require.ErrorIs(t, err, firebreak.ErrRejected)

				other.home("the only permit", nil)
				b.succeeds(1)
				b.is(firebreak.StateClosed)
			})
		})
	}
}

func TestS46_AProbeWhoseCallerLeftGivesItsLeaseBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{Isolation: firebreak.PoolIsolation})
		b.trips()
		b.sleeps()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := firebreak.Do(ctx, b.Command, func(context.Context) (int, error) {
			time.Sleep(time.Minute) // deaf to its context
			return 0, errBoom
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, b.Snapshot().Bulkhead.Abandoned)
		b.is(firebreak.StateHalfOpen)
		b.succeeds(1)
		b.is(firebreak.StateClosed)
		time.Sleep(2 * time.Minute)
		b.is(firebreak.StateClosed)
	})
}

func TestS33_TheSleepGrowsByHalfWithEachFailedProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{SleepWindow: 8 * time.Second, MaxSleepWindow: 40 * time.Second})
		b.trips()
		for _, seconds := range []int{8, 12, 18, 27, 40, 40, 40} {
			want := time.Duration(seconds) * time.Second
			require.Equal(t, want, b.sleepLength())
			require.Equal(t, time.Now().Add(want), b.refusal().RetryAt)
			time.Sleep(want - time.Nanosecond)
			b.refused()
			time.Sleep(time.Nanosecond)
			b.fails(1)
			b.is(firebreak.StateOpen)
		}
	})
}

func TestS33_WithoutMaxSleepWindowItDoesNotGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{})
		b.trips()
		for range 10 {
			require.Equal(t, 5*time.Second, b.sleepLength())
			b.sleeps()
			b.fails(1)
		}
	})
}

func TestS33_AMaxSleepWindowBelowTheSleepWindowShortensNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{MaxSleepWindow: time.Second})
		b.trips()
		b.sleeps()
		b.fails(1)
		require.Equal(t, 5*time.Second, b.sleepLength())
	})
}

// Neutral probes and leases that end are no failed probes.
func TestS33_OnlyFailedProbesMakeItGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{SleepWindow: 8 * time.Second, MaxSleepWindow: time.Hour, Timeout: firebreak.Off})
		b.halfOpens("hung")
		time.Sleep(8 * time.Second)
		b.canceled(3)
		b.ends(3, errIgnored)
		b.fails(1)
		require.Equal(t, 12*time.Second, b.sleepLength())
		b.home("hung", errBoom)
		require.Equal(t, 12*time.Second, b.sleepLength(), "it is of an older era")
	})
}

func TestS33_EachSleepWindowSpentClosedTakesAStepBack(t *testing.T) {
	const sleep = 8 * time.Second
	for _, row := range []struct {
		closed time.Duration
		want   time.Duration // three steps less those
	}{
		{0, 27 * time.Second},
		{sleep - time.Nanosecond, 27 * time.Second},
		{sleep, 18 * time.Second},
		{2*sleep - time.Nanosecond, 18 * time.Second},
		{2 * sleep, 12 * time.Second},
		{3*sleep - time.Nanosecond, 12 * time.Second},
		{3 * sleep, sleep},
		{24 * time.Hour, sleep},
	} {
		t.Run(row.closed.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, firebreak.Config{SleepWindow: sleep, MaxSleepWindow: time.Hour})
				b.trips()
				for range 3 {
					b.sleeps()
					b.fails(1)
				}
				b.recovers()
				time.Sleep(row.closed)
				b.trips()
				require.Equal(t, row.want, b.sleepLength())
			})
		})
	}
}

func TestS33_StepsTakenBackStayTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{SleepWindow: 8 * time.Second, MaxSleepWindow: time.Hour})
		b.trips()
		for range 3 {
			b.sleeps()
			b.fails(1)
		}
		b.recovers()
		time.Sleep(16 * time.Second)
		b.trips() // one step is left
		b.sleeps()
		b.fails(1)
		require.Equal(t, 18*time.Second, b.sleepLength())
		b.recovers()
		b.trips()
		require.Equal(t, 18*time.Second, b.sleepLength())
	})
}

// A circuit that an operator closed has spent no time closed before that: it used
// to lose its growth by the time since it had last closed by itself.
func TestS33_TimeBeforeAnOperatorClosedItIsNotSpentClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{SleepWindow: 8 * time.Second, MaxSleepWindow: time.Hour})
		b.trips()
		for range 3 {
			b.sleeps()
			b.fails(1)
		}
		b.Override(firebreak.Override{Mode: firebreak.ForceClosed})
		time.Sleep(8 * time.Second)
		b.Override(firebreak.Override{})
		b.trips()
		require.Equal(t, 18*time.Second, b.sleepLength(), "of three steps it has lost one, as it was closed for one sleep window")
	})
}

func TestS33_AHintLengthensTheOpeningOfItsEra(t *testing.T) {
	const sleep = 5 * time.Second
	hint := func(d time.Duration) func(*breaker) {
		return func(b *breaker) { b.t.Helper(); b.ends(1, firebreak.RetryAfter(errBoom, d)) }
	}
	for _, row := range []struct {
		name string
		max  time.Duration
		then func(*breaker) // after 19 failures, at 1 s; the last trips at 2 s
		want time.Duration  // from the opening
	}{
		{"none", firebreak.Off, func(*breaker) {}, sleep},
		{"longer than the sleep window", firebreak.Off, hint(20 * time.Second), 19 * time.Second},
		{"shorter than the sleep window", firebreak.Off, hint(time.Second), sleep},
		{"over before the circuit opens", firebreak.Off, hint(time.Millisecond), sleep},
		{"the latest of several", firebreak.Off, func(b *breaker) { hint(30 * time.Second)(b); hint(20 * time.Second)(b) }, 29 * time.Second},
		{"not positive", firebreak.Off, func(b *breaker) { hint(0)(b); hint(-time.Hour)(b) }, sleep},
		{"capped by ten sleep windows", firebreak.Off, hint(time.Hour), 10 * sleep},
		{"capped by MaxSleepWindow", 30 * time.Second, hint(time.Hour), 30 * time.Second},
		{"just below the cap", 30 * time.Second, hint(31*time.Second - 1), 30*time.Second - 1},
		{"a cap below the sleep window", time.Second, hint(time.Hour), sleep},
		{"wrapped", firebreak.Off, func(b *breaker) {
			b.ends(1, fmt.Errorf("call: %w", firebreak.RetryAfter(errBoom, 20*time.Second)))
		}, 19 * time.Second},
		{"under a mark that says failure too", firebreak.Off, func(b *breaker) {
			b.ends(1, firebreak.Mark(firebreak.RetryAfter(errBoom, 20*time.Second), firebreak.Failure))
		}, 19 * time.Second},
		{"under a mark that says otherwise", firebreak.Off, func(b *breaker) {
			b.ends(1, firebreak.Mark(firebreak.RetryAfter(errBoom, 20*time.Second), firebreak.Expected))
		}, sleep},
		{"of a call that timed out", firebreak.Off, func(b *breaker) {
			_, err := firebreak.Do(b.t.Context(), b.Command, func(ctx context.Context) (int, error) {
				time.Sleep(time.Until(b.began.Add(2 * time.Second)))
				return 0, firebreak.RetryAfter(errBoom, time.Hour)
			})
			require.ErrorIs(b.t, err, firebreak.ErrTimeout)
		}, sleep},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, firebreak.Config{MaxSleepWindow: row.max, RequestVolumeThreshold: 25})
				b.fails(19)
				b.at(time.Second)
				row.then(b)
				b.at(2 * time.Second)
				for b.Snapshot().State == firebreak.StateClosed {
					b.fails(1)
				}
				require.Equal(t, row.want, b.sleepLength())
				opened := time.Now()
				time.Sleep(row.want - time.Nanosecond)
				require.Equal(t, opened.Add(row.want), b.refusal().RetryAt)
				time.Sleep(time.Nanosecond)
				b.succeeds(1)
			})
		})
	}
}

func TestS33_AHintNeverOpensByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{})
		b.ends(19, firebreak.RetryAfter(errBoom, time.Hour))
		b.is(firebreak.StateClosed)
		b.succeeds(1)
		b.is(firebreak.StateOpen)
	})
}

func TestS33_AHintIsOfItsOwnEra(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{Timeout: firebreak.Off})
		b.ends(1, firebreak.RetryAfter(errBoom, 40*time.Second))
		b.begins("straggler")
		b.fails(19)
		require.Equal(t, 40*time.Second, b.sleepLength())
		b.recovers()
		b.home("straggler", firebreak.RetryAfter(errBoom, time.Hour))
		b.trips()
		require.Equal(t, 5*time.Second, b.sleepLength())
	})
}

func TestS33_TheHintOfAFailedProbeCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{Timeout: firebreak.Off, Probes: 2})
		b.trips()
		b.sleeps()
		b.ends(1, firebreak.RetryAfter(errBoom, 20*time.Second))
		require.Equal(t, 20*time.Second, b.sleepLength())
		b.sleeps()
		b.fails(1)
		require.Equal(t, 5*time.Second, b.sleepLength(), "the last one's hint is over")
		b.sleeps()
		b.ends(1, firebreak.RetryAfter(errBoom, time.Hour))
		require.Equal(t, 50*time.Second, b.sleepLength())
		b.sleeps()
		b.begins("other")
		b.ends(1, firebreak.RetryAfter(errBoom, time.Second))
		require.Equal(t, 5*time.Second, b.sleepLength())
		b.home("other", firebreak.RetryAfter(errBoom, 30*time.Second))
		require.Equal(t, 5*time.Second, b.sleepLength(), "all is fixed when the circuit opens")
	})
}

func TestS33_HintAndGrowthDoNotAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{SleepWindow: 8 * time.Second, MaxSleepWindow: time.Hour})
		b.trips()
		b.sleeps()
		b.ends(1, firebreak.RetryAfter(errBoom, 10*time.Second))
		require.Equal(t, 12*time.Second, b.sleepLength())
		b.sleeps()
		b.ends(1, firebreak.RetryAfter(errBoom, 19*time.Second))
		require.Equal(t, 19*time.Second, b.sleepLength())
	})
}

// All is fixed when the circuit opens, by the settings that are then in force: also
// where the call that opens it is older than those (it used to be by that call's).
func TestS71_SleepWindowAndProbesHoldFromTheNextOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{Timeout: firebreak.Off, MaxSleepWindow: time.Minute})
		b := breakerOf(t, reg.Command("dep", firebreak.Config{}))
		b.trips()
		opened := time.Now()
		require.NoError(t, reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{
			"dep": {SleepWindow: 10 * time.Second, Probes: 2},
		}}))
		time.Sleep(5*time.Second - time.Nanosecond)
		require.Equal(t, opened.Add(5*time.Second), b.refusal().RetryAt)
		time.Sleep(time.Nanosecond)
		b.begins("old")
		b.refused()
		require.NoError(t, reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{
			"dep": {SleepWindow: 2 * time.Second, Probes: 3},
		}}))
		b.home("old", errBoom)
		require.Equal(t, 3*time.Second, b.sleepLength())
		b.sleeps()
		for _, name := range []string{"a", "b", "c"} {
			b.begins(name)
		}
		b.refused()
		for _, name := range []string{"a", "b", "c"} {
			b.is(firebreak.StateHalfOpen)
			b.home(name, nil)
		}
		b.is(firebreak.StateClosed)

		// Its growth, too, goes by the sleep window of now, but its thresholds are its own.
		b.begins("old")
		time.Sleep(10 * time.Second)
		require.NoError(t, reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{
			"dep": {SleepWindow: 20 * time.Second, RequestVolumeThreshold: 100},
		}}))
		b.fails(20)
		b.is(firebreak.StateClosed)
		b.home("old", errBoom)
		require.Equal(t, 30*time.Second, b.sleepLength())
	})
}

func TestS34_WithoutJitterASleepWindowIsWhatItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{})
		for range 50 {
			b.trips()
			require.Equal(t, 5*time.Second, b.sleepLength())
			b.recovers()
		}
	})
}

func TestS34_JitterSpreadsTheProbeMoment(t *testing.T) {
	const sleep, share = 8 * time.Second, 2 * time.Second // 25 %
	for _, row := range []struct {
		name        string
		err         error
		least, most time.Duration
	}{
		{"either way", errBoom, sleep - share, sleep + share},
		{"of the sleep window, however it has grown", nil, 12*time.Second - share, 12*time.Second + share},
		{"after a hint only upward", firebreak.RetryAfter(errBoom, 20*time.Second), 20 * time.Second, 20*time.Second + share},
		{"a hint within the sleep is none", firebreak.RetryAfter(errBoom, 7*time.Second), sleep - share, sleep + share},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var lengths []time.Duration
				for range 200 {
					b := newBreaker(t, firebreak.Config{
						SleepWindow: sleep, SleepJitterPercentage: 25, MaxSleepWindow: time.Minute, RequestVolumeThreshold: 1,
					})
					if row.err != nil {
						b.ends(1, row.err)
					} else {
						b.fails(1)
						b.sleeps()
						b.fails(1)
					}
					lengths = append(lengths, b.sleepLength())
				}
				slices.Sort(lengths)
				require.GreaterOrEqual(t, lengths[0], row.least)
				require.LessOrEqual(t, lengths[199], row.most)
				// Of 200 uniform draws none falls into an outer quarter once in 10^24 runs.
				quarter := (row.most - row.least) / 4
				require.Less(t, lengths[0], row.least+quarter)
				require.Greater(t, lengths[199], row.most-quarter)
			})
		})
	}
}

// What is promised is kept to the nanosecond, also where chance had a say in it.
func TestS34_TheJitteredMomentIsTheOneAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{SleepJitterPercentage: 100})
		for range 20 {
			b.trips()
			p := b.Snapshot().Evidence.NextProbe
			if left := time.Until(p); left > 1 {
				time.Sleep(left - 1)
				require.Equal(t, p, b.refusal().RetryAt)
			}
			b.recovers()
		}
	})
}

func TestS35_NoTimerAndNoReaderEndsTheSleepWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		seen := watch(reg)
		b := breakerOf(t, reg.Command("dep", firebreak.Config{}))
		b.trips()
		for range 100 {
			time.Sleep(time.Minute)
			b.is(firebreak.StateOpen)
		}
		require.Len(t, *seen, 1)
		b.begins("probe")
		require.Len(t, *seen, 2)
		for range 100 {
			time.Sleep(time.Minute)
			b.is(firebreak.StateHalfOpen)
		}
		require.Len(t, *seen, 2)
		b.home("probe", errBoom)
	})
}

// Many calls come at the moment of the probe: one wins, and the others are
// short-circuited. One of them used to find the half-open era without its door, and
// to panic.
func TestS35_OneOfManyCallsProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{ConsecutiveFailures: 1})
		for range 100 {
			b.fails(1)
			p := b.Snapshot().Evidence.NextProbe
			var passed, refused atomic.Int64
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					time.Sleep(time.Until(p))
					_, err := firebreak.Do(t.Context(), b.Command, func(context.Context) (int, error) {
						time.Sleep(time.Millisecond)
						return 0, nil
					})
					switch {
					case err == nil:
						passed.Add(1)
					case errors.Is(err, firebreak.ErrOpen):
						refused.Add(1)
					}
				})
			}
			wg.Wait()
			require.EqualValues(t, 1, passed.Load())
			require.EqualValues(t, 15, refused.Load())
			b.is(firebreak.StateClosed)
		}
	})
}

func TestS36_ARefusalFallsIntoItsBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{SleepWindow: time.Hour})
		b.trips()
		b.at(5*time.Second - time.Nanosecond)
		b.refused()
		b.at(5 * time.Second)
		b.refused()
		b.refused()
		require.EqualValues(t, 3, b.Snapshot().Window.ShortCircuited)
		b.at(14*time.Second - time.Nanosecond)
		require.EqualValues(t, 3, b.Snapshot().Window.ShortCircuited)
		b.at(14 * time.Second)
		require.EqualValues(t, 2, b.Snapshot().Window.ShortCircuited)
		b.at(15*time.Second - time.Nanosecond)
		require.EqualValues(t, 2, b.Snapshot().Window.ShortCircuited)
		b.at(15 * time.Second)
		require.Zero(t, b.Snapshot().Window.ShortCircuited)
		require.EqualValues(t, 3, total(b.Command).ShortCircuited)
	})
}

func TestS37_RefusalsAreCountedWhereTheyHappen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{MaxConcurrent: 1, Timeout: firebreak.Off})
		b.begins("the only permit")
		rejected := func() {
			_, err := firebreak.Do(t.Context(), b.Command, succeed)
			require.ErrorIs(t, err, firebreak.ErrRejected)
		}
		gaveUp := func() {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := firebreak.Do(ctx, b.Command, succeed)
			require.ErrorIs(t, err, context.Canceled)
		}
		b.at(5*time.Second - time.Nanosecond)
		rejected()
		gaveUp()
		b.at(5 * time.Second)
		rejected()
		gaveUp()
		b.at(14*time.Second - time.Nanosecond)
		require.EqualValues(t, 2, b.Snapshot().Window.Rejected)
		require.EqualValues(t, 2, b.Snapshot().Window.GaveUp)
		b.at(14 * time.Second)
		require.EqualValues(t, 1, b.Snapshot().Window.Rejected)
		require.EqualValues(t, 1, b.Snapshot().Window.GaveUp)
		b.at(15 * time.Second)
		require.Zero(t, b.Snapshot().Window.Rejected)
		require.Zero(t, b.Snapshot().Window.GaveUp)
		b.home("the only permit", nil)
	})
}

func TestS4_RejectionsCountOnlyIfAsked(t *testing.T) {
	for _, row := range []struct {
		count firebreak.Switch
		want  firebreak.State
	}{{firebreak.Off, firebreak.StateClosed}, {firebreak.On, firebreak.StateOpen}} {
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker(t, firebreak.Config{MaxConcurrent: 1, CountRejections: row.count, Timeout: firebreak.Off})
			b.begins("the only permit")
			for range 20 {
				_, err := firebreak.Do(t.Context(), b.Command, succeed)
				require.ErrorIs(t, err, firebreak.ErrRejected)
			}
			b.is(row.want)
			if row.want == firebreak.StateOpen {
				require.Contains(t, b.Snapshot().Evidence.LastError, "bulkhead full")
				require.EqualValues(t, 20, b.Snapshot().Evidence.Failures)
			}
			b.home("the only permit", nil)
		})
	}
}

func TestS16_RetryAtOfAShortCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{Timeout: firebreak.Off})
		b.trips()
		e := b.refusal()
		require.Equal(t, "dep", e.Command)
		require.Equal(t, b.Snapshot().Evidence.NextProbe, e.RetryAt)
		require.Equal(t, 5*time.Second, e.RetryAfter())
		time.Sleep(3 * time.Second)
		require.Equal(t, 2*time.Second, e.RetryAfter(), "a moment does not go stale")
		require.Same(t, e, b.refusal(), "made when the era began, and shared (S17)")
		time.Sleep(time.Minute)
		require.Zero(t, e.RetryAfter())

		b.begins("probe")
		half := b.refusal()
		require.Equal(t, 5*time.Second, half.RetryAfter())
		require.Same(t, half, b.refusal())
		b.home("probe", nil)
	})
}

func TestEvidenceRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{SlowCallDuration: 10 * time.Millisecond})
		require.Empty(t, b.Snapshot().Evidence, "it never opened")
		b.succeeds(7)
		b.ends(1, errors.New("not the last"))
		b.takes(3, 20*time.Millisecond, nil)
		b.takes(1, 20*time.Millisecond, errBoom)
		b.ends(5, errIgnored)
		b.fails(7)
		b.ends(1, errors.New("the last"))
		want := firebreak.Evidence{
			Rule: "error percentage", LastError: "the last", At: time.Now(), NextProbe: time.Now().Add(5 * time.Second),
			Calls: 20, Failures: 10, Slow: 4,
		}
		require.Equal(t, want, b.Snapshot().Evidence)

		for range 3 {
			b.refused()
		}
		want.Refused = 3
		require.Equal(t, want, b.Snapshot().Evidence)

		// A failed probe opens it again, with a window of its own age.
		b.sleeps()
		b.begins("probe")
		b.refused()
		want.Refused = 4
		require.Equal(t, want, b.Snapshot().Evidence, "also while it is half-open")
		time.Sleep(500 * time.Millisecond)
		b.home("probe", errors.New("the probe's"))
		want = firebreak.Evidence{
			Rule: "probe", LastError: "the probe's", At: time.Now(), NextProbe: time.Now().Add(5 * time.Second),
			Calls: 20, Failures: 10, Slow: 4,
		}
		require.Equal(t, want, b.Snapshot().Evidence)

		b.recovers()
		require.Equal(t, want, b.Snapshot().Evidence, "it is of the last opening, and stays")
		b.fails(20)
		want = firebreak.Evidence{
			Rule: "error percentage", LastError: "boom", At: time.Now(), NextProbe: time.Now().Add(5 * time.Second),
			Calls: 20, Failures: 20,
		}
		require.Equal(t, want, b.Snapshot().Evidence)
	})
}

// What a failure says of itself where run has no error of its own.
func TestEvidenceLastError(t *testing.T) {
	for _, row := range []struct {
		name string
		call func(*breaker)
		want string
	}{
		{"timeout that heeds its context", func(b *breaker) {
			firebreak.Do(b.t.Context(), b.Command, func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		}, "context deadline exceeded"},
		{"late success", func(b *breaker) { b.takes(1, 2*time.Second, nil) }, "timed out"},
		{"panic", func(b *breaker) {
			require.Panics(b.t, func() {
				firebreak.Do(b.t.Context(), b.Command, func(context.Context) (int, error) { panic("oh") })
			})
		}, "run panicked"},
		{"marked", func(b *breaker) { b.ends(1, firebreak.Mark(errBoom, firebreak.Failure)) }, "boom"},
		{"with a hint", func(b *breaker) { b.ends(1, firebreak.RetryAfter(errBoom, time.Second)) }, "boom"},
		{"whose text panics", func(b *breaker) { b.ends(1, loudError{}) }, "(the error's text panicked: firebreak_test.loudError)"},
		{"whose text panics, as it is nil", func(b *breaker) { b.ends(1, (*quietError)(nil)) }, "(the error's text panicked: *firebreak_test.quietError)"},
		{"whose text calls Goexit", func(b *breaker) { b.ends(1, goneError{}) }, "(the error's text called runtime.Goexit: firebreak_test.goneError)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, firebreak.Config{ConsecutiveFailures: 1})
				row.call(b)
				b.is(firebreak.StateOpen)
				require.Equal(t, row.want, b.Snapshot().Evidence.LastError)
				b.sleeps()
				row.call(b)
				b.is(firebreak.StateOpen)
				require.Equal(t, row.want, b.Snapshot().Evidence.LastError, "of a probe")
				b.recovers()
			})
		})
	}
}

type loudError struct{}

func (loudError) Error() string { panic("oh") }

type goneError struct{}

func (goneError) Error() string { runtime.Goexit(); return "" }

type quietError struct{ text string }

func (e *quietError) Error() string { return e.text }

// S26: the text is asked for outside locks, so it may use the command itself.
func TestS26_TheErrorsTextMayAskTheCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{ConsecutiveFailures: 1})
		err := curiousError{b.Command}
		b.ends(1, err)
		require.Equal(t, "closed", b.Snapshot().Evidence.LastError)
		b.sleeps()
		b.ends(1, err)
		require.Equal(t, "half_open", b.Snapshot().Evidence.LastError)
	})
}

type curiousError struct{ cmd *firebreak.Command }

func (e curiousError) Error() string { return e.cmd.Snapshot().State.String() }

// A command that is made outside a bubble and used inside sees time go back by
// decades. What it waits for then begins again, and takes no longer than it would.
func TestS40_TimeThatGoesBack(t *testing.T) {
	const sleep = 5 * time.Second
	outside := func(t *testing.T, c firebreak.Config) *breaker {
		c.Timeout = firebreak.Off
		c.MaxConcurrent = firebreak.Unlimited
		return newBreaker(t, c)
	}
	t.Run("a sleep window begins again", func(t *testing.T) {
		b := outside(t, firebreak.Config{})
		b.trips()
		synctest.Test(t, func(t *testing.T) {
			require.Equal(t, sleep, b.refusal().RetryAfter())
			require.Equal(t, sleep, time.Until(b.Snapshot().Evidence.NextProbe), "as the evidence says")
			time.Sleep(sleep - time.Nanosecond)
			b.refused()
			time.Sleep(time.Nanosecond)
			b.succeeds(1)
			b.is(firebreak.StateClosed)
		})
		b.succeeds(1)
	})
	t.Run("with the length it had", func(t *testing.T) {
		b := outside(t, firebreak.Config{})
		b.ends(20, firebreak.RetryAfter(errBoom, 7*time.Second))
		synctest.Test(t, func(t *testing.T) {
			b.refused()
			time.Sleep(7*time.Second - time.Nanosecond) // the last failure's hint, so from its end
			b.refused()
			time.Sleep(time.Nanosecond)
			b.succeeds(1)
			b.is(firebreak.StateClosed)
		})
	})
	t.Run("a lease begins again", func(t *testing.T) {
		b := outside(t, firebreak.Config{SleepWindow: 10 * time.Microsecond})
		b.trips()
		var hung *firebreak.Call
		for hung == nil { // until those are over
			hung, _ = b.Begin(t.Context())
		}
		b.is(firebreak.StateHalfOpen)
		synctest.Test(t, func(t *testing.T) {
			b.refused()
			time.Sleep(10*time.Microsecond - time.Nanosecond)
			b.refused()
			time.Sleep(time.Nanosecond)
			b.succeeds(1)
			b.is(firebreak.StateClosed)
		})
		hung.Settle(errBoom)
		hung.End()
		b.is(firebreak.StateClosed)
	})
	t.Run("an override begins again", func(t *testing.T) {
		b := outside(t, firebreak.Config{})
		b.Override(firebreak.Override{Mode: firebreak.ForceOpen, Until: time.Now().Add(time.Hour)})
		b.refused()
		synctest.Test(t, func(t *testing.T) {
			b.refused()
			left := b.refusal().RetryAfter()
			require.Positive(t, left)
			require.LessOrEqual(t, left, time.Hour) // as its error says
			time.Sleep(left - time.Nanosecond)
			b.refused()
			time.Sleep(time.Nanosecond)
			b.succeeds(1)
			b.is(firebreak.StateClosed)
		})
		b.succeeds(1)
	})
	t.Run("a window begins empty", func(t *testing.T) {
		b := outside(t, firebreak.Config{})
		b.fails(19)
		synctest.Test(t, func(t *testing.T) {
			require.Zero(t, b.Snapshot().ErrorPercentage)
			require.Zero(t, b.Snapshot().Window)
			b.fails(19)
			b.is(firebreak.StateClosed)
			require.EqualValues(t, 19, b.Snapshot().Window.Failure)
			b.fails(1)
			b.is(firebreak.StateOpen)
			b.recovers()
		})
		require.EqualValues(t, 39, total(b.Command).Failure)
	})
	t.Run("growth stays as it was", func(t *testing.T) {
		b := outside(t, firebreak.Config{SleepWindow: 10 * time.Microsecond, MaxSleepWindow: time.Hour, ConsecutiveFailures: 1})
		for b.Snapshot().Evidence.Rule != "probe" {
			firebreak.Do(t.Context(), b.Command, fail)
		}
		for b.Snapshot().State != firebreak.StateClosed {
			firebreak.Do(t.Context(), b.Command, succeed)
		}
		synctest.Test(t, func(t *testing.T) {
			b.fails(1)
			require.Equal(t, 15*time.Microsecond, b.sleepLength())
			b.recovers()
		})
	})
}

func TestS53_AFrozenProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{})
		b.fails(19)
		_, err := firebreak.Do(t.Context(), b.Command, func(context.Context) (int, error) {
			time.Sleep(24 * time.Hour)
			return 0, errBoom
		})
		require.ErrorIs(t, err, firebreak.ErrTimeout)
		b.is(firebreak.StateClosed)
		require.InDelta(t, 100.0, b.Snapshot().ErrorPercentage, 0)
		require.EqualValues(t, 1, b.Snapshot().Window.Calls(), "the window was empty")

		time.Sleep(24 * time.Hour)
		b.trips()
		time.Sleep(24 * time.Hour)
		b.succeeds(1)
		b.is(firebreak.StateClosed)
	})
}

// I3: the state moves by a token of the present era, the clock or an operator.
// Stragglers of every kind of era come home to every other, in every way.
func TestI3_StragglersMoveNothing(t *testing.T) {
	force := func(m firebreak.Mode) func(*breaker) {
		return func(b *breaker) { b.Override(firebreak.Override{Mode: m}) }
	}
	lift := func(b *breaker) { b.Override(firebreak.Override{}) }
	// Each leaves b in an era that admits a call.
	origins := map[string]func(*breaker){
		"closed":        func(*breaker) {},
		"half-open":     func(b *breaker) { b.trips(); b.sleeps(); b.ends(1, errIgnored) },
		"forced closed": force(firebreak.ForceClosed),
		"shadow":        func(b *breaker) { b.trips(); force(firebreak.Shadow)(b) },
	}
	// Each leaves it in another, which may be of the same kind.
	fates := map[string]func(*breaker){
		"open": func(b *breaker) {
			lift(b)
			for b.Snapshot().State != firebreak.StateOpen {
				b.fails(1)
			}
		},
		"half-open": func(b *breaker) {
			force(firebreak.ForceOpen)(b)
			lift(b)
			b.halfOpens("probe")
			b.begins("another")
		},
		"closed":        func(b *breaker) { force(firebreak.ForceOpen)(b); lift(b) },
		"forced open":   force(firebreak.ForceOpen),
		"forced closed": func(b *breaker) { force(firebreak.ForceOpen)(b); force(firebreak.ForceClosed)(b) },
	}
	homecomings := map[string]func(*firebreak.Call){
		"good":     func(c *firebreak.Call) { c.Settle(nil) },
		"bad":      func(c *firebreak.Call) { c.Settle(errBoom) },
		"hint":     func(c *firebreak.Call) { c.Settle(firebreak.RetryAfter(errBoom, time.Hour)) },
		"neutral":  func(c *firebreak.Call) { c.Settle(errIgnored) },
		"panicked": func(*firebreak.Call) {},
	}
	for from, origin := range origins {
		for to, fate := range fates {
			for how, homecoming := range homecomings {
				t.Run(from+", "+to+", "+how, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						reg := newRegistry(t, firebreak.Config{})
						b := breakerOf(t, reg.Command("dep", firebreak.Config{Timeout: firebreak.Off, Probes: 2, SlowCallDuration: time.Millisecond}))
						origin(b)
						straggler, err := b.Begin(t.Context())
						require.NoError(t, err)
						fate(b)

						seen := watch(reg)
						before := b.Snapshot()
						homecoming(straggler)
						straggler.End()
						after := b.Snapshot()
						require.Empty(t, *seen)
						require.Equal(t, before.State, after.State)
						require.Equal(t, before.Evidence, after.Evidence)
						require.Equal(t, before.Total.Executed()+1, after.Total.Executed(), "the statistics count it")

						switch after.State {
						case firebreak.StateHalfOpen:
							b.refused() // both places are taken still
							b.home("probe", nil)
							b.is(firebreak.StateHalfOpen)
							b.home("another", nil)
							b.is(firebreak.StateClosed)
						case firebreak.StateClosed:
							require.Zero(t, after.ErrorPercentage)
							b.fails(19)
							b.is(firebreak.StateClosed)
						case firebreak.StateOpen:
							b.refused()
						}
					})
				})
			}
		}
	}
}

// I3, for two failures at once: each has reason to open the circuit, and the second
// finds the era over. While the text of the first is asked for, the other comes in
// between.
func TestI3_OfTwoFailuresOneOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		b := breakerOf(t, reg.Command("dep", firebreak.Config{ConsecutiveFailures: 1, MaxSleepWindow: time.Hour, Probes: 2}))
		seen := watch(reg)
		b.ends(1, firebreak.RetryAfter(&overtakenError{b}, 10*time.Second))
		require.Len(t, *seen, 1)
		require.Equal(t, "boom", b.Snapshot().Evidence.LastError)
		require.EqualValues(t, 2, b.Snapshot().Evidence.Calls)

		b.sleeps()
		*seen = nil
		b.ends(1, firebreak.RetryAfter(&overtakenError{b}, time.Minute))
		require.Len(t, *seen, 2, "half-open, open")
		require.Equal(t, "boom", b.Snapshot().Evidence.LastError)
		require.Equal(t, 7500*time.Millisecond, b.sleepLength())
	})
}

// An overtakenError makes another call fail when it is asked for its text.
type overtakenError struct{ b *breaker }

func (e *overtakenError) Error() string {
	e.b.fails(1)
	return "overtaken"
}

// I4: of many calls at once, Probes are let through, whatever became of those before.
func TestI4_ProbesOutstandingNeverExceedProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const probes, calls = 3, 16
		b := newBreaker(t, firebreak.Config{Probes: probes, ConsecutiveFailures: 1})
		volley := func(err error) {
			var out, passed, refused atomic.Int64
			var wg sync.WaitGroup
			for range calls {
				wg.Go(func() {
					_, got := firebreak.Do(t.Context(), b.Command, func(context.Context) (int, error) {
						passed.Add(1)
						if out.Add(1) > probes {
							t.Error("too many probes are out")
						}
						time.Sleep(time.Millisecond)
						out.Add(-1)
						return 0, err
					})
					if errors.Is(got, firebreak.ErrOpen) {
						refused.Add(1)
					}
				})
			}
			wg.Wait()
			require.EqualValues(t, probes, passed.Load())
			require.EqualValues(t, calls-probes, refused.Load())
		}
		for range 30 {
			b.fails(1)
			b.sleeps()
			volley(errIgnored)
			b.is(firebreak.StateHalfOpen)
			volley(errIgnored)
			b.is(firebreak.StateHalfOpen)
			volley(errBoom)
			b.is(firebreak.StateOpen)
			b.sleeps()
			volley(nil)
			b.is(firebreak.StateClosed)
		}
	})
}

// I5: with traffic, a healthy dependency and room in the bulkhead, open reaches
// closed within sleep window, probes and lease, whatever became of the first probe.
func TestI5_ARecoveredDependencyClosesItsCircuit(t *testing.T) {
	const (
		gap   = 100 * time.Millisecond // between calls
		sleep = 5 * time.Second
	)
	for _, row := range []struct {
		name  string
		first func(*breaker)
		lease time.Duration // what it costs at most
	}{
		{"nothing special", func(b *breaker) { b.succeeds(1) }, 0},
		{"hung", func(b *breaker) { b.begins("hung") }, sleep},
		{"canceled", func(b *breaker) { b.canceled(1) }, 0},
		{"ignored", func(b *breaker) { b.ends(1, errIgnored) }, 0},
		{"caller gave up", func(b *breaker) {
			ctx, cancel := context.WithCancel(b.t.Context())
			cancel()
			b.Run(ctx, func(context.Context) error { return nil })
		}, 0},
	} {
		for _, probes := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, %d probes", row.name, probes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBreaker(t, firebreak.Config{Probes: probes, Timeout: firebreak.Off})
					b.trips()
					opened := time.Now()
					b.sleeps()
					row.first(b)
					for b.Snapshot().State != firebreak.StateClosed {
						time.Sleep(gap)
						firebreak.Do(t.Context(), b.Command, func(context.Context) (int, error) {
							time.Sleep(gap)
							return 0, nil
						})
					}
					require.LessOrEqual(t, time.Since(opened), sleep+time.Duration(probes)*2*gap+row.lease)
					if b.held["hung"] != nil {
						b.home("hung", nil)
					}
				})
			})
		}
	}
}

// I6: callers that leave move no circuit, in any state, slow or not.
func TestI6_ACallersCancellationMovesNoCircuit(t *testing.T) {
	heed := func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() }
	for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		for name, leave := range map[string]func(context.Context) (context.Context, context.CancelFunc){
			"cancel": func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(50*time.Millisecond, cancel)
				return ctx, cancel
			},
			"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, 50*time.Millisecond)
			},
			"before": func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				return ctx, cancel
			},
		} {
			t.Run(isolation.String()+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					reg := newRegistry(t, firebreak.Config{})
					b := breakerOf(t, reg.Command("dep", firebreak.Config{
						Isolation: isolation, RequestVolumeThreshold: 2, ConsecutiveFailures: 2, Evidence: firebreak.On,
						ErrorThresholdPercentage: 60, SlowCallDuration: time.Millisecond, SlowCallThresholdPercentage: 60,
					}))
					leaves := func(n int) {
						for range n {
							ctx, cancel := leave(t.Context())
							_, err := firebreak.Do(ctx, b.Command, heed)
							require.Error(t, err)
							cancel()
						}
					}
					seen := watch(reg)
					b.succeeds(1)
					b.fails(1)
					leaves(100)
					require.Empty(t, *seen)
					b.at(10 * time.Second) // the failure was not forgotten, nor is the row of them broken
					b.fails(1)
					b.is(firebreak.StateOpen)

					*seen = nil
					leaves(10)
					b.is(firebreak.StateOpen)
					require.Empty(t, *seen)

					b.sleeps()
					leaves(100)
					if name != "before" {
						b.is(firebreak.StateHalfOpen)
						require.Len(t, *seen, 1)
					}
					b.succeeds(1)
					b.is(firebreak.StateClosed)
				})
			})
		}
	}
}

// I11: a window is what a list of all outcomes would say, at every moment.
func TestI11_WindowsHoldNoExpiredBucket(t *testing.T) {
	const window, bucket = 10 * time.Second, time.Second
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			reg := firebreak.NewRegistry(firebreak.Config{})
			cmd := reg.Command("dep", firebreak.Config{ErrorThresholdPercentage: firebreak.Off})
			began := time.Now()
			outcomes := map[int64]firebreak.Counts{} // by number of bucket
			note := func(count func(*firebreak.Counts)) {
				n := int64(time.Since(began) / bucket)
				c := outcomes[n]
				count(&c)
				outcomes[n] = c
			}
			rt.Repeat(map[string]func(*rapid.T){
				"wait": func(rt *rapid.T) { time.Sleep(pauses(bucket, window).Draw(rt, "pause")) },
				"wait for an edge": func(rt *rapid.T) {
					next := bucket - time.Since(began)%bucket
					time.Sleep(max(0, next+rapid.SampledFrom([]time.Duration{-1, 0}).Draw(rt, "side")))
				},
				"success": func(rt *rapid.T) {
					firebreak.Do(rt.Context(), cmd, succeed)
					note(func(c *firebreak.Counts) { c.Success++ })
				},
				"failure": func(rt *rapid.T) {
					firebreak.Do(rt.Context(), cmd, fail)
					note(func(c *firebreak.Counts) { c.Failure++; c.FallbackMissing++ })
				},
				"ignored": func(rt *rapid.T) {
					firebreak.Do(rt.Context(), cmd, func(context.Context) (int, error) { return 0, errIgnored })
					note(func(c *firebreak.Counts) { c.Ignored++ })
				},
				"timeout": func(rt *rapid.T) {
					firebreak.Do(rt.Context(), cmd, func(context.Context) (int, error) { time.Sleep(1050 * time.Millisecond); return 0, errBoom })
					note(func(c *firebreak.Counts) { c.Timeout++; c.FallbackMissing++ })
				},
				"": func(rt *rapid.T) {
					var want firebreak.Counts
					for n := int64(time.Since(began) / bucket); n > int64(time.Since(began)/bucket)-10; n-- {
						want.Success += outcomes[n].Success
						want.Failure += outcomes[n].Failure
						want.Ignored += outcomes[n].Ignored
						want.Timeout += outcomes[n].Timeout
						want.FallbackMissing += outcomes[n].FallbackMissing
					}
					s := cmd.Snapshot()
					require.Equal(rt, want, s.Window)
					bad := want.Failure + want.Timeout
					percentage := 0.0
					if bad > 0 {
						percentage = 100 * float64(bad) / float64(bad+want.Success)
					}
					require.InDelta(rt, percentage, s.ErrorPercentage, 0)
				},
			})
		})
	})
}

// pauses are often of a length at which something happens, or a nanosecond beside it.
func pauses(lengths ...time.Duration) *rapid.Generator[time.Duration] {
	return rapid.Custom(func(t *rapid.T) time.Duration {
		d := rapid.SampledFrom(lengths).Draw(t, "length")
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			return d
		case 1:
			return d - 1
		case 2:
			return d + 1
		}
		return time.Duration(rapid.Int64Range(0, int64(d)).Draw(t, "part"))
	})
}
