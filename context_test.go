package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// A homemadeContext is a caller's context of no package's make: it ends when and as
// it likes, whatever deadline it reports.
type homemadeContext struct {
	context.Context
	deadline time.Time // zero: none
	done     chan struct{}

	mu  sync.Mutex
	err error
}

func newHomemadeContext(t *testing.T, deadline time.Duration) *homemadeContext {
	t.Helper()
	c := &homemadeContext{Context: t.Context(), done: make(chan struct{})}
	if deadline > 0 {
		c.deadline = time.Now().Add(deadline)
	}
	return c
}

func (c *homemadeContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }
func (c *homemadeContext) Done() <-chan struct{}       { return c.done }

func (c *homemadeContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *homemadeContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	close(c.done)
}

// The caller's context ends before D, after half a second: that is the caller's end,
// whatever it says and whatever deadline it had reported.
func TestHomemadeContextsEndCalls(t *testing.T) {
	errHungUp := errors.New("the client hung up")
	for _, row := range []struct {
		name     string
		deadline time.Duration // that it reports
		err      error
		want     string
	}{
		{"canceled", 0, context.Canceled, "Canceled"},
		{"canceled before its deadline", 10 * time.Second, context.Canceled, "Canceled"},
		{"an error of its own", 0, errHungUp, "Canceled"},
		{"an error that wraps Canceled", 0, errReading, "Canceled"},
		{"a deadline that it does not report", 0, context.DeadlineExceeded, "CallerDeadline"},
		{"a wrapped one", 0, errTooSlow, "CallerDeadline"},
		// As Call.Context ends, which does not report its command's deadline.
		{"a deadline sooner than the one it reports", 10 * time.Second, context.DeadlineExceeded, "CallerDeadline"},
		{"sooner than the command's, which is sooner than the one it reports", time.Second + 1, context.DeadlineExceeded, "CallerDeadline"},
	} {
		for name, run := range map[string]func(context.Context) (int, error){
			"run tells":           heeds(0, nil),
			"run says other":      heeds(0, errBoom),
			"run does not listen": deaf(time.Second-1, 0, errBoom),
		} {
			t.Run(row.name+"/"+name, func(t *testing.T) {
				inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
					p := newPlace(t, in, firebreak.Config{})
					ctx := newHomemadeContext(t, row.deadline)
					time.AfterFunc(time.Second/2, func() { ctx.end(row.err) })
					began := time.Now()
					_, err := firebreak.Do(ctx, p.cmd, run, firebreak.Static(9))
					require.True(t, err == row.err, "%v", err)
					require.Equal(t, map[string]uint64{row.want: 1}, counted(firebreak.Counts{}, total(p.cmd)))
					require.Zero(t, p.cmd.Snapshot().ErrorPercentage)
					if in == pools {
						require.Equal(t, time.Second/2, time.Since(began))
					}
					time.Sleep(time.Second)

					before := total(p.cmd)
					_, err = firebreak.Do(ctx, p.cmd, succeed)
					require.True(t, err == row.err)
					require.Equal(t, map[string]uint64{"GaveUp": 1}, counted(before, total(p.cmd)))
				})
			})
		}
	}
}

// Where such a context ends after D too, the clock says that D was first: nobody knows
// when the other was.
func TestHomemadeContextsThatEndTooLate(t *testing.T) {
	for _, err := range []error{context.Canceled, context.DeadlineExceeded} {
		inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
			p := newPlace(t, in, firebreak.Config{})
			ctx := newHomemadeContext(t, 0)
			time.AfterFunc(time.Second+1, func() { ctx.end(err) })
			_, got := firebreak.Do(ctx, p.cmd, deaf(time.Second+2, 0, errBoom))
			require.ErrorIs(t, got, firebreak.ErrTimeout)
			require.Equal(t, uint64(1), total(p.cmd).Timeout)
			time.Sleep(time.Second)
		})
	}
}

