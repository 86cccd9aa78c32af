package firebreak_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"
	"log/slog"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// The line of Hystrix's sample: hystrix.md, H.3. A hit of a cache has an entry of its
// own there only if it was none of the same command's outcome.
func TestS74_TheLineOfHystrix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{RequestLog: firebreak.On, Timeout: time.Minute})
		command := func(name string) *firebreak.Command { return reg.Command(name, firebreak.Config{}) }
		ctx := firebreak.WithScope(t.Context())
		require.Empty(t, firebreak.RequestLog(ctx).String())

		a := firebreak.Cached(command("GetA"), firebreak.Bind(command("GetA"), func(_ context.Context, key int) (int, error) {
			time.Sleep(5 * time.Millisecond)
			return key, nil
		}))
		for range 3 {
			_, _ = a(ctx, 1)
		}
		for range 2 {
			_, _ = firebreak.Do(ctx, command("GetB"), fail, firebreak.Static(1))
		}
		_, _ = firebreak.Do(ctx, command("GetC"), returns(0, errExpected))
		command("GetD").Override(firebreak.Override{Mode: firebreak.ForceOpen})
		_, _ = firebreak.Do(ctx, command("GetD"), succeed, firebreak.Static(1))
		_, _ = firebreak.Do(ctx, command("GetF"), deaf(time.Millisecond, 0, errBoom))
		x := firebreak.Collapse(command("X"), func(context.Context, []int) (map[int]int, error) {
			time.Sleep(12 * time.Millisecond)
			return nil, nil
		})
		askAll(ctx, x, 1, 2, 3)
		_, _ = firebreak.Do(ctx, command("GetB"), fail, firebreak.Static(1))

		require.Equal(t, "GetA[SUCCESS][5ms], GetA[RESPONSE_FROM_CACHE][0ms]x2, GetB[FAILURE, FALLBACK_SUCCESS][0ms]x3, GetC[BAD_REQUEST][0ms], "+
			"GetD[SHORT_CIRCUITED, FALLBACK_SUCCESS][0ms], GetF[FAILURE, FALLBACK_MISSING][1ms], X[SUCCESS, COLLAPSED][12ms]",
			firebreak.RequestLog(ctx).String())
	})
}

// S74: the milliseconds are those of all the calls together, not a sum of rounded ones,
// and of a call from its submission to its answer, fallbacks included.
func TestS74_Milliseconds(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		c := roomToWait(in)
		c.RequestLog = firebreak.On
		p := newPlace(t, in, c)
		ctx := firebreak.WithScope(t.Context())
		for range 3 {
			_, _ = firebreak.Do(ctx, p.cmd, deaf(700*time.Microsecond, 0, nil))
		}
		p.occupy(40 * time.Millisecond)
		_, _ = firebreak.Do(ctx, p.cmd, deaf(2*time.Millisecond, 0, errBoom), answering(time.Millisecond, 1, nil))
		require.Equal(t, "cmd[SUCCESS][2ms]x3, cmd[FAILURE, FALLBACK_SUCCESS][43ms]", firebreak.RequestLog(ctx).String())
	})
}

// logWords are the words for outcomes; rejected differs by isolation.
var logWords = map[string]string{
	"Success": "SUCCESS", "Expected": "BAD_REQUEST", "Ignored": "IGNORED", "Failure": "FAILURE", "Timeout": "TIMEOUT", "Panic": "PANIC",
	"Canceled": "CANCELLED", "CallerDeadline": "CALLER_DEADLINE", "Rejected": "SEMAPHORE_REJECTED", "ShortCircuited": "SHORT_CIRCUITED",
	"Shutdown": "SHUTDOWN", "GaveUp": "GAVE_UP",
}

