package pipeline_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// throughProxy gives a database's URL another address.
func throughProxy(t *testing.T, db *cdctest.DB) (*cdctest.Proxy, string) {
	t.Helper()
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := cdctest.NewProxy(t, u.Host)
	u.Host = proxy.Addr
	return proxy, u.String()
}

// 120: a connection string of several hosts. The first refuses writes, as a standby
// does; then the primary is found at another address.
func TestCase120SeveralHosts(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	readOnly := cdctest.PrivatePostgres(t, map[string]string{"default_transaction_read_only": "on"})
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	writing := readOnly.URL("postgres") + "&options=" + url.QueryEscape("-cdefault_transaction_read_only=off")
	(&cdctest.DB{Name: "postgres", URL: writing, Server: readOnly}).Exec(t, `CREATE DATABASE `+db.Name)
	here, there := cdctest.NewProxy(t, u.Host), cdctest.NewProxy(t, u.Host)
	there.Refuse()
	u.Host = strings.Join([]string{fmt.Sprintf("127.0.0.1:%d", readOnly.Port()), here.Addr, there.Addr}, ",")
	u.RawQuery += "&target_session_attrs=read-write"
	r := rigOn(t, db, cdctest.Kafka(t), func(c *pipeline.Config) { c.Source.URL = u.String() })
	r.crashed(r.during(func(run *running) {
		run.flowing()
		here.Refuse()
		there.Heal()
		run.flowing()
		there.Refuse()
		here.Heal()
		run.flowing()
	}))
}

// 120: what a name leads to is gone, then the name has no address, then another.
// Every connection asks again: stream, catalogue, workers and monitor.
func TestCase120PostgresMoves(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	f := cdctest.NewFailover(t, u.Host)
	u.Host = f.Addr
	r := rigOn(t, db, cdctest.Kafka(t), func(c *pipeline.Config) { c.Source.URL = u.String() })
	r.crashed(r.during(func(run *running) { run.moves(f) }))
}

// 120: the same of the name that the broker has told its clients.
func TestCase120KafkaMoves(t *testing.T) {
	t.Parallel()
	k, f := cdctest.MovingKafka(t)
	r := rigOn(t, cdctest.Database(t), k)
	r.crashed(r.during(func(run *running) { run.moves(f) }))
}

// moves has a host go to another address and back, under a pipeline at work.
func (r *running) moves(f *cdctest.Failover) {
	r.t.Helper()
	for range 2 {
		r.flowing()
		f.Leave()
		r.wait("a question for the name", func(cdc.Status) bool { return f.Asked() })
		f.Arrive()
		r.flowing()
	}
}

// 118: the client is gone and the server does not know: the slot is held by nobody
// until wal_sender_timeout. The next instance waits, and says for whom.
func TestCase118HalfOpen(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, map[string]string{"wal_sender_timeout": "3s"})
	r := rigOn(t, pg.Database(t), cdctest.Kafka(t))
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'one')`)
	direct := r.cfg.Source.URL
	proxy, through := throughProxy(t, r.db)
	r.cfg.Source.URL = through
	first := r.streaming()
	first.caughtUp()
	proxy.Stall() // nothing passes, the end of the connection included
	first.stop()
	<-first.done
	r.db.Exec(t, `INSERT INTO t VALUES (2, 'two')`)
	r.cfg.Source.URL = direct
	second := r.start()
	waited := ""
	second.wait("the slot", func(s cdc.Status) bool {
		if s.State == cdc.StateWaiting && s.Stalled != "" {
			waited = s.Stalled
		}
		return s.State == cdc.StateStreaming
	})
	if !strings.Contains(waited, "backend") {
		t.Logf("the slot was free already (%q): the machine is slower than wal_sender_timeout", waited)
	}
	if s := second.p.Status(); s.Restarts != 0 {
		t.Errorf("the second instance started over %d times, want it to wait: %s", s.Restarts, s.Error)
	}
	second.whole()
}

// 124: WAL that the slot needs is gone from the disk, or damaged. Nothing is
// skipped: the pipeline stops, and names what is lost.
func TestCase124WALDamaged(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, reason string
		harm         func(path string) error
	}{
		{"removed", "wal-missing", os.Remove},
		{"overwritten", "wal-unreadable", func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			junk := []byte(strings.Repeat("not WAL ", 4<<20/8))
			for at := int64(0); at < 16<<20 && err == nil; at += int64(len(junk)) {
				_, err = f.WriteAt(junk, at)
			}
			if e := f.Close(); err == nil {
				err = e
			}
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pg := cdctest.PrivatePostgres(t, nil)
			r := rigOn(t, pg.Database(t), cdctest.Kafka(t))
			r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'one'), (2, 'two')`)
			damage := func() {
				r.streaming().settle()
				segment := r.db.Value(t, `SELECT pg_walfile_name(pg_current_wal_lsn())`)
				r.unseen()
				r.db.Exec(t, `SELECT pg_switch_wal()`, `CHECKPOINT`, `INSERT INTO t SELECT max(id) + 1, 'behind' FROM t`, `SELECT pg_switch_wal()`, `CHECKPOINT`)
				pg.Halt(t)
				if err := tt.harm(filepath.Join(pg.Dir(), "pg_wal", segment)); err != nil {
					t.Fatal(err)
				}
				pg.Resume(t)
			}
			damage()
			te := r.start().fails(tt.reason)
			r.wantFrom(te)
			r.dropAndRun(te)
			damage()
			r.heals(tt.reason, "from="+r.newestProgress().End.String())
		})
	}
}

