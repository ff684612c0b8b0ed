package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdctest"
)

// tries is how often an action may find nobody to do it with; a full house of
// students, for one, makes join wait.
const tries = 60

// Every action comes to do what it is for, on the university as it is founded.
func TestActions(t *testing.T) {
	db := cdctest.Database(t)
	u := &university{url: db.URL, conn: db.Conn(t)}
	for range 2 { // a later run finds everything there
		if err := u.found(t.Context(), 1); err != nil {
			t.Fatalf("found the university: %v", err)
		}
	}
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
				if a.name == "offer" { // nobody waits, or no place is free
					db.Exec(t, "UPDATE courses SET capacity = capacity + 1 WHERE id = 'music'",
						"INSERT INTO waiting_list SELECT 'music', id, 1 FROM students ORDER BY id DESC LIMIT 1 ON CONFLICT DO NOTHING")
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

// Places are picked all over the table, not only at its beginning.
func TestPickingIsSpread(t *testing.T) {
	db := cdctest.Database(t)
	u := &university{url: db.URL, conn: db.Conn(t)}
	if err := u.found(t.Context(), 1); err != nil {
		t.Fatalf("found the university: %v", err)
	}
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
	db := cdctest.Database(t)
	u := &university{url: db.URL, conn: db.Conn(t)}
	if err := u.found(t.Context(), 1); err != nil {
		t.Fatalf("found the university: %v", err)
	}
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
	t.Run("fails with its database", func(t *testing.T) {
		db.Exec(t, "ALTER TABLE feedback RENAME TO complaints")
		w := &workload{url: db.URL, seed: 3, rate: 500}
		if err := w.run(t.Context(), t.Context()); err == nil {
			t.Error("run: got nil, want that a table is missing")
		}
	})
}
