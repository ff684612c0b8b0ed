package eventstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/cdc"
	"cdc/internal/intent"
)

// SQLSTATEs of schema es.
const (
	codeNotFound    = "ES404"
	codeConflict    = "ES409"
	codeClosed      = "ES410"
	codeInvalid     = "ES422"
	codeTooEarly    = "ES425"
	codeWaitTimeout = "ES504"
)

// SQLSTATEs of Postgres that decide what an error means.
const (
	codeUndefinedSchema       = "3F000"
	codeUndefinedFunction     = "42883"
	codeUndefinedTable        = "42P01"
	codeInsufficientPrivilege = "42501"
)

// What a caller decides on.
var (
	// ErrTimeout: the view has not seen the event in time.
	ErrTimeout = errors.New("the view has not seen the event in time")
	// ErrNotFound: there is no such event, stream or view.
	ErrNotFound = errors.New("not found")
	// ErrTooEarly: the event is of a transaction that is still open.
	ErrTooEarly = errors.New("the event is not committed yet")
)

// typed turns an error of schema es into one of package intent, or one of the
// sentinels above. What was asked is in the error already.
func typed(err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return err
	}
	switch {
	case pe.Code == codeConflict:
		e := &intent.ConflictError{Text: pe.Message, Expected: intent.Any}
		var d struct {
			Stream   string `json:"stream"`
			Expected *int64 `json:"expected"`
			Actual   int64  `json:"actual"`
		}
		if json.Unmarshal([]byte(pe.Detail), &d) == nil {
			e.Stream, e.Actual = d.Stream, d.Actual
			if d.Expected != nil {
				e.Expected = intent.Expect(*d.Expected)
			}
		}
		return e
	case pe.Code == codeClosed:
		var d struct{ Stream string }
		_ = json.Unmarshal([]byte(pe.Detail), &d) // without it the stream is unnamed, the error stands
		return &intent.ClosedError{Stream: d.Stream}
	case pe.Code == codeInvalid:
		var d struct{ Path string }
		_ = json.Unmarshal([]byte(pe.Detail), &d) // without it no field is named, the error stands
		return &intent.InvalidError{Path: d.Path, Text: pe.Message}
	case strings.HasPrefix(pe.Code, "22"), strings.HasPrefix(pe.Code, "54"):
		return &intent.InvalidError{Text: pe.Message}
	case pe.Code == codeNotFound:
		return fmt.Errorf("%s: %w", pe.Message, ErrNotFound)
	case pe.Code == codeTooEarly:
		return fmt.Errorf("%s: %w", pe.Message, ErrTooEarly)
	case pe.Code == codeWaitTimeout:
		return ErrTimeout
	case pe.Code == codeUndefinedSchema, pe.Code == codeUndefinedFunction, pe.Code == codeUndefinedTable:
		return cdc.Terminal("store-missing", "cdc es init", "the event store is missing or incomplete: %w", err)
	}
	return err
}
