package ops

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakprom/internal/metric"
)

// A Dashboard is Grafana's, as far as it is ours to say.
type Dashboard struct{ Rows []Row }

// A Row is a heading and what is below it.
type Row struct {
	Title  string
	Panels []Panel
}

// A Panel shows what its targets ask.
type Panel struct {
	Title, Description string
	Kind               string // timeseries, stat, heatmap or table
	Unit               string // Grafana's name of it
	Width              int    // of 24
	Stacked            bool
	Max                float64 // of the axis; 0: as the values are
	Targets            []Target
}

// A Target is a query.
type Target struct {
	Expr, Legend string
	Additive     bool // the fleet's value is the sum of its instances'
}

// shown is what the variables of the dashboard choose.
var shown = scope{
	matchers: `job=~"$job", instance=~"$instance", dependency=~"$dependency"`,
	window:   "$__rate_interval",
	by: func(keep ...string) string {
		if len(keep) == 0 {
			return ""
		}
		return "by (" + strings.Join(keep, ", ") + ")"
	},
}

// Labels to keep, and legends.
const (
	command    = metric.Command
	dependency = metric.Dependency
	ofCommand  = "{{command}}"
	ofBulkhead = "{{dependency}}"
)

// NewDashboard makes the dashboard.
func NewDashboard() *Dashboard {
	return &Dashboard{Rows: []Row{fleet(), calls(), latency(), circuits(), bulkheads(), instances(), settings()}}
}

// What several panels ask.
func callRate(keep ...string) string { return shown.sum(shown.rate(&metric.Calls), keep...) }

func errorRatio(keep ...string) string {
	return ratio(shown.sum(shown.rate(&metric.Calls, "outcome", failures), keep...),
		shown.sum(shown.rate(&metric.Calls, "outcome", executed), keep...))
}

func refusedRatio(keep ...string) string {
	refused := []string{metric.Circuit, metric.Bulkhead, metric.Shutdown}
	return ratio(shown.sum(shown.rate(&metric.Rejections, "mode", metric.Enforced, "reason", refused), keep...), callRate(keep...))
}

func notClosed(keep ...string) string {
	return shown.sum(shown.in(&metric.CircuitState, "state", not(firebreak.StateClosed.String())), keep...)
}

func one(expr, legend string) []Target { return []Target{{Expr: expr, Legend: legend}} }

func added(expr, legend string) []Target {
	return []Target{{Expr: expr, Legend: legend, Additive: true}}
}

func quantiles(m *metric.Metric) []Target {
	var all []Target
	for _, p := range percentiles {
		all = append(all, Target{Expr: shown.quantile(p, m, command), Legend: fmt.Sprintf("%s p%.0f", ofCommand, 100*p)})
	}
	return all
}

func fleet() Row {
	stat := func(title, unit, description string, targets []Target) Panel {
		return Panel{Title: title, Description: description, Kind: "stat", Unit: unit, Width: 4, Targets: targets}
	}
	return Row{"Fleet", []Panel{
		stat("Calls", "reqps", "All calls, however they end.", added(callRate(), "calls")),
		stat("Errors", "percentunit", "Failures, timeouts and panics among the executed calls.", one(errorRatio(), "errors")),
		stat("Refused", "percentunit", "Short-circuited, rejected or refused by a shutdown, among all calls.", one(refusedRatio(), "refused")),
		stat("Circuits not closed", "none", "Open or half-open, over instances and keys.", added(notClosed(), "not closed")),
		stat("In flight", "none", "Runs now.", added(shown.sum(shown.in(&metric.InFlight)), "in flight")),
		stat("p99 of a call", "s", "From submission to answer, of all instances together.", one(shown.quantile(0.99, &metric.CallDuration), "p99")),
	}}
}