// The deadline that a context reports counts, though nothing ended it.
func TestHomemadeDeadlineThatNobodyKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, semaphores, firebreak.Config{})
		ctx := newHomemadeContext(t, time.Second/2)
		_, err := firebreak.Do(ctx, p.cmd, deaf(time.Second/2, 0, errBoom))
		require.True(t, err == context.DeadlineExceeded)
		ctx = newHomemadeContext(t, time.Second/2+1)
		_, err = firebreak.Do(ctx, p.cmd, deaf(time.Second/2, 0, errBoom))
		require.True(t, err == errBoom)
		require.Equal(t, map[string]uint64{"CallerDeadline": 1, "Failure": 1, "FallbackMissing": 1}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// The turn of a call comes when its context says that it is over, though its Done has
// not been heard yet: it does not run, and the permit goes on to the next.
func TestATurnThatComesToADeadCallerGoesOn(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, roomToWait(in))
		p.occupy(time.Second)
		ctx := newHomemadeContext(t, 0)
		gone := later(func() (int, error) { return firebreak.Do(ctx, p.cmd, succeed, firebreak.Static(9)) })
		next := later(func() (int, error) { return firebreak.Do(t.Context(), p.neighbour, succeed) })
		ctx.mu.Lock()
		ctx.err = context.Canceled
		ctx.mu.Unlock()
		require.Equal(t, answer{err: context.Canceled}, gone())
		require.Equal(t, answer{value: 1}, next())
		require.Equal(t, map[string]uint64{"GaveUp": 1}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}

// The same where its time is over, while its caller is busy: with a context that is
// slow to hand out its Done.
func TestATurnThatComesAfterTheDeadlineGoesOn(t *testing.T) {
	for free, want := range map[time.Duration]string{time.Second - 1: "Success", time.Second: "Rejected", time.Second + 1: "Rejected"} {
		t.Run(fmt.Sprint(free), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlace(t, pools, firebreak.Config{MaxConcurrent: 1, QueueSize: 1})
				p.occupy(free)
				slow := spiedContext{t.Context(), func(method string) {
					if method == "Done" {
						time.Sleep(3 * time.Second)
					}
				}}
				_, err := firebreak.Do(slow, p.cmd, succeed)
				if want == "Rejected" {
					ours(firebreak.ErrRejected, context.DeadlineExceeded)(t, err)
				} else {
					require.NoError(t, err)
				}
				require.Equal(t, uint64(1), counted(firebreak.Counts{}, total(p.cmd))[want])
			})
		})
	}
}

// A caller leaves while its worker is about to begin: the worker looks again, and
// finds that there is nobody to run for. Its place as a probe is the next call's.
func TestACallerThatLeavesAsItsTurnComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, pools, firebreak.Config{MaxConcurrent: 2, QueueSize: 2, ConsecutiveFailures: 1, SleepWindow: time.Second / 4})
		p.occupy(time.Second / 2)
		ctx := t.Context()
		tripping := later(func() (int, error) { return firebreak.Do(ctx, p.cmd, deaf(time.Second/8, 0, errBoom)) })
		holding := later(func() (int, error) { return firebreak.Do(ctx, p.neighbour, deaf(time.Minute, 0, nil)) })
		var asked atomic.Int32
		slow := spiedContext{ctx, func(method string) {
			if method != "Err" {
				return
			}
			if asked.Add(1) == 2 { // by the worker, half a second later
				time.Sleep(time.Second)
			}
		}}
		leaving := later(func() (int, error) { return firebreak.Do(slow, p.cmd, succeed) })
		tripping()
		ours(firebreak.ErrRejected, context.DeadlineExceeded)(t, leaving().err)
		time.Sleep(time.Second / 2)
		synctest.Wait()
		s := p.cmd.Snapshot()
		require.Zero(t, s.InFlight)
		require.Equal(t, firebreak.StateHalfOpen, s.State)
		_, err := firebreak.Do(ctx, p.cmd, succeed)
		require.NoError(t, err)
		require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
		require.Equal(t, map[string]uint64{"Failure": 1, "Rejected": 1, "Success": 1, "FallbackMissing": 2}, counted(firebreak.Counts{}, total(p.cmd)))
		holding()
	})
}

