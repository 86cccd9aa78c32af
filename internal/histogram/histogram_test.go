package histogram

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/firebreak-go/firebreak/internal/mono"
	"github.com/firebreak-go/firebreak/internal/rolling"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var all = [Slots]bool{true, true, true}

// A naive histogram keeps every latency: what is in the slots, and what was
// retired.
type naive struct {
	slots   [Slots][]time.Duration
	retired []time.Duration
}

func (n *naive) record(slot int, d time.Duration) { n.slots[slot] = append(n.slots[slot], max(d, 0)) }

func (n *naive) retire(slot int) {
	n.retired = append(n.retired, n.slots[slot]...)
	n.slots[slot] = nil
}

func (n *naive) sorted(live [Slots]bool) (ds []time.Duration) {
	for slot, in := range n.slots {
		if live[slot] {
			ds = append(ds, in...)
		}
	}
	slices.Sort(ds)
	return ds
}

func total(ds []time.Duration) *big.Int {
	sum := new(big.Int)
	for _, d := range ds {
		sum.Add(sum, big.NewInt(int64(d)))
	}
	return sum
}

// requireNear is the promise about every percentile: within 1/64, or 16 ns below
// 1,024.
func requireNear(t require.TestingT, want, got time.Duration, what string) {
	want = min(want, 1<<highest-1)
	if off := (got - want).Abs(); off > max(16, want/64) {
		require.Fail(t, "not near", "%s: want %d, got %d", what, want, got)
	}
}

// check holds what m says against sorted latencies, of which live percentiles are
// and all was ever recorded.
func check(t require.TestingT, m *Merge, live, ever []time.Duration) {
	p := m.Percentiles()
	if len(live) == 0 {
		require.Zero(t, p)
	} else {
		nearest := func(permille int) time.Duration { return live[max((len(live)*permille+999)/1000-1, 0)] }
		for _, c := range []struct {
			name     string
			permille int
			got      time.Duration
		}{
			{"Min", 0, p.Min},
			{"P25", 250, p.P25},
			{"P50", 500, p.P50},
			{"P75", 750, p.P75},
			{"P90", 900, p.P90},
			{"P95", 950, p.P95},
			{"P99", 990, p.P99},
			{"P995", 995, p.P995},
			{"Max", 1000, p.Max},
		} {
			requireNear(t, nearest(c.permille), c.got, c.name)
		}
		mean := total(live)
		mean.Div(mean, big.NewInt(int64(len(live))))
		if live[len(live)-1] < 1<<highest {
			requireNear(t, time.Duration(mean.Int64()), p.Mean, "Mean")
			if d := time.Duration(mean.Int64()); d > p.Min && d < p.Max {
				require.Equal(t, d, p.Mean)
			}
		}
		require.True(t, slices.IsSorted([]time.Duration{p.Min, p.P25, p.P50, p.P75, p.P90, p.P95, p.P99, p.P995, p.Max}), "%+v", p)
		require.True(t, p.Min <= p.Mean && p.Mean <= p.Max, "%+v", p)
	}

	c := m.Cumulative()
	require.Equal(t, uint64(len(ever)), c.Count)
	sum := total(ever)
	if !sum.IsInt64() {
		sum.SetInt64(math.MaxInt64)
	}
	require.Equal(t, sum.Int64(), int64(c.Sum))
	for i := range Bounds {
		below := uint64(0)
		for _, d := range ever {
			if d < Bound(i) {
				below++
			}
		}
		require.Equal(t, below, c.At(i), "below %v", Bound(i))
	}
}

func TestPercentilesOfKnownDistributions(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	logNormal := func(median time.Duration, sigma float64) func() time.Duration {
		return func() time.Duration { return time.Duration(float64(median) * math.Exp(sigma*rng.NormFloat64())) }
	}
	for name, draw := range map[string]func() time.Duration{
		"steady":          func() time.Duration { return 12345678 },
		"nearly steady":   func() time.Duration { return 100*time.Millisecond + time.Duration(rng.IntN(1000)) },
		"nothing":         func() time.Duration { return 0 },
		"negative":        func() time.Duration { return -time.Duration(rng.Int64()) },
		"nanoseconds":     func() time.Duration { return time.Duration(rng.IntN(1200)) },
		"microseconds":    logNormal(3*time.Microsecond, 0.5),
		"milliseconds":    logNormal(20*time.Millisecond, 1),
		"wide":            logNormal(10*time.Millisecond, 4),
		"hours":           func() time.Duration { return time.Duration(1+rng.IntN(100)) * time.Hour },
		"longer than all": func() time.Duration { return 1<<highest + time.Duration(rng.Int64N(1<<62)) },
		"bimodal": func() time.Duration {
			if rng.IntN(20) == 0 {
				return 2*time.Second + time.Duration(rng.IntN(1e6))
			}
			return 3*time.Millisecond + time.Duration(rng.IntN(1e6))
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{0, 1, 2, 3, 10, 199, 200, 201, 999, 1000, 1001, 20_000} {
				var h Histogram
				var kept naive
				for i := range n {
					d := draw()
					h.Record(i%Slots, d)
					kept.record(i%Slots, d)
				}
				var m Merge
				h.AddTo(&m, all)
				live := kept.sorted(all)
				check(t, &m, live, live)
			}
		})
	}
}

