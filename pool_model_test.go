package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak"
)

// This file is the table of S45 a second time, as a transition system of two calls,
// one permit and one place in the queue. It is small enough to be explored whole:
// TestI2PoolTable checks every state of it, and has a real pool go through every
// transition from every state, comparing after each.

// A tablePlace is where a call is in the table.
type tablePlace uint8

const (
	notYet    tablePlace = iota // not yet submitted
	atRefused                   // never in the table: settled on submission
	atQueued
	atRunning
	atDone
	atDropped
	atWithdrawn
	atLeft
)

const nobody = 2 // of calls 0 and 1

type tableCall struct {
	at       tablePlace
	ended    bool // C has come, whether or not the caller has seen it
	over     bool // run has returned
	outcome  firebreak.Outcome
	outcomes uint8 // how often it got one
	permits  uint8 // how often a worker had the permit for it
	returns  uint8 // how often it went back, or on
}

// table is a state of the system.
type table struct {
	calls  [2]tableCall
	permit int  // for whom a worker has it
	turn   bool // that worker has not looked yet whether the call may run
	queue  int  // who has the place
	open   bool // the circuit
	shut   bool // the registry
}

// A step is one row of the table, or what the world does.
type step struct {
	what string
	call int
}

// steps are those that can be next.
func (w *table) steps() []step {
	var all []step
	affected := false // by circuit and registry
	for i := range w.calls {
		c := &w.calls[i]
		add := func(what string) { all = append(all, step{what, i}) }
		affected = affected || c.at == notYet || c.at == atQueued
		switch c.at {
		case notYet:
			add("submit")
		case atQueued, atRunning:
			if !c.ended {
				add("end") // C comes, and the caller is slow to see it
			}
			add("leave at C")
			// Call 1 has the longer timeout: time does not pass the deadline of a call 0
			// whose caller is there.
			if other := w.calls[0].at; i == 0 || other != atQueued && other != atRunning {
				add("leave at D")
			}
		}
		if w.permit == i && w.turn {
			add("turn")
		}
		if w.permit == i && !w.turn {
			add("answer")
			add("fail")
			add("panic")
			add("exit")
		}
	}
	if affected && !w.open {
		all = append(all, step{"open", nobody})
	}
	if affected && !w.shut {
		all = append(all, step{"shut down", nobody})
	}
	return all
}

// after is the state that a step leads to.
func (w table) after(s step) table {
	if s.call == nobody {
		if s.what == "open" {
			w.open = true
			return w
		}
		w.shut = true
		if w.queue != nobody {
			w.settle(w.queue, atDropped, firebreak.OutcomeShutdown)
			w.queue = nobody
		}
		return w
	}
	c := &w.calls[s.call]
	switch s.what {
	case "submit":
		switch {
		case w.shut:
			w.settle(s.call, atRefused, firebreak.OutcomeShutdown)
		case w.open:
			w.settle(s.call, atRefused, firebreak.OutcomeShortCircuited)
		case w.permit == nobody:
			w.take(s.call)
			c.at = atRunning
		case w.queue == nobody:
			w.queue = s.call
			c.at = atQueued
		default:
			w.settle(s.call, atRefused, firebreak.OutcomeRejected)
		}
	case "end":
		c.ended = true
	case "leave at C", "leave at D":
		atC := s.what == "leave at C"
		c.ended = c.ended || atC
		switch {
		case c.at == atRunning && atC:
			w.settle(s.call, atLeft, firebreak.OutcomeCanceled)
		case c.at == atRunning: // nobody watched, so D was first (S10)
			w.settle(s.call, atLeft, firebreak.OutcomeTimeout)
		case c.ended:
			w.settle(s.call, atWithdrawn, firebreak.OutcomeGaveUp)
		default:
			w.settle(s.call, atWithdrawn, firebreak.OutcomeRejected)
		}
		if w.queue == s.call {
			w.queue = nobody
		}
	case "turn":
		w.turn = false
		switch {
		case c.at == atWithdrawn:
		case c.ended:
			w.settle(s.call, atDropped, firebreak.OutcomeGaveUp)
		case w.shut:
			w.settle(s.call, atDropped, firebreak.OutcomeShutdown)
		case w.open:
			w.settle(s.call, atDropped, firebreak.OutcomeShortCircuited)
		default:
			c.at = atRunning
			return w
		}
		w.pass()
	default: // run is over
		c.over = true
		if c.at == atRunning {
			outcome := map[string]firebreak.Outcome{
				"answer": firebreak.OutcomeSuccess, "fail": firebreak.OutcomeFailure,
				"panic": firebreak.OutcomePanic, "exit": firebreak.OutcomePanic,
			}[s.what]
			if s.what == "fail" && c.ended {
				outcome = firebreak.OutcomeCanceled
			}
			w.settle(s.call, atDone, outcome)
		}
		w.pass()
	}
	return w
}

