package firebreak_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"

	"github.com/firebreak-go/firebreak"
)

// What the examples call.

type user struct{ Name string }

var guest = user{"guest"}

var errUsersDown = errors.New("users: connection refused")

// usersAPI is a client of a service that is up or down.
type usersAPI struct{ down bool }

func (a *usersAPI) User(_ context.Context, id int) (user, error) {
	switch {
	case a.down:
		return user{}, errUsersDown
	case id != 7:
		return user{}, sql.ErrNoRows
	}
	return user{"Ada"}, nil
}

func (a *usersAPI) Ping(context.Context) error {
	if a.down {
		return errUsersDown
	}
	return nil
}

// One Command guards all calls of an operation. Make it once, at start.
func ExampleDo() {
	reg := firebreak.NewRegistry(firebreak.Config{Timeout: time.Second})
	getUser := reg.Command("users.get", firebreak.Config{MaxConcurrent: 20})
	api := &usersAPI{}

	ctx, id := context.Background(), 7
	u, err := firebreak.Do(ctx, getUser, func(ctx context.Context) (user, error) {
		return api.User(ctx, id)
	})
	fmt.Println(u.Name, err)
	// Output: Ada <nil>
}

// Fallbacks are asked in order; the first that has an answer gives it.
func ExampleDo_fallback() {
	getUser := firebreak.NewRegistry(firebreak.Config{}).Command("users.get", firebreak.Config{})
	api := &usersAPI{down: true}
	cache := map[int]user{7: {"Ada, a while ago"}}

	get := func(ctx context.Context, id int) (user, error) {
		return firebreak.Do(ctx, getUser, func(ctx context.Context) (user, error) {
			return api.User(ctx, id)
		}, func(_ context.Context, cause error) (user, error) {
			u, ok := cache[id]
			if !ok {
				return u, cause // on to the next
			}
			return u, nil
		}, firebreak.Static(guest))
	}
	fmt.Println(get(context.Background(), 7))
	fmt.Println(get(context.Background(), 8))
	// Output:
	// {Ada, a while ago} <nil>
	// {guest} <nil>
}

// A library that ignores its context gets a worker of a pool. Its caller leaves at the
// deadline; the permit stays out until the work has really ended.
func ExampleDo_pool() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	report := reg.Command("report", firebreak.Config{
		Isolation: firebreak.PoolIsolation, MaxConcurrent: 4, Timeout: 10 * time.Millisecond,
	})
	finished := make(chan bool)

	_, err := firebreak.Do(context.Background(), report, func(context.Context) (string, error) {
		<-finished // deaf
		return "too late", nil
	})
	fmt.Println(err)
	fmt.Println("abandoned:", report.Snapshot().Bulkhead.Abandoned)

	close(finished)
	fmt.Println(reg.Shutdown(context.Background())) // waits for it
	// Output:
	// report: timed out
	// abandoned: 1
	// <nil>
}

func ExampleCommand_Run() {
	ping := firebreak.NewRegistry(firebreak.Config{}).Command("users.ping", firebreak.Config{})
	api := &usersAPI{down: true}

	err := ping.Run(context.Background(), api.Ping)
	fmt.Println(err)
	// Output: users: connection refused
}

// For work that does not fit in a function: here until its last line is read, a
// response holds a permit.
func ExampleCommand_Begin() {
	feed := firebreak.NewRegistry(firebreak.Config{}).Command("feed", firebreak.Config{})
	open := func(context.Context) (io.Reader, error) { return strings.NewReader("one\ntwo\n"), nil }

	call, err := feed.Begin(context.Background())
	if err != nil {
		fmt.Println(err) // refused
		return
	}
	defer call.End() // the permit goes back

	body, err := open(call.Context())
	if err = call.Settle(err); err != nil { // the verdict; the timeout is over with it
		fmt.Println(err)
		return
	}
	text, err := io.ReadAll(body)
	fmt.Printf("%q %v\n", text, err)
	fmt.Println("in flight:", feed.Snapshot().InFlight)
	// Output:
	// "one\ntwo\n" <nil>
	// in flight: 1
}

