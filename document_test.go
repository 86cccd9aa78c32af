package firebreak_test

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/firebreak-go/firebreak"
)

// formats are the ways to read text; JSON is YAML, so one table serves both.
var formats = []struct {
	name      string
	unmarshal func([]byte, any) error
}{
	{"JSON", json.Unmarshal},
	{"YAML", yaml.Unmarshal},
}

// jsonOf is what the field's value looks like in a file.
func (f configField) jsonOf(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(f.with(v))
	require.NoError(t, err)
	return string(data)
}

// textCases are values in text and what they mean.
func (f configField) textCases() []textCase {
	cases := append([]textCase(nil), f.kind.text...)
	_, isSwitch := f.kind.good[0].(firebreak.Switch)
	if f.off && !isSwitch {
		cases = append(cases, textCase{`"off"`, f.named(firebreak.Off)}, textCase{"false", f.named(firebreak.Off)})
	}
	if f.unlimited {
		cases = append(cases, textCase{`"unlimited"`, firebreak.Unlimited})
	}
	return cases
}

// badText are values in text that the field must refuse.
func (f configField) badText() []string {
	bad := f.kind.badText[:len(f.kind.badText):len(f.kind.badText)]
	if !f.off {
		bad = append(bad, `"off"`, "false")
	}
	if !f.unlimited {
		bad = append(bad, `"unlimited"`)
	}
	return bad
}

func TestEveryValueSurvivesText(t *testing.T) {
	for _, f := range configFields {
		for _, v := range f.good() {
			if f.key == "" {
				require.Equal(t, "{}", f.jsonOf(t, v), "a function is not data")
				continue
			}
			text := f.jsonOf(t, v)
			require.True(t, strings.HasPrefix(text, `{"`+f.key+`":`), text)
			for _, format := range formats {
				var read firebreak.Config
				require.NoError(t, format.unmarshal([]byte(text), &read), "%s: %s", format.name, text)
				require.Equal(t, f.with(v), read, "%s: %s", format.name, text)
			}
		}
	}
}

func TestAConfigWithEveryFieldSurvivesText(t *testing.T) {
	for _, pick := range []func(good []any) any{
		func(good []any) any { return good[0] },
		func(good []any) any { return good[1] },
		func(good []any) any { return good[len(good)-1] }, // Off and Unlimited, where they are
	} {
		var c firebreak.Config
		for _, f := range configFields {
			if f.key != "" {
				f.set(&c, pick(f.good()))
			}
		}
		text, err := json.Marshal(c)
		require.NoError(t, err)
		for _, format := range formats {
			var read firebreak.Config
			require.NoError(t, format.unmarshal(text, &read), format.name)
			require.Equal(t, c, read, format.name)
		}
	}
}

// What is in force can be written down and put in force elsewhere.
func TestSettingsInForceSurviveText(t *testing.T) {
	in := newCommand(t, firebreak.Config{Timeout: firebreak.Off, MaxConcurrent: firebreak.Unlimited, RecoverPanics: firebreak.On}).Config()
	text, err := json.Marshal(in)
	require.NoError(t, err)
	require.JSONEq(t, `{
		"isolation": "semaphore", "maxConcurrent": "unlimited", "maxWait": "off", "queueSize": "off", "timeout": "off", "maxFallbacks": 100,
		"recoverPanics": true, "countCallerDeadlines": false, "countRejections": false, "requestLog": false, "mode": "auto", "window": "10s",
		"requestVolumeThreshold": 20, "errorThresholdPercentage": 50, "consecutiveFailures": "off", "slowCallDuration": "off",
		"slowCallThresholdPercentage": 50, "evidence": false, "sleepWindow": "5s", "maxSleepWindow": "off",
		"sleepJitterPercentage": "off", "probes": 1, "batchWindow": "10ms", "maxBatch": "unlimited"
	}`, string(text))
	for _, format := range formats {
		var c firebreak.Config
		require.NoError(t, format.unmarshal(text, &c))
		again := newRegistry(t, c).Command("cmd", firebreak.Config{}).Config()
		in.Classify, again.Classify = nil, nil
		require.Equal(t, in, again, format.name)
	}
}

