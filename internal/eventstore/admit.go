package eventstore

import (
	"fmt"
	"strings"

	"cdc/internal/intent"
)

// What an append of one event asks before all else: es.admit, with the limits and
// declarations as constants. It only ever says yes; what it does not admit, the
// functions of declare.go judge, which can say what is wrong. So it must admit
// nothing that they refuse.

// admitName is that of the function for one type. It is replaced in place.
func admitName(typ string) string { return "admit " + typ }

// admitSQL makes the function that says whether data of a type's newest version, and
// the stream, are as declared. It is one expression: an append sets up each in every
// transaction anew.
func admitSQL(e intent.EventType) string {
	conditions := []string{"jsonb_typeof(data) = 'object'"}
	names := []string{}
	for _, f := range e.Fields {
		name := intent.Literal(f.Name)
		names = append(names, name)
		if c := admitField(name, f); c != "" {
			conditions = append(conditions, c)
		}
	}
	rest := "data"
	if len(names) > 0 {
		rest = "data - array[" + strings.Join(names, ", ") + "]"
	}
	conditions = append(conditions, rest+" = '{}'", "stream = "+templateSQL(e.Stream))
	body := "\nbegin\n  return " + strings.Join(conditions, "\n    and ") + ";\nend "
	return fmt.Sprintf("create or replace function es.%s(stream text, data jsonb) returns boolean language plpgsql immutable as %s",
		intent.Quote(admitName(e.Name)), intent.Literal(body))
}

// admitField is the condition on one field, "" where there is none. A CASE, for only
// that is sure to look at the type before the value.
func admitField(name string, f intent.Field) string {
	if f.Type == intent.TypeJSON {
		if f.Optional {
			return ""
		}
		return "data->" + name + " is not null"
	}
	k := kinds[f.Type]
	good := "true"
	if k.condition != "" {
		good = fmt.Sprintf(k.condition, name)
	}
	if !f.Optional {
		if good == "true" {
			return fmt.Sprintf("jsonb_typeof(data->%s) = %s", name, intent.Literal(k.json))
		}
		return fmt.Sprintf("case jsonb_typeof(data->%s) when %s then %s else false end", name, intent.Literal(k.json), good)
	}
	return fmt.Sprintf("case coalesce(jsonb_typeof(data->%s), 'null') when %s then %s when 'null' then true else false end", name, intent.Literal(k.json), good)
}

// admitAllSQL is es.admit for these types.
func admitAllSQL(events []intent.EventType, undeclared bool, maxEvent int) string {
	otherwise := "null::int"
	if undeclared {
		otherwise = "coalesce(schema, 1)"
	}
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "\n  when %s then case when coalesce(schema, %[2]d) = %[2]d and es.%[3]s(stream, data) then %[2]d end",
			intent.Literal(e.Name), e.Schema, intent.Quote(admitName(e.Name)))
	}
	by := otherwise
	if b.Len() > 0 {
		by = "case type" + b.String() + "\n  else " + otherwise + " end"
	}
	return fmt.Sprintf("create or replace function es.admit(stream text, type text, schema int, data jsonb, size int) returns int language sql immutable\n"+
		"return case when size <= %d then %s end", maxEvent, by)
}