func (w *table) settle(i int, at tablePlace, o firebreak.Outcome) {
	w.calls[i].at, w.calls[i].outcome = at, o
	w.calls[i].outcomes++
}

func (w *table) take(i int) {
	w.permit = i
	w.calls[i].permits++
}

// pass is the permit's way on, to whoever is queued, or back.
func (w *table) pass() {
	w.calls[w.permit].returns++
	w.permit = nobody
	if w.queue != nobody {
		w.take(w.queue)
		w.queue, w.turn = nobody, true
	}
}

// require checks what must hold in every state; in the last ones everything is over.
func (w *table) require(t testing.TB, last bool) {
	t.Helper()
	for i := range w.calls {
		c := &w.calls[i]
		require.LessOrEqual(t, c.outcomes, uint8(1))
		require.Equal(t, c.outcome != 0, c.outcomes == 1)
		require.LessOrEqual(t, c.permits, uint8(1))
		held := w.permit == i
		require.Equal(t, held, c.permits != c.returns, "a permit is out exactly for its holder")
		if ran := c.at == atRunning || c.at == atDone || c.at == atLeft; ran {
			require.EqualValues(t, 1, c.permits)
			require.Equal(t, held, !c.over, "the permit is out exactly as long as run")
		}
		require.False(t, last && (c.outcomes != 1 || held))
	}
}

// A walk is a way through the table from its beginning.
type walk []step

func (p walk) String() string {
	var b strings.Builder
	for _, s := range p {
		fmt.Fprintf(&b, "%s %d; ", s.what, s.call)
	}
	return b.String()
}

type transition struct {
	from table
	step step
}

// explore visits every state, and returns walks to an end that together take every
// transition.
func explore(t *testing.T) (walks []walk, states int) {
	t.Helper()
	begin := table{permit: nobody, queue: nobody}
	way := map[table]walk{begin: {}} // a shortest one to each state
	for next := []table{begin}; len(next) > 0; next = next[1:] {
		w := next[0]
		steps := w.steps()
		w.require(t, len(steps) == 0)
		for _, s := range steps {
			to := w.after(s)
			if _, seen := way[to]; !seen {
				way[to] = append(slices.Clip(way[w]), s)
				next = append(next, to)
			}
		}
	}
	taken := map[transition]bool{}
	for w := range way {
		for _, s := range w.steps() {
			if taken[transition{w, s}] {
				continue
			}
			p := slices.Clip(way[w])
			for at, s := w, s; ; {
				taken[transition{at, s}] = true
				p = append(p, s)
				at = at.after(s)
				steps := at.steps()
				if len(steps) == 0 {
					break
				}
				s = steps[0]
				for _, other := range steps {
					if !taken[transition{at, other}] {
						s = other
					}
				}
			}
			walks = append(walks, p)
		}
	}
	return walks, len(way)
}

func TestI2PoolTable(t *testing.T) {
	walks, states := explore(t)
	t.Logf("%d states, %d walks", states, len(walks))
	for _, p := range walks {
		synctest.Test(t, func(t *testing.T) { take(t, p) })
		if t.Failed() {
			t.Fatalf("on the way: %v", p)
		}
	}
}

// A steppedContext ends in two steps: Err turns, then Done. Its next Err can be made
// to wait: so a worker is held when it begins to look at the call.
type steppedContext struct {
	context.Context
	done chan struct{}
	look chan struct{}

	mu   sync.Mutex
	err  error
	hold bool
}

func (c *steppedContext) Done() <-chan struct{} { return c.done }

func (c *steppedContext) Err() error {
	c.mu.Lock()
	hold := c.hold
	c.hold = false
	c.mu.Unlock()
	if hold {
		<-c.look
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *steppedContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = context.Canceled
}

func (c *steppedContext) holdNext() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold = true
}

// take has a real pool take a walk, and compares it with the table after each step.
func take(t *testing.T, p walk) {
	t.Helper()
	reg := newRegistry(t, firebreak.Config{})
	dep := reg.Dependency("dep", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 1, QueueSize: 1})
	var cmds [2]*firebreak.Command
	var ctxs [2]*steppedContext
	var calls [2]*liveCall
	var deadlines [2]time.Time
	for i := range cmds {
		cmds[i] = dep.Command(fmt.Sprint(i), firebreak.Config{Timeout: time.Duration(i+1) * time.Hour})
		ctxs[i] = &steppedContext{Context: t.Context(), done: make(chan struct{}), look: make(chan struct{})}
	}
	w := table{permit: nobody, queue: nobody}
	for _, s := range p {
		to := w.after(s)
		if to.turn && !w.turn || to.permit != w.permit && to.turn {
			ctxs[to.permit].holdNext()
		}
		switch s.what {
		case "submit":
			deadlines[s.call] = time.Now().Add(cmds[s.call].Config().Timeout)
			calls[s.call] = hold(ctxs[s.call], cmds[s.call])
		case "end":
			ctxs[s.call].end()
		case "leave at C":
			ctxs[s.call].end()
			close(ctxs[s.call].done)
		case "leave at D":
			time.Sleep(time.Until(deadlines[s.call]))
		case "turn":
			ctxs[s.call].look <- struct{}{}
		case "answer":
			calls[s.call].ends(succeed)
		case "fail":
			calls[s.call].ends(fail)
		case "panic":
			calls[s.call].ends(runPanics)
		case "exit":
			calls[s.call].ends(runExits)
		case "open":
			for _, cmd := range cmds {
				cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
			}
		case "shut down":
			go reg.Shutdown(context.Background())
		}
		synctest.Wait()
		w = to
		for i, cmd := range cmds {
			requireAsInTable(t, &w, i, cmd, calls[i])
		}
		if t.Failed() {
			return
		}
	}
}