func TestFieldsAreWrittenInTheirOrder(t *testing.T) {
	text, err := json.Marshal(firebreak.Config{Probes: 2, Timeout: 250 * time.Millisecond, Mode: firebreak.Shadow, MaxWait: time.Hour})
	require.NoError(t, err)
	require.Equal(t, `{"maxWait":"1h0m0s","timeout":"250ms","mode":"shadow","probes":2}`, string(text))

	text, err = json.Marshal(firebreak.Config{})
	require.NoError(t, err)
	require.Equal(t, "{}", string(text))
}

func TestTextIsRead(t *testing.T) {
	for _, f := range configFields {
		for _, tt := range f.textCases() {
			text := fmt.Sprintf(`{%q: %s}`, f.key, tt.json)
			for _, format := range formats {
				var c firebreak.Config
				require.NoError(t, format.unmarshal([]byte(text), &c), "%s: %s", format.name, text)
				require.Equal(t, f.with(tt.want), c, "%s: %s", format.name, text)
			}
		}
	}
}

func TestBadTextIsRefusedByFieldAndChangesNothing(t *testing.T) {
	before := firebreak.Config{Timeout: time.Minute, Probes: 3}
	for _, f := range configFields {
		if f.key == "" {
			continue
		}
		for _, bad := range f.badText() {
			text := fmt.Sprintf(`{"sleepWindow": "1s", %q: %s}`, f.key, bad)
			if f.key == "sleepWindow" {
				text = fmt.Sprintf(`{%q: %s}`, f.key, bad)
			}
			for _, format := range formats {
				c := before
				err := format.unmarshal([]byte(text), &c)
				assert.ErrorContains(t, err, "firebreak: settings: "+f.key+": ", "%s: %s", format.name, text)
				assert.Equal(t, before, c, "%s: %s", format.name, text)

				doc := firebreak.Document{Defaults: before}
				err = format.unmarshal([]byte(`{"dependencies": {"users": `+text+`}}`), &doc)
				assert.ErrorContains(t, err, `firebreak: document: dependency "users": `+f.key+": ", "%s: %s", format.name, text)
				assert.Equal(t, firebreak.Document{Defaults: before}, doc, "%s: %s", format.name, text)
			}
		}
	}
}

func TestFaultsInTextSayWhatToWrite(t *testing.T) {
	for _, tt := range []struct{ text, says string }{
		{`{"timeout": 300}`, `timeout: 300 has no unit: write a duration like "250ms"`},
		{`{"timeout": "300"}`, `timeout: "300" is no duration like "250ms"`},
		{`{"timeout": "300ns"}`, `timeout: 300ns is under 10µs or Off`},
		{`{"timeout": "-1s"}`, `timeout: "-1s" is negative`},
		{`{"timeout": null}`, `timeout: null says nothing: leave the key out`},
		{`{"timeout": "0s"}`, `timeout: 0 says nothing: leave the key out`},
		{`{"window": "off"}`, `window: cannot be Off`},
		{`{"probes": 0}`, `probes: 0 says nothing: leave the key out`},
		{`{"probes": 1.5}`, `probes: 1.5 is not a whole number`},
		{`{"probes": -1}`, `probes: -1 is negative`},
		{`{"probes": "1"}`, `probes: 1 is not a number`},
		{`{"evidence": "on"}`, `evidence: on: say true or false`},
		{`{"mode": 1}`, `mode: 1 is not a word`},
		{`{"isolation": false}`, `isolation: false is not a word`},
		{`{"mode": "open"}`, `mode: "open" is no mode; there are [auto force_open force_closed shadow]`},
		{`{"isolation": "thread"}`, `isolation: "thread" is no isolation; there are [semaphore pool]`},
		{`{"classify": "x"}`, `"classify": unknown key`},
		{`{"Timeout": "1s"}`, `"Timeout": unknown key`},
		{`["timeout"]`, `[timeout]: want keys and values`},
		{`"timeout"`, `timeout: want keys and values`},
		{`7`, `7: want keys and values`},
	} {
		for _, format := range formats {
			err := format.unmarshal([]byte(tt.text), &firebreak.Config{})
			require.EqualError(t, err, "firebreak: settings: "+tt.says, "%s: %s", format.name, tt.text)
		}
	}
}

