package firebreak_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

func TestTheSameNameIsTheSameHandle(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	c := firebreak.Config{Timeout: time.Minute, ErrorThresholdPercentage: 30}
	dep := reg.Dependency("users", c)
	cmd := dep.Command("users.get", c)
	keyed := dep.Keyed("users.shard", 3, c)
	both := reg.Command("ping", firebreak.Config{Timeout: time.Minute, MaxConcurrent: 3})
	for _, again := range []firebreak.Config{c, {}} {
		require.Same(t, dep, reg.Dependency("users", again))
		require.Same(t, cmd, dep.Command("users.get", again))
		require.Same(t, keyed, dep.Keyed("users.shard", 3, again))
	}
	require.Same(t, both, reg.Command("ping", firebreak.Config{Timeout: time.Minute, MaxConcurrent: 3}))
	require.Same(t, both, reg.Command("ping", firebreak.Config{}))
	require.Same(t, both, reg.Dependency("ping", firebreak.Config{}).Command("ping", firebreak.Config{}))
	a := keyed.Command("a")
	require.Same(t, a, keyed.Command("a"))
	require.NotSame(t, keyed.Command("a"), keyed.Command("b"))
}

// A dependency and a command of one name are two things.
func TestDependenciesAndCommandsHaveNamesOfTheirOwn(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	a, b := reg.Dependency("a", firebreak.Config{}), reg.Dependency("b", firebreak.Config{})
	require.NotSame(t, a, b)
	require.Equal(t, "b", a.Command("b", firebreak.Config{}).Name())
	require.Equal(t, "a", b.Command("a", firebreak.Config{}).Snapshot().Command)
}

// What is compared is what code said the first time, not what is in force.
func TestASecondConfigMustBeTheFirst(t *testing.T) {
	first := firebreak.Config{Timeout: time.Minute, Classify: firebreak.ExpectErrors(errBoom)}
	for _, tt := range []struct {
		says          string
		first, second firebreak.Config
		panics        bool
	}{
		{"the same", first, firebreak.Config{Timeout: time.Minute, Classify: firebreak.ExpectErrors()}, false},
		{"the same without the function", first, firebreak.Config{Timeout: time.Minute}, false},
		{"nothing", first, firebreak.Config{}, false},
		{"another value", first, firebreak.Config{Timeout: time.Hour}, true},
		{"more", first, firebreak.Config{Timeout: time.Minute, Probes: 2}, true},
		{"another field", first, firebreak.Config{Probes: 2}, true},
		{"something, after nothing", firebreak.Config{}, firebreak.Config{Probes: 2}, true},
		{"the default, after nothing", firebreak.Config{}, firebreak.Config{Probes: 1}, true},
		{"what a document says", first, firebreak.Config{Timeout: 7 * time.Second}, true},
	} {
		reg := newRegistry(t, firebreak.Config{})
		update(t, reg, firebreak.Document{Defaults: firebreak.Config{Timeout: 7 * time.Second}})
		dep := reg.Dependency("users", tt.first)
		cmd := dep.Command("users.get", tt.first)
		keyed := dep.Keyed("users.shard", 1, tt.first)
		reg.Command("ping", tt.first)
		for who, again := range map[string]func(){
			`dependency "users"`:          func() { require.Same(t, dep, reg.Dependency("users", tt.second)) },
			`command "users.get"`:         func() { require.Same(t, cmd, dep.Command("users.get", tt.second)) },
			`keyed command "users.shard"`: func() { require.Same(t, keyed, dep.Keyed("users.shard", 1, tt.second)) },
			`command "ping"`:              func() { reg.Command("ping", tt.second) },
		} {
			if !tt.panics {
				require.NotPanics(t, again, "%s: %s", who, tt.says)
				continue
			}
			require.Contains(t, panicText(t, again), "firebreak: "+who+" is there already, with another Config: ", tt.says)
		}
		if tt.first.Classify != nil {
			require.Equal(t, firebreak.Expected, cmd.Config().Classify(errBoom), "the first function stays")
		}
	}
}

// Each field counts in the comparison, but for the function.
func TestEveryFieldMakesAnotherConfig(t *testing.T) {
	for _, f := range configFields {
		reg := newRegistry(t, firebreak.Config{})
		reg.Dependency("dep", f.with(f.good()[0]))
		another := func() { reg.Dependency("dep", f.with(f.good()[1])) }
		if f.name == "Classify" {
			require.NotPanics(t, another)
		} else {
			require.Equal(t, `firebreak: dependency "dep" is there already, with another Config: `+f.name, panicText(t, another))
		}
	}
}