// S74: each way for a call to end has its word, once, and so has what its fallbacks
// came to; of whatever was counted, and nothing else.
func TestS74_EveryOutcomeHasItsWord(t *testing.T) {
	for _, fallback := range []struct {
		name string
		f    firebreak.Fallback[int]
		max  int
		word string
	}{
		{"none", nil, 0, "FALLBACK_MISSING"},
		{"off", firebreak.Static(9), firebreak.Off, "FALLBACK_MISSING"},
		{"success", firebreak.Static(9), 0, "FALLBACK_SUCCESS"},
		{"failure", answering(0, 0, errCache), 0, "FALLBACK_FAILURE"},
		{"panic", func(context.Context, error) (int, error) { panic("fallback") }, 0, "FALLBACK_FAILURE"},
		{"Goexit", func(context.Context, error) (int, error) { runtime.Goexit(); return 0, nil }, 0, "FALLBACK_FAILURE"},
	} {
		t.Run(fallback.name, func(t *testing.T) {
			eachOutcome(t, func(t *testing.T, in firebreak.Isolation, row *outcomeRow) {
				c := row.config
				c.RequestLog, c.MaxFallbacks = firebreak.On, fallback.max
				p := newPlace(t, in, c)
				scope := firebreak.WithScope(t.Context())
				how := func(ctx context.Context, cmd *firebreak.Command, run func(context.Context) (int, error), f firebreak.Fallback[int]) (int, error) {
					return firebreak.Do(scoped{ctx, scope}, cmd, run, f)
				}
				if row.before != nil {
					row.before(t, p)
				}
				row.call(t, p, how, fallback.f)
				word := logWords[row.counted]
				if row.counted == "Rejected" && in == pools {
					word = "THREAD_POOL_REJECTED"
				}
				if row.asks {
					word += ", " + fallback.word
				}
				got := firebreak.RequestLog(scope).String()
				require.True(t, strings.HasPrefix(got, "cmd["+word+"]["), "%s, not %s", got, word)
				require.NotContains(t, got, "x")
				require.Equal(t, 1, strings.Count(got, "cmd["))
			})
		})
	}
}

// scoped is a context in another one's scope.
type scoped struct {
	context.Context
	scope context.Context
}

func (s scoped) Value(key any) any {
	if v := s.scope.Value(key); v != nil {
		return v
	}
	return s.Context.Value(key)
}

// S74: a fallback that finds no room, and one that an observer cut off by Goexit.
func TestS74_FallbacksThatWereNotAsked(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{RequestLog: firebreak.On, MaxFallbacks: 1})
		ctx := firebreak.WithScope(t.Context())
		goOn := make(chan struct{})
		first := later(func() (int, error) {
			return firebreak.Do(ctx, p.cmd, fail, func(context.Context, error) (int, error) { <-goOn; return 1, nil })
		})
		require.Empty(t, firebreak.RequestLog(ctx).String(), "its answer is not known")
		_, err := firebreak.Do(ctx, p.cmd, fail, firebreak.Static(1))
		require.ErrorIs(t, err, firebreak.ErrFallbackRejected)
		require.Equal(t, "cmd[FAILURE, FALLBACK_REJECTION][0ms]", firebreak.RequestLog(ctx).String())
		time.Sleep(3 * time.Millisecond)
		close(goOn)
		first()
		p.reg.Observe(firebreak.Observer{Call: func(context.Context, firebreak.CallEvent) { runtime.Goexit() }})
		answerOf(func() (int, error) { return firebreak.Do(ctx, p.cmd, fail, firebreak.Static(1)) })
		require.Equal(t, "cmd[FAILURE, FALLBACK_REJECTION][0ms], cmd[FAILURE, FALLBACK_SUCCESS][3ms], cmd[FAILURE, FALLBACK_FAILURE][0ms]",
			firebreak.RequestLog(ctx).String())
	})
}

