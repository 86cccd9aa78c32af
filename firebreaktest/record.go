package firebreaktest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/firebreak-go/firebreak"
)

// A Recorder keeps what happened to the commands of a registry, in order. Its methods
// may be used concurrently, as the calls may go on. Make one with [Record].
type Recorder struct {
	t   testing.TB
	reg *firebreak.Registry

	mu   sync.Mutex // guards logs and what is in them
	logs map[id]*log
}

// id is a command, as observers name it.
type id struct{ command, key string }

type log struct {
	events []string
	caused []string // transitions whose call has not been told yet
	forced *force   // the last that was told to hold
}

// Record has everything noted that happens in reg from now on, to the end of t. What
// is noted stays readable after that.
//
// Each command has a list of its own, with these words:
//
//   - each call's outcome, as metrics write it: success, expected, ignored, failure,
//     timeout, panic, canceled, caller_deadline, rejected, short_circuited, shutdown,
//     gave_up;
//   - how its fallbacks ended, if any were asked: fallback_success, fallback_failure,
//     fallback_rejected;
//   - overran: a run ended too long after its deadline, or panicked after its caller
//     had left;
//   - the circuit's new state: open, half_open, closed. Shutdown tells open;
//   - a change of mode or override that leaves the state as it is: "mode shadow" and
//     the like, or "override" for one without a Mode. When the last one is lifted, the
//     mode of the Config: "mode auto".
//
// An outcome stands before the transition that it causes, and that before what the
// call's fallbacks did. Of calls that end at the same time any may come first. What
// [Force] and its restore do to the override is not noted, nor are the calls of
// [Trip].
func Record(t testing.TB, reg *firebreak.Registry) *Recorder {
	t.Helper()
	r := &Recorder{t: t, reg: reg, logs: map[id]*log{}}
	for cmd := range reg.Commands() {
		s := cmd.Snapshot()
		r.logs[id{s.Command, s.Key}] = &log{forced: forceOf(s.Override)}
	}
	t.Cleanup(reg.Observe(firebreak.Observer{
		Transition: r.transition,
		Call:       r.call,
		Fallback: func(_ context.Context, e firebreak.CallEvent) {
			r.note(e, "fallback_"+e.Fallback.String())
		},
		Overrun: func(_ context.Context, e firebreak.CallEvent) {
			r.note(e, "overran")
		},
	}))
	return r
}

// Events returns what happened to a command so far, nothing if nothing did. A keyed
// command is named with its key: web.get[a.example]. The slice is the caller's own.
// It fails the t of [Record] if there is and was no such command.
func (r *Recorder) Events(command string) []string {
	r.t.Helper()
	return r.events(r.t, command)
}

// Want fails t, without ending it, if what happened to a command so far is not
// exactly events, and shows where the two part. It ends t if there is and was no
// such command.
func (r *Recorder) Want(t testing.TB, command string, events ...string) {
	t.Helper()
	if d := diff(events, r.events(t, command)); d != "" {
		t.Errorf("firebreaktest: the events of %s are not as wanted (- wanted, + happened):\n%s", command, d)
	}
}

func (r *Recorder) events(t testing.TB, command string) []string {
	t.Helper()
	of, there := r.idOf(command)
	if !there {
		find(t, r.reg, command) // it fails, and says how
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.logLocked(of)
	return slices.Concat(l.events, l.caused)
}

// idOf finds a command by its full name, also one that has made way for another key.
func (r *Recorder) idOf(command string) (of id, there bool) {
	cmd, twice := lookup(r.reg, command)
	if cmd != nil {
		s := cmd.Snapshot()
		return id{s.Command, s.Key}, !twice
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for of := range r.logs {
		if of.command+"["+of.key+"]" == command {
			return of, true
		}
	}
	return id{}, false
}

func (r *Recorder) logLocked(of id) *log {
	l := r.logs[of]
	if l == nil {
		l = &log{}
		r.logs[of] = l
	}
	return l
}

func (r *Recorder) note(e firebreak.CallEvent, event string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.logLocked(id{e.Command, e.Key})
	l.events = append(l.events, event)
}

func (r *Recorder) call(ctx context.Context, e firebreak.CallEvent) {
	trips := ctx.Value(tripping{}) != nil // asked before the lock: it is user code
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.logLocked(id{e.Command, e.Key})
	if !trips {
		l.events = append(l.events, e.Outcome.String())
	}
	l.flush()
}

// flush: whatever they wait for, what comes now comes after them.
func (l *log) flush() {
	l.events = append(l.events, l.caused...)
	l.caused = nil
}

func (r *Recorder) transition(t firebreak.Transition) {
	forced := forceOf(t.Override)
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.logLocked(id{t.Command, t.Key})
	if was := l.forced; forced != was {
		l.forced = forced
		if forced != nil || was.restored.Load() {
			return // Force's own doing, or restore's
		}
	}
	if byCall(&t) { // observers are told of the call right after
		l.caused = append(l.caused, word(&t))
		return
	}
	l.flush() // transitions stay in order
	l.events = append(l.events, word(&t))
}

// byCall tells whether an outcome has caused a transition: a failure that opened the
// circuit, or the success of the last probe. Modes change a state by themselves, and
// Shutdown opens one without new evidence.
func byCall(t *firebreak.Transition) bool {
	switch {
	case t.From == t.To:
		return false
	case t.To == firebreak.StateOpen:
		return t.Mode != firebreak.ForceOpen && t.Evidence.At.Equal(t.At)
	case t.To == firebreak.StateClosed:
		return t.From == firebreak.StateHalfOpen && t.Mode != firebreak.ForceClosed
	}
	return false
}

func word(t *firebreak.Transition) string {
	switch o := &t.Override; {
	case t.From != t.To:
		return t.To.String()
	case o.Mode == 0 && (o.Reason != "" || o.Author != "" || o.Inject != nil || o.Owner != nil || !o.Until.IsZero()):
		return "override"
	}
	return "mode " + t.Mode.String()
}
