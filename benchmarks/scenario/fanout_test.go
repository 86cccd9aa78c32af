package scenario

import (
	"context"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
)

func measureFanOut(t *testing.T, name string, column columns.Column) (Metrics, error) {
	t.Helper()
	repeats(t, "20")
	s, ok := Named(name)
	require.True(t, ok)
	return s.Measure(column)
}

type gatherFunc = func(ctx context.Context, keys []string, limit int, fetch columns.Fetch) (map[string]int, map[string]error)

func one(ctx context.Context, keys []string, _ int, fetch columns.Fetch) (map[string]int, map[string]error) {
	values, errs := map[string]int{}, map[string]error{}
	for _, key := range keys {
		if v, err := fetch(ctx, key); err == nil {
			values[key] = v
		} else {
			errs[key] = err
		}
	}
	return values, errs
}

func gatherer(gather gatherFunc) columns.Column {
	return columns.Column{Name: "fake", Gather: &columns.Gatherer{Gather: gather}}
}

// Twenty keys are looked at, one in each round, and of any twenty in a row ten have odd
// values and two fail.
func TestWrongGathersAreSeen(t *testing.T) {
	const looked = 1.0 / roundOf
	for name, test := range map[string]struct {
		wrong float64
		spoil func(values map[string]int, errs map[string]error)
	}{
		"nothing":              {0, func(map[string]int, map[string]error) {}},
		"half are not there":   {0.5 + looked/2, func(values map[string]int, _ map[string]error) { maps.DeleteFunc(values, odd) }},
		"all values are wrong": {looked * 0.9, func(values map[string]int, _ map[string]error) { oneMore(values) }},
		"no errors":            {0.1 + looked*0.1, func(_ map[string]int, errs map[string]error) { clear(errs) }},
		"what failed is there": {looked * 0.1, func(values map[string]int, errs map[string]error) {
			for key := range errs {
				values[key] = 0
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			m, err := measureFanOut(t, "gather/failures", gatherer(func(ctx context.Context, keys []string, limit int, fetch columns.Fetch) (map[string]int, map[string]error) {
				values, errs := one(ctx, keys, limit, fetch)
				if n++; n > 2 { // the first is looked at whole, and the second by ready
					test.spoil(values, errs)
				}
				return values, errs
			}))
			require.NoError(t, err)
			require.InDelta(t, test.wrong, m[Wrong], 1e-9)
		})
	}

	_, err := measureFanOut(t, "gather/at-once", gatherer(func(ctx context.Context, keys []string, limit int, fetch columns.Fetch) (map[string]int, map[string]error) {
		values, errs := one(ctx, keys, limit, fetch)
		values[keys[77]]++
		return values, errs
	}))
	require.ErrorContains(t, err, "users:00077 came to 78")
}

func odd(_ string, v int) bool { return v%2 == 1 }

func oneMore(values map[string]int) {
	for key := range values {
		values[key]++
	}
}

// The units are per key, not per round.
func TestAllocationsAreOfOneAsk(t *testing.T) {
	values := map[string]int{}
	for _, key := range keys {
		values[key] = valueOf(key)
	}
	m, err := measureFanOut(t, "gather/at-once", gatherer(func(context.Context, []string, int, columns.Fetch) (map[string]int, map[string]error) {
		for range roundOf {
			sink.Store(new([48]byte))
		}
		return values, nil
	}))
	require.NoError(t, err)
	require.InDelta(t, 1, m[Allocs], 0.2)
	require.InDelta(t, 48, m[Bytes], 10)
	require.Positive(t, m[Wall])
}

func cache(get func(n int, fetch columns.Fetch) columns.Fetch) columns.Column {
	n := 0
	return columns.Column{Name: "fake", Cache: &columns.Cache{New: func(fetch columns.Fetch) *columns.Asks {
		return &columns.Asks{Begin: func(ctx context.Context) (context.Context, columns.Fetch) {
			n++
			return ctx, get(n, fetch)
		}}
	}}}
}

// A column that shares nothing fetches for each caller: 99 too many of 100.
func TestFetchesThatAreNotSharedAreSeen(t *testing.T) {
	column, _ := columns.Named("singleflight")
	m, err := measureFanOut(t, "cached/shared", columns.Column{Name: "fake", Cache: &columns.Cache{New: func(fetch columns.Fetch) *columns.Asks {
		asks, n := column.Cache.New(fetch), 0
		return &columns.Asks{Begin: func(ctx context.Context) (context.Context, columns.Fetch) {
			ctx, get := asks.Begin(ctx)
			if n++; n > 1 {
				get = fetch
			}
			return ctx, get
		}}
	}}})
	require.NoError(t, err)
	require.InDelta(t, 0.99, m[Wrong], 0.001)
}

func TestHitsThatAreFetchedAreSeen(t *testing.T) {
	for _, name := range []string{"cached/hits", "cached/hits-parallel"} {
		m, err := measureFanOut(t, name, cache(func(_ int, fetch columns.Fetch) columns.Fetch { return fetch }))
		require.NoError(t, err)
		require.InDelta(t, 1, m[Wrong], 0.001)
	}
}

func TestWrongValuesOfMissesAreSeen(t *testing.T) {
	m, err := measureFanOut(t, "cached/misses", cache(func(n int, fetch columns.Fetch) columns.Fetch {
		return func(ctx context.Context, key string) (int, error) {
			v, err := fetch(ctx, key)
			if n > 1 && v < 25 {
				v++
			}
			return v, err
		}
	}))
	require.NoError(t, err)
	require.InDelta(t, 0.25, m[Wrong], 0.001)
}

// A column that makes a batch of each key loads a hundred times where once would do.
func TestBatchesThatAreTooManyAreSeen(t *testing.T) {
	collapser := func(most func(batch int) int) columns.Column {
		column, _ := columns.Named("firebreak")
		return columns.Column{Name: "fake", Collapse: &columns.Collapser{New: func(s columns.Spec, b columns.Batch) *columns.Asks {
			b.Most = most(b.Most)
			return column.Collapse.New(s, b)
		}}}
	}
	_, err := measureFanOut(t, "collapse", collapser(func(batch int) int { return batch / 2 }))
	require.ErrorContains(t, err, "the first call ended with 99")
	_, err = measureFanOut(t, "collapse/kept", collapser(func(int) int { return 1 }))
	require.ErrorContains(t, err, "the first call ended with 101")
	m, err := measureFanOut(t, "collapse", collapser(func(batch int) int { return batch }))
	require.NoError(t, err)
	require.Zero(t, m[Wrong])
}
