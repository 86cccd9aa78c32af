package hystrixstream

import (
	"time"

	"github.com/firebreak-go/firebreak"
)

// A reading is one command in a sample, in Hystrix's terms.
type reading struct {
	firebreak.Snapshot
	name   string
	config firebreak.Config
}

// commands yields every command of the registry, and leaves the pools that it saw in
// e.pools. The reading is the next command's after that.
func (e *encoder) commands(reg *firebreak.Registry) func(yield func(*reading) bool) {
	return func(yield func(*reading) bool) {
		e.pools = e.pools[:0]
		for cmd := range reg.Commands() {
			r := &e.reading // in place: it is large
			r.Snapshot, r.name, r.config = cmd.Snapshot(), cmd.Name(), cmd.Config()
			e.addToPool(r)
			if !yield(r) {
				return
			}
		}
	}
}

func (r *reading) pooled() bool { return r.Bulkhead.Isolation == firebreak.PoolIsolation }

func (r *reading) strategy() string {
	if r.pooled() {
		return "THREAD"
	}
	return "SEMAPHORE"
}

func (r *reading) open() bool       { return r.State != firebreak.StateClosed }
func (r *reading) forcedOpen() bool { return r.Mode == firebreak.ForceOpen }

// forcedClosed: Shadow short-circuits nothing either. What it would do is the state,
// which a dashboard shows beside it.
func (r *reading) forcedClosed() bool {
	return r.Mode == firebreak.ForceClosed || r.Mode == firebreak.Shadow
}

// enabled tells whether anything can trip the circuit.
func (r *reading) enabled() bool {
	c := &r.config
	return c.ErrorThresholdPercentage != firebreak.Off || c.ConsecutiveFailures != firebreak.Off ||
		c.SlowCallDuration != firebreak.Off || c.Evidence == firebreak.On
}

// errorThreshold is a percentage in whole numbers, above 0. Those that it is compared
// with are rounded down, so none reaches 101.
func (r *reading) errorThreshold() int64 {
	t := r.config.ErrorThresholdPercentage
	if t == firebreak.Off {
		return 101
	}
	n := int64(t)
	if float64(n) < t {
		n++
	}
	return n
}

func (r *reading) interrupts() bool { return r.config.Timeout != firebreak.Off }

func (r *reading) failures() uint64 { return r.Window.Failure + r.Window.Panic }

// timeouts: a caller's deadline is one where it counts, and else nothing, as a cancel.
func (r *reading) timeouts() uint64 {
	if r.config.CountCallerDeadlines == firebreak.On {
		return r.Window.Timeout + r.Window.CallerDeadline
	}
	return r.Window.Timeout
}

func (r *reading) badRequests() uint64 { return r.Window.Expected + r.Window.Ignored }

func (r *reading) semaphoreRejected() uint64 {
	if r.pooled() {
		return 0
	}
	return r.Window.Rejected
}

func (r *reading) poolRejected() uint64 {
	if r.pooled() {
		return r.Window.Rejected
	}
	return 0
}

// thrown is how many calls ended in an error, by Hystrix's own reckoning.
func (r *reading) thrown() uint64 {
	w := &r.Window
	n := r.badRequests() + w.FallbackFailure + w.FallbackMissing + w.FallbackRejected
	if r.config.RecoverPanics != firebreak.On { // else it is among those with a fallback
		n += w.Panic
	}
	return n
}

// health is what a circuit that counts as this one does has in the rolling window.
func (r *reading) health() (bad, all uint64, percentage int64) {
	bad = r.failures() + r.timeouts()
	if r.config.CountRejections == firebreak.On {
		bad += r.Window.Rejected
	}
	all = bad + r.Window.Success + r.Window.Expected
	if all > 0 {
		percentage = int64(100 * bad / all)
	}
	return bad, all, percentage
}

// A pool is a dependency with pool isolation in a sample.
type pool struct {
	firebreak.Bulkhead
	name               string
	at                 time.Time
	queueSize          int           // may be Off
	window             time.Duration // the longest of its commands
	executed, rejected uint64        // in the rolling window
	total              uint64        // executed, since its commands were made
}

// addToPool adds a command to its pool. Commands come by dependency.
func (e *encoder) addToPool(r *reading) {
	if !r.pooled() {
		return
	}
	if n := len(e.pools); n == 0 || e.pools[n-1].name != r.Dependency {
		e.pools = append(e.pools, pool{name: r.Dependency})
	}
	p := &e.pools[len(e.pools)-1]
	p.Bulkhead, p.at = r.Bulkhead, r.Time // the newest
	p.queueSize = r.config.QueueSize
	p.window = max(p.window, r.config.Window)
	p.executed += r.Window.Executed()
	p.rejected += r.Window.Rejected
	p.total += r.Total.Executed()
}

// size is how many workers there are to be had. None is parked, so what a thread pool
// would call its size would always be what is in flight.
func (p *pool) size() int {
	if p.Limit == firebreak.Unlimited {
		return p.InFlight
	}
	return max(p.Limit, p.InFlight)
}

// completed is how many runs have ended. A caller that leaves its run has an outcome
// before that; gauges and counts are not of one instant, so it may come out below zero.
func (p *pool) completed() uint64 { return p.total - min(p.total, uint64(p.Abandoned)) }

func (p *pool) tasks() uint64 { return p.completed() + uint64(p.InFlight) + uint64(p.Queued) }
