package firebreak

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"
)

// Off and Unlimited are values for the fields of a [Config] that can be without
// a bound, or do without the thing altogether. Other negative numbers are refused.
const (
	Off       = -1
	Unlimited = -2
)

// A Switch is a yes or no of a [Config], [On] or [Off]; zero inherits. As text it
// is true or false.
type Switch int8

// On is yes; no is [Off].
const On Switch = 1

// Config is what a person writes for a registry, a dependency or a command, in
// code or in a file. The zero value of a field says nothing: the setting comes
// from the next level up (command, dependency, registry, default), and at each
// level a [Document] stands above the code. So the first of these that says it is
// heard: a document's command, the code's, a document's dependency, the code's, a
// document's defaults, the registry's, the built-in default. What code says for a
// command a document's defaults do not change.
//
// As text (JSON, YAML) the keys are those of the tags, a duration is "250ms", Off
// is "off" or false, Unlimited is "unlimited" and a Switch is true or false; an
// unknown key, a duration without a unit and a value out of range are errors.
//
// Counts go from 1, percentages above 0 up to 100, durations from 10µs: Timeout:
// 300, which is 300ns, is refused. What holds for one command is read back with
// [Command.Config], and who said it with [Command.Origins].
type Config struct {
	// Isolation is where run is called. Fixed when the dependency is made; not for
	// a single command. Default semaphore.
	Isolation Isolation `json:"isolation,omitzero"`
	// MaxConcurrent is how many calls of the dependency may run at once, those
	// whose caller has left included: permits of a semaphore, workers of a pool.
	// Unlimited only counts them. Not for a single command. Default 100.
	MaxConcurrent int `json:"maxConcurrent,omitzero"`
	// MaxWait is how long a call may wait for a permit of a full semaphore, in
	// order of arrival. Off: it is rejected at once. Not for a single command.
	// Default Off.
	MaxWait time.Duration `json:"maxWait,omitzero"`
	// QueueSize is how many calls may wait: for a permit, if MaxWait is set, or for
	// a worker of a pool, where the Timeout bounds their stay. Not for a single
	// command. Default Off; with MaxWait, MaxConcurrent.
	QueueSize int `json:"queueSize,omitzero"`
	// Timeout is how long a call may take, waiting included. Off leaves it to the
	// caller's context. Default 1s.
	Timeout time.Duration `json:"timeout,omitzero"`
	// MaxFallbacks is how many calls of one command may be in their fallbacks at
	// once; more are refused with [ErrFallbackRejected]. Off: none is asked.
	// Default 100.
	MaxFallbacks int `json:"maxFallbacks,omitzero"`
	// RecoverPanics makes a panic of run an error, [*PanicError], everywhere, and
	// lets fallbacks answer it. It stays a panic in the counts. Default Off.
	RecoverPanics Switch `json:"recoverPanics,omitzero"`
	// CountCallerDeadlines makes a call that its caller's sooner deadline ended a
	// failure to the circuit. Default Off.
	CountCallerDeadlines Switch `json:"countCallerDeadlines,omitzero"`
	// CountRejections makes rejections by the bulkhead failures to a closed
	// circuit, as Hystrix did. Default Off: a burst is not an outage.
	CountRejections Switch `json:"countRejections,omitzero"`
	// RequestLog has the calls noted in their scope; see [RequestLog]. Default Off.
	RequestLog Switch `json:"requestLog,omitzero"`
	// Classify gives the verdict on an error of run's. It is not asked about nil,
	// timeouts or calls that their caller ended, and is part of run: a panic in it
	// is one of run's. Not for documents. Default: every error is a [Failure].
	Classify func(error) Verdict `json:"-"`
	// Mode is what is made of the circuit's decisions, below any [Override].
	// ForceClosed is also the way to do without a circuit. Default auto.
	Mode Mode `json:"mode,omitzero"`
	// Window is the length of the rolling window of circuit and counts, kept in ten
	// buckets. Another one begins empty. Default 10s.
	Window time.Duration `json:"window,omitzero"`
	// RequestVolumeThreshold is how many calls the window must hold before a
	// percentage trips the circuit. Default 20.
	RequestVolumeThreshold int `json:"requestVolumeThreshold,omitzero"`
	// ErrorThresholdPercentage trips the circuit when so many of the calls in the
	// window are failures, or more. Off, as with the other three rules: this one
	// does not trip. Default 50.
	ErrorThresholdPercentage float64 `json:"errorThresholdPercentage,omitzero"`
	// ConsecutiveFailures trips the circuit at so many failures in a row. Default Off.
	ConsecutiveFailures int `json:"consecutiveFailures,omitzero"`
	// SlowCallDuration makes a call slow whose run takes longer. Default Off.
	SlowCallDuration time.Duration `json:"slowCallDuration,omitzero"`
	// SlowCallThresholdPercentage trips the circuit when so many of the calls in
	// the window are slow, or more. Default 50.
	SlowCallThresholdPercentage float64 `json:"slowCallThresholdPercentage,omitzero"`
	// Evidence trips the circuit once the failures in the window are evidence of an
	// error percentage at or above ErrorThresholdPercentage (50 if that is Off): a
	// Wilson lower bound, which needs no volume and so works on quiet commands.
	// Default Off.
	Evidence Switch `json:"evidence,omitzero"`
	// SleepWindow is how long an opened circuit waits for its first probe. Default 5s.
	SleepWindow time.Duration `json:"sleepWindow,omitzero"`
	// MaxSleepWindow lets failed probes lengthen the sleep by half each time, up to
	// this; each sleep window spent closed takes a step back. It also caps the
	// hints of [RetryAfter] (Off: ten sleep windows). Default Off: no growth.
	MaxSleepWindow time.Duration `json:"maxSleepWindow,omitzero"`
	// SleepJitterPercentage spreads the moment of the first probe by so much of the
	// SleepWindow, either way, so that a fleet does not probe in step. Default Off.
	SleepJitterPercentage float64 `json:"sleepJitterPercentage,omitzero"`
	// Probes is how many calls a half-open circuit lets through at once; all must
	// succeed to close it. Default 1.
	Probes int `json:"probes,omitzero"`
	// BatchWindow is how long the first key of a [Collapse] waits for others. Default
	// 10ms.
	BatchWindow time.Duration `json:"batchWindow,omitzero"`
	// MaxBatch is how many keys a batch of a [Collapse] has at most: with so many it
	// leaves at once. Default Unlimited.
	MaxBatch int `json:"maxBatch,omitzero"`
}

