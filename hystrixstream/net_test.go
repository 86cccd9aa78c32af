package hystrixstream_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/hystrixstream"
)

// A site is the streams behind a real server.
type site struct {
	*httptest.Server
	ended chan struct{} // one for each GET whose handler has returned
}

// serve starts a server of HTTP/1.1, or of HTTP/2 over TLS.
func serve(t testing.TB, h *hystrixstream.Handler, http2 bool, change ...func(*http.Server)) *site {
	t.Helper()
	s := &site{ended: make(chan struct{}, 100)}
	m := mux(h)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.ServeHTTP(wrapped{w}, r)
		if r.Method == http.MethodGet {
			s.ended <- struct{}{}
		}
	}))
	for _, c := range change {
		c(s.Config)
	}
	s.EnableHTTP2 = http2
	if http2 {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(func() {
		h.Close()
		s.Close()
	})
	return s
}

// get asks for a stream; leave goes away.
func (s *site) get(t testing.TB, path string) (resp *http.Response, leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
	require.NoError(t, err)
	resp, err = s.Client().Do(r)
	require.NoError(t, err)
	leave = func() {
		cancel()
		_ = resp.Body.Close()
	}
	t.Cleanup(leave)
	return resp, leave
}

// await waits for a handler to return.
func (s *site) await(t testing.TB) {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(30 * time.Second):
		require.Fail(t, "the handler goes on")
	}
}

// frames reads so many frames of data.
func frames(t testing.TB, body *bufio.Reader, n int) (all []string) {
	t.Helper()
	for len(all) < n {
		line, err := body.ReadString('\n')
		require.NoError(t, err)
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			all = append(all, data)
		}
	}
	return all
}

func forBoth(t *testing.T, test func(t *testing.T, http2 bool)) {
	t.Helper()
	t.Run("HTTP/1.1", func(t *testing.T) { test(t, false) })
	t.Run("HTTP/2", func(t *testing.T) { test(t, true) })
}

// A stream over the network, through a wrapped ResponseWriter, from its headers to the
// client's leaving, which makes room.
func TestOverHTTP(t *testing.T) {
	forBoth(t, func(t *testing.T, http2 bool) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{})
		s := serve(t, newHandler(t, reg, hystrixstream.Options{MaxClients: 1}), http2)

		resp, leave := s.get(t, "/?delay=100")
		require.Equal(t, http2, resp.ProtoMajor == 2)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.Equal(t, "text/event-stream;charset=UTF-8", resp.Header.Get("Content-Type"))
		require.Equal(t, !http2, resp.Close, "the connection ends with the stream, but not one that others share")
		body := bufio.NewReader(resp.Body)
		first := frames(t, body, 1)[0]
		require.Contains(t, first, `"name":"dep"`)
		require.Contains(t, first, `"rollingCountSuccess":0`)
		cmd.Run(t.Context(), succeed)
		require.Contains(t, frames(t, body, 2)[1], `"rollingCountSuccess":1`)

		for _, path := range []string{"/", "/?delay=100"} {
			refused, err := s.Client().Get(s.URL + path)
			require.NoError(t, err)
			require.Equal(t, http.StatusServiceUnavailable, refused.StatusCode)
			text, err := io.ReadAll(refused.Body)
			require.NoError(t, err)
			require.NoError(t, refused.Body.Close())
			require.Equal(t, "MaxConcurrentConnections reached: 1\n", string(text))
			s.await(t)
		}
		leave()
		s.await(t)
		head, err := s.Client().Head(s.URL)
		require.NoError(t, err)
		require.NoError(t, head.Body.Close())
		require.Equal(t, http.StatusOK, head.StatusCode)
		require.Equal(t, "text/event-stream;charset=UTF-8", head.Header.Get("Content-Type"))

		resp, _ = s.get(t, "/")
		require.Equal(t, http.StatusOK, resp.StatusCode)
		frames(t, bufio.NewReader(resp.Body), 1)
		for _, path := range []string{"/config", "/utilization"} {
			resp, _ = s.get(t, path)
			frames(t, bufio.NewReader(resp.Body), 1)
		}
	})
}

