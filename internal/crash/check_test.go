package main

import (
	"fmt"
	"strings"
	"testing"

	"cdc/internal/cdctest"
)

func TestMain(m *testing.M) { cdctest.Main(m) }

// story is a small history of table journal, as the audit has it and as a topic
// may have it. Each test changes what the topic has.
type story struct {
	audit   []change
	records []cdctest.Record
	offset  int64
	commits *commits
	samples []sample
	strict  int64
	cut     lsn
	rows    map[string]row
}

func newStory() *story { return &story{commits: newCommits(), rows: map[string]row{}} }

var journal = tables[2]

func journalRow(id, ver int, value string) row {
	return row{"id": fmt.Sprint(id), "v": `"` + value + `"`, "ver": fmt.Sprint(ver)}
}

// put commits a version; its own transaction has its number, from 100.
func (s *story) put(id, ver int, value string) *story {
	k := fmt.Sprintf("id=%d", id)
	c := change{seq: int64(len(s.audit) + 1), xid: uint64(100 + len(s.audit)), table: "journal", op: "u", new: journalRow(id, ver, value), old: row{"id": fmt.Sprint(id)}}
	if s.rows[k] == nil {
		c.op, c.old = "i", nil
	}
	s.audit, s.rows[k] = append(s.audit, c), c.new
	return s
}

func (s *story) drop(id int) *story {
	s.audit = append(s.audit, change{seq: int64(len(s.audit) + 1), xid: uint64(100 + len(s.audit)), table: "journal", op: "d", old: row{"id": fmt.Sprint(id)}})
	delete(s.rows, fmt.Sprintf("id=%d", id))
	return s
}

func (s *story) truncate() *story {
	s.audit = append(s.audit, change{seq: int64(len(s.audit) + 1), xid: uint64(100 + len(s.audit)), table: "journal", op: "t"})
	clear(s.rows)
	return s
}

// got adds a record to the topic: "op id ver value", or "op id" for a tombstone.
func (s *story) got(text string, headers ...string) *story {
	f := strings.Fields(text)
	r := cdctest.Record{Offset: s.offset, Key: []byte(`{"id":` + f[1] + `}`)}
	s.offset++
	if len(f) > 2 {
		r.Value = fmt.Appendf(nil, `{"id":%s,"ver":%s`, f[1], f[2])
		if f[3] != "?" {
			r.Value = fmt.Appendf(r.Value, `,"v":%q`, f[3])
		}
		r.Value = append(r.Value, '}')
	}
	for _, h := range append([]string{"op=" + f[0]}, headers...) {
		k, v, _ := strings.Cut(h, "=")
		r.Headers = append(r.Headers, header(k, v))
	}
	s.records = append(s.records, r)
	return s
}

func (s *story) check(t *testing.T) string {
	t.Helper()
	records, err := byKey(journal, s.records)
	if err != nil {
		return err.Error()
	}
	findings := check(evidence{
		audit: s.audit, records: map[string]map[string][]record{"journal": records}, rows: map[string]map[string]row{"journal": s.rows},
		samples: s.samples, topic: func(name string) string { return name }, commits: s.commits, strict: s.strict, cut: s.cut,
	})
	return strings.Join(findings, "\n")
}

