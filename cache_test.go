package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak"
)

// A source is a function of keys whose runs go on, deaf to their context, until the
// test lets them end. Use it in a bubble.
type source struct {
	mu   sync.Mutex
	runs []*sourceRun // in the order in which they began
}

type sourceRun struct {
	ctx context.Context
	key int
	end chan func() (int, error)
}

func (s *source) get(ctx context.Context, key int) (int, error) {
	r := &sourceRun{ctx: ctx, key: key, end: make(chan func() (int, error), 1)}
	s.mu.Lock()
	s.runs = append(s.runs, r)
	s.mu.Unlock()
	return (<-r.end)()
}

// ends lets a run end as how does.
func (r *sourceRun) ends(how func() (int, error)) {
	r.end <- how
	synctest.Wait()
}

func answers(v int, err error) func() (int, error) {
	return func() (int, error) { return v, err }
}

// ask calls get on another goroutine; what it returns waits for the answer.
func ask(ctx context.Context, get func(context.Context, int) (int, error), key int) (wait func() answer) {
	return later(func() (int, error) { return get(ctx, key) })
}

// twice is a function of keys for Bind, Cached and Collapse.
func twice(_ context.Context, key int) (int, error) { return 2 * key, nil }

// S65: who asks while a key is being fetched waits for it, who asks later gets what
// came of it; all of them but the first are hits, and no calls.
func TestS65_OneRunForEachKeyInAScope(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		s := &source{}
		get := firebreak.Cached(p.cmd, firebreak.Bind(p.cmd, s.get))
		ctx := firebreak.WithScope(t.Context())
		var waits []func() answer
		for i := range 10 {
			waits = append(waits, ask(ctx, get, i%2))
		}
		require.Len(t, s.runs, 2)
		require.Zero(t, total(p.cmd), "nobody has a value yet")
		s.runs[1].ends(answers(11, nil))
		s.runs[0].ends(answers(10, nil))
		for i, wait := range waits {
			require.Equal(t, answer{value: 10 + i%2}, wait())
		}
		for range 5 {
			v, err := get(ctx, 0)
			require.NoError(t, err)
			require.Equal(t, 10, v)
		}
		require.Len(t, s.runs, 2)
		require.Equal(t, firebreak.Counts{Success: 2, CacheHits: 8 + 5}, total(p.cmd))
		require.EqualValues(t, 2, total(p.cmd).Calls())
		require.EqualValues(t, 13, p.cmd.Snapshot().Window.CacheHits)
		require.Zero(t, total(p.neighbour))
	})
}

// S65, S23, S24: errors, of panics and Goexit too, are everybody's who waits, and are
// not kept.
func TestS65_ErrorsAreNotKept(t *testing.T) {
	for _, row := range []struct {
		name string
		how  func() (int, error)
		err  func(*testing.T, error)
	}{
		{"error", answers(7, errBoom), itself(errBoom)},
		{"panic", func() (int, error) { panic("boom") }, panics("boom")},
		{"panic with an error", func() (int, error) { panic(errBoom) }, func(t *testing.T, err error) {
			t.Helper()
			panics(errBoom)(t, err)
			require.ErrorIs(t, err, errBoom)
		}},
		{"panic with nil", func() (int, error) { panic(any(nil)) }, func(t *testing.T, err error) { //nolint:govet // that is the case
			t.Helper()
			var e *runtime.PanicNilError
			require.ErrorAs(t, err, &e)
		}},
		{"Goexit", func() (int, error) { runtime.Goexit(); return 0, nil }, panics(nil)},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cmd, s := newCommand(t, firebreak.Config{}), &source{}
				get := firebreak.Cached(cmd, s.get)
				ctx := firebreak.WithScope(t.Context())
				first, second := ask(ctx, get, 1), ask(ctx, get, 1)
				s.runs[0].ends(row.how)
				a, b := first(), second()
				row.err(t, a.err)
				require.True(t, a.err == b.err, "the same")
				require.Equal(t, firebreak.Counts{CacheHits: 1}, total(cmd), "an error that somebody else asked for")

				third := ask(ctx, get, 1)
				require.Len(t, s.runs, 2)
				s.runs[1].ends(answers(3, nil))
				require.Equal(t, answer{value: 3}, third())
				v, err := get(ctx, 1)
				require.NoError(t, err)
				require.Equal(t, 3, v)
				require.Equal(t, firebreak.Counts{CacheHits: 2}, total(cmd))
			})
		})
	}
}

