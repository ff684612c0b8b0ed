package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

// seats are definitions whose reaction appends one event for each that triggers it,
// whatever the views hold, so that every one of them can be counted.
const seats = `
    events:
      taken: {stream: "seat/{seat}", data: {seat: string, by: string, n: int}}
      left: {stream: "seat/{seat}", data: {seat: string, by: string, n: int}}
      cleaned: {stream: "cleaning/{seat}", data: {seat: string, waited: int}}
    views:
      seated:
        mode: inline
        table: "seat text, by text, n bigint, primary key (seat, by)"
        when:
          taken: "insert into seated values (:seat, :by, :n) on conflict (seat, by) do update set n = seated.n + excluded.n"
          left: "delete from seated where seat = :seat and by = :by"
      visits:
        mode: async
        table: "seat text primary key, n bigint, last bigint"
        when:
          taken: "insert into visits values (:seat, 1, :pos) on conflict (seat) do update set n = visits.n + 1, last = excluded.last"
    reactions:
      clean:
        after: visits
        when: [left]
        append: |
          select 'cleaned' as type, jsonb_build_object('seat', :seat, 'waited', coalesce((select n from views.visits where seat = :seat), 0)) as data
`

// writers append to a store until they are stopped, and remember what they were
// told of each transaction.
type writers struct {
	t      *testing.T
	url    string
	wg     sync.WaitGroup
	stop   atomic.Bool
	mu     sync.Mutex
	stored map[string]bool // ids of events whose commit was answered
	undone map[string]bool // ids of events that were rolled back
}

const (
	writersAtOnce = 8
	seatsThere    = 24
)

func (w *writers) start(seed uint64) {
	w.stored, w.undone = map[string]bool{}, map[string]bool{}
	for i := range writersAtOnce {
		w.wg.Go(func() {
			if err := w.write(rand.New(rand.NewPCG(seed, uint64(i)))); err != nil {
				w.t.Errorf("writer %d: %v", i, err)
			}
		})
	}
}

func (w *writers) write(rnd *rand.Rand) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, w.url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for !w.stop.Load() {
		var ids []string
		tx, err := conn.Begin(ctx)
		if err != nil {
			return err
		}
		calls := 1 + rnd.IntN(2)
		for range calls {
			batches, more := randomBatches(rnd)
			if _, err = tx.Exec(ctx, "select es.append($1::jsonb)", batches); err != nil {
				break
			}
			ids = append(ids, more...)
		}
		undo := err != nil || rnd.IntN(5) == 0
		if undo {
			var pe *pgconn.PgError
			if errors.As(err, &pe) && pe.Code == "40P01" { // calls of one transaction lock streams in any order
				err = nil
			}
			err = errors.Join(err, tx.Rollback(ctx))
		} else {
			err = tx.Commit(ctx)
		}
		if err != nil {
			return err
		}
		w.mu.Lock()
		for _, id := range ids {
			if undo {
				w.undone[id] = true
			} else {
				w.stored[id] = true
			}
		}
		w.mu.Unlock()
		time.Sleep(time.Duration(rnd.IntN(12)) * time.Millisecond) // the machine is the daemon's too
	}
	return nil
}

// randomBatches is one call of es.append: one to three streams, one to three events
// each.
func randomBatches(rnd *rand.Rand) (batches string, ids []string) {
	var list []string
	for _, seat := range rnd.Perm(seatsThere)[:1+rnd.IntN(3)] {
		var events []string
		for range 1 + rnd.IntN(3) {
			id, typ := intent.NewID().String(), "taken"
			if rnd.IntN(4) == 0 {
				typ = "left"
			}
			ids = append(ids, id)
			events = append(events, fmt.Sprintf(`{"id":%q,"type":%q,"data":{"seat":"%d","by":"p%d","n":%d}}`, id, typ, seat, rnd.IntN(5), 1+rnd.IntN(9)))
		}
		list = append(list, fmt.Sprintf(`{"stream":"seat/%d","events":[%s]}`, seat, strings.Join(events, ",")))
	}
	return "[" + strings.Join(list, ",") + "]", ids
}

