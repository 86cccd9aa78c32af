package firebreakhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// Thousands of requests to servers that answer, fail, hang and break off, by callers
// of whom some go: each is counted once, and nothing is left of it, neither a permit
// nor a goroutine nor a connection.
func TestTransport_Storm(t *testing.T) {
	const callers, each = 16, 24
	paths := []string{"/", "/", "/", "/fail", "/missing", "/hang", "/hang-in-body", "/break", "/break-in-body"}
	onEachWire(t, func(t *testing.T, http2 bool) {
		inEachGuard(t, func(t *testing.T, g guard) {
			s := onLoopback(t, http2, stormy)
			tr, cmd := g.make(t, s.base, firebreak.Config{
				Timeout: 100 * time.Millisecond, MaxConcurrent: callers - 2,
				SleepWindow: time.Millisecond, ErrorThresholdPercentage: 60,
			})
			if g.fallback {
				tr.Fallback = func(req *http.Request, _ error) (*http.Response, error) {
					if rand.N(2) == 0 {
						return nil, errPass
					}
					return response(req, 203, "instead"), nil
				}
			}
			var requests, answers, instead, refused atomic.Uint64
			get(t, s.base, s.url) // so that the first handshake under TLS opens no circuit
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					for range each {
						requests.Add(1)
						switch code, err := stormOne(tr, s.url+paths[rand.N(len(paths))]); {
						case err != nil:
							if _, ours := errors.AsType[*firebreak.Error](err); ours {
								refused.Add(1)
							}
						case code == 203:
							instead.Add(1)
						default:
							answers.Add(1)
						}
					}
				})
			}
			all.Wait()
			total := cmd.Snapshot().Total
			require.Equal(t, requests.Load(), total.Calls())
			require.Equal(t, instead.Load(), total.FallbackSuccess)
			require.NotZero(t, answers.Load())
			require.LessOrEqual(t, total.Success+total.Expected, answers.Load())
			require.LessOrEqual(t, answers.Load(), total.Success+total.Expected+total.Failure+total.Timeout)
			require.Zero(t, total.Panic)
			require.Zero(t, total.Ignored)
			if !g.fallback {
				never := total.Rejected + total.ShortCircuited
				require.LessOrEqual(t, never, refused.Load())
				require.LessOrEqual(t, refused.Load(), never+total.Timeout) // late responses are none
			}
			s.requireIdle(t, tr)
		})
	})
}

// stormy does what the path says.
func stormy(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/hang") { // before that a server of HTTP/1.1 does not see its client go
		io.Copy(io.Discard, r.Body) //nolint:errcheck // the client has gone
	}
	switch r.URL.Path {
	case "/fail":
		http.Error(w, "sorry", http.StatusInternalServerError)
	case "/missing":
		http.NotFound(w, r)
	case "/hang":
		<-r.Context().Done()
	case "/hang-in-body":
		io.WriteString(w, "begun") //nolint:errcheck // the client sees it
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	case "/break":
		panic(http.ErrAbortHandler)
	case "/break-in-body":
		io.WriteString(w, "begun") //nolint:errcheck // likewise
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	default:
		io.Copy(w, r.Body) //nolint:errcheck // likewise
	}
}

// stormOne makes a request as one caller or another does: who reads to the end and
// closes, who closes at once, who leaves.
func stormOne(rt http.RoundTripper, target string) (int, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	switch rand.N(8) {
	case 0:
		cancel()
	case 1:
		defer time.AfterFunc(rand.N(20*time.Millisecond), cancel).Stop()
	case 2:
		var done context.CancelFunc
		ctx, done = context.WithTimeout(ctx, rand.N(20*time.Millisecond))
		defer done()
	}
	body := func() io.Reader { return strings.NewReader("some text to be sent back") }
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, body())
	if err != nil {
		return 0, fmt.Errorf("request: %w", err)
	}
	if rand.N(2) == 0 { // streamed
		req.Body, req.GetBody, req.ContentLength = io.NopCloser(body()), nil, -1
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if req.URL.Path == "/hang-in-body" {
		defer time.AfterFunc(rand.N(10*time.Millisecond), cancel).Stop()
	}
	if rand.N(4) > 0 {
		io.ReadAll(resp.Body) //nolint:errcheck // it may break off
	}
	return resp.StatusCode, nil
}
