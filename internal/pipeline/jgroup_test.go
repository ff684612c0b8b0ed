package pipeline_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// 180: an instance is frozen with a batch in hand, the moment before it is sent.
// Another takes over. When the first goes on, its batch is refused, it ends, and
// says why. What it hears from Postgres is held back meanwhile: it must not find out
// there first. A wait for Postgres that ran out while it was frozen may still be
// faster; then nothing is shown, and it is done again.
func TestCase180ZombieSaysWhy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	proxy, through := throughProxy(t, r.db)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	r.streaming().settle()
	for row := 1; ; row++ {
		zombie := cdctest.Spawn(t, childConfig{Point: cdctest.Point{Kill: "produce-before", Count: 1, Freeze: true},
			Name: r.cfg.Name, URL: through, Brokers: r.cfg.Sink.Brokers})
		r.db.Exec(t, fmt.Sprintf(`INSERT INTO t VALUES (%d, 'a')`, row))
		zombie.Frozen(t)
		proxy.Stall()
		r.db.Query(t, r.slotSQL(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '%s' AND active`))
		next := r.streaming()
		r.db.Exec(t, fmt.Sprintf(`UPDATE t SET v = 'b' WHERE id = %d`, row))
		next.caughtUp()
		zombie.Signal(t, syscall.SIGCONT)
		lost := func() bool { return strings.Contains(zombie.Log(), "pipeline starts again") }
		for deadline := time.Now().Add(waitLimit); !ended(zombie) && !lost(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				zombie.Signal(t, syscall.SIGQUIT) // what it is doing
				<-zombie.Done()
				t.Fatalf("the zombie neither ended nor lost Postgres:\n%s", zombie.Log())
			}
		}
		fenced := ended(zombie)
		proxy.Heal()
		zombie.Kill()
		next.finish()
		r.sameAsTable("t", "id")
		r.inOrder(r.topic("t"))
		if got := len(r.records("t")); got != 2*row {
			t.Fatalf("%d records, want %d", got, 2*row)
		}
		if fenced {
			if zombie.Success() || !strings.Contains(zombie.Log(), "another instance has taken over") {
				t.Error("the zombie ended without saying why")
			}
			return
		}
		if row == 3 {
			t.Fatal("the zombie lost Postgres first each time: nothing was shown")
		}
	}
}

func ended(v *cdctest.Victim) bool {
	select {
	case <-v.Done():
		return true
	default:
		return false
	}
}

// waitFor polls until cond holds.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// 187: a new cluster's coordinator is loading, elected, moved, busy, and does not
// know the topics yet, for some twenty seconds in all. The pipeline waits: no second
// life, no warning.
func TestCase187FirstStart(t *testing.T) {
	t.Parallel()
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	// The waits between two tries grow to a quarter of a second, in each of the three steps.
	const times = 7
	var faults []kfake.Fault
	for _, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.EndTxn} {
		for _, code := range []*kerr.Error{
			kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator, kerr.ConcurrentTransactions, kerr.UnknownTopicOrPartition,
		} {
			faults = append(faults, kfake.Fault{Keys: []kmsg.Key{key}, Err: code, Count: times})
		}
	}
	hit := k.Fault(faults...)
	log := &lines{}
	r := rigOn(t, cdctest.Database(t), &cdctest.Cluster{Brokers: k.ListenAddrs()})
	r.cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	r.cfg.Source.Logger, r.cfg.Sink.Logger = r.cfg.Logger, r.cfg.Logger
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'a')`)
	begin := time.Now()
	run := r.streaming()
	took := time.Since(begin)
	r.db.Exec(t, `INSERT INTO t VALUES (2, 'b')`)
	run.caughtUp()
	said := log.String() // what a slow stop says is another matter
	run.finish()
	r.sameAsTable("t", "id")
	t.Logf("%d refusals, streaming after %v", hit.Hits(), took)
	if got, want := hit.Hits(), 3*times; got < want {
		t.Errorf("%d refusals, want at least %d: nothing was tested", got, want)
	}
	if s := run.p.Status(); s.Restarts != 0 {
		t.Errorf("%d restarts, want the waits to be no errors", s.Restarts)
	}
	for line := range strings.Lines(said) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			t.Errorf("logged: %s", line)
		}
	}
}

// 190: one partition does not answer while another is far ahead: Postgres is told of
// nothing behind what the slow one has not acknowledged.
func TestCase190SlotBehindTheSlowestPartition(t *testing.T) {
	t.Parallel()
	k, err := kfake.NewCluster(kfake.NumBrokers(2))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	r := rigOn(t, cdctest.Database(t), &cdctest.Cluster{Brokers: k.ListenAddrs()})
	r.cfg.Partitions = 2
	r.cfg.Writer.RequestBytes = 1 << 10 // a large row leaves at once, whatever is on its way
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	run := r.streaming()
	r.db.Exec(t, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 20) i`)
	run.settle()
	ids := map[int32]string{}
	for _, rec := range r.records("t") {
		ids[rec.Partition] = jsonField(t, rec.Value, "id")
	}
	for partition := range int32(2) { // each its own leader
		if err := k.MoveTopicPartition(r.topic("t"), partition, partition); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.MoveTopicPartition(r.cfg.Progress, 0, 0); err != nil {
		t.Fatal(err)
	}
	open := make(chan struct{})
	answer := sync.OnceFunc(func() { close(open) })
	t.Cleanup(answer)
	held := make(chan struct{})
	hold := sync.OnceFunc(func() { close(held) })
	var fast atomic.Int32 // requests with rows for the other partition
	run = r.streaming()
	k.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		if k.CurrentNode() != 1 {
			k.KeepControl()
			return nil, nil, false
		}
		hold()
		k.SleepControl(func() { <-open })
		return nil, nil, false
	})
	update := func(partition int32, v string) {
		r.db.Exec(t, fmt.Sprintf(`UPDATE t SET v = '%s' WHERE id = %s`, v, ids[partition]))
	}
	update(1, "slow")
	select {
	case <-held:
	case <-time.After(waitLimit):
		t.Fatal("nothing was sent to the slow partition")
	}
	slow, err := cdc.ParseLSN(r.db.Value(t, `SELECT pg_current_wal_insert_lsn()`))
	if err != nil {
		t.Fatal(err)
	}
	k.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		if req.(*kmsg.ProduceRequest).Topics[0].Topic == r.topic("t") {
			fast.Add(1)
		}
		return nil, nil, false
	})
	for i := range 3 {
		update(0, strings.Repeat(fmt.Sprint(i), 4<<10))
	}
	waitFor(t, "the other partition's rows", func() bool { return fast.Load() > 0 })
	// Time itself is what is tested: the slot is told every second.
	<-time.After(2500 * time.Millisecond)
	confirmed := r.slotSQL(`SELECT confirmed_flush_lsn >= '` + slow.String() + `' FROM pg_replication_slots WHERE slot_name = '%s'`)
	if s := run.p.Status(); s.Acked >= slow || s.Confirmed >= slow || r.db.Value(t, confirmed) != "f" {
		t.Errorf("acknowledged %v, confirmed %v, slot told of it: %s; want nothing behind %v", s.Acked, s.Confirmed, r.db.Value(t, confirmed), slow)
	}
	answer()
	run.caughtUp()
	run.wait("the slot to be told", func(cdc.Status) bool { return r.db.Value(t, confirmed) == "t" })
	run.finish()
	r.sameAsTable("t", "id")
	r.inOrder(r.topic("t"))
	if got := len(r.records("t")); got != 24 {
		t.Errorf("%d records, want 24", got)
	}
}