func TestOneNameForTwoThingsPanics(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	users, orders := reg.Dependency("users", firebreak.Config{}), reg.Dependency("orders", firebreak.Config{})
	users.Command("get", firebreak.Config{})
	users.Keyed("shard", 2, firebreak.Config{})
	for _, tt := range []struct {
		make   func()
		panics string
	}{
		{func() { orders.Command("get", firebreak.Config{}) }, `firebreak: command "get" belongs to dependency "users"`},
		{func() { reg.Command("get", firebreak.Config{}) }, `firebreak: command "get" belongs to dependency "users"`},
		{func() { users.Keyed("get", 2, firebreak.Config{}) }, `firebreak: keyed command "get" is a command without keys already`},
		{func() { orders.Keyed("get", 2, firebreak.Config{}) }, `firebreak: keyed command "get" is a command without keys already`},
		{func() { users.Command("shard", firebreak.Config{}) }, `firebreak: command "shard" is keyed already`},
		{func() { orders.Command("shard", firebreak.Config{}) }, `firebreak: command "shard" is keyed already`},
		{func() { reg.Command("shard", firebreak.Config{}) }, `firebreak: command "shard" is keyed already`},
		{func() { orders.Keyed("shard", 2, firebreak.Config{}) }, `firebreak: keyed command "shard" belongs to dependency "users", with maxKeys 2`},
		{func() { users.Keyed("shard", 3, firebreak.Config{}) }, `firebreak: keyed command "shard" belongs to dependency "users", with maxKeys 2`},
		{func() { reg.Dependency("", firebreak.Config{}) }, `firebreak: dependency "": a name is needed`},
		{func() { reg.Command("", firebreak.Config{}) }, `firebreak: dependency "": a name is needed`},
		{func() { users.Command("", firebreak.Config{}) }, `firebreak: command "": a name is needed`},
		{func() { users.Keyed("", 2, firebreak.Config{}) }, `firebreak: keyed command "": a name is needed`},
		{func() { users.Keyed("none", 0, firebreak.Config{}) }, `firebreak: keyed command "none": maxKeys: 0 is not at least 1`},
		{func() { users.Keyed("none", firebreak.Unlimited, firebreak.Config{}) }, `firebreak: keyed command "none": maxKeys: -2 is not at least 1`},
	} {
		require.Equal(t, tt.panics, panicText(t, tt.make))
	}
	require.NotPanics(t, func() { users.Command("get", firebreak.Config{}) }, "no lock was left behind")
}

// Whoever makes a command in two places may do so at once.
func TestNamesAreAskedForConcurrently(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	var made [8]*firebreak.Command
	var wg sync.WaitGroup
	for i := range made {
		wg.Go(func() {
			for n := range 50 {
				reg.Dependency(fmt.Sprint("dep", n), firebreak.Config{Probes: 2}).Command(fmt.Sprint("cmd", n), firebreak.Config{Probes: 3})
				for cmd := range reg.Commands() {
					assert.NotNil(t, cmd)
				}
			}
			made[i] = reg.Command("ping", firebreak.Config{MaxConcurrent: 3})
		})
	}
	wg.Wait()
	for _, cmd := range made {
		require.Same(t, made[0], cmd)
	}
	require.Len(t, commandsOf(reg), 51)
}

func commandsOf(reg *firebreak.Registry) (names []string) {
	for cmd := range reg.Commands() {
		names = append(names, cmd.Name())
	}
	return names
}

func TestRegistryCommandSplitsItsConfig(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	ping := reg.Command("ping", firebreak.Config{MaxConcurrent: 3, MaxWait: time.Second, Timeout: time.Minute, Classify: firebreak.ExpectErrors(errBoom)})
	other := reg.Dependency("ping", firebreak.Config{}).Command("pong", firebreak.Config{})
	require.Equal(t, 3, other.Config().MaxConcurrent, "the dependency's")
	require.Equal(t, time.Second, other.Config().MaxWait)
	require.Equal(t, time.Second, other.Config().Timeout, "not the command's")
	require.Equal(t, firebreak.Failure, other.Config().Classify(errBoom))
	require.Equal(t, time.Minute, ping.Config().Timeout)
	require.Equal(t, firebreak.Expected, ping.Config().Classify(errBoom))
	require.Equal(t, map[string]string{
		"maxConcurrent": "code: dependency", "maxWait": "code: dependency", "timeout": "code: command", "Classify": "code: command",
	}, without(ping.Origins(), "default"))
}

