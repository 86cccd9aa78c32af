package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// rate is how many pages are asked for each second; each takes three to eleven calls.
	rate = 48

	// patience is how long a visitor waits for a page, from the moment it was due.
	patience = 2 * time.Second

	// maxWaiting bounds the pages asked for at one time. No more than rate × patience
	// can be waiting, so a page that finds no place says that the generator is at
	// fault; it counts as unanswered.
	maxWaiting = 2 * rate * int(patience/time.Second)
)

// An endpoint is one kind of page, and what the generator knows of it.
type endpoint struct {
	name  string // its path, without what comes behind
	share int    // of the pages asked for, in twelfths

	// backends are those that it calls. It is a neighbour of the others: what befalls
	// those is not to be noticed here.
	backends []string

	// noFallback is the backend without which there is no page; "" if there always is.
	noFallback string

	path  func(i int) string // of the i-th request
	check func(body io.Reader, i int) (degraded []string, err error)
}

// device is who asks for it: the path begins with it.
func (e *endpoint) device() string { return strings.Split(e.name, "/")[1] }

// neighbour tells whether none of the backends is called for it.
func (e *endpoint) neighbour(of []string) bool {
	return !slices.ContainsFunc(e.backends, func(b string) bool { return slices.Contains(of, b) })
}

var endpoints = []*endpoint{
	{
		name: "/tv/home", share: 3,
		backends: []string{"users", "subscriptions", "geo", "abtests", "recommendations", "history", "bookmarks", "ratings", "images", "social"},
		check: func(body io.Reader, i int) ([]string, error) {
			var page TVHome
			err := json.NewDecoder(body).Decode(&page)
			if err == nil && (page.User.ID != userID(i) || page.Plan.Name == "" || page.Place.Country == "" || len(page.Rows) < 2) {
				err = fmt.Errorf("not the page of %s: %v", userID(i), page)
			}
			for _, row := range page.Rows {
				err = errors.Join(err, checkTitles(row.Titles))
			}
			return page.Degraded, err
		},
	},
	{
		name: "/phone/home", share: 3,
		backends: []string{"users", "abtests", "recommendations", "bookmarks", "images"},
		check: func(body io.Reader, _ int) ([]string, error) {
			var page PhoneHome
			err := json.NewDecoder(body).Decode(&page)
			if err == nil && page.Name == "" {
				err = fmt.Errorf("no name: %v", page)
			}
			return page.Degraded, errors.Join(err, checkTitles(page.ForYou))
		},
	},
	{
		name: "/web/home", share: 2,
		backends: []string{"users", "subscriptions", "geo", "abtests", "recommendations", "history", "ratings", "images", "social"},
		check:    checkWebHome,
	},
	{
		name: "/tv/play", share: 2,
		backends:   []string{"subscriptions", "bookmarks", "licences"},
		noFallback: "licences",
		path:       func(i int) string { return "/" + titleID(i) },
		check: func(body io.Reader, i int) ([]string, error) {
			var page Play
			err := json.NewDecoder(body).Decode(&page)
			if err == nil && (page.Licence.Title != titleID(i) || page.Licence.Token == "") {
				err = fmt.Errorf("no licence for %s: %v", titleID(i), page)
			}
			return page.Degraded, err
		},
	},
	{
		name: "/web/search", share: 2,
		backends: []string{"search", "images"},
		path:     func(i int) string { return "?q=" + url.QueryEscape(fmt.Sprintf("film %d", i%50)) },
		check: func(body io.Reader, _ int) ([]string, error) {
			var page Search
			err := json.NewDecoder(body).Decode(&page)
			if err == nil && page.Titles == nil {
				err = errors.New("no list")
			}
			return page.Degraded, err
		},
	},
}

// mix is the order in which pages are asked for: the shares, spread.
var mix = func() (m []*endpoint) {
	for turn := range 3 {
		for _, e := range endpoints {
			if turn < e.share {
				m = append(m, e)
			}
		}
	}
	return m
}()

