package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakhttp"
	"github.com/firebreak-go/firebreak/firebreaktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The fallback test, to be copied: say how the call ends, and look at the answer. No
// server has to break, and nobody waits.

func TestListPriceWhilePricesTimeOut(t *testing.T) {
	reg, shop := newTestShop(t)
	firebreaktest.Force(t, reg, "prices", firebreak.ErrTimeout)
	q, err := shop.quote(t.Context(), "tea", "EUR")
	require.NoError(t, err)
	require.Equal(t, Quote{Item: "tea", Currency: "EUR", Cents: 405, Approximate: []string{isListPrice}}, q)
}

func TestLastRateWhileRatesAreOpen(t *testing.T) {
	reg, shop := newTestShop(t)
	_, _ = shop.quote(t.Context(), "tea", "EUR") // a last rate there must be
	firebreaktest.Force(t, reg, "rates", firebreak.ErrOpen)
	q, err := shop.quote(t.Context(), "tea", "EUR")
	require.NoError(t, err)
	require.Equal(t, Quote{Item: "tea", Currency: "EUR", Cents: 369, Approximate: []string{isStaleRate}}, q)
}

// What the two need: the shop, and APIs that are well.
func newTestShop(t *testing.T) (*firebreak.Registry, *shop) {
	t.Helper()
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	return reg, newShop(reg, inProcess{"prices.test": newPricesAPI(), "rates.test": newRatesAPI()}, "http://prices.test", "http://rates.test")
}

// inProcess is an http.RoundTripper that calls a host's handler: without sockets,
// tests may run in bubbles, where time passes at once.
type inProcess map[string]http.Handler

func (p inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p[req.URL.Host].ServeHTTP(w, req)
	if err := req.Context().Err(); err != nil {
		return nil, err // as http.Transport has it: an answer that comes too late is none
	}
	return w.Result(), nil
}

// Recovery is real: Trip opens the circuit as failures would, and a bubble's clock
// gets past its sleep window in no time.
func TestRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, shop := newTestShop(t)
		approximate := func() []string {
			q, err := shop.quote(t.Context(), "tea", "EUR")
			require.NoError(t, err)
			return q.Approximate
		}
		require.Empty(t, approximate())
		events := firebreaktest.Record(t, reg)
		firebreaktest.Trip(t, reg, "rates")
		firebreaktest.Trip(t, reg, "prices")
		require.Equal(t, []string{isListPrice, isStaleRate}, approximate())

		sleep := reg.Command("rates", firebreak.Config{}).Config().SleepWindow
		time.Sleep(sleep - time.Nanosecond)
		require.Equal(t, []string{isListPrice, isStaleRate}, approximate())
		time.Sleep(time.Nanosecond)
		require.Empty(t, approximate())

		events.Want(t, "rates", "open", "short_circuited", "short_circuited", "half_open", "success", "closed")
		events.Want(t, "prices", "open", "short_circuited", "fallback_success", "short_circuited", "fallback_success",
			"half_open", "success", "closed")
	})
}

// get asks the shop's handler.
func get(t *testing.T, shop *shop, target string, deadlineMs string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if deadlineMs != "" {
		req.Header.Set(firebreakhttp.DeadlineHeader, deadlineMs)
	}
	w := httptest.NewRecorder()
	shop.ServeHTTP(w, req)
	return w
}

// No rate has been seen yet, so that rates has no fallback.
func TestErrorsWithoutAFallback(t *testing.T) {
	for name, c := range map[string]struct {
		outcome    error
		status     int
		retryAfter string
	}{
		"open":      {firebreak.ErrOpen, http.StatusServiceUnavailable, "1"},
		"full":      {firebreak.ErrRejected, http.StatusServiceUnavailable, "1"},
		"timed out": {firebreak.ErrTimeout, http.StatusGatewayTimeout, ""},
		"failed":    {&firebreakhttp.StatusError{StatusCode: 500}, http.StatusBadGateway, ""},
		"refused":   {errors.New("connection refused"), http.StatusBadGateway, ""},
	} {
		t.Run(name, func(t *testing.T) {
			reg, shop := newTestShop(t)
			firebreaktest.Force(t, reg, "rates", c.outcome)
			w := get(t, shop, "/quote?item=tea&currency=EUR", "")
			require.Equal(t, c.status, w.Code)
			require.Equal(t, c.retryAfter, w.Header().Get("Retry-After"))
			require.Equal(t, http.StatusText(c.status)+"\n", w.Body.String(), "hosts and errors are nobody's business")
		})
	}
}

