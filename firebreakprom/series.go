package firebreakprom

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/firebreak-go/firebreak/firebreakprom/internal/metric"
)

// A series is one set of labels of a metric, made once: a thousand commands have
// sixty thousand, and only their values are new at a scrape.
type series struct {
	desc   *prometheus.Desc
	kind   metric.Kind
	labels []*dto.LabelPair // sorted, and without room to append: those who wrap a collector do
}

// series makes all of a metric's for one owner.
func (p pairs) series(desc *prometheus.Desc, d *metric.Metric, owner ...string) []series {
	all := make([]series, len(d.Series))
	for i, values := range d.Series {
		labels := prometheus.MakeLabelPairs(desc, slices.Concat(owner, values))
		for i, l := range labels {
			labels[i] = p.one(l)
		}
		all[i] = series{desc, d.Kind, slices.Clip(labels)}
	}
	return all
}

// pairs keeps one of each label and value, which nothing changes.
type pairs map[[2]string]*dto.LabelPair

func (p pairs) one(l *dto.LabelPair) *dto.LabelPair {
	key := [2]string{l.GetName(), l.GetValue()}
	if p[key] == nil {
		p[key] = l
	}
	return p[key]
}

// A sample is a series and its value in one scrape.
type sample struct {
	*series
	value     float64
	histogram *dto.Histogram // of a histogram, instead of the value
}

// Desc implements [prometheus.Metric].
func (s *sample) Desc() *prometheus.Desc { return s.desc }

// Write implements [prometheus.Metric].
func (s *sample) Write(out *dto.Metric) error {
	out.Label = s.labels
	switch s.kind {
	case metric.Counter:
		out.Counter = &dto.Counter{Value: &s.value}
	case metric.Gauge:
		out.Gauge = &dto.Gauge{Value: &s.value}
	case metric.Histogram:
		out.Histogram = s.histogram
	}
	return nil
}

// label is a name as the value of a label, which must be UTF-8. No two names have
// the same: what is quoted begins with a quote, and so is what begins with one.
func label(name string) string {
	if utf8.ValidString(name) && !strings.HasPrefix(name, `"`) {
		return name
	}
	return strconv.Quote(name)
}
