package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// forCommand is a document about one command.
func forCommand(name string, c firebreak.Config) firebreak.Document {
	return firebreak.Document{Commands: map[string]firebreak.Config{name: c}}
}

func forDependency(name string, c firebreak.Config) firebreak.Document {
	return firebreak.Document{Dependencies: map[string]firebreak.Config{name: c}}
}

func update(t testing.TB, reg *firebreak.Registry, doc firebreak.Document) {
	t.Helper()
	require.NoError(t, reg.Update(doc))
}

// What a setting does, as seen from outside: each returns what it saw.

func howManyRun(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	var calls []*firebreak.Call
	for {
		call, err := cmd.Begin(t.Context())
		if err != nil {
			require.ErrorIs(t, err, firebreak.ErrRejected)
			end(calls...)
			return len(calls)
		}
		calls = append(calls, call)
	}
}

func howLongACallWaits(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	defer end(begin(t, cmd))
	began := time.Now()
	_, err := firebreak.Do(t.Context(), cmd, succeed)
	require.ErrorIs(t, err, firebreak.ErrRejected)
	return time.Since(began)
}

func howManyWait(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	call := begin(t, cmd)
	for range 5 {
		go func() { _, _ = firebreak.Do(t.Context(), cmd, succeed) }()
	}
	synctest.Wait()
	n := cmd.Snapshot().Bulkhead.Queued
	end(call)
	synctest.Wait()
	return n
}

func howLongACallMayTake(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	var d time.Duration
	err := cmd.Run(t.Context(), func(ctx context.Context) error {
		at, ok := ctx.Deadline()
		require.True(t, ok)
		d = time.Until(at)
		return nil
	})
	require.NoError(t, err)
	return d
}

func howManyFallbacks(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	n := 0
	var again firebreak.Fallback[int]
	again = func(ctx context.Context, _ error) (int, error) {
		n++
		return firebreak.Do(ctx, cmd, fail, again)
	}
	_, err := firebreak.Do(t.Context(), cmd, fail, again)
	require.ErrorIs(t, err, firebreak.ErrFallbackRejected)
	return n
}

func whatBecomesOfAPanic(t *testing.T, cmd *firebreak.Command) (what any) {
	t.Helper()
	defer func() {
		if recover() != nil {
			what = "a panic"
		}
	}()
	err := cmd.Run(t.Context(), func(context.Context) error { panic("no way") })
	var p *firebreak.PanicError
	require.ErrorAs(t, err, &p)
	return "an error"
}

func errorPercentageOfACallersDeadline(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, cmd.Run(ctx, hang), context.DeadlineExceeded)
	require.EqualValues(t, 1, total(cmd).CallerDeadline)
	return cmd.Snapshot().ErrorPercentage
}

func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func errorPercentageOfARejection(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	call := begin(t, cmd)
	_, err := firebreak.Do(t.Context(), cmd, succeed)
	require.ErrorIs(t, err, firebreak.ErrRejected)
	p := cmd.Snapshot().ErrorPercentage
	end(call)
	return p
}

func modeAndAnswer(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	_, err := firebreak.Do(t.Context(), cmd, succeed)
	return fmt.Sprint(cmd.Snapshot().Mode, ", open: ", errors.Is(err, firebreak.ErrOpen))
}

// A call's bucket is the first of the window that it lies in.
func countedAfter15s(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	_, err := firebreak.Do(t.Context(), cmd, fail)
	require.ErrorIs(t, err, errBoom)
	time.Sleep(15 * time.Second)
	s := cmd.Snapshot()
	return fmt.Sprint(s.Window.Failure, s.ErrorPercentage, s.MaxInFlight)
}

func failuresToOpen(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	return callsToOpen(t, cmd, 0, fail)
}

func failuresToOpenAfter10Successes(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	return callsToOpen(t, cmd, 10, fail)
}

func slowCallsToOpen(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	return callsToOpen(t, cmd, 0, twoSeconds)
}

func slowCallsToOpenAfter10Successes(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	return callsToOpen(t, cmd, 10, twoSeconds)
}

func twoSeconds(context.Context) (int, error) {
	time.Sleep(2 * time.Second)
	return 1, nil
}

// failUntilOpen is trip for a command whose window is not empty.
func failUntilOpen(t *testing.T, cmd *firebreak.Command) {
	t.Helper()
	require.NotEqual(t, "never", failuresToOpen(t, cmd))
}

func callsToOpen(t *testing.T, cmd *firebreak.Command, successes int, run func(context.Context) (int, error)) any {
	t.Helper()
	for range successes {
		_, err := firebreak.Do(t.Context(), cmd, succeed)
		require.NoError(t, err)
	}
	for n := range 60 {
		if cmd.Snapshot().State == firebreak.StateOpen {
			return n
		}
		_, _ = firebreak.Do(t.Context(), cmd, run)
	}
	return "never"
}

func sleepOf(cmd *firebreak.Command) time.Duration {
	e := cmd.Snapshot().Evidence
	return e.NextProbe.Sub(e.At)
}

func firstSleep(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	trip(t, cmd)
	return sleepOf(cmd)
}

func secondSleep(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	trip(t, cmd)
	time.Sleep(sleepOf(cmd))
	_, err := firebreak.Do(t.Context(), cmd, fail)
	require.ErrorIs(t, err, errBoom, "a probe")
	return sleepOf(cmd)
}

func isSpread(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	trip(t, cmd)
	sleep := sleepOf(cmd)
	require.InDelta(t, 5*time.Second, sleep, float64(5*time.Second)/2)
	return sleep != 5*time.Second
}

func howManyProbe(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	trip(t, cmd)
	time.Sleep(sleepOf(cmd))
	var probes []*firebreak.Call
	for {
		call, err := cmd.Begin(t.Context())
		if err != nil {
			require.ErrorIs(t, err, firebreak.ErrOpen)
			end(probes...)
			return len(probes)
		}
		probes = append(probes, call)
	}
}

