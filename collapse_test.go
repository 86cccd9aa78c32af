package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak"
)

// A depot is a load whose calls go on, deaf to their context, until the test lets them
// end. Use it in a bubble.
type depot struct {
	mu    sync.Mutex
	loads []*depotLoad // in the order in which they began
}

type depotLoad struct {
	ctx  context.Context
	at   time.Time
	keys []int
	end  chan func() (map[int]int, error)
}

func (d *depot) load(ctx context.Context, keys []int) (map[int]int, error) {
	l := &depotLoad{ctx: ctx, at: time.Now(), keys: keys, end: make(chan func() (map[int]int, error), 1)}
	d.mu.Lock()
	d.loads = append(d.loads, l)
	d.mu.Unlock()
	return (<-l.end)()
}

// began is the calls of load so far.
func (d *depot) began() []*depotLoad {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.loads)
}

func (l *depotLoad) ends(how func() (map[int]int, error)) {
	l.end <- how
	synctest.Wait()
}

func loads(values map[int]int, err error) func() (map[int]int, error) {
	return func() (map[int]int, error) { return values, err }
}

// doubles is the values of keys.
func doubles(keys []int) map[int]int {
	values := map[int]int{}
	for _, key := range keys {
		values[key] = 2 * key
	}
	return values
}

func loadDoubles(_ context.Context, keys []int) (map[int]int, error) { return doubles(keys), nil }

// loading is a load that returns that, whatever it is asked for.
func loading(values map[int]int, err error) func(context.Context, []int) (map[int]int, error) {
	return func(context.Context, []int) (map[int]int, error) { return values, err }
}

// askAll asks for the keys, each on a goroutine of its own, and returns the answers.
func askAll(ctx context.Context, get func(context.Context, int) (int, error), keys ...int) (all []answer) {
	var waits []func() answer
	for _, key := range keys {
		waits = append(waits, ask(ctx, get, key))
	}
	for _, wait := range waits {
		all = append(all, wait())
	}
	return all
}

const window = 10 * time.Millisecond // the default

// S66: the window runs from the first key and is exact; a key at its end is one of the
// next batch. Each batch is a call, each key asked for is counted.
func TestS66_TheWindowRunsFromTheFirstKey(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p, d := newPlace(t, in, firebreak.Config{}), &depot{}
		get := firebreak.Collapse(p.cmd, d.load)
		time.Sleep(time.Second)
		began := time.Now()
		a := ask(t.Context(), get, 3)
		time.Sleep(4 * time.Millisecond)
		b, c := ask(t.Context(), get, 1), ask(t.Context(), get, 3)
		time.Sleep(window - 4*time.Millisecond - 1)
		e := ask(t.Context(), get, 2)
		require.Empty(t, d.began())
		require.Zero(t, total(p.cmd))
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Len(t, d.began(), 1)
		require.Equal(t, []int{3, 1, 2}, d.began()[0].keys, "each once, in order")
		require.Equal(t, window, d.began()[0].at.Sub(began))
		require.Equal(t, firebreak.Counts{Batches: 1, Collapsed: 4}, total(p.cmd))

		f := ask(t.Context(), get, 1)
		time.Sleep(window)
		synctest.Wait()
		require.Len(t, d.began(), 2)
		require.Equal(t, []int{1}, d.began()[1].keys)
		d.began()[1].ends(loads(map[int]int{1: 11}, nil))
		require.Equal(t, answer{value: 11}, f())
		d.began()[0].ends(loads(map[int]int{1: 1, 2: 2, 3: 3}, nil))
		for _, of := range []struct {
			wait func() answer
			v    int
		}{{a, 3}, {b, 1}, {c, 3}, {e, 2}} {
			require.Equal(t, answer{value: of.v}, of.wait())
		}
		require.Equal(t, firebreak.Counts{Success: 2, Batches: 2, Collapsed: 5}, total(p.cmd))
		require.EqualValues(t, 2, total(p.cmd).Calls())
	})
}

// S66: with MaxBatch keys it leaves at once. The same key twice is one.
func TestS66_AFullBatchLeavesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd, d := newCommand(t, firebreak.Config{MaxBatch: 2}), &depot{}
		get := firebreak.Collapse(cmd, d.load)
		began := time.Now()
		for _, key := range []int{1, 1, 1, 2, 3, 2} {
			ask(t.Context(), get, key)
		}
		require.Len(t, d.began(), 2)
		require.Equal(t, []int{1, 2}, d.began()[0].keys)
		require.Equal(t, []int{3, 2}, d.began()[1].keys)
		require.Zero(t, time.Since(began))
		require.EqualValues(t, 6, total(cmd).Collapsed)
		for _, l := range d.began() {
			l.ends(loads(nil, nil))
		}
		time.Sleep(time.Hour)
		require.Len(t, d.began(), 2, "no window is left")
	})
}

// S66: callers in a scope are with those of that scope, all others with each other, and
// load sees the first one's values.
func TestS66_ScopesDoNotMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type user struct{}
		cmd := newCommand(t, firebreak.Config{})
		var mu sync.Mutex
		seen := map[string][]int{}
		load := func(ctx context.Context, keys []int) (map[int]int, error) {
			mu.Lock()
			defer mu.Unlock()
			who, _ := ctx.Value(user{}).(string)
			seen[who] = append(seen[who], keys...)
			return doubles(keys), nil
		}
		get, apart := firebreak.Collapse(cmd, load), firebreak.Collapse(cmd, load)
		as := func(ctx context.Context, who string) context.Context { return context.WithValue(ctx, user{}, who) }
		one, two := firebreak.WithScope(t.Context()), firebreak.WithScope(t.Context())
		within := firebreak.WithScope(one)
		var waits []func() answer
		for i, ctx := range []context.Context{
			as(one, "one"), as(two, "two"), as(t.Context(), "none"), as(within, "within"),
			as(one, "one too"), as(two, "two too"), as(t.Context(), "none too"), as(within, "within too"),
		} {
			waits = append(waits, ask(ctx, get, i))
		}
		waits = append(waits, ask(as(one, "apart"), apart, 8))
		for i, wait := range waits {
			require.Equal(t, answer{value: 2 * i}, wait())
		}
		require.Equal(t, map[string][]int{"one": {0, 4}, "two": {1, 5}, "none": {2, 6}, "within": {3, 7}, "apart": {8}}, seen)
		require.Equal(t, firebreak.Counts{Success: 5, Batches: 5, Collapsed: 9}, total(cmd))
	})
}

// S66: load's context has the first caller's values and not its deadline, but the
// command's, from when the batch leaves. It lives on while anybody waits.
func TestS66_TheContextOfABatch(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		type key struct{}
		p, d := newPlace(t, in, firebreak.Config{Timeout: time.Minute}), &depot{}
		get := firebreak.Collapse(p.cmd, d.load)
		first, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "first"), 2*window)
		defer cancel()
		second, leave := context.WithCancel(t.Context())
		a, b, c := ask(first, get, 1), ask(second, get, 2), ask(t.Context(), get, 1)
		time.Sleep(window)
		synctest.Wait()
		run := d.began()[0].ctx
		require.Equal(t, "first", run.Value(key{}))
		deadline, ok := run.Deadline()
		require.True(t, ok)
		require.Equal(t, time.Minute, time.Until(deadline))
		require.Equal(t, answer{err: context.DeadlineExceeded}, a())
		leave()
		require.Equal(t, answer{err: context.Canceled}, b())
		require.NoError(t, run.Err())
		d.began()[0].ends(loads(map[int]int{1: 7}, nil))
		require.Equal(t, answer{value: 7}, c())
		require.Equal(t, firebreak.Counts{Success: 1, Batches: 1, Collapsed: 3}, total(p.cmd))
	})
}

