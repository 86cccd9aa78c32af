// Quickstart shows in half a minute what firebreak is for.
//
//	go run ./examples/quickstart                # with firebreak
//	go run ./examples/quickstart -unprotected   # the same load without it
//	go run ./examples/quickstart -http 127.0.0.1:8080 -duration 0   # on and on, with the dashboard
//
// A shop's front calls three backends: pricing, inventory and reviews. All are real
// HTTP servers on loopback, all in this process. While a load generator asks the
// front for a constant number of pages a second, inventory becomes slow, hangs,
// fails and recovers, on a script. The terminal shows what firebreak makes of it,
// and a summary at the end says, with figures, whether it kept what it promises:
// that a hanging inventory costs the prices nothing, and hardly any page its answer.
//
// The exit status is 0; or 1 if a run with firebreak broke a promise or something
// else went wrong; 2 if a flag makes no sense; and 130 after Ctrl-C, which ends the
// run early, with the summary so far. On a machine too busy to keep its own time
// nothing is judged: the status is 0, and the summary says why.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/firebreak-go/firebreak"
)

const (
	statusBroken      = 1
	statusUsage       = 2
	statusInterrupted = 130 // what a shell reports of a program that SIGINT ended
)

const usualDuration = 30 * time.Second

// Below this the phases of the script are shorter than what is promised of them.
const minDuration = 10 * time.Second

type options struct {
	duration    time.Duration
	forever     bool // the script begins again at its end, until Ctrl-C
	unprotected bool
	json        bool
	http        string // where the dashboard is; "" if it is not wanted
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for the summary
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command is main with its surroundings as arguments. It returns the exit status.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return statusUsage
	}

	progress := newScreen(stdout)
	if o.json { // then stdout is for the summary alone
		progress = newScreen(nil)
		if isTerminal(stderr) {
			progress = newScreen(stderr)
		}
	}
	result, err := demonstrate(ctx, o, progress)
	if err != nil {
		fmt.Fprintln(stderr, "quickstart:", err)
		return statusBroken
	}

	if o.json {
		err = json.NewEncoder(stdout).Encode(result)
	} else {
		_, err = io.WriteString(stdout, result.String())
	}
	if err != nil {
		fmt.Fprintln(stderr, "quickstart:", err)
		return statusBroken
	}
	return result.exitStatus()
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.DurationVar(&o.duration, "duration", usualDuration, "how long the script takes; 0: half a minute, again and again, until Ctrl-C")
	flags.StringVar(&o.http, "http", "", "an `address` for the dashboard, /metrics and /hystrix.stream, such as 127.0.0.1:8080")
	flags.BoolVar(&o.unprotected, "unprotected", false, "run the same load without firebreak")
	flags.BoolVar(&o.json, "json", false, "print the summary as one JSON object, and nothing else")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.duration == 0:
		o.duration, o.forever = usualDuration, true
	case o.duration < minDuration:
		err = fmt.Errorf("-duration %v is too short for the script: at least %v", o.duration, minDuration)
	}
	if err != nil {
		fmt.Fprintln(stderr, "quickstart:", err)
	}
	return o, err
}

// demonstrate starts everything, plays the script and stops everything again. Its
// error is about the demonstration itself; what it showed is in the summary.
func demonstrate(ctx context.Context, o options, progress *screen) (result *summary, err error) {
	var running cleanup
	defer func() { err = errors.Join(err, running.stop()) }()

	var stage stage
	stage.play(newScript(time.Now(), o.duration))
	shop, err := startBackends(&stage)
	running.add(shop.stop)
	if err != nil {
		return nil, err
	}

	reg := firebreak.NewRegistry(firebreak.Config{
		// Small ones, so that half a minute shows it all. In a service, start with the
		// defaults: 10s of statistics, 5s of sleep.
		Window:      window,
		SleepWindow: sleepWindow,
		Classify:    firebreak.ExpectErrors(errNotFound),
	})
	running.add(reg.Shutdown) // an error if a permit never came back
	var history transitions
	reg.Observe(firebreak.Observer{Transition: history.add})

	site := newFront(shop)
	running.add(site.stop)
	if o.unprotected {
		site.degradeByHand()
	} else {
		site.protect(reg)
	}
	server, err := serve("127.0.0.1:0", site)
	if err != nil {
		return nil, err
	}
	running.add(server.stop)

	if o.http != "" {
		watch, err := serveWatch(o.http, reg)
		if err != nil {
			return nil, err
		}
		running.add(watch.stop)
		progress.say("dashboard: " + watch.server.url + "/  metrics: /metrics  stream: /hystrix.stream")
	}

	for {
		script := newScript(time.Now(), o.duration)
		stage.play(script)
		visitors := newLoad(server.url, script)
		progress.play(ctx, script, reg, visitors)
		err := visitors.stop(ctx)
		if !o.forever || ctx.Err() != nil || err != nil {
			return summarize(o, script, visitors.samples(), history.of("inventory"), ctx.Err() != nil), err
		}
		history.forget() // a day has thousands
	}
}

// A cleanup stops what was started, last things first, as deferred calls would; and
// keeps their errors.
type cleanup []func(context.Context) error

func (c *cleanup) add(stop func(context.Context) error) { *c = append(*c, stop) }

func (c *cleanup) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	for i := len(*c) - 1; i >= 0; i-- {
		errs = append(errs, (*c)[i](ctx))
	}
	return errors.Join(errs...)
}
