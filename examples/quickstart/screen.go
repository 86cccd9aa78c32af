package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/firebreak-go/firebreak"
)

const width = 100

// A screen shows how it goes, once a second: on a terminal as a page drawn over the
// last one, elsewhere as a line.
type screen struct {
	w        io.Writer // nil shows nothing
	terminal bool
	colour   bool
	drawn    int // lines of the page that is there now
}

func newScreen(w io.Writer) *screen {
	terminal := isTerminal(w)
	return &screen{w: w, terminal: terminal, colour: terminal && os.Getenv("NO_COLOR") == ""}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// say shows a line that stays.
func (s *screen) say(line string) {
	if s.w != nil {
		fmt.Fprintln(s.w, line)
	}
}

// play lets the visitors loose and shows what happens, until the last has left.
func (s *screen) play(ctx context.Context, script *script, reg *firebreak.Registry, visitors *load) {
	left := make(chan struct{})
	go func() {
		defer close(left)
		visitors.run(ctx)
	}()
	if s.terminal {
		fmt.Fprint(s.w, "\x1b[?25l") // a cursor that jumps about helps nobody
		defer fmt.Fprint(s.w, "\x1b[?25h")
	}

	second := time.NewTicker(time.Second)
	defer second.Stop()
	var last *view
	for {
		select {
		case now := <-second.C:
			last = newView(last, now, script, reg, visitors)
			s.show(last)
		case <-left:
			return
		}
	}
}

func (s *screen) show(v *view) {
	switch {
	case s.w == nil:
	case !s.terminal:
		fmt.Fprintln(s.w, strings.TrimSpace(clip(v.line(), width)))
	default:
		var b strings.Builder
		if s.drawn > 0 {
			fmt.Fprintf(&b, "\x1b[%dA", s.drawn) // up to where the last page began
		}
		page := v.page()
		for _, line := range page {
			b.WriteString(s.paint(clip(line, width)) + "\x1b[K\n")
		}
		b.WriteString("\x1b[J")
		s.drawn = len(page)
		// A terminal that is narrower cuts the lines off: wrapped, they would be more
		// than were counted.
		fmt.Fprint(s.w, "\x1b[?7l"+b.String()+"\x1b[?7h")
	}
}

// paint colours the states of circuits, in the lines that begin with a command.
func (s *screen) paint(line string) string {
	if !s.colour || strings.HasPrefix(line, " ") {
		return line
	}
	const green, yellow, red, plain = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"
	return strings.NewReplacer(
		" closed ", green+" closed "+plain,
		" half_open ", yellow+" half_open "+plain,
		" open ", red+" open "+plain,
	).Replace(line)
}

func clip(line string, width int) string {
	runes := []rune(line)
	if len(runes) <= width {
		return line
	}
	return string(runes[:width-1]) + "…"
}

// A view is one moment, with what has happened since the view before.
type view struct {
	now       time.Time
	script    *script
	since     time.Duration
	waiting   int64
	samples   int // how many there were, for the next view
	pages     [numPages]figures
	all       figures
	snapshots []firebreak.Snapshot
	before    map[string]firebreak.Counts // of the view before, by command
}

func newView(last *view, now time.Time, script *script, reg *firebreak.Registry, visitors *load) *view {
	v := &view{now: now, script: script, since: now.Sub(script.start), waiting: visitors.waiting.Load(), before: map[string]firebreak.Counts{}}
	samples, seen := visitors.samples(), 0
	if last != nil {
		v.since, seen = now.Sub(last.now), last.samples
		for _, s := range last.snapshots {
			v.before[s.Command] = s.Total
		}
	}
	v.samples = len(samples)
	for p := range numPages {
		v.pages[p] = measure(samples[seen:], func(s sample) bool { return s.page == p })
	}
	v.all = measure(samples[seen:], func(sample) bool { return true })
	for cmd := range reg.Commands() {
		v.snapshots = append(v.snapshots, cmd.Snapshot())
	}
	return v
}

// line is the view for a log.
func (v *view) line() string {
	var circuits []string
	for _, s := range v.snapshots {
		if s.State != firebreak.StateClosed {
			circuits = append(circuits, fmt.Sprintf("%s is %v", s.Command, s.State))
		}
	}
	return fmt.Sprintf("%3.0fs %-13s %6.1f%% answered  /price p99 %-7s %s", v.now.Sub(v.script.start).Seconds(), v.script.at(v.now),
		v.all.AnsweredPercent, short(v.pages[pricePage].p99), strings.Join(circuits, ", "))
}

// page is the view in full, for a terminal.
func (v *view) page() []string {
	elapsed := v.now.Sub(v.script.start)
	lines := []string{
		fmt.Sprintf("%.0fs of %v: inventory is %v", elapsed.Seconds(), v.script.duration(), v.script.at(v.now)),
		"",
		"page        pages/s   answered   by fallback      p50      p99   in the last second",
	}
	for p, f := range v.pages {
		lines = append(lines, fmt.Sprintf("%-10s %8.0f   %7.1f%%      %7.1f%%  %7s  %7s", page(p), v.perSecond(uint64(f.Requests)),
			f.AnsweredPercent, percent(f.Degraded, f.Requests), short(f.p50), short(f.p99)))
	}
	lines = append(lines, fmt.Sprintf("%d waiting for a page", v.waiting), "")
	if len(v.snapshots) == 0 {
		return append(lines, "There are no commands: this run is without firebreak.")
	}

	lines = append(lines, "command    state     calls/s  busy    p50    p99  outcomes in the last second")
	for _, s := range v.snapshots {
		before := v.before[s.Command]
		lines = append(lines, fmt.Sprintf("%-10s %-9s %7.0f %5s %6s %6s  %s", s.Command, s.State, v.perSecond(s.Total.Calls()-before.Calls()),
			fmt.Sprintf("%d/%d", s.Bulkhead.InFlight, s.Bulkhead.Limit), short(s.CallLatency.P50), short(s.CallLatency.P99), outcomes(s.Total, before)))
		if s.Evidence.Rule != "" {
			lines = append(lines, "  "+explain(s.State, s.Evidence, v.now))
		}
	}
	return lines
}

func (v *view) perSecond(n uint64) float64 { return float64(n) / v.since.Seconds() }

// outcomes lists those that there were.
func outcomes(now, before firebreak.Counts) string {
	var words []string
	for _, o := range []struct {
		outcome firebreak.Outcome
		n       uint64
	}{
		{firebreak.OutcomeSuccess, now.Success - before.Success},
		{firebreak.OutcomeExpected, now.Expected - before.Expected},
		{firebreak.OutcomeFailure, now.Failure - before.Failure},
		{firebreak.OutcomeTimeout, now.Timeout - before.Timeout},
		{firebreak.OutcomeRejected, now.Rejected - before.Rejected},
		{firebreak.OutcomeShortCircuited, now.ShortCircuited - before.ShortCircuited},
		{firebreak.OutcomeCanceled, now.Canceled - before.Canceled},
		{firebreak.OutcomeCallerDeadline, now.CallerDeadline - before.CallerDeadline},
		{firebreak.OutcomeGaveUp, now.GaveUp - before.GaveUp},
	} {
		if o.n > 0 {
			words = append(words, fmt.Sprintf("%d %v", o.n, o.outcome))
		}
	}
	return strings.Join(words, ", ")
}

// explain says what a circuit is waiting for, and why it opened.
func explain(state firebreak.State, e firebreak.Evidence, now time.Time) string {
	next := "a probe is out"
	switch state {
	case firebreak.StateClosed:
		return fmt.Sprintf("opened %.0fs ago; %s", now.Sub(e.At).Seconds(), reason(e))
	case firebreak.StateOpen:
		next = "probes in " + short(max(time.Millisecond, e.NextProbe.Sub(now)))
	}
	return fmt.Sprintf("%d refused, %s; %s", e.Refused, next, reason(e))
}

func reason(e firebreak.Evidence) string {
	if e.Rule == "probe" { // whatever the window says: a probe decides alone
		return fmt.Sprintf("%s: %s", e.Rule, e.LastError)
	}
	return fmt.Sprintf("%s, %d of %d: %s", e.Rule, e.Failures, e.Calls, e.LastError)
}

// short gives a duration three digits, which are all that a measurement here is worth.
func short(d time.Duration) string {
	switch ms := float64(d) / float64(time.Millisecond); {
	case d == 0:
		return "-"
	case ms < 9.95:
		return fmt.Sprintf("%.1fms", ms)
	case ms < 999.5:
		return fmt.Sprintf("%.0fms", ms)
	default:
		return fmt.Sprintf("%.2fs", ms/1000)
	}
}
