package firebreak_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak"
)

// The bulkhead, both kinds, against a reference that is one list of calls and a
// clock: who runs, who waits, who left and how each call ended, after every step.
//
// No two things happen at one moment: what a test does falls on whole milliseconds
// and a few nanoseconds more, as many as there were steps before; deadlines fall in
// between.
const (
	refTimeout = 40*time.Millisecond + 500*time.Microsecond // of the command
	refMaxWait = 15*time.Millisecond + 250*time.Microsecond
	refCaller  = 25*time.Millisecond + 125*time.Microsecond // of a caller that has a deadline
	refForever = time.Duration(1<<63 - 1)
)

type refPhase uint8

const (
	refWaits refPhase = iota
	refRuns
	refLeft // in a pool: run goes on, its caller does not
	refOver
)

type refCall struct {
	phase    refPhase
	outcome  firebreak.Outcome // once settled
	waitEnds time.Duration     // MaxWait
	deadline time.Duration     // the command's
	ctxEnds  time.Duration     // the caller's deadline
	canceled bool
	runs     bool // run was called

	real   *liveCall
	cancel context.CancelFunc
}

type bulkheadReference struct {
	pool       bool
	limit      int
	queueSize  int
	now        time.Duration
	calls      []*refCall // in the order they came
	open, shut bool
	counts     map[firebreak.Outcome]uint64
	overran    uint64
	most       int // permits out
	widest     int // limit
}

func (r *bulkheadReference) count(p refPhase) (n int) {
	for _, c := range r.calls {
		if c.phase == p {
			n++
		}
	}
	return n
}

func (r *bulkheadReference) permits() int { return r.count(refRuns) + r.count(refLeft) }

func (r *bulkheadReference) settle(c *refCall, o firebreak.Outcome, then refPhase) {
	if c.outcome != 0 {
		panic("a second outcome")
	}
	c.outcome, c.phase = o, then
	r.counts[o]++
}

func (r *bulkheadReference) submit(c *refCall) {
	r.calls = append(r.calls, c)
	c.phase = refOver
	switch {
	case r.shut:
		r.settle(c, firebreak.OutcomeShutdown, refOver)
	case r.open:
		r.settle(c, firebreak.OutcomeShortCircuited, refOver)
	case r.permits() < r.limit && r.count(refWaits) == 0:
		r.run(c)
	case r.count(refWaits) >= r.queueSize:
		r.settle(c, firebreak.OutcomeRejected, refOver)
	default:
		c.phase = refWaits
	}
}

func (r *bulkheadReference) run(c *refCall) {
	c.phase, c.runs = refRuns, true
	r.most = max(r.most, r.permits())
}

// admitWaiters gives free permits to those who wait, in order.
func (r *bulkheadReference) admitWaiters() {
	for _, c := range r.calls {
		if c.phase != refWaits || r.permits() >= r.limit {
			continue
		}
		if r.open { // since it was admitted
			r.settle(c, firebreak.OutcomeShortCircuited, refOver)
			continue
		}
		r.run(c)
	}
}

// callerLeaves is the caller's own end, or the deadline, while it waits or is in a pool.
func (r *bulkheadReference) callerLeaves(c *refCall, waiting, running firebreak.Outcome) {
	switch {
	case c.phase == refWaits:
		r.settle(c, waiting, refOver)
	case c.phase == refRuns && r.pool:
		r.settle(c, running, refLeft)
	}
}

// advance lets time pass.
func (r *bulkheadReference) advance(to time.Duration) {
	for {
		var first *refCall
		at, what := to+1, 0
		for _, c := range r.calls {
			if c.phase != refWaits && (c.phase != refRuns || !r.pool) {
				continue
			}
			for i, end := range []time.Duration{c.ctxEnds, c.deadline, c.waitEnds} {
				if end < at && (i < 2 || c.phase == refWaits) {
					first, at, what = c, end, i
				}
			}
		}
		if first == nil {
			break
		}
		switch what {
		case 0:
			r.callerLeaves(first, firebreak.OutcomeGaveUp, firebreak.OutcomeCallerDeadline)
		case 1:
			r.callerLeaves(first, firebreak.OutcomeRejected, firebreak.OutcomeTimeout)
		case 2:
			r.settle(first, firebreak.OutcomeRejected, refOver)
		}
	}
	r.now = to
}

