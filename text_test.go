package firebreak_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// What is zero in most snapshots, transitions and events used to have no text, and
// with it nothing around it had any.
func TestEverythingThatIsShownHasJSON(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	var transitions []firebreak.Transition
	reg.Observe(firebreak.Observer{Transition: func(tr firebreak.Transition) { transitions = append(transitions, tr) }})
	cmd := reg.Command("dep", firebreak.Config{})
	trip(t, cmd)
	require.Len(t, transitions, 1)
	for _, v := range []any{cmd.Snapshot(), transitions[0], firebreak.CallEvent{Outcome: firebreak.OutcomeSuccess}, firebreak.Bulkhead{}} {
		text, err := json.Marshal(v)
		require.NoError(t, err, "%T", v)
		require.True(t, json.Valid(text))
	}
	_, err := json.Marshal(firebreak.Mode(99))
	require.Error(t, err)
}
