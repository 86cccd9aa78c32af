package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/firebreak-go/firebreak"
)

// What a run with firebreak promises.
const (
	// While inventory hangs, the 99th percentile of /price stays below this multiple
	// of what it was before, or below a floor, where the multiple of next to nothing
	// would be next to nothing. On top comes what the machine itself was late: a price
	// needs so many goroutines to be woken one after the other, and each can be as late
	// as those that send the requests were at the same time.
	maxPriceFactor = 1.5
	priceFloor     = 20 * time.Millisecond
	priceWakeUps   = 4

	minAnsweredPercent = 99.0

	// Once no inventory call succeeds, all successes have left the window after its
	// length at the latest, and the last call that began then has its timeout; the
	// rest is for the buckets of the window and a busy machine.
	maxTimeToOpen = window + inventoryTimeout + 250*time.Millisecond

	// Once inventory is healthy again, the last sleep window can just have begun; it
	// ends with a probe, which can take as long as a call.
	maxTimeToRecover = sleepWindow + inventoryTimeout + 250*time.Millisecond

	// A machine on which timers alone are so late (99th percentile) cuts calls off
	// before their answers have had a chance, whoever makes them. Nothing is judged.
	maxLate = 100 * time.Millisecond
)

// A summary is what a run has shown. All times are in milliseconds, shares in percent.
type summary struct {
	Protected       bool    `json:"protected"`
	NotJudged       string  `json:"notJudged,omitempty"` // why not, if so
	DurationSeconds float64 `json:"durationSeconds"`
	PagesPerSecond  int     `json:"pagesPerSecond"`

	figures                  // of all requests
	Fallbacks map[string]int `json:"fallbacks"` // pages, by what stood in for a backend

	PriceP99BeforeMs  float64  `json:"priceP99BeforeMs"`
	PriceP99HangingMs float64  `json:"priceP99HangingMs"`
	TimeToOpenMs      *float64 `json:"timeToOpenMs"`    // of inventory's circuit; null if it did not
	OpenedBy          string   `json:"openedBy"`        // the evidence
	TimeToRecoverMs   *float64 `json:"timeToRecoverMs"` // likewise

	Phases   []phaseFigures `json:"phases"`
	Promises []promise      `json:"promises"` // none if not judged
}

type phaseFigures struct {
	Phase   string  `json:"phase"`
	Seconds float64 `json:"seconds"`
	Price   figures `json:"price"`
	Product figures `json:"product"`
}

const interruption = "interrupted"

// A promise is judged in a run without firebreak too, where nobody made it.
type promise struct {
	Promise  string `json:"promise"`
	Measured string `json:"measured"`
	Bound    string `json:"bound"`
	Kept     bool   `json:"kept"`
}

// summarize measures and judges. circuit is the history of inventory's.
func summarize(o options, s *script, samples []sample, circuit []firebreak.Transition, interrupted bool) *summary {
	sum := &summary{
		Protected:       !o.unprotected,
		DurationSeconds: o.duration.Seconds(),
		PagesPerSecond:  rate,
		figures:         measure(samples, func(sample) bool { return true }),
		Fallbacks:       map[string]int{},
		Promises:        []promise{},
	}
	for _, sample := range samples {
		for _, note := range sample.notes {
			sum.Fallbacks[note]++
		}
	}

	var price [numPhases]figures
	for p := healthy; p < numPhases; p++ {
		// A request belongs to the phase in which it was due.
		in := func(kind page) figures {
			return measure(samples, func(x sample) bool { return x.page == kind && s.at(x.due) == p })
		}
		price[p] = in(pricePage)
		sum.Phases = append(sum.Phases, phaseFigures{p.String(), s.lengthOf(p).Seconds(), price[p], in(productPage)})
	}

	sum.PriceP99BeforeMs, sum.PriceP99HangingMs = price[healthy].P99Ms, price[hanging].P99Ms

	opened, by, didOpen := timeTo(false, circuit, s.beginOf(hanging), s.beginOf(failing))
	recovered, _, didRecover := timeTo(true, circuit, s.beginOf(healed), s.end())
	if didOpen {
		sum.OpenedBy = reason(by.Evidence)
		sum.TimeToOpenMs = orNull(opened, didOpen)
		sum.TimeToRecoverMs = orNull(recovered, didRecover)
	}

	switch {
	case interrupted:
		sum.NotJudged = interruption
		return sum
	case sum.late > maxLate:
		sum.NotJudged = fmt.Sprintf("the machine is too busy: requests were sent %s late", short(sum.late))
		return sum
	}
	sum.judgePrices(price[healthy], price[hanging])
	sum.judge(sum.AnsweredPercent >= minAnsweredPercent, "pages answered",
		fmt.Sprintf("%.2f%%", sum.AnsweredPercent), fmt.Sprintf("at least %v%%", minAnsweredPercent))
	if sum.Protected { // else there is no circuit
		sum.judge(didOpen && opened <= maxTimeToOpen, "inventory hangs: its circuit opened",
			orNever(opened, didOpen), "within "+short(maxTimeToOpen))
		sum.judge(didRecover && recovered <= maxTimeToRecover, "inventory is healthy again: its circuit closed",
			orNever(recovered, didRecover), "within "+short(maxTimeToRecover))
	}
	return sum
}

func (s *summary) judgePrices(before, hanging figures) {
	bound := max(time.Duration(maxPriceFactor*float64(before.p99)), priceFloor) + priceWakeUps*hanging.late
	s.judge(hanging.p99 <= bound, "p99 of /price while inventory hangs",
		fmt.Sprintf("%s, before %s", short(hanging.p99), short(before.p99)),
		fmt.Sprintf("at most %s: %v × before but no less than %s, plus %s for a machine whose timers were late", short(bound), maxPriceFactor, short(priceFloor), short(priceWakeUps*hanging.late)))
}

