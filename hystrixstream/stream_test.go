package hystrixstream_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/hystrixstream"
)

// newStreams makes the streams of a registry with a command.
func newStreams(t testing.TB, o hystrixstream.Options) *hystrixstream.Handler {
	t.Helper()
	reg := newRegistry(t, firebreak.Config{})
	reg.Command("dep", firebreak.Config{})
	return newHandler(t, reg, o)
}

// Samples at once and then by the clock, pings behind each and between. In times,
// a negative one is of a ping alone.
func TestTicks(t *testing.T) {
	for _, tt := range []struct {
		target string
		for_   time.Duration
		want   []int
	}{
		{"/", 2100 * time.Millisecond, []int{0, 500, 1000, 1500, 2000}},
		{"/?delay=", 1100 * time.Millisecond, []int{0, 500, 1000}},
		{"/?delay=500", 1100 * time.Millisecond, []int{0, 500, 1000}},
		{"/?delay=100&other=x", 300 * time.Millisecond, []int{0, 100, 200, 300}},
		{"/?delay=0", 200 * time.Millisecond, []int{0, 100, 200}},
		{"/?delay=1", 200 * time.Millisecond, []int{0, 100, 200}},
		{"/?delay=101", 600 * time.Millisecond, []int{0, 200, 400, -500, 600}},
		{"/?delay=000300&delay=100", 600 * time.Millisecond, []int{0, 300, -500, 600}},
		{"/?delay=2000", 2500 * time.Millisecond, []int{0, -500, -1000, -1500, 2000, -2500}},
		{"/?delay=700", 1500 * time.Millisecond, []int{0, -500, 700, -1000, 1400, -1500}},
		{"/config", 5500 * time.Millisecond, []int{0, -500, -1000, -1500, -2000, -2500, -3000, -3500, -4000, -4500, 5000, -5500}},
		{"/config?delay=500", 1000 * time.Millisecond, []int{0, 500, 1000}},
		{"/utilization", 1000 * time.Millisecond, []int{0, 500, 1000}},
	} {
		t.Run(tt.target, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tp := watch(t, mux(newStreams(t, hystrixstream.Options{})), tt.target)
				time.Sleep(tt.for_)
				synctest.Wait()
				require.Equal(t, tt.want, tp.times())
				for _, w := range tp.seen() {
					require.True(t, strings.HasSuffix(w.text, ping))
					require.Equal(t, 1, strings.Count(w.text, "ping: "))
				}
			})
		})
	}

	t.Run("the longest", func(t *testing.T) {
		for _, delay := range []string{"60000", "60001", "3600000", "9223372036854775807", "99999999999999999999999"} {
			synctest.Test(t, func(t *testing.T) {
				tp := watch(t, newStreams(t, hystrixstream.Options{}), "/?delay="+delay)
				time.Sleep(60*time.Second - time.Nanosecond)
				synctest.Wait()
				require.Len(t, tp.times(), 120)
				require.Equal(t, -59500, tp.times()[119])
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				require.Equal(t, 60000, tp.times()[120], "delay=%s", delay)
			})
		}
	})
}

// mux mounts the three streams.
func mux(h *hystrixstream.Handler) *http.ServeMux {
	m := http.NewServeMux()
	m.Handle("/", h)
	m.Handle("/config", h.Config())
	m.Handle("/utilization", h.Utilization())
	return m
}

// Clients that come at odd moments all have their samples at the same ones.
func TestTicksAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newStreams(t, hystrixstream.Options{})
		time.Sleep(130 * time.Millisecond)
		first := watch(t, h, "/?delay=1000")
		time.Sleep(130 * time.Millisecond)
		second := watch(t, h, "/")
		time.Sleep(2 * time.Second)
		require.Equal(t, []int{0, -370, 870, -1370, 1870}, first.times())
		require.Equal(t, []int{0, 240, 740, 1240, 1740}, second.times())
	})
}

// What a sample says is of when it is written.
func TestSamplesAreFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{})
		h := newHandler(t, reg, hystrixstream.Options{})
		tp := watch(t, h, "/")
		for range 3 {
			cmd.Run(t.Context(), succeed)
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
		}
		began := tp.began.UnixMilli()
		for i, o := range linesOf(t, tp.text()) {
			assert.EqualValues(t, i, o["rollingCountSuccess"])
			assert.EqualValues(t, began+500*int64(i), o["currentTime"])
		}
		require.Len(t, tp.seen(), 4)

		// A client that comes between has one that is no older than a tenth of a second.
		cmd.Run(t.Context(), succeed)
		time.Sleep(100 * time.Millisecond)
		late := watch(t, h, "/?delay=60000")
		require.EqualValues(t, 4, linesOf(t, late.text())[0]["rollingCountSuccess"])
	})
}

