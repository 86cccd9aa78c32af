package dashboard

import (
	"cmp"
	"slices"
	"sync"

	"github.com/firebreak-go/firebreak"
)

// events remembers the last transitions and edits, a bounded number of them.
type events struct {
	most int

	mu   sync.Mutex
	last uint64 // the number of the last one; the first has 1
	all  []event
	of   map[identity]int // how many of each command
}

// An event is what the page is told of one. Documents have no command.
type event struct {
	Number  uint64 `json:"n"`
	At      int64  `json:"at"` // Unix milliseconds, as everywhere
	Command string `json:"command,omitempty"`
	Key     string `json:"key,omitempty"`

	From      string    `json:"from,omitempty"`
	To        string    `json:"to,omitempty"`
	Mode      string    `json:"mode,omitempty"`
	Override  *override `json:"override,omitempty"`
	Evidence  *evidence `json:"evidence,omitempty"` // if it opened
	Action    string    `json:"action,omitempty"`   // document or lift: by an operator, whom no transition names
	Reason    string    `json:"reason,omitempty"`
	Author    string    `json:"author,omitempty"`
	isCommand bool
}

func newEvents(most int) *events {
	return &events{most: most, of: map[identity]int{}}
}

// transition is called on the goroutines of callers.
func (es *events) transition(t firebreak.Transition) {
	e := event{
		At: millis(t.At), Command: label(t.Command), Key: label(t.Key), isCommand: true,
		From: t.From.String(), To: t.To.String(), Mode: t.Mode.String(), Override: overrideOf(&t.Override),
	}
	// The evidence is of the last time that a rule held; it says nothing of a circuit
	// that was forced open, or shut down, since.
	if t.To == firebreak.StateOpen && t.From != t.To && t.Evidence.At.Equal(t.At) {
		e.Evidence = evidenceOf(&t.Evidence)
	}
	es.add(e)
}

// act remembers what an operator did; cmd is nil for a document.
func (es *events) act(action string, a *Action, cmd *firebreak.Command) {
	e := event{At: millis(a.At), Action: action, Reason: clip(a.Reason), Author: clip(a.Author)}
	if cmd != nil {
		s := cmd.Snapshot()
		e.Command, e.Key, e.isCommand = label(s.Command), label(s.Key), true
	}
	es.add(e)
}

func (e *event) of() identity { return identity{e.isCommand, e.Command, e.Key} }

func (es *events) add(e event) {
	es.mu.Lock()
	defer es.mu.Unlock()
	es.last++
	e.Number = es.last
	es.all = append(es.all, e)
	es.of[e.of()]++
	if len(es.all) > es.most {
		es.dropLocked()
	}
}

// dropLocked drops the oldest of those that have the most.
func (es *events) dropLocked() {
	most := 0
	for _, n := range es.of {
		most = max(most, n)
	}
	i := slices.IndexFunc(es.all, func(e event) bool { return es.of[e.of()] == most })
	of := es.all[i].of()
	es.all = slices.Delete(es.all, i, i+1)
	if es.of[of]--; es.of[of] == 0 {
		delete(es.of, of)
	}
}

// after returns those that are newer than number n, which may be none.
func (es *events) after(n uint64) []event {
	es.mu.Lock()
	defer es.mu.Unlock()
	i, _ := slices.BinarySearchFunc(es.all, n+1, func(e event, n uint64) int { return cmp.Compare(e.Number, n) })
	return slices.Clone(es.all[i:])
}