// S66: when all have left, load's context ends: its call is one that its caller ended.
func TestS66_AllHaveLeftABatchThatRuns(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		get := firebreak.Collapse(p.cmd, func(ctx context.Context, _ []int) (map[int]int, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		ctx, leave := context.WithCancel(t.Context())
		a, b := ask(ctx, get, 1), ask(ctx, get, 1)
		time.Sleep(2 * window)
		leave()
		require.Equal(t, answer{err: context.Canceled}, a())
		require.Equal(t, answer{err: context.Canceled}, b())
		synctest.Wait()
		require.Equal(t, firebreak.Counts{Canceled: 1, Batches: 1, Collapsed: 2}, total(p.cmd))
		require.Equal(t, window, p.cmd.Snapshot().RunHistogram.Sum, "it ended at once")
	})
}

// S66: keys that nobody waits for any more when the batch leaves are not asked for, and
// a batch of none is no call.
func TestS66_KeysThatWereForsaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd, d := reg.Command("dep", firebreak.Config{MaxBatch: 3, BatchWindow: time.Hour}), &depot{}
		get := firebreak.Collapse(cmd, d.load)
		ctx, leave := context.WithCancel(t.Context())
		a := ask(ctx, get, 1)
		b := ask(t.Context(), get, 2)
		c := ask(ctx, get, 2)
		leave()
		a()
		c()
		ask(t.Context(), get, 3)
		require.Empty(t, d.began(), "there is room for one more")
		f := ask(t.Context(), get, 1)
		require.Len(t, d.began(), 1)
		require.Equal(t, []int{2, 3, 1}, d.began()[0].keys)
		d.began()[0].ends(loads(map[int]int{1: 1, 2: 2}, nil))
		require.Equal(t, answer{value: 2}, b())
		require.Equal(t, answer{value: 1}, f())
		require.Equal(t, firebreak.Counts{Success: 1, Batches: 1, Collapsed: 3}, total(cmd))

		ctx, leave = context.WithCancel(t.Context())
		a, b = ask(ctx, get, 1), ask(ctx, get, 2)
		time.Sleep(time.Minute)
		leave()
		a()
		b()
		g := ask(t.Context(), get, 4)
		time.Sleep(time.Hour - 1)
		require.Len(t, d.began(), 1, "the old window is none of the new batch's")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Len(t, d.began(), 2)
		require.Equal(t, []int{4}, d.began()[1].keys)
		d.began()[1].ends(loads(map[int]int{4: 4}, nil))
		require.Equal(t, answer{value: 4}, g())
		require.Equal(t, firebreak.Counts{Success: 2, Batches: 2, Collapsed: 4}, total(cmd))

		ctx, leave = context.WithCancel(t.Context())
		a = ask(ctx, get, 1)
		leave()
		a()
		require.NoError(t, reg.Shutdown(t.Context()), "nothing is left to wait for")
		require.Equal(t, firebreak.Counts{Success: 2, Batches: 2, Collapsed: 4}, total(cmd))
	})
}

// A loadRow is how load ends, of keys 1, 2 and 3.
type loadRow struct {
	name    string
	config  firebreak.Config
	load    func(context.Context, []int) (map[int]int, error)
	counted string
	values  map[int]int
	errs    map[int]func(*testing.T, error) // of single keys
	err     func(*testing.T, error)         // of the other keys without a value
}

func noResult(key string) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		t.Helper()
		require.ErrorIs(t, err, firebreak.ErrNoResult)
		require.EqualError(t, err, "no result for the key: "+key)
	}
}

var (
	oneOfThree = map[int]int{1: 10, 2: 20}
	twoFails   = firebreak.KeyErrors[int]{2: errNotFound}
	partly     = map[int]func(*testing.T, error){2: itself(errNotFound), 3: noResult("3")}
	inner      = &firebreak.Error{Command: "inner", Reason: firebreak.ErrFailed, Cause: twoFails, Fallback: errCache}
)

