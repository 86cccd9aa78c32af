package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak"
)

func (b *breaker) forces(m firebreak.Mode) { b.Override(firebreak.Override{Mode: m}) }
func (b *breaker) lifts()                  { b.Override(firebreak.Override{}) }

// configures sets Config's mode by an Update.
func configures(t testing.TB, reg *firebreak.Registry, m firebreak.Mode) {
	t.Helper()
	require.NoError(t, reg.Update(firebreak.Document{Defaults: firebreak.Config{Mode: m}}))
}

func TestS38_ForceOpenShortCircuitsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{})
		b.forces(firebreak.ForceOpen)
		b.is(firebreak.StateOpen)
		for range 10 {
			require.Zero(t, b.refusal().RetryAt, "nobody knows until when")
			time.Sleep(time.Hour)
		}
		b.is(firebreak.StateOpen)
		require.EqualValues(t, 10, total(b.Command).ShortCircuited)
		require.Empty(t, b.Snapshot().Evidence, "it did not open by itself")

		v, err := firebreak.Do(t.Context(), b.Command, succeed, firebreak.Static(7))
		require.NoError(t, err)
		require.Equal(t, 7, v, "a fallback answers as ever")
	})
}

func TestS38_ForceOpenEndsEveryEra(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{Timeout: firebreak.Off})
		b.halfOpens("probe")
		b.forces(firebreak.ForceOpen)
		b.home("probe", nil)
		b.is(firebreak.StateOpen)
		time.Sleep(time.Hour)
		b.refused()
		b.lifts()
		b.is(firebreak.StateClosed)
		require.Zero(t, b.Snapshot().ErrorPercentage)
		b.fails(19)
		b.is(firebreak.StateClosed)
		b.fails(1)
		b.is(firebreak.StateOpen)
	})
}

func TestS38_ForceClosedAdmitsAllAndJudgesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{
			ConsecutiveFailures: 1, Evidence: firebreak.On, SlowCallDuration: time.Millisecond,
		})
		b.forces(firebreak.ForceClosed)
		b.succeeds(50)
		b.fails(100)
		b.takes(50, 10*time.Millisecond, errBoom)
		b.is(firebreak.StateClosed)
		require.InDelta(t, 75.0, b.Snapshot().ErrorPercentage, 0, "counted all the same")
		require.Empty(t, b.Snapshot().Evidence)
	})
}

func TestS38_ForceClosedSetTwiceIsOneEra(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		b := breakerOf(t, reg.Command("dep", firebreak.Config{}))
		b.forces(firebreak.ForceClosed)
		b.fails(10)
		b.Override(firebreak.Override{Mode: firebreak.ForceClosed, Reason: "still"})
		configures(t, reg, firebreak.ForceClosed)
		b.lifts()
		require.InDelta(t, 100.0, b.Snapshot().ErrorPercentage, 0)
	})
}

func TestS38_AForcedModeThatEndsLeavesAClosedCircuitWithAnEmptyWindow(t *testing.T) {
	for _, mode := range []firebreak.Mode{firebreak.ForceOpen, firebreak.ForceClosed} {
		for _, from := range []string{"closed", "open", "half-open"} {
			t.Run(mode.String()+" from "+from, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBreaker(t, firebreak.Config{})
					switch from {
					case "closed":
						b.fails(19)
					case "open":
						b.trips()
					case "half-open":
						b.trips()
						b.sleeps()
						b.ends(1, errIgnored)
					}
					b.forces(mode)
					if mode == firebreak.ForceClosed {
						b.succeeds(1)
						b.fails(30)
					} else {
						b.refused()
					}
					b.lifts()
					b.is(firebreak.StateClosed)
					require.Zero(t, b.Snapshot().ErrorPercentage)
					b.fails(19)
					b.is(firebreak.StateClosed)
					b.fails(1)
					b.is(firebreak.StateOpen)
				})
			})
		}
	}
}

func TestS38_ShadowLetsPassWhatItWouldRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{Timeout: firebreak.Off})
		b.forces(firebreak.Shadow)
		b.trips()
		b.succeeds(30)
		b.fails(30)
		b.is(firebreak.StateOpen) // these decide nothing
		require.EqualValues(t, 60, total(b.Command).WouldShortCircuit)
		require.Zero(t, total(b.Command).ShortCircuited)
		require.Zero(t, b.Snapshot().Evidence.Refused)
		require.InDelta(t, 100.0, b.Snapshot().ErrorPercentage, 0, "and are in no window")

		time.Sleep(5*time.Second - time.Nanosecond)
		b.succeeds(1)
		b.is(firebreak.StateOpen)
		time.Sleep(time.Nanosecond)
		b.begins("probe")
		b.is(firebreak.StateHalfOpen)
		b.begins("would be refused")
		require.EqualValues(t, 62, total(b.Command).WouldShortCircuit)
		b.home("would be refused", errBoom)
		b.is(firebreak.StateHalfOpen)
		b.home("probe", errBoom)
		b.is(firebreak.StateOpen)
		b.recovers()
		require.EqualValues(t, 62, total(b.Command).WouldShortCircuit)
	})
}

