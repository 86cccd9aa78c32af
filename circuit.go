package firebreak

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak/internal/mono"
	"github.com/firebreak-go/firebreak/internal/rolling"
)

// State is the state of a circuit breaker. It begins closed.
//
//	        a rule holds
//	closed ─────────────────────────────▶ open ◀──────┐
//	  ▲                                    │          │
//	  │                    a call comes    │          │ a probe fails
//	  │ all probes         after the sleep ▼          │
//	  └─── succeed ─────────────────── half-open ─────┘
type State uint8

const (
	StateClosed   State = iota // calls pass and are judged
	StateOpen                  // calls are short-circuited
	StateHalfOpen              // a few calls pass as probes, the others are short-circuited
)

var stateWords = words{"closed", "open", "half_open"}

// String returns closed, open or half_open.
func (s State) String() string { return stateWords.of(int(s)) }

// MarshalText returns String's word.
func (s State) MarshalText() ([]byte, error) { return stateWords.text(int(s)) }

// Evidence is why a circuit opened. In an open circuit it is also when the next
// probe may go.
type Evidence struct {
	Rule      string    // error percentage, slow calls, consecutive failures, evidence, probe; "" if it never opened
	LastError string    // the text of the last failure before it opened; "" if there was none
	At        time.Time // when it opened
	NextProbe time.Time // from when on the next call probes
	Calls     uint64    // in the window at At, those that count: good and bad
	Failures  uint64    // of Calls
	Slow      uint64    // of Calls
	Refused   uint64    // short-circuited since At
}

const (
	ruleErrors      = "error percentage"
	ruleSlow        = "slow calls"
	ruleConsecutive = "consecutive failures"
	ruleEvidence    = "evidence"
	ruleProbe       = "probe"
)

// health is what an outcome is to the circuit.
type health uint8

const (
	neutral health = iota
	good
	bad
)

// A circuit is the circuit breaker of one command.
//
// What a call needs is in the present era, behind one pointer; which era that is
// changes under mu alone, so of many goroutines with reason to change it exactly
// one does. A call takes its era along in a token: what it records goes to that
// era's window, and it decides only while that era is still the present one.
type circuit struct {
	era      atomic.Pointer[era]
	override atomic.Pointer[override] // in force; nil mostly, and then no admission reads the clock
	special  atomic.Bool              // an override is in force, or Shadow
	shadow   atomic.Bool              // the mode in force is Shadow

	cmd *Command // for its name, clock, counts and observers

	mu           sync.Mutex
	mode         Mode            // Config's
	telling      bool            // somebody tells the news
	health       *rolling.Window // of the last era that had one
	evidence     *Evidence       // of the last opening; nil if there was none
	refused      uint64          // short circuits counted before that
	failedProbes int             // in a row; steps of growth of the sleep window
	closedAt     mono.Time       // when it last became closed
	news         []news          // not told yet
}

// eraKind is a State, and who wants it so.
type eraKind uint8

const (
	eraClosed eraKind = iota
	eraForcedClosed
	eraOpen
	eraHalfOpen
	eraForcedOpen
	eraShut    // the registry shuts down: the last era
	eraRetired // the command made way for another key: calls go on under that
)

func (k eraKind) state() State {
	switch k {
	case eraClosed, eraForcedClosed, eraRetired:
		return StateClosed
	case eraHalfOpen:
		return StateHalfOpen
	}
	return StateOpen
}

// An era is the time between two changes of a circuit's state.
type era struct {
	kind eraKind

	// Of closed eras.
	lacking atomic.Bool     // the last judgement lacked nothing but volume
	window  *rolling.Window // health
	inARow  atomic.Int64    // failures since the last success
	last    lastFailure

	// Of eras that refuse.
	door atomic.Pointer[door]

	// Of half-open eras; guarded by circuit.mu.
	probes    int // how many must succeed
	succeeded int
	leases    []*lease
}

func (e *era) admits() bool { return e.kind <= eraForcedClosed }

// A door refuses calls until a moment. It is never changed, only replaced.
type door struct {
	opens   mono.Time
	wait    time.Duration // how long it was shut for when it was made
	outcome Outcome       // of the calls that it refuses
	err     *Error        // what it tells them: made once, shared
}

// shut tells whether the door refuses at now. A wait that is longer than it ever
// was is a clock that went back: it counts as over, and begins again (S40).
func (d *door) shut(now mono.Time) bool {
	return d.opens == mono.Never || uint64(d.opens-now-1) < uint64(d.wait) // 0 < left ≤ wait
}

