package scenario

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// While it sleeps a process has no processor time of its own making; what other tests
// left behind, a collector say, may have some. The wall clock would go on in each try.
func TestProcessorTimeIsNotTheWallClock(t *testing.T) {
	for _, read := range []func() time.Duration{processTime, threadTime} {
		asleep := func() bool {
			cpu, wall := read(), time.Now()
			time.Sleep(30 * time.Millisecond)
			return read()-cpu < time.Since(wall)/2
		}
		slept := false
		for range 10 {
			slept = slept || asleep()
		}
		require.True(t, slept)
	}
}
