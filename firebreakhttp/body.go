package firebreakhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/firebreak-go/firebreak"
)

// A body is a response's, whose end ends the request's context.
type body struct {
	io.ReadCloser
	end context.CancelCauseFunc
}

// wrap takes the place of resp's body. One that is empty ends now; one that can be
// written, of a connection that was upgraded, stays so, and ends with Close alone.
func (b *body) wrap(resp *http.Response, end context.CancelCauseFunc) {
	if resp.Body == nil { // http.Transport never does that, others do
		resp.Body = http.NoBody
	}
	b.ReadCloser, b.end = resp.Body, end
	switch rw, upgraded := resp.Body.(io.ReadWriteCloser); {
	case resp.Body == http.NoBody:
		end(nil)
	case upgraded:
		resp.Body = upgradedBody{rw, end}
	default:
		resp.Body = b
	}
}

// Read ends the context with the last byte: HTTP clients that read to the end and
// forget Close are common, and lose nothing.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.end(nil)
	}
	return n, err
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.end(nil)
	return err
}

type upgradedBody struct {
	io.ReadWriteCloser
	end context.CancelCauseFunc
}

func (b upgradedBody) Close() error {
	err := b.ReadWriteCloser.Close()
	b.end(nil)
	return err
}

// CloseWrite is for proxies, which pass on the end of one direction by it.
func (b upgradedBody) CloseWrite() error {
	if w, ok := b.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return fmt.Errorf("CloseWrite: %w", http.ErrNotSupported)
}

// An upload is a request's body that keeps its reader's error: that is the caller's
// trouble and no failure of the server's. Behind a proxy, clients that break off their
// uploads would otherwise open the circuit for all.
type upload struct {
	io.ReadCloser
	failed atomic.Pointer[error]
}

// uploadOf watches the body of a request that is ours, if that can fail: not one that
// can be had again, which lies in memory, and which Base is to know for what it is.
func uploadOf(out *http.Request) *upload {
	if out.Body == nil || out.Body == http.NoBody || out.GetBody != nil {
		return nil
	}
	u := &upload{ReadCloser: out.Body}
	out.Body = u
	return u
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		u.failed.CompareAndSwap(nil, &err)
	}
	return n, err
}

// verdict is an error of Base's, marked if it is the reader's.
func (u *upload) verdict(err error) error {
	if u == nil {
		return err
	}
	if failed := u.failed.Load(); failed != nil && errors.Is(err, *failed) {
		return firebreak.Mark(err, firebreak.Ignored)
	}
	return err
}
