package firebreakhttp_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakhttp"
)

func TestStatusError(t *testing.T) {
	for code, want := range map[int]string{
		404: "404 Not Found", 503: "503 Service Unavailable", 999: "999", 0: "0", -1: "-1",
	} {
		require.EqualError(t, &firebreakhttp.StatusError{StatusCode: code}, want)
	}
}

// Check marks its errors: the command's Classify, which here would say otherwise, is
// not asked. The body is not touched.
func TestCheck(t *testing.T) {
	for code := range 1000 {
		var wrong firebreak.Verdict
		want := map[string]uint64{"Success": 1}
		switch {
		case code < 400:
		case code == 429 || code >= 500:
			want, wrong = one("Failure"), firebreak.Ignored
		default:
			want, wrong = one("Expected"), firebreak.Failure
		}
		cmd := newRegistry(t, firebreak.Config{}).Command("site", firebreak.Config{Classify: func(error) firebreak.Verdict { return wrong }})
		resp := response(nil, code, "")
		resp.Body = io.NopCloser(readerFunc(func([]byte) (int, error) { t.Error("read"); return 0, io.EOF }))
		err := cmd.Run(t.Context(), func(context.Context) error { return firebreakhttp.Check(resp) })
		require.Equal(t, want, outcomes(cmd), code)
		if code < 400 {
			require.NoError(t, err)
			continue
		}
		status, ok := errors.AsType[*firebreakhttp.StatusError](err)
		require.True(t, ok)
		require.Equal(t, code, status.StatusCode)
	}
}

// FuzzCheck: whatever a server says about coming back, the verdict is on the status,
// and a hint is never a moment in the past.
func FuzzCheck(f *testing.F) {
	for _, text := range []string{"", "20", "-1", "18446744073709551616", "Fri, 31 Dec 9999 23:59:59 GMT", "Sat, 01 Jan 0000 00:00:00 GMT"} {
		f.Add(503, text, "Sat, 01 Jan 2000 00:00:00 GMT")
	}
	f.Fuzz(func(t *testing.T, status int, retryAfter, date string) {
		reg := firebreak.NewRegistry(firebreak.Config{})
		cmd := reg.Command("site", firebreak.Config{ConsecutiveFailures: 1})
		c := cmd.Config()
		resp := &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {retryAfter}, "Date": {date}}}
		err := cmd.Run(t.Context(), func(context.Context) error { return firebreakhttp.Check(resp) })
		if status < 400 {
			require.NoError(t, err)
			return
		}
		require.EqualError(t, err, (&firebreakhttp.StatusError{StatusCode: status}).Error(), "and nothing that a server sent")
		s := cmd.Snapshot()
		if status < 500 && status != 429 {
			require.Equal(t, firebreak.StateClosed, s.State)
			return
		}
		require.Equal(t, firebreak.StateOpen, s.State)
		sleep := s.Evidence.NextProbe.Sub(s.Evidence.At)
		require.GreaterOrEqual(t, sleep, c.SleepWindow)
		require.LessOrEqual(t, sleep, 10*c.SleepWindow+time.Second)
	})
}

// It is what a client would have had of a server.
func TestNewResponse(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header()["Date"] = nil
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, "{}") //nolint:errcheck // the client sees it
	}))
	defer server.Close()
	want, err := server.Client().Get(server.URL)
	require.NoError(t, err)
	defer want.Body.Close()

	got := firebreakhttp.NewResponse(want.Request, http.StatusAccepted, "application/json", []byte("{}"))
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	require.NoError(t, err)
	require.Equal(t, "{}", string(body))
	want.Body, got.Body = nil, nil
	require.Equal(t, want, got)

	bare := firebreakhttp.NewResponse(nil, 299, "", nil)
	defer bare.Body.Close()
	require.Equal(t, "299", bare.Status)
	require.Equal(t, http.Header{"Content-Length": {"0"}}, bare.Header)
}
