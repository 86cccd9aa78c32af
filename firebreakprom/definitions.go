package firebreakprom

import (
	"math"
	"strconv"

	dto "github.com/prometheus/client_model/go"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakprom/internal/metric"
)

// A definition is a metric and where its values come from: one of the three. Values
// are in the order of the metric's series.
type definition struct {
	*metric.Metric
	command    func(r *reading, values []float64)
	latencies  func(r *reading) *latencies
	dependency func(r *bulkheadReading, values []float64)
}

// maxSeries is the most that a definition has.
const maxSeries = 16

func (r *reading) fill(d *definition, values []float64) *dto.Histogram {
	if d.latencies != nil {
		return d.latencies(r).histogram()
	}
	d.command(r, values)
	return nil
}

func (r *bulkheadReading) fill(d *definition, values []float64) *dto.Histogram {
	d.dependency(r, values)
	return nil
}

var definitions = []definition{
	{Metric: &metric.Calls, command: func(r *reading, values []float64) {
		c := &r.counts
		counts(values, c.Success, c.Expected, c.Ignored, c.Failure, c.Timeout, c.Panic, c.Canceled, c.CallerDeadline,
			c.Rejected, c.ShortCircuited, c.Shutdown, c.GaveUp)
	}},
	{Metric: &metric.Rejections, command: func(r *reading, values []float64) {
		c := &r.counts
		counts(values, c.ShortCircuited, c.Rejected, c.Shutdown, c.FallbackRejected, c.WouldShortCircuit)
	}},
	{Metric: &metric.Fallbacks, command: func(r *reading, values []float64) {
		c := &r.counts
		counts(values, c.FallbackSuccess, c.FallbackFailure, c.FallbackRejected, c.FallbackMissing)
	}},
	{Metric: &metric.RunDuration, latencies: func(r *reading) *latencies { return &r.run }},
	{Metric: &metric.CallDuration, latencies: func(r *reading) *latencies { return &r.call }},
	{Metric: &metric.InFlight, command: func(r *reading, values []float64) { values[0] = float64(r.inFlight) }},
	{Metric: &metric.FallbacksInFlight, command: func(r *reading, values []float64) { values[0] = float64(r.fallbacks) }},
	{Metric: &metric.Overruns, command: func(r *reading, values []float64) { values[0] = float64(r.counts.Overran) }},
	{Metric: &metric.StreamItems, command: func(r *reading, values []float64) { values[0] = float64(r.counts.Emitted) }},
	{Metric: &metric.CacheHits, command: func(r *reading, values []float64) { values[0] = float64(r.counts.CacheHits) }},
	{Metric: &metric.Batches, command: func(r *reading, values []float64) { values[0] = float64(r.counts.Batches) }},
	{Metric: &metric.CollapsedKeys, command: func(r *reading, values []float64) { values[0] = float64(r.counts.Collapsed) }},
	{Metric: &metric.ObserverPanics, command: func(r *reading, values []float64) { values[0] = float64(r.counts.ObserverPanics) }},
	{Metric: &metric.CircuitState, command: func(r *reading, values []float64) {
		for s, n := range r.states {
			values[s] = float64(n)
		}
	}},
	{Metric: &metric.CircuitTransitions, command: func(r *reading, values []float64) {
		for i := range values {
			values[i] = float64(r.moved[i].Load())
		}
	}},
	{Metric: &metric.CircuitErrorRatio, command: func(r *reading, values []float64) { values[0] = r.errorRatio }},
	{Metric: &metric.CircuitOverride, command: func(r *reading, values []float64) {
		for i, n := range r.overrides {
			values[i] = float64(n)
		}
	}},
	{Metric: &metric.CommandInfo, command: func(r *reading, values []float64) {
		for i, s := range metric.CommandInfo.Series {
			values[i] = math.NaN()
			if s[0] == r.config.Isolation.String() && s[1] == r.config.Mode.String() && s[2] == strconv.FormatBool(r.keyed) {
				values[i] = 1
			}
		}
	}},
	{Metric: &metric.Timeout, command: func(r *reading, values []float64) {
		values[0] = r.config.Timeout.Seconds()
		if r.config.Timeout == firebreak.Off {
			values[0] = math.Inf(1)
		}
	}},
	{Metric: &metric.ErrorThreshold, command: func(r *reading, values []float64) {
		values[0] = r.config.ErrorThresholdPercentage / 100
		if r.config.ErrorThresholdPercentage == firebreak.Off {
			values[0] = math.NaN()
		}
	}},
	{Metric: &metric.VolumeThreshold, command: func(r *reading, values []float64) {
		values[0] = float64(r.config.RequestVolumeThreshold)
	}},
	{Metric: &metric.SleepWindowLength, command: func(r *reading, values []float64) { values[0] = r.config.SleepWindow.Seconds() }},
	{Metric: &metric.FallbackLimit, command: func(r *reading, values []float64) { values[0] = limit(r.config.MaxFallbacks) }},

	{Metric: &metric.BulkheadLimit, dependency: func(r *bulkheadReading, values []float64) { values[0] = limit(r.Limit) }},
	{Metric: &metric.BulkheadInFlight, dependency: func(r *bulkheadReading, values []float64) { values[0] = float64(r.InFlight) }},
	{Metric: &metric.BulkheadPeak, dependency: func(r *bulkheadReading, values []float64) { values[0] = float64(r.MaxInFlight) }},
	{Metric: &metric.BulkheadQueued, dependency: func(r *bulkheadReading, values []float64) { values[0] = float64(r.Queued) }},
	{Metric: &metric.BulkheadQueueLimit, dependency: func(r *bulkheadReading, values []float64) { values[0] = float64(r.queue) }},
	{Metric: &metric.BulkheadAbandoned, dependency: func(r *bulkheadReading, values []float64) { values[0] = float64(r.Abandoned) }},
}

func counts(values []float64, of ...uint64) {
	for i, n := range of {
		values[i] = float64(n)
	}
}

// limit is a bound as a number that others can be divided by.
func limit(n int) float64 {
	switch n {
	case firebreak.Unlimited:
		return math.Inf(1)
	case firebreak.Off:
		return 0
	}
	return float64(n)
}
