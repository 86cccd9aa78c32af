package benchmarks

import (
	"testing"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
	"github.com/firebreak-go/firebreak/benchmarks/scenario"
)

// BenchmarkCalls is for a closer look at one cell, with profiles and benchstat:
//
//	go test -bench 'Calls/success/serial/firebreak' -cpu 2 -cpuprofile cpu.out .
func BenchmarkCalls(b *testing.B) {
	for _, s := range scenario.All() {
		if !s.Loops() {
			continue
		}
		b.Run(s.Name, func(b *testing.B) {
			for _, column := range columns.All() {
				b.Run(column.Name, func(b *testing.B) { s.Bench(b, column) })
			}
		})
	}
}
