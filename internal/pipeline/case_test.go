package pipeline_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// flow makes a rig over tables and starts its pipeline: what the test does next
// comes through the stream.
func flow(t *testing.T, ddl ...string) *running {
	t.Helper()
	return flowWith(t, func(*pipeline.Config) {}, ddl...)
}

func flowWith(t *testing.T, change func(*pipeline.Config), ddl ...string) *running {
	t.Helper()
	r := newRig(t, change)
	r.db.Exec(t, ddl...)
	return r.streaming()
}

// streaming starts the pipeline and waits until it streams.
func (r *rig) streaming() *running {
	r.t.Helper()
	run := r.start()
	run.waitState(cdc.StateStreaming)
	return run
}

// settle waits until everything committed is acknowledged, and stops in order.
func (r *running) settle() {
	r.t.Helper()
	r.caughtUp()
	r.finish()
}

// records reads the topic of a table.
func (r *rig) records(table string) []cdctest.Record {
	r.t.Helper()
	return cdctest.Read(r.t, r.k.Brokers, r.topic(table))
}

// fold is what the topic of a table says now.
func (r *rig) fold(table string) map[string]string {
	r.t.Helper()
	return cdctest.Fold(r.records(table))
}

// wantValues compares some keys of a topic's fold; "" wants the key to be gone.
func (r *rig) wantValues(table string, want map[string]string) {
	r.t.Helper()
	got := r.fold(table)
	for k, w := range want {
		if got[k] != w {
			r.t.Errorf("%s, key %s: got %q, want %q", table, k, got[k], w)
		}
	}
}

// history lists the values of one key in the order of its partition; "-" is a
// tombstone.
func (r *rig) history(table, key string) []string {
	r.t.Helper()
	var got []string
	for _, rec := range r.records(table) {
		switch {
		case string(rec.Key) != key:
		case rec.Value == nil:
			got = append(got, "-")
		default:
			got = append(got, string(rec.Value))
		}
	}
	return got
}

func (r *rig) wantHistory(table, key string, want ...string) {
	r.t.Helper()
	if got := r.history(table, key); strings.Join(got, "\n") != strings.Join(want, "\n") {
		r.t.Errorf("%s, history of key %s:\n got %q\nwant %q", table, key, got, want)
	}
}

// stamp is the position that a record carries.
func stamp(t *testing.T, rec cdctest.Record) cdc.Stamp {
	t.Helper()
	h, _ := rec.Header(cdc.StampHeader)
	s, err := cdc.ParseStamp(h)
	if err != nil {
		t.Fatalf("record %s at offset %d: %v", rec.Key, rec.Offset, err)
	}
	return s
}

// logbook keeps what a pipeline logs.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logbook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logbook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// into makes a pipeline write its log there.
func (b *logbook) into(c *pipeline.Config) {
	c.Logger = slog.New(slog.NewTextHandler(b, nil))
	c.Source.Logger, c.Sink.Logger = c.Logger, c.Logger
}
