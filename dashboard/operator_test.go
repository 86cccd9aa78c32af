package dashboard_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/dashboard"
)

// A post is an operator's handler, and what it told.
type post struct {
	t    *testing.T
	reg  *firebreak.Registry
	cmd  *firebreak.Command
	page *dashboard.Handler
	h    http.Handler

	mu      sync.Mutex
	who     string
	err     error
	asked   int
	actions []dashboard.Action
}

func newPost(t *testing.T) *post {
	t.Helper()
	p := &post{t: t, reg: newRegistry(t), who: "ada"}
	p.cmd = p.reg.Command("users.get", firebreak.Config{})
	p.page = newPage(t, p.reg, dashboard.Options{Audit: func(r *http.Request, a dashboard.Action) {
		require.NotNil(t, r)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.actions = append(p.actions, a)
	}})
	p.h = p.page.Operator(func(*http.Request) (string, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked++
		return p.who, p.err
	})
	return p
}

// send posts JSON, and returns the status and what was wrong.
func (p *post) send(what, body string, header ...string) (int, []string) {
	w := ask(p.h, http.MethodPost, "/any/"+what, body, append([]string{"Content-Type", "application/json"}, header...)...)
	var answer struct{ Faults []string }
	if !json.Valid(w.Body.Bytes()) {
		p.t.Errorf("%s: %s", what, w.Body)
	}
	_ = json.Unmarshal(w.Body.Bytes(), &answer)
	return w.Code, answer.Faults
}

// last is the last action that was told, the only one since the last time.
func (p *post) last() dashboard.Action {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Len(p.t, p.actions, 1)
	a := p.actions[0]
	p.actions = nil
	return a
}

func (p *post) base() string {
	var d struct{ Base string }
	require.NoError(p.t, json.Unmarshal(get(p.h, "/document").Body.Bytes(), &d))
	return d.Base
}

const open15 = `{"command":"users.get","mode":"force_open","reason":"drill","for":"15m"}`

func TestOverride(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t)
		code, _ := p.send("override", open15)
		require.Equal(t, http.StatusOK, code)
		want := firebreak.Override{Mode: firebreak.ForceOpen, Reason: "drill", Author: "ada", Until: time.Now().Add(15 * time.Minute)}
		require.Equal(t, firebreak.ForceOpen, p.cmd.Snapshot().Mode)
		require.True(t, want.Until.Equal(p.cmd.Snapshot().Override.Until))
		a := p.last()
		require.NoError(t, a.Err)
		require.Equal(t, "users.get", a.Command)
		require.Equal(t, "ada", a.Author)
		require.Equal(t, "drill", a.Reason)
		require.Equal(t, "drill", a.Override.Reason)
		require.Equal(t, firebreak.ForceOpen, a.Override.Mode)
		require.Nil(t, a.After)

		// It ends by itself, to the nanosecond.
		time.Sleep(15*time.Minute - time.Nanosecond)
		require.Equal(t, firebreak.ForceOpen, p.cmd.Snapshot().Mode)
		time.Sleep(time.Nanosecond)
		require.Equal(t, firebreak.Auto, p.cmd.Snapshot().Mode)

		// Without an end, and lifted.
		code, _ = p.send("override", `{"command":"users.get","mode":"shadow","reason":"try","for":"unlimited"}`)
		require.Equal(t, http.StatusOK, code)
		require.True(t, p.cmd.Snapshot().Override.Until.IsZero())
		p.last()
		code, _ = p.send("override", `{"command":"users.get","mode":"lift","reason":"over"}`)
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, firebreak.Override{}, p.cmd.Snapshot().Override)
		a = p.last()
		require.Equal(t, firebreak.Override{}, a.Override)
		require.Equal(t, "over", a.Reason)

		// All of it is in the page's events, with its author, the lifting too.
		m := watch(t, serve(t, &http.Server{Handler: p.page})).must()
		var seen []string
		for _, e := range m.Events {
			switch {
			case e.Action != "":
				seen = append(seen, e.Action+" "+e.Author+" "+e.Reason)
				require.Equal(t, "users.get", e.Command)
			case e.Override != nil:
				seen = append(seen, e.Override.Mode+" "+e.Override.Author+" "+e.Override.Reason)
			}
		}
		require.Equal(t, []string{"force_open ada drill", "shadow ada try", "lift ada over"}, seen)
	})
}

