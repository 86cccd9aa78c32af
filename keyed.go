package firebreak

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/firebreak-go/firebreak/internal/histogram"
	"github.com/firebreak-go/firebreak/internal/mono"
	"github.com/firebreak-go/firebreak/internal/rolling"
)

// Keyed is a family of commands of one Config, one for each key: a host, a tenant,
// a shard. They share their dependency's bulkhead; each key has a circuit of its
// own. A document names them all at once, without a key. Its methods may be used
// concurrently.
type Keyed struct {
	dependency *Dependency
	name       string
	code       *Config // what code said; nil if nothing
	most       int

	mu    sync.RWMutex // guards byKey; whoever changes it has the registry's mu too
	byKey map[string]*Command

	// Guarded by the registry's mu.
	shared   *Command   // of the keys that found no place; nil until one did
	inVain   bool       // a search found none that could make way
	searched mono.Time  // when the last such was
	retired  []retiring // they made way, the first first, and may still count what they had admitted
	past     family     // what those counted who do so no more
}

// retiring is a command that made way for another key.
type retiring struct {
	cmd *Command
	at  mono.Time
}

// family is what is kept of commands that are gone.
type family struct {
	total        [events]uint64
	runs, totals histogram.Cumulative
}

// sharedKey stands for the keys without a place.
const sharedKey = "*"

// Keyed returns the family of that name, made if need be, on the terms of
// [Dependency.Command]. maxKeys, at least 1, bounds how many keys have a command
// at once; asked again, it must be the same.
func (d *Dependency) Keyed(name string, maxKeys int, c Config) *Keyed {
	who := fmt.Sprintf("keyed command %q", name)
	mustBeNamed(name, who)
	mustBeGood(&c, who)
	mustBePlaced(&c, who)
	if maxKeys < 1 {
		panic(fmt.Sprintf("firebreak: %s: maxKeys: %d is not at least 1", who, maxKeys))
	}
	r := d.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.commands[name] != nil {
		panic("firebreak: " + who + " is a command without keys already")
	}
	if k := r.keyed[name]; k != nil {
		if k.dependency != d || k.most != maxKeys {
			panic(fmt.Sprintf("firebreak: %s belongs to dependency %q, with maxKeys %d", who, k.dependency.name, k.most))
		}
		mustBeSame(k.code, c, who)
		return k
	}
	k := &Keyed{dependency: d, name: name, code: said(c), most: maxKeys, byKey: map[string]*Command{}}
	r.keyed[name] = k
	return k
}

// Command returns the command of a key. Ask for every call: when maxKeys have one,
// a command that is closed, idle and unused for a window makes way for a new key.
// If none is, keys without a place share a command, whose key is "*", until one is;
// a key that is "*" always does.
//
// The calls and overrides of a handle that was kept go on under the key's present
// command.
func (k *Keyed) Command(key string) *Command {
	if cmd := k.lookup(key); cmd != nil {
		return cmd
	}
	cmd, gone := k.find(key)
	if gone != nil {
		gone.circuit.tell()
	}
	return cmd
}

// find is Command for a key that is not there, and returns who made way for it.
func (k *Keyed) find(key string) (cmd, gone *Command) {
	r := k.dependency.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if cmd := k.lookup(key); cmd != nil {
		return cmd, nil
	}
	full := len(k.byKey) >= k.most
	if full && key != sharedKey {
		gone = k.makeWayLocked(r.clock.Now())
	}
	if full && gone == nil || key == sharedKey {
		if k.shared == nil {
			k.shared = k.newLocked(sharedKey)
		}
		return k.shared, nil
	}
	cmd = k.newLocked(key)
	k.mu.Lock()
	k.byKey[key] = cmd
	k.mu.Unlock()
	return cmd, gone
}

func (k *Keyed) lookup(key string) *Command {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.byKey[key]
}

func (k *Keyed) newLocked(key string) *Command {
	cmd := newCommandLocked(k.dependency, k.name+"["+key+"]", k.name, key, k.code, k)
	cmd.made = k.dependency.registry.clock.Now()
	return cmd
}

// present is the command under which c's calls go on: c itself, unless that made way
// for another key.
func (c *Command) present() *Command {
	if c.circuit.era.Load().kind == eraRetired {
		return c.keyed.Command(c.key)
	}
	return c
}

