package source

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"cdc/internal/cdctest"
)

// Case 139, at the level of the source: an attempt that dies leaves no slot.
func TestCase139KilledAttemptLeavesNoSlot(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 100000)")
	sn := begin(t, s, 2)
	if _, err := sn.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What kill -9 does to the server: the sockets end without a word.
	if err := sn.export.conn.Conn().Close(); err != nil {
		t.Fatal(err)
	}
	until(t, db, "slot of the dead attempt", slotCount(db), "0")
	_ = sn.Close()
	if got := copyAll(t, s, 2); len(got) != 100000 {
		t.Fatalf("second attempt: got %d rows, want 100000", len(got))
	}
}

// Case 140: the snapshot's own settings protect it from the role's timeouts; an
// administrator who ends its connection gets a clean error.
func TestCase140ExporterKilled(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY, v text)", "INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 60000) g",
		fmt.Sprintf("ALTER DATABASE %s SET idle_in_transaction_session_timeout = '100ms'", db.Name))
	sn := begin(t, s, 2)
	until(t, db, "exporter idle for longer than the database's timeout",
		fmt.Sprintf("SELECT now() - state_change > '300ms' FROM pg_stat_activity WHERE pid = %d", sn.export.conn.PID()), "t")
	if _, err := sn.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, fmt.Sprintf("SELECT pg_terminate_backend(%d)", sn.export.conn.PID()))
	var err error
	for err == nil {
		_, err = sn.Next(t.Context())
	}
	if errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "holds the snapshot") {
		t.Fatalf("got %v, want the loss of the exporter", err)
	}
	if err := sn.Finish(t.Context()); err == nil {
		t.Fatal("finish of a failed snapshot: got no error")
	}
	for range 2 {
		if err := sn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	until(t, db, "slot", slotCount(db), "0")
}

// A connection that breaks before a row of its piece has left is replaced; one
// that breaks behind it ends the snapshot, because its rows could come twice.
func TestCase146WorkerConnectionLost(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY, pad text)", "INSERT INTO t SELECT g, repeat('x', 900) FROM generate_series(1, 60000) g")
	tables := mustPublish(t, s)
	t.Run("before", func(t *testing.T) {
		ex, err := s.openExporter(t.Context(), tables, snapshotSlot(s.cfg.Slot))
		if err != nil {
			t.Fatal(err)
		}
		planned, err := s.planSnapshot(t.Context(), tables)
		if err != nil {
			t.Fatal(err)
		}
		sn := newSnapshot(s, ex, planned, 1)
		w := &worker{sn: sn, ctx: t.Context()}
		if err := w.connect(); err != nil {
			t.Fatal(err)
		}
		lost := w.conn.PID()
		db.Exec(t, fmt.Sprintf("SELECT pg_terminate_backend(%d, 30000)", lost))
		rows := make(chan int)
		go func() {
			n := 0
			for c := range sn.chunks {
				n += c.rows
				sn.recycle(&c)
			}
			rows <- n
		}()
		for {
			p, ok := sn.plan.next()
			if !ok {
				break
			}
			if err := w.copy(t.Context(), p); err != nil {
				t.Error(err)
				break
			}
		}
		if w.conn.PID() == lost {
			t.Error("the worker still has the lost connection")
		}
		w.close()
		close(sn.chunks)
		if n := <-rows; n != 60000 {
			t.Errorf("got %d rows, want 60000", n)
		}
		ex.close()
	})
	t.Run("behind", func(t *testing.T) {
		sn := begin(t, s, 1)
		if _, err := sn.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		db.Exec(t, fmt.Sprintf(`SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = '%s' AND query LIKE 'COPY (SELECT%%'`, db.Name))
		var err error
		for err == nil {
			_, err = sn.Next(t.Context())
		}
		if errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "copy public.t") {
			t.Fatalf("got %v, want the worker's loss", err)
		}
		if err := sn.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
