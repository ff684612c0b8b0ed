package sqlcheck

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// commands by the tree's number for them (CmdType in nodes.h). Merge came with
// PostgreSQL 15 and took the number that utility commands had before.
var commands = map[string]string{"1": "select", "2": "update", "3": "insert", "4": "delete", "5": "merge"}

// command is the kind of the statement in a tree.
func command(n *node) string {
	if c, ok := commands[n.fields["commandType"]]; ok {
		return c
	}
	return "another command"
}

// columns are the names of what a query gives.
func columns(n *node) []string {
	if command(n) != "select" {
		return nil
	}
	var names []string
	for _, t := range n.lists["targetList"] {
		if t.fields["resjunk"] != "true" {
			names = append(names, unescape(t.fields["resname"]))
		}
	}
	return names
}

// judge gathers what a tree uses, asks the catalogue about it, and collects what it
// finds wrong.
type judge struct {
	sql       string
	findings  []Finding
	functions oids // called, or behind an aggregate
	operators oids
	relations oids
	types     oids // turned into from text, or domains
	clock     bool // a constant of a time's type
}

// oids is a set of object ids.
type oids map[uint32]bool

func (o oids) add(text string) {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil && n != 0 {
		o[uint32(n)] = true
	}
}

func (o oids) list() []uint32 {
	var all []uint32
	for n := range o {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

func newJudge(sql string) *judge {
	return &judge{sql: sql, functions: oids{}, operators: oids{}, relations: oids{}, types: oids{}}
}

// find adds a finding, once.
func (j *judge) find(format string, args ...any) {
	f := Finding{Text: fmt.Sprintf(format, args...)}
	if !slices.Contains(j.findings, f) {
		j.findings = append(j.findings, f)
	}
}

// onlyReads finds the commands in a tree that are not select.
func (j *judge) onlyReads(root *node) {
	root.walk(func(n *node) {
		if n.tag == "QUERY" && command(n) != "select" {
			j.find("%s: only select is allowed here", command(n))
		}
	})
}

// valueFunctions are the names of SQLVALUEFUNCTION (SQLValueFunctionOp in
// primnodes.h), which the grammar makes of key words.
var valueFunctions = []string{"current_date", "current_time", "current_time", "current_timestamp", "current_timestamp",
	"localtime", "localtime", "localtimestamp", "localtimestamp", "current_role", "current_user", "user", "session_user",
	"current_catalog", "current_schema"}

// timeTypes are date, time, timestamp, timestamptz and timetz.
var timeTypes = []string{"1082", "1083", "1114", "1184", "1266"}

// collect notes what the tree uses.
func (j *judge) collect(root *node) {
	root.walk(func(n *node) {
		// Fields that name the same thing wherever they stand.
		for field, into := range map[string]oids{
			"funcid": j.functions, "aggfnoid": j.functions, "winfnoid": j.functions,
			"opno": j.operators, "eqop": j.operators, "sortop": j.operators,
			"relid": j.relations,
		} {
			into.add(n.fields[field])
		}
		for _, o := range n.tokens["opnos"] {
			j.operators.add(o)
		}
		switch n.tag {
		case "SQLVALUEFUNCTION":
			name := "a key word"
			if op, err := strconv.Atoi(n.fields["op"]); err == nil && op >= 0 && op < len(valueFunctions) {
				name = valueFunctions[op]
			}
			j.find("%s: %s", name, reasonFor(name))
		case "NEXTVALUEEXPR":
			j.find("an identity column's next value: %s", reasonSequence)
		case "CURRENTOFEXPR":
			j.find("where current of: there is no cursor here")
		case "TABLESAMPLECLAUSE":
			j.find("tablesample: %s", reasonRandom)
		case "COERCEVIAIO", "COERCETODOMAIN":
			j.types.add(n.fields["resulttype"])
		case "CONST":
			j.clock = j.clock || slices.Contains(timeTypes, n.fields["consttype"])
		case "VAR":
			if strings.HasPrefix(n.fields["varattno"], "-") {
				j.find("a system column (ctid, xmin, tableoid, …): %s", reasonServer)
			}
		}
	})
}

// clockWords is a constant that the input of a time reads from the clock; the tree
// has only the time it was then.
var clockWords = regexp.MustCompile(`(?i)'\s*(now|today|tomorrow|yesterday)\s*([0-9:.+\-]*|allballs)\s*'`)

// judge asks the catalogue about what was collected.
func (j *judge) judge(ctx context.Context, tx pgx.Tx, allowed []string) error {
	if j.clock {
		if m := clockWords.FindString(j.sql); m != "" {
			j.find("%s: %s", m, reasonClock)
		}
	}
	if err := j.judgeRelations(ctx, tx, allowed); err != nil {
		return err
	}
	if err := j.judgeTypes(ctx, tx); err != nil {
		return err
	}
	return j.judgeFunctions(ctx, tx)
}

func (j *judge) judgeRelations(ctx context.Context, tx pgx.Tx, allowed []string) error {
	if len(j.relations) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		select pg_catalog.format('%I.%I', n.nspname, c.relname)
		  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		 where c.oid = any ($1::oid[])
		   and not exists (select from pg_catalog.unnest($2::text[]) a where pg_catalog.to_regclass(a) = c.oid)
		 order by 1`, j.relations.list(), allowed)
	if err != nil {
		return fmt.Errorf("look up relations: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look up relations: %w", err)
	}
	for _, name := range names {
		switch {
		case len(allowed) == 0:
			j.find("relation %s: no relation is allowed here", name)
		default:
			j.find("relation %s: only %s is allowed here", name, strings.Join(allowed, ", "))
		}
	}
	return nil
}

// judgeTypes notes the functions and checks behind types: what makes a value of text,
// and the constraints of domains.
func (j *judge) judgeTypes(ctx context.Context, tx pgx.Tx) error {
	for seen := 0; len(j.types) > seen; { // a domain's check may use further types
		seen = len(j.types)
		rows, err := tx.Query(ctx, `
			with recursive t as (
				select oid, typinput, typtype, typbasetype, typelem from pg_catalog.pg_type where oid = any ($1::oid[])
				union
				select b.oid, b.typinput, b.typtype, b.typbasetype, b.typelem
				  from t join pg_catalog.pg_type b on b.oid in (t.typbasetype, t.typelem))
			select t.typinput::oid, coalesce(c.conbin::text, '')
			  from t left join pg_catalog.pg_constraint c on c.contypid = t.oid and c.contype = 'c'`, j.types.list())
		if err != nil {
			return fmt.Errorf("look up types: %w", err)
		}
		var input uint32
		var check string
		var checks []string
		_, err = pgx.ForEachRow(rows, []any{&input, &check}, func() error {
			j.functions[input] = true
			if check != "" {
				checks = append(checks, check)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("look up types: %w", err)
		}
		for _, c := range checks {
			root, err := parseTree(c)
			if err != nil {
				return err
			}
			j.collect(root)
		}
	}
	return nil
}

func (j *judge) judgeFunctions(ctx context.Context, tx pgx.Tx) error {
	if len(j.functions) == 0 && len(j.operators) == 0 {
		return nil
	}
	// An aggregate of a user is always marked immutable: its parts count.
	rows, err := tx.Query(ctx, `
		with f as (
			select pg_catalog.unnest($1::oid[]) as oid
			union
			select oprcode::oid from pg_catalog.pg_operator where oid = any ($2::oid[])),
		part as (
			select p.oid from f join pg_catalog.pg_proc p using (oid) where p.prokind <> 'a' or p.pronamespace = 'pg_catalog'::regnamespace
			union
			select x.oid::oid from f join pg_catalog.pg_aggregate a on a.aggfnoid = f.oid
			  join pg_catalog.pg_proc p on p.oid = f.oid and p.pronamespace <> 'pg_catalog'::regnamespace,
			  unnest(array[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]) x(oid)
			 where x.oid <> 0)
		select p.proname, n.nspname, p.provolatile::text, p.pronargs
		  from part join pg_catalog.pg_proc p using (oid) join pg_catalog.pg_namespace n on n.oid = p.pronamespace
		 order by p.proname, p.oid`, j.functions.list(), j.operators.list())
	if err != nil {
		return fmt.Errorf("look up functions: %w", err)
	}
	var name, schema, volatility string
	var args int16
	_, err = pgx.ForEachRow(rows, []any{&name, &schema, &volatility, &args}, func() error {
		if reason := judgeFunction(name, schema, volatility); reason != "" {
			if schema != "pg_catalog" {
				name = schema + "." + name
			}
			j.find("%s(): %s", name, reason)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look up functions: %w", err)
	}
	return nil
}