// HystrixDefaults is the original's numbers and counting for [NewRegistry], where
// they differ from ours: pool isolation, ten workers, ten fallbacks, panics are
// errors, rejections count as failures, calls are noted in the request log.
func HystrixDefaults() Config {
	return Config{
		Isolation:       PoolIsolation,
		MaxConcurrent:   10,
		MaxFallbacks:    10,
		RecoverPanics:   On,
		CountRejections: On,
		RequestLog:      On,
	}
}

// builtIn is the last layer: every field is said.
var builtIn = Config{
	Isolation:                   SemaphoreIsolation,
	MaxConcurrent:               100,
	MaxWait:                     Off,
	QueueSize:                   Off,
	Timeout:                     time.Second,
	MaxFallbacks:                100,
	RecoverPanics:               Off,
	CountCallerDeadlines:        Off,
	CountRejections:             Off,
	RequestLog:                  Off,
	Classify:                    func(error) Verdict { return Failure },
	Mode:                        Auto,
	Window:                      10 * time.Second,
	RequestVolumeThreshold:      20,
	ErrorThresholdPercentage:    50,
	ConsecutiveFailures:         Off,
	SlowCallDuration:            Off,
	SlowCallThresholdPercentage: 50,
	Evidence:                    Off,
	SleepWindow:                 5 * time.Second,
	MaxSleepWindow:              Off,
	SleepJitterPercentage:       Off,
	Probes:                      1,
	BatchWindow:                 10 * time.Millisecond,
	MaxBatch:                    Unlimited,
}