// Every nanosecond value next to an edge lands where the middle is near it, and
// buckets follow each other without a gap.
func TestBucketsOnBothSidesOfEachEdge(t *testing.T) {
	for e := range 63 {
		for _, d := range []time.Duration{1<<e - 1, 1 << e, 1<<e + 1, 1<<e + 1<<e>>1} {
			o, b := place(d)
			requireNear(t, d, middle(o, b), fmt.Sprint(int64(d)))
		}
	}
	edge := time.Duration(0) // where the next bucket has to begin
	for o := range octaves {
		if o > 0 {
			require.Equal(t, time.Duration(1)<<(linear+o-1), edge)
		}
		for b := range perOctave {
			first, last := middle(o, b)-1<<(width(o)-1), middle(o, b)+1<<(width(o)-1)-1
			require.Equal(t, edge, first)
			for _, d := range []time.Duration{first, last} {
				gotO, gotB := place(d)
				require.Equal(t, [2]int{o, b}, [2]int{gotO, gotB}, "%d", d)
			}
			edge = last + 1
		}
	}
	require.Equal(t, time.Duration(1)<<highest, edge)
	for _, d := range []time.Duration{1<<highest - 1, 1 << highest, math.MaxInt64} {
		o, b := place(d)
		require.Equal(t, [2]int{octaves - 1, perOctave - 1}, [2]int{o, b})
	}
}

func TestBoundsAreEdges(t *testing.T) {
	require.Equal(t, 65536*time.Nanosecond, Bound(0))
	require.Equal(t, time.Duration(1<<36), Bound(Bounds-1))
	for i := range Bounds {
		var h Histogram
		h.Record(0, Bound(i)-1)
		h.Record(1, Bound(i))
		var m Merge
		h.AddTo(&m, [Slots]bool{})
		c := m.Cumulative()
		for j := range Bounds {
			want := uint64(0)
			switch {
			case j == i:
				want = 1
			case j > i:
				want = 2
			}
			require.Equal(t, want, c.At(j))
		}
		require.Equal(t, uint64(2), c.Count)
	}
}

func TestOnlyLiveSlotsAreInPercentiles(t *testing.T) {
	var h Histogram
	h.Record(0, time.Millisecond)
	h.Record(1, time.Second)
	h.Record(2, time.Minute)
	for slot, d := range []time.Duration{time.Millisecond, time.Second, time.Minute} {
		var m Merge
		var live [Slots]bool
		live[slot] = true
		h.AddTo(&m, live)
		p := m.Percentiles()
		requireNear(t, d, p.Min, "Min")
		requireNear(t, d, p.Max, "Max")
		requireNear(t, d, p.Mean, "Mean")
		require.Equal(t, uint64(3), m.Cumulative().Count, "a slot that is not live has yet to be counted")
	}
	var m Merge
	h.AddTo(&m, [Slots]bool{})
	require.Zero(t, m.Percentiles())
}

func TestRetiredSlotsStayInCumulativeCounts(t *testing.T) {
	var h Histogram
	h.Record(1, time.Millisecond)
	h.Record(2, time.Second)
	h.Retire(1)
	h.Retire(1)
	h.Record(1, time.Minute)
	var m Merge
	h.AddTo(&m, all)
	live := []time.Duration{time.Second, time.Minute}
	check(t, &m, live, append(live, time.Millisecond))
}

// All samples lie at one end of their bucket, where the exact mean is not between
// the middles.
func TestMeanIsBetweenMinAndMax(t *testing.T) {
	for _, d := range []time.Duration{0, 1 << 20, 1<<20 - 1, 1 << 60} {
		var h Histogram
		h.Record(0, d)
		var m Merge
		h.AddTo(&m, all)
		p := m.Percentiles()
		require.Equal(t, p.Min, p.Mean)
		require.Equal(t, p.Max, p.Mean)
	}
}

