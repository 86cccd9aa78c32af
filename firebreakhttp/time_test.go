package firebreakhttp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakhttp"
)

const (
	timeout  = time.Second     // of the commands in this file
	bodyTime = 5 * timeout     // from headers to the end of a body
	tick     = time.Nanosecond // the edge
)

// slowly answers after the time that the path says, and ends the body bodyTime later.
func slowly(w http.ResponseWriter, r *http.Request) {
	wait := func(d time.Duration) bool {
		select {
		case <-time.After(d):
			return true
		case <-r.Context().Done():
			return false
		}
	}
	d, err := time.ParseDuration(r.URL.Path[1:])
	if err != nil {
		panic(err)
	}
	if !wait(d) {
		return
	}
	io.WriteString(w, "first ") //nolint:errcheck // the client sees it
	w.(http.Flusher).Flush()
	if wait(bodyTime) {
		io.WriteString(w, "last") //nolint:errcheck // likewise
	}
}

// overPipes runs a test for each guard and protocol, in a bubble.
func overPipes(t *testing.T, h http.HandlerFunc, test func(t *testing.T, g guard, s *site)) {
	t.Helper()
	onEachWire(t, func(t *testing.T, http2 bool) {
		inBubbles(t, func(t *testing.T, g guard) { test(t, g, inPipes(t, http2, h)) })
	})
}

func after(d time.Duration) string { return fmt.Sprintf("/%s", d) }

// permits are how many a body that is being read holds.
func (g guard) permits() int {
	if g.hold {
		return 1
	}
	return 0
}

// The command's timeout is for the headers, exactly. The body has all the time that
// the caller has.
func TestTransport_TimeoutIsForTheHeaders(t *testing.T) {
	overPipes(t, slowly, func(t *testing.T, g guard, s *site) {
		tr, cmd := g.make(t, s.base, firebreak.Config{Timeout: timeout})
		resp, err := tr.RoundTrip(newRequest(t, t.Context(), s.url+after(timeout-tick), nil))
		require.NoError(t, err)
		require.Equal(t, one("Success"), outcomes(cmd))
		require.Equal(t, g.permits(), cmd.Snapshot().Bulkhead.InFlight)
		first := make([]byte, len("first "))
		_, err = io.ReadFull(resp.Body, first)
		require.NoError(t, err)
		time.Sleep(2 * timeout)
		require.Equal(t, g.permits(), cmd.Snapshot().Bulkhead.InFlight)
		require.Equal(t, "last", read(t, resp))
		require.Zero(t, cmd.Snapshot().Bulkhead.InFlight)
		require.Equal(t, one("Success"), outcomes(cmd))

		start := time.Now()
		_, err = (&http.Client{Transport: tr}).Get(s.url + after(timeout+tick)) //nolint:bodyclose // there is none
		require.Equal(t, timeout, time.Since(start))
		require.ErrorIs(t, err, firebreak.ErrTimeout)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, context.Canceled)
		outer, ok := errors.AsType[*url.Error](err)
		require.True(t, ok)
		require.True(t, outer.Timeout())
		require.Equal(t, map[string]uint64{"Success": 1, "Timeout": 1}, outcomes(cmd))
		require.Zero(t, cmd.Snapshot().Total.Overran)
		synctest.Wait()
		require.Zero(t, cmd.Snapshot().Bulkhead.InFlight)
	})
}

// The command may leave it to the caller.
func TestTransport_WithoutATimeout(t *testing.T) {
	overPipes(t, slowly, func(t *testing.T, g guard, s *site) {
		tr, cmd := g.make(t, s.base, firebreak.Config{Timeout: firebreak.Off})
		_, text := get(t, tr, s.url+after(time.Hour))
		require.Equal(t, "first last", text)
		require.Equal(t, one("Success"), outcomes(cmd))

		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := requireRefused(t, tr, newRequest(t, ctx, s.url+after(time.Hour+tick), nil))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, map[string]uint64{"Success": 1, "CallerDeadline": 1}, outcomes(cmd))
	})
}

