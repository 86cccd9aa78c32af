package chaos_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/chaos"
)

func TestADrillShowsAndEndsByItself(t *testing.T) {
	for _, row := range []struct {
		name string
		end  func(*chaos.Drill)
	}{
		{"For", func(d *chaos.Drill) { d.For = 10 * time.Minute }},
		{"Until", func(d *chaos.Drill) { d.For, d.Until = 0, time.Now().Add(10*time.Minute) }},
		{"Until, parsed", func(d *chaos.Drill) {
			until, err := time.Parse(time.RFC3339Nano, time.Now().Add(10*time.Minute).In(time.FixedZone("", 7200)).Format(time.RFC3339Nano))
			require.NoError(t, err)
			d.For, d.Until = 0, until
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newRegistry(t, firebreak.Config{})
				var seen []firebreak.Override
				reg.Observe(firebreak.Observer{Transition: func(tr firebreak.Transition) { seen = append(seen, tr.Override) }})
				cmd := reg.Command("dep", firebreak.Config{})
				d := drill(chaos.Chance(100, chaos.Error(errBoom)))
				row.end(&d)
				end := time.Now().Add(10 * time.Minute)
				start(t, d, cmd)

				o := cmd.Snapshot().Override
				require.Equal(t, `drill: 100% error "boom": ticket 123`, o.Reason)
				require.Equal(t, "Ada", o.Author)
				require.True(t, o.Until.Equal(end))
				require.Zero(t, o.Mode)
				require.NotNil(t, o.Inject)
				require.Len(t, seen, 1)
				require.Equal(t, o.Reason, seen[0].Reason)
				if !d.Until.IsZero() {
					_, want := d.Until.Zone()
					_, got := o.Until.Zone()
					require.Equal(t, want, got, "it is told in the zone in which it was set")
				}

				time.Sleep(10*time.Minute - time.Nanosecond)
				require.ErrorIs(t, cmd.Run(t.Context(), succeed), errBoom)
				time.Sleep(time.Nanosecond)
				require.Zero(t, cmd.Snapshot().Override)
				require.NoError(t, cmd.Run(t.Context(), succeed))
				require.Len(t, seen, 2)
			})
		})
	}
}

func TestWhatADrillHasToSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{})
		for want, change := range map[string]func(*chaos.Drill){
			"chaos: drill: Fault is missing":                                            func(d *chaos.Drill) { d.Fault = chaos.Fault{} },
			"chaos: drill: Reason is missing":                                           func(d *chaos.Drill) { d.Reason = " \n" },
			"chaos: drill: Author is missing":                                           func(d *chaos.Drill) { d.Author = "\t" },
			"chaos: drill: For or Until is missing: a drill has an end":                 func(d *chaos.Drill) { d.For = 0 },
			"chaos: drill: For and Until are both there":                                func(d *chaos.Drill) { d.Until = time.Now().Add(time.Hour) },
			"chaos: drill: For: -1ns is not above 0 and up to 168h":                     func(d *chaos.Drill) { d.For = -1 },
			"chaos: drill: For: 168h0m0.000000001s is not above 0 and up to 168h":       func(d *chaos.Drill) { d.For = chaos.Longest + 1 },
			"chaos: drill: For: 2562047h47m16.854775807s is not above 0 and up to 168h": func(d *chaos.Drill) { d.For = 1<<63 - 1 },
			"chaos: drill: Until: 2000-01-01T00:00:00Z is not from now on and at most 168h away": func(d *chaos.Drill) {
				d.For, d.Until = 0, time.Now().UTC()
			},
			"chaos: drill: Until: 2000-01-08T00:00:00Z is not from now on and at most 168h away": func(d *chaos.Drill) {
				d.For, d.Until = 0, time.Now().UTC().Add(chaos.Longest+1)
			},
			"chaos: drill: Until: 9999-01-01T00:00:00Z is not from now on and at most 168h away": func(d *chaos.Drill) {
				d.For, d.Until = 0, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
			},
			"chaos: drill: Mode: under force_open nothing is injected": func(d *chaos.Drill) { d.Mode = firebreak.ForceOpen },
			"chaos: drill: Mode: there is no 9":                        func(d *chaos.Drill) { d.Mode = 9 },
		} {
			d := drill(chaos.Hang())
			change(&d)
			stop, err := d.Start(cmd)
			assert.EqualError(t, err, want)
			assert.Nil(t, stop)
		}

		d := drill(chaos.Hang())
		_, err := d.Start()
		require.EqualError(t, err, "chaos: drill: no command")
		_, err = d.Start(cmd, nil)
		require.EqualError(t, err, "chaos: drill: command 2 of 2 is nil")
		_, err = chaos.Drill{}.Start()
		require.EqualError(t, err, "chaos: drill: Fault is missing\nchaos: drill: Reason is missing\n"+
			"chaos: drill: Author is missing\nchaos: drill: For or Until is missing: a drill has an end\nchaos: drill: no command")

		require.Zero(t, cmd.Snapshot().Override, "none of them began")
		for _, end := range []time.Duration{1, chaos.Longest} {
			d.For = end
			start(t, d, cmd)()
			d.For, d.Until = 0, time.Now().Add(end)
			start(t, d, cmd)()
			d.Until = time.Time{}
		}
	})
}

