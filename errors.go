package firebreak

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Why there is no answer of the dependency's. Match with [errors.Is]; this is the
// whole list of reasons.
var (
	// ErrOpen: the circuit is open, or half-open with no probe free. Run was not called.
	ErrOpen = errors.New("circuit open")
	// ErrRejected: the bulkhead or its queue is full, or the wait for it took too
	// long. Run was not called.
	ErrRejected = errors.New("bulkhead full")
	// ErrShutdown: [Registry.Shutdown] was called. Run was not called.
	ErrShutdown = errors.New("registry shut down")
	// ErrTimeout: run began and the command's deadline passed before it succeeded.
	// It also matches [context.DeadlineExceeded]. A success that comes late after
	// all is counted as a timeout, and is no error.
	ErrTimeout = error(timeoutError{})
	// ErrFailed: run failed, and then the fallbacks did. The Cause is run's own error.
	ErrFailed = errors.New("failed")
	// ErrFallbackRejected: too many fallbacks of the command are running; see
	// [Config.MaxFallbacks]. It is never a Reason, but an [Error.Fallback].
	ErrFallbackRejected = errors.New("too many fallbacks")
	// ErrNoResult: a [Collapse] has no value for the key. It is never a Reason, but
	// comes wrapped in an error that names the key.
	ErrNoResult = errors.New("no result for the key")
)

// timeoutError lets one errors.Is serve for a deadline of ours and of the caller's.
type timeoutError struct{}

func (timeoutError) Error() string        { return "timed out" }
func (timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// Error is every error of a call's own making. The error of run itself is not
// wrapped, unless fallbacks failed too.
//
// Calls may share one: do not change it. [errors.Is] and [errors.As] reach Reason,
// Cause and Fallback, and so the reasons of commands further in; Command and
// Reason of the first Error in the chain tell whose it is.
type Error struct {
	Command  string    // the command's name, with its key if it has one
	Reason   error     // [ErrOpen], [ErrRejected], [ErrShutdown], [ErrTimeout], or [ErrFailed]
	Cause    error     // run's error, or that of the wait; nil if there was none
	Fallback error     // of the fallbacks, joined, or [ErrFallbackRejected]; nil if none was asked
	RetryAt  time.Time // when a call may be let through again; zero if not known

	why string // of a circuit that no failure opened: whoever reads a log is not to look for an outage
}

// Error says who, why and what lay behind it: "users.get: timed out: read tcp …;
// fallback: cache is empty".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Command)
	b.WriteString(": ")
	b.WriteString(e.Reason.Error())
	if e.why != "" {
		b.WriteString(": ")
		b.WriteString(e.why)
	}
	if e.Cause != nil {
		b.WriteString(": ")
		b.WriteString(e.Cause.Error())
	}
	if e.Fallback != nil {
		b.WriteString("; fallback: ")
		b.WriteString(e.Fallback.Error())
	}
	return b.String()
}

