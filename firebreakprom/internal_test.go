package firebreakprom

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakprom/internal/metric"
)

// distinct are Counts of which each field has a number of its own.
func distinct() firebreak.Counts {
	var c firebreak.Counts
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		v.Field(i).SetUint(uint64(1000 + i))
	}
	return c
}

// A count that firebreak gets one day must not be forgotten here.
func TestEveryCountIsAddedUpAndShown(t *testing.T) {
	c, sum := distinct(), firebreak.Counts{}
	addCounts(&sum, &c)
	addCounts(&sum, &c)
	shown := map[float64]bool{}
	for _, d := range definitions {
		if d.command == nil || d.Kind != metric.Counter || d.Metric == &metric.CircuitTransitions {
			continue
		}
		values := make([]float64, len(d.Series))
		d.command(&reading{sums: sums{counts: c}}, values)
		for _, v := range values {
			shown[v] = true
		}
	}
	was, is := reflect.ValueOf(c), reflect.ValueOf(sum)
	for i := range was.NumField() {
		name := was.Type().Field(i).Name
		require.Equal(t, 2*was.Field(i).Uint(), is.Field(i).Uint(), name)
		require.True(t, shown[float64(was.Field(i).Uint())], "no metric has %s", name)
	}
}

func TestDefinitionsAreComplete(t *testing.T) {
	all := metric.All()
	require.Len(t, definitions, len(all))
	for i, d := range definitions {
		require.Same(t, all[i], d.Metric, d.Name)
		require.LessOrEqual(t, len(d.Series), maxSeries, d.Name)
		require.Equal(t, d.Kind == metric.Histogram, d.latencies != nil, d.Name)
		require.Equal(t, d.Of == metric.OfDependency, d.dependency != nil, d.Name)
		require.Equal(t, d.Of == metric.OfCommand && d.Kind != metric.Histogram, d.command != nil, d.Name)
	}
	require.Len(t, metric.CircuitTransitions.Series, numMoves)
	require.LessOrEqual(t, len(edges.own), maxEdges)
}

// A rule that firebreak gets one day is counted, and so is nothing that cannot be.
func TestUnknownTransitions(t *testing.T) {
	var m moves
	now := time.Now()
	evidence := firebreak.Evidence{Rule: "the moon", At: now}
	m.note(firebreak.Transition{Command: "c", From: firebreak.StateClosed, To: firebreak.StateOpen, At: now, Evidence: evidence})
	m.note(firebreak.Transition{Command: "c", From: firebreak.StateHalfOpen, To: firebreak.StateOpen, At: now, Evidence: evidence})
	m.note(firebreak.Transition{Command: "c", From: firebreak.StateOpen, To: firebreak.State(9), At: now, Evidence: evidence})
	counted := map[string]uint64{}
	for i := range m.command("c") {
		if n := m.command("c")[i].Load(); n != 0 {
			counted[fmt.Sprint(metric.CircuitTransitions.Series[i])] = n
		}
	}
	require.Equal(t, map[string]uint64{"[closed open other]": 1}, counted)
}

func TestLabelsAreDistinct(t *testing.T) {
	names := []string{"", "a", "\xff", `"\xff"`, `\xff`, `"`, `""`, "\"\xff", "a\xffb", "\ufffd", "\x00"}
	seen := map[string]string{}
	for _, n := range names {
		l := label(n)
		other, taken := seen[l]
		require.False(t, taken, "%q and %q are both %s", n, other, l)
		seen[l] = n
	}
	require.Equal(t, "users.get", label("users.get"))
}

// The edges of the classic buckets are edges of firebreak's own, so that each of
// those falls into one as a whole.
func TestClassicBucketsAreEdges(t *testing.T) {
	require.Equal(t, shortest.Seconds(), edges.classic[0])
	require.Equal(t, longest.Seconds(), edges.classic[len(edges.classic)-1])
	i := 0
	for le := shortest; le <= longest; le *= 2 {
		require.Contains(t, edges.own, le)
		require.Equal(t, le, edges.own[edges.upTo[i]-1])
		i++
	}
	require.Len(t, edges.classic, i)
	require.True(t, slices.IsSorted(edges.own))
}

// A native bucket has what is said of it: its bounds are lower than those of the
// doubling that it holds, by 6.9 % at most, and each doubling has its own.
func TestNativeBuckets(t *testing.T) {
	require.InDelta(t, edges.own[0].Seconds(), edges.threshold, 0.07*edges.own[0].Seconds())
	for i, own := range edges.own[1:] {
		upper := math.Ldexp(1, int(edges.first)+i)
		require.Less(t, upper, own.Seconds())
		require.LessOrEqual(t, 1-upper/own.Seconds(), 0.0687)
	}
	l := latencies{count: 100, sum: time.Minute}
	for i := range edges.own {
		l.below[i] = uint64(3 * (i + 1))
	}
	h := l.histogram()
	require.EqualValues(t, 3, h.GetZeroCount())
	require.EqualValues(t, len(h.GetPositiveDelta()), h.GetPositiveSpan()[0].GetLength())
	sum, in := h.GetZeroCount(), int64(0)
	for i, delta := range h.GetPositiveDelta() {
		in += delta
		sum += uint64(in)
		if i < len(edges.own)-1 {
			require.EqualValues(t, 3, in)
		}
	}
	require.EqualValues(t, 100, sum, "the longest are in the last one")
	require.Equal(t, 60.0, h.GetSampleSum())
}

func TestSumsDoNotOverflow(t *testing.T) {
	require.Equal(t, time.Duration(math.MaxInt64), plus(math.MaxInt64, 1))
	require.Equal(t, time.Duration(math.MaxInt64), plus(math.MaxInt64, math.MaxInt64))
	require.Equal(t, 3*time.Second, plus(time.Second, 2*time.Second))
}

// A bulkhead is the fullest that was seen, one reading of it and not a mixture; and
// its commands have no more than that.
func TestReadingABulkhead(t *testing.T) {
	r := bulkheadReading{queue: 7}
	r.add(firebreak.Bulkhead{Limit: 6, InFlight: 2, MaxInFlight: 6, Queued: 3})
	fullest := firebreak.Bulkhead{Limit: 6, InFlight: 5, MaxInFlight: 5, Abandoned: 4}
	r.add(fullest)
	r.add(firebreak.Bulkhead{Limit: 6, InFlight: 1, MaxInFlight: 6, Abandoned: 1})
	require.Equal(t, bulkheadReading{Bulkhead: fullest, queue: 7}, r)
	granted := []int{r.grant(0), r.grant(3), r.grant(4), r.grant(1)}
	require.Equal(t, []int{0, 3, 2, 0}, granted)

	idle := bulkheadReading{}
	idle.add(firebreak.Bulkhead{Limit: 6, MaxInFlight: 1})
	require.Equal(t, 6, idle.Limit, "none in flight is a reading too")
}
