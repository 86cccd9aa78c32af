package firebreakhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakhttp"
)

// A request's body is closed once, by whoever has the request: Base, or else us.
func TestTransport_ClosesTheRequestsBody(t *testing.T) {
	boom := func(req *http.Request) (*http.Response, error) { return nil, errBoom }
	obedient := func(req *http.Request) (*http.Response, error) {
		<-req.Context().Done()
		return nil, context.Cause(req.Context())
	}
	for _, row := range []struct {
		name    string
		base    baseFunc // default: it answers
		config  firebreak.Config
		prepare func(t *testing.T, tr *firebreakhttp.Transport, req *http.Request) *http.Request
		asked   bool // Base was
		answers bool
	}{
		{name: "answered", asked: true, answers: true},
		{name: "Base fails", base: boom, asked: true},
		{name: "timed out", base: obedient, asked: true},
		{name: "short-circuited", prepare: func(_ *testing.T, tr *firebreakhttp.Transport, req *http.Request) *http.Request {
			tr.Command.Override(firebreak.Override{Mode: firebreak.ForceOpen})
			return req
		}},
		{name: "rejected", config: firebreak.Config{MaxConcurrent: 1}, prepare: occupy},
		{name: "rejected after waiting", config: firebreak.Config{MaxConcurrent: 1, QueueSize: 1, MaxWait: timeout / 2}, prepare: occupy},
		{name: "canceled while waiting", config: firebreak.Config{MaxConcurrent: 1, QueueSize: 1, MaxWait: timeout / 2},
			prepare: func(t *testing.T, tr *firebreakhttp.Transport, req *http.Request) *http.Request {
				ctx, cancel := context.WithTimeout(req.Context(), timeout/4)
				t.Cleanup(cancel)
				return occupy(t, tr, req).WithContext(ctx)
			}},
		{name: "gave up", prepare: func(_ *testing.T, _ *firebreakhttp.Transport, req *http.Request) *http.Request {
			ctx, cancel := context.WithCancel(req.Context())
			cancel()
			return req.WithContext(ctx)
		}},
		{name: "injected", prepare: inject(errBoom)},
		{name: "injected timeout", prepare: inject(firebreak.ErrTimeout)},
		{name: "injected rejection", prepare: inject(firebreak.ErrRejected)},
		{name: "injected nothing", prepare: inject(nil), asked: true, answers: true},
		{name: "no URL", prepare: func(_ *testing.T, _ *firebreakhttp.Transport, req *http.Request) *http.Request {
			req.URL = nil
			return req
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, streamed := range []bool{false, true} {
				inBubbles(t, func(t *testing.T, g guard) {
					asked := false
					base := answering(200, "text")
					if row.base != nil {
						base = closing(row.base)
					}
					row.config.Timeout = timeout
					if g.pool {
						row.config.MaxWait = 0
					} else if row.config.MaxWait == 0 {
						row.config.QueueSize = 0
					}
					tr, _ := g.make(t, baseFunc(func(req *http.Request) (*http.Response, error) { asked = true; return base(req) }), row.config)
					body := &watched{Reader: strings.NewReader("body")}
					req := newRequest(t, t.Context(), "http://a.example", body)
					if !streamed {
						req.GetBody = func() (io.ReadCloser, error) { return nil, errBoom }
					}
					if row.prepare != nil {
						req = row.prepare(t, tr, req)
					}
					resp, err := tr.RoundTrip(req)
					require.Equal(t, row.answers, err == nil, "%v", err)
					if row.answers {
						require.Equal(t, "text", read(t, resp))
					} else {
						require.Nil(t, resp)
					}
					synctest.Wait()
					require.Equal(t, row.asked, asked)
					require.EqualValues(t, 1, body.closes.Load())
				})
			}
		})
	}
}

