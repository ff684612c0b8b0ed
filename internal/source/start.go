package source

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"cdc/internal/cdc"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrSlotActive says that another walsender streams from the slot: a healthy
// instance, or one whose connection the server has not given up yet. Try again
// after a while.
type ErrSlotActive struct {
	Slot string
	PID  int // backend that holds it, 0 when it let go meanwhile
}

func (e *ErrSlotActive) Error() string {
	return fmt.Sprintf("replication slot %q is in use by backend %d", e.Slot, e.PID)
}

// ErrInternal marks an error of the server's own (SQLSTATE class XX): WAL that it
// cannot decode is one. It may pass; where it comes again at the same place it will not.
var ErrInternal = errors.New("the server failed internally")

// SQLSTATEs that decide what an error of the walsender means.
const (
	codeObjectInUse     = "55006"
	codeNotInState      = "55000" // the slot is lost, or the server is not set up for it
	codeUndefinedObject = "42704" // no such slot or publication
	codeUndefinedFile   = "58P01" // WAL that is needed was removed
	codeNotSupported    = "0A000" // publications that contradict each other
	codeTooLarge        = "54000" // a row beyond 1 GiB of text
	classInternal       = "XX"    // internal error, data or index corrupted
)

// Stream starts replication of the slot at from, the end of the last
// transaction that needs no repetition; prevEnd is the end of the last one that
// was committed before it, as the progress record keeps it (0: none was seen).
// It blocks for the connection and the server's answer. *ErrSlotActive means:
// not yet. The caller closes the Stream.
func (s *Source) Stream(ctx context.Context, from, prevEnd cdc.LSN) (*Stream, error) {
	if err := checkSlotName(s.cfg.Slot); err != nil {
		return nil, err
	}
	args, err := s.pluginArguments()
	if err != nil {
		return nil, err
	}
	st := &Stream{source: s, asm: newAssembler(s.catalogue, from, prevEnd, s.cfg.Messages)}
	conn, err := connectReplication(ctx, s.cfg.URL, replicationOptions{
		wrap:     func(c net.Conn) net.Conn { return newSocket(c) },
		buffer:   readBuffer,
		onNotice: st.connectNotice,
	})
	if err != nil {
		return nil, err
	}
	timeout, err := senderTimeout(ctx, conn)
	if err == nil {
		err = conn.SyncConn(ctx)
	}
	if err != nil {
		closeConn(conn)
		return nil, fmt.Errorf("prepare replication from %s: %w", s.target, err)
	}
	err = pglogrepl.StartReplication(ctx, conn, quote(s.cfg.Slot), pglogrepl.LSN(from),
		pglogrepl.StartReplicationOptions{Mode: pglogrepl.LogicalReplication, PluginArgs: args})
	if err != nil {
		closeConn(conn)
		return nil, s.startError(ctx, from, err)
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		closeConn(conn)
		return nil, fmt.Errorf("take over replication connection to %s: %w", s.target, err)
	}
	sock, err := socketOf(hijacked.Conn)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take over replication connection to %s: %w", s.target, err), hijacked.Conn.Close())
	}
	st.begin(hijacked, sock, timeout)
	s.log.Info("replication started", "lsn", from, "wal_sender_timeout", timeout)
	return st, nil
}

// socketOf is the socket of a connection. It cannot be remembered when it is made:
// pgconn dials for other hosts and, beside us, to cancel what it gives up.
func socketOf(c net.Conn) (*socket, error) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	sock, ok := c.(*socket)
	if !ok {
		return nil, fmt.Errorf("the connection is a %T", c)
	}
	return sock, nil
}

// pluginArguments are pgoutput's options. Whole transactions only: proto_version
// 1 delivers what has committed, and the server keeps what has not.
func (s *Source) pluginArguments() ([]string, error) {
	if s.cfg.Publication == "" || strings.ContainsRune(s.cfg.Publication, 0) {
		return nil, cdc.Terminal("publication-name", "Set publication to the name of an existing publication.",
			"publication name %q is empty or holds a NUL", s.cfg.Publication)
	}
	args := []string{"proto_version '1'", "publication_names " + quoteLiteral(quote(s.cfg.Publication))}
	if len(s.cfg.Messages) > 0 {
		if s.version < 140000 {
			return nil, cdc.Terminal("messages-unsupported", "Upgrade Postgres to 14, or configure no logical messages.",
				"logical messages need Postgres 14, %s has server_version_num %d", s.target, s.version)
		}
		args = append(args, "messages 'true'")
	}
	return args, nil
}

// maxSlotName is NAMEDATALEN-1.
const maxSlotName = 63

