package source

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// snapshotSuffix makes the name of a snapshot's temporary slot. It is the same
	// for every instance, so two never copy the same tables at once.
	snapshotSuffix = "_snap"
	// besideSuffix makes the name of the temporary slot of a snapshot beside a
	// running pipeline; 8 random digits follow, so that any number of them may be
	// begun at once.
	besideSuffix = "_beside_"
	// lockTimeout bounds one wait for ACCESS SHARE. Whoever holds ACCESS EXCLUSIVE
	// for longer is rewriting the table; our other locks are let go meanwhile.
	lockTimeout = 10 * time.Second
	// lockAttempts bounds how often the locks are asked for.
	lockAttempts = 6
	// joinTimeout bounds the wait of the snapshot's other connections for the same
	// locks. One that waits has somebody before it who waits for our first lock:
	// Postgres sees no deadlock, since our sessions wait for each other in this
	// process alone, and everybody else waits behind all of them. Giving way ends it.
	joinTimeout = time.Second
	// slotAttempts and slotPause bound the wait for another instance's temporary
	// slot, or for the backend of one that was killed a moment ago.
	slotAttempts = 20
	slotPause    = 250 * time.Millisecond
)

// exporter is the replication connection whose transaction holds the snapshot,
// the tables' locks and, as long as it lives, the temporary slot.
type exporter struct {
	conn     *pgconn.PgConn
	slot     string // "": dropped again, the snapshot stays
	snapshot string // pg_export_snapshot
	lsn      cdc.LSN
	xid      uint32 // low 32 bits of the snapshot's xmin: all transactions below are in it
	began    int64  // microseconds since 1970
	tables   []cdc.Table
}

// snapshotSlot names the temporary slot.
func snapshotSlot(slot string) string { return suffixed(slot, snapshotSuffix) }

// besideSlot names one that nobody else has.
func besideSlot(slot string) string {
	return suffixed(slot, fmt.Sprintf("%s%08x", besideSuffix, rand.Uint32()))
}

func suffixed(slot, suffix string) string {
	const longest = 63 // NAMEDATALEN-1
	return slot[:min(len(slot), longest-len(suffix))] + suffix
}

// openExporter locks the tables and creates the temporary slot with its
// snapshot, in that order: a rewrite between the snapshot and the lock would
// leave it reading an empty table.
func (s *Source) openExporter(ctx context.Context, tables []cdc.Table, slot string) (*exporter, error) {
	locks, slots := 0, 0
	for {
		ex, err := s.attemptExport(ctx, tables, slot)
		if err == nil {
			return ex, nil
		}
		exists := new(slotExistsError)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.As(err, &exists):
			if slots++; slots == slotAttempts {
				return nil, errors.Join(&ErrSlotActive{Slot: exists.name, PID: s.holder(ctx, exists.name)},
					fmt.Errorf("another snapshot is being taken: %w", err))
			}
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(slotPause):
			}
		case errors.Is(err, errLocked):
			if locks++; locks == lockAttempts {
				return nil, err
			}
		default:
			return nil, err
		}
	}
}

var errLocked = errors.New("a table is locked")

func (s *Source) holder(ctx context.Context, slot string) (pid int) {
	_ = s.retrySQL(ctx, func(c *pgx.Conn) error {
		found, _, err := readSlot(ctx, c, slot)
		pid = found.ActivePID
		return err
	})
	return pid
}

func (s *Source) attemptExport(ctx context.Context, tables []cdc.Table, slot string) (_ *exporter, err error) {
	conn, err := connectReplication(ctx, s.cfg.URL, replicationOptions{})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			closeConn(conn)
		}
	}()
	patience, err := s.beginPatient(ctx, conn)
	if err != nil {
		return nil, err
	}
	if err := s.lockTables(ctx, conn, tables, lockTimeout); err != nil {
		return nil, err
	}
	if err := conn.Exec(ctx, "SET LOCAL lock_timeout = "+quoteLiteral(patience)).Close(); err != nil {
		return nil, fmt.Errorf("prepare connection to %s: %w", s.target, err)
	}
	ex := &exporter{conn: conn, slot: slot, tables: tables}
	ex.lsn, err = s.createSlot(ctx, conn, newSlot{name: ex.slot, temporary: true, snapshot: true})
	if err != nil {
		return nil, err
	}
	results, err := conn.Exec(ctx, `SELECT pg_export_snapshot(), (pg_snapshot_xmin(pg_current_snapshot())::text::numeric % 4294967296)::text,
		(extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text`).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("export snapshot of %s: %w", s.target, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 3 {
		return nil, fmt.Errorf("export snapshot of %s: unexpected answer", s.target)
	}
	row := results[0].Rows[0]
	ex.snapshot = string(row[0])
	xid, errX := strconv.ParseUint(string(row[1]), 10, 32)
	began, errT := strconv.ParseInt(string(row[2]), 10, 64)
	if err := errors.Join(errX, errT); err != nil {
		return nil, fmt.Errorf("export snapshot of %s: %w", s.target, err)
	}
	ex.xid, ex.began = uint32(xid), began
	return ex, nil
}

// lockTables takes ACCESS SHARE on every table and leaf, which keeps out what
// would rewrite or drop them. A partitioned root's lock takes in its tree; ONLY
// elsewhere, because inheritance children are captured as tables of their own.
func (s *Source) lockTables(ctx context.Context, conn *pgconn.PgConn, tables []cdc.Table, timeout time.Duration) error {
	if len(tables) == 0 {
		return nil
	}
	stop := s.watch(ctx, conn.PID(), "ACCESS SHARE lock of the snapshot")
	err := conn.Exec(ctx, lockSQL(tables, timeout)).Close()
	blocker := stop()
	switch sqlState(err) {
	case codeLockTimeout:
		if blocker == "" {
			blocker = "an unknown session"
		}
		return fmt.Errorf("lock %d tables of %s: %w by %s: %w", len(tables), s.target, errLocked, blocker, err)
	case codeInsufficientPrivilege:
		return cdc.Terminal("select-rights", fmt.Sprintf("GRANT SELECT ON the table the message names TO %s;", s.role()),
			"lock tables of %s: %w", s.target, err)
	}
	if err != nil {
		return fmt.Errorf("lock tables of %s: %w", s.target, err)
	}
	return nil
}

