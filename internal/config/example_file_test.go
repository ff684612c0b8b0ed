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

// Alternatives stand in the example behind "# ": with these removed it has every
// key of the structs, no others, and decodes.
func TestExampleHasEveryKey(t *testing.T) {
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^( *)# ([a-z_]+:( |$))`).ReplaceAllString(string(data), "$1$2")
	text = strings.Replace(text, `brokers: ["kafka:9092"]`, "", 1) // excluded by embedded
	d := &decoder{env: exampleEnv, at: map[string]place{}}
	c := Default()
	d.config(d.document([]byte(text)), c)
	if err := d.err(); err != nil {
		t.Fatal(err)
	}
	want := append(keysOf(reflect.TypeFor[Config](), ""), keysOf(reflect.TypeFor[Pipeline](), "pipelines.rows")...)
	for _, key := range want {
		if _, ok := d.at[key]; !ok && key != "kafka.brokers" {
			t.Errorf("config.example.yaml has no %s", key)
		}
	}
	if len(want) < 50 {
		t.Errorf("found only %d keys in the structs: %q", len(want), want)
	}
}

// keysOf are the paths of all keys below a struct.
func keysOf(typ reflect.Type, path string) []string {
	var keys []string
	for _, f := range fieldsOf(typ) {
		at, ft := join(path, f.key), typ.Field(f.index).Type
		keys = append(keys, at)
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Struct {
			keys = append(keys, keysOf(ft, at)...)
		}
	}
	return slices.Compact(keys)
}

// A field without a yaml tag could never be set, and no error would say so.
func TestEveryExportedFieldHasAKey(t *testing.T) {
	for _, typ := range []reflect.Type{
		reflect.TypeFor[Config](), reflect.TypeFor[Postgres](), reflect.TypeFor[Kafka](), reflect.TypeFor[Embedded](),
		reflect.TypeFor[TLS](), reflect.TypeFor[SASL](), reflect.TypeFor[Admin](), reflect.TypeFor[Log](), reflect.TypeFor[Pipeline](),
		reflect.TypeFor[Debezium](), reflect.TypeFor[Snapshot](), reflect.TypeFor[Messages](), reflect.TypeFor[Slot](),
	} {
		for i := range typ.NumField() {
			if f := typ.Field(i); f.IsExported() && f.Tag.Get("yaml") == "" {
				t.Errorf("%s.%s has no yaml tag", typ, f.Name)
			}
		}
	}
}
