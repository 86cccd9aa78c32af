package firebreakprom

import (
	"sync"
	"sync/atomic"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakprom/internal/metric"
)

// moves counts transitions by command, on the goroutines of callers.
type moves struct {
	mu sync.RWMutex
	of map[string]*moved
}

// moved are one command's, in the order of CircuitTransitions' series.
type moved [numMoves]atomic.Uint64

const numMoves = 14

// moveAt is where a transition is counted.
var moveAt = func() map[[3]string]int {
	at := map[[3]string]int{}
	for i, s := range metric.CircuitTransitions.Series {
		at[[3]string(s)] = i
	}
	return at
}()

// note counts a transition. One of mode alone, from a state to itself, has no series:
// the override shows it.
func (m *moves) note(t firebreak.Transition) {
	from, to := t.From.String(), t.To.String()
	i, ok := moveAt[[3]string{from, to, causeOf(&t)}]
	if !ok { // perhaps by a rule that is new
		i, ok = moveAt[[3]string{from, to, metric.Other}]
	}
	if ok {
		m.command(t.Command)[i].Add(1)
	}
}

func (m *moves) command(name string) *moved {
	m.mu.RLock()
	of := m.of[name]
	m.mu.RUnlock()
	if of != nil {
		return of
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = map[string]*moved{}
	}
	if m.of[name] == nil {
		m.of[name] = new(moved)
	}
	return m.of[name]
}

// causeOf is why a circuit changed its state.
func causeOf(t *firebreak.Transition) string {
	switch t.To {
	case firebreak.StateHalfOpen:
		return metric.SleepWindow
	case firebreak.StateClosed:
		if t.From == firebreak.StateHalfOpen && t.Mode != firebreak.ForceClosed {
			return metric.Probe
		}
		return metric.ByMode
	}
	// The evidence is of the last time that a rule held; is that now?
	switch {
	case t.Evidence.At.Equal(t.At) && t.Evidence.Rule != "":
		return metric.Word(t.Evidence.Rule)
	case t.Mode == firebreak.ForceOpen:
		return metric.ByMode
	}
	return metric.Shutdown
}
