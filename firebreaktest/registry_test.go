package firebreaktest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreaktest"
)

func TestRegistryIsShutDownWithItsTest(t *testing.T) {
	var reg *firebreak.Registry
	var atCleanup error
	r := runTest(t, "TestFake", func(t testing.TB) {
		t.Cleanup(func() { // registered before: it runs after
			atCleanup = reg.Command("late", firebreak.Config{}).Run(context.Background(), succeed)
		})
		reg = firebreaktest.NewRegistry(t, firebreak.Config{Timeout: time.Minute})
		cmd := reg.Command("users.get", firebreak.Config{})
		assert.Equal(t, time.Minute, cmd.Config().Timeout)
		assert.NoError(t, cmd.Run(context.Background(), succeed))
		t.Cleanup(func() { // registered since: it runs before
			assert.NoError(t, cmd.Run(context.Background(), succeed))
		})
	})
	require.False(t, r.failed, r.text)
	require.ErrorIs(t, atCleanup, firebreak.ErrShutdown)
}

func TestRegistryPanicsOnABadConfig(t *testing.T) {
	require.PanicsWithValue(t, "firebreak: registry: Timeout: 300ns is under 10µs or Off", func() {
		firebreaktest.NewRegistry(t, firebreak.Config{Timeout: 300})
	})
}

// Five seconds, for real; the other tests go on meanwhile.
func TestAPermitThatIsOutFailsTheTest(t *testing.T) {
	t.Parallel()
	var call *firebreak.Call
	began := time.Now()
	r := runTest(t, "TestFake", func(t testing.TB) {
		_, cmd := newCommand(t, firebreak.Config{Timeout: firebreak.Off})
		var err error
		call, err = cmd.Begin(context.Background())
		assert.NoError(t, err)
		_, err = cmd.Begin(context.Background())
		assert.NoError(t, err)
	})
	call.End()
	require.True(t, r.failed)
	require.Contains(t, r.text, "users.get: 2 in flight for at least 5")
	require.Less(t, time.Since(began), time.Minute)
}

// A run that ends with the test, or just after it, is no leak.
func TestARunThatIsJustEndingIsWaitedFor(t *testing.T) {
	t.Parallel()
	var begun, ended, calls sync.WaitGroup
	r := runTest(t, "TestFake", func(t testing.TB) {
		_, cmd := newCommand(t, firebreak.Config{Isolation: firebreak.PoolIsolation, Timeout: firebreak.Off})
		ctx, cancel := context.WithCancel(context.Background())
		goOn := make(chan bool)
		for range 10 {
			begun.Add(1)
			ended.Add(1)
			calls.Go(func() {
				_ = cmd.Run(ctx, func(context.Context) error {
					begun.Done()
					defer ended.Done()
					<-goOn
					return nil
				})
			})
		}
		begun.Wait()
		cancel()
		calls.Wait() // the callers have left, the runs are still out
		t.Cleanup(func() { time.AfterFunc(50*time.Millisecond, func() { close(goOn) }) })
	})
	ended.Wait()
	require.False(t, r.failed, r.text)
}

// In a bubble what ends by a timer is waited for, however long that takes.
func TestAbandonedRunInABubbleIsWaitedFor(t *testing.T) {
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		r := runTest(t, "TestFake", func(t testing.TB) {
			_, cmd := newCommand(t, firebreak.Config{Isolation: firebreak.PoolIsolation})
			err := cmd.Run(context.Background(), func(context.Context) error {
				time.Sleep(30 * time.Minute) // deaf
				return nil
			})
			assert.ErrorIs(t, err, firebreak.ErrTimeout)
			assert.Equal(t, 1, cmd.Snapshot().Bulkhead.Abandoned)
		})
		assert.False(t, r.failed, r.text)
	})
	require.Less(t, time.Since(began), time.Minute)
}

// A run that hangs for ever in a bubble is reported, in no time.
func TestHungRunInABubbleIsReported(t *testing.T) {
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan bool)
		r := runTest(t, "TestFake", func(t testing.TB) {
			reg := firebreaktest.NewRegistry(t, firebreak.Config{})
			web := reg.Dependency("web", firebreak.Config{Isolation: firebreak.PoolIsolation}).Keyed("web.get", 10, firebreak.Config{})
			err := web.Command("a.example").Run(context.Background(), func(context.Context) error {
				<-goOn
				return nil
			})
			assert.ErrorIs(t, err, firebreak.ErrTimeout)
		})
		close(goOn)
		assert.True(t, r.failed)
		assert.Contains(t, r.text, "web.get[a.example]: 1 in flight for at least 1h0m")
	})
	require.Less(t, time.Since(began), time.Minute)
}