// presentLocked returns the commands that there are now.
func (k *Keyed) presentLocked() []*Command {
	all := slices.Collect(maps.Values(k.byKey))
	if k.shared != nil {
		all = append(all, k.shared)
	}
	return all
}

// makeWayLocked retires a command that nobody would miss, and returns it. Where it
// finds none it does not look again for a bucket's time: too many keys must not
// make every call search them all.
func (k *Keyed) makeWayLocked(now mono.Time) *Command {
	for key, cmd := range k.byKey {
		window := cmd.settings.Load().window // the same for all keys
		if k.inVain && within(now.Sub(k.searched), window/rolling.Buckets) {
			return nil
		}
		if within(now.Sub(cmd.made), window) || !cmd.idle(now) || !k.retireLocked(key, cmd, now) {
			continue
		}
		k.buryLocked(now)
		k.retired = append(k.retired, retiring{cmd, now})
		return cmd
	}
	k.inVain, k.searched = true, now
	return nil
}

// retireLocked is one step to whoever looks the key up: a call that finds its
// command retired would otherwise get the same one again.
func (k *Keyed) retireLocked(key string, cmd *Command, now mono.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	gone := cmd.circuit.retire(now)
	if gone {
		delete(k.byKey, key)
	}
	return gone
}

// within tells whether less than d has passed. A past that is in the future is a
// clock that went back, and long ago.
func within(passed, d time.Duration) bool { return passed >= 0 && passed < d }

// idle tells whether nothing goes on in a command, and nothing did for a window.
func (c *Command) idle(now mono.Time) bool {
	return c.metrics.inFlight() == 0 && c.waiting.Load() == 0 && c.fallbacks.inUse() == 0 && c.metrics.quiet(now)
}

// buryLocked moves the counts of commands that made way into the past, once they
// have been idle for a window since: whoever had a token of theirs is counted.
func (k *Keyed) buryLocked(now mono.Time) {
	aged := 0 // those before it are: the young ones, who can be many, are not looked at
	for aged < len(k.retired) && !within(now.Sub(k.retired[aged].at), k.retired[aged].cmd.settings.Load().window) {
		aged++
	}
	kept := slices.DeleteFunc(k.retired[:aged], func(r retiring) bool {
		if !r.cmd.idle(now) {
			return false
		}
		sum := reading{now: now, differs: true}
		sum.add(&r.cmd.metrics)
		for e, n := range sum.total {
			k.past.total[e] += n
		}
		runs, totals := sum.runs.Cumulative(), sum.totals.Cumulative()
		k.past.runs.Add(&runs)
		k.past.totals.Add(&totals)
		return true
	})
	k.retired = slices.Delete(k.retired, len(kept), aged)
}

// Snapshot is the family: counts, latencies and runs of all its keys together,
// those gone too. State is open if any key's circuit is open, else half-open if any
// is; Mode is Config's; Override and Evidence are zero, as they are of single keys.
func (k *Keyed) Snapshot() Snapshot {
	r := k.dependency.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	k.buryLocked(now)
	all := k.presentLocked()
	present := len(all)
	for _, gone := range k.retired {
		all = append(all, gone.cmd)
	}
	c := layers(among(r.document.Commands, k.name), k.code, among(r.document.Dependencies, k.dependency.name),
		k.dependency.code, &r.document.Defaults, &r.defaults).resolve()
	s := Snapshot{Time: r.clock.Moment(now), Dependency: k.dependency.name, Command: k.name, Mode: c.Mode}

	sum := reading{now: now, differs: true, past: k.past}
	var health, failures uint64
	for i, cmd := range all {
		sum.add(&cmd.metrics)
		s.Fallbacks += cmd.fallbacks.inUse()
		if i >= present {
			continue
		}
		is := cmd.circuit.read(now)
		health += is.health.Good + is.health.Bad
		failures += is.health.Bad
		if is.state == StateOpen || is.state == StateHalfOpen && s.State == StateClosed {
			s.State = is.state
		}
	}
	sum.into(&s)
	s.BatchSizes = sizesOf(now, all...)
	if health > 0 {
		s.ErrorPercentage = 100 * float64(failures) / float64(health)
	}
	s.Bulkhead = k.dependency.bulkhead.read(now)
	return s
}
