package rolling

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak/internal/mono"
)

// A Peak is the greatest number noted in a rolling window of ten buckets. It may be
// used concurrently; see [Peak.Init].
type Peak struct {
	newest atomic.Int64 // the greatest of the newest bucket: most numbers are no greater, and end here
	ring   atomic.Pointer[Ring]

	mu   sync.Mutex // guards the ring, but for Holds, and most
	most [Buckets]int64
}

// Init sets the length of the window, before first use.
func (p *Peak) Init(window time.Duration) { p.ring.Store(NewRing(window/Buckets, Buckets)) }

// Resize begins again with another length.
func (p *Peak) Resize(window time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Init(window)
	p.newest.Store(0)
	p.most = [Buckets]int64{}
}

// Note notes n. Where it is no news, it costs three loads.
func (p *Peak) Note(now mono.Time, n int) {
	// In this order: newest is lowered before the ring holds the next bucket's moments.
	if !p.ring.Load().Holds(now) || int64(n) > p.newest.Load() {
		p.note(now, n)
	}
}

func (p *Peak) note(now mono.Time, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.ring.Load()
	r.Advance(now, func(slot int) {
		p.most[slot] = 0
		p.newest.Store(0)
	})
	if slot := r.Newest(); int64(n) > p.most[slot] {
		p.most[slot] = int64(n)
		p.newest.Store(int64(n))
	}
}

// Max returns the greatest number noted in the window that ends now, 0 if there is
// none. It moves nothing.
func (p *Peak) Max(now mono.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	most := int64(0)
	for slot := range p.ring.Load().Live(now) {
		most = max(most, p.most[slot])
	}
	return int(most)
}
