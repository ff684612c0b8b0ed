package source

import (
	"context"
	"fmt"
	"slices"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5"
)

// Kinds of pg_class.relkind.
const (
	kindOrdinary    = 'r'
	kindPartitioned = 'p'
	kindView        = 'v'
	kindMatView     = 'm'
	kindForeign     = 'f'
)

// Kinds of pg_class.relpersistence.
const (
	persistLogged   = 'p'
	persistUnlogged = 'u'
	persistTemp     = 't'
)

// catalogTable is a relation as pg_class and its kin describe it.
type catalogTable struct {
	oid          uint32
	schema, name string
	kind         byte
	persistence  byte
	identity     cdc.ReplicaIdentity
	isPartition  bool  // of another table
	rows         int64 // planner's estimate, -1 unknown
	bytes        int64 // by the planner's page counts

	columns   []catalogColumn // in table order
	indexes   []catalogIndex  // unique, without expression and predicate
	leaves    []*catalogTable // of a partitioned table
	published []string        // columns the stream carries, in table order
}

type catalogColumn struct {
	num       int16
	name      string
	notNull   bool
	generated bool
	virtual   bool
}

type catalogIndex struct {
	name      string
	columns   []string // in index order, INCLUDE columns left out
	primary   bool
	identity  bool // REPLICA IDENTITY USING INDEX
	immediate bool // not deferrable
	valid     bool
}

func (t *catalogTable) fullName() string { return t.schema + "." + t.name }

// quoted is the table's name in SQL.
func (t *catalogTable) quoted() string { return quote(t.schema, t.name) }

// quote writes names as SQL identifiers, joined by dots.
func quote(names ...string) string { return pgx.Identifier(names).Sanitize() }

// unfit says why the stream cannot carry a relation, "" where it can.
func (t *catalogTable) unfit() string {
	switch {
	case t.kind == kindView, t.kind == kindMatView:
		return "it is a view; capture the tables behind it"
	case t.kind == kindForeign:
		return "it is a foreign table, whose changes are not in this server's WAL"
	case t.persistence == persistTemp:
		return "it is temporary"
	case t.persistence == persistUnlogged:
		return "it is unlogged, so its changes are not in the WAL; ALTER TABLE " + t.quoted() + " SET LOGGED"
	case t.isPartition:
		return "it is a partition; capture it through the root of its tree"
	}
	return ""
}

// loadTables reads every relation of the user's schemas.
func loadTables(ctx context.Context, c *pgx.Conn) ([]*catalogTable, error) {
	return queryTables(ctx, c, `
		SELECT c.oid, c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relreplident::text, c.relispartition,
			c.reltuples::bigint, (c.relpages::bigint + coalesce(t.relpages, 0)) * current_setting('block_size')::bigint
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
		ORDER BY n.nspname, c.relname`, nil)
}

// loadLeaves reads the leaves of partitioned tables. pg_partition_tree would
// lock every one of them and wait behind an ALTER TABLE; pg_inherits does not.
func loadLeaves(ctx context.Context, c *pgx.Conn, roots map[uint32]*catalogTable, oids []uint32) error {
	_, err := queryTables(ctx, c, `
		WITH RECURSIVE tree(root, oid) AS (
			SELECT o, o FROM unnest($1::oid[]) o
			UNION ALL SELECT tree.root, i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid)
		SELECT tree.root, c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relreplident::text, c.relispartition,
			c.reltuples::bigint, (c.relpages::bigint + coalesce(t.relpages, 0)) * current_setting('block_size')::bigint
		FROM tree JOIN pg_class c ON c.oid = tree.oid JOIN pg_namespace n ON n.oid = c.relnamespace
			LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
		WHERE c.relispartition AND c.relkind <> 'p'
		ORDER BY n.nspname, c.relname`,
		func(root uint32, leaf *catalogTable) { roots[root].leaves = append(roots[root].leaves, leaf) }, oids)
	return err
}

