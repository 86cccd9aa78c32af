package main

import (
	"context"
	"fmt"
	"iter"
	"net/url"
	"time"

	"github.com/firebreak-go/firebreak"
)

// The part to copy from: a command for each operation of each backend, and what
// answers in its place.

// The circuits' settings are small ones, so that a few seconds show it all. In a
// service say nothing and get 10s of statistics and 5s of sleep.
const (
	window      = time.Second            // what the error percentage is of
	sleepWindow = 500 * time.Millisecond // from opening to the first probe
	maxTimeout  = 300 * time.Millisecond // no command has a longer one
)

func newRegistry() *firebreak.Registry {
	return firebreak.NewRegistry(firebreak.Config{
		Window:                 window,
		SleepWindow:            sleepWindow,
		RequestVolumeThreshold: 5,
		Classify:               firebreak.ExpectErrors(errNotFound),
		RequestLog:             firebreak.On,
	})
}

// An api is the backends as functions, guarded. Only licence can fail for want of its
// backend; the others have something to say without.
type api struct {
	user     func(ctx context.Context, id string) (User, error)
	plan     func(ctx context.Context, user string) (Plan, error)
	place    func(ctx context.Context, ip string) (Place, error)
	cells    func(ctx context.Context, user string) (Cells, error)
	popular  func(ctx context.Context) ([]string, error)
	personal func(ctx context.Context, u User) ([]string, error)
	history  func(ctx context.Context, user string) iter.Seq2[Watched, error]
	bookmark func(ctx context.Context, of seat) (Bookmark, error)
	rating   func(ctx context.Context, of seat) (Rating, error)
	images   func(ctx context.Context, of artwork) (map[string]string, error)
	licence  func(ctx context.Context, of seat) (Licence, error)
	search   func(ctx context.Context, q string) ([]string, error)
	friends  func(ctx context.Context, user string) ([]Friend, error)
}

type (
	seat struct{ user, title string } // of somebody before a screen

	artwork struct {
		size   string
		titles []string
	}
)