// occupy takes the only permit for the rest of the test.
func occupy(t *testing.T, tr *firebreakhttp.Transport, req *http.Request) *http.Request {
	t.Helper()
	call, err := tr.Command.Begin(context.Background())
	require.NoError(t, err)
	require.NoError(t, call.Settle(nil))
	t.Cleanup(call.End)
	return req
}

func inject(err error) func(*testing.T, *firebreakhttp.Transport, *http.Request) *http.Request {
	return func(_ *testing.T, tr *firebreakhttp.Transport, req *http.Request) *http.Request {
		tr.Command.Override(firebreak.Override{Inject: func(context.Context) error { return err }})
		return req
	}
}

// thrown runs f in a goroutine of its own and tells how it left it: by a panic with
// a value, by Goexit, or not at all.
func thrown(f func()) (value any, exited bool) {
	done := make(chan bool)
	go func() {
		returned := false
		defer func() {
			value = recover()
			exited = !returned && value == nil
			close(done)
		}()
		f()
		returned = true
	}()
	<-done
	return value, exited
}

// What is thrown in Base or Check goes on up, or is an error where another goroutine
// or RecoverPanics has caught it. Either way the permit and the response are let go.
func TestTransport_Panics(t *testing.T) {
	for _, where := range []string{"Base", "Check", "Check, which had read the body", "Classify"} {
		for _, exits := range []bool{false, true} {
			for _, recovers := range []firebreak.Switch{0, firebreak.On} {
				t.Run(fmt.Sprintf("%s, Goexit %t, RecoverPanics %d", where, exits, recovers), func(t *testing.T) {
					inBubbles(t, func(t *testing.T, g guard) { throw(t, g, where, exits, recovers) })
				})
			}
		}
	}
}

func throw(t *testing.T, g guard, where string, exits bool, recovers firebreak.Switch) {
	t.Helper()
	bang := func() {
		if exits {
			runtime.Goexit()
		}
		panic(errBoom)
	}
	body := &watched{Reader: strings.NewReader("text")}
	var within context.Context
	tr, cmd := g.make(t, baseFunc(func(req *http.Request) (*http.Response, error) {
		within = req.Context()
		if where == "Base" {
			bang()
		}
		resp := response(req, 200, "")
		resp.Body = body
		return resp, nil
	}), firebreak.Config{Timeout: timeout, RecoverPanics: recovers, Classify: func(error) firebreak.Verdict { bang(); return 0 }})
	tr.Check = func(resp *http.Response) error {
		switch where {
		case "Classify":
			return errBoom
		case "Check":
		default:
			io.ReadAll(resp.Body) //nolint:errcheck // it is in memory
		}
		bang()
		return nil
	}
	var resp *http.Response
	var err error
	value, exited := thrown(func() {
		resp, err = tr.RoundTrip(newRequest(t, context.Background(), "http://a.example", nil))
	})
	synctest.Wait()
	// RecoverPanics is Do's, and Settle's for Classify.
	caught := g.onOther() || recovers == firebreak.On && !exits && (!g.hold || where == "Classify")
	switch {
	case !caught:
		require.Equal(t, exits, exited)
		if !exits {
			require.Equal(t, errBoom, value)
		}
	case where == "Classify": // a response is a response
		require.NoError(t, err)
		require.Equal(t, "text", read(t, resp))
	default:
		require.False(t, exited)
		require.Nil(t, value)
		require.Nil(t, resp)
		_, ok := errors.AsType[*firebreak.PanicError](err)
		require.True(t, ok, "%v", err)
	}
	require.Equal(t, one("Panic"), outcomes(cmd))
	require.Zero(t, cmd.Snapshot().Bulkhead.InFlight)
	require.Error(t, within.Err())
	if where != "Base" {
		require.EqualValues(t, 1, body.closes.Load())
	}
	require.False(t, body.abused.Load())
}

