package pipeline_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

func decodeProgress(t *testing.T, b []byte) pipeline.Progress {
	t.Helper()
	var p pipeline.Progress
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatalf("progress record %s: %v", b, err)
	}
	return p
}

func jsonField(t *testing.T, b []byte, name string) string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("value %s: %v", b, err)
	}
	return strings.Trim(string(m[name]), `"`)
}

// streamed runs a pipeline over a table until it streams, and stops it in order.
func streamed(t *testing.T, change ...func(*pipeline.Config)) *rig {
	t.Helper()
	r := newRig(t, change...)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'one'), (2, 'two')`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `INSERT INTO t VALUES (3, 'three')`)
	run.caughtUp()
	run.finish()
	return r
}

func (r *rig) slotSQL(format string) string { return fmt.Sprintf(format, r.cfg.Name) }

// 7, 152: somebody else consumed the slot while the service was down.
func TestCase007SlotAdvanced(t *testing.T) {
	t.Parallel()
	r := streamed(t)
	r.db.Exec(t, `INSERT INTO t VALUES (4, 'lost')`, r.slotSQL(`SELECT pg_replication_slot_advance('%s', pg_current_wal_lsn())`))
	before := len(cdctest.Read(t, r.k.Brokers, r.topic("t")))
	te := r.start().fails("slot-advanced")
	if !strings.Contains(te.Error(), "gap") {
		t.Errorf("error %q does not name the gap", te)
	}
	if now := len(cdctest.Read(t, r.k.Brokers, r.topic("t"))); now != before {
		t.Errorf("%d records were written behind a gap", now-before)
	}
	r.cfg.OnGap = "resnapshot"
	r.db.Exec(t, `DELETE FROM t WHERE id = 1`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "id")
}

func TestG6SlotMissing(t *testing.T) {
	t.Parallel()
	r := streamed(t)
	r.db.Exec(t, r.slotSQL(`SELECT pg_drop_replication_slot('%s')`), `DELETE FROM t WHERE id = 2`)
	r.start().fails("slot-missing")
	r.cfg.OnGap = "resnapshot"
	run := r.start()
	run.waitState(cdc.StateStreaming)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "id")
}

// 8: the progress record is ahead of the server (a backup was restored).
func TestCase008ProgressAheadOfServer(t *testing.T) {
	t.Parallel()
	r := streamed(t)
	p := r.newestProgress()
	p.End += 1 << 40
	r.writeProgress(p)
	r.start().fails("server-behind")
}

// 126: the progress topic is gone while the slot is there.
func TestCase126ProgressTopicDeleted(t *testing.T) {
	t.Parallel()
	r := streamed(t)
	cl := r.k.Client(t)
	if _, err := kadm.NewClient(cl).DeleteTopics(t.Context(), r.cfg.Progress); err != nil {
		t.Fatal(err)
	}
	r.start().fails("slot-without-progress")
}

// 127: a progress record of an unknown version, and one that is no JSON.
func TestCase127ProgressUnreadable(t *testing.T) {
	t.Parallel()
	r := streamed(t)
	p := r.newestProgress()
	p.Format = 99
	r.writeProgress(p)
	r.start().fails("progress-unreadable")
	r.produce(r.cfg.Progress, 0, "progress", "{")
	r.start().fails("progress-unreadable")
}

// A state topic was deleted while the service was down.
func TestG6TopicDeleted(t *testing.T) {
	t.Parallel()
	r := streamed(t)
	if _, err := kadm.NewClient(r.k.Client(t)).DeleteTopics(t.Context(), r.topic("t")); err != nil {
		t.Fatal(err)
	}
	r.start().fails("topic-missing")
	r.start().fails("topic-missing") // it is not forgotten by having been said
	r.cfg.OnGap = "resnapshot"
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `INSERT INTO t VALUES (9, 'nine')`)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "id")
}

// A table was taken out of the publication by hand and put in again: what was
// written in between was never streamed.
func TestG6TableTakenOutAndPutInAgain(t *testing.T) {
	t.Parallel()
	away := func(r *rig) {
		r.db.Exec(t, r.slotSQL(`ALTER PUBLICATION %s DROP TABLE t`), `INSERT INTO t VALUES (7, 'unseen')`, `DELETE FROM t WHERE id = 1`,
			r.slotSQL(`ALTER PUBLICATION %s ADD TABLE t`))
	}
	t.Run("while running", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, func(c *pipeline.Config) { c.MonitorEvery = 50 * time.Millisecond })
		r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'one'), (2, 'two')`)
		run := r.start()
		run.waitState(cdc.StateStreaming)
		away(r)
		run.wait("a new life", func(s cdc.Status) bool { return s.Restarts > 0 && s.State == cdc.StateStreaming })
		run.caughtUp()
		run.finish()
		r.sameAsTable("t", "id")
	})
	t.Run("while stopped", func(t *testing.T) {
		t.Parallel()
		r := streamed(t)
		away(r)
		run := r.start()
		run.waitState(cdc.StateStreaming)
		run.caughtUp()
		run.finish()
		r.sameAsTable("t", "id")
	})
}

