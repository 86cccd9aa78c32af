package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

var (
	errNotFound = errors.New("not found")
	errCache    = errors.New("cache is empty")
	errReading  = fmt.Errorf("reading: %w", context.Canceled)
	errTooSlow  = fmt.Errorf("too slow: %w", context.DeadlineExceeded)
)

// inEachIsolation runs test in two bubbles.
func inEachIsolation(t *testing.T, test func(t *testing.T, in firebreak.Isolation)) {
	t.Helper()
	for _, in := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		t.Run(in.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, in) })
		})
	}
}

// returns is a run that is over at once.
func returns(v int, err error) func(context.Context) (int, error) {
	return func(context.Context) (int, error) { return v, err }
}

// deaf is a run that takes so long, whatever its context says.
func deaf(d time.Duration, v int, err error) func(context.Context) (int, error) {
	return func(context.Context) (int, error) {
		time.Sleep(d)
		return v, err
	}
}

// heeds is a run that ends with its context, and returns err, or the context's own.
func heeds(v int, err error) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		<-ctx.Done()
		if err != nil {
			return v, err
		}
		return v, ctx.Err()
	}
}

// An answer is how a call came back to its caller.
type answer struct {
	value    int
	err      error
	panicked any  // what went on up
	exited   bool // Goexit went on up
}

// answerOf makes a call on a goroutine of its own, which it may end.
func answerOf(call func() (int, error)) (a answer) {
	done := make(chan struct{})
	a.exited = true
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				a.panicked, a.exited = p, false
			}
		}()
		a.value, a.err = call()
		a.exited = false
	}()
	<-done
	return a
}

// counted is every field of Counts that differs, and by how much.
func counted(before, after firebreak.Counts) map[string]uint64 {
	diff := map[string]uint64{}
	b, a := reflect.ValueOf(before), reflect.ValueOf(after)
	for i := range a.NumField() {
		if n := a.Field(i).Uint() - b.Field(i).Uint(); n != 0 {
			diff[a.Type().Field(i).Name] = n
		}
	}
	return diff
}

// A place is a command, its dependency, and another command of that.
type place struct {
	reg            *firebreak.Registry
	dep            *firebreak.Dependency
	cmd, neighbour *firebreak.Command
}

func newPlace(t *testing.T, in firebreak.Isolation, c firebreak.Config) *place {
	t.Helper()
	shared := firebreak.Config{Isolation: in, MaxConcurrent: c.MaxConcurrent, MaxWait: c.MaxWait, QueueSize: c.QueueSize}
	c.MaxConcurrent, c.MaxWait, c.QueueSize = 0, 0, 0
	p := &place{reg: newRegistry(t, firebreak.Config{})}
	p.dep = p.reg.Dependency("dep", shared)
	p.cmd = p.dep.Command("cmd", c)
	p.neighbour = p.dep.Command("neighbour", firebreak.Config{Timeout: firebreak.Off})
	return p
}

// occupy has the neighbour hold a permit for so long.
func (p *place) occupy(d time.Duration) {
	ctx := context.Background()
	go func() { _, _ = firebreak.Do(ctx, p.neighbour, deaf(d, 0, nil)) }()
	synctest.Wait()
}

// failUntilItOpens trips a circuit that may have seen calls before.
func failUntilItOpens(t *testing.T, cmd *firebreak.Command) {
	t.Helper()
	for cmd.Snapshot().State == firebreak.StateClosed {
		_, _ = firebreak.Do(t.Context(), cmd, fail)
	}
}

// errorPercentage of one good call, one bad, and one more.
var errorPercentage = map[string]float64{"good": 100. / 3, "bad": 200. / 3, "neutral": 50}

// An outcomeRow is one way for a call to end; Timeout is 1s.
type outcomeRow struct {
	name   string
	in     firebreak.Isolation // the one it can happen in; zero: both
	config firebreak.Config
	ctx    func(context.Context) (context.Context, context.CancelFunc) // the caller's; nil: it lives on
	before func(t *testing.T, p *place)                                // what refuses the call
	run    func(context.Context) (int, error)                          // nil: it is not to be called

	counted string // the one field of Counts
	overran bool
	health  string // to the circuit: good, bad, neutral
	probe   string // of a probe, where that differs; "-" if there can be none
	asks    bool   // fallbacks
	value   int
	err     func(t *testing.T, err error)
	goesUp  func(t *testing.T, a answer) // in place of value and err
}

func noError(t *testing.T, err error) {
	t.Helper()
	require.NoError(t, err)
}

// itself: the very error, unwrapped.
func itself(want error) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		t.Helper()
		require.True(t, err == want, "%#v is not %#v itself", err, want)
	}
}

// ours: an *Error of the command's that says just that.
func ours(reason, cause error) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		t.Helper()
		e, ok := err.(*firebreak.Error)
		require.True(t, ok, "%#v", err)
		// Its text may say more: who forced the circuit open.
		require.Equal(t, firebreak.Error{Command: "cmd", Reason: reason, Cause: cause},
			firebreak.Error{Command: e.Command, Reason: e.Reason, Cause: e.Cause, Fallback: e.Fallback, RetryAt: e.RetryAt})
		require.ErrorIs(t, err, reason)
		require.Equal(t, errors.Is(reason, firebreak.ErrTimeout) || cause != nil && errors.Is(cause, context.DeadlineExceeded),
			errors.Is(err, context.DeadlineExceeded))
	}
}

// open: the circuit's error, with the moment when it may let a call through.
func open(in time.Duration) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		t.Helper()
		e, ok := err.(*firebreak.Error)
		require.True(t, ok, "%#v", err)
		require.WithinDuration(t, time.Now().Add(in), e.RetryAt, 0)
		require.Equal(t, &firebreak.Error{Command: "cmd", Reason: firebreak.ErrOpen, RetryAt: e.RetryAt}, e)
	}
}

// panics: a *PanicError with value.
func panics(value any) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		t.Helper()
		e, ok := err.(*firebreak.PanicError)
		require.True(t, ok, "%#v", err)
		require.Equal(t, value, e.Value)
		require.NotEmpty(t, e.Stack)
	}
}

func goesUp(value any) func(*testing.T, answer) {
	return func(t *testing.T, a answer) {
		t.Helper()
		require.Equal(t, answer{panicked: value}, a)
	}
}

func exits(t *testing.T, a answer) {
	t.Helper()
	require.Equal(t, answer{exited: true}, a)
}

func canceledAfter(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
	return func(parent context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(parent)
		timer := time.AfterFunc(d, cancel)
		return ctx, func() { timer.Stop(); cancel() }
	}
}

func deadlineAfter(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
	return func(parent context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeout(parent, d)
	}
}

func alreadyCanceled(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	cancel()
	return ctx, cancel
}

func shutDown(t *testing.T, p *place) {
	t.Helper()
	go func() { _ = p.reg.Shutdown(context.Background()) }()
	synctest.Wait()
}

func ignoreNotFound(err error) firebreak.Verdict {
	if errors.Is(err, errNotFound) {
		return firebreak.Ignored
	}
	return firebreak.Failure
}

func panicAtNotFound(err error) firebreak.Verdict {
	if errors.Is(err, errNotFound) {
		panic("what is this?")
	}
	return firebreak.Failure
}

func exitAtNotFound(err error) firebreak.Verdict {
	if errors.Is(err, errNotFound) {
		runtime.Goexit()
	}
	return firebreak.Failure
}

func panicking(context.Context) (int, error) { panic("boom") }

func exiting(context.Context) (int, error) {
	runtime.Goexit()
	return 0, nil
}

const (
	semaphores = firebreak.SemaphoreIsolation
	pools      = firebreak.PoolIsolation
)

