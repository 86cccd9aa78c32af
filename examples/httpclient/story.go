package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakhttp"
)

// A phase is a stretch of the story: how the two APIs are doing.
type phase int

const (
	before phase = iota
	oneHangs
	bothSick
	after
	numPhases
)

// How the duration is divided. A circuit must have the time to open while its API is
// sick, and to close after; even at minDuration.
var phases = [numPhases]struct {
	name          string
	percent       int
	prices, rates condition
}{
	before:   {"both well", 15, well, well},
	oneHangs: {"rates hang", 30, well, hanging},
	bothSick: {"rates fail, prices overloaded", 25, overloaded, failing},
	after:    {"both well again", 30, well, well},
}

const (
	// rate is how many quotes are asked for each second.
	rate = 50

	// patience is how long a visitor waits for a quote, from the moment it was due. So
	// no more than rate × patience can be waiting at one time.
	patience = 2 * time.Second
)

// What the visitors ask for, one after the other.
var wishes = [...]struct{ item, currency string }{{"tea", "EUR"}, {"coffee", "EUR"}, {"tea", "GBP"}}

// A sample is what became of one request.
type sample struct {
	phase    phase // in which it was due
	took     time.Duration
	late     time.Duration // of it, until the request was sent: the generator's own share
	answered bool          // with the right quote, in time
	quote    Quote
}

// A story is one run of the script.
type story struct {
	start         time.Time
	duration      time.Duration
	prices, rates *api
	reg           *firebreak.Registry

	states [numPhases]map[string]string // of the circuits by command, at the phase's end; nil if it did not come

	mu          sync.Mutex
	samples     []sample // in the order in which they ended
	transitions []firebreak.Transition
}

// begin returns when a phase begins; that of numPhases is the end.
func (s *story) begin(p phase) time.Time {
	percent := 0
	for _, part := range phases[:p] {
		percent += part.percent
	}
	return s.start.Add(s.duration * time.Duration(percent) / 100)
}

// play asks for quotes at a constant rate, whatever becomes of those asked for before
// (an open model, as visitors are), while the APIs do what the phases say. It returns
// at the end of the story, or of ctx, and when the last quote is there or given up.
func (s *story) play(ctx context.Context, shopURL string) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: rate}}
	defer client.CloseIdleConnections()
	defer s.reg.Observe(firebreak.Observer{Transition: s.hear})()
	var visitors sync.WaitGroup
	defer visitors.Wait()

	next := before // the phase that has not begun
	for i := 0; ; i++ {
		due := s.start.Add(time.Duration(i) * time.Second / rate)
		if !sleepUntil(ctx, due) {
			return
		}
		for !due.Before(s.begin(next)) {
			if next > 0 {
				s.states[next-1] = states(s.reg)
			}
			if next == numPhases {
				return
			}
			s.prices.be(phases[next].prices)
			s.rates.be(phases[next].rates)
			next++
		}
		current := next - 1
		visitors.Go(func() { s.visit(ctx, client, shopURL, i, current, due) })
	}
}

// visit asks for the i-th quote. Its time begins when it is due, so that nothing that
// holds up the generator can hide a wait.
func (s *story) visit(ctx context.Context, client *http.Client, shopURL string, i int, p phase, due time.Time) {
	x := sample{phase: p, late: time.Since(due)}
	patient, cancel := context.WithDeadline(ctx, due.Add(patience))
	defer cancel()
	wish := wishes[i%len(wishes)]
	var err error
	x.quote, err = ask(patient, client, shopURL, wish.item, wish.currency)
	if err != nil && ctx.Err() != nil {
		return // Ctrl-C ended it; nobody knows how it would have gone
	}
	x.took = time.Since(due)
	x.answered = err == nil && x.quote.Item == wish.item && x.quote.Currency == wish.currency && x.quote.Cents > 0
	s.mu.Lock()
	defer s.mu.Unlock()
	s.samples = append(s.samples, x)
}

// ask is a client of the shop's, and tells it how long it will wait.
func ask(ctx context.Context, client *http.Client, shopURL, item, currency string) (q Quote, err error) {
	query := url.Values{"item": {item}, "currency": {currency}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, shopURL+"/quote?"+query.Encode(), nil)
	if err != nil {
		return q, err
	}
	req.Header.Set(firebreakhttp.DeadlineHeader, strconv.FormatInt(patience.Milliseconds(), 10))
	resp, err := client.Do(req)
	if err != nil {
		return q, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return q, err
	case resp.StatusCode != http.StatusOK:
		return q, fmt.Errorf("the shop says %s", resp.Status)
	}
	err = json.Unmarshal(body, &q)
	return q, err
}

// hear is told of every change of a circuit.
func (s *story) hear(t firebreak.Transition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.transitions = append(s.transitions, t)
}

func states(reg *firebreak.Registry) map[string]string {
	all := map[string]string{}
	for cmd := range reg.Commands() {
		all[cmd.Name()] = cmd.Snapshot().State.String()
	}
	return all
}

// sleepUntil reports false if ctx has ended first.
func sleepUntil(ctx context.Context, t time.Time) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