var loadRows = []loadRow{
	{name: "values", load: loading(map[int]int{1: 10, 2: 0, 3: 30}, nil), counted: "Success", values: map[int]int{1: 10, 2: 0, 3: 30}},
	{name: "no map", load: loading(nil, nil), counted: "Success", errs: map[int]func(*testing.T, error){1: noResult("1"), 2: noResult("2"), 3: noResult("3")}},
	{name: "a key is lacking", load: loading(oneOfThree, nil), counted: "Success", values: oneOfThree, err: noResult("3")},
	{name: "keys that nobody asked for", load: loading(map[int]int{1: 1, 2: 2, 3: 3, 4: 4}, nil), counted: "Success", values: map[int]int{1: 1, 2: 2, 3: 3}},
	{name: "an error, values or not", load: loading(oneOfThree, errBoom), counted: "Failure", err: itself(errBoom)},
	{
		name: "an expected error", config: firebreak.Config{Classify: firebreak.ExpectErrors(errNotFound)},
		load: loading(oneOfThree, errNotFound), counted: "Expected", err: itself(errNotFound),
	},
	{name: "a marked error", load: loading(oneOfThree, firebreak.Mark(errNotFound, firebreak.Ignored)), counted: "Ignored", err: itself(errNotFound)},
	{name: "errors of keys", load: loading(oneOfThree, twoFails), counted: "Expected", values: map[int]int{1: 10}, errs: partly},
	{
		name: "errors of keys, whatever Classify says", config: firebreak.Config{Classify: func(error) firebreak.Verdict { return firebreak.Ignored }},
		load: loading(oneOfThree, twoFails), counted: "Expected", values: map[int]int{1: 10}, errs: partly,
	},
	{name: "errors of keys, wrapped", load: loading(oneOfThree, fmt.Errorf("loading: %w", twoFails)), counted: "Expected", values: map[int]int{1: 10}, errs: partly},
	{name: "errors of keys, wrapped with another", load: loading(oneOfThree, fmt.Errorf("%w: %w", errBoom, twoFails)), counted: "Expected", values: map[int]int{1: 10}, errs: partly},
	{name: "errors of keys, a failure", load: loading(oneOfThree, firebreak.Mark(twoFails, firebreak.Failure)), counted: "Failure", values: map[int]int{1: 10}, errs: partly},
	{name: "errors of keys, ignored", load: loading(oneOfThree, firebreak.Mark(twoFails, firebreak.Ignored)), counted: "Ignored", values: map[int]int{1: 10}, errs: partly},
	{
		name: "errors of keys, a failure below a wrapping", load: loading(oneOfThree, fmt.Errorf("loading: %w", firebreak.RetryAfter(twoFails, time.Second))),
		counted: "Failure", values: map[int]int{1: 10}, errs: partly,
	},
	{
		// A mark on one key's error used to decide for all, and which did was chance; and
		// it went on to the command further out.
		name: "marked errors of keys", load: loading(nil, firebreak.KeyErrors[int]{
			1: firebreak.Mark(errBoom, firebreak.Ignored), 2: firebreak.Mark(errNotFound, firebreak.Failure), 3: errCache,
		}),
		counted: "Expected", errs: map[int]func(*testing.T, error){1: itself(errBoom), 2: itself(errNotFound), 3: itself(errCache)},
	},
	{name: "no errors of keys", load: loading(oneOfThree, firebreak.KeyErrors[int]{}), counted: "Expected", values: oneOfThree, err: noResult("3")},
	{name: "a nil KeyErrors", load: loading(oneOfThree, firebreak.KeyErrors[int](nil)), counted: "Expected", values: oneOfThree, err: noResult("3")},
	{name: "a nil error of a key", load: loading(oneOfThree, firebreak.KeyErrors[int]{1: nil, 3: nil}), counted: "Expected", values: oneOfThree, err: noResult("3")},
	{
		name: "errors of keys that nobody asked for", load: loading(oneOfThree, firebreak.KeyErrors[int]{4: errBoom}), counted: "Expected",
		values: oneOfThree, err: noResult("3"),
	},
	{name: "errors of other keys", load: loading(oneOfThree, firebreak.KeyErrors[string]{"2": twoFails}), counted: "Failure", err: func(t *testing.T, err error) {
		t.Helper()
		require.Equal(t, firebreak.KeyErrors[string]{"2": twoFails}, err)
	}},
	{name: "errors of keys of another command", load: loading(oneOfThree, inner), counted: "Failure", err: itself(inner)},
	{name: "panic", load: func(context.Context, []int) (map[int]int, error) { panic("boom") }, counted: "Panic", err: panics("boom")},
	{name: "panic with errors of keys", load: func(context.Context, []int) (map[int]int, error) { panic(twoFails) }, counted: "Panic", err: panics(twoFails)},
	{name: "Goexit", load: func(context.Context, []int) (map[int]int, error) { runtime.Goexit(); return nil, nil }, counted: "Panic", err: panics(nil)},
	{
		name: "panic that is recovered", config: firebreak.Config{RecoverPanics: firebreak.On},
		load: func(context.Context, []int) (map[int]int, error) { panic("boom") }, counted: "Panic", err: panics("boom"),
	},
	{
		name: "timeout", load: func(ctx context.Context, _ []int) (map[int]int, error) { <-ctx.Done(); return oneOfThree, ctx.Err() },
		counted: "Timeout", err: func(t *testing.T, err error) {
			t.Helper()
			require.ErrorIs(t, err, firebreak.ErrTimeout)
			require.Equal(t, "cmd", err.(*firebreak.Error).Command)
		},
	},
}

// S67: what comes of a batch for each of its keys.
func TestS67_WhatLoadReturns(t *testing.T) {
	for _, row := range loadRows {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, row.config)
				get := firebreak.Collapse(p.cmd, row.load)
				for i, a := range askAll(t.Context(), get, 1, 2, 3) {
					key := i + 1
					v, ok := row.values[key]
					switch {
					case ok:
						require.Equal(t, answer{value: v}, a)
						continue
					case row.errs[key] != nil:
						row.errs[key](t, a.err)
					default:
						row.err(t, a.err)
					}
					require.Zero(t, a.value)
				}
				want := map[string]uint64{row.counted: 1, "Batches": 1, "Collapsed": 3}
				if row.counted == "Failure" || row.counted == "Timeout" || row.config.RecoverPanics == firebreak.On {
					want["FallbackMissing"] = 1
				}
				require.Equal(t, want, counted(firebreak.Counts{}, total(p.cmd)))
			})
		})
	}
}

// S67: the command further out judges a key's error by itself, not by a mark that load
// gave it for its own.
func TestS67_AMarkInsideKeyErrorsGoesNoFurther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, semaphores, firebreak.Config{})
		get := firebreak.Collapse(p.cmd, loading(nil, firebreak.KeyErrors[int]{1: firebreak.Mark(errNotFound, firebreak.Ignored)}))
		_, err := firebreak.Do(t.Context(), p.neighbour, func(ctx context.Context) (int, error) { return get(ctx, 1) })
		require.True(t, err == errNotFound)
		require.EqualValues(t, 1, total(p.neighbour).Failure)
		_, err = firebreak.Do(t.Context(), p.neighbour, func(context.Context) (int, error) {
			return 0, firebreak.KeyErrors[int]{1: firebreak.Mark(errNotFound, firebreak.Ignored), 2: errBoom}
		})
		require.ErrorIs(t, err, errBoom)
		require.EqualValues(t, 2, total(p.neighbour).Failure, "one of them says nothing of the others")
	})
}

