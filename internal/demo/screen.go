package demo

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"cdc/internal/cdc"
)

// screen is where a run is told. Its methods may be called concurrently.
type screen struct {
	mu        sync.Mutex
	out       io.Writer
	err       error // the first of out; nothing is written after it
	paint     palette
	limit     limiter
	quiet     bool // changes are counted and no longer shown
	seen      int64
	latencies []latency // of the newest changes, a ring
}

// latency is the way of one change from its commit to a reader.
type latency struct {
	commit time.Time
	d      time.Duration
}

// latenciesKept is how many latencies the quantiles are taken from.
const latenciesKept = 10_000

func newScreen(out io.Writer, paint palette, perSecond int) *screen {
	return &screen{out: out, paint: paint, limit: limiter{perSecond: perSecond}}
}

// say writes one line.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeLocked(fmt.Sprintf(format, args...))
}

func (s *screen) writeLocked(line string) {
	if s.err == nil {
		_, s.err = io.WriteString(s.out, line+"\n")
	}
}

// Write takes the lines of others (downloads).
func (s *screen) Write(p []byte) (int, error) {
	s.say("%s", strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// change shows a change, or counts it.
func (s *screen) change(c change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.tx != "" {
		l := latency{c.at.Add(-c.latency), c.latency}
		if len(s.latencies) < latenciesKept {
			s.latencies = append(s.latencies, l)
		} else {
			s.latencies[s.seen%latenciesKept] = l
		}
	}
	s.seen++
	if s.quiet {
		return
	}
	show := s.limit.admit(c.at, c.tx)
	if n, tell := s.limit.count(c.at); tell {
		s.writeLocked(s.paint.dim(fmt.Sprintf("%12s … %d more", "", n)))
	}
	if show {
		s.writeLocked(c.line(s.paint))
	}
}

// hush ends the lines for changes.
func (s *screen) hush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = true
	if s.limit.skipped > 0 {
		s.writeLocked(s.paint.dim(fmt.Sprintf("%12s … %d more", "", s.limit.skipped)))
		s.limit.skipped = 0
	}
}

// failure is the first error of the output.
func (s *screen) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return fmt.Errorf("write output: %w", s.err)
	}
	return nil
}

// header says what runs where.
type header struct {
	version   int // of PostgreSQL
	port      int
	broker    string
	admin     string
	dir       string
	continued bool
	ends      string
}

func (s *screen) header(h header) {
	began := "started from nothing"
	if h.continued {
		began = "continued where the last run stopped"
	}
	topics := make([]string, len(tables))
	for i, t := range tables {
		topics[i] = t.topic()
	}
	rows := [][2]string{
		{"postgres", fmt.Sprintf("%d, private    psql -h 127.0.0.1 -p %d -U postgres %s", h.version, h.port, database)},
		{"kafka", fmt.Sprintf("embedded       kcat -b %s -t %s", h.broker, tables[2].topic())},
		{"admin", "http://" + h.admin + "/v1/status  /metrics  /readyz"},
		{"data", fmt.Sprintf("%s (%s; logs are in there)", h.dir, began)},
		{"config", fmt.Sprintf("cdc status --config %s/%s", h.dir, configName)},
		{"topics", strings.Join(topics, " ")},
		{"ends", h.ends},
	}
	var b strings.Builder
	b.WriteString(s.paint.bold("A university, live: PostgreSQL → cdc → Kafka") + "\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "  %-9s %s\n", r[0], r[1])
	}
	fmt.Fprintf(&b, "\n%s", s.paint.dim(fmt.Sprintf("%-12s %s   %s %s %s", "read at",
		pad("table", tableWidth), pad("key", keyWidth), pad("row", valueWidth-1), "latency")))
	s.say("%s", b.String())
	s.legend()
}

func (s *screen) legend() {
	ops := []struct {
		op   cdc.Op
		what string
	}{{cdc.OpRead, "was there before"}, {cdc.OpInsert, "insert"}, {cdc.OpUpdate, "update"}, {cdc.OpDelete, "delete"}}
	parts := make([]string, len(ops))
	for i, o := range ops {
		parts[i] = s.paint.op(o.op, signs[o.op]) + " " + o.what
	}
	s.say("%12s %s\n", "", strings.Join(parts, "   "))
}

// summary tells the result. What was committed before streaming began had to wait
// for the snapshot: it does not count for the latency.
func (s *screen) summary(r *Result, streaming time.Time) {
	s.mu.Lock()
	seen := s.seen
	var latencies []time.Duration
	for _, l := range s.latencies {
		if !l.commit.Before(streaming) {
			latencies = append(latencies, l.d)
		}
	}
	s.mu.Unlock()
	s.say("\n%s", s.table(r))
	s.say("%d transactions committed, %d rolled back on purpose, %d overtaken by another; %d records read back%s",
		r.Transactions, r.Undone, r.Lost, seen, quantiles(latencies))
	if r.Equal {
		s.say("%s", s.paint.good(fmt.Sprintf("Every topic, compacted, is its table: key by key, column by column, at %s.", r.End)))
		return
	}
	for _, t := range r.Tables {
		if !t.Equal {
			s.say("%s", s.paint.bad(t.Topic+" differs from table "+t.Table+": "+strings.Join(append([]string{t.fault()}, t.Samples...), "; ")))
		}
	}
}

// table is the result in columns, numbers to the right.
func (s *screen) table(r *Result) string {
	lines := [][]string{{"topic", "records", "compacted", "live keys", "rows", "equal"}}
	for _, t := range r.Tables {
		lines = append(lines, []string{t.Topic, number(t.Records), number(t.Compacted), number(int64(t.Keys)), number(t.Rows), t.verdict()})
	}
	widths := make([]int, len(lines[0]))
	for _, l := range lines {
		for i, cell := range l {
			widths[i] = max(widths[i], len(cell))
		}
	}
	var b strings.Builder
	last := len(widths) - 1
	for n, l := range lines {
		for i, cell := range l {
			switch i {
			case 0:
				fmt.Fprintf(&b, "%-*s", widths[i], cell)
			case last:
				if n > 0 && r.Tables[n-1].Equal {
					cell = s.paint.good(cell)
				} else if n > 0 {
					cell = s.paint.bad(cell)
				}
				b.WriteString("  " + cell)
			default:
				fmt.Fprintf(&b, "  %*s", widths[i], cell)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// number groups digits by three.
func number(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// quantiles of the time from commit to reader, "" without any.
func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return ""
	}
	slices.Sort(d)
	at := func(q float64) string { return brief(d[int(math.Ceil(q*float64(len(d))))-1]) }
	return fmt.Sprintf(", half of them %s after the commit or sooner, 99%% %s", at(.5), at(.99))
}
