package semaphore

import (
	"fmt"
	"testing"
)

// The word alone, and with permits in cells: what a collision buys.
var layouts = []struct {
	name string
	make func() *Semaphore
}{
	{"word", func() *Semaphore { return New(spreadFrom - 1) }}, // never spreads
	{"cells", func() *Semaphore { s := New(1000); s.spread(); return s }},
	{"unlimited", func() *Semaphore { return New(Unlimited) }}, // spreads at the first collision
}

func BenchmarkAcquireRelease(b *testing.B) {
	for _, l := range layouts {
		b.Run(l.name, func(b *testing.B) {
			s := l.make()
			b.ReportAllocs()
			for b.Loop() {
				s.TryAcquire()
				s.Release()
			}
		})
	}
}

func BenchmarkAcquireReleaseParallel(b *testing.B) {
	for _, l := range layouts {
		b.Run(l.name, func(b *testing.B) {
			s := l.make()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if s.TryAcquire() {
						s.Release()
					}
				}
			})
		})
	}
}

func BenchmarkRefusal(b *testing.B) {
	for _, l := range layouts[:2] {
		b.Run(l.name, func(b *testing.B) {
			s := l.make()
			for s.TryAcquire() {
			}
			b.ReportAllocs()
			for b.Loop() {
				s.TryAcquire()
			}
		})
	}
}

func BenchmarkRefusalParallel(b *testing.B) {
	s := New(1)
	s.TryAcquire()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.TryAcquire()
		}
	})
}

// A limit that is always reached, with more processors after it than permits: the
// cells open and are gathered again and again.
func BenchmarkNearTheLimit(b *testing.B) {
	for _, limit := range []int{spreadFrom - 1, 2 * spreadFrom} { // the second opens cells
		b.Run(fmt.Sprint("limit=", limit), func(b *testing.B) {
			s := New(limit)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				held := 0
				for pb.Next() {
					if s.TryAcquire() {
						held++
						continue
					}
					for ; held > 0; held-- {
						s.Release()
					}
				}
				for ; held > 0; held-- {
					s.Release()
				}
			})
		})
	}
}

func BenchmarkWait(b *testing.B) {
	s := New(1)
	s.TryAcquire()
	w := &Waiter{Turn: func(bool) {}}
	b.Run("turn", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Wait(w, 1)
			s.Release()
		}
	})
	b.Run("withdrawn", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Wait(w, 1)
			s.Withdraw(w)
		}
	})
	b.Run("passed on", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Wait(w, 1)
			s.Pass()
		}
	})
}
