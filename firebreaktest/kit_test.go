package firebreaktest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreaktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBoom = errors.New("boom")

func succeed(context.Context) error { return nil }
func fail(context.Context) error    { return errBoom }

// hang heeds its context.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// fallBack answers.
func fallBack(context.Context, error) error { return nil }

// newCommand makes a registry with one command, users.get.
func newCommand(t testing.TB, c firebreak.Config) (*firebreak.Registry, *firebreak.Command) {
	t.Helper()
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	return reg, reg.Command("users.get", c)
}

// A report is how a test went that was expected to fail.
type report struct {
	failed, ended bool     // ended by Fatalf
	text          string   // all that it said
	lines         []string // by Errorf and Fatalf, each
}

// fakeT is a test that may fail.
type fakeT struct {
	testing.TB
	name string

	mu       sync.Mutex
	report   report
	cleanups []func()
}

func (t *fakeT) Helper()      {}
func (t *fakeT) Name() string { return t.name }

func (t *fakeT) Errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.failed = true
	t.report.lines = append(t.report.lines, fmt.Sprintf(format, args...))
	t.report.text = strings.Join(t.report.lines, "\n")
}

func (t *fakeT) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	t.mu.Lock()
	t.report.ended = true
	t.mu.Unlock()
	runtime.Goexit()
}

func (t *fakeT) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

// runTest runs a test and its cleanups on a goroutine of its own, as package
// testing does, and returns how it went.
func runTest(t testing.TB, name string, body func(t testing.TB)) report {
	t.Helper()
	f := &fakeT{TB: t, name: name}
	onGoroutine(func() { body(f) })
	for _, cleanup := range slices.Backward(f.cleanups) {
		onGoroutine(cleanup)
	}
	return f.report
}

// onGoroutine waits for f, which may call Goexit.
func onGoroutine(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// requireFatal checks that body ends its test, with a text that has all of parts.
func requireFatal(t testing.TB, body func(t testing.TB), parts ...string) {
	t.Helper()
	after := false
	r := runTest(t, "TestFake", func(t testing.TB) {
		body(t)
		after = true
	})
	require.True(t, r.ended, "it must end the test; said: %q", r.text)
	require.False(t, after)
	require.Len(t, r.lines, 1)
	for _, part := range parts {
		require.Contains(t, r.text, part)
	}
}

// untilNextProbe is how long an open circuit still sleeps.
func untilNextProbe(cmd *firebreak.Command) time.Duration {
	s := cmd.Snapshot()
	return s.Evidence.NextProbe.Sub(s.Time)
}
