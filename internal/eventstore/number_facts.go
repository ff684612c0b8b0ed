package eventstore

import (
	"context"
	"fmt"

	"cdc/internal/cdc"
)

// ServerVersion is the server's server_version_num, 150018 for 15.18.
func (s *Store) ServerVersion(ctx context.Context) (n int, err error) {
	if err := s.pool.QueryRow(ctx, `select current_setting('server_version_num')::int`).Scan(&n); err != nil {
		return 0, fmt.Errorf("read the server's version: %w", err)
	}
	return n, nil
}

// ServerEnd is the end of the server's WAL.
func (s *Store) ServerEnd(ctx context.Context) (end cdc.LSN, err error) {
	var text string
	if err := s.pool.QueryRow(ctx, `select pg_current_wal_lsn()::text`).Scan(&text); err != nil {
		return 0, fmt.Errorf("read the end of the WAL: %w", err)
	}
	return cdc.ParseLSN(text)
}

// Events counts the stored events. It reads an index of all of them.
func (s *Store) Events(ctx context.Context) (n int64, err error) {
	if err := s.pool.QueryRow(ctx, `select count(*) from es.event`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the stored events: %w", typed(err))
	}
	return n, nil
}

// Alarms counts the alarms that nobody has acknowledged.
func (w *LogWriter) Alarms(ctx context.Context) (n int, err error) {
	if err := w.conn.QueryRow(ctx, `select count(*) from es.alarm where acknowledged is null`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count alarms at %s: %w", w.target, err)
	}
	return n, nil
}

// Filtered says that a publication has a row filter on es.event, which would keep
// events out of the stream.
func (w *LogWriter) Filtered(ctx context.Context, publication string) (yes bool, err error) {
	// Servers before 15 have no filters, and no column for them: the row's JSON form
	// does without.
	err = w.conn.QueryRow(ctx, `select exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
		where p.pubname = $1 and r.prrelid = 'es.event'::regclass and to_jsonb(r) ->> 'prqual' is not null)`, publication).Scan(&yes)
	if err != nil {
		return false, fmt.Errorf("read publication %q of %s: %w", publication, w.target, err)
	}
	return yes, nil
}
