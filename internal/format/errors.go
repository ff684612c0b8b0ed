package format

import (
	"errors"
	"fmt"
)

// ValueError says that a value cannot be written in the chosen format. It never
// holds the value itself. Trying again fails the same way.
type ValueError struct {
	Table  string // schema.table
	Column string
	Type   string // Postgres' name of the type
	Err    error
}

func (e *ValueError) Error() string {
	return fmt.Sprintf("encode column %s.%s of type %s: %s", e.Table, e.Column, e.Type, e.Err)
}

func (e *ValueError) Unwrap() error { return e.Err }

// What can be wrong with a value.
var (
	ErrInvalidUTF8   = errors.New("the bytes are not valid UTF-8 (a SQL_ASCII database does not check them): correct the row or leave the column out of the publication")
	ErrMalformed     = errors.New("the text is not in the form that Postgres writes under the pinned session settings")
	ErrOutOfRange    = errors.New("the value is outside the range of the target type")
	ErrNotSayable    = errors.New("NaN and infinity have no decimal form: correct the row, leave the column out of the publication or use the format json")
	ErrNullKey       = errors.New("a key column is NULL: choose a key of NOT NULL columns")
	ErrUnknownKey    = errors.New("the stream did not send the value of a key column: the key must lie inside the replica identity")
	ErrTupleMismatch = errors.New("the row has another number of columns than its relation")
)