// A caller that goes moves no circuit, whenever it goes.
func TestTransport_CallerCancels(t *testing.T) {
	for _, row := range []struct {
		name    string
		at      time.Duration // from the request's start; its headers are there after half of timeout
		answers bool          // there is a response
		reads   bool          // to the end
		want    string
	}{
		{"on arrival", -1, false, false, "GaveUp"},
		{"before the headers", timeout/2 - tick, false, false, "Canceled"},
		{"in the body", timeout, true, false, "Success"},
		{"just before its end", timeout/2 + bodyTime - tick, true, false, "Success"},
		{"after its end", timeout/2 + bodyTime + tick, true, true, "Success"},
	} {
		t.Run(row.name, func(t *testing.T) {
			overPipes(t, slowly, func(t *testing.T, g guard, s *site) {
				tr, cmd := g.make(t, s.base, firebreak.Config{Timeout: timeout, ConsecutiveFailures: 1})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if row.at < 0 {
					cancel()
				} else {
					time.AfterFunc(row.at, cancel)
				}
				resp, err := tr.RoundTrip(newRequest(t, ctx, s.url+after(timeout/2), nil))
				if row.answers {
					require.NoError(t, err)
					_, err = io.ReadAll(resp.Body)
				} else {
					require.Nil(t, resp)
				}
				if row.reads {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, context.Canceled)
				}
				time.Sleep(time.Minute)
				if row.answers {
					require.Zero(t, cmd.Snapshot().Bulkhead.InFlight, "not closed, but over")
					resp.Body.Close()
				}
				require.Equal(t, one(row.want), counts(cmd))
				require.Zero(t, cmd.Snapshot().ErrorPercentage)
				require.Equal(t, firebreak.StateClosed, cmd.Snapshot().State)
			})
		})
	}
}

// http.Client.Timeout is the caller's deadline: it ends what it ends without us too,
// and the command's timeout is the outcome where that is sooner.
func TestTransport_ClientTimeout(t *testing.T) {
	for _, row := range []struct {
		client  time.Duration
		headers time.Duration
		want    string
		ends    time.Duration
	}{
		{timeout / 2, timeout/2 + tick, "CallerDeadline", timeout / 2},
		{2 * timeout, timeout + tick, "Timeout", timeout},
		{2 * timeout, timeout / 2, "Success", 2 * timeout}, // in the body
	} {
		t.Run(row.want, func(t *testing.T) {
			overPipes(t, slowly, func(t *testing.T, g guard, s *site) {
				tr, cmd := g.make(t, s.base, firebreak.Config{Timeout: timeout})
				client := &http.Client{Transport: tr, Timeout: row.client}
				start := time.Now()
				resp, err := client.Get(s.url + after(row.headers))
				if row.want == "Success" {
					require.NoError(t, err)
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				require.Equal(t, row.ends, time.Since(start))
				late, ok := errors.AsType[interface {
					error
					Timeout() bool
				}](err)
				require.True(t, ok)
				require.True(t, late.Timeout())
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, row.want == "Timeout", errors.Is(err, firebreak.ErrTimeout))
				require.Equal(t, one(row.want), outcomes(cmd))
				synctest.Wait()
				require.Zero(t, cmd.Snapshot().Bulkhead.InFlight)
			})
		})
	}
}

// A body that nobody closes does not keep its permit for longer than its caller lives,
// who often is a server's request. It used to keep it for ever.
func TestTransport_ForgottenBody(t *testing.T) {
	overPipes(t, slowly, func(t *testing.T, g guard, s *site) {
		tr, cmd := g.make(t, s.base, firebreak.Config{Timeout: timeout})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		resp, err := tr.RoundTrip(newRequest(t, ctx, s.url+after(0), nil)) //nolint:bodyclose // that is what this is about
		require.NoError(t, err)
		require.NotNil(t, resp)
		time.Sleep(time.Hour)
		require.Equal(t, g.permits(), cmd.Snapshot().Bulkhead.InFlight)
		cancel()
		synctest.Wait()
		require.Zero(t, cmd.Snapshot().Bulkhead.InFlight)
		require.Equal(t, one("Success"), outcomes(cmd))
	})
}