func TestStop(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{})
	stop := start(t, drill(chaos.Error(errBoom)), cmd)
	require.ErrorIs(t, cmd.Run(t.Context(), succeed), errBoom)
	stop()
	require.Zero(t, cmd.Snapshot().Override)
	require.NoError(t, cmd.Run(t.Context(), succeed))
	stop()

	again := start(t, drill(chaos.Error(errBoom)), cmd)
	stop() // that one is over
	require.ErrorIs(t, cmd.Run(t.Context(), succeed), errBoom)
	again()
	require.NoError(t, cmd.Run(t.Context(), succeed))
}

// An override that was set since the drill began is not lifted by its stop, however
// much it looks like the drill's.
func TestStopLeavesTheOverridesOfOthers(t *testing.T) {
	for _, row := range []struct {
		name  string
		other func(*testing.T, *firebreak.Command) firebreak.Override
	}{
		{"an operator's", func(_ *testing.T, cmd *firebreak.Command) firebreak.Override {
			o := firebreak.Override{Mode: firebreak.ForceClosed, Reason: "incident", Author: "ops"}
			cmd.Override(o)
			return o
		}},
		{"a copy that somebody made his own", func(_ *testing.T, cmd *firebreak.Command) firebreak.Override {
			o := cmd.Snapshot().Override
			o.Owner = "ops"
			cmd.Override(o)
			return o
		}},
		{"the same drill again, at the same instant", func(t *testing.T, cmd *firebreak.Command) firebreak.Override {
			d := drill(chaos.Hang())
			d.Replace = true
			start(t, d, cmd)
			return cmd.Snapshot().Override
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cmd := newCommand(t, firebreak.Config{})
				stop := start(t, drill(chaos.Hang()), cmd)
				want := row.other(t, cmd)
				stop()
				got := cmd.Snapshot().Override
				require.Equal(t, want.Reason, got.Reason)
				require.Equal(t, want.Author, got.Author)
				require.True(t, want.Until.Equal(got.Until))
				require.Equal(t, want.Mode, got.Mode)
			})
		})
	}
}

// A copy that was prolonged or reworded is still the drill's: it injects, and stop ends that.
func TestStopLiftsACopyOfItsDrill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{})
		stop := start(t, drill(chaos.Hang()), cmd)
		o := cmd.Snapshot().Override
		o.Until, o.Reason, o.Mode = o.Until.Add(time.Minute), "an hour more", firebreak.ForceClosed
		cmd.Override(o)
		stop()
		require.Zero(t, cmd.Snapshot().Override)
	})
}

