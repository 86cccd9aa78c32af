package dashboard_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/dashboard"
)

type preview struct {
	Base    string
	Changes []struct {
		Setting, WasOrigin, Origin string
		Was, Becomes               json.RawMessage
		Commands                   struct {
			First []string
			Count int
		}
	}
	Masked []struct {
		Setting, Origin, By string
		Commands            struct{ Count int }
	}
	Unclaimed []string
}

func (p *post) preview(doc string) preview {
	p.t.Helper()
	w := ask(p.h, http.MethodPost, "/preview", `{"document":`+doc+`}`, "Content-Type", "application/json")
	require.Equal(p.t, http.StatusOK, w.Code, w.Body)
	var v preview
	require.NoError(p.t, json.Unmarshal(w.Body.Bytes(), &v))
	return v
}

// lines are the changes, each as one reads it.
func (v preview) lines() []string {
	lines := []string{}
	for _, c := range v.Changes {
		becomes := "?"
		if c.Becomes != nil {
			becomes = string(c.Becomes)
		}
		lines = append(lines, fmt.Sprintf("%s %s (%s) -> %s (%s) for %s", c.Setting, c.Was, c.WasOrigin, becomes, c.Origin, strings.Join(c.Commands.First, " ")))
	}
	for _, m := range v.Masked {
		lines = append(lines, fmt.Sprintf("%s of %s is masked by %s for %d", m.Setting, m.Origin, m.By, m.Commands.Count))
	}
	return lines
}

func TestPreview(t *testing.T) {
	p := newPost(t)
	d := p.reg.Dependency("users", firebreak.Config{Timeout: 2 * time.Second})
	d.Command("users.put", firebreak.Config{SleepWindow: 9 * time.Second})
	d.Command("users.list", firebreak.Config{})
	for _, c := range []struct {
		name, before, doc string
		want              []string
	}{
		{"nothing", `{}`, `{}`, []string{}},
		{"the same", `{"defaults":{"timeout":"7s"}}`, `{"defaults":{"timeout":"7s"}}`, []string{}},
		{"defaults, which code of a dependency masks", `{}`, `{"defaults":{"timeout":"7s"}}`, []string{
			`timeout "1s" (default) -> "7s" (document: defaults) for users.get`,
			`timeout of document: defaults is masked by code: dependency for 2`,
		}},
		{"the same value from another place", `{}`, `{"dependencies":{"users":{"timeout":"2s"}}}`, []string{
			`timeout "2s" (code: dependency) -> "2s" (document: dependency) for users.list users.put`,
		}},
		{"one command", `{}`, `{"commands":{"users.put":{"sleepWindow":"1s","probes":2}}}`, []string{
			`probes 1 (default) -> 2 (document: command) for users.put`,
			`sleepWindow "9s" (code: command) -> "1s" (document: command) for users.put`,
		}},
		{"another number", `{"defaults":{"probes":2}}`, `{"defaults":{"probes":3}}`, []string{
			`probes 2 (document: defaults) -> 3 (document: defaults) for users.list users.put users.get`,
		}},
		{"taken back: code was never seen below it", `{"defaults":{"probes":2}}`, `{}`, []string{
			`probes 2 (document: defaults) -> ? (default) for users.list users.put users.get`,
		}},
		{"taken back to what the document says below", `{"commands":{"users.put":{"probes":2}},"defaults":{"probes":3}}`, `{"defaults":{"probes":3}}`, []string{
			`probes 2 (document: command) -> ? (document: defaults) for users.put`,
		}},
		{"waiting makes a queue", `{}`, `{"dependencies":{"users":{"maxWait":"1s","maxConcurrent":5}}}`, []string{
			`maxConcurrent 100 (default) -> 5 (document: dependency) for users.list users.put`,
			`maxWait "off" (default) -> "1s" (document: dependency) for users.list users.put`,
			`queueSize "off" (default) -> 5 (default) for users.list users.put`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before firebreak.Document
			require.NoError(t, json.Unmarshal([]byte(c.before), &before))
			require.NoError(t, p.reg.Update(before))
			v := p.preview(c.doc)
			require.Equal(t, c.want, v.lines())
			require.Equal(t, p.base(), v.Base)
			require.Equal(t, before.Defaults, p.reg.Document().Defaults, "a preview changes nothing")
		})
	}
	v := p.preview(`{"commands":{"usrs.get":{}},"dependencies":{"users":{},"mail":{}}}`)
	require.Equal(t, []string{`command "usrs.get"`, `dependency "mail"`}, v.Unclaimed)
	code, faults := p.send("preview", `{"document":{"defaults":{"isolation":"pool"}}}`)
	require.Equal(t, http.StatusUnprocessableEntity, code)
	require.Len(t, faults, 2, "a line for each dependency: %v", faults)
	require.Empty(t, p.actions, "it changes nothing, and is no action")
}

