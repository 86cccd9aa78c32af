package firebreakprom_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak"
)

const window = 10 * time.Second

func callKey(t testing.TB, k *firebreak.Keyed, key string, run func(context.Context) error) {
	t.Helper()
	_ = k.Command(key).Run(t.Context(), run)
}

// A family is one command: counts of all keys together, its keys in no label, and
// the state says how many are in each.
func TestAFamilyIsOneCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, firebreak.Config{})
		k := p.Dependency("dep", firebreak.Config{}).Keyed("web.get", 10, firebreak.Config{ConsecutiveFailures: 2})
		for _, key := range []string{"", "a.example", "b.example", "b.example", "*"} {
			callKey(t, k, key, succeed)
		}
		callKey(t, k, "down", fail)
		callKey(t, k, "down", fail)
		callKey(t, k, "ailing", fail)
		callKey(t, k, "ailing", succeed)
		callKey(t, k, "ailing", succeed)
		k.Command("a.example").Override(firebreak.Override{Mode: firebreak.ForceOpen})
		k.Command("b.example").Override(firebreak.Override{Mode: firebreak.ForceOpen})

		s := p.scrape(t)
		require.Equal(t, map[string]float64{
			`{command="web.get",dependency="dep",outcome="success"}`: 7,
			`{command="web.get",dependency="dep",outcome="failure"}`: 3,
		}, s.nonzero("firebreak_calls_total"))
		state := func(state string) float64 { return s.of(t, "firebreak_circuit_state", "web.get", "state", state) }
		require.Equal(t, []float64{3, 3, 0}, []float64{state("closed"), state("open"), state("half_open")})
		require.EqualValues(t, 2, s.of(t, "firebreak_circuit_override", "web.get", "kind", "force_open"))
		require.EqualValues(t, 3, s.sum("firebreak_circuit_transitions_total"))
		require.EqualValues(t, 10, s.of(t, "firebreak_run_duration_seconds_count", "web.get"))
		require.EqualValues(t, 1, s.of(t, "firebreak_circuit_error_ratio", "web.get"), "the worst key's")
		require.EqualValues(t, 1, s.of(t, "firebreak_command_info", "web.get", "isolation", "semaphore", "mode", "auto", "keyed", "true"))
		require.EqualValues(t, 100, s.series(t, "firebreak_bulkhead_limit", "dependency", "dep"))
	})
}

// A key with an empty name is a family's all the same.
func TestAnEmptyKey(t *testing.T) {
	p := newPlace(t, firebreak.Config{})
	k := p.Dependency("dep", firebreak.Config{}).Keyed("web.get", 1, firebreak.Config{})
	callKey(t, k, "", succeed)
	require.EqualValues(t, 1, p.scrape(t).of(t, "firebreak_command_info", "web.get", "isolation", "semaphore", "mode", "auto", "keyed", "true"))
}

// When a key makes way for another, no counter falls: what it had counted stays, and
// so does what it counted after it was scraped last.
func TestNoCounterFallsWhenAKeyMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, firebreak.Config{})
		k := p.Dependency("dep", firebreak.Config{}).Keyed("web.get", 1, firebreak.Config{})
		var was scraped
		scrape := func(calls int) {
			t.Helper()
			s := p.scrape(t)
			requireNoneFell(t, was, s)
			require.EqualValues(t, calls, s.sum("firebreak_calls_total"))
			require.EqualValues(t, calls, s.of(t, "firebreak_call_duration_seconds_count", "web.get"))
			require.InDelta(t, float64(calls)/1e3, s.of(t, "firebreak_run_duration_seconds_sum", "web.get"), 1e-9)
			require.EqualValues(t, 1, s.of(t, "firebreak_circuit_state", "web.get", "state", "closed"), "a key that is gone has no circuit")
			was = s
		}
		call := func(key string) {
			callKey(t, k, key, func(context.Context) error {
				time.Sleep(time.Millisecond)
				return nil
			})
		}
		call("a")
		scrape(1)
		call("a") // after the scrape
		time.Sleep(window)
		call("b")
		require.Equal(t, "b", present(p))
		scrape(3)
		for range 5 { // long enough that a is put away
			time.Sleep(window / 2)
			scrape(3)
		}
		time.Sleep(window)
		call("a") // another command of the same key
		require.Equal(t, "a", present(p))
		scrape(4)
		time.Sleep(3 * window)
		scrape(4)
	})
}

// present is the one key that has a command.
func present(p *place) string {
	key := ""
	for cmd := range p.Commands() {
		key = cmd.Snapshot().Key
	}
	return key
}

// Keys come and go for a long time: what is kept of those that are gone has a bound.
func TestKeysThatAreGoneAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 5
		p := newPlace(t, firebreak.Config{})
		k := p.Dependency("dep", firebreak.Config{}).Keyed("web.get", most, firebreak.Config{})
		for i := range 200 {
			callKey(t, k, fmt.Sprint(i), succeed)
			time.Sleep(window)
			p.scrape(t)
			require.LessOrEqual(t, p.collector.Keys("web.get"), 3*most)
		}
		require.EqualValues(t, 200, p.scrape(t).sum("firebreak_calls_total"))
	})
}

// Whatever keys do, as long as a window is not longer than it takes to scrape again,
// every call is counted at every scrape and no counter falls.
func TestEveryCallOfAFamilyIsCounted(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPlace(t, firebreak.Config{})
			k := p.Dependency("dep", firebreak.Config{}).Keyed("web.get", rapid.IntRange(1, 3).Draw(r, "most"), firebreak.Config{})
			calls, was, at := 0, scraped{}, time.Now()
			handles := []*firebreak.Command{k.Command("0")}
			scrape := func() {
				s := p.scrape(t)
				require.EqualValues(t, calls, s.sum("firebreak_calls_total"))
				requireNoneFell(t, was, s)
				was, at = s, time.Now()
			}
			scrape()
			for range rapid.IntRange(1, 60).Draw(r, "steps") {
				switch rapid.IntRange(0, 3).Draw(r, "what") {
				case 0:
					cmd := k.Command(fmt.Sprint(rapid.IntRange(0, 5).Draw(r, "key")))
					handles = append(handles, cmd)
					_ = cmd.Run(t.Context(), succeed)
					calls++
				case 1: // a handle that was kept
					_ = rapid.SampledFrom(handles).Draw(r, "handle").Run(t.Context(), fail)
					calls++
				case 2:
					d := time.Duration(rapid.Int64Range(0, int64(window)).Draw(r, "sleep"))
					if left := window - time.Since(at); d > left {
						d = left
					}
					time.Sleep(d)
					if time.Since(at) == window {
						scrape()
					}
				case 3:
					scrape()
				}
			}
			scrape()
		})
	})
}
