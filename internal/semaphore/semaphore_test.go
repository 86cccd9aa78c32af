package semaphore

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// turns is who had their turn, in order, as job and what Turn said.
type turns []turn

type turn struct {
	job     any
	granted bool
}

func (ts *turns) waiter(job any) *Waiter {
	return &Waiter{Job: job, Turn: func(granted bool) { *ts = append(*ts, turn{job, granted}) }}
}

// full makes a semaphore whose permits are all out.
func full(limit int) *Semaphore {
	s := New(limit)
	for s.TryAcquire() {
	}
	return s
}

// collide opens the cells as a collision does, however few permits are free.
func collide(s *Semaphore) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.word.load(); st.mode() == plain && st.free() >= 0 {
		s.spreadLocked()
	}
}

func TestAPermitIsTakenAndComesBack(t *testing.T) {
	s := New(2)
	require.True(t, s.TryAcquire())
	require.True(t, s.TryAcquire())
	require.False(t, s.TryAcquire())
	require.Equal(t, 2, s.InFlight())

	require.Equal(t, 2, s.Release())
	require.True(t, s.TryAcquire())
	require.Equal(t, 2, s.Release())
	require.Equal(t, 1, s.Release())
	require.Zero(t, s.InFlight())
}

func TestWaitersHaveTheirTurnInOrder(t *testing.T) {
	var ts turns
	s := full(2)
	for i := range 3 {
		require.Equal(t, Queued, s.Wait(ts.waiter(i), 3))
	}
	require.Equal(t, Full, s.Wait(ts.waiter("no room"), 3))
	require.Equal(t, 3, s.Queued())

	s.Release()
	was, next := s.Pass()
	require.Equal(t, 1, next.Job, "the worker runs it: no Turn")
	require.Equal(t, 2, was)
	s.Release()
	require.Equal(t, turns{{0, true}, {2, true}}, ts)
	was, next = s.Pass()
	require.Nil(t, next)
	require.Equal(t, 2, was)
	require.Equal(t, 1, s.InFlight())
}

func TestAWaiterThatNeedNotWaitIsGranted(t *testing.T) {
	var ts turns
	s := New(1)
	require.Equal(t, Granted, s.Wait(ts.waiter(0), 0))
	require.Equal(t, Full, s.Wait(ts.waiter(1), 0))
	require.Empty(t, ts)
	require.Equal(t, 1, s.InFlight())
}

func TestNobodyOvertakesAWaiter(t *testing.T) {
	var ts turns
	s := full(1)
	s.Wait(ts.waiter(0), 2)
	require.False(t, s.TryAcquire())
	require.Equal(t, Queued, s.Wait(ts.waiter(1), 2))
	s.Release()
	require.False(t, s.TryAcquire())
	require.Equal(t, turns{{0, true}}, ts)
}

func TestI10AWaiterThatGaveUpTakesNothing(t *testing.T) {
	var ts turns
	s := full(1)
	var ws []*Waiter
	for i := range 4 {
		ws = append(ws, ts.waiter(i))
		s.Wait(ws[i], 4)
	}
	for _, i := range []int{0, 2, 3} { // first, middle, last
		require.True(t, s.Withdraw(ws[i]))
		require.False(t, s.Withdraw(ws[i]))
	}
	s.Release()
	require.Equal(t, turns{{1, true}}, ts)
	require.False(t, s.Withdraw(ws[1]), "it has the permit")

	require.Equal(t, Queued, s.Wait(ws[0], 1))
	require.True(t, s.Withdraw(ws[0]))
	s.Release()
	require.True(t, s.TryAcquire(), "nobody waits any more")
}

func TestGrowthLetsWaitersInBeforeResizeReturns(t *testing.T) {
	var ts turns
	s := full(1)
	for i := range 4 {
		s.Wait(ts.waiter(i), 4)
	}
	s.Resize(3)
	require.Equal(t, turns{{0, true}, {1, true}}, ts)
	require.Equal(t, 3, s.InFlight())
	require.Equal(t, 2, s.Queued())
	require.False(t, s.TryAcquire())
}

func TestI1AfterAShrinkInFlightFallsUntilItFits(t *testing.T) {
	var ts turns
	s := full(4)
	s.Wait(ts.waiter(0), 1)
	s.Resize(2)
	require.Equal(t, 1, s.Queued(), "it keeps its place")
	require.Equal(t, 4, s.Release())
	_, next := s.Pass()
	require.Nil(t, next)
	require.False(t, s.TryAcquire())
	require.Empty(t, ts)
	require.Equal(t, 2, s.InFlight())

	s.Release()
	require.Equal(t, turns{{0, true}}, ts)
	require.Equal(t, 2, s.InFlight())
}

