package dashboard_test

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/dashboard"
)

var escape = url.QueryEscape

func TestOptions(t *testing.T) {
	reg := newRegistry(t)
	for name, o := range map[string]dashboard.Options{
		"Interval":  {Interval: 99 * time.Millisecond},
		"negative":  {Interval: -1},
		"streams":   {MaxStreams: -1},
		"commands":  {MaxCommands: -1},
		"events":    {MaxEvents: -1},
		"no slash":  {Operator: "operator"},
		"a host":    {Operator: "https://example.com/operator/"},
		"host only": {Operator: "//example.com/operator/"},
		"query":     {Operator: "operator/?x=/"},
		"control":   {Operator: "a\x00/"},
	} {
		require.Panics(t, func() { dashboard.New(reg, o) }, name)
	}
	require.Panics(t, func() { dashboard.New(nil, dashboard.Options{}) })
	require.Panics(t, func() { newPage(t, reg, dashboard.Options{}).Operator(nil) })
	for _, o := range []dashboard.Options{{}, {Interval: 100 * time.Millisecond}, {Operator: "/admin/operator/"}, {Operator: "../operator/"}} {
		newPage(t, reg, o)
	}
	m := whole(t, newPage(t, reg, dashboard.Options{}))
	require.Equal(t, "firebreak", m.Title)
	require.Empty(t, m.Operator)
}

func TestPageAndAssets(t *testing.T) {
	page := newPage(t, newRegistry(t), dashboard.Options{})
	entries, err := fs.ReadDir(os.DirFS("assets"), ".")
	require.NoError(t, err)
	require.NotEmpty(t, entries)
	for _, e := range entries {
		want, err := os.ReadFile("assets/" + e.Name())
		require.NoError(t, err)
		path := "/some/where/" + strings.TrimSuffix(e.Name(), "index.html")
		w := get(page, path)
		require.Equal(t, http.StatusOK, w.Code, path)
		require.Equal(t, string(want), w.Body.String())
		require.NotEmpty(t, w.Header().Get("Content-Type"), path)
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
		require.Equal(t, "no-cache", w.Header().Get("Cache-Control"))

		tag := w.Header().Get("ETag")
		w = get(page, path, "If-None-Match", tag)
		require.Equal(t, http.StatusNotModified, w.Code)
		require.Empty(t, w.Body.String())

		w = get(page, path, "Accept-Encoding", "gzip, br")
		require.Equal(t, "gzip", w.Header().Get("Content-Encoding"))
		z, err := gzip.NewReader(w.Body)
		require.NoError(t, err)
		got, err := io.ReadAll(z)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))

		w = ask(page, http.MethodHead, path, "")
		require.Equal(t, http.StatusOK, w.Code)
		require.Empty(t, w.Body.String())
	}
	require.Equal(t, http.StatusNotFound, get(page, "/main.js.map").Code)
	require.Equal(t, http.StatusNotFound, get(page, "/index.html").Code)
	require.Equal(t, http.StatusNotFound, get(page, "/assets").Code)
	w := ask(page, http.MethodPost, "/", "")
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
}

func TestPolicy(t *testing.T) {
	page := newPage(t, newRegistry(t), dashboard.Options{})
	for _, path := range []string{"/", "/main.js", "/stream", "/command", "/none"} {
		h := get(page, path).Header()
		policy := h.Get("Content-Security-Policy")
		for _, want := range []string{
			"default-src 'none'", "script-src 'self';", "style-src 'self';", "connect-src 'self';", "frame-ancestors 'none'", "base-uri 'none'",
			"form-action 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'",
		} {
			require.Contains(t, policy, want, path)
		}
		require.NotContains(t, policy, "unsafe")
		require.Equal(t, "DENY", h.Get("X-Frame-Options"))
		require.Equal(t, "same-origin", h.Get("Cross-Origin-Resource-Policy"))
		require.Empty(t, h.Get("Access-Control-Allow-Origin"))
	}
}

// Where StripPrefix has taken the slash away too.
func TestWithoutItsSlash(t *testing.T) {
	page := newPage(t, newRegistry(t), dashboard.Options{})
	for asked, want := range map[string]string{"/a/dash": "./dash/", "/dash?x=/y": "./dash/", "/http:": "./http:/", "/a//evil": "./evil/"} {
		w := get(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.URL.Path = ""
			page.ServeHTTP(w, r)
		}), asked)
		require.Equal(t, http.StatusPermanentRedirect, w.Code)
		require.Equal(t, want, w.Header().Get("Location"))
	}
}

