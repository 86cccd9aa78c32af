package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firebreak-go/firebreak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// judged plays a scenario as short as it may be, until the machine had the time to judge
// it. One that never has, in five runs, is no machine to test on, and fails.
func judged(t *testing.T, s scenario, without bool) *run {
	t.Helper()
	var notJudged string
	for range 5 {
		r, err := play(t.Context(), s, minDuration, without)
		require.NoError(t, err)
		var report bytes.Buffer
		r.write(&report)
		t.Logf("%s", &report)
		if _, notJudged = r.judge(); notJudged == "" {
			return r
		}
	}
	require.Empty(t, notJudged)
	return nil
}

func allKept(t *testing.T, r *run, atLeast int) {
	t.Helper()
	promises, _ := r.judge()
	assert.GreaterOrEqual(t, len(promises), atLeast)
	for _, p := range promises {
		assert.True(t, p.kept, "%s: %s (%s)", p.text, p.measured, p.bound)
	}
	assert.Zero(t, r.exitStatus())
}

// Each incident; hang is TestCompare's.
func TestScenarios(t *testing.T) {
	promises := map[string]int{"three": 4, "brownout": 3, "flapping": 2, "everything": 14}
	for _, s := range scenarios {
		if s.Name == "hang" {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			r := judged(t, s, false)
			allKept(t, r, promises[s.Name])
			assert.InDelta(t, rate*minDuration.Seconds(), len(r.samples), 1, "the load does not depend on the answers")
			assert.Greater(t, r.saved.Keys, 5*r.saved.Batches, "collapsing saves calls")
			assert.Positive(t, r.saved.Cached)
			assert.Positive(t, r.saved.Fallbacks)
			assert.NotEmpty(t, r.logs)
		})
	}
}

// The same incident with and without, and the page about it.
func TestCompare(t *testing.T) {
	hang := scenarios[0]
	runs := map[bool]*run{false: judged(t, hang, false), true: judged(t, hang, true)}
	var reports bytes.Buffer
	pairs, err := compare(t.Context(), scenarios[:1], minDuration, &reports, func(_ context.Context, _ scenario, _ time.Duration, without bool) (*run, error) {
		return runs[without], nil
	})
	require.NoError(t, err)
	require.Len(t, pairs, 1)
	p := pairs[0]
	require.False(t, p.guarded.unguarded)
	require.True(t, p.bare.unguarded)
	assert.Contains(t, reports.String(), "hang, with firebreak")
	assert.Contains(t, reports.String(), "hang, without protection")
	require.Equal(t, "hang", p.guarded.Name)
	allKept(t, p.guarded, 3)

	promises, _ := p.bare.judge()
	var broken strings.Builder
	for _, x := range promises {
		if !x.kept {
			broken.WriteString(x.text + "\n")
		}
	}
	assert.Contains(t, broken.String(), "neighbours", "without protection they wait for workers that wait")
	assert.Zero(t, p.bare.exitStatus(), "nobody promised anything")
	assert.Empty(t, p.bare.circuits())
	assert.Greater(t, p.bare.asked["recommendations"], p.guarded.asked["recommendations"])

	var page strings.Builder
	require.NoError(t, writePage(&page, []pair{p}, availabilities(t.Context(), dependencyAnswers, 1000, 1000)))
	assert.Equal(t, 3, strings.Count(page.String(), "<svg "))
	assert.Equal(t, 3, strings.Count(page.String(), "</svg>"))
	assert.NotContains(t, page.String(), "NaN")
	assert.NotContains(t, page.String(), "Inf")
	assert.NotRegexp(t, `(src|href)=|url\(|@import`, page.String(), "it needs nothing but itself")
	for _, class := range []string{"with", "without"} { // both curves of both plots
		assert.Equal(t, 2, strings.Count(page.String(), `<path class="`+class+`"`), class)
	}
}

// Ctrl-C while everything hangs.
func TestInterrupted(t *testing.T) {
	out := filepath.Join(t.TempDir(), "page.html")
	for _, args := range [][]string{
		{"-scenario", "everything", "-unprotected", "-duration", "5s"},
		{"-compare", "-duration", "5s", "-out", out},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var stdout, stderr bytes.Buffer
		assert.Equal(t, statusInterrupted, command(ctx, args, &stdout, &stderr))
		assert.Contains(t, stdout.String(), "Not judged: interrupted")
		assert.NotContains(t, stdout.String(), "kept")
		assert.Empty(t, stderr.String(), "all was shut down in good order")
	}
	assert.NoFileExists(t, out)
}

