package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak"
)

// ErrOverridden is matched by the error of a [Drill.Start] that found an override in
// force, which it leaves alone.
var ErrOverridden = errors.New("an override is in force")

// A Drill is a fault for some commands, for a while. Fault, Reason, Author and one
// of For and Until are required. It is a plain value: it may be copied, and started
// more than once.
type Drill struct {
	Fault  Fault
	Reason string // why, for whoever looks at it later
	Author string // whom to ask

	// When it ends, by itself: so long after Start, above 0, or at that moment.
	// Neither is further away than [Longest].
	For   time.Duration
	Until time.Time

	// Mode is what is made of the circuit's decisions meanwhile; zero leaves that to
	// the command's Config. [firebreak.Shadow] keeps the circuit from taking calls
	// away from the drill. [firebreak.ForceOpen] would take all of them, and is an
	// error.
	Mode firebreak.Mode

	// Seed, unless 0, makes a drill repeatable: the n-th call of a command that comes
	// to the injection draws the same chances and latencies every time.
	Seed uint64

	// Replace takes the place of another drill: of an override that injects. One
	// that merely sets a mode is an operator's hand, and has to be lifted by it.
	Replace bool
}

// Start begins the drill on all of the commands, or, if it returns an error, on
// none: one that names each field that is missing or wrong, or one that matches
// [ErrOverridden]. It waits for nothing but observers. A command given twice is
// drilled once; each has schedule and chances of its own.
//
// In [firebreak.Snapshot] and transitions the drill is an Override whose Reason
// begins with "drill: " and says what is injected. At its end nothing is injected
// any more, and calls that wait in it go on. A circuit that it opened stays open
// until its next probe succeeds, as after any failure; also with Shadow, which held
// it back only so long.
//
// The drill ends early by stop, which may be called more than once, late and
// concurrently: nothing is injected from then on, calls that wait go on, and the
// override is lifted wherever it is still this drill's, by its Owner. Another one, set
// since, is left alone. Lifting the override by hand ends the drill for calls to come; those
// that wait do so to the end of their context or of the drill.
//
// To look at a command's override and to set it are two steps. Of two who set it in
// the same instant the last has it, and one that is set in the very instant of stop
// may be lifted with the drill's.
//
// While it lasts, a key of a [firebreak.Keyed] does not make way for another. Ask
// [firebreak.Keyed.Command] anew for a drill: on a handle whose command made way it
// cannot be seen whether the present one has an override; Start then lifts whatever
// that was and returns an error.
func (d Drill) Start(cmds ...*firebreak.Command) (stop func(), err error) {
	now := time.Now()
	length, err := d.check(now, cmds)
	if err != nil {
		return nil, err
	}
	var errs []error
	for i, cmd := range cmds {
		if old := cmd.Snapshot().Override; !slices.Contains(cmds[:i], cmd) && inForce(old) && (!d.Replace || old.Inject == nil) {
			errs = append(errs, overridden(cmd, old))
		}
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}

	r := &run{length: length}
	until := d.Until
	if until.IsZero() {
		until = now.Add(length)
	}
	for _, cmd := range cmds {
		if slices.Contains(r.cmds, cmd) {
			continue
		}
		o := d.override(r, until)
		o.Inject = (&drilled{run: r, fault: d.Fault, began: now, seed: d.Seed}).inject
		cmd.Override(o)
		r.cmds = append(r.cmds, cmd)
		switch set := cmd.Snapshot().Override; {
		case r.is(set):
		case inForce(set): // somebody else's, since
			r.stop()
			return nil, overridden(cmd, set)
		case time.Since(now) < length:
			cmd.Override(firebreak.Override{})
			r.stop()
			return nil, fmt.Errorf("chaos: %s: the drill does not show: it was lifted at once, or the command made way for another key", cmd.Name())
		}
	}
	return r.stop, nil
}