// 125: the service is restarted in order again and again, under load: what it has
// of slots, connections and topics is then what it had.
func TestCase125RestartedInALoop(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	topics := func() int {
		list, err := kadm.NewClient(r.k.Client(t)).ListTopicsWithInternal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for name := range list {
			if strings.Contains(name, r.cfg.Name+".") || strings.HasSuffix(name, "."+r.cfg.Name) {
				n++
			}
		}
		return n
	}
	had := 0
	r.crashed(func() {
		had = topics()
		for range 15 {
			run := r.streaming()
			run.wait("records", func(s cdc.Status) bool { return s.Records > 0 })
			run.finish()
			if s := run.p.Status(); s.TakeOvers != 1 || s.Restarts != 0 {
				t.Errorf("a life of its own: %d take-overs, %d restarts: %s", s.TakeOvers, s.Restarts, s.Error)
			}
		}
	})
	if n := topics(); n != had || n == 0 {
		t.Errorf("%d topics became %d", had, n)
	}
	if slots := r.db.Slots(t); len(slots) != 1 {
		t.Errorf("slots %v, want the pipeline's own alone", slots)
	}
	left := `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cdc' AND datname = '` + r.db.Name + `'`
	for deadline := time.Now().Add(waitLimit); r.db.Value(t, left) != "0"; {
		if time.Now().After(deadline) {
			t.Fatalf("%s connections are left open", r.db.Value(t, left))
		}
		time.Sleep(20 * time.Millisecond) // backends go a moment after their clients
	}
}

// 167: what the metrics say of lag and slot is Postgres' own view of them, also
// where nothing comes through the stream.
func TestCase167LagAndSlot(t *testing.T) {
	t.Parallel()
	k, proxy := cdctest.ProxiedKafka(t)
	r := rigOn(t, cdctest.Database(t), k, func(c *pipeline.Config) { c.MonitorEvery = 50 * time.Millisecond })
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'one')`)
	run := r.streaming()
	run.caughtUp()
	proxy.Stall()
	r.db.Exec(t, `INSERT INTO t VALUES (2, 'two')`)
	run.wait("a row that waits for Kafka", func(s cdc.Status) bool {
		return s.Received > s.Acked && s.LagSeconds > 0 && s.BufferedBytes > 0
	})
	end := r.end()
	run.wait("the server's own end", func(s cdc.Status) bool {
		return s.ServerEnd >= end && s.LagBytes >= int64(end-s.Acked) && s.SlotBytes > 0 && s.SlotStatus == "reserved"
	})
	if s := run.p.Status(); s.SlotSafe != -1 || s.Confirmed > s.Acked {
		t.Errorf("safe %d, want -1 where nothing bounds the slot; confirmed %s, acknowledged %s", s.SlotSafe, s.Confirmed, s.Acked)
	}
	proxy.Heal()
	run.caughtUp()
	run.wait("no lag", func(s cdc.Status) bool { return s.LagSeconds == 0 && s.AckLatency > 0 })
	run.whole()
}