// The request's context is the caller's, without a deadline of ours, and ends with the
// body: at its last byte or at Close.
func TestTransport_RequestContext(t *testing.T) {
	type key struct{}
	text := func() io.ReadCloser { return io.NopCloser(strings.NewReader("text")) }
	for _, row := range []struct {
		name string
		body func() io.ReadCloser
		end  func(*http.Response) // what ends it; nil if nothing needs to
	}{
		{"closed", text, func(r *http.Response) { r.Body.Close() }},
		{"read", text, func(r *http.Response) { io.ReadAll(r.Body) }}, //nolint:errcheck // it is in memory
		{"upgraded and closed", func() io.ReadCloser {
			return struct {
				io.Writer
				io.ReadCloser
			}{io.Discard, text()}
		}, func(r *http.Response) { r.Body.Close() }},
		{"empty", func() io.ReadCloser { return http.NoBody }, nil},
		{"nil", func() io.ReadCloser { return nil }, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			inBubbles(t, func(t *testing.T, g guard) {
				var within context.Context
				tr, cmd := g.make(t, baseFunc(func(req *http.Request) (*http.Response, error) {
					within = req.Context()
					_, told := within.Deadline()
					require.False(t, told)
					require.Equal(t, "value", within.Value(key{}))
					resp := response(req, 200, "")
					resp.Body = row.body()
					return resp, nil
				}), firebreak.Config{Timeout: timeout})
				resp, err := tr.RoundTrip(newRequest(t, context.WithValue(context.Background(), key{}, "value"), "http://a.example", nil))
				require.NoError(t, err)
				require.NotNil(t, resp.Body, "a client may count on it")
				if row.end != nil {
					time.Sleep(2 * timeout)
					require.NoError(t, within.Err())
					row.end(resp)
				}
				require.Error(t, within.Err())
				require.Zero(t, cmd.Snapshot().Bulkhead.InFlight)
				resp.Body.Close()
			})
		})
	}
}

// A Base that ignores its context: in a pool the caller leaves at the deadline, and
// what comes late is closed.
func TestTransport_DeafBase(t *testing.T) {
	for _, late := range []string{"response", "nil body", "error", "panic", "Goexit"} {
		for _, want := range []string{"Timeout", "Canceled"} {
			t.Run(want+", then "+late, func(t *testing.T) {
				inBubbles(t, func(t *testing.T, g guard) {
					if g.onOther() {
						leaveDeafBase(t, g, late, want)
					}
				})
			})
		}
	}
}

func leaveDeafBase(t *testing.T, g guard, late, want string) {
	t.Helper()
	release := make(chan bool)
	answer := &watched{Reader: strings.NewReader("late")}
	tr, cmd := g.make(t, closing(func(req *http.Request) (*http.Response, error) {
		<-release
		resp := response(req, 200, "")
		switch late {
		case "response":
			resp.Body = answer
		case "nil body":
			resp.Body = nil
		case "error":
			return nil, errBoom
		case "panic":
			panic(errBoom)
		case "Goexit":
			runtime.Goexit()
		}
		return resp, nil
	}), firebreak.Config{Timeout: timeout})
	judged := false
	tr.Check = func(*http.Response) error { judged = true; return nil }
	sent := &watched{Reader: strings.NewReader("body")}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if want == "Canceled" {
		time.AfterFunc(timeout-tick, cancel)
	}
	start := time.Now()
	err := requireRefused(t, tr, newRequest(t, ctx, "http://a.example", sent))
	if want == "Canceled" {
		require.ErrorIs(t, err, context.Canceled)
	} else {
		require.Equal(t, timeout, time.Since(start))
		require.ErrorIs(t, err, firebreak.ErrTimeout)
	}
	require.Equal(t, 1, cmd.Snapshot().Bulkhead.Abandoned)
	require.Zero(t, sent.closes.Load(), "Base has it still")
	close(release)
	synctest.Wait()
	require.EqualValues(t, 1, sent.closes.Load())
	if late == "response" {
		require.EqualValues(t, 1, answer.closes.Load())
	}
	require.False(t, judged, "nobody waits for a verdict")
	require.Equal(t, one(want), outcomes(cmd))
	require.Zero(t, cmd.Snapshot().Bulkhead.InFlight)
}

