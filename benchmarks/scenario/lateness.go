package scenario

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
)

// The units of lateness: how long after its deadline a caller is back.
const (
	LateP50  = "late-p50-ms"
	LateP99  = "late-p99-ms"
	LateMax  = "late-max-ms"
	Early    = "early" // callers that were back before
	Stranded = "goroutines/blocked-call"
)

// lateness has callers that want to be back after 10 ms from a run that is deaf to its
// context and takes 50. A round begins when all runs of the last one are over.
type lateness struct {
	name    string
	mode    columns.Mode
	callers int
	rounds  int
}

const (
	wanted = 10 * time.Millisecond
	taken  = 50 * time.Millisecond
	// Callers come at one pace for all columns. If they came all at once, then in the
	// column that admits them fastest they would go in the densest crowd, and be the
	// latest for it.
	apart = 25 * time.Microsecond
)

func (l lateness) what() string {
	where := "on the caller's goroutine"
	if l.mode == columns.Pool {
		where = "on another goroutine"
	}
	return fmt.Sprintf("run is deaf for %v %s, the timeout is %v, callers waiting at once: %d; by the wall clock", taken, where, wanted, l.callers)
}

func (l lateness) measure(column columns.Column) (Metrics, error) {
	var blocked atomic.Int64
	spec := everything(l.mode, func(context.Context) (int, error) {
		blocked.Add(1)
		defer blocked.Add(-1)
		time.Sleep(taken)
		return 1, nil
	})
	spec.Timeout, spec.MaxConcurrent = wanted, 100_000
	g := guard(column, spec)
	if g == nil {
		return nil, nil
	}
	defer closeGuard(g)
	onCaller := g.Does.Runs == "caller"
	if g.Does.Timeout == "" || onCaller != (l.mode == columns.Everything) {
		return nil, nil
	}

	idle := runtime.NumGoroutine()
	late := make([]time.Duration, l.callers*l.rounds)
	var stranded float64
	round := func(late []time.Duration) {
		var callers sync.WaitGroup
		begin := time.Now()
		for i := range late {
			for time.Since(begin) < time.Duration(i)*apart { // a sleep would be too coarse
			}
			callers.Go(func() {
				start := time.Now()
				_, _ = g.Call(context.Background())
				late[i] = time.Since(start) - wanted
			})
		}
		callers.Wait()
		stranded = float64(runtime.NumGoroutine()-idle) / max(float64(blocked.Load()), 1)
		for blocked.Load() > 0 {
			time.Sleep(time.Millisecond)
		}
	}
	round(make([]time.Duration, l.callers)) // stacks and timers are made
	for chunk := range slices.Chunk(late, l.callers) {
		round(chunk)
	}

	slices.Sort(late)
	early, _ := slices.BinarySearch(late, 0)
	return Metrics{
		LateP50: milliseconds(percentile(late, 50)), LateP99: milliseconds(percentile(late, 99)), LateMax: milliseconds(late[len(late)-1]),
		Early: float64(early), Stranded: stranded,
	}, nil
}

// percentile is of sorted times.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[min(len(sorted)*p/100, len(sorted)-1)]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