// A stream that is judged by all of its messages, each of which may take a second.
func ExampleCall_Extend() {
	events := firebreak.NewRegistry(firebreak.Config{}).Command("events", firebreak.Config{Timeout: time.Second})

	call, err := events.Begin(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer call.End()
	for _, message := range []string{"hello", "bye"} {
		if !call.Extend(time.Second) { // the timeout had passed
			break
		}
		fmt.Println(message)
	}
	fmt.Println(call.Settle(nil))
	// Output:
	// hello
	// bye
	// <nil>
}

// A bound function has the type of the one it guards. Its fallbacks see the argument.
func ExampleBind() {
	getUser := firebreak.NewRegistry(firebreak.Config{}).Command("users.get", firebreak.Config{})
	api := &usersAPI{down: true}

	get := firebreak.Bind(getUser, api.User, func(_ context.Context, id int, _ error) (user, error) {
		return user{fmt.Sprintf("user %d", id)}, nil
	})
	fmt.Println(get(context.Background(), 7))
	// Output: {user 7} <nil>
}

// A fallback sees why it is asked, and passes on by an error.
func ExampleFallback() {
	getUser := firebreak.NewRegistry(firebreak.Config{}).Command("users.get", firebreak.Config{})
	api := &usersAPI{down: true}

	var unlessDown firebreak.Fallback[user] = func(_ context.Context, cause error) (user, error) {
		if errors.Is(cause, errUsersDown) {
			return user{}, errors.New("no user to show")
		}
		return guest, nil
	}
	_, err := firebreak.Do(context.Background(), getUser, func(ctx context.Context) (user, error) {
		return api.User(ctx, 7)
	}, unlessDown)
	fmt.Println(err)
	fmt.Println(errors.Is(err, errUsersDown), errors.Is(err, firebreak.ErrFailed))
	// Output:
	// users.get: failed: users: connection refused; fallback: no user to show
	// true true
}

func ExampleStatic() {
	related := firebreak.NewRegistry(firebreak.Config{}).Command("related", firebreak.Config{})

	// nil has no type of its own, so it is said.
	items, err := firebreak.Do(context.Background(), related, func(context.Context) ([]string, error) {
		return nil, errors.New("related: 503")
	}, firebreak.Static[[]string](nil))
	fmt.Println(len(items), err)
	// Output: 0 <nil>
}

// The last good rates are better than none, for ten minutes.
func ExampleStale() {
	rates := firebreak.NewRegistry(firebreak.Config{}).Command("rates", firebreak.Config{})
	up := true
	fetch, stale := firebreak.Stale(func(context.Context) (map[string]float64, error) {
		if !up {
			return nil, errors.New("rates: 503")
		}
		return map[string]float64{"EUR": 1.08}, nil
	}, 10*time.Minute)

	ctx := context.Background()
	fmt.Println(firebreak.Do(ctx, rates, fetch, stale))
	up = false
	fmt.Println(firebreak.Do(ctx, rates, fetch, stale))
	fmt.Println(rates.Snapshot().Total.FallbackSuccess, "of them was stale")
	// Output:
	// map[EUR:1.08] <nil>
	// map[EUR:1.08] <nil>
	// 1 of them was stale
}

// Where the error is made it is known best what it says of the dependency.
func ExampleMark() {
	page := firebreak.NewRegistry(firebreak.Config{}).Command("page", firebreak.Config{})
	get := func(status int) error {
		return page.Run(context.Background(), func(context.Context) error {
			err := fmt.Errorf("page: %d", status)
			switch {
			case status < 400:
				return nil
			case status < 500:
				return firebreak.Mark(err, firebreak.Expected) // it answered
			}
			return err
		})
	}
	fmt.Println(get(http.StatusNotFound)) // without its mark
	fmt.Println(get(http.StatusBadGateway))
	c := page.Snapshot().Total
	fmt.Println(c.Expected, "expected,", c.Failure, "failed")
	// Output:
	// page: 404
	// page: 502
	// 1 expected, 1 failed
}

// A dependency that says when to come back is left alone until then.
func ExampleRetryAfter() {
	search := firebreak.NewRegistry(firebreak.Config{}).Command("search", firebreak.Config{ConsecutiveFailures: 3})
	busy := http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"30"}}}

	for range 3 {
		_ = search.Run(context.Background(), func(context.Context) error {
			seconds, _ := strconv.Atoi(busy.Header.Get("Retry-After"))
			return firebreak.RetryAfter(errors.New("search: too many requests"), time.Duration(seconds)*time.Second)
		})
	}
	s := search.Snapshot()
	fmt.Println(s.State, "for", s.Evidence.NextProbe.Sub(s.Evidence.At))
	// Output: open for 30s
}

