package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// A configField is a field of Config as the documentation has it, with values of
// it. A field that has no row fails TestEveryFieldHasARow.
type configField struct {
	name       string
	key        string // in text; "" if it is for code only
	dependency bool   // belongs to a dependency
	off        bool
	unlimited  bool
	byDefault  any // as valueOf gives it
	kind       fieldKind
}

// A fieldKind is what fields of one type have in common.
type fieldKind struct {
	good, bad []any      // the first two that are good differ from every default, unless there are only two
	text      []textCase // beyond what MarshalJSON writes
	badText   []string   // JSON
}

type textCase struct {
	json string
	want any
}

var configFields = []configField{
	{name: "Isolation", key: "isolation", dependency: true, byDefault: firebreak.SemaphoreIsolation, kind: isolations},
	{name: "MaxConcurrent", key: "maxConcurrent", dependency: true, unlimited: true, byDefault: 100, kind: numbers},
	{name: "MaxWait", key: "maxWait", dependency: true, off: true, byDefault: time.Duration(firebreak.Off), kind: durations},
	{name: "QueueSize", key: "queueSize", dependency: true, off: true, byDefault: firebreak.Off, kind: numbers},
	{name: "Timeout", key: "timeout", off: true, byDefault: time.Second, kind: durations},
	{name: "MaxFallbacks", key: "maxFallbacks", off: true, unlimited: true, byDefault: 100, kind: numbers},
	{name: "RecoverPanics", key: "recoverPanics", off: true, byDefault: firebreak.Switch(firebreak.Off), kind: switches},
	{name: "CountCallerDeadlines", key: "countCallerDeadlines", off: true, byDefault: firebreak.Switch(firebreak.Off), kind: switches},
	{name: "CountRejections", key: "countRejections", off: true, byDefault: firebreak.Switch(firebreak.Off), kind: switches},
	{name: "RequestLog", key: "requestLog", off: true, byDefault: firebreak.Switch(firebreak.Off), kind: switches},
	{name: "Classify", byDefault: firebreak.Failure, kind: functions},
	{name: "Mode", key: "mode", byDefault: firebreak.Auto, kind: modes},
	{name: "Window", key: "window", byDefault: 10 * time.Second, kind: durations},
	{name: "RequestVolumeThreshold", key: "requestVolumeThreshold", byDefault: 20, kind: numbers},
	{name: "ErrorThresholdPercentage", key: "errorThresholdPercentage", off: true, byDefault: 50.0, kind: percentages},
	{name: "ConsecutiveFailures", key: "consecutiveFailures", off: true, byDefault: firebreak.Off, kind: numbers},
	{name: "SlowCallDuration", key: "slowCallDuration", off: true, byDefault: time.Duration(firebreak.Off), kind: durations},
	{name: "SlowCallThresholdPercentage", key: "slowCallThresholdPercentage", byDefault: 50.0, kind: percentages},
	{name: "Evidence", key: "evidence", off: true, byDefault: firebreak.Switch(firebreak.Off), kind: switches},
	{name: "SleepWindow", key: "sleepWindow", byDefault: 5 * time.Second, kind: durations},
	{name: "MaxSleepWindow", key: "maxSleepWindow", off: true, byDefault: time.Duration(firebreak.Off), kind: durations},
	{name: "SleepJitterPercentage", key: "sleepJitterPercentage", off: true, byDefault: float64(firebreak.Off), kind: percentages},
	{name: "Probes", key: "probes", byDefault: 1, kind: numbers},
	{name: "BatchWindow", key: "batchWindow", byDefault: 10 * time.Millisecond, kind: durations},
	{name: "MaxBatch", key: "maxBatch", unlimited: true, byDefault: firebreak.Unlimited, kind: numbers},
}

