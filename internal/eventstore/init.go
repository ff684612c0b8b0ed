package eventstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/cdc"
)

// initLock is the key of the advisory lock that Init holds: "es init" in ASCII.
const initLock = 0x657320696e6974

// Roles are of the cluster: Init of another database may make them at the same
// moment, and Postgres reports that as an error of one of the two. Each attempt
// that fails so leaves another Init that has succeeded.
const (
	initAttempts = 50
	initPause    = 20 * time.Millisecond
)

// oldestServer is the first version of Postgres the schema works on.
const oldestServer = 140000

// InitOptions name the logins that get their memberships.
type InitOptions struct {
	Daemon string // login of the daemon: es_owner, es_view and, for what it serves over HTTP, es_writer, and CREATE on the database where Init may give it
	App    string // login of an application that appends: es_writer
}

// InitReport is what Init did.
type InitReport struct {
	Database string   `json:"database"`
	From     int      `json:"from"` // version of the schema before, 0: there was none
	To       int      `json:"to"`
	Notes    []string `json:"notes,omitempty"` // SQL that is still to be run by somebody with more rights
}

// Init makes the schema and its roles, or brings them to this program's version,
// in one transaction; run again it changes nothing. The login is a superuser, or
// has CREATEROLE and CREATE on the database. Errors are TerminalErrors where
// somebody must act: store-rights (Mend is the SQL), store-version (the schema is
// newer than this program), store-name (a schema es or views is of somebody else),
// store-server, role-missing.
func Init(ctx context.Context, url string, o InitOptions) (InitReport, error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return InitReport{}, err
	}
	defer closeConn(conn)
	for attempt := 1; ; attempt++ {
		report, err := initOnce(ctx, conn, o)
		if err == nil || !raced(err) || attempt == initAttempts {
			return report, err
		}
		select {
		case <-time.After(time.Duration(attempt)*initPause/2 + rand.N(initPause)):
		case <-ctx.Done():
			return InitReport{}, err
		}
	}
}

// Plan is the SQL that Init would run now, for an administrator to read and run.
func Plan(ctx context.Context, url string, o InitOptions) (string, error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return "", err
	}
	defer closeConn(conn)
	var b strings.Builder
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		f, err := inspect(ctx, tx, o)
		if err == nil {
			err = f.refuse()
		}
		if err != nil {
			return err
		}
		from := 0
		if f.meta {
			if from, err = versionOf(ctx, tx, &f); err != nil {
				return err
			}
		}
		steps, _ := f.roleSteps(o)
		more, err := f.schemaSteps(from)
		if err != nil {
			return err
		}
		steps = append(steps, more...)
		if len(steps) == 0 {
			b.WriteString("-- nothing to do\n")
		} else {
			fmt.Fprintf(&b, "BEGIN;\nSELECT pg_advisory_xact_lock(%d);\n%s\nCOMMIT;\n", initLock, strings.Join(steps, "\n"))
		}
		for _, n := range f.notes(o) {
			fmt.Fprintf(&b, "%s\n", n)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("plan the event store: %w", err)
	}
	return b.String(), nil
}

// initOnce is one attempt, one transaction.
func initOnce(ctx context.Context, conn *pgx.Conn, o InitOptions) (InitReport, error) {
	report := InitReport{To: Version}
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", int64(initLock)); err != nil {
			return fmt.Errorf("wait for another init of this database: %w", err)
		}
		f, err := inspect(ctx, tx, o)
		if err != nil {
			return err
		}
		if err := f.refuse(); err != nil {
			return err
		}
		report.Database, report.Notes = f.database, f.notes(o)
		steps, missing := f.roleSteps(o)
		if len(missing) > 0 {
			return cdc.Terminal("store-rights", "-- as a superuser:\n"+strings.Join(missing, "\n"),
				"role %q may not make the roles and schema of the event store", f.login)
		}
		if err := run(ctx, tx, steps); err != nil {
			return err
		}
		if f.meta {
			if _, err := tx.Exec(ctx, "set local role "+RoleOwner); err != nil {
				return fmt.Errorf("act as %s: %w", RoleOwner, err)
			}
			if err := tx.QueryRow(ctx, "select version from es.meta").Scan(&report.From); err != nil {
				return fmt.Errorf("read the version of schema es: %w", err)
			}
			if _, err := tx.Exec(ctx, "reset role"); err != nil {
				return err
			}
		}
		if steps, err = f.schemaSteps(report.From); err != nil {
			return err
		}
		return run(ctx, tx, steps)
	})
	if err != nil {
		return InitReport{}, fmt.Errorf("init the event store: %w", err)
	}
	return report, nil
}

