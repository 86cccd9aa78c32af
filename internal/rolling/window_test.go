package rolling

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/firebreak-go/firebreak/internal/mono"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const second = mono.Time(time.Second)

func TestWindowIsTheNewestBucketAndNineBefore(t *testing.T) {
	w := NewWindow(10 * time.Second)
	require.Zero(t, w.Sum(0))
	w.Add(0, false, false)
	w.Add(second-1, true, false)
	w.Add(second, true, true)
	w.Add(5*second, false, true)
	all := Totals{Good: 2, Bad: 2, Slow: 2}
	require.Equal(t, all, w.Sum(5*second))
	require.Equal(t, all, w.Sum(10*second-1))
	require.Equal(t, Totals{Good: 1, Bad: 1, Slow: 2}, w.Sum(10*second))
	require.Equal(t, Totals{Good: 1, Slow: 1}, w.Sum(11*second))
	require.Equal(t, Totals{Good: 1, Slow: 1}, w.Sum(15*second-1))
	require.Zero(t, w.Sum(15*second))
	require.Equal(t, all, w.Sum(5*second), "a reading moved the window")
}

func TestTimeThatGoesBack(t *testing.T) {
	w := NewWindow(10 * time.Second)
	w.Add(100*second, true, false)
	w.Add(95*second, true, false) // counts in the newest
	require.Equal(t, Totals{Bad: 2}, w.Sum(110*second-1-second))
	require.Equal(t, Totals{Bad: 2}, w.Sum(90*second))
	require.Zero(t, w.Sum(90*second-1), "more than a window back it is empty")

	w.Add(100*second-mono.Time(26*365*24*time.Hour), false, false)
	require.Equal(t, Totals{Good: 1}, w.Sum(100*second-mono.Time(26*365*24*time.Hour)))
	require.Zero(t, w.Sum(100*second), "what was before is gone for good")
}

func TestWindowShorterThanItsBuckets(t *testing.T) {
	for _, window := range []time.Duration{3, 0, -1} {
		w := NewWindow(window)
		w.Add(0, true, false)
		require.Equal(t, Totals{Bad: 1}, w.Sum(9))
		require.Zero(t, w.Sum(10))
	}
}

// The lower half of the packed word carries into the upper one while a window
// holds outcomes of before and after; the upper half, and the slow word, go over
// the top.
func TestTotalsAreExactWhenCountersCarry(t *testing.T) {
	for _, start := range []counts{
		{outcomes: 1<<32 - 3, slow: math.MaxUint64 - 3},
		{outcomes: math.MaxUint64 - 3},
		{outcomes: math.MaxUint32<<32 + 7, slow: math.MaxUint64},
	} {
		w := NewWindow(10 * time.Second)
		w.first.outcomes.Store(start.outcomes)
		w.first.slow.Store(start.slow)
		require.Zero(t, w.Sum(0))
		want := Totals{}
		for n := range mono.Time(10) {
			w.Add(n*second, false, true)
			w.Add(n*second, true, false)
			w.Add(n*second, true, true)
			want.Good, want.Bad, want.Slow = want.Good+1, want.Bad+2, want.Slow+2
			require.Equal(t, want, w.Sum(n*second), "from %+v", start)
		}
		require.Equal(t, Totals{Good: 1, Bad: 2, Slow: 2}, w.Sum(18*second))
	}
}

// A bucket may begin when a call has counted its outcome and not yet that it was
// slow.
func TestSlowIsPartOfTheWhole(t *testing.T) {
	w := NewWindow(10 * time.Second)
	w.first.outcomes.Add(oneBad)
	w.Add(0, false, true)
	w.first.slow.Add(1)
	require.Equal(t, Totals{Good: 1, Slow: 1}, w.Sum(0))
}

// The most that a window bears, of both kinds at once.
func TestFullWindow(t *testing.T) {
	w := NewWindow(10 * time.Second)
	w.first.outcomes.Store(1<<63 + 12345)
	w.Add(0, false, false)
	w.first.outcomes.Add(math.MaxUint32 - 1)
	w.first.outcomes.Add(math.MaxUint32 << 32)
	require.Equal(t, Totals{Good: math.MaxUint32, Bad: math.MaxUint32}, w.Sum(0))
}

