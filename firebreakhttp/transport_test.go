package firebreakhttp_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakhttp"
)

// Whatever the verdict on it, the caller gets the server's response as it is.
func TestTransport_DeliversEveryResponse(t *testing.T) {
	rows := []struct {
		method  string
		status  int
		body    string
		outcome string
	}{
		{http.MethodGet, 200, "the answer", "Success"},
		{http.MethodHead, 200, "", "Success"},
		{http.MethodPost, 201, "the answer", "Success"},
		{http.MethodGet, 204, "", "Success"},
		{http.MethodGet, 304, "", "Success"},
		{http.MethodGet, 399, "the answer", "Success"},
		{http.MethodGet, 400, "the answer", "Expected"},
		{http.MethodGet, 404, "the answer", "Expected"},
		{http.MethodHead, 404, "", "Expected"},
		{http.MethodGet, 428, "the answer", "Expected"},
		{http.MethodGet, 429, "the answer", "Failure"},
		{http.MethodGet, 430, "the answer", "Expected"},
		{http.MethodGet, 499, "the answer", "Expected"},
		{http.MethodGet, 500, "the answer", "Failure"},
		{http.MethodHead, 500, "", "Failure"},
		{http.MethodGet, 503, "the answer", "Failure"},
		{http.MethodGet, 999, "the answer", "Failure"},
	}
	onEachWire(t, func(t *testing.T, http2 bool) {
		s := onLoopback(t, http2, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) //nolint:errcheck // the client has its answer all the same
			w.Header().Set("X-Answer", r.Method)
			status, _ := strconv.Atoi(r.URL.Path[1:])
			w.WriteHeader(status)
			if status != http.StatusNoContent && status != http.StatusNotModified {
				io.WriteString(w, "the answer") //nolint:errcheck // likewise
			}
		})
		inEachGuard(t, func(t *testing.T, g guard) {
			tr, cmd := g.make(t, s.base, firebreak.Config{Mode: firebreak.ForceClosed})
			want := map[string]uint64{}
			for _, row := range rows {
				var body io.Reader
				if row.method == http.MethodPost {
					body = strings.NewReader("the question")
				}
				req, err := http.NewRequestWithContext(t.Context(), row.method, fmt.Sprintf("%s/%d", s.url, row.status), body)
				require.NoError(t, err)
				resp, err := tr.RoundTrip(req)
				require.NoError(t, err)
				require.Equal(t, row.status, resp.StatusCode)
				require.Equal(t, row.method, resp.Header.Get("X-Answer"))
				require.Same(t, req, resp.Request)
				require.Equal(t, row.body, read(t, resp))
				want[row.outcome]++
				require.Equal(t, want, outcomes(cmd), "%s %d", row.method, row.status)
				require.Zero(t, cmd.Snapshot().InFlight)
			}
			if g.fallback {
				require.Equal(t, want["Failure"], cmd.Snapshot().Total.FallbackFailure)
			}
		})
	})
}

// A failure is delivered, counted, and opens the circuit, whose refusal reaches
// through what http.Client wraps it in.
func TestTransport_OpensTheCircuit(t *testing.T) {
	onEachWire(t, func(t *testing.T, http2 bool) {
		var asked atomic.Int32
		s := onLoopback(t, http2, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			http.Error(w, "come back", http.StatusServiceUnavailable)
		})
		inEachGuard(t, func(t *testing.T, g guard) {
			asked.Store(0)
			tr, cmd := g.make(t, s.base, firebreak.Config{ConsecutiveFailures: 3, SleepWindow: time.Hour})
			client := &http.Client{Transport: tr}
			for range 3 {
				resp, err := client.Get(s.url)
				require.NoError(t, err)
				require.Equal(t, "come back\n", read(t, resp))
			}
			require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
			require.Equal(t, "503 Service Unavailable", cmd.Snapshot().Evidence.LastError)

			_, err := client.Get(s.url) //nolint:bodyclose // there is none
			require.ErrorIs(t, err, firebreak.ErrOpen)
			ours, ok := errors.AsType[*firebreak.Error](err)
			require.True(t, ok)
			require.Equal(t, "site", ours.Command)
			require.Positive(t, ours.RetryAfter())
			require.EqualValues(t, 3, asked.Load())
			if g.fallback {
				require.ErrorIs(t, err, errPass)
			}
		})
	})
}