// A Base that breaks the contract is told so by an error that is its failure.
func TestTransport_BaseAgainstTheRules(t *testing.T) {
	inBubbles(t, func(t *testing.T, g guard) {
		tr, cmd := g.make(t, baseFunc(func(*http.Request) (*http.Response, error) { return nil, nil }), firebreak.Config{})
		err := requireRefused(t, tr, newRequest(t, t.Context(), "http://a.example", nil))
		require.ErrorContains(t, err, "Base")
		require.Equal(t, one("Failure"), outcomes(cmd))
	})
	inBubbles(t, func(t *testing.T, g guard) {
		body := &watched{Reader: strings.NewReader("text")}
		for _, with := range []io.ReadCloser{nil, body} {
			tr, cmd := g.make(t, baseFunc(func(req *http.Request) (*http.Response, error) {
				resp := response(req, 200, "")
				resp.Body = with
				return resp, errBoom
			}), firebreak.Config{})
			err := requireRefused(t, tr, newRequest(t, t.Context(), "http://a.example", nil))
			require.ErrorIs(t, err, errBoom)
			require.Equal(t, one("Failure"), outcomes(cmd))
		}
		require.EqualValues(t, 1, body.closes.Load())
	})
	inBubbles(t, func(t *testing.T, g guard) { // a nil body is an empty one, also where a fallback takes its place
		tr, _ := g.make(t, baseFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusServiceUnavailable}, nil
		}), firebreak.Config{Mode: firebreak.ForceClosed})
		status, text := get(t, tr, "http://a.example")
		require.Equal(t, 503, status)
		require.Empty(t, text)
		if !g.hold {
			tr.Fallback = func(req *http.Request, _ error) (*http.Response, error) { return response(req, 200, "instead"), nil }
			_, text = get(t, tr, "http://a.example")
			require.Equal(t, "instead", text)
		}
	})
}

// withFallback is a Transport with a fallback, where there can be one.
func withFallback(t *testing.T, g guard, base http.RoundTripper, c firebreak.Config, fallback func(*http.Request, error) (*http.Response, error)) (*firebreakhttp.Transport, *firebreak.Command) {
	t.Helper()
	tr, cmd := g.make(t, base, c)
	tr.Fallback = fallback
	return tr, cmd
}

// inEachFallback runs a test for each guard that goes with a fallback.
func inEachFallback(t *testing.T, test func(t *testing.T, g guard)) {
	t.Helper()
	inBubbles(t, func(t *testing.T, g guard) {
		if g.fallback {
			test(t, g)
		}
	})
}

// A fallback is asked about a request that failed or was refused, and why, and about
// no other.
func TestTransport_FallbackAnswers(t *testing.T) {
	inEachFallback(t, func(t *testing.T, g guard) {
		var status int
		var fails error
		var cause error
		var about *http.Request
		broken := &watched{Reader: strings.NewReader("broken")}
		tr, cmd := withFallback(t, g, baseFunc(func(req *http.Request) (*http.Response, error) {
			resp := response(req, status, "")
			resp.Body = broken
			if fails != nil {
				return nil, fails
			}
			return resp, nil
		}), firebreak.Config{Mode: firebreak.ForceClosed}, func(req *http.Request, err error) (*http.Response, error) {
			cause, about = err, req
			return &http.Response{StatusCode: http.StatusNonAuthoritativeInfo}, nil
		})
		ask := func() *http.Response {
			cause, about = nil, nil
			req := newRequest(t, t.Context(), "http://a.example", nil)
			resp, err := tr.RoundTrip(req)
			require.NoError(t, err)
			require.Same(t, req, resp.Request)
			require.NotNil(t, resp.Body)
			read(t, resp)
			if about != nil {
				require.Same(t, req, about)
			}
			return resp
		}
		status = 404
		require.Equal(t, 404, ask().StatusCode)
		require.NoError(t, cause)

		status = 503
		closes := broken.closes.Load()
		require.Equal(t, 203, ask().StatusCode)
		failed, ok := errors.AsType[*firebreakhttp.StatusError](cause)
		require.True(t, ok)
		require.Equal(t, 503, failed.StatusCode)
		require.Equal(t, closes+1, broken.closes.Load())

		fails = errBoom
		require.Equal(t, 203, ask().StatusCode)
		require.True(t, cause == errBoom)

		cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		require.Equal(t, 203, ask().StatusCode)
		require.ErrorIs(t, cause, firebreak.ErrOpen)
		require.Equal(t, map[string]uint64{"Expected": 1, "Failure": 2, "ShortCircuited": 1, "FallbackSuccess": 3}, counts(cmd))
	})
}

