package view

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"cdc/internal/intent"
)

// code is a view as SQL. Text that makes something is for one schema, so that the
// same view can stand in several, side by side.
type code struct {
	view   intent.View
	events []intent.EventType // those the view has a statement for, sorted; undeclared ones are missing
	when   []branch           // sorted by type
}

// branch is what happens at one type of event.
type branch struct {
	kind   string
	schema int      // version of the data that the statement is written for; 0: undeclared
	text   string   // of the statement, with variables for placeholders
	params []string // placeholders behind those variables, each once
}

// variable is the name, in functions, of a placeholder's value: one that no table
// has for a column.
func variable(param string) string { return variablePrefix + param }

const variablePrefix = "cdc_event_"

// reserved finds the names that stand for something else in a compiled statement.
var reserved = regexp.MustCompile(`(?i)\b` + variablePrefix + `[a-z]+\b`)

// variables are the placeholders that need a variable, in the order of apply's
// parameters, with their types.
var variables = []struct{ param, sql string }{
	{intent.ParamPos, "bigint"},
	{intent.ParamID, "uuid"},
	{intent.ParamStream, "text"},
	{intent.ParamVersion, "bigint"},
	{intent.ParamType, "text"},
	{intent.ParamSchema, "integer"},
	{intent.ParamData, "jsonb"},
	{intent.ParamMeta, "jsonb"},
	{intent.ParamAt, "timestamptz"},
}

// compile turns a definition into SQL. That the SQL is good, the server says.
func compile(v intent.View, events []intent.EventType) (*code, error) {
	c := &code{view: v}
	for _, kind := range slices.Sorted(maps.Keys(v.When)) {
		declared := intent.EventType{Name: kind}
		if i := slices.IndexFunc(events, func(e intent.EventType) bool { return e.Name == kind }); i >= 0 {
			declared = events[i]
			c.events = append(c.events, declared)
		}
		b, err := compileBranch(v, declared)
		if err != nil {
			return nil, fmt.Errorf("views[%s].when[%s]: %w", v.Name, kind, err)
		}
		c.when = append(c.when, b)
	}
	return c, nil
}

func compileBranch(v intent.View, event intent.EventType) (branch, error) {
	b := branch{kind: event.Name, schema: event.Schema}
	text := v.When[event.Name]
	if name := reserved.FindString(text + " " + v.Table); name != "" {
		return b, fmt.Errorf("%s is a name that compiled statements use: choose another", name)
	}
	s, err := intent.ParseSQL(text)
	if err != nil {
		return b, err
	}
	b.text = s.With(func(name string) string {
		param, sql := name, variable(name)
		if !slices.ContainsFunc(variables, func(v struct{ param, sql string }) bool { return v.param == name }) {
			param, sql = intent.ParamData, event.FieldExpr(name, variable(intent.ParamData))
		}
		if !slices.Contains(b.params, param) {
			b.params = append(b.params, param)
		}
		return sql
	})
	if v.Mode == intent.Inline && slices.Contains(b.params, intent.ParamPos) {
		return b, fmt.Errorf(":pos has no value in an inline view: the position is given after the commit; use :version or :at")
	}
	return b, nil
}

// uses says that a statement needs the placeholder's value.
func (c *code) uses(param string) bool {
	return slices.ContainsFunc(c.when, func(b branch) bool { return slices.Contains(b.params, param) })
}

// pins are the settings that could change what a statement does, as every function
// has them: it runs in the sessions of applications too.
const pins = ` set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres'` +
	` set extra_float_digits = 1 set bytea_output = 'hex' set standard_conforming_strings = on set transform_null_equals = off`

// tableSQL makes the table, its indexes and nothing else; the statements' owner is
// whoever runs it.
func (c *code) tableSQL(schema string) []string {
	table := schema + "." + intent.Quote(c.view.Name)
	all := []string{"create table " + table + " (" + c.view.Table + "\n)"}
	for _, columns := range c.view.Indexes {
		all = append(all, "create index on "+table+" ("+columns+"\n)")
	}
	return all
}

