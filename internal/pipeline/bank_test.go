package pipeline_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// 150: money is moved between accounts from before the snapshot to behind it. A
// reader who applies whole transactions, told apart by their positions, never sees
// a sum that no moment of the database had.
func TestCase150SumIsConstant(t *testing.T) {
	t.Parallel()
	const accounts, sum = 50, 50 * 100
	r := newRig(t, func(c *pipeline.Config) { c.Partitions = 1 })
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v int NOT NULL)`, fmt.Sprintf(`INSERT INTO t SELECT i, 100 FROM generate_series(1, %d) i`, accounts))
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 3 {
		conn := r.db.Conn(t)
		rnd := rand.New(rand.NewPCG(150, uint64(w)))
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				from, to := 1+rnd.IntN(accounts), 1+rnd.IntN(accounts)
				if from > to { // one lock order, no deadlock
					from, to = to, from
				}
				n := rnd.IntN(21) - 10
				if _, err := conn.Exec(t.Context(), fmt.Sprintf(`BEGIN; UPDATE t SET v = v - %d WHERE id = %d; UPDATE t SET v = v + %d WHERE id = %d; COMMIT`, n, from, n, to)); err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	run := r.streaming()
	run.wait("some transfers", func(s cdc.Status) bool { return s.Transactions > 300 })
	close(stop)
	writers.Wait()
	run.settle()
	r.sameAsTable("t", "id")

	state, total := map[string]int{}, 0
	records := r.records("t")
	boundaries := 0
	for i, rec := range records {
		var row struct{ V json.Number }
		if err := json.Unmarshal(rec.Value, &row); err != nil {
			t.Fatal(err)
		}
		v, err := strconv.Atoi(row.V.String())
		if err != nil {
			t.Fatal(err)
		}
		total += v - state[string(rec.Key)]
		state[string(rec.Key)] = v
		at := stamp(t, rec).Position
		if i+1 < len(records) && stamp(t, records[i+1]).Position.Tx == at.Tx {
			continue
		}
		if boundaries++; total != sum {
			t.Fatalf("behind the transaction at %s the sum is %d, want %d", at.Tx, total, sum)
		}
	}
	t.Logf("%d boundaries", boundaries)
}

// 113: the walsender itself is killed with SIGKILL: Postgres then ends every other
// backend and recovers.
func TestCase113WalsenderKilled(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, nil)
	r := rigOn(t, pg.Database(t), cdctest.Kafka(t))
	r.crashed(r.during(func(run *running) {
		for range 2 {
			run.flowing()
			pid, err := strconv.Atoi(r.db.Value(t, r.slotSQL(`SELECT active_pid FROM pg_replication_slots WHERE slot_name = '%s'`)))
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			run.wait("another life", func(s cdc.Status) bool { return s.State != cdc.StateStreaming })
		}
		run.flowing()
	}))
}