// mended is what a fallback may have a hand in: get is the dependency, and if that
// fails, the fallback answers 9.
type mended struct {
	*place
	get   func(context.Context) (int, error)
	scope context.Context // of the caller, outside of any run
}

// A mending is a function of keys in which a fallback stands by.
type mending struct {
	name string
	fn   func(t *testing.T, m *mended) func(context.Context, int) (int, error)
}

var nine = firebreak.Static(9)

func oneItem(v int, err error) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) { yield(v, err) }
}

var mendings = []mending{
	{"Do", func(_ *testing.T, m *mended) func(context.Context, int) (int, error) {
		return func(ctx context.Context, _ int) (int, error) { return firebreak.Do(ctx, m.cmd, m.get, nine) }
	}},
	{"the second fallback", func(_ *testing.T, m *mended) func(context.Context, int) (int, error) {
		return func(ctx context.Context, _ int) (int, error) {
			return firebreak.Do(ctx, m.cmd, m.get, nil, failing, nine)
		}
	}},
	{"Run", func(_ *testing.T, m *mended) func(context.Context, int) (int, error) {
		return func(ctx context.Context, _ int) (v int, err error) {
			err = m.cmd.Run(ctx, func(ctx context.Context) (err error) { v, err = m.get(ctx); return err },
				func(context.Context, error) error { v = 9; return nil })
			return v, err
		}
	}},
	{"Bind", func(_ *testing.T, m *mended) func(context.Context, int) (int, error) {
		return firebreak.Bind(m.cmd, func(ctx context.Context, _ int) (int, error) { return m.get(ctx) },
			func(context.Context, int, error) (int, error) { return 9, nil })
	}},
	{"Go", func(t *testing.T, m *mended) func(context.Context, int) (int, error) {
		return func(ctx context.Context, _ int) (int, error) {
			return firebreak.Go(ctx, m.cmd, m.get, nine).Wait(t.Context())
		}
	}},
	{"Stream", func(_ *testing.T, m *mended) func(context.Context, int) (int, error) {
		return func(ctx context.Context, _ int) (v int, err error) {
			for v, err = range firebreak.Stream(ctx, m.cmd,
				func(ctx context.Context) iter.Seq2[int, error] { return oneItem(m.get(ctx)) },
				func(context.Context, error) iter.Seq2[int, error] { return oneItem(9, nil) }) {
				break
			}
			return v, err
		}
	}},
	{"a command within a command", func(_ *testing.T, m *mended) func(context.Context, int) (int, error) {
		return func(ctx context.Context, _ int) (int, error) {
			return firebreak.Do(ctx, m.neighbour, func(ctx context.Context) (int, error) { return firebreak.Do(ctx, m.cmd, m.get, nine) })
		}
	}},
	{"a command of another registry", func(t *testing.T, m *mended) func(context.Context, int) (int, error) {
		other := newCommand(t, firebreak.Config{})
		return func(ctx context.Context, _ int) (int, error) { return firebreak.Do(ctx, other, m.get, nine) }
	}},
	{"a run within a run", func(_ *testing.T, m *mended) func(context.Context, int) (int, error) {
		inner := firebreak.Cached(m.cmd, func(ctx context.Context, _ int) (int, error) { return firebreak.Do(ctx, m.cmd, m.get, nine) })
		return func(ctx context.Context, key int) (int, error) { return inner(ctx, key) }
	}},
	{"a run in a scope within", func(_ *testing.T, m *mended) func(context.Context, int) (int, error) {
		inner := firebreak.Cached(m.cmd, func(ctx context.Context, _ int) (int, error) { return firebreak.Do(ctx, m.cmd, m.get, nine) })
		return func(ctx context.Context, key int) (int, error) { return inner(firebreak.WithScope(ctx), key) }
	}},
	{"a run that another caller began", func(_ *testing.T, m *mended) func(context.Context, int) (int, error) {
		inner := firebreak.Cached(m.cmd, func(ctx context.Context, _ int) (int, error) {
			time.Sleep(time.Second)
			return firebreak.Do(ctx, m.cmd, m.get, nine)
		})
		return func(ctx context.Context, key int) (int, error) {
			ask(m.scope, inner, key)
			return inner(ctx, key)
		}
	}},
	{"a batch", func(_ *testing.T, m *mended) func(context.Context, int) (int, error) {
		return firebreak.Collapse(m.cmd, func(ctx context.Context, keys []int) (map[int]int, error) {
			v, err := m.get(ctx)
			return map[int]int{keys[0]: v}, err
		}, func(_ context.Context, keys []int, _ error) (map[int]int, error) { return map[int]int{keys[0]: 9}, nil })
	}},
	{"a batch that another caller began", func(_ *testing.T, m *mended) func(context.Context, int) (int, error) {
		inner := firebreak.Collapse(m.cmd, func(ctx context.Context, keys []int) (map[int]int, error) {
			v, err := m.get(ctx)
			return map[int]int{keys[0]: 0, keys[1]: v}, err
		}, func(_ context.Context, keys []int, _ error) (map[int]int, error) {
			return map[int]int{keys[0]: 9, keys[1]: 9}, nil
		})
		return func(ctx context.Context, key int) (int, error) {
			ask(m.scope, inner, key+1)
			return inner(ctx, key)
		}
	}},
	{"a fallback of a fallback", func(_ *testing.T, m *mended) func(context.Context, int) (int, error) {
		return func(ctx context.Context, _ int) (int, error) {
			v, err := firebreak.Do(ctx, m.cmd, m.get, func(ctx context.Context, _ error) (int, error) {
				return firebreak.Do(ctx, m.neighbour, fail, nine)
			})
			return v, err
		}
	}},
}

