package rolling

import (
	"encoding/binary"
	"math/big"
	"testing"
	"time"

	"github.com/firebreak-go/firebreak/internal/mono"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A naive window is one as it would be explained: a list of outcomes and of the
// buckets that they count in. Its arithmetic knows no overflow.
type naive struct {
	length, buckets int64
	newest          *big.Int // nil if there is none
	outcomes        []outcome
}

type outcome struct {
	bucket    *big.Int
	bad, slow bool
	id        int
}

func (m *naive) number(now mono.Time) *big.Int {
	return new(big.Int).Div(big.NewInt(int64(now)), big.NewInt(m.length)) // floors, as the length is positive
}

// place returns the bucket that an outcome at now counts in, and whether the
// window begins all over with it.
func (m *naive) place(now mono.Time) (bucket *big.Int, again bool) {
	n := m.number(now)
	if m.newest == nil || m.newest.Cmp(new(big.Int).Add(n, big.NewInt(m.buckets))) > 0 {
		return n, true
	}
	if n.Cmp(m.newest) < 0 {
		n = m.newest
	}
	return n, false
}

func (m *naive) add(now mono.Time, o outcome) {
	var again bool
	if o.bucket, again = m.place(now); again {
		m.outcomes = nil
	}
	m.newest = o.bucket
	m.outcomes = append(m.outcomes, o)
}

func (m *naive) window(now mono.Time) (in []outcome) {
	newest, again := m.place(now)
	if again {
		return nil
	}
	expired := new(big.Int).Sub(newest, big.NewInt(m.buckets))
	for _, o := range m.outcomes {
		if o.bucket.Cmp(expired) > 0 {
			in = append(in, o)
		}
	}
	return in
}

func (m *naive) sum(now mono.Time) (t Totals) {
	for _, o := range m.window(now) {
		if o.bad {
			t.Bad++
		} else {
			t.Good++
		}
		if o.slow {
			t.Slow++
		}
	}
	return t
}

func (m *naive) holds(now mono.Time) bool {
	return m.newest != nil && m.number(now).Cmp(m.newest) == 0
}

// A step of a script: an outcome is added at now, or not, and the window is read,
// then and at another moment.
type step struct {
	now, other     mono.Time
	add, bad, slow bool
}

// script makes steps of what a fuzzer or rapid comes up with. Moments stay where
// differences of two of them and a length fit into an int64 nearly always, and far
// beyond what a clock shows.
func script(data []byte, length int64) (steps []step) {
	const end = 1 << 62
	now := int64(0)
	move := func(from int64, buckets, sixteenths int64) int64 {
		d := new(big.Int).Mul(big.NewInt(length), big.NewInt(16*buckets+sixteenths))
		d.Add(d.Rsh(d, 4), big.NewInt(from))
		if !d.IsInt64() || d.Int64() > end || d.Int64() < -end {
			return from
		}
		return d.Int64()
	}
	for len(data) >= 3 && len(steps) < 200 {
		op, arg, other := data[0], int64(data[1]), int64(int8(data[2]))
		data = data[3:]
		switch op & 7 {
		case 0: // the same moment
		case 1, 2:
			now = move(now, 0, arg%64)
		case 3:
			now = move(now, 0, -arg%64)
		case 4:
			now = move(now, arg%32, 0)
		case 5:
			now = move(now, -arg%32, 0)
		case 6: // on this side of an edge or on that
			now = now - now%length + arg%3 - 1
		case 7:
			if arg%2 == 0 {
				now = max(now-int64(26*365*24*time.Hour), -end)
			} else if len(data) >= 8 {
				now = int64(binary.LittleEndian.Uint64(data)) >> 1
				data = data[8:]
			}
		}
		steps = append(steps, step{
			now: mono.Time(now), other: mono.Time(move(now, other/8, other%8)),
			add: op&8 != 0, bad: op&16 != 0, slow: op&32 != 0,
		})
	}
	return steps
}

// scripts are of a few lengths, as rapid's own are too short for windows to fill
// and expire.
func scripts() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		n := rapid.SampledFrom([]int{6, 60, 300}).Draw(t, "bytes")
		return rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "script")
	})
}

// seeds are scripts worth beginning with.
var seeds = [][]byte{
	{},
	{8, 0, 0},                                   // one outcome
	{8, 0, 0, 12, 9, 8, 28, 1, 1},               // its bucket is the oldest, then gone
	{8, 0, 0, 14, 0, 0, 14, 1, 0, 14, 2, 0},     // both sides of an edge
	{8, 0, 0, 12, 31, 1, 12, 31, 250},           // gaps longer than the window
	{8, 0, 0, 11, 3, 0, 13, 9, 0, 13, 1, 0},     // back, by too much in the end
	{8, 0, 0, 15, 0, 0, 12, 1, 127, 12, 1, 128}, // back by decades, and on
	{8, 0, 0, 15, 1, 0, 255, 255, 255, 255, 255, 255, 255, 127, 15, 1, 0, 0, 0, 0, 0, 0, 0, 0, 128},
	{24, 0, 0, 57, 20, 0, 41, 20, 0, 9, 20, 0, 58, 40, 60, 12, 8, 9, 44, 1, 9, 60, 1, 9},
}
