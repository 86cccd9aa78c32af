package firebreakprom_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakprom"
	"github.com/firebreak-go/firebreak/firebreakprom/internal/metric"
)

var (
	errMissing = errors.New("missing")
	errNoise   = errors.New("noise")
)

var update = flag.Bool("update", false, "write testdata/ anew")

// A day of a small service, with every outcome in it, as Prometheus reads it.
func TestExposition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, firebreak.Config{})
		everyOutcome(t, p)
		const golden = "testdata/exposition.txt"
		if *update {
			require.NoError(t, os.WriteFile(golden, []byte(text(t, p.scraper)), 0o600))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.Equal(t, string(want), text(t, p.scraper), "go test -update writes it anew")
	})
}

// everyOutcome makes every outcome but gave_up's siblings happen in p once or more.
func everyOutcome(t *testing.T, p *place) *firebreak.Command {
	t.Helper()
	dep := p.Dependency("dep", firebreak.Config{MaxConcurrent: 1})
	cmd := dep.Command("dep.get", firebreak.Config{
		ErrorThresholdPercentage: firebreak.Off, MaxFallbacks: 1,
		Classify: func(err error) firebreak.Verdict {
			switch {
			case errors.Is(err, errMissing):
				return firebreak.Expected
			case errors.Is(err, errNoise):
				return firebreak.Ignored
			}
			return firebreak.Failure
		},
	})
	ctx := t.Context()
	after := func(d time.Duration, err error) func(context.Context) error {
		return func(context.Context) error {
			time.Sleep(d)
			return err
		}
	}
	heed := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	fallback := func(err error) func(context.Context, error) error {
		return func(context.Context, error) error { return err }
	}

	for range 3 {
		require.NoError(t, cmd.Run(ctx, after(3*time.Millisecond, nil)))
	}
	require.ErrorIs(t, cmd.Run(ctx, after(0, errMissing)), errMissing)
	require.ErrorIs(t, cmd.Run(ctx, after(0, errNoise)), errNoise)
	require.ErrorIs(t, cmd.Run(ctx, fail), errBoom)
	require.NoError(t, cmd.Run(ctx, fail, fallback(nil)))
	require.ErrorIs(t, cmd.Run(ctx, fail, fallback(errNoise)), errNoise)
	require.ErrorIs(t, cmd.Run(ctx, heed), firebreak.ErrTimeout)
	require.NoError(t, cmd.Run(ctx, after(1500*time.Millisecond, nil)), "late, and delivered")
	require.Panics(t, func() { _ = cmd.Run(ctx, func(context.Context) error { panic("boom") }) })

	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, cmd.Run(short, heed), context.DeadlineExceeded)
	require.ErrorIs(t, cmd.Run(short, succeed), context.DeadlineExceeded, "gave up")
	gone, leave := context.WithCancel(ctx)
	time.AfterFunc(100*time.Millisecond, leave)
	require.ErrorIs(t, cmd.Run(gone, heed), context.Canceled)

	compose(ctx, cmd)

	// While one is in: another is rejected, and of those two fallbacks one is.
	release := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { _ = cmd.Run(ctx, after(500*time.Millisecond, nil)) })
	synctest.Wait()
	wg.Go(func() {
		_ = cmd.Run(ctx, succeed, func(context.Context, error) error {
			<-release
			return nil
		})
	})
	synctest.Wait()
	require.ErrorIs(t, cmd.Run(ctx, succeed, fallback(nil)), firebreak.ErrFallbackRejected)
	close(release)
	wg.Wait()

	cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
	require.ErrorIs(t, cmd.Run(ctx, succeed), firebreak.ErrOpen)
	cmd.Override(firebreak.Override{})
	return cmd
}

