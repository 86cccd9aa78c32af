package hystrixstream_test

import (
	"context"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/hystrixstream"
)

var update = flag.Bool("update", false, "write the golden files")

// A service on one of its worse days, to the byte as it goes over the wire. The files
// are what other programs read: look twice at a difference.
func TestGolden(t *testing.T) {
	for name, of := range map[string]func(*hystrixstream.Handler) http.Handler{
		"hystrix.stream":     func(h *hystrixstream.Handler) http.Handler { return h },
		"config.stream":      (*hystrixstream.Handler).Config,
		"utilization.stream": (*hystrixstream.Handler).Utilization,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newRegistry(t, firebreak.Config{})
				badDay(t, reg)
				tp := watch(t, of(newHandler(t, reg, hystrixstream.Options{})), "/")
				requireGolden(t, name, tp.text())
			})
		})
	}
}

// Before there is a command there are pings, and the other two have their objects.
func TestGoldenEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newRegistry(t, firebreak.Config{}), hystrixstream.Options{})
		require.Equal(t, ping, watch(t, h, "/").text())
		require.Equal(t, `data: {"type":"HystrixConfig","commands":{},"threadpools":{},"collapsers":{}}`+"\n\n"+ping, //nolint:misspell // Hystrix's word
			watch(t, h.Config(), "/").text())
		require.Equal(t, `data: {"type":"HystrixUtilization","commands":{},"threadpools":{}}`+"\n\n"+ping,
			watch(t, h.Utilization(), "/").text())
	})
}

func requireGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// badDay fills a registry, in a bubble.
func badDay(t *testing.T, reg *firebreak.Registry) {
	t.Helper()
	ctx := t.Context()
	takes := func(d time.Duration, err error) func(context.Context) error {
		return func(context.Context) error {
			time.Sleep(d)
			return err
		}
	}

	batches(t, reg)
	users := reg.Dependency("users", firebreak.Config{MaxConcurrent: 2})
	get := users.Command("users.get", firebreak.Config{Timeout: 300 * time.Millisecond, Classify: classify})
	for ms := range 40 {
		get.Run(ctx, takes(time.Duration(ms+1)*time.Millisecond, nil))
	}
	get.Run(ctx, takes(0, errNotFound))
	get.Run(ctx, takes(25*time.Millisecond, errBoom), fallBack)
	get.Run(ctx, takes(25*time.Millisecond, errBoom))
	get.Run(ctx, hang)

	put := users.Command("users.put", firebreak.Config{ErrorThresholdPercentage: 12.5, SleepWindow: time.Minute})
	trip(t, put)
	put.Run(ctx, succeed, fallBack)

	// Six callers of a pool of three with a queue of two: one is too many.
	reports := reg.Command("reports", firebreak.Config{
		Isolation: firebreak.PoolIsolation, MaxConcurrent: 3, QueueSize: 2, Timeout: firebreak.Off, Window: 20 * time.Second,
	})
	reports.Run(ctx, takes(time.Second, nil))
	finish := make(chan struct{})
	for range 6 {
		go reports.Run(ctx, func(context.Context) error {
			<-finish
			return nil
		})
		synctest.Wait()
	}
	t.Cleanup(func() { close(finish) })

	web := reg.Dependency("web", firebreak.Config{MaxConcurrent: firebreak.Unlimited}).
		Keyed("web.get", 2, firebreak.Config{MaxFallbacks: firebreak.Off})
	web.Command("a.example").Run(ctx, succeed)
	web.Command("\"</script>\u2028\n\xff").Run(ctx, succeed)

	search := reg.Command("search", firebreak.Config{MaxFallbacks: firebreak.Unlimited, ErrorThresholdPercentage: firebreak.Off})
	search.Override(firebreak.Override{Mode: firebreak.ForceOpen})
	search.Run(ctx, succeed)

	orders := reg.Command("orders", firebreak.Config{Mode: firebreak.Shadow})
	trip(t, orders)
	orders.Run(ctx, succeed)
}
