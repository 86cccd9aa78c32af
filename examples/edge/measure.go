package main

import (
	"math"
	"slices"
	"time"

	"github.com/firebreak-go/firebreak"
)

// figures are about some requests.
type figures struct {
	requests, answered int
	refused            int           // with 503
	degraded           int           // of answered, those with a fallback
	p50, p99           time.Duration // of all requests: one without an answer counts with its wait
	late               time.Duration // of which they were sent too late, the 99th percentile
}

func (f figures) answeredPercent() float64 {
	if f.requests == 0 {
		return 0
	}
	return 100 * float64(f.answered) / float64(f.requests)
}

func measure(samples []sample, which func(*sample) bool) (f figures) {
	var took, late []time.Duration
	for i := range samples {
		s := &samples[i]
		if !which(s) {
			continue
		}
		f.requests++
		took, late = append(took, s.took), append(late, s.late)
		switch {
		case s.answered:
			f.answered++
			if len(s.degraded) > 0 {
				f.degraded++
			}
		case s.refused:
			f.refused++
		}
	}
	slices.Sort(took)
	slices.Sort(late)
	f.p50, f.p99, f.late = percentile(took, 50), percentile(took, 99), percentile(late, 99)
	return f
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

// of measures the requests of one part of the run, by what they asked for.
func (r *run) of(p part, which func(*endpoint) bool) figures {
	return measure(r.samples, func(s *sample) bool {
		in, ok := r.partOf(s.due)
		return ok && in == p && which(s.endpoint)
	})
}

// A circuit is what became of one while its backend was ill, and since.
type circuit struct {
	command, dependency string
	opened              int                  // times, failed probes included
	first               firebreak.Transition // of those
	toOpen              time.Duration        // from the first trouble of its backend
	closed              bool                 // for good
	toClose             time.Duration        // from when the backend was well; 0 if it was closed by then
}

// circuits returns those that opened once their backend was ill, in that order. One of
// a backend that is not in the scenario counts from the beginning of the incident.
func (r *run) circuits() []circuit {
	var all []*circuit
	find := func(t *firebreak.Transition) *circuit {
		for _, c := range all {
			if c.command == t.Command {
				return c
			}
		}
		return nil
	}
	for i := range r.circuit {
		t := &r.circuit[i]
		ill, healed := r.illness(t.Dependency)
		if t.At.Before(ill) || t.From == t.To {
			continue
		}
		c := find(t)
		switch {
		case t.To == firebreak.StateOpen && c == nil:
			all = append(all, &circuit{command: t.Command, dependency: t.Dependency, opened: 1, first: *t, toOpen: t.At.Sub(ill)})
		case c == nil:
		case t.To == firebreak.StateOpen:
			c.opened++
			c.closed = false
		case t.To == firebreak.StateClosed:
			c.closed, c.toClose = true, max(0, t.At.Sub(healed))
		}
	}
	found := make([]circuit, len(all))
	for i, c := range all {
		found[i] = *c
	}
	return found
}

// illness is from a backend's first trouble to the end of its last; the incident's, if
// it has none.
func (r *run) illness(backend string) (from, to time.Time) {
	known := false
	for _, x := range r.Steps {
		switch begins, ends := r.at(x.From), r.at(x.To); {
		case x.Backend != backend:
		case !known:
			from, to, known = begins, ends, true
		default:
			from, to = earlier(from, begins), later(to, ends)
		}
	}
	if !known {
		return r.incident()
	}
	return from, to
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// A moment is a stretch of the run in the plots.
type moment struct {
	at       time.Duration // since the start, of its middle
	requests int
	answered float64       // percent
	p99      time.Duration // of the endpoints that were asked about
}

// timeline divides the run into n moments. Those in which nothing was due are left out.
func (r *run) timeline(n int, which func(*endpoint) bool) (all []moment) {
	for i := range n {
		from := r.start.Add(r.duration * time.Duration(i) / time.Duration(n))
		to := r.start.Add(r.duration * time.Duration(i+1) / time.Duration(n))
		f := measure(r.samples, func(s *sample) bool {
			return !s.due.Before(from) && s.due.Before(to) && which(s.endpoint)
		})
		if f.requests > 0 {
			all = append(all, moment{from.Add(to.Sub(from) / 2).Sub(r.start), f.requests, f.answeredPercent(), f.p99})
		}
	}
	return all
}
