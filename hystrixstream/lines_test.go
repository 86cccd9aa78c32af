package hystrixstream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/hystrixstream"
)

// A kind is the type of a field on the wire.
type kind string

const (
	text      kind = "string"
	integer   kind = "int" // within 32 bits, as whoever reads it may keep it so
	long      kind = "long"
	boolean   kind = "bool"
	null      kind = "null"
	latencies kind = "latencies"
	objects   kind = "object"
)

type field struct {
	name string
	kind kind
}

// The fields of a HystrixCommand, as the original writes them.
var commandFields = []field{
	{"type", text},
	{"name", text},
	{"group", text},
	{"currentTime", long},
	{"isCircuitBreakerOpen", boolean},
	{"errorPercentage", integer},
	{"errorCount", integer},
	{"requestCount", integer},
	{"rollingCountBadRequests", long},
	{"rollingCountCollapsedRequests", long},
	{"rollingCountEmit", long},
	{"rollingCountExceptionsThrown", long},
	{"rollingCountFailure", long},
	{"rollingCountFallbackEmit", long},
	{"rollingCountFallbackFailure", long},
	{"rollingCountFallbackMissing", long},
	{"rollingCountFallbackRejection", long},
	{"rollingCountFallbackSuccess", long},
	{"rollingCountResponsesFromCache", long},
	{"rollingCountSemaphoreRejected", long},
	{"rollingCountShortCircuited", long},
	{"rollingCountSuccess", long},
	{"rollingCountThreadPoolRejected", long},
	{"rollingCountTimeout", long},
	{"currentConcurrentExecutionCount", integer},
	{"rollingMaxConcurrentExecutionCount", integer},
	{"latencyExecute_mean", integer},
	{"latencyExecute", latencies},
	{"latencyTotal_mean", integer},
	{"latencyTotal", latencies},
	{"propertyValue_circuitBreakerRequestVolumeThreshold", integer},
	{"propertyValue_circuitBreakerSleepWindowInMilliseconds", integer},
	{"propertyValue_circuitBreakerErrorThresholdPercentage", integer},
	{"propertyValue_circuitBreakerForceOpen", boolean},
	{"propertyValue_circuitBreakerForceClosed", boolean},
	{"propertyValue_circuitBreakerEnabled", boolean},
	{"propertyValue_executionIsolationStrategy", text},
	{"propertyValue_executionIsolationThreadTimeoutInMilliseconds", integer},
	{"propertyValue_executionTimeoutInMilliseconds", integer},
	{"propertyValue_executionIsolationThreadInterruptOnTimeout", boolean},
	{"propertyValue_executionIsolationThreadPoolKeyOverride", null},
	{"propertyValue_executionIsolationSemaphoreMaxConcurrentRequests", integer},
	{"propertyValue_fallbackIsolationSemaphoreMaxConcurrentRequests", integer},
	{"propertyValue_metricsRollingStatisticalWindowInMilliseconds", integer},
	{"propertyValue_requestCacheEnabled", boolean},
	{"propertyValue_requestLogEnabled", boolean},
	{"reportingHosts", integer},
	{"threadPool", text},
}

var threadPoolFields = []field{
	{"type", text},
	{"name", text},
	{"currentTime", long},
	{"currentActiveCount", integer},
	{"currentCompletedTaskCount", long},
	{"currentCorePoolSize", integer},
	{"currentLargestPoolSize", integer},
	{"currentMaximumPoolSize", integer},
	{"currentPoolSize", integer},
	{"currentQueueSize", integer},
	{"currentTaskCount", long},
	{"rollingCountThreadsExecuted", long},
	{"rollingMaxActiveThreads", integer},
	{"rollingCountCommandRejections", long},
	{"propertyValue_queueSizeRejectionThreshold", integer},
	{"propertyValue_metricsRollingStatisticalWindowInMilliseconds", integer},
	{"reportingHosts", integer},
}

var configFields = []field{
	{"type", text}, {"commands", objects}, {"threadpools", objects}, {"collapsers", objects}, //nolint:misspell // Hystrix's word
}

var commandConfigFields = []field{
	{"threadPoolKey", text}, {"groupKey", text}, {"execution", objects}, {"metrics", objects}, {"circuitBreaker", objects},
}

var executionFields = []field{
	{"isolationStrategy", text}, {"threadPoolKeyOverride", null}, {"requestCacheEnabled", boolean}, {"requestLogEnabled", boolean},
	{"timeoutEnabled", boolean}, {"fallbackEnabled", boolean}, {"timeoutInMilliseconds", integer}, {"semaphoreSize", integer},
	{"fallbackSemaphoreSize", integer}, {"threadInterruptOnTimeout", boolean},
}

var metricsFields = []field{
	{"healthBucketSizeInMs", integer}, {"percentileBucketSizeInMilliseconds", integer}, {"percentileBucketCount", integer},
	{"percentileEnabled", boolean}, {"counterBucketSizeInMilliseconds", integer}, {"counterBucketCount", integer},
}