// A command that is made later is in the next sample.
func TestNewCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		tp := watch(t, newHandler(t, reg, hystrixstream.Options{}), "/")
		require.Equal(t, ping, tp.text())
		reg.Command("late", firebreak.Config{})
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, "late", linesOf(t, tp.text())[0]["name"])
	})
}

// A sample is encoded once, for all clients whose tick it is.
func TestEncodedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newStreams(t, hystrixstream.Options{MaxClients: 100})
		var all []*tape
		for i := range 100 {
			tp := watch(t, h, fmt.Sprintf("/?delay=%d", 500*(1+i%2)))
			tp.set(func(tp *tape) { tp.takes = time.Millisecond }) // so that they all write at once
			all = append(all, tp)
		}
		time.Sleep(2*time.Second + time.Millisecond)
		synctest.Wait()
		of := map[time.Duration]*byte{}
		for i, tp := range all {
			samples := 0
			for _, w := range tp.seen() {
				if w.text == ping {
					continue
				}
				samples++
				if of[w.at] == nil {
					of[w.at] = w.in
				}
				require.Same(t, of[w.at], w.in, "client %d at %v", i, w.at)
			}
			require.Equal(t, []int{5, 3}[i%2], samples)
		}
		require.Same(t, of[500*time.Millisecond], of[2*time.Second], "and in the memory of the last one")
	})
}

// A client that reads slowly misses samples; the others do not notice.
func TestSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newStreams(t, hystrixstream.Options{WriteTimeout: 3 * time.Second})
		slow, quick := watch(t, h, "/"), watch(t, h, "/")
		slow.set(func(tp *tape) { tp.takes = 1200 * time.Millisecond })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(t, []int{0, 500, 2000, 3500}, slow.times())
		require.Equal(t, []int{0, 500, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000}, quick.times())

		// What it has is whole, and of when it began to be written.
		for i, o := range linesOf(t, slow.text()) {
			require.EqualValues(t, slow.began.UnixMilli()+int64(slow.times()[i]), o["currentTime"])
		}
	})
}

// A client that does not read is dropped at the timeout, to the nanosecond, and its
// place is free.
func TestStalledClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newStreams(t, hystrixstream.Options{MaxClients: 2, WriteTimeout: 1700 * time.Millisecond})
		stalled, quick := watch(t, h, "/"), watch(t, h, "/")
		stalled.set(func(tp *tape) { tp.stalled = true })
		time.Sleep(2200*time.Millisecond - time.Nanosecond) // the tick at 500 ms, and the timeout
		synctest.Wait()
		require.False(t, stalled.over())
		require.Equal(t, http.StatusServiceUnavailable, answer(t, h, http.MethodGet, "/").Code)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.True(t, stalled.over())
		require.False(t, quick.over())
		require.Equal(t, []int{0, 500, 1000, 1500, 2000}, quick.times())
		require.Equal(t, []int{0}, watch(t, h, "/").times(), "the place is free")
	})
}

// Clients that do not read cost a sample each at most, however long they take.
func TestStalledClientsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newStreams(t, hystrixstream.Options{MaxClients: 10, WriteTimeout: time.Minute})
		quick := watch(t, h, "/?delay=100")
		var stalled []*tape
		for range 9 {
			tp := watch(t, h, "/?delay=100")
			tp.set(func(tp *tape) { tp.takes = 59 * time.Second })
			stalled = append(stalled, tp)
			time.Sleep(100 * time.Millisecond) // so that each has another sample in hand
		}
		used := map[*byte]bool{}
		time.Sleep(30 * time.Second)
		for _, w := range quick.seen() {
			used[w.in] = true
		}
		require.Less(t, len(used), 20, "of 300 samples: one in each hand, and the memory of the present one")

		time.Sleep(time.Minute) // all of them have written what they had
		synctest.Wait()
		for _, tp := range stalled {
			for i, o := range linesOf(t, tp.text()) {
				require.EqualValues(t, tp.began.UnixMilli()+int64(tp.times()[i]), o["currentTime"], "what is being written never changes")
			}
		}
	})
}

