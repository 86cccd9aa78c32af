package firebreakhttp_test

import (
	"context"
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
	"github.com/firebreak-go/firebreak/firebreakhttp"
)

// asked asks a handler, and returns status and body.
func asked(t *testing.T, h http.Handler) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	return w.Code, strings.TrimSuffix(w.Body.String(), "\n")
}

func failOnce(t *testing.T, cmd *firebreak.Command, err error) {
	t.Helper()
	require.Error(t, cmd.Run(t.Context(), func(context.Context) error { return err }))
}

// The JSON, to the letter, from closed to open, half-open and closed again.
func TestHealth_OfACircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{ConsecutiveFailures: 2, SleepWindow: 5 * time.Second})
		stock := reg.Command("stock", firebreak.Config{})
		reg.Command("users", firebreak.Config{})
		health, ready := firebreakhttp.Health(reg), firebreakhttp.Ready(reg, stock)
		require200 := func(h http.Handler, want string) {
			t.Helper()
			code, got := asked(t, h)
			require.Equal(t, 200, code)
			require.Equal(t, want, got)
		}
		require200(health, `{"status":"ok"}`)
		require200(ready, `{"status":"ok"}`)

		require.NoError(t, stock.Run(t.Context(), func(context.Context) error { return nil }))
		failOnce(t, stock, errBoom)
		require200(health, `{"status":"ok"}`)
		time.Sleep(time.Second)
		failOnce(t, stock, &firebreakhttp.StatusError{StatusCode: 503})
		require.ErrorIs(t, stock.Run(t.Context(), func(context.Context) error { return nil }), firebreak.ErrOpen)

		commands := func(state string, refused int) string {
			return fmt.Sprintf(`"commands":[{"command":"stock","dependency":"stock","state":%q,"mode":"auto",`+
				`"evidence":{"rule":"consecutive failures","lastError":"503 Service Unavailable",`+
				`"at":"2000-01-01T00:00:01Z","nextProbe":"2000-01-01T00:00:06Z","calls":3,"failures":2,"slow":0,"refused":%d}}]}`, state, refused)
		}
		unready := func() {
			t.Helper()
			code, got := asked(t, ready)
			require.Equal(t, 503, code)
			require.Equal(t, `{"status":"unready",`+commands("open", 1), got)
		}
		require200(health, `{"status":"degraded",`+commands("open", 1))
		unready()

		time.Sleep(5*time.Second - tick)
		unready()
		time.Sleep(tick) // a request would be let through, and only a request can tell
		require200(ready, `{"status":"ok"}`)
		require200(health, `{"status":"degraded",`+commands("open", 1))

		probe, err := stock.Begin(t.Context())
		require.NoError(t, err)
		require200(health, `{"status":"degraded",`+commands("half_open", 1))
		require200(ready, `{"status":"ok"}`)
		require.NoError(t, probe.Settle(nil))
		probe.End()
		require200(health, `{"status":"ok"}`)
		require200(ready, `{"status":"ok"}`)
	})
}

