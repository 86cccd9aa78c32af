package firebreaktest_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreaktest"
)

// Every outcome and every end of the fallbacks has the word that metrics have.
func TestEveryWord(t *testing.T) {
	for want, do := range map[string]func(t *testing.T, reg *firebreak.Registry, cmd *firebreak.Command){
		"success": func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) { _ = cmd.Run(t.Context(), succeed) },
		"failure": func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) { _ = cmd.Run(t.Context(), fail) },
		"timeout": func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) { _ = cmd.Run(t.Context(), hang) },
		"expected": func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) {
			_ = cmd.Run(t.Context(), func(context.Context) error { return firebreak.Mark(errBoom, firebreak.Expected) })
		},
		"ignored": func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) {
			_ = cmd.Run(t.Context(), func(context.Context) error { return firebreak.Mark(errBoom, firebreak.Ignored) })
		},
		"panic": func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) {
			onGoroutine(func() { _ = cmd.Run(t.Context(), func(context.Context) error { runtime.Goexit(); return nil }) })
		},
		"canceled": func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) {
			ctx, cancel := context.WithCancel(t.Context())
			_ = cmd.Run(ctx, func(ctx context.Context) error { cancel(); return hang(ctx) })
		},
		"caller_deadline": func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			_ = cmd.Run(ctx, hang)
		},
		"gave_up": func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = cmd.Run(ctx, succeed)
		},
		"rejected success": func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) {
			_ = cmd.Run(t.Context(), func(ctx context.Context) error { _ = cmd.Run(ctx, succeed); return nil })
		},
		"open short_circuited": func(t *testing.T, reg *firebreak.Registry, cmd *firebreak.Command) {
			firebreaktest.Trip(t, reg, "users.get")
			_ = cmd.Run(t.Context(), succeed)
		},
		"open shutdown": func(t *testing.T, reg *firebreak.Registry, cmd *firebreak.Command) {
			require.NoError(t, reg.Shutdown(t.Context()))
			_ = cmd.Run(t.Context(), succeed)
		},
		"failure fallback_success": func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) {
			_ = cmd.Run(t.Context(), fail, fallBack)
		},
		"failure fallback_failure": func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) {
			_ = cmd.Run(t.Context(), fail, func(context.Context, error) error { return errBoom })
		},
		"failure failure fallback_rejected fallback_success": func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) {
			_ = cmd.Run(t.Context(), fail, func(ctx context.Context, _ error) error {
				_ = cmd.Run(ctx, fail, fallBack)
				return nil
			})
		},
		"timeout overran": func(t *testing.T, _ *firebreak.Registry, cmd *firebreak.Command) {
			_ = cmd.Run(t.Context(), func(context.Context) error { time.Sleep(time.Hour); return nil })
		},
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg, cmd := newCommand(t, firebreak.Config{MaxConcurrent: 1, MaxFallbacks: 1})
				rec := firebreaktest.Record(t, reg)
				do(t, reg, cmd)
				require.Equal(t, strings.Fields(want), rec.Events("users.get"))
				rec.Want(t, "users.get", strings.Fields(want)...)
			})
		})
	}
}

// A whole story, in the order in which one would tell it.
func TestEventsAreInOrder(t *testing.T) {
	for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		synctest.Test(t, func(t *testing.T) {
			reg, cmd := newCommand(t, firebreak.Config{ConsecutiveFailures: 2, Isolation: isolation, Probes: 2})
			rec := firebreaktest.Record(t, reg)
			for range 3 {
				require.NoError(t, cmd.Run(t.Context(), fail, fallBack))
			}
			time.Sleep(5 * time.Second)
			require.ErrorIs(t, cmd.Run(t.Context(), hang), firebreak.ErrTimeout)
			time.Sleep(5 * time.Second)
			require.NoError(t, cmd.Run(t.Context(), succeed))
			require.NoError(t, cmd.Run(t.Context(), succeed))
			rec.Want(t, "users.get",
				"failure", "fallback_success",
				"failure", "open", "fallback_success",
				"short_circuited", "fallback_success",
				"half_open", "timeout", "open",
				"half_open", "success", "success", "closed")
		})
	}
}

