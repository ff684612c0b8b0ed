package reaction

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"cdc/internal/intent"
	"cdc/internal/sqlcheck"
)

// schema holds the functions of all reactions. It is owned by es_view: a query may
// read what that role may, the views.
const schema = "es_reaction"

// searchPath is where the names in queries are looked up.
const searchPath = "pg_catalog, views, pg_temp"

// params are the parameters of a reaction's functions, in order: the event. Queries
// have them as $1, $2, …, which no column can hide.
var params = []sqlcheck.Param{
	{Name: intent.ParamPos, Type: "pg_catalog.int8"},
	{Name: intent.ParamID, Type: "pg_catalog.uuid"},
	{Name: intent.ParamStream, Type: "pg_catalog.text"},
	{Name: intent.ParamVersion, Type: "pg_catalog.int8"},
	{Name: intent.ParamType, Type: "pg_catalog.text"},
	{Name: intent.ParamSchema, Type: "pg_catalog.int4"},
	{Name: intent.ParamData, Type: "pg_catalog.jsonb"},
	{Name: intent.ParamMeta, Type: "pg_catalog.jsonb"},
	{Name: intent.ParamAt, Type: "pg_catalog.timestamptz"},
}

// The columns of a query.
const (
	columnType   = "type"
	columnData   = "data"
	columnStream = "stream"
)

// code is a reaction as SQL.
type code struct {
	reaction intent.Reaction
	events   []intent.EventType // all that are declared, sorted by name
}

func compile(r intent.Reaction, events []intent.EventType) *code {
	events = slices.Clone(events)
	slices.SortFunc(events, func(a, b intent.EventType) int { return strings.Compare(a.Name, b.Name) })
	return &code{r, events}
}

// query is what runs at an event of a type.
func (c *code) query(kind string) (string, error) {
	s, err := intent.ParseSQL(c.reaction.Append)
	if err != nil {
		return "", err
	}
	event := intent.EventType{Name: kind}
	if i := slices.IndexFunc(c.events, func(e intent.EventType) bool { return e.Name == kind }); i >= 0 {
		event = c.events[i]
	}
	return s.With(func(name string) string {
		for i, p := range params {
			if p.Name == name {
				return fmt.Sprintf("$%d", i+1)
			}
		}
		return event.FieldExpr(name, parameter(intent.ParamData))
	}), nil
}

func parameter(name string) string {
	return fmt.Sprintf("$%d", 1+slices.IndexFunc(params, func(p sqlcheck.Param) bool { return p.Name == name }))
}

// wrap makes of a query one whose columns are type, data and stream in their types:
// the stream that the query gives, or the one that the declared type names. Whether
// the query has a column stream is seen when it runs: the views it reads need not be
// there yet.
func (c *code) wrap(query string) string {
	var declared strings.Builder
	for _, e := range c.events {
		fmt.Fprintf(&declared, "\n    when %s then %s", intent.Literal(e.Name), templateSQL(e.Stream, "r.data"))
	}
	named := "r.stream"
	if declared.Len() > 0 {
		named = "coalesce(r.stream, case r.type" + declared.String() + "\n  end)"
	}
	return "select r.type, r.data, " + named + "\nfrom (select q.type::pg_catalog.text as type, q.data::pg_catalog.jsonb as data," +
		" pg_catalog.to_jsonb(q)->>'stream' as stream from (\n" + query + "\n) q) r"
}

// templateSQL is the name of a stream as an expression of the data of an event; null
// where a field is missing.
func templateSQL(t intent.Template, data string) string {
	var parts []string
	rest := string(t)
	for _, field := range t.Fields() {
		text, after, _ := strings.Cut(rest, "{"+field+"}")
		parts = append(parts, intent.Literal(text), "("+data+"->>"+intent.Literal(field)+")")
		rest = after
	}
	parts = append(parts, intent.Literal(rest))
	return strings.Join(parts, "||")
}

// functionName is the function that runs at the i-th of the reaction's types.
func functionName(reaction string, i int) string {
	return schema + "." + intent.Quote(fmt.Sprintf("%s/%d", reaction, i))
}

// functionSQL makes that function. It is stable, so that the server itself lets it
// write nothing, and reads as es_view; a query's names are looked up when it runs, so
// a view may be put in another's place. The settings that could change what a query
// gives are pinned.
func (c *code) functionSQL(i int) (string, error) {
	query, err := c.query(c.reaction.When[i])
	if err != nil {
		return "", err
	}
	types := make([]string, len(params))
	for i, p := range params {
		types[i] = p.Type
	}
	return fmt.Sprintf("create function %s(%s) returns table (type pg_catalog.text, data pg_catalog.jsonb, stream pg_catalog.text)"+
		" language sql stable security definer set search_path = %s set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres'"+
		" set extra_float_digits = 1 set standard_conforming_strings = on set transform_null_equals = off as %s",
		functionName(c.reaction.Name, i), strings.Join(types, ", "), searchPath, dollarQuote(c.wrap(query))), nil
}

// dollarQuote is text as a string of SQL, with a delimiter that is not in it.
func dollarQuote(text string) string {
	tag := "$query$"
	for n := 0; strings.Contains(text, tag); n++ {
		tag = fmt.Sprintf("$query%d$", n)
	}
	return tag + text + tag
}

// stored is a reaction as it stands in es.reaction.definition.
type stored struct {
	Name   string      `json:"name"`
	After  string      `json:"after,omitempty"`
	When   []string    `json:"when"`
	Append string      `json:"append"`
	From   intent.From `json:"from"`
}

func (c *code) stored() stored {
	r := c.reaction
	return stored{Name: r.Name, After: r.After, When: r.When, Append: r.Append, From: r.From}
}

// hash covers all that decides what the functions do; not where a new reaction
// begins.
func (c *code) hash() ([]byte, error) {
	type template struct{ Type, Stream string }
	var templates []template
	var fields []intent.EventType
	for _, e := range c.events {
		templates = append(templates, template{e.Name, string(e.Stream)})
		if slices.Contains(c.reaction.When, e.Name) {
			fields = append(fields, e)
		}
	}
	s := c.stored()
	s.From = ""
	text, err := json.Marshal([]any{"reaction 1", s, templates, fields})
	if err != nil {
		return nil, fmt.Errorf("write reaction %s: %w", c.reaction.Name, err)
	}
	sum := sha256.Sum256(text)
	return sum[:], nil
}
