package source

import (
	"context"
	"errors"

	"cdc/internal/cdc"
)

// Reread is a row read back by its key.
type Reread struct {
	// Visible says that the change's transaction is visible in the statement's
	// snapshot. Where it is not, nothing else means anything: ask again.
	Visible bool
	Found   bool // a row with this key exists
	// SameVersion says that the row is the very version the change's
	// transaction wrote: its xmin is the transaction's id.
	SameVersion bool
	// XMin is the id of the transaction or subtransaction that wrote the row.
	XMin   uint32
	Values []cdc.Value // the asked columns, nil where nothing was found
}

// Reread reads columns of a row back by its key.
func (s *Source) Reread(ctx context.Context, rel *cdc.Relation, key []cdc.Value, cols []int, xid uint32) (Reread, error) {
	return Reread{}, errors.ErrUnsupported
}
