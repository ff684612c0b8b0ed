package view

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// connectThere connects to the Postgres that holds a build, whose URL the caller
// knows: the store keeps no passwords.
func connectThere(ctx context.Context, b buildRow, url string) (*pgx.Conn, error) {
	if url == "" {
		return nil, fmt.Errorf("view %s is in %s, and no URL for it is configured", b.name, b.database)
	}
	if name := (intent.View{Database: url}).DatabaseName(); name != b.database {
		return nil, fmt.Errorf("view %s is in %s, and the URL that is configured leads to %s", b.name, b.database, name)
	}
	cfg, err := eventstore.ParseURL(url)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s, which holds view %s: %w", b.database, b.name, err)
	}
	return conn, nil
}

// closeConn ends a connection whatever became of its context.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	_ = conn.Close(ctx) // the server ends the session either way
}

// storeID is what tells this store from others in a database they share.
func storeID(ctx context.Context, q querier) (intent.ID, error) {
	var id [16]byte
	if err := q.QueryRow(ctx, `select store from es.meta`).Scan(&id); err != nil {
		return intent.ID{}, fmt.Errorf("read the store's id: %w", err)
	}
	return intent.ID(id), nil
}

// positionThere is the position of a build in the Postgres that holds it, in the
// snapshot of there.
func positionThere(ctx context.Context, here, there querier, b buildRow) (int64, error) {
	id, err := storeID(ctx, here)
	if err != nil {
		return 0, err
	}
	var pos int64
	err = there.QueryRow(ctx, `select pos from es_remote.view where store = $1 and build = $2`, [16]byte(id), b.id).Scan(&pos)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("%s knows nothing of build %d of view %s", b.database, b.id, b.name)
	}
	if err != nil {
		return 0, fmt.Errorf("read the position of view %s in %s: %w", b.name, b.database, err)
	}
	return pos, nil
}

// quietKey is the advisory lock, in another Postgres, of the appends on their way
// between the store and that database: each holds it shared, from before its first
// statement until it is committed there, as part of the prepared transaction. Who
// holds it alone knows that both databases agree.
func quietKey(store intent.ID) int64 {
	d := store.Derive("appends on their way")
	return int64(binary.BigEndian.Uint64(d[8:]))
}

// errInDoubt says that an append between two databases does not come to its end.
var errInDoubt = errors.New("an append between the two databases is not finished and nobody finishes it: a daemon does within a minute, start `cdc run`, or try again")

// lockQuiet takes the lock of quietKey in the session; it waits for at most limit,
// and keeps new appends waiting for as long.
func lockQuiet(ctx context.Context, there *pgx.Conn, key int64, limit time.Duration) error {
	tx, err := there.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer rollback(ctx, tx)
	if err := setLockTimeout(ctx, tx, limit); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `select pg_advisory_lock($1)`, key)
	if isLockTimeout(err) {
		return errInDoubt
	}
	if err != nil {
		return fmt.Errorf("wait for appends on their way: %w", err)
	}
	return nil // the session keeps the lock when the transaction is gone
}

// setLockTimeout bounds the waits of a transaction.
func setLockTimeout(ctx context.Context, q querier, limit time.Duration) error {
	_, err := q.Exec(ctx, `select set_config('lock_timeout', $1, true)`, fmt.Sprintf("%dms", max(limit.Milliseconds(), 1)))
	if err != nil {
		return fmt.Errorf("set lock_timeout: %w", err)
	}
	return nil
}

// SQLSTATEs that decide what is done next.
const (
	codeLockTimeout    = "55P03"
	codeDeadlock       = "40P01"
	codeDependents     = "2BP01"
	codeUndefined      = "42704" // also: no prepared transaction of that name
	codeNotPrepared    = "55000" // max_prepared_transactions is 0
	codeInvalidEvent   = "ES422"
	codeStatementLimit = "57014"
)

func hasCode(err error, codes ...string) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return false
	}
	for _, c := range codes {
		if pe.Code == c {
			return true
		}
	}
	return false
}

func isLockTimeout(err error) bool { return hasCode(err, codeLockTimeout, codeDeadlock) }
