package source

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Reread is a row read back by its key.
//
// What is found where the change's transaction is visible is the version that it
// wrote, or a later one: then a later change of this key follows in the stream.
// Postgres does not tell which (a savepoint writes under an id of its own).
type Reread struct {
	Visible bool        // the change's transaction is visible to readers; else ask again
	Found   bool        // else the row is gone or has another key: a later change says so
	Values  []cdc.Value // the columns asked for, in that order; valid until the next Reread
}

// GoneError says that a value or row cannot be read because its table or column
// is no longer what the stream described.
type GoneError struct {
	Table string // schema.table of the stream
	What  string // "table", or "column …"
}

func (e *GoneError) Error() string {
	return fmt.Sprintf("read rows of %s: %s is gone or was changed since", e.Table, e.What)
}

// maxRereads bounds the prepared statements kept: relations change with DDL and
// each version has its own. Past it all are prepared again.
const maxRereads = 256

// rereader reads rows back on a connection of its own, so that a catalogue query
// never waits behind it. Statements are prepared once per relation and columns.
type rereader struct {
	mu         sync.Mutex
	conn       *pgx.Conn
	statements map[rereadKey]rereadStatement
	serial     int // names statements
	values     []cdc.Value
}

type rereadKey struct {
	rel  *cdc.Relation
	cols string
}

type rereadStatement struct{ name string }

func (r *rereader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropLocked()
}

func (r *rereader) dropLocked() {
	if r.conn != nil {
		closeConn(r.conn.PgConn())
	}
	r.conn, r.statements = nil, nil
}

// Reread reads columns (ordinals in rel.Columns) of the row with a key (the
// values of rel.Key) in one statement that also tells whether the transaction
// xid is visible in it. Values have the text form of the stream. It blocks for a
// round trip, at first use of a relation for four; it may be called concurrently
// but then takes turns, and Values are the last caller's. GoneError: the table or
// a column has been dropped, renamed or retyped meanwhile.
func (s *Source) Reread(ctx context.Context, rel *cdc.Relation, key []cdc.Value, cols []int, xid uint32) (Reread, error) {
	if len(key) != len(rel.Key) || len(key) == 0 {
		return Reread{}, fmt.Errorf("read a row of %s back: %d key values for %d key columns", rel.FullName(), len(key), len(rel.Key))
	}
	params := make([][]byte, len(key))
	for i, v := range key {
		if v.Kind != cdc.Text {
			return Reread{}, fmt.Errorf("read a row of %s back: value %d of its key is of kind %q, want text", rel.FullName(), i+1, v.Kind)
		}
		params[i] = v.Data
		if params[i] == nil {
			params[i] = []byte{} // nil would be NULL
		}
	}
	s.reread.mu.Lock()
	defer s.reread.mu.Unlock()
	// Two attempts more: an idle connection may have been cut, and a table changed
	// since its statement was prepared needs a new one.
	const attempts = 3
	for n := 1; ; n++ {
		out, err := s.rereadLocked(ctx, rel, params, cols, xid)
		var pe *pgconn.PgError
		switch {
		case err == nil || ctx.Err() != nil || n == attempts:
		case errors.As(err, &pe) && (pe.Code == codeNotSupported || pe.Code == codeUndefinedTable || pe.Code == codeUndefinedColumn):
			// The statement was prepared for the table as it was, perhaps under another
			// name. Preparing looks it up by OID and decides.
			if statement, ok := s.reread.statements[rereadKey{rel, fmt.Sprint(cols)}]; ok {
				delete(s.reread.statements, rereadKey{rel, fmt.Sprint(cols)})
				_ = s.reread.conn.PgConn().Deallocate(ctx, statement.name) // at worst it goes with the connection
			}
			continue
		case s.reread.conn != nil && s.reread.conn.IsClosed():
			s.reread.dropLocked()
			continue
		}
		if err != nil {
			return Reread{}, s.rereadError(rel, err)
		}
		return out, nil
	}
}