func TestCellsAreCountedToo(t *testing.T) {
	w := NewWindow(10 * time.Second)
	w.Add(0, true, false)
	cells := w.cells.make()
	require.Same(t, cells, w.cells.make())
	before := w.first.outcomes.Load()
	w.Add(second, false, true)
	require.Equal(t, before, w.first.outcomes.Load())
	for i := range cells {
		cells[i].add(oneBad, false)
	}
	require.Equal(t, Totals{Good: 1, Bad: 9, Slow: 1}, w.Sum(second))
	require.Equal(t, Totals{Good: 1, Bad: 8, Slow: 1}, w.Sum(10*second))
	w.Add(20*second, false, false)
	require.Equal(t, Totals{Good: 1}, w.Sum(20*second))
}

func checkWindow(t require.TestingT, length int64, start counts, steps []step) {
	w := NewWindow(Buckets * time.Duration(length))
	w.first.outcomes.Store(start.outcomes)
	w.first.slow.Store(start.slow)
	model := &naive{length: length, buckets: Buckets}
	for i, s := range steps {
		if s.add {
			w.Add(s.now, s.bad, s.slow)
			model.add(s.now, outcome{bad: s.bad, slow: s.slow})
		}
		if i == len(steps)/2 {
			w.cells.make()
		}
		require.Equal(t, model.sum(s.other), w.Sum(s.other), "at %d", s.other)
		require.Equal(t, model.sum(s.now), w.Sum(s.now), "at %d", s.now)
	}
}

func TestWindowAgainstAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		length := rapid.OneOf(rapid.Int64Range(1, 100), rapid.Int64Range(1, 1<<59)).Draw(t, "length")
		start := counts{rapid.Uint64().Draw(t, "outcomes"), rapid.Uint64().Draw(t, "slow")}
		checkWindow(t, length, start, script(scripts().Draw(t, "script"), length))
	})
}

func FuzzWindow(f *testing.F) {
	for _, seed := range seeds {
		f.Add(int64(time.Second), uint64(0), seed)
		f.Add(int64(1), uint64(1<<32-2), seed)
		f.Add(int64(1<<59), uint64(math.MaxUint64), seed)
	}
	f.Fuzz(func(t *testing.T, length int64, start uint64, data []byte) {
		length = max(length&(1<<59-1), 1)
		checkWindow(t, length, counts{start, start}, script(data, length))
	})
}

// I11: window totals are never negative and hold no expired bucket. All failures
// come in the first bucket; from when it has expired no reader may see one,
// whoever opens buckets, adds and reads at that moment. A negative total would be
// an enormous one.
func TestI11WindowTotalsAreNeverNegativeAndHoldNoExpiredBucket(t *testing.T) {
	const failures, successes, writers = 100, 20_000, 4
	for _, origin := range []mono.Time{0, -5 * second, -mono.Time(26 * 365 * 24 * time.Hour)} {
		w := NewWindow(10 * time.Second)
		for range failures {
			w.Add(origin, true, true)
		}
		require.Equal(t, Totals{Bad: failures, Slow: failures}, w.Sum(origin+10*second-1))
		require.Zero(t, w.Sum(origin+10*second))

		var clock atomic.Int64
		var writing, reading sync.WaitGroup
		var stop atomic.Bool
		clock.Store(int64(origin))
		for range writers {
			writing.Go(func() {
				for range successes {
					now := clock.Add(int64(time.Millisecond)) // 80 s in all
					w.Add(mono.Time(now), false, now%2 == 0)
				}
			})
		}
		for range 2 {
			reading.Go(func() {
				for !stop.Load() {
					now := mono.Time(clock.Load())
					sum := w.Sum(now)
					if sum.Bad > failures || sum.Good > writers*successes || sum.Slow > sum.Good+sum.Bad {
						t.Errorf("at %d: %+v", now, sum)
						return
					}
					if sum.Bad > 0 && now >= origin+10*second {
						t.Errorf("at %d, after the failures expired: %+v", now, sum)
						return
					}
				}
			})
		}
		writing.Wait()
		stop.Store(true)
		reading.Wait()
		require.Zero(t, w.Sum(mono.Time(clock.Load())+10*second))
	}
}

