package semaphore

import (
	"sync/atomic"
	"unsafe"
)

const (
	cellCount = 8

	// spreadFrom is how many permits must be free before they are spread: with fewer
	// the cells would soon be empty and gathered again.
	spreadFrom = 4 * cellCount
)

// spread opens the cells after a collision, if permits are plenty.
func (s *Semaphore) spread() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.word.load(); st.mode() == plain && st.free() >= spreadFrom {
		s.spreadLocked()
	}
}

// spreadLocked opens the cells. It is right in mode plain while no more is out than
// the limit allows: what comes back to a cell can be taken there at once.
func (s *Semaphore) spreadLocked() {
	if s.cells == nil {
		s.cells = new(cells)
	}
	// The mode comes first: a late release finds its cell open, and then whoever reads
	// the word must know that not all that is out is in flight.
	s.word.update(func(st state) state { return st.in(spread) })
	s.cells.open()
}

// gatherLocked takes the permits out of the cells and shuts those, until the next
// collision.
func (s *Semaphore) gatherLocked() {
	if s.word.load().mode() != spread {
		return
	}
	n := s.cells.shut()
	s.word.update(func(st state) state { return st.minus(n).in(plain) })
}

// restock acquires for a caller that found no permit in any cell. It fills the
// caller's cell from the word; if that has none either, permits are scarce, and the
// word alone decides from here on.
func (s *Semaphore) restock() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		st := s.word.load()
		n := 1
		switch {
		case st.mode() == spread && st.free() > 0:
			n += st.free() / (2 * cellCount) // leaves as much for the other cells
		case st.mode() == spread:
			s.gatherLocked()
			continue
		case st.mode() != plain || st.free() <= 0:
			return false
		}
		if s.word.swap(st, st.plus(n)) {
			if n > 1 {
				s.cells[here()].fill(n - 1)
			}
			return true
		}
	}
}

// cells hold permits near the processors that use them. Each goroutine has one where
// it puts and takes first; it takes from another's before it goes to the word.
type cells [cellCount]cell

func (cs *cells) take() bool {
	at := here()
	for i := range uint32(cellCount) {
		if cs[(at+i)%cellCount].take() {
			return true
		}
	}
	return false
}

func (cs *cells) put() bool { return cs[here()].put() }

func (cs *cells) open() {
	for i := range cs {
		cs[i].open()
	}
}

// shut shuts all cells and returns how many permits were in them.
func (cs *cells) shut() (n int) {
	for i := range cs {
		n += cs[i].shut()
	}
	return n
}

func (cs *cells) sum() (n int) {
	for i := range cs {
		n += cs[i].load()
	}
	return n
}

// A cell is 0 while it is shut, else one more than its permits. Invariant: it is
// opened, filled and shut with the semaphore's mutex held, and is open in mode spread
// only. Whoever is late, and finds it shut, goes to the word.
type cell struct {
	n atomic.Uint32
	_ [124]byte // two cache lines, as processors fetch them in pairs
}

func (c *cell) take() bool {
	for n := c.n.Load(); n > 1; n = c.n.Load() {
		if c.n.CompareAndSwap(n, n-1) {
			return true
		}
	}
	return false
}

func (c *cell) put() bool {
	for n := c.n.Load(); n > 0; n = c.n.Load() {
		if c.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

func (c *cell) fill(n int) { c.n.Add(uint32(n)) }
func (c *cell) open()      { c.n.Store(1) }
func (c *cell) load() int  { return permits(c.n.Load()) }
func (c *cell) shut() int  { return permits(c.n.Swap(0)) }

func permits(n uint32) int { return int(max(n, 1) - 1) }

// here is a cell's index that mostly stays the same for a goroutine and differs
// between goroutines. It is a hash of where the stack is, as stacks are at least 2 KB
// apart; what the processor is called cannot be asked cheaply.
func here() uint32 {
	var x byte
	at := uint64(uintptr(unsafe.Pointer(&x)))
	return uint32(at >> 11 * 0x9E3779B97F4A7C15 >> 61) // cellCount is 1<<3
}
