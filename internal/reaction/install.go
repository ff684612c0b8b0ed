package reaction

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// installLock is the key of the advisory lock that Install holds: "es react" in
// ASCII.
const installLock = 0x6573207265616374

// Report is what Install did, by name.
type Report struct {
	New       []string `json:"new,omitempty"`
	Changed   []string `json:"changed,omitempty"` // at their positions, with another text
	Removed   []string `json:"removed,omitempty"` // no longer configured: with their positions
	Unchanged []string `json:"unchanged,omitempty"`
}

// Install makes the reactions of the store those of the definitions, in one
// transaction; those that run follow within a second. A new one begins at the end or
// the beginning of the log, as it says (an event that is not numbered yet lies behind
// the end); a changed one goes on where it is, also where
// it had failed; one that is not configured any more is removed, and would begin anew.
// What has not changed is not touched. Definitions that Check finds fault with may be
// refused here by an error, or fail when they run.
func Install(ctx context.Context, store *eventstore.Store, defs intent.Definitions) (Report, error) {
	var report Report
	err := pgx.BeginFunc(ctx, store.Pool(), func(tx pgx.Tx) error {
		report = Report{}
		return install(ctx, tx, defs, &report)
	})
	if err != nil {
		return Report{}, fmt.Errorf("install reactions: %w", err)
	}
	return report, nil
}

func install(ctx context.Context, tx pgx.Tx, defs intent.Definitions, report *Report) error {
	if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", int64(installLock)); err != nil {
		return fmt.Errorf("wait for another installation: %w", err)
	}
	there, err := hashes(ctx, tx)
	if err != nil {
		return err
	}
	if len(defs.Reactions) > 0 {
		if err := makeSchema(ctx, tx); err != nil {
			return err
		}
	}
	for _, r := range defs.Reactions {
		c := compile(r, defs.Events)
		hash, err := c.hash()
		if err != nil {
			return err
		}
		old, known := there[r.Name]
		delete(there, r.Name)
		switch {
		case !known:
			report.New = append(report.New, r.Name)
		case bytes.Equal(old, hash):
			report.Unchanged = append(report.Unchanged, r.Name)
			continue
		default:
			report.Changed = append(report.Changed, r.Name)
		}
		if err := c.install(ctx, tx, hash); err != nil {
			return fmt.Errorf("reaction %s: %w", r.Name, err)
		}
	}
	for name := range there {
		report.Removed = append(report.Removed, name)
		if err := remove(ctx, tx, name); err != nil {
			return fmt.Errorf("remove reaction %s: %w", name, err)
		}
	}
	for _, names := range [][]string{report.New, report.Changed, report.Removed, report.Unchanged} {
		slices.Sort(names)
	}
	return nil
}

// hashes are those of the reactions that are installed.
func hashes(ctx context.Context, tx pgx.Tx) (map[string][]byte, error) {
	rows, err := tx.Query(ctx, "select name, hash from es.reaction")
	if err != nil {
		return nil, fmt.Errorf("read the installed reactions: %w", err)
	}
	all := map[string][]byte{}
	var name string
	var hash []byte
	if _, err := pgx.ForEachRow(rows, []any{&name, &hash}, func() error {
		all[name] = bytes.Clone(hash)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the installed reactions: %w", err)
	}
	return all, nil
}

// makeSchema makes the schema of the functions, which nobody but the daemon may use.
func makeSchema(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, "create schema if not exists "+schema+" authorization "+eventstore.RoleView); err != nil {
		return fmt.Errorf("make schema %s: %w", schema, err)
	}
	return nil
}

// install makes the functions and the row of a reaction. The row is taken first: a
// reaction that is at work has finished with the old functions then.
func (c *code) install(ctx context.Context, tx pgx.Tx, hash []byte) error {
	definition, err := json.Marshal(c.stored())
	if err != nil {
		return fmt.Errorf("write the definition: %w", err)
	}
	begin := "0"
	if c.reaction.From == intent.FromEnd {
		begin = "es.head()"
	}
	_, err = tx.Exec(ctx, `insert into es.reaction (name, hash, definition, pos) values ($1, $2, $3, `+begin+`)
		on conflict (name) do update set hash = excluded.hash, definition = excluded.definition, error = null`,
		c.reaction.Name, hash, definition)
	if err != nil {
		return fmt.Errorf("store the definition: %w", err)
	}
	if err := dropFunctions(ctx, tx, c.reaction.Name); err != nil {
		return err
	}
	if err := setRole(ctx, tx, eventstore.RoleView); err != nil {
		return err
	}
	// The views that a query names may be made after it.
	if _, err := tx.Exec(ctx, "set local check_function_bodies = off"); err != nil {
		return fmt.Errorf("leave names to be looked up later: %w", err)
	}
	for i, kind := range c.reaction.When {
		text, err := c.functionSQL(i)
		if err != nil {
			return err
		}
		// One command alone, whatever the query holds.
		if _, err := tx.Conn().PgConn().ExecParams(ctx, text, nil, nil, nil, nil).Close(); err != nil {
			return fmt.Errorf("make its function for %s: %w", kind, err)
		}
		if _, err := tx.Exec(ctx, "revoke all on all functions in schema "+schema+" from public"); err != nil {
			return fmt.Errorf("keep its function to ourselves: %w", err)
		}
	}
	return setRole(ctx, tx, "none")
}

// remove takes a reaction away, once it is not at work.
func remove(ctx context.Context, tx pgx.Tx, name string) error {
	if _, err := tx.Exec(ctx, "delete from es.reaction where name = $1", name); err != nil {
		return err
	}
	return dropFunctions(ctx, tx, name)
}

// dropFunctions drops the functions of a reaction. No name of a reaction holds a
// slash.
func dropFunctions(ctx context.Context, tx pgx.Tx, name string) error {
	rows, err := tx.Query(ctx, `select p.oid::pg_catalog.regprocedure::text
		from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
		where n.nspname = $1 and pg_catalog.split_part(p.proname, '/', 1) = $2`, schema, name)
	if err != nil {
		return fmt.Errorf("look up its functions: %w", err)
	}
	functions, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look up its functions: %w", err)
	}
	for _, f := range functions {
		if _, err := tx.Exec(ctx, "drop function "+f); err != nil {
			return fmt.Errorf("drop its function %s: %w", f, err)
		}
	}
	return nil
}
