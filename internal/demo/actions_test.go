package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdctest"
	"cdc/internal/config"
	"cdc/internal/intent"
)

// tries is how often an action may find nobody to do it with; a full house of
// students, for one, makes join wait.
const tries = 60

// phase is the configuration of a run, before anything was added or behind it.
func phase(t *testing.T, added bool) *config.Config {
	t.Helper()
	text, err := places{Postgres: "postgres://postgres@127.0.0.1:1/university", Dir: "x", Broker: DefaultBroker, Admin: DefaultAdmin, Added: added}.render()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse("cdc.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatalf("parse the configuration: %v\n%s", err, text)
	}
	return cfg
}

// founded is a university as it is founded, in a database of its own.
func founded(t *testing.T) (*cdctest.DB, *university) {
	t.Helper()
	db := cdctest.Database(t)
	u := &university{url: db.URL, conn: db.Conn(t)}
	for range 2 { // a later run finds everything there
		if err := u.prepare(t.Context()); err != nil {
			t.Fatalf("prepare the university: %v", err)
		}
		t.Cleanup(u.store.Close)
		if err := u.found(t.Context(), definitions(phase(t, false)), 1); err != nil {
			t.Fatalf("found the university: %v", err)
		}
	}
	return db, u
}

// Every action comes to do what it is for, on the university as it is founded.
func TestActions(t *testing.T) {
	db, u := founded(t)
	if got := db.Value(t, "SELECT count(*) FROM students"); got != fmt.Sprint(firstStudents) {
		t.Fatalf("students after founding twice: got %s, want %d", got, firstStudents)
	}
	db.Exec(t, fmt.Sprintf(`INSERT INTO feedback (student_id, course_id, kind, body)
		SELECT 1000, 'ddia', 'praise', 'good' FROM generate_series(1, %d)`, keptFeedback+10))
	rng := rand.New(rand.NewPCG(7, 7))
	for _, a := range actions {
		t.Run(a.name, func(t *testing.T) {
			var err error
			for range tries {
				err = pgx.BeginFunc(context.Background(), u.conn, func(tx pgx.Tx) error { return a.do(context.Background(), tx, rng) })
				if !errors.Is(err, errNobody) {
					break
				}
				if a.name == "accept" { // nobody was offered a place
					offerPlace(t, db, u)
				}
			}
			switch {
			case a.name == "regret":
				if !errors.Is(err, errRegret) {
					t.Errorf("got %v, want %v", err, errRegret)
				}
			case err != nil:
				t.Errorf("got %v", err)
			}
		})
	}
}

// offerPlace has somebody wait for a course and be offered a place of it.
func offerPlace(t *testing.T, db *cdctest.DB, u *university) {
	t.Helper()
	db.Exec(t, "UPDATE courses SET capacity = 60 WHERE id = 'music'")
	err := pgx.BeginFunc(t.Context(), u.conn, func(tx pgx.Tx) error {
		var student int64
		err := tx.QueryRow(t.Context(), `SELECT id FROM students
			WHERE NOT EXISTS (SELECT FROM views.enrolments WHERE course = 'music' AND student = id) ORDER BY id LIMIT 1`).Scan(&student)
		if err != nil {
			return err
		}
		var m meaning
		m.add("music", "student-waitlisted", map[string]any{"student": student})
		m.add("music", "place-offered", map[string]any{"student": student})
		return m.append(t.Context(), tx, office, intent.ID{})
	})
	if err != nil {
		t.Fatalf("offer a place: %v", err)
	}
}

// What is left behind by a student who has left or has another number is nothing.
func TestLeavingAndRenumbering(t *testing.T) {
	db, u := founded(t)
	rng := rand.New(rand.NewPCG(3, 3))
	for range 20 {
		for _, do := range []func(context.Context, pgx.Tx, *rand.Rand) error{leave, renumber} {
			if err := pgx.BeginFunc(t.Context(), u.conn, func(tx pgx.Tx) error { return do(t.Context(), tx, rng) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	for what, query := range map[string]string{
		"places of nobody":     "SELECT count(*) FROM views.enrolments WHERE student NOT IN (SELECT id FROM students)",
		"appends of one event": "SELECT (count(*) = 0)::int FROM es.event WHERE type = 'enrolment-cancelled' GROUP BY meta->>'actor' HAVING count(*) > 1 LIMIT 1",
	} {
		if got := db.Value(t, query); got != "0" {
			t.Errorf("%s: got %s, want 0", what, got)
		}
	}
}

// A university of an earlier version is not continued: its enrolments have no events.
func TestOlderUniversity(t *testing.T) {
	db := cdctest.Database(t)
	db.Exec(t, "CREATE TABLE enrolments (student_id int, course_id text)")
	u := &university{url: db.URL, conn: db.Conn(t)}
	if err := u.prepare(t.Context()); !errors.Is(err, errOlder) || !strings.Contains(err.Error(), "--fresh") {
		t.Errorf("prepare: got %v, want %v", err, errOlder)
	}
}

// Places are picked all over the table, not only at its beginning.
func TestPickingIsSpread(t *testing.T) {
	_, u := founded(t)
	rng := rand.New(rand.NewPCG(1, 1))
	seen := map[int]bool{}
	err := pgx.BeginFunc(context.Background(), u.conn, func(tx pgx.Tx) error {
		for range 100 {
			var id int
			if err := find(context.Background(), tx, rng, anyStudent, &id); err != nil {
				return err
			}
			seen[id] = true
		}
		return nil
	})
	if err != nil {
		t.Fatalf("pick students: %v", err)
	}
	if len(seen) < 30 {
		t.Errorf("100 picks of %d students gave %d different ones, want more than 30", firstStudents, len(seen))
	}
}

func TestWorkload(t *testing.T) {
	db, u := founded(t)
	t.Run("ends at its limit", func(t *testing.T) {
		w := &workload{url: db.URL, seed: 1, rate: 1000, limit: 200}
		if err := w.run(t.Context(), t.Context()); err != nil {
			t.Fatalf("run: %v", err)
		}
		if n := w.committed.Load(); n < 100 || n > 200 {
			t.Errorf("committed: got %d of 200, want more than half", n)
		}
	})
	t.Run("ends with its context, in order", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		w := &workload{url: db.URL, seed: 2, rate: 500}
		if err := w.run(ctx, t.Context()); err != nil {
			t.Errorf("run: got %v, want nil: what was begun is finished", err)
		}
	})
	t.Run("leaves views that are what a replay gives", func(t *testing.T) {
		numberAll(t, u)
		results, err := judgeViews(t.Context(), u)
		if err != nil {
			t.Fatalf("compare views: %v", err)
		}
		if len(results) != 2 || !results[0].Equal || !results[1].Equal || results[0].Rows == 0 || results[1].Rows == 0 {
			t.Errorf("got %+v, want two views, equal and not empty", results)
		}
	})
	t.Run("fails with its database", func(t *testing.T) {
		db.Exec(t, "ALTER TABLE feedback RENAME TO complaints")
		w := &workload{url: db.URL, seed: 3, rate: 500}
		if err := w.run(t.Context(), t.Context()); err == nil {
			t.Error("run: got nil, want that a table is missing")
		}
	})
}
