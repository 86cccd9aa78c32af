package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak"
)

// doubled is the fn of a Gather that always has a value.
func doubled(_ context.Context, n int) (int, error) { return 2 * n, nil }

// upTo is the keys 0 to n-1.
func upTo(n int) []int {
	keys := make([]int, n)
	for i := range keys {
		keys[i] = i
	}
	return keys
}

func TestGatherCallsOnceForEachDistinctKey(t *testing.T) {
	for _, limit := range []int{1, 2, 100, math.MaxInt, firebreak.Unlimited} {
		var mu sync.Mutex
		var asked []int
		keys := []int{3, 1, 3, 2, 1, 3}
		values, err := firebreak.Gather(t.Context(), keys, limit, func(_ context.Context, n int) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, n)
			return 2 * n, nil
		})
		require.NoError(t, err)
		require.Equal(t, map[int]int{1: 2, 2: 4, 3: 6}, values)
		require.ElementsMatch(t, []int{1, 2, 3}, asked)
		require.Equal(t, []int{3, 1, 3, 2, 1, 3}, keys, "the keys are the caller's")
	}
}

func TestGatherOfNothing(t *testing.T) {
	for _, keys := range [][]int{nil, {}} {
		for _, limit := range []int{1, firebreak.Unlimited} {
			for _, ctx := range []context.Context{t.Context(), canceled(t)} {
				values, err := firebreak.Gather(ctx, keys, limit, func(context.Context, int) (int, error) { panic("fn was called") })
				require.NoError(t, err)
				require.NotNil(t, values)
				require.Empty(t, values)
			}
		}
	}
}

// fn has the very context, and is called elsewhere than on the caller's goroutine.
func TestGatherHandsOnItsContext(t *testing.T) {
	ctx := context.WithValue(t.Context(), contextKey("user"), "ada")
	values, err := firebreak.Gather(ctx, []string{"a"}, 1, func(within context.Context, key string) (string, error) {
		if within != ctx {
			return "", errBoom
		}
		return key + key, nil
	})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "aa"}, values)
}

// At most limit at a time, and not one less while there is work: so much time it takes.
func TestGatherKeepsItsLimit(t *testing.T) {
	for _, row := range []struct{ keys, limit, atOnce, seconds int }{
		{1, 1, 1, 1}, {5, 1, 1, 5}, {5, 2, 2, 3}, {6, 2, 2, 3}, {5, 4, 4, 2}, {5, 5, 5, 1}, {5, 6, 5, 1},
		{5, math.MaxInt, 5, 1}, {50, firebreak.Unlimited, 50, 1}, {1, firebreak.Unlimited, 1, 1},
	} {
		t.Run(fmt.Sprintf("%d of %d", row.limit, row.keys), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var at, most atomic.Int64
				began := time.Now()
				values, err := firebreak.Gather(t.Context(), upTo(row.keys), row.limit, func(ctx context.Context, n int) (int, error) {
					now := at.Add(1)
					for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
					}
					time.Sleep(time.Second)
					at.Add(-1)
					return doubled(ctx, n)
				})
				require.NoError(t, err)
				require.Len(t, values, row.keys)
				require.EqualValues(t, row.atOnce, most.Load())
				require.Equal(t, time.Duration(row.seconds)*time.Second, time.Since(began))
			})
		})
	}
}

// A slow key holds up its own worker only, and Gather returns when the last fn has.
func TestGatherReturnsWithTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := firebreak.Gather(t.Context(), upTo(11), 2, func(_ context.Context, n int) (int, error) {
			if n == 0 {
				time.Sleep(10*time.Second + 1)
			} else {
				time.Sleep(time.Second)
			}
			return n, nil
		})
		require.NoError(t, err)
		require.Equal(t, 10*time.Second+1, time.Since(began))
	})
}

// Keys without a value have their errors, the others keep their values; a value beside
// an error is dropped.
func TestGatherHasErrorsByKey(t *testing.T) {
	values, err := firebreak.Gather(t.Context(), upTo(7), 3, func(_ context.Context, n int) (int, error) {
		switch n {
		case 2:
			return 99, errBoom
		case 5:
			return 0, fmt.Errorf("five: %w", errNotFound)
		}
		return n, nil
	})
	require.Equal(t, map[int]int{0: 0, 1: 1, 3: 3, 4: 4, 6: 6}, values)
	failed, ok := err.(firebreak.KeyErrors[int])
	require.True(t, ok, "%#v", err)
	require.Len(t, failed, 2)
	require.True(t, failed[2] == errBoom)
	require.EqualError(t, failed[5], "five: not found")
	require.ErrorIs(t, err, errBoom)
	require.ErrorIs(t, err, errNotFound)
	require.NotErrorIs(t, err, errCache)
	require.EqualError(t, err, "2 keys without a value: 2: boom; 5: five: not found")
}

