package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/firebreak-go/firebreak"
)

// The arithmetic that the original's authors used to begin with: a page that needs
// thirty dependencies, each of which answers 99.99 % of the calls, is there for 99.7 %
// of its visitors, unless something stands in for the missing.
const (
	numDependencies   = 30
	dependencyAnswers = 0.9999 // of its calls
)

// An availability is of pages that need so many dependencies, in percent.
type availability struct {
	dependencies int
	arithmetic   float64 // what one answers, to the power of dependencies
	simulated    float64 // by tosses of a coin
	bare         float64 // measured: commands without fallbacks
	fallbacks    float64 // measured: the same calls, with fallbacks
}

// availabilities has a row for every number of dependencies, from 1. The simulation
// knows nothing of commands: it tosses a coin for each dependency of each page. The
// measurement makes a page's calls through thirty commands, of functions in this
// process that fail as rarely. answers is the share of calls that a dependency answers.
// When ctx ends the rest of the pages count as missing.
func availabilities(ctx context.Context, answers float64, simulatedPages, measuredPages int) []availability {
	simulated := survivors(simulatedPages, func() int {
		for i := range numDependencies {
			if rand.Float64() >= answers {
				return i
			}
		}
		return numDependencies
	})

	reg := firebreak.NewRegistry(firebreak.Config{Timeout: firebreak.Off}) // nothing here can wait
	commands := make([]*firebreak.Command, numDependencies)
	for i := range commands {
		commands[i] = reg.Command(fmt.Sprintf("dependency-%02d", i+1), firebreak.Config{})
	}
	errDown := errors.New("one of the few")
	call := func(context.Context) (bool, error) {
		if rand.Float64() >= answers {
			return false, errDown
		}
		return true, nil
	}
	stub := firebreak.Static(true)
	measure := func(fallbacks ...firebreak.Fallback[bool]) []float64 {
		return survivors(measuredPages, func() int {
			if ctx.Err() != nil {
				return 0
			}
			first := numDependencies
			for i, cmd := range commands { // all of them: a page does not know which will fail
				if _, err := firebreak.Do(ctx, cmd, call, fallbacks...); err != nil {
					first = min(first, i)
				}
			}
			return first
		})
	}
	bare, withFallbacks := measure(), measure(stub)

	rows := make([]availability, numDependencies)
	for i := range rows {
		n := i + 1
		rows[i] = availability{n, 100 * math.Pow(answers, float64(n)), simulated[n], bare[n], withFallbacks[n]}
	}
	return rows
}

// survivors returns, for each number of dependencies from 0, the percentage of pages
// that have all of theirs. page makes one and says how many there were before the
// first that was missing.
func survivors(pages int, page func() int) []float64 {
	var missing [numDependencies + 1]int // by how many there were before
	for range pages {
		missing[page()]++
	}
	percent := make([]float64, numDependencies+1)
	left := pages
	for n := range percent {
		percent[n] = 100 * float64(left) / float64(pages)
		left -= missing[n]
	}
	return percent
}
