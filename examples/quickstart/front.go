package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/firebreak-go/firebreak"
)

const (
	// workers is how many requests the front has in hand at once. Every server has
	// such a bound, if not by design then by its memory, its file descriptors or the
	// connection pool of its database; what comes on top waits.
	workers = 32

	// clientTimeout is what a careful team gives its HTTP clients, firebreak or not.
	// A shorter one helps, but does not save the unprotected front: 160 product pages a
	// second × 250ms is still more than there are workers, and prices wait ever longer.
	clientTimeout = time.Second

	// The circuits' settings that the promises are made of: see [summarize].
	inventoryTimeout = 250 * time.Millisecond
	window           = 2 * time.Second
	sleepWindow      = time.Second
)

var errNotFound = errors.New("not found")

// A front serves the shop's pages: /price/{id}, and /product/{id}, for which it asks
// all three backends.
type front struct {
	price   func(ctx context.Context, id string) (Price, error)
	stock   func(ctx context.Context, id string) (Stock, error)
	reviews func(ctx context.Context, id string) (Reviews, error)

	seen    map[string]memory // by product
	handler http.Handler
	clients []*client
}

// newFront makes a front that calls its backends without protection. Call protect or
// degradeByHand, then serve it.
func newFront(b backends) *front {
	pricing := newClient("pricing", b.pricing.url)
	inventory := newClient("inventory", b.inventory.url)
	reviews := newClient("reviews", b.reviews.url)

	f := &front{
		price:   func(ctx context.Context, id string) (Price, error) { return get[Price](ctx, pricing, id) },
		reviews: func(ctx context.Context, id string) (Reviews, error) { return get[Reviews](ctx, reviews, id) },
		seen:    make(map[string]memory),
		clients: []*client{pricing, inventory, reviews},
	}

	// The stock of each product is remembered, for lastKnown. Older than five seconds
	// it would sell what is gone.
	for _, id := range catalogue {
		var m memory
		m.remember, m.stale = firebreak.Stale(func(ctx context.Context) (Stock, error) {
			return get[Stock](ctx, inventory, id)
		}, 5*time.Second)
		f.seen[id] = m
	}
	f.stock = func(ctx context.Context, id string) (Stock, error) {
		if m, ok := f.seen[id]; ok {
			return m.remember(ctx)
		}
		return Stock{}, errNotFound
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /price/{id}", f.servePrice)
	mux.HandleFunc("GET /product/{id}", f.serveProduct)
	f.handler = limited(workers, mux)
	return f
}

// protect puts firebreak between the front and its backends. This is all there is to
// it: a command for each backend, and each function bound to its command.
func (f *front) protect(reg *firebreak.Registry) {
	pricing := reg.Command("pricing", firebreak.Config{
		Timeout:       500 * time.Millisecond,
		MaxConcurrent: workers,
	})
	inventory := reg.Command("inventory", firebreak.Config{
		Timeout: inventoryTimeout,
		// Half of the workers: however long inventory hangs, the other half is there
		// for everybody else. For 160 calls a second it needs one of them at 5ms, and
		// eight on its slow days.
		MaxConcurrent: workers / 2,
	})
	reviews := reg.Command("reviews", firebreak.Config{
		Timeout:       200 * time.Millisecond,
		MaxConcurrent: workers / 4,
	})

	// A price has no fallback: a wrong one is worse than none, so that it fails fast.
	f.price = firebreak.Bind(pricing, f.price)
	// A stock is at first the last one known; when that is too old, an invitation.
	f.stock = firebreak.Bind(inventory, f.stock, f.lastKnown, checkAvailability)
	// A page without its reviews is still a page.
	f.reviews = firebreak.Bind(reviews, f.reviews, noReviews)
}

// degradeByHand is the front without firebreak, and no straw man: its clients have
// their timeout, and the same fallbacks answer for what fails. (The memory of the last
// stock is firebreak's too, but knows nothing of commands.)
func (f *front) degradeByHand() {
	f.stock = orElse(f.stock, f.lastKnown, checkAvailability)
	f.reviews = orElse(f.reviews, noReviews)
}

func orElse[In, Out any](fn func(context.Context, In) (Out, error), fallbacks ...func(context.Context, In, error) (Out, error)) func(context.Context, In) (Out, error) {
	return func(ctx context.Context, in In) (Out, error) {
		v, err := fn(ctx, in)
		if err == nil || errors.Is(err, errNotFound) {
			return v, err
		}
		for _, fallback := range fallbacks {
			if v, e := fallback(ctx, in, err); e == nil {
				return v, nil
			}
		}
		return v, err
	}
}

// The fallbacks. Each says on the page that it was one.

// A memory is the last good answer for one product. There is one for each, since the
// functions of the pair take no argument: what one product has cannot be shown for
// another.
type memory struct {
	remember func(context.Context) (Stock, error)
	stale    firebreak.Fallback[Stock]
}

func (f *front) lastKnown(ctx context.Context, id string, cause error) (Stock, error) {
	m, ok := f.seen[id]
	if !ok {
		return Stock{}, cause
	}
	stock, err := m.stale(ctx, cause)
	stock.Note = "last known stock"
	return stock, err
}

func checkAvailability(_ context.Context, id string, _ error) (Stock, error) {
	return Stock{ID: id, Note: "check availability"}, nil
}

func noReviews(_ context.Context, id string, _ error) (Reviews, error) {
	return Reviews{ID: id, Note: "no reviews"}, nil
}

// The pages.

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.handler.ServeHTTP(w, r) }

