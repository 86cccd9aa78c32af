package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// A verdictCase is one executed call: when its caller's context ends, when run does,
// and with what.
type verdictCase struct {
	left    time.Duration // of the caller's context; 0: never
	cancel  bool          // and not by a deadline
	watched bool          // run asks its context for Done
	end     time.Duration
	err     error
}

// Errors of run's, and what a caller is to see of each.
var verdictErrors = []struct{ returned, seen error }{
	{nil, nil},
	{errBoom, errBoom},
	{firebreak.Mark(errNotFound, firebreak.Expected), errNotFound},
	{errReading, errReading},
	{errTooSlow, errTooSlow},
}

func (c verdictCase) String() string {
	by := "deadline"
	if c.cancel {
		by = "cancel"
	}
	return fmt.Sprintf("%s at %v, watched=%t, run ends at %v with %v", by, c.left, c.watched, c.end, c.err)
}

// seen is run's error as its caller sees it.
func (c verdictCase) seen() error {
	for _, e := range verdictErrors {
		if e.returned == c.err {
			return e.seen
		}
	}
	return c.err
}

// deadlineOfCase is D; the edges of the cases are around it.
const deadlineOfCase = time.Second

// verdict is the table of section 2, written down a second time: what is counted,
// and the error.
func (c verdictCase) verdict() (string, error) {
	switch late := c.end >= deadlineOfCase; {
	case c.err == nil && c.end <= deadlineOfCase:
		return "Success", nil // row 2
	case c.err == nil:
		return "Timeout", nil // row 3
	case c.callerFirst():
		return c.callersEnd(c.seen()) // row 4
	case late:
		return "Timeout", &firebreak.Error{Command: "cmd", Reason: firebreak.ErrTimeout, Cause: c.seen()} // row 5
	case c.seen() == errNotFound:
		return "Expected", errNotFound // row 6
	}
	return "Failure", c.seen()
}

// callerFirst is rule S10.
func (c verdictCase) callerFirst() bool {
	switch {
	case c.left == 0 || c.left > c.end:
		return false
	case c.cancel && c.end < deadlineOfCase:
		return true
	case c.cancel:
		return c.watched && c.left < deadlineOfCase
	}
	return c.left < deadlineOfCase
}

func (c verdictCase) callersEnd(err error) (string, error) {
	outcome, own := "CallerDeadline", context.DeadlineExceeded
	if c.cancel {
		outcome, own = "Canceled", context.Canceled
	}
	if errors.Is(err, own) {
		return outcome, err
	}
	return outcome, own
}

// poolVerdict is the same where the caller does not wait for run.
func (c verdictCase) poolVerdict() (string, error) {
	switch leaves := c.left > 0 && c.left < deadlineOfCase; {
	case leaves && c.end > c.left:
		return c.callersEnd(nil)
	case c.end > deadlineOfCase:
		return "Timeout", &firebreak.Error{Command: "cmd", Reason: firebreak.ErrTimeout}
	}
	return c.verdict()
}

// aroundTheDeadline are moments before, at and after D, and far from it.
var aroundTheDeadline = []time.Duration{
	deadlineOfCase / 3, deadlineOfCase / 2, deadlineOfCase - 2, deadlineOfCase - 1, deadlineOfCase,
	deadlineOfCase + 1, deadlineOfCase + 2, deadlineOfCase * 3 / 2,
}

func verdictCases(yield func(verdictCase) bool) {
	for _, end := range aroundTheDeadline {
		for _, e := range verdictErrors {
			for _, left := range append([]time.Duration{0}, aroundTheDeadline...) {
				for _, cancel := range []bool{true, false} {
					for _, watched := range []bool{true, false} {
						if !yield(verdictCase{left, cancel, watched, end, e.returned}) {
							return
						}
					}
				}
			}
		}
	}
}

// context is the caller's. A cancel is for somebody else to call, at its time.
func (c verdictCase) context(parent context.Context) (context.Context, context.CancelFunc) {
	if c.left > 0 && !c.cancel {
		return context.WithTimeout(parent, c.left)
	}
	return context.WithCancel(parent)
}

