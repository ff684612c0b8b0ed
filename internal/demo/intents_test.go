package demo

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/eventpipe"
	"cdc/internal/intent"
	"cdc/internal/sink"
)

// numberAll numbers all events, as a daemon does, and leaves the store as one that
// has caught up.
func numberAll(t *testing.T, u *university) {
	t.Helper()
	_, err := u.conn.Exec(t.Context(), `INSERT INTO es.log (pos, event, lsn, tx)
		SELECT row_number() OVER (ORDER BY at, stream, version), id, '0/10', 7 FROM es.event
		WHERE id NOT IN (SELECT event FROM es.log)`)
	if err != nil {
		t.Fatalf("number the events: %v", err)
	}
	_, err = u.conn.Exec(t.Context(), `INSERT INTO es.reader (slot, system, timeline, lsn) VALUES ('x', 'x', 1, 'FFFFFFFF/0')
		ON CONFLICT (one) DO UPDATE SET lsn = excluded.lsn`)
	if err != nil {
		t.Fatalf("say that all is numbered: %v", err)
	}
}

// told makes the records of a topic as a publication writes them, in two partitions.
func told(t *testing.T, u *university) []intentRecord {
	t.Helper()
	var records []intentRecord
	next := map[int32]int64{}
	_, err := u.store.Log(t.Context(), 0, 1<<20, nil, func(e *intent.Event) error {
		var meta map[string]any
		if err := json.Unmarshal(e.Meta, &meta); err != nil {
			return err
		}
		m := &sink.Message{Key: []byte(e.Stream), Value: e.Data}
		header := func(key, value string) { m.Headers = append(m.Headers, cdc.Header{Key: key, Value: []byte(value)}) }
		header("p", "\x00\xff") // of the service, not compared
		header("id", e.ID.String())
		header("type", e.Type)
		header("schema", fmt.Sprint(e.Schema))
		header("version", fmt.Sprint(e.Version))
		header("position", fmt.Sprint(e.Position))
		header("tx", fmt.Sprint(e.Tx))
		header("lsn", e.LSN.String())
		header("time", e.At.UTC().Format(time.RFC3339Nano))
		for _, key := range []string{"correlation", "causation"} {
			if v, ok := meta[key].(string); ok {
				header(key, v)
				delete(meta, key)
			}
		}
		if len(meta) > 0 {
			rest, err := json.Marshal(meta)
			if err != nil {
				return err
			}
			header("meta", strings.Replace(string(rest), `":`, `": `, -1)) // as PostgreSQL writes it
		}
		if len(e.Subjects) > 0 {
			subjects, err := json.Marshal(e.Subjects)
			if err != nil {
				return err
			}
			header("subjects", string(subjects))
		}
		partition := int32(len(e.Stream) % 2)
		m.Offset = next[partition]
		next[partition] += 1 + m.Offset%3 // transaction markers take offsets too
		records = append(records, newIntentRecord(partition, m))
		return nil
	})
	if err != nil {
		t.Fatalf("read the log: %v", err)
	}
	return records
}

// judged compares records with the store, in a transaction of its own.
func judged(t *testing.T, u *university, before, after []intentRecord) IntentResult {
	t.Helper()
	var r IntentResult
	err := pgx.BeginFunc(t.Context(), u.conn, func(tx pgx.Tx) error {
		found, events, gaps, err := compareIntents(t.Context(), tx, category, after)
		r = intentResult("topic", intentContents{records: before}, intentContents{records: after}, found, events, gaps)
		return err
	})
	if err != nil {
		t.Fatalf("compare: %v", err)
	}
	return r
}