var circuitBreakerFields = []field{
	{"enabled", boolean}, {"isForcedOpen", boolean}, {"isForcedClosed", boolean},
	{"requestVolumeThreshold", integer}, {"errorPercentageThreshold", integer}, {"sleepInMilliseconds", integer},
}

var poolConfigFields = []field{
	{"coreSize", integer}, {"maximumSize", integer}, {"actualMaximumSize", integer}, {"maxQueueSize", integer},
	{"queueRejectionThreshold", integer}, {"keepAliveTimeInMinutes", integer}, {"allowMaximumSizeToDivergeFromCoreSize", boolean},
	{"counterBucketSizeInMilliseconds", integer}, {"counterBucketCount", integer},
}

var poolUtilizationFields = []field{{"activeCount", integer}, {"queueSize", integer}, {"corePoolSize", integer}, {"poolSize", integer}}

var percentileFields = []field{
	{"0", integer}, {"25", integer}, {"50", integer}, {"75", integer}, {"90", integer}, {"95", integer}, {"99", integer},
	{"99.5", integer}, {"100", integer},
}

// A member is a field as it stands in the text of an object.
type member struct {
	name  string
	value json.RawMessage
}

// members reads an object in its order.
func members(t testing.TB, data []byte) (all []member) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(data)))
	begin, err := d.Token()
	require.NoError(t, err)
	require.Equal(t, json.Delim('{'), begin)
	for d.More() {
		name, err := d.Token()
		require.NoError(t, err)
		var m member
		m.name = name.(string)
		require.NoError(t, d.Decode(&m.value))
		all = append(all, m)
	}
	return all
}

// requireFields checks that an object has these fields, in this order and of these
// types, and no other. It returns them.
func requireFields(t testing.TB, want []field, data []byte) map[string]json.RawMessage {
	t.Helper()
	got := members(t, data)
	require.Len(t, got, len(want), "%s", data)
	values := map[string]json.RawMessage{}
	for i, m := range got {
		require.Equal(t, want[i].name, m.name, "field %d", i)
		values[m.name] = m.value
		v := string(m.value)
		switch want[i].kind {
		case text:
			require.Regexp(t, `^".*"$`, v, m.name)
		case integer, long:
			require.Regexp(t, `^-?[0-9]+$`, v, m.name)
			n, err := json.Number(v).Int64()
			require.NoError(t, err)
			if want[i].kind == integer {
				require.LessOrEqual(t, n, int64(math.MaxInt32), m.name)
			}
		case boolean:
			require.Contains(t, []string{"true", "false"}, v, m.name)
		case null:
			require.Equal(t, "null", v, m.name)
		case latencies:
			requireFields(t, percentileFields, m.value)
		case objects:
			require.Regexp(t, `^\{.*\}$`, v, m.name)
		}
	}
	return values
}

// The fields of a HystrixCollapser, and of its settings.
var (
	collapserFields = []field{
		{"type", text},
		{"name", text},
		{"currentTime", long},
		{"rollingCountRequestsBatched", long},
		{"rollingCountBatches", long},
		{"rollingCountResponsesFromCache", long},
		{"batchSize_mean", integer},
		{"batchSize", objects},
		{"propertyValue_requestCacheEnabled", boolean},
		{"propertyValue_maxRequestsInBatch", integer},
		{"propertyValue_timerDelayInMilliseconds", integer},
		{"reportingHosts", integer},
	}
	collapserConfigFields = []field{
		{"maxRequestsInBatch", integer},
		{"timerDelayInMilliseconds", integer},
		{"requestCacheEnabled", boolean},
		{"metrics", objects},
	}
)

// What batches has a line of its own, with the keys that were asked for and how many
// they were at a time.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		batches(t, reg)
		frames := strings.Split(watch(t, newHandler(t, reg, hystrixstream.Options{}), "/").text(), "\n\n")
		require.True(t, strings.HasPrefix(frames[1], `data: {"type":"HystrixCollapser","name":"ratings",`), frames[1])
		for _, want := range []string{
			`"rollingCountRequestsBatched":6,"rollingCountBatches":2,"rollingCountResponsesFromCache":1,`,
			`"batchSize_mean":2,"batchSize":{"25":1,"50":1,"75":4,"90":4,"95":4,"99":4,"99.5":4,"100":4},`,
			`"propertyValue_maxRequestsInBatch":2147483647,"propertyValue_timerDelayInMilliseconds":20,`,
		} {
			require.Contains(t, frames[1], want)
		}
	})
}

// batches fills a command with a batch of four keys, one of them asked for twice, one of
// one, and a hit in a cache.
func batches(t *testing.T, reg *firebreak.Registry) {
	t.Helper()
	cmd := reg.Command("ratings", firebreak.Config{BatchWindow: 20 * time.Millisecond})
	get := firebreak.Collapse(cmd, func(_ context.Context, keys []int) (map[int]int, error) {
		values := map[int]int{}
		for _, key := range keys {
			values[key] = key
		}
		return values, nil
	})
	var asking sync.WaitGroup
	for _, key := range []int{1, 2, 3, 4, 4} {
		asking.Go(func() { _, _ = get(t.Context(), key) })
	}
	asking.Wait()
	scope, cached := firebreak.WithScope(t.Context()), firebreak.Cached(cmd, get)
	for range 2 {
		_, _ = cached(scope, 9)
	}
}

