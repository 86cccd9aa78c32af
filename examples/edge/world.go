package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/firebreak-go/firebreak"
)

// A world is everything that runs: the backends, the registry and the edge between
// them and its visitors.
type world struct {
	backends []*backend
	reg      *firebreak.Registry
	edge     *edge
	url      string // of the edge

	mu      sync.Mutex
	circuit []firebreak.Transition // in the order they happened
	running cleanup
}

type worldOptions struct {
	addr      string // of the edge
	unguarded bool
	log       *slog.Logger // nil: no log
}

// startWorld starts everything, or nothing and says why.
func startWorld(o worldOptions) (*world, error) {
	w := &world{backends: newBackends(), reg: newRegistry()}
	if err := w.start(o); err != nil {
		_ = w.stop() // err says what went wrong first
		return nil, err
	}
	return w, nil
}

func (w *world) start(o worldOptions) error {
	w.running.add(func(ctx context.Context) error { return stopBackends(ctx, w.backends) })
	if err := startBackends(w.backends); err != nil {
		return err
	}

	w.running.add(w.reg.Shutdown) // an error if a permit never came back
	w.reg.Observe(firebreak.Observer{Transition: w.note})

	clients := map[string]*client{}
	for _, b := range w.backends {
		clients[b.name] = newClient(b.name, b.server.url)
	}
	w.running.add(func(context.Context) error {
		for _, c := range clients {
			c.http.CloseIdleConnections()
		}
		return nil
	})
	guard := unguarded
	if !o.unguarded {
		guard = nil
	}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	w.edge = newEdge(newAPI(w.reg, clients, guard), o.log)
	server, err := serve(o.addr, w.edge)
	if err != nil {
		return err
	}
	w.url = server.url
	w.running.add(server.stop)
	return nil
}

func (w *world) stop() error { return w.running.stop() }

func (w *world) note(t firebreak.Transition) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.circuit) < 10_000 { // a service runs for days
		w.circuit = append(w.circuit, t)
	}
}

// transitions returns what happened so far; the caller must not change it.
func (w *world) transitions() []firebreak.Transition {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.circuit[:len(w.circuit):len(w.circuit)]
}

// afflict has a backend fall ill, or recover.
func (w *world) afflict(name string, t trouble) error {
	for _, b := range w.backends {
		if b.name == name {
			b.fallIll(t)
			return nil
		}
	}
	return fmt.Errorf("no backend %q", name)
}

// saved counts the calls that were not made, since the world began.
type saved struct {
	Cached    uint64 `json:"cached"`    // asked again in one request, and answered from it
	Keys      uint64 `json:"keys"`      // asked for one by one, of collapsed commands
	Batches   uint64 `json:"batches"`   // calls in which those went
	Refused   uint64 `json:"refused"`   // by open circuits and full bulkheads: trouble that was not made worse
	Fallbacks uint64 `json:"fallbacks"` // answers in place of a call's
}

func (w *world) saved() saved {
	var s saved
	for c := range w.reg.Commands() {
		n := c.Snapshot().Total
		s.Cached += n.CacheHits
		s.Refused += n.ShortCircuited + n.Rejected
		s.Fallbacks += n.FallbackSuccess
		if n.Collapsed > 0 {
			s.Keys += n.Collapsed
			s.Batches += n.Executed() + n.Rejected
		}
	}
	return s
}
