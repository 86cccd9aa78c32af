package firebreak

import (
	"context"
	"errors"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak/internal/deadline"
	"github.com/firebreak-go/firebreak/internal/mono"
)

// A Command guards the calls to one operation of a dependency: it bounds how many
// run at once and how long each may take, and stops calling while the dependency
// is failing.
//
// Make one with [Dependency.Command] or [Registry.Command] and share it: all its
// methods may be used concurrently. It knows no result type; [Do], [Command.Run],
// [Command.Begin] and [Bind] make calls through it. The zero Command is not usable.
type Command struct {
	// Read by every call.
	settings   atomic.Pointer[settings]
	clock      *mono.Clock
	dependency *Dependency
	registry   *Registry
	rejected   *Error // made beforehand, and shared, since they bear the command's name
	// rejectedLate is the rejection of a call whose time was over before its turn.
	rejectedLate *Error
	circuit      circuit

	_ [64]byte // what calls write stays off the lines that they read

	metrics   metrics
	fallbacks limiter
	waiting   atomic.Int64 // calls in a queue, and those that tell observers

	name   string // with the key of a keyed command
	family string // without
	key    string
	keyed  *Keyed                 // nil unless keyed
	made   mono.Time              // or given another window
	code   *Config                // what code said; nil if nothing
	config atomic.Pointer[Config] // in force; nil if nobody has asked since the last Update
}

// Do makes one call through cmd and returns its result, or that of the first
// fallback that has one. Nil fallbacks are skipped.
//
// Under semaphore isolation run is called on this goroutine and must return soon
// after its ctx is done: Do can ask it to stop, not make it. Under pool isolation
// Do returns at the deadline or when ctx ends, while run may go on, its permit
// held.
//
// If no fallback answers, Do returns what run did, value and error unchanged, or
// an [*Error] that matches [ErrOpen], [ErrRejected], [ErrShutdown] or [ErrTimeout];
// a call that its caller's context ended, by a cancel or a deadline sooner than the
// command's, returns the context's error and asks no fallback. If the fallbacks
// failed too, the error is an [*Error] that matches run's and theirs.
//
// A run that returns nil after the deadline counts as a timeout, to the circuit
// too; its result is returned all the same.
//
// A panic in run counts as a failure and goes on up, unless run was on a worker:
// then it is a [*PanicError]. Do panics if ctx, cmd or run is nil.
func Do[T any](ctx context.Context, cmd *Command, run func(context.Context) (T, error), fallbacks ...Fallback[T]) (T, error) {
	must(ctx != nil && cmd != nil && run != nil)
	c := call{given: given(fallbacks)}
	c.of(ctx, cmd)
	var v T
	err := c.admit()
	if err == nil {
		v, err = perform(&c, task[struct{}, T]{run: run})
	}
	if !c.asks {
		return v, err
	}
	return answer(&c, v, err, len(fallbacks), chain[T](fallbacks).ask)
}

// Run is [Do] for calls that have no result.
func (c *Command) Run(ctx context.Context, run func(context.Context) error, fallbacks ...func(ctx context.Context, cause error) error) error {
	must(ctx != nil && c != nil && run != nil)
	cl := call{}
	cl.of(ctx, c)
	for _, f := range fallbacks {
		cl.given = cl.given || f != nil
	}
	err := cl.admit()
	if err == nil {
		_, err = perform(&cl, task[func(context.Context) error, struct{}]{in: run, bound: withoutResult})
	}
	if !cl.asks {
		return err
	}
	_, err = answer(&cl, struct{}{}, err, len(fallbacks), func(i int, ctx context.Context, cause error) (v struct{}, err error, asked bool) {
		if fallbacks[i] == nil {
			return v, nil, false
		}
		return v, fallbacks[i](ctx, cause), true
	})
	return err
}

func withoutResult(ctx context.Context, run func(context.Context) error) (struct{}, error) {
	return struct{}{}, run(ctx)
}