// A service with its load: pages are served and logged, then all of it ends.
func TestService(t *testing.T) {
	var stdout, stderr bytes.Buffer
	status := command(t.Context(), []string{"-http", "127.0.0.1:0", "-ops", "127.0.0.1:0", "-duration", "1s", "-log"}, &stdout, &stderr)
	assert.Zero(t, status)
	assert.Regexp(t, `panel: http://127.0.0.1:\d+/`, stdout.String())
	assert.Contains(t, stderr.String(), `page=/tv/home`)
	assert.Contains(t, stderr.String(), `users[SUCCESS]`)

	w := newWorld(t, false)
	taken := strings.TrimPrefix(w.url, "http://")
	stdout.Reset()
	stderr.Reset()
	assert.Equal(t, statusBroken, command(t.Context(), []string{"-http", taken}, &stdout, &stderr))
	assert.Contains(t, stderr.String(), "address already in use")
}

func newWorld(t *testing.T, without bool) *world {
	t.Helper()
	w, err := startWorld(worldOptions{addr: "127.0.0.1:0", unguarded: without})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, w.stop()) })
	return w
}

// ask fetches a page as the load generator would.
func ask(t *testing.T, w *world, e *endpoint, i int) sample {
	t.Helper()
	l := newLoad(w.url, true)
	defer l.http.CloseIdleConnections()
	s := sample{endpoint: e}
	err := l.get(t.Context(), i, &s)
	s.answered = err == nil
	if err != nil {
		t.Log(e.name, err)
	}
	return s
}

func endpointOf(name string) *endpoint {
	i := slices.IndexFunc(endpoints, func(e *endpoint) bool { return e.name == name })
	return endpoints[i]
}

func (w *world) backend(name string) *backend {
	i := slices.IndexFunc(w.backends, func(b *backend) bool { return b.name == name })
	return w.backends[i]
}

// A healthy page asks each backend for it, and no other: what an endpoint says of its
// backends is what its neighbours are judged by.
func TestPages(t *testing.T) {
	w := newWorld(t, false)
	for i, e := range endpoints {
		asked := map[string]int64{}
		for _, b := range w.backends {
			asked[b.name] = -b.asked.Load()
		}
		s := ask(t, w, e, 1000+i)
		require.True(t, s.answered, e.name)
		var called []string
		for _, b := range w.backends {
			if asked[b.name] += b.asked.Load(); asked[b.name] > 0 {
				called = append(called, b.name)
			}
		}
		assert.ElementsMatch(t, e.backends, called, e.name)
		if len(s.degraded) == 0 { // else a busy machine has timed a call out, and it was asked for again
			assert.LessOrEqual(t, asked["users"], int64(1), "%s: the request cache", e.name)
			assert.LessOrEqual(t, asked["bookmarks"], int64(10), "%s: 30 titles, collapsed", e.name)
			assert.LessOrEqual(t, asked["ratings"], int64(10), "%s: 30 titles, collapsed", e.name)
		}
	}
}

// The devices get what suits them.
func TestPayloads(t *testing.T) {
	w := newWorld(t, false)
	page := func(path string) (*http.Response, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+path, nil)
		require.NoError(t, err)
		req.Header.Set("X-User", "u007")
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		resp, err := client.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp, string(body)
	}
	_, onTV := page("/tv/home")
	_, onPhone := page("/phone/home")
	resp, onWeb := page("/web/home")

	assert.Contains(t, onTV, "/img/1920/")
	assert.Contains(t, onPhone, "/img/320/")
	assert.Contains(t, onWeb, "/img/640/")
	assert.Less(t, len(onPhone), len(onTV)/4)
	assert.NotContains(t, onPhone, "stars")
	assert.Equal(t, "application/x-ndjson", resp.Header.Get("Content-Type"))
	in := bufio.NewScanner(strings.NewReader(onWeb))
	lines := 0
	for ; in.Scan(); lines++ {
		assert.True(t, json.Valid(in.Bytes()), in.Text())
	}
	assert.GreaterOrEqual(t, lines, 6, "the user, the plan, the place, three rows, the end")

	resp, _ = page("/tv/play/" + noSuchTitle)
	assert.Equal(t, http.StatusNotFound, resp.StatusCode)
	assert.Empty(t, w.transitions(), "what is not there is nobody's failure")
}

