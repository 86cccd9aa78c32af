package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// What a run with firebreak promises.
const (
	// Of the pages that have fallbacks for all that is ill.
	minAnsweredPercent = 99.0

	// During the incident the 99th percentile of the neighbours, pages that need none of
	// what is ill, stays below this multiple of what it was before, or below a floor, as
	// there are few pages in a short run and the slowest of a few is a matter of luck.
	// On top comes what the machine itself was late: a page needs so many goroutines to
	// be woken one after the other, and each can be as late as those that send the
	// requests were at the same time.
	maxNeighbourFactor = 1.5
	neighbourFloor     = 120 * time.Millisecond
	wakeUps            = 4

	// Once a backend is well again, its circuit closes within two sleep windows: the
	// one that may just have begun, and one more should its probe be unlucky. A probe
	// takes as long as a call may; the rest is for the next page to come by.
	maxTimeToRecover = 2*sleepWindow + maxTimeout + 350*time.Millisecond

	// Where there is no fallback, half of the refusals are this quick, once the circuit
	// has had half of the incident to open in.
	maxRefusal = 50 * time.Millisecond

	// A machine on which timers alone are so late (99th percentile) cuts calls off
	// before their answers have had a chance, whoever makes them. Nothing is judged.
	maxLate = 150 * time.Millisecond
)

// A promise is judged in a run without firebreak too, where nobody made it.
type promise struct {
	text, measured, bound string
	kept                  bool
}

const interruption = "interrupted"

// judge returns what was promised and what became of it, or why nothing can be said.
func (r *run) judge() (promises []promise, notJudged string) {
	all := measure(r.samples, func(*sample) bool { return true })
	switch {
	case r.interrupted:
		return nil, interruption
	case all.late > maxLate:
		return nil, fmt.Sprintf("the machine is too busy: requests were sent %s late", short(all.late))
	}
	add := func(kept bool, text, measured, bound string) {
		promises = append(promises, promise{text, measured, bound, kept})
	}
	ill := r.ill()

	f := measure(r.samples, func(s *sample) bool {
		return s.endpoint.noFallback == "" || !slices.Contains(ill, s.endpoint.noFallback)
	})
	add(f.answeredPercent() >= minAnsweredPercent, "pages that have fallbacks are answered",
		fmt.Sprintf("%.2f%% of %d", f.answeredPercent(), f.requests), fmt.Sprintf("at least %v%%", minAnsweredPercent))

	if neighbours := r.neighbours(); len(neighbours) > 0 {
		was, is := r.of(before, isNeighbour(ill)), r.of(during, isNeighbour(ill))
		bound := max(time.Duration(maxNeighbourFactor*float64(was.p99)), neighbourFloor) + wakeUps*is.late
		add(is.p99 <= bound, "p99 of the neighbours, "+strings.Join(neighbours, " and "),
			fmt.Sprintf("%s, before %s", short(is.p99), short(was.p99)),
			fmt.Sprintf("at most %s: %v × before but no less than %s, plus %s for late timers", short(bound), maxNeighbourFactor, short(neighbourFloor), short(wakeUps*is.late)))
	}
	for _, e := range endpoints {
		if slices.Contains(ill, e.noFallback) {
			r.judgeFailFast(e, add)
		}
	}
	if !r.unguarded { // else there are no circuits
		r.judgeCircuits(add)
	}
	return promises, ""
}

func anyEndpoint(*endpoint) bool { return true }

func isNeighbour(of []string) func(*endpoint) bool {
	return func(e *endpoint) bool { return e.neighbour(of) }
}

func (r *run) neighbours() (names []string) {
	for _, e := range endpoints {
		if e.neighbour(r.ill()) {
			names = append(names, e.name)
		}
	}
	return names
}

// judgeFailFast looks at what came in the second half of the time its backend was ill.
func (r *run) judgeFailFast(e *endpoint, add func(bool, string, string, string)) {
	from, to := r.illness(e.noFallback)
	middle := from.Add(to.Sub(from) / 2)
	f := measure(r.samples, func(s *sample) bool {
		return s.endpoint == e && !s.answered && !s.due.Before(middle) && s.due.Before(to)
	})
	if f.requests == 0 {
		return
	}
	bound := maxRefusal + wakeUps*f.late
	add(f.p50 <= bound, fmt.Sprintf("without %s, %s fails fast", e.noFallback, e.name),
		fmt.Sprintf("half within %s, %d of %d with 503", short(f.p50), f.refused, f.requests), "at most "+short(bound))
}

func (r *run) judgeCircuits(add func(bool, string, string, string)) {
	circuits := r.circuits()
	for _, name := range r.ill() {
		of := slices.DeleteFunc(slices.Clone(circuits), func(c circuit) bool { return c.dependency != name })
		if len(of) == 0 {
			if r.mustOpen(name) {
				add(false, "the circuit of "+name+" opens", "never", "while it is ill")
			}
			continue
		}
		worst, closed := time.Duration(0), true
		for _, c := range of {
			worst, closed = max(worst, c.toClose), closed && c.closed
		}
		measured := "after " + short(worst)
		if !closed {
			measured = "never"
		}
		add(closed && worst <= maxTimeToRecover, "once "+name+" is well, its circuit closes", measured, "within "+short(maxTimeToRecover))
	}
}

