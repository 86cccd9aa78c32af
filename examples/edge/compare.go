package main

import (
	"context"
	"fmt"
	"html/template"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// A pair is one scenario, played twice.
type pair struct{ guarded, bare *run }

// runCompare plays all scenarios with and without protection, and writes the page.
func runCompare(ctx context.Context, o options, stdout io.Writer) (status int, err error) {
	fmt.Fprintf(stdout, "%d scenarios, twice, %v each …\n", len(scenarios), o.duration)
	pairs, err := compare(ctx, scenarios, o.duration, stdout, play)
	if err != nil {
		return statusBroken, err
	}
	for _, p := range pairs {
		status = max(status, p.guarded.exitStatus(), p.bare.exitStatus())
	}
	if status == statusInterrupted {
		fmt.Fprintln(stdout, "interrupted: no page was written")
		return status, nil
	}
	fmt.Fprintln(stdout, "thirty dependencies, simulated and measured …")
	rows := availabilities(ctx, dependencyAnswers, 1_000_000, 200_000)
	if ctx.Err() != nil {
		return statusInterrupted, nil
	}

	f, err := os.Create(o.out)
	if err != nil {
		return statusBroken, err
	}
	defer f.Close()
	if err := writePage(f, pairs, rows); err != nil {
		return statusBroken, err
	}
	if err := f.Close(); err != nil {
		return statusBroken, err
	}
	fmt.Fprintln(stdout, "written:", o.out)
	return status, nil
}

// A player is play, or what has the runs already.
type player func(_ context.Context, _ scenario, _ time.Duration, without bool) (*run, error)

// compare plays each scenario with protection and without. It ends with a pair that was
// interrupted.
func compare(ctx context.Context, all []scenario, duration time.Duration, stdout io.Writer, play player) (pairs []pair, err error) {
	for _, s := range all {
		var p pair
		if p.guarded, err = play(ctx, s, duration, false); err != nil {
			return pairs, err
		}
		p.guarded.write(stdout)
		if p.bare, err = play(ctx, s, duration, true); err != nil {
			return pairs, err
		}
		p.bare.write(stdout)
		pairs = append(pairs, p)
		if p.bare.interrupted {
			break
		}
	}
	return pairs, nil
}

// writePage writes a page that needs nothing but itself.
func writePage(w io.Writer, pairs []pair, rows []availability) error {
	type view struct {
		Name, About       string
		Answered, Latency template.HTML
		Rows              []tableRow
		With, Without     string // the reports
		Neighbours        string
	}
	var views []view
	for _, p := range pairs {
		v := view{
			Name: p.guarded.Name, About: p.guarded.About,
			Answered: answeredPlot(p), Latency: latencyPlot(p),
			Rows:       []tableRow{newTableRow(p.guarded), newTableRow(p.bare)},
			Neighbours: strings.Join(p.guarded.neighbours(), " and "),
		}
		var with, without strings.Builder
		p.guarded.write(&with)
		p.bare.write(&without)
		v.With, v.Without = with.String(), without.String()
		views = append(views, v)
	}
	last := rows[len(rows)-1]
	return pageTemplate.Execute(w, map[string]any{
		"Pairs": views, "Plot": availabilityPlot(rows), "Rate": rate, "Workers": workers,
		"ClientTimeout": clientTimeout, "Go": runtime.Version(), "CPUs": runtime.NumCPU(),
		"Dependencies": last.dependencies, "Arithmetic": fmt.Sprintf("%.3f", last.arithmetic), "Simulated": fmt.Sprintf("%.3f", last.simulated),
		"Bare": fmt.Sprintf("%.3f", last.bare), "Fallbacks": fmt.Sprintf("%.3f", last.fallbacks),
		"Duration": pairs[0].guarded.duration,
	})
}

// A tableRow is one run in the page's table.
type tableRow struct {
	With                                     string
	Answered, AnsweredDuring                 string
	HomeBefore, HomeDuring                   string // p99
	NeighbourBefore, NeighbourDuring, Opened string
	Recovered, Verdict                       string
}

func newTableRow(r *run) tableRow {
	home := func(e *endpoint) bool { return strings.HasSuffix(e.name, "/home") }
	all := measure(r.samples, func(*sample) bool { return true })
	d := r.of(during, anyEndpoint)
	t := tableRow{
		With:     r.with(),
		Answered: share(all.answered, all.requests), AnsweredDuring: share(d.answered, d.requests),
		HomeBefore: short(r.of(before, home).p99), HomeDuring: short(r.of(during, home).p99),
		NeighbourBefore: "–", NeighbourDuring: "–", Opened: "–", Recovered: "–",
	}
	if len(r.neighbours()) > 0 {
		t.NeighbourBefore = short(r.of(before, isNeighbour(r.ill())).p99)
		t.NeighbourDuring = short(r.of(during, isNeighbour(r.ill())).p99)
	}
	if circuits := r.circuits(); len(circuits) > 0 {
		var worst time.Duration
		t.Opened = fmt.Sprint(len(circuits))
		for _, c := range circuits {
			worst = max(worst, c.toClose)
		}
		t.Recovered = short(worst)
		for _, c := range circuits {
			if !c.closed {
				t.Recovered = "not"
			}
		}
	}
	promises, notJudged := r.judge()
	kept := 0
	for _, p := range promises {
		if p.kept {
			kept++
		}
	}
	t.Verdict = fmt.Sprintf("%d of %d", kept, len(promises))
	if notJudged != "" {
		t.Verdict = "not judged: " + notJudged
	}
	return t
}

var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>firebreak: five incidents, with and without</title>
<style>
:root { color-scheme: light dark; --text: #222; --dim: #666; --line: #ddd; --back: #fff; --with: #0072b2; --without: #d55e00; --incident: #8881 }
@media (prefers-color-scheme: dark) { :root { --text: #eee; --dim: #aaa; --line: #444; --back: #16181c; --with: #56b4e9; --without: #e69f00; --incident: #fff1 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 3rem } .dim, figcaption { color: var(--dim); font-size: .9rem }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 1rem }
figure { margin: 0 } svg { width: 100%; height: auto; font: 12px system-ui, sans-serif }
svg text { fill: var(--dim) } .axis { stroke: var(--line) } .incident { fill: var(--incident) }
.with { stroke: var(--with); fill: none; stroke-width: 2 } .without { stroke: var(--without); fill: none; stroke-width: 2; stroke-dasharray: 6 3 }
.dot-with { fill: var(--with) } .dot-without { fill: var(--without) } .ring { fill: none; stroke: var(--text) } .law { stroke: var(--dim); fill: none }
svg text.label-with { fill: var(--with) } svg text.label-without { fill: var(--without) }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem }
th, td { padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right; vertical-align: bottom } th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; white-space: nowrap }
.one { max-width: 40rem }
pre { font-size: 12px; overflow-x: auto }
</style></head><body>
<h1>Five incidents, with and without</h1>
<p>An edge with {{.Workers}} workers and twelve backends, all real HTTP servers on loopback, in one process; {{.Rate}} pages asked for
each second, {{.Duration}} for each run. Without protection does not mean without care: the same fallbacks answer, calls are collapsed and cached
as before, and the HTTP clients have a timeout of {{.ClientTimeout}}. What is missing is circuits, bulkheads and timeouts to suit each command.</p>
<div class="wide"><table><thead><tr><th>scenario<th>run<th>answered<th>during the incident<th>p99 of homes, before<th>during<th>p99 of neighbours, before<th>during<th>circuits opened<th>closed after recovery<th>promises kept</tr></thead><tbody>
{{range .Pairs}}{{$name := .Name}}{{range .Rows}}<tr><td>{{$name}}<td>{{.With}}<td>{{.Answered}}<td>{{.AnsweredDuring}}<td>{{.HomeBefore}}<td>{{.HomeDuring}}<td>{{.NeighbourBefore}}<td>{{.NeighbourDuring}}<td>{{.Opened}}<td>{{.Recovered}}<td>{{.Verdict}}</tr>
{{end}}{{end}}</tbody></table></div>
<p class="dim">A page is answered if it is the right one and comes within two seconds; one that does not counts with its wait. Neighbours are the pages that need none of the backends that are ill. Nothing can stand in for a licence: where licences is ill, /tv/play counts as not answered.</p>
{{range .Pairs}}
<h2 id="{{.Name}}">{{.Name}}</h2>
<p>{{.About}}</p>
<div class="plots">
<figure>{{.Answered}}<figcaption>Pages answered, in percent. The band is the incident.</figcaption></figure>
<figure>{{.Latency}}<figcaption>The 99th percentile of {{if .Neighbours}}the neighbours, {{.Neighbours}}{{else}}all pages: this incident has no neighbours{{end}}; the scale is logarithmic.</figcaption></figure>
</div>
<details><summary>the reports</summary><pre>{{.With}}</pre><pre>{{.Without}}</pre></details>
{{end}}
<h2 id="availability">Thirty dependencies at 99.99 %</h2>
<p>A page that needs {{.Dependencies}} dependencies, each of which answers 99.99 % of its calls, is there in {{.Arithmetic}} % of all cases:
the arithmetic. Tossing coins says {{.Simulated}} %; calls through as many commands without fallbacks, {{.Bare}} %; the same with fallbacks, {{.Fallbacks}} %.</p>
<figure class="one">{{.Plot}}<figcaption>Pages that have all they need, by the number of dependencies. The line is the arithmetic, rings are a simulation that knows
no commands (1,000,000 pages), dots are measured on commands (200,000 pages each) whose functions are in this process and fail one call in ten thousand.</figcaption></figure>
<p class="dim">{{.Go}}, {{.CPUs}} processors.</p>
</body></html>
`))
