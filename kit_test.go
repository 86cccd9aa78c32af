package firebreak_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firebreak-go/firebreak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBoom = errors.New("boom")

func succeed(context.Context) (int, error) { return 1, nil }
func fail(context.Context) (int, error)    { return 0, errBoom }

// newRegistry makes a registry that is shut down with the test, when everything
// must be at rest.
func newRegistry(t testing.TB, defaults firebreak.Config) *firebreak.Registry {
	t.Helper()
	reg := firebreak.NewRegistry(defaults)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(t, reg.Shutdown(ctx))
		for cmd := range reg.Commands() {
			requireAtRest(t, cmd)
		}
	})
	return reg
}

// newCommand makes the one command of a registry of its own.
func newCommand(t testing.TB, c firebreak.Config) *firebreak.Command {
	t.Helper()
	return newRegistry(t, firebreak.Config{}).Command("dep", c)
}

// requireAtRest checks the equations that hold when nothing is going on.
func requireAtRest(t testing.TB, cmd *firebreak.Command) {
	t.Helper()
	s := cmd.Snapshot()
	require.Zero(t, s.InFlight, "%s in flight", cmd.Name())
	require.Zero(t, s.Fallbacks, "%s in fallbacks", cmd.Name())
	require.Zero(t, s.Bulkhead.InFlight, "permits of %s", s.Dependency)
	require.Zero(t, s.Bulkhead.Queued)
	require.Zero(t, s.Bulkhead.Abandoned)
	require.Equal(t, s.Total.Executed(), s.RunHistogram.Count, "%s: a run latency for each executed call", cmd.Name())
	require.Equal(t, s.Total.Executed(), s.CallHistogram.Count, "%s: a call latency for each executed call", cmd.Name())
}

// trip opens a circuit by as many failures as the default rules want.
func trip(t testing.TB, cmd *firebreak.Command) {
	t.Helper()
	for range 20 {
		_, err := firebreak.Do(t.Context(), cmd, fail)
		require.ErrorIs(t, err, errBoom)
	}
	require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
}

// total is everything that was ever counted of a command.
func total(cmd *firebreak.Command) firebreak.Counts { return cmd.Snapshot().Total }

// requireNoMoreGoroutines allows for those that the runtime has for a moment, for
// cleanups and the like.
func requireNoMoreGoroutines(t testing.TB, before int) {
	t.Helper()
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		runtime.Gosched()
	}
	require.LessOrEqual(t, runtime.NumGoroutine(), before)
}
