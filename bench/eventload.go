package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// The types of events, all of a course's stream.
const (
	enrolled  = "student-enrolled"
	cancelled = "enrolment-cancelled"
)

// universityEvents declares them.
func universityEvents() []intent.EventType {
	fields := []intent.Field{{Name: "by", Type: intent.TypeString, Optional: true}, {Name: "course", Type: intent.TypeString}, {Name: "reason", Type: intent.TypeString, Optional: true}, {Name: "student", Type: intent.TypeString}}
	var all []intent.EventType
	for _, name := range []string{cancelled, enrolled} {
		all = append(all, intent.EventType{Name: name, Stream: "course/{course}", Schema: 1, Fields: fields})
	}
	return all
}

// simpleView is a table with one row per enrolment: an upsert at nine of ten events,
// a delete at the tenth.
func simpleView(name string, mode intent.ViewMode) intent.View {
	return intent.View{Name: name, Mode: mode, Table: "course text, student text, version bigint, primary key (course, student)", When: map[string]string{
		enrolled:  "insert into " + name + " values (:course, :student, :version) on conflict (course, student) do update set version = excluded.version",
		cancelled: "delete from " + name + " where course = :course and student = :student",
	}}
}

// inlineViews are three views of the same event: a row for each, a row that counts,
// the newest of a student.
func inlineViews() []intent.View {
	return []intent.View{
		simpleView("enrolments", intent.Inline),
		{Name: "counts", Mode: intent.Inline, Table: "course text primary key, n bigint not null", When: map[string]string{
			enrolled: "insert into counts values (:course, 1) on conflict (course) do update set n = counts.n + 1",
		}},
		{Name: "students", Mode: intent.Inline, Table: "student text primary key, course text, at timestamptz", When: map[string]string{
			enrolled: "insert into students values (:student, :course, :at) on conflict (student) do update set course = excluded.course, at = excluded.at",
		}},
	}
}

// eventData is an event's data, of 200 bytes.
func eventData(course, student string) json.RawMessage {
	return fmt.Appendf(nil, `{"course": %q, "student": %q, "reason": "moving to another city, and no place in the other group", "by": "the student, in the portal, on a phone, at home"}`, course, student)
}

// streamsOfClient are the courses each client goes through: more than are hot at once.
const streamsOfClient = 100

// side is one way to store an event.
type side struct {
	name string
	pool *pgxpool.Pool
	// call stores the n-th event of a client, from 0.
	call func(ctx context.Context, client, n int) error
	done [clients]int // calls of each client
}

// course of a client's n-th event, and the version its stream has before.
func courseOf(client, n int) (course string, version int) {
	return fmt.Sprintf("%d-%d", client, n%streamsOfClient), n / streamsOfClient
}

// appendSide appends through es.append, as an application does: with its rights, to
// the version it expects.
func appendSide(name string, store *eventstore.Store) *side {
	return &side{name: name, pool: store.Pool(), call: func(ctx context.Context, client, n int) error {
		course, version := courseOf(client, n)
		_, err := store.Append(ctx, []intent.Batch{{Stream: "course/" + course, Expect: intent.Expect(version), Events: []intent.NewEvent{
			{ID: intent.NewID(), Type: enrolled, Data: eventData(course, fmt.Sprintf("stu_%d", n))},
		}}})
		return err
	}}
}

// insertSide inserts the same rows.
func insertSide(name, table string, pool *pgxpool.Pool) *side {
	sql := "insert into " + table + " (id, stream, version, type, schema, data, meta, subjects) values ($1, $2, $3, $4, $5, $6, $7, $8)"
	return &side{name: name, pool: pool, call: func(ctx context.Context, client, n int) error {
		course, version := courseOf(client, n)
		_, err := pool.Exec(ctx, sql, [16]byte(intent.NewID()), "course/"+course, version+1, enrolled, 1, eventData(course, fmt.Sprintf("stu_%d", n)), json.RawMessage("{}"), []string{})
		return err
	}}
}

// turn has all clients store events for a while, and returns how many a second.
func (s *side) turn(ctx context.Context, d time.Duration) (float64, error) {
	var n atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	began := time.Now()
	for c := range clients {
		all.Go(func() {
			for time.Since(began) < d && failed.Load() == nil {
				if err := s.call(ctx, c, s.done[c]); err != nil {
					failed.Store(&err)
					return
				}
				s.done[c]++
				n.Add(1)
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	if err := failed.Load(); err != nil {
		return 0, fmt.Errorf("%s: %w", s.name, *err)
	}
	return float64(n.Load()) / took.Seconds(), nil
}

// compare gives every side its turns, one after the other, so that a machine that is
// busy with others is as busy for all. The first turn of each warms it up.
func (b *eventBench) compare(ctx context.Context, sides []*side) ([][]float64, error) {
	rates := make([][]float64, len(sides))
	for t := range b.sizes.turns + 1 {
		for i := range sides {
			k := (i + t) % len(sides) // nobody is always first
			rate, err := sides[k].turn(ctx, b.sizes.turn)
			if err != nil {
				return nil, err
			}
			if t > 0 {
				rates[k] = append(rates[k], rate)
			}
		}
	}
	return rates, nil
}

// pool opens as many connections as there are clients.
func openPool(ctx context.Context, url string) (*pgxpool.Pool, error) {
	cfg, err := eventstore.ParsePoolURL(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = clients
	return pgxpool.NewWithConfig(ctx, cfg)
}

// openApp opens a store with the rights of an application.
func openApp(ctx context.Context, url string) (*eventstore.Store, error) {
	return eventstore.Open(ctx, eventstore.Config{URL: url, Role: eventstore.RoleWriter, MaxConns: clients})
}

// fillLog writes events past es.append, as many transactions as there must be: the
// numbers from first on, below end, of thousand courses.
func fillLog(ctx context.Context, c *pgx.Conn, first, end, perTransaction int) error {
	sql := fmt.Sprintf(`
		do $$ declare n bigint := %d; begin
		  while n < %d loop
		    insert into es.event (id, stream, version, type, data, meta)
		    select lpad(to_hex(i), 32, '0')::uuid, 'course/c' || i %% 1000, i / 1000 + 1, case when i %% 10 = 9 then '%s' else '%s' end,
		           jsonb_build_object('course', 'c' || i %% 1000, 'student', 'stu_' || (i / 1000) %% 500, 'reason', 'moving to another city, and no place in the other group', 'by', 'the student, in the portal, on a phone, at home'),
		           '{"actor": "stu_9"}'
		      from generate_series(n, least(n + %d, %d) - 1) i;
		    n := n + %d;
		    commit;
		  end loop;
		end $$`, first, end, cancelled, enrolled, perTransaction, end, perTransaction)
	if _, err := c.Exec(ctx, `insert into es.stream select 'course/c' || i, 0 from generate_series(0, 999) i on conflict do nothing`); err != nil {
		return fmt.Errorf("make streams: %w", err)
	}
	if _, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("fill the log: %w", err)
	}
	return nil
}