// In two steps the verdict is at Settle; a run whose caller has left is told twice.
func TestEventsOfCallsThatLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, cmd := newCommand(t, firebreak.Config{Isolation: firebreak.PoolIsolation, ConsecutiveFailures: 1, RecoverPanics: firebreak.On})
		rec := firebreaktest.Record(t, reg)
		call, err := cmd.Begin(t.Context())
		require.NoError(t, err)
		rec.Want(t, "users.get")
		require.NoError(t, call.Settle(nil))
		rec.Want(t, "users.get", "success")
		call.End()
		rec.Want(t, "users.get", "success")

		require.ErrorIs(t, cmd.Run(t.Context(), func(context.Context) error {
			time.Sleep(2 * time.Second)
			panic("late")
		}), firebreak.ErrTimeout)
		rec.Want(t, "users.get", "success", "timeout", "open")
		time.Sleep(time.Second)
		synctest.Wait()
		rec.Want(t, "users.get", "success", "timeout", "open", "overran")
	})
}

// What a hand does, and a document, stands where it was done.
func TestEventsOfModesAndOverrides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, cmd := newCommand(t, firebreak.Config{})
		rec := firebreaktest.Record(t, reg)
		hand := func(o firebreak.Override) {
			cmd.Override(o)
			_ = cmd.Run(t.Context(), succeed)
		}
		hand(firebreak.Override{Mode: firebreak.ForceOpen, Until: time.Now().Add(time.Minute)})
		time.Sleep(time.Minute)
		_ = cmd.Run(t.Context(), succeed)
		hand(firebreak.Override{Mode: firebreak.ForceClosed})
		hand(firebreak.Override{Mode: firebreak.Shadow})
		hand(firebreak.Override{Reason: "noted"})
		hand(firebreak.Override{})
		require.NoError(t, reg.Update(firebreak.Document{Defaults: firebreak.Config{Mode: firebreak.ForceClosed}}))
		require.NoError(t, reg.Update(firebreak.Document{Defaults: firebreak.Config{Mode: firebreak.ForceOpen}}))
		require.NoError(t, reg.Update(firebreak.Document{}))
		rec.Want(t, "users.get",
			"open", "short_circuited", "closed", "success",
			"mode force_closed", "success",
			"mode shadow", "success",
			"override", "success",
			"mode auto", "success",
			"mode force_closed", "open", "closed")
	})
}

// At one instant of a bubble the evidence of an opening is as old as what follows.
func TestEventsOfOneInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, cmd := newCommand(t, firebreak.Config{})
		rec := firebreaktest.Record(t, reg)
		firebreaktest.Trip(t, reg, "users.get")
		cmd.Override(firebreak.Override{Mode: firebreak.ForceClosed})
		cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		_ = cmd.Run(t.Context(), succeed)
		rec.Want(t, "users.get", "open", "closed", "open", "short_circuited")
	})
}

// A half-open circuit that a hand opens or closes: no call has done that.
func TestEventsOfAHandOnAHalfOpenCircuit(t *testing.T) {
	for _, c := range []struct {
		mode firebreak.Mode
		want []string
	}{
		{firebreak.ForceOpen, []string{"open", "half_open", "open", "success", "short_circuited"}},
		{firebreak.ForceClosed, []string{"open", "half_open", "closed", "success", "success"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			reg, cmd := newCommand(t, firebreak.Config{})
			rec := firebreaktest.Record(t, reg)
			firebreaktest.Trip(t, reg, "users.get")
			time.Sleep(5 * time.Second)
			require.NoError(t, cmd.Run(t.Context(), func(context.Context) error {
				cmd.Override(firebreak.Override{Mode: c.mode})
				return nil
			}))
			_ = cmd.Run(t.Context(), succeed)
			rec.Want(t, "users.get", c.want...)
		})
	}
}

// Shutdown opens a circuit, and no call has done that either, though one opened it once.
func TestEventsOfShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, cmd := newCommand(t, firebreak.Config{})
		rec := firebreaktest.Record(t, reg)
		firebreaktest.Trip(t, reg, "users.get")
		time.Sleep(5 * time.Second)
		require.NoError(t, cmd.Run(t.Context(), func(context.Context) error { return nil }))
		require.NoError(t, reg.Shutdown(t.Context()))
		require.ErrorIs(t, cmd.Run(t.Context(), succeed), firebreak.ErrShutdown)
		rec.Want(t, "users.get", "open", "half_open", "success", "closed", "open", "shutdown")
	})
}

