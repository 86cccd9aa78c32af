package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak"
)

// newKeyed makes a family of at most so many keys. Its window is 10s, a bucket 1s.
func newKeyed(t testing.TB, most int, c firebreak.Config) (*firebreak.Registry, *firebreak.Keyed) {
	t.Helper()
	reg := newRegistry(t, c)
	return reg, reg.Dependency("dep", firebreak.Config{}).Keyed("k", most, firebreak.Config{})
}

// otherOf is another command of the family's dependency.
func otherOf(reg *firebreak.Registry) *firebreak.Command {
	return reg.Dependency("dep", firebreak.Config{}).Command("other", firebreak.Config{})
}

// hasPlace tells whether a key that is asked for gets a command of its own.
func hasPlace(k *firebreak.Keyed, key string) bool { return k.Command(key).Snapshot().Key == key }

func TestKeysHaveCommandsOfTheirOwn(t *testing.T) {
	reg, k := newKeyed(t, 3, firebreak.Config{Timeout: time.Minute})
	a, b := k.Command("a"), k.Command("b")
	require.Equal(t, "k[a]", a.Name())
	s := a.Snapshot()
	require.Equal(t, "dep", s.Dependency)
	require.Equal(t, "k", s.Command)
	require.Equal(t, "a", s.Key)
	require.Equal(t, time.Minute, a.Config().Timeout)

	trip(t, a)
	require.Equal(t, firebreak.StateClosed, b.Snapshot().State)
	_, err := firebreak.Do(t.Context(), b, succeed)
	require.NoError(t, err)
	require.EqualValues(t, 1, total(b).Calls())
	require.Equal(t, []string{"k[a]", "k[b]"}, commandsOf(reg))
}

// S73: too many keys share a command, and get one of their own once there is room.
func TestKeysWithoutAPlaceShareACommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, k := newKeyed(t, 2, firebreak.Config{})
		for _, key := range []string{"a", "b"} {
			require.True(t, hasPlace(k, key))
		}
		shared := k.Command("c")
		require.Equal(t, "k[*]", shared.Name())
		require.Equal(t, "*", shared.Snapshot().Key)
		require.Same(t, shared, k.Command("d"))
		require.Equal(t, []string{"k[*]", "k[a]", "k[b]"}, commandsOf(reg))
		_, err := firebreak.Do(t.Context(), k.Command("c"), succeed)
		require.NoError(t, err)

		time.Sleep(10 * time.Second)
		c := k.Command("c") // it leaves the shared command, and its counts
		require.Equal(t, "k[c]", c.Name())
		require.Zero(t, total(c))
		require.EqualValues(t, 1, total(shared).Success)
		require.Len(t, commandsOf(reg), 3, "one made way, and the shared command stays")

		_, err = firebreak.Do(t.Context(), shared, succeed) // a handle that was kept
		require.NoError(t, err)
		require.EqualValues(t, 2, total(shared).Success)
		require.EqualValues(t, 2, k.Snapshot().Total.Success)

		_, err = firebreak.Do(t.Context(), c, succeed)
		require.NoError(t, err)
		require.EqualValues(t, 3, k.Snapshot().Total.Success)
	})
}

// The circuit of the keys without a place is one for all of them.
func TestTheSharedCircuit(t *testing.T) {
	_, k := newKeyed(t, 1, firebreak.Config{})
	a := k.Command("a")
	trip(t, k.Command("b"))
	_, err := firebreak.Do(t.Context(), k.Command("c"), succeed)
	require.EqualError(t, err, "k[*]: circuit open")
	_, err = firebreak.Do(t.Context(), a, succeed)
	require.NoError(t, err)
}

// A key that happens to be called as the shared command is one of those it is for:
// no two commands have one name.
func TestAKeyCalledAsTheSharedCommand(t *testing.T) {
	reg, k := newKeyed(t, 1, firebreak.Config{})
	star := k.Command("*")
	require.True(t, hasPlace(k, "a"), "it takes nobody's place")
	require.Same(t, star, k.Command("b"))
	require.Same(t, star, k.Command("*"))
	require.Equal(t, []string{"k[*]", "k[a]"}, commandsOf(reg))
}

func TestNobodyMakesWayForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, k := newKeyed(t, 2, firebreak.Config{})
		k.Command("a")
		time.Sleep(time.Hour)
		k.Command("b")
		require.Equal(t, []string{"k[a]", "k[b]"}, commandsOf(reg), "there was room")
		k.Command("*")
		k.Command("a")
		require.Equal(t, []string{"k[*]", "k[a]", "k[b]"}, commandsOf(reg), "the shared command has its own")
	})
}

func TestAKeyIsAskedForConcurrently(t *testing.T) {
	_, k := newKeyed(t, 1000, firebreak.Config{})
	var cmds [8][1000]*firebreak.Command
	var wg sync.WaitGroup
	for i := range cmds {
		wg.Go(func() {
			for n := range cmds[i] {
				cmds[i][n] = k.Command(fmt.Sprint(n))
			}
		})
	}
	wg.Wait()
	for i := range cmds {
		require.True(t, cmds[0] == cmds[i], "two commands for one key")
	}
}

