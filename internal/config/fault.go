package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// place is a position in a file, both from 1. Zero: unknown.
type place struct {
	line, column int
	env          bool // the value there came from the environment
}

// Fault is one thing wrong with a configuration.
type Fault struct {
	File    string // "" where the configuration was built in code
	Line    int    // from 1, 0 unknown
	Column  int    // from 1, 0 unknown
	Path    string // pipelines.rows.tables[0], "" for the file as a whole
	Message string // what is wrong and what to write instead
}

func (f Fault) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
			if f.Column > 0 {
				fmt.Fprintf(&b, ":%d", f.Column)
			}
		}
		b.WriteString(": ")
	}
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Message)
	return b.String()
}

// Error is every fault of a configuration, in the order of the file.
type Error struct{ Faults []Fault }

func (e *Error) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// maxFaults bounds a report: nobody mends more at a time, and a file of garbage
// must not become a longer file of messages.
const maxFaults = 100

// faults collects; the zero value is ready.
type faults struct {
	file string
	list []Fault
}

func (f *faults) add(at place, path, format string, args ...any) {
	if len(f.list) < maxFaults {
		f.list = append(f.list, Fault{File: f.file, Line: at.line, Column: at.column, Path: path, Message: fmt.Sprintf(format, args...)})
	}
}

// within says that path is parent or lies inside it.
func within(path, parent string) bool {
	rest, ok := strings.CutPrefix(path, parent)
	return ok && parent != "" && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// err is nil where nothing was added.
func (f *faults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	slices.SortStableFunc(f.list, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Error{Faults: f.list}
}