func TestADrillMeetsAnOverride(t *testing.T) {
	injects := firebreak.Override{Reason: "drill", Author: "ops", Inject: func(context.Context) error { return nil }}
	forced := firebreak.Override{Mode: firebreak.ForceOpen, Reason: "moving", Author: "ops"}
	said := firebreak.Override{Reason: "a note"}
	for _, row := range []struct {
		name     string
		override firebreak.Override
		replace  bool
		want     string // "" if the drill begins
	}{
		{"of a drill", injects, false, `chaos: dep: an override is in force: "drill" by "ops"`},
		{"of a drill, to be replaced", injects, true, ""},
		{"of an operator", forced, false, `chaos: dep: an override is in force: "moving" by "ops"`},
		{"of an operator, to be replaced", forced, true, `chaos: dep: an override is in force: "moving" by "ops"`},
		{"that says something", said, true, `chaos: dep: an override is in force: "a note" by ""`},
		{"that has an end only", firebreak.Override{Until: time.Now().Add(time.Hour)}, true, `chaos: dep: an override is in force: "" by ""`},
		{"that is over", firebreak.Override{Reason: "old", Until: time.Now().Add(-time.Hour)}, false, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			reg := newRegistry(t, firebreak.Config{})
			cmd, other := reg.Command("dep", firebreak.Config{}), reg.Command("other", firebreak.Config{})
			cmd.Override(row.override)
			d := drill(chaos.Error(errBoom))
			d.Replace = row.replace
			stop, err := d.Start(other, cmd)
			if row.want != "" {
				require.EqualError(t, err, row.want)
				require.ErrorIs(t, err, chaos.ErrOverridden)
				require.Nil(t, stop)
				require.Equal(t, row.override.Reason, cmd.Snapshot().Override.Reason)
				require.Zero(t, other.Snapshot().Override, "on all of them or on none")
				return
			}
			require.NoError(t, err)
			require.ErrorIs(t, cmd.Run(t.Context(), succeed), errBoom)
			require.ErrorIs(t, other.Run(t.Context(), succeed), errBoom)
			stop()
			require.Zero(t, cmd.Snapshot().Override, "what it replaced is gone")
		})
	}
}

// Nothing of this sort can be seen beforehand: an operator is quicker.
func TestAnOverrideInTheSameInstantStays(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	first, second := reg.Command("first", firebreak.Config{}), reg.Command("second", firebreak.Config{})
	operator := firebreak.Override{Mode: firebreak.ForceClosed, Reason: "incident", Author: "ops"}
	reg.Observe(firebreak.Observer{Transition: func(tr firebreak.Transition) {
		if tr.Command == "second" && tr.Override.Inject != nil {
			second.Override(operator)
		}
	}})
	_, err := drill(chaos.Error(errBoom)).Start(first, second)
	require.ErrorIs(t, err, chaos.ErrOverridden)
	require.ErrorContains(t, err, `"incident" by "ops"`)
	require.Zero(t, first.Snapshot().Override)
	require.Equal(t, operator, second.Snapshot().Override)
	require.NoError(t, first.Run(t.Context(), succeed))
	require.NoError(t, second.Run(t.Context(), succeed))
}

func TestADrillOfManyCommands(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	var cmds []*firebreak.Command
	for i := range 5 {
		cmds = append(cmds, reg.Command(fmt.Sprint("dep", i), firebreak.Config{Mode: firebreak.ForceClosed}))
	}
	beside := reg.Command("beside", firebreak.Config{})
	transitions := 0
	reg.Observe(firebreak.Observer{Transition: func(firebreak.Transition) { transitions++ }})
	d := drill(chaos.Chance(20, chaos.Error(errBoom)))
	d.Seed = 7
	stop := start(t, d, append(cmds, cmds...)...) // twice is once
	require.Equal(t, len(cmds), transitions)
	_, err := d.Start(cmds[0], cmds[0])
	require.EqualError(t, err, `chaos: dep0: an override is in force: "drill: 20% error \"boom\", seed 7: ticket 123" by "Ada"`)
	var first []int
	for i, cmd := range cmds {
		got := hits(t, cmd, 100)
		if i == 0 {
			first = got
		}
		require.NotEmpty(t, got)
		require.Equal(t, first, got, "each has its own count of calls")
	}
	require.Empty(t, hits(t, beside, 100))
	stop()
	for _, cmd := range cmds {
		require.Zero(t, cmd.Snapshot().Override)
	}
}