func TestCloseIsForGood(t *testing.T) {
	var ts turns
	s := full(2)
	first := ts.waiter(0)
	s.Wait(first, 2)
	s.Wait(ts.waiter(1), 2)
	early := s.Idle()

	s.Close()
	s.Close()
	require.Equal(t, turns{{0, false}, {1, false}}, ts)
	require.False(t, s.Withdraw(first))
	s.Resize(10)
	require.False(t, s.TryAcquire())
	require.Equal(t, Closed, s.Wait(ts.waiter(2), 2))
	require.Equal(t, 2, s.InFlight())
	require.Zero(t, s.Queued())

	late := s.Idle()
	s.Release()
	require.False(t, done(early) || done(late))
	_, next := s.Pass()
	require.Nil(t, next)
	require.True(t, done(early) && done(late) && done(s.Idle()))
}

func TestIdleAtOnceIfNoPermitIsOut(t *testing.T) {
	s := New(1)
	c := s.Idle()
	require.False(t, done(c), "not closed yet")
	s.Close()
	require.True(t, done(c))
}

func done(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestUnlimited(t *testing.T) {
	s := New(Unlimited)
	require.Equal(t, Unlimited, s.Limit())
	s.TryAcquire()
	require.Equal(t, 1, s.InFlight())
	s.spread()
	s.TryAcquire()
	require.Equal(t, 2, s.InFlight())

	s.Resize(1)
	require.Equal(t, 2, s.InFlight())
	require.False(t, s.TryAcquire())
	s.Resize(math.MaxInt)
	require.Equal(t, Unlimited, s.Limit())
	require.True(t, s.TryAcquire())
	require.Equal(t, 3, s.InFlight())
}

func TestMisuseIsAPanic(t *testing.T) {
	require.Panics(t, func() { New(0) })
	require.Panics(t, func() { New(1).Resize(-1) })
	require.PanicsWithValue(t, "semaphore: more releases than permits", func() { New(1).Release() })
	require.PanicsWithValue(t, "semaphore: more releases than permits", func() { New(1).Pass() })
	require.Panics(t, func() {
		s, w := full(1), &Waiter{}
		s.Wait(w, 2)
		s.Wait(w, 2)
	})
}

func TestMisuseShowsWhenCellsAreGathered(t *testing.T) {
	s := New(1000)
	s.spread()
	s.Release()
	require.Zero(t, s.InFlight(), "never negative")
	require.PanicsWithValue(t, "semaphore: more releases than permits", s.Close)
}

func TestCellsOpenOnlyWherePermitsArePlenty(t *testing.T) {
	for _, test := range []struct {
		name string
		s    *Semaphore
		want mode
	}{
		{"a small limit", New(spreadFrom - 1), plain},
		{"a large limit", New(spreadFrom), spread},
		{"no limit", New(Unlimited), spread},
		{"a large limit, used up", full(1000), plain},
		{"closed", func() *Semaphore { s := New(1000); s.Close(); return s }(), closed},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.s.spread()
			require.Equal(t, test.want, test.s.word.load().mode())
		})
	}
}

// All of a limit can be had wherever its permits lie, and not one more.
func TestI1PermitsInCellsAreExact(t *testing.T) {
	s := New(100)
	s.spread()
	for range 50 {
		require.True(t, s.TryAcquire())
	}
	for i := range 50 { // they come back elsewhere than they were taken
		require.True(t, s.cells[i%cellCount].put())
	}
	require.Zero(t, s.InFlight())
	for i := range 100 {
		require.True(t, s.TryAcquire(), i)
	}
	require.Equal(t, 100, s.InFlight())
	require.False(t, s.TryAcquire())
	require.Equal(t, plain, s.word.load().mode(), "the next refusal is one load again")
}

func TestNothingIsAllocated(t *testing.T) {
	acquire := func(s *Semaphore) func() {
		return func() {
			if !s.TryAcquire() {
				panic("refused")
			}
			s.Release()
		}
	}
	cells := New(1000)
	cells.spread()
	refuses, waits := full(1), full(1)
	w := &Waiter{Turn: func(bool) {}}
	for name, f := range map[string]func(){
		"word":    acquire(New(1)),
		"cells":   acquire(cells),
		"refusal": func() { refuses.TryAcquire() },
		"waiter":  func() { waits.Wait(w, 1); waits.Release() },
		"pass":    func() { waits.Wait(w, 1); waits.Pass() },
	} {
		require.Zero(t, testing.AllocsPerRun(100, f), name)
	}
}