// Refusals through http.Client, and what it says of them.
func TestTransport_RefusalsReachThroughTheClient(t *testing.T) {
	inEachGuard(t, func(t *testing.T, g guard) {
		refused := func(t *testing.T, tr http.RoundTripper) *url.Error {
			t.Helper()
			_, err := (&http.Client{Transport: tr}).Get("http://a.example/") //nolint:bodyclose // there is none
			outer, ok := errors.AsType[*url.Error](err)
			require.True(t, ok)
			require.False(t, outer.Timeout())
			return outer
		}
		tr, cmd := g.make(t, answering(200, ""), firebreak.Config{MaxConcurrent: 1})
		call, err := cmd.Begin(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, refused(t, tr), firebreak.ErrRejected)
		require.NoError(t, call.Settle(nil))
		call.End()

		cmd.Override(firebreak.Override{Inject: func(context.Context) error { return errBoom }})
		require.ErrorIs(t, refused(t, tr), errBoom)
		cmd.Override(firebreak.Override{Inject: func(context.Context) error { return firebreak.ErrOpen }})
		require.ErrorIs(t, refused(t, tr), firebreak.ErrOpen)
		cmd.Override(firebreak.Override{})

		reg := newRegistry(t, firebreak.Config{})
		tr.Command = reg.Command("other", firebreak.Config{})
		require.NoError(t, reg.Shutdown(t.Context()))
		require.ErrorIs(t, refused(t, tr), firebreak.ErrShutdown)
	})
}

func TestTransport_ConnectionRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := "http://" + l.Addr().String()
	require.NoError(t, l.Close())
	inEachGuard(t, func(t *testing.T, g guard) {
		base := &http.Transport{}
		tr, cmd := g.make(t, base, firebreak.Config{ConsecutiveFailures: 2, SleepWindow: time.Hour})
		client := &http.Client{Transport: tr}
		for range 2 {
			_, err := client.Get(address) //nolint:bodyclose // there is none
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
			_, ok := errors.AsType[*net.OpError](err)
			require.True(t, ok)
		}
		require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
		require.Contains(t, cmd.Snapshot().Evidence.LastError, "connection refused")
		_, err := client.Get(address) //nolint:bodyclose // there is none
		require.ErrorIs(t, err, firebreak.ErrOpen)
		require.Equal(t, map[string]uint64{"Failure": 2, "ShortCircuited": 1}, outcomes(cmd))
	})
}

