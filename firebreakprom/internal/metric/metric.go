// Package metric defines what firebreakprom exports. The collector fills the
// definitions in; the rules and the dashboard in ops/ are made from them, so that a
// name, a label or one of its values is written once.
package metric

import (
	"strings"

	"github.com/firebreak-go/firebreak"
)

// Kind is a metric's type.
type Kind uint8

// The kinds there are.
const (
	Counter Kind = iota + 1
	Gauge
	Histogram
)

// Owner is whose a metric is: it has its labels first.
type Owner uint8

// The owners there are.
const (
	OfCommand    Owner = iota + 1 // one set of series for each command, or family of keyed ones
	OfDependency                  // one set for each dependency
)

// The labels that name owners. Their values are the user's names; those of all
// other labels are the ones in Series.
const (
	Dependency = "dependency"
	Command    = "command"
)

// Labels returns the owner's labels.
func (o Owner) Labels() []string {
	if o == OfDependency {
		return []string{Dependency}
	}
	return []string{Dependency, Command}
}

// A Metric is one definition.
type Metric struct {
	Name   string
	Help   string
	Kind   Kind
	Of     Owner
	Labels []string   // besides the owner's
	Series [][]string // every combination of their values that can occur; each is there from the beginning
	Sparse bool       // a series may be absent: the help says when
}

// none is the only series of a metric without labels of its own.
var none = [][]string{{}}

// each is a series for each value of the only label.
func each(values ...string) [][]string {
	all := make([][]string, len(values))
	for i, v := range values {
		all[i] = []string{v}
	}
	return all
}

// Words of labels that are not firebreak's own.
const (
	Circuit  = "circuit"
	Bulkhead = "bulkhead"
	Fallback = "fallback"

	Enforced = "enforced"

	Probe       = "probe"
	SleepWindow = "sleep_window"
	ByMode      = "mode"
	Shutdown    = "shutdown"
	Other       = "other"

	Missing = "missing"
	Inject  = "inject"
)

// Word is a firebreak word as a label says it: Evidence has its rules with spaces.
func Word(s string) string { return strings.ReplaceAll(s, " ", "_") }

var (
	closed   = firebreak.StateClosed.String()
	open     = firebreak.StateOpen.String()
	halfOpen = firebreak.StateHalfOpen.String()
)

// Outcomes are all there are, the executed ones first.
func Outcomes() []string {
	var all []string
	for o := firebreak.OutcomeSuccess; o <= firebreak.OutcomeGaveUp; o++ {
		all = append(all, o.String())
	}
	return all
}

