package source

import (
	"context"
	"errors"

	"cdc/internal/cdc"
)

// Snapshot is a copy of the captured tables as of one LSN.
type Snapshot struct{}

// Snapshot starts copying tables with so many workers.
func (s *Source) Snapshot(ctx context.Context, tables []cdc.Table, workers int) (*Snapshot, error) {
	return nil, errors.ErrUnsupported
}

// LSN is the consistent point: the snapshot holds exactly the transactions before it.
func (sn *Snapshot) LSN() cdc.LSN { return 0 }

// Next returns the next row, valid until the next call, and io.EOF behind the last.
func (sn *Snapshot) Next(ctx context.Context) (*cdc.Change, error) { return nil, errors.ErrUnsupported }

// Progress tells how far each table has come. It may be called concurrently.
func (sn *Snapshot) Progress() []cdc.TableProgress { return nil }

// Finish makes the permanent slot at the consistent point.
func (sn *Snapshot) Finish(ctx context.Context) error { return errors.ErrUnsupported }

// Close ends the snapshot; without Finish nothing is left behind.
func (sn *Snapshot) Close() error { return nil }
