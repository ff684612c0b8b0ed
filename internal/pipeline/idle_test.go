package pipeline_test

import (
	"maps"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// 11, 12, 13: nothing is written to the captured table while another database of
// the server and another table are busy. The slot goes on, so no WAL is held; the
// connection lives through several timeouts of Postgres; the topics do not grow, but
// for a progress record every ten seconds (which the test waits for once).
func TestCase011Case012Case013Idle(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *pipeline.Config) { c.Source.Include = []string{"public.t"} })
	r.db.Exec(t, `ALTER DATABASE `+r.db.Name+` SET wal_sender_timeout = '3s'`,
		`CREATE TABLE t(id int PRIMARY KEY, v text)`, `CREATE TABLE unpublished(id int, v text)`)
	run := r.streaming()
	r.db.Exec(t, `INSERT INTO t VALUES (1, 'a')`)
	run.caughtUp()
	walsender := r.slotSQL(`SELECT active_pid FROM pg_replication_slots WHERE slot_name = '%s'`)
	before := r.db.Value(t, walsender)
	other := cdctest.Database(t)
	fill := `SELECT i, repeat('x', 500) AS v FROM generate_series(1, 20000) i`
	other.Exec(t, `CREATE TABLE busy AS `+fill)
	r.db.Exec(t, `INSERT INTO unpublished `+fill)
	end := r.db.Value(t, `SELECT pg_current_wal_insert_lsn()`)
	other.Exec(t, `SELECT pg_logical_emit_message(false, 'cdc-test', 'tick')`)
	confirmed := r.slotSQL(`SELECT confirmed_flush_lsn >= '` + end + `' FROM pg_replication_slots WHERE slot_name = '%s'`)
	run.wait("confirmation of what others wrote", func(cdc.Status) bool { return r.db.Value(t, confirmed) == "t" })
	if after := r.db.Value(t, walsender); after != before {
		t.Errorf("the walsender is %s and was %s: the connection did not last", after, before)
	}
	if s := run.p.Status(); s.Restarts != 0 || s.TakeOvers != 1 {
		t.Errorf("%d restarts and %d take-overs of an idle pipeline", s.Restarts, s.TakeOvers)
	}
	run.finish()
	if got := len(r.records("t")); got != 1 {
		t.Errorf("%d records, want the one row", got)
	}
	if got := len(cdctest.Read(t, r.k.Brokers, r.cfg.Progress)); got > 20 {
		t.Errorf("%d records in the progress topic of an idle pipeline", got)
	}
}

// 17, 183, 184: many tables, few of them busy. What is replayed is left out by
// each partition's own last record, and a partition without rows in the stretch
// is not looked at. Scaled down: 60 tables of 3 partitions for 5,000 of 6, a stretch
// of 3,000 rows for 100,000.
func TestCase183Case184QuietPartitionsCostNothing(t *testing.T) {
	t.Parallel()
	const rows = 1000
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	asked := &fetched{}
	cluster.ControlKey(int16(kmsg.Fetch), asked.see)

	r := rigOn(t, cdctest.Database(t), &cdctest.Cluster{Brokers: cluster.ListenAddrs()})
	r.db.Exec(t, `DO $$ BEGIN FOR i IN 1..60 LOOP EXECUTE 'CREATE TABLE t' || i || '(id int PRIMARY KEY, v text)'; END LOOP; END $$`)
	run := r.streaming()
	run.finish()
	busy := []string{"t7", "t30", "t59"}
	r.db.Exec(t, `BEGIN; INSERT INTO t7 SELECT i, 'x' FROM generate_series(1, 1000) i; INSERT INTO t30 SELECT * FROM t7; INSERT INTO t59 SELECT * FROM t7; COMMIT`)
	// The transaction is in the topics when the first progress record behind it is
	// about to be written; the process dies there.
	r.spawn("progress", 1).Killed(t, "progress")
	r.cfg.Hook = func(point string) {
		if point == "stream-start" {
			asked.reset()
		}
	}
	run = r.streaming()
	r.db.Exec(t, `INSERT INTO t7 VALUES (0, 'later')`)
	run.caughtUp()
	fetches := asked.counts()
	run.finish()
	want := map[string]bool{}
	for _, table := range busy {
		want[r.topic(table)] = true
		extra := 0
		if table == "t7" {
			extra = 1
		}
		if got := len(r.records(table)); got != rows+extra {
			t.Errorf("%s: %d records, want %d", table, got, rows+extra)
		}
		r.inOrder(r.topic(table))
	}
	for topic, n := range fetches {
		if !want[topic] {
			t.Errorf("topic %s was fetched from %d times while the stream ran, it has no rows there", topic, n)
		}
	}
	if s := run.p.Status(); s.Skipped != 3*rows {
		t.Errorf("%d records were left out, want the %d that were there", s.Skipped, 3*rows)
	}
}

// fetched counts the fetch requests by topic, once it was reset.
type fetched struct {
	mu    sync.Mutex
	names map[string]int
}

func (f *fetched) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.names = map[string]int{}
}

func (f *fetched) counts() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.names)
}

func (f *fetched) see(req kmsg.Request) (kmsg.Response, error, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, ok := req.(*kmsg.FetchRequest); ok && f.names != nil {
		for _, topic := range r.Topics {
			f.names[topic.Topic]++
		}
	}
	return nil, nil, false
}