// outcomeRows is the table of outcomes, and that of verdicts, with both sides of
// each edge. What is one moment apart in a pool (run's end and the deadline) is not
// here: either may come first.
var outcomeRows = []outcomeRow{
	// Run's value.
	{
		name: "success", run: returns(7, nil),
		counted: "Success", health: "good", value: 7, err: noError,
	},
	{
		name: "success just before the deadline", run: deaf(time.Second-1, 7, nil),
		counted: "Success", health: "good", value: 7, err: noError,
	},
	{
		name: "success at the deadline", in: semaphores, run: deaf(time.Second, 7, nil),
		counted: "Success", health: "good", value: 7, err: noError,
	},
	{
		name: "late success", in: semaphores, run: deaf(time.Second+1, 7, nil),
		counted: "Timeout", overran: true, health: "bad", value: 7, err: noError,
	},
	{
		name: "late success, the caller has left", in: pools, run: deaf(time.Second+1, 7, nil),
		counted: "Timeout", overran: true, health: "bad", asks: true, err: ours(firebreak.ErrTimeout, nil),
	},
	{
		name: "success without a timeout", config: firebreak.Config{Timeout: firebreak.Off}, run: deaf(3*time.Second, 7, nil),
		counted: "Success", health: "good", value: 7, err: noError,
	},

	// Run's error, in time.
	{
		name: "expected by Classify", config: firebreak.Config{Classify: firebreak.ExpectErrors(errNotFound)}, run: returns(7, errNotFound),
		counted: "Expected", health: "good", value: 7, err: itself(errNotFound),
	},
	{
		name: "expected by Mark", run: returns(7, firebreak.Mark(errNotFound, firebreak.Expected)),
		counted: "Expected", health: "good", value: 7, err: itself(errNotFound),
	},
	{
		name: "ignored by Classify", config: firebreak.Config{Classify: ignoreNotFound}, run: returns(7, errNotFound),
		counted: "Ignored", health: "neutral", value: 7, err: itself(errNotFound),
	},
	{
		name: "ignored by Mark, above Classify", config: firebreak.Config{Classify: firebreak.ExpectErrors(errNotFound)},
		run:     returns(7, firebreak.Mark(errNotFound, firebreak.Ignored)),
		counted: "Ignored", health: "neutral", value: 7, err: itself(errNotFound),
	},
	{
		name: "failure", run: returns(7, errBoom),
		counted: "Failure", health: "bad", asks: true, value: 7, err: itself(errBoom),
	},
	{
		name: "failure by Mark, above Classify", config: firebreak.Config{Classify: firebreak.ExpectErrors(errNotFound)},
		run:     returns(7, firebreak.Mark(errNotFound, firebreak.Failure)),
		counted: "Failure", health: "bad", asks: true, value: 7, err: itself(errNotFound),
	},
	{
		name: "failure with a hint, above Classify", config: firebreak.Config{Classify: firebreak.ExpectErrors(errNotFound)},
		run:     returns(7, firebreak.RetryAfter(errNotFound, time.Millisecond)),
		counted: "Failure", health: "bad", asks: true, value: 7, err: itself(errNotFound),
	},
	{
		name: "failure by a verdict that there is not", config: firebreak.Config{Classify: func(error) firebreak.Verdict { return 7 }},
		run:     returns(7, errBoom),
		counted: "Failure", health: "bad", asks: true, value: 7, err: itself(errBoom),
	},
	{
		name: "failure just before the deadline", run: deaf(time.Second-1, 7, errBoom),
		counted: "Failure", health: "bad", asks: true, value: 7, err: itself(errBoom),
	},
	{
		name: "failure that speaks of a deadline, in time", run: returns(7, errTooSlow),
		counted: "Failure", health: "bad", asks: true, value: 7, err: itself(errTooSlow),
	},
	{
		name: "failure that speaks of a cancel, with a caller who waits", run: returns(7, errReading),
		counted: "Failure", health: "bad", asks: true, value: 7, err: itself(errReading),
	},
	{
		name: "failure without a timeout", config: firebreak.Config{Timeout: firebreak.Off}, run: deaf(3*time.Second, 7, errBoom),
		counted: "Failure", health: "bad", asks: true, value: 7, err: itself(errBoom),
	},

	// The command's deadline.
	{
		name: "error at the deadline", in: semaphores, run: deaf(time.Second, 7, errBoom),
		counted: "Timeout", health: "bad", asks: true, value: 7, err: ours(firebreak.ErrTimeout, errBoom),
	},
	{
		name: "expected, but late", in: semaphores, config: firebreak.Config{Classify: firebreak.ExpectErrors(errNotFound)},
		run:     deaf(time.Second, 7, firebreak.Mark(errNotFound, firebreak.Expected)),
		counted: "Timeout", health: "bad", asks: true, value: 7, err: ours(firebreak.ErrTimeout, errNotFound),
	},
	{
		name: "run hears of the deadline", in: semaphores, run: heeds(7, nil),
		counted: "Timeout", health: "bad", asks: true, value: 7, err: ours(firebreak.ErrTimeout, context.DeadlineExceeded),
	},
	{
		name: "run hears of the deadline, in a pool", in: pools, run: heeds(0, nil),
		counted: "Timeout", health: "bad", asks: true,
		err: func(t *testing.T, err error) {
			e, ok := err.(*firebreak.Error)
			require.True(t, ok, "%#v", err)
			ours(firebreak.ErrTimeout, e.Cause)(t, err)
			require.Contains(t, []error{nil, context.DeadlineExceeded}, e.Cause) // whoever is first
		},
	},
	{
		name: "error a tenth late", in: semaphores, run: deaf(1100*time.Millisecond, 7, errBoom),
		counted: "Timeout", health: "bad", asks: true, value: 7, err: ours(firebreak.ErrTimeout, errBoom),
	},
	{
		name: "error more than a tenth late", in: semaphores, run: deaf(1100*time.Millisecond+1, 7, errBoom),
		counted: "Timeout", overran: true, health: "bad", asks: true, value: 7, err: ours(firebreak.ErrTimeout, errBoom),
	},
	{
		name: "run goes on a tenth longer than its caller", in: pools, run: deaf(1100*time.Millisecond, 7, errBoom),
		counted: "Timeout", health: "bad", asks: true, err: ours(firebreak.ErrTimeout, nil),
	},
	{
		name: "run goes on more than a tenth longer", in: pools, run: deaf(1100*time.Millisecond+1, 7, errBoom),
		counted: "Timeout", overran: true, health: "bad", asks: true, err: ours(firebreak.ErrTimeout, nil),
	},

	// Panic and Goexit.
	{
		name: "panic", in: semaphores, run: panicking,
		counted: "Panic", health: "bad", goesUp: goesUp("boom"),
	},
	{
		name: "panic in a pool", in: pools, run: panicking,
		counted: "Panic", health: "bad", err: panics("boom"),
	},
	{
		name: "Goexit", in: semaphores, run: exiting,
		counted: "Panic", health: "bad", goesUp: exits,
	},
	{
		name: "Goexit in a pool", in: pools, run: exiting,
		counted: "Panic", health: "bad", err: panics(nil),
	},
	{
		name: "panic, recovered", config: firebreak.Config{RecoverPanics: firebreak.On}, run: panicking,
		counted: "Panic", health: "bad", asks: true, err: panics("boom"),
	},
	{
		name: "Goexit, which nothing recovers", in: semaphores, config: firebreak.Config{RecoverPanics: firebreak.On}, run: exiting,
		counted: "Panic", health: "bad", goesUp: exits,
	},
	{
		name: "Goexit in a pool, recovered", in: pools, config: firebreak.Config{RecoverPanics: firebreak.On}, run: exiting,
		counted: "Panic", health: "bad", asks: true, err: panics(nil),
	},
	{
		name: "Classify panics", in: semaphores, config: firebreak.Config{Classify: panicAtNotFound}, run: returns(7, errNotFound),
		counted: "Panic", health: "bad", goesUp: goesUp("what is this?"),
	},
	{
		name: "Classify panics in a pool", in: pools, config: firebreak.Config{Classify: panicAtNotFound}, run: returns(7, errNotFound),
		counted: "Panic", health: "bad", value: 7, err: panics("what is this?"),
	},
	{
		name: "Classify panics, recovered", config: firebreak.Config{Classify: panicAtNotFound, RecoverPanics: firebreak.On}, run: returns(7, errNotFound),
		counted: "Panic", health: "bad", asks: true, value: 7, err: panics("what is this?"),
	},
	{
		name: "Classify calls Goexit", in: semaphores, config: firebreak.Config{Classify: exitAtNotFound}, run: returns(7, errNotFound),
		counted: "Panic", health: "bad", goesUp: exits,
	},
	{
		name: "Classify calls Goexit in a pool", in: pools, config: firebreak.Config{Classify: exitAtNotFound}, run: returns(7, errNotFound),
		counted: "Panic", health: "bad", value: 7, err: panics(nil),
	},

	// The caller's end.
	{
		name: "canceled, and run says so", in: semaphores, ctx: canceledAfter(time.Second / 2), run: heeds(7, errReading),
		counted: "Canceled", health: "neutral", value: 7, err: itself(errReading),
	},
	{
		name: "canceled, and run says something else", in: semaphores, ctx: canceledAfter(time.Second / 2), run: heeds(7, errBoom),
		counted: "Canceled", health: "neutral", value: 7, err: itself(context.Canceled),
	},
	{
		name: "canceled just before the deadline", in: semaphores, ctx: canceledAfter(time.Second - 1), run: heeds(7, errBoom),
		counted: "Canceled", health: "neutral", value: 7, err: itself(context.Canceled),
	},
	{
		name: "canceled, and an expected error", in: semaphores, ctx: canceledAfter(time.Second / 2),
		run:     heeds(7, firebreak.Mark(errReading, firebreak.Expected)),
		counted: "Canceled", health: "neutral", value: 7, err: itself(errReading),
	},
	{
		name: "canceled, the caller leaves", in: pools, ctx: canceledAfter(time.Second / 2), run: deaf(600*time.Millisecond, 7, nil),
		counted: "Canceled", health: "neutral", err: itself(context.Canceled),
	},
	{
		name: "the caller leaves just before the deadline", in: pools, ctx: canceledAfter(time.Second - 1), run: deaf(time.Second, 7, nil),
		counted: "Canceled", health: "neutral", err: itself(context.Canceled),
	},
	{
		name: "canceled after the deadline", ctx: canceledAfter(time.Second + 1), run: deaf(time.Second+2, 0, errBoom),
		counted: "Timeout", health: "bad", asks: true,
		err: func(t *testing.T, err error) {
			require.ErrorIs(t, err, firebreak.ErrTimeout)
			require.NotErrorIs(t, err, context.Canceled)
		},
	},
	{
		name: "the caller's deadline, and run says so", in: semaphores, ctx: deadlineAfter(time.Second - 1), run: heeds(7, errTooSlow),
		counted: "CallerDeadline", health: "neutral", value: 7, err: itself(errTooSlow),
	},
	{
		name: "the caller's deadline, and run says something else", in: semaphores, ctx: deadlineAfter(time.Second - 1), run: heeds(7, errBoom),
		counted: "CallerDeadline", health: "neutral", value: 7, err: itself(context.DeadlineExceeded),
	},
	{
		name: "the caller's deadline, in a pool", in: pools, ctx: deadlineAfter(time.Second - 1), run: deaf(time.Second, 7, nil),
		counted: "CallerDeadline", health: "neutral", err: itself(context.DeadlineExceeded),
	},
	{
		name: "the caller's deadline, counted", in: semaphores, config: firebreak.Config{CountCallerDeadlines: firebreak.On},
		ctx: deadlineAfter(time.Second - 1), run: heeds(7, errBoom),
		counted: "CallerDeadline", health: "bad", value: 7, err: itself(context.DeadlineExceeded),
	},
	{
		name: "the caller's deadline in a pool, counted", in: pools, config: firebreak.Config{CountCallerDeadlines: firebreak.On},
		ctx: deadlineAfter(time.Second - 1), run: deaf(time.Second, 7, nil),
		counted: "CallerDeadline", health: "bad", err: itself(context.DeadlineExceeded),
	},
	{
		name: "both deadlines at once", ctx: deadlineAfter(time.Second), run: deaf(time.Second+2, 0, errBoom),
		counted: "Timeout", health: "bad", asks: true,
		err: func(t *testing.T, err error) { require.ErrorIs(t, err, firebreak.ErrTimeout) },
	},
	{
		name: "the caller's deadline is the later one", ctx: deadlineAfter(time.Second + 1), run: deaf(time.Second+2, 0, errBoom),
		counted: "Timeout", health: "bad", asks: true,
		err: func(t *testing.T, err error) { require.ErrorIs(t, err, firebreak.ErrTimeout) },
	},
	{
		name: "the caller's deadline alone", in: semaphores, config: firebreak.Config{Timeout: firebreak.Off},
		ctx: deadlineAfter(time.Second), run: heeds(7, nil),
		counted: "CallerDeadline", health: "neutral", value: 7, err: itself(context.DeadlineExceeded),
	},
	{
		name: "the caller's deadline alone, in a pool", in: pools, config: firebreak.Config{Timeout: firebreak.Off},
		ctx: deadlineAfter(time.Second), run: deaf(time.Second+1, 7, nil),
		counted: "CallerDeadline", health: "neutral", err: itself(context.DeadlineExceeded),
	},

	// Refusals.
	{
		name: "rejected", config: firebreak.Config{MaxConcurrent: 1}, before: occupied(time.Second),
		counted: "Rejected", health: "neutral", asks: true, err: ours(firebreak.ErrRejected, nil),
	},
	{
		name: "rejected, the queue is full too", in: pools, config: firebreak.Config{MaxConcurrent: 1, QueueSize: 1},
		before: func(_ *testing.T, p *place) {
			p.occupy(time.Second / 2)
			p.occupy(time.Second / 2) // in the queue
		},
		counted: "Rejected", health: "neutral", asks: true, err: ours(firebreak.ErrRejected, nil),
	},
	{
		name: "rejected, as many wait as may", in: semaphores, config: firebreak.Config{MaxConcurrent: 1, MaxWait: time.Minute, QueueSize: 1},
		before: func(_ *testing.T, p *place) {
			p.occupy(time.Second / 2)
			p.occupy(time.Second / 2) // waiting
		},
		counted: "Rejected", health: "neutral", asks: true, err: ours(firebreak.ErrRejected, nil),
	},
	{
		name: "rejected, a queue without MaxWait is none", in: semaphores, config: firebreak.Config{MaxConcurrent: 1, QueueSize: 1}, before: occupied(time.Second),
		counted: "Rejected", health: "neutral", asks: true, err: ours(firebreak.ErrRejected, nil),
	},
	{
		name: "rejected, and counted", config: firebreak.Config{MaxConcurrent: 1, CountRejections: firebreak.On}, before: occupied(time.Second),
		counted: "Rejected", health: "bad", probe: "neutral", asks: true, err: ours(firebreak.ErrRejected, nil),
	},
	{
		name: "rejected after MaxWait", in: semaphores, config: firebreak.Config{MaxConcurrent: 1, MaxWait: time.Second - 1}, before: occupied(2 * time.Second),
		counted: "Rejected", health: "neutral", asks: true, err: ours(firebreak.ErrRejected, nil),
	},
	{
		name: "its time was over while it waited", in: semaphores, config: firebreak.Config{MaxConcurrent: 1, MaxWait: time.Minute}, before: occupied(2 * time.Second),
		counted: "Rejected", health: "neutral", asks: true, err: ours(firebreak.ErrRejected, context.DeadlineExceeded),
	},
	{
		name: "its time was over in the queue", in: pools, config: firebreak.Config{MaxConcurrent: 1, QueueSize: 1}, before: occupied(2 * time.Second),
		counted: "Rejected", health: "neutral", asks: true, err: ours(firebreak.ErrRejected, context.DeadlineExceeded),
	},
	{
		name: "its time was over in the queue, and that is counted", in: pools,
		config: firebreak.Config{MaxConcurrent: 1, QueueSize: 1, CountRejections: firebreak.On}, before: occupied(2 * time.Second),
		counted: "Rejected", health: "bad", probe: "neutral", asks: true, err: ours(firebreak.ErrRejected, context.DeadlineExceeded),
	},
	{
		name: "short-circuited", before: func(t *testing.T, p *place) { failUntilItOpens(t, p.cmd) },
		counted: "ShortCircuited", health: "", probe: "-", asks: true, err: open(5 * time.Second),
	},
	{
		name: "short-circuited, another probes", probe: "-",
		before: func(t *testing.T, p *place) {
			failUntilItOpens(t, p.cmd)
			time.Sleep(5 * time.Second)
			probe, err := p.cmd.Begin(t.Context())
			require.NoError(t, err)
			t.Cleanup(probe.End)
		},
		counted: "ShortCircuited", health: "", asks: true, err: open(5 * time.Second), // the end of the lease
	},
	{
		name: "shutdown", before: shutDown, probe: "-",
		counted: "Shutdown", health: "neutral", asks: true, err: ours(firebreak.ErrShutdown, nil),
	},
	{
		name: "shutdown while it waited", in: semaphores, config: firebreak.Config{MaxConcurrent: 1, MaxWait: time.Minute}, before: shutDownLater, probe: "-",
		counted: "Shutdown", health: "neutral", asks: true, err: ours(firebreak.ErrShutdown, nil),
	},
	{
		name: "shutdown while it was queued", in: pools, config: firebreak.Config{MaxConcurrent: 1, QueueSize: 1}, before: shutDownLater, probe: "-",
		counted: "Shutdown", health: "neutral", asks: true, err: ours(firebreak.ErrShutdown, nil),
	},
	{
		name: "gave up on arrival", ctx: alreadyCanceled,
		counted: "GaveUp", health: "neutral", err: itself(context.Canceled),
	},
	{
		name: "gave up on arrival, by a deadline", ctx: deadlineAfter(0),
		counted: "GaveUp", health: "neutral", err: itself(context.DeadlineExceeded),
	},
	{
		name: "gave up waiting", in: semaphores, config: firebreak.Config{MaxConcurrent: 1, MaxWait: time.Minute, CountRejections: firebreak.On},
		before: occupied(time.Second), ctx: canceledAfter(time.Second / 2),
		counted: "GaveUp", health: "neutral", err: itself(context.Canceled),
	},
	{
		name: "gave up in the queue", in: pools, config: firebreak.Config{MaxConcurrent: 1, QueueSize: 1, CountCallerDeadlines: firebreak.On},
		before: occupied(time.Second), ctx: deadlineAfter(time.Second / 2),
		counted: "GaveUp", health: "neutral", err: itself(context.DeadlineExceeded),
	},
}

