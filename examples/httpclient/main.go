// Httpclient is a small shop whose quotes need two HTTP APIs, and what becomes of
// them when the APIs are not well.
//
//	go run ./examples/httpclient
//
// The shop is in shop.go, and is the part to copy: two clients behind
// [firebreakhttp.Transport], each with its kind of fallback, and the server's side of
// the same. httpclient_test.go shows how to test such a service. The rest makes a
// story of it: the APIs are real servers on loopback that hang, fail and recover on a
// script (world.go), while quotes are asked for at a constant rate (story.go); at the
// end stand a table and what it proves (report.go).
//
// The exit status is 0; or 1 if a promise was broken or something else went wrong; 2
// if a flag makes no sense; and 130 after Ctrl-C. On a machine too busy to keep its
// own time nothing is judged: the status is 0, and the report says why.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
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

// Below this the phases are too short for circuits to open and close in.
const minDuration = 6 * time.Second

// The registry's defaults, small ones so that a few seconds show it all. In a service
// say nothing and get 10s of statistics and 5s of sleep.
var settings = firebreak.Config{
	Window:      time.Second,            // what the error percentage is of: half of it must fail
	SleepWindow: 500 * time.Millisecond, // how long an open circuit waits before it tries again
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for anything
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command is main with its surroundings as arguments. It returns the exit status.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("httpclient", flag.ContinueOnError)
	flags.SetOutput(stderr)
	duration := flags.Duration("duration", 8*time.Second, "how long the story takes, at least "+minDuration.String())
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return statusUsage
	case flags.NArg() > 0 || *duration < minDuration:
		fmt.Fprintf(stderr, "httpclient: the only argument is -duration, of at least %v\n", minDuration)
		return statusUsage
	}

	fmt.Fprintf(stdout, "%d quotes a second for %v …\n", rate, *duration)
	told, err := tell(ctx, *duration)
	if err == nil {
		_, err = io.WriteString(stdout, told.String())
	}
	if err != nil {
		fmt.Fprintln(stderr, "httpclient:", err)
		return statusBroken
	}
	return told.status
}

// tell starts everything, plays the story and stops everything again.
func tell(ctx context.Context, duration time.Duration) (told *report, err error) {
	var stops []func(context.Context) error
	defer func() { // last things first: who asks is gone before who answers
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		for i := len(stops) - 1; i >= 0; i-- {
			err = errors.Join(err, stops[i](ctx))
		}
	}()
	start := func(h http.Handler) (url string) {
		if err == nil {
			var stop func(context.Context) error
			if url, stop, err = serve(h); err == nil {
				stops = append(stops, stop)
			}
		}
		return url
	}

	prices, rates := newPricesAPI(), newRatesAPI()
	pricesURL, ratesURL := start(prices), start(rates)

	// One connection pool for both clients, as http.DefaultTransport would be; but that
	// one keeps two idle connections for a host, and would dial again at every burst.
	base := &http.Transport{MaxIdleConnsPerHost: maxConcurrent}
	stops = append(stops, func(context.Context) error { base.CloseIdleConnections(); return nil })

	reg := firebreak.NewRegistry(settings)
	stops = append(stops, reg.Shutdown) // an error if a permit never came back
	shopURL := start(newShop(reg, base, pricesURL, ratesURL))
	if err != nil {
		return nil, err
	}
	s := &story{start: time.Now(), duration: duration, prices: prices, rates: rates, reg: reg}
	s.play(ctx, shopURL)
	return newReport(s, ctx.Err() != nil), nil
}

// serve serves h on a port of the system's choosing, until stop.
func serve(h http.Handler) (url string, stop func(context.Context) error, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	return "http://" + listener.Addr().String(), func(ctx context.Context) error {
		err := server.Shutdown(ctx)
		if err != nil {
			err = errors.Join(err, server.Close())
		}
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
		return err
	}, nil
}