func TestCommandsComeByDependencyNameAndKey(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	require.Empty(t, commandsOf(reg))
	b, a := reg.Dependency("b", firebreak.Config{}), reg.Dependency("a", firebreak.Config{})
	b.Command("b1", firebreak.Config{})
	b.Command("a1", firebreak.Config{})
	a.Command("z", firebreak.Config{})
	k := a.Keyed("k", 5, firebreak.Config{})
	k.Command("2")
	k.Command("10")
	k.Command("")
	a.Command("k10", firebreak.Config{})
	a.Command("j", firebreak.Config{})
	require.Equal(t, []string{"j", "k[]", "k[10]", "k[2]", "k10", "z", "a1", "b1"}, commandsOf(reg))

	a.Command("y", firebreak.Config{}) // seen from now on
	require.Equal(t, []string{"j", "k[]", "k[10]", "k[2]", "k10", "y", "z", "a1", "b1"}, commandsOf(reg))
}

func TestCommandsMayStopAndMakeCommands(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	for _, name := range []string{"a", "b", "c"} {
		reg.Command(name, firebreak.Config{})
	}
	for cmd := range reg.Commands() {
		require.Equal(t, "a", cmd.Name())
		break
	}
	n := 0
	for cmd := range reg.Commands() {
		reg.Command(cmd.Name()+"'", firebreak.Config{})
		n++
	}
	require.Equal(t, 3, n, "those there were")
	require.Len(t, commandsOf(reg), 6)
}

func TestCommandsAllocateNothing(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	for i := range 100 {
		reg.Command(fmt.Sprint(i), firebreak.Config{})
	}
	keyed := reg.Dependency("keyed", firebreak.Config{}).Keyed("keyed", 10, firebreak.Config{})
	for i := range 10 {
		keyed.Command(fmt.Sprint(i))
	}
	n := 0
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for cmd := range reg.Commands() {
			n += int(cmd.Snapshot().State) + 1
		}
	}))
	require.Equal(t, 101*110, n)
}

func TestTwoRegistriesShareNothing(t *testing.T) {
	one, two := newRegistry(t, firebreak.Config{MaxConcurrent: 1}), newRegistry(t, firebreak.Config{})
	a, b := one.Command("dep", firebreak.Config{}), two.Command("dep", firebreak.Config{Probes: 2})
	told := 0
	two.Observe(firebreak.Observer{Transition: func(firebreak.Transition) { told++ }, Call: func(context.Context, firebreak.CallEvent) { told++ }})
	trip(t, a)
	require.Equal(t, firebreak.StateClosed, b.Snapshot().State)
	update(t, one, firebreak.Document{Defaults: firebreak.Config{Timeout: time.Minute}, Commands: map[string]firebreak.Config{"x": {}}})
	require.Equal(t, time.Second, b.Config().Timeout)
	require.Empty(t, two.Unclaimed())
	require.Equal(t, 100, b.Snapshot().Bulkhead.Limit)
	require.Zero(t, total(b))
	require.Len(t, commandsOf(two), 1)
	require.NoError(t, one.Shutdown(t.Context()))
	require.Zero(t, told)
	_, err := firebreak.Do(t.Context(), b, succeed)
	require.NoError(t, err)
}

// hostileNames are what a name may be, since a key may come from a request.
var hostileNames = []string{
	`<script>alert("x")</script>`, "two\nlines\r\n", "nul\x00byte", "[", "]", "a[b]", "%s%d%!", `"quoted" \ 'name'`, "*", ".", " ",
	"\xff\xfe", "\u202Eright to left", "\ufeff", "ключ", strings.Repeat("long", 1<<18), "a: b", "${HOME}", "../../etc/passwd", "a\x1b[31mred",
}

func TestHostileNames(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	var families []*firebreak.Keyed
	for i, name := range hostileNames {
		families = append(families, reg.Dependency(name, firebreak.Config{}).Keyed(fmt.Sprint("keyed", i), len(hostileNames), firebreak.Config{}))
	}
	want := []string{}
	check := func(cmd *firebreak.Command, name, family, key string) {
		t.Helper()
		want = append(want, name)
		require.Equal(t, name, cmd.Name())
		trip(t, cmd)
		_, err := firebreak.Do(t.Context(), cmd, succeed)
		require.EqualError(t, err, name+": circuit open")
		var e *firebreak.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, name, e.Command)
		s := cmd.Snapshot()
		require.Equal(t, family, s.Command)
		require.Equal(t, key, s.Key)
		text, err := json.Marshal(s.Evidence)
		require.NoError(t, err)
		require.True(t, json.Valid(text))
	}
	for i, name := range hostileNames {
		check(reg.Dependency(name, firebreak.Config{}).Command(name, firebreak.Config{}), name, name, "")
		check(families[i].Command(name), fmt.Sprintf("keyed%d[%s]", i, name), fmt.Sprint("keyed", i), name)
	}
	got := commandsOf(reg)
	slices.Sort(got)
	slices.Sort(want)
	require.Equal(t, want, got)
}