// HTTP/2 goes on to read what it was given after a Write that failed, so the next
// sample must not be in the same memory.
func TestFailedWriteKeepsItsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newStreams(t, hystrixstream.Options{WriteTimeout: 50 * time.Millisecond})
		quick := watch(t, h, "/?delay=100")
		lingers := &lingering{}
		failed := watchAs(t, h, "/?delay=100", func(tp *tape) http.ResponseWriter {
			lingers.tape = tp
			return lingers
		})
		time.Sleep(time.Second)
		synctest.Wait()
		require.True(t, failed.over())
		require.Equal(t, lingers.was, string(lingers.given))
		require.Len(t, quick.seen(), 11)
		for _, w := range quick.seen()[1:] {
			require.NotSame(t, &lingers.given[0], w.in)
		}
	})
}

// lingering fails at once, and still reads what it was given.
type lingering struct {
	*tape
	given []byte
	was   string
}

func (l *lingering) Write(p []byte) (int, error) {
	l.given, l.was = p, string(p)
	return 0, http.ErrHandlerTimeout
}

// A deadline is set before each write and lifted after: over HTTP/2 one that passed
// would end the stream although nothing is being written.
func TestWriteDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newStreams(t, hystrixstream.Options{WriteTimeout: time.Millisecond})
		tp := watch(t, h, "/?delay=2000")
		for range 10 {
			tp.set(func(tp *tape) { require.Zero(t, tp.deadline, "between writes") })
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
		}
		for _, w := range tp.seen() {
			require.Equal(t, time.Millisecond, w.deadline)
		}
		h.Close()
		synctest.Wait()
		tp.set(func(tp *tape) {
			require.Equal(t, time.Millisecond, time.Until(tp.deadline), "for what the server writes at the end")
		})
	})
}

// One client too many is told so, in the original's words; a client that goes makes
// room at once.
func TestMaxClients(t *testing.T) {
	for _, tt := range []struct {
		options hystrixstream.Options
		want    int
	}{{hystrixstream.Options{}, 5}, {hystrixstream.Options{MaxClients: 1}, 1}, {hystrixstream.Options{MaxClients: 7}, 7}} {
		synctest.Test(t, func(t *testing.T) {
			h := newStreams(t, tt.options)
			var all []*tape
			for range tt.want {
				all = append(all, watch(t, h, "/"))
			}
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				w := answer(t, h, method, "/")
				require.Equal(t, http.StatusServiceUnavailable, w.Code)
				require.Equal(t, fmt.Sprintf("MaxConcurrentConnections reached: %d\n", tt.want), w.Body.String())
			}
			for _, tp := range all {
				require.Equal(t, http.StatusOK, tp.status)
			}
			// The other streams have places of their own.
			watch(t, h.Config(), "/")
			watch(t, h.Utilization(), "/")

			all[0].leave()
			synctest.Wait()
			require.True(t, all[0].over(), "at once, not at the next tick")
			require.Equal(t, http.StatusOK, watch(t, h, "/").status)
			require.Equal(t, http.StatusServiceUnavailable, answer(t, h, http.MethodGet, "/").Code)
		})
	}

	synctest.Test(t, func(t *testing.T) {
		h := newStreams(t, hystrixstream.Options{MaxClients: firebreak.Unlimited})
		for range 200 {
			require.Equal(t, http.StatusOK, watch(t, h, "/").status)
		}
	})
}

func TestHeaders(t *testing.T) {
	want := http.Header{
		"Content-Type":           {"text/event-stream;charset=UTF-8"},
		"Cache-Control":          {"no-cache, no-store, max-age=0, must-revalidate"},
		"Pragma":                 {"no-cache"},
		"X-Accel-Buffering":      {"no"},
		"X-Content-Type-Options": {"nosniff"},
	}
	synctest.Test(t, func(t *testing.T) {
		h := newStreams(t, hystrixstream.Options{})
		for _, of := range []http.Handler{h, h.Config(), h.Utilization()} {
			w := answer(t, of, http.MethodHead, "/?delay=100")
			require.Equal(t, http.StatusOK, w.Code)
			require.Equal(t, want, w.Header())
			require.Empty(t, w.Body.String())

			tp := watch(t, of, "/")
			require.Equal(t, http.StatusOK, tp.status)
			require.Equal(t, []string{"close"}, tp.header["Connection"], "a deadline is the connection's")
			tp.header.Del("Connection")
			require.Equal(t, want, tp.header)

			overHTTP2 := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.ProtoMajor = 2
				of.ServeHTTP(w, r)
			})
			require.Equal(t, want, watch(t, overHTTP2, "/").header)
		}
	})
}

