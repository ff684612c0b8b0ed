package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is a line of `go test -json`; see go doc test2json.
type event struct {
	Action     string
	Package    string
	Test       string
	Output     string
	Elapsed    float64
	ImportPath string // of build events
}

// report turns events into lines for people.
type report struct {
	out     io.Writer
	counts  counts
	output  map[string]*strings.Builder // of what has not ended, by package and test
	skipped []string
	failed  []string
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: make(map[string]*strings.Builder)}
}

// line takes one line of go's output; what is no event is passed on.
func (r *report) line(text []byte) {
	var e event
	if err := json.Unmarshal(text, &e); err != nil || e.Action == "" {
		r.print(string(text))
		return
	}
	name := e.Package + e.ImportPath
	if e.Test != "" {
		name += " " + e.Test
	}
	switch e.Action {
	case "output", "build-output":
		if r.output[name] == nil {
			r.output[name] = new(strings.Builder)
		}
		r.output[name].WriteString(e.Output)
	case "pass":
		r.end(name, e)
	case "fail":
		r.print(r.outputOf(name))
		r.end(name, e)
	case "skip":
		if e.Test != "" {
			r.skipped = append(r.skipped, name+": "+reason(r.outputOf(name)))
		}
		r.end(name, e)
	case "build-fail":
		r.print(r.outputOf(name))
		delete(r.output, name)
	}
}

// end counts a test, or prints the line of a package.
func (r *report) end(name string, e event) {
	delete(r.output, name)
	if e.Test != "" {
		switch e.Action {
		case "pass":
			r.counts.passed++
		case "skip":
			r.counts.skipped++
		case "fail":
			r.counts.failed++
			r.failed = append(r.failed, name)
		}
		return
	}
	switch e.Action {
	case "pass":
		r.print(fmt.Sprintf("ok    %s  %.1fs\n", e.Package, e.Elapsed))
	case "skip":
		r.print(fmt.Sprintf("-     %s  no tests\n", e.Package))
	case "fail":
		r.print(fmt.Sprintf("FAIL  %s  %.1fs\n", e.Package, e.Elapsed))
		// A package may fail without a test: it does not build, it panics, a
		// goroutine is left over.
		if !slices.ContainsFunc(r.failed, func(s string) bool { return strings.HasPrefix(s, e.Package+" ") }) {
			r.counts.failed++
			r.failed = append(r.failed, e.Package)
		}
	}
}

// finish prints the tests that failed and those that were skipped.
func (r *report) finish() counts {
	for _, name := range r.failed {
		r.print("failed: " + name + "\n")
	}
	for _, name := range r.skipped {
		r.print("skipped: " + name + "\n")
	}
	return r.counts
}

func (r *report) outputOf(name string) string {
	if b := r.output[name]; b != nil {
		return b.String()
	}
	return ""
}

func (r *report) print(text string) {
	if text != "" {
		_, _ = io.WriteString(r.out, text)
	}
}

// reason takes what t.Skip was given out of the output of a test:
//
//	=== RUN   TestX
//	    file_test.go:12: the reason
//	--- SKIP: TestX (0.00s)
func reason(output string) string {
	var lines []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return "no reason given"
	}
	return strings.Join(lines, " ")
}