// A field describes one field of Config beyond its type.
type field struct {
	name       string
	dependency bool // belongs to a dependency: not for one command of several (S68)
	off        bool // may be Off
	unlimited  bool // may be Unlimited

	index int    // in Config, for reflection
	key   string // in text, from the json tag; "" for a func
}

// fields is Config, in its order. Reflection over it serves layering, checking,
// text and reading back; none of that is on the path of a call.
var fields = describe([]field{
	{name: "Isolation", dependency: true},
	{name: "MaxConcurrent", dependency: true, unlimited: true},
	{name: "MaxWait", dependency: true, off: true},
	{name: "QueueSize", dependency: true, off: true},
	{name: "Timeout", off: true},
	{name: "MaxFallbacks", off: true, unlimited: true},
	{name: "RecoverPanics", off: true},
	{name: "CountCallerDeadlines", off: true},
	{name: "CountRejections", off: true},
	{name: "RequestLog", off: true},
	{name: "Classify"},
	{name: "Mode"},
	{name: "Window"},
	{name: "RequestVolumeThreshold"},
	{name: "ErrorThresholdPercentage", off: true},
	{name: "ConsecutiveFailures", off: true},
	{name: "SlowCallDuration", off: true},
	{name: "SlowCallThresholdPercentage"},
	{name: "Evidence", off: true},
	{name: "SleepWindow"},
	{name: "MaxSleepWindow", off: true},
	{name: "SleepJitterPercentage", off: true},
	{name: "Probes"},
	{name: "BatchWindow"},
	{name: "MaxBatch", unlimited: true},
})

func describe(fs []field) []field {
	t := reflect.TypeFor[Config]()
	if len(fs) != t.NumField() {
		panic("firebreak: fields does not describe Config")
	}
	for i := range fs {
		sf := t.Field(i)
		if sf.Name != fs[i].name {
			panic("firebreak: fields does not describe Config." + sf.Name)
		}
		fs[i].index = i
		if tag, _, _ := strings.Cut(sf.Tag.Get("json"), ","); tag != "-" {
			fs[i].key = tag
		}
	}
	return fs
}

// minDuration is the least that a duration can be set to: far below any real
// timeout or window, and above what a number without its unit would be.
const minDuration = 10 * time.Microsecond

// check returns every fault of c, each naming its field, or nil.
func (c *Config) check() []error {
	var errs []error
	v := reflect.ValueOf(c).Elem()
	for _, f := range fields {
		if why := f.fault(v.Field(f.index)); why != "" {
			errs = append(errs, fmt.Errorf("%s: %s", f.name, why))
		}
	}
	return errs
}

// fault says what is wrong with a value of the field; zero is never wrong.
func (f *field) fault(v reflect.Value) string {
	if v.IsZero() {
		return ""
	}
	if name := f.foreign(v); name != "" {
		return "cannot be " + name
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		if x < minDuration && !f.named(int64(x)) {
			return fmt.Sprintf("%v is under %v%s", x, minDuration, f.orNamed())
		}
	case int:
		if (x < 1 || x > math.MaxInt32) && !f.named(int64(x)) {
			return fmt.Sprintf("%d is not from 1 to %d%s", x, math.MaxInt32, f.orNamed())
		}
	case float64:
		if !(x > 0 && x <= 100) && !(f.off && x == Off) { // written so that NaN is refused
			return fmt.Sprintf("%v is not a percentage above 0 and up to 100%s", x, f.orNamed())
		}
	case Switch:
		if x != On && x != Off {
			return fmt.Sprintf("%d is neither On nor Off", x)
		}
	case Isolation:
		if x > PoolIsolation {
			return fmt.Sprintf("%d is not an isolation", uint8(x))
		}
	case Mode:
		if x > Shadow {
			return fmt.Sprintf("%d is not a mode", uint8(x))
		}
	}
	return ""
}

func (f *field) named(x int64) bool {
	return f.off && x == Off || f.unlimited && x == Unlimited
}

