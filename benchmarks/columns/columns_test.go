package columns_test

import (
	"bytes"
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
)

// A time next to a column's name says nothing unless the column has done the work that
// its Does claims: no more in these tests than in the scenarios, and no less.

func TestValue(t *testing.T) {
	each(t, func(t *testing.T, column columns.Column, mode columns.Mode) {
		g := ready(t, column, columns.Spec{Mode: mode, Run: func(context.Context) (int, error) { return 5, nil }})
		v, err := g.Call(t.Context())
		require.NoError(t, err)
		require.Equal(t, 5, v)
	})
}

func TestErrorIsRuns(t *testing.T) {
	each(t, func(t *testing.T, column columns.Column, mode columns.Mode) {
		g := ready(t, column, columns.Spec{Mode: mode, Run: fail})
		_, err := g.Call(t.Context())
		require.ErrorIs(t, err, columns.ErrBoom)
	})
}

func TestFallbackAnswers(t *testing.T) {
	each(t, func(t *testing.T, column columns.Column, mode columns.Mode) {
		if mode == columns.BreakerOnly {
			return // fallbacks are not asked for there
		}
		g := ready(t, column, columns.Spec{Mode: mode, Run: fail, Fallback: true})
		v, err := g.Call(t.Context())
		require.NoError(t, err)
		require.Equal(t, columns.FallbackValue, v)
	})
}

func TestWithoutTripsTheCircuitStaysClosed(t *testing.T) {
	each(t, func(t *testing.T, column columns.Column, mode columns.Mode) {
		var runs atomic.Int64
		g := ready(t, column, columns.Spec{Mode: mode, Run: counted(&runs, fail)})
		const calls = 2000 // enough for hystrix-go to judge, behind the caller's back
		for range calls {
			_, err := g.Call(t.Context())
			require.ErrorIs(t, err, columns.ErrBoom)
		}
		require.EqualValues(t, calls, runs.Load())
	})
}

func TestOpenCircuitRefuses(t *testing.T) {
	each(t, func(t *testing.T, column columns.Column, mode columns.Mode) {
		var runs atomic.Int64
		g := ready(t, column, columns.Spec{Mode: mode, Run: counted(&runs, fail), Trips: true})
		refused := func() bool {
			before := runs.Load()
			_, err := g.Call(t.Context())
			require.Error(t, err)
			return runs.Load() == before
		}
		if g.Does.Breaker == "" {
			for range 100 {
				require.False(t, refused(), "there is no breaker")
			}
			return
		}
		require.False(t, refused(), "closed at first")
		require.Eventually(t, refused, 2*time.Second, time.Millisecond)
		for range 100 {
			require.True(t, refused(), "for an hour")
		}
	})
}

func TestFullBulkheadRefuses(t *testing.T) {
	each(t, func(t *testing.T, column columns.Column, mode columns.Mode) {
		if mode == columns.BreakerOnly {
			return
		}
		const limit = 2
		var runs atomic.Int64
		inside, leave := make(chan struct{}), make(chan struct{})
		g := ready(t, column, columns.Spec{Mode: mode, MaxConcurrent: limit, Run: func(context.Context) (int, error) {
			runs.Add(1)
			inside <- struct{}{}
			<-leave
			return 1, nil
		}})
		if g.Does.Limit == "" {
			return
		}
		left := make(chan struct{})
		for range limit {
			go func() {
				defer func() { left <- struct{}{} }()
				for { // with its short wait, go-resiliency rejects by chance
					if v, err := g.Call(context.Background()); err == nil && v == 1 {
						return
					}
				}
			}()
			<-inside
		}
		for range 20 {
			_, err := g.Call(t.Context())
			require.Error(t, err)
		}
		require.EqualValues(t, limit, runs.Load())
		close(leave)
		for range limit {
			<-left
		}
	})
}