func TestS38_ShadowBeginsNoEra(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{Timeout: firebreak.Off})
		b.fails(10)
		b.forces(firebreak.Shadow)
		b.fails(5)
		b.lifts()
		b.fails(5)
		b.is(firebreak.StateOpen)

		time.Sleep(time.Second)
		b.forces(firebreak.Shadow)
		b.begins("blind")
		time.Sleep(time.Second)
		b.lifts()
		b.refused()
		time.Sleep(3*time.Second - time.Nanosecond)
		b.refused()
		time.Sleep(time.Nanosecond)
		b.begins("probe")
		b.home("blind", errBoom) // it decides nothing in Auto either
		b.is(firebreak.StateHalfOpen)
		b.forces(firebreak.Shadow)
		b.lifts()
		b.refused()
		b.home("probe", nil)
		b.is(firebreak.StateClosed)
	})
}

func TestS38_BulkheadTimeoutAndFallbacksActUnderShadowAsEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{MaxConcurrent: 1, CountRejections: firebreak.On, Mode: firebreak.Shadow})
		b.trips()
		b.begins("the only permit")
		for range 30 {
			_, err := firebreak.Do(t.Context(), b.Command, succeed)
			require.ErrorIs(t, err, firebreak.ErrRejected)
		}
		b.home("the only permit", nil)
		_, err := firebreak.Do(t.Context(), b.Command, func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		require.ErrorIs(t, err, firebreak.ErrTimeout)
		v, err := firebreak.Do(t.Context(), b.Command, fail, firebreak.Static(7))
		require.NoError(t, err)
		require.Equal(t, 7, v)
		b.is(firebreak.StateOpen)
		require.EqualValues(t, 33, total(b.Command).WouldShortCircuit)
	})
}

// A call that waits asks the circuit twice, and used to be counted twice too.
func TestS38_ACallThatWaitedIsCountedOnce(t *testing.T) {
	for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		t.Run(isolation.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newRegistry(t, firebreak.Config{Timeout: firebreak.Off})
				c := firebreak.Config{MaxConcurrent: 1, Isolation: isolation, QueueSize: 9}
				if isolation == firebreak.SemaphoreIsolation {
					c.MaxWait = time.Hour
				}
				dep := reg.Dependency("dep", c)
				b := breakerOf(t, dep.Command("b", firebreak.Config{Mode: firebreak.Shadow}))
				other := breakerOf(t, dep.Command("other", firebreak.Config{}))
				b.trips()
				other.begins("the only permit")
				var wg sync.WaitGroup
				wg.Go(func() { b.ends(1, errBoom) })
				synctest.Wait()
				require.EqualValues(t, 1, total(b.Command).WouldShortCircuit)

				b.sleeps()
				wg.Go(func() { b.ends(1, errIgnored) }) // the first probe: the era has changed
				synctest.Wait()
				b.is(firebreak.StateHalfOpen)
				other.home("the only permit", nil)
				wg.Wait()
				b.is(firebreak.StateHalfOpen)
				require.EqualValues(t, 1, total(b.Command).WouldShortCircuit)
			})
		})
	}
}

// I12: Shadow changes no admission, and otherwise does what Auto does. Both live
// through the same; only, what Auto refuses Shadow counts.
func TestI12_ShadowChangesNoAdmission(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			reg := firebreak.NewRegistry(firebreak.Config{
				Timeout: firebreak.Off, RequestVolumeThreshold: 4, MaxSleepWindow: 20 * time.Second,
				Probes: rapid.IntRange(1, 3).Draw(rt, "probes"),
			})
			auto := reg.Command("auto", firebreak.Config{})
			shadow := reg.Command("shadow", firebreak.Config{Mode: firebreak.Shadow})
			type pair struct{ auto, shadow *firebreak.Call }
			var held []pair
			begin := func(rt *rapid.T) pair {
				var p pair
				var err error
				if p.auto, err = auto.Begin(rt.Context()); err != nil {
					require.ErrorIs(rt, err, firebreak.ErrOpen)
				}
				p.shadow, err = shadow.Begin(rt.Context())
				require.NoError(rt, err)
				return p
			}
			end := func(rt *rapid.T, p pair) {
				err := rapid.SampledFrom([]error{nil, errBoom, errBoom, errIgnored, firebreak.RetryAfter(errBoom, 9*time.Second)}).Draw(rt, "err")
				for _, call := range []*firebreak.Call{p.auto, p.shadow} {
					if call != nil {
						call.Settle(err)
						call.End()
					}
				}
			}
			rt.Repeat(map[string]func(*rapid.T){
				"call": func(rt *rapid.T) { end(rt, begin(rt)) },
				"calls": func(rt *rapid.T) {
					for range 4 {
						end(rt, begin(rt))
					}
				},
				"begin": func(rt *rapid.T) {
					if len(held) < 6 {
						held = append(held, begin(rt))
					}
				},
				"end": func(rt *rapid.T) {
					if len(held) == 0 {
						rt.Skip("nobody is there")
					}
					i := rapid.IntRange(0, len(held)-1).Draw(rt, "who")
					end(rt, held[i])
					held = append(held[:i], held[i+1:]...)
				},
				"wait": func(rt *rapid.T) { time.Sleep(pauses(time.Second, 5*time.Second).Draw(rt, "pause")) },
				"": func(rt *rapid.T) {
					a, s := auto.Snapshot(), shadow.Snapshot()
					require.Equal(rt, a.State, s.State)
					require.Equal(rt, a.Total.ShortCircuited, s.Total.WouldShortCircuit)
					require.Zero(rt, s.Total.ShortCircuited)
					require.InDelta(rt, a.ErrorPercentage, s.ErrorPercentage, 0)
					a.Evidence.Refused = 0
					require.Equal(rt, a.Evidence, s.Evidence)
				},
			})
			for _, p := range held {
				end(rt, p)
			}
		})
	})
}

