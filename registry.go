package firebreak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak/internal/mono"
	"github.com/firebreak-go/firebreak/internal/semaphore"
)

// A Registry holds the dependencies and commands of a service. Make one, with the
// defaults for all, and pass the handles it gives to whoever makes calls; at a call
// nothing is looked up. Its methods may be used concurrently; its zero value is not
// usable.
//
// A Registry starts no goroutine. Two of them share nothing.
type Registry struct {
	clock     *mono.Clock
	observers atomic.Pointer[[]*Observer] // nil: nobody looks
	watched   atomic.Bool                 // some of them look at calls, not at transitions alone
	sorted    atomic.Pointer[[]*Command]  // all commands, by dependency, name and key
	shut      atomic.Bool                 // set under mu

	goroutines semaphore.Semaphore // one permit for each of ours that no bulkhead counts; no limit
	batches    batches

	mu           sync.Mutex // guards the rest, and all settings; taken before any other lock
	defaults     Config
	document     Document
	dependencies map[string]*Dependency
	commands     map[string]*Command
	keyed        map[string]*Keyed
	shared       *settings // the last that were made, of those with the default Classify
}

// NewRegistry makes a registry whose dependencies and commands inherit from
// defaults. It panics on a bad Config, as all constructors do.
func NewRegistry(defaults Config) *Registry {
	mustBeGood(&defaults, "registry")
	r := &Registry{
		clock:        mono.NewClock(),
		defaults:     defaults,
		dependencies: map[string]*Dependency{},
		commands:     map[string]*Command{},
		keyed:        map[string]*Keyed{},
	}
	r.goroutines.Init(semaphore.Unlimited)
	return r
}

// A Dependency is what commands call: a service, a database, a cache. It has one
// bulkhead, which its commands share. Its methods may be used concurrently.
type Dependency struct {
	bulkhead bulkhead
	registry *Registry
	name     string
	code     *Config // what code said; nil if nothing
}

// Dependency returns the dependency of that name, made if need be. Asked again, it
// panics if c says other than the first time; a zero Config never does, and a
// Classify is not compared: the first one stays. It panics on an empty name and on
// a bad Config.
func (r *Registry) Dependency(name string, c Config) *Dependency {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dependencyLocked(name, c)
}

func (r *Registry) dependencyLocked(name string, c Config) *Dependency {
	who := fmt.Sprintf("dependency %q", name)
	mustBeNamed(name, who)
	mustBeGood(&c, who)
	if d := r.dependencies[name]; d != nil {
		mustBeSame(d.code, c, who)
		return d
	}
	d := &Dependency{registry: r, name: name, code: said(c)}
	in := d.layersLocked().resolve()
	d.bulkhead.init(in.Isolation, newBounds(&in))
	if r.shut.Load() {
		d.bulkhead.permits.Close()
	}
	r.dependencies[name] = d
	return d
}

// Command returns the one command of a dependency of its name; c is for both. (In a
// document the two are apart: what is of the bulkhead stands under dependencies.)
// Otherwise it is as [Dependency.Command].
func (r *Registry) Command(name string, c Config) *Command {
	r.mu.Lock()
	defer r.mu.Unlock()
	who := fmt.Sprintf("command %q", name)
	mustBeGood(&c, who) // all before the dependency is made
	r.mustBeFreeLocked(name, name, who)
	dependency, command := c.split()
	d := r.dependencyLocked(name, dependency)
	return d.commandLocked(name, command)
}

// Command returns the command of that name, made if need be, on the terms of
// [Registry.Dependency]. Names of commands are distinct in a registry: it panics if
// another dependency has the command, or it is a keyed one.
func (d *Dependency) Command(name string, c Config) *Command {
	d.registry.mu.Lock()
	defer d.registry.mu.Unlock()
	return d.commandLocked(name, c)
}

