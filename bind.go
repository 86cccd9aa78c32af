package firebreak

import "context"

// Bind returns fn guarded by cmd: the same type in and out, so that it takes the
// place of a client's method. Each call of it is one call of [Do], with the same
// errors; its fallbacks see the argument, and nil ones are skipped. Its calls are
// the cheapest there are, as the argument needs no closure.
//
// It panics if cmd or fn is nil.
func Bind[In, Out any](cmd *Command, fn func(context.Context, In) (Out, error), fallbacks ...func(ctx context.Context, in In, cause error) (Out, error)) func(context.Context, In) (Out, error) {
	if cmd == nil || fn == nil {
		panic("firebreak: Bind needs a command and a function")
	}
	asked := make([]func(context.Context, In, error) (Out, error), 0, len(fallbacks))
	for _, f := range fallbacks {
		if f != nil {
			asked = append(asked, f)
		}
	}
	return func(ctx context.Context, in In) (Out, error) {
		must(ctx != nil)
		c := call{given: len(asked) > 0}
		c.of(ctx, cmd)
		var v Out
		err := c.admit()
		if err == nil {
			v, err = perform(&c, task[In, Out]{bound: fn, in: in})
		}
		if !c.asks {
			return v, err
		}
		return answer(&c, v, err, len(asked), func(i int, ctx context.Context, cause error) (Out, error, bool) {
			v, err := asked[i](ctx, in, cause)
			return v, err, true
		})
	}
}
