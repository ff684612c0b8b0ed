package view

import (
	"fmt"
	"slices"
	"strings"

	"cdc/internal/intent"
)

// onEventSQL makes the trigger function of a schema. It runs the statement with the
// values of the new event, whose data it brings to the version the statement was
// written for. An error of a statement fails the append: the context of the error
// names the function.
func (c *code) onEventSQL(schema, tableSchema string) string {
	var b strings.Builder
	b.WriteString("\n#variable_conflict use_column\ndeclare\n")
	for _, v := range variables {
		if c.uses(v.param) {
			fmt.Fprintf(&b, "  %s %s;\n", variable(v.param), v.sql)
		}
	}
	b.WriteString("begin\n")
	c.branches(&b, "  ", "new.type", func(br branch) string {
		var set strings.Builder
		for _, v := range variables {
			if slices.Contains(br.params, v.param) {
				fmt.Fprintf(&set, "    %s := %s;\n", variable(v.param), newValue(br, v.param))
			}
		}
		return set.String()
	})
	b.WriteString("  return null;\nend ")
	return fmt.Sprintf("create function %s.on_event() returns trigger language plpgsql security definer set search_path = pg_catalog, %s, pg_temp%s as %s",
		schema, tableSchema, pins, dollarQuote(b.String()))
}

// newValue is a placeholder's value in the trigger.
func newValue(b branch, param string) string {
	if param == intent.ParamData {
		return b.upcast("new.")
	}
	return "new." + param
}

// upcast is the expression of an event's data in the version the statement was
// written for; prefix stands before the names of the event's columns. Events of that
// version or a newer one stay as they are: what a live view sees of an event does not
// change when a later version of its type is declared.
func (b branch) upcast(prefix string) string {
	if b.schema <= 1 {
		return prefix + "data"
	}
	return fmt.Sprintf("case when %[1]sschema < %[2]d then es.upcast(%[1]stype, %[1]sschema, %[1]sdata, %[1]smeta, %[1]sstream, %[1]sat) else %[1]sdata end", prefix, b.schema)
}

// triggerSQL makes the build's trigger on es.event. The appends wait for it, and it
// for them.
func (c *code) triggerSQL(schema string) string {
	return fmt.Sprintf("create trigger %[1]s after insert on es.event for each row when (new.type in (%[2]s)) execute function %[1]s.on_event()",
		schema, c.typeList())
}

// typeList is the types the view has a statement for, as literals.
func (c *code) typeList() string {
	all := make([]string, len(c.when))
	for i, b := range c.when {
		all[i] = intent.Literal(b.kind)
	}
	return strings.Join(all, ", ")
}
