package eventstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/intent"
)

// VerifyOptions says how much Verify tells, and how long it waits.
type VerifyOptions struct {
	Samples int // differences shown
	// Patience is how long is waited for the numbers of what is committed, where a
	// daemon gives them. 0: barrierPatience.
	Patience time.Duration
}

// verifyWaiting bounds the events without a position that are held in memory until
// they are asked for again. Behind a Barrier they are what was committed in the
// milliseconds since.
const verifyWaiting = 10_000

// Verify compares es.log with es.event, as of one moment and while appends go on:
// positions are 1 to the head without a hole, each has its event, every event that was
// committed has a position or waits for one, streams have the versions 1 to theirs, and
// their positions follow their versions. Rows are events, Records positions; Missing
// are events without a position, Ghosts positions without an event, Different what is
// wrong with positions or versions themselves. The login must be es_owner.
//
// An event without a position waits if it was committed a moment ago, and is lost if
// not. So the snapshot that all is read in is taken between two Barriers: what has no
// position in it, and none behind the second Barrier, never gets one. Where nobody
// numbers there are no Barriers, and what waits cannot be told from what is lost.
func (s *Store) Verify(ctx context.Context, o VerifyOptions) (cdc.Verification, error) {
	v := logCheck{Verification: cdc.Verification{Subject: "log"}, store: s, samples: o.Samples, patience: o.Patience}
	if v.patience <= 0 {
		v.patience = barrierPatience
	}
	began := time.Now()
	err := v.run(ctx)
	v.At = time.Now()
	v.Took = v.At.Sub(began)
	if err != nil {
		return v.Verification, fmt.Errorf("verify the log: %w", typed(err))
	}
	return v.Verification, nil
}

// Numbering says whether a daemon reads the slot right now.
func (s *Store) Numbering(ctx context.Context) (yes bool, err error) {
	err = s.pool.QueryRow(ctx, `select exists (select from es.reader r join pg_replication_slots s on s.slot_name = r.slot and s.active)`).Scan(&yes)
	if err != nil {
		return false, fmt.Errorf("ask whether events are numbered: %w", typed(err))
	}
	return yes, nil
}

// logCheck is one run of Verify.
type logCheck struct {
	cdc.Verification
	store    *Store
	samples  int
	patience time.Duration

	waiting []unnumbered // in the snapshot
	damaged bool         // more is wrong than events without a position
	late    string       // why a Barrier was not passed
}

// unnumbered is an event without a position.
type unnumbered struct {
	id      intent.ID
	stream  string
	version int64
}

func (v *logCheck) run(ctx context.Context) error {
	runs, err := v.store.Numbering(ctx)
	if err != nil {
		return err
	}
	if runs {
		if runs, err = v.barrier(ctx); err != nil {
			return err
		}
	}
	err = pgx.BeginTxFunc(ctx, v.store.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		return v.read(ctx, tx)
	})
	if err != nil {
		return err
	}
	if runs && len(v.waiting) > 0 {
		if runs, err = v.barrier(ctx); err != nil {
			return err
		}
	}
	if runs && len(v.waiting) > 0 {
		if err := v.lost(ctx); err != nil {
			return err
		}
		v.Records += int64(len(v.waiting)) - v.Missing // got theirs meanwhile
		v.waiting = nil
	}
	v.judge()
	return nil
}

// barrier waits until what is committed is numbered; false: not in time.
func (v *logCheck) barrier(ctx context.Context) (passed bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, v.patience)
	defer cancel()
	err = Barrier(bounded, v.store.pool)
	var late *BarrierError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &late) && ctx.Err() == nil:
		v.late = late.Error()
		return false, nil
	}
	return false, err
}