func checkTitles(titles []Title) error {
	if len(titles) == 0 {
		return errors.New("a row without titles")
	}
	for _, t := range titles {
		if t.ID == "" || t.Image == "" {
			return fmt.Errorf("a title without a picture: %v", t)
		}
	}
	return nil
}

func checkWebHome(body io.Reader, i int) (degraded []string, err error) {
	in := bufio.NewScanner(body)
	in.Buffer(nil, 1<<20)
	var last WebLine
	var user string
	rows := 0
	for in.Scan() {
		last = WebLine{}
		if err := json.Unmarshal(in.Bytes(), &last); err != nil {
			return nil, err
		}
		if last.User != nil {
			user = last.User.ID
		}
		if last.Row != nil {
			rows++
			err = errors.Join(err, checkTitles(last.Row.Titles))
		}
	}
	switch err = errors.Join(err, in.Err()); {
	case err != nil:
	case !last.Done:
		err = errors.New("cut off")
	case user != userID(i) || rows < 2:
		err = fmt.Errorf("not the page of %s: %d rows for %q", userID(i), rows, user)
	}
	return last.Degraded, err
}

// A sample is what became of one request.
type sample struct {
	endpoint *endpoint
	due      time.Time
	took     time.Duration // from due to the end, whatever that was
	late     time.Duration // of it, until the request was sent: the generator's own share
	answered bool          // with the right page, in time
	refused  bool          // with 503: it failed fast
	degraded []string      // what fallbacks answered on it
}

// A load asks the edge for pages at a constant rate, whatever becomes of those it
// asked for before (an open model, as visitors do). And a request's time begins when
// it is due, so that nothing that holds up the generator can hide a wait.
type load struct {
	url  string
	http http.Client
	keep bool // the samples; a service that runs for days has no use for them

	mu   sync.Mutex
	done []sample // in the order in which they ended
}

func newLoad(url string, keep bool) *load {
	return &load{url: url, keep: keep, http: http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: maxWaiting},
	}}
}

// run asks from start to end, or until ctx ends; the zero end is never. It returns when
// the last page is there or given up.
func (l *load) run(ctx context.Context, start, end time.Time) {
	defer l.http.CloseIdleConnections()
	places := make(chan struct{}, maxWaiting)
	var visitors sync.WaitGroup
	defer visitors.Wait()

	for i := 0; ; i++ {
		due := start.Add(time.Duration(i) * time.Second / rate)
		if !end.IsZero() && !due.Before(end) || !sleep(ctx, time.Until(due)) {
			return
		}
		select {
		case places <- struct{}{}:
			visitors.Go(func() {
				defer func() { <-places }()
				l.visit(ctx, i, due)
			})
		default:
			l.record(sample{endpoint: mix[i%len(mix)], due: due, took: patience})
		}
	}
}

func (l *load) visit(ctx context.Context, i int, due time.Time) {
	s := sample{endpoint: mix[i%len(mix)], due: due, late: time.Since(due)}
	patient, cancel := context.WithDeadline(ctx, due.Add(patience))
	defer cancel()
	err := l.get(patient, i, &s)
	if err != nil && ctx.Err() != nil {
		return // Ctrl-C ended it; nobody knows how it would have gone
	}
	s.took, s.answered = time.Since(due), err == nil
	l.record(s)
}

func (l *load) get(ctx context.Context, i int, s *sample) error {
	path, status := s.endpoint.name, http.StatusOK
	switch {
	case s.endpoint.name == "/tv/play" && i/len(mix)%25 == 0: // somebody always asks for what there is not
		path, status = path+"/"+noSuchTitle, http.StatusNotFound
	case s.endpoint.path != nil:
		path += s.endpoint.path(i)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-User", userID(i))
	resp, err := l.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	defer io.Copy(io.Discard, resp.Body) //nolint:errcheck // for the connection's sake; the page has been read
	s.refused = resp.StatusCode == http.StatusServiceUnavailable
	switch {
	case resp.StatusCode != status:
		return errors.New(resp.Status)
	case status != http.StatusOK:
		return nil
	}
	s.degraded, err = s.endpoint.check(resp.Body, i)
	return err
}

func (l *load) record(s sample) {
	if !l.keep {
		return
	}
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