// S38, S39: what is in force of Config's mode and an Override's, and what State then
// reads.
func TestS39_TheModeInForce(t *testing.T) {
	const (
		auto, open, closed, shadow = firebreak.Auto, firebreak.ForceOpen, firebreak.ForceClosed, firebreak.Shadow
		none                       = firebreak.Mode(0)
	)
	for _, row := range []struct{ config, override, want firebreak.Mode }{
		{auto, none, auto}, {auto, auto, auto}, {auto, open, open}, {auto, closed, closed}, {auto, shadow, shadow},
		{open, none, open}, {open, auto, open}, {open, open, open}, {open, closed, open}, {open, shadow, open},
		{closed, none, closed}, {closed, auto, auto}, {closed, open, open}, {closed, closed, closed}, {closed, shadow, shadow},
		{shadow, none, shadow}, {shadow, auto, auto}, {shadow, open, open}, {shadow, closed, closed}, {shadow, shadow, shadow},
	} {
		t.Run(fmt.Sprintf("%v over %v", row.override, row.config), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// Whatever the order in which they are set, and whether Config's is there from
				// the beginning.
				check := func(b *breaker) {
					require.Equal(t, row.want, b.Snapshot().Mode)
					require.Equal(t, "drill", b.Snapshot().Override.Reason)
					require.Equal(t, row.override, b.Snapshot().Override.Mode)
					wantState := firebreak.StateClosed
					if row.want == open {
						wantState = firebreak.StateOpen
					}
					b.is(wantState)
					switch row.want {
					case open:
						b.refused()
					case auto:
						b.trips()
						b.refused()
					case closed:
						b.fails(20)
						b.is(firebreak.StateClosed)
					case shadow:
						b.trips()
						b.fails(1)
						b.is(firebreak.StateOpen)
					}
					b.lifts()
					require.Equal(t, row.config, b.Snapshot().Mode)
					require.Zero(t, b.Snapshot().Override)
				}
				o := firebreak.Override{Mode: row.override, Reason: "drill"}

				made := newBreaker(t, firebreak.Config{Mode: row.config})
				made.Override(o)
				check(made)

				reg := newRegistry(t, firebreak.Config{})
				updated := breakerOf(t, reg.Command("dep", firebreak.Config{}))
				updated.Override(o)
				configures(t, reg, row.config)
				check(updated)
			})
		})
	}
}

func TestS71_ConfigsModeHoldsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		b := breakerOf(t, reg.Command("dep", firebreak.Config{}))
		configures(t, reg, firebreak.ForceOpen)
		b.refused()
		configures(t, reg, firebreak.ForceClosed)
		b.fails(30)
		configures(t, reg, firebreak.Auto)
		require.Zero(t, b.Snapshot().ErrorPercentage)
		b.trips()
		configures(t, reg, firebreak.Shadow)
		b.fails(1)
		b.is(firebreak.StateOpen)
		configures(t, reg, firebreak.Auto)
		b.refused()
	})
}

