package dashboard_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/dashboard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("connection refused")

func succeed(context.Context) error { return nil }
func fail(context.Context) error    { return errDown }

// call makes n calls.
func call(cmd *firebreak.Command, n int, run func(context.Context) error) {
	for range n {
		_ = cmd.Run(context.Background(), run)
	}
}

// newRegistry makes a registry that is shut down with the test.
func newRegistry(t testing.TB) *firebreak.Registry {
	t.Helper()
	reg := firebreak.NewRegistry(firebreak.Config{})
	t.Cleanup(func() { require.NoError(t, reg.Shutdown(context.Background())) })
	return reg
}

// newPage makes a page that is closed with the test.
func newPage(t testing.TB, reg *firebreak.Registry, o dashboard.Options) *dashboard.Handler {
	t.Helper()
	page := dashboard.New(reg, o)
	t.Cleanup(page.Close)
	return page
}

// get asks a handler, and returns its answer.
func get(h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	return ask(h, http.MethodGet, path, "", header...)
}

func ask(h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// pipes is a network of its own: a bubble's time goes on while somebody waits for it,
// as it would not for a socket.
type pipes struct {
	conns chan net.Conn
	over  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.over) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p *pipes) dial() (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}

// serve serves h over pipes until the end of the test.
func serve(t *testing.T, s *http.Server) *pipes {
	t.Helper()
	p := &pipes{conns: make(chan net.Conn), over: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(p)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return p
}

// A watcher reads a stream.
type watcher struct {
	t        *testing.T
	conn     net.Conn
	response *http.Response
	lines    *bufio.Reader
}

// watch asks for the stream. The connection is closed with the test.
func watch(t *testing.T, p *pipes) *watcher {
	t.Helper()
	c, err := p.dial()
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, "GET /stream HTTP/1.1\r\nHost: page\r\n\r\n")
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	return &watcher{t: t, conn: c, response: resp, lines: bufio.NewReader(resp.Body)}
}

func (w *watcher) leave() { _ = w.conn.Close() }

// A message is one of a stream's.
type message struct {
	name string
	text string

	Number   uint64
	At       int64
	Draining bool
	LeftOut  int
	Set      []item
	Gone     []struct{ Command, Key string }
	Events   []event
	Title    string
	Interval int
	Operator string
	Counts   []string
}

type item struct {
	Dependency string
	Isolation  string
	Limit      int
	Queued     int
	Abandoned  int

	Command, Key, Name, Of, State, Mode string
	Override                            *struct {
		Mode, Reason, Author string
		Until                int64
		Inject               bool
	}
	Evidence *struct {
		Rule, LastError                string
		At, NextProbe                  int64
		Calls, Failures, Slow, Refused int
	}
	ErrorPercentage float64
	Window, Total   []uint64
	Latency         []int64
	InFlight        int
	Fallbacks       int
}

type event struct {
	N                      uint64
	At                     int64
	Command, Key           string
	From, To, Mode         string
	Action, Reason, Author string
	Override               *struct{ Mode, Reason, Author string }
	Evidence               *struct{ Rule, LastError string }
}

// next returns the next message, or an error at the stream's end.
func (w *watcher) next() (message, error) {
	var m message
	for {
		line, err := w.lines.ReadString('\n')
		if err != nil {
			return m, err
		}
		line = strings.TrimSuffix(line, "\n")
		switch field, value, _ := strings.Cut(line, ": "); field {
		case "event":
			m.name = value
		case "data":
			m.text = value
		case "":
			if m.name == "" {
				continue // of retry
			}
			return m, json.Unmarshal([]byte(m.text), &m)
		}
	}
}

func (w *watcher) must() message {
	w.t.Helper()
	m, err := w.next()
	require.NoError(w.t, err)
	return m
}

// commands are those of a message, by name.
func (m message) commands() map[string]item {
	all := map[string]item{}
	for _, i := range m.Set {
		if i.Name != "" {
			all[i.Name] = i
		}
	}
	return all
}

// later lets time go by in a bubble.
func later(d time.Duration) { time.Sleep(d) }