// S74: each call once, however it is made; what its context says is whose it is.
func TestS74_EveryWayToMakeACall(t *testing.T) {
	inEachIsolation(t, func(t *testing.T, in firebreak.Isolation) {
		p := newPlace(t, in, firebreak.Config{RequestLog: firebreak.On, Timeout: time.Second, ErrorThresholdPercentage: firebreak.Off})
		do := func(ctx context.Context) { _, _ = firebreak.Do(ctx, p.cmd, succeed) }
		items := func(yield func(int, error) bool) {
			for i := range 3 {
				time.Sleep(time.Millisecond)
				if !yield(i, nil) {
					return
				}
			}
		}
		for _, row := range []struct {
			name string
			call func(ctx context.Context)
			want string
		}{
			{"Do", do, "cmd[SUCCESS][0ms]"},
			{"Run", func(ctx context.Context) { _ = p.cmd.Run(ctx, func(context.Context) error { return errBoom }) }, "cmd[FAILURE, FALLBACK_MISSING][0ms]"},
			{"Bind", func(ctx context.Context) { _, _ = firebreak.Bind(p.cmd, twice)(ctx, 1) }, "cmd[SUCCESS][0ms]"},
			{"Go", func(ctx context.Context) {
				_, _ = firebreak.Go(ctx, p.cmd, fail, answering(2*time.Millisecond, 1, nil)).Wait(t.Context())
			}, "cmd[FAILURE, FALLBACK_SUCCESS][2ms]"},
			{"Begin, settled", func(ctx context.Context) {
				call, err := p.cmd.Begin(ctx)
				require.NoError(t, err)
				time.Sleep(time.Millisecond)
				_ = call.Settle(errBoom)
				require.Equal(t, "cmd[FAILURE][1ms]", firebreak.RequestLog(ctx).String())
				time.Sleep(time.Millisecond)
				call.End()
			}, "cmd[FAILURE][1ms]"},
			{"Begin, ended", func(ctx context.Context) {
				call, err := p.cmd.Begin(ctx)
				require.NoError(t, err)
				require.Empty(t, firebreak.RequestLog(ctx).String())
				call.End()
			}, "cmd[PANIC][0ms]"},
			{"Begin, refused", func(ctx context.Context) {
				p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
				defer p.cmd.Override(firebreak.Override{})
				_, err := p.cmd.Begin(ctx)
				require.ErrorIs(t, err, firebreak.ErrOpen)
			}, "cmd[SHORT_CIRCUITED][0ms]"},
			{"Stream", func(ctx context.Context) {
				for _, err := range firebreak.Stream(ctx, p.cmd, func(context.Context) iter.Seq2[int, error] { return items }) {
					require.NoError(t, err)
				}
			}, "cmd[SUCCESS][3ms]"},
			{"Stream, left", func(ctx context.Context) {
				for _, err := range firebreak.Stream(ctx, p.cmd, func(context.Context) iter.Seq2[int, error] { return items }) {
					require.NoError(t, err)
					break
				}
			}, "cmd[SUCCESS][1ms]"},
			{"Stream, an error and no fallback", func(ctx context.Context) {
				for _, err := range firebreak.Stream(ctx, p.cmd, func(context.Context) iter.Seq2[int, error] { return oneItem(0, errBoom) }) {
					require.ErrorIs(t, err, errBoom)
				}
			}, "cmd[FAILURE, FALLBACK_MISSING][0ms]"},
			{"Stream, a fallback", func(ctx context.Context) {
				for _, err := range firebreak.Stream(ctx, p.cmd, func(context.Context) iter.Seq2[int, error] { return oneItem(0, errBoom) },
					func(context.Context, error) iter.Seq2[int, error] { return oneItem(1, nil) }) {
					require.NoError(t, err)
				}
			}, "cmd[FAILURE, FALLBACK_SUCCESS][0ms]"},
			{"two commands", func(ctx context.Context) {
				_, _ = firebreak.Do(ctx, p.cmd, func(ctx context.Context) (int, error) { _, err := firebreak.Do(ctx, p.cmd, fail); return 1, err })
			}, "cmd[FAILURE, FALLBACK_MISSING][0ms]x2"},
			{"one that is not noted", func(ctx context.Context) { _, _ = firebreak.Do(ctx, p.neighbour, succeed) }, ""},
			{"a scope within", func(ctx context.Context) { do(firebreak.WithScope(ctx)) }, ""},
			{"without a scope", func(context.Context) { do(t.Context()) }, ""},
			{"a batch, in its first caller's scope", func(ctx context.Context) {
				askAll(ctx, firebreak.Collapse(p.cmd, loading(nil, errBoom)), 1, 2)
			}, "cmd[FAILURE, COLLAPSED, FALLBACK_MISSING][0ms]"},
			{"a batch, and its fallback", func(ctx context.Context) {
				askAll(ctx, firebreak.Collapse(p.cmd, loading(nil, errBoom),
					func(context.Context, []int, error) (map[int]int, error) { return nil, nil }), 1)
			}, "cmd[FAILURE, COLLAPSED, FALLBACK_SUCCESS][0ms]"},
			{"a key that the circuit refuses", func(ctx context.Context) {
				p.cmd.Override(firebreak.Override{Mode: firebreak.ForceOpen})
				defer p.cmd.Override(firebreak.Override{})
				_, _ = firebreak.Collapse(p.cmd, loadDoubles)(ctx, 1)
			}, "cmd[SHORT_CIRCUITED, FALLBACK_MISSING][0ms]"},
			{"Cached", func(ctx context.Context) {
				askAll(ctx, firebreak.Cached(p.cmd, firebreak.Bind(p.cmd, twice)), 1, 1, 2, 1)
			}, "cmd[SUCCESS][0ms]x2, cmd[RESPONSE_FROM_CACHE][0ms]x2"},
			{"Cached, of what is not noted", func(ctx context.Context) {
				askAll(ctx, firebreak.Cached(p.neighbour, twice), 1, 1)
			}, ""},
		} {
			ctx := firebreak.WithScope(t.Context())
			row.call(ctx)
			require.Equal(t, row.want, firebreak.RequestLog(ctx).String(), row.name)
		}
	})
}

