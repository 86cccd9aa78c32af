package firebreak_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// allocates is how often f allocates each time it is called, and how many bytes.
func allocates(f func()) (times, bytes int) {
	const n = 200
	times, bytes = int(testing.AllocsPerRun(n, f)), math.MaxInt
	for range 10 { // what the runtime does for itself is in it too, and new buckets, but not each time
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range n {
			f()
		}
		runtime.ReadMemStats(&after)
		bytes = min(bytes, int(after.TotalAlloc-before.TotalAlloc)/n)
	}
	return times, bytes
}

// What a call may allocate: its timeout, and in a pool what carries it to its worker
// and back. What is refused allocates nothing, nor does what no timeout bounds.
func TestWhatACallAllocates(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	over, cancel := context.WithCancel(ctx)
	cancel()
	static := firebreak.Static(2)
	do := func(run func(context.Context) (int, error), fallbacks ...firebreak.Fallback[int]) func(*firebreak.Command) func() {
		return func(cmd *firebreak.Command) func() {
			return func() { _, _ = firebreak.Do(ctx, cmd, run, fallbacks...) }
		}
	}
	giveUp := func(cmd *firebreak.Command) func() {
		return func() { _, _ = firebreak.Do(over, cmd, succeed) }
	}
	free := func(*testing.T, *place) {}
	const off = firebreak.Off
	for _, row := range []struct {
		name         string
		in           firebreak.Isolation
		timeout      time.Duration
		before       func(*testing.T, *place)
		call         func(*firebreak.Command) func()
		times, bytes int // at most
	}{
		{"success", semaphores, time.Hour, free, do(succeed), 1, 48},
		{"success of what has a fallback", semaphores, time.Hour, free, do(succeed, static), 1, 48},
		{"success without a timeout", semaphores, off, free, do(succeed), 0, 0},
		{"expected", semaphores, time.Hour, free, do(returns(0, errExpected)), 1, 48},
		{"failure", semaphores, time.Hour, free, do(fail), 1, 48},
		{"failure without a timeout", semaphores, off, free, do(fail), 0, 0},
		{"failure with a fallback", semaphores, time.Hour, free, do(fail, static), 1, 64},
		{"open", semaphores, time.Hour, forceOpen, do(succeed), 0, 0},
		{"open, with a fallback", semaphores, time.Hour, forceOpen, do(succeed, static), 0, 0},
		{"full", semaphores, time.Hour, full, do(succeed), 0, 0},
		{"full, with a fallback", semaphores, time.Hour, full, do(succeed, static), 0, 0},
		{"gave up", semaphores, time.Hour, free, giveUp, 0, 0},
		{"shut down", semaphores, time.Hour, func(t *testing.T, p *place) { require.NoError(t, p.reg.Shutdown(t.Context())) }, do(succeed), 0, 0},
		{"pool", pools, time.Hour, free, do(succeed), 5, 1024},
		{"pool, open", pools, time.Hour, forceOpen, do(succeed), 0, 0},
		{"pool, full", pools, time.Hour, full, do(succeed), 0, 0},
		{"pool, gave up", pools, time.Hour, free, giveUp, 0, 0},
		{"bound success", semaphores, time.Hour, free, func(cmd *firebreak.Command) func() {
			get := firebreak.Bind(cmd, func(_ context.Context, n int) (int, error) { return n, nil })
			return func() { _, _ = get(ctx, 1) }
		}, 1, 48},
		{"run", semaphores, time.Hour, free, func(cmd *firebreak.Command) func() {
			ping := func(context.Context) error { return nil }
			return func() { _ = cmd.Run(ctx, ping) }
		}, 1, 48},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newPlace(t, row.in, firebreak.Config{MaxConcurrent: 1, Timeout: row.timeout, ErrorThresholdPercentage: off})
			row.before(t, p)
			times, bytes := allocates(row.call(p.cmd))
			require.LessOrEqual(t, times, row.times)
			require.LessOrEqual(t, bytes, row.bytes)
		})
	}
}

// A Snapshot is a plain value, however much there is to it.
func TestSnapshotsAllocateNothing(t *testing.T) {
	p := newPlace(t, semaphores, firebreak.Config{})
	for range 20 {
		_, _ = firebreak.Do(t.Context(), p.cmd, succeed)
		_, _ = firebreak.Do(t.Context(), p.cmd, fail, firebreak.Static(2))
	}
	collide(t, p.neighbour)
	failUntilItOpens(t, p.cmd)
	p.cmd.Override(firebreak.Override{Mode: firebreak.Shadow, Reason: "a test", Until: time.Now().Add(time.Hour)})
	k := p.dep.Keyed("keyed", 3, firebreak.Config{})
	for _, key := range []string{"a", "b", "c", "d"} {
		_, _ = firebreak.Do(t.Context(), k.Command(key), succeed)
	}
	calls := uint64(0)
	times, bytes := allocates(func() {
		for cmd := range p.reg.Commands() {
			s := cmd.Snapshot()
			for _, n := range s.CallHistogram.Buckets() {
				calls += n
			}
		}
	})
	require.Zero(t, times)
	require.Zero(t, bytes)
	require.NotZero(t, calls)
}

