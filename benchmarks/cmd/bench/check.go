package main

import (
	"fmt"
	"io"

	"github.com/firebreak-go/firebreak/benchmarks/report"
)

const (
	firstPasses   = 7
	furtherPasses = 14 // once, if a gate is missed
)

// check measures what the gates need and prints a line for each. A noisy machine can make a
// gate look missed, so a miss gets one closer look: twice as many passes again, and the
// verdict on all of them together. No pass is ever left out.
func check(gates []report.Gate, measure measureFunc, out io.Writer) error {
	results := report.Results{}
	cells := report.Cells(gates)
	take := func(from, to int) error {
		for pass := from; pass < to; pass++ {
			if err := measurePass(results, cells, pass, measure); err != nil {
				return err
			}
		}
		return nil
	}

	if err := take(0, firstPasses); err != nil {
		return err
	}
	verdicts := judge(gates, results)
	if !report.Met(verdicts) {
		fmt.Fprintf(out, "After %d passes:\n\n", firstPasses)
		printVerdicts(out, verdicts)
		fmt.Fprintf(out, "\nA gate was missed: %d more passes, and the verdict is on all %d.\n\n", furtherPasses, firstPasses+furtherPasses)
		if err := take(firstPasses, firstPasses+furtherPasses); err != nil {
			return err
		}
		verdicts = judge(gates, results)
	}
	printVerdicts(out, verdicts)
	if !report.Met(verdicts) {
		return errMissed
	}
	return nil
}

func judge(gates []report.Gate, results report.Results) []report.Verdict {
	var verdicts []report.Verdict
	for _, g := range gates {
		verdicts = append(verdicts, report.Judge(g, results))
	}
	return verdicts
}

func printVerdicts(out io.Writer, verdicts []report.Verdict) {
	fmt.Fprintln(out, report.GateHeader)
	for _, v := range verdicts {
		fmt.Fprintln(out, v)
	}
}
