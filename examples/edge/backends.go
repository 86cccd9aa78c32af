package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"
)

// The dozen that the edge is made of. Each is a real HTTP server on loopback that
// knows nothing of firebreak, and can be made ill: see [trouble].

// latency is how long a backend takes: log-normal, as answers over a network mostly
// are, so that the median says little about the slow end.
type latency struct{ median, p99 time.Duration }

func (l latency) draw() time.Duration {
	const z99 = 2.326 // the 99th percentile of the standard normal distribution
	sigma := math.Log(float64(l.p99)/float64(l.median)) / z99
	d := float64(l.median) * math.Exp(sigma*rand.NormFloat64())
	return min(time.Duration(d), 2*l.p99) // one answer in a billion would take minutes
}

// newBackends makes all twelve, not yet listening.
func newBackends() []*backend {
	ms := func(median, p99 int) latency {
		return latency{time.Duration(median) * time.Millisecond, time.Duration(p99) * time.Millisecond}
	}
	return []*backend{
		{name: "users", latency: ms(4, 15), answer: usersBackend},
		{name: "subscriptions", latency: ms(5, 20), answer: subscriptionsBackend},
		{name: "geo", latency: ms(1, 4), answer: geoBackend},
		{name: "abtests", latency: ms(2, 8), answer: abtestsBackend},
		{name: "recommendations", latency: ms(20, 50), answer: recommendationsBackend},
		{name: "history", latency: ms(8, 30), answer: historyBackend},
		{name: "bookmarks", latency: ms(5, 15), answer: bookmarksBackend},
		{name: "ratings", latency: ms(5, 15), answer: ratingsBackend},
		{name: "images", latency: ms(3, 10), answer: imagesBackend},
		{name: "licences", latency: ms(8, 25), answer: licencesBackend},
		{name: "search", latency: ms(15, 40), answer: searchBackend},
		{name: "social", latency: ms(10, 40), answer: socialBackend},
	}
}

// A trouble is what can be wrong with a backend.
type trouble string

const (
	well trouble = ""
	slow trouble = "slow" // every answer comes, slowFactor times later
	hang trouble = "hang" // requests are taken and never answered
	fail trouble = "fail" // every answer is a 500, at once
	drop trouble = "drop" // connections break as soon as something is asked
	flap trouble = "flap" // fail and well in turn
)

var troubles = []trouble{slow, hang, fail, drop, flap}

const (
	slowFactor = 25
	flapIll    = 600 * time.Millisecond // of each
	flapPeriod = time.Second
)

type backend struct {
	name    string
	latency latency
	answer  func(w http.ResponseWriter, r *http.Request)

	ill    atomic.Pointer[illness] // nil: well
	asked  atomic.Int64            // requests that came, answered or not
	server *server
}

type illness struct {
	trouble trouble
	since   time.Time
}

// fallIll may be called at any time; with well the backend recovers. Who already hangs
// goes on hanging.
func (b *backend) fallIll(t trouble) {
	if t == well {
		b.ill.Store(nil)
		return
	}
	b.ill.Store(&illness{t, time.Now()})
}

// illFrom is what was last asked for; what that means just now is present's to say.
func (b *backend) illFrom() trouble {
	if ill := b.ill.Load(); ill != nil {
		return ill.trouble
	}
	return well
}

func (b *backend) present(now time.Time) trouble {
	ill := b.ill.Load()
	switch {
	case ill == nil:
		return well
	case ill.trouble != flap:
		return ill.trouble
	case now.Sub(ill.since)%flapPeriod < flapIll:
		return fail
	default:
		return well
	}
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.asked.Add(1)
	takes := b.latency.draw()
	switch b.present(time.Now()) {
	case slow:
		takes *= slowFactor
	case hang:
		<-r.Context().Done() // until whoever asked has hung up
		return
	case fail:
		http.Error(w, "too many connections to the database", http.StatusInternalServerError)
		return
	case drop:
		panic(http.ErrAbortHandler) // how a handler breaks its connection
	}
	if sleep(r.Context(), takes) {
		b.answer(w, r)
	}
}

