package source

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// openOps opens a Source on a fresh database after the DDL, without slot and
// publication.
func openOps(t testing.TB, db *cdctest.DB, edit func(*Config), ddl ...string) *Source {
	t.Helper()
	db.Exec(t, ddl...)
	cfg := Config{URL: db.URL, Slot: db.Name + "_ops", Publication: "pub", Include: []string{"public.*"},
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if edit != nil {
		edit(&cfg)
	}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func mustTables(t testing.TB, s *Source) []cdc.Table {
	t.Helper()
	tables, err := s.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

func mustPublish(t testing.TB, s *Source) []cdc.Table {
	t.Helper()
	tables := mustTables(t, s)
	if _, err := s.Publish(t.Context(), tables); err != nil {
		t.Fatal(err)
	}
	return tables
}

func names(tables []cdc.Table) []string {
	var out []string
	for _, t := range tables {
		out = append(out, t.FullName())
	}
	return out
}

// wantTerminal checks reason and that the mend holds every part.
func wantTerminal(t testing.TB, err error, reason string, mend ...string) {
	t.Helper()
	var te *cdc.TerminalError
	if !errors.As(err, &te) {
		t.Fatalf("got %v, want a TerminalError of reason %s", err, reason)
	}
	if te.Reason != reason {
		t.Errorf("reason: got %s, want %s (%v)", te.Reason, reason, err)
	}
	for _, m := range mend {
		if !strings.Contains(te.Mend, m) {
			t.Errorf("mend: got %q, want it to hold %q", te.Mend, m)
		}
	}
}

// drain reads every row of a snapshot as "table|v1|v2", with its mark in front
// where marks is set.
func drain(t testing.TB, sn *Snapshot, marks bool) []string {
	t.Helper()
	var rows []string
	for {
		c, err := sn.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return rows
		}
		if err != nil {
			t.Fatal(err)
		}
		line := rowText(c)
		if marks {
			line = fmt.Sprint(c.Mark) + " " + line
		}
		rows = append(rows, line)
	}
}

func rowText(c *cdc.Change) string {
	parts := []string{c.Relation.FullName()}
	for _, v := range c.New {
		if v.Kind == cdc.Null {
			parts = append(parts, "NULL")
		} else {
			parts = append(parts, string(v.Data))
		}
	}
	return strings.Join(parts, "|")
}

func sorted(s []string) []string {
	out := slices.Clone(s)
	slices.Sort(out)
	return out
}

// copyAll takes a snapshot without finishing it.
func copyAll(t testing.TB, s *Source, workers int) []string {
	t.Helper()
	sn, err := s.Snapshot(t.Context(), mustPublish(t, s), workers)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := sn.Close(); err != nil {
			t.Error(err)
		}
	}()
	return sorted(drain(t, sn, false))
}

func equalRows(t testing.TB, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %d rows, want %d\ngot:  %.2000q\nwant: %.2000q", len(got), len(want), got, want)
	}
}

func asTerminal(err error) (*cdc.TerminalError, bool) {
	var te *cdc.TerminalError
	return te, errors.As(err, &te)
}

func needs15(t testing.TB, s *Source) {
	t.Helper()
	if s.Version() < 150000 {
		t.Skip("column lists, row filters and schemas in publications came with PostgreSQL 15")
	}
}