// A fallback that has no answer leaves what there was: the response, whole, or the
// call's error with the fallback's.
func TestTransport_FallbackFails(t *testing.T) {
	for _, how := range []string{"error", "nil", "no room", "off"} {
		t.Run(how, func(t *testing.T) {
			inEachFallback(t, func(t *testing.T, g guard) {
				c := firebreak.Config{Mode: firebreak.ForceClosed}
				entered, leave := make(chan bool), make(chan bool)
				fallback := func(*http.Request, error) (*http.Response, error) { return nil, errPass }
				want := errPass
				switch how {
				case "nil":
					fallback = func(*http.Request, error) (*http.Response, error) { return nil, nil }
					want = nil
				case "no room":
					c.MaxFallbacks = 1
					want = firebreak.ErrFallbackRejected
				case "off":
					c.MaxFallbacks = firebreak.Off
					want = nil
				}
				var fails error
				tr, cmd := withFallback(t, g, baseFunc(func(req *http.Request) (*http.Response, error) {
					if fails != nil {
						return nil, fails
					}
					return response(req, 503, "the server's own words"), nil
				}), c, fallback)
				if how == "no room" {
					go cmd.Run(context.Background(), func(context.Context) error { return errBoom }, func(_ context.Context, cause error) error {
						close(entered)
						<-leave
						return cause
					})
					<-entered
				}
				status, text := get(t, tr, "http://a.example")
				require.Equal(t, 503, status)
				require.Equal(t, "the server's own words", text)

				fails = errBoom
				err := requireRefused(t, tr, newRequest(t, t.Context(), "http://a.example", nil))
				require.ErrorIs(t, err, errBoom)
				if want != nil {
					require.ErrorIs(t, err, want)
				}
				if how == "nil" {
					require.ErrorContains(t, err, "Fallback")
				}
				close(leave)
				synctest.Wait()
			})
		})
	}
}

// A fallback that panics goes on up, and the response is let go.
func TestTransport_FallbackPanics(t *testing.T) {
	inEachFallback(t, func(t *testing.T, g guard) {
		for _, exits := range []bool{false, true} {
			body := &watched{Reader: strings.NewReader("text")}
			tr, cmd := withFallback(t, g, baseFunc(func(req *http.Request) (*http.Response, error) {
				resp := response(req, 503, "")
				resp.Body = body
				return resp, nil
			}), firebreak.Config{RecoverPanics: firebreak.On}, func(*http.Request, error) (*http.Response, error) {
				if exits {
					runtime.Goexit()
				}
				panic(errPass)
			})
			value, exited := thrown(func() {
				_, err := tr.RoundTrip(newRequest(t, context.Background(), "http://a.example", nil)) //nolint:bodyclose // there is none
				require.NoError(t, err, "it returned")
			})
			require.Equal(t, exits, exited)
			if !exits {
				require.Equal(t, errPass, value)
			}
			require.EqualValues(t, 1, body.closes.Load())
			require.Equal(t, map[string]uint64{"Failure": 1, "FallbackFailure": 1}, counts(cmd))
		}
	})
}