// The calls that a force ends are noted, its coming and going is not; a hand that
// takes its place is.
func TestForceIsNotNoted(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{})
	before := firebreaktest.Force(t, reg, "users.get", firebreak.ErrRejected)
	rec := firebreaktest.Record(t, reg)
	a := firebreaktest.Force(t, reg, "users.get", firebreak.ErrTimeout)
	_ = cmd.Run(t.Context(), succeed, fallBack)
	b := firebreaktest.Force(t, reg, "users.get", errBoom)
	_ = cmd.Run(t.Context(), succeed)
	a()
	b()
	_ = cmd.Run(t.Context(), succeed)
	before()
	_ = cmd.Run(t.Context(), succeed)
	rec.Want(t, "users.get", "timeout", "fallback_success", "failure", "rejected", "success")

	cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
	restore := firebreaktest.Force(t, reg, "users.get", errBoom)
	_ = cmd.Run(t.Context(), succeed)
	restore()
	firebreaktest.Force(t, reg, "users.get", errBoom)
	cmd.Override(firebreak.Override{Mode: firebreak.ForceClosed})
	for range 20 {
		_ = cmd.Run(t.Context(), fail)
	}
	cmd.Override(firebreak.Override{})
	want := append([]string{"timeout", "fallback_success", "failure", "rejected", "success", "open", "failure", "mode force_closed"},
		slices.Repeat([]string{"failure"}, 20)...)
	rec.Want(t, "users.get", append(want, "mode auto")...)
}

// An observer may ask. A transition is known at once, though the outcome that caused
// it will stand before it.
func TestEventsAskedByAnObserver(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{ConsecutiveFailures: 2})
	rec := firebreaktest.Record(t, reg)
	stop := reg.Observe(firebreak.Observer{Transition: func(firebreak.Transition) {
		rec.Want(t, "users.get", "failure", "open")
	}})
	_, _ = cmd.Run(t.Context(), fail), cmd.Run(t.Context(), fail)
	stop()
	rec.Want(t, "users.get", "failure", "failure", "open")
}

func TestRestoreOfAnEarlierForceIsNotNoted(t *testing.T) {
	reg, _ := newCommand(t, firebreak.Config{})
	restore := firebreaktest.Force(t, reg, "users.get", errBoom)
	rec := firebreaktest.Record(t, reg)
	restore()
	rec.Want(t, "users.get")
}

// Failures under Force open the circuit, and that is noted.
func TestOpeningUnderForceIsNoted(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{ConsecutiveFailures: 2})
	rec := firebreaktest.Record(t, reg)
	firebreaktest.Force(t, reg, "users.get", errBoom)
	for range 3 {
		_ = cmd.Run(t.Context(), succeed)
	}
	rec.Want(t, "users.get", "failure", "failure", "open", "failure")
}

func TestRecordBeginsAndEnds(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{})
	_ = cmd.Run(t.Context(), fail)
	var rec *firebreaktest.Recorder
	r := runTest(t, "TestFake", func(t testing.TB) {
		rec = firebreaktest.Record(t, reg)
		_ = cmd.Run(context.Background(), succeed)
		list := rec.Events("users.get")
		list[0] = "changed"
	})
	require.False(t, r.failed, r.text)
	_ = cmd.Run(t.Context(), fail)
	rec.Want(t, "users.get", "success")
}

func TestEventsByCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := firebreaktest.NewRegistry(t, firebreak.Config{})
		dep := reg.Dependency("web", firebreak.Config{})
		rec := firebreaktest.Record(t, reg)
		web := dep.Keyed("web.get", 2, firebreak.Config{}) // made since
		_ = web.Command("a.example").Run(t.Context(), fail)
		_ = web.Command("").Run(t.Context(), succeed)
		_ = dep.Command("web.put", firebreak.Config{}).Run(t.Context(), fail, fallBack)
		rec.Want(t, "web.get[a.example]", "failure")
		rec.Want(t, "web.get[]", "success")
		rec.Want(t, "web.put", "failure", "fallback_success")

		// Those that make way are remembered.
		time.Sleep(time.Minute)
		for _, key := range []string{"c.example", "d.example"} {
			_ = web.Command(key).Run(t.Context(), hang)
		}
		_, there := slices.BinarySearch(slices.Collect(func(yield func(string) bool) {
			for cmd := range reg.Commands() {
				if !yield(cmd.Name()) {
					return
				}
			}
		}), "web.get[a.example]")
		require.False(t, there)
		rec.Want(t, "web.get[a.example]", "failure")
		rec.Want(t, "web.get[]", "success")
		rec.Want(t, "web.get[d.example]", "timeout")
	})
}

