package dashboard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"sync"
	"time"

	"github.com/firebreak-go/firebreak"
)

// writeTime is how long a picture may take to leave. Who reads nothing for so long
// is dropped.
const writeTime = 10 * time.Second

// A feed is one goroutine that takes pictures for all who watch. It lives while
// somebody does; those that come after the last has left have another.
type feed struct {
	handler *Handler
	watch   int           // how many do; guarded by the handler's mu, like latest
	latest  *picture      // never nil
	over    chan struct{} // closed when the feed ends
	once    sync.Once
}

func (f *feed) end() { f.once.Do(func() { close(f.over) }) }

// A picture is all commands at one moment, encoded. It is not changed once it is the
// latest.
type picture struct {
	header
	items map[identity][]byte
	order []identity
	event uint64        // the number of the last event in it
	delta []byte        // what a reader of the one before is to be sent
	next  chan struct{} // closed when there is a later one

	wholeOnce sync.Once
	whole     []byte
}

// header is what changes with every picture.
type header struct {
	Number   uint64 `json:"number"`
	At       int64  `json:"at"`
	Draining bool   `json:"draining,omitempty"` // the registry was shut down: this is the last picture
	LeftOut  int    `json:"leftOut,omitempty"`  // commands above MaxCommands
}

// body is what a message says: in a whole picture everything, else what changed.
type body struct {
	header
	Set    []json.RawMessage `json:"set,omitempty"`  // dependencies and commands
	Gone   []gone            `json:"gone,omitempty"` // commands that are no more, or left out
	Events []event           `json:"events,omitempty"`
	*greeting
}

type gone struct {
	Command string `json:"command"`
	Key     string `json:"key,omitempty"`
}

// greeting is what a page is told once.
type greeting struct {
	Title    string   `json:"title"`
	Interval int64    `json:"interval"` // milliseconds
	Operator string   `json:"operator,omitempty"`
	Counts   []string `json:"counts"`
	Assets   string   `json:"assets"` // what they are: another one means that the page is out of date
}

// join takes part in the feed, and begins one if need be. Without a free place it
// returns nil.
func (h *Handler) join() (*feed, *picture) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil
	}
	f := h.feed
	if f == nil {
		f = &feed{handler: h, latest: h.take(nil), over: make(chan struct{})}
		h.feed = f
		h.feeds.Go(f.run)
	}
	if f.watch == h.options.MaxStreams {
		return nil, nil
	}
	f.watch++
	return f, f.latest
}

func (f *feed) leave() {
	h := f.handler
	h.mu.Lock()
	defer h.mu.Unlock()
	if f.watch--; f.watch == 0 {
		f.end()
		if h.feed == f {
			h.feed = nil
		}
	}
}

func (f *feed) run() {
	ticker := time.NewTicker(f.handler.options.Interval)
	defer ticker.Stop()
	last := f.latest // it is set by this goroutine alone
	for {
		select {
		case <-f.over:
			return
		case <-ticker.C:
		}
		p := f.handler.take(last)
		f.handler.mu.Lock()
		f.latest = p
		f.handler.mu.Unlock()
		close(last.next)
		last = p
	}
}

func (f *feed) current() *picture {
	f.handler.mu.Lock()
	defer f.handler.mu.Unlock()
	return f.latest
}

// take takes the picture after last, which may be nil.
func (h *Handler) take(last *picture) *picture {
	p := &picture{
		header: header{Number: 1, At: millis(time.Now()), Draining: h.registry.Draining()},
		items:  map[identity][]byte{}, next: make(chan struct{}),
	}
	if last == nil {
		last = &picture{}
	}
	p.Number = last.Number + 1
	b := body{}
	item := func(id identity, v any) {
		data := encode(v)
		if was, ok := last.items[id]; ok && bytes.Equal(was, data) {
			data = was
		} else {
			b.Set = append(b.Set, data)
		}
		p.items[id] = data
		p.order = append(p.order, id)
	}
	for cmd, s := range h.shown(&p.LeftOut) {
		d := dependencyOf(s)
		id := identity{name: d.Dependency}
		if _, ok := p.items[id]; !ok {
			item(id, d)
		}
		c := commandOf(cmd, s)
		item(identity{true, c.Command, c.Key}, c)
	}
	for _, id := range last.order {
		if _, ok := p.items[id]; !ok && id.command {
			b.Gone = append(b.Gone, gone{id.name, id.key})
		}
	}
	b.header = p.header
	b.Events = h.events.after(last.event)
	p.event = last.event
	if n := len(b.Events); n > 0 {
		p.event = b.Events[n-1].Number
	}
	p.delta = message("change", &b)
	return p
}

