package source

import (
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

func TestTables(t *testing.T) {
	for _, c := range []struct {
		name   string
		ddl    string
		config func(*Config)
		want   map[string][]string // table → key; nil: a fault
		reason string
		text   []string // of the error
		mend   []string
	}{
		{name: "primary key in its own order", ddl: "CREATE TABLE t(a int, b int, c text, PRIMARY KEY (c, a))",
			want: map[string][]string{"public.t": {"c", "a"}}},
		{name: "excluded", ddl: "CREATE TABLE t(a int PRIMARY KEY); CREATE TABLE log(x int)",
			config: func(c *Config) { c.Exclude = []string{"public.lo?"} }, want: map[string][]string{"public.t": {"a"}}},
		{name: "pattern without a table", ddl: "CREATE TABLE t(a int PRIMARY KEY)",
			config: func(c *Config) { c.Include = []string{"public.t", "public.nope*", "shop.x"} },
			reason: "table-pattern", text: []string{`"public.nope*" matches no table`, `"shop.x" matches no table`}},
		{name: "pattern without schema", config: func(c *Config) { c.Include = []string{"t"} },
			reason: "table-pattern", text: []string{"want schema.table"}},
		{name: "view", ddl: "CREATE VIEW v AS SELECT 1", config: func(c *Config) { c.Include = []string{"public.v"} },
			reason: "table-pattern", text: []string{"public.v cannot be captured: it is a view"}},
		{name: "unlogged", ddl: "CREATE UNLOGGED TABLE u(a int PRIMARY KEY)", config: func(c *Config) { c.Include = []string{"public.u"} },
			reason: "table-pattern", text: []string{`ALTER TABLE "public"."u" SET LOGGED`}},
		{name: "partition by its own name", ddl: "CREATE TABLE p(a int PRIMARY KEY) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p DEFAULT",
			config: func(c *Config) { c.Include = []string{"public.p1"} }, reason: "table-pattern", text: []string{"through the root"}},
		{name: "partitioned, deep", ddl: `CREATE TABLE p(a int, b int, PRIMARY KEY (b, a)) PARTITION BY RANGE (a);
			CREATE TABLE p1 PARTITION OF p DEFAULT PARTITION BY RANGE (b); CREATE TABLE p11 PARTITION OF p1 DEFAULT`,
			want: map[string][]string{"public.p": {"b", "a"}}},
		{name: "stray key", ddl: "CREATE TABLE t(a int PRIMARY KEY)",
			config: func(c *Config) { c.Key = map[string][]string{"public.tt": {"a"}} }, reason: "table-pattern", text: []string{`key is set for "public.tt"`}},
		{name: "no key", ddl: "CREATE TABLE t(a int)", reason: "unkeyed-table",
			text: []string{"public.t has no primary key"}, mend: []string{`ADD COLUMN cdc_id`, `REPLICA IDENTITY FULL`}},
		{name: "no key, but a unique index", ddl: "CREATE TABLE t(a int NOT NULL, b int NOT NULL); CREATE UNIQUE INDEX ti ON t(b, a)",
			reason: "unkeyed-table", mend: []string{`ALTER TABLE "public"."t" ADD PRIMARY KEY USING INDEX "ti";`}},
		{name: "every fault at once", ddl: "CREATE TABLE t(a int); CREATE TABLE u(a int); CREATE TABLE v(a int PRIMARY KEY); ALTER TABLE v REPLICA IDENTITY NOTHING",
			reason: "unkeyed-table", text: []string{"public.t has", "public.u has", "public.v:"}, mend: []string{`"public"."t"`, `"public"."u"`, `ALTER TABLE "public"."v" REPLICA IDENTITY DEFAULT;`}},
		{name: "deferrable", ddl: "CREATE TABLE t(a int PRIMARY KEY DEFERRABLE)", reason: "deferrable-key",
			mend: []string{`ALTER TABLE "public"."t" DROP CONSTRAINT "t_pkey", ADD CONSTRAINT "t_pkey" PRIMARY KEY ("a");`}},
		{name: "identity by index outside the key", ddl: "CREATE TABLE t(id int PRIMARY KEY, code text NOT NULL UNIQUE); ALTER TABLE t REPLICA IDENTITY USING INDEX t_code_key",
			reason: "key-outside-identity", mend: []string{`ALTER TABLE "public"."t" REPLICA IDENTITY DEFAULT;`, `key: {"public.t": [code]}`}},
		{name: "identity by index, key configured", ddl: "CREATE TABLE t(id int PRIMARY KEY, code text NOT NULL UNIQUE); ALTER TABLE t REPLICA IDENTITY USING INDEX t_code_key",
			config: func(c *Config) { c.Key = map[string][]string{"public.t": {"code"}} }, want: map[string][]string{"public.t": {"code"}}},
		{name: "configured key with a nullable column", ddl: "CREATE TABLE t(a int, b int NOT NULL); ALTER TABLE t REPLICA IDENTITY FULL",
			config: func(c *Config) { c.Key = map[string][]string{"public.t": {"b", "a"}} },
			reason: "nullable-key", mend: []string{`ALTER COLUMN "a" SET NOT NULL`}},
		{name: "configured key that is not there", ddl: "CREATE TABLE t(a int PRIMARY KEY)",
			config: func(c *Config) { c.Key = map[string][]string{"public.t": {"z"}} }, reason: "unkeyed-table", text: []string{`no column "z"`}},
		{name: "configured key of a deferrable constraint", ddl: "CREATE TABLE t(a int NOT NULL UNIQUE DEFERRABLE); ALTER TABLE t REPLICA IDENTITY FULL",
			config: func(c *Config) { c.Key = map[string][]string{"public.t": {"a"}} }, reason: "deferrable-key"},
		{name: "full with a primary key", ddl: "CREATE TABLE t(a int PRIMARY KEY, b int); ALTER TABLE t REPLICA IDENTITY FULL",
			want: map[string][]string{"public.t": {"a"}}},
		{name: "leaf with another identity", ddl: `CREATE TABLE p(a int PRIMARY KEY) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p DEFAULT;
			ALTER TABLE p1 REPLICA IDENTITY NOTHING`, reason: "key-outside-identity", mend: []string{`ALTER TABLE "public"."p1" REPLICA IDENTITY DEFAULT;`}},
		{name: "root full, leaf not", ddl: `CREATE TABLE p(a int PRIMARY KEY) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p DEFAULT;
			ALTER TABLE p REPLICA IDENTITY FULL`, reason: "key-outside-identity", mend: []string{`ALTER TABLE "public"."p1" REPLICA IDENTITY FULL;`}},
		{name: "column list without the key", ddl: "CREATE TABLE t(a int PRIMARY KEY, b int)",
			config: func(c *Config) { c.Columns = map[string][]string{"public.t": {"b"}} }, reason: "column-list", text: []string{`lack "a"`}},
		{name: "column list without the identity", ddl: "CREATE TABLE t(a int PRIMARY KEY, b int); ALTER TABLE t REPLICA IDENTITY FULL",
			config: func(c *Config) { c.Columns = map[string][]string{"public.t": {"a"}} }, reason: "column-list", mend: []string{"REPLICA IDENTITY DEFAULT"}},
		{name: "column list with an unknown column", ddl: "CREATE TABLE t(a int PRIMARY KEY)",
			config: func(c *Config) { c.Columns = map[string][]string{"public.t": {"a", "zz"}} }, reason: "column-list", text: []string{`no column "zz"`}},
		{name: "two tables that read the same", ddl: `CREATE SCHEMA "a.b"; CREATE TABLE "a.b".c(x int PRIMARY KEY); CREATE SCHEMA a; CREATE TABLE a."b.c"(x int PRIMARY KEY)`,
			config: func(c *Config) { c.Include = []string{"a*.*"} }, reason: "table-name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := openOps(t, cdctest.Database(t), c.config, c.ddl)
			tables, err := s.Tables(t.Context())
			if c.want == nil {
				wantTerminal(t, err, c.reason, c.mend...)
				for _, text := range c.text {
					if !strings.Contains(err.Error(), text) {
						t.Errorf("error: got %q, want it to hold %q", err, text)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(tables) != len(c.want) {
				t.Fatalf("got %v, want %v", names(tables), c.want)
			}
			for _, table := range tables {
				if want := c.want[table.FullName()]; !slices.Equal(table.Key, want) {
					t.Errorf("%s: got key %v, want %v", table.FullName(), table.Key, want)
				}
			}
		})
	}
}

// The mend of every fault, run as it stands, makes the table capturable.
func TestMendMends(t *testing.T) {
	for _, ddl := range []string{
		"CREATE TABLE t(a int NOT NULL, b int NOT NULL); CREATE UNIQUE INDEX ti ON t(b, a)",
		"CREATE TABLE t(a int)",
		"CREATE TABLE t(a int PRIMARY KEY DEFERRABLE)",
		"CREATE TABLE t(a int PRIMARY KEY, b int); ALTER TABLE t REPLICA IDENTITY NOTHING",
		"CREATE TABLE t(id int PRIMARY KEY, code text NOT NULL UNIQUE); ALTER TABLE t REPLICA IDENTITY USING INDEX t_code_key",
		"CREATE TABLE t(id int PRIMARY KEY, code text NOT NULL UNIQUE); ALTER TABLE t REPLICA IDENTITY USING INDEX t_code_key; DROP INDEX IF EXISTS nope; ALTER TABLE t DROP CONSTRAINT t_code_key",
		"CREATE TABLE t(a int NOT NULL, UNIQUE (a)) PARTITION BY RANGE (a); CREATE TABLE t1 PARTITION OF t DEFAULT",
		"CREATE TABLE t(a int PRIMARY KEY) PARTITION BY RANGE (a); CREATE TABLE t1 PARTITION OF t DEFAULT; ALTER TABLE t REPLICA IDENTITY FULL",
		"CREATE TABLE t(a int PRIMARY KEY) PARTITION BY RANGE (a); CREATE TABLE t1 PARTITION OF t DEFAULT; ALTER TABLE t1 REPLICA IDENTITY NOTHING",
	} {
		t.Run(ddl, func(t *testing.T) {
			t.Parallel()
			db := cdctest.Database(t)
			s := openOps(t, db, nil, ddl)
			_, err := s.Tables(t.Context())
			te, ok := asTerminal(err)
			if !ok {
				t.Fatalf("got %v, want a TerminalError", err)
			}
			db.Exec(t, te.Mend)
			if _, err := s.Tables(t.Context()); err != nil {
				t.Fatalf("after\n%s\ngot %v", te.Mend, err)
			}
		})
	}
}

// Case 47: odd names survive from pattern to snapshot.
func TestCase047OddNames(t *testing.T) {
	db := cdctest.Database(t)
	long := strings.Repeat("n", 63)
	s := openOps(t, db, func(c *Config) { c.Include = []string{"we ird.*"} },
		`CREATE SCHEMA "we ird"`,
		`CREATE TABLE "we ird"."T""a.b,c"("Id X" int, "ü😀" text, "select" int, PRIMARY KEY ("select", "Id X"))`,
		`INSERT INTO "we ird"."T""a.b,c" VALUES (1, 'v', 2)`,
		`CREATE TABLE "we ird".`+long+`(`+long+` int PRIMARY KEY)`, `INSERT INTO "we ird".`+long+` VALUES (5)`)
	got := copyAll(t, s, 2)
	equalRows(t, got, []string{`we ird.T"a.b,c|1|v|2`, "we ird." + long + "|5"})
	tables := mustTables(t, s)
	if want := []string{"select", "Id X"}; !slices.Equal(tables[0].Key, want) {
		t.Fatalf("key: got %v, want %v", tables[0].Key, want)
	}
}

// Case 56: a primary key that is dropped or changed is seen at the next start.
func TestCase056KeyChanged(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY, other int NOT NULL)")
	mustTables(t, s)
	db.Exec(t, "ALTER TABLE t DROP CONSTRAINT t_pkey")
	_, err := s.Tables(t.Context())
	wantTerminal(t, err, "unkeyed-table")
	db.Exec(t, "ALTER TABLE t ADD PRIMARY KEY (id, other)")
	if got := mustTables(t, s)[0].Key; !slices.Equal(got, []string{"id", "other"}) {
		t.Fatalf("got key %v, want [id other]", got)
	}
}

// Case 57: every replica identity is judged as it stands.
func TestCase057ReplicaIdentity(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY, code text NOT NULL UNIQUE)")
	for _, c := range []struct {
		identity string
		ok       bool
		want     cdc.ReplicaIdentity
	}{{"FULL", true, cdc.IdentityFull}, {"USING INDEX t_code_key", false, 0}, {"NOTHING", false, 0}, {"USING INDEX t_pkey", true, cdc.IdentityIndex}, {"DEFAULT", true, cdc.IdentityDefault}} {
		db.Exec(t, "ALTER TABLE t REPLICA IDENTITY "+c.identity)
		tables, err := s.Tables(t.Context())
		if !c.ok {
			wantTerminal(t, err, "key-outside-identity", "REPLICA IDENTITY DEFAULT")
			continue
		}
		if err != nil || tables[0].Identity != c.want {
			t.Errorf("%s: got %+v, %v", c.identity, tables, err)
		}
	}
}

// Case 58: a dropped identity index is named.
func TestCase058IdentityIndexDropped(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY, code text NOT NULL)", "CREATE UNIQUE INDEX i ON t(id)",
		"ALTER TABLE t REPLICA IDENTITY USING INDEX i", "DROP INDEX i")
	_, err := s.Tables(t.Context())
	wantTerminal(t, err, "key-outside-identity", "REPLICA IDENTITY DEFAULT")
	if !strings.Contains(err.Error(), "the index is gone") {
		t.Fatalf("got %v, want it to say that the index is gone", err)
	}
}

