package firebreakprom

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakprom/internal/metric"
)

// A family is a command, or all the keys of a keyed one. It is there for good, as
// commands are.
type family struct {
	keyed    bool
	bulkhead *bulkhead  // its dependency's
	series   [][]series // for each definition that is a command's
	moved    *moved
	keys     map[*firebreak.Command]*key // those that a scrape has seen; nil unless keyed
	past     sums                        // of keys that are gone and at rest
	scraped  uint64                      // the last scrape that found it
	now      reading                     // of that
}

// A key is a command of one key. Its handle still tells its counts after it made
// way for another.
type key struct {
	scraped uint64    // when it was there last
	gone    time.Time // when it was found gone; zero if it is there
}

// sums are what only grows.
type sums struct {
	counts    firebreak.Counts
	run, call latencies
}

func (s *sums) add(o *firebreak.Snapshot) {
	addCounts(&s.counts, &o.Total)
	s.run.add(&o.RunHistogram)
	s.call.add(&o.CallHistogram)
}

func (s *sums) merge(o *sums) {
	addCounts(&s.counts, &o.counts)
	s.run.merge(&o.run)
	s.call.merge(&o.call)
}

func addCounts(to, c *firebreak.Counts) {
	to.Success += c.Success
	to.Expected += c.Expected
	to.Ignored += c.Ignored
	to.Failure += c.Failure
	to.Timeout += c.Timeout
	to.Panic += c.Panic
	to.Canceled += c.Canceled
	to.CallerDeadline += c.CallerDeadline
	to.Rejected += c.Rejected
	to.ShortCircuited += c.ShortCircuited
	to.Shutdown += c.Shutdown
	to.GaveUp += c.GaveUp
	to.FallbackSuccess += c.FallbackSuccess
	to.FallbackFailure += c.FallbackFailure
	to.FallbackRejected += c.FallbackRejected
	to.FallbackMissing += c.FallbackMissing
	to.Overran += c.Overran
	to.WouldShortCircuit += c.WouldShortCircuit
	to.Emitted += c.Emitted
	to.CacheHits += c.CacheHits
	to.Batches += c.Batches
	to.Collapsed += c.Collapsed
	to.ObserverPanics += c.ObserverPanics
}

// A reading is a family in one scrape.
type reading struct {
	sums
	config     firebreak.Config
	keyed      bool
	inFlight   int
	fallbacks  int
	states     [3]int // by State
	overrides  [5]int // in the order of CircuitOverride's series
	errorRatio float64
	moved      *moved
}

// add adds a command that is there.
func (r *reading) add(s *firebreak.Snapshot) {
	r.sums.add(s)
	r.inFlight += s.InFlight
	r.fallbacks += s.Fallbacks
	if int(s.State) < len(r.states) {
		r.states[s.State]++
	}
	if m := int(s.Override.Mode); m >= int(firebreak.Auto) && m <= int(firebreak.Shadow) {
		r.overrides[m-int(firebreak.Auto)]++
	}
	if s.Override.Inject != nil {
		r.overrides[len(r.overrides)-1]++
	}
	r.errorRatio = max(r.errorRatio, s.ErrorPercentage/100)
}

// addGone adds a key that made way: it has counts, perhaps runs, but no circuit.
func (r *reading) addGone(s *firebreak.Snapshot) {
	r.sums.add(s)
	r.inFlight += s.InFlight
	r.fallbacks += s.Fallbacks
}

// A bulkhead is a dependency's.
type bulkhead struct {
	series  [][]series // for each definition that is a dependency's
	scraped uint64     // the last scrape that found it
	now     bulkheadReading
}

// A bulkheadReading is a dependency's bulkhead in one scrape: the fullest that its
// commands found, which were read one after the other.
type bulkheadReading struct {
	firebreak.Bulkhead
	queue   int // how many may wait
	granted int // to commands: see grant
}

func (r *bulkheadReading) add(b firebreak.Bulkhead) {
	if b.InFlight >= r.InFlight {
		r.Bulkhead = b
	}
}

// grant is how many of a command's runs there can be beside those of the commands
// before. Each was read at a moment of its own, and permits may have been seen twice:
// what the commands have together is to be no more than what is out.
func (r *bulkheadReading) grant(inFlight int) int {
	n := min(inFlight, r.InFlight-r.granted)
	r.granted += n
	return n
}

