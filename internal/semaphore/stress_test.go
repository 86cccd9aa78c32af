package semaphore

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// stressLimits are of one word, on the edge, and of cells.
var stressLimits = []int{1, 3, spreadFrom - 1, spreadFrom, 2 * spreadFrom, Unlimited}

func onProcs(t *testing.T, f func(t *testing.T)) {
	for _, procs := range []int{1, 2, 8} {
		t.Run(fmt.Sprint("procs=", procs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			f(t)
		})
	}
}

// A crowd is goroutines that do all that callers and workers may do, at random.
// held counts holders from after they are admitted to before they leave, so it is
// never more than is in flight.
type crowd struct {
	s    *Semaphore
	room int

	held     atomic.Int64
	admitted atomic.Int64
	gaveUp   atomic.Int64
	refused  atomic.Int64

	resizes atomic.Int64 // odd during one
	over    atomic.Pointer[string]
}

// entered counts a holder who began to ask after so many resizes. If there was none
// since, there may be no more holders than the limit.
func (c *crowd) entered(resizes int64) {
	c.admitted.Add(1)
	held, limit := c.held.Add(1), c.s.Limit()
	if resizes%2 == 0 && c.resizes.Load() == resizes && held > int64(limit) {
		over := fmt.Sprintf("%d hold, the limit is %d", held, limit)
		c.over.Store(&over)
	}
}

func (c *crowd) leave(r *rand.Rand) {
	c.held.Add(-1)
	if r.IntN(2) == 0 {
		c.s.Release()
	} else if _, w := c.s.Pass(); w != nil {
		w.Turn(true)
	}
}

// ask reports whether a permit was had.
func (c *crowd) ask(r *rand.Rand) bool {
	resizes := c.resizes.Load()
	if r.IntN(8) == 0 {
		collide(c.s) // few processors do so too rarely
	}
	if r.IntN(3) > 0 {
		if !c.s.TryAcquire() {
			c.refused.Add(1)
			return false
		}
		c.entered(resizes)
		return true
	}

	turn := make(chan bool, 1)
	w := &Waiter{Turn: func(granted bool) {
		if granted {
			c.entered(resizes)
		}
		turn <- granted
	}}
	switch c.s.Wait(w, c.room) {
	case Granted:
		c.entered(resizes)
		return true
	case Queued:
		if r.IntN(2) == 0 {
			yield(r)
			if c.s.Withdraw(w) {
				c.gaveUp.Add(1)
				return false
			}
		}
		return <-turn
	}
	c.refused.Add(1)
	return false
}

// run lets n goroutines ask so many times each, and holds what they get for a while.
func (c *crowd) run(n, times int) (wait func()) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 0))
			for range times {
				if c.ask(r) {
					yield(r)
					c.leave(r)
				}
			}
		})
	}
	return wg.Wait
}

func yield(r *rand.Rand) {
	for range r.IntN(3) {
		runtime.Gosched()
	}
}

// atRest checks that all permits are back, that nobody is left waiting, and that the
// whole limit can be had again.
func (c *crowd) atRest(t *testing.T) {
	t.Helper()
	if over := c.over.Load(); over != nil {
		t.Error(*over)
	}
	require.Zero(t, c.held.Load())
	require.Zero(t, c.s.InFlight())
	require.Zero(t, c.s.Queued())
	for range min(c.s.Limit(), 1000) {
		require.True(t, c.s.TryAcquire())
	}
	require.Equal(t, c.s.Limit() > 1000, c.s.TryAcquire())
	t.Log(c.admitted.Load(), "admitted,", c.gaveUp.Load(), "gave up,", c.refused.Load(), "refused")
}

// Also I2 and I10: a permit that came back twice, not at all, or to a waiter that
// gave up is missing or too many at the end; and that run returns at all means that
// every waiter had its turn.
func TestI1NeverAboveAFixedLimit(t *testing.T) {
	onProcs(t, func(t *testing.T) {
		for _, limit := range stressLimits {
			t.Run(fmt.Sprint("limit=", limit), func(t *testing.T) {
				c := &crowd{s: New(limit), room: 8}
				c.run(min(limit, 64)+16, 500)()
				c.atRest(t)
			})
		}
	})
}