// Calls of many goroutines: nothing is lost, and each list stays one that could be.
func TestRecordConcurrently(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{ConsecutiveFailures: 5, SleepWindow: 10 * time.Microsecond})
	rec := firebreaktest.Record(t, reg)
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			for i := range 200 {
				run := succeed
				if i%10 < 6 {
					run = fail
				}
				_ = cmd.Run(t.Context(), run, fallBack)
				rec.Events("users.get")
			}
		})
	}
	calls.Wait()
	counts, state := map[string]uint64{}, "closed"
	for _, e := range rec.Events("users.get") {
		counts[e]++
		switch e {
		case "open":
			require.Contains(t, "closed half_open", state)
			state = e
		case "half_open":
			require.Equal(t, "open", state)
			state = e
		case "closed":
			require.Equal(t, "half_open", state)
			state = e
		}
	}
	total := cmd.Snapshot().Total
	require.EqualValues(t, 1600, total.Calls())
	require.Equal(t, total.Success, counts["success"])
	require.Equal(t, total.Failure, counts["failure"])
	require.Equal(t, total.ShortCircuited, counts["short_circuited"])
	require.Equal(t, total.FallbackSuccess, counts["fallback_success"])
	require.Positive(t, counts["open"])
}

func TestWantShowsWhereTheyPart(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{ConsecutiveFailures: 8})
	rec := firebreaktest.Record(t, reg)
	want := func(events ...string) report {
		return runTest(t, "TestFake", func(t testing.TB) {
			rec.Want(t, "users.get", events...)
			rec.Want(t, "users.get", events...) // it goes on
		})
	}
	require.Equal(t, "firebreaktest: the events of users.get are not as wanted (- wanted, + happened):\n  - success", want("success").lines[0])

	for range 5 {
		_ = cmd.Run(t.Context(), succeed)
	}
	firebreaktest.Force(t, reg, "users.get", firebreak.ErrTimeout)
	for range 9 {
		_ = cmd.Run(t.Context(), succeed, func(context.Context, error) error { return errBoom })
	}
	happened := rec.Events("users.get")
	require.False(t, want(happened...).failed)
	require.Equal(t, `firebreaktest: the events of users.get are not as wanted (- wanted, + happened):
  + success (5 times)
  + timeout
  + fallback_failure
  + timeout
  + fallback_failure
  + timeout
  + fallback_failure
  + timeout
  + fallback_failure
  + timeout
  + fallback_failure
  + timeout
  + fallback_failure
  + timeout
  + fallback_failure
  + timeout
  + open
  + fallback_failure
  + timeout
  + fallback_failure`, want().lines[0])

	other := slices.Clone(happened)
	other[len(other)-3] = "fallback_success"
	other = slices.Insert(other, 5, "half\nopen", "")
	r := want(other...)
	require.Len(t, r.lines, 2)
	require.False(t, r.ended)
	require.Equal(t, `firebreaktest: the events of users.get are not as wanted (- wanted, + happened):
    success (5 times)
  - "half\nopen"
  - ""
    timeout
    fallback_failure
    timeout
    … 10 lines more that agree
    fallback_failure
    timeout
    open
  - fallback_success
  + fallback_failure
    timeout
    fallback_failure`, r.lines[0])
}

// Lists of any length part somewhere; the diff gives back both.
func TestWantOfLongLists(t *testing.T) {
	reg, cmd := newCommand(t, firebreak.Config{Mode: firebreak.ForceClosed})
	rec := firebreaktest.Record(t, reg)
	var want []string
	for i := range 5000 {
		run := succeed
		if i%3 == 0 {
			run = fail
		}
		_ = cmd.Run(t.Context(), run)
		want = append(want, fmt.Sprint("not ", i%7))
	}
	began := time.Now()
	r := runTest(t, "TestFake", func(t testing.TB) { rec.Want(t, "users.get", want...) })
	require.Less(t, time.Since(began), 30*time.Second)
	require.True(t, r.failed)
	require.Equal(t, 5000, strings.Count(r.text, "\n  - "))
	require.Equal(t, 1667, strings.Count(r.text, "\n  + failure"))
}
