package columns

import (
	"context"
	"time"

	"github.com/graph-gophers/dataloader/v7"

	"github.com/firebreak-go/firebreak"
)

// A Load answers for many keys at once. answer is called for each of them, by its place
// in keys; what it makes of that is the column's. One that does not return an answer to
// all returns an error, which is that of them all.
type Load = func(ctx context.Context, keys []string, answer func(i, v int)) error

// A Batch says when the keys that were asked for one by one are loaded.
type Batch struct {
	Load   Load
	Most   int           // so many at the latest
	Window time.Duration // after the first one
	Keep   bool          // values are kept for a request, which has batches of its own
}

// A Collapser makes one call of many questions.
type Collapser struct {
	New  func(s Spec, b Batch) *Asks // of s: MaxConcurrent, Timeout and Trips
	Does CollapseDoes
}

// CollapseDoes says what a column does beside making batches. The tests hold each column to
// it.
type CollapseDoes struct {
	Timeout string // "context": load is told
	Limit   string // of loads at once
	Breaker string
	Metrics string
	Twice   string // a key that two ask for in one batch
	Ended   string // a caller whose context ends: "leaves" or "waits"
	AllLeft string // what becomes of load when all have left
	Panic   string // of load
}

func firebreakCollapse(s Spec, b Batch) *Asks {
	reg := firebreak.NewRegistry(firebreak.Config{})
	config := firebreakConfig(s)
	config.MaxBatch, config.BatchWindow = b.Most, b.Window
	cmd := reg.Command("benchmark", config)
	get := firebreak.Collapse(cmd, func(ctx context.Context, keys []string) (map[string]int, error) {
		values := make(map[string]int, len(keys))
		err := b.Load(ctx, keys, func(i, v int) { values[keys[i]] = v })
		return values, err
	})
	begin := func(ctx context.Context) (context.Context, Fetch) { return ctx, get }
	if b.Keep {
		get = firebreak.Cached(cmd, get)
		begin = func(ctx context.Context) (context.Context, Fetch) { return firebreak.WithScope(ctx), get }
	}
	return &Asks{Begin: begin, Close: func() { shutDown(reg) }}
}

// dataloaderAlone has a loader for each request if it is to keep values, as its
// documentation asks, and otherwise one without a cache.
var dataloaderAlone = Column{
	Name: "dataloader",
	Collapse: &Collapser{
		New: func(_ Spec, b Batch) *Asks {
			if b.Keep {
				return &Asks{Begin: func(ctx context.Context) (context.Context, Fetch) { return ctx, newLoader(b) }}
			}
			get := newLoader(b, dataloader.WithCache(&dataloader.NoCache[string, int]{}))
			return &Asks{Begin: func(ctx context.Context) (context.Context, Fetch) { return ctx, get }}
		},
		Does: CollapseDoes{Twice: "is loaded twice", Ended: "waits", Panic: "everybody's error"},
	},
}

func newLoader(b Batch, options ...dataloader.Option[string, int]) Fetch {
	load := func(ctx context.Context, keys []string) []*dataloader.Result[int] {
		// One array for all: made one by one, each would be an allocation.
		results, pointers := make([]dataloader.Result[int], len(keys)), make([]*dataloader.Result[int], len(keys))
		err := b.Load(ctx, keys, func(i, v int) { results[i].Data = v })
		for i := range results {
			results[i].Error = err
			pointers[i] = &results[i]
		}
		return pointers
	}
	options = append(options, dataloader.WithBatchCapacity[string, int](b.Most), dataloader.WithWait[string, int](b.Window))
	l := dataloader.NewBatchedLoader(load, options...)
	return func(ctx context.Context, key string) (int, error) { return l.Load(ctx, key)() }
}
