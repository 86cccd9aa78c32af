package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// A scenario is an incident as a script. From a file it is JSON:
//
//	{"name": "friday", "about": "ratings are down while search is slow", "steps": [
//	  {"backend": "ratings", "trouble": "fail", "from": 30, "to": 60},
//	  {"backend": "search",  "trouble": "slow", "from": 40, "to": 60}]}
//
// From and to are percent of the duration, within incidentFrom and incidentTo. What
// lies before the first step is what its effects are compared with, what comes after
// the last is for recovery.
type scenario struct {
	Name  string `json:"name"`
	About string `json:"about"`
	Steps []step `json:"steps"`
}

type step struct {
	Backend string  `json:"backend"`
	Trouble trouble `json:"trouble"`
	From    float64 `json:"from"`
	To      float64 `json:"to"`
}

const (
	warmUp = 8 // percent of the duration: connections are being made; it is in no figures

	// Before and after need their time, even in the shortest run.
	incidentFrom, incidentTo = 30, 66
)

var scenarios = []scenario{
	{"hang", "recommendations takes requests and never answers", []step{
		{"recommendations", hang, 32, 66},
	}},
	{"three", "three at once: recommendations hangs, ratings fails, social is slow", []step{
		{"recommendations", hang, 32, 66}, {"ratings", fail, 32, 66}, {"social", slow, 32, 66},
	}},
	{"brownout", "the slowest, recommendations, takes 25 times as long: half a second", []step{
		{"recommendations", slow, 32, 66},
	}},
	{"flapping", "ratings fails and is well in turn, every second", []step{
		{"ratings", flap, 32, 66},
	}},
	{"everything", "all twelve backends take requests and never answer", everything(hang, 32, 66)},
}

func everything(t trouble, from, to float64) (steps []step) {
	for _, b := range newBackends() {
		steps = append(steps, step{b.name, t, from, to})
	}
	return steps
}

// findScenario returns a built-in one, or that of a file.
func findScenario(nameOrFile string) (scenario, error) {
	var names []string
	for _, s := range scenarios {
		if s.Name == nameOrFile {
			return s, nil
		}
		names = append(names, s.Name)
	}
	f, err := os.Open(nameOrFile)
	if errors.Is(err, os.ErrNotExist) {
		return scenario{}, fmt.Errorf("no scenario and no file %q; there are %s", nameOrFile, strings.Join(names, ", "))
	}
	if err != nil {
		return scenario{}, err
	}
	defer f.Close()
	in := json.NewDecoder(f)
	in.DisallowUnknownFields()
	var s scenario
	err = in.Decode(&s)
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return scenario{}, fmt.Errorf("%s: %w", nameOrFile, err)
	}
	return s, nil
}

func (s *scenario) check() error {
	var errs []error
	if s.Name == "" {
		errs = append(errs, errors.New("no name"))
	}
	if len(s.Steps) == 0 {
		errs = append(errs, errors.New("no steps"))
	}
	for i, x := range s.Steps {
		known := slices.ContainsFunc(newBackends(), func(b *backend) bool { return b.name == x.Backend })
		if !known {
			errs = append(errs, fmt.Errorf("step %d: no backend %q", i+1, x.Backend))
		}
		if !slices.Contains(troubles, x.Trouble) {
			errs = append(errs, fmt.Errorf("step %d: no trouble %q; there are %v", i+1, x.Trouble, troubles))
		}
		if x.From < incidentFrom || x.To > incidentTo || x.From >= x.To {
			errs = append(errs, fmt.Errorf("step %d: from %v to %v is not within %d and %d", i+1, x.From, x.To, incidentFrom, incidentTo))
		}
		for _, other := range s.Steps[:i] {
			if other.Backend == x.Backend && x.From < other.To && other.From < x.To {
				errs = append(errs, fmt.Errorf("step %d: %s is ill already", i+1, x.Backend))
			}
		}
	}
	return errors.Join(errs...)
}

// ill is the backends that have a part in it.
func (s *scenario) ill() (names []string) {
	for _, x := range s.Steps {
		if !slices.Contains(names, x.Backend) {
			names = append(names, x.Backend)
		}
	}
	return names
}

// A part of a run: what is said of a scenario is said of each.
type part int

const (
	before part = iota
	during
	after
	numParts
)

func (p part) String() string { return [...]string{"before", "during", "after"}[p] }

// A script is a scenario with its moments.
type script struct {
	scenario
	start    time.Time
	duration time.Duration
}

func (s *script) at(percent float64) time.Time {
	return s.start.Add(time.Duration(float64(s.duration) * percent / 100))
}

func (s *script) end() time.Time { return s.start.Add(s.duration) }

// incident is from the first trouble to the end of the last.
func (s *script) incident() (from, to time.Time) {
	first, last := s.Steps[0].From, s.Steps[0].To
	for _, x := range s.Steps {
		first, last = min(first, x.From), max(last, x.To)
	}
	return s.at(first), s.at(last)
}

// partOf tells where t belongs, if anywhere.
func (s *script) partOf(t time.Time) (p part, ok bool) {
	from, to := s.incident()
	switch {
	case t.Before(s.at(warmUp)) || !t.Before(s.end()):
		return 0, false
	case t.Before(from):
		return before, true
	case t.Before(to):
		return during, true
	default:
		return after, true
	}
}

// A change is one thing to do to one backend.
type change struct {
	at      time.Time
	backend string
	trouble trouble // well: it recovers
}

func (s *script) changes() (all []change) {
	for _, x := range s.Steps {
		all = append(all, change{s.at(x.From), x.Backend, x.Trouble}, change{s.at(x.To), x.Backend, well})
	}
	slices.SortStableFunc(all, func(a, b change) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return len(a.trouble) - len(b.trouble) // first who recovers, then who falls ill: it may be the same
	})
	return all
}
