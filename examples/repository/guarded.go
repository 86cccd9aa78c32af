package main

import (
	"context"
	"slices"
	"time"

	"github.com/firebreak-go/firebreak"
)

const (
	readTimeout  = 300 * time.Millisecond
	writeTimeout = 500 * time.Millisecond
	// Short ones, so that the story takes seconds. In a service, begin with the
	// defaults: SleepWindow 5s, and half of twenty calls.
	sleepWindow = 500 * time.Millisecond
	failures    = 5
)

// guarded is a [BoxOffice] behind firebreak: a field for each method.
type guarded struct {
	programme func(context.Context, time.Weekday) (Programme, error)
	show      func(context.Context, string) (Show, error)
	seats     func(context.Context, string) (Seats, error)
	ticket    func(context.Context, string) (Ticket, error)
	book      func(context.Context, Booking) (Ticket, error)
	cancel    func(context.Context, string) (Ticket, error)
}

// guard puts firebreak between the service and next. All operations share the
// bulkhead of one dependency; each is a command with a circuit of its own, since a
// box office that cannot sell may well be able to read.
func guard(reg *firebreak.Registry, next BoxOffice) BoxOffice {
	office := reg.Dependency("boxoffice", firebreak.Config{
		MaxConcurrent:       20,
		Timeout:             readTimeout,
		SleepWindow:         sleepWindow,
		ConsecutiveFailures: failures,
		// It answered, if not what one had hoped for: no fallback, and no circuit that opens.
		Classify: firebreak.ExpectErrors(ErrNotFound, ErrSoldOut),
	})
	read := func(name string) *firebreak.Command { return office.Command(name, firebreak.Config{}) }
	write := func(name string) *firebreak.Command {
		return office.Command(name, firebreak.Config{Timeout: writeTimeout})
	}
	days := newMemory(next.Programme)

	return &guarded{
		// Yesterday's programme is mostly today's, and the page says that it is old.
		programme: firebreak.Bind(read("boxoffice.programme"), days.remember, days.lastKnown),
		show:      firebreak.Bind(read("boxoffice.show"), next.Show, days.showLastKnown),
		// An old number of seats sells what is gone.
		seats: firebreak.Bind(read("boxoffice.seats"), next.Seats, askAtTheDesk),
		// Without an answer nobody knows whether there is a ticket: that is an error.
		ticket: firebreak.Bind(read("boxoffice.ticket"), next.Ticket),
		// No fallback can sell a seat: writes fail fast. After a timeout the seat may have
		// been sold all the same, hence the reference in a Booking.
		book:   firebreak.Bind(write("boxoffice.book"), next.Book),
		cancel: firebreak.Bind(write("boxoffice.cancel"), next.Cancel),
	}
}

func (g *guarded) Programme(ctx context.Context, day time.Weekday) (Programme, error) {
	return g.programme(ctx, day)
}
func (g *guarded) Show(ctx context.Context, name string) (Show, error)   { return g.show(ctx, name) }
func (g *guarded) Seats(ctx context.Context, show string) (Seats, error) { return g.seats(ctx, show) }
func (g *guarded) Ticket(ctx context.Context, ref string) (Ticket, error) {
	return g.ticket(ctx, ref)
}
func (g *guarded) Book(ctx context.Context, b Booking) (Ticket, error) { return g.book(ctx, b) }
func (g *guarded) Cancel(ctx context.Context, ref string) (Ticket, error) {
	return g.cancel(ctx, ref)
}

func askAtTheDesk(context.Context, string, error) (Seats, error) { return Seats{}, nil }

// memory is the last good programme of each day, for a week. firebreak.Stale keeps
// one value, so that nobody's answer is given to somebody else: one pair for a day.
type memory [7]struct {
	remember func(context.Context) (Programme, error)
	stale    firebreak.Fallback[Programme]
}

func newMemory(programme func(context.Context, time.Weekday) (Programme, error)) *memory {
	m := new(memory)
	for i := range m {
		m[i].remember, m[i].stale = firebreak.Stale(func(ctx context.Context) (Programme, error) {
			return programme(ctx, time.Weekday(i))
		}, 7*24*time.Hour)
	}
	return m
}

func (m *memory) remember(ctx context.Context, day time.Weekday) (Programme, error) {
	if day < 0 || int(day) >= len(m) {
		return Programme{}, ErrNotFound
	}
	return m[day].remember(ctx)
}

func (m *memory) lastKnown(ctx context.Context, day time.Weekday, cause error) (Programme, error) {
	if day < 0 || int(day) >= len(m) {
		return Programme{}, ErrNotFound
	}
	p, err := m[day].stale(ctx, cause)
	p.Old = true
	return p, err
}

// showLastKnown looks a show up in the programmes that are remembered. One that is in
// none of them may be new: then there is no answer.
func (m *memory) showLastKnown(ctx context.Context, name string, cause error) (Show, error) {
	for i := range m {
		p, err := m[i].stale(ctx, cause)
		if err == nil && slices.Contains(p.Shows, name) {
			return Show{Name: name, Day: p.Day}, nil
		}
	}
	return Show{}, cause
}
