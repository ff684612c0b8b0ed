package chunk

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"cdc/internal/cdc"
)

// options is what happens in a simulated world.
type options struct {
	late      bool // commits are streamed before they are visible
	unchanged bool // events of updates may lack the large column
	truncate  bool
	ddl       bool
	crash     bool // of the server
	restart   bool // of the process

	lasting bool // only what is wrong at the end counts
}

var everything = options{late: true, unchanged: true, truncate: true, ddl: true, crash: true, restart: true}

// window is what the simulated stream needs of a Window, for windows that lack
// one of its rules.
type window interface {
	Open()
	Active() bool
	Event(key []byte, xid uint32) (record, bool)
	Truncate(xid uint32)
	Spoil()
	Arrive(s Snapshot, high cdc.LSN, rows []Row[record]) bool
	Ready(end cdc.LSN) bool
	Take() []Row[record]
	Drop()
}

// habits are the caller's part of the bargain; each set is one it breaks.
type habits struct {
	window func(s *sim) window // nil: a Window

	noSettle    bool // the first chunk of a life is opened at once
	noRowFirst  bool // what Event returns is not written
	lateOpen    bool // Open is called when the rows arrive
	earlyHigh   bool // the position is asked for before the snapshot
	midway      bool // the end of a transaction counts as passed in its middle
	keep        bool // the chunk is kept while the server is restarted
	lateReader  bool // the answer of a dropped chunk's reader is taken for the next chunk
	oneKey      bool // of a key change only the new key is told
	noUnchanged bool // an event during the read may lack columns
}

// sim is one life after the other of a process that streams one table of a
// postgres into a topic, and copies it in chunks meanwhile.
type sim struct {
	rng    *rand.Rand
	opts   options
	habits habits
	pg     *postgres
	first  uint64 // no id below is given out again

	// The topic with its progress record: what survives the process.
	topic   [keys]record // fold
	writes  [keys]int
	atTx    int // the event behind the last written
	atOp    int
	cursor  int // the key behind the last row copied
	copied  bool
	written int

	// The process.
	win      window
	settled  bool
	settleAt uint64
	tx, op   int // the next event of the stream
	shape    int // as the stream's last Relation tells
	replay   bool
	reader   *reader
	stale    *reader
	pending  *reader // arrived
	tooMany  int
	noteSize int

	violation string
	seen      map[string]int
	trace     []string
	tracing   bool
}

// reader reads one chunk in its own time.
type reader struct {
	first, n int
	rows     []Row[record]
	end      bool
	behind   int
	snapshot Snapshot
	read     bool
	ended    bool // its transaction, after high was read
	high     int
}

func newSim(seed uint64, opts options, h habits) *sim {
	rng := rand.New(rand.NewPCG(seed, 7))
	s := &sim{rng: rng, opts: opts, habits: h, pg: newPostgres(rng), seen: map[string]int{}}
	s.first = s.pg.next
	for k := range s.topic {
		s.topic[k].key = k
	}
	s.tooMany, s.noteSize = maxNoted, maxNoted
	if rng.IntN(3) == 0 {
		s.tooMany = 1 + rng.IntN(3)
	}
	if rng.IntN(2) == 0 {
		s.noteSize = 1 + rng.IntN(3)
	}
	s.start()
	return s
}

// start is the beginning of a life of the process.
func (s *sim) start() {
	s.unlock()
	s.reader, s.stale, s.pending = nil, nil, nil
	if s.habits.window != nil {
		s.win = s.habits.window(s)
	} else {
		s.win = s.realWindow()
	}
	s.settled, s.replay = s.habits.noSettle, s.rng.IntN(2) == 0
	s.settleAt = s.pg.assign()
	s.pg.done = max(s.pg.done, s.settleAt)
	if s.tx = s.atTx; s.tx > 0 {
		s.tx -= s.rng.IntN(min(s.tx, 3) + 1)
	}
	s.op = 0
}

func (s *sim) realWindow() *Window[record] {
	w := NewWindow[record](s.tooMany)
	w.before.limit, w.since.limit = s.noteSize, s.noteSize
	return w
}

func (s *sim) note(format string, args ...any) {
	if s.tracing {
		s.trace = append(s.trace, fmt.Sprintf(format, args...))
	}
}

func (s *sim) fail(format string, args ...any) {
	if s.violation == "" {
		s.violation = fmt.Sprintf(format, args...)
		s.note("VIOLATION: %s", s.violation)
	}
}

// run plays a random schedule, then lets everything come to its end.
func (s *sim) run(steps int) {
	for range steps {
		s.step()
		if s.violation != "" {
			return
		}
	}
	const enough = 500
	for i := 0; !s.copied || len(s.pg.live) > 0 || s.deliver() || s.tx < len(s.pg.log); i++ {
		for _, t := range slices.Clone(s.pg.live) {
			s.finish(t)
		}
		s.pg.lsn += 8 // ChunkReader.Pulse
		s.pg.flush()
		s.deliver()
		s.chunk()
		if i == enough {
			s.fail("the copy does not end")
		}
		if s.violation != "" {
			return
		}
	}
	s.compare()
}

func (s *sim) step() {
	p := s.pg
	var t *tx
	if len(p.live) > 0 {
		t = p.live[s.rng.IntN(len(p.live))]
	}
	switch n := s.rng.IntN(100); {
	case n < 10:
		if len(p.live) < 4 {
			p.begin()
		}
	case n < 35:
		if t != nil && t.end == 0 {
			p.change(t, s.opts)
		}
	case n < 47:
		if t != nil {
			s.finish(t)
		}
	case n < 52:
		p.flush()
	case n < 74:
		s.deliver()
	case n < 97:
		s.chunk()
	case n == 97:
		if s.win.Active() {
			s.drop("the copy is interrupted")
		}
	case n == 98 && s.opts.restart:
		s.note("process: restarted")
		s.seen["restart"]++
		s.start()
	case n == 99 && s.opts.crash:
		s.crash()
	}
}

// finish takes a transaction a step nearer to its end.
func (s *sim) finish(t *tx) {
	p := s.pg
	switch {
	case t.end == 0 && s.rng.IntN(5) == 0:
		s.note("postgres: %d aborts", t.xid)
		p.abort(t)
	case t.end == 0:
		p.commit(t)
		s.note("postgres: %d commits, %d to %d", t.xid, t.start, t.end)
		if !s.opts.late {
			p.show(t)
		} else if s.rng.IntN(3) > 0 {
			p.flush()
		}
	default:
		s.note("postgres: %d is visible", t.xid)
		p.show(t)
	}
}

func (s *sim) crash() {
	s.note("postgres: restarted at %d", s.pg.flushed)
	s.seen["crash"]++
	s.unlock()
	s.pg.crash(s.first)
	if !s.settled { // ids begin anew
		s.settleAt = s.pg.assign()
		s.pg.done = max(s.pg.done, s.settleAt)
	}
	if (s.win.Active() || s.reader != nil) && !s.habits.keep {
		s.drop("the stream is connected again")
	}
}

func (s *sim) drop(why string) {
	s.note("drop: %s", why)
	s.win.Drop()
	s.unlock()
	if s.habits.lateReader && s.reader != nil && s.reader.read {
		s.stale = s.reader
		s.stale.ended, s.stale.high = true, s.pg.lsn
	}
	s.reader, s.pending = nil, nil
}

func (s *sim) unlock() {
	s.pg.reading = 0
}
