package firebreakprom_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakprom"
	"github.com/firebreak-go/firebreak/firebreakprom/internal/ops"
)

// The whole way: two instances of a service, of which one has twice the load and
// slower answers, each behind a listener of its own; two real Prometheus servers that
// scrape them, one of them native histograms; and what is in ops/ asked of both.
// Every query of the dashboard and every alert has an answer, the fleet is the sum of
// its instances, and it is what the instances say of themselves.
func TestAFleetInPrometheus(t *testing.T) {
	tool(t, "prometheus")
	services := []*service{newService(t, "a", 1, time.Millisecond), newService(t, "b", 2, 20*time.Millisecond)}
	servers := []*server{startServer(t, false, services...), startServer(t, true, services...)}
	scraped := func() {
		t.Helper()
		now := time.Now()
		for _, s := range servers {
			s.awaitScrape(t, now)
		}
	}
	scraped() // so that there is something for counters to grow from
	for range 3 {
		var load sync.WaitGroup
		for _, s := range services {
			load.Go(func() { s.work(t.Context()) })
		}
		load.Wait()
		scraped()
	}
	rest := time.Now()
	for _, s := range servers {
		t.Run(s.name(), func(t *testing.T) {
			at := s.awaitMoment(t, rest)
			s.awaitRules(t, at)
			s.checkTruth(t, at, services)
			s.checkPercentiles(t, at, services)
			s.checkDashboard(t, at, services)
			s.checkRules(t)
		})
	}
}

// A service is one instance: commands that do everything there is to see.
type service struct {
	instance string
	rounds   int
	latency  time.Duration
	reg      *firebreak.Registry
	address  string
	stuck    sync.Once
	release  chan struct{} // ends what hangs
	hanging  sync.WaitGroup
}

