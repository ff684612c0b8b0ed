package eventstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"cdc/internal/cdc"
	"cdc/internal/intent"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Adopt numbers the events that stand in a snapshot and have no position: all of
// them at the first start, those of the gap where a slot was lost. next gives the
// ids of every event of the snapshot in any order and io.EOF behind the last; r is the
// reader from then on, at the snapshot's consistent point, where the stream goes on.
// hook, which may be nil, is told adopt-rows and adopt-commit. One transaction;
// durable when it returns how many were numbered. After an error the LogWriter is of
// no use any more.
//
// The commit order of those events is not known any more. Every stream keeps the
// order of its versions; otherwise they follow the time of their appending. Their
// lsn is the position before the snapshot's, which no commit record has.
func (w *LogWriter) Adopt(ctx context.Context, r Reader, next func() (intent.ID, error), hook func(point string)) (numbered int64, err error) {
	err = pgx.BeginFunc(ctx, w.conn, func(tx pgx.Tx) error {
		numbered, err = w.adopt(ctx, tx, r, next, hook)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("number the events of a snapshot of %s: %w", w.target, err)
	}
	w.head += numbered
	w.committed(r)
	return numbered, nil
}

func (w *LogWriter) adopt(ctx context.Context, tx pgx.Tx, r Reader, next func() (intent.ID, error), hook func(point string)) (int64, error) {
	if _, err := tx.Exec(ctx, `create temporary table es_snapshot (event uuid not null) on commit drop`); err != nil {
		if pe := new(pgconn.PgError); errors.As(err, &pe) && pe.Code == codeInsufficientPrivilege {
			return 0, cdc.Terminal("temporary-rights", fmt.Sprintf("GRANT TEMPORARY ON DATABASE %s TO %s;",
				pgx.Identifier{w.conn.Config().Database}.Sanitize(), pgx.Identifier{w.conn.Config().User}.Sanitize()),
				"the role may not make the temporary table that numbers existing events: %w", err)
		}
		return 0, err
	}
	in := &lines{next: next, hook: hook}
	tag, err := tx.Conn().PgConn().CopyFrom(ctx, in, `copy pg_temp.es_snapshot from stdin`)
	if in.err != nil {
		return 0, in.err
	}
	if err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `analyze pg_temp.es_snapshot`); err != nil {
		return 0, err
	}
	if err := checkLog(ctx, tx, tag.RowsAffected()); err != nil {
		return 0, err
	}
	numbered, err := tx.Exec(ctx, `
		insert into es.log (pos, event, lsn, tx)
		select $1 + row_number() over (order by at, stream, version), id, $2::text::pg_lsn, tx
		from (select e.id, e.stream, e.version, e.xmin::text::bigint as tx, max(e.at) over (partition by e.stream order by e.version) as at
			from es.event e join pg_temp.es_snapshot s on s.event = e.id
			where not exists (select from es.log l where l.event = e.id)) missing
		order by at, stream, version`, w.settled, (r.LSN - 1).String())
	if err != nil {
		return 0, w.failed(err)
	}
	_, err = tx.Exec(ctx, `insert into es.reader (slot, system, timeline, lsn) values ($1, $2, $3, $4::text::pg_lsn)
		on conflict (one) do update set slot = excluded.slot, system = excluded.system, timeline = excluded.timeline, lsn = excluded.lsn, at = now()`,
		r.Slot, r.System, int64(r.Timeline), r.LSN.String())
	if err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `select pg_notify('`+NotifyChannel+`', ($1::bigint)::text)`, w.settled+numbered.RowsAffected()); err != nil {
		return 0, err
	}
	if hook != nil {
		hook("adopt-commit")
	}
	return numbered.RowsAffected(), nil
}

// checkLog refuses to go on from a log that is not one of these events. copied is
// how many events the snapshot has.
func checkLog(ctx context.Context, tx pgx.Tx, copied int64) error {
	var visible, count, last, strangers, first int64
	err := tx.QueryRow(ctx, `select
		(select count(*) from es.event e join pg_temp.es_snapshot s on s.event = e.id),
		(select count(*) from es.log), (select coalesce(max(pos), 0) from es.log)`).Scan(&visible, &count, &last)
	if err != nil {
		return err
	}
	if visible != copied {
		// A snapshot of the WAL has what is committed there, perhaps a moment before
		// others see it (see LogWriter.Write); or somebody deletes events right now.
		return fmt.Errorf("%w: the snapshot has %d events, of which %d are visible", ErrNotVisible, copied, visible)
	}
	if count != last {
		return cdc.Terminal("log-gap", "es.log was changed by hand or restored in part. Restore the schema es as a whole from one backup.",
			"es.log has %d rows and ends at position %d", count, last)
	}
	// Events that somebody deleted round the triggers are known by their alarm.
	err = tx.QueryRow(ctx, `select count(*), coalesce(min(l.pos), 0) from es.log l
		where not exists (select from es.event e where e.id = l.event)
		and not exists (select from es.alarm a where a.operation = 'delete' and a.event = l.event)
		and not exists (select from es.alarm a where a.operation = 'truncate')`).Scan(&strangers, &first)
	if err != nil {
		return err
	}
	if strangers > 0 {
		return cdc.Terminal("log-ahead", "es.event is older than es.log: it was restored without it, or events were deleted while nothing read the WAL. Restore the schema es as a whole from one backup.",
			"es.log names %d events that es.event does not have, the first at position %d", strangers, first)
	}
	return nil
}

// lines turns ids into what COPY reads.
type lines struct {
	next func() (intent.ID, error)
	hook func(point string)
	rest []byte
	buf  [37]byte
	n    int
	err  error
}

func (l *lines) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(l.rest) == 0 {
			id, err := l.next()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					l.err = err
				}
				return n, err
			}
			l.rest = append(append(l.buf[:0], id.String()...), '\n')
			if l.n++; l.n == 1 && l.hook != nil {
				l.hook("adopt-rows")
			}
		}
		c := copy(p[n:], l.rest)
		n, l.rest = n+c, l.rest[c:]
	}
	return n, nil
}