// S67: fallbacks answer for the whole batch, where Do's would, with its keys.
func TestS67_FallbacksOfABatch(t *testing.T) {
	type fallback = func(context.Context, []int, error) (map[int]int, error)
	var causes []error
	answers := func(values map[int]int, err error) fallback {
		return func(_ context.Context, keys []int, cause error) (map[int]int, error) {
			slices.Sort(keys) // it has its own
			causes = append(causes, cause)
			if !slices.Equal(keys, []int{1, 2, 3}) {
				return nil, fmt.Errorf("keys %v", keys)
			}
			return values, err
		}
	}
	boom := loading(oneOfThree, errBoom)
	failed := func(fallback error) func(*testing.T, error) {
		return func(t *testing.T, err error) {
			t.Helper()
			require.Equal(t, &firebreak.Error{Command: "cmd", Reason: firebreak.ErrFailed, Cause: errBoom, Fallback: fallback}, err)
		}
	}
	for _, row := range []struct {
		loadRow
		fallbacks []fallback
		fallback  string // what is counted
	}{
		{loadRow{name: "answers", load: boom, counted: "Failure", values: map[int]int{1: -1, 3: -3}, err: noResult("2")},
			[]fallback{answers(map[int]int{1: -1, 3: -3}, nil)}, "FallbackSuccess"},
		{loadRow{name: "the second answers", load: boom, counted: "Failure", values: oneOfThree, err: noResult("3")},
			[]fallback{nil, answers(map[int]int{1: 1}, errCache), answers(oneOfThree, nil)}, "FallbackSuccess"},
		{loadRow{name: "fails", load: boom, counted: "Failure", err: failed(errCache)}, []fallback{answers(oneOfThree, errCache)}, "FallbackFailure"},
		{loadRow{name: "errors of keys are a failure of the fallback's", load: boom, counted: "Failure", err: failed(twoFails)},
			[]fallback{answers(oneOfThree, twoFails)}, "FallbackFailure"},
		{loadRow{name: "none", load: boom, counted: "Failure", err: itself(errBoom)}, []fallback{nil, nil}, "FallbackMissing"},
		{loadRow{name: "off", config: firebreak.Config{MaxFallbacks: firebreak.Off}, load: boom, counted: "Failure", err: itself(errBoom)},
			[]fallback{answers(oneOfThree, nil)}, "FallbackMissing"},
		{loadRow{name: "panics", load: boom, counted: "Failure", err: panics("fallback")},
			[]fallback{func(context.Context, []int, error) (map[int]int, error) { panic("fallback") }}, "FallbackFailure"},
		{loadRow{name: "calls Goexit", load: boom, counted: "Failure", err: panics(nil)},
			[]fallback{func(context.Context, []int, error) (map[int]int, error) { runtime.Goexit(); return nil, nil }}, "FallbackFailure"},
		{loadRow{name: "not for errors of keys", load: loading(oneOfThree, twoFails), counted: "Expected", values: map[int]int{1: 10}, errs: partly},
			[]fallback{answers(nil, nil)}, ""},
		{loadRow{name: "not for a panic", load: func(context.Context, []int) (map[int]int, error) { panic("boom") }, counted: "Panic", err: panics("boom")},
			[]fallback{answers(nil, nil)}, ""},
		{loadRow{
			name: "for a panic that is recovered", config: firebreak.Config{RecoverPanics: firebreak.On},
			load: func(context.Context, []int) (map[int]int, error) { panic("boom") }, counted: "Panic", values: map[int]int{1: 1, 2: 2, 3: 3},
		}, []fallback{answers(map[int]int{1: 1, 2: 2, 3: 3}, nil)}, "FallbackSuccess"},
		{loadRow{
			name: "for a timeout", load: func(ctx context.Context, _ []int) (map[int]int, error) { <-ctx.Done(); return nil, ctx.Err() },
			counted: "Timeout", values: map[int]int{1: 1, 2: 2, 3: 3},
		}, []fallback{answers(map[int]int{1: 1, 2: 2, 3: 3}, nil)}, "FallbackSuccess"},
		{loadRow{
			name: "for errors of keys that are a failure", load: loading(oneOfThree, firebreak.Mark(twoFails, firebreak.Failure)), counted: "Failure",
			values: map[int]int{1: -1}, errs: map[int]func(*testing.T, error){2: noResult("2"), 3: noResult("3")},
		}, []fallback{answers(map[int]int{1: -1}, nil)}, "FallbackSuccess"},
	} {
		t.Run(row.name, func(t *testing.T) {
			inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
				p := newPlace(t, in, row.config)
				get := firebreak.Collapse(p.cmd, row.load, row.fallbacks...)
				causes = nil
				for i, a := range askAll(t.Context(), get, 3, 1, 2) {
					key := []int{3, 1, 2}[i]
					v, ok := row.values[key]
					switch {
					case ok:
						require.Equal(t, answer{value: v}, a)
					case row.errs[key] != nil:
						row.errs[key](t, a.err)
					default:
						row.err(t, a.err)
					}
				}
				for _, cause := range causes {
					require.Equal(t, causes[0], cause, "each gets the same")
				}
				want := map[string]uint64{row.counted: 1, "Batches": 1, "Collapsed": 3}
				if row.fallback != "" {
					want[row.fallback] = 1
				}
				require.Equal(t, want, counted(firebreak.Counts{}, total(p.cmd)))
			})
		})
	}
}

// The keys of load are its own, as are a fallback's: what one does to them, in a pool
// even past its deadline, the other does not see.
func TestS67_KeysBelongToWhoeverGotThem(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{Timeout: time.Second})
		var kept [][]int
		spoil := func(keys []int) {
			for i := range keys {
				keys[i] = -1
			}
		}
		get := firebreak.Collapse(p.cmd, func(ctx context.Context, keys []int) (map[int]int, error) {
			<-ctx.Done()
			spoil(keys)
			return nil, ctx.Err()
		}, func(_ context.Context, keys []int, _ error) (map[int]int, error) {
			kept = append(kept, slices.Clone(keys))
			spoil(keys)
			return nil, errCache
		}, func(_ context.Context, keys []int, _ error) (map[int]int, error) {
			kept = append(kept, keys)
			return doubles(keys), nil
		})
		for i, a := range askAll(t.Context(), get, 1, 2, 3) {
			require.Equal(t, answer{value: 2 * (i + 1)}, a)
		}
		require.Equal(t, [][]int{{1, 2, 3}, {1, 2, 3}}, kept)
	})
}

// S67: Timeout begins when the batch leaves. A late load is not waited for in a pool,
// and its values are nobody's; by a semaphore they come after all.
func TestS67_ALateLoad(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p, d := newPlace(t, in, firebreak.Config{Timeout: time.Second, BatchWindow: time.Minute}), &depot{}
		get := firebreak.Collapse(p.cmd, d.load)
		began := time.Now()
		wait := ask(t.Context(), get, 1)
		time.Sleep(time.Minute + time.Second + time.Second/2)
		synctest.Wait()
		d.began()[0].ends(loads(map[int]int{1: 1}, nil))
		a := wait()
		if in == pools {
			require.ErrorIs(t, a.err, firebreak.ErrTimeout)
			require.Equal(t, firebreak.Counts{Timeout: 1, Overran: 1, FallbackMissing: 1, Batches: 1, Collapsed: 1}, total(p.cmd))
			require.Equal(t, time.Second, p.cmd.Snapshot().RunHistogram.Sum)
			return
		}
		require.Equal(t, answer{value: 1}, a)
		require.Equal(t, time.Minute+time.Second+time.Second/2, time.Since(began))
		require.Equal(t, firebreak.Counts{Timeout: 1, Overran: 1, Batches: 1, Collapsed: 1}, total(p.cmd))
	})
}

// A batch that the bulkhead rejects is one call, and everybody's error.
func TestS66_ABatchIsRejected(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, onePermit)
		full(t, p)
		all := askAll(t.Context(), firebreak.Collapse(p.cmd, loadDoubles), 1, 2)
		ours(firebreak.ErrRejected, nil)(t, all[0].err)
		require.Equal(t, all[0], all[1])
		require.Equal(t, firebreak.Counts{Rejected: 1, FallbackMissing: 1, Batches: 1, Collapsed: 2}, total(p.cmd))
	})
}

// S66: a key that finds the circuit refusing does not wait: it is a call of its own,
// with its fallbacks, and in no batch. Probes are batches.
func TestS66_AnOpenCircuit(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{SleepWindow: time.Minute})
		d := &depot{}
		get := firebreak.Collapse(p.cmd, d.load)
		static := firebreak.Collapse(p.cmd, d.load, func(_ context.Context, keys []int, cause error) (map[int]int, error) {
			require.ErrorIs(t, cause, firebreak.ErrOpen)
			return doubles(keys), nil
		})
		bad := firebreak.Collapse(p.cmd, d.load, func(context.Context, []int, error) (map[int]int, error) { panic("up") })
		trip(t, p.cmd)
		opened, before := time.Now(), total(p.cmd)
		_, err := get(t.Context(), 1)
		open(time.Minute)(t, err)
		v, err := static(t.Context(), 7)
		require.NoError(t, err)
		require.Equal(t, 14, v)
		goesUp("up")(t, answerOf(func() (int, error) { return bad(t.Context(), 1) }))
		require.Equal(t, map[string]uint64{"ShortCircuited": 3, "FallbackMissing": 1, "FallbackSuccess": 1, "FallbackFailure": 1}, counted(before, total(p.cmd)))
		require.Zero(t, time.Since(opened))

		time.Sleep(time.Minute - 1)
		_, err = get(t.Context(), 1)
		open(1)(t, err)
		time.Sleep(time.Nanosecond)
		a, b := ask(t.Context(), get, 1), ask(t.Context(), get, 2)
		time.Sleep(window)
		synctest.Wait()
		require.Len(t, d.began(), 1)
		require.Equal(t, firebreak.StateHalfOpen, p.cmd.Snapshot().State)
		_, err = get(t.Context(), 3)
		require.ErrorIs(t, err, firebreak.ErrOpen, "the probe's place is taken")
		d.began()[0].ends(loads(doubles(d.began()[0].keys), nil))
		require.Equal(t, answer{value: 2}, a())
		require.Equal(t, answer{value: 4}, b())
		require.Equal(t, firebreak.StateClosed, p.cmd.Snapshot().State)
		require.Len(t, d.began(), 1)
	})
}

