package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// chunkPlan is how a table's chunks are read: what is read of it, and in the order
// of which index.
type chunkPlan struct {
	print  string // of the catalogue's rows it was made from; see fingerprintQuery
	table  *snapshotTable
	from   string        // FROM item
	order  []orderColumn // columns of the index
	unique bool          // no two rows are equal in all of them
	name   string        // of the order; part of every cursor
	enums  []uint32      // types within the key, which may be told in other words
	labels string        // of enums
}

// orderColumn is a key column as an index orders it. Its operators are those of the
// index's operator class, named in full: the search path of the session holds none
// of an extension.
type orderColumn struct {
	key    int    // ordinal in Relation.Key
	typ    string // of the column, in SQL; of a domain its base: a constraint may be younger than the row
	oid    uint32 // of that type
	expr   string // the column, with the index's collation where that is another
	sort   string // item of ORDER BY
	behind string // operator that holds for what comes later
	equal  string
	nulls  string // NULLS FIRST or NULLS LAST; there are none, but the planner compares it
}

// keyColumn is a column of the key with nothing of an index.
func keyColumn(rel *cdc.Relation, key int) orderColumn {
	c := &rel.Columns[rel.Key[key]]
	t := c.Type
	for t.Kind == cdc.KindDomain && t.Elem != nil {
		t = t.Elem
	}
	o := orderColumn{key: key, typ: quote(t.Namespace, t.Name), oid: t.OID, expr: quote(c.Name)}
	if domainOfEnum(c.Type) {
		o.expr += "::" + o.typ
	}
	return o
}

// domainOfEnum says that a column has a type for which Postgres finds no operators by
// their names: of all polymorphic ones, those of enums alone take no domain.
func domainOfEnum(t *cdc.Type) bool {
	return t.Kind == cdc.KindDomain && t.Elem != nil && (t.Elem.Kind == cdc.KindEnum || domainOfEnum(t.Elem))
}

// planChunks describes a table whose lock conn holds.
func (s *Source) planChunks(ctx context.Context, conn *pgx.Conn, table cdc.Table, print string) (*chunkPlan, error) {
	rel, err := s.Relation(ctx, table.OID)
	if err != nil {
		return nil, err
	}
	t := &snapshotTable{rel: rel, name: rel.FullName()}
	err = s.retrySQL(ctx, func(c *pgx.Conn) error {
		return s.loadPublished(ctx, c, map[uint32]*snapshotTable{rel.ID: t})
	})
	if err != nil {
		return nil, err
	}
	p := &chunkPlan{print: print, table: t, from: fromItem(table)}
	if p.order, p.unique, err = loadOrder(ctx, conn, table, rel); err != nil {
		return nil, err
	}
	for _, i := range rel.Key {
		p.enums = appendEnums(p.enums, rel.Columns[i].Type)
	}
	if p.labels, err = loadLabels(ctx, conn, p.enums); err != nil {
		return nil, err
	}
	p.name = orderName(p.order, p.unique, p.labels)
	return p, nil
}

// appendEnums adds the enums that a type is made of.
func appendEnums(to []uint32, t *cdc.Type) []uint32 {
	if t == nil {
		return to
	}
	if t.Kind == cdc.KindEnum {
		to = append(to, t.OID)
	}
	to = appendEnums(to, t.Elem)
	for i := range t.Fields {
		to = appendEnums(to, t.Fields[i].Type)
	}
	return to
}

// loadLabels reads which value each label of some enums stands for; "" for none.
func loadLabels(ctx context.Context, conn *pgx.Conn, enums []uint32) (labels string, err error) {
	if len(enums) == 0 {
		return "", nil
	}
	err = conn.QueryRow(ctx, `SELECT coalesce(string_agg(oid || quote_literal(enumlabel), ',' ORDER BY oid), '') FROM pg_enum WHERE enumtypid = ANY($1::oid[])`, enums).Scan(&labels)
	if err != nil {
		return "", fmt.Errorf("read the labels of enums: %w", err)
	}
	return labels, nil
}