func TestPreviewOfMany(t *testing.T) {
	p := newPost(t)
	for i := range 300 {
		p.reg.Command(fmt.Sprintf("c%03d", i), firebreak.Config{})
	}
	v := p.preview(`{"defaults":{"probes":3}}`)
	require.Len(t, v.Changes, 1)
	require.Equal(t, 301, v.Changes[0].Commands.Count)
	require.Len(t, v.Changes[0].Commands.First, 50)
}

// What a preview says is what happens, whatever code and documents say; and where it
// says that it does not know, something was indeed hidden.
func TestPreviewIsTrue(t *testing.T) {
	config := rapid.Custom(func(t *rapid.T) firebreak.Config {
		c := firebreak.Config{}
		if rapid.Bool().Draw(t, "timeout?") {
			c.Timeout = rapid.SampledFrom([]time.Duration{firebreak.Off, time.Second, 2 * time.Second}).Draw(t, "timeout")
		}
		if rapid.Bool().Draw(t, "probes?") {
			c.Probes = rapid.IntRange(1, 3).Draw(t, "probes")
		}
		return c
	})
	ofDependency := rapid.Custom(func(t *rapid.T) firebreak.Config {
		c := config.Draw(t, "config")
		if rapid.Bool().Draw(t, "wait?") {
			c.MaxWait = rapid.SampledFrom([]time.Duration{firebreak.Off, time.Second}).Draw(t, "wait")
		}
		if rapid.Bool().Draw(t, "limit?") {
			c.MaxConcurrent = rapid.SampledFrom([]int{firebreak.Unlimited, 4, 100}).Draw(t, "limit")
		}
		if rapid.IntRange(0, 3).Draw(t, "queue?") == 0 {
			c.QueueSize = rapid.SampledFrom([]int{firebreak.Off, 3}).Draw(t, "queue")
		}
		return c
	})
	document := rapid.Custom(func(t *rapid.T) firebreak.Document {
		return firebreak.Document{
			Defaults:     ofDependency.Draw(t, "defaults"),
			Dependencies: map[string]firebreak.Config{"d": ofDependency.Draw(t, "dependency")},
			Commands:     map[string]firebreak.Config{"c": config.Draw(t, "command")},
		}
	})
	rapid.Check(t, func(r *rapid.T) {
		reg := firebreak.NewRegistry(ofDependency.Draw(r, "registry"))
		cmd := reg.Dependency("d", ofDependency.Draw(r, "code of d")).Command("c", config.Draw(r, "code of c"))
		require.NoError(r, reg.Update(document.Draw(r, "before")))
		page := dashboard.New(reg, dashboard.Options{})
		defer page.Close()
		h := page.Operator(func(*http.Request) (string, error) { return "ada", nil })
		next := document.Draw(r, "next")
		text, err := json.Marshal(next)
		require.NoError(r, err)

		was, wasOrigins := valuesOf(r, cmd), cmd.Origins()
		w := ask(h, http.MethodPost, "/preview", `{"document":`+string(text)+`}`, "Content-Type", "application/json")
		require.Equal(r, http.StatusOK, w.Code, w.Body)
		var v preview
		require.NoError(r, json.Unmarshal(w.Body.Bytes(), &v))
		require.NoError(r, reg.Update(next))
		is, isOrigins := valuesOf(r, cmd), cmd.Origins()

		changed := map[string]bool{}
		for _, c := range v.Changes {
			changed[c.Setting] = true
			require.Equal(r, was[c.Setting], string(c.Was))
			require.Equal(r, wasOrigins[c.Setting], c.WasOrigin)
			if c.Becomes != nil {
				require.Equal(r, is[c.Setting], string(c.Becomes), c.Setting)
				require.Equal(r, isOrigins[c.Setting], c.Origin, c.Setting)
				continue
			}
			hidden := strings.HasPrefix(wasOrigins[c.Setting], "document") || c.Setting == "queueSize"
			require.True(r, hidden, "%s was in plain sight", c.Setting)
		}
		for key := range is {
			if !changed[key] {
				require.Equal(r, was[key], is[key], "%s: nothing was said of it", key)
				require.Equal(r, wasOrigins[key], isOrigins[key], key)
			}
		}
		for _, m := range v.Masked {
			require.NotEqual(r, isOrigins[m.Setting], m.Origin)
			if m.By != "" {
				require.Equal(r, isOrigins[m.Setting], m.By)
			}
		}
	})
}

func valuesOf(t require.TestingT, cmd *firebreak.Command) map[string]string {
	data, err := json.Marshal(cmd.Config())
	require.NoError(t, err)
	var raw map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(data, &raw))
	all := map[string]string{}
	for k, v := range raw {
		all[k] = string(v)
	}
	return all
}
