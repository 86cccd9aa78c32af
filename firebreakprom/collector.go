// Package firebreakprom shows a [firebreak.Registry] to Prometheus.
//
//	reg := firebreak.NewRegistry(firebreak.Config{})
//	prometheus.MustRegister(firebreakprom.NewCollector(reg, firebreakprom.Options{}))
//
// Everything is read when Prometheus scrapes, but for the transitions of circuits,
// which the [Collector] observes; calls cost the same with it as without. In ops/ of
// the repository are recording rules, alerts and a Grafana dashboard, made from the
// same definitions.
//
// # Metrics
//
// All have a label dependency, and those of commands a label command: names that
// you gave. All other labels have values from fixed sets, and each combination that
// can occur is there from the first scrape after the command was made (of a keyed one,
// its first key), at 0.
//
//	firebreak_calls_total{outcome}                         counter    firebreak.Outcome's words
//	firebreak_rejections_total{reason,mode}                counter    circuit, bulkhead, shutdown, fallback; enforced, shadow
//	firebreak_fallbacks_total{result}                      counter    success, failure, rejected, missing
//	firebreak_run_duration_seconds                         histogram  executed calls
//	firebreak_call_duration_seconds                        histogram  likewise, with waiting and fallbacks
//	firebreak_in_flight                                    gauge
//	firebreak_fallbacks_in_flight                          gauge
//	firebreak_overruns_total                               counter
//	firebreak_stream_items_total                           counter
//	firebreak_cache_hits_total                             counter
//	firebreak_batches_total                                counter
//	firebreak_collapsed_keys_total                         counter    by batches_total: their mean size
//	firebreak_observer_panics_total                        counter
//	firebreak_circuit_state{state}                         gauge      closed, open, half_open
//	firebreak_circuit_transitions_total{from,to,cause}     counter    since the collector was made
//	firebreak_circuit_error_ratio                          gauge      0 to 1
//	firebreak_circuit_override{kind}                       gauge      auto, force_open, force_closed, shadow, inject
//	firebreak_command_info{isolation,mode,keyed}           gauge      always 1
//	firebreak_timeout_seconds                              gauge      +Inf: none
//	firebreak_circuit_error_threshold_ratio                gauge      absent: the rule is off
//	firebreak_circuit_request_volume_threshold             gauge
//	firebreak_circuit_sleep_window_seconds                 gauge
//	firebreak_fallback_limit                               gauge      0: none is asked; +Inf: no limit
//
// And of dependencies:
//
//	firebreak_bulkhead_limit                               gauge      +Inf: no limit
//	firebreak_bulkhead_in_flight                           gauge
//	firebreak_bulkhead_in_flight_peak                      gauge      in the rolling window
//	firebreak_bulkhead_queued                              gauge
//	firebreak_bulkhead_queue_limit                         gauge      0: nobody waits
//	firebreak_bulkhead_abandoned                           gauge      runs whose caller has left
//
// Counters count since the command was made. What a scrape says of one command is
// of one moment, so that no share exceeds its total: outcomes are the calls, and
// latencies are never more than the executed ones. A dependency's bulkhead is as full
// as any of its commands found it when they were read, one after the other; what
// these have in flight is never more than that.
//
// # Histograms
//
// Classic buckets are doublings from 0.52 ms to 17 s. They are edges of firebreak's
// own histogram, so no latency is in a bucket that is not its own (but one that is
// an edge to the nanosecond, which counts above it): sums of buckets over a fleet,
// and shares below an edge, are exact.
//
// Beside them are native histograms, for scrapes that ask for them. Their buckets
// are fixed by Prometheus: powers of two of a second, where ours are of a
// nanosecond. Each of our doublings goes to the native bucket that holds most of
// it, whose bounds are lower by 6.9 %; so native percentiles are that much too low,
// at most, on top of what a bucket's width leaves open. What took longer than 69 s
// counts as if it took up to 128 s.
//
// # Keyed commands
//
// A family of keyed commands is one command here: keys do not become labels. Its
// counters are those of all keys; the state, how many keys are in each. A counter
// never falls when a key makes way for another: what that had counted when it was
// scraped last, and what it counts afterwards, stays. Only a key that came and went
// between two scrapes is not seen. It lives for at least [firebreak.Config].Window,
// so scrape no less often than that (10 s unless set), and there is none.
//
// # Names
//
// A name that is not valid UTF-8 is quoted as Go would, since it must not cost
// everybody else the scrape.
package firebreakprom

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firebreak-go/firebreak"
)

//go:generate go run ./internal/ops/generate ../ops

// Options are what a [Collector] can be told. The zero value is ready.
type Options struct {
	// ConstLabels are on every metric; NewCollector copies them. Registries that are
	// shown side by side need different ones. A name that a metric has already, or one
	// that Prometheus does not take, is an error when the collector is registered.
	ConstLabels prometheus.Labels
}

// A Collector is a [prometheus.Collector] over one registry. It is to be registered
// once: again, or beside another over a registry with the same constant labels, is
// an error of Register. Its methods may be used concurrently, also with calls and
// updates; a scrape does not block calls. One of a thousand commands is 66,000
// series, of which the collector's part took 13 ms, and all of it, text included,
// 125 ms (BenchmarkScrape).
//
// Neither reading nor observing transitions costs calls anything (BenchmarkObserved).
// Close ends the observing.
type Collector struct {
	registry *firebreak.Registry
	descs    []*prometheus.Desc // of definitions, in their order
	moves    moves
	stop     func()

	mu        sync.Mutex // guards what follows, and one scrape against another
	scrapes   uint64
	families  map[string]*family   // by command
	bulkheads map[string]*bulkhead // by dependency
	pairs     pairs
}

// NewCollector makes a collector over reg, and begins to count the transitions of
// its circuits. It panics if reg is nil.
func NewCollector(reg *firebreak.Registry, o Options) *Collector {
	if reg == nil {
		panic("firebreakprom: a registry is needed")
	}
	c := &Collector{
		registry:  reg,
		families:  map[string]*family{},
		bulkheads: map[string]*bulkhead{},
		pairs:     pairs{},
	}
	for _, d := range definitions {
		c.descs = append(c.descs, prometheus.NewDesc(d.Name, d.Help, append(d.Of.Labels(), d.Labels...), o.ConstLabels))
	}
	c.stop = reg.Observe(firebreak.Observer{Transition: c.moves.note})
	return c
}

// Close ends the observing of transitions; they stay at what they are. All else is
// collected as before, so unregister the collector too if it is of no more use. It
// does not block, and may be called more than once.
func (c *Collector) Close() { c.stop() }

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	for _, m := range c.scrape() { // nothing is locked while whoever takes them is slow
		ch <- m
	}
}