func TestS38_TransitionsOfModesAndOverrides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		b := breakerOf(t, reg.Command("dep", firebreak.Config{}))
		seen := watch(reg)
		const closed, open, halfOpen = firebreak.StateClosed, firebreak.StateOpen, firebreak.StateHalfOpen
		told := func(from, to firebreak.State, m firebreak.Mode) {
			t.Helper()
			require.Len(t, *seen, 1)
			got := (*seen)[0]
			*seen = nil
			require.Equal(t, "dep", got.Dependency)
			require.Equal(t, "dep", got.Command)
			require.Equal(t, from, got.From)
			require.Equal(t, to, got.To)
			require.Equal(t, m, got.Mode)
			require.Equal(t, b.Snapshot().Override, got.Override)
			require.Equal(t, time.Now(), got.At)
			require.Equal(t, b.Snapshot().Evidence, got.Evidence)
		}
		b.lifts()
		require.Empty(t, *seen, "there was none")
		b.Override(firebreak.Override{Reason: "a note", Author: "ops"})
		told(closed, closed, firebreak.Auto)
		b.forces(firebreak.Shadow)
		told(closed, closed, firebreak.Shadow)
		b.forces(firebreak.ForceClosed)
		told(closed, closed, firebreak.ForceClosed)
		b.forces(firebreak.ForceOpen)
		told(closed, open, firebreak.ForceOpen)
		b.Override(firebreak.Override{Mode: firebreak.ForceOpen, Reason: "another"})
		told(open, open, firebreak.ForceOpen)
		configures(t, reg, firebreak.ForceOpen)
		told(open, open, firebreak.ForceOpen)
		b.lifts()
		told(open, open, firebreak.ForceOpen)
		configures(t, reg, firebreak.Auto)
		told(open, closed, firebreak.Auto)
		configures(t, reg, firebreak.Auto)
		require.Empty(t, *seen, "it was so before")

		b.trips()
		told(closed, open, firebreak.Auto)
		b.forces(firebreak.Shadow)
		told(open, open, firebreak.Shadow)
		b.sleeps()
		b.begins("probe")
		told(open, halfOpen, firebreak.Shadow)
		b.lifts()
		told(halfOpen, halfOpen, firebreak.Auto)
		b.home("probe", errBoom)
		told(halfOpen, open, firebreak.Auto)
		b.sleeps()
		b.succeeds(1)
		require.Equal(t, []firebreak.State{halfOpen, closed}, []firebreak.State{(*seen)[0].To, (*seen)[1].To})
		*seen = nil

		b.trips()
		told(closed, open, firebreak.Auto)
		b.forces(firebreak.ForceClosed)
		told(open, closed, firebreak.ForceClosed)
		b.forces(firebreak.Auto)
		told(closed, closed, firebreak.Auto)
	})
}

func TestS39_AnOverrideLiftsItselfAtItsEnd(t *testing.T) {
	for _, mode := range []firebreak.Mode{firebreak.ForceOpen, firebreak.ForceClosed, firebreak.Shadow} {
		t.Run(mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newRegistry(t, firebreak.Config{})
				b := breakerOf(t, reg.Command("dep", firebreak.Config{ConsecutiveFailures: 1}))
				until := time.Now().Add(time.Minute)
				b.Override(firebreak.Override{Mode: mode, Reason: "drill", Author: "ops", Until: until})
				require.Equal(t, firebreak.Override{Mode: mode, Reason: "drill", Author: "ops", Until: until}, b.Snapshot().Override)
				seen := watch(reg)

				time.Sleep(time.Minute - time.Nanosecond)
				switch mode {
				case firebreak.ForceOpen:
					require.Equal(t, until, b.refusal().RetryAt)
				case firebreak.ForceClosed:
					b.fails(1)
					b.is(firebreak.StateClosed)
				case firebreak.Shadow:
					b.fails(2)
					b.is(firebreak.StateOpen)
					require.EqualValues(t, 1, total(b.Command).WouldShortCircuit)
				}
				require.Equal(t, mode, b.Snapshot().Mode)
				*seen = nil

				time.Sleep(time.Nanosecond)
				require.Equal(t, firebreak.Auto, b.Snapshot().Mode, "a snapshot shows it as gone")
				require.Zero(t, b.Snapshot().Override)
				if mode == firebreak.Shadow {
					b.is(firebreak.StateOpen)
				} else {
					b.is(firebreak.StateClosed)
				}
				require.Empty(t, *seen, "but moves nothing")

				time.Sleep(time.Second)
				if mode == firebreak.Shadow {
					b.refused()
				} else {
					b.succeeds(1)
				}
				require.Len(t, *seen, 1)
				got := (*seen)[0]
				require.Equal(t, firebreak.Auto, got.Mode)
				require.Zero(t, got.Override)
				require.Equal(t, until.Add(time.Second), got.At, "the call that found it so lifted it")
				require.Zero(t, b.Snapshot().Override)
			})
		})
	}
}

