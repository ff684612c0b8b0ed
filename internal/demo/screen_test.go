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
	for _, tc := range []struct {
		name string
		r    Result
		want string
	}{
		{"equal", Result{Transactions: 100, Undone: 2, Lost: 1, End: 0x1A2B3C4, Tables: []TableResult{equal}, Equal: true}, `
topic                records  compacted  live keys  rows  equal
university.students   12,345        260        205   205  yes

100 transactions committed, 2 rolled back on purpose, 1 overtaken by another; 5 records read back, half of them 2.0ms after the commit or sooner, 99% 40ms
Every topic, compacted, is its table: key by key, column by column, at 0/1A2B3C4.
`},
		{"different", Result{Tables: []TableResult{equal, wrong}}, `
topic                records  compacted  live keys  rows  equal
university.students   12,345        260        205   205  yes
university.feedback       10          9          8     9  NO: 2 missing, 1 ghosts, 3 different

0 transactions committed, 0 rolled back on purpose, 0 overtaken by another; 5 records read back, half of them 2.0ms after the commit or sooner, 99% 40ms
university.feedback differs from table feedback: 2 missing, 1 ghosts, 3 different; ghost {"id":7}; missing {"id":8}
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
	newScreen(&b, false, 0).header(header{version: 15, port: 17001, broker: "127.0.0.1:9092", admin: "127.0.0.1:8083", dir: "data/demo", continued: true, ends: "with Ctrl-C"})
	for _, want := range []string{
		"psql -h 127.0.0.1 -p 17001 -U postgres university\n",
		"kcat -b 127.0.0.1:9092 -t university.enrolments\n",
		"http://127.0.0.1:8083/v1/status",
		"data/demo (continued where the last run stopped",
		"cdc status --config data/demo/cdc.yaml\n",
		"university.students university.courses university.enrolments university.waiting_list university.feedback\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("header lacks %q:\n%s", want, b.String())
		}
	}
}
