package eventstore

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cdc/internal/intent"
)

// What Install writes. A function of the store has a fixed name (es.validate,
// es.upcast) and calls one per type or step: a session compiles those it meets.
//
// What a state depends on, the folds and upcasts, stands in functions that are named
// by a hash of what is in them and never change: a state that is made while another
// definition is installed is of the one or of the other, and so is its snapshot.
//
// Expressions of the configuration stand in functions with a body in the SQL
// standard's form: their names are bound when they are made, so that no search path
// of a caller can give them another meaning.

// generatedName names a function by what is in it.
func generatedName(kind string, content ...any) string {
	h := sha256.New()
	for _, c := range append([]any{generator}, content...) {
		fmt.Fprintf(h, "%v\x00", c)
	}
	return kind + " " + hex.EncodeToString(h.Sum(nil)[:8])
}

// upcastParams are at hand in an upcast.
const upcastParams = "data jsonb, meta jsonb, stream text, at timestamptz"

// validateName is that of the function for one type. It is replaced in place.
func validateName(typ string) string { return "validate " + typ }

// upcastName is that of the step that starts from a version, and goes on with the
// next.
func upcastName(e intent.EventType, from int) string {
	content := []any{e.Name}
	for v := from; v < e.Schema; v++ {
		content = append(content, v, e.Upcast[v])
	}
	return generatedName("upcast", content...)
}

// upcastSQL makes the steps of a type, the last first: each calls the next, so that
// data of any version goes through what is left of them.
func upcastSQL(e intent.EventType) ([]string, error) {
	var all []string
	for from := e.Schema - 1; from >= 1; from-- {
		expr, err := plainExpr(e.Upcast[from])
		if err != nil {
			return nil, err
		}
		// The line break ends a comment at the end of the expression.
		body := fmt.Sprintf("coalesce((\n%s\n), es.no_data(%s, %d, $1))", expr, intent.Literal(e.Name), from)
		if from < e.Schema-1 {
			body = fmt.Sprintf("es.%s(%s, $2, $3, $4)", intent.Quote(upcastName(e, from+1)), body)
		}
		name := "es." + intent.Quote(upcastName(e, from))
		all = append(all,
			fmt.Sprintf("create or replace function %s(%s) returns jsonb language sql stable return %s", name, upcastParams, body),
			fmt.Sprintf("comment on function %s is %s", name, intent.Literal(fmt.Sprintf("%s from schema %d", e.Name, from))),
			fmt.Sprintf("grant execute on function %s to es_writer, es_reader, es_view", name)) // as es.upcast, whose caller calls it
	}
	return all, nil
}

// plainExpr is an expression as it is checked and installed: its closing semicolon
// dropped.
func plainExpr(text string) (string, error) {
	s, err := intent.ParseSQL(text)
	if err != nil {
		return "", err
	}
	return s.With(func(name string) string { return ":" + name }), nil
}

// upcastExpr is the expression of the data of an event in the newest version of its
// type; column is what the event's columns are called.
func upcastExpr(events []intent.EventType, column func(name string) string) string {
	var b strings.Builder
	for _, e := range events {
		if e.Schema < 2 {
			continue
		}
		fmt.Fprintf(&b, " when %s then case %s", intent.Literal(e.Name), column(intent.ParamSchema))
		for from := 1; from < e.Schema; from++ {
			fmt.Fprintf(&b, " when %d then es.%s(%s, %s, %s, %s)", from, intent.Quote(upcastName(e, from)),
				column(intent.ParamData), column(intent.ParamMeta), column(intent.ParamStream), column(intent.ParamAt))
		}
		fmt.Fprintf(&b, " else %s end", column(intent.ParamData))
	}
	if b.Len() == 0 {
		return column(intent.ParamData)
	}
	return fmt.Sprintf("case %s%s else %s end", column(intent.ParamType), b.String(), column(intent.ParamData))
}

// upcastAllSQL is es.upcast for these types.
func upcastAllSQL(events []intent.EventType) string {
	return "create or replace function es.upcast(type text, schema int, data jsonb, meta jsonb default null, stream text default null, at timestamptz default null)\n" +
		"returns jsonb language sql stable return " + upcastExpr(events, func(name string) string {
		return "$" + strconv.Itoa(1+slices.Index([]string{intent.ParamType, intent.ParamSchema, intent.ParamData, intent.ParamMeta, intent.ParamStream, intent.ParamAt}, name))
	})
}

// kinds say how a field is judged: its type in JSON, a condition on a value of that
// type (%s is the jsonb, %s its text), and what a message says is wanted.
var kinds = map[intent.FieldType]struct{ json, condition, wanted string }{
	intent.TypeString: {"string", "", "a string"},
	intent.TypeInt:    {"number", "es.is_int((data->%[1]s)::numeric)", "a whole number of 64 bits, written without a fraction"},
	intent.TypeNumber: {"number", "", "a number"},
	intent.TypeBool:   {"boolean", "", "true or false"},
	intent.TypeTime:   {"string", "es.is_time(data->>%[1]s)", "a time as in RFC 3339, 2026-01-31T10:00:00Z"},
	intent.TypeDate:   {"string", "es.is_date(data->>%[1]s)", "a date as in 2026-01-31"},
	intent.TypeUUID:   {"string", "es.is_uuid(data->>%[1]s)", "a UUID as in 018f4e2c-7b1a-7c3d-9e5f-0a1b2c3d4e5f"},
}