func TestMethods(t *testing.T) {
	h := newStreams(t, hystrixstream.Options{})
	for _, of := range []http.Handler{h, h.Config(), h.Utilization()} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, "get", "STREAM"} {
			w := answer(t, of, method, "/")
			require.Equal(t, http.StatusMethodNotAllowed, w.Code, method)
			require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
		}
	}
	require.True(t, hystrixstream.Idle(h))
}

func TestBadDelay(t *testing.T) {
	h := newStreams(t, hystrixstream.Options{})
	for query, want := range map[string]string{
		"delay=x":        "delay is not a whole number of milliseconds\n",
		"delay=-1":       "delay is not a whole number of milliseconds\n",
		"delay=%2B5":     "delay is not a whole number of milliseconds\n",
		"delay=+5":       "delay is not a whole number of milliseconds\n",
		"delay=1e3":      "delay is not a whole number of milliseconds\n",
		"delay=0x10":     "delay is not a whole number of milliseconds\n",
		"delay=500ms":    "delay is not a whole number of milliseconds\n",
		"delay=1_000":    "delay is not a whole number of milliseconds\n",
		"delay=1.5":      "delay is not a whole number of milliseconds\n",
		"delay=%D9%A5":   "delay is not a whole number of milliseconds\n", // a five, in Arabic
		"delay=%zz":      "the query cannot be read\n",
		"delay=500;x=1":  "the query cannot be read\n",
		"x=%&delay=1000": "the query cannot be read\n",
	} {
		for _, of := range []http.Handler{h, h.Config(), h.Utilization()} {
			w := answer(t, of, http.MethodGet, "/?"+query)
			require.Equal(t, http.StatusBadRequest, w.Code, query)
			require.Equal(t, want, w.Body.String(), query)
			require.Equal(t, http.StatusBadRequest, answer(t, of, http.MethodHead, "/?"+query).Code, query)
		}
	}
	require.True(t, hystrixstream.Idle(h))
}

// Close ends all three streams where they are, and refuses clients.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newStreams(t, hystrixstream.Options{WriteTimeout: time.Second})
		var all []*tape
		for _, of := range []http.Handler{h, h.Config(), h.Utilization()} {
			all = append(all, watch(t, of, "/"), watch(t, of, "/?delay=60000"))
		}
		stalled := watch(t, h, "/")
		stalled.set(func(tp *tape) { tp.stalled = true })
		time.Sleep(750 * time.Millisecond)

		h.Close()
		h.Close()
		synctest.Wait()
		for _, tp := range all {
			require.True(t, tp.over())
		}
		require.False(t, stalled.over(), "what is being written has its time")
		time.Sleep(750 * time.Millisecond)
		synctest.Wait()
		require.True(t, stalled.over())
		for _, of := range []http.Handler{h, h.Config(), h.Utilization()} {
			w := answer(t, of, http.MethodGet, "/")
			require.Equal(t, http.StatusServiceUnavailable, w.Code)
			require.Equal(t, "Service has been shut down.\n", w.Body.String())
			require.Equal(t, http.StatusServiceUnavailable, answer(t, of, http.MethodHead, "/").Code)
		}
		require.True(t, hystrixstream.Idle(h))
	})
}

// So does the registry's Shutdown, within half a second.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		reg.Command("dep", firebreak.Config{})
		h := newHandler(t, reg, hystrixstream.Options{})
		var all []*tape
		for _, of := range []http.Handler{h, h.Config(), h.Utilization()} {
			all = append(all, watch(t, of, "/"), watch(t, of, "/?delay=60000"))
		}
		time.Sleep(100 * time.Millisecond)
		shutdown(t, reg)
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		for _, tp := range all {
			require.True(t, tp.over())
			require.Len(t, tp.seen(), 1)
		}
		w := answer(t, h, http.MethodGet, "/")
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Equal(t, "Service has been shut down.\n", w.Body.String())
	})
}

// Nothing is read, kept or running while nobody looks.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newStreams(t, hystrixstream.Options{})
		require.True(t, hystrixstream.Idle(h))
		first, second := watch(t, h, "/"), watch(t, h, "/")
		time.Sleep(time.Second)
		first.leave()
		synctest.Wait()
		require.False(t, hystrixstream.Idle(h))
		second.leave()
		synctest.Wait()
		require.True(t, hystrixstream.Idle(h))
		require.Equal(t, []int{0}, watch(t, h, "/").times(), "and it can begin again")
	})
}

// wrapped is what middleware makes of a ResponseWriter.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// flusher is what middleware makes of one that knows no Unwrap.
type flusher struct{ http.ResponseWriter }

func (w flusher) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// opaque can write, and nothing else.
type opaque struct{ http.ResponseWriter }

