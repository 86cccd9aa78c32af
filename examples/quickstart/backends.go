package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// A server is an http.Server that is listening.
type server struct {
	http   http.Server
	url    string
	served chan error
}

func serve(addr string, h http.Handler) (*server, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &server{url: "http://" + listener.Addr().String(), served: make(chan error, 1)}
	s.http.Handler = h
	go func() { s.served <- s.http.Serve(listener) }()
	return s, nil
}

// stop lets the requests in hand finish, as long as ctx allows.
func (s *server) stop(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	if e := <-s.served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// The backends: three servers, none of which knows about firebreak.
type backends struct {
	pricing, inventory, reviews *server
}

func startBackends(s *stage) (b backends, err error) {
	for _, start := range []struct {
		server **server
		h      http.HandlerFunc
	}{
		{&b.pricing, pricingBackend},
		{&b.inventory, inventoryBackend(s)},
		{&b.reviews, reviewsBackend()},
	} {
		if *start.server, err = serve("127.0.0.1:0", start.h); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (b backends) stop(ctx context.Context) error {
	var errs []error
	for _, s := range []*server{b.pricing, b.inventory, b.reviews} {
		if s != nil {
			errs = append(errs, s.stop(ctx))
		}
	}
	return errors.Join(errs...)
}

// What the backends say.
type (
	Price struct {
		ID    string `json:"id"`
		Cents int    `json:"cents"`
	}
	Stock struct {
		ID    string `json:"id"`
		Count int    `json:"count"`
		Note  string `json:"note,omitempty"` // by a fallback
	}
	Reviews struct {
		ID    string   `json:"id"`
		Texts []string `json:"texts"`
		Note  string   `json:"note,omitempty"` // by a fallback
	}
)

// The products there are, and one that there is not.
var catalogue = func() (ids []string) {
	for i := range 50 {
		ids = append(ids, fmt.Sprintf("p%02d", i))
	}
	return ids
}()

const noSuchProduct = "nothing"

// pricingBackend is the good neighbour: whatever befalls the others, it is well.
func pricingBackend(w http.ResponseWriter, r *http.Request) {
	id := idOf(r)
	if id == noSuchProduct {
		http.NotFound(w, r)
		return
	}
	if work(r, 2*time.Millisecond) {
		writeJSON(w, Price{ID: id, Cents: 1999})
	}
}

// inventoryBackend does what the script says.
func inventoryBackend(s *stage) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		takes := 5 * time.Millisecond
		switch s.at(time.Now()) {
		case slow:
			takes = 50 * time.Millisecond
		case hanging:
			<-r.Context().Done() // until whoever asked has hung up
			return
		case failing:
			http.Error(w, "too many connections to the database", http.StatusInternalServerError)
			return
		}
		if work(r, takes) {
			writeJSON(w, Stock{ID: idOf(r), Count: 12})
		}
	}
}

// reviewsBackend is what many a backend is on a good day: one answer in four is an
// error, one in two hundred takes half a second. It is not down, so its circuit stays
// closed: the pages that it fails are what the fallback is for.
func reviewsBackend() http.HandlerFunc {
	var requests atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		n := requests.Add(1)
		if n%4 == 0 {
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
		takes := 5 * time.Millisecond
		if n%200 == 1 {
			takes = 500 * time.Millisecond
		}
		if work(r, takes) {
			writeJSON(w, Reviews{ID: idOf(r), Texts: []string{"Does what it says.", "Arrived late."}})
		}
	}
}

func idOf(r *http.Request) string { return r.URL.Path[1:] }

// work takes its time; it reports false if the client has left meanwhile.
func work(r *http.Request, d time.Duration) bool {
	return sleep(r.Context(), d)
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error here is a client that has left
}
