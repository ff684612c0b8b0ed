package source

import (
	"testing"

	"cdc/internal/cdc"
)

func TestCreateSlotGrammar(t *testing.T) {
	for _, c := range []struct {
		name    string
		slot    newSlot
		version int
		want    string
	}{
		{"permanent 14", newSlot{name: "1abc", failover: true}, 140020, `CREATE_REPLICATION_SLOT "1abc" LOGICAL pgoutput NOEXPORT_SNAPSHOT`},
		{"snapshot 14", newSlot{name: "s", temporary: true, snapshot: true}, 140020, `CREATE_REPLICATION_SLOT "s" TEMPORARY LOGICAL pgoutput USE_SNAPSHOT`},
		{"permanent 15", newSlot{name: "s", failover: true}, 150018, `CREATE_REPLICATION_SLOT "s" LOGICAL pgoutput (SNAPSHOT 'nothing')`},
		{"snapshot 15", newSlot{name: "s", temporary: true, snapshot: true}, 150018, `CREATE_REPLICATION_SLOT "s" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'use')`},
		{"failover 17", newSlot{name: "s", failover: true}, 170010, `CREATE_REPLICATION_SLOT "s" LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER true)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.slot.sql(c.version); got != c.want {
				t.Fatalf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestSnapshotSlotName(t *testing.T) {
	long := "a23456789012345678901234567890123456789012345678901234567890123"
	for slot, want := range map[string]string{"s": "s_snap", long: long[:58] + "_snap"} {
		if got := snapshotSlot(slot); got != want {
			t.Errorf("%s: got %s, want %s", slot, got, want)
		}
		if err := checkSlotName(snapshotSlot(slot)); err != nil {
			t.Error(err)
		}
	}
}

func TestTimelineEnd(t *testing.T) {
	const history = "1\t0/3000000\tno recovery target specified\n# comment\n\n2\t1/A0B0C0D0\tbefore 2026-01-01\n"
	for _, c := range []struct {
		name, history string
		timeline      uint32
		want          cdc.LSN
		ok            bool
		err           bool
	}{
		{"first", history, 1, 0x3000000, true, false},
		{"second", history, 2, 0x1A0B0C0D0, true, false},
		{"not an ancestor", history, 3, 0, false, false},
		{"empty", "", 1, 0, false, false},
		{"garbage", "x\ty\n", 1, 0, false, true},
		{"bad LSN", "1\tzz\n", 1, 0, false, true},
		{"no LSN", "1\n", 1, 0, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok, err := timelineEnd([]byte(c.history), c.timeline)
			if got != c.want || ok != c.ok || (err != nil) != c.err {
				t.Fatalf("got %s, %t, %v, want %s, %t, error %t", got, ok, err, c.want, c.ok, c.err)
			}
		})
	}
}

func TestXIDVisible(t *testing.T) {
	for _, c := range []struct {
		name     string
		xid      uint32
		snapshot string
		want     bool
	}{
		{"below xmin", 90, "100:110:100,105", true},
		{"running", 105, "100:110:100,105", false},
		{"between, ended", 104, "100:110:100,105", true},
		{"at xmax", 110, "100:110:100,105", false},
		{"above xmax", 111, "100:110:", false},
		{"none running", 109, "110:110:", true},
		{"epoch 7", 726, "30064771799:30064771799:", true},
		{"epoch 7, not yet", 727, "30064771799:30064771799:", false},
		{"epoch 7, running", 726, "30064771798:30064771800:30064771798", false},
		{"before the wrap", 4294967290, "4294967306:4294967306:", true},
		{"behind the wrap", 10, "4294967290:4294967300:", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := xidVisible(c.xid, c.snapshot)
			if err != nil || got != c.want {
				t.Fatalf("got %t, %v, want %t", got, err, c.want)
			}
		})
	}
	for _, bad := range []string{"", "1:2", "1:x:", "1:2:x", "1:2:3:4"} {
		if _, err := xidVisible(1, bad); err == nil {
			t.Errorf("snapshot %q: got no error, want one", bad)
		}
	}
}
