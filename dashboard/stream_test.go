package dashboard_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/dashboard"
)

func TestFirstAllThenWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t)
		users := reg.Dependency("users", firebreak.Config{MaxConcurrent: 20})
		busy := users.Command("users.get", firebreak.Config{})
		users.Command("users.put", firebreak.Config{})
		call(busy, 3, succeed)
		w := watch(t, serve(t, &http.Server{Handler: newPage(t, reg, dashboard.Options{Title: "shop", Operator: "operator/"})}))
		require.Equal(t, "text/event-stream", w.response.Header.Get("Content-Type"))
		require.Equal(t, "no-store", w.response.Header.Get("Cache-Control"))
		require.Equal(t, "no", w.response.Header.Get("X-Accel-Buffering"))

		m := w.must()
		require.Equal(t, "whole", m.name)
		require.Equal(t, time.Now().UnixMilli(), m.At)
		require.Equal(t, "shop", m.Title)
		require.Equal(t, "operator/", m.Operator)
		require.Equal(t, 1000, m.Interval)
		require.Equal(t, []string{"success", "expected", "ignored", "failure"}, m.Counts[:4])
		require.Len(t, m.Set, 3, "a dependency and two commands")
		require.Equal(t, "users", m.Set[0].Dependency)
		require.Equal(t, 20, m.Set[0].Limit)
		require.Equal(t, "semaphore", m.Set[0].Isolation)
		c := m.commands()["users.get"]
		require.Equal(t, "users", c.Of)
		require.Equal(t, "closed", c.State)
		require.Equal(t, "auto", c.Mode)
		require.Equal(t, []uint64{3}, c.Total)
		require.Equal(t, []uint64{3}, c.Window)
		require.Len(t, c.Latency, 5)

		// A second later, to the nanosecond: nothing has changed, and that is said.
		before := time.Now()
		m = w.must()
		require.Equal(t, time.Second, time.Since(before))
		require.Equal(t, "change", m.name)
		require.Empty(t, m.Set)

		call(busy, 1, fail)
		m = w.must()
		require.Len(t, m.Set, 1, "only what has changed")
		require.Equal(t, []uint64{3, 0, 0, 1}, m.commands()["users.get"].Total[:4])
		require.InDelta(t, 25, m.commands()["users.get"].ErrorPercentage, 1e-9)

		// A command that comes later, with its dependency.
		reg.Command("mail", firebreak.Config{})
		m = w.must()
		require.Len(t, m.Set, 2)
		require.Contains(t, m.commands(), "mail")
	})
}

func TestAKeyThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t)
		hosts := reg.Dependency("web", firebreak.Config{}).Keyed("web.get", 1, firebreak.Config{})
		call(hosts.Command("a"), 1, succeed)
		w := watch(t, serve(t, &http.Server{Handler: newPage(t, reg, dashboard.Options{})}))
		require.Contains(t, w.must().commands(), "web.get[a]")
		for range 60 {
			w.must()
		}
		hosts.Command("b")
		for {
			m := w.must()
			if len(m.Gone) == 0 {
				continue
			}
			require.Equal(t, "web.get", m.Gone[0].Command)
			require.Equal(t, "a", m.Gone[0].Key)
			require.Contains(t, m.commands(), "web.get[b]")
			return
		}
	})
}

// Encoded once: those who watch together are sent the same, and nothing runs when
// nobody watches.
func TestOnePictureForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t)
		cmd := reg.Command("c", firebreak.Config{})
		p := serve(t, &http.Server{Handler: newPage(t, reg, dashboard.Options{})})
		before := runtime.NumGoroutine()
		first := watch(t, p)
		require.Equal(t, "whole", first.must().name)
		later(300 * time.Millisecond)
		second := watch(t, p)
		require.Equal(t, "whole", second.must().name)
		for range 3 {
			call(cmd, 1, succeed)
			require.Equal(t, first.must().text, second.must().text)
		}
		first.leave()
		require.Equal(t, "change", second.must().name, "one of two has left")
		second.leave()
		synctest.Wait()
		require.LessOrEqual(t, runtime.NumGoroutine(), before, "something runs for nobody")

		// Who comes later begins anew, and now, not at a next tick.
		began := time.Now()
		m := watch(t, p).must()
		require.Equal(t, "whole", m.name)
		require.Zero(t, time.Since(began))
		require.Equal(t, uint64(1), m.Number)
	})
}

func TestMaxStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := serve(t, &http.Server{Handler: newPage(t, newRegistry(t), dashboard.Options{MaxStreams: 2})})
		first := watch(t, p)
		require.Equal(t, http.StatusOK, first.response.StatusCode)
		require.Equal(t, http.StatusOK, watch(t, p).response.StatusCode)
		third := watch(t, p)
		require.Equal(t, http.StatusServiceUnavailable, third.response.StatusCode)
		require.Equal(t, "10", third.response.Header.Get("Retry-After"))
		first.leave()
		synctest.Wait()
		require.Equal(t, http.StatusOK, watch(t, p).response.StatusCode)
	})
}

// Who reads slowly gets no queue, but the whole of the latest picture.
func TestASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t)
		cmd := reg.Command("c", firebreak.Config{})
		w := watch(t, serve(t, &http.Server{Handler: newPage(t, reg, dashboard.Options{})}))
		require.Equal(t, uint64(1), w.must().Number)
		later(5500 * time.Millisecond)
		call(cmd, 7, succeed)
		var got []uint64
		for {
			m := w.must()
			got = append(got, m.Number)
			if m.name == "whole" {
				require.Empty(t, m.commands()["c"].Total, "from before the calls")
				require.GreaterOrEqual(t, m.Number, uint64(6))
				break
			}
		}
		require.LessOrEqual(t, len(got), 3, "nothing is kept for a slow reader: %v", got)
		require.Equal(t, []uint64{7}, w.must().commands()["c"].Total)
	})
}

// Who reads nothing is dropped after ten seconds, and gives the place free.
func TestAStalledReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := serve(t, &http.Server{Handler: newPage(t, newRegistry(t), dashboard.Options{MaxStreams: 1})})
		watch(t, p).must() // and no more
		later(10 * time.Second)
		require.Equal(t, http.StatusServiceUnavailable, watch(t, p).response.StatusCode, "dropped too early")
		later(time.Second + time.Nanosecond)
		synctest.Wait()
		require.Equal(t, http.StatusOK, watch(t, p).response.StatusCode)
	})
}

// A server's own time limits are for requests, not for streams.
func TestServerTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, serve(t, &http.Server{
			Handler:     newPage(t, newRegistry(t), dashboard.Options{}),
			ReadTimeout: 2 * time.Second, WriteTimeout: 2 * time.Second, ReadHeaderTimeout: time.Second, IdleTimeout: time.Second,
		}))
		began := time.Now()
		for range 30 {
			w.must()
		}
		require.Equal(t, 29*time.Second, time.Since(began))
	})
}

func TestShutdownEndsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t)
		reg.Command("c", firebreak.Config{})
		p := serve(t, &http.Server{Handler: newPage(t, reg, dashboard.Options{})})
		w := watch(t, p)
		w.must()
		require.NoError(t, reg.Shutdown(t.Context()))
		m := w.must()
		require.True(t, m.Draining)
		_, err := w.next()
		require.ErrorIs(t, err, io.EOF)

		// Who comes now is shown the last of it, and sent away.
		late := watch(t, p)
		m = late.must()
		require.True(t, m.Draining)
		require.Equal(t, "whole", m.name)
		require.Contains(t, m.commands(), "c")
		_, err = late.next()
		require.ErrorIs(t, err, io.EOF)
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t)
		cmd := reg.Command("c", firebreak.Config{})
		page := newPage(t, reg, dashboard.Options{})
		p := serve(t, &http.Server{Handler: page})
		w := watch(t, p)
		w.must()
		for range 3 {
			go page.Close()
		}
		page.Close()
		_, err := w.next()
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, http.StatusServiceUnavailable, watch(t, p).response.StatusCode)
		require.Equal(t, http.StatusOK, get(page, "/").Code, "the page itself is there")
		require.Equal(t, http.StatusOK, get(page, "/command?command=c").Code)
		call(cmd, 25, fail)
		require.Zero(t, dashboard.Remembered(page), "it observes no more")
	})
}

