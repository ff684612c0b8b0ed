package chunk

import (
	"math/rand/v2"
	"slices"
)

// keys is the size of the table's key space; a state topic has one key per row.
const keys = 6

// postgres is a model of one table of a server, of what matters here: ids and
// snapshots, row and table locks that are held until a transaction is visible or
// over, a log in commit order, and commits that are in the log, even flushed and
// streamed, before they are visible.
type postgres struct {
	rng  *rand.Rand
	next uint64 // id of the next transaction
	done uint64 // the greatest id that is visible or aborted
	live []*tx  // running, or committed and not visible yet: what Postgres' ProcArray holds
	rows [keys][]version
	seq  int // of versions, rising

	shape     int // of the table's columns, as its last lock holder left it
	exclusive *tx // holds the table alone
	reading   int // readers that hold the table against exclusive

	log     []*tx // committed, in order
	lsn     int   // end of the log
	flushed int
}

type tx struct {
	xid        uint64
	ops        []op
	start, end int // of the commit record; zero while it runs
	visible    bool
	touched    bool // it holds row locks of the table
	shape      int  // of the table before it altered it, +1; zero: it did not
}

// version is a state of a key: a row, or its absence.
type version struct {
	tx    *tx
	seq   int
	alive bool
	b     int // the large column, which an update may leave alone
}

type opKind uint8

const (
	opWrite opKind = iota
	opDelete
	opTruncate
	opMoved // the delete of a key change, its insert follows
)

type op struct {
	kind  opKind
	key   int
	shape int
	version
	unchanged bool // the event does not have b
}

// record is what the topic's records and the chunk's rows consist of.
type record struct {
	key, seq, shape int
	alive           bool
	b               int
	unchanged       bool
}

func newPostgres(rng *rand.Rand) *postgres {
	p := &postgres{rng: rng, lsn: 8, flushed: 8}
	epoch := uint64(rng.IntN(3)) << 32
	switch rng.IntN(4) {
	case 0:
		p.next = epoch + 3 + uint64(rng.IntN(4))
	case 1:
		p.next = epoch + 1<<32 - 1 - uint64(rng.IntN(60)) // wraps
	case 2:
		p.next = epoch + 1<<31 - 1 - uint64(rng.IntN(60)) // the sign of an int32
	default:
		p.next = epoch + 3 + uint64(rng.Uint32N(1<<32-4))
	}
	p.done = p.next - 1
	frozen := &tx{visible: true}
	for k := range p.rows {
		p.seq++
		p.rows[k] = []version{{frozen, p.seq, rng.IntN(3) > 0, p.seq}}
	}
	return p
}

func (p *postgres) assign() uint64 {
	p.next += 1 + uint64(p.rng.IntN(3)/2) // savepoints take ids too
	for uint32(p.next) < 3 {
		p.next++ // Postgres never gives these out
	}
	return p.next
}

func (p *postgres) begin() {
	p.live = append(p.live, &tx{xid: p.assign()})
}

// mayTouch and mayHoldAlone are the conflicts of ROW EXCLUSIVE and ACCESS EXCLUSIVE.
func (p *postgres) mayTouch(t *tx) bool { return p.exclusive == nil || p.exclusive == t }

func (p *postgres) mayHoldAlone(t *tx) bool {
	return p.reading == 0 && p.mayTouch(t) && !slices.ContainsFunc(p.live, func(o *tx) bool { return o != t && o.touched })
}

// locked says that another transaction has changed the key and is not over.
func (p *postgres) locked(key int, t *tx) bool {
	last := p.rows[key][len(p.rows[key])-1].tx
	return last != t && !last.visible
}

func (p *postgres) write(t *tx, o op) {
	p.seq++
	p.lsn += 8
	o.tx, o.seq, o.shape = t, p.seq, p.shape
	t.touched = true
	t.ops = append(t.ops, o)
	if o.kind == opTruncate {
		for k := range p.rows {
			p.rows[k] = append(p.rows[k], version{t, p.seq, false, 0})
		}
		return
	}
	p.rows[o.key] = append(p.rows[o.key], t.ops[len(t.ops)-1].version)
}

