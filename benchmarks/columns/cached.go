package columns

import (
	"context"
	"sync"

	"golang.org/x/sync/singleflight"

	"github.com/firebreak-go/firebreak"
)

// Asks are questions for one key each, which share answers or calls.
type Asks struct {
	// Begin begins a request: what is kept is kept for those who ask in it, under ctx or
	// one derived from it. Where nothing is kept, requests share batches.
	Begin func(ctx context.Context) (context.Context, Fetch)
	Close func() // nil: there is nothing to close
}

// A Cache keeps values for one request, errors not, and fetches a key once for all who ask
// meanwhile.
type Cache struct {
	New  func(fetch Fetch) *Asks
	Does CacheDoes
}

// CacheDoes says how a key is fetched that many wait for. The tests hold each column to
// it.
type CacheDoes struct {
	Runs    string // where fetch is called: "first caller", or how many goroutines it takes
	Ended   string // a waiter whose context ends: "leaves" or "waits"
	AllLeft string // what becomes of fetch when all have
	Panic   string // of fetch
}

// firebreakCache has a fetch that no command guards, as the others have: its command is
// where hits are counted.
func firebreakCache(fetch Fetch) *Asks {
	reg := firebreak.NewRegistry(firebreak.Config{})
	get := firebreak.Cached(reg.Command("benchmark", firebreak.Config{}), fetch)
	return &Asks{
		Begin: func(ctx context.Context) (context.Context, Fetch) { return firebreak.WithScope(ctx), get },
		Close: func() { shutDown(reg) },
	}
}

// singleflightAlone is Group.Do, with a sync.Map of what is kept.
var singleflightAlone = Column{
	Name: "singleflight",
	Cache: &Cache{
		New: func(fetch Fetch) *Asks {
			return &Asks{Begin: func(ctx context.Context) (context.Context, Fetch) {
				return ctx, (&flights{fetch: fetch}).get
			}}
		},
		Does: CacheDoes{Runs: "first caller", Ended: "waits", Panic: "everybody's panic"},
	},
}

// flights are those of one request, and the values they brought.
type flights struct {
	fetch Fetch
	kept  sync.Map
	group singleflight.Group
}

func (f *flights) get(ctx context.Context, key string) (int, error) {
	if v, ok := f.kept.Load(key); ok {
		return v.(int), nil
	}
	v, err, _ := f.group.Do(key, func() (any, error) {
		if v, ok := f.kept.Load(key); ok { // a flight has ended since this caller looked
			return v, nil
		}
		v, err := f.fetch(ctx, key)
		if err == nil {
			f.kept.Store(key, v)
		}
		return v, err
	})
	n, _ := v.(int)
	return n, err
}

// handmadeCache is what a careful person writes: Group.DoChan, so that each who waits may
// leave, also the first, and a map that knows its types.
func handmadeCache(fetch Fetch) *Asks {
	return &Asks{Begin: func(ctx context.Context) (context.Context, Fetch) {
		return ctx, (&handmadeFlights{fetch: fetch, kept: map[string]int{}}).get
	}}
}

type handmadeFlights struct {
	fetch Fetch
	group singleflight.Group

	mu   sync.RWMutex
	kept map[string]int
}

func (f *handmadeFlights) known(key string) (int, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	v, ok := f.kept[key]
	return v, ok
}

func (f *handmadeFlights) keep(key string, v int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept[key] = v
}

func (f *handmadeFlights) get(ctx context.Context, key string) (int, error) {
	if v, ok := f.known(key); ok {
		return v, nil
	}
	flight := f.group.DoChan(key, func() (any, error) {
		if v, ok := f.known(key); ok { // a flight has ended since this caller looked
			return v, nil
		}
		v, err := f.fetch(context.WithoutCancel(ctx), key)
		if err == nil {
			f.keep(key, v)
		}
		return v, err
	})
	select {
	case r := <-flight:
		n, _ := r.Val.(int)
		return n, r.Err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