// S73: unused for a window, which is nothing counted in its ten buckets; and made
// no less than a window ago.
func TestAKeyMakesWayWhenUnusedForAWindow(t *testing.T) {
	never := time.Duration(-1)
	for _, tt := range []struct {
		used, asked time.Duration
		makesWay    bool
	}{
		{never, 10*time.Second - 1, false},
		{never, 10 * time.Second, true},
		{0, 10*time.Second - 1, false},
		{0, 10 * time.Second, true},
		{3500 * time.Millisecond, 13*time.Second - 1, false},
		{3500 * time.Millisecond, 13 * time.Second, true},
		{time.Hour, time.Hour + 10*time.Second - 1, false},
		{time.Hour, time.Hour + 10*time.Second, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, k := newKeyed(t, 1, firebreak.Config{})
			a := k.Command("a")
			if tt.used != never {
				time.Sleep(tt.used)
				_, _ = firebreak.Do(t.Context(), a, succeed)
				time.Sleep(tt.asked - tt.used)
			} else {
				time.Sleep(tt.asked)
			}
			require.Equal(t, tt.makesWay, hasPlace(k, "b"), "used at %v, asked for at %v", tt.used, tt.asked)
			require.Equal(t, !tt.makesWay, hasPlace(k, "a"))
		})
	}
}

// Whatever is counted is use, also what never ran.
func TestEveryCountIsUse(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, use := range map[string]func(*firebreak.Command){
		"success": func(cmd *firebreak.Command) { _, _ = firebreak.Do(context.Background(), cmd, succeed) },
		"failure": func(cmd *firebreak.Command) { _, _ = firebreak.Do(context.Background(), cmd, fail) },
		"gave up": func(cmd *firebreak.Command) { _, _ = firebreak.Do(canceled, cmd, succeed) },
		"rejection": func(cmd *firebreak.Command) {
			_, _ = firebreak.Do(context.Background(), cmd, succeed, firebreak.Static(1))
		},
		"hit of a cache": func(cmd *firebreak.Command) {
			get, ctx := firebreak.Cached(cmd, twice), firebreak.WithScope(context.Background())
			_, _ = get(ctx, 1)
			_, _ = get(ctx, 1)
		},
		"batch": func(cmd *firebreak.Command) { _, _ = firebreak.Collapse(cmd, loadDoubles)(context.Background(), 1) },
	} {
		synctest.Test(t, func(t *testing.T) {
			reg, k := newKeyed(t, 1, firebreak.Config{MaxConcurrent: 1})
			a := k.Command("a")
			time.Sleep(time.Hour)
			var held *firebreak.Call
			if name == "rejection" {
				held = begin(t, otherOf(reg))
			}
			use(a)
			time.Sleep(9 * time.Second)
			require.False(t, hasPlace(k, "b"), name)
			time.Sleep(time.Second)
			require.True(t, hasPlace(k, "b"), name)
			if held != nil {
				end(held)
			}
		})
	}
}

// S73: what goes on in a command, or is known of its circuit, keeps its place,
// however long; when that is over, and a window later, it makes way.
func TestWhatKeepsAPlace(t *testing.T) {
	for name, tt := range map[string]struct {
		config firebreak.Config
		hold   func(t *testing.T, reg *firebreak.Registry, a *firebreak.Command) (letGo func())
	}{
		"a call in flight": {firebreak.Config{}, func(t *testing.T, _ *firebreak.Registry, a *firebreak.Command) func() {
			call := begin(t, a)
			return func() { end(call) }
		}},
		"a call that is settled, and not at its end": {firebreak.Config{}, func(t *testing.T, _ *firebreak.Registry, a *firebreak.Command) func() {
			call := begin(t, a)
			require.NoError(t, call.Settle(nil))
			return call.End
		}},
		"a call that waits": {firebreak.Config{MaxConcurrent: 1, MaxWait: 24 * time.Hour, Timeout: firebreak.Off}, func(t *testing.T, reg *firebreak.Registry, a *firebreak.Command) func() {
			other := begin(t, otherOf(reg))
			go func() { _, _ = firebreak.Do(context.Background(), a, succeed) }()
			synctest.Wait()
			require.Equal(t, 1, a.Snapshot().Bulkhead.Queued)
			return func() { end(other) }
		}},
		"a call in a pool's queue": {firebreak.Config{MaxConcurrent: 1, QueueSize: 1, Isolation: firebreak.PoolIsolation, Timeout: firebreak.Off}, func(t *testing.T, reg *firebreak.Registry, a *firebreak.Command) func() {
			other := begin(t, otherOf(reg))
			go func() { _, _ = firebreak.Do(context.Background(), a, succeed) }()
			synctest.Wait()
			require.Equal(t, 1, a.Snapshot().Bulkhead.Queued)
			return func() { end(other) }
		}},
		"a run that its caller has left": {firebreak.Config{Isolation: firebreak.PoolIsolation}, func(t *testing.T, _ *firebreak.Registry, a *firebreak.Command) func() {
			leave := make(chan bool)
			err := a.Run(t.Context(), func(context.Context) error { <-leave; return nil })
			require.ErrorIs(t, err, firebreak.ErrTimeout)
			return func() { close(leave); synctest.Wait() }
		}},
		"a fallback": {firebreak.Config{}, func(_ *testing.T, _ *firebreak.Registry, a *firebreak.Command) func() {
			leave := make(chan bool)
			go func() {
				_, _ = firebreak.Do(context.Background(), a, fail, func(context.Context, error) (int, error) { <-leave; return 1, nil })
			}()
			synctest.Wait()
			return func() { close(leave); synctest.Wait() }
		}},
		"an open circuit": {firebreak.Config{}, func(t *testing.T, _ *firebreak.Registry, a *firebreak.Command) func() {
			trip(t, a)
			return func() { // a probe
				_, err := firebreak.Do(t.Context(), a, succeed)
				require.NoError(t, err)
			}
		}},
		"a half-open circuit": {firebreak.Config{Probes: 2}, func(t *testing.T, _ *firebreak.Registry, a *firebreak.Command) func() {
			trip(t, a)
			time.Sleep(time.Minute)
			_, err := firebreak.Do(t.Context(), a, succeed)
			require.NoError(t, err)
			require.Equal(t, firebreak.StateHalfOpen, a.Snapshot().State)
			return func() {
				_, err := firebreak.Do(t.Context(), a, succeed)
				require.NoError(t, err)
			}
		}},
		"a circuit forced open": {firebreak.Config{}, func(_ *testing.T, _ *firebreak.Registry, a *firebreak.Command) func() {
			a.Override(firebreak.Override{Mode: firebreak.ForceOpen})
			return func() { a.Override(firebreak.Override{}) }
		}},
		"an override": {firebreak.Config{}, func(_ *testing.T, _ *firebreak.Registry, a *firebreak.Command) func() {
			a.Override(firebreak.Override{Reason: "a drill"})
			return func() { a.Override(firebreak.Override{}) }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg, k := newKeyed(t, 1, tt.config)
				a := k.Command("a")
				letGo := tt.hold(t, reg, a)
				time.Sleep(time.Hour)
				require.False(t, hasPlace(k, "b"))
				require.Same(t, a, k.Command("a"))
				time.Sleep(time.Second)
				letGo()
				synctest.Wait()
				require.Same(t, a, k.Command("a"))
				time.Sleep(10 * time.Second)
				require.True(t, hasPlace(k, "b"))
				require.NotSame(t, a, k.Command("a"))
			})
		})
	}
}