// Writers open buckets and collide, while readers see no less than what was added
// before they looked and no more than what was begun; in the end every outcome is
// there.
func TestConcurrentOutcomesAreAllCounted(t *testing.T) {
	const writers, each = 8, 10_000
	w := NewWindow(10 * time.Second)
	tick := int64(10*time.Second-1) / (writers * each) // within one window in all
	var clock atomic.Int64
	var began, added atomic.Uint64
	var writing, reading sync.WaitGroup
	var stop atomic.Bool
	for i := range writers {
		writing.Go(func() {
			for n := range each {
				began.Add(1)
				w.Add(mono.Time(clock.Add(tick)), (n+i)%4 == 0, n%2 == 0)
				added.Add(1)
			}
		})
	}
	for range 2 {
		reading.Go(func() {
			for !stop.Load() {
				least := added.Load()
				sum := w.Sum(mono.Time(clock.Load()))
				most := began.Load()
				if n := sum.Good + sum.Bad; n < least || n > most || sum.Slow > n {
					t.Errorf("%+v, where %d to %d were added", sum, least, most)
					return
				}
			}
		})
	}
	writing.Wait()
	stop.Store(true)
	reading.Wait()
	const all = writers * each
	require.Equal(t, Totals{Good: all * 3 / 4, Bad: all / 4, Slow: all / 2}, w.Sum(mono.Time(clock.Load())))
}

func TestWindowIsSmall(t *testing.T) {
	w := NewWindow(time.Second)
	require.LessOrEqual(t, unsafe.Sizeof(*w), uintptr(256))
	require.Equal(t, uintptr(128), unsafe.Sizeof(cell{}))
	if bits.UintSize == 64 {
		require.Equal(t, uintptr(256), unsafe.Sizeof(*w))
		require.Equal(t, uintptr(192), unsafe.Offsetof(w.ring), "what is read shares a cache line with what is written")
		require.Zero(t, uintptr(unsafe.Pointer(w))%64)
		require.Zero(t, uintptr(unsafe.Pointer(w.cells.make()))%128)
	}
}

func TestWindowAllocatesNothing(t *testing.T) {
	w := NewWindow(10 * time.Second)
	now := mono.Time(0)
	var sum Totals
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		w.Add(now, true, true)
		sum = w.Sum(now)
		now += second / 4
	}))
	require.Equal(t, uint64(9*4+1), sum.Bad)
}

var sink Totals

func BenchmarkWindowAdd(b *testing.B) {
	add := func(b *testing.B, bad, slow bool) {
		w := NewWindow(10 * time.Second)
		b.ReportAllocs()
		for b.Loop() {
			w.Add(5, bad, slow)
		}
	}
	b.Run("good", func(b *testing.B) { add(b, false, false) })
	b.Run("bad and slow", func(b *testing.B) { add(b, true, true) })
	b.Run("cells", func(b *testing.B) {
		w := NewWindow(10 * time.Second)
		w.cells.make()
		b.ReportAllocs()
		for b.Loop() {
			w.Add(5, false, false)
		}
	})
	b.Run("every bucket", func(b *testing.B) {
		w, now := NewWindow(10*time.Second), mono.Time(0)
		b.ReportAllocs()
		for b.Loop() {
			w.Add(now, false, false)
			now += second
		}
	})
	b.Run("parallel", func(b *testing.B) {
		w := NewWindow(10 * time.Second)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				w.Add(5, false, false)
			}
		})
	})
}

func BenchmarkWindowSum(b *testing.B) {
	sum := func(b *testing.B, w *Window, now mono.Time) {
		w.Add(5, false, false)
		b.ReportAllocs()
		for b.Loop() {
			sink = w.Sum(now)
		}
	}
	b.Run("one", func(b *testing.B) { sum(b, NewWindow(10*time.Second), 5) })
	b.Run("later", func(b *testing.B) { sum(b, NewWindow(10*time.Second), 5*second) })
	b.Run("cells", func(b *testing.B) {
		w := NewWindow(10 * time.Second)
		w.cells.make()
		sum(b, w, 5)
	})
}