// calls_total is Snapshot.Total, word by word.
func TestCallsAreTheOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, firebreak.Config{})
		cmd := everyOutcome(t, p)
		require.NoError(t, p.Shutdown(t.Context()))
		require.ErrorIs(t, cmd.Run(t.Context(), succeed), firebreak.ErrShutdown)

		s, c := p.scrape(t), cmd.Snapshot().Total
		want := map[string]uint64{
			"success": c.Success, "expected": c.Expected, "ignored": c.Ignored, "failure": c.Failure, "timeout": c.Timeout,
			"panic": c.Panic, "canceled": c.Canceled, "caller_deadline": c.CallerDeadline, "rejected": c.Rejected,
			"short_circuited": c.ShortCircuited, "shutdown": c.Shutdown, "gave_up": c.GaveUp,
		}
		require.Len(t, want, len(metric.Outcomes()))
		for outcome, n := range want {
			assert.Positive(t, n, outcome)
			assert.EqualValues(t, n, s.of(t, "firebreak_calls_total", "dep.get", "outcome", outcome), outcome)
		}
		assert.EqualValues(t, c.Calls(), s.sum("firebreak_calls_total"))

		refused := func(reason, mode string) float64 {
			return s.of(t, "firebreak_rejections_total", "dep.get", "reason", reason, "mode", mode)
		}
		assert.EqualValues(t, c.ShortCircuited, refused("circuit", "enforced"))
		assert.EqualValues(t, c.Rejected, refused("bulkhead", "enforced"))
		assert.EqualValues(t, c.Shutdown, refused("shutdown", "enforced"))
		assert.EqualValues(t, c.FallbackRejected, refused("fallback", "enforced"))
		assert.Positive(t, c.FallbackRejected)

		for result, n := range map[string]uint64{
			"success": c.FallbackSuccess, "failure": c.FallbackFailure, "rejected": c.FallbackRejected, "missing": c.FallbackMissing,
		} {
			assert.Positive(t, n, result)
			assert.EqualValues(t, n, s.of(t, "firebreak_fallbacks_total", "dep.get", "result", result), result)
		}
		assert.EqualValues(t, 1, s.of(t, "firebreak_overruns_total", "dep.get"))
		assert.EqualValues(t, c.Executed(), s.of(t, "firebreak_run_duration_seconds_count", "dep.get"))
		assert.EqualValues(t, c.Executed(), s.of(t, "firebreak_call_duration_seconds_count", "dep.get"))
	})
}

func TestShadowRefusals(t *testing.T) {
	p := newPlace(t, firebreak.Config{ConsecutiveFailures: 1, Mode: firebreak.Shadow})
	cmd := p.Command("dep", firebreak.Config{})
	for range 3 {
		_ = cmd.Run(t.Context(), fail)
	}
	s := p.scrape(t)
	require.Equal(t, map[string]float64{`{command="dep",dependency="dep",mode="shadow",reason="circuit"}`: 2}, s.nonzero("firebreak_rejections_total"))
	require.EqualValues(t, 3, s.of(t, "firebreak_calls_total", "dep", "outcome", "failure"))
}

func TestObserverPanics(t *testing.T) {
	p := newPlace(t, firebreak.Config{})
	defer p.Observe(firebreak.Observer{Call: func(context.Context, firebreak.CallEvent) { panic("observer") }})()
	require.NoError(t, p.Command("dep", firebreak.Config{}).Run(t.Context(), succeed))
	require.EqualValues(t, 1, p.scrape(t).of(t, "firebreak_observer_panics_total", "dep"))
}

// Every series that can ever be is there before the first call, at 0, and no other.
func TestEverySeriesFromTheBeginning(t *testing.T) {
	p := newPlace(t, firebreak.Config{})
	p.Command("dep", firebreak.Config{})
	first := p.scrape(t)
	for _, m := range metric.All() {
		found := 0
		for _, values := range m.Series {
			pairs := []string{"dependency", "dep"}
			if m.Of == metric.OfCommand {
				pairs = append(pairs, "command", "dep")
			}
			for i, v := range values {
				pairs = append(pairs, m.Labels[i], v)
			}
			name := m.Name
			if m.Kind == metric.Histogram {
				name += "_count"
			}
			if _, ok := first[name+labels(nil, pairs...)]; ok {
				found++
				if m.Kind != metric.Gauge {
					assert.Zero(t, first[name+labels(nil, pairs...)])
				}
			}
		}
		if m.Sparse {
			assert.Equal(t, 1, found, m.Name)
			continue
		}
		assert.Len(t, m.Series, found, m.Name)
	}
	for range 100 {
		_ = p.Command("dep", firebreak.Config{}).Run(t.Context(), fail)
	}
	require.Len(t, p.scrape(t), len(first), "nothing appears later")
}

