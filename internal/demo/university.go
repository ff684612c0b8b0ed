package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
)

//go:embed schema.sql
var schema string

// database is the university's.
const database = "university"

// A table of the university and the columns of its primary key, which is the key
// of its records.
type table struct {
	name string
	key  []string
}

// tables in the order they are shown.
var tables = []table{
	{"students", []string{"id"}},
	{"courses", []string{"id"}},
	{"enrolments", []string{"student_id", "course_id"}},
	{"waiting_list", []string{"course_id", "student_id"}},
	{"feedback", []string{"id"}},
}

// topic is the table's, as the configuration names it.
func (t table) topic() string { return database + "." + t.name }

// firstStudents are there before the pipelines start: the snapshot has something to copy.
const firstStudents = 150

// firstEnrolments fill the small courses, so that waiting lists form soon, and the
// others to two thirds.
const firstEnrolments = `
	INSERT INTO enrolments (student_id, course_id)
	SELECT s.id, c.id FROM courses c CROSS JOIN LATERAL (
		SELECT id FROM students ORDER BY md5(id || c.id)
		LIMIT CASE WHEN c.capacity <= 20 THEN c.capacity ELSE c.capacity * 2 / 3 END) s`

// university is the database, as its administration knows it.
type university struct {
	url  string
	conn *pgx.Conn // for everything but the workload
}

// openUniversity creates the database and fills it, where that was not done before.
// maintenance and url are connection strings of the cluster's database postgres
// and of the university.
func openUniversity(ctx context.Context, maintenance, url string, seed uint64) (_ *university, err error) {
	if err := createDatabase(ctx, maintenance); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect to the university: %w", err)
	}
	u := &university{url: url, conn: conn}
	if err := u.found(ctx, seed); err != nil {
		return nil, errors.Join(err, u.close(ctx))
	}
	return u, nil
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

// found creates the tables, and in an empty university the courses and the first
// students.
func (u *university) found(ctx context.Context, seed uint64) error {
	// Without parameters it is one simple query: many statements, one transaction.
	if _, err := u.conn.Exec(ctx, schema); err != nil {
		return fmt.Errorf("create the university's tables: %w", err)
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
		_, err := tx.Exec(ctx, firstEnrolments)
		return err
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

func (u *university) close(ctx context.Context) error { return u.conn.Close(ctx) }