// TestHungForEver fails; TestHungTestIsToldWhy runs it in a process of its own.
func TestHungForEver(t *testing.T) {
	if os.Getenv("FIREBREAKTEST_HANG") == "" {
		t.Skip("for TestHungTestIsToldWhy")
	}
	synctest.Test(t, func(t *testing.T) {
		_, cmd := newCommand(t, firebreak.Config{Isolation: firebreak.PoolIsolation})
		never := make(chan bool)
		err := cmd.Run(t.Context(), func(context.Context) error {
			<-never
			return nil
		})
		require.ErrorIs(t, err, firebreak.ErrTimeout)
	})
}

// With a real T the bubble's deadlock ends the process. The report must stand before it.
func TestHungTestIsToldWhy(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestHungForEver$")
	cmd.Env = append(os.Environ(), "FIREBREAKTEST_HANG=1")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "users.get: 1 in flight for at least 1h0m")
	require.Contains(t, string(out), "blocked goroutines remain")
}

// Nothing is shared: fifty tests at once, half of them in bubbles, with one name.
func TestFiftyParallelTests(t *testing.T) {
	one := func(t *testing.T) {
		reg, cmd := newCommand(t, firebreak.Config{Isolation: firebreak.PoolIsolation})
		rec := firebreaktest.Record(t, reg)
		restore := firebreaktest.Force(t, reg, "users.get", firebreak.ErrTimeout)
		var calls sync.WaitGroup
		for range 10 {
			calls.Go(func() { assert.ErrorIs(t, cmd.Run(t.Context(), fail), firebreak.ErrTimeout) })
		}
		calls.Wait()
		restore()
		firebreaktest.Trip(t, reg, "users.get")
		require.ErrorIs(t, cmd.Run(t.Context(), succeed), firebreak.ErrOpen)

		want := make([]string, 10, 12)
		for i := range want {
			want[i] = "timeout"
		}
		rec.Want(t, "users.get", append(want, "open", "short_circuited")...)
		require.EqualValues(t, 10, cmd.Snapshot().Total.Timeout)
	}
	for i := range 50 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			if i%2 == 0 {
				one(t)
			} else {
				synctest.Test(t, one)
			}
		})
	}
}

func TestUnknownCommands(t *testing.T) {
	does := map[string]func(t testing.TB, reg *firebreak.Registry, name string){
		"Force": func(t testing.TB, reg *firebreak.Registry, name string) { firebreaktest.Force(t, reg, name, errBoom) },
		"Trip":  firebreaktest.Trip,
		"Events": func(t testing.TB, reg *firebreak.Registry, name string) {
			firebreaktest.Record(t, reg).Events(name)
		},
		"Want": func(t testing.TB, reg *firebreak.Registry, name string) {
			firebreaktest.Record(t, reg).Want(t, name)
		},
	}
	for what, do := range does {
		t.Run(what, func(t *testing.T) {
			reg := firebreaktest.NewRegistry(t, firebreak.Config{})
			requireFatal(t, func(t testing.TB) { do(t, reg, "users.get") }, `no command "users.get"`, "none in this registry")

			reg.Command("users.list", firebreak.Config{})
			requireFatal(t, func(t testing.TB) { do(t, reg, "users.get") }, `there is "users.list".`)

			web := reg.Dependency("web", firebreak.Config{}).Keyed("web.get", 10, firebreak.Config{})
			web.Command("a.example")
			web.Command("")
			for _, name := range []string{"web.get", "web.get[b.example]", "", "web.get[a.example", "USERS.LIST", "users.list\n"} {
				requireFatal(t, func(t testing.TB) { do(t, reg, name) },
					fmt.Sprintf("%q", name), `"users.list", "web.get[]", "web.get[a.example]"`, "named with its key")
			}
			do(t, reg, "users.list")
			do(t, reg, "web.get[a.example]")
			do(t, reg, "web.get[]")

			reg.Command("web.get[a.example]", firebreak.Config{}) // of all names
			requireFatal(t, func(t testing.TB) { do(t, reg, "web.get[a.example]") }, "two commands")
			reg.Command("100%s%d\x00", firebreak.Config{})
			do(t, reg, "100%s%d\x00")

			for i := range 100 {
				reg.Command(fmt.Sprintf("x%02d", i), firebreak.Config{})
			}
			requireFatal(t, func(t testing.TB) { do(t, reg, "users.get") }, `"100%s%d\x00"`, `"x14" and 85 more`)
		})
	}
}