// runUntilEnd takes the case's time. The caller's cancel comes from here, so that it
// comes just before run's end where both are at one moment.
func (c verdictCase) runUntilEnd(cancel context.CancelFunc) {
	if c.cancel && c.left > 0 && c.left <= c.end {
		time.Sleep(c.left)
		cancel()
		time.Sleep(c.end - c.left)
		return
	}
	time.Sleep(c.end)
}

func requireVerdict(t *testing.T, c verdictCase, want string, wantErr error, before, after firebreak.Counts, err error) {
	t.Helper()
	got := counted(before, after)
	delete(got, "Overran")
	delete(got, "FallbackMissing")
	require.Equal(t, map[string]uint64{want: 1}, got, c)
	if ours, ok := wantErr.(*firebreak.Error); ok {
		require.Equal(t, ours, err, c)
	} else {
		require.True(t, wantErr == err, "%v: %v is not %v", c, err, wantErr)
	}
}

// Section 2, rows 2 to 6, with every order of run's end, the caller's and the
// deadline that one goroutine can bring about.
func TestVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, semaphores, firebreak.Config{Mode: firebreak.ForceClosed})
		n := 0
		for c := range verdictCases {
			if c.cancel && c.watched && c.left == deadlineOfCase {
				continue // a tie of two timers
			}
			n++
			before := total(p.cmd)
			ctx, cancel := c.context(t.Context())
			v, err := firebreak.Do(ctx, p.cmd, func(ctx context.Context) (int, error) {
				if c.watched {
					_ = ctx.Done()
				}
				c.runUntilEnd(cancel)
				return 7, c.err
			})
			cancel()
			require.Equal(t, 7, v, c)
			want, wantErr := c.verdict()
			requireVerdict(t, c, want, wantErr, before, total(p.cmd), err)
		}
		require.Greater(t, n, 1000)
	})
}

// The same where the caller leaves: no two things at one moment, as either may be
// first, but for two deadlines.
func TestVerdictsInAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, pools, firebreak.Config{Mode: firebreak.ForceClosed})
		n := 0
		for c := range verdictCases {
			if c.end == deadlineOfCase || c.end == c.left || c.cancel && c.left == deadlineOfCase {
				continue
			}
			n++
			before := total(p.cmd)
			ctx, cancel := c.context(t.Context())
			if c.cancel && c.left > 0 {
				time.AfterFunc(c.left, cancel)
			}
			v, err := firebreak.Do(ctx, p.cmd, func(ctx context.Context) (int, error) {
				if c.watched {
					_ = ctx.Done()
				}
				time.Sleep(c.end)
				return 7, c.err
			})
			want, wantErr := c.poolVerdict()
			requireVerdict(t, c, want, wantErr, before, total(p.cmd), err)
			if want == "Success" || want == "Expected" || want == "Failure" {
				require.Equal(t, 7, v, c)
			} else {
				require.Zero(t, v, c)
			}
			time.Sleep(2 * deadlineOfCase) // the run that was left ends, and the cancel has come
			cancel()
		}
		require.Greater(t, n, 1000)
	})
}

// A spiedContext is a caller's context that tells who asks it.
type spiedContext struct {
	context.Context
	asked func(method string)
}

func (s spiedContext) Err() error {
	s.asked("Err")
	return s.Context.Err()
}

func (s spiedContext) Done() <-chan struct{} {
	s.asked("Done")
	return s.Context.Done()
}

func (s spiedContext) Deadline() (time.Time, bool) {
	s.asked("Deadline")
	return s.Context.Deadline()
}

func TestS9_ASuccessAsksNobodyAboutTheCaller(t *testing.T) {
	for _, row := range []struct {
		name string
		end  time.Duration
		want map[string]uint64
	}{
		{"in time", time.Second - 1, map[string]uint64{"Success": 1}},
		{"at the deadline", time.Second, map[string]uint64{"Success": 1}},
		{"late", time.Second + 1, map[string]uint64{"Timeout": 1, "Overran": 1}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlace(t, semaphores, firebreak.Config{})
				ctx, cancel := context.WithCancel(t.Context())
				returned := false
				spied := spiedContext{ctx, func(method string) { require.False(t, returned, method) }}
				v, err := firebreak.Do(spied, p.cmd, func(context.Context) (int, error) {
					cancel()
					time.Sleep(row.end)
					returned = true
					return 7, nil
				})
				require.NoError(t, err)
				require.Equal(t, 7, v)
				require.Equal(t, row.want, counted(firebreak.Counts{}, total(p.cmd)))
			})
		})
	}
}