// The checker accepts what is right, and must complain about everything else.
func TestCheck(t *testing.T) {
	// three is three versions of one key and one of another.
	three := func() *story {
		return newStory().put(1, 11, "a").put(1, 12, "b").put(2, 13, "c").put(1, 14, "d")
	}
	early := func(s *story) *story { s.strict = 1 << 40; return s }
	tests := []struct {
		name  string
		story *story
		want  string // part of the findings; "" for none
	}{
		{"as committed", three().got("c 1 11 a").got("c 2 13 c").got("u 1 12 b").got("u 1 14 d"), ""},
		{"lost in the middle", three().got("c 1 11 a").got("c 2 13 c").got("u 1 14 d"), "lost, or out of order: it is entry 2"},
		{"lost at the end", three().got("c 1 11 a").got("c 2 13 c").got("u 1 12 b"), "lost: entry 2, v14"},
		{"a key lost altogether", three().got("c 1 11 a").got("u 1 12 b").got("u 1 14 d"), "key id=2: lost: entry 0, v13"},
		{"twice", three().got("c 1 11 a").got("u 1 12 b").got("u 1 12 b").got("c 2 13 c").got("u 1 14 d"), "twice, or out of order: it is entry 1"},
		{"twice at the end", three().got("c 1 11 a").got("u 1 12 b").got("c 2 13 c").got("u 1 14 d").got("u 1 14 d"), "twice, or out of order: it is entry 2"},
		{"reordered", three().got("c 1 11 a").got("c 2 13 c").got("u 1 14 d").got("u 1 12 b"), "out of order: it is entry 2"},
		{"never committed", three().got("c 1 11 a").got("u 1 12 b").got("u 1 99 z").got("c 2 13 c").got("u 1 14 d"), "never committed"},
		{"a key never committed", three().got("c 1 11 a").got("u 1 12 b").got("c 3 99 z").got("c 2 13 c").got("u 1 14 d"), "id=3 is in the topic and was never committed"},
		{"another value", three().got("c 1 11 a").got("u 1 12 x").got("c 2 13 c").got("u 1 14 d"), "other values"},
		{"a column lost", three().got("c 1 11 a").got("u 1 12 ?").got("c 2 13 c").got("u 1 14 d"), "other values"},

		{"deleted", newStory().put(1, 11, "a").drop(1).got("c 1 11 a").got("d 1"), ""},
		{"the tombstone lost", newStory().put(1, 11, "a").drop(1).got("c 1 11 a"), "lost: entry 1, -"},
		{"the tombstone twice", newStory().put(1, 11, "a").drop(1).got("c 1 11 a").got("d 1").got("d 1"), "a tombstone that was not committed"},
		{"resurrected", newStory().put(1, 11, "a").drop(1).got("c 1 11 a").got("d 1").got("u 1 11 a"), "twice, or out of order"},
		{"deleted and back", newStory().put(1, 11, "a").drop(1).put(1, 12, "b").got("c 1 11 a").got("d 1").got("c 1 12 b"), ""},
		{"deleted and back, the tombstone lost", newStory().put(1, 11, "a").drop(1).put(1, 12, "b").got("c 1 11 a").got("c 1 12 b"), "lost, or out of order"},
		{"truncated", newStory().put(1, 11, "a").put(2, 12, "b").drop(2).truncate().put(1, 13, "c").got("c 1 11 a").got("c 2 12 b").got("d 2").got("t 1").got("c 1 13 c"), ""},
		{"truncated, a live key left", newStory().put(1, 11, "a").put(2, 12, "b").truncate().got("c 1 11 a").got("c 2 12 b").got("t 1"), "key id=2: lost"},
		{"truncated twice", newStory().put(1, 11, "a").truncate().got("c 1 11 a").got("t 1").got("t 1"), "a tombstone that was not committed"},

		{"refilled from a later version", three().got("c 1 11 a").got("u 1 12 d", "refilled=true").got("c 2 13 c").got("u 1 14 d"), ""},
		{"refilled from an earlier version", three().got("c 1 11 a").got("u 1 12 a", "refilled=true").got("c 2 13 c").got("u 1 14 d"), "other values"},
		{"a later version's value, unsaid", three().got("c 1 11 a").got("u 1 12 d").got("c 2 13 c").got("u 1 14 d"), "other values"},
		{"incomplete", three().got("c 1 11 a").got("u 1 12 ?", `incomplete=["v"]`).got("c 2 13 c").got("u 1 14 d"), ""},
		{"incomplete at the end", three().got("c 1 11 a").got("u 1 12 b").got("c 2 13 c").got("u 1 14 ?", `incomplete=["v"]`), "the topic ends with"},

		{"copied, then streamed", early(three()).got("r 1 12 b").got("r 2 13 c").got("u 1 14 d", "tx=103"), ""},
		{"copied only", early(three()).got("r 1 14 d").got("r 2 13 c"), ""},
		{"copied twice", early(three()).got("r 1 11 a").got("r 1 14 d").got("r 2 13 c"), ""},
		{"the first copy lost a change behind it", early(three()).got("r 1 11 a").got("r 2 13 c").got("u 1 14 d", "tx=103"), "lost, or out of order"},
		{"the last copy is too old", early(three()).got("r 1 12 b").got("r 2 13 c"), "lost"},
		{"a copy goes back", early(three()).got("r 1 12 b").got("r 1 11 a").got("r 2 13 c").got("u 1 14 d"), "a copy's row that is not the row of then"},
		{"a row missing from the copy", early(three()).got("r 2 13 c"), "key id=1: lost"},
		{"of a transaction that is in the stream, a change passed over", early(newStory().put(1, 11, "a").put(2, 12, "b").drop(2)).got("c 1 11 a", "tx=101"), "key id=2: lost"},
		{"a ghost of an earlier copy", early(newStory().put(1, 11, "a").drop(1)).got("r 1 11 a").got("d 1"), ""},
		{"a ghost, come and gone again before the copy", early(newStory().put(1, 11, "a").drop(1).put(1, 12, "b").drop(1)).got("r 1 11 a").got("d 1"), ""},
		{"a ghost, then back in the copy", early(newStory().put(1, 11, "a").drop(1).put(1, 12, "b")).got("r 1 11 a").got("d 1"), "lost"},
		{"a ghost left alive", early(newStory().put(1, 11, "a").drop(1)).got("r 1 11 a"), "lost"},
		{"come and gone before the copy", early(newStory().put(1, 11, "a").drop(1)), ""},
		{"come and gone, but streamed", early(newStory().put(1, 11, "a").drop(1).put(1, 12, "b")).got("c 1 12 b"), ""},
		{"copied again while streaming", three().got("c 1 11 a").got("u 1 12 b").got("r 1 12 b").got("c 2 13 c").got("u 1 14 d").got("r 1 14 d"), ""},
		{"copied while streaming, an older row", three().got("c 1 11 a").got("u 1 12 b").got("r 1 11 a").got("c 2 13 c").got("u 1 14 d"), "a copy's row that is not the row of then"},
		{"copied while streaming, a newer row", three().got("c 1 11 a").got("u 1 12 b").got("r 1 14 d").got("c 2 13 c"), "a copy's row that is not the row of then"},
		{"copied while streaming, resurrected", newStory().put(1, 11, "a").drop(1).got("c 1 11 a").got("d 1").got("r 1 11 a"), "a copy's row that is not the row of then"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.story.check(t)
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// What was committed before the slot's confirmed position must have been in the
// topic when its end was read after that.
func TestCheckConfirmed(t *testing.T) {
	story := func(confirmed lsn, end int64) *story {
		s := newStory().put(1, 11, "a").put(1, 12, "b").got("c 1 11 a").got("u 1 12 b")
		s.commits.add(100, 1000, 1010)
		s.commits.add(101, 1010, 1020)
		s.samples = []sample{{confirmed, map[string]map[int32]int64{"journal": {0: end}}}}
		return s
	}
	tests := []struct {
		name      string
		confirmed lsn
		end       int64
		want      string
	}{
		{"behind both", 1020, 2, ""},
		{"behind the first", 1019, 1, ""},
		{"too early for the second", 1020, 1, "the slot was confirmed"},
		{"too early for both", 2000, 0, "the slot was confirmed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := story(tt.confirmed, tt.end).check(t); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// What was begun to be committed behind the place where the slot began was
// streamed, also where the workload began before it.
func TestCheckCut(t *testing.T) {
	s := newStory().put(1, 11, "a").drop(1)
	s.strict, s.cut = 1<<40, 500
	s.commits.add(100, 600, 610)
	if got := s.check(t); !strings.Contains(got, "lost") {
		t.Errorf("got %q, want that it is lost", got)
	}
	s.cut = 700
	if got := s.check(t); got != "" {
		t.Errorf("before the cut: got %q, want nothing", got)
	}
}

func TestCheckBankAndTable(t *testing.T) {
	account := func(id, balance int) (string, row) {
		return fmt.Sprintf("id=%d", id), row{"id": fmt.Sprint(id), "balance": fmt.Sprint(balance), "ver": fmt.Sprint(id)}
	}
	e := evidence{
		records: map[string]map[string][]record{"accounts": {}}, rows: map[string]map[string]row{"accounts": {}},
		sum: 200, commits: newCommits(), topic: func(name string) string { return name },
	}
	for id := 1; id <= 2; id++ {
		key, r := account(id, 100)
		e.audit = append(e.audit, change{seq: int64(id), xid: uint64(id), table: "accounts", op: "i", new: r})
		e.records["accounts"][key], e.rows["accounts"][key] = []record{{op: "c", row: r}}, r
	}
	if got := check(e); len(got) > 0 {
		t.Errorf("got %q, want nothing", got)
	}
	key, _ := account(2, 0)
	delete(e.rows["accounts"], key)
	e.sum = 250
	got := check(e)
	text := strings.Join(got, "\n")
	for _, want := range []string{"add up to 200, want 250", "the row is gone from the table"} {
		if !strings.Contains(text, want) {
			t.Errorf("got %q, want %q", text, want)
		}
	}
}

// Rows of before and after a change of the table's columns are alike.
func TestAlike(t *testing.T) {
	a := row{"id": "1", "v": `"x"`}
	tests := []struct {
		name string
		b    row
		want bool
	}{
		{"the same", row{"id": "1", "v": `"x"`}, true},
		{"a column added since", row{"id": "1", "v": `"x"`, "c": null}, true},
		{"a column dropped since", row{"id": "1", "v": `"x"`, "gone": `"y"`}, true},
		{"a value that the other lacks", row{"id": "1", "v": `"x"`, "c": `"y"`}, false},
		{"another value", row{"id": "1", "v": `"z"`}, false},
	}
	for _, tt := range tests {
		if got := a.alike(tt.b, func(c string) bool { return c != "gone" }); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// header makes a header without the vocabulary of what is judged.
func header(key, value string) struct {
	Key   string
	Value []byte
} {
	return struct {
		Key   string
		Value []byte
	}{key, []byte(value)}
}
