package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cdc/internal/cdctest"
)

const (
	// progressLimit bounds the wait until everything is confirmed once all is
	// well again. Reaching it is a failure.
	progressLimit = 3 * time.Minute
	// seedLimit bounds everything else that a seed does.
	seedLimit = 10 * time.Minute
	// memoryBound is what one process may take, the broker inside it included: the
	// configured memory is a few MiB, the rest is the program itself.
	memoryBound = 400 << 10 // kB
)

// result is what came of a seed.
type result struct {
	plan       plan
	violations []string
	notes      []string
	logs       string
	took       time.Duration
	memory     int // kB
	changes    int // audited
	records    int
	samples    int
	hits       int // fail points that killed
	fenced     int // instances that found themselves replaced
	copies     int
	committed  int64
	phases     string
}

func (r *result) failed() bool { return len(r.violations) > 0 }

// phase notes how long a part of the seed took.
func (r *result) phase(name string, since time.Time) {
	r.phases += fmt.Sprintf("%s %v; ", name, time.Since(since).Round(time.Millisecond))
}

func (r *result) violate(format string, args ...any) {
	r.violations = append(r.violations, fmt.Sprintf(format, args...))
}

var names atomic.Int64

// seed is one run of a plan.
type seed struct {
	plan
	*result
	lane     *lane
	broker   *broker
	name     string // of database, pipeline, slot, publication
	url      string
	db       *database
	brokers  []string
	embedded string // directory of the broker inside cdc
	observer *cdctest.Observer
	crew     *crew
	commits  *commits
	sampler  *sampler
	strict   int64 // audit.log.seq: what is behind it must be streamed
}

// run runs a plan. An error is one of this program's own means, not a finding.
func (l *lane) run(ctx context.Context, p plan) (_ *result, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, seedLimit, errors.New("the seed took too long"))
	defer cancel()
	s := &seed{plan: p, result: &result{plan: p}, lane: l, commits: newCommits()}
	s.name = fmt.Sprintf("s%d_%d", p.seed, names.Add(1))
	began := time.Now()
	if s.broker, err = l.broker(p.kafka); err != nil {
		return nil, err
	}
	if err := l.heal(ctx, s.broker); err != nil {
		return nil, err
	}
	dir, remove, err := scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	s.embedded, remove, err = l.embeddedDir(s.name, dir)
	if err != nil {
		return nil, err
	}
	defer remove()
	if err := s.prepare(ctx, dir); err != nil {
		return nil, err
	}
	defer func() {
		began := time.Now()
		err = errors.Join(err, s.clean())
		s.phase("cleaned", began)
	}()
	s.phase("prepared", began)
	err = s.live(ctx)
	s.took, s.memory, s.logs = time.Since(began), s.crew.memory(), s.crew.logs(4)
	s.hits, s.fenced = s.crew.hits, s.crew.fenced
	return s.result, err
}

// heal ends every fault of servers and network.
func (l *lane) heal(ctx context.Context, b *broker) error {
	if err := l.free(); err != nil {
		return err
	}
	l.pgProxy.Heal()
	if b != nil {
		b.proxy.Heal()
	}
	return l.awaitPostgres(ctx)
}