// 188: a record without a position at the end of a state topic.
func TestCase188ForeignRecord(t *testing.T) {
	t.Parallel()
	r := streamed(t)
	for p := range int32(r.cfg.Partitions) {
		r.produce(r.topic("t"), p, `{"id":99}`, `{}`)
	}
	r.db.Exec(t, `INSERT INTO t VALUES (5, 'five')`)
	te := r.start().fails("foreign-record")
	if where := regexp.MustCompile(`topic ` + regexp.QuoteMeta(r.topic("t")) + ` partition \d+: the record at offset \d+`); !where.MatchString(te.Error()) {
		t.Errorf("error %q does not name topic, partition and offset", te)
	}
}

// 189: a pipeline that was dropped and made anew over its old topics believes
// none of their positions.
func TestCase189MadeAnewOverOldTopics(t *testing.T) {
	t.Parallel()
	r := streamed(t)
	r.db.Exec(t, `DELETE FROM t WHERE id = 2`)
	if err := pipeline.Drop(t.Context(), r.cfg); err != nil {
		t.Fatal(err)
	}
	if got := r.db.Value(t, r.slotSQL(`SELECT count(*) FROM pg_replication_slots WHERE slot_name = '%s'`)); got != "0" {
		t.Fatal("the slot is still there")
	}
	r.db.Exec(t, `DELETE FROM t WHERE id = 1`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `INSERT INTO t VALUES (6, 'six')`)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "id")
}

func TestG4PolicyChangedWhileRunning(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *pipeline.Config) { c.GuardEvery = 100 * time.Millisecond })
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	value := "delete"
	if _, err := kadm.NewClient(r.k.Client(t)).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "cleanup.policy", Value: &value}, {Name: "retention.ms", Value: ptr("1000")}}, r.topic("t")); err != nil {
		t.Fatal(err)
	}
	run.wait("the guard", func(s cdc.Status) bool { return s.State == cdc.StateFailed })
}

func ptr[T any](v T) *T { return &v }

// 87: the partition count was raised: keys would move, old values stay for ever.
func TestCase087PartitionsAdded(t *testing.T) {
	t.Parallel()
	r := streamed(t)
	if _, err := kadm.NewClient(r.k.Client(t)).CreatePartitions(t.Context(), 2, r.topic("t")); err != nil {
		t.Fatal(err)
	}
	run := r.start()
	run.wait("refusal", func(s cdc.Status) bool { return s.State == cdc.StateFailed })
}

// 128: two instances of one pipeline: the second waits and never fences the first.
func TestCase128SecondInstanceWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	first := r.start()
	first.waitState(cdc.StateStreaming)
	second := r.start()
	second.waitState(cdc.StateWaiting)
	r.db.Exec(t, `INSERT INTO t VALUES (1, 'a')`)
	first.caughtUp()
	if s := first.p.Status(); s.TakeOvers != 1 || s.Restarts != 0 {
		t.Fatalf("the first instance was disturbed: %+v", s)
	}
	first.finish()
	second.waitState(cdc.StateStreaming)
	r.db.Exec(t, `INSERT INTO t VALUES (2, 'b')`)
	second.caughtUp()
	second.finish()
	r.sameAsTable("t", "id")
	r.inOrder(r.topic("t"))
}

// 121: SIGTERM's path: what is read is acknowledged, recorded and confirmed.
func TestCase121StopsInOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 5000) i`)
	run.caughtUp()
	began := time.Now()
	run.finish()
	t.Logf("stopped in %s", time.Since(began))
	records := len(cdctest.Read(t, r.k.Brokers, r.topic("t")))
	run = r.start()
	run.waitState(cdc.StateStreaming)
	run.caughtUp()
	run.finish()
	if s := run.p.Status(); s.Records != 0 || s.Skipped != 0 {
		t.Fatalf("after an orderly stop %d records were written and %d left out, want nothing to replay", s.Records, s.Skipped)
	}
	if now := len(cdctest.Read(t, r.k.Brokers, r.topic("t"))); now != records {
		t.Fatalf("%d records became %d", records, now)
	}
}

// SIGTERM's path in the middle of the first copy.
func TestCase121StopsInSnapshot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 100000) i`)
	run := r.start()
	run.wait("rows", func(s cdc.Status) bool { return s.State == cdc.StateSnapshot && s.Records > 0 })
	run.finish()
	if slots := r.db.Slots(t); len(slots) != 0 {
		t.Fatalf("slots %v are left behind", slots)
	}
	r.db.Exec(t, `DELETE FROM t WHERE id % 2 = 0`)
	run = r.start()
	run.waitState(cdc.StateStreaming)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "id")
}

