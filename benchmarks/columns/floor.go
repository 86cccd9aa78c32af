package columns

import (
	"context"
	"sync"

	"github.com/firebreak-go/firebreak/benchmarks/floor"
)

// leastSnapshot is no library but the fixed column beside which snapshots are
// measured.
var leastSnapshot = Column{
	Name: "floor",
	Fleet: func(names []string, s Spec) *Fleet {
		var byName sync.Map
		all := make([]*floor.Command, len(names))
		for i, name := range names {
			all[i] = floor.New(8)
			byName.Store(name, all[i])
		}
		const shard = 0 // one goroutine of load counts in one shard
		return &Fleet{
			Call: func(ctx context.Context, name string) (int, error) {
				cmd, _ := byName.Load(name)
				return cmd.(*floor.Command).Call(ctx, shard, s.Run)
			},
			Snapshot: func() (seen int) {
				for _, cmd := range all {
					shot := cmd.Snapshot()
					seen += int(shot.Successes) + int(shot.Failures) + int(shot.InFlight) + int(shot.P99)
				}
				return seen
			},
			Close: func() {},
		}
	},
}