// What makes no difference to a new command: these make way.
func TestWhatKeepsNoPlace(t *testing.T) {
	for name, leave := range map[string]func(*firebreak.Registry, *firebreak.Command){
		"a circuit that Config forces closed": func(reg *firebreak.Registry, _ *firebreak.Command) {
			_ = reg.Update(forCommand("k", firebreak.Config{Mode: firebreak.ForceClosed}))
		},
		"shadow": func(reg *firebreak.Registry, _ *firebreak.Command) {
			_ = reg.Update(forCommand("k", firebreak.Config{Mode: firebreak.Shadow}))
		},
		"a circuit that was open": func(_ *firebreak.Registry, a *firebreak.Command) {
			for range 20 {
				_, _ = firebreak.Do(context.Background(), a, fail)
			}
			time.Sleep(time.Minute)
			_, _ = firebreak.Do(context.Background(), a, succeed)
		},
		"an override that is over": func(_ *firebreak.Registry, a *firebreak.Command) {
			a.Override(firebreak.Override{Reason: "a drill", Until: time.Now().Add(time.Minute)})
		},
		"an override to force it open that is over": func(_ *firebreak.Registry, a *firebreak.Command) {
			a.Override(firebreak.Override{Mode: firebreak.ForceOpen, Until: time.Now().Add(time.Minute)})
		},
		"an override to force it closed that is over": func(_ *firebreak.Registry, a *firebreak.Command) {
			a.Override(firebreak.Override{Mode: firebreak.ForceClosed, Until: time.Now().Add(time.Minute)})
		},
		"a handle": func(*firebreak.Registry, *firebreak.Command) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg, k := newKeyed(t, 1, firebreak.Config{})
				a := k.Command("a")
				leave(reg, a)
				time.Sleep(time.Hour)
				require.Equal(t, firebreak.StateClosed, a.Snapshot().State)
				require.True(t, hasPlace(k, "b"))
			})
		})
	}
}

// An override that was over when its command made way is told of as ever; the
// observer may ask for commands.
func TestTheEndOfAnOverrideIsToldWhenItsKeyMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, k := newKeyed(t, 1, firebreak.Config{})
		k.Command("a").Override(firebreak.Override{Mode: firebreak.ForceOpen, Reason: "a drill", Until: time.Now().Add(time.Minute)})
		time.Sleep(time.Hour)
		var told []string
		reg.Observe(firebreak.Observer{Transition: func(n firebreak.Transition) {
			told = append(told, fmt.Sprintf("%s[%s] %v to %v, %v%s", n.Command, n.Key, n.From, n.To, n.Mode, n.Override.Reason))
			k.Command("c")
			otherOf(reg)
		}})
		require.True(t, hasPlace(k, "b"))
		require.Equal(t, []string{"k[a] open to closed, auto"}, told)
	})
}

// What an operator does to a handle that was kept is done to the key.
func TestAnOverrideOfAHandleThatWasKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, k := newKeyed(t, 1, firebreak.Config{})
		kept := k.Command("a")
		time.Sleep(10 * time.Second)
		require.True(t, hasPlace(k, "b"))
		time.Sleep(10 * time.Second)
		kept.Override(firebreak.Override{Mode: firebreak.ForceOpen, Reason: "a drill"})
		a := k.Command("a")
		require.NotSame(t, kept, a)
		require.Equal(t, "a drill", a.Snapshot().Override.Reason)
		_, err := firebreak.Do(t.Context(), kept, succeed)
		require.ErrorIs(t, err, firebreak.ErrOpen)
		kept.Override(firebreak.Override{})
		_, err = firebreak.Do(t.Context(), a, succeed)
		require.NoError(t, err)
	})
}

// S71, S73: another window begins empty, but what was used lately was used lately.
func TestAnotherWindowMakesNoKeyIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, k := newKeyed(t, 1, firebreak.Config{})
		a := k.Command("a")
		time.Sleep(time.Hour)
		_, _ = firebreak.Do(t.Context(), a, succeed)
		update(t, reg, forCommand("k", firebreak.Config{Window: 20 * time.Second}))
		time.Sleep(18 * time.Second)
		require.False(t, hasPlace(k, "b"))
		time.Sleep(2 * time.Second)
		require.True(t, hasPlace(k, "b"))
	})
}

