package rights

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/format"
	"cdc/internal/pipeline"
	"cdc/internal/sink"
	"cdc/internal/source"
)

func TestMain(m *testing.M) { cdctest.Main(m) }

// waitLimit bounds every wait; reaching it is a failure.
const waitLimit = 3 * time.Minute

// documented reads the rights that docs/operations.md asks for under a heading.
func documented(t *testing.T, heading string) []cdctest.Right {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("docs/operations.md has no %q", heading)
	}
	_, section, _ = strings.Cut(section, "```\n")
	section, _, _ = strings.Cut(section, "```")
	return commanded(t, section)
}

// commanded reads the rights that commands give, one a line.
func commanded(t *testing.T, commands string) (rights []cdctest.Right) {
	t.Helper()
	for line := range strings.Lines(commands) {
		more, err := cdctest.ParseRights(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		rights = append(rights, more...)
	}
	if len(rights) == 0 {
		t.Fatalf("no rights in %q", commands)
	}
	return rights
}

func sinkConfig(k *cdctest.Restricted) sink.Config {
	return sink.Config{Brokers: []string{k.Address}, SASL: &sink.SASL{Mechanism: "plain", User: cdctest.RestrictedUser, Password: cdctest.RestrictedPassword}}
}

// rig is a pipeline of rows with the names that the documentation has.
type rig struct {
	t   *testing.T
	db  *cdctest.DB
	k   *cdctest.Restricted
	cfg pipeline.Config

	p    *pipeline.Pipeline
	stop context.CancelFunc
	done chan struct{}
	err  error // valid once done is closed
}

func newRig(t *testing.T) *rig {
	t.Helper()
	k := cdctest.RestrictedKafka(t)
	db := cdctest.Database(t)
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	r := &rig{t: t, db: db, k: k}
	r.cfg = pipeline.Config{
		Name:   "rows",
		Source: source.Config{URL: db.URL, Slot: db.Name, Publication: db.Name, Include: []string{"public.*"}, Logger: logger},
		Sink:   sinkConfig(k),
		Format: format.Options{Format: "json", Server: "rows", Toast: "fill", Unknown: "text"},
		Writer: sink.WriterConfig{Compression: "none", Memory: 16 << 20},
		Topic:  "university.{schema}.{table}", Progress: "_cdc.progress.rows",
		Partitions: 2, Replication: -1,
		Delivery: pipeline.ExactlyOnce, Snapshot: pipeline.SnapshotInitial, Workers: 1,
		Toast: "fill", Truncate: "tombstones", Oversize: "dead-letter", DeadLetter: "rows.dead-letter", OnGap: "stop",
		Logger: logger,
	}
	db.KeepSlot(db.Name)
	db.Exec(t, `CREATE TABLE students(id int PRIMARY KEY)`, `INSERT INTO students SELECT generate_series(1, 100)`)
	return r
}

// run starts the pipeline in this process.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	p, done := pipeline.New(r.cfg), make(chan struct{})
	r.p, r.stop, r.done = p, cancel, done
	go func() {
		defer close(done)
		r.err = p.Run(ctx)
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// start runs it and returns when it streams.
func (r *rig) start() {
	r.t.Helper()
	r.run()
	r.wait("stream", func(s cdc.Status) bool { return s.State == cdc.StateStreaming })
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

// enrol commits a row.
func (r *rig) enrol() {
	r.t.Helper()
	r.db.Exec(r.t, `INSERT INTO students SELECT max(id) + 1 FROM students`)
}

// settle commits a row, waits until everything is acknowledged and stops in order.
func (r *rig) settle() {
	r.t.Helper()
	r.enrol()
	end, err := cdc.ParseLSN(r.db.Value(r.t, "SELECT pg_current_wal_insert_lsn()"))
	if err != nil {
		r.t.Fatal(err)
	}
	// The message moves the server's own position behind the last commit.
	r.db.Exec(r.t, "SELECT pg_logical_emit_message(false, 'cdc-test', 'tick')")
	r.wait("acknowledgement of "+end.String(), func(s cdc.Status) bool { return s.Acked >= end && !copying(s) })
	r.stop()
	<-r.done
	if r.err != nil {
		r.t.Fatalf("stop: %v", r.err)
	}
}

// copying says that a table is copied by chunks.
func copying(s cdc.Status) bool {
	return slices.ContainsFunc(s.Snapshot, func(t cdc.TableProgress) bool { return t.State != "" })
}

// verify does what cdc verify does, with the rights of the pipeline, which runs.
func (r *rig) verify() {
	r.t.Helper()
	v, err := pipeline.OpenVerifier(r.t.Context(), r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	defer v.Close()
	var found []pipeline.Verified
	done := make(chan struct{})
	go func() {
		defer close(done)
		found, err = v.Run(r.t.Context(), nil, pipeline.VerifyOptions{Timeout: waitLimit})
	}()
	for running := true; running; { // without traffic it takes until the next keepalive
		r.enrol()
		select {
		case <-done:
			running = false
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range found {
		if f.Verdict != cdc.VerdictEqual {
			r.t.Errorf("verify %s: %s (%s), want %s", f.Subject, f.Verdict, f.Why, cdc.VerdictEqual)
		}
	}
	if len(found) == 0 {
		r.t.Error("verify: no table")
	}
}

// once wants each row in the topic once: no row was ever changed.
func (r *rig) once() {
	r.t.Helper()
	records := cdctest.Read(r.t, r.k.Brokers, "university.public.students")
	rows := r.db.Value(r.t, `SELECT count(*) FROM students`)
	if got := fmt.Sprint(len(records)); got != rows || len(cdctest.Fold(records)) != len(records) {
		r.t.Errorf("%s records of %d keys, want one for each of %s rows", got, len(cdctest.Fold(records)), rows)
	}
}

// streams waits until the pipeline streams, or has ended.
func (r *rig) streams() bool {
	r.t.Helper()
	for deadline := time.Now().Add(waitLimit); ; {
		select {
		case <-r.done:
			return false
		case <-time.After(10 * time.Millisecond):
		}
		s := r.p.Status()
		if s.State == cdc.StateStreaming {
			return true
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("waiting for the stream, or an end: %+v", s)
		}
	}
}

// allow gives the user these rights and no others.
func (r *rig) allow(rights []cdctest.Right) {
	r.t.Helper()
	r.k.Revoke(r.t, cdctest.Right{Operation: kmsg.ACLOperationAny})
	r.k.Allow(r.t, rights...)
}

// refused waits for the pipeline to stop for the lack of a right.
func (r *rig) refused() error {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(waitLimit):
		r.t.Fatalf("the pipeline does not stop: %+v", r.p.Status())
	}
	return r.err
}

// granted wants an error to say what is missing, and does what it says to do.
func granted(t *testing.T, k *cdctest.Restricted, err error, reason string, says ...string) {
	t.Helper()
	var te *cdc.TerminalError
	if !errors.As(err, &te) || te.Reason != reason {
		t.Fatalf("got error %v, want a terminal one with reason %q", err, reason)
	}
	for _, text := range says {
		if !strings.Contains(te.Err.Error(), text) {
			t.Errorf("error %q does not say %q", te.Err, text)
		}
	}
	t.Logf("refused: %v", te)
	k.Allow(t, commanded(t, te.Mend)...)
}
