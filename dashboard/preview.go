package dashboard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/firebreak-go/firebreak"
)

// A preview is what a document would change.
type preview struct {
	Base      string    `json:"base"`      // the sum of the document in force
	Changes   []*change `json:"changes"`   // by setting
	Masked    []*masked `json:"masked"`    // what the document says anew and will not be heard
	Unclaimed []string  `json:"unclaimed"` // names in it that no command has, nor the dependency of one
}

// A change is of one setting, in the same way for all the commands.
type change struct {
	Setting   string          `json:"setting"`
	Was       json.RawMessage `json:"was"`
	WasOrigin string          `json:"wasOrigin"`
	// Becomes is left out if it is not known: what code said below a document is only
	// seen once that is gone. Origin then tells the possible ones.
	Becomes  json.RawMessage `json:"becomes,omitempty"`
	Origin   string          `json:"origin"`
	Commands names           `json:"commands"`
}

// masked is a setting that a document says on one level, and something above holds
// another way.
type masked struct {
	Setting  string `json:"setting"`
	Origin   string `json:"origin"`
	By       string `json:"by,omitempty"` // left out if it is not known
	Commands names  `json:"commands"`
}

// names are the first of many.
type names struct {
	First []string `json:"first"`
	Count int      `json:"count"`
}

func (n *names) add(name string) {
	if n.Count++; len(n.First) < 50 {
		n.First = append(n.First, name)
	}
}

// origins are in the order in which they are heard; a document's are those with even
// numbers, but for the last.
var origins = []string{
	"document: command", "code: command", "document: dependency", "code: dependency",
	"document: defaults", "code: registry", "default",
}

var builtIn = len(origins) - 1

// said is what a document says for one command, by the number of its origin; nil for code's.
type said [7]map[string]json.RawMessage

func saidOf(doc *firebreak.Document, command, dependency string) (s said) {
	s[0], _ = valuesOf(doc.Commands[command])
	s[2], _ = valuesOf(doc.Dependencies[dependency])
	s[4], _ = valuesOf(doc.Defaults)
	return s
}

// first is the number of the first origin of a document that says a setting; that of
// the built-in default if none does.
func (s *said) first(key string) int {
	for i, values := range s {
		if _, ok := values[key]; ok {
			return i
		}
	}
	return builtIn
}

// after is what a setting will be, and by whom. Code is seen only where no document
// hides it, so below a document that no longer says the setting it is not known: then
// value is nil, and the origin the last that it can be.
func (s *said) after(key string, now setting) (value json.RawMessage, origin int) {
	is, first := slices.Index(origins, now.Origin), s.first(key)
	byDocument := is%2 == 0 && is != builtIn
	switch {
	case first <= is && first != builtIn:
		return s[first][key], first
	case byDocument:
		return nil, first
	}
	return now.Value, is
}

// previewOf is what doc would change, or why it would be refused.
func previewOf(reg *firebreak.Registry, doc *firebreak.Document) (*preview, error) {
	before := reg.Document()
	t := tally{changes: map[string]*change{}, masked: map[string]*masked{}, fixed: map[string]error{}}
	unclaimed := namesIn(doc)
	for cmd := range reg.Commands() {
		s := cmd.Snapshot()
		delete(unclaimed, nameOf("command", s.Command))
		delete(unclaimed, nameOf("dependency", s.Dependency))
		t.command(cmd, s.Dependency, saidOf(&before, s.Command, s.Dependency), saidOf(doc, s.Command, s.Dependency))
	}
	if len(t.fixed) > 0 {
		return nil, errors.Join(sorted(t.fixed)...)
	}
	return &preview{
		Base: sumOf(&before), Changes: sorted(t.changes), Masked: sorted(t.masked),
		Unclaimed: append([]string{}, slices.Sorted(maps.Keys(unclaimed))...),
	}, nil
}

// sorted are the values of m by their keys, for answers that are the same each time.
func sorted[T any](m map[string]T) []T {
	all := make([]T, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, m[k])
	}
	return all
}

func nameOf(what, name string) string { return fmt.Sprintf("%s %q", what, name) }

func namesIn(doc *firebreak.Document) map[string]bool {
	all := map[string]bool{}
	for name := range doc.Commands {
		all[nameOf("command", name)] = true
	}
	for name := range doc.Dependencies {
		all[nameOf("dependency", name)] = true
	}
	return all
}

// A tally puts together what is the same for many commands.
type tally struct {
	changes map[string]*change
	masked  map[string]*masked
	fixed   map[string]error // by dependency: its isolation
}

// command adds what becomes of one command, of which two documents say so much.
func (t *tally) command(cmd *firebreak.Command, dependency string, was, is said) {
	now, order := settingsOf(cmd)
	then := make(map[string]json.RawMessage, len(now))
	by := make(map[string]int, len(now))
	for _, key := range order {
		then[key], by[key] = is.after(key, now[key])
	}
	then["queueSize"] = queueSize(then, by)
	for _, key := range order {
		value, origin := then[key], by[key]
		if value == nil || !bytes.Equal(value, now[key].Value) || origins[origin] != now[key].Origin {
			c := change{Setting: key, Was: now[key].Value, WasOrigin: now[key].Origin, Becomes: value, Origin: origins[origin]}
			group(t.changes, c).Commands.add(cmd.Name())
		}
		if key == "isolation" && value != nil && !bytes.Equal(value, now[key].Value) {
			t.fixed[dependency] = fmt.Errorf("dependency %q: isolation: is %s and stays so for life, not %s", dependency, now[key].Value, value)
		}
		for level := origin + 1; level < len(is); level++ {
			if v, ok := is[level][key]; ok && !bytes.Equal(v, was[level][key]) {
				m := masked{Setting: key, Origin: origins[level], By: origins[origin]}
				if value == nil {
					m.By = ""
				}
				group(t.masked, m).Commands.add(cmd.Name())
			}
		}
	}
}

// group returns what stands for all that are the same as first.
func group[T any](all map[string]*T, first T) *T {
	key := string(encode(first))
	if all[key] == nil {
		all[key] = &first
	}
	return all[key]
}

// queueSize is what it will be: whoever lets calls wait lets as many wait as may run,
// if nobody says otherwise. Unknown if that hangs on what is.
func queueSize(then map[string]json.RawMessage, by map[string]int) json.RawMessage {
	if by["queueSize"] != builtIn || then["queueSize"] == nil {
		return then["queueSize"]
	}
	wait, limit := string(then["maxWait"]), string(then["maxConcurrent"])
	switch {
	case string(then["isolation"]) == `"pool"` || wait == `"off"`:
		return json.RawMessage(`"off"`)
	case wait == "" || limit == "":
		return nil
	case strings.HasPrefix(limit, `"`): // unlimited
		return json.RawMessage(`"off"`)
	}
	return json.RawMessage(limit)
}
