package quorum

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/format"
	"cdc/internal/pipeline"
	"cdc/internal/sink"
	"cdc/internal/source"
)

func TestMain(m *testing.M) { cdctest.Main(m) }

const (
	// waitLimit bounds every wait; reaching it is a failure. How long an election
	// takes is nobody's promise.
	waitLimit = 3 * time.Minute
	// requestTimeout is what brokers may wait for their replicas: short, because
	// some tests take these away. The product's default is 30 s.
	requestTimeout = 2 * time.Second
	// partitions is enough for every node to lead some.
	partitions = 6
)

// rig is a pipeline from a database to the cluster, with writers at work.
type rig struct {
	t    *testing.T
	db   *cdctest.DB
	q    *cdctest.Quorum
	cfg  pipeline.Config
	log  *journal
	work *workload

	p    *pipeline.Pipeline
	stop context.CancelFunc
	done chan struct{}
	err  error // valid once done is closed
}

// begin starts a pipeline over empty tables and then the writers: the whole
// history is streamed.
func begin(t *testing.T) *rig {
	t.Helper()
	q := cdctest.KafkaQuorum(t)
	t.Cleanup(func() { q.Heal(t) }) // behind the end of the pipeline
	db := cdctest.Database(t)
	r := &rig{t: t, db: db, q: q, log: &journal{}}
	logger := slog.New(slog.NewTextHandler(r.log, nil))
	name := db.Name
	r.cfg = pipeline.Config{
		Name:   name,
		Source: source.Config{URL: db.URL, Slot: name, Publication: name, Include: []string{"public.*"}, Logger: logger},
		Sink:   sink.Config{Brokers: q.Brokers, ClientID: "cdc", Logger: logger},
		Format: format.Options{Format: "json", Server: name, Toast: "fill", Unknown: "text"},
		Writer: sink.WriterConfig{Compression: "none", Memory: 16 << 20, RequestTimeout: requestTimeout},
		Topic:  name + ".{table}", Progress: "_cdc.progress." + name,
		Partitions: partitions, Replication: -1,
		Delivery: pipeline.ExactlyOnce, Snapshot: pipeline.SnapshotInitial, Workers: 1,
		Toast: "fill", Truncate: "tombstones", Oversize: "stop", DeadLetter: name + ".dead-letter", OnGap: "stop",
		Logger: logger,
	}
	db.KeepSlot(name)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the pipeline:\n%s", r.log.end())
		}
	})
	r.tables()
	r.start()
	r.work = startWorkload(t, db)
	r.flowing()
	return r
}

func (r *rig) topic(table string) string { return r.cfg.Name + "." + table }

// start runs the pipeline in this process until finish.
func (r *rig) start() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p, done := pipeline.New(r.cfg), make(chan struct{})
	r.p, r.stop, r.done, r.err = p, cancel, done, nil
	go func() {
		defer close(done)
		r.err = p.Run(ctx)
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
	})
	r.wait("stream", func(s cdc.Status) bool { return s.State == cdc.StateStreaming })
}

// finish stops the pipeline in order.
func (r *rig) finish() {
	r.t.Helper()
	r.stop()
	<-r.done
	if r.err != nil {
		r.t.Fatalf("stop: %v", r.err)
	}
}

func (r *rig) wait(what string, cond func(cdc.Status) bool) {
	r.t.Helper()
	deadline := time.Now().Add(waitLimit)
	for {
		s := r.p.Status()
		if cond(s) {
			return
		}
		select {
		case <-r.done:
			r.t.Fatalf("the pipeline ended while the test waits for %s: %v", what, r.err)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("waiting for %s: %+v", what, s)
		}
	}
}

// flowing waits until everything committed by now is acknowledged, and more has
// been written since.
func (r *rig) flowing() {
	r.t.Helper()
	before := r.p.Status().Records
	r.caughtUp()
	r.wait("records", func(s cdc.Status) bool { return s.Records > before+200 && s.State == cdc.StateStreaming })
}

func (r *rig) caughtUp() {
	r.t.Helper()
	end := r.walEnd()
	// The message moves the server's own position behind the last commit.
	r.db.Exec(r.t, "SELECT pg_logical_emit_message(false, 'cdc-test', 'tick')")
	r.wait("acknowledgement of "+end.String(), func(s cdc.Status) bool { return s.Acked >= end })
}

func (r *rig) walEnd() cdc.LSN {
	r.t.Helper()
	end, err := cdc.ParseLSN(r.db.Value(r.t, "SELECT pg_current_wal_insert_lsn()"))
	if err != nil {
		r.t.Fatal(err)
	}
	return end
}

// logged waits until the pipeline logs one of the texts.
func (r *rig) logged(since int, texts ...string) {
	r.t.Helper()
	r.wait("the log to say one of: "+strings.Join(texts, ", "), func(cdc.Status) bool {
		for _, text := range texts {
			if r.log.says(since, text) {
				return true
			}
		}
		return false
	})
}

// heldBack fails the test unless what was committed at end is neither
// acknowledged nor confirmed, and Postgres still has it.
func (r *rig) heldBack(end cdc.LSN) {
	r.t.Helper()
	if s := r.p.Status(); s.Acked >= end || s.Confirmed >= end {
		r.t.Errorf("acknowledged %v, confirmed %v: want both before %v, too few replicas can have it", s.Acked, s.Confirmed, end)
	}
	row := r.db.Query(r.t, `SELECT confirmed_flush_lsn < '`+end.String()+`', restart_lsn <= confirmed_flush_lsn, wal_status <> 'lost' FROM pg_replication_slots WHERE slot_name = '`+r.cfg.Name+`'`)[0]
	for i, want := range []string{"confirmed before the row", "WAL from there on", "not lost"} {
		if row[i] != "t" {
			r.t.Errorf("slot: %s is %s, want t", want, row[i])
		}
	}
}

// journal keeps the log of a pipeline.
type journal struct {
	mu   sync.Mutex
	text []byte
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text = append(j.text, b...)
	return len(b), nil
}

// mark is where the log ends now.
func (j *journal) mark() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.text)
}

func (j *journal) says(since int, text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return bytes.Contains(j.text[since:], []byte(text))
}

func (j *journal) end() string {
	const most = 16 << 10
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(j.text[max(0, len(j.text)-most):])
}
