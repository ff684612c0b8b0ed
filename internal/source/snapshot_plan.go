package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5"
)

// pieceBlocks is how many blocks of a table one COPY reads, 16 MiB of them:
// enough that its start costs nothing beside its rows, small enough that the
// workers end together.
const pieceBlocks = 2048

// snapshotTable is one captured table as the snapshot reads it.
type snapshotTable struct {
	rel    *cdc.Relation
	name   string
	rows   int64 // planner's estimate, 0 unknown
	filter string
	parts  []snapshotPart // itself, or its leaves
	blocks int64
	pieces int

	readRows, readBytes atomic.Int64
	left                atomic.Int64 // pieces not yet copied
	done                atomic.Bool
}

// snapshotPart is a relation that holds rows of a table.
type snapshotPart struct {
	from   string // FROM item
	blocks int64
	whole  bool // read by one COPY: no ctid ranges there
}

// piece is the part of a table that one COPY reads.
type piece struct {
	table int
	sql   string
}

// columnList names what is read: the relation's columns, in its order.
func (t *snapshotTable) columnList() string {
	names := make([]string, len(t.rel.Columns))
	for i, c := range t.rel.Columns {
		names[i] = quote(c.Name)
	}
	return strings.Join(names, ", ")
}

// copySQL reads blocks [from, to) of a part; to 0: to the end, wherever that is.
func (t *snapshotTable) copySQL(p snapshotPart, from, to int64) string {
	var where []string
	if !p.whole {
		where = append(where, fmt.Sprintf("ctid >= '(%d,0)'", from))
		if to > 0 {
			where = append(where, fmt.Sprintf("ctid < '(%d,0)'", to))
		}
	}
	return "COPY (" + t.selectSQL(p.from, where...) + ") TO STDOUT"
}

// selectSQL reads of a FROM item what the stream carries of it: the published
// columns of the rows that the publication's filter and the conditions let through.
func (t *snapshotTable) selectSQL(from string, where ...string) string {
	if t.filter != "" {
		where = append(where, "("+t.filter+")")
	}
	sql := "SELECT " + t.columnList() + " FROM " + from
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	return sql
}

func (p snapshotPart) pieces() int {
	if p.whole {
		return 1
	}
	return int((p.blocks + pieceBlocks - 1) / pieceBlocks)
}

// plan hands out the pieces of all tables, table by table, so that few tables
// are open at once. It is safe for concurrent use.
type plan struct {
	mu     sync.Mutex
	tables []*snapshotTable
	table  int
	part   int
	block  int64
}

func (p *plan) next() (piece, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ; p.table < len(p.tables); p.table, p.part = p.table+1, 0 {
		t := p.tables[p.table]
		for ; p.part < len(t.parts); p.part, p.block = p.part+1, 0 {
			part := t.parts[p.part]
			limit := part.blocks
			if part.whole {
				limit = 1
			}
			if p.block >= limit {
				continue
			}
			from, to := p.block, p.block+pieceBlocks
			p.block = to
			if to >= part.blocks {
				to = 0 // the last is open-ended
			}
			return piece{table: p.table, sql: t.copySQL(part, from, to)}, true
		}
	}
	return piece{}, false
}

// planSnapshot describes the tables to read. The exporter's locks are held, so
// neither their shape nor their files can change any more. Largest first: the
// workers then end together.
func (s *Source) planSnapshot(ctx context.Context, tables []cdc.Table) (_ []*snapshotTable, err error) {
	// The catalogue's connection holds none of the locks: some look-ups (an
	// expression, a size) would wait behind somebody who waits for the exporter.
	if err := s.setLockTimeout(ctx, joinTimeout); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.setLockTimeout(ctx, 0)) }()
	out := make([]*snapshotTable, 0, len(tables))
	byOID := map[uint32]*snapshotTable{}
	for _, t := range tables {
		rel, err := s.Relation(ctx, t.OID)
		if err != nil {
			return nil, fmt.Errorf("describe %s: %w", t.FullName(), err)
		}
		st := &snapshotTable{rel: rel, name: t.FullName(), rows: max(t.Rows, 0)}
		byOID[t.OID] = st
		out = append(out, st)
	}
	err = s.withSQL(ctx, func(c *pgx.Conn) error {
		if err := s.loadPublished(ctx, c, byOID); err != nil {
			return err
		}
		return s.loadParts(ctx, c, byOID)
	})
	if err != nil {
		return nil, err
	}
	for _, t := range out {
		for _, p := range t.parts {
			t.blocks += p.blocks
			t.pieces += p.pieces()
		}
		t.left.Store(int64(t.pieces))
		t.done.Store(t.pieces == 0)
	}
	slices.SortStableFunc(out, func(a, b *snapshotTable) int { return cmp.Compare(b.blocks, a.blocks) })
	return out, nil
}

