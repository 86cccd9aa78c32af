package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// Everything at once, on many goroutines: what a test can count for itself must be
// what the library says in the end, and no Snapshot on the way may show what cannot
// be. Once in real time; and once in a bubble, where time passes as fast as nobody
// has anything to do, and keys make way for each other.

const (
	stressCalls     = 2500 // so many, or as many as there are in
	stressTime      = 700 * time.Millisecond
	stressLimit     = 4 // the widest that the tight dependency ever is
	stressQueue     = 5
	stressFallbacks = 3
)

var (
	errStressExpected = errors.New("expected")
	errStressIgnored  = errors.New("ignored")
)

// stressOutcomes are those that an error, or the reason of one, says by itself.
var stressOutcomes = map[error]firebreak.Outcome{
	errBoom:               firebreak.OutcomeFailure,
	errStressExpected:     firebreak.OutcomeExpected,
	errStressIgnored:      firebreak.OutcomeIgnored,
	firebreak.ErrOpen:     firebreak.OutcomeShortCircuited,
	firebreak.ErrRejected: firebreak.OutcomeRejected,
	firebreak.ErrTimeout:  firebreak.OutcomeTimeout,
	firebreak.ErrShutdown: firebreak.OutcomeShutdown,
}

func classifyStress(err error) firebreak.Verdict {
	switch stressOutcomes[err] {
	case firebreak.OutcomeExpected:
		return firebreak.Expected
	case firebreak.OutcomeIgnored:
		return firebreak.Ignored
	}
	return firebreak.Failure
}

// tally is what the test counted of one command, or one family of them.
type tally struct {
	begun atomic.Uint64 // run, counted inside it

	// What callers got. A nil error may be late, and a context's error is that of a
	// call that ran or gave up: returns do not tell which.
	answered, ctxError atomic.Uint64
	returned           [firebreak.OutcomeGaveUp + 1]atomic.Uint64
	asked, fallbacks   atomic.Uint64 // for a fallback; and those that answered or failed or were too many
	fallbackRejected   atomic.Uint64

	// What observers were told.
	told         [firebreak.OutcomeGaveUp + 1]atomic.Uint64
	toldFallback [firebreak.OutcomeGaveUp + 1]atomic.Uint64
	panicked     atomic.Uint64 // observers
}

// stress is one run of the test, in one isolation.
type stress struct {
	t      *testing.T
	pool   bool
	bubble bool
	reg    *firebreak.Registry
	until  time.Time

	plain, steady, begun, wide *firebreak.Command
	keyed                      *firebreak.Keyed
	tallies                    map[string]*tally // by family; not changed after it is made

	running  atomic.Int64 // in the tight dependency
	calls    atomic.Int64
	keys     sync.Map      // that had a command of their own
	operates chan struct{} // now and then, as calls are made: on a machine with few
	watches  chan struct{} // processors there would be little else to see
}

func TestStress(t *testing.T) {
	for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		t.Run(isolation.String(), func(t *testing.T) { newStress(t, isolation, false).run() })
		t.Run(isolation.String()+" in a bubble", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newStress(t, isolation, true).run() })
		})
	}
}

func (s *stress) run() {
	var callers, others sync.WaitGroup
	for i := range 16 {
		callers.Go(func() { s.call(rand.New(rand.NewPCG(uint64(i), 1))) })
	}
	callers.Go(func() { s.begin(rand.New(rand.NewPCG(1, 2))) })
	callers.Go(func() { s.begin(rand.New(rand.NewPCG(2, 2))) })
	others.Go(func() { s.operate(rand.New(rand.NewPCG(1, 3))) })
	others.Go(func() { s.watch() })
	requireEnd(s.t, &callers)
	close(s.operates)
	close(s.watches)
	requireEnd(s.t, &others)

	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(s.t, s.reg.Shutdown(ctx), "TestI2: all permits are back")
	s.requireSums()
}

// requireEnd waits for goroutines that end by themselves.
func requireEnd(t *testing.T, wg *sync.WaitGroup) {
	t.Helper()
	over := make(chan struct{})
	go func() {
		wg.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-time.After(20 * time.Second):
		buf := make([]byte, 1<<20)
		require.Fail(t, "stuck", "%s", buf[:runtime.Stack(buf, true)])
	}
}