func startBackends(all []*backend) error {
	for _, b := range all {
		var err error
		if b.server, err = serve("127.0.0.1:0", b); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return nil
}

func stopBackends(ctx context.Context, all []*backend) error {
	var errs []error
	for _, b := range all {
		if b.server != nil {
			errs = append(errs, b.server.stop(ctx))
		}
	}
	return errors.Join(errs...)
}

// What they say.
type (
	User struct {
		ID    string `json:"id"`
		Name  string `json:"name"`
		Taste string `json:"taste"`
	}
	Plan struct {
		Name string `json:"name"`
		UHD  bool   `json:"uhd"`
	}
	Place struct {
		Country string `json:"country"`
	}
	Cells   map[string]string // of each A/B test, which one the user is in
	Watched struct {
		Title   string `json:"title"`
		Percent int    `json:"percent"`
	}
	Bookmark struct {
		Seconds int `json:"seconds"` // where the user stopped watching; 0 is the beginning
	}
	Rating struct {
		Stars int `json:"stars"` // the user's own, 1 to 5; 0 is none
	}
	Licence struct {
		Title string `json:"title"`
		Token string `json:"token"`
	}
	Friend struct {
		Name     string `json:"name"`
		Watching string `json:"watching"`
	}
)

const (
	numUsers  = 100
	numTitles = 200
)

func userID(n int) string  { return fmt.Sprintf("u%03d", n%numUsers) }
func titleID(n int) string { return fmt.Sprintf("t%03d", n%numTitles) }

const noSuchTitle = "t999"

// number makes of any text a number, always the same: the backends have no database.
func number(parts ...string) int {
	h := fnv.New32a()
	for _, p := range parts {
		_, _ = h.Write([]byte(p + "\n")) // never fails
	}
	return int(h.Sum32() >> 1)
}

// titlesFrom is n titles, each once.
func titlesFrom(first, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = titleID(first + 7*i) // 7 and numTitles have no divisor in common
	}
	return ids
}

// The paths are /{user} where it is about one, what else is asked is in the query.

func usersBackend(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Path[1:]
	if id == "" || id[0] != 'u' {
		http.NotFound(w, r)
		return
	}
	tastes := []string{"crime", "comedy", "space", "cooking"}
	writeJSON(w, User{ID: id, Name: "Viewer " + id[1:], Taste: tastes[number(id)%len(tastes)]})
}

func subscriptionsBackend(w http.ResponseWriter, r *http.Request) {
	if number(r.URL.Path)%3 == 0 {
		writeJSON(w, Plan{Name: "basic"})
		return
	}
	writeJSON(w, Plan{Name: "premium", UHD: true})
}

func geoBackend(w http.ResponseWriter, r *http.Request) {
	countries := []string{"NO", "BR", "JP", "DE"}
	writeJSON(w, Place{countries[number(r.URL.Query().Get("ip"))%len(countries)]})
}

func abtestsBackend(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, Cells{"artwork": string("AB"[number(r.URL.Path)%2]), "autoplay": string("AB"[number(r.URL.Path, "")%2])})
}

func recommendationsBackend(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/popular" {
		writeJSON(w, titlesFrom(0, rowLength))
		return
	}
	writeJSON(w, titlesFrom(number(r.URL.Path, r.URL.Query().Get("taste")), rowLength))
}

// historyBackend answers with a line for each title, newest first.
func historyBackend(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	for i, title := range titlesFrom(number(r.URL.Path, "history"), 3*rowLength) {
		if lines.Encode(Watched{title, 10 + i%90}) != nil {
			return // the client has what it needs
		}
	}
}

func bookmarksBackend(w http.ResponseWriter, r *http.Request) {
	found := map[string]Bookmark{}
	for _, title := range r.URL.Query()["title"] {
		found[title] = Bookmark{number(r.URL.Path, title) % 5400}
	}
	writeJSON(w, found)
}

func ratingsBackend(w http.ResponseWriter, r *http.Request) {
	found := map[string]Rating{}
	for _, title := range r.URL.Query()["title"] {
		found[title] = Rating{1 + number(r.URL.Path, title)%5}
	}
	writeJSON(w, found)
}

func imagesBackend(w http.ResponseWriter, r *http.Request) {
	found := map[string]string{}
	for _, title := range r.URL.Query()["title"] {
		found[title] = fmt.Sprintf("/img/%s/%s.jpg", r.URL.Query().Get("size"), title)
	}
	writeJSON(w, found)
}

func licencesBackend(w http.ResponseWriter, r *http.Request) {
	title := r.URL.Query().Get("title")
	if title == noSuchTitle {
		http.NotFound(w, r)
		return
	}
	writeJSON(w, Licence{Title: title, Token: fmt.Sprintf("%x", number(r.URL.Path, title))})
}

func searchBackend(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, titlesFrom(number(r.URL.Query().Get("q")), rowLength))
}

func socialBackend(w http.ResponseWriter, r *http.Request) {
	n := number(r.URL.Path)
	writeJSON(w, []Friend{{"Viewer " + userID(n)[1:], titleID(n)}, {"Viewer " + userID(n + 1)[1:], titleID(n + 9)}})
}
