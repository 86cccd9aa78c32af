package shard

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestIndexIsBelowN(t *testing.T) {
	for _, n := range []uint32{1, 2, 3, 8, 1000, 1<<32 - 1} {
		require.Less(t, Index(n), n)
	}
	require.Zero(t, Index(0))
}

// Goroutines that live at the same time have different stacks, so that 256 of
// them are as good as certain to fall in half of the places at least.
func TestGoroutinesAreSpread(t *testing.T) {
	const goroutines, n = 256, 8
	var (
		mu      sync.Mutex
		seen    = map[uint32]int{}
		all     sync.WaitGroup
		started sync.WaitGroup
	)
	started.Add(goroutines)
	for range goroutines {
		all.Go(func() {
			i := Index(n)
			mu.Lock()
			seen[i]++
			mu.Unlock()
			started.Done()
			started.Wait() // nobody leaves a stack to the next
		})
	}
	all.Wait()
	require.GreaterOrEqual(t, len(seen), n/2, "%v", seen)
}

func TestIndexAllocatesNothing(t *testing.T) {
	require.Zero(t, testing.AllocsPerRun(100, func() { Index(8) }))
}

var sink uint32

func BenchmarkIndex(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		sink = Index(8)
	}
}
