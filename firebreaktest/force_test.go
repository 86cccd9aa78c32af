package firebreaktest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreaktest"
)

// mustNotRun is a run that Force stands in for.
func mustNotRun(t testing.TB) func(context.Context) error {
	t.Helper()
	return func(context.Context) error {
		t.Error("run was called")
		return nil
	}
}

// Every call ends by it, also of more than would open the circuit, in either
// isolation, without a wait.
func TestForcedOutcomes(t *testing.T) {
	errNotFound := errors.New("not found")
	count := func(read func(firebreak.Counts) uint64) func(firebreak.Counts) uint64 { return read }
	for _, c := range []struct {
		outcome error
		counted func(firebreak.Counts) uint64
	}{
		{firebreak.ErrOpen, count(func(c firebreak.Counts) uint64 { return c.ShortCircuited })},
		{firebreak.ErrRejected, count(func(c firebreak.Counts) uint64 { return c.Rejected })},
		{firebreak.ErrTimeout, count(func(c firebreak.Counts) uint64 { return c.Timeout })},
		{errBoom, count(func(c firebreak.Counts) uint64 { return c.Failure })},
		{fmt.Errorf("inner: %w", firebreak.ErrOpen), count(func(c firebreak.Counts) uint64 { return c.Failure })},
		{context.Canceled, count(func(c firebreak.Counts) uint64 { return c.Failure })},
		{errNotFound, count(func(c firebreak.Counts) uint64 { return c.Expected })},
		{firebreak.Mark(errBoom, firebreak.Ignored), count(func(c firebreak.Counts) uint64 { return c.Ignored })},
	} {
		for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
			t.Run(fmt.Sprint(c.outcome, " ", isolation), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					reg, cmd := newCommand(t, firebreak.Config{Isolation: isolation, Classify: firebreak.ExpectErrors(errNotFound)})
					firebreaktest.Force(t, reg, "users.get", c.outcome)
					began := time.Now()
					for range 100 {
						err := cmd.Run(t.Context(), mustNotRun(t))
						require.ErrorIs(t, c.outcome, unwrapped(err))
					}
					require.Zero(t, time.Since(began))
					total := cmd.Snapshot().Total
					require.EqualValues(t, 100, c.counted(total))
					require.EqualValues(t, 100, total.Calls())

					call, err := cmd.Begin(t.Context())
					require.ErrorIs(t, c.outcome, unwrapped(err))
					require.Nil(t, call)
				})
			})
		}
	}
}

// unwrapped is the Reason of an error of ours, else the error itself.
func unwrapped(err error) error {
	if e, ok := errors.AsType[*firebreak.Error](err); ok {
		return e.Reason
	}
	return err
}

func TestForcedCallsAskFallbacks(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{})
	for _, outcome := range []error{firebreak.ErrOpen, firebreak.ErrRejected, firebreak.ErrTimeout, errBoom} {
		restore := firebreaktest.Force(t, reg, "users.get", outcome)
		var cause error
		require.NoError(t, cmd.Run(t.Context(), mustNotRun(t), func(_ context.Context, err error) error {
			cause = err
			return nil
		}))
		require.ErrorIs(t, cause, outcome)
		restore()
	}
	require.EqualValues(t, 4, cmd.Snapshot().Total.FallbackSuccess)
}

// Also one that is open, or half-open with its probe under way.
func TestForceOnAnOpenCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, cmd := newCommand(t, firebreak.Config{})
		firebreaktest.Trip(t, reg, "users.get")
		restore := firebreaktest.Force(t, reg, "users.get", errBoom)
		require.Equal(t, errBoom, cmd.Run(t.Context(), mustNotRun(t)))
		restore()
		require.ErrorIs(t, cmd.Run(t.Context(), mustNotRun(t)), firebreak.ErrOpen, "Force has not lost the circuit its state")

		time.Sleep(5 * time.Second)
		restore = firebreaktest.Force(t, reg, "users.get", errBoom)
		require.Equal(t, errBoom, cmd.Run(t.Context(), mustNotRun(t)), "the probe")
		restore()
		require.Equal(t, 5*time.Second, untilNextProbe(cmd), "it failed")

		time.Sleep(5 * time.Second)
		require.NoError(t, cmd.Run(t.Context(), succeed))
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
	})
}

// Forced failures are failures.
func TestForcedFailuresOpenTheCircuit(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{})
	restore := firebreaktest.Force(t, reg, "users.get", firebreak.ErrTimeout)
	for range 20 {
		require.ErrorIs(t, cmd.Run(t.Context(), mustNotRun(t)), firebreak.ErrTimeout)
	}
	require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
	restore()
	require.ErrorIs(t, cmd.Run(t.Context(), mustNotRun(t)), firebreak.ErrOpen)
}