// What an override says is what the circuit says: also one that expires, and Shadow.
func TestS66_CircuitsUnderAnOverride(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, semaphores, firebreak.Config{SleepWindow: time.Hour})
		get := firebreak.Collapse(p.cmd, loadDoubles)
		took := func() (time.Duration, error) {
			began := time.Now()
			_, err := get(t.Context(), 1)
			return time.Since(began), err
		}
		for _, step := range []struct {
			o    firebreak.Override
			took time.Duration
			err  error
		}{
			{firebreak.Override{}, window, nil},
			{firebreak.Override{Mode: firebreak.ForceOpen}, 0, firebreak.ErrOpen},
			{firebreak.Override{Mode: firebreak.ForceClosed}, window, nil},
			{firebreak.Override{Mode: firebreak.ForceOpen, Until: time.Now().Add(3 * window)}, 0, firebreak.ErrOpen},
		} {
			p.cmd.Override(step.o)
			d, err := took()
			require.Equal(t, step.took, d)
			require.ErrorIs(t, err, step.err)
		}
		time.Sleep(window)
		d, err := took()
		require.NoError(t, err, "it has expired")
		require.Equal(t, window, d)

		failUntilItOpens(t, p.cmd)
		p.cmd.Override(firebreak.Override{Mode: firebreak.Shadow})
		d, err = took()
		require.NoError(t, err, "it would refuse")
		require.Equal(t, window, d)
	})
}

// A caller whose context is over is a call that gave up, and in no batch.
func TestS66_ACallerWhoseContextIsOver(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p, d := newPlace(t, in, firebreak.Config{}), &depot{}
		get := firebreak.Collapse(p.cmd, d.load)
		a := ask(t.Context(), get, 1)
		_, err := get(canceled(t), 2)
		require.True(t, err == context.Canceled)
		require.Equal(t, firebreak.Counts{GaveUp: 1}, total(p.cmd))
		time.Sleep(window)
		synctest.Wait()
		require.Equal(t, []int{1}, d.began()[0].keys)
		d.began()[0].ends(loads(doubles(d.began()[0].keys), nil))
		require.Equal(t, answer{value: 2}, a())
	})
}

// S67, S72: batches that wait leave at once and are refused, those that run are waited
// for, and later keys are refused.
func TestS72_ShutdownAndBatches(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p, d := newPlace(t, in, firebreak.Config{BatchWindow: time.Hour, MaxBatch: 2, Timeout: firebreak.Off}), &depot{}
		answered := make(chan struct{})
		get := firebreak.Collapse(p.cmd, d.load)
		static := firebreak.Collapse(p.cmd, d.load, func(_ context.Context, keys []int, cause error) (map[int]int, error) {
			<-answered
			assert.ErrorIs(t, cause, firebreak.ErrShutdown)
			return doubles(keys), nil
		})
		began := time.Now()
		runs := []func() answer{ask(t.Context(), get, 1), ask(t.Context(), get, 2)}
		waits := []func() answer{ask(t.Context(), get, 3), ask(firebreak.WithScope(t.Context()), get, 4)}
		mended := ask(t.Context(), static, 5)
		require.Len(t, d.began(), 1)
		down := beginShutdown(t.Context(), p.reg)
		for _, wait := range waits {
			ours(firebreak.ErrShutdown, nil)(t, wait().err)
		}
		require.Zero(t, time.Since(began))
		_, err := get(t.Context(), 1)
		ours(firebreak.ErrShutdown, nil)(t, err)
		d.began()[0].ends(loads(doubles([]int{1, 2}), nil))
		for i, wait := range runs {
			require.Equal(t, answer{value: 2 * (i + 1)}, wait())
		}
		down.waits(t) // for the fallback of a batch
		close(answered)
		require.Equal(t, answer{value: 10}, mended())
		require.NoError(t, down.result(t))
		require.Equal(t, firebreak.Counts{Success: 1, Shutdown: 4, FallbackMissing: 3, FallbackSuccess: 1, Batches: 4, Collapsed: 5}, total(p.cmd))
	})
}

// A batch that began while Shutdown looked for those that wait used to wait for its
// window, and Shutdown with it.
func TestS72_ABatchThatBeginsDuringShutdown(t *testing.T) {
	for range 300 {
		reg := firebreak.NewRegistry(firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{BatchWindow: time.Hour})
		get := firebreak.Collapse(cmd, loadDoubles)
		var all sync.WaitGroup
		start := make(chan struct{})
		for key := range 4 {
			all.Go(func() {
				<-start
				for range key {
					runtime.Gosched()
				}
				if _, err := get(firebreak.WithScope(t.Context()), key); err != nil { // it may just have been in time
					assert.ErrorIs(t, err, firebreak.ErrShutdown)
				}
			})
		}
		all.Go(func() {
			<-start
			runtime.Gosched()
			assert.NoError(t, reg.Shutdown(t.Context()))
		})
		close(start)
		all.Wait()
		requireAtRest(t, cmd)
	}
}

// The same, as it must come about: the circuit does not refuse yet, all batches have
// been sent off.
func TestS72_ABatchBehindShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{BatchWindow: time.Hour})
		get := firebreak.Collapse(cmd, loadDoubles)
		began := time.Now()
		// Its scope is asked for when the circuit has been.
		ctx := &askedForItsScope{Context: t.Context(), then: func() { require.NoError(t, reg.Shutdown(t.Context())) }}
		_, err := get(ctx, 1)
		require.ErrorIs(t, err, firebreak.ErrShutdown)
		require.Zero(t, time.Since(began))
		require.Equal(t, firebreak.Counts{Shutdown: 1, FallbackMissing: 1, Batches: 1, Collapsed: 1}, total(cmd))
	})
}

type askedForItsScope struct {
	context.Context
	then func()
}

func (c *askedForItsScope) Value(key any) any {
	if then := c.then; then != nil {
		c.then = nil
		then()
	}
	return c.Context.Value(key)
}