// The daemon is killed again and again while eight writers append and roll back.
// Behind it the log is dense, each event that was committed is in its topic once and
// in the order of its stream, the views are what a replay gives, the compacted topic
// of a view is the view, and every trigger has one event of the reaction.
func TestEventsKilledInALoop(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, writersAtOnce))
	u := newUniversity(t, seats)
	u.yaml = strings.Replace(u.yamlOf(u.events(seats), u.viewRows()), "level: debug", "level: info", 1)
	u.path = file(t, u.yaml)
	u.do(t, 0, "es", "init")

	w := &writers{t: t, url: u.db.URL}
	w.start(seed)
	stop := sync.OnceFunc(func() { w.stop.Store(true); w.wg.Wait() })
	defer stop()
	const kills = 8
	for i := range kills {
		p := cdctest.StartCDC(t, u.yaml)
		if i%2 == 0 { // else it is killed while it starts
			p.WaitReady(t, u.admin)
		}
		time.Sleep(time.Duration(rnd.IntN(700)) * time.Millisecond) // the moment of the kill is drawn
		p.Kill9()
	}
	u.run()
	stop()
	if t.Failed() {
		return
	}

	// The reactions go on while triggers are left.
	pending := `select count(*) from es.event e where type = 'left' and not exists (select from es.event r where r.type = 'cleaned' and r.meta->>'causation' = e.id::text)`
	await(t, "every trigger has a reaction", func() bool { return u.db.Value(t, pending) == "0" })
	all := u.published(t)
	u.applied(t, all)
	if s := u.status(t); !s.Ready {
		t.Errorf("not ready: %+v", s)
	}
	t.Logf("%d events, %d of them appended by writers, %d rolled back", all, len(w.stored), len(w.undone))
	u.storeIsWhole(t, w, all)
	u.topicsAreWhole(t, all)
	u.do(t, 0, "views", "verify")
	u.viewIsItsTopic(t, "seated", "by", "n", "seat")
	u.viewIsItsTopic(t, "visits", "last", "n", "seat")
	u.daemon.Stop(t)
}

// applied waits until the asynchronous views have seen everything.
func (u *university) applied(t *testing.T, all int64) {
	t.Helper()
	await(t, "the views have seen everything", func() bool {
		return !slices.ContainsFunc(u.builds(t), func(v intent.ViewStatus) bool { return v.State != "live" || v.Position < all })
	})
}

// storeIsWhole compares the store with what the writers were told, and the log with
// the store.
func (u *university) storeIsWhole(t *testing.T, w *writers, all int64) {
	t.Helper()
	// What was appended before there was a slot is numbered in the order of its time,
	// at an LSN where no record begins.
	stored, reactions := map[string]bool{}, 0
	for _, row := range u.db.Query(t, "select id, type from es.event") {
		if row[1] == "cleaned" {
			reactions++
			continue
		}
		stored[row[0]] = true
	}
	if !maps.Equal(stored, w.stored) {
		t.Errorf("%d events of writers are stored, %d were committed", len(stored), len(w.stored))
	}
	for id := range w.undone {
		if stored[id] {
			t.Errorf("event %s was rolled back and is stored", id)
		}
	}
	for what, sql := range map[string]string{
		"positions with a gap":                             `select count(*) from (select pos, row_number() over (order by pos) as n from es.log) l where pos <> n`,
		"events without a position":                        `select count(*) from es.event e where not exists (select from es.log where event = e.id)`,
		"positions without an event":                       `select count(*) from es.log l where not exists (select from es.event where id = l.event)`,
		"streams out of order in the log":                  `select count(*) from (select stream, version, row_number() over (partition by stream order by pos) as n from es.event join es.log on event = id) l where version <> n`,
		"transactions torn in the log":                     `select count(*) from (select tx from es.log where (lsn - '0/0') % 8 = 0 group by tx having max(pos) - min(pos) + 1 <> count(*)) l`,
		"triggers with another number of reactions than 1": `select count(*) from es.event e where type = 'left' and 1 <> (select count(*) from es.event r where r.type = 'cleaned' and r.meta->>'causation' = e.id::text)`,
		"reactions without a trigger":                      `select count(*) from es.event r where type = 'cleaned' and not exists (select from es.event e where e.type = 'left' and r.meta->>'causation' = e.id::text)`,
		"alarms":                                           `select count(*) from es.alarm`,
	} {
		if n := u.db.Value(t, sql); n != "0" {
			t.Errorf("%s %s", n, what)
		}
	}
	if int64(len(stored)+reactions) != all {
		t.Errorf("%d events and %d reactions, the log ends at %d", len(stored), reactions, all)
	}
}