func whatIsNoted(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	ctx := firebreak.WithScope(t.Context())
	_, err := firebreak.Do(ctx, cmd, succeed)
	require.NoError(t, err)
	return firebreak.RequestLog(ctx).String()
}

func howLongAKeyWaits(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	began := time.Now()
	get := firebreak.Collapse(cmd, func(_ context.Context, keys []int) (map[int]time.Duration, error) {
		return map[int]time.Duration{keys[0]: time.Since(began)}, nil
	})
	waited, err := get(t.Context(), 1)
	require.NoError(t, err)
	return waited
}

func howManyKeysLeave(t *testing.T, cmd *firebreak.Command) any {
	t.Helper()
	get := firebreak.Collapse(cmd, func(_ context.Context, keys []int) (map[int]int, error) {
		sizes := map[int]int{}
		for _, key := range keys {
			sizes[key] = len(keys)
		}
		return sizes, nil
	})
	sizes, err := firebreak.Gather(t.Context(), []int{1, 2, 3, 4, 5, 6}, firebreak.Unlimited, get)
	require.NoError(t, err)
	return sizes[1]
}

// Of each field that Update may change: what is seen when code says before, and
// when a document says after.
var liveFields = []struct {
	name          string
	before, after firebreak.Config
	see           func(*testing.T, *firebreak.Command) any
	was, is       any
}{
	{"MaxConcurrent", firebreak.Config{MaxConcurrent: 2}, firebreak.Config{MaxConcurrent: 3}, howManyRun, 2, 3},
	{
		"MaxWait", firebreak.Config{MaxConcurrent: 1, Timeout: firebreak.Off, MaxWait: 2 * time.Second}, firebreak.Config{MaxWait: 3 * time.Second},
		howLongACallWaits, 2 * time.Second, 3 * time.Second,
	},
	{
		"QueueSize", firebreak.Config{MaxConcurrent: 1, Timeout: firebreak.Off, MaxWait: time.Minute, QueueSize: 2}, firebreak.Config{QueueSize: 3},
		howManyWait, 2, 3,
	},
	{"Timeout", firebreak.Config{Timeout: 2 * time.Second}, firebreak.Config{Timeout: 3 * time.Second}, howLongACallMayTake, 2 * time.Second, 3 * time.Second},
	{"MaxFallbacks", firebreak.Config{MaxFallbacks: 2}, firebreak.Config{MaxFallbacks: 3}, howManyFallbacks, 2, 3},
	{"RecoverPanics", firebreak.Config{}, firebreak.Config{RecoverPanics: firebreak.On}, whatBecomesOfAPanic, "a panic", "an error"},
	{"CountCallerDeadlines", firebreak.Config{}, firebreak.Config{CountCallerDeadlines: firebreak.On}, errorPercentageOfACallersDeadline, 0.0, 100.0},
	{"CountRejections", firebreak.Config{MaxConcurrent: 1}, firebreak.Config{CountRejections: firebreak.On}, errorPercentageOfARejection, 0.0, 100.0},
	{"RequestLog", firebreak.Config{}, firebreak.Config{RequestLog: firebreak.On}, whatIsNoted, "", "dep[SUCCESS][0ms]"},
	{"Mode", firebreak.Config{}, firebreak.Config{Mode: firebreak.ForceOpen}, modeAndAnswer, "auto, open: false", "force_open, open: true"},
	{"Window", firebreak.Config{}, firebreak.Config{Window: 20 * time.Second}, countedAfter15s, "0 0 0", "1 100 1"},
	{"RequestVolumeThreshold", firebreak.Config{RequestVolumeThreshold: 5}, firebreak.Config{RequestVolumeThreshold: 7}, failuresToOpen, 5, 7},
	{
		"ErrorThresholdPercentage", firebreak.Config{ErrorThresholdPercentage: 60}, firebreak.Config{ErrorThresholdPercentage: 50},
		failuresToOpenAfter10Successes, 15, 10,
	},
	{
		"ConsecutiveFailures", firebreak.Config{ErrorThresholdPercentage: firebreak.Off}, firebreak.Config{ConsecutiveFailures: 3},
		failuresToOpen, "never", 3,
	},
	{
		"SlowCallDuration", firebreak.Config{Timeout: time.Minute, RequestVolumeThreshold: 1}, firebreak.Config{SlowCallDuration: 2*time.Second - 1},
		slowCallsToOpen, "never", 1,
	},
	{
		"SlowCallThresholdPercentage",
		firebreak.Config{Timeout: time.Minute, Window: time.Hour, SlowCallDuration: time.Second, SlowCallThresholdPercentage: 60},
		firebreak.Config{SlowCallThresholdPercentage: 50},
		slowCallsToOpenAfter10Successes, 15, 10,
	},
	{"Evidence", firebreak.Config{RequestVolumeThreshold: 1000}, firebreak.Config{Evidence: firebreak.On}, failuresToOpen, "never", 6},
	{"SleepWindow", firebreak.Config{SleepWindow: 2 * time.Second}, firebreak.Config{SleepWindow: 3 * time.Second}, firstSleep, 2 * time.Second, 3 * time.Second},
	{
		"MaxSleepWindow", firebreak.Config{SleepWindow: 2 * time.Second}, firebreak.Config{MaxSleepWindow: time.Minute},
		secondSleep, 2 * time.Second, 3 * time.Second,
	},
	{"SleepJitterPercentage", firebreak.Config{}, firebreak.Config{SleepJitterPercentage: 50}, isSpread, false, true},
	{"Probes", firebreak.Config{Probes: 2}, firebreak.Config{Probes: 3}, howManyProbe, 2, 3},
	{"BatchWindow", firebreak.Config{BatchWindow: 2 * time.Second}, firebreak.Config{BatchWindow: 3 * time.Second}, howLongAKeyWaits, 2 * time.Second, 3 * time.Second},
	{"MaxBatch", firebreak.Config{MaxBatch: 2}, firebreak.Config{MaxBatch: 3}, howManyKeysLeave, 2, 3},
}

