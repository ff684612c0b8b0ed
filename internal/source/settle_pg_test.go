package source

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// waitingFor waits until the source says what holds it up.
func waitingFor(t testing.TB, s *Source, want string, done <-chan error) {
	t.Helper()
	for deadline := time.Now().Add(4 * patience); !strings.Contains(s.Waiting(), want); time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-done:
			t.Fatalf("it did not wait for %s: %v", want, err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting: got %q, want it to name %s", s.Waiting(), want)
		}
	}
}

func ended(t testing.TB, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(4 * patience):
		t.Fatal("it still waits")
		return nil
	}
}

// Everything here holds up the whole server.
func TestWaitsOfChunks(t *testing.T) {
	t.Parallel()
	db := cdctest.PrivatePostgres(t, nil).Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY, v text)", "INSERT INTO t SELECT g, 'x' FROM generate_series(1, 50) g", "CREATE TABLE other(id int)")
	s.cfg.Include = []string{"public.t"}
	mustPublish(t, s)
	open, late := db.Conn(t), db.Conn(t)
	exec := func(sql string) {
		t.Helper()
		if _, err := open.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	settle := func() <-chan error {
		done := make(chan error, 1)
		go func() { done <- s.Settle(t.Context()) }()
		return done
	}

	// A transaction that writes is waited for and named; one that began to write
	// afterwards is not waited for.
	exec("BEGIN; INSERT INTO other VALUES (1)")
	done := settle()
	waitingFor(t, s, fmt.Sprintf("backend %d (database %s", open.PgConn().PID(), db.Name), done)
	if _, err := late.Exec(t.Context(), "BEGIN; INSERT INTO other VALUES (2)"); err != nil {
		t.Fatal(err)
	}
	exec("COMMIT")
	if err := ended(t, done); err != nil || s.Waiting() != "" {
		t.Fatalf("got %v, still waiting for %q", err, s.Waiting())
	}
	if _, err := late.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	exec("BEGIN; INSERT INTO other VALUES (3); PREPARE TRANSACTION 'it''s'")
	done = settle()
	waitingFor(t, s, "prepared transaction 'it''s'", done)
	exec("ROLLBACK PREPARED 'it''s'")
	if err := ended(t, done); err != nil {
		t.Fatal(err)
	}

	// The lock stands before the snapshot: a rewrite that the chunk has waited for
	// does not leave it with an empty table.
	r := readerOf(t, s, "t")
	mustNext(t, r, nil, 1, 1)
	exec("BEGIN; ALTER TABLE t ALTER v TYPE varchar(7)")
	type read struct {
		c   *Chunk
		err error
	}
	reads := make(chan read, 1)
	r.lockWait = 10 * patience
	go func() {
		c, err := r.Next(t.Context(), nil, 100, 1<<20)
		reads <- read{c, err}
	}()
	until(t, db, "the chunk waits", "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 't'::regclass", "t")
	exec("UPDATE t SET v = 'y'; COMMIT")
	got := <-reads
	if got.err != nil || len(got.c.Rows) != 50 || string(got.c.Rows[0][1].Data) != "y" || got.c.Relation.Columns[1].Type.Name != "varchar" {
		t.Fatalf("behind a rewrite: got %+v, %v, want 50 new rows", got.c, got.err)
	}

	exec("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
	r.lockWait = 50 * time.Millisecond
	locked := new(LockedError)
	if _, err := r.Next(t.Context(), nil, 1, 1); !errors.As(err, &locked) || locked.Table != "public.t" || cdc.IsTerminal(err) {
		t.Fatalf("a locked table: got %v, want LockedError", err)
	}
	exec("COMMIT")
	r.lockWait = lockTimeout
	if c := mustNext(t, r, nil, 100, 1<<20); len(c.Rows) != 50 {
		t.Fatalf("afterwards: got %d rows", len(c.Rows))
	}
}

// On a standby chunks are read; what needs the primary says so, and a pulse is left
// to it.
func TestChunksOnAStandby(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, nil)
	db := pg.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
	mustPublish(t, s)
	r := readerOf(t, s, "t")
	if err := pg.Stop(t.Context(), "fast"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(pg.Dir(), "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := pg.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := mustNext(t, r, nil, 10, 1000)
	if end := mustLSN(t, db.Value(t, "SELECT pg_last_wal_replay_lsn()")); len(c.Rows) != 2 || c.High != end {
		t.Errorf("got %d rows up to %s, want 2 up to %s", len(c.Rows), c.High, end)
	}
	if err := r.Pulse(t.Context()); err != nil {
		t.Errorf("pulse: %v", err)
	}
	wantTerminal(t, s.Settle(t.Context()), "standby", "primary")
	if err := pg.Stop(t.Context(), "fast"); err != nil { // nothing can be dropped there
		t.Fatal(err)
	}
}

// A pulse moves an idle stream behind a chunk and is no message, not even for
// those who want all.
func TestPulse(t *testing.T) {
	t.Parallel()
	b := newBed(t, func(c *Config) { c.Messages = []string{"*"} }, plainTable)
	st := b.stream(t, b.from)
	r := readerOf(t, b.src, "t")
	c := mustNext(t, r, nil, 10, 1000)
	if err := r.Pulse(t.Context()); err != nil {
		t.Fatal(err)
	}
	var end cdc.LSN
	for deadline := time.Now().Add(4 * patience); end < c.High; {
		ev, err := st.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ev.Kind == cdc.EventChange {
			t.Fatalf("got %+v, want no change", ev.Change)
		}
		end = max(end, ev.End)
		if time.Now().After(deadline) {
			t.Fatalf("the stream stands at %s, want it behind %s", end, c.High)
		}
	}
	b.Exec(t, "SELECT pg_logical_emit_message(true, 'ours', '')")
	ev := next(t, st)
	for ev.Kind == cdc.EventCommit { // of the pulse
		ev = next(t, st)
	}
	if ev.Change.Prefix != "ours" {
		t.Fatalf("got %+v, want the message of others", ev.Change)
	}
}