// topicsAreWhole reads the history with another client and compares it with the log.
func (u *university) topicsAreWhole(t *testing.T, all int64) {
	t.Helper()
	want := map[string][]string{}
	for _, row := range u.db.Query(t, "select pos, id, stream, version, type, data from es.event join es.log on event = id") {
		want[row[0]] = row[1:]
	}
	seen := map[string]bool{}
	for _, category := range []string{"seat", "cleaning"} {
		versions, last := map[string]int{}, map[int32]int{}
		for _, rec := range cdctest.Read(t, u.brokers, u.db.Name+".events."+category) {
			header := func(key string) string { v, _ := rec.Header(key); return string(v) }
			position, version, stream := header("position"), header("version"), string(rec.Key)
			if seen[position] {
				t.Errorf("position %s is there twice", position)
			}
			seen[position] = true
			if row := want[position]; row == nil || !slices.Equal(row[:4], []string{header("id"), stream, version, header("type")}) || !sameJSON(row[4], string(rec.Value)) {
				t.Errorf("position %s: record %s %s %s %s %s, the store has %q", position, header("id"), stream, version, header("type"), rec.Value, row)
			}
			if n, err := strconv.Atoi(position); err != nil || n <= last[rec.Partition] {
				t.Errorf("partition %d: position %q behind %d", rec.Partition, position, last[rec.Partition])
			} else {
				last[rec.Partition] = n
			}
			if n, err := strconv.Atoi(version); err != nil || n != versions[stream]+1 {
				t.Errorf("stream %s: version %q behind %d", stream, version, versions[stream])
			} else {
				versions[stream] = n
			}
		}
	}
	if int64(len(seen)) != all {
		t.Errorf("%d positions are in the topics, the log has %d", len(seen), all)
	}
}

// viewIsItsTopic waits until the compacted topic of a view, folded, is the view.
func (u *university) viewIsItsTopic(t *testing.T, name string, columns ...string) {
	t.Helper()
	pairs := make([]string, len(columns))
	for i, c := range columns {
		pairs[i] = fmt.Sprintf("'%s', %s", c, c)
	}
	want := map[string]bool{}
	for _, row := range u.db.Query(t, fmt.Sprintf("select jsonb_build_object(%s) from views.%s", strings.Join(pairs, ", "), name)) {
		want[canonical(row[0])] = true
	}
	records := cdctest.WaitRecords(t, u.brokers, u.viewTopic(name), func(records []cdctest.Record) bool {
		got := map[string]bool{}
		for _, v := range cdctest.Fold(records) {
			got[canonical(v)] = true
		}
		return maps.Equal(got, want)
	})
	once(t, records)
}

func sameJSON(a, b string) bool { return canonical(a) == canonical(b) }

// canonical is JSON with its members sorted and without space.
func canonical(text string) string {
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return text
	}
	b, err := json.Marshal(v)
	if err != nil {
		return text
	}
	return string(b)
}
