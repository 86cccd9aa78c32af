package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak"
)

// TestCircuitModel makes calls, lets time pass, overrides and updates, at random,
// and compares what the circuit does with a reference after every step.
func TestCircuitModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			m := newModel(rt)
			rt.Repeat(map[string]func(*rapid.T){
				"call":           m.call,
				"calls":          func(rt *rapid.T) { m.calls(rt, rapid.IntRange(2, 6).Draw(rt, "calls")) },
				"begin":          m.begin,
				"end":            m.end,
				"wait":           m.wait,
				"wait till then": m.waitForAnEdge,
				"operate": func(rt *rapid.T) {
					rapid.SampledFrom([]func(*rapid.T){m.override, m.lift, m.update}).Draw(rt, "how")(rt)
				},
				"": m.check,
			})
			for len(m.held) > 0 {
				m.end(rt)
				m.check(rt)
			}
		})
	})
}

// A model is a command and the reference that it is compared with.
type model struct {
	reg   *firebreak.Registry
	cmd   *firebreak.Command
	ref   *reference
	began time.Time
	held  []heldCall
	moves []move // as observers were told
}

type heldCall struct {
	*firebreak.Call
	token *refToken
}

const modelPermits = 4

func newModel(rt *rapid.T) *model {
	m := &model{reg: firebreak.NewRegistry(firebreak.Config{MaxConcurrent: modelPermits}), began: time.Now()}
	m.cmd = m.reg.Command("dep", firebreak.Config{})
	m.ref = newReference()
	m.reg.Observe(firebreak.Observer{Transition: func(tr firebreak.Transition) {
		if tr.From != tr.To {
			m.moves = append(m.moves, move{tr.From, tr.To})
		}
	}})
	time.Sleep(time.Second) // 0 is to stand for no moment
	m.update(rt)
	return m
}

func (m *model) now() time.Duration { return time.Since(m.began) }

// moment is the time.Time that the reference's moments stand for; 0 is not known.
func (m *model) moment(at time.Duration) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return m.began.Add(at)
}

// A runEnding is how a run ends, and what that is to the circuit.
type runEnding struct {
	name   string
	err    error // of run, nil for success
	health int   // 1 good, -1 bad, 0 neutral
	text   string
	hint   time.Duration
}

var modelEndings = []runEnding{
	{"success", nil, 1, "", 0},
	{"expected", errExpected, 1, "", 0},
	{"ignored", errIgnored, 0, "", 0},
	{"ignored too", errIgnored, 0, "", 0},
	{"failure", errBoom, -1, "boom", 0},
	{"another failure", errors.New("bang"), -1, "bang", 0},
	{"short hint", firebreak.RetryAfter(errBoom, 1500*time.Millisecond), -1, "boom", 1500 * time.Millisecond},
	{"long hint", firebreak.RetryAfter(errBoom, 20*time.Second), -1, "boom", 20 * time.Second},
	{"endless hint", firebreak.RetryAfter(errBoom, math.MaxInt64), -1, "boom", math.MaxInt64},
}

var modelRunTimes = []time.Duration{0, 0, 0, 10 * time.Millisecond, 10*time.Millisecond + 1, 100 * time.Millisecond}

func (m *model) call(rt *rapid.T) { m.calls(rt, 1) }