// A server's own WriteTimeout does not end a stream that is read.
func TestServerWriteTimeout(t *testing.T) {
	forBoth(t, func(t *testing.T, http2 bool) {
		reg := newRegistry(t, firebreak.Config{})
		reg.Command("dep", firebreak.Config{})
		h := newHandler(t, reg, hystrixstream.Options{})
		s := serve(t, h, http2, func(s *http.Server) { s.WriteTimeout = 300 * time.Millisecond })
		resp, _ := s.get(t, "/?delay=100")
		frames(t, bufio.NewReader(resp.Body), 8)
	})
}

// Shutdown of a server that knows Close ends the streams, cleanly, and waits for them.
func TestServerShutdown(t *testing.T) {
	forBoth(t, func(t *testing.T, http2 bool) {
		reg := newRegistry(t, firebreak.Config{})
		reg.Command("dep", firebreak.Config{})
		h := newHandler(t, reg, hystrixstream.Options{})
		s := serve(t, h, http2)
		s.Config.RegisterOnShutdown(h.Close)
		resp, _ := s.get(t, "/?delay=60000")
		body := bufio.NewReader(resp.Body)
		frames(t, body, 1)

		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		down := make(chan error)
		go func() { down <- s.Config.Shutdown(ctx) }()
		_, err := io.ReadAll(body)
		require.NoError(t, err, "an end, not a break")
		require.NoError(t, resp.Body.Close())
		require.NoError(t, <-down)
		s.await(t)
	})
}

// newLarge makes streams with samples of 600 KB, of which no buffer on the way holds
// many.
func newLarge(t testing.TB, timeout time.Duration) *hystrixstream.Handler {
	t.Helper()
	reg := newRegistry(t, firebreak.Config{})
	reg.Command(strings.Repeat("x", 200_000), firebreak.Config{})
	return newHandler(t, reg, hystrixstream.Options{MaxClients: 2, WriteTimeout: timeout})
}

// smallBuffer has the server's side of its first connection hold little of what it
// writes.
func smallBuffer(s *http.Server) {
	var found atomic.Bool
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if !found.Swap(true) {
			_ = c.(*net.TCPConn).SetWriteBuffer(4096)
		}
		return ctx
	}
}

// A client that asks and then reads nothing is dropped, while another has its samples.
func TestStalledConnection(t *testing.T) {
	s := serve(t, newLarge(t, 2*time.Second), false, smallBuffer)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4096))
	_, err = io.WriteString(conn, "GET /?delay=100 HTTP/1.1\r\nHost: dep\r\n\r\n")
	require.NoError(t, err)

	resp, _ := s.get(t, "/?delay=100")
	body := bufio.NewReader(resp.Body)
	frames(t, body, 4)
	s.await(t)
	frames(t, body, 4)
	resp, _ = s.get(t, "/")
	require.Equal(t, http.StatusOK, resp.StatusCode, "the place is free")
}

// Over HTTP/2 such a client loses its stream, not the connection that others share.
func TestStalledStream(t *testing.T) {
	s := serve(t, newLarge(t, 2*time.Second), true)
	stalled, _ := s.get(t, "/?delay=100")
	resp, _ := s.get(t, "/?delay=100")
	body := bufio.NewReader(resp.Body)
	frames(t, body, 4)
	s.await(t)
	frames(t, body, 4)
	_, err := io.Copy(io.Discard, stalled.Body)
	require.Error(t, err)
}

// Where the whole connection is stuck, WriteByteTimeout is what ends it.
func TestStalledHTTP2Connection(t *testing.T) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	s := serve(t, newLarge(t, 100*time.Millisecond), false, smallBuffer, func(s *http.Server) {
		s.Protocols = &protocols
		s.HTTP2 = &http.HTTP2Config{WriteByteTimeout: 500 * time.Millisecond}
	})
	var stop atomic.Pointer[chan struct{}]
	transport := &http.Transport{
		Protocols: &protocols,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			_ = c.(*net.TCPConn).SetReadBuffer(4096)
			return &deaf{Conn: c, stop: &stop}, nil
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	s.Client().Transport = transport
	resp, _ := s.get(t, "/?delay=100")
	require.Equal(t, 2, resp.ProtoMajor)
	hold := make(chan struct{})
	stop.Store(&hold)
	defer close(hold)
	s.await(t)
}

// A deaf connection reads no more once stop is there, until that is closed.
type deaf struct {
	net.Conn
	stop *atomic.Pointer[chan struct{}]
}

func (d *deaf) Read(p []byte) (int, error) {
	if hold := d.stop.Load(); hold != nil {
		<-*hold
	}
	return d.Conn.Read(p)
}