// Classify is asked where Check, or Base, says nothing itself.
func TestTransport_Classify(t *testing.T) {
	inBubbles(t, func(t *testing.T, g guard) {
		errGone, errMine := errors.New("gone"), errors.New("mine")
		var status int
		var fails, verdict error
		tr, cmd := g.make(t, baseFunc(func(req *http.Request) (*http.Response, error) {
			if fails != nil {
				return nil, fails
			}
			return response(req, status, ""), nil
		}), firebreak.Config{Mode: firebreak.ForceClosed, Classify: firebreak.ExpectErrors(errGone)})
		status = 503 // whatever its status, it is Check that judges
		tr.Check = func(*http.Response) error { return verdict }
		for _, row := range []struct {
			verdict error
			want    string
		}{
			{nil, "Success"},
			{errGone, "Expected"},
			{fmt.Errorf("wrapped: %w", errGone), "Expected"},
			{errMine, "Failure"},
			{firebreak.Mark(errGone, firebreak.Failure), "Failure"},
			{firebreak.Mark(errMine, firebreak.Expected), "Expected"},
			{firebreak.Mark(errMine, firebreak.Ignored), "Ignored"},
		} {
			before := outcomes(cmd)[row.want]
			verdict = row.verdict
			got, _ := get(t, tr, "http://a.example")
			require.Equal(t, 503, got)
			require.Equal(t, before+1, outcomes(cmd)[row.want], "%v", row.verdict)
		}
		before := outcomes(cmd)["Expected"]
		fails = errGone
		require.ErrorIs(t, requireRefused(t, tr, newRequest(t, t.Context(), "http://a.example", nil)), errGone)
		require.Equal(t, before+1, outcomes(cmd)["Expected"])

		// The default Check has marked its errors: Classify is not asked.
		tr.Check, fails, status = nil, nil, 404
		cmd2 := newRegistry(t, firebreak.Config{}).Command("strict", firebreak.Config{
			Mode:     firebreak.ForceClosed,
			Classify: func(error) firebreak.Verdict { panic("asked") },
		})
		tr.Command = cmd2
		get(t, tr, "http://a.example")
		status = 503
		get(t, tr, "http://a.example")
		require.Equal(t, map[string]uint64{"Expected": 1, "Failure": 1}, outcomes(cmd2))
	})
}

// A held permit is the body's: none beside it, until it ends.
func TestTransport_HoldPermitBoundsBodies(t *testing.T) {
	inBubbles(t, func(t *testing.T, g guard) {
		tr, cmd := g.make(t, answering(200, "text"), firebreak.Config{MaxConcurrent: 2})
		open := func() (*http.Response, error) {
			return tr.RoundTrip(newRequest(t, t.Context(), "http://a.example", nil))
		}
		first, err := open()
		require.NoError(t, err)
		second, err := open()
		require.NoError(t, err)
		third, err := open()
		if !g.hold {
			require.NoError(t, err)
			read(t, third)
			read(t, second)
			read(t, first)
			return
		}
		require.ErrorIs(t, err, firebreak.ErrRejected)
		require.NoError(t, first.Body.Close())
		require.NoError(t, first.Body.Close())
		require.Equal(t, 1, cmd.Snapshot().Bulkhead.InFlight, "a body closed twice gives back one permit")
		third, err = open()
		require.NoError(t, err)
		var closers sync.WaitGroup // reading and closing at once is allowed
		for _, resp := range []*http.Response{second, third} {
			closers.Go(func() { io.ReadAll(resp.Body) }) //nolint:errcheck // it may have been closed
			closers.Go(func() { resp.Body.Close() })
		}
		closers.Wait()
		require.Zero(t, cmd.Snapshot().Bulkhead.InFlight)
		require.Equal(t, map[string]uint64{"Success": 3, "Rejected": 1}, outcomes(cmd))
	})
}

