package columns_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
)

func eachGather(t *testing.T, test func(t *testing.T, g *columns.Gatherer)) {
	for _, column := range columns.All() {
		if g := column.Gather; g != nil {
			t.Run(column.Name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { test(t, g) }) })
		}
	}
}

func TestGatherFindsAll(t *testing.T) {
	eachGather(t, func(t *testing.T, g *columns.Gatherer) {
		values, errs := g.Gather(t.Context(), []string{"a", "no", "b"}, 2, func(_ context.Context, key string) (int, error) {
			if key == "no" {
				return 5, columns.ErrBoom
			}
			return int(key[0]), nil
		})
		require.Equal(t, map[string]int{"a": 'a', "b": 'b'}, values)
		require.Len(t, errs, 1)
		require.ErrorIs(t, errs["no"], columns.ErrBoom)
	})
}

func TestGatherAtMostSoManyAtATime(t *testing.T) {
	eachGather(t, func(t *testing.T, g *columns.Gatherer) {
		var inside, most atomic.Int64
		leave := make(chan struct{})
		var over sync.WaitGroup
		over.Go(func() {
			g.Gather(t.Context(), numbered(20), 3, func(context.Context, string) (int, error) {
				most.Store(max(most.Load(), inside.Add(1)))
				defer inside.Add(-1)
				<-leave
				return 1, nil
			})
		})
		for range 20 {
			synctest.Wait()
			require.LessOrEqual(t, inside.Load(), int64(3))
			leave <- struct{}{}
		}
		over.Wait()
		require.EqualValues(t, 3, most.Load())
	})
}

func TestGatherOfAKeyThatIsThereTwice(t *testing.T) {
	eachGather(t, func(t *testing.T, g *columns.Gatherer) {
		var fetches atomic.Int64
		values, errs := g.Gather(t.Context(), []string{"a", "b", "a"}, 1, func(context.Context, string) (int, error) {
			fetches.Add(1)
			return 1, nil
		})
		require.Equal(t, map[string]int{"a": 1, "b": 1}, values)
		require.Empty(t, errs)
		require.EqualValues(t, map[string]int{"once": 2, "twice": 3}[g.Does.Twice], fetches.Load())
	})
}

func TestGatherWhenTheContextEnds(t *testing.T) {
	eachGather(t, func(t *testing.T, g *columns.Gatherer) {
		ctx, cancel := context.WithCancel(t.Context())
		var fetches atomic.Int64
		leave := make(chan struct{})
		keys := numbered(6)
		var values map[string]int
		var errs map[string]error
		var over sync.WaitGroup
		over.Go(func() {
			values, errs = g.Gather(ctx, keys, 2, func(context.Context, string) (int, error) {
				fetches.Add(1)
				<-leave // deaf to its context
				return 1, nil
			})
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(leave)
		over.Wait()
		if g.Does.Ended == "fetched" {
			require.EqualValues(t, 6, fetches.Load())
			require.Len(t, values, 6)
			return
		}
		require.Equal(t, "have its error", g.Does.Ended)
		require.EqualValues(t, 2, fetches.Load())
		require.Len(t, values, 2)
		for _, key := range keys[2:] {
			require.ErrorIs(t, errs[key], context.Canceled)
		}
	})
}

func TestGatherGoroutines(t *testing.T) {
	eachGather(t, func(t *testing.T, g *columns.Gatherer) {
		var by sync.Map
		g.Gather(t.Context(), numbered(50), 2, func(context.Context, string) (int, error) {
			by.Store(string(goroutine()), true)
			return 1, nil
		})
		n := 0
		by.Range(func(any, any) bool { n++; return true })
		if g.Does.Goroutines == "one a key" {
			require.Equal(t, 50, n)
			return
		}
		require.Equal(t, "the limit", g.Does.Goroutines)
		require.LessOrEqual(t, n, 2)
	})
}

func TestGatherPanic(t *testing.T) {
	eachGather(t, func(t *testing.T, g *columns.Gatherer) {
		gather := func() (map[string]int, map[string]error) {
			return g.Gather(t.Context(), []string{"a", "b"}, 1, func(_ context.Context, key string) (int, error) {
				if key == "a" {
					panic(marker)
				}
				return 1, nil
			})
		}
		if g.Does.Panic == "ends the program" {
			endsTheProgram(t, func() { gather() })
			return
		}
		require.Equal(t, "the key's error", g.Does.Panic)
		values, errs := gather()
		require.Equal(t, map[string]int{"b": 1}, values)
		require.ErrorContains(t, errs["a"], marker)
	})
}

// eachCache has the asks of a request whose fetch is given.
func eachCache(t *testing.T, test func(t *testing.T, does columns.CacheDoes, asks func(columns.Fetch) *columns.Asks)) {
	for _, column := range columns.All() {
		if c := column.Cache; c != nil {
			t.Run(column.Name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					test(t, c.Does, func(fetch columns.Fetch) *columns.Asks { return closed(t, c.New(fetch)) })
				})
			})
		}
	}
}