func newStress(t *testing.T, isolation firebreak.Isolation, bubble bool) *stress {
	t.Helper()
	s := &stress{
		t: t, pool: isolation == firebreak.PoolIsolation, bubble: bubble, until: time.Now().Add(stressTime), tallies: map[string]*tally{},
		operates: make(chan struct{}, 1), watches: make(chan struct{}, 1),
	}
	s.reg = firebreak.NewRegistry(firebreak.Config{Isolation: isolation, Classify: classifyStress, SleepWindow: time.Millisecond, Window: 50 * time.Millisecond})
	s.reg.Observe(s.observer())
	tight := s.reg.Dependency("tight", firebreak.Config{MaxConcurrent: stressLimit, QueueSize: stressQueue, MaxWait: time.Millisecond})
	s.plain = tight.Command("plain", firebreak.Config{Timeout: 2 * time.Millisecond, CountRejections: firebreak.On, MaxFallbacks: stressFallbacks})
	s.steady = tight.Command("steady", firebreak.Config{Timeout: firebreak.Off, Mode: firebreak.ForceClosed, RecoverPanics: firebreak.On, MaxFallbacks: 1})
	s.begun = tight.Command("begun", firebreak.Config{Timeout: 2 * time.Millisecond, ConsecutiveFailures: 5})
	window := time.Hour
	if bubble {
		window = 10 * time.Millisecond
	}
	s.keyed = tight.Keyed("keyed", 3, firebreak.Config{Timeout: 5 * time.Millisecond, Window: window})
	s.wide = s.reg.Command("wide", firebreak.Config{MaxConcurrent: firebreak.Unlimited, Timeout: time.Minute, ErrorThresholdPercentage: 95})
	for _, family := range []string{"plain", "steady", "begun", "keyed", "wide"} {
		s.tallies[family] = &tally{}
	}
	return s
}

// goesOn until there were enough calls, or the time is over.
func (s *stress) goesOn() bool { return s.calls.Load() < stressCalls && time.Now().Before(s.until) }

// counts is for callers to say that they make one more call.
func (s *stress) counts() {
	n := s.calls.Add(1)
	for _, each := range []struct {
		calls int64
		due   chan struct{}
	}{{40, s.operates}, {20, s.watches}} {
		if n%each.calls == 0 {
			select {
			case each.due <- struct{}{}:
			default:
			}
		}
	}
}

func (s *stress) observer() firebreak.Observer {
	var n atomic.Uint64
	mayPanic := func(t *tally) {
		if n.Add(1)%64 == 0 {
			t.panicked.Add(1)
			panic("an observer's")
		}
	}
	return firebreak.Observer{
		Call: func(_ context.Context, e firebreak.CallEvent) {
			t := s.tallies[e.Command]
			t.told[e.Outcome].Add(1)
			if e.Command == "keyed" && e.Key != "*" {
				s.keys.Store(e.Key, true)
			}
			mayPanic(t)
		},
		Fallback: func(_ context.Context, e firebreak.CallEvent) {
			t := s.tallies[e.Command]
			t.toldFallback[e.Fallback].Add(1)
			mayPanic(t)
		},
		Transition: s.inOrder(),
	}
}

// inOrder checks that each transition goes on from where the last one ended.
func (s *stress) inOrder() func(firebreak.Transition) {
	var mu sync.Mutex
	at := map[string]firebreak.State{}
	return func(tr firebreak.Transition) {
		if tr.Key != "" {
			return // a key may have many circuits, one after the other
		}
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(s.t, at[tr.Command], tr.From, "the state of %s", tr.Command)
		at[tr.Command] = tr.To
	}
}

