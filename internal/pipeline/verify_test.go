package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// pulse keeps the progress record moving: a pipeline whose tables rest writes one
// every ten seconds only.
const pulseTable = `CREATE TABLE pulse(id int PRIMARY KEY, n int)`

func (r *rig) pulse() {
	r.t.Helper()
	conn := r.db.Conn(r.t)
	r.db.Exec(r.t, `INSERT INTO pulse VALUES (1, 0)`)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if _, err := conn.Exec(context.Background(), `UPDATE pulse SET n = n + 1`); err != nil {
				r.t.Errorf("pulse: %v", err)
				return
			}
		}
	}()
	r.t.Cleanup(func() {
		close(stop)
		<-done
	})
}

// verify compares tables, all by default, and wants no error.
func (r *rig) verify(o pipeline.VerifyOptions, tables ...string) map[string]pipeline.Verified {
	r.t.Helper()
	v, err := pipeline.OpenVerifier(r.t.Context(), r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	defer v.Close()
	if o.Timeout == 0 {
		o.Timeout = waitLimit
	}
	found, err := v.Run(r.t.Context(), func(t cdc.Table) bool {
		return len(tables) == 0 || strings.Contains(" "+strings.Join(tables, " ")+" ", " "+t.Name+" ")
	}, o)
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]pipeline.Verified{}
	for _, f := range found {
		if f.At.IsZero() || f.Pipeline != r.cfg.Name {
			r.t.Errorf("result without its pipeline or time: %+v", f)
		}
		out[strings.TrimPrefix(f.Subject, "public.")] = f
	}
	return out
}

// While rows of every kind change, moved keys and values out of line among them,
// the comparison is exact: in both formats, in memory and in files.
func TestVerifyEqualUnderTraffic(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		format string
		memory int64
	}{{"json", 0}, {"debezium-json", 64 << 10}} {
		t.Run(c.format, func(t *testing.T) {
			t.Parallel()
			run := flowWith(t, func(cfg *pipeline.Config) { cfg.Format.Format = c.format },
				pulseTable, `CREATE TABLE t(id bigint PRIMARY KEY, v text, big text)`, `ALTER TABLE t ALTER big SET STORAGE EXTERNAL`,
				`INSERT INTO t SELECT i, 'v' || i, CASE WHEN i % 10 = 0 THEN repeat(md5(i::text), 100) END FROM generate_series(1, 2000) i`,
				`CREATE TABLE empty(id int PRIMARY KEY)`)
			run.pulse()
			conn := run.db.Conn(t)
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for n := 1; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					id := n%2000 + 1
					_, err := conn.Exec(t.Context(), fmt.Sprintf(`BEGIN; UPDATE t SET v = 'n%d' WHERE id = %d; UPDATE t SET v = v || '+' WHERE id = %d; COMMIT;
						DELETE FROM t WHERE id = %d; INSERT INTO t VALUES (%d, 'again', repeat('x', 3000)); UPDATE t SET id = id + 100000 WHERE id = %d; UPDATE t SET id = id - 100000 WHERE id = %d`,
						n, id/10*10, id/10*10, id, id, id, id+100000))
					if err != nil {
						t.Errorf("change rows: %v", err)
						return
					}
				}
			}()
			defer func() {
				close(stop)
				<-done
			}()
			found := run.verify(pipeline.VerifyOptions{Memory: c.memory, Dir: t.TempDir()})
			for _, table := range []string{"t", "pulse", "empty"} {
				v, ok := found[table]
				if !ok || v.Verdict != cdc.VerdictEqual || v.Differences() != 0 || v.LSN == 0 || v.Why != "" || v.Mend != "" {
					t.Errorf("%s: got %+v, want it equal", table, v.Verification)
				}
			}
			if v := found["t"]; v.Rows != 2000 && v.Rows != 1999 || v.Records < v.Rows {
				t.Errorf("%d rows and %d records, want all 2000 (or one in between) and at least as many", v.Rows, v.Records)
			}
			if v := found["empty"]; v.Rows != 0 || v.Records != 0 {
				t.Errorf("the empty table: %+v", v.Verification)
			}
		})
	}
}

