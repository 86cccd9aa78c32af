package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firebreak-go/firebreak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// judged runs what gives a summary until the machine had the time to judge it. One
// that never has, in three runs, is no machine to test on, and fails.
func judged(t *testing.T, run func() summary) summary {
	t.Helper()
	var sum summary
	for range 3 {
		if sum = run(); sum.NotJudged == "" {
			return sum
		}
		t.Log(sum.NotJudged)
	}
	require.Empty(t, sum.NotJudged)
	return sum
}

// The run that the README shows, as short as it may be.
func TestPromisesAreKept(t *testing.T) {
	sum := judged(t, func() (sum summary) {
		var stdout, stderr bytes.Buffer
		status := command(t.Context(), []string{"-json", "-duration", minDuration.String()}, &stdout, &stderr)
		t.Logf("%s", &stdout)
		require.Empty(t, stderr.String())

		in := json.NewDecoder(&stdout)
		in.DisallowUnknownFields()
		require.NoError(t, in.Decode(&sum))
		_, err := in.Token()
		require.ErrorIs(t, err, io.EOF, "one object and nothing else")
		require.True(t, sum.Protected)
		require.Equal(t, sum.exitStatus(), status)
		return sum
	})

	require.Len(t, sum.Promises, 4)
	for _, p := range sum.Promises {
		assert.True(t, p.Kept, "%s: %s (%s)", p.Promise, p.Measured, p.Bound)
	}
	assert.InDelta(t, rate*minDuration.Seconds(), sum.Requests, 1, "the load does not depend on the answers")
	assert.Positive(t, sum.Fallbacks["last known stock"])
	assert.Positive(t, sum.Fallbacks["no reviews"])
	assert.NotEmpty(t, sum.OpenedBy)
}

func TestCollapseWithoutFirebreak(t *testing.T) {
	sum, err := demonstrate(t.Context(), options{duration: minDuration, unprotected: true}, newScreen(nil))
	require.NoError(t, err)
	t.Log(sum)

	before, during := sum.Phases[0], sum.Phases[2]
	require.Equal(t, "hanging", during.Phase)
	assert.Greater(t, during.Price.P99Ms, 500.0, "prices wait behind pages that wait for inventory")
	assert.Less(t, during.Product.AnsweredPercent, 80.0)
	assert.Zero(t, sum.exitStatus(), "nobody promised anything")
	if sum.NotJudged == "" { // a busy machine is slow before, too
		assert.Greater(t, during.Price.P99Ms, 5*before.Price.P99Ms)
	}
	for _, p := range sum.Promises {
		assert.False(t, p.Kept, p.Promise)
	}
}

// Ctrl-C, at once and while inventory hangs, when pages are waited for at every place.
func TestInterrupted(t *testing.T) {
	itHangs := newScript(time.Time{}, minDuration).begins[hanging]
	for after, args := range map[time.Duration][]string{
		100 * time.Millisecond:         {},
		itHangs + 500*time.Millisecond: {"-unprotected"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		defer cancel()
		var stdout, stderr bytes.Buffer
		status := command(ctx, append(args, "-duration", minDuration.String()), &stdout, &stderr)

		assert.Equal(t, statusInterrupted, status)
		assert.Contains(t, stdout.String(), "Not judged: interrupted")
		assert.NotContains(t, stdout.String(), "kept")
		assert.Empty(t, stderr.String(), "all was shut down in good order")
	}
}

// The last round is the one that is summed up: the others are forgotten.
func TestForever(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	const round = time.Second
	result, err := demonstrate(ctx, options{duration: round, forever: true}, newScreen(nil))
	require.NoError(t, err)
	assert.Equal(t, interruption, result.NotJudged)
	assert.Positive(t, result.Requests)
	assert.LessOrEqual(t, result.Requests, int(round.Seconds()*rate))
}

// The dashboard and the rest are there while it runs, and let it end.
func TestWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout, in := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- command(ctx, []string{"-http", "127.0.0.1:0", "-duration", "0"}, in, io.Discard)
		in.Close()
	}()
	lines := bufio.NewScanner(stdout)
	require.True(t, lines.Scan())
	found := regexp.MustCompile(`http://[0-9.:]+`).FindString(lines.Text())
	require.NotEmpty(t, found, lines.Text())
	for lines.Scan() && !strings.Contains(lines.Text(), "healthy") { // by now there was traffic
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()

	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for path, want := range map[string]string{
		"/":               "<html",
		"/metrics":        `firebreak_calls_total{command="inventory",dependency="inventory",outcome="success"}`,
		"/hystrix.stream": `"type":"HystrixCommand","name":"inventory"`,
	} {
		resp, err := client.Get(found + path)
		require.NoError(t, err)
		defer resp.Body.Close() // the stream is still open when Ctrl-C comes
		assert.Equal(t, http.StatusOK, resp.StatusCode, path)
		text := make([]byte, 1<<20)
		n := 0
		for n < len(text) && !strings.Contains(string(text[:n]), want) && err == nil {
			var more int
			more, err = resp.Body.Read(text[n:])
			n += more
		}
		assert.Contains(t, string(text[:n]), want, path)
	}
	cancel()
	assert.Equal(t, statusInterrupted, <-status)
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-duration", "9s"}, {"-duration", "soon"}, {"-nonsense"}, {"30s"}} {
		var stdout, stderr bytes.Buffer
		assert.Equal(t, statusUsage, command(t.Context(), args, &stdout, &stderr), args)
		assert.Empty(t, stdout.String())
		assert.NotEmpty(t, stderr.String())
	}
	var stdout, stderr bytes.Buffer
	assert.Zero(t, command(t.Context(), []string{"-help"}, &stdout, &stderr))
	assert.Contains(t, stderr.String(), "-unprotected")
}