// "No such user" is an answer: it counts as success, and no fallback hides it.
func ExampleExpectErrors() {
	getUser := firebreak.NewRegistry(firebreak.Config{}).Command("users.get", firebreak.Config{
		Classify: firebreak.ExpectErrors(sql.ErrNoRows),
	})
	api := &usersAPI{}

	_, err := firebreak.Do(context.Background(), getUser, func(ctx context.Context) (user, error) {
		return api.User(ctx, 8)
	}, firebreak.Static(guest))
	fmt.Println(err)
	fmt.Println("expected:", getUser.Snapshot().Total.Expected)
	// Output:
	// sql: no rows in result set
	// expected: 1
}

// What one level does not say comes from the next.
func ExampleNewRegistry() {
	reg := firebreak.NewRegistry(firebreak.Config{Timeout: time.Second, Window: 30 * time.Second})
	users := reg.Dependency("users", firebreak.Config{MaxConcurrent: 20, Timeout: 300 * time.Millisecond})
	list := users.Command("users.list", firebreak.Config{Timeout: 2 * time.Second})

	c := list.Config()
	fmt.Println(c.Timeout, c.MaxConcurrent, c.Window, c.SleepWindow)
	// Output: 2s 20 30s 5s
}

func ExampleRegistry_Command() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	mail := reg.Command("mail", firebreak.Config{MaxConcurrent: 5, Timeout: 10 * time.Second})

	fmt.Println(mail == reg.Command("mail", firebreak.Config{})) // asked for again
	s := mail.Snapshot()
	fmt.Println(s.Dependency, s.Command, s.Bulkhead.Limit)
	// Output:
	// true
	// mail mail 5
}

// Commands of one dependency have its bulkhead in common, and a circuit each.
func ExampleRegistry_Dependency() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	users := reg.Dependency("users", firebreak.Config{MaxConcurrent: 1})
	get, list := users.Command("users.get", firebreak.Config{}), users.Command("users.list", firebreak.Config{})

	_ = get.Run(context.Background(), func(ctx context.Context) error {
		err := list.Run(ctx, func(context.Context) error { return nil })
		fmt.Println(err)
		return nil
	})
	// Output: users.list: bulkhead full
}

// One host that fails is cut off, the others are not.
func ExampleDependency_Keyed() {
	web := firebreak.NewRegistry(firebreak.Config{}).Dependency("web", firebreak.Config{})
	get := web.Keyed("web.get", 1000, firebreak.Config{ConsecutiveFailures: 2}) // at most 1000 hosts

	fetch := func(host string) error {
		return get.Command(host).Run(context.Background(), func(context.Context) error { // asked for at each call
			if host == "bad.example" {
				return errors.New("connection reset")
			}
			return nil
		})
	}
	for range 3 {
		fmt.Println(fetch("bad.example"))
	}
	fmt.Println(fetch("good.example"))
	// Output:
	// connection reset
	// connection reset
	// web.get[bad.example]: circuit open
	// <nil>
}

// All keys together, those that have made way too.
func ExampleKeyed_Snapshot() {
	web := firebreak.NewRegistry(firebreak.Config{}).Dependency("web", firebreak.Config{})
	get := web.Keyed("web.get", 2, firebreak.Config{})
	for _, host := range []string{"a.example", "b.example", "c.example"} {
		_ = get.Command(host).Run(context.Background(), func(context.Context) error { return nil })
	}
	s := get.Snapshot()
	fmt.Println(s.Command, s.Total.Success)
	// Output: web.get 3
}