// A task is what a call is to do: run, or bound with its argument. Two forms, as
// an argument handed on as a value spares bound calls the closure.
type task[In, T any] struct {
	run   func(context.Context) (T, error)
	bound func(context.Context, In) (T, error)
	in    In
}

func (t *task[In, T]) call(ctx context.Context) (T, error) {
	if t.run != nil {
		return t.run(ctx)
	}
	return t.bound(ctx, t.in)
}

// must panics on a call that nobody could make.
func must(made bool) {
	if !made {
		panic("firebreak: a call needs a context, a command and a function")
	}
}

// perform is the middle of the pipeline, from the permit to the books: it runs a
// call that was admitted, settles it, and leaves in c what it came to.
func perform[In, T any](c *call, t task[In, T]) (v T, err error) {
	if c.cmd.dependency.bulkhead.isolation == PoolIsolation {
		return performInPool(c, t)
	}
	// 4. The dependency, under the deadline. Permit, token and a run begun are ours,
	// and go back in settle, whatever run does.
	within, over := c.context()
	defer func() {
		if !c.returned {
			var r any // nil: Goexit, which nothing stops
			if c.set.recoverPanics || c.ours {
				r = recover()
			}
			err = c.unwind(over, r)
		}
	}()
	switch {
	case c.inject != nil:
		v, err = runInjected(c, &t, within)
	case t.run != nil:
		v, err = t.run(within)
	default:
		v, err = t.bound(within, t.in)
	}
	// 5. The verdict, and the books.
	now := c.cmd.clock.Now()
	var end ending
	if err == nil && now <= c.deadline {
		end.outcome = OutcomeSuccess
	} else {
		c.verdict(over, now, err, &end)
	}
	c.returned = true
	c.settle(now, &end, over)
	return v, end.err
}

// unwind settles a call whose run or Classify did not return, and returns its error:
// what was recovered, nil if that goes on up, with its own stack.
func (c *call) unwind(over *deadline.Context, recovered any) error {
	end := ending{outcome: OutcomePanic, cause: errPanicked}
	if recovered != nil || c.ours {
		end = panicked(recovered)
	}
	c.settle(c.cmd.clock.Now(), &end, over)
	return end.err
}

// panicked is how a run ended whose panic was recovered, or nil for Goexit.
func panicked(r any) ending {
	err := &PanicError{Value: r, Stack: debug.Stack()}
	return ending{outcome: OutcomePanic, err: err, cause: err}
}

// runInjected calls what an override put in the place of run, and run if that lets it.
func runInjected[In, T any](c *call, t *task[In, T], ctx context.Context) (v T, err error) { //nolint:revive // ctx is run's, not this function's
	if err := c.inject(ctx); err != nil {
		return v, err
	}
	c.inject = nil
	return t.call(ctx)
}

// A call is the state of one call from its admission to its answer. It belongs to
// one goroutine at a time.
type call struct {
	caller context.Context // its caller's own
	cmd    *Command
	set    *settings // loaded once: a reconfiguration never splits a call in two
	cell   *cell     // where it is counted
	token  token
	inject func(context.Context) error // an override's; nil once it has let run go on

	now       mono.Time // the last reading of the clock
	submitted mono.Time
	started   mono.Time // run
	deadline  mono.Time // the command's, D in the rules

	timed     bool // submitted and deadline are set
	returned  bool // run and Classify have
	outcome   Outcome
	given     bool // fallbacks were given
	asks      bool // the outcome wants them, and there are some to ask: its total is counted after them
	missing   bool // the outcome wants them, and there are none
	overran   bool // too long after the deadline
	begun     bool // by Begin or Stream: the run goes on after the verdict
	bare      bool // of Begin, or a stream that had an item: asks for no fallback, and none is missing
	looping   bool // in the body of a loop over a stream
	tells     bool // there is something to tell but to observers of calls: an entry of a log, perhaps news of the circuit
	collapsed bool // it is a batch
	ours      bool // the goroutine that it runs on is: no panic may leave it
	left      bool // by its caller: whether it overran is not known before run ends
}

