package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/child"
	"cdc/internal/pgserver"
)

// settings of PostgreSQL: nothing is synced, so that making the WAL is quick;
// reading it is not touched by that. Work that starts by itself is off.
var settings = map[string]string{
	"fsync":                 "off",
	"full_page_writes":      "off",
	"synchronous_commit":    "off",
	"autovacuum":            "off",
	"shared_buffers":        "256MB",
	"max_wal_size":          "16GB",
	"checkpoint_timeout":    "1h",
	"max_replication_slots": "200",
	"max_wal_senders":       "20",
}

// bench is everything that is running while it measures.
type bench struct {
	options
	log      io.Writer
	report   *report
	pg       *pgserver.Server
	recv     string // path of pg_recvlogical
	conn     *pgx.Conn
	url      string
	embedded []string // addresses
	apache   []string
	stops    []func() // what ends the servers, in the order in which they were started
}

// run measures what the options say; results go to out, progress to log.
func run(ctx context.Context, o options, out, log io.Writer) (err error) {
	b := &bench{options: o, log: log, report: newReport(o)}
	defer b.stop()
	if err := b.start(ctx); err != nil {
		return err
	}
	if err := b.memory(ctx); err != nil { // first: it warms up the broker's JVM
		return err
	}
	if len(b.readers) > 0 {
		if err := b.rounds(ctx); err != nil {
			return err
		}
	}
	return b.report.write(out)
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.log, format+"\n", args...) }

func (b *bench) start(ctx context.Context) (err error) {
	if len(b.readers) > 0 {
		if b.recv, err = findRecvlogical(ctx, b.major); err != nil {
			return err
		}
	}
	if b.profile != "" {
		if err := os.MkdirAll(b.profile, 0o755); err != nil {
			return fmt.Errorf("make directory for profiles: %w", err)
		}
	}
	b.say("starting PostgreSQL and the brokers")
	b.pg, err = pgserver.Start(ctx, pgserver.Options{Version: b.major, Settings: settings, Notice: b.log})
	if err != nil {
		return err
	}
	b.stops = append(b.stops, b.pg.Close)
	b.url = b.pg.URL("postgres")
	if b.conn, err = pgx.Connect(ctx, b.url); err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	b.stops = append(b.stops, func() { _ = b.conn.Close(context.WithoutCancel(ctx)) })
	addr, stop, err := startBroker()
	if err != nil {
		return err
	}
	b.embedded, b.stops = []string{addr}, append(b.stops, stop)
	if b.kafka != "" {
		addr, stop, err := cdctest.StartApache(ctx, b.kafka)
		if err != nil {
			return fmt.Errorf("%w (-kafka '' does without)", err)
		}
		b.apache, b.stops = []string{addr}, append(b.stops, stop)
	}
	return b.conn.QueryRow(ctx, `SELECT current_setting('server_version')`).Scan(&b.report.postgres)
}

func (b *bench) stop() {
	for _, f := range slices.Backward(b.stops) {
		f()
	}
}

// reader is one line of the table.
type reader struct {
	sink   string // "" is pg_recvlogical
	format string
}

func (r reader) String() string {
	if r.sink == "" {
		return "pg_recvlogical to /dev/null"
	}
	return "cdc, " + r.format + ", " + map[string]string{
		sinkDiscard: "discarded", sinkEmbedded: "embedded broker", sinkKafka: "Apache Kafka",
	}[r.sink]
}

// lines are the readers in the order of the table, pg_recvlogical first.
func (b *bench) lines() []reader {
	lines := []reader{{}}
	for _, s := range b.readers {
		for _, f := range b.formats {
			lines = append(lines, reader{sink: s, format: f})
		}
	}
	return lines
}

func (b *bench) brokers(sink string) []string {
	if sink == sinkKafka {
		return b.apache
	}
	return b.embedded
}

// baseSlot is where every slot of pg_recvlogical is copied from.
const baseSlot = "base"

