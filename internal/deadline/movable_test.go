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

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var errExpired = errors.New("the owner's timer fired")

// children of every kind of ctx, made without a goroutine.
func children(t *testing.T, ctx context.Context) []context.Context {
	t.Helper()
	before := runtime.NumGoroutine()
	withCancel, cancel := context.WithCancel(ctx)
	t.Cleanup(cancel)
	withTimeout, cancel := context.WithTimeout(ctx, time.Hour)
	t.Cleanup(cancel)
	withValue := context.WithValue(ctx, key("b"), 2)
	grandchild, cancel := context.WithCancel(withValue)
	t.Cleanup(cancel)
	requireNoMoreGoroutines(t, before)
	return []context.Context{ctx, withCancel, withTimeout, withValue, grandchild}
}

func requireEnded(t *testing.T, ctx context.Context, err, cause error) {
	t.Helper()
	require.Equal(t, err, ctx.Err())
	require.Equal(t, cause, context.Cause(ctx))
	require.True(t, isDone(ctx))
	require.Equal(t, 1, ctx.Value(key("a")))
}

func TestMovableEnds(t *testing.T) {
	for _, row := range []struct {
		name  string
		end   func(m *Movable, cancelParent context.CancelCauseFunc)
		err   error
		cause error
	}{
		{"expired", func(m *Movable, _ context.CancelCauseFunc) { m.Expire(errExpired) }, context.DeadlineExceeded, errExpired},
		{"expired without a cause", func(m *Movable, _ context.CancelCauseFunc) { m.Expire(nil) }, context.DeadlineExceeded, context.DeadlineExceeded},
		{"finished", func(m *Movable, _ context.CancelCauseFunc) { m.Finish() }, context.Canceled, context.Canceled},
		{"parent cancelled", func(_ *Movable, cancel context.CancelCauseFunc) { cancel(errCause); synctest.Wait() }, context.Canceled, errCause},
		{"parent's deadline", func(*Movable, context.CancelCauseFunc) { time.Sleep(timeout); synctest.Wait() }, context.DeadlineExceeded, context.DeadlineExceeded},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				parent, cancelParent := context.WithCancelCause(context.WithValue(t.Context(), key("a"), 1))
				defer cancelParent(nil)
				parent, cancel := context.WithTimeout(parent, timeout)
				defer cancel()
				m := NewMovable(parent)
				defer m.Finish()
				all := children(t, m.Context())
				var ran atomic.Bool
				context.AfterFunc(m.Context(), func() { ran.Store(true) })
				kept := context.WithoutCancel(m.Context())

				time.Sleep(timeout - 1)
				synctest.Wait()
				for _, ctx := range all {
					require.NoError(t, ctx.Err())
					require.NoError(t, context.Cause(ctx))
					require.False(t, isDone(ctx))
					require.Equal(t, 1, ctx.Value(key("a")))
				}
				require.False(t, ran.Load())
				require.NoError(t, m.source.Err())

				row.end(m, cancelParent)
				for range 2 { // and stays so, whatever comes later
					for _, ctx := range all {
						requireEnded(t, ctx, row.err, row.cause)
					}
					for _, ctx := range children(t, m.Context()) {
						requireEnded(t, ctx, row.err, row.cause)
					}
					m.Expire(errors.New("another"))
					cancelParent(errors.New("another"))
					m.Finish()
					m.Finish()
					synctest.Wait()
				}
				require.True(t, ran.Load())
				require.NoError(t, context.Cause(kept))
				require.Equal(t, 1, kept.Value(key("a")))
			})
		})
	}
}

func TestMovableReportsTheParentsDeadlineOnly(t *testing.T) {
	m := NewMovable(context.Background())
	defer m.Finish()
	_, ok := m.Context().Deadline()
	require.False(t, ok)

	parent, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	want, _ := parent.Deadline()
	m = NewMovable(parent)
	m.Expire(errExpired)
	m.Finish()
	got, ok := m.Context().Deadline()
	require.True(t, ok)
	require.Equal(t, want, got)
}

// Below every kind of parent it ends as a standard child does.
func TestMovableFollowsItsParent(t *testing.T) {
	for _, kind := range parentKinds() {
		t.Run(kind.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				parent, clean := kind.make()
				defer clean()
				std, cancel := context.WithCancel(parent)
				defer cancel()
				m := NewMovable(parent)
				defer m.Finish()
				if parent.Err() != nil { // it is not even live for a moment
					requireSame(t, std, m.Context())
				}
				began := time.Now()
				for _, at := range moments {
					sleepUntil(began, at)
					requireSame(t, std, m.Context())
					require.Equal(t, isDone(std), isDone(m.Context()))
				}
				cancel()
				m.Finish()
				requireSame(t, std, m.Context())
			})
		})
	}
}

