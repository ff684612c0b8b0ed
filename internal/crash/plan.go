package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// plan is all that a seed determines.
type plan struct {
	seed     uint64
	kafka    string // kindEmbedded, cdctest.FakeBroker, or a version of Apache Kafka
	config   configuration
	sessions [][]step
	faults   []fault
	// early: the workload begins before the first copy is over. Then what was
	// committed before the copy's own moment need not be seen one by one.
	early bool
	rows  int // of table journal before the start
	// compact: in the end the topics are compacted, and cdc goes on from there.
	compact bool
}

// kindEmbedded is the broker inside cdc.
const kindEmbedded = "embedded"

// configuration is what differs between seeds in cdc's own.
type configuration struct {
	partitions  int
	compression string
	memory      int // MiB
	workers     int
	full        bool // table items has REPLICA IDENTITY FULL
}

// limits cut a plan down: to reproduce, and to shrink.
type limits struct {
	steps  int   // of each session; 0: all
	faults []int // by number from 0; nil: all
	noDisk bool  // no disk can be filled: other faults are drawn
}

func makePlan(seed uint64, kafka string, l limits) plan {
	rnd := rand.New(rand.NewPCG(seed, 1))
	p := plan{
		seed: seed, kafka: kafka, early: rnd.IntN(4) == 0, rows: 20 + rnd.IntN(200),
		config: configuration{
			partitions:  1 + rnd.IntN(3),
			compression: pick(rnd, "none", "none", "lz4", "zstd", "snappy"),
			memory:      4 + 12*rnd.IntN(2),
			workers:     1 + rnd.IntN(3),
			full:        rnd.IntN(5) == 0,
		},
	}
	switch rnd.IntN(8) {
	case 0:
		p.rows += 20_000 // several chunks
	case 1, 2:
		p.rows += 3000
	}
	sessions := 3 + rnd.IntN(2)
	for i := range sessions {
		g := newGenerator(rand.New(rand.NewPCG(seed, 100+uint64(i))), i)
		steps := g.steps(25 + rnd.IntN(30))
		if l.steps > 0 {
			steps = steps[:min(l.steps, len(steps))]
		}
		p.sessions = append(p.sessions, steps)
	}
	all := makeFaults(rand.New(rand.NewPCG(seed, 2)), p, l.noDisk)
	if l.faults == nil {
		p.faults = all
	}
	for _, i := range l.faults {
		if i < len(all) {
			p.faults = append(p.faults, all[i])
		}
	}
	// Kafka reckons the age of a segment from the time of its records.
	ahead := slices.ContainsFunc(all, func(f fault) bool { return f.off > 0 })
	p.compact = rand.New(rand.NewPCG(seed, 3)).IntN(4) == 0 && !ahead
	return p
}

func pick[T any](rnd *rand.Rand, of ...T) T { return of[rnd.IntN(len(of))] }

func (p plan) steps() int {
	n := 0
	for _, s := range p.sessions {
		n += len(s)
	}
	return n
}

// String shows the schedule; the statements only where it is a small one.
func (p plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, broker %s, %d partitions, compression %s, memory %d MiB, %d workers", p.seed, p.kafka, p.config.partitions, p.config.compression, p.config.memory, p.config.workers)
	if p.config.full {
		b.WriteString(", items with REPLICA IDENTITY FULL")
	}
	fmt.Fprintf(&b, "\nworkload: %d rows at first, %d sessions, %d steps", p.rows, len(p.sessions), p.steps())
	if p.early {
		b.WriteString(", begun before the first copy")
	}
	if p.compact {
		b.WriteString(", compacted in the end")
	}
	b.WriteString("\n")
	for _, f := range p.faults {
		fmt.Fprintf(&b, "fault: %s\n", f)
	}
	if p.steps() <= printedSteps {
		for i, s := range p.sessions {
			for j, st := range s {
				fmt.Fprintf(&b, "session %d step %d: %s\n", i, j, st)
			}
		}
	}
	return b.String()
}

// printedSteps is how large a workload is still shown.
const printedSteps = 60

