package histogram

import (
	"math"
	"time"
)

// A Merge adds histograms up, those of a command's shards or of many commands.
// The zero Merge is empty and ready. It lives on its reader's stack, all 11 KB of
// it, and nothing that is done with it allocates.
type Merge struct {
	buckets         [octaves][perOctave]uint64 // in live slots
	live            [octaves]uint64            // the same by octave
	all             [octaves]uint64            // ever recorded
	liveSum, allSum uint64                     // in ns
}

// Percentiles of what is in the live slots: by nearest rank, and the middle of the
// bucket that it falls in, Min and Max too. The Mean is exact, but between those.
// All are 0 if there is nothing.
type Percentiles struct{ Mean, Min, P25, P50, P75, P90, P95, P99, P995, Max time.Duration }

// Percentiles returns those of all that was added.
func (m *Merge) Percentiles() Percentiles {
	var n uint64
	for _, live := range m.live {
		n += live
	}
	if n == 0 {
		return Percentiles{}
	}
	p := Percentiles{
		Min:  m.nearest(1),
		P25:  m.nearest(rank(250, n)),
		P50:  m.nearest(rank(500, n)),
		P75:  m.nearest(rank(750, n)),
		P90:  m.nearest(rank(900, n)),
		P95:  m.nearest(rank(950, n)),
		P99:  m.nearest(rank(990, n)),
		P995: m.nearest(rank(995, n)),
		Max:  m.nearest(n),
	}
	mean := time.Duration(min(m.liveSum/n, math.MaxInt64))
	p.Mean = min(max(mean, p.Min), p.Max) // by their middles, Min may be above it and Max below
	return p
}

// rank returns permille of n, rounded up. Taking n apart keeps the product small.
func rank(permille, n uint64) uint64 {
	return n/1000*permille + (n%1000*permille+999)/1000
}

// nearest returns the latency of the given rank, from 1 for the shortest.
func (m *Merge) nearest(rank uint64) time.Duration {
	o := 0
	for ; rank > m.live[o]; o++ {
		rank -= m.live[o]
	}
	b := 0
	for ; rank > m.buckets[o][b]; b++ {
		rank -= m.buckets[o][b]
	}
	return middle(o, b)
}

// Bounds of a [Cumulative] are doublings from 2^16 ns (65.536 µs) to 2^36 ns (68.7
// s): edges of the fine buckets, so that nothing is shared out by guess.
const (
	Bounds = 21
	lowest = 16
)

// Bound returns the i-th bound, i from 0.
func Bound(i int) time.Duration { return 1 << (lowest + i) }

// Cumulative is all that was ever recorded. It is a plain value, and the zero one
// is empty.
type Cumulative struct {
	Count uint64
	Sum   time.Duration // exact, or the longest there is
	below [Bounds]uint64
}

// Cumulative returns everything in the histograms added, whichever slots are live.
func (m *Merge) Cumulative() Cumulative {
	c := Cumulative{Sum: time.Duration(min(m.allSum, math.MaxInt64))}
	for o, n := range m.all {
		c.Count += n
		if i := o + linear - lowest; i >= 0 && i < Bounds { // octave o ends at 2^(o+linear)
			c.below[i] = c.Count
		}
	}
	return c
}

// At returns how many were below [Bound](i). Count is how many there are.
func (c Cumulative) At(i int) uint64 { return c.below[i] }

// Add adds o to c.
func (c *Cumulative) Add(o *Cumulative) {
	c.Count += o.Count
	c.Sum = time.Duration(min(uint64(c.Sum)+uint64(o.Sum), math.MaxInt64))
	for i, n := range o.below {
		c.below[i] += n
	}
}