const document = `{
	"defaults": {"timeout": "2s"},
	"dependencies": {"users": {"maxConcurrent": 20, "isolation": "pool"}, "orders": {}},
	"commands": {"users.get": {"timeout": "300ms", "probes": 2}}
}`

func TestDocumentSurvivesText(t *testing.T) {
	want := firebreak.Document{
		Defaults: firebreak.Config{Timeout: 2 * time.Second},
		Dependencies: map[string]firebreak.Config{
			"users": {MaxConcurrent: 20, Isolation: firebreak.PoolIsolation}, "orders": {},
		},
		Commands: map[string]firebreak.Config{"users.get": {Timeout: 300 * time.Millisecond, Probes: 2}},
	}
	for _, format := range formats {
		var doc firebreak.Document
		require.NoError(t, format.unmarshal([]byte(document), &doc), format.name)
		require.Equal(t, want, doc, format.name)

		text, err := json.Marshal(doc)
		require.NoError(t, err)
		require.JSONEq(t, document, string(text))
	}
	text, err := json.Marshal(firebreak.Document{})
	require.NoError(t, err)
	require.Equal(t, "{}", string(text))
}

func TestADocumentTakesThePlaceOfTheLastOneReadIntoIt(t *testing.T) {
	for _, format := range formats {
		doc := firebreak.Document{Commands: map[string]firebreak.Config{"gone": {Probes: 2}}}
		require.NoError(t, format.unmarshal([]byte(document), &doc), format.name)
		require.NotContains(t, doc.Commands, "gone", format.name)
	}
}

// A level that is there, and says nothing.
func TestEmptyLevels(t *testing.T) {
	for _, text := range []string{
		`{}`, `null`, `{"defaults": {}}`, `{"defaults": null}`, `{"dependencies": null, "commands": {}}`,
		`{"commands": {"a": {}}}`, `{"commands": {"a": null}}`,
	} {
		for _, format := range formats {
			var doc firebreak.Document
			require.NoError(t, format.unmarshal([]byte(text), &doc), "%s: %s", format.name, text)
			require.Zero(t, doc.Defaults)
			require.Zero(t, doc.Commands["a"])
			require.NoError(t, firebreak.NewRegistry(firebreak.Config{}).Update(doc))
		}
	}
}

func TestAllFaultsOfADocumentAreListed(t *testing.T) {
	const text = `{
		"default": {},
		"defaults": {"timeout": 300, "windows": "1s"},
		"dependencies": {"users": {"maxConcurrent": 0, "mode": "open"}, "orders": 7},
		"commands": {"users.get": {"probes": -1, "maxWait": "1s"}, "users.put": {"timeout": null, "queueSize": 3}}
	}`
	want := []string{
		`"default": unknown key; there are defaults, dependencies and commands`,
		`defaults: timeout: 300 has no unit`,
		`defaults: "windows": unknown key`,
		`dependency "users": maxConcurrent: 0 says nothing`,
		`dependency "users": mode: "open" is no mode`,
		`dependency "orders": 7: want keys and values`,
		`command "users.get": probes: -1 is negative`,
		`command "users.get": maxWait belongs to a dependency`,
		`command "users.put": timeout: null says nothing`,
		`command "users.put": queueSize belongs to a dependency`,
	}
	for _, format := range formats {
		var doc firebreak.Document
		err := format.unmarshal([]byte(text), &doc)
		require.Error(t, err, format.name)
		for _, fault := range want {
			assert.ErrorContains(t, err, fault, format.name)
		}
		assert.Len(t, strings.Split(err.Error(), "\n"), len(want), "a line each: %v", err)
		assert.Zero(t, doc)
	}
}

func TestLevelsThatAreNoObjectsAreNamed(t *testing.T) {
	for _, tt := range []struct{ text, says string }{
		{`{"defaults": 7}`, `defaults: 7: want keys and values`},
		{`{"defaults": []}`, `defaults: []: want keys and values`},
		{`{"dependencies": ["users"]}`, `dependencies: [users]: want keys and values`},
		{`{"commands": "users.get"}`, `commands: users.get: want keys and values`},
		{`{"commands": {"users.get": "off"}}`, `command "users.get": off: want keys and values`},
		{`{"commands": {"users.get": [{"timeout": "1s"}]}}`, `command "users.get": [map[timeout:1s]]: want keys and values`},
		{`true`, `true: want keys and values`},
	} {
		for _, format := range formats {
			err := format.unmarshal([]byte(tt.text), &firebreak.Document{})
			require.EqualError(t, err, "firebreak: document: "+tt.says, "%s: %s", format.name, tt.text)
		}
	}
}