func newService(t *testing.T, instance string, rounds int, latency time.Duration) *service {
	t.Helper()
	s := &service{instance: instance, rounds: rounds, latency: latency, release: make(chan struct{})}
	s.reg = firebreak.NewRegistry(firebreak.Config{})
	collector := firebreakprom.NewCollector(s.reg, firebreakprom.Options{})
	scraper := prometheus.NewRegistry()
	require.NoError(t, scraper.Register(collector))
	stop := s.reg.Observe(firebreak.Observer{Call: func(_ context.Context, e firebreak.CallEvent) {
		if e.Command == "watched.get" {
			panic("observer")
		}
	}})
	s.commands()
	web := httptest.NewServer(promhttp.HandlerFor(scraper, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
	s.address = web.Listener.Addr().String()
	t.Cleanup(func() {
		web.Close()
		close(s.release)
		s.hanging.Wait()
		stop()
		collector.Close()
		assert.NoError(t, s.reg.Shutdown(context.Background()))
	})
	return s
}

// commands makes them all, or finds those that are there.
func (s *service) commands() map[string]*firebreak.Command {
	all := map[string]*firebreak.Command{}
	add := func(dependency string, d, c firebreak.Config) {
		all[dependency] = s.reg.Dependency(dependency, d).Command(dependency+".get", c)
	}
	never, off := time.Hour, firebreak.Config{ErrorThresholdPercentage: firebreak.Off}
	add("users", firebreak.Config{}, firebreak.Config{Classify: firebreak.ExpectErrors(errMissing)})
	add("flapping", firebreak.Config{}, firebreak.Config{ConsecutiveFailures: 1, SleepWindow: time.Millisecond})
	add("dead", firebreak.Config{}, firebreak.Config{ConsecutiveFailures: 1, SleepWindow: never})
	add("hung", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 2}, firebreak.Config{
		ErrorThresholdPercentage: firebreak.Off, Timeout: 5 * time.Millisecond,
	})
	add("queue", firebreak.Config{MaxConcurrent: 1, MaxWait: never, QueueSize: 5}, firebreak.Config{Timeout: firebreak.Off})
	add("shadow", firebreak.Config{}, firebreak.Config{ConsecutiveFailures: 1, SleepWindow: never, Mode: firebreak.Shadow})
	add("forced", firebreak.Config{}, firebreak.Config{})
	add("late", firebreak.Config{}, firebreak.Config{ErrorThresholdPercentage: firebreak.Off, Timeout: time.Millisecond})
	add("panics", firebreak.Config{}, off)
	add("watched", firebreak.Config{}, firebreak.Config{})
	add("fallback", firebreak.Config{}, firebreak.Config{ErrorThresholdPercentage: firebreak.Off, MaxFallbacks: 1})
	return all
}

// take is a dependency that takes so long, if it is let.
func take(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		after := time.NewTimer(d)
		defer after.Stop()
		select {
		case <-after.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// work is a round of load.
func (s *service) work(ctx context.Context) {
	c := s.commands()
	s.stuck.Do(func() { s.hang(ctx, c) })
	answer := func(err error) func(context.Context, error) error {
		return func(context.Context, error) error { return err }
	}
	web := s.reg.Dependency("web", firebreak.Config{}).Keyed("web.get", 10, firebreak.Config{})
	for i := range 10 * s.rounds {
		_ = c["users"].Run(ctx, take(s.latency))
		_ = c["users"].Run(ctx, func(context.Context) error { return errMissing })
		_ = c["users"].Run(ctx, func(context.Context) error { return firebreak.Mark(errNoise, firebreak.Ignored) })
		gone, cancel := context.WithCancel(ctx)
		_ = c["users"].Run(gone, func(ctx context.Context) error {
			cancel()
			return ctx.Err()
		})
		_ = c["users"].Run(gone, succeed)
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		_ = c["users"].Run(short, take(time.Minute))
		cancel()

		_ = c["flapping"].Run(ctx, fail, answer(errNoise))
		_ = take(2 * time.Millisecond)(ctx) // its sleep window
		_ = c["dead"].Run(ctx, fail, answer(nil))
		_ = c["hung"].Run(ctx, succeed)
		_ = c["shadow"].Run(ctx, fail)
		_ = c["forced"].Run(ctx, succeed)
		_ = c["late"].Run(ctx, func(context.Context) error { return take(2 * time.Millisecond)(ctx) })
		func() {
			defer func() { _ = recover() }()
			_ = c["panics"].Run(ctx, func(context.Context) error { panic("boom") })
		}()
		compose(ctx, c["users"])
		_ = c["watched"].Run(ctx, succeed)
		_ = c["fallback"].Run(ctx, fail, answer(nil))
		_ = web.Command(strconv.Itoa(i%4)).Run(ctx, succeed)
	}
}

// hang leaves things in a state that lasts: runs whose callers have left, a call that
// waits, one in its fallback, an override.
func (s *service) hang(ctx context.Context, c map[string]*firebreak.Command) {
	for range 2 {
		_ = c["hung"].Run(ctx, hang(s.release))
	}
	holder, err := c["queue"].Begin(context.WithoutCancel(ctx))
	if err != nil {
		panic(err)
	}
	s.hanging.Go(func() {
		<-s.release
		_ = holder.Settle(nil)
		holder.End()
	})
	s.hanging.Go(func() { _ = c["queue"].Run(context.WithoutCancel(ctx), succeed) })
	in := make(chan struct{})
	s.hanging.Go(func() {
		_ = c["fallback"].Run(context.WithoutCancel(ctx), fail, func(context.Context, error) error {
			close(in)
			<-s.release
			return nil
		})
	})
	<-in
	c["forced"].Override(firebreak.Override{Mode: firebreak.ForceOpen, Reason: "a drill"})
}

// A server is a Prometheus.
type server struct {
	native bool
	base   string
	client http.Client
}

func (s *server) name() string {
	if s.native {
		return "native histograms"
	}
	return "classic histograms"
}

const configuration = `
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q, %q]
scrape_configs:
  - job_name: shop
    static_configs:
`

func startServer(t *testing.T, native bool, services ...*service) *server {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs("../ops/prometheus")
	require.NoError(t, err)
	var config strings.Builder
	fmt.Fprintf(&config, configuration, filepath.Join(rules, "recording.yml"), filepath.Join(rules, "alerts.yml"))
	for _, s := range services {
		fmt.Fprintf(&config, "      - {targets: [%q], labels: {instance: %q}}\n", s.address, s.instance)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config.String()), 0o600))

	s := &server{native: native, client: http.Client{
		Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true},
	}}
	for range 3 { // a port that is free may be taken a moment later
		if s.start(t, dir) {
			return s
		}
	}
	t.Fatal("prometheus does not start")
	return nil
}

