package firebreakhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firebreak-go/firebreak"
)

// An exchange is one request and its response. It lasts longer than the call: to
// the end of the body.
type exchange struct {
	transport *Transport
	req       *http.Request // the caller's
	body      body

	// A pool's caller may leave a worker alone with Base: here each finds how far the
	// other has come.
	mu   sync.Mutex
	sent bool                    // Base has the request, and closes its body
	busy bool                    // Base or Check is at work: the response is theirs
	left bool                    // the caller has its answer: nobody waits for a response
	resp *http.Response          // Base's, while it is ours to close
	end  context.CancelCauseFunc // of the request's context, while that is ours to end
}

// run is what the call does. The call's context ends with the call, which the
// request's must not: it has the call's deadline, but only up to here.
func (x *exchange) run(call context.Context) (*http.Response, error) {
	ctx, end := context.WithCancelCause(x.req.Context())
	var expiry *time.Timer
	if at, ok := soonerDeadline(call, x.req.Context()); ok {
		expiry = time.AfterFunc(time.Until(at), func() { end(context.DeadlineExceeded) })
		defer expiry.Stop()
	}
	resp, err := x.send(ctx, end)
	if expiry != nil && !expiry.Stop() {
		x.drop()
		return nil, errLate
	}
	return resp, err
}

// errLate is what the evidence says of a circuit that opens on it.
var errLate = fmt.Errorf("no response in time: %w", context.DeadlineExceeded)

// soonerDeadline is the call's deadline, unless it is the caller's own.
func soonerDeadline(call, caller context.Context) (time.Time, bool) {
	at, ok := call.Deadline()
	if own, has := caller.Deadline(); has && !at.Before(own) {
		return at, false
	}
	return at, ok
}

// hold is the call where the permit is for the body, too.
func (x *exchange) hold(cmd *firebreak.Command) (*http.Response, error) {
	call, err := cmd.Begin(x.req.Context())
	if err != nil {
		return nil, err
	}
	h := holding{call: call}
	h.stop = context.AfterFunc(x.req.Context(), h.over)
	defer h.judged() // a panic in Base or Check has no verdict: then End counts it
	resp, err := x.send(call.Context(), h.end)
	if !call.Extend(firebreak.Off) { // its time is over, and the body would break off
		x.drop()
		resp, err = nil, errLate
	}
	return resp, call.Settle(err)
}

// A holding ends a call when its body has ended, or with the caller's context if the
// body is forgotten, as the connection then does; but not before there is a verdict: a
// body may be empty, or read by Check.
type holding struct {
	call           *firebreak.Call
	stop           func() bool // waiting for the caller's context
	settled, ended atomic.Bool
}

func (h *holding) end(error) {
	h.stop()
	h.over()
}

func (h *holding) over() {
	h.ended.Store(true)
	if h.settled.Load() {
		h.call.End()
	}
}

func (h *holding) judged() {
	h.settled.Store(true)
	if h.ended.Load() {
		h.call.End()
	}
}

// send has Base make the request under ctx, and Check judge the response. end ends
// ctx, and is the exchange's from now on.
func (x *exchange) send(ctx context.Context, end context.CancelCauseFunc) (*http.Response, error) {
	if !x.begin(end) {
		end(nil)
		return nil, context.Cause(ctx)
	}
	defer x.done()
	out := x.req.WithContext(ctx)
	x.transport.tellDeadline(out)
	up := uploadOf(out)
	resp, err := x.transport.base().RoundTrip(out)
	if err != nil {
		if resp != nil && resp.Body != nil { // against the rules, and no reason to leak it
			_ = resp.Body.Close()
		}
		return nil, up.verdict(err)
	}
	if resp == nil {
		return nil, errors.New("firebreakhttp: Transport: Base returned neither a response nor an error")
	}
	resp.Request = x.req // Base's own, or a copy of it, has a context that ends
	x.body.wrap(resp, end)
	if !x.keep(resp) {
		return nil, context.Cause(ctx)
	}
	return resp, x.transport.check(resp)
}

// begin tells whether Base is to have the request: not if nobody waits any more.
func (x *exchange) begin(end context.CancelCauseFunc) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.left {
		return false
	}
	x.sent, x.busy, x.end = true, true, end
	return true
}

// keep takes the response, and tells whether somebody waits for it.
func (x *exchange) keep(resp *http.Response) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.resp = resp
	return !x.left
}

// done is the end of Base's and Check's work, also by a panic. If nobody waits for
// the response any more, it is closed here: its caller could not while Check read it.
func (x *exchange) done() {
	x.mu.Lock()
	x.busy = false
	left := x.left
	x.mu.Unlock()
	if left {
		x.drop()
	}
}

// drop closes a response that nobody gets.
func (x *exchange) drop() {
	x.mu.Lock()
	resp := x.resp
	x.resp = nil
	x.mu.Unlock()
	if resp != nil {
		_ = resp.Body.Close()
	}
}

// answer is what the caller gets of what the call came to: a response, whatever the
// verdict on it was, unless the caller has gone.
func (x *exchange) answer(resp *http.Response, err error) (*http.Response, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case resp == nil:
		return nil, err
	case resp != x.resp: // a fallback's
		return resp, err
	case gone(x.req.Context(), err):
		return nil, err
	}
	x.resp, x.end = nil, nil
	return resp, nil
}

// gone tells whether err is that the caller's context has ended.
func gone(caller context.Context, err error) bool {
	over := caller.Err()
	return err != nil && over != nil && errors.Is(err, over)
}

// release ends what the caller did not get.
func (x *exchange) release() {
	x.mu.Lock()
	var resp *http.Response
	if !x.busy {
		resp, x.resp = x.resp, nil
	}
	sent, end := x.sent, x.end
	x.left, x.end = true, nil
	x.mu.Unlock()
	if !sent && x.req.Body != nil {
		_ = x.req.Body.Close()
	}
	if resp != nil {
		drain(resp.Body, end)
	}
	if end != nil {
		end(nil)
	}
}

// How much is read of a response that a fallback took the place of, and for how
// long, to spare its connection: reconnecting is what a sick server needs least. As
// much as [http.Client] reads of a response that redirects.
const (
	drainBytes = 2 << 10
	drainTime  = 50 * time.Millisecond
)

func drain(body io.ReadCloser, end context.CancelCauseFunc) {
	late := time.AfterFunc(drainTime, func() { end(nil) })
	defer late.Stop()
	io.CopyN(io.Discard, body, drainBytes) //nolint:errcheck // nobody is left to tell
	_ = body.Close()
}
