package metric

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every definition can be filled in, and no two are the same.
func TestDefinitions(t *testing.T) {
	names := map[string]bool{}
	for _, m := range All() {
		require.True(t, strings.HasPrefix(m.Name, "firebreak_"), m.Name)
		require.Equal(t, m.Kind == Counter, strings.HasSuffix(m.Name, "_total"), m.Name)
		require.Equal(t, m.Kind == Histogram, strings.HasSuffix(m.Name, "_duration_seconds"), m.Name)
		require.False(t, names[m.Name], m.Name)
		names[m.Name] = true
		require.NotEmpty(t, m.Help, m.Name)
		require.NotEmpty(t, m.Series, m.Name)
		seen := map[string]bool{}
		for _, s := range m.Series {
			require.Len(t, s, len(m.Labels), m.Name)
			require.NotContains(t, s, "", m.Name)
			require.False(t, slices.ContainsFunc(s, func(v string) bool { return strings.Contains(v, " ") || strings.HasPrefix(v, "unknown") }), "%s: %v", m.Name, s)
			require.False(t, seen[strings.Join(s, ",")], "%s: %v", m.Name, s)
			seen[strings.Join(s, ",")] = true
		}
		require.NotContains(t, m.Labels, "le")
	}
	require.Equal(t, []string{
		"success", "expected", "ignored", "failure", "timeout", "panic", "canceled", "caller_deadline",
		"rejected", "short_circuited", "shutdown", "gave_up",
	}, Outcomes())
	require.Equal(t, "error_percentage", Word("error percentage"))
}
