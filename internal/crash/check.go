package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// evidence is all that the checker is given.
type evidence struct {
	audit   []change
	records map[string]map[string][]record // table → key → records in their order
	rows    map[string]map[string]row      // table → key → row at the end
	sum     int                            // of the balances, at every moment
	samples []sample
	topic   func(table string) string
	commits *commits
	// Streamed is every change whose seq is greater than strict, and every one of
	// a transaction that was not yet being committed when the log was at cut: the
	// first copy lies before both. cut 0: not known.
	strict int64
	cut    lsn
}

// checker compares what Postgres committed with what a reader of the topics sees.
type checker struct {
	evidence
	streamed map[uint64]bool // low 32 bits of the ids of transactions that are in a topic
	findings []string
	found    int
}

// findingsKept bounds the report.
const findingsKept = 12

// check returns what is wrong.
func check(e evidence) []string {
	c := &checker{evidence: e, streamed: map[uint64]bool{}}
	for _, keys := range e.records {
		for _, records := range keys {
			for _, r := range records {
				if r.op != "r" && r.tx != 0 {
					c.streamed[r.tx] = true
				}
			}
		}
	}
	for _, t := range tables {
		c.table(t)
	}
	c.bank()
	return c.report()
}

// checkLatest looks at the last record of each key alone: of what came before
// compaction has left gaps.
func checkLatest(e evidence) []string {
	c := &checker{evidence: e}
	for _, t := range tables {
		c.fold(t)
	}
	c.bank()
	return c.report()
}

func (c *checker) report() []string {
	if c.found > len(c.findings) {
		c.findings = append(c.findings, fmt.Sprintf("… %d findings in all", c.found))
	}
	return c.findings
}

func (c *checker) complain(format string, args ...any) {
	if c.found++; len(c.findings) < findingsKept {
		c.findings = append(c.findings, fmt.Sprintf(format, args...))
	}
}

func (c *checker) table(t table) {
	want, got := histories(t, c.audit), c.records[t.name]
	for _, key := range slices.Sorted(maps.Keys(want)) {
		s := &sequence{checker: c, want: want[key], got: got[key]}
		if fault := s.follow(); fault != "" {
			c.complain("table %s key %s: %s\n  expected: %s\n  got:      %s", t.name, key, fault, s.expected(), s.seen())
			continue
		}
		c.confirmed(t, key, s)
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if want[key] == nil {
			c.complain("table %s key %s is in the topic and was never committed: %s", t.name, key, got[key][0].brief())
		}
	}
	c.fold(t)
}