// S68.
func TestFieldsOfADependencyAreRefusedInADocumentsCommands(t *testing.T) {
	for _, f := range configFields {
		if !f.dependency {
			continue
		}
		c := f.with(f.good()[0])
		text := fmt.Sprintf(`{"commands": {"users.get": %s}}`, f.jsonOf(t, f.good()[0]))
		for _, format := range formats {
			err := format.unmarshal([]byte(text), &firebreak.Document{})
			require.ErrorContains(t, err, fmt.Sprintf(`command "users.get": %s belongs to a dependency`, f.key), format.name)
		}
		err := firebreak.NewRegistry(firebreak.Config{}).Update(firebreak.Document{Commands: map[string]firebreak.Config{"users.get": c}})
		require.ErrorContains(t, err, fmt.Sprintf(`command "users.get": %s belongs to a dependency`, f.name))
	}
}

func TestKeysGivenTwice(t *testing.T) {
	for _, tt := range []struct{ text, says string }{
		{`{"defaults": {}, "defaults": {"probes": 2}}`, `defaults: given twice`},
		{`{"commands": {"a": {}}, "commands": {"b": {}}}`, `commands: given twice`},
		{`{"commands": {"users.get": {}, "users.get": {}}}`, `command "users.get": given twice`},
		{`{"commands": {"users.get": {"timeout": "1s", "timeout": "2s"}}}`, `command "users.get": timeout: given twice`},
		{`{"dependencies": {"users": {"probes": 1, "probes": 1, "probes": 1}}}`, `dependency "users": probes: given twice`},
		{`{"defaults": {"windows": 1, "windows": 2}}`, `defaults: "windows": unknown key`},
		// JSON has no bytes, and both names are read as one.
		{"{\"commands\": {\"\xff\": {}, \"\xfe\": {}}}", "command \"\ufffd\": given twice"},
	} {
		err := json.Unmarshal([]byte(tt.text), &firebreak.Document{})
		require.EqualError(t, err, "firebreak: document: "+tt.says, tt.text)
	}
	require.EqualError(t, json.Unmarshal([]byte(`{"probes": 1, "probes": 2}`), &firebreak.Config{}), "firebreak: settings: probes: given twice")

	// The YAML package says it by line.
	err := yaml.Unmarshal([]byte("commands:\n  users.get:\n    timeout: 1s\n    timeout: 2s\n"), &firebreak.Document{})
	require.ErrorContains(t, err, `line 4: mapping key "timeout" already defined at line 3`)
}

func TestFaultsInJSONNumbers(t *testing.T) {
	for _, n := range []string{"1e400", "-1e400"} {
		require.EqualError(t, json.Unmarshal([]byte(`{"probes": `+n+`}`), &firebreak.Config{}), "firebreak: settings: probes: "+n+" is out of range")
	}
}

func TestWhatIsNoJSONIsRefused(t *testing.T) {
	require.EqualError(t, new(firebreak.Document).UnmarshalJSON([]byte(`{,}`)),
		"firebreak: document: invalid character ',' looking for beginning of object key string")
	for _, text := range []string{
		``, ` `, `{`, `}`, `{"defaults"}`, `{"defaults":}`, `{"defaults":{}`, `{}{}`, `{} x`, `{,}`, `{"a":1,}`, `nul`, "\xff", `{"commands":{"a":{"timeout":"1s}}}`,
	} {
		doc := firebreak.Document{Defaults: firebreak.Config{Probes: 2}}
		require.Error(t, json.Unmarshal([]byte(text), &doc), text)
		require.ErrorContains(t, doc.UnmarshalJSON([]byte(text)), "firebreak: document: ", text)
		require.Equal(t, firebreak.Document{Defaults: firebreak.Config{Probes: 2}}, doc, text)

		c := firebreak.Config{Probes: 2}
		require.ErrorContains(t, c.UnmarshalJSON([]byte(text)), "firebreak: settings: ", text)
		require.Equal(t, firebreak.Config{Probes: 2}, c, text)
	}
}

