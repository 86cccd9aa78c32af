package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"

	"github.com/firebreak-go/firebreak"
)

// rowLength is how many titles there are in a row, at most: a device shows as many as
// it has room for.
const rowLength = 10

// An edge serves each device the page that suits it, of what the backends say.
type edge struct {
	api     *api
	log     *slog.Logger
	recent  *journal
	handler http.Handler
}

func newEdge(a *api, log *slog.Logger) *edge {
	e := &edge{api: a, log: log, recent: &journal{}}
	mux := http.NewServeMux()
	mux.Handle("GET /tv/home", e.request("/tv/home", e.tvHome))
	mux.Handle("GET /phone/home", e.request("/phone/home", e.phoneHome))
	mux.Handle("GET /web/home", e.request("/web/home", e.webHome))
	mux.Handle("GET /tv/play/{title}", e.request("/tv/play", e.tvPlay))
	mux.Handle("GET /web/search", e.request("/web/search", e.webSearch))
	e.handler = limited(workers, mux)
	return e
}

func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.handler.ServeHTTP(w, r) }

// A device is what a page must know of the screen it is for.
type device struct {
	name      string
	titles    int    // in a row
	imageSize string // as the images backend calls it
	bookmarks bool
	ratings   bool
}

var (
	tv    = device{name: "tv", titles: rowLength, imageSize: "1920", bookmarks: true, ratings: true}
	phone = device{name: "phone", titles: 5, imageSize: "320", bookmarks: true}
	web   = device{name: "web", titles: 8, imageSize: "640", ratings: true}
)

// What the pages are made of.
type (
	Row struct {
		Name   string  `json:"name"`
		Titles []Title `json:"titles"`
	}
	Title struct {
		ID      string `json:"id"`
		Image   string `json:"image"`
		Seconds int    `json:"seconds,omitempty"`
		Stars   int    `json:"stars,omitempty"`
	}
)

// TVHome has everything, at once: a television is patient, and draws when all is there.
type TVHome struct {
	User     User     `json:"user"`
	Plan     Plan     `json:"plan"`
	Place    Place    `json:"place"`
	Cells    Cells    `json:"cells"`
	Rows     []Row    `json:"rows"`
	Friends  []Friend `json:"friends"`
	Degraded []string `json:"degraded"` // what fallbacks have answered, and how
}

func (e *edge) tvHome(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	var page TVHome
	id := userOf(r)
	rows := [3]Row{}
	err := together(
		func() (err error) { page.User, err = e.api.user(ctx, id); return err },
		func() (err error) { page.Plan, err = e.api.plan(ctx, id); return err },
		func() (err error) { page.Place, err = e.api.place(ctx, r.RemoteAddr); return err },
		func() (err error) { page.Cells, err = e.api.cells(ctx, id); return err },
		func() (err error) { rows[0], err = e.continueWatching(ctx, tv, id); return err },
		func() (err error) { rows[1], err = e.forYou(ctx, tv, id); return err },
		func() (err error) { rows[2], err = e.popularNow(ctx, tv, id); return err },
		func() (err error) { page.Friends, err = e.api.friends(ctx, id); return err },
	)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if len(row.Titles) > 0 {
			page.Rows = append(page.Rows, row)
		}
	}
	page.Degraded = degraded(ctx)
	writeJSON(w, page)
	return nil
}

// PhoneHome has little: a row, small pictures, and no more of the user than a name.
type PhoneHome struct {
	Name     string   `json:"name"`
	ForYou   []Title  `json:"forYou"`
	Degraded []string `json:"degraded"`
}

func (e *edge) phoneHome(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	var user User
	var row Row
	id := userOf(r)
	err := together(
		func() (err error) { user, err = e.api.user(ctx, id); return err },
		func() (err error) { _, err = e.api.cells(ctx, id); return err },
		func() (err error) { row, err = e.forYou(ctx, phone, id); return err },
	)
	if err != nil {
		return err
	}
	writeJSON(w, PhoneHome{Name: user.Name, ForYou: row.Titles, Degraded: degraded(ctx)})
	return nil
}

// WebLine is one line of the web's home, which a browser draws as it comes (NDJSON).
// The last one is done; without it, the page was cut off.
type WebLine struct {
	User     *User    `json:"user,omitempty"`
	Plan     *Plan    `json:"plan,omitempty"`
	Place    *Place   `json:"place,omitempty"`
	Row      *Row     `json:"row,omitempty"`
	Friends  []Friend `json:"friends,omitempty"`
	Done     bool     `json:"done,omitempty"`
	Degraded []string `json:"degraded,omitempty"` // on the last line
}

