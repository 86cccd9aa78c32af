package report_test

import (
	"math"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
	"github.com/firebreak-go/firebreak/benchmarks/report"
	"github.com/firebreak-go/firebreak/benchmarks/scenario"
)

func TestMedianAndQuartiles(t *testing.T) {
	for _, test := range []struct {
		values               []float64
		lower, median, upper float64
	}{
		{[]float64{7}, 7, 7, 7},
		{[]float64{4, 2}, 2.5, 3, 3.5},
		{[]float64{5, 1, 3}, 2, 3, 4},
		{[]float64{9, 1, 5, 3, 7}, 3, 5, 7},
		{[]float64{1, 1, 1, 100}, 1, 1, 25.75},
	} {
		lower, upper := report.Quartiles(test.values)
		require.Equal(t, []float64{test.lower, test.median, test.upper}, []float64{lower, report.Median(test.values), upper}, "%v", test.values)
	}
	values := []float64{3, 1, 2}
	report.Median(values)
	require.Equal(t, []float64{3, 1, 2}, values, "the order of the passes is kept")
	require.True(t, math.IsNaN(report.Median(nil)))
}

var (
	our   = report.Cell{Scenario: "s", Column: "firebreak"}
	their = report.Cell{Scenario: "s", Column: "other"}
)

// passes are metrics of one unit.
func passes(unit string, values ...float64) []scenario.Metrics {
	var out []scenario.Metrics
	for _, v := range values {
		out = append(out, scenario.Metrics{unit: v})
	}
	return out
}

func TestRatiosAreTakenPassByPass(t *testing.T) {
	// The machine was three times as slow in the second pass. The ratio of the medians
	// would be 110 / 300.
	r := report.Results{our: passes("x", 100, 330, 110), their: passes("x", 200, 600, 300)}
	require.InDeltaSlice(t, []float64{0.5, 0.55, 110.0 / 300}, r.Ratios(our, their, "x"), 1e-9)
	require.InDelta(t, 0.5, report.Median(r.Ratios(our, their, "x")), 1e-9)

	// A pass in which one of the two is lacking has no ratio, and shifts none.
	r[their][1] = nil
	require.InDeltaSlice(t, []float64{0.5, 110.0 / 300}, r.Ratios(our, their, "x"), 1e-9)
	r[their] = r[their][:1]
	require.InDeltaSlice(t, []float64{0.5}, r.Ratios(our, their, "x"), 1e-9)
	require.Equal(t, []float64{200}, r.Values(their, "x"))
}

func gate() report.Gate {
	return report.Gate{
		Name: "g", Of: our, Against: their, Unit: "x", AtMost: 0.5,
		Limits: map[string]float64{scenario.Allocs: 1, scenario.Bytes: 48, scenario.Early: 0},
	}
}

