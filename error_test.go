package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

func TestErrorText(t *testing.T) {
	for _, row := range []struct {
		err  firebreak.Error
		want string
	}{
		{firebreak.Error{Command: "users.get", Reason: firebreak.ErrOpen}, "users.get: circuit open"},
		{firebreak.Error{Command: "users.get", Reason: firebreak.ErrTimeout, Cause: errBoom}, "users.get: timed out: boom"},
		{firebreak.Error{Command: "users.get", Reason: firebreak.ErrRejected, Fallback: errCache}, "users.get: bulkhead full; fallback: cache is empty"},
		{firebreak.Error{Command: "web.get[a]", Reason: firebreak.ErrFailed, Cause: errBoom, Fallback: firebreak.ErrFallbackRejected}, "web.get[a]: failed: boom; fallback: too many fallbacks"},
		{firebreak.Error{Command: "x", Reason: firebreak.ErrShutdown, RetryAt: time.Now()}, "x: registry shut down"},
	} {
		require.EqualError(t, &row.err, row.want)
	}
}

func TestErrorUnwraps(t *testing.T) {
	require.Empty(t, (&firebreak.Error{}).Unwrap())
	require.Equal(t, []error{firebreak.ErrOpen}, (&firebreak.Error{Reason: firebreak.ErrOpen}).Unwrap())
	e := &firebreak.Error{Reason: firebreak.ErrFailed, Cause: errBoom, Fallback: errCache}
	require.Equal(t, []error{firebreak.ErrFailed, errBoom, errCache}, e.Unwrap())
	wrapped := fmt.Errorf("loading: %w", e)
	for _, is := range e.Unwrap() {
		require.ErrorIs(t, wrapped, is)
	}
	require.NotErrorIs(t, wrapped, firebreak.ErrOpen)
}

func TestErrTimeoutMatchesDeadlineExceeded(t *testing.T) {
	require.ErrorIs(t, firebreak.ErrTimeout, context.DeadlineExceeded)
	require.NotErrorIs(t, firebreak.ErrTimeout, context.Canceled)
	require.NotErrorIs(t, context.DeadlineExceeded, firebreak.ErrTimeout)
	require.EqualError(t, firebreak.ErrTimeout, "timed out")
	for _, reason := range []error{firebreak.ErrOpen, firebreak.ErrRejected, firebreak.ErrShutdown, firebreak.ErrFailed, firebreak.ErrFallbackRejected} {
		require.NotErrorIs(t, reason, context.DeadlineExceeded)
		require.NotErrorIs(t, reason, firebreak.ErrTimeout)
	}
}

// S15: which reason stands for what is checked for every outcome in outcome_test.go.
func TestS15_ATurnThatCameTooLateMatchesDeadlineExceeded(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		c := roomToWait(in)
		c.Timeout = time.Second
		p := newPlace(t, in, c)
		p.occupy(time.Hour)
		_, late := firebreak.Do(t.Context(), p.cmd, succeed)
		ours(firebreak.ErrRejected, context.DeadlineExceeded)(t, late)
		require.ErrorIs(t, late, context.DeadlineExceeded)
		require.NotErrorIs(t, late, firebreak.ErrTimeout)

		full := later(func() (int, error) { return firebreak.Do(t.Context(), p.cmd, succeed) })
		later(func() (int, error) { return firebreak.Do(t.Context(), p.cmd, succeed) })
		_, third := firebreak.Do(t.Context(), p.cmd, succeed)
		ours(firebreak.ErrRejected, nil)(t, third)
		require.NotErrorIs(t, third, context.DeadlineExceeded)
		full()
		time.Sleep(time.Hour)
	})
}

// S15: run's failure is wrapped only because fallbacks failed too.
func TestS15_ErrFailedWrapsRunsErrorOnlyBesideAFallbacks(t *testing.T) {
	p := newPlace(t, semaphores, firebreak.Config{})
	_, err := firebreak.Do(t.Context(), p.cmd, fail)
	require.True(t, err == errBoom)
	_, err = firebreak.Do(t.Context(), p.cmd, fail, nil)
	require.True(t, err == errBoom)
	_, err = firebreak.Do(t.Context(), p.cmd, fail, func(_ context.Context, cause error) (int, error) { return 0, cause })
	require.Equal(t, &firebreak.Error{Command: "cmd", Reason: firebreak.ErrFailed, Cause: errBoom, Fallback: errBoom}, err)
}

