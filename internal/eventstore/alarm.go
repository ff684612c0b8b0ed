package eventstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"cdc/internal/cdc"
	"cdc/internal/intent"
)

// Alarm is a change of a stored event that the WAL shows: somebody went round the
// store's triggers.
type Alarm struct {
	ID           int64     `json:"id"`
	LSN          cdc.LSN   `json:"lsn"` // start of the transaction's commit record
	Tx           uint32    `json:"tx"`
	Operation    string    `json:"operation"`      // update, delete, truncate
	Event        intent.ID `json:"event,omitzero"` // zero for truncate
	At           time.Time `json:"at"`             // of the commit
	Acknowledged time.Time `json:"acknowledged,omitzero"`
}

// Alarms lists the alarms nobody has acknowledged, oldest first; with all, every
// one. The login must be es_owner.
func (s *Store) Alarms(ctx context.Context, all bool) ([]Alarm, error) {
	rows, err := s.pool.Query(ctx, "select id, (lsn - '0/0')::bigint, tx, operation, event, at, acknowledged from es.alarm where $1 or acknowledged is null order by id", all)
	if err != nil {
		return nil, fmt.Errorf("read the alarms: %w", typed(err))
	}
	defer rows.Close()
	var alarms []Alarm
	for rows.Next() {
		var a Alarm
		var event pgtype.UUID
		var acknowledged *time.Time
		var tx int64
		if err := rows.Scan(&a.ID, (*uint64)(&a.LSN), &tx, &a.Operation, &event, &a.At, &acknowledged); err != nil {
			return nil, fmt.Errorf("read the alarms: %w", err)
		}
		a.Tx, a.Event, a.At = uint32(tx), event.Bytes, a.At.UTC()
		if acknowledged != nil {
			a.Acknowledged = acknowledged.UTC()
		}
		alarms = append(alarms, a)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the alarms: %w", typed(err))
	}
	return alarms, nil
}

// AcknowledgeAlarms marks every alarm as seen and says how many were not before.
// The login must be es_owner.
func (s *Store) AcknowledgeAlarms(ctx context.Context) (int, error) {
	tag, err := s.pool.Exec(ctx, "update es.alarm set acknowledged = now() where acknowledged is null")
	if err != nil {
		return 0, fmt.Errorf("acknowledge the alarms: %w", typed(err))
	}
	return int(tag.RowsAffected()), nil
}