// A natural thing to do: the drill ends itself when a circuit opens. stop is then
// called within stop, as the other command's override is lifted.
func TestStopFromAnObserver(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	a, b := reg.Command("a", firebreak.Config{}), reg.Command("b", firebreak.Config{})
	var stop func()
	stops := 0
	reg.Observe(firebreak.Observer{Transition: func(tr firebreak.Transition) {
		if stop != nil && tr.To == firebreak.StateOpen {
			stops++
			stop()
		}
	}})
	for range 20 { // one call short of opening: b is already open
		b.Run(t.Context(), func(context.Context) error { return errBoom })
	}
	require.Equal(t, firebreak.StateOpen, b.Snapshot().State)
	stop = start(t, drill(chaos.Error(errBoom)), a, b)
	hits(t, a, 30)
	require.Greater(t, stops, 1)
	require.EqualValues(t, 20, a.Snapshot().Total.Failure)
	require.Zero(t, a.Snapshot().Override)
	require.Zero(t, b.Snapshot().Override)
}

// Calls that wait in a drill go on when it ends, by itself or by stop, and what the
// fault had in store for them then does not happen.
func TestTheEndOfADrillReleasesThoseWhoWait(t *testing.T) {
	for _, wait := range []chaos.Fault{chaos.Hang(), chaos.Latency(chaos.Constant(time.Hour)), chaos.Latency(chaos.Constant(chaos.Longest))} {
		for _, verb := range verbs {
			for _, stops := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v, %s, by stop: %v", wait, verb.name, stops), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						cmd := newCommand(t, firebreak.Config{Isolation: verb.isolation, Timeout: firebreak.Off, MaxConcurrent: 3})
						d := drill(chaos.Sequence(wait, chaos.Error(errBoom)))
						d.For = time.Minute
						stop := start(t, d, cmd)
						end := time.Minute
						if stops {
							end = 20 * time.Second
							time.AfterFunc(end, stop)
						}
						began := time.Now()
						var ran atomic.Int64
						var wg sync.WaitGroup
						for range 3 {
							wg.Go(func() {
								// A context that never ends, and no timeout: nobody else would come.
								err := makes(context.Background(), cmd, verb.begin, func(context.Context) error {
									ran.Add(1)
									return nil
								})
								assert.NoError(t, err)
								assert.Equal(t, end, time.Since(began))
							})
						}
						synctest.Wait()
						require.Equal(t, 3, cmd.Snapshot().InFlight)
						require.ErrorIs(t, makes(t.Context(), cmd, verb.begin, succeed), firebreak.ErrRejected, "they hold permits")
						wg.Wait()
						require.EqualValues(t, 3, ran.Load())
						require.EqualValues(t, 3, cmd.Snapshot().Total.Success)
					})
				})
			}
		}
	}
}

// A second wait of the same call counts from where the first has left off.
func TestWaitsInASequenceEndWithTheDrill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{Timeout: firebreak.Off})
		d := drill(chaos.Sequence(chaos.Latency(chaos.Constant(40*time.Second)), chaos.Latency(chaos.Constant(40*time.Second))))
		d.For = time.Minute
		start(t, d, cmd)
		require.Equal(t, time.Minute, took(func() { require.NoError(t, cmd.Run(t.Context(), succeed)) }))
	})
}

// A call that has come to the injection, but not yet to its wait, when stop is called.
func TestStopJustBeforeAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{Timeout: firebreak.Off})
		var stop func()
		stops := chaos.Only("none", func(context.Context) bool { stop(); return false }, chaos.Open())
		stop = start(t, drill(chaos.Sequence(stops, chaos.Hang(), chaos.Error(errBoom))), cmd)
		require.Zero(t, took(func() { require.NoError(t, cmd.Run(context.Background(), succeed)) }))
	})
}

// stop ends what was taken from the override too, which anybody can keep.
func TestAKeptInjectIsOverWithItsDrill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{})
		stop := start(t, drill(chaos.Error(errBoom)), cmd)
		inject := cmd.Snapshot().Override.Inject
		require.ErrorIs(t, inject(t.Context()), errBoom)
		stop()
		require.NoError(t, inject(t.Context()))

		start(t, drill(chaos.Error(errBoom)), cmd)
		inject = cmd.Snapshot().Override.Inject
		time.Sleep(time.Hour - time.Nanosecond)
		require.ErrorIs(t, inject(t.Context()), errBoom)
		time.Sleep(time.Nanosecond)
		require.NoError(t, inject(t.Context()))
	})
}