func TestNamesAreAsPrometheusWantsThem(t *testing.T) {
	p := newPlace(t, firebreak.Config{})
	p.Command("dep", firebreak.Config{})
	problems, err := testutil.GatherAndLint(p.scraper)
	require.NoError(t, err)
	require.Empty(t, problems)

	promtool := tool(t, "promtool")
	check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	check.Stdin = strings.NewReader(text(t, p.scraper))
	out, err := check.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out))
}

func text(t testing.TB, from prometheus.Gatherer) string {
	t.Helper()
	families, err := from.Gather()
	require.NoError(t, err)
	var b strings.Builder
	for _, f := range families {
		_, err := expfmt.MetricFamilyToText(&b, f)
		require.NoError(t, err)
	}
	return b.String()
}

func TestSettings(t *testing.T) {
	p := newPlace(t, firebreak.Config{})
	dep := p.Dependency("dep", firebreak.Config{MaxConcurrent: 7, MaxWait: time.Second, QueueSize: 3})
	dep.Command("said", firebreak.Config{
		Timeout: 250 * time.Millisecond, ErrorThresholdPercentage: 12.5, RequestVolumeThreshold: 5, SleepWindow: 2 * time.Second, MaxFallbacks: 4,
	})
	p.Command("default", firebreak.Config{})
	p.Command("off", firebreak.Config{
		Isolation: firebreak.PoolIsolation, MaxConcurrent: firebreak.Unlimited, Timeout: firebreak.Off,
		ErrorThresholdPercentage: firebreak.Off, MaxFallbacks: firebreak.Unlimited, Mode: firebreak.Shadow,
	})
	p.Command("none", firebreak.Config{MaxFallbacks: firebreak.Off})

	s := p.scrape(t)
	assert.Equal(t, 0.25, s.of(t, "firebreak_timeout_seconds", "said"))
	assert.Equal(t, 0.125, s.of(t, "firebreak_circuit_error_threshold_ratio", "said"))
	assert.Equal(t, 5.0, s.of(t, "firebreak_circuit_request_volume_threshold", "said"))
	assert.Equal(t, 2.0, s.of(t, "firebreak_circuit_sleep_window_seconds", "said"))
	assert.Equal(t, 4.0, s.of(t, "firebreak_fallback_limit", "said"))
	assert.Equal(t, 7.0, s.series(t, "firebreak_bulkhead_limit", "dependency", "dep"))
	assert.Equal(t, 3.0, s.series(t, "firebreak_bulkhead_queue_limit", "dependency", "dep"))
	assert.Equal(t, 0.0, s.series(t, "firebreak_bulkhead_queue_limit", "dependency", "default"))

	off := []string{"dependency", "off", "command", "off"}
	assert.True(t, math.IsInf(s.series(t, "firebreak_timeout_seconds", off...), 1))
	assert.True(t, math.IsInf(s.series(t, "firebreak_fallback_limit", off...), 1))
	assert.True(t, math.IsInf(s.series(t, "firebreak_bulkhead_limit", "dependency", "off"), 1))
	assert.NotContains(t, s, "firebreak_circuit_error_threshold_ratio"+labels(nil, off...))
	assert.Equal(t, 0.0, s.series(t, "firebreak_fallback_limit", "dependency", "none", "command", "none"))

	assert.Equal(t, map[string]float64{
		`{command="default",dependency="default",isolation="semaphore",keyed="false",mode="auto"}`: 1,
		`{command="none",dependency="none",isolation="semaphore",keyed="false",mode="auto"}`:       1,
		`{command="off",dependency="off",isolation="pool",keyed="false",mode="shadow"}`:            1,
		`{command="said",dependency="dep",isolation="semaphore",keyed="false",mode="auto"}`:        1,
	}, s.nonzero("firebreak_command_info"))

	require.NoError(t, p.Update(firebreak.Document{
		Dependencies: map[string]firebreak.Config{"dep": {MaxConcurrent: 9}},
		Commands:     map[string]firebreak.Config{"said": {Timeout: 300 * time.Millisecond, Mode: firebreak.ForceClosed}},
	}))
	s = p.scrape(t)
	assert.Equal(t, 0.3, s.of(t, "firebreak_timeout_seconds", "said"))
	assert.Equal(t, 9.0, s.series(t, "firebreak_bulkhead_limit", "dependency", "dep"))
	assert.Equal(t, 1.0, s.of(t, "firebreak_command_info", "said", "isolation", "semaphore", "keyed", "false", "mode", "force_closed"))
	assert.NotContains(t, s, `firebreak_command_info{command="said",dependency="dep",isolation="semaphore",keyed="false",mode="auto"}`)
}