// Case 64: only logged tables that hold rows themselves are captured.
func TestCase064Kinds(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(a int PRIMARY KEY)", "CREATE UNLOGGED TABLE u(a int PRIMARY KEY)",
		"CREATE MATERIALIZED VIEW m AS SELECT 1 AS a", "CREATE VIEW v AS SELECT 1 AS a",
		"CREATE TABLE ctas AS SELECT 1 AS a", "ALTER TABLE ctas ALTER a SET NOT NULL, ADD PRIMARY KEY (a)",
		"CREATE PUBLICATION pub FOR ALL TABLES WITH (publish_via_partition_root = true)")
	c := db.Conn(t)
	if _, err := c.Exec(t.Context(), "CREATE TEMP TABLE tmp(a int PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	if got, want := names(mustTables(t, s)), []string{"public.ctas", "public.t"}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if changed, err := s.Publish(t.Context(), mustTables(t, s)); err != nil || changed {
		t.Fatalf("publish: got %t, %v, want false: it covers all tables", changed, err)
	}
	equalRows(t, copyAll(t, s, 1), []string{"public.ctas|1"})
}

// Case 65: parent and child are two tables, and no row comes twice.
func TestCase065Inheritance(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE parent(a int PRIMARY KEY)", "CREATE TABLE child(b int, PRIMARY KEY (a)) INHERITS (parent)",
		"INSERT INTO parent VALUES (1)", "INSERT INTO child VALUES (2, 20)")
	equalRows(t, copyAll(t, s, 2), []string{"public.child|2|20", "public.parent|1"})
	alone := openOps(t, db, func(c *Config) { c.Include, c.Publication = []string{"public.parent"}, "alone" })
	equalRows(t, copyAll(t, alone, 2), []string{"public.parent|1"})
	_, published, err := alone.PublicationState(t.Context())
	if err != nil || !slices.Equal(published, []string{"public.parent"}) {
		t.Fatalf("published: got %v, %v, want the parent alone", published, err)
	}
}