func occupied(d time.Duration) func(*testing.T, *place) {
	return func(_ *testing.T, p *place) { p.occupy(d) }
}

func shutDownLater(t *testing.T, p *place) {
	t.Helper()
	p.occupy(time.Second)
	time.AfterFunc(time.Second/2, func() { _ = p.reg.Shutdown(context.Background()) })
}

// A verb makes a call with a fallback, which may be nil.
type verb func(ctx context.Context, cmd *firebreak.Command, run func(context.Context) (int, error), fallback firebreak.Fallback[int]) (int, error)

func doing(ctx context.Context, cmd *firebreak.Command, run func(context.Context) (int, error), fallback firebreak.Fallback[int]) (int, error) {
	return firebreak.Do(ctx, cmd, run, fallback)
}

// eachOutcome runs test in a bubble for each row of the table, in each isolation
// that it can happen in.
func eachOutcome(t *testing.T, test func(t *testing.T, in firebreak.Isolation, row *outcomeRow)) {
	t.Helper()
	for _, in := range []firebreak.Isolation{semaphores, pools} {
		for i := range outcomeRows {
			row := &outcomeRows[i]
			if row.in != 0 && row.in != in {
				continue
			}
			t.Run(in.String()+"/"+row.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { test(t, in, row) })
			})
		}
	}
}

