package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5"
)

// Tables resolves the configured patterns against the catalogue: ordinary
// tables and partitioned ones, the latter through their root. It computes each
// table's message key and refuses, before anything is changed, what could not be
// captured truly: every fault of every table is in the one TerminalError, with
// the SQL that mends it. The result is sorted by name; Rows and Bytes are the
// planner's estimates, which cost no lock.
func (s *Source) Tables(ctx context.Context) ([]cdc.Table, error) {
	var tables []cdc.Table
	err := s.retrySQL(ctx, func(c *pgx.Conn) error {
		tables = nil
		chosen, faults, err := s.resolve(ctx, c)
		if err != nil {
			return err
		}
		for _, t := range chosen {
			key, found := t.validate(s.cfg.Key[t.fullName()], s.version)
			faults = append(faults, found...)
			if len(found) == 0 && !t.unique(key) {
				s.log.Warn("configured key is not unique: rows that share it become one",
					"table", t.fullName(), "key", key)
			}
			tables = append(tables, t.table(key))
		}
		return faults.err()
	})
	if err != nil {
		return nil, fmt.Errorf("resolve tables of %s: %w", s.target, err)
	}
	return tables, nil
}

// Matching is which tables the configured patterns match now, by OID, with their
// names, whether they can be captured or not.
func (s *Source) Matching(ctx context.Context) (map[uint32]string, error) {
	matching := map[uint32]string{}
	err := s.retrySQL(ctx, func(c *pgx.Conn) error {
		all, err := loadTables(ctx, c)
		if err != nil {
			return err
		}
		clear(matching)
		chosen, _ := choose(all, s.cfg.Include, s.cfg.Exclude)
		for _, t := range chosen {
			matching[t.oid] = t.fullName()
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("resolve tables of %s: %w", s.target, err)
	}
	return matching, nil
}

// fault is one reason not to capture what was asked for.
type fault struct{ reason, what, mend string }

type faults []fault

// err puts all faults into one TerminalError, whose reason is the first one's.
func (fs faults) err() error {
	if len(fs) == 0 {
		return nil
	}
	var what, mend []string
	for _, f := range fs {
		what = append(what, f.what)
		if f.mend != "" && !slices.Contains(mend, f.mend) {
			mend = append(mend, f.mend)
		}
	}
	return &cdc.TerminalError{
		Reason: fs[0].reason,
		Err:    errors.New(strings.Join(what, "\n")),
		Mend:   strings.Join(mend, "\n"),
	}
}

// resolve finds the captured tables with their columns, indexes and leaves,
// sorted by name, and the faults of the configuration against the catalogue.
func (s *Source) resolve(ctx context.Context, c *pgx.Conn) ([]*catalogTable, faults, error) {
	all, err := loadTables(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	chosen, found := choose(all, s.cfg.Include, s.cfg.Exclude)
	captured := map[string]bool{}
	for _, t := range chosen {
		if captured[t.fullName()] {
			found = append(found, fault{reason: "table-name", what: fmt.Sprintf(
				"two tables read %q when schema and table are joined by a dot; rename one of them or exclude it", t.fullName())})
		}
		captured[t.fullName()] = true
	}
	found = append(found, strayKeys("key", s.cfg.Key, captured)...)
	found = append(found, strayKeys("columns", s.cfg.Columns, captured)...)
	if err := loadDetails(ctx, c, chosen); err != nil {
		return nil, nil, err
	}
	pub, err := loadPublication(ctx, c, s.cfg.Publication, s.version)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range chosen {
		found = append(found, t.publish(s.cfg.Columns[t.fullName()], pub, s.version)...)
	}
	return chosen, found, nil
}

// strayKeys reports entries of a map by table that name no captured table: a
// misspelt name would otherwise be ignored in silence.
func strayKeys(setting string, byTable map[string][]string, captured map[string]bool) faults {
	var found faults
	for name := range byTable {
		if !captured[name] {
			found = append(found, fault{reason: "table-pattern", what: fmt.Sprintf(
				"%s is set for %q, which is not a captured table; write schema.table as it stands in the catalogue", setting, name)})
		}
	}
	slices.SortFunc(found, func(a, b fault) int { return strings.Compare(a.what, b.what) })
	return found
}

// choose applies the patterns. Every include pattern must find a table, or it is
// a fault that says why it does not.
func choose(all []*catalogTable, include, exclude []string) ([]*catalogTable, faults) {
	var found faults
	chosen := map[*catalogTable]bool{}
	for _, pattern := range include {
		if !strings.Contains(pattern, ".") {
			found = append(found, fault{reason: "table-pattern",
				what: fmt.Sprintf("table pattern %q: want schema.table", pattern)})
			continue
		}
		matches, other := 0, (*catalogTable)(nil)
		for _, t := range all {
			switch {
			case !matchTable(pattern, t.schema, t.name):
			case t.unfit() != "":
				other = t
			default:
				matches++
				chosen[t] = true
			}
		}
		if matches > 0 {
			continue
		}
		f := fault{reason: "table-pattern", what: fmt.Sprintf("table pattern %q matches no table", pattern)}
		if other != nil && !isWild(pattern) {
			f.what = fmt.Sprintf("%s cannot be captured: %s", other.fullName(), other.unfit())
		}
		found = append(found, f)
	}
	var tables []*catalogTable
	for t := range chosen {
		if !slices.ContainsFunc(exclude, func(p string) bool { return matchTable(p, t.schema, t.name) }) {
			tables = append(tables, t)
		}
	}
	slices.SortFunc(tables, func(a, b *catalogTable) int { return strings.Compare(a.fullName(), b.fullName()) })
	return tables, found
}

// table is what the rest of the program sees of t.
func (t *catalogTable) table(key []string) cdc.Table {
	out := cdc.Table{
		OID: t.oid, Namespace: t.schema, Name: t.name, Identity: t.identity,
		Columns: t.published, Key: key, Partition: t.kind == kindPartitioned,
		Rows: t.rows, Bytes: t.bytes,
	}
	if out.Partition {
		out.Rows, out.Bytes = 0, 0
		for _, leaf := range t.leaves {
			out.Rows += max(leaf.rows, 0)
			out.Bytes += leaf.bytes
		}
	}
	return out
}