func TestI1NeverAboveTheLimitOnceResized(t *testing.T) {
	onProcs(t, func(t *testing.T) {
		c := &crowd{s: New(1), room: 16}
		quit, resizer := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(resizer)
			for i := 0; !done(quit); i++ {
				c.resizes.Add(1)
				c.s.Resize(stressLimits[i*5%len(stressLimits)]) // up and down
				c.resizes.Add(1)
				for range i % 32 {
					runtime.Gosched()
				}
			}
		}()
		c.run(80, 1000)()
		close(quit)
		<-resizer
		c.atRest(t)
	})
}

// As many goroutines as permits, each with one at most: nobody may be refused, ever,
// while the permits go into cells and out of them.
func TestI2APermitThatIsBackCanBeHad(t *testing.T) {
	onProcs(t, func(t *testing.T) {
		for _, limit := range []int{1, 2, 4} {
			s := New(limit)
			var refused atomic.Int64
			var holders sync.WaitGroup
			quit, mover := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(mover)
				for !done(quit) {
					collide(s)
					for range rand.IntN(20) {
						runtime.Gosched()
					}
					s.Resize(limit) // gathers
				}
			}()
			for range limit {
				holders.Go(func() {
					for range 10_000 {
						if !s.TryAcquire() {
							refused.Add(1)
							continue
						}
						s.Release()
					}
				})
			}
			holders.Wait()
			close(quit)
			<-mover
			require.Zero(t, refused.Load())
			require.Zero(t, s.InFlight())
		}
	})
}

// The last permit comes back just as a waiter comes: either it finds the permit, or
// the permit finds it.
func TestNoPermitIsStrandedWhileAWaiterComes(t *testing.T) {
	onProcs(t, func(t *testing.T) {
		const rounds = 20_000
		s := full(1)
		var begun, ended atomic.Int64
		var releaser sync.WaitGroup
		releaser.Go(func() {
			for i := range int64(rounds) {
				await(&begun, i+1)
				s.Release()
				ended.Add(1)
			}
		})
		stranded := 0
		for i := range int64(rounds) {
			turn := make(chan bool, 1)
			w := &Waiter{Turn: func(granted bool) { turn <- granted }}
			begun.Add(1)
			for range i % 64 { // so that they meet at every point
				_ = begun.Load()
			}
			place := s.Wait(w, 1)
			await(&ended, i+1)
			if place == Queued && s.Withdraw(w) {
				stranded++
				require.True(t, s.TryAcquire())
			}
		}
		releaser.Wait()
		require.Zero(t, stranded)
		require.Equal(t, 1, s.InFlight())
	})
}

// await spins, as a goroutine that has to be woken would come too late to collide.
func await(n *atomic.Int64, at int64) {
	for spins := 1; n.Load() < at; spins++ {
		if spins%100 == 0 {
			runtime.Gosched()
		}
	}
}

// One after another they come, while many permits come back at once.
func TestTurnsAreFIFOWhilePermitsComeBack(t *testing.T) {
	const permits, waiters = 4, 4000
	onProcs(t, func(t *testing.T) {
		s := full(permits)
		var order []int // appended to with the semaphore's mutex held
		var granted int
		out := make(chan struct{}, permits+waiters)
		for range permits {
			out <- struct{}{}
		}

		var releasers sync.WaitGroup
		for range permits {
			releasers.Go(func() {
				for range (permits + waiters) / permits {
					<-out
					s.Release()
				}
			})
		}
		for i := range waiters {
			w := &Waiter{Turn: func(bool) {
				order = append(order, i)
				out <- struct{}{}
			}}
			if s.Wait(w, waiters) == Granted {
				granted++
				out <- struct{}{}
			}
		}
		releasers.Wait() // every waiter had its turn, or this would not return

		require.Len(t, order, waiters-granted)
		require.True(t, slices.IsSorted(order))
		require.Zero(t, s.InFlight())
	})
}

func TestCloseUnderLoad(t *testing.T) {
	onProcs(t, func(t *testing.T) {
		for _, limit := range stressLimits {
			for range 20 {
				c := &crowd{s: New(limit), room: 8}
				idle := c.s.Idle()
				wait := c.run(16, 100)
				for range limit % 7 {
					runtime.Gosched()
				}
				c.s.Close()
				admitted := c.admitted.Load()
				<-idle
				require.Zero(t, c.s.InFlight())
				require.Zero(t, c.held.Load())
				require.LessOrEqual(t, c.admitted.Load()-admitted, int64(16), "admitted, but not counted yet")
				wait()
				require.Zero(t, c.s.InFlight())
				require.Zero(t, c.s.Queued())
				require.Nil(t, c.over.Load())
			}
		}
	})
}