// A lease is the place of a probe in a half-open era.
type lease struct {
	ends   mono.Time
	length time.Duration
}

// live tells whether the place is still the probe's. A lease whose end is further
// away than it was long begins again: the clock went back (S40).
func (l *lease) live(now mono.Time) bool {
	if l.ends.Sub(now) > l.length {
		l.ends = now.Add(l.length)
	}
	return l.ends > now
}

// A token is what the circuit hands an admitted call, to be spent once.
type token struct {
	era   *era
	lease *lease // of a probe
	blind bool   // Shadow let the call pass: it decides nothing
}

// init begins the first era; that is no transition.
func (c *circuit) init(cmd *Command, mode Mode, shut bool, now mono.Time) {
	c.cmd, c.mode = cmd, mode
	c.closeLocked(now)
	c.modeLocked(now)
	if shut {
		c.shut(now)
	}
	c.news = nil
}

// present returns the present era. It is simple if that decides alone, without an
// override or Shadow: then a closed circuit admits a call without a clock, a lock or
// a write, and a shut door refuses it.
func (c *circuit) present() (e *era, simple bool) {
	return c.era.Load(), !c.special.Load()
}

// admit decides on a call at call.now. It gives it its token, or returns the door
// that is shut for it.
func (c *circuit) admit(call *call) *door {
	now := call.now
	counted := call.token.blind // where the call waited and asks again
	call.token = token{}
	if o := c.override.Load(); o != nil {
		if o = c.overrideAt(o, now); o != nil {
			call.inject = o.Inject
		}
	}
	for {
		e := c.era.Load()
		if e.admits() {
			call.token.era = e
			return nil
		}
		if d := e.door.Load(); d.shut(now) {
			if !c.shadowing(e) {
				return d
			}
			call.token = token{era: e, blind: true}
			if !counted {
				c.cmd.metrics.count(eventWouldShortCircuit, now)
			}
			return nil
		}
		if t, ok := c.probe(e, now, call.set); ok {
			call.token = t
			return nil
		}
		// Somebody else took the last place or moved the state: look again.
	}
}

// changed tells whether the circuit has news for a call that it admitted (S3).
func (c *circuit) changed(t token) bool { return c.era.Load() != t.era }

// probe gives the call a place as a probe, opening the half-open era if need be.
func (c *circuit) probe(e *era, now mono.Time, set *settings) (t token, ok bool) {
	told := false
	defer func() {
		if !told { // an observer called Goexit: there will be no call
			c.giveBack(t, now)
		}
	}()
	c.mu.Lock()
	defer func() {
		c.tell()
		told = true
	}()
	defer c.mu.Unlock()
	if c.era.Load() != e || e.door.Load().shut(now) {
		return token{}, false
	}
	if e.kind == eraOpen {
		if d := e.door.Load(); d.opens > now { // the clock went back: the sleep begins again (S40)
			c.shutLocked(e, now.Add(d.wait), d.wait)
			c.evidence.NextProbe = c.cmd.clock.Moment(now.Add(d.wait))
			return token{}, false
		}
		e = &era{kind: eraHalfOpen, probes: e.probes}
		e.door.Store(&door{opens: now}) // before anybody can see the era
		c.beginLocked(e, now)
	}
	e.leases = slices.DeleteFunc(e.leases, func(l *lease) bool { return !l.live(now) })
	if len(e.leases)+e.succeeded >= e.probes {
		c.placesLocked(e, now)
		return token{}, false
	}
	l := &lease{ends: now.Add(set.sleep.lease), length: set.sleep.lease}
	e.leases = append(e.leases, l)
	c.placesLocked(e, now)
	return token{era: e, lease: l}, true
}

// placesLocked shuts the door of a half-open era until the first lease ends, if
// all places are taken, and opens it otherwise.
// Invariant: live leases never outnumber probes.
func (c *circuit) placesLocked(e *era, now mono.Time) {
	if len(e.leases)+e.succeeded < e.probes {
		e.door.Store(&door{opens: now})
		return
	}
	first := mono.Never
	for _, l := range e.leases {
		first = min(first, l.ends)
	}
	c.shutLocked(e, first, max(0, first.Sub(now))) // one that has ended shuts nobody out
}