// As the comment of Close says.
func TestAServerShutsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := newPage(t, newRegistry(t), dashboard.Options{})
		s := &http.Server{Handler: page}
		s.RegisterOnShutdown(page.Close)
		w := watch(t, serve(t, s))
		w.must()
		go io.Copy(io.Discard, w.conn) //nolint:errcheck // to its end
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		require.NoError(t, s.Shutdown(ctx))
	})
}

// Of too many commands, those with something to see are shown.
func TestMaxCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t)
		var all []*firebreak.Command
		for i := range 9 {
			all = append(all, reg.Command(fmt.Sprintf("c%d", i), firebreak.Config{SleepWindow: time.Hour}))
		}
		w := watch(t, serve(t, &http.Server{Handler: newPage(t, reg, dashboard.Options{MaxCommands: 4})}))
		shown := map[string]bool{}
		see := func() (message, []string) {
			m := w.must()
			for name := range m.commands() {
				shown[name] = true
			}
			for _, gone := range m.Gone {
				delete(shown, gone.Command)
			}
			var names []string
			for name := range shown {
				names = append(names, name)
			}
			slices.Sort(names)
			return m, names
		}
		m, names := see()
		require.Equal(t, []string{"c0", "c1", "c2", "c3"}, names)
		require.Equal(t, 5, m.LeftOut)

		call(all[8], 20, fail)
		all[6].Override(firebreak.Override{Mode: firebreak.Shadow})
		m, names = see()
		require.Equal(t, []string{"c0", "c1", "c6", "c8"}, names)
		require.Equal(t, 5, m.LeftOut)

		for _, cmd := range all {
			call(cmd, 20, fail)
		}
		m, names = see()
		require.Len(t, names, 4, "no more than that, however bad it is")
		require.Equal(t, 5, m.LeftOut)
	})
}

func TestEventsForThoseWhoComeLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t)
		cmd := reg.Command("c", firebreak.Config{})
		p := serve(t, &http.Server{Handler: newPage(t, reg, dashboard.Options{})})
		call(cmd, 20, fail)
		w := watch(t, p)
		m := w.must()
		require.Len(t, m.Events, 1)
		e := m.Events[0]
		require.Equal(t, "c", e.Command)
		require.Equal(t, "closed", e.From)
		require.Equal(t, "open", e.To)
		require.Equal(t, "error percentage", e.Evidence.Rule)
		require.Equal(t, "connection refused", e.Evidence.LastError)
		require.Equal(t, "error percentage", m.commands()["c"].Evidence.Rule)
		require.Equal(t, m.At+5000, m.commands()["c"].Evidence.NextProbe)

		for range 5 {
			require.Empty(t, w.must().Events)
		}
		call(cmd, 1, succeed)
		var to []string
		for len(to) < 2 {
			for _, e := range w.must().Events {
				require.Nil(t, e.Evidence, "the evidence of another time")
				to = append(to, e.To)
			}
		}
		require.Equal(t, []string{"half_open", "closed"}, to)

		// A mode is an event, with who did it; it has no evidence.
		cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen, Reason: "drill", Author: "ada"})
		var es []event
		for len(es) == 0 {
			es = w.must().Events
		}
		require.Equal(t, "force_open", es[0].Mode)
		require.Equal(t, "ada", es[0].Override.Author)
		require.Equal(t, "drill", es[0].Override.Reason)
		require.Nil(t, es[0].Evidence)
	})
}