// At a tie the dependency had all its time.
func TestS10_ATieIsTheDependencys(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		for sooner, want := range []string{"Timeout", "CallerDeadline"} {
			before := total(p.cmd)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second-time.Duration(sooner))
			_, err := firebreak.Do(ctx, p.cmd, heeds(0, nil))
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, want == "Timeout", errors.Is(err, firebreak.ErrTimeout))
			got := counted(before, total(p.cmd))
			delete(got, "FallbackMissing")
			require.Equal(t, map[string]uint64{want: 1}, got)
		}
	})
}

// A cancel that run saw come was first, however long run takes over it.
func TestS10_ACancelThatRunWatchedForWasFirst(t *testing.T) {
	for _, row := range []struct {
		name  string
		watch func(ctx context.Context)
		at    time.Duration
		want  string
	}{
		{"Done", func(ctx context.Context) { _ = ctx.Done() }, time.Second - 1, "Canceled"},
		{"a child", func(ctx context.Context) {
			ctx, cancel := context.WithCancel(ctx)
			context.AfterFunc(ctx, cancel)
		}, time.Second - 1, "Canceled"},
		{"Done, but the deadline was first", func(ctx context.Context) { _ = ctx.Done() }, time.Second + 1, "Timeout"},
		{"nobody", func(context.Context) {}, time.Second - 1, "Timeout"},
		{"nobody, and the deadline was first", func(context.Context) {}, time.Second + 1, "Timeout"},
		{"somebody who asks the caller's context", func(context.Context) {}, 0, "Timeout"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlace(t, semaphores, firebreak.Config{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				_, err := firebreak.Do(ctx, p.cmd, func(within context.Context) (int, error) {
					row.watch(within)
					time.Sleep(row.at)
					cancel()
					require.Equal(t, context.Canceled, ctx.Err())
					time.Sleep(2*time.Second - row.at)
					return 0, errBoom
				})
				if row.want == "Canceled" {
					require.True(t, err == context.Canceled)
				} else {
					ours(firebreak.ErrTimeout, errBoom)(t, err)
				}
				require.Equal(t, uint64(1), counted(firebreak.Counts{}, total(p.cmd))[row.want])
			})
		})
	}
}

