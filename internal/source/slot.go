package source

import (
	"context"
	"errors"

	"cdc/internal/cdc"
)

// Slot reads the state of the slot; false where it does not exist.
func (s *Source) Slot(ctx context.Context) (cdc.Slot, bool, error) {
	return cdc.Slot{}, false, errors.ErrUnsupported
}

// CreateSlot makes the permanent slot and returns its consistent point.
func (s *Source) CreateSlot(ctx context.Context) (cdc.LSN, error) {
	return 0, errors.ErrUnsupported
}

// DropSlot drops the slot.
func (s *Source) DropSlot(ctx context.Context) error { return errors.ErrUnsupported }

// TimelineSwitch returns the LSN at which an older timeline ended.
func (s *Source) TimelineSwitch(ctx context.Context, timeline uint32) (cdc.LSN, error) {
	return 0, errors.ErrUnsupported
}

// Waiting says what the creation of a slot or a snapshot's lock is waiting for,
// "" when nothing is.
func (s *Source) Waiting() string { return "" }
