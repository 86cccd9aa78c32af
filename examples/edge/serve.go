package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"
)

// A server is an http.Server that is listening.
type server struct {
	http   http.Server
	url    string
	served chan error
}

func serve(addr string, h http.Handler) (*server, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &server{url: "http://" + listener.Addr().String(), served: make(chan error, 1)}
	s.http.Handler, s.http.ReadHeaderTimeout = h, 5*time.Second
	go func() { s.served <- s.http.Serve(listener) }()
	return s, nil
}

// stop lets the requests in hand finish, as long as ctx allows.
func (s *server) stop(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	if e := <-s.served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// A cleanup stops what was started, last things first, as deferred calls would; and
// keeps their errors.
type cleanup []func(context.Context) error

func (c *cleanup) add(stop func(context.Context) error) { *c = append(*c, stop) }

func (c *cleanup) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	for i := len(*c) - 1; i >= 0; i-- {
		errs = append(errs, (*c)[i](ctx))
	}
	return errors.Join(errs...)
}

// sleep reports false if ctx ends before d has passed.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error here is a client that has left
}