var (
	numbers = fieldKind{
		good: []any{7, 8, 1, 2, math.MaxInt32 - 1, math.MaxInt32},
		bad:  []any{-3, -100, math.MinInt, overInt32()},
		text: []textCase{{"3", 3}, {"3.0", 3}, {"3e2", 300}},
		badText: []string{
			"0", "-0", "-1", "-2", "1.5", "2147483648", "1e10", "1e400", "-1e400", "1e-400",
			"123456789012345678901234567890", `"20"`, `"many"`, `""`, "true", "null", "[]", "[1]", "{}", `{"n":1}`,
		},
	}
	durations = fieldKind{
		good: []any{3 * time.Second, 4 * time.Second, 10 * time.Microsecond, 250 * time.Millisecond, time.Duration(math.MaxInt64)},
		bad:  []any{time.Duration(1), time.Duration(300), 10*time.Microsecond - 1, time.Duration(-3), -time.Second, time.Duration(math.MinInt64)},
		text: []textCase{
			{`"250ms"`, 250 * time.Millisecond}, {`"1h30m"`, 90 * time.Minute}, {`"10us"`, 10 * time.Microsecond},
			{`"10µs"`, 10 * time.Microsecond}, {`"1.5s"`, 1500 * time.Millisecond},
		},
		badText: []string{
			"0", "300", "-1", "1.5", "1e400", `"0s"`, `"0"`, `"300"`, `"-1ns"`, `"-2ns"`, `"-1s"`, `"9999ns"`, `"1 s"`, `"1d"`, `"2562048h"`,
			`"soon"`, `""`, `"unlimited"`, `"Off"`, "true", "null", "[]", `["1s"]`, "{}", `{"s":1}`,
		},
	}
	percentages = fieldKind{
		good: []any{33.3, 66.6, math.SmallestNonzeroFloat64, 1.0, 99.9, 100.0},
		bad:  []any{-0.5, -3.0, math.Nextafter(100, 101), 101.0, math.NaN(), math.Inf(1), math.Inf(-1), -math.MaxFloat64},
		text: []textCase{{"50", 50.0}, {"5e1", 50.0}, {"0.1", 0.1}},
		badText: []string{
			"0", "0.0", "-1", "-2", "-0.5", "100.1", "101", "1e400", `"50"`, `"50%"`, `"unlimited"`, `""`, "true", "null", "[]", "{}",
		},
	}
	switches = fieldKind{
		good:    []any{firebreak.On, firebreak.Switch(firebreak.Off)},
		bad:     []any{firebreak.Switch(2), firebreak.Switch(-3), firebreak.Switch(math.MaxInt8), firebreak.Switch(math.MinInt8)},
		badText: []string{"0", "1", `"on"`, `"off"`, `"yes"`, `"true"`, `"unlimited"`, `""`, "null", "[]", "{}"},
	}
	isolations = fieldKind{
		good:    []any{firebreak.PoolIsolation, firebreak.SemaphoreIsolation},
		bad:     []any{firebreak.Isolation(3), firebreak.Isolation(255)},
		badText: []string{`"thread"`, `"Pool"`, `""`, "1", "true", "null", "[]", "{}"},
	}
	modes = fieldKind{
		good:    []any{firebreak.Shadow, firebreak.ForceClosed, firebreak.ForceOpen, firebreak.Auto},
		bad:     []any{firebreak.Mode(5), firebreak.Mode(255)},
		badText: []string{`"open"`, `"Auto"`, `"ForceOpen"`, `""`, "1", "true", "null", "[]", "{}"},
	}
	functions = fieldKind{good: []any{
		func(error) firebreak.Verdict { return firebreak.Expected },
		func(error) firebreak.Verdict { return firebreak.Ignored },
	}}
)

// overInt32 is no constant, for the sake of machines whose int has 32 bits; there
// it is negative and as bad.
func overInt32() int {
	n := math.MaxInt32
	n++
	return n
}

// good and bad are the values that the field may have, and some that it may not.
func (f configField) good() []any {
	good := f.kind.good
	if f.off && f.kind.good[len(good)-1] != f.named(firebreak.Off) {
		good = append(good[:len(good):len(good)], f.named(firebreak.Off))
	}
	if f.unlimited {
		good = append(good[:len(good):len(good)], f.named(firebreak.Unlimited))
	}
	return good
}