// A circuit that flaps keeps its own place only.
func TestMaxEvents(t *testing.T) {
	reg := newRegistry(t)
	page := newPage(t, reg, dashboard.Options{MaxEvents: 10})
	quiet := reg.Command("quiet", firebreak.Config{})
	quiet.Override(firebreak.Override{Mode: firebreak.Shadow, Reason: "first"})
	flaps := reg.Command("flaps", firebreak.Config{})
	for i := range 100 {
		flaps.Override(firebreak.Override{Mode: firebreak.ForceOpen, Reason: fmt.Sprint(i)})
	}
	quiet.Override(firebreak.Override{Mode: firebreak.Shadow, Reason: "last"})
	events := whole(t, page).Events
	require.Len(t, events, 10)
	require.Equal(t, "first", events[0].Override.Reason)
	require.Equal(t, "last", events[9].Override.Reason)
	require.Equal(t, "99", events[8].Override.Reason)
	require.True(t, slices.IsSortedFunc(events, func(a, b event) int { return int(a.N) - int(b.N) }))
}

// whole is the first message of a stream.
func whole(t *testing.T, page http.Handler) message {
	t.Helper()
	s := httptest.NewServer(page)
	defer s.Close()
	defer s.CloseClientConnections()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/stream", nil)
	require.NoError(t, err)
	resp, err := s.Client().Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	w := &watcher{t: t, lines: bufio.NewReader(resp.Body)}
	return w.must()
}

// A wrapper without Unwrap has no deadlines: the stream could not be dropped.
func TestAWriterWithoutDeadlines(t *testing.T) {
	w := get(newPage(t, newRegistry(t), dashboard.Options{}), "/stream")
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Contains(t, w.Body.String(), "Unwrap")
}

func TestHeadOfTheStream(t *testing.T) {
	w := ask(newPage(t, newRegistry(t), dashboard.Options{}), http.MethodHead, "/stream", "")
	require.Equal(t, http.StatusOK, w.Code)
	require.Empty(t, w.Body.String())
}

// What is in the registry of anybody's making does no harm to the stream's lines.
func TestHostileTexts(t *testing.T) {
	reg := newRegistry(t)
	name := "a\nevent: whole\ndata: {}\n\n<script>\xff\u2028"
	page := newPage(t, reg, dashboard.Options{Title: name})
	cmd := reg.Command(name, firebreak.Config{})
	call(cmd, 20, func(context.Context) error { return fmt.Errorf("%s%s", name, strings.Repeat("x", 1<<20)) })
	m := whole(t, page)
	require.Len(t, m.Set, 2)
	require.Contains(t, m.Set[1].Name, "<script>")
	require.NotContains(t, m.text, "<script>", "JSON that is markup by accident")
	require.Less(t, len(m.text), 20_000, "an error's text has a bound")
	require.Equal(t, http.StatusOK, get(page, "/command?command="+escape(m.Set[1].Command)).Code, "the page's name for it leads back to it")
}

func TestDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t)
		for i := range 1001 {
			cmd := reg.Command(fmt.Sprintf("c%04d", i), firebreak.Config{})
			if i == 0 {
				cmd.Override(firebreak.Override{Mode: firebreak.Shadow}) // before there is a page
			}
		}
		page := newPage(t, reg, dashboard.Options{})
		for cmd := range reg.Commands() {
			cmd.Override(firebreak.Override{Mode: firebreak.Shadow})
		}
		require.Equal(t, 512, dashboard.Remembered(page))
		p := serve(t, &http.Server{Handler: page})
		m := watch(t, p).must()
		require.Len(t, m.commands(), 1000)
		require.Equal(t, 1, m.LeftOut)
		for range 31 {
			require.Equal(t, http.StatusOK, watch(t, p).response.StatusCode)
		}
		require.Equal(t, http.StatusServiceUnavailable, watch(t, p).response.StatusCode)
	})
}

// wrapped is what middleware makes of a ResponseWriter.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestHTTP2AndMiddleware(t *testing.T) {
	reg := newRegistry(t)
	reg.Command("c", firebreak.Config{})
	page := newPage(t, reg, dashboard.Options{Interval: 100 * time.Millisecond})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { page.ServeHTTP(wrapped{w}, r) }))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	defer page.Close()
	resp, err := s.Client().Get(s.URL + "/stream")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 2, resp.ProtoMajor)
	w := &watcher{t: t, lines: bufio.NewReader(resp.Body)}
	require.Equal(t, "whole", w.must().name)
	require.Equal(t, "change", w.must().name)
}
