package deadline

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak/internal/mono"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type key string

var errCause = errors.New("the caller's own reason")

// timeout is that of the calls in these tests. Parents end at half of it if they
// are sooner, at twice if later.
const timeout = 10 * time.Second

// in returns a context of a call that begins now and may take d.
func in(parent context.Context, d time.Duration) *Context {
	clock := mono.NewClock()
	return New(parent, clock, clock.Now().Add(d))
}

func isDone(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// requireNoMoreGoroutines allows for fewer: those of an earlier test may be ending.
func requireNoMoreGoroutines(t *testing.T, before int) {
	t.Helper()
	require.LessOrEqual(t, runtime.NumGoroutine(), before)
}

// custom is a parent that is not of package context, with a channel and an error of
// its own. It counts who is registered with it.
type custom struct {
	context.Context
	done       chan struct{}
	over       atomic.Bool
	registered atomic.Int32
}

var errCustom = errors.New("custom end")

func newCustom() *custom {
	return &custom{Context: context.Background(), done: make(chan struct{})}
}

func (c *custom) Done() <-chan struct{} { return c.done }

func (c *custom) Err() error {
	if c.over.Load() {
		return errCustom
	}
	return nil
}

func (c *custom) end() {
	if !c.over.Swap(true) {
		close(c.done)
	}
}

// registrar is a custom with the method that lets children do without a goroutine.
type registrar struct{ *custom }

func (r registrar) AfterFunc(f func()) func() bool {
	r.registered.Add(1)
	stop := context.AfterFunc(r.custom, f)
	return func() bool { r.registered.Add(-1); return stop() }
}

// A parent of a call. make returns it and what cleans up behind it.
type parentKind struct {
	name    string
	cancels bool // it ends by a cancel before the call's deadline
	make    func() (context.Context, func())
}

func parentKinds() []parentKind {
	background := context.Background()
	// after has end called half way through the call.
	after := func(ctx context.Context, end func()) (context.Context, func()) {
		timer := time.AfterFunc(timeout/2, end)
		return ctx, func() { timer.Stop(); end() }
	}
	within := func(d time.Duration) func() (context.Context, func()) {
		return func() (context.Context, func()) {
			ctx, cancel := context.WithTimeout(background, d)
			return ctx, cancel
		}
	}
	return []parentKind{
		{"background", false, func() (context.Context, func()) { return background, func() {} }},
		{"cancelled", true, func() (context.Context, func()) {
			ctx, cancel := context.WithCancel(background)
			cancel()
			return ctx, cancel
		}},
		{"cancelled with a cause", true, func() (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(background)
			cancel(errCause)
			return ctx, func() {}
		}},
		{"is cancelled", true, func() (context.Context, func()) {
			return after(context.WithCancel(background))
		}},
		{"is cancelled with a cause", true, func() (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(background)
			return after(ctx, func() { cancel(errCause) })
		}},
		{"sooner", false, within(timeout / 2)},
		{"a nanosecond sooner", false, within(timeout - 1)},
		{"equal", false, within(timeout)},
		{"a nanosecond later", false, within(timeout + 1)},
		{"later", false, within(timeout * 2)},
		{"sooner, by the wall clock", false, func() (context.Context, func()) {
			ctx, cancel := context.WithDeadline(background, time.Now().Add(timeout/2).Round(0))
			return ctx, cancel
		}},
		{"sooner with a cause", false, func() (context.Context, func()) {
			ctx, cancel := context.WithTimeoutCause(background, timeout/2, errCause)
			return ctx, cancel
		}},
		{"cancelled before its sooner deadline", false, func() (context.Context, func()) {
			ctx, cancel := context.WithTimeout(background, timeout-time.Second)
			return after(ctx, cancel)
		}},
		{"cancelled before its equal deadline", true, func() (context.Context, func()) {
			return after(context.WithTimeout(background, timeout))
		}},
		{"chain of values", true, func() (context.Context, func()) {
			ctx, cancel := context.WithCancel(context.WithValue(background, key("a"), "overlaid"))
			ctx = context.WithValue(context.WithValue(ctx, key("b"), 2), key("a"), 1)
			return after(ctx, cancel)
		}},
		{"without cancel", false, func() (context.Context, func()) {
			ctx, cancel := context.WithCancel(background)
			return after(context.WithoutCancel(ctx), cancel)
		}},
		{"custom", true, func() (context.Context, func()) {
			c := newCustom()
			return after(c, c.end)
		}},
		{"custom with AfterFunc", true, func() (context.Context, func()) {
			r := registrar{newCustom()}
			return after(r, r.end)
		}},
		{"another call, sooner", false, func() (context.Context, func()) {
			c := in(background, timeout/2)
			return c, c.Finish
		}},
		{"another call, later", false, func() (context.Context, func()) {
			c := in(background, timeout*2)
			return c, c.Finish
		}},
		{"another call, over", true, func() (context.Context, func()) {
			c := in(background, timeout*2)
			return after(c, c.Finish)
		}},
	}
}

// requireSame compares all that can be seen of two contexts but Done.
func requireSame(t *testing.T, want, got context.Context) {
	t.Helper()
	require.Equal(t, want.Err(), got.Err())
	require.Equal(t, context.Cause(want), context.Cause(got))
	wantAt, wantOK := want.Deadline()
	gotAt, gotOK := got.Deadline()
	require.Equal(t, wantOK, gotOK)
	require.True(t, wantAt.Equal(gotAt), "deadline %v, want %v", gotAt, wantAt)
	for _, k := range []key{"a", "b", "none"} {
		require.Equal(t, want.Value(k), got.Value(k))
	}
}

// moments are both sides of every edge there is.
var moments = []time.Duration{
	0, timeout/2 - 1, timeout / 2, timeout - 1, timeout, timeout + 1, timeout * 2,
}

// A trial is a standard context and one of ours that begin at the same moment, each
// below a parent of its own of the same kind.
type trial struct {
	*testing.T
	kind parentKind
	std  context.Context
	ours *Context
	end  func() // the call is over
}

// eachParent runs check in a bubble for each kind of parent.
func eachParent(t *testing.T, check func(trial)) {
	t.Helper()
	for _, kind := range parentKinds() {
		t.Run(kind.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stdParent, cleanStd := kind.make()
				defer cleanStd()
				ourParent, cleanOurs := kind.make()
				defer cleanOurs()
				std, cancel := context.WithTimeout(stdParent, timeout)
				ours := in(ourParent, timeout)
				end := func() { cancel(); ours.Finish() }
				defer end()
				check(trial{t, kind, std, ours, end})
			})
		})
	}
}

