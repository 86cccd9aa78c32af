// Package firebreaktest is for the tests of services that use firebreak: it makes a
// call fail, time out or be refused without a dependency that does ([Force]), opens
// a circuit ([Trip]) and tells in order what happened ([Record]).
//
//	func TestGuestWhenUsersAreDown(t *testing.T) {
//		reg := firebreaktest.NewRegistry(t, firebreak.Config{})
//		svc := NewService(reg)
//		firebreaktest.Force(t, reg, "users.get", firebreak.ErrTimeout)
//		u, err := svc.User(t.Context(), 7)
//		// u is the guest, err is nil
//	}
//
// Give each test a registry of its own: two of them share nothing, so that tests may
// be parallel. All of it works inside [testing/synctest] bubbles, where time passes
// at once, and outside; a registry belongs to the bubble that it was made in. What
// else a test may ask needs no kit: a classifier is tested with
// cmd.Config().Classify(err), counts with cmd.Snapshot().Total.
//
// The functions that take a t fail it with Fatalf, so call them on the goroutine of
// the test. The package is built on firebreak's exported API alone.
package firebreaktest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firebreak-go/firebreak"
)

// How long the end of a test waits for runs that are still out. One that ends with
// the test's context needs a moment, on a busy machine a long one; a test that
// leaves nothing behind waits for nothing.
const (
	grace = 5 * time.Second
	// In a bubble time costs nothing, and what ends by a timer is no leak: the bubble
	// itself would wait for it. Not for ever, as whatever ticks there ticks along.
	bubbleGrace = time.Hour
)

// NewRegistry is [firebreak.NewRegistry] for one test. At the end of t, after the
// cleanups that were registered since, it is shut down; t fails if a permit does not
// come back within five seconds, and is told whose, how many are out and since when.
// Runs whose caller has left count, and so does a Begin without an End.
//
// In a bubble an hour of the bubble's time is allowed, which takes no time unless
// something ticks; a run that waits for no timer is reported, and then the bubble
// ends as it does with any goroutine that is stuck. A run that is blocked in what
// stops a bubble's time, such as a socket, stops the end of the test too.
//
// It panics on a bad Config.
func NewRegistry(t testing.TB, defaults firebreak.Config) *firebreak.Registry {
	t.Helper()
	reg := firebreak.NewRegistry(defaults)
	t.Cleanup(func() {
		t.Helper()
		err := shutdown(reg, grace)
		if err != nil && inBubble() {
			err = shutdown(reg, bubbleGrace)
		}
		if err != nil {
			t.Errorf("firebreaktest: a permit is still out at the end of the test, of a run that has not returned or a Begin without its End: %v", err)
		}
	})
	return reg
}

func shutdown(reg *firebreak.Registry, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return reg.Shutdown(ctx)
}

// inBubble tells whether the goroutine is in a test bubble: outside one Wait
// panics. That is not promised, hence it is asked in tests only that fail anyway.
func inBubble() (is bool) {
	defer func() { is = recover() == nil }()
	synctest.Wait()
	return
}

// find returns the command of that name, or fails t.
func find(t testing.TB, reg *firebreak.Registry, name string) *firebreak.Command {
	t.Helper()
	cmd, twice := lookup(reg, name)
	switch {
	case cmd == nil:
		t.Fatalf("%s", unknown(reg, name))
	case twice:
		t.Fatalf("firebreaktest: %q is the name of two commands, one of them keyed", name)
	}
	return cmd
}

// lookup returns the command of that name, nil if there is none. The name of a keyed
// one can be made for a plain one too.
func lookup(reg *firebreak.Registry, name string) (cmd *firebreak.Command, twice bool) {
	for c := range reg.Commands() {
		if c.Name() == name {
			cmd, twice = c, cmd != nil
		}
	}
	return cmd, twice
}

// unknown is what there is instead of the command.
func unknown(reg *firebreak.Registry, name string) string {
	const most = 20
	var names []string
	more := 0
	for cmd := range reg.Commands() {
		if len(names) < most {
			names = append(names, fmt.Sprintf("%q", cmd.Name()))
		} else {
			more++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "firebreaktest: there is no command %q; there ", name)
	switch {
	case len(names) == 0:
		b.WriteString("are none in this registry")
	case len(names) == 1:
		b.WriteString("is " + names[0])
	default:
		b.WriteString("are " + strings.Join(names, ", "))
	}
	if more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	b.WriteString(". A keyed command is named with its key, web.get[a.example], and is there once it was asked for")
	return b.String()
}
