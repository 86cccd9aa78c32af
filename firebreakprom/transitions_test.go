package firebreakprom_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakprom/internal/metric"
)

// Each cause that there can be, brought about.
func TestTransitionsByCause(t *testing.T) {
	type step = func(t *testing.T, p *place, cmd *firebreak.Command)
	call := func(run func(context.Context) error) step {
		return func(t *testing.T, _ *place, cmd *firebreak.Command) {
			t.Helper()
			_ = cmd.Run(t.Context(), run)
		}
	}
	failing, succeeding := call(fail), call(succeed)
	sleep := func(*testing.T, *place, *firebreak.Command) { time.Sleep(5 * time.Second) }
	override := func(m firebreak.Mode) step {
		return func(_ *testing.T, _ *place, cmd *firebreak.Command) { cmd.Override(firebreak.Override{Mode: m}) }
	}
	configured := func(m firebreak.Mode) step {
		return func(t *testing.T, p *place, cmd *firebreak.Command) {
			t.Helper()
			require.NoError(t, p.Update(firebreak.Document{Commands: map[string]firebreak.Config{cmd.Name(): {Mode: m}}}))
		}
	}
	shutdown := func(t *testing.T, p *place, _ *firebreak.Command) {
		t.Helper()
		require.NoError(t, p.Shutdown(t.Context()))
	}
	// probing has the circuit half-open while the steps are taken.
	probing := func(steps ...step) step {
		return func(t *testing.T, p *place, cmd *firebreak.Command) {
			t.Helper()
			release := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() { _ = cmd.Run(t.Context(), hang(release)) })
			synctest.Wait()
			require.Equal(t, firebreak.StateHalfOpen, cmd.Snapshot().State)
			go func() { // Shutdown waits for the probe
				time.Sleep(time.Millisecond)
				close(release)
			}()
			for _, s := range steps {
				s(t, p, cmd)
			}
			wg.Wait()
		}
	}
	one := firebreak.Config{ConsecutiveFailures: 1}
	const (
		tripped = "closed open consecutive_failures"
		slept   = "open half_open sleep_window"
		mended  = "half_open closed probe"
	)
	tests := []struct {
		name   string
		config firebreak.Config
		steps  []step
		want   []string
	}{
		{"error percentage", firebreak.Config{RequestVolumeThreshold: 1}, []step{failing}, []string{"closed open error_percentage"}},
		{"slow calls", firebreak.Config{
			RequestVolumeThreshold: 1, ErrorThresholdPercentage: firebreak.Off, SlowCallDuration: time.Millisecond,
		}, []step{call(func(context.Context) error {
			time.Sleep(time.Second / 2)
			return nil
		})}, []string{"closed open slow_calls"}},
		{"consecutive failures", one, []step{failing}, []string{tripped}},
		{
			"evidence", firebreak.Config{Evidence: firebreak.On},
			[]step{failing, failing, failing, failing, failing, failing},
			[]string{"closed open evidence"},
		},
		{"a probe succeeds", one, []step{failing, sleep, succeeding}, []string{tripped, slept, mended}},
		{"a probe fails", one, []step{failing, sleep, failing}, []string{tripped, slept, "half_open open probe"}},
		{"forced open and lifted", one, []step{override(firebreak.ForceOpen), override(0)}, []string{"closed open mode", "open closed mode"}},
		{"forced open by the settings", one, []step{configured(firebreak.ForceOpen), configured(firebreak.Auto)}, []string{"closed open mode", "open closed mode"}},
		{
			"forced open after a trip", one,
			[]step{failing, sleep, succeeding, override(firebreak.ForceOpen)},
			[]string{tripped, slept, mended, "closed open mode"},
		},
		{"forced closed while open", one, []step{failing, override(firebreak.ForceClosed)}, []string{tripped, "open closed mode"}},
		{
			"forced open while half-open", one,
			[]step{failing, sleep, probing(override(firebreak.ForceOpen))},
			[]string{tripped, slept, "half_open open mode"},
		},
		{
			"forced closed while half-open", one,
			[]step{failing, sleep, probing(override(firebreak.ForceClosed))},
			[]string{tripped, slept, "half_open closed mode"},
		},
		{"forced open while open is none", one, []step{failing, override(firebreak.ForceOpen)}, []string{tripped}},
		{"forced closed while closed is none", one, []step{override(firebreak.ForceClosed), override(0)}, nil},
		{"shutdown", one, []step{shutdown}, []string{"closed open shutdown"}},
		{"shutdown after a trip", one, []step{failing, sleep, succeeding, shutdown}, []string{tripped, slept, mended, "closed open shutdown"}},
		{"shutdown while open is none", one, []step{failing, shutdown}, []string{tripped}},
		{"shutdown while half-open", one, []step{failing, sleep, probing(shutdown)}, []string{tripped, slept, "half_open open shutdown"}},
		{
			"in shadow as in earnest", firebreak.Config{ConsecutiveFailures: 1, Mode: firebreak.Shadow},
			[]step{failing, sleep, succeeding},
			[]string{tripped, slept, mended},
		},
	}
	seen := map[string]bool{}
	for _, tt := range tests {
		for _, w := range tt.want {
			seen[w] = true
		}
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlace(t, firebreak.Config{})
				cmd := p.Command("dep", tt.config)
				for _, s := range tt.steps {
					s(t, p, cmd)
				}
				synctest.Wait()
				want := map[string]float64{}
				for _, w := range tt.want {
					f := strings.Fields(w)
					want[labels(nil, "from", f[0], "to", f[1], "cause", f[2], "dependency", "dep", "command", "dep")]++
				}
				require.Equal(t, want, p.scrape(t).nonzero("firebreak_circuit_transitions_total"))
			})
		})
	}
	for _, s := range metric.CircuitTransitions.Series {
		if s[2] != metric.Other {
			require.True(t, seen[strings.Join(s, " ")], "nothing brings about %v", s)
		}
	}
}

// Calls tell of transitions from many goroutines, and none is lost.
func TestNoTransitionIsLost(t *testing.T) {
	const commands, each = 8, 200
	p := newPlace(t, firebreak.Config{})
	var wg sync.WaitGroup
	for i := range commands {
		cmd := p.Command(string(rune('a'+i)), firebreak.Config{})
		for range 2 {
			wg.Go(func() {
				for range each {
					cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
					cmd.Override(firebreak.Override{})
				}
			})
		}
		wg.Go(func() { p.scrape(t) })
	}
	wg.Wait()
	s := p.scrape(t)
	opened, closed := 0.0, 0.0
	for name, n := range s.nonzero("firebreak_circuit_transitions_total") {
		if strings.Contains(name, `to="open"`) {
			opened += n
		} else {
			closed += n
		}
	}
	require.Equal(t, opened, closed, "all are closed again")
	require.LessOrEqual(t, opened, float64(commands*each*2))
	require.GreaterOrEqual(t, opened, float64(commands*each), "one of two at least found it closed")
}
