// Package floor is the least that a snapshot of a command can cost if what it shows
// was counted in shards: a rolling window, a latency histogram and the calls in
// flight, nothing else. It guards nothing. Snapshots of firebreak are measured beside
// it, since a number of nanoseconds means little from one machine to the next.
package floor

import (
	"context"
	"sync/atomic"
	"time"
)

// A Command counts calls. Many goroutines may use it.
type Command struct {
	start    time.Time
	_        [64]byte // the words that all calls write have their own cache lines
	inFlight atomic.Int64
	_        [64]byte
	window   []window // a shard each
	latency  []histogram
}

// New returns a command without calls. In so many shards, so many goroutines count
// without meeting each other.
func New(shards int) *Command {
	return &Command{start: time.Now(), window: make([]window, shards), latency: make([]histogram, shards)}
}

// Call calls run and counts it in one of the shards.
func (c *Command) Call(ctx context.Context, shard int, run func(context.Context) (int, error)) (int, error) {
	c.inFlight.Add(1)
	defer c.inFlight.Add(-1)
	began := time.Since(c.start)
	v, err := run(ctx)
	ended := time.Since(c.start)
	c.window[shard].count(ended, err == nil)
	c.latency[shard].count(ended - began)
	return v, err
}

// A Snapshot is what there is to see.
type Snapshot struct {
	Successes, Failures uint64 // in the window
	InFlight            int64
	P50, P90, P99       time.Duration // since the command was made
}

// Snapshot adds the shards up.
func (c *Command) Snapshot() Snapshot {
	s := Snapshot{InFlight: c.inFlight.Load()}
	now := time.Since(c.start)
	for i := range c.window {
		ok, failed := c.window[i].sum(now)
		s.Successes += ok
		s.Failures += failed
	}
	var counts [buckets]uint64
	var total uint64
	for i := range c.latency {
		for b := range counts {
			n := uint64(c.latency[i].counts[b].Load())
			counts[b] += n
			total += n
		}
	}
	s.P50, s.P90, s.P99 = quantile(counts, total, 0.5), quantile(counts, total, 0.9), quantile(counts, total, 0.99)
	return s
}