// fromItem names a table in FROM: a partitioned one with its leaves, any other
// without the tables that inherit from it, which are captured as their own.
func fromItem(t cdc.Table) string {
	if t.Partition {
		return quote(t.Namespace, t.Name)
	}
	return "ONLY " + quote(t.Namespace, t.Name)
}

// orderName is what a cursor is compared by: rows of one name are in one order, and
// the text of their keys has one meaning.
func orderName(order []orderColumn, unique bool, labels string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v %t%s", order, unique, labels))
	return hex.EncodeToString(sum[:8])
}

// made says that a cursor is of this plan's order.
func (p *chunkPlan) made(cursor []string) bool {
	n := len(p.table.rel.Key)
	return len(cursor) == n+1 && cursor[n] == p.name
}

// sql reads n rows behind a cursor, of which the first level columns are given:
// the rows that are equal to it in all but the last of them and come later by that.
// From the longest down to 1 these are all rows behind the cursor, in order, and
// each is one range of the index, whatever directions its columns have and
// whatever schemas their operators come from, where a comparison of whole rows
// allows but one direction and one operator. Level 0 has no cursor.
func (p *chunkPlan) sql(level, n int) string {
	where := make([]string, level)
	for i := range where {
		op := p.order[i].equal
		if i == level-1 {
			op = p.order[i].behind
		}
		where[i] = fmt.Sprintf("%s %s $%d", p.order[i].expr, op, i+1)
	}
	order := make([]string, len(p.order))
	for i, c := range p.order {
		order[i] = c.sort + " " + c.nulls
	}
	return p.table.selectSQL(p.from, where...) + " ORDER BY " + strings.Join(order, ", ") + limitSQL(n, p.unique)
}

// limitSQL ends a statement after n rows, and where rows may be equal behind those
// that are equal to the last: the next statement begins behind all of them.
func limitSQL(n int, unique bool) string {
	if unique {
		return " LIMIT " + strconv.Itoa(n)
	}
	return " FETCH FIRST " + strconv.Itoa(n) + " ROWS WITH TIES"
}

// params are the first level columns of a cursor with their types.
func (p *chunkPlan) params(cursor []string, level int) (values [][]byte, types []uint32) {
	for _, c := range p.order[:level] {
		values = append(values, []byte(cursor[c.key]))
		types = append(types, c.oid)
	}
	return values, types
}

// keyIndex is a btree index without expression and predicate.
type keyIndex struct {
	unique  bool
	columns []indexColumn
}

type indexColumn struct {
	name                string
	collate             string // " COLLATE …" where it is not the column's own
	less, equal, more   string
	descends, nullsLead bool
}

// loadOrder finds the index in whose order a table can be read by its key. The
// first of these is taken: the primary key; a unique index of columns of the key;
// one that begins with the columns of the key, in any order.
func loadOrder(ctx context.Context, conn *pgx.Conn, table cdc.Table, rel *cdc.Relation) (order []orderColumn, unique bool, err error) {
	if len(rel.Key) == 0 {
		return nil, false, cdc.Terminal("unkeyed-table", "Give it a primary key, or name the columns that identify a row in the configuration.",
			"%s has no key inside its replica identity", rel.FullName())
	}
	var key []string
	for _, i := range rel.Key {
		c := rel.Columns[i]
		if !c.NotNull {
			return nil, false, cdc.Terminal("nullable-key", fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL;", quote(rel.Namespace, rel.Name), quote(c.Name)),
				"column %q of the key of %s may be NULL, and NULL identifies nothing", c.Name, rel.FullName())
		}
		key = append(key, c.Name)
	}
	indexes, err := loadKeyIndexes(ctx, conn, rel.ID)
	if err != nil {
		return nil, false, err
	}
	for _, x := range indexes {
		if x.unique && len(without(x.names(), key)) == 0 {
			return x.order(rel, key, len(x.columns)), true, nil
		}
	}
	for _, x := range indexes {
		if len(x.columns) >= len(key) && len(without(x.names()[:len(key)], key)) == 0 {
			return x.order(rel, key, len(key)), false, nil
		}
	}
	concurrently := "CONCURRENTLY "
	if table.Partition {
		concurrently = "" // Postgres refuses it there
	}
	return nil, false, cdc.Terminal("key-index", fmt.Sprintf("CREATE INDEX %sON %s (%s);", concurrently, quote(rel.Namespace, rel.Name), quoteList(key)),
		"%s has no btree index on its key (%s), in whose order it could be read in parts", rel.FullName(), quoteList(key))
}