// model is a semaphore as one would write it for one goroutine.
type model struct {
	limit, out int
	queue      []*Waiter
	closed     bool
	turns      turns // what Turn should have been called with
}

func (m *model) admit() bool {
	if m.closed || len(m.queue) > 0 || m.out >= m.limit {
		return false
	}
	m.out++
	return true
}

// next takes a permit for the first waiter.
func (m *model) next() *Waiter {
	if m.closed || len(m.queue) == 0 || m.out >= m.limit {
		return nil
	}
	m.out++
	w := m.queue[0]
	m.queue = m.queue[1:]
	return w
}

func (m *model) settle() {
	for w := m.next(); w != nil; w = m.next() {
		m.turns = append(m.turns, turn{w.Job, true})
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := rapid.OneOf(rapid.IntRange(1, 4), rapid.IntRange(spreadFrom, 3*spreadFrom), rapid.Just(Unlimited))
		var got turns
		m := &model{limit: limits.Draw(t, "limit")}
		s := New(m.limit)
		idle := s.Idle()
		var all []*Waiter // ever queued

		held := func(t *rapid.T) {
			if m.out == 0 {
				t.Skip("no permit is out")
			}
		}
		inFlight := func() int { // as a release tells it
			if s.word.load().mode() == spread {
				return 0
			}
			return m.out
		}
		t.Repeat(map[string]func(*rapid.T){
			"TryAcquire": func(t *rapid.T) {
				for range rapid.SampledFrom([]int{1, 1, spreadFrom}).Draw(t, "times") {
					require.Equal(t, m.admit(), s.TryAcquire())
				}
			},
			"Wait": func(t *rapid.T) {
				w, room := got.waiter(len(all)), rapid.IntRange(0, 5).Draw(t, "room")
				want := Queued
				switch {
				case m.closed:
					want = Closed
				case m.admit():
					want = Granted
				case len(m.queue) >= room:
					want = Full
				default:
					m.queue = append(m.queue, w)
					all = append(all, w)
				}
				require.Equal(t, want, s.Wait(w, room))
			},
			"Withdraw": func(t *rapid.T) {
				if len(all) == 0 {
					t.Skip("nobody waited")
				}
				w := rapid.SampledFrom(all).Draw(t, "waiter")
				i := slices.Index(m.queue, w)
				if i >= 0 {
					m.queue = slices.Delete(m.queue, i, i+1)
				}
				require.Equal(t, i >= 0, s.Withdraw(w))
			},
			"Release": func(t *rapid.T) {
				held(t)
				want := inFlight()
				m.out--
				m.settle()
				require.Equal(t, want, s.Release())
			},
			"Pass": func(t *rapid.T) {
				held(t)
				want := inFlight()
				m.out--
				was, next := s.Pass()
				require.Same(t, m.next(), next)
				require.Equal(t, want, was)
			},
			"Resize": func(t *rapid.T) {
				m.limit = limits.Draw(t, "limit")
				m.settle()
				s.Resize(m.limit)
			},
			"Close": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "rarely") > 0 {
					t.Skip()
				}
				for _, w := range m.queue {
					m.turns = append(m.turns, turn{w.Job, false})
				}
				m.closed, m.queue = true, nil
				s.Close()
			},
			// What other goroutines do to the cells: collide, and put back elsewhere.
			"collide": func(*rapid.T) { collide(s) },
			"scatter": func(t *rapid.T) {
				if s.word.load().mode() != spread {
					t.Skip("no cell is open")
				}
				cell := rapid.IntRange(0, cellCount-1)
				for range rapid.IntRange(1, 10).Draw(t, "permits") {
					if s.cells[cell.Draw(t, "from")].take() {
						s.cells[cell.Draw(t, "to")].put()
					}
				}
			},
			"": func(t *rapid.T) {
				require.Equal(t, m.out, s.InFlight())
				require.Equal(t, m.limit, s.Limit())
				require.Equal(t, len(m.queue), s.Queued())
				require.Equal(t, m.turns, got)
				require.Equal(t, m.closed && m.out == 0, done(idle))
			},
		})
	})
}
