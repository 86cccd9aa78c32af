package firebreaktest_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreaktest"
)

// Each rule opens it, with its own evidence, whatever is in the window already, and
// in no time.
func TestTripByEveryRule(t *testing.T) {
	for _, c := range []struct {
		name      string
		config    firebreak.Config
		successes int
		failures  int
		rule      string
		runs      int // of Trip's, exactly
	}{
		{"default", firebreak.Config{}, 0, 0, "error percentage", 20},
		{"successes before", firebreak.Config{}, 100, 0, "error percentage", 100},
		{"failures before", firebreak.Config{}, 0, 19, "error percentage", 1},
		{"both before", firebreak.Config{ErrorThresholdPercentage: 90}, 10, 5, "error percentage", 85},
		{"one call is enough", firebreak.Config{RequestVolumeThreshold: 1}, 0, 0, "error percentage", 1},
		{"volume", firebreak.Config{RequestVolumeThreshold: 20_000}, 0, 0, "error percentage", 20_000},
		{"all must fail", firebreak.Config{ErrorThresholdPercentage: 100}, 0, 3, "error percentage", 17},
		{"all but a few", firebreak.Config{ErrorThresholdPercentage: 99.9}, 5, 0, "error percentage", 4995},
		{"hardly any", firebreak.Config{ErrorThresholdPercentage: 0.001, RequestVolumeThreshold: 2}, 100, 0, "error percentage", 1},
		{"in a row", firebreak.Config{ConsecutiveFailures: 7}, 10, 0, "consecutive failures", 7},
		{"in a row, alone", firebreak.Config{ConsecutiveFailures: 50, ErrorThresholdPercentage: firebreak.Off}, 0, 0, "consecutive failures", 50},
		{"in a row, where a percentage is out of reach", firebreak.Config{ConsecutiveFailures: 50, ErrorThresholdPercentage: 100}, 1, 0, "consecutive failures", 50},
		{"evidence", firebreak.Config{Evidence: firebreak.On}, 0, 0, "evidence", 6},
		{"evidence and successes", firebreak.Config{Evidence: firebreak.On, ErrorThresholdPercentage: firebreak.Off}, 10, 0, "evidence", 24},
		{"evidence, late", firebreak.Config{Evidence: firebreak.On, ErrorThresholdPercentage: 99, RequestVolumeThreshold: 1_000_000_000}, 0, 0, "evidence", 538},
		{"of little volume although that is huge", firebreak.Config{RequestVolumeThreshold: 1_000_000_000, ConsecutiveFailures: 3}, 0, 0, "consecutive failures", 3},
		{"slow calls count too", firebreak.Config{SlowCallDuration: time.Second}, 0, 0, "error percentage", 20},
		{"expected are successes", firebreak.Config{ConsecutiveFailures: 3, Classify: firebreak.ExpectErrors(errBoom)}, 0, 30, "consecutive failures", 3},
	} {
		for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
			t.Run(fmt.Sprint(c.name, " ", isolation), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c.config.Isolation = isolation
					reg, cmd := newCommand(t, c.config)
					for range c.successes {
						require.NoError(t, cmd.Run(t.Context(), succeed))
					}
					for range c.failures {
						require.ErrorIs(t, cmd.Run(t.Context(), fail), errBoom)
					}
					require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
					before, began := cmd.Snapshot().Total, time.Now()

					firebreaktest.Trip(t, reg, "users.get")

					s := cmd.Snapshot()
					require.Zero(t, time.Since(began))
					require.Equal(t, firebreak.StateOpen, s.State)
					require.Equal(t, c.rule, s.Evidence.Rule)
					require.Equal(t, "tripped by "+t.Name(), s.Evidence.LastError)
					before.Failure += uint64(c.runs)
					require.Equal(t, before, s.Total, "failing runs and nothing else")
					require.ErrorIs(t, cmd.Run(t.Context(), succeed), firebreak.ErrOpen)
				})
			})
		}
	}
}

