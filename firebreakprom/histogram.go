package firebreakprom

import (
	"math"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/firebreak-go/firebreak"
)

// The classic buckets end at doublings from shortest to longest: a fast cache is
// below the first ones, and what is above the last has long been given up. (All
// that firebreak has, from 65 µs to 69 s, would be half as many series again.)
const (
	shortest = 1 << 19 * time.Nanosecond // 0.52 ms
	longest  = 1 << 34 * time.Nanosecond // 17.2 s
)

// edges are the bounds of firebreak's own histogram, and how they are shown.
var edges = newEdges()

type edgeList struct {
	own     []time.Duration
	classic []float64 // upper bounds in seconds
	upTo    []int     // for each of classic, how many of own are not above it

	// Native: schema 0, whose bucket i ends at 2^i seconds. The shortest of own is
	// the zero bucket, the next is bucket first, and so on.
	first     int32
	threshold float64 // of the zero bucket
}

func newEdges() *edgeList {
	e := &edgeList{}
	for bound := range new(firebreak.Histogram).Buckets() {
		e.own = append(e.own, bound)
	}
	for le := shortest; le <= longest; le *= 2 {
		e.classic = append(e.classic, le.Seconds())
		// Each of own goes to the smallest bound that is not below it.
		n, exact := slices.BinarySearch(e.own, le)
		if exact {
			n++
		}
		e.upTo = append(e.upTo, n)
	}
	zero := int32(math.Round(math.Log2(e.own[0].Seconds())))
	e.first, e.threshold = zero+1, math.Ldexp(1, int(zero))
	return e
}

// maxEdges is room enough for firebreak's bounds.
const maxEdges = 24

// latencies is a [firebreak.Histogram], or the sum of some.
type latencies struct {
	count uint64
	sum   time.Duration // an integer, as a sum of floats in another order may fall
	below [maxEdges]uint64
}

func (l *latencies) add(h *firebreak.Histogram) {
	l.count += h.Count
	l.sum = plus(l.sum, h.Sum)
	i := 0
	for _, n := range h.Buckets() {
		l.below[i] += n
		i++
	}
}

func (l *latencies) merge(o *latencies) {
	l.count += o.count
	l.sum = plus(l.sum, o.sum)
	for i, n := range o.below {
		l.below[i] += n
	}
}

// plus is a + b, or the longest duration: neither is negative.
func plus(a, b time.Duration) time.Duration {
	if sum := a + b; sum >= 0 {
		return sum
	}
	return math.MaxInt64
}

// histogram is what Prometheus reads: classic and native buckets in one. (That is
// why it is not client_golang's constant histogram, of which there are one or the
// other.)
func (l *latencies) histogram() *dto.Histogram {
	n, m := len(edges.classic), len(edges.own)
	h := &dto.Histogram{SampleCount: new(l.count), SampleSum: new(l.sum.Seconds())} // nothing of l's: it is used again

	buckets, cumulative := make([]dto.Bucket, n), make([]uint64, n)
	h.Bucket = make([]*dto.Bucket, n)
	for i, upTo := range edges.upTo {
		if upTo > 0 {
			cumulative[i] = l.below[upTo-1]
		}
		b := &buckets[i]
		b.UpperBound, b.CumulativeCount = &edges.classic[i], &cumulative[i]
		h.Bucket[i] = b
	}

	// All native buckets, also those that are empty: a layout that stays is the
	// cheapest to store.
	h.Schema, h.ZeroThreshold, h.ZeroCount = new(int32(0)), &edges.threshold, new(l.below[0])
	h.PositiveSpan = []*dto.BucketSpan{{Offset: &edges.first, Length: new(uint32(m))}}
	h.PositiveDelta = make([]int64, m)
	var last int64
	for i := range m {
		above := l.count // than the longest bound
		if i+1 < m {
			above = l.below[i+1]
		}
		in := int64(above - l.below[i])
		h.PositiveDelta[i], last = in-last, in
	}
	return h
}
