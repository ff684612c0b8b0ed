package view

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// errTail says that more was appended than a switch applies while others wait.
var errTail = errors.New("more events came than can be applied while others wait")

// exchange is the transaction of a switch. Its locks, in the order of taking, which
// is that of Coordinator.distributed: the appends on their way to another database,
// the events, the rows of es.view, the tables of the view.
func (s *switching) exchange(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	here := s.parts[0].conn
	// From here on others wait. The server ends each statement in time; this ends
	// the rest, were it the network that is slow.
	ctx, cancel := context.WithTimeout(ctx, 4*s.options.LockTimeout)
	defer cancel()
	p, err := findPair(ctx, here, s.pair.next.name, true)
	if err != nil {
		return err
	}
	if !p.sameBuilds(s.pair) {
		return errFeedsChanged
	}
	if s.exclusive() {
		if err := s.number(ctx); err != nil {
			return err
		}
	}
	s.options.hook("locked")
	head, err := s.tail(ctx)
	if err != nil {
		return err
	}
	s.options.hook("tail")
	if err := s.moveTables(ctx); err != nil {
		return err
	}
	if err := s.writeStates(ctx, head); err != nil {
		return err
	}
	s.options.hook("moved")
	return s.commit(ctx)
}

func (p pair) sameBuilds(o pair) bool {
	return p.next.id == o.next.id && (p.live == nil) == (o.live == nil) && (p.live == nil || p.live.id == o.live.id)
}

// begin begins in every database, with bounded waits, and holds off appends where
// that is needed.
func (s *switching) begin(ctx context.Context) error {
	if err := s.holdBetween(ctx); err != nil {
		return err
	}
	for _, p := range s.parts {
		if _, err := p.conn.Exec(ctx, "begin isolation level read committed"); err != nil {
			return fmt.Errorf("begin in %s: %w", p.name, err)
		}
		if err := setLockTimeout(ctx, p.conn, s.options.LockTimeout); err != nil {
			return err
		}
		_, err := p.conn.Exec(ctx, `select set_config('statement_timeout', $1, true)`, fmt.Sprintf("%dms", 2*s.options.LockTimeout.Milliseconds()))
		if err != nil {
			return fmt.Errorf("set statement_timeout: %w", err)
		}
	}
	for _, p := range s.parts[1:] { // appends wait for it behind a decision
		if _, err := p.conn.Exec(ctx, `select pg_advisory_xact_lock($1)`, s.gid.key()); err != nil {
			return fmt.Errorf("lock in %s: %w", p.name, err)
		}
	}
	if s.exclusive() {
		if _, err := s.parts[0].conn.Exec(ctx, `lock table es.event in share row exclusive mode`); err != nil {
			return fmt.Errorf("hold appends off: %w", err)
		}
	}
	return nil
}

// holdBetween makes the appends that are on their way to another database come to
// their end, and holds off new ones until the connections are closed.
func (s *switching) holdBetween(ctx context.Context) error {
	held := map[string]bool{}
	for _, b := range []*buildRow{s.pair.live, &s.pair.next} {
		if b == nil || b.mode != intent.Inline || b.database == "" || held[b.database] {
			continue
		}
		held[b.database] = true
		if err := lockQuiet(ctx, s.place(*b).conn, quietKey(s.gid.store), s.options.LockTimeout); err != nil {
			return err
		}
	}
	return nil
}

// number waits, on another connection, until what was appended has positions. The
// first time takes as long as the daemon is behind; appends wait only for the time
// it may take.
func (s *switching) number(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, s.options.LockTimeout)
	defer cancel()
	conn, err := s.store.Pool().Acquire(bounded)
	if err != nil {
		return fmt.Errorf("wait until the events are numbered: %w", err)
	}
	defer conn.Release()
	if err := eventstore.Barrier(bounded, conn); err != nil {
		return fmt.Errorf("wait until the events are numbered: %w", err)
	}
	return nil
}