func (c *circuit) shutLocked(e *era, opens mono.Time, wait time.Duration) {
	d := &door{opens: opens, wait: wait, outcome: OutcomeShortCircuited, err: &Error{
		Command: c.cmd.name, Reason: ErrOpen, RetryAt: c.cmd.clock.Moment(opens),
	}}
	if e.kind == eraShut {
		d.outcome, d.err.Reason = OutcomeShutdown, ErrShutdown
	}
	e.door.Store(d)
}

// giveBack spends the token of a call that says nothing about the dependency: it
// was refused further in, or ended neutral. A probe's place is free again at once.
func (c *circuit) giveBack(t token, now mono.Time) {
	if t.lease != nil {
		c.settleProbe(t, neutral, &judgement{now: now})
	}
}

// A judgement is what the circuit is told of one outcome.
type judgement struct {
	now  mono.Time
	err  error         // of a bad outcome
	hint time.Duration // of RetryAfter
	set  *settings
}

// notBefore is the moment that the hint names, or noHint.
func (j *judgement) notBefore() mono.Time {
	if j.hint <= 0 {
		return noHint
	}
	return j.now.Add(j.hint)
}

// noHint is before every moment.
const noHint mono.Time = math.MinInt64

// plain: it is no probe's, and not let pass by Shadow. A good outcome then writes its
// era's window and, if the era is calm, nothing else.
func (t *token) plain() bool { return t.lease == nil && !t.blind }

// calm: no failure since the last success, and no judgement waits for volume. It is
// asked after the outcome is in the window: either this sees the flag go up, or the
// judgement that sends it up sees the outcome.
func (e *era) calm() bool { return e.inARow.Load() == 0 && !e.lacking.Load() }

// calm is what a good outcome does to an era that is not.
func (c *circuit) calm(e *era, j *judgement) {
	if e.inARow.Load() != 0 {
		e.inARow.Store(0)
	}
	if e.lacking.Load() {
		c.judge(e, j)
	}
}

// record spends the token of an executed call, and notes in it whether there may be
// news.
func (c *circuit) record(call *call, h health, slow bool, end *ending) {
	c.spend(call, h, slow, end)
	if c.era.Load() != call.token.era {
		call.tells = true
	}
}

func (c *circuit) spend(call *call, h health, slow bool, end *ending) {
	j := judgement{now: call.now, err: end.cause, hint: end.hint, set: call.set}
	e := call.token.era
	switch {
	case call.token.lease != nil:
		c.settleProbe(call.token, h, &j)
		return
	case h == neutral || call.token.blind:
		return
	}
	e.window.Add(call.now, h == bad, slow)
	if h == good {
		c.calm(e, &j)
		if !slow {
			return
		}
	} else {
		e.inARow.Add(1)
		e.last.note(&j)
	}
	c.judge(e, &j)
}

// judge opens the circuit if a rule holds (S29).
func (c *circuit) judge(e *era, j *judgement) {
	if e.kind != eraClosed || c.era.Load() != e {
		return // forced closed is never judged, another era not by this outcome
	}
	rule, lacking := j.set.rules.judge(e.window.Sum(j.now), e.inARow.Load())
	if rule == "" && lacking == e.lacking.Load() {
		return
	}
	// The text is asked for before the lock: it is user code.
	err, hint := e.last.read()
	text := errorText(err)

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.era.Load() != e {
		return
	}
	// The flag goes up before the sums are taken again: a good outcome either sees
	// it, and judges, or is in the sums.
	e.lacking.Store(true)
	sum := e.window.Sum(j.now)
	rule, lacking = j.set.rules.judge(sum, e.inARow.Load())
	if !lacking {
		e.lacking.Store(false)
	}
	if rule == "" {
		return
	}
	if closedFor := j.now.Sub(c.closedAt); closedFor > 0 {
		steps := int64(closedFor / c.cmd.settings.Load().sleep.window)
		c.failedProbes = max(0, c.failedProbes-int(min(steps, math.MaxInt32)))
	}
	c.openLocked(j, rule, sum, text, hint)
}

// judge returns the rule that trips a window, or whether one lacks nothing but
// volume.
func (r *tripRules) judge(sum rolling.Totals, inARow int64) (rule string, lacking bool) {
	total := sum.Good + sum.Bad
	failing := reached(sum.Bad, total, r.errorPercentage)
	slow := reached(sum.Slow, total, r.slowPercentage)
	switch enough := total >= r.volume; {
	case failing && enough:
		return ruleErrors, false
	case slow && enough:
		return ruleSlow, false
	case r.consecutiveFailures > 0 && inARow >= r.consecutiveFailures:
		return ruleConsecutive, false
	case r.evidence > 0 && sum.Bad > 0 && wilsonLowerBound(sum.Bad, total) >= r.evidence:
		return ruleEvidence, false
	}
	return "", failing || slow
}

