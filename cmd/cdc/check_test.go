package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdctest"
)

// Everything is there: 0, and nothing is changed.
func TestCheckGoodSetup(t *testing.T) {
	t.Parallel()
	r := onCluster(t)
	r.db.Exec(t, "CREATE TABLE t(id int PRIMARY KEY)")
	path := file(t, r.yaml())
	code, out, errOut := command(t, "check", "--config", path)
	if code != 0 || errOut != "" {
		t.Errorf("check exits with %d\n%s%s", code, out, errOut)
	}
	for _, want := range []string{
		"ok       kafka answers at " + r.brokers[0],
		"wal_level is logical", "role postgres may replicate", `will be made by the first snapshot`, "2 topics will be created at the start",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if seen := linesTwice(out); seen != "" {
		t.Errorf("told twice: %q", seen)
	}
	if n := r.db.Value(t, "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())"); n != "0" {
		t.Errorf("check made %s publications and slots", n)
	}
}

func linesTwice(out string) string {
	seen := map[string]bool{}
	for line := range strings.Lines(out) {
		if seen[line] {
			return line
		}
		seen[line] = true
	}
	return ""
}

// 161: a role without any right is told, for each that it lacks, the SQL that
// grants it; run as printed it makes the check pass, and the program run.
func TestCase161RightsAreMendedBySQL(t *testing.T) {
	t.Parallel()
	r := onCluster(t)
	role := r.db.Name + "_role"
	r.db.Exec(t, fmt.Sprintf("CREATE ROLE %s LOGIN", role), "CREATE SCHEMA uni", `CREATE TABLE uni."T"(id int PRIMARY KEY)`, `INSERT INTO uni."T" VALUES (1)`)
	t.Cleanup(func() { r.db.Exec(t, "DROP OWNED BY "+role, "DROP ROLE "+role) })
	superuser := r.url
	r.url = strings.Replace(r.url, "postgres://postgres", "postgres://"+role, 1)
	if r.url == superuser {
		t.Fatalf("no user in %q", r.url)
	}
	yaml := r.yamlOf(r.pipeline(r.db.Name, `tables: ["uni.*"]`))
	path := file(t, yaml)
	wrong := findings(t, path, exitEnvironment)
	for _, want := range []string{"may not replicate", "uni", "publication"} {
		if !slices.ContainsFunc(wrong, func(f finding) bool { return strings.Contains(f.What, want) }) {
			t.Errorf("nothing is said of %q: %+v", want, wrong)
		}
	}
	mended(t, r, path)
	p := r.start(yaml)
	r.records(r.db.Name+".uni.T", 1)
	p.Stop(t)
}

// mended runs, as the superuser, what each finding says, until none is left.
// Rights that can be seen only once others are there take a second round.
func mended(t *testing.T, r *rig, path string) {
	t.Helper()
	for range 3 {
		code, _, _ := command(t, "check", "--config", path)
		if code == 0 {
			return
		}
		for _, f := range findings(t, path, code) {
			if f.Mend == "" {
				t.Fatalf("nothing mends %q", f.What)
			}
			r.db.Exec(t, f.Mend)
		}
	}
	t.Fatalf("the check still fails: %+v", findings(t, path, exitEnvironment))
}

// 162: wal_level=replica is mended by the SQL that is printed, and a restart.
func TestCase162WALLevel(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, map[string]string{"wal_level": "replica"})
	db := pg.Database(t)
	db.Exec(t, "CREATE TABLE t(id int PRIMARY KEY)")
	if db.Value(t, "SELECT current_setting('server_version_num')::int >= 190000") == "t" {
		t.Skip("a slot raises wal_level by itself")
	}
	r := rigOn(t, db, cdctest.Kafka(t).Brokers)
	path := file(t, r.yaml())
	wrong := findings(t, path, exitEnvironment)
	if len(wrong) != 1 || !strings.Contains(wrong[0].What, "wal_level is replica, want logical") {
		t.Fatalf("findings %+v", wrong)
	}
	if !strings.Contains(wrong[0].Mend, "restart Postgres") {
		t.Errorf("%q does not name the restart", wrong[0].Mend)
	}
	db.Exec(t, wrong[0].Mend)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := pg.Stop(ctx, "fast"); err != nil {
		t.Fatal(err)
	}
	if err := pg.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut := command(t, "check", "--config", path); code != 0 {
		t.Errorf("check exits with %d after SQL and restart\n%s%s", code, out, errOut)
	}
}