func TestRetryAfterSaysWhenTheCircuitProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, shop := newTestShop(t)
		firebreaktest.Trip(t, reg, "rates")
		time.Sleep(1500 * time.Millisecond)
		w := get(t, shop, "/quote?item=tea&currency=EUR", "")
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Equal(t, "4", w.Header().Get("Retry-After"), "3.5s of the sleep window, rounded up")
	})
}

// What there is not is an answer: no failure, no fallback.
func TestUnknown(t *testing.T) {
	reg, shop := newTestShop(t)
	for _, query := range []string{"item=unicorn&currency=EUR", "item=tea&currency=XXX", "item=tea%26currency%3DEUR&currency=EUR", "", "item=%zz"} {
		require.Equal(t, http.StatusNotFound, get(t, shop, "/quote?"+query, "").Code, query)
	}
	for cmd := range reg.Commands() {
		total := cmd.Snapshot().Total
		require.Positive(t, total.Expected, cmd.Name())
		require.Equal(t, total.Calls(), total.Success+total.Expected, cmd.Name())
	}
	// And while prices are down, there is no list price of it either.
	firebreaktest.Force(t, reg, "prices", firebreak.ErrOpen)
	require.Equal(t, http.StatusServiceUnavailable, get(t, shop, "/quote?item=unicorn&currency=EUR", "").Code)
}

// A rate is the last one of its own currency, and not of any age.
func TestLastRateIsNotForEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, shop := newTestShop(t)
		_, err := shop.quote(t.Context(), "tea", "EUR")
		require.NoError(t, err)
		firebreaktest.Force(t, reg, "rates", firebreak.ErrOpen)

		_, err = shop.quote(t.Context(), "tea", "GBP")
		require.ErrorIs(t, err, firebreak.ErrOpen)

		time.Sleep(maxRateAge)
		_, err = shop.quote(t.Context(), "tea", "EUR")
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = shop.quote(t.Context(), "tea", "EUR")
		require.ErrorIs(t, err, firebreak.ErrOpen)
	})
}

// A status decides, even if the body could pass for an answer: 500 is none, and what
// the API does not know any more has no last rate.
func TestStatusDecides(t *testing.T) {
	for status, want := range map[int]int{
		http.StatusOK:                  http.StatusOK,
		http.StatusNotFound:            http.StatusNotFound,
		http.StatusTooManyRequests:     http.StatusOK, // with the last rate
		http.StatusInternalServerError: http.StatusOK,
	} {
		now := http.StatusOK
		rates := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(now)
			writeJSON(w, map[string]any{"rate": now})
		})
		reg := firebreaktest.NewRegistry(t, firebreak.Config{})
		shop := newShop(reg, inProcess{"prices.test": newPricesAPI(), "rates.test": rates}, "http://prices.test", "http://rates.test")
		first := get(t, shop, "/quote?item=tea&currency=EUR", "")
		require.Equal(t, http.StatusOK, first.Code)

		now = status
		second := get(t, shop, "/quote?item=tea&currency=EUR", "")
		assert.Equal(t, want, second.Code, status)
		isStale := want == http.StatusOK && status != http.StatusOK
		assert.Equal(t, isStale, strings.Contains(second.Body.String(), isStaleRate), status)
		if isStale {
			assert.Contains(t, second.Body.String(), `"cents":82000`, "410 × 200")
		}
	}
}

// Whatever the APIs do, a quote takes no longer than it says.
func TestTimes(t *testing.T) {
	hangingBody := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Endless", "yes") })
	for name, c := range map[string]struct {
		sick       func(apis inProcess)
		deadlineMs string
		status     int
		took       time.Duration
	}{
		"both well": {func(inProcess) {}, "", http.StatusOK, 0},
		"prices hang": {func(apis inProcess) { apis["prices.test"].(*api).be(hanging) },
			"", http.StatusOK, timeout},
		"both hang": {func(apis inProcess) {
			apis["prices.test"].(*api).be(hanging)
			apis["rates.test"].(*api).be(hanging)
		}, "", http.StatusOK, timeout},
		// Nobody waits for a fallback then.
		"prices hang, and the caller leaves": {func(apis inProcess) { apis["prices.test"].(*api).be(hanging) },
			"100", http.StatusGatewayTimeout, 100 * time.Millisecond},
		// The call was over, and a success, when the headers came: no fallback answers.
		"prices hang in the body": {func(apis inProcess) { apis["prices.test"] = hangingBody },
			"", http.StatusGatewayTimeout, budget},
		"too late":       {func(inProcess) {}, "0", http.StatusGatewayTimeout, 0},
		"not a deadline": {func(inProcess) {}, "soon", http.StatusBadRequest, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				apis := inProcess{"prices.test": newPricesAPI(), "rates.test": newRatesAPI()}
				reg := firebreaktest.NewRegistry(t, firebreak.Config{})
				shop := newShop(reg, endless{apis}, "http://prices.test", "http://rates.test")
				_, err := shop.quote(t.Context(), "tea", "EUR")
				require.NoError(t, err)

				c.sick(apis)
				begin := time.Now()
				require.Equal(t, c.status, get(t, shop, "/quote?item=tea&currency=EUR", c.deadlineMs).Code)
				require.Equal(t, c.took, time.Since(begin))
			})
		})
	}
}

