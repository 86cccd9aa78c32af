package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/firebreak-go/firebreak/benchmarks/scenario"
)

// A Gate is a promise about speed that firebreak has to keep.
type Gate struct {
	Name    string
	Of      Cell
	Against Cell
	Unit    string             // of the ratio
	AtMost  float64            // the median of the ratios of all passes
	Limits  map[string]float64 // further units of the cell Of, each in every pass
}

// Gates is the table of docs/design.md, Speed, row by row.
func Gates() []Gate {
	cpu := func(name, of string, against Cell, atMost float64, limits map[string]float64) Gate {
		return Gate{Name: name, Of: Cell{of, "firebreak"}, Against: against, Unit: scenario.CPU, AtMost: atMost, Limits: limits}
	}
	noAllocs := map[string]float64{scenario.Allocs: 0}
	oneAlloc := map[string]float64{scenario.Allocs: 1}
	oneSmallAlloc := map[string]float64{scenario.Allocs: 1, scenario.Bytes: 48}
	return []Gate{
		cpu("breaker only, success", "breaker/serial", Cell{"breaker/serial", "gobreaker"}, 0.7, noAllocs),
		cpu("everything on, success", "success/serial", Cell{"success/serial", "by-hand"}, 0.25, oneSmallAlloc),
		cpu("everything on, success", "success/serial", Cell{"success/serial", "hystrix-go"}, 0.03, nil),
		cpu("everything on, success", "success/serial", Cell{"success/serial", "failsafe-go"}, 0.08, nil),
		cpu("run calls Done", "done", Cell{"done", "by-hand"}, 1.1, nil),
		cpu("failure → fallback", "fallback", Cell{"fallback", "by-hand"}, 0.35, oneAlloc),
		cpu("open circuit", "open/serial", Cell{"open/serial", "gobreaker"}, 0.65, noAllocs),
		cpu("bulkhead full", "full", Cell{"open/serial", "gobreaker"}, 0.65, noAllocs),
		cpu("pool isolation", "pool/serial", Cell{"pool/serial", "by-hand"}, 0.75, map[string]float64{scenario.Allocs: 5}),
		{
			Name: "back at the deadline, 200 callers", Of: Cell{"lateness/pool-200", "firebreak"}, Against: Cell{"lateness/pool-200", "by-hand"},
			Unit: scenario.LateP50, AtMost: 1.3, Limits: map[string]float64{scenario.Early: 0},
		},
		cpu("snapshot of 1,000 commands", "snapshot", Cell{"snapshot", "floor"}, 1.5, noAllocs),
	}
}

// Cells are those that the gates need, each once, in the order of the gates.
func Cells(gates []Gate) []Cell {
	var cells []Cell
	for _, g := range gates {
		for _, c := range []Cell{g.Of, g.Against} {
			if !slices.Contains(cells, c) {
				cells = append(cells, c)
			}
		}
	}
	return cells
}

// A Verdict says how a gate was met, or by what it was missed.
type Verdict struct {
	Gate         Gate
	Ratio        float64 // median
	Lower, Upper float64 // quartiles
	Passes       int
	Worst        map[string]float64 // of the gate's Limits
	Misses       []string           // nothing: the gate is met
}

// slack is what a limit leaves to chance: the runtime allocates for itself now and then,
// which is less than this a call, and something that is really allocated is more.
var slack = map[string]float64{scenario.Allocs: 0.01, scenario.Bytes: 0.5}

// mostWrong is the share of calls that may end otherwise than the scenario says.
const mostWrong = 0.001

// limitUnits are the units that a gate can limit, in the order of a row.
var limitUnits = []string{scenario.Allocs, scenario.Bytes, scenario.Early}

// Judge holds a gate against all passes there are.
func Judge(g Gate, r Results) Verdict {
	ratios := r.Ratios(g.Of, g.Against, g.Unit)
	v := Verdict{Gate: g, Ratio: Median(ratios), Passes: len(ratios), Worst: map[string]float64{}}
	v.Lower, v.Upper = Quartiles(ratios)
	if !(v.Ratio <= g.AtMost) { // so that NaN, nothing was measured, is a miss
		v.Misses = append(v.Misses, fmt.Sprintf("ratio %.3f > %g", v.Ratio, g.AtMost))
	}
	if len(ratios) == 0 {
		return v
	}
	limit := func(c Cell, unit string, found, most float64) {
		if !(found <= most+slack[unit]) {
			v.Misses = append(v.Misses, fmt.Sprintf("%s %s: %.4g > %g", c.Column, unit, found, most))
		}
	}
	for _, unit := range limitUnits {
		if most, ok := g.Limits[unit]; ok {
			v.Worst[unit] = slices.Max(r.Values(g.Of, unit))
			limit(g.Of, unit, v.Worst[unit], most)
		}
	}
	// A column that does other work than the scenario says has no ratio worth having.
	// hystrix-go has passes in which it rejects a few calls by chance; they may be.
	limit(g.Of, scenario.Wrong, slices.Max(r.Values(g.Of, scenario.Wrong)), mostWrong)
	limit(g.Against, scenario.Wrong, Median(r.Values(g.Against, scenario.Wrong)), mostWrong)
	return v
}

// Met says if all gates are.
func Met(verdicts []Verdict) bool {
	return !slices.ContainsFunc(verdicts, func(v Verdict) bool { return len(v.Misses) > 0 })
}

// String is a row of the table that GateHeader heads.
func (v Verdict) String() string {
	against := v.Gate.Against.Column
	if v.Gate.Against.Scenario != v.Gate.Of.Scenario {
		against += ", " + v.Gate.Against.Scenario
	}
	var further []string
	for _, unit := range limitUnits {
		if most, ok := v.Gate.Limits[unit]; ok {
			further = append(further, fmt.Sprintf("%.3g %s (%g)", v.Worst[unit], unit, most))
		}
	}
	verdict := "met"
	if len(v.Misses) > 0 {
		verdict = "MISSED: " + strings.Join(v.Misses, "; ")
	}
	return fmt.Sprintf("| %-33s | %-22s | %5.3f [%5.3f–%5.3f] | %4g | %-34s | %d | %s |",
		v.Gate.Name, against, v.Ratio, v.Lower, v.Upper, v.Gate.AtMost, strings.Join(further, ", "), v.Passes, verdict)
}

// GateHeader is the head of the table of verdicts.
const GateHeader = "| gate | against | ratio [quartiles] | at most | worst pass (at most) | passes | verdict |\n" +
	"|---|---|--:|--:|---|--:|---|"
