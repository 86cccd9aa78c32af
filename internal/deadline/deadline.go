// Package deadline makes contexts for calls that are limited in time: [Context],
// which costs little while nobody waits on it, and [Movable], whose deadline can be
// moved after it is made.
package deadline

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak/internal/mono"
)

// A Context is the context of one call: what [context.WithDeadline] would give, but
// one small object without a timer until somebody asks for Done. Where nobody does,
// a call pays 105 ns for it against 640, and 1 allocation against 4
// (BenchmarkUntouched).
//
// The first Done makes a standard context below the parent, which from then on
// answers everything. So children attach to that one, without a goroutine. The
// first Err that is not nil makes it too, for then [context.Cause] agrees.
//
// It may be used concurrently and kept after the call, and is never used for
// another: whoever kept it holds a cancelled one. The zero Context is not usable.
type Context struct {
	parent context.Context
	clock  *mono.Clock
	at     mono.Time
	std    takeover
}

// New returns a context that ends with parent, at the moment at, or by
// [Context.Finish].
func New(parent context.Context, clock *mono.Clock, at mono.Time) *Context {
	c := new(Context)
	c.Init(parent, clock, at)
	return c
}

// Init is [New] for a zero Context that is part of something larger.
func (c *Context) Init(parent context.Context, clock *mono.Clock, at mono.Time) {
	c.parent, c.clock = parent, clock
	c.at = min(at, mono.Never-1) // Never is no moment, and would be long past as one
}

// Deadline returns the sooner of the parent's and its own.
func (c *Context) Deadline() (time.Time, bool) {
	at := c.clock.Moment(c.at)
	if d, ok := c.parent.Deadline(); ok && d.Before(at) {
		return d, true
	}
	return at, true
}

// Done makes the standard context.
func (c *Context) Done() <-chan struct{} { return c.arm().Done() }

// Err turns at the deadline without a timer, by the clock, while nobody has asked
// for Done.
func (c *Context) Err() error {
	s := c.std.get()
	if s == nil {
		if c.parent.Err() == nil && c.clock.Now() < c.at {
			return nil
		}
		s = c.arm()
	}
	return s.Err()
}

// Value asks the standard context once there is one: it answers the key by which
// package context finds its own kind.
func (c *Context) Value(key any) any {
	switch s := c.std.get(); s {
	case nil:
		return c.parent.Value(key)
	case finished:
		if v := s.Value(key); v != nil { // that key only: it bears no values
			return v
		}
		return c.parent.Value(key)
	default:
		return s.Value(key)
	}
}

// String leaves out what others may be writing. Without it a test's mock or a log
// that prints its arguments would be a data race.
func (c *Context) String() string {
	at, _ := c.Deadline()
	return "deadline.Context(" + at.String() + ")"
}

// Finish says that the call is over. Err is [context.Canceled] from now on, unless
// it had turned before. An end that nobody saw is no end: the clock is not read.
// Later calls do nothing.
func (c *Context) Finish() { c.std.offer(finished).cancel() }

// ByParent reports whether the call saw its context end, before the deadline, by a
// cancel of the parent's. It means something before [Context.Finish] only.
func (c *Context) ByParent() bool {
	s := c.std.get()
	if s == nil {
		return false // nobody saw anything
	}
	err := s.Err()
	return err != nil && !errors.Is(err, context.DeadlineExceeded)
}

// arm returns the standard context, and makes it if there is none.
func (c *Context) arm() *standard {
	if s := c.std.get(); s != nil {
		return s
	}
	parent, at := c.parent, c.clock.Moment(c.at)
	if c.clock.Now() >= c.at && !endedBefore(parent, at) {
		// Nobody watched, so which came first is not known if the parent has ended
		// too. It is the deadline: the clock proves that it has passed, and a cancel
		// that comes after it must not hide it.
		parent = context.WithoutCancel(parent)
	}
	ctx, cancel := context.WithDeadline(parent, at)
	return c.std.offer(&standard{ctx, cancel})
}

// endedBefore reports whether ctx has certainly ended before the moment at, which
// has passed: its own deadline was sooner.
func endedBefore(ctx context.Context, at time.Time) bool {
	d, ok := ctx.Deadline()
	return ok && d.Before(at) && ctx.Err() != nil
}

// standard is a context of package context's own, with its cancel.
type standard struct {
	context.Context
	cancel context.CancelFunc
}

// finished stands in where the call was over before anybody asked. Its channel is
// older than any test bubble, and closed, so it may be in all of them.
var finished = func() *standard {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return &standard{ctx, func() {}}
}()

// takeover is the standard context that answers for a [Context], nil while there
// is none. Invariant: it is set once and never changed, so what anybody has seen of
// it stays true: which channel Done is, and that Err has turned.
type takeover struct{ p atomic.Pointer[standard] }

func (t *takeover) get() *standard { return t.p.Load() }

// offer sets s if there is none, else cancels it, and returns the one that is set.
func (t *takeover) offer(s *standard) *standard {
	if t.p.CompareAndSwap(nil, s) {
		return s
	}
	s.cancel()
	return t.p.Load()
}
