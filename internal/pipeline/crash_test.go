package pipeline_test

import (
	"context"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// crashed runs a workload over a pipeline that has begun on empty tables, lets
// harm do its worst, and checks every record against the audit table.
func (r *rig) crashed(harm func()) *running {
	r.t.Helper()
	workloadTables(r.t, r.db)
	first := r.start()
	first.waitState(cdc.StateStreaming)
	first.finish()
	w := startWorkload(r.t, r.db, 3, 2)
	harm()
	run := r.start()
	run.waitState(cdc.StateStreaming)
	w.finish()
	run.caughtUp()
	run.finish()
	r.checkAudit()
	r.sameAsTable("t", "id")
	return run
}

// during runs harm while one instance of the pipeline is at work, and stops it in
// order afterwards.
func (r *rig) during(harm func(*running)) func() {
	return func() {
		run := r.start()
		run.waitState(cdc.StateStreaming)
		harm(run)
		run.waitState(cdc.StateStreaming)
		run.finish()
	}
}

// flowing waits until the pipeline has written more than before.
func (r *running) flowing() {
	r.t.Helper()
	before := r.p.Status().Records
	r.wait("records", func(s cdc.Status) bool { return s.Records > before+200 && s.State == cdc.StateStreaming })
}

// 125: kill -9 in a loop under load.
func TestG1Case125KilledInALoop(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	r.crashed(func() {
		for range 15 {
			v := r.spawn("", 0)
			select { // the moment is the fault itself, drawn at random
			case <-v.Done():
				t.Fatal("the pipeline ended by itself")
			case <-time.After(time.Duration(100+rnd.IntN(1200)) * time.Millisecond):
			}
			v.Kill()
		}
	})
}

// 110: kill -9 of Postgres.
func TestCase110PostgresKilled(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, nil)
	r := rigOn(t, pg.Database(t), cdctest.Kafka(t))
	r.crashed(r.during(func(run *running) {
		for range 4 {
			run.flowing()
			pg.Kill()
			if err := pg.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		run.flowing()
	}))
}

// 111: an orderly restart of Postgres; up to version 16 the slot's confirmed
// position goes back by it.
func TestCase111PostgresRestarted(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, nil)
	r := rigOn(t, pg.Database(t), cdctest.Kafka(t))
	r.crashed(r.during(func(run *running) {
		for range 3 {
			run.flowing()
			if err := pg.Stop(t.Context(), "fast"); err != nil {
				t.Fatalf("fast shutdown hangs on us: %v", err)
			}
			if err := pg.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		run.flowing()
	}))
}

// 114: the walsender is terminated again and again.
func TestCase114WalsenderTerminated(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.crashed(r.during(func(run *running) {
		for range 8 {
			run.flowing()
			r.db.Query(t, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '`+r.cfg.Name+`' AND active`)
		}
		run.flowing()
	}))
}

// 115, 179: the broker is killed under load. Apache Kafka knows a batch again that
// was answered just before. The test's own broker does not, so it dies together
// with the pipeline, as the embedded one would.
func TestCase115BrokerKilled(t *testing.T) {
	t.Parallel()
	k := cdctest.PrivateKafka(t)
	r := rigOn(t, cdctest.Database(t), k)
	if os.Getenv(cdctest.KafkaVariable) != "" {
		r.crashed(r.during(func(run *running) {
			for range 4 {
				run.flowing()
				k.Kill(t)
				k.Start(t)
			}
			run.flowing()
		}))
		return
	}
	r.crashed(func() {
		for range 4 {
			before := len(cdctest.Read(t, k.Brokers, r.topic("aud")))
			v := r.spawn("", 0)
			cdctest.WaitRecords(t, k.Brokers, r.topic("aud"), cdctest.AtLeast(before+500))
			k.Kill(t)
			v.Kill()
			k.Start(t)
		}
	})
}

// 117: the connection to Postgres is cut, and stalls.
func TestCase117PostgresConnectionCut(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	proxy, through := throughProxy(t, db)
	r := rigOn(t, db, cdctest.Kafka(t), func(c *pipeline.Config) { c.Source.URL = through })
	r.crashed(r.during(func(run *running) {
		for range 5 {
			run.flowing()
			proxy.Cut()
		}
		run.flowing()
	}))
}

// 190: answers of the broker are lost on the wire: carried out, not known.
func TestCase190AnswersLost(t *testing.T) {
	t.Parallel()
	k, proxy := cdctest.ProxiedKafka(t)
	r := rigOn(t, cdctest.Database(t), k)
	r.crashed(r.during(func(run *running) {
		for range 6 {
			run.flowing()
			proxy.DropAnswers(1)
			run.flowing()
			proxy.Cut()
		}
		run.flowing()
	}))
}

// 180: an old instance that slept wakes up with batches in hand, after a new one
// took over: whatever it tries, no reader sees it.
func TestCase180Zombie(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.crashed(func() {
		for range 3 {
			zombie := r.spawn("", 0)
			old := r.db
			for old.Value(t, `SELECT count(*) FROM pg_replication_slots WHERE slot_name = '`+r.cfg.Name+`' AND active`) == "0" {
				select {
				case <-zombie.Done():
					t.Fatal("ended by itself")
				case <-time.After(20 * time.Millisecond):
				}
			}
			zombie.Signal(t, syscall.SIGSTOP)
			r.db.Query(t, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '`+r.cfg.Name+`' AND active`)
			next := r.start()
			next.waitState(cdc.StateStreaming)
			next.flowing()
			zombie.Signal(t, syscall.SIGCONT)
			next.flowing()
			next.finish()
			zombie.Kill()
		}
	})
}

// 119: the process sleeps for longer than Postgres waits.
func TestCase119Paused(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, map[string]string{"wal_sender_timeout": "1s"})
	r := rigOn(t, pg.Database(t), cdctest.Kafka(t))
	r.crashed(func() {
		v := r.spawn("", 0)
		for range 2 {
			for r.db.Value(t, `SELECT count(*) FROM pg_replication_slots WHERE slot_name = '`+r.cfg.Name+`' AND active`) == "0" {
				select {
				case <-v.Done():
					t.Fatal("ended by itself")
				case <-time.After(20 * time.Millisecond):
				}
			}
			v.Signal(t, syscall.SIGSTOP)
			for r.db.Value(t, `SELECT count(*) FROM pg_replication_slots WHERE slot_name = '`+r.cfg.Name+`' AND active`) == "1" {
				select {
				case <-t.Context().Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
			v.Signal(t, syscall.SIGCONT)
		}
		v.Stop()
	})
}

// G7: a transaction far larger than the memory bound, into a broker that stalls.
func TestG7MemoryIsBounded(t *testing.T) {
	t.Parallel()
	k, proxy := cdctest.ProxiedKafka(t)
	r := rigOn(t, cdctest.Database(t), k, func(c *pipeline.Config) { c.Writer.Memory = 4 << 20 })
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	proxy.Stall()
	r.db.Exec(t, `INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 60000) i`)
	var most int64
	run.wait("a full buffer", func(s cdc.Status) bool {
		most = max(most, s.BufferedBytes)
		return s.BufferedBytes > 2<<20
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		most = max(most, run.p.Status().BufferedBytes)
	}
	proxy.Heal()
	run.caughtUp()
	run.finish()
	if most > 6<<20 {
		t.Fatalf("%d bytes were buffered, the bound is 4 MiB and one set", most)
	}
	r.inOrder(r.topic("t"))
	if got := len(cdctest.Read(t, k.Brokers, r.topic("t"))); got != 60000 {
		t.Fatalf("%d records, want 60000", got)
	}
}
