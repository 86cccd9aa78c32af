// Generate writes the rules and the dashboard of ops/. Run it by go generate in
// firebreakprom; its argument is the folder.
package main

import (
	"fmt"
	"os"

	"github.com/firebreak-go/firebreak/firebreakprom/internal/ops"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate FOLDER")
		os.Exit(2)
	}
	if err := ops.Write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}
