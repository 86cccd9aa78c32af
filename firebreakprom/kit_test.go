package firebreakprom_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakprom"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBoom = errors.New("boom")

func succeed(context.Context) error { return nil }
func fail(context.Context) error    { return errBoom }

// hang returns once release is closed, whatever its context says.
func hang(release <-chan struct{}) func(context.Context) error {
	return func(context.Context) error {
		<-release
		return nil
	}
}

// place is a registry with a collector and whoever scrapes it.
type place struct {
	*firebreak.Registry
	collector *firebreakprom.Collector
	scraper   *prometheus.Registry
}

func newPlace(t testing.TB, defaults firebreak.Config) *place {
	t.Helper()
	p := &place{Registry: firebreak.NewRegistry(defaults), scraper: prometheus.NewPedanticRegistry()}
	p.collector = firebreakprom.NewCollector(p.Registry, firebreakprom.Options{})
	require.NoError(t, p.scraper.Register(p.collector))
	t.Cleanup(func() {
		p.collector.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(t, p.Shutdown(ctx))
	})
	return p
}

// scraped are the series of one scrape by what they are called, as in
// `firebreak_calls_total{command="users.get",dependency="users",outcome="success"}`.
type scraped map[string]float64

func (p *place) scrape(t testing.TB) scraped {
	t.Helper()
	return scrapeOf(t, p.scraper)
}

func scrapeOf(t testing.TB, from prometheus.Gatherer) scraped {
	t.Helper()
	families, err := from.Gather()
	require.NoError(t, err)
	all := scraped{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			all.add(t, f, m)
		}
	}
	return all
}

func (s scraped) add(t testing.TB, f *dto.MetricFamily, m *dto.Metric) {
	t.Helper()
	put := func(suffix string, v float64, more ...string) {
		name := f.GetName() + suffix + labels(m, more...)
		_, twice := s[name]
		require.False(t, twice, name) // NotContains would look at all of them
		s[name] = v
	}
	switch f.GetType() {
	case dto.MetricType_COUNTER:
		put("", m.GetCounter().GetValue())
	case dto.MetricType_GAUGE:
		put("", m.GetGauge().GetValue())
	case dto.MetricType_HISTOGRAM:
		h := m.GetHistogram()
		put("_count", float64(h.GetSampleCount()))
		put("_sum", h.GetSampleSum())
		for _, b := range h.GetBucket() {
			put("_bucket", float64(b.GetCumulativeCount()), "le", fmt.Sprint(b.GetUpperBound()))
		}
	default:
		t.Fatalf("%s is a %v", f.GetName(), f.GetType())
	}
}

func labels(m *dto.Metric, more ...string) string {
	var all []string
	for _, l := range m.GetLabel() {
		all = append(all, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	for i := 0; i < len(more); i += 2 {
		all = append(all, fmt.Sprintf("%s=%q", more[i], more[i+1]))
	}
	slices.Sort(all)
	return "{" + strings.Join(all, ",") + "}"
}

// of is a series of a command of the dependency "dep"; pairs are its further labels.
func (s scraped) of(t testing.TB, name, command string, pairs ...string) float64 {
	t.Helper()
	return s.series(t, name, append([]string{"dependency", "dep", "command", command}, pairs...)...)
}

func (s scraped) series(t testing.TB, name string, pairs ...string) float64 {
	t.Helper()
	full := name + labels(&dto.Metric{}, pairs...)
	v, ok := s[full]
	require.True(t, ok, full)
	return v
}

// sum adds up every series of a metric.
func (s scraped) sum(name string) float64 {
	sum := 0.0
	for full, v := range s {
		if strings.HasPrefix(full, name+"{") {
			sum += v
		}
	}
	return sum
}

// nonzero are the series of a metric that are not 0, without its name.
func (s scraped) nonzero(name string) map[string]float64 {
	all := map[string]float64{}
	for full, v := range s {
		if rest, ok := strings.CutPrefix(full, name); ok && strings.HasPrefix(rest, "{") && v != 0 {
			all[rest] = v
		}
	}
	return all
}

// counters are the series that never fall.
func (s scraped) counters() scraped {
	c := maps.Clone(s)
	maps.DeleteFunc(c, func(full string, _ float64) bool {
		name, _, _ := strings.Cut(full, "{")
		for _, end := range []string{"_total", "_bucket", "_sum", "_count"} {
			if strings.HasSuffix(name, end) {
				return false
			}
		}
		return true
	})
	return c
}

// requireNoneFell checks that counters are not below what they were.
func requireNoneFell(t testing.TB, was, is scraped) {
	t.Helper()
	for name, v := range was.counters() {
		require.GreaterOrEqual(t, is[name], v, name)
	}
}

// compose makes two calls of what a request composes: a batch of two keys, of which one
// is asked for again and found, and a stream of three items.
func compose(ctx context.Context, cmd *firebreak.Command) {
	ctx = firebreak.WithScope(ctx)
	get := firebreak.Cached(cmd, firebreak.Collapse(cmd, func(_ context.Context, keys []int) (map[int]int, error) {
		values := map[int]int{}
		for _, key := range keys {
			values[key] = key
		}
		return values, nil
	}))
	_, _ = firebreak.Gather(ctx, []int{1, 2}, firebreak.Unlimited, get)
	_, _ = get(ctx, 1)
	items := firebreak.Stream(ctx, cmd, func(context.Context) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i := range 3 {
				if !yield(i, nil) {
					return
				}
			}
		}
	})
	for _, err := range items {
		_ = err
	}
}
