package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/sink"
)

// TableResult is a topic held against its table.
type TableResult struct {
	Table     string `json:"table"`
	Topic     string `json:"topic"`
	Records   int64  `json:"records"`   // before compaction
	Compacted int64  `json:"compacted"` // after it
	Keys      int    `json:"live_keys"`
	Rows      int64  `json:"rows"`
	Missing   int    `json:"missing"`   // rows without a record
	Ghosts    int    `json:"ghosts"`    // records without a row
	Different int    `json:"different"` // records that say something else than the row
	Disturbed int    `json:"disturbed"` // keys whose latest record compaction changed
	Equal     bool   `json:"equal"`
	// Samples name some of the differences.
	Samples []string `json:"samples,omitempty"`
}

// samples is how many differences of a table are named.
const samples = 5

// Result is the outcome of a run.
type Result struct {
	Dir          string        `json:"dir"`
	Transactions int64         `json:"transactions"` // committed by the workload
	Undone       int64         `json:"rolled_back"`  // on purpose
	Lost         int64         `json:"overtaken"`    // rolled back because another was faster
	End          cdc.LSN       `json:"lsn"`          // everything before it was compared
	Tables       []TableResult `json:"tables"`
	Equal        bool          `json:"equal"`
}

// judge reads the topics, has them compacted, reads them again, and holds them
// against the tables. Nothing may write to topics or tables meanwhile.
func judge(ctx context.Context, client *sink.Client, u *university, compact func(context.Context) error, before map[string]contents) ([]TableResult, error) {
	if err := compact(ctx); err != nil {
		return nil, err
	}
	var results []TableResult
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, u.conn, options, func(tx pgx.Tx) error {
		for _, t := range tables {
			after, err := readTopic(ctx, client, t.topic())
			if err != nil {
				return err
			}
			var entries []entry
			after.each(func(e entry) { entries = append(entries, e) })
			c, err := compare(ctx, tx, t, entries)
			if err != nil {
				return err
			}
			results = append(results, result(t, before[t.name], after, c))
		}
		return nil
	})
	return results, err
}

func result(t table, before, after contents, c *comparison) TableResult {
	r := TableResult{
		Table: t.name, Topic: t.topic(),
		Records: before.records, Compacted: after.records, Keys: after.keys(), Rows: c.rows,
	}
	found := c.found
	for _, d := range found {
		switch d.kind {
		case missing:
			r.Missing++
		case ghost:
			r.Ghosts++
		default:
			r.Different++
		}
	}
	for _, key := range before.disturbed(after) {
		r.Disturbed++
		found = append(found, difference{"disturbed by compaction", string(key)})
	}
	// Two spellings of one key would both match the row: counting shows it.
	r.Equal = len(found) == 0 && int64(r.Keys) == r.Rows
	slices.SortFunc(found, func(a, b difference) int { return strings.Compare(a.String(), b.String()) })
	for _, d := range found[:min(len(found), samples)] {
		r.Samples = append(r.Samples, clip(printable(d.String()), sampleWidth))
	}
	return r
}

// sampleWidth is how much of a key is shown.
const sampleWidth = 100

// verdict says in one line what was found.
func (r TableResult) verdict() string {
	if r.Equal {
		return "yes"
	}
	return "NO: " + r.fault()
}

// fault counts what is wrong.
func (r TableResult) fault() string {
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{{r.Missing, "missing"}, {r.Ghosts, "ghosts"}, {r.Different, "different"}, {r.Disturbed, "disturbed"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, fmt.Sprintf("%d keys for %d rows", r.Keys, r.Rows))
	}
	return strings.Join(parts, ", ")
}
