package ops

import (
	"fmt"
	"slices"
	"strings"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakprom/internal/metric"
)

// A scope is where an expression is asked: which series, over how long, and what is
// left of the labels when instances are added up.
type scope struct {
	matchers string // that every series gets
	window   string // of rates
	by       func(labels ...string) string
}

// rules are evaluated for everything there is. Labels of the fleet (job, cluster,
// constant labels) stay; those of one instance go.
var rules = scope{
	window: "5m",
	by: func(drop ...string) string {
		return "without (" + strings.Join(append(slices.Clone(instance), drop...), ", ") + ")"
	},
}

// instance is what tells the instances of a fleet apart: a target's address, and
// the pod that Kubernetes' service discovery usually adds.
var instance = []string{"instance", "pod"}

// in is the series of a metric in which label is one of values, and so on for
// further pairs. A label or value that the definition does not have is a mistake
// here, and a panic.
func (s scope) in(m *metric.Metric, pairs ...any) string { return s.suffixed(m, "", pairs...) }

func (s scope) suffixed(m *metric.Metric, suffix string, pairs ...any) string {
	var matchers []string
	if s.matchers != "" {
		matchers = append(matchers, s.matchers)
		if m.Of == metric.OfCommand {
			matchers = append(matchers, `command=~"$command"`)
		}
	}
	for i := 0; i < len(pairs); i += 2 {
		matchers = append(matchers, match(m, pairs[i].(string), pairs[i+1]))
	}
	if len(matchers) == 0 {
		return m.Name + suffix
	}
	return m.Name + suffix + "{" + strings.Join(matchers, ", ") + "}"
}

func match(m *metric.Metric, label string, value any) string {
	at := slices.Index(m.Labels, label)
	if at < 0 {
		panic(fmt.Sprintf("ops: %s has no label %s", m.Name, label))
	}
	op, values := "=", []string{}
	switch v := value.(type) {
	case string:
		values = append(values, v)
	case []string:
		op, values = "=~", v
	case not:
		op, values = "!=", []string{string(v)}
	}
	for _, v := range values {
		if !slices.ContainsFunc(m.Series, func(s []string) bool { return s[at] == v }) {
			panic(fmt.Sprintf("ops: %s of %s is never %q", label, m.Name, v))
		}
	}
	return fmt.Sprintf("%s%s%q", label, op, strings.Join(values, "|"))
}

// not is a value that a label does not have.
type not string

// rate is a counter's, per second.
func (s scope) rate(m *metric.Metric, pairs ...any) string {
	if m.Kind != metric.Counter {
		panic("ops: " + m.Name + " is not a counter")
	}
	return "rate(" + s.in(m, pairs...) + "[" + s.window + "])"
}

func (s scope) increase(m *metric.Metric, window string, pairs ...any) string {
	if m.Kind != metric.Counter {
		panic("ops: " + m.Name + " is not a counter")
	}
	return "increase(" + s.in(m, pairs...) + "[" + window + "])"
}

// sum adds up; labels are those kept by a dashboard, or dropped by a rule.
func (s scope) sum(of string, labels ...string) string { return s.aggregate("sum", of, labels...) }
func (s scope) max(of string, labels ...string) string { return s.aggregate("max", of, labels...) }

func (s scope) aggregate(how, of string, labels ...string) string {
	if by := s.by(labels...); by != "" {
		return how + " " + by + " (" + of + ")"
	}
	return how + "(" + of + ")"
}

// buckets is the rate of a histogram's series: "_bucket", "_sum" or "_count" of a
// classic one, "" of a native one. A server stores the one or the other, or both.
func (s scope) buckets(m *metric.Metric, suffix string) string {
	if m.Kind != metric.Histogram {
		panic("ops: " + m.Name + " is not a histogram")
	}
	return "rate(" + s.suffixed(m, suffix) + "[" + s.window + "])"
}

// ratio of two sums. Without anything below it, it is NaN, which no comparison
// takes for large.
func ratio(of, in string) string { return of + "\n/\n" + in }

// executed are the outcomes of calls in which the function was called.
var executed = metric.Outcomes()[:8]

// failures are those of them that are the dependency's fault.
var failures = []string{
	firebreak.OutcomeFailure.String(), firebreak.OutcomeTimeout.String(), firebreak.OutcomePanic.String(),
}

// quantile asks classic buckets, or the native histogram where only that is stored.
func (s scope) quantile(p float64, m *metric.Metric, labels ...string) string {
	return fmt.Sprintf("histogram_quantile(%g, %s)\nor\nhistogram_quantile(%g, %s)",
		p, s.sum(s.buckets(m, "_bucket"), append([]string{"le"}, labels...)...), p, s.sum(s.buckets(m, ""), labels...))
}
