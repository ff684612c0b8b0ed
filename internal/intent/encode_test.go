package intent

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestDefinitionsInJSON(t *testing.T) {
	d := university()
	for _, tc := range []struct {
		name string
		in   any
		want string
	}{
		{"event", d.Events[0], `{"name":"enrolment-cancelled","stream":"course/{course}","schema":2,"data":{"course":"string","reason":"string?","student":"string"},"upcast":{"1":"jsonb_set(data, '{reason}', 'null')"}}`},
		{"event without fields", EventType{Name: "x", Stream: "y", Schema: 1}, `{"name":"x","stream":"y","schema":1,"data":{}}`},
		{"fold", Fold{Category: "c", Initial: json.RawMessage(`{"a": 1}`), When: map[string]string{"x": ":state"}}, `{"category":"c","initial":{"a":1},"when":{"x":":state"}}`},
		{"view", View{Name: "v", Mode: Inline, Table: "n int", Indexes: []string{"n"}, When: map[string]string{"x": "select 1"}}, `{"name":"v","mode":"inline","table":"n int","indexes":["n"],"when":{"x":"select 1"}}`},
		{"view elsewhere", View{Name: "v", Mode: Async, Database: "postgres://u:geheim@db/x", Table: "n int"}, `{"name":"v","mode":"async","database":"db:5432/x","table":"n int","when":null}`},
		{"reaction", Reaction{Name: "r", After: "v", When: []string{"x"}, Append: "select 1", From: FromEnd}, `{"name":"r","after":"v","when":["x"],"append":"select 1","from":"end"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := json.Marshal(tc.in)
			if err != nil || string(b) != tc.want {
				t.Fatalf("\n got %s, %v\nwant %s", b, err, tc.want)
			}
			back := reflect.New(reflect.TypeOf(tc.in))
			if err := json.Unmarshal(b, back.Interface()); err != nil {
				t.Fatal(err)
			}
			again, err := json.Marshal(back.Interface())
			if err != nil || string(again) != tc.want {
				t.Errorf("read and written again\n got %s, %v\nwant %s", again, err, tc.want)
			}
		})
	}
	// What is read back has the same hash, the view elsewhere too.
	for i, v := range d.Views {
		b, _ := json.Marshal(v)
		var back View
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if back.Hash(d.Events) != v.Hash(d.Events) {
			t.Errorf("view %d read back has another hash", i)
		}
	}
	b, _ := json.Marshal(d.Events[0])
	var back EventType
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	want := d.Events[0]
	want.Fields = slices.Clone(want.Fields)
	slices.SortFunc(want.Fields, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	if !reflect.DeepEqual(back, want) {
		t.Errorf("read back\n got %+v\nwant %+v", back, want)
	}
	if err := json.Unmarshal([]byte(`{"name":1}`), &back); err == nil || !strings.Contains(err.Error(), "definition of an event type") {
		t.Errorf("a definition that is none: %v", err)
	}
}

func TestParseField(t *testing.T) {
	for text, want := range map[string]Field{
		"string": {Name: "x", Type: TypeString}, "string?": {Name: "x", Type: TypeString, Optional: true},
		"": {Name: "x"}, "?": {Name: "x", Optional: true}, "int??": {Name: "x", Type: "int?", Optional: true}, "int ": {Name: "x", Type: "int "},
	} {
		got := ParseField("x", text)
		if got != want || got.String() != text {
			t.Errorf("ParseField(%q) = %+v, written %q, want %+v", text, got, got.String(), want)
		}
	}
	for _, name := range FieldTypes() {
		if FieldType(name).SQL() == "" {
			t.Errorf("type %s has none in SQL", name)
		}
	}
}

func TestDatabaseName(t *testing.T) {
	for url, want := range map[string]string{
		"":                           "",
		"postgres://u:geheim@DB/x":   "db:5432/x",
		"postgresql://u:geheim@db/x": "db:5432/x",
		"postgres://db:5433/x":       "db:5433/x",
		"postgres://u:ge%40heim@a,b:1/x%20y?sslmode=require": "a:5432,b:1/x y",
		"postgres://[::1]/x":                        "[::1]:5432/x",
		"postgres:///x?host=/run/postgresql&port=7": ":5432?/run/postgresql:7/x",
		"postgres://db?dbname=x&password=geheim":    "db:5432/x",
		"postgres://u:geheim@db/x?options=a@b":      "db:5432/x",
		"db:5432/x":                                 "db:5432/x",
		"a:5432,b:1/x y":                            "?", // of two hosts and a space: never mind
		"postgres://u:gehe@im@db/x":                 "db:5432/x",
		"postgres://u:gehe/im@db/x":                 "?",
		"postgres://u:gehe?im@db/x":                 "?",
		"postgres://u:gehe%zzim@db/x%zz":            "?",
		"postgres://db/x?a=%zz":                     "?",
		"host=db password=geheim":                   "?",
		"geheim":                                    "?",
		"mysql://u:geheim@db/x":                     "?",
	} {
		if got := (View{Database: url}).DatabaseName(); got != want {
			t.Errorf("DatabaseName of %q: got %q, want %q", url, got, want)
		}
	}
}

// However it is printed, a view keeps the password of its database.
func TestViewIsPrintedWithoutPassword(t *testing.T) {
	v := View{Name: "v", Database: "postgres://u:geheim@db/x"}
	d := Definitions{Views: []View{v}}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{fmt.Sprint(v), fmt.Sprintf("%+v", d), fmt.Sprintf("%#v", d), fmt.Sprintf("%v %s", &v, v), string(b)} {
		if strings.Contains(out, "geheim") || !strings.Contains(out, "db:5432/x") {
			t.Errorf("printed as %s", out)
		}
	}
}