// A handle that was kept reads the settings in force, also those of later Updates.
func TestAKeptHandleReadsTheSettingsInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		k := reg.Dependency("dep", firebreak.Config{}).Keyed("k", 1, firebreak.Config{})
		kept := k.Command("a")
		require.Equal(t, time.Second, kept.Config().Timeout)
		time.Sleep(time.Minute)
		require.True(t, hasPlace(k, "b"), "a makes way")
		require.NoError(t, reg.Update(forCommand("k", firebreak.Config{Timeout: time.Minute})))
		require.Equal(t, time.Minute, kept.Config().Timeout)
	})
}

// Its calls are noted as the settings in force have it: they once went by those that
// its command had when it made way.
func TestS74_AKeptHandleIsNotedAsTheSettingsInForceSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		k := reg.Dependency("dep", firebreak.Config{}).Keyed("k", 1, firebreak.Config{})
		kept := k.Command("a")
		time.Sleep(time.Minute)
		require.True(t, hasPlace(k, "b"), "a makes way")
		require.NoError(t, reg.Update(forCommand("k", firebreak.Config{RequestLog: firebreak.On})))
		time.Sleep(time.Minute)
		ctx := firebreak.WithScope(t.Context())
		_, err := firebreak.Do(ctx, kept, succeed)
		require.NoError(t, err)
		require.Equal(t, "k[a][SUCCESS][0ms]", firebreak.RequestLog(ctx).String())
	})
}

// S73: the kept handle of a key that made way goes on under its present command.
func TestAHandleThatWasKept(t *testing.T) {
	for name, use := range map[string]func(*firebreak.Command){
		"Do": func(cmd *firebreak.Command) {
			_, _ = firebreak.Do(context.Background(), cmd, fail, firebreak.Static(1))
		},
		"Run": func(cmd *firebreak.Command) {
			_ = cmd.Run(context.Background(), func(context.Context) error { return errBoom }, func(context.Context, error) error { return nil })
		},
		"Bind": func(cmd *firebreak.Command) {
			_, _ = firebreak.Bind(cmd, func(context.Context, int) (int, error) { return 0, errBoom },
				func(context.Context, int, error) (int, error) { return 1, nil })(context.Background(), 1)
		},
	} {
		for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
			synctest.Test(t, func(t *testing.T) {
				_, k := newKeyed(t, 1, firebreak.Config{Isolation: isolation})
				kept := k.Command("a")
				time.Sleep(10 * time.Second)
				b := k.Command("b")
				use(kept) // without a place: it is shared
				require.EqualValues(t, 1, total(k.Command("c")).FallbackSuccess, name)
				require.Zero(t, total(kept), name)

				time.Sleep(10 * time.Second) // now a has its place again
				use(kept)
				a := k.Command("a")
				require.NotSame(t, kept, a, name)
				require.EqualValues(t, 1, total(a).Failure, name)
				require.EqualValues(t, 1, total(a).FallbackSuccess, name)
				require.Zero(t, total(b), name)
				require.EqualValues(t, 2, k.Snapshot().Total.FallbackSuccess, name)
			})
		}
	}
}

func TestBeginOfAHandleThatWasKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, k := newKeyed(t, 1, firebreak.Config{})
		kept := k.Command("a")
		time.Sleep(10 * time.Second)
		require.True(t, hasPlace(k, "b"))
		time.Sleep(10 * time.Second)
		call := begin(t, kept)
		a := k.Command("a")
		require.Equal(t, 1, a.Snapshot().InFlight)
		require.Equal(t, 1, k.Snapshot().InFlight)
		end(call)
		require.EqualValues(t, 1, total(a).Success)
		require.Zero(t, k.Snapshot().InFlight)
	})
}

// Nor is a call lost that comes too late to be admitted: what its old command
// counted was added to the family's past long ago.
func TestACallerGivesUpOnAHandleThatWasKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, k := newKeyed(t, 1, firebreak.Config{})
		kept := k.Command("a")
		time.Sleep(time.Minute)
		require.True(t, hasPlace(k, "b"))
		time.Sleep(time.Minute)
		require.Zero(t, k.Snapshot().Total)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := firebreak.Do(ctx, kept, succeed)
		require.ErrorIs(t, err, context.Canceled)
		require.EqualValues(t, 1, k.Snapshot().Total.GaveUp)
	})
}

// A circuit that the key's present command has holds for the kept handle.
func TestTheCircuitOfAHandleThatWasKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, k := newKeyed(t, 1, firebreak.Config{})
		kept := k.Command("a")
		time.Sleep(10 * time.Second)
		require.True(t, hasPlace(k, "b"))
		time.Sleep(10 * time.Second)
		trip(t, k.Command("a"))
		_, err := firebreak.Do(t.Context(), kept, succeed)
		require.EqualError(t, err, "k[a]: circuit open")
		require.NoError(t, reg.Shutdown(t.Context()))
		_, err = firebreak.Do(t.Context(), kept, succeed)
		require.ErrorIs(t, err, firebreak.ErrShutdown)
		require.EqualValues(t, 1, k.Snapshot().Total.Shutdown)
	})
}

func TestAHandleThatWasKeptKnowsItsSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, k := newKeyed(t, 1, firebreak.Config{})
		kept := k.Command("a")
		time.Sleep(10 * time.Second)
		require.True(t, hasPlace(k, "b"))
		update(t, reg, forCommand("k", firebreak.Config{Timeout: time.Minute}))
		require.Equal(t, time.Minute, kept.Config().Timeout)
		require.Equal(t, "document: command", kept.Origins()["timeout"])
		require.Equal(t, time.Minute, howLongACallMayTake(t, kept))
	})
}

// After a search in vain the next is a bucket's time later: not every call of too
// many keys searches them all.
func TestASearchInVainIsNotRepeatedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, k := newKeyed(t, 2, firebreak.Config{})
		a := k.Command("a")
		call := begin(t, k.Command("b"))
		time.Sleep(9500 * time.Millisecond)
		require.False(t, hasPlace(k, "c"), "a was made less than a window ago")
		time.Sleep(500 * time.Millisecond) // now it could make way
		require.False(t, hasPlace(k, "c"))
		time.Sleep(500*time.Millisecond - 1)
		require.False(t, hasPlace(k, "c"))
		time.Sleep(time.Nanosecond)
		require.True(t, hasPlace(k, "c"))
		require.NotSame(t, a, k.Command("a"))
		end(call)
	})
}

// After a search that found one, the next goes on at once.
func TestManyKeysMakeWayAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, k := newKeyed(t, 50, firebreak.Config{})
		for i := range 50 {
			require.True(t, hasPlace(k, fmt.Sprint("old", i)))
		}
		time.Sleep(10 * time.Second)
		for i := range 50 {
			require.True(t, hasPlace(k, fmt.Sprint("new", i)))
		}
		require.False(t, hasPlace(k, "one more"))
		for _, name := range commandsOf(reg) {
			require.NotContains(t, name, "old")
		}
		require.Len(t, commandsOf(reg), 51)
	})
}

// A document names the family.
func TestUpdateReachesKeyedCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, k := newKeyed(t, 2, firebreak.Config{})
		cmds := []*firebreak.Command{k.Command("a"), k.Command("b"), k.Command("shared")}
		update(t, reg, firebreak.Document{Commands: map[string]firebreak.Config{"k": {Timeout: time.Minute}, "k[a]": {Timeout: time.Hour}}})
		require.Equal(t, []string{`command "k[a]"`}, reg.Unclaimed(), "a single key has no settings of its own")
		time.Sleep(10 * time.Second)
		for _, cmd := range append(cmds, k.Command("late")) {
			require.Equal(t, time.Minute, howLongACallMayTake(t, cmd), cmd.Name())
			require.Equal(t, time.Minute, cmd.Config().Timeout)
			require.Equal(t, "document: command", cmd.Origins()["timeout"])
		}
		update(t, reg, forCommand("k", firebreak.Config{Mode: firebreak.ForceOpen}))
		for cmd := range reg.Commands() {
			_, err := firebreak.Do(t.Context(), cmd, succeed)
			require.ErrorIs(t, err, firebreak.ErrOpen, cmd.Name())
		}
		require.Equal(t, firebreak.ForceOpen, k.Snapshot().Mode)
	})
}

func TestSnapshotOfAFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, k := newKeyed(t, 2, firebreak.Config{})
		s := k.Snapshot()
		require.Equal(t, time.Now(), s.Time)
		require.Equal(t, "dep", s.Dependency)
		require.Equal(t, "k", s.Command)
		require.Empty(t, s.Key)
		require.Equal(t, firebreak.StateClosed, s.State)
		require.Equal(t, firebreak.Auto, s.Mode)
		require.Zero(t, s.Total)
		require.Zero(t, s.ErrorPercentage)

		a, b, shared := k.Command("a"), k.Command("b"), k.Command("c")
		for _, cmd := range []*firebreak.Command{a, b, shared} {
			_, _ = firebreak.Do(t.Context(), cmd, succeed)
		}
		calls := []*firebreak.Call{begin(t, a), begin(t, a), begin(t, b), begin(t, shared), begin(t, otherOf(reg))}
		_, _ = firebreak.Do(t.Context(), b, fail)
		s = k.Snapshot()
		require.EqualValues(t, 4, s.Total.Calls())
		require.Equal(t, s.Total, s.Window)
		require.Equal(t, 4, s.InFlight)
		require.GreaterOrEqual(t, s.MaxInFlight, 4)
		require.Equal(t, 5, s.Bulkhead.InFlight)
		require.InDelta(t, 25.0, s.ErrorPercentage, 0)
		require.EqualValues(t, 4, s.RunHistogram.Count)

		_, _ = firebreak.Do(t.Context(), a, fail, func(context.Context, error) (int, error) {
			require.Equal(t, 1, k.Snapshot().Fallbacks)
			return 1, nil
		})
		end(calls...)

		failUntilOpen(t, b) // and then half-open, beside one that is closed
		require.Equal(t, firebreak.StateOpen, k.Snapshot().State)
		time.Sleep(5 * time.Second)
		probe := begin(t, b)
		require.Equal(t, firebreak.StateHalfOpen, k.Snapshot().State)
		failUntilOpen(t, a)
		require.Equal(t, firebreak.StateOpen, k.Snapshot().State, "open beside half-open is open")
		end(probe)
	})
}