// calls makes n calls, one after the other, that end alike.
func (m *model) calls(rt *rapid.T, n int) {
	end := rapid.SampledFrom(modelEndings).Draw(rt, "ending")
	takes := rapid.SampledFrom(modelRunTimes).Draw(rt, "takes")
	kind := rapid.SampledFrom([]string{"", "", "", "", "", "panics", "is canceled", "times out", "comes too late", "gives up"}).Draw(rt, "kind")
	timeout := m.cmd.Config().Timeout
	if timeout == firebreak.Off && (kind == "times out" || kind == "comes too late") {
		kind = ""
	}
	for range n {
		ctx, cancel := context.WithCancel(rt.Context())
		if kind == "gives up" {
			cancel()
			_, err := firebreak.Do(ctx, m.cmd, succeed)
			require.ErrorIs(rt, err, context.Canceled)
			m.ref.total.GaveUp++
			continue
		}
		token := m.admitted(m.now())
		ran := false
		err := recovered(func() error {
			return m.cmd.Run(ctx, func(context.Context) error {
				ran = true
				switch time.Sleep(takes); kind {
				case "panics":
					panic("oh")
				case "is canceled":
					cancel()
					return ctx.Err()
				case "times out":
					time.Sleep(timeout - takes)
					return errBoom
				case "comes too late":
					time.Sleep(timeout - takes + 1)
					return nil
				}
				return end.err
			})
		})
		cancel()
		require.Equal(rt, token != nil, ran, "run was called, or not: %v", err)
		if token == nil {
			m.refusal(rt, err)
			continue
		}
		switch kind {
		case "panics":
			m.ref.settle(token, m.now(), -1, "run panicked", 0)
			m.ref.total.Panic++
		case "is canceled":
			m.ref.settle(token, m.now(), 0, "", 0)
			m.ref.total.Canceled++
		case "times out":
			m.ref.settle(token, m.now(), -1, "boom", 0)
			m.ref.total.Timeout++
		case "comes too late":
			m.ref.settle(token, m.now(), -1, "timed out", 0)
			m.ref.total.Timeout++
		default:
			m.ends(token, end)
		}
	}
}

// recovered returns an error that says that f panicked, if it did.
func recovered(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return f()
}

// admitted asks the reference for a call at now, and for a permit: nil if it is to
// be refused.
func (m *model) admitted(now time.Duration) *refToken {
	m.ref.refused = refusal{}
	token := m.ref.admit(now, m.cmd.Config())
	if token != nil && len(m.held) == modelPermits {
		m.ref.reject(token, now)
		return nil
	}
	return token
}

// refusal compares a refusal with the reference's.
func (m *model) refusal(rt *rapid.T, err error) {
	want := m.ref.refused
	e, ok := errors.AsType[*firebreak.Error](err)
	require.True(rt, ok, "%v", err)
	require.Equal(rt, want.reason, e.Reason)
	require.Equal(rt, m.moment(want.retryAt), e.RetryAt)
}

func (m *model) ends(token *refToken, end runEnding) {
	m.ref.settle(token, m.now(), end.health, end.text, end.hint)
	switch end.name {
	case "success":
		m.ref.total.Success++
	case "expected":
		m.ref.total.Expected++
	case "ignored", "ignored too":
		m.ref.total.Ignored++
	default:
		m.ref.total.Failure++
	}
}

// begin makes a call that stays open, without a timeout.
func (m *model) begin(rt *rapid.T) {
	token := m.admitted(m.now())
	call, err := m.cmd.Begin(rt.Context())
	if token == nil {
		m.refusal(rt, err)
		return
	}
	require.NoError(rt, err)
	call.Extend(firebreak.Off)
	m.held = append(m.held, heldCall{call, token})
}

// end ends one of the open calls, or, if it is not settled, lets it panic.
func (m *model) end(rt *rapid.T) {
	if len(m.held) == 0 {
		rt.Skip("no call is open")
	}
	i := rapid.IntRange(0, len(m.held)-1).Draw(rt, "which")
	call := m.held[i]
	m.held = slices.Delete(m.held, i, i+1)
	if rapid.IntRange(0, 9).Draw(rt, "settles") == 0 {
		call.End()
		m.ref.settle(call.token, m.now(), -1, "run panicked", 0)
		m.ref.total.Panic++
		return
	}
	end := rapid.SampledFrom(modelEndings).Draw(rt, "ending")
	call.Settle(end.err)
	call.End()
	m.ends(call.token, end)
}

func (m *model) wait(rt *rapid.T) {
	time.Sleep(pauses(100*time.Millisecond, time.Second, 5*time.Second, 12*time.Second).Draw(rt, "pause"))
}

