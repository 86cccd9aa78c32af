package hystrixstream

import (
	"net/http"
	"sync"
	"time"

	"github.com/firebreak-go/firebreak"
)

// What tests from outside the package cannot see, and benchmarks cannot wait for.

// Idle tells whether the dashboard's stream has neither clients nor memory.
func Idle(h *Handler) bool {
	s := &h.dashboard
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clients == 0 && s.current == nil && s.encoder.pools == nil && s.encoder.reading.name == ""
}

// DelayOf is the delay that a query asks for.
func DelayOf(query string) (time.Duration, error) { return delayOf(query, usualDelay) }

// Encoder makes samples of hystrix.stream, each in the memory of the last one.
func Encoder() func(reg *firebreak.Registry) []byte {
	e := new(encoder)
	return func(reg *firebreak.Registry) []byte {
		e.text = e.text[:0]
		encodeDashboard(e, reg)
		return e.text
	}
}

// Stepped is hystrix.stream with step in place of the clock: each writes a new sample,
// the same one, to every client, and returns when that is done.
func Stepped(h *Handler) (handler http.Handler, step func()) {
	s := &h.dashboard
	var mu sync.Mutex
	var clients []chan struct{}
	written := make(chan struct{})
	handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.enter() {
			panic("no place")
		}
		defer s.leave()
		mine := make(chan struct{}, 1)
		mu.Lock()
		clients = append(clients, mine)
		mu.Unlock()
		c := client{w: w, control: http.NewResponseController(w), timeout: h.writeTimeout}
		if c.open() != nil {
			return
		}
		for {
			select {
			case <-mine:
			case <-h.closed:
				return
			}
			if s.writeSample(&c) != nil {
				return
			}
			written <- struct{}{}
		}
	})
	return handler, func() {
		s.mu.Lock()
		if s.current != nil {
			s.current.at = -1 // of another tick
		}
		s.mu.Unlock()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range clients {
			c <- struct{}{}
		}
		for range clients {
			<-written
		}
	}
}