// newAPI makes the commands in reg. guard is what their settings go through: it is nil
// in a service, and [unguarded] to see what would be without.
func newAPI(reg *firebreak.Registry, clients map[string]*client, guard func(firebreak.Config) firebreak.Config) *api {
	if guard == nil {
		guard = func(c firebreak.Config) firebreak.Config { return c }
	}
	command := func(name string, c firebreak.Config) *firebreak.Command { return reg.Command(name, guard(c)) }
	a := &api{}

	// Users: a request asks for its user in several places, and asks the backend once.
	// Without it, what was last known of the user; then a name that fits everybody.
	users := command("users", firebreak.Config{Timeout: 150 * time.Millisecond, MaxConcurrent: 16})
	profiles := newMemory[string, User]()
	a.user = firebreak.Cached(users, firebreak.Bind(users,
		profiles.remember(func(ctx context.Context, id string) (User, error) {
			return get[User](ctx, clients["users"], id, nil)
		}),
		profiles.recall("users: cached"),
		func(ctx context.Context, id string, _ error) (User, error) {
			note(ctx, "users: stubbed")
			return User{ID: id, Name: "you"}, nil
		}))

	// Subscriptions: a plan changes once in a year, so that an old one will do. One that
	// was never known is the cheapest: nobody is sent away who pays.
	subscriptions := command("subscriptions", firebreak.Config{Timeout: 150 * time.Millisecond, MaxConcurrent: 16})
	plans := newMemory[string, Plan]()
	a.plan = firebreak.Cached(subscriptions, firebreak.Bind(subscriptions,
		plans.remember(func(ctx context.Context, user string) (Plan, error) {
			return get[Plan](ctx, clients["subscriptions"], user, nil)
		}),
		plans.recall("subscriptions: cached"),
		func(ctx context.Context, _ string, _ error) (Plan, error) {
			note(ctx, "subscriptions: stubbed")
			return Plan{Name: "basic"}, nil
		}))

	// Geo answers in a millisecond, or something is wrong.
	geo := command("geo", firebreak.Config{Timeout: 100 * time.Millisecond, MaxConcurrent: 8})
	a.place = firebreak.Bind(geo,
		func(ctx context.Context, ip string) (Place, error) {
			return get[Place](ctx, clients["geo"], "place", url.Values{"ip": {ip}})
		},
		func(ctx context.Context, _ string, _ error) (Place, error) {
			note(ctx, "geo: stubbed")
			return Place{"US"}, nil
		})

	// A/B tests: who cannot be placed sees what most people see.
	abtests := command("abtests", firebreak.Config{Timeout: 100 * time.Millisecond, MaxConcurrent: 16})
	a.cells = firebreak.Cached(abtests, firebreak.Bind(abtests,
		func(ctx context.Context, user string) (Cells, error) {
			return get[Cells](ctx, clients["abtests"], user, nil)
		},
		func(ctx context.Context, _ string, _ error) (Cells, error) {
			note(ctx, "abtests: stubbed")
			return Cells{"artwork": "A", "autoplay": "A"}, nil
		}))

	// Recommendations: one dependency, two commands. They share a pool, as this is the
	// backend with the most work behind each answer: whatever its client does, a caller
	// is gone after the timeout. Each command has its own circuit. The slow call rule is
	// for the day on which every answer comes, and none in time to be of use.
	recommendations := reg.Dependency("recommendations", guard(firebreak.Config{
		Isolation:        firebreak.PoolIsolation,
		MaxConcurrent:    16,
		QueueSize:        8,
		Timeout:          maxTimeout,
		SlowCallDuration: 120 * time.Millisecond,
	}))
	popular := recommendations.Command("recommendations.popular", firebreak.Config{})
	personal := recommendations.Command("recommendations.personal", firebreak.Config{})

	// What is popular is so for all: the last good list is as good for whoever asks.
	ask, stale := firebreak.Stale(func(ctx context.Context) ([]string, error) {
		return get[[]string](ctx, clients["recommendations"], "popular", nil)
	}, time.Hour)
	lastPopular := func(ctx context.Context, cause error) ([]string, error) {
		titles, err := stale(ctx, cause)
		if err == nil {
			note(ctx, "recommendations: stale")
		}
		return titles, err
	}
	classics := func(ctx context.Context, _ error) ([]string, error) {
		note(ctx, "recommendations: stubbed")
		return titlesFrom(0, rowLength), nil
	}
	a.popular = func(ctx context.Context) ([]string, error) {
		return firebreak.Do(ctx, popular, ask, lastPopular, classics)
	}
	// The personal ones are another matter: without them, the popular ones.
	a.personal = firebreak.Bind(personal,
		func(ctx context.Context, u User) ([]string, error) {
			return get[[]string](ctx, clients["recommendations"], u.ID, url.Values{"taste": {u.Taste}})
		},
		func(ctx context.Context, _ User, cause error) ([]string, error) { return lastPopular(ctx, cause) },
		func(ctx context.Context, _ User, cause error) ([]string, error) { return classics(ctx, cause) })

	// History comes line by line, and most devices stop after a few. Without it the row
	// is not there.
	history := command("history", firebreak.Config{Timeout: 150 * time.Millisecond, MaxConcurrent: 16})
	a.history = func(ctx context.Context, user string) iter.Seq2[Watched, error] {
		return firebreak.Stream(ctx, history,
			func(ctx context.Context) iter.Seq2[Watched, error] {
				return lines[Watched](ctx, clients["history"], user)
			},
			func(ctx context.Context, _ error) iter.Seq2[Watched, error] {
				note(ctx, "history: empty")
				return func(func(Watched, error) bool) {}
			})
	}

	// Bookmarks and ratings are asked for by whoever draws a title, one by one. They go
	// to the backend together, and each title once in a request.
	bookmarks := command("bookmarks", firebreak.Config{Timeout: 150 * time.Millisecond, MaxConcurrent: 16, BatchWindow: batchWindow})
	a.bookmark = firebreak.Cached(bookmarks, firebreak.Collapse(bookmarks, batches[Bookmark](clients["bookmarks"]), nothing[Bookmark]("bookmarks: empty")))
	ratings := command("ratings", firebreak.Config{Timeout: 150 * time.Millisecond, MaxConcurrent: 16, BatchWindow: batchWindow})
	a.rating = firebreak.Cached(ratings, firebreak.Collapse(ratings, batches[Rating](clients["ratings"]), nothing[Rating]("ratings: empty")))

	// Images: a picture that is on every device says which title it stands for.
	images := command("images", firebreak.Config{Timeout: 100 * time.Millisecond, MaxConcurrent: 16})
	a.images = firebreak.Bind(images,
		func(ctx context.Context, of artwork) (map[string]string, error) {
			return get[map[string]string](ctx, clients["images"], "of", url.Values{"size": {of.size}, "title": of.titles})
		},
		func(ctx context.Context, of artwork, _ error) (map[string]string, error) {
			note(ctx, "images: stubbed")
			stubs := map[string]string{}
			for _, title := range of.titles {
				stubs[title] = "/builtin/title.png"
			}
			return stubs, nil
		})

	// A licence has no fallback: one that was made up would not open anything. It fails
	// fast, and says when to ask again.
	licences := command("licences", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 8, Timeout: maxTimeout})
	a.licence = firebreak.Bind(licences, func(ctx context.Context, of seat) (Licence, error) {
		return get[Licence](ctx, clients["licences"], of.user, url.Values{"title": {of.title}})
	})

	// Search: what was found last time. For what nobody has looked for, nothing.
	search := command("search", firebreak.Config{Timeout: 250 * time.Millisecond, MaxConcurrent: 16})
	found := newMemory[string, []string]()
	a.search = firebreak.Bind(search,
		found.remember(func(ctx context.Context, q string) ([]string, error) {
			return get[[]string](ctx, clients["search"], "titles", url.Values{"q": {q}})
		}),
		found.recall("search: cached"),
		func(ctx context.Context, _ string, _ error) ([]string, error) {
			note(ctx, "search: empty")
			return []string{}, nil
		})

	// Social: nobody misses it.
	social := command("social", firebreak.Config{Timeout: 200 * time.Millisecond, MaxConcurrent: 8})
	a.friends = func(ctx context.Context, user string) ([]Friend, error) {
		return firebreak.Do(ctx, social, func(ctx context.Context) ([]Friend, error) {
			return get[[]Friend](ctx, clients["social"], user, nil)
		}, func(ctx context.Context, _ error) ([]Friend, error) {
			note(ctx, "social: empty")
			return nil, nil
		})
	}
	return a
}

