package firebreak_test

import (
	"context"
	"testing"
	"time"

	"github.com/firebreak-go/firebreak"
)

// Call by call what a call costs; beside other libraries they are in benchmarks/.

func benchmark(b *testing.B, c firebreak.Config, run func(context.Context) (int, error), fallbacks ...firebreak.Fallback[int]) {
	c.RequestVolumeThreshold = 1 << 30
	cmd := firebreak.NewRegistry(firebreak.Config{}).Command("dep", c)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = firebreak.Do(ctx, cmd, run, fallbacks...)
	}
}

func BenchmarkBreakerOnly(b *testing.B) {
	benchmark(b, firebreak.Config{MaxConcurrent: firebreak.Unlimited, Timeout: firebreak.Off}, succeed)
}

func BenchmarkSuccess(b *testing.B) { benchmark(b, firebreak.Config{}, succeed) }

func BenchmarkFailure(b *testing.B) { benchmark(b, firebreak.Config{}, fail) }

func BenchmarkFallback(b *testing.B) {
	benchmark(b, firebreak.Config{}, fail, firebreak.Static(2))
}

func BenchmarkPool(b *testing.B) {
	benchmark(b, firebreak.Config{Isolation: firebreak.PoolIsolation}, succeed)
}

func BenchmarkOpen(b *testing.B) {
	cmd := newCommand(b, firebreak.Config{SleepWindow: time.Hour})
	trip(b, cmd)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = firebreak.Do(b.Context(), cmd, succeed)
	}
}

func BenchmarkFull(b *testing.B) {
	cmd := newCommand(b, firebreak.Config{MaxConcurrent: 1})
	call, err := cmd.Begin(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer call.End()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = firebreak.Do(b.Context(), cmd, succeed)
	}
	_ = call.Settle(nil)
}

func BenchmarkParallel(b *testing.B) {
	cmd := newCommand(b, firebreak.Config{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		for pb.Next() {
			_, _ = firebreak.Do(ctx, cmd, succeed)
		}
	})
}

func BenchmarkSnapshot(b *testing.B) {
	cmd := newCommand(b, firebreak.Config{})
	for range 1000 {
		_, _ = firebreak.Do(b.Context(), cmd, succeed)
	}
	b.ReportAllocs()
	for b.Loop() {
		cmd.Snapshot()
	}
}
