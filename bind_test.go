package firebreak_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// binding is Bind as a verb: run is bound with an argument.
func binding(ctx context.Context, cmd *firebreak.Command, run func(context.Context) (int, error), fallback firebreak.Fallback[int]) (int, error) {
	fn := func(ctx context.Context, run func(context.Context) (int, error)) (int, error) { return run(ctx) }
	if fallback == nil {
		return firebreak.Bind(cmd, fn, nil)(ctx, run)
	}
	return firebreak.Bind(cmd, fn, nil, func(ctx context.Context, _ func(context.Context) (int, error), cause error) (int, error) {
		return fallback(ctx, cause)
	})(ctx, run)
}

// running is Run as a verb. It has no values: the last one that was made is there.
func running(ctx context.Context, cmd *firebreak.Command, run func(context.Context) (int, error), fallback firebreak.Fallback[int]) (int, error) {
	values := make(chan int, 2) // a run whose caller left may come home later
	fn := func(ctx context.Context) error {
		v, err := run(ctx)
		values <- v
		return err
	}
	back := func(ctx context.Context, cause error) error {
		v, err := fallback(ctx, cause)
		if err == nil {
			select {
			case <-values:
			default:
			}
			values <- v
		}
		return err
	}
	var err error
	if fallback == nil {
		err = cmd.Run(ctx, fn, nil)
	} else {
		err = cmd.Run(ctx, fn, nil, back)
	}
	select {
	case v := <-values:
		return v, err
	default:
		return 0, err
	}
}

// Bind and Run are Do: every outcome, in the same words.
func TestBindIsDo(t *testing.T) { requireIsDo(t, binding) }

func TestRunIsDo(t *testing.T) { requireIsDo(t, running) }

func requireIsDo(t *testing.T, how verb) {
	t.Helper()
	for _, mode := range []struct {
		name           string
		given, answers bool
	}{{"without a fallback", false, false}, {"answered", true, true}, {"failed", true, false}} {
		t.Run(mode.name, func(t *testing.T) {
			eachOutcome(t, func(t *testing.T, in firebreak.Isolation, row *outcomeRow) {
				requireOutcome(t, in, row, how, mode.given, mode.answers)
			})
		})
	}
}

func TestBoundFunctionsSeeTheirArgument(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		var asked []string
		get := firebreak.Bind(p.cmd,
			func(_ context.Context, key string) (string, error) {
				if key == "a" {
					return "A", nil
				}
				return "half of " + key, errBoom
			},
			nil,
			func(_ context.Context, key string, cause error) (string, error) {
				require.True(t, cause == errBoom)
				asked = append(asked, "first "+key)
				if key == "b" {
					return "B", nil
				}
				return "", errCache
			},
			func(_ context.Context, key string, cause error) (string, error) {
				require.True(t, cause == errBoom)
				asked = append(asked, "second "+key)
				return "", errNotFound
			})

		v, err := get(t.Context(), "a")
		require.NoError(t, err)
		require.Equal(t, "A", v)
		v, err = get(t.Context(), "b")
		require.NoError(t, err)
		require.Equal(t, "B", v)
		v, err = get(t.Context(), "c")
		require.ErrorIs(t, err, errBoom)
		require.ErrorIs(t, err, errCache)
		require.ErrorIs(t, err, errNotFound)
		require.Equal(t, "half of c", v)
		require.Equal(t, []string{"first b", "first c", "second c"}, asked)
	})
}

// Fallbacks are those that Bind was given, whatever becomes of the slice.
func TestBindKeepsItsFallbacks(t *testing.T) {
	p := newPlace(t, semaphores, firebreak.Config{})
	fallbacks := []func(context.Context, int, error) (int, error){
		func(_ context.Context, in int, _ error) (int, error) { return in + 1, nil },
	}
	get := firebreak.Bind(p.cmd, func(context.Context, int) (int, error) { return 0, errBoom }, fallbacks...)
	fallbacks[0] = nil
	v, err := get(t.Context(), 7)
	require.NoError(t, err)
	require.Equal(t, 8, v)
}

// A bound function is shared: each call has its own argument and its own time.
func TestBoundCallsAreApart(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{})
		get := firebreak.Bind(p.cmd, func(ctx context.Context, d time.Duration) (time.Duration, error) {
			time.Sleep(d)
			return d, ctx.Err()
		})
		ctx := t.Context()
		var all []func() answer
		for i := range 20 {
			all = append(all, later(func() (int, error) {
				v, err := get(ctx, time.Duration(i)*10*time.Millisecond)
				return int(v), err
			}))
		}
		for i, wait := range all {
			require.Equal(t, answer{value: i * int(10*time.Millisecond)}, wait())
		}
		synctest.Wait()
		require.Equal(t, map[string]uint64{"Success": 20}, counted(firebreak.Counts{}, total(p.cmd)))
	})
}
