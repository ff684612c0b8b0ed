package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// target is one fuzz function.
type target struct{ pkg, name string }

// fuzz runs every fuzz target of the packages, one after the other.
func fuzz(ctx context.Context, duration string, packages []string, out io.Writer) (counts, error) {
	args := append([]string{"test", "-list", "^Fuzz"}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stderr = os.Stderr
	list, err := cmd.Output()
	if err != nil {
		return counts{}, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, list)
	}
	var c counts
	for _, t := range targets(string(list)) {
		cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", duration, t.pkg)
		var output bytes.Buffer
		cmd.Stdout, cmd.Stderr = &output, &output
		if err := cmd.Run(); err != nil {
			c.failed++
			_, _ = fmt.Fprintf(out, "%sFAIL  %s %s: %v\n", output.String(), t.pkg, t.name, err)
			continue
		}
		c.passed++
		_, _ = fmt.Fprintf(out, "ok    %s %s  %s\n", t.pkg, t.name, duration)
	}
	return c, ctx.Err()
}

// targets reads what `go test -list` prints: the names of a package, then its
// line "ok  <tab>package<tab>time".
func targets(list string) []target {
	var all []target
	var names []string
	for line := range strings.Lines(list) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "Fuzz") {
			names = append(names, line)
			continue
		}
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "ok" {
			for _, name := range names {
				all = append(all, target{f[1], name})
			}
		}
		names = names[:0]
	}
	return all
}