// operate changes settings and overrides all the time.
func (s *stress) operate(r *rand.Rand) {
	until := time.Time{}
	for range s.operates {
		doc := firebreak.Document{
			Dependencies: map[string]firebreak.Config{
				"tight": {MaxConcurrent: 1 + r.IntN(stressLimit), QueueSize: 1 + r.IntN(stressQueue)},
				"wide":  {MaxConcurrent: []int{2, 40, 100, firebreak.Unlimited}[r.IntN(4)]},
			},
			Commands: map[string]firebreak.Config{
				"plain": {
					Timeout: time.Duration(1+r.IntN(3)) * time.Millisecond, Probes: 1 + r.IntN(3), Window: time.Duration(1+r.IntN(2)) * 50 * time.Millisecond,
					MaxFallbacks: 1 + r.IntN(stressFallbacks), RequestVolumeThreshold: 1 + r.IntN(20),
					Mode: []firebreak.Mode{firebreak.Auto, firebreak.Auto, firebreak.Shadow}[r.IntN(3)],
				},
				"keyed": {RequestVolumeThreshold: 1 + r.IntN(5)},
			},
		}
		assert.NoError(s.t, s.reg.Update(doc))
		if r.IntN(4) == 0 {
			doc.Commands["plain"] = firebreak.Config{Timeout: 1}
			assert.Error(s.t, s.reg.Update(doc))
		}
		if r.IntN(2) == 0 {
			until = time.Now().Add(time.Duration(r.IntN(2000)) * time.Microsecond)
		}
		for _, cmd := range []*firebreak.Command{s.plain, s.begun, s.wide} {
			o := firebreak.Override{Author: "stress", Until: until}
			switch r.IntN(8) {
			case 0:
				o.Mode = firebreak.ForceOpen
			case 1:
				o.Mode = firebreak.ForceClosed
			case 2:
				o.Mode = firebreak.Shadow
			case 3:
				o.Inject = s.inject(cmd.Name(), r.IntN(4))
			default:
				o = firebreak.Override{}
			}
			cmd.Override(o)
		}
	}
	for _, cmd := range []*firebreak.Command{s.plain, s.begun, s.wide} {
		cmd.Override(firebreak.Override{})
	}
}

// inject stands for run, and counts as one begun unless it lets run go on.
func (s *stress) inject(family string, how int) func(context.Context) error {
	return func(ctx context.Context) error {
		if how == 0 {
			runtime.Gosched()
			return nil
		}
		s.tallies[family].begun.Add(1)
		switch how {
		case 1:
			return errBoom
		case 2:
			return firebreak.ErrTimeout
		}
		panic("run's")
	}
}

// call makes calls of every kind, each on a goroutine of its own as some end that.
func (s *stress) call(r *rand.Rand) {
	for ; s.goesOn(); s.counts() {
		cmd, family := s.plain, "plain"
		switch r.IntN(8) {
		case 0, 1:
			cmd, family = s.steady, "steady"
		case 2, 3:
			cmd, family = s.wide, "wide"
		case 4, 5:
			cmd, family = s.keyed.Command(fmt.Sprint(r.IntN(8))), "keyed"
		}
		ctx, cancel := s.caller(r)
		c := &stressCall{stress: s, tally: s.tallies[family], how: r.IntN(16), late: r.IntN(8) == 0, tight: cmd != s.wide}
		for range r.IntN(3) {
			c.fallbacks = append(c.fallbacks, r.IntN(8))
		}
		verb := r.IntN(3)
		over := make(chan struct{})
		go func() {
			defer close(over)
			c.do(ctx, cmd, verb)
		}()
		<-over
		cancel()
		s.pause(r)
	}
}

// pause lets time pass, where that costs nothing.
func (s *stress) pause(r *rand.Rand) {
	if s.bubble {
		time.Sleep(time.Duration(r.IntN(4000)) * time.Microsecond)
	}
}

// caller is a context that lasts, or soon ends, or has ended.
func (s *stress) caller(r *rand.Rand) (context.Context, context.CancelFunc) {
	if r.IntN(4) == 0 {
		return context.WithTimeout(context.Background(), time.Duration(r.IntN(3000))*time.Microsecond)
	}
	ctx, cancel := context.WithCancel(context.Background())
	switch r.IntN(8) {
	case 0:
		cancel()
	case 1, 2:
		yields := r.IntN(10)
		go func() {
			for range yields {
				runtime.Gosched()
			}
			cancel()
		}()
	}
	return ctx, cancel
}

// A stressCall is one call, and what it is to do.
type stressCall struct {
	*stress
	tally     *tally
	how       int // run ends
	late      bool
	tight     bool
	fallbacks []int // how each ends

	cause    error // of the fallbacks
	asked    bool
	value    any // of a panic
	exits    bool
	returned bool
	err      error
}

