package source

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/source/pgoutput"

	"github.com/jackc/pgx/v5"
)

// lookupTimeout bounds one completion: the stream stands still meanwhile, so it
// stays well below the default wal_sender_timeout of 60 s.
const lookupTimeout = 10 * time.Second

// lookupAttempts: a connection that broke while it was idle is made anew once.
const lookupAttempts = 2

// catalogue completes what the stream says of a table. The stream is the truth
// about columns and their types, because the catalogue it is asked in is that of
// today: it adds the structure of types, NOT NULL and defaults (where a column
// of the same name and type is still there) and the order of the key.
type catalogue struct {
	s *Source

	mu        sync.Mutex
	relations map[uint32]*cdc.Relation // newest of each table: equal content keeps its pointer
	constants map[constant]*string     // defaults that were evaluated; nil: not a constant after all
}

// maxConstants bounds the remembered defaults; there are as many as tables have
// them, and beyond it they are evaluated again.
const maxConstants = 10_000

func newCatalogue(s *Source) *catalogue {
	return &catalogue{s: s, relations: map[uint32]*cdc.Relation{}, constants: map[constant]*string{}}
}

// typeNames are the types the stream has named.
type typeNames map[uint32]typeName

type typeName struct{ namespace, name string }

// tableFacts is what the catalogue knows of a table's columns.
type tableFacts map[string]columnFacts

type columnFacts struct {
	typeOID  uint32
	notNull  bool
	expr     string // of the default, "" for none
	computed bool   // identity or generated
	typeSQL  string // format_type
	keyPos   int    // in the primary key from 1, 0: not part of it
}