// Every field there is, in the original's order, with the original's type: what the
// dashboard has no use for a line without.
func TestFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		badDay(t, reg)
		h := newHandler(t, reg, hystrixstream.Options{})
		commands, pools, batching := 0, 0, 0
		for frame := range strings.SplitSeq(watch(t, h, "/").text(), "\n\n") {
			data, ok := strings.CutPrefix(frame, "data: ")
			switch {
			case !ok:
			case strings.HasPrefix(data, `{"type":"HystrixCommand",`):
				requireFields(t, commandFields, []byte(data))
				commands++
			case strings.HasPrefix(data, `{"type":"HystrixCollapser",`):
				requireFields(t, collapserFields, []byte(data))
				batching++
			default:
				require.True(t, strings.HasPrefix(data, `{"type":"HystrixThreadPool",`), data)
				requireFields(t, threadPoolFields, []byte(data))
				pools++
			}
		}
		require.Equal(t, 8, commands)
		require.Equal(t, 1, batching)
		require.Equal(t, 1, pools)
	})
}

// The same of the other two streams.
func TestFieldsOfTheOthers(t *testing.T) {
	one := func(t *testing.T, tp *tape) []byte {
		t.Helper()
		data, ok := strings.CutPrefix(strings.TrimSuffix(tp.text(), "\n\n"+ping), "data: ")
		require.True(t, ok)
		return []byte(data)
	}
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		badDay(t, reg)
		h := newHandler(t, reg, hystrixstream.Options{})

		config := requireFields(t, configFields, one(t, watch(t, h.Config(), "/")))
		require.JSONEq(t, `"HystrixConfig"`, string(config["type"]))
		commands := members(t, config["commands"])
		require.Len(t, commands, 8)
		for _, c := range commands {
			parts := requireFields(t, commandConfigFields, c.value)
			requireFields(t, executionFields, parts["execution"])
			requireFields(t, metricsFields, parts["metrics"])
			requireFields(t, circuitBreakerFields, parts["circuitBreaker"])
		}
		pools := members(t, config["threadpools"])
		require.Len(t, pools, 1)
		requireFields(t, poolConfigFields, pools[0].value)
		batching := members(t, config["collapsers"]) //nolint:misspell // Hystrix's word
		require.Len(t, batching, 1)
		parts := requireFields(t, collapserConfigFields, batching[0].value)
		requireFields(t, metricsFields[1:], parts["metrics"])

		utilization := requireFields(t, configFields[:3], one(t, watch(t, h.Utilization(), "/")))
		require.JSONEq(t, `"HystrixUtilization"`, string(utilization["type"]))
		for _, c := range members(t, utilization["commands"]) {
			requireFields(t, poolUtilizationFields[:1], c.value)
		}
		pools = members(t, utilization["threadpools"])
		require.Len(t, pools, 1)
		requireFields(t, poolUtilizationFields, pools[0].value)
	})
}

// counted are the fields of a line that count something in the rolling window, health
// included, and are not 0.
func counted(o object) map[string]int {
	counts := map[string]int{}
	for name, v := range o {
		short, rolling := strings.CutPrefix(name, "rollingCount")
		if rolling || name == "errorPercentage" || name == "errorCount" || name == "requestCount" {
			if n := v.(float64); n != 0 {
				counts[short] = int(n)
			}
		}
	}
	return counts
}