// Each host has its own circuit, in whatever way its name is written.
func TestTransport_Hosts(t *testing.T) {
	for target, want := range map[string]string{
		"http://a.example":               "a.example",
		"http://A.Example":               "a.example",
		"http://a.example/":              "a.example",
		"http://user:word@a.example/x?y": "a.example",
		"http://a.example:":              "a.example",
		"http://a.example:80":            "a.example",
		"http://a.example:443":           "a.example:443",
		"http://a.example:8080":          "a.example:8080",
		"https://a.example":              "a.example",
		"https://A.EXAMPLE:443":          "a.example",
		"https://a.example:80":           "a.example:80",
		"http://a.example:0080":          "a.example:0080",
		"http://[::1]":                   "[::1]",
		"http://[::1]:80":                "[::1]",
		"http://[::80]":                  "[::80]",
		"http://[2001:DB8::443]:443":     "[2001:db8::443]:443",
		"https://[2001:DB8::443]:443":    "[2001:db8::443]",
		"https://[2001:db8::443]":        "[2001:db8::443]",
		"http://[fe80::1%25En0]:80":      "[fe80::1%en0]",
		"http://127.0.0.1:80":            "127.0.0.1",
		"http://xn--bcher-kva.example":   "xn--bcher-kva.example",
		"http://a.example.":              "a.example.",
		"http:///nowhere":                "",
		"unix:///run/a.sock":             "",
		"http://a.example80":             "a.example80",
		"https://a.example:8443/a:443":   "a.example:8443",
		"http://b\u00dccher.example":     "b\u00fccher.example",
		"http://b%C3%BCcher.example:80":  "b\u00fccher.example",
	} {
		reg := newRegistry(t, firebreak.Config{})
		keyed := reg.Dependency("web", firebreak.Config{}).Keyed("hosts", 8, firebreak.Config{})
		tr := &firebreakhttp.Transport{Keyed: keyed, Base: answering(200, "")}
		at, err := url.Parse(target)
		require.NoError(t, err)
		resp, err := tr.RoundTrip(&http.Request{Method: http.MethodGet, URL: at}) // by hand: http.NewRequest mends some
		require.NoError(t, err)
		read(t, resp)
		require.EqualValues(t, 1, keyed.Command(want).Snapshot().Total.Success, target)
		keys := 0
		for range reg.Commands() {
			keys++
		}
		require.Equal(t, 1, keys, target)
	}
}

// One host is down; the others are not.
func TestTransport_OneHostDown(t *testing.T) {
	inBubbles(t, func(t *testing.T, g guard) {
		c := firebreak.Config{}
		if g.pool {
			c.Isolation = firebreak.PoolIsolation
		}
		keyed := newRegistry(t, firebreak.Config{}).Dependency("web", c).Keyed("hosts", 8, firebreak.Config{ConsecutiveFailures: 1})
		tr, _ := g.make(t, baseFunc(func(req *http.Request) (*http.Response, error) {
			if req.URL.Host == "down.example" {
				return nil, errBoom
			}
			return response(req, 200, "up"), nil
		}), firebreak.Config{})
		tr.Command, tr.Keyed = nil, keyed
		down := func() error { return requireRefused(t, tr, newRequest(t, t.Context(), "http://down.example", nil)) }
		require.ErrorIs(t, down(), errBoom)
		err := down()
		require.ErrorIs(t, err, firebreak.ErrOpen)
		ours, ok := errors.AsType[*firebreak.Error](err)
		require.True(t, ok)
		require.Equal(t, "hosts[down.example]", ours.Command)
		_, text := get(t, tr, "http://up.example")
		require.Equal(t, "up", text)

		// A key of the user's own: here the first part of the path.
		tr.Key = func(req *http.Request) string { return strings.Split(req.URL.Path, "/")[1] }
		get(t, tr, "http://up.example/users/7")
		get(t, tr, "http://up.example/users/8")
		require.EqualValues(t, 2, keyed.Command("users").Snapshot().Total.Success)
	})
}

