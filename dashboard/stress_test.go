package dashboard_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/dashboard"
)

// Everything at once: calls, keys that come and go, watchers, operators; and in the
// end the page shows what there is.
func TestStress(t *testing.T) {
	reg := newRegistry(t)
	var audited, done atomic.Int64
	page := newPage(t, reg, dashboard.Options{
		Interval: 100 * time.Millisecond, MaxStreams: 8, MaxEvents: 64,
		Audit: func(*http.Request, dashboard.Action) { audited.Add(1) },
	})
	operator := page.Operator(func(*http.Request) (string, error) { return "ada", nil })
	s := httptest.NewServer(page)
	defer s.Close()
	defer s.CloseClientConnections()

	ctx, stop := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer stop()
	var work sync.WaitGroup
	repeat := func(n int, f func(rnd *rand.Rand)) {
		for i := range n {
			work.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(i), 7))
				for ctx.Err() == nil {
					f(rnd)
					runtime.Gosched()
				}
			})
		}
	}
	users := reg.Dependency("users", firebreak.Config{})
	hosts := reg.Dependency("web", firebreak.Config{}).Keyed("web.get", 4, firebreak.Config{Window: time.Millisecond})
	repeat(3, func(rnd *rand.Rand) {
		cmd := users.Command(fmt.Sprintf("users.%d", rnd.IntN(20)), firebreak.Config{SleepWindow: time.Millisecond})
		if rnd.IntN(2) == 0 {
			cmd = hosts.Command(fmt.Sprint(rnd.IntN(9)))
		}
		call(cmd, 1, []func(context.Context) error{succeed, fail}[rnd.IntN(2)])
	})
	repeat(6, func(rnd *rand.Rand) {
		life, cancel := context.WithTimeout(ctx, time.Duration(rnd.IntN(300))*time.Millisecond)
		defer cancel()
		r, err := http.NewRequestWithContext(life, http.MethodGet, s.URL+"/stream", nil)
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := s.Client().Do(r)
		if err != nil {
			return // its life was short
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	})
	repeat(2, func(rnd *rand.Rand) {
		body := fmt.Sprintf(`{"command":"users.%d","mode":%q,"reason":"x","for":"1s"}`, rnd.IntN(20), []string{"shadow", "force_open", "auto", "lift"}[rnd.IntN(4)])
		ask(operator, http.MethodPost, "/override", body, "Content-Type", "application/json")
		done.Add(1)
		ask(operator, http.MethodPost, "/preview", `{"document":{"defaults":{"probes":2}}}`, "Content-Type", "application/json")
		get(page, fmt.Sprintf("/command?command=users.%d", rnd.IntN(20)))
	})
	work.Wait()
	require.Equal(t, done.Load(), audited.Load())

	m := whole(t, page)
	require.LessOrEqual(t, len(m.Events), 64)
	shown := m.commands()
	n := 0
	for cmd := range reg.Commands() {
		n++
		s := cmd.Snapshot()
		require.Contains(t, shown, cmd.Name())
		var sum uint64
		for _, outcome := range shown[cmd.Name()].Total[:min(12, len(shown[cmd.Name()].Total))] {
			sum += outcome
		}
		require.Equal(t, s.Total.Calls(), sum, cmd.Name())
	}
	require.Len(t, shown, n)
}

// A closing page, shutting registry and watchers that come at that moment.
func TestEndsAtOnce(t *testing.T) {
	for range 50 {
		reg := newRegistry(t)
		reg.Command("c", firebreak.Config{})
		page := dashboard.New(reg, dashboard.Options{Interval: 100 * time.Millisecond})
		s := httptest.NewServer(page)
		var work sync.WaitGroup
		for range 4 {
			work.Go(func() {
				resp, err := s.Client().Get(s.URL + "/stream")
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			})
		}
		work.Go(page.Close)
		work.Go(func() { _ = reg.Shutdown(t.Context()) })
		work.Wait()
		s.Close()
	}
}

func FuzzLabel(f *testing.F) {
	f.Add("users.get", "users.put")
	f.Add("\xff", "\xfe")
	f.Add("", "\ufffd")
	f.Add("\xff", dashboard.Label("\xff"))
	f.Add(strings.Repeat("x", 1001), dashboard.Label(strings.Repeat("x", 1001)))
	f.Fuzz(func(t *testing.T, a, b string) {
		la, lb := dashboard.Label(a), dashboard.Label(b)
		require.True(t, utf8.ValidString(la))
		require.LessOrEqual(t, len(la), 1000+len("…#")+32)
		require.Equal(t, a == b, la == lb, "%q and %q are both %q", a, b, la)
		data, err := json.Marshal(la)
		require.NoError(t, err)
		var back string
		require.NoError(t, json.Unmarshal(data, &back))
		require.Equal(t, la, back)
	})
}

// The worst case of a tick: every command has changed.
func BenchmarkPicture(b *testing.B) {
	for _, n := range []int{200, 1000} {
		b.Run(fmt.Sprintf("commands=%d", n), func(b *testing.B) {
			reg := newRegistry(b)
			for i := range n {
				cmd := reg.Dependency(fmt.Sprintf("dependency-%03d", i/5), firebreak.Config{}).Command(fmt.Sprintf("dependency-%03d.command-%d", i/5, i%5), firebreak.Config{})
				call(cmd, 30, succeed)
				call(cmd, 2, fail)
			}
			page := newPage(b, reg, dashboard.Options{})
			b.ReportAllocs()
			for b.Loop() {
				dashboard.Take(page)
			}
			whole, change := dashboard.Sizes(page)
			b.ReportMetric(float64(whole), "whole-B")
			b.ReportMetric(float64(change), "idle-B")
		})
	}
}