func TestOverrideIsRefused(t *testing.T) {
	p := newPost(t)
	p.reg.Dependency("web", firebreak.Config{}).Keyed("web.get", 3, firebreak.Config{}).Command("a")
	for body, want := range map[string]string{
		`{"command":"users.get","mode":"force_open","for":"15m"}`:                                              "a reason is needed",
		`{"command":"users.get","mode":"force_open","reason":" \t","for":"15m"}`:                               "a reason is needed",
		`{"command":"users.get","mode":"lift"}`:                                                                "a reason is needed",
		`{"command":"users.get","mode":"force_open","reason":"x"}`:                                             "for:",
		`{"command":"users.get","mode":"force_open","reason":"x","for":"999ms"}`:                               "for:",
		`{"command":"users.get","mode":"force_open","reason":"x","for":"720h1ns"}`:                             "for:",
		`{"command":"users.get","mode":"force_open","reason":"x","for":"-1s"}`:                                 "for:",
		`{"command":"users.get","mode":"force_open","reason":"x","for":"15"}`:                                  "for:",
		`{"command":"users.get","mode":"","reason":"x","for":"15m"}`:                                           "mode",
		`{"command":"users.get","mode":"open","reason":"x","for":"15m"}`:                                       "mode",
		`{"command":"users.put","mode":"auto","reason":"x","for":"15m"}`:                                       "no such command",
		`{"command":"web.get[a]","mode":"auto","reason":"x","for":"15m"}`:                                      "no such command",
		`{"command":"web.get","mode":"auto","reason":"x","for":"15m"}`:                                         "no such command",
		`{"command":"users.get","key":"a","mode":"auto","reason":"x","for":"15m"}`:                             "no such command",
		fmt.Sprintf(`{"command":"users.get","mode":"auto","reason":%q,"for":"15m"}`, strings.Repeat("x", 501)): "500 bytes",
	} {
		code, faults := p.send("override", body)
		require.GreaterOrEqual(t, code, 400, body)
		require.Contains(t, strings.Join(faults, "\n"), want, body)
		require.Error(t, p.last().Err, "what was not done is told, too")
		require.Equal(t, firebreak.Override{}, p.cmd.Snapshot().Override)
	}
	for _, body := range []string{
		`{"command":"web.get","key":"a","mode":"auto","reason":"x","for":"1s"}`, `{"command":"users.get","mode":"auto","reason":"x","for":"720h"}`,
		fmt.Sprintf(`{"command":"users.get","mode":"auto","reason":%q,"for":"15m"}`, strings.Repeat("x", 500)),
	} {
		code, faults := p.send("override", body)
		require.Equal(t, http.StatusOK, code, faults)
		require.NoError(t, p.last().Err)
	}
	require.NoError(t, p.reg.Shutdown(t.Context()))
	code, _ := p.send("override", open15)
	require.Equal(t, http.StatusConflict, code)
}

// Every door, without a key: nothing is read, nothing is done, and it is told.
func TestWithoutAuthorisation(t *testing.T) {
	secret := errors.New("token of ada has expired")
	for name, deny := range map[string]func(*post){
		"an error": func(p *post) { p.err = secret },
		"nobody":   func(p *post) { p.who = "" },
		"blank":    func(p *post) { p.who = " \t" },
		"both":     func(p *post) { p.who, p.err = "ada", secret },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPost(t)
			base := p.base()
			deny(p)
			for what, body := range map[string]string{
				"override": open15, "preview": `{"document":{}}`, "document": `{"document":{"defaults":{"timeout":"9s"}},"reason":"x","base":"` + base + `"}`,
			} {
				code, faults := p.send(what, body)
				require.Equal(t, http.StatusForbidden, code, what)
				require.Equal(t, []string{"not authorised"}, faults)
				require.Error(t, p.last().Err)
			}
			for _, what := range []string{"session", "document"} {
				w := get(p.h, "/"+what)
				require.Equal(t, http.StatusForbidden, w.Code)
				require.NotContains(t, w.Body.String(), "ada")
				require.Error(t, p.last().Err)
			}
			require.Equal(t, firebreak.Override{}, p.cmd.Snapshot().Override)
			require.Equal(t, time.Second, p.cmd.Config().Timeout)
		})
	}
}

