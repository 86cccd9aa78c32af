package columns

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/failsafe-go/failsafe-go/timeout"
	"github.com/sony/gobreaker/v2"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakhttp"
)

// A RoundTripper has base's requests guarded, with everything on but the fallback: a
// response of 5xx is a failure and is delivered, and the timeout does not end the body.
type RoundTripper func(base http.RoundTripper, s Spec) (guarded http.RoundTripper, done func())

func firebreakHTTP(base http.RoundTripper, s Spec) (http.RoundTripper, func()) {
	reg := firebreak.NewRegistry(firebreak.Config{})
	cmd := reg.Command("benchmark", firebreakConfig(s))
	return &firebreakhttp.Transport{Command: cmd, Base: base}, func() { shutDown(reg) }
}

func failsafeHTTP(base http.RoundTripper, s Spec) (http.RoundTripper, func()) {
	breaker := circuitbreaker.NewBuilder[*http.Response]().
		WithFailureRateThreshold(0.5, never, 10*time.Second).WithDelay(time.Hour).
		HandleIf(func(resp *http.Response, err error) bool { return err != nil || resp.StatusCode >= 500 }).Build()
	return failsafehttp.NewRoundTripper(base, timeout.New[*http.Response](s.Timeout), breaker,
		bulkhead.New[*http.Response](uint(s.MaxConcurrent))), func() {}
}

func handmadeHTTP(base http.RoundTripper, s Spec) (http.RoundTripper, func()) {
	return &handmadeTransport{
		base: base, timeout: s.Timeout,
		permits: make(chan struct{}, s.MaxConcurrent), breaker: newGobreaker[*http.Response](s),
	}, func() {}
}

// handmadeTransport is what a careful person writes: the request's context has to
// outlive the call, to the end of the body, and the timeout has not.
type handmadeTransport struct {
	base    http.RoundTripper
	timeout time.Duration
	permits chan struct{}
	breaker *gobreaker.CircuitBreaker[*http.Response]
}

var errStatus = errors.New("the status is a failure")

func (h *handmadeTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case h.permits <- struct{}{}:
		defer func() { <-h.permits }()
	default:
		return nil, errFull
	}
	resp, err := h.breaker.Execute(func() (*http.Response, error) {
		ctx, cancel := context.WithCancel(req.Context())
		timer := time.AfterFunc(h.timeout, cancel)
		resp, err := h.base.RoundTrip(req.WithContext(ctx))
		if err != nil || !timer.Stop() {
			cancel()
			return nil, errors.Join(err, context.DeadlineExceeded)
		}
		resp.Body = &cancellingBody{resp.Body, cancel}
		if resp.StatusCode >= 500 {
			return resp, errStatus
		}
		return resp, nil
	})
	if errors.Is(err, errStatus) {
		return resp, nil
	}
	return resp, err
}

type cancellingBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *cancellingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.cancel()
	}
	return n, err
}

func (b *cancellingBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
