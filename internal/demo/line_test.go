package demo

import (
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/sink"
)

func TestLine(t *testing.T) {
	at := time.Date(2026, 3, 1, 9, 5, 7, 120_000_000, time.UTC)
	students, enrolments := tables[0], tables[2]
	essay := `"` + strings.Repeat("x", 4000) + `"`
	for _, tc := range []struct {
		name  string
		c     change
		paint palette
		want  string
	}{
		{"insert",
			change{at: at, table: enrolments, key: []byte(`{"course":"ddia","student":1004}`), op: cdc.OpInsert, latency: 3400 * time.Microsecond,
				value: []byte(`{"course":"ddia","student":1004,"since":"2026-03-01T09:05:07.123456Z","grade":null}`)},
			false, "09:05:07.120 enrolments   + ddia 1004             since=2026-03-01T09:05:07Z grade=null        3.4ms"},
		{"delete has no row",
			change{at: at, table: enrolments, key: []byte(`{"course":"ddia","student":1004}`), op: cdc.OpDelete, latency: 250 * time.Millisecond},
			false, "09:05:07.120 enrolments   - ddia 1004                                                          250ms"},
		{"snapshot row has no latency",
			change{at: at, table: enrolments, key: []byte(`{"course":"x","student":1}`), op: cdc.OpRead, value: []byte(`{"grade":1.30}`)},
			false, "09:05:07.120 enrolments   = x 1                   grade=1.30"},
		{"large value by its size",
			change{at: at, table: students, key: []byte(`{"id":7}`), op: cdc.OpUpdate, value: []byte(`{"id":7,"essay":` + essay + `}`)},
			false, "09:05:07.120 students     ~ 7                     essay=<4.0 kB>"},
		{"nothing moves the cursor",
			change{at: at, table: students, key: []byte(`{"id":7}`), op: cdc.OpUpdate, value: []byte(`{"name":"a\u001b[2Jb\r\nc"}`)},
			false, "09:05:07.120 students     ~ 7                     name=a·[2Jb· c"},
		{"wide characters take two columns",
			change{at: at, table: students, key: []byte(`{"id":"花子"}`), op: cdc.OpUpdate, value: []byte(`{"name":"日本語日本語日本語日本語日本語"}`)},
			false, "09:05:07.120 students     ~ 花子                  name=日本語日本語日本語日本…"},
		{"cut at its width",
			change{at: at, table: students, key: []byte(`{"id":"` + strings.Repeat("k", 30) + `"}`), op: cdc.OpUpdate, latency: time.Second, value: []byte(`{"a":"` + strings.Repeat("v", 20) + `","b":"` + strings.Repeat("w", 30) + `"}`)},
			false, "09:05:07.120 students     ~ kkkkkkkkkkkkkkkkkkkk… a=vvvvvvvvvvvvvvvvvvvv b=wwwwwwwwwwwwwwwww…   1.0s"},
		{"a record of somebody else",
			change{at: at, table: students, key: []byte("\xffnot json"), value: []byte("[1]")},
			false, "09:05:07.120 students     ? ·not json             [1]"},
		{"intent of a student",
			change{at: at, key: []byte("course/ddia"), value: []byte(`{"course": "ddia", "reason": "timetable", "student": 1004}`), latency: 250 * time.Millisecond,
				meant: &meant{kind: "enrolment-cancelled", version: "17", actor: "student:1004"}},
			false, "09:05:07.120 student 1004 ! enrolment-cancelled   course/ddia@17 reason=timetable              250ms"},
		{"intent of a reaction",
			change{at: at, key: []byte("course/ddia"), value: []byte(`{"course": "ddia", "student": 1007}`),
				meant: &meant{kind: "place-offered", version: "18", actor: "reaction:offer-freed-place"}},
			false, "09:05:07.120 reaction     ! place-offered         course/ddia@18 student=1007"},
		{"intent of somebody else",
			change{at: at, key: []byte("x\x1b[2J"), value: []byte(`{`), meant: &meant{kind: strings.Repeat("k", 40), actor: strings.Repeat("a", 40)}},
			false, "09:05:07.120 aaaaaaaaaaa… ! kkkkkkkkkkkkkkkkkkkk… x·[2J@ {"},
		{"colour",
			change{at: at, table: students, key: []byte(`{"id":7}`), op: cdc.OpDelete},
			true, "\x1b[2m09:05:07.120\x1b[0m students     \x1b[31m-\x1b[0m 7                                                                 \x1b[2m      \x1b[0m"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := tc.c.line(tc.paint)
			if got != tc.want {
				t.Errorf("line\n got %q\nwant %q", got, tc.want)
			}
			if !tc.paint && columns(got) > 100 {
				t.Errorf("line takes %d columns, want at most 100: %q", columns(got), got)
			}
		})
	}
}