func TestScript(t *testing.T) {
	start := time.Now()
	s := newScript(start, 100*time.Second)
	assert.Equal(t, start.Add(100*time.Second), s.end())
	for p := range numPhases {
		begin := s.beginOf(p)
		assert.Equal(t, p, s.at(begin), "the first moment of %v", p)
		assert.Equal(t, p, s.at(begin.Add(s.lengthOf(p)-1)), "the last moment of %v", p)
	}
	assert.Equal(t, healed, s.at(s.end().Add(time.Hour)))

	short := newScript(start, minDuration)
	assert.Greater(t, short.lengthOf(hanging), maxTimeToOpen, "or the promise could not be judged")
	assert.Greater(t, short.lengthOf(healed), maxTimeToRecover)
}

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, c := range []struct {
		of   []time.Duration
		p    float64
		want time.Duration
	}{
		{nil, 99, 0},
		{hundred[:1], 50, 1},
		{hundred[:1], 99, 1},
		{hundred[:2], 50, 1},
		{hundred[:2], 51, 2},
		{hundred[:99], 99, 99},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 99.1, 100},
		{hundred, 100, 100},
		{hundred, 0, 1},
	} {
		assert.Equal(t, c.want, percentile(c.of, c.p), "%v of %d", c.p, len(c.of))
	}
}

func TestMeasure(t *testing.T) {
	f := measure([]sample{
		{page: pricePage, took: 1 * time.Millisecond, answered: true},
		{page: productPage, took: 7 * time.Millisecond, late: time.Millisecond, answered: true, notes: []string{"a", "b"}},
		{page: productPage, took: patience},
	}, func(s sample) bool { return s.page == productPage })

	assert.Equal(t, figures{
		Requests: 2, Answered: 1, Degraded: 1, AnsweredPercent: 50,
		P50Ms: 7, P99Ms: 2000, LateP99Ms: 1,
		p50: 7 * time.Millisecond, p99: patience, late: time.Millisecond,
	}, f, "a page with two fallbacks is one page; a page without an answer has its wait")
	assert.Zero(t, measure(nil, nil))
}

func TestTimeTo(t *testing.T) {
	start := time.Now()
	at := func(s int, to firebreak.State) firebreak.Transition {
		return firebreak.Transition{At: start.Add(time.Duration(s) * time.Second), To: to}
	}
	from, until := start.Add(10*time.Second), start.Add(20*time.Second)
	const never = -1
	for name, c := range map[string]struct {
		closed  bool
		circuit []firebreak.Transition
		want    time.Duration
	}{
		"opens":                   {false, []firebreak.Transition{at(12, firebreak.StateOpen), at(13, firebreak.StateHalfOpen)}, 2 * time.Second},
		"was open":                {false, []firebreak.Transition{at(9, firebreak.StateOpen), at(13, firebreak.StateHalfOpen)}, 0},
		"was open and closed":     {false, []firebreak.Transition{at(8, firebreak.StateOpen), at(9, firebreak.StateClosed)}, never},
		"opens too late":          {false, []firebreak.Transition{at(20, firebreak.StateOpen)}, never},
		"never opens":             {false, nil, never},
		"closes":                  {true, []firebreak.Transition{at(9, firebreak.StateOpen), at(10, firebreak.StateHalfOpen), at(11, firebreak.StateClosed), at(12, firebreak.StateOpen)}, time.Second},
		"closes at a second try":  {true, []firebreak.Transition{at(9, firebreak.StateHalfOpen), at(11, firebreak.StateOpen), at(13, firebreak.StateClosed)}, 3 * time.Second},
		"is closed all the while": {true, nil, 0},
		"stays open":              {true, []firebreak.Transition{at(9, firebreak.StateOpen), at(11, firebreak.StateHalfOpen)}, never},
	} {
		after, _, ok := timeTo(c.closed, c.circuit, from, until)
		assert.Equal(t, c.want != never, ok, name)
		if ok {
			assert.Equal(t, c.want, after, name)
		}
	}
}