func closed(t *testing.T, asks *columns.Asks) *columns.Asks {
	t.Helper()
	if asks.Close != nil {
		t.Cleanup(asks.Close)
	}
	return asks
}

func TestCacheKeepsValuesForARequest(t *testing.T) {
	eachCache(t, func(t *testing.T, _ columns.CacheDoes, asks func(columns.Fetch) *columns.Asks) {
		fetches := map[string]int{}
		a := asks(func(_ context.Context, key string) (int, error) {
			fetches[key]++
			return len(key), nil
		})
		for request := 1; request <= 2; request++ {
			ctx, get := a.Begin(t.Context())
			for range 3 {
				for _, key := range []string{"a", "bb"} {
					v, err := get(ctx, key)
					require.NoError(t, err)
					require.Equal(t, len(key), v)
				}
			}
			require.Equal(t, map[string]int{"a": request, "bb": request}, fetches)
		}
	})
}

func TestCacheKeepsNoErrors(t *testing.T) {
	eachCache(t, func(t *testing.T, _ columns.CacheDoes, asks func(columns.Fetch) *columns.Asks) {
		err := columns.ErrBoom
		ctx, get := asks(func(context.Context, string) (int, error) { return 1, err }).Begin(t.Context())
		for range 2 {
			_, got := get(ctx, "a")
			require.ErrorIs(t, got, columns.ErrBoom)
		}
		err = nil
		v, got := get(ctx, "a")
		require.NoError(t, got)
		require.Equal(t, 1, v)
	})
}

func TestCacheSharesAFetch(t *testing.T) {
	eachCache(t, func(t *testing.T, _ columns.CacheDoes, asks func(columns.Fetch) *columns.Asks) {
		f := newHeld()
		ctx, get := asks(f.fetch).Begin(t.Context())
		var over sync.WaitGroup
		for range 10 {
			over.Go(func() {
				v, err := get(ctx, "a")
				assert.NoError(t, err)
				assert.Equal(t, 1, v)
			})
		}
		synctest.Wait()
		close(f.leave)
		over.Wait()
		require.EqualValues(t, 1, f.begun.Load())
	})
}

func TestCacheOfCallersThatLeave(t *testing.T) {
	eachCache(t, func(t *testing.T, does columns.CacheDoes, asks func(columns.Fetch) *columns.Asks) {
		f := newHeld()
		ctx, get := asks(f.fetch).Begin(t.Context())
		theyLeave(t, ctx, does.Ended, does.AllLeft, get, f)
	})
}