// change does one random statement of a running transaction, or nothing where it
// would have to wait.
func (p *postgres) change(t *tx, o options) {
	if !p.mayTouch(t) {
		return
	}
	what := p.rng.IntN(40)
	if what < 2 && o.truncate && p.mayHoldAlone(t) {
		p.exclusive = t
		p.write(t, op{kind: opTruncate})
		return
	}
	if what == 2 && o.ddl && p.mayHoldAlone(t) {
		p.exclusive, t.touched = t, true
		if t.shape == 0 {
			t.shape = p.shape + 1
		}
		p.shape++
		return
	}
	key := p.rng.IntN(keys)
	if p.locked(key, t) {
		return
	}
	now := p.rows[key][len(p.rows[key])-1]
	fresh := version{alive: true, b: p.seq + 1}
	switch {
	case !now.alive:
		p.write(t, op{kind: opWrite, key: key, version: fresh})
	case what < 8:
		p.write(t, op{kind: opDelete, key: key})
	case what < 14:
		to := p.rng.IntN(keys)
		if to != key && !p.locked(to, t) && !p.rows[to][len(p.rows[to])-1].alive {
			p.write(t, op{kind: opMoved, key: key})
			p.write(t, op{kind: opWrite, key: to, version: fresh})
		}
	case what < 24 && o.unchanged:
		fresh.b = now.b
		p.write(t, op{kind: opWrite, key: key, version: fresh, unchanged: true})
	default:
		p.write(t, op{kind: opWrite, key: key, version: fresh})
	}
}

// commit writes the commit record. With a synchronous commit it is flushed, and
// streamed perhaps, before show makes it visible; with an asynchronous one it is
// visible before it is flushed.
func (p *postgres) commit(t *tx) {
	t.start = p.lsn
	p.lsn += 8
	t.end = p.lsn
	p.log = append(p.log, t)
}

func (p *postgres) flush() { p.flushed = p.lsn }

func (p *postgres) show(t *tx) {
	t.visible = true
	p.over(t)
}

func (p *postgres) abort(t *tx) {
	p.undo(t)
	p.over(t)
}

func (p *postgres) over(t *tx) {
	p.done = max(p.done, t.xid)
	p.live = slices.DeleteFunc(p.live, func(o *tx) bool { return o == t })
	if p.exclusive == t {
		p.exclusive = nil
	}
}

func (p *postgres) undo(t *tx) {
	for k := range p.rows {
		p.rows[k] = slices.DeleteFunc(p.rows[k], func(v version) bool { return v.tx == t })
	}
	if t.shape > 0 {
		p.shape = min(p.shape, t.shape-1)
	}
}

// crash is a server that lost its memory: commits that were not flushed never
// were, although readers may have seen them; their ids and places in the log are
// given out anew.
func (p *postgres) crash(first uint64) {
	for len(p.log) > 0 && p.log[len(p.log)-1].end > p.flushed {
		last := p.log[len(p.log)-1]
		last.visible = false
		p.undo(last)
		p.log = p.log[:len(p.log)-1]
	}
	for _, t := range slices.Clone(p.live) {
		if t.end > 0 && t.end <= p.flushed {
			p.show(t)
		} else {
			p.abort(t)
		}
	}
	p.next, p.done, p.lsn, p.exclusive = first, first, p.flushed, nil
	for _, t := range p.log {
		p.next = max(p.next, t.xid)
	}
	p.done = p.next
}

// snapshot is what pg_current_snapshot() gives, in its text form.
func (p *postgres) snapshot() string {
	s := Snapshot{xmin: p.done + 1, xmax: p.done + 1}
	for _, t := range p.live {
		if t.xid < s.xmax {
			s.xip = append(s.xip, t.xid)
			s.xmin = min(s.xmin, t.xid)
		}
	}
	slices.Sort(s.xip)
	return s.String()
}

// read gives at most n rows with keys from the first, and whether none is behind.
func (p *postgres) read(first, n int) (rows []record, end bool) {
	for key := first; key < keys; key++ {
		versions := p.rows[key]
		for i := len(versions) - 1; i >= 0; i-- {
			v := versions[i]
			if !v.tx.visible {
				continue
			}
			if !v.alive {
				break
			}
			if len(rows) == n {
				return rows, false
			}
			rows = append(rows, record{key: key, seq: v.seq, shape: p.shape, alive: true, b: v.b})
			break
		}
	}
	return rows, true
}
