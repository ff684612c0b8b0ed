package view

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"cdc/internal/intent"
)

// feed is a live inline view in another Postgres, and the types it takes.
type feed struct {
	build    int64
	name     string
	database string
	types    []string
	code     *code
}

// fed is the views elsewhere that the batches feed, as last read; read now where
// they never were.
func (c *Coordinator) fed(ctx context.Context, batches []intent.Batch) ([]feed, error) {
	c.mu.Lock()
	feeds, read := c.feeds, c.read
	c.mu.Unlock()
	if !read {
		return c.look(ctx, batches)
	}
	return feeding(feeds, batches), nil
}

// look reads the live inline views elsewhere anew.
func (c *Coordinator) look(ctx context.Context, batches []intent.Batch) ([]feed, error) {
	feeds, err := readFeeds(ctx, c.store.Pool())
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.feeds, c.read = feeds, true
	c.mu.Unlock()
	return feeding(feeds, batches), nil
}

func readFeeds(ctx context.Context, q querier) ([]feed, error) {
	rows, err := q.Query(ctx, `select `+buildColumns+` from es.view
		where state = 'live' and mode = 'inline' and database is not null order by build`)
	if err != nil {
		return nil, fmt.Errorf("read the inline views in other databases: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (feed, error) {
		b, err := scanBuild(row)
		if err != nil {
			return feed{}, err
		}
		c, err := decode(b.raw)
		return feed{b.id, b.name, b.database, b.types(), c}, err
	})
}

// feeding is those of the views that take an event of the batches, by database.
func feeding(feeds []feed, batches []intent.Batch) []feed {
	var out []feed
	for _, f := range feeds {
		if slices.ContainsFunc(batches, func(b intent.Batch) bool {
			return slices.ContainsFunc(b.Events, func(e intent.NewEvent) bool { return slices.Contains(f.types, e.Type) })
		}) {
			out = append(out, f)
		}
	}
	slices.SortStableFunc(out, func(a, b feed) int { return cmp.Compare(a.database, b.database) })
	return out
}

// errFeedsChanged says that a view was switched between the look and the append.
var errFeedsChanged = errors.New("views were switched meanwhile")