// What Trip opens recovers as what failures opened.
func TestRecoveryAfterTrip(t *testing.T) {
	for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		synctest.Test(t, func(t *testing.T) {
			reg, cmd := newCommand(t, firebreak.Config{Isolation: isolation, SleepWindow: 3 * time.Second})
			firebreaktest.Trip(t, reg, "users.get")

			time.Sleep(3*time.Second - time.Nanosecond)
			require.ErrorIs(t, cmd.Run(t.Context(), succeed), firebreak.ErrOpen)
			time.Sleep(time.Nanosecond)
			require.NoError(t, cmd.Run(t.Context(), succeed))
			require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)

			firebreaktest.Trip(t, reg, "users.get") // again, with a success in the rolling window
			require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
		})
	}
}

// The rolling window remembers the success of a probe; the circuit does not.
func TestTripAfterARecoveryWhereAllMustFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, cmd := newCommand(t, firebreak.Config{ErrorThresholdPercentage: 100})
		firebreaktest.Trip(t, reg, "users.get")
		time.Sleep(5 * time.Second)
		require.NoError(t, cmd.Run(t.Context(), succeed))
		require.EqualValues(t, 1, cmd.Snapshot().Window.Success)
		firebreaktest.Trip(t, reg, "users.get")
		require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
	})
}

func TestTripOfAnOpenCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, cmd := newCommand(t, firebreak.Config{})
		firebreaktest.Trip(t, reg, "users.get")
		before := cmd.Snapshot()
		firebreaktest.Trip(t, reg, "users.get")
		require.Equal(t, before, cmd.Snapshot(), "nothing is done")

		time.Sleep(5 * time.Second) // the next call would probe
		firebreaktest.Trip(t, reg, "users.get")
		require.Equal(t, 5*time.Second, untilNextProbe(cmd))
		require.Equal(t, "probe", cmd.Snapshot().Evidence.Rule)
		require.ErrorIs(t, cmd.Run(t.Context(), succeed), firebreak.ErrOpen)
	})
}

func TestTripOfAHalfOpenCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, cmd := newCommand(t, firebreak.Config{Probes: 3, ErrorThresholdPercentage: firebreak.Off, ConsecutiveFailures: 1})
		firebreaktest.Trip(t, reg, "users.get")
		time.Sleep(5 * time.Second)
		require.NoError(t, cmd.Run(t.Context(), succeed))
		require.Equal(t, firebreak.StateHalfOpen, cmd.Snapshot().State)

		firebreaktest.Trip(t, reg, "users.get")
		require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
		require.EqualValues(t, 2, cmd.Snapshot().Total.Failure)

		time.Sleep(5 * time.Second)
		require.NoError(t, cmd.Run(t.Context(), func(ctx context.Context) error {
			return cmd.Run(ctx, func(ctx context.Context) error {
				return cmd.Run(ctx, func(context.Context) error { // all three places
					requireFatal(t, func(t testing.TB) { firebreaktest.Trip(t, reg, "users.get") },
						"users.get cannot open", "all its probes are under way")
					return nil
				})
			})
		}))
	})
}

// The rules that opened it may be off by now: a probe needs none.
func TestTripOfAHalfOpenCircuitWithoutRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, cmd := newCommand(t, firebreak.Config{})
		firebreaktest.Trip(t, reg, "users.get")
		require.NoError(t, reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{
			"users.get": {ErrorThresholdPercentage: firebreak.Off},
		}}))
		time.Sleep(5 * time.Second)
		firebreaktest.Trip(t, reg, "users.get")
		require.Equal(t, 5*time.Second, untilNextProbe(cmd))
	})
}

func TestTripOfAKey(t *testing.T) {
	reg := firebreaktest.NewRegistry(t, firebreak.HystrixDefaults())
	web := reg.Dependency("web", firebreak.Config{}).Keyed("web.get", 10, firebreak.Config{})
	web.Command("a.example")
	firebreaktest.Trip(t, reg, "web.get[a.example]")
	require.Zero(t, web.Command("a.example").Snapshot().Total.ShortCircuited, "it saw at once that it was done")
	require.ErrorIs(t, web.Command("a.example").Run(t.Context(), succeed), firebreak.ErrOpen)
	require.NoError(t, web.Command("b.example").Run(t.Context(), succeed))
}

