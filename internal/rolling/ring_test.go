package rolling

import (
	"math"
	"testing"
	"time"

	"github.com/firebreak-go/firebreak/internal/mono"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// opened advances r and returns the slots that were opened.
func opened(r *Ring, now mono.Time) (slots []int) {
	r.Advance(now, func(slot int) { slots = append(slots, slot) })
	return slots
}

func TestRingHoldsNothingBeforeItsFirstAdvance(t *testing.T) {
	r := NewRing(time.Second, 3)
	for _, now := range []mono.Time{-1 << 62, -1, 0, 1, 1 << 62} {
		require.False(t, r.Holds(now))
		_, ok := r.Oldest(now)
		require.False(t, ok)
	}
	require.Equal(t, []int{0, 1, 2}, opened(r, 0))
	require.True(t, r.Holds(0))
}

func TestRingByHand(t *testing.T) {
	const s = mono.Time(time.Second)
	r := NewRing(time.Second, 3)
	for _, step := range []struct {
		at     mono.Time
		opened []int
		newest int
	}{
		{-s - 1, []int{0, 1, 2}, 2}, // bucket −2: floors
		{-s, []int{0}, 0},
		{-1, nil, 0},
		{0, []int{1}, 1},
		{2*s - 1, []int{2}, 2},
		{s - 1, nil, 2},  // a little older
		{-2 * s, nil, 2}, // 3 buckets are not more than the window
		{4 * s, []int{0, 1, 2}, 2},
		{6 * s, []int{0, 1}, 1},
		{3 * s, nil, 1},
		{3*s - 1, []int{2, 0, 1}, 1}, // more than a window: all over
		{1000 * s, []int{2, 0, 1}, 1},
		{-mono.Time(26 * 365 * 24 * time.Hour), []int{2, 0, 1}, 1},
	} {
		require.Equal(t, step.opened, opened(r, step.at), "at %d", step.at)
		require.Equal(t, step.newest, r.Newest(), "at %d", step.at)
	}
}

func TestOldestOnBothSidesOfTheEdge(t *testing.T) {
	const s = mono.Time(time.Second)
	r := NewRing(time.Second, 3)
	opened(r, 10*s)
	for _, c := range []struct {
		now  mono.Time
		slot int
		ok   bool
	}{
		{7*s - 1, 0, false}, // would begin all over
		{7 * s, 0, true},
		{11*s - 1, 0, true},
		{11 * s, 1, true},
		{12*s - 1, 1, true},
		{12 * s, 2, true},
		{13*s - 1, 2, true},
		{13 * s, 0, false},
		{math.MaxInt64, 0, false},
		{math.MinInt64, 0, false},
	} {
		slot, ok := r.Oldest(c.now)
		require.Equal(t, c.ok, ok, "at %d", c.now)
		if ok {
			require.Equal(t, c.slot, slot, "at %d", c.now)
		}
	}
	require.True(t, r.Holds(10*s), "Oldest moved it")
}

// From one end of the int64s to the other, where distances do not fit into one.
func TestRingAtTheEndsOfTime(t *testing.T) {
	for _, length := range []time.Duration{1, 2, 7, time.Second, math.MaxInt64 - 1, math.MaxInt64} {
		for _, now := range []mono.Time{math.MinInt64, mono.Never} {
			r := NewRing(length, 3)
			_, ok := r.Oldest(now)
			require.False(t, ok)
			require.Len(t, opened(r, now), 3)
		}
		r := NewRing(length, 3)
		for _, now := range []mono.Time{math.MinInt64, math.MaxInt64, math.MinInt64, 0, math.MaxInt64 - 1, -1} {
			for _, slot := range opened(r, now) {
				require.Contains(t, []int{0, 1, 2}, slot)
			}
			require.True(t, r.Holds(now) || length > 1<<60)
			_, ok := r.Oldest(now)
			require.True(t, ok)
		}
	}
}

// checkRing keeps outcomes by the slots of a ring, and holds it against a list.
func checkRing(t require.TestingT, length int64, slots int, steps []step) {
	r := NewRing(time.Duration(length), slots)
	model := &naive{length: length, buckets: int64(slots)}
	kept := make([][]int, slots)
	read := func(now mono.Time) {
		var got, want []int
		if slot, ok := r.Oldest(now); ok {
			for ; slot != r.Newest(); slot = (slot + 1) % slots {
				got = append(got, kept[slot]...)
			}
			got = append(got, kept[slot]...)
		}
		for _, o := range model.window(now) {
			want = append(want, o.id)
		}
		require.Equal(t, want, got, "at %d", now)
		require.Equal(t, model.holds(now), r.Holds(now), "at %d", now)
	}
	for id, s := range steps {
		read(s.now)
		if s.add {
			begun := map[int]bool{}
			r.Advance(s.now, func(slot int) {
				require.False(t, begun[slot], "slot %d was opened twice", slot)
				begun[slot] = true
				kept[slot] = nil
			})
			kept[r.Newest()] = append(kept[r.Newest()], id)
			model.add(s.now, outcome{id: id})
		}
		read(s.other)
		read(s.now)
	}
}

func TestRingAgainstAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		length := rapid.OneOf(rapid.Int64Range(1, 100), rapid.Int64Range(1, 1<<60)).Draw(t, "length")
		slots := rapid.IntRange(1, 12).Draw(t, "slots")
		checkRing(t, length, slots, script(scripts().Draw(t, "script"), length))
	})
}

func FuzzRing(f *testing.F) {
	for _, seed := range seeds {
		f.Add(int64(time.Second), uint8(3), seed)
		f.Add(int64(1), uint8(1), seed)
	}
	f.Fuzz(func(t *testing.T, length int64, slots uint8, data []byte) {
		length = max(length&(1<<60-1), 1)
		checkRing(t, length, int(slots%12)+1, script(data, length))
	})
}

func TestAdvanceAllocatesNothing(t *testing.T) {
	r, now, slots := NewRing(1, 3), mono.Time(0), 0
	require.Zero(t, testing.AllocsPerRun(100, func() {
		now++
		r.Advance(now, func(int) { slots++ })
	}))
	require.Equal(t, 3+100, slots) // AllocsPerRun runs once more, before it counts
}
