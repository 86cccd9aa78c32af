// Package rolling counts over the last while: rings of buckets, and the health
// window that a circuit is judged by.
package rolling

import (
	"iter"
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak/internal/mono"
)

// A Ring keeps the time of a rolling window, whose buckets take its slots in
// turn. Bucket n is [n·length, (n+1)·length), before zero too; the window is the
// newest bucket and those before it, as many as there are slots.
//
// Time may go back. A moment a little older than the newest bucket is taken for
// one in it; where the newest bucket is more than a window ahead, the ring begins
// all over.
//
// Its owner holds a lock around everything but Holds.
type Ring struct {
	start  start
	length time.Duration
	slots  int
	newest int   // the slot of the newest bucket
	number int64 // and its n
	opened bool
}

// start is where the newest bucket begins, all that is read of a Ring without its
// owner's lock. Invariant: it is set under that lock, when the slots of the
// buckets that begin have been opened; so where a moment is held, the slot that
// it counts in is ready.
type start struct{ ns atomic.Int64 }

func (s *start) set(t mono.Time) { s.ns.Store(int64(t)) }

// since returns now − start, which wraps around for a now before it: no length is
// that great.
func (s *start) since(now mono.Time) uint64 { return uint64(int64(now) - s.ns.Load()) }

// NewRing makes a ring of slots buckets, each of the given length but a nanosecond
// at least.
func NewRing(length time.Duration, slots int) *Ring {
	r := new(Ring)
	r.Init(length, slots)
	return r
}

// Init makes r what [NewRing] returns.
func (r *Ring) Init(length time.Duration, slots int) {
	r.length, r.slots, r.newest, r.number, r.opened = max(length, 1), slots, slots-1, 0, false
	r.start.set(mono.Never)
}

// Holds tells whether now lies in the newest bucket. It needs no lock, and may be
// out of date when it returns.
//
// The subtraction wraps around, so that the bucket at one end of the int64s is not
// told from that at the other; and before the first Advance, when no bucket is
// there to be held, these moments are. No clock shows them.
func (r *Ring) Holds(now mono.Time) bool { return r.start.since(now) < uint64(r.length) }

// Advance makes now's bucket the newest and calls open for the slot of each
// bucket that begins, oldest first: for every slot once if all the window is new.
func (r *Ring) Advance(now mono.Time, open func(slot int)) {
	n, begun := r.begun(now)
	if begun == 0 {
		return
	}
	for range begun {
		r.newest = (r.newest + 1) % r.slots
		open(r.newest)
	}
	r.number, r.opened = n, true
	r.start.set(mono.Time(n * int64(r.length)))
}

// Newest returns the slot of the newest bucket.
func (r *Ring) Newest() int { return r.newest }

// Oldest returns the slot of the oldest bucket of the window that ends with now's,
// from which on the slots up to the newest's are in that window. It is not ok if
// none is. Oldest moves nothing.
func (r *Ring) Oldest(now mono.Time) (slot int, ok bool) {
	_, begun := r.begun(now)
	return (r.newest + 1 + begun) % r.slots, begun < r.slots
}

// Live yields the slots of the window that ends with now's bucket, oldest first. It
// moves nothing.
func (r *Ring) Live(now mono.Time) iter.Seq[int] {
	return func(yield func(int) bool) {
		slot, ok := r.Oldest(now)
		for ok && yield(slot) && slot != r.newest {
			slot = (slot + 1) % r.slots
		}
	}
}

// begun returns the number of now's bucket, and how many slots would be opened to
// make it the newest.
func (r *Ring) begun(now mono.Time) (n int64, slots int) {
	if r.opened && r.Holds(now) {
		return r.number, 0 // spares the division
	}
	n = int64(now) / int64(r.length)
	if int64(now)%int64(r.length) < 0 {
		n-- // division rounds towards zero
	}
	// Distances are unsigned, as the two ends are more than an int64 apart.
	switch window := uint64(r.slots); {
	case !r.opened:
		return n, r.slots
	case n > r.number:
		return n, int(min(uint64(n)-uint64(r.number), window))
	case uint64(r.number)-uint64(n) > window:
		return n, r.slots
	}
	return n, 0
}