// Snapshots used to show the state of the circuit below, where Config's mode that
// comes to hold again is a forced one.
func TestS39_AnExpiredOverrideShowsConfigsModeInForce(t *testing.T) {
	for _, row := range []struct {
		config, override firebreak.Mode
		want             firebreak.State
	}{
		{firebreak.ForceClosed, firebreak.Auto, firebreak.StateClosed},
		{firebreak.ForceClosed, firebreak.Shadow, firebreak.StateClosed},
		{firebreak.ForceClosed, firebreak.ForceOpen, firebreak.StateClosed},
		{firebreak.ForceOpen, firebreak.Auto, firebreak.StateOpen},
		{firebreak.ForceOpen, firebreak.ForceClosed, firebreak.StateOpen},
		{firebreak.Shadow, firebreak.Auto, firebreak.StateOpen},
		{firebreak.Shadow, firebreak.ForceClosed, firebreak.StateClosed},
		{firebreak.Auto, firebreak.Shadow, firebreak.StateOpen},
	} {
		t.Run(fmt.Sprintf("%v over %v", row.override, row.config), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, firebreak.Config{Mode: row.config, ConsecutiveFailures: 1})
				b.Override(firebreak.Override{Mode: row.override, Until: time.Now().Add(time.Second)})
				firebreak.Do(t.Context(), b.Command, fail)
				time.Sleep(time.Second)
				shown := b.Snapshot()
				require.Equal(t, row.config, shown.Mode)
				require.Equal(t, row.want, shown.State)

				firebreak.Do(t.Context(), b.Command, func(context.Context) (int, error) { return 0, errIgnored })
				lifted := b.Snapshot()
				require.Equal(t, shown.Mode, lifted.Mode, "and the call that lifts it finds the same")
				require.Equal(t, shown.State, lifted.State)
			})
		})
	}
}

func TestS39_TheLatestOverrideCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{})
		now := time.Now()
		b.Override(firebreak.Override{Mode: firebreak.ForceOpen, Until: now.Add(time.Minute)})
		b.Override(firebreak.Override{Mode: firebreak.ForceOpen, Until: now.Add(time.Hour)})
		require.Equal(t, now.Add(time.Hour), b.refusal().RetryAt)
		time.Sleep(time.Hour - time.Nanosecond)
		b.refused() // the end of the first lifted nothing
		time.Sleep(time.Nanosecond)
		b.succeeds(1)

		b.Override(firebreak.Override{Mode: firebreak.ForceOpen, Until: time.Now().Add(time.Minute)})
		b.forces(firebreak.ForceOpen)
		time.Sleep(time.Hour)
		require.Zero(t, b.refusal().RetryAt)
		b.forces(firebreak.ForceClosed)
		b.succeeds(1)
	})
}

// It is for whoever set it to know it again; an Owner alone is an override, too.
func TestS39_AnOverrideHasAnOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{})
		var told []any
		reg.Observe(firebreak.Observer{Transition: func(tr firebreak.Transition) { told = append(told, tr.Override.Owner) }})
		mine := new(int)
		cmd.Override(firebreak.Override{Owner: mine})
		require.Same(t, mine, cmd.Snapshot().Override.Owner)
		cmd.Override(firebreak.Override{Mode: firebreak.Shadow})
		require.Nil(t, cmd.Snapshot().Override.Owner)
		cmd.Override(firebreak.Override{})
		require.Zero(t, cmd.Snapshot().Override)
		require.Equal(t, []any{mine, nil, nil}, told)
	})
}

func TestS39_AnOverrideThatIsOverLiftsTheLastOneAndSetsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{})
		b.Override(firebreak.Override{Mode: firebreak.ForceOpen, Until: time.Now()})
		require.Zero(t, b.Snapshot().Override)
		b.succeeds(1)
		b.forces(firebreak.ForceOpen)
		b.Override(firebreak.Override{Mode: firebreak.ForceOpen, Until: time.Now().Add(-time.Hour)})
		require.Zero(t, b.Snapshot().Override)
		b.succeeds(1)
	})
}

// S16: ForceOpen's RetryAt is its Until, where its end is known and opens the circuit.
func TestS16_RetryAtUnderForceOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		until := time.Now().Add(time.Minute)
		override := firebreak.Override{Mode: firebreak.ForceOpen, Until: until}

		b := newBreaker(t, firebreak.Config{})
		b.Override(override)
		require.Equal(t, until, b.refusal().RetryAt)
		time.Sleep(time.Second)
		require.Equal(t, 59*time.Second, b.refusal().RetryAfter())

		b = newBreaker(t, firebreak.Config{Mode: firebreak.ForceOpen})
		require.Zero(t, b.refusal().RetryAt)
		b.Override(override)
		require.Zero(t, b.refusal().RetryAt, "Config's has no end")
		override.Mode = firebreak.ForceClosed
		b.Override(override)
		require.Zero(t, b.refusal().RetryAt)
	})
}

func TestS39_AnOverrideIsForOneCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dep := newRegistry(t, firebreak.Config{}).Dependency("dep", firebreak.Config{})
		a, b := breakerOf(t, dep.Command("a", firebreak.Config{})), breakerOf(t, dep.Command("b", firebreak.Config{}))
		a.forces(firebreak.ForceOpen)
		a.refused()
		b.succeeds(1)
	})
}

func TestOverridePanicsOnAModeThatThereIsNot(t *testing.T) {
	b := newBreaker(t, firebreak.Config{})
	require.Panics(t, func() { b.forces(firebreak.Shadow + 1) })
	require.Zero(t, b.Snapshot().Override)
}