// Every kind of difference is found and shown, and a repair takes them away.
func TestVerifyFindsDifferences(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "debezium-json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			run := flowWith(t, func(cfg *pipeline.Config) { cfg.Format.Format = format },
				pulseTable, `CREATE TABLE t(a int, b text, v text, w text, PRIMARY KEY (b, a))`, `INSERT INTO t SELECT i, 'b', 'v', 'w' FROM generate_series(1, 60) i`)
			run.pulse()
			value := func(a int, v string) []byte {
				row := fmt.Sprintf(`{"a":%d,"b":"b","v":"%s","w":"w"}`, a, v)
				if format == "debezium-json" {
					row = `{"before":null,"after":` + row + `,"source":{},"op":"r"}`
				}
				return []byte(row)
			}
			topic := run.topic("t")
			run.forge(topic, `{"b":"b","a":1}`, nil)
			run.forge(topic, `{"b":"b","a":2}`, value(2, "other"))
			run.forge(topic, `{"b":"b","a":3}`, value(3, "v")) // the same once more
			run.forge(topic, `{"b":"b","a":100}`, value(100, "v"))
			var differences []pipeline.VerifyDifference
			found := run.verify(pipeline.VerifyOptions{Difference: func(d pipeline.VerifyDifference) error {
				d.Key = []byte(string(d.Key))
				differences = append(differences, d)
				return nil
			}})
			v := found["t"]
			if v.Verdict != cdc.VerdictDifferent || v.Missing != 1 || v.Ghosts != 1 || v.Different != 1 || v.Rows != 60 {
				t.Fatalf("got %+v, want one of each kind", v.Verification)
			}
			if want := "cdc repair --pipeline " + run.cfg.Name + " public.t"; v.Mend != want {
				t.Errorf("mend %q, want %q", v.Mend, want)
			}
			if other := found["pulse"]; other.Verdict != cdc.VerdictEqual {
				t.Errorf("pulse: %+v", other.Verification)
			}
			for _, s := range v.Samples {
				want, columns := `{"b":"b","a":1}`, ""
				switch s.Kind {
				case "different":
					want, columns = `{"b":"b","a":2}`, `[{v "v" "other"}]`
				case "ghost":
					want = `{"b":"b","a":100}`
				}
				if got := fmt.Sprint(s.Columns); s.Key != want || columns != "" && got != columns || columns == "" && len(s.Columns) > 0 {
					t.Errorf("sample %+v, want key %s and columns %s", s, want, columns)
				}
			}
			req := cdc.RepairRequest{Table: "public.t", Ends: v.Ends}
			for _, d := range differences {
				if d.Row == nil {
					req.Ghosts = append(req.Ghosts, cdc.GhostKey{Partition: d.Partition, Key: d.Key})
				} else {
					req.Keys = append(req.Keys, d.Row)
				}
			}
			got, err := run.p.Repair(t.Context(), req)
			if err != nil || got != (cdc.RepairResult{Upserts: 2, Tombstones: 1}) {
				t.Fatalf("repair of %+v: %+v, %v", req, got, err)
			}
			if v := run.verify(pipeline.VerifyOptions{}, "t")["t"]; v.Verdict != cdc.VerdictEqual {
				t.Errorf("after the repair: %+v", v.Verification)
			}
		})
	}
}