// waitForAnEdge waits for a moment at which something happens, or that before.
func (m *model) waitForAnEdge(rt *rapid.T) {
	edges := m.ref.edges(m.now())
	if len(edges) == 0 {
		rt.Skip("nothing lies ahead")
	}
	edge := rapid.SampledFrom(edges).Draw(rt, "edge")
	time.Sleep(max(0, edge-m.now()-time.Duration(rapid.IntRange(0, 1).Draw(rt, "before"))))
}

// mostlyAuto draws a mode.
func mostlyAuto(rt *rapid.T) firebreak.Mode {
	return rapid.SampledFrom([]firebreak.Mode{
		firebreak.Auto, firebreak.Auto, firebreak.Auto, firebreak.Auto, firebreak.Shadow, firebreak.ForceOpen, firebreak.ForceClosed,
	}).Draw(rt, "mode")
}

func (m *model) override(rt *rapid.T) {
	o := firebreak.Override{Mode: mostlyAuto(rt), Reason: "drill"}
	until := time.Duration(0)
	if rapid.Bool().Draw(rt, "ends") {
		until = m.now() + rapid.SampledFrom([]time.Duration{0, time.Second, 10 * time.Second}).Draw(rt, "after")
		o.Until = m.began.Add(until)
	}
	m.cmd.Override(o)
	m.ref.override(m.now(), o.Mode, until)
}

func (m *model) lift(*rapid.T) {
	m.cmd.Override(firebreak.Override{})
	m.ref.override(m.now(), 0, 0)
}

func (m *model) update(rt *rapid.T) {
	const off = firebreak.Off
	c := firebreak.Config{
		RequestVolumeThreshold:      rapid.IntRange(1, 8).Draw(rt, "volume"),
		ErrorThresholdPercentage:    rapid.SampledFrom([]float64{50, 50, 66.6, 20, 100, off}).Draw(rt, "errors"),
		ConsecutiveFailures:         rapid.SampledFrom([]int{off, off, 3, 5}).Draw(rt, "in a row"),
		SlowCallDuration:            rapid.SampledFrom([]time.Duration{off, 10 * time.Millisecond}).Draw(rt, "slow"),
		SlowCallThresholdPercentage: rapid.SampledFrom([]float64{50, 100}).Draw(rt, "slow calls"),
		Evidence:                    rapid.SampledFrom([]firebreak.Switch{off, firebreak.On}).Draw(rt, "evidence"),
		SleepWindow:                 rapid.SampledFrom([]time.Duration{5 * time.Second, time.Second}).Draw(rt, "sleep"),
		MaxSleepWindow:              rapid.SampledFrom([]time.Duration{off, 8 * time.Second, time.Minute}).Draw(rt, "longest sleep"),
		Probes:                      rapid.IntRange(1, 3).Draw(rt, "probes"),
		Timeout:                     rapid.SampledFrom([]time.Duration{off, 3 * time.Second}).Draw(rt, "timeout"),
		Window:                      rapid.SampledFrom([]time.Duration{10 * time.Second, 10 * time.Second, 2 * time.Second}).Draw(rt, "window"),
		CountRejections:             rapid.SampledFrom([]firebreak.Switch{off, firebreak.On}).Draw(rt, "rejections"),
		Mode:                        mostlyAuto(rt),
	}
	require.NoError(rt, m.reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{"dep": c}}))
	m.ref.update(m.now(), m.cmd.Config())
}

func (m *model) check(rt *rapid.T) {
	now := m.now()
	s := m.cmd.Snapshot()
	want := m.ref.shown(now)
	require.Equal(rt, want.state, s.State)
	require.Equal(rt, want.mode, s.Mode)
	require.InDelta(rt, want.percentage, s.ErrorPercentage, 0)
	require.Equal(rt, len(m.held), s.InFlight)
	require.Equal(rt, m.ref.moves, m.moves)

	evidence := firebreak.Evidence{}
	if e := m.ref.evidence; e.rule != "" {
		evidence = firebreak.Evidence{
			Rule: e.rule, LastError: e.text, At: m.moment(e.at), NextProbe: m.moment(e.next),
			Calls: e.calls, Failures: e.failures, Slow: e.slow, Refused: m.ref.total.ShortCircuited - e.refused,
		}
	}
	require.Equal(rt, evidence, s.Evidence)

	total := s.Total
	total.FallbackMissing = 0 // nobody gives any
	total.Overran = 0
	require.Equal(rt, m.ref.total, total)

	// I4, by the calls themselves: those let through as probes, and out no longer than
	// their leases.
	out := 0
	for _, call := range m.held {
		if t := call.token; t.probe && t.era == m.ref.era && t.leaseEnds > now {
			out++
		}
	}
	if s.State == firebreak.StateHalfOpen {
		require.LessOrEqual(rt, out, m.ref.era.probes)
	}
}

