package firebreak

import (
	"context"
	"slices"
	"time"

	"github.com/firebreak-go/firebreak/internal/mono"
)

// An Observer is told what happens, outside every lock, on the goroutines of
// callers. Nil functions are skipped. A slow one delays the call that tells it and
// no other; a panic of one is recovered and counted. Observers may call anything
// of this package. One that has a Transition alone costs calls nothing.
type Observer struct {
	// Transition: a circuit changed its state, or the mode or override of one came
	// or went. In order for each command. That an override is over is told with the
	// next call; Shutdown is told as a transition to open, without a rule.
	Transition func(Transition)
	// Call: a call has its outcome, before its fallbacks.
	Call func(context.Context, CallEvent)
	// Fallback: the fallbacks that a call asked are done.
	Fallback func(context.Context, CallEvent)
	// Overrun: a run ended too long after its deadline, or panicked after its
	// caller had left.
	Overrun func(context.Context, CallEvent)
}

// A Transition is a change of a circuit. One of mode alone has From equal to To.
type Transition struct {
	Dependency, Command, Key string
	From, To                 State
	Mode                     Mode     // in force from now on
	Override                 Override // likewise; zero if none is
	At                       time.Time
	Evidence                 Evidence // of the last opening: of this one, if To is open; then zero if no rule opened it
}

// A CallEvent is one call, as far as it has gone.
type CallEvent struct {
	Dependency, Command, Key string
	Outcome                  Outcome
	Fallback                 Outcome       // in Observer.Fallback: success, failure or rejected; else zero
	Err                      error         // run's error or the refusal; in Observer.Fallback the fallbacks'
	Run, Call                time.Duration // in run, and since the call was submitted; Run is 0 if it was refused
}

// observe tells every observer, each as if it were alone.
func (c *Command) observe(tell func(*Observer)) {
	all := c.registry.observers.Load()
	if all == nil {
		return
	}
	for _, o := range *all {
		c.observeOne(o, tell)
	}
}

func (c *Command) observeOne(o *Observer, tell func(*Observer)) {
	defer func() {
		if recover() != nil {
			c.metrics.count(eventObserverPanic, c.clock.Now())
		}
	}()
	tell(o)
}

func (c *Command) observeTransition(n news) {
	c.observe(func(o *Observer) {
		if o.Transition != nil && slices.Contains(n.observers, o) {
			o.Transition(n.Transition)
		}
	})
}

// news is a transition for those who were there when it happened.
type news struct {
	Transition
	observers []*Observer
}

// newsLocked queues a transition for the observers, if there are any.
func (c *circuit) newsLocked(from State, now mono.Time) {
	all := c.cmd.registry.observers.Load()
	if all == nil {
		return
	}
	o := c.override.Load()
	t := Transition{
		Dependency: c.cmd.dependency.name, Command: c.cmd.family, Key: c.cmd.key,
		From: from, To: c.era.Load().kind.state(), Mode: modeInForce(c.mode, o), At: c.cmd.clock.Moment(now),
	}
	if o != nil {
		t.Override = o.Override
	}
	if kind := c.era.Load().kind; kind != eraForcedOpen && kind != eraShut { // those opened without any
		t.Evidence = c.evidenceLocked()
	}
	c.news = append(c.news, news{t, *all})
}

// tell tells observers the news, in order, outside the lock, one goroutine at a
// time: whoever comes while another is telling leaves its news with that one.
func (c *circuit) tell() {
	if c.cmd.registry.observers.Load() == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.telling {
		return
	}
	c.telling = true
	defer func() {
		c.telling = false
		if len(c.news) > 0 { // an observer called Goexit: somebody else has to tell the rest
			go c.tell()
		}
	}()
	for len(c.news) > 0 {
		n := c.news[0]
		c.news = c.news[1:]
		c.tellOneLocked(n)
	}
	c.news = nil
}

// tellOneLocked lets go of the lock while it tells, also if an observer calls Goexit.
func (c *circuit) tellOneLocked(n news) {
	c.mu.Unlock()
	defer c.mu.Lock()
	c.cmd.observeTransition(n)
}
