package chaos_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/chaos"
)

// Each text is String's of the fault that code makes the same way.
var texts = []struct {
	text  string
	fault chaos.Fault
}{
	{"latency 300ms", chaos.Latency(chaos.Constant(300 * ms))},
	{"latency 0s", chaos.Latency(chaos.Constant(0))},
	{"latency 168h", chaos.Latency(chaos.Constant(chaos.Longest))},
	{"latency 1h30m", chaos.Latency(chaos.Constant(90 * time.Minute))},
	{"latency 1m30s", chaos.Latency(chaos.Constant(90 * time.Second))},
	{"latency 10m", chaos.Latency(chaos.Constant(10 * time.Minute))},
	{"latency 1h0m5s", chaos.Latency(chaos.Constant(time.Hour + 5*time.Second))},
	{"latency 1.5µs", chaos.Latency(chaos.Constant(1500))},
	{"latency uniform 100ms to 500ms", chaos.Latency(chaos.Uniform(100*ms, 500*ms))},
	{"latency normal 100ms sd 20ms", chaos.Latency(chaos.Normal(100*ms, 20*ms))},
	{"latency lognormal 50ms p99 400ms", chaos.Latency(chaos.LogNormal(50*ms, 400*ms))},
	{"latency exponential 100ms", chaos.Latency(chaos.Exponential(100 * ms))},
	{"latency pareto 20ms p99 2s", chaos.Latency(chaos.Pareto(20*ms, 2*time.Second))},
	{`error "boom"`, chaos.Error(errBoom)},
	{`error ""`, chaos.Error(errors.New(""))},
	{`error "; ) \" \x00 \n é"`, chaos.Error(errors.New("; ) \" \x00 \n é"))},
	{"open", chaos.Open()},
	{"reject", chaos.Reject()},
	{"timeout", chaos.Timeout()},
	{"hang", chaos.Hang()},
	{"20% hang", chaos.Chance(20, chaos.Hang())},
	{"0.5% hang", chaos.Chance(0.5, chaos.Hang())},
	{"1e-05% hang", chaos.Chance(0.00001, chaos.Hang())},
	{"0% to 12.5% over 10m open", chaos.Ramp(0, 12.5, 10*time.Minute, chaos.Open())},
	{"10s on 50s off reject", chaos.Flap(10*time.Second, 50*time.Second, chaos.Reject())},
	{"after 5m timeout", chaos.After(5*time.Minute, chaos.Timeout())},
	{"growing over 10m latency 300ms", chaos.Grow(10*time.Minute, chaos.Latency(chaos.Constant(300*ms)))},
	{`20% latency lognormal 50ms p99 400ms; 5% timeout; 1% hang`, chaos.Sequence(
		chaos.Chance(20, chaos.Latency(chaos.LogNormal(50*ms, 400*ms))), chaos.Chance(5, chaos.Timeout()), chaos.Chance(1, chaos.Hang()))},
	{`after 5m 10s on 50s off 20% (latency 300ms; error "late"); open`, chaos.Sequence(
		chaos.After(5*time.Minute, chaos.Flap(10*time.Second, 50*time.Second, chaos.Chance(20,
			chaos.Sequence(chaos.Latency(chaos.Constant(300*ms)), chaos.Error(errors.New("late")))))), chaos.Open())},
}

func TestTextAndCodeSayTheSame(t *testing.T) {
	for _, row := range texts {
		assert.Equal(t, row.text, row.fault.String())
		parsed, err := chaos.Parse(row.text)
		if assert.NoError(t, err) {
			assert.Equal(t, row.text, parsed.String())
		}
	}
}

func TestWhatParseReadsDoesWhatItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cmd := newCommand(t, firebreak.Config{Timeout: time.Second})
		for text, want := range map[string]struct {
			after  time.Duration
			counts firebreak.Counts
		}{
			"latency 300ms":                       {300 * ms, firebreak.Counts{Success: 1}},
			"latency uniform 70ms to 70ms":        {70 * ms, firebreak.Counts{Success: 1}},
			"latency normal 80ms sd 0s":           {80 * ms, firebreak.Counts{Success: 1}},
			"latency lognormal 5ms p99 5ms":       {5 * ms, firebreak.Counts{Success: 1}},
			"latency exponential 0s":              {0, firebreak.Counts{Success: 1}},
			"latency pareto 90ms p99 90ms":        {90 * ms, firebreak.Counts{Success: 1}},
			`error "x"`:                           {0, firebreak.Counts{Failure: 1, FallbackMissing: 1}},
			"open":                                {0, firebreak.Counts{ShortCircuited: 1, FallbackMissing: 1}},
			"reject":                              {0, firebreak.Counts{Rejected: 1, FallbackMissing: 1}},
			"timeout":                             {0, firebreak.Counts{Timeout: 1, FallbackMissing: 1}},
			"hang":                                {time.Second, firebreak.Counts{Timeout: 1, FallbackMissing: 1}},
			"0% hang":                             {0, firebreak.Counts{Success: 1}},
			"100% open":                           {0, firebreak.Counts{ShortCircuited: 1, FallbackMissing: 1}},
			"0% to 100% over 1m open":             {0, firebreak.Counts{Success: 1}},
			"100% to 0% over 1m open":             {0, firebreak.Counts{ShortCircuited: 1, FallbackMissing: 1}},
			"1s on 1h off open":                   {0, firebreak.Counts{ShortCircuited: 1, FallbackMissing: 1}},
			"after 1s open":                       {0, firebreak.Counts{Success: 1}},
			"growing over 1m latency 300ms":       {0, firebreak.Counts{Success: 1}},
			"0% (open; reject); timeout":          {0, firebreak.Counts{Timeout: 1, FallbackMissing: 1}},
			"0% open; reject":                     {0, firebreak.Counts{Rejected: 1, FallbackMissing: 1}},
			"latency 20ms; latency 30ms; reject":  {50 * ms, firebreak.Counts{Rejected: 1, FallbackMissing: 1}},
			"after 1s (open; open); latency 10ms": {10 * ms, firebreak.Counts{Success: 1}},
		} {
			f, err := chaos.Parse(text)
			require.NoError(t, err)
			cmd = newCommand(t, firebreak.Config{Timeout: time.Second})
			start(t, drill(f), cmd)
			assert.Equal(t, want.after, took(func() { cmd.Run(t.Context(), succeed) }), text)
			assert.Equal(t, want.counts, cmd.Snapshot().Total, text)
		}
	})
}

func TestParsedErrorsHaveTheirText(t *testing.T) {
	f, err := chaos.Parse(`error "connection \"refused\""`)
	require.NoError(t, err)
	cmd := newCommand(t, firebreak.Config{})
	start(t, drill(f), cmd)
	require.EqualError(t, cmd.Run(t.Context(), succeed), `connection "refused"`)
}

func TestParseTakesWhatPeopleType(t *testing.T) {
	for text, want := range map[string]string{
		"  20%\tlatency\n300ms ":               "20% latency 300ms",
		"((hang))":                             "hang",
		"( open;reject ) ;timeout":             "open; reject; timeout",
		"20%(open;reject)":                     "20% (open; reject)",
		`error"x"`:                             `error "x"`,
		"latency 1000ms":                       "latency 1s",
		"latency 1.5h":                         "latency 1h30m",
		"latency 2us":                          "latency 2µs",
		"latency 0":                            "latency 0s",
		"020.50% hang":                         "20.5% hang",
		"5e1% hang":                            "50% hang",
		`error "` + "\xff" + `"`:               `error "` + "\ufffd" + `"`,
		"10s on 50s off 5s on 5s off 1% open":  "10s on 50s off 5s on 5s off 1% open",
		"1% to 2% over 3s 4% hang":             "1% to 2% over 3s 4% hang",
		"growing over 1m (latency 1s; (open))": "growing over 1m (latency 1s; open)",
		strings.Repeat("(", 2000) + "hang" + strings.Repeat(")", 2000): "hang",
	} {
		f, err := chaos.Parse(text)
		if assert.NoError(t, err, text) {
			assert.Equal(t, want, f.String())
		}
	}
}

