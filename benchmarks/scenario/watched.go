package scenario

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/benchmarks/columns"
	"github.com/firebreak-go/firebreak/firebreakprom"
	"github.com/firebreak-go/firebreak/hystrixstream"
)

// What it costs to be looked at is firebreak's alone: the others' pages and streams
// show other things, or nothing.

// called makes a registry of n commands, ten of each dependency, that have all been
// called.
func called(n int) *firebreak.Registry {
	reg := firebreak.NewRegistry(firebreak.Config{})
	for i := range n {
		cmd := reg.Dependency(fmt.Sprintf("dependency-%d", i/10), firebreak.Config{}).Command(fmt.Sprintf("command-%d", i), firebreak.Config{})
		for range 50 {
			_, _ = firebreak.Do(context.Background(), cmd, succeed)
		}
	}
	return reg
}

// scrapePrometheus is a scrape of 1,000 commands: read, encoded, compressed by nobody.
func scrapePrometheus(column columns.Column) (*load, error) {
	if column.Name != "firebreak" {
		return nil, nil
	}
	reg := called(1000)
	collector := firebreakprom.NewCollector(reg, firebreakprom.Options{})
	registry := prometheus.NewRegistry()
	if err := registry.Register(collector); err != nil {
		return nil, err
	}
	handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true})
	l := &load{want: http.StatusOK, close: func() { collector.Close(); shutDown(reg) }}
	l.call = func(context.Context) (int, error) {
		w := &discarded{header: http.Header{}}
		req, err := http.NewRequest(http.MethodGet, "/metrics", nil)
		if err != nil {
			return 0, err
		}
		handler.ServeHTTP(w, req)
		if w.bytes < 1000*1000 {
			return 0, fmt.Errorf("%d bytes cannot be 1,000 commands", w.bytes)
		}
		return max(w.status, http.StatusOK), nil
	}
	l.repeat = func(b *testing.B, l *load) {
		b.Helper()
		b.ReportAllocs()
		wrong, start := 0, processTime()
		for b.Loop() {
			if v, err := l.call(context.Background()); !right(v, err, l.want, false) {
				wrong++
			}
		}
		b.ReportMetric(float64(processTime()-start)/float64(b.N), CPU)
		b.ReportMetric(float64(wrong)/float64(b.N), Wrong)
	}
	return l.ready(column)
}

// discarded is a response that nobody reads.
type discarded struct {
	header http.Header
	status int
	bytes  int
}

func (d *discarded) Header() http.Header { return d.header }
func (d *discarded) WriteHeader(s int)   { d.status = s }
func (d *discarded) Write(p []byte) (int, error) {
	d.bytes += len(p)
	return len(p), nil
}

// The units of a stream, for each sample.
const (
	CPUPerSample    = "cpu-ns/sample"
	BytesPerSample  = "B/sample/client"
	SamplesReceived = "samples"
)

// stream has five clients, who read over loopback in this process, a sample each tenth
// of a second, of 200 commands and 20 pools.
func stream(column columns.Column) (Metrics, error) {
	if column.Name != "firebreak" {
		return nil, nil
	}
	const clients, commands, samples = 5, 200, 20
	reg := called(commands)
	defer shutDown(reg)
	h := hystrixstream.New(reg, hystrixstream.Options{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: h}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		h.Close()
		_ = server.Close()
		<-served //nolint:errcheck // http.ErrServerClosed: that is what was asked for
	}()

	var reading sync.WaitGroup
	var got, bytes [clients]int
	var errs [clients]error
	start := processTime()
	for i := range clients {
		reading.Go(func() {
			got[i], bytes[i], errs[i] = readSamples("http://"+listener.Addr().String()+"/?delay=100", commands, samples)
		})
	}
	reading.Wait()
	spent := processTime() - start
	total, read := 0, 0
	for i := range clients {
		if errs[i] != nil {
			return nil, errs[i]
		}
		total, read = total+got[i], read+bytes[i]
	}
	return Metrics{
		CPUPerSample:    float64(spent) / (float64(total) / clients),
		BytesPerSample:  float64(read) / float64(total),
		SamplesReceived: float64(total) / clients,
	}, nil
}

// readSamples reads so many samples, each of so many commands, and tells how many bytes
// they were.
func readSamples(url string, commands, samples int) (got, bytes int, err error) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Get(url)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	seen := 0
	for got < samples && lines.Scan() {
		bytes += len(lines.Bytes()) + 1
		if strings.HasPrefix(lines.Text(), `data: {"type":"HystrixCommand"`) {
			if seen++; seen == commands {
				got, seen = got+1, 0
			}
		}
	}
	if got < samples {
		return got, bytes, fmt.Errorf("the stream ended after %d samples: %w", got, errorOr(lines.Err(), io.ErrUnexpectedEOF))
	}
	return got, bytes, nil
}

func errorOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

func shutDown(reg *firebreak.Registry) { _ = reg.Shutdown(context.Background()) }
