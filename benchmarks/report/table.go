package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
	"github.com/firebreak-go/firebreak/benchmarks/scenario"
)

// Table prints one scenario as markdown, the cheapest column first: medians over the
// passes, half the distance between the quartiles as the spread, and the ratio to the
// reference column.
func Table(w io.Writer, s scenario.Scenario, names []string, r Results) {
	var cells []Cell
	for _, name := range names {
		if c := (Cell{s.Name, name}); len(r.Values(c, s.By)) > 0 {
			cells = append(cells, c)
		}
	}
	if len(cells) == 0 {
		return
	}
	slices.SortStableFunc(cells, func(a, b Cell) int {
		return cmp.Compare(Median(r.Values(a, s.By)), Median(r.Values(b, s.By)))
	})

	fmt.Fprintf(w, "\n### %s\n\n%s.\n\n", s.Name, upperFirst(s.What))
	fmt.Fprintf(w, "| column | %s | ± |%s ÷ %s [quartiles] | passes | |\n", s.By, head(s.Units[1:]), s.Reference)
	fmt.Fprintf(w, "|---|--:|--:|%s--:|--:|---|\n", strings.Repeat("--:|", len(s.Units)-1))
	for _, c := range cells {
		values := r.Values(c, s.By)
		lower, upper := Quartiles(values)
		spread := "–"
		if m := Median(values); m > 0 {
			spread = fmt.Sprintf("%.0f %%", 50*(upper-lower)/m)
		}
		fmt.Fprintf(w, "| %s | %s | %s |", c.Column, number(Median(values)), spread)
		for _, unit := range s.Units[1:] {
			fmt.Fprintf(w, " %s |", number(Median(r.Values(c, unit))))
		}
		ratio := "–"
		if ratios := r.Ratios(c, Cell{s.Name, s.Reference}, s.By); len(ratios) > 0 {
			lower, upper := Quartiles(ratios)
			ratio = fmt.Sprintf("%s [%s–%s]", number(Median(ratios)), number(lower), number(upper))
		}
		note := ""
		if wrong := Median(r.Values(c, scenario.Wrong)); wrong > mostWrong {
			note = fmt.Sprintf("%.1f %% of the calls ended otherwise", 100*wrong)
		}
		fmt.Fprintf(w, " %s | %d | %s |\n", ratio, len(values), note)
	}
}

// Capabilities prints what each column really does.
func Capabilities(w io.Writer) {
	for _, mode := range []columns.Mode{columns.BreakerOnly, columns.Everything, columns.Pool} {
		fmt.Fprintf(w, "\n**%s**\n\n| column | timeout | limit | breaker | fallback | metrics | run is called by |\n|---|---|---|---|---|---|---|\n", upperFirst(mode.String()))
		for _, column := range columns.All() {
			if column.New == nil {
				continue
			}
			g := column.New(columns.Spec{Mode: mode, MaxConcurrent: 1, Timeout: 1e9, Fallback: mode != columns.BreakerOnly})
			if g == nil {
				fmt.Fprintf(w, "| %s | not to be had ||||||\n", column.Name)
				continue
			}
			d := g.Does
			row(w, column.Name, d.Timeout, d.Limit, d.Breaker, d.Fallback, d.Metrics, d.Runs)
			if g.Close != nil {
				g.Close()
			}
		}
	}
	fmt.Fprint(w, "\n**Gather**\n\n| column | a key that is there twice is fetched | when the context ends, keys that have not begun | a panic of fetch | goroutines |\n|---|---|---|---|---|\n")
	for _, column := range columns.All() {
		if column.Gather != nil {
			d := column.Gather.Does
			row(w, column.Name, d.Twice, d.Ended, d.Panic, d.Goroutines)
		}
	}
	fmt.Fprint(w, "\n**Cached**\n\n| column | fetch is called by | who waits and whose context ends | fetch when all have left | a panic of fetch |\n|---|---|---|---|---|\n")
	for _, column := range columns.All() {
		if column.Cache != nil {
			d := column.Cache.Does
			row(w, column.Name, d.Runs, d.Ended, d.AllLeft, d.Panic)
		}
	}
	fmt.Fprint(w, "\n**Collapse**\n\n| column | timeout | limit | breaker | metrics | a key that two ask for | who waits and whose context ends | load when all have left | a panic of load |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, column := range columns.All() {
		if column.Collapse != nil {
			d := column.Collapse.Does
			row(w, column.Name, d.Timeout, d.Limit, d.Breaker, d.Metrics, d.Twice, d.Ended, d.AllLeft, d.Panic)
		}
	}
}

func row(w io.Writer, name string, does ...string) {
	fmt.Fprintf(w, "| %s |", name)
	for _, what := range does {
		fmt.Fprintf(w, " %s |", cmp.Or(what, "–"))
	}
	fmt.Fprintln(w)
}

func head(units []string) string {
	var b strings.Builder
	for _, unit := range units {
		fmt.Fprintf(&b, " %s |", unit)
	}
	return b.String()
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// number has as many digits as can be told from noise.
func number(x float64) string {
	switch {
	case x == 0:
		return "0"
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	case x >= 0.1:
		return fmt.Sprintf("%.2f", x)
	default:
		return fmt.Sprintf("%.3f", x)
	}
}