func TestAnAuthorizeThatPanics(t *testing.T) {
	p := newPost(t)
	h := p.page.Operator(func(*http.Request) (string, error) { panic("boom") })
	require.Panics(t, func() { ask(h, http.MethodPost, "/override", open15, "Content-Type", "application/json") })
	require.Equal(t, firebreak.Override{}, p.cmd.Snapshot().Override)
}

// A browser that is sent by another site is refused, before anybody is asked who it is.
func TestCrossOrigin(t *testing.T) {
	p := newPost(t)
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"},
		{"Origin", "null"}, {"Sec-Fetch-Site", "cross-site", "Origin", "http://example.com"},
	} {
		for _, what := range []string{"override", "document", "preview"} {
			code, _ := p.send(what, open15, header...)
			require.Equal(t, http.StatusForbidden, code, header)
			a := p.last()
			require.Error(t, a.Err)
			require.Empty(t, a.Author)
		}
	}
	require.Zero(t, p.asked)
	require.Equal(t, firebreak.Override{}, p.cmd.Snapshot().Override)

	for _, header := range [][]string{{"Sec-Fetch-Site", "same-origin"}, {"Origin", "http://example.com"}, {}} {
		code, faults := p.send("override", open15, header...)
		require.Equal(t, http.StatusOK, code, faults)
	}
	// What a form can send without being asked first is not read.
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"} {
		w := ask(p.h, http.MethodPost, "/override", open15, "Content-Type", kind)
		require.Equal(t, http.StatusUnsupportedMediaType, w.Code, kind)
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	p := newPost(t)
	for _, what := range []string{"override", "preview", "document"} {
		for body, code := range map[string]int{
			"": http.StatusBadRequest, "[]": http.StatusBadRequest, "{": http.StatusBadRequest, "{}{}": http.StatusBadRequest,
			`{"what":1}`: http.StatusBadRequest,
			`{"reason":"` + strings.Repeat("x", 1<<20): http.StatusRequestEntityTooLarge,
		} {
			got, faults := p.send(what, body)
			require.Equal(t, code, got, "%s %.20s", what, body)
			require.NotEmpty(t, faults)
		}
	}
	for _, r := range [][2]string{{"GET", "/override"}, {"GET", "/preview"}, {"POST", "/session"}, {"DELETE", "/document"}, {"PUT", "/override"}, {"GET", "/"}, {"GET", ""}, {"OPTIONS", "/override"}} {
		w := ask(p.h, r[0], "/x"+r[1], "")
		require.Equal(t, http.StatusNotFound, w.Code, r)
		require.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
	}
	require.Equal(t, "no-store", get(p.h, "/session").Header().Get("Cache-Control"))
	require.JSONEq(t, `{"author":"ada"}`, get(p.h, "/session").Body.String())
}

