package main

import (
	"sync/atomic"
	"time"
)

// A phase is a stretch of the script: how inventory is doing.
type phase int

const (
	warmUp  phase = iota // connections are being made; in the totals, but in no phase's figures
	healthy              // what all else is compared with
	slow                 // every answer comes, ten times later: no reason to stop asking
	hanging              // connections are accepted and no answer ever comes
	failing              // every answer is a 500, at once
	healed
	numPhases
)

// How the duration is divided. Hanging must be longer than the circuit may take to
// open, healed than it may take to close; even at minDuration.
var phases = [numPhases]struct {
	name    string
	percent int
}{
	warmUp:  {"warming up", 5},
	healthy: {"healthy", 18},
	slow:    {"slow", 10},
	hanging: {"hanging", 35},
	failing: {"failing", 10},
	healed:  {"healthy again", 22},
}

func (p phase) String() string { return phases[p].name }

// A script says when inventory does what.
type script struct {
	start  time.Time
	begins [numPhases + 1]time.Duration // since start; the last is the end
}

func newScript(start time.Time, duration time.Duration) *script {
	s := &script{start: start}
	percent := 0
	for p, part := range phases {
		percent += part.percent
		s.begins[p+1] = duration * time.Duration(percent) / 100
	}
	return s
}

// at returns the phase at t. The last one goes on.
func (s *script) at(t time.Time) phase {
	p := healed
	for p > 0 && t.Sub(s.start) < s.begins[p] {
		p--
	}
	return p
}

func (s *script) beginOf(p phase) time.Time      { return s.start.Add(s.begins[p]) }
func (s *script) lengthOf(p phase) time.Duration { return s.begins[p+1] - s.begins[p] }
func (s *script) end() time.Time                 { return s.start.Add(s.begins[numPhases]) }
func (s *script) duration() time.Duration        { return s.begins[numPhases] }

// A stage is where a script is played, and the next one after it.
type stage struct{ script atomic.Pointer[script] }

func (s *stage) play(next *script) { s.script.Store(next) }

func (s *stage) at(t time.Time) phase { return s.script.Load().at(t) }