func TestEveryLiveFieldHasARow(t *testing.T) {
	var want, got []string
	for _, f := range configFields {
		if f.name != "Isolation" && f.name != "Classify" {
			want = append(want, f.name)
		}
	}
	for _, f := range liveFields {
		got = append(got, f.name)
	}
	require.Equal(t, want, got)
}

// S70.
func TestUpdatePutsEveryLiveFieldInForceAndBack(t *testing.T) {
	for i, f := range liveFields {
		after := forCommand("dep", f.after)
		if configFields[i+1].dependency { // the row before is Isolation
			after = forDependency("dep", f.after)
		}
		for _, tt := range []struct {
			says    string
			prepare func(*testing.T, *firebreak.Registry) *firebreak.Command
			want    any
		}{
			{"code alone", func(_ *testing.T, reg *firebreak.Registry) *firebreak.Command {
				return reg.Command("dep", f.before)
			}, f.was},
			{"an update", func(t *testing.T, reg *firebreak.Registry) *firebreak.Command {
				defer update(t, reg, after)
				return reg.Command("dep", f.before)
			}, f.is},
			{"an update and one that is silent", func(t *testing.T, reg *firebreak.Registry) *firebreak.Command {
				cmd := reg.Command("dep", f.before)
				update(t, reg, after)
				update(t, reg, firebreak.Document{Commands: map[string]firebreak.Config{"dep": {}}})
				return cmd
			}, f.was},
			{"an update before the command was made", func(t *testing.T, reg *firebreak.Registry) *firebreak.Command {
				update(t, reg, after)
				return reg.Command("dep", f.before)
			}, f.is},
		} {
			t.Run(f.name+" after "+tt.says, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					require.Equal(t, tt.want, f.see(t, tt.prepare(t, newRegistry(t, firebreak.Config{}))))
				})
			})
		}
	}
}

func TestClassifyOfCodeStaysInForce(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	cmd := reg.Command("dep", firebreak.Config{Classify: firebreak.ExpectErrors(errBoom)})
	update(t, reg, forCommand("dep", firebreak.Config{Timeout: time.Minute}))
	_, err := firebreak.Do(t.Context(), cmd, fail)
	require.ErrorIs(t, err, errBoom)
	require.EqualValues(t, 1, total(cmd).Expected)
}

func TestEvidenceComparesWithTheErrorThreshold(t *testing.T) {
	for _, tt := range []struct {
		threshold float64
		want      int // failures in a row whose Wilson interval begins there
	}{{firebreak.Off, 6}, {50, 6}, {20, 2}, {90, 49}} {
		synctest.Test(t, func(t *testing.T) {
			cmd := newCommand(t, firebreak.Config{Evidence: firebreak.On, ErrorThresholdPercentage: tt.threshold, RequestVolumeThreshold: 1000})
			require.Equal(t, tt.want, failuresToOpen(t, cmd))
		})
	}
}

func TestWithAllRulesOffNothingTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{ErrorThresholdPercentage: firebreak.Off, RequestVolumeThreshold: 1, Timeout: time.Minute})
		require.Equal(t, "never", failuresToOpen(t, cmd))
		require.Equal(t, "never", slowCallsToOpen(t, cmd))
	})
}

// S70: the whole document, not the difference to the last one.
func TestADocumentTakesThePlaceOfTheLast(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{Timeout: 9 * time.Second})
	dep := reg.Dependency("users", firebreak.Config{MaxConcurrent: 9})
	get, put := dep.Command("users.get", firebreak.Config{Probes: 9}), dep.Command("users.put", firebreak.Config{})

	update(t, reg, firebreak.Document{
		Defaults:     firebreak.Config{Timeout: time.Second},
		Dependencies: map[string]firebreak.Config{"users": {MaxConcurrent: 1}},
		Commands:     map[string]firebreak.Config{"users.get": {Probes: 1, Timeout: 2 * time.Second}},
	})
	require.Equal(t, time.Second, put.Config().Timeout)
	require.Equal(t, 2*time.Second, get.Config().Timeout)
	require.Equal(t, 1, get.Config().Probes)
	require.Equal(t, 1, put.Config().MaxConcurrent)
	require.Equal(t, 1, put.Snapshot().Bulkhead.Limit)
	require.Equal(t, "document: command", get.Origins()["probes"])

	update(t, reg, forCommand("users.put", firebreak.Config{Probes: 5}))
	require.Equal(t, 9*time.Second, put.Config().Timeout)
	require.Equal(t, 9*time.Second, get.Config().Timeout)
	require.Equal(t, 9, get.Config().Probes)
	require.Equal(t, 5, put.Config().Probes)
	require.Equal(t, 9, put.Config().MaxConcurrent)
	require.Equal(t, 9, put.Snapshot().Bulkhead.Limit)
	require.Equal(t, "code: command", get.Origins()["probes"])
}

func TestIsolationIsForLife(t *testing.T) {
	semaphore, pool := firebreak.Config{Isolation: firebreak.SemaphoreIsolation}, firebreak.Config{Isolation: firebreak.PoolIsolation}
	for _, tt := range []struct {
		says        string
		code        firebreak.Config // of the dependency
		first, then firebreak.Document
		refuses     string
	}{
		{
			"to a pool", firebreak.Config{}, firebreak.Document{}, forDependency("dep", pool),
			`firebreak: update: dependency "dep": Isolation: is semaphore and stays so for life, not pool`,
		},
		{
			"to a pool, by defaults", firebreak.Config{}, firebreak.Document{}, firebreak.Document{Defaults: pool},
			`firebreak: update: dependency "dep": Isolation: is semaphore and stays so for life, not pool`,
		},
		{
			"from the pool of a document", firebreak.Config{}, forDependency("dep", pool), firebreak.Document{},
			`firebreak: update: dependency "dep": Isolation: is pool and stays so for life, not semaphore`,
		},
		{"to the same", pool, firebreak.Document{}, forDependency("dep", pool), ""},
		{"said elsewhere now", firebreak.Config{}, forDependency("dep", pool), firebreak.Document{Defaults: pool}, ""},
		{"of others", semaphore, firebreak.Document{}, firebreak.Document{Defaults: pool}, ""},
		{"of one that is not there yet", firebreak.Config{}, firebreak.Document{}, forDependency("other", pool), ""},
	} {
		reg := newRegistry(t, firebreak.Config{})
		update(t, reg, tt.first)
		cmd := reg.Dependency("dep", tt.code).Command("cmd", firebreak.Config{})
		isolation := cmd.Snapshot().Bulkhead.Isolation
		err := reg.Update(tt.then)
		if tt.refuses == "" {
			require.NoError(t, err, tt.says)
		} else {
			require.EqualError(t, err, tt.refuses, tt.says)
		}
		require.Equal(t, isolation, cmd.Snapshot().Bulkhead.Isolation, tt.says)
		require.Equal(t, isolation, cmd.Config().Isolation, tt.says)
	}
}