// A fabricated run of 1,000 pages, in which one thing at a time goes wrong.
func TestExitStatus(t *testing.T) {
	type run struct {
		samples []sample
		circuit []firebreak.Transition
		options
		interrupted bool
	}
	s := newScript(time.Now(), 100*time.Second)
	fabricate := func() run {
		r := run{options: options{duration: s.duration()}}
		for i := range 1000 {
			r.samples = append(r.samples, sample{page: page(i % 2), due: s.start.Add(time.Duration(i) * 100 * time.Millisecond), took: 5 * time.Millisecond, answered: true})
		}
		r.circuit = []firebreak.Transition{
			{At: s.beginOf(hanging).Add(maxTimeToOpen), To: firebreak.StateOpen},
			{At: s.beginOf(healed).Add(maxTimeToRecover), To: firebreak.StateClosed},
		}
		return r
	}
	pricesWhileHanging := func(r *run, change func(*sample)) {
		for i := range r.samples {
			if x := &r.samples[i]; x.page == pricePage && s.at(x.due) == hanging {
				change(x)
			}
		}
	}

	for name, c := range map[string]struct {
		spoil  func(*run)
		status int
		broken string
	}{
		"all is well":        {func(*run) {}, 0, ""},
		"slow prices":        {func(r *run) { pricesWhileHanging(r, func(x *sample) { x.took = priceFloor + 1 }) }, statusBroken, "p99 of /price"},
		"as slow as allowed": {func(r *run) { pricesWhileHanging(r, func(x *sample) { x.took = priceFloor }) }, 0, ""},
		"a slow machine": {func(r *run) {
			pricesWhileHanging(r, func(x *sample) { x.took, x.late = priceFloor+4*time.Millisecond, time.Millisecond })
		}, 0, ""},
		"ten pages unanswered": {func(r *run) {
			for i := range 10 {
				r.samples[i*100].answered = false
			}
		}, 0, ""},
		"eleven": {func(r *run) {
			for i := range 11 {
				r.samples[i*90].answered = false
			}
		}, statusBroken, "pages answered"},
		"opened too late":      {func(r *run) { r.circuit[0].At = r.circuit[0].At.Add(1) }, statusBroken, "its circuit opened"},
		"never opened":         {func(r *run) { r.circuit = nil }, statusBroken, "its circuit opened"},
		"closed too late":      {func(r *run) { r.circuit[1].At = r.circuit[1].At.Add(1) }, statusBroken, "its circuit closed"},
		"never closed":         {func(r *run) { r.circuit = r.circuit[:1] }, statusBroken, "its circuit closed"},
		"nothing was promised": {func(r *run) { r.unprotected = true; r.samples[1].answered = false; clear(r.samples[500:]) }, 0, "pages answered"},
		"too busy to judge": {func(r *run) {
			for i := range r.samples {
				r.samples[i].late = maxLate + 1
			}
			r.circuit = nil
		}, 0, ""},
		"too early to judge": {func(r *run) { r.interrupted = true; r.samples = nil }, statusInterrupted, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := fabricate()
			c.spoil(&r)
			sum := summarize(r.options, s, r.samples, r.circuit, r.interrupted)
			assert.Equal(t, c.status, sum.exitStatus())
			var broken []string
			for _, p := range sum.Promises {
				if !p.Kept {
					broken = append(broken, p.Promise)
				}
			}
			if c.broken == "" {
				assert.Empty(t, broken)
			} else {
				require.Len(t, broken, 1)
				assert.Contains(t, broken[0], c.broken)
			}
			assert.Equal(t, c.status == statusBroken, strings.Contains(sum.String(), "BROKEN"))
		})
	}
}

// The widest page there can be, and the line of a log.
func TestScreen(t *testing.T) {
	now := time.Now()
	total := firebreak.Counts{Success: 120, Timeout: 120, Rejected: 120, ShortCircuited: 120}
	v := &view{
		now:    now,
		script: newScript(now, minDuration),
		since:  time.Second,
		snapshots: []firebreak.Snapshot{{
			Command: "inventory", State: firebreak.StateHalfOpen, Total: total,
			Evidence: firebreak.Evidence{
				Rule: "error percentage", LastError: strings.Repeat("long ", 50), At: now, NextProbe: now.Add(time.Second),
				Calls: 200, Failures: 100, Refused: 3,
			},
		}},
	}
	var log bytes.Buffer
	newScreen(&log).show(v)
	assert.Equal(t, 1, strings.Count(log.String(), "\n"))
	assert.NotContains(t, log.String(), "\x1b")
	assert.Contains(t, log.String(), "inventory is half_open")

	var out bytes.Buffer
	terminal := &screen{w: &out, terminal: true}
	terminal.show(v)
	page := strings.NewReplacer("\x1b[K", "", "\x1b[J", "", "\x1b[?7l", "", "\x1b[?7h", "").Replace(out.String())
	assert.Contains(t, page, "3 refused, a probe is out; error percentage, 100 of 200: long")
	assert.Contains(t, page, "120 success, 120 timeout")
	for line := range strings.Lines(page) {
		assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), width)
	}
	assert.NotContains(t, page, "\x1b", "no colours unless they are wanted")
	terminal.colour = true
	assert.Contains(t, terminal.paint("inventory  half_open "), "\x1b[33m")
}