func TestOverrides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, firebreak.Config{})
		cmd := p.Command("dep", firebreak.Config{})
		inForce := func() map[string]float64 {
			kinds := map[string]float64{}
			for name, v := range p.scrape(t).nonzero("firebreak_circuit_override") {
				kinds[strings.TrimSuffix(strings.TrimPrefix(name, `{command="dep",dependency="dep",kind="`), `"}`)] = v
			}
			return kinds
		}
		for mode, want := range map[firebreak.Mode]string{
			firebreak.Auto: "auto", firebreak.ForceOpen: "force_open", firebreak.ForceClosed: "force_closed", firebreak.Shadow: "shadow",
		} {
			cmd.Override(firebreak.Override{Mode: mode})
			require.Equal(t, map[string]float64{want: 1}, inForce())
		}
		cmd.Override(firebreak.Override{Mode: firebreak.Shadow, Inject: func(context.Context) error { return nil }, Until: time.Now().Add(time.Minute)})
		require.Equal(t, map[string]float64{"shadow": 1, "inject": 1}, inForce())
		time.Sleep(time.Minute)
		require.Empty(t, inForce(), "it has lifted itself")
	})
}

func TestGauges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, firebreak.Config{})
		dep := p.Dependency("dep", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 2, QueueSize: 1})
		a, b := dep.Command("a", firebreak.Config{}), dep.Command("b", firebreak.Config{})
		release, answer := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = a.Run(t.Context(), hang(release), func(context.Context, error) error {
				<-answer
				return nil
			})
		})
		wg.Go(func() { _ = b.Run(t.Context(), hang(release)) })
		synctest.Wait()
		wg.Go(func() { _ = b.Run(t.Context(), hang(release)) })
		synctest.Wait()

		bulkhead := func(s scraped, what string) float64 {
			return s.series(t, "firebreak_bulkhead_"+what, "dependency", "dep")
		}
		s := p.scrape(t)
		assert.Equal(t, 1.0, s.of(t, "firebreak_in_flight", "a"))
		assert.Equal(t, 1.0, s.of(t, "firebreak_in_flight", "b"))
		assert.Equal(t, 2.0, bulkhead(s, "in_flight"))
		assert.Equal(t, 1.0, bulkhead(s, "queued"))
		assert.Zero(t, bulkhead(s, "abandoned"))

		time.Sleep(time.Second) // the callers leave; the queued one is rejected
		synctest.Wait()
		s = p.scrape(t)
		assert.Equal(t, 1.0, s.of(t, "firebreak_fallbacks_in_flight", "a"))
		assert.Zero(t, s.of(t, "firebreak_fallbacks_in_flight", "b"))
		assert.Equal(t, 2.0, bulkhead(s, "in_flight"))
		assert.Equal(t, 2.0, bulkhead(s, "abandoned"))
		assert.Zero(t, bulkhead(s, "queued"))

		close(release)
		close(answer)
		wg.Wait()
		synctest.Wait()
		s = p.scrape(t)
		assert.Zero(t, bulkhead(s, "in_flight"))
		assert.Zero(t, bulkhead(s, "abandoned"))
		assert.Equal(t, 2.0, bulkhead(s, "in_flight_peak"), "the window still has it")
		time.Sleep(time.Minute)
		assert.Zero(t, bulkhead(p.scrape(t), "in_flight_peak"))
	})
}

func TestErrorRatio(t *testing.T) {
	p := newPlace(t, firebreak.Config{})
	cmd := p.Command("dep", firebreak.Config{})
	require.Zero(t, p.scrape(t).of(t, "firebreak_circuit_error_ratio", "dep"))
	_ = cmd.Run(t.Context(), fail)
	for range 3 {
		_ = cmd.Run(t.Context(), succeed)
	}
	require.Equal(t, 0.25, p.scrape(t).of(t, "firebreak_circuit_error_ratio", "dep"))
}