// applySQL makes the function apply of a schema for the table in another one.
//
// It goes through the arrays by index, which was measured to be as fast as a loop
// over unnest and lets it say where it stopped: an error of a statement is raised
// again with the event in the field for a data type (stoppedAt reads it). The block
// that catches it is one subtransaction per call, not per event.
func (c *code) applySQL(schema, tableSchema string) string {
	var b strings.Builder
	types := make([]string, len(variables))
	for i, v := range variables {
		types[i] = v.sql + "[]"
	}
	fmt.Fprintf(&b, "create function %s.apply(%s) returns void language plpgsql security definer set search_path = pg_catalog, %s, pg_temp%s as ",
		schema, strings.Join(types, ", "), tableSchema, pins)
	var body strings.Builder
	body.WriteString("\n#variable_conflict use_column\ndeclare\n")
	for _, v := range variables {
		if v.param == intent.ParamType || c.uses(v.param) {
			fmt.Fprintf(&body, "  %s %s;\n", variable(v.param), v.sql)
		}
	}
	body.WriteString("  cdc_event_index integer := 0;\n" +
		"  cdc_event_count constant integer := coalesce(cardinality($1), 0);\n" +
		"  cdc_event_detail text;\n  cdc_event_hint text;\n" +
		"begin\n" +
		"  while cdc_event_index < cdc_event_count loop\n" +
		"    cdc_event_index := cdc_event_index + 1;\n" +
		"    cdc_event_type := $5[cdc_event_index];\n")
	c.branches(&body, "    ", "cdc_event_type", func(b branch) string {
		var set strings.Builder
		for i, v := range variables {
			if v.param != intent.ParamType && slices.Contains(b.params, v.param) {
				fmt.Fprintf(&set, "      %s := $%d[cdc_event_index];\n", variable(v.param), i+1)
			}
		}
		return set.String()
	})
	body.WriteString("  end loop;\n" +
		"exception when others then\n" +
		"  get stacked diagnostics cdc_event_detail = pg_exception_detail, cdc_event_hint = pg_exception_hint;\n" +
		"  raise exception using errcode = sqlstate, message = sqlerrm, detail = cdc_event_detail, hint = cdc_event_hint,\n" +
		"    datatype = coalesce('" + stoppedPrefix + "' || $1[cdc_event_index] || ' ' || $2[cdc_event_index] || ' ' || cdc_event_type, '');\n" +
		"end ")
	b.WriteString(dollarQuote(body.String()))
	return b.String()
}

// branches writes the statements, each behind its type.
func (c *code) branches(w *strings.Builder, indent, kind string, set func(branch) string) {
	for i, b := range c.when {
		word := "if"
		if i > 0 {
			word = "elsif"
		}
		fmt.Fprintf(w, "%s%s %s = %s then\n%s%s  %s\n%s  ;\n", indent, word, kind, intent.Literal(b.kind), set(b), indent, b.text, indent)
	}
	if len(c.when) > 0 {
		w.WriteString(indent + "end if;\n")
	}
}

// dollarQuote is text as a string of SQL, with a delimiter that is not in it.
func dollarQuote(text string) string {
	tag := "$body$"
	for n := 0; strings.Contains(text, tag); n++ {
		tag = fmt.Sprintf("$body%d$", n)
	}
	return tag + text + tag
}

// definition is a build's definition as it is stored: the view, and what it was
// compiled with of the types of its events.
type definition struct {
	intent.View
	Events []intent.EventType
}

// MarshalJSON writes the view's own fields and Events beside them, so that it can
// be read as a view alone.
func (d definition) MarshalJSON() ([]byte, error) {
	raw, err := json.Marshal(d.View) // with the database's name in place of its URL
	if err != nil {
		return nil, err
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	if all["Events"], err = json.Marshal(d.Events); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// definition is what compile is called with to get the code again.
func (c *code) definition() definition { return definition{c.view, c.events} }

// decode compiles a stored definition.
func decode(raw []byte) (*code, error) {
	var d definition
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("read the definition of a view: %w", err)
	}
	return compile(d.View, d.Events)
}