// sleepUntil sleeps until d after began, and lets all that happens then happen.
func sleepUntil(began time.Time, d time.Duration) {
	time.Sleep(time.Until(began.Add(d)))
	synctest.Wait()
}

// Whoever looks at all times sees what a standard context shows.
func TestWatchedIsLikeStandard(t *testing.T) {
	eachParent(t, func(t trial) {
		began := time.Now()
		for _, at := range moments {
			sleepUntil(began, at)
			requireSame(t.T, t.std, t.ours)
		}
		t.end()
		requireSame(t.T, t.std, t.ours)
		require.True(t, isDone(t.ours))
	})
}

func TestWaitedOnIsLikeStandard(t *testing.T) {
	eachParent(t, func(t trial) {
		began := time.Now()
		done := t.ours.Done()
		for _, at := range moments {
			sleepUntil(began, at)
			require.Equal(t, isDone(t.std), isDone(t.ours))
			requireSame(t.T, t.std, t.ours)
		}
		t.end()
		requireSame(t.T, t.std, t.ours)
		require.True(t, isDone(t.ours))
		require.Equal(t, done, t.ours.Done())
	})
}

// Whenever it is first looked at, it shows what a standard context does, but where
// nobody watched while the parent was cancelled and the deadline passed: there the
// deadline came first.
func TestFirstLook(t *testing.T) {
	looks := map[string]func(context.Context){
		"Err":   func(ctx context.Context) { _ = ctx.Err() },
		"Done":  func(ctx context.Context) { _ = ctx.Done() },
		"Cause": func(ctx context.Context) { _ = context.Cause(ctx) },
		"child": func(ctx context.Context) { _, cancel := context.WithCancel(ctx); cancel() },
	}
	for name, look := range looks {
		for _, first := range moments {
			t.Run(fmt.Sprint(name, " at ", first), func(t *testing.T) {
				eachParent(t, func(t trial) {
					began := time.Now()
					sleepUntil(began, first)
					look(t.ours)
					if t.kind.cancels && first >= timeout {
						require.Equal(t, context.DeadlineExceeded, t.ours.Err())
						require.Equal(t, context.DeadlineExceeded, context.Cause(t.ours))
						require.False(t, t.ours.ByParent())
						require.True(t, isDone(t.ours))
						require.Equal(t, t.std.Value(key("a")), t.ours.Value(key("a")))
						return
					}
					requireSame(t.T, t.std, t.ours)
					require.Equal(t, isDone(t.std), isDone(t.ours))
					sleepUntil(began, timeout*2)
					requireSame(t.T, t.std, t.ours)
					t.end()
					requireSame(t.T, t.std, t.ours)
				})
			})
		}
	}
}

