package firebreak

import (
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak/internal/histogram"
	"github.com/firebreak-go/firebreak/internal/mono"
	"github.com/firebreak-go/firebreak/internal/rolling"
	"github.com/firebreak-go/firebreak/internal/shard"
)

// An Outcome is how a call ended, each call in exactly one. There may be more one
// day.
type Outcome uint8

const (
	OutcomeSuccess        Outcome = iota + 1 // run returned nil in time
	OutcomeExpected                          // run's error is Expected: the dependency answered
	OutcomeIgnored                           // run's error is Ignored
	OutcomeFailure                           // any other error of run's
	OutcomeTimeout                           // the command's deadline passed before run succeeded
	OutcomePanic                             // run panicked or called runtime.Goexit
	OutcomeCanceled                          // run failed after the caller's cancel
	OutcomeCallerDeadline                    // run failed after a caller's deadline that was sooner than the command's
	OutcomeRejected                          // the bulkhead was full
	OutcomeShortCircuited                    // the circuit was open, or half-open with no probe free
	OutcomeShutdown                          // the registry was shutting down
	OutcomeGaveUp                            // the caller's context ended before run began
)

var outcomeWords = words{
	"", "success", "expected", "ignored", "failure", "timeout", "panic", "canceled", "caller_deadline",
	"rejected", "short_circuited", "shutdown", "gave_up",
}

// String returns the outcome as metrics write it: success, …, gave_up; "" for zero.
func (o Outcome) String() string { return outcomeWords.of(int(o)) }

// MarshalText returns String's word, "" for zero.
func (o Outcome) MarshalText() ([]byte, error) { return outcomeWords.text(int(o)) }

// executed tells whether run was called.
func (o Outcome) executed() bool { return o >= OutcomeSuccess && o <= OutcomeCallerDeadline }

// A Snapshot is one command at one moment; in it, outcomes sum to calls, and no
// part exceeds its whole. It is a plain value that nothing changes any more.
type Snapshot struct {
	Time       time.Time
	Dependency string
	Command    string
	Key        string // "" unless keyed, and in the snapshot of a family
	State      State
	Mode       Mode     // in force, by Override or Config
	Override   Override // in force; zero if none is
	Evidence   Evidence // of the last opening

	ErrorPercentage float64 // of good and bad calls in the circuit's window, 0 to 100; 0 without calls
	Window, Total   Counts  // in the rolling window; since the command was made

	// Of executed calls. Run is the time in run, to its end or to the caller's
	// leaving; Call includes waiting and fallbacks. Percentiles are of the last 40
	// to 60 seconds, histograms since the command was made.
	RunLatency, CallLatency     Percentiles
	RunHistogram, CallHistogram Histogram

	BatchSizes Sizes // of the batches of [Collapse], in the same time as percentiles

	InFlight    int      // runs of this command now, those whose caller has left included
	MaxInFlight int      // the most at once in the rolling window
	Fallbacks   int      // calls of this command that are in their fallbacks now
	Bulkhead    Bulkhead // the dependency's, the same in all its commands
}

// Bulkhead is a dependency's bulkhead at one moment.
type Bulkhead struct {
	Isolation   Isolation
	Limit       int // may be [Unlimited]
	InFlight    int // permits out, those of Abandoned runs included
	MaxInFlight int // the most at once in the rolling window
	Queued      int // calls that wait for a permit or a worker
	Abandoned   int // runs in a pool whose caller has left
}

// Counts are how many calls ended in each way, and what else happened.
type Counts struct {
	Success, Expected, Ignored, Failure, Timeout, Panic, Canceled, CallerDeadline uint64 // run was called
	Rejected, ShortCircuited, Shutdown, GaveUp                                    uint64 // it was not

	// Of the calls that were to be answered by a fallback, once it is known; missing
	// if none was given, or MaxFallbacks is Off.
	FallbackSuccess, FallbackFailure, FallbackRejected, FallbackMissing uint64

	Overran           uint64 // runs that returned nil after the deadline, or ended more than a tenth of Timeout after it
	WouldShortCircuit uint64 // calls that Shadow let pass
	Emitted           uint64 // items of streams
	CacheHits         uint64 // of [Cached]: what somebody else had asked for; no calls
	Batches           uint64 // of [Collapse]; each is a call
	Collapsed         uint64 // keys asked for that left in batches: whoever asks for the same key as another counts, too
	ObserverPanics    uint64 // panics of observers while they were told of this command
}