func TestHostileNamesInDocuments(t *testing.T) {
	doc := firebreak.Document{Dependencies: map[string]firebreak.Config{}, Commands: map[string]firebreak.Config{}}
	inText := func(name string) string { // JSON knows no bytes, YAML no longer keys
		name = strings.ToValidUTF8(name, "\ufffd")
		return name[:min(len(name), 1000)]
	}
	for i, name := range hostileNames {
		name = inText(name)
		doc.Dependencies[name] = firebreak.Config{MaxConcurrent: i + 1}
		doc.Commands[name] = firebreak.Config{Probes: i + 1}
	}
	text, err := json.Marshal(doc)
	require.NoError(t, err)
	for _, format := range formats {
		var read firebreak.Document
		require.NoError(t, format.unmarshal(text, &read), format.name)
		require.Equal(t, doc, read, format.name)
	}

	reg := newRegistry(t, firebreak.Config{})
	update(t, reg, doc)
	require.Len(t, reg.Unclaimed(), 2*len(hostileNames))
	for i, name := range hostileNames {
		name = inText(name)
		c := reg.Command(name, firebreak.Config{}).Config()
		require.Equal(t, i+1, c.Probes, name)
		require.Equal(t, i+1, c.MaxConcurrent, name)
	}
	require.Empty(t, reg.Unclaimed())
}

// What names a hostile name does not let it pass for something else.
func TestHostileNamesAreQuotedInFaults(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	const name = "a\nfirebreak: all is well\x1b[0m"
	quoted := fmt.Sprintf("%q", name)
	for _, text := range []string{
		panicText(t, func() { reg.Dependency(name, firebreak.Config{Timeout: 1}) }),
		panicText(t, func() { reg.Command(name, firebreak.Config{Timeout: 1}) }),
		panicText(t, func() { reg.Dependency("x", firebreak.Config{}).Keyed(name, 1, firebreak.Config{Timeout: 1}) }),
		reg.Update(forCommand(name, firebreak.Config{Timeout: 1})).Error(),
		reg.Update(forDependency(name, firebreak.Config{Timeout: 1})).Error(),
	} {
		require.Contains(t, text, quoted)
		require.NotContains(t, text, "\n")
		require.NotContains(t, text, "\x1b")
	}
}

func TestConstructorsAfterShutdown(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	dep := reg.Dependency("dep", firebreak.Config{})
	require.NoError(t, reg.Shutdown(t.Context()))
	for _, cmd := range []*firebreak.Command{
		dep.Command("late", firebreak.Config{}), reg.Command("later", firebreak.Config{}), dep.Keyed("keyed", 1, firebreak.Config{}).Command("key"),
	} {
		_, err := firebreak.Do(t.Context(), cmd, succeed)
		require.ErrorIs(t, err, firebreak.ErrShutdown)
		_, err = cmd.Begin(t.Context())
		require.ErrorIs(t, err, firebreak.ErrShutdown)
		require.EqualValues(t, 2, total(cmd).Shutdown)
	}
}

// S72.
func TestShutdownOfARegistryListsWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		dep := reg.Dependency("dep", firebreak.Config{})
		dep.Command("idle", firebreak.Config{})
		keyed := dep.Keyed("keyed", 1, firebreak.Config{}).Command("key")
		calls := []*firebreak.Call{begin(t, dep.Command("busy", firebreak.Config{})), begin(t, keyed), begin(t, keyed)}
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		err := reg.Shutdown(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, err, "firebreak: shutdown: busy: 1 in flight for at least 2.5s; keyed[key]: 2 in flight for at least 2.5s: context deadline exceeded")
		end(calls...)
	})
}

func TestShutdownOfARegistryIsToldOnceForEachCommand(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	reg.Command("a", firebreak.Config{})
	reg.Command("b", firebreak.Config{Mode: firebreak.ForceOpen})
	var told []string
	reg.Observe(firebreak.Observer{Transition: func(n firebreak.Transition) {
		told = append(told, fmt.Sprintf("%s: %v to %v", n.Command, n.From, n.To))
	}})
	for range 2 {
		require.NoError(t, reg.Shutdown(t.Context()))
		require.ElementsMatch(t, []string{"a: closed to open", "b: open to open"}, told)
	}
}

// Registry.Command used to leave the dependency behind when the command's name was
// taken.
func TestRegistryCommandMakesBothOrNothing(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	dep := reg.Dependency("dep", firebreak.Config{})
	dep.Command("get", firebreak.Config{})
	dep.Keyed("shard", 1, firebreak.Config{})
	for _, name := range []string{"get", "shard"} {
		require.NoError(t, reg.Update(firebreak.Document{Dependencies: map[string]firebreak.Config{name: {}}}))
		require.Panics(t, func() { reg.Command(name, firebreak.Config{MaxConcurrent: 7}) })
		require.Contains(t, reg.Unclaimed(), `dependency "`+name+`"`)
	}
}
