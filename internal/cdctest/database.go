package cdctest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// queryLimit bounds every statement of the kit, so that a lock nobody releases
// fails a test instead of hanging it.
const queryLimit = 60 * time.Second

// DB is a database of one test on a test server.
type DB struct {
	Name   string
	URL    string // for the superuser; add replication=database for a walsender
	Server *PG

	keep []string // slots the test means to leave behind
}

var databases atomic.Uint64

// Database makes a fresh database on the shared server. At the end of the test
// its connections are ended, its replication slots and itself dropped; a slot
// that is still there and was not declared with KeepSlot fails the test.
func Database(t testing.TB) *DB {
	t.Helper()
	return Postgres(t).Database(t)
}

// Database makes a fresh database on this server; see the function Database.
func (p *PG) Database(t testing.TB) *DB {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	d := &DB{Name: name, URL: p.URL(name), Server: p}
	p.exec(t, "CREATE DATABASE "+name)
	t.Cleanup(func() { d.drop(t) })
	return d
}

// KeepSlot declares that the test leaves a slot behind on purpose.
func (d *DB) KeepSlot(name string) { d.keep = append(d.keep, name) }

// Exec runs each text as its own simple query: with several statements in it,
// they are one transaction.
func (d *DB) Exec(t testing.TB, sql ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), queryLimit)
	defer cancel()
	conn, err := pgconn.Connect(ctx, d.URL)
	if err != nil {
		t.Fatalf("connect to %s: %v", d.Name, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, text := range sql {
		if _, err := conn.Exec(ctx, text).ReadAll(); err != nil {
			t.Fatalf("execute %.200q: %v", text, err)
		}
	}
}

// Query returns the rows of one statement in PostgreSQL's text form. NULL is
// the string "NULL".
func (d *DB) Query(t testing.TB, sql string) [][]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), queryLimit)
	defer cancel()
	conn, err := pgconn.Connect(ctx, d.URL)
	if err != nil {
		t.Fatalf("connect to %s: %v", d.Name, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		t.Fatalf("query %.200q: %v", sql, err)
	}
	var rows [][]string
	for _, result := range results {
		for _, row := range result.Rows {
			text := make([]string, len(row))
			for i, v := range row {
				text[i] = "NULL"
				if v != nil {
					text[i] = string(v)
				}
			}
			rows = append(rows, text)
		}
	}
	return rows
}

// Value returns the only value of a statement that gives one row of one column.
func (d *DB) Value(t testing.TB, sql string) string {
	t.Helper()
	rows := d.Query(t, sql)
	if len(rows) != 1 || len(rows[0]) != 1 {
		t.Fatalf("query %.200q: got %d rows, want one row of one column", sql, len(rows))
	}
	return rows[0][0]
}

// Conn opens a connection that is closed with the test.
func (d *DB) Conn(t testing.TB) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), queryLimit)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.URL)
	if err != nil {
		t.Fatalf("connect to %s: %v", d.Name, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), queryLimit)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// Slots lists the replication slots of this database.
func (d *DB) Slots(t testing.TB) []string {
	t.Helper()
	rows := d.Server.admin().Query(t, fmt.Sprintf("SELECT slot_name FROM pg_replication_slots WHERE database = '%s' ORDER BY 1", d.Name))
	var names []string
	for _, row := range rows {
		names = append(names, row[0])
	}
	return names
}

// admin is the maintenance database of the server.
func (p *PG) admin() *DB { return &DB{Name: "postgres", URL: p.URL("postgres"), Server: p} }

func (p *PG) exec(t testing.TB, sql ...string) {
	t.Helper()
	p.admin().Exec(t, sql...)
}

// drop removes the database and its slots and reports leaked ones. A server that
// the test has stopped for good is left alone: it goes as a whole.
func (d *DB) drop(t testing.TB) {
	t.Helper()
	if d.Server.Done() == nil {
		return
	}
	leaked := slices.DeleteFunc(d.Slots(t), func(name string) bool { return slices.Contains(d.keep, name) })
	if len(leaked) > 0 && !t.Failed() {
		t.Errorf("replication slots left behind in %s: %s; drop them, or declare them with KeepSlot", d.Name, strings.Join(leaked, ", "))
	}
	// A prepared transaction left behind would keep the database.
	for _, row := range d.Server.admin().Query(t, fmt.Sprintf("SELECT quote_literal(gid) FROM pg_prepared_xacts WHERE database = '%s'", d.Name)) {
		d.Exec(t, "ROLLBACK PREPARED "+row[0])
	}
	d.Server.exec(t,
		// New connections are refused, then the old ones ended and waited for:
		// a slot can be dropped only when its walsender is gone.
		fmt.Sprintf("ALTER DATABASE %s ALLOW_CONNECTIONS false", d.Name),
		fmt.Sprintf("SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = '%s' AND pid <> pg_backend_pid()", d.Name),
		fmt.Sprintf("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '%s'", d.Name),
		fmt.Sprintf("DROP DATABASE %s WITH (FORCE)", d.Name),
	)
}
