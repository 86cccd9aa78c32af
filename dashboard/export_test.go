package dashboard

import "github.com/firebreak-go/firebreak"

// Take takes a picture in which everything is new.
func Take(h *Handler) { h.take(nil) }

// Sizes are how many bytes those who come are sent, and those who are there while
// nothing goes on.
func Sizes(h *Handler) (whole, change int) {
	next := h.take(h.take(nil))
	return len(next.everything(h)), len(next.delta)
}

// Label is a name as the page gets it.
func Label(name string) string { return label(name) }

// Remembered is how many events a page knows.
func Remembered(h *Handler) int { return len(h.events.after(0)) }

// CountNames and CountsOf are the counts' names, and their values in that order.
var CountNames = countNames

func CountsOf(c *firebreak.Counts) []uint64 { return countsOf(c) }