// Check may read the body, within the timeout; what it puts back is the caller's.
func TestTransport_CheckReadsTheBody(t *testing.T) {
	judge := func(resp *http.Response) error {
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(text))
		if bytes.Contains(text, []byte("error")) {
			return errBoom
		}
		return nil
	}
	overPipes(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.URL.Path[1:]) //nolint:errcheck // the client sees it
	}, func(t *testing.T, g guard, s *site) {
		tr, cmd := g.make(t, s.base, firebreak.Config{Timeout: timeout})
		tr.Check = judge
		for _, text := range []string{"", "fine", "error"} {
			status, got := get(t, tr, s.url+"/"+text)
			require.Equal(t, 200, status)
			require.Equal(t, text, got)
		}
		require.Equal(t, map[string]uint64{"Success": 2, "Failure": 1}, outcomes(cmd))
		require.Zero(t, cmd.Snapshot().Bulkhead.InFlight)
	})
	overPipes(t, slowly, func(t *testing.T, g guard, s *site) {
		tr, cmd := g.make(t, s.base, firebreak.Config{Timeout: timeout})
		tr.Check = judge
		start := time.Now()
		err := requireRefused(t, tr, newRequest(t, t.Context(), s.url+after(timeout/2), nil))
		require.Equal(t, timeout, time.Since(start))
		require.ErrorIs(t, err, firebreak.ErrTimeout)
		synctest.Wait()
		require.Equal(t, one("Timeout"), outcomes(cmd))
	})
}

// A caller that leaves while Check reads lets it: it used to read and close the same
// body at the same time. And it does not wait for a body that is deaf.
func TestTransport_LeavesTheBodyToCheck(t *testing.T) {
	inBubbles(t, func(t *testing.T, g guard) {
		if !g.onOther() {
			return
		}
		for _, panics := range []bool{false, true} {
			release := make(chan bool)
			body := &watched{Reader: readerFunc(func([]byte) (int, error) { <-release; return 0, io.EOF })}
			tr, cmd := g.make(t, baseFunc(func(req *http.Request) (*http.Response, error) {
				resp := response(req, 200, "")
				resp.Body = body
				return resp, nil
			}), firebreak.Config{Timeout: timeout})
			tr.Check = func(resp *http.Response) error {
				_, err := io.ReadAll(resp.Body)
				if panics {
					panic(errBoom)
				}
				return err
			}
			start := time.Now()
			err := requireRefused(t, tr, newRequest(t, t.Context(), "http://a.example", nil))
			require.ErrorIs(t, err, firebreak.ErrTimeout)
			require.Equal(t, timeout, time.Since(start))
			require.Zero(t, body.closes.Load())
			close(release)
			synctest.Wait()
			require.EqualValues(t, 1, body.closes.Load())
			require.False(t, body.abused.Load())
			require.Equal(t, one("Timeout"), outcomes(cmd))
		}
	})
}