// tail applies the rest of the log to the new build, and returns its head.
func (s *switching) tail(ctx context.Context) (int64, error) {
	here, b := s.parts[0].conn, s.pair.next
	head, err := headOf(ctx, here)
	if err != nil {
		return 0, err
	}
	if b.database != "" {
		return head, s.tailThere(ctx, head)
	}
	var pos int64
	if err := here.QueryRow(ctx, `select pos from es.view where build = $1`, b.id).Scan(&pos); err != nil {
		return 0, fmt.Errorf("read the position of build %d: %w", b.id, err)
	}
	if head-pos > tailLimit {
		return 0, errTail
	}
	text := s.next.stepSQL(b.schema())
	for pos < head {
		if err := here.QueryRow(ctx, text, b.id, pos, head).Scan(&pos); err != nil {
			return 0, s.next.failure(err)
		}
	}
	return head, nil
}

func (s *switching) tailThere(ctx context.Context, head int64) error {
	here, there, b := s.parts[0].conn, s.place(s.pair.next).conn, s.pair.next
	var pos int64
	err := there.QueryRow(ctx, `select pos from es_remote.view where store = $1 and build = $2 for update`, [16]byte(s.gid.store), b.id).Scan(&pos)
	if err != nil {
		return fmt.Errorf("read the position of build %d in %s: %w", b.id, b.database, err)
	}
	if head-pos > tailLimit {
		return errTail
	}
	if _, err := s.next.ship(ctx, here, there, b.schema(), theLog, pos, head, func(int64) {}); err != nil {
		return err
	}
	_, err = there.Exec(ctx, `update es_remote.view set pos = greatest(pos, $3) where store = $1 and build = $2`, [16]byte(s.gid.store), b.id, head)
	if err != nil {
		return fmt.Errorf("write the position of build %d in %s: %w", b.id, b.database, err)
	}
	return nil
}

// moveTables drops the live table and puts the new one in its place, each in the
// database that holds it.
func (s *switching) moveTables(ctx context.Context) error {
	next := s.pair.next
	there := s.place(next).conn
	moved, err := movedBefore(ctx, there, next)
	if err != nil {
		return err
	}
	var grants []string
	if live := s.pair.live; live != nil && !(moved && live.database == next.database) {
		conn := s.place(*live).conn
		if _, err := conn.Exec(ctx, "lock table "+live.table()+" in access exclusive mode"); err != nil {
			return fmt.Errorf("lock table %s: %w", live.table(), err)
		}
		if live.database == next.database {
			if grants, err = grantsOf(ctx, conn, live.table(), next.table()); err != nil {
				return err
			}
		}
		if err := s.dropLive(ctx, conn, *live); err != nil {
			return err
		}
	}
	if moved {
		return nil
	}
	texts := []string{
		"alter table " + next.table() + " set schema views",
		"alter function " + next.schema() + ".apply set search_path = pg_catalog, views, pg_temp",
	}
	if grants == nil {
		grants, err = defaultGrants(ctx, there, "views."+intent.Quote(next.name))
	}
	if err != nil {
		return err
	}
	return run(ctx, there, append(texts, grants...))
}

// movedBefore says that a switch that was cut off between two databases has moved
// the table already.
func movedBefore(ctx context.Context, there querier, b buildRow) (bool, error) {
	if b.database == "" {
		return false, nil
	}
	var building, live *uint32
	err := there.QueryRow(ctx, `select to_regclass($1)::oid, to_regclass($2)::oid`, b.table(), "views."+intent.Quote(b.name)).Scan(&building, &live)
	if err != nil {
		return false, fmt.Errorf("look up table %s: %w", b.table(), err)
	}
	return building == nil && live != nil, nil
}

// dropLive drops the live build's table, and what else of it keeps nobody waiting.
func (s *switching) dropLive(ctx context.Context, conn querier, live buildRow) error {
	if _, err := conn.Exec(ctx, "drop table "+live.table()); err != nil {
		return dropError(live.name, err)
	}
	if live.database != "" {
		if _, err := conn.Exec(ctx, `delete from es_remote.view where store = $1 and build = $2`, [16]byte(s.gid.store), live.id); err != nil {
			return fmt.Errorf("write es_remote.view: %w", err)
		}
		return run(ctx, conn, []string{"drop schema if exists " + live.schema() + " cascade"})
	}
	if live.mode == intent.Inline {
		return nil // its trigger hangs on its function: see sweep
	}
	return run(ctx, conn, []string{"drop schema if exists " + live.schema() + " cascade"})
}