// Errors that speak of deadlines are not late for that: another command's timeout,
// well within the outer one's time, is the outer one's failure.
func TestS11_LatenessIsJudgedByOurClock(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{Timeout: 10 * time.Second})
		inner := p.dep.Command("inner", firebreak.Config{})
		_, err := firebreak.Do(t.Context(), p.cmd, func(ctx context.Context) (int, error) {
			return firebreak.Do(ctx, inner, heeds(0, nil))
		})
		require.ErrorIs(t, err, firebreak.ErrTimeout)
		require.Equal(t, "inner", err.(*firebreak.Error).Command)
		require.Equal(t, map[string]uint64{"Timeout": 1, "FallbackMissing": 1}, counted(firebreak.Counts{}, total(inner)))
		require.Equal(t, map[string]uint64{"Failure": 1, "FallbackMissing": 1}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// The other way round, the outer command's deadline is the inner one's caller's.
func TestS11_AnOuterDeadlineIsTheInnerCallersOwn(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		inner := p.dep.Command("inner", firebreak.Config{Timeout: time.Second + 1})
		_, err := firebreak.Do(t.Context(), p.cmd, func(ctx context.Context) (int, error) {
			return firebreak.Do(ctx, inner, heeds(0, nil))
		})
		require.ErrorIs(t, err, firebreak.ErrTimeout)
		require.Equal(t, "cmd", err.(*firebreak.Error).Command)
		synctest.Wait()
		require.Equal(t, map[string]uint64{"CallerDeadline": 1}, counted(firebreak.Counts{}, total(inner)))
		require.Equal(t, map[string]uint64{"Timeout": 1, "FallbackMissing": 1}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// Classify sees the errors of row 6, and no others.
func TestS12_ClassifyIsAskedAboutErrorsInTimeOnly(t *testing.T) {
	inRowSix := map[string]bool{"Expected": true, "Ignored": true, "Failure": true}
	eachOutcome(t, func(t *testing.T, in firebreak.Isolation, row *outcomeRow) {
		c, asked := row.config, 0
		classify := c.Classify
		if classify == nil {
			classify = func(error) firebreak.Verdict { return firebreak.Failure }
		}
		counting := false
		c.Classify = func(err error) firebreak.Verdict {
			if counting {
				asked++
			}
			return classify(err)
		}
		p := newPlace(t, in, c)
		if row.before != nil {
			row.before(t, p)
		}
		counting = true
		var returned error
		changed := *row
		changed.run = func(ctx context.Context) (int, error) {
			v, err := row.run(ctx)
			returned = err
			return v, err
		}
		_, _ = changed.call(t, p, doing, nil)

		marked := returned != nil && fmt.Sprintf("%T", returned) == "*firebreak.marked"
		switch {
		case row.config.Classify != nil && row.counted == "Panic":
			require.Equal(t, 1, asked)
		case inRowSix[row.counted] && !marked:
			require.Equal(t, 1, asked)
		default:
			require.Zero(t, asked)
		}
	})
}

// A mark says nothing about an error that came too late: not to Classify either.
func TestS12_ALateErrorIsATimeoutWhateverItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, semaphores, firebreak.Config{Classify: firebreak.ExpectErrors(context.DeadlineExceeded)})
		for _, err := range []error{errTooSlow, firebreak.Mark(errTooSlow, firebreak.Ignored), firebreak.RetryAfter(errTooSlow, time.Minute)} {
			_, got := firebreak.Do(t.Context(), p.cmd, deaf(time.Second, 0, err))
			ours(firebreak.ErrTimeout, errTooSlow)(t, got)
		}
		_, err := firebreak.Do(t.Context(), p.cmd, deaf(time.Second-1, 0, errTooSlow))
		require.True(t, err == errTooSlow)
		require.Equal(t, map[string]uint64{"Timeout": 3, "Expected": 1, "FallbackMissing": 3}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// The verdict is the same for all: callers that lost patience open a circuit that
// counts them, and their probe opens it again.
func TestS13_CallerDeadlinesThatCountOpenACircuit(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{CountCallerDeadlines: firebreak.On})
		impatient := func() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := firebreak.Do(ctx, p.cmd, heeds(0, nil), firebreak.Static(1))
			require.True(t, err == context.DeadlineExceeded)
			synctest.Wait()
		}
		for range 20 {
			require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
			impatient()
		}
		s := p.cmd.Snapshot()
		require.Equal(t, firebreak.StateOpen, s.State)
		require.Equal(t, context.DeadlineExceeded.Error(), s.Evidence.LastError)
		require.Equal(t, map[string]uint64{"CallerDeadline": 20}, counted(firebreak.Counts{}, s.Total))

		time.Sleep(5 * time.Second)
		impatient()
		require.Equal(t, "probe", p.cmd.Snapshot().Evidence.Rule)
	})
}

// What the evidence says of calls that were late, whoever noticed.
func TestTimeoutsInTheEvidence(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{ConsecutiveFailures: 1})
		_, err := firebreak.Do(t.Context(), p.cmd, deaf(time.Second+1, 0, errBoom))
		require.ErrorIs(t, err, firebreak.ErrTimeout)
		e := p.cmd.Snapshot().Evidence
		require.Equal(t, "consecutive failures", e.Rule)
		if in == semaphores {
			require.Equal(t, "boom", e.LastError)
		} else {
			require.Equal(t, "timed out", e.LastError)
		}
	})
}

