package floor

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSnapshotAddsUpTheShards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(8)
		run := func(d time.Duration, err error) func(context.Context) (int, error) {
			return func(context.Context) (int, error) { time.Sleep(d); return 1, err }
		}
		for shard := range 8 {
			for range 9 {
				_, err := c.Call(t.Context(), shard, run(time.Millisecond, nil))
				require.NoError(t, err)
			}
			_, err := c.Call(t.Context(), shard, run(100*time.Millisecond, errors.New("boom")))
			require.Error(t, err)
		}
		s := c.Snapshot()
		require.EqualValues(t, 72, s.Successes)
		require.EqualValues(t, 8, s.Failures)
		require.Zero(t, s.InFlight)
		require.InEpsilon(t, time.Millisecond, s.P50, 0.25)
		require.InEpsilon(t, 100*time.Millisecond, s.P99, 0.25)

		_, _ = c.Call(t.Context(), 3, func(context.Context) (int, error) {
			require.EqualValues(t, 1, c.Snapshot().InFlight)
			return 1, nil
		})
	})
}

func TestWindowForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(1)
		call := func() { _, _ = c.Call(t.Context(), 0, func(context.Context) (int, error) { return 1, nil }) }
		call()
		time.Sleep(9 * time.Second)
		call()
		require.EqualValues(t, 2, c.Snapshot().Successes)
		time.Sleep(time.Second)
		require.EqualValues(t, 1, c.Snapshot().Successes)
		time.Sleep(time.Hour)
		require.Zero(t, c.Snapshot().Successes)
		call()
		require.EqualValues(t, 1, c.Snapshot().Successes)
	})
}

func TestBucketsHaveTheirLowerEdge(t *testing.T) {
	for b := range buckets {
		require.Equal(t, b, bucket(lower(b)))
	}
	require.Equal(t, buckets-1, bucket(time.Hour))
}

func TestSnapshotAllocatesNothing(t *testing.T) {
	c := New(8)
	require.Zero(t, testing.AllocsPerRun(100, func() { c.Snapshot() }))
}