func (f configField) bad() []any {
	bad := f.kind.bad[:len(f.kind.bad):len(f.kind.bad)]
	switch f.kind.good[0].(type) {
	case int, float64, time.Duration, firebreak.Switch:
		if !f.off {
			bad = append(bad, f.named(firebreak.Off))
		}
		if !f.unlimited {
			bad = append(bad, f.named(firebreak.Unlimited))
		}
	}
	return bad
}

// named is Off or Unlimited as a value of the field's type.
func (f configField) named(n int) any {
	return reflect.ValueOf(n).Convert(reflect.TypeOf(f.kind.good[0])).Interface()
}

// with is a Config that says this field alone.
func (f configField) with(v any) (c firebreak.Config) {
	f.set(&c, v)
	return c
}

func (f configField) set(c *firebreak.Config, v any) {
	reflect.ValueOf(c).Elem().FieldByName(f.name).Set(reflect.ValueOf(v))
}

// valueOf is what c says of the field; of a function, what that says.
func (f configField) valueOf(c firebreak.Config) any {
	if f.name == "Classify" {
		if c.Classify == nil {
			return nil
		}
		return c.Classify(errBoom)
	}
	return reflect.ValueOf(c).FieldByName(f.name).Interface()
}

// origin is the field's key in Origins.
func (f configField) origin() string {
	if f.key == "" {
		return f.name
	}
	return f.key
}

// panicText runs f, which must panic, and returns with what.
func panicText(t *testing.T, f func()) (text string) {
	t.Helper()
	defer func() {
		t.Helper()
		r := recover()
		require.NotNil(t, r, "no panic")
		text = fmt.Sprint(r)
	}()
	f()
	return ""
}

func TestEveryFieldHasARow(t *testing.T) {
	config := reflect.TypeFor[firebreak.Config]()
	require.Len(t, configFields, config.NumField(), "configFields must have a row for each field of Config")
	for i, f := range configFields {
		require.Equal(t, config.Field(i).Name, f.name)
		key, _, _ := strings.Cut(config.Field(i).Tag.Get("json"), ",")
		if f.key == "" {
			require.Equal(t, "-", key, f.name)
		} else {
			require.Equal(t, f.key, key, f.name)
		}
		require.NotEqual(t, f.valueOf(f.with(f.good()[0])), f.valueOf(f.with(f.good()[1])), f.name)
	}
}

func TestDefaults(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{})
	c, origins := cmd.Config(), cmd.Origins()
	require.Len(t, origins, len(configFields))
	for _, f := range configFields {
		assert.Equal(t, f.byDefault, f.valueOf(c), f.name)
		assert.Equal(t, "default", origins[f.origin()], f.name)
	}
}

func TestConfigSaysEveryField(t *testing.T) {
	all := reflect.ValueOf(newCommand(t, firebreak.Config{}).Config())
	for i := range all.NumField() {
		assert.False(t, all.Field(i).IsZero(), all.Type().Field(i).Name)
	}
}

func TestClassifyOfConfigCanBeCalled(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{})
	require.Equal(t, firebreak.Failure, cmd.Config().Classify(errBoom))

	notFound := errors.New("not found")
	cmd = newCommand(t, firebreak.Config{Classify: firebreak.ExpectErrors(notFound)})
	require.Equal(t, firebreak.Expected, cmd.Config().Classify(fmt.Errorf("user 7: %w", notFound)))
	require.Equal(t, firebreak.Failure, cmd.Config().Classify(errBoom))
}

func TestHystrixDefaults(t *testing.T) {
	c := firebreak.NewRegistry(firebreak.HystrixDefaults()).Command("dep", firebreak.Config{}).Config()
	differs := map[string]any{
		"Isolation": firebreak.PoolIsolation, "MaxConcurrent": 10, "MaxFallbacks": 10,
		"RecoverPanics": firebreak.On, "CountRejections": firebreak.On, "RequestLog": firebreak.On,
	}
	for _, f := range configFields {
		want := f.byDefault
		if d, ok := differs[f.name]; ok {
			want = d
		}
		assert.Equal(t, want, f.valueOf(c), f.name)
	}
}