// Unwrap returns Reason, Cause and Fallback, those there are.
func (e *Error) Unwrap() []error {
	errs := make([]error, 0, 3)
	for _, err := range [...]error{e.Reason, e.Cause, e.Fallback} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// RetryAfter is the time from now to RetryAt, what a Retry-After header says.
// It is never negative, and 0 if the moment is not known.
func (e *Error) RetryAfter() time.Duration {
	if e.RetryAt.IsZero() {
		return 0
	}
	return max(0, time.Until(e.RetryAt))
}

// Timeout tells whether the command's deadline is why: what [net.Error] and
// [net/url.Error] ask, so that clients of HTTP take it for the timeout that it is.
func (e *Error) Timeout() bool { return e.Reason == ErrTimeout }

// withFallback is e as it stands once fallbacks have failed too. A shared error
// is never changed: this is a new one.
func (e *Error) withFallback(err error) *Error {
	c := *e
	c.Fallback = err
	return &c
}

// A PanicError is a panic of run where it could not go on up by itself: in
// another goroutine than the caller's, or under [Config.RecoverPanics]. If its
// value is an error, it unwraps to that.
type PanicError struct {
	Value any    // what panic was called with; nil if run called [runtime.Goexit]
	Stack []byte // of the goroutine that panicked, as [runtime/debug.Stack] formats it
}

// Error names the value; the stack is apart.
func (e *PanicError) Error() string {
	if e.Value == nil {
		return "run called runtime.Goexit"
	}
	return fmt.Sprintf("run panicked: %v", e.Value)
}

// Unwrap returns the value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// KeyErrors are the errors of some keys, beside the values of the others. Its maker
// owns it; do not change one that you were given.
type KeyErrors[K comparable] map[K]error

// Error tells how many keys there are, and what is wrong with the first few, in the
// order of their text.
func (e KeyErrors[K]) Error() string {
	const shown = 3
	texts := make([]string, 0, len(e))
	for key, err := range e {
		texts = append(texts, fmt.Sprintf("%v: %v", key, err))
	}
	slices.Sort(texts)
	more := ""
	if n := len(texts) - shown; n > 0 {
		texts, more = texts[:shown], fmt.Sprintf("; and %d more", n)
	}
	keys := "keys"
	if len(e) == 1 {
		keys = "key"
	}
	return fmt.Sprintf("%d %s without a value: %s%s", len(e), keys, strings.Join(texts, "; "), more)
}

// Unwrap returns all the errors, in no order.
func (e KeyErrors[K]) Unwrap() []error { return slices.Collect(maps.Values(e)) }

func (KeyErrors[K]) ofKeys() {}

// keyErrors are KeyErrors of any kind of keys.
type keyErrors interface{ ofKeys() }

// A Verdict is what an error of run's says about the dependency. It is given by
// [Config.Classify], or by [Mark] where the error is made.
type Verdict uint8

const (
	// Failure: the dependency failed. Counted, and fallbacks are asked.
	Failure Verdict = iota
	// Expected: the dependency answered: not found, not allowed. To the circuit it
	// is a success; no fallback is asked.
	Expected
	// Ignored: it says nothing about the dependency. The circuit does not count it,
	// a probe goes back; no fallback is asked.
	Ignored
)

// ExpectErrors makes a [Config.Classify] to which every error that matches one of
// errs by [errors.Is] is Expected, and any other a Failure.
func ExpectErrors(errs ...error) func(error) Verdict {
	errs = append([]error(nil), errs...)
	return func(err error) Verdict {
		for _, e := range errs {
			if errors.Is(err, e) {
				return Expected
			}
		}
		return Failure
	}
}

// Mark gives run's own verdict on err, above [Config.Classify]. [Do] returns err
// itself. The outermost mark in a chain of wrapped errors decides; one inside an
// [*Error] or a [*PanicError] was for the command whose that is, and one inside a
// [KeyErrors] says nothing of the others. Mark(nil, v) is nil.
func Mark(err error, v Verdict) error {
	if err == nil {
		return nil
	}
	return &marked{error: err, verdict: v}
}

// RetryAfter marks err as a Failure of a dependency that has said when to come
// back: a circuit that it helps to open stays open for d at least, at most for
// [Config.MaxSleepWindow] (ten sleep windows if that is Off). It opens none by
// itself. [Do] returns err itself. A d that is not positive is no hint;
// RetryAfter(nil, d) is nil.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &marked{error: err, verdict: Failure, hint: max(d, 0)}
}

// marked carries a verdict from where an error is made to where it is judged.
type marked struct {
	error
	verdict Verdict
	hint    time.Duration // of RetryAfter; 0 for none
}

func (m *marked) Unwrap() error { return m.error }

// markOf returns the outermost mark in err's chain, nil if there is none. It stops at
// another command's error: what was marked inside was said of that one's dependency,
// and must not turn its timeout, say, into an expected answer (S14). It stops at the
// errors of keys too, which come in no order.
func markOf(err error) *marked {
	//nolint:errorlint // this is the walk
	switch e := err.(type) {
	case *marked:
		return e
	case *Error, *PanicError, keyErrors:
		return nil
	}
	if e, ok := err.(interface{ As(any) bool }); ok {
		var m *marked // here, as it is on the heap
		if e.As(&m) {
			return m
		}
	}
	//nolint:errorlint // likewise
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return markOf(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			if m := markOf(err); m != nil {
				return m
			}
		}
	}
	return nil
}

// unmark takes the marks off that err itself is; those below a wrapping stay.
func unmark(err error) error {
	for {
		m, ok := err.(*marked) //nolint:errorlint // only the outermost layers are ours to take off
		if !ok {
			return err
		}
		err = m.error
	}
}
