package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const exampleFile = "../../config.example.yaml"

func exampleEnv(name string) (string, bool) {
	v, ok := map[string]string{"PGPASSWORD": "s3cret", "KAFKA_PASSWORD": "s3cret"}[name]
	return v, ok
}

// The example is the reference of every default: it must load, and what it says
// must be what is done where a key is left out.
func TestExampleHoldsTheDefaults(t *testing.T) {
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("config.example.yaml", data, exampleEnv)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Postgres.URL = "postgres://cdc:s3cret@db:5432/university?sslmode=verify-full"
	want.Kafka.Brokers = []string{"kafka:9092"}
	rows := DefaultPipeline("rows")
	rows.Tables = []string{"public.*"}
	want.Pipelines["rows"] = rows
	if p := got.Pipelines["rows"]; true { // an empty list is the same as none
		for _, empty := range []int{len(p.Exclude), len(p.Columns), len(p.Key), len(p.TopicConfig), len(p.Messages.Prefixes)} {
			if empty != 0 {
				t.Errorf("example has an entry in a list that is empty by default: %+v", p)
			}
		}
		p.Exclude, p.Columns, p.Key, p.TopicConfig, p.Messages.Prefixes = nil, nil, nil, nil, nil
	}
	got.order, got.file, got.at = nil, "", nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("example and defaults differ\n got %+v\n     %+v\nwant %+v\n     %+v", got, got.Pipelines["rows"], want, want.Pipelines["rows"])
	}
}

// alternatives are lines of the example that "# " keeps out.
var alternatives = regexp.MustCompile(`(?m)^( *)# ([a-z0-9_-]+:( |$))`)

// Alternatives stand in the example behind "# ": with these removed it has every
// key of the structs, no others, and decodes.
func TestExampleHasEveryKey(t *testing.T) {
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	text := alternatives.ReplaceAllString(string(data), "$1$2")
	text = strings.Replace(text, `brokers: ["kafka:9092"]`, "", 1) // excluded by embedded
	d := &decoder{env: exampleEnv, at: map[string]place{}}
	c := Default()
	d.config(d.document([]byte(text)), c)
	if err := d.err(); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for path := range d.at {
		got[regexp.MustCompile(`\[[^\]]*\]`).ReplaceAllString(path, "[]")] = true
	}
	want := append(keysOf(reflect.TypeFor[Config](), "", ""), keysOf(reflect.TypeFor[Pipeline](), "pipelines.rows", ModeCDC)...)
	events := keysOf(reflect.TypeFor[Pipeline](), "pipelines.intents", ModeEvents)
	for _, key := range events { // those of both modes stand with rows
		if rest := strings.TrimPrefix(key, "pipelines.intents."); !slices.Contains(want, "pipelines.rows."+rest) {
			want = append(want, key)
		}
	}
	for _, key := range want {
		if !got[key] && key != "kafka.brokers" {
			t.Errorf("config.example.yaml has no %s", key)
		}
	}
	if len(want) < 75 || len(events) < 30 {
		t.Errorf("found only %d keys in the structs: %q", len(want), want)
	}
}

// The pipeline of mode: events in the example is one that is taken, and what it
// says where a default stands is the default.
func TestExampleOfModeEvents(t *testing.T) {
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(string(data), "  # intents:\n")
	if i < 0 {
		t.Fatal("config.example.yaml has no pipeline intents")
	}
	text := string(data[:i]) + alternatives.ReplaceAllString(string(data[i:]), "$1$2")
	c, err := Parse("config.example.yaml", []byte(text), exampleEnv)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(c.PipelineNames(), " "), "rows intents"; got != want {
		t.Fatalf("pipelines %q, want %q", got, want)
	}
	p := c.Pipelines["intents"]
	d := p.Definitions()
	if got, want := len(d.Events)+len(d.Folds)+len(d.Views)+len(d.Reactions), 4+1+3+1; got != want || d.Undeclared {
		t.Errorf("%d definitions, want %d: %+v", got, want, d)
	}
	if !reflect.DeepEqual(p.Events["student-waitlisted"], &EventType{Stream: "course/{course}", Schema: 1, Data: map[string]string{"course": "string", "student": "string"}}) {
		t.Errorf("event %+v", p.Events["student-waitlisted"])
	}
	if got := p.Reactions["offer-freed-place"].When; !slices.Equal(got, Words{"enrolment-cancelled"}) {
		t.Errorf("when %q", got)
	}
	// A default that is computed is written out in the example.
	if got := c.Pipelines["intents"].Undeclared; got != "refuse" {
		t.Errorf("undeclared %q", got)
	}
	want := DefaultEventsPipeline("intents")
	p.Undeclared, p.Events, p.State, p.Views, p.Reactions = "", nil, nil, nil, nil
	if !reflect.DeepEqual(p, want) {
		t.Errorf("example and defaults differ\n got %+v\nwant %+v", p, want)
	}
}

// keysOf are the paths of all keys below a struct, as far as pipelines of the mode
// have them; [] stands for the entries of a map.
func keysOf(typ reflect.Type, path, mode string) []string {
	var keys []string
	for _, f := range fieldsOf(typ) {
		if m := typ.Field(f.index).Tag.Get("mode"); m != "" && m != mode {
			continue
		}
		at, ft := join(path, f.key), typ.Field(f.index).Type
		keys = append(keys, at)
		if ft.Kind() == reflect.Map && ft != reflect.TypeFor[map[string]*Pipeline]() && ft.Elem().Kind() == reflect.Pointer {
			at, ft = at+"[]", ft.Elem()
		}
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Struct {
			keys = append(keys, keysOf(ft, at, mode)...)
		}
	}
	return slices.Compact(keys)
}

// A field without a yaml tag could never be set, and no error would say so.
func TestEveryExportedFieldHasAKey(t *testing.T) {
	for _, typ := range []reflect.Type{
		reflect.TypeFor[Config](), reflect.TypeFor[Postgres](), reflect.TypeFor[Kafka](), reflect.TypeFor[Embedded](),
		reflect.TypeFor[TLS](), reflect.TypeFor[SASL](), reflect.TypeFor[Admin](), reflect.TypeFor[Log](), reflect.TypeFor[Pipeline](),
		reflect.TypeFor[Debezium](), reflect.TypeFor[Snapshot](), reflect.TypeFor[Messages](), reflect.TypeFor[Slot](), reflect.TypeFor[Verify](),
		reflect.TypeFor[EventType](), reflect.TypeFor[Fold](), reflect.TypeFor[Snapshots](), reflect.TypeFor[View](), reflect.TypeFor[Reaction](),
	} {
		for i := range typ.NumField() {
			if f := typ.Field(i); f.IsExported() && f.Tag.Get("yaml") == "" {
				t.Errorf("%s.%s has no yaml tag", typ, f.Name)
			}
		}
	}
}