func TestKeyErrors(t *testing.T) {
	numbers := firebreak.KeyErrors[string]{}
	for i, key := range []string{"e", "c", "a", "d", "b"} {
		numbers[key] = fmt.Errorf("error %d", i)
	}
	for _, row := range []struct {
		err  firebreak.KeyErrors[string]
		want string
	}{
		{firebreak.KeyErrors[string]{"a": errBoom}, "1 key without a value: a: boom"},
		{firebreak.KeyErrors[string]{"c": errNotFound, "b": errBoom, "a": errBoom}, "3 keys without a value: a: boom; b: boom; c: not found"},
		{numbers, "5 keys without a value: a: error 2; b: error 4; c: error 1; and 2 more"},
		{firebreak.KeyErrors[string]{"%d": errBoom, "a\nb": &firebreak.Error{Command: "dep", Reason: firebreak.ErrOpen}, "": errBoom, "z": errBoom},
			"4 keys without a value: %d: boom; : boom; a\nb: dep: circuit open; and 1 more"},
	} {
		require.EqualError(t, row.err, row.want)
		require.ElementsMatch(t, slices.Collect(maps.Values(row.err)), row.err.Unwrap())
		for _, err := range row.err {
			require.ErrorIs(t, row.err, err)
		}
		require.NotErrorIs(t, row.err, errCache)
	}
	err := fmt.Errorf("page: %w", firebreak.KeyErrors[int]{7: &firebreak.Error{Command: "dep", Reason: firebreak.ErrTimeout}})
	byKey, ok := errors.AsType[firebreak.KeyErrors[int]](err)
	require.True(t, ok)
	require.Len(t, byKey, 1)
	_, ok = errors.AsType[firebreak.KeyErrors[string]](err)
	require.False(t, ok, "of other keys")
	ours, ok := errors.AsType[*firebreak.Error](err)
	require.True(t, ok)
	require.Equal(t, "dep", ours.Command)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// Not a number is not equal to itself: each is a key of its own.
func TestGatherOfWhatIsNoNumber(t *testing.T) {
	nan := math.NaN()
	var calls atomic.Int64
	values, err := firebreak.Gather(t.Context(), []float64{nan, 1, nan, 1, nan}, 2, func(_ context.Context, f float64) (int64, error) {
		if f == 1 {
			return 0, nil
		}
		if n := calls.Add(1); n != 2 {
			return n, nil
		}
		return 0, errBoom
	})
	require.EqualValues(t, 3, calls.Load())
	require.Len(t, values, 3)
	require.ElementsMatch(t, []int64{0, 1, 3}, slices.Collect(maps.Values(values)))
	require.EqualError(t, err, "1 key without a value: NaN: boom")
}

// A context that is over before: fn is not called, every key has its error.
func TestGatherUnderAContextThatIsOver(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errBoom)
	for _, limit := range []int{1, 4, firebreak.Unlimited} {
		values, err := firebreak.Gather(ctx, upTo(9), limit, func(context.Context, int) (int, error) { panic("fn was called") })
		require.Empty(t, values)
		failed := err.(firebreak.KeyErrors[int])
		require.Len(t, failed, 9)
		for _, err := range failed {
			require.True(t, err == context.Canceled)
		}
		require.ErrorIs(t, err, context.Canceled)
	}
}

// One that ends meanwhile: keys whose turn has not come have its error; those that have
// begun end as fn does.
func TestGatherWhoseContextEnds(t *testing.T) {
	for name, row := range map[string]struct {
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		want error
	}{"by a cancel": {canceledAfter(1500 * time.Millisecond), context.Canceled}, "by a deadline": {deadlineAfter(1500 * time.Millisecond), context.DeadlineExceeded}} {
		for _, deafly := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, deaf=%t", name, deafly), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := row.ctx(t.Context())
					defer cancel()
					began := time.Now()
					values, err := firebreak.Gather(ctx, upTo(20), 3, func(ctx context.Context, n int) (int, error) {
						if n < 3 || deafly {
							time.Sleep(time.Second)
							return n, nil
						}
						<-ctx.Done()
						return 0, errBoom
					})
					failed := err.(firebreak.KeyErrors[int])
					require.Len(t, failed, 20-len(values))
					begun := 0
					for n, err := range failed {
						if err == errBoom {
							begun++
							require.Contains(t, []int{3, 4, 5}, n)
						} else {
							require.True(t, err == row.want, "%v", err)
						}
					}
					if deafly {
						require.Equal(t, map[int]int{0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5}, values)
						require.Equal(t, 2*time.Second, time.Since(began), "it waits for those that have begun")
					} else {
						require.Equal(t, map[int]int{0: 0, 1: 1, 2: 2}, values)
						require.Equal(t, 3, begun)
						require.Equal(t, 1500*time.Millisecond, time.Since(began))
					}
				})
			})
		}
	}
}