func (s *Source) rereadError(rel *cdc.Relation, err error) error {
	if gone := new(GoneError); errors.As(err, &gone) {
		return gone
	}
	switch sqlState(err) {
	case codeUndefinedTable:
		return &GoneError{rel.FullName(), "table"}
	case codeUndefinedColumn:
		return &GoneError{rel.FullName(), "a column"}
	case codeInsufficientPrivilege:
		return cdc.Terminal("select-rights", fmt.Sprintf("GRANT SELECT ON %s TO …; and USAGE on its schema; with row level security also ALTER ROLE … BYPASSRLS;", quote(rel.Namespace, rel.Name)),
			"read a row of %s back: %w", rel.FullName(), err)
	}
	return fmt.Errorf("read a row of %s back: %w", rel.FullName(), err)
}

func (s *Source) rereadLocked(ctx context.Context, rel *cdc.Relation, params [][]byte, cols []int, xid uint32) (Reread, error) {
	r := &s.reread
	if r.conn == nil {
		c, err := connectSQL(ctx, s.cfg.URL)
		if err != nil {
			return Reread{}, err
		}
		r.conn, r.statements = c, map[rereadKey]rereadStatement{}
	}
	id := rereadKey{rel, fmt.Sprint(cols)}
	statement, ok := r.statements[id]
	if !ok {
		var err error
		if statement, err = r.prepareLocked(ctx, rel, cols); err != nil {
			return Reread{}, err
		}
		r.statements[id] = statement
	}
	result := r.conn.PgConn().ExecPrepared(ctx, statement.name, params, nil, nil)
	var out Reread
	rows := 0
	var readErr error
	for result.NextRow() {
		if rows++; rows == 1 {
			out, readErr = r.row(result.Values(), len(cols), xid)
		}
	}
	if _, err := result.Close(); err != nil {
		return Reread{}, err
	}
	if readErr != nil {
		return Reread{}, readErr
	}
	if rows != 1 {
		return Reread{}, cdc.Terminal("key-not-unique", fmt.Sprintf("Choose columns that identify a row: key: {%q: […]}", rel.FullName()),
			"%d rows have the same key", rows)
	}
	return out, nil
}

// row reads one result: the statement's snapshot, whether there is a row, its columns.
func (r *rereader) row(fields [][]byte, cols int, xid uint32) (Reread, error) {
	if len(fields) != cols+2 {
		return Reread{}, fmt.Errorf("the answer has %d columns, want %d", len(fields), cols+2)
	}
	visible, err := xidVisible(xid, string(fields[0]))
	if err != nil {
		return Reread{}, err
	}
	out := Reread{Visible: visible, Found: fields[1] != nil}
	if !out.Found {
		return out, nil
	}
	r.values = r.values[:0]
	for _, f := range fields[2:] {
		v := cdc.Value{Kind: cdc.Null}
		if f != nil {
			v = cdc.Value{Kind: cdc.Text, Data: append([]byte{}, f...)}
		}
		r.values = append(r.values, v)
	}
	out.Values = r.values
	return out, nil
}

// xidVisible says whether a transaction that has committed is visible in a
// snapshot in the form xmin:xmax:xip,… of pg_current_snapshot. The stream knows
// the low 32 bits of an id and the snapshot all 64, so they are compared modulo
// 2^32, as Postgres itself compares ids that are less than 2^31 apart.
func xidVisible(xid uint32, snapshot string) (bool, error) {
	parts := strings.Split(snapshot, ":")
	if len(parts) != 3 {
		return false, fmt.Errorf("snapshot %q: want xmin:xmax:xip", snapshot)
	}
	xmax, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return false, fmt.Errorf("snapshot %q: want xmin:xmax:xip", snapshot)
	}
	if int32(xid-uint32(xmax)) >= 0 {
		return false, nil
	}
	if parts[2] == "" {
		return true, nil
	}
	for part := range strings.SplitSeq(parts[2], ",") {
		running, err := strconv.ParseUint(part, 10, 64)
		if err != nil {
			return false, fmt.Errorf("snapshot %q: want xmin:xmax:xip", snapshot)
		}
		if uint32(running) == xid {
			return false, nil
		}
	}
	return true, nil
}

