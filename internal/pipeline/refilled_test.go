package pipeline_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// 75: a value that one change of a transaction leaves alone and a later change of
// the same transaction writes. Reading back by key shows the later one; xmin is
// the same for both, so it does not prove that the version is the change's own.
func TestCase075WrittenLaterInTheSameTransaction(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, n int, big text)`, `ALTER TABLE t ALTER big SET STORAGE EXTERNAL`,
		`INSERT INTO t VALUES (1, 0, repeat('old', 2000))`)
	run.db.Exec(t, `BEGIN; UPDATE t SET n = 1 WHERE id = 1; UPDATE t SET n = 2, big = repeat('new', 2000) WHERE id = 1; COMMIT`)
	run.settle()
	run.sameAsTable("t", "id")
	for _, rec := range run.records("t") {
		var row struct {
			N   int
			Big string
		}
		if err := json.Unmarshal(rec.Value, &row); err != nil {
			t.Fatal(err)
		}
		if row.N != 1 || strings.HasPrefix(row.Big, "old") {
			continue
		}
		if _, said := rec.Header("refilled"); !said {
			t.Errorf("version 1 has the value of version 2 (%.9s…) and no header says so", row.Big)
		}
	}
}