// A panic or Goexit of fn is its key's error. Every worker may meet some: all keys have
// their answer, and never more than limit at once.
func TestGatherOutlivesWhatFnThrows(t *testing.T) {
	for _, limit := range []int{1, 3, firebreak.Unlimited} {
		for _, share := range []int{1, 2, 5} { // of the keys throw one of share
			t.Run(fmt.Sprintf("limit %d, one of %d", limit, share), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var at, calls atomic.Int64
					values, err := firebreak.Gather(t.Context(), upTo(60), limit, func(_ context.Context, n int) (int, error) {
						calls.Add(1)
						if limit != firebreak.Unlimited && at.Add(1) > int64(limit) {
							t.Error("too many at once")
						}
						defer at.Add(-1)
						time.Sleep(time.Second)
						switch {
						case n%share != 0:
							return n, nil
						case n%3 == 0:
							panicDeepDown(errBoom)
						case n%3 == 1:
							panic(nil) //nolint:govet // some do
						}
						runtime.Goexit()
						return 0, nil
					})
					require.EqualValues(t, 60, calls.Load())
					failed := err.(firebreak.KeyErrors[int])
					require.Len(t, failed, 60/share)
					require.Len(t, values, 60-60/share)
					for n, err := range failed {
						require.Zero(t, n%share)
						switch n % 3 {
						case 0:
							panics(errBoom)(t, err)
							require.Contains(t, string(err.(*firebreak.PanicError).Stack), "panicDeepDown")
						case 1:
							var none *runtime.PanicNilError
							require.ErrorAs(t, err, &none)
						default:
							panics(nil)(t, err)
						}
					}
					require.ErrorIs(t, err, errBoom)
				})
			})
		}
	}
}

func TestGatherPanics(t *testing.T) {
	var none context.Context
	ctx, keys := t.Context(), []int{1}
	for _, row := range []struct {
		want string
		call func()
	}{
		{"firebreak: Gather needs a context and a function", func() { _, _ = firebreak.Gather(none, keys, 1, doubled) }},
		{"firebreak: Gather needs a context and a function", func() { _, _ = firebreak.Gather[int, int](ctx, keys, 1, nil) }},
		{"firebreak: Gather: limit: 0 is neither positive nor Unlimited", func() { _, _ = firebreak.Gather(ctx, keys, 0, doubled) }},
		{"firebreak: Gather: limit: -1 is neither positive nor Unlimited", func() { _, _ = firebreak.Gather(ctx, keys, firebreak.Off, doubled) }},
		{"firebreak: Gather: limit: -3 is neither positive nor Unlimited", func() { _, _ = firebreak.Gather(ctx, nil, -3, doubled) }},
	} {
		require.Equal(t, row.want, panicText(t, row.call))
	}
}

// A context that panics in a worker is an error too: it would end the process.
func TestGatherUnderABrokenContext(t *testing.T) {
	_, err := firebreak.Gather(brokenContext{t.Context()}, upTo(5), 2, doubled)
	failed := err.(firebreak.KeyErrors[int])
	require.Len(t, failed, 5)
	panics("no Err")(t, failed[3])
}

// S23: a command's panic arrives as the error of its key, in either isolation.
func TestGatherOfABoundFunction(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 4, Mode: firebreak.ForceClosed})
		get := firebreak.Bind(p.cmd, func(_ context.Context, n int) (int, error) {
			time.Sleep(time.Millisecond)
			switch n % 4 {
			case 0:
				return 0, errBoom
			case 1:
				panic("boom")
			case 2:
				runtime.Goexit()
			}
			return n, nil
		})
		values, err := firebreak.Gather(t.Context(), upTo(40), 4, get)
		failed := err.(firebreak.KeyErrors[int])
		require.Len(t, values, 10)
		require.Len(t, failed, 30)
		require.True(t, failed[0] == errBoom)
		panics("boom")(t, failed[1])
		panics(nil)(t, failed[2])
		require.Equal(t, map[string]uint64{"Success": 10, "Failure": 10, "Panic": 20, "FallbackMissing": 10}, counted(firebreak.Counts{}, total(p.cmd)))
		requireAtRest(t, p.cmd)
	})
}