// S65: what a fallback had a hand in is not kept, however far in. What the dependency
// answered is kept, though the same fallbacks stand by.
func TestS65_ValuesOfFallbacksAreNotKept(t *testing.T) {
	for _, row := range mendings {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				err, runs := errBoom, 0
				m := &mended{
					place: newPlace(t, in, firebreak.Config{Timeout: time.Minute, ErrorThresholdPercentage: firebreak.Off}),
					get:   func(context.Context) (int, error) { runs++; return 7, err },
					scope: firebreak.WithScope(t.Context()),
				}
				get := firebreak.Cached(m.neighbour, row.fn(t, m))
				for n := range 3 {
					v, err := get(m.scope, 1)
					require.NoError(t, err)
					require.Equal(t, 9, v)
					require.Equal(t, n+1, runs)
				}
				err = nil
				for range 3 {
					v, err := get(m.scope, 1)
					require.NoError(t, err)
					require.Equal(t, 7, v)
					require.Equal(t, 4, runs)
				}
				synctest.Wait() // for who asked beside it
			})
		})
	}
}

// S65: a fallback that failed too, or answered an earlier call, is no hand in it.
func TestS65_FallbacksElsewhereDoNotMatter(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		ctx := firebreak.WithScope(t.Context())
		_, err := firebreak.Do(ctx, p.cmd, fail, nine)
		require.NoError(t, err)
		runs := 0
		get := firebreak.Cached(p.cmd, func(ctx context.Context, _ int) (int, error) {
			runs++
			_, err := firebreak.Do(ctx, p.cmd, fail, answering(0, 0, errCache))
			require.ErrorIs(t, err, errCache)
			_, err = firebreak.Do(ctx, p.cmd, succeed, nine)
			require.NoError(t, err)
			// Whose context is another's is another's business.
			_, err = firebreak.Do(t.Context(), p.cmd, fail, nine)
			return 7, err
		})
		for range 3 {
			v, err := get(ctx, 1)
			require.NoError(t, err)
			require.Equal(t, 7, v)
		}
		require.Equal(t, 1, runs)
	})
}