// foreign returns the name of a value that only other fields may have.
func (f *field) foreign(v reflect.Value) string {
	x := 0.0
	switch {
	case v.CanInt():
		x = float64(v.Int())
	case v.CanFloat():
		x = v.Float()
	}
	switch {
	case x == Off && !f.off:
		return "Off"
	case x == Unlimited && !f.unlimited:
		return "Unlimited"
	}
	return ""
}

func (f *field) orNamed() string {
	switch {
	case f.off && f.unlimited:
		return ", Off or Unlimited"
	case f.off:
		return " or Off"
	case f.unlimited:
		return " or Unlimited"
	}
	return ""
}

const isMisplaced = "belongs to a dependency, whose commands share it: say it there"

// misplaced returns a fault for every field of a dependency's that c says.
func (c *Config) misplaced() []error {
	var errs []error
	v := reflect.ValueOf(c).Elem()
	for _, f := range fields {
		if f.dependency && !v.Field(f.index).IsZero() {
			errs = append(errs, fmt.Errorf("%s %s", f.name, isMisplaced))
		}
	}
	return errs
}

// split is c in two: what belongs to a dependency, and the rest.
func (c Config) split() (dependency, command Config) {
	d, m, from := reflect.ValueOf(&dependency).Elem(), reflect.ValueOf(&command).Elem(), reflect.ValueOf(&c).Elem()
	for _, f := range fields {
		to := m
		if f.dependency {
			to = d
		}
		to.Field(f.index).Set(from.Field(f.index))
	}
	return dependency, command
}

// isZero and same compare what can be compared: functions cannot.
func (c Config) isZero() bool { return reflect.ValueOf(c).IsZero() }

func same(a, b Config) bool {
	a.Classify, b.Classify = nil, nil
	return reflect.DeepEqual(a, b)
}

// A layer is one voice on the settings; nil says nothing.
type layer struct {
	*Config
	origin string
}

// layering is all the voices on one command, or on a dependency alone, the first
// that says a field being heard (S69).
type layering [7]layer

func (ls *layering) resolve() Config {
	c, _ := ls.read(false)
	return c
}

func (ls *layering) read(origins bool) (c Config, who map[string]string) {
	if origins {
		who = make(map[string]string, len(fields))
	}
	to := reflect.ValueOf(&c).Elem()
	for _, f := range fields {
		for _, l := range ls {
			if l.Config == nil {
				continue
			}
			v := reflect.ValueOf(l.Config).Elem().Field(f.index)
			if v.IsZero() {
				continue
			}
			to.Field(f.index).Set(v)
			if origins {
				who[f.keyOrName()] = l.origin
			}
			break
		}
	}
	// Whoever lets calls wait lets as many wait as may run, if nobody says otherwise.
	if c.QueueSize == Off && c.MaxWait != Off && c.MaxConcurrent > 0 && c.Isolation == SemaphoreIsolation && !ls.says("QueueSize") {
		c.QueueSize = c.MaxConcurrent
	}
	return c, who
}

// says tells whether anybody but the built-in defaults says the field.
func (ls *layering) says(name string) bool {
	for _, l := range ls[:len(ls)-1] {
		if l.Config != nil && !reflect.ValueOf(l.Config).Elem().FieldByName(name).IsZero() {
			return true
		}
	}
	return false
}

func (f *field) keyOrName() string {
	if f.key == "" {
		return f.name
	}
	return f.key
}

// settings is what a call reads of its command's Config: plain values, every
// default filled in, never changed once made. Off is zero here.
type settings struct {
	timeout              time.Duration // 0: none
	maxFallbacks         int64         // 0: none is asked
	recoverPanics        bool
	countCallerDeadlines bool
	countRejections      bool
	marksRefusals        bool // they are more than a count: by countRejections or requestLog
	requestLog           bool
	mode                 Mode
	classify             func(error) Verdict

	rules  tripRules
	sleep  sleepRules
	window time.Duration
	batch  batchRules
}

// batchRules says when a batch leaves.
type batchRules struct {
	window time.Duration
	most   int // keys
}

// tripRules says when a closed circuit opens.
type tripRules struct {
	volume              uint64
	errorPercentage     float64 // 0: off
	consecutiveFailures int64   // 0: off
	slowCall            time.Duration
	slowPercentage      float64 // 0: off
	evidence            float64 // the share that the lower bound is compared with; 0: off
}