func (s *summary) judge(kept bool, what, measured, bound string) {
	s.Promises = append(s.Promises, promise{what, measured, bound, kept})
}

// exitStatus is what the run says to scripts.
func (s *summary) exitStatus() int {
	broken := slices.ContainsFunc(s.Promises, func(p promise) bool { return !p.Kept })
	switch {
	case s.NotJudged == interruption:
		return statusInterrupted
	case s.Protected && broken:
		return statusBroken
	default:
		return 0
	}
}

func (s *summary) String() string {
	var b strings.Builder
	with := "with firebreak"
	if !s.Protected {
		with = "without firebreak"
	}
	fmt.Fprintf(&b, "\n%.0f seconds %s, %d pages a second\n\n", s.DurationSeconds, with, s.PagesPerSecond)

	fmt.Fprintln(&b, "                             /price                            /product")
	fmt.Fprintln(&b, "inventory is    for      answered     p50      p99      answered   fallback     p50      p99")
	for _, p := range s.Phases {
		fmt.Fprintf(&b, "%-13s %4.1fs      %7s %7s  %7s       %7s    %7s %7s  %7s\n", p.Phase, p.Seconds,
			p.Price.share(p.Price.Answered), short(p.Price.p50), short(p.Price.p99),
			p.Product.share(p.Product.Answered), p.Product.share(p.Product.Degraded), short(p.Product.p50), short(p.Product.p99))
	}
	fmt.Fprintf(&b, "\n%d of %d pages were answered, %d of them with the help of a fallback%s.\n", s.Answered, s.Requests, s.Degraded, s.fallbacks())
	if s.OpenedBy != "" {
		fmt.Fprintf(&b, "The circuit of inventory opened by %s.\n", s.OpenedBy)
	}

	fmt.Fprintln(&b)
	if s.NotJudged != "" {
		fmt.Fprintf(&b, "Not judged: %s.\n", s.NotJudged)
	}
	for _, p := range s.Promises {
		verdict := "kept"
		switch {
		case !p.Kept && s.Protected:
			verdict = "BROKEN"
		case !p.Kept: // but nobody promised
			verdict = "no"
		}
		fmt.Fprintf(&b, "%-7s %s: %s (%s)\n", verdict, p.Promise, p.Measured, p.Bound)
	}
	return b.String()
}

func (s *summary) fallbacks() string {
	var list []string
	for note, n := range s.Fallbacks {
		list = append(list, fmt.Sprintf("%d %q", n, note))
	}
	if list == nil {
		return ""
	}
	slices.Sort(list)
	return " (" + strings.Join(list, ", ") + ")"
}

// figures are about some requests.
type figures struct {
	Requests        int     `json:"requests"`
	Answered        int     `json:"answered"` // with the right page, in time, by fallback or not
	Degraded        int     `json:"degraded"` // of Answered, those with a fallback
	AnsweredPercent float64 `json:"answeredPercent"`
	P50Ms           float64 `json:"p50Ms"` // of all requests: one without an answer counts with its wait
	P99Ms           float64 `json:"p99Ms"`
	LateP99Ms       float64 `json:"lateP99Ms"` // of which they were sent so much too late
	p50, p99, late  time.Duration
}

func measure(samples []sample, which func(sample) bool) figures {
	var f figures
	var took, late []time.Duration
	for _, s := range samples {
		if !which(s) {
			continue
		}
		f.Requests++
		took = append(took, s.took)
		late = append(late, s.late)
		if s.answered {
			f.Answered++
			if len(s.notes) > 0 {
				f.Degraded++
			}
		}
	}
	slices.Sort(took)
	slices.Sort(late)
	f.p50, f.p99, f.late = percentile(took, 50), percentile(took, 99), percentile(late, 99)
	f.P50Ms, f.P99Ms, f.LateP99Ms = ms(f.p50), ms(f.p99), ms(f.late)
	f.AnsweredPercent = percent(f.Answered, f.Requests)
	return f
}

func percent(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

func (f figures) share(part int) string {
	if f.Requests == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", percent(part, f.Requests))
}

// percentile returns the nearest rank of sorted: the least value that p percent of
// them do not exceed. It is 0 if there are none.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

func ms(d time.Duration) float64 { return math.Round(d.Seconds()*1e6) / 1e3 }

// Transitions are remembered as they come.
type transitions struct {
	mu  sync.Mutex
	all []firebreak.Transition
}

func (t *transitions) add(x firebreak.Transition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, x)
}

func (t *transitions) of(command string) []firebreak.Transition {
	t.mu.Lock()
	defer t.mu.Unlock()
	var of []firebreak.Transition
	for _, x := range t.all {
		if x.Command == command {
			of = append(of, x)
		}
	}
	return of
}

func (t *transitions) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = nil
}

// timeTo returns how long after from the circuit was first closed, or not closed, and
// by which transition; 0 if it already was. It must have happened before until.
func timeTo(closed bool, circuit []firebreak.Transition, from, until time.Time) (after time.Duration, by firebreak.Transition, ok bool) {
	reached := func() bool { return (by.To == firebreak.StateClosed) == closed }

	for _, t := range circuit { // by begins as the zero Transition, to closed, as every circuit does
		if t.At.After(from) && reached() || !t.At.Before(until) {
			break
		}
		by = t
	}
	return max(0, by.At.Sub(from)), by, reached()
}

func orNull(d time.Duration, ok bool) *float64 {
	if !ok {
		return nil
	}
	v := ms(d)
	return &v
}

func orNever(d time.Duration, ok bool) string {
	switch {
	case !ok:
		return "never"
	case d == 0:
		return "before"
	default:
		return "after " + short(d)
	}
}
