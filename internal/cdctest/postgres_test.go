package cdctest

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

func TestDatabaseIsFresh(t *testing.T) {
	d := Database(t)
	d.Exec(t, "CREATE TABLE a(id int primary key, t text)", "INSERT INTO a VALUES (1,'x'),(2,NULL)")
	rows := d.Query(t, "SELECT * FROM a ORDER BY 1")
	if len(rows) != 2 || rows[0][1] != "x" || rows[1][1] != "NULL" {
		t.Fatalf("got %v", rows)
	}
	if got := d.Value(t, "SHOW wal_level"); got != "logical" {
		t.Fatalf("wal_level: got %s, want logical", got)
	}
}

func TestPrivatePostgresRestarts(t *testing.T) {
	pg := PrivatePostgres(t, map[string]string{"fsync": "on"})
	d := pg.Database(t)
	d.Exec(t, "CREATE TABLE a(id int)", "INSERT INTO a VALUES (1)")
	pg.Kill()
	if err := pg.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := d.Value(t, "SELECT count(*) FROM a"); got != "1" {
		t.Fatalf("rows after a crash: got %s, want 1", got)
	}
}

func TestContribIsThere(t *testing.T) {
	d := Database(t)
	for _, name := range []string{"hstore", "citext", "ltree", "pgcrypto"} {
		d.Exec(t, "CREATE EXTENSION "+name)
	}
	if got := d.Value(t, "SELECT 'a=>1'::hstore -> 'a' || ('X'::citext = 'x')::text || nlevel('a.b'::ltree)"); got != "1true2" && got != "1t2" {
		t.Errorf("got %q", got)
	}
	d.Exec(t, "CREATE TABLE a(id int primary key)", "CREATE PUBLICATION p FOR TABLE a",
		"SELECT pg_create_logical_replication_slot('contrib', 'pgoutput')", "INSERT INTO a VALUES (1)")
	got := d.Value(t, "SELECT count(*) > 2 FROM pg_logical_slot_get_binary_changes('contrib', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')")
	if got != "t" {
		t.Errorf("pgoutput gave no changes")
	}
	d.KeepSlot("contrib")
}

func TestDropTakesEverythingAlong(t *testing.T) {
	var name string
	t.Run("test", func(t *testing.T) {
		d := Database(t)
		name = d.Name
		d.Exec(t, "SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')", // waits for prepared transactions
			"CREATE TABLE a(id int)", "BEGIN; INSERT INTO a VALUES (1); PREPARE TRANSACTION 'it''s'")
		d.KeepSlot("left_behind")
		d.Conn(t) // closed later than the database is dropped, were it not ended
	})
	admin := Postgres(t).admin()
	for _, sql := range []string{
		"SELECT count(*) FROM pg_database WHERE datname = '" + name + "'",
		"SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'left_behind'",
		"SELECT count(*) FROM pg_prepared_xacts",
	} {
		if got := admin.Value(t, sql); got != "0" {
			t.Errorf("%s: got %s, want 0", sql, got)
		}
	}
}

// recorder is a testing.TB that keeps errors instead of failing.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Helper()      {}
func (r *recorder) Failed() bool { return false }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
func (r *recorder) Cleanup(f func()) { r.TB.Cleanup(f) }

func TestALeakedSlotFailsTheTest(t *testing.T) {
	r := &recorder{}
	t.Run("test", func(t *testing.T) {
		r.TB = t
		d := Database(r)
		d.Exec(t, "SELECT pg_create_logical_replication_slot('leaked', 'pgoutput')")
	})
	if len(r.errors) != 1 || !strings.Contains(r.errors[0], "leaked") {
		t.Errorf("got %q, want one error that names the slot", r.errors)
	}
}
