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
			fmt.Fprintf(w, "| %s |", column.Name)
			for _, what := range []string{d.Timeout, d.Limit, d.Breaker, d.Fallback, d.Metrics, d.Runs} {
				fmt.Fprintf(w, " %s |", cmp.Or(what, "–"))
			}
			fmt.Fprintln(w)
			if g.Close != nil {
				g.Close()
			}
		}
	}
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