// A context from Begin is a caller's like any other: when its command's time is up,
// the calls made under it end by their caller's deadline. That used to count as
// their dependency's failure if the first caller had a deadline too, and a pool's
// caller stayed to the end of its own time.
func TestCallsUnderACallsContext(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		for _, firstDeadline := range []time.Duration{time.Hour, 10 * time.Second, 5 * time.Second} {
			p := newPlace(t, in, firebreak.Config{})
			inner := p.dep.Command("inner", firebreak.Config{Timeout: 5 * time.Second})
			ctx, cancel := context.WithTimeout(t.Context(), firstDeadline)
			call, err := p.cmd.Begin(ctx)
			require.NoError(t, err)
			began := time.Now()
			_, err = firebreak.Do(call.Context(), inner, heeds(0, nil))
			require.True(t, err == context.DeadlineExceeded)
			require.Equal(t, time.Second, time.Since(began))
			require.Equal(t, map[string]uint64{"CallerDeadline": 1}, counted(firebreak.Counts{}, total(inner)))
			ours(firebreak.ErrTimeout, context.DeadlineExceeded)(t, call.Settle(err))
			call.End()
			cancel()
		}
	})
}

// Outside bubbles moments have a monotonic reading, unless somebody took it off. The
// sooner deadline is a moment away, the later one an hour, so nothing depends on how
// fast this runs.
func TestDeadlinesWithAndWithoutAMonotonicReading(t *testing.T) {
	for name, reading := range map[string]func(time.Time) time.Time{
		"monotonic": func(at time.Time) time.Time { return at },
		"wall":      func(at time.Time) time.Time { return at.Round(0) },
	} {
		for _, in := range []firebreak.Isolation{semaphores, pools} {
			t.Run(name+"/"+in.String(), func(t *testing.T) {
				under := func(cmd *firebreak.Command, deadline time.Duration) error {
					ctx, cancel := context.WithDeadline(t.Context(), reading(time.Now().Add(deadline)))
					defer cancel()
					_, err := firebreak.Do(ctx, cmd, func(ctx context.Context) (int, error) {
						<-ctx.Done()
						return 0, errBoom
					})
					return err
				}
				p := newPlace(t, in, firebreak.Config{Timeout: time.Hour})
				require.True(t, under(p.cmd, 10*time.Millisecond) == context.DeadlineExceeded)
				require.Equal(t, map[string]uint64{"CallerDeadline": 1}, counted(firebreak.Counts{}, total(p.cmd)))

				p = newPlace(t, in, firebreak.Config{Timeout: 10 * time.Millisecond})
				require.ErrorIs(t, under(p.cmd, time.Hour), firebreak.ErrTimeout)
				require.Equal(t, uint64(1), total(p.cmd).Timeout)
			})
		}
	}
}

// A latecomer is a caller's context whose deadline comes just after run's end, while
// the verdict is being found.
type latecomer struct {
	context.Context
	returned bool
	deadline time.Time
}

func (l *latecomer) Deadline() (time.Time, bool) { return l.deadline, l.returned }

func (l *latecomer) Err() error {
	if !l.returned {
		return nil
	}
	if l.deadline.IsZero() {
		l.deadline = time.Now().Add(time.Microsecond)
	}
	for !time.Now().After(l.deadline) { // a microsecond, not to be slept
	}
	return context.DeadlineExceeded
}

// C after run's end is none of this call's business: run failed while its caller waited.
func TestADeadlineJustAfterRunsEnd(t *testing.T) {
	p := newPlace(t, semaphores, firebreak.Config{Timeout: time.Hour})
	ctx := &latecomer{Context: t.Context()}
	_, err := firebreak.Do(ctx, p.cmd, func(context.Context) (int, error) {
		ctx.returned = true
		return 0, errBoom
	})
	require.True(t, err == errBoom)
	require.Equal(t, uint64(1), total(p.cmd).Failure)
}