// fold compares the last record of each key with the table.
func (c *checker) fold(t table) {
	last := map[string]row{}
	for key, records := range c.records[t.name] {
		if r := records[len(records)-1]; r.row != nil {
			last[key] = r.row
		}
	}
	columns := map[string]bool{}
	for _, r := range c.rows[t.name] {
		for column := range r {
			columns[column] = true
		}
	}
	now := func(column string) bool { return columns[column] }
	for _, key := range slices.Sorted(maps.Keys(c.rows[t.name])) {
		r := c.rows[t.name][key]
		if have, ok := last[key]; !ok {
			c.complain("table %s key %s: the row is in the table and not in the topic", t.name, key)
		} else if !have.alike(r, now) {
			c.complain("table %s key %s: the topic ends with %.300v, the table has %.300v", t.name, key, have, r)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(last)) {
		if c.rows[t.name][key] == nil {
			c.complain("table %s key %s: the topic ends with %s, the row is gone from the table", t.name, key, last[key].brief())
		}
	}
}

// bank adds up what the topic says.
func (c *checker) bank() {
	sum := 0
	for key, records := range c.records["accounts"] {
		r := records[len(records)-1].row
		n := 0
		if _, err := fmt.Sscan(r["balance"], &n); err != nil {
			c.complain("account %s: balance %q", key, r["balance"])
		}
		sum += n
	}
	if sum != c.sum {
		c.complain("the balances in the topic add up to %d, want %d", sum, c.sum)
	}
}

// confirmed holds a key's records against the samples: what was committed before
// the slot's position was in the topic when its end was read after that.
func (c *checker) confirmed(t table, key string, s *sequence) {
	for i, at := range s.at {
		if at < 0 {
			continue
		}
		after, known := c.commits.after[s.want[i].xid]
		if !known {
			continue
		}
		r := s.got[at]
		for _, m := range c.samples {
			if after <= m.confirmed && r.offset >= m.ends[c.topic(t.name)][r.partition] {
				c.complain("table %s key %s: the slot was confirmed to %s when %s, committed before %s, was not in the topic: partition %d ended at %d",
					t.name, key, m.confirmed, r.brief(), after, r.partition, m.ends[c.topic(t.name)][r.partition])
				return
			}
		}
	}
}

// must says that an entry has to be in the stream, and cannot be part of the
// first copy alone.
func (c *checker) must(e entry) bool {
	if e.seq > c.strict || c.streamed[e.xid&(1<<32-1)] {
		return true
	}
	before, known := c.commits.before[e.xid]
	return known && c.cut != 0 && before > c.cut
}

// sequence follows the records of one key through what was committed.
type sequence struct {
	*checker
	want []entry
	got  []record
	next int   // of want: what comes next in the stream
	at   []int // by entry of want, the record of got that is it; -1: none
	// streaming: a record of the stream was seen, or must have been. Before that,
	// copies may pass over entries that their snapshots have seen the outcome of.
	streaming bool
	copied    bool // the last record was of a copy
}

func (s *sequence) follow() string {
	s.at = make([]int, len(s.want))
	for i := range s.at {
		s.at[i] = -1
	}
	for i, r := range s.got {
		if fault := s.step(i, r); fault != "" {
			return fmt.Sprintf("record %d of the topic, %s: %s", i, r.brief(), fault)
		}
	}
	shown := s.copied && s.state(s.next) != nil // by a copy, as the state of then
	for ; s.next < len(s.want); s.next++ {
		if s.streaming || shown || s.must(s.want[s.next]) {
			return fmt.Sprintf("lost: entry %d, %s, and what follows is not in the topic", s.next, s.want[s.next].row.brief())
		}
	}
	if !s.streaming && s.alive() != (s.state(len(s.want)) != nil) {
		return "lost: the last copy does not show what was committed before it"
	}
	return ""
}

// state is the row after n entries.
func (s *sequence) state(n int) row {
	if n == 0 {
		return nil
	}
	return s.want[n-1].row
}

// alive says that the topic ends with a row.
func (s *sequence) alive() bool {
	return len(s.got) > 0 && s.got[len(s.got)-1].row != nil
}

// step takes one record. It returns what is wrong with it.
func (s *sequence) step(i int, r record) string {
	if r.op == "r" {
		return s.copy(r)
	}
	if s.next < len(s.want) && s.matches(r, s.want[s.next], s.next) {
		s.take(i)
		return ""
	}
	if !s.streaming {
		for n := s.next + 1; n < len(s.want) && s.passable(s.next, n); n++ {
			// A tombstone of a copy: the row had gone when it was made.
			if r.row == nil && s.want[n].row == nil && s.copied {
				s.next, s.copied = n+1, true
				return ""
			}
			if s.matches(r, s.want[n], n) && s.state(n) == nil && !s.copied {
				s.next = n
				s.take(i)
				return ""
			}
		}
	}
	return s.wrong(r)
}

// take notes that record i is the next entry.
func (s *sequence) take(i int) {
	e := s.want[s.next]
	s.at[s.next] = i
	s.next++
	// A tombstone among copies may be that of a copy or of the stream: it is of the
	// stream where its change had to be.
	if e.row != nil || s.must(e) {
		s.streaming = true
	}
	s.copied = false
}

// passable says that a copy may stand for the entries from a up to n.
func (s *sequence) passable(a, n int) bool {
	for _, e := range s.want[a:n] {
		if s.must(e) {
			return false
		}
	}
	return true
}

// copy takes a row of a copy: the row as it is then. In the first copy, and each
// time that is begun anew, entries before it are passed over.
func (s *sequence) copy(r record) string {
	if r.row == nil {
		return "a copy has no tombstones of this kind"
	}
	last := s.next
	if !s.streaming {
		last = len(s.want)
	}
	all := func(string) bool { return false }
	for n := s.next; n <= last; n++ {
		if !s.passable(s.next, n) {
			break
		}
		if now := s.state(n); now != nil && now["ver"] == r.row["ver"] && r.row.alike(now, all) {
			s.next, s.copied = n, true
			return ""
		}
	}
	return fmt.Sprintf("a copy's row that is not the row of then, %s", s.state(s.next).brief())
}

// matches says that a record is what an entry says. A value that was stored apart
// and left alone may be missing, or that of a later version, where the record
// says so.
func (s *sequence) matches(r record, e entry, n int) bool {
	if r.row == nil || e.row == nil {
		return r.row == nil && e.row == nil
	}
	if r.row.equal(e.row) {
		return true
	}
	if r.row["ver"] != e.row["ver"] {
		return false
	}
	for c, v := range e.row {
		have, there := r.row[c]
		switch {
		case there && have == v:
		case !there && slices.Contains(r.lacks, c):
		case there && r.refilled && s.later(c, have, n):
		default:
			return false
		}
	}
	for c := range r.row {
		if _, there := e.row[c]; !there {
			return false
		}
	}
	return true
}

// later says that a column has a value in a version behind n.
func (s *sequence) later(column, value string, n int) bool {
	return slices.ContainsFunc(s.want[n+1:], func(e entry) bool { return e.row != nil && e.row[column] == value })
}

// wrong names what is the matter with a record that does not come next.
func (s *sequence) wrong(r record) string {
	comes := "nothing more was committed"
	if s.next < len(s.want) {
		comes = fmt.Sprintf("entry %d, %s, comes next", s.next, s.want[s.next].row.brief())
	}
	if r.row == nil {
		return "a tombstone that was not committed here: " + comes
	}
	for n, e := range s.want {
		if e.row == nil || e.row["ver"] != r.row["ver"] {
			continue
		}
		switch {
		case n < s.next:
			return fmt.Sprintf("twice, or out of order: it is entry %d, %s", n, comes)
		case n > s.next:
			return fmt.Sprintf("lost, or out of order: it is entry %d, %s", n, comes)
		default:
			return fmt.Sprintf("other values: %.300v, want %.300v", r.row, e.row)
		}
	}
	return "never committed: " + comes
}

// briefs bounds how much of a sequence a report shows on either side.
const briefs = 8

func (s *sequence) expected() string {
	all := make([]string, len(s.want))
	for i, e := range s.want {
		all[i] = fmt.Sprintf("%s(seq %d, tx %d)", e.row.brief(), e.seq, e.xid)
	}
	return around(all, s.next)
}

func (s *sequence) seen() string {
	all := make([]string, len(s.got))
	last := 0
	for i, r := range s.got {
		all[i] = r.brief()
		if s.next > 0 && s.next <= len(s.at) && s.at[s.next-1] == i {
			last = i
		}
	}
	return around(all, last)
}

func around(all []string, at int) string {
	from, to := max(0, at-briefs), min(len(all), at+briefs)
	text := strings.Join(all[from:to], " ")
	if from > 0 {
		text = "… " + text
	}
	if to < len(all) {
		text += " …"
	}
	return text
}