func TestWrappedWriters(t *testing.T) {
	t.Run("by Unwrap", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newStreams(t, hystrixstream.Options{WriteTimeout: time.Second})
			tp := watchAs(t, h, "/", func(tp *tape) http.ResponseWriter { return wrapped{wrapped{tp}} })
			time.Sleep(time.Second)
			synctest.Wait()
			require.Equal(t, []int{0, 500, 1000}, tp.times())
			for _, w := range tp.seen() {
				require.Equal(t, time.Second, w.deadline)
			}
		})
	})
	t.Run("without deadlines", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tp := watchAs(t, newStreams(t, hystrixstream.Options{}), "/", func(tp *tape) http.ResponseWriter { return flusher{tp} })
			time.Sleep(time.Second)
			synctest.Wait()
			require.Equal(t, []int{0, 500, 1000}, tp.times())
			for _, w := range tp.seen() {
				require.Zero(t, w.deadline)
			}
		})
	})
	t.Run("without Flush", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newStreams(t, hystrixstream.Options{})
			w := httptest.NewRecorder()
			h.ServeHTTP(opaque{w}, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
			require.Equal(t, http.StatusInternalServerError, w.Code)
			require.Equal(t, "no stream without a http.ResponseWriter that can flush\n", w.Body.String())
			require.Equal(t, "text/plain; charset=utf-8", w.Header().Get("Content-Type"))
			require.True(t, hystrixstream.Idle(h))
		})
	})
}

// A Write that panics costs neither a place nor memory that others read.
func TestWriterPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newStreams(t, hystrixstream.Options{MaxClients: 2})
		quick := watch(t, h, "/")
		for range 10 {
			require.PanicsWithValue(t, http.ErrAbortHandler, func() {
				h.ServeHTTP(aborting{httptest.NewRecorder()}, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
			})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []int{0, 500, 1000}, quick.times())
		quick.leave()
		<-quick.done
		require.True(t, hystrixstream.Idle(h))
	})
}

type aborting struct{ *httptest.ResponseRecorder }

func (aborting) Write([]byte) (int, error) { panic(http.ErrAbortHandler) }

// A client that has gone before it is served is no client.
func TestGoneOnArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newStreams(t, hystrixstream.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
		require.True(t, hystrixstream.Idle(h))
	})
}

// Clients come and go, calls are made, settings change, all at once.
func TestConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		h := newHandler(t, reg, hystrixstream.Options{MaxClients: 20})
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				d := reg.Dependency(fmt.Sprint("dep", i%3), firebreak.Config{Isolation: firebreak.PoolIsolation})
				k := d.Keyed(fmt.Sprint("keyed", i%3), 4, firebreak.Config{})
				for n := range 400 {
					k.Command(fmt.Sprint(n%10)).Run(t.Context(), []func(context.Context) error{succeed, fail}[n%2], fallBack)
					if n%50 == 0 {
						assert.NoError(t, reg.Update(firebreak.Document{Defaults: firebreak.Config{Timeout: time.Duration(n+1) * time.Second}}))
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		var tapes []*tape
		for range 40 {
			tapes = append(tapes, watch(t, h, "/?delay=100"))
			watch(t, h.Config(), "/?delay=100")
			watch(t, h.Utilization(), "/?delay=100")
			time.Sleep(97 * time.Millisecond)
			if n := len(tapes); n >= 10 {
				tapes[n-10].leave()
			}
			if n := len(tapes); n%7 == 0 {
				tapes[n-1].set(func(tp *tape) { tp.stalled = true })
			}
		}
		all.Wait()
		for _, tp := range tapes {
			require.Equal(t, http.StatusOK, tp.status)
			require.NotEmpty(t, linesOf(t, tp.text()))
			require.True(t, slices.IsSorted(tp.times()))
		}
	})
}

func TestNew(t *testing.T) {
	reg := newRegistry(t, firebreak.Config{})
	require.PanicsWithValue(t, "hystrixstream: a registry is needed", func() { hystrixstream.New(nil, hystrixstream.Options{}) })
	for _, n := range []int{-1, -3, -100} {
		require.Panics(t, func() { hystrixstream.New(reg, hystrixstream.Options{MaxClients: n}) })
	}
	for _, d := range []time.Duration{-1, 1, time.Millisecond - 1, firebreak.Unlimited} {
		require.Panics(t, func() { hystrixstream.New(reg, hystrixstream.Options{WriteTimeout: d}) })
	}
	hystrixstream.New(reg, hystrixstream.Options{MaxClients: 1, WriteTimeout: time.Millisecond})
}
