package firebreak_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/firebreak-go/firebreak"
)

// In a request each user is fetched once, whoever asks for it.
func ExampleCached() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	users := reg.Command("users.get", firebreak.Config{})
	fetches := 0
	getUser := firebreak.Cached(users, firebreak.Bind(users, func(_ context.Context, id int) (user, error) {
		fetches++
		return user{fmt.Sprintf("user %d", id)}, nil
	}))

	request := firebreak.WithScope(context.Background()) // where a request begins
	for _, id := range []int{7, 8, 7, 7} {
		if _, err := getUser(request, id); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(fetches, "fetched,", users.Snapshot().Total.CacheHits, "found")

	next := firebreak.WithScope(context.Background())
	u, err := getUser(next, 7)
	fmt.Println(u.Name, err, fetches)
	// Output:
	// 2 fetched, 2 found
	// user 7 <nil> 3
}

// Ten callers who each want one price make one call of ten.
func ExampleCollapse() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	prices := reg.Command("prices.get", firebreak.Config{
		BatchWindow: time.Minute, // the default of 10ms leaves no window in which ten are sure to come
		MaxBatch:    10,
	})
	getPrice := firebreak.Collapse(prices, func(_ context.Context, skus []int) (map[int]float64, error) {
		slices.Sort(skus)
		fmt.Println("one call for", skus)
		found := map[int]float64{}
		for _, sku := range skus {
			found[sku] = float64(sku) + 0.99
		}
		delete(found, 9)
		return found, firebreak.KeyErrors[int]{8: errors.New("not for sale")}
	})

	skus := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	found, err := firebreak.Gather(context.Background(), skus, firebreak.Unlimited, getPrice)
	fmt.Println(len(found), found[7])
	fmt.Println(err)
	// Output:
	// one call for [1 2 3 4 5 6 7 8 9 10]
	// 8 7.99
	// 2 keys without a value: 8: not for sale; 9: no result for the key: 9
}

// One line of a request's log tells what its calls came to.
func ExampleRequestLog() {
	reg := firebreak.NewRegistry(firebreak.Config{RequestLog: firebreak.On})
	users, stock := reg.Command("users.get", firebreak.Config{}), reg.Command("stock.get", firebreak.Config{})
	api := &usersAPI{}
	getUser := firebreak.Cached(users, firebreak.Bind(users, api.User))
	stock.Override(firebreak.Override{Mode: firebreak.ForceOpen, Reason: "moving house"})

	ctx := firebreak.WithScope(context.Background())
	_, _ = getUser(ctx, 7)
	_, _ = getUser(ctx, 7)
	_, _ = firebreak.Do(ctx, stock, func(context.Context) (int, error) { return 12, nil }, firebreak.Static(0))

	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTimes}))
	log.InfoContext(ctx, "served", "calls", firebreak.RequestLog(ctx))
	// Output:
	// level=INFO msg=served calls.users.get.calls=2 calls.users.get.SUCCESS=1 calls.users.get.RESPONSE_FROM_CACHE=1 calls.stock.get.calls=1 "calls.stock.get.SHORT_CIRCUITED, FALLBACK_SUCCESS"=1
}

// withoutTimes leaves out what is never the same twice.
func withoutTimes(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey || a.Key == "took" {
		return slog.Attr{}
	}
	return a
}
