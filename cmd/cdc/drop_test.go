package main

import (
	"encoding/json"
	"strings"
	"testing"

	"cdc/internal/admin"
	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// What a pipeline keeps is dropped when somebody says yes, and not while it runs.
func TestDrop(t *testing.T) {
	t.Parallel()
	dropTest(t, onCluster(t))
}

// With the broker inside: the command has it for its own time.
func TestDropEmbedded(t *testing.T) {
	t.Parallel()
	dropTest(t, embedded(t))
}

func dropTest(t *testing.T, r *rig) {
	r.db.Exec(t, "CREATE TABLE t(id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
	p := r.start(r.yaml())
	r.records(r.topic("t"), 1)
	statusOfRun(t, r, p)
	left := func() string {
		return r.db.Value(t, "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())")
	}
	code, _, errOut := command(t, "drop", r.db.Name, "--yes", "--config", p.Config)
	if code != exitFailed || !strings.Contains(errOut, "is read by") || !strings.Contains(errOut, "\nStop the pipeline first.") {
		t.Errorf("drop while it runs: %d %s", code, errOut)
	}
	p.Stop(t)
	for _, answer := range []string{"", "no\n", "y\n"} {
		code, out, errOut := answered(t, answer, "drop", r.db.Name, "--config", p.Config)
		if code != exitFailed || !strings.Contains(out, "go on? [yes/no]") || !strings.Contains(errOut, "nothing was dropped") || left() != "2" {
			t.Errorf("answer %q: %d %s%s", answer, code, out, errOut)
		}
	}
	code, out, errOut := answered(t, "yes\n", "drop", r.db.Name, "--config", p.Config)
	if code != 0 || !strings.HasSuffix(out, "dropped\n") || left() != "0" {
		t.Errorf("drop: %d %s%s; %s publications and slots are left", code, out, errOut, left())
	}
	if code, _, errOut := command(t, "drop", "nope", "--config", p.Config); code != exitUsage || !strings.Contains(errOut, "it has "+r.db.Name) {
		t.Errorf("drop of no pipeline: %d %s", code, errOut)
	}
	if code, _, errOut := command(t, "drop", r.db.Name, "--yes", "--config", p.Config); code != 0 {
		t.Errorf("drop of what is gone: %d %s", code, errOut)
	}
	// The next start copies the tables again; the topic has stayed.
	r.db.Exec(t, "INSERT INTO t VALUES (2)", "DELETE FROM t WHERE id = 1")
	p = cdctest.StartCommand(t, p.Dir, "run", "--config", p.Config)
	p.WaitOutput(t, "replication started")
	state := cdctest.Fold(r.records(r.topic("t"), 3))
	if _, ghost := state[`{"id":1}`]; ghost || len(state) != 1 {
		t.Errorf("the topic holds %v, want key 2 alone", state)
	}
	p.Stop(t)
}

// statusOfRun asks the running program in both forms.
func statusOfRun(t *testing.T, r *rig, p *cdctest.Proc) {
	t.Helper()
	code, out, errOut := command(t, "status", "--config", p.Config)
	lines := strings.Split(out, "\n")
	if code != 0 || len(lines) < 2 || !strings.HasPrefix(lines[0], "PIPELINE") || !strings.HasPrefix(lines[1], r.db.Name) {
		t.Errorf("status: %d\n%s%s", code, out, errOut)
	}
	_, out, _ = command(t, "status", "--addr", r.admin, "-o", "json")
	var report admin.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Pipelines) != 1 {
		t.Fatalf("status -o json: %v\n%s", err, out)
	}
	s := report.Pipelines[0]
	if s.Name != r.db.Name || !s.Ready || s.Slot != r.db.Name || s.Tables != 1 || s.State != cdc.StateStreaming && s.State != cdc.StateReplaying {
		t.Errorf("status %+v", s)
	}
}
