package ops

import (
	"fmt"
	"strings"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakprom/internal/metric"
)

// A Recording is a recording rule.
type Recording struct{ Record, Expr string }

// An Alert is an alerting rule. Its expression has a value only where it fires.
type Alert struct {
	Name, Expr, For      string
	Severity             string // page or ticket
	Summary, Description string
}

// Percentiles that are recorded and shown.
var percentiles = []float64{0.5, 0.9, 0.99}

// Names of recorded series, by whose they are: what is left of the labels.
const (
	recordedCalls       = "command:firebreak_calls:rate5m"
	recordedErrors      = "command:firebreak_errors:ratio_rate5m"
	recordedRejections  = "command:firebreak_rejections:ratio_rate5m"
	recordedNotClosed   = "command:firebreak_circuits_not_closed:ratio"
	recordedUtilization = "dependency:firebreak_bulkhead_utilization:max"
)

// Recordings are the fleet's values, instances added up.
func Recordings() []Recording {
	s := rules
	executedRate := s.sum(s.rate(&metric.Calls, "outcome", executed), "outcome")
	all := []Recording{
		{recordedCalls, s.sum(s.rate(&metric.Calls))},
		{recordedErrors, ratio(s.sum(s.rate(&metric.Calls, "outcome", failures), "outcome"), executedRate)},
		{recordedRejections, ratio(
			s.sum(s.rate(&metric.Rejections, "mode", metric.Enforced, "reason", []string{metric.Circuit, metric.Bulkhead, metric.Shutdown}), "reason", "mode"),
			s.sum(s.rate(&metric.Calls), "outcome"))},
		{recordedNotClosed, ratio(
			s.sum(s.in(&metric.CircuitState, "state", not(firebreak.StateClosed.String())), "state"),
			s.sum(s.in(&metric.CircuitState), "state"))},
		{recordedUtilization, s.max(s.in(&metric.BulkheadPeak) + " / " + s.in(&metric.BulkheadLimit))},
	}
	for _, m := range []*metric.Metric{&metric.RunDuration, &metric.CallDuration} {
		classic := "command:" + m.Name + "_bucket:rate5m"
		all = append(all, Recording{classic, s.sum(s.buckets(m, "_bucket"))})
		// A sum of native histograms is not recorded: Prometheus 2.42 refuses to store
		// one whose buckets, by rounding, do not add up to its count.
		native := s.sum(s.buckets(m, ""))
		for _, p := range percentiles {
			all = append(all, Recording{
				fmt.Sprintf("command:%s:p%.0f_rate5m", m.Name, 100*p),
				fmt.Sprintf("histogram_quantile(%g, %s)\nor\nhistogram_quantile(%g, %s)", p, classic, p, native),
			})
		}
	}
	return all
}