// prepare makes the database and everything around cdc.
func (s *seed) prepare(ctx context.Context, dir string) error {
	if _, err := s.lane.admin.query(ctx, "CREATE DATABASE "+s.name); err != nil {
		return err
	}
	s.url = s.lane.pg.URL(s.name)
	s.db = &database{url: s.url}
	if _, err := s.db.query(ctx, strings.Join(s.plan.schema(), ";\n")); err != nil {
		return err
	}
	proxied, err := s.lane.proxied(s.name)
	if err != nil {
		return err
	}
	kafka := ""
	if s.broker == nil {
		listen, err := listener()
		if err != nil {
			return err
		}
		s.brokers = []string{listen}
		kafka = fmt.Sprintf("{embedded: {dir: %q, listen: %q}}", s.embedded, listen)
	} else {
		s.brokers = []string{s.broker.proxy.Addr}
		kafka = fmt.Sprintf("{brokers: [%q]}", s.broker.proxy.Addr)
	}
	s.observer = cdctest.NewObserver(s.brokers...)
	clock, err := newClock(dir)
	if err != nil {
		return err
	}
	s.crew = &crew{program: s.lane.program, dir: dir, clock: clock, over: map[*instance]bool{}, yaml: func(admin string) string {
		return fmt.Sprintf(`postgres: {url: %q}
kafka: %s
admin: {listen: %q}
log: {level: debug}
pipelines:
  %s:
    tables: ["public.*"]
    topic: "%s.{table}"
    partitions: %d
    compression: %s
    memory: %dMiB
    snapshot: {workers: %d}
`, proxied, kafka, admin, s.name, s.name, s.config.partitions, s.config.compression, s.config.memory, s.config.workers)
	}}
	return nil
}

func (s *seed) topic(t table) string { return s.name + "." + t.name }

func (s *seed) topics() []string {
	all := make([]string, len(tables))
	for i, t := range tables {
		all[i] = s.topic(t)
	}
	return all
}

// live is the seed itself: workload and faults, then quiet, then the check.
func (s *seed) live(ctx context.Context) error {
	began := time.Now()
	if _, err := s.crew.start(s.plan.first()); err != nil {
		return err
	}
	n := &nemesis{lane: s.lane, crew: s.crew, broker: s.broker, address: s.brokers[0], pipeline: s.name, db: s.db}
	if !s.early {
		if !n.awaitFirst(ctx) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			s.violations = append(s.violations, s.crew.ended()...)
			s.violate("no progress: the first copy was not done after %v", progressLimit)
			return nil
		}
		rows, err := s.db.query(ctx, "SELECT coalesce(max(seq), 0) FROM audit.log")
		if err != nil {
			return err
		}
		if s.strict, err = strconv.ParseInt(rows[0][0], 10, 64); err != nil {
			return err
		}
	} else {
		s.strict = 1<<63 - 1
	}
	s.phase("first copy", began)
	began = time.Now()
	s.sampler = startSampler(s)
	w := startWorkload(ctx, s.url, s.plan, s.commits)
	n.steps = w.done.Load
	over := make(chan struct{})
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		failed = w.wait()
		close(over)
	})
	err := n.run(ctx, s.plan, over)
	wg.Wait()
	s.notes, s.copies, s.committed = n.notes, n.copies, w.committed.Load()
	if err = errors.Join(err, failed); err != nil {
		s.sampler.stop()
		return err
	}
	s.phase("workload and faults", began)
	return s.judge(ctx)
}

// awaitFirst waits until the first copy is done and the slot read.
func (n *nemesis) awaitFirst(ctx context.Context) bool {
	for limit := time.Now().Add(progressLimit); time.Now().Before(limit) && len(n.crew.ended()) == 0 && ctx.Err() == nil; {
		if n.awaitStream(ctx) {
			return true
		}
	}
	return false
}

// judge waits until everything is confirmed, stops cdc and checks.
func (s *seed) judge(ctx context.Context) error {
	if err := errors.Join(s.lane.heal(ctx, s.broker), s.crew.clock.set(0)); err != nil {
		s.sampler.stop()
		return err
	}
	began := time.Now()
	caughtUp, err := s.quiet(ctx)
	s.phase("quiet", began)
	began = time.Now()
	s.sampler.stop()
	s.samples = len(s.sampler.samples)
	s.violations = append(s.violations, s.crew.ended()...)
	if err != nil || !caughtUp {
		return err
	}
	got, err := s.finish(ctx)
	if err != nil {
		return err
	}
	s.phase("stopped and read", began)
	began = time.Now()
	defer func() { s.phase("checked", began) }()
	if m := s.crew.memory(); m > memoryBound {
		s.violate("memory: a process took %d MiB, the bound is %d", m>>10, memoryBound>>10)
	}
	if err := s.leaks(ctx); err != nil {
		return err
	}
	if err := s.compare(ctx, got, check); err != nil || !s.compact || s.failed() {
		return err
	}
	return s.compacted(ctx)
}

