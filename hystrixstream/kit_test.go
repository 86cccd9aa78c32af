package hystrixstream_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/hystrixstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errBoom     = errors.New("boom")
	errNotFound = errors.New("not found")
	errPaused   = errors.New("paused")
)

func succeed(context.Context) error         { return nil }
func fail(context.Context) error            { return errBoom }
func fallBack(context.Context, error) error { return nil }

// hang heeds its context.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// classify is a Config.Classify of all three verdicts.
func classify(err error) firebreak.Verdict {
	switch {
	case errors.Is(err, errNotFound):
		return firebreak.Expected
	case errors.Is(err, errPaused):
		return firebreak.Ignored
	}
	return firebreak.Failure
}

// newRegistry makes a registry that is shut down with the test.
func newRegistry(t testing.TB, defaults firebreak.Config) *firebreak.Registry {
	t.Helper()
	reg := firebreak.NewRegistry(defaults)
	t.Cleanup(func() { shutdown(t, reg) })
	return reg
}

func shutdown(t testing.TB, reg *firebreak.Registry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	assert.NoError(t, reg.Shutdown(ctx))
}

// newHandler makes the streams of a registry, closed with the test.
func newHandler(t testing.TB, reg *firebreak.Registry, o hystrixstream.Options) *hystrixstream.Handler {
	t.Helper()
	h := hystrixstream.New(reg, o)
	t.Cleanup(h.Close)
	return h
}

// trip opens a circuit by as many failures as the default rules want.
func trip(t testing.TB, cmd *firebreak.Command) {
	t.Helper()
	for range 20 {
		cmd.Run(t.Context(), fail)
	}
	require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)
}

// A tape is the http.ResponseWriter of a client in a test bubble: it notes what comes
// and when, and can stall.
type tape struct {
	began  time.Time
	header http.Header
	leave  context.CancelFunc // the client goes
	done   chan struct{}      // closed when the handler has returned

	mu       sync.Mutex
	status   int
	writes   []write
	deadline time.Time
	takes    time.Duration // that a write does
	stalled  bool
}

type write struct {
	at       time.Duration // since the client came
	text     string
	in       *byte         // the memory it was written from
	deadline time.Duration // that it had; 0: none
}

func (t *tape) Header() http.Header { return t.header }

func (t *tape) WriteHeader(status int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.status == 0 {
		t.status = status
	}
}

func (t *tape) FlushError() error {
	t.WriteHeader(http.StatusOK)
	return nil
}

func (t *tape) SetWriteDeadline(at time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deadline = at
	return nil
}

func (t *tape) Write(p []byte) (int, error) {
	t.WriteHeader(http.StatusOK)
	t.mu.Lock()
	defer t.mu.Unlock()
	w := write{at: time.Since(t.began), in: &p[0]}
	if !t.deadline.IsZero() {
		w.deadline = time.Until(t.deadline)
	}
	takes, deadline := t.takes, t.deadline
	if t.stalled {
		takes = 1 << 62
	}
	t.mu.Unlock() // time stands still while somebody waits for a mutex
	late := false
	if !deadline.IsZero() && takes > time.Until(deadline) {
		takes, late = time.Until(deadline), true
	}
	time.Sleep(takes)
	t.mu.Lock()
	if late {
		return 0, os.ErrDeadlineExceeded
	}
	w.text = string(p) // at last: it must be what it was
	t.writes = append(t.writes, w)
	return len(p), nil
}

// set changes how the tape is.
func (t *tape) set(change func(*tape)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(t)
}

// text is all that came.
func (t *tape) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, w := range t.writes {
		b.WriteString(w.text)
	}
	return b.String()
}

// seen are the writes so far.
func (t *tape) seen() []write {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]write(nil), t.writes...)
}

// times are when the writes came, in milliseconds; negative: pings alone.
func (t *tape) times() (at []int) {
	for _, w := range t.seen() {
		ms := int(w.at.Milliseconds())
		if w.text == ping {
			ms = -ms
		}
		at = append(at, ms)
	}
	return at
}

// over tells whether the handler has returned.
func (t *tape) over() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

const ping = "ping: \n\n"

// watch has a client come, whose first sample is then there.
func watch(t *testing.T, h http.Handler, target string) *tape {
	t.Helper()
	return watchAs(t, h, target, func(tp *tape) http.ResponseWriter { return tp })
}

// watchAs is watch through another ResponseWriter.
func watchAs(t *testing.T, h http.Handler, target string, as func(*tape) http.ResponseWriter) *tape {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	tp := &tape{began: time.Now(), header: http.Header{}, leave: leave, done: make(chan struct{})}
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	w := as(tp)
	go func() {
		defer close(tp.done)
		h.ServeHTTP(w, r)
	}()
	t.Cleanup(func() {
		leave()
		<-tp.done
	})
	synctest.Wait()
	return tp
}

// answer is a whole response to a request that gets no stream.
func answer(t testing.TB, h http.Handler, method, target string) *httptest.ResponseRecorder {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // if it gets one after all
	defer cancel()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, target, nil))
	return w
}

// object is what a line says.
type object = map[string]any

// linesOf are the objects of a text of whole frames; it fails at whatever else is there.
func linesOf(t testing.TB, text string) (objects []object) {
	t.Helper()
	for frame := range strings.SplitSeq(text, "\n\n") {
		if frame == "ping: " || frame == "" {
			continue
		}
		data, ok := strings.CutPrefix(frame, "data: ")
		require.True(t, ok, "%q is not a frame", frame)
		require.NotContains(t, data, "\n")
		var o object
		require.NoError(t, json.Unmarshal([]byte(data), &o), data)
		objects = append(objects, o)
	}
	return objects
}

// sampleOf are the lines of one sample of a stream, now.
func sampleOf(t *testing.T, h http.Handler) []object {
	t.Helper()
	tp := watch(t, h, "/")
	tp.leave()
	<-tp.done
	return linesOf(t, tp.seen()[0].text)
}

// lineOf is the line of one name.
func lineOf(t *testing.T, h http.Handler, kind, name string) object {
	t.Helper()
	for _, o := range sampleOf(t, h) {
		if o["type"] == kind && o["name"] == name {
			return o
		}
	}
	require.Failf(t, "not in the stream", "%s %s", kind, name)
	return nil
}