func TestGoodValuesAreTakenByEveryConstructor(t *testing.T) {
	for _, f := range configFields {
		for _, v := range f.good() {
			c, want := f.with(v), f.valueOf(f.with(v))
			took := func(cmd *firebreak.Command) {
				t.Helper()
				assert.Equal(t, want, f.valueOf(cmd.Config()), "%s: %v", f.name, v)
			}
			took(firebreak.NewRegistry(c).Command("cmd", firebreak.Config{}))
			took(firebreak.NewRegistry(firebreak.Config{}).Command("cmd", c))
			took(firebreak.NewRegistry(firebreak.Config{}).Dependency("dep", c).Command("cmd", firebreak.Config{}))
			if f.dependency {
				continue
			}
			took(firebreak.NewRegistry(firebreak.Config{}).Dependency("dep", firebreak.Config{}).Command("cmd", c))
			took(firebreak.NewRegistry(firebreak.Config{}).Dependency("dep", firebreak.Config{}).Keyed("cmd", 1, c).Command("key"))
		}
	}
}

func TestBadValuesPanicWithNameAndField(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	dep := reg.Dependency("dep", firebreak.Config{})
	for _, f := range configFields {
		for _, v := range f.bad() {
			c := f.with(v)
			panics := func(who string, construct func()) {
				t.Helper()
				text := panicText(t, construct)
				assert.Contains(t, text, "firebreak: "+who, "%s: %v", f.name, v)
				assert.Contains(t, text, f.name+": ", "%s: %v", f.name, v)
			}
			panics("registry", func() { firebreak.NewRegistry(c) })
			panics(`dependency "users"`, func() { reg.Dependency("users", c) })
			panics(`command "users.get"`, func() { dep.Command("users.get", c) })
			panics(`keyed command "users.get"`, func() { dep.Keyed("users.get", 1, c) })
			panics(`command "users.get"`, func() { reg.Command("users.get", c) })
		}
	}
	for range reg.Commands() {
		t.Fatal("a constructor that panicked left a command behind")
	}
	reg.Command("users.get", firebreak.Config{MaxConcurrent: 3, Timeout: time.Minute}) // nor did it leave a dependency
}

func TestAllFaultsOfAConfigAreNamed(t *testing.T) {
	bad := firebreak.Config{MaxConcurrent: -7, Timeout: 300, Probes: firebreak.Unlimited, ErrorThresholdPercentage: 200}
	for who, construct := range map[string]func(){
		"registry":         func() { firebreak.NewRegistry(bad) },
		`dependency "dep"`: func() { firebreak.NewRegistry(firebreak.Config{}).Dependency("dep", bad) },
		`command "cmd"`:    func() { firebreak.NewRegistry(firebreak.Config{}).Command("cmd", bad) },
	} {
		text := panicText(t, construct)
		assert.Contains(t, text, who)
		for _, field := range []string{"MaxConcurrent", "Timeout", "Probes", "ErrorThresholdPercentage"} {
			assert.Contains(t, text, field+": ", who)
		}
	}
}

