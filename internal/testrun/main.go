// Command testrun runs `go test` and says at the end how many tests passed,
// failed and were skipped, and why those were skipped. Packages appear as they
// end; the output of a test appears when it failed.
//
//	testrun [-totals file] [flags of go test] packages
//	testrun [-totals file] -fuzz 5s packages     each fuzz target for that long
//	testrun -sum file                            the sum of all runs in the file
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testrun:", err)
		code = 2
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string, out io.Writer) (code int, err error) {
	totals := ""
	if len(args) >= 2 && args[0] == "-totals" {
		totals, args = args[1], args[2:]
	}
	var c counts
	switch {
	case len(args) == 2 && args[0] == "-sum":
		if c, err = sum(args[1]); err != nil {
			return 0, err
		}
	case len(args) >= 3 && args[0] == "-fuzz":
		if _, err := time.ParseDuration(args[1]); err != nil {
			return 0, err
		}
		if c, err = fuzz(ctx, args[1], args[2:], out); err != nil {
			return 0, err
		}
	default:
		if c, err = test(ctx, args, out); err != nil {
			return 0, err
		}
	}
	if totals != "" {
		if err := c.appendTo(totals); err != nil {
			return 0, err
		}
	}
	_, _ = fmt.Fprintln(out, c)
	if c.failed > 0 {
		return 1, nil
	}
	return 0, nil
}

// test runs `go test -json` and reports its events.
func test(ctx context.Context, args []string, out io.Writer) (counts, error) {
	args = append([]string{"test", "-json"}, args...)
	_, _ = fmt.Fprintln(out, "go", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, "go", args...)
	// go passes an interrupt on to the test binaries; a kill would orphan them.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return counts{}, err
	}
	if err := cmd.Start(); err != nil {
		return counts{}, err
	}
	r := newReport(out)
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	c := r.finish()
	var exit *exec.ExitError
	switch {
	case err == nil:
	case !errors.As(err, &exit):
		return c, err
	case c.failed == 0:
		c.failed = 1 // go itself failed, for instance on a flag
	}
	return c, nil
}