// The caller's request is read, by others too while it is made, and never written.
func TestTransport_LeavesTheRequestAsItIs(t *testing.T) {
	onEachWire(t, func(t *testing.T, http2 bool) {
		sent := make(chan http.Header, 1)
		s := onLoopback(t, http2, func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) //nolint:errcheck // its length is not the matter
			sent <- r.Header
		})
		inEachGuard(t, func(t *testing.T, g guard) {
			for _, header := range []http.Header{nil, {}, {"X-Mine": {"a", "b"}, firebreakhttp.DeadlineHeader: {"7"}}} {
				for _, streamed := range []bool{false, true} {
					tr, _ := g.make(t, s.base, firebreak.Config{Timeout: patience})
					tr.DeadlineHeader = firebreakhttp.DeadlineHeader
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
					defer cancel()
					var reader io.Reader = strings.NewReader("body")
					if streamed {
						reader = &watched{Reader: reader}
					}
					req := newRequest(t, ctx, s.url, reader)
					req.Header = header
					before := req.Clone(ctx)
					body, getBody := req.Body, req.GetBody != nil

					stop, stopped := make(chan bool), make(chan bool)
					go func() {
						defer close(stopped)
						for {
							select {
							case <-stop:
								return
							default:
								_, _, _ = req.Header.Get("X-Mine"), req.Body, req.Context()
								runtime.Gosched()
							}
						}
					}()
					resp, err := tr.RoundTrip(req)
					require.NoError(t, err)
					require.Empty(t, read(t, resp))
					close(stop)
					<-stopped

					require.Equal(t, before.Header, req.Header)
					require.Equal(t, before.URL, req.URL)
					require.Equal(t, before.Method, req.Method)
					require.Equal(t, before.Host, req.Host)
					require.Equal(t, before.ContentLength, req.ContentLength)
					require.Equal(t, before.TransferEncoding, req.TransferEncoding)
					require.Equal(t, before.Trailer, req.Trailer)
					require.Equal(t, getBody, req.GetBody != nil)
					require.True(t, body == req.Body)
					require.True(t, ctx == req.Context())

					got := <-sent
					require.Equal(t, header["X-Mine"], got["X-Mine"])
					left, err := strconv.Atoi(got.Get(firebreakhttp.DeadlineHeader))
					require.NoError(t, err)
					require.InDelta(t, time.Hour.Milliseconds()-patience.Milliseconds()/2, left, float64(patience.Milliseconds()/2))
				}
			}
		})
	})
}

// What a response needs of its connection and its request goes on working.
func TestTransport_Bodies(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 1<<14) // more than the windows of HTTP/2
	onEachWire(t, func(t *testing.T, http2 bool) {
		s := onLoopback(t, http2, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/long":
				io.WriteString(w, long) //nolint:errcheck // the client sees it
			case "/chunked":
				for range 3 {
					io.WriteString(w, "chunk ") //nolint:errcheck // likewise
					w.(http.Flusher).Flush()
				}
			case "/gzip":
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				io.WriteString(z, long) //nolint:errcheck // likewise
				_ = z.Close()
			case "/trailers":
				w.Header().Set("Trailer", "X-Sum")
				io.WriteString(w, "text") //nolint:errcheck // likewise
				w.(http.Flusher).Flush()
				w.Header().Set("X-Sum", "42")
			case "/echo":
				if r.Trailer != nil {
					w.Header().Set("Trailer", "X-Sent")
				}
				io.Copy(w, r.Body) //nolint:errcheck // likewise
				w.Header().Set("X-Sent", r.Trailer.Get("X-Sent"))
			case "/empty":
				w.Header().Set("Content-Length", "0")
			}
		})
		inEachGuard(t, func(t *testing.T, g guard) {
			tr, cmd := g.make(t, s.base, firebreak.Config{Timeout: patience})
			do := func(path string, body io.Reader) *http.Response {
				req := newRequest(t, t.Context(), s.url+path, body)
				if body != nil {
					req.Header.Set("Expect", "100-continue")
					req.Trailer = http.Header{"X-Sent": {"mine"}}
					req.ContentLength = -1
				}
				resp, err := tr.RoundTrip(req)
				require.NoError(t, err)
				return resp
			}
			require.Equal(t, long, read(t, do("/long", nil)))
			require.Equal(t, "chunk chunk chunk ", read(t, do("/chunked", nil)))
			require.Empty(t, read(t, do("/empty", nil)))

			zipped := do("/gzip", nil)
			require.True(t, zipped.Uncompressed)
			require.Equal(t, long, read(t, zipped))

			with := do("/trailers", nil)
			require.Equal(t, http.Header{"X-Sum": nil}, with.Trailer)
			require.Equal(t, "text", read(t, with))
			require.Equal(t, "42", with.Trailer.Get("X-Sum"))

			for _, body := range []io.Reader{strings.NewReader(long), readerFunc(strings.NewReader(long).Read)} {
				echo := do("/echo", body)
				require.Equal(t, long, read(t, echo))
				require.Equal(t, "mine", echo.Trailer.Get("X-Sent"))
			}
			require.Equal(t, map[string]uint64{"Success": 7}, outcomes(cmd))
		})
	})
}