// read looks at everything in one snapshot.
func (v *logCheck) read(ctx context.Context, tx pgx.Tx) error {
	var head, below, alarms int64
	err := tx.QueryRow(ctx, `select (select count(*) from es.event), l.n, l.below, l.last, es.head(),
			(select count(*) from es.alarm where acknowledged is null)
		from (select count(*) as n, count(*) filter (where pos < 1) as below, coalesce(max(pos), 0) as last from es.log) l`).
		Scan(&v.Rows, &v.Records, &below, &v.Position, &head, &alarms)
	if err != nil {
		return fmt.Errorf("count events and positions: %w", err)
	}
	if alarms > 0 {
		v.remark(fmt.Sprintf("%d changes of stored events were seen in the WAL and are not acknowledged: cdc es alarms", alarms))
	}
	if head != v.Position {
		v.wrong(1, cdc.Sample{Kind: "different", Key: "head", Columns: diff("position", v.Position, head)})
	}
	if holes := v.Position - (v.Records - below) + below; holes > 0 {
		if err := v.holes(ctx, tx, holes); err != nil {
			return err
		}
	}
	if err := v.strangers(ctx, tx); err != nil {
		return err
	}
	if err := v.streams(ctx, tx); err != nil {
		return err
	}
	if err := v.order(ctx, tx); err != nil {
		return err
	}
	return v.wait(ctx, tx)
}

// holes shows where positions are left out.
func (v *logCheck) holes(ctx context.Context, tx pgx.Tx, n int64) error {
	v.wrong(n)
	var pos, before int64
	return each(ctx, tx, "positions that are left out", `select pos, before from (select pos, lag(pos, 1, 0::bigint) over (order by pos) as before from es.log) l
		where pos <> before + 1 order by pos limit $1`, []any{&pos, &before}, func() {
		key := fmt.Sprintf("position %d", before+1)
		switch {
		case pos < 1:
			key = fmt.Sprintf("position %d", pos)
		case pos > before+2:
			key = fmt.Sprintf("positions %d to %d", before+1, pos-1)
		}
		v.show(cdc.Sample{Kind: "different", Key: key, Columns: []cdc.ColumnDiff{{Column: "es.log", Source: `"every position from 1 to the head"`, Target: `"a hole"`}}})
	}, v.samples)
}

// strangers are positions without an event.
func (v *logCheck) strangers(ctx context.Context, tx pgx.Tx) error {
	var pos int64
	return each(ctx, tx, "positions without an event", `select count(*) over (), pos from es.log l
		where not exists (select from es.event e where e.id = l.event) order by pos limit $1`, []any{&v.Ghosts, &pos}, func() {
		v.damaged = true
		v.show(cdc.Sample{Kind: "ghost", Key: fmt.Sprintf("position %d", pos)})
	}, max(v.samples, 1))
}

// streams are those whose versions are not 1 to the stream's own.
func (v *logCheck) streams(ctx context.Context, tx pgx.Tx) error {
	var n, events, last int64
	var version *int64
	var stream string
	err := each(ctx, tx, "versions of streams", `select count(*) over (), stream, coalesce(n, 0), coalesce(last, 0), s.version
		from es.stream s full join (select stream, count(*) as n, min(version) as first, max(version) as last from es.event group by stream) e using (stream)
		where s.version is distinct from coalesce(last, 0) or coalesce(n, 0) <> coalesce(last, 0) or first <> 1
		order by stream limit $1`, []any{&n, &stream, &events, &last, &version}, func() {
		said := int64(-1)
		if version != nil {
			said = *version
		}
		v.show(cdc.Sample{Kind: "different", Key: stream, Columns: append(diff("version", said, last), diff("events", said, events)...)})
	}, max(v.samples, 1))
	if n > 0 {
		v.wrong(n)
	}
	return err
}

// order finds events that stand in the log before an earlier one of their stream.
func (v *logCheck) order(ctx context.Context, tx pgx.Tx) error {
	var n, version, pos, before int64
	var stream string
	err := each(ctx, tx, "the order of streams", `select count(*) over (), stream, version, pos, before from (
			select e.stream, e.version, l.pos, lag(l.pos) over (partition by e.stream order by e.version) as before
			from es.event e join es.log l on l.event = e.id) o
		where pos < before order by pos limit $1`, []any{&n, &stream, &version, &pos, &before}, func() {
		v.show(cdc.Sample{Kind: "different", Key: fmt.Sprintf("%s @%d", stream, version),
			Columns: []cdc.ColumnDiff{{Column: "position", Source: fmt.Sprintf(`"behind %d"`, before), Target: fmt.Sprint(pos)}}})
	}, max(v.samples, 1))
	if n > 0 {
		v.wrong(n)
	}
	return err
}