// What the page may never do, whoever changes it.
func TestTheSources(t *testing.T) {
	forbidden := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function|setHTMLUnsafe|createContextualFragment|\.src ?=|https?://[^w]|//cdn|@import|url\(`)
	entries, err := fs.ReadDir(os.DirFS("assets"), ".")
	require.NoError(t, err)
	for _, e := range entries {
		data, err := os.ReadFile("assets/" + e.Name())
		require.NoError(t, err)
		require.Empty(t, forbidden.FindAllString(string(data), -1), e.Name())
	}
}

func TestDetail(t *testing.T) {
	reg := newRegistry(t)
	users := reg.Dependency("users", firebreak.Config{MaxConcurrent: 20})
	cmd := users.Command("users.get", firebreak.Config{Timeout: 300 * time.Millisecond})
	require.NoError(t, reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{"users.get": {SleepWindow: 7 * time.Second}}}))
	call(cmd, 3, succeed)
	w := get(newPage(t, reg, dashboard.Options{}), "/command?command=users.get&key=")
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var d struct {
		Command item
		Run     struct {
			Count       uint64
			Percentiles map[string]int64
			Bounds      []int64
			Below       []uint64
		}
		Settings map[string]struct {
			Value  any
			Origin string
		}
		Order []string
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &d))
	require.Equal(t, "users.get", d.Command.Name)
	require.EqualValues(t, 3, d.Run.Count)
	require.Len(t, d.Run.Below, len(d.Run.Bounds))
	require.Contains(t, d.Run.Percentiles, "p99.5")
	for key, want := range map[string][2]any{
		"timeout": {"300ms", "code: command"}, "maxConcurrent": {20.0, "code: dependency"}, "sleepWindow": {"7s", "document: command"},
		"window": {"10s", "default"}, "Classify": {"a function", "default"},
	} {
		require.Equal(t, want[0], d.Settings[key].Value, key)
		require.Equal(t, want[1], d.Settings[key].Origin, key)
	}
	require.Equal(t, "isolation", d.Order[0])
	require.Len(t, d.Order, len(d.Settings))
}

func TestDetailOfAKey(t *testing.T) {
	reg := newRegistry(t)
	web := reg.Dependency("web", firebreak.Config{}).Keyed("get", 9, firebreak.Config{})
	page := newPage(t, reg, dashboard.Options{})
	for _, key := range []string{"", "a", "ä b&c=d", "\xff", "\xfe", strings.Repeat("k", 5000), strings.Repeat("k", 5001)} {
		web.Command(key).Override(firebreak.Override{Mode: firebreak.Shadow, Reason: "for " + key[:min(3, len(key))]})
	}
	reg.Command("get[a]", firebreak.Config{})
	keys := map[string]bool{}
	for _, i := range whole(t, page).Set {
		if i.Command != "get" {
			continue
		}
		require.False(t, keys[i.Key], "two with one name: %q", i.Key)
		keys[i.Key] = true
		w := get(page, "/command?command=get&key="+escape(i.Key))
		require.Equal(t, http.StatusOK, w.Code)
		var d struct{ Command item }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &d))
		require.Equal(t, i.Key, d.Command.Key)
		require.Equal(t, i.Override.Reason, d.Command.Override.Reason)
	}
	require.Len(t, keys, 7)
	require.Equal(t, http.StatusNotFound, get(page, "/command?command=get&key=none").Code)
	require.Equal(t, http.StatusNotFound, get(page, "/command").Code)
	require.Equal(t, http.StatusOK, get(page, "/command?command=get%5Ba%5D").Code)
}

// Moments that JSON or a browser cannot hold.
func TestFarMoments(t *testing.T) {
	reg := newRegistry(t)
	cmd := reg.Command("c", firebreak.Config{})
	page := newPage(t, reg, dashboard.Options{})
	for _, until := range []time.Time{time.Date(292277026, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(1<<62, 0), time.Now().AddDate(20000, 0, 0)} {
		cmd.Override(firebreak.Override{Mode: firebreak.Shadow, Until: until})
		o := whole(t, page).commands()["c"].Override
		if o == nil { // the registry takes it for over
			continue
		}
		require.GreaterOrEqual(t, o.Until, int64(0))
		require.LessOrEqual(t, o.Until, int64(8_640_000_000_000_000))
	}
}

// Whatever is counted is shown, under its own name, also what is counted one day.
func TestAllCounts(t *testing.T) {
	var c firebreak.Counts
	v := reflect.ValueOf(&c).Elem()
	require.Len(t, dashboard.CountNames, v.NumField())
	for i := range v.NumField() {
		c = firebreak.Counts{}
		v.Field(i).SetUint(7)
		all := dashboard.CountsOf(&c)
		require.EqualValues(t, 7, all[len(all)-1])
		name := strings.ReplaceAll(dashboard.CountNames[len(all)-1], "_", "")
		require.Equal(t, strings.ToLower(v.Type().Field(i).Name), name)
	}
}