// I14: BatchWindow holds for batches that begin, MaxBatch for every key.
func TestI14_UpdateMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd, d := reg.Command("dep", firebreak.Config{}), &depot{}
		get := firebreak.Collapse(cmd, d.load)
		set := func(c firebreak.Config) { update(t, reg, firebreak.Document{Defaults: c}) }
		ask(t.Context(), get, 1)
		set(firebreak.Config{BatchWindow: time.Minute})
		time.Sleep(window)
		synctest.Wait()
		require.Len(t, d.began(), 1, "it had begun before")
		ask(t.Context(), get, 2)
		ask(t.Context(), get, 3)
		ask(t.Context(), get, 4)
		set(firebreak.Config{BatchWindow: window, MaxBatch: 2})
		time.Sleep(2 * window)
		require.Len(t, d.began(), 1)
		ask(t.Context(), get, 3)
		require.Len(t, d.began(), 2, "it is more than full")
		require.Equal(t, []int{2, 3, 4}, d.began()[1].keys)
		ask(t.Context(), get, 5)
		time.Sleep(window)
		synctest.Wait()
		require.Len(t, d.began(), 3)
		for _, l := range d.began() {
			l.ends(loads(nil, nil))
		}
		require.EqualValues(t, 6, total(cmd).Collapsed)
	})
}

// S73: a handle whose command made way goes on under the key's present one, in batches
// still: each key used to be a call of its own, for ever.
func TestS73_BatchesOfAHandleThatWasKept(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		reg := newRegistry(t, firebreak.Config{})
		k := reg.Dependency("dep", firebreak.Config{Isolation: in}).Keyed("k", 1, firebreak.Config{})
		get := firebreak.Collapse(k.Command("a"), loadDoubles)
		time.Sleep(time.Minute)
		require.Equal(t, "k[b]", k.Command("b").Name(), "a makes way")
		time.Sleep(time.Minute)
		k.Snapshot() // a's counts are in the family's past
		for i, a := range askAll(t.Context(), get, 0, 1, 2) {
			require.Equal(t, answer{value: 2 * i}, a)
		}
		require.Equal(t, firebreak.Counts{Success: 1, Batches: 1, Collapsed: 3}, total(k.Command("a")))
		require.Equal(t, firebreak.Counts{Success: 1, Batches: 1, Collapsed: 3}, k.Snapshot().Total)
		k.Command("a").Override(firebreak.Override{Mode: firebreak.ForceOpen})
		began := time.Now()
		_, err := get(t.Context(), 1)
		require.ErrorIs(t, err, firebreak.ErrOpen)
		require.Zero(t, time.Since(began))
	})
}

// Cached over Collapse: a key is in one batch of its scope, and Gather asks for all of
// them at once.
func TestS66_CachedAndGatherOverABatch(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		var batches [][]int
		get := firebreak.Cached(p.cmd, firebreak.Collapse(p.cmd, func(_ context.Context, keys []int) (map[int]int, error) {
			slices.Sort(keys)
			batches = append(batches, keys)
			values := doubles(keys)
			delete(values, 3)
			return values, firebreak.KeyErrors[int]{4: errBoom}
		}))
		ctx := firebreak.WithScope(t.Context())
		for range 2 {
			began := time.Now()
			values, err := firebreak.Gather(ctx, []int{1, 2, 3, 4, 1}, firebreak.Unlimited, get)
			require.Equal(t, map[int]int{1: 2, 2: 4}, values)
			require.Equal(t, window, time.Since(began))
			errs, ok := err.(firebreak.KeyErrors[int])
			require.True(t, ok)
			require.Len(t, errs, 2)
			noResult("3")(t, errs[3])
			require.True(t, errs[4] == errBoom)
		}
		require.Equal(t, [][]int{{1, 2, 3, 4}, {3, 4}}, batches)
		require.Equal(t, firebreak.Counts{Expected: 2, Batches: 2, Collapsed: 6, CacheHits: 2}, total(p.cmd))
	})
}

func TestS66_NilArguments(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{})
	require.Panics(t, func() { firebreak.Collapse[int, int](cmd, nil) })
	require.Panics(t, func() { firebreak.Collapse(nil, loadDoubles) })
	var none context.Context
	get := firebreak.Collapse(cmd, loadDoubles)
	require.PanicsWithValue(t, "firebreak: a call needs a context, a command and a function", func() { _, _ = get(none, 1) })
}

// A key of an interface type that cannot be compared used to begin a batch of none, and
// a call of it.
func TestS66_KeysThatCannotBeCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{})
		get := firebreak.Collapse(cmd, func(_ context.Context, keys []any) (map[any]string, error) {
			values := map[any]string{}
			for _, key := range keys {
				values[key] = fmt.Sprint(key)
			}
			return values, nil
		})
		for range 2 {
			for _, key := range []any{[]int{1}, [1]any{[]int{}}, struct{ m map[int]int }{}, func() {}} {
				require.Panics(t, func() { _, _ = get(t.Context(), key) }, "%T", key)
			}
			time.Sleep(time.Minute)
			require.Zero(t, total(cmd))
		}
		for _, key := range []any{nil, "a", 1, [1]any{2}, struct{ a, b any }{3, "c"}} {
			v, err := get(t.Context(), key)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(key), v)
		}
		require.Equal(t, firebreak.Counts{Success: 5, Batches: 5, Collapsed: 5}, total(cmd))
	})
}

// A key that is not itself has no result, and hurts nobody.
func TestS66_AKeyThatIsNotItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{})
		get := firebreak.Collapse(cmd, func(_ context.Context, keys []float64) (map[float64]int, error) {
			values := map[float64]int{}
			for _, key := range keys {
				values[key] = int(key)
			}
			return values, nil
		})
		ctx, leave := context.WithCancel(t.Context())
		ask := func(ctx context.Context, key float64) func() answer {
			return later(func() (int, error) { return get(ctx, key) })
		}
		a, b, c := ask(ctx, math.NaN()), ask(t.Context(), math.NaN()), ask(t.Context(), 2)
		leave()
		require.Equal(t, answer{err: context.Canceled}, a())
		noResult("NaN")(t, b().err)
		require.Equal(t, answer{value: 2}, c())
	})
}

// An observer that is told of a probe and calls Goexit ends the batch's goroutine: its
// keys have an error, and Shutdown does not wait for it.
func TestS66_AnObserverThatExits(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{SleepWindow: time.Second})
		get := firebreak.Collapse(p.cmd, loadDoubles)
		trip(t, p.cmd)
		remove := p.reg.Observe(firebreak.Observer{Transition: func(firebreak.Transition) { runtime.Goexit() }})
		time.Sleep(time.Second)
		all := askAll(t.Context(), get, 1, 2)
		panics(nil)(t, all[0].err)
		require.Equal(t, all[0], all[1])
		remove()
		v, err := get(t.Context(), 3)
		require.NoError(t, err, "the probe's place is free")
		require.Equal(t, 6, v)
	})
}