// 83: a table without a key is named with the SQL that gives it one.
func TestCase083UnkeyedTableIsMendedBySQL(t *testing.T) {
	t.Parallel()
	r := onCluster(t)
	r.db.Exec(t, "CREATE TABLE audit(a int)", "INSERT INTO audit VALUES (1), (1)")
	path := file(t, r.yaml())
	wrong := findings(t, path, exitEnvironment)
	if len(wrong) != 1 || !strings.Contains(wrong[0].What, "public.audit has no primary key") {
		t.Fatalf("findings %+v", wrong)
	}
	_, out, errOut := command(t, "check", "--config", path)
	if !strings.Contains(out, "\n         ALTER TABLE \"public\".\"audit\" ADD COLUMN") || !strings.Contains(errOut, "checks failed") {
		t.Errorf("printed\n%s%s", out, errOut)
	}
	r.db.Exec(t, wrong[0].Mend)
	if code, out, errOut := command(t, "check", "--config", path); code != 0 {
		t.Errorf("check exits with %d after the SQL was run\n%s%s", code, out, errOut)
	}
}

// Nobody answers: 3, with what to do, in every command.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	r := onCluster(t)
	r.db.Exec(t, "CREATE TABLE t(id int PRIMARY KEY)")
	nowhere := address(cdctest.FreePort(t))
	noKafka := file(t, strings.Replace(r.yaml(), r.brokers[0], nowhere, 1))
	noPostgres := file(t, strings.Replace(r.yaml(), address(r.db.Server.Port()), nowhere, 1))
	for _, tt := range []struct {
		name, path, mend string
	}{
		{"kafka", noKafka, "Start the broker, or correct kafka.brokers"},
		{"postgres", noPostgres, "Start Postgres, or correct postgres.url"},
	} {
		wrong := findings(t, tt.path, exitEnvironment)
		if !slices.ContainsFunc(wrong, func(f finding) bool {
			return strings.Contains(f.What, "refused") && strings.Contains(f.Mend, tt.mend)
		}) {
			t.Errorf("%s: findings %+v, want one with %q", tt.name, wrong, tt.mend)
		}
		for _, args := range [][]string{{"topics"}, {"drop", r.db.Name, "--yes"}} {
			if code, _, errOut := command(t, append(args, "--config", tt.path)...); code != exitEnvironment || !strings.Contains(errOut, nowhere) {
				t.Errorf("%s: %v exits with %d: %s", tt.name, args, code, errOut)
			}
		}
	}
	if code, _, errOut := command(t, "tail", "x", "--config", noKafka); code != exitEnvironment {
		t.Errorf("tail exits with %d: %s", code, errOut)
	}
}

// 26, 176, 189: what the configuration itself says is refused with file, line and
// column, by every command, before anything is asked for.
func TestCase189ConfigurationIsRefused(t *testing.T) {
	base := `postgres: {url: "postgres://u@127.0.0.1:1/uni"}
kafka: {brokers: ["127.0.0.1:1"]}
pipelines:
`
	for _, tt := range []struct{ name, yaml, want string }{
		{"189 one topic for two pipelines", base + "  a: {tables: [\"public.t\"], topic: rows}\n  b: {tables: [\"public.t\"], topic: rows}\n", ":5:36: pipelines.b.topic: tables \"public.t\" here and \"public.t\" of pipeline a get the same topic"},
		{"26 slot name with a capital", base + "  a: {tables: [\"public.t\"], slot: {name: Bad-Name}}\n", `:4:42: pipelines.a.slot.name: "Bad-Name" is not a slot name`},
		{"26 slot name of 64 characters", base + "  a: {tables: [\"public.t\"], slot: {name: " + strings.Repeat("a", 64) + "}}\n", ":4:42: pipelines.a.slot.name: "},
		{"176 table twice", base + "  a: {tables: [\"public.t\", \"public.t\"]}\n", `:4:28: pipelines.a.tables[1]: "public.t" is listed twice`},
		{"176 URL with a percent sign", strings.Replace(base, "u@", "u:ge%zzheim@", 1) + "  a: {tables: [\"public.t\"]}\n", ":1:17: postgres.url: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := file(t, tt.yaml)
			for _, args := range [][]string{{"run"}, {"check"}, {"topics"}, {"tail", "x"}, {"drop", "a"}, {"status"}} {
				code, out, errOut := command(t, append(args, "--config", path)...)
				if code != exitUsage || out != "" || !strings.HasPrefix(errOut, path+":") || !strings.Contains(errOut, tt.want) {
					t.Errorf("%v exits with %d: %q, want %d and %q in it", args, code, errOut, exitUsage, tt.want)
				}
				if strings.Contains(errOut, "heim") {
					t.Errorf("%v shows the password: %q", args, errOut)
				}
			}
		})
	}
}