// Executed is the number of calls in which run was called.
func (c Counts) Executed() uint64 {
	return c.Success + c.Expected + c.Ignored + c.Failure + c.Timeout + c.Panic + c.Canceled + c.CallerDeadline
}

// Calls is the number of calls: nothing counts starts, they are the sum of the outcomes.
func (c Counts) Calls() uint64 {
	return c.Executed() + c.Rejected + c.ShortCircuited + c.Shutdown + c.GaveUp
}

// Percentiles are latencies by nearest rank, within 1.6 % from 1 µs to 6 days and
// 16 ns below. Mean is exact, within Min and Max. All are 0 without calls.
type Percentiles struct {
	Mean, Min, P25, P50, P75, P90, P95, P99, P995, Max time.Duration
}

// Sizes are how many keys batches had, by nearest rank, within 1.6 % and exact up to
// 30. All are 0 without batches.
type Sizes struct {
	Mean                                         float64
	Min, P25, P50, P75, P90, P95, P99, P995, Max int
}

// A Histogram counts latencies by upper bounds that double from 65.5 µs to 68.7 s.
type Histogram struct {
	Count uint64
	Sum   time.Duration // exact
	below [histogram.Bounds]uint64
}

// Buckets yields each upper bound and how many latencies were below it, shortest
// first. Those of no bucket were longer: there are Count in all.
func (h *Histogram) Buckets() iter.Seq2[time.Duration, uint64] {
	return func(yield func(time.Duration, uint64) bool) {
		for i, n := range h.below {
			if !yield(histogram.Bound(i), n) {
				return
			}
		}
	}
}

// An event is what is counted: the outcomes, under their own numbers, and what
// comes after. Those from firstFree to lastFree are counted without a lock, the
// refusals among them: they are the commonest of all when it matters most.
type event uint8

const (
	eventWouldShortCircuit = event(OutcomeGaveUp) + 1 + iota
	eventObserverPanic
	// A refusal that had no fallback, in one count instead of two.
	eventBareRejected
	eventBareShortCircuited
	eventBareShutdown
	eventFallbackSuccess
	eventFallbackFailure
	eventFallbackRejected
	eventFallbackMissing
	eventOverran
	eventEmitted
	eventCacheHit
	eventBatch
	eventCollapsed
	events

	firstFree = event(OutcomeRejected)
	lastFree  = eventBareShutdown
	frees     = lastFree - firstFree + 1
)

// metrics counts what happens to one command. It begins as one cell; more are
// opened where processors collide, and all of them together are the command's.
type metrics struct {
	base cell
	more atomic.Pointer[[maxCells]atomic.Pointer[cell]]

	sizes atomic.Pointer[sizes] // of batches; nil until there is one

	differs atomic.Bool  // some call's total was not its run: cells may have three histograms
	reading atomic.Int32 // readers, who hold a cell's lock for a microsecond

	mu     sync.Mutex // guards the opening of cells, and window
	window time.Duration
}

const maxCells = 8

// A cell is one processor's share of a command's metrics. Running and the free
// events are atomic; the rest has a lock, which its processor mostly has to itself:
// to take and leave it costs 5 ns, and every counter under it nothing more. So all
// that is read of a cell is of one moment.
type cell struct {
	begun  atomic.Uint64 // runs; what of them has ended may be counted in another cell
	free   [frees]atomic.Uint64
	window atomic.Pointer[buckets] // nil until something is counted

	mu      sync.Mutex
	ended   uint64                 // runs
	held    [events - frees]uint64 // outcomes of executed calls, then what is after the free events
	latency *latencies             // nil until something is timed
}