// What refuses a call before run has a say before Force.
func TestForceIsWhereRunWouldBe(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{MaxConcurrent: 1})
	firebreaktest.Force(t, reg, "users.get", errBoom)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, cmd.Run(ctx, mustNotRun(t)), context.Canceled)

	other := reg.Dependency("users.get", firebreak.Config{}).Command("users.list", firebreak.Config{})
	require.NoError(t, other.Run(t.Context(), func(ctx context.Context) error {
		require.ErrorIs(t, cmd.Run(ctx, mustNotRun(t)), firebreak.ErrRejected)
		return nil
	}), "another command is not forced")
	require.NoError(t, reg.Shutdown(t.Context()))
	require.ErrorIs(t, cmd.Run(t.Context(), mustNotRun(t)), firebreak.ErrShutdown)
}

func TestForceSaysWhoDidIt(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{})
	restore := firebreaktest.Force(t, reg, "users.get", firebreak.ErrTimeout)
	o := cmd.Snapshot().Override
	require.Equal(t, "TestForceSaysWhoDidIt", o.Author)
	require.Equal(t, "firebreaktest.Force: timed out", o.Reason)
	restore()
	firebreaktest.Force(t, reg, "users.get", hostile{})
	require.Contains(t, cmd.Snapshot().Override.Reason, "hostile")
}

// hostile is an error that cannot say what it is.
type hostile struct{}

func (hostile) Error() string { panic("hostile") }

func TestForceEndsWithItsTest(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{})
	firebreaktest.Force(t, reg, "users.get", firebreak.ErrRejected)
	t.Run("inner", func(t *testing.T) {
		firebreaktest.Force(t, reg, "users.get", firebreak.ErrTimeout)
		require.ErrorIs(t, cmd.Run(t.Context(), mustNotRun(t)), firebreak.ErrTimeout)
	})
	require.ErrorIs(t, cmd.Run(t.Context(), mustNotRun(t)), firebreak.ErrRejected)
}

func TestForceRefusesWhatItCannotDo(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{Mode: firebreak.ForceOpen})
	requireFatal(t, func(t testing.TB) { firebreaktest.Force(t, reg, "users.get", nil) }, "users.get", "outcome is nil", "ErrTimeout")
	requireFatal(t, func(t testing.TB) { firebreaktest.Force(t, reg, "users.get", errBoom) }, "users.get", "force_open")
	require.Zero(t, cmd.Snapshot().Override)
	firebreaktest.Force(t, reg, "users.get", firebreak.ErrOpen) // is so already
	require.ErrorIs(t, cmd.Run(t.Context(), mustNotRun(t)), firebreak.ErrOpen)
}

func TestRestoreTwice(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{})
	restore := firebreaktest.Force(t, reg, "users.get", errBoom)
	restore()
	cmd.Override(firebreak.Override{Reason: "by hand"})
	restore()
	require.Equal(t, "by hand", cmd.Snapshot().Override.Reason)
	var all sync.WaitGroup
	for range 10 {
		all.Go(restore)
	}
	all.Wait()
	require.Equal(t, "by hand", cmd.Snapshot().Override.Reason)
}

// Whatever was in force before Force is so after it: mode, reason, end, Inject.
func TestRestorePutsBackWhatWasThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mode := range []firebreak.Mode{0, firebreak.Auto, firebreak.ForceOpen, firebreak.ForceClosed, firebreak.Shadow} {
			reg, cmd := newCommand(t, firebreak.Config{})
			injected := 0
			was := firebreak.Override{Mode: mode, Reason: "drill", Author: "Ada", Until: time.Now().Add(time.Hour), Inject: func(context.Context) error {
				injected++
				return nil
			}}
			cmd.Override(was)
			restore := firebreaktest.Force(t, reg, "users.get", firebreak.ErrTimeout)
			for range 30 {
				require.ErrorIs(t, cmd.Run(t.Context(), mustNotRun(t)), firebreak.ErrTimeout)
			}
			require.Zero(t, injected)
			restore()
			is := cmd.Snapshot().Override
			require.NotNil(t, is.Inject)
			is.Inject, was.Inject = nil, nil
			require.Equal(t, was, is)
			if mode != firebreak.ForceOpen {
				_ = cmd.Run(t.Context(), succeed) // if the failures have opened it, to no avail
			}

			restore = firebreaktest.Force(t, reg, "users.get", firebreak.ErrTimeout)
			time.Sleep(time.Hour) // the hand's hour is over meanwhile
			require.ErrorIs(t, cmd.Run(t.Context(), mustNotRun(t)), firebreak.ErrTimeout)
			restore()
			require.Zero(t, cmd.Snapshot().Override, "it is not brought back to life")
		}
	})
}