// One call of each outcome, and what it counts as.
func TestOutcomes(t *testing.T) {
	panics := func(context.Context) error { panic("boom") }
	of := func(err error) func(context.Context) error { return func(context.Context) error { return err } }
	// full takes the one permit of the command while call goes on.
	full := func(t *testing.T, cmd *firebreak.Command, call func()) {
		t.Helper()
		first, err := cmd.Begin(t.Context())
		require.NoError(t, err)
		call()
		first.Settle(nil)
		first.End()
	}
	counts := firebreak.Config{CountRejections: firebreak.On, CountCallerDeadlines: firebreak.On}
	canceled := func(t *testing.T, cmd *firebreak.Command) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		cmd.Run(ctx, func(ctx context.Context) error {
			cancel()
			return hang(ctx)
		})
	}
	callerDeadline := func(t *testing.T, cmd *firebreak.Command) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		cmd.Run(ctx, hang)
	}
	rejected := func(t *testing.T, cmd *firebreak.Command) {
		t.Helper()
		full(t, cmd, func() { cmd.Run(t.Context(), succeed) })
	}
	for _, tt := range []struct {
		name   string
		config firebreak.Config
		do     func(t *testing.T, cmd *firebreak.Command)
		want   map[string]int
	}{
		{
			"success", firebreak.Config{}, func(t *testing.T, cmd *firebreak.Command) { cmd.Run(t.Context(), succeed) },
			map[string]int{"requestCount": 1, "Success": 1},
		},
		{
			"expected", firebreak.Config{}, func(t *testing.T, cmd *firebreak.Command) { cmd.Run(t.Context(), of(errNotFound)) },
			map[string]int{"requestCount": 1, "BadRequests": 1, "ExceptionsThrown": 1},
		},
		{
			"ignored", firebreak.Config{}, func(t *testing.T, cmd *firebreak.Command) { cmd.Run(t.Context(), of(errPaused)) },
			map[string]int{"BadRequests": 1, "ExceptionsThrown": 1},
		},
		{
			"failure", firebreak.Config{}, func(t *testing.T, cmd *firebreak.Command) { cmd.Run(t.Context(), fail) },
			map[string]int{"requestCount": 1, "errorCount": 1, "errorPercentage": 100, "Failure": 1, "FallbackMissing": 1, "ExceptionsThrown": 1},
		},
		{
			"failure, answered", firebreak.Config{}, func(t *testing.T, cmd *firebreak.Command) { cmd.Run(t.Context(), fail, fallBack) },
			map[string]int{"requestCount": 1, "errorCount": 1, "errorPercentage": 100, "Failure": 1, "FallbackSuccess": 1},
		},
		{
			"failure of the fallback too", firebreak.Config{}, func(t *testing.T, cmd *firebreak.Command) {
				cmd.Run(t.Context(), fail, func(context.Context, error) error { return errBoom })
			},
			map[string]int{"requestCount": 1, "errorCount": 1, "errorPercentage": 100, "Failure": 1, "FallbackFailure": 1, "ExceptionsThrown": 1},
		},
		{
			"one fallback too many", firebreak.Config{MaxFallbacks: 1}, func(t *testing.T, cmd *firebreak.Command) {
				cmd.Run(t.Context(), fail, func(ctx context.Context, _ error) error {
					cmd.Run(ctx, fail, fallBack)
					return nil
				})
			},
			map[string]int{
				"requestCount": 2, "errorCount": 2, "errorPercentage": 100, "Failure": 2,
				"FallbackSuccess": 1, "FallbackRejection": 1, "ExceptionsThrown": 1,
			},
		},
		{
			"timeout", firebreak.Config{}, func(t *testing.T, cmd *firebreak.Command) { cmd.Run(t.Context(), hang, fallBack) },
			map[string]int{"requestCount": 1, "errorCount": 1, "errorPercentage": 100, "Timeout": 1, "FallbackSuccess": 1},
		},
		{
			"panic", firebreak.Config{}, func(t *testing.T, cmd *firebreak.Command) {
				require.Panics(t, func() { cmd.Run(t.Context(), panics, fallBack) })
			},
			map[string]int{"requestCount": 1, "errorCount": 1, "errorPercentage": 100, "Failure": 1, "ExceptionsThrown": 1},
		},
		{
			"panic, recovered", firebreak.Config{RecoverPanics: firebreak.On}, func(t *testing.T, cmd *firebreak.Command) {
				cmd.Run(t.Context(), panics, fallBack)
				cmd.Run(t.Context(), panics)
			},
			map[string]int{
				"requestCount": 2, "errorCount": 2, "errorPercentage": 100, "Failure": 2,
				"FallbackSuccess": 1, "FallbackMissing": 1, "ExceptionsThrown": 1,
			},
		},
		{"canceled", counts, canceled, map[string]int{}},
		{"caller_deadline", firebreak.Config{}, callerDeadline, map[string]int{}},
		{
			"caller_deadline that counts", counts, callerDeadline,
			map[string]int{"requestCount": 1, "errorCount": 1, "errorPercentage": 100, "Timeout": 1},
		},
		{
			"rejected", firebreak.Config{MaxConcurrent: 1}, rejected,
			map[string]int{"requestCount": 1, "Success": 1, "SemaphoreRejected": 1, "FallbackMissing": 1, "ExceptionsThrown": 1},
		},
		{
			"rejected by a pool", firebreak.Config{MaxConcurrent: 1, Isolation: firebreak.PoolIsolation}, rejected,
			map[string]int{"requestCount": 1, "Success": 1, "ThreadPoolRejected": 1, "FallbackMissing": 1, "ExceptionsThrown": 1},
		},
		{
			"rejection that counts", firebreak.Config{MaxConcurrent: 1, CountRejections: firebreak.On}, rejected,
			map[string]int{
				"requestCount": 2, "errorCount": 1, "errorPercentage": 50,
				"Success": 1, "SemaphoreRejected": 1, "FallbackMissing": 1, "ExceptionsThrown": 1,
			},
		},
		{
			"short_circuited", firebreak.Config{Mode: firebreak.ForceOpen}, func(t *testing.T, cmd *firebreak.Command) {
				cmd.Run(t.Context(), succeed, fallBack)
			},
			map[string]int{"ShortCircuited": 1, "FallbackSuccess": 1},
		},
		{
			"gave_up", firebreak.Config{}, func(t *testing.T, cmd *firebreak.Command) {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				cmd.Run(ctx, succeed)
			},
			map[string]int{},
		},
		{
			"two of three, rounded down", firebreak.Config{}, func(t *testing.T, cmd *firebreak.Command) {
				cmd.Run(t.Context(), succeed)
				cmd.Run(t.Context(), fail, fallBack)
				cmd.Run(t.Context(), fail, fallBack)
			},
			map[string]int{"requestCount": 3, "errorCount": 2, "errorPercentage": 66, "Success": 1, "Failure": 2, "FallbackSuccess": 2},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newRegistry(t, firebreak.Config{Classify: classify})
				tt.do(t, reg.Command("dep", tt.config))
				h := newHandler(t, reg, hystrixstream.Options{})
				require.Equal(t, tt.want, counted(lineOf(t, h, "HystrixCommand", "dep")))

				time.Sleep(11 * time.Second)
				require.Empty(t, counted(lineOf(t, h, "HystrixCommand", "dep")), "after the window")
			})
		})
	}
}

