package hystrixstream

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/firebreak-go/firebreak"
)

// A stream is what any number of clients read.
type stream struct {
	handler *Handler
	usual   time.Duration // between samples, for clients that do not say
	encode  func(*encoder, *firebreak.Registry)

	mu      sync.Mutex // guards what follows; held while a sample is made
	clients int
	current *sample // the last that was made; nil if there is none
	encoder encoder
}

// A sample is the registry at one moment, as it is written to clients: never changed
// while there are readers. There are at most as many as clients and one more, since
// each reads one.
type sample struct {
	text    []byte
	at      time.Duration // by Handler.now
	readers int
	// spoilt: a write of it failed. HTTP/2 may go on to read from text after that, so
	// its memory must not be used again.
	spoilt bool
}

const ping = "ping: \n\n"

// enter takes a place for a client, if there is one.
func (s *stream) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit := s.handler.maxClients; limit != firebreak.Unlimited && s.clients >= limit {
		return false
	}
	s.clients++
	return true
}

// leave gives the place back. The last one turns off the light.
func (s *stream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients--; s.clients == 0 {
		s.current, s.encoder = nil, encoder{}
	}
}

// take returns a sample of the present tenth of a second, made if it is the first.
// Whoever takes it gives it back.
func (s *stream) take() *sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.handler.now()
	if c := s.current; c == nil || c.at < tick(now, grain) {
		s.sampleLocked(now)
	}
	s.current.readers++
	return s.current
}

// give takes a sample back. It is spoilt unless all of it was written.
func (s *stream) give(sm *sample, written bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sm.readers--
	sm.spoilt = sm.spoilt || !written
}

// sampleLocked makes a new sample, in the memory of the last one if nobody is slow.
func (s *stream) sampleLocked(now time.Duration) {
	last := s.current
	s.current = nil // also if encode panics
	s.encoder.text = nil
	if last != nil && last.readers == 0 && !last.spoilt {
		s.encoder.text = last.text[:0]
	}
	s.encode(&s.encoder, s.handler.registry)
	s.current = &sample{text: append(s.encoder.text, ping...), at: now}
	s.encoder.text = nil
}

// tick is the last multiple of step that is not after now.
func tick(now, step time.Duration) time.Duration { return now - now%step }

// serve writes the stream to one client, on its own goroutine.
func (s *stream) serve(w http.ResponseWriter, r *http.Request, delay time.Duration) {
	c := client{w: w, control: http.NewResponseController(w), timeout: s.handler.writeTimeout}
	defer c.arm() // for what the server has still to write
	if err := c.open(); err != nil {
		if errors.Is(err, http.ErrNotSupported) {
			http.Error(w, "no stream without a http.ResponseWriter that can flush", http.StatusInternalServerError)
		}
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	sampled := true // the first comes at once
	for {
		var err error
		if sampled {
			err = s.writeSample(&c)
		} else {
			err = c.write([]byte(ping))
		}
		if err != nil {
			return
		}
		now := s.handler.now()
		next := tick(now, delay) + delay
		timer.Reset(min(next, tick(now, pingDelay)+pingDelay) - now)
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		case <-s.handler.closed:
			return
		}
		if s.handler.registry.Draining() {
			return
		}
		sampled = s.handler.now() >= next
	}
}

func (s *stream) writeSample(c *client) error {
	sm := s.take()
	written := false
	defer func() { s.give(sm, written) }() // a wrapper's Write may panic
	err := c.write(sm.text)
	written = err == nil
	return err
}

// A client is who reads a stream.
type client struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

// open sends the headers.
func (c *client) open() error {
	c.arm()
	if err := c.control.Flush(); err != nil {
		return err
	}
	c.disarm()
	return nil
}

// write writes all of text, which the client has to read in time.
func (c *client) write(text []byte) error {
	c.arm()
	if _, err := c.w.Write(text); err != nil {
		return err
	}
	if err := c.control.Flush(); err != nil {
		return err
	}
	c.disarm()
	return nil
}

// arm has writes fail from a timeout on. Where that is not to be had, they do not.
func (c *client) arm() { _ = c.control.SetWriteDeadline(time.Now().Add(c.timeout)) }

// disarm takes that back, because over HTTP/2 a deadline that passes ends the stream
// although nothing is being written.
func (c *client) disarm() { _ = c.control.SetWriteDeadline(time.Time{}) }