func (x *keyIndex) names() []string {
	names := make([]string, len(x.columns))
	for i, c := range x.columns {
		names[i] = c.name
	}
	return names
}

func (x *keyIndex) order(rel *cdc.Relation, key []string, n int) []orderColumn {
	order := make([]orderColumn, n)
	for i, c := range x.columns[:n] {
		o := keyColumn(rel, slices.Index(key, c.name))
		o.expr += c.collate
		before, direction := c.less, " ASC"
		o.behind, o.equal, o.nulls = c.more, c.equal, "NULLS LAST"
		if c.descends {
			before, o.behind, direction = c.more, c.less, " DESC"
		}
		o.sort = o.expr + " USING " + before
		if domainOfEnum(rel.Columns[rel.Key[o.key]].Type) { // enums have one order
			o.sort = quote(c.name) + direction
		}
		if c.nullsLead {
			o.nulls = "NULLS FIRST"
		}
		order[i] = o
	}
	return order
}

func loadKeyIndexes(ctx context.Context, conn *pgx.Conn, oid uint32) ([]*keyIndex, error) {
	operator := func(strategy int) string {
		return "(SELECT " + operatorName + " FROM pg_opclass c " + operatorJoins(strategy) + " WHERE c.oid = k.class)"
	}
	rows, err := conn.Query(ctx, `
		SELECT i.indisunique, k.pos, a.attname,
			coalesce((SELECT format(' COLLATE %I.%I', n.nspname, l.collname) FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace
				WHERE l.oid = k.coll AND l.oid <> a.attcollation), ''),
			`+operator(btreeLess)+`, `+operator(btreeEqual)+`, `+operator(btreeMore)+`, k.opt & 1 <> 0, k.opt & 2 <> 0
		FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
			CROSS JOIN unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[], i.indoption::int2[]) WITH ORDINALITY k(num, class, coll, opt, pos)
			JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
		WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND k.pos <= i.indnkeyatts
		ORDER BY i.indisprimary DESC, x.relname, k.pos`, oid)
	if err != nil {
		return nil, fmt.Errorf("read indexes: %w", err)
	}
	var indexes []*keyIndex
	var unique bool
	var pos int
	var c indexColumn
	dest := []any{&unique, &pos, &c.name, &c.collate, &c.less, &c.equal, &c.more, &c.descends, &c.nullsLead}
	_, err = pgx.ForEachRow(rows, dest, func() error {
		if pos == 1 {
			indexes = append(indexes, &keyIndex{unique: unique})
		}
		x := indexes[len(indexes)-1]
		x.columns = append(x.columns, c)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read indexes: %w", err)
	}
	return indexes, nil
}

// estimate is the planner's for the rows of a statement.
func estimate(ctx context.Context, conn *pgconn.PgConn, sql string) (int64, error) {
	results, err := conn.Exec(ctx, "EXPLAIN (FORMAT JSON) "+sql).ReadAll()
	if err != nil {
		return 0, err
	}
	var plans []struct {
		Plan struct {
			Rows float64 `json:"Plan Rows"`
		}
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1 ||
		json.Unmarshal(results[0].Rows[0][0], &plans) != nil || len(plans) != 1 {
		return 0, fmt.Errorf("explain: unexpected answer")
	}
	return int64(plans[0].Plan.Rows), nil
}
