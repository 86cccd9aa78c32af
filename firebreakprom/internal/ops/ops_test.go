package ops

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firebreak-go/firebreak/firebreakprom/internal/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const dir = "../../../ops"

func TestFilesAreFresh(t *testing.T) {
	for name, data := range Files() {
		is, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, string(data), string(is), "%s: go generate ./firebreakprom", name)
	}
}

func TestWrite(t *testing.T) {
	to := filepath.Join(t.TempDir(), "ops")
	require.NoError(t, Write(to))
	for name, data := range Files() {
		is, err := os.ReadFile(filepath.Join(to, name))
		require.NoError(t, err)
		require.Equal(t, data, is)
	}
	require.Error(t, Write(filepath.Join(to, "grafana", "firebreak.json")), "a file is no folder")
}

// promtool runs Prometheus' own checks. Where it is missing the test is skipped; not
// in CI, which installs it.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("promtool is not installed")
		}
		t.Skip("promtool is not installed (Debian has it in the package prometheus)")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = filepath.Join(dir, "prometheus")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestRules(t *testing.T) {
	promtool(t, "check", "rules", "--lint=all", "--lint-fatal", "recording.yml", "alerts.yml")
	promtool(t, "test", "rules", "tests.yml")
}

// tests.yml has each alert firing, and each not.
func TestEveryAlertIsTested(t *testing.T) {
	tests, err := os.ReadFile(filepath.Join(dir, "prometheus", "tests.yml"))
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, a := range Alerts() {
		assert.False(t, seen[a.Name], a.Name)
		seen[a.Name] = true
		assert.Contains(t, string(tests), "alertname: "+a.Name+"\n        exp_alerts:", a.Name)
		assert.Contains(t, string(tests), "alertname: "+a.Name+"}", a.Name)
		assert.Contains(t, []string{"page", "ticket"}, a.Severity)
		assert.NotEmpty(t, a.Summary)
		assert.NotEmpty(t, a.Description)
	}
}

// What is exported is shown or alerted on; what is not would not be missed.
func TestEveryMetricIsUsed(t *testing.T) {
	var all strings.Builder
	for name, data := range Files() {
		if strings.HasSuffix(name, ".json") {
			all.Write(data)
		}
	}
	for _, a := range Alerts() {
		all.WriteString(a.Expr)
	}
	for _, m := range metric.All() {
		assert.Contains(t, all.String(), m.Name)
	}
}

func TestWhatIsNotDefinedIsAPanic(t *testing.T) {
	for name, mistake := range map[string]func(){
		"a label":               func() { rules.in(&metric.Calls, "result", "success") },
		"a value":               func() { rules.in(&metric.Calls, "outcome", "won") },
		"one of several values": func() { rules.in(&metric.Calls, "outcome", []string{"success", "won"}) },
		"a value that it is not": func() {
			rules.in(&metric.Calls, "outcome", not("won"))
		},
		"the rate of a gauge":       func() { rules.rate(&metric.InFlight) },
		"the increase of a gauge":   func() { rules.increase(&metric.InFlight, "1h") },
		"the buckets of a counter":  func() { rules.buckets(&metric.Calls, "_bucket") },
		"the quantile of a counter": func() { shown.quantile(0.5, &metric.Calls) },
	} {
		assert.Panics(t, mistake, name)
	}
	assert.Equal(t, `firebreak_calls_total{outcome="success"}`, rules.in(&metric.Calls, "outcome", "success"))
	assert.Equal(t, "firebreak_calls_total", rules.in(&metric.Calls))
}

// The dashboard is what Grafana takes: every panel has a place of its own, an id, a
// source and queries.
func TestDashboard(t *testing.T) {
	type pos struct{ X, Y, W, H int }
	var d struct {
		UID, Title string
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
		Panels []struct {
			ID                  int
			Type, Title         string
			GridPos             pos
			Datasource          struct{ UID string }
			FieldConfig         struct{ Defaults struct{ Unit string } }
			Targets             []struct{ RefID, Expr string }
			Options, Transforms json.RawMessage
		}
	}
	require.NoError(t, json.Unmarshal(NewDashboard().File(), &d))
	require.Equal(t, "firebreak", d.UID)
	ids, taken, titles, panels := map[int]bool{}, map[[2]int]string{}, map[string]bool{}, 0
	for _, p := range d.Panels {
		assert.False(t, ids[p.ID], p.Title)
		ids[p.ID] = true
		assert.False(t, titles[p.Title+p.Type], p.Title)
		titles[p.Title+p.Type] = true
		assert.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				assert.Empty(t, taken[[2]int{x, y}], p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		panels++
		assert.Equal(t, "${datasource}", p.Datasource.UID, p.Title)
		assert.NotEmpty(t, p.FieldConfig.Defaults.Unit, p.Title)
		assert.NotEmpty(t, p.Targets, p.Title)
		refs := map[string]bool{}
		for _, q := range p.Targets {
			assert.NotEmpty(t, q.Expr, p.Title)
			assert.False(t, refs[q.RefID], p.Title)
			refs[q.RefID] = true
			for _, variable := range []string{"$job", "$instance", "$dependency"} {
				assert.Contains(t, q.Expr, variable, p.Title)
			}
		}
	}
	of := 0
	for _, r := range NewDashboard().Rows {
		of += len(r.Panels)
	}
	require.Equal(t, of, panels)
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
	}
	require.Equal(t, []string{"datasource", "job", "instance", "dependency", "command"}, variables)
}