// S73: counts and histograms of keys that are gone stay in the family's, exactly,
// those of fallbacks too.
func TestAFamilyCountsWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, k := newKeyed(t, 1, firebreak.Config{})
		slow := func(d time.Duration) func(context.Context) (int, error) {
			return func(context.Context) (int, error) { time.Sleep(d); return 0, errBoom }
		}
		var want firebreak.Counts
		var runs, calls time.Duration
		for i := range 5 {
			for range i + 1 {
				_, _ = firebreak.Do(t.Context(), k.Command(fmt.Sprint(i)), slow(100*time.Millisecond), func(context.Context, error) (int, error) {
					time.Sleep(200 * time.Millisecond)
					return 1, nil
				})
				want.Failure++
				want.FallbackSuccess++
				runs += 100 * time.Millisecond
				calls += 300 * time.Millisecond
			}
			for range 4 { // it makes way, and is forgotten
				s := k.Snapshot()
				require.Equal(t, want, s.Total)
				require.Equal(t, want.Failure, s.RunHistogram.Count)
				require.Equal(t, want.Failure, s.CallHistogram.Count)
				require.Equal(t, runs, s.RunHistogram.Sum)
				require.Equal(t, calls, s.CallHistogram.Sum)
				for bound, n := range s.RunHistogram.Buckets() {
					if bound > 100*time.Millisecond {
						require.Equal(t, want.Failure, n, bound)
					} else {
						require.Zero(t, n, bound)
					}
				}
				time.Sleep(12 * time.Second)
				require.True(t, hasPlace(k, fmt.Sprint(i+1)))
			}
		}
	})
}

// What is gone is kept apart for a window, and then no more: many keys over a long
// time do not grow a family, whether anybody looks at it or not.
func TestWhatIsGoneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, k := newKeyed(t, 3, firebreak.Config{})
		next := 0
		replaceAll := func() {
			for range 3 {
				require.True(t, hasPlace(k, fmt.Sprint(next)))
				next++
			}
		}
		replaceAll()
		for range 20 {
			time.Sleep(10 * time.Second)
			replaceAll()
			require.Equal(t, 3, firebreak.Gone(k), "all of this moment")
		}
		time.Sleep(10*time.Second - 1)
		k.Snapshot()
		require.Equal(t, 3, firebreak.Gone(k))
		time.Sleep(time.Nanosecond)
		k.Snapshot()
		require.Zero(t, firebreak.Gone(k))
	})
}

// A call that an observer holds up longer than a window is not over, and its
// fallback is counted in the family.
func TestAnObserverThatHoldsACallUp(t *testing.T) {
	for _, what := range []string{"failure", "rejection"} {
		synctest.Test(t, func(t *testing.T) {
			reg, k := newKeyed(t, 1, firebreak.Config{MaxConcurrent: 1})
			reg.Observe(firebreak.Observer{Call: func(_ context.Context, e firebreak.CallEvent) {
				if e.Key == "a" {
					time.Sleep(time.Hour)
				}
			}})
			a := k.Command("a")
			time.Sleep(time.Minute)
			var held []*firebreak.Call
			if what == "rejection" {
				held = append(held, begin(t, otherOf(reg)))
			}
			go func() { _, _ = firebreak.Do(context.Background(), a, fail, firebreak.Static(1)) }()
			synctest.Wait()
			end(held...)
			for i := range 5 {
				time.Sleep(15 * time.Second)
				k.Command(fmt.Sprint(i))
				k.Snapshot()
			}
			time.Sleep(time.Hour)
			s := k.Snapshot()
			require.EqualValues(t, 1, s.Total.FallbackSuccess, what)
			require.Equal(t, s.Total.Executed(), s.CallHistogram.Count, what)
		})
	}
}

// keyedModel makes calls through a family and counts them itself.
type keyedModel struct {
	reg  *firebreak.Registry
	k    *firebreak.Keyed
	most int
	kept map[string]*firebreak.Command

	begun []begunCall
	used  map[string]time.Time // when a command was used last, by name

	mu          sync.Mutex
	want        firebreak.Counts
	runs, calls time.Duration // of executed calls that are over
}

type begunCall struct {
	call *firebreak.Call
	at   time.Time
}

func (m *keyedModel) counted(count func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	count()
}

// refused counts a call that was.
func (m *keyedModel) refused(err error) {
	m.counted(func() {
		switch {
		case errors.Is(err, firebreak.ErrOpen):
			m.want.ShortCircuited++
		case errors.Is(err, firebreak.ErrRejected):
			m.want.Rejected++
		default:
			panic(fmt.Sprint("a call of no known end: ", err))
		}
	})
}

// call makes one whose run takes d, fails or not, and whose fallback takes d too.
func (m *keyedModel) call(cmd *firebreak.Command, d time.Duration, fails, fallback bool) {
	executed := false
	run := func(context.Context) (int, error) {
		executed = true
		if d > 0 {
			time.Sleep(d)
		}
		m.counted(func() {
			m.runs += d
			if !fails {
				m.want.Success++
				m.calls += d
				return
			}
			m.want.Failure++
			if !fallback {
				m.want.FallbackMissing++
				m.calls += d
			}
		})
		if fails {
			return 0, errBoom
		}
		return 1, nil
	}
	if !fallback {
		if _, err := firebreak.Do(context.Background(), cmd, run); err != nil && !executed {
			m.refused(err)
			m.counted(func() { m.want.FallbackMissing++ })
		}
		return
	}
	_, _ = firebreak.Do(context.Background(), cmd, run, func(_ context.Context, cause error) (int, error) {
		if !executed {
			m.refused(cause)
		}
		if d > 0 {
			time.Sleep(d)
		}
		m.counted(func() {
			m.want.FallbackSuccess++
			if executed {
				m.calls += 2 * d
			}
		})
		return 2, nil
	})
}

// giveUp is a call whose caller is gone.
func (m *keyedModel) giveUp(cmd *firebreak.Command) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _ = firebreak.Do(ctx, cmd, succeed)
	m.counted(func() { m.want.GaveUp++ })
}