// call makes the row's call, and tells how often run was called.
func (row *outcomeRow) call(t *testing.T, p *place, how verb, fallback firebreak.Fallback[int]) (a answer, runs int) {
	t.Helper()
	ctx, cancel := t.Context(), context.CancelFunc(func() {})
	if row.ctx != nil {
		ctx, cancel = row.ctx(ctx)
	}
	defer cancel()
	var ran atomic.Int32
	a = answerOf(func() (int, error) {
		return how(ctx, p.cmd, func(ctx context.Context) (int, error) {
			ran.Add(1)
			return row.run(ctx)
		}, fallback)
	})
	time.Sleep(time.Second) // whatever goes on is over
	synctest.Wait()
	return a, int(ran.Load())
}

// requireOutcome makes the row's call with a fallback that is given or not, and
// answers or not, and checks everything that can be seen of it.
func requireOutcome(t *testing.T, in firebreak.Isolation, row *outcomeRow, how verb, given, answers bool) {
	t.Helper()
	p := newPlace(t, in, row.config)
	_, _ = firebreak.Do(t.Context(), p.cmd, succeed)
	_, _ = firebreak.Do(t.Context(), p.cmd, fail)
	if row.before != nil {
		row.before(t, p)
	}
	before := p.cmd.Snapshot()

	var fallback firebreak.Fallback[int]
	asked, cause := 0, error(nil)
	if given {
		fallback = func(_ context.Context, err error) (int, error) {
			asked, cause = asked+1, err
			if answers {
				return 99, nil
			}
			return 98, errCache
		}
	}
	// When the answer comes nothing may be left to wait for: so what is counted is
	// looked at on the caller's goroutine.
	var then firebreak.Snapshot
	watched := func(ctx context.Context, cmd *firebreak.Command, run func(context.Context) (int, error), fallback firebreak.Fallback[int]) (int, error) {
		defer func() { then = cmd.Snapshot() }()
		v, err := how(ctx, cmd, run, fallback)
		if asked == 0 {
			cause = err
		}
		if given && row.asks {
			row.err(t, cause) // now, as it may be a matter of time
		} else if row.goesUp == nil {
			row.err(t, err)
		}
		return v, err
	}
	a, runs := row.call(t, p, watched, fallback)
	after := p.cmd.Snapshot()

	want := map[string]uint64{row.counted: 1}
	if row.asks {
		switch {
		case !given:
			want["FallbackMissing"] = 1
		case answers:
			want["FallbackSuccess"] = 1
		default:
			want["FallbackFailure"] = 1
		}
	}
	now := counted(before.Total, then.Total)
	delete(now, "Overran") // a run that goes on has not overrun yet
	require.Equal(t, want, now, "when the call was answered")
	if row.overran {
		want["Overran"] = 1
	}
	require.Equal(t, want, counted(before.Total, after.Total))
	require.Equal(t, uint64(runs), after.Total.Executed()-before.Total.Executed(), "executed calls are the runs begun")
	require.Equal(t, uint64(1), after.Total.Calls()-before.Total.Calls())
	if row.run == nil {
		require.Zero(t, runs)
	} else {
		require.Equal(t, 1, runs)
	}

	if given && row.asks {
		require.Equal(t, 1, asked)
	} else {
		require.Zero(t, asked)
	}
	switch {
	case row.goesUp != nil:
		row.goesUp(t, a)
	case given && row.asks && answers:
		require.Equal(t, answer{value: 99}, a)
	case given && row.asks:
		require.Equal(t, row.value, a.value, "run's value, not that of a fallback that failed")
		e, ok := a.err.(*firebreak.Error)
		require.True(t, ok, "%#v", a.err)
		require.True(t, e.Fallback == errCache)
		require.ErrorIs(t, e, errCache)
		if ours, ok := cause.(*firebreak.Error); ok {
			require.Equal(t, &firebreak.Error{Command: "cmd", Reason: ours.Reason, Cause: ours.Cause, RetryAt: ours.RetryAt, Fallback: errCache}, e)
			require.NotSame(t, ours, e)
			require.NoError(t, ours.Fallback)
		} else {
			require.Equal(t, &firebreak.Error{Command: "cmd", Reason: firebreak.ErrFailed, Cause: cause, Fallback: errCache}, e)
			require.True(t, e.Cause == cause)
		}
	default:
		require.Equal(t, row.value, a.value)
		require.Nil(t, a.panicked)
		require.False(t, a.exited)
	}

	if row.health == "" { // the circuit is not closed, and stays so
		require.InDelta(t, before.ErrorPercentage, after.ErrorPercentage, 0)
	} else {
		require.InDelta(t, errorPercentage[row.health], after.ErrorPercentage, 1e-9, row.health)
	}
}