func TestMovableIsToldAtOnce(t *testing.T) {
	for range 100 {
		m := NewMovable(t.Context())
		child, cancel := context.WithCancel(m.Context())
		m.Expire(errExpired)
		require.Equal(t, context.DeadlineExceeded, child.Err())
		require.Equal(t, errExpired, context.Cause(child))
		cancel()
		m.Finish()
	}
}

func TestMovableWithinAMovable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer := NewMovable(context.WithValue(t.Context(), key("a"), 1))
		defer outer.Finish()
		inner := NewMovable(outer.Context())
		defer inner.Finish()
		outer.Expire(errExpired)
		synctest.Wait()
		requireEnded(t, inner.Context(), context.DeadlineExceeded, errExpired)
	})
}

func TestMovableLeavesNothingBehind(t *testing.T) {
	for _, end := range []func(*Movable){
		func(*Movable) {},
		func(m *Movable) { m.Expire(errExpired) },
	} {
		parent := registrar{newCustom()}
		m := NewMovable(parent)
		require.EqualValues(t, 1, parent.registered.Load())
		end(m)
		m.Finish()
		require.Zero(t, parent.registered.Load())
	}

	// A parent that can only be waited for costs a goroutine until Finish: the bubble
	// would not end with it.
	synctest.Test(t, func(*testing.T) {
		m := NewMovable(newCustom())
		synctest.Wait()
		m.Finish()
	})
}

// Of all that may end it at once, one wins whole: no Err with another's cause.
func TestMovableFirstEndWins(t *testing.T) {
	for range 500 {
		parent, cancelParent := context.WithCancelCause(context.WithValue(t.Context(), key("a"), 1))
		m := NewMovable(parent)
		ctx := m.Context()
		var wg sync.WaitGroup
		wg.Go(func() { cancelParent(errCause) })
		wg.Go(m.Finish)
		for range 2 {
			wg.Go(func() {
				m.Expire(errExpired)
				if ctx.Err() == nil || !isDone(ctx) {
					t.Error("Expire returned before the end")
				}
			})
			wg.Go(func() {
				child, cancel := context.WithCancel(ctx)
				defer cancel()
				<-child.Done()
				if ctx.Value(key("a")) != 1 || child.Err() != ctx.Err() {
					t.Error("the child's end is not its parent's")
				}
				_ = fmt.Sprint(ctx)
			})
		}
		wg.Wait()
		errOf := map[error]error{
			errExpired:       context.DeadlineExceeded,
			errCause:         context.Canceled,
			context.Canceled: context.Canceled,
		}
		require.Contains(t, errOf, context.Cause(ctx))
		require.Equal(t, errOf[context.Cause(ctx)], ctx.Err())
	}
}

func TestMovableAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			parent, cancelParent := context.WithCancelCause(context.Background())
			defer cancelParent(nil)
			m := NewMovable(parent)
			defer m.Finish()
			var err, cause error
			end := func(e, c error) {
				if err == nil {
					err, cause = e, c
				}
			}
			t.Repeat(map[string]func(*rapid.T){
				"Expire":            func(*rapid.T) { m.Expire(errExpired); end(context.DeadlineExceeded, errExpired) },
				"Finish":            func(*rapid.T) { m.Finish(); end(context.Canceled, context.Canceled) },
				"cancel the parent": func(*rapid.T) { cancelParent(errCause); end(context.Canceled, errCause) },
				"look": func(t *rapid.T) {
					synctest.Wait()
					child, cancel := context.WithCancel(m.Context())
					defer cancel()
					for _, ctx := range []context.Context{m.Context(), child} {
						if ctx.Err() != err || context.Cause(ctx) != cause || isDone(ctx) != (err != nil) {
							t.Fatalf("ended %v (%v), want %v (%v)", ctx.Err(), context.Cause(ctx), err, cause)
						}
					}
				},
			})
		})
	})
}

func BenchmarkMovable(b *testing.B) {
	b.ReportAllocs()
	parent := b.Context()
	for b.Loop() {
		NewMovable(parent).Finish()
	}
}