// After the call it is cancelled for ever, whatever comes of its parent and of time.
func TestKeptAfterTheCall(t *testing.T) {
	for _, armed := range []bool{false, true} {
		t.Run(fmt.Sprint("armed ", armed), func(t *testing.T) {
			eachParent(t, func(t trial) {
				if t.std.Err() != nil {
					t.Skip("over before it began")
				}
				if armed {
					_ = t.ours.Done()
				}
				t.end()
				t.end()
				done := t.ours.Done()
				for _, at := range moments {
					time.Sleep(at)
					synctest.Wait()
					require.Equal(t, context.Canceled, t.ours.Err())
					requireSame(t.T, t.std, t.ours)
					require.Equal(t, done, t.ours.Done())
					require.True(t, isDone(t.ours))
				}
			})
		})
	}
}

func TestFinishLeavesAnEndThatWasSeen(t *testing.T) {
	for _, see := range []func(*Context){
		func(c *Context) { _ = c.Err() },
		func(c *Context) { _ = c.Done() },
	} {
		synctest.Test(t, func(t *testing.T) {
			c := in(t.Context(), timeout)
			time.Sleep(timeout)
			see(c)
			c.Finish()
			require.Equal(t, context.DeadlineExceeded, c.Err())
			require.Equal(t, context.DeadlineExceeded, context.Cause(c))
		})
	}
}

// The clock is not asked when the call is over.
func TestFinishForgetsAnEndThatNobodySaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := in(t.Context(), timeout)
		time.Sleep(timeout)
		c.Finish()
		require.Equal(t, context.Canceled, c.Err())
		require.Equal(t, context.Canceled, context.Cause(c))
	})
}

func TestByParent(t *testing.T) {
	cancelIt := func(cancel context.CancelFunc) { cancel() }
	wait := func(context.CancelFunc) { time.Sleep(timeout); synctest.Wait() }
	done := func(c *Context) { _ = c.Done() }
	look := func(c *Context) { _ = c.Err() }
	nothing := func(*Context) {}
	for _, row := range []struct {
		name          string
		before, after func(*Context)
		end           func(context.CancelFunc)
		want          bool
	}{
		{"cancelled, nobody saw", nothing, nothing, cancelIt, false},
		{"cancelled, waited on", done, nothing, cancelIt, true},
		{"cancelled, looked at before only", look, nothing, cancelIt, false},
		{"cancelled, looked at after", nothing, look, cancelIt, true},
		{"deadline, waited on", done, nothing, wait, false},
		{"deadline, looked at after", nothing, look, wait, false},
		{"live, waited on", done, nothing, func(context.CancelFunc) {}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				parent, cancel := context.WithCancel(t.Context())
				defer cancel()
				c := in(parent, timeout)
				defer c.Finish()
				row.before(c)
				row.end(cancel)
				row.after(c)
				require.Equal(t, row.want, c.ByParent())
			})
		})
	}
}

