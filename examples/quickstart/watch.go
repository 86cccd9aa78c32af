package main

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/dashboard"
	"github.com/firebreak-go/firebreak/firebreakprom"
	"github.com/firebreak-go/firebreak/hystrixstream"
)

// A watch shows the registry to people and machines. In a service, put it on a port
// of its own that only operators reach: it names dependencies and their errors.
type watch struct {
	server  *server
	page    *dashboard.Handler
	stream  *hystrixstream.Handler
	metrics *firebreakprom.Collector
}

func serveWatch(addr string, reg *firebreak.Registry) (*watch, error) {
	w := &watch{
		page:    dashboard.New(reg, dashboard.Options{Title: "quickstart"}),
		stream:  hystrixstream.New(reg, hystrixstream.Options{}),
		metrics: firebreakprom.NewCollector(reg, firebreakprom.Options{}),
	}
	registry := prometheus.NewRegistry()
	err := registry.Register(w.metrics)
	if err == nil {
		mux := http.NewServeMux()
		mux.Handle("/", w.page)
		mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
		mux.Handle("/hystrix.stream", w.stream)
		w.server, err = serve(addr, mux)
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *watch) stop(ctx context.Context) error {
	w.close() // first: the server would wait for its streams to end
	return w.server.stop(ctx)
}

func (w *watch) close() {
	w.page.Close()
	w.stream.Close()
	w.metrics.Close()
}
