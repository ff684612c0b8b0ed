package source

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdctest"
)

// asRole is the URL of a database for another role without a password.
func asRole(t testing.TB, dbURL, role string) string {
	t.Helper()
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(role)
	return u.String()
}

// Case 25: any name is one publication, and none is SQL.
func TestCase025PublicationsMadeByName(t *testing.T) {
	for _, name := range []string{"P,x", `we"ird`, "MixedCase", `p'), (x`, "ü😀", "a b", "select"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := cdctest.Database(t)
			s := openOps(t, db, func(c *Config) { c.Publication = name }, "CREATE TABLE t(id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
			equalRows(t, copyAll(t, s, 1), []string{"public.t|1"})
			if got := db.Query(t, "SELECT pubname FROM pg_publication"); len(got) != 1 || got[0][0] != name {
				t.Fatalf("publications: got %q, want %q", got, name)
			}
			lsn, err := s.CreateSlot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			db.KeepSlot(s.cfg.Slot)
			db.Exec(t, "INSERT INTO t VALUES (2)")
			st, err := s.Stream(t.Context(), lsn, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = st.Close(t.Context()) }()
			for {
				e, err := st.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if e.Change != nil && rowText(e.Change) == "public.t|2" {
					return
				}
			}
		})
	}
}

func TestPublishChangesOnlyWhatDiffers(t *testing.T) {
	db := cdctest.Database(t)
	ddl := []string{"CREATE TABLE a(id int PRIMARY KEY, v text, w text)", "CREATE TABLE b(id int PRIMARY KEY)", "CREATE TABLE c(id int PRIMARY KEY)"}
	s := openOps(t, db, func(c *Config) { c.Exclude = []string{"public.c"} }, ddl...)
	needs15(t, s)
	publish := func(s *Source, want bool) string {
		t.Helper()
		changed, err := s.Publish(t.Context(), mustTables(t, s))
		if err != nil || changed != want {
			t.Fatalf("publish: got %t, %v, want %t", changed, err, want)
		}
		hash, _, err := s.PublicationState(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return hash
	}
	members := func() string {
		return fmt.Sprint(db.Query(t, "SELECT tablename, attnames, rowfilter FROM pg_publication_tables WHERE pubname = 'pub' ORDER BY 1"))
	}
	oid := func() string { return db.Value(t, "SELECT oid FROM pg_publication WHERE pubname = 'pub'") }
	first := publish(s, true)
	id := oid()
	if again := publish(s, false); again != first {
		t.Errorf("hash: got %s, then %s", first, again)
	}
	if got, want := members(), "[[a {id,v,w} NULL] [b {id} NULL]]"; got != want {
		t.Fatalf("members: got %s, want %s", got, want)
	}
	db.Exec(t, "ALTER TABLE a ADD COLUMN x int") // no change of the publication
	if again := publish(s, false); again != first {
		t.Errorf("hash after a new column: got %s, want %s", again, first)
	}
	// A filter set by hand stays, also when the column list changes.
	db.Exec(t, "ALTER PUBLICATION pub SET TABLE ONLY a WHERE (id > 5), ONLY b")
	if got := publish(s, false); got == first {
		t.Error("hash: the same with and without a row filter")
	}
	listed := openOps(t, db, func(c *Config) { c.Columns = map[string][]string{"public.a": {"v", "id"}} })
	publish(listed, true)
	if got, want := members(), "[[a {id,v} (id > 5)] [b {id} NULL] [c {id} NULL]]"; got != want {
		t.Fatalf("members: got %s, want %s", got, want)
	}
	publish(listed, false)
	fewer := openOps(t, db, func(c *Config) { c.Include = []string{"public.b"} })
	publish(fewer, true)
	if got, want := members(), "[[b {id} NULL]]"; got != want {
		t.Fatalf("members: got %s, want %s", got, want)
	}
	db.Exec(t, "ALTER PUBLICATION pub SET (publish = 'insert', publish_via_partition_root = false)")
	_, _, err := fewer.PublicationState(t.Context())
	wantTerminal(t, err, "publication-options", "ALTER PUBLICATION")
	if got := publish(fewer, true); got == first {
		t.Error("hash: the same for other tables")
	}
	if got := oid(); got != id {
		t.Fatalf("the publication was made anew: oid %s, then %s", id, got)
	}
	if err := fewer.DropPublication(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := fewer.DropPublication(t.Context()); err != nil {
		t.Fatalf("dropping it again: %v", err)
	}
	_, _, err = fewer.PublicationState(t.Context())
	wantTerminal(t, err, "publication-missing")
}

func TestPublicationOfWholeSchemas(t *testing.T) {
	db := cdctest.Database(t)
	needs15(t, openOps(t, db, nil))
	s := openOps(t, db, func(c *Config) { c.Include = []string{"public.*", "shop.*"} },
		"CREATE TABLE a(id int PRIMARY KEY)", "CREATE SCHEMA shop", "CREATE TABLE shop.b(id int PRIMARY KEY)",
		"CREATE PUBLICATION pub FOR TABLES IN SCHEMA shop WITH (publish_via_partition_root = true)")
	mustPublish(t, s)
	_, tables, err := s.PublicationState(t.Context())
	if err != nil || !slices.Equal(tables, []string{"public.a", "shop.b"}) {
		t.Fatalf("got %v, %v, want a added and b covered by its schema", tables, err)
	}
	all := openOps(t, db, func(c *Config) {
		c.Publication, c.Columns = "everything", map[string][]string{"public.a": {"id"}}
	}, "CREATE PUBLICATION everything FOR ALL TABLES")
	_, err = all.Publish(t.Context(), mustTables(t, all))
	wantTerminal(t, err, "column-list")
}

// Case 161, for the publication: the mend is the SQL to run.
func TestCase161PublicationRights(t *testing.T) {
	db := cdctest.Database(t)
	role := db.Name + "_r"
	s := openOps(t, db, func(c *Config) { c.URL = asRole(t, db.URL, role) },
		"CREATE TABLE a(id int PRIMARY KEY)", "CREATE ROLE "+role+" LOGIN REPLICATION", "GRANT SELECT ON a TO "+role)
	dropRole(t, db, role)
	_, err := s.Publish(t.Context(), mustTables(t, s))
	wantTerminal(t, err, "publication-rights", `CREATE PUBLICATION "pub" FOR TABLE ONLY "public"."a"`)
	te, _ := asTerminal(err)
	_, sql, _ := strings.Cut(te.Mend, "\n")
	db.Exec(t, sql)
	if changed, err := s.Publish(t.Context(), mustTables(t, s)); err != nil || changed {
		t.Fatalf("after the mend: got %t, %v", changed, err)
	}
	equalRows(t, copyAll(t, s, 1), nil)
}

// dropRole ends a role with the test: roles outlive a database.
func dropRole(t testing.TB, db *cdctest.DB, role string) {
	t.Helper()
	t.Cleanup(func() { db.Exec(t, "DROP OWNED BY "+role, "DROP ROLE "+role) })
}
