package firebreaktest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreaktest"
)

// A service's own code, which the examples test.
type service struct{ getUser *firebreak.Command }

func newService(reg *firebreak.Registry) *service {
	return &service{reg.Command("users.get", firebreak.Config{})}
}

// User answers with a guest when users do not.
func (s *service) User(ctx context.Context, id int) (string, error) {
	return firebreak.Do(ctx, s.getUser, func(context.Context) (string, error) {
		if id == 0 {
			return "", errors.New("users: no connection")
		}
		return "Ada", nil
	}, firebreak.Static("guest"))
}

// A fallback, tested without users that are down.
func ExampleForce() {
	t := new(testing.T) // the test's own
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	svc := newService(reg)

	restore := firebreaktest.Force(t, reg, "users.get", firebreak.ErrTimeout)
	fmt.Println(svc.User(context.Background(), 7))
	restore()
	fmt.Println(svc.User(context.Background(), 7))
	// Output:
	// guest <nil>
	// Ada <nil>
}

// An open circuit, without twenty calls that fail.
func ExampleTrip() {
	t := new(testing.T) // the test's own
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	svc := newService(reg)

	firebreaktest.Trip(t, reg, "users.get")
	fmt.Println(svc.User(context.Background(), 7))
	s := svc.getUser.Snapshot()
	fmt.Printf("%v by %s, %d short-circuited\n", s.State, s.Evidence.Rule, s.Total.ShortCircuited)
	// Output:
	// guest <nil>
	// open by error percentage, 1 short-circuited
}

// What happened, in order.
func ExampleRecord() {
	t := new(testing.T) // the test's own
	reg := firebreaktest.NewRegistry(t, firebreak.Config{ConsecutiveFailures: 2})
	svc := newService(reg)
	rec := firebreaktest.Record(t, reg)

	for _, id := range []int{7, 0, 0, 7} {
		_, _ = svc.User(context.Background(), id)
	}
	for _, event := range rec.Events("users.get") {
		fmt.Println(event)
	}
	// Output:
	// success
	// failure
	// fallback_success
	// failure
	// open
	// fallback_success
	// short_circuited
	// fallback_success
}

// logT is a test that prints what it is failed with.
type logT struct{ *testing.T }

func (logT) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// Where the events are not as wanted, the test fails with this.
func ExampleRecorder_Want() {
	t := logT{new(testing.T)} // the test's own
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	svc := newService(reg)
	rec := firebreaktest.Record(t, reg)

	firebreaktest.Trip(t, reg, "users.get")
	_, _ = svc.User(context.Background(), 7)
	rec.Want(t, "users.get", "open", "short_circuited", "fallback_failure")
	// Output:
	// firebreaktest: the events of users.get are not as wanted (- wanted, + happened):
	//     open
	//     short_circuited
	//   - fallback_failure
	//   + fallback_success
}