// A reference is the circuit as semantics.md, section 5, tells it: a list of
// outcomes for a window, a list of calls for the leases, no regard for speed.
// Moments are since the registry was made.
type reference struct {
	set   firebreak.Config
	mode  firebreak.Mode // an override's; 0 without one
	until time.Duration  // of the override; 0 for never

	era          *refEra
	window       *refWindow // of the last era that had one
	failedProbes int
	closedAt     time.Duration

	evidence refEvidence
	total    firebreak.Counts
	moves    []move
	refused  refusal // the last one
}

type move struct{ from, to firebreak.State }

type refusal struct {
	reason  error
	retryAt time.Duration // 0 if not known
}

type refEvidence struct {
	rule, text            string
	at, next              time.Duration
	calls, failures, slow uint64
	refused               uint64 // short circuits before it
}

type refEra struct {
	state  firebreak.State
	forced bool

	// closed
	*refWindow
	inARow  int
	lacking bool
	text    string
	hint    time.Duration // the latest

	// open
	next time.Duration

	// open and half-open
	probes int
	good   int
	leases []*refToken
}

type refWindow struct {
	bucket   time.Duration
	outcomes []refOutcome
}

type refOutcome struct {
	bucket    int64 // its number
	bad, slow bool
}

type refToken struct {
	era       *refEra
	set       firebreak.Config
	began     time.Duration
	probe     bool
	leaseEnds time.Duration
	blind     bool
}

func newReference() *reference {
	r := &reference{set: firebreak.Config{Window: 10 * time.Second, Mode: firebreak.Auto}}
	r.era = r.closedEra()
	return r
}

func (r *reference) closedEra() *refEra {
	r.window = &refWindow{bucket: r.set.Window / 10}
	return &refEra{state: firebreak.StateClosed, refWindow: r.window}
}

func (r *reference) begins(now time.Duration, e *refEra) {
	if from := r.era.state; from != e.state {
		r.moves = append(r.moves, move{from, e.state})
		if e.state == firebreak.StateClosed {
			r.closedAt = now
		}
	}
	r.era = e
}

// inForce is the mode in force; S39.
func (r *reference) inForce() firebreak.Mode {
	if r.mode == 0 || r.set.Mode == firebreak.ForceOpen {
		return r.set.Mode
	}
	return r.mode
}

// enforces makes the era fit the mode in force; S38.
func (r *reference) enforces(now time.Duration) {
	open := r.era.state == firebreak.StateOpen
	switch r.inForce() {
	case firebreak.ForceOpen:
		if !r.era.forced || !open {
			r.begins(now, &refEra{state: firebreak.StateOpen, forced: true})
		}
	case firebreak.ForceClosed:
		if !r.era.forced || open {
			e := r.closedEra()
			e.forced = true
			r.begins(now, e)
		}
	default:
		if r.era.forced {
			r.begins(now, r.closedEra())
		}
	}
}

func (r *reference) override(now time.Duration, m firebreak.Mode, until time.Duration) {
	if until != 0 && until <= now {
		m, until = 0, 0
	}
	r.mode, r.until = m, until
	r.enforces(now)
}

// expired is an override that is over, but stands until a call finds it.
func (r *reference) expired(now time.Duration) bool { return r.until != 0 && r.until <= now }