// shown yields the commands of a picture, in the registry's order, and counts those
// that are left out: of too many, those with nothing to see.
func (h *Handler) shown(leftOut *int) iter.Seq2[*firebreak.Command, *firebreak.Snapshot] {
	return func(yield func(*firebreak.Command, *firebreak.Snapshot) bool) {
		all := 0
		for range h.registry.Commands() {
			all++
		}
		room := h.options.MaxCommands
		well := room // how many more with nothing to see
		if all > room {
			for cmd := range h.registry.Commands() {
				if s := cmd.Snapshot(); !usual(&s) {
					well--
				}
			}
		}
		*leftOut = all
		for cmd := range h.registry.Commands() {
			s := cmd.Snapshot()
			if usual(&s) {
				if well <= 0 {
					continue
				}
				well--
			}
			if room == 0 || !yield(cmd, &s) {
				return
			}
			room--
			*leftOut--
		}
	}
}

// everything is the whole picture, for those who have not had the one before.
func (p *picture) everything(h *Handler) []byte {
	p.wholeOnce.Do(func() {
		b := body{header: p.header, Events: h.events.after(0), greeting: &greeting{
			Title: h.options.Title, Interval: h.options.Interval.Milliseconds(), Operator: h.options.Operator,
			Counts: countNames, Assets: assets.sum,
		}}
		for _, id := range p.order {
			b.Set = append(b.Set, p.items[id])
		}
		p.whole = message("whole", &b)
	})
	return p.whole
}

// message is one of the stream's.
func message(name string, b *body) []byte {
	var m bytes.Buffer
	fmt.Fprintf(&m, "event: %s\ndata: ", name)
	m.Write(encode(b))
	m.WriteString("\n\n")
	return m.Bytes()
}

// encode is v as JSON. What the page is sent are plain values, with no way to fail.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("dashboard: %T: %v", v, err))
	}
	return data
}

// stream sends pictures until the client has gone, the page is closed or the
// registry shut down.
func (h *Handler) stream(w http.ResponseWriter, r *http.Request) {
	to := http.NewResponseController(w)
	f, p := h.join()
	if f == nil {
		w.Header().Set("Retry-After", "10")
		http.Error(w, "too many watch, or the page is closed", http.StatusServiceUnavailable)
		return
	}
	defer f.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep it back
	if r.Method == http.MethodHead {
		return
	}
	// A server's ReadTimeout would end the request's context, its WriteTimeout every
	// stream at that age.
	if err := to.SetReadDeadline(time.Time{}); err != nil {
		http.Error(w, "the stream needs a ResponseWriter with deadlines; a wrapper needs Unwrap", http.StatusInternalServerError)
		return
	}
	send := func(message []byte) bool {
		if to.SetWriteDeadline(time.Now().Add(writeTime)) != nil {
			return false
		}
		_, err := w.Write(message)
		return err == nil && to.Flush() == nil
	}
	if !send([]byte("retry: 3000\n\n")) || !send(p.everything(h)) {
		return
	}
	for !p.Draining {
		select {
		case <-p.next:
		case <-f.over:
			return
		case <-r.Context().Done():
			return
		}
		was := p.Number
		p = f.current()
		m := p.delta
		if p.Number != was+1 { // too slow for one in between
			m = p.everything(h)
		}
		if !send(m) {
			return
		}
	}
}