// What is in flight, and how long it took.
func TestGaugesAndLatencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{Timeout: firebreak.Off, ErrorThresholdPercentage: firebreak.Off})
		h := newHandler(t, reg, hystrixstream.Options{})
		for i := range 1000 {
			cmd.Run(t.Context(), func(context.Context) error {
				time.Sleep(time.Duration(i+1) * time.Microsecond * 10)
				return errBoom
			}, func(context.Context, error) error {
				time.Sleep(100 * time.Millisecond)
				return nil
			})
		}
		first, err := cmd.Begin(t.Context())
		require.NoError(t, err)
		second, err := cmd.Begin(t.Context())
		require.NoError(t, err)
		second.Settle(nil)
		second.End()

		o := lineOf(t, h, "HystrixCommand", "dep")
		assert.InDelta(t, 1, o["currentConcurrentExecutionCount"], 0)
		assert.InDelta(t, 2, o["rollingMaxConcurrentExecutionCount"], 0)
		s := cmd.Snapshot()
		ms := func(p firebreak.Percentiles) object {
			f := func(d time.Duration) float64 { return float64(d / time.Millisecond) }
			return object{
				"0": f(p.Min), "25": f(p.P25), "50": f(p.P50), "75": f(p.P75), "90": f(p.P90), "95": f(p.P95),
				"99": f(p.P99), "99.5": f(p.P995), "100": f(p.Max),
			}
		}
		require.Equal(t, ms(s.RunLatency), o["latencyExecute"])
		require.Equal(t, ms(s.CallLatency), o["latencyTotal"])
		require.InDelta(t, 9, s.RunLatency.P90/time.Millisecond, 1)
		require.InDelta(t, 109, s.CallLatency.P90/time.Millisecond, 2)
		assert.InDelta(t, s.RunLatency.Mean.Milliseconds(), o["latencyExecute_mean"], 0)
		assert.InDelta(t, s.CallLatency.Mean.Milliseconds(), o["latencyTotal_mean"], 0)
		assert.InDelta(t, s.Time.UnixMilli(), o["currentTime"], 0)
		first.Settle(nil)
		first.End()
	})
}

// The circuit as the dashboard has it.
func TestCircuit(t *testing.T) {
	const open, forcedOpen, forcedClosed = "isCircuitBreakerOpen", "propertyValue_circuitBreakerForceOpen", "propertyValue_circuitBreakerForceClosed"
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{})
		h := newHandler(t, reg, hystrixstream.Options{})
		requireIs := func(what string, want ...string) {
			t.Helper()
			o := lineOf(t, h, "HystrixCommand", "dep")
			got := []string{}
			for _, name := range []string{open, forcedOpen, forcedClosed} {
				if o[name].(bool) {
					got = append(got, name)
				}
			}
			require.ElementsMatch(t, want, got, what)
			config := sampleOf(t, h.Config())[0]["commands"].(object)["dep"].(object)["circuitBreaker"].(object)
			require.Equal(t, o[forcedOpen], config["isForcedOpen"], what)
			require.Equal(t, o[forcedClosed], config["isForcedClosed"], what)
		}
		requireIs("closed")
		trip(t, cmd)
		requireIs("open", open)
		time.Sleep(5 * time.Second)
		probe, err := cmd.Begin(t.Context())
		require.NoError(t, err)
		require.Equal(t, firebreak.StateHalfOpen, cmd.Snapshot().State)
		requireIs("half-open", open)
		probe.Settle(nil)
		probe.End()
		requireIs("closed again")

		cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
		requireIs("forced open", open, forcedOpen)
		cmd.Override(firebreak.Override{Mode: firebreak.ForceClosed})
		requireIs("forced closed", forcedClosed)
		cmd.Override(firebreak.Override{Mode: firebreak.Shadow})
		requireIs("shadow", forcedClosed)
		trip(t, cmd)
		requireIs("shadow, tripped", open, forcedClosed)
	})
}

