package main

import (
	"context"
	"errors"
	"time"
)

// A BoxOffice is what the rest of the service knows of a theatre's bookings. Whoever
// has one does not see whether it is the far end itself, or guarded.
type BoxOffice interface {
	// Programme is what is on that day.
	Programme(ctx context.Context, day time.Weekday) (Programme, error)
	// Show returns [ErrNotFound] if there is none of that name.
	Show(ctx context.Context, name string) (Show, error)
	// Seats is how many seats of a show are left; or [ErrNotFound].
	Seats(ctx context.Context, show string) (Seats, error)
	// Ticket returns what was booked under that reference; or [ErrNotFound].
	Ticket(ctx context.Context, ref string) (Ticket, error)
	// Book sells a seat. A second booking with the same reference is the same booking,
	// so that one whose answer was lost can be made again. [ErrSoldOut], [ErrNotFound].
	Book(ctx context.Context, b Booking) (Ticket, error)
	// Cancel gives a seat back, and returns the ticket that was; or [ErrNotFound].
	Cancel(ctx context.Context, ref string) (Ticket, error)
}

// What a box office answers that is no failure of its.
var (
	ErrNotFound = errors.New("not found")
	ErrSoldOut  = errors.New("sold out")
)

type (
	// A Programme is one day's.
	Programme struct {
		Day   time.Weekday
		Shows []string
		Old   bool // from memory: the box office did not answer
	}
	// A Show is played once a week.
	Show struct {
		Name string
		Day  time.Weekday
	}
	// Seats are those that are left.
	Seats struct {
		Left  int
		Known bool // if not, the page says "ask at the desk"
	}
	// A Booking asks for a seat.
	Booking struct {
		Ref  string // chosen by whoever books, once for each seat
		Show string
	}
	// A Ticket is a seat that was sold.
	Ticket struct {
		Ref  string
		Show string
		Seat int // from 1
	}
)