func TestParseTellsWhatIsWrongAndWhere(t *testing.T) {
	const steps = "expected latency, error, open, reject, timeout, hang, a percentage, a duration on and off, after, growing or ("
	const dist = "expected a duration like 250ms, uniform, normal, lognormal, exponential or pareto"
	for text, want := range map[string]string{
		"":                                   "at the end: " + steps,
		" \n":                                "at the end: " + steps,
		"latncy 5ms":                         `byte 1, at "latncy": ` + steps,
		"20% latncy 5ms":                     `byte 5, at "latncy": ` + steps,
		"20% Hang":                           `byte 5, at "Hang": ` + steps,
		"20%":                                "at the end: " + steps,
		"hang;":                              "at the end: " + steps,
		"hang;;hang":                         `byte 6, at ";": ` + steps,
		"; hang":                             `byte 1, at ";": ` + steps,
		"()":                                 `byte 2, at ")": ` + steps,
		"(hang":                              "at the end: expected )",
		"(hang open)":                        `byte 7, at "open": expected )`,
		"hang)":                              `byte 5, at ")": expected ; or the end`,
		"hang open":                          `byte 6, at "open": expected ; or the end`,
		"20 % hang":                          `byte 1, at "20": expected a percentage like 20%, or a duration like 10s`,
		"% hang":                             `byte 1, at "%": expected a percentage like 20%`,
		"-1% hang":                           `byte 1, at "-1%": expected a percentage like 20%`,
		"+1% hang":                           `byte 1, at "+1%": expected a percentage like 20%`,
		".5% hang":                           `byte 1, at ".5%": expected a percentage like 20%`,
		"NaN% hang":                          `byte 1, at "NaN%": expected a percentage like 20%`,
		"Inf% hang":                          `byte 1, at "Inf%": expected a percentage like 20%`,
		"0x1p-2% hang":                       `byte 1, at "0x1p-2%": expected a percentage like 20%`,
		"1_0% hang":                          `byte 1, at "1_0%": expected a percentage like 20%`,
		"1e999% hang":                        `byte 1, at "1e999%": expected a percentage like 20%`,
		"1e--% hang":                         `byte 1, at "1e--%": expected a percentage like 20%`,
		"100.1% hang":                        `byte 1, at "100.1%": 100.1 is not a percentage from 0 to 100`,
		"0% to 200% over 5m hang":            `byte 7, at "200%": 200 is not a percentage from 0 to 100`,
		"0% to 20 over 5m hang":              `byte 7, at "20": expected a percentage like 20%`,
		"0% to 20% in 5m hang":               `byte 11, at "in": expected over`,
		"0% to 20% over 0s hang":             `byte 16, at "0s": duration: 0s is not from 1ns to 168h`,
		"0% to 20% over":                     "at the end: expected a duration like 250ms",
		"10s on 50s":                         "at the end: expected off",
		"10s off 50s on hang":                `byte 5, at "off": expected on`,
		"10s on off hang":                    `byte 8, at "off": expected a duration like 250ms`,
		"0s on 5s off hang":                  `byte 1, at "0s": duration: 0s is not from 1ns to 168h`,
		"5s on 0s off hang":                  `byte 7, at "0s": duration: 0s is not from 1ns to 168h`,
		"after hang":                         `byte 7, at "hang": expected a duration like 250ms`,
		"after 169h hang":                    `byte 7, at "169h": duration: 169h is not from 1ns to 168h`,
		"after 0s hang":                      `byte 7, at "0s": duration: 0s is not from 1ns to 168h`,
		"growing 5m hang":                    `byte 9, at "5m": expected over`,
		"growing over soon hang":             `byte 14, at "soon": expected a duration like 250ms`,
		"latency":                            "at the end: " + dist,
		"latency zipf 5ms":                   `byte 9, at "zipf": ` + dist,
		"latency -5ms":                       `byte 9, at "-5ms": ` + dist,
		"latency .5s":                        `byte 9, at ".5s": ` + dist,
		"latency 300":                        `byte 9, at "300": expected a duration like 250ms`,
		"latency 9999999999999h":             `byte 9, at "9999999999999h": expected a duration like 250ms`,
		"latency 200h":                       `byte 9, at "200h": duration: 200h is not from 0s to 168h`,
		"latency uniform 5ms 9ms":            `byte 21, at "9ms": expected to`,
		"latency uniform 9ms to 5ms":         `byte 17, at "9ms": uniform: least 9ms: most 5ms is not from there to 168h`,
		"latency lognormal 0s p99 5ms; open": `byte 19, at "0s": lognormal: median: 0s is not from 1ns to 168h`,
		"latency normal 5ms sd":              "at the end: expected a duration like 250ms",
		"latency exponential":                "at the end: expected a duration like 250ms",
		"latency pareto 5ms p95 9ms":         `byte 20, at "p95": expected p99`,
		"error boom":                         `byte 7, at "boom": expected the error's text in "quotes"`,
		"error":                              `at the end: expected the error's text in "quotes"`,
		"error 'x'":                          `byte 7, at "'x'": expected the error's text in "quotes"`,
		"error `x`":                          "byte 7, at \"`x`\": expected the error's text in \"quotes\"",
		`error "x; open`:                     `byte 7, at "\"x; open": expected the error's text in "quotes"`,
		`error "\q"`:                         `byte 7, at "\"\\q\"": expected the error's text in "quotes"`,
		`"hang"`:                             `byte 1, at "\"hang\"": ` + steps,
		`only "me" hang`:                     `byte 1, at "only": whose calls they are only code can tell: wrap the fault in Only there`,
		"\x00\xff":                           `byte 1, at "\x00\xff": ` + steps,
		strings.Repeat("x", 50):              `byte 1, at "` + strings.Repeat("x", 40) + `"…: ` + steps,
	} {
		f, err := chaos.Parse(text)
		assert.EqualError(t, err, "chaos: "+want, text)
		assert.Zero(t, f)
	}
}

