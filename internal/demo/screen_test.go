package demo

import (
	"errors"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
)

func TestSummary(t *testing.T) {
	equal := TableResult{Table: "students", Topic: "university.students", Records: 12345, Compacted: 260, Keys: 205, Rows: 205, Equal: true}
	wrong := TableResult{Table: "feedback", Topic: "university.feedback", Records: 10, Compacted: 9, Keys: 8, Rows: 9,
		Missing: 2, Ghosts: 1, Different: 3, Samples: []string{`ghost {"id":7}`, `missing {"id":8}`}}
	kept := IntentResult{Topic: "university.events.course", Records: 1234, Compacted: 1234, Events: 1234, Equal: true}
	lost := kept
	lost.Compacted, lost.Missing, lost.Gaps, lost.Disturbed, lost.Equal, lost.Samples = 1232, 2, 1, 2, false, []string{"missing event 7"}
	enrolments := ViewResult{View: "enrolments", Mode: "inline", Events: 1200, Rows: 205, Equal: true}
	popularity := ViewResult{View: "popularity", Mode: "async", Events: 900, Rows: 12, Missing: 1, Extra: 2, Samples: []string{`missing {"course": "x"}`}}
	for _, tc := range []struct {
		name string
		r    Result
		want string
	}{
		{"equal", Result{Transactions: 100, Undone: 2, Lost: 1, End: 0x1A2B3C4, Added: true, Offers: 9,
			Tables: []TableResult{equal}, Intents: []IntentResult{kept}, Views: []ViewResult{enrolments}, Equal: true}, `
state topic          records  compacted  live keys  rows  equal
university.students   12,345        260        205   205  yes

intent topic              records  compacted  events  positions  all kept
university.events.course    1,234      1,234   1,234      dense  yes

view          kept  events  rows  equal to a replay
enrolments  inline   1,200   205  yes

100 transactions committed, 2 rolled back on purpose, 1 overtaken by another; 5 records read back, half of them 2.0ms after the commit or sooner, 99% 40ms
The reaction has offered 9 places that were freed; no application was changed for it.
Every state topic, compacted, is its table: key by key, column by column, at 0/1A2B3C4.
Every intent is in its topic, once and in order, as the store has it; compaction removed none.
Every view is what a replay of all events gives.
`},
		{"different", Result{Tables: []TableResult{equal, wrong}, Intents: []IntentResult{lost}, Views: []ViewResult{enrolments, popularity}}, `
state topic          records  compacted  live keys  rows  equal
university.students   12,345        260        205   205  yes
university.feedback       10          9          8     9  NO: 2 missing, 1 ghosts, 3 different

intent topic              records  compacted  events  positions  all kept
university.events.course    1,234      1,232   1,234     1 gaps  NO: 2 missing, 1 positions without an event, 2 not kept by compaction

view          kept  events  rows  equal to a replay
enrolments  inline   1,200   205  yes
popularity   async     900    12  NO: 1 rows missing, 2 rows too many

0 transactions committed, 0 rolled back on purpose, 0 overtaken by another; 5 records read back, half of them 2.0ms after the commit or sooner, 99% 40ms
university.feedback differs from table feedback: 2 missing, 1 ghosts, 3 different; ghost {"id":7}; missing {"id":8}
university.events.course differs from the events of the store: 2 missing, 1 positions without an event, 2 not kept by compaction; missing event 7
view popularity differs from a replay of the events: 1 rows missing, 2 rows too many; missing {"course": "x"}
`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var b strings.Builder
			s := newScreen(&b, false, 0)
			s.quiet = true
			streaming := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
			for _, ms := range []int{40, 1, 2} {
				s.change(change{at: streaming.Add(time.Second), tx: "1", latency: time.Duration(ms) * time.Millisecond})
			}
			// No latency: it waited for the snapshot; it was there before.
			s.change(change{at: streaming.Add(time.Second), tx: "1", latency: 2 * time.Second})
			s.change(change{op: cdc.OpRead, at: streaming.Add(time.Second)})
			s.summary(&tc.r, streaming)
			if got := b.String(); got != tc.want {
				t.Errorf("summary\n got:%s\nwant:%s", got, tc.want)
			}
		})
	}
}

func TestScreenTellsWhatItSkipped(t *testing.T) {
	var b strings.Builder
	s := newScreen(&b, false, 1)
	at := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	for i := range 4 {
		s.change(change{at: at, table: tables[1], key: []byte(`{"id":"a"}`), op: cdc.OpInsert, tx: string(rune('1' + i))})
	}
	s.change(change{at: at.Add(2 * time.Second), table: tables[1], key: []byte(`{"id":"b"}`), op: cdc.OpInsert, tx: "9"})
	s.change(change{at: at.Add(2 * time.Second), table: tables[1], key: []byte(`{"id":"c"}`), op: cdc.OpInsert, tx: "10"})
	s.hush()
	s.change(change{at: at.Add(9 * time.Second), table: tables[1], key: []byte(`{"id":"d"}`), op: cdc.OpInsert, tx: "11"})
	want := `09:00:00.000 courses      + a
             … 3 more
09:00:02.000 courses      + b
             … 1 more
`
	if got := b.String(); got != want {
		t.Errorf("screen\n got:\n%s\nwant:\n%s", got, want)
	}
	if s.seen != 7 {
		t.Errorf("seen: got %d, want 7", s.seen)
	}
}

// What a reaction means is shown also where its transaction is not: so many a second.
func TestScreenShowsReactions(t *testing.T) {
	var b strings.Builder
	s := newScreen(&b, false, 4) // one of them a second
	at := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	for i := range 6 {
		s.change(change{at: at, table: tables[1], key: []byte(`{"id":"a"}`), op: cdc.OpInsert, tx: string(rune('a' + i))})
	}
	for i := range 3 {
		s.change(change{at: at, key: []byte("course/x"), tx: string(rune('k' + i)), meant: &meant{kind: "place-offered", actor: "reaction:r"}})
	}
	if shown := strings.Count(b.String(), "courses"); shown != 4 {
		t.Errorf("rows shown: got %d, want 4\n%s", shown, b.String())
	}
	if shown := strings.Count(b.String(), "reaction "); shown != 1 {
		t.Errorf("intents of the reaction shown: got %d, want 1\n%s", shown, b.String())
	}
	if s.limit.skipped != 4 {
		t.Errorf("counted as skipped: got %d, want 4", s.limit.skipped)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestScreenKeepsTheFirstFailure(t *testing.T) {
	s := newScreen(failing{}, false, 0)
	s.say("x")
	if err := s.failure(); err == nil || err.Error() != "write output: no space" {
		t.Errorf("failure: got %v, want write output: no space", err)
	}
}

func TestHeader(t *testing.T) {
	var b strings.Builder
	newScreen(&b, false, 0).header(header{version: 15, port: 17001, broker: "127.0.0.1:9092", admin: "127.0.0.1:8083", dir: "data/demo", continued: true, adds: "half-way", ends: "with Ctrl-C"})
	for _, want := range []string{
		"psql -h 127.0.0.1 -p 17001 -U postgres university\n",
		"kcat -b 127.0.0.1:9092 -t university.enrolments\n",
		"http://127.0.0.1:8083/v1/status",
		"data/demo (continued where the last run stopped",
		"cdc status --config data/demo/cdc.yaml\n",
		"university.students university.courses university.enrolments university.waiting_list university.feedback\n",
		"intents   university.events.course\n",
		"adds      half-way\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("header lacks %q:\n%s", want, b.String())
		}
	}
}
