package eventlog_test

import (
	"errors"
	"fmt"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// Whatever happens to slot, publication or es.reader while nothing runs: no event
// stays without a position, and the log says loudly why it looked.
func TestMendedAtTheNextStart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		damage func(*rig)
		says   string
	}{
		{"slot dropped", func(r *rig) {
			r.append("a/1", 2)
			r.db.Exec(r.t, fmt.Sprintf(`select pg_drop_replication_slot('%s')`, r.slot))
		}, "the slot is gone"},
		{"slot recreated", func(r *rig) {
			r.append("a/1", 2)
			r.db.Exec(r.t, fmt.Sprintf(`select pg_drop_replication_slot('%s')`, r.slot), fmt.Sprintf(`select pg_create_logical_replication_slot('%s', 'pgoutput')`, r.slot))
		}, "made it anew"},
		{"slot advanced by another", func(r *rig) {
			r.append("a/1", 2)
			r.db.Exec(r.t, fmt.Sprintf(`select pg_replication_slot_advance('%s', pg_current_wal_lsn())`, r.slot))
		}, "somebody else consumed it"},
		{"other server", func(r *rig) {
			r.append("a/1", 2)
			r.db.Exec(r.t, `update es.reader set system = '7'`)
		}, "written on server 7"},
		{"reader ahead of the server", func(r *rig) {
			r.append("a/1", 2)
			r.db.Exec(r.t, `update es.reader set lsn = 'FF/0'`)
		}, "WAL ends at"},
		{"reader set back", func(r *rig) {
			r.db.Exec(r.t, `update es.reader set lsn = (select lsn from es.log order by pos limit 1)`)
		}, "somebody else consumed it"},
		{"reader of a timeline that never was", func(r *rig) {
			r.db.Exec(r.t, `update es.reader set timeline = 99`)
		}, "timeline 99"},
		{"publication dropped", func(r *rig) {
			r.append("a/1", 1)
			r.db.Exec(r.t, "DROP PUBLICATION "+r.slot)
			r.append("a/1", 1)
		}, "publication was changed"},
		{"publication without inserts", func(r *rig) {
			r.db.Exec(r.t, fmt.Sprintf("ALTER PUBLICATION %s SET (publish = 'update')", r.slot))
			r.append("a/1", 2)
		}, "publication was changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			u := r.start(r.config(), nil)
			u.state(cdc.StateStreaming)
			r.append("a/1", 3)
			r.append("b/1", 3)
			r.barrier()
			u.stop()
			c.damage(r)
			u = r.start(r.config(), nil)
			u.state(cdc.StateStreaming)
			if !contains(u.log, c.says) {
				t.Errorf("the log does not say %q:\n%s", c.says, u.log)
			}
			r.append("a/1", 1)
			r.barrier()
			r.exactlyOnce()
			u.stop()
		})
	}
}

// Slot and es.reader are both set back: only the stream shows that events have a
// position already. The same Numberer's next life mends it.
func TestSlotAndReaderSetBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.db.KeepSlot(r.slot + "_old")
	r.db.Exec(t, fmt.Sprintf(`select pg_copy_logical_replication_slot('%[1]s', '%[1]s_old')`, r.slot))
	r.append("a/1", 3)
	r.barrier()
	u.stop()
	r.db.Exec(t, fmt.Sprintf(`select pg_drop_replication_slot('%s')`, r.slot), fmt.Sprintf(`select pg_copy_logical_replication_slot('%[1]s_old', '%[1]s')`, r.slot),
		`update es.reader set lsn = (select confirmed_flush_lsn from pg_replication_slots where slot_name = slot)`)
	u = r.start(r.config(), nil)
	if err := u.failed(); !errors.Is(err, eventstore.ErrNumbered) {
		t.Fatalf("got %v, want %v", err, eventstore.ErrNumbered)
	}
	u = u.again()
	u.state(cdc.StateStreaming)
	r.append("a/1", 1)
	r.barrier()
	r.exactlyOnce()
	u.stop()
	if !contains(u.log, "stood before events that have a position") {
		t.Errorf("the log does not say why:\n%s", u.log)
	}
}

