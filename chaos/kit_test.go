package chaos_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/chaos"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBoom = errors.New("boom")

func succeed(context.Context) error { return nil }

// newRegistry makes a registry that is shut down with the test, when no permit may
// be out.
func newRegistry(t testing.TB, defaults firebreak.Config) *firebreak.Registry {
	t.Helper()
	reg := firebreak.NewRegistry(defaults)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(t, reg.Shutdown(ctx))
		for cmd := range reg.Commands() {
			s := cmd.Snapshot()
			require.Zero(t, s.InFlight, "%s in flight", cmd.Name())
			require.Zero(t, s.Bulkhead.InFlight+s.Bulkhead.Abandoned, "permits of %s", cmd.Name())
		}
	})
	return reg
}

// newCommand makes the one command of a registry of its own.
func newCommand(t testing.TB, c firebreak.Config) *firebreak.Command {
	t.Helper()
	return newRegistry(t, firebreak.Config{}).Command("dep", c)
}

// drill is a good drill of an hour.
func drill(f chaos.Fault) chaos.Drill {
	return chaos.Drill{Fault: f, Reason: "ticket 123", Author: "Ada", For: time.Hour}
}

// start starts a drill that has no reason not to.
func start(t testing.TB, d chaos.Drill, cmds ...*firebreak.Command) (stop func()) {
	t.Helper()
	stop, err := d.Start(cmds...)
	require.NoError(t, err)
	return stop
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

// makes makes a call by one of the verbs, whose run or settling ends with run's
// error.
func makes(ctx context.Context, cmd *firebreak.Command, begin bool, run func(context.Context) error) error {
	if !begin {
		return cmd.Run(ctx, run)
	}
	call, err := cmd.Begin(ctx)
	if err != nil {
		return err
	}
	defer call.End()
	return call.Settle(run(call.Context()))
}

// hits makes n calls that would succeed, and tells which of them did not.
func hits(t testing.TB, cmd *firebreak.Command, n int) (which []int) {
	t.Helper()
	for i := range n {
		if cmd.Run(t.Context(), succeed) != nil {
			which = append(which, i)
		}
	}
	return which
}

// took is how long f takes, in a bubble.
func took(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}
