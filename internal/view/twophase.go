package view

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"cdc/internal/cdc"
	"cdc/internal/intent"
)

// A transaction in several databases is prepared in each and then committed in
// each. What decides is one row of es.decision: it is written when all are
// prepared and before any is committed.
//
//	store:  begin … PREPARE ──┐                ┌─ COMMIT PREPARED ─┐
//	                          ├─ es.decision ──┤                   ├─ delete the row
//	there:  begin … PREPARE ──┘                └─ (then) COMMIT ───┘
//
// Whoever finds a prepared transaction without its session looks for the row: it
// is there, so the transaction is committed; it is not, so it is rolled back. That
// is right only when the row cannot come any more. So the row is written by the
// session that prepared the transaction in the store, and that session holds an
// advisory lock whose key is in the transaction's name (owner). Recovery takes that
// lock before it looks: with the session gone no row of it can follow, and one it
// wrote is visible, for a server gives up a session's locks after its commits.
// No clock takes part.

// gid is the name of a transaction in several databases.
type gid struct {
	store intent.ID
	owner int64 // advisory lock of the session that decides, in the store
	id    intent.ID
}

const gidPrefix = "es:"

// key is of the advisory lock that the transaction holds, in the databases other
// than the store, until it is committed or rolled back there.
func (g gid) key() int64 { return int64(binary.BigEndian.Uint64(g.id[8:])) }

// decision is the name in es.decision.
func (g gid) decision() string {
	return fmt.Sprintf("%s%s:%016x:%s", gidPrefix, g.store, uint64(g.owner), g.id)
}

// part is the name of the prepared transaction in one of the databases: 0 is the
// store. Two of the databases can be of one server, where a name exists once.
func (g gid) part(n int) string { return fmt.Sprintf("%s:%d", g.decision(), n) }

// parseGID reads what part wrote; names of others are not ours.
func parseGID(s string) (g gid, part int, ok bool) {
	fields := strings.Split(s, ":")
	if len(fields) != 5 || fields[0]+":" != gidPrefix {
		return gid{}, 0, false
	}
	var errs [4]error
	g.store, errs[0] = intent.ParseID(fields[1])
	owner, err := strconv.ParseUint(fields[2], 16, 64)
	g.owner, errs[1] = int64(owner), err
	g.id, errs[2] = intent.ParseID(fields[3])
	part, errs[3] = strconv.Atoi(fields[4])
	return g, part, errors.Join(errs[:]...) == nil && g.part(part) == s
}

// openTx is a transaction begun on a connection, in the database it belongs to.
type openTx struct {
	conn *pgx.Conn
	name string // host:port/name, for messages; the store's is "the store"
}

// prepare ends the open transaction of the connection as a prepared one.
func (o openTx) prepare(ctx context.Context, name string) error {
	tag, err := o.conn.Exec(ctx, "prepare transaction "+intent.Literal(name))
	if err != nil {
		return prepareError(fmt.Errorf("prepare the transaction in %s: %w", o.name, err), o.name)
	}
	if tag.String() != "PREPARE TRANSACTION" { // ROLLBACK: it had failed before
		return fmt.Errorf("prepare the transaction in %s: the server answered %s", o.name, tag)
	}
	return nil
}

// prepareError makes a refusal for want of a setting an error that says so.
func prepareError(err error, where string) error {
	if !hasCode(err, codeNotPrepared) {
		return err
	}
	return noTwoPhase(err, where)
}

func noTwoPhase(err error, where string) error {
	return cdc.Terminal("no-prepared-transactions",
		"ALTER SYSTEM SET max_prepared_transactions = 100; and restart that server. Or make the view async.",
		"%s takes no prepared transactions (max_prepared_transactions = 0), which an inline view in another Postgres needs: %w", where, err)
}

// commitPrepared commits a prepared transaction. One that is not there was
// committed before: by recovery, which does so only behind a decision.
func commitPrepared(ctx context.Context, conn querier, name string) error {
	_, err := conn.Exec(ctx, "commit prepared "+intent.Literal(name))
	if hasCode(err, codeUndefined) {
		return nil
	}
	return err
}

// rollbackPrepared is its counterpart.
func rollbackPrepared(ctx context.Context, conn querier, name string) error {
	_, err := conn.Exec(ctx, "rollback prepared "+intent.Literal(name))
	if hasCode(err, codeUndefined) {
		return nil
	}
	return err
}

