package firebreakhttp

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/firebreak-go/firebreak"
)

// A StatusError is a response whose status says that there is no answer. Observers
// see it, and it is the cause that fallbacks get.
type StatusError struct {
	StatusCode int
}

// Error is the status and its name: "503 Service Unavailable". What a server sent in
// its place is left out.
func (e *StatusError) Error() string {
	text := strconv.Itoa(e.StatusCode)
	if name := http.StatusText(e.StatusCode); name != "" {
		text += " " + name
	}
	return text
}

// failed: it is the server that is not well.
func (e *StatusError) failed() bool {
	return e.StatusCode >= 500 || e.StatusCode == http.StatusTooManyRequests
}

// Check is the verdict on a response by its status. Below 400 it returns nil. Else
// it returns a [*StatusError], marked: 5xx and 429 are a [firebreak.Failure], and
// their Retry-After a hint ([firebreak.RetryAfter]); other 4xx are
// [firebreak.Expected], as the server is well and it is the request that is not. It
// does not touch the body.
func Check(resp *http.Response) error {
	code := resp.StatusCode
	if code < 400 {
		return nil
	}
	err := &StatusError{StatusCode: code}
	if !err.failed() {
		return firebreak.Mark(err, firebreak.Expected)
	}
	if d := retryAfter(resp.Header); d > 0 {
		return firebreak.RetryAfter(err, d)
	}
	return firebreak.Mark(err, firebreak.Failure)
}

// retryAfter is what a Retry-After header says (RFC 9110, 10.2.3): seconds, or a
// date, taken from the server's own Date, as its clock and ours may differ. Not
// above 0 if it says nothing that can be used.
func retryAfter(h http.Header) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if s, ok := parseDigits(text); ok {
		return time.Duration(min(s, math.MaxInt64/uint64(time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return at.Sub(now)
}