// A hung function that asks only when it comes back does not turn its timeout into
// the caller's cancel.
func TestByParentNotWhenItLooksTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithCancelCause(t.Context())
		c := in(parent, timeout)
		cancel(errCause)
		time.Sleep(timeout)
		require.Equal(t, context.DeadlineExceeded, c.Err())
		require.False(t, c.ByParent())
	})
}

// A parent whose timer is late, or lost, does not hold up the deadline.
func TestParentOutlivesItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := newCustom()
		var cancel context.CancelFunc
		late.Context, cancel = context.WithTimeout(t.Context(), timeout-1)
		defer cancel()
		c := in(late, timeout)
		time.Sleep(timeout - 1)
		require.NoError(t, c.Err())
		time.Sleep(time.Nanosecond)
		require.Equal(t, context.DeadlineExceeded, c.Err())
		require.True(t, isDone(c))
	})
}

// A parent's sooner deadline is the caller's limit of time, not a cancel.
func TestByParentNotByItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithTimeout(t.Context(), timeout-1)
		defer cancel()
		c := in(parent, timeout)
		defer c.Finish()
		_ = c.Done()
		sleepUntil(time.Now(), timeout-1)
		require.Equal(t, context.DeadlineExceeded, c.Err())
		require.False(t, c.ByParent())
	})
}

func TestChildren(t *testing.T) {
	for _, row := range []struct {
		name string
		end  func(c *Context, cancelParent context.CancelCauseFunc)
		err  error
		why  error
	}{
		{"deadline", func(*Context, context.CancelCauseFunc) { time.Sleep(timeout) }, context.DeadlineExceeded, context.DeadlineExceeded},
		{"parent", func(_ *Context, cancel context.CancelCauseFunc) { cancel(errCause) }, context.Canceled, errCause},
		{"finish", func(c *Context, _ context.CancelCauseFunc) { c.Finish() }, context.Canceled, context.Canceled},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				parent, cancelParent := context.WithCancelCause(context.WithValue(t.Context(), key("a"), 1))
				defer cancelParent(nil)
				c := in(parent, timeout)
				defer c.Finish()

				withValue := context.WithValue(c, key("b"), 2)
				withoutCancel := context.WithoutCancel(c)
				require.Nil(t, c.std.get(), "values and WithoutCancel need no standard context")

				before := runtime.NumGoroutine()
				withCancel, cancel := context.WithCancel(withValue)
				defer cancel()
				withTimeout, cancel := context.WithTimeout(c, timeout*2)
				defer cancel()
				ran := 0
				context.AfterFunc(c, func() { ran++ })
				stop := context.AfterFunc(c, func() { ran++ })
				require.True(t, stop())
				requireNoMoreGoroutines(t, before)
				children := []context.Context{withValue, withCancel, withTimeout}
				for _, child := range children {
					require.NoError(t, child.Err())
				}

				row.end(c, cancelParent)
				synctest.Wait()
				for _, child := range children {
					require.Equal(t, row.err, child.Err())
					require.Equal(t, row.why, context.Cause(child))
					require.True(t, isDone(child))
					require.Equal(t, 1, child.Value(key("a")))
				}
				require.Equal(t, 2, withCancel.Value(key("b")))
				require.Equal(t, 1, ran)
				require.NoError(t, withoutCancel.Err())
				require.NoError(t, context.Cause(withoutCancel))
				require.Equal(t, 1, withoutCancel.Value(key("a")))
			})
		})
	}
}