// A Key that panics goes on up, with the request's body closed.
func TestTransport_KeyPanics(t *testing.T) {
	keyed := newRegistry(t, firebreak.Config{}).Dependency("web", firebreak.Config{}).Keyed("hosts", 8, firebreak.Config{})
	tr := &firebreakhttp.Transport{Keyed: keyed, Base: answering(200, ""), Key: func(*http.Request) string { panic(errBoom) }}
	body := &watched{Reader: strings.NewReader("body")}
	value, _ := thrown(func() {
		tr.RoundTrip(newRequest(t, context.Background(), "http://a.example", body)) //nolint:bodyclose,errcheck // it panics
	})
	require.Equal(t, errBoom, value)
	require.EqualValues(t, 1, body.closes.Load())
}

// However many hosts there are, and whatever their names, the family is bounded and
// each request is counted.
func TestTransport_HostileHosts(t *testing.T) {
	const most, requests = 4, 2000
	reg := newRegistry(t, firebreak.Config{})
	keyed := reg.Dependency("web", firebreak.Config{}).Keyed("hosts", most, firebreak.Config{Timeout: patience})
	tr := &firebreakhttp.Transport{Keyed: keyed, Base: answering(200, "")}
	hosts := []string{"", "*", ":", "::", ":80", "[", "]", "[]:80", "a\nb", "a\x00b", "\xff\xfe", "<script>", `"`, "a b", strings.Repeat("a", 1<<20), "%00", "K.example"}
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := worker; i < requests; i += 8 {
				host := fmt.Sprintf("host-%d.example", i)
				if i < 20*len(hosts) {
					host = hosts[i%len(hosts)]
				}
				resp, err := tr.RoundTrip(&http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "http", Host: host}, Header: http.Header{}})
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
			}
		})
	}
	all.Wait()
	require.EqualValues(t, requests, keyed.Snapshot().Total.Calls())
	commands := 0
	for range reg.Commands() {
		commands++
	}
	require.LessOrEqual(t, commands, most+1, "and the one that is shared")
}

// What a Check learns after Base and before its caller: nothing of it is lost if the
// caller goes at the same moment.
func TestTransport_CallerGoesDuringCheck(t *testing.T) {
	inBubbles(t, func(t *testing.T, g guard) {
		for _, verdict := range []error{nil, errBoom, firebreak.Mark(errBoom, firebreak.Expected)} {
			body := &watched{Reader: strings.NewReader("text")}
			tr, cmd := g.make(t, baseFunc(func(req *http.Request) (*http.Response, error) {
				resp := response(req, 503, "")
				resp.Body = body
				return resp, nil
			}), firebreak.Config{Timeout: timeout})
			ctx, cancel := context.WithCancel(t.Context())
			tr.Check = func(*http.Response) error {
				cancel()
				time.Sleep(tick)
				return verdict
			}
			resp, err := tr.RoundTrip(newRequest(t, ctx, "http://a.example", nil))
			if verdict == nil && !g.onOther() { // it had succeeded
				require.NoError(t, err)
				resp.Body.Close()
			} else {
				require.Nil(t, resp)
				require.ErrorIs(t, err, context.Canceled)
			}
			time.Sleep(2 * tick) // till Check has come home
			require.EqualValues(t, 1, body.closes.Load())
			require.EqualValues(t, 1, cmd.Snapshot().Total.Calls())
			require.Zero(t, cmd.Snapshot().ErrorPercentage)
		}
	})
}

// A caller that goes when the verdict is out changes nothing about it: it gets the
// response that there is.
func TestTransport_CallerGoesAfterTheVerdict(t *testing.T) {
	inBubbles(t, func(t *testing.T, g guard) {
		reg := newRegistry(t, firebreak.Config{})
		tr, _ := g.make(t, answering(503, "text"), firebreak.Config{})
		c := firebreak.Config{}
		if g.pool {
			c.Isolation = firebreak.PoolIsolation
		}
		tr.Command = reg.Command("watched", c)
		ctx, cancel := context.WithCancel(t.Context())
		stop := reg.Observe(firebreak.Observer{Call: func(context.Context, firebreak.CallEvent) { cancel() }})
		defer stop()
		resp, err := tr.RoundTrip(newRequest(t, ctx, "http://a.example", nil))
		require.NoError(t, err)
		require.Equal(t, 503, resp.StatusCode)
		require.Error(t, ctx.Err())
		require.Equal(t, "text", read(t, resp))
		require.Equal(t, one("Failure"), outcomes(tr.Command))
	})
}