// Settings as the two streams have them, also when they change.
func TestSettings(t *testing.T) {
	const property = "propertyValue_"
	for _, tt := range []struct {
		name    string
		config  firebreak.Config
		line    object // of hystrix.stream, without the prefix
		setting object // of config.stream, by section and name
	}{
		{
			"defaults", firebreak.Config{},
			object{
				"circuitBreakerRequestVolumeThreshold": 20, "circuitBreakerSleepWindowInMilliseconds": 5000,
				"circuitBreakerErrorThresholdPercentage": 50, "circuitBreakerForceOpen": false, "circuitBreakerForceClosed": false,
				"circuitBreakerEnabled": true, "executionIsolationStrategy": "SEMAPHORE",
				"executionIsolationThreadTimeoutInMilliseconds": 1000, "executionTimeoutInMilliseconds": 1000,
				"executionIsolationThreadInterruptOnTimeout": true, "executionIsolationThreadPoolKeyOverride": nil,
				"executionIsolationSemaphoreMaxConcurrentRequests": 100, "fallbackIsolationSemaphoreMaxConcurrentRequests": 100,
				"metricsRollingStatisticalWindowInMilliseconds": 10000, "requestCacheEnabled": false, "requestLogEnabled": false,
			},
			object{
				"execution.isolationStrategy": "SEMAPHORE", "execution.threadPoolKeyOverride": nil,
				"execution.requestCacheEnabled": false, "execution.requestLogEnabled": false,
				"execution.timeoutEnabled": true, "execution.fallbackEnabled": true, "execution.timeoutInMilliseconds": 1000,
				"execution.semaphoreSize": 100, "execution.fallbackSemaphoreSize": 100, "execution.threadInterruptOnTimeout": true,
				"metrics.healthBucketSizeInMs": 1000, "metrics.percentileBucketSizeInMilliseconds": 20000,
				"metrics.percentileBucketCount": 3, "metrics.percentileEnabled": true,
				"metrics.counterBucketSizeInMilliseconds": 1000, "metrics.counterBucketCount": 10,
				"circuitBreaker.enabled": true, "circuitBreaker.isForcedOpen": false, "circuitBreaker.isForcedClosed": false,
				"circuitBreaker.requestVolumeThreshold": 20, "circuitBreaker.errorPercentageThreshold": 50,
				"circuitBreaker.sleepInMilliseconds": 5000,
			},
		},
		{
			"Hystrix's", firebreak.HystrixDefaults(),
			object{
				"executionIsolationStrategy": "THREAD", "executionIsolationSemaphoreMaxConcurrentRequests": 10,
				"fallbackIsolationSemaphoreMaxConcurrentRequests": 10,
			},
			object{"execution.isolationStrategy": "THREAD", "execution.semaphoreSize": 10, "execution.fallbackSemaphoreSize": 10},
		},
		{
			"off", firebreak.Config{Timeout: firebreak.Off, MaxFallbacks: firebreak.Off, ErrorThresholdPercentage: firebreak.Off},
			object{
				"executionTimeoutInMilliseconds": 0, "executionIsolationThreadTimeoutInMilliseconds": 0,
				"executionIsolationThreadInterruptOnTimeout": false, "fallbackIsolationSemaphoreMaxConcurrentRequests": 0,
				"circuitBreakerErrorThresholdPercentage": 101, "circuitBreakerEnabled": false,
			},
			object{
				"execution.timeoutEnabled": false, "execution.timeoutInMilliseconds": 0, "execution.threadInterruptOnTimeout": false,
				"execution.fallbackEnabled": false, "execution.fallbackSemaphoreSize": 0,
				"circuitBreaker.enabled": false, "circuitBreaker.errorPercentageThreshold": 101,
			},
		},
		{
			"unlimited", firebreak.Config{MaxConcurrent: firebreak.Unlimited, MaxFallbacks: firebreak.Unlimited},
			object{
				"executionIsolationSemaphoreMaxConcurrentRequests": math.MaxInt32,
				"fallbackIsolationSemaphoreMaxConcurrentRequests":  math.MaxInt32,
			},
			object{"execution.semaphoreSize": math.MaxInt32, "execution.fallbackSemaphoreSize": math.MaxInt32, "execution.fallbackEnabled": true},
		},
		{
			"small and odd", firebreak.Config{
				Timeout: 10 * time.Microsecond, SleepWindow: 1500 * time.Microsecond, Window: 20 * time.Microsecond,
				RequestVolumeThreshold: 7, ErrorThresholdPercentage: 12.5,
			},
			object{
				"executionTimeoutInMilliseconds": 1, "circuitBreakerSleepWindowInMilliseconds": 2,
				"metricsRollingStatisticalWindowInMilliseconds": 1, "circuitBreakerRequestVolumeThreshold": 7,
				"circuitBreakerErrorThresholdPercentage": 13,
			},
			object{
				"execution.timeoutInMilliseconds": 1, "circuitBreaker.sleepInMilliseconds": 2, "metrics.counterBucketSizeInMilliseconds": 1,
				"metrics.healthBucketSizeInMs": 1, "circuitBreaker.requestVolumeThreshold": 7, "circuitBreaker.errorPercentageThreshold": 13,
			},
		},
		{
			"long", firebreak.Config{Timeout: 1 << 62, SleepWindow: 1 << 62, Window: 20 * time.Second},
			object{
				"executionTimeoutInMilliseconds": math.MaxInt32, "circuitBreakerSleepWindowInMilliseconds": math.MaxInt32,
				"metricsRollingStatisticalWindowInMilliseconds": 20000,
			},
			object{"metrics.counterBucketSizeInMilliseconds": 2000, "execution.timeoutInMilliseconds": math.MaxInt32},
		},
		{
			"in a row alone", firebreak.Config{ErrorThresholdPercentage: firebreak.Off, ConsecutiveFailures: 3},
			object{"circuitBreakerEnabled": true, "circuitBreakerErrorThresholdPercentage": 101}, object{"circuitBreaker.enabled": true},
		},
		{
			"slow calls alone", firebreak.Config{ErrorThresholdPercentage: firebreak.Off, SlowCallDuration: time.Second},
			object{"circuitBreakerEnabled": true}, object{"circuitBreaker.enabled": true},
		},
		{
			"evidence alone", firebreak.Config{ErrorThresholdPercentage: firebreak.Off, Evidence: firebreak.On},
			object{"circuitBreakerEnabled": true}, object{"circuitBreaker.enabled": true},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newRegistry(t, firebreak.Config{})
				reg.Command("dep", tt.config)
				h := newHandler(t, reg, hystrixstream.Options{})
				line := lineOf(t, h, "HystrixCommand", "dep")
				for name, want := range tt.line {
					require.Contains(t, line, property+name)
					assert.EqualValues(t, want, line[property+name], name)
				}
				config := sampleOf(t, h.Config())[0]["commands"].(object)["dep"].(object)
				for name, want := range tt.setting {
					section, name, _ := strings.Cut(name, ".")
					require.Contains(t, config[section], name)
					assert.EqualValues(t, want, config[section].(object)[name], name)
				}
			})
		})
	}

	t.Run("changed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			reg := newRegistry(t, firebreak.Config{})
			reg.Command("dep", firebreak.Config{})
			h := newHandler(t, reg, hystrixstream.Options{})
			require.NoError(t, reg.Update(firebreak.Document{Defaults: firebreak.Config{Timeout: 7 * time.Millisecond}}))
			line := lineOf(t, h, "HystrixCommand", "dep")
			require.EqualValues(t, 7, line[property+"executionTimeoutInMilliseconds"])
		})
	})
}