// The judge finds what is wrong with a topic of intents, whatever it is.
func TestCompareIntents(t *testing.T) {
	_, u := founded(t)
	appended, err := u.store.Append(t.Context(), []intent.Batch{{Stream: "course/logic", Expect: intent.Some, Events: []intent.NewEvent{{
		ID: intent.NewID(), Type: "enrolment-cancelled", Data: []byte(`{"course":"logic","student":1000,"reason":"日本語 \" \\ \u0001"}`), Subjects: []string{"a", `b"\`},
		Meta: []byte(`{"actor":"office","correlation":"c-1","causation":"d-1"}`),
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	numberAll(t, u)
	good := told(t, u)
	last := slices.IndexFunc(good, func(r intentRecord) bool { return *r.headers[0] == appended.Token.String() })
	set := func(r *intentRecord, header, value string) {
		r.headers[slices.Index(intentHeaders[:], header)] = &value
	}
	drop := func(r *intentRecord, header string) { r.headers[slices.Index(intentHeaders[:], header)] = nil }
	alter := func(change func(r *intentRecord)) func([]intentRecord) []intentRecord {
		return func(records []intentRecord) []intentRecord { change(&records[last]); return records }
	}
	for _, tc := range []struct {
		name  string
		spoil func([]intentRecord) []intentRecord
		fault string
	}{
		{"equal", func(r []intentRecord) []intentRecord { return r }, ""},
		{"missing", func(r []intentRecord) []intentRecord { return slices.Delete(r, 5, 6) }, "1 missing"},
		{"all missing", func([]intentRecord) []intentRecord { return nil }, fmt.Sprintf("%d missing", len(good))},
		{"doubled", func(r []intentRecord) []intentRecord {
			again := r[5]
			again.offset = 1 << 30
			return append(r, again)
		}, "1 doubled, 1 out of order"},
		{"ghost", func(r []intentRecord) []intentRecord {
			g := r[5]
			g.offset = 1 << 30
			set(&g, "id", intent.NewID().String())
			return append(r, g)
		}, "1 ghosts"},
		{"record of somebody else", func(r []intentRecord) []intentRecord {
			return append(r, newIntentRecord(0, &sink.Message{Offset: 1 << 30, Key: []byte("\xff"), Value: []byte("a\x00")}))
		}, "1 ghosts"},
		{"swapped", func(r []intentRecord) []intentRecord {
			i := slices.IndexFunc(r, func(s intentRecord) bool { return s.partition == r[0].partition && s.offset > r[0].offset })
			r[0].offset, r[i].offset = r[i].offset, r[0].offset
			return r
		}, "1 out of order"},
		{"in another partition", alter(func(r *intentRecord) { r.partition, r.offset = 1-r.partition, 1<<30 }), "1 out of order"},
		{"another stream", alter(func(r *intentRecord) {
			r.key = "course/ethics"
			r.partition = int32(len(r.key) % 2)
			r.offset = 1 << 30
		}), "1 different"},
		{"another number in the data", alter(func(r *intentRecord) { r.value = strings.Replace(r.value, "1000", "1001", 1) }), "1 different"},
		{"same data, other text", alter(func(r *intentRecord) { r.value = strings.Replace(r.value, ", ", ",", 1) }), "1 different"},
		{"a character in the data", alter(func(r *intentRecord) { r.value = strings.Replace(r.value, "日", "曰", 1) }), "1 different"},
		{"type", alter(func(r *intentRecord) { set(r, "type", "enrolment-canceled") }), "1 different"},
		{"schema", alter(func(r *intentRecord) { set(r, "schema", "2") }), "1 different"},
		{"version", alter(func(r *intentRecord) { set(r, "version", "1") }), "1 different"},
		{"position", alter(func(r *intentRecord) { set(r, "position", "1") }), "1 different"},
		{"transaction", alter(func(r *intentRecord) { set(r, "tx", "8") }), "1 different"},
		{"lsn", alter(func(r *intentRecord) { drop(r, "lsn") }), "1 different"},
		{"a microsecond", alter(func(r *intentRecord) { set(r, "time", "2026-03-01T09:05:07.000001Z") }), "1 different"},
		{"correlation", alter(func(r *intentRecord) { drop(r, "correlation") }), "1 different"},
		{"causation", alter(func(r *intentRecord) { set(r, "causation", "") }), "1 different"},
		{"actor", alter(func(r *intentRecord) { drop(r, "meta") }), "1 different"},
		{"subjects", alter(func(r *intentRecord) { set(r, "subjects", `["a"]`) }), "1 different"},
		{"no id", alter(func(r *intentRecord) { drop(r, "id") }), "1 missing, 1 ghosts"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			records := tc.spoil(slices.Clone(good))
			r := judged(t, u, records, records)
			if r.Equal != (tc.fault == "") || !r.Equal && r.fault() != tc.fault {
				t.Errorf("got equal %v, %s, want %q\n%q", r.Equal, r.fault(), tc.fault, r.Samples)
			}
			if r.Events != int64(len(good)) {
				t.Errorf("events: got %d, want %d", r.Events, len(good))
			}
		})
	}
	t.Run("compaction", func(t *testing.T) {
		other := slices.Clone(good)
		other[3].value = "{}"
		for name, before := range map[string][]intentRecord{
			"removed one":  append(slices.Clone(good), intentRecord{offset: 1 << 30}),
			"made one up":  good[1:],
			"rewrote one":  other,
			"moved one on": append(slices.Clone(good[1:]), intentRecord{partition: good[0].partition, offset: 1 << 30, key: good[0].key, value: good[0].value, headers: good[0].headers}),
		} {
			if r := judged(t, u, before, good); r.Disturbed == 0 || r.Equal {
				t.Errorf("%s: got %+v, want that it was not kept", name, r)
			}
		}
	})
	t.Run("positions", func(t *testing.T) {
		_, err := u.conn.Exec(t.Context(), `BEGIN; ALTER TABLE es.log DISABLE TRIGGER ALL; UPDATE es.log SET pos = pos + 1 WHERE event = '`+appended.Token.String()+`'; COMMIT`)
		if err != nil {
			t.Fatal(err)
		}
		if r := judged(t, u, good, good); r.Gaps != 1 || r.Equal {
			t.Errorf("a position that nobody has: got %+v, want a gap", r)
		}
		if _, err := u.store.Append(t.Context(), []intent.Batch{{Stream: "course/x", Expect: intent.Any, Events: []intent.NewEvent{{ID: intent.NewID(), Type: "student-enrolled", Data: []byte(`{"course":"x","student":1}`)}}}}); err != nil {
			t.Fatal(err)
		}
		records := told(t, u)
		if r := judged(t, u, records, records); r.Missing != 1 || r.Equal {
			t.Errorf("an event without a position: got %+v, want it missing", r)
		}
	})
}

// What a run adds is taken up by a store that has gone on without it.
func TestAdded(t *testing.T) {
	db, u := founded(t)
	if yes, err := u.extended(t.Context()); err != nil || yes {
		t.Fatalf("extended before the addition: got %v, %v", yes, err)
	}
	lines, err := eventpipe.Install(t.Context(), u.store, definitions(phase(t, true)))
	if err != nil {
		t.Fatalf("install: %v", err)
	}
	if text := strings.Join(lines, "\n"); len(lines) != 2 || !strings.Contains(text, "view popularity: new") || !strings.Contains(text, "reaction offer-freed-place: new") {
		t.Errorf("installed: got %q, want the view and the reaction and nothing else", lines)
	}
	if yes, err := u.extended(t.Context()); err != nil || !yes {
		t.Errorf("extended after the addition: got %v, %v", yes, err)
	}
	if got := db.Value(t, "SELECT count(*) FROM es.view WHERE name = 'popularity' AND state = 'building'"); got != "1" {
		t.Errorf("builds of popularity: got %s, want 1", got)
	}
}