// The web's lines come as they are ready: the first ones do not wait for a backend that
// hangs. Without protection, as the clients' timeout is the longer one.
func TestWebHomeStreams(t *testing.T) {
	w := newWorld(t, true)
	w.backend("recommendations").fallIll(hang)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/web/home", nil)
	require.NoError(t, err)
	req.Header.Set("X-User", "u007")
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	began := time.Now()
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	_, err = in.ReadString('\n')
	require.NoError(t, err)
	first := time.Since(began)
	_, err = io.ReadAll(in)
	require.NoError(t, err)
	all := time.Since(began)
	assert.GreaterOrEqual(t, all, clientTimeout, "the last line waits for recommendations")
	assert.Less(t, first, all-clientTimeout/5)
}

// What stands in for each backend, for a user who was here before and for a new one.
func TestFallbacks(t *testing.T) {
	const known, unknown = 1, 2
	tvHome, webSearch := endpointOf("/tv/home"), endpointOf("/web/search")
	for _, c := range []struct {
		backend        string
		endpoint       *endpoint
		before, afresh string
	}{
		{"users", tvHome, "users: cached", "users: stubbed"},
		{"subscriptions", tvHome, "subscriptions: cached", "subscriptions: stubbed"},
		{"geo", tvHome, "geo: stubbed", "geo: stubbed"},
		{"abtests", tvHome, "abtests: stubbed", "abtests: stubbed"},
		{"recommendations", tvHome, "recommendations: stale", "recommendations: stale"},
		{"history", tvHome, "history: empty", "history: empty"},
		{"bookmarks", tvHome, "bookmarks: empty", "bookmarks: empty"},
		{"ratings", tvHome, "ratings: empty", "ratings: empty"},
		{"images", tvHome, "images: stubbed", "images: stubbed"},
		{"social", tvHome, "social: empty", "social: empty"},
		{"search", webSearch, "search: cached", "search: empty"},
	} {
		t.Run(c.backend, func(t *testing.T) {
			w := newWorld(t, false)
			for range 3 { // a call on a busy machine may have no answer to remember
				ask(t, w, c.endpoint, known)
			}
			require.NoError(t, w.afflict(c.backend, fail))
			for i, want := range map[int]string{known: c.before, unknown: c.afresh} {
				s := ask(t, w, c.endpoint, i)
				assert.True(t, s.answered)
				assert.Contains(t, s.degraded, want)
			}
		})
	}

	t.Run("recommendations that never were", func(t *testing.T) {
		w := newWorld(t, false)
		w.backend("recommendations").fallIll(drop)
		s := ask(t, w, tvHome, known)
		assert.True(t, s.answered)
		assert.Contains(t, s.degraded, "recommendations: stubbed")
	})

	t.Run("licences fail fast", func(t *testing.T) {
		w := newWorld(t, false)
		w.backend("licences").fallIll(fail)
		for range 10 {
			ask(t, w, endpointOf("/tv/play"), known)
		}
		asked := w.backend("licences").asked.Load()
		assert.Less(t, asked, int64(10), "its circuit has opened")
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		var after []string
		for range 3 { // one of them may be the probe
			resp, err := client.Get(w.url + "/tv/play/t001")
			require.NoError(t, err)
			defer resp.Body.Close()
			assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
			after = append(after, resp.Header.Get("Retry-After"))
		}
		assert.Contains(t, after, "1")
	})
}

// When the user's own backend says that there is no such user, there is no page.
func TestUnknownUser(t *testing.T) {
	w := newWorld(t, false)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/tv/home", "/phone/home", "/web/home"} {
		resp, err := client.Get(w.url + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		assert.Equal(t, http.StatusNotFound, resp.StatusCode, path)
	}
}