// S74: a wait for another's run is noted when its answer is known, after that run.
func TestS74_AHitIsNotedWithItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd, s := newCommand(t, firebreak.Config{RequestLog: firebreak.On}), &source{}
		get := firebreak.Cached(cmd, firebreak.Bind(cmd, s.get))
		ctx := firebreak.WithScope(t.Context())
		left, leave := context.WithCancel(ctx)
		ask(ctx, get, 1)
		ask(ctx, get, 1)
		ask(left, get, 1)
		leave()
		synctest.Wait()
		require.Empty(t, firebreak.RequestLog(ctx).String())
		s.runs[0].ends(answers(1, nil))
		require.Equal(t, "dep[SUCCESS][0ms], dep[RESPONSE_FROM_CACHE][0ms]", firebreak.RequestLog(ctx).String())
	})
}

// S74: of a call whose caller leaves it in a pool, what the caller got, once.
func TestS74_ACallThatWasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, pools, firebreak.Config{RequestLog: firebreak.On, Timeout: time.Second})
		ctx := firebreak.WithScope(t.Context())
		_, err := firebreak.Do(ctx, p.cmd, deaf(3*time.Second, 1, nil))
		require.ErrorIs(t, err, firebreak.ErrTimeout)
		time.Sleep(time.Minute)
		require.Equal(t, "cmd[TIMEOUT, FALLBACK_MISSING][1000ms]", firebreak.RequestLog(ctx).String())
	})
}

// S74: a call goes by the settings that it began with.
func TestS74_SettingsOfTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{})
		cmd := reg.Command("dep", firebreak.Config{})
		ctx := firebreak.WithScope(t.Context())
		toggle := func(s firebreak.Switch) func(context.Context) (int, error) {
			return func(context.Context) (int, error) {
				update(t, reg, firebreak.Document{Defaults: firebreak.Config{RequestLog: s}})
				return 1, nil
			}
		}
		_, _ = firebreak.Do(ctx, cmd, toggle(firebreak.On))
		require.Empty(t, firebreak.RequestLog(ctx).String())
		_, _ = firebreak.Do(ctx, cmd, toggle(firebreak.Off))
		require.Equal(t, "dep[SUCCESS][0ms]", firebreak.RequestLog(ctx).String())
	})
}

// S74: the first thousand are kept, the rest counted, in order.
func TestS74_TheFirstThousand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{RequestLog: firebreak.On})
		a, b := reg.Command("a", firebreak.Config{}), reg.Command("b", firebreak.Config{})
		ctx := firebreak.WithScope(t.Context())
		for range 999 {
			_, _ = firebreak.Do(ctx, a, succeed)
		}
		require.Equal(t, "a[SUCCESS][0ms]x999", firebreak.RequestLog(ctx).String())
		_, _ = firebreak.Do(ctx, b, succeed)
		full := firebreak.RequestLog(ctx)
		require.Equal(t, "a[SUCCESS][0ms]x999, b[SUCCESS][0ms]", full.String())
		for range 3 {
			_, _ = firebreak.Do(ctx, b, succeed)
		}
		get := firebreak.Cached(a, twice)
		_, _ = get(ctx, 1)
		_, _ = get(ctx, 1)
		require.Equal(t, "a[SUCCESS][0ms]x999, b[SUCCESS][0ms], and 4 more", firebreak.RequestLog(ctx).String())
		require.Equal(t, "a[SUCCESS][0ms]x999, b[SUCCESS][0ms]", full.String(), "it does not change")
		require.JSONEq(t, `{"calls": {
			"a": {"calls": 999, "took": 0, "SUCCESS": 999}, "b": {"calls": 1, "took": 0, "SUCCESS": 1}, "more": 4
		}}`, logged(t, firebreak.RequestLog(ctx)))
	})
}

