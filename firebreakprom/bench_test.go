package firebreakprom_test

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakprom"
)

// A scrape by what there is: the collector's part of it, what prometheus.Registry
// makes of that, and the text.
func BenchmarkScrape(b *testing.B) {
	for _, commands := range []int{10, 1000} {
		reg := firebreak.NewRegistry(firebreak.Config{})
		for i := range commands {
			cmd := reg.Command(fmt.Sprintf("dependency-%d.get", i), firebreak.Config{})
			for range 10 {
				require.NoError(b, cmd.Run(b.Context(), succeed))
			}
		}
		collector := firebreakprom.NewCollector(reg, firebreakprom.Options{})
		scraper := prometheus.NewRegistry()
		require.NoError(b, scraper.Register(collector))

		b.Run(fmt.Sprintf("collect/%d", commands), func(b *testing.B) {
			b.ReportAllocs()
			series := 0
			for b.Loop() {
				ch := make(chan prometheus.Metric, 1000)
				go func() {
					collector.Collect(ch)
					close(ch)
				}()
				series = 0
				for range ch {
					series++
				}
			}
			b.ReportMetric(float64(series), "series")
		})
		b.Run(fmt.Sprintf("gather/%d", commands), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := scraper.Gather()
				require.NoError(b, err)
			}
		})
		b.Run(fmt.Sprintf("text/%d", commands), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				families, err := scraper.Gather()
				require.NoError(b, err)
				e := expfmt.NewEncoder(io.Discard, expfmt.NewFormat(expfmt.TypeTextPlain))
				for _, f := range families {
					require.NoError(b, e.Encode(f))
				}
			}
		})
		collector.Close()
	}
}

// What a collector costs each call: nothing is read for it, but transitions are
// observed, until Close.
func BenchmarkObserved(b *testing.B) {
	for _, c := range []struct {
		name      string
		collector bool
	}{{"without", false}, {"with", true}} {
		for _, o := range []struct {
			name string
			mode firebreak.Mode
		}{{"success", firebreak.Auto}, {"open", firebreak.ForceOpen}} {
			b.Run(o.name+"/"+c.name, func(b *testing.B) {
				reg := firebreak.NewRegistry(firebreak.Config{Mode: o.mode})
				cmd := reg.Command("dep", firebreak.Config{})
				if c.collector {
					defer firebreakprom.NewCollector(reg, firebreakprom.Options{}).Close()
				}
				ctx := context.Background()
				b.ReportAllocs()
				for b.Loop() {
					_ = cmd.Run(ctx, succeed)
				}
			})
		}
	}
}
