package firebreakhttp

import (
	"context"
	"fmt"
	"net/http"

	"github.com/firebreak-go/firebreak"
)

// A Handler is the server's side of a request. It gives Handler a context that is a
// scope ([firebreak.WithScope]), with a cache for [firebreak.Cached] and a log for
// [firebreak.RequestLog], and that has the caller's deadline, so that work ends when
// nobody waits for it. Set its fields before use.
type Handler struct {
	// Handler serves the request.
	Handler http.Handler
	// DeadlineHeader names the header that tells how long the caller will wait, in
	// whole milliseconds. It can only shorten what the request's context has. A 0 is
	// answered with 504 Gateway Timeout, what is no number with 400 Bad Request; both
	// without Handler. Empty: no header is read.
	DeadlineHeader string
	// Log, if there is one, is told what the request's calls did, when Handler has
	// returned or panicked. It is [firebreak.RequestLog] of the request's scope.
	Log func(*http.Request, firebreak.CallLog)
}

// ServeHTTP serves a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := firebreak.WithScope(r.Context())
	if values := r.Header.Values(h.DeadlineHeader); h.DeadlineHeader != "" && len(values) > 0 {
		left, err := parseDeadline(values)
		switch {
		case err != nil:
			http.Error(w, fmt.Sprintf("header %s: %v", h.DeadlineHeader, err), http.StatusBadRequest)
			return
		case left == 0:
			http.Error(w, "the caller's deadline has passed", http.StatusGatewayTimeout)
			return
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, left)
		defer cancel()
	}
	r = r.WithContext(ctx)
	if h.Log != nil {
		defer func() { h.Log(r, firebreak.RequestLog(ctx)) }()
	}
	h.Handler.ServeHTTP(w, r)
}
