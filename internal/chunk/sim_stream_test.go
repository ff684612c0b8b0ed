package chunk

import "cdc/internal/cdc"

// deliver hands over and writes the next event of the stream, if there is one.
func (s *sim) deliver() bool {
	p := s.pg
	for s.tx < len(p.log) && p.log[s.tx].end <= p.flushed && s.op == len(p.log[s.tx].ops) {
		s.tx, s.op = s.tx+1, 0
	}
	if s.tx == len(p.log) || p.log[s.tx].end > p.flushed {
		return false
	}
	t := p.log[s.tx]
	o := t.ops[s.op]
	known := s.tx < s.atTx || s.tx == s.atTx && s.op < s.atOp // in the topic from an earlier life
	s.op++
	if o.shape > s.shape {
		s.note("stream: shape %d", o.shape)
		s.shape = o.shape
		s.win.Spoil()
	}
	if known && !s.replay {
		return true
	}
	if !t.visible {
		s.seen["event before it is visible"]++
	}
	s.note("stream: %d (32 bits: %d) %s known=%v", t.xid, uint32(t.xid), o, known)
	reading := s.reader != nil
	var row record
	first := false
	switch {
	case o.kind == opTruncate:
		s.win.Truncate(uint32(t.xid))
	case o.kind == opMoved && s.habits.oneKey:
	default:
		row, first = s.win.Event(keyBytes[o.key][:], uint32(t.xid))
	}
	if known {
		if first {
			s.fail("a row is to be written before an event that was written long ago")
		}
		return true
	}
	if first && !s.habits.noRowFirst {
		s.seen["row before its event"]++
		s.write("row", row)
	}
	s.atTx, s.atOp = s.tx, s.op
	if o.kind == opTruncate {
		for k := range s.topic {
			s.write("truncated", record{key: k, seq: o.seq, shape: o.shape})
		}
		return true
	}
	s.write("event", record{key: o.key, seq: o.seq, shape: o.shape, alive: o.alive, b: o.b,
		unchanged: o.unchanged && (!reading || s.habits.noUnchanged)})
	return true
}

// write appends a record to the topic and judges it: no key ever goes back to an
// earlier state, no row has fewer columns than an event before it.
func (s *sim) write(what string, r record) {
	s.note("topic: %s %+v", what, r)
	s.written++
	now := &s.topic[r.key]
	if r.seq < now.seq && !s.opts.lasting {
		s.fail("key %d goes back: %s of version %d behind version %d", r.key, what, r.seq, now.seq)
	}
	if r.shape < s.shape && !s.opts.lasting {
		s.fail("key %d: %s of shape %d behind an event of shape %d", r.key, what, r.shape, s.shape)
	}
	b, unchanged := now.b, now.unchanged
	if !now.alive {
		b, unchanged = 0, true // nothing to take it from
	}
	lacking := r.unchanged
	*now = r
	if lacking {
		now.b, now.unchanged = b, unchanged
	}
	if r.alive {
		s.writes[r.key]++
	}
}

// chunk takes the copy a step further.
func (s *sim) chunk() {
	p := s.pg
	switch r := s.reader; {
	case s.copied:
	case !s.settled:
		text, _ := ParseSnapshot(p.snapshot())
		s.settled = text.XMin() >= s.settleAt
	case r == nil && s.pending == nil:
		s.reader = &reader{first: s.cursor, n: 1 + s.rng.IntN(keys)}
		if s.stale != nil {
			s.reader, s.stale = s.stale, nil
		}
		s.note("copy: open from %d", s.cursor)
		if !s.habits.lateOpen {
			s.win.Open()
		}
		s.reader.high = p.lsn
	case r != nil && !r.read:
		s.read(r)
	case r != nil && !r.ended:
		s.unlock()
		if r.ended = true; !s.habits.earlyHigh {
			r.high = p.lsn
		}
	case r != nil:
		s.arrive(r)
	case !s.win.Active():
		s.note("copy: spoiled")
		s.seen["spoiled after arrival"]++
		s.pending = nil
	case s.win.Ready(s.passed()):
		s.take()
	}
}