// endless makes bodies that do not end of those whose header says so.
type endless struct{ inProcess }

func (e endless) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := e.inProcess.RoundTrip(req)
	if err == nil && resp.Header.Get("Endless") != "" {
		resp.Body = io.NopCloser(readerFunc(func([]byte) (int, error) {
			<-req.Context().Done()
			return 0, req.Context().Err()
		}))
	}
	return resp, err
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// The caller's deadline goes on to the APIs, less what is gone; without one it is the
// quote's budget.
func TestDeadlineGoesOn(t *testing.T) {
	for inbound, outbound := range map[string]string{"": "1000", "5000": "1000", "400": "400"} {
		synctest.Test(t, func(t *testing.T) {
			told := make(chan string, 2)
			api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				told <- r.Header.Get(firebreakhttp.DeadlineHeader)
				writeJSON(w, map[string]any{"cents": 1, "rate": 1})
			})
			reg := firebreaktest.NewRegistry(t, firebreak.Config{})
			shop := newShop(reg, inProcess{"a.test": api}, "http://a.test", "http://a.test")
			require.Equal(t, http.StatusOK, get(t, shop, "/quote?item=tea&currency=EUR", inbound).Code)
			assert.Equal(t, outbound, <-told)
			assert.Equal(t, outbound, <-told)
		})
	}
}

func TestHealthAndReady(t *testing.T) {
	reg, shop := newTestShop(t)
	require.JSONEq(t, `{"status":"ok"}`, get(t, shop, "/health", "").Body.String())
	firebreaktest.Trip(t, reg, "rates")
	w := get(t, shop, "/health", "")
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), `"status":"degraded"`)
	require.Contains(t, w.Body.String(), `"command":"rates"`)
	require.Equal(t, http.StatusOK, get(t, shop, "/ready", "").Code, "it can do without")

	require.NoError(t, reg.Shutdown(t.Context()))
	require.Equal(t, http.StatusServiceUnavailable, get(t, shop, "/ready", "").Code)
}

// The story as a reader runs it. On a machine that is too busy it is told again.
func TestStory(t *testing.T) {
	for range 3 {
		var stdout, stderr bytes.Buffer
		status := command(t.Context(), nil, &stdout, &stderr)
		t.Logf("%s", &stdout)
		require.Empty(t, stderr.String())
		require.Zero(t, status)
		if strings.Contains(stdout.String(), "Not judged") {
			continue
		}
		require.Equal(t, 5, strings.Count(stdout.String(), "\nkept "))
		require.Regexp(t, `both well  .* closed +closed\n.*rates hang .* closed +open`, stdout.String())
		require.Contains(t, stdout.String(), "as the API's Retry-After asked")
		return
	}
	t.Fatal("this machine is too busy to test on")
}

// Ctrl-C, at once and while rates hang.
func TestInterrupted(t *testing.T) {
	for _, after := range []time.Duration{0, 100 * time.Millisecond, 1500 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		defer cancel()
		var stdout, stderr bytes.Buffer
		assert.Equal(t, statusInterrupted, command(ctx, nil, &stdout, &stderr))
		assert.Contains(t, stdout.String(), "Not judged: interrupted")
		assert.NotContains(t, stdout.String(), "kept")
		assert.NotContains(t, stdout.String(), phases[bothSick].name, "it did not come")
		assert.Empty(t, stderr.String(), "all was shut down in good order")
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-duration", "5s"}, {"-duration", "soon"}, {"-nonsense"}, {"8s"}} {
		var stdout, stderr bytes.Buffer
		assert.Equal(t, statusUsage, command(t.Context(), args, &stdout, &stderr), args)
		assert.Empty(t, stdout.String())
		assert.Contains(t, stderr.String(), "-duration", args)
	}
	var stdout, stderr bytes.Buffer
	assert.Zero(t, command(t.Context(), []string{"-help"}, &stdout, &stderr))
}

