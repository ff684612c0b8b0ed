package pipeline_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// A commit that waits for its synchronous standby is in the stream and not yet in
// any snapshot: rows read meanwhile are older than the event that is out. They must
// not be written behind it.
func TestCopyWhileACommitIsNotVisible(t *testing.T) {
	t.Parallel()
	db := cdctest.PrivatePostgres(t, nil).Database(t)
	var once sync.Once
	updated := make(chan error, 1)
	r := rigOn(t, db, cdctest.Kafka(t), smallChunks, func(c *pipeline.Config) {
		c.Hook = func(point string) {
			if point != "chunk-acknowledged" {
				return
			}
			once.Do(func() {
				db.Exec(t, `ALTER SYSTEM SET synchronous_standby_names = 'nobody'`, `SELECT pg_reload_conf()`)
				for db.Value(t, `SHOW synchronous_standby_names`) == "" {
				}
				conn := db.Conn(t)
				go func() {
					_, err := conn.Exec(t.Context(), `UPDATE t SET v = 'new' WHERE id IN (3, 150)`, pgx.QueryExecModeSimpleProtocol)
					updated <- err
				}()
				for db.Value(t, `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`) == "0" {
				}
			})
		}
	})
	db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 200) i`)
	run := r.streaming()
	run.caughtUp()
	run.order(cdc.CopyStart, "public.t")
	run.wait("the event", func(cdc.Status) bool { return strings.Contains(run.fold("t")[`{"id":150}`], "new") })
	select {
	case err := <-updated:
		t.Fatalf("the commit did not wait (%v): the test shows nothing", err)
	default:
	}
	db.Exec(t, `ALTER SYSTEM RESET synchronous_standby_names`, `SELECT pg_reload_conf()`)
	if err := <-updated; err != nil {
		t.Fatal(err)
	}
	run.copied()
	run.settle()
	run.sameAsTable("t", "id")
	run.inOrder(run.topic("t"))
	for _, key := range []string{`{"id":3}`, `{"id":150}`} {
		newer := false
		for _, rec := range run.records("t") {
			if string(rec.Key) != key {
				continue
			}
			if is := strings.Contains(string(rec.Value), "new"); newer && !is {
				t.Errorf("key %s: a row from before stands behind the event: %s", key, rec.Value)
			} else {
				newer = newer || is
			}
		}
	}
}

// 148: nobody else writes to the server: the copy itself moves the stream past its
// chunks.
func TestCase148CopyOnAnIdleServer(t *testing.T) {
	t.Parallel()
	db := cdctest.PrivatePostgres(t, nil).Database(t)
	run := rigOn(t, db, cdctest.Kafka(t), smallChunks)
	db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 200) i`)
	idle := run.streaming()
	idle.caughtUp()
	idle.order(cdc.CopyStart, "public.t")
	idle.copied()
	idle.finish()
	idle.sameAsTable("t", "id")
	idle.inOrder(idle.topic("t"))
}
