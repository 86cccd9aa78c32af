package firebreakprom_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// On both sides of every edge, and beyond the first and the last: a latency is in
// the bucket that has it, in all above, and in none below.
func TestBucketsHaveWhatIsTheirs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, firebreak.Config{Timeout: firebreak.Off})
		cmd := p.Command("dep", firebreak.Config{})
		var lasted []time.Duration
		call := func(d time.Duration) {
			require.NoError(t, cmd.Run(t.Context(), func(context.Context) error {
				time.Sleep(d)
				return nil
			}))
			lasted = append(lasted, d)
		}
		call(0)
		call(time.Microsecond)
		for le := time.Duration(1 << 19); le <= 1<<34; le *= 2 {
			call(le - 1)
			call(le)
			call(le + le/3)
		}
		call(2 * time.Minute)
		call(24 * time.Hour)

		s, sum := p.scrape(t), time.Duration(0)
		for le := time.Duration(1 << 19); le <= 1<<34; le *= 2 {
			n := 0
			for _, d := range lasted {
				if d < le { // an edge itself counts above it
					n++
				}
			}
			for _, h := range []string{"firebreak_run_duration_seconds_bucket", "firebreak_call_duration_seconds_bucket"} {
				require.EqualValues(t, n, s.series(t, h, "dependency", "dep", "command", "dep", "le", fmt.Sprint(le.Seconds())), "%s up to %v", h, le)
			}
		}
		for _, d := range lasted {
			sum += d
		}
		require.EqualValues(t, len(lasted), s.series(t, "firebreak_run_duration_seconds_count", "dependency", "dep", "command", "dep"))
		require.InEpsilon(t, sum.Seconds(), s.series(t, "firebreak_run_duration_seconds_sum", "dependency", "dep", "command", "dep"), 1e-12)
	})
}

// Run is the time in run alone, call is all of it.
func TestCallIncludesWaitingAndFallbacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, firebreak.Config{})
		cmd := p.Command("dep", firebreak.Config{})
		require.NoError(t, cmd.Run(t.Context(), func(context.Context) error {
			time.Sleep(100 * time.Millisecond)
			return errBoom
		}, func(context.Context, error) error {
			time.Sleep(200 * time.Millisecond)
			return nil
		}))
		s := p.scrape(t)
		require.InDelta(t, 0.1, s.series(t, "firebreak_run_duration_seconds_sum", "dependency", "dep", "command", "dep"), 1e-9)
		require.InDelta(t, 0.3, s.series(t, "firebreak_call_duration_seconds_sum", "dependency", "dep", "command", "dep"), 1e-9)
	})
}