// Rows written before a column came are equal and older; with another default of
// the column they are different, because the topic lacks the value.
func TestVerifyColumnAdded(t *testing.T) {
	t.Parallel()
	run := flow(t, pulseTable, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 10) i`,
		`CREATE TABLE u(id int PRIMARY KEY, v text)`, `INSERT INTO u SELECT i, 'x' FROM generate_series(1, 10) i`)
	run.pulse()
	run.db.Exec(t, `ALTER TABLE t ADD COLUMN w text`, `UPDATE t SET w = 'w' WHERE id <= 3`, `ALTER TABLE u DROP COLUMN v`, `ALTER TABLE u ADD COLUMN d int DEFAULT 7`)
	found := run.verify(pipeline.VerifyOptions{})
	if v := found["t"]; v.Verdict != cdc.VerdictEqual || v.Older != 7 || v.Rows != 10 {
		t.Errorf("t: got %+v, want 7 older rows and no difference", v.Verification)
	}
	if v := found["u"]; v.Verdict != cdc.VerdictDifferent || v.Different != 10 {
		t.Errorf("u: got %+v, want 10 rows that lack their default", v.Verification)
	}
}

// cut removes the first record of each partition of a topic, which Kafka does not
// allow of a compacted one. The pipeline must not be running: it would stop.
func (r *rig) cut(topic string) {
	r.t.Helper()
	admin := kadm.NewClient(r.k.Client(r.t))
	policy := func(value string) {
		r.t.Helper()
		res, err := admin.AlterTopicConfigs(r.t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "cleanup.policy", Value: &value}}, topic)
		if err == nil {
			_, err = res.On(topic, func(a *kadm.AlterConfigsResponse) error { return a.Err })
		}
		if err != nil {
			r.t.Fatalf("cleanup.policy=%s of %s: %v", value, topic, err)
		}
		for deadline := time.Now().Add(waitLimit); ; time.Sleep(10 * time.Millisecond) { // until the broker has heard of it
			found, err := admin.DescribeTopicConfigs(r.t.Context(), topic)
			if err != nil {
				r.t.Fatal(err)
			}
			if _, err := found.On(topic, func(c *kadm.ResourceConfig) error {
				for _, config := range c.Configs {
					if config.Key == "cleanup.policy" && config.MaybeValue() == value {
						return nil
					}
				}
				return errors.New("not yet")
			}); err == nil {
				return
			}
			if time.Now().After(deadline) {
				r.t.Fatalf("%s does not get cleanup.policy=%s", topic, value)
			}
		}
	}
	policy("delete")
	to := kadm.Offsets{}
	for _, rec := range cdctest.Read(r.t, r.k.Brokers, topic) {
		to.AddOffset(topic, rec.Partition, 1, -1)
	}
	for deadline := time.Now().Add(waitLimit); ; time.Sleep(10 * time.Millisecond) { // its log hears of it a little later
		res, err := admin.DeleteRecords(r.t.Context(), to)
		if err == nil {
			err = res.Error()
		}
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("cut %s: %v", topic, err)
		}
	}
	policy("compact")
}

// A pipeline that stands still is waited for, and then said to; one that goes on in
// time ends the wait. A topic that was cut meanwhile is no longer what was to be
// compared.
func TestVerifyWaits(t *testing.T) {
	t.Parallel()
	run := flow(t, pulseTable, `CREATE TABLE cut(id int PRIMARY KEY)`, `INSERT INTO cut SELECT generate_series(1, 30)`)
	run.finish()
	found := run.verify(pipeline.VerifyOptions{Timeout: time.Second})
	for _, v := range found {
		// On a machine that is busy enough the second may be over before the snapshot is there.
		stands := strings.Contains(v.Why, "is cdc run running?") && v.Mend == "cdc run"
		if v.Verdict != cdc.VerdictUnchecked || !stands && !strings.Contains(v.Why, "could not be read as of one place") {
			t.Errorf("%s: got %+v, want it unchecked", v.Subject, v.Verification)
		}
	}
	v, err := pipeline.OpenVerifier(t.Context(), run.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	done := make(chan error, 1)
	go func() {
		var err error
		var list []pipeline.Verified
		if list, err = v.Run(t.Context(), nil, pipeline.VerifyOptions{Timeout: waitLimit}); err == nil {
			for _, f := range list {
				switch {
				case f.Subject == "public.cut" && (f.Verdict != cdc.VerdictUnchecked || !strings.Contains(f.Why, "was cut while")),
					f.Subject == "public.pulse" && f.Verdict != cdc.VerdictEqual:
					err = fmt.Errorf("%+v", f.Verification)
				}
			}
		}
		done <- err
	}()
	for deadline := time.Now().Add(waitLimit); !strings.Contains(v.Progress().Waiting, "stands at"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not wait: %+v", v.Progress())
		}
	}
	run.cut(run.topic("cut"))
	run.rig.streaming()
	run.pulse()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A transaction that was begun before and does not end keeps the tables from being
// read as of one place: it is named.
func TestVerifyBehindAnOldTransaction(t *testing.T) {
	t.Parallel()
	r := rigOn(t, cdctest.PrivatePostgres(t, nil).Database(t), cdctest.Kafka(t))
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY)`)
	run := r.streaming()
	old := r.db.Conn(t)
	if _, err := old.Exec(t.Context(), `BEGIN; SELECT pg_current_xact_id()`); err != nil {
		t.Fatal(err)
	}
	v := run.verify(pipeline.VerifyOptions{Timeout: 3 * time.Second})["t"]
	if want := "could not be read as of one place within 3s: "; v.Verdict != cdc.VerdictUnchecked || !strings.Contains(v.Why, want) {
		t.Errorf("got %+v, want it unchecked: %s", v.Verification, want)
	}
	t.Log(v.Why)
}

// A running pipeline verifies itself from time to time; what it found is in its
// status, without values of rows.
func TestVerifyEvery(t *testing.T) {
	t.Parallel()
	run := flowWith(t, func(c *pipeline.Config) { c.Verify = pipeline.VerifySchedule{Every: 100 * time.Millisecond} },
		pulseTable, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 30) i`)
	run.pulse()
	verdict := func(want cdc.Verdict) func(cdc.Status) bool {
		return func(s cdc.Status) bool {
			for _, v := range s.Verified {
				if v.Subject == "public.t" && v.Verdict == want {
					return len(v.Samples) == int(v.Differences()) && (len(v.Samples) == 0 || v.Samples[0].Columns == nil)
				}
			}
			return false
		}
	}
	run.wait("the first result", verdict(cdc.VerdictEqual))
	run.forge(run.topic("t"), `{"id":1}`, []byte(`{"id":1,"v":"other"}`))
	run.wait("the difference", verdict(cdc.VerdictDifferent))
	if s := run.p.Status(); !s.Ready || s.State != cdc.StateStreaming {
		t.Errorf("a difference turned the pipeline red: %+v", s)
	}
	run.finish()
}
