package source

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

const (
	// maxKeys bounds the keys of one look-up.
	maxKeys = 1000
	// rowsPerKey bounds the rows of one key, where a configured key is not unique.
	rowsPerKey = 16
)

// Rows reads the rows with these keys (the text of the key columns, in the order of
// Relation.Key), at most 1,000, in no particular order; a key without a row is
// passed over. Which keys are equal Postgres decides by the index of the key ('a'
// and 'A' under a collation that ignores case): a row's own key is in the row. Of a
// key that is not unique at most 16 rows come. Last and Done are not set.
func (r *ChunkReader) Rows(ctx context.Context, keys [][]string) (*Chunk, error) {
	return r.read(ctx, func(p *chunkPlan, c *Chunk) error {
		equal, err := r.equal(ctx)
		if err != nil {
			return err
		}
		c.Rows, c.Bytes, err = r.fill.byKey(ctx, r.conn, p.table, p.from, equal, keys, true)
		return err
	})
}

// equal are the key columns with the operators of the plan's index; of a column
// that is not in it, of any index.
func (r *ChunkReader) equal(ctx context.Context) ([]orderColumn, error) {
	p := r.plan
	equal := make([]orderColumn, len(p.table.rel.Key))
	if len(p.order) < len(equal) {
		var err error
		if equal, err = keyEquality(ctx, r.conn, p.table.rel); err != nil {
			return nil, err
		}
	}
	for _, o := range p.order {
		equal[o.key] = o
	}
	return equal, nil
}

// Lookup reads rows by their keys under the snapshot's own view, on a connection of
// its own for the time of the call: as Rows of a ChunkReader does. The snapshot
// must be open; it may be called concurrently with everything but Close and Finish.
func (sn *Snapshot) Lookup(ctx context.Context, table cdc.Table, keys [][]string) ([][]cdc.Value, error) {
	i := slices.IndexFunc(sn.tables, func(t *snapshotTable) bool { return t.rel.ID == table.OID })
	if i < 0 {
		return nil, fmt.Errorf("look rows of %s up: the snapshot does not hold it", table.FullName())
	}
	if sn.ctx.Err() != nil {
		return nil, sn.failure()
	}
	rows, err := sn.lookup(ctx, sn.tables[i], table, keys)
	if err != nil {
		return nil, fmt.Errorf("look rows of %s up: %w", table.FullName(), dataless(sn.source.copyError(sn.tables[i], err)))
	}
	return rows, nil
}

func (sn *Snapshot) lookup(ctx context.Context, t *snapshotTable, table cdc.Table, keys [][]string) ([][]cdc.Value, error) {
	conn, err := connectSQL(ctx, sn.source.cfg.URL)
	if err != nil {
		return nil, err
	}
	defer closeConn(conn.PgConn())
	if err := conn.PgConn().Exec(ctx, importSnapshot(sn.export.snapshot)).Close(); err != nil {
		return nil, fmt.Errorf("import snapshot %s: %w", sn.export.snapshot, err)
	}
	equal, err := keyEquality(ctx, conn, t.rel)
	if err != nil {
		return nil, err
	}
	order, _, err := loadOrder(ctx, conn, table, t.rel)
	if err != nil && !cdc.IsTerminal(err) {
		return nil, err
	}
	for _, o := range order {
		equal[o.key] = o
	}
	if len(order) > 0 {
		if err := conn.PgConn().Exec(ctx, byIndex).Close(); err != nil {
			return nil, err
		}
	}
	var f filler
	rows, _, err := f.byKey(ctx, conn, t, fromItem(table), equal, keys, len(order) > 0)
	return rows, err
}

// keyEquality are the key columns as a row is looked up by them where no index of
// the whole key gives their operators.
func keyEquality(ctx context.Context, conn *pgx.Conn, rel *cdc.Relation) ([]orderColumn, error) {
	if len(rel.Key) == 0 {
		return nil, cdc.Terminal("unkeyed-table", "", "%s has no key inside its replica identity", rel.FullName())
	}
	columns, err := equalities(ctx, conn, rel.ID)
	if err != nil {
		return nil, err
	}
	equal := make([]orderColumn, len(rel.Key))
	for i, ordinal := range rel.Key {
		equal[i] = keyColumn(rel, i)
		equal[i].equal = columns[rel.Columns[ordinal].Name].equals
	}
	return equal, nil
}

// byKeySQL reads the rows whose key columns are those of arrays of texts. The table
// is joined as a subquery of its own and under a name of ours: there the columns of
// the publication's row filter, and k, can mean nothing else. Where an index serves
// the key it has a limit, which keeps it a look-up per key whatever the planner
// thinks of the arrays.
func byKeySQL(t *snapshotTable, from string, equal []orderColumn, indexed bool) string {
	arrays, names, where := make([]string, len(equal)), make([]string, len(equal)), make([]string, len(equal))
	for i, o := range equal {
		arrays[i], names[i] = fmt.Sprintf("$%d::text[]", i+1), fmt.Sprintf("k%d", i+1)
		where[i] = fmt.Sprintf("%s %s CAST(k.k%d AS %s)", o.expr, o.equal, i+1, o.typ)
	}
	limit := ""
	if indexed {
		limit = limitSQL(rowsPerKey, true)
	}
	return fmt.Sprintf("SELECT r.* FROM unnest(%s) AS k(%s) CROSS JOIN LATERAL (%s%s) AS r",
		strings.Join(arrays, ", "), strings.Join(names, ", "), t.selectSQL(from+" AS t", where...), limit)
}

// byKey reads the rows of keys.
func (f *filler) byKey(ctx context.Context, conn *pgx.Conn, t *snapshotTable, from string, equal []orderColumn, keys [][]string, indexed bool) ([][]cdc.Value, int64, error) {
	if len(keys) > maxKeys {
		return nil, 0, fmt.Errorf("%d keys at once, want at most %d", len(keys), maxKeys)
	}
	if len(keys) == 0 {
		return nil, 0, nil
	}
	params, types := make([][]byte, len(equal)), make([]uint32, len(equal))
	formats := make([]int16, len(equal))
	for i := range equal {
		column := make([]string, len(keys))
		for n, key := range keys {
			if len(key) != len(equal) {
				return nil, 0, fmt.Errorf("key %d has %d values for %d key columns", n+1, len(key), len(equal))
			}
			column[n] = key[i]
		}
		var err error
		if params[i], err = conn.TypeMap().Encode(pgtype.TextArrayOID, pgtype.BinaryFormatCode, column, nil); err != nil {
			return nil, 0, errors.New("the keys cannot be encoded")
		}
		types[i], formats[i] = pgtype.TextArrayOID, pgtype.BinaryFormatCode
	}
	f.begin(len(t.rel.Columns), len(keys), math.MaxInt64)
	if _, _, err := f.take(conn.PgConn().ExecParams(ctx, byKeySQL(t, from, equal, indexed), params, types, formats, nil), false); err != nil {
		return nil, 0, err
	}
	rows, bytes := f.rows()
	return rows, bytes, nil
}
