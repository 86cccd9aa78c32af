// Package mono is monotonic time as plain numbers: what state machines and
// windows compare, and what never steps when somebody sets the wall clock.
package mono

import (
	"math"
	"time"
)

// Time is a moment in nanoseconds since its [Clock] began. Every value is a
// moment, zero and negative ones too: where a test bubble begins, time goes back
// by decades.
type Time int64

// Never is later than any moment that a clock shows.
const Never Time = math.MaxInt64

// Add returns t + d, or the end of the range it would leave.
func (t Time) Add(d time.Duration) Time {
	sum := t + Time(d)
	switch {
	case d > 0 && sum < t:
		return math.MaxInt64
	case d < 0 && sum > t:
		return math.MinInt64
	}
	return sum
}

// Sub returns t − u, or the end of the range it would leave.
func (t Time) Sub(u Time) time.Duration {
	d := time.Duration(t - u)
	switch {
	case t > u && d < 0:
		return math.MaxInt64
	case t < u && d > 0:
		return math.MinInt64
	}
	return d
}

// A Clock tells [Time]. It may be used concurrently; its zero value is not usable.
type Clock struct{ start time.Time }

// NewClock starts a clock at zero.
func NewClock() *Clock { return &Clock{start: time.Now()} }

// Now reads the clock. Since on a moment with a monotonic reading is the
// cheapest read that package time offers: 30 ns where Now takes 50.
func (c *Clock) Now() Time { return Time(time.Since(c.start)) }

// Moment returns t for people and packages that want a [time.Time], with a
// monotonic reading. Never is the zero time.
func (c *Clock) Moment(t Time) time.Time {
	if t == Never {
		return time.Time{}
	}
	return c.start.Add(time.Duration(t))
}

// Of returns the [Time] of a moment. One without a monotonic reading (parsed, or
// stripped) is placed by the wall clock as it stands now, and stays there.
func (c *Clock) Of(m time.Time) Time {
	if m == m.Round(0) { //nolint:staticcheck // compares the readings, not only the instants
		return c.Now().Add(time.Until(m))
	}
	return Time(m.Sub(c.start))
}