// Many dependencies, and the fault in one: none is changed.
func TestI15LastGoodSettingsStayWhenAnUpdateIsBad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		var told atomic.Int64
		reg.Observe(firebreak.Observer{Transition: func(firebreak.Transition) { told.Add(1) }})
		cmds := []*firebreak.Command{reg.Command("a", firebreak.Config{}), reg.Command("b", firebreak.Config{Probes: 3}), reg.Command("c", firebreak.Config{})}
		good := firebreak.Document{
			Defaults:     firebreak.Config{Timeout: 7 * time.Second},
			Dependencies: map[string]firebreak.Config{"a": {MaxConcurrent: 5}, "missing": {}},
			Commands:     map[string]firebreak.Config{"b": {Probes: 4}},
		}
		update(t, reg, good)
		trip(t, cmds[0])
		_, _ = firebreak.Do(t.Context(), cmds[1], succeed)
		now := func() (all []any) {
			for _, cmd := range cmds {
				c := cmd.Config()
				c.Classify = nil
				all = append(all, c, cmd.Origins(), cmd.Snapshot())
			}
			return append(all, reg.Document(), reg.Unclaimed(), told.Load())
		}
		before := now()

		bad := func(spoil func(*firebreak.Document)) {
			t.Helper()
			doc := firebreak.Document{ // all of this is good, and changes what it can
				Defaults:     firebreak.Config{Timeout: time.Minute, Window: time.Minute},
				Dependencies: map[string]firebreak.Config{"a": {MaxConcurrent: 1}, "b": {MaxConcurrent: 1}, "c": {}},
				Commands:     map[string]firebreak.Config{"a": {Mode: firebreak.ForceClosed}, "b": {Window: time.Hour}, "c": {}},
			}
			spoil(&doc)
			require.Error(t, reg.Update(doc))
			require.Equal(t, before, now())
		}
		for _, f := range configFields {
			for _, v := range f.bad() {
				bad(func(doc *firebreak.Document) { doc.Defaults = f.with(v) })
				bad(func(doc *firebreak.Document) { doc.Dependencies["c"] = f.with(v) })
				bad(func(doc *firebreak.Document) { doc.Commands["c"] = f.with(v) })
			}
			if f.dependency {
				bad(func(doc *firebreak.Document) { doc.Commands["c"] = f.with(f.good()[0]) })
			}
		}
		bad(func(doc *firebreak.Document) {
			doc.Commands["c"] = firebreak.Config{Classify: firebreak.ExpectErrors()}
		})
		bad(func(doc *firebreak.Document) {
			doc.Dependencies["c"] = firebreak.Config{Isolation: firebreak.PoolIsolation}
		})
		bad(func(doc *firebreak.Document) { doc.Commands["nobody"] = firebreak.Config{Probes: -9} })
	})
}

func TestNamesThatNobodyAskedForAreReportedAndKept(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	require.Empty(t, reg.Unclaimed())
	dep := reg.Dependency("users", firebreak.Config{})
	dep.Command("users.get", firebreak.Config{})
	update(t, reg, firebreak.Document{
		Dependencies: map[string]firebreak.Config{"users": {}, "orders": {MaxConcurrent: 3}},
		Commands:     map[string]firebreak.Config{"users.get": {}, "usrs.get": {Probes: 3}, "shards": {Probes: 4}, "orders": {Probes: 5}},
	})
	require.Equal(t, []string{`command "orders"`, `command "shards"`, `command "usrs.get"`, `dependency "orders"`}, reg.Unclaimed())

	require.Equal(t, 3, dep.Command("usrs.get", firebreak.Config{}).Config().Probes)
	require.Equal(t, []string{`command "orders"`, `command "shards"`, `dependency "orders"`}, reg.Unclaimed())
	keyed := dep.Keyed("shards", 2, firebreak.Config{})
	require.Equal(t, []string{`command "orders"`, `dependency "orders"`}, reg.Unclaimed())
	require.Equal(t, 4, keyed.Command("a").Config().Probes)
	cmd := reg.Command("orders", firebreak.Config{})
	require.Empty(t, reg.Unclaimed())
	require.Equal(t, 5, cmd.Config().Probes)
	require.Equal(t, 3, cmd.Snapshot().Bulkhead.Limit)

	update(t, reg, firebreak.Document{})
	require.Empty(t, reg.Unclaimed())
	require.Equal(t, 1, cmd.Config().Probes)
}

func TestUnclaimedNamesAreHarmless(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	update(t, reg, forCommand("a\nb", firebreak.Config{}))
	require.Equal(t, []string{`command "a\nb"`}, reg.Unclaimed())
}

