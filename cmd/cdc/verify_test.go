package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/cdc"
	"cdc/internal/pipeline"
)

// forge writes a record as nobody should, with the position of one that is there.
func (r *rig) forge(topic, key string, value []byte) {
	r.t.Helper()
	stamp, _ := r.records(topic, 1)[0].Header(cdc.StampHeader)
	rec := &kgo.Record{Topic: topic, Key: []byte(key), Value: value, Headers: []kgo.RecordHeader{{Key: cdc.StampHeader, Value: stamp}}}
	if err := r.client().ProduceSync(r.t.Context(), rec).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// pulse changes a row of table pulse until the test ends: the progress record of a
// pipeline at rest moves every ten seconds only.
func (r *rig) pulse() {
	r.t.Helper()
	conn := r.db.Conn(r.t)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if _, err := conn.Exec(context.Background(), "UPDATE pulse SET n = n + 1"); err != nil {
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

// verify and repair beside a running daemon: what they print and exit with.
func TestVerifyAndRepair(t *testing.T) {
	t.Parallel()
	r := onCluster(t)
	r.db.Exec(t, "CREATE TABLE t(id int PRIMARY KEY, v text)", "INSERT INTO t SELECT i, 'x' FROM generate_series(1, 30) i",
		"CREATE TABLE pulse(id int PRIMARY KEY, n int)", "INSERT INTO pulse VALUES (1, 0)")
	p := r.start(r.yaml("verify: {every: 500ms}"))
	r.records(r.topic("t"), 30)
	r.pulse()
	series := fmt.Sprintf(`cdc_verify_unchecked{pipeline=%q,subject="public.t"} 0`, r.db.Name)
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, body := r.get("/metrics"); strings.Contains(body, series) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the daemon does not verify\n%s", p.Output())
		}
	}
	if _, out, _ := command(t, "status", "--config", p.Config); !strings.Contains(out, "of 2 equal") {
		t.Errorf("status after a verification:\n%s", out)
	}
	run := func(want int, args ...string) string {
		t.Helper()
		code, out, errOut := command(t, append(args, "--config", p.Config)...)
		if code != want {
			t.Fatalf("%v exits with %d, want %d\n%s%s", args, code, want, out, errOut)
		}
		return out + errOut
	}
	verified := func(want int, args ...string) map[string]cdc.Verification {
		t.Helper()
		var report verifyReport
		out, _, _ := strings.Cut(run(want, append(args, "-o", "json")...), "\ncdc: ") // the error stands behind the result
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		by := map[string]cdc.Verification{}
		for _, v := range report.Verified {
			by[v.Subject] = v
		}
		return by
	}
	if got := verified(0, "verify"); len(got) != 2 || got["public.t"].Rows != 30 || got["public.pulse"].Verdict != cdc.VerdictEqual {
		t.Errorf("verify: %+v", got)
	}
	r.forge(r.topic("t"), `{"id":1}`, nil)
	r.forge(r.topic("t"), `{"id":2}`, []byte(`{"id":2,"v":"other"}`))
	r.forge(r.topic("t"), `{"id":99}`, []byte(`{"id":99,"v":"ghost"}`))
	got := verified(exitDifference, "verify", "public.t", "--rate", "0", "--memory", "1MiB")
	if v := got["public.t"]; len(got) != 1 || v.Missing != 1 || v.Different != 1 || v.Ghosts != 1 || len(v.Samples) != 3 {
		t.Errorf("verify: %+v, want one difference of each kind", got)
	}
	for _, want := range []string{"different", `ghost {"id":99} (partition `, `v: table "x", topic "other"`, "cdc repair --pipeline " + r.db.Name + " public.t", "1 of 2 differ"} {
		if out := run(exitDifference, "verify"); !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if out := run(exitUsage, "verify", "public.nope"); !strings.Contains(out, "captured are public.pulse, public.t") {
		t.Errorf("verify of an unknown table: %s", out)
	}
	run(exitUsage, "verify", "--pipeline", "nope")

	code, out, errOut := answered(t, "no\n", "repair", "public.t", "--config", p.Config)
	if code != exitDifference || !strings.Contains(out, "read 2 rows again and write them, write 1 tombstones\ngo on?") || !strings.Contains(out, "nothing was written") {
		t.Errorf("repair, answered no: %d\n%s%s", code, out, errOut)
	}
	out = run(0, "repair", "--yes")
	if !strings.Contains(out, "public.t: 2 rows and 1 tombstones written\n") {
		t.Errorf("repair:\n%s", out)
	}
	if got := verified(0, "verify", "public.*"); got["public.t"].Verdict != cdc.VerdictEqual {
		t.Errorf("after the repair: %+v", got)
	}
	if out := run(0, "repair", "-o", "json"); !strings.Contains(out, `"repaired": []`) {
		t.Errorf("repair of what is equal:\n%s", out)
	}
	p.Stop(t)
	if out := run(exitEnvironment, "repair"); !strings.Contains(out, "cdc run") {
		t.Errorf("repair without a daemon: %s", out)
	}
	if v := verified(exitFailed, "verify", "--timeout", "1s")["public.t"]; v.Verdict != cdc.VerdictUnchecked || v.Why == "" {
		t.Errorf("verify without a daemon: %+v", v)
	}
	r.db.Exec(t, "ALTER TABLE t DROP CONSTRAINT t_pkey", "ALTER TABLE t ADD PRIMARY KEY (v, id)")
	for _, want := range []string{"unchecked", "its topic has the key (id), the table has (v, id)", "1 of 1 could not be checked"} {
		if out := run(exitFailed, "verify", "public.t"); !strings.Contains(out, want) {
			t.Errorf("verify of a table with another key: %q is not in\n%s", want, out)
		}
	}
}

// Requests hold what the file does, in parts the daemon takes; tables without a
// verdict are left out.
func TestRepairBatches(t *testing.T) {
	d, err := newDifferences(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	add := func(v pipeline.VerifyDifference) {
		t.Helper()
		if err := d.add(v); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2500 {
		add(pipeline.VerifyDifference{Table: "public.a", Kind: "missing", Key: []byte("k"), Row: []string{fmt.Sprint(i), "\x00ü"}})
	}
	add(pipeline.VerifyDifference{Table: "public.gone", Kind: "ghost", Key: []byte("k")})
	for range 3 {
		add(pipeline.VerifyDifference{Table: "public.b", Kind: "different", Row: []string{strings.Repeat("x", repairBytes-1)}})
	}
	add(pipeline.VerifyDifference{Table: "public.b", Kind: "ghost", Key: []byte{0, 0xff}, Partition: 2})
	d.result(pipeline.Verified{Verification: cdc.Verification{Subject: "public.a", Verdict: cdc.VerdictDifferent}, Ends: map[int32]int64{0: 7}})
	d.result(pipeline.Verified{Verification: cdc.Verification{Subject: "public.b", Verdict: cdc.VerdictDifferent}, Ends: map[int32]int64{2: 9}})
	d.result(pipeline.Verified{Verification: cdc.Verification{Subject: "public.gone", Verdict: cdc.VerdictUnchecked}})
	var got []string
	next := 0
	err = d.batches(func(req cdc.RepairRequest) error {
		got = append(got, fmt.Sprintf("%s %d %d %v", req.Table, len(req.Keys), len(req.Ghosts), req.Ends))
		for _, key := range req.Keys {
			if req.Table == "public.a" {
				if key[0] != fmt.Sprint(next) || key[1] != "\x00ü" {
					t.Errorf("key %q, want number %d", key, next)
				}
				next++
			}
		}
		for _, g := range req.Ghosts {
			if string(g.Key) != "\x00\xff" || g.Partition != 2 {
				t.Errorf("ghost %+v", g)
			}
		}
		return nil
	})
	want := "public.a 1000 0 map[0:7], public.a 1000 0 map[0:7], public.a 500 0 map[0:7], public.b 2 0 map[2:9], public.b 1 1 map[2:9]"
	if err != nil || strings.Join(got, ", ") != want || next != 2500 {
		t.Errorf("got %q, %d keys, %v\nwant %q", got, next, err, want)
	}
	broken := errors.New("broken")
	if err := d.batches(func(cdc.RepairRequest) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("an error of a request: got %v", err)
	}
}

func TestProgressLine(t *testing.T) {
	for _, c := range []struct {
		name string
		p    pipeline.VerifyProgress
		want string
	}{
		{"nothing yet", pipeline.VerifyProgress{}, "0 rows, 0 records, 0 B/s"},
		{"rows while it waits", pipeline.VerifyProgress{Rows: 10, RowsTotal: 100, Bytes: 4 << 20, Waiting: "w"}, "10 of about 100 rows, 0 records, 2.0 MiB/s; waiting: w"},
		{"both", pipeline.VerifyProgress{Rows: 100, RowsTotal: 90, Records: 100, RecordsTotal: 300}, "100 of about 100 rows, 100 records of 300, 0 B/s, about 2s left"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := progressLine(c.p, 2*time.Second); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestVerdictsAndExitCodes(t *testing.T) {
	for _, c := range []struct {
		verdicts []cdc.Verdict
		want     int
	}{
		{nil, 0}, {[]cdc.Verdict{"equal"}, 0}, {[]cdc.Verdict{"equal", "unchecked"}, exitFailed}, {[]cdc.Verdict{"unchecked", "different"}, exitDifference},
	} {
		var list []cdc.Verification
		for _, v := range c.verdicts {
			list = append(list, cdc.Verification{Verdict: v})
		}
		if got := exitCode(verdictError(list)); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.verdicts, got, c.want)
		}
	}
}
