package columns_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
)

// eachHTTP is a test of every column that guards requests, with a timeout of 20 ms.
func eachHTTP(t *testing.T, handler http.HandlerFunc, test func(t *testing.T, client *http.Client, url string)) {
	server := httptest.NewServer(handler)
	defer server.Close()
	for _, column := range columns.All() {
		if column.HTTP == nil || column.Name == "direct" {
			continue
		}
		t.Run(column.Name, func(t *testing.T) {
			guarded, done := column.HTTP(server.Client().Transport, columns.Spec{Mode: columns.Everything, MaxConcurrent: 10, Timeout: 20 * time.Millisecond})
			defer done()
			test(t, &http.Client{Transport: guarded}, server.URL)
		})
	}
}

func TestHTTPFailuresAreDelivered(t *testing.T) {
	handler := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) }
	eachHTTP(t, handler, func(t *testing.T, client *http.Client, url string) {
		resp, err := client.Get(url)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, "no\n", string(body))
		require.Equal(t, http.StatusBadGateway, resp.StatusCode)
	})
}

func TestHTTPHeadersAreLimitedInTime(t *testing.T) {
	handler := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	eachHTTP(t, handler, func(t *testing.T, client *http.Client, url string) {
		start := time.Now()
		resp, err := client.Get(url)
		if !assert.Error(t, err) {
			resp.Body.Close()
		}
		assert.GreaterOrEqual(t, time.Since(start), 20*time.Millisecond)
	})
}

// The body comes when the timeout is long over.
func TestHTTPBodiesAreNot(t *testing.T) {
	send := make(chan struct{})
	handler := func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		<-send
		_, _ = io.WriteString(w, "late")
	}
	eachHTTP(t, handler, func(t *testing.T, client *http.Client, url string) {
		resp, err := client.Get(url)
		require.NoError(t, err)
		defer resp.Body.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Millisecond)
		defer cancel()
		<-ctx.Done()
		send <- struct{}{}
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, "late", string(body))
	})
}
