package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"cdc/internal/cdc"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	plugin = "pgoutput"
	// slotPatience bounds how long the creation of a slot waits for one older
	// transaction. The wait costs nothing and starting over would begin it anew, so
	// it is long; the server notices by connectionCheck when we are gone.
	slotPatience = "1h"
	// slotPatienceUnchecked is the bound where the server cannot notice that
	// (PostgreSQL 13, or not on Linux): a killed process leaves a backend that long.
	slotPatienceUnchecked = "2min"
	// connectionCheck is how soon a waiting backend finds its client gone. Without
	// it the creation of a slot ignores a closed socket until its blocker ends.
	connectionCheck = "2s"
)

// slotQuery reads a slot; columns that only newer servers have come through the
// row's JSON form.
const slotQuery = `
	SELECT coalesce(plugin, ''), coalesce(database, ''), active, coalesce(active_pid, 0), temporary,
		coalesce((j ->> 'two_phase')::bool, false), coalesce((j ->> 'failover')::bool, false),
		coalesce(confirmed_flush_lsn, '0/0')::text, coalesce(restart_lsn, '0/0')::text, coalesce(wal_status, ''),
		coalesce(j ->> 'invalidation_reason', CASE WHEN (j ->> 'conflicting')::bool THEN 'conflicting' ELSE '' END),
		greatest(coalesce(pg_wal_lsn_diff(here, restart_lsn), 0), 0)::bigint, coalesce(safe_wal_size, -1)
	FROM (SELECT s.*, to_jsonb(s) AS j,
			CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS here
		FROM pg_replication_slots s WHERE slot_name = $1) s`

// Slot reads the state of the slot; false where it does not exist.
func (s *Source) Slot(ctx context.Context) (cdc.Slot, bool, error) {
	var slot cdc.Slot
	found := false
	err := s.retrySQL(ctx, func(c *pgx.Conn) (err error) {
		slot, found, err = readSlot(ctx, c, s.cfg.Slot)
		return err
	})
	if err != nil {
		return cdc.Slot{}, false, fmt.Errorf("read slot %q of %s: %w", s.cfg.Slot, s.target, err)
	}
	return slot, found, nil
}

func readSlot(ctx context.Context, c *pgx.Conn, name string) (cdc.Slot, bool, error) {
	slot := cdc.Slot{Name: name}
	var confirmed, restart string
	err := c.QueryRow(ctx, slotQuery, name).Scan(&slot.Plugin, &slot.Database, &slot.Active, &slot.ActivePID,
		&slot.Temporary, &slot.TwoPhase, &slot.Failover, &confirmed, &restart, &slot.WALStatus, &slot.Invalidation,
		&slot.Retained, &slot.Safe)
	if errors.Is(err, pgx.ErrNoRows) {
		return cdc.Slot{}, false, nil
	}
	if err != nil {
		return cdc.Slot{}, false, fmt.Errorf("read pg_replication_slots: %w", err)
	}
	if slot.Confirmed, err = cdc.ParseLSN(confirmed); err != nil {
		return cdc.Slot{}, false, err
	}
	if slot.Restart, err = cdc.ParseLSN(restart); err != nil {
		return cdc.Slot{}, false, err
	}
	return slot, true, nil
}

// CreateSlot makes the permanent slot and returns its consistent point. The
// publication must exist: a slot cannot read changes from before it. It blocks
// until every older transaction of the server has ended; Waiting tells which one
// holds it up. When ctx ends it returns at once and the slot is not left behind.
func (s *Source) CreateSlot(ctx context.Context) (cdc.LSN, error) {
	conn, err := connectReplication(ctx, s.cfg.URL, replicationOptions{})
	if err != nil {
		return 0, err
	}
	defer closeConn(conn)
	// Inside a transaction, though it is not transactional, because its begin arms
	// the server's check for a lost client.
	if _, err := s.beginPatient(ctx, conn); err != nil {
		return 0, err
	}
	slot := newSlot{name: s.cfg.Slot, failover: s.cfg.Failover}
	return s.createSlot(ctx, conn, slot)
}

// beginPatient opens the transaction in which a slot is created, bounded in its
// waits (patience, a lock_timeout) and checked for a client that is gone.
func (s *Source) beginPatient(ctx context.Context, conn *pgconn.PgConn) (patience string, err error) {
	patience = slotPatience
	err = conn.Exec(ctx, "SET client_connection_check_interval = '"+connectionCheck+"'").Close()
	if sqlState(err) != "" {
		patience = slotPatienceUnchecked
	} else if err != nil {
		return "", fmt.Errorf("prepare connection to %s: %w", s.target, err)
	}
	err = conn.Exec(ctx, "SET lock_timeout = '"+patience+"'; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").Close()
	if err != nil {
		return "", fmt.Errorf("begin snapshot transaction at %s: %w", s.target, err)
	}
	return patience, nil
}

// newSlot is a slot to be created.
type newSlot struct {
	name      string
	temporary bool
	snapshot  bool // its snapshot becomes that of the open transaction
	failover  bool
}

// sql writes the command in the grammar of the server's version: options in
// parentheses came with 15, FAILOVER with 17.
func (n newSlot) sql(version int) string {
	var b strings.Builder
	b.WriteString("CREATE_REPLICATION_SLOT " + quote(n.name))
	if n.temporary {
		b.WriteString(" TEMPORARY")
	}
	b.WriteString(" LOGICAL " + plugin)
	switch {
	case version < 150000 && n.snapshot:
		b.WriteString(" USE_SNAPSHOT")
	case version < 150000:
		b.WriteString(" NOEXPORT_SNAPSHOT")
	case n.snapshot:
		b.WriteString(" (SNAPSHOT 'use'")
	default:
		b.WriteString(" (SNAPSHOT 'nothing'")
	}
	if version >= 150000 {
		if n.failover && version >= 170000 {
			b.WriteString(", FAILOVER true")
		}
		b.WriteString(")")
	}
	return b.String()
}