// Once is enough: twice is an error, and so is another for the same labels.
func TestRegisteringTwiceIsAnError(t *testing.T) {
	p := newPlace(t, firebreak.Config{})
	p.Command("dep", firebreak.Config{})
	require.ErrorAs(t, p.scraper.Register(p.collector), &prometheus.AlreadyRegisteredError{})

	again := firebreakprom.NewCollector(p.Registry, firebreakprom.Options{})
	defer again.Close()
	require.Error(t, p.scraper.Register(again))

	other := firebreakprom.NewCollector(firebreak.NewRegistry(firebreak.Config{}), firebreakprom.Options{})
	defer other.Close()
	require.Error(t, p.scraper.Register(other))
	p.scrape(t)

	require.True(t, p.scraper.Unregister(p.collector))
	require.NoError(t, p.scraper.Register(again))
}

func TestTwoRegistriesSideBySide(t *testing.T) {
	scraper := prometheus.NewPedanticRegistry()
	for _, tier := range []string{"front", "back"} {
		reg := firebreak.NewRegistry(firebreak.Config{})
		constant := prometheus.Labels{"tier": tier}
		c := firebreakprom.NewCollector(reg, firebreakprom.Options{ConstLabels: constant})
		defer c.Close()
		constant["tier"] = "changed afterwards"
		require.NoError(t, scraper.Register(c))
		cmd := reg.Command("dep", firebreak.Config{}) // the same names in both
		for range len(tier) {
			require.NoError(t, cmd.Run(t.Context(), succeed))
		}
	}
	s := scrapeOf(t, scraper)
	require.EqualValues(t, 5, s.of(t, "firebreak_calls_total", "dep", "outcome", "success", "tier", "front"))
	require.EqualValues(t, 4, s.of(t, "firebreak_calls_total", "dep", "outcome", "success", "tier", "back"))
	require.EqualValues(t, 100, s.series(t, "firebreak_bulkhead_limit", "dependency", "dep", "tier", "back"))
}

// Labels that Prometheus refuses, or that a metric has, are an error of Register;
// nothing panics, whatever is done with the collector all the same.
func TestBadConstLabels(t *testing.T) {
	for _, bad := range []prometheus.Labels{
		{"": "x"}, {"__reserved": "x"}, {"tier": "\xff"}, {"command": "x"}, {"outcome": "x"}, {"dependency": "x"},
	} {
		reg := firebreak.NewRegistry(firebreak.Config{})
		reg.Command("dep", firebreak.Config{})
		c := firebreakprom.NewCollector(reg, firebreakprom.Options{ConstLabels: bad})
		require.Error(t, prometheus.NewRegistry().Register(c), "%v", bad)
		metrics := make(chan prometheus.Metric, 1000)
		require.NotPanics(t, func() { c.Collect(metrics) })
		c.Close()
	}
}

// Whoever wraps a registerer adds labels to each metric of each scrape, and must
// not find those of the last one there.
func TestWrapped(t *testing.T) {
	reg := firebreak.NewRegistry(firebreak.Config{})
	c := firebreakprom.NewCollector(reg, firebreakprom.Options{})
	defer c.Close()
	scraper := prometheus.NewPedanticRegistry()
	require.NoError(t, prometheus.WrapRegistererWith(prometheus.Labels{"zone": "a", "app": "shop"}, scraper).Register(c))
	cmd := reg.Command("dep", firebreak.Config{})
	require.NoError(t, cmd.Run(t.Context(), succeed))
	first := scrapeOf(t, scraper)
	require.EqualValues(t, 1, first.of(t, "firebreak_calls_total", "dep", "outcome", "success", "app", "shop", "zone", "a"))
	require.Equal(t, first.nonzero("firebreak_calls_total"), scrapeOf(t, scraper).nonzero("firebreak_calls_total"))
}