// A document stands above the code. It is applied whole, or not at all.
func ExampleRegistry_Update() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	getUser := reg.Command("users.get", firebreak.Config{Timeout: time.Second})

	var doc firebreak.Document
	err := json.Unmarshal([]byte(`{
		"defaults":     {"window": "30s"},
		"dependencies": {"users.get": {"maxConcurrent": 50}},
		"commands":     {"users.get": {"timeout": "250ms", "mode": "shadow"}}
	}`), &doc)
	if err == nil {
		err = reg.Update(doc)
	}
	c := getUser.Config()
	fmt.Println(err, c.Timeout, c.MaxConcurrent, c.Mode, c.Window)

	err = reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{"users.get": {Timeout: 300}}})
	fmt.Println(err)
	fmt.Println(getUser.Config().Timeout)
	// Output:
	// <nil> 250ms 50 shadow 30s
	// firebreak: update: command "users.get": Timeout: 300ns is under 10µs or Off
	// 250ms
}

// One change to what is in force.
func ExampleRegistry_Document() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	getUser := reg.Command("users.get", firebreak.Config{})

	doc := reg.Document()
	doc.Commands = map[string]firebreak.Config{"users.get": {Timeout: 2 * time.Second}}
	fmt.Println(reg.Update(doc), getUser.Config().Timeout)
	// Output: <nil> 2s
}

// Names in a document that nobody has asked for are mostly misspelt.
func ExampleRegistry_Unclaimed() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	reg.Command("users.get", firebreak.Config{})
	err := reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{"usrs.get": {Timeout: time.Second}}})
	fmt.Println(err, reg.Unclaimed())
	// Output: <nil> [command "usrs.get"]
}

// A log of what circuits do.
func ExampleRegistry_Observe() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	getUser := reg.Command("users.get", firebreak.Config{ConsecutiveFailures: 3})
	stop := reg.Observe(firebreak.Observer{Transition: func(t firebreak.Transition) {
		fmt.Printf("%s: %v to %v: %s, last: %s\n", t.Command, t.From, t.To, t.Evidence.Rule, t.Evidence.LastError)
	}})
	defer stop()

	api := &usersAPI{down: true}
	for range 5 {
		_ = getUser.Run(context.Background(), api.Ping)
	}
	// Output: users.get: closed to open: consecutive failures, last: users: connection refused
}

// What a call came to, and what its fallbacks did.
func ExampleObserver() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	getUser := reg.Command("users.get", firebreak.Config{})
	reg.Observe(firebreak.Observer{
		Call: func(_ context.Context, e firebreak.CallEvent) {
			fmt.Println(e.Command, e.Outcome, e.Err)
		},
		Fallback: func(_ context.Context, e firebreak.CallEvent) {
			fmt.Println(e.Command, e.Outcome, "fallback", e.Fallback)
		},
	})
	api := &usersAPI{down: true}
	_, _ = firebreak.Do(context.Background(), getUser, func(ctx context.Context) (user, error) {
		return api.User(ctx, 7)
	}, firebreak.Static(guest))
	// Output:
	// users.get failure users: connection refused
	// users.get failure fallback success
}

// Shutdown refuses new calls and waits for those in flight, as long as its context
// lasts.
func ExampleRegistry_Shutdown() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	upload := reg.Command("upload", firebreak.Config{})
	call, err := upload.Begin(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err = reg.Shutdown(ctx)
	fmt.Println(errors.Is(err, context.DeadlineExceeded), strings.Contains(err.Error(), "upload: 1 in flight"))

	err = upload.Run(context.Background(), func(context.Context) error { return nil })
	fmt.Println(err)

	_ = call.Settle(nil)
	call.End()
	fmt.Println(reg.Shutdown(context.Background()))
	// Output:
	// true true
	// upload: registry shut down
	// <nil>
}

// All that there is, for a page or a collector.
func ExampleRegistry_Commands() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	reg.Command("users.get", firebreak.Config{})
	reg.Command("mail", firebreak.Config{}).Override(firebreak.Override{Mode: firebreak.ForceOpen})
	for cmd := range reg.Commands() {
		fmt.Println(cmd.Name(), cmd.Snapshot().State)
	}
	// Output:
	// mail open
	// users.get closed
}