// of says whose call c is, and loads the settings.
func (c *call) of(caller context.Context, cmd *Command) {
	c.caller, c.cmd, c.set = caller, cmd, cmd.settings.Load()
	c.tells = c.set.requestLog
}

// admit is the beginning of the pipeline, up to the permit: it asks circuit and
// bulkhead. An error is the call's, settled. In a pool the permit is left to the job.
func (c *call) admit() error {
	// 1. Is there anybody to answer to?
	cmd := c.cmd
	if err := c.caller.Err(); err != nil {
		if cmd.circuit.era.Load().kind == eraRetired {
			return c.admitAnew()
		}
		c.now = cmd.clock.Now()
		return c.refuse(OutcomeGaveUp, err)
	}
	// 2. Is the dependency worth calling?
	e, simple := cmd.circuit.present()
	if simple && e.admits() {
		c.token.era = e
	} else {
		c.now = cmd.clock.Now()
		shut := e.door.Load()
		if !simple || shut == nil || !shut.shut(c.now) {
			shut = cmd.circuit.admit(c)
		}
		switch shut {
		case nil:
		case retired:
			return c.admitAnew()
		default:
			return c.refuse(shut.outcome, shut.err)
		}
	}
	// 3. Is there room for one more?
	b := &cmd.dependency.bulkhead
	if b.isolation == PoolIsolation && !c.begun {
		return nil
	}
	if !b.permits.TryAcquire() {
		c.now = cmd.clock.Now()
		switch {
		case b.bounds.Load().maxWait > 0:
			return c.wait(b)
		case cmd.circuit.changed(c.token): // it may have been shut down
			return c.reject()
		}
		return c.refuse(OutcomeRejected, cmd.rejected)
	}
	now := cmd.clock.Now()
	c.submit(now)
	c.begin(now)
	return nil
}

// admitAnew admits a call whose command made way for another key, under that key's
// present command.
func (c *call) admitAnew() error {
	c.of(c.caller, c.cmd.keyed.Command(c.cmd.key))
	return c.admit()
}

// submit starts the command's time.
func (c *call) submit(now mono.Time) {
	c.timed, c.submitted, c.deadline = true, now, mono.Never
	if c.set.timeout > 0 {
		c.deadline = now.Add(c.set.timeout)
	}
}

// begin is the start of run: the permit is there.
func (c *call) begin(now mono.Time) {
	c.now, c.started = now, now
	c.cell = c.cmd.metrics.cell()
	c.cell.begun.Add(1)
}

// context is what run is called with: one that ends at the deadline, or the
// caller's own.
func (c *call) context() (context.Context, *deadline.Context) {
	if c.deadline == mono.Never {
		return c.caller, nil
	}
	over := deadline.New(c.caller, c.cmd.clock, c.deadline)
	return over, over
}

// errPanicked is what the evidence says of a panic that nobody recovered.
var errPanicked = errors.New("run panicked")

// A watcher is a context of run's, or of a Call, that knows who ended it.
type watcher interface{ ByParent() bool }

// An ending is how a run ended, and what the caller is told.
type ending struct {
	outcome Outcome
	err     error
	cause   error         // of a bad outcome, for the circuit's evidence
	hint    time.Duration // of RetryAfter
}

// verdict decides on a run that returned err at now, and fills in the ending;
// semantics.md, section 2. over is run's context; it is not asked if that was the
// caller's own.
func (c *call) verdict(over watcher, now mono.Time, err error, end *ending) {
	switch {
	case err == nil && now <= c.deadline:
		end.outcome = OutcomeSuccess
	case err == nil: // the value is there and is delivered
		end.outcome, end.cause = OutcomeTimeout, ErrTimeout
	case c.inject != nil && c.injected(err, end):
	case c.late(over, now, err, end):
	default:
		c.classify(err, end)
	}
}

