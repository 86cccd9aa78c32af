package firebreaktest_test

// The code of docs/testing.md: what stands there in a block stands here too, and
// runs; TestDocsCodeRuns sees to it.

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakhttp"
	"github.com/firebreak-go/firebreak/firebreaktest"
)

var ErrNoSuchCity = errors.New("no such city")

type Weather struct {
	Forecast func(ctx context.Context, city string) (string, error)
}

func NewWeather(reg *firebreak.Registry, forecast func(context.Context, string) (string, error)) *Weather {
	cmd := reg.Command("weather.forecast", firebreak.Config{
		MaxConcurrent: 2,
		Timeout:       300 * time.Millisecond,
		Classify:      firebreak.ExpectErrors(ErrNoSuchCity),
	})
	return &Weather{Forecast: firebreak.Bind(cmd, forecast, lookOutside)}
}

func lookOutside(context.Context, string, error) (string, error) {
	return "look out of the window", nil
}

func sunny(_ context.Context, city string) (string, error) {
	if city == "Atlantis" {
		return "", ErrNoSuchCity
	}
	return "sunny", nil
}

// hangs for as long as it may.
func hangs(ctx context.Context, _ string) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

func TestForecastFallsBack(t *testing.T) {
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	w := NewWeather(reg, sunny)
	firebreaktest.Force(t, reg, "weather.forecast", firebreak.ErrTimeout)
	if got, err := w.Forecast(t.Context(), "Oslo"); got != "look out of the window" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestForecastFallsBackWhatever(t *testing.T) {
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	w := NewWeather(reg, sunny)
	for _, outcome := range []error{firebreak.ErrOpen, firebreak.ErrRejected, firebreak.ErrTimeout, errors.New("connection reset")} {
		firebreaktest.Force(t, reg, "weather.forecast", outcome)
		if got, err := w.Forecast(t.Context(), "Oslo"); got != "look out of the window" || err != nil {
			t.Errorf("%v: got %q, %v", outcome, got, err)
		}
	}
}

func TestForecastClassifies(t *testing.T) {
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	NewWeather(reg, sunny)
	cmd := reg.Command("weather.forecast", firebreak.Config{}) // the one that is there
	if v := cmd.Config().Classify(ErrNoSuchCity); v != firebreak.Expected {
		t.Errorf("an unknown city is an answer, not %v", v)
	}
	if v := cmd.Config().Classify(errors.New("connection reset")); v != firebreak.Failure {
		t.Errorf("a broken connection is a failure, not %v", v)
	}
}

func TestForecastTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := firebreaktest.NewRegistry(t, firebreak.Config{})
		w := NewWeather(reg, hangs)
		began := time.Now()
		got, err := w.Forecast(t.Context(), "Oslo")
		if got != "look out of the window" || err != nil || time.Since(began) != 300*time.Millisecond {
			t.Errorf("got %q, %v after %v", got, err, time.Since(began))
		}
	})
}

func TestForecastRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := firebreaktest.NewRegistry(t, firebreak.Config{})
		w := NewWeather(reg, sunny)
		firebreaktest.Trip(t, reg, "weather.forecast")
		if got, _ := w.Forecast(t.Context(), "Oslo"); got != "look out of the window" {
			t.Errorf("while it is open: %q", got)
		}
		time.Sleep(5 * time.Second) // SleepWindow, in no time
		if got, _ := w.Forecast(t.Context(), "Oslo"); got != "sunny" {
			t.Errorf("the probe: %q", got)
		}
		if s := reg.Command("weather.forecast", firebreak.Config{}).Snapshot(); s.State != firebreak.StateClosed {
			t.Errorf("then: %v", s.State)
		}
	})
}

func TestForecastCounts(t *testing.T) {
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	w := NewWeather(reg, sunny)
	for _, city := range []string{"Oslo", "Rome", "Atlantis"} {
		_, _ = w.Forecast(t.Context(), city)
	}
	n := reg.Command("weather.forecast", firebreak.Config{}).Snapshot().Total
	if n.Success != 2 || n.Expected != 1 || n.Calls() != 3 {
		t.Errorf("%+v", n)
	}
}

func TestForecastTellsItsStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := firebreaktest.NewRegistry(t, firebreak.Config{})
		w := NewWeather(reg, sunny)
		rec := firebreaktest.Record(t, reg)

		firebreaktest.Trip(t, reg, "weather.forecast")
		_, _ = w.Forecast(t.Context(), "Oslo")
		time.Sleep(5 * time.Second)
		_, _ = w.Forecast(t.Context(), "Oslo")

		rec.Want(t, "weather.forecast",
			"open", "short_circuited", "fallback_success",
			"half_open", "success", "closed")
	})
}

func TestForecastIsRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := firebreaktest.NewRegistry(t, firebreak.Config{})
		w := NewWeather(reg, hangs)
		rec := firebreaktest.Record(t, reg)

		var calls sync.WaitGroup
		for range 2 { // MaxConcurrent
			calls.Go(func() { _, _ = w.Forecast(t.Context(), "Oslo") })
		}
		synctest.Wait() // both hang
		if got, err := w.Forecast(t.Context(), "Rome"); got != "look out of the window" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		rec.Want(t, "weather.forecast", "rejected", "fallback_success")
		calls.Wait()
	})
}

func TestRatesAreRefused(t *testing.T) {
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	client := &http.Client{Transport: &firebreakhttp.Transport{Command: reg.Command("rates", firebreak.Config{})}}
	firebreaktest.Force(t, reg, "rates", firebreak.ErrOpen)
	if _, err := client.Get("http://rates.example"); !errors.Is(err, firebreak.ErrOpen) {
		t.Errorf("got %v", err)
	}
}

func TestRatesAreDown(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too busy", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	reg := firebreaktest.NewRegistry(t, firebreak.Config{})
	cmd := reg.Command("rates", firebreak.Config{})
	client := &http.Client{Transport: &firebreakhttp.Transport{Command: cmd, Base: server.Client().Transport}}
	resp, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err) // a response is a response
	}
	defer resp.Body.Close()
	if n := cmd.Snapshot().Total.Failure; n != 1 {
		t.Errorf("%d failures were counted", n)
	}
}

type silentServer struct{}

func (silentServer) RoundTrip(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

func TestRatesAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := firebreaktest.NewRegistry(t, firebreak.Config{Timeout: 300 * time.Millisecond})
		client := &http.Client{Transport: &firebreakhttp.Transport{Command: reg.Command("rates", firebreak.Config{}), Base: silentServer{}}}
		began := time.Now()
		_, err := client.Get("http://rates.example")
		if !errors.Is(err, firebreak.ErrTimeout) || time.Since(began) != 300*time.Millisecond {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}

func TestForecastOfManyCities(t *testing.T) {
	for city, want := range map[string]string{"Oslo": "sunny", "Rome": "sunny"} {
		t.Run(city, func(t *testing.T) {
			t.Parallel()
			reg := firebreaktest.NewRegistry(t, firebreak.Config{}) // not the outer test's
			if got, err := NewWeather(reg, sunny).Forecast(t.Context(), city); got != want || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// Blocks of Go in the page, modulo indentation; every test above is in one.
func TestDocsCodeRuns(t *testing.T) {
	page, err := os.ReadFile("../docs/testing.md")
	require.NoError(t, err)
	source, err := os.ReadFile("docs_test.go")
	require.NoError(t, err)

	blocks := goBlocks(t, string(page))
	require.NotEmpty(t, blocks)
	code := "\n" + flush(string(source)) + "\n"
	for _, block := range blocks {
		require.Contains(t, code, "\n"+flush(block)+"\n", "this block of docs/testing.md is not in docs_test.go")
	}

	shown := flush(strings.Join(blocks, "\n"))
	own, _, found := strings.Cut(string(source), "// Blocks of Go in the page")
	require.True(t, found)
	for line := range strings.Lines(own) {
		if strings.HasPrefix(line, "func Test") {
			require.Contains(t, shown, strings.TrimSpace(line), "not shown in docs/testing.md")
		}
	}
}

// The report that the page shows is the one there is.
func TestDocsReport(t *testing.T) {
	page, err := os.ReadFile("../docs/testing.md")
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		reg := firebreaktest.NewRegistry(t, firebreak.Config{})
		w := NewWeather(reg, sunny)
		rec := firebreaktest.Record(t, reg)
		firebreaktest.Trip(t, reg, "weather.forecast")
		_, _ = w.Forecast(t.Context(), "Oslo")
		time.Sleep(5 * time.Second)
		_, _ = w.Forecast(t.Context(), "Oslo")
		r := runTest(t, "TestFake", func(t testing.TB) {
			rec.Want(t, "weather.forecast", "open", "short_circuited", "fallback_failure", "half_open", "success", "closed")
		})
		require.Contains(t, string(page), "\n"+r.text+"\n")
	})
}

// goBlocks returns the code in a page's ```go blocks. Any other way to begin one would
// get past this check.
func goBlocks(t *testing.T, page string) (blocks []string) {
	t.Helper()
	inside, lang := false, ""
	var block strings.Builder
	for line := range strings.Lines(page) {
		text := strings.TrimSpace(line)
		switch fence := strings.HasPrefix(text, "```") || strings.HasPrefix(text, "~~~"); {
		case fence && !inside:
			require.Contains(t, []string{"```go", "```text"}, text)
			inside, lang = true, text
			block.Reset()
		case fence:
			if lang == "```go" {
				blocks = append(blocks, block.String())
			}
			inside = false
		case inside:
			block.WriteString(line)
		}
	}
	require.False(t, inside, "a block has no end")
	return blocks
}

// flush is code without its indentation and without blank lines at either end.
func flush(code string) string {
	var b strings.Builder
	for line := range strings.Lines(code) {
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return strings.Trim(b.String(), "\n")
}