func (e *edge) webHome(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	id := userOf(r)
	user, err := e.api.user(ctx, id) // while the status can still be said
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := lineWriter{w: w, lines: json.NewEncoder(w)}
	out.write(WebLine{User: &user})
	row := func(row Row, err error) error {
		if err == nil && len(row.Titles) > 0 {
			out.write(WebLine{Row: &row})
		}
		return err
	}
	err = together(
		func() error {
			plan, err := e.api.plan(ctx, id)
			out.write(WebLine{Plan: &plan})
			return err
		},
		func() error {
			place, err := e.api.place(ctx, r.RemoteAddr)
			out.write(WebLine{Place: &place})
			return err
		},
		func() error { _, err := e.api.cells(ctx, id); return err },
		func() error { return row(e.continueWatching(ctx, web, id)) },
		func() error { return row(e.forYou(ctx, web, id)) },
		func() error { return row(e.popularNow(ctx, web, id)) },
		func() error {
			friends, err := e.api.friends(ctx, id)
			if len(friends) > 0 {
				out.write(WebLine{Friends: friends})
			}
			return err
		},
	)
	if err != nil {
		return cutOff{err}
	}
	out.write(WebLine{Done: true, Degraded: degraded(ctx)})
	return nil
}

// A lineWriter sends each line at once; whoever has one may write it.
type lineWriter struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	lines *json.Encoder
}

func (l *lineWriter) write(line WebLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.lines.Encode(line) // an error here is a client that has left
	_ = http.NewResponseController(l.w).Flush()
}

// Play is what a television needs to begin. It is the page that fails fast: there is
// nothing to show in place of a licence.
type Play struct {
	Licence  Licence  `json:"licence"`
	UHD      bool     `json:"uhd"`
	Seconds  int      `json:"seconds"`
	Degraded []string `json:"degraded"`
}

func (e *edge) tvPlay(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	var plan Plan
	var bookmark Bookmark
	var page Play
	of := seat{userOf(r), r.PathValue("title")}
	err := together(
		func() (err error) { plan, err = e.api.plan(ctx, of.user); return err },
		func() (err error) { bookmark, err = e.api.bookmark(ctx, of); return err },
		func() (err error) { page.Licence, err = e.api.licence(ctx, of); return err },
	)
	if err != nil {
		return err
	}
	page.UHD, page.Seconds, page.Degraded = plan.UHD, bookmark.Seconds, degraded(ctx)
	writeJSON(w, page)
	return nil
}

// Search is what was found.
type Search struct {
	Titles   []Title  `json:"titles"`
	Degraded []string `json:"degraded"`
}

func (e *edge) webSearch(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	ids, err := e.api.search(ctx, r.FormValue("q"))
	if err != nil {
		return err
	}
	page := Search{Titles: e.draw(ctx, device{titles: web.titles, imageSize: web.imageSize}, userOf(r), ids)}
	page.Degraded = degraded(ctx)
	writeJSON(w, page)
	return nil
}

// The rows.

func (e *edge) continueWatching(ctx context.Context, d device, user string) (Row, error) {
	var ids []string
	for watched, err := range e.api.history(ctx, user) {
		if err != nil {
			return Row{}, err
		}
		if ids = append(ids, watched.Title); len(ids) == d.titles {
			break // the backend has more; the call is a success all the same
		}
	}
	return Row{"Continue watching", e.draw(ctx, d, user, ids)}, nil
}

func (e *edge) forYou(ctx context.Context, d device, user string) (Row, error) {
	u, err := e.api.user(ctx, user) // the page asks, too: one of the two is a hit
	if err != nil {
		return Row{}, err
	}
	ids, err := e.api.personal(ctx, u)
	return Row{"For you", e.draw(ctx, d, user, ids)}, err
}

func (e *edge) popularNow(ctx context.Context, d device, user string) (Row, error) {
	ids, err := e.api.popular(ctx)
	return Row{"Popular now", e.draw(ctx, d, user, ids)}, err
}

// draw gives titles what the device shows of them. What cannot be had is left out: no
// row is lost for a star.
func (e *edge) draw(ctx context.Context, d device, user string, ids []string) []Title {
	ids = ids[:min(len(ids), d.titles)]
	if len(ids) == 0 {
		return []Title{}
	}
	seats := make([]seat, len(ids))
	for i, id := range ids {
		seats[i] = seat{user, id}
	}
	var images map[string]string
	var bookmarks map[seat]Bookmark
	var ratings map[seat]Rating
	_ = together(
		func() (err error) { images, err = e.api.images(ctx, artwork{d.imageSize, ids}); return err },
		func() (err error) {
			if d.bookmarks { // all at once, or they would not meet in a batch
				bookmarks, err = firebreak.Gather(ctx, seats, firebreak.Unlimited, e.api.bookmark)
			}
			return err
		},
		func() (err error) {
			if d.ratings {
				ratings, err = firebreak.Gather(ctx, seats, firebreak.Unlimited, e.api.rating)
			}
			return err
		},
	)
	titles := make([]Title, len(ids))
	for i, id := range ids {
		titles[i] = Title{id, images[id], bookmarks[seats[i]].Seconds, ratings[seats[i]].Stars}
	}
	return titles
}

// userOf is who asks; a real edge would ask a token.
func userOf(r *http.Request) string { return r.Header.Get("X-User") }

// together returns when all parts have, with their errors.
func together(parts ...func() error) error {
	errs := make([]error, len(parts))
	var running sync.WaitGroup
	for i, part := range parts {
		running.Go(func() { errs[i] = part() })
	}
	running.Wait()
	return errors.Join(errs...)
}