// Lifted by hand, it is over for the calls to come; those that wait go on waiting.
func TestLiftingByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{Timeout: time.Minute})
		stop := start(t, drill(chaos.Hang()), cmd)
		waiting := make(chan error, 1)
		go func() { waiting <- cmd.Run(context.Background(), succeed) }()
		synctest.Wait()
		cmd.Override(firebreak.Override{})
		require.NoError(t, cmd.Run(t.Context(), succeed))
		require.Equal(t, 1, cmd.Snapshot().InFlight)
		require.ErrorIs(t, <-waiting, firebreak.ErrTimeout)
		stop()
	})
}

func TestNothingIsInjectedUnderForceOpen(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{Mode: firebreak.ForceOpen})
	stop := start(t, drill(chaos.Error(errBoom)), cmd)
	require.ErrorIs(t, cmd.Run(t.Context(), succeed), firebreak.ErrOpen)
	require.EqualValues(t, 1, cmd.Snapshot().Total.ShortCircuited)
	stop()
	require.Equal(t, firebreak.ForceOpen, cmd.Snapshot().Mode)
}

// An injected failure opens a circuit as a real one does; in Shadow it would have.
func TestADrillInShadow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{})
		d := drill(chaos.Error(errBoom))
		d.Mode = firebreak.Shadow
		stop := start(t, d, cmd)
		require.Equal(t, firebreak.Shadow, cmd.Snapshot().Mode)
		require.Len(t, hits(t, cmd, 30), 30)
		s := cmd.Snapshot()
		require.EqualValues(t, 30, s.Total.Failure)
		require.EqualValues(t, 10, s.Total.WouldShortCircuit)
		require.Equal(t, "boom", s.Evidence.LastError)

		stop() // what it held back holds now, until a probe succeeds
		require.ErrorIs(t, cmd.Run(t.Context(), succeed), firebreak.ErrOpen)
		time.Sleep(5 * time.Second)
		require.NoError(t, cmd.Run(t.Context(), succeed))
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
	})
}

func TestADrillOfOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dep := newRegistry(t, firebreak.Config{}).Dependency("dep", firebreak.Config{})
		get := dep.Keyed("get", 2, firebreak.Config{})
		stale := get.Command("stale")
		time.Sleep(time.Minute)
		get.Command("beside")
		time.Sleep(time.Minute)
		drilled := get.Command("drilled") // "stale" or "beside" makes way
		stop := start(t, drill(chaos.Error(errBoom)), drilled)
		require.NoError(t, get.Command("beside").Run(t.Context(), succeed))
		require.ErrorIs(t, get.Command("drilled").Run(t.Context(), succeed), errBoom)

		// It does not make way for others while the drill lasts.
		for i := range 5 {
			time.Sleep(time.Minute)
			get.Command(fmt.Sprint("new", i)).Run(t.Context(), succeed)
		}
		require.True(t, get.Command("drilled") == drilled)
		require.ErrorIs(t, get.Command("drilled").Run(t.Context(), succeed), errBoom)
		stop()

		// A handle of the past is no good.
		require.False(t, get.Command("stale") == stale)
		_, err := drill(chaos.Error(errBoom)).Start(drilled, stale)
		require.EqualError(t, err, "chaos: get[stale]: the drill does not show: "+
			"it was lifted at once, or the command made way for another key")
		require.Zero(t, get.Command("stale").Snapshot().Override)
		require.Zero(t, drilled.Snapshot().Override)
		require.NoError(t, get.Command("stale").Run(t.Context(), succeed))
	})
}

func TestADrillOnARegistryThatIsShutDown(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	cmd := reg.Command("dep", firebreak.Config{})
	require.NoError(t, reg.Shutdown(t.Context()))
	stop := start(t, drill(chaos.Error(errBoom)), cmd)
	require.ErrorIs(t, cmd.Run(t.Context(), succeed), firebreak.ErrShutdown)
	stop()
}

// Shutdown waits for what hangs in a drill, and says so; stop lets it go.
func TestShutdownDuringADrill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{Timeout: firebreak.Off})
		cmd := reg.Command("dep", firebreak.Config{})
		stop := start(t, drill(chaos.Hang()), cmd)
		go cmd.Run(context.Background(), succeed)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, reg.Shutdown(ctx), context.DeadlineExceeded)
		stop()
		require.NoError(t, reg.Shutdown(t.Context()))
	})
}