// buckets is what a cell's counters were when each bucket of the rolling window
// began, modulo 2^32: the window is what they are now, less what they were.
type buckets struct {
	ring   rolling.Ring // but for Holds, guarded by the cell's mu; so is begins
	begins [rolling.Buckets][events]uint32
	most   [rolling.Buckets]int // runs of the command at once; in the first cell
}

// latencies are a cell's histograms: of calls whose total is their run, and, for
// the others, of each.
type latencies struct {
	ring         rolling.Ring
	plain        histogram.Histogram
	runs, totals *histogram.Histogram // nil until first needed
}

// latencySlot: three slots of it are the last minute, or the 40 s of it that are over.
const latencySlot = 20 * time.Second

func (m *metrics) init(window time.Duration) {
	m.window = window
}

// cell returns the caller's.
func (m *metrics) cell() *cell {
	if m.more.Load() == nil {
		return &m.base
	}
	return m.oneOfMore()
}

func (m *metrics) oneOfMore() *cell {
	if c := m.more.Load()[shard.Index(maxCells)].Load(); c != nil {
		return c
	}
	return m.open()
}

// open makes the caller's cell, after a collision.
func (m *metrics) open() *cell {
	m.mu.Lock()
	defer m.mu.Unlock()
	more := m.more.Load()
	if more == nil {
		more = new([maxCells]atomic.Pointer[cell])
		m.more.Store(more)
	}
	at := &more[shard.Index(maxCells)]
	if at.Load() == nil {
		at.Store(new(cell))
	}
	return at.Load()
}

// cells yields all there are.
func (m *metrics) cells(yield func(*cell) bool) {
	if !yield(&m.base) {
		return
	}
	if more := m.more.Load(); more != nil {
		for i := range more {
			if c := more[i].Load(); c != nil && !yield(c) {
				return
			}
		}
	}
}

// end counts a run that is over, without an outcome.
func (m *metrics) end(c *cell, now mono.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.rollLocked(c, now)
	m.endLocked(c)
}

// endLocked counts a run that is over. While there is one cell it also sees how
// many there were.
func (m *metrics) endLocked(c *cell) {
	if m.more.Load() == nil {
		c.noteLocked(int(c.begun.Load() - c.ended))
	}
	c.ended++
}

// noteLocked keeps the maximum of the newest bucket.
func (c *cell) noteLocked(running int) {
	w := c.window.Load()
	if most := &w.most[w.ring.Newest()]; running > *most {
		*most = running
	}
}

// inFlight sums what runs.
func (m *metrics) inFlight() int {
	var n uint64
	for c := range m.cells {
		c.mu.Lock()
		n += c.begun.Load() - c.ended // may be below zero in one cell
		c.mu.Unlock()
	}
	return max(int(n), 0)
}

// tally counts a free event in c, if nothing stands in the way.
func (c *cell) tally(e event, now mono.Time) bool {
	w := c.window.Load()
	if w == nil || !w.ring.Holds(now) {
		return false
	}
	n := &c.free[e-firstFree]
	v := n.Load()
	return n.CompareAndSwap(v, v+1)
}

// count counts a free event, whatever stands in the way: a bucket that has to
// begin, or another processor, and then there is to be a further cell.
func (m *metrics) count(e event, now mono.Time) *cell {
	c := m.cell()
	if w := c.window.Load(); w != nil && w.ring.Holds(now) {
		if c.tally(e, now) {
			return c
		}
		c = m.open()
	}
	m.roll(c, now)
	c.free[e-firstFree].Add(1)
	return c
}

// roll makes sure that now's bucket has begun.
func (m *metrics) roll(c *cell, now mono.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.rollLocked(c, now)
}

func (m *metrics) rollLocked(c *cell, now mono.Time) {
	w := c.window.Load()
	if w == nil {
		w = &buckets{}
		w.ring.Init(m.bucket(), rolling.Buckets)
	} else if w.ring.Holds(now) {
		return
	}
	w.ring.Advance(now, func(slot int) {
		w.most[slot] = 0
		for e := range events {
			w.begins[slot][e] = uint32(c.countLocked(e))
		}
	})
	c.window.Store(w)
}

func (m *metrics) bucket() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.window / rolling.Buckets
}

