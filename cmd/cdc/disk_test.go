package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdctest"
)

// 116: a write of the embedded broker that fails ends the program, which says what
// to do, and started again it goes on: every row is there once. Here a file stands
// where a partition's directory goes.
func TestCase116EmbeddedBrokerCannotWrite(t *testing.T) {
	t.Parallel()
	r := embedded(t)
	dir := filepath.Join(t.TempDir(), "broker")
	r.kafka = fmt.Sprintf("{embedded: {dir: %q, listen: %q}}", dir, r.brokers[0])
	r.db.Exec(t, "CREATE TABLE t(id int PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 50)")
	parts := filepath.Join(dir, "log", "partitions")
	if err := os.MkdirAll(parts, 0o750); err != nil {
		t.Fatal(err)
	}
	blocker := filepath.Join(parts, r.topic("t")+"-1")
	if err := os.WriteFile(blocker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := cdctest.StartCDC(t, r.yaml())
	if code := p.Wait(t, time.Minute); code != exitEnvironment || !strings.Contains(p.Output(), "free space on its disk and start again") {
		t.Fatalf("exit code %d, want %d and what to do:\n%s", code, exitEnvironment, p.Output())
	}
	if err := os.Remove(blocker); err != nil {
		t.Fatal(err)
	}
	r.start(r.yaml())
	records := r.records(r.topic("t"), 50)
	once(t, records)
	if n := len(cdctest.Fold(records)); n != 50 {
		t.Errorf("%d live keys, want 50", n)
	}
}