// The sums, at rest, of many who ask at once, in scopes and none, and leave.
func TestS66_ManyAtOnce(t *testing.T) {
	for _, in := range []firebreak.Isolation{semaphores, pools} {
		t.Run(in.String(), func(t *testing.T) {
			const callers, each, keys, most = 8, 150, 7, 4
			p := newPlace(t, in, firebreak.Config{
				MaxConcurrent: firebreak.Unlimited, ErrorThresholdPercentage: firebreak.Off, BatchWindow: 200 * time.Microsecond, MaxBatch: most, Timeout: time.Minute,
			})
			var batches, asked, got, left atomic.Int64
			get := firebreak.Collapse(p.cmd, func(_ context.Context, keys []string) (map[string]int, error) {
				batches.Add(1)
				assert.LessOrEqual(t, len(keys), most)
				assert.NotEmpty(t, keys)
				values := map[string]int{}
				for _, key := range keys {
					n, err := strconv.Atoi(key)
					assert.NoError(t, err)
					values[key] = 2 * n
				}
				slices.Sort(keys)
				assert.Equal(t, keys, slices.Compact(slices.Clone(keys)), "each key once")
				return values, nil
			})
			scopes := []context.Context{t.Context(), firebreak.WithScope(t.Context()), firebreak.WithScope(t.Context())}
			var all sync.WaitGroup
			for n := range callers {
				all.Go(func() {
					for i := range each {
						ctx, cancel := context.WithCancel(scopes[(n+i)%len(scopes)])
						if i%5 == 0 {
							go cancel()
						}
						asked.Add(1)
						v, err := get(ctx, strconv.Itoa(i%keys))
						if err == nil {
							assert.Equal(t, 2*(i%keys), v)
							got.Add(1)
						} else {
							assert.ErrorIs(t, err, context.Canceled)
							left.Add(1)
						}
						cancel()
					}
				})
			}
			all.Wait()
			require.NoError(t, p.reg.Shutdown(t.Context()), "what nobody waits for any more may be on its way")
			c := total(p.cmd)
			require.Equal(t, asked.Load(), got.Load()+left.Load())
			require.Equal(t, batches.Load(), int64(c.Executed()))
			require.LessOrEqual(t, got.Load(), int64(c.Collapsed))
			require.LessOrEqual(t, int64(c.Collapsed+c.GaveUp), 2*asked.Load())
			require.LessOrEqual(t, int64(c.Collapsed), asked.Load())
		})
	}
}

// The collapser against a reference: batches by scope, with their keys and askers, and
// when they leave.
type collapseModel struct {
	d         *depot
	get       func(context.Context, int) (int, error)
	scopes    []context.Context
	most      int
	pool      bool
	open      map[int]*refBatch // by scope
	running   []*refBatch       // in the order in which they left
	began     time.Time
	steps     time.Duration
	batches   int
	collapsed uint64
	outcomes  map[string]uint64
}

type refBatch struct {
	first  int // its number as a scope
	leaves time.Time
	keys   []int
	askers []*refAsker
	real   *depotLoad
}

type refAsker struct {
	key   int
	leave context.CancelFunc
	a     atomic.Pointer[answer]
}

// step keeps what a test does apart from the ends of windows, which fall on halves of a
// millisecond.
func (m *collapseModel) step() {
	m.steps++
	time.Sleep(m.steps + time.Millisecond - time.Since(m.began)%time.Millisecond)
	m.leaveOnes()
}

const refBatchWindow = 10*time.Millisecond + 500*time.Microsecond

// leaveOnes finds the loads of batches whose window is over.
func (m *collapseModel) leaveOnes() {
	synctest.Wait()
	over := slices.SortedFunc(maps.Keys(m.open), func(a, b int) int { return m.open[a].leaves.Compare(m.open[b].leaves) })
	for _, scope := range over {
		if b := m.open[scope]; !b.leaves.After(time.Now()) {
			m.left(scope, b.leaves)
		}
	}
}

func (m *collapseModel) left(scope int, at time.Time) {
	b := m.open[scope]
	delete(m.open, scope)
	m.batches++
	m.collapsed += uint64(len(b.askers))
	m.running = append(m.running, b)
	b.real = m.d.began()[m.batches-1]
	if !b.real.at.Equal(at) {
		panic(fmt.Sprintf("left at %v, not %v", b.real.at, at))
	}
}

func (m *collapseModel) ask(t *rapid.T) {
	m.step()
	scope := rapid.IntRange(0, len(m.scopes)-1).Draw(t, "scope")
	asker := &refAsker{key: rapid.IntRange(1, 4).Draw(t, "key")}
	var ctx context.Context
	ctx, asker.leave = context.WithCancel(m.scopes[scope])
	go func() {
		a := answerOf(func() (int, error) { return m.get(ctx, asker.key) })
		asker.a.Store(&a)
	}()
	synctest.Wait()
	b := m.open[scope]
	if b == nil {
		b = &refBatch{first: scope, leaves: time.Now().Add(refBatchWindow)}
		m.open[scope] = b
	}
	b.askers = append(b.askers, asker)
	if !slices.Contains(b.keys, asker.key) {
		b.keys = append(b.keys, asker.key)
	}
	if len(b.keys) == m.most {
		m.left(scope, time.Now())
	}
}

func (m *collapseModel) leave(t *rapid.T) {
	m.step()
	all := slices.Clone(m.running)
	for _, scope := range slices.Sorted(maps.Keys(m.open)) {
		all = append(all, m.open[scope])
	}
	all = slices.DeleteFunc(all, func(b *refBatch) bool { return len(b.askers) == 0 })
	if len(all) == 0 {
		return
	}
	b := rapid.SampledFrom(all).Draw(t, "batch")
	i := rapid.IntRange(0, len(b.askers)-1).Draw(t, "asker")
	asker := b.askers[i]
	b.askers = slices.Delete(b.askers, i, i+1)
	asker.leave()
	synctest.Wait()
	require.Equal(t, answer{err: context.Canceled}, *asker.a.Load())
	if b.real != nil {
		return
	}
	if !slices.ContainsFunc(b.askers, func(a *refAsker) bool { return a.key == asker.key }) {
		b.keys = slices.DeleteFunc(b.keys, func(key int) bool { return key == asker.key })
	}
	if len(b.askers) == 0 {
		delete(m.open, b.first)
	}
}

func (m *collapseModel) end(t *rapid.T) {
	m.step()
	if len(m.running) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.running)-1).Draw(t, "batch")
	b := m.running[i]
	m.running = slices.Delete(m.running, i, i+1)
	values, errs, want := map[int]int{}, firebreak.KeyErrors[int]{}, map[int]error{}
	for key := 1; key <= 4; key++ {
		switch rapid.IntRange(0, 3).Draw(t, "result") {
		case 0:
			errs[key] = fmt.Errorf("%d of %d", key, i)
			want[key] = errs[key]
		case 1:
			want[key] = firebreak.ErrNoResult
		default:
			values[key] = 1000*m.batches + 10*len(b.keys) + key
		}
	}
	var err error
	outcome := "Success"
	switch rapid.IntRange(0, 2).Draw(t, "error") {
	case 0:
		err, outcome = errs, "Expected"
	case 1:
		err, outcome = errBoom, "Failure"
		m.outcomes["FallbackMissing"]++
		for key := range 5 {
			want[key] = errBoom
		}
	case 2:
		for key := range errs {
			want[key] = firebreak.ErrNoResult
		}
	}
	if len(b.askers) == 0 && (m.pool || err != nil) {
		if outcome == "Failure" {
			m.outcomes["FallbackMissing"]--
		}
		outcome = "Canceled"
	}
	m.outcomes[outcome]++
	b.real.ends(loads(values, err))
	for _, asker := range b.askers {
		a := *asker.a.Load()
		if want := want[asker.key]; want != nil {
			require.ErrorIs(t, a.err, want)
			require.Zero(t, a.value)
		} else {
			require.Equal(t, answer{value: values[asker.key]}, a)
		}
		asker.leave()
	}
}