func (c *cell) countLocked(e event) uint64 {
	if e >= firstFree && e <= lastFree {
		return c.free[e-firstFree].Load()
	}
	if e > lastFree {
		e -= frees
	}
	return c.held[e]
}

// resize begins the rolling values again, with a window of another length.
func (m *metrics) resize(window time.Duration) {
	m.mu.Lock()
	m.window = window
	m.mu.Unlock()
	for c := range m.cells {
		c.mu.Lock()
		c.window.Store(nil)
		c.mu.Unlock()
	}
}

// lock takes the lock of a cell for a call that ends: of its own, or, if another
// processor has that, of one that it opens. A reader is worth a short wait: it must
// not make every scrape open cells. Nobody waits for a goroutine that was taken off
// its processor with the lock held.
func (m *metrics) lock(c *cell) *cell {
	for range 3 {
		if m.reading.Load() == 0 {
			break
		}
		runtime.Gosched()
		if c.mu.TryLock() {
			return c
		}
	}
	c = m.open()
	c.mu.Lock()
	return c
}

// executed counts the outcome of a call, with its latency, and its run as ended if
// that is over; in its cell or one near it, and returns which.
func (m *metrics) executed(call *call, run time.Duration) *cell {
	c := call.cell
	if !c.mu.TryLock() {
		c = m.lock(c)
	}
	if w := c.window.Load(); w == nil || !w.ring.Holds(call.now) {
		m.rollLocked(c, call.now)
	}
	if !call.goesOn() {
		m.endLocked(c)
	}
	c.held[call.outcome]++
	if call.missing {
		c.held[eventFallbackMissing-frees]++
	}
	if call.overran {
		c.held[eventOverran-frees]++
	}
	l := c.latency
	if l == nil || !l.ring.Holds(call.now) {
		l = c.retireLocked(call.now)
	}
	if slot := l.ring.Newest(); !call.asks && call.started == call.submitted {
		l.plain.Record(slot, run)
	} else {
		m.splitLocked(l)
		l.runs.Record(slot, run)
		if !call.asks {
			l.totals.Record(slot, call.now.Sub(call.submitted))
		}
	}
	c.mu.Unlock()
	return c
}

// add counts an event after the free ones, which has come of a call counted in c,
// and the call's total if that was pending. In the same cell, so that no reader sees
// it without the call.
func (m *metrics) add(c *cell, now mono.Time, e event, pending bool, total time.Duration) {
	c.mu.Lock()
	m.rollLocked(c, now)
	c.held[e-frees]++
	if pending {
		l := c.retireLocked(now)
		m.splitLocked(l)
		l.totals.Record(l.ring.Newest(), total)
	}
	c.mu.Unlock()
}

// also counts n of an event after the free ones that is no call's end.
func (m *metrics) also(e event, n uint64, now mono.Time) {
	c := m.cell()
	if !c.mu.TryLock() {
		c = m.lock(c)
	}
	m.rollLocked(c, now)
	c.held[e-frees] += n
	c.mu.Unlock()
}

// retireLocked makes sure that now's slot has begun.
func (c *cell) retireLocked(now mono.Time) *latencies {
	l := c.latency
	if l == nil {
		l = &latencies{}
		l.ring.Init(latencySlot, histogram.Slots)
		c.latency = l
	}
	if !l.ring.Holds(now) {
		l.ring.Advance(now, l.retire)
	}
	return l
}

func (l *latencies) retire(slot int) {
	for _, h := range [...]*histogram.Histogram{&l.plain, l.runs, l.totals} {
		if h != nil {
			h.Retire(slot)
		}
	}
}

func (m *metrics) splitLocked(l *latencies) {
	if l.runs == nil {
		m.differs.Store(true)
		l.runs, l.totals = new(histogram.Histogram), new(histogram.Histogram)
	}
}

// shortCircuited is how many calls ever were.
func (m *metrics) shortCircuited() (n uint64) {
	for c := range m.cells {
		n += c.free[event(OutcomeShortCircuited)-firstFree].Load() + c.free[eventBareShortCircuited-firstFree].Load()
	}
	return n
}