// What somebody has set by hand is listed, and a forced circuit says whose doing it is
// and nothing of an outage of long ago.
func TestHealth_OfModes(t *testing.T) {
	until := time.Date(2000, 1, 1, 1, 0, 0, 0, time.FixedZone("elsewhere", 3600)).Add(time.Hour)
	far := time.Date(12_000, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name     string
		config   firebreak.Mode
		override firebreak.Override
		trips    bool
		status   string
		ready    bool
		lists    string // "" if it is as usual
	}{
		{name: "as usual", status: "ok", ready: true},
		{name: "tripped", trips: true, status: "degraded", lists: `"state":"open","mode":"auto","evidence":E`},
		{name: "forced open", override: firebreak.Override{Mode: firebreak.ForceOpen, Reason: "drill", Author: "ops", Until: until}, status: "degraded",
			lists: `"state":"open","mode":"force_open","override":{"reason":"drill","author":"ops","until":"2000-01-01T01:00:00Z"}`},
		{name: "forced open by config", config: firebreak.ForceOpen, status: "degraded", lists: `"state":"open","mode":"force_open"`},
		{name: "forced open once tripped", trips: true, override: firebreak.Override{Mode: firebreak.ForceOpen}, status: "degraded",
			lists: `"state":"open","mode":"force_open","override":{}`},
		{name: "forced open for ever", override: firebreak.Override{Mode: firebreak.ForceOpen, Until: far}, status: "degraded",
			lists: `"state":"open","mode":"force_open","override":{}`},
		{name: "forced closed", trips: true, override: firebreak.Override{Mode: firebreak.ForceClosed}, status: "ok", ready: true,
			lists: `"state":"closed","mode":"force_closed","override":{}`},
		{name: "forced closed by config", config: firebreak.ForceClosed, trips: true, status: "ok", ready: true, lists: `"state":"closed","mode":"force_closed"`},
		{name: "injecting", override: firebreak.Override{Inject: func(context.Context) error { return nil }}, status: "ok", ready: true,
			lists: `"state":"closed","mode":"auto","override":{}`},
		{name: "a note", override: firebreak.Override{Reason: "look here"}, status: "ok", ready: true,
			lists: `"state":"closed","mode":"auto","override":{"reason":"look here"}`},
		{name: "signed", override: firebreak.Override{Author: "ops"}, status: "ok", ready: true,
			lists: `"state":"closed","mode":"auto","override":{"author":"ops"}`},
		{name: "for an hour", override: firebreak.Override{Until: until}, status: "ok", ready: true,
			lists: `"state":"closed","mode":"auto","override":{"until":"2000-01-01T01:00:00Z"}`},
		// In the shadow nothing is refused: it used to be unready.
		{name: "shadow, tripped", config: firebreak.Shadow, trips: true, status: "degraded", ready: true, lists: `"state":"open","mode":"shadow","evidence":E`},
		{name: "shadow", config: firebreak.Shadow, status: "ok", ready: true, lists: `"state":"closed","mode":"shadow"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newRegistry(t, firebreak.Config{ConsecutiveFailures: 1})
				cmd := reg.Command("stock", firebreak.Config{Mode: row.config})
				if row.trips {
					failOnce(t, cmd, errBoom)
				}
				cmd.Override(row.override)
				evidence := `{"rule":"consecutive failures","lastError":"boom","at":"2000-01-01T00:00:00Z",` +
					`"nextProbe":"2000-01-01T00:00:05Z","calls":1,"failures":1,"slow":0,"refused":0}`
				list := ""
				if row.lists != "" {
					list = `,"commands":[{"command":"stock","dependency":"stock",` + strings.Replace(row.lists, "evidence\":E", `evidence":`+evidence, 1) + `}]`
				}
				code, got := asked(t, firebreakhttp.Health(reg))
				require.Equal(t, 200, code)
				require.Equal(t, `{"status":"`+row.status+`"`+list+`}`, got)

				code, got = asked(t, firebreakhttp.Ready(reg, cmd))
				if row.ready {
					require.Equal(t, 200, code)
					require.Equal(t, `{"status":"ok"}`, got)
					// It is ready, and the next call is not refused.
					require.NotErrorIs(t, cmd.Run(t.Context(), func(context.Context) error { return nil }), firebreak.ErrOpen)
				} else {
					require.Equal(t, 503, code)
					require.Equal(t, `{"status":"unready"`+list+`}`, got)
					require.ErrorIs(t, cmd.Run(t.Context(), func(context.Context) error { return nil }), firebreak.ErrOpen)
				}
			})
		})
	}
}

// An override that is over is gone, from the very moment, though no call has come.
func TestHealth_AfterAnOverride(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("stock", firebreak.Config{})
		cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen, Until: time.Now().Add(time.Hour)})
		time.Sleep(time.Hour - tick)
		code, _ := asked(t, firebreakhttp.Ready(reg, cmd))
		require.Equal(t, 503, code)
		time.Sleep(tick)
		for _, h := range []http.Handler{firebreakhttp.Ready(reg, cmd), firebreakhttp.Health(reg)} {
			code, got := asked(t, h)
			require.Equal(t, 200, code)
			require.Equal(t, `{"status":"ok"}`, got)
		}
	})
}

