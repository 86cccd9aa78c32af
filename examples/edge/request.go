package main

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/firebreak-go/firebreak"
)

// workers is how many requests the edge has in hand at once. Every server has such a
// bound, if not by design then by its memory, its file descriptors or its connections;
// what comes on top waits.
const workers = 20

// notes are what fallbacks have answered in one request, each once.
type notes struct {
	mu  sync.Mutex
	all []string
}

type notesKey struct{}

// note is called by a fallback that has an answer.
func note(ctx context.Context, what string) {
	n, ok := ctx.Value(notesKey{}).(*notes)
	if !ok {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Contains(n.all, what) {
		n.all = append(n.all, what)
	}
}

// degraded is what stood in for a backend on the page so far; never nil, so that it is
// a list in JSON.
func degraded(ctx context.Context) []string {
	n := ctx.Value(notesKey{}).(*notes)
	n.mu.Lock()
	defer n.mu.Unlock()
	all := append([]string{}, n.all...)
	slices.Sort(all)
	return all
}

// request is what all pages have in common: a scope, for the request cache and the
// batches; notes; and a line in the log, of all the calls it took.
func (e *edge) request(endpoint string, page func(context.Context, http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := firebreak.WithScope(context.WithValue(r.Context(), notesKey{}, &notes{}))
		began := time.Now()
		err := page(ctx, w, r)
		_, late := errors.AsType[cutOff](err)
		if err != nil && !late {
			writeError(w, err)
		}

		took, mended, line := time.Since(began), degraded(ctx), firebreak.RequestLog(ctx).String()
		attrs := []any{"page", endpoint, "took", took, "degraded", mended, "calls", line}
		level := slog.LevelInfo
		if err != nil {
			attrs, level = append(attrs, "err", err), slog.LevelWarn
		}
		e.log.Log(ctx, level, "served", attrs...)
		e.recent.add(entry{endpoint, took, mended, line, err})
		if late {
			panic(http.ErrAbortHandler) // the client sees that this was not all
		}
	})
}

// cutOff is an error that came when the status had been sent.
type cutOff struct{ error }

func (c cutOff) Unwrap() error { return c.error }

// writeError tells a client what it can do about it: nothing, come back later, or
// hope for the best.
func writeError(w http.ResponseWriter, err error) {
	if errors.Is(err, errNotFound) {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	refusal, ok := errors.AsType[*firebreak.Error](err)
	if !ok {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	if d := refusal.RetryAfter(); d > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
	}
	http.Error(w, err.Error(), http.StatusServiceUnavailable)
}

// limited hands h as many requests at once as there are workers. The others wait for
// theirs, in order, until their clients give up.
func limited(workers int, h http.Handler) http.Handler {
	busy := make(chan struct{}, workers)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case busy <- struct{}{}:
			defer func() { <-busy }()
			h.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}

// An entry is the request log of one request.
type entry struct {
	Endpoint string
	Took     time.Duration
	Degraded []string
	Calls    string // in Hystrix's format
	Err      error
}

// A journal has the last entries.
type journal struct {
	mu   sync.Mutex
	last []entry
}

const journalLength = 40

func (j *journal) add(e entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.last) == journalLength {
		j.last = append(j.last[:0], j.last[1:]...)
	}
	j.last = append(j.last, e)
}

// entries returns them, newest first.
func (j *journal) entries() []entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := slices.Clone(j.last)
	slices.Reverse(all)
	return all
}