// injected is the verdict on an error of an override's that stands for an outcome.
func (c *call) injected(err error, end *ending) bool {
	//nolint:errorlint // these stand for themselves; wrapped, they are another command's
	switch err {
	case ErrOpen:
		end.outcome, end.err = OutcomeShortCircuited, c.error(ErrOpen, nil)
	case ErrRejected:
		end.outcome, end.err = OutcomeRejected, c.cmd.rejected
	case ErrTimeout:
		end.outcome, end.err, end.cause = OutcomeTimeout, c.error(ErrTimeout, nil), ErrTimeout
	default:
		return false
	}
	return true
}

// late is rows 4 and 5: a call that ended with an error after its caller, or its
// deadline, did. err is run's, nil if it has none.
func (c *call) late(over watcher, now mono.Time, err error, end *ending) bool {
	if o, gone := c.callerLeft(over, now); gone {
		end.outcome, end.err = o, c.caller.Err()
		if end.err == nil { // its deadline passed, and its timer is late
			end.err = context.DeadlineExceeded
		}
		if errors.Is(err, end.err) {
			end.err = unmark(err)
		}
		end.cause = end.err
		return true
	}
	if now < c.deadline {
		return false
	}
	end.outcome, end.err, end.cause = OutcomeTimeout, c.error(ErrTimeout, unmark(err)), err
	if err == nil {
		end.cause = ErrTimeout
	}
	return true
}

// classify is the verdict on a run that failed in time: its mark's, or Classify's.
func (c *call) classify(err error, end *ending) {
	end.outcome, end.err, end.cause = OutcomeFailure, unmark(err), err
	var v Verdict
	if m := markOf(err); m != nil {
		v = m.verdict
		end.hint = hintOf(m)
	} else {
		v = c.set.classify(err)
	}
	switch v {
	case Expected:
		end.outcome = OutcomeExpected
	case Ignored:
		end.outcome = OutcomeIgnored
	}
}

// hintOf is the outermost hint in a chain of marks that say Failure.
func hintOf(m *marked) time.Duration {
	for ; m != nil && m.verdict == Failure; m = markOf(m.error) {
		if m.hint > 0 {
			return m.hint
		}
	}
	return 0
}

// callerLeft tells whether the caller's own context ended before the command's
// deadline and not after now, and how (row 4; S10).
func (c *call) callerLeft(over watcher, now mono.Time) (Outcome, bool) {
	err := c.caller.Err()
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		// A cancel leaves no time behind. It was first if the deadline has not passed,
		// or if run was watching and saw it come.
		return OutcomeCanceled, now < c.deadline || over.ByParent()
	}
	if at, ok := c.caller.Deadline(); ok {
		d := c.cmd.clock.Of(at)
		if err == nil || d <= now {
			return OutcomeCallerDeadline, d <= now && d < c.deadline // at a tie the dependency had all its time
		}
		if at != at.Round(0) && d <= c.cmd.clock.Now() {
			return OutcomeCallerDeadline, false // since then
		}
		// By the wall clock alone nobody can tell: the context knows best.
	}
	// It ended before the deadline that it tells, as that of a Call does at its
	// timeout, or it tells none.
	return OutcomeCallerDeadline, err != nil && now < c.deadline
}

// error makes an error of the call's own.
func (c *call) error(reason, cause error) *Error {
	return &Error{Command: c.cmd.name, Reason: reason, Cause: cause}
}

// settle is the accounting of a call whose run is over: statistics, circuit,
// permit, observers, in this order, so that the next waiter sees the news and the
// call is counted when its caller hears of it.
func (c *call) settle(now mono.Time, end *ending, over *deadline.Context) {
	if over != nil {
		over.Finish()
	}
	b := &c.cmd.dependency.bulkhead
	c.book(now, end)
	b.peak.Note(now, b.permits.Release())
	c.told(end)
}

