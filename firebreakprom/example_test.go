package firebreakprom_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakprom"
)

// A collector is made once for a registry, and shown with all else that the service
// has to show.
func ExampleNewCollector() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	getUser := reg.Command("users.get", firebreak.Config{})

	metrics := prometheus.NewRegistry()
	metrics.MustRegister(firebreakprom.NewCollector(reg, firebreakprom.Options{}))
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))

	for range 3 {
		_ = getUser.Run(context.Background(), func(context.Context) error { return nil })
	}
	_ = getUser.Run(context.Background(), func(context.Context) error { return errors.New("down") })

	page := httptest.NewRecorder()
	mux.ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(page.Body.String()) {
		if strings.HasPrefix(line, "firebreak_calls_total") && !strings.HasSuffix(line, " 0\n") {
			fmt.Print(line)
		}
	}
	// Output:
	// firebreak_calls_total{command="users.get",dependency="users.get",outcome="failure"} 1
	// firebreak_calls_total{command="users.get",dependency="users.get",outcome="success"} 3
}

// Registries side by side are told apart by a label.
func ExampleOptions() {
	metrics := prometheus.NewRegistry()
	for _, tier := range []string{"edge", "core"} {
		reg := firebreak.NewRegistry(firebreak.Config{})
		metrics.MustRegister(firebreakprom.NewCollector(reg, firebreakprom.Options{
			ConstLabels: prometheus.Labels{"tier": tier},
		}))
		reg.Command("users.get", firebreak.Config{})
	}
	families, err := metrics.Gather()
	fmt.Println(len(families) > 0, err)
	// Output: true <nil>
}