// read is the reader's transaction up to its rows.
func (s *sim) read(r *reader) {
	p := s.pg
	if p.exclusive != nil {
		return // LOCK TABLE waits
	}
	p.reading++
	snapshot, err := ParseSnapshot(p.snapshot())
	if err != nil {
		s.fail("%v", err)
		return
	}
	for _, t := range append(p.log, p.live...) {
		if got := snapshot.Visible(uint32(t.xid)); got != t.visible {
			s.fail("snapshot %s: visible(%d) is %v, want %v", &snapshot, t.xid, got, t.visible)
		}
	}
	rows, end := p.read(r.first, r.n)
	r.snapshot, r.end, r.read, r.behind = snapshot, end, true, r.first
	for _, row := range rows {
		r.rows = append(r.rows, Row[record]{Key: keyBytes[row.key][:], Record: row})
		r.behind = row.key + 1
	}
	s.note("reader: snapshot %s rows %+v", &snapshot, rows)
}

func (s *sim) arrive(r *reader) {
	if s.rng.IntN(3) == 0 {
		return // on its way
	}
	s.reader = nil
	if s.habits.lateOpen {
		s.win.Open()
	}
	n := len(r.rows)
	ok := s.win.Arrive(r.snapshot, cdc.LSN(r.high), r.rows)
	s.note("copy: arrived=%v, to be passed: %d", ok, r.high)
	if ok {
		s.pending = r
	}
	if w, real := s.win.(*Window[record]); real {
		if s.noteSize < maxNoted && !ok && w.before.lost {
			s.seen["refused for a range of transactions"]++
		}
		why, _ := w.Why()
		s.seen["arrive: "+why.String()]++
		switch {
		case ok && w.truncated && len(w.rows) == 0 && n > 0:
			s.seen["truncated while it was read"]++
		case ok && len(w.index) < n:
			s.seen["row dropped for a tracked event"]++
		}
	}
}

// passed is up to where the stream has told everything.
func (s *sim) passed() cdc.LSN {
	p := s.pg
	at, op := s.tx, s.op
	for at < len(p.log) && p.log[at].end <= p.flushed && op == len(p.log[at].ops) {
		at, op = at+1, 0
	}
	switch {
	case at == len(p.log) || p.log[at].end > p.flushed:
		return cdc.LSN(p.flushed)
	case s.habits.midway && op > 0:
		return cdc.LSN(p.log[at].end)
	case at == 0:
		return 0
	}
	return cdc.LSN(p.log[at-1].end)
}

// take writes what is left of a chunk, and with the last row where to go on.
func (s *sim) take() {
	rows := s.win.Take()
	r := s.pending
	s.pending = nil
	die := len(rows)
	if s.opts.restart && s.rng.IntN(8) == 0 {
		die = s.rng.IntN(len(rows) + 1)
	}
	s.note("copy: take %d rows", len(rows))
	for i, row := range rows {
		if i == die {
			s.note("process: restarted with %d rows written", i)
			s.seen["restart within a chunk"]++
			s.start()
			return
		}
		s.write("row", row.Record)
	}
	s.cursor, s.copied = r.behind, r.end
	s.seen["chunk taken"]++
}

// compare wants the topic to hold the table.
func (s *sim) compare() {
	for k, got := range s.topic {
		want := s.pg.rows[k][len(s.pg.rows[k])-1]
		switch {
		case got.alive != want.alive:
			s.fail("at the end key %d: in the topic %v, in the table %v", k, got.alive, want.alive)
		case !got.alive:
		case got.seq != want.seq || got.unchanged || got.b != want.b:
			s.fail("at the end key %d: topic %+v, table %+v", k, got, want)
		case s.writes[k] == 0:
			s.fail("at the end key %d: a row never written", k)
		}
	}
}

var keyBytes = func() (b [keys][4]byte) {
	for i := range b {
		b[i] = [4]byte{'k', 'e', 'y', byte('0' + i)}
	}
	return b
}()

func (o op) String() string {
	return [...]string{"write", "delete", "truncate", "move"}[o.kind] + " " + string(keyBytes[o.key][:])
}
