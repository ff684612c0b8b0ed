package demo

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/sink"
)

// IntentResult is the topics of intents held against the events of the store.
type IntentResult struct {
	Topic     string `json:"topic"`
	Records   int64  `json:"records"`   // before compaction
	Compacted int64  `json:"compacted"` // after it: the same, for nothing is ever removed
	Events    int64  `json:"events"`    // of the store
	Missing   int    `json:"missing"`   // events without a record
	Ghosts    int    `json:"ghosts"`    // records without an event
	Doubled   int    `json:"doubled"`   // events with more than one record
	Different int    `json:"different"` // records that say something else than the event
	Disorder  int    `json:"disorder"`  // records that do not stand where their position says
	Gaps      int64  `json:"gaps"`      // positions that no event has
	Disturbed int    `json:"disturbed"` // records that compaction removed or changed
	Equal     bool   `json:"equal"`
	// Samples name some of the differences.
	Samples []string `json:"samples,omitempty"`
}

// intentRecord is a record of a topic of intents, as text.
type intentRecord struct {
	partition int32
	offset    int64
	key       string
	value     string
	headers   [len(intentHeaders)]*string // nil where it has none
}

// intentHeaders are those a record is judged by, named as the columns they are
// compared with.
var intentHeaders = [...]string{"id", "type", "schema", "version", "position", "tx", "lsn", "time", "correlation", "causation", "meta", "subjects"}

// timeHeader is the index of the time in intentHeaders.
var timeHeader = slices.Index(intentHeaders[:], "time")

// unreadable stands for text that PostgreSQL cannot hold: it equals nothing.
const unreadable = "(not text)"

// newIntentRecord copies what it keeps of m.
func newIntentRecord(partition int32, m *sink.Message) intentRecord {
	r := intentRecord{partition: partition, offset: m.Offset, key: asText(m.Key), value: asText(m.Value)}
	for _, h := range m.Headers {
		if i := slices.Index(intentHeaders[:], h.Key); i >= 0 {
			text := asText(h.Value)
			r.headers[i] = &text
		}
	}
	if at := r.headers[timeHeader]; at != nil {
		if t, err := time.Parse(time.RFC3339Nano, *at); err == nil && t.Equal(t.Truncate(time.Microsecond)) {
			text := t.UTC().Format("2006-01-02T15:04:05.000000Z") // as the query writes it
			r.headers[timeHeader] = &text
		}
	}
	return r
}

func asText(b []byte) string {
	if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		return unreadable
	}
	return string(b)
}

// same says that both are the same record.
func (r intentRecord) same(s intentRecord) bool {
	if r.partition != s.partition || r.offset != s.offset || r.key != s.key || r.value != s.value {
		return false
	}
	for i := range r.headers {
		if a, b := r.headers[i], s.headers[i]; (a == nil) != (b == nil) || a != nil && *a != *b {
			return false
		}
	}
	return true
}

// intentContents is what a topic of intents holds at one moment, partition after
// partition.
type intentContents struct {
	records []intentRecord
	ends    map[cdc.TopicPartition]int64 // one past the last record
}

// readIntents reads all of a topic. A topic that does not exist holds nothing.
func readIntents(ctx context.Context, client *sink.Client, topic string) (intentContents, error) {
	c := intentContents{ends: map[cdc.TopicPartition]int64{}}
	tps, err := partitions(ctx, client, topic)
	if err != nil || len(tps) == 0 {
		return c, err
	}
	starts, ends, err := client.Offsets(ctx, tps)
	if err != nil {
		return c, fmt.Errorf("read topic %s: %w", topic, err)
	}
	for _, tp := range tps {
		err := client.ReadAll(ctx, tp, starts[tp], ends[tp], func(m *sink.Message) error {
			c.records = append(c.records, newIntentRecord(tp.Partition, m))
			c.ends[tp] = m.Offset + 1
			return nil
		})
		if err != nil {
			return c, fmt.Errorf("read %s: %w", tp, err)
		}
	}
	return c, nil
}

// disturbed counts the records that are not the same in after.
func (c intentContents) disturbed(after intentContents) (n int) {
	type place struct {
		partition int32
		offset    int64
	}
	left := make(map[place]intentRecord, len(after.records))
	for _, r := range after.records {
		left[place{r.partition, r.offset}] = r
	}
	for _, r := range c.records {
		at := place{r.partition, r.offset}
		if s, ok := left[at]; !ok || !r.same(s) {
			n++
		}
		delete(left, at)
	}
	return n + len(left)
}

// arrived is where PostgreSQL gets the records of a topic of intents to judge.
const arrived = `CREATE TEMP TABLE arrived (
	partition int, "offset" bigint, key text, value text, id text, type text, schema text, version text, position text,
	tx text, lsn text, time text, correlation text, causation text, meta text, subjects text) ON COMMIT DROP`

