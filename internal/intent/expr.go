package intent

import "strings"

// SQL is the type in SQL of a field of this type; "" for a type that is not known.
func (t FieldType) SQL() string {
	switch t {
	case TypeString:
		return "text"
	case TypeInt:
		return "bigint"
	case TypeNumber:
		return "numeric"
	case TypeBool:
		return "boolean"
	case TypeTime:
		return "timestamptz"
	case TypeDate:
		return "date"
	case TypeUUID:
		return "uuid"
	case TypeJSON:
		return "jsonb"
	}
	return ""
}

// FieldSQL is the SQL expression of a field of the jsonb expression data, in the
// field's type. It is null where the field is missing, and for all types but json
// where it is JSON's null. It stands for one operand: nothing around it can take
// it apart.
func FieldSQL(f Field, data string) string {
	if !isName(data) {
		data = "(" + data + ")"
	}
	switch f.Type {
	case TypeJSON:
		return "(" + data + "->" + Literal(f.Name) + ")"
	case TypeString, "":
		return "(" + data + "->>" + Literal(f.Name) + ")"
	}
	// Casts are written out with the schema: a type of the same name in the search
	// path must not come before it.
	return "((" + data + "->>" + Literal(f.Name) + ")::pg_catalog." + catalogName[f.Type] + ")"
}

// catalogName is how pg_type calls the types: it does not know bigint or boolean.
var catalogName = map[FieldType]string{
	TypeInt: "int8", TypeNumber: "numeric", TypeBool: "bool", TypeTime: "timestamptz",
	TypeDate: "date", TypeUUID: "uuid",
}

// FieldExpr is FieldSQL of the field of that name. One that the type does not
// declare is text: such types are taken only where undeclared types are.
func (t EventType) FieldExpr(name, data string) string {
	for _, f := range t.Fields {
		if f.Name == name {
			return FieldSQL(f, data)
		}
	}
	return FieldSQL(Field{Name: name, Type: TypeString}, data)
}

// isName says that an expression is a name, as in data or new.data, which needs no
// parentheses.
func isName(s string) bool {
	for i := range len(s) {
		if !isWordByte(s[i]) && s[i] != '.' && s[i] != '$' {
			return false
		}
	}
	return s != ""
}

// Quote is an identifier of SQL, for any text. Postgres holds no zero bytes: they
// are left out.
func Quote(ident string) string {
	return `"` + strings.ReplaceAll(strings.ReplaceAll(ident, "\x00", ""), `"`, `""`) + `"`
}

// Literal is a string of SQL, for any text, whatever standard_conforming_strings
// is set to. Zero bytes are left out.
func Literal(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", "''")
	if !strings.Contains(s, `\`) {
		return "'" + s + "'"
	}
	// The space keeps the E apart from a word before it.
	return " E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
}