func (s *server) start(t *testing.T, dir string) bool {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())
	args := []string{
		"--config.file=" + filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path=" + filepath.Join(dir, "data"),
		"--web.listen-address=" + address, "--log.level=warn",
	}
	if s.native {
		args = append(args, "--enable-feature=native-histograms")
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	defer func() { require.NoError(t, log.Close()) }()
	cmd := exec.Command(tool(t, "prometheus"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	end := func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	}
	s.base = "http://" + address
	for tick := time.Tick(50 * time.Millisecond); ; <-tick {
		select {
		case <-ended:
			said, _ := os.ReadFile(log.Name())
			t.Logf("prometheus: %s", said)
			return false
		case <-t.Context().Done():
			end()
			t.Fatal("prometheus does not get ready")
		default:
		}
		if _, err := s.get(t.Context(), "/-/ready", nil); err == nil {
			t.Cleanup(end)
			return true
		}
	}
}

func (s *server) get(ctx context.Context, path string, query url.Values) (data json.RawMessage, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if path == "/-/ready" {
		if res.StatusCode != http.StatusOK {
			return nil, errors.New(res.Status)
		}
		return nil, nil
	}
	var body struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		return nil, err
	}
	if body.Status != "success" {
		return nil, errors.New(body.Error)
	}
	return body.Data, nil
}

// A vector is what a query answers: values by labels.
type vector map[string]float64

