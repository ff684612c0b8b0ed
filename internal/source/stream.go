package source

import (
	"context"
	"fmt"
	"time"

	"cdc/internal/cdc"
)

// ErrSlotActive says that another walsender streams from the slot.
type ErrSlotActive struct {
	Slot string
	PID  int // backend that holds it, 0 when it let go meanwhile
}

func (e *ErrSlotActive) Error() string {
	return fmt.Sprintf("replication slot %q is in use by backend %d", e.Slot, e.PID)
}

// minLiveness is the least silence after which a connection may count as dead.
const minLiveness = 10 * time.Second

// Stream is the replication stream of a Source's slot.
type Stream struct{}

func (s *Source) Stream(ctx context.Context, from, prevEnd cdc.LSN) (*Stream, error) {
	return nil, fmt.Errorf("start replication from slot %q", s.cfg.Slot)
}

func (st *Stream) Next(ctx context.Context) (*cdc.Event, error) { return nil, ctx.Err() }
func (st *Stream) Tick(ctx context.Context) error               { return ctx.Err() }
func (st *Stream) Confirm(lsn cdc.LSN)                          {}
func (st *Stream) ConfirmNow(ctx context.Context) error         { return ctx.Err() }
func (st *Stream) BeforeRead(hook func())                       {}
func (st *Stream) ServerEnd() cdc.LSN                           { return 0 }
func (st *Stream) Close(ctx context.Context) error              { return nil }
