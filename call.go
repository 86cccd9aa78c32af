package firebreak

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak/internal/deadline"
	"github.com/firebreak-go/firebreak/internal/mono"
)

// A Call is a call between [Command.Begin] and [Call.End]. Settle tells how the
// dependency did, End that the work is over; the first of each counts. Its methods
// may be used concurrently. It has no usable zero value.
type Call struct {
	call  call
	over  *deadline.Movable
	began *cell // where it is counted as running

	settled, ended atomic.Bool

	mu    sync.Mutex  // guards the deadline: call.deadline, while not settled, and the rest
	timer *time.Timer // nil if there was no timeout
	armed bool        // the timer is to fire, at fires
	fires mono.Time
	past  bool // the deadline has passed
}

// Begin admits a call whose work does not fit in a function: consumers, response
// bodies, other libraries' streams. It takes a permit but, under pool isolation,
// no worker and no place in a queue; under semaphore isolation it may wait as
// [Config.MaxWait] says. It has no fallback: its error is the refusal, as [Do]
// would return it. Begin panics if ctx or the command is nil.
//
// Whoever has the Call must End it. Defer that.
func (c *Command) Begin(ctx context.Context) (*Call, error) {
	must(ctx != nil && c != nil)
	first := call{begun: true, bare: true}
	first.of(ctx, c)
	cl, err := begin(&first)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cl.call.inject != nil { // it failed, panicked or called Goexit
			cl.End()
		}
	}()
	if err := cl.inject(); err != nil {
		return nil, err
	}
	return cl, nil
}

// begin admits a call that has its settings. An error is the call's, settled.
func begin(first *call) (*Call, error) {
	if err := first.admit(); err != nil {
		return nil, err
	}
	c := &Call{call: *first, over: deadline.NewMovable(first.caller), began: first.cell}
	if first.deadline != mono.Never {
		c.mu.Lock()
		c.armLocked(first.now)
		c.mu.Unlock()
	}
	return c, nil
}

// inject calls what an override put in the place of the work. An error of it is
// the call's, which is then settled.
func (c *Call) inject() error {
	if c.call.inject == nil {
		return nil
	}
	if err := c.call.inject(c.Context()); err != nil {
		return c.Settle(err)
	}
	c.call.inject = nil
	return nil
}

// Context ends with Begin's, when the timeout passes before Settle, and at End.
// At the timeout its Err is [context.DeadlineExceeded] and its cause [ErrTimeout].
// It reports no deadline but the caller's, since Settle and Extend move the
// command's: a server that is told of one would hang up.
func (c *Call) Context() context.Context { return c.over.Context() }

// Settle is the verdict on the call, as of an error that run returned to [Do], and
// returns the error that Do would without fallbacks; nil is success. It lifts the
// timeout and keeps the permit. Later calls of it, and those after End, do nothing
// and return err.
func (c *Call) Settle(err error) (verdict error) {
	if !c.settled.CompareAndSwap(false, true) {
		return err
	}
	c.lift()
	judged := false
	defer func() {
		if judged {
			return
		}
		end := ending{outcome: OutcomePanic, cause: errPanicked} // Classify is part of the work
		if c.call.set.recoverPanics {
			if r := recover(); r != nil {
				end = panicked(r)
				verdict = end.err
			}
		}
		c.bookAt(c.call.cmd.clock.Now(), end)
	}()
	now := c.call.cmd.clock.Now()
	var end ending
	c.call.verdict(c.over, now, err, &end)
	judged = true
	c.bookAt(now, end)
	return end.err
}

// settleAs is Settle for an ending that is no error of the work's.
func (c *Call) settleAs(end ending) {
	if c.settled.CompareAndSwap(false, true) {
		c.lift()
		c.bookAt(c.call.cmd.clock.Now(), end)
	}
}

// Extend moves the timeout to d from now, or lifts it if d is [Off]. It tells
// whether it did: not once the timeout has passed, or was lifted by Settle or End.
func (c *Call) Extend(d time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.call.cmd.clock.Now()
	if c.settled.Load() || c.past || now >= c.call.deadline {
		return false
	}
	c.call.deadline = mono.Never
	if d != Off {
		c.call.deadline = now.Add(d)
		c.armLocked(now)
	}
	return true
}

// armLocked makes sure that the timer fires at the deadline, or before: then it looks
// again. So a deadline that moves on with each item of a stream costs no timer.
func (c *Call) armLocked(now mono.Time) {
	left := c.call.deadline.Sub(now)
	switch {
	case c.timer == nil:
		c.timer = time.AfterFunc(left, c.expire)
	case !c.armed || c.call.deadline < c.fires:
		c.timer.Reset(left)
	default:
		return
	}
	c.armed, c.fires = true, c.call.deadline
}

// End says that the work is over: the permit goes back and the context ends. A
// call not settled by now counts as a timeout, or as ended by its caller, if one of
// them came first, and else as a panic: whoever gets here without a verdict was
// thrown off its way. Later calls do nothing.
func (c *Call) End() {
	if !c.ended.CompareAndSwap(false, true) {
		return
	}
	var end ending
	unsettled := c.settled.CompareAndSwap(false, true)
	if unsettled {
		c.lift()
		now := c.call.cmd.clock.Now()
		if !c.call.late(c.over, now, nil, &end) {
			end = ending{outcome: OutcomePanic, cause: errPanicked}
		}
		c.call.book(now, &end)
	}
	c.over.Finish()
	now := c.call.cmd.clock.Now()
	c.call.cmd.metrics.end(c.began, now)
	c.call.cmd.dependency.bulkhead.release(now)
	if unsettled {
		c.call.told(&end) // when the permit is back
	}
}

// lift stops the timer of a call that is settled: the deadline stays as it is.
func (c *Call) lift() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
}

// expire ends the context of a call whose time is over, or waits for the deadline to
// which that was moved.
func (c *Call) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = false
	if c.settled.Load() || c.call.deadline == mono.Never {
		return
	}
	if now := c.call.cmd.clock.Now(); now < c.call.deadline {
		c.armLocked(now)
		return
	}
	c.past = true
	c.over.Expire(ErrTimeout)
}

func (c *Call) bookAt(now mono.Time, end ending) {
	c.call.book(now, &end) // the run goes on to End
	c.call.told(&end)
}