// createSlot runs CREATE_REPLICATION_SLOT and reports what it waits for.
func (s *Source) createSlot(ctx context.Context, conn *pgconn.PgConn, n newSlot) (cdc.LSN, error) {
	if err := checkSlotName(n.name); err != nil {
		return 0, err
	}
	stop := s.watch(ctx, conn.PID(), fmt.Sprintf("creation of slot %q", n.name))
	results, err := conn.Exec(ctx, n.sql(s.version)).ReadAll()
	blocker := stop()
	if err != nil {
		return 0, s.slotError(n.name, blocker, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 2 {
		return 0, fmt.Errorf("create slot %q of %s: the server's answer has no consistent point", n.name, s.target)
	}
	lsn, err := cdc.ParseLSN(string(results[0].Rows[0][1]))
	if err != nil {
		return 0, fmt.Errorf("create slot %q of %s: %w", n.name, s.target, err)
	}
	return lsn, nil
}

func (s *Source) slotError(name, blocker string, err error) error {
	err = fmt.Errorf("create slot %q of %s: %w", name, s.target, err)
	switch sqlState(err) {
	case codeLockTimeout:
		if blocker != "" {
			return fmt.Errorf("%w: older transactions must end first; waited for %s", err, blocker)
		}
	case codeDuplicateObject:
		return &slotExistsError{name, err}
	case codeTooManySlots:
		return cdc.Terminal("slots-exhausted", "Raise max_replication_slots (a restart of Postgres), or drop a slot that nobody reads: SELECT slot_name, active, restart_lsn FROM pg_replication_slots;", "%w", err)
	case codeInsufficientPrivilege:
		return cdc.Terminal("replication-rights", "ALTER ROLE … REPLICATION; -- on Amazon RDS: GRANT rds_replication TO …;", "%w", err)
	case codeNotInState:
		return cdc.Terminal("wal-level", "ALTER SYSTEM SET wal_level = 'logical'; -- then restart Postgres", "%w", err)
	}
	return err
}

// slotExistsError says that a slot of the name is there already.
type slotExistsError struct {
	name string
	err  error
}

func (e *slotExistsError) Error() string { return e.err.Error() }
func (e *slotExistsError) Unwrap() error { return e.err }

// DropSlot drops the slot, and with it the position in the stream. A slot that
// does not exist is no error; one in use is ErrSlotActive.
func (s *Source) DropSlot(ctx context.Context) error {
	err := s.withSQL(ctx, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, s.cfg.Slot)
		switch sqlState(err) {
		case codeUndefinedObject:
			return nil
		case codeObjectInUse:
			slot, _, readErr := readSlot(ctx, c, s.cfg.Slot)
			return errors.Join(&ErrSlotActive{Slot: s.cfg.Slot, PID: slot.ActivePID}, readErr)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("drop slot %q of %s: %w", s.cfg.Slot, s.target, err)
	}
	return nil
}

// TimelineSwitch returns the LSN at which an older timeline of the server ended
// and its successor began. A position above it belongs to a history this server
// does not have. A timeline that is not among its ancestors is a TerminalError;
// of the current one the result is 0.
func (s *Source) TimelineSwitch(ctx context.Context, timeline uint32) (cdc.LSN, error) {
	conn, err := connectReplication(ctx, s.cfg.URL, replicationOptions{})
	if err != nil {
		return 0, err
	}
	defer closeConn(conn)
	id, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return 0, fmt.Errorf("identify system %s: %w", s.target, err)
	}
	if uint32(id.Timeline) == timeline {
		return 0, nil
	}
	var history []byte
	if id.Timeline > 1 { // the first has no history file, asking for it is an error
		results, err := conn.Exec(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", id.Timeline)).ReadAll()
		if err != nil {
			return 0, fmt.Errorf("read history of timeline %d of %s: %w", id.Timeline, s.target, err)
		}
		if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 2 {
			return 0, fmt.Errorf("read history of timeline %d of %s: unexpected answer", id.Timeline, s.target)
		}
		history = results[0].Rows[0][1]
	}
	end, ok, err := timelineEnd(history, timeline)
	if err != nil {
		return 0, fmt.Errorf("read history of timeline %d of %s: %w", id.Timeline, s.target, err)
	}
	if !ok {
		return 0, cdc.Terminal("timeline", "Check that the connection leads to the right server; if it was restored on purpose, snapshot again.",
			"timeline %d is not in the history of %s, which is on timeline %d", timeline, s.target, id.Timeline)
	}
	return end, nil
}

// timelineEnd finds the end of a timeline in a history file: a line per
// ancestor, "timeline TAB switch LSN TAB reason", '#' for comments.
func timelineEnd(history []byte, timeline uint32) (cdc.LSN, bool, error) {
	for line := range bytes.Lines(history) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		tli, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil || len(fields) < 2 {
			return 0, false, fmt.Errorf("line %q: want timeline and LSN", bytes.TrimSpace(line))
		}
		if uint32(tli) == timeline {
			lsn, err := cdc.ParseLSN(fields[1])
			return lsn, err == nil, err
		}
	}
	return 0, false, nil
}
