package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// At is a point in a stream's history: the zero value is its newest version. Of both
// bounds the earlier holds.
type At struct {
	Version int64 // 0: none
	// Time: up to the last version that was appended then or before; zero: none.
	// Versions before that one belong to it, also where a clock that went back gave
	// them a later time.
	Time time.Time
}

// State is what a stream's events make.
type State struct {
	Stream  string          `json:"stream"`
	Version int64           `json:"version"` // of the last event in it; 0 where the stream has none
	State   json.RawMessage `json:"state"`
}

// State folds a stream's events as its category's definition says. ErrNotFound where
// the category has none; a stream without events has version 0 and the initial
// state.
func (s *Store) State(ctx context.Context, stream string, at At) (State, error) {
	var version *int64
	if at.Version != 0 {
		version = &at.Version
	}
	var when *time.Time
	if !at.Time.IsZero() {
		when = &at.Time
	}
	st := State{Stream: stream}
	var value []byte
	err := s.pool.QueryRow(ctx, "select version, state::text from es.state($1, $2, $3)", stream, version, when).Scan(&st.Version, &value)
	if err != nil {
		return State{}, fmt.Errorf("state of %q: %w", stream, stateError(err))
	}
	st.State = value
	return st, nil
}

// codeInvalidParameter is es.state's refusal of a version.
const codeInvalidParameter = "22023"

// stateError is typed, but an expression that fails on its data is a fault of the
// definition and not of the question.
func stateError(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code != codeInvalidParameter && (strings.HasPrefix(pe.Code, "22") || strings.HasPrefix(pe.Code, "54")) {
		return err
	}
	return typed(err)
}
