// Package scenario has the situations in which the columns are compared, and measures
// them.
package scenario

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
)

// Metrics is what one measurement found, by unit.
type Metrics map[string]float64

// The units of calls, as in the output of go test.
const (
	CPU    = "cpu-ns/op" // processor time of the whole process: also what runs behind the caller's back
	Wall   = "ns/op"
	Bytes  = "B/op"
	Allocs = "allocs/op"
	Wrong  = "wrong/op" // calls that ended otherwise than the scenario says
)

// A Scenario asks every column the same question.
type Scenario struct {
	Name      string
	What      string
	Procs     int      // GOMAXPROCS
	Reference string   // the column that the others are divided by
	By        string   // the unit in which that is done
	Units     []string // all units there are, in the order of a table
	Heavy     bool     // takes seconds: a few passes must do

	// One of the two: calls that can be looped over, or a measurement of another kind.
	// nil without an error says that the column does not do this.
	prepare func(columns.Column) (*load, error)
	measure func(columns.Column) (Metrics, error)
}

// All returns the scenarios in the order in which they are measured.
func All() []Scenario {
	var all []Scenario
	calls := func(name, what, reference string, prepare func(columns.Column) (*load, error)) {
		all = append(all, Scenario{
			Name: name, What: what, Procs: 2, Reference: reference,
			By: CPU, Units: []string{CPU, Wall, Bytes, Allocs}, prepare: prepare,
		})
	}
	calls("breaker/serial", "success, circuit breaker only", "gobreaker", success(columns.BreakerOnly, oneByOne))
	calls("breaker/parallel", "the same from two goroutines", "gobreaker", success(columns.BreakerOnly, together))
	calls("success/serial", "success, everything on", "by-hand", success(columns.Everything, oneByOne))
	calls("success/background", "the same from context.Background", "by-hand", success(columns.Everything, fromBackground))
	for _, procs := range []int{1, 2, 4, 8} {
		calls(fmt.Sprintf("success/parallel-%d", procs), fmt.Sprintf("success, everything on, GOMAXPROCS and goroutines %d, all on one command", procs),
			"by-hand", success(columns.Everything, together))
		all[len(all)-1].Procs = procs
	}
	calls("done", "success, everything on, run calls ctx.Done", "by-hand", done)
	calls("fallback", "run fails, the fallback answers, the circuit stays closed", "by-hand", failure)
	calls("open/serial", "the circuit is open, no fallback", "gobreaker", open(oneByOne))
	calls("full", "the bulkhead of one permit is full, no fallback", "by-hand", full)
	calls("open/parallel", "the circuit is open, two goroutines", "gobreaker", open(together))
	calls("pool/serial", "success, everything on, run on another goroutine", "by-hand", success(columns.Pool, oneByOne))
	calls("pool/parallel", "the same from two goroutines", "by-hand", success(columns.Pool, together))
	calls("name/1", "looked up by name, 1 command, then success with everything on", "by-hand", byName(1))
	calls("name/10000", "the same of 10,000 commands", "by-hand", byName(10_000))
	calls("http", "a request to a server on loopback, in the same process: sent, served, read", "direct", request)

	calls("gather/at-once", "100 keys, ten at a time, fetched from memory; all per key", "errgroup", gathering(fetchAtOnce, none))
	calls("gather/failures", "the same, and one in ten fails", "errgroup", gathering(fetchOrFail, oneInTen))
	calls("gather/1ms", "100 keys, ten at a time, each takes a millisecond of waiting; all per key", "errgroup", gathering(fetchAfterSome, none))
	calls("cached/hits", "asks for a value that is kept, one of 100 in a request", "singleflight", hits(oneByOne))
	calls("cached/hits-parallel", "the same from two goroutines, in one request", "singleflight", hits(together))
	calls("cached/misses", "a request that asks for 100 keys, each once; all per ask", "singleflight", misses)
	calls("cached/shared", "a request of 100 goroutines that all ask for one key at once; all per ask", "singleflight", shared)
	calls("collapse", "100 goroutines, each asks for a key, and the batch is full; all per ask", "dataloader", batches(false))
	calls("collapse/kept", "a request of the same, which keeps the values, and all ask once more; all per ask", "dataloader", batches(true))

	calls("snapshot", "one scrape of 1,000 commands while one goroutine calls them; processor time of the scraping thread alone", "floor", snapshot)

	calls("scrape", "one scrape of 1,000 commands by Prometheus, as text", "firebreak", scrapePrometheus)
	all = append(all, Scenario{
		Name: "stream", What: "hystrix.stream of 200 commands to five clients who read it in the same process, a sample each 100 ms",
		Procs: 2, Reference: "firebreak", By: CPUPerSample, Heavy: true, measure: stream,
		Units: []string{CPUPerSample, BytesPerSample, SamplesReceived},
	})

	for _, l := range []lateness{
		{"lateness/caller", columns.Everything, 1, 3},
		{"lateness/pool-1", columns.Pool, 1, 10},
		{"lateness/pool-200", columns.Pool, 200, 15},
	} {
		all = append(all, Scenario{
			Name: l.name, What: l.what(), Procs: 2, Reference: "by-hand",
			By: LateP50, Units: []string{LateP50, LateP99, LateMax, Early, Stranded}, measure: l.measure,
		})
	}
	for _, mode := range []columns.Mode{columns.Everything, columns.Pool} {
		f := inFlight{mode: mode, calls: 100_000}
		all = append(all, Scenario{
			Name: "inflight/" + map[columns.Mode]string{columns.Everything: "caller", columns.Pool: "pool"}[mode], What: f.what(),
			Procs: 2, Reference: "direct", By: HeapPerCall, Heavy: true, measure: f.measure,
			Units: []string{HeapPerCall, StackPerCall, GoroutinesPerCall, Admission, FurtherIdle, FurtherLoaded, Drain},
		})
	}
	all = append(all, Scenario{
		Name: "memory", What: "10,000 commands: what each holds at rest, after one call and after a hundred",
		Procs: 2, Reference: "by-hand", By: HeapAtRest, Heavy: true, measure: memory,
		Units: []string{HeapAtRest, HeapAfterOne, HeapAfterMany, StackAfterMany, GoroutinesAfterMany},
	})
	return all
}