// fault is one thing that goes wrong.
type fault struct {
	number int // among those of the seed, from 0
	kind   string
	at     int           // once so many steps are done
	delay  time.Duration // and this time has passed
	hold   time.Duration // how long it lasts
	settle bool          // wait until cdc streams again before the next one
	point  string        // fail point
	count  int           // at its count-th passing, or so many answers
	stop   bool          // the fail point stops the process, and does not kill it
	// first: of two instances it is the first that goes in the end.
	first bool
	off   time.Duration // of the clock; hold 0: until all is well again
}

// failpoint is the fault as cdc is told of it.
func (f fault) failpoint() string {
	if f.stop {
		return fmt.Sprintf("%s:%d:stop", f.point, f.count)
	}
	return fmt.Sprintf("%s:%d:kill", f.point, f.count)
}

// first is the fail point that cdc begins with; "": none.
func (p plan) first() string {
	if len(p.faults) > 0 && slices.Contains(copyPoints, p.faults[0].point) {
		return p.faults[0].failpoint()
	}
	return ""
}

func (f fault) String() string {
	text := fmt.Sprintf("%d: %s after step %d and %v, for %v", f.number, f.kind, f.at, f.delay, f.hold)
	if f.kind == faultClock {
		text += fmt.Sprintf(", off by %v", f.off)
	}
	if f.point != "" {
		text += ", " + f.failpoint()
	} else if f.count > 0 {
		text += fmt.Sprintf(", %d answers", f.count)
	}
	if f.settle {
		text += ", then until it streams"
	}
	return text
}

// The kinds of fault.
const (
	faultKill      = "kill"       // SIGKILL of cdc
	faultTerm      = "term"       // SIGTERM
	faultPause     = "pause"      // SIGSTOP, then SIGCONT
	faultPoint     = "failpoint"  // killed or stopped at a named point
	faultZombie    = "zombie"     // stopped, replaced, and woken up
	faultHandover  = "handover"   // a second instance waits, the first is killed
	faultPGKill    = "pg-kill"    // SIGKILL of Postgres with all its backends
	faultPGStop    = "pg-stop"    // immediate shutdown
	faultPGFast    = "pg-restart" // fast shutdown
	faultSender    = "walsender"  // pg_terminate_backend
	faultSender9   = "walsender-kill"
	faultSnapshot  = "snapshot" // a copy is asked for over HTTP
	faultBroker    = "broker-kill"
	faultBoth      = "broker-and-cdc-kill"
	faultPGCut     = "pg-cut"
	faultPGStall   = "pg-stall"
	faultPGDelay   = "pg-delay"
	faultPGHalf    = "pg-half-open"
	faultPGDrop    = "pg-answers-lost"
	faultPGRefuse  = "pg-refused"
	faultKCut      = "kafka-cut"
	faultKStall    = "kafka-stall"
	faultKDelay    = "kafka-delay"
	faultKHalf     = "kafka-half-open"
	faultKDrop     = "kafka-answers-lost"
	faultKRefuse   = "kafka-refused"
	faultBothStall = "both-stall" // Postgres and Kafka at once
	// The network goes, and cdc is killed with all that it has not been answered.
	faultKStallKill = "kafka-stall-and-kill"
	faultKHalfKill  = "kafka-half-open-and-kill"
	faultPGHalfKill = "pg-half-open-and-kill"
	faultClock      = "clock" // the wall clock of cdc's machine jumps
	faultDiskPG     = "disk-full-pg"
	faultDiskBroker = "disk-full-broker" // inside cdc, or beside it
)

// weights says how often a kind is drawn.
var weights = map[string]int{
	faultKill: 6, faultTerm: 3, faultPause: 3, faultPoint: 12, faultPGKill: 2, faultPGStop: 1, faultPGFast: 2,
	faultSender: 3, faultSender9: 1, faultSnapshot: 4, faultPGCut: 3, faultPGStall: 2, faultPGDelay: 1, faultPGHalf: 2,
	faultPGDrop: 2, faultPGRefuse: 1, faultPGHalfKill: 1, faultClock: 5,
	faultDiskPG: 1, faultDiskBroker: 1,
}

// networked are those that need a broker outside of cdc.
var networked = map[string]int{
	faultZombie: 6, faultHandover: 2, faultKCut: 3, faultKStall: 2, faultKDelay: 1, faultKHalf: 3, faultKDrop: 5,
	faultKRefuse: 1, faultBothStall: 1, faultKStallKill: 4, faultKHalfKill: 2,
}