// A page that broke off after its status was sent is seen to have done so, and logged.
func TestCutOff(t *testing.T) {
	var log bytes.Buffer
	e := &edge{log: slog.New(slog.NewTextHandler(&log, nil)), recent: &journal{}}
	s, err := serve("127.0.0.1:0", e.request("/cut", func(_ context.Context, w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, "some of it\n")
		_ = http.NewResponseController(w).Flush()
		return cutOff{errors.New("no more")}
	}))
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{}}
	resp, err := client.Get(s.url)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	client.CloseIdleConnections()
	require.NoError(t, s.stop(t.Context()))
	assert.Contains(t, log.String(), `level=WARN`)
	require.Len(t, e.recent.entries(), 1)
	assert.EqualError(t, e.recent.entries()[0].Err, "no more")
}

func TestPanel(t *testing.T) {
	w := newWorld(t, false)
	ops, err := serveOps("127.0.0.1:0", w)
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{}}
	defer func() { client.CloseIdleConnections(); assert.NoError(t, ops.stop(t.Context())) }()
	post := func(name, trouble string, header ...string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, ops.server.url+"/backends/"+name, strings.NewReader(url.Values{"trouble": {trouble}}.Encode()))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if len(header) > 0 {
			req.Header.Set(header[0], header[1])
		}
		resp, err := client.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for _, trouble := range troubles {
		assert.Equal(t, http.StatusOK, post("ratings", string(trouble)))
		assert.Equal(t, trouble, w.backend("ratings").illFrom())
	}
	assert.Equal(t, http.StatusBadRequest, post("ratings", "fire"))
	assert.Equal(t, http.StatusNotFound, post("nobody", "hang"))
	assert.Equal(t, http.StatusForbidden, post("ratings", "", "Sec-Fetch-Site", "cross-site"))
	assert.Equal(t, flap, w.backend("ratings").illFrom(), "nothing of this changed anything")
	assert.Equal(t, http.StatusOK, post("all", "hang"))
	assert.Equal(t, hang, w.backend("geo").illFrom())
	assert.Equal(t, http.StatusOK, post("all", ""))
	assert.Equal(t, well, w.backend("geo").illFrom())

	w.backend("social").fallIll(slow)
	ask(t, w, endpointOf("/tv/home"), 1)
	resp, err := client.Get(ops.server.url + "/backends")
	require.NoError(t, err)
	defer resp.Body.Close()
	var all []backendStatus
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&all))
	require.Len(t, all, 12)
	for _, b := range all {
		assert.Equal(t, b.Name == "social", b.Trouble == slow, b.Name)
		assert.NotEmpty(t, b.Commands, b.Name)
	}
	resp, err = client.Get(ops.server.url + "/")
	require.NoError(t, err)
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Contains(t, string(page), `class="on">slow<`)
	assert.Contains(t, string(page), "recommendations.personal")
	assert.Contains(t, string(page), "users[SUCCESS]", "the request's log")
	assert.True(t, strings.HasSuffix(strings.TrimSpace(string(page)), "</html>"), "the template came to its end")
	for path, want := range map[string]string{"/dashboard/": "<html", "/metrics": `firebreak_calls_total{command="recommendations.personal"`} {
		resp, err := client.Get(ops.server.url + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Contains(t, string(text), want, path)
	}
	stream, err := client.Get(ops.server.url + "/hystrix.stream")
	require.NoError(t, err)
	defer stream.Body.Close() // it is open when the server stops
	assert.Equal(t, http.StatusOK, stream.StatusCode)
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{
		{"-duration", "soon"}, {"-nonsense"}, {"30s"}, {"-scenario", "hang", "-duration", "4s"}, {"-duration", "-1s"},
		{"-compare", "-scenario", "hang"}, {"-unprotected"},
	} {
		var stdout, stderr bytes.Buffer
		assert.Equal(t, statusUsage, command(t.Context(), args, &stdout, &stderr), args)
		assert.Empty(t, stdout.String())
		assert.NotEmpty(t, stderr.String())
	}
	var stdout, stderr bytes.Buffer
	assert.Zero(t, command(t.Context(), []string{"-help"}, &stdout, &stderr))
	for _, s := range scenarios {
		assert.Contains(t, stderr.String(), s.Name)
	}
	stderr.Reset()
	assert.Equal(t, statusUsage, command(t.Context(), []string{"-scenario", "nosuch"}, &stdout, &stderr))
	assert.Contains(t, stderr.String(), `no file "nosuch"; there are hang, three`)
}

func TestScenarioFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "incident.json")
	load := func(text string) (scenario, error) {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return findScenario(file)
	}
	s, err := load(`{"name": "friday", "about": "ratings are down while search is slow", "steps": [
	  {"backend": "ratings", "trouble": "fail", "from": 30, "to": 60},
	  {"backend": "search",  "trouble": "slow", "from": 40, "to": 66},
	  {"backend": "ratings", "trouble": "hang", "from": 60, "to": 66}]}`)
	require.NoError(t, err)
	assert.Equal(t, []string{"ratings", "search"}, s.ill())

	// The one that the documentation shows.
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "edge.md"))
	require.NoError(t, err)
	_, text, found := strings.Cut(string(doc), "```json\n")
	require.True(t, found)
	text, _, _ = strings.Cut(text, "```")
	s, err = load(text)
	require.NoError(t, err)
	assert.Len(t, s.Steps, 2)

	for text, want := range map[string]string{
		`{`:         "unexpected EOF",
		`{"at": 1}`: "unknown field",
		`{}`:        "no name\nno steps",
		`{"name": "x", "steps": [{"backend": "web", "trouble": "fire", "from": 10, "to": 90}]}`:                                                              "step 1: no backend \"web\"\nstep 1: no trouble \"fire\"; there are [slow hang fail drop flap]\nstep 1: from 10 to 90 is not within 30 and 66",
		`{"name": "x", "steps": [{"backend": "geo", "trouble": "fail", "from": 30, "to": 50}, {"backend": "geo", "trouble": "slow", "from": 40, "to": 60}]}`: "step 2: geo is ill already",
	} {
		_, err := load(text)
		assert.ErrorContains(t, err, want)
	}
}

func TestScript(t *testing.T) {
	for _, x := range scenarios {
		require.NoError(t, x.check(), x.Name)
		s := script{x, time.Now(), minDuration}
		from, to := s.incident()
		assert.Greater(t, s.end().Sub(to), maxTimeToRecover, "or the promise could not be judged")
		for _, c := range []struct {
			at   time.Time
			part part
			ok   bool
		}{
			{s.start, 0, false}, {s.at(warmUp), before, true}, {from.Add(-1), before, true}, {from, during, true},
			{to.Add(-1), during, true}, {to, after, true}, {s.end().Add(-1), after, true}, {s.end(), 0, false},
		} {
			p, ok := s.partOf(c.at)
			assert.Equal(t, c.ok, ok, c.at)
			assert.Equal(t, c.part, p, c.at)
		}
	}
	// One that is ill in a new way at once: it is not well again in between.
	s := script{scenario{"x", "", []step{{"geo", hang, 40, 50}, {"geo", fail, 30, 40}}}, time.Now(), time.Minute}
	var order []trouble
	for _, c := range s.changes() {
		order = append(order, c.trouble)
	}
	assert.Equal(t, []trouble{fail, well, hang, well}, order)
}

func TestIllness(t *testing.T) {
	b := newBackends()[0]
	assert.Equal(t, well, b.present(time.Now()))
	b.fallIll(flap)
	since := b.ill.Load().since
	assert.Equal(t, fail, b.present(since))
	assert.Equal(t, fail, b.present(since.Add(flapIll-1)))
	assert.Equal(t, well, b.present(since.Add(flapIll)))
	assert.Equal(t, well, b.present(since.Add(flapPeriod-1)))
	assert.Equal(t, fail, b.present(since.Add(flapPeriod)))
	b.fallIll(slow)
	assert.Equal(t, slow, b.present(time.Now()))
	b.fallIll(well)
	assert.Equal(t, well, b.present(time.Now()))
}

func TestLatency(t *testing.T) {
	l := latency{10 * time.Millisecond, 40 * time.Millisecond}
	drawn := make([]time.Duration, 20_000)
	for i := range drawn {
		drawn[i] = l.draw()
	}
	slices.Sort(drawn)
	assert.InEpsilon(t, l.median, percentile(drawn, 50), 0.1)
	assert.InEpsilon(t, l.p99, percentile(drawn, 99), 0.2)
	assert.LessOrEqual(t, drawn[len(drawn)-1], 2*l.p99)
	assert.Positive(t, drawn[0])
}