// Cases 83 to 85: no key, full identity without one, a key that may be NULL.
func TestCase083NoPrimaryKey(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(a int)")
	_, err := s.Tables(t.Context())
	wantTerminal(t, err, "unkeyed-table")
	if got := db.Value(t, "SELECT count(*) FROM pg_publication"); got != "0" {
		t.Fatalf("got %s publications, want none: refused before anything is published", got)
	}
	db.Exec(t, "INSERT INTO t VALUES (1)", "UPDATE t SET a = 2", "DELETE FROM t") // the application's own are untouched
}

func TestCase084FullWithoutKey(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(a int NOT NULL, b int)", "ALTER TABLE t REPLICA IDENTITY FULL", "INSERT INTO t VALUES (1, 1), (1, 1)")
	_, err := s.Tables(t.Context())
	wantTerminal(t, err, "unkeyed-table", "key:")
	keyed := openOps(t, db, func(c *Config) { c.Key = map[string][]string{"public.t": {"a"}} })
	if got := mustTables(t, keyed)[0].Key; !slices.Equal(got, []string{"a"}) {
		t.Fatalf("got key %v, want [a]", got)
	}
	if !slices.ContainsFunc(keyed.Check(t.Context()), func(f Finding) bool {
		return !f.OK && f.Level == LevelWarning && strings.Contains(f.What, "unique")
	}) {
		t.Fatal("check says nothing of a key that is not unique")
	}
}

func TestCase085NullKey(t *testing.T) {
	s := openOps(t, cdctest.Database(t), func(c *Config) { c.Key = map[string][]string{"public.t": {"a"}} },
		"CREATE TABLE t(a int)", "ALTER TABLE t REPLICA IDENTITY FULL")
	_, err := s.Tables(t.Context())
	wantTerminal(t, err, "nullable-key", "SET NOT NULL")
}
