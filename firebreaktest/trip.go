package firebreaktest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"testing"

	"github.com/firebreak-go/firebreak"
)

// Trip opens the circuit of a command as failures would: by so many failing runs as
// its rules ask for, in no time of a bubble's and a few microseconds each outside.
// Evidence, counts and observers are those of real failures; fallbacks are not asked,
// and a [Recorder] lists no more than the opening. A half-open circuit is opened
// again by one failing probe; one that is open stays as it is, but if its sleep
// window is over it begins a new one, so that after Trip the next call is refused.
//
// From there on all is as ever: after SleepWindow the next call probes, and success
// closes the circuit. Under pool isolation no worker is needed.
//
// Trip fails t if there is no such command, or if the circuit cannot be opened, and
// says why: a mode other than Auto, an Inject in force (of [Force], say), no rule
// that failures can fulfil (SlowCallDuration alone would take its time; at an
// ErrorThresholdPercentage of 100 one success in the window is too many), more than
// 100,000 failing runs needed, a full bulkhead, probes that are all under way, or a
// registry that is shut down, unless the circuit was open when that was done.
func Trip(t testing.TB, reg *firebreak.Registry, command string) {
	t.Helper()
	cmd := find(t, reg, command)
	if err := trip(reg, cmd, fmt.Errorf("tripped by %s", t.Name())); err != nil {
		t.Fatalf("firebreaktest: Trip: the circuit of %s cannot open: %v", command, err)
	}
}

// mostRuns bounds what Trip does. A million runs took 2.6 s, and with the race
// detector 29 s, of which a window of ten seconds would not have seen the beginning.
const mostRuns = 100_000

// tripping marks the contexts of Trip's own calls.
type tripping struct{}

func trip(reg *firebreak.Registry, cmd *firebreak.Command, cause error) error {
	ctx := context.WithValue(context.Background(), tripping{}, true)
	c, s := cmd.Config(), cmd.Snapshot()
	rules := rulesOf(&c, &s)
	if s.State == firebreak.StateClosed {
		if err := rules.check(&c); err != nil {
			return err
		}
	}
	// Told by an observer of its own, Trip takes no snapshot after each run: under the
	// race detector three quarters of the time went there.
	var changed atomic.Bool
	defer reg.Observe(firebreak.Observer{Transition: func(t firebreak.Transition) {
		if t.Command == s.Command && t.Key == s.Key {
			changed.Store(true)
		}
	}})()
	for made := 0; ; made++ {
		if last := made > rules.most; made <= 1 || last || changed.Swap(false) {
			is := cmd.Snapshot()
			if err := hindrance(&is); err != nil {
				return err
			}
			switch {
			// Open without evidence is what a shutdown leaves: the next call will say so.
			case is.State == firebreak.StateOpen && (made > 0 || is.Time.Before(is.Evidence.NextProbe)):
				return nil
			case made > 0 && rules.hopeless(&is):
				return fmt.Errorf("at an ErrorThresholdPercentage of 100 the successes in its window forbid it: %.1f %% failed; they are forgotten %v after the last", is.ErrorPercentage, c.Window)
			case last:
				return fmt.Errorf("it is %v after %d failing runs, at %.1f %% of errors: other calls go on, or its Window of %v is over too soon", is.State, made, is.ErrorPercentage, c.Window)
			}
		}
		switch err := failOnce(ctx, cmd, cause); {
		case errors.Is(err, firebreak.ErrShutdown):
			return errors.New("the registry is shut down")
		case errors.Is(err, firebreak.ErrOpen):
			if cmd.Snapshot().State == firebreak.StateHalfOpen {
				return errors.New("it is half-open and all its probes are under way: let one end")
			}
			changed.Store(true) // others opened it meanwhile
		case err != nil:
			return err
		}
	}
}

// failOnce makes one failing run; its error is a refusal. It begins and ends a call
// in two steps, which needs no worker, waits in no queue of a pool and misses no
// fallback.
func failOnce(ctx context.Context, cmd *firebreak.Command, cause error) error {
	call, err := cmd.Begin(ctx)
	if err != nil {
		return err
	}
	defer call.End() // also if an observer calls Goexit
	_ = call.Settle(firebreak.Mark(cause, firebreak.Failure))
	return nil
}