// What a command does.
var (
	Calls = Metric{
		Name: "firebreak_calls_total", Kind: Counter, Of: OfCommand,
		Help:   "Calls by how they ended, each in exactly one outcome.",
		Labels: []string{"outcome"}, Series: each(Outcomes()...),
	}
	Rejections = Metric{
		Name: "firebreak_rejections_total", Kind: Counter, Of: OfCommand,
		Help: "What was refused, and by what; with mode shadow, what would have been: calls by an open circuit, " +
			"a full bulkhead or a shutdown, and calls whose fallback was refused because too many ran already.",
		Labels: []string{"reason", "mode"},
		Series: [][]string{
			{Circuit, Enforced}, {Bulkhead, Enforced}, {Shutdown, Enforced}, {Fallback, Enforced},
			{Circuit, firebreak.Shadow.String()}, // the others hold in every mode
		},
	}
	Fallbacks = Metric{
		Name: "firebreak_fallbacks_total", Kind: Counter, Of: OfCommand,
		Help:   "Calls that wanted a fallback, by what came of it; missing: there was none to ask.",
		Labels: []string{"result"}, Series: each("success", "failure", "rejected", Missing),
	}
	RunDuration = Metric{
		Name: "firebreak_run_duration_seconds", Kind: Histogram, Of: OfCommand,
		Help:   "Time in the guarded function, to its end or to the caller's leaving. Executed calls only.",
		Series: none,
	}
	CallDuration = Metric{
		Name: "firebreak_call_duration_seconds", Kind: Histogram, Of: OfCommand,
		Help:   "Time from a call's submission to its answer, waiting and fallbacks included. Executed calls only.",
		Series: none,
	}
	InFlight = Metric{
		Name: "firebreak_in_flight", Kind: Gauge, Of: OfCommand,
		Help:   "Runs of the command now, those whose caller has left included.",
		Series: none,
	}
	FallbacksInFlight = Metric{
		Name: "firebreak_fallbacks_in_flight", Kind: Gauge, Of: OfCommand,
		Help:   "Calls that are in their fallbacks now.",
		Series: none,
	}
	Overruns = Metric{
		Name: "firebreak_overruns_total", Kind: Counter, Of: OfCommand,
		Help:   "Runs that answered after their deadline, or ended more than a tenth of the timeout after it: they do not heed their context.",
		Series: none,
	}
	StreamItems = Metric{
		Name: "firebreak_stream_items_total", Kind: Counter, Of: OfCommand,
		Help:   "Items that streams have yielded; a stream is one call.",
		Series: none,
	}
	CacheHits = Metric{
		Name: "firebreak_cache_hits_total", Kind: Counter, Of: OfCommand,
		Help:   "Answers that a request's cache had, or that somebody else in the request had asked for: calls that were spared.",
		Series: none,
	}
	Batches = Metric{
		Name: "firebreak_batches_total", Kind: Counter, Of: OfCommand,
		Help:   "Batches of keys that left; each is a call.",
		Series: none,
	}
	CollapsedKeys = Metric{
		Name: "firebreak_collapsed_keys_total", Kind: Counter, Of: OfCommand,
		Help:   "Keys asked for one by one that left in batches; a batch is one call.",
		Series: none,
	}
	ObserverPanics = Metric{
		Name: "firebreak_observer_panics_total", Kind: Counter, Of: OfCommand,
		Help:   "Panics of observers while they were told of the command.",
		Series: none,
	}
)

// What its circuit does.
var (
	CircuitState = Metric{
		Name: "firebreak_circuit_state", Kind: Gauge, Of: OfCommand,
		Help:   "Circuits in each state: one of the three is 1; of a keyed command, how many of its keys are in it.",
		Labels: []string{"state"}, Series: each(closed, open, halfOpen),
	}
	CircuitTransitions = Metric{
		Name: "firebreak_circuit_transitions_total", Kind: Counter, Of: OfCommand,
		Help: "Changes of state since the collector was made, by cause: the rule that held, the end of the sleep window, " +
			"probes, a mode that was set or lifted, shutdown.",
		Labels: []string{"from", "to", "cause"},
		Series: [][]string{
			{closed, open, "error_percentage"},
			{closed, open, "slow_calls"},
			{closed, open, "consecutive_failures"},
			{closed, open, "evidence"},
			{closed, open, Other}, // a rule that there was not when this was written
			{closed, open, ByMode},
			{closed, open, Shutdown},
			{open, halfOpen, SleepWindow},
			{open, closed, ByMode},
			{halfOpen, closed, Probe},
			{halfOpen, closed, ByMode},
			{halfOpen, open, Probe},
			{halfOpen, open, ByMode},
			{halfOpen, open, Shutdown},
		},
	}
	CircuitErrorRatio = Metric{
		Name: "firebreak_circuit_error_ratio", Kind: Gauge, Of: OfCommand,
		Help:   "Failures among the calls in the circuit's rolling window, 0 to 1; 0 without calls; of a keyed command, its worst key's.",
		Series: none,
	}
	CircuitOverride = Metric{
		Name: "firebreak_circuit_override", Kind: Gauge, Of: OfCommand,
		Help:   "Circuits with an override by hand in force: by the mode that it sets, and those for which it injects faults.",
		Labels: []string{"kind"},
		Series: each(firebreak.Auto.String(), firebreak.ForceOpen.String(), firebreak.ForceClosed.String(), firebreak.Shadow.String(), Inject),
	}
)