// complete makes the Relation of a table the stream has described. It returns
// the Relation of an earlier call where nothing has changed. Tables that are not
// captured cost no query.
func (c *catalogue) complete(ctx context.Context, raw *pgoutput.Relation, names typeNames) (*cdc.Relation, bool, error) {
	if !c.s.captures(string(raw.Namespace), string(raw.Name)) {
		return bare(raw), false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var rel *cdc.Relation
	err := c.s.retrySQL(ctx, func(conn *pgx.Conn) (err error) {
		rel, err = c.build(ctx, conn, raw, names)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return c.remember(rel), true, nil
}

// remember returns the known Relation where rel says nothing new.
func (c *catalogue) remember(rel *cdc.Relation) *cdc.Relation {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.relations[rel.ID]; old != nil && reflect.DeepEqual(old, rel) {
		return old
	}
	c.relations[rel.ID] = rel
	return rel
}

func (c *catalogue) known(id uint32) *cdc.Relation {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.relations[id]
}

// captures applies the configured patterns to a table of the stream.
func (s *Source) captures(schema, name string) bool {
	matches := func(pattern string) bool { return matchTable(pattern, schema, name) }
	return slices.ContainsFunc(s.cfg.Include, matches) && !slices.ContainsFunc(s.cfg.Exclude, matches)
}

// retrySQL is withSQL for reads, begun again once where the connection broke.
func (s *Source) retrySQL(ctx context.Context, fn func(*pgx.Conn) error) (err error) {
	for range lookupAttempts {
		broken := false
		err = s.withSQL(ctx, func(conn *pgx.Conn) error {
			err := fn(conn)
			broken = conn.IsClosed()
			return err
		})
		if err == nil || !broken || ctx.Err() != nil {
			break
		}
	}
	return err
}

// bare is a Relation without what only the catalogue knows.
func bare(raw *pgoutput.Relation) *cdc.Relation {
	rel := &cdc.Relation{
		ID: raw.ID, Namespace: string(raw.Namespace), Name: string(raw.Name), Identity: raw.Identity,
		Columns: make([]cdc.Column, len(raw.Columns)),
	}
	if rel.Namespace == "" {
		rel.Namespace = "pg_catalog" // the stream's shorthand
	}
	for i, c := range raw.Columns {
		rel.Columns[i] = cdc.Column{Name: string(c.Name), TypeOID: c.TypeOID, Mod: c.Mod, Identity: c.Identity}
	}
	return rel
}

func (c *catalogue) build(ctx context.Context, conn *pgx.Conn, raw *pgoutput.Relation, names typeNames) (*cdc.Relation, error) {
	rel := bare(raw)
	oids := make([]uint32, len(rel.Columns))
	for i := range rel.Columns {
		oids[i] = rel.Columns[i].TypeOID
	}
	types, err := loadTypes(ctx, conn, oids, c.s.version)
	if err != nil {
		return nil, err
	}
	facts, err := loadFacts(ctx, conn, raw.ID)
	if err != nil {
		return nil, err
	}
	for i := range rel.Columns {
		col := &rel.Columns[i]
		col.Type = types.build(col.TypeOID, names)
		f, ok := facts[col.Name]
		if !ok || f.typeOID != col.TypeOID {
			continue
		}
		col.NotNull = f.notNull
		if f.expr != "" || f.computed {
			col.Default, col.DefaultExpr = c.defaultOf(ctx, conn, f)
		}
	}
	rel.Key = keyOf(rel, c.s.cfg.Key[rel.FullName()], facts.primaryKey(), c.known(rel.ID))
	return rel, nil
}

// primaryKey lists the columns of today's primary key in its own order.
func (f tableFacts) primaryKey() []string {
	var names []string
	for name, col := range f {
		if col.keyPos > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return f[a].keyPos - f[b].keyPos })
	return names
}

// keyOf finds the ordinals of the message key, nil where there is no usable one:
// a key lies inside the replica identity, or a delete would not say it.
//
// The primary key is asked of the catalogue for its order, and may have changed
// since the row was written. Under the default identity the stream's own flags
// are then the key: they are the primary key of the row's time.
func keyOf(rel *cdc.Relation, configured, primary []string, before *cdc.Relation) []int {
	if len(configured) > 0 {
		return ordinals(rel, configured)
	}
	if key := ordinals(rel, primary); key != nil && (rel.Identity != cdc.IdentityDefault || len(key) == flagged(rel)) {
		return key
	}
	var key []int
	switch rel.Identity {
	case cdc.IdentityDefault:
		for i := range rel.Columns {
			if rel.Columns[i].Identity {
				key = append(key, i)
			}
		}
	case cdc.IdentityFull: // flags say nothing here
	default:
		return nil
	}
	if before == nil {
		return key
	}
	var names []string
	for _, i := range before.Key {
		names = append(names, before.Columns[i].Name)
	}
	if old := ordinals(rel, names); old != nil && (rel.Identity == cdc.IdentityFull || len(old) == len(key)) {
		return old
	}
	return key
}

func flagged(rel *cdc.Relation) (n int) {
	for i := range rel.Columns {
		if rel.Columns[i].Identity {
			n++
		}
	}
	return n
}

// ordinals finds columns by name: nil unless all are there and identify.
func ordinals(rel *cdc.Relation, names []string) []int {
	var key []int
	for _, name := range names {
		i := slices.IndexFunc(rel.Columns, func(c cdc.Column) bool { return c.Name == name })
		if i < 0 || !rel.Columns[i].Identity {
			return nil
		}
		key = append(key, i)
	}
	return key
}

// loadFacts reads the columns of a table; a table that is gone has none.
func loadFacts(ctx context.Context, conn *pgx.Conn, oid uint32) (tableFacts, error) {
	rows, err := conn.Query(ctx, `
		SELECT a.attname, a.atttypid, a.attnotnull, coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
			a.attidentity <> '' OR a.attgenerated <> '', format_type(a.atttypid, a.atttypmod),
			coalesce((SELECT k.pos FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(num, pos)
				WHERE k.num = a.attnum AND k.pos <= i.indnkeyatts), 0)
		FROM pg_attribute a
			LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
			LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary AND i.indimmediate AND i.indisvalid
		WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped`, pgx.QueryExecModeCacheStatement, oid)
	if err != nil {
		return nil, fmt.Errorf("read columns of relation %d: %w", oid, err)
	}
	facts := tableFacts{}
	var name string
	var f columnFacts
	_, err = pgx.ForEachRow(rows, []any{&name, &f.typeOID, &f.notNull, &f.expr, &f.computed, &f.typeSQL, &f.keyPos}, func() error {
		facts[name] = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read columns of relation %d: %w", oid, err)
	}
	return facts, nil
}

// Relation describes a table by its OID as the stream will describe it:
// published columns in table order, dropped and unpublished ones left out. Where
// the stream has described the same table already the answer is the same
// pointer. It blocks for a few catalogue queries.
func (s *Source) Relation(ctx context.Context, oid uint32) (*cdc.Relation, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var rel *cdc.Relation
	err := s.retrySQL(ctx, func(conn *pgx.Conn) error {
		raw, err := s.describe(ctx, conn, oid)
		if err != nil {
			return err
		}
		rel, err = s.catalogue.build(ctx, conn, raw, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("describe relation %d of %s: %w", oid, s.target, err)
	}
	return s.catalogue.remember(rel), nil
}

// describe makes of the catalogue what pgoutput would send for the table.
func (s *Source) describe(ctx context.Context, conn *pgx.Conn, oid uint32) (*pgoutput.Relation, error) {
	tables, err := queryTables(ctx, conn, `
		SELECT c.oid, c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relreplident::text, c.relispartition,
			c.reltuples::bigint, 0::bigint
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1`, nil, oid)
	if err != nil {
		return nil, err
	}
	if len(tables) != 1 {
		return nil, cdc.Terminal("table-missing", "Look for what dropped it.", "the catalogue has no relation %d", oid)
	}
	t := tables[0]
	if err := loadDetails(ctx, conn, tables); err != nil {
		return nil, err
	}
	pub, err := loadPublication(ctx, conn, s.cfg.Publication, s.version)
	if err != nil {
		return nil, err
	}
	t.publish(s.cfg.Columns[t.fullName()], pub, s.version) // its faults are Tables' to report
	identity, _ := t.identityColumns()
	raw := &pgoutput.Relation{ID: oid, Namespace: []byte(t.schema), Name: []byte(t.name), Identity: t.identity}
	rows, err := conn.Query(ctx, `SELECT attname, atttypid, atttypmod FROM pg_attribute
		WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum`, oid)
	if err != nil {
		return nil, fmt.Errorf("read columns of %s: %w", t.fullName(), err)
	}
	var name string
	var col pgoutput.Column
	_, err = pgx.ForEachRow(rows, []any{&name, &col.TypeOID, &col.Mod}, func() error {
		if slices.Contains(t.published, name) {
			col.Name, col.Identity = []byte(name), slices.Contains(identity, name)
			raw.Columns = append(raw.Columns, col)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read columns of %s: %w", t.fullName(), err)
	}
	return raw, nil
}