// rounds reads one stretch of WAL with every reader in turn, several times over.
// Every run has a slot of its own from before that stretch: pg_recvlogical a
// copy of one, each pipeline the one it made, because its progress record goes
// with it.
func (b *bench) rounds(ctx context.Context) error {
	if err := createTable(ctx, b.conn, tableOrders); err != nil {
		return err
	}
	lines := b.lines()
	jobs := make(map[string]job)
	b.say("preparing %d slots", b.options.rounds*len(lines))
	for round := range b.options.rounds {
		for i, l := range lines[1:] {
			j := job{
				Name: fmt.Sprintf("%s_%d_%d", l.sink, i, round), URL: b.url, Table: tableOrders,
				Brokers: b.brokers(l.sink), Format: l.format, Discard: l.sink == sinkDiscard, Profile: b.profile,
			}
			if err := j.prepare(ctx); err != nil {
				return err
			}
			jobs[key(l, round)] = j
		}
	}
	if _, err := b.conn.Exec(ctx, `SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, baseSlot); err != nil {
		return fmt.Errorf("create slot: %w", err)
	}
	b.say("making %d changes", b.work.rows())
	until, err := b.work.apply(ctx, b.conn)
	if err != nil {
		return err
	}
	for round := range b.options.rounds {
		for i := range lines {
			l := lines[(i+round)%len(lines)] // nobody is always first
			j := jobs[key(l, round)]
			j.Rows, j.Until = b.work.rows(), until
			if err := b.read(ctx, l, round, j); err != nil {
				return err
			}
		}
	}
	return b.dropSlot(ctx, baseSlot)
}

func key(l reader, round int) string { return l.String() + " " + strconv.Itoa(round) }

// read does one run of one reader.
func (b *bench) read(ctx context.Context, l reader, round int, j job) error {
	var o outcome
	var err error
	if l.sink == "" {
		o, err = b.recvlogical(ctx, fmt.Sprintf("recv_%d", round), j.Until)
	} else {
		o, err = b.pipeline(ctx, j)
	}
	if err != nil {
		return err
	}
	b.report.add(l, round, b.work.rows(), o)
	b.say("round %d: %-36s %6.1f k rows/s, %.2f CPU-s per million", round+1, l, float64(b.work.rows())/o.Took.Seconds()/1000, perMillion(o.CPU, b.work.rows()))
	return nil
}

// pipeline does one run of cdc, looks at what it wrote and cleans up.
func (b *bench) pipeline(ctx context.Context, j job) (outcome, error) {
	o, err := measured(ctx, j)
	if err != nil {
		return o, err
	}
	if err := j.check(ctx, o); err != nil {
		return o, err
	}
	if !j.Copy {
		if err := b.dropSlot(ctx, j.Name); err != nil {
			return o, err
		}
	}
	return o, j.forget(ctx)
}

func (b *bench) dropSlot(ctx context.Context, name string) error {
	if _, err := b.conn.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, name); err != nil {
		return fmt.Errorf("drop slot %s: %w", name, err)
	}
	return nil
}

// findRecvlogical looks beside the server's programs, then on the PATH.
func findRecvlogical(ctx context.Context, version string) (string, error) {
	const name = "pg_recvlogical"
	programs, ok, err := pgserver.Find(ctx, "", version)
	if err != nil {
		return "", err
	}
	if ok {
		if path, err := exec.LookPath(filepath.Join(programs.Dir, name)); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", errors.New("pg_recvlogical is not installed: it is what cdc is measured against (Debian: apt-get install postgresql-client, and its folder in the PATH; Red Hat: dnf install postgresql)")
	}
	return path, nil
}

// recvlogical runs PostgreSQL's own client over TCP from a fresh copy of the slot.
func (b *bench) recvlogical(ctx context.Context, slot string, until cdc.LSN) (outcome, error) {
	if _, err := b.conn.Exec(ctx, `SELECT pg_copy_logical_replication_slot($1, $2)`, baseSlot, slot); err != nil {
		return outcome{}, fmt.Errorf("copy slot: %w", err)
	}
	cmd := exec.Command(b.recv, "-d", b.url, "-S", slot, "--start", "--no-loop", "-f", os.DevNull, "-E", until.String(),
		"-o", "proto_version=1", "-o", "publication_names="+tableOrders)
	log := child.NewLog(nil)
	cmd.Stdout, cmd.Stderr = log, log
	began := time.Now()
	p, err := child.Start(cmd, child.User{}, syscall.SIGKILL)
	if err != nil {
		return outcome{}, fmt.Errorf("run pg_recvlogical: %w", err)
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.KillTree()
		return outcome{}, context.Cause(ctx)
	}
	took := time.Since(began)
	if p.Err() != nil {
		return outcome{}, fmt.Errorf("run pg_recvlogical: %w\n%s", p.Err(), log.Tail())
	}
	o := outcome{Took: took, CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	return o, b.dropSlot(ctx, slot)
}

// memory streams one large transaction and copies one large table, each by a
// process whose peak of memory is its own.
func (b *bench) memory(ctx context.Context) error {
	if b.stream == 0 && b.copied == 0 {
		return nil
	}
	to := sinkEmbedded
	if b.apache != nil {
		to = sinkKafka
	}
	base := job{URL: b.url, Table: tableBig, Brokers: b.brokers(to), Format: b.formats[len(b.formats)-1], Profile: b.profile}
	if err := createTable(ctx, b.conn, tableBig); err != nil {
		return err
	}
	if b.stream > 0 {
		j := base
		j.Name = "transaction"
		if err := j.prepare(ctx); err != nil {
			return err
		}
		b.say("making a transaction of %d rows", b.stream)
		at, err := here(ctx, b.conn)
		if err != nil {
			return err
		}
		if err := fill(ctx, b.conn, tableBig, 1, b.stream); err != nil {
			return err
		}
		j.Rows, j.Until = b.stream, at+1
		if err := b.peak(ctx, "transaction", reader{to, j.Format}, j); err != nil {
			return err
		}
	}
	if b.copied == 0 {
		return nil
	}
	j := base
	j.Name, j.Copy, j.Rows = "copy", true, max(b.copied, b.stream)
	b.say("filling a table up to %d rows", j.Rows)
	if b.copied > b.stream {
		if err := fill(ctx, b.conn, tableBig, b.stream+1, b.copied); err != nil {
			return err
		}
	}
	return b.peak(ctx, "table copied", reader{to, j.Format}, j)
}

func (b *bench) peak(ctx context.Context, what string, l reader, j job) error {
	o, err := b.pipeline(ctx, j)
	if err != nil {
		return err
	}
	b.report.addPeak(what, l, j.Rows, o)
	b.say("%s: %d rows, %.1f k rows/s, peak RSS %.0f MB", what, j.Rows, float64(j.Rows)/o.Took.Seconds()/1000, float64(o.Peak)/1e6)
	return nil
}