// What cannot be mended without somebody's decision.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		damage func(*rig)
		reason string
	}{
		{"log ahead of the events", func(r *rig) {
			r.db.Exec(r.t, `set session_replication_role = replica; alter table es.event disable trigger all; delete from es.event where version = 3; alter table es.event enable trigger all`,
				fmt.Sprintf(`select pg_drop_replication_slot('%s')`, r.slot))
		}, "log-ahead"},
		{"positions missing", func(r *rig) {
			r.db.Exec(r.t, `alter table es.log disable trigger all; delete from es.log where pos = 2; alter table es.log enable trigger all`,
				fmt.Sprintf(`select pg_drop_replication_slot('%s')`, r.slot))
		}, "log-gap"},
		{"slot of another", func(r *rig) {
			r.db.Exec(r.t, `delete from es.reader`)
		}, "slot-foreign"},
		{"row filter", func(r *rig) {
			r.db.Exec(r.t, fmt.Sprintf(`ALTER PUBLICATION %[1]s DROP TABLE es.event; ALTER PUBLICATION %[1]s ADD TABLE es.event (id) WHERE (id IS NOT NULL)`, r.slot))
		}, "publication-filter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if c.name == "row filter" && r.db.Value(t, `select current_setting('server_version_num')::int < 150000`) == "t" {
				t.Skip("row filters came with PostgreSQL 15")
			}
			u := r.start(r.config(), nil)
			u.state(cdc.StateStreaming)
			r.append("a/1", 3)
			r.barrier()
			u.stop()
			c.damage(r)
			err := r.start(r.config(), nil).failed()
			var te *cdc.TerminalError
			if !errors.As(err, &te) || te.Reason != c.reason || te.Mend == "" {
				t.Errorf("got %v, want a terminal error %q that says what to do", err, c.reason)
			}
		})
	}
}

// The publication is dropped under a running stream: the life ends, the next one
// mends it.
func TestPublicationDroppedWhileStreaming(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.append("a/1", 1)
	r.barrier()
	r.db.Exec(t, "DROP PUBLICATION "+r.slot)
	r.append("a/1", 1)
	err := u.failed()
	if err == nil || cdc.IsTerminal(err) {
		t.Fatalf("got %v, want an error that passes", err)
	}
	u = r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.barrier()
	r.exactlyOnce()
	u.stop()
}

// The publication is changed and changed back while nothing runs: only the store
// knows of the events that were left out.
func TestPublicationChangedAndChangedBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.append("a/1", 3)
	r.barrier()
	u.stop()
	r.db.Exec(t, fmt.Sprintf(`ALTER PUBLICATION %s SET (publish = 'update')`, r.slot))
	r.append("a/1", 2)
	r.db.Exec(t, fmt.Sprintf(`ALTER PUBLICATION %s SET (publish = 'insert, update, delete, truncate')`, r.slot))
	r.append("a/1", 2)
	u = r.start(r.config(), nil)
	err := u.failed()
	if err == nil || cdc.IsTerminal(err) {
		t.Fatalf("got %v, want an error that passes", err)
	}
	u = u.again()
	u.state(cdc.StateStreaming)
	r.barrier()
	u.stop()
	if !contains(u.log, "the log lacks events of the store: it has 5, the store at least 7") {
		t.Errorf("the log does not say what was missing:\n%s", u.log)
	}
	// The two that are missing stand behind the two that were streamed.
	if got := r.db.Value(t, `select string_agg(version::text, ' ' order by pos) from es.log join es.event on id = event`); got != "1 2 3 6 7 4 5" {
		t.Errorf("versions in the order of the log: %s", got)
	}
}

// The slot gets another name: the old one would hold WAL for ever.
func TestSlotRenamed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.append("a/1", 3)
	r.barrier()
	u.stop()
	r.append("a/1", 3)
	c := r.config()
	c.Slot += "_new"
	r.db.KeepSlot(c.Slot)
	u = r.start(c, nil)
	u.state(cdc.StateStreaming)
	r.append("a/1", 3)
	r.barrier()
	u.stop()
	r.exactlyOnce()
	if got := r.db.Slots(t); len(got) != 1 || got[0] != c.Slot {
		t.Errorf("slots %v, want %s alone", got, c.Slot)
	}
}

// A role that may not make the publication is told the SQL.
func TestMissingRights(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, fmt.Sprintf("REVOKE CREATE ON DATABASE %[1]s FROM daemon_%[1]s, es_owner", r.db.Name))
	err := r.start(r.config(), nil).failed()
	var te *cdc.TerminalError
	if !errors.As(err, &te) || te.Reason != "publication-rights" {
		t.Fatalf("got %v, want publication-rights", err)
	}
	r.db.Exec(t, te.Mend)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	u.stop()
}

// A second instance waits, and goes on where the first one stopped.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := r.start(r.config(), nil)
	first.state(cdc.StateStreaming)
	second := r.start(r.config(), nil)
	second.state(cdc.StateWaiting)
	r.append("a/1", 3)
	r.barrier()
	if s := second.n.Status(); s.Events != 0 || s.Waiting == "" {
		t.Errorf("the waiting instance: %+v", s)
	}
	first.stop()
	r.append("a/1", 3)
	second.state(cdc.StateStreaming)
	r.barrier()
	r.exactlyOnce()
	second.stop()
}

