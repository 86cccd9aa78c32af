package main

import (
	"context"
	"html/template"
	"net/http"
	"slices"
	"strings"
)

// ops is what is for operators: on a port of its own, as it can break things, and names
// dependencies and their errors.
type ops struct {
	server *server
	watch  *watch
}

func serveOps(addr string, w *world) (*ops, error) {
	o := &ops{watch: newWatch(w.reg)}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", panelPage(w))
	mux.Handle("POST /backends/{name}", switchBackend(w))
	mux.Handle("GET /backends", listBackends(w))
	err := o.watch.mount(mux)
	if err == nil {
		// A page on another site must not break backends through the browser of whoever
		// has this one open.
		o.server, err = serve(addr, http.NewCrossOriginProtection().Handler(mux))
	}
	if err != nil {
		o.watch.close()
		return nil, err
	}
	return o, nil
}

func (o *ops) stop(ctx context.Context) error {
	o.watch.close()
	return o.server.stop(ctx)
}

// switchBackend makes a backend ill, or well: trouble is a form field, empty for well.
func switchBackend(w *world) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		t := trouble(r.FormValue("trouble"))
		if t != well && !slices.Contains(troubles, t) {
			http.Error(rw, "no such trouble", http.StatusBadRequest)
			return
		}
		name := r.PathValue("name")
		if name == "all" {
			for _, b := range w.backends {
				b.fallIll(t)
			}
		} else if err := w.afflict(name, t); err != nil {
			http.Error(rw, err.Error(), http.StatusNotFound)
			return
		}
		http.Redirect(rw, r, "/", http.StatusSeeOther)
	})
}

// A backendStatus is how a backend is, and what is made of it.
type backendStatus struct {
	Name     string          `json:"name"`
	Trouble  trouble         `json:"trouble"`
	Asked    int64           `json:"asked"` // since the start
	Commands []commandStatus `json:"commands"`
}

// All is what the panel has switches for.
func (backendStatus) All() []trouble { return troubles }

type commandStatus struct {
	Name   string            `json:"name"`
	State  string            `json:"state"` // of its circuit: closed, open, half_open
	Window map[string]uint64 `json:"window"`
}

func (w *world) status() []backendStatus {
	var all []backendStatus
	for _, b := range w.backends {
		s := backendStatus{Name: b.name, Trouble: b.illFrom(), Asked: b.asked.Load(), Commands: []commandStatus{}}
		for c := range w.reg.Commands() {
			x := c.Snapshot()
			if x.Dependency != b.name {
				continue
			}
			n := x.Window
			s.Commands = append(s.Commands, commandStatus{x.Command, x.State.String(), map[string]uint64{
				"success": n.Success + n.Expected, "failure": n.Failure, "timeout": n.Timeout,
				"refused": n.ShortCircuited + n.Rejected, "fallback": n.FallbackSuccess,
			}})
		}
		all = append(all, s)
	}
	return all
}

func listBackends(w *world) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { writeJSON(rw, w.status()) })
}

func panelPage(w *world) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		rw.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'")
		_ = panelTemplate.Execute(rw, map[string]any{ // an error here is a browser that has left
			"Edge": w.url, "Troubles": troubles, "Backends": w.status(), "Recent": w.edge.recent.entries(),
		})
	})
}

var panelTemplate = template.Must(template.New("panel").Funcs(template.FuncMap{"join": strings.Join, "short": short}).Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2"><title>edge: chaos panel</title>
<style>
:root { color-scheme: light dark }
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; max-width: 80rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums }
form { display: inline; white-space: nowrap } button { font: inherit; padding: 0 .5rem } button.on { font-weight: bold; outline: 2px solid #d55e00 }
.open { color: #d55e00; font-weight: bold } .half_open { color: #b8860b; font-weight: bold }
code { font-size: 12px; overflow-wrap: anywhere }
</style>
<h1>edge</h1>
<p>What the load generator asks: <code>{{.Edge}}</code>. Each switch is a backend's own: firebreak does not know of it.</p>
<table>
<tr><th>backend<th>is<th>make it<th>command<th>circuit<th>success<th>failure<th>timeout<th>refused<th>fallback</tr>
{{range $b := .Backends}}{{range $i, $c := .Commands}}<tr>
{{- if eq $i 0}}<td>{{$b.Name}}<td>{{or $b.Trouble "well"}}<td>{{template "switches" $b}}{{else}}<td><td><td>{{end -}}
<td>{{$c.Name}}<td class="{{$c.State}}">{{$c.State}}
<td class="n">{{$c.Window.success}}<td class="n">{{$c.Window.failure}}<td class="n">{{$c.Window.timeout}}<td class="n">{{$c.Window.refused}}<td class="n">{{$c.Window.fallback}}</tr>
{{end}}{{end}}
</table>
<p>All: <form method="post" action="/backends/all"><button name="trouble" value="">well</button> {{range .Troubles}}<button name="trouble" value="{{.}}">{{.}}</button> {{end}}</form></p>
<h2>Requests</h2>
<table>
<tr><th>page<th>took<th>calls</tr>
{{range .Recent}}<tr><td>{{.Endpoint}}<td class="n">{{short .Took}}<td><code>{{.Calls}}</code>{{with .Err}}<br>{{.}}{{end}}</tr>
{{end}}</table>
</html>
{{define "switches"}}<form method="post" action="/backends/{{.Name}}">{{$t := .Trouble}}
<button name="trouble" value="" {{if not $t}}class="on"{{end}}>well</button>
{{range .All}}<button name="trouble" value="{{.}}" {{if eq . $t}}class="on"{{end}}>{{.}}</button>
{{end}}</form>{{end}}`))