func TestJudge(t *testing.T) {
	good := func() scenario.Metrics {
		return scenario.Metrics{"x": 50, scenario.Allocs: 1, scenario.Bytes: 48, scenario.Early: 0, scenario.Wrong: 0}
	}
	for name, test := range map[string]struct {
		change func(ours, theirs []scenario.Metrics)
		misses string
	}{
		"just met":               {func(_, _ []scenario.Metrics) {}, ""},
		"one slow pass of three": {func(o, _ []scenario.Metrics) { o[1]["x"] = 500 }, ""},
		"two slow passes":        {func(o, _ []scenario.Metrics) { o[1]["x"], o[2]["x"] = 52, 500 }, "ratio 0.520 > 0.5"},
		"the runtime's own":      {func(o, _ []scenario.Metrics) { o[1][scenario.Allocs], o[2][scenario.Bytes] = 1.001, 48.2 }, ""},
		"an allocation":          {func(o, _ []scenario.Metrics) { o[1][scenario.Allocs] = 2 }, "firebreak allocs/op: 2 > 1"},
		"one in ten calls":       {func(o, _ []scenario.Metrics) { o[1][scenario.Allocs] = 1.1 }, "firebreak allocs/op: 1.1 > 1"},
		"bytes":                  {func(o, _ []scenario.Metrics) { o[0][scenario.Bytes] = 64 }, "firebreak B/op: 64 > 48"},
		"early once":             {func(o, _ []scenario.Metrics) { o[2][scenario.Early] = 1 }, "firebreak early: 1 > 0"},
		"other work of ours":     {func(o, _ []scenario.Metrics) { o[2][scenario.Wrong] = 0.01 }, "firebreak wrong/op: 0.01 > 0.001"},
		"other work of theirs":   {func(_, t []scenario.Metrics) { t[0][scenario.Wrong], t[1][scenario.Wrong] = 1, 1 }, "other wrong/op: 1 > 0.001"},
		"theirs in one pass":     {func(_, t []scenario.Metrics) { t[0][scenario.Wrong] = 1 }, ""},
		"their allocations":      {func(_, t []scenario.Metrics) { t[0][scenario.Allocs], t[0][scenario.Early] = 9, 9 }, ""},
		"nothing to divide by":   {func(_, t []scenario.Metrics) { t[0], t[1], t[2] = nil, nil, nil }, "ratio NaN > 0.5"},
		"nothing of ours":        {func(o, _ []scenario.Metrics) { o[0], o[1], o[2] = nil, nil, nil }, "ratio NaN > 0.5"},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := []scenario.Metrics{good(), good(), good()}, []scenario.Metrics{good(), good(), good()}
			for _, m := range theirs {
				m["x"] = 100
			}
			test.change(ours, theirs)
			v := report.Judge(gate(), report.Results{our: ours, their: theirs})
			require.Equal(t, test.misses, strings.Join(v.Misses, "; "))
			require.Equal(t, test.misses == "", report.Met([]report.Verdict{v}))
			if test.misses != "" {
				require.Contains(t, v.String(), "MISSED: "+test.misses)
			}
		})
	}
}

func TestOneMissedGateIsEnough(t *testing.T) {
	met, missed := report.Verdict{}, report.Verdict{Misses: []string{"ratio"}}
	require.True(t, report.Met([]report.Verdict{met, met}))
	require.False(t, report.Met([]report.Verdict{met, missed, met}))
}

// A gate on a scenario or column that has another name by now would measure nothing.
func TestGatesAreOfWhatThereIs(t *testing.T) {
	for _, g := range report.Gates() {
		for _, c := range []report.Cell{g.Of, g.Against} {
			s, ok := scenario.Named(c.Scenario)
			require.True(t, ok, c.Scenario)
			require.Contains(t, s.Units, g.Unit)
			_, ok = columns.Named(c.Column)
			require.True(t, ok, c.Column)
		}
		require.Equal(t, "firebreak", g.Of.Column)
		s, _ := scenario.Named(g.Of.Scenario)
		for unit := range g.Limits {
			require.Contains(t, s.Units, unit)
			require.Contains(t, []string{scenario.Allocs, scenario.Bytes, scenario.Early}, unit, "the units that Judge looks at")
		}
	}
}

func TestCellsAreMeasuredOnce(t *testing.T) {
	g := gate()
	third := report.Cell{Scenario: "s", Column: "third"}
	h := g
	h.Against = third
	require.Equal(t, []report.Cell{our, their, third}, report.Cells([]report.Gate{g, h}))
}

func TestTable(t *testing.T) {
	s := scenario.Scenario{Name: "s", What: "what it is", Reference: "other", By: "x", Units: []string{"x", "y"}}
	r := report.Results{
		our:   {{"x": 50, "y": 1}, {"x": 60, "y": 1}},
		their: {{"x": 100, "y": 2000, scenario.Wrong: 0.25}, {"x": 120, "y": 2000, scenario.Wrong: 0.25}},
		report.Cell{Scenario: "s", Column: "none"}: {nil},
	}
	var out strings.Builder
	report.Table(&out, s, []string{"other", "firebreak", "none"}, r)
	require.Equal(t, `
### s

What it is.

| column | x | ± | y | ÷ other [quartiles] | passes | |
|---|--:|--:|--:|--:|--:|---|
| firebreak | 55.0 | 5 % | 1.00 | 0.50 [0.50–0.50] | 2 |  |
| other | 110 | 5 % | 2000 | 1.00 [1.00–1.00] | 2 | 25.0 % of the calls ended otherwise |
`, out.String())
}

// The tables of the README are those that the columns' own words make.
func TestReadmeSaysWhatColumnsDo(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	var out strings.Builder
	report.Capabilities(&out)
	for line := range strings.Lines(out.String()) {
		require.Contains(t, string(readme), line)
	}
}