func (r *reference) update(now time.Duration, set firebreak.Config) {
	was := r.set
	r.set = set
	if was.Window != set.Window {
		if r.era.refWindow != nil {
			e := r.closedEra() // S71: begins empty, those before are judged no more
			e.forced = r.era.forced
			r.era = e
		} else {
			r.closedEra()
		}
	}
	if was.Mode != set.Mode {
		r.enforces(now)
	}
}

// admit is the table's rows for calls: a token, or nil and why not.
func (r *reference) admit(now time.Duration, set firebreak.Config) *refToken {
	if r.expired(now) {
		r.override(now, 0, 0)
	}
	token := &refToken{era: r.era, set: set, began: now}
	if r.era.state == firebreak.StateClosed {
		return token
	}
	retryAt := r.until // forced
	if r.set.Mode == firebreak.ForceOpen {
		retryAt = 0
	}
	if !r.era.forced {
		if r.era.state == firebreak.StateOpen && now >= r.era.next {
			r.begins(now, &refEra{state: firebreak.StateHalfOpen, probes: r.era.probes})
			token.era = r.era
		}
		if r.era.state == firebreak.StateOpen {
			retryAt = r.era.next
		} else {
			r.era.leases = slices.DeleteFunc(r.era.leases, func(t *refToken) bool { return t.leaseEnds <= now })
			if len(r.era.leases)+r.era.good < r.era.probes {
				token.probe = true
				token.leaseEnds = now + max(set.Timeout, set.SleepWindow) // Off is less than both
				r.era.leases = append(r.era.leases, token)
				return token
			}
			retryAt = slices.MinFunc(r.era.leases, func(a, b *refToken) int { return int(a.leaseEnds - b.leaseEnds) }).leaseEnds
		}
		if r.inForce() == firebreak.Shadow {
			token.blind = true
			r.total.WouldShortCircuit++
			return token
		}
	}
	r.refused = refusal{firebreak.ErrOpen, retryAt}
	r.total.ShortCircuited++
	return nil
}

// reject is a call that the bulkhead rejects; S4.
func (r *reference) reject(t *refToken, now time.Duration) {
	r.refused = refusal{firebreak.ErrRejected, 0}
	r.total.Rejected++
	health := 0
	if t.set.CountRejections == firebreak.On && !t.probe {
		health = -1
	}
	t.began = now // it never ran, and was not slow
	r.settle(t, now, health, "dep: bulkhead full", 0)
}

// settle is the table's rows for outcomes.
func (r *reference) settle(t *refToken, now time.Duration, health int, text string, hint time.Duration) {
	e := t.era
	switch {
	case t.blind:
	case t.probe:
		r.settleProbe(t, now, health, text, hint)
	case health != 0:
		slow := t.set.SlowCallDuration != firebreak.Off && now-t.began > t.set.SlowCallDuration
		e.outcomes = append(e.outcomes, refOutcome{int64(now / e.bucket), health < 0, slow})
		if health < 0 {
			e.inARow++
			e.text = text
			if hint > 0 {
				e.hint = max(e.hint, plus(now, hint))
			}
		} else {
			e.inARow = 0
		}
		if e == r.era && !e.forced && (health < 0 || slow || e.lacking) {
			r.judge(e, t.set, now)
		}
	}
}

func (r *reference) settleProbe(t *refToken, now time.Duration, health int, text string, hint time.Duration) {
	e := t.era
	if e != r.era {
		return
	}
	e.leases = slices.DeleteFunc(e.leases, func(l *refToken) bool { return l == t })
	switch {
	case health > 0:
		if e.good++; e.good == e.probes {
			r.begins(now, r.closedEra())
		}
	case health < 0:
		r.failedProbes++
		if hint > 0 {
			hint = plus(now, hint)
		}
		r.opens(now, "probe", text, hint)
	}
}