func TestS74_WithoutAScope(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{RequestLog: firebreak.On})
	_, err := firebreak.Do(t.Context(), cmd, succeed)
	require.NoError(t, err)
	for _, l := range []firebreak.CallLog{firebreak.RequestLog(t.Context()), {}} {
		require.Empty(t, l.String())
		require.JSONEq(t, `{}`, logged(t, l))
	}
}

// logged is what slog's JSON handler writes of a log, as attribute "calls".
func logged(t *testing.T, l firebreak.CallLog) string {
	t.Helper()
	var b bytes.Buffer
	h := slog.NewJSONHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return a
	}})
	slog.New(h).InfoContext(t.Context(), "served", "calls", l)
	requireUniqueKeys(t, json.NewDecoder(bytes.NewReader(b.Bytes())))
	return b.String()
}

// requireUniqueKeys reads one value.
func requireUniqueKeys(t *testing.T, d *json.Decoder) {
	t.Helper()
	token, err := d.Token()
	require.NoError(t, err)
	if token != json.Delim('{') {
		return
	}
	seen := map[json.Token]bool{}
	for d.More() {
		key, err := d.Token()
		require.NoError(t, err)
		require.False(t, seen[key], "%v twice", key)
		seen[key] = true
		requireUniqueKeys(t, d)
	}
	_, err = d.Token()
	require.NoError(t, err)
}

// S74: as an attribute it is a group, with one for each command.
func TestS74_AsAnAttribute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{RequestLog: firebreak.On})
		users, stock := reg.Command("users.get", firebreak.Config{}), reg.Command("stock", firebreak.Config{})
		ctx := firebreak.WithScope(t.Context())
		_, _ = firebreak.Do(ctx, users, deaf(5*time.Millisecond, 1, nil))
		_, _ = firebreak.Do(ctx, stock, deaf(time.Millisecond, 0, errBoom), firebreak.Static(1))
		_, _ = firebreak.Do(ctx, users, deaf(2*time.Millisecond, 1, nil))
		_, _ = firebreak.Do(ctx, users, fail)
		require.Equal(t, `{"calls":{"users.get":{"calls":3,"took":7000000,"SUCCESS":2,"FAILURE, FALLBACK_MISSING":1},`+
			`"stock":{"calls":1,"took":1000000,"FAILURE, FALLBACK_SUCCESS":1}}}`+"\n", logged(t, firebreak.RequestLog(ctx)))
	})
}