// writeStates makes the new build live in the store: es.view, and the triggers of
// inline builds.
func (s *switching) writeStates(ctx context.Context, head int64) error {
	here, next := s.parts[0].conn, s.pair.next
	if live := s.pair.live; live != nil {
		if err := s.disable(ctx, *live); err != nil {
			return err
		}
		if _, err := here.Exec(ctx, `update es.view set state = 'retired', error = null, since = now() where build = $1`, live.id); err != nil {
			return fmt.Errorf("write es.view: %w", err)
		}
	}
	var texts []string
	if next.mode == intent.Inline {
		if next.database != "" {
			texts = append(texts, "create schema if not exists "+next.schema()+" authorization es_view", "set local role es_view", s.next.guardSQL(next.schema()))
		} else {
			texts = append(texts, "set local role es_view", s.next.onEventSQL(next.schema(), "views"))
		}
		texts = append(texts, "revoke all on function "+next.schema()+".on_event from public", "reset role", s.next.triggerSQL(next.schema()))
	}
	if err := run(ctx, here, texts); err != nil {
		return err
	}
	_, err := here.Exec(ctx, `update es.view set state = 'live', pos = greatest(pos, $2), error = null, since = now() where build = $1`, next.id, head)
	if err != nil {
		return fmt.Errorf("write es.view: %w", err)
	}
	return nil
}

// commit commits in all databases.
func (s *switching) commit(ctx context.Context) error {
	if len(s.parts) == 1 {
		return commitOpen(ctx, s.parts[0])
	}
	err := s.takePrepared(ctx)
	if err == nil {
		return commitAll(ctx, s.gid, nil, s.parts, s.options.hook)
	}
	if !cdc.IsTerminal(err) || s.inlineElsewhere() {
		return err
	}
	for i := len(s.parts) - 1; i >= 0; i-- {
		if err := commitOpen(ctx, s.parts[i]); err != nil {
			return fmt.Errorf("in %s (if the switch was cut off, make it again): %w", s.parts[i].name, err)
		}
		s.options.hook(fmt.Sprintf("committed-%d", i))
	}
	return nil
}

// commitOpen commits, also where the time is up by then: whether it was committed
// would not be known.
func commitOpen(ctx context.Context, p openTx) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
	defer cancel()
	tag, err := p.conn.Exec(ctx, "commit")
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if tag.String() != "COMMIT" {
		return fmt.Errorf("commit: the server answered %s", tag)
	}
	return nil
}

func (s *switching) takePrepared(ctx context.Context) error {
	for _, p := range s.parts {
		if err := takesPrepared(ctx, p.conn, p.name); err != nil {
			return err
		}
	}
	return nil
}

func (s *switching) inlineElsewhere() bool {
	inline := func(b *buildRow) bool { return b != nil && b.mode == intent.Inline && b.database != "" }
	return inline(&s.pair.next) || inline(s.pair.live)
}

// sweepLimit is how long the cleaning up behind a switch may hold readers and
// writers of the events up, at a time.
const sweepLimit = 200 * time.Millisecond

// sweep drops what is left of retired builds: functions, and triggers of es.event,
// which are disabled. To drop a trigger takes a lock that waits for every reader of
// the events, while others queue behind it; so it is tried for a moment only, at
// every switch and drop, until it succeeds.
func sweep(ctx context.Context, store *eventstore.Store) error {
	rows, err := store.Pool().Query(ctx, `select n.nspname::text from pg_namespace n join es.view v on n.nspname = 'es_b' || v.build where v.state = 'retired'`)
	if err != nil {
		return fmt.Errorf("look for what is left of retired builds: %w", err)
	}
	schemas, err := collectText(rows)
	if err != nil {
		return fmt.Errorf("look for what is left of retired builds: %w", err)
	}
	for _, schema := range schemas {
		tx, err := store.Pool().Begin(ctx)
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		err = setLockTimeout(ctx, tx, sweepLimit)
		if err == nil {
			err = run(ctx, tx, []string{"drop trigger if exists " + schema + " on es.event", "drop schema if exists " + schema + " cascade"})
		}
		if err == nil {
			err = tx.Commit(ctx)
		}
		rollback(ctx, tx)
		if err != nil {
			return fmt.Errorf("drop schema %s of a retired build: %w", schema, err)
		}
	}
	return nil
}

// list joins names for a sentence.
func list(names []string) string { return strings.Join(names, ", ") }