// A reading adds up the metrics of a command, or of a family of them, on the
// reader's stack.
type reading struct {
	now           mono.Time
	differs       bool // some call's total was not its run; else runs are the totals
	window, total [events]uint64
	running       uint64 // begun less ended
	most          int    // at once in one command, as far as its calls saw it
	runs, totals  histogram.Merge
	past          family // what is no command's any more
}

// add adds a command. Each cell is read at one moment; and as what comes of a call
// is counted in the call's cell, no part exceeds its whole in the sum either.
func (r *reading) add(m *metrics) {
	m.reading.Add(1)
	defer m.reading.Add(-1)
	for c := range m.cells {
		c.mu.Lock()
		r.addCellLocked(c)
		c.mu.Unlock()
	}
}

func (r *reading) addCellLocked(c *cell) {
	if l := c.latency; l != nil {
		var live [histogram.Slots]bool
		for slot := range l.ring.Live(r.now) {
			live[slot] = true
		}
		l.plain.AddTo(&r.runs, live)
		if l.runs != nil {
			l.runs.AddTo(&r.runs, live)
		}
		if r.differs {
			l.plain.AddTo(&r.totals, live)
			if l.totals != nil {
				l.totals.AddTo(&r.totals, live)
			}
		}
	}
	var now [events]uint64
	for e := range events {
		now[e] = c.countLocked(e)
		r.total[e] += now[e]
	}
	if w := c.window.Load(); w != nil {
		if slot, ok := w.ring.Oldest(r.now); ok {
			for e := range events {
				r.window[e] += uint64(uint32(now[e]) - w.begins[slot][e])
			}
		}
		for slot := range w.ring.Live(r.now) {
			r.most = max(r.most, w.most[slot])
		}
	}
	r.running += c.begun.Load() - c.ended
}

// into fills in what a reading says.
func (r *reading) into(s *Snapshot) {
	for e, n := range r.past.total {
		r.total[e] += n
	}
	s.InFlight = max(int(r.running), 0)
	s.MaxInFlight = max(s.InFlight, r.most)
	s.Window, s.Total = countsOf(&r.window), countsOf(&r.total)
	s.RunLatency, s.RunHistogram = Percentiles(r.runs.Percentiles()), histogramOf(&r.runs, &r.past.runs)
	s.CallLatency, s.CallHistogram = s.RunLatency, s.RunHistogram
	if r.differs {
		s.CallLatency, s.CallHistogram = Percentiles(r.totals.Percentiles()), histogramOf(&r.totals, &r.past.totals)
	}
}

func countsOf(n *[events]uint64) Counts {
	return Counts{
		Success: n[OutcomeSuccess], Expected: n[OutcomeExpected], Ignored: n[OutcomeIgnored], Failure: n[OutcomeFailure],
		Timeout: n[OutcomeTimeout], Panic: n[OutcomePanic], Canceled: n[OutcomeCanceled], CallerDeadline: n[OutcomeCallerDeadline],
		Rejected:        n[OutcomeRejected] + n[eventBareRejected],
		ShortCircuited:  n[OutcomeShortCircuited] + n[eventBareShortCircuited],
		Shutdown:        n[OutcomeShutdown] + n[eventBareShutdown],
		GaveUp:          n[OutcomeGaveUp],
		FallbackSuccess: n[eventFallbackSuccess], FallbackFailure: n[eventFallbackFailure], FallbackRejected: n[eventFallbackRejected],
		FallbackMissing: n[eventFallbackMissing] + n[eventBareRejected] + n[eventBareShortCircuited] + n[eventBareShutdown],
		Overran:         n[eventOverran], WouldShortCircuit: n[eventWouldShortCircuit], ObserverPanics: n[eventObserverPanic],
		Emitted: n[eventEmitted], CacheHits: n[eventCacheHit], Batches: n[eventBatch], Collapsed: n[eventCollapsed],
	}
}

func histogramOf(m *histogram.Merge, past *histogram.Cumulative) Histogram {
	c := m.Cumulative()
	c.Add(past)
	h := Histogram{Count: c.Count, Sum: c.Sum}
	for i := range h.below {
		h.below[i] = c.At(i)
	}
	return h
}

