package dashboard

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/firebreak-go/firebreak"
)

// Options are what a page can be told. The zero value of each is its default.
type Options struct {
	// Title is the page's heading: which service, which instance. Default "firebreak".
	Title string
	// Interval is the time between two pictures, at least 100ms. Default 1s.
	Interval time.Duration
	// MaxStreams is how many may watch at once; more are answered with 503 Service
	// Unavailable, and their pages try again. Default 32.
	MaxStreams int
	// MaxCommands is how many commands are shown at once. Of more, those whose circuit
	// is not closed or not left to itself come first, and the page says how many are
	// left out. Default 1000.
	MaxCommands int
	// MaxEvents is how many transitions and edits are remembered, for those who come
	// later. When there are more, the command with the most loses its oldest: a circuit
	// that flaps does not push out the others. Default 512.
	MaxEvents int
	// Operator is where Handler.Operator is mounted, as the page refers to it: a path,
	// absolute or relative to the page's, that ends in a slash ("operator/"). Empty: the
	// page is read-only.
	Operator string
	// Audit, if any, is told of what operators do, and of what they are not let do,
	// before they have their answer. It may be called concurrently; see Action.
	Audit func(*http.Request, Action)
}

// A Handler serves the page, its assets and its streams. Make one with [New]. Its
// methods may be used concurrently.
type Handler struct {
	registry *firebreak.Registry
	options  Options
	events   *events
	forget   func() // stops observing

	mu     sync.Mutex // guards what follows
	feed   *feed      // nil while nobody watches
	closed bool
	feeds  sync.WaitGroup

	editing sync.Mutex // of the document, by operators
}

// New returns a page of reg. From now on it remembers transitions; [Handler.Close]
// ends that. It panics on options that make no sense.
func New(reg *firebreak.Registry, o Options) *Handler {
	if reg == nil {
		panic("dashboard: a registry is needed")
	}
	o.fill()
	h := &Handler{registry: reg, options: o, events: newEvents(o.MaxEvents)}
	h.forget = reg.Observe(firebreak.Observer{Transition: h.events.transition})
	return h
}

func (o *Options) fill() {
	if o.Title == "" {
		o.Title = "firebreak"
	}
	switch {
	case o.Interval == 0:
		o.Interval = time.Second
	case o.Interval < 100*time.Millisecond:
		panic(fmt.Sprintf("dashboard: Options.Interval: %v is under 100ms", o.Interval))
	}
	o.MaxStreams = bound("MaxStreams", o.MaxStreams, 32)
	o.MaxCommands = bound("MaxCommands", o.MaxCommands, 1000)
	o.MaxEvents = bound("MaxEvents", o.MaxEvents, 512)
	if o.Operator != "" {
		u, err := url.Parse(o.Operator)
		if err != nil || u.Scheme != "" || u.Host != "" || u.RawQuery != "" || u.Fragment != "" || !strings.HasSuffix(u.Path, "/") {
			panic(fmt.Sprintf("dashboard: Options.Operator: %q is no path that ends in a slash", o.Operator))
		}
	}
}

func bound(name string, n, usual int) int {
	switch {
	case n < 0:
		panic(fmt.Sprintf("dashboard: Options.%s: %d is negative", name, n))
	case n == 0:
		return usual
	}
	return n
}

// ServeHTTP serves what the last element of the path names, and the page if the path
// ends in a slash; so mount it under any path that ends in one, with or without
// [http.StripPrefix].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the page is read-only", http.StatusMethodNotAllowed)
		return
	}
	switch name := lastElement(r.URL.Path); name {
	case "stream":
		h.stream(w, r)
	case "command":
		h.detail(w, r)
	default:
		serveAsset(w, r, name)
	}
}

// lastElement is what comes after the last slash.
func lastElement(p string) string {
	_, name := path.Split(p)
	return name
}

// secure sets the headers that hold for every answer. A page under Trusted Types has
// no way to make markup of text.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// Close ends all streams and the observing of transitions, and waits until nothing of
// the page's own runs. Streams that come later are answered with 503 Service
// Unavailable; the rest is served as before. A server's Shutdown waits for streams,
// so hand it this one with [http.Server.RegisterOnShutdown].
func (h *Handler) Close() {
	h.mu.Lock()
	h.closed = true
	if h.feed != nil {
		h.feed.end()
		h.feed = nil
	}
	h.mu.Unlock()
	h.forget()
	h.feeds.Wait()
}