// An operator takes a dependency out for an hour, and says why.
func ExampleCommand_Override() {
	mail := firebreak.NewRegistry(firebreak.Config{}).Command("mail", firebreak.Config{})
	send := func() error { return mail.Run(context.Background(), func(context.Context) error { return nil }) }

	mail.Override(firebreak.Override{
		Mode: firebreak.ForceOpen, Reason: "moving the mail server", Author: "ops", Until: time.Now().Add(time.Hour),
	})
	fmt.Println(errors.Is(send(), firebreak.ErrOpen), mail.Snapshot().Override.Reason)

	mail.Override(firebreak.Override{}) // done early
	fmt.Println(send(), mail.Snapshot().State)
	// Output:
	// true moving the mail server
	// <nil> closed
}

// A drill: does the page do without its users? run is not called.
func ExampleOverride() {
	getUser := firebreak.NewRegistry(firebreak.Config{}).Command("users.get", firebreak.Config{})
	api := &usersAPI{}

	getUser.Override(firebreak.Override{
		Reason: "drill", Author: "Ada", Until: time.Now().Add(time.Hour),
		Inject: func(context.Context) error { return firebreak.ErrTimeout },
	})
	u, err := firebreak.Do(context.Background(), getUser, func(ctx context.Context) (user, error) {
		return api.User(ctx, 7)
	}, firebreak.Static(guest))
	fmt.Println(u, err, getUser.Snapshot().Total.Timeout)
	// Output: {guest} <nil> 1
}

func ExampleCommand_Snapshot() {
	getUser := firebreak.NewRegistry(firebreak.Config{}).Command("users.get", firebreak.Config{})
	api := &usersAPI{}
	for id := range 10 {
		_, _ = firebreak.Do(context.Background(), getUser, func(ctx context.Context) (user, error) {
			return api.User(ctx, id)
		})
	}
	s := getUser.Snapshot()
	fmt.Printf("%v, %.0f %% errors in %v\n", s.State, s.ErrorPercentage, getUser.Config().Window)
	fmt.Printf("%d calls, %d failed, %d had no fallback\n", s.Total.Calls(), s.Total.Failure, s.Total.FallbackMissing)
	fmt.Printf("%d of %d in flight\n", s.Bulkhead.InFlight, s.Bulkhead.Limit)
	// Output:
	// closed, 90 % errors in 10s
	// 10 calls, 9 failed, 9 had no fallback
	// 0 of 100 in flight
}

func ExampleHistogram_Buckets() {
	getUser := firebreak.NewRegistry(firebreak.Config{}).Command("users.get", firebreak.Config{})
	for range 3 {
		_ = getUser.Run(context.Background(), func(context.Context) error { return nil })
	}
	h := getUser.Snapshot().CallHistogram
	for bound, n := range h.Buckets() {
		if bound > time.Minute {
			fmt.Printf("%d of %d under %v\n", n, h.Count, bound)
		}
	}
	// Output: 3 of 3 under 1m8.719476736s
}

// What holds, and who said it.
func ExampleCommand_Origins() {
	reg := firebreak.NewRegistry(firebreak.Config{Window: 30 * time.Second})
	getUser := reg.Command("users.get", firebreak.Config{Timeout: time.Second, MaxConcurrent: 20})
	err := reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{"users.get": {Timeout: 2 * time.Second}}})
	if err != nil {
		fmt.Println(err)
	}
	c, who := getUser.Config(), getUser.Origins()
	fmt.Println(c.Timeout, "by", who["timeout"])
	fmt.Println(c.MaxConcurrent, "by", who["maxConcurrent"])
	fmt.Println(c.Window, "by", who["window"])
	fmt.Println(c.SleepWindow, "by", who["sleepWindow"])
	// Output:
	// 2s by document: command
	// 20 by code: dependency
	// 30s by code: registry
	// 5s by default
}

