package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/firebreak-go/firebreak"
)

// Two calls at once: each is admitted when Go returns, and waited for later.
func ExampleGo() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	getUser, stock := reg.Command("users.get", firebreak.Config{}), reg.Command("stock", firebreak.Config{})
	api := &usersAPI{}

	ctx := context.Background()
	u := firebreak.Go(ctx, getUser, func(ctx context.Context) (user, error) {
		return api.User(ctx, 7)
	})
	n := firebreak.Go(ctx, stock, func(context.Context) (int, error) {
		return 0, errors.New("stock: 503")
	}, firebreak.Static(-1))

	fmt.Println(u.Wait(ctx))
	fmt.Println(n.Wait(ctx))
	// Output:
	// {Ada} <nil>
	// -1 <nil>
}

// A page's users, no more at once than the bulkhead has room for. Who is missing is in
// the error; the others are there all the same.
func ExampleGather() {
	getUser := firebreak.NewRegistry(firebreak.Config{}).Command("users.get", firebreak.Config{MaxConcurrent: 20})
	api := &usersAPI{}

	ids := []int{7, 8, 7}
	users, err := firebreak.Gather(context.Background(), ids, 10, firebreak.Bind(getUser, api.User))
	fmt.Println(users)
	fmt.Println(err)
	if missing, ok := errors.AsType[firebreak.KeyErrors[int]](err); ok {
		fmt.Println(missing[8])
	}
	// Output:
	// map[7:{Ada}]
	// 1 key without a value: 8: sql: no rows in result set
	// sql: no rows in result set
}

// Rows that come one by one. Each may take a second; what the loop does with them is
// not counted. Should the first not come, there are yesterday's.
func ExampleStream() {
	report := firebreak.NewRegistry(firebreak.Config{}).Command("report", firebreak.Config{Timeout: time.Second})
	rows := func(texts ...string) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			for _, text := range texts {
				if !yield(text, nil) {
					return
				}
			}
		}
	}

	today := firebreak.Stream(context.Background(), report, func(context.Context) iter.Seq2[string, error] {
		return rows("tea", "coffee", "milk")
	}, func(context.Context, error) iter.Seq2[string, error] {
		return rows("yesterday's tea")
	})
	for row, err := range today {
		if err != nil {
			fmt.Println(err)
			return
		}
		if row == "milk" {
			break // no failure: the dependency was answering
		}
		fmt.Println(row)
	}
	c := report.Snapshot().Total
	fmt.Println(c.Success, "stream of", c.Emitted, "rows")
	// Output:
	// tea
	// coffee
	// 1 stream of 3 rows
}
