package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/firebreak-go/firebreak"
)

// slack is how much later than promised something may be on a busy machine.
const slack = time.Second

// A result is what the story came to, to be judged.
type result struct {
	pages, answered int           // programmes asked for, and got
	slowest         time.Duration // of them
	outage          time.Duration // from the first hang to the recovery
	reached         int64         // programme calls that the box office or its port had to bear meanwhile
	spared          uint64        // those that the circuit kept from it
	booked, tickets int           // bookings asked for until there was a ticket; tickets there are
	unsure          error         // the booking that got no answer
	recovered       time.Duration // from the box office being back to its first answer
	state           firebreak.State
}

// tell plays the story and says what happens. Its error is one of the story itself.
func tell(ctx context.Context, w io.Writer) (r result, err error) {
	office := newTheatre()
	far, err := newServer(office)
	if err != nil {
		return r, err
	}
	defer far.stop()
	near := &client{addr: far.addr}
	defer near.close()

	reg := firebreak.NewRegistry(firebreak.Config{})
	defer func() { err = errors.Join(err, shutDown(reg)) }()
	defer reg.Observe(firebreak.Observer{Transition: func(t firebreak.Transition) {
		fmt.Fprintf(w, "             %s: %v to %v", t.Command, t.From, t.To)
		if t.To == firebreak.StateOpen {
			fmt.Fprintf(w, " by %s, last: %s", t.Evidence.Rule, t.Evidence.LastError)
		}
		fmt.Fprintln(w)
	}})()
	box := guard(reg, near) // from here on nobody knows of firebreak
	// For watching: asked for again, it is the command that is there.
	programme := reg.Dependency("boxoffice", firebreak.Config{}).Command("boxoffice.programme", firebreak.Config{})

	page := func() (old bool) {
		began := time.Now()
		p, err := box.Programme(ctx, time.Weekday(r.pages%7))
		r.slowest = max(r.slowest, time.Since(began))
		r.pages++
		if err == nil {
			r.answered++
		}
		return p.Old
	}
	pages := func(n int) {
		began, old := time.Now(), 0
		for range n {
			if page() {
				old++
			}
		}
		fmt.Fprintf(w, "             %d programmes in %v, %d of them from memory\n", n, time.Since(began).Round(time.Millisecond), old)
	}
	book := func(ref string) error {
		began := time.Now()
		r.booked++
		ticket, err := box.Book(ctx, Booking{Ref: ref, Show: "Act 1"})
		took := time.Since(began).Round(time.Millisecond)
		if err != nil {
			fmt.Fprintf(w, "             booking %s: no ticket after %v: %v\n", ref, took, err)
			return err
		}
		fmt.Fprintf(w, "             booking %s: seat %d\n", ref, ticket.Seat)
		return nil
	}

	fmt.Fprintln(w, "healthy      the box office answers")
	pages(14)
	if err := book("a"); err != nil {
		return r, err
	}
	if _, err := box.Show(ctx, "Act 8"); !errors.Is(err, ErrNotFound) {
		return r, fmt.Errorf("a show that there is not: %w", err)
	}

	fmt.Fprintln(w, "hanging      it takes calls and does not answer")
	began, before := time.Now(), programme.Snapshot().Total
	far.desk.hang()
	pages(10)
	r.unsure = book("b")

	fmt.Fprintln(w, "crashed      it served who was waiting, and is gone; connections are refused")
	far.stop()
	if err := sleep(ctx, sleepWindow); err != nil {
		return r, err
	}
	pages(10)
	if _, err := box.Ticket(ctx, "a"); err != nil { // nobody knows without asking: no fallback
		fmt.Fprintf(w, "             ticket a: %v\n", err)
	}

	fmt.Fprintln(w, "back         it listens again")
	if err := far.start(); err != nil {
		return r, err
	}
	back := time.Now()
	for page() {
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return r, err
		}
		if time.Since(back) > sleepWindow+slack {
			break // and the promise is not kept
		}
	}
	r.recovered, r.outage = time.Since(back), time.Since(began)
	after := programme.Snapshot()
	r.reached, r.spared = int64(after.Total.Executed()-before.Executed()), after.Total.ShortCircuited
	r.state = after.State
	pages(7)
	_ = book("b") // the same reference: if it was sold when it hung, it is not sold again
	seats, err := box.Seats(ctx, "Act 1")
	if err != nil {
		return r, err
	}
	r.tickets = seatsOfAShow - seats.Left
	return r, ctx.Err()
}

func shutDown(reg *firebreak.Registry) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return reg.Shutdown(ctx) // an error if a permit never came back
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A promise of firebreak's, and what became of it.
type promise struct {
	text, measured string
	kept           bool
}

func (r *result) promises() []promise {
	// What opens the circuit, then a probe for each sleep window that has begun.
	most := int64(failures) + int64(r.outage/sleepWindow) + 1
	return []promise{
		{"every page has a programme", fmt.Sprintf("%d of %d", r.answered, r.pages), r.answered == r.pages},
		{
			fmt.Sprintf("none waits much longer than %v", readTimeout),
			fmt.Sprintf("%v at most", r.slowest.Round(time.Millisecond)), r.slowest <= readTimeout+slack,
		},
		{
			"an outage is not asked to death", fmt.Sprintf("%d calls in %v, %d spared", r.reached, r.outage.Round(time.Millisecond), r.spared),
			r.reached <= most && r.spared > 0,
		},
		{
			"a booking without an answer is an error", fmt.Sprint(r.unsure),
			errors.Is(r.unsure, firebreak.ErrTimeout),
		},
		{
			"asked again it is one ticket", fmt.Sprintf("%d bookings, %d tickets", r.booked, r.tickets),
			r.booked == 3 && r.tickets == 2,
		},
		{
			fmt.Sprintf("it recovers by itself, %v after its last probe", sleepWindow),
			fmt.Sprintf("%v after the box office was back; %v", r.recovered.Round(time.Millisecond), r.state),
			r.recovered <= sleepWindow+slack && r.state == firebreak.StateClosed,
		},
	}
}
