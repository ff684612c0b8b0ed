package pipeline_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/format"
	"cdc/internal/pipeline"
	"cdc/internal/sink"
	"cdc/internal/source"
)

// rig is a database, a cluster and the configuration of a pipeline between them.
type rig struct {
	t   *testing.T
	db  *cdctest.DB
	k   *cdctest.Cluster
	cfg pipeline.Config
}

// newRig makes one on the shared servers. The pipeline's names are the test's own.
func newRig(t *testing.T, change ...func(*pipeline.Config)) *rig {
	t.Helper()
	return rigOn(t, cdctest.Database(t), cdctest.Kafka(t), change...)
}

func rigOn(t *testing.T, db *cdctest.DB, k *cdctest.Cluster, change ...func(*pipeline.Config)) *rig {
	t.Helper()
	name := db.Name
	r := &rig{t: t, db: db, k: k}
	r.cfg = baseConfig(name, db.URL, k.Brokers)
	r.cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	r.cfg.Source.Logger = r.cfg.Logger
	r.cfg.Sink.Logger = r.cfg.Logger
	for _, f := range change {
		f(&r.cfg)
	}
	db.KeepSlot(name)
	return r
}

// baseConfig is the configuration file's defaults with few partitions.
func baseConfig(name, url string, brokers []string) pipeline.Config {
	return pipeline.Config{
		Name:   name,
		Source: source.Config{URL: url, Slot: name, Publication: name, Include: []string{"public.*"}},
		Sink:   sink.Config{Brokers: brokers, ClientID: "cdc"},
		Format: format.Options{Format: "json", Server: name, Toast: "fill", Unknown: "text"},
		Writer: sink.WriterConfig{Compression: "none", Memory: 16 << 20},
		Topic:  name + ".{schema}.{table}", Progress: "_cdc.progress." + name,
		Partitions: 3, Replication: -1,
		Delivery: pipeline.ExactlyOnce, Snapshot: pipeline.SnapshotInitial, Workers: 2,
		Toast: "fill", Truncate: "tombstones", Oversize: "stop", DeadLetter: name + ".dead-letter", OnGap: "stop",
	}
}

// testWriter sends a logger's lines to the test's own log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	if os.Getenv("CDC_TEST_LOG") != "" {
		fmt.Fprintf(os.Stderr, "%s %s", w.t.Name(), b)
	}
	return len(b), nil
}

func (r *rig) topic(table string) string { return r.cfg.Name + ".public." + table }

// running is a pipeline on its way.
type running struct {
	*rig
	p    *pipeline.Pipeline
	stop context.CancelFunc
	done chan struct{}
	err  error // valid once done is closed
}

func (r *rig) start() *running {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	run := &running{rig: r, p: pipeline.New(r.cfg), stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(run.done)
		run.err = run.p.Run(ctx)
	}()
	r.t.Cleanup(func() {
		cancel()
		<-run.done
	})
	return run
}

// waitLimit bounds every wait of these tests; reaching it is a failure.
const waitLimit = 3 * time.Minute

// wait polls until cond holds. The pipeline may end first only if that is what
// cond waits for.
func (r *running) wait(what string, cond func(cdc.Status) bool) {
	r.t.Helper()
	deadline := time.Now().Add(waitLimit)
	for {
		s := r.p.Status()
		if cond(s) {
			return
		}
		select {
		case <-r.done:
			if s = r.p.Status(); !cond(s) {
				r.t.Fatalf("pipeline ended waiting for %s: %v; status %+v", what, r.err, s)
			}
			return
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("waiting for %s: %+v", what, s)
		}
	}
}

func (r *running) waitState(s cdc.State) {
	r.t.Helper()
	r.wait(string(s), func(st cdc.Status) bool { return st.State == s })
}

// caughtUp waits until everything committed by now is acknowledged.
func (r *running) caughtUp() {
	r.t.Helper()
	end, err := cdc.ParseLSN(r.db.Value(r.t, "SELECT pg_current_wal_insert_lsn()"))
	if err != nil {
		r.t.Fatal(err)
	}
	// A commit after which nothing is written to the log is the end of what a
	// slot sends; the message moves the server's own position behind it.
	r.db.Exec(r.t, "SELECT pg_logical_emit_message(false, 'cdc-test', 'tick')")
	r.wait("acknowledgement of "+end.String(), func(s cdc.Status) bool { return s.Acked >= end })
	r.copied()
}

