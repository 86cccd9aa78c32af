package main

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/dashboard"
	"github.com/firebreak-go/firebreak/firebreakprom"
	"github.com/firebreak-go/firebreak/hystrixstream"
)

// A watch shows the registry to people and machines.
type watch struct {
	page    *dashboard.Handler
	stream  *hystrixstream.Handler
	metrics *firebreakprom.Collector
}

func newWatch(reg *firebreak.Registry) *watch {
	return &watch{
		page:    dashboard.New(reg, dashboard.Options{Title: "edge"}),
		stream:  hystrixstream.New(reg, hystrixstream.Options{}),
		metrics: firebreakprom.NewCollector(reg, firebreakprom.Options{}),
	}
}

func (w *watch) mount(mux *http.ServeMux) error {
	registry := prometheus.NewRegistry()
	if err := registry.Register(w.metrics); err != nil {
		return err
	}
	mux.Handle("GET /dashboard/", w.page)
	mux.Handle("GET /hystrix.stream", w.stream)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return nil
}

// close ends its streams, for which a server that stops would wait.
func (w *watch) close() {
	w.page.Close()
	w.stream.Close()
	w.metrics.Close()
}
