// Edge is the API behind the screens of a video service, made of twelve backends, and
// what becomes of it when they are not well.
//
//	go run ./examples/edge                                  # serve, under load, with a chaos panel
//	go run ./examples/edge -scenario hang -duration 30s     # play an incident, print a report
//	go run ./examples/edge -scenario incident.json          # one of your own
//	go run ./examples/edge -compare                         # all, with and without protection: a page with plots
//
// The part to copy is commands.go: a command for each operation, and what answers in
// its place. request.go and devices.go use it: a scope for each request, and three
// devices that compose the same backends in their own ways. The rest makes a
// demonstration of it: the backends are real HTTP servers on loopback (backends.go)
// that can be made ill by hand (panel.go) or by a script (scenario.go), while a load
// generator asks for pages at a constant rate (load.go).
//
// The exit status is 0; or 1 if a run with firebreak broke a promise or something else
// went wrong; 2 if a flag makes no sense; and 130 after Ctrl-C, with the report so far.
// On a machine too busy to keep its own time nothing is judged: the status is 0, and
// the report says why.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"time"
)

const (
	statusBroken      = 1
	statusUsage       = 2
	statusInterrupted = 130 // what a shell reports of a program that SIGINT ended
)

const (
	usualDuration   = 30 * time.Second
	compareDuration = 12 * time.Second // of each run

	// Below this the parts of a scenario are shorter than what is promised of them.
	minDuration = 5 * time.Second
)

type options struct {
	addr, ops   string
	scenario    string
	unprotected bool
	compare     bool
	out         string
	duration    time.Duration
	quiet       bool // no load
	log         bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for anything
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
	status := 0
	switch {
	case o.compare:
		status, err = runCompare(ctx, o, stdout)
	case o.scenario != "":
		status, err = runScenario(ctx, o, stdout)
	default:
		err = runService(ctx, o, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintln(stderr, "edge:", err)
		return max(status, statusBroken)
	}
	return status
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("edge", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.scenario, "scenario", "", "play an incident and report: `name or file`; the names are hang, three, brownout, flapping and everything")
	flags.BoolVar(&o.unprotected, "unprotected", false, "play the scenario without circuits, bulkheads and timeouts")
	flags.BoolVar(&o.compare, "compare", false, "play every scenario with and without protection, and write a page with plots")
	flags.StringVar(&o.out, "out", filepath.Join(os.TempDir(), "edge-report.html"), "the `file` for -compare")
	flags.DurationVar(&o.duration, "duration", 0, fmt.Sprintf("how long a scenario takes, at least %v (default %v; %v each with -compare); of a service, 0 is until Ctrl-C", minDuration, usualDuration, compareDuration))
	flags.StringVar(&o.addr, "http", "127.0.0.1:8080", "the `address` of the service")
	flags.StringVar(&o.ops, "ops", "127.0.0.1:8081", "the `address` of the chaos panel, for operators alone")
	flags.BoolVar(&o.quiet, "quiet", false, "serve without the load generator")
	flags.BoolVar(&o.log, "log", false, "log each request of the service, with the calls it made")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	plays := o.compare || o.scenario != ""
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.compare && o.scenario != "":
		err = errors.New("-compare plays all scenarios; leave out -scenario")
	case o.unprotected && o.scenario == "":
		err = errors.New("-unprotected is for a -scenario")
	case o.duration < 0 || plays && o.duration != 0 && o.duration < minDuration:
		err = fmt.Errorf("-duration %v is too short: at least %v", o.duration, minDuration)
	}
	if err != nil {
		fmt.Fprintln(stderr, "edge:", err)
		return o, err
	}
	switch {
	case o.duration != 0:
	case o.compare:
		o.duration = compareDuration
	case o.scenario != "":
		o.duration = usualDuration
	}
	return o, nil
}

// runScenario plays one incident and prints its report.
func runScenario(ctx context.Context, o options, stdout io.Writer) (status int, err error) {
	s, err := findScenario(o.scenario)
	if err != nil {
		return statusUsage, err
	}
	fmt.Fprintf(stdout, "%s for %v …\n", s.Name, o.duration)
	r, err := play(ctx, s, o.duration, o.unprotected)
	if err != nil {
		return statusBroken, err
	}
	r.write(stdout)
	return r.exitStatus(), nil
}

// runService serves until Ctrl-C, or for a duration.
func runService(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	if o.duration != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	var log *slog.Logger
	if o.log {
		log = slog.New(slog.NewTextHandler(stderr, nil))
	}
	w, err := startWorld(worldOptions{addr: o.addr, log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	ops, err := serveOps(o.ops, w)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = errors.Join(err, ops.stop(ctx))
	}()

	fmt.Fprintf(stdout, "edge:  %s/tv/home, /phone/home, /web/home, /tv/play/{title}, /web/search?q=; X-User: u001\n", w.url)
	fmt.Fprintf(stdout, "panel: %s/  dashboard: /dashboard/  metrics: /metrics  stream: /hystrix.stream\n", ops.server.url)
	if o.quiet {
		<-ctx.Done()
		return nil
	}
	newLoad(w.url, false).run(ctx, time.Now(), time.Time{})
	return nil
}