// mustOpen tells whether a backend was so ill for so long that its circuit must open:
// what was well has left the window, and the calls made then have had their timeout.
func (r *run) mustOpen(backend string) bool {
	return slices.ContainsFunc(r.Steps, func(x step) bool {
		total := x.Trouble == hang || x.Trouble == fail || x.Trouble == drop
		return x.Backend == backend && total && r.at(x.To).Sub(r.at(x.From)) >= window+maxTimeout+350*time.Millisecond
	})
}

// exitStatus is what the run says to scripts.
func (r *run) exitStatus() int {
	promises, notJudged := r.judge()
	broken := slices.ContainsFunc(promises, func(p promise) bool { return !p.kept })
	switch {
	case notJudged == interruption:
		return statusInterrupted
	case !r.unguarded && broken:
		return statusBroken
	default:
		return 0
	}
}

// write prints the report.
func (r *run) write(w io.Writer) {
	from, to := r.incident()
	fmt.Fprintf(w, "\n%s, %s: %s\n", r.Name, r.with(), r.About)
	fmt.Fprintf(w, "%s, %d pages a second; the incident is from %s to %s\n\n",
		short(r.duration), rate, short(from.Sub(r.start)), short(to.Sub(r.start)))

	fmt.Fprintf(w, "%-12s", "answered")
	for p := range numParts {
		fmt.Fprintf(w, "  %8s  %8s", p, "fallback")
	}
	fmt.Fprintln(w)
	for _, device := range devices() {
		fmt.Fprintf(w, "%-12s", device)
		for p := range numParts {
			f := r.of(p, func(e *endpoint) bool { return e.device() == device })
			fmt.Fprintf(w, "  %8s  %8s", share(f.answered, f.requests), share(f.degraded, f.requests))
		}
		fmt.Fprintln(w)
	}

	all := measure(r.samples, func(*sample) bool { return true })
	fmt.Fprintf(w, "\n%d of %d pages were answered", all.answered, all.requests)
	if others := all.requests - all.answered; others > 0 {
		fmt.Fprintf(w, "; of the other %d, %d were refused with a 503, the rest had no answer in %v", others, all.refused, patience)
	}
	fmt.Fprintln(w, ".")

	fmt.Fprintf(w, "\n%-12s", "latency")
	for p := range numParts {
		fmt.Fprintf(w, "  %8s  %8s", p.String()+" p50", "p99")
	}
	fmt.Fprintln(w)
	for _, e := range endpoints {
		fmt.Fprintf(w, "%-12s", e.name)
		for p := range numParts {
			f := r.of(p, func(x *endpoint) bool { return x == e })
			fmt.Fprintf(w, "  %10s  %8s", short(f.p50), short(f.p99))
		}
		fmt.Fprintln(w)
	}

	r.writeCircuits(w)
	s := r.saved
	fmt.Fprintf(w, "\nCalls saved: %d answered from the request's own cache; %d keys collapsed into %d calls.\n", s.Cached, s.Keys, s.Batches)
	fmt.Fprintf(w, "Calls refused by circuits and bulkheads: %d. Answers by fallbacks: %d.\n", s.Refused, s.Fallbacks)
	var asked []string
	for _, name := range r.ill() {
		asked = append(asked, fmt.Sprintf("%s %d", name, r.asked[name]))
	}
	fmt.Fprintf(w, "Asked while something was ill: %s times.\n", strings.Join(asked, ", "))

	if len(r.logs) > 0 {
		fmt.Fprintln(w, "\nRequest logs of the incident, one of each page:")
		for _, e := range r.logs {
			fmt.Fprintf(w, "%-12s %s\n", e.Endpoint, e.Calls)
		}
	}

	fmt.Fprintln(w)
	promises, notJudged := r.judge()
	if notJudged != "" {
		fmt.Fprintf(w, "Not judged: %s.\n", notJudged)
	}
	for _, p := range promises {
		fmt.Fprintf(w, "%-7s %s: %s (%s)\n", p.verdict(r), p.text, p.measured, p.bound)
	}
}

func (p promise) verdict(r *run) string {
	switch {
	case p.kept:
		return "kept"
	case r.unguarded: // nobody promised
		return "no"
	default:
		return "BROKEN"
	}
}

func (r *run) with() string {
	if r.unguarded {
		return "without protection"
	}
	return "with firebreak"
}

func (r *run) writeCircuits(w io.Writer) {
	circuits := r.circuits()
	if len(circuits) == 0 {
		fmt.Fprintln(w, "\nNo circuit opened.")
		return
	}
	fmt.Fprintf(w, "\n%-24s  %-10s  %-32s  %-14s  %s\n", "circuit", "opened", "by", "failed probes", "closed after recovery")
	for _, c := range circuits {
		closed := "no"
		if c.closed {
			closed = short(c.toClose)
		}
		e := c.first.Evidence
		fmt.Fprintf(w, "%-24s  %-10s  %-32s  %-14d  %s\n", c.command, "+"+short(c.toOpen),
			fmt.Sprintf("%s, %d of %d", e.Rule, max(e.Failures, e.Slow), e.Calls), c.opened-1, closed)
	}
}

func devices() (names []string) {
	for _, e := range endpoints {
		if !slices.Contains(names, e.device()) {
			names = append(names, e.device())
		}
	}
	return names
}

func share(part, whole int) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(part)/float64(whole))
}

// short leaves out digits that say nothing.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(100 * time.Microsecond).String()
	}
}