// Only the required are asked about, in their order; what is not required is none of
// its business.
func TestReady_AsksTheRequired(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	var cmds []*firebreak.Command
	for _, name := range []string{"c", "a", "b"} {
		cmds = append(cmds, reg.Command(name, firebreak.Config{}))
		cmds[len(cmds)-1].Override(firebreak.Override{Mode: firebreak.ForceOpen})
	}
	code, got := asked(t, firebreakhttp.Ready(reg))
	require.Equal(t, 200, code)
	require.Equal(t, `{"status":"ok"}`, got)
	code, got = asked(t, firebreakhttp.Ready(reg, cmds[0], cmds[1]))
	require.Equal(t, 503, code)
	require.Regexp(t, `"command":"c".*"command":"a"`, got)
	require.NotContains(t, got, `"command":"b"`)
	cmds[0].Override(firebreak.Override{})
	_, got = asked(t, firebreakhttp.Ready(reg, cmds[0], cmds[1]))
	require.NotContains(t, got, `"command":"c"`)
}

// A registry that is shut down takes no more requests, and is still alive while what
// runs comes to its end.
func TestHealth_Draining(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	cmd := reg.Command("stock", firebreak.Config{})
	call, err := cmd.Begin(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, reg.Shutdown(ctx), context.Canceled)
	for range 2 {
		code, got := asked(t, firebreakhttp.Health(reg))
		require.Equal(t, 200, code)
		require.Equal(t, `{"status":"draining"}`, got)
		code, got = asked(t, firebreakhttp.Ready(reg, cmd))
		require.Equal(t, 503, code)
		require.Equal(t, `{"status":"draining"}`, got)
		require.NoError(t, call.Settle(nil))
		call.End()
	}
}

// Names and errors are data, whatever is in them: JSON that reads back, and nothing
// that a browser would take for its own.
func TestHealth_HostileText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hostile = "<script>alert('&')</script>\"\\\n\u2028"
		reg := newRegistry(t, firebreak.Config{})
		keyed := reg.Dependency("web", firebreak.Config{}).Keyed("hosts", 8, firebreak.Config{ConsecutiveFailures: 1})
		cmd := keyed.Command(hostile)
		failOnce(t, cmd, errors.New(hostile+"\xff"))
		keyed.Command("b").Override(firebreak.Override{Reason: hostile, Author: hostile})
		for _, h := range []http.Handler{firebreakhttp.Health(reg), firebreakhttp.Ready(reg, cmd)} {
			_, got := asked(t, h)
			require.NotContains(t, got, "<")
			require.NotContains(t, got, "\n")
			var back struct {
				Commands []struct {
					Command, Dependency string
					Override            struct{ Reason, Author string }
					Evidence            struct{ LastError string }
				}
			}
			require.NoError(t, json.Unmarshal([]byte(got), &back))
			for _, c := range back.Commands {
				require.Equal(t, "web", c.Dependency)
				switch c.Command {
				case "hosts[" + hostile + "]":
					require.Equal(t, hostile+"\ufffd", c.Evidence.LastError)
				case "hosts[b]":
					require.Equal(t, hostile, c.Override.Reason)
					require.Equal(t, hostile, c.Override.Author)
				default:
					t.Errorf("%q", c.Command)
				}
			}
			require.NotEmpty(t, back.Commands)
		}
	})
}

// They may be asked while everything is in use.
func TestHealth_BesideCalls(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{ConsecutiveFailures: 2, SleepWindow: time.Millisecond})
	cmd := reg.Command("stock", firebreak.Config{})
	health, ready := firebreakhttp.Health(reg), firebreakhttp.Ready(reg, cmd)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 500 {
				cmd.Run(context.Background(), func(context.Context) error {
					if (i+j)%3 == 0 {
						return nil
					}
					return errBoom
				})
				for _, h := range []http.Handler{health, ready} {
					w := httptest.NewRecorder()
					h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
					if !json.Valid(w.Body.Bytes()) {
						t.Errorf("%s", w.Body)
					}
				}
			}
		})
	}
	all.Wait()
}