func TestChildrenMadeAfterTheCall(t *testing.T) {
	for _, armed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			parent, cancelParent := context.WithCancelCause(context.WithValue(t.Context(), key("a"), 1))
			c := in(parent, timeout)
			if armed {
				_ = c.Done()
			}
			c.Finish()
			cancelParent(errCause) // too late to be the cause
			before := runtime.NumGoroutine()
			withCancel, cancel := context.WithCancel(c)
			defer cancel()
			withTimeout, cancel := context.WithTimeout(c, time.Second)
			defer cancel()
			withValue := context.WithValue(c, key("b"), 2)
			requireNoMoreGoroutines(t, before)
			for _, child := range []context.Context{withCancel, withTimeout, withValue} {
				require.Equal(t, context.Canceled, child.Err())
				require.Equal(t, context.Canceled, context.Cause(child))
				require.Equal(t, 1, child.Value(key("a")))
			}
			require.NoError(t, context.WithoutCancel(c).Err())
			require.NoError(t, context.Cause(context.WithoutCancel(c)))
			ran := false
			stop := context.AfterFunc(c, func() { ran = true })
			synctest.Wait()
			require.True(t, ran)
			require.False(t, stop())
		})
	}
}

// A child that ends alone leaves the call as it was.
func TestChildEndsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := in(t.Context(), timeout)
		defer c.Finish()
		child, cancel := context.WithTimeout(c, timeout-1)
		defer cancel()
		sleepUntil(time.Now(), timeout-1)
		require.Equal(t, context.DeadlineExceeded, child.Err())
		require.NoError(t, c.Err())
		require.False(t, isDone(c))
	})
}

// Calls within calls attach to each other as children do.
func TestCallWithinACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer := in(t.Context(), timeout)
		inner := in(outer, 2*timeout)
		defer inner.Finish()
		before := runtime.NumGoroutine()
		_ = inner.Done()
		requireNoMoreGoroutines(t, before)
		outer.Finish()
		require.Equal(t, context.Canceled, inner.Err())
		require.True(t, isDone(inner))
		require.True(t, inner.ByParent())
	})
}

func TestFinishLeavesNothingWithTheParent(t *testing.T) {
	parent := registrar{newCustom()}
	c := in(parent, time.Hour)
	_ = c.Done()
	require.EqualValues(t, 1, parent.registered.Load())
	c.Finish()
	require.Zero(t, parent.registered.Load())

	c = in(parent, time.Hour)
	c.Finish()
	_ = c.Done()
	_, cancel := context.WithCancel(c)
	defer cancel()
	require.Zero(t, parent.registered.Load())
}

func TestNeverIsALongWayOff(t *testing.T) {
	c := New(t.Context(), mono.NewClock(), mono.Never)
	defer c.Finish()
	at, ok := c.Deadline()
	require.True(t, ok)
	require.Greater(t, time.Until(at), 200*365*24*time.Hour)
	require.False(t, isDone(c))
	require.NoError(t, c.Err())
}

// A context, or its clock alone, from before a bubble finds itself decades back.
func TestMadeOutsideABubble(t *testing.T) {
	clock := mono.NewClock()
	outside := New(context.Background(), clock, clock.Now().Add(timeout))
	synctest.Test(t, func(t *testing.T) {
		require.NoError(t, outside.Err())
		outside.Finish()
		require.Equal(t, context.Canceled, outside.Err())
		require.True(t, isDone(outside))

		for _, armed := range []bool{false, true} {
			c := New(t.Context(), clock, clock.Now().Add(timeout))
			if armed {
				_ = c.Done()
			}
			at, _ := c.Deadline()
			require.True(t, at.Equal(time.Now().Add(timeout)))
			time.Sleep(timeout - 1)
			require.NoError(t, c.Err())
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			require.Equal(t, context.DeadlineExceeded, c.Err())
			c.Finish()
		}
	})
}

