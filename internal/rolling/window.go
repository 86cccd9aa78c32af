package rolling

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak/internal/mono"
	"github.com/firebreak-go/firebreak/internal/shard"
)

// Buckets of a [Window].
const Buckets = 10

// A Window is a circuit's health window: how many calls of the newest bucket and
// the nine before it went well, and how many did not. It may be used
// concurrently.
//
// Nothing is cleared when a bucket expires. The counts only grow, and a window is
// what they are now less what they were when its oldest bucket began; so it is
// never negative, and an outcome that comes late cannot bring an expired bucket
// back.
type Window struct {
	first words

	mu     sync.Mutex // guards begins, and ring but for Holds
	begins [Buckets]counts
	_      [8]byte

	// A cache line of its own, as every call reads it: what calls and readers write
	// is at the other end.
	ring  Ring
	cells cells
	_     [8]byte
}

// Totals of a window. Slow calls are good or bad as well: Slow ≤ Good + Bad.
type Totals struct{ Good, Bad, Slow uint64 }

// One outcome in a word of [counts].
const (
	oneGood uint64 = 1
	oneBad  uint64 = 1 << 32
)

// counts are plain numbers: outcomes has good in its lower half and bad in its
// upper. Good carries into bad, and bad goes over the top; but as long as a window
// holds fewer than 2^32 of each, the difference of two words is exact, being that
// of two numbers modulo 2^64.
type counts struct{ outcomes, slow uint64 }

// words are [counts] that are being counted. Invariant: nothing but adding is done
// to them, so that later loads less earlier ones are what was added in between.
type words struct{ outcomes, slow atomic.Uint64 }

// tryAdd counts one outcome, or nothing if another processor did at this moment.
func (w *words) tryAdd(outcome uint64, slow bool) bool {
	old := w.outcomes.Load()
	if !w.outcomes.CompareAndSwap(old, old+outcome) {
		return false
	}
	if slow {
		w.slow.Add(1)
	}
	return true
}

func (w *words) add(outcome uint64, slow bool) {
	w.outcomes.Add(outcome)
	if slow {
		w.slow.Add(1)
	}
}

// addTo loads what is counted last first, so that what is slow is an outcome too.
func (w *words) addTo(c *counts) {
	c.slow += w.slow.Load()
	c.outcomes += w.outcomes.Load()
}

// cells are further words, which are there once processors have collided over the
// first ones. Invariant: once there they stay, and nobody begins to count in the
// first words any more.
type cells struct{ some atomic.Pointer[[8]cell] }

// A cell fills two cache lines, since some processors fetch them in pairs.
type cell struct {
	words
	_ [112]byte
}

func (c *cells) load() *[8]cell { return c.some.Load() }

func (c *cells) make() *[8]cell {
	c.some.CompareAndSwap(nil, new([8]cell)) // or somebody else's
	return c.some.Load()
}

// NewWindow makes an empty window. Its buckets are a tenth of it, but a nanosecond
// at least.
func NewWindow(window time.Duration) *Window {
	w := new(Window)
	w.ring.Init(window/Buckets, Buckets)
	return w
}

// Add counts one outcome at now. It locks only where now is not in the newest
// bucket: for the first call of each, and while time has gone back a little.
func (w *Window) Add(now mono.Time, bad, slow bool) {
	if !w.ring.Holds(now) {
		w.advance(now)
	}
	outcome := oneGood
	if bad {
		outcome = oneBad
	}
	c := w.cells.load()
	if c == nil {
		if w.first.tryAdd(outcome, slow) {
			return
		}
		c = w.cells.make()
	}
	c[shard.Index(uint32(len(c)))].add(outcome, slow)
}

func (w *Window) advance(now mono.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	begin := w.counts()
	w.ring.Advance(now, func(slot int) { w.begins[slot] = begin })
}

// Sum returns the totals of the window that ends with now's bucket, and moves
// nothing.
func (w *Window) Sum(now mono.Time) Totals {
	w.mu.Lock() // until the end: no bucket may begin in between, and another expire
	var begin, end counts
	slot, ok := w.ring.Oldest(now)
	if ok {
		begin, end = w.begins[slot], w.counts()
	}
	w.mu.Unlock()
	outcomes := end.outcomes - begin.outcomes
	t := Totals{Good: outcomes % oneBad, Bad: outcomes / oneBad}
	// A call whose two words had a bucket begin between them is slow in a bucket
	// that it is not in.
	t.Slow = min(end.slow-begin.slow, t.Good+t.Bad)
	return t
}

func (w *Window) counts() counts {
	var sum counts
	w.first.addTo(&sum)
	if c := w.cells.load(); c != nil {
		for i := range c {
			c[i].addTo(&sum)
		}
	}
	return sum
}