func calls() Row {
	series := func(title, unit, description string, targets []Target) Panel {
		return Panel{Title: title, Description: description, Kind: "timeseries", Unit: unit, Width: 8, Targets: targets}
	}
	outcomes := series("Calls by outcome", "reqps", "Each call has exactly one outcome.",
		added(shown.sum(shown.rate(&metric.Calls), "outcome"), "{{outcome}}"))
	outcomes.Stacked = true
	share := series("Errors by command", "percentunit", "Failures, timeouts and panics among the executed calls.", one(errorRatio(command), ofCommand))
	share.Max = 1
	return Row{"Calls", []Panel{
		outcomes,
		series("Calls by command", "reqps", "", added(callRate(command), ofCommand)),
		share,
		series("Refused by reason", "reqps", "What was not let through: circuit open, bulkhead full, shutdown, too many fallbacks.",
			added(shown.sum(shown.rate(&metric.Rejections, "mode", metric.Enforced), command, "reason"), "{{command}} {{reason}}")),
		series("Shadow would refuse", "reqps", "Calls that a circuit in shadow mode let pass and would not have.",
			added(shown.sum(shown.rate(&metric.Rejections, "mode", firebreak.Shadow.String()), command), ofCommand)),
		series("Fallbacks by result", "reqps", "Of the calls that wanted one; missing: there was none to ask.",
			added(shown.sum(shown.rate(&metric.Fallbacks), command, "result"), "{{command}} {{result}}")),
		series("Fallbacks in flight", "none", "And how many may be, of all instances.", append(
			added(shown.sum(shown.in(&metric.FallbacksInFlight), command), ofCommand),
			added(shown.sum(shown.in(&metric.FallbackLimit), command), ofCommand+" limit")...)),
		series("Overruns", "reqps", "Runs that ended after their deadline: they do not heed their context.",
			added(shown.sum(shown.rate(&metric.Overruns), command), ofCommand)),
		series("Spared by caching and batching", "reqps", "Answers that a request's cache had, and keys that left in batches: a batch is one call.", append(
			added(shown.sum(shown.rate(&metric.CacheHits), command), ofCommand+" cache hits"),
			append(added(shown.sum(shown.rate(&metric.CollapsedKeys), command), ofCommand+" collapsed"),
				added(shown.sum(shown.rate(&metric.Batches), command), ofCommand+" batches")...)...)),
		series("Items of streams", "ops", "A stream is one call.",
			added(shown.sum(shown.rate(&metric.StreamItems), command), ofCommand)),
		series("Observer panics", "reqps", "What an observer should have told is lost.",
			added(shown.sum(shown.rate(&metric.ObserverPanics), command), ofCommand)),
	}}
}

func latency() Row {
	m := &metric.CallDuration
	mean := ratio(shown.sum(shown.buckets(m, "_sum"), command), shown.sum(shown.buckets(m, "_count"), command)) + "\nor\n" +
		"histogram_sum(" + shown.sum(shown.buckets(m, ""), command) + ")\n/\nhistogram_count(" + shown.sum(shown.buckets(m, ""), command) + ")"
	return Row{"Latency", []Panel{
		{
			Title: "Call", Description: "From submission to answer, waiting and fallbacks included; percentiles of all instances together, within a bucket's width.",
			Kind: "timeseries", Unit: "s", Width: 8, Targets: quantiles(m),
		},
		{
			Title: "Run", Description: "Time in the guarded function, and the timeout of a call.",
			Kind: "timeseries", Unit: "s", Width: 8,
			Targets: append(quantiles(&metric.RunDuration), one(shown.max(shown.in(&metric.Timeout)+" < +Inf", command), ofCommand+" timeout")...),
		},
		{
			Title: "Mean call", Kind: "timeseries", Unit: "s", Width: 8, Targets: one(mean, ofCommand),
		},
		{
			Title: "Distribution of calls", Description: "Of a server that stores classic buckets.",
			Kind: "heatmap", Unit: "s", Width: 24, Targets: added(shown.sum(shown.buckets(m, "_bucket"), "le"), "{{le}}"),
		},
	}}
}

