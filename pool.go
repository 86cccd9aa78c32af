package firebreak

import (
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak/internal/deadline"
	"github.com/firebreak-go/firebreak/internal/mono"
	"github.com/firebreak-go/firebreak/internal/semaphore"
)

// A pool is a bulkhead's permits, its queue, and as many goroutines as there are
// runs: a worker that is done takes the next queued call, or ends.

// A jobState says who owns a job: whoever moves it owns what follows (S45).
//
//	queued ──▶ running ──▶ done        by the worker, who settles it and wakes the caller
//	  │  └───▶ dropped                 by a worker: its turn came too late
//	  ▼          └──▶ left             by the caller, who settles it and returns;
//	withdrawn                          the worker keeps the permit until run returns
type jobState struct{ word atomic.Uint32 }

const (
	jobQueued uint32 = iota
	jobRunning
	jobDone
	jobDropped
	jobWithdrawn
	jobLeft
)

func (s *jobState) is(state uint32) bool      { return s.word.Load() == state }
func (s *jobState) step(from, to uint32) bool { return s.word.CompareAndSwap(from, to) }

// A runner is a job, whatever its types are.
type runner interface {
	// serve runs the job with a worker's permit and returns the next job that the
	// permit is now for, or nil.
	serve() runner
}

// work is a worker.
func work(r runner) {
	for r != nil {
		r = r.serve()
	}
}

// A job is one call in a pool, shared by its caller and its worker.
type job[In, T any] struct {
	state  jobState
	over   deadline.Context // of run, unless Timeout is Off
	task   task[In, T]
	waiter semaphore.Waiter
	queued bool      // it was; set before it can have a worker
	wake   chan bool // of the caller: true when the job is over, false at its deadline; each once, and there is room for both

	// The worker's until the job is over, then the caller's.
	call call
	v    T
	end  ending

	leftAs Outcome // set by the caller before it leaves
}

// performInPool is perform under pool isolation, from the permit on.
func performInPool[In, T any](c *call, t task[In, T]) (v T, err error) {
	j, err := enlist(c, t)
	if err != nil {
		return v, err
	}
	return j.wait(c)
}

// enlist gives a call a worker or a place in the queue. An error is the call's,
// settled.
func enlist[In, T any](c *call, t task[In, T]) (*job[In, T], error) {
	b := &c.cmd.dependency.bulkhead
	c.now = c.cmd.clock.Now()
	c.submit(c.now)
	free := b.permits.TryAcquire()
	room := b.bounds.Load().queue
	if !free && b.permits.Queued() >= room {
		return nil, c.reject()
	}
	j := &job[In, T]{task: t, call: *c, wake: make(chan bool, 2)}
	if c.deadline != mono.Never {
		j.over.Init(c.caller, c.cmd.clock, c.deadline)
	}
	if !free {
		j.waiter.Turn, j.waiter.Job, j.queued = j.turn, j, true
		c.cmd.waiting.Add(1)
		switch b.permits.Wait(&j.waiter, room) {
		case semaphore.Granted:
			c.cmd.waiting.Add(-1)
			free, j.queued = true, false
		case semaphore.Full, semaphore.Closed:
			c.cmd.waiting.Add(-1)
			return nil, c.reject()
		}
	}
	if free {
		j.call.begin(c.now)
		j.state.word.Store(jobRunning)
		go work(j)
	}
	return j, nil
}

// turn is what the bulkhead calls when a queued job may go, or never will.
func (j *job[In, T]) turn(granted bool) {
	if granted {
		go work(j)
		return
	}
	j.call.now = j.call.cmd.clock.Now()
	shut := j.call.cmd.circuit.shutDown() // circuits are shut before bulkheads
	j.drop(shut.outcome, shut.err)
}

// wait waits for a caller until its job is over, or its time is.
func (j *job[In, T]) wait(c *call) (v T, err error) {
	if c.deadline != mono.Never {
		// One channel for both, and no timer's own: three allocations fewer.
		timer := time.AfterFunc(c.deadline.Sub(c.now), j.expire)
		defer timer.Stop()
	}
	left := c.caller.Done()
	for {
		select {
		case over := <-j.wake:
			if over {
				return j.result(c)
			}
		case <-left:
			left = nil
		}
		if err, gone := j.leave(c); gone {
			return v, err
		}
		// The job was over at the same moment, and says so at once.
	}
}

func (j *job[In, T]) expire() { j.wake <- false }

// result is what the caller of a job that is over gets.
func (j *job[In, T]) result(c *call) (v T, err error) {
	*c = j.call
	if j.state.is(jobDropped) {
		return v, c.refuse(j.end.outcome, j.end.err)
	}
	c.told(&j.end)
	return j.v, j.end.err
}

