package floor

import (
	"sync/atomic"
	"time"
)

const (
	seconds = 10 // that the window holds
	slots   = 16 // the next power of two, so that a second's slot is its last bits
)

// window is one shard's rolling window: in each slot a second, and how many calls
// ended in it, successes in the low half of a word and failures in the high half.
// Calls that meet in a slot at the turn of a second may be lost: what is measured
// here is reading.
type window struct {
	second [slots]atomic.Int64
	ended  [slots]atomic.Uint64
	_      [64]byte
}

func (w *window) count(now time.Duration, ok bool) {
	second := int64(now / time.Second)
	i := second & (slots - 1)
	if w.second[i].Load() != second {
		w.ended[i].Store(0)
		w.second[i].Store(second)
	}
	if ok {
		w.ended[i].Add(1)
	} else {
		w.ended[i].Add(1 << 32)
	}
}

func (w *window) sum(now time.Duration) (ok, failed uint64) {
	newest := int64(now / time.Second)
	for second := newest; second > newest-seconds; second-- {
		i := second & (slots - 1) // before the first second they are negative, and nobody's
		if w.second[i].Load() == second {
			n := w.ended[i].Load()
			ok += n & (1<<32 - 1)
			failed += n >> 32
		}
	}
	return ok, failed
}