// A trip that cannot be ends the test at once and says why.
func TestTripSaysWhyItCannot(t *testing.T) {
	const off = firebreak.Off
	noRules := firebreak.Config{ErrorThresholdPercentage: off}
	slowOnly := firebreak.Config{ErrorThresholdPercentage: off, SlowCallDuration: time.Second}
	certain := firebreak.Config{ErrorThresholdPercentage: 100}
	override := func(o firebreak.Override) func(*testing.T, *firebreak.Registry, *firebreak.Command) {
		return func(_ *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) { cmd.Override(o) }
	}
	success := func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) {
		require.NoError(t, cmd.Run(t.Context(), succeed))
	}
	for name, c := range map[string]struct {
		config firebreak.Config
		first  func(*testing.T, *firebreak.Registry, *firebreak.Command)
		says   []string
	}{
		"shadow":               {firebreak.Config{Mode: firebreak.Shadow}, nil, []string{"its Config says Mode shadow"}},
		"shadow by hand":       {firebreak.Config{}, override(firebreak.Override{Mode: firebreak.Shadow, Author: "Ada", Reason: "trial"}), []string{"an override by Ada (trial) says Mode shadow"}},
		"force closed":         {firebreak.Config{Mode: firebreak.ForceClosed}, nil, []string{"its Config says Mode force_closed"}},
		"force closed by hand": {firebreak.Config{}, override(firebreak.Override{Mode: firebreak.ForceClosed}), []string{"an override says Mode force_closed"}},
		"force open":           {firebreak.Config{Mode: firebreak.ForceOpen}, nil, []string{"its Config says Mode force_open"}},
		"force open by hand":   {firebreak.Config{}, override(firebreak.Override{Mode: firebreak.ForceOpen}), []string{"an override says Mode force_open"}},
		"forced": {firebreak.Config{}, func(t *testing.T, reg *firebreak.Registry, _ *firebreak.Command) {
			firebreaktest.Force(t, reg, "users.get", errBoom)
		}, []string{"TestTripSaysWhyItCannot/forced (firebreaktest.Force: boom)", "Inject", "restore"}},
		"injected":         {firebreak.Config{}, override(firebreak.Override{Inject: succeed}), []string{"an override with an Inject"}},
		"no rules":         {noRules, nil, []string{"all its rules are Off"}},
		"slow calls only":  {slowOnly, nil, []string{"only slow calls", "SlowCallDuration 1s"}},
		"all must fail":    {certain, success, []string{"100", "success", "10s", "50.0 %"}},
		"certain evidence": {firebreak.Config{ErrorThresholdPercentage: 100, Evidence: firebreak.On}, success, []string{"100", "success"}},
		"too many": {firebreak.Config{RequestVolumeThreshold: 100_001}, nil, []string{
			"more than 100000 failing runs", "RequestVolumeThreshold 100001",
		}},
		"far too many": {firebreak.Config{ConsecutiveFailures: 1<<31 - 1, ErrorThresholdPercentage: off}, nil, []string{"more than 100000 failing runs"}},
		"shut down": {firebreak.Config{}, func(t *testing.T, reg *firebreak.Registry, _ *firebreak.Command) {
			require.NoError(t, reg.Shutdown(t.Context()))
		}, []string{"registry is shut down"}},
		"shut down after a recovery": {firebreak.Config{}, func(t *testing.T, reg *firebreak.Registry, cmd *firebreak.Command) {
			firebreaktest.Trip(t, reg, "users.get")
			time.Sleep(5 * time.Second)
			success(t, reg, cmd)
			require.NoError(t, reg.Shutdown(t.Context()))
		}, []string{"registry is shut down"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg, cmd := newCommand(t, c.config)
				if c.first != nil {
					c.first(t, reg, cmd)
				}
				before := cmd.Snapshot().Total.Executed()
				requireFatal(t, func(t testing.TB) { firebreaktest.Trip(t, reg, "users.get") },
					append(c.says, "firebreaktest: Trip: the circuit of users.get cannot open: ")...)
				if name != "all must fail" && name != "certain evidence" { // known by trying only
					require.Equal(t, before, cmd.Snapshot().Total.Executed(), "it is not tried")
				}
			})
		})
	}
}