// Time goes back 26 years where a bubble begins. The command and its drill were made
// outside: waits in it end all the same, and so does the drill.
func TestADrillFromOutsideABubble(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{Timeout: firebreak.Off})
	d := drill(chaos.Latency(chaos.Constant(time.Second)))
	stop := start(t, d, cmd)
	synctest.Test(t, func(t *testing.T) {
		require.Equal(t, time.Second, took(func() { cmd.Run(t.Context(), succeed) }))
		time.Sleep(2 * time.Hour)
		require.Zero(t, took(func() { cmd.Run(t.Context(), succeed) }))
	})
	stop()
	stop = start(t, drill(chaos.Sequence(chaos.Ramp(0, 100, time.Minute, chaos.Open()), chaos.Hang())), cmd)
	synctest.Test(t, func(t *testing.T) {
		require.Equal(t, time.Hour, took(func() { cmd.Run(context.Background(), succeed) }), "as at its beginning")
	})
	stop()
	require.NoError(t, cmd.Run(t.Context(), succeed))
}

// Drills come, go and replace each other while calls are made in every way: every
// call has one outcome, nothing is left in force, nobody waits for ever.
func TestDrillsUnderLoad(t *testing.T) {
	fault, err := chaos.Parse(`30% latency lognormal 50µs p99 1ms; 20% (latency 10µs; error "boom"); ` +
		`5% hang; 5% open; 5% reject; 5% timeout; 1ms on 1ms off 10% error "flap"; 0% to 50% over 5ms error "ramp"; ` +
		`growing over 5ms latency pareto 10µs p99 100µs`)
	require.NoError(t, err)
	for _, seed := range []uint64{0, 7} {
		for _, verb := range verbs {
			reg := newRegistry(t, firebreak.Config{Timeout: 2 * ms, SleepWindow: ms, MaxConcurrent: 8})
			dep := reg.Dependency("dep", firebreak.Config{Isolation: verb.isolation})
			cmds := []*firebreak.Command{dep.Command("a", firebreak.Config{}), dep.Command("b", firebreak.Config{})}
			var calls, drilling sync.WaitGroup
			var made atomic.Int64
			over := make(chan struct{})
			for i := range 3 {
				drilling.Go(func() {
					for {
						select {
						case <-over:
							return
						default:
						}
						d := chaos.Drill{Fault: fault, Reason: "load", Author: "Ada", For: 10 * ms, Seed: seed, Replace: i == 0}
						if i == 1 {
							d.Mode = firebreak.Shadow
						}
						stop, err := d.Start(cmds...)
						if err != nil {
							continue // another one is in force, or has just been
						}
						var both sync.WaitGroup
						both.Go(stop)
						cmds[0].Run(context.Background(), succeed)
						stop()
						both.Wait()
					}
				})
			}
			for i := range 6 {
				calls.Go(func() {
					for range 150 {
						ctx, cancel := context.WithTimeout(context.Background(), ms*time.Duration(1+i))
						_ = makes(ctx, cmds[i%2], verb.begin, succeed)
						cancel()
						made.Add(1)
					}
				})
			}
			calls.Wait()
			close(over)
			drilling.Wait()
			for _, cmd := range cmds {
				o := cmd.Snapshot().Override
				require.Nil(t, o.Inject, o.Reason)
			}
			require.GreaterOrEqual(t, cmds[0].Snapshot().Total.Calls()+cmds[1].Snapshot().Total.Calls(), uint64(made.Load()))
		}
	}
}

// BenchmarkSpared is what a drill costs the calls that it leaves alone.
func BenchmarkSpared(b *testing.B) {
	for _, row := range []struct {
		name string
		d    *chaos.Drill
	}{
		{"no drill", nil},
		{"drill", &chaos.Drill{Fault: chaos.Chance(0, chaos.Error(errBoom)), Reason: "b", Author: "b", For: time.Hour}},
		{"seeded", &chaos.Drill{Fault: chaos.Chance(0, chaos.Error(errBoom)), Reason: "b", Author: "b", For: time.Hour, Seed: 1}},
	} {
		b.Run(row.name, func(b *testing.B) {
			cmd := newCommand(b, firebreak.Config{})
			if row.d != nil {
				defer start(b, *row.d, cmd)()
			}
			b.ReportAllocs()
			for b.Loop() {
				_ = cmd.Run(b.Context(), succeed)
			}
		})
	}
}