// copied waits until no table is being copied.
func (r *running) copied() {
	r.t.Helper()
	r.wait("the copies", func(s cdc.Status) bool { return len(copies(s)) == 0 })
}

// copies are the tables that are being copied by chunks.
func copies(s cdc.Status) []cdc.TableProgress {
	return slices.DeleteFunc(s.Snapshot, func(t cdc.TableProgress) bool { return t.State == "" })
}

// finish stops in order and wants no error.
func (r *running) finish() {
	r.t.Helper()
	r.stop()
	<-r.done
	if r.err != nil {
		r.t.Fatalf("stop: %v", r.err)
	}
}

// fails waits for a terminal error with a reason and returns it.
func (r *running) fails(reason string) *cdc.TerminalError {
	r.t.Helper()
	r.wait("failure", func(s cdc.Status) bool { return s.State == cdc.StateFailed })
	<-r.done
	var te *cdc.TerminalError
	if !asTerminal(r.err, &te) || te.Reason != reason {
		r.t.Fatalf("got error %v, want a terminal one with reason %q", r.err, reason)
	}
	if te.Mend == "" {
		r.t.Errorf("terminal error %q says nothing about how to mend it", te)
	}
	return te
}

// sameAsTable compares the fold of a topic with the table, key by key and value
// by value; both as decoded JSON with exact numbers.
func (r *rig) sameAsTable(table string, keys ...string) {
	r.t.Helper()
	got := cdctest.Fold(cdctest.Read(r.t, r.k.Brokers, r.topic(table)))
	order := "1"
	pairs := make([]string, len(keys))
	for i, k := range keys {
		pairs[i] = fmt.Sprintf("'%s', %s", k, k)
	}
	rows := r.db.Query(r.t, fmt.Sprintf("SELECT json_build_object(%s)::text, row_to_json(t)::text FROM %s t ORDER BY %s", strings.Join(pairs, ", "), table, order))
	want := map[string]string{}
	for _, row := range rows {
		want[canonical(r.t, []byte(row[0]))] = canonical(r.t, []byte(row[1]))
	}
	have := map[string]string{}
	for k, v := range got {
		have[canonical(r.t, []byte(k))] = canonical(r.t, []byte(v))
	}
	bad := 0
	complain := func(format string, args ...any) {
		if bad++; bad <= 5 {
			r.t.Errorf(format, args...)
		}
	}
	for k, v := range want {
		if g, ok := have[k]; !ok {
			complain("%s: key %s is missing from the topic", table, k)
		} else if g != v {
			complain("%s: key %s: topic has %.200s, table has %.200s", table, k, g, v)
		}
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			complain("%s: key %s is alive in the topic and not in the table", table, k)
		}
	}
	if bad > 0 {
		r.t.Fatalf("%s: %d differences between %d rows and %d live keys", table, bad, len(want), len(have))
	}
}

// canonical re-encodes JSON with sorted keys and numbers as they are written.
func canonical(t *testing.T, b []byte) string {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("decode %.200s: %v", b, err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// inOrder checks what G1 says of the positions: strictly increasing in each
// partition within a generation (the tombstones of one TRUNCATE excepted), so
// nothing is there twice.
func (r *rig) inOrder(topic string) {
	r.t.Helper()
	last := map[int32]cdc.Stamp{}
	for _, rec := range cdctest.Read(r.t, r.k.Brokers, topic) {
		h, ok := rec.Header(cdc.StampHeader)
		if !ok {
			r.t.Fatalf("%s/%d offset %d has no position", topic, rec.Partition, rec.Offset)
		}
		s, err := cdc.ParseStamp(h)
		if err != nil {
			r.t.Fatal(err)
		}
		before := last[rec.Partition]
		if before.Generation == s.Generation && !before.Position.Before(s.Position) && s.Position.Record != 0 {
			r.t.Fatalf("%s/%d offset %d: position %s after %s", topic, rec.Partition, rec.Offset, s.Position, before.Position)
		}
		last[rec.Partition] = s
	}
}