func TestOutcomes(t *testing.T) {
	eachOutcome(t, func(t *testing.T, in firebreak.Isolation, row *outcomeRow) {
		requireOutcome(t, in, row, doing, false, false)
	})
}

// S18, S20, S21: the same calls with a fallback that answers, and with one that fails.
func TestOutcomesThenTheFallback(t *testing.T) {
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprintf("answers=%t", answers), func(t *testing.T) {
			eachOutcome(t, func(t *testing.T, in firebreak.Isolation, row *outcomeRow) {
				requireOutcome(t, in, row, doing, true, answers)
			})
		})
	}
}

// The circuit's view of the same calls where one call decides: a good probe closes,
// a bad one opens again, and a neutral one leaves its place to the very next call.
func TestOutcomesOfProbes(t *testing.T) {
	eachOutcome(t, func(t *testing.T, in firebreak.Isolation, row *outcomeRow) {
		health := row.health
		if row.probe != "" {
			health = row.probe
		}
		if health == "-" {
			return
		}
		p := newPlace(t, in, row.config)
		failUntilItOpens(t, p.cmd)
		first := p.cmd.Snapshot().Evidence
		time.Sleep(5 * time.Second)
		if row.before != nil {
			row.before(t, p)
		}
		_, _ = row.call(t, p, doing, nil)

		s := p.cmd.Snapshot()
		switch health {
		case "good":
			require.Equal(t, firebreak.StateClosed, s.State)
			require.Zero(t, s.ErrorPercentage)
		case "bad":
			require.Equal(t, firebreak.StateOpen, s.State)
			require.Equal(t, "probe", s.Evidence.Rule)
			require.NotEqual(t, first.At, s.Evidence.At)
		default:
			require.NotEqual(t, firebreak.StateClosed, s.State)
			require.Equal(t, first.At, s.Evidence.At)
			time.Sleep(time.Second) // who had the permits is gone
			_, err := firebreak.Do(t.Context(), p.cmd, succeed)
			require.NoError(t, err)
			require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
		}
	})
}

// roomToWait is one permit, and room for two who wait for it a minute.
func roomToWait(in firebreak.Isolation) firebreak.Config {
	c := firebreak.Config{MaxConcurrent: 1, QueueSize: 2, Timeout: time.Minute}
	if in == semaphores {
		c.MaxWait = time.Minute
	}
	return c
}

// later makes a call on another goroutine, and returns when it has begun to wait;
// what it returns waits for the answer.
func later(call func() (int, error)) (wait func() answer) {
	var a answer
	done := make(chan struct{})
	go func() {
		defer close(done)
		a = answerOf(call)
	}()
	synctest.Wait()
	return func() answer {
		<-done
		return a
	}
}

func TestS1_NilArgumentsPanicBeforeAnythingIsTaken(t *testing.T) {
	var (
		noContext context.Context
		noCommand *firebreak.Command
		cmd       = newCommand(t, firebreak.Config{})
		ctx       = t.Context()
		run       = func(context.Context) error { return nil }
		bound     = func(context.Context, int) (int, error) { return 1, nil }
	)
	trip(t, cmd) // not even a refusal is counted
	before := total(cmd)
	for name, call := range map[string]func(){
		"Do without a context":    func() { _, _ = firebreak.Do(noContext, cmd, succeed) },
		"Do without a command":    func() { _, _ = firebreak.Do(ctx, noCommand, succeed) },
		"Do without run":          func() { _, _ = firebreak.Do[int](ctx, cmd, nil) },
		"Run without a context":   func() { _ = cmd.Run(noContext, run) },
		"Run without a command":   func() { _ = noCommand.Run(ctx, run) },
		"Run without run":         func() { _ = cmd.Run(ctx, nil) },
		"Begin without a context": func() { _, _ = cmd.Begin(noContext) },
		"Begin without a command": func() { _, _ = noCommand.Begin(ctx) },
		"Bind without a command":  func() { firebreak.Bind(noCommand, bound) },
		"Bind without a function": func() { firebreak.Bind[int, int](cmd, nil) },
		"bound without a context": func() { _, _ = firebreak.Bind(cmd, bound)(noContext, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				require.Regexp(t, "^firebreak: .*(needs|without)", recover())
				require.Equal(t, before, total(cmd))
			}()
			call()
		})
	}
}

