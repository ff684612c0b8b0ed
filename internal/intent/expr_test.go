package intent

import "testing"

func TestFieldSQL(t *testing.T) {
	for _, tc := range []struct {
		name  string
		field Field
		data  string
		want  string
	}{
		{"string", Field{Name: "course", Type: TypeString}, "data", `(data->>'course')`},
		{"no type", Field{Name: "course"}, "data", `(data->>'course')`},
		{"int", Field{Name: "n", Type: TypeInt}, "new.data", `((new.data->>'n')::pg_catalog.int8)`},
		{"number", Field{Name: "n", Type: TypeNumber}, "data", `((data->>'n')::pg_catalog.numeric)`},
		{"bool", Field{Name: "b", Type: TypeBool}, "data", `((data->>'b')::pg_catalog.bool)`},
		{"time", Field{Name: "t", Type: TypeTime}, "data", `((data->>'t')::pg_catalog.timestamptz)`},
		{"date", Field{Name: "d", Type: TypeDate}, "data", `((data->>'d')::pg_catalog.date)`},
		{"uuid", Field{Name: "u", Type: TypeUUID}, "data", `((data->>'u')::pg_catalog.uuid)`},
		{"json", Field{Name: "j", Type: TypeJSON}, "data", `(data->'j')`},
		{"a quote in the name", Field{Name: "it's", Type: TypeString}, "data", `(data->>'it''s')`},
		{"an expression", Field{Name: "x", Type: TypeString}, "a || b", `((a || b)->>'x')`},
		{"a parameter", Field{Name: "x", Type: TypeString}, "$7", `($7->>'x')`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := FieldSQL(tc.field, tc.data); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestFieldExpr(t *testing.T) {
	typ := EventType{Fields: []Field{{Name: "n", Type: TypeInt}}}
	if got, want := typ.FieldExpr("n", "data"), `((data->>'n')::pg_catalog.int8)`; got != want {
		t.Errorf("declared: got %s, want %s", got, want)
	}
	if got, want := typ.FieldExpr("other", "data"), `(data->>'other')`; got != want {
		t.Errorf("not declared: got %s, want %s", got, want)
	}
}

func TestQuoting(t *testing.T) {
	for _, tc := range []struct{ in, ident, literal string }{
		{"", `""`, `''`},
		{"waiting", `"waiting"`, `'waiting'`},
		{"order", `"order"`, `'order'`},
		{`a"b`, `"a""b"`, `'a"b'`},
		{"a'b", `"a'b"`, `'a''b'`},
		{`a\'b`, `"a\'b"`, ` E'a\\''b'`},
		{"a\x00b", `"ab"`, `'ab'`},
		{"é\n", "\"é\n\"", "'é\n'"},
	} {
		if got := Quote(tc.in); got != tc.ident {
			t.Errorf("Quote(%q): got %s, want %s", tc.in, got, tc.ident)
		}
		if got := Literal(tc.in); got != tc.literal {
			t.Errorf("Literal(%q): got %s, want %s", tc.in, got, tc.literal)
		}
	}
}
