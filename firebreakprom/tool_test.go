package firebreakprom_test

import (
	"os"
	"os/exec"
	"testing"
)

// tool finds a program of Prometheus'. Where it is missing the test is skipped; not
// in CI, which installs it.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") != "":
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed (Debian has it in the package prometheus)", name)
	return ""
}
