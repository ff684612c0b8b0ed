package view

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// Build makes a new build of a view beside the live one, from its definition and
// the declared types, and returns its number. The daemon's runner follows the log
// with it; Switch puts it in the place of the live one. Of a name one build is under
// way at a time: a second takes the place of the first, whatever that had done.
//
// The definition is checked first: a FaultsError says what is wrong with it, and
// nothing is made then.
func Build(ctx context.Context, store *eventstore.Store, def intent.View, events []intent.EventType) (build int64, err error) {
	if err := Check(ctx, store.Pool(), intent.Definitions{Events: events, Views: []intent.View{def}}); err != nil {
		return 0, err
	}
	c, err := compile(def, events)
	if err != nil {
		return 0, err
	}
	hash := def.Hash(events)
	err = pgx.BeginFunc(ctx, store.Pool(), func(tx pgx.Tx) error {
		if err := lockInstall(ctx, tx); err != nil {
			return err
		}
		if err := dropBuilding(ctx, tx, def.Name); err != nil {
			return err
		}
		b, err := c.makeBuild(ctx, tx, def.Database, hash[:])
		build = b.id
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("build view %s: %w", def.Name, err)
	}
	return build, nil
}

// dropBuilding drops what is under way of a view, in the store. What another
// Postgres holds of it is dropped by the next build there, which finds that the
// store knows nothing of it (dropUnknown).
func dropBuilding(ctx context.Context, tx pgx.Tx, name string) error {
	// The row first: the runner takes it before it writes the table.
	rows, err := tx.Query(ctx, `select build from es.view where name = $1 and state = 'building' order by build for update`, name)
	if err != nil {
		return fmt.Errorf("look up the build under way: %w", err)
	}
	builds, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return fmt.Errorf("look up the build under way: %w", err)
	}
	for _, build := range builds {
		if err := dropFirst(ctx, tx, intent.View{Name: name}, build); err != nil {
			return err
		}
	}
	return nil
}
