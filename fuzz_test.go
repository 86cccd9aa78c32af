package firebreak_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/firebreak-go/firebreak"
)

// textSeeds are for documents in either format, and for the settings in them.
var textSeeds = []string{
	document,
	``, `{}`, `null`, `[]`, `7`, `"x"`, `{"defaults": null}`, `{"commands": {"": {}}}`, `{"commands": {"a": {}, "a": {}}}`,
	`{"defaults": {"timeout": "off", "maxConcurrent": "unlimited", "evidence": true, "recoverPanics": false}}`,
	`{"defaults": {"timeout": 300, "probes": 0, "mode": "open"}, "x": {}, "commands": {"a": {"maxWait": "1s"}}}`,
	`{"dependencies": {"a\nb": {"isolation": "pool", "queueSize": 1e2}, "\ufffd": {"errorThresholdPercentage": 1e-320}}}`,
	`{"timeout": "1h30m", "window": "10µs", "maxSleepWindow": "2562047h47m16.854775807s", "mode": "shadow"}`,
	`{"maxFallbacks": "off", "slowCallThresholdPercentage": 33.3, "consecutiveFailures": 2147483647}`,
	`{"probes": 1e400, "sleepWindow": "-1ns", "evidence": null, "mode": {"a": [1, {"b": 2}]}}`,
	"defaults: &a {timeout: 2s}\ncommands:\n  users.get:\n    <<: *a\n    maxFallbacks: off\n",
	"defaults:\n  timeout: 2s\n  timeout: 3s\n", "commands: {404: {}, 1.10: {}, true: {}, ~: {}}", "? [a, b]\n: c\n",
	"defaults: {errorThresholdPercentage: .nan, probes: .inf, timeout: 2001-02-03, window: !!binary AAAA}",
	"commands: {!!binary /w==: {probes: 0x10}, 'b': {probes: 1_000}}", "--- !!map {}\n...\n", "a: &a [*a]", "\xff\xfe{\x00}\x00",
}

func FuzzConfigJSON(f *testing.F) {
	for _, text := range textSeeds {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c firebreak.Config
		if json.Unmarshal(data, &c) != nil {
			require.Zero(t, c)
			return
		}
		firebreak.NewRegistry(c) // what was read is good
		text, err := json.Marshal(c)
		require.NoError(t, err)
		var again firebreak.Config
		require.NoError(t, json.Unmarshal(text, &again))
		require.Equal(t, c, again)
		require.NoError(t, yaml.Unmarshal(text, &again))
		require.Equal(t, c, again, "JSON is YAML")
	})
}

func FuzzDocumentJSON(f *testing.F) {
	for _, text := range textSeeds {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var doc firebreak.Document
		if json.Unmarshal(data, &doc) != nil {
			require.Zero(t, doc)
			return
		}
		requireGoodDocument(t, doc)
	})
}

func FuzzDocumentYAML(f *testing.F) {
	for _, text := range textSeeds {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var doc firebreak.Document
		if yaml.Unmarshal(data, &doc) != nil {
			require.Zero(t, doc)
			return
		}
		requireGoodDocument(t, doc)
	})
}

// requireGoodDocument holds of every document that was read: it can be put in
// force, taken out again and written down, and stays the same.
func requireGoodDocument(t *testing.T, doc firebreak.Document) {
	t.Helper()
	reg := firebreak.NewRegistry(firebreak.Config{})
	require.NoError(t, reg.Update(doc))
	require.Len(t, reg.Unclaimed(), len(doc.Dependencies)+len(doc.Commands))
	inForce := reg.Document()
	require.True(t, sameDocument(doc, inForce))
	for name, c := range doc.Commands {
		if name != "" {
			require.NotZero(t, reg.Command(name, firebreak.Config{}).Config().Timeout, c)
		}
	}

	text, err := json.Marshal(doc)
	require.NoError(t, err)
	var again firebreak.Document
	for name := range doc.Dependencies {
		if !utf8.ValidString(name) { // YAML can name bytes, JSON cannot
			return
		}
	}
	for name := range doc.Commands {
		if !utf8.ValidString(name) {
			return
		}
	}
	require.NoError(t, json.Unmarshal(text, &again))
	require.True(t, sameDocument(doc, again))
	stable, err := json.Marshal(again)
	require.NoError(t, err)
	require.Equal(t, string(text), string(stable))
}

// sameDocument takes a level that is not there for one that is empty.
func sameDocument(a, b firebreak.Document) bool {
	same := func(a, b map[string]firebreak.Config) bool {
		return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
	}
	return reflect.DeepEqual(a.Defaults, b.Defaults) && same(a.Dependencies, b.Dependencies) && same(a.Commands, b.Commands)
}