func TestSumsSaturate(t *testing.T) {
	var h Histogram
	for range 3 {
		h.Record(0, math.MaxInt64)
	}
	h.Record(1, 5)
	var m Merge
	h.AddTo(&m, [Slots]bool{false, true, false})
	c := m.Cumulative()
	require.Equal(t, time.Duration(math.MaxInt64), c.Sum)
	require.Equal(t, uint64(4), c.Count)
	requireNear(t, 5, m.Percentiles().Mean, "a sum of its own")
	h.Retire(0)
	h.Retire(1)
	m = Merge{}
	h.AddTo(&m, all)
	c = m.Cumulative()
	require.Equal(t, time.Duration(math.MaxInt64), c.Sum)
	twice := c
	twice.Add(&c)
	require.Equal(t, time.Duration(math.MaxInt64), twice.Sum)
	require.Equal(t, uint64(8), twice.Count)
}

func TestRankIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64().Draw(t, "n")
		permille := rapid.Uint64Range(0, 1000).Draw(t, "permille")
		want := new(big.Int).SetUint64(n)
		want.Mul(want, new(big.Int).SetUint64(permille))
		want.Add(want, big.NewInt(999))
		want.Div(want, big.NewInt(1000))
		require.Equal(t, want.Uint64(), rank(permille, n))
	})
}

// checkScript records, retires and reads as data says, in two histograms at once,
// and holds what they merge to against lists.
func checkScript(t require.TestingT, data []byte) {
	var hs [2]Histogram
	var kept [2]naive
	read := func(live [Slots]bool) {
		var m Merge
		var now, ever []time.Duration
		var sum Cumulative
		for i := range hs {
			hs[i].AddTo(&m, live)
			now = append(now, kept[i].sorted(live)...)
			ever = append(append(ever, kept[i].retired...), kept[i].sorted(all)...)
			var one Merge
			hs[i].AddTo(&one, live)
			c := one.Cumulative()
			sum.Add(&c)
		}
		slices.Sort(now)
		check(t, &m, now, ever)
		require.Equal(t, m.Cumulative(), sum, "the sum of two is what the two make together")
	}
	for len(data) >= 9 {
		op, d := data[0], time.Duration(binary.LittleEndian.Uint64(data[1:]))
		data = data[9:]
		slot, i := int(op>>4)%Slots, int(op>>3)&1
		switch op & 7 {
		case 0:
			hs[i].Retire(slot)
			kept[i].retire(slot)
		case 1:
			read([Slots]bool{op&16 != 0, op&32 != 0, op&64 != 0})
		default: // as it is, or of a likelier magnitude
			d >>= []uint{0, 1, 15, 30, 40, 54}[op&7-2]
			hs[i].Record(slot, d)
			kept[i].record(slot, d)
		}
	}
	read(all)
}

func TestHistogramAgainstLists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{18, 180, 1800}).Draw(t, "bytes") // its own lengths are short
		checkScript(t, rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "script"))
	})
}

func FuzzHistogram(f *testing.F) {
	line := func(steps ...any) (data []byte) {
		for i := 0; i < len(steps); i += 2 {
			data = append(data, byte(steps[i].(int)))
			data = binary.LittleEndian.AppendUint64(data, uint64(steps[i+1].(int)))
		}
		return data
	}
	f.Add([]byte{})
	f.Add(line(2, 0))
	f.Add(line(2, 1023, 2, 1024, 2, 65535, 10, 65536, 16, 0, 1, 0))
	f.Add(line(2, math.MaxInt, 2, math.MaxInt, 2, math.MaxInt, 0, 0, 2, 7))
	f.Add(line(2, -1, 18, math.MinInt, 34, 1, 0, 0, 16, 0, 32, 0))
	f.Add(line(2, 1<<30, 26, 1<<30, 113, 0, 17, 0, 33, 0, 65, 0, 8, 0, 0, 0))
	f.Fuzz(func(t *testing.T, data []byte) { checkScript(t, data[:min(len(data), 2000)]) })
}