// S65: each waits as long as its own context lasts; the run goes on under the first
// one's values while anybody does, and does not know of any deadline.
func TestS65_EachWaiterHasItsOwnContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		cmd, s := newCommand(t, firebreak.Config{}), &source{}
		get := firebreak.Cached(cmd, s.get)
		scope := firebreak.WithScope(t.Context())
		began := time.Now()

		first, cancelFirst := context.WithTimeout(context.WithValue(scope, key{}, "first"), time.Second)
		defer cancelFirst()
		second, cancelSecond := context.WithCancel(context.WithValue(scope, key{}, "second"))
		a, b, c := ask(first, get, 1), ask(second, get, 1), ask(scope, get, 1)
		require.Len(t, s.runs, 1)
		run := s.runs[0].ctx

		require.Equal(t, answer{err: context.DeadlineExceeded}, a())
		require.Equal(t, time.Second, time.Since(began))
		cancelSecond()
		require.Equal(t, answer{err: context.Canceled}, b())
		require.Equal(t, time.Second, time.Since(began))
		require.NoError(t, run.Err())
		require.Equal(t, "first", run.Value(key{}))
		_, ok := run.Deadline()
		require.False(t, ok)
		require.Zero(t, total(cmd), "who left got nothing")

		s.runs[0].ends(answers(7, nil))
		require.Equal(t, answer{value: 7}, c())
		require.Equal(t, context.Canceled, run.Err(), "it is over")
		require.Equal(t, firebreak.Counts{CacheHits: 1}, total(cmd))
	})
}

// S65: when the last has left, the run's context ends; it takes nobody in any more, and
// what comes of it is nobody's.
func TestS65_TheLastWaiterEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd, s := newCommand(t, firebreak.Config{}), &source{}
		get := firebreak.Cached(cmd, s.get)
		scope := firebreak.WithScope(t.Context())
		first, leaveFirst := context.WithCancel(scope)
		second, leaveSecond := context.WithCancel(scope)
		a, b := ask(first, get, 1), ask(second, get, 1)
		leaveSecond()
		b()
		require.NoError(t, s.runs[0].ctx.Err())
		leaveFirst()
		require.Equal(t, answer{err: context.Canceled}, a())
		require.Equal(t, context.Canceled, s.runs[0].ctx.Err())

		c := ask(scope, get, 1)
		require.Len(t, s.runs, 2)
		s.runs[0].ends(answers(6, nil))
		d := ask(scope, get, 1)
		require.Len(t, s.runs, 2)
		s.runs[1].ends(answers(7, nil))
		require.Equal(t, answer{value: 7}, c())
		require.Equal(t, answer{value: 7}, d())
		require.Equal(t, answer{value: 7}, ask(scope, get, 1)())
		require.Equal(t, firebreak.Counts{CacheHits: 2}, total(cmd))
	})
}

// The forsaken run may also be the last to end, or fail: what is kept meanwhile stays.
func TestS65_AForsakenRunTakesNothingAlong(t *testing.T) {
	for name, how := range map[string]func() (int, error){
		"value": answers(6, nil), "error": answers(0, errBoom), "panic": func() (int, error) { panic("boom") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cmd, s := newCommand(t, firebreak.Config{}), &source{}
				get := firebreak.Cached(cmd, s.get)
				scope := firebreak.WithScope(t.Context())
				first, leave := context.WithCancel(scope)
				a := ask(first, get, 1)
				leave()
				a()
				b := ask(scope, get, 1)
				s.runs[1].ends(answers(7, nil))
				require.Equal(t, answer{value: 7}, b())
				s.runs[0].ends(how)
				require.Equal(t, answer{value: 7}, ask(scope, get, 1)())
				require.Len(t, s.runs, 2)
			})
		})
	}
}

// S65: who leaves in the very moment in which a value comes takes it from nobody.
func TestS65_LeaveWhileTheValueComes(t *testing.T) {
	left := 0
	for range 40 { // with both at hand the caller takes either
		synctest.Test(t, func(t *testing.T) {
			cmd, s := newCommand(t, firebreak.Config{}), &source{}
			get := firebreak.Cached(cmd, s.get)
			scope := firebreak.WithScope(t.Context())
			ctx := &endsWhenWatched{Context: scope, meanwhile: func() {
				synctest.Wait() // the run has begun
				s.runs[0].ends(answers(7, nil))
			}}
			if _, err := get(ctx, 1); err != nil {
				require.Equal(t, context.Canceled, err)
				left++
			}
			v, err := get(scope, 1)
			require.NoError(t, err)
			require.Equal(t, 7, v)
			require.Len(t, s.runs, 1)
		})
	}
	require.Positive(t, left)
}