// What a fault says: the value, and what would be right, Off and Unlimited where
// they are.
func TestFaultsSayWhatWouldBeRight(t *testing.T) {
	for _, tt := range []struct {
		config firebreak.Config
		says   string
	}{
		{firebreak.Config{Timeout: 300}, "Timeout: 300ns is under 10µs or Off"},
		{firebreak.Config{Window: 300}, "Window: 300ns is under 10µs"},
		{firebreak.Config{MaxFallbacks: -3}, "MaxFallbacks: -3 is not from 1 to 2147483647, Off or Unlimited"},
		{firebreak.Config{MaxConcurrent: -3}, "MaxConcurrent: -3 is not from 1 to 2147483647 or Unlimited"},
		{firebreak.Config{QueueSize: -3}, "QueueSize: -3 is not from 1 to 2147483647 or Off"},
		{firebreak.Config{Probes: -3}, "Probes: -3 is not from 1 to 2147483647"},
		{firebreak.Config{ErrorThresholdPercentage: 200}, "ErrorThresholdPercentage: 200 is not a percentage above 0 and up to 100 or Off"},
		{firebreak.Config{SlowCallThresholdPercentage: 200}, "SlowCallThresholdPercentage: 200 is not a percentage above 0 and up to 100"},
		{firebreak.Config{MaxConcurrent: firebreak.Off}, "MaxConcurrent: cannot be Off"},
		{firebreak.Config{QueueSize: firebreak.Unlimited}, "QueueSize: cannot be Unlimited"},
		{firebreak.Config{Timeout: firebreak.Unlimited}, "Timeout: cannot be Unlimited"},
		{firebreak.Config{SlowCallThresholdPercentage: firebreak.Off}, "SlowCallThresholdPercentage: cannot be Off"},
		{firebreak.Config{Evidence: firebreak.Unlimited}, "Evidence: cannot be Unlimited"},
		{firebreak.Config{Evidence: 2}, "Evidence: 2 is neither On nor Off"},
		{firebreak.Config{Isolation: 3}, "Isolation: 3 is not an isolation"},
		{firebreak.Config{Mode: 5}, "Mode: 5 is not a mode"},
	} {
		require.Equal(t, "firebreak: registry: "+tt.says, panicText(t, func() { firebreak.NewRegistry(tt.config) }))
	}
}

// S68.
func TestFieldsOfADependencyAreNotForOneCommand(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	dep := reg.Dependency("dep", firebreak.Config{})
	for _, f := range configFields {
		if !f.dependency {
			continue
		}
		for _, construct := range []func(){
			func() { dep.Command("cmd", f.with(f.good()[0])) },
			func() { dep.Keyed("cmd", 1, f.with(f.good()[0])) },
		} {
			text := panicText(t, construct)
			require.Contains(t, text, `command "cmd"`)
			require.Contains(t, text, f.name)
			require.Contains(t, text, "dependency")
		}
		// Registry.Command makes both.
		cmd := reg.Command("both with "+f.name, f.with(f.good()[0]))
		require.Equal(t, f.good()[0], f.valueOf(cmd.Config()))
		require.Equal(t, "code: dependency", cmd.Origins()[f.key])
	}
}

// places are the voices on a command, the nearest first (S69).
var places = []string{"document: command", "code: command", "document: dependency", "code: dependency", "document: defaults", "code: registry"}

func (f configField) mayStandAt(place int) bool {
	return (!f.dependency || place >= 2) && (f.key != "" || !strings.HasPrefix(places[place], "document"))
}

// heard makes a command of which each place says what voices has for it.
func heard(t *testing.T, voices [6]firebreak.Config) *firebreak.Command {
	t.Helper()
	reg := newRegistry(t, voices[5])
	require.NoError(t, reg.Update(firebreak.Document{
		Defaults:     voices[4],
		Dependencies: map[string]firebreak.Config{"dep": voices[2]},
		Commands:     map[string]firebreak.Config{"cmd": voices[0]},
	}))
	return reg.Dependency("dep", voices[3]).Command("cmd", voices[1])
}