func (m *keyedModel) begin(cmd *firebreak.Command) {
	call, err := cmd.Begin(context.Background())
	if err != nil {
		m.refused(err)
		return
	}
	m.begun = append(m.begun, begunCall{call, time.Now()})
}

func (m *keyedModel) end(i int, err error) {
	b := m.begun[i]
	m.begun = append(m.begun[:i], m.begun[i+1:]...)
	_ = b.call.Settle(err)
	b.call.End()
	m.counted(func() {
		m.runs += time.Since(b.at)
		m.calls += time.Since(b.at)
		if err == nil {
			m.want.Success++
		} else {
			m.want.Failure++
		}
	})
}

// check compares the family with what was counted, and looks at what made way
// since before was taken, at this same moment.
func (m *keyedModel) check(t require.TestingT, before map[string]firebreak.Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.k.Snapshot()
	m.want.WouldShortCircuit = s.Total.WouldShortCircuit // not the model's business
	require.Equal(t, m.want, s.Total)
	require.LessOrEqual(t, s.Window.Calls(), s.Total.Calls())
	require.Equal(t, s.Total.Executed(), s.RunHistogram.Count)
	require.Equal(t, m.runs, s.RunHistogram.Sum)
	require.LessOrEqual(t, s.CallHistogram.Count, s.RunHistogram.Count)
	require.Equal(t, m.calls, s.CallHistogram.Sum)

	after := m.snapshots()
	require.LessOrEqual(t, len(after), m.most+1)
	for name, was := range before {
		if _, is := after[name]; is {
			continue
		}
		require.NotEqual(t, "*", was.Key)
		require.Equal(t, firebreak.StateClosed, was.State, name)
		require.Zero(t, was.InFlight, name)
		require.Zero(t, was.Fallbacks, name)
		require.Zero(t, was.Override, name)
		require.Zero(t, was.Window, name)
		// Of a window the bucket that is under way is a part.
		require.Greater(t, time.Since(m.used[name]), 9*time.Second, name)
	}
}

func (m *keyedModel) snapshots() map[string]firebreak.Snapshot {
	all := map[string]firebreak.Snapshot{}
	for cmd := range m.reg.Commands() {
		all[cmd.Name()] = cmd.Snapshot()
	}
	return all
}

// TestNoCallIsLostToTheFamily: whatever is called, over fresh handles and kept ones,
// and whatever makes way meanwhile, the family counts every call once.
func TestNoCallIsLostToTheFamily(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			most := rapid.IntRange(1, 3).Draw(t, "most")
			reg := firebreak.NewRegistry(firebreak.Config{RequestVolumeThreshold: 3, MaxConcurrent: 3, Timeout: firebreak.Off})
			m := &keyedModel{
				reg: reg, k: reg.Dependency("dep", firebreak.Config{}).Keyed("k", most, firebreak.Config{}), most: most,
				kept: map[string]*firebreak.Command{}, used: map[string]time.Time{},
			}
			reg.Observe(firebreak.Observer{Call: func(_ context.Context, e firebreak.CallEvent) {
				m.counted(func() { m.used[e.Command+"["+e.Key+"]"] = time.Now() })
			}})
			command := func() *firebreak.Command {
				key := rapid.SampledFrom([]string{"a", "b", "c", "d", "*"}).Draw(t, "key")
				if m.kept[key] != nil && rapid.Bool().Draw(t, "kept") {
					return m.kept[key]
				}
				cmd := m.k.Command(key)
				if m.kept[key] == nil {
					m.kept[key] = cmd
				}
				return cmd
			}
			for range rapid.IntRange(1, 60).Draw(t, "steps") {
				before := m.snapshots()
				switch rapid.SampledFrom([]string{"call", "call", "call", "slow", "give up", "begin", "end", "override", "pass", "pass"}).Draw(t, "step") {
				case "call":
					m.call(command(), 0, rapid.Bool().Draw(t, "fails"), rapid.Bool().Draw(t, "fallback"))
				case "slow":
					cmd, fails, fallback := command(), rapid.Bool().Draw(t, "fails"), rapid.Bool().Draw(t, "fallback")
					d := time.Duration(rapid.IntRange(1, 30).Draw(t, "seconds")) * time.Second
					go m.call(cmd, d, fails, fallback)
				case "give up":
					m.giveUp(command())
				case "begin":
					m.begin(command())
				case "end":
					if len(m.begun) > 0 {
						m.end(rapid.IntRange(0, len(m.begun)-1).Draw(t, "which"), rapid.SampledFrom([]error{nil, errBoom}).Draw(t, "err"))
					}
				case "override":
					o := firebreak.Override{Mode: rapid.SampledFrom([]firebreak.Mode{0, firebreak.ForceClosed, firebreak.Shadow}).Draw(t, "mode")}
					if o.Mode != 0 {
						o.Until = time.Now().Add(15 * time.Second)
					}
					command().Override(o)
				case "pass":
					time.Sleep(time.Duration(rapid.IntRange(1, 120).Draw(t, "tenths")) * time.Second / 10)
					before = nil
				}
				synctest.Wait()
				m.check(t, before)
			}
			for len(m.begun) > 0 {
				m.end(0, nil)
			}
			time.Sleep(2 * time.Minute) // longer than any call
			m.check(t, nil)
			s := m.k.Snapshot()
			require.Equal(t, s.RunHistogram.Count, s.CallHistogram.Count)
			require.NoError(t, reg.Shutdown(context.Background()))
		})
	})
}