// A response that comes in the moment after the deadline, before any timer has fired,
// is whole or is none: it never breaks off.
func TestTransport_LateResponseIsWhole(t *testing.T) {
	inBubbles(t, func(t *testing.T, g guard) {
		for _, status := range []int{200, 503} {
			for _, late := range []time.Duration{-tick, 0, tick, timeout} {
				var within context.Context
				tr, cmd := g.make(t, baseFunc(func(req *http.Request) (*http.Response, error) {
					within = req.Context()
					time.Sleep(timeout + late) // deaf
					return response(req, status, "text"), nil
				}), firebreak.Config{Timeout: timeout, Mode: firebreak.ForceClosed})
				resp, err := tr.RoundTrip(newRequest(t, t.Context(), "http://a.example", nil))
				if late < 0 {
					require.NoError(t, err)
				}
				if err != nil {
					require.Nil(t, resp)
					require.ErrorIs(t, err, firebreak.ErrTimeout)
				} else {
					time.Sleep(timeout)
					require.NoError(t, within.Err())
					require.Equal(t, "text", read(t, resp))
				}
				synctest.Wait()
				require.Error(t, within.Err())
				if late > 0 {
					require.Error(t, err)
					require.EqualValues(t, 1, cmd.Snapshot().Total.Timeout)
				}
				require.EqualValues(t, 1, cmd.Snapshot().Total.Calls())
			}
		}
	})
}

// Where a fallback answers, a body that comes slowly costs its caller 50 ms, and the
// server its connection.
func TestTransport_DrainsForAMomentOnly(t *testing.T) {
	overPipes(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "on and on") //nolint:errcheck // the client sees it
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}, func(t *testing.T, g guard, s *site) {
		if !g.fallback {
			return
		}
		tr, cmd := g.make(t, s.base, firebreak.Config{Timeout: timeout})
		tr.Fallback = func(req *http.Request, cause error) (*http.Response, error) {
			require.Equal(t, "503 Service Unavailable", cause.Error())
			return response(req, 200, "instead"), nil
		}
		start := time.Now()
		status, text := get(t, tr, s.url)
		require.Equal(t, 200, status)
		require.Equal(t, "instead", text)
		require.Equal(t, 50*time.Millisecond, time.Since(start))
		require.Equal(t, map[string]uint64{"Failure": 1, "FallbackSuccess": 1}, counts(cmd))
		synctest.Wait() // the handler has seen the end, or the bubble would not
	})
}