// A fabricated run of 100 quotes in each phase, in which one thing at a time goes wrong.
func TestPromises(t *testing.T) {
	closed, open, halfOpen := firebreak.StateClosed, firebreak.StateOpen, firebreak.StateHalfOpen
	fabricate := func() *story {
		s := &story{start: time.Now(), duration: minDuration}
		for p := range numPhases {
			for range 100 {
				s.samples = append(s.samples, sample{phase: p, took: maxP99, answered: true})
			}
		}
		for _, command := range []string{"prices", "rates"} { // five transitions each
			sick, healed := s.begin(oneHangs), s.begin(after)
			if command == "prices" {
				sick = s.begin(bothSick)
			}
			s.transitions = append(s.transitions,
				firebreak.Transition{Command: command, From: closed, To: open, At: sick.Add(time.Second)},
				firebreak.Transition{Command: command, From: open, To: halfOpen, At: healed},
				firebreak.Transition{Command: command, From: halfOpen, To: open, At: healed.Add(1)},
				firebreak.Transition{Command: command, From: open, To: halfOpen, At: healed.Add(2)},
				firebreak.Transition{Command: command, From: halfOpen, To: closed, At: healed.Add(3)})
		}
		return s
	}
	slow := func(s *story, n int, p phase, took, late time.Duration) {
		for i := range s.samples {
			if x := &s.samples[i]; x.phase == p && n > 0 {
				x.took, x.late = took, late
				n--
			}
		}
	}
	for name, c := range map[string]struct {
		spoil  func(*story)
		broken string
	}{
		"all is well":       {func(*story) {}, ""},
		"one not answered":  {func(s *story) { s.samples[399].answered = false }, "every quote"},
		"slow when it may":  {func(s *story) { slow(s, 100, before, time.Minute, 0) }, ""},
		"one is slow":       {func(s *story) { slow(s, 1, oneHangs, time.Minute, 0) }, ""},
		"two are slow":      {func(s *story) { slow(s, 2, oneHangs, time.Minute, 0) }, "rates hang: "},
		"a bit too slow":    {func(s *story) { slow(s, 2, bothSick, maxP99+time.Millisecond, 0) }, "overloaded: "},
		"as the machine is": {func(s *story) { slow(s, 2, bothSick, maxP99+time.Millisecond, time.Millisecond) }, ""},
		"never opens":       {func(s *story) { s.transitions = s.transitions[5:] }, "the circuit of prices"},
		"stays open":        {func(s *story) { s.transitions = s.transitions[:9] }, "the circuit of rates"},
		"stays open, too":   {func(s *story) { s.transitions = slices.Delete(s.transitions, 4, 5) }, "the circuit of prices"},
		"opens too late":    {func(s *story) { s.transitions[5].At = s.begin(after) }, "the circuit of rates"},
		"opens again": {func(s *story) {
			s.transitions = append(s.transitions, firebreak.Transition{Command: "rates", From: closed, To: open, At: s.begin(numPhases)})
		}, "the circuit of rates"},
		"too busy to judge": {func(s *story) { slow(s, 100, before, time.Minute, maxLate+time.Millisecond); s.transitions = nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := fabricate()
			c.spoil(s)
			r := newReport(s, false)
			var broken []string
			for line := range strings.Lines(r.String()) {
				if strings.HasPrefix(line, "BROKEN") {
					broken = append(broken, line)
				}
			}
			if c.broken == "" {
				assert.Empty(t, broken)
				assert.Zero(t, r.status)
				return
			}
			require.Len(t, broken, 1)
			assert.Contains(t, broken[0], c.broken)
			assert.Equal(t, statusBroken, r.status)
		})
	}
}

func TestMeasure(t *testing.T) {
	const unit = time.Millisecond
	quote := func(approximate ...string) Quote { return Quote{Approximate: approximate} }
	f := measure([]sample{
		{phase: after, took: 1 * unit, answered: true},
		{phase: oneHangs, took: 7 * unit, late: unit, answered: true, quote: quote(isListPrice, isStaleRate)},
		{phase: oneHangs, took: 5 * unit, answered: true, quote: quote(isStaleRate)},
		{phase: oneHangs, took: 6 * unit, answered: true, quote: quote()},
		{phase: oneHangs, took: patience},
	}, func(x sample) bool { return x.phase == oneHangs })
	assert.Equal(t, figures{requests: 4, answered: 3, exact: 1, list: 1, stale: 2, p50: 6 * unit, p99: patience, late: unit}, f,
		"what is not answered counts with its wait")
	assert.Zero(t, measure(nil, nil))
}
