package hystrixstream_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/hystrixstream"
)

// FuzzQuery: a query is refused, or asks for a delay that a stream can have.
func FuzzQuery(f *testing.F) {
	for _, query := range []string{
		"", "delay=", "delay=500", "delay=0", "delay=1&delay=x", "x&delay=2000&y=z", "delay=-1", "delay=%31%30%30", "delay=1;2",
		"delay=99999999999999999999", "delay=1e3", "delay=%zz", "%64elay=700", "delay=9223372036854775808", "Delay=5", "delay=+5", "&&=&",
		"origin=http%3A%2F%2Fdep%2Fhystrix.stream&delay=&authorization=", "delay=\x00", "delay=\xff", "delay=000000000000000000000000001",
	} {
		f.Add(query)
	}
	h := hystrixstream.New(firebreak.NewRegistry(firebreak.Config{}), hystrixstream.Options{})
	f.Fuzz(func(t *testing.T, query string) {
		delay, err := hystrixstream.DelayOf(query)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodHead, "/", nil)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.True(t, hystrixstream.Idle(h))
		if err != nil {
			require.Zero(t, delay)
			require.Equal(t, http.StatusBadRequest, w.Code)
			return
		}
		require.Equal(t, http.StatusOK, w.Code)
		require.GreaterOrEqual(t, delay, 100*time.Millisecond)
		require.LessOrEqual(t, delay, time.Minute)
		require.Zero(t, delay%(100*time.Millisecond))
		values, err := url.ParseQuery(query)
		require.NoError(t, err)
		if values.Get("delay") == "" {
			require.Equal(t, 500*time.Millisecond, delay)
		}
	})
}

// FuzzName: whatever a command is called, its line is one line, and says its name.
func FuzzName(f *testing.F) {
	for _, name := range []string{"a", `"`, `\`, "\n\n", "</script>", "\u2028", "\xff", "{", "\ufffd", "🔥\x00"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" {
			return
		}
		reg := firebreak.NewRegistry(firebreak.Config{Isolation: firebreak.PoolIsolation})
		reg.Command(name, firebreak.Config{})
		lines := linesOf(t, string(hystrixstream.Encoder()(reg)))
		require.Len(t, lines, 2)
		want := string([]rune(name)) // each byte that is no UTF-8 is U+FFFD
		for _, o := range lines {
			require.Equal(t, want, o["name"])
		}
		require.Equal(t, want, lines[0]["group"])
		require.Equal(t, want, lines[0]["threadPool"])
	})
}
