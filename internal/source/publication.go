package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5"
)

// publishedOps are the operations a captured table must publish: without any of
// them the topic would silently differ from the table.
const publishedOps = "insert, update, delete, truncate"

// publicationLockTimeout bounds ALTER PUBLICATION's wait for a table's lock
// (SHARE UPDATE EXCLUSIVE, which a VACUUM holds too); the caller tries again.
const publicationLockTimeout = "30s"

// Publish creates the publication, or changes an existing one by what differs:
// tables to add, to drop, column lists, options. It never publishes all tables,
// never drops and recreates (a slot cannot pass the gap, PostgreSQL 17 and older),
// and leaves row filters and column lists that were set by hand alone. A
// publication FOR ALL TABLES or FOR TABLES IN SCHEMA is accepted where it covers
// the tables. Changed says that something was done. Where the role lacks the
// rights, the TerminalError's Mend is the exact SQL to run.
func (s *Source) Publish(ctx context.Context, tables []cdc.Table) (changed bool, err error) {
	err = s.withSQL(ctx, func(c *pgx.Conn) error {
		pub, err := loadPublication(ctx, c, s.cfg.Publication, s.version)
		if err != nil {
			return err
		}
		statements, err := pub.plan(tables, s.cfg.Columns, s.version)
		if err != nil || len(statements) == 0 {
			return err
		}
		changed = true
		return applyPublication(ctx, c, statements)
	})
	if err != nil {
		return false, fmt.Errorf("publication %q of %s: %w", s.cfg.Publication, s.target, err)
	}
	if changed {
		s.log.Info("publication changed", "publication", s.cfg.Publication, "tables", len(tables))
	}
	return changed, nil
}

func applyPublication(ctx context.Context, c *pgx.Conn, statements []string) error {
	mend := strings.Join(statements, ";\n") + ";"
	err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		all := append([]string{"SET LOCAL lock_timeout = '" + publicationLockTimeout + "'"}, statements...)
		for _, sql := range all {
			if _, err := tx.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				return err
			}
		}
		return nil
	})
	switch sqlState(err) {
	case codeInsufficientPrivilege:
		return cdc.Terminal("publication-rights", "-- as the owner of the tables with CREATE on the database, or as a superuser:\n"+mend,
			"the role may not create or change it: %w", err)
	case codeReadOnly:
		return cdc.Terminal("publication-rights", "-- on the primary:\n"+mend, "the server is a read-only standby: %w", err)
	case codeLockTimeout:
		return fmt.Errorf("a table stayed locked for %s (VACUUM or ALTER TABLE?): %w", publicationLockTimeout, err)
	}
	return err
}

// PublicationState describes the publication for the progress record: a hash of
// its options, table set, column lists and row filters, which does not change
// when a published table gets a column, and the names of the tables it covers.
// A publication that is missing or does not publish every operation is a
// TerminalError.
func (s *Source) PublicationState(ctx context.Context) (hash string, tables []string, err error) {
	err = s.retrySQL(ctx, func(c *pgx.Conn) error {
		pub, err := loadPublication(ctx, c, s.cfg.Publication, s.version)
		if err != nil {
			return err
		}
		if err := pub.check(); err != nil {
			return err
		}
		hash = pub.hash()
		tables, err = publishedTables(ctx, c, s.cfg.Publication)
		return err
	})
	if err != nil {
		return "", nil, fmt.Errorf("publication %q of %s: %w", s.cfg.Publication, s.target, err)
	}
	return hash, tables, nil
}