// How an HTTP handler answers for a call that had no answer.
func ExampleError() {
	search := firebreak.NewRegistry(firebreak.Config{}).Command("search", firebreak.Config{})
	search.Override(firebreak.Override{Mode: firebreak.ForceOpen, Until: time.Now().Add(time.Hour)})

	handler := func(w http.ResponseWriter, r *http.Request) {
		err := search.Run(r.Context(), func(context.Context) error { return nil })
		if e, ok := errors.AsType[*firebreak.Error](err); ok {
			if wait := e.RetryAfter(); wait > 0 {
				w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds())+1))
			}
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusOK)
	}
	w := httptest.NewRecorder()
	handler(w, httptest.NewRequest(http.MethodGet, "/search", nil))
	fmt.Println(w.Code, w.Header().Get("Retry-After") != "")
	// Output: 503 true
}

// A panic on another goroutine, or one that RecoverPanics took, is an error.
func ExamplePanicError() {
	parse := firebreak.NewRegistry(firebreak.Config{RecoverPanics: firebreak.On}).Command("parse", firebreak.Config{})
	err := parse.Run(context.Background(), func(context.Context) error {
		panic("unexpected end of input")
	})
	if e, ok := errors.AsType[*firebreak.PanicError](err); ok {
		fmt.Println(e)
		fmt.Println("stack:", len(e.Stack) > 0)
	}
	// Output:
	// run panicked: unexpected end of input
	// stack: true
}

// The original's numbers, and one of one's own.
func ExampleHystrixDefaults() {
	defaults := firebreak.HystrixDefaults()
	defaults.Timeout = 500 * time.Millisecond
	reg := firebreak.NewRegistry(defaults)

	c := reg.Command("users.get", firebreak.Config{}).Config()
	fmt.Println(c.Isolation, c.MaxConcurrent, c.MaxFallbacks, c.Timeout)
	// Output: pool 10 10 500ms
}

// Settings can come from a file. What is wrong in it is named.
func ExampleConfig() {
	var c firebreak.Config
	err := json.Unmarshal([]byte(`{"timeout": "250ms", "maxConcurrent": "unlimited", "slowCallDuration": "off"}`), &c)
	fmt.Println(c.Timeout, c.MaxConcurrent == firebreak.Unlimited, c.SlowCallDuration == firebreak.Off, err)

	err = json.Unmarshal([]byte(`{"timeout": 250, "maxConcurent": 20}`), &c)
	fmt.Println(err)
	text, err := json.Marshal(firebreak.Config{Timeout: 1500 * time.Millisecond, ErrorThresholdPercentage: firebreak.Off})
	fmt.Println(string(text), err)
	// Output:
	// 250ms true true <nil>
	// firebreak: settings: "maxConcurent": unknown key
	// timeout: 250 has no unit: write a duration like "250ms"
	// {"timeout":"1.5s","errorThresholdPercentage":"off"} <nil>
}

// Before a circuit breaker is trusted, it can be watched: nothing is refused, but
// what would have been is counted.
func ExampleConfig_shadow() {
	getUser := firebreak.NewRegistry(firebreak.Config{}).Command("users.get", firebreak.Config{
		Mode: firebreak.Shadow, ConsecutiveFailures: 3,
	})
	api := &usersAPI{down: true}
	for range 10 {
		_ = getUser.Run(context.Background(), api.Ping)
	}
	s := getUser.Snapshot()
	fmt.Println(s.State, s.Total.Failure, s.Total.ShortCircuited, s.Total.WouldShortCircuit)
	// Output: open 10 0 7
}

// As text a document has three keys. YAML packages read it too.
func ExampleDocument() {
	var doc firebreak.Document
	err := json.Unmarshal([]byte(`{
		"defaults": {"timeout": "1s"},
		"dependencies": {"users": {"isolation": "pool", "maxConcurrent": 20, "queueSize": 40}},
		"commands": {"users.get": {"timeout": "300ms"}, "users.list": {"timeout": "2s"}}
	}`), &doc)
	fmt.Println(err, doc.Dependencies["users"].QueueSize, doc.Commands["users.get"].Timeout)

	err = json.Unmarshal([]byte(`{"commands": {"users.get": {"maxConcurrent": 20}}}`), &doc)
	fmt.Println(err)
	// Output:
	// <nil> 40 300ms
	// firebreak: document: command "users.get": maxConcurrent belongs to a dependency, whose commands share it: say it there
}