// A server's Retry-After lengthens the sleep window of the circuit that it helps to
// open, up to ten of them.
func TestTransport_RetryAfterLengthensTheSleep(t *testing.T) {
	const sleep = 5 * time.Second
	bubble := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // when its time begins
	moment := func(d time.Duration) string { return bubble.Add(d).Format(http.TimeFormat) }
	for _, row := range []struct {
		status int
		header http.Header
		want   time.Duration
	}{
		{503, http.Header{}, sleep},
		{503, http.Header{"Retry-After": {"20"}}, 20 * time.Second},
		{503, http.Header{"Retry-After": {" 20 "}}, 20 * time.Second},
		{429, http.Header{"Retry-After": {"20"}}, 20 * time.Second},
		{500, http.Header{"Retry-After": {"20"}}, 20 * time.Second},
		{503, http.Header{"Retry-After": {"0"}}, sleep},
		{503, http.Header{"Retry-After": {"1"}}, sleep},
		{503, http.Header{"Retry-After": {"50"}}, 10 * sleep},
		{503, http.Header{"Retry-After": {"51"}}, 10 * sleep},
		{503, http.Header{"Retry-After": {"9223372036"}}, 10 * sleep},
		{503, http.Header{"Retry-After": {"9223372037"}}, 10 * sleep},
		{503, http.Header{"Retry-After": {"18446744073709551615"}}, 10 * sleep},
		{503, http.Header{"Retry-After": {"18446744073709551616"}}, 10 * sleep},
		{503, http.Header{"Retry-After": {"20000000000000000000A"}}, sleep},
		{503, http.Header{"Retry-After": {strings.Repeat("9", 1000)}}, 10 * sleep},
		{503, http.Header{"Retry-After": {"-20"}}, sleep},
		{503, http.Header{"Retry-After": {"+20"}}, sleep},
		{503, http.Header{"Retry-After": {"20.5"}}, sleep},
		{503, http.Header{"Retry-After": {"20s"}}, sleep},
		{503, http.Header{"Retry-After": {"0x20"}}, sleep},
		{503, http.Header{"Retry-After": {""}}, sleep},
		{503, http.Header{"Retry-After": {"tomorrow"}}, sleep},
		{503, http.Header{"Retry-After": {"20", "40"}}, 20 * time.Second},
		{503, http.Header{"Retry-After": {moment(20 * time.Second)}}, 20 * time.Second},
		{503, http.Header{"Retry-After": {moment(-20 * time.Second)}}, sleep},
		{503, http.Header{"Retry-After": {"Fri, 31 Dec 9999 23:59:59 GMT"}}, 10 * sleep},
		{503, http.Header{"Retry-After": {"Sat, 01 Jan 0000 00:00:00 GMT"}}, sleep},
		// A server whose clock is an hour off means its own.
		{503, http.Header{"Retry-After": {moment(time.Hour + 20*time.Second)}, "Date": {moment(time.Hour)}}, 20 * time.Second},
		{503, http.Header{"Retry-After": {moment(20*time.Second - time.Hour)}, "Date": {moment(-time.Hour)}}, 20 * time.Second},
		{503, http.Header{"Retry-After": {moment(20 * time.Second)}, "Date": {"garbage"}}, 20 * time.Second},
	} {
		t.Run(fmt.Sprintf("%d %.60v", row.status, row.header), func(t *testing.T) {
			inBubbles(t, func(t *testing.T, g guard) {
				tr, cmd := g.make(t, baseFunc(func(req *http.Request) (*http.Response, error) {
					resp := response(req, row.status, "")
					resp.Header = row.header
					return resp, nil
				}), firebreak.Config{ConsecutiveFailures: 1, SleepWindow: sleep})
				status, _ := get(t, tr, "http://a.example")
				require.Equal(t, row.status, status)
				require.Equal(t, firebreak.StateOpen, cmd.Snapshot().State)

				time.Sleep(row.want - tick)
				err := requireRefused(t, tr, newRequest(t, t.Context(), "http://a.example", nil))
				require.ErrorIs(t, err, firebreak.ErrOpen)
				time.Sleep(tick)
				status, _ = get(t, tr, "http://a.example")
				require.Equal(t, row.status, status)
			})
		})
	}
}

// The deadline of the caller goes along, to the millisecond, and never that of the
// command.
func TestTransport_TellsTheDeadline(t *testing.T) {
	inBubbles(t, func(t *testing.T, g guard) {
		var got []string
		tr, _ := g.make(t, closing(func(req *http.Request) (*http.Response, error) {
			got = req.Header.Values(firebreakhttp.DeadlineHeader)
			return response(req, 200, ""), nil
		}), firebreak.Config{Timeout: timeout})
		tell := func(d time.Duration, header http.Header) []string {
			ctx := t.Context()
			if d != 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, d)
				defer cancel()
			}
			req := newRequest(t, ctx, "http://a.example", nil)
			req.Header = header
			resp, err := tr.RoundTrip(req)
			require.NoError(t, err)
			read(t, resp)
			return got
		}
		require.Nil(t, tell(time.Hour, http.Header{}), "nobody asked for it")
		tr.DeadlineHeader = strings.ToLower(firebreakhttp.DeadlineHeader)
		require.Nil(t, tell(0, http.Header{}), "there is none")
		for d, want := range map[time.Duration]string{
			time.Nanosecond:                        "1",
			2*time.Millisecond - time.Nanosecond:   "1",
			2 * time.Millisecond:                   "2",
			1500*time.Millisecond + 1:              "1500",
			time.Hour:                              "3600000",
			200 * 365 * 24 * time.Hour:             "6307200000000",
			timeout + time.Minute*time.Duration(1): "61000",
		} {
			require.Equal(t, []string{want}, tell(d, http.Header{}))
			require.Equal(t, []string{want}, tell(d, nil))
			require.Equal(t, []string{want}, tell(d, http.Header{firebreakhttp.DeadlineHeader: {"7", "8"}}))
		}
	})
}
