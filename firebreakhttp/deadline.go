package firebreakhttp

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// DeadlineHeader is a name for [Transport.DeadlineHeader] and
// [Handler.DeadlineHeader]. Its value is how many whole milliseconds the caller will
// wait from now on, a number in decimal digits: a span and no moment, as clocks differ.
const DeadlineHeader = "X-Deadline-Ms"

// tellDeadline sets the header in a request that is ours.
func (t *Transport) tellDeadline(out *http.Request) {
	if t.DeadlineHeader == "" {
		return
	}
	at, ok := out.Context().Deadline()
	if !ok {
		return
	}
	left := max(time.Until(at), time.Millisecond) // 0 would be refused; what is late fails by itself
	out.Header = out.Header.Clone()
	if out.Header == nil {
		out.Header = http.Header{}
	}
	out.Header.Set(t.DeadlineHeader, strconv.FormatInt(left.Milliseconds(), 10))
}

// longest is a deadline that nobody sees the end of: longer ones are taken for it, as
// they would not fit in a duration.
const longest = 365 * 24 * time.Hour

// parseDeadline reads the values of a header, of which there must be one.
func parseDeadline(values []string) (time.Duration, error) {
	if len(values) != 1 {
		return 0, fmt.Errorf("it is there %d times", len(values))
	}
	ms, ok := parseDigits(values[0])
	if !ok {
		return 0, fmt.Errorf("%.20q is not a number of milliseconds", values[0])
	}
	return time.Duration(min(ms, uint64(longest.Milliseconds()))) * time.Millisecond, nil
}

// parseDigits reads a number of decimal digits and nothing else. One that does not fit
// is the largest that does: [strconv.ParseUint] says that of what has other letters
// behind enough digits, too.
func parseDigits(text string) (n uint64, ok bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, _ = strconv.ParseUint(text, 10, 64)
	return n, true
}
