package firebreakhttp

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"

	"github.com/firebreak-go/firebreak"
)

// StatusClientClosedRequest is what [Error] says to a caller that has gone, for the
// access log's sake. It is no status of the standard, but the one that proxies use.
const StatusClientClosedRequest = 499

// Error answers a request whose call through firebreak came to nothing with err, and
// tells whether it did: not if err is nil, or no error of a call's own or of a context.
// Then nothing is written, and the error is the handler's to judge.
//
//   - circuit open, bulkhead full, registry shut down: 503 Service Unavailable, with
//     Retry-After in whole seconds, at least 1;
//   - the command's timeout or a deadline of the caller's: 504 Gateway Timeout;
//   - run failed, and the fallbacks too, or it is a [*StatusError] that [Check] takes
//     for a failure: 502 Bad Gateway;
//   - run panicked: 500 Internal Server Error;
//   - the caller has gone: [StatusClientClosedRequest].
//
// The text is the status's name: errors name hosts, which are nobody's business.
func Error(w http.ResponseWriter, err error) bool {
	code := status(err)
	if code == 0 {
		return false
	}
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.FormatInt(retrySeconds(err), 10))
	}
	text := http.StatusText(code)
	if text == "" {
		text = "Client Closed Request"
	}
	http.Error(w, text, code)
	return true
}

// status is what an error is to whoever asked; 0 if it is not for us to say. The first
// in the chain decides: what lies behind it is another command's.
func status(err error) int {
	e, ours := errors.AsType[*firebreak.Error](err)
	panicked, ok := errors.AsType[*firebreak.PanicError](err)
	if ok && (!ours || !errors.Is(e, panicked)) { // e, if any, is what run panicked with
		return http.StatusInternalServerError
	}
	if ours {
		switch {
		case errors.Is(e.Reason, firebreak.ErrTimeout):
			return http.StatusGatewayTimeout
		case errors.Is(e.Reason, firebreak.ErrFailed):
			return http.StatusBadGateway
		}
		return http.StatusServiceUnavailable
	}
	if e, ok := errors.AsType[*StatusError](err); ok {
		if e.failed() {
			return http.StatusBadGateway
		}
		return 0
	}
	switch {
	case errors.Is(err, context.Canceled):
		return StatusClientClosedRequest
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	}
	return 0
}

// retrySeconds is when to come back: rounded up, as a caller that comes a moment too
// soon is refused again.
func retrySeconds(err error) int64 {
	e, _ := errors.AsType[*firebreak.Error](err)
	return max(1, int64(math.Ceil(e.RetryAfter().Seconds())))
}
