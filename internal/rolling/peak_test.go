package rolling

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak/internal/mono"
)

func newPeak() *Peak {
	p := new(Peak)
	p.Init(10 * time.Second)
	return p
}

func TestPeakIsTheGreatestOfTheWindow(t *testing.T) {
	p := newPeak()
	require.Zero(t, p.Max(0))
	p.Note(0, 3)
	p.Note(1, 7)
	p.Note(2, 5)
	require.Equal(t, 7, p.Max(second-1))
	p.Note(second, 2) // the next bucket begins low
	p.Note(second+1, 4)
	require.Equal(t, 7, p.Max(10*second-1), "the first bucket is in the window for the last time")
	require.Equal(t, 4, p.Max(10*second))
	require.Equal(t, 4, p.Max(11*second-1))
	require.Zero(t, p.Max(11*second))
}

func TestPeakMovesNothingWhenRead(t *testing.T) {
	p := newPeak()
	p.Note(0, 3)
	require.Zero(t, p.Max(100*second))
	require.Equal(t, 3, p.Max(0))
}

func TestPeakBeginsAgainWithAnotherWindow(t *testing.T) {
	p := newPeak()
	p.Note(0, 3)
	p.Resize(20 * time.Second)
	require.Zero(t, p.Max(0))
	p.Note(0, 1)
	require.Equal(t, 1, p.Max(20*second-1))
	require.Zero(t, p.Max(20*second))
}

func TestPeakAgainstAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPeak()
		type note struct {
			bucket int64
			n      int
		}
		var notes []note
		now := mono.Time(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += mono.Time(rapid.Int64Range(0, int64(3*second)).Draw(t, "passes"))
			if rapid.Bool().Draw(t, "note") {
				n := rapid.IntRange(0, 50).Draw(t, "n")
				p.Note(now, n)
				notes = append(notes, note{int64(now / second), n})
			}
			want := 0
			for _, x := range notes {
				if x.bucket > int64(now/second)-Buckets {
					want = max(want, x.n)
				}
			}
			if got := p.Max(now); got != want {
				t.Fatalf("at %v: %d, want %d", time.Duration(now), got, want)
			}
		}
	})
}

// A number noted while a bucket begins used to be compared with the last bucket's
// maximum and lost. Every writer notes the greatest there is, so whenever all are
// done it must be there.
func TestPeakIsNotLostWhenABucketBegins(t *testing.T) {
	p := newPeak()
	for bucket := range mono.Time(2000) {
		p.Note(bucket*second, 9)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { p.Note((bucket+1)*second, 9) })
		}
		all.Wait()
		p.mu.Lock()
		got := p.most[p.ring.Load().Newest()]
		p.mu.Unlock()
		require.EqualValues(t, 9, got)
	}
}

func TestPeakAllocatesNothing(t *testing.T) {
	p := newPeak()
	require.Zero(t, testing.AllocsPerRun(100, func() { p.Note(0, 1); p.Max(0) }))
}
