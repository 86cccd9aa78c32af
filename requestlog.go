package firebreak

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RequestLog is what the calls did that have ended in ctx's scope ([WithScope]) so far,
// in order, of commands with [Config.RequestLog] On: one line as text, a group as an
// attribute of package log/slog. It is empty without a scope.
//
//	slog.InfoContext(ctx, "served", "calls", firebreak.RequestLog(ctx))
//
// The first 1,000 are kept, as Hystrix did.
func RequestLog(ctx context.Context) CallLog {
	s := scopeOf(ctx)
	if s == nil {
		return CallLog{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return CallLog{entries: s.log.entries[:len(s.log.entries):len(s.log.entries)], more: s.log.more}
}

// A CallLog is a list of calls, as [RequestLog] returns it. It does not change.
type CallLog struct {
	entries []logEntry // shared with the scope, which only appends
	more    int
}

type requestLog struct {
	entries []logEntry
	more    int // that found no room
}

const maxLogEntries = 1000

// A logEntry is one call.
type logEntry struct {
	command string
	events  string // in words of Hystrix's, where it has one
	took    time.Duration
}

func (s *scope) note(e logEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.log.entries) == maxLogEntries {
		s.log.more++
		return
	}
	s.log.entries = append(s.log.entries, e)
}

// logWords are the outcomes in the request log.
var logWords = [...]string{
	OutcomeSuccess: "SUCCESS", OutcomeExpected: "BAD_REQUEST", OutcomeIgnored: "IGNORED", OutcomeFailure: "FAILURE",
	OutcomeTimeout: "TIMEOUT", OutcomePanic: "PANIC", OutcomeCanceled: "CANCELLED", OutcomeCallerDeadline: "CALLER_DEADLINE",
	OutcomeRejected: "SEMAPHORE_REJECTED", OutcomeShortCircuited: "SHORT_CIRCUITED", OutcomeShutdown: "SHUTDOWN", OutcomeGaveUp: "GAVE_UP",
}

// note writes the call into its scope's log: once, when its answer is known. fallback
// is what the fallbacks came to, none if none was asked.
func (c *call) note(fallback event, took time.Duration) {
	s := scopeOf(c.caller)
	if s == nil {
		return
	}
	events := logWords[c.outcome]
	if c.outcome == OutcomeRejected && c.cmd.dependency.bulkhead.isolation == PoolIsolation {
		events = "THREAD_POOL_REJECTED"
	}
	if c.collapsed {
		events += ", COLLAPSED"
	}
	switch fallback {
	case eventFallbackSuccess:
		events += ", FALLBACK_SUCCESS"
	case eventFallbackFailure:
		events += ", FALLBACK_FAILURE"
	case eventFallbackRejected:
		events += ", FALLBACK_REJECTION"
	case eventFallbackMissing:
		events += ", FALLBACK_MISSING"
	}
	s.note(logEntry{c.cmd.name, events, took})
}

// hit counts a hit of a [Cached] and notes it.
func (c *Command) hit(s *scope) {
	c = c.present()
	c.metrics.also(eventCacheHit, 1, c.clock.Now())
	if c.settings.Load().requestLog {
		s.note(logEntry{command: c.name, events: "RESPONSE_FROM_CACHE"})
	}
}

// shown is a name as the log has it: quoted if there is in it what would need that, as
// a key may be anybody's text.
func shown(name string) string {
	if q := strconv.Quote(name); q[1:len(q)-1] != name {
		return q
	}
	return name
}

// merged joins the calls of one command that ended alike, in the order of the first.
func (l CallLog) merged() []mergedEntry {
	var all []mergedEntry
	at := map[[2]string]int{}
	for _, e := range l.entries {
		i, ok := at[[2]string{e.command, e.events}]
		if !ok {
			i = len(all)
			at[[2]string{e.command, e.events}] = i
			all = append(all, mergedEntry{command: shown(e.command), events: e.events})
		}
		all[i].calls++
		all[i].took += e.took
	}
	return all
}

type mergedEntry struct {
	command, events string
	calls           int
	took            time.Duration
}

// String is the line that Hystrix wrote: what the calls of a command came to, the
// milliseconds of all of them, and how many they were:
//
//	users.get[SUCCESS][5ms], stock[TIMEOUT, FALLBACK_SUCCESS][100ms]x2
//
// A name with a line break, a quote or the like in it is quoted. Words that Hystrix had
// are its own: an expected outcome is BAD_REQUEST, a hit of
// [Cached] RESPONSE_FROM_CACHE, a batch of [Collapse] has COLLAPSED beside its outcome.
func (l CallLog) String() string {
	var b strings.Builder
	for i, e := range l.merged() {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s[%s][%dms]", e.command, e.events, e.took.Milliseconds())
		if e.calls > 1 {
			fmt.Fprintf(&b, "x%d", e.calls)
		}
	}
	if l.more > 0 {
		fmt.Fprintf(&b, ", and %d more", l.more)
	}
	return b.String()
}

// LogValue is a group with a group for each command: how many calls there were, how
// long they took together, and how many came to what. The calls that were not kept are
// counted beside them, as "more".
func (l CallLog) LogValue() slog.Value {
	groups := map[string][]slog.Attr{}
	calls, took := map[string]int{}, map[string]time.Duration{}
	var names []string
	for _, e := range l.merged() {
		if calls[e.command] == 0 {
			names = append(names, e.command)
		}
		calls[e.command] += e.calls
		took[e.command] += e.took
		groups[e.command] = append(groups[e.command], slog.Int(e.events, e.calls))
	}
	attrs := make([]slog.Attr, 0, len(names)+1)
	for _, name := range names {
		of := append([]slog.Attr{slog.Int("calls", calls[name]), slog.Duration("took", took[name])}, groups[name]...)
		attrs = append(attrs, slog.Attr{Key: name, Value: slog.GroupValue(of...)})
	}
	if l.more > 0 {
		more := "more"
		for slices.Contains(names, more) { // a command's name: keys are unique
			more += "…"
		}
		attrs = append(attrs, slog.Int(more, l.more))
	}
	return slog.GroupValue(attrs...)
}
