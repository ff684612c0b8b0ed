package cdctest

import (
	"context"
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
