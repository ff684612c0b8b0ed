package pipeline_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/cdc"
	"cdc/internal/pipeline"
)

// What cannot be compared is unchecked, for a reason that is said; the other tables
// are compared all the same.
func TestVerifyUnchecked(t *testing.T) {
	t.Parallel()
	run := flow(t, pulseTable, `CREATE TABLE foreign_record(id int PRIMARY KEY)`, `CREATE TABLE no_json(id int PRIMARY KEY)`, `CREATE TABLE sound(id int PRIMARY KEY)`,
		`INSERT INTO foreign_record SELECT generate_series(1, 30)`, `INSERT INTO no_json SELECT generate_series(1, 30)`, `INSERT INTO sound SELECT generate_series(1, 30)`)
	run.pulse()
	cl := run.k.Client(t)
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: run.topic("foreign_record"), Key: []byte("k"), Value: []byte("v")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	run.forge(run.topic("no_json"), `{"id":1}`, []byte("not a row"))
	run.db.Exec(t, `CREATE TABLE later(id int PRIMARY KEY)`)
	found := run.verify(pipeline.VerifyOptions{})
	for table, want := range map[string]string{"foreign_record": "without a position", "no_json": "not a value of this format", "later": "not copied yet"} {
		if v := found[table]; v.Verdict != cdc.VerdictUnchecked || !strings.Contains(v.Why, want) || v.Differences() != 0 {
			t.Errorf("%s: got %+v, want it unchecked: %s", table, v.Verification, want)
		}
	}
	for _, table := range []string{"sound", "pulse"} {
		if v := found[table]; v.Verdict != cdc.VerdictEqual {
			t.Errorf("%s: got %+v, want it equal", table, v.Verification)
		}
	}
	other := *run.rig
	other.cfg.Format.Format = "debezium-json"
	if v := other.verify(pipeline.VerifyOptions{})["sound"]; v.Verdict != cdc.VerdictUnchecked || !strings.Contains(v.Why, "format json") {
		t.Errorf("another format: got %+v, want it unchecked", v.Verification)
	}
	other = *run.rig
	other.cfg.Progress += ".other"
	if v := other.verify(pipeline.VerifyOptions{})["sound"]; v.Verdict != cdc.VerdictUnchecked || !strings.Contains(v.Why, "never run") {
		t.Errorf("without a progress topic: got %+v, want it unchecked", v.Verification)
	}
}

// A topic that is gone, or that was written under another key than the table has now,
// is no topic with differences. It is said at once: nobody waits for the pipeline.
func TestVerifyTopicGoneOrKeyedOtherwise(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE gone(id int PRIMARY KEY)`, `INSERT INTO gone SELECT generate_series(1, 10)`,
		`CREATE TABLE keyed(a int PRIMARY KEY, b int NOT NULL)`, `INSERT INTO keyed SELECT i, i FROM generate_series(1, 10) i`)
	run.settle()
	run.deleteTopic(run.topic("gone"))
	for deadline := time.Now().Add(waitLimit); ; time.Sleep(10 * time.Millisecond) { // a broker deletes after it has answered
		topics, err := kadm.NewClient(run.k.Client(t)).ListTopics(t.Context(), run.topic("gone"))
		if err == nil && errors.Is(topics[run.topic("gone")].Err, kerr.UnknownTopicOrPartition) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the topic is not deleted: %+v, %v", topics, err)
		}
	}
	run.db.Exec(t, `ALTER TABLE keyed DROP CONSTRAINT keyed_pkey`, `ALTER TABLE keyed ADD PRIMARY KEY (b, a)`)
	found := run.verify(pipeline.VerifyOptions{})
	for table, want := range map[string]string{"gone": "topic \"" + run.topic("gone") + "\" does not exist", "keyed": "its topic has the key (a), the table has (b, a)"} {
		if v := found[table]; v.Verdict != cdc.VerdictUnchecked || v.Why != want || v.Differences() != 0 || v.Samples != nil {
			t.Errorf("%s: got %+v, want it unchecked: %s", table, v.Verification, want)
		}
	}
}
