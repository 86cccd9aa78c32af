package firebreakhttp_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakhttp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errBoom = errors.New("boom")
	errPass = errors.New("no fallback for this")
)

const patience = 20 * time.Second // for what is bound to come, on the slowest machine

// newRegistry makes a registry that is shut down with the test, when everything must
// be at rest.
func newRegistry(t testing.TB, defaults firebreak.Config) *firebreak.Registry {
	t.Helper()
	if defaults.Timeout == 0 { // where the time is real, no call is to be late by chance
		defaults.Timeout = patience
	}
	reg := firebreak.NewRegistry(defaults)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, reg.Shutdown(ctx))
		for cmd := range reg.Commands() {
			s := cmd.Snapshot()
			require.Zero(t, s.InFlight, "%s in flight", cmd.Name())
			require.Zero(t, s.Fallbacks, "%s in fallbacks", cmd.Name())
			require.Zero(t, s.Bulkhead.InFlight, "permits of %s", s.Dependency)
			require.Zero(t, s.Bulkhead.Queued)
			require.Zero(t, s.Bulkhead.Abandoned)
			require.Equal(t, s.Total.Executed(), s.RunHistogram.Count)
		}
	})
	return reg
}

// A guard is a way to set up a Transport.
type guard struct {
	name           string
	pool           bool
	hold, fallback bool
}

var guards = []guard{
	{name: "plain"},
	{name: "hold", hold: true},
	{name: "fallback", fallback: true},
	{name: "pool", pool: true},
	{name: "pool hold", pool: true, hold: true},
	{name: "pool fallback", pool: true, fallback: true},
}

// make returns a Transport, and its command. A fallback of its passes every time.
func (g guard) make(t testing.TB, base http.RoundTripper, c firebreak.Config) (*firebreakhttp.Transport, *firebreak.Command) {
	t.Helper()
	if g.pool {
		c.Isolation = firebreak.PoolIsolation
	}
	cmd := newRegistry(t, firebreak.Config{}).Command("site", c)
	tr := &firebreakhttp.Transport{Command: cmd, Base: base, HoldPermit: g.hold}
	if g.fallback {
		tr.Fallback = func(*http.Request, error) (*http.Response, error) { return nil, errPass }
	}
	return tr, cmd
}

// onOther tells whether Base is called on another goroutine than the caller's.
func (g guard) onOther() bool { return g.pool && !g.hold }

func inEachGuard(t *testing.T, test func(t *testing.T, g guard)) {
	t.Helper()
	for _, g := range guards {
		t.Run(g.name, func(t *testing.T) { test(t, g) })
	}
}

// inBubbles is inEachGuard in test bubbles.
func inBubbles(t *testing.T, test func(t *testing.T, g guard)) {
	t.Helper()
	inEachGuard(t, func(t *testing.T, g guard) {
		synctest.Test(t, func(t *testing.T) { test(t, g) })
	})
}

// A site is a server and a transport that reaches it.
type site struct {
	url   string
	base  *http.Transport
	conns *conns
}