// Every comparison is one of texts, as PostgreSQL itself writes the event: nothing
// of a record is read as anything else, so nothing is lost in reading it.
const judgeIntents = `
WITH event AS MATERIALIZED (
	SELECT e.id::text AS id, l.pos, e.stream AS key, e.data::text AS value, e.type, e.schema::text AS schema,
		e.version::text AS version, l.pos::text AS position, l.tx::text AS tx, l.lsn::text AS lsn,
		to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS time,
		e.meta->>'correlation' AS correlation, e.meta->>'causation' AS causation,
		nullif((e.meta - 'correlation' - 'causation')::text, '{}') AS meta,
		CASE WHEN e.subjects <> '{}' THEN to_json(e.subjects)::text END AS subjects
	FROM es.event e LEFT JOIN es.log l ON l.event = e.id
	WHERE split_part(e.stream, '/', 1) = $1),
placed AS MATERIALIZED (
	SELECT a.*, e.pos, lag(e.pos) OVER (PARTITION BY a.partition ORDER BY a."offset") AS before,
		min(a.partition) OVER (PARTITION BY a.key) AS home, e.id IS NULL AS ghost,
		row_number() OVER (PARTITION BY a.id ORDER BY a.partition, a."offset") AS copy,
		(a.key, a.value, a.type, a.schema, a.version, a.position, a.tx, a.lsn, a.time, a.correlation, a.causation, a.meta, a.subjects)
		IS NOT DISTINCT FROM
		(e.key, e.value, e.type, e.schema, e.version, e.position, e.tx, e.lsn, e.time, e.correlation, e.causation, e.meta, e.subjects) AS same
	FROM arrived a LEFT JOIN event e ON e.id = a.id)
SELECT 'missing', 'event ' || id FROM event e WHERE NOT EXISTS (SELECT FROM arrived a WHERE a.id = e.id)
UNION ALL SELECT 'ghost', format('record %s of partition %s', "offset", partition) FROM placed WHERE ghost
UNION ALL SELECT 'doubled', 'event ' || id FROM placed WHERE copy = 2 AND NOT ghost
UNION ALL SELECT 'different', 'event ' || id FROM placed WHERE NOT same AND NOT ghost
UNION ALL SELECT 'disorder', format('record %s of partition %s', "offset", partition) FROM placed
	WHERE NOT ghost AND (pos <= before OR partition <> home OR pos IS NULL)`

// The kinds of difference that only intents have.
const (
	doubled  = "doubled"
	disorder = "disorder"
)

// compareIntents holds the records of a category's topic against the events of the
// store, in a transaction that sees one state of it.
func compareIntents(ctx context.Context, tx pgx.Tx, category string, records []intentRecord) (found []difference, events, gaps int64, err error) {
	if _, err := tx.Exec(ctx, arrived); err != nil {
		return nil, 0, 0, fmt.Errorf("make a table of records: %w", err)
	}
	columns := append([]string{"partition", "offset", "key", "value"}, intentHeaders[:]...)
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"arrived"}, columns, pgx.CopyFromSlice(len(records), func(i int) ([]any, error) {
		r := records[i]
		row := []any{r.partition, r.offset, r.key, r.value}
		for _, h := range r.headers {
			row = append(row, h)
		}
		return row, nil
	}))
	if err != nil {
		return nil, 0, 0, fmt.Errorf("give PostgreSQL the records: %w", err)
	}
	rows, err := tx.Query(ctx, judgeIntents, category)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("compare intents: %w", err)
	}
	var d difference
	_, err = pgx.ForEachRow(rows, []any{&d.kind, &d.key}, func() error {
		found = append(found, d)
		return nil
	})
	if err != nil {
		return nil, 0, 0, fmt.Errorf("compare intents: %w", err)
	}
	// Positions are those of the whole log.
	err = tx.QueryRow(ctx, `SELECT
			(SELECT count(*) FROM es.event WHERE split_part(stream, '/', 1) = $1),
			(SELECT greatest(coalesce(max(pos), 0), (SELECT count(*) FROM es.event)) - count(*) FROM es.log)`, category).Scan(&events, &gaps)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("count the events: %w", err)
	}
	if _, err := tx.Exec(ctx, "DROP TABLE arrived"); err != nil {
		return nil, 0, 0, fmt.Errorf("drop the table of records: %w", err)
	}
	return found, events, gaps, nil
}

// judgeIntentTopics holds every topic of intents, as it was before compaction and as
// it is, against the store.
func judgeIntentTopics(ctx context.Context, client *sink.Client, u *university, before map[string]intentContents) ([]IntentResult, error) {
	var results []IntentResult
	// Not read-only: the records go into a temporary table.
	err := pgx.BeginTxFunc(ctx, u.conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		for topic, category := range intentTopics {
			after, err := readIntents(ctx, client, topic)
			if err != nil {
				return err
			}
			found, events, gaps, err := compareIntents(ctx, tx, category, after.records)
			if err != nil {
				return err
			}
			results = append(results, intentResult(topic, before[topic], after, found, events, gaps))
		}
		return nil
	})
	return results, err
}

func intentResult(topic string, before, after intentContents, found []difference, events, gaps int64) IntentResult {
	r := IntentResult{
		Topic: topic, Records: int64(len(before.records)), Compacted: int64(len(after.records)), Events: events,
		Gaps: gaps, Disturbed: before.disturbed(after),
	}
	for _, d := range found {
		switch d.kind {
		case missing:
			r.Missing++
		case ghost:
			r.Ghosts++
		case doubled:
			r.Doubled++
		case disorder:
			r.Disorder++
		default:
			r.Different++
		}
	}
	// Counting shows what a comparison by ids could overlook.
	r.Equal = len(found) == 0 && r.Gaps == 0 && r.Disturbed == 0 && r.Compacted == r.Events
	r.Samples = sampled(found)
	return r
}

// fault counts what is wrong.
func (r IntentResult) fault() string {
	return counted(fmt.Sprintf("%d records for %d events", r.Compacted, r.Events), []count{
		{int64(r.Missing), "missing"}, {int64(r.Ghosts), "ghosts"}, {int64(r.Doubled), "doubled"}, {int64(r.Different), "different"},
		{int64(r.Disorder), "out of order"}, {r.Gaps, "positions without an event"}, {int64(r.Disturbed), "not kept by compaction"},
	})
}