// judge is S29 and S30.
func (r *reference) judge(e *refEra, set firebreak.Config, now time.Duration) {
	total, bad, slow := e.sum(now)
	reaches := func(n uint64, percentage float64) bool {
		return percentage != firebreak.Off && n > 0 && n*1000 >= uint64(math.Round(percentage*10))*total
	}
	volume := total >= uint64(set.RequestVolumeThreshold)
	errorsReach := reaches(bad, set.ErrorThresholdPercentage)
	slowReach := set.SlowCallDuration != firebreak.Off && reaches(slow, set.SlowCallThresholdPercentage)
	rule := ""
	switch {
	case errorsReach && volume:
		rule = "error percentage"
	case slowReach && volume:
		rule = "slow calls"
	case set.ConsecutiveFailures != firebreak.Off && e.inARow >= set.ConsecutiveFailures:
		rule = "consecutive failures"
	case set.Evidence == firebreak.On && credible(bad, total, set.ErrorThresholdPercentage):
		rule = "evidence"
	}
	e.lacking = rule == "" && (errorsReach || slowReach)
	if rule == "" {
		return
	}
	r.failedProbes = max(0, r.failedProbes-int((now-r.closedAt)/r.set.SleepWindow))
	r.opens(now, rule, e.text, e.hint)
}

// credible is Wilson's interval as the test that it is the inverse of: with an
// error rate at the threshold, so many failures would be more than z deviations off.
func credible(bad, total uint64, percentage float64) bool {
	const z = 2.33
	rate := 0.5
	if percentage != firebreak.Off {
		rate = percentage / 100
	}
	n := float64(total)
	off := float64(bad) - n*rate
	return rate < 1 && off >= 0 && off*off >= z*z*n*rate*(1-rate)
}

// opens is S33.
func (r *reference) opens(now time.Duration, rule, text string, hint time.Duration) {
	sleep, longest := r.set.SleepWindow, 10*r.set.SleepWindow
	if most := r.set.MaxSleepWindow; most != firebreak.Off {
		longest = most
		grown := r.set.SleepWindow
		for range r.failedProbes {
			if grown < most {
				grown = grown * 3 / 2
			}
		}
		sleep = max(sleep, min(grown, most))
	}
	next := max(now+sleep, min(hint, now+longest))
	total, bad, slow := r.window.sum(now)
	r.evidence = refEvidence{
		rule: rule, text: text, at: now, next: next,
		calls: total, failures: bad, slow: slow, refused: r.total.ShortCircuited,
	}
	r.begins(now, &refEra{state: firebreak.StateOpen, next: next, probes: r.set.Probes})
}

// sum is S28: the bucket of now and the nine before it.
func (w *refWindow) sum(now time.Duration) (total, bad, slow uint64) {
	for _, o := range w.outcomes {
		if o.bucket <= int64(now/w.bucket)-10 {
			continue
		}
		total++
		if o.bad {
			bad++
		}
		if o.slow {
			slow++
		}
	}
	return total, bad, slow
}

type refShown struct {
	state      firebreak.State
	mode       firebreak.Mode
	percentage float64
}

// shown is what a Snapshot says: an override that is over is gone.
func (r *reference) shown(now time.Duration) refShown {
	s := refShown{state: r.era.state, mode: r.inForce()}
	if r.expired(now) {
		s.mode = r.set.Mode
		switch {
		case s.mode == firebreak.ForceOpen:
			s.state = firebreak.StateOpen
		case s.mode == firebreak.ForceClosed, r.era.forced:
			s.state = firebreak.StateClosed
		}
	}
	if total, bad, _ := r.window.sum(now); total > 0 {
		s.percentage = 100 * float64(bad) / float64(total)
	}
	return s
}

// edges are the moments ahead at which something ends.
func (r *reference) edges(now time.Duration) []time.Duration {
	bucket := int64(r.window.bucket)
	edges := []time.Duration{r.until, r.era.next, time.Duration((int64(now)/bucket + 1) * bucket)}
	for _, t := range r.era.leases {
		edges = append(edges, t.leaseEnds)
	}
	for _, o := range r.window.outcomes {
		edges = append(edges, time.Duration((o.bucket+10)*bucket))
	}
	return slices.DeleteFunc(edges, func(at time.Duration) bool { return at <= now })
}

// plus does not overflow.
func plus(at, d time.Duration) time.Duration {
	if sum := at + d; sum >= at {
		return sum
	}
	return math.MaxInt64
}