// prepareLocked finds the table by its OID, under today's name, refuses columns
// that are no longer of the stream's type, and prepares the statement with the
// equality operators of an index on the key: the search path of the session does
// not hold the operators of extensions.
func (r *rereader) prepareLocked(ctx context.Context, rel *cdc.Relation, cols []int) (rereadStatement, error) {
	if len(r.statements) >= maxRereads {
		if _, err := r.conn.Exec(ctx, "DEALLOCATE ALL", pgx.QueryExecModeSimpleProtocol); err != nil {
			return rereadStatement{}, err
		}
		clear(r.statements)
	}
	var schema, name, kind string
	err := r.conn.QueryRow(ctx, `SELECT n.nspname, c.relname, c.relkind::text FROM pg_class c
		JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1`, rel.ID).Scan(&schema, &name, &kind)
	if errors.Is(err, pgx.ErrNoRows) {
		return rereadStatement{}, &GoneError{rel.FullName(), "table"}
	}
	if err != nil {
		return rereadStatement{}, err
	}
	columns, err := equalities(ctx, r.conn, rel.ID)
	if err != nil {
		return rereadStatement{}, err
	}
	var list, where []string
	var types []uint32
	for i, ordinal := range cols {
		col := rel.Columns[ordinal]
		if columns[col.Name].typeOID != col.TypeOID {
			return rereadStatement{}, &GoneError{rel.FullName(), "column " + quote(col.Name)}
		}
		list = append(list, fmt.Sprintf(", t.c%d", i))
	}
	for i, ordinal := range rel.Key {
		col := rel.Columns[ordinal]
		if columns[col.Name].typeOID != col.TypeOID {
			return rereadStatement{}, &GoneError{rel.FullName(), "column " + quote(col.Name)}
		}
		where = append(where, fmt.Sprintf("%s %s $%d", quote(col.Name), columns[col.Name].equals, i+1))
		types = append(types, col.TypeOID)
	}
	only := "ONLY "
	if kind[0] == kindPartitioned {
		only = ""
	}
	inner := "true AS found"
	for i, ordinal := range cols {
		inner += fmt.Sprintf(", %s AS c%d", quote(rel.Columns[ordinal].Name), i)
	}
	// LIMIT 2 finds a key that is not unique and never more than that.
	sql := fmt.Sprintf(`SELECT pg_current_snapshot()::text, t.found%s FROM (VALUES (1)) one LEFT JOIN LATERAL
		(SELECT %s FROM %s%s WHERE %s LIMIT 2) t ON true`,
		strings.Join(list, ""), inner, only, quote(schema, name), strings.Join(where, " AND "))
	r.serial++
	statement := rereadStatement{name: "reread_" + strconv.Itoa(r.serial)}
	_, err = r.conn.PgConn().Prepare(ctx, statement.name, sql, types)
	return statement, err
}

// Strategies of a btree operator class.
const (
	btreeLess  = 1
	btreeEqual = 3
	btreeMore  = 5
)

// operatorName is the SQL of an operator, qualified, where operatorJoins are.
const operatorName = `format('OPERATOR(%I.%s)', n.nspname, o.oprname)`

// operatorJoins go from a pg_opclass c that is of btree to the operator of a
// strategy.
func operatorJoins(strategy int) string {
	return fmt.Sprintf(`JOIN pg_amop p ON p.amopfamily = c.opcfamily AND p.amoplefttype = c.opcintype AND p.amoprighttype = c.opcintype
			AND p.amopstrategy = %d AND p.amoppurpose = 's'
		JOIN pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
		JOIN pg_operator o ON o.oid = p.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace`, strategy)
}

type rereadColumn struct {
	typeOID uint32
	equals  string // operator, qualified
}

// equalities reads a table's columns with the equality operators that indexes of
// them have.
func equalities(ctx context.Context, conn *pgx.Conn, oid uint32) (map[string]rereadColumn, error) {
	rows, err := conn.Query(ctx, `
		SELECT a.attname, a.atttypid, coalesce((
			SELECT `+operatorName+`
			FROM pg_index i CROSS JOIN unnest(i.indkey::int2[], i.indclass::oid[]) k(num, class)
				JOIN pg_opclass c ON c.oid = k.class `+operatorJoins(btreeEqual)+`
			WHERE i.indrelid = a.attrelid AND k.num = a.attnum
			ORDER BY i.indisprimary DESC, i.indisunique DESC LIMIT 1), '=')
		FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped`, oid)
	if err != nil {
		return nil, err
	}
	columns := map[string]rereadColumn{}
	var name string
	var col rereadColumn
	_, err = pgx.ForEachRow(rows, []any{&name, &col.typeOID, &col.equals}, func() error {
		columns[name] = col
		return nil
	})
	return columns, err
}
