package firebreaktest

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Of any two lists: the lines without "+" are the wanted one, those without "-" what
// happened, and no shorter list of changes does it.
func TestAlign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 8)
		want, got := events.Draw(t, "want"), events.Draw(t, "got")
		var left, right []string
		agree := 0
		for _, l := range align(want, got) {
			if l.mark != '+' {
				left = append(left, l.event)
			}
			if l.mark != '-' {
				right = append(right, l.event)
			}
			if l.mark == ' ' {
				agree++
			}
		}
		require.True(t, slices.Equal(want, left), "%v is not %v", left, want)
		require.True(t, slices.Equal(got, right), "%v is not %v", right, got)
		require.Equal(t, inCommon(want, got), agree)
		require.Equal(t, slices.Equal(want, got), diff(want, got) == "")
	})
}

// inCommon is the length of the longest common subsequence, from its definition.
func inCommon(a, b []string) int {
	switch {
	case len(a) == 0 || len(b) == 0:
		return 0
	case a[0] == b[0]:
		return 1 + inCommon(a[1:], b[1:])
	}
	return max(inCommon(a[1:], b), inCommon(a, b[1:]))
}