// S69.
func TestTheNearestVoiceIsHeard(t *testing.T) {
	for _, f := range configFields {
		t.Run(f.name, func(t *testing.T) {
			near, far := f.with(f.good()[0]), f.with(f.good()[1])
			if f.valueOf(near) == f.byDefault {
				near, far = far, near
			}
			for at, place := range places {
				if !f.mayStandAt(at) {
					continue
				}
				var alone, first [6]firebreak.Config
				alone[at], first[at] = near, near
				for below := at + 1; below < len(places); below++ {
					if f.mayStandAt(below) {
						first[below] = far
					}
				}
				for _, voices := range [][6]firebreak.Config{alone, first} {
					cmd := heard(t, voices)
					c, origins := cmd.Config(), cmd.Origins()
					require.Equal(t, f.valueOf(near), f.valueOf(c), place)
					require.Equal(t, map[string]string{f.origin(): place}, without(origins, "default"))
					for _, other := range configFields {
						if other.name != f.name && other.name != "QueueSize" { // that follows MaxWait
							require.Equal(t, other.byDefault, other.valueOf(c), other.name)
						}
					}
				}
			}
		})
	}
}

// Each place says one field, and all are heard beside one another.
func TestVoicesAddUp(t *testing.T) {
	cmd := heard(t, [6]firebreak.Config{
		{Timeout: 2 * time.Second},
		{Timeout: 3 * time.Second, Probes: 2},
		{MaxConcurrent: 7, Probes: 9},
		{MaxConcurrent: 8, MaxWait: time.Second},
		{SleepWindow: time.Minute},
		{SleepWindow: time.Hour, MaxFallbacks: firebreak.Unlimited},
	})
	c, o := cmd.Config(), cmd.Origins()
	require.Equal(t, 2*time.Second, c.Timeout)
	require.Equal(t, 2, c.Probes)
	require.Equal(t, 7, c.MaxConcurrent)
	require.Equal(t, time.Second, c.MaxWait)
	require.Equal(t, time.Minute, c.SleepWindow)
	require.Equal(t, firebreak.Unlimited, c.MaxFallbacks)
	require.Equal(t, 7, c.QueueSize, "with MaxWait, MaxConcurrent, whoever said that")
	require.Equal(t, map[string]string{
		"timeout": "document: command", "probes": "code: command", "maxConcurrent": "document: dependency",
		"maxWait": "code: dependency", "sleepWindow": "document: defaults", "maxFallbacks": "code: registry",
	}, without(o, "default"))
}

func without(m map[string]string, value string) map[string]string {
	rest := map[string]string{}
	for k, v := range m {
		if v != value {
			rest[k] = v
		}
	}
	return rest
}

func TestQueueSizeByDefault(t *testing.T) {
	for _, tt := range []struct {
		says string
		c    firebreak.Config
		want int
	}{
		{"nothing", firebreak.Config{MaxConcurrent: 7}, firebreak.Off},
		{"MaxWait", firebreak.Config{MaxConcurrent: 7, MaxWait: time.Second}, 7},
		{"MaxWait alone", firebreak.Config{MaxWait: time.Second}, 100},
		{"MaxWait and QueueSize", firebreak.Config{MaxConcurrent: 7, MaxWait: time.Second, QueueSize: 3}, 3},
		{"MaxWait without a queue", firebreak.Config{MaxConcurrent: 7, MaxWait: time.Second, QueueSize: firebreak.Off}, firebreak.Off},
		{"no MaxWait", firebreak.Config{MaxConcurrent: 7, MaxWait: firebreak.Off}, firebreak.Off},
		{"MaxWait without a bound", firebreak.Config{MaxConcurrent: firebreak.Unlimited, MaxWait: time.Second}, firebreak.Off},
		{"MaxWait in a pool", firebreak.Config{MaxConcurrent: 7, MaxWait: time.Second, Isolation: firebreak.PoolIsolation}, firebreak.Off},
	} {
		require.Equal(t, tt.want, newCommand(t, tt.c).Config().QueueSize, tt.says)
	}
}

func TestWithMaxWaitAsManyWaitAsMayRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{MaxConcurrent: 2, MaxWait: time.Minute, Timeout: firebreak.Off})
		calls := []*firebreak.Call{begin(t, cmd), begin(t, cmd)}
		for range 3 {
			go func() { _, _ = firebreak.Do(t.Context(), cmd, succeed) }()
		}
		synctest.Wait()
		require.Equal(t, 2, cmd.Snapshot().Bulkhead.Queued)
		require.EqualValues(t, 1, total(cmd).Rejected)
		end(calls...)
		synctest.Wait()
		require.EqualValues(t, 4, total(cmd).Success)
	})
}

