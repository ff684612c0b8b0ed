package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/eventpipe"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

//go:embed schema.sql
var schema string

// database is the university's.
const database = "university"

// A table of the university and the columns of its primary key, which is the key
// of its records.
type table struct {
	schema, name string
	key          []string
}

// tables in the order they are shown: rows that the workload writes, and those of
// views, which follow from its events.
var tables = []table{
	{"public", "students", []string{"id"}},
	{"public", "courses", []string{"id"}},
	{"views", "enrolments", []string{"course", "student"}},
	{"views", "waiting_list", []string{"course", "student"}},
	{"public", "feedback", []string{"id"}},
}

// topic is the table's, as the configuration names it.
func (t table) topic() string { return database + "." + t.name }

// intentTopics hold the events, one topic for each category of streams.
var intentTopics = map[string]string{database + ".events." + category: category}

// firstStudents are there before the pipelines start: the snapshot has something to copy.
const firstStudents = 150

// firstPlaces says who has a place from the beginning: small courses are full, so
// that waiting lists form soon, the others to two thirds.
const firstPlaces = `
	SELECT c.id, s.id FROM courses c CROSS JOIN LATERAL (
		SELECT id FROM students ORDER BY md5(id || c.id)
		LIMIT CASE WHEN c.capacity <= 20 THEN c.capacity ELSE c.capacity * 2 / 3 END) s ORDER BY 1, 2`

// university is the database, as its administration knows it.
type university struct {
	url   string
	conn  *pgx.Conn         // for everything but the workload
	store *eventstore.Store // of its events
}

// openUniversity creates the database. maintenance and url are connection strings
// of the cluster's database postgres and of the university.
func openUniversity(ctx context.Context, maintenance, url string) (_ *university, err error) {
	if err := createDatabase(ctx, maintenance); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect to the university: %w", err)
	}
	u := &university{url: url, conn: conn}
	if err := u.prepare(ctx); err != nil {
		return nil, errors.Join(err, u.close(ctx))
	}
	return u, nil
}

// errOlder is a university whose enrolments are rows that no event tells of.
var errOlder = errors.New("the university in this folder was made by an earlier version of cdc, which kept enrolments without their events: start again with --fresh, or name another folder with --dir")

// prepare makes what was not made before: the store of events and the tables.
func (u *university) prepare(ctx context.Context) (err error) {
	var older bool
	if err := u.conn.QueryRow(ctx, "SELECT to_regclass('public.enrolments') IS NOT NULL").Scan(&older); err != nil {
		return fmt.Errorf("look at the university: %w", err)
	}
	if older {
		return errOlder
	}
	if _, err := eventstore.Init(ctx, u.url, eventstore.InitOptions{}); err != nil {
		return err
	}
	// Without parameters it is one simple query: many statements, one transaction.
	if _, err := u.conn.Exec(ctx, schema); err != nil {
		return fmt.Errorf("create the university's tables: %w", err)
	}
	u.store, err = eventstore.Open(ctx, eventstore.Config{URL: u.url, MaxConns: storeConnections})
	return err
}

// storeConnections: one at work, and one to spare.
const storeConnections = 2

// extended says that an earlier run has added what a run adds half-way.
func (u *university) extended(ctx context.Context) (yes bool, err error) {
	err = u.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM es.reaction WHERE name = $1)", addedReaction).Scan(&yes)
	if err != nil {
		return false, fmt.Errorf("look for reaction %s: %w", addedReaction, err)
	}
	return yes, nil
}

func createDatabase(ctx context.Context, maintenance string) (err error) {
	conn, err := pgx.Connect(ctx, maintenance)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database).Scan(&there); err != nil {
		return fmt.Errorf("look for database %s: %w", database, err)
	}
	if there {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+database); err != nil {
		return fmt.Errorf("create database %s: %w", database, err)
	}
	return nil
}

// found installs the definitions, so that the tables of views are there before a
// pipeline looks for them, and fills an empty university: courses, the first
// students, their places.
func (u *university) found(ctx context.Context, defs intent.Definitions, seed uint64) error {
	if _, err := eventpipe.Install(ctx, u.store, defs); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	err := pgx.BeginFunc(ctx, u.conn, func(tx pgx.Tx) error {
		var empty bool
		if err := tx.QueryRow(ctx, "SELECT NOT EXISTS (SELECT FROM courses)").Scan(&empty); err != nil || !empty {
			return err
		}
		for _, c := range courses {
			if err := addCourse(ctx, tx, rng, c); err != nil {
				return err
			}
		}
		for range firstStudents {
			if err := join(ctx, tx, rng); err != nil {
				return err
			}
		}
		rows, err := tx.Query(ctx, firstPlaces)
		if err != nil {
			return err
		}
		var m meaning
		var course string
		var student int64
		_, err = pgx.ForEachRow(rows, []any{&course, &student}, func() error {
			m.add(course, "student-enrolled", map[string]any{"student": student})
			return nil
		})
		if err != nil {
			return err
		}
		return m.append(ctx, tx, office, intent.ID{})
	})
	if err != nil {
		return fmt.Errorf("fill the university: %w", err)
	}
	return nil
}

// end is the end of PostgreSQL's log now: what was committed before lies before it.
func (u *university) end(ctx context.Context) (cdc.LSN, error) {
	var text string
	if err := u.conn.QueryRow(ctx, "SELECT pg_current_wal_lsn()::text").Scan(&text); err != nil {
		return 0, fmt.Errorf("ask for the end of PostgreSQL's log: %w", err)
	}
	return cdc.ParseLSN(text)
}

// events is how many there are, numbered or not.
func (u *university) events(ctx context.Context) (n int64, err error) {
	if err := u.conn.QueryRow(ctx, "SELECT count(*) FROM es.event").Scan(&n); err != nil {
		return 0, fmt.Errorf("count the events: %w", err)
	}
	return n, nil
}

// offers counts what the reaction has appended.
func (u *university) offers(ctx context.Context) (n int64, err error) {
	err = u.conn.QueryRow(ctx, "SELECT count(*) FROM es.event WHERE meta->>'actor' = $1", actorReaction+addedReaction).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count the offers: %w", err)
	}
	return n, nil
}

func (u *university) close(ctx context.Context) error {
	if u.store != nil {
		u.store.Close()
	}
	return u.conn.Close(ctx)
}
