package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/chaos"
)

// What do pages look like while a fifth of the calls to users fail? Their fallback
// answers; the dependency is as well as ever, and everybody can see why.
func ExampleDrill_Start() {
	getUser := firebreak.NewRegistry(firebreak.Config{}).Command("users.get", firebreak.Config{})

	stop, err := chaos.Drill{
		Fault:  chaos.Chance(20, chaos.Error(errors.New("connection refused"))),
		Reason: "ticket 123", Author: "Ada",
		For:  10 * time.Minute,
		Mode: firebreak.Shadow, // the first time: the circuit only counts
		Seed: 1,                // the same calls every time
	}.Start(getUser)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	for range 100 {
		_, err := firebreak.Do(context.Background(), getUser, func(context.Context) (string, error) {
			return "Ada", nil
		}, firebreak.Static("guest"))
		if err != nil {
			fmt.Println(err)
		}
	}
	s := getUser.Snapshot()
	fmt.Println(s.Override.Author+":", s.Override.Reason)
	fmt.Println(s.Total.Success, "answered,", s.Total.Failure, "failed,", s.Total.FallbackSuccess, "by fallback")
	// Output:
	// Ada: drill: 20% error "connection refused", seed 1: ticket 123
	// 77 answered, 23 failed, 23 by fallback
}

// A drill that meets an override leaves it alone.
func ExampleDrill_Start_overridden() {
	mail := firebreak.NewRegistry(firebreak.Config{}).Command("mail", firebreak.Config{})
	mail.Override(firebreak.Override{Mode: firebreak.ForceOpen, Reason: "moving the mail server", Author: "ops"})

	_, err := chaos.Drill{Fault: chaos.Hang(), Reason: "ticket 123", Author: "Ada", For: time.Minute}.Start(mail)
	fmt.Println(err)
	fmt.Println(errors.Is(err, chaos.ErrOverridden))

	_, err = chaos.Drill{Fault: chaos.Hang()}.Start(mail)
	fmt.Println(err)
	// Output:
	// chaos: mail: an override is in force: "moving the mail server" by "ops"
	// true
	// chaos: drill: Reason is missing
	// chaos: drill: Author is missing
	// chaos: drill: For or Until is missing: a drill has an end
}

// A person types a drill, for every command of a service, while that runs.
func ExampleParse() {
	reg := firebreak.NewRegistry(firebreak.Config{Timeout: 50 * time.Millisecond})
	users, feed := reg.Command("users.get", firebreak.Config{}), reg.Command("feed", firebreak.Config{})

	_, err := chaos.Parse("20% latncy 300ms")
	fmt.Println(err)

	fault, err := chaos.Parse("latency 1ms; 10s on 50s off hang")
	if err != nil {
		fmt.Println(err)
		return
	}
	stop, err := chaos.Drill{
		Fault: fault, Reason: "ticket 123", Author: "Ada", For: 5 * time.Minute,
	}.Start(slices.Collect(reg.Commands())...)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(users.Run(context.Background(), func(context.Context) error { return nil }))
	stop()
	fmt.Println(feed.Run(context.Background(), func(context.Context) error { return nil }))
	// Output:
	// chaos: byte 5, at "latncy": expected latency, error, open, reject, timeout, hang, a percentage, a duration on and off, after, growing or (
	// users.get: timed out: context deadline exceeded
	// <nil>
}

// Faults are made of faults: here, a dependency that slowly gets worse and then
// comes and goes, for test traffic alone.
func ExampleSequence() {
	type testTraffic struct{}
	isTest := func(ctx context.Context) bool { return ctx.Value(testTraffic{}) != nil }

	fmt.Println(chaos.Only("test traffic", isTest, chaos.Sequence(
		chaos.Grow(10*time.Minute, chaos.Latency(chaos.LogNormal(50*time.Millisecond, 400*time.Millisecond))),
		chaos.Ramp(0, 20, 10*time.Minute, chaos.Timeout()),
		chaos.After(15*time.Minute, chaos.Flap(10*time.Second, 50*time.Second, chaos.Open())),
	)))
	// Output: only "test traffic" (growing over 10m latency lognormal 50ms p99 400ms; 0% to 20% over 10m timeout; after 15m 10s on 50s off open)
}

func ExampleDistribution_Draw() {
	d := chaos.Uniform(100*time.Millisecond, 500*time.Millisecond)
	within := 0
	for r := rand.New(rand.NewPCG(1, 2)); within < 1000; within++ {
		if w := d.Draw(r); w < 100*time.Millisecond || w > 500*time.Millisecond {
			break
		}
	}
	fmt.Println(d, within)
	// Output: uniform 100ms to 500ms 1000
}
