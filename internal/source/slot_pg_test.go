package source

import (
	"os"
	"path/filepath"
	"testing"

	"cdc/internal/cdctest"
)

// A server that was promoted knows where its old timeline ended.
func TestTimelineSwitchAfterPromotion(t *testing.T) {
	pg := cdctest.PrivatePostgres(t, nil)
	db := pg.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY)")
	before := mustLSN(t, db.Value(t, "SELECT pg_current_wal_flush_lsn()"))
	if err := pg.Stop(t.Context(), "fast"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(pg.Dir(), "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := pg.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	tables := mustTables(t, s)
	_, err := s.Publish(t.Context(), tables)
	wantTerminal(t, err, "publication-rights", "on the primary", "CREATE PUBLICATION")
	if _, _, err := s.Slot(t.Context()); err != nil {
		t.Fatalf("slot on a standby: %v", err)
	}
	if got := db.Value(t, "SELECT pg_promote()"); got != "t" {
		t.Fatalf("promote: got %s", got)
	}
	id, err := s.System(t.Context())
	if err != nil || id.Timeline != 2 {
		t.Fatalf("got %+v, %v, want timeline 2", id, err)
	}
	lsn, err := s.TimelineSwitch(t.Context(), 1)
	if err != nil || lsn < before || lsn > id.End {
		t.Fatalf("got %s, %v, want between %s and %s", lsn, err, before, id.End)
	}
	if lsn, err = s.TimelineSwitch(t.Context(), 2); err != nil || lsn != 0 {
		t.Fatalf("the current one: got %s, %v, want 0", lsn, err)
	}
}

// Case 26: a slot name is checked in words, and an odd one works.
func TestCase026SlotNamesMade(t *testing.T) {
	db := cdctest.Database(t)
	for name, ok := range map[string]bool{"1abc": true, "a23456789012345678901234567890123456789012345678901234567890123": true, "Bad-Name": false, "": false} {
		s := openOps(t, db, func(c *Config) { c.Slot = name }, "CREATE TABLE IF NOT EXISTS t(id int PRIMARY KEY)")
		if !ok {
			_, err := s.CreateSlot(t.Context())
			wantTerminal(t, err, "slot-name")
			continue
		}
		sn := begin(t, s, 1)
		drain(t, sn, false)
		if err := sn.Finish(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.DropSlot(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCreateSlotThenFailover(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, func(c *Config) { c.Failover = true }, "CREATE TABLE t(id int PRIMARY KEY)")
	mustPublish(t, s)
	lsn, err := s.CreateSlot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db.KeepSlot(s.cfg.Slot)
	slot, ok, err := s.Slot(t.Context())
	if err != nil || !ok || slot.Confirmed != lsn || slot.Temporary || slot.Failover != (s.version >= 170000) || slot.WALStatus != "reserved" {
		t.Fatalf("got %+v, %t, %v, want it at %s", slot, ok, err, lsn)
	}
	if _, err := s.CreateSlot(t.Context()); sqlState(err) != codeDuplicateObject {
		t.Fatalf("again: got %v, want that it exists", err)
	}
	if err := s.DropSlot(t.Context()); err != nil {
		t.Fatal(err)
	}
	sn := begin(t, s, 1)
	drain(t, sn, false)
	if err := sn.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if slot, _, err = s.Slot(t.Context()); err != nil || slot.Failover != (s.version >= 170000) || slot.Confirmed != sn.LSN() {
		t.Fatalf("after the snapshot: got %+v, %v", slot, err)
	}
}

func TestTimelineOfAFreshServer(t *testing.T) {
	s := openOps(t, cdctest.Database(t), nil)
	if lsn, err := s.TimelineSwitch(t.Context(), 1); lsn != 0 || err != nil {
		t.Fatalf("the current one: got %s, %v, want 0", lsn, err)
	}
	_, err := s.TimelineSwitch(t.Context(), 2)
	wantTerminal(t, err, "timeline")
}