func (d *Dependency) commandLocked(name string, c Config) *Command {
	r := d.registry
	who := fmt.Sprintf("command %q", name)
	mustBeNamed(name, who)
	mustBeGood(&c, who)
	mustBePlaced(&c, who)
	r.mustBeFreeLocked(name, d.name, who)
	if cmd := r.commands[name]; cmd != nil {
		mustBeSame(cmd.code, c, who)
		return cmd
	}
	cmd := newCommandLocked(d, name, name, "", said(c), nil)
	r.commands[name] = cmd
	return cmd
}

// mustBeFreeLocked panics if a command's name is that of another thing.
func (r *Registry) mustBeFreeLocked(name, dependency, who string) {
	if r.keyed[name] != nil {
		panic("firebreak: " + who + " is keyed already")
	}
	if cmd := r.commands[name]; cmd != nil && cmd.dependency.name != dependency {
		panic(fmt.Sprintf("firebreak: %s belongs to dependency %q", who, cmd.dependency.name))
	}
}

// newCommandLocked makes a command; whoever calls it puts it where it is found.
func newCommandLocked(d *Dependency, name, family, key string, code *Config, k *Keyed) *Command {
	r := d.registry
	rejections := &[...]Error{ // side by side they take less than apart
		{Command: name, Reason: ErrRejected},
		{Command: name, Reason: ErrRejected, Cause: context.DeadlineExceeded},
	}
	cmd := &Command{
		clock: r.clock, dependency: d, registry: r,
		name: name, family: family, key: key, code: code, keyed: k,
		rejected: &rejections[0], rejectedLate: &rejections[1],
	}
	set := cmd.settingsLocked()
	cmd.settings.Store(set)
	cmd.metrics.init(set.window)
	cmd.circuit.init(cmd, set.mode, r.shut.Load(), r.clock.Now())
	r.sorted.Store(nil)
	return cmd
}

// Commands yields all commands, by dependency, name and key: those that are there
// when it is called. It allocates nothing, unless commands came or went.
func (r *Registry) Commands() iter.Seq[*Command] {
	return func(yield func(*Command) bool) {
		all := r.sorted.Load()
		if all == nil {
			all = r.sort()
		}
		for _, cmd := range *all {
			if !yield(cmd) {
				return
			}
		}
	}
}

func (r *Registry) sort() *[]*Command {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.allLocked()
	slices.SortFunc(all, byName)
	r.sorted.Store(&all)
	return &all
}

func byName(a, b *Command) int {
	return cmp.Or(strings.Compare(a.dependency.name, b.dependency.name), strings.Compare(a.family, b.family), strings.Compare(a.key, b.key))
}

// allLocked returns every command, those of keys included, in no order.
func (r *Registry) allLocked() []*Command {
	all := slices.Collect(maps.Values(r.commands))
	for _, k := range r.keyed {
		all = append(all, k.presentLocked()...)
	}
	return all
}

// Observe has o told of what happens from now on, until stop is called. A call
// that is under way may tell it for a moment longer.
func (r *Registry) Observe(o Observer) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	added := &o
	r.observersLocked(func(all []*Observer) []*Observer { return append(all, added) })
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.observersLocked(func(all []*Observer) []*Observer {
			return slices.DeleteFunc(all, func(o *Observer) bool { return o == added })
		})
	}
}

func (r *Registry) observersLocked(change func([]*Observer) []*Observer) {
	var all []*Observer
	if old := r.observers.Load(); old != nil {
		all = slices.Clone(*old)
	}
	if all = change(all); len(all) == 0 {
		r.observers.Store(nil)
	} else {
		r.observers.Store(&all)
	}
	r.watched.Store(slices.ContainsFunc(all, func(o *Observer) bool {
		return o.Call != nil || o.Fallback != nil || o.Overrun != nil
	}))
}

// layersLocked is who says what about a dependency alone.
func (d *Dependency) layersLocked() *layering {
	r := d.registry
	return layers(nil, nil, among(r.document.Dependencies, d.name), d.code, &r.document.Defaults, &r.defaults)
}