// What one bubble left behind does no harm in the next, nor outside.
func TestKeptAfterItsBubble(t *testing.T) {
	var kept *Context
	synctest.Test(t, func(*testing.T) {
		kept = in(context.Background(), timeout)
		kept.Finish()
	})
	require.True(t, isDone(kept))
	synctest.Test(t, func(t *testing.T) {
		child, cancel := context.WithCancel(kept)
		defer cancel()
		require.Equal(t, context.Canceled, child.Err())
	})
}

func TestManyAskForDoneAtOnce(t *testing.T) {
	for range 200 {
		c := in(t.Context(), time.Hour)
		var all [8]<-chan struct{}
		var wg sync.WaitGroup
		for i := range all {
			wg.Go(func() { all[i] = c.Done() })
		}
		wg.Wait()
		for _, done := range all {
			require.Equal(t, c.Done(), done)
		}
		require.False(t, isDone(c))
		c.Finish()
		require.True(t, isDone(c))
	}
}

// Of two that make a standard context at once, the loser's is not left behind.
func TestLoserIsCancelled(t *testing.T) {
	newStandard := func() *standard {
		ctx, cancel := context.WithCancel(t.Context())
		return &standard{ctx, cancel}
	}
	var slot takeover
	first, second := newStandard(), newStandard()
	require.Same(t, first, slot.offer(first))
	require.Same(t, first, slot.offer(second))
	require.Same(t, first, slot.get())
	require.NoError(t, first.Err())
	require.Error(t, second.Err())
	first.cancel()
}

// Whatever meets whatever: Err turns once and stays, Done is one channel and closed
// in the end, every child is told, and the parent is let go.
func TestFinishMeetsDoneMeetsErr(t *testing.T) {
	for round := range 500 {
		custom := registrar{newCustom()}
		parent, cancelParent := context.WithCancelCause(custom)
		c := in(parent, time.Duration(round%20)*time.Microsecond)
		var wg sync.WaitGroup
		var dones [2]<-chan struct{}
		for i := range dones {
			wg.Go(func() {
				dones[i] = c.Done()
				<-dones[i]
				if c.Err() == nil || context.Cause(c) == nil {
					t.Error("done without an error")
				}
			})
			wg.Go(func() {
				child, cancel := context.WithCancel(c)
				defer cancel()
				<-child.Done()
				_ = c.String()
			})
			wg.Go(func() {
				first := c.Err()
				for range 20 {
					err := c.Err()
					if first != nil && err != first {
						t.Errorf("Err was %v, is %v", first, err)
					}
					first = err
					_ = c.Value(key("a"))
					_ = c.ByParent()
				}
			})
			wg.Go(c.Finish)
		}
		if round%2 == 0 {
			wg.Go(func() { cancelParent(errCause) })
		}
		wg.Wait()
		require.Error(t, c.Err())
		for _, done := range dones {
			require.Equal(t, c.Done(), done)
		}
		cancelParent(nil)
		require.Zero(t, custom.registered.Load())
	}
}

func TestStringIsForPeople(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := in(t.Context(), timeout)
		defer c.Finish()
		at, _ := c.Deadline()
		require.Equal(t, "deadline.Context("+at.String()+")", fmt.Sprint(c))
	})
}

func TestSize(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(Context{}), uintptr(48))
}

// sink keeps what is made from being proved local.
var sink context.Context

func TestAllocations(t *testing.T) {
	parent := context.WithValue(t.Context(), key("a"), 1)
	clock := mono.NewClock()
	require.Equal(t, 1, int(testing.AllocsPerRun(100, func() {
		c := New(parent, clock, mono.Time(time.Hour))
		sink = c
		_, _ = c.Deadline()
		_ = c.Value(key("a"))
		if c.Err() != nil {
			t.Fatal("ended")
		}
		c.Finish()
		<-c.Done()
	})))
	var part struct{ Context }
	require.Zero(t, testing.AllocsPerRun(100, func() {
		part.Init(parent, clock, mono.Time(time.Hour))
		_ = part.Err()
		part.Finish()
		part.std = takeover{}
	}))
}

