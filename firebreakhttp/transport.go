package firebreakhttp

import (
	"errors"
	"net/http"
	"strings"

	"github.com/firebreak-go/firebreak"
)

// A Transport is an [http.RoundTripper] that makes each request a call of a
// command: bulkhead, circuit and timeout stand before Base. Set its fields before
// the first request; then it may be used concurrently.
//
// The call is over, and judged by Check, when the response's headers are there. The
// body stays readable after that for as long as the caller's context lasts: the
// command's timeout does not cut it. That context, or http.Client.Timeout, is what
// bounds a body that hangs. As ever the caller closes it, which ends the context that
// Base was given, as its last byte does.
//
// A response is a response: one that Check takes for a failure is counted as that,
// and delivered, its body untouched; a client that wants an error of it asks [Check].
// Its Request is the caller's. One that comes after the timeout is none. Errors are
// Base's own or the call's: through http.Client, errors.Is finds [firebreak.ErrOpen],
// [firebreak.ErrRejected], [firebreak.ErrShutdown] and [firebreak.ErrTimeout] in them.
// Each hop of a redirect is a request, and so a call.
//
// An error of Base's is judged by the command's Classify, unless it is that of the
// request's own body, which broke off: that is [firebreak.Ignored], as the server is not
// to blame.
//
// Base must give up soon after its request's context is done, and so must its bodies,
// as http.Transport and its own do. With a Base that may not, use pool isolation, and
// leave a request alone whose round trip ended in an error: Base may still be reading it.
type Transport struct {
	// Command guards all requests. Either it or Keyed must be set.
	Command *firebreak.Command
	// Keyed guards each key's requests by that key's command.
	Keyed *firebreak.Keyed
	// Key tells the key of a request, for Keyed. Nil: the host in its URL in lower
	// case, with the port if that is not the scheme's own.
	Key func(*http.Request) string

	// Base makes the requests. Nil: [http.DefaultTransport].
	Base http.RoundTripper

	// Check is the verdict on a response, and part of the call: if it reads the body,
	// the command's timeout bounds that, and it must put what it has read back. Nil
	// from it is success; what an error says is decided by its mark, or else by the
	// command's Classify. Nil: [Check].
	Check func(*http.Response) error

	// Fallback answers in place of a request that failed or was refused, with cause
	// as a [firebreak.Fallback] has it: a [*StatusError] if there was a response that
	// is a failure. It returns a new response each time, such as [NewResponse] makes;
	// Body and Request may be nil. With an error it passes: then the caller gets the
	// server's response, or the call's error. The request's body may be gone; do not use
	// it. Not with HoldPermit. Nil: there is none; what a client answers by hand then
	// counts as missing.
	Fallback func(req *http.Request, cause error) (*http.Response, error)

	// HoldPermit keeps the bulkhead's permit until the response's body is closed or
	// read to its end, or the caller's context ends, so that the bulkhead bounds bodies,
	// too. A call is then made with [firebreak.Command.Begin]: in a pool it takes a
	// permit but no worker, and RecoverPanics does not reach Base and Check. False: the
	// permit goes back when the headers are there.
	HoldPermit bool

	// DeadlineHeader names a header that tells the server how long the caller will
	// wait, if the request's context has a deadline; [Handler] reads it. It says
	// nothing of the command's timeout, which is not for the body. Empty: none is sent.
	DeadlineHeader string
}

// RoundTrip makes a request. It blocks as long as the command's calls do, and up to
// 50 ms longer where a fallback took the place of a response that is still coming. It
// closes the request's body, unless Base has that, and changes nothing in the request.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	x := &exchange{transport: t, req: req}
	defer x.release()
	cmd, err := t.command(req)
	if err != nil {
		return nil, err
	}
	if t.HoldPermit {
		return x.answer(x.hold(cmd))
	}
	var fallbacks []firebreak.Fallback[*http.Response]
	if t.Fallback != nil {
		fallbacks = append(fallbacks, x.fallback)
	}
	return x.answer(firebreak.Do(req.Context(), cmd, x.run, fallbacks...))
}

// CloseIdleConnections closes those of Base, if it knows how to.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (t *Transport) base() http.RoundTripper {
	if t.Base != nil {
		return t.Base
	}
	return http.DefaultTransport
}

// command is whose call a request is.
func (t *Transport) command(req *http.Request) (*firebreak.Command, error) {
	switch {
	case req.URL == nil:
		return nil, errors.New("firebreakhttp: the request's URL is nil")
	case t.Fallback != nil && t.HoldPermit:
		return nil, errors.New("firebreakhttp: Transport: HoldPermit does not go with Fallback")
	case t.Command != nil && t.Keyed == nil:
		return t.Command, nil
	case t.Keyed == nil || t.Command != nil:
		return nil, errors.New("firebreakhttp: Transport: one of Command and Keyed must be set")
	case t.Key != nil:
		return t.Keyed.Command(t.Key(req)), nil
	}
	return t.Keyed.Command(host(req)), nil
}

// host is where a request goes, in one spelling.
func host(req *http.Request) string {
	h := strings.TrimSuffix(strings.ToLower(req.URL.Host), ":") // an empty port is the scheme's own
	switch req.URL.Scheme {
	case "http":
		return strings.TrimSuffix(h, ":80")
	case "https":
		return strings.TrimSuffix(h, ":443")
	}
	return h
}

func (t *Transport) check(resp *http.Response) error {
	if t.Check != nil {
		return t.Check(resp)
	}
	return Check(resp)
}
