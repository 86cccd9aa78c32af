// Command bench compares firebreak with other libraries, and checks that it is as fast
// as it promises.
//
//	bench [-run regexp] [-columns regexp] [-passes n] [-time d]   tables of all scenarios
//	bench -check                                                  the gates; exit status 1 if one is missed
//	bench -can                                                    what each column really does
//	bench -list                                                   the names of scenarios and columns
//
// A pass measures every cell (a column in a scenario) once, one after the other, each in a
// process of its own: no column pays for what another left behind, garbage or goroutines.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
	"github.com/firebreak-go/firebreak/benchmarks/report"
	"github.com/firebreak-go/firebreak/benchmarks/scenario"
)

var errMissed = errors.New("a gate was missed")

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) > 0 && args[0] == childVerb {
		return child(args[1:], out)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	checks := flags.Bool("check", false, "hold firebreak against the gates of docs/design.md, Speed")
	can := flags.Bool("can", false, "print what each column really does")
	list := flags.Bool("list", false, "print the names of scenarios and columns")
	scenarios := flags.String("run", "", "only scenarios that match `regexp`")
	which := flags.String("columns", "", "only columns that match `regexp`")
	passes := flags.Int("passes", 5, "how often everything is measured; what takes seconds, twice at most")
	each := flags.Duration("time", 100*time.Millisecond, "how long calls are looped over, in each pass")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("what is %q?", flags.Arg(0))
	}
	switch {
	case *checks:
		return check(report.Gates(), measureInChild(150*time.Millisecond), out)
	case *can:
		report.Capabilities(out)
		return nil
	case *list:
		for _, s := range scenario.All() {
			fmt.Fprintf(out, "%-20s %s\n", s.Name, s.What)
		}
		fmt.Fprintln(out, "\ncolumns:", strings.Join(columnNames(regexp.MustCompile("")), " "))
		return nil
	}
	scenarioPattern, err := regexp.Compile(*scenarios)
	if err != nil {
		return err
	}
	columnPattern, err := regexp.Compile(*which)
	if err != nil {
		return err
	}
	return tables(scenarioPattern, columnNames(columnPattern), *passes, measureInChild(*each), out)
}

// heavyPasses is enough for what takes seconds: bytes do not vary.
const heavyPasses = 2

func tables(pattern *regexp.Regexp, names []string, passes int, measure measureFunc, out io.Writer) error {
	var all, light []report.Cell
	for _, s := range scenario.All() {
		if !pattern.MatchString(s.Name) {
			continue
		}
		for _, name := range names {
			cell := report.Cell{Scenario: s.Name, Column: name}
			all = append(all, cell)
			if !s.Heavy {
				light = append(light, cell)
			}
		}
	}
	results := report.Results{}
	for pass := range passes {
		fmt.Fprintf(os.Stderr, "pass %d of %d\n", pass+1, passes)
		cells := all
		if pass >= heavyPasses {
			cells = light
		}
		if err := measurePass(results, cells, pass, measure); err != nil {
			return err
		}
	}
	for _, s := range scenario.All() {
		report.Table(out, s, names, results)
	}
	return nil
}

func columnNames(pattern *regexp.Regexp) []string {
	var names []string
	for _, c := range columns.All() {
		if pattern.MatchString(c.Name) {
			names = append(names, c.Name)
		}
	}
	return names
}
