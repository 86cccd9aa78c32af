package firebreak_test

import (
	"context"
	"errors"
	"fmt"
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

// failUntilOpen trips a circuit that may have seen calls before.
func failUntilOpen(t *testing.T, cmd *firebreak.Command) {
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
		require.Equal(t, &firebreak.Error{Command: "cmd", Reason: reason, Cause: cause}, err)
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
		name: "short-circuited", before: func(t *testing.T, p *place) { failUntilOpen(t, p.cmd) },
		counted: "ShortCircuited", health: "", probe: "-", asks: true, err: open(5 * time.Second),
	},
	{
		name: "short-circuited, another probes", probe: "-",
		before: func(t *testing.T, p *place) {
			failUntilOpen(t, p.cmd)
			time.Sleep(5 * time.Second)
			ctx := t.Context()
			go func() { _, _ = firebreak.Do(ctx, p.cmd, deaf(time.Second-1, 0, nil)) }()
			synctest.Wait()
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
		failUntilOpen(t, p.cmd)
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