// Interim responses and the connection's news reach the caller's trace, through the
// context that is ours.
func TestTransport_KeepsTheTrace(t *testing.T) {
	s := onLoopback(t, false, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		io.Copy(io.Discard, r.Body) //nolint:errcheck // reading is what asks for it
	})
	inEachGuard(t, func(t *testing.T, g guard) {
		tr, _ := g.make(t, s.base, firebreak.Config{Timeout: patience})
		var interim []int
		var continued atomic.Bool
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { interim = append(interim, code); return nil },
			Got100Continue: func() { continued.Store(true) },
		})
		req := newRequest(t, ctx, s.url, strings.NewReader("body"))
		req.Header.Set("Expect", "100-continue")
		s.base.ExpectContinueTimeout = patience
		resp, err := tr.RoundTrip(req)
		require.NoError(t, err)
		require.Empty(t, read(t, resp))
		require.Contains(t, interim, http.StatusEarlyHints)
		require.Contains(t, interim, http.StatusContinue)
		require.True(t, continued.Load())
	})
}

// echoText answers with a text that the request has, /broken with a failure.
func echoText(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/broken" {
		w.WriteHeader(http.StatusInternalServerError)
	}
	io.WriteString(w, r.URL.Query().Get("text")) //nolint:errcheck // the client sees it
}

// reused makes a request and tells whether its connection had served another.
func reused(t *testing.T, rt http.RoundTripper, target string, closes bool) bool {
	t.Helper()
	var info httptrace.GotConnInfo
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { info = i }})
	resp, err := rt.RoundTrip(newRequest(t, ctx, target, nil))
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.NoError(t, err)
	if closes {
		require.NoError(t, resp.Body.Close())
	}
	return info.Reused
}

var longText = strings.Repeat("x", 100<<10) // more than anybody drains

// A connection serves the next request if the body was read.
func TestTransport_KeepsConnectionsAlive(t *testing.T) {
	s := onLoopback(t, false, echoText)
	inEachGuard(t, func(t *testing.T, g guard) {
		s.requireIdle(t, s.base)
		tr, _ := g.make(t, s.base, firebreak.Config{Mode: firebreak.ForceClosed, Timeout: patience})
		require.False(t, reused(t, tr, s.url+"/fine?text=first", true))
		for _, target := range []string{"/fine", "/fine?text=ok", "/broken", "/broken?text=sorry", "/broken?text=" + longText} {
			require.True(t, reused(t, tr, s.url+target, true), target[:min(len(target), 30)])
			require.True(t, reused(t, tr, s.url+target, false), "read to the end, not closed")
		}
		tr.Check = func(resp *http.Response) error { // reads all, and puts it back
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body = io.NopCloser(bytes.NewReader(text))
			return nil
		}
		require.True(t, reused(t, tr, s.url+"/fine?text=judged", true))
		require.True(t, reused(t, tr, s.url+"/fine?text=judged", true))
	})
	s.requireIdle(t, s.base)
}

// So it does where a fallback took the place of a short response. In a bubble, as the
// time for that is short, too.
func TestTransport_KeepsConnectionsOfFallbacks(t *testing.T) {
	inEachFallback(t, func(t *testing.T, g guard) {
		s := inPipes(t, false, echoText)
		tr, _ := withFallback(t, g, s.base, firebreak.Config{Mode: firebreak.ForceClosed}, func(req *http.Request, _ error) (*http.Response, error) {
			return response(req, 200, "from a cache"), nil
		})
		require.False(t, reused(t, tr, s.url+"/fine", true))
		for _, text := range []string{"", "sorry", strings.Repeat("x", 2<<10)} {
			require.True(t, reused(t, tr, s.url+"/broken?text="+text, true))
			require.True(t, reused(t, tr, s.url+"/broken?text="+text, true))
		}
		// A longer one costs a connection, as with http.Client's redirects.
		require.True(t, reused(t, tr, s.url+"/broken?text="+longText, true))
		require.False(t, reused(t, tr, s.url+"/fine", true))
	})
}