// Memberships tells by which catalogue row each table, by OID, is in the
// publication: the OID of its own entry, else of its schema's, else of the
// publication (FOR ALL TABLES). A table taken out and put in again has another
// one: what was changed in between was not streamed. One that is not in it, or is
// gone, is left out.
func (s *Source) Memberships(ctx context.Context, tables []uint32) (map[uint32]uint32, error) {
	schema := "NULL::oid"
	if s.version >= 150000 {
		schema = "(SELECT n.oid FROM pg_publication_namespace n WHERE n.pnpubid = p.oid AND n.pnnspid = c.relnamespace)"
	}
	members := make(map[uint32]uint32, len(tables))
	err := s.retrySQL(ctx, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, `SELECT table_oid, member FROM (
			SELECT c.oid AS table_oid, coalesce((SELECT r.oid FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid),
				`+schema+`, CASE WHEN p.puballtables THEN p.oid END) AS member
			FROM pg_publication p, pg_class c WHERE p.pubname = $1 AND c.oid = ANY($2::oid[])) m WHERE member IS NOT NULL`,
			s.cfg.Publication, tables)
		if err != nil {
			return err
		}
		clear(members)
		var table, member uint32
		_, err = pgx.ForEachRow(rows, []any{&table, &member}, func() error {
			members[table] = member
			return nil
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read tables of publication %q of %s: %w", s.cfg.Publication, s.target, err)
	}
	return members, nil
}

// DropPublication drops the publication; one that does not exist is no error.
func (s *Source) DropPublication(ctx context.Context) error {
	sql := "DROP PUBLICATION IF EXISTS " + quote(s.cfg.Publication)
	err := s.withSQL(ctx, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		if sqlState(err) == codeInsufficientPrivilege {
			return cdc.Terminal("publication-rights", sql+";", "only its owner may drop it: %w", err)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("drop publication %q of %s: %w", s.cfg.Publication, s.target, err)
	}
	return nil
}

// publication is a publication as the catalogue has it.
type publication struct {
	name      string
	exists    bool
	allTables bool
	ops       []string // of publishedOps
	viaRoot   bool
	generated bool // publish_generated_columns = stored
	schemas   []string
	tables    map[uint32]publishedTable // published by name
	excepted  map[uint32]bool           // FOR ALL TABLES EXCEPT
}

type publishedTable struct {
	schema, name string
	columns      []int16 // nil: no list
	names        []string
	filter       string // "" for none
}

func loadPublication(ctx context.Context, c *pgx.Conn, name string, version int) (*publication, error) {
	p := &publication{name: name, tables: map[uint32]publishedTable{}, excepted: map[uint32]bool{}}
	var oid uint32
	var ins, upd, del, trunc bool
	// Options that only newer servers have are read through a row's JSON form.
	err := c.QueryRow(ctx, `SELECT oid, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot,
		coalesce(to_jsonb(p) ->> 'pubgencols', 'n') = 's' FROM pg_publication p WHERE pubname = $1`, name).
		Scan(&oid, &p.allTables, &ins, &upd, &del, &trunc, &p.viaRoot, &p.generated)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read pg_publication: %w", err)
	}
	p.exists = true
	for i, on := range []bool{ins, upd, del, trunc} {
		if on {
			p.ops = append(p.ops, strings.Split(publishedOps, ", ")[i])
		}
	}
	if err := p.loadMembers(ctx, c, oid, version); err != nil {
		return nil, fmt.Errorf("read members of the publication: %w", err)
	}
	return p, nil
}

func (p *publication) loadMembers(ctx context.Context, c *pgx.Conn, oid uint32, version int) error {
	lists, except := "NULL::int2[], NULL::text[], ''", "false"
	if version >= 150000 {
		lists = `r.prattrs::int2[], ARRAY(SELECT a.attname::text FROM pg_attribute a
			WHERE a.attrelid = r.prrelid AND a.attnum = ANY(r.prattrs::int2[]) ORDER BY a.attnum), coalesce(pg_get_expr(r.prqual, r.prrelid), '')`
	}
	if version >= 190000 {
		except = "coalesce((to_jsonb(r) ->> 'prexcept')::bool, false)"
	}
	rows, err := c.Query(ctx, `SELECT r.prrelid, n.nspname, c.relname, `+lists+`, `+except+`
		FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE r.prpubid = $1`, oid)
	if err != nil {
		return err
	}
	var rel uint32
	var t publishedTable
	var excepted bool
	_, err = pgx.ForEachRow(rows, []any{&rel, &t.schema, &t.name, &t.columns, &t.names, &t.filter, &excepted}, func() error {
		if excepted {
			p.excepted[rel] = true
			return nil
		}
		own := t
		own.columns, own.names = slices.Clone(t.columns), slices.Clone(t.names)
		p.tables[rel] = own
		return nil
	})
	if err != nil || version < 150000 {
		return err
	}
	rows, err = c.Query(ctx, `SELECT n.nspname FROM pg_publication_namespace s JOIN pg_namespace n ON n.oid = s.pnnspid
		WHERE s.pnpubid = $1 ORDER BY 1`, oid)
	if err != nil {
		return err
	}
	p.schemas, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return err
}

// columnList is the list the publication has for a table, nil for none.
func (p *publication) columnList(t *catalogTable) []string {
	if own, ok := p.tables[t.oid]; ok && own.columns != nil {
		return own.names
	}
	return nil
}

// plan lists the statements that make the publication cover exactly tables, or
// at least tables where it covers all or whole schemas.
func (p *publication) plan(tables []cdc.Table, columns map[string][]string, version int) ([]string, error) {
	pub := quote(p.name)
	if !p.exists {
		sql := "CREATE PUBLICATION " + pub
		if len(tables) > 0 {
			sql += " FOR TABLE " + p.tableList(tables, columns)
		}
		return []string{sql + " WITH (publish = '" + publishedOps + "', publish_via_partition_root = true)"}, nil
	}
	var add, relist []cdc.Table
	wanted := map[uint32]bool{}
	for _, t := range tables {
		wanted[t.OID] = true
		own, named := p.tables[t.OID]
		list := columns[t.FullName()]
		covered := p.allTables && !p.excepted[t.OID] || slices.Contains(p.schemas, t.Namespace)
		switch {
		case !named && covered && list != nil:
			return nil, cdc.Terminal("column-list", fmt.Sprintf("Leave %s out of columns, or use a publication of its own.", t.FullName()),
				"columns are configured for %s, and the publication covers it as one of all tables, which allows no column list", t.FullName())
		case !named && p.excepted[t.OID]:
			return nil, cdc.Terminal("publication-tables", fmt.Sprintf("Take %s out of the EXCEPT list, or exclude it from the pipeline.", t.FullName()),
				"the publication is FOR ALL TABLES EXCEPT %s", t.FullName())
		case !named && !covered:
			add = append(add, t)
		case named && list != nil && !sameSet(list, own.names):
			relist = append(relist, t)
		}
	}
	var out []string
	if drop := p.dropList(wanted, relist); drop != "" {
		out = append(out, "ALTER PUBLICATION "+pub+" DROP TABLE "+drop)
	}
	if add = append(add, relist...); len(add) > 0 {
		out = append(out, "ALTER PUBLICATION "+pub+" ADD TABLE "+p.tableList(add, columns))
	}
	var set []string
	if len(p.ops) != len(strings.Split(publishedOps, ", ")) {
		set = append(set, "publish = '"+publishedOps+"'")
	}
	if !p.viaRoot {
		set = append(set, "publish_via_partition_root = true")
	}
	if len(set) > 0 {
		// First: a column list on a partitioned table needs the root's option.
		out = append([]string{"ALTER PUBLICATION " + pub + " SET (" + strings.Join(set, ", ") + ")"}, out...)
	}
	return out, nil
}

// tableList names tables with their column lists and the row filters they had.
// ONLY: the children of an inheritance parent are tables of their own.
func (p *publication) tableList(tables []cdc.Table, columns map[string][]string) string {
	items := make([]string, len(tables))
	for i, t := range tables {
		items[i] = "ONLY " + quote(t.Namespace, t.Name)
		if list := columns[t.FullName()]; list != nil {
			items[i] += " (" + quoteList(list) + ")"
		}
		if filter := p.tables[t.OID].filter; filter != "" {
			items[i] += " WHERE (" + filter + ")"
		}
	}
	return strings.Join(items, ", ")
}

// dropList names the tables that are published by name and not wanted, and
// those whose list changes, which are added again in the same transaction.
func (p *publication) dropList(wanted map[uint32]bool, relist []cdc.Table) string {
	var items []string
	for oid, t := range p.tables {
		if !wanted[oid] || slices.ContainsFunc(relist, func(r cdc.Table) bool { return r.OID == oid }) {
			items = append(items, "ONLY "+quote(t.schema, t.name))
		}
	}
	slices.Sort(items)
	return strings.Join(items, ", ")
}

// check refuses a publication through which changes would be missing.
func (p *publication) check() error {
	if !p.exists {
		return cdc.Terminal("publication-missing",
			"Create it and a new slot after it: a slot cannot read changes from before its publication existed.",
			"it does not exist")
	}
	if all := strings.Split(publishedOps, ", "); len(p.ops) != len(all) {
		return cdc.Terminal("publication-options",
			fmt.Sprintf("ALTER PUBLICATION %s SET (publish = '%s'); -- what was not published meanwhile is missing until the tables are copied again: cdc drop PIPELINE, then cdc run", quote(p.name), publishedOps),
			"it does not publish %s", strings.Join(without(all, p.ops), ", "))
	}
	if !p.viaRoot {
		return cdc.Terminal("publication-options",
			fmt.Sprintf("ALTER PUBLICATION %s SET (publish_via_partition_root = true); -- what partitions published meanwhile is missing until the tables are copied again: cdc drop PIPELINE, then cdc run", quote(p.name)),
			"it publishes partitions under their own names (publish_via_partition_root is off), and they are captured through their root")
	}
	return nil
}

// hash is stable for one set of tables, lists, filters and options, in any order.
func (p *publication) hash() string {
	lines := []string{fmt.Sprintf("%q all=%t root=%t generated=%t ops=%v", p.name, p.allTables, p.viaRoot, p.generated, p.ops)}
	for _, schema := range p.schemas {
		lines = append(lines, fmt.Sprintf("schema %q", schema))
	}
	for oid := range p.excepted {
		lines = append(lines, fmt.Sprintf("except %d", oid))
	}
	for _, t := range p.tables {
		line := fmt.Sprintf("table %q.%q where %q", t.schema, t.name, t.filter)
		if t.columns != nil {
			line += fmt.Sprintf(" columns %q", t.names)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines[1:])
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:16])
}

// publishedTables lists schema.table of everything a publication covers.
func publishedTables(ctx context.Context, c *pgx.Conn, name string) ([]string, error) {
	rows, err := c.Query(ctx, `SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = $1 ORDER BY 1`, name)
	if err != nil {
		return nil, fmt.Errorf("read pg_publication_tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read pg_publication_tables: %w", err)
	}
	return tables, nil
}

func sameSet(a, b []string) bool { return len(a) == len(b) && len(without(a, b)) == 0 }