// S49: MaxWait is for semaphores. In a pool, who needs no worker does not queue for one.
func TestMaxWaitIsNothingInAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 1, MaxWait: time.Minute, QueueSize: 5, Timeout: firebreak.Off})
		began := time.Now()
		call := begin(t, cmd)
		_, err := cmd.Begin(t.Context())
		require.ErrorIs(t, err, firebreak.ErrRejected)
		require.Zero(t, time.Since(began))

		go func() { _, _ = firebreak.Do(context.Background(), cmd, succeed) }()
		time.Sleep(time.Hour) // nor does it bound the stay of who does
		require.Equal(t, 1, cmd.Snapshot().Bulkhead.Queued)
		end(call)
		synctest.Wait()
		require.EqualValues(t, 2, total(cmd).Success)
	})
}

// The longest durations and the greatest numbers are as good as any other, in all
// sums that are made of them.
func TestTheGreatestValues(t *testing.T) {
	for _, isolation := range []firebreak.Isolation{firebreak.SemaphoreIsolation, firebreak.PoolIsolation} {
		synctest.Test(t, func(t *testing.T) {
			c := firebreak.Config{Isolation: isolation, ConsecutiveFailures: 1}
			for _, f := range configFields {
				switch f.byDefault.(type) {
				case time.Duration:
					f.set(&c, time.Duration(math.MaxInt64))
				case float64:
					f.set(&c, 100.0)
				case int:
					if f.name != "ConsecutiveFailures" {
						f.set(&c, math.MaxInt32)
					}
				}
			}
			cmd := newCommand(t, c)
			_, err := firebreak.Do(t.Context(), cmd, succeed)
			require.NoError(t, err)
			_, err = firebreak.Do(t.Context(), cmd, fail, firebreak.Static(2))
			require.NoError(t, err)
			time.Sleep(24 * 365 * time.Hour)
			_, err = firebreak.Do(t.Context(), cmd, succeed)
			require.ErrorIs(t, err, firebreak.ErrOpen)
			s := cmd.Snapshot()
			require.Equal(t, firebreak.StateOpen, s.State)
			require.EqualValues(t, 3, s.Window.Calls())
		})
	}
}

// begin takes a permit that end gives back.
func begin(t testing.TB, cmd *firebreak.Command) *firebreak.Call {
	t.Helper()
	call, err := cmd.Begin(t.Context())
	require.NoError(t, err)
	return call
}

func end(calls ...*firebreak.Call) {
	for _, call := range calls {
		_ = call.Settle(nil)
		call.End()
	}
}

// Whoever watches asks again and again: that costs nothing until an Update has come,
// for the command, its dependency or all.
func TestConfigIsReadOnce(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	cmd := reg.Dependency("dep", firebreak.Config{}).Command("cmd", firebreak.Config{})
	require.Equal(t, time.Second, cmd.Config().Timeout)
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = cmd.Config() }))
	for i, doc := range []firebreak.Document{
		{Commands: map[string]firebreak.Config{"cmd": {Timeout: 2 * time.Second}}},
		{Dependencies: map[string]firebreak.Config{"dep": {Timeout: 3 * time.Second, MaxConcurrent: 3}}},
		{Defaults: firebreak.Config{Timeout: 4 * time.Second, MaxConcurrent: 4}},
	} {
		require.NoError(t, reg.Update(doc))
		c := cmd.Config()
		require.Equal(t, time.Duration(i+2)*time.Second, c.Timeout)
		require.Equal(t, []int{100, 3, 4}[i], c.MaxConcurrent)
		c.Timeout = time.Hour // the caller's own
	}
	require.NoError(t, reg.Update(firebreak.Document{}))
	require.Equal(t, time.Second, cmd.Config().Timeout)
}
