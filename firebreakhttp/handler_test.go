package firebreakhttp_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakhttp"
)

var took = regexp.MustCompile(`\[\d+ms\]`)

// A request is a scope: what it asks for twice is asked for once, and the next request
// asks anew. What its calls did is told at its end, whatever that is.
func TestHandlerBeginsARequest(t *testing.T) {
	reg := firebreak.NewRegistry(firebreak.Config{RequestLog: firebreak.On})
	cmd := reg.Command("users", firebreak.Config{})
	runs := 0
	user := firebreak.Cached(cmd, firebreak.Bind(cmd, func(context.Context, int) (string, error) {
		runs++
		return "Ada", nil
	}))
	var logs []string
	h := &firebreakhttp.Handler{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for range 2 {
				name, err := user(r.Context(), 1)
				assert.NoError(t, err)
				assert.Equal(t, "Ada", name)
			}
			if r.URL.Path == "/panics" {
				panic(http.ErrAbortHandler)
			}
		}),
		Log: func(r *http.Request, l firebreak.CallLog) {
			logs = append(logs, r.URL.Path+": "+took.ReplaceAllString(l.String(), ""))
		},
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	require.Equal(t, 1, runs)
	require.Panics(t, func() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/panics", nil))
	})
	require.Equal(t, 2, runs)
	const calls = ": users[SUCCESS], users[RESPONSE_FROM_CACHE]"
	require.Equal(t, []string{"/" + calls, "/panics" + calls}, logs)
	require.EqualValues(t, 2, cmd.Snapshot().Total.CacheHits)
}

// Without a Log and a header it is a scope all the same.
func TestHandlerIsAScopeByItself(t *testing.T) {
	cmd := firebreak.NewRegistry(firebreak.Config{RequestLog: firebreak.On}).Command("users", firebreak.Config{})
	h := &firebreakhttp.Handler{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		assert.NoError(t, cmd.Run(r.Context(), func(context.Context) error { return nil }))
		assert.Contains(t, firebreak.RequestLog(r.Context()).String(), "users[SUCCESS]")
	})}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
}
