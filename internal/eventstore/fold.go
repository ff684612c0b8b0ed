package eventstore

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"cdc/internal/intent"
)

// foldParams are the placeholders of a fold's expressions, in the order of the
// parameters: an expression reaches them by number, which nothing in scope hides.
var foldParams = []struct{ name, typ string }{
	{intent.ParamState, "jsonb"}, {intent.ParamID, "uuid"}, {intent.ParamStream, "text"}, {intent.ParamVersion, "bigint"},
	{intent.ParamType, "text"}, {intent.ParamSchema, "int"}, {intent.ParamData, "jsonb"}, {intent.ParamMeta, "jsonb"}, {intent.ParamAt, "timestamptz"},
}

// foldHash is what the state of a category depends on. Snapshots bear it.
func foldHash(f intent.Fold, events []intent.EventType) []byte {
	hash := f.Hash(events)
	sum := sha256.Sum256(append([]byte{generator}, hash[:]...))
	return sum[:]
}

// stateName is that of the function that es.state calls for a fold; it makes it of
// es.fold.hash.
func stateName(hash []byte) string { return "state " + hex.EncodeToString(hash[:8]) }

// foldName is that of the expression for one type.
func foldName(hash []byte, typ string) string {
	return generatedName("fold", hex.EncodeToString(hash), typ)
}

// foldExpr is the expression of the state after an event of a type, with numbered
// parameters.
func foldExpr(f intent.Fold, event intent.EventType) (string, error) {
	s, err := intent.ParseSQL(f.When[event.Name])
	if err != nil {
		return "", err
	}
	return s.With(func(name string) string {
		if p := foldParam(name); p != "" {
			return p
		}
		return event.FieldExpr(name, foldParam(intent.ParamData))
	}), nil
}

// foldParam is the parameter of a placeholder, "" where it is a field.
func foldParam(name string) string {
	for i, p := range foldParams {
		if p.name == name {
			return fmt.Sprintf("$%d", i+1)
		}
	}
	return ""
}

// foldSQL makes the functions of a fold: one per event type, and the one that
// es.state calls, which goes through the events of a stream from one version to
// another. (A loop gives the order that an aggregate over a sorted subquery is not
// promised, and names the event at which an expression failed.)
func foldSQL(f intent.Fold, events []intent.EventType) ([]string, error) {
	var all []string
	var cases strings.Builder
	var used []intent.EventType
	var types, params, args []string
	hash := foldHash(f, events)
	for i, p := range foldParams {
		params = append(params, intent.Quote(p.name)+" "+p.typ)
		if i > 0 {
			args = append(args, "e."+p.name)
		}
	}
	for _, typ := range sortedKeys(f.When) {
		event := eventType(events, typ)
		expr, err := foldExpr(f, event)
		if err != nil {
			return nil, err
		}
		used = append(used, event)
		name := intent.Quote(foldName(hash, typ))
		all = append(all,
			fmt.Sprintf("create or replace function es.%s(%s) returns jsonb language sql stable return (\n%s\n)", name, strings.Join(params, ", "), expr),
			fmt.Sprintf("comment on function es.%s is %s", name, intent.Literal("state of "+f.Category+" after "+typ)))
		types = append(types, intent.Literal(typ))
		fmt.Fprintf(&cases, "    when %s then value := es.%s(value, %s);\n", intent.Literal(typ), name, strings.Join(args, ", "))
	}
	body := fmt.Sprintf(`
declare
  e record;
begin
  for e in
    select v.id, v.stream, v.version, v.type, v.schema, %s as data, v.meta, v.at
      from es.event v where v.stream = of and v.version > folded and v.version <= upto and v.type in (%s) order by v.version
  loop
    case e.type
%s    end case;
    if value is null then
      raise exception 'the expression gives null: write a coalesce where a part of it may be null' using errcode = '22004';
    end if;
  end loop;
  return value;
exception when others then
  if e is null then
    raise;
  end if;
  raise exception using errcode = sqlstate, message = format('state[%%s].when[%%s] failed at version %%s of %%s: %%s', split_part(of, '/', 1), e.type, e.version, to_json(of), sqlerrm);
end `, upcastExpr(used, func(name string) string { return "v." + name }), strings.Join(types, ", "), cases.String())
	name := intent.Quote(stateName(hash))
	return append(all,
		fmt.Sprintf("create or replace function es.%s(of text, folded bigint, upto bigint, value jsonb) returns jsonb language plpgsql stable as %s", name, intent.Literal(body)),
		fmt.Sprintf("comment on function es.%s is %s", name, intent.Literal("state of "+f.Category))), nil
}

// eventType is the declared type of that name, or an undeclared one: version 1, and
// every field text.
func eventType(events []intent.EventType, name string) intent.EventType {
	if i := slices.IndexFunc(events, func(e intent.EventType) bool { return e.Name == name }); i >= 0 {
		return events[i]
	}
	return intent.EventType{Name: name, Schema: 1}
}