func (s *server) query(t *testing.T, expr string, at time.Time) vector {
	t.Helper()
	data, err := s.get(t.Context(), "/api/v1/query", url.Values{"query": {expr}, "time": {fmt.Sprintf("%.3f", float64(at.UnixMilli())/1e3)}})
	require.NoError(t, err, expr)
	var answer struct {
		ResultType string
		Result     []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	require.NoError(t, json.Unmarshal(data, &answer))
	require.Equal(t, "vector", answer.ResultType, expr)
	v := vector{}
	for _, r := range answer.Result {
		delete(r.Metric, "__name__")
		var all []string
		for _, l := range slices.Sorted(maps.Keys(r.Metric)) {
			all = append(all, l+"="+r.Metric[l])
		}
		n, err := strconv.ParseFloat(r.Value[1].(string), 64)
		require.NoError(t, err)
		v[strings.Join(all, ",")] = n
	}
	return v
}

// await asks until the answer is yes, for as long as the test has.
func await(t *testing.T, what string, yes func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for tick := time.Tick(50 * time.Millisecond); !yes(); <-tick {
		select {
		case <-deadline:
			t.Fatalf("%s: not within a minute", what)
		default:
		}
	}
}

// awaitScrape waits until every instance was scraped after that moment.
func (s *server) awaitScrape(t *testing.T, after time.Time) {
	t.Helper()
	await(t, "a scrape", func() bool { return s.scrapedAt(t, time.Now(), after) })
}

// scrapedAt tells whether at that moment every instance was up, and scraped after
// another.
func (s *server) scrapedAt(t *testing.T, at, after time.Time) bool {
	t.Helper()
	n := 0
	for _, scraped := range s.query(t, "timestamp(up) and up == 1", at) {
		if scraped > float64(after.UnixMilli())/1e3 {
			n++
		}
	}
	return n == 2
}

// awaitMoment waits for one after which nothing is scraped any more that counts for it,
// and at which no scrape had failed: then series would be gone.
func (s *server) awaitMoment(t *testing.T, after time.Time) (at time.Time) {
	t.Helper()
	await(t, "a moment at which all is there", func() bool {
		at = time.Now().Add(-2 * time.Second) // of the last scrape, and what it may take
		return s.scrapedAt(t, at, after)
	})
	return at
}

type rule struct {
	Name, Query, Health, LastError, State, Type string
	LastEvaluation                              time.Time
}

func (s *server) rules(t *testing.T) []rule {
	t.Helper()
	data, err := s.get(t.Context(), "/api/v1/rules", nil)
	require.NoError(t, err)
	var answer struct{ Groups []struct{ Rules []rule } }
	require.NoError(t, json.Unmarshal(data, &answer))
	var all []rule
	for _, g := range answer.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// awaitRules waits until every rule was evaluated after that moment, the alerts so
// long after that they saw what the recordings had recorded.
func (s *server) awaitRules(t *testing.T, after time.Time) {
	t.Helper()
	await(t, "the rules", func() bool {
		all := s.rules(t)
		return len(all) > 0 && !slices.ContainsFunc(all, func(r rule) bool { return r.LastEvaluation.Before(after.Add(2 * time.Second)) })
	})
}

// checkTruth: what Prometheus adds up is what the instances have counted.
func (s *server) checkTruth(t *testing.T, at time.Time, services []*service) {
	t.Helper()
	want := vector{}
	for _, service := range services {
		for cmd := range service.reg.Commands() {
			is := cmd.Snapshot()
			c := is.Total
			for outcome, n := range map[string]uint64{
				"success": c.Success, "expected": c.Expected, "ignored": c.Ignored, "failure": c.Failure, "timeout": c.Timeout,
				"panic": c.Panic, "canceled": c.Canceled, "caller_deadline": c.CallerDeadline, "rejected": c.Rejected,
				"short_circuited": c.ShortCircuited, "shutdown": c.Shutdown, "gave_up": c.GaveUp,
			} {
				want["command="+is.Command+",outcome="+outcome] += float64(n)
			}
		}
	}
	require.Equal(t, want, s.query(t, "sum by (command, outcome) (firebreak_calls_total)", at))
	for _, outcome := range []string{
		"success", "expected", "ignored", "failure", "timeout", "panic", "canceled", "caller_deadline", "rejected", "short_circuited", "gave_up",
	} {
		require.True(t, slices.ContainsFunc(slices.Collect(maps.Keys(want)), func(k string) bool {
			return strings.HasSuffix(k, "="+outcome) && want[k] > 0
		}), "the load has no %s", outcome)
	}
}

// checkPercentiles: a percentile of the fleet is in the bucket in which it is if all
// latencies of all instances are laid side by side. No mean of theirs would be.
func (s *server) checkPercentiles(t *testing.T, at time.Time, services []*service) {
	t.Helper()
	var bounds []time.Duration
	var below []uint64
	total := uint64(0)
	for _, service := range services {
		h := service.commands()["users"].Snapshot().CallHistogram
		total += h.Count
		i := 0
		for bound, n := range h.Buckets() {
			if i == len(bounds) {
				bounds, below = append(bounds, bound), append(below, 0)
			}
			below[i] += n
			i++
		}
	}
	for _, p := range []float64{0.5, 0.7, 0.9, 0.99} {
		i := slices.IndexFunc(below, func(n uint64) bool { return float64(n) >= p*float64(total) })
		require.GreaterOrEqual(t, i, 0)
		low, high := 0.0, bounds[i].Seconds()
		if i > 0 {
			low = bounds[i-1].Seconds()
		}
		expr := fmt.Sprintf(`histogram_quantile(%g, sum by (le) (firebreak_call_duration_seconds_bucket{command="users.get"}))`, p)
		if s.native {
			expr = fmt.Sprintf(`histogram_quantile(%g, sum(firebreak_call_duration_seconds{command="users.get"}))`, p)
			low, high = low/math.Ldexp(1, 30)*1e9, high/math.Ldexp(1, 30)*1e9 // powers of two of a second
		} else if bounds[i] <= 1<<19 {
			low, high = 0, time.Duration(1<<19).Seconds() // the first bucket has all that is shorter
		}
		got := s.query(t, expr, at)[""]
		require.True(t, got >= low*(1-1e-9) && got <= high*(1+1e-9), "p%g is %v, not from %v to %v", 100*p, got, low, high)
	}
}

// checkDashboard asks everything that the dashboard would, of the fleet and of each
// instance.
func (s *server) checkDashboard(t *testing.T, at time.Time, services []*service) {
	t.Helper()
	ask := func(expr, instance string) vector {
		return s.query(t, strings.NewReplacer(
			"$job", ".*", "$dependency", ".*", "$command", ".*", "$instance", instance, "$__rate_interval", "1m").Replace(expr), at)
	}
	for _, row := range ops.NewDashboard().Rows {
		for _, panel := range row.Panels {
			if s.native && panel.Kind == "heatmap" {
				continue // of classic buckets, which this server has none of
			}
			for _, target := range panel.Targets {
				fleet := ask(target.Expr, ".*")
				where := row.Title + ": " + panel.Title + ": " + target.Legend
				if !assert.NotEmpty(t, fleet, where) {
					continue
				}
				moving := slices.ContainsFunc(slices.Collect(maps.Values(fleet)), func(v float64) bool { return v > 0 })
				assert.True(t, moving, "%s: nothing but zeros", where)
				var of []vector
				for _, service := range services {
					of = append(of, ask(target.Expr, service.instance))
				}
				for labels, v := range fleet {
					s.checkFleet(t, where+" "+labels, target.Additive, v, labels, of)
				}
			}
		}
	}
}

// checkFleet: a sum is the sum of the instances', and a share, a maximum or a
// percentile is between theirs.
func (s *server) checkFleet(t *testing.T, where string, additive bool, fleet float64, labels string, of []vector) {
	t.Helper()
	var values []float64
	for _, v := range of {
		if n, ok := v[labels]; ok && !math.IsNaN(n) {
			values = append(values, n)
		}
	}
	if math.IsNaN(fleet) {
		assert.Empty(t, values, where)
		return
	}
	if !assert.NotEmpty(t, values, where) {
		return
	}
	if additive {
		sum := 0.0
		for _, n := range values {
			sum += n
		}
		assert.InDelta(t, sum, fleet, 1e-9*math.Max(1, sum), where)
		return
	}
	const slack = 1e-9
	assert.GreaterOrEqual(t, fleet, slices.Min(values)*(1-slack), where)
	assert.LessOrEqual(t, fleet, slices.Max(values)*(1+slack), where)
}

// checkRules: all are as in ops/, evaluate, record something, and every alert has
// what it would fire for.
func (s *server) checkRules(t *testing.T) {
	t.Helper()
	now := time.Now()
	all := map[string]rule{}
	for _, r := range s.rules(t) {
		assert.Equal(t, "ok", r.Health, "%s: %s", r.Name, r.LastError)
		all[r.Name] = r
	}
	require.Len(t, all, len(ops.Recordings())+len(ops.Alerts()))
	for _, r := range ops.Recordings() {
		require.Contains(t, all, r.Record)
		ofClassic := strings.HasSuffix(r.Record, "_bucket:rate5m")
		if recorded := s.query(t, r.Record, now); s.native && ofClassic {
			assert.Empty(t, recorded, r.Record)
		} else {
			assert.NotEmpty(t, recorded, r.Record)
		}
	}
	for _, a := range ops.Alerts() {
		require.Contains(t, all, a.Name)
		// On a machine that is too busy for one scrape, gauges are gone until the next.
		await(t, a.Name, func() bool {
			i := slices.IndexFunc(s.rules(t), func(r rule) bool { return r.Name == a.Name && (r.State == "pending" || r.State == "firing") })
			return i >= 0 && len(s.query(t, a.Expr, time.Now())) > 0
		})
	}
}