func TestDocument(t *testing.T) {
	p := newPost(t)
	require.NoError(t, p.reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{"usrs.get": {Timeout: time.Minute}}}))
	var d struct {
		Document  firebreak.Document
		Base      string
		Unclaimed []string
	}
	require.NoError(t, json.Unmarshal(get(p.h, "/document").Body.Bytes(), &d))
	require.Equal(t, time.Minute, d.Document.Commands["usrs.get"].Timeout)
	require.Equal(t, []string{`command "usrs.get"`}, d.Unclaimed)

	put := func(doc, base, reason string) (int, []string) {
		return p.send("document", fmt.Sprintf(`{"document":%s,"base":%q,"reason":%q}`, doc, base, reason))
	}
	for _, c := range []struct {
		doc, base, reason string
		code              int
		want              string
	}{
		{`{}`, d.Base, "", http.StatusUnprocessableEntity, "a reason is needed"},
		{`null`, d.Base, "x", http.StatusUnprocessableEntity, "a document is needed"},
		{`{}`, "", "x", http.StatusConflict, "has changed"},
		{`{}`, strings.Repeat("0", 64), "x", http.StatusConflict, "has changed"},
		{`{"commands":{"users.get":{"timeout":3}}}`, d.Base, "x", http.StatusUnprocessableEntity, "has no unit"},
		{`{"commands":{"users.get":{"timeout":"3s","timeout":"4s"}}}`, d.Base, "x", http.StatusUnprocessableEntity, "given twice"},
		{`{"commands":{"users.get":{"maxConcurrent":3}}}`, d.Base, "x", http.StatusUnprocessableEntity, "belongs to a dependency"},
		{`{"dependencies":{"users.get":{"isolation":"pool"}}}`, d.Base, "x", http.StatusUnprocessableEntity, "stays so for life"},
		{`{"commands":{"a":{"x":1},"b":{"y":1}}}`, d.Base, "x", http.StatusUnprocessableEntity, "unknown key"},
		{`[]`, d.Base, "x", http.StatusUnprocessableEntity, "want keys and values"},
	} {
		code, faults := put(c.doc, c.base, c.reason)
		require.Equal(t, c.code, code, c.doc)
		require.Contains(t, strings.Join(faults, "\n"), c.want)
		require.Error(t, p.last().Err)
		require.Equal(t, d.Base, p.base(), "nothing is applied")
	}
	_, faults := put(`{"commands":{"a":{"x":1},"b":{"y":1}}}`, d.Base, "x")
	require.Len(t, faults, 2, "a line for each fault")
	p.last()

	code, faults := put(`{"commands":{"users.get":{"timeout":"3s"}}}`, d.Base, "slow today")
	require.Equal(t, http.StatusOK, code, faults)
	require.Equal(t, 3*time.Second, p.cmd.Config().Timeout)
	a := p.last()
	require.NoError(t, a.Err)
	require.Equal(t, "slow today", a.Reason)
	require.Equal(t, "ada", a.Author)
	require.Equal(t, d.Document.Commands, a.Before.Commands)
	require.Equal(t, 3*time.Second, a.After.Commands["users.get"].Timeout)
	require.Empty(t, a.Command)
	events := whole(t, p.page).Events
	require.Len(t, events, 1)
	require.Equal(t, "document", events[0].Action)
	require.Equal(t, "ada", events[0].Author)
	require.Equal(t, "slow today", events[0].Reason)

	// Who looked at the last one is told; an empty one takes everything back.
	code, _ = put(`{}`, d.Base, "x")
	require.Equal(t, http.StatusConflict, code)
	code, _ = put(`{}`, p.base(), "back to code")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, time.Second, p.cmd.Config().Timeout)
}

// Of many who edit the same document at once, one wins, and the others are told.
func TestEditorsAtOnce(t *testing.T) {
	p := newPost(t)
	large := firebreak.Document{Commands: map[string]firebreak.Config{}} // so that it takes its time
	for i := range 2000 {
		large.Commands[fmt.Sprint(i)] = firebreak.Config{Probes: 2}
	}
	require.NoError(t, p.reg.Update(large))
	base := p.base()
	var won, lost int
	var mu sync.Mutex
	var work sync.WaitGroup
	for i := range 20 {
		work.Go(func() {
			code, _ := p.send("document", fmt.Sprintf(`{"document":{"defaults":{"timeout":"%ds"}},"base":%q,"reason":"x"}`, i+2, base))
			mu.Lock()
			defer mu.Unlock()
			switch code {
			case http.StatusOK:
				won++
			case http.StatusConflict:
				lost++
			}
		})
	}
	work.Wait()
	require.Equal(t, 1, won)
	require.Equal(t, 19, lost)
	require.Len(t, p.actions, 20)
}

// Who keeps the records has them before the operator is told that it is done.
func TestAuditComesFirst(t *testing.T) {
	reg := newRegistry(t)
	cmd := reg.Command("users.get", firebreak.Config{})
	w := httptest.NewRecorder()
	told := 0
	page := newPage(t, reg, dashboard.Options{Audit: func(_ *http.Request, a dashboard.Action) {
		told++
		require.Zero(t, w.Body.Len())
		require.Equal(t, firebreak.Shadow, cmd.Snapshot().Mode, "and when it is done")
		require.WithinDuration(t, time.Now(), a.At, time.Minute)
	}})
	h := page.Operator(func(*http.Request) (string, error) { return "ada", nil })
	r := httptest.NewRequest(http.MethodPost, "/override", strings.NewReader(`{"command":"users.get","mode":"shadow","reason":"x","for":"1h"}`))
	r.Header.Set("Content-Type", "application/json")
	h.ServeHTTP(w, r)
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, 1, told)
}