// theyLeave has two who wait for one key leave, the second one first.
func theyLeave(t *testing.T, ctx context.Context, ended, allLeft string, get columns.Fetch, f *held) {
	t.Helper()
	var back [2]atomic.Bool
	var cancels [2]context.CancelFunc
	var over sync.WaitGroup
	for i := range 2 {
		ctx, cancel := context.WithCancel(ctx)
		cancels[i] = cancel
		over.Go(func() {
			_, err := get(ctx, "a")
			assert.Equal(t, ended == "leaves", errors.Is(err, context.Canceled))
			back[i].Store(true)
		})
		synctest.Wait()
	}
	for _, i := range []int{1, 0} {
		require.NoError(t, f.ctx.Err(), "somebody is there")
		cancels[i]()
		synctest.Wait()
		require.Equal(t, ended == "leaves", back[i].Load())
	}
	switch allLeft {
	case "its context ends":
		require.ErrorIs(t, f.ctx.Err(), context.Canceled)
	case "goes on":
		require.NoError(t, f.ctx.Err())
	default:
		require.Equal(t, "waits", ended, "nobody can leave")
	}
	close(f.leave)
	over.Wait()
}

// A held fetch, or load, is deaf to its context, and stays till it may leave.
type held struct {
	begun atomic.Int64
	ctx   context.Context // of the first; read it while all are blocked
	leave chan struct{}
}

func newHeld() *held { return &held{leave: make(chan struct{})} }

func (h *held) hold(ctx context.Context) {
	if h.begun.Add(1) == 1 {
		h.ctx = ctx
	}
	<-h.leave
}

func (h *held) fetch(ctx context.Context, _ string) (int, error) {
	h.hold(ctx)
	return 1, nil
}

func (h *held) load(ctx context.Context, keys []string, answer func(i, v int)) error {
	h.hold(ctx)
	for i := range keys {
		answer(i, 1)
	}
	return nil
}

func TestWhereFetchIsCalled(t *testing.T) {
	eachCache(t, func(t *testing.T, does columns.CacheDoes, asks func(columns.Fetch) *columns.Asks) {
		var by []byte
		ctx, get := asks(func(context.Context, string) (int, error) {
			by = goroutine()
			return 1, nil
		}).Begin(t.Context())
		_, err := get(ctx, "a")
		require.NoError(t, err)
		require.Equal(t, does.Runs == "first caller", bytes.Equal(by, goroutine()))
	})
}

func TestCachePanic(t *testing.T) {
	eachCache(t, func(t *testing.T, does columns.CacheDoes, asks func(columns.Fetch) *columns.Asks) {
		leave := make(chan struct{})
		ctx, get := asks(func(context.Context, string) (int, error) {
			<-leave
			panic(marker)
		}).Begin(t.Context())
		if does.Panic == "ends the program" {
			close(leave)
			endsTheProgram(t, func() { _, _ = get(ctx, "a") })
			return
		}
		var over sync.WaitGroup
		for range 3 {
			over.Go(func() {
				if does.Panic == "everybody's panic" {
					assert.Panics(t, func() { _, _ = get(ctx, "a") })
					return
				}
				_, err := get(ctx, "a")
				assert.ErrorContains(t, err, marker)
			})
		}
		synctest.Wait()
		close(leave)
		over.Wait()
	})
}

// eachCollapser makes batches with a timeout of 20 ms, one permit and a window of a second.
func eachCollapser(t *testing.T, test func(t *testing.T, does columns.CollapseDoes, asks func(columns.Batch) columns.Fetch)) {
	for _, column := range columns.All() {
		if c := column.Collapse; c != nil {
			t.Run(column.Name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					test(t, c.Does, func(b columns.Batch) columns.Fetch {
						b.Window = time.Second
						_, get := closed(t, c.New(columns.Spec{Mode: columns.Everything, MaxConcurrent: 1, Timeout: 20 * time.Millisecond, Trips: true}, b)).Begin(t.Context())
						return get
					})
				})
			})
		}
	}
}

// lengths answers each key with its length, and keeps the keys of each batch.
type lengths struct {
	mu      sync.Mutex
	batches [][]string
	err     error
}

