package dashboard

import (
	"bytes"
	"encoding/json"
	"net/http"

	"github.com/firebreak-go/firebreak"
)

// detail is what the page asks for while it shows a command's.
type detail struct {
	Command   command            `json:"command"`
	RunTimes  times              `json:"run"`
	CallTimes times              `json:"call"`
	Settings  map[string]setting `json:"settings"`
	Order     []string           `json:"order"` // of the settings
}

// times are latencies; all in nanoseconds.
type times struct {
	Percentiles map[string]int64 `json:"percentiles"` // of the last minute
	Count       uint64           `json:"count"`       // since the command was made, as are the others
	Sum         int64            `json:"sum"`
	Bounds      []int64          `json:"bounds"`
	Below       []uint64         `json:"below"` // how many were below each bound
}

type setting struct {
	Value  json.RawMessage `json:"value"` // as a document has it
	Origin string          `json:"origin"`
}

func timesOf(p *firebreak.Percentiles, h *firebreak.Histogram) times {
	t := times{Count: h.Count, Sum: int64(h.Sum), Percentiles: map[string]int64{
		"mean": int64(p.Mean), "min": int64(p.Min), "p25": int64(p.P25), "p50": int64(p.P50), "p75": int64(p.P75),
		"p90": int64(p.P90), "p95": int64(p.P95), "p99": int64(p.P99), "p99.5": int64(p.P995), "max": int64(p.Max),
	}}
	for bound, n := range h.Buckets() {
		t.Bounds = append(t.Bounds, int64(bound))
		t.Below = append(t.Below, n)
	}
	return t
}

// detail answers with one command, asked for by its name and key.
func (h *Handler) detail(w http.ResponseWriter, r *http.Request) {
	cmd := find(h.registry, r.FormValue("command"), r.FormValue("key"))
	if cmd == nil {
		http.Error(w, "there is no such command", http.StatusNotFound)
		return
	}
	s := cmd.Snapshot()
	d := detail{
		Command:  commandOf(cmd, &s),
		RunTimes: timesOf(&s.RunLatency, &s.RunHistogram), CallTimes: timesOf(&s.CallLatency, &s.CallHistogram),
	}
	d.Settings, d.Order = settingsOf(cmd)
	answer(w, http.StatusOK, &d)
}

// find returns the command of a name and a key, as label has them; nil if there is none.
func find(reg *firebreak.Registry, name, key string) *firebreak.Command {
	for cmd := range reg.Commands() {
		if s := cmd.Snapshot(); label(s.Command) == name && label(s.Key) == key {
			return cmd
		}
	}
	return nil
}

// settingsOf is what holds for a command, and who said it, with the keys in Config's order.
func settingsOf(cmd *firebreak.Command) (map[string]setting, []string) {
	values, order := valuesOf(cmd.Config())
	origins := cmd.Origins()
	all := make(map[string]setting, len(values)+1)
	for key, v := range values {
		all[key] = setting{v, origins[key]}
	}
	// A function has no text; that there is one decides about failures all the same.
	if o := origins["Classify"]; o != "" {
		all["Classify"] = setting{json.RawMessage(`"a function"`), o}
		order = append(order, "Classify")
	}
	return all, order
}

// valuesOf is what a Config says, by the keys of documents, and their order.
func valuesOf(c firebreak.Config) (map[string]json.RawMessage, []string) {
	data := encode(c)
	var values map[string]json.RawMessage
	if err := json.Unmarshal(data, &values); err != nil {
		panic("dashboard: a Config is no object: " + err.Error())
	}
	return values, keysOf(data)
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, code int, v any) {
	data := encode(v)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write(data) //nolint:errcheck // whoever asked has gone
}

// keysOf are the keys of an object of plain values, in their order.
func keysOf(object []byte) []string {
	var keys []string
	dec := json.NewDecoder(bytes.NewReader(object))
	_, err := dec.Token()
	for err == nil && dec.More() {
		var key json.Token
		if key, err = dec.Token(); err == nil {
			keys = append(keys, key.(string))
			_, err = dec.Token()
		}
	}
	if err != nil {
		panic("dashboard: a Config is no object: " + err.Error())
	}
	return keys
}