// layersLocked is who says what about a command.
func (c *Command) layersLocked() *layering {
	r, d := c.registry, c.dependency
	return layers(among(r.document.Commands, c.family), c.code,
		among(r.document.Dependencies, d.name), d.code, &r.document.Defaults, &r.defaults)
}

// settingsLocked is what holds for a command. Those made or updated one after the
// other mostly have the same settings, and then share them.
func (c *Command) settingsLocked() *settings {
	r, said := c.registry, c.layersLocked()
	in := said.resolve()
	set := newSettings(&in)
	if said.says("Classify") { // functions cannot be compared
		return set
	}
	if r.shared == nil || !r.shared.same(set) {
		r.shared = set
	}
	return r.shared
}

func among(m map[string]Config, name string) *Config {
	if c, ok := m[name]; ok {
		return &c
	}
	return nil
}

// Update puts a whole document in the place of the last one: what it does not say
// goes back to the code. All of it is applied, or nothing, and then the error
// names every fault. State, counters and permits survive; calls under way keep the
// settings they began with. Names that nobody has asked for yet are kept for when
// somebody does: see [Registry.Unclaimed].
//
// It does not block on calls. Of concurrent Updates the last wins.
func (r *Registry) Update(doc Document) error {
	changed, err := r.update(doc)
	for _, cmd := range changed {
		cmd.circuit.tell()
	}
	return err
}

func (r *Registry) update(doc Document) (changed []*Command, err error) {
	errs := doc.check()
	r.mu.Lock()
	defer r.mu.Unlock()
	errs = append(errs, r.isolationsLocked(&doc)...)
	if len(errs) > 0 {
		return nil, fmt.Errorf("firebreak: update: %w", errors.Join(errs...))
	}
	r.document = doc.clone()
	for _, d := range r.dependencies {
		in := d.layersLocked().resolve()
		d.bulkhead.resize(newBounds(&in))
	}
	changed = r.allLocked()
	for _, cmd := range changed {
		cmd.apply(cmd.settingsLocked())
	}
	return changed, nil
}

// isolationsLocked returns a fault for every dependency that doc would give
// another isolation: that is fixed for life.
func (r *Registry) isolationsLocked(doc *Document) []error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(r.dependencies)) {
		d := r.dependencies[name]
		in := layers(nil, nil, among(doc.Dependencies, name), d.code, &doc.Defaults, &r.defaults).resolve()
		if in.Isolation != d.bulkhead.isolation {
			errs = append(errs, fmt.Errorf("dependency %q: Isolation: is %v and stays so for life, not %v", name, d.bulkhead.isolation, in.Isolation))
		}
	}
	return errs
}

// apply puts new settings in force. Calls that have loaded the last ones keep them.
func (c *Command) apply(set *settings) {
	was := c.settings.Swap(set)
	c.config.Store(nil)
	if was.window != set.window {
		c.metrics.resize(set.window)
		c.circuit.resize(set.window)
		c.made = c.clock.Now() // nobody knows any more how long it has been idle
	}
	c.circuit.setMode(set.mode, c.clock.Now())
}

// Document returns the document in force, to change and give to [Registry.Update].
// It is the caller's own.
func (r *Registry) Document() Document {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.document.clone()
}

// Unclaimed returns the names in the document in force that nothing has asked for
// yet, sorted: `command "usrs.get"`. Most are misspelt.
func (r *Registry) Unclaimed() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name := range r.document.Commands {
		if r.commands[name] == nil && r.keyed[name] == nil {
			names = append(names, fmt.Sprintf("command %q", name))
		}
	}
	for name := range r.document.Dependencies {
		if r.dependencies[name] == nil {
			names = append(names, fmt.Sprintf("dependency %q", name))
		}
	}
	slices.Sort(names)
	return names
}