func TestTransport_ClosesIdleConnections(t *testing.T) {
	s := onLoopback(t, false, func(http.ResponseWriter, *http.Request) {})
	tr, _ := guards[0].make(t, s.base, firebreak.Config{})
	status, _ := get(t, tr, s.url)
	require.Equal(t, 200, status)
	open, _ := s.conns.count()
	require.Equal(t, 1, open)
	s.requireIdle(t, &http.Client{Transport: tr})

	tr.Base = answering(200, "") // which knows nothing of it
	tr.CloseIdleConnections()
}

// The zero Base is http.DefaultTransport. Here that is changed for a while, as no test
// runs beside this one.
func TestTransport_DefaultBase(t *testing.T) {
	was := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = was })
	http.DefaultTransport = answering(200, "default")
	tr, _ := guards[0].make(t, nil, firebreak.Config{})
	_, text := get(t, tr, "http://a.example")
	require.Equal(t, "default", text)
}

// Each hop is a call, and a body that can be had again goes with it.
func TestTransport_Redirects(t *testing.T) {
	onEachWire(t, func(t *testing.T, http2 bool) {
		s := onLoopback(t, http2, func(w http.ResponseWriter, r *http.Request) {
			if status, err := strconv.Atoi(r.URL.Path[1:]); err == nil {
				io.Copy(io.Discard, r.Body) //nolint:errcheck // the client sees what becomes of it
				http.Redirect(w, r, "/end", status)
				return
			}
			fmt.Fprint(w, r.Method, " ")
			io.Copy(w, r.Body) //nolint:errcheck // likewise
		})
		inEachGuard(t, func(t *testing.T, g guard) {
			tr, cmd := g.make(t, s.base, firebreak.Config{Timeout: patience})
			client := &http.Client{Transport: tr}
			for status, want := range map[int]string{
				301: "GET ", 302: "GET ", 303: "GET ", 307: "POST body", 308: "POST body",
			} {
				before := cmd.Snapshot().Total
				resp, err := client.Post(fmt.Sprintf("%s/%d", s.url, status), "text/plain", strings.NewReader("body"))
				require.NoError(t, err)
				require.Equal(t, want, read(t, resp))
				require.Equal(t, "/end", resp.Request.URL.Path)
				require.EqualValues(t, 2, cmd.Snapshot().Total.Success-before.Success)
			}
			require.Zero(t, cmd.Snapshot().InFlight)
		})
	})
}

// A server that breaks off: before the headers it failed, after them it had answered.
func TestTransport_BrokenOff(t *testing.T) {
	onEachWire(t, func(t *testing.T, http2 bool) {
		s := onLoopback(t, http2, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/later" {
				w.Header().Set("Content-Length", "100")
				io.WriteString(w, "half") //nolint:errcheck // the client sees it
				w.(http.Flusher).Flush()
			}
			panic(http.ErrAbortHandler)
		})
		inEachGuard(t, func(t *testing.T, g guard) {
			tr, cmd := g.make(t, s.base, firebreak.Config{Timeout: patience})
			err := requireRefused(t, tr, newRequest(t, t.Context(), s.url+"/at-once", nil))
			if !g.fallback {
				_, ours := errors.AsType[*firebreak.Error](err)
				require.False(t, ours, "Base's own error, as it is: %v", err)
			}
			require.Equal(t, one("Failure"), outcomes(cmd))

			resp, err := tr.RoundTrip(newRequest(t, t.Context(), s.url+"/later", nil))
			require.NoError(t, err)
			text, err := io.ReadAll(resp.Body)
			require.Error(t, err)
			require.Equal(t, "half", string(text))
			require.Zero(t, cmd.Snapshot().InFlight, "the body has ended, closed or not")
			resp.Body.Close()
			require.Equal(t, map[string]uint64{"Failure": 1, "Success": 1}, outcomes(cmd))
		})
	})
}