// Depth is for the parser of the format to bound, and nothing behind it is bothered.
func TestDepth(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	objects := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	for _, n := range []int{10, 2000, 20000} {
		for _, junk := range []string{nested(n), objects(n)} {
			for _, text := range []string{junk, `{"commands":{"a":{"timeout":` + junk + `}}}`, `{"defaults":` + junk + `}`} {
				require.Error(t, json.Unmarshal([]byte(text), &firebreak.Document{}))
				require.Error(t, new(firebreak.Document).UnmarshalJSON([]byte(text)))
				require.Error(t, json.Unmarshal([]byte(text), &firebreak.Config{}))
				require.Error(t, yaml.Unmarshal([]byte(text), &firebreak.Document{}))
			}
		}
	}
}

func TestYAMLAsPeopleWriteIt(t *testing.T) {
	const text = `
# Defaults for all.
defaults: &all
  timeout: 2s
  evidence: true

dependencies:
  users:
    <<: *all
    maxConcurrent: unlimited
    maxWait: off      # a word here, false in YAML 1.1
    isolation: pool
commands:
  users.get:
    maxFallbacks: 0x10
    requestVolumeThreshold: 1_000
    errorThresholdPercentage: 12.5
    slowCallDuration: false
    countRejections: false
  "404": {timeout: 'off'}
`
	var doc firebreak.Document
	require.NoError(t, yaml.Unmarshal([]byte(text), &doc))
	require.Equal(t, firebreak.Document{
		Defaults: firebreak.Config{Timeout: 2 * time.Second, Evidence: firebreak.On},
		Dependencies: map[string]firebreak.Config{"users": {
			Timeout: 2 * time.Second, Evidence: firebreak.On, MaxConcurrent: firebreak.Unlimited, MaxWait: firebreak.Off, Isolation: firebreak.PoolIsolation,
		}},
		Commands: map[string]firebreak.Config{
			"users.get": {
				MaxFallbacks: 16, RequestVolumeThreshold: 1000, ErrorThresholdPercentage: 12.5,
				SlowCallDuration: firebreak.Off, CountRejections: firebreak.Off,
			},
			"404": {Timeout: firebreak.Off},
		},
	}, doc)
}

func TestYAMLThatMeansSomethingElse(t *testing.T) {
	for _, tt := range []struct{ text, says string }{
		{"defaults: {errorThresholdPercentage: .nan}", `defaults: errorThresholdPercentage: NaN is not a percentage`},
		{"defaults: {errorThresholdPercentage: .inf}", `defaults: errorThresholdPercentage: +Inf is not a percentage`},
		{"defaults: {errorThresholdPercentage: -.inf}", `defaults: errorThresholdPercentage: -Inf is negative`},
		{"defaults: {probes: .nan}", `defaults: probes: NaN is not a whole number`},
		{"defaults: {probes: .inf}", `defaults: probes: +Inf is over 2147483647`},
		{"defaults: {probes: 18446744073709551615}", `defaults: probes: 18446744073709551615 is over 2147483647`},
		{"defaults: {probes: -9223372036854775808}", `defaults: probes: -9223372036854775808 is negative`},
		{"defaults: {probes: ~}", `defaults: probes: null says nothing`},
		{"defaults: {timeout: }", `defaults: timeout: null says nothing`},
		{"defaults: {timeout: 2001-02-03}", `defaults: timeout: 2001-02-03 00:00:00 +0000 UTC has no unit`},
		{"defaults: {timeout: 1:30}", `defaults: timeout: "1:30" is no duration`},
		{"defaults: {mode: off}", `defaults: mode: "off" is no mode`},
		{"defaults: {evidence: on}", `defaults: evidence: on: say true or false`},
		// A name is what is written: 1.10 is a number, and as such another name.
		{"commands: {404: {probes: 2}}", `commands: 404: a key is text: quote it`},
		{"commands: {1.10: {}, 1.1: {}}", `commands: 1.1: a key is text: quote it`},
		{"dependencies: {true: {probes: 2}}", `dependencies: true: a key is text: quote it`},
		{"dependencies: {~: {probes: 2}}", `dependencies: <nil>: a key is text: quote it`},
		{"defaults: {1: 2}", `defaults: 1: a key is text: quote it`},
		{"1: {}", `1: a key is text: quote it`},
		{"commands: {a: {1: 2, b: 3}}", `command "a": 1: a key is text: quote it`},
	} {
		doc := firebreak.Document{Defaults: firebreak.Config{Probes: 9}}
		err := yaml.Unmarshal([]byte(tt.text), &doc)
		require.ErrorContains(t, err, "firebreak: document: "+tt.says, tt.text)
		require.Equal(t, firebreak.Document{Defaults: firebreak.Config{Probes: 9}}, doc)
	}
}

