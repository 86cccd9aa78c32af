package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// seatsOfAShow is how many there are.
const seatsOfAShow = 3

// A theatre is the box office itself, which keeps its books in memory. It has no
// idea of firebreak.
type theatre struct {
	shows map[string]time.Weekday

	mu      sync.Mutex        // guards tickets
	tickets map[string]Ticket // by reference
}

func newTheatre() *theatre {
	t := &theatre{shows: map[string]time.Weekday{}, tickets: map[string]Ticket{}}
	for day := range time.Weekday(7) {
		t.shows[fmt.Sprintf("Act %d", day+1)] = day
	}
	return t
}

func (t *theatre) Programme(_ context.Context, day time.Weekday) (Programme, error) {
	p := Programme{Day: day}
	for name, on := range t.shows {
		if on == day {
			p.Shows = append(p.Shows, name)
		}
	}
	return p, nil
}

func (t *theatre) Show(_ context.Context, name string) (Show, error) {
	day, ok := t.shows[name]
	if !ok {
		return Show{}, ErrNotFound
	}
	return Show{Name: name, Day: day}, nil
}

func (t *theatre) Seats(ctx context.Context, show string) (Seats, error) {
	if _, err := t.Show(ctx, show); err != nil {
		return Seats{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return Seats{Left: len(t.freeLocked(show)), Known: true}, nil
}

func (t *theatre) Ticket(_ context.Context, ref string) (Ticket, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ticket, ok := t.tickets[ref]
	if !ok {
		return Ticket{}, ErrNotFound
	}
	return ticket, nil
}

func (t *theatre) Book(ctx context.Context, b Booking) (Ticket, error) {
	if _, err := t.Show(ctx, b.Show); err != nil {
		return Ticket{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if ticket, ok := t.tickets[b.Ref]; ok {
		return ticket, nil // asked again: the answer was lost
	}
	free := t.freeLocked(b.Show)
	if len(free) == 0 {
		return Ticket{}, ErrSoldOut
	}
	ticket := Ticket{Ref: b.Ref, Show: b.Show, Seat: free[0]}
	t.tickets[b.Ref] = ticket
	return ticket, nil
}

func (t *theatre) Cancel(_ context.Context, ref string) (Ticket, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ticket, ok := t.tickets[ref]
	if !ok {
		return Ticket{}, ErrNotFound
	}
	delete(t.tickets, ref)
	return ticket, nil
}

// freeLocked returns the seats of a show that are not sold.
func (t *theatre) freeLocked(show string) (free []int) {
	var sold [seatsOfAShow + 1]bool
	for _, ticket := range t.tickets {
		sold[ticket.Seat] = sold[ticket.Seat] || ticket.Show == show
	}
	for seat := 1; seat <= seatsOfAShow; seat++ {
		if !sold[seat] {
			free = append(free, seat)
		}
	}
	return free
}