func (r *bulkheadReference) cancel(c *refCall) {
	c.canceled = true
	r.callerLeaves(c, firebreak.OutcomeGaveUp, firebreak.OutcomeCanceled)
}

// finish is the verdict (section 2), where run was not watching its context.
func (r *bulkheadReference) finish(c *refCall, how string) {
	late := r.now > c.deadline
	if late && (how == "answer" || r.now-c.deadline > refTimeout/10) {
		r.overran++
	}
	if c.phase == refRuns {
		o := firebreak.OutcomeFailure
		switch {
		case how == "panic" || how == "exit":
			o = firebreak.OutcomePanic
		case how == "answer" && !late:
			o = firebreak.OutcomeSuccess
		case how == "answer":
			o = firebreak.OutcomeTimeout
		case c.canceled && !late:
			o = firebreak.OutcomeCanceled
		case c.canceled: // nobody watched: the clock proves the slowness
			o = firebreak.OutcomeTimeout
		case c.ctxEnds < c.deadline && c.ctxEnds <= r.now:
			o = firebreak.OutcomeCallerDeadline
		case late:
			o = firebreak.OutcomeTimeout
		}
		r.settle(c, o, refOver)
	}
	c.phase = refOver
	r.admitWaiters()
}

func TestBulkheadModel(t *testing.T) {
	for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		t.Run(isolation.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				rapid.SyncTest(t, func(t *rapid.T) { checkBulkhead(t, isolation) })
			})
		})
	}
}

func checkBulkhead(t *rapid.T, isolation firebreak.Isolation) {
	pool := isolation == firebreak.PoolIsolation
	r := &bulkheadReference{
		pool: pool, counts: map[firebreak.Outcome]uint64{},
		limit: rapid.IntRange(1, 3).Draw(t, "limit"), queueSize: rapid.IntRange(0, 3).Draw(t, "queue"),
	}
	dependency := func() firebreak.Config {
		c := firebreak.Config{Isolation: isolation, MaxConcurrent: r.limit, QueueSize: r.queueSize, MaxWait: refMaxWait}
		if c.QueueSize == 0 {
			c.QueueSize = firebreak.Off
		}
		return c
	}
	reg := firebreak.NewRegistry(firebreak.Config{Window: time.Hour})
	cmd := reg.Dependency("dep", dependency()).Command("cmd", firebreak.Config{
		Timeout: refTimeout, ErrorThresholdPercentage: firebreak.Off,
	})
	began := time.Now()
	steps := 0
	// sleep lets so many milliseconds pass, and one nanosecond more a step.
	sleep := func(ms int) {
		steps++
		to := time.Duration(int(r.now/time.Millisecond)+ms)*time.Millisecond + time.Duration(steps)
		time.Sleep(time.Until(began.Add(to)))
		synctest.Wait()
		r.advance(to)
	}
	pick := func(t *rapid.T, phases ...refPhase) *refCall {
		var some []*refCall
		for _, c := range r.calls {
			if slices.Contains(phases, c.phase) {
				some = append(some, c)
			}
		}
		if len(some) == 0 {
			t.Skip("there is none")
		}
		return rapid.SampledFrom(some).Draw(t, "call")
	}
	finish := func(c *refCall, how string) {
		r.finish(c, how)
		c.real.ends(map[string]func(context.Context) (int, error){"answer": succeed, "fail": fail, "panic": runPanics, "exit": runExits}[how])
	}
	shutdowns := make(chan error, 1)
	defer func() { // also of a check that failed: a bubble must not end with calls in it
		for _, c := range r.calls {
			c.cancel()
			select {
			case c.real.end <- succeed:
			default:
			}
		}
	}()

	t.Repeat(map[string]func(*rapid.T){
		"submit": func(t *rapid.T) {
			sleep(0)
			c := &refCall{deadline: r.now + refTimeout, waitEnds: refForever, ctxEnds: refForever}
			if !pool {
				c.waitEnds = r.now + refMaxWait
			}
			ctx, cancel := context.WithCancel(context.Background())
			if rapid.Bool().Draw(t, "impatient") {
				c.ctxEnds = r.now + refCaller
				ctx, cancel = context.WithTimeout(context.Background(), refCaller)
			}
			c.cancel = cancel
			r.submit(c)
			c.real = hold(ctx, cmd)
		},
		"cancel": func(t *rapid.T) {
			sleep(0)
			c := pick(t, refWaits, refRuns, refLeft)
			if c.phase == refLeft || c.ctxEnds <= r.now {
				t.Skip("its context has ended")
			}
			r.cancel(c)
			c.cancel()
			synctest.Wait()
		},
		"finish": func(t *rapid.T) {
			sleep(0)
			finish(pick(t, refRuns, refLeft), rapid.SampledFrom([]string{"answer", "answer", "fail", "panic", "exit"}).Draw(t, "how"))
		},
		"pass time": func(t *rapid.T) { sleep(rapid.IntRange(1, 20).Draw(t, "ms")) },
		"resize": func(t *rapid.T) {
			sleep(0)
			r.limit, r.queueSize = rapid.IntRange(1, 4).Draw(t, "limit"), rapid.IntRange(0, 3).Draw(t, "queue")
			resize(t, reg, dependency())
			r.admitWaiters()
			synctest.Wait()
		},
		"force": func(t *rapid.T) {
			sleep(0)
			r.open = !r.open
			o := firebreak.Override{}
			if r.open {
				o.Mode = firebreak.ForceOpen
			}
			cmd.Override(o)
		},
		"": func(t *rapid.T) { requireAsInReference(t, r, cmd) },
	})

	sleep(0)
	for _, c := range r.calls {
		if c.phase == refWaits {
			r.settle(c, firebreak.OutcomeShutdown, refOver)
		}
	}
	r.shut = true
	go func() { shutdowns <- reg.Shutdown(context.Background()) }()
	synctest.Wait()
	requireAsInReference(t, r, cmd)
	for r.permits() > 0 {
		require.Empty(t, shutdowns, "it waits for the last permit")
		sleep(1)
		finish(pick(t, refRuns, refLeft), "answer")
		requireAsInReference(t, r, cmd)
	}
	require.NoError(t, <-shutdowns)
	last := cmd.Snapshot()
	require.Equal(t, last.Total.Executed(), last.RunHistogram.Count)
	require.Equal(t, last.Total.Executed(), last.CallHistogram.Count)
}