func (c *stressCall) work(ctx context.Context) (int, error) {
	c.tally.begun.Add(1)
	if c.tight {
		assert.LessOrEqual(c.t, c.running.Add(1), int64(stressLimit), "TestI1")
		defer c.running.Add(-1)
	}
	if c.late && ctx.Done() != nil && c.how < 12 && c.wouldEnd(ctx) {
		<-ctx.Done()
		if c.how%2 == 0 {
			return 0, ctx.Err()
		}
	}
	runtime.Gosched()
	switch c.how {
	case 0:
		panic("run's")
	case 1:
		runtime.Goexit()
	case 2:
		return 0, errStressExpected
	case 3:
		return 0, errStressIgnored
	case 4, 5, 6:
		return 0, errBoom
	}
	return 1, nil
}

// wouldEnd tells whether a context ends soon enough for a test.
func (c *stressCall) wouldEnd(ctx context.Context) bool {
	at, ok := ctx.Deadline()
	return ok && time.Until(at) < time.Second
}

func (c *stressCall) fallback(how int, cause error) (int, error) {
	c.cause, c.asked = cause, true
	switch how {
	case 0:
		panic("a fallback's")
	case 1:
		c.value = "a fallback's"
		runtime.Goexit()
	case 2, 3:
		return 0, errBoom
	}
	return 1, nil
}

func (c *stressCall) do(ctx context.Context, cmd *firebreak.Command, verb int) {
	defer func() {
		if r := recover(); r != nil {
			c.value = r
		} else {
			c.exits = !c.returned
		}
		c.count(cmd)
	}()
	switch verb {
	case 0:
		var fallbacks []firebreak.Fallback[int]
		for _, how := range c.fallbacks {
			fallbacks = append(fallbacks, func(_ context.Context, cause error) (int, error) { return c.fallback(how, cause) })
		}
		_, c.err = firebreak.Do(ctx, cmd, c.work, fallbacks...)
	case 1:
		var fallbacks []func(context.Context, error) error
		for _, how := range c.fallbacks {
			fallbacks = append(fallbacks, func(_ context.Context, cause error) error {
				_, err := c.fallback(how, cause)
				return err
			})
		}
		c.err = cmd.Run(ctx, func(ctx context.Context) error {
			_, err := c.work(ctx)
			return err
		}, fallbacks...)
	default:
		var fallbacks []func(context.Context, int, error) (int, error)
		for _, how := range c.fallbacks {
			fallbacks = append(fallbacks, func(_ context.Context, _ int, cause error) (int, error) { return c.fallback(how, cause) })
		}
		_, c.err = firebreak.Bind(cmd, func(ctx context.Context, _ int) (int, error) { return c.work(ctx) }, fallbacks...)(ctx, 1)
	}
	c.returned = true
}

// count says by what the caller got how the call ended.
func (c *stressCall) count(cmd *firebreak.Command) {
	n := c.tally
	if c.asked {
		n.fallbacks.Add(1)
	}
	if errors.Is(c.err, firebreak.ErrFallbackRejected) {
		n.fallbackRejected.Add(1)
	}
	if !c.asked && (c.value != nil || c.exits) { // run's own end, on this goroutine
		assert.False(c.t, c.pool, "a panic changes no goroutine")
		assert.True(c.t, c.exits || c.value == "run's")
		assert.False(c.t, c.value != nil && cmd == c.steady, "RecoverPanics")
		n.returned[firebreak.OutcomePanic].Add(1)
		return
	}
	err := c.err
	if c.asked {
		err = c.cause
	}
	c.countError(cmd, err)
}

func (c *stressCall) countError(cmd *firebreak.Command, err error) {
	n := c.tally
	if err == nil {
		n.answered.Add(1)
		return
	}
	if err == context.Canceled || err == context.DeadlineExceeded {
		n.ctxError.Add(1)
		return
	}
	o := stressOutcomes[err]
	switch e := err.(type) {
	case *firebreak.PanicError:
		o = firebreak.OutcomePanic
	case *firebreak.Error:
		if e.Reason == firebreak.ErrFailed {
			c.countError(cmd, e.Cause)
			return
		}
		o = stressOutcomes[e.Reason]
	}
	if !assert.NotZero(c.t, o, "an error of no outcome: %v", err) {
		return
	}
	n.returned[o].Add(1)
	switch o {
	case firebreak.OutcomeExpected, firebreak.OutcomeIgnored:
		assert.False(c.t, c.asked)
	case firebreak.OutcomePanic:
		if cmd == c.steady {
			n.asked.Add(1)
		} else {
			assert.False(c.t, c.asked)
		}
	default:
		n.asked.Add(1)
	}
}

