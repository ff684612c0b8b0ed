package source

import (
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdctest"
)

// Case 161: what the role may not read is said before anything begins.
func TestCase161ReadingRights(t *testing.T) {
	db := cdctest.Database(t)
	role := db.Name + "_r"
	s := openOps(t, db, func(c *Config) {
		c.URL, c.Include = asRole(t, db.URL, role), []string{"public.*", "hidden.*"}
	}, "CREATE TABLE a(id int PRIMARY KEY)", "CREATE TABLE b(id int PRIMARY KEY)", "CREATE SCHEMA hidden", "CREATE TABLE hidden.c(id int PRIMARY KEY)",
		"CREATE TABLE p(id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE leaf PARTITION OF p DEFAULT", "INSERT INTO p VALUES (1), (2)",
		"CREATE ROLE "+role+" LOGIN", "GRANT SELECT ON a, p TO "+role,
		"CREATE PUBLICATION pub FOR TABLE a, b, p, hidden.c WITH (publish_via_partition_root = true)")
	dropRole(t, db, role)
	tables := mustTables(t, s)
	_, err := s.Snapshot(t.Context(), tables, 1)
	wantTerminal(t, err, "select-rights", `GRANT SELECT ON "public"."b" TO "`+role+`";`, `GRANT USAGE ON SCHEMA "hidden"`, `GRANT SELECT ON "hidden"."c"`)
	te, _ := asTerminal(err)
	db.Exec(t, te.Mend)
	if _, err = s.Snapshot(t.Context(), tables, 1); err == nil {
		t.Fatal("snapshot without REPLICATION: got no error")
	}
	findings := s.Check(t.Context())
	bad := slices.IndexFunc(findings, func(f Finding) bool { return !f.OK && strings.Contains(f.What, "may not replicate") })
	if bad < 0 || !strings.Contains(findings[bad].Mend, "REPLICATION") {
		t.Fatalf("check: got %+v, want the missing right to replicate", findings)
	}
	db.Exec(t, "ALTER ROLE "+role+" REPLICATION")
	// No SELECT on the leaf: it is read through its root.
	equalRows(t, copyAll(t, s, 2), []string{"public.p|1", "public.p|2"})
}

func TestRowSecurityIsRefused(t *testing.T) {
	db := cdctest.Database(t)
	role := db.Name + "_r"
	s := openOps(t, db, func(c *Config) { c.URL = asRole(t, db.URL, role) },
		"CREATE TABLE a(id int PRIMARY KEY)", "INSERT INTO a VALUES (1), (2)", "ALTER TABLE a ENABLE ROW LEVEL SECURITY",
		"CREATE POLICY p ON a USING (id = 1)", "CREATE ROLE "+role+" LOGIN REPLICATION", "GRANT SELECT ON a TO "+role, "CREATE PUBLICATION pub FOR TABLE a WITH (publish_via_partition_root = true)")
	dropRole(t, db, role)
	_, err := s.Snapshot(t.Context(), mustTables(t, s), 1)
	wantTerminal(t, err, "row-security", "BYPASSRLS")
	te, _ := asTerminal(err)
	db.Exec(t, te.Mend)
	equalRows(t, copyAll(t, s, 1), []string{"public.a|1", "public.a|2"})
}

// Case 162: too low a wal_level, no free slot, no free walsender.
func TestCase162ServerSettings(t *testing.T) {
	t.Run("wal_level", func(t *testing.T) {
		t.Parallel()
		db := cdctest.PrivatePostgres(t, map[string]string{"wal_level": "replica"}).Database(t)
		s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY)")
		_, err := s.Snapshot(t.Context(), mustPublish(t, s), 1)
		wantTerminal(t, err, "wal-level", "wal_level = 'logical'")
		wantFinding(t, s, "wal_level is replica", "wal_level = 'logical'")
	})
	t.Run("slots", func(t *testing.T) {
		t.Parallel()
		db := cdctest.PrivatePostgres(t, map[string]string{"max_replication_slots": "2"}).Database(t)
		s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY)", "SELECT pg_create_physical_replication_slot('one')")
		_, err := s.Snapshot(t.Context(), mustPublish(t, s), 1)
		wantTerminal(t, err, "slots-exhausted", "max_replication_slots = 3")
		wantFinding(t, s, "max_replication_slots = 2", "max_replication_slots = 3")
		db.Exec(t, "SELECT pg_create_physical_replication_slot('two')")
		_, err = s.CreateSlot(t.Context())
		wantTerminal(t, err, "slots-exhausted", "max_replication_slots")
	})
	t.Run("walsenders", func(t *testing.T) {
		t.Parallel()
		db := cdctest.PrivatePostgres(t, map[string]string{"max_wal_senders": "1"}).Database(t)
		s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY)")
		conn, err := connectReplication(t.Context(), s.cfg.URL, replicationOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer closeConn(conn)
		wantFinding(t, s, "no replication connection is free", "max_wal_senders")
	})
}

func wantFinding(t testing.TB, s *Source, what, mend string) {
	t.Helper()
	findings := s.Check(t.Context())
	for _, f := range findings {
		if !f.OK && strings.Contains(f.What, what) {
			if !strings.Contains(f.Mend, mend) {
				t.Errorf("mend: got %q, want %q in it", f.Mend, mend)
			}
			return
		}
	}
	t.Fatalf("check: got %+v, want a finding with %q", findings, what)
}

func TestCheckOfASoundDatabase(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY)")
	for _, f := range s.Check(t.Context()) {
		if !f.OK {
			t.Errorf("got %+v, want nothing to mend", f)
		}
	}
	if got := db.Value(t, "SELECT count(*) FROM pg_publication"); got != "0" {
		t.Fatalf("check changed something: %s publications", got)
	}
}