func run(ctx context.Context, tx pgx.Tx, steps []string) error {
	for _, sql := range steps {
		if _, err := tx.Exec(ctx, sql); err != nil {
			line, _, _ := strings.Cut(strings.TrimSpace(sql), "\n")
			return fmt.Errorf("run %q: %w", line, err)
		}
	}
	return nil
}

// refuse says why there can be no store here.
func (f *facts) refuse() error {
	switch {
	case f.version < oldestServer:
		return cdc.Terminal("store-server", "Upgrade Postgres to 14 or newer.", "the event store needs PostgreSQL 14, the server has %d.%d", f.version/10000, f.version%10000)
	case f.standby:
		return cdc.Terminal("store-server", "Connect to the primary.", "the server is a read-only standby")
	case f.encoding != "UTF8":
		return cdc.Terminal("store-server", "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0;", "database %q has the encoding %s: events are UTF-8", f.database, f.encoding)
	case f.schema != "" && (f.schema != RoleOwner || !f.meta):
		return cdc.Terminal("store-name", "ALTER SCHEMA es RENAME TO …; -- if it is not needed under this name", "schema es exists, is owned by %q, and is not an event store", f.schema)
	case f.views != "" && f.views != RoleView:
		return cdc.Terminal("store-name", "ALTER SCHEMA views RENAME TO …; -- if it is not needed under this name", "schema views exists and is owned by %q: live views stand there", f.views)
	}
	return nil
}

// versionOf reads the version without having made any grants.
func versionOf(ctx context.Context, tx pgx.Tx, f *facts) (version int, err error) {
	if f.may[RoleOwner] {
		if _, err := tx.Exec(ctx, "set local role "+RoleOwner); err != nil {
			return 0, fmt.Errorf("act as %s: %w", RoleOwner, err)
		}
	}
	err = tx.QueryRow(ctx, "select es.version()").Scan(&version)
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == codeInsufficientPrivilege {
		return 0, cdc.Terminal("store-rights", "GRANT "+RoleOwner+", "+RoleView+" TO "+quote(f.login)+";", "role %q may not read the version of schema es: %w", f.login, err)
	}
	if err != nil {
		return 0, fmt.Errorf("read the version of schema es: %w", err)
	}
	return version, nil
}

// schemaSteps lead from a version to this program's. The files run as es_owner.
func (f *facts) schemaSteps(from int) ([]string, error) {
	if from > Version {
		return nil, cdc.Terminal("store-version", "Install the newer program.", "schema es has version %d, this program knows none above %d", from, Version)
	}
	var steps []string
	if f.schema == "" {
		steps = append(steps, "CREATE SCHEMA es AUTHORIZATION es_owner;")
	}
	if f.views == "" {
		steps = append(steps, "CREATE SCHEMA views AUTHORIZATION es_view;")
	}
	if f.views == "" || from == 0 {
		steps = append(steps, "SET LOCAL ROLE es_view;",
			"ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;",
			"GRANT USAGE ON SCHEMA views TO es_writer, es_reader, es_owner;", "RESET ROLE;")
	}
	if from == Version {
		return steps, nil
	}
	steps = append(steps, "SET LOCAL ROLE es_owner;", "SET LOCAL search_path = pg_catalog;")
	if from == 0 {
		steps = append(steps, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;")
	}
	for v := from + 1; v <= Version; v++ {
		sql, err := migration(v)
		if err != nil {
			return nil, err
		}
		steps = append(steps, sql)
	}
	if from == 0 {
		steps = append(steps, fmt.Sprintf("INSERT INTO es.meta (version) VALUES (%d);", Version))
	} else {
		steps = append(steps, fmt.Sprintf("UPDATE es.meta SET version = %d, changed = now();", Version))
	}
	return append(steps, "RESET ROLE;"), nil
}

// raced says that another Init got in between.
func raced(err error) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return false
	}
	switch pe.Code {
	case "42710", // duplicate_object: the role is there now
		"23505", // unique_violation, in a catalogue
		"XX000", // internal_error: tuple concurrently updated
		"40P01", "40001":
		return true
	}
	return false
}

func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	cfg, err := ParseURL(url)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	return conn, nil
}

func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // the work is committed or failed already
}