// upgrade is a server of a protocol that sends lines back, and at the client's end of
// them says how many there were.
func upgrade(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "lines" {
		http.Error(w, "no lines", http.StatusUpgradeRequired)
		return
	}
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "lines")
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	lines := 0
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			break
		}
		lines++
		fmt.Fprintf(rw, "you said %s", line)
		_ = rw.Flush()
	}
	fmt.Fprintf(rw, "%d lines\n", lines)
	_ = rw.Flush()
}

func requireLines(t *testing.T, rw io.ReadWriter) {
	t.Helper()
	lines := bufio.NewReader(rw)
	for _, line := range []string{"hello\n", "bye\n"} {
		_, err := io.WriteString(rw, line)
		require.NoError(t, err)
		answer, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "you said "+line, answer)
	}
	// The end of one direction is passed on, and the other goes on.
	require.NoError(t, rw.(interface{ CloseWrite() error }).CloseWrite())
	rest, err := io.ReadAll(lines)
	require.NoError(t, err)
	require.Equal(t, "2 lines\n", string(rest))
}

func upgradeRequest(t *testing.T, target string) *http.Request {
	t.Helper()
	req := newRequest(t, t.Context(), target, nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "lines")
	return req
}

// The body of a connection that was upgraded can be written, and holds a permit to
// its Close.
func TestTransport_Upgrade(t *testing.T) {
	s := onLoopback(t, false, upgrade)
	inEachGuard(t, func(t *testing.T, g guard) {
		tr, cmd := g.make(t, s.base, firebreak.Config{Timeout: patience})
		resp, err := tr.RoundTrip(upgradeRequest(t, s.url))
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
		requireLines(t, resp.Body.(io.ReadWriter))
		held := 0
		if g.hold {
			held = 1
		}
		require.Equal(t, held, cmd.Snapshot().Bulkhead.InFlight)
		require.NoError(t, resp.Body.Close())
		require.Zero(t, cmd.Snapshot().Bulkhead.InFlight)
		require.Equal(t, one("Success"), outcomes(cmd))

		resp, err = tr.RoundTrip(newRequest(t, t.Context(), s.url, nil))
		require.NoError(t, err)
		require.Equal(t, "no lines\n", read(t, resp))
	})
	s.requireIdle(t, s.base)
}

func TestTransport_UpgradeBehindAProxy(t *testing.T) {
	s := onLoopback(t, false, upgrade)
	inEachGuard(t, func(t *testing.T, g guard) {
		tr, cmd := g.make(t, s.base, firebreak.Config{Timeout: patience})
		target, err := url.Parse(s.url)
		require.NoError(t, err)
		proxied := make(chan bool, 1)
		proxy := &httputil.ReverseProxy{Transport: tr, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
		front := onLoopback(t, false, func(w http.ResponseWriter, r *http.Request) {
			proxy.ServeHTTP(w, r)
			proxied <- true
		})
		conn, err := net.Dial("tcp", strings.TrimPrefix(front.url, "http://"))
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, upgradeRequest(t, front.url).Write(conn))
		head := bufio.NewReader(conn)
		resp, err := http.ReadResponse(head, nil) //nolint:bodyclose // what follows the head is the protocol's
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
		require.Zero(t, head.Buffered())
		requireLines(t, conn)
		<-proxied
		require.Equal(t, one("Success"), outcomes(cmd))
	})
}