// What is set for it.
var (
	CommandInfo = Metric{
		Name: "firebreak_command_info", Kind: Gauge, Of: OfCommand,
		Help:   "Always 1: the settings that are words are its labels. The mode is the configured one, without overrides.",
		Labels: []string{"isolation", "mode", "keyed"}, Series: infos(),
		Sparse: true,
	}
	Timeout = Metric{
		Name: "firebreak_timeout_seconds", Kind: Gauge, Of: OfCommand,
		Help:   "How long a call may take, waiting included; +Inf if that is left to the caller.",
		Series: none,
	}
	ErrorThreshold = Metric{
		Name: "firebreak_circuit_error_threshold_ratio", Kind: Gauge, Of: OfCommand,
		Help:   "The share of failures in the rolling window that opens the circuit, 0 to 1; absent if that rule is off.",
		Series: none, Sparse: true,
	}
	VolumeThreshold = Metric{
		Name: "firebreak_circuit_request_volume_threshold", Kind: Gauge, Of: OfCommand,
		Help:   "How many calls the rolling window must hold before a share of them opens the circuit.",
		Series: none,
	}
	SleepWindowLength = Metric{
		Name: "firebreak_circuit_sleep_window_seconds", Kind: Gauge, Of: OfCommand,
		Help:   "How long an open circuit waits for its first probe.",
		Series: none,
	}
	FallbackLimit = Metric{
		Name: "firebreak_fallback_limit", Kind: Gauge, Of: OfCommand,
		Help:   "How many calls may be in their fallbacks at once; 0 if none is asked, +Inf without a limit. Of a keyed command, for each key.",
		Series: none,
	}
)

// The bulkhead that a dependency's commands share.
var (
	BulkheadLimit = Metric{
		Name: "firebreak_bulkhead_limit", Kind: Gauge, Of: OfDependency,
		Help:   "How many calls of the dependency may run at once; +Inf without a limit.",
		Series: none,
	}
	BulkheadInFlight = Metric{
		Name: "firebreak_bulkhead_in_flight", Kind: Gauge, Of: OfDependency,
		Help:   "Permits out now, those of abandoned runs included.",
		Series: none,
	}
	BulkheadPeak = Metric{
		Name: "firebreak_bulkhead_in_flight_peak", Kind: Gauge, Of: OfDependency,
		Help:   "The most permits out at once in the rolling window, 10 s unless set: what a scrape would miss.",
		Series: none,
	}
	BulkheadQueued = Metric{
		Name: "firebreak_bulkhead_queued", Kind: Gauge, Of: OfDependency,
		Help:   "Calls that wait for a permit or a worker now.",
		Series: none,
	}
	BulkheadQueueLimit = Metric{
		Name: "firebreak_bulkhead_queue_limit", Kind: Gauge, Of: OfDependency,
		Help:   "How many calls may wait; 0 if none.",
		Series: none,
	}
	BulkheadAbandoned = Metric{
		Name: "firebreak_bulkhead_abandoned", Kind: Gauge, Of: OfDependency,
		Help:   "Runs in a pool whose caller has left and that hold their permit.",
		Series: none,
	}
)

// infos is every combination of CommandInfo's values.
func infos() [][]string {
	var all [][]string
	for _, i := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		for _, m := range []firebreak.Mode{firebreak.Auto, firebreak.ForceOpen, firebreak.ForceClosed, firebreak.Shadow} {
			for _, keyed := range []string{"false", "true"} {
				all = append(all, []string{i.String(), m.String(), keyed})
			}
		}
	}
	return all
}

// All is every definition.
func All() []*Metric {
	return []*Metric{
		&Calls, &Rejections, &Fallbacks, &RunDuration, &CallDuration, &InFlight, &FallbacksInFlight, &Overruns, &StreamItems, &CacheHits, &Batches, &CollapsedKeys, &ObserverPanics,
		&CircuitState, &CircuitTransitions, &CircuitErrorRatio, &CircuitOverride,
		&CommandInfo, &Timeout, &ErrorThreshold, &VolumeThreshold, &SleepWindowLength, &FallbackLimit,
		&BulkheadLimit, &BulkheadInFlight, &BulkheadPeak, &BulkheadQueued, &BulkheadQueueLimit, &BulkheadAbandoned,
	}
}