// Many goroutines and many more keys than there is room for.
func TestManyKeysAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, calls, most = 8, 250, 6
		reg, k := newKeyed(t, most, firebreak.Config{Window: time.Second, RequestVolumeThreshold: 5, SleepWindow: 500 * time.Millisecond})
		var successes, failures, refused atomic.Uint64
		var over atomic.Bool
		var wg sync.WaitGroup
		for seed := range uint64(callers) {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, 73))
				kept := map[string]*firebreak.Command{}
				for range calls {
					key := fmt.Sprint(r.IntN(30))
					cmd := kept[key]
					if cmd == nil || r.IntN(2) == 0 {
						cmd = k.Command(key)
						kept[key] = cmd
					}
					run, count := succeed, &successes
					if r.IntN(4) == 0 {
						run, count = fail, &failures
					}
					if _, err := firebreak.Do(context.Background(), cmd, run); errors.Is(err, firebreak.ErrOpen) {
						count = &refused
					}
					count.Add(1)
					if r.IntN(3) == 0 {
						time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
					}
				}
			})
		}
		done := make(chan bool)
		go func() { // who looks meanwhile sees no count fall
			defer close(done)
			last := k.Snapshot().Total
			for !over.Load() {
				s := k.Snapshot()
				assert.GreaterOrEqual(t, s.Total.Success, last.Success)
				assert.GreaterOrEqual(t, s.Total.Failure, last.Failure)
				assert.GreaterOrEqual(t, s.Total.ShortCircuited, last.ShortCircuited)
				assert.LessOrEqual(t, s.RunHistogram.Count, s.Total.Executed())
				last = s.Total
				assert.LessOrEqual(t, len(commandsOf(reg)), most+1)
				time.Sleep(10 * time.Millisecond)
			}
		}()
		wg.Wait()
		over.Store(true)
		<-done
		s := k.Snapshot()
		require.Equal(t, successes.Load(), s.Total.Success)
		require.Equal(t, failures.Load(), s.Total.Failure)
		require.Equal(t, refused.Load(), s.Total.ShortCircuited)
		require.EqualValues(t, callers*calls, s.Total.Calls())
		require.Equal(t, s.Total.Executed(), s.RunHistogram.Count)
		require.LessOrEqual(t, len(commandsOf(reg)), most+1)
	})
}

func TestKeyedCommandsOfKeysThatArePresentAllocateNothing(t *testing.T) {
	_, k := newKeyed(t, 2, firebreak.Config{})
	for _, key := range []string{"a", "b", "c"} {
		k.Command(key)
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { k.Command("a") }))
	require.Zero(t, testing.AllocsPerRun(100, func() { k.Command("c") }), "nor does the shared one")
	require.Zero(t, strings.Count(k.Command("a").Name(), "*"))
}

// admittedBeforeItMadeWay makes a call through a key's command that makes way for
// another key between the circuit and the bulkhead, and returns where it ends.
func admittedBeforeItMadeWay(t *testing.T, reg *firebreak.Registry, k *firebreak.Keyed, run func(context.Context) (int, error)) (end <-chan error) {
	t.Helper()
	a := k.Command("a")
	trip(t, a)
	once := false
	stop := reg.Observe(firebreak.Observer{Transition: func(n firebreak.Transition) {
		if once || n.To != firebreak.StateHalfOpen {
			return
		}
		once = true
		a.Override(firebreak.Override{Mode: firebreak.ForceClosed})
		a.Override(firebreak.Override{})
		time.Sleep(20 * time.Second)
		require.True(t, hasPlace(k, "b"))
	}})
	time.Sleep(5 * time.Second)
	ended := make(chan error, 1)
	go func() {
		_, err := firebreak.Do(context.Background(), a, run)
		ended <- err
	}()
	time.Sleep(20 * time.Second)
	synctest.Wait()
	stop()
	require.True(t, once)
	return ended
}

// S72: what waits ends shutdown, also if its command made way since it was admitted.
func TestShutdownOfACallWhoseCommandMadeWay(t *testing.T) {
	for _, c := range []firebreak.Config{
		{MaxConcurrent: 1, Timeout: time.Minute, MaxWait: time.Minute},
		{MaxConcurrent: 1, Timeout: time.Minute, Isolation: firebreak.PoolIsolation, QueueSize: 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			reg, k := newKeyed(t, 1, c)
			var other *firebreak.Call
			reg.Observe(firebreak.Observer{Transition: func(n firebreak.Transition) {
				if n.To == firebreak.StateHalfOpen {
					other = begin(t, otherOf(reg))
				}
			}})
			ended := admittedBeforeItMadeWay(t, reg, k, succeed)
			require.Equal(t, 1, k.Snapshot().Bulkhead.Queued)
			require.ErrorIs(t, reg.Shutdown(canceled(t)), context.Canceled)
			require.ErrorIs(t, <-ended, firebreak.ErrShutdown)
			require.EqualValues(t, 1, k.Snapshot().Total.Shutdown)
			end(other)
		})
	}
}

// S72: what is stuck is listed, also if its command made way since it was admitted.
func TestShutdownListsACallWhoseCommandMadeWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, k := newKeyed(t, 1, firebreak.Config{})
		answer := make(chan bool)
		ended := admittedBeforeItMadeWay(t, reg, k, func(context.Context) (int, error) { <-answer; return 1, nil })
		require.ErrorContains(t, reg.Shutdown(canceled(t)), "shutdown: k[a]: 1 in flight for at least 0s")
		close(answer)
		require.NoError(t, <-ended)
	})
}
