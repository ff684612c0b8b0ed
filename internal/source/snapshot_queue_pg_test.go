package source

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"cdc/internal/cdctest"

	"github.com/jackc/pgx/v5"
)

// 149: somebody wants ACCESS EXCLUSIVE on a table that the snapshot has locked and
// its workers have not opened yet. A worker queues up behind that, and that waits
// for the snapshot's own lock: Postgres sees no deadlock, because the two sessions
// of the snapshot wait for each other in this process alone. Meanwhile nobody else
// reads or writes the table. It must end by itself.
func TestCase149AlterBetweenLockAndCopy(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	s := openOps(t, db, nil,
		"CREATE TABLE a(id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, repeat('a', 1000) FROM generate_series(1, 20000) i",
		"CREATE TABLE b(id int PRIMARY KEY, v text)", "INSERT INTO b SELECT i, repeat('b', 1000) FROM generate_series(1, 20000) i")
	sn := begin(t, s, 1)
	first, err := sn.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := map[string]string{"a": "b", "b": "a"}[first.Relation.Name]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	altered := make(chan error, 1)
	go func() {
		conn, err := pgx.Connect(ctx, db.URL)
		if err == nil {
			_, err = conn.Exec(ctx, "ALTER TABLE "+other+" ADD n int")
			_ = conn.Close(context.WithoutCancel(ctx))
		}
		altered <- err
	}()
	until(t, db, "the ALTER waits", "SELECT count(*) FROM pg_locks WHERE relation = '"+other+"'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted", "1")
	limited, stop := context.WithTimeout(t.Context(), 60*time.Second)
	defer stop()
	for err == nil {
		_, err = sn.Next(limited)
	}
	if limited.Err() != nil {
		t.Errorf("after a minute the snapshot still waits behind the ALTER of %s, which waits for the snapshot; every reader and writer of the table waits behind both", other)
	} else if !errors.Is(err, io.EOF) {
		t.Logf("the snapshot gave way: %v", err)
	}
	_ = sn.Close()
	cancel()
	<-altered
}