// A Product is the page that needs all three.
type Product struct {
	ID      string  `json:"id"`
	Price   Price   `json:"price"`
	Stock   Stock   `json:"stock"`
	Reviews Reviews `json:"reviews"`
}

func (f *front) servePrice(w http.ResponseWriter, r *http.Request) {
	price, err := f.price(r.Context(), r.PathValue("id"))
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, price)
}

func (f *front) serveProduct(w http.ResponseWriter, r *http.Request) {
	ctx, page := r.Context(), Product{ID: r.PathValue("id")}
	var errs [3]error
	var calls sync.WaitGroup
	calls.Go(func() { page.Price, errs[0] = f.price(ctx, page.ID) })
	calls.Go(func() { page.Stock, errs[1] = f.stock(ctx, page.ID) })
	calls.Go(func() { page.Reviews, errs[2] = f.reviews(ctx, page.ID) })
	calls.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, page)
}

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

// A client calls one backend, over connections that it shares with no other.
type client struct {
	name, url string
	http      http.Client
}

func newClient(name, url string) *client {
	return &client{name: name, url: url, http: http.Client{
		Timeout: clientTimeout,
		// The default keeps two idle connections for a host and closes the others: at
		// every burst it would dial again.
		Transport: &http.Transport{MaxIdleConnsPerHost: workers},
	}}
}

// get asks c for what it knows about id.
func get[T any](ctx context.Context, c *client, id string) (v T, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/"+id, nil)
	if err != nil {
		return v, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the address, which is in no one's interest
		}
		return v, fmt.Errorf("%s: %w", c.name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body) // to its end, or the connection cannot be used again

	switch {
	case resp.StatusCode == http.StatusNotFound:
		return v, errNotFound // an answer like any other: see Classify
	case resp.StatusCode != http.StatusOK:
		return v, fmt.Errorf("%s: %s", c.name, resp.Status)
	case err != nil:
		return v, fmt.Errorf("%s: %w", c.name, err)
	}
	err = json.Unmarshal(body, &v)
	return v, err
}

// stop closes the idle connections to the backends.
func (f *front) stop(context.Context) error {
	for _, c := range f.clients {
		c.http.CloseIdleConnections()
	}
	return nil
}