func TestTimeout(t *testing.T) {
	const timeout = 20 * time.Millisecond
	each(t, func(t *testing.T, column columns.Column, mode columns.Mode) {
		if mode == columns.BreakerOnly {
			return
		}
		var over atomic.Bool
		deaf := make(chan struct{})
		g := ready(t, column, columns.Spec{Mode: mode, Timeout: timeout, Run: func(ctx context.Context) (int, error) {
			defer over.Store(true)
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-deaf:
				return 0, columns.ErrBoom
			}
		}})
		switch g.Does.Timeout {
		case "context":
			start := time.Now()
			_, err := g.Call(t.Context())
			require.Error(t, err)
			require.True(t, over.Load(), "the caller was back before run")
			assert.GreaterOrEqual(t, time.Since(start), timeout)
		case "leaves":
			g := ready(t, column, columns.Spec{Mode: mode, Timeout: timeout, Run: func(context.Context) (int, error) {
				<-deaf
				over.Store(true)
				return 1, nil
			}})
			start := time.Now()
			_, err := g.Call(t.Context())
			require.Error(t, err)
			require.False(t, over.Load(), "the caller has waited for run")
			assert.GreaterOrEqual(t, time.Since(start), timeout)
		default:
			require.Empty(t, g.Does.Timeout)
		}
		close(deaf)
	})
}

func TestWhereRunIsCalled(t *testing.T) {
	each(t, func(t *testing.T, column columns.Column, mode columns.Mode) {
		var by []byte
		g := ready(t, column, columns.Spec{Mode: mode, Run: func(context.Context) (int, error) {
			by = goroutine()
			return 1, nil
		}})
		_, err := g.Call(t.Context())
		require.NoError(t, err)
		require.Equal(t, g.Does.Runs == "caller", bytes.Equal(by, goroutine()))
	})
}

func TestFleet(t *testing.T) {
	for _, column := range columns.All() {
		if column.Fleet == nil {
			continue
		}
		t.Run(column.Name, func(t *testing.T) {
			var runs atomic.Int64
			run := func(context.Context) (int, error) { runs.Add(1); return 5, nil }
			f := column.Fleet([]string{"a", "b", "c"}, columns.Spec{Mode: columns.Everything, Run: run, MaxConcurrent: 10, Timeout: time.Second, Fallback: true})
			defer f.Close()
			for _, name := range []string{"a", "b", "c", "a"} {
				v, err := f.Call(t.Context(), name)
				require.NoError(t, err)
				require.Equal(t, 5, v)
			}
			require.EqualValues(t, 4, runs.Load())
			if f.Snapshot != nil {
				require.Positive(t, f.Snapshot())
			}
		})
	}
}

// each is a test of every column in every mode that it has.
func each(t *testing.T, test func(t *testing.T, column columns.Column, mode columns.Mode)) {
	for _, column := range columns.All() {
		if column.New == nil {
			continue
		}
		for _, mode := range []columns.Mode{columns.BreakerOnly, columns.Everything, columns.Pool} {
			if g := column.New(columns.Spec{Mode: mode, MaxConcurrent: 1, Timeout: time.Second}); g == nil {
				continue
			} else if g.Close != nil {
				g.Close()
			}
			t.Run(column.Name+"/"+mode.String(), func(t *testing.T) { test(t, column, mode) })
		}
	}
}

func ready(t *testing.T, column columns.Column, s columns.Spec) *columns.Guard {
	t.Helper()
	if s.MaxConcurrent == 0 {
		s.MaxConcurrent = 100
	}
	if s.Timeout == 0 {
		s.Timeout = time.Minute
	}
	g := column.New(s)
	require.NotNil(t, g)
	if g.Close != nil {
		t.Cleanup(g.Close)
	}
	return g
}

func fail(context.Context) (int, error) { return 0, columns.ErrBoom }

func counted(n *atomic.Int64, run columns.Run) columns.Run {
	return func(ctx context.Context) (int, error) {
		n.Add(1)
		return run(ctx)
	}
}

// goroutine is the line that a stack begins with: goroutine 7 [running]:.
func goroutine() []byte {
	stack := make([]byte, 64)
	line, _, _ := bytes.Cut(stack[:runtime.Stack(stack, false)], []byte(" ["))
	return line
}