// begin makes calls in two steps, whose ends come from anywhere or are forgotten.
func (s *stress) begin(r *rand.Rand) {
	n := s.tallies["begun"]
	for s.goesOn() {
		ctx, cancel := s.caller(r)
		settles, ends := r.IntN(3), 1+r.IntN(2)
		err := r.IntN(2) == 0
		over := make(chan struct{})
		go func() {
			defer close(over)
			defer func() { _ = recover() }() // an injected panic goes on up
			call, refusal := s.begun.Begin(ctx)
			if refusal != nil {
				return
			}
			n.begun.Add(1)
			var wg sync.WaitGroup
			for range settles {
				wg.Go(func() {
					if err {
						call.Settle(errBoom)
					} else {
						call.Settle(nil)
					}
				})
			}
			wg.Go(func() { call.Extend(time.Millisecond) })
			for range ends {
				wg.Go(call.End)
			}
			wg.Wait()
			<-call.Context().Done()
		}()
		<-over
		cancel()
		s.pause(r)
	}
}

// watch takes Snapshots all the time, and finds fault.
func (s *stress) watch() {
	last := map[string]firebreak.Snapshot{}
	for range s.watches {
		for _, cmd := range []*firebreak.Command{s.plain, s.steady, s.begun, s.wide} {
			now := cmd.Snapshot()
			s.check(last[cmd.Name()], now)
			last[cmd.Name()] = now
		}
		now := s.keyed.Snapshot()
		s.check(last["keyed"], now)
		last["keyed"] = now
		for cmd := range s.reg.Commands() {
			s.check(firebreak.Snapshot{}, cmd.Snapshot())
		}
	}
}

// check holds one Snapshot against itself and an earlier one (I7, S54).
func (s *stress) check(before, now firebreak.Snapshot) {
	t, c := s.t, &now.Total
	ok := assert.Equal(t, c.Calls(), c.Executed()+c.Rejected+c.ShortCircuited+c.Shutdown+c.GaveUp)
	ends := c.FallbackSuccess + c.FallbackFailure + c.FallbackRejected + c.FallbackMissing
	ok = ok && assert.LessOrEqual(t, ends, c.Failure+c.Timeout+c.Panic+c.Rejected+c.ShortCircuited+c.Shutdown)
	ok = ok && assert.LessOrEqual(t, now.RunHistogram.Count, c.Executed())
	ok = ok && assert.LessOrEqual(t, now.CallHistogram.Count, c.Executed())
	ok = ok && noneFalls(t, now.Window, now.Total) && noneFalls(t, before.Total, now.Total)
	ok = ok && assert.GreaterOrEqual(t, now.RunHistogram.Count, before.RunHistogram.Count)
	ok = ok && assert.GreaterOrEqual(t, now.RunHistogram.Sum, before.RunHistogram.Sum)
	below := uint64(0)
	for _, n := range now.RunHistogram.Buckets() {
		ok = ok && assert.GreaterOrEqual(t, n, below)
		below = n
	}
	ok = ok && assert.LessOrEqual(t, below, now.RunHistogram.Count)

	b := &now.Bulkhead
	ok = ok && assert.True(t, 0 <= now.InFlight && now.InFlight <= now.MaxInFlight, "%d ≤ %d in flight", now.InFlight, now.MaxInFlight)
	ok = ok && assert.True(t, 0 <= b.Abandoned && b.Abandoned <= b.InFlight, "%d of %d abandoned", b.Abandoned, b.InFlight)
	ok = ok && assert.LessOrEqual(t, b.InFlight, b.MaxInFlight)
	ok = ok && assert.True(t, 0 <= now.ErrorPercentage && now.ErrorPercentage <= 100, "%v %%", now.ErrorPercentage)
	ok = ok && assert.LessOrEqual(t, now.Evidence.Refused, c.ShortCircuited)
	if now.Dependency == "tight" {
		ok = ok && assert.LessOrEqual(t, b.MaxInFlight, stressLimit, "TestI1")
		ok = ok && assert.True(t, 1 <= b.Limit && b.Limit <= stressLimit, "limit %d", b.Limit)
		ok = ok && assert.True(t, 0 <= b.Queued && b.Queued <= stressQueue, "%d queued", b.Queued)
	}
	if now.Command == "plain" {
		ok = ok && assert.True(t, 0 <= now.Fallbacks && now.Fallbacks <= stressFallbacks, "%d in fallbacks", now.Fallbacks)
	}
	if !ok {
		t.Logf("%s: %+v", now.Command, now)
	}
}