// Names are the user's, and none costs the others their scrape.
func TestHostileNames(t *testing.T) {
	names := []string{
		"\xff", "\xfe", `"\xff"`, "a\x00b", "line\nbreak", `back\slash`, `quo"te`, `"quoted"`, "{}", "a[b]", "*", " ", "日本語", "\u202e", "\ufffd",
		"a\xffb", strings.Repeat("long", 1000), "command", "__name__", "le",
	}
	p := newPlace(t, firebreak.Config{})
	for i, name := range names {
		cmd := p.Command(name, firebreak.Config{})
		for range i + 1 {
			require.NoError(t, cmd.Run(t.Context(), succeed))
		}
	}
	k := p.Dependency("keyed\xff", firebreak.Config{}).Keyed("keyed\xff", 10, firebreak.Config{})
	require.NoError(t, k.Command("\xff\xfe").Run(t.Context(), succeed))

	parsed := expfmt.NewDecoder(strings.NewReader(text(t, p.scraper)), expfmt.NewFormat(expfmt.TypeTextPlain))
	calls := map[string]float64{}
	for {
		var f dto.MetricFamily
		if err := parsed.Decode(&f); err != nil {
			require.ErrorIs(t, err, io.EOF)
			break
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "firebreak_calls_total" && l.GetName() == "command" {
					calls[l.GetValue()] += m.GetCounter().GetValue()
				}
			}
		}
	}
	require.Len(t, calls, len(names)+1, "no two share a label")
	require.Equal(t, 1.0, calls[`"\xff"`])
	require.Equal(t, 3.0, calls[`"\"\\xff\""`])
	require.Equal(t, 13.0, calls["日本語"])
	require.Equal(t, 1.0, calls[`"keyed\xff"`])
}

func TestANilRegistryPanics(t *testing.T) {
	require.PanicsWithValue(t, "firebreakprom: a registry is needed", func() { firebreakprom.NewCollector(nil, firebreakprom.Options{}) })
}

func TestAnEmptyRegistry(t *testing.T) {
	p := newPlace(t, firebreak.Config{})
	p.Dependency("dep", firebreak.Config{})
	require.Empty(t, p.scrape(t))
}

// After Close all but the transitions goes on.
func TestClose(t *testing.T) {
	p := newPlace(t, firebreak.Config{ConsecutiveFailures: 1, SleepWindow: time.Hour})
	a, b := p.Command("a", firebreak.Config{}), p.Command("b", firebreak.Config{})
	_ = a.Run(t.Context(), fail)
	p.collector.Close()
	p.collector.Close()
	_ = b.Run(t.Context(), fail)
	s := p.scrape(t)
	require.EqualValues(t, 1, s.sum("firebreak_circuit_transitions_total"))
	require.EqualValues(t, 2, s.sum("firebreak_calls_total"))
	for _, name := range []string{"a", "b"} {
		require.EqualValues(t, 1, s.series(t, "firebreak_circuit_state", "dependency", name, "command", name, "state", "open"))
	}
}

// Whoever takes the metrics may be slow: it holds up nobody else.
func TestASlowScrapeHoldsNobodyUp(t *testing.T) {
	p := newPlace(t, firebreak.Config{ConsecutiveFailures: 1})
	cmd := p.Command("dep", firebreak.Config{})
	slow := make(chan prometheus.Metric)
	var wg sync.WaitGroup
	wg.Go(func() {
		p.collector.Collect(slow)
		close(slow)
	})
	<-slow
	_ = cmd.Run(t.Context(), fail)
	_ = p.Command("new", firebreak.Config{}).Run(t.Context(), fail)
	require.EqualValues(t, 2, p.scrape(t).sum("firebreak_circuit_transitions_total"))
	sum := 0
	for range slow {
		sum++
	}
	require.Positive(t, sum)
	wg.Wait()
}