// hindrance is what keeps a failing run from the circuit.
func hindrance(s *firebreak.Snapshot) error {
	o, b := &s.Override, &s.Bulkhead
	who := "its Config"
	if o.Mode == s.Mode {
		who = "an override" + by(o)
	}
	switch {
	case o.Inject != nil:
		return fmt.Errorf("an override%s with an Inject answers in place of run; restore that first", by(o))
	case s.Mode == firebreak.Shadow:
		return fmt.Errorf("%s says Mode shadow, so that an open circuit refuses nothing", who)
	case s.Mode == firebreak.ForceClosed:
		return fmt.Errorf("%s says Mode force_closed", who)
	case s.Mode == firebreak.ForceOpen:
		return fmt.Errorf("%s says Mode force_open: every call is refused already, and none would ever probe", who)
	case s.State != firebreak.StateOpen && b.Limit != firebreak.Unlimited && b.InFlight >= b.Limit:
		// Begin might wait there, for MaxWait.
		return fmt.Errorf("the bulkhead of %s is full, with %d of %d permits out, and a run needs one", s.Dependency, b.InFlight, b.Limit)
	}
	return nil
}

func by(o *firebreak.Override) string {
	text := ""
	if o.Author != "" {
		text = " by " + o.Author
	}
	if o.Reason != "" {
		text += " (" + o.Reason + ")"
	}
	return text
}

// rules are how many failing runs the rules of a circuit ask for, at most.
type rules struct {
	on    int  // how many rules failures can fulfil
	least int  // of the rule that asks for the fewest
	most  int  // of the one that asks for the most, up to mostRuns
	all   bool // the only rule is that all fail
}

// rulesOf reckons with every success in the rolling window, although the circuit may
// have begun a new one since: that makes a bound too high, never too low.
func rulesOf(c *firebreak.Config, s *firebreak.Snapshot) rules {
	r := rules{least: math.MaxInt}
	asks := func(runs float64) {
		n := int(min(runs, math.MaxInt32))
		r.on, r.least, r.most = r.on+1, min(r.least, n), min(max(r.most, n), mostRuns)
	}
	good, share := float64(s.Window.Success+s.Window.Expected), c.ErrorThresholdPercentage/100
	if c.ErrorThresholdPercentage == firebreak.Off {
		share = 0.5 // what Evidence then compares with
	} else {
		needed := float64(c.RequestVolumeThreshold)
		if share < 1 { // at 1 no number helps against a success; perhaps there is none
			needed = max(needed, share*good/(1-share)+1)
		}
		asks(needed)
		r.all = share == 1
	}
	if c.ConsecutiveFailures != firebreak.Off {
		asks(float64(c.ConsecutiveFailures))
		r.all = false
	}
	if c.Evidence == firebreak.On && share < 1 {
		// The lower end of Wilson's interval is at or above share as soon as the score
		// test says so: of m calls m - good failed, and (1-share)m - good is at least
		// z sqrt(m share (1-share)); a quadratic in sqrt(m).
		const z = 2.33 // the circuit's
		b := z * math.Sqrt(share*(1-share))
		x := (b + math.Sqrt(b*b+4*(1-share)*good)) / (2 * (1 - share))
		asks(x*x + 1)
		r.all = false
	}
	return r
}

// check tells why a closed circuit cannot be opened by failures, if that is so.
func (r *rules) check(c *firebreak.Config) error {
	switch {
	case r.on == 0 && c.SlowCallDuration != firebreak.Off:
		return fmt.Errorf("only slow calls open it (SlowCallDuration %v), and Trip does not wait: make them in a bubble, or set ErrorThresholdPercentage or ConsecutiveFailures", c.SlowCallDuration)
	case r.on == 0:
		return errors.New("all its rules are Off")
	case r.least > mostRuns:
		return fmt.Errorf("its rules ask for more than %d failing runs (RequestVolumeThreshold %d, ErrorThresholdPercentage %v): lower them for the test", mostRuns, c.RequestVolumeThreshold, c.ErrorThresholdPercentage)
	}
	return nil
}

// hopeless: all must fail, and not all did.
func (r *rules) hopeless(s *firebreak.Snapshot) bool {
	return r.all && s.State == firebreak.StateClosed && s.ErrorPercentage < 100
}