// wait notes the events without a position, the oldest first.
func (v *logCheck) wait(ctx context.Context, tx pgx.Tx) error {
	var id [16]byte
	var e unnumbered
	return each(ctx, tx, "events without a position", `select e.id, e.stream, e.version from es.event e
		where not exists (select from es.log l where l.event = e.id) order by e.at, e.stream, e.version limit $1`, []any{&id, &e.stream, &e.version}, func() {
		e.id = id
		v.waiting = append(v.waiting, e)
	}, verifyWaiting)
}

// lost counts those that have none still, behind a Barrier.
func (v *logCheck) lost(ctx context.Context) error {
	ids := make([][16]byte, len(v.waiting))
	for i, e := range v.waiting {
		ids[i] = e.id
	}
	rows, err := v.store.pool.Query(ctx, `select i from unnest($1::uuid[]) with ordinality u(id, i)
		where not exists (select from es.log l where l.event = u.id) order by i`, ids)
	if err != nil {
		return fmt.Errorf("look for %d positions: %w", len(ids), err)
	}
	var i int
	_, err = pgx.ForEachRow(rows, []any{&i}, func() error {
		v.Missing++
		v.show(v.waiting[i-1].sample())
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for %d positions: %w", len(ids), err)
	}
	if len(ids) == verifyWaiting && v.Missing > 0 {
		v.remark(fmt.Sprintf("of the events without a position the oldest %d were looked at", verifyWaiting))
	}
	return nil
}

func (e *unnumbered) sample() cdc.Sample {
	return cdc.Sample{Kind: "missing", Key: fmt.Sprintf("%s @%d", e.stream, e.version), Partition: -1, Offset: -1}
}

const (
	mendLog  = "Restore the schema es as a whole from one backup: its tables do not fit each other."
	mendLost = "Stop the daemon and start it again: at its start it looks for such events and gives them positions."
)

// judge gives the verdict.
func (v *logCheck) judge() {
	switch {
	case v.Differences() > 0:
		v.Verdict = cdc.VerdictDifferent
		if v.Mend = mendLog; !v.damaged {
			v.Mend = mendLost
		}
	case len(v.waiting) > 0:
		v.Verdict = cdc.VerdictUnchecked
		if v.late == "" {
			v.late = "nothing numbers events right now: start the daemon (cdc run)"
		}
		more := ""
		if len(v.waiting) == verifyWaiting {
			more = " or more"
		}
		v.remark(fmt.Sprintf("%d%s events without a position, and whether they wait for one cannot be told: %s", len(v.waiting), more, v.late))
	default:
		v.Verdict = cdc.VerdictEqual
	}
}

func (v *logCheck) remark(text string) {
	if v.Why != "" {
		v.Why += "; "
	}
	v.Why += text
}

// wrong counts what no new position mends.
func (v *logCheck) wrong(n int64, samples ...cdc.Sample) {
	v.damaged = true
	v.Different += n
	for _, s := range samples {
		v.show(s)
	}
}

func (v *logCheck) show(s cdc.Sample) {
	if len(v.Samples) < v.samples {
		s.Partition, s.Offset = -1, -1
		v.Samples = append(v.Samples, s)
	}
}

// diff is a number that differs; below 0: the side has none.
func diff(column string, source, target int64) []cdc.ColumnDiff {
	text := func(n int64) string {
		if n < 0 {
			return ""
		}
		return fmt.Sprint(n)
	}
	return []cdc.ColumnDiff{{Column: column, Source: text(source), Target: text(target)}}
}

// each calls fn for the rows of a query, at most limit of them.
func each(ctx context.Context, tx pgx.Tx, what, sql string, into []any, fn func(), limit int) error {
	rows, err := tx.Query(ctx, sql, limit)
	if err == nil {
		_, err = pgx.ForEachRow(rows, into, func() error { fn(); return nil })
	}
	if err != nil {
		return fmt.Errorf("look for %s: %w", what, err)
	}
	return nil
}
