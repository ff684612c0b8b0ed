package eventstore

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

// terminal is the TerminalError in err, which must have a reason.
func terminal(t testing.TB, err error, reason string) *cdc.TerminalError {
	t.Helper()
	var te *cdc.TerminalError
	if !errors.As(err, &te) || te.Reason != reason {
		t.Fatalf("got %v, want a terminal error %s", err, reason)
	}
	return te
}

func TestInitTwice(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	db := cdctest.Database(t)
	first, err := Init(ctx, db.URL, InitOptions{})
	if err != nil || first.From != 0 || first.To != Version || first.Database != db.Name {
		t.Fatalf("got %+v, %v", first, err)
	}
	store := db.Value(t, "select store from es.meta")
	db.Exec(t, "select * from es.append('[{\"stream\": \"a/1\"}]')", "create view public.objects as select oid, xmin::text, proacl::text from pg_proc where pronamespace = 'es'::regnamespace")
	objects := db.Query(t, "table public.objects order by 1")
	second, err := Init(ctx, db.URL, InitOptions{})
	if err != nil || second.From != Version || second.To != Version {
		t.Fatalf("again: got %+v, %v", second, err)
	}
	if got := db.Query(t, "table public.objects order by 1"); fmt.Sprint(got) != fmt.Sprint(objects) || db.Value(t, "select store from es.meta") != store {
		t.Error("the second Init changed something")
	}
	plan, err := Plan(ctx, db.URL, InitOptions{})
	if err != nil || plan != "-- nothing to do\n" {
		t.Errorf("plan: got %q, %v", plan, err)
	}
}

// TestInitAtOnce: the roles are the cluster's, so Inits of other databases meet, and
// those of the same.
func TestInitAtOnce(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, nil)
	ctx := testContext(t)
	var dbs []*cdctest.DB
	for range 4 {
		dbs = append(dbs, pg.Database(t))
	}
	dbs[0].Exec(t, "create role d login", "create role a login")
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			if _, err := Init(ctx, dbs[i%len(dbs)].URL, InitOptions{Daemon: "d", App: "a"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, db := range dbs {
		if n := db.Value(t, "select count(*) from es.meta"); n != "1" {
			t.Errorf("%s: got %s rows in es.meta", db.Name, n)
		}
	}
}

func TestInitRefuses(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	for name, c := range map[string]struct {
		sql, reason string
		o           InitOptions
	}{
		"a newer version":       {"ES; update es.meta set version = 99", "store-version", InitOptions{}},
		"a schema es of others": {"create schema es", "store-name", InitOptions{}},
		"tables named alike":    {"create schema es; create table es.meta (n int)", "store-name", InitOptions{}},
		"a schema views":        {"create schema views", "store-name", InitOptions{}},
		"no such daemon":        {"", "role-missing", InitOptions{Daemon: "no such login"}},
		"no such application":   {"", "role-missing", InitOptions{App: "no such login"}},
	} {
		db := cdctest.Database(t)
		if rest, ok := strings.CutPrefix(c.sql, "ES; "); ok {
			if _, err := Init(ctx, db.URL, InitOptions{}); err != nil {
				t.Fatal(err)
			}
			c.sql = rest
		}
		db.Exec(t, c.sql)
		before := db.Query(t, "select oid, relname from pg_class where oid >= 16384 order by 1")
		_, err := Init(ctx, db.URL, c.o)
		if te := terminal(t, err, c.reason); te.Mend == "" {
			t.Errorf("%s: the error does not say what to do", name)
		}
		if _, err := Plan(ctx, db.URL, c.o); err == nil {
			t.Errorf("%s: there is a plan", name)
		}
		if after := db.Query(t, "select oid, relname from pg_class where oid >= 16384 order by 1"); fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("%s: something was made", name)
		}
	}
	latin := cdctest.Database(t)
	latin.Exec(t, "create database "+latin.Name+"_latin encoding 'LATIN1' template template0 lc_collate 'C' lc_ctype 'C'")
	defer latin.Exec(t, "drop database "+latin.Name+"_latin")
	_, err := Init(ctx, latin.Server.URL(latin.Name+"_latin"), InitOptions{})
	terminal(t, err, "store-server")
}

func TestOpenSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	db := cdctest.Database(t)
	_, err := Open(ctx, Config{URL: db.URL})
	if te := terminal(t, err, "store-missing"); te.Mend != "cdc es init" {
		t.Errorf("got mend %q", te.Mend)
	}
	if _, err := Init(ctx, db.URL, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = Open(ctx, Config{URL: member(t, db, "nobody")})
	terminal(t, err, "store-rights")
	if _, err = Open(ctx, Config{URL: db.URL, Role: "no such role"}); err == nil {
		t.Error("opened with a role that is not there")
	}
	for version, mend := range map[int]string{Version + 1: "Install the newer program.", Version - 1: "cdc es init"} {
		db.Exec(t, fmt.Sprintf("update es.meta set version = %d", version))
		_, err = Open(ctx, Config{URL: db.URL})
		if te := terminal(t, err, "store-version"); te.Mend != mend {
			t.Errorf("version %d: got mend %q, want %q", version, te.Mend, mend)
		}
	}
	if _, err := Open(ctx, Config{URL: "postgres://u:secret@host:port/db"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want an error without the password", err)
	}
}

// TestInitWithoutSuperuser has a login that may make roles, and one that may not and
// gets what it lacks from the error.
func TestInitWithoutSuperuser(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, nil)
	ctx := testContext(t)
	o := InitOptions{Daemon: "the daemon", App: "app"}
	first := pg.Database(t)
	first.Exec(t, "create role maker login createrole", `create role "the daemon" login`, "create role app login", "create role plain login", "create role other login createrole",
		"grant create on database "+first.Name+" to maker, \"the daemon\"")

	// Without a right: told, and nothing made.
	_, err := Init(ctx, asLogin(t, first.URL, "plain"), o)
	missing := terminal(t, err, "store-rights")
	for _, sql := range []string{"CREATE ROLE es_owner NOLOGIN;", "GRANT es_owner TO \"plain\";", "GRANT es_view TO \"the daemon\";", "GRANT es_writer TO \"app\";", "GRANT CREATE ON DATABASE"} {
		if !strings.Contains(missing.Mend, sql) {
			t.Errorf("the mend lacks %s:\n%s", sql, missing.Mend)
		}
	}

	plan, err := Plan(ctx, asLogin(t, first.URL, "maker"), o)
	if err != nil {
		t.Fatal(err)
	}
	report, err := Init(ctx, asLogin(t, first.URL, "maker"), o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(report.Notes), `[ALTER ROLE "the daemon" REPLICATION;]`; got != want {
		t.Errorf("notes: got %s, want %s", got, want)
	}
	checkRoles(t, first, "the daemon", "app")
	again, err := Init(ctx, asLogin(t, first.URL, "maker"), o)
	if err != nil || again.From != Version {
		t.Fatalf("again: %+v, %v", again, err)
	}
	// The daemon, a member, may init as well; so it can migrate.
	if again, err = Init(ctx, asLogin(t, first.URL, "the daemon"), InitOptions{}); err != nil || again.From != Version {
		t.Fatalf("as the daemon: %+v, %v", again, err)
	}

	// The roles are there, in another database; the mend is enough.
	second := pg.Database(t)
	for _, login := range []string{"plain", "other"} {
		_, err = Init(ctx, asLogin(t, second.URL, login), InitOptions{})
		if err == nil && login == "other" {
			continue // before 16 CREATEROLE gives itself every membership
		}
		missing = terminal(t, err, "store-rights")
		if strings.Contains(missing.Mend, "CREATE ROLE") {
			t.Errorf("the mend makes roles that are there:\n%s", missing.Mend)
		}
		second.Exec(t, missing.Mend)
		if report, err = Init(ctx, asLogin(t, second.URL, login), InitOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	checkRoles(t, second, "the daemon", "app")

	// The plan does the same for an administrator, in a cluster that has no roles.
	bare := cdctest.PrivatePostgres(t, nil)
	third := bare.Database(t)
	third.Exec(t, "create role maker login createrole", `create role "the daemon" login`, "create role app login", "grant create on database "+third.Name+" to maker")
	third.Exec(t, strings.ReplaceAll(plan, first.Name, third.Name))
	checkRoles(t, third, "the daemon", "app")
}

// checkRoles has the daemon do an owner's work and the application append.
func checkRoles(t testing.TB, db *cdctest.DB, daemon, app string) {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, asLogin(t, db.URL, daemon))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range []string{
		"insert into es.reader values (true, 's', '1', 1, '0/8', now())", "delete from es.reader",
		"create function es.tick() returns trigger language plpgsql as $$ begin return null; end $$", "alter function es.tick() owner to es_owner",
		"create trigger tick after insert on es.event for each row execute function es.tick()", "drop trigger tick on es.event", "drop function es.tick()",
		"create table views.t (n int)", "alter table views.t owner to es_view", "drop table views.t",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatalf("the daemon: %s: %v", sql, err)
		}
	}
	s, err := Open(ctx, Config{URL: asLogin(t, db.URL, app)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustAppend(t, s, one("a/1", intent.Any, "x"))
	if _, err := s.Pool().Exec(ctx, "select from es.event"); err == nil {
		t.Error("the application may read es.event")
	}
}

// TestOnlyStepsThatAreMissing walks the plan from every version.
func TestOnlyStepsThatAreMissing(t *testing.T) {
	t.Parallel()
	f := facts{schema: RoleOwner, views: RoleView, meta: true}
	for from := range Version + 1 {
		steps, err := f.schemaSteps(from)
		if err != nil {
			t.Fatal(err)
		}
		if (len(steps) == 0) != (from == Version) {
			t.Errorf("from version %d: %d steps", from, len(steps))
		}
	}
	if _, err := f.schemaSteps(Version + 1); err == nil {
		t.Error("there is a way back from a newer version")
	}
	if _, err := migration(Version + 1); err == nil {
		t.Errorf("there is a migration to version %d, and Version is %d", Version+1, Version)
	}
}
