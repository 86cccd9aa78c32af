package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// rate is how many pages are asked for each second.
	rate = 240

	// patience is how long a visitor waits for a page, from the moment it was due.
	patience = 2 * time.Second

	// maxWaiting bounds the pages asked for at one time. No more than rate × patience
	// can be waiting, so a page that finds no place says that the generator is at
	// fault; it counts as unanswered.
	maxWaiting = 2 * rate * int(patience/time.Second)
)

// A page is one of the two kinds.
type page int

const (
	pricePage page = iota
	productPage
	numPages
)

func (p page) String() string { return [...]string{"/price", "/product"}[p] }

// Who asks for a price asks for two products.
var mix = [...]page{pricePage, productPage, productPage}

// A sample is what became of one request.
type sample struct {
	page     page
	due      time.Time
	took     time.Duration // from due to the end, whatever that was
	late     time.Duration // of it, until the request was sent: the generator's own share
	answered bool          // with the right page, in time
	notes    []string      // of the fallbacks on it
}

// A load asks the front for pages at a constant rate, whatever becomes of those it
// asked for before (an open model, as visitors do). And a request's time begins when
// it is due, so that nothing that holds up the generator can hide a wait.
type load struct {
	url     string
	script  *script
	http    http.Client
	waiting atomic.Int64

	mu   sync.Mutex
	done []sample // in the order in which they ended
}

func newLoad(url string, s *script) *load {
	return &load{url: url, script: s, http: http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: maxWaiting},
	}}
}

// run returns at the end of the script, or of ctx, and when the last page is there or
// given up.
func (l *load) run(ctx context.Context) {
	places := make(chan struct{}, maxWaiting)
	var visitors sync.WaitGroup
	defer visitors.Wait()

	for i := 0; ; i++ {
		due := l.script.start.Add(time.Duration(i) * time.Second / rate)
		if !due.Before(l.script.end()) || !sleep(ctx, time.Until(due)) {
			return
		}
		select {
		case places <- struct{}{}:
			visitors.Go(func() {
				defer func() { <-places }()
				l.visit(ctx, i, due)
			})
		default:
			l.record(sample{page: mix[i%len(mix)], due: due, took: patience})
		}
	}
}

func (l *load) visit(ctx context.Context, i int, due time.Time) {
	l.waiting.Add(1)
	defer l.waiting.Add(-1)

	s := sample{page: mix[i%len(mix)], due: due, late: time.Since(due)}
	patient, cancel := context.WithDeadline(ctx, due.Add(patience))
	defer cancel()

	id := catalogue[i%len(catalogue)]
	var err error
	switch {
	case s.page == productPage:
		var p Product
		err = l.get(patient, s.page, id, http.StatusOK, &p)
		if err == nil && (p.ID != id || p.Price.Cents == 0 || p.Stock.ID != id) {
			err = fmt.Errorf("not the page of %s: %v", id, p)
		}
		for _, note := range []string{p.Stock.Note, p.Reviews.Note} {
			if note != "" {
				s.notes = append(s.notes, note)
			}
		}
	case i/len(mix)%50 == 0: // somebody always asks for what there is not, and is to be told so
		err = l.get(patient, s.page, noSuchProduct, http.StatusNotFound, nil)
	default:
		var p Price
		err = l.get(patient, s.page, id, http.StatusOK, &p)
		if err == nil && (p.ID != id || p.Cents == 0) {
			err = fmt.Errorf("not the price of %s: %v", id, p)
		}
	}
	if err != nil && ctx.Err() != nil {
		return // Ctrl-C ended it; nobody knows how it would have gone
	}
	s.took, s.answered = time.Since(due), err == nil
	l.record(s)
}

// get fetches a page into v, which is nil if only the status matters.
func (l *load) get(ctx context.Context, p page, id string, status int, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+p.String()+"/"+id, nil)
	if err != nil {
		return err
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != status:
		return fmt.Errorf("%s: %s", resp.Status, body)
	case v == nil:
		return nil
	}
	return json.Unmarshal(body, v)
}

func (l *load) record(s sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = append(l.done, s)
}

// samples returns what has become known so far; the caller must not change it.
func (l *load) samples() []sample {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done[:len(l.done):len(l.done)]
}

func (l *load) stop(context.Context) error {
	l.http.CloseIdleConnections()
	return nil
}
