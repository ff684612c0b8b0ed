package demo

import (
	"fmt"
	"io"
	"maps"
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
	reactions limiter // of what reactions mean: there is little of it, and it is what to look for
	lens      lens
	quiet     bool // changes are counted and no longer shown
	seen      int64
	timed     int64     // of them, those with a latency
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
	return &screen{out: out, paint: paint, limit: limiter{perSecond: perSecond}, reactions: limiter{perSecond: (perSecond + 3) / 4}}
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
	if c.tx != "" && c.meant == nil {
		l := latency{c.at.Add(-c.latency), c.latency}
		if len(s.latencies) < latenciesKept {
			s.latencies = append(s.latencies, l)
		} else {
			s.latencies[s.timed%latenciesKept] = l
		}
		s.timed++
	}
	s.seen++
	if s.quiet {
		return
	}
	show := c.reacted() && s.reactions.admit(c.at, "") || s.limit.admit(c.at, c.tx)
	if n, tell := s.limit.count(c.at); tell {
		s.writeLocked(s.paint.dim(fmt.Sprintf("%12s … %d more", "", n)))
	}
	if show {
		s.writeLocked(c.line(s.paint))
	}
	if block := s.lens.see(c, s.paint); block != "" {
		s.writeLocked(block)
	}
}

// added shows what was put into the configuration, and what installing it did.
func (s *screen) added(config string, lines, installed []string) {
	var b strings.Builder
	head := fmt.Sprintf("added to %s and installed, as `cdc es init` does; nothing was restarted", config)
	fmt.Fprintf(&b, "\n%12s %s\n", "", s.paint.bold(head))
	for _, l := range lines {
		fmt.Fprintf(&b, "%12s %s\n", "", s.paint.good(clip("+ "+l, addedWidth)))
	}
	for _, l := range installed {
		fmt.Fprintf(&b, "%12s %s\n", "", l)
	}
	s.say("%s", b.String())
}

// addedWidth keeps a line within 100 columns.
const addedWidth = 87

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
	adds      string // when what is added
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
		{"states", strings.Join(topics, " ")},
		{"intents", strings.Join(slices.Sorted(maps.Keys(intentTopics)), " ")},
		{"adds", h.adds},
		{"ends", h.ends},
	}
	var b strings.Builder
	b.WriteString(s.paint.bold("A university, live: PostgreSQL → cdc → Kafka, as rows and as intents") + "\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "  %-9s %s\n", r[0], r[1])
	}
	fmt.Fprintf(&b, "\n%s", s.paint.dim(fmt.Sprintf("%-12s %s   %s %s %s", "read at",
		pad("table / who", tableWidth), pad("key / intent", keyWidth), pad("row / stream@version, data", valueWidth-1), "latency")))
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
	parts = append(parts, s.paint.intent(signIntent)+" intent")
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
	s.say("\n%s", strings.TrimSuffix(s.states(r)+s.intents(r)+s.views(r), "\n"))
	s.say("%d transactions committed, %d rolled back on purpose, %d overtaken by another; %d records read back%s",
		r.Transactions, r.Undone, r.Lost, seen, quantiles(latencies))
	if r.Added {
		s.say("The reaction has offered %d places that were freed; no application was changed for it.", r.Offers)
	}
	if r.Equal {
		s.say("%s", s.paint.good(fmt.Sprintf("Every state topic, compacted, is its table: key by key, column by column, at %s.", r.End)))
		s.say("%s", s.paint.good("Every intent is in its topic, once and in order, as the store has it; compaction removed none."))
		s.say("%s", s.paint.good("Every view is what a replay of all events gives."))
		return
	}
	for _, t := range r.Tables {
		s.different(t.Equal, t.Topic+" differs from table "+t.Table, t.fault(), t.Samples)
	}
	for _, i := range r.Intents {
		s.different(i.Equal, i.Topic+" differs from the events of the store", i.fault(), i.Samples)
	}
	for _, v := range r.Views {
		s.different(v.Equal, "view "+v.View+" differs from a replay of the events", v.fault(), v.Samples)
	}
}

func (s *screen) different(equal bool, what, fault string, samples []string) {
	if !equal {
		s.say("%s", s.paint.bad(what+": "+strings.Join(append([]string{fault}, samples...), "; ")))
	}
}

// states, intents and views are the result in columns.

func (s *screen) states(r *Result) string {
	g := grid{head: []string{"state topic", "records", "compacted", "live keys", "rows", "equal"}}
	for _, t := range r.Tables {
		g.add(s.paint, t.Equal, t.fault, t.Topic, number(t.Records), number(t.Compacted), number(int64(t.Keys)), number(t.Rows))
	}
	return g.text()
}

func (s *screen) intents(r *Result) string {
	g := grid{head: []string{"intent topic", "records", "compacted", "events", "positions", "all kept"}}
	for _, t := range r.Intents {
		positions := "dense"
		if t.Gaps > 0 {
			positions = number(t.Gaps) + " gaps"
		}
		g.add(s.paint, t.Equal, t.fault, t.Topic, number(t.Records), number(t.Compacted), number(t.Events), positions)
	}
	return g.text()
}

func (s *screen) views(r *Result) string {
	g := grid{head: []string{"view", "kept", "events", "rows", "equal to a replay"}}
	for _, v := range r.Views {
		g.add(s.paint, v.Equal, v.fault, v.View, string(v.Mode), number(v.Events), number(v.Rows))
	}
	return g.text()
}

// grid is a table on the screen, all but its first and last columns to the right.
type grid struct {
	head  []string
	lines [][]string
}

// add puts a line behind those before it; its last column is whether all is well.
func (g *grid) add(paint palette, equal bool, fault func() string, cells ...string) {
	last := paint.good("yes")
	if !equal {
		last = paint.bad("NO: " + fault())
	}
	g.lines = append(g.lines, append(cells, last))
}

// text is the grid and an empty line; "" without lines.
func (g *grid) text() string {
	if len(g.lines) == 0 {
		return ""
	}
	lines := append([][]string{g.head}, g.lines...)
	widths := make([]int, len(g.head)-1)
	for _, l := range lines {
		for i := range widths {
			widths[i] = max(widths[i], len(l[i]))
		}
	}
	var b strings.Builder
	for _, l := range lines {
		for i, width := range widths {
			if i == 0 {
				fmt.Fprintf(&b, "%-*s", width, l[i])
			} else {
				fmt.Fprintf(&b, "  %*s", width, l[i])
			}
		}
		fmt.Fprintf(&b, "  %s\n", l[len(l)-1])
	}
	return b.String() + "\n"
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