// A cell as a metrics cell would be: a lock, a ring of three slots, a histogram.
// Every latency is there in the end, and at any moment what is live is part of
// what ever was.
func TestConcurrentLatenciesAreAllCounted(t *testing.T) {
	const writers, each = 4, 10_000
	var (
		mu    sync.Mutex
		ring  = rolling.NewRing(20*time.Second, Slots)
		h     Histogram
		clock atomic.Int64
	)
	// liveLocked returns the slots in the window that ends at now.
	liveLocked := func(now mono.Time) (live [Slots]bool) {
		if slot, ok := ring.Oldest(now); ok {
			for ; slot != ring.Newest(); slot = (slot + 1) % Slots {
				live[slot] = true
			}
			live[slot] = true
		}
		return live
	}
	read := func() (Percentiles, Cumulative) {
		var m Merge
		now := mono.Time(clock.Load())
		mu.Lock()
		h.AddTo(&m, liveLocked(now))
		mu.Unlock()
		return m.Percentiles(), m.Cumulative()
	}
	var writing, reading sync.WaitGroup
	var began, done atomic.Uint64
	var stop atomic.Bool
	for range writers {
		writing.Go(func() {
			for n := range each {
				began.Add(1)
				now := mono.Time(clock.Add(int64(10 * time.Millisecond)))
				mu.Lock()
				if !ring.Holds(now) {
					ring.Advance(now, h.Retire)
				}
				h.Record(ring.Newest(), time.Duration(n)*time.Microsecond)
				mu.Unlock()
				done.Add(1)
			}
		})
	}
	reading.Go(func() {
		for !stop.Load() {
			least := done.Load()
			p, c := read()
			if most := began.Load(); c.Count < least || c.Count > most || p.Max > 11*time.Millisecond {
				t.Errorf("%+v, where %d to %d were recorded; %+v", c, least, most, p)
				return
			}
		}
	})
	writing.Wait()
	stop.Store(true)
	reading.Wait()
	_, c := read()
	require.Equal(t, uint64(writers*each), c.Count)
	require.Equal(t, writers*each*(each-1)/2*time.Microsecond, c.Sum)
	clock.Add(int64(time.Hour))
	p, c := read()
	require.Zero(t, p)
	require.Equal(t, uint64(writers*each), c.Count)
}

// bytes measures what build allocates, on average.
func bytes(build func()) float64 {
	const runs = 5
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		build()
	}
	runtime.ReadMemStats(&after)
	return float64(after.TotalAlloc-before.TotalAlloc) / runs
}

var kept *Histogram

func TestSizes(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(Histogram{}), uintptr(352))
	require.LessOrEqual(t, unsafe.Sizeof(Merge{}), uintptr(12<<10))
	one := bytes(func() { kept = new(Histogram); kept.Record(0, time.Millisecond) })
	require.Less(t, one, 800.)
	t.Logf("Merge %d B, Cumulative %d B, one latency %.0f B", unsafe.Sizeof(Merge{}), unsafe.Sizeof(Cumulative{}), one)

	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		sigma float64
		n     int
		most  float64
	}{{0.5, 100, 3 << 10}, {0.5, 1e6, 4.5 * 1024}, {0.8, 1e6, 6 << 10}} {
		ds := make([]time.Duration, c.n)
		for i := range ds {
			ds[i] = time.Duration(20e6 * math.Exp(c.sigma*rng.NormFloat64()))
		}
		got := bytes(func() {
			kept = new(Histogram)
			for i, d := range ds {
				kept.Record(i%Slots, d)
			}
		})
		t.Logf("%d log-normal latencies, sigma %.1f: %.0f B", c.n, c.sigma, got)
		require.Less(t, got, c.most)
	}
}

func TestNothingAllocates(t *testing.T) {
	h := full()
	var d time.Duration
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		h.Record(0, 20*time.Millisecond+d)
		d += time.Microsecond
	}))
	require.Zero(t, testing.AllocsPerRun(10, func() { h.Retire(1) }))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		var m Merge
		h.AddTo(&m, all)
		percentiles = m.Percentiles()
		c := m.Cumulative()
		cumulative.Add(&c)
	}))
}

var (
	percentiles Percentiles
	cumulative  Cumulative
)

// full returns what a busy minute makes.
func full() *Histogram {
	rng := rand.New(rand.NewPCG(1, 2))
	h := new(Histogram)
	for i := range 1_000_000 {
		h.Record(i%Slots, time.Duration(20e6*math.Exp(0.5*rng.NormFloat64())))
	}
	return h
}

func BenchmarkRecord(b *testing.B) {
	h, rng := full(), rand.New(rand.NewPCG(3, 4))
	var ds [1024]time.Duration
	for i := range ds {
		ds[i] = time.Duration(20e6 * math.Exp(0.5*rng.NormFloat64()))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		h.Record(1, ds[i%len(ds)])
	}
}

func BenchmarkMerge(b *testing.B) {
	h := full()
	b.Run("percentiles", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var m Merge
			h.AddTo(&m, all)
			percentiles = m.Percentiles()
		}
	})
	b.Run("percentiles and cumulative", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var m Merge
			h.AddTo(&m, all)
			percentiles = m.Percentiles()
			cumulative = m.Cumulative()
		}
	})
	b.Run("each further shard", func(b *testing.B) {
		var m Merge
		b.ReportAllocs()
		for b.Loop() {
			h.AddTo(&m, all)
		}
	})
}

func BenchmarkRetire(b *testing.B) {
	h := full()
	b.ReportAllocs()
	for b.Loop() {
		h.Retire(1)
	}
}