// A full bulkhead is said, not waited for.
func TestTripWithAFullBulkhead(t *testing.T) {
	for _, c := range []firebreak.Config{
		{MaxConcurrent: 2},
		{MaxConcurrent: 2, MaxWait: time.Minute},
		{MaxConcurrent: 2, QueueSize: 10, Isolation: firebreak.PoolIsolation},
	} {
		synctest.Test(t, func(t *testing.T) {
			c.Timeout = firebreak.Off
			reg, cmd := newCommand(t, c)
			ctx, cancel := context.WithCancel(t.Context())
			var calls sync.WaitGroup
			for range 2 {
				calls.Go(func() { require.ErrorIs(t, cmd.Run(ctx, hang), context.Canceled) })
			}
			synctest.Wait()
			began := time.Now()
			requireFatal(t, func(t testing.TB) { firebreaktest.Trip(t, reg, "users.get") },
				"bulkhead of users.get is full", "2 of 2 permits")
			require.Zero(t, time.Since(began))
			cancel()
			calls.Wait()
			synctest.Wait() // a pool's callers leave first, its permits come back after
			require.Zero(t, cmd.Snapshot().Total.Rejected)

			firebreaktest.Trip(t, reg, "users.get")
			require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
		})
	}
}

// An open circuit needs no permit.
func TestTripOfAnOpenCircuitWithAFullBulkhead(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{MaxConcurrent: 1})
	other := reg.Dependency("users.get", firebreak.Config{}).Command("users.list", firebreak.Config{})
	firebreaktest.Trip(t, reg, "users.get")
	require.NoError(t, other.Run(t.Context(), func(context.Context) error {
		firebreaktest.Trip(t, reg, "users.get")
		return nil
	}))
	require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
}

func TestTripWithAnUnlimitedBulkhead(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{MaxConcurrent: firebreak.Unlimited})
	require.NoError(t, cmd.Run(t.Context(), func(context.Context) error {
		firebreaktest.Trip(t, reg, "users.get")
		return nil
	}))
	require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
}

// Out of a bubble time passes: where the window is over before it is full, Trip gives up.
func TestTripGivesUp(t *testing.T) {
	reg, _ := newCommand(t, firebreak.Config{Window: 10 * time.Microsecond, RequestVolumeThreshold: 1000})
	requireFatal(t, func(t testing.TB) { firebreaktest.Trip(t, reg, "users.get") },
		"users.get cannot open", "1001 failing runs", "Window of 10µs")
}

// Many trip one circuit while calls succeed: it opens, and each Trip returns.
func TestConcurrentTrips(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{ConsecutiveFailures: 1, MaxConcurrent: firebreak.Unlimited})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { firebreaktest.Trip(t, reg, "users.get") })
		all.Go(func() { _ = cmd.Run(t.Context(), succeed) })
	}
	all.Wait()
	require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
	require.Zero(t, cmd.Snapshot().Bulkhead.InFlight)
}

// An observer that calls Goexit ends the goroutine of Trip, and no permit is lost.
func TestTripAndAnObserverThatEndsIt(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{})
	stop := reg.Observe(firebreak.Observer{Call: func(context.Context, firebreak.CallEvent) { runtime.Goexit() }})
	onGoroutine(func() { firebreaktest.Trip(t, reg, "users.get") })
	stop()
	require.Zero(t, cmd.Snapshot().Bulkhead.InFlight)
}
