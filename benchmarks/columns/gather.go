package columns

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/firebreak-go/firebreak"
)

// Fetch gets what there is of one key. Keys are strings, as singleflight has no others.
type Fetch = func(ctx context.Context, key string) (int, error)

// A Gatherer fetches many keys, so many of them at a time.
type Gatherer struct {
	Gather func(ctx context.Context, keys []string, limit int, fetch Fetch) (values map[string]int, errs map[string]error)
	Does   GatherDoes
}

// GatherDoes says what becomes of the keys for which it matters. The tests hold each
// column to it.
type GatherDoes struct {
	Twice      string // a key that is twice among them
	Ended      string // the keys whose turn has not come when the context ends
	Panic      string // of fetch
	Goroutines string // how many a Gather starts
}

func firebreakGather(ctx context.Context, keys []string, limit int, fetch Fetch) (map[string]int, map[string]error) {
	values, err := firebreak.Gather(ctx, keys, limit, fetch)
	errs, _ := errors.AsType[firebreak.KeyErrors[string]](err)
	return values, errs
}

// errgroupAlone is errgroup as its own example for parallel work has it, with a mutex
// for what is found. Its error is the first of all, so errors are kept by hand too.
var errgroupAlone = Column{
	Name: "errgroup",
	Gather: &Gatherer{
		Gather: func(ctx context.Context, keys []string, limit int, fetch Fetch) (map[string]int, map[string]error) {
			var g errgroup.Group
			g.SetLimit(limit)
			f := newFound(len(keys))
			for _, key := range keys {
				g.Go(func() error {
					v, err := fetch(ctx, key)
					f.put(key, v, err)
					return nil
				})
			}
			_ = g.Wait() // nil: all are in f
			return f.values, f.errs
		},
		Does: GatherDoes{Twice: "twice", Ended: "fetched", Panic: "ends the program", Goroutines: "one a key"},
	},
}

func handmadeGather(ctx context.Context, keys []string, limit int, fetch Fetch) (map[string]int, map[string]error) {
	var fetching sync.WaitGroup
	permits := make(chan struct{}, limit)
	f := newFound(len(keys))
	for _, key := range keys {
		select {
		case permits <- struct{}{}:
		case <-ctx.Done():
		}
		if err := ctx.Err(); err != nil { // select is free to choose the permit
			f.put(key, 0, err)
			continue
		}
		fetching.Go(func() {
			defer func() { <-permits }()
			v, err := fetch(ctx, key)
			f.put(key, v, err)
		})
	}
	fetching.Wait()
	return f.values, f.errs
}

// found is what goroutines put there.
type found struct {
	mu     sync.Mutex
	values map[string]int
	errs   map[string]error // nil till there is one
}

func newFound(n int) *found { return &found{values: make(map[string]int, n)} }

func (f *found) put(key string, v int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.values[key] = v
		return
	}
	if f.errs == nil {
		f.errs = map[string]error{}
	}
	f.errs[key] = err
}
