// Package report makes tables and verdicts of what was measured.
package report

import (
	"math"
	"slices"

	"github.com/firebreak-go/firebreak/benchmarks/scenario"
)

// A Cell is one column in one scenario.
type Cell struct{ Scenario, Column string }

// Results is what was measured of each cell, by pass. A column that does not do what
// the scenario asks has nil metrics, or no entry.
type Results map[Cell][]scenario.Metrics

// Values is one unit of a cell, by pass.
func (r Results) Values(c Cell, unit string) []float64 {
	var out []float64
	for _, m := range r[c] {
		if m != nil {
			out = append(out, m[unit])
		}
	}
	return out
}

// Ratios divides one cell by another, pass by pass: what slows the machine for a while
// slows both.
func (r Results) Ratios(of, by Cell, unit string) []float64 {
	var out []float64
	for pass := range min(len(r[of]), len(r[by])) {
		if x, y := r[of][pass], r[by][pass]; x != nil && y != nil {
			out = append(out, x[unit]/y[unit])
		}
	}
	return out
}

// Median is the middle value, or the mean of the two in the middle; NaN if there are none.
func Median(values []float64) float64 { return quantile(values, 0.5) }

// Quartiles are the values a quarter and three quarters of the way up.
func Quartiles(values []float64) (lower, upper float64) {
	return quantile(values, 0.25), quantile(values, 0.75)
}

// quantile goes in a straight line from each value to the next.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	below, part := math.Modf(q * float64(len(sorted)-1))
	i := int(below)
	if part == 0 {
		return sorted[i]
	}
	return sorted[i] + part*(sorted[i+1]-sorted[i])
}
