package cdc

import (
	"errors"
	"fmt"
)

// TerminalError ends a pipeline until somebody acts: trying again would fail the
// same way, or would lose data. Reason is a stable word for machines
// (slot-missing, gap, unkeyed-table, …), Err says what is wrong, Mend what to do:
// the command or SQL to run.
type TerminalError struct {
	Reason string
	Err    error
	Mend   string
}

func (e *TerminalError) Error() string {
	if e.Mend == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s\n%s", e.Err, e.Mend)
}

func (e *TerminalError) Unwrap() error { return e.Err }

// Terminal makes a TerminalError with a formatted message (%w works).
func Terminal(reason, mend, format string, args ...any) error {
	return &TerminalError{Reason: reason, Mend: mend, Err: fmt.Errorf(format, args...)}
}

// IsTerminal says that err must not be retried.
func IsTerminal(err error) bool {
	var t *TerminalError
	return errors.As(err, &t)
}