// The writer is protected by itself, whatever the slot does.
func TestLogWriterIsFenced(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := testContext(t)
	r.append("a/1", 3)
	ids := r.db.Query(t, `select id, xmin from es.event order by version`)
	open := func() *eventstore.LogWriter {
		t.Helper()
		w, err := r.store.OpenLogWriter(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Close)
		return w
	}
	add := func(w *eventstore.LogWriter, n int) {
		id, err := intent.ParseID(ids[n][0])
		if err != nil {
			t.Fatal(err)
		}
		w.Claim(eventstore.Reader{Slot: "s", System: "1", Timeline: 1})
		w.Add(id, 100, 5)
	}
	first := open()
	if _, err := r.store.OpenLogWriter(ctx); !errors.Is(err, eventstore.ErrLogHeld) {
		t.Errorf("a second writer: got %v, want %v", err, eventstore.ErrLogHeld)
	}
	add(first, 0)
	if err := first.Commit(ctx, 200); err != nil {
		t.Fatal(err)
	}
	// es.reader moves behind its back.
	r.db.Exec(t, `update es.reader set lsn = '0/CC'`)
	add(first, 1)
	if err := first.Commit(ctx, 300); !errors.Is(err, eventstore.ErrFenced) {
		t.Errorf("es.reader was changed: got %v, want %v", err, eventstore.ErrFenced)
	}
	first.Close()
	second := open()
	if reader, ok := second.Reader(); !ok || reader.LSN != 0xCC || second.Head() != 1 {
		t.Errorf("what is left: %+v %t, head %d", reader, ok, second.Head())
	}
	// Its session is gone, with the lock: a third one numbers.
	r.db.Exec(t, `select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = 'cdc numbering' and datname = current_database()`)
	third := open()
	add(third, 1)
	if err := third.Commit(ctx, 400); err != nil {
		t.Fatal(err)
	}
	add(second, 2)
	if err := second.Commit(ctx, 500); err == nil {
		t.Error("a writer without its lock still writes")
	}
	// A position that somebody took, an event that has one.
	r.db.Exec(t, `insert into es.log values (3, gen_random_uuid(), '0/1', 1)`)
	add(third, 2)
	if err := third.Commit(ctx, 600); !errors.Is(err, eventstore.ErrFenced) {
		t.Errorf("position taken: got %v, want %v", err, eventstore.ErrFenced)
	}
	third.Close()
	fourth := open()
	add(fourth, 0)
	if err := fourth.Commit(ctx, 700); !errors.Is(err, eventstore.ErrNumbered) {
		t.Errorf("event numbered: got %v, want %v", err, eventstore.ErrNumbered)
	}
}

// A stored event is changed round the triggers: an alarm each, once, and numbering
// goes on.
func TestAlarm(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.append("a/1", 4)
	r.barrier()
	off, on := `alter table es.event disable trigger all`, `alter table es.event enable trigger all`
	r.db.Exec(t, off, `update es.event set data = '{}' where version = 1`, `delete from es.event where version = 2`, on)
	r.append("a/1", 1)
	r.barrier()
	if s := u.n.Status(); s.Alarms != 2 || s.Head != 5 {
		t.Errorf("status: %d alarms, head %d; want 2 and 5", s.Alarms, s.Head)
	}
	if got := r.db.Value(t, `select string_agg(a.operation || ' ' || (a.event = l.event) || ' ' || (a.lsn > l.lsn) || ' ' || (now() - a.at < '1 hour'), ', ' order by a.id)
		from es.alarm a join es.log l on l.pos = case operation when 'update' then 1 else 2 end`); got != "update true true true, delete true true true" {
		t.Errorf("alarms: %s", got)
	}
	if contains(u.log, "data") {
		t.Errorf("the log has data of an event:\n%s", u.log)
	}
	u.stop()
	// Delivered once more: still one each.
	before := r.db.Value(t, `select lsn from es.reader`)
	u = r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.db.Exec(t, off, `truncate es.event`, on)
	r.append("b/1", 2)
	r.barrier()
	u.stop()
	if got := r.db.Value(t, `select string_agg(operation, ' ' order by id) from es.alarm`); got != "update delete truncate" {
		t.Errorf("alarms: got %s (reader was at %s)", got, before)
	}
	// A deleted event is known by its alarm: a lost slot is mended all the same.
	r.db.Exec(t, fmt.Sprintf(`select pg_drop_replication_slot('%s')`, r.slot))
	u = r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	u.stop()
}