// Each way to make a call, under each isolation.
var verbs = []struct {
	name      string
	isolation firebreak.Isolation
	begin     bool
}{
	{"Do under semaphore isolation", firebreak.SemaphoreIsolation, false},
	{"Do under pool isolation", firebreak.PoolIsolation, false},
	{"Begin", firebreak.SemaphoreIsolation, true},
}

// makes makes a call by one of the verbs, whose run or settling ends with err.
func (b *breaker) makes(ctx context.Context, begin bool, run func(context.Context) error) error {
	if !begin {
		return b.Run(ctx, run)
	}
	call, err := b.Begin(ctx)
	if err != nil {
		return err
	}
	defer call.End()
	return call.Settle(run(call.Context()))
}

func TestS39_Inject(t *testing.T) {
	wrapped := fmt.Errorf("inner: %w", firebreak.ErrOpen)
	hint := firebreak.RetryAfter(errBoom, time.Minute)
	for _, row := range []struct {
		name    string
		inject  error
		want    error // Is
		reason  error // of an *Error; nil: the error is unchanged
		counts  firebreak.Counts
		percent float64 // after one success and one failure
	}{
		{"nil lets run go on", nil, errRan, nil, firebreak.Counts{Failure: 1}, 200. / 3},
		{"ErrOpen", firebreak.ErrOpen, firebreak.ErrOpen, firebreak.ErrOpen, firebreak.Counts{ShortCircuited: 1}, 50},
		{"ErrRejected", firebreak.ErrRejected, firebreak.ErrRejected, firebreak.ErrRejected, firebreak.Counts{Rejected: 1}, 50},
		{"ErrTimeout", firebreak.ErrTimeout, context.DeadlineExceeded, firebreak.ErrTimeout, firebreak.Counts{Timeout: 1}, 200. / 3},
		{"an error", errBoom, errBoom, nil, firebreak.Counts{Failure: 1}, 200. / 3},
		{"ignored", errIgnored, errors.Unwrap(errIgnored), nil, firebreak.Counts{Ignored: 1}, 50},
		{"expected", errExpected, errors.Unwrap(errExpected), nil, firebreak.Counts{Expected: 1}, 100. / 3},
		{"with a hint", hint, errBoom, nil, firebreak.Counts{Failure: 1}, 200. / 3},
		{"another command's refusal", wrapped, wrapped, nil, firebreak.Counts{Failure: 1}, 200. / 3},
		{"ErrShutdown says nothing of its own", firebreak.ErrShutdown, firebreak.ErrShutdown, nil, firebreak.Counts{Failure: 1}, 200. / 3},
		{"a context's error without its end", context.Canceled, context.Canceled, nil, firebreak.Counts{Failure: 1}, 200. / 3},
	} {
		for _, verb := range verbs {
			t.Run(row.name+", "+verb.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBreaker(t, firebreak.Config{Isolation: verb.isolation})
					b.succeeds(1)
					b.fails(1)
					before := b.Snapshot()
					ran, injected := 0, 0
					b.Override(firebreak.Override{Inject: func(context.Context) error {
						injected++
						time.Sleep(30 * time.Millisecond)
						if s := b.Snapshot(); s.InFlight != 1 || s.Bulkhead.InFlight != 1 {
							t.Error("the permit is not taken")
						}
						return row.inject
					}})
					err := b.makes(t.Context(), verb.begin, func(context.Context) error { ran++; return errRan })

					require.Equal(t, 1, injected)
					require.ErrorIs(t, err, row.want)
					if row.reason == nil {
						require.Equal(t, row.want, err)
					} else {
						e, ok := errors.AsType[*firebreak.Error](err)
						require.True(t, ok)
						require.Equal(t, row.reason, e.Reason)
						require.Equal(t, "dep", e.Command)
					}
					require.Equal(t, row.inject == nil, ran == 1)

					after := b.Snapshot()
					want := before.Total
					want.Failure += row.counts.Failure
					want.Expected += row.counts.Expected
					want.Ignored += row.counts.Ignored
					want.Timeout += row.counts.Timeout
					want.Rejected += row.counts.Rejected
					want.ShortCircuited += row.counts.ShortCircuited
					if row.counts.Ignored+row.counts.Expected == 0 && !verb.begin {
						want.FallbackMissing++
					}
					require.Equal(t, want, after.Total)
					require.InDelta(t, row.percent, after.ErrorPercentage, 1e-9)
					require.Equal(t, row.counts.Executed(), after.RunHistogram.Count-before.RunHistogram.Count)
					if row.counts.Executed() == 1 {
						require.Equal(t, 30*time.Millisecond, after.RunHistogram.Sum-before.RunHistogram.Sum)
					}
				})
			})
		}
	}
}

var errRan = errors.New("run was called")

