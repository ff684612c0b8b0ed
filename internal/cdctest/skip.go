package cdctest

import (
	"fmt"
	"os"
	"testing"
)

// SkipVariable names the environment variable with a file that Skip appends to,
// one line a test, for the summary at the end of a run.
const SkipVariable = "CDC_SKIP_LOG"

// Skip ends the test as skipped and says why. A missing program is no reason:
// the kit fetches it or fails.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if path := os.Getenv(SkipVariable); path != "" {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatalf("note a skipped test: %v", err)
		}
		// One write of a line: binaries append at the same time.
		if _, err := fmt.Fprintf(f, "%s: %s\n", t.Name(), reason); err != nil {
			t.Errorf("note a skipped test: %v", err)
		}
		if err := f.Close(); err != nil {
			t.Errorf("note a skipped test: %v", err)
		}
	}
	t.Skip(reason)
}