// A line for each pool, and none for semaphores.
func TestThreadPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		dep := reg.Dependency("dep", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: 2, QueueSize: 3})
		a := dep.Command("a", firebreak.Config{})
		b := dep.Command("b", firebreak.Config{Window: 20 * time.Second, Timeout: time.Hour})
		reg.Command("semaphore", firebreak.Config{})
		reg.Command("unlimited", firebreak.Config{Isolation: firebreak.PoolIsolation, MaxConcurrent: firebreak.Unlimited})
		h := newHandler(t, reg, hystrixstream.Options{})
		requireLine := func(want object) {
			t.Helper()
			want["type"], want["name"], want["reportingHosts"], want["currentTime"] = "HystrixThreadPool", "dep", 1, time.Now().UnixMilli()
			line := lineOf(t, h, "HystrixThreadPool", "dep")
			for name, want := range want {
				assert.EqualValues(t, want, line[name], name)
			}
			require.Len(t, line, len(threadPoolFields))
		}
		at := func(active, queued, completed int) object {
			return object{
				"currentActiveCount": active, "currentQueueSize": queued, "currentCompletedTaskCount": completed,
				"currentTaskCount": active + queued + completed, "currentCorePoolSize": 2, "currentMaximumPoolSize": 2,
				"currentPoolSize": 2, "currentLargestPoolSize": 2, "rollingMaxActiveThreads": active,
				"propertyValue_queueSizeRejectionThreshold":                   3,
				"propertyValue_metricsRollingStatisticalWindowInMilliseconds": 20000,
			}
		}
		requireLine(at(0, 0, 0))

		// Two runs of each command that end, then two that hang beyond a's deadline.
		for range 2 {
			a.Run(t.Context(), fail)
			b.Run(t.Context(), succeed)
		}
		finish := make(chan struct{})
		for range 2 {
			go a.Run(t.Context(), func(context.Context) error {
				<-finish
				return nil
			})
		}
		synctest.Wait()
		for range 4 { // three are queued
			go b.Run(t.Context(), succeed)
			synctest.Wait()
		}
		want := at(2, 3, 4)
		want["rollingCountThreadsExecuted"], want["rollingCountCommandRejections"] = 4, 1
		requireLine(want)

		time.Sleep(2 * time.Second) // a's callers have left: outcomes, but no runs that ended
		synctest.Wait()
		require.Equal(t, 2, a.Snapshot().Bulkhead.Abandoned)
		want = at(2, 3, 4)
		want["rollingCountThreadsExecuted"], want["rollingCountCommandRejections"] = 6, 1
		requireLine(want)

		// The pool shrinks below what is active.
		require.NoError(t, reg.Update(firebreak.Document{Dependencies: map[string]firebreak.Config{"dep": {MaxConcurrent: 1}}}))
		want = at(2, 3, 4)
		want["currentCorePoolSize"], want["currentMaximumPoolSize"] = 1, 1
		requireLine(want)

		close(finish)
		synctest.Wait()
		want = at(0, 0, 9)
		want["rollingMaxActiveThreads"], want["currentLargestPoolSize"] = 2, 2
		want["currentCorePoolSize"], want["currentMaximumPoolSize"], want["currentPoolSize"] = 1, 1, 1
		requireLine(want)

		unlimited := lineOf(t, h, "HystrixThreadPool", "unlimited")
		require.EqualValues(t, math.MaxInt32, unlimited["currentCorePoolSize"])
		require.EqualValues(t, math.MaxInt32, unlimited["currentMaximumPoolSize"])
		require.Zero(t, unlimited["currentPoolSize"])
		require.Zero(t, unlimited["propertyValue_queueSizeRejectionThreshold"])
		pools := sampleOf(t, h.Config())[0]["threadpools"].(object)
		require.EqualValues(t, -1, pools["unlimited"].(object)["maxQueueSize"])
		require.Zero(t, pools["unlimited"].(object)["queueRejectionThreshold"])
		require.EqualValues(t, 3, pools["dep"].(object)["maxQueueSize"])
		require.EqualValues(t, 2000, pools["dep"].(object)["counterBucketSizeInMilliseconds"])
		require.NotContains(t, pools, "semaphore")
		for _, o := range sampleOf(t, h) {
			require.False(t, o["type"] == "HystrixThreadPool" && o["name"] == "semaphore")
		}
	})
}

