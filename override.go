package firebreak

import (
	"context"
	"time"

	"github.com/firebreak-go/firebreak/internal/mono"
)

// Mode is what is made of a circuit's decisions. Zero inherits.
type Mode uint8

const (
	Auto        Mode = iota + 1 // they hold
	ForceOpen                   // every call is short-circuited
	ForceClosed                 // none is; back in Auto, the circuit is closed and its window empty
	Shadow                      // none is; those that would have been are counted. The bulkhead holds in every mode
)

var modeWords = words{"", "auto", "force_open", "force_closed", "shadow"}

// String returns auto, force_open, force_closed or shadow; "" for zero.
func (m Mode) String() string { return modeWords.of(int(m)) }

// MarshalText returns String's word, "" for zero.
func (m Mode) MarshalText() ([]byte, error) { return modeWords.text(int(m)) }

// UnmarshalText reads a word of String's, "" excepted.
func (m *Mode) UnmarshalText(text []byte) error {
	i, err := modeWords.parse(string(text), "mode")
	*m = Mode(i)
	return err
}

// An Override is set by hand, with [Command.Override], and stands above
// [Config.Mode] until it is lifted, or lifts itself. ForceOpen in either beats
// all; a zero Mode leaves Config's in force.
type Override struct {
	Mode   Mode
	Reason string    // why, for whoever looks at it later
	Author string    // who set it
	Until  time.Time // when it lifts itself; zero: never

	// Inject, for drills and tests, is called where run would be, with the call's
	// context, and may wait. Nil from it lets run go on. Any error stands for
	// run's, which is then not called; [ErrOpen], [ErrRejected] and [ErrTimeout]
	// stand for what they say.
	Inject func(context.Context) error `json:"-"`

	// Owner, if there is one, is by what whoever sets an override knows it again: to
	// lift it only while it is still his. Nothing else looks at it.
	Owner any `json:"-"`
}

func (o Override) isZero() bool {
	return o.Mode == 0 && o.Reason == "" && o.Author == "" && o.Until.IsZero() && o.Inject == nil && o.Owner == nil
}

// An override is an Override in force.
type override struct {
	Override
	until  mono.Time // Never if it does not lift itself
	length time.Duration
}

func (o *override) over(now mono.Time) bool { return o.until != mono.Never && o.until <= now }

// overrideAt returns the override in force at now, and lifts o if that is over.
func (c *circuit) overrideAt(o *override, now mono.Time) *override {
	if o.until == mono.Never {
		return o
	}
	if left := o.until.Sub(now); left > o.length || left <= 0 {
		c.mu.Lock()
		if c.override.Load() == o {
			if left <= 0 {
				c.override.Store(nil)
				c.modeLocked(now)
			} else { // the clock went back: it begins again (S40)
				c.override.Store(&override{Override: o.Override, until: now.Add(o.length), length: o.length})
				if e := c.era.Load(); e.kind == eraForcedOpen {
					c.barLocked(e)
				}
			}
		}
		c.mu.Unlock()
		c.tell()
		return c.override.Load()
	}
	return o
}

// shadowing tells whether a refusal of e's is only counted.
func (c *circuit) shadowing(e *era) bool {
	return (e.kind == eraOpen || e.kind == eraHalfOpen) && c.shadow.Load()
}

// setMode is Config's mode, at once. Who calls it tells the news.
func (c *circuit) setMode(m Mode, now mono.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode != m {
		c.mode = m
		c.modeLocked(now)
	}
}

// setOverride puts o in the place of the last override; the zero Override lifts it.
// It does neither, and returns false, if the command made way for another key.
func (c *circuit) setOverride(o Override, now mono.Time) bool {
	var next *override
	if !o.isZero() {
		next = &override{Override: o, until: mono.Never}
		if !o.Until.IsZero() {
			next.until = c.cmd.clock.Of(o.Until)
			next.length = next.until.Sub(now)
		}
		if next.over(now) {
			next = nil
		}
	}
	c.mu.Lock()
	gone := c.era.Load().kind == eraRetired
	if old := c.override.Load(); !gone && (old != nil || next != nil) {
		c.override.Store(next)
		c.modeLocked(now)
	}
	c.mu.Unlock()
	c.tell()
	return !gone
}

// modeInForce is Config's mode under an override: ForceOpen in either beats all.
func modeInForce(config Mode, o *override) Mode {
	if o == nil || o.Mode == 0 || config == ForceOpen {
		return config
	}
	return o.Mode
}

// modeLocked makes the era fit the mode in force. A forced mode that ends leaves
// a closed circuit with an empty window; Shadow begins no era.
func (c *circuit) modeLocked(now mono.Time) {
	o := c.override.Load()
	m := modeInForce(c.mode, o)
	c.shadow.Store(m == Shadow)
	c.special.Store(o != nil || m == Shadow)
	is := c.era.Load()
	forced := is.kind == eraForcedOpen || is.kind == eraForcedClosed
	switch {
	case is.kind == eraShut || is.kind == eraRetired:
	case m == ForceOpen:
		e := is
		if is.kind != eraForcedOpen {
			e = &era{kind: eraForcedOpen}
		}
		c.barLocked(e)
		if e != is {
			c.beginLocked(e, now)
			return
		}
	case m == ForceClosed && is.kind != eraForcedClosed:
		c.windowedLocked(eraForcedClosed, now)
		return
	case m != ForceClosed && forced:
		c.closeLocked(now)
		return
	}
	c.newsLocked(is.kind.state(), now) // the mode alone
}

// barLocked shuts the door of a forced open era until somebody opens it, whatever
// RetryAt promises: lifting the mode ends the era.
func (c *circuit) barLocked(e *era) {
	until, why := mono.Never, "forced"
	if o := c.override.Load(); o != nil && o.Mode == ForceOpen && c.mode != ForceOpen {
		until = o.until
		if o.Author != "" {
			why += " by " + o.Author
		}
		if o.Reason != "" {
			why += ": " + o.Reason
		}
	}
	e.door.Store(&door{opens: mono.Never, outcome: OutcomeShortCircuited, err: &Error{
		Command: c.cmd.name, Reason: ErrOpen, RetryAt: c.cmd.clock.Moment(until), why: why,
	}})
}

// asOfLocked is the era at now, and the override in force: as a call would find
// them, that lifts one that is over.
func (c *circuit) asOfLocked(now mono.Time) (eraKind, *override) {
	o := c.override.Load()
	is := c.era.Load().kind
	if o == nil || !o.over(now) {
		return is, o
	}
	switch {
	case is == eraShut:
	case c.mode == ForceOpen:
		is = eraForcedOpen
	case c.mode == ForceClosed || is == eraForcedOpen || is == eraForcedClosed:
		is = eraClosed
	}
	return is, nil
}