// reached tells whether hits are at least a percentage of total, unrounded (S30). A
// threshold of 0 is off.
func reached(hits, total uint64, threshold float64) bool {
	return hits > 0 && threshold != 0 && 100*float64(hits) >= threshold*float64(total)
}

// wilsonLowerBound is the least error rate that x failures in n calls leave
// credible: the lower end of Wilson's score interval (1927). z is for a test that
// is made again at every failure: at a steady 30 % of errors 2.33 tripped a quiet
// command falsely 0.3 times an hour in simulation, 2.0 one to three times.
func wilsonLowerBound(x, n uint64) float64 {
	const z = 2.33
	p, m := float64(x)/float64(n), float64(n)
	return (p + z*z/(2*m) - z*math.Sqrt(p*(1-p)/m+z*z/(4*m*m))) / (1 + z*z/m)
}

// settleProbe spends the token of a probe. One that comes home to another era has
// only been counted.
func (c *circuit) settleProbe(t token, h health, j *judgement) {
	text := ""
	if h == bad {
		text = errorText(j.err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := t.era
	if c.era.Load() != e {
		return
	}
	i := slices.Index(e.leases, t.lease)
	live := i >= 0 && t.lease.live(j.now)
	if i >= 0 {
		e.leases = slices.Delete(e.leases, i, i+1)
	}
	switch h {
	case neutral:
		if live {
			c.placesLocked(e, j.now)
		}
	case good:
		e.succeeded++
		if e.succeeded >= e.probes {
			c.closeLocked(j.now)
			return
		}
		c.placesLocked(e, j.now)
	case bad:
		c.failedProbes++
		c.openLocked(j, ruleProbe, c.health.Sum(j.now), text, j.notBefore())
	}
}

// beginLocked makes e the present era.
func (c *circuit) beginLocked(e *era, now mono.Time) {
	from := StateClosed
	if old := c.era.Load(); old != nil {
		from = old.kind.state()
	}
	if from != StateClosed && e.kind.state() == StateClosed {
		c.closedAt = now
	}
	c.era.Store(e)
	c.newsLocked(from, now)
}

func (c *circuit) closeLocked(now mono.Time) {
	c.windowedLocked(eraClosed, now)
}

// windowedLocked begins an era that counts, with an empty window.
func (c *circuit) windowedLocked(kind eraKind, now mono.Time) {
	c.health = rolling.NewWindow(c.cmd.settings.Load().window)
	c.beginLocked(&era{kind: kind, window: c.health}, now)
}

// openLocked begins an open era. All that will be asked of it is fixed here:
// evidence, the moment of the first probe, how many probes, the error. They are
// as the settings have it now, however old the call is that opens it (S71).
func (c *circuit) openLocked(j *judgement, rule string, sum rolling.Totals, text string, hint mono.Time) {
	sleep := &c.cmd.settings.Load().sleep
	e := &era{kind: eraOpen, probes: sleep.probes}
	opens := sleep.firstProbe(j.now, c.failedProbes, hint)
	c.shutLocked(e, opens, opens.Sub(j.now))
	c.evidence = &Evidence{
		Rule: rule, LastError: text, At: c.cmd.clock.Moment(j.now), NextProbe: c.cmd.clock.Moment(opens),
		Calls: sum.Good + sum.Bad, Failures: sum.Bad, Slow: sum.Slow,
	}
	c.refused = c.cmd.metrics.shortCircuited()
	c.beginLocked(e, j.now)
}

// growth is how much longer each failed probe makes the next sleep. Doubling
// lengthened the recovery of a fleet by half again in simulation; this little.
const growth = 1.5

// firstProbe is when a circuit that opens now lets its first probe go (S33, S34).
// hint is a moment that the dependency asked for, or noHint.
func (s *sleepRules) firstProbe(now mono.Time, failedProbes int, hint mono.Time) mono.Time {
	sleep, longest := s.window, 10*s.window
	if s.max > 0 {
		longest = s.max
		grown := float64(s.window) * math.Pow(growth, float64(failedProbes))
		sleep = max(s.window, time.Duration(min(grown, float64(s.max))))
	}
	opens := now.Add(sleep)
	hint = min(hint, now.Add(longest))
	hinted := hint > opens
	opens = max(opens, hint)
	if s.jitter > 0 {
		spread := time.Duration(rand.Int64N(int64(s.jitter) + 1)) //nolint:gosec // spreads load, guards no secret
		if !hinted && rand.IntN(2) == 0 {                         //nolint:gosec // likewise
			spread = -spread
		}
		opens = opens.Add(spread)
	}
	return opens
}

// shut begins the last era: the registry shuts down. Who calls it tells the news.
func (c *circuit) shut(now mono.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.era.Load().kind != eraShut {
		e := &era{kind: eraShut}
		c.shutLocked(e, mono.Never, 0)
		c.beginLocked(e, now)
	}
}

// shutDown returns the door that the registry's shutdown shut, nil before it.
func (c *circuit) shutDown() *door {
	switch e := c.era.Load(); {
	case e.kind == eraShut:
		return e.door.Load()
	case e.kind == eraRetired && c.cmd.registry.shut.Load(): // for what it had admitted
		return &door{opens: mono.Never, outcome: OutcomeShutdown, err: &Error{Command: c.cmd.name, Reason: ErrShutdown}}
	}
	return nil
}

// retired is the door of retired eras; no call is refused by it.
var retired = &door{opens: mono.Never}

// retire begins the era of a command that makes way for another key, if it is
// closed and by all the circuit knows could be made anew. Who calls it tells the
// news.
func (c *circuit) retire(now mono.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if is, o := c.asOfLocked(now); is > eraForcedClosed || o != nil {
		return false
	}
	if c.override.Load() != nil { // it is over, and no call came to lift it
		c.override.Store(nil)
		c.modeLocked(now)
	}
	e := &era{kind: eraRetired}
	e.door.Store(retired)
	c.era.Store(e)
	return true
}

// resize begins the health window again, with another length. The state stays;
// calls that began before it are counted, and judged no more.
func (c *circuit) resize(window time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.health = rolling.NewWindow(window)
	if is := c.era.Load(); is.window != nil {
		c.era.Store(&era{kind: is.kind, window: c.health})
	}
}

// A reading is a circuit at one moment.
type circuitReading struct {
	state    State
	mode     Mode
	override Override
	evidence Evidence
	health   rolling.Totals
}

// read moves nothing: an override that is over shows as gone, but is lifted by
// the next call.
func (c *circuit) read(now mono.Time) (r circuitReading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	is, o := c.asOfLocked(now)
	r.state, r.mode = is.state(), modeInForce(c.mode, o)
	if o != nil {
		r.override = o.Override
	}
	r.health = c.health.Sum(now)
	r.evidence = c.evidenceLocked()
	return r
}

func (c *circuit) evidenceLocked() Evidence {
	if c.evidence == nil {
		return Evidence{}
	}
	e := *c.evidence
	e.Refused = c.cmd.metrics.shortCircuited() - c.refused
	return e
}

// lastFailure is the last failure of an era, for the evidence, and the latest
// moment that a failure asked not to be called before.
type lastFailure struct {
	mu     sync.Mutex
	err    error
	hinted bool
	hint   mono.Time // if hinted
}

func (l *lastFailure) note(j *judgement) {
	if j.hint > 0 {
		l.mu.Lock()
	} else if !l.mu.TryLock() {
		return // somebody else's is as recent; nobody waits for the sake of a text
	}
	l.err = j.err
	if at := j.notBefore(); at != noHint && (!l.hinted || at > l.hint) {
		l.hinted, l.hint = true, at
	}
	l.mu.Unlock()
}

func (l *lastFailure) read() (err error, hint mono.Time) { //nolint:staticcheck // the error is the value here
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.hinted {
		return l.err, noHint
	}
	return l.err, l.hint
}

// errorText is err's text. It is user code: a panic in it is swallowed, and so is a
// Goexit, which nothing stops. Hence a goroutine that may end: this one has books to
// finish. It is one for each opening, not for each call.
func errorText(err error) (text string) {
	if err == nil {
		return ""
	}
	text = fmt.Sprintf("(the error's text called runtime.Goexit: %T)", err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				text = fmt.Sprintf("(the error's text panicked: %T)", err)
			}
		}()
		text = err.Error()
	}()
	<-done
	return text
}