// What a command takes, its name not counted: 2 KiB at rest, even with a dependency of
// its own and a Config for both, if its settings are its neighbours'; and no goroutine.
func TestMemoryOfACommandAtRest(t *testing.T) {
	const budget, commands = 2 << 10, 2000
	some := firebreak.Config{Timeout: 2 * time.Second, RequestVolumeThreshold: 10}
	more := some
	more.MaxConcurrent = 20
	for _, row := range []struct {
		name string
		of   func(reg *firebreak.Registry) func(name string) *firebreak.Command
	}{
		{"of one dependency", func(reg *firebreak.Registry) func(string) *firebreak.Command {
			dep := reg.Dependency("dep", more)
			return func(name string) *firebreak.Command { return dep.Command(name, firebreak.Config{}) }
		}},
		{"of one dependency, with a Config", func(reg *firebreak.Registry) func(string) *firebreak.Command {
			dep := reg.Dependency("dep", more)
			return func(name string) *firebreak.Command { return dep.Command(name, some) }
		}},
		{"keyed", func(reg *firebreak.Registry) func(string) *firebreak.Command {
			return reg.Dependency("dep", more).Keyed("keyed", commands, some).Command
		}},
		{"with a dependency", func(reg *firebreak.Registry) func(string) *firebreak.Command {
			return func(name string) *firebreak.Command { return reg.Command(name, firebreak.Config{}) }
		}},
		{"with a dependency and a Config for both", func(reg *firebreak.Registry) func(string) *firebreak.Command {
			return func(name string) *firebreak.Command { return reg.Command(name, more) }
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			names := make([]string, commands)
			for i := range names {
				names[i] = fmt.Sprintf("command %d", i)
			}
			goroutines := runtime.NumGoroutine()
			rest := leastInUse(budget, commands, func() (kept any) {
				reg := firebreak.NewRegistry(firebreak.Config{})
				command := row.of(reg)
				for _, name := range names {
					command(name)
				}
				return reg
			})
			t.Logf("%d B", rest)
			require.LessOrEqual(t, rest, budget)
			requireNoMoreGoroutines(t, goroutines)
			runtime.KeepAlive(names)
		})
	}
}

// Commands that have the same settings share them, and others do not: a Classify is
// never taken for another.
func TestCommandsShareNoSettingsButTheSame(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	expects := func(err error) firebreak.Config { return firebreak.Config{Classify: firebreak.ExpectErrors(err)} }
	configs := []firebreak.Config{
		{}, expects(errBoom), expects(errNotFound), {}, {Timeout: time.Minute}, {}, {CountRejections: firebreak.On}, expects(errBoom),
	}
	var all []*firebreak.Command
	for i, c := range configs {
		all = append(all, reg.Command(fmt.Sprint(i), c))
	}
	for range 2 {
		for i, cmd := range all {
			before := total(cmd)
			_ = cmd.Run(t.Context(), func(ctx context.Context) error {
				deadline, ok := ctx.Deadline()
				require.True(t, ok)
				require.Equal(t, configs[i].Timeout == time.Minute, time.Until(deadline) > 30*time.Second)
				return errBoom
			})
			want := map[string]uint64{"Failure": 1, "FallbackMissing": 1}
			if i == 1 || i == 7 {
				want = map[string]uint64{"Expected": 1}
			}
			require.Equal(t, want, counted(before, total(cmd)), i)
		}
		update(t, reg, firebreak.Document{Defaults: firebreak.Config{Window: time.Hour}})
	}
}

// leastInUse is how many bytes each of n takes that fill makes and keeps, by the least
// of a few tries: what other tests have left comes and goes, and what fill keeps is
// there each time. One within the budget is enough.
func leastInUse(budget, n int, fill func() (kept any)) int {
	least := math.MaxInt
	for range 5 {
		before := inUse()
		kept := fill()
		least = min(least, (inUse()-before)/n)
		runtime.KeepAlive(kept)
		if least <= budget {
			break
		}
	}
	return least
}

