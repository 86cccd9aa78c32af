// Repository shows how a service's repository is guarded: an interface of six
// methods, each bound to its command in one line, with fallbacks where an old or an
// empty answer will do and none where it will not.
//
//	go run ./examples/repository
//
// The box office of a theatre answers over TCP; in a story of a few seconds it hangs,
// crashes and comes back. At the end stands what was promised and what was measured.
// The part to copy is guarded.go, and its tests.
//
// The exit status is 0; or 1 if a promise was not kept or something else went wrong.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	status := run(ctx, os.Stdout)
	stop()
	os.Exit(status)
}

// run is main with its surroundings as arguments. It returns the exit status.
func run(ctx context.Context, w io.Writer) (status int) {
	r, err := tell(ctx, w)
	if err != nil {
		fmt.Fprintln(w, "repository:", err)
		return 1
	}
	fmt.Fprintln(w)
	return report(w, &r)
}

func report(w io.Writer, r *result) (status int) {
	for _, p := range r.promises() {
		word := "kept"
		if !p.kept {
			word, status = "BROKEN", 1
		}
		fmt.Fprintf(w, "%-12s %s: %s\n", word, p.text, p.measured)
	}
	return status
}
