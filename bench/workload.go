package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
)

// workload is the traffic of one table: a bulk load, a bulk update and many
// small transactions.
type workload struct {
	inserts int // rows of one transaction
	updates int // rows of one transaction
	single  int // transactions of one row
}

// rows is how many changes the workload makes.
func (w workload) rows() int { return w.inserts + w.updates + w.single }

// The tables. The publication of a table has its name; the first pipeline makes it.
const (
	tableOrders = "orders" // of the rounds
	tableBig    = "big"    // of the memory runs
)

func createTable(ctx context.Context, c *pgx.Conn, table string) error {
	sql := `CREATE TABLE ` + table + ` (
		id bigint PRIMARY KEY, customer_id bigint NOT NULL, status text NOT NULL, amount numeric(12,2) NOT NULL,
		note text NOT NULL, created_at timestamptz NOT NULL, payload jsonb NOT NULL)`
	if _, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("create table %s: %w", table, err)
	}
	return nil
}

// fill inserts the rows with ids from first to last in one transaction.
func fill(ctx context.Context, c *pgx.Conn, table string, first, last int) error {
	sql := `INSERT INTO ` + table + ` SELECT i, i % 10007, (ARRAY['new','paid','sent','done'])[1 + i % 4], (i % 100000) / 100.0,
		left(repeat(md5(i::text), 3), 80), timestamptz '2026-01-01 00:00:00+00' + i * interval '1.000123 s',
		jsonb_build_object('sku', 'SKU-' || i % 1000, 'quantity', i % 7, 'gift', i % 2 = 0)
		FROM generate_series($1::bigint, $2::bigint) i`
	if _, err := c.Exec(ctx, sql, first, last); err != nil {
		return fmt.Errorf("insert rows %d to %d into %s: %w", first, last, table, err)
	}
	return nil
}

// apply runs the workload and returns a position inside its last transaction:
// behind the end of every transaction before it, and before its own end.
func (w workload) apply(ctx context.Context, c *pgx.Conn) (cdc.LSN, error) {
	if err := fill(ctx, c, tableOrders, 1, w.inserts); err != nil {
		return 0, err
	}
	for _, step := range []string{
		fmt.Sprintf(`UPDATE orders SET status = 'paid', amount = amount + 1 WHERE id <= %d`, w.updates),
		fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP UPDATE orders SET status = 'sent' WHERE id = 1 + i %% %d; COMMIT; END LOOP; END $$`, w.single-1, w.inserts),
	} {
		if _, err := c.Exec(ctx, step, pgx.QueryExecModeSimpleProtocol); err != nil {
			return 0, fmt.Errorf("run workload: %w", err)
		}
	}
	end, err := here(ctx, c)
	if err != nil {
		return 0, err
	}
	if _, err := c.Exec(ctx, `UPDATE orders SET status = 'done' WHERE id = 1`); err != nil {
		return 0, fmt.Errorf("run workload: %w", err)
	}
	return end + 1, nil
}

// here is where the server's log ends.
func here(ctx context.Context, c *pgx.Conn) (cdc.LSN, error) {
	var text string
	if err := c.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&text); err != nil {
		return 0, fmt.Errorf("read the end of the log: %w", err)
	}
	return cdc.ParseLSN(text)
}
