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
	"sync"
	"time"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakhttp"
)

const (
	// timeout is how long an API may take to begin its answer. They need a few
	// milliseconds; what takes a hundred times that is not coming.
	timeout = 250 * time.Millisecond

	// maxConcurrent is how many requests an API may have in hand for us. If each of 50
	// a second took its whole timeout, there would be 13; what is above 20 would only
	// wait with the others.
	maxConcurrent = 20

	// budget is how long a quote may take, answers' bodies included, which timeout does
	// not cover: a Transport's call is over when the headers are there.
	budget = time.Second

	// maxRateAge is how old a rate may be that stands in for today's.
	maxRateAge = time.Hour
)

var errUnknown = errors.New("no such item or currency")

// A shop serves GET /quote?item=tea&currency=EUR.
type shop struct {
	prices *pricesClient
	rates  *ratesClient
	mux    *http.ServeMux
}

// newShop makes a shop that asks the APIs at the two addresses, through base.
func newShop(reg *firebreak.Registry, base http.RoundTripper, pricesURL, ratesURL string) *shop {
	// A command for each API: what one of them does must not cost the other.
	config := firebreak.Config{Timeout: timeout, MaxConcurrent: maxConcurrent}
	prices := reg.Command("prices", config)
	rates := reg.Command("rates", config)

	s := &shop{
		// No client has a Timeout of its own: the command's is for the call, and the
		// quote's budget, which is in the request's context, for all of it.
		prices: &pricesClient{url: pricesURL, http: http.Client{Transport: &firebreakhttp.Transport{
			Command:  prices,
			Base:     base,
			Fallback: listPrice,
			// Tells the API how long we will wait, so that it can stop when we do.
			DeadlineHeader: firebreakhttp.DeadlineHeader,
		}}},
		rates: &ratesClient{url: ratesURL, last: map[string]seenRate{}, http: http.Client{Transport: &firebreakhttp.Transport{
			Command:        rates,
			Base:           base,
			DeadlineHeader: firebreakhttp.DeadlineHeader,
		}}},
		mux: http.NewServeMux(),
	}
	// The other end of the same header: who asks us may say how long they will wait. It
	// shortens the context, and what is left of it goes on to the APIs.
	s.mux.Handle("GET /quote", &firebreakhttp.Handler{
		Handler:        http.HandlerFunc(s.serveQuote),
		DeadlineHeader: firebreakhttp.DeadlineHeader,
	})
	// For people and dashboards. It names errors: in a service put it where the public
	// does not get.
	s.mux.Handle("GET /health", firebreakhttp.Health(reg))
	// For the load balancer. No command is required: a quote can do without either API,
	// and while one is down for all shops, taking them all out would help nobody.
	s.mux.Handle("GET /ready", firebreakhttp.Ready(reg))
	return s
}

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *shop) serveQuote(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), budget)
	defer cancel()
	q, err := s.quote(ctx, r.FormValue("item"), r.FormValue("currency"))
	switch {
	case err == nil:
		writeJSON(w, q)
	case errors.Is(err, errUnknown):
		http.Error(w, err.Error(), http.StatusNotFound)
	case firebreakhttp.Error(w, err):
		// It has answered: 503 with Retry-After, 504, … as the error says.
	default: // not firebreak's: a refused connection, an answer that makes no sense
		http.Error(w, "Bad Gateway", http.StatusBadGateway)
	}
}

// A Quote is what an item costs in a currency.
type Quote struct {
	Item     string `json:"item"`
	Currency string `json:"currency"`
	Cents    int    `json:"cents"` // of the currency
	// What in it is approximate; nothing if it is exact. Whoever reads the quote is to
	// know: a fallback that nobody can see is a bug that nobody can see.
	Approximate []string `json:"approximate,omitempty"`
}

const (
	isListPrice = "list price, not today's"
	isStaleRate = "last known rate, not today's"
)

