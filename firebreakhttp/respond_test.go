package firebreakhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakhttp"
)

// wraps are what an error may be in when it comes to a handler.
var wraps = map[string]func(error) error{
	"bare":      func(err error) error { return err },
	"url.Error": func(err error) error { return &url.Error{Op: "Get", URL: "http://inside.example/secret", Err: err} },
	"wrapped":   func(err error) error { return fmt.Errorf("loading user 7 from inside.example: %w", err) },
	"joined":    func(err error) error { return errors.Join(errBoom, err) },
}

func TestError(t *testing.T) {
	ours := func(reason, cause error) *firebreak.Error {
		return &firebreak.Error{Command: "outer", Reason: reason, Cause: cause}
	}
	in := func(d time.Duration) *firebreak.Error {
		return &firebreak.Error{Reason: firebreak.ErrOpen, RetryAt: time.Now().Add(d)}
	}
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			name  string
			err   error
			code  int // 0: none of ours
			retry string
		}{
			{"nothing", nil, 0, ""},
			{"another's", errBoom, 0, ""},
			{"end of file", io.EOF, 0, ""},
			{"open", ours(firebreak.ErrOpen, nil), 503, "1"},
			{"open for a moment", in(1), 503, "1"},
			{"open for a second", in(time.Second), 503, "1"},
			{"open for more", in(time.Second + 1), 503, "2"},
			{"open for a minute", in(time.Minute), 503, "60"},
			{"open until just now", in(-time.Second), 503, "1"},
			{"open for longer than can be told", &firebreak.Error{Reason: firebreak.ErrOpen, RetryAt: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}, 503, "9223372037"},
			{"rejected", ours(firebreak.ErrRejected, nil), 503, "1"},
			{"rejected, its time over", ours(firebreak.ErrRejected, context.DeadlineExceeded), 503, "1"},
			{"shut down", ours(firebreak.ErrShutdown, nil), 503, "1"},
			{"timed out", ours(firebreak.ErrTimeout, context.DeadlineExceeded), 504, ""},
			{"the caller's deadline", context.DeadlineExceeded, 504, ""},
			{"failed, and its fallback", ours(firebreak.ErrFailed, errBoom), 502, ""},
			{"its fallback was canceled", ours(firebreak.ErrFailed, context.Canceled), 502, ""},
			{"failed by a panic, and its fallback", ours(firebreak.ErrFailed, &firebreak.PanicError{Value: errBoom}), 502, ""},
			{"a failing status", &firebreakhttp.StatusError{StatusCode: 500}, 502, ""},
			{"an overloaded status", &firebreakhttp.StatusError{StatusCode: 429}, 502, ""},
			{"a status that was expected", &firebreakhttp.StatusError{StatusCode: 404}, 0, ""},
			{"panicked", &firebreak.PanicError{Value: "oops"}, 500, ""},
			{"panicked with a context's error", &firebreak.PanicError{Value: context.Canceled}, 500, ""},
			// It used to be 503: what run panicked with lies behind the panic.
			{"panicked with a refusal", &firebreak.PanicError{Value: ours(firebreak.ErrOpen, nil)}, 500, ""},
			{"canceled", context.Canceled, 499, ""},
			// The outermost call decides, whatever lies behind.
			{"open behind failed", ours(firebreak.ErrFailed, in(time.Minute)), 502, ""},
			{"open behind timed out", ours(firebreak.ErrTimeout, in(time.Minute)), 504, ""},
			{"timed out behind rejected", ours(firebreak.ErrRejected, ours(firebreak.ErrTimeout, nil)), 503, "1"},
			{"a fallback's refusal", &firebreak.Error{Reason: firebreak.ErrTimeout, Fallback: in(time.Minute)}, 504, ""},
		} {
			for name, wrap := range wraps {
				err := row.err
				if err != nil || name == "bare" {
					err = wrap(err)
				}
				w := httptest.NewRecorder()
				written := firebreakhttp.Error(w, err)
				about := row.name + ", " + name
				require.Equal(t, row.code != 0, written, about)
				if row.code == 0 {
					require.Empty(t, w.Header(), about)
					require.Zero(t, w.Body.Len(), about)
					continue
				}
				require.Equal(t, row.code, w.Code, about)
				require.Equal(t, row.retry, w.Header().Get("Retry-After"), about)
				text := http.StatusText(row.code)
				if row.code == 499 {
					text = "Client Closed Request"
				}
				require.Equal(t, text+"\n", w.Body.String(), about)
				require.NotContains(t, w.Body.String(), "inside.example")
			}
		}
	})
}

// The errors that calls make, as a server's clients see them.
func TestError_FromCalls(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	inner := reg.Command("inner", firebreak.Config{})
	outer := reg.Command("outer", firebreak.Config{})
	panicky := reg.Command("panicky", firebreak.Config{RecoverPanics: firebreak.On})
	inner.Override(firebreak.Override{Mode: firebreak.ForceOpen, Until: time.Now().Add(time.Hour)})
	call := func(ctx context.Context, path string) error {
		down := func(ctx context.Context) error {
			return inner.Run(ctx, func(context.Context) error { return nil })
		}
		switch path {
		case "/open":
			return down(ctx)
		case "/nested":
			return outer.Run(ctx, down)
		case "/fallback":
			return outer.Run(ctx, down, func(_ context.Context, cause error) error { return errPass })
		case "/panic":
			return panicky.Run(ctx, func(context.Context) error { panic("oops") })
		}
		return nil
	}
	s := onLoopback(t, false, func(w http.ResponseWriter, r *http.Request) {
		if !firebreakhttp.Error(w, call(r.Context(), r.URL.Path)) {
			io.WriteString(w, "fine") //nolint:errcheck // the client sees it
		}
	})
	for path, want := range map[string]int{"/open": 503, "/nested": 503, "/fallback": 502, "/panic": 500, "/": 200} {
		resp, err := s.base.RoundTrip(newRequest(t, t.Context(), s.url+path, nil))
		require.NoError(t, err)
		require.Equal(t, want, resp.StatusCode, path)
		text := read(t, resp)
		if want == 200 {
			require.Equal(t, "fine", text)
			continue
		}
		require.Equal(t, http.StatusText(want)+"\n", text)
		require.True(t, strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain"))
		if want == 503 {
			seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
			require.NoError(t, err)
			require.InDelta(t, 3600, seconds, patience.Seconds())
		}
	}
}