// onLoopback serves over real sockets, HTTP/1.1 in the clear or HTTP/2 under TLS.
func onLoopback(t testing.TB, http2 bool, h http.HandlerFunc) *site {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	conns := newConns()
	s.Config.ConnState = conns.note
	if http2 {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	base := s.Client().Transport.(*http.Transport)
	t.Cleanup(func() {
		base.CloseIdleConnections()
		s.Close()
	})
	return &site{s.URL, base, conns}
}

// inPipes serves over pipes in memory, HTTP/1.1 or HTTP/2, both in the clear: all of
// net/http, and the time of a bubble.
func inPipes(t testing.TB, http2 bool, h http.HandlerFunc) *site {
	t.Helper()
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	conns := newConns()
	s := &http.Server{Handler: h, ConnState: conns.note, ErrorLog: log.New(io.Discard, "", 0)}
	base := &http.Transport{DialContext: l.dial}
	if http2 {
		var p http.Protocols
		p.SetUnencryptedHTTP2(true)
		s.Protocols, base.Protocols = &p, &p
	}
	go s.Serve(l) //nolint:errcheck // it is closed below
	t.Cleanup(func() {
		base.CloseIdleConnections()
		_ = s.Close()
	})
	return &site{"http://site.example", base, conns}
}

// onEachWire runs a test with HTTP/1.1 and HTTP/2.
func onEachWire(t *testing.T, test func(t *testing.T, http2 bool)) {
	t.Helper()
	t.Run("HTTP/1.1", func(t *testing.T) { test(t, false) })
	t.Run("HTTP/2", func(t *testing.T) { test(t, true) })
}

// pipes is a listener.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// conns counts a server's connections.
type conns struct {
	mu      sync.Mutex
	open    map[net.Conn]bool
	changed chan struct{}
}

func newConns() *conns { return &conns{open: map[net.Conn]bool{}, changed: make(chan struct{})} }

func (c *conns) note(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch s {
	case http.StateNew:
		c.open[conn] = true
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *conns) count() (open int, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open), c.changed
}

// requireIdle closes the idle connections, and waits until the server has seen the
// last one end: one that is not idle does not. HTTP/2 forgets a stream that was reset
// a moment after its caller has left, and tells nobody: so it is asked again.
func (s *site) requireIdle(t testing.TB, rt interface{ CloseIdleConnections() }) {
	t.Helper()
	late := time.After(patience)
	for {
		rt.CloseIdleConnections()
		open, changed := s.conns.count()
		if open == 0 {
			return
		}
		select {
		case <-changed:
		case <-time.After(patience / 1000):
		case <-late:
			t.Fatalf("%d connections stay open", open)
		}
	}
}

// baseFunc is a Base.
type baseFunc func(*http.Request) (*http.Response, error)

func (f baseFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// closing is a Base that reads and closes the request's body, as it must.
func closing(f baseFunc) baseFunc {
	return func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			io.Copy(io.Discard, req.Body) //nolint:errcheck // a body of a test's
			defer req.Body.Close()
		}
		return f(req)
	}
}

// answering is a Base whose answers are of that status and text.
func answering(status int, text string) baseFunc {
	return closing(func(req *http.Request) (*http.Response, error) { return response(req, status, text), nil })
}

func response(req *http.Request, status int, text string) *http.Response {
	return &http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: req,
		Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)),
	}
}

// A watched body knows how often it was closed, and that nobody used it in two
// goroutines at once.
type watched struct {
	io.Reader
	closes atomic.Int32
	inUse  atomic.Int32
	abused atomic.Bool
}

func (w *watched) Read(p []byte) (int, error) {
	defer w.use()()
	return w.Reader.Read(p)
}

func (w *watched) Close() error {
	defer w.use()()
	w.closes.Add(1)
	return nil
}

func (w *watched) use() func() {
	if w.inUse.Add(1) > 1 {
		w.abused.Store(true)
	}
	return func() { w.inUse.Add(-1) }
}

// readerFunc is a Reader.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// newRequest is a GET, or a POST of a body.
func newRequest(t testing.TB, ctx context.Context, url string, body io.Reader) *http.Request {
	t.Helper()
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	require.NoError(t, err)
	return req
}

// get makes a request that is answered, and returns status and body.
func get(t testing.TB, rt http.RoundTripper, url string) (int, string) {
	t.Helper()
	resp, err := rt.RoundTrip(newRequest(t, t.Context(), url, nil))
	require.NoError(t, err)
	return resp.StatusCode, read(t, resp)
}

// read reads a body to its end and closes it.
func read(t testing.TB, resp *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return string(text)
}

// requireRefused makes a request that has no response, and returns its error.
func requireRefused(t testing.TB, rt http.RoundTripper, req *http.Request) error {
	t.Helper()
	resp, err := rt.RoundTrip(req) //nolint:bodyclose // there is none
	require.Nil(t, resp)
	require.Error(t, err)
	return err
}

// outcomes are the counts of a command that are not zero, those of fallbacks left out.
func outcomes(cmd *firebreak.Command) map[string]uint64 {
	all := counts(cmd)
	for name := range all {
		if strings.HasPrefix(name, "Fallback") {
			delete(all, name)
		}
	}
	return all
}

// counts are the counts of a command that are not zero.
func counts(cmd *firebreak.Command) map[string]uint64 {
	all := map[string]uint64{}
	for f, v := range reflect.ValueOf(cmd.Snapshot().Total).Fields() {
		if v.Uint() > 0 {
			all[f.Name] = v.Uint()
		}
	}
	return all
}

// one is the count of a single outcome.
func one(outcome string) map[string]uint64 { return map[string]uint64{outcome: 1} }