func TestNewChange(t *testing.T) {
	commit := time.Date(2026, 3, 1, 9, 5, 7, 0, time.UTC)
	headers := func(op, tx, ts string) []cdc.Header {
		return []cdc.Header{{Key: "op", Value: []byte(op)}, {Key: "tx", Value: []byte(tx)}, {Key: "ts", Value: []byte(ts)}, {Key: "p", Value: make([]byte, 20)}}
	}
	for _, tc := range []struct {
		name    string
		headers []cdc.Header
		op      cdc.Op
		tx      string
		latency time.Duration
	}{
		{"streamed", headers("u", "812", "2026-03-01T09:05:07.000000Z"), cdc.OpUpdate, "812", 5 * time.Millisecond},
		{"snapshot", headers("r", "812", "2026-03-01T09:05:07.000000Z"), cdc.OpRead, "", 0},
		{"clock behind the server's", headers("c", "1", "2026-03-01T10:00:00.000000Z"), cdc.OpInsert, "1", 0},
		{"no headers", nil, 0, "", 0},
		{"headers of somebody else", headers("upsert", "", "yesterday"), 0, "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &sink.Message{Key: []byte("k"), Value: []byte("v"), Headers: tc.headers}
			c := newChange(tables[0], m, commit.Add(5*time.Millisecond))
			m.Key[0], m.Value[0] = 'x', 'x' // the reader's memory is used again
			if string(c.key) != "k" || string(c.value) != "v" {
				t.Errorf("got key %q value %q, want copies of k and v", c.key, c.value)
			}
			if c.op != tc.op || c.tx != tc.tx || c.latency != tc.latency {
				t.Errorf("got op %q tx %q latency %v, want %q %q %v", c.op, c.tx, c.latency, tc.op, tc.tx, tc.latency)
			}
		})
	}
}

func TestBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0ms", 9400 * time.Microsecond: "9.4ms", 10 * time.Millisecond: "10ms", 999 * time.Millisecond: "999ms",
		1500 * time.Millisecond: "1.5s", time.Minute: "1m", 99 * time.Minute: "99m", 48 * time.Hour: ">1h",
	} {
		if got := brief(d); got != want || len(got) > 6 {
			t.Errorf("brief(%v): got %q, want %q in 6 columns", d, got, want)
		}
	}
}

func TestNewIntent(t *testing.T) {
	at := time.Date(2026, 3, 1, 9, 5, 7, 0, time.UTC)
	headers := []cdc.Header{{Key: "id", Value: []byte("i")}, {Key: "type", Value: []byte("t")}, {Key: "version", Value: []byte("3")},
		{Key: "tx", Value: []byte("812")}, {Key: "time", Value: []byte("2026-03-01T09:05:07Z")}, {Key: "causation", Value: []byte("c")},
		{Key: "meta", Value: []byte(`{"actor": "student:7", "x": 1}`)}}
	m := &sink.Message{Key: []byte("course/x"), Value: []byte("{}"), Headers: headers}
	c := newIntent(m, at.Add(time.Second), at.Add(-time.Minute))
	if want := (meant{"i", "t", "3", "student:7", "c"}); *c.meant != want || c.tx != "812" || c.latency != time.Second || c.meant.who() != "student 7" {
		t.Errorf("got %+v of transaction %q after %v, want %+v of 812 after 1s", *c.meant, c.tx, c.latency, want)
	}
	if c := newIntent(m, at.Add(time.Hour), at.Add(time.Minute)); c.tx != "" || c.latency != 0 {
		t.Errorf("appended before the run: got transaction %q after %v, want none", c.tx, c.latency)
	}
	m.Headers = []cdc.Header{{Key: "meta", Value: []byte(`[1]`)}, {Key: "time", Value: []byte("yesterday")}}
	if c := newIntent(m, at, at); *c.meant != (meant{}) || c.latency != 0 {
		t.Errorf("a record of somebody else: got %+v after %v", *c.meant, c.latency)
	}
}