func (l *lengths) load(_ context.Context, keys []string, answer func(i, v int)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batches = append(l.batches, keys)
	for i, key := range keys {
		answer(i, len(key))
	}
	return l.err
}

func (l *lengths) loaded() [][]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.batches
}

// ask has each key asked for by a goroutine of its own, one after the other.
func ask(t *testing.T, get columns.Fetch, keys ...string) *sync.WaitGroup {
	t.Helper()
	var over sync.WaitGroup
	for _, key := range keys {
		over.Go(func() {
			v, err := get(t.Context(), key)
			assert.NoError(t, err)
			assert.Equal(t, len(key), v)
		})
		synctest.Wait()
	}
	return &over
}

func TestFullBatchLeavesAtOnce(t *testing.T) {
	eachCollapser(t, func(t *testing.T, _ columns.CollapseDoes, asks func(columns.Batch) columns.Fetch) {
		var l lengths
		get, start := asks(columns.Batch{Load: l.load, Most: 3}), time.Now()
		ask(t, get, "a", "bb", "ccc").Wait()
		ask(t, get, "a", "bb", "ccc").Wait() // nothing is kept
		require.Zero(t, time.Since(start))
		require.Equal(t, [][]string{{"a", "bb", "ccc"}, {"a", "bb", "ccc"}}, l.batches)
	})
}

func TestBatchLeavesAfterItsWindow(t *testing.T) {
	eachCollapser(t, func(t *testing.T, _ columns.CollapseDoes, asks func(columns.Batch) columns.Fetch) {
		var l lengths
		over := ask(t, asks(columns.Batch{Load: l.load, Most: 3}), "a", "bb")
		time.Sleep(time.Second - time.Nanosecond)
		synctest.Wait()
		require.Empty(t, l.loaded())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, [][]string{{"a", "bb"}}, l.loaded())
		over.Wait()
	})
}

func TestErrorOfLoadIsEverybodys(t *testing.T) {
	eachCollapser(t, func(t *testing.T, _ columns.CollapseDoes, asks func(columns.Batch) columns.Fetch) {
		l := lengths{err: columns.ErrBoom}
		get := asks(columns.Batch{Load: l.load, Most: 2})
		var over sync.WaitGroup
		for _, key := range []string{"a", "bb"} {
			over.Go(func() {
				_, err := get(t.Context(), key)
				assert.ErrorIs(t, err, columns.ErrBoom)
			})
		}
		over.Wait()
		require.Len(t, l.batches, 1)
	})
}

func TestKeptValuesAreOfARequest(t *testing.T) {
	for _, column := range columns.All() {
		c := column.Collapse
		if c == nil {
			continue
		}
		t.Run(column.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l lengths
				a := closed(t, c.New(columns.Spec{Mode: columns.Everything, MaxConcurrent: 1, Timeout: time.Minute}, columns.Batch{
					Load: l.load, Most: 2, Window: time.Second, Keep: true,
				}))
				for request := range 2 {
					ctx, get := a.Begin(t.Context())
					for range 2 {
						ask(t, func(_ context.Context, key string) (int, error) { return get(ctx, key) }, "a", "bb").Wait()
						require.Len(t, l.batches, request+1)
						require.ElementsMatch(t, []string{"a", "bb"}, l.batches[request])
					}
				}
			})
		})
	}
}

func TestAKeyThatTwoAskForInOneBatch(t *testing.T) {
	eachCollapser(t, func(t *testing.T, does columns.CollapseDoes, asks func(columns.Batch) columns.Fetch) {
		var l lengths
		ask(t, asks(columns.Batch{Load: l.load, Most: 100}), "a", "a").Wait()
		require.Equal(t, map[string][][]string{"is loaded once": {{"a"}}, "is loaded twice": {{"a", "a"}}}[does.Twice], l.batches)
	})
}

