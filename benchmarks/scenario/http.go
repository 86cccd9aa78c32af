package scenario

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/firebreak-go/firebreak/benchmarks/columns"
)

// request asks a server on loopback through a guarded http.Transport and reads the
// body. The server is in this process, so its share is in what is measured, as it is in
// what a request takes.
func request(column columns.Column) (*load, error) {
	if column.HTTP == nil {
		return nil, nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	base := &http.Transport{}
	guarded, done := column.HTTP(base, everything(columns.Everything, nil))
	url := "http://" + listener.Addr().String()
	l := &load{want: len("hello"), repeat: oneByOne}
	l.call = func(ctx context.Context) (int, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return 0, err
		}
		resp, err := guarded.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		n, err := io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("status %s", resp.Status)
		}
		return int(n), err
	}
	l.close = func() {
		done()
		base.CloseIdleConnections()
		_ = server.Close()
		<-served //nolint:errcheck // http.ErrServerClosed: that is what was asked for
	}
	return l.ready(column)
}