// endsWhenWatched is a context that ends when somebody asks for Done.
type endsWhenWatched struct {
	context.Context
	meanwhile func()
	over      atomic.Bool
}

func (c *endsWhenWatched) Done() <-chan struct{} {
	c.meanwhile()
	c.over.Store(true)
	done := make(chan struct{})
	close(done)
	return done
}

func (c *endsWhenWatched) Err() error {
	if c.over.Load() {
		return context.Canceled
	}
	return nil
}

// S65: who comes in the very moment in which the last one leaves is taken in before,
// or finds another run: a caller that lives never gets a run that was ended.
func TestS65_JoinWhileTheLastOneLeaves(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{})
	get := firebreak.Cached(cmd, func(ctx context.Context, i int) (int, error) {
		for range i % 4 { // so that it ends about then
			runtime.Gosched()
		}
		return i, ctx.Err()
	})
	for i := range 3000 {
		scope := firebreak.WithScope(t.Context())
		first, leave := context.WithCancel(scope)
		var all sync.WaitGroup
		all.Go(func() { _, _ = get(first, i) })
		all.Go(leave)
		for range 2 {
			all.Go(func() {
				v, err := get(scope, i)
				assert.NoError(t, err)
				assert.Equal(t, i, v)
			})
		}
		all.Wait()
	}
}

// Without a scope it is the function itself: on the caller's goroutine, under its
// context, for each call.
func TestS65_WithoutAScope(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{})
	type key struct{}
	ctx, here, runs := context.WithValue(t.Context(), key{}, 1), goroutine(), 0
	get := firebreak.Cached(cmd, func(got context.Context, v int) (int, error) {
		require.True(t, got == ctx)
		require.Equal(t, here, goroutine())
		runs++
		return v, errBoom
	})
	for range 2 {
		v, err := get(ctx, 7)
		require.Equal(t, 7, v)
		require.True(t, err == errBoom)
	}
	require.Equal(t, 2, runs)
	require.Zero(t, total(cmd))

	up := firebreak.Cached(cmd, func(context.Context, int) (int, error) { panic("up") })
	require.PanicsWithValue(t, "up", func() { _, _ = up(t.Context(), 1) })
}

// Each scope, one within another too, and each Cached has values of its own.
func TestS65_WhatIsApart(t *testing.T) {
	cmd, runs := newCommand(t, firebreak.Config{}), 0
	fn := func(context.Context, int) (int, error) { runs++; return runs, nil }
	one, two := firebreak.Cached(cmd, fn), firebreak.Cached(cmd, fn)
	outer := firebreak.WithScope(t.Context())
	inner := firebreak.WithScope(outer)
	other := firebreak.WithScope(t.Context())
	for range 2 {
		for i, ask := range []func() (int, error){
			func() (int, error) { return one(outer, 1) },
			func() (int, error) { return one(inner, 1) },
			func() (int, error) { return one(other, 1) },
			func() (int, error) { return two(outer, 1) },
			func() (int, error) { return one(outer, 2) },
		} {
			v, err := ask()
			require.NoError(t, err)
			require.Equal(t, i+1, v)
		}
	}
	require.Equal(t, firebreak.Counts{CacheHits: 5}, total(cmd))
}

// S65: a caller whose context is over gets what is there. Else it calls, so that it is
// counted where calls are: it neither begins a run nor waits for one.
func TestS65_ACallerWhoseContextIsOver(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p, s := newPlace(t, in, firebreak.Config{}), &source{}
		get := firebreak.Cached(p.cmd, firebreak.Bind(p.cmd, s.get))
		scope := firebreak.WithScope(t.Context())
		over, cancel := context.WithCancel(scope)
		cancel()
		_, err := get(over, 1)
		require.True(t, err == context.Canceled)
		require.Equal(t, firebreak.Counts{GaveUp: 1}, total(p.cmd))

		a := ask(scope, get, 1)
		_, err = get(over, 1)
		require.True(t, err == context.Canceled)
		require.Equal(t, firebreak.Counts{GaveUp: 2}, total(p.cmd))
		require.NoError(t, s.runs[0].ctx.Err())
		s.runs[0].ends(answers(7, nil))
		require.Equal(t, answer{value: 7}, a())

		v, err := get(over, 1)
		require.NoError(t, err)
		require.Equal(t, 7, v)
		require.Equal(t, firebreak.Counts{GaveUp: 2, Success: 1, CacheHits: 1}, total(p.cmd))
	})
}

