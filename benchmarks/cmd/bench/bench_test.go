package main

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak/benchmarks/report"
	"github.com/firebreak-go/firebreak/benchmarks/scenario"
)

// The test binary stands in for the program: measureInChild starts it again.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childVerb {
		main()
		return
	}
	os.Exit(m.Run())
}

var (
	our   = report.Cell{Scenario: "s", Column: "firebreak"}
	their = report.Cell{Scenario: "s", Column: "other"}
	gates = []report.Gate{{Name: "g", Of: our, Against: their, Unit: scenario.CPU, AtMost: 0.5}}
)

// measured answers with the next of ours, over and over, and 100 for theirs.
func measured(taken *int, ours ...float64) measureFunc {
	return func(cell report.Cell) (scenario.Metrics, error) {
		if cell == their {
			return scenario.Metrics{scenario.CPU: 100}, nil
		}
		m := scenario.Metrics{scenario.CPU: ours[*taken%len(ours)]}
		*taken++
		return m, nil
	}
}

func TestCheckIsMet(t *testing.T) {
	var out strings.Builder
	taken := 0
	require.NoError(t, check(gates, measured(&taken, 40), &out))
	require.Equal(t, firstPasses, taken)
	require.Contains(t, out.String(), "| met |")
	require.NotContains(t, out.String(), "more passes")
}

func TestCheckFailsForAMissedGate(t *testing.T) {
	var out strings.Builder
	taken := 0
	require.ErrorIs(t, check(gates, measured(&taken, 60), &out), errMissed)
	require.Equal(t, firstPasses+furtherPasses, taken)
	require.Contains(t, out.String(), "MISSED: ratio 0.600 > 0.5")
}

func TestTheCloserLookIsAtAllPasses(t *testing.T) {
	// Six of the first seven passes are bad and all the others good: 15 of 21.
	ours := append(slices.Repeat([]float64{60}, 6), slices.Repeat([]float64{40}, 15)...)
	var out strings.Builder
	taken := 0
	require.NoError(t, check(gates, measured(&taken, ours...), &out))
	require.Contains(t, out.String(), "A gate was missed: 14 more passes, and the verdict is on all 21.")
	require.Contains(t, out.String(), "| 21 | met |")

	// The first seven passes are bad and five of the others: 12 of 21. Of the last 14
	// alone, the median would be good.
	ours = append(slices.Repeat([]float64{60}, 12), slices.Repeat([]float64{40}, 9)...)
	taken = 0
	require.ErrorIs(t, check(gates, measured(&taken, ours...), &out), errMissed)
}

func TestCheckFailsForWhatCannotBeMeasured(t *testing.T) {
	broken := errors.New("broken")
	err := check(gates, func(report.Cell) (scenario.Metrics, error) { return nil, broken }, &strings.Builder{})
	require.ErrorIs(t, err, broken)

	err = check(gates, func(report.Cell) (scenario.Metrics, error) { return nil, nil }, &strings.Builder{})
	require.ErrorIs(t, err, errMissed)
}

func TestEveryOtherPassGoesBackwards(t *testing.T) {
	cells := []report.Cell{our, their, {Scenario: "s", Column: "cannot"}}
	results := report.Results{}
	var order []string
	measure := func(c report.Cell) (scenario.Metrics, error) {
		order = append(order, c.Column)
		if c.Column == "cannot" {
			return nil, nil
		}
		return scenario.Metrics{}, nil
	}
	for pass := range 3 {
		require.NoError(t, measurePass(results, cells, pass, measure))
	}
	require.Equal(t, []string{"firebreak", "other", "cannot", "other", "firebreak", "firebreak", "other"}, order)
	require.Len(t, results[our], 3)
}

func TestMeasureInChild(t *testing.T) {
	measure := measureInChild(time.Millisecond)
	m, err := measure(report.Cell{Scenario: "success/serial", Column: "direct"})
	require.NoError(t, err)
	require.Positive(t, m[scenario.CPU])
	require.InDelta(t, 0, m[scenario.Allocs], 0.01)

	m, err = measure(report.Cell{Scenario: "full", Column: "direct"})
	require.NoError(t, err)
	require.Nil(t, m, "it has no limit")

	_, err = measure(report.Cell{Scenario: "no such", Column: "direct"})
	require.ErrorContains(t, err, "no such scenario")
}

func TestTables(t *testing.T) {
	var out strings.Builder
	require.NoError(t, run([]string{"-run", "^success/serial$", "-columns", "direct|by-hand", "-passes", "2", "-time", "1ms"}, &out))
	require.Contains(t, out.String(), "### success/serial")
	require.Contains(t, out.String(), "| by-hand |")
	require.NotContains(t, out.String(), "gobreaker |")

	require.Error(t, run([]string{"-run", "("}, &out))
	require.Error(t, run([]string{"nonsense"}, &out))

	out.Reset()
	require.NoError(t, run([]string{"-list"}, &out))
	require.Contains(t, out.String(), "success/serial")
	require.Contains(t, out.String(), "hystrix-go")
}