func TestS16_RetryAfterIsTheTimeLeftAndNeverNegative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.Zero(t, (&firebreak.Error{}).RetryAfter())
		e := &firebreak.Error{RetryAt: time.Now().Add(2)}
		for _, want := range []time.Duration{2, 1, 0, 0, 0} {
			require.Equal(t, want, e.RetryAfter())
			time.Sleep(time.Nanosecond)
		}
		require.Zero(t, (&firebreak.Error{RetryAt: time.Now().Add(-time.Hour)}).RetryAfter())
	})
}

// RetryAt through the life of a circuit, and of what is none of its business.
func TestS16_RetryAt(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{Probes: 2, Timeout: 7 * time.Second})
		ctx := t.Context()
		retryAfter := func(reason error) time.Duration {
			_, err := firebreak.Do(ctx, p.cmd, succeed)
			e, ok := err.(*firebreak.Error)
			require.True(t, ok, "%v", err)
			require.True(t, e.Reason == reason)
			if e.RetryAt.IsZero() {
				require.Zero(t, e.RetryAfter())
				return -1
			}
			require.Equal(t, time.Until(e.RetryAt), e.RetryAfter())
			return e.RetryAfter()
		}
		failUntilItOpens(t, p.cmd)
		require.Equal(t, 5*time.Second, retryAfter(firebreak.ErrOpen)) // the sleep window
		time.Sleep(2 * time.Second)
		require.Equal(t, 3*time.Second, retryAfter(firebreak.ErrOpen))
		time.Sleep(3 * time.Second)

		first, err := p.cmd.Begin(ctx)
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		second, err := p.cmd.Begin(ctx)
		require.NoError(t, err)
		require.Equal(t, 5*time.Second, retryAfter(firebreak.ErrOpen)) // the first lease of 7s
		time.Sleep(time.Second)
		require.Equal(t, 4*time.Second, retryAfter(firebreak.ErrOpen))
		require.NoError(t, first.Settle(nil))
		first.End()
		require.Equal(t, 6*time.Second, retryAfter(firebreak.ErrOpen)) // the second
		require.NoError(t, second.Settle(nil))
		second.End()

		p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen, Until: time.Now().Add(time.Hour)})
		require.Equal(t, time.Hour, retryAfter(firebreak.ErrOpen)) // its Until
		p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		require.Equal(t, time.Duration(-1), retryAfter(firebreak.ErrOpen)) // nobody knows
		p.cmd.Override(firebreak.Override{})
		shutDown(t, p)
		require.Equal(t, time.Duration(-1), retryAfter(firebreak.ErrShutdown))
	})
}

// Outside bubbles moments have a monotonic reading, so that a wall clock that is set
// does not move them.
func TestS16_RetryAtHasAMonotonicReading(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{})
	hasReading := func() bool {
		_, err := firebreak.Do(t.Context(), cmd, succeed)
		at := err.(*firebreak.Error).RetryAt
		require.False(t, at.IsZero())
		return at != at.Round(0)
	}
	trip(t, cmd)
	require.True(t, hasReading())
	cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen, Until: time.Now().Add(time.Hour).Round(0)})
	require.True(t, hasReading())
}