func TestWhatIsNoYAMLIsRefused(t *testing.T) {
	for _, text := range []string{"{", "a: b: c", "\t- x", "*nobody", "defaults: &a {timeout: *a}", "!!binary x", "? [1]\n: 2", "\xff"} {
		doc := firebreak.Document{Defaults: firebreak.Config{Probes: 9}}
		err := yaml.Unmarshal([]byte(text), &doc)
		require.Error(t, err, text)
		require.Equal(t, firebreak.Document{Defaults: firebreak.Config{Probes: 9}}, doc, text)
	}
}

// yaml.v2 gives maps by any key, and reads off as false.
func TestMapsByAnyKey(t *testing.T) {
	read := func(data any) (doc firebreak.Document, err error) {
		err = doc.UnmarshalYAML(func(to any) error {
			*to.(*any) = data
			return nil
		})
		return doc, err
	}
	type m = map[any]any
	doc, err := read(m{
		"defaults": m{"timeout": false, "probes": uint64(2), "maxFallbacks": int64(3), "errorThresholdPercentage": 25},
		"commands": m{"a": m{"mode": "shadow"}},
	})
	require.NoError(t, err)
	require.Equal(t, firebreak.Document{
		Defaults: firebreak.Config{Timeout: firebreak.Off, Probes: 2, MaxFallbacks: 3, ErrorThresholdPercentage: 25},
		Commands: map[string]firebreak.Config{"a": {Mode: firebreak.Shadow}},
	}, doc)

	_, err = read(m{"commands": m{404: m{}, true: m{}, "404": m{}}, "dependencies": m{"a": m{1.5: 1, "proves": 1}}})
	require.EqualError(t, err, `firebreak: document: commands: 404: a key is text: quote it
commands: true: a key is text: quote it
dependency "a": 1.5: a key is text: quote it
dependency "a": "proves": unknown key`)

	_, err = read(make(chan int))
	require.Error(t, err)
}

func TestTheErrorOfAYAMLPackageIsPassedOn(t *testing.T) {
	doc, c := firebreak.Document{Defaults: firebreak.Config{Probes: 2}}, firebreak.Config{Probes: 2}
	broken := func(any) error { return errBoom }
	require.ErrorIs(t, doc.UnmarshalYAML(broken), errBoom)
	require.ErrorIs(t, c.UnmarshalYAML(broken), errBoom)
	require.Equal(t, firebreak.Config{Probes: 2}, c)
	require.Equal(t, c, doc.Defaults)
}

// A service's own file holds our settings somewhere inside.
func TestSettingsInsideAnotherFile(t *testing.T) {
	type file struct {
		Port       int
		Firebreak  firebreak.Document
		Standalone *firebreak.Config
	}
	const text = `{"port": 80, "firebreak": {"defaults": {"timeout": "2s"}}, "standalone": {"probes": 2}}`
	for _, format := range formats {
		var f file
		require.NoError(t, format.unmarshal([]byte(text), &f), format.name)
		require.Equal(t, 2*time.Second, f.Firebreak.Defaults.Timeout)
		require.Equal(t, 2, f.Standalone.Probes)

		err := format.unmarshal([]byte(strings.Replace(text, "2s", "2x", 1)), &file{})
		require.ErrorContains(t, err, `firebreak: document: defaults: timeout: "2x" is no duration`, format.name)
	}
}

// What could not be read back is not written.
func TestBadValuesHaveNoText(t *testing.T) {
	for _, f := range configFields {
		for _, bad := range f.bad() {
			_, err := json.Marshal(f.with(bad))
			require.ErrorContains(t, err, "firebreak: "+f.key+": ", "%v", bad)
			_, err = json.Marshal(firebreak.Document{Commands: map[string]firebreak.Config{"a": f.with(bad)}})
			require.ErrorContains(t, err, f.key, "%v", bad)
		}
	}
}

