package firebreak_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

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

// What yaml.v3 wrote of a Config used to be a panic about its function.
func TestADocumentGoesThroughYAML(t *testing.T) {
	doc := firebreak.Document{
		Defaults:     firebreak.Config{Timeout: 250 * time.Millisecond, Mode: firebreak.Shadow, RecoverPanics: firebreak.Off},
		Dependencies: map[string]firebreak.Config{"users": {MaxConcurrent: firebreak.Unlimited, Isolation: firebreak.PoolIsolation}},
		Commands:     map[string]firebreak.Config{"users.get": {Timeout: firebreak.Off, ErrorThresholdPercentage: 33.3, Probes: 3}},
	}
	text, err := yaml.Marshal(doc)
	require.NoError(t, err)
	require.Contains(t, string(text), "timeout: 250ms")
	var read firebreak.Document
	require.NoError(t, yaml.Unmarshal(text, &read))
	require.Equal(t, doc, read)

	_, err = yaml.Marshal(firebreak.Config{Timeout: 300})
	require.ErrorContains(t, err, "timeout: 300ns is under 10µs")
}