// S17: one error for all the calls it tells the same, until there is news.
func TestS17_RefusalsShareTheirError(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		c := roomToWait(in)
		c.Timeout = time.Second
		c.QueueSize = 1
		p := newPlace(t, in, c)
		refused := func() *firebreak.Error {
			_, err := firebreak.Do(t.Context(), p.cmd, succeed)
			e, ok := err.(*firebreak.Error)
			require.True(t, ok, "%v", err)
			return e
		}
		p.occupy(time.Minute)
		late := refused()
		require.Same(t, late, refused())
		waiting := later(func() (int, error) { return 0, refused() })
		full := refused()
		require.Same(t, full, refused())
		require.NotSame(t, full, late)
		waiting()
		time.Sleep(time.Minute)

		failUntilItOpens(t, p.cmd)
		open := refused()
		require.Same(t, open, refused())
		time.Sleep(5 * time.Second)
		probe, err := p.cmd.Begin(t.Context())
		require.NoError(t, err)
		lease := refused()
		require.Same(t, lease, refused())
		require.NotSame(t, open, lease)
		time.Sleep(5 * time.Second) // the lease is over: another probe, another lease
		second, err := p.cmd.Begin(t.Context())
		require.ErrorIs(t, err, firebreak.ErrRejected) // its permit is still out
		require.Nil(t, second)
		probe.End()
		failUntilItOpens(t, p.cmd)
		require.NotSame(t, open, refused())
		shutDown(t, p)
		first := refused()
		require.Same(t, first, refused())
	})
}

// Nobody changes a shared error: what fallbacks add is in a new one.
func TestS17_FallbacksChangeNoSharedError(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 1})
		refuse := map[error]func(){
			firebreak.ErrRejected: func() { p.occupy(time.Second) },
			firebreak.ErrOpen:     func() { p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen}) },
			firebreak.ErrShutdown: func() { shutDown(t, p) },
		}
		for _, reason := range []error{firebreak.ErrRejected, firebreak.ErrOpen, firebreak.ErrShutdown} {
			refuse[reason]()
			_, plain := firebreak.Do(t.Context(), p.cmd, succeed)
			copied := *plain.(*firebreak.Error)
			var cause error
			_, err := firebreak.Do(t.Context(), p.cmd, succeed, func(_ context.Context, c error) (int, error) { cause = c; return 0, errCache })
			require.Same(t, plain, cause)
			require.NotSame(t, plain, err)
			require.ErrorIs(t, err, errCache)
			require.Equal(t, copied, *plain.(*firebreak.Error))
			require.ErrorIs(t, err, reason)
		}
	})
}

// A list of errors that knows errors.As, but shows nothing to Unwrap.
type errorList []error

func (l errorList) Error() string { return errors.Join(l...).Error() }

func (l errorList) Is(target error) bool { return errors.Is(errors.Join(l...), target) }
func (l errorList) As(target any) bool   { return errors.As(errors.Join(l...), target) }

// The outermost mark decides, wherever in the chain; Do returns err itself, or the
// very wrapping that run returned.
func TestMarksNest(t *testing.T) {
	twice := firebreak.Mark(firebreak.Mark(errNotFound, firebreak.Ignored), firebreak.Expected)
	wrapped := fmt.Errorf("reading: %w", firebreak.Mark(errNotFound, firebreak.Expected))
	joined := errors.Join(errBoom, firebreak.Mark(errNotFound, firebreak.Ignored), firebreak.Mark(errNotFound, firebreak.Expected))
	over := firebreak.Mark(wrapped, firebreak.Ignored)
	list := &errorList{errBoom, firebreak.Mark(errNotFound, firebreak.Expected)}
	for _, row := range []struct {
		name      string
		err, seen error
		want      string
	}{
		{"a mark", firebreak.Mark(errNotFound, firebreak.Expected), errNotFound, "Expected"},
		{"a mark on a mark", twice, errNotFound, "Expected"},
		{"a mark below a wrapping", wrapped, wrapped, "Expected"},
		{"a mark above one below", over, wrapped, "Ignored"},
		{"the first of several", joined, joined, "Ignored"},
		{"one that errors.As finds", list, list, "Expected"},
		{"a hint above a mark", firebreak.RetryAfter(firebreak.Mark(errNotFound, firebreak.Expected), time.Second), errNotFound, "Failure"},
		{"a mark above a hint", firebreak.Mark(firebreak.RetryAfter(errNotFound, time.Second), firebreak.Expected), errNotFound, "Expected"},
		{"no hint", firebreak.RetryAfter(errNotFound, -time.Second), errNotFound, "Failure"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newPlace(t, semaphores, firebreak.Config{Classify: func(error) firebreak.Verdict {
				t.Error("Classify was asked")
				return firebreak.Failure
			}})
			_, err := firebreak.Do(t.Context(), p.cmd, returns(0, row.err))
			require.True(t, err == row.seen, "%#v", err)
			require.Equal(t, uint64(1), counted(firebreak.Counts{}, total(p.cmd))[row.want])
			require.ErrorIs(t, row.err, errNotFound)
			require.Equal(t, row.seen.Error(), row.err.Error())
		})
	}
}

