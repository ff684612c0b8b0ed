package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// Case 141: a transaction that blocks the slot is reported; ending the context
// returns at once and leaves nothing.
func TestCase141BlockedByTransaction(t *testing.T) {
	for _, c := range []struct {
		name string
		wait func(context.Context, *Source, []cdc.Table) error
	}{
		{"snapshot", func(ctx context.Context, s *Source, tables []cdc.Table) error {
			sn, err := s.Snapshot(ctx, tables, 1)
			if err == nil {
				_ = sn.Close()
			}
			return err
		}},
		{"slot", func(ctx context.Context, s *Source, _ []cdc.Table) error { _, err := s.CreateSlot(ctx); return err }},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := cdctest.PrivatePostgres(t, nil).Database(t)
			s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY)", "CREATE TABLE other(id int)")
			s.cfg.Include = []string{"public.t"}
			tables := mustPublish(t, s)
			blocker := db.Conn(t)
			if _, err := blocker.Exec(t.Context(), "BEGIN; INSERT INTO other VALUES (1)"); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- c.wait(ctx, s, tables) }()
			want := fmt.Sprintf("backend %d (database %s", blocker.PgConn().PID(), db.Name)
			for deadline := time.Now().Add(patience); !strings.Contains(s.Waiting(), want); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("waiting: got %q, want it to name %s", s.Waiting(), want)
				}
			}
			cancel()
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("got %v, want the end of the context", err)
				}
			case <-time.After(patience):
				t.Fatal("the call hangs after the end of its context")
			}
			until(t, db, "slot", slotCount(db), "0")
			if s.Waiting() != "" {
				t.Fatalf("waiting afterwards: %q", s.Waiting())
			}
			// And when the blocker ends, it goes on.
			again := make(chan error, 1)
			go func() { again <- c.wait(t.Context(), s, tables) }()
			until(t, db, "creation waits", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'", "1")
			if _, err := blocker.Exec(t.Context(), "COMMIT"); err != nil {
				t.Fatal(err)
			}
			if err := <-again; err != nil {
				t.Fatal(err)
			}
			if err := s.DropSlot(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Case 141, killed: a process that dies while it waits leaves nothing either,
// because the waiting backend looks after its client.
func TestCase141KilledWhileWaiting(t *testing.T) {
	db := cdctest.PrivatePostgres(t, nil).Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY)")
	blocker := db.Conn(t)
	if _, err := blocker.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	conn, err := connectReplication(t.Context(), s.cfg.URL, replicationOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.beginPatient(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	sql := newSlot{name: s.cfg.Slot, temporary: true, snapshot: true}.sql(s.version)
	done := make(chan struct{})
	go func() { defer close(done); _, _ = conn.Exec(context.Background(), sql).ReadAll() }()
	until(t, db, "creation waits", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'", "1")
	if err := conn.Conn().Close(); err != nil {
		t.Fatal(err)
	}
	<-done
	until(t, db, "slot of the dead client", slotCount(db), "0")
}

// Case 142: a prepared transaction has no backend and is named by its gid.
func TestCase142BlockedByPrepared(t *testing.T) {
	db := cdctest.PrivatePostgres(t, nil).Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY)")
	tables := mustPublish(t, s)
	db.Exec(t, "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'left over'")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := s.Snapshot(ctx, tables, 1); done <- err }()
	for deadline := time.Now().Add(patience); !strings.Contains(s.Waiting(), "prepared transaction 'left over'"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waiting: got %q, want the prepared transaction", s.Waiting())
		}
	}
	cancel()
	<-done
	db.Exec(t, "ROLLBACK PREPARED 'left over'")
	until(t, db, "slot", slotCount(db), "0")
}

// Case 149: a locked table ends in an error that names who holds it.
func TestCase149LockedTable(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY)")
	tables := mustPublish(t, s)
	blocker := db.Conn(t)
	if _, err := blocker.Exec(t.Context(), "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := s.attemptExport(ctx, tables, snapshotSlot(s.cfg.Slot)); done <- err }()
	err := <-done
	cancel()
	if want := fmt.Sprintf("backend %d", blocker.PgConn().PID()); !errors.Is(err, errLocked) || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %v, want it to name %s", err, want)
	}
	if _, err := blocker.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
}
