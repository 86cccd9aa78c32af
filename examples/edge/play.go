package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/firebreak-go/firebreak"
)

// A run is a scenario that was played, and what was seen.
type run struct {
	script
	unguarded   bool
	interrupted bool
	samples     []sample
	circuit     []firebreak.Transition
	saved       saved
	asked       map[string]int64 // how often each backend was asked during the incident
	logs        []entry          // of late in the incident, one for each endpoint
}

// play starts a world, plays the scenario in it and stops it again. Its error is about
// the playing itself; what it showed is in the run.
func play(ctx context.Context, s scenario, duration time.Duration, without bool) (r *run, err error) {
	w, err := startWorld(worldOptions{addr: "127.0.0.1:0", unguarded: without})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()

	visitors := newLoad(w.url, true)
	r = &run{script: script{s, time.Now(), duration}, unguarded: without, asked: map[string]int64{}}
	var stage sync.WaitGroup
	stage.Go(func() { r.perform(ctx, w) })
	visitors.run(ctx, r.start, r.end())
	stage.Wait()

	r.interrupted = ctx.Err() != nil
	r.samples, r.circuit, r.saved = visitors.samples(), w.transitions(), w.saved()
	return r, nil
}

// perform makes the changes of the script when their time comes.
func (r *run) perform(ctx context.Context, w *world) {
	from, to := r.incident()
	count := func(sign int64) func() {
		return func() {
			for _, b := range w.backends {
				r.asked[b.name] += sign * b.asked.Load()
			}
		}
	}
	type act struct {
		at time.Time
		do func()
	}
	acts := []act{
		{from, count(-1)},
		{to.Add(-to.Sub(from) / 4), func() { r.logs = mostDegraded(w.edge.recent.entries()) }},
		{to, count(+1)},
	}
	for _, c := range r.changes() {
		acts = append(acts, act{c.at, func() { _ = w.afflict(c.backend, c.trouble) }}) // check has seen the names
	}
	slices.SortStableFunc(acts, func(a, b act) int { return a.at.Compare(b.at) })
	for _, a := range acts {
		if !sleep(ctx, time.Until(a.at)) {
			return
		}
		a.do()
	}
}

// mostDegraded is one entry for each endpoint, the one on which most was made up.
func mostDegraded(entries []entry) (logs []entry) {
	for _, e := range endpoints {
		var best *entry
		for i := range entries {
			if x := &entries[i]; x.Endpoint == e.name && (best == nil || len(x.Degraded) > len(best.Degraded)) {
				best = x
			}
		}
		if best != nil {
			logs = append(logs, *best)
		}
	}
	return logs
}