// book is settle's statistics and circuit.
func (c *call) book(now mono.Time, end *ending) {
	c.now, c.outcome = now, end.outcome
	if !end.outcome.executed() { // injected: counted as if it had been refused
		if !c.goesOn() {
			c.cmd.metrics.end(c.cell, now)
		}
		c.bookRefusal(c.refusal(end.outcome), end.err)
		return
	}
	run := time.Duration(now - c.started)
	slow := c.set.rules.slowCall > 0 && run > c.set.rules.slowCall
	if e := c.token.era; end.outcome == OutcomeSuccess && c.token.plain() && !slow {
		c.cell = c.cmd.metrics.executed(c, run)
		e.window.Add(now, false, false)
		if !e.calm() {
			c.cmd.circuit.calm(e, &judgement{now: now, set: c.set})
			c.tells = true
		}
		return
	}
	wants := !c.bare && wantsFallback(end, c.set.recoverPanics)
	c.asks = wants && c.canAsk()
	c.missing, c.overran = wants && !c.asks, c.overdue(now, end)
	c.cell = c.cmd.metrics.executed(c, run)
	c.cmd.circuit.record(c, c.healthOf(end.outcome), slow, end)
}

// canAsk: there are fallbacks, and the settings allow them.
func (c *call) canAsk() bool { return c.given && c.set.maxFallbacks > 0 }

// wantsFallback: a failure, and a timeout whose value did not come after all.
func wantsFallback(end *ending, recovered bool) bool {
	switch end.outcome {
	case OutcomeFailure:
		return true
	case OutcomeTimeout:
		return end.err != nil
	case OutcomePanic:
		return recovered && end.err != nil
	}
	return false
}

// goesOn tells whether run may go on after the books: its caller has left, or a
// Call's End is still to come.
func (c *call) goesOn() bool { return c.begun || c.left }

// overdue: it answered after all, or took a tenth longer than it might.
func (c *call) overdue(now mono.Time, end *ending) bool {
	if c.left || now <= c.deadline {
		return false
	}
	return end.outcome == OutcomeTimeout && end.err == nil || now.Sub(c.deadline) > c.set.timeout/10
}

// healthOf is what an outcome of an executed call is to the circuit.
func (c *call) healthOf(o Outcome) health {
	switch o {
	case OutcomeSuccess, OutcomeExpected:
		return good
	case OutcomeFailure, OutcomeTimeout, OutcomePanic:
		return bad
	case OutcomeCallerDeadline:
		if c.set.countCallerDeadlines {
			return bad
		}
	}
	return neutral
}

// told tells of a call that has its outcome, if anybody wants to know.
func (c *call) told(end *ending) {
	if c.tells || c.cmd.registry.watched.Load() {
		c.tell(end)
	}
}

// noteBare notes a call that asks no fallback.
func (c *call) noteBare() {
	var fallback event
	if c.missing || !c.bare && !c.outcome.executed() && c.outcome != OutcomeGaveUp {
		fallback = eventFallbackMissing
	}
	var took time.Duration
	if c.timed {
		took = c.now.Sub(c.submitted)
	}
	c.note(fallback, took)
}

func (c *call) tell(end *ending) {
	c.cmd.waiting.Add(1) // however slow observers are, the call goes on
	told := false
	defer func() {
		c.cmd.waiting.Add(-1)
		if !told && c.asks { // an observer called Goexit: no fallback will be asked any more
			now := c.cmd.clock.Now()
			c.cmd.metrics.add(c.cell, now, eventFallbackFailure, c.outcome.executed(), now.Sub(c.submitted))
			c.asks = false
			if c.set.requestLog {
				c.note(eventFallbackFailure, c.took(now))
			}
		}
	}()
	c.cmd.circuit.tell() // what its outcome did there, now that the permit is back
	if c.set.requestLog && !c.asks {
		c.noteBare()
	}
	e := c.event(end.err)
	if e.Err == nil {
		e.Err = end.cause
	}
	overran := c.overran
	c.cmd.observe(func(o *Observer) {
		if o.Call != nil {
			o.Call(c.caller, e)
		}
		if overran && o.Overrun != nil {
			o.Overrun(c.caller, e)
		}
	})
	told = true
}

