package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/intent"
	"cdc/internal/sink"
	"cdc/internal/view"
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

// ViewResult is a view of events held against a replay of all of them.
type ViewResult struct {
	View    string          `json:"view"`
	Mode    intent.ViewMode `json:"mode"`
	Events  int64           `json:"events"` // replayed
	Rows    int64           `json:"rows"`
	Missing int64           `json:"missing"` // rows that a replay gives and the view lacks
	Extra   int64           `json:"extra"`   // rows of the view that no replay gives
	Equal   bool            `json:"equal"`
	Samples []string        `json:"samples,omitempty"`
}

// Result is the outcome of a run.
type Result struct {
	Dir          string         `json:"dir"`
	Transactions int64          `json:"transactions"` // committed by the workload
	Undone       int64          `json:"rolled_back"`  // on purpose
	Lost         int64          `json:"overtaken"`    // rolled back because another was faster
	Added        bool           `json:"added"`        // the reaction and the view are there, from this run or an earlier one
	Offers       int64          `json:"offers"`       // events that the reaction has appended in all runs
	End          cdc.LSN        `json:"lsn"`          // everything before it was compared
	Tables       []TableResult  `json:"tables"`
	Intents      []IntentResult `json:"intents"`
	Views        []ViewResult   `json:"views"`
	Equal        bool           `json:"equal"`
}

// judgement says whether everything is equal.
func (r *Result) judgement() bool {
	for _, t := range r.Tables {
		if !t.Equal {
			return false
		}
	}
	for _, i := range r.Intents {
		if !i.Equal {
			return false
		}
	}
	for _, v := range r.Views {
		if !v.Equal {
			return false
		}
	}
	return true
}

// judgeTables reads the topics of tables, which were compacted after before was
// read, and holds them against the tables. Nothing may write to topics or tables
// meanwhile.
func judgeTables(ctx context.Context, client *sink.Client, u *university, before map[string]contents) ([]TableResult, error) {
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
	r.Samples = sampled(found)
	return r
}

// sampled names some of the differences.
func sampled(found []difference) (list []string) {
	slices.SortFunc(found, func(a, b difference) int { return strings.Compare(a.String(), b.String()) })
	for _, d := range found[:min(len(found), samples)] {
		list = append(list, clip(printable(d.String()), sampleWidth))
	}
	return list
}

// judgeViews replays all events for every view and holds the outcome against its
// table.
func judgeViews(ctx context.Context, u *university) ([]ViewResult, error) {
	list, err := view.List(ctx, u.store)
	if err != nil {
		return nil, err
	}
	var results []ViewResult
	for _, v := range list {
		report, err := view.Verify(ctx, u.store, v.Name, view.VerifyOptions{Build: v.Build, Samples: samples})
		if err != nil {
			return nil, err
		}
		r := ViewResult{
			View: v.Name, Mode: v.Mode, Events: report.Events, Rows: report.Rows,
			Missing: report.Missing.Count, Extra: report.Extra.Count, Equal: report.Equal(),
		}
		for _, row := range report.Missing.Rows {
			r.Samples = append(r.Samples, clip(printable("missing "+string(row)), sampleWidth))
		}
		for _, row := range report.Extra.Rows {
			r.Samples = append(r.Samples, clip(printable("too many "+string(row)), sampleWidth))
		}
		results = append(results, r)
	}
	return results, nil
}

// sampleWidth is how much of a key is shown.
const sampleWidth = 100

// fault counts what is wrong.
func (r TableResult) fault() string {
	return counted(fmt.Sprintf("%d keys for %d rows", r.Keys, r.Rows), []count{
		{int64(r.Missing), "missing"}, {int64(r.Ghosts), "ghosts"}, {int64(r.Different), "different"}, {int64(r.Disturbed), "disturbed"},
	})
}

func (r ViewResult) fault() string {
	return counted("", []count{{r.Missing, "rows missing"}, {r.Extra, "rows too many"}})
}

type count struct {
	n    int64
	what string
}

// counted tells the counts that are not zero; otherwise where all are.
func counted(otherwise string, counts []count) string {
	var parts []string
	for _, c := range counts {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	if len(parts) == 0 {
		return otherwise
	}
	return strings.Join(parts, ", ")
}