// leave takes the caller away from a job that is not done: out of the queue, or
// from a run that goes on without it.
func (j *job[In, T]) leave(c *call) (err error, gone bool) {
	now := c.cmd.clock.Now()
	b := &c.cmd.dependency.bulkhead
	if j.state.step(jobQueued, jobWithdrawn) {
		b.permits.Withdraw(&j.waiter)
		c.cmd.waiting.Add(-1)
		c.now = now
		if err := c.caller.Err(); err != nil {
			return c.refuse(OutcomeGaveUp, err), true
		}
		return c.refuse(OutcomeRejected, c.cmd.rejectedLate), true
	}
	var end ending
	if !c.late(&j.over, now, nil, &end) {
		return nil, false
	}
	j.leftAs = end.outcome
	b.abandoned.Add(1)
	if !j.state.step(jobRunning, jobLeft) {
		b.abandoned.Add(-1)
		return nil, false
	}
	// What the worker wrote before run began. It goes on with the rest of its call.
	c.token, c.cell, c.started = j.call.token, j.call.cell, j.call.started
	c.left = true
	c.book(now, &end)
	c.told(&end)
	return end.err, true
}

func (j *job[In, T]) serve() (next runner) {
	if !j.start() {
		return j.call.cmd.dependency.bulkhead.pass(j.call.now)
	}
	c := &j.call
	within := c.caller
	if c.deadline != mono.Never {
		within = &j.over
	}
	returned := false
	var v T // here, as it stays run's beside a panic of Classify's (S8)
	var err error
	defer func() {
		if returned {
			return
		}
		r := recover() // nil: Goexit
		end := panicked(r)
		next = j.finish(c.cmd.clock.Now(), end, v)
		if r == nil && next != nil { // this goroutine ends: the permit goes on with another
			go work(next)
		}
	}()
	if c.inject == nil {
		v, err = j.task.call(within)
	} else {
		v, err = runInjected(c, &j.task, within)
	}
	now := c.cmd.clock.Now()
	var end ending
	c.verdict(&j.over, now, err, &end)
	returned = true
	return j.finish(now, end, v)
}

// start tells whether run is to be called: its turn has come, its time is not
// over, and the circuit has not changed its mind.
func (j *job[In, T]) start() bool {
	if !j.queued {
		return true // it has been running since its caller found a permit; that one may have left already
	}
	c := &j.call
	c.now = c.cmd.clock.Now()
	switch err := c.caller.Err(); {
	case err != nil:
		return j.drop(OutcomeGaveUp, err)
	case c.now >= c.deadline:
		return j.drop(OutcomeRejected, c.cmd.rejectedLate)
	}
	asked := false
	defer func() {
		if !asked { // an observer that was told of a probe called Goexit: the job has another worker
			go work(j)
		}
	}()
	shut := c.askAgain()
	asked = true
	if shut != nil {
		return j.drop(shut.outcome, shut.err)
	}
	c.begin(c.now)
	if !j.state.step(jobQueued, jobRunning) { // withdrawn meanwhile
		c.cmd.metrics.end(c.cell, c.now)
		c.cmd.circuit.giveBack(c.token, c.now)
		return false
	}
	c.cmd.waiting.Add(-1)
	return true
}

// drop takes a queued job out without a run, unless its caller has done so. The
// caller settles it. It returns false, as start does.
func (j *job[In, T]) drop(o Outcome, err error) bool {
	cmd := j.call.cmd
	j.end = ending{outcome: o, err: err}
	if j.state.step(jobQueued, jobDropped) {
		cmd.waiting.Add(-1)
		j.wake <- true
	}
	return false
}

// finish is the end of a run on its worker, who settles it and wakes the caller.
func (j *job[In, T]) finish(now mono.Time, end ending, v T) (next runner) {
	c, b := &j.call, &j.call.cmd.dependency.bulkhead
	if c.deadline != mono.Never {
		j.over.Finish()
	}
	if !j.state.step(jobRunning, jobDone) {
		return j.finishAlone(now, end)
	}
	j.v, j.end = v, end
	c.book(now, &end)
	next = b.pass(now)
	j.wake <- true
	return next
}

// finishAlone is the end of a run whose caller has left, and settled: no outcome,
// no sample, no value.
func (j *job[In, T]) finishAlone(now mono.Time, end ending) (next runner) {
	c, b := &j.call, &j.call.cmd.dependency.bulkhead
	overran := c.overdue(now, &end)
	c.cmd.metrics.end(c.cell, now)
	if overran {
		c.cmd.metrics.add(c.cell, now, eventOverran, false, 0)
	}
	b.abandoned.Add(-1)
	next = b.pass(now)
	if !c.cmd.registry.watched.Load() || !overran && end.outcome != OutcomePanic {
		return next
	}
	if next != nil { // a slow observer delays nobody else
		go work(next)
	}
	e := CallEvent{
		Dependency: c.cmd.dependency.name, Command: c.cmd.family, Key: c.cmd.key,
		Outcome: j.leftAs, Err: end.err, Run: now.Sub(c.started), Call: now.Sub(c.submitted),
	}
	c.cmd.observe(func(o *Observer) {
		if o.Overrun != nil {
			o.Overrun(c.caller, e)
		}
	})
	return nil
}