// finish stops cdc and reads the topics.
func (s *seed) finish(ctx context.Context) (got map[string][]cdctest.Record, err error) {
	if s.broker == nil { // it ends with cdc
		if got, err = s.observer.Read(ctx, s.topics()...); err != nil {
			return nil, err
		}
	}
	if err := s.crew.stop(); err != nil {
		s.violate("stop: %v", err)
	}
	if s.broker != nil {
		got, err = s.observer.Read(ctx, s.topics()...)
	}
	return got, err
}

// quiet commits a last change, and waits until the slot is confirmed behind it.
func (s *seed) quiet(ctx context.Context) (bool, error) {
	rows, err := s.db.query(ctx, "BEGIN; INSERT INTO journal(id, v) VALUES (0, 'last') ON CONFLICT (id) DO UPDATE SET v = excluded.v; SELECT pg_current_wal_insert_lsn(); COMMIT")
	if err != nil {
		return false, err
	}
	end, err := parseLSN(rows[0][0])
	if err != nil {
		return false, err
	}
	confirmed := lsn(0)
	for limit := time.Now().Add(progressLimit); time.Now().Before(limit); {
		if confirmed, err = s.confirmed(ctx); err == nil && confirmed > end {
			return true, nil
		}
		if len(s.crew.ended()) > 0 {
			return false, nil
		}
		if err := sleep(ctx, again); err != nil {
			return false, err
		}
	}
	s.violate("no progress: %v after all was well again the slot is confirmed to %s, want behind %s", progressLimit, confirmed, end)
	return false, nil
}

// confirmed is the slot's position, 0 where there is none.
func (s *seed) confirmed(ctx context.Context) (lsn, error) {
	rows, err := s.db.query(ctx, "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '"+s.name+"' AND confirmed_flush_lsn IS NOT NULL")
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	return parseLSN(rows[0][0])
}

// leaks looks for what cdc has left behind in Postgres.
func (s *seed) leaks(ctx context.Context) error {
	const backends = "SELECT pid || ' ' || backend_type || ' ' || application_name FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type IN ('client backend', 'walsender')"
	var rows [][]string
	var err error
	for limit := time.Now().Add(termLimit); time.Now().Before(limit); {
		if rows, err = s.db.query(ctx, backends); err != nil {
			return err
		}
		if len(rows) == 0 {
			break
		}
		if err := sleep(ctx, again); err != nil {
			return err
		}
	}
	for _, r := range rows {
		s.violate("leak: backend %s is left after cdc has ended", r[0])
	}
	if rows, err = s.db.query(ctx, "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() AND (slot_name <> '"+s.name+"' OR active)"); err != nil {
		return err
	}
	for _, r := range rows {
		s.violate("leak: slot %s is left, or still read, after cdc has ended", r[0])
	}
	return nil
}

// clean removes what the seed made.
func (s *seed) clean() error {
	ctx, cancel := context.WithTimeout(context.Background(), seedLimit)
	defer cancel()
	s.crew.close()
	if err := s.lane.heal(ctx, s.broker); err != nil {
		return err
	}
	if s.broker != nil {
		if err := s.observer.DeleteTopics(ctx, append(s.topics(), "_cdc.progress."+s.name)...); err != nil {
			return err
		}
	}
	s.observer.Close()
	s.db.close()
	for _, sql := range []string{
		"SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = '" + s.name + "'",
		"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '" + s.name + "'",
		"DROP DATABASE " + s.name + " WITH (FORCE)",
	} {
		if _, err := s.lane.admin.query(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}