func TestS13_AProbesLateSuccessIsDeliveredAndOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, semaphores, firebreak.Config{})
		trip(t, p.cmd)
		time.Sleep(5 * time.Second)
		v, err := firebreak.Do(t.Context(), p.cmd, deaf(time.Second+1, 7, nil))
		require.NoError(t, err)
		require.Equal(t, 7, v)
		s := p.cmd.Snapshot()
		require.Equal(t, firebreak.StateOpen, s.State)
		require.Equal(t, "probe", s.Evidence.Rule)
		require.Equal(t, "timed out", s.Evidence.LastError)
	})
}

func TestS14_AnotherCommandsErrorIsAFailure(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		inner := p.reg.Command("inner", firebreak.Config{MaxConcurrent: 1})
		held, err := inner.Begin(t.Context())
		require.NoError(t, err)
		nested := func(ctx context.Context) (int, error) { return firebreak.Do(ctx, inner, succeed) }

		_, rejected := firebreak.Do(t.Context(), p.cmd, nested)
		require.True(t, rejected.(*firebreak.Error).Command == "inner")
		inner.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		_, short := firebreak.Do(t.Context(), p.cmd, nested)
		require.EqualError(t, short, "inner: circuit open: forced")
		require.ErrorIs(t, short, firebreak.ErrOpen)
		require.Equal(t, map[string]uint64{"Failure": 2, "FallbackMissing": 2}, counted(firebreak.Counts{}, total(p.cmd)))
		require.InDelta(t, 100, p.cmd.Snapshot().ErrorPercentage, 0)
		held.End()
	})
}

// What was said about an error inside another command was said about that one's
// dependency: its timeout is not expected because the error that came too late, or
// that of its fallback, would have been. That used to hide timeouts from the outer
// circuit, and kept its fallback from being asked.
func TestS14_AMarkInsideAnotherCommandsErrorIsThatCommands(t *testing.T) {
	wrapped := func(v firebreak.Verdict) error { return fmt.Errorf("reading: %w", firebreak.Mark(errNotFound, v)) }
	for _, row := range []struct {
		name string
		run  func(ctx context.Context, inner *firebreak.Command) (int, error)
	}{
		{"the cause of a timeout", func(ctx context.Context, inner *firebreak.Command) (int, error) {
			return firebreak.Do(ctx, inner, deaf(time.Second, 0, wrapped(firebreak.Expected)))
		}},
		{"the error of a fallback", func(ctx context.Context, inner *firebreak.Command) (int, error) {
			return firebreak.Do(ctx, inner, fail, func(context.Context, error) (int, error) { return 0, firebreak.Mark(errCache, firebreak.Ignored) })
		}},
		{"the value of a panic", func(ctx context.Context, inner *firebreak.Command) (int, error) {
			return firebreak.Do(ctx, inner, func(context.Context) (int, error) { panic(firebreak.Mark(errBoom, firebreak.Expected)) })
		}},
		{"wrapped once more, among others", func(ctx context.Context, inner *firebreak.Command) (int, error) {
			_, err := firebreak.Do(ctx, inner, deaf(time.Second, 0, wrapped(firebreak.Ignored)))
			return 0, fmt.Errorf("%w, %w", errBoom, err)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlace(t, semaphores, firebreak.Config{Timeout: time.Minute})
				inner := p.dep.Command("inner", firebreak.Config{RecoverPanics: firebreak.On})
				v, err := firebreak.Do(t.Context(), p.cmd, func(ctx context.Context) (int, error) { return row.run(ctx, inner) }, firebreak.Static(9))
				require.NoError(t, err)
				require.Equal(t, 9, v)
				require.Equal(t, map[string]uint64{"Failure": 1, "FallbackSuccess": 1}, counted(firebreak.Counts{}, total(p.cmd)))

				// A mark on the outside is the outer run's own.
				_, _ = firebreak.Do(t.Context(), p.cmd, func(ctx context.Context) (int, error) {
					v, err := row.run(ctx, inner)
					return v, firebreak.Mark(err, firebreak.Ignored)
				})
				require.Equal(t, uint64(1), total(p.cmd).Ignored)
			})
		})
	}
}