// What the limit is for: with room in the bulkhead nobody is rejected; wider than that
// the rest is.
func TestGatherWithinABulkhead(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		for limit, rejected := range map[int]int{5: 0, 20: 0, 50: 30, firebreak.Unlimited: 30} {
			p := newPlace(t, in, firebreak.Config{MaxConcurrent: 20})
			get := firebreak.Bind(p.cmd, func(_ context.Context, n int) (int, error) {
				time.Sleep(time.Millisecond)
				return n, nil
			})
			values, err := firebreak.Gather(t.Context(), upTo(50), limit, get)
			require.Len(t, values, 50-rejected, limit)
			require.Equal(t, rejected > 0, errors.Is(err, firebreak.ErrRejected))
			require.EqualValues(t, rejected, total(p.cmd).Rejected)
		}
	})
}

// The same without a bubble, where processors collide: exact still.
func TestGatherWithinABulkheadUnderContention(t *testing.T) {
	for _, in := range []firebreak.Isolation{semaphores, pools} {
		p := newPlace(t, in, firebreak.Config{MaxConcurrent: 8, Timeout: time.Minute})
		get := firebreak.Bind(p.cmd, func(_ context.Context, n int) (int, error) {
			runtime.Gosched()
			return n, nil
		})
		for range 5 {
			values, err := firebreak.Gather(t.Context(), upTo(500), 8, get)
			require.NoError(t, err)
			require.Len(t, values, 500)
		}
		require.Equal(t, map[string]uint64{"Success": 2500}, counted(firebreak.Counts{}, total(p.cmd)))
	}
}

// Any keys, limit and ends of fn: each distinct key is asked for once and has either a
// value or its error. When Gather is back, nothing of it is left: the bubble could not
// end otherwise.
func TestGatherModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			keys := rapid.SliceOf(rapid.IntRange(0, 12)).Draw(t, "keys")
			ends := rapid.SliceOfN(rapid.SampledFrom([]string{"value", "value", "error", "panic", "Goexit"}), 13, 13).Draw(t, "ends")
			takes := rapid.SliceOfN(rapid.IntRange(0, 5), 13, 13).Draw(t, "seconds")
			limit := rapid.SampledFrom([]int{1, 2, 3, 7, firebreak.Unlimited}).Draw(t, "limit")
			left := time.Duration(rapid.IntRange(0, 20).Draw(t, "left after"))*time.Second + time.Second/2
			ctx, cancel := context.WithTimeout(context.Background(), left)
			defer cancel()

			// The keys in order, each to the worker that is free first.
			distinct := []int{}
			for _, key := range keys {
				if !slices.Contains(distinct, key) {
					distinct = append(distinct, key)
				}
			}
			workers := make([]time.Duration, max(1, min(len(distinct), limit)))
			if limit == firebreak.Unlimited {
				workers = make([]time.Duration, max(1, len(distinct)))
			}
			want := map[int]string{}
			for _, key := range distinct {
				free := slices.Index(workers, slices.Min(workers))
				if workers[free] >= left {
					want[key] = "late"
					continue
				}
				want[key] = ends[key]
				workers[free] += time.Duration(takes[key]) * time.Second
			}

			var mu sync.Mutex
			asked, at := map[int]int{}, 0
			began := time.Now()
			values, err := firebreak.Gather(ctx, keys, limit, func(_ context.Context, key int) (int, error) {
				mu.Lock()
				asked[key]++
				at++
				tooMany := limit != firebreak.Unlimited && at > limit
				mu.Unlock()
				if tooMany {
					t.Error("too many at once")
				}
				defer func() {
					mu.Lock()
					at--
					mu.Unlock()
				}()
				time.Sleep(time.Duration(takes[key]) * time.Second)
				switch ends[key] {
				case "error":
					return 99, errBoom
				case "panic":
					panic(key)
				case "Goexit":
					runtime.Goexit()
				}
				return -key, nil
			})
			require.Equal(t, slices.Max(workers), time.Since(began))
			failed, _ := err.(firebreak.KeyErrors[int])
			require.Equal(t, err != nil, len(failed) > 0)
			require.Equal(t, len(want), len(values)+len(failed))
			for key, end := range want {
				v, ok := values[key]
				require.Equal(t, end == "value", ok)
				require.Equal(t, end != "late", asked[key] == 1)
				switch e, thrown := failed[key].(*firebreak.PanicError); end {
				case "value":
					require.Equal(t, -key, v)
				case "error":
					require.True(t, failed[key] == errBoom)
				case "late":
					require.True(t, failed[key] == context.DeadlineExceeded)
				case "panic":
					require.True(t, thrown)
					require.Equal(t, key, e.Value)
				default:
					require.True(t, thrown)
					require.Nil(t, e.Value)
				}
			}
		})
	})
}