func TestS1_TheFirstRefusalEndsTheCall(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
		p.occupy(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		try := func() (err error) { _, err = firebreak.Do(ctx, p.cmd, succeed); return err }

		require.ErrorIs(t, try(), firebreak.ErrRejected)
		p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		require.ErrorIs(t, try(), firebreak.ErrOpen)
		shutDown(t, p)
		require.ErrorIs(t, try(), firebreak.ErrShutdown)
		cancel()
		require.True(t, try() == context.Canceled)

		require.Equal(t, map[string]uint64{"Rejected": 1, "ShortCircuited": 1, "Shutdown": 1, "GaveUp": 1, "FallbackMissing": 3},
			counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// Calls of every kind at once. What is counted has to agree with what the callers
// and the runs saw.
func TestS2_EveryCallEndsInExactlyOneOutcome(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		c := roomToWait(in)
		c.MaxConcurrent, c.QueueSize, c.MaxFallbacks = 12, 6, 2
		c.Timeout, c.SleepWindow, c.ErrorThresholdPercentage = time.Second, 100*time.Millisecond, 55
		c.Classify = firebreak.ExpectErrors(errNotFound)
		p := newPlace(t, in, c)
		runs := []func(context.Context) (int, error){
			returns(1, nil), returns(1, nil), returns(1, nil), deaf(300*time.Millisecond, 1, nil), deaf(1300*time.Millisecond, 1, nil),
			returns(1, errBoom), returns(1, errNotFound), deaf(time.Second/2, 1, firebreak.Mark(errBoom, firebreak.Ignored)),
			deaf(1300*time.Millisecond, 1, errBoom), heeds(1, nil), heeds(1, errBoom), panicking, exiting,
		}
		var made, begun, lateValues, answered, failed atomic.Int64
		const callers, calls = 24, 80
		var all []func() answer
		for i := range callers {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			all = append(all, later(func() (int, error) {
				for range calls {
					ctx, cancel := context.WithCancel(t.Context())
					patience := time.Duration(random.IntN(1500)) * time.Millisecond
					switch random.IntN(6) {
					case 0:
						cancel()
					case 1:
						time.AfterFunc(patience/2, cancel)
					case 2:
						ctx, cancel = context.WithTimeout(t.Context(), patience)
					}
					var fallbacks []firebreak.Fallback[int]
					switch random.IntN(3) {
					case 0:
						fallbacks = []firebreak.Fallback[int]{func(context.Context, error) (int, error) {
							time.Sleep(50 * time.Millisecond)
							answered.Add(1)
							return 2, nil
						}}
					case 1:
						fallbacks = []firebreak.Fallback[int]{func(context.Context, error) (int, error) { failed.Add(1); return 0, errCache }}
					}
					run := runs[random.IntN(len(runs))]
					made.Add(1)
					submitted := time.Now()
					answerOf(func() (int, error) {
						return firebreak.Do(ctx, p.cmd, func(ctx context.Context) (int, error) {
							begun.Add(1)
							v, err := run(ctx)
							if err == nil && time.Since(submitted) > time.Second && in == semaphores {
								lateValues.Add(1)
							}
							return v, err
						}, fallbacks...)
					})
					cancel()
					time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
				}
				return 0, nil
			}))
		}
		for _, wait := range all {
			wait()
		}
		time.Sleep(2 * time.Second) // runs that were left end
		s := p.cmd.Snapshot()
		got := s.Total
		require.Equal(t, int64(callers*calls), made.Load())
		require.Equal(t, uint64(made.Load()), got.Calls())
		require.EqualValues(t, begun.Load(), got.Executed())
		require.Equal(t, got.Executed(), s.RunHistogram.Count)
		require.EqualValues(t, answered.Load(), got.FallbackSuccess)
		require.EqualValues(t, failed.Load(), got.FallbackFailure)
		wanted := got.Failure + got.Timeout - uint64(lateValues.Load()) + got.Rejected + got.ShortCircuited
		require.Equal(t, wanted, got.FallbackSuccess+got.FallbackFailure+got.FallbackRejected+got.FallbackMissing)
		require.Greater(t, len(counted(firebreak.Counts{}, got)), 12, "it was too tame")
	})
}

func TestS3_WhoWaitedThroughATripIsRefused(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		c := roomToWait(in)
		c.ConsecutiveFailures = 1
		p := newPlace(t, in, c)
		ctx := t.Context()
		first := later(func() (int, error) { return firebreak.Do(ctx, p.cmd, deaf(time.Second, 0, errBoom)) })
		second := later(func() (int, error) { return firebreak.Do(ctx, p.cmd, returns(2, nil)) })
		third := later(func() (int, error) {
			call, err := p.cmd.Begin(ctx)
			if err == nil {
				call.End()
			}
			return 0, err
		})
		require.True(t, first().err == errBoom)
		require.ErrorIs(t, second().err, firebreak.ErrOpen)
		require.Equal(t, firebreak.ErrOpen.Error(), reasonOf(second().err))
		if in == semaphores {
			require.ErrorIs(t, third().err, firebreak.ErrOpen)
			require.Equal(t, map[string]uint64{"Failure": 1, "ShortCircuited": 2, "FallbackMissing": 2}, counted(firebreak.Counts{}, total(p.cmd)))
		} else {
			require.ErrorIs(t, third().err, firebreak.ErrRejected) // it never queues
		}
	})
}

// reasonOf is the reason of an error of ours, in words.
func reasonOf(err error) string {
	if e, ok := errors.AsType[*firebreak.Error](err); ok {
		return e.Reason.Error()
	}
	return fmt.Sprint(err)
}

// The neighbours see to it that the turn of the call comes when the sleep is over.
func TestS3_WhoWaitedThroughTripAndSleepProbes(t *testing.T) {
	for _, healthy := range []bool{true, false} {
		t.Run(fmt.Sprintf("healthy=%t", healthy), func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				c := roomToWait(in)
				c.ConsecutiveFailures, c.SleepWindow, c.MaxConcurrent = 1, 300*time.Millisecond, 2
				p := newPlace(t, in, c)
				ctx := t.Context()
				p.occupy(500 * time.Millisecond)
				tripping := later(func() (int, error) { return firebreak.Do(ctx, p.cmd, deaf(100*time.Millisecond, 0, errBoom)) })
				neighbour := later(func() (int, error) { return firebreak.Do(ctx, p.neighbour, deaf(time.Second, 0, nil)) })
				probing := later(func() (int, error) {
					return firebreak.Do(ctx, p.cmd, func(context.Context) (int, error) {
						require.Equal(t, firebreak.StateHalfOpen, p.cmd.Snapshot().State)
						if !healthy {
							return 0, errBoom
						}
						return 2, nil
					})
				})
				tripping()
				require.Equal(t, firebreak.StateOpen, p.cmd.Snapshot().State)
				a := probing()
				if healthy {
					require.Equal(t, answer{value: 2}, a)
					require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
				} else {
					require.Equal(t, answer{err: errBoom}, a)
					require.Equal(t, "probe", p.cmd.Snapshot().Evidence.Rule)
				}
				neighbour()
			})
		})
	}
}

func TestS3_WhoWaitedCountsInTheNewEra(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, roomToWait(in))
		ctx := t.Context()
		p.occupy(time.Second)
		failing := later(func() (int, error) { return firebreak.Do(ctx, p.cmd, fail) })
		p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		p.cmd.Override(firebreak.Override{}) // two eras later, with an empty window
		require.True(t, failing().err == errBoom)
		require.InDelta(t, 100, p.cmd.Snapshot().ErrorPercentage, 0)
	})
}

// One refused call after the other would trip the circuit, if they counted.
func TestS4_RefusalsAreNeutral(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		for _, counts := range []firebreak.Switch{firebreak.Off, firebreak.On} {
			c := roomToWait(in)
			c.QueueSize, c.MaxWait, c.Timeout = 0, 0, 0
			c.CountRejections = counts
			p := newPlace(t, in, c)
			p.occupy(time.Minute)
			for range 19 {
				_, err := firebreak.Do(t.Context(), p.cmd, succeed)
				require.ErrorIs(t, err, firebreak.ErrRejected)
				require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
			}
			_, err := firebreak.Do(t.Context(), p.cmd, succeed)
			require.ErrorIs(t, err, firebreak.ErrRejected)
			if counts == firebreak.Off {
				require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
				continue
			}
			s := p.cmd.Snapshot()
			require.Equal(t, firebreak.StateOpen, s.State)
			require.Equal(t, "cmd: bulkhead full", s.Evidence.LastError)

			time.Sleep(5 * time.Second) // half-open: a full bulkhead must not open it again
			_, err = firebreak.Do(t.Context(), p.cmd, succeed)
			require.ErrorIs(t, err, firebreak.ErrRejected)
			require.Equal(t, firebreak.StateHalfOpen, p.cmd.Snapshot().State)
			time.Sleep(time.Minute)
			_, err = firebreak.Do(t.Context(), p.cmd, succeed)
			require.NoError(t, err)
			require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
		}
	})
}