func queryTables(ctx context.Context, c *pgx.Conn, sql string, each func(root uint32, t *catalogTable), args ...any) ([]*catalogTable, error) {
	rows, err := c.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("read tables from the catalogue: %w", err)
	}
	defer rows.Close()
	var tables []*catalogTable
	for rows.Next() {
		t, root := &catalogTable{}, uint32(0)
		var kind, persistence, identity string
		if err := rows.Scan(&root, &t.oid, &t.schema, &t.name, &kind, &persistence, &identity, &t.isPartition, &t.rows, &t.bytes); err != nil {
			return nil, fmt.Errorf("read tables from the catalogue: %w", err)
		}
		t.kind, t.persistence, t.identity = kind[0], persistence[0], cdc.ReplicaIdentity(identity[0])
		tables = append(tables, t)
		if each != nil {
			each(root, t)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read tables from the catalogue: %w", err)
	}
	return tables, nil
}

// loadDetails reads columns, unique indexes and leaves of tables.
func loadDetails(ctx context.Context, c *pgx.Conn, tables []*catalogTable) error {
	byOID := map[uint32]*catalogTable{}
	var roots []uint32
	for _, t := range tables {
		byOID[t.oid] = t
		if t.kind == kindPartitioned {
			roots = append(roots, t.oid)
		}
	}
	if len(roots) > 0 {
		if err := loadLeaves(ctx, c, byOID, roots); err != nil {
			return err
		}
	}
	oids := make([]uint32, 0, len(tables))
	for _, t := range tables {
		oids = append(oids, t.oid)
		for _, leaf := range t.leaves {
			byOID[leaf.oid] = leaf
			oids = append(oids, leaf.oid)
		}
	}
	if err := loadColumns(ctx, c, byOID, oids); err != nil {
		return err
	}
	return loadIndexes(ctx, c, byOID, oids)
}

func loadColumns(ctx context.Context, c *pgx.Conn, byOID map[uint32]*catalogTable, oids []uint32) error {
	rows, err := c.Query(ctx, `
		SELECT attrelid, attnum, attname, attnotnull, attgenerated <> '', attgenerated = 'v'
		FROM pg_attribute WHERE attrelid = ANY($1::oid[]) AND attnum > 0 AND NOT attisdropped
		ORDER BY attrelid, attnum`, oids)
	if err != nil {
		return fmt.Errorf("read columns from the catalogue: %w", err)
	}
	var oid uint32
	var col catalogColumn
	_, err = pgx.ForEachRow(rows, []any{&oid, &col.num, &col.name, &col.notNull, &col.generated, &col.virtual}, func() error {
		byOID[oid].columns = append(byOID[oid].columns, col)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read columns from the catalogue: %w", err)
	}
	return nil
}

func loadIndexes(ctx context.Context, c *pgx.Conn, byOID map[uint32]*catalogTable, oids []uint32) error {
	rows, err := c.Query(ctx, `
		SELECT i.indrelid, x.relname, i.indisprimary, i.indisreplident, i.indimmediate, i.indisvalid,
			ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(num, pos)
				JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
				WHERE k.pos <= i.indnkeyatts ORDER BY k.pos)
		FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
		WHERE i.indrelid = ANY($1::oid[]) AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
		ORDER BY i.indrelid, i.indisprimary DESC, x.relname`, oids)
	if err != nil {
		return fmt.Errorf("read indexes from the catalogue: %w", err)
	}
	var oid uint32
	var x catalogIndex
	_, err = pgx.ForEachRow(rows, []any{&oid, &x.name, &x.primary, &x.identity, &x.immediate, &x.valid, &x.columns}, func() error {
		own := x
		own.columns = slices.Clone(x.columns)
		byOID[oid].indexes = append(byOID[oid].indexes, own)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read indexes from the catalogue: %w", err)
	}
	return nil
}
