package mono

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestClockFollowsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClock()
		require.Equal(t, Time(0), c.Now())
		time.Sleep(3 * time.Second)
		require.Equal(t, Time(3*time.Second), c.Now())
		require.True(t, c.Moment(c.Now()).Equal(time.Now()))
		require.Equal(t, c.Now(), c.Of(time.Now()))
		require.True(t, c.Moment(Never).IsZero())
	})
}

// A moment that was parsed, or had its reading stripped, is placed by the wall
// clock as it is when asked.
func TestOfGivesAReadingToAMomentWithoutOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClock()
		wall := time.Now().Add(5 * time.Second).Round(0)
		require.Equal(t, Time(5*time.Second), c.Of(wall))
		time.Sleep(time.Second)
		require.Equal(t, Time(5*time.Second), c.Of(wall))
	})
}

// A clock made before a bubble began sees time go back in it; nothing overflows.
func TestClockFromOutsideABubble(t *testing.T) {
	c := NewClock()
	outside := c.Now()
	synctest.Test(t, func(t *testing.T) {
		before := c.Now()
		time.Sleep(time.Minute)
		require.Equal(t, time.Minute, c.Now().Sub(before))
	})
	require.GreaterOrEqual(t, c.Now(), outside)
}

func TestArithmeticSaturates(t *testing.T) {
	require.Equal(t, Never, Time(math.MaxInt64-1).Add(2))
	require.Equal(t, Time(math.MinInt64), Time(math.MinInt64+1).Add(-2))
	require.Equal(t, time.Duration(math.MaxInt64), Time(math.MaxInt64).Sub(-1))
	require.Equal(t, time.Duration(math.MinInt64), Time(math.MinInt64).Sub(1))
	rapid.Check(t, func(t *rapid.T) {
		u := Time(rapid.Int64Range(-1<<61, 1<<61).Draw(t, "u"))
		d := time.Duration(rapid.Int64Range(-1<<61, 1<<61).Draw(t, "d"))
		if got := u.Add(d).Sub(u); got != d {
			t.Fatalf("%d + %d − %d = %d", u, d, u, got)
		}
	})
}