// S4: each in turn is the probe, is rejected, and leaves its place; the same bucket of
// the window counts them all, and observers are told of each.
func TestS4_ARejectedProbeLeavesItsPlace(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		for _, watched := range []bool{false, true} {
			p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
			failUntilItOpens(t, p.cmd)
			time.Sleep(5 * time.Second)
			held := begun(t, t.Context(), p.neighbour)
			told := 0
			if watched {
				p.reg.Observe(firebreak.Observer{Call: func(_ context.Context, e firebreak.CallEvent) {
					if e.Outcome == firebreak.OutcomeRejected {
						told++
					}
				}})
			}
			for range 3 {
				_, err := firebreak.Do(t.Context(), p.cmd, succeed)
				ours(firebreak.ErrRejected, nil)(t, err)
				require.Equal(t, firebreak.StateHalfOpen, p.cmd.Snapshot().State)
			}
			require.Equal(t, watched, told == 3)
			_ = held.Settle(nil)
			held.End()
			_, err := firebreak.Do(t.Context(), p.cmd, succeed)
			require.NoError(t, err)
			require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
		}
	})
}

// What an observer of a step sees of the others.
func TestS5_EachStepSeesThoseBefore(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, ConsecutiveFailures: 1})
		var steps []string
		step := func(name string, fallbacks int, want map[string]uint64) {
			steps = append(steps, name)
			s := p.cmd.Snapshot()
			require.Equal(t, want, counted(firebreak.Counts{}, s.Total), name)
			require.Equal(t, firebreak.StateOpen, s.State, name)
			require.Zero(t, s.InFlight, name)
			require.Zero(t, s.Bulkhead.InFlight, name)
			require.Equal(t, fallbacks, s.Fallbacks, name)
			_, err := firebreak.Do(t.Context(), p.neighbour, succeed)
			require.NoError(t, err, "%s: the permit is free", name)
		}
		defer p.reg.Observe(firebreak.Observer{
			Transition: func(tr firebreak.Transition) {
				if tr.Command == "cmd" {
					step("transition", 0, map[string]uint64{"Failure": 1})
				}
			},
			Call: func(_ context.Context, e firebreak.CallEvent) {
				if e.Command == "cmd" {
					step("call", 0, map[string]uint64{"Failure": 1})
				}
			},
			Fallback: func(context.Context, firebreak.CallEvent) {
				step("fallbacks are done", 0, map[string]uint64{"Failure": 1, "FallbackSuccess": 1})
			},
		})()
		// The error's text is asked for by the circuit: by then the call is counted, and
		// its permit is not back, so that the next waiter sees the news.
		slowToTell := unreadable{func() string {
			steps = append(steps, "circuit")
			s := p.cmd.Snapshot()
			require.Equal(t, map[string]uint64{"Failure": 1}, counted(firebreak.Counts{}, s.Total))
			require.Equal(t, firebreak.StateClosed, s.State)
			require.Equal(t, 1, s.Bulkhead.InFlight)
			_, err := firebreak.Do(t.Context(), p.neighbour, succeed)
			require.ErrorIs(t, err, firebreak.ErrRejected)
			return "boom"
		}}
		v, err := firebreak.Do(t.Context(), p.cmd, returns(0, slowToTell), func(context.Context, error) (int, error) {
			step("fallback", 1, map[string]uint64{"Failure": 1})
			return 2, nil
		})
		require.NoError(t, err)
		require.Equal(t, 2, v)
		step("answer", 0, map[string]uint64{"Failure": 1, "FallbackSuccess": 1})
		require.Equal(t, []string{"circuit", "transition", "call", "fallback", "fallbacks are done", "answer"}, steps)
	})
}

// A permit must not depend on an observer: one that calls Goexit, as a failed
// require does, ends the goroutine of a caller, and no worker. It used to hold the
// permit for ever, and in a pool its caller too.
func TestS5_AnObserverThatCallsGoexitHoldsNoPermit(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1, ConsecutiveFailures: 1})
		stop := p.reg.Observe(firebreak.Observer{Transition: func(firebreak.Transition) { runtime.Goexit() }})
		exits(t, answerOf(func() (int, error) { return firebreak.Do(t.Context(), p.cmd, fail) }))
		stop()
		require.Zero(t, p.cmd.Snapshot().Bulkhead.InFlight)
		require.Equal(t, map[string]uint64{"Failure": 1, "FallbackMissing": 1}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// How often the clock is read cannot be seen; when, it can.
func TestS6_TheClockIsReadWhenThePermitIsThereAndWhenRunIsOver(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, roomToWait(in))
		p.occupy(3 * time.Second)
		_, err := firebreak.Do(t.Context(), p.cmd, deaf(5*time.Second, 0, errBoom), func(context.Context, error) (int, error) {
			time.Sleep(7 * time.Second)
			return 2, nil
		})
		require.NoError(t, err)
		s := p.cmd.Snapshot()
		require.Equal(t, 5*time.Second, s.RunHistogram.Sum)
		require.Equal(t, 15*time.Second, s.CallHistogram.Sum)
	})
}

// S5, S6: what observers hear of a call that waited in vain.
func TestRefusalsAreTimedFromTheirSubmission(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, roomToWait(in))
		var events []firebreak.CallEvent
		p.reg.Observe(firebreak.Observer{Call: func(_ context.Context, e firebreak.CallEvent) {
			if e.Command == "cmd" {
				events = append(events, e)
			}
		}})
		shutDownLater(t, p) // after half a second
		_, err := firebreak.Do(t.Context(), p.cmd, succeed)
		require.ErrorIs(t, err, firebreak.ErrShutdown)
		_, err = firebreak.Do(t.Context(), p.cmd, succeed)
		require.ErrorIs(t, err, firebreak.ErrShutdown)
		require.Len(t, events, 2)
		for i, waited := range []time.Duration{time.Second / 2, 0} {
			require.Equal(t, firebreak.OutcomeShutdown, events[i].Outcome)
			require.Equal(t, waited, events[i].Call)
			require.Zero(t, events[i].Run)
			require.ErrorIs(t, events[i].Err, firebreak.ErrShutdown)
		}
	})
}