// Names may be anybody's text, as keys are: the log stays one line, and its keys unique.
func TestS74_HostileNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newRegistry(t, firebreak.Config{RequestLog: firebreak.On}).Dependency("dep", firebreak.Config{}).Keyed("k", 100, firebreak.Config{})
		ctx := firebreak.WithScope(t.Context())
		do := func(key string) { _, _ = firebreak.Do(ctx, k.Command(key), succeed) }
		keys := []string{"a\r\nlevel=error", "\xff", "\xfe", "\ufffd", `"`, `\`, "\u2028", "\x1b[2J", "\u202e", "é 世", "", `k["\xff"]`}
		for _, key := range keys {
			do(key)
		}
		line := firebreak.RequestLog(ctx).String()
		require.Equal(t, `"k[a\r\nlevel=error]"[SUCCESS][0ms], "k[\xff]"[SUCCESS][0ms], "k[\xfe]"[SUCCESS][0ms], k[�][SUCCESS][0ms], `+
			`"k[\"]"[SUCCESS][0ms], "k[\\]"[SUCCESS][0ms], "k[\u2028]"[SUCCESS][0ms], "k[\x1b[2J]"[SUCCESS][0ms], "k[\u202e]"[SUCCESS][0ms], `+
			`k[é 世][SUCCESS][0ms], k[][SUCCESS][0ms], "k[k[\"\\xff\"]]"[SUCCESS][0ms]`, line)
		var read struct{ Calls map[string]any }
		require.NoError(t, json.Unmarshal([]byte(logged(t, firebreak.RequestLog(ctx))), &read))
		require.Len(t, read.Calls, len(keys))
	})
}

// A command named as the count of those that were not kept is not taken for it.
func TestS74_ACommandNamedMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, firebreak.Config{RequestLog: firebreak.On})
		ctx := firebreak.WithScope(t.Context())
		for i := range 1001 {
			_, _ = firebreak.Do(ctx, reg.Command([]string{"more", "calls", "more…"}[i%3], firebreak.Config{}), succeed)
		}
		var read struct{ Calls map[string]any }
		require.NoError(t, json.Unmarshal([]byte(logged(t, firebreak.RequestLog(ctx))), &read))
		require.Len(t, read.Calls, 4)
		require.EqualValues(t, 1, read.Calls["more……"])
	})
}

// Who reads while others write gets a log that is whole, and stays as it is.
func TestS74_ReadWhileOthersWrite(t *testing.T) {
	const callers, each = 4, 200
	cmd := newCommand(t, firebreak.Config{RequestLog: firebreak.On, MaxConcurrent: firebreak.Unlimited})
	ctx := firebreak.WithScope(t.Context())
	var all, reader sync.WaitGroup
	calls := func(l firebreak.CallLog) int64 {
		for _, a := range l.LogValue().Group() {
			return a.Value.Group()[0].Value.Int64()
		}
		return 0
	}
	over := make(chan struct{})
	reader.Go(func() {
		last := int64(0)
		for {
			l := firebreak.RequestLog(ctx)
			n, line := calls(l), l.String()
			assert.GreaterOrEqual(t, n, last)
			runtime.Gosched()
			assert.Equal(t, n, calls(l))
			assert.Equal(t, line, l.String())
			last = n
			select {
			case <-over:
				return
			default:
			}
		}
	})
	for range callers {
		all.Go(func() {
			for range each {
				_, _ = firebreak.Do(ctx, cmd, succeed)
			}
		})
	}
	all.Wait()
	close(over)
	reader.Wait()
	require.EqualValues(t, callers*each, calls(firebreak.RequestLog(ctx)))
}

// A log that is Off costs nothing, in a scope or not.
func TestS74_OffCostsNothing(t *testing.T) {
	scope := firebreak.WithScope(t.Context())
	for _, in := range []firebreak.Isolation{semaphores, pools} {
		p := newPlace(t, in, firebreak.Config{Timeout: firebreak.Off, MaxConcurrent: 1, ErrorThresholdPercentage: firebreak.Off})
		free, _ := allocates(func() { _, _ = firebreak.Do(t.Context(), p.cmd, succeed) })
		scoped, _ := allocates(func() { _, _ = firebreak.Do(scope, p.cmd, succeed) })
		require.LessOrEqual(t, scoped, free)
		failed, _ := allocates(func() { _, _ = firebreak.Do(scope, p.cmd, fail, firebreak.Static(1)) })
		require.LessOrEqual(t, failed, free)
		full(t, p)
		refused, _ := allocates(func() { _, _ = firebreak.Do(scope, p.cmd, succeed) })
		require.Zero(t, refused)
		require.Empty(t, firebreak.RequestLog(scope).String())
	}
}

// What is not looked at is not formatted: a handler that is off reads nothing.
func TestS74_NothingIsFormattedUnlessSomebodyLooks(t *testing.T) {
	cmd := newCommand(t, firebreak.Config{RequestLog: firebreak.On})
	ctx := firebreak.WithScope(t.Context())
	for range 100 {
		_, _ = firebreak.Do(ctx, cmd, succeed)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.Level(math.MaxInt)}))
	times, _ := allocates(func() { log.InfoContext(ctx, "served", "calls", firebreak.RequestLog(ctx)) })
	require.LessOrEqual(t, times, 2, "the attribute")
}
