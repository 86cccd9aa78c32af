package firebreakhttp_test

import (
	"bytes"
	"context"
	"math"
	"math/big"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakhttp"
)

// What a caller will wait reaches the server, and the servers that it calls, each time
// a little less.
func TestHandler_EndToEnd(t *testing.T) {
	onEachWire(t, func(t *testing.T, http2 bool) {
		inBubbles(t, func(t *testing.T, g guard) {
			type seen struct {
				left time.Duration
				told bool
			}
			var at []seen
			note := func(ctx context.Context) {
				d, told := ctx.Deadline()
				s := seen{told: told}
				if told {
					s.left = time.Until(d)
				}
				at = append(at, s)
			}
			last := inPipes(t, http2, (&firebreakhttp.Handler{
				DeadlineHeader: firebreakhttp.DeadlineHeader,
				Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					note(r.Context())
				}),
			}).ServeHTTP)
			inner, _ := g.make(t, last.base, firebreak.Config{})
			inner.DeadlineHeader = firebreakhttp.DeadlineHeader
			var done error
			first := inPipes(t, http2, (&firebreakhttp.Handler{
				DeadlineHeader: firebreakhttp.DeadlineHeader,
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					note(r.Context())
					time.Sleep(100 * time.Millisecond)
					resp, err := inner.RoundTrip(newRequest(t, r.Context(), last.url, nil))
					if err != nil {
						panic(err)
					}
					resp.Body.Close()
					if r.URL.Path == "/wait" {
						<-r.Context().Done()
						done = r.Context().Err()
						return
					}
					w.WriteHeader(http.StatusAccepted)
				}),
			}).ServeHTTP)
			outer, _ := g.make(t, first.base, firebreak.Config{Timeout: firebreak.Off})
			outer.DeadlineHeader = firebreakhttp.DeadlineHeader

			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			resp, err := outer.RoundTrip(newRequest(t, ctx, first.url, nil))
			require.NoError(t, err)
			require.Equal(t, http.StatusAccepted, resp.StatusCode)
			read(t, resp)
			require.Equal(t, []seen{{1500 * time.Millisecond, true}, {1400 * time.Millisecond, true}}, at)

			at = nil
			read(t, must(outer.RoundTrip(newRequest(t, t.Context(), first.url, nil))))
			require.Equal(t, []seen{{}, {}}, at, "who says nothing waits as long as it takes")

			// Work ends when nobody waits for it: here the client has not even hung up.
			req := newRequest(t, context.WithoutCancel(t.Context()), first.url+"/wait", nil)
			req.Header.Set(firebreakhttp.DeadlineHeader, "700")
			start := time.Now()
			read(t, must(outer.RoundTrip(req)))
			require.Equal(t, 700*time.Millisecond, time.Since(start))
			require.Equal(t, context.DeadlineExceeded, done)
		})
	})
}

func must(resp *http.Response, err error) *http.Response {
	if err != nil {
		panic(err)
	}
	return resp
}

// serveDeadline serves a request that says so, in a bubble, and returns the answer's
// status and text, and what is left of the deadline that the handler has; 0 if none.
func serveDeadline(t *testing.T, ctx context.Context, name string, header http.Header) (code int, text string, left time.Duration, served bool) {
	t.Helper()
	h := &firebreakhttp.Handler{DeadlineHeader: name, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served = true
		if at, ok := r.Context().Deadline(); ok {
			left = time.Until(at)
		}
		w.WriteHeader(http.StatusAccepted)
	})}
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	req.Header = header
	before := req.Clone(ctx)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	require.Equal(t, before.Header, req.Header)
	require.True(t, ctx == req.Context())
	return w.Code, w.Body.String(), left, served
}

