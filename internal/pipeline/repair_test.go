package pipeline_test

import (
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// What a comparison found is written right and no more: missing, different and
// ghost keys; a key that the stream has brought meanwhile is left to it.
func TestRepair(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 30) i`)
	run.caughtUp()
	topic := run.topic("t")
	run.forge(topic, `{"id":1}`, nil)
	run.forge(topic, `{"id":2}`, []byte(`{"id":2,"v":"wrong"}`))
	run.forge(topic, `{"id":100}`, []byte(`{"id":100,"v":"ghost"}`))
	run.forge(topic, `{"id":101}`, []byte(`{"id":101,"v":"ghost until it is inserted"}`))
	ends, ghosts := map[int32]int64{}, []cdc.GhostKey{}
	for _, rec := range cdctest.Read(t, run.k.Brokers, topic) {
		ends[rec.Partition] = rec.Offset + 1
		if k := string(rec.Key); k == `{"id":100}` || k == `{"id":101}` {
			ghosts = append(ghosts, cdc.GhostKey{Partition: rec.Partition, Key: rec.Key})
		}
	}
	run.db.Exec(t, `INSERT INTO t VALUES (101, 'really'), (31, 'more')`)
	run.caughtUp()
	records := len(run.records("t"))
	got, err := run.p.Repair(t.Context(), cdc.RepairRequest{Table: "public.t", Keys: [][]string{{"1"}, {"2"}, {"77"}}, Ghosts: ghosts, Ends: ends})
	if err != nil {
		t.Fatal(err)
	}
	if got != (cdc.RepairResult{Upserts: 2, Tombstones: 1, Left: 2}) {
		t.Errorf("got %+v, want 2 upserts, 1 tombstone and 2 keys left", got)
	}
	if n := len(run.records("t")) - records; int64(n) != got.Upserts+got.Tombstones {
		t.Errorf("%d records were written, %+v were told", n, got)
	}
	run.settle()
	run.inOrder(topic)
	for key, want := range map[string]string{`{"id":1}`: `{"id":1,"v":"x"}`, `{"id":2}`: `{"id":2,"v":"x"}`, `{"id":100}`: "", `{"id":101}`: `{"id":101,"v":"really"}`} {
		if got := run.fold("t")[key]; got != want {
			t.Errorf("key %s: %q, want %q", key, got, want)
		}
	}
}