func requireAsInTable(t *testing.T, w *table, i int, cmd *firebreak.Command, h *liveCall) {
	t.Helper()
	c, s := &w.calls[i], cmd.Snapshot()
	abandoned := 0
	for _, c := range w.calls {
		if c.at == atLeft && !c.over {
			abandoned++
		}
	}
	b := firebreak.Bulkhead{Isolation: firebreak.PoolIsolation, Limit: 1, Abandoned: abandoned, MaxInFlight: s.Bulkhead.MaxInFlight}
	if w.permit != nobody {
		b.InFlight = 1
	}
	if w.queue != nobody {
		b.Queued = 1
	}
	require.Equal(t, b, s.Bulkhead)

	counts := countsByOutcome(s.Total)
	want := map[firebreak.Outcome]uint64{}
	if c.outcome != 0 {
		want[c.outcome] = 1
	}
	require.Equal(t, want, counts)
	if h == nil {
		require.Equal(t, notYet, c.at)
		return
	}
	require.Equal(t, c.at != atQueued && c.at != atRunning, h.over(), "the call is over")
	require.Equal(t, c.at == atRunning || c.at == atDone || c.at == atLeft, h.run() != nil, "run was called")
	runs := 0
	if h.run() != nil && !c.over {
		runs = 1
	}
	require.Equal(t, runs, s.InFlight)
	if h.over() {
		requireErrorOf(t, c.outcome, h.err)
	}
}

// countsByOutcome leaves out what is zero.
func countsByOutcome(c firebreak.Counts) map[firebreak.Outcome]uint64 {
	m := map[firebreak.Outcome]uint64{
		firebreak.OutcomeSuccess: c.Success, firebreak.OutcomeExpected: c.Expected, firebreak.OutcomeIgnored: c.Ignored,
		firebreak.OutcomeFailure: c.Failure, firebreak.OutcomeTimeout: c.Timeout, firebreak.OutcomePanic: c.Panic,
		firebreak.OutcomeCanceled: c.Canceled, firebreak.OutcomeCallerDeadline: c.CallerDeadline,
		firebreak.OutcomeRejected: c.Rejected, firebreak.OutcomeShortCircuited: c.ShortCircuited,
		firebreak.OutcomeShutdown: c.Shutdown, firebreak.OutcomeGaveUp: c.GaveUp,
	}
	for o, n := range m {
		if n == 0 {
			delete(m, o)
		}
	}
	return m
}

// requireErrorOf checks that err is what a caller of a pool gets of an outcome.
func requireErrorOf(t rapid.TB, o firebreak.Outcome, err error) {
	t.Helper()
	switch o {
	case firebreak.OutcomeSuccess:
		require.NoError(t, err)
	case firebreak.OutcomeFailure:
		require.Equal(t, errBoom, err)
	case firebreak.OutcomePanic:
		p, ok := errors.AsType[*firebreak.PanicError](err)
		require.True(t, ok && error(p) == err, "%v", err)
	case firebreak.OutcomeTimeout:
		require.ErrorIs(t, err, firebreak.ErrTimeout)
	case firebreak.OutcomeCanceled:
		require.Equal(t, context.Canceled, err)
	case firebreak.OutcomeCallerDeadline:
		require.Equal(t, context.DeadlineExceeded, err)
	case firebreak.OutcomeGaveUp:
		require.Contains(t, []error{context.Canceled, context.DeadlineExceeded}, err)
	case firebreak.OutcomeRejected:
		require.ErrorIs(t, err, firebreak.ErrRejected)
	case firebreak.OutcomeShortCircuited:
		require.ErrorIs(t, err, firebreak.ErrOpen)
	case firebreak.OutcomeShutdown:
		require.ErrorIs(t, err, firebreak.ErrShutdown)
	default:
		require.Fail(t, "no such outcome", "%v: %v", o, err)
	}
}
