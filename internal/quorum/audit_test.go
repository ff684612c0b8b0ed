package quorum

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// Writers of the workload, and the keys they share.
const (
	writers = 2
	keys    = 100
)

// tables makes t, whose rows change, and aud, which knows what was done to them.
func (r *rig) tables() {
	r.t.Helper()
	r.db.Exec(r.t, `CREATE TABLE t(id int PRIMARY KEY, v bigint NOT NULL, pad text)`, `CREATE SEQUENCE ver`,
		`CREATE TABLE aud(v bigint PRIMARY KEY, id int NOT NULL, op text NOT NULL)`)
}

// workload commits one transaction after the other and notes in each what it did.
type workload struct {
	stop chan struct{}
	wg   sync.WaitGroup
	end  func() // returns when nothing is written any more
}

func startWorkload(t *testing.T, db *cdctest.DB) *workload {
	t.Helper()
	w := &workload{stop: make(chan struct{})}
	var conns [writers]*pgx.Conn
	for i := range conns {
		conns[i] = db.Conn(t)
	}
	w.end = sync.OnceFunc(func() {
		close(w.stop)
		w.wg.Wait()
	})
	t.Cleanup(w.end) // before the connections are closed
	for i, conn := range conns {
		rnd := rand.New(rand.NewPCG(uint64(i), 7))
		w.wg.Go(func() {
			for {
				select {
				case <-w.stop:
					return
				default:
				}
				if _, err := conn.Exec(context.Background(), transaction(rnd)); err != nil {
					t.Errorf("workload: %v", err)
					return
				}
			}
		})
	}
	return w
}

// transaction changes one to six rows; some are rolled back. The keys are locked
// in one order before the version is drawn: per key, versions rise in commit order.
func transaction(rnd *rand.Rand) string {
	var b strings.Builder
	b.WriteString("BEGIN;")
	ids := rnd.Perm(keys)[:1+rnd.IntN(6)]
	slices.Sort(ids)
	for _, id := range ids {
		fmt.Fprintf(&b, "SELECT pg_advisory_xact_lock(%d);", id)
		if rnd.IntN(5) == 0 {
			fmt.Fprintf(&b, "WITH d AS (DELETE FROM t WHERE id = %d RETURNING id) INSERT INTO aud SELECT nextval('ver'), id, 'd' FROM d;", id)
		} else {
			fmt.Fprintf(&b, "WITH n AS (INSERT INTO aud SELECT nextval('ver'), %[1]d, 'u' RETURNING v) INSERT INTO t SELECT %[1]d, v, repeat('p', %[2]d) FROM n ON CONFLICT (id) DO UPDATE SET v = excluded.v, pad = excluded.pad;", id, rnd.IntN(300))
		}
	}
	// Pauses leave the cores to the brokers.
	b.WriteString([]string{"COMMIT;", "ROLLBACK;"}[min(rnd.IntN(10)/9, 1)] + "SELECT pg_sleep(0.02)")
	return b.String()
}

// settled ends the writers, waits for the last of it, stops the pipeline in order
// and compares every record with the audit table: a client that is not ours reads
// them, read_committed.
func (r *rig) settled() {
	r.t.Helper()
	r.work.end()
	r.caughtUp()
	r.finish()
	r.q.Whole(r.t)

	want := map[string][]string{}
	for _, row := range r.db.Query(r.t, `SELECT id, op, v FROM aud ORDER BY v`) {
		entry := "-"
		if row[1] == "u" {
			entry = row[2]
		}
		want[row[0]] = append(want[row[0]], entry)
	}
	records := cdctest.Read(r.t, r.q.Brokers, r.topic("t"))
	got := map[string][]string{}
	for _, rec := range records {
		id, entry := field(r.t, rec.Key, "id"), "-"
		if rec.Value != nil {
			entry = field(r.t, rec.Value, "v")
		}
		got[id] = append(got[id], entry)
	}
	changes, bad := 0, 0
	for id, history := range want {
		changes += len(history)
		if slices.Equal(got[id], history) {
			continue
		}
		if bad++; bad > 5 {
			continue
		}
		at := 0
		for at < min(len(got[id]), len(history)) && got[id][at] == history[at] {
			at++
		}
		r.t.Errorf("key %s: %d records for %d changes, different from number %d on: got %v…, want %v…",
			id, len(got[id]), len(history), at, got[id][at:min(at+5, len(got[id]))], history[at:min(at+5, len(history))])
	}
	if bad > 0 {
		r.t.Errorf("%d of %d keys have another history", bad, len(want))
	}
	if len(records) != changes {
		r.t.Errorf("%d records for %d changes", len(records), changes)
	}
	r.sameAsTable(cdctest.Fold(records))
	r.inOrder("t", records)
	audit := cdctest.Read(r.t, r.q.Brokers, r.topic("aud"))
	if len(audit) != changes {
		r.t.Errorf("%d records of the audit table, want %d", len(audit), changes)
	}
	r.inOrder("aud", audit)
	s := r.p.Status()
	r.t.Logf("%d changes checked; last instance: %d take-overs, %d restarts, %d left out as already there", changes, s.TakeOvers, s.Restarts, s.Skipped)
}

// sameAsTable compares what readers end with and the table.
func (r *rig) sameAsTable(fold map[string]string) {
	r.t.Helper()
	rows := r.db.Query(r.t, `SELECT id, v, pad FROM t`)
	state := map[string]string{}
	for key, value := range fold {
		state[field(r.t, []byte(key), "id")] = value
	}
	for _, row := range rows {
		value := []byte(state[row[0]])
		if len(value) == 0 {
			r.t.Errorf("row %s is missing", row[0])
		} else if field(r.t, value, "v") != row[1] || field(r.t, value, "pad") != row[2] {
			r.t.Errorf("row %s: topic has %.100s, table has v %s", row[0], value, row[1])
		}
	}
	if len(state) != len(rows) {
		r.t.Errorf("%d keys are alive in the topic, want %d rows", len(state), len(rows))
	}
}

// inOrder wants strictly rising positions in every partition.
func (r *rig) inOrder(table string, records []cdctest.Record) {
	r.t.Helper()
	last := map[int32]cdc.Position{}
	for _, rec := range records {
		h, _ := rec.Header(cdc.StampHeader)
		s, err := cdc.ParseStamp(h)
		if err != nil {
			r.t.Fatalf("%s/%d offset %d: %v", table, rec.Partition, rec.Offset, err)
		}
		if !last[rec.Partition].Before(s.Position) {
			r.t.Errorf("%s/%d offset %d: position %s after %s", table, rec.Partition, rec.Offset, s.Position, last[rec.Partition])
		}
		last[rec.Partition] = s.Position
	}
}

// field is a member of a JSON object, strings without their quotes.
func field(t *testing.T, object []byte, name string) string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(object, &m); err != nil {
		t.Fatalf("decode %.100s: %v", object, err)
	}
	var text string
	if json.Unmarshal(m[name], &text) == nil {
		return text
	}
	return string(m[name])
}