// checkSlotName applies the server's rule (ReplicationSlotValidateName) before
// the name goes into a command.
func checkSlotName(name string) error {
	ok := name != "" && len(name) <= maxSlotName
	for i := 0; i < len(name) && ok; i++ {
		b := name[i]
		ok = b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '_'
	}
	if !ok {
		return cdc.Terminal("slot-name", "Set a slot name of 1 to 63 lower case letters, digits and underscores.",
			"slot name %q is not allowed by Postgres", name)
	}
	return nil
}

func quoteLiteral(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }

// senderTimeout reads the wal_sender_timeout of this very connection; 0 means
// that the server never gives up and sends no keepalives of its own.
func senderTimeout(ctx context.Context, conn *pgconn.PgConn) (time.Duration, error) {
	results, err := conn.Exec(ctx, `SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'`).ReadAll()
	if err != nil {
		return 0, fmt.Errorf("read wal_sender_timeout: %w", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1 {
		return 0, errors.New("read wal_sender_timeout: no such setting")
	}
	text := string(results[0].Rows[0][0])
	ms, err := strconv.ParseInt(text, 10, 32)
	if err != nil || ms < 0 {
		return 0, fmt.Errorf("read wal_sender_timeout: %q is not a number of milliseconds", text)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// startError says what a refused START_REPLICATION means.
func (s *Source) startError(ctx context.Context, from cdc.LSN, err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return fmt.Errorf("start replication from slot %q of %s at %s: %w", s.cfg.Slot, s.target, from, err)
	}
	switch pg.Code {
	case codeObjectInUse:
		return &ErrSlotActive{Slot: s.cfg.Slot, PID: s.activePID(ctx)}
	case codeUndefinedObject:
		return cdc.Terminal("slot-missing", "Look for what dropped it; a new slot needs a new snapshot.",
			"start replication from slot %q of %s at %s: %w", s.cfg.Slot, s.target, from, err)
	case codeNotInState:
		if slot, ok, readErr := s.Slot(ctx); readErr == nil && ok && (slot.WALStatus == "lost" || slot.Invalidation != "") {
			return cdc.Terminal("slot-lost", "Copy the tables again: cdc drop PIPELINE, then cdc run.",
				"start replication from slot %q of %s at %s: it was invalidated: %w", s.cfg.Slot, s.target, from, err)
		}
		return cdc.Terminal("slot-unusable", "If its wal_status is lost, drop the slot and take a new snapshot; else mend what the message names.",
			"start replication from slot %q of %s at %s: %w", s.cfg.Slot, s.target, from, err)
	}
	return s.serverError(pg, from)
}

// serverError says what an error of the walsender means; at is the last
// position that was received.
func (s *Source) serverError(pg *pgconn.PgError, at cdc.LSN) error {
	const format = "replication from slot %q of %s after %s: %w"
	switch pg.Code {
	case codeUndefinedObject:
		return cdc.Terminal("publication-missing",
			"The publication must have existed before the slot and ever since. If it did not, drop the slot and take a new snapshot.",
			format, s.cfg.Slot, s.target, at, pg)
	case codeUndefinedFile:
		return cdc.Terminal("wal-missing", "WAL that the slot needs is gone: drop the slot and take a new snapshot.",
			format, s.cfg.Slot, s.target, at, pg)
	case codeNotSupported:
		return cdc.Terminal("publication-conflict", "Make the publication's column lists agree for the table that is named.",
			format, s.cfg.Slot, s.target, at, pg)
	case codeTooLarge:
		return cdc.Terminal("row-too-large", "A row does not fit into a message of 1 GiB: leave the column out of the publication.",
			format, s.cfg.Slot, s.target, at, pg)
	case codeNotInState:
		return cdc.Terminal("slot-unusable", "Mend what the message names.", format, s.cfg.Slot, s.target, at, pg)
	}
	if strings.HasPrefix(pg.Code, classInternal) {
		return fmt.Errorf(format+" (%w)", s.cfg.Slot, s.target, at, pg, ErrInternal)
	}
	return fmt.Errorf(format, s.cfg.Slot, s.target, at, pg)
}

// activePID asks who holds the slot; 0 where nobody does any more, or nobody
// can be asked.
func (s *Source) activePID(ctx context.Context) int {
	var pid int
	err := s.withSQL(ctx, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, `SELECT coalesce(max(active_pid), 0) FROM pg_replication_slots WHERE slot_name = $1`, s.cfg.Slot).Scan(&pid)
	})
	if err != nil {
		s.log.Debug("holder of the slot is not known", "err", err)
	}
	return pid
}