// The caller may change what it gave and what it got; that is nobody's but its own.
func TestDocumentsAreCopied(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	cmd := reg.Command("dep", firebreak.Config{})
	given := firebreak.Document{
		Dependencies: map[string]firebreak.Config{"dep": {MaxConcurrent: 3}},
		Commands:     map[string]firebreak.Config{"dep": {Probes: 3}},
	}
	update(t, reg, given)
	spoil := func(doc firebreak.Document) {
		doc.Dependencies["dep"], doc.Dependencies["more"] = firebreak.Config{MaxConcurrent: 9}, firebreak.Config{}
		doc.Commands["dep"], doc.Commands["more"] = firebreak.Config{Probes: 9}, firebreak.Config{}
	}
	got := reg.Document()
	require.Equal(t, given, got)
	spoil(given)
	spoil(got)
	require.Equal(t, 3, cmd.Config().Probes)
	require.Equal(t, 3, cmd.Config().MaxConcurrent)
	require.Empty(t, reg.Unclaimed())

	// To change and give back, S70: also where there was nothing.
	got = reg.Document()
	got.Defaults.Timeout = time.Minute
	update(t, reg, got)
	require.Equal(t, time.Minute, cmd.Config().Timeout)
	require.Equal(t, 3, cmd.Config().Probes)
	fresh := newRegistry(t, firebreak.Config{}).Document()
	fresh.Commands["dep"] = firebreak.Config{Probes: 2}
	fresh.Dependencies["dep"] = firebreak.Config{}
	update(t, reg, fresh)
	require.Equal(t, 2, cmd.Config().Probes)
}

// TestI14: of three settings, all are those of one document in every call, though
// each call puts another document in force while it runs.
func TestI14ReconfigurationSplitsNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{ErrorThresholdPercentage: firebreak.Off})
		cmd := reg.Command("dep", firebreak.Config{})
		documents := []firebreak.Document{
			forCommand("dep", firebreak.Config{Timeout: time.Second, RecoverPanics: firebreak.Off, MaxFallbacks: firebreak.Off}),
			forCommand("dep", firebreak.Config{Timeout: 2 * time.Second, RecoverPanics: firebreak.On, MaxFallbacks: firebreak.Off}),
			forCommand("dep", firebreak.Config{Timeout: 3 * time.Second, RecoverPanics: firebreak.On, MaxFallbacks: firebreak.Unlimited}),
		}
		update(t, reg, documents[0])
		oneCall := func(r *rand.Rand) (saw string) {
			defer func() {
				if recover() != nil {
					saw += ": a panic"
				}
			}()
			v, err := firebreak.Do(t.Context(), cmd, func(ctx context.Context) (int, error) {
				at, _ := ctx.Deadline()
				saw = time.Until(at).String()
				assert.NoError(t, reg.Update(documents[r.IntN(len(documents))]))
				panic("now")
			}, firebreak.Static(2))
			return fmt.Sprint(saw, ": ", v, ", ", err)
		}
		var wg sync.WaitGroup
		var seen [3]atomic.Int64
		for seed := range uint64(4) {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, 14))
				for range 300 {
					switch saw := oneCall(r); saw {
					case "1s: a panic":
						seen[0].Add(1)
					case "2s: 0, run panicked: now":
						seen[1].Add(1)
					case "3s: 2, <nil>":
						seen[2].Add(1)
					default:
						t.Errorf("a call of two documents: %s", saw)
					}
				}
			})
		}
		wg.Wait()
		for i := range seen {
			require.NotZero(t, seen[i].Load(), "of document %d", i)
		}
		require.EqualValues(t, 1200, total(cmd).Panic)
	})
}

// S7, in either isolation: the deadline that the call began with holds.
func TestACallUnderWayKeepsItsTimeout(t *testing.T) {
	for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		for _, then := range []time.Duration{time.Second, time.Minute, firebreak.Off} {
			synctest.Test(t, func(t *testing.T) {
				reg := newRegistry(t, firebreak.Config{Timeout: 10 * time.Second, Isolation: isolation})
				cmd := reg.Command("dep", firebreak.Config{})
				began := time.Now()
				err := cmd.Run(t.Context(), func(ctx context.Context) error {
					update(t, reg, forCommand("dep", firebreak.Config{Timeout: then}))
					return hang(ctx)
				})
				require.ErrorIs(t, err, firebreak.ErrTimeout)
				require.Equal(t, 10*time.Second, time.Since(began))
				synctest.Wait()
			})
		}
	}
}

// S7: what opens a circuit is what the failing call began with.
func TestACallUnderWayIsJudgedByTheThresholdsItBeganWith(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	cmd := reg.Command("dep", firebreak.Config{})
	failing := func(before func()) {
		_ = cmd.Run(t.Context(), func(context.Context) error { before(); return errBoom })
	}
	failing(func() { update(t, reg, forCommand("dep", firebreak.Config{RequestVolumeThreshold: 1})) })
	require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
	failing(func() { update(t, reg, firebreak.Document{}) })
	require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
}

// S7: fallbacks are those of the settings that the call began with.
func TestACallUnderWayKeepsItsFallbacks(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	cmd := reg.Command("dep", firebreak.Config{})
	off := forCommand("dep", firebreak.Config{MaxFallbacks: firebreak.Off})
	v, err := firebreak.Do(t.Context(), cmd, func(context.Context) (int, error) { update(t, reg, off); return 0, errBoom }, firebreak.Static(2))
	require.NoError(t, err)
	require.Equal(t, 2, v)
	_, err = firebreak.Do(t.Context(), cmd, func(context.Context) (int, error) { update(t, reg, firebreak.Document{}); return 0, errBoom }, firebreak.Static(2))
	require.ErrorIs(t, err, errBoom)
}

// A caller who waits does so for as long as it set out to.
func TestACallThatWaitsKeepsItsMaxWait(t *testing.T) {
	for _, then := range []time.Duration{time.Second, time.Minute, firebreak.Off} {
		synctest.Test(t, func(t *testing.T) {
			reg := newRegistry(t, firebreak.Config{MaxConcurrent: 1, MaxWait: 10 * time.Second, Timeout: firebreak.Off})
			cmd := reg.Command("dep", firebreak.Config{})
			call := begin(t, cmd)
			go func() {
				synctest.Wait()
				assert.NoError(t, reg.Update(forDependency("dep", firebreak.Config{MaxWait: then, QueueSize: firebreak.Off})))
			}()
			began := time.Now()
			_, err := firebreak.Do(t.Context(), cmd, succeed)
			require.ErrorIs(t, err, firebreak.ErrRejected)
			require.Equal(t, 10*time.Second, time.Since(began))
			end(call)
		})
	}
}

func TestStateCountersAndPermitsSurviveAnUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		dep := reg.Dependency("dep", firebreak.Config{MaxConcurrent: 2})
		open, closed := dep.Command("open", firebreak.Config{}), dep.Command("closed", firebreak.Config{})
		trip(t, open)
		for range 3 {
			_, _ = firebreak.Do(t.Context(), closed, fail)
		}
		call := begin(t, closed)
		before, beforeOpen := closed.Snapshot(), open.Snapshot()

		update(t, reg, firebreak.Document{
			Defaults:     firebreak.Config{Timeout: time.Minute, Probes: 5, SleepWindow: time.Hour, RequestVolumeThreshold: 5},
			Dependencies: map[string]firebreak.Config{"dep": {MaxConcurrent: 1, MaxWait: time.Millisecond}},
		})
		require.Equal(t, beforeOpen.Evidence, open.Snapshot().Evidence)
		require.Equal(t, firebreak.StateOpen, open.Snapshot().State)
		after := closed.Snapshot()
		require.Equal(t, before.Total, after.Total)
		require.Equal(t, before.Window, after.Window)
		require.InDelta(t, before.ErrorPercentage, after.ErrorPercentage, 0)
		require.Equal(t, before.RunHistogram, after.RunHistogram)
		require.Equal(t, 1, after.Bulkhead.InFlight)
		_, err := firebreak.Do(t.Context(), closed, succeed)
		require.ErrorIs(t, err, firebreak.ErrRejected, "the permit is still out")
		end(call)

		// The failures that were there count on: one more makes four of five.
		_, _ = firebreak.Do(t.Context(), closed, fail)
		require.Equal(t, firebreak.StateOpen, closed.Snapshot().State)
	})
}

func TestTheSameDocumentTwiceChangesNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{})
		doc := forCommand("dep", firebreak.Config{Window: time.Minute, Mode: firebreak.ForceClosed})
		update(t, reg, doc)
		_, _ = firebreak.Do(t.Context(), cmd, fail)
		told := 0
		reg.Observe(firebreak.Observer{Transition: func(firebreak.Transition) { told++ }})
		before := cmd.Snapshot()
		update(t, reg, doc)
		require.Equal(t, before, cmd.Snapshot())
		require.Zero(t, told)
	})
}

// S71.
func TestAnotherWindowBeginsEmptyAndTheStateStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		dep := reg.Dependency("dep", firebreak.Config{})
		cmd, open := dep.Command("cmd", firebreak.Config{}), dep.Command("open", firebreak.Config{})
		trip(t, open)
		for range 17 {
			_, _ = firebreak.Do(t.Context(), cmd, fail)
		}
		calls := []*firebreak.Call{begin(t, cmd), begin(t, cmd), begin(t, cmd)}
		end(calls[:2]...)
		before := cmd.Snapshot()
		require.EqualValues(t, 19, before.Window.Calls())
		require.Equal(t, 3, before.MaxInFlight)
		require.Equal(t, 3, before.Bulkhead.MaxInFlight)

		update(t, reg, firebreak.Document{Defaults: firebreak.Config{Window: 20 * time.Second}})
		after := cmd.Snapshot()
		require.Zero(t, after.Window)
		require.Zero(t, after.ErrorPercentage)
		require.Equal(t, 1, after.MaxInFlight)
		require.Equal(t, 1, after.Bulkhead.MaxInFlight)
		require.Equal(t, before.Total, after.Total)
		require.Equal(t, before.RunHistogram, after.RunHistogram)
		require.Equal(t, before.RunLatency, after.RunLatency, "of the last minute, whatever the window")
		require.Equal(t, 1, after.InFlight)
		end(calls[2])

		// All 19 are forgotten.
		_, _ = firebreak.Do(t.Context(), cmd, fail)
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
		// Of the call that began before, the circuit knows nothing.
		require.InDelta(t, 100.0, cmd.Snapshot().ErrorPercentage, 0)
		require.EqualValues(t, 2, cmd.Snapshot().Window.Calls())
		for range 18 {
			_, _ = firebreak.Do(t.Context(), cmd, fail)
		}
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
		_, _ = firebreak.Do(t.Context(), cmd, fail)
		require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)

		require.Equal(t, firebreak.StateOpen, open.Snapshot().State)
		require.Equal(t, "error percentage", open.Snapshot().Evidence.Rule)
		time.Sleep(5*time.Second - 1) // S35
		_, err := firebreak.Do(t.Context(), open, succeed)
		require.ErrorIs(t, err, firebreak.ErrOpen)
		time.Sleep(time.Nanosecond)
		_, err = firebreak.Do(t.Context(), open, succeed)
		require.NoError(t, err)
		require.Equal(t, firebreak.StateClosed, open.Snapshot().State)
	})
}

// S71: calls that began before another window are counted, and judged no more.
func TestACallThatBeganBeforeAnotherWindowIsCountedAndNotJudged(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	cmd := reg.Command("dep", firebreak.Config{RequestVolumeThreshold: 1, ConsecutiveFailures: 1})
	_ = cmd.Run(t.Context(), func(context.Context) error {
		update(t, reg, forCommand("dep", firebreak.Config{Window: time.Minute}))
		return errBoom
	})
	s := cmd.Snapshot()
	require.Equal(t, firebreak.StateClosed, s.State)
	require.Zero(t, s.ErrorPercentage)
	require.EqualValues(t, 1, s.Window.Failure)
	require.EqualValues(t, 1, s.Total.Failure)
	_, _ = firebreak.Do(t.Context(), cmd, fail)
	require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
}