// All commands first, then all pools, each by dependency, name and key.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{Isolation: firebreak.PoolIsolation})
		for _, dep := range []string{"b", "a"} {
			d := reg.Dependency(dep, firebreak.Config{})
			d.Command(dep+".z", firebreak.Config{})
			k := d.Keyed(dep+".k", 2, firebreak.Config{})
			k.Command("2")
			k.Command("1")
		}
		var got []string
		for _, o := range sampleOf(t, newHandler(t, reg, hystrixstream.Options{})) {
			got = append(got, fmt.Sprint(o["type"], " ", o["name"]))
		}
		require.Equal(t, []string{
			"HystrixCommand a.k[1]", "HystrixCommand a.k[2]", "HystrixCommand a.z",
			"HystrixCommand b.k[1]", "HystrixCommand b.k[2]", "HystrixCommand b.z",
			"HystrixThreadPool a", "HystrixThreadPool b",
		}, got)
	})
}

// Whatever a name is, a frame is one line, and the name is read back.
func TestHostileNames(t *testing.T) {
	hostile := []string{
		`"`, `\`, `\"}`, "\n\ndata: {}\n\n", "\r", "\x00\x1f\x7f", "</script><script>alert(1)</script>", "a&b", "\u2028\u2029",
		"{", "a{", "名前 🔥", "\ufffd", strings.Repeat("x", 100_000), " ", ":", "ping: ",
	}
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{Isolation: firebreak.PoolIsolation})
		for _, name := range hostile {
			reg.Command(name, firebreak.Config{})
		}
		reg.Command("\xffa\xc0\xafb", firebreak.Config{}) // not UTF-8
		want := append([]string{"\ufffda\ufffd\ufffdb"}, hostile...)
		h := newHandler(t, reg, hystrixstream.Options{})

		lines := map[any][]string{}
		for _, o := range sampleOf(t, h) {
			lines[o["type"]] = append(lines[o["type"]], o["name"].(string))
		}
		require.ElementsMatch(t, want, lines["HystrixCommand"])
		require.ElementsMatch(t, want, lines["HystrixThreadPool"])
		for _, other := range []object{sampleOf(t, h.Config())[0], sampleOf(t, h.Utilization())[0]} {
			for _, of := range []string{"commands", "threadpools"} {
				require.Len(t, other[of], len(want))
				for _, name := range want {
					require.Contains(t, other[of], name)
				}
			}
		}
		raw := watch(t, h, "/").text()
		require.True(t, utf8.ValidString(raw))
		require.NotContains(t, raw, "<")
		require.NotContains(t, raw, "\u2028")
		require.NotContains(t, raw, "\r")
	})
}