// What a scrape of a busy service says fits together: no share exceeds its total,
// and nothing that counts ever falls.
func TestConsistentUnderLoad(t *testing.T) {
	const callers, calls = 8, 1500
	p := newPlace(t, firebreak.Config{SleepWindow: time.Millisecond, Timeout: time.Minute})
	dep := p.Dependency("dep", firebreak.Config{MaxConcurrent: callers / 2})
	commands := []*firebreak.Command{dep.Command("a", firebreak.Config{MaxFallbacks: 1}), dep.Command("b", firebreak.Config{})}
	k := dep.Keyed("k", 3, firebreak.Config{Window: time.Millisecond})
	k.Command("0") // a family is seen with its first key

	done := make(chan struct{})
	var load, readers sync.WaitGroup
	for i := range callers {
		load.Go(func() {
			for n := range calls {
				cmd := commands[n%2]
				if n%3 == 0 {
					cmd = k.Command(fmt.Sprint(n % 7))
				}
				run := succeed
				if (n/50+i)%2 == 0 {
					run = fail
				}
				var fallback func(context.Context, error) error
				if n%2 == 0 {
					fallback = func(context.Context, error) error { return errNoise }
				}
				_ = cmd.Run(t.Context(), run, fallback)
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			was := scraped{}
			for {
				s := p.scrape(t)
				assertConsistent(t, s, "a", "b", "k")
				requireNoneFell(t, was, s)
				was = s
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	load.Wait()
	close(done)
	readers.Wait()
	s := p.scrape(t)
	assertConsistent(t, s, "a", "b", "k")
	for _, cmd := range commands {
		c := cmd.Snapshot().Total
		assert.EqualValues(t, c.Executed(), s.of(t, "firebreak_run_duration_seconds_count", cmd.Name()))
		assert.EqualValues(t, c.FallbackRejected, s.of(t, "firebreak_rejections_total", cmd.Name(), "reason", "fallback", "mode", "enforced"))
	}
	sum := 0.0
	for _, cmd := range commands {
		for _, o := range metric.Outcomes() {
			sum += s.of(t, "firebreak_calls_total", cmd.Name(), "outcome", o)
		}
	}
	assert.EqualValues(t, callers*calls*2/3, sum)
}

// assertConsistent checks what must hold in every scrape.
func assertConsistent(t *testing.T, s scraped, commands ...string) {
	t.Helper()
	outcome := func(cmd string, outcomes ...string) (n float64) {
		for _, o := range outcomes {
			n += s.of(t, "firebreak_calls_total", cmd, "outcome", o)
		}
		return n
	}
	running := 0.0
	for _, cmd := range commands {
		executed := outcome(cmd, metric.Outcomes()[:8]...)
		for _, h := range []string{"firebreak_run_duration_seconds", "firebreak_call_duration_seconds"} {
			count := s.of(t, h+"_count", cmd)
			assert.LessOrEqual(t, count, executed, "%s of %s", h, cmd)
			last := 0.0
			for le := time.Duration(1 << 19); le <= 1<<34; le *= 2 {
				in := s.of(t, h+"_bucket", cmd, "le", fmt.Sprint(le.Seconds()))
				assert.GreaterOrEqual(t, in, last, "%s up to %v", h, le)
				last = in
			}
			assert.LessOrEqual(t, last, count)
		}
		fallbacks := 0.0
		for _, r := range []string{"success", "failure", "rejected", "missing"} {
			fallbacks += s.of(t, "firebreak_fallbacks_total", cmd, "result", r)
		}
		assert.LessOrEqual(t, fallbacks, outcome(cmd, "failure", "timeout", "panic", "rejected", "short_circuited", "shutdown"), cmd)
		assert.Equal(t, outcome(cmd, "short_circuited"), s.of(t, "firebreak_rejections_total", cmd, "reason", "circuit", "mode", "enforced"))
		assert.Equal(t, outcome(cmd, "rejected"), s.of(t, "firebreak_rejections_total", cmd, "reason", "bulkhead", "mode", "enforced"))
		ratio := s.of(t, "firebreak_circuit_error_ratio", cmd)
		assert.True(t, ratio >= 0 && ratio <= 1, ratio)
		running += s.of(t, "firebreak_in_flight", cmd)
	}
	out := s.series(t, "firebreak_bulkhead_in_flight", "dependency", "dep")
	assert.LessOrEqual(t, running, out, "in flight of the commands, and of their dependency")
	assert.LessOrEqual(t, out, s.series(t, "firebreak_bulkhead_in_flight_peak", "dependency", "dep"))
	assert.LessOrEqual(t, s.series(t, "firebreak_bulkhead_abandoned", "dependency", "dep"), out)
	assert.LessOrEqual(t, out, s.series(t, "firebreak_bulkhead_limit", "dependency", "dep"))
}

// Commands may be made, and documents applied, while it scrapes.
func TestCommandsComeWhileItScrapes(t *testing.T) {
	const makers, each = 4, 20
	p := newPlace(t, firebreak.Config{})
	var wg sync.WaitGroup
	for i := range makers {
		wg.Go(func() {
			for n := range each {
				_ = p.Command(fmt.Sprintf("%d.%d", i, n), firebreak.Config{}).Run(t.Context(), succeed)
			}
		})
		wg.Go(func() {
			for range each / 5 {
				p.scrape(t)
				assert.NoError(t, p.Update(firebreak.Document{Defaults: firebreak.Config{Timeout: time.Second}}))
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, makers*each, p.scrape(t).sum("firebreak_calls_total"))
}
