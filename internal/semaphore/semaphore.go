// Package semaphore is the permits of a bulkhead: an exact limit that can be
// resized while in use, and waiters who get their turn in the order they came.
//
// It serves both isolations. With semaphores a waiter is a caller who is parked;
// with pools it is a queued job, which a worker that is done takes over.
package semaphore

import (
	"math"
	"sync"
	"sync/atomic"
)

// Unlimited is a limit that sets no bound; what is in flight is still counted.
// Greater limits mean the same.
const Unlimited = math.MaxInt32

// A Semaphore admits at most its limit of holders at once. Its methods may be used
// concurrently. The zero Semaphore is not usable: see [New].
//
// Everything is decided on one word, which says how many permits are out of how
// many. While processors collide there and permits are plenty, permits also lie in
// cells (see [cells]), which is a cache in front of the word and never more: they
// go back before anybody is refused, waits, resizes or closes.
type Semaphore struct {
	word  word
	cells *cells   // made by the first collision, before the word first says spread
	_     [48]byte // a refusal reads the word alone: not where the mutex is written

	mu    sync.Mutex // held by whoever changes the mode or the limit, and by no other
	queue queue
	idle  []chan struct{} // to be closed when the semaphore is closed and all permits are back
}

// New makes a semaphore with limit permits, at least one.
func New(limit int) *Semaphore {
	s := new(Semaphore)
	s.Init(limit)
	return s
}

// Init makes a zero Semaphore what [New] returns.
func (s *Semaphore) Init(limit int) {
	s.word.bits.Store(uint64(state(0).limitedTo(limit)))
}

// TryAcquire takes a permit if one is free. It says no if none is, if somebody
// waits (nobody overtakes), and after [Semaphore.Close].
func (s *Semaphore) TryAcquire() bool {
	for {
		st := s.word.load()
		switch {
		case st.mode() != plain:
			return st.mode() == spread && (s.cells.take() || s.restock())
		case st.free() <= 0:
			return false
		case s.word.swap(st, st.plus(1)):
			return true
		case st.free() >= spreadFrom:
			s.spread()
		}
	}
}

// A Place is what [Semaphore.Wait] found for a waiter.
type Place uint8

const (
	Granted Place = iota // a permit was free: the caller has it, and Turn is not called
	Queued               // the waiter waits
	Full                 // no permit and no room to wait
	Closed               // no more are admitted
)

// Wait takes a permit for w if one is free and nobody waits; otherwise it puts w at
// the end of the queue if fewer than room are in it.
//
// A waiter that is queued either has its turn or is withdrawn, and until then must
// not be used again.
func (s *Semaphore) Wait(w *Waiter, room int) Place {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gatherLocked()
	for {
		st := s.word.load()
		switch {
		case st.mode() == closed:
			return Closed
		case st.mode() == plain && st.free() > 0:
			if s.word.swap(st, st.plus(1)) {
				return Granted
			}
		case s.queue.size >= room:
			return Full
		// On the very word that had no permit: one that comes back before this is
		// seen by the next look, one that comes back after it sees the waiter.
		case s.word.swap(st, st.in(waiting)):
			s.queue.push(w)
			return Queued
		}
	}
}

// Withdraw takes w out of the queue. True: it took nothing and will not have its
// turn. False: it has had its turn, and if that granted a permit it is the owner's.
func (s *Semaphore) Withdraw(w *Waiter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !w.queued {
		return false
	}
	s.dequeueLocked(w)
	return true
}

// Release gives a permit back; the first waiter gets it. It returns how many were
// in flight just before, for a rolling maximum, or 0 where permits lie in cells,
// as to count them would cost more than the release.
func (s *Semaphore) Release() (was int) {
	if st := s.word.load(); st.mode() == plain && s.word.swap(st, st.minus(1)) {
		return st.out() // the usual case
	}
	return s.release()
}

func (s *Semaphore) release() (was int) {
	if was, ok := s.put(); ok {
		return was
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was, next := s.passLocked()
	if next != nil {
		next.Turn(true)
	}
	return was
}

// Pass is [Semaphore.Release] for a worker that can go on: it hands the permit to
// the first waiter and returns that waiter, without a call of its Turn. If nobody
// waits, or more are in flight than the limit allows by now, next is nil and the
// permit is back.
func (s *Semaphore) Pass() (was int, next *Waiter) {
	if was, ok := s.put(); ok {
		return was, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passLocked()
}

// Resize changes the limit, at least one. Once it returns nothing is admitted above
// the new limit; waiters whom it lets in have had their turn, in order. What is in
// flight beyond it stays, and waiters keep their place.
func (s *Semaphore) Resize(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gatherLocked()
	s.word.update(func(st state) state { return st.limitedTo(limit) })
	for s.queue.size > 0 && s.word.load().free() > 0 {
		s.word.update(func(st state) state { return st.plus(1) })
		s.firstLocked().Turn(true)
	}
}

// Close ends admission for good: every waiter has its turn, without a permit. What
// is in flight stays and gives its permits back as ever. Closing again does nothing.
func (s *Semaphore) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gatherLocked()
	s.word.update(func(st state) state { return st.in(closed) })
	for s.queue.size > 0 {
		w := s.queue.first
		s.queue.remove(w)
		w.Turn(false)
	}
	s.tellIdleLocked()
}

// Idle returns a channel that is closed once the semaphore is closed and all its
// permits are back. Each call makes its own, as one made in a test bubble must not
// be seen outside.
func (s *Semaphore) Idle() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan struct{})
	s.idle = append(s.idle, c)
	s.tellIdleLocked()
	return c
}

