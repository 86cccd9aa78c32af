// Package histogram counts latencies, so that percentiles of the last while and
// cumulative counts come from one counter per call.
package histogram

import (
	"math/bits"
	"time"
)

// Slots of a [Histogram]: as many parts of the last while are kept apart, to be
// retired one by one.
const Slots = 3

// Where the buckets lie. Up to 2^linear ns they are all of one width, from there on
// each doubling has as many of them: 32, whose middles are within 1/64 of all that
// they hold (1.6 %). The first doubling above 2^linear has the same width as those
// below: 32 ns.
const (
	perOctave = 32
	linear    = 10
	highest   = 49 // 2^49 ns are 6.5 days; what takes longer counts in the last bucket
	octaves   = highest - linear + 1
)

// A Histogram counts latencies, each in one of three slots. Percentiles are read
// from the slots that are live, cumulative counts from all that was ever recorded.
// What is below 0 counts as 0.
//
// The zero Histogram is empty and ready. It takes 352 bytes, and 416 for each
// doubling in which latencies fell. Its owner holds a lock around every call.
type Histogram struct {
	octaves [octaves]*octave // by place; nil until something falls in it
	sums    [Slots]uint64    // in ns
	retired uint64           // the sum of what is in no slot any more
}

// An octave is a doubling, or all below 2^linear ns. The slots of a bucket lie side
// by side, so that adding them up touches no more memory than one would. A counter
// is enough for 200 million calls a second in a slot of 20 s.
type octave struct {
	buckets [perOctave][Slots]uint32
	retired uint64
}

// place returns the octave of d, which is not negative, and its bucket in there.
func place(d time.Duration) (o, b int) {
	ns := min(uint64(d), 1<<highest-1)
	o = bits.Len64(ns >> linear)
	return o, int(ns >> width(o) % perOctave)
}

// width returns the width of an octave's buckets, as a power of two.
func width(o int) int { return linear - 5 + max(o-1, 0) }

// middle returns what is reported for all that is in a bucket.
func middle(o, b int) time.Duration {
	w := width(o)
	if o > 0 {
		b += perOctave // an octave begins as far from 0 as it is long
	}
	return time.Duration(b)<<w + 1<<(w-1)
}

// plus is a + b, or the largest number.
func plus(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	return sum | -carry
}

// Record counts d in a slot.
func (h *Histogram) Record(slot int, d time.Duration) {
	d = max(d, 0)
	o, b := place(d)
	oct := h.octaves[o]
	if oct == nil {
		oct = new(octave)
		h.octaves[o] = oct
	}
	oct.buckets[b][slot]++
	h.sums[slot] = plus(h.sums[slot], uint64(d))
}

// Retire empties a slot. What was in it stays in the cumulative counts.
func (h *Histogram) Retire(slot int) {
	for _, oct := range h.octaves {
		if oct == nil {
			continue
		}
		for b := range oct.buckets {
			oct.retired += uint64(oct.buckets[b][slot])
			oct.buckets[b][slot] = 0
		}
	}
	h.retired = plus(h.retired, h.sums[slot])
	h.sums[slot] = 0
}

// ones is a mask for the counters of a slot: no branch for each of them.
func ones(live bool) uint32 {
	if live {
		return ^uint32(0)
	}
	return 0
}

// AddTo adds h to m: to its percentiles what is in the live slots, to its
// cumulative counts everything.
func (h *Histogram) AddTo(m *Merge, live [Slots]bool) {
	m.allSum = plus(m.allSum, h.retired)
	for slot, sum := range h.sums {
		m.allSum = plus(m.allSum, sum)
		if live[slot] {
			m.liveSum = plus(m.liveSum, sum)
		}
	}
	mask0, mask1, mask2 := ones(live[0]), ones(live[1]), ones(live[2])
	for o, oct := range h.octaves {
		if oct == nil {
			continue
		}
		all, some, into := oct.retired, uint64(0), &m.buckets[o]
		for b := range oct.buckets {
			n := &oct.buckets[b]
			all += uint64(n[0]) + uint64(n[1]) + uint64(n[2])
			in := uint64(n[0]&mask0) + uint64(n[1]&mask1) + uint64(n[2]&mask2)
			into[b] += in
			some += in
		}
		m.all[o] += all
		m.live[o] += some
	}
}