// UndecidedError says that it is not known here whether something was committed in
// several databases. It is in all of them or in none, within a minute.
type UndecidedError struct{ Err error }

func (e *UndecidedError) Error() string {
	return fmt.Sprintf("whether this was committed is decided by the recovery of prepared transactions within a minute; the same append may be made again: %s", e.Err)
}

func (e *UndecidedError) Unwrap() error { return e.Err }

// BehindError says that an append is stored and decided, and that a database could
// not be told to commit its part: the view there shows it when recovery has reached
// it, within a minute of its being back.
type BehindError struct {
	Database string
	Err      error
}

func (e *BehindError) Error() string {
	return fmt.Sprintf("the events are stored, and their view in %s follows when it can be reached: %s", e.Database, e.Err)
}

func (e *BehindError) Unwrap() error { return e.Err }

// commitAll prepares and commits open transactions; the first is the store's, and
// its session holds the lock g.owner. Without error all are committed. After an
// *UndecidedError they are as recovery finds them, after a *BehindError committed
// in the store; after any other error none is committed, and those that could not
// be rolled back here are by recovery. events are those it appends: until the row of
// es.decision is gone, who waits for one of them waits.
func commitAll(ctx context.Context, g gid, events [][16]byte, parts []openTx, hook func(point string)) error {
	for i, p := range parts {
		if err := p.prepare(ctx, g.part(i)); err != nil {
			rollbackAll(ctx, g, parts, i+1)
			return err
		}
		hook(fmt.Sprintf("prepared-%d", i))
	}
	// The caller may go now: what is decided is carried out.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
	defer cancel()
	store := parts[0].conn
	if _, err := store.Exec(ctx, `insert into es.decision (gid, events) values ($1, coalesce($2::uuid[], '{}'))`, g.decision(), events); err != nil {
		// It may have arrived. The session's end settles it: recovery waits for that.
		closeConn(store)
		return &UndecidedError{fmt.Errorf("decide: %w", err)}
	}
	hook("decided")
	for i, p := range parts {
		if err := commitPrepared(ctx, p.conn, g.part(i)); err != nil {
			closeConn(p.conn)
			if i == 0 {
				return &UndecidedError{fmt.Errorf("commit in %s: %w", p.name, err)}
			}
			closeConn(store) // what is left is recovery's: the session must not live
			return &BehindError{p.name, err}
		}
		hook(fmt.Sprintf("committed-%d", i))
	}
	_, _ = store.Exec(ctx, `delete from es.decision where gid = $1`, g.decision()) // a row left over is deleted by recovery
	return nil
}

// rollbackAll ends what is open in every database, and what may be prepared in the
// first of them, as many as tried. Where one cannot be reached the session that
// decides ends too, so that recovery does the rest.
func rollbackAll(ctx context.Context, g gid, parts []openTx, tried int) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	clean := true
	for i := len(parts) - 1; i >= 0; i-- {
		p := parts[i]
		var err error
		if p.conn.PgConn().TxStatus() != 'I' {
			_, err = p.conn.Exec(ctx, "rollback")
		}
		if i < tried {
			err = errors.Join(err, rollbackPrepared(ctx, p.conn, g.part(i)))
		}
		if err != nil {
			closeConn(p.conn)
			clean = false
		}
	}
	if !clean {
		closeConn(parts[0].conn)
	}
}

// CheckTwoPhase says whether the databases take prepared transactions: a
// TerminalError names the setting and the server that refuses them.
func CheckTwoPhase(ctx context.Context, store *pgxpool.Pool, urls ...string) error {
	if err := takesPrepared(ctx, store, "the store"); err != nil {
		return err
	}
	for _, url := range urls {
		b := buildRow{name: "(inline)", database: intent.View{Database: url}.DatabaseName()}
		conn, err := connectThere(ctx, b, url)
		if err != nil {
			return err
		}
		err = takesPrepared(ctx, conn, b.database)
		closeConn(conn)
		if err != nil {
			return err
		}
	}
	return nil
}

func takesPrepared(ctx context.Context, q querier, where string) error {
	var n int
	if err := q.QueryRow(ctx, `select current_setting('max_prepared_transactions')::int`).Scan(&n); err != nil {
		return fmt.Errorf("read max_prepared_transactions of %s: %w", where, err)
	}
	if n == 0 {
		return noTwoPhase(errors.New("it is off"), where)
	}
	return nil
}