// S71: failures in a row are of the window too.
func TestAnotherWindowForgetsFailuresInARow(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	cmd := reg.Command("dep", firebreak.Config{ConsecutiveFailures: 2})
	_, _ = firebreak.Do(t.Context(), cmd, fail)
	update(t, reg, forCommand("dep", firebreak.Config{Window: time.Minute}))
	_, _ = firebreak.Do(t.Context(), cmd, fail)
	require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
	_, _ = firebreak.Do(t.Context(), cmd, fail)
	require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
}

// What was slow by another setting is not held against the calls to come.
func TestSlowCallsAreForgottenWhenNoneIsSlowAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{
			Window: time.Hour, Timeout: time.Minute, RequestVolumeThreshold: 5, ErrorThresholdPercentage: firebreak.Off, SlowCallDuration: time.Second,
		})
		for range 4 {
			_, _ = firebreak.Do(t.Context(), cmd, twoSeconds)
		}
		update(t, reg, forCommand("dep", firebreak.Config{SlowCallDuration: firebreak.Off}))
		for range 2 {
			_, _ = firebreak.Do(t.Context(), cmd, fail)
		}
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
	})
}

// S71: a probe under way still decides.
func TestAnotherWindowWhileAProbeRuns(t *testing.T) {
	for _, tt := range []struct {
		run  func(context.Context) (int, error)
		want firebreak.State
	}{{succeed, firebreak.StateClosed}, {fail, firebreak.StateOpen}} {
		synctest.Test(t, func(t *testing.T) {
			reg := newRegistry(t, firebreak.Config{})
			cmd := reg.Command("dep", firebreak.Config{})
			trip(t, cmd)
			time.Sleep(5 * time.Second)
			_, _ = firebreak.Do(t.Context(), cmd, func(ctx context.Context) (int, error) {
				update(t, reg, forCommand("dep", firebreak.Config{Window: time.Minute}))
				require.Equal(t, firebreak.StateHalfOpen, cmd.Snapshot().State)
				_, err := firebreak.Do(ctx, cmd, succeed)
				require.ErrorIs(t, err, firebreak.ErrOpen, "its place is still its own")
				return tt.run(ctx)
			})
			require.Equal(t, tt.want, cmd.Snapshot().State)
		})
	}
}

// S71.
func TestSleepWindowAndProbesHoldFromTheNextOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{})
		trip(t, cmd)
		update(t, reg, forCommand("dep", firebreak.Config{SleepWindow: time.Minute, Probes: 3}))
		require.Equal(t, 5*time.Second, sleepOf(cmd))
		time.Sleep(5 * time.Second)
		probe := begin(t, cmd)
		_, err := firebreak.Do(t.Context(), cmd, succeed)
		require.ErrorIs(t, err, firebreak.ErrOpen, "one probe, as when it opened")
		require.ErrorIs(t, probe.Settle(errBoom), errBoom)
		probe.End()

		require.Equal(t, time.Minute, sleepOf(cmd))
		time.Sleep(time.Minute)
		probes := []*firebreak.Call{begin(t, cmd), begin(t, cmd), begin(t, cmd)}
		_, err = firebreak.Do(t.Context(), cmd, succeed)
		require.ErrorIs(t, err, firebreak.ErrOpen)
		end(probes...)
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
	})
}

// S38, S71: what was forced leaves a closed circuit with an empty window.
func TestModeHoldsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{})
		var told []string
		reg.Observe(firebreak.Observer{Transition: func(n firebreak.Transition) {
			told = append(told, fmt.Sprintf("%v: %v to %v", n.Mode, n.From, n.To))
		}})
		mode := func(m firebreak.Mode) { t.Helper(); update(t, reg, forCommand("dep", firebreak.Config{Mode: m})) }
		answers := func(want error) {
			t.Helper()
			_, err := firebreak.Do(t.Context(), cmd, succeed)
			require.ErrorIs(t, err, want)
		}
		call := begin(t, cmd)
		mode(firebreak.ForceOpen)
		require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
		answers(firebreak.ErrOpen)
		time.Sleep(time.Hour)
		answers(firebreak.ErrOpen)
		require.NoError(t, call.Settle(nil), "what runs goes on")
		call.End()

		mode(firebreak.ForceClosed)
		for range 50 {
			_, err := firebreak.Do(t.Context(), cmd, fail)
			require.ErrorIs(t, err, errBoom)
		}
		require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
		require.InDelta(t, 100, cmd.Snapshot().ErrorPercentage, 0)

		update(t, reg, firebreak.Document{}) // auto, as the code has it
		require.Zero(t, cmd.Snapshot().ErrorPercentage)
		answers(nil)
		failUntilOpen(t, cmd)
		answers(firebreak.ErrOpen)

		mode(firebreak.Shadow)
		require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State, "Shadow begins no era")
		answers(nil)
		require.EqualValues(t, 1, total(cmd).WouldShortCircuit)
		mode(firebreak.Auto)
		answers(firebreak.ErrOpen)

		require.Equal(t, []string{
			"force_open: closed to open", "force_closed: open to closed", "auto: closed to closed", "auto: closed to open",
			"shadow: open to open", "auto: open to open",
		}, told)
	})
}

// S41: waiters go in, in order, before Update returns.
func TestMaxConcurrentHoldsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{MaxConcurrent: 1, MaxWait: time.Hour, QueueSize: 10, Timeout: firebreak.Off})
		cmd := reg.Command("dep", firebreak.Config{})
		limit := func(n int) { t.Helper(); update(t, reg, forDependency("dep", firebreak.Config{MaxConcurrent: n})) }
		first := begin(t, cmd)
		order := make(chan int, 10)
		leave := make(chan bool)
		for i := range 5 {
			go cmd.Run(context.Background(), func(context.Context) error {
				order <- i
				<-leave
				return nil
			})
			synctest.Wait()
		}
		require.Equal(t, 5, cmd.Snapshot().Bulkhead.Queued)

		limit(3)
		b := cmd.Snapshot().Bulkhead
		require.Equal(t, 3, b.InFlight, "before anything else happens")
		require.Equal(t, 3, b.Queued)
		synctest.Wait()
		require.ElementsMatch(t, []int{0, 1}, []int{<-order, <-order})

		limit(1) // in flight only falls
		require.Equal(t, 3, cmd.Snapshot().Bulkhead.InFlight)
		leave <- true
		leave <- true
		synctest.Wait()
		require.Equal(t, 1, cmd.Snapshot().Bulkhead.InFlight)
		require.Empty(t, order)
		end(first)
		synctest.Wait()
		require.Equal(t, 2, <-order)

		limit(firebreak.Unlimited)
		require.Equal(t, 3, cmd.Snapshot().Bulkhead.InFlight)
		require.Equal(t, firebreak.Unlimited, cmd.Snapshot().Bulkhead.Limit)
		synctest.Wait()
		require.ElementsMatch(t, []int{3, 4}, []int{<-order, <-order})
		close(leave)
		synctest.Wait()
	})
}

