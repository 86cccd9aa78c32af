package firebreak

import (
	"context"
	"iter"

	"github.com/firebreak-go/firebreak/internal/mono"
)

// Stream returns a sequence like run's, guarded by cmd. Each range over it is one call,
// on the ranging goroutine: admitted when the loop begins, with a permit until it is
// left; under pool isolation it takes no worker and no place in a queue.
//
// [Config.Timeout] bounds each wait for an item, that for the first from the beginning.
// The loop's own work is not counted, nor is it in the latencies. An item that comes too late is not yielded, and
// an end that does is not taken for one: the stream ends with [ErrTimeout], as its
// context has ended.
//
// The first error that run yields is the call's, and ends the stream. The last thing
// that the loop gets is then what [Do] would return, a value beside the error too.
// Before the first item fallbacks are asked, in order: nil ones are skipped, and one
// whose first yield is an error passes to the next. A stream that ends in time without
// an error is a success, and so is one whose loop is left after an item, as the
// dependency was answering.
//
// The sequence may be ranged over again, and by many at once, as far as run's may.
//
// A panic in run goes on up, unless [Config.RecoverPanics] makes it an error; one in
// the loop's body is none of the dependency's. Stream panics if ctx, cmd or run is
// nil.
func Stream[T any](ctx context.Context, cmd *Command, run func(context.Context) iter.Seq2[T, error], fallbacks ...func(ctx context.Context, cause error) iter.Seq2[T, error]) iter.Seq2[T, error] {
	must(ctx != nil && cmd != nil && run != nil)
	asked := make([]func(context.Context, error) iter.Seq2[T, error], 0, len(fallbacks))
	for _, f := range fallbacks {
		if f != nil {
			asked = append(asked, f)
		}
	}
	return func(yield func(T, error) bool) {
		first := call{begun: true, given: len(asked) > 0}
		first.of(ctx, cmd)
		s := &stream[T]{run: run, fallbacks: asked, yield: yield, call: &first}
		c, err := begin(&first)
		if err == nil {
			s.call = &c.call
			err = s.items(c)
		}
		if s.call.asks {
			err = s.fallBack(err)
		}
		if err != nil && !s.left {
			yield(s.beside, err)
		}
	}
}

// A stream is one loop over a [Stream].
type stream[T any] struct {
	run       func(context.Context) iter.Seq2[T, error]
	fallbacks []func(ctx context.Context, cause error) iter.Seq2[T, error]
	yield     func(T, error) bool
	call      *call
	beside    T    // what run yielded with its error
	left      bool // the loop was
	gave      mono.Time
}

// items yields what run does, and returns the error of the call.
func (s *stream[T]) items(c *Call) (err error) {
	defer c.End()
	returned := false
	defer func() {
		switch {
		case returned:
		case s.call.looping: // a panic or Goexit of the loop's
			s.took()
			c.Settle(nil) //nolint:errcheck // nil
		default:
			end := ending{outcome: OutcomePanic, cause: errPanicked}
			if s.call.set.recoverPanics {
				if r := recover(); r != nil {
					end = panicked(r)
					err = end.err
				}
			}
			c.settleAs(end)
			if end.err == nil && s.call.asks { // it had failed before: nobody will ask the fallbacks
				s.call.answered(eventFallbackFailure, nil)
			}
		}
	}()
	if err := c.inject(); err != nil {
		returned = true
		return err
	}
	for v, failure := range s.run(c.Context()) {
		if failure != nil {
			s.beside, err = v, c.Settle(failure)
			break
		}
		if !c.Extend(Off) {
			err = c.Settle(context.DeadlineExceeded)
			break
		}
		s.call.bare = true
		s.call.cmd.metrics.also(eventEmitted, 1, s.call.cmd.clock.Now())
		if !s.give(v, nil) {
			break
		}
		if t := s.call.set.timeout; t > 0 {
			c.Extend(t)
		}
	}
	returned = true
	if err == nil && !s.left && !c.Extend(Off) { // it ended because its context had, or might as well have
		return c.Settle(context.DeadlineExceeded)
	}
	c.Settle(nil) //nolint:errcheck // nil; or it is settled
	return err
}

// give hands an item to the loop, and tells whether it wants more.
func (s *stream[T]) give(v T, err error) bool {
	s.call.looping, s.gave = true, s.call.cmd.clock.Now()
	more := s.yield(v, err)
	s.call.looping = false
	s.took()
	s.left = !more
	return more
}

// took takes the time that the loop had an item off the call's: it is not the
// dependency that is slow then.
func (s *stream[T]) took() {
	loop := s.call.cmd.clock.Now().Sub(s.gave)
	s.call.submitted = s.call.submitted.Add(loop)
	if !s.call.asks { // else the run is over
		s.call.started = s.call.started.Add(loop)
	}
}

// fallBack yields what a fallback does, and returns the error if none does.
func (s *stream[T]) fallBack(cause error) error {
	_, err := answer(s.call, struct{}{}, cause, len(s.fallbacks), func(i int, ctx context.Context, cause error) (none struct{}, err error, asked bool) {
		some := false
		for v, failure := range s.fallbacks[i](ctx, cause) {
			if failure != nil && !some {
				return none, failure, true
			}
			some = true
			if !s.give(v, failure) || failure != nil {
				s.left = true
				break
			}
		}
		return none, nil, true
	})
	return err
}
