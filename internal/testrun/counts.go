package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
)

// counts of tests, subtests among them.
type counts struct{ passed, failed, skipped int }

func (c counts) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.passed, c.failed, c.skipped)
}

func (c counts) plus(d counts) counts {
	return counts{c.passed + d.passed, c.failed + d.failed, c.skipped + d.skipped}
}

// appendTo adds a line to the file, for sum.
func (c counts) appendTo(path string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, c)
	return errors.Join(err, f.Close())
}

// sum adds the lines of the file up.
func sum(path string) (counts, error) {
	f, err := os.Open(path)
	if err != nil {
		return counts{}, err
	}
	defer func() { _ = f.Close() }()
	var all counts
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		var c counts
		if _, err := fmt.Sscanf(lines.Text(), "%d passed, %d failed, %d skipped", &c.passed, &c.failed, &c.skipped); err != nil {
			return counts{}, fmt.Errorf("read %s: %q: %w", path, lines.Text(), err)
		}
		all = all.plus(c)
	}
	return all, lines.Err()
}
