package view

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// List is every build that is not retired, live ones first within a name. A live
// inline view stands where the log does.
func List(ctx context.Context, store *eventstore.Store) ([]intent.ViewStatus, error) {
	rows, err := store.Pool().Query(ctx, `
		select name, build, mode, state, coalesce(database, ''),
		       case when mode = 'inline' and state = 'live' then h.head else pos end, h.head, error, since
		from es.view, (select es.head() as head) h where state <> 'retired'
		order by name, state = 'live' desc, build`)
	if err != nil {
		return nil, fmt.Errorf("read es.view: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (intent.ViewStatus, error) {
		var s intent.ViewStatus
		var head int64
		var raw []byte
		if err := row.Scan(&s.Name, &s.Build, &s.Mode, &s.State, &s.Database, &s.Position, &head, &raw, &s.Since); err != nil {
			return s, err
		}
		s.Lag = max(head-s.Position, 0)
		if raw == nil {
			return s, nil
		}
		var e storedError
		if err := json.Unmarshal(raw, &e); err != nil {
			return s, fmt.Errorf("read the error of build %d: %w", s.Build, err)
		}
		s.Event, s.Error = e.Event, fmt.Sprintf("the statement for %s fails: %s", e.Type, e.Message)
		return s, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read es.view: %w", err)
	}
	return all, nil
}