// noneFalls tells whether every count is at least what it was.
func noneFalls(t *testing.T, was, is firebreak.Counts) bool {
	t.Helper()
	a, b := reflect.ValueOf(was), reflect.ValueOf(is)
	for i := range a.NumField() {
		if a.Field(i).Uint() > b.Field(i).Uint() {
			return assert.Fail(t, "a count fell", "%s: %+v, then %+v", a.Type().Field(i).Name, was, is)
		}
	}
	return true
}

// requireSums compares, at rest, what the test counted with the Snapshots.
func (s *stress) requireSums() {
	for cmd := range s.reg.Commands() {
		requireAtRest(s.t, cmd)
	}
	if s.bubble {
		keys := 0
		s.keys.Range(func(any, any) bool { keys++; return true })
		require.Greater(s.t, keys, 3, "keys made way")
	}
	for family, snapshot := range map[string]firebreak.Snapshot{
		"plain": s.plain.Snapshot(), "steady": s.steady.Snapshot(), "begun": s.begun.Snapshot(), "wide": s.wide.Snapshot(), "keyed": s.keyed.Snapshot(),
	} {
		n, c := s.tallies[family], snapshot.Total
		t := s.t
		t.Logf("%s: %+v", family, c)
		require.Equal(t, n.begun.Load(), c.Executed(), "TestI7: %s: runs begun", family)
		require.Equal(t, c.Executed(), snapshot.RunHistogram.Count, family)
		require.Equal(t, c.Executed(), snapshot.CallHistogram.Count, family)
		require.Equal(t, n.panicked.Load(), c.ObserverPanics, family)
		counts := countsByOutcome(c)
		for o := firebreak.OutcomeSuccess; o <= firebreak.OutcomeGaveUp; o++ {
			require.Equal(t, n.told[o].Load(), counts[o], "%s: %v, as observers were told", family, o)
		}
		require.Equal(t, n.toldFallback[firebreak.OutcomeSuccess].Load(), c.FallbackSuccess, family)
		require.Equal(t, n.toldFallback[firebreak.OutcomeFailure].Load(), c.FallbackFailure, family)
		require.Equal(t, n.toldFallback[firebreak.OutcomeRejected].Load(), c.FallbackRejected, family)
		if family == "begun" {
			require.Zero(t, c.FallbackMissing)
			continue
		}
		for _, o := range []firebreak.Outcome{
			firebreak.OutcomeExpected, firebreak.OutcomeIgnored, firebreak.OutcomeFailure, firebreak.OutcomePanic,
			firebreak.OutcomeRejected, firebreak.OutcomeShortCircuited, firebreak.OutcomeShutdown,
		} {
			require.Equal(t, n.returned[o].Load(), counts[o], "%s: %v, as callers saw it", family, o)
		}
		require.Equal(t, n.answered.Load()+n.returned[firebreak.OutcomeTimeout].Load(), c.Success+c.Timeout, family)
		require.LessOrEqual(t, c.Timeout-n.returned[firebreak.OutcomeTimeout].Load(), c.Overran, "%s: late answers", family)
		require.Equal(t, n.ctxError.Load(), c.Canceled+c.CallerDeadline+c.GaveUp, family)
		require.Equal(t, n.asked.Load(), c.FallbackSuccess+c.FallbackFailure+c.FallbackRejected+c.FallbackMissing, family)
		require.Equal(t, n.fallbacks.Load(), c.FallbackSuccess+c.FallbackFailure, family)
		require.Equal(t, n.fallbackRejected.Load(), c.FallbackRejected, family)
	}
}