func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory[int, string]()
		broken := errors.New("broken")
		fn := m.remember(func(_ context.Context, key int) (string, error) {
			if key < 0 {
				return "half", broken
			}
			return fmt.Sprint("v", key), nil
		})
		recall := m.recall("x: cached")
		ctx := context.WithValue(t.Context(), notesKey{}, &notes{})

		_, err := fn(ctx, -1)
		require.ErrorIs(t, err, broken)
		v, err := recall(ctx, -1, broken)
		require.ErrorIs(t, err, broken, "what failed is not remembered; the cause is passed on")
		assert.Empty(t, v)
		assert.Empty(t, degraded(ctx))

		_, err = fn(ctx, 1)
		require.NoError(t, err)
		time.Sleep(maxAge)
		v, err = recall(ctx, 1, broken)
		require.NoError(t, err)
		assert.Equal(t, "v1", v)
		assert.Equal(t, []string{"x: cached"}, degraded(ctx))
		time.Sleep(time.Nanosecond)
		_, err = recall(ctx, 1, broken)
		require.ErrorIs(t, err, broken, "too old")

		for i := range maxRemembered + 100 {
			_, err = fn(ctx, i)
			require.NoError(t, err)
		}
		assert.Len(t, m.values, maxRemembered)
		v, err = recall(ctx, maxRemembered+99, broken)
		require.NoError(t, err, "the newest is there")
		assert.Equal(t, fmt.Sprint("v", maxRemembered+99), v)
	})
}

// One user's bookmarks are not another's, whatever batches come about.
func TestBatchOfTwoUsers(t *testing.T) {
	_, err := batches[Bookmark](nil)(t.Context(), []seat{{"u001", "t001"}, {"u002", "t001"}})
	assert.ErrorContains(t, err, "a batch of u001 and u002")
}

func TestAvailability(t *testing.T) {
	talk := availabilities(t.Context(), dependencyAnswers, 1, 1)
	assert.InDelta(t, 99.7, talk[numDependencies-1].arithmetic, 0.001)

	// At 99 %, so that a few pages tell: 74 % of them have all.
	rows := availabilities(t.Context(), 0.99, 100_000, 10_000)
	require.Len(t, rows, numDependencies)
	last := rows[numDependencies-1]
	assert.InDelta(t, 73.97, last.arithmetic, 0.01)
	// About six standard deviations.
	assert.InDelta(t, last.arithmetic, last.simulated, 0.85)
	assert.InDelta(t, last.arithmetic, last.bare, 2.7)
	for i, r := range rows {
		assert.Equal(t, i+1, r.dependencies)
		assert.InDelta(t, 100, r.fallbacks, 0, "whatever failed, a fallback has answered")
		if i > 0 {
			assert.LessOrEqual(t, r.simulated, rows[i-1].simulated)
			assert.LessOrEqual(t, r.bare, rows[i-1].bare)
		}
	}

	i := 0
	firstMissing := []int{0, 1, 1, numDependencies}
	got := survivors(4, func() int { i++; return firstMissing[i-1] })
	assert.Equal(t, []float64{100, 75, 25, 25}, got[:4])
	assert.InDelta(t, 25, got[numDependencies], 0)
}

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, c := range []struct {
		of   []time.Duration
		p    float64
		want time.Duration
	}{{nil, 99, 0}, {hundred[:1], 50, 1}, {hundred[:2], 50, 1}, {hundred[:2], 51, 2}, {hundred, 99, 99}, {hundred, 99.1, 100}, {hundred, 0, 1}} {
		assert.Equal(t, c.want, percentile(c.of, c.p), "%v of %d", c.p, len(c.of))
	}
}