// Alerts are on what is recorded where that has it, else on the instances added up.
func Alerts() []Alert {
	s := rules
	const (
		who  = "{{ $labels.command }} ({{ $labels.dependency }})"
		whom = "{{ $labels.dependency }}"
	)
	answered := s.sum(s.rate(&metric.Fallbacks, "result", not(metric.Missing)), "result")
	return []Alert{
		{
			Name: "FirebreakCircuitOpen", For: "5m", Severity: "page",
			// Not closed: an open circuit that probes a dead dependency is half-open now and then.
			Expr:        recordedNotClosed + " >= 0.1",
			Summary:     "Circuits of " + who + " have been open for 5 minutes.",
			Description: "{{ $value | humanizePercentage }} of them, over instances and keys: their calls fail at once, or get their fallbacks.",
		},
		{
			Name: "FirebreakCircuitFlapping", For: "0m", Severity: "ticket",
			Expr:        s.sum(s.increase(&metric.CircuitTransitions, "30m", "to", firebreak.StateOpen.String()), "from", "to", "cause") + "\n/\n" + s.sum(s.in(&metric.CircuitState), "state") + "\n> 10",
			Summary:     "The circuit of " + who + " opens again and again.",
			Description: "{{ $value | humanize }} times a circuit in half an hour. Look at its thresholds, or at a dependency that fails under load only.",
		},
		{
			Name: "FirebreakErrors", For: "5m", Severity: "ticket",
			Expr:        recordedErrors + " > 0.1",
			Summary:     "{{ $value | humanizePercentage }} of the executed calls of " + who + " fail.",
			Description: "Failures, timeouts and panics over 5 minutes, the fleet's together.",
		},
		{
			Name: "FirebreakRejections", For: "5m", Severity: "ticket",
			Expr:        recordedRejections + " > 0.05",
			Summary:     "{{ $value | humanizePercentage }} of the calls of " + who + " are refused.",
			Description: "By an open circuit, a full bulkhead or a shutdown. firebreak_rejections_total has the reason.",
		},
		{
			Name: "FirebreakBulkheadSaturated", For: "5m", Severity: "ticket",
			Expr:        recordedUtilization + " > 0.8",
			Summary:     "The bulkhead of " + whom + " is nearly full.",
			Description: "At its peaks {{ $value | humanizePercentage }} of the limit are in flight, in the fullest instance. Calls will be rejected.",
		},
		{
			Name: "FirebreakAbandonedRuns", For: "5m", Severity: "ticket",
			Expr:        s.sum(s.in(&metric.BulkheadAbandoned)) + " > 0",
			Summary:     "Runs of " + whom + " go on after their callers have left.",
			Description: "{{ $value }} workers are held by calls that timed out and do not heed their context.",
		},
		{
			Name: "FirebreakOverruns", For: "0m", Severity: "ticket",
			Expr:        s.sum(s.increase(&metric.Overruns, "15m")) + " > 0",
			Summary:     "Runs of " + who + " go on past their deadline.",
			Description: "{{ $value | humanize }} in 15 minutes: the function does not heed its context, and a timeout cannot end it.",
		},
		{
			Name: "FirebreakFallbacksFailing", For: "5m", Severity: "page",
			Expr:        ratio(s.sum(s.rate(&metric.Fallbacks, "result", []string{"failure", "rejected"}), "result"), answered) + "\n> 0.1",
			Summary:     "{{ $value | humanizePercentage }} of the fallbacks of " + who + " fail.",
			Description: "What should answer while the dependency does not, fails too, or too many ran at once.",
		},
		{
			Name: "FirebreakPanics", For: "0m", Severity: "ticket",
			Expr:        s.sum(s.increase(&metric.Calls, "15m", "outcome", "panic"), "outcome") + " > 0",
			Summary:     "Calls of " + who + " panic.",
			Description: "{{ $value | humanize }} in 15 minutes.",
		},
		{
			Name: "FirebreakObserverPanics", For: "0m", Severity: "ticket",
			Expr:        s.sum(s.increase(&metric.ObserverPanics, "15m")) + " > 0",
			Summary:     "Observers of " + who + " panic.",
			Description: "{{ $value | humanize }} in 15 minutes: what they should have told is lost.",
		},
		{
			Name: "FirebreakOverrideInForce", For: "4h", Severity: "ticket",
			Expr:        s.sum(s.in(&metric.CircuitOverride)) + " > 0",
			Summary:     "An override ({{ $labels.kind }}) of " + who + " has been in force for 4 hours.",
			Description: "On {{ $value }} circuits. Was it forgotten? One with an end lifts itself.",
		},
		{
			Name: "FirebreakShadowWouldRefuse", For: "15m", Severity: "ticket",
			Expr: ratio(
				s.sum(s.rate(&metric.Rejections, "mode", firebreak.Shadow.String()), "reason", "mode"),
				s.sum(s.rate(&metric.Calls), "outcome")) + "\n> 0.01",
			Summary:     "In shadow, the circuit of " + who + " would refuse {{ $value | humanizePercentage }} of its calls.",
			Description: "It lets all pass now. Is that what you want it to do when it is in earnest?",
		},
	}
}

const header = "# Code generated by go generate in firebreakprom; DO NOT EDIT.\n"

// RecordingsFile is ops/prometheus/recording.yml.
func RecordingsFile() []byte {
	var b strings.Builder
	b.WriteString(header)
	b.WriteString("# What a fleet does: each rule adds its instances up. Prometheus is the aggregator.\n")
	b.WriteString("groups:\n  - name: firebreak\n    rules:\n")
	for _, r := range Recordings() {
		fmt.Fprintf(&b, "      - record: %s\n        expr: %s", r.Record, block(r.Expr))
	}
	return []byte(b.String())
}

// AlertsFile is ops/prometheus/alerts.yml.
func AlertsFile() []byte {
	var b strings.Builder
	b.WriteString(header)
	b.WriteString("# They need recording.yml. Thresholds are where to begin, not what is right for you.\n")
	b.WriteString("groups:\n  - name: firebreak-alerts\n    rules:\n")
	for _, a := range Alerts() {
		fmt.Fprintf(&b, "      - alert: %s\n        expr: %s        for: %s\n        labels:\n          severity: %s\n", a.Name, block(a.Expr), a.For, a.Severity)
		fmt.Fprintf(&b, "        annotations:\n          summary: %s\n          description: %s\n", quote(a.Summary), quote(a.Description))
	}
	return []byte(b.String())
}

// block is a YAML block, so that an expression reads as it is.
func block(expr string) string {
	return "|-\n          " + strings.ReplaceAll(expr, "\n", "\n          ") + "\n"
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