func TestS65_NilArguments(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{})
	require.Panics(t, func() { firebreak.Cached[int, int](cmd, nil) })
	require.Panics(t, func() { firebreak.Cached(nil, twice) })
	var none context.Context
	get := firebreak.Cached(cmd, twice)
	require.PanicsWithValue(t, "firebreak: a call needs a context, a command and a function", func() { _, _ = get(none, 1) })
	require.Panics(t, func() { firebreak.WithScope(none) })
}

// A key of an interface type that cannot be compared used to leave the scope locked
// for ever.
func TestS65_KeysThatCannotBeCompared(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{RequestLog: firebreak.On})
	runs := 0
	get := firebreak.Cached(cmd, func(_ context.Context, key any) (string, error) { runs++; return fmt.Sprint(key), nil })
	scope := firebreak.WithScope(t.Context())
	for range 2 { // in an empty cache, and in one that is not
		for _, key := range []any{[]int{1}, [1]any{[]int{}}, struct{ m map[int]int }{}, func() {}} {
			require.Panics(t, func() { _, _ = get(scope, key) }, "%T", key)
		}
		for _, key := range []any{nil, "a", 1, 1.5, [1]any{2}, struct{ a, b any }{3, "c"}} {
			v, err := get(scope, key)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(key), v)
		}
	}
	require.Equal(t, 6, runs)
	require.Equal(t, "dep[RESPONSE_FROM_CACHE][0ms]x6", firebreak.RequestLog(scope).String())
}

// A key that is not itself is asked for anew each time.
func TestS65_AKeyThatIsNotItself(t *testing.T) {
	cmd, runs := newCommand(t, firebreak.Config{}), 0
	get := firebreak.Cached(cmd, func(context.Context, float64) (int, error) { runs++; return runs, nil })
	scope := firebreak.WithScope(t.Context())
	for i := range 3 {
		v, err := get(scope, math.NaN())
		require.NoError(t, err)
		require.Equal(t, i+1, v)
	}
	require.Zero(t, total(cmd))
}

// What a scope holds is garbage with its context, though the function lives on.
func TestS65_GarbageWithTheScope(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{})
	get := firebreak.Cached(cmd, func(context.Context, int) (*[1 << 10]byte, error) { return new([1 << 10]byte), nil })
	ask := func() (weak.Pointer[[1 << 10]byte], context.Context) {
		ctx := firebreak.WithScope(t.Context())
		v, err := get(ctx, 1)
		require.NoError(t, err)
		return weak.Make(v), ctx
	}
	kept, ctx := ask()
	gone, _ := ask()
	waitUntil(t, func() bool { runtime.GC(); return gone.Value() == nil })
	require.NotNil(t, kept.Value())
	runtime.KeepAlive(ctx)
	v, err := get(firebreak.WithScope(t.Context()), 1)
	require.NoError(t, err)
	require.NotNil(t, v)
}

// S72: Shutdown waits for runs of Cached, whatever they do; one that begins later makes
// its calls in vain.
func TestS72_ShutdownWaitsForRunsOfCached(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p, s := newPlace(t, in, firebreak.Config{}), &source{}
		get := firebreak.Cached(p.cmd, s.get)
		scope := firebreak.WithScope(t.Context())
		left, leave := context.WithCancel(scope)
		a, b := ask(scope, get, 1), ask(left, get, 2)
		leave()
		b()
		hurry, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.EqualError(t, p.reg.Shutdown(hurry),
			"firebreak: shutdown: 2 futures, batches or runs of Cached for at least 1s: context deadline exceeded")
		down := beginShutdown(t.Context(), p.reg)
		s.runs[0].ends(answers(7, nil))
		require.Equal(t, answer{value: 7}, a())
		down.waits(t)
		s.runs[1].ends(answers(8, nil))
		require.NoError(t, down.result(t))

		late := firebreak.Cached(p.cmd, firebreak.Bind(p.cmd, twice))
		_, err := late(scope, 1)
		require.ErrorIs(t, err, firebreak.ErrShutdown)
		v, err := get(scope, 1)
		require.NoError(t, err, "what was kept is there")
		require.Equal(t, 7, v)
	})
}