// inUse is how much memory is, in bytes.
func inUse() int {
	runtime.GC()
	runtime.GC() // pools of the runtime's and of other packages take two
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// use makes calls that take 1 to 100 ms, as most do between machines.
func use(ctx context.Context, cmd *firebreak.Command, calls int, fallbacks bool) {
	r := rand.New(rand.NewPCG(58, 59))
	for i := range calls {
		d := time.Duration(1e6 * math.Pow(100, r.Float64()))
		if fallbacks && i%10 == 0 {
			_, _ = firebreak.Do(ctx, cmd, deaf(d, 0, errBoom), answering(time.Millisecond, 2, nil))
		} else {
			_, _ = firebreak.Do(ctx, cmd, deaf(d, 1, nil))
		}
	}
}

// S58: 16 KiB for a command that is called, and 6 for each further cell.
func TestMemoryOfACommandInUse(t *testing.T) {
	const commands, budget, budgetOfACell = 100, 16 << 10, 6 << 10
	made := func(t *testing.T) []*firebreak.Command {
		t.Helper()
		dep := newRegistry(t, firebreak.Config{}).Dependency("dep", firebreak.Config{})
		all := make([]*firebreak.Command, commands)
		for i := range all {
			all[i] = dep.Command(fmt.Sprint(i), firebreak.Config{Timeout: time.Minute})
		}
		return all
	}
	for _, row := range []struct {
		calls     int
		fallbacks bool
	}{{1, false}, {100, false}, {100, true}} {
		t.Run(fmt.Sprintf("%d calls, fallbacks=%t", row.calls, row.fallbacks), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				before := inUse()
				all := made(t)
				for _, cmd := range all {
					use(t.Context(), cmd, row.calls, row.fallbacks)
				}
				got := (inUse() - before) / commands
				t.Logf("%d B", got)
				require.LessOrEqual(t, got, budget)
				runtime.KeepAlive(all)
			})
		})
	}
	t.Run("cells", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			all, cells := made(t), 0
			for _, cmd := range all {
				use(t.Context(), cmd, 100, false)
			}
			before := inUse()
			for _, cmd := range all {
				collide(t, cmd)
				var wg sync.WaitGroup
				for range 16 { // so many that each cell sees some of them
					wg.Go(func() { use(t.Context(), cmd, 20, false) })
				}
				wg.Wait()
				cells += firebreak.Cells(cmd) - 1
			}
			got := (inUse() - before) / cells
			t.Logf("%d B for each of %d", got, cells)
			require.LessOrEqual(t, got, budgetOfACell)
			runtime.KeepAlive(all)
		})
	})
}

// S57: a timer or a context that outlived its call would keep the call for an hour.
func TestS57_NothingOutlivesItsCall(t *testing.T) {
	for _, row := range []struct {
		name string
		in   firebreak.Isolation
		call func(t *testing.T, p *place)
	}{
		{"success", semaphores, call(succeed)},
		{"run that waits for its context", semaphores, callUnder(canceledAfter(0), heeds(0, nil))},
		{"pool", pools, call(succeed)},
		{"pool, the caller leaves", pools, callUnder(canceledAfter(0), heeds(0, nil))},
		{"wait in vain", semaphores, func(t *testing.T, p *place) {
			t.Helper()
			held := begin(t, p.neighbour)
			callUnder(canceledAfter(0), succeed)(t, p)
			end(held)
		}},
		{"wait in a queue in vain", pools, func(t *testing.T, p *place) {
			t.Helper()
			held := begin(t, p.neighbour)
			callUnder(canceledAfter(0), succeed)(t, p)
			end(held)
		}},
		{"in two steps", semaphores, func(t *testing.T, p *place) {
			t.Helper()
			end(begin(t, p.cmd))
		}},
		{"flight", pools, func(t *testing.T, p *place) {
			t.Helper()
			_, _ = firebreak.Go(t.Context(), p.cmd, fail, firebreak.Static(1)).Wait(t.Context())
		}},
		{"run of a Cached of its own", semaphores, func(t *testing.T, p *place) {
			t.Helper()
			_, _ = firebreak.Cached(p.cmd, twice)(firebreak.WithScope(t.Context()), 1)
		}},
		{"batch of a Collapse of its own", semaphores, func(t *testing.T, p *place) {
			t.Helper()
			ctx := firebreak.WithScope(t.Context())
			_, _ = firebreak.Gather(ctx, []int{1, 2}, firebreak.Unlimited, firebreak.Collapse(p.cmd, loadDoubles))
		}},
		{"batch that was forsaken", semaphores, func(t *testing.T, p *place) {
			t.Helper()
			ctx, cancel := canceledAfter(time.Millisecond)(firebreak.WithScope(t.Context()))
			defer cancel()
			_, _ = firebreak.Collapse(p.cmd, loadDoubles)(ctx, 1)
		}},
		{"in two steps, never settled", semaphores, func(t *testing.T, p *place) {
			t.Helper()
			held := begin(t, p.cmd)
			held.Extend(time.Hour)
			held.End()
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			const calls = 500
			c := roomToWait(row.in)
			c.Timeout, c.ErrorThresholdPercentage = time.Hour, firebreak.Off
			c.BatchWindow, c.MaxBatch = time.Hour, 2
			if c.MaxWait > 0 {
				c.MaxWait = time.Hour
			}
			p := newPlace(t, row.in, c)
			row.call(t, p)
			left := leastInUse(50, calls, func() any {
				for range calls {
					row.call(t, p)
				}
				return nil
			})
			require.LessOrEqual(t, left, 50, "bytes are left of each call")
		})
	}
}