// Snapshot is how the command and its dependency are doing now. It allocates
// nothing, costs callers nothing and moves no state.
func (c *Command) Snapshot() Snapshot {
	now := c.clock.Now()
	is := c.circuit.read(now) // first: what it has refused is part of what is counted
	r := reading{now: now, differs: c.metrics.differs.Load()}
	r.add(&c.metrics)
	if !r.differs && c.metrics.differs.Load() { // since: a total that is pending may be among the runs
		r = reading{now: now, differs: true}
		r.add(&c.metrics)
	}
	s := Snapshot{Time: c.clock.Moment(now), Dependency: c.dependency.name, Command: c.family, Key: c.key}
	r.into(&s)

	s.State, s.Mode, s.Override, s.Evidence = is.state, is.mode, is.override, is.evidence
	if calls := is.health.Good + is.health.Bad; calls > 0 {
		s.ErrorPercentage = 100 * float64(is.health.Bad) / float64(calls)
	}
	c.metrics.noteRunning(now, s.InFlight)
	s.Fallbacks = c.fallbacks.inUse()
	if c.metrics.sizes.Load() != nil {
		s.BatchSizes = sizesOf(now, c)
	}
	s.Bulkhead = c.dependency.bulkhead.read(now)
	return s
}

// sizes are how many keys batches had.
type sizes struct {
	mu        sync.Mutex
	ring      rolling.Ring
	histogram histogram.Histogram
}

// perKey is a key in a histogram of times, whose first microsecond is coarse.
const perKey = time.Microsecond

// batch counts a batch that leaves: its keys, and who asked for them.
func (m *metrics) batch(keys int, askers uint64, now mono.Time) {
	m.also(eventBatch, 1, now)
	m.also(eventCollapsed, askers, now)
	s := m.sizes.Load()
	if s == nil {
		s = &sizes{}
		s.ring.Init(latencySlot, histogram.Slots)
		if !m.sizes.CompareAndSwap(nil, s) {
			s = m.sizes.Load()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ring.Holds(now) {
		s.ring.Advance(now, s.histogram.Retire)
	}
	s.histogram.Record(s.ring.Newest(), time.Duration(keys)*perKey)
}

// addTo adds what the last minute had.
func (s *sizes) addTo(sum *histogram.Merge, now mono.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var live [histogram.Slots]bool
	for slot := range s.ring.Live(now) {
		live[slot] = true
	}
	s.histogram.AddTo(sum, live)
}

// sizesOf reads the batches of some commands. It is apart from a reading because few
// have any.
func sizesOf(now mono.Time, all ...*Command) Sizes {
	var sum histogram.Merge
	for _, cmd := range all {
		if s := cmd.metrics.sizes.Load(); s != nil {
			s.addTo(&sum, now)
		}
	}
	p := sum.Percentiles()
	keys := func(d time.Duration) int { return int((d + perKey/2) / perKey) }
	return Sizes{
		Mean: float64(p.Mean) / float64(perKey),
		Min:  keys(p.Min), P25: keys(p.P25), P50: keys(p.P50), P75: keys(p.P75), P90: keys(p.P90),
		P95: keys(p.P95), P99: keys(p.P99), P995: keys(p.P995), Max: keys(p.Max),
	}
}

// quiet tells whether nothing was counted in the window that ends now.
func (m *metrics) quiet(now mono.Time) bool {
	for c := range m.cells {
		if !c.quiet(now) {
			return false
		}
	}
	return true
}

func (c *cell) quiet(now mono.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.window.Load()
	if w == nil {
		return true
	}
	slot, ok := w.ring.Oldest(now)
	if !ok {
		return true
	}
	for e := range events {
		if uint32(c.countLocked(e)) != w.begins[slot][e] {
			return false
		}
	}
	return true
}

// noteRunning keeps the maximum where runs are counted in many cells, and no call
// sees how many there are.
func (m *metrics) noteRunning(now mono.Time, running int) {
	if m.more.Load() == nil {
		return
	}
	c := &m.base
	c.mu.Lock()
	defer c.mu.Unlock()
	m.rollLocked(c, now)
	c.noteLocked(running)
}