// A hit on a handle whose command made way for another key counts under the key's
// present command.
func TestS73_HitsOfAHandleThatWasKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{RequestLog: firebreak.On})
		k := reg.Dependency("dep", firebreak.Config{}).Keyed("k", 1, firebreak.Config{})
		old := k.Command("a")
		get := firebreak.Cached(old, twice)
		scope := firebreak.WithScope(t.Context())
		_, err := get(scope, 1)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, "k[b]", k.Command("b").Name(), "a makes way")
		time.Sleep(time.Minute)
		k.Snapshot() // a's counts are in the family's past
		_, err = get(scope, 1)
		require.NoError(t, err)
		require.EqualValues(t, 1, total(k.Command("a")).CacheHits)
		require.EqualValues(t, 1, k.Snapshot().Total.CacheHits)
		require.Equal(t, "k[a][RESPONSE_FROM_CACHE][0ms]", firebreak.RequestLog(scope).String())
	})
}

// The sums, at rest, of many who ask at once, leave, and see runs fail.
func TestS65_ManyAtOnce(t *testing.T) {
	const callers, each, keys = 8, 400, 5
	reg := newRegistry(t, firebreak.Config{MaxConcurrent: firebreak.Unlimited, ErrorThresholdPercentage: firebreak.Off})
	cmd := reg.Command("dep", firebreak.Config{})
	var runs, asked atomic.Int64
	get := firebreak.Cached(cmd, firebreak.Bind(cmd, func(_ context.Context, key int) (int, error) {
		runtime.Gosched()
		if n := runs.Add(1); n%3 == 0 {
			return 0, errBoom
		}
		return 2 * key, nil
	}))
	var scope atomic.Pointer[context.Context]
	renew := func() { ctx := firebreak.WithScope(t.Context()); scope.Store(&ctx) }
	renew()
	var all sync.WaitGroup
	var got, left atomic.Int64
	for n := range callers {
		all.Go(func() {
			for i := range each {
				ctx, cancel := context.WithCancel(*scope.Load())
				if i%7 == 0 {
					go cancel()
				}
				if n == 0 && i%20 == 0 {
					renew()
				}
				asked.Add(1)
				switch v, err := get(ctx, i%keys); {
				case err == nil:
					assert.Equal(t, 2*(i%keys), v)
					got.Add(1)
				case errors.Is(err, context.Canceled):
					left.Add(1)
				default:
					assert.True(t, err == errBoom)
					got.Add(1)
				}
				cancel()
			}
		})
	}
	all.Wait()
	require.NoError(t, reg.Shutdown(t.Context()), "what nobody waits for any more may be on its way")
	c := total(cmd)
	require.Equal(t, runs.Load(), int64(c.Executed()))
	require.Equal(t, asked.Load(), got.Load()+left.Load())
	require.LessOrEqual(t, int64(c.CacheHits), got.Load())
	require.LessOrEqual(t, got.Load(), int64(c.CacheHits+c.Executed()))
}

// cacheModel is what a scope's Cached should do, of source's runs.
type cacheModel struct {
	s      *source
	get    func(context.Context, int) (int, error)
	scopes []context.Context
	// By scope and key.
	current map[[2]int]*modelRun // that takes askers in
	kept    map[[2]int]int
	all     []*modelRun
	hits    uint64
}

type modelRun struct {
	at     [2]int
	real   *sourceRun
	askers []*modelAsker
	over   bool
}

type modelAsker struct {
	first bool
	leave context.CancelFunc
	a     atomic.Pointer[answer]
}