// A fabricated run of hang, in which one thing at a time goes wrong.
func TestJudge(t *testing.T) {
	const n = 1000
	fabricate := func(name string) *run {
		s, err := findScenario(name)
		require.NoError(t, err)
		r := &run{script: script{s, time.Now(), 100 * time.Second}}
		for i := range n {
			e := mix[i%len(mix)]
			down := slices.Contains(s.ill(), e.noFallback)
			due := r.start.Add(time.Duration(i) * 100 * time.Millisecond)
			p, _ := r.partOf(due)
			refused := down && p == during
			r.samples = append(r.samples, sample{endpoint: e, due: due, took: 5 * time.Millisecond, answered: !refused, refused: refused})
		}
		for _, name := range s.ill() {
			ill, healed := r.illness(name)
			r.circuit = append(r.circuit,
				firebreak.Transition{Command: name, Dependency: name, To: firebreak.StateOpen, At: ill.Add(time.Second)},
				firebreak.Transition{Command: name, Dependency: name, From: firebreak.StateHalfOpen, To: firebreak.StateClosed, At: healed.Add(maxTimeToRecover)})
		}
		return r
	}
	each := func(r *run, p part, which func(*endpoint) bool, change func(*sample)) {
		for i := range r.samples {
			if in, ok := r.partOf(r.samples[i].due); ok && in == p && which(r.samples[i].endpoint) {
				change(&r.samples[i])
			}
		}
	}
	neighbour := isNeighbour([]string{"recommendations"})
	play := func(e *endpoint) bool { return e.name == "/tv/play" }

	for name, c := range map[string]struct {
		scenario string
		spoil    func(*run)
		status   int
		broken   string
	}{
		"all is well":        {"hang", func(*run) {}, 0, ""},
		"slow neighbours":    {"hang", func(r *run) { each(r, during, neighbour, func(s *sample) { s.took = neighbourFloor + 1 }) }, statusBroken, "p99 of the neighbours"},
		"as slow as allowed": {"hang", func(r *run) { each(r, during, neighbour, func(s *sample) { s.took = neighbourFloor }) }, 0, ""},
		"slow before, too": {"hang", func(r *run) {
			each(r, before, neighbour, func(s *sample) { s.took = neighbourFloor })
			each(r, during, neighbour, func(s *sample) { s.took = neighbourFloor * 3 / 2 })
		}, 0, ""},
		"slow pages that hang": {"hang", func(r *run) {
			each(r, during, func(e *endpoint) bool { return !neighbour(e) }, func(s *sample) { s.took = time.Second })
		}, 0, ""},
		"a slow machine": {"hang", func(r *run) {
			each(r, during, neighbour, func(s *sample) { s.took, s.late = neighbourFloor+4*time.Millisecond, time.Millisecond })
		}, 0, ""},
		"ten pages unanswered": {"hang", func(r *run) {
			for i := range n / 100 {
				r.samples[i*100].answered = false
			}
		}, 0, ""},
		"eleven": {"hang", func(r *run) {
			for i := range n/100 + 1 {
				r.samples[i*90].answered = false
			}
		}, statusBroken, "are answered"},
		"never opened":    {"hang", func(r *run) { r.circuit = nil }, statusBroken, "recommendations opens"},
		"closed too late": {"hang", func(r *run) { r.circuit[1].At = r.circuit[1].At.Add(1) }, statusBroken, "its circuit closes"},
		"never closed":    {"hang", func(r *run) { r.circuit = r.circuit[:1] }, statusBroken, "its circuit closes"},
		"opened again": {"hang", func(r *run) {
			r.circuit = append(r.circuit, firebreak.Transition{Command: "recommendations", Dependency: "recommendations", To: firebreak.StateOpen, At: r.end()})
		}, statusBroken, "its circuit closes"},
		"flapping need not open": {"flapping", func(r *run) { r.circuit = nil }, 0, ""},
		"refusals are no fault":  {"everything", func(*run) {}, 0, ""},
		"slow refusals":          {"everything", func(r *run) { each(r, during, play, func(s *sample) { s.took = maxRefusal + 1 }) }, statusBroken, "fails fast"},
		"nothing was promised": {"hang", func(r *run) {
			r.unguarded = true
			r.circuit = nil
			each(r, during, neighbour, func(s *sample) { s.answered = false })
		}, 0, "are answered"},
		"too busy to judge": {"hang", func(r *run) {
			for i := range r.samples {
				r.samples[i].late = maxLate + 1
			}
			r.circuit = nil
		}, 0, ""},
		"too early to judge": {"hang", func(r *run) { r.interrupted = true; r.samples = nil }, statusInterrupted, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := fabricate(c.scenario)
			c.spoil(r)
			assert.Equal(t, c.status, r.exitStatus())
			promises, _ := r.judge()
			var broken []string
			for _, p := range promises {
				if !p.kept {
					broken = append(broken, p.text)
				}
			}
			if c.broken == "" {
				assert.Empty(t, broken)
			} else {
				require.Len(t, broken, 1)
				assert.Contains(t, broken[0], c.broken)
			}
			var report strings.Builder
			r.write(&report)
			assert.Equal(t, c.status == statusBroken, strings.Contains(report.String(), "BROKEN"))
		})
	}
}