// A circuit that was forced closed stays so: its window is not judged, nor lost.
func TestForceUnderForceClosed(t *testing.T) {
	for _, c := range []firebreak.Config{{Mode: firebreak.ForceClosed}, {}} {
		reg, cmd := newCommand(t, c)
		if c.Mode == 0 {
			cmd.Override(firebreak.Override{Mode: firebreak.ForceClosed})
		}
		require.NoError(t, cmd.Run(t.Context(), succeed))
		restore := firebreaktest.Force(t, reg, "users.get", errBoom)
		require.Equal(t, errBoom, cmd.Run(t.Context(), mustNotRun(t)))
		restore()
		require.Equal(t, firebreak.ForceClosed, cmd.Snapshot().Mode)
		require.InDelta(t, 50, cmd.Snapshot().ErrorPercentage, 0)
	}
}

// Three forces, in every order of being restored: always the newest that is left.
func TestNestedForcesInAnyOrder(t *testing.T) {
	outcomes := []error{firebreak.ErrOpen, firebreak.ErrRejected, errBoom}
	for _, base := range []firebreak.Override{{}, {Reason: "by hand"}} {
		for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
			reg, cmd := newCommand(t, firebreak.Config{})
			cmd.Override(base)
			var restore []func()
			for _, outcome := range outcomes {
				restore = append(restore, firebreaktest.Force(t, reg, "users.get", outcome))
			}
			left := map[int]bool{0: true, 1: true, 2: true}
			check := func() {
				t.Helper()
				for newest := 2; newest >= 0; newest-- {
					if left[newest] {
						require.ErrorIs(t, cmd.Run(t.Context(), mustNotRun(t)), outcomes[newest], "%v", order)
						return
					}
				}
				require.NoError(t, cmd.Run(t.Context(), succeed), "%v", order)
				require.Equal(t, base, cmd.Snapshot().Override)
			}
			check()
			for _, i := range order {
				restore[i]()
				delete(left, i)
				check()
			}
		}
	}
}

// A hand on top stays, whatever is restored below it.
func TestOverrideByHandAboveAForce(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{})
	lower := firebreaktest.Force(t, reg, "users.get", errBoom)
	cmd.Override(firebreak.Override{Reason: "by hand"})
	upper := firebreaktest.Force(t, reg, "users.get", firebreak.ErrRejected)
	lower()
	require.ErrorIs(t, cmd.Run(t.Context(), mustNotRun(t)), firebreak.ErrRejected)
	upper()
	require.Equal(t, "by hand", cmd.Snapshot().Override.Reason)
	require.NoError(t, cmd.Run(t.Context(), succeed))

	restore := firebreaktest.Force(t, reg, "users.get", errBoom)
	cmd.Override(firebreak.Override{}) // lifted by hand
	restore()
	require.Zero(t, cmd.Snapshot().Override)
	require.NoError(t, cmd.Run(t.Context(), succeed))
}

// An Inject of somebody else's is not called to find out whose it is.
func TestForceAsksNoOtherInject(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{})
	cmd.Override(firebreak.Override{Reason: "firebreak drill", Inject: func(context.Context) error {
		t.Error("called")
		return nil
	}})
	rec := firebreaktest.Record(t, reg)
	firebreaktest.Force(t, reg, "users.get", errBoom)()
	rec.Want(t, "users.get")
}

func TestForceOfAKey(t *testing.T) {
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	web := reg.Dependency("web", firebreak.Config{}).Keyed("web.get", 10, firebreak.Config{})
	web.Command("a.example")
	firebreaktest.Force(t, reg, "web.get[a.example]", errBoom)
	require.Equal(t, errBoom, web.Command("a.example").Run(t.Context(), mustNotRun(t)))
	require.NoError(t, web.Command("b.example").Run(t.Context(), succeed))
}

// Calls go on while forces come and go; each ends in one of the ways there are.
func TestForceUnderConcurrentCalls(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{Mode: firebreak.ForceClosed, MaxConcurrent: firebreak.Unlimited})
	var calls sync.WaitGroup
	stop := make(chan bool)
	for range 4 {
		calls.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.Gosched()
				}
				if err := cmd.Run(t.Context(), succeed); err != nil && err != errBoom && !errors.Is(err, firebreak.ErrTimeout) {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 50 {
		a := firebreaktest.Force(t, reg, "users.get", errBoom)
		b := firebreaktest.Force(t, reg, "users.get", firebreak.ErrTimeout)
		runtime.Gosched()
		a()
		b()
	}
	close(stop)
	calls.Wait()
	require.Zero(t, cmd.Snapshot().Override)
	require.NoError(t, cmd.Run(t.Context(), succeed))
}

func TestFatalTextsAreOneLine(t *testing.T) {
	r := runTest(t, "TestFake", func(t testing.TB) {
		reg, _ := newCommand(t, firebreak.Config{})
		firebreaktest.Force(t, reg, "a\nb", errBoom)
	})
	assert.True(t, r.ended)
	assert.NotContains(t, r.text, "\n")
}