func (m *cacheModel) ask(t *rapid.T) {
	at := [2]int{rapid.IntRange(0, len(m.scopes)-1).Draw(t, "scope"), rapid.IntRange(0, 1).Draw(t, "key")}
	ctx, cancel := context.WithCancel(m.scopes[at[0]])
	asker := &modelAsker{leave: cancel}
	runs := len(m.s.runs)
	go func() {
		a := answerOf(func() (int, error) { return m.get(ctx, at[1]) })
		asker.a.Store(&a)
	}()
	synctest.Wait()
	if v, ok := m.kept[at]; ok {
		require.Equal(t, answer{value: v}, *asker.a.Load())
		require.Len(t, m.s.runs, runs)
		m.hits++
		cancel()
		return
	}
	require.Nil(t, asker.a.Load(), "nothing has come")
	run := m.current[at]
	if run == nil {
		require.Len(t, m.s.runs, runs+1, "a run begins")
		run = &modelRun{at: at, real: m.s.runs[runs]}
		require.Equal(t, at[1], run.real.key)
		m.current[at] = run
		m.all = append(m.all, run)
		asker.first = true
	} else {
		require.Len(t, m.s.runs, runs, "one run at a time")
	}
	run.askers = append(run.askers, asker)
}

func (m *cacheModel) leave(t *rapid.T) {
	run := m.one(t)
	if run == nil || len(run.askers) == 0 {
		return
	}
	i := rapid.IntRange(0, len(run.askers)-1).Draw(t, "asker")
	asker := run.askers[i]
	run.askers = slices.Delete(run.askers, i, i+1)
	asker.leave()
	synctest.Wait()
	require.Equal(t, answer{err: context.Canceled}, *asker.a.Load())
	if len(run.askers) == 0 {
		delete(m.current, run.at)
	}
}

func (m *cacheModel) end(t *rapid.T) {
	run := m.one(t)
	if run == nil {
		return
	}
	want := answer{value: len(m.all)*1000 + rapid.IntRange(0, 999).Draw(t, "value")}
	if rapid.Bool().Draw(t, "fails") {
		want = answer{err: fmt.Errorf("%d", want.value)}
	}
	run.real.ends(answers(want.value, want.err))
	run.over = true
	for _, asker := range run.askers {
		require.Equal(t, want, *asker.a.Load())
		if !asker.first {
			m.hits++
		}
		asker.leave()
	}
	if m.current[run.at] == run {
		delete(m.current, run.at)
		if want.err == nil {
			m.kept[run.at] = want.value
		}
	}
	run.askers = nil
}

// one is a run that is not over.
func (m *cacheModel) one(t *rapid.T) *modelRun {
	live := slices.DeleteFunc(slices.Clone(m.all), func(r *modelRun) bool { return r.over })
	if len(live) == 0 {
		return nil
	}
	return rapid.SampledFrom(live).Draw(t, "run")
}

func (m *cacheModel) check(t *rapid.T) {
	for _, run := range m.all {
		if !run.over {
			require.Equal(t, len(run.askers) == 0, run.real.ctx.Err() != nil, "a run is ended when nobody waits, and only then")
		}
	}
	for run := range maps.Values(m.current) {
		require.NotEmpty(t, run.askers)
	}
}

// S65 at large: no run is ended while somebody waits; no two of one key that take
// askers in; each answer is of the run that was waited for, or of the one that is kept.
func TestS65_Model(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			cmd := firebreak.NewRegistry(firebreak.Config{}).Command("dep", firebreak.Config{})
			m := &cacheModel{s: &source{}, current: map[[2]int]*modelRun{}, kept: map[[2]int]int{}}
			m.get = firebreak.Cached(cmd, m.s.get)
			outer := firebreak.WithScope(context.Background())
			m.scopes = []context.Context{outer, firebreak.WithScope(outer)}
			defer func() { // no goroutine is left, also of a check that fails
				for _, run := range m.all {
					for _, asker := range run.askers {
						asker.leave()
					}
					if !run.over {
						run.real.end <- answers(0, nil)
					}
				}
			}()
			t.Repeat(map[string]func(*rapid.T){"ask": m.ask, "leave": m.leave, "end": m.end, "": m.check})
			require.Equal(t, firebreak.Counts{CacheHits: m.hits}, total(cmd))
		})
	})
}