func (m *collapseModel) check(t *rapid.T) {
	m.leaveOnes()
	require.Len(t, m.d.began(), m.batches)
	for _, b := range m.running {
		require.Equal(t, b.keys, b.real.keys)
		require.LessOrEqual(t, len(b.keys), m.most)
		require.Equal(t, len(b.askers) == 0, b.real.ctx.Err() != nil, "a batch is ended when nobody waits, and only then")
		for _, asker := range b.askers {
			require.Nil(t, asker.a.Load())
		}
	}
	for _, b := range m.open {
		require.NotEmpty(t, b.keys)
		require.Less(t, len(b.keys), m.most)
	}
}

// S66, S67 at large: each asker has one answer, of its own key and its own batch; a
// batch leaves when it is full or its window is over, to the nanosecond, with the keys
// that somebody waits for, each once; it is ended when nobody waits, and only then.
func TestS66_Model(t *testing.T) {
	for _, in := range []firebreak.Isolation{semaphores, pools} {
		t.Run(in.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				rapid.SyncTest(t, func(t *rapid.T) {
					m := &collapseModel{d: &depot{}, open: map[int]*refBatch{}, began: time.Now(), outcomes: map[string]uint64{}, pool: in == pools}
					m.most = rapid.IntRange(2, 4).Draw(t, "most")
					reg := firebreak.NewRegistry(firebreak.Config{
						Isolation: in, Timeout: firebreak.Off, MaxConcurrent: firebreak.Unlimited, ErrorThresholdPercentage: firebreak.Off,
						BatchWindow: refBatchWindow, MaxBatch: m.most,
					})
					cmd := reg.Command("dep", firebreak.Config{})
					m.get = firebreak.Collapse(cmd, m.d.load)
					scope := firebreak.WithScope(context.Background())
					m.scopes = []context.Context{context.Background(), scope, firebreak.WithScope(scope)}
					defer func() { // nothing is left, also of a check that fails
						for _, b := range m.open {
							m.running = append(m.running, b)
						}
						for _, b := range m.running {
							for _, asker := range b.askers {
								asker.leave()
							}
						}
						synctest.Wait()
						for _, l := range m.d.began() {
							select {
							case l.end <- loads(nil, nil):
							default:
							}
						}
					}()
					t.Repeat(map[string]func(*rapid.T){
						"ask": m.ask, "ask too": m.ask, "leave": m.leave, "end": m.end,
						"wait": func(t *rapid.T) {
							time.Sleep(time.Duration(rapid.IntRange(1, 12).Draw(t, "ms")) * time.Millisecond)
							m.leaveOnes()
						},
						"": m.check,
					})
					for len(m.running) > 0 {
						m.end(t)
					}
					var batches uint64
					for what, n := range m.outcomes { // each call is one
						if !strings.HasPrefix(what, "Fallback") {
							batches += n
						}
					}
					m.outcomes["Batches"], m.outcomes["Collapsed"] = batches, m.collapsed
					maps.DeleteFunc(m.outcomes, func(_ string, n uint64) bool { return n == 0 })
					require.Equal(t, m.outcomes, counted(firebreak.Counts{}, total(cmd)))
				})
			})
		})
	}
}

// How large batches were, of the last minute: their keys, not their askers.
func TestBatchSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		k := reg.Dependency("dep", firebreak.Config{}).Keyed("k", 2, firebreak.Config{})
		cmd := k.Command("a")
		get := firebreak.Collapse(cmd, func(_ context.Context, keys []int) (map[int]int, error) { return map[int]int{}, nil })
		batchOf := func(keys int) {
			var asking sync.WaitGroup
			for key := range keys {
				for range 2 {
					asking.Go(func() { _, _ = get(t.Context(), key) })
				}
			}
			asking.Wait()
		}
		require.Zero(t, cmd.Snapshot().BatchSizes)
		require.Zero(t, k.Snapshot().BatchSizes)
		for keys := 1; keys <= 30; keys++ {
			batchOf(keys)
		}
		s := cmd.Snapshot()
		require.EqualValues(t, 30, s.Total.Batches)
		require.EqualValues(t, 30, s.Window.Calls())
		require.EqualValues(t, 2*30*31/2, s.Total.Collapsed)
		require.InDelta(t, 15.5, s.BatchSizes.Mean, 1e-9)
		want := firebreak.Sizes{Mean: s.BatchSizes.Mean, Min: 1, P25: 8, P50: 15, P75: 23, P90: 27, P95: 29, P99: 30, P995: 30, Max: 30}
		require.Equal(t, want, s.BatchSizes)
		require.Equal(t, want, k.Snapshot().BatchSizes)
		require.Zero(t, testing.AllocsPerRun(10, func() { _ = cmd.Snapshot() }))

		batchOf(1000)
		require.InDelta(t, 1000, cmd.Snapshot().BatchSizes.Max, 16)
		time.Sleep(time.Minute)
		require.Zero(t, cmd.Snapshot().BatchSizes)
		require.EqualValues(t, 31, cmd.Snapshot().Total.Batches)
		batchOf(3)
		require.Equal(t, 3, cmd.Snapshot().BatchSizes.Max)
	})
}

// S67: what a call came to stands above what load said of single keys: after the
// deadline, and where load's error was marked a failure that no fallback mends.
func TestS67_TheCallsOwnErrorIsEveryKeys(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{Timeout: time.Second})
		ofOne := firebreak.KeyErrors[int]{2: errBoom}
		for name, row := range map[string]struct {
			load   func(context.Context, []int) (map[int]int, error)
			reason error
		}{
			"late": {func(context.Context, []int) (map[int]int, error) {
				time.Sleep(2 * time.Second)
				return map[int]int{1: 1}, ofOne
			}, firebreak.ErrTimeout},
			"failed": {func(context.Context, []int) (map[int]int, error) {
				return map[int]int{1: 1}, firebreak.Mark(ofOne, firebreak.Failure)
			}, firebreak.ErrFailed},
		} {
			get := firebreak.Collapse(p.cmd, row.load, func(context.Context, []int, error) (map[int]int, error) {
				return nil, errors.New("nor has the fallback")
			})
			values, err := firebreak.Gather(t.Context(), []int{1, 2}, firebreak.Unlimited, get)
			require.Empty(t, values, name)
			keys, ok := errors.AsType[firebreak.KeyErrors[int]](err)
			require.True(t, ok, name)
			require.Len(t, keys, 2, name)
			for key, err := range keys {
				require.ErrorIs(t, err, row.reason, "%s: %d", name, key)
				require.ErrorContains(t, err, "nor has the fallback", "%s: %d", name, key)
			}
			time.Sleep(time.Minute) // a pool's late run ends
		}
	})
}
