package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/firebreak-go/firebreak"
)

const (
	// A quote asks both APIs at the same time, so that its worst wait is one timeout. On
	// top come its own trip over loopback and a busy machine, and again what that machine
	// was late at the time: a quote needs many goroutines to be woken one after the
	// other, each of which can be as late as those that send the requests were.
	maxP99  = timeout + 150*time.Millisecond
	wakeUps = 4

	// A machine on which timers alone are so late (99th percentile) cuts calls off
	// before their answers have had a chance. Nothing is judged.
	maxLate = 100 * time.Millisecond
)

// A report is what the story has shown, as text and as an exit status.
type report struct {
	strings.Builder
	status int
}

func newReport(s *story, interrupted bool) *report {
	s.mu.Lock() // a visitor may have given up before the shop has
	defer s.mu.Unlock()
	r := &report{}
	fmt.Fprintf(r, "\n%-30s %7s %9s %6s %11s %11s %8s %8s   %-10s %s\n",
		"", "quotes", "answered", "exact", "list price", "stale rate", "p50", "p99", "prices", "rates")
	var figs [numPhases]figures
	for p := range numPhases {
		f := measure(s.samples, func(x sample) bool { return x.phase == p })
		if f.requests == 0 {
			continue // Ctrl-C came first
		}
		fmt.Fprintf(r, "%-30s %7d %9d %6d %11d %11d %8v %8v   %-10s %s\n",
			phases[p].name, f.requests, f.answered, f.exact, f.list, f.stale, f.p50, f.p99, s.states[p]["prices"], s.states[p]["rates"])
		figs[p] = f
	}
	fmt.Fprint(r, "\np50 and p99 are those of /quote; the circuits are as they stood at the phase's end.\n\n")

	prices := circuitOf("prices", s.transitions, s.begin(bothSick), s.begin(after))
	rates := circuitOf("rates", s.transitions, s.begin(oneHangs), s.begin(after))
	fmt.Fprintf(r, "%v%v\n", prices, rates)

	all := measure(s.samples, func(sample) bool { return true })
	switch {
	case interrupted:
		r.status = statusInterrupted
		fmt.Fprintln(r, "Not judged: interrupted.")
		return r
	case all.late > maxLate:
		fmt.Fprintf(r, "Not judged: the machine is too busy, requests were sent %v late.\n", all.late)
		return r
	}
	r.judge(all.answered == all.requests, "every quote is answered: %d of %d", all.answered, all.requests)
	for _, p := range []phase{oneHangs, bothSick} {
		bound := maxP99 + wakeUps*figs[p].late
		r.judge(figs[p].p99 <= bound, "%s: the timeout of %v bounds the p99: %v (at most %v)", phases[p].name, timeout, figs[p].p99, bound)
	}
	r.judge(prices.opened && prices.closed, "the circuit of prices opens, and closes again")
	r.judge(rates.opened && rates.closed, "the circuit of rates opens, and closes again")
	return r
}

func (r *report) judge(kept bool, format string, args ...any) {
	verdict := "kept"
	if !kept {
		verdict = "BROKEN"
		r.status = statusBroken
	}
	fmt.Fprintf(r, "%-7s %s\n", verdict, fmt.Sprintf(format, args...))
}

// figures are about some requests. Times are rounded: more digits would say nothing.
type figures struct {
	requests, answered, exact, list, stale int
	p50, p99                               time.Duration // of all requests: one without an answer counts with its wait
	late                                   time.Duration // the 99th percentile
}

func measure(samples []sample, which func(sample) bool) (f figures) {
	var took, late []time.Duration
	for _, x := range samples {
		if !which(x) {
			continue
		}
		f.requests++
		took, late = append(took, x.took), append(late, x.late)
		if !x.answered {
			continue
		}
		f.answered++
		if len(x.quote.Approximate) == 0 {
			f.exact++
		}
		if slices.Contains(x.quote.Approximate, isListPrice) {
			f.list++
		}
		if slices.Contains(x.quote.Approximate, isStaleRate) {
			f.stale++
		}
	}
	f.p50, f.p99, f.late = percentile(took, 50), percentile(took, 99), percentile(late, 99)
	return f
}

// percentile returns the nearest rank: the least of the values that p percent of them
// do not exceed. It is 0 if there are none.
func percentile(of []time.Duration, p float64) time.Duration {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	rank := int(math.Ceil(p / 100 * float64(len(of))))
	return round(of[max(rank, 1)-1])
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond / 10) }

// A circuit is what became of one.
type circuit struct {
	command        string
	opened, closed bool                 // while its API was sick, and for good once it was well
	opening        firebreak.Transition // the first
	toOpen         time.Duration        // since the API fell ill
	toClose        time.Duration        // since it was well
	failedProbes   int
}

// circuitOf finds in all transitions what became of the circuit of a command whose API
// was sick from one moment until another.
func circuitOf(command string, transitions []firebreak.Transition, sick, healed time.Time) circuit {
	c := circuit{command: command}
	for _, t := range transitions {
		switch {
		case t.Command != command || t.At.Before(sick):
		case t.To == firebreak.StateClosed:
			c.closed, c.toClose = true, t.At.Sub(healed)
		case t.From == firebreak.StateHalfOpen:
			c.failedProbes++
		case t.From == firebreak.StateClosed:
			if !c.opened && t.At.Before(healed) {
				c.opened, c.opening, c.toOpen = true, t, t.At.Sub(sick)
			}
			c.closed = false
		}
	}
	return c
}

// String is the evidence: why and how long.
func (c circuit) String() string {
	if !c.opened {
		return ""
	}
	e := &c.opening.Evidence
	sleep, why := round(e.NextProbe.Sub(e.At)), "its sleep window"
	if sleep > settings.SleepWindow {
		why = "as the API's Retry-After asked"
	}
	closed := "It has not closed again."
	if c.closed {
		closed = fmt.Sprintf("It closed %v after the API was well.", round(c.toClose))
	}
	return fmt.Sprintf("The circuit of %s opened %v after the trouble began: %s, %d of %d calls,\n"+
		"  the last with %q. It slept %v, %s; probes that failed: %d.\n  %s\n",
		c.command, round(c.toOpen), e.Rule, e.Failures, e.Calls, e.LastError, sleep, why, c.failedProbes, closed)
}