func requireAsInReference(t *rapid.T, r *bulkheadReference, cmd *firebreak.Command) {
	r.widest = max(r.widest, r.limit)
	s := cmd.Snapshot()
	limit, most := r.limit, s.Bulkhead.MaxInFlight
	require.Equal(t, firebreak.Bulkhead{
		Isolation: s.Bulkhead.Isolation, Limit: limit, InFlight: r.permits(), MaxInFlight: most,
		Queued: r.count(refWaits), Abandoned: r.count(refLeft),
	}, s.Bulkhead)
	require.GreaterOrEqual(t, most, r.most)
	require.LessOrEqual(t, most, r.widest) // a turn that is refused had a permit for a moment
	require.Equal(t, r.permits(), s.InFlight)
	counts := map[firebreak.Outcome]uint64{}
	for o, n := range r.counts {
		if n > 0 {
			counts[o] = n
		}
	}
	require.Equal(t, counts, countsByOutcome(s.Total))
	require.Equal(t, r.overran, s.Total.Overran)
	for i, c := range r.calls {
		require.Equal(t, c.outcome != 0, c.real.over(), "call %d is over", i)
		require.Equal(t, c.runs, c.real.run() != nil, "run of call %d was called", i)
		if c.real.over() {
			requireResult(t, r, c)
		}
	}
}

// requireResult checks what the caller got; a panic at a semaphore goes on up.
func requireResult(t *rapid.T, r *bulkheadReference, c *refCall) {
	switch {
	case c.outcome == firebreak.OutcomePanic && !r.pool:
		require.True(t, c.real.panicked == "boom" || c.real.exited)
	case c.outcome == firebreak.OutcomeTimeout && !r.pool && c.real.err == nil:
		require.Equal(t, 1, c.real.v, "a late answer is delivered")
	default:
		requireErrorOf(t, c.outcome, c.real.err)
	}
}