// A standard context is the model, with the two things that one of ours does not
// know: what nobody watched before the deadline was the deadline's, and what nobody
// watched before the call was over did not happen.
func TestAgreesWithStandard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			ms := func(name string) time.Duration {
				return time.Duration(rapid.IntRange(-1, 6).Draw(t, name)) * time.Millisecond
			}
			parent, cancelParent := context.WithCancelCause(context.Background())
			defer cancelParent(nil)
			now := time.Now()
			at, parentAt := now.Add(ms("timeout")), now.Add(ms("parent's timeout"))
			sooner := false
			if rapid.Bool().Draw(t, "parent has a deadline") {
				var cancel context.CancelFunc
				parent, cancel = context.WithDeadline(parent, parentAt)
				defer cancel()
				sooner = parentAt.Before(at)
			}
			std, cancelStd := context.WithDeadline(parent, at)
			defer cancelStd()
			clock := mono.NewClock()
			ours := New(parent, clock, clock.Of(at))
			defer ours.Finish()
			synctest.Wait()

			armed := false
			var wantErr, wantCause error // once it has ended without having been armed
			look := func() {
				if wantErr == nil && !armed && std.Err() != nil {
					wantErr, wantCause = std.Err(), context.Cause(std)
					if !time.Now().Before(at) && !sooner {
						wantErr, wantCause = context.DeadlineExceeded, context.DeadlineExceeded
					}
				}
			}
			check := func() {
				err, cause := std.Err(), context.Cause(std)
				if wantErr != nil {
					err, cause = wantErr, wantCause
				}
				if got := ours.Err(); got != err {
					t.Fatalf("Err is %v, want %v", got, err)
				}
				if got := context.Cause(ours); got != cause {
					t.Fatalf("Cause is %v, want %v", got, cause)
				}
			}
			t.Repeat(map[string]func(*rapid.T){
				"advance": func(t *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(1, 3).Draw(t, "ms")) * time.Millisecond)
					synctest.Wait()
				},
				"cancel the parent": func(*rapid.T) { cancelParent(errCause) },
				"Done": func(t *rapid.T) {
					look()
					armed = armed || wantErr == nil
					if got, want := isDone(ours), wantErr != nil || std.Err() != nil; got != want {
						t.Fatalf("done is %v, want %v", got, want)
					}
				},
				"Err": func(*rapid.T) { look(); check() },
				"Finish": func(*rapid.T) {
					if wantErr == nil && !armed {
						wantErr, wantCause = context.Canceled, context.Canceled
					}
					cancelStd()
					ours.Finish()
					check()
				},
				"": func(t *rapid.T) {
					got, _ := ours.Deadline()
					if want, _ := std.Deadline(); !got.Equal(want) {
						t.Fatalf("deadline is %v, want %v", got, want)
					}
				},
			})
		})
	})
}

// What a call pays for its context: made, asked once, over.
func BenchmarkUntouched(b *testing.B) { benchmark(b, func(context.Context) {}) }

func BenchmarkWaitedOn(b *testing.B) { benchmark(b, func(ctx context.Context) { _ = ctx.Done() }) }

func benchmark(b *testing.B, use func(context.Context)) {
	b.Helper()
	parent := b.Context()
	b.Run("ctx=ours", func(b *testing.B) {
		b.ReportAllocs()
		clock := mono.NewClock()
		for b.Loop() {
			c := New(parent, clock, clock.Now().Add(time.Second))
			use(c)
			_ = c.Err()
			c.Finish()
		}
	})
	b.Run("ctx=standard", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c, cancel := context.WithTimeout(parent, time.Second)
			use(c)
			_ = c.Err()
			cancel()
		}
	})
}
