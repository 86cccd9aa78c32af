package hystrixstream

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/firebreak-go/firebreak"
)

const (
	// grain is the least time between two samples, whoever wants them: all samples are
	// of multiples of it, and a delay is one.
	grain    = 100 * time.Millisecond
	minDelay = grain
	maxDelay = time.Minute

	// What Hystrix has.
	usualDelay  = 500 * time.Millisecond
	configDelay = 5 * time.Second
	pingDelay   = 500 * time.Millisecond

	defaultMaxClients   = 5
	defaultWriteTimeout = 5 * time.Second
)

// Options are what a [Handler] can be told. The zero value is ready.
type Options struct {
	// MaxClients is how many clients each of the three streams may have at once; more
	// are answered with 503 Service Unavailable. [firebreak.Unlimited] sets no bound.
	// Default 5.
	MaxClients int
	// WriteTimeout is how long a client may take to read what is written to it, at
	// least 1ms. One that takes longer is dropped. It stands in place of
	// [http.Server].WriteTimeout, which would end a stream however well it is read.
	// Default 5s.
	WriteTimeout time.Duration
}

// A Handler is the stream for the dashboard, hystrix.stream; [Handler.Config] and
// [Handler.Utilization] are the other two. Its methods may be used concurrently.
//
// It has no goroutine: each client's own takes a sample when it is time, and the first
// to come reads the registry and encodes it for all. A client holds at most one sample,
// so one that reads slowly misses some, and costs the others nothing; one that stops
// reading is dropped after Options.WriteTimeout. Without a client nothing is read or
// kept.
//
// A stream needs a [http.ResponseWriter] that can flush, itself or by Unwrap: else the
// answer is 500 Internal Server Error. Behind a wrapper without Unwrap, whose Flush
// works all the same, there is no WriteTimeout. Nor does it help over HTTP/2 where a
// whole connection is stuck, not one stream of it: set WriteByteTimeout in
// [http.Server].HTTP2 for that.
type Handler struct {
	registry     *firebreak.Registry
	maxClients   int // may be firebreak.Unlimited
	writeTimeout time.Duration
	began        time.Time // of the ticks

	dashboard, config, utilization stream

	closed    chan struct{}
	closeOnce sync.Once
}

// New makes the streams of a registry. It panics if reg is nil, or o has a number that
// is out of range.
func New(reg *firebreak.Registry, o Options) *Handler {
	if reg == nil {
		panic("hystrixstream: a registry is needed")
	}
	if o.MaxClients < 0 && o.MaxClients != firebreak.Unlimited {
		panic(fmt.Sprintf("hystrixstream: MaxClients: %d is not at least 1, or Unlimited", o.MaxClients))
	}
	if o.WriteTimeout != 0 && o.WriteTimeout < time.Millisecond {
		panic(fmt.Sprintf("hystrixstream: WriteTimeout: %v is under 1ms", o.WriteTimeout))
	}
	h := &Handler{
		registry:     reg,
		maxClients:   o.MaxClients,
		writeTimeout: o.WriteTimeout,
		began:        time.Now(),
		closed:       make(chan struct{}),
	}
	if h.maxClients == 0 {
		h.maxClients = defaultMaxClients
	}
	if h.writeTimeout == 0 {
		h.writeTimeout = defaultWriteTimeout
	}
	h.dashboard = stream{handler: h, usual: usualDelay, encode: encodeDashboard}
	h.config = stream{handler: h, usual: configDelay, encode: encodeConfig}
	h.utilization = stream{handler: h, usual: usualDelay, encode: encodeUtilization}
	return h
}

// ServeHTTP is hystrix.stream, a line for each command and each pool. It returns when
// the client has gone or does not read, after [Handler.Close], and at most half a second
// and a write after [firebreak.Registry.Shutdown] was called.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.dashboard.ServeHTTP(w, r) }

// Config is the stream of settings, an object every 5 s, on the terms of the Handler
// and with clients of its own.
func (h *Handler) Config() http.Handler { return &h.config }

// Utilization is the stream of what is in flight and queued, an object every 500 ms,
// on the terms of the Handler and with clients of its own.
func (h *Handler) Utilization() http.Handler { return &h.utilization }

// Close ends the three streams, and refuses clients from now on. It does not wait: a
// stream is over when what is being written to it is written, or has taken
// Options.WriteTimeout. Give it to [http.Server.RegisterOnShutdown]: that server's
// Shutdown then waits for the streams. Closed again, it does nothing.
func (h *Handler) Close() { h.closeOnce.Do(func() { close(h.closed) }) }

// over tells whether there are to be no streams any more.
func (h *Handler) over() bool {
	select {
	case <-h.closed:
		return true
	default:
		return h.registry.Draining()
	}
}

// now is the time since the handler was made, by which all clients' ticks agree.
func (h *Handler) now() time.Duration { return time.Since(h.began) }

// ServeHTTP is one of the three streams.
func (s *stream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "GET or HEAD is needed", http.StatusMethodNotAllowed)
		return
	}
	if s.handler.over() {
		http.Error(w, "Service has been shut down.", http.StatusServiceUnavailable)
		return
	}
	delay, err := delayOf(r.URL.RawQuery, s.usual)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !s.enter() {
		http.Error(w, fmt.Sprintf("MaxConcurrentConnections reached: %d", s.handler.maxClients), http.StatusServiceUnavailable)
		return
	}
	defer s.leave()

	header := w.Header()
	header.Set("Content-Type", "text/event-stream;charset=UTF-8")
	header.Set("Cache-Control", "no-cache, no-store, max-age=0, must-revalidate")
	header.Set("Pragma", "no-cache")
	header.Set("X-Accel-Buffering", "no")           // nginx would wait for a buffer to be full
	header.Set("X-Content-Type-Options", "nosniff") // names of commands are no HTML
	if r.Method == http.MethodHead {
		return
	}
	if r.ProtoMajor == 1 {
		// The last write has a deadline, which a connection that is kept would keep.
		header.Set("Connection", "close")
	}
	s.serve(w, r, delay)
}

var (
	errQuery = errors.New("the query cannot be read")
	errDelay = errors.New("delay is not a whole number of milliseconds")
)

// delayOf is the time between samples that a query asks for.
func delayOf(query string, usual time.Duration) (time.Duration, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return 0, errQuery
	}
	text := values.Get("delay")
	if text == "" {
		return usual, nil
	}
	if strings.Trim(text, "0123456789") != "" {
		return 0, errDelay
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil { // there are too many digits
		return maxDelay, nil //nolint:nilerr // it is a number, and beyond the range, which it is taken into
	}
	ms = min(ms, maxDelay.Milliseconds()) // before it is multiplied
	delay := max(time.Duration(ms)*time.Millisecond, minDelay)
	return tick(delay+grain-1, grain), nil // up to a whole grain
}
