package firebreaktest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/firebreak-go/firebreak"
)

// Force has every call of a command end by outcome: [firebreak.ErrOpen],
// [firebreak.ErrRejected] and [firebreak.ErrTimeout] as if they had happened, without
// a wait; any other error, one that wraps these included, as if run had returned it:
// its [firebreak.Mark] or Classify judge it. Run is not called.
//
// Calls are counted, and the circuit is told, as ever: enough failures open it. It
// short-circuits nothing meanwhile (its mode in force is Shadow, unless it is
// ForceClosed already), as every call is to end by outcome; for a circuit that
// refuses, or recovers, see [Trip]. A call that is refused on its way to run ends by
// that: its own context is over, the bulkhead is full, or the registry is shut down.
//
// Force lasts until restore is called, or to the end of t. Then the override that
// was there before is in force again. restore may be called again and does nothing.
//
// Forces of one command lie one above the other, whatever the order they are
// restored in: the newest that is not restored holds, and when all are, what was
// there before the first. An override set by hand above them is the hand's: restore
// leaves it as it is. Force and restore of one command are not to be called
// concurrently; its calls may.
//
// Force fails t if there is no such command, if outcome is nil, or if the command's
// Config says ForceOpen, which no override can lift.
func Force(t testing.TB, reg *firebreak.Registry, command string, outcome error) (restore func()) {
	t.Helper()
	cmd := find(t, reg, command)
	if outcome == nil {
		t.Fatalf("firebreaktest: Force: %s: the outcome is nil; say ErrOpen, ErrRejected, ErrTimeout or an error of run's", command)
	}
	//nolint:errorlint // a wrapped one stands for an error of run's
	if cmd.Config().Mode == firebreak.ForceOpen && outcome != firebreak.ErrOpen {
		t.Fatalf("firebreaktest: Force: %s: its Config says Mode force_open, so every call is short-circuited", command)
	}
	is := cmd.Snapshot()
	f := &force{cmd: cmd, base: is.Override, below: forceOf(is.Override)}
	f.override = firebreak.Override{
		Mode:   firebreak.Shadow,
		Reason: fmt.Sprintf("firebreaktest.Force: %v", outcome),
		Author: t.Name(),
		Inject: func(context.Context) error { return outcome },
		Owner:  f,
	}
	if is.Mode == firebreak.ForceClosed { // in Shadow its window would be judged, and lost
		f.override.Mode = firebreak.ForceClosed
	}
	cmd.Override(f.override)
	t.Cleanup(f.restore)
	return f.restore
}

// A force is one call of Force.
type force struct {
	cmd      *firebreak.Command
	override firebreak.Override
	base     firebreak.Override // what was in force before
	below    *force             // whose that was, or nil
	restored atomic.Bool
}

func (f *force) restore() {
	f.restored.Store(true)
	if forceOf(f.cmd.Snapshot().Override) == f { // else another holds, or none any more
		f.cmd.Override(f.under())
	}
}

// under is what holds once f does not: the next below that is not restored, or
// what was there before them all.
func (f *force) under() firebreak.Override {
	for f.below != nil {
		f = f.below
		if !f.restored.Load() {
			return f.override
		}
	}
	return f.base
}

// forceOf returns the force that an override is of, or nil.
func forceOf(o firebreak.Override) *force {
	f, _ := o.Owner.(*force)
	return f
}
