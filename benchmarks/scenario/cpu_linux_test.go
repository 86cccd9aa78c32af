package scenario

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestProcessorTimeIsNotTheWallClock(t *testing.T) {
	cpu, thread, wall := processTime(), threadTime(), time.Now()
	time.Sleep(30 * time.Millisecond)
	require.Less(t, processTime()-cpu, time.Since(wall)/2)
	require.Less(t, threadTime()-thread, time.Since(wall)/2)
}