// InFlight is how many permits are held, 0 to the largest limit there was. While
// permits move between cells it may be a few off.
func (s *Semaphore) InFlight() int {
	if st := s.word.load(); st.mode() != spread {
		return st.out()
	}
	s.mu.Lock() // against permits on their way between word and cells
	defer s.mu.Unlock()
	st := s.word.load()
	if st.mode() != spread {
		return st.out()
	}
	return max(0, st.out()-s.cells.sum())
}

// Limit is the limit in force, 1 to [Unlimited].
func (s *Semaphore) Limit() int { return s.word.load().limit() }

// Queued is how many wait.
func (s *Semaphore) Queued() int {
	if s.word.load().mode() != waiting {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.size
}

// put puts a permit back unless that makes something due: while somebody waits, and
// once the semaphore is closed.
func (s *Semaphore) put() (was int, ok bool) {
	for {
		st := s.word.load()
		switch {
		case st.mode() == waiting || st.mode() == closed:
			return 0, false
		case st.mode() == spread && s.cells.put():
			return 0, true
		case s.word.swap(st, st.minus(1)):
			return st.out(), true
		}
	}
}

// passLocked hands the caller's permit to the first waiter, or puts it back if there
// is none or it was one too many. It returns how many were in flight before.
func (s *Semaphore) passLocked() (was int, next *Waiter) {
	if st := s.word.load(); st.mode() == waiting && st.free() >= 0 {
		return st.out(), s.firstLocked()
	}
	st := s.word.update(func(st state) state { return st.minus(1) })
	s.tellIdleLocked()
	return st.out() + 1, nil
}

// firstLocked takes the first waiter from the queue, for whom a permit is out.
func (s *Semaphore) firstLocked() *Waiter {
	w := s.queue.first
	s.dequeueLocked(w)
	return w
}

func (s *Semaphore) dequeueLocked(w *Waiter) {
	s.queue.remove(w)
	if s.queue.size == 0 {
		s.word.update(func(st state) state { return st.in(plain) })
	}
}

// tellIdleLocked tells those who wait for the last permit if it is back.
func (s *Semaphore) tellIdleLocked() {
	if st := s.word.load(); st.mode() == closed && st.out() == 0 {
		for _, c := range s.idle {
			close(c)
		}
		s.idle = nil
	}
}

// A mode says who may take a permit from the word, and how.
type mode uint8

const (
	plain   mode = iota // whoever comes
	spread              // only to fill cells, with the mutex held: others take from those
	waiting             // only for the first waiter, with the mutex held
	closed              // nobody, ever
)

// A state is what one look at the word shows: from the lowest bit the mode (2
// bits), how many permits are out (31) and the limit (31).
type state uint64

const (
	outShift   = 2
	limitShift = outShift + 31
	fieldMask  = 1<<31 - 1
	modeMask   = 1<<outShift - 1
)

func (st state) mode() mode { return mode(st & modeMask) }
func (st state) out() int   { return int(st >> outShift & fieldMask) }
func (st state) limit() int { return int(st >> limitShift) }

// free is how many permits are left, less than none if the limit fell below what is
// out.
func (st state) free() int { return st.limit() - st.out() }

func (st state) in(m mode) state  { return st&^modeMask | state(m) }
func (st state) plus(n int) state { return st + state(n)<<outShift }

func (st state) minus(n int) state {
	if n > st.out() {
		panic("semaphore: more releases than permits")
	}
	return st - state(n)<<outShift
}

func (st state) limitedTo(limit int) state {
	if limit < 1 {
		panic("semaphore: limit below 1")
	}
	return st&(1<<limitShift-1) | state(min(limit, Unlimited))<<limitShift
}

// word is the state of a semaphore. As the limit is in it, an admission is exact
// under a resize: its compare-and-swap is both the look and the step. Invariants:
//
//   - out is what is in flight, plus what lies in cells or is on its way there.
//   - Permits lie in cells only in mode spread, and then all is out that a cell has.
//   - While the mutex is free the mode is waiting exactly if the queue is not empty,
//     and then no permit is free: one that comes back goes to the first waiter in
//     one step, so that there is nothing to overtake for and nothing to strand.
//   - Without the mutex the word changes by one permit only: out in mode plain, back
//     in modes plain and spread.
type word struct{ bits atomic.Uint64 }

func (w *word) load() state { return state(w.bits.Load()) }

func (w *word) swap(from, to state) bool {
	return w.bits.CompareAndSwap(uint64(from), uint64(to))
}

// update is for whoever has the mutex. It returns the new state.
func (w *word) update(change func(state) state) state {
	for {
		st := w.load()
		if to := change(st); w.swap(st, to) {
			return to
		}
	}
}

// A Waiter waits for a permit, once at a time; when it no longer does it may be used
// again.
type Waiter struct {
	// Turn is called once if the waiter is not withdrawn: with a permit, which is the
	// owner's from then on, or without one if the semaphore is closed. It is called
	// with the semaphore's mutex held: it must not block, nor call the semaphore. It
	// sends on a buffered channel, say, or starts a goroutine.
	Turn func(granted bool)
	Job  any // the owner's

	queued     bool
	prev, next *Waiter
}

// queue is a list of waiters in the order they came.
type queue struct {
	first, last *Waiter
	size        int
}

func (q *queue) push(w *Waiter) {
	if w.queued {
		panic("semaphore: a waiter waits twice")
	}
	w.queued, w.prev = true, q.last
	if q.last == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
	q.size++
}

func (q *queue) remove(w *Waiter) {
	if w.prev == nil {
		q.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.queued, w.prev, w.next = false, nil, nil
	q.size--
}