// Points of cdc's life, see docs/TESTING.md. Those of a start are passed once or
// twice, those of the flow often, those of a copy only while one is made.
var (
	startPoints = []string{"take-over", "takeover-init", "takeover-added", "takeover-ended", "takeover-marker", "progress-read", "publish", "stream-start"}
	chunkPoints = []string{"chunk-read", "chunk-written", "chunk-acknowledged", "copy-rows", "copy-ghosts"} // once a copy is asked for
	copyPoints  = []string{"snapshot-begin", "snapshot-rows", "snapshot-ghosts", "snapshot-finish", "snapshot-slot", "snapshot-progress"}
)

func makeFaults(rnd *rand.Rand, p plan, noDisk bool) []fault {
	table := map[string]int{}
	add := func(more map[string]int) {
		for k, w := range more {
			table[k] = w
		}
	}
	add(weights)
	switch p.kafka {
	case kindEmbedded:
	case "fake": // it forgets which batches it has when it dies, so both die
		add(networked)
		table[faultBoth] = 2
	default:
		add(networked)
		table[faultBroker] = 2
	}
	if p.kafka != kindEmbedded { // there are more kinds to draw from
		table[faultDiskBroker]++
	}
	if noDisk {
		delete(table, faultDiskPG)
		delete(table, faultDiskBroker)
	}
	kinds := slices.Sorted(func(yield func(string) bool) {
		for k := range table {
			if !yield(k) {
				return
			}
		}
	})
	total := 0
	for _, k := range kinds {
		total += table[k]
	}
	var faults []fault
	if p.early && rnd.IntN(3) > 0 {
		f := drawn(rnd, faultPoint, 0)
		f.point, f.count, f.at, f.delay = pick(rnd, copyPoints...), 1, 0, 0
		faults = append(faults, f)
	}
	for n := 1 + rnd.IntN(4); n > 0; n-- {
		at := rnd.IntN(total)
		for _, k := range kinds {
			if at -= table[k]; at < 0 {
				faults = append(faults, drawn(rnd, k, p.steps()))
				break
			}
		}
	}
	slices.SortStableFunc(faults, func(a, b fault) int { return a.at - b.at })
	for i := range faults {
		faults[i].number = i
	}
	return faults
}

// drawn is a fault of a kind, within a workload of so many steps.
func drawn(rnd *rand.Rand, kind string, steps int) fault {
	ms := func(least, most int) time.Duration {
		return time.Duration(least+rnd.IntN(most-least)) * time.Millisecond
	}
	f := fault{
		kind: kind, at: rnd.IntN(steps*8/10 + 1), delay: ms(0, 40), hold: ms(10, 400),
		settle: rnd.IntN(3) > 0, first: rnd.IntN(2) == 0,
	}
	switch kind {
	case faultKStallKill, faultKHalfKill, faultPGHalfKill: // a progress record is written once a second
		f.hold = ms(50, 1500)
	case faultDiskPG, faultDiskBroker:
		f.hold = ms(50, 2500)
		if kind == faultDiskPG && rnd.IntN(2) == 0 { // the log needs a new file at once
			f.point, f.count = "pg_switch_wal", 1
		}
	case faultZombie: // most of them with a request in hand
		if rnd.IntN(3) > 0 {
			f.kind, f.stop, f.settle, f.point, f.count = faultPoint, true, true, "produce-before", 1+rnd.IntN(6)
		}
	case faultClock:
		if f.off = pick(rnd, 3*time.Second, 90*time.Second, 2*time.Hour, 48*time.Hour); rnd.IntN(2) == 0 {
			f.off = -f.off
		}
		if rnd.IntN(2) == 0 {
			f.hold = 0
		}
	case faultPGDrop, faultKDrop:
		f.count = 1 + rnd.IntN(3)
	case faultPoint:
		f.stop = rnd.IntN(4) == 0
		f.point, f.count = pick(rnd, startPoints...), 1
		switch rnd.IntN(10) {
		case 5, 6:
			f.point = pick(rnd, chunkPoints...)
		case 0, 1:
			f.point, f.count = "produce-before", 1+rnd.IntN(8)
		case 2, 3:
			f.point, f.count = "produce-after", 1+rnd.IntN(8)
		case 4:
			f.point = pick(rnd, "progress", "confirm", "stop-confirm", "truncate-partition")
		}
	}
	return f
}