// validateSQL makes the function that judges the data of one type, in its newest
// version, and the stream.
func validateSQL(e intent.EventType) string {
	var b strings.Builder
	typ := intent.Literal(e.Name)
	b.WriteString("\ndeclare\n  kind text;\nbegin\n")
	fmt.Fprintf(&b, "  if jsonb_typeof(data) is distinct from 'object' then\n    perform es.invalid('data', %s);\n  end if;\n",
		intent.Literal(e.Name+": data must be a JSON object"))
	var names, written []string
	for _, f := range e.Fields {
		names = append(names, intent.Literal(f.Name))
		written = append(written, f.Name)
		fieldSQL(&b, typ, f)
	}
	if len(names) == 0 {
		fmt.Fprintf(&b, "  if data <> '{}' then\n    perform es.unknown_field(%s, data, 'no field');\n  end if;\n", typ)
	} else {
		fmt.Fprintf(&b, "  if data - array[%[1]s] <> '{}' then\n    perform es.unknown_field(%[2]s, data - array[%[1]s], %[3]s);\n  end if;\n",
			strings.Join(names, ", "), typ, intent.Literal(strings.Join(written, ", ")))
	}
	wanted := templateSQL(e.Stream)
	fmt.Fprintf(&b, "  if stream is distinct from %[1]s then\n    perform es.wrong_stream(%[2]s, %[3]s, %[1]s, stream);\n  end if;\nend ",
		wanted, typ, intent.Literal(string(e.Stream)))
	return fmt.Sprintf("create or replace function es.%s(stream text, data jsonb) returns void language plpgsql as %s",
		intent.Quote(validateName(e.Name)), intent.Literal(b.String()))
}

// fieldSQL judges one field.
func fieldSQL(b *strings.Builder, typ string, f intent.Field) {
	name := intent.Literal(f.Name)
	if f.Type == intent.TypeJSON {
		if !f.Optional {
			fmt.Fprintf(b, "  if data->%[1]s is null then\n    perform es.wrong_field(%[2]s, %[1]s, 'any JSON', null);\n  end if;\n", name, typ)
		}
		return
	}
	k := kinds[f.Type]
	wrong := "kind is distinct from " + intent.Literal(k.json)
	if f.Optional { // kind is null where the field is missing
		wrong = "kind not in (" + intent.Literal(k.json) + ", 'null')"
	}
	fmt.Fprintf(b, "  kind := jsonb_typeof(data->%[1]s);\n  if %[2]s then\n    perform es.wrong_field(%[3]s, %[1]s, %[4]s, kind);\n",
		name, wrong, typ, intent.Literal(k.wanted))
	if k.condition != "" {
		condition := "not " + fmt.Sprintf(k.condition, name)
		if f.Optional {
			condition = "kind = " + intent.Literal(k.json) + " and " + condition
		}
		fmt.Fprintf(b, "  elsif %[1]s then\n    perform es.wrong_field(%[2]s, %[3]s, %[4]s, 'value');\n", condition, typ, name, intent.Literal(k.wanted))
	}
	b.WriteString("  end if;\n")
}

// templateSQL is the expression of the stream that the data makes.
func templateSQL(t intent.Template) string {
	var parts []string
	rest := string(t)
	for rest != "" {
		text, after, found := strings.Cut(rest, "{")
		if text != "" {
			parts = append(parts, intent.Literal(text))
		}
		if !found {
			break
		}
		name, after, _ := strings.Cut(after, "}")
		parts = append(parts, "(data->>"+intent.Literal(name)+")")
		rest = after
	}
	return "(" + strings.Join(parts, " || ") + ")"
}

// validateAllSQL is es.validate for these types.
func validateAllSQL(events []intent.EventType, undeclared bool) string {
	var b strings.Builder
	otherwise := "null;"
	if !undeclared {
		otherwise = "perform es.invalid('type', format('type %s is not declared', to_json(type)));"
	}
	b.WriteString("\nbegin\n")
	if len(events) == 0 {
		b.WriteString("  " + otherwise + "\n")
	} else {
		b.WriteString("  case type\n")
		for _, e := range events {
			fmt.Fprintf(&b, "  when %s then\n    if schema > %d then\n      perform es.invalid('schema', format(%s, schema));\n",
				intent.Literal(e.Name), e.Schema, intent.Literal(fmt.Sprintf("%s: schema %%s is newer than the one declared, %d", e.Name, e.Schema)))
			if e.Schema > 1 {
				fmt.Fprintf(&b, "    elsif schema < %d then\n      data := es.upcast_new(type, schema, data, meta, stream);\n", e.Schema)
			}
			fmt.Fprintf(&b, "    end if;\n    perform es.%s(stream, data);\n", intent.Quote(validateName(e.Name)))
		}
		b.WriteString("  else\n    " + otherwise + "\n  end case;\n")
	}
	b.WriteString("end ")
	return "create or replace function es.validate(stream text, type text, schema int, data jsonb, meta jsonb default '{}') returns void language plpgsql\n" +
		"set search_path = pg_catalog, pg_temp as " + intent.Literal(b.String())
}