// A writable body without an end for one direction says so, as net/http's does.
func TestTransport_UpgradedBodyWithoutCloseWrite(t *testing.T) {
	type duplex struct {
		io.Writer
		io.ReadCloser
	}
	tr, _ := guards[0].make(t, baseFunc(func(req *http.Request) (*http.Response, error) {
		resp := response(req, http.StatusSwitchingProtocols, "")
		resp.Body = duplex{io.Discard, resp.Body}
		return resp, nil
	}), firebreak.Config{})
	resp, err := tr.RoundTrip(newRequest(t, t.Context(), "http://a.example", nil))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.ErrorIs(t, resp.Body.(interface{ CloseWrite() error }).CloseWrite(), http.ErrNotSupported)
}

// A client that breaks off its upload is no failure of the server behind the proxy:
// it used to be, and a few of them opened the circuit for everybody.
func TestTransport_FailingUploadIsTheCallers(t *testing.T) {
	onEachWire(t, func(t *testing.T, http2 bool) {
		s := onLoopback(t, http2, func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				panic(http.ErrAbortHandler)
			}
			io.WriteString(w, "all of it") //nolint:errcheck // the client sees it
		})
		inEachGuard(t, func(t *testing.T, g guard) {
			tr, cmd := g.make(t, s.base, firebreak.Config{Timeout: patience, ConsecutiveFailures: 1})
			for _, broken := range []error{errBoom, io.ErrUnexpectedEOF, os.ErrDeadlineExceeded} {
				body := io.MultiReader(strings.NewReader("half"), readerFunc(func([]byte) (int, error) { return 0, broken }))
				err := requireRefused(t, tr, newRequest(t, t.Context(), s.url, body))
				require.ErrorIs(t, err, broken)
			}
			require.Equal(t, map[string]uint64{"Ignored": 3}, counts(cmd))
			require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)

			resp, err := tr.RoundTrip(newRequest(t, t.Context(), s.url, io.MultiReader(strings.NewReader("whole"))))
			require.NoError(t, err)
			require.Equal(t, "all of it", read(t, resp))
		})
	})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(s.Close)
	s.Config.ErrorLog = nil
	inEachGuard(t, func(t *testing.T, g guard) { // the server's failure, whatever is uploaded
		tr, cmd := g.make(t, s.Client().Transport, firebreak.Config{Timeout: patience})
		require.NotErrorIs(t, requireRefused(t, tr, newRequest(t, t.Context(), s.URL, io.MultiReader(strings.NewReader("whole")))), errBoom)
		require.Equal(t, one("Failure"), outcomes(cmd))
	})
}

// Misconfigured, a Transport says what is wrong and keeps the contract.
func TestTransport_Misconfigured(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	cmd := reg.Command("site", firebreak.Config{})
	keyed := reg.Dependency("web", firebreak.Config{}).Keyed("hosts", 4, firebreak.Config{})
	answer := func(*http.Request, error) (*http.Response, error) { return nil, nil }
	for name, row := range map[string]struct {
		tr    *firebreakhttp.Transport
		names []string
	}{
		"nothing":                {&firebreakhttp.Transport{}, []string{"Command", "Keyed"}},
		"both":                   {&firebreakhttp.Transport{Command: cmd, Keyed: keyed}, []string{"Command", "Keyed"}},
		"fallback with a permit": {&firebreakhttp.Transport{Command: cmd, HoldPermit: true, Fallback: answer}, []string{"HoldPermit", "Fallback"}},
	} {
		t.Run(name, func(t *testing.T) {
			row.tr.Base = answering(200, "")
			body := &watched{Reader: strings.NewReader("body")}
			err := requireRefused(t, row.tr, newRequest(t, t.Context(), "http://a.example", body))
			for _, field := range row.names {
				require.ErrorContains(t, err, field)
			}
			require.EqualValues(t, 1, body.closes.Load())
		})
	}
	require.Empty(t, maps.Collect(func(yield func(string, bool) bool) {
		for c := range reg.Commands() {
			if c.Snapshot().Total.Calls() > 0 && !yield(c.Name(), true) {
				return
			}
		}
	}))
}
