package firebreak_test

import (
	"context"
	"fmt"
	"time"

	"github.com/firebreak-go/firebreak"
)

// stockOf asks a dependency that hangs today.
func stockOf(ctx context.Context, item string) (int, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// The program of README.md.
func Example() {
	reg := firebreak.NewRegistry(firebreak.Config{Timeout: 50 * time.Millisecond}) // defaults for all
	stock := reg.Command("stock", firebreak.Config{MaxConcurrent: 20})             // one bulkhead, one circuit

	for range 30 {
		n, err := firebreak.Do(context.Background(), stock, func(ctx context.Context) (int, error) {
			return stockOf(ctx, "tea")
		}, firebreak.Static(-1)) // answers when stock cannot
		if n != -1 || err != nil {
			panic("a call went without an answer")
		}
	}

	s := stock.Snapshot()
	fmt.Printf("%v by %s: %d timed out, %d were spared the wait\n",
		s.State, s.Evidence.Rule, s.Total.Timeout, s.Total.ShortCircuited)
	// Output: open by error percentage: 20 timed out, 10 were spared the wait
}