// Settings change while run does. A call goes by those of its beginning.
func TestS7_ACallKeepsItsSettings(t *testing.T) {
	for _, row := range []struct {
		name        string
		first, then firebreak.Config
		ctx         func(context.Context) (context.Context, context.CancelFunc)
		err         error
		panics      bool
		want        map[string]uint64
		state       firebreak.State
	}{
		{
			name: "a longer timeout", first: firebreak.Config{Timeout: time.Second}, then: firebreak.Config{Timeout: 9 * time.Second},
			err: errBoom, want: map[string]uint64{"Timeout": 1, "FallbackSuccess": 1, "Overran": 1},
		},
		{
			name: "a shorter timeout", first: firebreak.Config{Timeout: 9 * time.Second}, then: firebreak.Config{Timeout: time.Second},
			err: errBoom, want: map[string]uint64{"Failure": 1, "FallbackSuccess": 1},
		},
		{
			name: "fallbacks off", first: firebreak.Config{MaxFallbacks: 1}, then: firebreak.Config{MaxFallbacks: firebreak.Off},
			err: errBoom, want: map[string]uint64{"Failure": 1, "FallbackSuccess": 1},
		},
		{
			name: "fallbacks on", first: firebreak.Config{MaxFallbacks: firebreak.Off}, then: firebreak.Config{MaxFallbacks: 1},
			err: errBoom, want: map[string]uint64{"Failure": 1, "FallbackMissing": 1},
		},
		{
			name: "panics recovered no more", first: firebreak.Config{RecoverPanics: firebreak.On}, then: firebreak.Config{RecoverPanics: firebreak.Off},
			panics: true, want: map[string]uint64{"Panic": 1, "FallbackSuccess": 1},
		},
		{
			name: "panics recovered from now on", first: firebreak.Config{RecoverPanics: firebreak.Off}, then: firebreak.Config{RecoverPanics: firebreak.On},
			panics: true, want: map[string]uint64{"Panic": 1},
		},
		{
			name: "caller deadlines count from now on", first: firebreak.Config{ConsecutiveFailures: 1}, then: firebreak.Config{ConsecutiveFailures: 1, CountCallerDeadlines: firebreak.On},
			ctx: deadlineAfter(time.Second), err: errBoom, want: map[string]uint64{"CallerDeadline": 1},
		},
		{
			name: "caller deadlines count no more", first: firebreak.Config{ConsecutiveFailures: 1, CountCallerDeadlines: firebreak.On}, then: firebreak.Config{ConsecutiveFailures: 1},
			ctx: deadlineAfter(time.Second), err: errBoom, want: map[string]uint64{"CallerDeadline": 1}, state: firebreak.StateOpen,
		},
		{
			name: "a higher threshold", first: firebreak.Config{ConsecutiveFailures: 1}, then: firebreak.Config{ConsecutiveFailures: 2},
			err: errBoom, want: map[string]uint64{"Failure": 1, "FallbackSuccess": 1}, state: firebreak.StateOpen,
		},
		{
			name: "a lower threshold", first: firebreak.Config{ConsecutiveFailures: 2}, then: firebreak.Config{ConsecutiveFailures: 1},
			err: errBoom, want: map[string]uint64{"Failure": 1, "FallbackSuccess": 1},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{Timeout: 5 * time.Second})
				put := func(c firebreak.Config) {
					require.NoError(t, p.reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{"cmd": c}}))
				}
				put(row.first)
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if row.ctx != nil {
					ctx, cancel = row.ctx(ctx)
				}
				defer cancel()
				wait := later(func() (int, error) {
					return firebreak.Do(ctx, p.cmd, func(context.Context) (int, error) {
						time.Sleep(2 * time.Second)
						if row.panics {
							panic("boom")
						}
						return 0, row.err
					}, firebreak.Static(9))
				})
				put(row.then)
				wait()
				time.Sleep(2 * time.Second)
				require.Equal(t, row.want, counted(firebreak.Counts{}, total(p.cmd)))
				require.Equal(t, row.state, p.cmd.Snapshot().State)
			})
		})
	}
}

// The same of a success, which is judged where failures lacked nothing but volume.
func TestS7_ASuccessKeepsItsSettings(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		for first, then := range map[int]int{3: 99, 99: 3} {
			p := newPlace(t, in, firebreak.Config{})
			put := func(volume int) {
				require.NoError(t, p.reg.Update(firebreak.Document{Commands: map[string]firebreak.Config{"cmd": {RequestVolumeThreshold: volume}}}))
			}
			put(first)
			ctx := t.Context()
			_, _ = firebreak.Do(ctx, p.cmd, fail)
			_, _ = firebreak.Do(ctx, p.cmd, fail)
			wait := later(func() (int, error) { return firebreak.Do(ctx, p.cmd, deaf(time.Second-1, 1, nil)) })
			put(then)
			require.Equal(t, answer{value: 1}, wait())
			require.Equal(t, first == 3, p.cmd.Snapshot().State == firebreak.StateOpen)
		}
	})
}

func TestS7_TheBulkheadsLimitIsLive(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, roomToWait(in))
		p.occupy(time.Hour)
		ctx, began := t.Context(), time.Now()
		wait := later(func() (int, error) { return firebreak.Do(ctx, p.cmd, succeed) })
		require.NoError(t, p.reg.Update(firebreak.Document{Dependencies: map[string]firebreak.Config{"dep": {MaxConcurrent: 2}}}))
		require.Equal(t, answer{value: 1}, wait())
		require.Equal(t, began, time.Now())
		time.Sleep(time.Hour)
	})
}

func TestS8_RunsValueComesBesideItsError(t *testing.T) {
	type page struct{ items []string }
	half := &page{[]string{"a"}}
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		run := func(context.Context) (*page, error) { return half, errBoom }
		got, err := firebreak.Do(t.Context(), p.cmd, run)
		require.Same(t, half, got)
		require.True(t, err == errBoom)

		// A fallback that fails replaces nothing; one that answers does.
		got, err = firebreak.Do(t.Context(), p.cmd, run, func(context.Context, error) (*page, error) { return &page{}, errCache })
		require.Same(t, half, got)
		require.ErrorIs(t, err, errCache)
		got, err = firebreak.Do(t.Context(), p.cmd, run, firebreak.Static[*page](nil))
		require.Nil(t, got)
		require.NoError(t, err)
	})
}

// I6: a caller's cancel and its own deadline move no circuit, in any state.
func TestI6_ACallersEndMovesNoCircuit(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{ConsecutiveFailures: 1, RequestVolumeThreshold: 1, ErrorThresholdPercentage: 1, Evidence: firebreak.On, SlowCallDuration: time.Millisecond})
		ends := []func(context.Context) (context.Context, context.CancelFunc){canceledAfter(time.Second / 2), deadlineAfter(time.Second / 2), alreadyCanceled}
		leave := func() {
			for _, end := range ends {
				for _, run := range []func(context.Context) (int, error){heeds(0, nil), heeds(0, errBoom), heeds(0, firebreak.RetryAfter(errBoom, time.Hour)), deaf(3*time.Second/4, 0, errBoom)} {
					ctx, cancel := end(t.Context())
					_, err := firebreak.Do(ctx, p.cmd, run)
					require.True(t, err == ctx.Err(), "%v", err)
					time.Sleep(time.Second) // also for the run
					cancel()

					if ctx, cancel = end(t.Context()); ctx.Err() == nil {
						call, err := p.cmd.Begin(ctx)
						require.NoError(t, err)
						<-call.Context().Done()
						require.True(t, call.Settle(errBoom) == ctx.Err())
						call.End()
					}
					cancel()
				}
			}
		}
		leave()
		s := p.cmd.Snapshot()
		require.Equal(t, firebreak.StateClosed, s.State)
		require.Zero(t, s.Evidence)
		require.Zero(t, s.ErrorPercentage)

		_, _ = firebreak.Do(t.Context(), p.cmd, fail)
		opened := p.cmd.Snapshot().Evidence
		require.Equal(t, "error percentage", opened.Rule)
		time.Sleep(5 * time.Second)
		leave()
		s = p.cmd.Snapshot()
		require.Equal(t, firebreak.StateHalfOpen, s.State)
		require.Equal(t, opened.At, s.Evidence.At)
		_, err := firebreak.Do(t.Context(), p.cmd, succeed)
		require.NoError(t, err)
		require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
	})
}

// I8: run, Classify, an error's methods, Inject: a refusal calls none of them.
func TestI8_ARefusalRunsNoUserCodeButTheFallback(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		for _, row := range outcomeRows {
			if row.run != nil || row.in != 0 && row.in != in {
				continue
			}
			refusing := false // what comes before may be classified
			row.config.Classify = func(error) firebreak.Verdict {
				if refusing {
					t.Errorf("%s: Classify was called", row.name)
				}
				return firebreak.Failure
			}
			p := newPlace(t, in, row.config)
			if row.before != nil {
				row.before(t, p)
			}
			refusing = true
			p.cmd.Override(firebreak.Override{Inject: func(context.Context) error {
				t.Errorf("%s: Inject was called", row.name)
				return nil
			}})
			asked := 0
			row.run = func(context.Context) (int, error) {
				t.Errorf("%s: run was called", row.name)
				return 0, nil
			}
			_, runs := row.call(t, p, doing, func(context.Context, error) (int, error) { asked++; return 0, nil })
			require.Zero(t, runs, row.name)
			require.Equal(t, row.asks, asked == 1, row.name)
			time.Sleep(2 * time.Second) // whoever has the permits
		}
	})
}