func circuits() Row {
	return Row{"Circuits", []Panel{
		{
			Title: "Not closed", Description: "Circuits that are open or half-open, over instances and keys.",
			Kind: "timeseries", Unit: "none", Width: 8, Stacked: true, Targets: added(notClosed(command, "state"), "{{command}} {{state}}"),
		},
		{
			Title: "Transitions", Description: "Per second, by what brought them about.",
			Kind: "timeseries", Unit: "cps", Width: 8,
			Targets: added(shown.sum(shown.rate(&metric.CircuitTransitions), command, "from", "to", "cause"), "{{command}} {{from}} → {{to}}: {{cause}}"),
		},
		{
			Title: "Overrides in force", Description: "Circuits on which somebody has a hand.",
			Kind: "timeseries", Unit: "none", Width: 8, Targets: added(shown.sum(shown.in(&metric.CircuitOverride), command, "kind"), "{{command}} {{kind}}"),
		},
		{
			Title: "Error ratio", Description: "In the rolling window of the worst circuit, and what opens it.",
			Kind: "timeseries", Unit: "percentunit", Width: 24, Max: 1, Targets: append(
				one(shown.max(shown.in(&metric.CircuitErrorRatio), command), ofCommand),
				one(shown.max(shown.in(&metric.ErrorThreshold), command), ofCommand+" opens")...),
		},
	}}
}

func bulkheads() Row {
	return Row{"Bulkheads", []Panel{
		{
			Title: "In flight", Description: "Permits out now, and how many there are, of all instances.",
			Kind: "timeseries", Unit: "none", Width: 8, Targets: append(
				added(shown.sum(shown.in(&metric.BulkheadInFlight), dependency), ofBulkhead),
				added(shown.sum(shown.in(&metric.BulkheadLimit), dependency), ofBulkhead+" limit")...),
		},
		{
			Title: "Fullest instance", Description: "The peak of the rolling window against the limit.",
			Kind: "timeseries", Unit: "percentunit", Width: 8,
			Targets: one(shown.max(shown.in(&metric.BulkheadPeak)+" / "+shown.in(&metric.BulkheadLimit), dependency), ofBulkhead),
		},
		{
			Title: "Queued", Description: "Calls that wait for a permit or a worker, and how many may.",
			Kind: "timeseries", Unit: "none", Width: 4, Targets: append(
				added(shown.sum(shown.in(&metric.BulkheadQueued), dependency), ofBulkhead),
				added(shown.sum(shown.in(&metric.BulkheadQueueLimit), dependency), ofBulkhead+" limit")...),
		},
		{
			Title: "Abandoned", Description: "Runs in a pool whose caller has left. They hold their workers.",
			Kind: "timeseries", Unit: "none", Width: 4, Targets: added(shown.sum(shown.in(&metric.BulkheadAbandoned), dependency), ofBulkhead),
		},
	}}
}

func instances() Row {
	series := func(title, unit string, targets []Target) Panel {
		return Panel{Title: title, Description: "One that differs from the others is ill, not the dependency.", Kind: "timeseries", Unit: unit, Width: 8, Targets: targets}
	}
	return Row{"Instances", []Panel{
		series("Calls by instance", "reqps", added(callRate("instance"), "{{instance}}")),
		series("Errors by instance", "percentunit", one(errorRatio("instance"), "{{instance}}")),
		series("Circuits not closed by instance", "none", added(notClosed("instance"), "{{instance}}")),
	}}
}

func settings() Row {
	table := func(m *metric.Metric, title, unit string, labels ...string) Panel {
		return Panel{
			Title: title, Description: m.Help, Kind: "table", Unit: unit, Width: 12,
			Targets: added("count "+shown.by(append([]string{dependency, command}, labels...)...)+" ("+shown.in(m)+")", ""),
		}
	}
	number := func(m *metric.Metric, title, unit string) Panel {
		return Panel{
			Title: title, Description: m.Help, Kind: "table", Unit: unit, Width: 4,
			Targets: one(shown.max(shown.in(m), dependency, command), ""),
		}
	}
	return Row{"Settings", []Panel{
		table(&metric.CommandInfo, "Instances by settings", "none", "isolation", "mode", "keyed"),
		number(&metric.Timeout, "Timeout", "s"),
		number(&metric.VolumeThreshold, "Request volume threshold", "none"),
		number(&metric.SleepWindowLength, "Sleep window", "s"),
	}}
}

