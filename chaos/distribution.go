package chaos

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// Longest bounds everything here that takes time: drills, parameters of faults, and
// what a [Distribution] draws.
const Longest = 7 * 24 * time.Hour

// A Distribution is how long calls are made to wait. It is a value that never
// changes and may be shared. The zero Distribution is not usable.
type Distribution struct {
	text string
	draw func(*rand.Rand) time.Duration
}

// String is the distribution as [Parse] reads it behind "latency", "" for zero.
func (d Distribution) String() string { return d.text }

// Draw returns one duration, from 0 to [Longest], by r. It is as safe for concurrent
// use as r is; nil draws from a generator that is, and differs with each process.
func (d Distribution) Draw(r *rand.Rand) time.Duration {
	if r == nil {
		r = unseeded
	}
	return d.draw(r)
}

// unseeded has no state of its own, so all may share it: the runtime keeps a
// generator for each thread.
var unseeded = rand.New(runtimeSource{})

type runtimeSource struct{}

func (runtimeSource) Uint64() uint64 { return rand.Uint64() }

// Constant is always d, from 0 to [Longest]. Like all makers of distributions and
// faults it panics on arguments outside of their range.
func Constant(d time.Duration) Distribution { return must(constant(d)) }

func constant(d time.Duration) (Distribution, error) {
	if err := inRange("duration", d, 0); err != nil {
		return Distribution{}, err
	}
	return Distribution{short(d), func(*rand.Rand) time.Duration { return d }}, nil
}

// Uniform is anything from least to most, both included, with the same
// probability. 0 ≤ least ≤ most ≤ [Longest].
func Uniform(least, most time.Duration) Distribution { return must(uniform(least, most)) }

func uniform(least, most time.Duration) (Distribution, error) {
	if err := ordered("uniform: least", least, 0, "most", most); err != nil {
		return Distribution{}, err
	}
	return Distribution{
		"uniform " + short(least) + " to " + short(most),
		func(r *rand.Rand) time.Duration { return least + time.Duration(r.Int64N(int64(most-least)+1)) },
	}, nil
}

// Normal is the bell curve around mean; what falls below 0 is 0. Mean and deviation
// are from 0 to [Longest].
func Normal(mean, deviation time.Duration) Distribution { return must(normal(mean, deviation)) }

func normal(mean, deviation time.Duration) (Distribution, error) {
	if err := inRange("normal: mean", mean, 0); err != nil {
		return Distribution{}, err
	}
	if err := inRange("normal: deviation", deviation, 0); err != nil {
		return Distribution{}, err
	}
	return Distribution{
		"normal " + short(mean) + " sd " + short(deviation),
		func(r *rand.Rand) time.Duration {
			return clamp(float64(mean) + float64(deviation)*r.NormFloat64())
		},
	}, nil
}

// z99 is where 99 % of the standard normal distribution lie below.
const z99 = 2.3263478740408408

// LogNormal is what latencies mostly look like: half of them below median, one of a
// hundred above p99. 1ns ≤ median ≤ p99 ≤ [Longest].
func LogNormal(median, p99 time.Duration) Distribution { return must(logNormal(median, p99)) }

func logNormal(median, p99 time.Duration) (Distribution, error) {
	if err := ordered("lognormal: median", median, 1, "p99", p99); err != nil {
		return Distribution{}, err
	}
	sigma := math.Log(float64(p99)/float64(median)) / z99
	return Distribution{
		"lognormal " + short(median) + " p99 " + short(p99),
		func(r *rand.Rand) time.Duration {
			return clamp(float64(median) * math.Exp(sigma*r.NormFloat64()))
		},
	}, nil
}

// Exponential has many short waits and few long ones; its p99 is 4.6 times the mean,
// which is from 0 to [Longest].
func Exponential(mean time.Duration) Distribution { return must(exponential(mean)) }

func exponential(mean time.Duration) (Distribution, error) {
	if err := inRange("exponential: mean", mean, 0); err != nil {
		return Distribution{}, err
	}
	return Distribution{
		"exponential " + short(mean),
		func(r *rand.Rand) time.Duration { return clamp(float64(mean) * r.ExpFloat64()) },
	}, nil
}

// Pareto has a heavy tail: nothing below least, one of a hundred above p99, one of
// ten thousand above p99 × p99 / least. 1ns ≤ least ≤ p99 ≤ [Longest].
func Pareto(least, p99 time.Duration) Distribution { return must(pareto(least, p99)) }

func pareto(least, p99 time.Duration) (Distribution, error) {
	if err := ordered("pareto: least", least, 1, "p99", p99); err != nil {
		return Distribution{}, err
	}
	tail := math.Log(float64(p99)/float64(least)) / math.Log(100) // 1/α
	return Distribution{
		"pareto " + short(least) + " p99 " + short(p99),
		func(r *rand.Rand) time.Duration {
			return clamp(float64(least) * math.Exp(tail*r.ExpFloat64()))
		},
	}, nil
}

// clamp is x nanoseconds as a duration that there is; tails may reach +Inf.
func clamp(x float64) time.Duration {
	return time.Duration(max(0, min(x, float64(Longest))))
}

// inRange tells what is wrong with a duration, which a person may have typed.
func inRange(what string, d, least time.Duration) error {
	if d < least || d > Longest {
		return fmt.Errorf("%s: %s is not from %s to %s", what, short(d), short(least), short(Longest))
	}
	return nil
}

// ordered tells what is wrong with a pair of them.
func ordered(first string, a, least time.Duration, second string, b time.Duration) error {
	if err := inRange(first, a, least); err != nil {
		return err
	}
	if b < a || b > Longest {
		return fmt.Errorf("%s %s: %s %s is not from there to %s", first, short(a), second, short(b), short(Longest))
	}
	return nil
}

// short is d without the zeros that Duration's own text ends with: 1m, not 1m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// must is for makers, whose arguments are literals.
func must[T any](v T, err error) T {
	if err != nil {
		panic("chaos: " + err.Error())
	}
	return v
}
