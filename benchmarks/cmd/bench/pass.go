package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
	"github.com/firebreak-go/firebreak/benchmarks/report"
	"github.com/firebreak-go/firebreak/benchmarks/scenario"
)

// measureFunc measures one cell once; nil metrics if the column does not do that.
type measureFunc func(report.Cell) (scenario.Metrics, error)

// measurePass measures every cell once more. Every other pass goes backwards: a load of the
// machine that grows or falls does not favour the column that comes first.
func measurePass(results report.Results, cells []report.Cell, pass int, measure measureFunc) error {
	cells = slices.Clone(cells)
	if pass%2 == 1 {
		slices.Reverse(cells)
	}
	for _, cell := range cells {
		if done := results[cell]; len(done) > 0 && done[0] == nil {
			continue // the first pass found that the column does not do this
		}
		m, err := measure(cell)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", cell.Scenario, cell.Column, err)
		}
		results[cell] = append(results[cell], m)
	}
	return nil
}

const childVerb = "measure"

// measureInChild starts this program again for one cell.
func measureInChild(each time.Duration) measureFunc {
	return func(cell report.Cell) (scenario.Metrics, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, self, childVerb, cell.Scenario, cell.Column, each.String())
		var out, problem bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &problem
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, problem.Bytes())
		}
		var m scenario.Metrics
		err = json.Unmarshal(out.Bytes(), &m)
		return m, err
	}
}

// child measures one cell and prints the metrics.
func child(args []string, out io.Writer) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: %s SCENARIO COLUMN TIME", childVerb)
	}
	s, ok := scenario.Named(args[0])
	if !ok {
		return fmt.Errorf("no such scenario: %s", args[0])
	}
	column, ok := columns.Named(args[1])
	if !ok {
		return fmt.Errorf("no such column: %s", args[1])
	}
	testing.Init() // its loop is the one that go test has, and heeds the same flag
	if err := flag.Set("test.benchtime", args[2]); err != nil {
		return err
	}
	runtime.GOMAXPROCS(s.Procs)
	m, err := s.Measure(column)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(m)
}
