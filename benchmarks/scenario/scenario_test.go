package scenario

import (
	"context"
	"flag"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
)

// repeats makes the loops short: what is found is tested here, not how fast.
func repeats(t *testing.T, times string) {
	t.Helper()
	require.NoError(t, flag.Set("test.benchtime", times+"x"))
}

// What takes seconds is left to bench.
func TestEveryColumnDoesWhatTheScenarioSays(t *testing.T) {
	for _, s := range All() {
		if s.Heavy || s.Name == "name/10000" || s.By == LateP50 {
			continue
		}
		_, ok := columns.Named(s.Reference)
		require.True(t, ok, s.Reference)
		for _, column := range columns.All() {
			t.Run(s.Name+"/"+column.Name, func(t *testing.T) {
				repeats(t, map[bool]string{true: "3", false: "200"}[s.Name == "snapshot" || s.Name == "scrape" || s.Name == "gather/1ms"])
				m, err := s.Measure(column)
				require.NoError(t, err)
				if m == nil {
					require.NotEqual(t, s.Reference, column.Name, "the others are divided by it")
					return
				}
				for _, unit := range s.Units {
					require.Contains(t, m, unit)
				}
				if column.Name != "hystrix-go" && column.Name != "go-resiliency" { // they reject by chance now and then
					require.Zero(t, m[Wrong])
				}
			})
		}
	}
}

func TestEveryColumnIsLateAndNeverEarly(t *testing.T) {
	for _, l := range []lateness{{mode: columns.Everything, callers: 1, rounds: 1}, {mode: columns.Pool, callers: 20, rounds: 1}} {
		for _, column := range columns.All() {
			t.Run(l.mode.String()+"/"+column.Name, func(t *testing.T) {
				m, err := l.measure(column)
				require.NoError(t, err)
				if m == nil {
					require.NotEqual(t, "by-hand", column.Name, "the others are divided by it")
					return
				}
				require.Zero(t, m[Early])
				require.Positive(t, m[LateP50])
				if l.mode == columns.Pool && column.Name != "failsafe-go" {
					require.Less(t, m[LateP50], milliseconds(taken-wanted)*0.9, "the caller has waited for run")
				}
			})
		}
	}
}

func TestAllocationsAreRight(t *testing.T) {
	repeats(t, "200")
	s, _ := Named("success/serial")
	m, err := s.Measure(fake(func(ctx context.Context, run columns.Run) (int, error) {
		sink.Store(new([48]byte))
		return run(ctx)
	}))
	require.NoError(t, err)
	require.InDelta(t, 1, m[Allocs], 0.2)
	require.InDelta(t, 48, m[Bytes], 10)
}

var sink atomic.Pointer[[48]byte]

func TestOtherOutcomesAreSeen(t *testing.T) {
	repeats(t, "200")
	s, _ := Named("success/serial")
	n := 0
	m, err := s.Measure(fake(func(ctx context.Context, run columns.Run) (int, error) {
		if n++; n%2 == 0 {
			return 0, columns.ErrBoom
		}
		return run(ctx)
	}))
	require.NoError(t, err)
	require.InDelta(t, 0.5, m[Wrong], 0.01)

	_, err = s.Measure(fake(func(context.Context, columns.Run) (int, error) { return 2, nil }))
	require.ErrorContains(t, err, "the first call ended with 2 and the error \"<nil>\"")
}

func TestRefusalsThatReachRunAreSeen(t *testing.T) {
	repeats(t, "200")
	s, _ := Named("open/serial")
	n := 0
	m, err := s.Measure(fake(func(ctx context.Context, run columns.Run) (int, error) {
		if n++; n > 10 { // open at first, and then it is not
			_, _ = run(ctx)
		}
		return 0, columns.ErrBoom
	}))
	require.NoError(t, err)
	require.InDelta(t, 1, m[Wrong], 0.01)
}

func TestEarlyCallersAreSeen(t *testing.T) {
	l := lateness{mode: columns.Everything, callers: 2, rounds: 2}
	m, err := l.measure(fake(func(context.Context, columns.Run) (int, error) { return 0, context.DeadlineExceeded }))
	require.NoError(t, err)
	require.Equal(t, 4, int(m[Early]))
	require.Negative(t, m[LateP50])

	m, err = l.measure(fake(func(ctx context.Context, run columns.Run) (int, error) { return run(ctx) }))
	require.NoError(t, err)
	require.Zero(t, m[Early])
	require.Greater(t, m[LateP50], milliseconds(taken-wanted)-1)
}

// fake is a column that claims to do everything, on the caller's goroutine.
func fake(call func(ctx context.Context, run columns.Run) (int, error)) columns.Column {
	return columns.Column{Name: "fake", New: func(s columns.Spec) *columns.Guard {
		return &columns.Guard{
			Does: columns.Does{Timeout: "context", Limit: "yes", Breaker: "yes", Fallback: "library", Runs: "caller"},
			Call: func(ctx context.Context) (int, error) { return call(ctx, s.Run) },
		}
	}}
}