// sleepRules says how long a circuit stays open, and what ends that.
type sleepRules struct {
	window time.Duration
	max    time.Duration // 0: no growth
	jitter time.Duration
	lease  time.Duration // of a probe
	probes int
}

// newSettings is the one place that reads a resolved Config for calls.
func newSettings(c *Config) *settings {
	s := &settings{
		timeout:              orZero(c.Timeout),
		maxFallbacks:         int64(limitOf(c.MaxFallbacks)),
		recoverPanics:        c.RecoverPanics == On,
		countCallerDeadlines: c.CountCallerDeadlines == On,
		countRejections:      c.CountRejections == On,
		marksRefusals:        c.CountRejections == On || c.RequestLog == On,
		requestLog:           c.RequestLog == On,
		classify:             c.Classify,
		rules: tripRules{
			volume:              uint64(c.RequestVolumeThreshold),
			errorPercentage:     orZero(c.ErrorThresholdPercentage),
			consecutiveFailures: int64(orZero(c.ConsecutiveFailures)),
			slowCall:            orZero(c.SlowCallDuration),
		},
		sleep: sleepRules{
			window: c.SleepWindow,
			max:    orZero(c.MaxSleepWindow),
			jitter: time.Duration(min(orZero(c.SleepJitterPercentage)/100*float64(c.SleepWindow), math.MaxInt64/2)), // that converts
			lease:  max(orZero(c.Timeout), c.SleepWindow),
			probes: c.Probes,
		},
		window: c.Window,
		mode:   c.Mode,
		batch:  batchRules{window: c.BatchWindow, most: limitOf(c.MaxBatch)},
	}
	if s.rules.slowCall > 0 { // else what was slow in the window before would still trip
		s.rules.slowPercentage = c.SlowCallThresholdPercentage
	}
	if c.Evidence == On {
		s.rules.evidence = 0.5
		if c.ErrorThresholdPercentage != Off {
			s.rules.evidence = c.ErrorThresholdPercentage / 100
		}
	}
	return s
}

// same compares all but the functions.
func (s *settings) same(t *settings) bool {
	a, b := *s, *t
	a.classify, b.classify = nil, nil
	return reflect.DeepEqual(a, b)
}

// orZero is a value for which zero stands for Off.
func orZero[T int | float64 | time.Duration](v T) T {
	if v == Off {
		return 0
	}
	return v
}

// limitOf is a limit as a number: Off is 0, Unlimited is as many as there can be.
func limitOf(n int) int {
	switch n {
	case Off:
		return 0
	case Unlimited:
		return math.MaxInt32
	}
	return n
}

// bounds is what a bulkhead reads of its dependency's Config.
type bounds struct {
	limit   int           // math.MaxInt32: unlimited
	maxWait time.Duration // 0: nobody waits at a semaphore
	queue   int           // how many may wait
	window  time.Duration // of the maximum in flight
}

func newBounds(c *Config) *bounds {
	b := &bounds{limit: limitOf(c.MaxConcurrent), maxWait: orZero(c.MaxWait), queue: orZero(c.QueueSize), window: c.Window}
	if c.Isolation == PoolIsolation {
		b.maxWait = 0 // a call that needs no worker does not queue for one
	}
	return b
}

// Layers in the order of S69. The ones for a dependency leave the command's out.
func layers(docCommand, command, docDependency, dependency, docDefaults, registry *Config) *layering {
	return &layering{
		{docCommand, "document: command"},
		{command, "code: command"},
		{docDependency, "document: dependency"},
		{dependency, "code: dependency"},
		{docDefaults, "document: defaults"},
		{registry, "code: registry"},
		{&builtIn, "default"},
	}
}

// mustBeGood panics on a Config given in code that is bad; who names it.
func mustBeGood(c *Config, who string) {
	if errs := c.check(); len(errs) > 0 {
		panic(fmt.Sprintf("firebreak: %s: %v", who, errors.Join(errs...)))
	}
}