func TestBadValuesInADocumentAreRefusedByNameAndField(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	for _, f := range configFields {
		for _, bad := range f.bad() {
			c := f.with(bad)
			refuses := func(who string, doc firebreak.Document) {
				t.Helper()
				assert.ErrorContains(t, reg.Update(doc), who+": "+f.name+": ", "%v", bad)
			}
			refuses("firebreak: update: defaults", firebreak.Document{Defaults: c})
			refuses(`firebreak: update: dependency "users"`, firebreak.Document{Dependencies: map[string]firebreak.Config{"users": c}})
			refuses(`firebreak: update: command "users.get"`, firebreak.Document{Commands: map[string]firebreak.Config{"users.get": c}})
		}
	}
	require.Empty(t, reg.Unclaimed(), "nothing was taken over")
}

func TestAFunctionIsNotForADocument(t *testing.T) {
	c := firebreak.Config{Classify: firebreak.ExpectErrors(errBoom)}
	err := firebreak.NewRegistry(firebreak.Config{}).Update(firebreak.Document{
		Defaults: c, Dependencies: map[string]firebreak.Config{"users": c}, Commands: map[string]firebreak.Config{"users.get": c},
	})
	require.EqualError(t, err, `firebreak: update: defaults: Classify: a function is for code, not for a document
dependency "users": Classify: a function is for code, not for a document
command "users.get": Classify: a function is for code, not for a document`)
}

func TestAllFaultsOfAnUpdateAreListed(t *testing.T) {
	err := firebreak.NewRegistry(firebreak.Config{}).Update(firebreak.Document{
		Defaults:     firebreak.Config{Timeout: 3, Probes: -5},
		Dependencies: map[string]firebreak.Config{"b": {MaxConcurrent: firebreak.Off}, "a": {Mode: 9}},
		Commands:     map[string]firebreak.Config{"c": {MaxWait: time.Second, SlowCallThresholdPercentage: math.NaN()}},
	})
	require.EqualError(t, err, `firebreak: update: defaults: Timeout: 3ns is under 10µs or Off
defaults: Probes: -5 is not from 1 to 2147483647
dependency "a": Mode: 9 is not a mode
dependency "b": MaxConcurrent: cannot be Off
command "c": SlowCallThresholdPercentage: NaN is not a percentage above 0 and up to 100
command "c": MaxWait belongs to a dependency, whose commands share it: say it there`)
	var joined interface{ Unwrap() []error }
	require.ErrorAs(t, err, &joined)
	require.Len(t, joined.Unwrap(), 6)
}

func TestWordsOfModesAndIsolations(t *testing.T) {
	for _, m := range []firebreak.Mode{firebreak.Auto, firebreak.ForceOpen, firebreak.ForceClosed, firebreak.Shadow} {
		text, err := m.MarshalText()
		require.NoError(t, err)
		require.Equal(t, m.String(), string(text))
		var read firebreak.Mode
		require.NoError(t, read.UnmarshalText(text))
		require.Equal(t, m, read)
	}
	for _, i := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		text, err := i.MarshalText()
		require.NoError(t, err)
		require.Equal(t, i.String(), string(text))
		var read firebreak.Isolation
		require.NoError(t, read.UnmarshalText(text))
		require.Equal(t, i, read)
	}
	for _, none := range []encoding.TextMarshaler{firebreak.Mode(5), firebreak.Isolation(3)} {
		_, err := none.MarshalText()
		require.Error(t, err)
	}
	for _, unsaid := range []encoding.TextMarshaler{firebreak.Mode(0), firebreak.Isolation(0)} {
		text, err := unsaid.MarshalText()
		require.NoError(t, err)
		require.Empty(t, text)
	}
	require.Error(t, new(firebreak.Mode).UnmarshalText(nil))
	require.Error(t, new(firebreak.Isolation).UnmarshalText(nil))
	require.Empty(t, firebreak.Mode(0).String())
	require.Equal(t, "unknown(9)", firebreak.Mode(9).String())
}