func (s *shop) quote(ctx context.Context, item, currency string) (Quote, error) {
	var (
		price           Price
		rate            Rate
		noPrice, noRate error
		calls           sync.WaitGroup // at the same time: one timeout at worst, not two
	)
	calls.Go(func() { price, noPrice = s.prices.get(ctx, item) })
	calls.Go(func() { rate, noRate = s.rates.get(ctx, currency) })
	calls.Wait()
	if err := errors.Join(noPrice, noRate); err != nil {
		return Quote{}, err
	}
	q := Quote{Item: item, Currency: currency, Cents: int(math.Round(float64(price.Cents) * rate.Rate))}
	if price.List {
		q.Approximate = append(q.Approximate, isListPrice)
	}
	if rate.Stale {
		q.Approximate = append(q.Approximate, isStaleRate)
	}
	return q, nil
}

// A pricesClient is like one that was generated from the API's description: it wants
// an http.Client and knows nothing of firebreak. So its fallback must be a response.
type pricesClient struct {
	url  string
	http http.Client
}

// A Price is in US cents.
type Price struct {
	Item  string `json:"item"`
	Cents int    `json:"cents"`
	List  bool   `json:"list,omitempty"` // the catalogue's: the API never says so
}

func (c *pricesClient) get(ctx context.Context, item string) (Price, error) {
	return getJSON[Price](ctx, &c.http, c.url+"/price", url.Values{"item": {item}})
}

var catalogue = map[string]int{"tea": 450, "coffee": 650}

// listPrice is a [firebreakhttp.Transport.Fallback]: it answers as the API would,
// with the price that the shop printed.
func listPrice(req *http.Request, cause error) (*http.Response, error) {
	item := req.URL.Query().Get("item")
	cents, ok := catalogue[item]
	if !ok {
		return nil, cause // it passes: then the caller gets what the API did
	}
	body, err := json.Marshal(Price{Item: item, Cents: cents, List: true})
	if err != nil {
		return nil, err
	}
	return firebreakhttp.NewResponse(req, http.StatusOK, "application/json", body), nil
}

// A ratesClient is our own, so that its fallback has the type of its answers: the
// last rate that it has seen, for no longer than maxRateAge.
type ratesClient struct {
	url  string
	http http.Client

	mu   sync.Mutex
	last map[string]seenRate // by currency: of those that the API knows, so there are few
}

type seenRate struct {
	Rate
	at time.Time
}

// A Rate is what a US dollar is worth in a currency.
type Rate struct {
	Currency string  `json:"currency"`
	Rate     float64 `json:"rate"`
	Stale    bool    `json:"-"`
}

func (c *ratesClient) get(ctx context.Context, currency string) (Rate, error) {
	rate, err := getJSON[Rate](ctx, &c.http, c.url+"/rate", url.Values{"currency": {currency}})

	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.last[currency] = seenRate{rate, time.Now()}
		return rate, nil
	}
	last, ok := c.last[currency]
	if !ok || time.Since(last.at) > maxRateAge || errors.Is(err, errUnknown) {
		return Rate{}, err
	}
	last.Stale = true
	return last.Rate, nil
}

// maxBody is how much of an answer is read. Ours have a few dozen bytes.
const maxBody = 1 << 20

// getJSON is the core of both clients.
func getJSON[T any](ctx context.Context, client *http.Client, address string, query url.Values) (v T, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"?"+query.Encode(), nil)
	if err != nil {
		return v, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return v, err // the call's or the network's: errors.Is finds firebreak.ErrOpen and the like
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody)) // to its end, or the connection is not used again

	// The circuit has heard of a bad status already; the Transport delivers it all the
	// same, as a client may want what it says. This one wants an error.
	bad := firebreakhttp.Check(resp)
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return v, errUnknown
	case bad != nil:
		return v, bad
	case err != nil:
		return v, err
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fmt.Errorf("%s: %w", address, err)
	}
	return v, nil
}