// Shutdown refuses new calls with [ErrShutdown], those that wait or are queued too,
// and waits for the permits of those in flight: nothing is cancelled. It returns
// nil when the last permit is back, or an error at the end of ctx, which wraps
// ctx's and lists each command with calls in flight, and for how long at least: since
// Shutdown was called.
//
// It waits for runs whose caller has left, for [Command.Begin] and for each [Future],
// run of [Cached] and batch of [Collapse], their fallbacks included; not for fallbacks
// on a caller's goroutine. A batch that waits for keys leaves at once. Further calls
// wait as well, each for itself. There is no way back.
func (r *Registry) Shutdown(ctx context.Context) error {
	began := time.Now()
	r.mu.Lock()
	first := !r.shut.Swap(true)
	all := r.allLocked()
	dependencies := slices.Collect(maps.Values(r.dependencies))
	r.mu.Unlock()
	if first {
		// Circuits first: who is sent away from a bulkhead asks there why.
		now := r.clock.Now()
		for _, cmd := range all {
			cmd.circuit.shut(now)
		}
		for _, d := range dependencies {
			d.bulkhead.permits.Close()
		}
		r.goroutines.Close()
		r.batches.leave()
		for _, cmd := range all { // last: however slow observers are, nobody waits any more
			cmd.circuit.tell()
		}
	}
	idles := make([]<-chan struct{}, 0, len(dependencies)+1)
	for _, d := range dependencies {
		idles = append(idles, d.bulkhead.permits.Idle())
	}
	idles = append(idles, r.goroutines.Idle())
	for _, idle := range idles {
		select {
		case <-idle: // also if ctx is over
			continue
		default:
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return r.stuck(time.Since(began), ctx.Err())
		}
	}
	return nil
}

// Draining tells whether [Registry.Shutdown] was called: new calls are refused.
func (r *Registry) Draining() bool { return r.shut.Load() }

// stuck is the error that lists what is in flight.
func (r *Registry) stuck(since time.Duration, err error) error {
	r.mu.Lock()
	all := r.allLocked()
	for _, k := range r.keyed { // what made way may have calls that it had admitted
		for _, gone := range k.retired {
			all = append(all, gone.cmd)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(all, byName)
	var lines []string
	for _, cmd := range all {
		if n := cmd.metrics.inFlight(); n > 0 {
			lines = append(lines, fmt.Sprintf("%s: %d in flight for at least %v", cmd.name, n, since.Truncate(time.Millisecond)))
		}
	}
	if n := r.goroutines.InFlight(); len(lines) == 0 && n > 0 {
		lines = append(lines, fmt.Sprintf("%d futures, batches or runs of Cached for at least %v", n, since.Truncate(time.Millisecond)))
	}
	return fmt.Errorf("firebreak: shutdown: %s: %w", strings.Join(lines, "; "), err)
}

// said is c for keeping: nil if it says nothing.
func said(c Config) *Config {
	if c.isZero() {
		return nil
	}
	return &c
}

func mustBeNamed(name, who string) {
	if name == "" {
		panic("firebreak: " + who + ": a name is needed")
	}
}

func mustBePlaced(c *Config, who string) {
	if errs := c.misplaced(); len(errs) > 0 {
		panic(fmt.Sprintf("firebreak: %s: %v", who, errors.Join(errs...)))
	}
}

// mustBeSame panics if c says other than code said the first time.
func mustBeSame(code *Config, c Config, who string) {
	var was Config
	if code != nil {
		was = *code
	}
	if !c.isZero() && !same(was, c) {
		panic("firebreak: " + who + " is there already, with another Config: " + differing(was, c))
	}
}

// differing names the fields in which b says other than a.
func differing(a, b Config) string {
	var names []string
	va, vb := reflect.ValueOf(a), reflect.ValueOf(b)
	for _, f := range fields {
		if f.key != "" && !va.Field(f.index).Equal(vb.Field(f.index)) {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, ", ")
}
