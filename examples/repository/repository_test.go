package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreaktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The repository, tested without a network: the part to copy.

func TestSeatsFallBack(t *testing.T) {
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	box := guard(reg, newTheatre())
	firebreaktest.Force(t, reg, "boxoffice.seats", firebreak.ErrTimeout)
	seats, err := box.Seats(t.Context(), "Act 1")
	require.NoError(t, err)
	require.Equal(t, Seats{Known: false}, seats)
}

func TestProgrammeFromMemory(t *testing.T) {
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	box := guard(reg, newTheatre())
	fresh, err := box.Programme(t.Context(), time.Monday)
	require.NoError(t, err)
	require.False(t, fresh.Old)

	firebreaktest.Force(t, reg, "boxoffice.programme", firebreak.ErrOpen)
	old, err := box.Programme(t.Context(), time.Monday)
	require.NoError(t, err)
	require.Equal(t, Programme{Day: time.Monday, Shows: fresh.Shows, Old: true}, old)

	_, err = box.Programme(t.Context(), time.Tuesday) // never seen
	require.ErrorIs(t, err, firebreak.ErrOpen)
	_, err = box.Programme(t.Context(), 7)
	require.ErrorIs(t, err, ErrNotFound)

	firebreaktest.Force(t, reg, "boxoffice.show", firebreak.ErrOpen)
	show, err := box.Show(t.Context(), "Act 2")
	require.NoError(t, err)
	require.Equal(t, Show{Name: "Act 2", Day: time.Monday}, show)
	_, err = box.Show(t.Context(), "Act 3")
	require.ErrorIs(t, err, firebreak.ErrOpen)
}

func TestProgrammeIsForgottenAfterAWeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := firebreaktest.NewRegistry(t, firebreak.Config{})
		box := guard(reg, newTheatre())
		_, err := box.Programme(t.Context(), time.Monday)
		require.NoError(t, err)
		firebreaktest.Force(t, reg, "boxoffice.programme", firebreak.ErrTimeout)
		time.Sleep(7 * 24 * time.Hour)
		_, err = box.Programme(t.Context(), time.Monday)
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = box.Programme(t.Context(), time.Monday)
		require.ErrorIs(t, err, firebreak.ErrTimeout)
	})
}

// What cannot be known or sold without the box office is an error.
func TestNoFallbackForTicketsAndWrites(t *testing.T) {
	for _, outcome := range []error{firebreak.ErrOpen, firebreak.ErrRejected, firebreak.ErrTimeout, errors.New("connection reset")} {
		reg := firebreaktest.NewRegistry(t, firebreak.Config{})
		box := guard(reg, newTheatre())
		for _, name := range []string{"boxoffice.ticket", "boxoffice.book", "boxoffice.cancel"} {
			firebreaktest.Force(t, reg, name, outcome)
		}
		_, err := box.Ticket(t.Context(), "a")
		require.ErrorIs(t, err, outcome)
		_, err = box.Book(t.Context(), Booking{Ref: "a", Show: "Act 1"})
		require.ErrorIs(t, err, outcome)
		_, err = box.Cancel(t.Context(), "a")
		require.ErrorIs(t, err, outcome)
	}
}

// "Not found" and "sold out" are answers: no fallback, and however many, no open circuit.
func TestAnswersThatAreNoFailures(t *testing.T) {
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	box := guard(reg, newTheatre())
	for ref := range strings.SplitSeq("abc", "") {
		_, err := box.Book(t.Context(), Booking{Ref: ref, Show: "Act 1"})
		require.NoError(t, err)
	}
	for range 50 {
		_, err := box.Book(t.Context(), Booking{Ref: "d", Show: "Act 1"})
		require.Equal(t, ErrSoldOut, err)
		_, err = box.Seats(t.Context(), "Act 8")
		require.Equal(t, ErrNotFound, err)
	}
	for cmd := range reg.Commands() {
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
		require.Equal(t, firebreak.Failure, cmd.Config().Classify(errors.New("connection reset")))
	}
}

// Each method is its own command, of one dependency; writes have longer.
func TestEachMethodHasItsCommand(t *testing.T) {
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	box := guard(reg, newTheatre())
	ctx := t.Context()
	for _, do := range []func() error{
		func() error { _, err := box.Programme(ctx, 0); return err },
		func() error { _, err := box.Show(ctx, "Act 1"); return err },
		func() error { _, err := box.Seats(ctx, "Act 1"); return err },
		func() error { _, err := box.Book(ctx, Booking{Ref: "a", Show: "Act 1"}); return err },
		func() error { _, err := box.Ticket(ctx, "a"); return err },
		func() error { _, err := box.Cancel(ctx, "a"); return err },
	} {
		require.NoError(t, do())
	}
	commands := 0
	for cmd := range reg.Commands() {
		s := cmd.Snapshot()
		assert.EqualValues(t, 1, s.Total.Success, cmd.Name())
		assert.Equal(t, "boxoffice", s.Dependency)
		commands++
		want := readTimeout
		if cmd.Name() == "boxoffice.book" || cmd.Name() == "boxoffice.cancel" {
			want = writeTimeout
		}
		assert.Equal(t, want, cmd.Config().Timeout, cmd.Name())
	}
	assert.Equal(t, 6, commands)
}

func TestProgrammeRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := firebreaktest.NewRegistry(t, firebreak.Config{})
		box := guard(reg, newTheatre())
		_, _ = box.Programme(t.Context(), time.Monday)
		rec := firebreaktest.Record(t, reg)

		firebreaktest.Trip(t, reg, "boxoffice.programme")
		_, _ = box.Programme(t.Context(), time.Monday)
		time.Sleep(sleepWindow)
		_, _ = box.Programme(t.Context(), time.Monday)

		rec.Want(t, "boxoffice.programme",
			"open", "short_circuited", "fallback_success",
			"half_open", "success", "closed")
	})
}

// The wire, with real sockets, hence outside of bubbles.

func newWire(t *testing.T) (*server, *client) {
	t.Helper()
	far, err := newServer(newTheatre())
	require.NoError(t, err)
	t.Cleanup(far.stop)
	near := &client{addr: far.addr}
	t.Cleanup(near.close)
	return far, near
}

func TestWire(t *testing.T) {
	far, near := newWire(t)
	ctx := t.Context()
	p, err := near.Programme(ctx, time.Saturday)
	require.NoError(t, err)
	require.Equal(t, Programme{Day: time.Saturday, Shows: []string{"Act 7"}}, p)
	show, err := near.Show(ctx, "Act 7")
	require.NoError(t, err)
	require.Equal(t, Show{Name: "Act 7", Day: time.Saturday}, show)
	ticket, err := near.Book(ctx, Booking{Ref: "a", Show: "Act 7"})
	require.NoError(t, err)
	require.Equal(t, Ticket{Ref: "a", Show: "Act 7", Seat: 1}, ticket)
	again, err := near.Book(ctx, Booking{Ref: "a", Show: "Act 7"})
	require.NoError(t, err)
	require.Equal(t, ticket, again)
	found, err := near.Ticket(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, ticket, found)
	seats, err := near.Seats(ctx, "Act 7")
	require.NoError(t, err)
	require.Equal(t, Seats{Left: 2, Known: true}, seats)
	cancelled, err := near.Cancel(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, ticket, cancelled)
	_, err = near.Ticket(ctx, "a")
	require.Equal(t, ErrNotFound, err)
	for ref := range strings.SplitSeq("bcd", "") {
		_, err = near.Book(ctx, Booking{Ref: ref, Show: "Act 7"})
		require.NoError(t, err)
	}
	_, err = near.Book(ctx, Booking{Ref: "e", Show: "Act 7"})
	require.Equal(t, ErrSoldOut, err)

	// It hangs: the client leaves, and is not there when the answer comes.
	far.desk.hang()
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = near.Seats(short, "Act 7")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	far.desk.open()
	_, err = near.Seats(ctx, "Act 7")
	require.NoError(t, err)

	// It is gone, and comes back.
	far.stop()
	for range 3 {
		_, err = near.Seats(ctx, "Act 7")
		require.Error(t, err)
	}
	require.ErrorContains(t, err, "refused")
	require.NoError(t, far.start())
	_, err = near.Seats(ctx, "Act 7")
	require.NoError(t, err)
}

func TestWireConcurrently(t *testing.T) {
	_, near := newWire(t)
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			for range 20 {
				_, err := near.Programme(t.Context(), time.Monday)
				assert.NoError(t, err)
			}
		})
	}
	calls.Wait()
}

// The whole story, as `go run` tells it.
func TestStory(t *testing.T) {
	var out strings.Builder
	status := run(t.Context(), &out)
	t.Log(out.String())
	require.Zero(t, status)
	require.Equal(t, 6, strings.Count(out.String(), "\nkept "))
	require.NotContains(t, out.String(), "BROKEN")
	require.Contains(t, out.String(), "boxoffice.programme: closed to open by consecutive failures")
}

// A promise that is not kept is said, and the status is 1; so it is after Ctrl-C.
func TestStoryThatGoesWrong(t *testing.T) {
	good := result{
		pages: 10, answered: 10, slowest: readTimeout, outage: time.Second, reached: 5, spared: 3,
		booked: 3, tickets: 2, unsure: firebreak.ErrTimeout, recovered: sleepWindow, state: firebreak.StateClosed,
	}
	require.Zero(t, report(io.Discard, &good))
	for i, spoil := range []func(r *result){
		func(r *result) { r.answered-- },
		func(r *result) { r.slowest = readTimeout + slack + 1 },
		func(r *result) { r.reached = 9 },
		func(r *result) { r.unsure = nil },
		func(r *result) { r.tickets++ },
		func(r *result) { r.state = firebreak.StateOpen },
	} {
		bad := good
		spoil(&bad)
		var out strings.Builder
		require.Equal(t, 1, report(&out, &bad))
		lines := strings.Split(out.String(), "\n")
		require.Contains(t, lines[i], "BROKEN")
		require.Equal(t, 1, strings.Count(out.String(), "BROKEN"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out strings.Builder
	require.Equal(t, 1, run(ctx, &out))
	require.Contains(t, out.String(), "context canceled")
}