func TestS39_InjectedOutcomesAskFallbacks(t *testing.T) {
	for _, inject := range []error{firebreak.ErrOpen, firebreak.ErrRejected, firebreak.ErrTimeout, errBoom} {
		for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
			t.Run(inject.Error()+", "+isolation.String(), func(t *testing.T) {
				b := newBreaker(t, firebreak.Config{Isolation: isolation})
				b.Override(firebreak.Override{Inject: func(context.Context) error { return inject }})
				v, err := firebreak.Do(t.Context(), b.Command, succeed, func(_ context.Context, cause error) (int, error) {
					require.ErrorIs(t, cause, inject)
					return 7, nil
				})
				require.NoError(t, err)
				require.Equal(t, 7, v)
				require.EqualValues(t, 1, total(b.Command).FallbackSuccess)
			})
		}
	}
}

// After Inject has let run go on, an error of run's is run's, whatever it looks like.
func TestS39_WhatInjectLetsGoOnIsAnOrdinaryRun(t *testing.T) {
	for _, verb := range verbs {
		t.Run(verb.name, func(t *testing.T) {
			b := newBreaker(t, firebreak.Config{Isolation: verb.isolation})
			b.Override(firebreak.Override{Inject: func(context.Context) error { return nil }})
			for _, err := range []error{firebreak.ErrOpen, firebreak.ErrRejected, firebreak.ErrTimeout} {
				require.Equal(t, err, b.makes(t.Context(), verb.begin, func(context.Context) error { return err }))
			}
			require.NoError(t, b.makes(t.Context(), verb.begin, func(context.Context) error { return nil }))
			require.EqualValues(t, 3, total(b.Command).Failure)
			require.EqualValues(t, 1, total(b.Command).Success)
			require.EqualValues(t, 4, total(b.Command).Calls())
		})
	}
}

func TestS39_InjectWaitsUnderTheCallsContext(t *testing.T) {
	type key struct{}
	for _, verb := range verbs {
		t.Run(verb.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, firebreak.Config{Isolation: verb.isolation, Timeout: 100 * time.Millisecond})
				b.Override(firebreak.Override{Inject: func(ctx context.Context) error {
					if ctx.Value(key{}) != "the caller's" {
						t.Error("it is not the caller's context")
					}
					<-ctx.Done()
					return ctx.Err()
				}})
				began := time.Now()
				ctx := context.WithValue(t.Context(), key{}, "the caller's")
				run := func(context.Context) error { t.Error("run was called"); return nil }
				err := b.makes(ctx, verb.begin, run)
				require.ErrorIs(t, err, firebreak.ErrTimeout)
				require.Equal(t, 100*time.Millisecond, time.Since(began))
				require.EqualValues(t, 1, total(b.Command).Timeout)

				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(50*time.Millisecond, cancel)
				err = b.makes(ctx, verb.begin, run)
				require.ErrorIs(t, err, context.Canceled)
				require.Equal(t, 150*time.Millisecond, time.Since(began))
				require.EqualValues(t, 1, total(b.Command).Canceled)
			})
		})
	}
}

// A pool's caller leaves while Inject lets run go on. They used to race for the call.
func TestS39_InjectLetsRunGoOnWhileItsCallerLeaves(t *testing.T) {
	b := newBreaker(t, firebreak.Config{Isolation: firebreak.PoolIsolation, Timeout: time.Millisecond, Mode: firebreak.ForceClosed})
	b.Override(firebreak.Override{Inject: func(ctx context.Context) error { <-ctx.Done(); return nil }})
	for range 50 {
		b.Run(t.Context(), func(context.Context) error { return nil })
	}
	require.EqualValues(t, 50, total(b.Command).Timeout+total(b.Command).Success)
}

func TestS39_InjectThatPanicsIsARunThatPanics(t *testing.T) {
	for _, verb := range verbs {
		t.Run(verb.name, func(t *testing.T) {
			b := newBreaker(t, firebreak.Config{Isolation: verb.isolation})
			b.Override(firebreak.Override{Inject: func(context.Context) error { panic("boom") }})
			run := func(context.Context) error { t.Error("run was called"); return nil }
			if verb.isolation == firebreak.PoolIsolation {
				e, ok := errors.AsType[*firebreak.PanicError](b.makes(t.Context(), verb.begin, run))
				require.True(t, ok)
				require.Equal(t, "boom", e.Value)
			} else {
				require.PanicsWithValue(t, "boom", func() { _ = b.makes(t.Context(), verb.begin, run) })
			}
			require.EqualValues(t, 1, total(b.Command).Panic)
			require.EqualValues(t, 1, total(b.Command).Calls())

			b.Override(firebreak.Override{Inject: func(context.Context) error { runtime.Goexit(); return nil }})
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				_ = b.makes(t.Context(), verb.begin, run)
			}()
			<-gone
			require.EqualValues(t, 2, total(b.Command).Panic)
			require.EqualValues(t, 2, total(b.Command).Calls())
		})
	}
}