func TestMarksOfNilAreNil(t *testing.T) {
	require.NoError(t, firebreak.Mark(nil, firebreak.Ignored))
	require.NoError(t, firebreak.RetryAfter(nil, time.Second))
}

// A mark is nobody's business but ours: errors.Is and errors.As look through it.
func TestMarkedErrorsAreStillThemselves(t *testing.T) {
	err := firebreak.Mark(&firebreak.PanicError{Value: 7}, firebreak.Expected)
	var panicked *firebreak.PanicError
	require.ErrorAs(t, err, &panicked)
	require.Equal(t, 7, panicked.Value)
	require.ErrorIs(t, firebreak.RetryAfter(errReading, time.Second), context.Canceled)
}

// The outermost hint that is one, unless a mark above it says otherwise.
func TestRetryAfterHints(t *testing.T) {
	for _, row := range []struct {
		name string
		err  error
		want time.Duration // to the first probe
	}{
		{"a hint", firebreak.RetryAfter(errBoom, 20*time.Second), 20 * time.Second},
		{"below a wrapping", fmt.Errorf("reading: %w", firebreak.RetryAfter(errBoom, 20*time.Second)), 20 * time.Second},
		{"the outer one", firebreak.RetryAfter(firebreak.RetryAfter(errBoom, 40*time.Second), 20*time.Second), 20 * time.Second},
		{"no hint above one", firebreak.RetryAfter(firebreak.RetryAfter(errBoom, 20*time.Second), 0), 20 * time.Second},
		{"a mark above one", firebreak.Mark(firebreak.RetryAfter(errBoom, 20*time.Second), firebreak.Failure), 20 * time.Second},
		{"a mark between", firebreak.Mark(firebreak.Mark(firebreak.RetryAfter(errBoom, 20*time.Second), firebreak.Ignored), firebreak.Failure), 5 * time.Second},
		{"shorter than the sleep", firebreak.RetryAfter(errBoom, time.Second), 5 * time.Second},
		{"none", firebreak.RetryAfter(errBoom, 0), 5 * time.Second},
		{"another command's", &firebreak.Error{Command: "inner", Reason: firebreak.ErrFailed, Cause: firebreak.RetryAfter(errBoom, 20*time.Second)}, 5 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{ConsecutiveFailures: 1})
				_, _ = firebreak.Do(t.Context(), p.cmd, returns(0, row.err))
				require.Equal(t, row.want, time.Until(p.cmd.Snapshot().Evidence.NextProbe))
			})
		})
	}
}

func TestExpectErrors(t *testing.T) {
	errs := []error{errNotFound, context.Canceled}
	classify := firebreak.ExpectErrors(errs...)
	errs[0] = errBoom // it has its own
	for err, want := range map[error]firebreak.Verdict{
		errNotFound: firebreak.Expected,
		errReading:  firebreak.Expected, // wraps Canceled
		errBoom:     firebreak.Failure,
		errors.Join(errBoom, fmt.Errorf("x: %w", errNotFound)): firebreak.Expected,
		errors.New("not found"):                                firebreak.Failure,
	} {
		require.Equal(t, want, classify(err), "%v", err)
	}
	require.Equal(t, firebreak.Failure, firebreak.ExpectErrors()(errBoom))
}

// What net.Error asks, and with it url.Error.
func TestS18_ATimeoutSaysThatItIsOne(t *testing.T) {
	for reason, want := range map[error]bool{
		firebreak.ErrTimeout: true, firebreak.ErrOpen: false, firebreak.ErrRejected: false,
		firebreak.ErrShutdown: false, firebreak.ErrFailed: false,
	} {
		err := &url.Error{Op: "Get", Err: &firebreak.Error{Reason: reason, Cause: firebreak.ErrTimeout}}
		require.Equal(t, want, err.Timeout(), reason)
	}
}
