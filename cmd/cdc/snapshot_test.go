package main

import (
	"strings"
	"testing"
)

// snapshot copies a table beside the stream of a running daemon, and says what is
// wrong where it cannot.
func TestSnapshotCommand(t *testing.T) {
	t.Parallel()
	r := onCluster(t)
	r.db.Exec(t, "CREATE TABLE t(id int PRIMARY KEY, v text)", "INSERT INTO t SELECT i, 'x' FROM generate_series(1, 40) i")
	p := r.start(r.yaml())
	r.records(r.topic("t"), 40)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"snapshot", "public.t"}, 0, "copied in"},
		{[]string{"snapshot", "public.other"}, 1, "public.other is not captured"},
		{[]string{"snapshot", "public.t", "--pipeline", "nobody"}, 2, r.db.Name},
		{[]string{"snapshot", "public.t", "--pause"}, 1, "public.t is not being copied"},
		{[]string{"snapshot", "public.t", "--pause", "--cancel"}, 2, "pause"},
	} {
		code, out, errOut := command(t, append(c.args, "--config", p.Config)...)
		if code != c.code || !strings.Contains(out+errOut, c.want) {
			t.Errorf("%v exits with %d, want %d, and says\n%s%s\nwant %q in it", c.args, code, c.code, out, errOut, c.want)
		}
	}
	if got := len(r.records(r.topic("t"), 80)); got != 80 {
		t.Errorf("%d records, want every row twice", got)
	}
	p.Stop(t)
	if code, _, errOut := command(t, "snapshot", "public.t", "--config", p.Config); code != 3 || !strings.Contains(errOut, "cdc run") {
		t.Errorf("without a daemon: exit %d, %s; want 3 and how to start one", code, errOut)
	}
}