// check tells all that is wrong with a drill, and how long it lasts from now.
func (d Drill) check(now time.Time, cmds []*firebreak.Command) (length time.Duration, err error) {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("chaos: drill: "+format, args...)) }
	if d.Fault.do == nil {
		wrong("Fault is missing")
	}
	if strings.TrimSpace(d.Reason) == "" {
		wrong("Reason is missing")
	}
	if strings.TrimSpace(d.Author) == "" {
		wrong("Author is missing")
	}
	length = d.For
	switch {
	case d.For == 0 && d.Until.IsZero():
		wrong("For or Until is missing: a drill has an end")
	case d.For != 0 && !d.Until.IsZero():
		wrong("For and Until are both there")
	case d.For < 0 || d.For > Longest:
		wrong("For: %s is not above 0 and up to %s", short(d.For), short(Longest))
	case !d.Until.IsZero():
		length = d.Until.Sub(now)
		if length <= 0 || length > Longest {
			wrong("Until: %s is not from now on and at most %s away", d.Until.Format(time.RFC3339), short(Longest))
		}
	}
	if d.Mode == firebreak.ForceOpen {
		wrong("Mode: under force_open nothing is injected")
	} else if d.Mode > firebreak.Shadow {
		wrong("Mode: there is no %d", uint8(d.Mode))
	}
	if len(cmds) == 0 {
		wrong("no command")
	}
	for i, cmd := range cmds {
		if cmd == nil {
			wrong("command %d of %d is nil", i+1, len(cmds))
		}
	}
	return length, errors.Join(errs...)
}

// override is what everybody sees of a run, but for Inject.
func (d Drill) override(r *run, until time.Time) firebreak.Override {
	reason := "drill: " + d.Fault.text
	if d.Seed != 0 {
		reason += fmt.Sprintf(", seed %d", d.Seed)
	}
	return firebreak.Override{Mode: d.Mode, Reason: reason + ": " + d.Reason, Author: d.Author, Until: until, Owner: r}
}

// inForce tells whether o is any override at all.
func inForce(o firebreak.Override) bool {
	return o.Mode != 0 || o.Reason != "" || o.Author != "" || !o.Until.IsZero() || o.Inject != nil || o.Owner != nil
}

func overridden(cmd *firebreak.Command, by firebreak.Override) error {
	return fmt.Errorf("chaos: %s: %w: %q by %q", cmd.Name(), ErrOverridden, by.Reason, by.Author)
}

// A run is a drill that was started.
type run struct {
	length  time.Duration
	cmds    []*firebreak.Command
	stopped atomic.Bool

	mu    sync.Mutex // guards waits
	waits map[chan struct{}]bool
}

// is tells whether o is this run's.
func (r *run) is(o firebreak.Override) bool { return o.Owner == r }

// stop ends what the drill does before all else, as that cannot go wrong. No Once: an
// observer that is told of a lifted override may call it again from within.
func (r *run) stop() {
	if !r.stopped.CompareAndSwap(false, true) {
		return
	}
	r.mu.Lock()
	for done := range r.waits {
		close(done)
	}
	clear(r.waits)
	r.mu.Unlock()
	for _, cmd := range r.cmds {
		if r.is(cmd.Snapshot().Override) {
			cmd.Override(firebreak.Override{})
		}
	}
}

// enter returns what stop closes, nil if that was called. It is made for one wait:
// one for all could not serve a test bubble and what is outside of it.
func (r *run) enter() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped.Load() { // set before stop takes the lock, so none is forgotten
		return nil
	}
	done := make(chan struct{})
	if r.waits == nil {
		r.waits = map[chan struct{}]bool{}
	}
	r.waits[done] = true
	return done
}

func (r *run) leave(done chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waits, done)
}

// drilled is a command's part in a run.
type drilled struct {
	*run
	fault Fault
	began time.Time
	seed  uint64
	calls atomic.Uint64 // counted only if there is a seed
}

// errOver is a wait that the end of the drill ended: the call goes on, whatever the
// fault had in store for it.
var errOver = errors.New("the drill is over")

// inject is the Override's.
func (d *drilled) inject(ctx context.Context) error {
	since := d.since()
	if since >= d.length || d.stopped.Load() {
		return nil
	}
	h := hit{ctx: ctx, drill: d, since: since, rand: unseeded, grown: 1}
	if d.seed != 0 {
		// A generator for each call: no lock, and how often one call draws does not
		// change what the next one gets.
		h.rand = rand.New(rand.NewPCG(d.seed, d.calls.Add(1)))
	}
	if err := d.fault.do(&h); err != errOver { //nolint:errorlint // it is never wrapped
		return err
	}
	return nil
}

// since is how long the drill has lasted. Time goes back where a test bubble begins:
// to the drill's start, then.
func (d *drilled) since() time.Duration { return max(0, time.Since(d.began)) }

// wait waits for a time, but no longer than to the end of the drill, which is
// errOver, or of ctx, which is its error.
func (d *drilled) wait(ctx context.Context, length time.Duration) error {
	if length <= 0 {
		return nil
	}
	var over error
	if left := d.length - d.since(); length >= left {
		length, over = left, errOver
	}
	stopped := d.enter()
	if stopped == nil {
		return errOver
	}
	defer d.leave(stopped)
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
		return over
	case <-ctx.Done():
		return ctx.Err()
	case <-stopped:
		return errOver
	}
}
