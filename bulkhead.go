package firebreak

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak/internal/mono"
	"github.com/firebreak-go/firebreak/internal/rolling"
	"github.com/firebreak-go/firebreak/internal/semaphore"
)

// Isolation is where run is called. Zero inherits.
type Isolation uint8

const (
	SemaphoreIsolation Isolation = iota + 1 // on the caller's goroutine: run must heed its context
	PoolIsolation                           // on a worker: the caller leaves at its deadline, the permit stays until run returns
)

var isolationWords = words{"", "semaphore", "pool"}

// String returns semaphore or pool; "" for zero.
func (i Isolation) String() string { return isolationWords.of(int(i)) }

// MarshalText returns String's word, "" for zero.
func (i Isolation) MarshalText() ([]byte, error) { return isolationWords.text(int(i)) }

// UnmarshalText reads a word of String's, "" excepted.
func (i *Isolation) UnmarshalText(text []byte) error {
	n, err := isolationWords.parse(string(text), "isolation")
	*i = Isolation(n)
	return err
}

// A bulkhead bounds what runs at once of one dependency: one limit for all its
// commands. A permit is held until the work has really ended, whoever has left.
type bulkhead struct {
	isolation Isolation // for life
	bounds    atomic.Pointer[bounds]
	peak      rolling.Peak // most of it lies between what calls read and what they write
	permits   semaphore.Semaphore
	abandoned atomic.Int64 // runs whose caller has left
}

func (b *bulkhead) init(isolation Isolation, bd *bounds) {
	b.permits.Init(bd.limit)
	b.isolation = isolation
	b.bounds.Store(bd)
	b.peak.Init(bd.window)
}

// resize takes new bounds over: those who wait get what room there is before it
// returns, nobody is cancelled or sent away.
func (b *bulkhead) resize(bd *bounds) {
	was := b.bounds.Swap(bd)
	if was.limit != bd.limit {
		b.permits.Resize(bd.limit)
	}
	if was.window != bd.window {
		b.peak.Resize(bd.window)
	}
}

// release gives a permit back.
func (b *bulkhead) release(now mono.Time) {
	b.peak.Note(now, b.permits.Release())
}

// pass hands a worker's permit to the next queued call, which the worker is to
// take, or gives it back.
func (b *bulkhead) pass(now mono.Time) runner {
	was, w := b.permits.Pass()
	b.peak.Note(now, was)
	if w != nil {
		return w.Job.(runner)
	}
	return nil
}

func (b *bulkhead) read(now mono.Time) Bulkhead {
	r := Bulkhead{
		Isolation: b.isolation, Limit: b.permits.Limit(),
		InFlight: b.permits.InFlight(), Queued: b.permits.Queued(),
	}
	b.peak.Note(now, r.InFlight) // where permits lie in cells nobody else sees how many are out
	r.MaxInFlight = max(r.InFlight, b.peak.Max(now))
	r.Abandoned = min(max(0, int(b.abandoned.Load())), r.InFlight)
	if r.Limit == math.MaxInt32 {
		r.Limit = Unlimited
	}
	return r
}

// wait is for a call that found no permit at c.now: it waits for one in order of
// arrival, for at most MaxWait and no longer than the call may take, or is settled
// as refused.
func (c *call) wait(b *bulkhead) error {
	bd := b.bounds.Load()
	c.submit(c.now)
	turn := make(chan bool, 1)
	w := semaphore.Waiter{Turn: func(granted bool) { turn <- granted }}
	granted := false
	switch b.permits.Wait(&w, bd.queue) {
	case semaphore.Granted:
		granted = true
	case semaphore.Full:
		return c.reject()
	case semaphore.Queued:
		c.cmd.waiting.Add(1)
		granted = c.queued(b, &w, turn, bd.maxWait)
		c.cmd.waiting.Add(-1)
	}
	c.now = c.cmd.clock.Now()
	switch err := c.caller.Err(); {
	case err != nil: // first, as on arrival; what it was granted goes on to the next
		c.returnUnused(b, granted)
		return c.refuse(OutcomeGaveUp, err)
	case c.now >= c.deadline:
		c.returnUnused(b, granted)
		return c.refuse(OutcomeRejected, c.cmd.rejectedLate)
	case !granted:
		return c.reject()
	}
	asked := false
	defer func() {
		if !asked { // an observer that was told of a probe called Goexit
			b.release(c.now)
		}
	}()
	shut := c.askAgain()
	asked = true
	if shut != nil {
		b.release(c.now)
		return c.refuse(shut.outcome, shut.err)
	}
	c.begin(c.now)
	return nil
}

// queued waits for the call's turn, and tells whether that brought a permit.
func (c *call) queued(b *bulkhead, w *semaphore.Waiter, turn <-chan bool, maxWait time.Duration) bool {
	timer := time.NewTimer(min(maxWait, c.deadline.Sub(c.now)))
	defer timer.Stop()
	select {
	case granted := <-turn:
		return granted
	case <-timer.C:
	case <-c.caller.Done():
	}
	if b.permits.Withdraw(w) {
		return false
	}
	return <-turn // it came at the same moment
}

func (c *call) returnUnused(b *bulkhead, granted bool) {
	if granted {
		b.release(c.now)
	}
}

// reject settles the call as rejected, or as shut down if that is why nobody is
// let in any more.
func (c *call) reject() error {
	if shut := c.cmd.circuit.shutDown(); shut != nil {
		return c.refuse(shut.outcome, shut.err)
	}
	return c.refuse(OutcomeRejected, c.cmd.rejected)
}

// askAgain asks the circuit once more for a call that waited, if the era changed
// meanwhile: calls queued before a trip would run into the outage one by one (S3).
func (c *call) askAgain() *door {
	if !c.cmd.circuit.changed(c.token) {
		return nil
	}
	was := c.token
	shut := c.cmd.circuit.admit(c)
	if shut == retired { // its command made way; it was admitted, and stays counted here
		c.token = was
		return nil
	}
	c.cmd.circuit.giveBack(was, c.now)
	return shut
}

// limiter bounds the fallbacks of a command.
// Invariant: taken is at most the limit that the last taker saw.
type limiter struct{ taken atomic.Int64 }

func (l *limiter) take(limit int64) bool {
	for {
		n := l.taken.Load()
		if n >= limit {
			return false
		}
		if l.taken.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (l *limiter) putBack() { l.taken.Add(-1) }

func (l *limiter) inUse() int { return int(l.taken.Load()) }