func TestLoadIsLimitedInTime(t *testing.T) {
	eachCollapser(t, func(t *testing.T, does columns.CollapseDoes, asks func(columns.Batch) columns.Fetch) {
		f := newHeld()
		get := asks(columns.Batch{Load: f.load, Most: 1})
		var over sync.WaitGroup
		over.Go(func() { _, _ = get(t.Context(), "a") })
		synctest.Wait()
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		if does.Timeout == "" {
			time.Sleep(time.Hour)
			require.NoError(t, f.ctx.Err())
		} else {
			require.Equal(t, "context", does.Timeout)
			require.ErrorIs(t, f.ctx.Err(), context.DeadlineExceeded)
		}
		close(f.leave)
		over.Wait()
	})
}

func TestLoadsAtOnceAreLimited(t *testing.T) {
	eachCollapser(t, func(t *testing.T, does columns.CollapseDoes, asks func(columns.Batch) columns.Fetch) {
		f := newHeld()
		get := asks(columns.Batch{Load: f.load, Most: 1})
		var over sync.WaitGroup
		var refused atomic.Int64
		for range 3 {
			over.Go(func() {
				if _, err := get(t.Context(), "a"); err != nil {
					refused.Add(1)
				}
			})
			synctest.Wait()
		}
		if does.Limit == "" {
			require.EqualValues(t, 3, f.begun.Load())
		} else {
			require.EqualValues(t, 1, f.begun.Load())
			require.EqualValues(t, 2, refused.Load())
		}
		close(f.leave)
		over.Wait()
	})
}

func TestLoadsThatFailTripTheCircuit(t *testing.T) {
	eachCollapser(t, func(t *testing.T, does columns.CollapseDoes, asks func(columns.Batch) columns.Fetch) {
		l := lengths{err: columns.ErrBoom}
		get := asks(columns.Batch{Load: l.load, Most: 1})
		const calls = 50
		for range calls {
			_, err := get(t.Context(), "a")
			require.Error(t, err)
		}
		if does.Breaker == "" {
			require.Len(t, l.batches, calls)
			return
		}
		require.NotEmpty(t, l.batches)
		require.Less(t, len(l.batches), calls/2)
	})
}

func TestCollapseOfCallersThatLeave(t *testing.T) {
	eachCollapser(t, func(t *testing.T, does columns.CollapseDoes, asks func(columns.Batch) columns.Fetch) {
		f := newHeld()
		get := asks(columns.Batch{Load: f.load, Most: 2})
		var n atomic.Int64
		theyLeave(t, t.Context(), does.Ended, does.AllLeft, func(ctx context.Context, _ string) (int, error) {
			return get(ctx, fmt.Sprint(n.Add(1))) // two keys: the batch is full and leaves
		}, f)
	})
}

func TestLoadPanic(t *testing.T) {
	log.SetOutput(io.Discard) // dataloader tells it to the log
	defer log.SetOutput(os.Stderr)
	eachCollapser(t, func(t *testing.T, does columns.CollapseDoes, asks func(columns.Batch) columns.Fetch) {
		require.Equal(t, "everybody's error", does.Panic)
		get := asks(columns.Batch{Most: 2, Load: func(context.Context, []string, func(i, v int)) error { panic(marker) }})
		var over sync.WaitGroup
		for _, key := range []string{"a", "b"} {
			over.Go(func() {
				_, err := get(t.Context(), key)
				assert.ErrorContains(t, err, marker)
			})
		}
		over.Wait()
	})
}

const (
	marker = "a panic that the test wants"
	dying  = "FIREBREAK_TEST_DIES"
)

// endsTheProgram runs this test once more, in a process of its own, which must die of it.
func endsTheProgram(t *testing.T, f func()) {
	t.Helper()
	if os.Getenv(dying) != "" {
		f()
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), dying+"=1")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "panic: "+marker)
}

func numbered(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint(i)
	}
	return out
}
