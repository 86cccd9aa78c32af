package floor

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// buckets: four to a doubling, from 1 µs to over a minute.
const buckets = 112

// histogram is one shard's.
type histogram struct {
	counts [buckets]atomic.Uint32
	_      [64]byte
}

func (h *histogram) count(d time.Duration) { h.counts[bucket(d)].Add(1) }

// bucket cuts time into units of 1024 ns, since a shift is cheaper than a division.
func bucket(d time.Duration) int {
	units := uint64(d) >> 10
	if units < 4 {
		return int(units)
	}
	doublings := bits.Len64(units) - 3
	return min(4*doublings+int(units>>doublings), buckets-1)
}

// lower is the shortest time of a bucket.
func lower(bucket int) time.Duration {
	if bucket < 4 {
		return time.Duration(bucket) << 10
	}
	doublings := bucket/4 - 1
	return time.Duration(bucket%4+4) << doublings << 10
}

func quantile(counts [buckets]uint64, total uint64, q float64) time.Duration {
	rank, seen := uint64(q*float64(total)), uint64(0)
	for b, n := range counts {
		if seen += n; seen > rank {
			return lower(b)
		}
	}
	return 0
}