// A worker that comes to a request whose caller has left leaves it alone.
func TestTransport_CallerLeftBeforeBase(t *testing.T) {
	inBubbles(t, func(t *testing.T, g guard) {
		if !g.onOther() {
			return
		}
		release := make(chan bool)
		tr, cmd := g.make(t, baseFunc(func(*http.Request) (*http.Response, error) {
			t.Error("Base was asked")
			return nil, errBoom
		}), firebreak.Config{Timeout: timeout})
		cmd.Override(firebreak.Override{Inject: func(context.Context) error { <-release; return nil }})
		body := &watched{Reader: strings.NewReader("body")}
		err := requireRefused(t, tr, newRequest(t, t.Context(), "http://a.example", body))
		require.ErrorIs(t, err, firebreak.ErrTimeout)
		require.EqualValues(t, 1, body.closes.Load())
		close(release)
		synctest.Wait()
		require.EqualValues(t, 1, body.closes.Load())
		require.Equal(t, one("Timeout"), outcomes(cmd))
	})
}

// Whose time was over is known to Base, and its own error at the caller's deadline
// comes home as it is.
func TestTransport_BaseKnowsWhyItsContextEnds(t *testing.T) {
	inBubbles(t, func(t *testing.T, g guard) {
		var cause error
		tr, _ := g.make(t, baseFunc(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			cause = context.Cause(req.Context())
			return nil, fmt.Errorf("dialing: %w", cause)
		}), firebreak.Config{Timeout: timeout})
		requireCause := func(ctx context.Context, want error) error {
			t.Helper()
			err := requireRefused(t, tr, newRequest(t, ctx, "http://a.example", nil))
			synctest.Wait()
			if !g.onOther() { // there its caller has left, and that is all that there is to know
				require.ErrorIs(t, cause, want)
			}
			return err
		}
		require.ErrorIs(t, requireCause(t.Context(), context.DeadlineExceeded), firebreak.ErrTimeout)
		for _, row := range []struct {
			ctx  func() (context.Context, context.CancelFunc)
			want error
		}{
			{func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), timeout/2) }, context.DeadlineExceeded},
			{func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(timeout/2, cancel)
				return ctx, cancel
			}, context.Canceled},
		} {
			ctx, cancel := row.ctx()
			err := requireCause(ctx, row.want)
			cancel()
			require.ErrorIs(t, err, row.want)
			if !g.onOther() {
				require.EqualError(t, err, "dialing: "+row.want.Error())
			}
		}
	})
}

// Only what is the reader's own error is its fault; and a body that can be had again
// is handed on as it is, as http.Transport sends one that lies in memory at once.
func TestTransport_Uploads(t *testing.T) {
	inEachGuard(t, func(t *testing.T, g guard) {
		var sent io.ReadCloser
		tr, cmd := g.make(t, closing(func(req *http.Request) (*http.Response, error) {
			sent = req.Body
			return nil, errBoom
		}), firebreak.Config{Mode: firebreak.ForceClosed})
		for i, body := range []io.Reader{
			nil,
			http.NoBody,
			strings.NewReader("text"),
			io.MultiReader(strings.NewReader("text")),
			readerFunc(func([]byte) (int, error) { return 0, errPass }),
		} {
			req := newRequest(t, t.Context(), "http://a.example", body)
			require.ErrorIs(t, requireRefused(t, tr, req), errBoom)
			require.Equal(t, map[string]uint64{"Failure": uint64(i + 1)}, outcomes(cmd))
			require.Equal(t, i < 3, sent == req.Body)
		}
	})
}
