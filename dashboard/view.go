package dashboard

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/firebreak-go/firebreak"
)

// identity tells apart what the page shows. A key may be empty, and a name may look
// like another's with its key.
type identity struct {
	command   bool // else a dependency
	name, key string
}

// dependency is a dependency's bulkhead as the page gets it.
type dependency struct {
	Dependency  string `json:"dependency"`
	Isolation   string `json:"isolation"`
	Limit       int    `json:"limit"` // 0: unlimited
	InFlight    int    `json:"inFlight"`
	MaxInFlight int    `json:"maxInFlight"`
	Queued      int    `json:"queued"`
	Abandoned   int    `json:"abandoned"`
}

func dependencyOf(s *firebreak.Snapshot) dependency {
	b := &s.Bulkhead
	return dependency{label(s.Dependency), b.Isolation.String(), max(b.Limit, 0), b.InFlight, b.MaxInFlight, b.Queued, b.Abandoned}
}

// command is a command as the page gets it every tick: what a tile shows. Nothing in
// it changes by time alone, so that what is idle costs nothing.
type command struct {
	Command         string    `json:"command"`
	Key             string    `json:"key,omitempty"`
	Name            string    `json:"name"` // with its key
	Of              string    `json:"of"`   // the dependency
	State           string    `json:"state"`
	Mode            string    `json:"mode"`
	Override        *override `json:"override,omitempty"`
	Evidence        *evidence `json:"evidence,omitempty"`
	ErrorPercentage float64   `json:"errorPercentage"`
	Window          counts    `json:"window"`
	Total           counts    `json:"total"`
	Latency         []int64   `json:"latency"` // of runs, nanoseconds: mean, p50, p90, p99, p99.5
	InFlight        int       `json:"inFlight"`
	Fallbacks       int       `json:"fallbacks"`
}

func commandOf(cmd *firebreak.Command, s *firebreak.Snapshot) command {
	c := command{
		Command: label(s.Command), Key: label(s.Key), Name: label(cmd.Name()), Of: label(s.Dependency),
		State: s.State.String(), Mode: s.Mode.String(), Override: overrideOf(&s.Override), Evidence: evidenceOf(&s.Evidence),
		ErrorPercentage: s.ErrorPercentage, Window: countsOf(&s.Window), Total: countsOf(&s.Total),
		InFlight: s.InFlight, Fallbacks: s.Fallbacks,
	}
	l := &s.RunLatency
	c.Latency = []int64{int64(l.Mean), int64(l.P50), int64(l.P90), int64(l.P99), int64(l.P995)}
	return c
}

// usual tells whether there is nothing about a command that somebody has to see.
func usual(s *firebreak.Snapshot) bool {
	return s.State == firebreak.StateClosed && s.Mode == firebreak.Auto && overrideOf(&s.Override) == nil
}

// counts are in the order of countNames, without the zeros at the end.
type counts []uint64

// countNames go to the page once: the outcomes, and what else is counted.
var countNames = func() []string {
	var names []string
	for o := firebreak.OutcomeSuccess; o <= firebreak.OutcomeGaveUp; o++ {
		names = append(names, o.String())
	}
	return append(names, "fallback_success", "fallback_failure", "fallback_rejected", "fallback_missing",
		"overran", "would_short_circuit", "emitted", "cache_hits", "batches", "collapsed", "observer_panics")
}()

func countsOf(c *firebreak.Counts) counts {
	all := counts{
		c.Success, c.Expected, c.Ignored, c.Failure, c.Timeout, c.Panic, c.Canceled, c.CallerDeadline,
		c.Rejected, c.ShortCircuited, c.Shutdown, c.GaveUp,
		c.FallbackSuccess, c.FallbackFailure, c.FallbackRejected, c.FallbackMissing,
		c.Overran, c.WouldShortCircuit, c.Emitted, c.CacheHits, c.Batches, c.Collapsed, c.ObserverPanics,
	}
	for len(all) > 0 && all[len(all)-1] == 0 {
		all = all[:len(all)-1]
	}
	return all
}

type override struct {
	Mode   string `json:"mode,omitempty"` // "": Config's
	Reason string `json:"reason,omitempty"`
	Author string `json:"author,omitempty"`
	Until  int64  `json:"until,omitempty"`  // 0: until it is lifted
	Inject bool   `json:"inject,omitempty"` // a drill is on
}

// overrideOf is nil if there is none.
func overrideOf(o *firebreak.Override) *override {
	if o.Mode == 0 && o.Reason == "" && o.Author == "" && o.Until.IsZero() && o.Inject == nil {
		return nil
	}
	return &override{o.Mode.String(), clip(o.Reason), clip(o.Author), millis(o.Until), o.Inject != nil}
}

type evidence struct {
	Rule      string `json:"rule"`
	LastError string `json:"lastError,omitempty"`
	At        int64  `json:"at"`
	NextProbe int64  `json:"nextProbe,omitempty"`
	Calls     uint64 `json:"calls"`
	Failures  uint64 `json:"failures"`
	Slow      uint64 `json:"slow"`
	Refused   uint64 `json:"refused"`
}

// evidenceOf is nil if no circuit opened.
func evidenceOf(e *firebreak.Evidence) *evidence {
	if e.Rule == "" {
		return nil
	}
	return &evidence{e.Rule, clip(e.LastError), millis(e.At), millis(e.NextProbe), e.Calls, e.Failures, e.Slow, e.Refused}
}

// millis is a moment in Unix milliseconds; 0 if it is none, or so far away that it
// will not come: a browser's Date ends in the year 275760.
func millis(t time.Time) int64 {
	if t.IsZero() || t.Year() > 200_000 {
		return 0
	}
	return t.UnixMilli()
}

// maxText is how much is kept of a text that others made, in bytes. What an error
// says can be a whole response.
const maxText = 1000

// clip is s, or its beginning.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	i := maxText
	for i > 0 && !utf8.RuneStart(s[i]) {
		i--
	}
	return s[:i] + "…"
}

// label is a name as the page gets it, and hands it back: keys may be of any length
// and any bytes, which JSON and addresses do not carry. What had to be changed stays
// distinct by its sum, and nothing that needs no change looks like it.
func label(name string) string {
	if len(name) <= maxText && utf8.ValidString(name) && !strings.ContainsRune(name, utf8.RuneError) {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return clip(strings.ToValidUTF8(name, string(utf8.RuneError))) + "#" + hex.EncodeToString(sum[:16])
}