func lockSQL(tables []cdc.Table, timeout time.Duration) string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = quote(t.Namespace, t.Name)
		if !t.Partition {
			names[i] = "ONLY " + names[i]
		}
	}
	return fmt.Sprintf("SET LOCAL lock_timeout = %d; LOCK TABLE %s IN ACCESS SHARE MODE", timeout.Milliseconds(), strings.Join(names, ", "))
}

// hold waits until ctx ends or the connection breaks, and returns the latter's
// error: nothing is expected from the server meanwhile.
func (ex *exporter) hold(ctx context.Context) error {
	for {
		err := ex.conn.WaitForNotification(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
	}
}

// dropSlot drops the temporary slot and keeps the snapshot, which the transaction
// holds by itself: the server need not keep WAL for it any more.
func (ex *exporter) dropSlot(ctx context.Context) error {
	if err := ex.conn.Exec(ctx, "DROP_REPLICATION_SLOT "+quote(ex.slot)).Close(); err != nil {
		return fmt.Errorf("drop temporary slot %q: %w", ex.slot, err)
	}
	ex.slot = ""
	return nil
}

// close ends the transaction and drops the temporary slot. Whatever fails, the
// end of the connection does both.
func (ex *exporter) close() {
	if !ex.conn.IsClosed() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := ex.conn.Exec(ctx, "ROLLBACK").Close(); err == nil && ex.slot != "" {
			_ = ex.conn.Exec(ctx, "DROP_REPLICATION_SLOT "+quote(ex.slot)).Close()
		}
	}
	closeConn(ex.conn)
	select {
	case <-ex.conn.CleanupDone():
	case <-time.After(closeTimeout):
	}
}

// checkReadable refuses what the copy would fail on hours later, or never show:
// missing rights, row level security, no room for that many slots. Whether the
// permanent slot exists is Finish's business: tables that join a stream are copied
// beside it.
func (s *Source) checkReadable(ctx context.Context, tables []cdc.Table, slots int) error {
	return s.retrySQL(ctx, func(c *pgx.Conn) error {
		if err := s.slotsFree(ctx, c, slots); err != nil {
			return err
		}
		problems, err := s.readProblems(ctx, c, tables)
		if err != nil {
			return err
		}
		return problems.err()
	})
}

// slotsFree makes sure of two, the temporary slot and, while it is still there,
// its permanent copy, unless that is there already; or of the temporary one alone.
func (s *Source) slotsFree(ctx context.Context, c *pgx.Conn, slots int) error {
	var used, own, limit int
	err := c.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE slot_name = $1), current_setting('max_replication_slots')::int
		FROM pg_replication_slots`, s.cfg.Slot).Scan(&used, &own, &limit)
	if err != nil {
		return fmt.Errorf("count replication slots: %w", err)
	}
	if needed := max(slots-own, 1); limit-used < needed {
		return cdc.Terminal("slots-exhausted", fmt.Sprintf("ALTER SYSTEM SET max_replication_slots = %d; -- then restart Postgres; or drop slots that nobody reads", used+needed),
			"%s has %d of max_replication_slots = %d in use, a snapshot needs %d more", s.target, used, limit, needed)
	}
	return nil
}

// readProblems lists tables whose rows the role cannot read, or not all of.
func (s *Source) readProblems(ctx context.Context, c *pgx.Conn, tables []cdc.Table) (faults, error) {
	oids := make([]uint32, len(tables))
	byOID := map[uint32]cdc.Table{}
	for i, t := range tables {
		oids[i], byOID[t.OID] = t.OID, t
	}
	rows, err := c.Query(ctx, `SELECT c.oid, has_schema_privilege(n.oid, 'USAGE'), has_table_privilege(c.oid, 'SELECT'), row_security_active(c.oid)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY($1::oid[])`, oids)
	if err != nil {
		return nil, fmt.Errorf("read privileges: %w", err)
	}
	var found faults
	var oid uint32
	var usage, sel, rls bool
	_, err = pgx.ForEachRow(rows, []any{&oid, &usage, &sel, &rls}, func() error {
		t := byOID[oid]
		if !usage {
			found = append(found, fault{"select-rights", fmt.Sprintf("no USAGE on schema %s of %s", t.Namespace, t.FullName()),
				fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s;", quote(t.Namespace), s.role())})
		}
		if !sel {
			found = append(found, fault{"select-rights", fmt.Sprintf("no SELECT on %s, which the snapshot reads", t.FullName()),
				fmt.Sprintf("GRANT SELECT ON %s TO %s;", quote(t.Namespace, t.Name), s.role())})
		}
		if rls {
			found = append(found, s.rowSecurityFault(t.FullName()))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read privileges: %w", err)
	}
	return found, nil
}

func (s *Source) rowSecurityFault(table string) fault {
	return fault{"row-security", fmt.Sprintf("row level security of %s hides rows from this role, while the stream carries all of them", table),
		fmt.Sprintf("ALTER ROLE %s BYPASSRLS;", s.role())}
}

// role is the user of the connection as an SQL identifier.
func (s *Source) role() string {
	cfg, err := parseURL(s.cfg.URL)
	if err != nil || cfg.User == "" {
		return "…"
	}
	return quote(cfg.User)
}