// Named returns the scenario of that name.
func Named(name string) (Scenario, bool) {
	for _, s := range All() {
		if s.Name == name {
			return s, true
		}
	}
	return Scenario{}, false
}

// Measure makes one measurement. Metrics are nil if the column does not do this. How
// long calls are looped over is the flag test.benchtime's to say.
func (s Scenario) Measure(column columns.Column) (Metrics, error) {
	if s.measure != nil {
		return s.measure(column)
	}
	l, err := s.prepare(column)
	if l == nil || err != nil {
		return nil, err
	}
	defer l.close()
	r := testing.Benchmark(l.loop)
	if r.N == 0 {
		return nil, fmt.Errorf("%s of %s: no calls were measured", s.Name, column.Name)
	}
	m := Metrics{
		Wall:   float64(r.T.Nanoseconds()) / float64(r.N),
		Bytes:  float64(r.MemBytes) / float64(r.N),
		Allocs: float64(r.MemAllocs) / float64(r.N),
	}
	maps.Copy(m, r.Extra) // where the loop knows better
	return m, nil
}

// Loops says if the scenario is of calls in a loop, for go test -bench.
func (s Scenario) Loops() bool { return s.prepare != nil }

// Bench is Measure for go test -bench.
func (s Scenario) Bench(b *testing.B, column columns.Column) {
	b.Helper()
	l, err := s.prepare(column)
	if err != nil {
		b.Fatal(err)
	}
	if l == nil {
		b.Skip("the column does not do this")
	}
	defer l.close()
	l.loop(b)
}

// everything is a command with all there is, in the given mode.
func everything(mode columns.Mode, run columns.Run) columns.Spec {
	return columns.Spec{Mode: mode, Run: run, MaxConcurrent: 1000, Timeout: time.Second}
}

func guard(column columns.Column, spec columns.Spec) *columns.Guard {
	if column.New == nil {
		return nil
	}
	return column.New(spec)
}

func closeGuard(g *columns.Guard) {
	if g.Close != nil {
		g.Close()
	}
}

func succeed(context.Context) (int, error) { return 1, nil }

func fail(context.Context) (int, error) { return 0, columns.ErrBoom }