// In a bubble no moment has a monotonic reading, and the edge is exact.
func TestDeadlinesAtTheEdge(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		for _, row := range []struct {
			deadline time.Duration
			want     error
		}{
			{time.Second - 1, context.DeadlineExceeded}, {time.Second, firebreak.ErrTimeout}, {time.Second + 1, firebreak.ErrTimeout},
		} {
			ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(row.deadline).Round(0))
			_, err := firebreak.Do(ctx, p.cmd, heeds(0, errBoom))
			cancel()
			require.ErrorIs(t, err, row.want)
			require.Equal(t, row.want == firebreak.ErrTimeout, errors.Is(err, firebreak.ErrTimeout))
		}
	})
}

// The cause of a cancel reaches run; Do returns the context's error.
func TestACancelWithACause(t *testing.T) {
	errHungUp := errors.New("the client hung up")
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second/2, func() { cancel(errHungUp) })
		var seen error
		_, err := firebreak.Do(ctx, p.cmd, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			require.Equal(t, context.Canceled, ctx.Err())
			seen = context.Cause(ctx)
			return 0, seen
		})
		synctest.Wait()
		require.True(t, err == context.Canceled)
		require.True(t, seen == errHungUp)
		require.Equal(t, map[string]uint64{"Canceled": 1}, counted(firebreak.Counts{}, total(p.cmd)))

		_, err = firebreak.Do(ctx, p.cmd, succeed)
		require.True(t, err == context.Canceled)
	})
}

type contextKey string

// What run sees of its context: the caller's values, the sooner deadline, and an end
// when the call is over.
func TestRunsContext(t *testing.T) {
	for _, row := range []struct{ callers, want time.Duration }{
		{0, time.Second}, {time.Second / 2, time.Second / 2}, {2 * time.Second, time.Second},
	} {
		t.Run(fmt.Sprint(row.callers), func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, firebreak.Config{})
				ctx, cancel := context.WithCancel(context.WithValue(t.Context(), contextKey("user"), "ada"))
				if row.callers > 0 {
					ctx, cancel = context.WithTimeout(ctx, row.callers)
				}
				defer cancel()
				var kept context.Context
				_, err := firebreak.Do(ctx, p.cmd, func(within context.Context) (int, error) {
					kept = within
					require.Equal(t, "ada", within.Value(contextKey("user")))
					deadline, ok := within.Deadline()
					require.True(t, ok)
					require.Equal(t, row.want, time.Until(deadline))
					require.NoError(t, within.Err())
					return 0, nil
				})
				require.NoError(t, err)
				require.Equal(t, context.Canceled, kept.Err())
				require.NoError(t, ctx.Err())
			})
		})
	}
}

func TestWithoutATimeoutRunHasTheCallersContext(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{Timeout: firebreak.Off})
		ctx := t.Context()
		_, err := firebreak.Do(ctx, p.cmd, func(within context.Context) (int, error) {
			require.True(t, within == ctx)
			return 0, nil
		})
		require.NoError(t, err)
	})
}

// A caller whose context is slow to answer leaves late, and its run later still: one
// run has overrun, once. It used to be counted when the caller left, too.
func TestALateCallersRunHasOverrunOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, pools, firebreak.Config{})
		overran := 0
		p.reg.Observe(firebreak.Observer{Overrun: func(context.Context, firebreak.CallEvent) { overran++ }})
		slow := spiedContext{t.Context(), func(method string) {
			if method == "Done" {
				time.Sleep(3 * time.Second / 2)
			}
		}}
		_, err := firebreak.Do(slow, p.cmd, deaf(2*time.Second, 0, nil))
		require.ErrorIs(t, err, firebreak.ErrTimeout)
		require.Zero(t, total(p.cmd).Overran)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, map[string]uint64{"Timeout": 1, "Overran": 1, "FallbackMissing": 1}, counted(firebreak.Counts{}, total(p.cmd)))
		require.Equal(t, 1, overran)
	})
}