// Deep enough a text would overflow the stack, which nothing recovers from.
func TestParseRefusesTextsWithoutBound(t *testing.T) {
	longest := "hang" + strings.Repeat(" ", 4092)
	_, err := chaos.Parse(longest)
	require.NoError(t, err)
	_, err = chaos.Parse(longest + " ")
	require.EqualError(t, err, "chaos: a fault of 4097 bytes; more than 4096 are refused")
	_, err = chaos.Parse(strings.Repeat("(", 1<<24))
	require.Error(t, err)
	// A text may grow as it is put in order; then it would not be read again.
	_, err = chaos.Parse(`error "` + strings.Repeat("\u200b", 1000) + `"`)
	require.EqualError(t, err, "chaos: at the end: with all that it implies it has 6008 bytes; more than 4096 are refused")
}

func TestFaultAsText(t *testing.T) {
	f, err := chaos.Parse("20% hang")
	require.NoError(t, err)
	text, err := json.Marshal(map[string]chaos.Fault{"fault": f, "none": {}})
	require.NoError(t, err)
	require.JSONEq(t, `{"fault": "20% hang", "none": ""}`, string(text))

	var read struct{ Fault chaos.Fault }
	require.NoError(t, json.Unmarshal([]byte(`{"fault": "20% hang"}`), &read))
	require.Equal(t, "20% hang", read.Fault.String())
	require.ErrorContains(t, json.Unmarshal([]byte(`{"fault": "20% hung"}`), &read), `byte 5, at "hung"`)
	require.Equal(t, "20% hang", read.Fault.String(), "as it was")

	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(&strings.Builder{})
	flags.TextVar(&f, "drill", chaos.Fault{}, "")
	require.NoError(t, flags.Parse([]string{"-drill", "5% open"}))
	require.Equal(t, "5% open", f.String())
	require.Error(t, flags.Parse([]string{"-drill", "5%"}))
}

// What Parse takes it takes again from String; it makes a drill that a call survives;
// and what it refuses it has a reason for.
func FuzzParse(f *testing.F) {
	for _, row := range texts {
		f.Add(row.text)
	}
	for _, text := range []string{
		"", ";", "((((", "))))", `error "`, `error "\`, "1e308%", "0x1p-2% hang", "-0% hang", "%%", "9223372036854775807ns on",
		"latency 1h1m1s1ms1µs1ns", "latency uniform 0s to 168h", "\xff\x00", "growing over growing over", "only \"x\" hang", "1% to 2% over",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fault, err := chaos.Parse(text)
		if err != nil {
			require.True(t, strings.HasPrefix(err.Error(), "chaos: "), err)
			require.Zero(t, fault)
			return
		}
		again, err := chaos.Parse(fault.String())
		require.NoError(t, err)
		require.Equal(t, fault.String(), again.String())

		cmd := firebreak.NewRegistry(firebreak.Config{}).Command("dep", firebreak.Config{Timeout: 10 * time.Microsecond})
		stop, err := drill(fault).Start(cmd)
		require.NoError(t, err)
		cmd.Run(context.Background(), succeed)
		require.EqualValues(t, 1, cmd.Snapshot().Total.Calls())
		stop()
	})
}