// batchWindow is a price that every page pays. Its rows ask within microseconds of each
// other; the rest is for a busy machine.
const batchWindow = 2 * time.Millisecond

// batches asks c for many titles of one user at once.
func batches[V any](c *client) func(context.Context, []seat) (map[seat]V, error) {
	return func(ctx context.Context, of []seat) (map[seat]V, error) {
		user := of[0].user
		query := url.Values{}
		for _, s := range of {
			if s.user != user { // cannot be: a scope's batches are its own, and a request has one user
				return nil, fmt.Errorf("a batch of %s and %s", user, s.user)
			}
			query.Add("title", s.title)
		}
		found, err := get[map[string]V](ctx, c, user, query)
		if err != nil {
			return nil, err
		}
		values := make(map[seat]V, len(of))
		for _, s := range of {
			values[s] = found[s.title] // the zero value is a title that has none
		}
		return values, nil
	}
}

// nothing is for every title what a title without has.
func nothing[V any](why string) func(context.Context, []seat, error) (map[seat]V, error) {
	return func(ctx context.Context, of []seat, _ error) (map[seat]V, error) {
		note(ctx, why)
		values := make(map[seat]V, len(of))
		for _, s := range of {
			var none V
			values[s] = none
		}
		return values, nil
	}
}

// unguarded leaves of a command's settings what is no protection: collapsing, the
// request cache, the request log and the fallbacks work as before. What ends a call is
// then the clients' own timeout, clientTimeout.
func unguarded(c firebreak.Config) firebreak.Config {
	return firebreak.Config{
		Mode:          firebreak.ForceClosed,
		Timeout:       firebreak.Off,
		MaxConcurrent: firebreak.Unlimited,
		MaxFallbacks:  firebreak.Unlimited,
		BatchWindow:   c.BatchWindow,
	}
}