func (s *Source) setLockTimeout(ctx context.Context, d time.Duration) error {
	return s.withSQL(ctx, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, fmt.Sprintf("SET lock_timeout = %d", d.Milliseconds()))
		return err
	})
}

// loadPublished reads the row filter of every table and makes sure that the
// columns to be read are those that the stream will carry.
func (s *Source) loadPublished(ctx context.Context, c *pgx.Conn, byOID map[uint32]*snapshotTable) error {
	if s.version < 150000 {
		return nil // neither filters nor lists; generated columns are left out by Relation
	}
	// Up to 17 the view lists generated columns although the stream never has them.
	rows, err := c.Query(ctx, `SELECT c.oid, coalesce(p.rowfilter, ''), ARRAY(SELECT a.attname::text FROM pg_attribute a
			WHERE a.attrelid = c.oid AND a.attname = ANY(p.attnames) AND (a.attgenerated = '' OR $2))
		FROM pg_publication_tables p JOIN pg_namespace n ON n.nspname = p.schemaname
			JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename WHERE p.pubname = $1`, s.cfg.Publication, s.version >= 180000)
	if err != nil {
		return fmt.Errorf("read pg_publication_tables: %w", err)
	}
	var oid uint32
	var filter string
	var columns []string
	seen := map[uint32]bool{}
	_, err = pgx.ForEachRow(rows, []any{&oid, &filter, &columns}, func() error {
		t := byOID[oid]
		if t == nil {
			return nil
		}
		seen[oid] = true
		t.filter = filter
		var ours []string
		for _, c := range t.rel.Columns {
			ours = append(ours, c.Name)
		}
		if !sameSet(ours, columns) {
			return fmt.Errorf("columns of %s are %s, the publication publishes %s: it was changed meanwhile, start again",
				t.name, quoteList(ours), quoteList(columns))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read pg_publication_tables: %w", err)
	}
	for oid, t := range byOID {
		if !seen[oid] {
			return cdc.Terminal("publication-tables", fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE ONLY %s;", quote(s.cfg.Publication), quote(t.rel.Namespace, t.rel.Name)),
				"publication %q does not publish %s", s.cfg.Publication, t.name)
		}
	}
	return nil
}

// loadParts finds the relations that hold the rows, with their sizes. Where the
// role may read a partitioned table but not all of its leaves, it is read through
// its root, as one piece.
func (s *Source) loadParts(ctx context.Context, c *pgx.Conn, byOID map[uint32]*snapshotTable) error {
	oids := make([]uint32, 0, len(byOID))
	for oid := range byOID {
		oids = append(oids, oid)
	}
	rows, err := c.Query(ctx, `
		WITH RECURSIVE tree(root, oid) AS (
			SELECT o, o FROM unnest($1::oid[]) o
			UNION ALL SELECT tree.root, i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
				JOIN pg_class p ON p.oid = tree.oid AND p.relkind = 'p')
		SELECT tree.root, n.nspname, c.relname, pg_relation_size(c.oid) / current_setting('block_size')::bigint,
			coalesce(a.amname <> 'heap', true), has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
		FROM tree JOIN pg_class c ON c.oid = tree.oid JOIN pg_namespace n ON n.oid = c.relnamespace
			LEFT JOIN pg_am a ON a.oid = c.relam
		WHERE c.relkind <> 'p' ORDER BY tree.root, n.nspname, c.relname`, oids)
	if err != nil {
		return fmt.Errorf("read sizes of tables: %w", err)
	}
	var root uint32
	var schema, name string
	var blocks int64
	var whole, readable bool
	through := map[uint32]bool{}
	_, err = pgx.ForEachRow(rows, []any{&root, &schema, &name, &blocks, &whole, &readable}, func() error {
		t := byOID[root]
		t.parts = append(t.parts, snapshotPart{from: "ONLY " + quote(schema, name), blocks: blocks, whole: whole || s.version < 140000})
		through[root] = through[root] || !readable && (schema != t.rel.Namespace || name != t.rel.Name)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read sizes of tables: %w", err)
	}
	for oid := range through {
		if t := byOID[oid]; through[oid] {
			t.parts = []snapshotPart{{from: quote(t.rel.Namespace, t.rel.Name), blocks: 1, whole: true}}
		}
	}
	return nil
}