// File is the dashboard as Grafana imports it.
func (d *Dashboard) File() []byte {
	const height, rowHeight = 8, 1
	type object = map[string]any
	source := object{"type": "prometheus", "uid": "${datasource}"}
	var panels []object
	y := 0
	add := func(p object, x, w, h int) {
		p["id"], p["gridPos"] = len(panels)+1, object{"x": x, "y": y, "w": w, "h": h}
		panels = append(panels, p)
	}
	for _, row := range d.Rows {
		add(object{"type": "row", "title": row.Title, "collapsed": false, "panels": []object{}}, 0, 24, rowHeight)
		y += rowHeight
		x, h := 0, height
		if row.Panels[0].Kind == "stat" {
			h = height / 2
		}
		for _, p := range row.Panels {
			if x+p.Width > 24 {
				x, y = 0, y+h
			}
			add(p.object(source), x, p.Width, h)
			x += p.Width
		}
		y += h
	}
	variable := func(name, label, query string) object {
		return object{
			"type": "query", "name": name, "label": label, "datasource": source,
			"query": object{"query": query, "refId": name}, "definition": query,
			"refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".*",
			"current": object{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}},
		}
	}
	values := func(of, label string) string { return fmt.Sprintf("label_values(%s, %s)", of, label) }
	info := metric.CommandInfo.Name
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // a query reads as it is
	e.SetIndent("", "  ")
	err := e.Encode(object{
		"uid": "firebreak", "title": "firebreak", "tags": []string{"firebreak"},
		"description":   "Circuits, bulkheads, timeouts and fallbacks of a fleet. Generated: see ops/README.md.",
		"schemaVersion": 39, "editable": true, "graphTooltip": 1, "refresh": "30s",
		"time": object{"from": "now-1h", "to": "now"},
		"templating": object{"list": []object{
			{"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus"},
			variable("job", "Job", values(info, "job")),
			variable("instance", "Instance", values(info+`{job=~"$job"}`, "instance")),
			variable("dependency", "Dependency", values(info+`{job=~"$job"}`, dependency)),
			variable("command", "Command", values(info+`{job=~"$job", dependency=~"$dependency"}`, command)),
		}},
		"panels": panels,
	})
	if err != nil {
		panic("ops: " + err.Error()) // maps, slices, strings and numbers
	}
	return b.Bytes()
}

func (p *Panel) object(source map[string]any) map[string]any {
	type object = map[string]any
	var targets []object
	for i, t := range p.Targets {
		o := object{"refId": string(rune('A' + i)), "datasource": source, "expr": t.Expr, "legendFormat": t.Legend}
		switch p.Kind {
		case "table":
			o["instant"], o["format"] = true, "table"
		case "heatmap":
			o["format"] = "heatmap"
		}
		targets = append(targets, o)
	}
	defaults := object{"unit": p.Unit, "min": 0}
	if p.Max > 0 {
		defaults["max"] = p.Max
	}
	o := object{
		"type": p.Kind, "title": p.Title, "description": p.Description, "datasource": source, "targets": targets,
		"fieldConfig": object{"defaults": defaults, "overrides": []object{}},
	}
	switch p.Kind {
	case "timeseries":
		custom := object{"drawStyle": "line", "fillOpacity": 10, "showPoints": "never"}
		if p.Stacked {
			custom["stacking"] = object{"mode": "normal", "group": "A"}
			custom["fillOpacity"] = 40
		}
		defaults["custom"] = custom
		o["options"] = object{
			"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": true},
			"tooltip": object{"mode": "multi", "sort": "desc"},
		}
	case "stat":
		o["options"] = object{"reduceOptions": object{"calcs": []string{"lastNotNull"}}, "graphMode": "area", "colorMode": "value"}
	case "heatmap":
		o["options"] = object{"calculate": false, "yAxis": object{"unit": p.Unit}, "cellGap": 1, "color": object{"mode": "scheme", "scheme": "Oranges"}}
	case "table":
		o["transformations"] = []object{{"id": "organize", "options": object{"excludeByName": object{"Time": true}}}}
	}
	return o
}
