package deadline

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A Movable is a context whose deadline is not known when it is made: its owner has
// a timer, moves or stops it at will, and calls [Movable.Expire] when it fires. Of
// the parent's end, Expire and [Movable.Finish] the first wins. Its methods may be
// used concurrently; the zero Movable is not usable.
type Movable struct {
	ctx     context.Context
	cancel  context.CancelFunc
	source  source
	unwatch func() bool
}

// NewMovable returns a Movable below parent. Whoever makes it must call Finish.
func NewMovable(parent context.Context) *Movable {
	m := &Movable{source: source{Context: parent, done: make(chan struct{})}}
	m.ctx, m.cancel = context.WithCancel(&m.source)
	m.unwatch = context.AfterFunc(parent, m.source.follow)
	m.source.follow()
	return m
}

// Context returns the context for users. It is one of the standard library's, so
// children attach to it without a goroutine. It reports the parent's deadline only.
// That the parent has ended it learns a moment later, from a goroutine.
func (m *Movable) Context() context.Context { return m.ctx }

// Expire ends the context as a deadline does: Err is [context.DeadlineExceeded] and
// [context.Cause] is cause. When it returns, Done is closed.
func (m *Movable) Expire(cause error) {
	m.source.follow()
	values := context.WithoutCancel(m.source.Context)
	expired, cancel := context.WithDeadlineCause(values, time.Time{}, cause)
	cancel() // nothing to cancel: the zero time is long past
	m.source.end(expired)
}

// ByParent reports whether the context has ended by a cancel of the parent's. It
// means something before [Movable.Finish] only.
func (m *Movable) ByParent() bool {
	err := m.ctx.Err()
	return err != nil && !errors.Is(err, context.DeadlineExceeded)
}

// Finish ends the context with [context.Canceled], if nothing did before, and lets
// go of the parent.
func (m *Movable) Finish() {
	m.source.follow()
	m.cancel()
	m.unwatch()
}

// A source is the parent of the one context that a [Movable] gives out. It exists
// because a CancelFunc cannot say DeadlineExceeded, while a parent's Err and Cause,
// whatever they are, become the child's. Values and deadline are those of the
// caller's context, which is embedded.
type source struct {
	context.Context
	done  chan struct{}
	once  sync.Once       // who loses waits, so that done is closed for it too
	by    context.Context // what ended it; written before done is closed, read after
	child func()          // tells the child, on the goroutine that calls it
}

// follow takes over the end of the caller's context if that has come. Besides the
// goroutine that is woken for it, everybody does who would else overtake it.
func (s *source) follow() {
	if s.Context.Err() != nil {
		s.end(s.Context)
	}
}

// end takes over the end of by. The order matters: child asks source for its Err
// and its cause.
func (s *source) end(by context.Context) {
	s.once.Do(func() {
		s.by = by
		close(s.done)
		s.child()
	})
}

func (s *source) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *source) Done() <-chan struct{} { return s.done }

func (s *source) Err() error {
	if !s.ended() {
		return nil
	}
	return s.by.Err()
}

// Value asks what ended it, as that knows the cause; it bears the same values.
func (s *source) Value(key any) any {
	if s.ended() {
		return s.by.Value(key)
	}
	return s.Context.Value(key)
}

// AfterFunc is what package context looks for in a parent that is not its own, to do
// without a goroutine. Source and child live and die together, so there is one f,
// and no need to take it back.
func (s *source) AfterFunc(f func()) (stop func() bool) {
	s.child = f
	return func() bool { return false }
}