func TestHandler_ReadsTheHeader(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, row := range []struct {
		name   string
		values []string
		code   int
		left   time.Duration
	}{
		{firebreakhttp.DeadlineHeader, nil, 202, 0},
		{"", []string{"100"}, 202, 0},
		{"X-Other", []string{"100"}, 202, 0},
		{"x-deadline-MS", []string{"100"}, 202, 100 * time.Millisecond},
		{firebreakhttp.DeadlineHeader, []string{"1"}, 202, time.Millisecond},
		{firebreakhttp.DeadlineHeader, []string{"0100"}, 202, 100 * time.Millisecond},
		{firebreakhttp.DeadlineHeader, []string{"31536000000"}, 202, year},
		{firebreakhttp.DeadlineHeader, []string{"31536000001"}, 202, year},
		{firebreakhttp.DeadlineHeader, []string{"9223372036854775807"}, 202, year},
		{firebreakhttp.DeadlineHeader, []string{"18446744073709551615"}, 202, year},
		{firebreakhttp.DeadlineHeader, []string{"18446744073709551616"}, 202, year},
		{firebreakhttp.DeadlineHeader, []string{"20000000000000000000A"}, 400, 0},
		{firebreakhttp.DeadlineHeader, []string{strings.Repeat("9", 10_000)}, 202, year},
		{firebreakhttp.DeadlineHeader, []string{"0"}, 504, 0},
		{firebreakhttp.DeadlineHeader, []string{"000"}, 504, 0},
		{firebreakhttp.DeadlineHeader, []string{""}, 400, 0},
		{firebreakhttp.DeadlineHeader, []string{"-1"}, 400, 0},
		{firebreakhttp.DeadlineHeader, []string{"+1"}, 400, 0},
		{firebreakhttp.DeadlineHeader, []string{"1.5"}, 400, 0},
		{firebreakhttp.DeadlineHeader, []string{"1s"}, 400, 0},
		{firebreakhttp.DeadlineHeader, []string{"0x10"}, 400, 0},
		{firebreakhttp.DeadlineHeader, []string{"1_000"}, 400, 0},
		{firebreakhttp.DeadlineHeader, []string{"1,2"}, 400, 0},
		{firebreakhttp.DeadlineHeader, []string{"٣"}, 400, 0},
		{firebreakhttp.DeadlineHeader, []string{"<script>alert(1)</script>"}, 400, 0},
		{firebreakhttp.DeadlineHeader, []string{strings.Repeat("x", 10_000)}, 400, 0},
		{firebreakhttp.DeadlineHeader, []string{"100", "100"}, 400, 0},
		{firebreakhttp.DeadlineHeader, []string{"0", "100"}, 400, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			header := http.Header{}
			if row.values != nil {
				header[firebreakhttp.DeadlineHeader] = row.values
			}
			code, text, left, served := serveDeadline(t, context.Background(), row.name, header)
			require.Equal(t, row.code, code, "%.40q", row.values)
			require.Equal(t, row.left, left)
			require.Equal(t, row.code == 202, served)
			require.Less(t, len(text), 200, "what a client sends does not come back whole")
			if code == 400 {
				require.Contains(t, text, firebreakhttp.DeadlineHeader)
			}
		})
	}
}

// It can only shorten.
func TestHandler_KeepsTheSoonerDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for value, want := range map[string]time.Duration{"999": 999 * time.Millisecond, "1000": time.Second, "1001": time.Second} {
			_, _, left, _ := serveDeadline(t, ctx, firebreakhttp.DeadlineHeader, http.Header{firebreakhttp.DeadlineHeader: {value}})
			require.Equal(t, want, left)
		}
	})
}

// The context ends with the handler: nothing waits for the deadline.
func TestHandler_ContextEndsWithTheHandler(t *testing.T) {
	var kept context.Context
	h := &firebreakhttp.Handler{DeadlineHeader: firebreakhttp.DeadlineHeader, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		kept = r.Context()
		panic(http.ErrAbortHandler)
	})}
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header.Set(firebreakhttp.DeadlineHeader, "1000000")
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { h.ServeHTTP(httptest.NewRecorder(), req) })
	require.ErrorIs(t, kept.Err(), context.Canceled)
}

var digits = regexp.MustCompile(`^[0-9]+$`)

// FuzzHandlerDeadline holds the parser against arithmetic without bounds.
func FuzzHandlerDeadline(f *testing.F) {
	for _, value := range []string{"0", "1", "100", "31536000001", "18446744073709551616", "20000000000000000000A", "-1", "+1", " 1", "1 ", "1e3", "٣", "\xff", ""} {
		f.Add(value)
	}
	const year = 365 * 24 * time.Hour
	f.Fuzz(func(t *testing.T, value string) {
		before := time.Now()
		var after time.Time
		var at time.Time
		h := &firebreakhttp.Handler{DeadlineHeader: firebreakhttp.DeadlineHeader, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			after = time.Now()
			at, _ = r.Context().Deadline()
		})}
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.Header[firebreakhttp.DeadlineHeader] = []string{value}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)

		if !digits.MatchString(value) {
			require.Equal(t, http.StatusBadRequest, w.Code)
			require.True(t, after.IsZero(), "served")
			require.False(t, bytes.ContainsAny(w.Body.Bytes()[:w.Body.Len()-1], "\r\n\x00"))
			return
		}
		ms, _ := new(big.Int).SetString(value, 10)
		if ms.Sign() == 0 {
			require.Equal(t, http.StatusGatewayTimeout, w.Code)
			require.True(t, after.IsZero(), "served")
			return
		}
		left := year
		if ms.IsInt64() && ms.Int64() < math.MaxInt64/int64(time.Millisecond) {
			left = min(left, time.Duration(ms.Int64())*time.Millisecond)
		}
		require.Equal(t, http.StatusOK, w.Code)
		require.False(t, at.Before(before.Add(left)))
		require.False(t, at.After(after.Add(left)))
	})
}