// scrape reads the registry and returns everything that is to be said of it.
func (c *Collector) scrape() []prometheus.Metric {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scrapes++
	var (
		families  []*family
		bulkheads []*bulkhead
	)
	for cmd := range c.registry.Commands() {
		s := cmd.Snapshot()
		f := c.family(cmd, &s)
		b := f.bulkhead
		if f.scraped != c.scrapes {
			f.scraped = c.scrapes
			f.now = reading{config: cmd.Config(), keyed: f.keyed, moved: f.moved} // the same for all keys
			families = append(families, f)
		}
		if b.scraped != c.scrapes {
			b.scraped = c.scrapes
			b.now = bulkheadReading{queue: max(0, f.now.config.QueueSize)}
			bulkheads = append(bulkheads, b)
		}
		if f.keyed {
			f.seen(cmd, c.scrapes)
		}
		f.now.add(&s)
		b.now.add(s.Bulkhead)
	}
	var out []prometheus.Metric
	for _, f := range families {
		f.lookBack(c.scrapes)
		f.now.inFlight = f.bulkhead.now.grant(f.now.inFlight)
		out = emit(out, f.series, f.now.fill)
		f.now = reading{}
	}
	for _, b := range bulkheads {
		out = emit(out, b.series, b.now.fill)
	}
	return out
}

func (c *Collector) family(cmd *firebreak.Command, s *firebreak.Snapshot) *family {
	f := c.families[s.Command]
	if f == nil {
		f = &family{
			keyed:    cmd.Name() != s.Command, // Key says nothing: an empty one is a key too
			bulkhead: c.bulkhead(s.Dependency),
			series:   c.series(metric.OfCommand, label(s.Dependency), label(s.Command)),
			moved:    c.moves.command(s.Command),
		}
		if f.keyed {
			f.keys = map[*firebreak.Command]*key{}
		}
		c.families[s.Command] = f
	}
	return f
}

func (c *Collector) bulkhead(dependency string) *bulkhead {
	b := c.bulkheads[dependency]
	if b == nil {
		b = &bulkhead{series: c.series(metric.OfDependency, label(dependency))}
		c.bulkheads[dependency] = b
	}
	return b
}

// series makes an owner's, for each definition that is of its kind.
func (c *Collector) series(of metric.Owner, owner ...string) [][]series {
	all := make([][]series, len(definitions))
	for i, d := range definitions {
		if d.Of == of {
			all[i] = c.pairs.series(c.descs[i], d.Metric, owner...)
		}
	}
	return all
}

func (f *family) seen(cmd *firebreak.Command, scrape uint64) {
	if f.keys[cmd] == nil {
		f.keys[cmd] = &key{}
	}
	f.keys[cmd].scraped = scrape
}

// lookBack adds the keys that are gone. What they had admitted may still be counted,
// so their handles are kept until they have been at rest for a window.
func (f *family) lookBack(scrape uint64) {
	for cmd, k := range f.keys {
		if k.scraped == scrape {
			continue
		}
		s := cmd.Snapshot()
		if k.gone.IsZero() {
			k.gone = s.Time
		}
		atRest := s.InFlight == 0 && s.Fallbacks == 0 && s.Window == firebreak.Counts{}
		if atRest && s.Time.Sub(k.gone) >= f.now.config.Window {
			f.past.add(&s)
			delete(f.keys, cmd)
			continue
		}
		f.now.addGone(&s)
	}
	f.now.merge(&f.past)
}

// emit adds the samples of an owner to out; fill has their values. What it leaves at
// NaN is absent.
func emit(out []prometheus.Metric, all [][]series, fill func(*definition, []float64) *dto.Histogram) []prometheus.Metric {
	n := 0
	for _, of := range all {
		n += len(of)
	}
	samples := make([]sample, n) // one piece of memory for all of them
	var values [maxSeries]float64
	for i, of := range all {
		if of == nil {
			continue
		}
		into := values[:len(of)]
		clear(into)
		histogram := fill(&definitions[i], into)
		for j := range of {
			if math.IsNaN(into[j]) {
				continue
			}
			s := &samples[0]
			samples = samples[1:]
			*s = sample{&of[j], into[j], histogram}
			out = append(out, s)
		}
	}
	return out
}