func TestSnapshotOnlyIsDone(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *pipeline.Config) { c.Snapshot = pipeline.SnapshotOnly })
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 100) i`)
	run := r.start()
	<-run.done
	if run.err != nil || run.p.Status().State != cdc.StateDone {
		t.Fatalf("got %v, state %s, want done", run.err, run.p.Status().State)
	}
	r.sameAsTable("t", "id")
	if slots := r.db.Slots(t); len(slots) != 0 {
		t.Fatalf("slots %v are left behind", slots)
	}
}

func TestSnapshotNever(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *pipeline.Config) { c.Snapshot = pipeline.SnapshotNever })
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'before')`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `INSERT INTO t VALUES (2, 'after')`)
	run.caughtUp()
	run.finish()
	got := cdctest.Fold(cdctest.Read(t, r.k.Brokers, r.topic("t")))
	if len(got) != 1 || got[`{"id":2}`] == "" {
		t.Fatalf("topic holds %v, want key 2 alone", got)
	}
}

func TestAtLeastOnce(t *testing.T) {
	t.Parallel()
	r := streamed(t, func(c *pipeline.Config) { c.Delivery = pipeline.AtLeastOnce })
	r.sameAsTable("t", "id")
}

// 48: a record over the broker's limit.
func TestCase048Oversize(t *testing.T) {
	t.Parallel()
	insert := `INSERT INTO t VALUES (1, repeat('x', 3000000)), (2, 'fits')`
	t.Run("stop", func(t *testing.T) {
		r := newRig(t)
		r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
		run := r.start()
		run.waitState(cdc.StateStreaming)
		r.db.Exec(t, insert)
		run.fails("record-too-large")
	})
	t.Run("dead letter", func(t *testing.T) {
		r := newRig(t, func(c *pipeline.Config) { c.Oversize = "dead-letter" })
		r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
		run := r.start()
		run.waitState(cdc.StateStreaming)
		r.db.Exec(t, insert)
		run.caughtUp()
		run.finish()
		got := cdctest.Fold(cdctest.Read(t, r.k.Brokers, r.topic("t")))
		if len(got) != 1 || got[`{"id":2}`] == "" {
			t.Fatalf("topic holds %d keys, want key 2 alone", len(got))
		}
		dead := cdctest.Read(t, r.k.Brokers, r.cfg.DeadLetter)
		if len(dead) != 1 || jsonField(t, dead[0].Value, "table") != "public.t" {
			t.Fatalf("dead-letter topic holds %v", dead)
		}
		if s := run.p.Status(); s.DeadLetters != 1 {
			t.Fatalf("status counts %d dead letters, want 1", s.DeadLetters)
		}
	})
}

// 83, 85: refused before the publication is touched.
func TestCase083UnkeyedTableIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE nokey(a int)`)
	run := r.start()
	run.wait("refusal", func(s cdc.Status) bool { return s.State == cdc.StateFailed })
	if got := r.db.Value(t, `SELECT count(*) FROM pg_publication`); got != "0" {
		t.Fatal("a publication was made")
	}
}

func (r *rig) newestProgress() pipeline.Progress {
	var p pipeline.Progress
	for _, rec := range cdctest.Read(r.t, r.k.Brokers, r.cfg.Progress) {
		if string(rec.Key) == "progress" {
			p = decodeProgress(r.t, rec.Value)
		}
	}
	return p
}

func (r *rig) writeProgress(p pipeline.Progress) {
	b, err := json.Marshal(p)
	if err != nil {
		r.t.Fatal(err)
	}
	r.produce(r.cfg.Progress, 0, "progress", string(b))
}

func (r *rig) produce(topic string, partition int32, key, value string) {
	r.t.Helper()
	cl := r.k.Client(r.t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	rec := &kgo.Record{Topic: topic, Partition: partition, Key: []byte(key), Value: []byte(value)}
	if err := cl.ProduceSync(r.t.Context(), rec).FirstErr(); err != nil {
		r.t.Fatalf("produce to %s: %v", topic, err)
	}
}