// An observer may call anything, Update too, also while it is told of what an
// Update did.
func TestAnObserverMayUpdate(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	cmd, other := reg.Command("dep", firebreak.Config{}), reg.Command("other", firebreak.Config{})
	var told []string
	reg.Observe(firebreak.Observer{Transition: func(n firebreak.Transition) {
		told = append(told, fmt.Sprintf("%s %v", n.Command, n.Mode))
		switch {
		case n.To == firebreak.StateOpen && n.Mode == firebreak.Auto:
			update(t, reg, forCommand("dep", firebreak.Config{Mode: firebreak.ForceClosed}))
		case n.Command == "dep" && n.Mode == firebreak.ForceClosed:
			doc := reg.Document()
			doc.Commands["other"] = firebreak.Config{Mode: firebreak.Shadow}
			update(t, reg, doc)
		}
	}})
	for range 20 {
		_, _ = firebreak.Do(t.Context(), cmd, fail)
	}
	require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
	require.Equal(t, firebreak.ForceClosed, cmd.Snapshot().Mode)
	require.Equal(t, firebreak.Shadow, other.Snapshot().Mode)
	require.ElementsMatch(t, []string{"dep auto", "dep force_closed", "other shadow"}, told)
}

func TestUpdateAfterShutdown(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	cmd := reg.Command("dep", firebreak.Config{})
	require.NoError(t, reg.Shutdown(t.Context()))
	update(t, reg, firebreak.Document{
		Defaults:     firebreak.Config{Mode: firebreak.ForceClosed, Window: time.Minute},
		Dependencies: map[string]firebreak.Config{"dep": {MaxConcurrent: firebreak.Unlimited, MaxWait: time.Minute}},
	})
	_, err := firebreak.Do(t.Context(), cmd, succeed)
	require.ErrorIs(t, err, firebreak.ErrShutdown)
}

// Of concurrent Updates the last wins: what holds in the end is one document, all
// of it and in every command, and no call and no permit was lost meanwhile.
func TestConcurrentUpdates(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{ErrorThresholdPercentage: firebreak.Off})
	shared := reg.Dependency("shared", firebreak.Config{})
	var cmds []*firebreak.Command
	for i := range 4 {
		cmds = append(cmds, shared.Command(fmt.Sprint("cmd", i), firebreak.Config{}))
	}
	keyed := shared.Keyed("keyed", 3, firebreak.Config{})
	document := func(n int) firebreak.Document {
		d := firebreak.Document{
			Defaults:     firebreak.Config{Probes: n, Window: time.Duration(n) * time.Second, Mode: []firebreak.Mode{firebreak.Auto, firebreak.ForceClosed, firebreak.Shadow}[n%3]},
			Dependencies: map[string]firebreak.Config{"shared": {MaxConcurrent: n, MaxWait: []time.Duration{firebreak.Off, time.Minute}[n%2]}},
			Commands:     map[string]firebreak.Config{"keyed": {MaxFallbacks: n}},
		}
		for i := range cmds {
			d.Commands[fmt.Sprint("cmd", i)] = firebreak.Config{MaxFallbacks: n}
		}
		return d
	}
	const callers, calls = 4, 300
	var callersLeft atomic.Int64
	callersLeft.Store(callers)
	var wg sync.WaitGroup
	for seed := range uint64(callers) {
		wg.Go(func() {
			defer callersLeft.Add(-1)
			r := rand.New(rand.NewPCG(seed, 15))
			for range calls {
				cmd := keyed.Command(fmt.Sprint(r.IntN(5)))
				if i := r.IntN(5); i < len(cmds) {
					cmd = cmds[i]
				}
				run := succeed
				if r.IntN(2) == 0 {
					run = fail
				}
				_, _ = firebreak.Do(context.Background(), cmd, run)
			}
		})
	}
	for seed := range uint64(2) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 16))
			for callersLeft.Load() > 0 {
				switch r.IntN(5) {
				case 0:
					assert.Error(t, reg.Update(firebreak.Document{Defaults: firebreak.Config{Probes: -9}}))
				case 1:
					assert.NoError(t, reg.Update(reg.Document()))
				default:
					assert.NoError(t, reg.Update(document(1+r.IntN(20))))
				}
				for cmd := range reg.Commands() {
					c := cmd.Config()
					assert.True(t, c.Probes == c.MaxFallbacks && c.MaxFallbacks == c.MaxConcurrent || c.MaxConcurrent == 100,
						"of two documents: %d probes, %d fallbacks, %d permits", c.Probes, c.MaxFallbacks, c.MaxConcurrent)
				}
			}
		})
	}
	wg.Wait()
	update(t, reg, document(7))
	n := keyed.Snapshot().Total.Calls()
	for _, cmd := range cmds {
		n += total(cmd).Calls()
	}
	require.EqualValues(t, callers*calls, n)
	for cmd := range reg.Commands() {
		require.Equal(t, 7, cmd.Config().MaxFallbacks)
		require.Equal(t, 7, cmd.Snapshot().Bulkhead.Limit)
		require.Equal(t, firebreak.ForceClosed, cmd.Snapshot().Mode)
	}
}
