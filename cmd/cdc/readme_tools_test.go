package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The README's section uses psql and curl, which a machine with Go need not have:
// what they do there is done here, from the arguments as the shell gives them.

// shellWords are the words of a command behind its first.
func shellWords(t *testing.T, command string) []string {
	t.Helper()
	_, rest, _ := strings.Cut(command, " ")
	out, err := exec.CommandContext(t.Context(), "bash", "-c", `printf '%s\0' `+rest).Output()
	if err != nil {
		t.Fatalf("words of %q: %v", command, err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}

// flag takes the value behind a flag out of the words.
func flag(words []string, name string) (value string, rest []string) {
	for i, w := range words {
		if w == name && i+1 < len(words) {
			return words[i+1], append(append([]string{}, words[:i]...), words[i+2:]...)
		}
	}
	return "", words
}

// asPsql is `psql URL -c SQL`.
func asPsql(ctx context.Context, t *testing.T, words []string) string {
	t.Helper()
	sql, rest := flag(words, "-c")
	if sql == "" || len(rest) != 1 {
		t.Fatalf("psql %q: want URL -c SQL", words)
	}
	conn, err := pgx.Connect(ctx, rest[0])
	if err != nil {
		return err.Error()
	}
	defer conn.Close(context.WithoutCancel(ctx))
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return psqlError(pg)
	}
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	for _, r := range results {
		psqlTable(&out, r)
	}
	return out.String()
}

func psqlError(e *pgconn.PgError) string {
	var b strings.Builder
	for _, part := range []struct{ name, text string }{{e.Severity, e.Message}, {"DETAIL", e.Detail}, {"HINT", e.Hint}, {"CONTEXT", e.Where}} {
		if part.text != "" {
			fmt.Fprintf(&b, "%s:  %s\n", part.name, part.text)
		}
	}
	return b.String()
}

// psqlTable writes rows as psql does: names in the middle, numbers to the right.
func psqlTable(out *strings.Builder, r *pgconn.Result) {
	if len(r.FieldDescriptions) == 0 {
		fmt.Fprintln(out, r.CommandTag)
		return
	}
	const int8OID, int4OID = 20, 23
	widths := make([]int, len(r.FieldDescriptions))
	for i, f := range r.FieldDescriptions {
		widths[i] = utf8.RuneCountInString(f.Name)
		for _, row := range r.Rows {
			widths[i] = max(widths[i], utf8.RuneCount(row[i]))
		}
	}
	line := func(cells []string, between string) {
		out.WriteString(strings.Join(cells, between) + "\n")
	}
	names, rule := make([]string, len(widths)), make([]string, len(widths))
	for i, f := range r.FieldDescriptions {
		left := (widths[i] - utf8.RuneCountInString(f.Name)) / 2
		names[i] = fmt.Sprintf(" %-*s ", widths[i], strings.Repeat(" ", left)+f.Name)
		rule[i] = strings.Repeat("-", widths[i]+2)
	}
	line(names, "|")
	line(rule, "+")
	for _, row := range r.Rows {
		cells := make([]string, len(row))
		for i, v := range row {
			cells[i] = fmt.Sprintf(" %-*s ", widths[i], v)
			if oid := r.FieldDescriptions[i].DataTypeOID; oid == int8OID || oid == int4OID {
				cells[i] = fmt.Sprintf(" %*s ", widths[i], v)
			}
		}
		line([]string{strings.TrimSuffix(strings.Join(cells, "|"), " ")}, "")
	}
	plural := "s"
	if len(r.Rows) == 1 {
		plural = ""
	}
	fmt.Fprintf(out, "(%d row%s)\n\n", len(r.Rows), plural)
}

// asCurl is `curl -s URL -d BODY`.
func asCurl(ctx context.Context, t *testing.T, words []string) string {
	t.Helper()
	body, rest := flag(words, "-d")
	if len(rest) != 2 || rest[0] != "-s" || body == "" {
		t.Fatalf("curl %q: want -s URL -d BODY", words)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, rest[1], strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl does
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, res.Body); err != nil {
		return err.Error()
	}
	return b.String()
}
