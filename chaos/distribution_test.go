package chaos_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak/chaos"
)

const (
	ms = time.Millisecond
	// z90 and z99 are quantiles of the standard normal distribution.
	z90 = 1.2815515655446004
	z99 = 2.3263478740408408
)

// Quantiles and means are the formulas', within 2 %; infinite variance is given more.
func TestDistributionsAreWhatTheySay(t *testing.T) {
	sigma := math.Log(8) / z99 // of lognormal 50ms p99 400ms
	tail := math.Log(10) / math.Log(100)
	for _, row := range []struct {
		d                   chaos.Distribution
		p50, p90, p99, mean float64 // ms
		near                float64 // of the mean
	}{
		{chaos.Constant(300 * ms), 300, 300, 300, 300, 0},
		{chaos.Uniform(100*ms, 500*ms), 300, 460, 496, 300, 0.02},
		{chaos.Normal(100*ms, 20*ms), 100, 100 + 20*z90, 100 + 20*z99, 100, 0.02},
		// Its mean is μΦ(μ/σ) + σφ(μ/σ).
		{chaos.Normal(50*ms, 100*ms), 50, 50 + 100*z90, 50 + 100*z99, 50*0.691462461 + 100*0.352065327, 0.02},
		{chaos.Normal(7*ms, 0), 7, 7, 7, 7, 0},
		{chaos.LogNormal(50*ms, 400*ms), 50, 50 * math.Exp(sigma*z90), 400, 50 * math.Exp(sigma*sigma/2), 0.02},
		{chaos.LogNormal(50*ms, 50*ms), 50, 50, 50, 50, 1e-6},
		{chaos.Exponential(100 * ms), 100 * math.Ln2, 100 * math.Log(10), 100 * math.Log(100), 100, 0.02},
		{chaos.Pareto(20*ms, 200*ms), 20 * math.Pow(2, tail), 20 * math.Pow(10, tail), 200, 40, 0.1}, // α = 2
		{chaos.Pareto(20*ms, 20*ms), 20, 20, 20, 20, 1e-6},
	} {
		t.Run(row.d.String(), func(t *testing.T) {
			const n = 200_000
			r := rand.New(rand.NewPCG(1, 2))
			all := make([]float64, n)
			sum := 0.0
			for i := range all {
				all[i] = float64(row.d.Draw(r)) / float64(ms)
				sum += all[i]
			}
			slices.Sort(all)
			assert.InEpsilon(t, row.p50, all[n/2], 0.02, "p50")
			assert.InEpsilon(t, row.p90, all[n/10*9], 0.02, "p90")
			assert.InEpsilon(t, row.p99, all[n/100*99], 0.02, "p99")
			assert.InEpsilon(t, row.mean, sum/n, row.near+1e-12, "mean")
		})
	}
}

func TestDistributionsKeepTheirBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[time.Duration]int{}
	for range 30_000 {
		seen[chaos.Uniform(5, 7).Draw(r)]++
	}
	require.Len(t, seen, 3)
	for d := time.Duration(5); d <= 7; d++ {
		require.InDelta(t, 10_000, seen[d], 500, "both ends are drawn like the rest")
	}

	zeros := 0
	for range 30_000 {
		d := chaos.Normal(50*ms, 100*ms).Draw(r)
		require.GreaterOrEqual(t, d, time.Duration(0))
		if d == 0 {
			zeros++
		}
	}
	require.InDelta(t, 30_000*0.3085, zeros, 500, "what is below 0 is 0")

	var most, least time.Duration = 0, chaos.Longest
	for range 30_000 {
		d := chaos.Pareto(20*ms, 200*ms).Draw(r)
		most, least = max(most, d), min(least, d)
	}
	require.GreaterOrEqual(t, least, 20*ms)
	require.InDelta(t, 20*ms, least, float64(ms))
	require.Greater(t, most, 2*time.Second, "one of 10,000 is above p99 × p99 / least")
}

// The widest parameters that there are would draw more than a Duration can hold.
func TestDrawsNeverExceedLongest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, d := range []chaos.Distribution{
		chaos.Constant(chaos.Longest), chaos.Uniform(0, chaos.Longest), chaos.Normal(chaos.Longest, chaos.Longest),
		chaos.LogNormal(1, chaos.Longest), chaos.Exponential(chaos.Longest), chaos.Pareto(1, chaos.Longest),
		chaos.Constant(0), chaos.Uniform(0, 0), chaos.Normal(0, 0), chaos.Exponential(0),
	} {
		for range 10_000 {
			if drawn := d.Draw(r); drawn < 0 || drawn > chaos.Longest {
				t.Fatal(d, "drew", drawn)
			}
		}
	}
	require.Equal(t, chaos.Longest, chaos.Pareto(chaos.Longest, chaos.Longest).Draw(r))
}

func TestDrawIsRepeatableWithASeedAndSharedWithout(t *testing.T) {
	d := chaos.LogNormal(50*ms, 400*ms)
	a, b := rand.New(rand.NewPCG(3, 4)), rand.New(rand.NewPCG(3, 4))
	for range 100 {
		require.Equal(t, d.Draw(a), d.Draw(b))
	}
	first, second := d.Draw(nil), d.Draw(nil)
	require.NotEqual(t, first, second)

	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				d.Draw(nil)
			}
		})
	}
	wg.Wait()
}

func TestZeroDistribution(t *testing.T) {
	require.Empty(t, chaos.Distribution{}.String())
	require.PanicsWithValue(t, "chaos: latency: no distribution", func() { chaos.Latency(chaos.Distribution{}) })
}

func TestMakersOfDistributionsPanicOnBadLiterals(t *testing.T) {
	const tooLong = chaos.Longest + 1
	for want, f := range map[string]func(){
		"chaos: duration: -1ns is not from 0s to 168h":                                func() { chaos.Constant(-1) },
		"chaos: duration: 168h0m0.000000001s is not from 0s to 168h":                  func() { chaos.Constant(tooLong) },
		"chaos: duration: 2562047h47m16.854775807s is not from 0s to 168h":            func() { chaos.Constant(math.MaxInt64) },
		"chaos: uniform: least: -1ns is not from 0s to 168h":                          func() { chaos.Uniform(-1, 5) },
		"chaos: uniform: least 1m: most 59s is not from there to 168h":                func() { chaos.Uniform(time.Minute, 59*time.Second) },
		"chaos: uniform: least 0s: most 168h0m0.000000001s is not from there to 168h": func() { chaos.Uniform(0, tooLong) },
		"chaos: normal: mean: -1ns is not from 0s to 168h":                            func() { chaos.Normal(-1, 0) },
		"chaos: normal: deviation: -1ns is not from 0s to 168h":                       func() { chaos.Normal(0, -1) },
		"chaos: lognormal: median: 0s is not from 1ns to 168h":                        func() { chaos.LogNormal(0, 1) },
		"chaos: lognormal: median 2ns: p99 1ns is not from there to 168h":             func() { chaos.LogNormal(2, 1) },
		"chaos: exponential: mean: -1ns is not from 0s to 168h":                       func() { chaos.Exponential(-1) },
		"chaos: pareto: least: 0s is not from 1ns to 168h":                            func() { chaos.Pareto(0, 1) },
		"chaos: pareto: least 2ns: p99 1ns is not from there to 168h":                 func() { chaos.Pareto(2, 1) },
	} {
		assert.PanicsWithValue(t, want, f)
	}
}
