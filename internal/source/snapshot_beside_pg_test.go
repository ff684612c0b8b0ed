package source

import (
	"errors"
	"testing"

	"cdc/internal/cdctest"
)

// Two snapshots for reading stand beside a pipeline's own and keep no slot; what
// is committed behind their LSN they do not show, though no slot holds it.
func TestSnapshotBeside(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE a(id int PRIMARY KEY, v text)", "INSERT INTO a VALUES (1, 'x'), (2, 'y')")
	tables := mustPublish(t, s)
	own := begin(t, s, 1)
	var beside []*Snapshot
	for range 2 {
		sn, err := s.SnapshotBeside(t.Context(), tables, 2)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sn.Close() })
		beside = append(beside, sn)
	}
	if got := db.Value(t, slotCount(db)); got != "1" {
		t.Errorf("%s slots while three snapshots live, want that of the pipeline's alone", got)
	}
	db.Exec(t, "UPDATE a SET v = 'z'", "DELETE FROM a WHERE id = 1")
	for _, sn := range append(beside, own) {
		equalRows(t, sorted(drain(t, sn, false)), []string{"public.a|1|x", "public.a|2|y"})
	}
	if beside[0].LSN() < own.LSN() || beside[1].LSN() < beside[0].LSN() {
		t.Errorf("LSNs %s, %s, %s do not rise", own.LSN(), beside[0].LSN(), beside[1].LSN())
	}
	if err := beside[0].Finish(t.Context()); !errors.Is(err, errSnapshotBeside) {
		t.Errorf("finish: got %v, want it refused", err)
	}
}