func (c *call) event(err error) CallEvent {
	e := CallEvent{
		Dependency: c.cmd.dependency.name, Command: c.cmd.family, Key: c.cmd.key,
		Outcome: c.outcome, Err: err,
	}
	if c.outcome.executed() {
		e.Run = c.now.Sub(c.started)
	}
	if c.timed {
		e.Call = c.now.Sub(c.submitted)
	}
	return e
}

// refuse settles a call whose run never began, at c.now, and returns its error.
func (c *call) refuse(o Outcome, err error) error {
	what := c.refusal(o)
	// Mostly there is nothing to do but to count it, in the only cell. With the rest out
	// of the way that spares 1.3 of 46 ns (BenchmarkOpen, BenchmarkFull).
	m := &c.cmd.metrics
	if c.token.lease == nil && !c.set.marksRefusals && !c.cmd.registry.watched.Load() && m.more.Load() == nil && m.base.tally(what, c.now) {
		c.cell = &m.base
		return err
	}
	c.bookRefusal(what, err)
	c.told(&ending{outcome: o, err: err})
	return err
}

// bookRefusal is refuse's statistics and circuit.
func (c *call) bookRefusal(what event, err error) {
	c.cell = c.cmd.metrics.count(what, c.now)
	if c.token.lease != nil || c.set.countRejections {
		c.returnToken(err)
	}
}

// refusal is what a refusal counts as; a call with fallbacks asks them.
func (c *call) refusal(o Outcome) event {
	c.outcome = o
	if o == OutcomeGaveUp || c.bare {
		return event(o)
	}
	if c.canAsk() {
		c.asks = true
		return event(o)
	}
	return event(o) + (eventBareRejected - event(OutcomeRejected))
}

// returnToken spends the token of a refused call: it says nothing about the
// dependency, but for a rejection that is to count in a closed era.
func (c *call) returnToken(err error) {
	if c.outcome == OutcomeRejected && c.set.countRejections && c.token.lease == nil && c.token.era != nil {
		c.cmd.circuit.record(c, bad, false, &ending{cause: err})
		return
	}
	c.cmd.circuit.giveBack(c.token, c.now)
}

// Name is the command's name, with the key of a keyed command: web.get[a.example].
func (c *Command) Name() string { return c.name }

// Config returns the settings in force: every field is said, and Classify can be
// called.
func (c *Command) Config() Config {
	// Whoever watches asks for it with every look. One that made way for another key is
	// not among those that an Update tells to forget it.
	if known := c.config.Load(); known != nil && c.circuit.era.Load().kind != eraRetired {
		return *known
	}
	c.registry.mu.Lock()
	defer c.registry.mu.Unlock()
	in := c.layersLocked().resolve()
	c.config.Store(&in)
	return in
}

// Origins tells who said each setting in force, by the key that a document has for
// it: default, "code: registry", "code: dependency", "code: command", "document:
// defaults", "document: dependency" or "document: command".
func (c *Command) Origins() map[string]string {
	c.registry.mu.Lock()
	defer c.registry.mu.Unlock()
	_, who := c.layersLocked().read(true)
	return who
}

// Override takes the place of the last override of this command; the zero Override
// lifts it. It holds at once, for calls that are admitted from now on. It panics
// on a Mode that there is not.
func (c *Command) Override(o Override) {
	if o.Mode > Shadow {
		panic("firebreak: Override: Mode " + o.Mode.String())
	}
	if !c.circuit.setOverride(o, c.clock.Now()) { // it made way for another key
		c.keyed.Command(c.key).Override(o)
	}
}