// The token is taken too: what is injected into a probe decides as if it had happened.
func TestS39_InjectIntoAProbe(t *testing.T) {
	for _, row := range []struct {
		inject error
		want   firebreak.State
	}{
		{nil, firebreak.StateClosed},
		{firebreak.ErrOpen, firebreak.StateHalfOpen},
		{firebreak.ErrRejected, firebreak.StateHalfOpen},
		{firebreak.ErrTimeout, firebreak.StateOpen},
		{errBoom, firebreak.StateOpen},
		{errIgnored, firebreak.StateHalfOpen},
		{errExpected, firebreak.StateClosed},
	} {
		for _, verb := range verbs {
			t.Run(fmt.Sprintf("%v, %s", row.inject, verb.name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBreaker(t, firebreak.Config{Isolation: verb.isolation, CountRejections: firebreak.On})
					b.trips()
					b.sleeps()
					b.Override(firebreak.Override{Inject: func(context.Context) error {
						b.refused() // another call, as the place is taken
						return row.inject
					}})
					_ = b.makes(t.Context(), verb.begin, func(context.Context) error { return nil })
					b.is(row.want)
					b.lifts()
					if row.want == firebreak.StateHalfOpen {
						b.succeeds(1)
						b.is(firebreak.StateClosed)
					}
				})
			})
		}
	}
}

func TestS39_InjectedRejectionsCountIfRejectionsDo(t *testing.T) {
	b := newBreaker(t, firebreak.Config{CountRejections: firebreak.On})
	b.Override(firebreak.Override{Inject: func(context.Context) error { return firebreak.ErrRejected }})
	for range 20 {
		_ = b.makes(t.Context(), false, func(context.Context) error { return nil })
	}
	b.is(firebreak.StateOpen)
	require.EqualValues(t, 20, total(b.Command).Rejected)
}

func TestS39_InjectIsNotAskedForCallsThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{})
		injected := 0
		inject := func(context.Context) error { injected++; return errBoom }
		b.Override(firebreak.Override{Mode: firebreak.ForceOpen, Inject: inject})
		b.refused()
		b.Override(firebreak.Override{Inject: inject})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, b.makes(ctx, false, func(context.Context) error { return nil }), context.Canceled)
		require.Zero(t, injected)

		// It trips the circuit as failures would, and holds in every mode.
		for range 20 {
			require.Equal(t, errBoom, b.makes(t.Context(), false, func(context.Context) error { return nil }))
		}
		b.refused()
		require.Equal(t, 20, injected)
		b.Override(firebreak.Override{Mode: firebreak.ForceClosed, Inject: inject})
		require.Equal(t, errBoom, b.makes(t.Context(), false, func(context.Context) error { return nil }))
		require.Equal(t, 21, injected)
	})
}

func TestS39_InjectEndsWithItsOverride(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, firebreak.Config{})
		b.Override(firebreak.Override{
			Until:  time.Now().Add(time.Minute),
			Inject: func(context.Context) error { return errRan },
		})
		time.Sleep(time.Minute - time.Nanosecond)
		require.Equal(t, errRan, b.makes(t.Context(), false, func(context.Context) error { return nil }))
		time.Sleep(time.Nanosecond)
		b.succeeds(1)
		require.Zero(t, b.Snapshot().Override)
	})
}

// An open circuit that no failure opened says so: whoever reads a log is not to
// look for an outage.
func TestForcedOpenSaysWhoAndWhy(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{})
	for o, text := range map[*firebreak.Override]string{
		{Mode: firebreak.ForceOpen}:                                     "dep: circuit open: forced",
		{Mode: firebreak.ForceOpen, Author: "ann"}:                      "dep: circuit open: forced by ann",
		{Mode: firebreak.ForceOpen, Author: "ann", Reason: "migration"}: "dep: circuit open: forced by ann: migration",
	} {
		cmd.Override(*o)
		_, err := firebreak.Do(t.Context(), cmd, succeed)
		require.ErrorIs(t, err, firebreak.ErrOpen)
		require.EqualError(t, err, text)
	}
}

// S38, S72: what opens a circuit by hand, or for good, has no evidence, least of all an
// outage's of last week.
func TestS38_OpeningsWithoutARuleTellNoOldEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{})
		trip(t, cmd)
		time.Sleep(5 * time.Second)
		_, err := firebreak.Do(t.Context(), cmd, succeed)
		require.NoError(t, err)
		seen := watch(reg)
		cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		cmd.Override(firebreak.Override{})
		require.NoError(t, reg.Shutdown(t.Context()))
		var rules []string
		for _, tr := range *seen {
			rules = append(rules, tr.To.String()+" "+tr.Evidence.Rule)
		}
		require.Equal(t, []string{"open ", "closed error percentage", "open "}, rules)
	})
}
