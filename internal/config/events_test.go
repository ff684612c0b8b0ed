package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"cdc/internal/intent"
)

// eventsHead ends before the keys of the pipeline, which then stand on line 6 and
// later.
const eventsHead = `postgres: {url: "postgres://u:pw@db/uni"}
kafka: {brokers: ["k:9092"]}
pipelines:
  intents:
    mode: events
`

// withEvents is a pipeline of those lines.
func withEvents(lines ...string) string {
	return eventsHead + "    " + strings.Join(lines, "\n    ") + "\n"
}

// enrolled declares one type, on line 6.
const enrolled = `events: {enrolled: {stream: "course/{course}", data: {course: string, n: "int?"}}}`

func TestMinimalEvents(t *testing.T) {
	c, err := Parse("c.yaml", []byte(eventsHead), env(nil))
	if err != nil {
		t.Fatal(err)
	}
	p := c.Pipelines["intents"]
	if want := DefaultEventsPipeline("intents"); !reflect.DeepEqual(p, want) {
		t.Errorf("pipeline\n got %+v\nwant %+v", p, want)
	}
	if want := "{database}.events.{category}"; p.Topic != want {
		t.Errorf("topic %q, want %q", p.Topic, want)
	}
	want := intent.Definitions{Undeclared: true, MaxEvent: 1 << 20}
	if got := p.Definitions(); !reflect.DeepEqual(got, want) {
		t.Errorf("definitions\n got %+v\nwant %+v", got, want)
	}
	if err := c.Validate(); err != nil {
		t.Errorf("Validate after Parse: %v", err)
	}
}

func TestDefinitions(t *testing.T) {
	c, err := Parse("c.yaml", []byte(withEvents(
		`topic: "u.{category}"`,
		`partitions: 3`,
		`delivery: at-least-once`,
		`max_event: 256KiB`,
		`undeclared: allow`,
		`events:`,
		`  zeta: {stream: "z/{id}", data: {id: uuid, more: json, at: "time?"}}`,
		`  alpha:`,
		`    stream: &s "course/{course}"`,
		`    schema: 3`,
		`    data: {course: string, n: int, x: "number?", on: bool, day: date}`,
		`    upcast: {2: "data || '{}'", 1: data}`,
		`state:`,
		`  course:`,
		`    initial: '{"students": []}'`,
		`    when: {alpha: ":state || :data"}`,
		`snapshots: {every: 50}`,
		`verify: {every: 90m}`,
		`views:`,
		`  waiting:`,
		`    mode: async`,
		`    database: "postgres://r:${PW}@reporting/uni"`,
		`    table: &t "course text primary key, since bigint"`,
		`    indexes: ["since", "course, since"]`,
		`    when:`,
		`      alpha: |`,
		`        insert into waiting values (:course, :pos)`,
		`        on conflict do nothing;`,
		`  live: {mode: inline, table: *t, when: {zeta: "delete from live"}}`,
		`reactions:`,
		`  b: {when: alpha, append: "select 'zeta' as type, :data as data"}`,
		`  a: {after: waiting, when: [zeta, other], append: "select 1", from: beginning}`,
	)), env(map[string]string{"PW": "a@b/c"}))
	if err != nil {
		t.Fatal(err)
	}
	want := intent.Definitions{
		Undeclared: true, MaxEvent: 256 << 10, Snapshots: 50,
		Events: []intent.EventType{
			{Name: "alpha", Stream: "course/{course}", Schema: 3, Fields: []intent.Field{
				{Name: "course", Type: intent.TypeString}, {Name: "day", Type: intent.TypeDate}, {Name: "n", Type: intent.TypeInt},
				{Name: "on", Type: intent.TypeBool}, {Name: "x", Type: intent.TypeNumber, Optional: true},
			}, Upcast: map[int]string{1: "data", 2: "data || '{}'"}},
			{Name: "zeta", Stream: "z/{id}", Schema: 1, Fields: []intent.Field{
				{Name: "at", Type: intent.TypeTime, Optional: true}, {Name: "id", Type: intent.TypeUUID}, {Name: "more", Type: intent.TypeJSON},
			}},
		},
		Folds: []intent.Fold{{Category: "course", Initial: json.RawMessage(`{"students": []}`), When: map[string]string{"alpha": ":state || :data"}}},
		Views: []intent.View{
			{Name: "live", Mode: intent.Inline, Table: "course text primary key, since bigint", When: map[string]string{"zeta": "delete from live"}},
			{Name: "waiting", Mode: intent.Async, Database: "postgres://r:a%40b%2Fc@reporting/uni", Table: "course text primary key, since bigint",
				Indexes: []string{"since", "course, since"}, When: map[string]string{"alpha": "insert into waiting values (:course, :pos)\non conflict do nothing;\n"}},
		},
		Reactions: []intent.Reaction{
			{Name: "a", After: "waiting", When: []string{"zeta", "other"}, Append: "select 1", From: intent.FromBeginning},
			{Name: "b", When: []string{"alpha"}, Append: "select 'zeta' as type, :data as data", From: intent.FromEnd},
		},
	}
	if got := c.Pipelines["intents"].Verify.Every; got != 90*time.Minute {
		t.Errorf("verify.every %s", got)
	}
	got := c.Pipelines["intents"].Definitions()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("definitions\n got %#v\nwant %#v", got, want)
	}
	if got, want := got.Views[1].Database, want.Views[1].Database; got != want { // what is printed above is without it
		t.Errorf("database %q, want %q", got, want)
	}
}

func TestEventFaults(t *testing.T) {
	cdcKeys := []string{
		`tables: [bad]`, `exclude: []`, `columns: {}`, `key: {}`, `format: jsn`, `debezium: {name: ""}`, `snapshot: {mode: ever, workers: 0}`,
		`messages: {topic: x}`, `toast: fill`, `truncate: stop`, `oversize: stop`, `on_gap: stop`, `dead_letter: "a b"`,
	}
	var cdcFaults []string
	for i, line := range cdcKeys {
		key, _, _ := strings.Cut(line, ":")
		cdcFaults = append(cdcFaults, fmt.Sprintf("c.yaml:%d:5: pipelines.intents.%s: belongs to mode: cdc, this pipeline is of mode: events: remove it", 6+i, key))
	}
	eventsKeys := []string{`undeclared: maybe`, `max_event: 1B`, `events: {x: {}}`, `state: {}`, `snapshots: {every: -1}`, `views: {v: {mode: x}}`, `reactions: {}`}
	var eventsFaults []string
	for i, line := range eventsKeys {
		key, _, _ := strings.Cut(line, ":")
		eventsFaults = append(eventsFaults, fmt.Sprintf("c.yaml:%d:5: pipelines.rows.%s: belongs to mode: events, this pipeline is of mode: cdc: remove it", 6+i, key))
	}
	view := func(s string) string {
		return withEvents(enrolled, `views: {v: {mode: async, table: "n int", when: {enrolled: "delete from v"}, `+s+`}}`)
	}

	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"keys of mode cdc", withEvents(cdcKeys...), cdcFaults},
		{"keys of mode cdc in a section of both", withEvents(`verify: {every: 1h, rate: 2048GiB, dir: /tmp}`), []string{
			`c.yaml:6:25: pipelines.intents.verify.rate: belongs to mode: cdc, this pipeline is of mode: events: remove it`,
			`c.yaml:6:40: pipelines.intents.verify.dir: belongs to mode: cdc, this pipeline is of mode: events: remove it`,
		}},
		{"verify.every", withEvents(`verify: {every: -1s}`), []string{`c.yaml:6:21: pipelines.intents.verify.every: "-1s" is out of range: write a value from 0s to 8760h`}},
		{"keys of mode events", minimal + "    " + strings.Join(eventsKeys, "\n    ") + "\n", eventsFaults},

		// Keys and values.
		{"unknown key of an event", withEvents(`events: {x: {strem: a}}`), []string{
			`c.yaml:6:14: pipelines.intents.events[x].stream: the stream is missing: write its name with fields of data in braces, as in course/{course}`,
			`c.yaml:6:18: pipelines.intents.events[x].strem: unknown key "strem"; did you mean "stream"?`,
		}},
		{"personal", withEvents(`events: {x: {stream: a, personal: {subject: s}}}`), []string{`c.yaml:6:29: pipelines.intents.events[x].personal: erasure is not in this version: remove the key`}},
		{"no value for an event", withEvents(`events:`, `  x:`), []string{`c.yaml:7:9: pipelines.intents.events[x]: has no value: write keys with values, or leave the key out for its default`}},
		{"text for an event", withEvents(`events: {x: "a/{b}"}`), []string{`c.yaml:6:17: pipelines.intents.events[x]: want keys with values, found a single value`}},
		{"what cannot be read is missing to nobody", withEvents(`undeclared: refuse`, `events: {x: {stream: a, data: [n]}, y: []}`, `state: {a: {when: {x: ":n", y: ":state"}}}`,
			`views: {v: {mode: async, table: "n int", when: {x: "delete from v where n = :n"}}, w: x}`,
			`reactions: {r: {after: w, when: y, append: "select :n"}, s: {after: w, when: x, append: "select 'y' as type"}}`), []string{
			`c.yaml:7:35: pipelines.intents.events[x].data: want keys with values, found a list`,
			`c.yaml:7:44: pipelines.intents.events[y]: want keys with values, found a list`,
			`c.yaml:9:91: pipelines.intents.views[w]: want keys with values, found a single value`,
		}},
		{"list for views", withEvents(`views: [a]`), []string{`c.yaml:6:12: pipelines.intents.views: want keys with values, found a list`}},
		{"type of a field, near", withEvents(`events: {x: {stream: a, data: {a: strng, b: "tme?"}}}`), []string{
			`c.yaml:6:39: pipelines.intents.events[x].data[a]: "strng" is not one of string, int, number, bool, time, date, uuid, json, with a ? behind it where the field may be missing; did you mean "string"?`,
			`c.yaml:6:49: pipelines.intents.events[x].data[b]: "tme" is not one of string, int, number, bool, time, date, uuid, json, with a ? behind it where the field may be missing; did you mean "time"?`,
		}},
		{"type of a field, far", withEvents(`events: {x: {stream: a, data: {a: varchar}}}`), []string{`c.yaml:6:39: pipelines.intents.events[x].data[a]: "varchar" is not one of string, int, number, bool, time, date, uuid, json, with a ? behind it where the field may be missing`}},
		{"type of a field left out", withEvents(`events: {x: {stream: a, data: {a: "", b: "?"}}}`), []string{
			`c.yaml:6:39: pipelines.intents.events[x].data[a]: "" is not one of string, int, number, bool, time, date, uuid, json, with a ? behind it where the field may be missing`,
			`c.yaml:6:46: pipelines.intents.events[x].data[b]: "" is not one of string, int, number, bool, time, date, uuid, json, with a ? behind it where the field may be missing`,
		}},
		{"name of a type", withEvents(`events: {"x y": {stream: a}}`), []string{`c.yaml:6:14: pipelines.intents.events[x y]: "x y" cannot name a type: write 1 to 40 letters, digits, '-' and '_', the first a letter`}},
		{"no stream", withEvents(`events: {x: {data: {a: int}}}`), []string{`c.yaml:6:14: pipelines.intents.events[x].stream: the stream is missing: write its name with fields of data in braces, as in course/{course}`}},
		{"field of a stream", withEvents(`events:`, `  x:`, `    stream: "a/{b}/{c}"`, `    data: {b: "int?"}`), []string{`c.yaml:8:17: pipelines.intents.events[x].stream: stream "a/{b}/{c}": {b} may be missing, or is no plain value: declare it without ?, and not as json`}},
		{"schema 0", withEvents(`events: {x: {stream: a, schema: 0}}`), []string{`c.yaml:6:37: pipelines.intents.events[x].schema: "0" is out of range: write a value from 1 to 10000`}},
		{"step that is no version", withEvents(`events: {x: {stream: a, schema: 2, upcast: {1: data, 01: data, one: data}}}`), []string{
			`c.yaml:6:62: pipelines.intents.events[x].upcast[01]: "01" is no version: write the number of the version to come from, as in 1`,
			`c.yaml:6:73: pipelines.intents.events[x].upcast[one]: "one" is no version: write the number of the version to come from, as in 1`,
		}},
		{"steps missing and too many", withEvents(`events: {x: {stream: a, schema: 3, upcast: {2: data, 3: data}}}`), []string{
			`c.yaml:6:48: pipelines.intents.events[x].upcast: there is no step from version 1: write the SQL expression that makes the data of version 2`,
			`c.yaml:6:61: pipelines.intents.events[x].upcast[3]: there is no version 3 to come from: schema is 3, steps go from 1 to 2`,
		}},
		{"step with a placeholder", withEvents(`events: {x: {stream: a, schema: 2, upcast: {1: ":data"}}}`), []string{`c.yaml:6:52: pipelines.intents.events[x].upcast[1]: :data has no meaning here: data, meta, stream and at are called by their plain names`}},
		{"max_event", withEvents(`max_event: 1B`), []string{`c.yaml:6:16: pipelines.intents.max_event: "1B" is out of range: write a value from 1KiB to 64MiB`}},
		{"undeclared", withEvents(`undeclared: ""`), []string{`c.yaml:6:17: pipelines.intents.undeclared: "" is not one of refuse, allow`}},
		{"undeclared, near", withEvents(`undeclared: alow`), []string{`c.yaml:6:17: pipelines.intents.undeclared: "alow" is not one of refuse, allow; did you mean "allow"?`}},
		{"snapshots", withEvents(`snapshots: {every: 1000001}`), []string{`c.yaml:6:24: pipelines.intents.snapshots.every: "1000001" is out of range: write a value from 0 to 1000000`}},
		{"snapshot for snapshots", withEvents(`snapshots: 5`), []string{`c.yaml:6:16: pipelines.intents.snapshots: want keys with values, found a single value`}},

		// State.
		{"state of a category nobody has", withEvents(enrolled, `state: {student: {when: {enrolled: ":state"}}}`), []string{
			`c.yaml:7:13: pipelines.intents.state[student]: no declared type has streams of category "student", as in stream: "student/{id}"`,
			`c.yaml:7:40: pipelines.intents.state[student].when[enrolled]: events of the type are in streams of another category: they never come here`,
		}},
		{"state without expressions", withEvents(enrolled, `state: {course: {}}`), []string{`c.yaml:7:13: pipelines.intents.state[course].when: there is none: write the expression of the state after each type of event`}},
		{"initial state", withEvents(enrolled, `state: {course: {initial: "{students: []}", when: {enrolled: ":state"}}}`), []string{`c.yaml:7:31: pipelines.intents.state[course].initial: is not JSON: write it as in '{"students": []}'`}},
		{"position in a state", withEvents(enrolled, `state: {course: {when: {enrolled: "to_jsonb(:pos)"}}}`), []string{`c.yaml:7:39: pipelines.intents.state[course].when[enrolled]: :pos is not known here: the state counts events that have no position yet`}},

		// Views.
		{"mode of a view", withEvents(enrolled, `views: {v: {mode: asinc, table: "n int", when: {enrolled: "delete from v"}}}`), []string{`c.yaml:7:23: pipelines.intents.views[v].mode: "asinc" is not one of inline, async; did you mean "async"?`}},
		{"view without a mode", withEvents(enrolled, `views: {v: {table: "n int", when: {enrolled: "delete from v"}}}`), []string{`c.yaml:7:13: pipelines.intents.views[v].mode: "" is not one of inline, async`}},
		{"view without anything", withEvents(enrolled, `views: {v: {}}`), []string{
			`c.yaml:7:13: pipelines.intents.views[v].mode: "" is not one of inline, async`,
			`c.yaml:7:13: pipelines.intents.views[v].table: is empty: write its columns, as in "course text primary key, taken int"`,
			`c.yaml:7:13: pipelines.intents.views[v].when: there is none: write a statement for each type of event that changes the view`,
		}},
		{"name of a view", withEvents(enrolled, `views: {my-view: {mode: async, table: "n int", when: {enrolled: "delete from v"}}}`), []string{`c.yaml:7:13: pipelines.intents.views[my-view]: "my-view" cannot name a view, it is the name of a table: write 1 to 40 of a-z, 0-9 and '_', the first a letter`}},
		{"statements of a view", withEvents(enrolled, `views:`, `  v:`, `    mode: inline`, `    table: "n int)"`, `    indexes: [n, ""]`, `    when:`,
			`      enroled: "delete from v"`, `      enrolled: "insert into v values (:m, :pos)"`), []string{
			`c.yaml:10:16: pipelines.intents.views[v].table: the SQL holds a ) without a ( before it`,
			`c.yaml:11:22: pipelines.intents.views[v].indexes[1]: is empty: write its columns, as in "course, since"`,
			`c.yaml:13:20: pipelines.intents.views[v].when[enroled]: type "enroled" is not declared: add it to events; declared are enrolled`,
			`c.yaml:14:21: pipelines.intents.views[v].when[enrolled]: :m is not a field of enrolled, it has course, n`,
			`c.yaml:14:21: pipelines.intents.views[v].when[enrolled]: :pos is not known in an inline view: it is given after the commit`,
		}},
		{"two statements in one", withEvents(enrolled, `views: {v: {mode: async, table: "n int); drop table v; --", when: {enrolled: "delete from v; delete from w"}}}`), []string{
			`c.yaml:7:37: pipelines.intents.views[v].table: the SQL holds a ) without a ( before it`,
			`c.yaml:7:82: pipelines.intents.views[v].when[enrolled]: the SQL holds more than one statement: write one`,
		}},
		{"database of a view", view(`database: "host=db password=geheim"`), []string{`c.yaml:7:91: pipelines.intents.views[v].database: not a Postgres URL: write postgres://user:password@host:5432/database?sslmode=verify-full`}},
		{"database of a view, at sign in the password", view(`database: "postgres://u:gehe@im@db/uni"`), []string{`c.yaml:7:91: pipelines.intents.views[v].database: the user or password holds '@' or '#' as it is: percent-encode it, '@' as %40 and '#' as %23`}},
		{"database of a view that is the pipeline's", view(`database: "postgres://someone:geheim@DB:5432/uni?sslmode=disable"`), []string{`c.yaml:7:91: pipelines.intents.views[v].database: is the pipeline's own database: remove the key`}},
		{"one database by two URLs", withEvents(enrolled, `views:`,
			`  a: {mode: async, database: "postgres://u:geheim@db2/uni", table: "n int", when: {enrolled: "delete from a"}}`,
			`  b: {mode: async, database: "postgres://u:geheim@db2/uni", table: "n int", when: {enrolled: "delete from b"}}`,
			`  c: {mode: async, database: "postgres://v:geheim@db2:5432/uni", table: "n int", when: {enrolled: "delete from c"}}`), []string{`c.yaml:10:34: pipelines.intents.views[c].database: is the database of view a by another URL: write the same`}},
		{"variable not set in the database of a view", view(`database: "postgres://u:${PW}@db2/uni"`), []string{`c.yaml:7:91: pipelines.intents.views[v].database: environment variable PW is not set: set it, or write ${PW:-default}`}},

		// Reactions.
		{"reaction without anything", withEvents(enrolled, `reactions: {r: {}}`), []string{
			`c.yaml:7:17: pipelines.intents.reactions[r].when: there is none: name the types of event to react to`,
			`c.yaml:7:17: pipelines.intents.reactions[r].append: the SQL is empty`,
		}},
		{"reaction to what is not there", withEvents(enrolled, `reactions: {r: {after: v, when: [enrolled, other, enrolled], append: "select :m, :n", from: now}}`), []string{
			`c.yaml:7:28: pipelines.intents.reactions[r].after: there is no view "v": name one of views, or remove the key`,
			`c.yaml:7:48: pipelines.intents.reactions[r].when[1]: type "other" is not declared: add it to events; declared are enrolled`,
			`c.yaml:7:55: pipelines.intents.reactions[r].when[2]: type "enrolled" is listed twice: remove one`,
			`c.yaml:7:74: pipelines.intents.reactions[r].append: :m is not a field of enrolled, it has course, n`,
			`c.yaml:7:97: pipelines.intents.reactions[r].from: "now" is not one of end, beginning`,
		}},
		{"reaction to one that is not there", withEvents(enrolled, `reactions: {r: {when: other, append: "select 1"}}`), []string{`c.yaml:7:27: pipelines.intents.reactions[r].when[0]: type "other" is not declared: add it to events; declared are enrolled`}},
		{"reaction to no text", withEvents(enrolled, `reactions: {r: {when: {a: b}, append: "select 1"}}`), []string{`c.yaml:7:27: pipelines.intents.reactions[r].when: want a text, or a list such as [a, b], found keys with values`}},
		{"reaction to nothing", withEvents(enrolled, `reactions: {r: {when: ~, append: "select 1"}}`), []string{`c.yaml:7:27: pipelines.intents.reactions[r].when: has no value: write a text, or a list such as [a, b], or leave the key out for its default`}},
		{"reaction that appends what is not declared", withEvents(enrolled, `reactions: {r: {when: enrolled, append: "select 'enroled' as type"}}`), []string{`c.yaml:7:45: pipelines.intents.reactions[r].append: appends type "enroled", which is not declared: add it to events; declared are enrolled`}},
		{"reactions that go round", withEvents(enrolled, `undeclared: allow`, `reactions:`, `  a: {when: enrolled, append: "select 'freed' as type"}`, `  b: {when: freed, append: "select 'enrolled' as type"}`), []string{`c.yaml:9:35: pipelines.intents.reactions[a].append: sets itself off for ever: a -> b -> a; append a type that leads no further`}},

		// The environment.
		{"values of a variable are not repeated", withEvents(`events: {x: {stream: "${SECRET}", data: {a: "${SECRET}"}}}`,
			`views: {v: {mode: "${SECRET}", table: "a ${SECRET})", when: {x: ":${SECRET}("}}}`,
			`reactions: {r: {after: "${SECRET}", when: "${SECRET}", append: "select '${SECRET}' as type"}}`), []string{
			`c.yaml:6:26: pipelines.intents.events[x].stream: the value from the environment is not valid here: write it into the file to see why`,
			`c.yaml:6:49: pipelines.intents.events[x].data[a]: the value from the environment is not one of string, int, number, bool, time, date, uuid, json, with a ? behind it where the field may be missing`,
			`c.yaml:7:23: pipelines.intents.views[v].mode: the value from the environment is not one of inline, async`,
			`c.yaml:7:43: pipelines.intents.views[v].table: the value from the environment is not valid here: write it into the file to see why`,
			`c.yaml:7:69: pipelines.intents.views[v].when[x]: the value from the environment is not valid here: write it into the file to see why`,
			`c.yaml:8:28: pipelines.intents.reactions[r].after: the value from the environment is not valid here: write it into the file to see why`,
			`c.yaml:8:47: pipelines.intents.reactions[r].when[0]: the value from the environment is not valid here: write it into the file to see why`,
			`c.yaml:8:68: pipelines.intents.reactions[r].append: the value from the environment is not valid here: write it into the file to see why`,
		}},

		// Topics, slots.
		{"placeholder of a table", withEvents(`topic: "{database}.{table}"`), []string{`c.yaml:6:12: pipelines.intents.topic: topic template "{database}.{table}": only {database} and {category} are known`}},
		{"character of a topic", withEvents(`topic: "a/{category}"`), []string{`c.yaml:6:12: pipelines.intents.topic: topic template "a/{category}": character '/' is not allowed in a topic name (letters, digits, '.', '_', '-')`}},
		{"topic too long", withEvents(`topic: "`+strings.Repeat("t", 230)+`.{category}"`, `events: {x: {stream: "`+strings.Repeat("c", 20)+`/{a}", data: {a: int}}}`), []string{`c.yaml:6:12: pipelines.intents.topic: topic name "tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt.cccccccccccccccccccc" has 251 characters, Kafka allows 249`}},
		{"category from a variable", withEvents(`topic: "`+strings.Repeat("t", 245)+`.{category}"`, `events: {x: {stream: "${CATEGORY}"}}`, `state: {a: {when: {x: ":state"}}}`), []string{
			`c.yaml:6:12: pipelines.intents.topic: with a category from the environment it gives no topic name`,
			`c.yaml:8:13: pipelines.intents.state[a]: no declared type has streams of category "a", as in stream: "a/{id}"`,
			`c.yaml:8:27: pipelines.intents.state[a].when[x]: events of the type are in streams of another category: they never come here`,
		}},
		{"progress among the events", withEvents(enrolled, `topic: t`, `progress_topic: t`), []string{`c.yaml:8:21: pipelines.intents.progress_topic: topic "t" is that of events of category "course" of pipeline intents too: set another`}},
		{"slot name", withEvents(`slot: {name: My-Slot}`), []string{`c.yaml:6:18: pipelines.intents.slot.name: "My-Slot" is not a slot name: Postgres takes 1 to 63 of a-z, 0-9 and '_'`}},
		{"empty url", withEvents(`postgres: {}`), []string{`c.yaml:6:15: pipelines.intents.postgres.url: is missing: write postgres://user:password@host:5432/database?sslmode=verify-full`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := faultsOf(t, tc.text, map[string]string{"SECRET": "geheim!", "CATEGORY": "geheim"})
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("of\n%s\n got %s\nwant %s", tc.text, strings.Join(got, "\n     "), strings.Join(tc.want, "\n     "))
			}
			if all := strings.Join(got, "\n"); strings.Contains(all, "gehe") || strings.Contains(all, "pw") {
				t.Errorf("a message shows a secret: %s", all)
			}
		})
	}
}

func TestEventClashes(t *testing.T) {
	// first stands on lines 4 to 7, second on line 8.
	first := func(keys string) string {
		return eventsHead + "    " + enrolled + "\n" + "    " + keys + "\n"
	}
	for _, tc := range []struct {
		name, keys, second string
		want               []string
	}{
		{"two logs in one database", `topic: "a.{category}"`, `b: {mode: events}`, []string{`c.yaml:8:13: pipelines.b.mode: pipeline intents is of mode: events on the same database: a database has one log of events, put both into one pipeline`}},
		{"two stores", `topic: "a.{category}"`, `b: {mode: events, postgres: {url: "postgres://other:pw@db:5432/school"}}`, []string{`c.yaml:8:13: pipelines.b.mode: pipeline intents is of mode: events too: a file has one, run a daemon of its own for another store`}},
		{"two logs in one database by other names", `topic: "a.{category}"`, `b: {mode: events, postgres: {url: "postgresql://other:pw@DB:5432/uni?sslmode=require"}}`, []string{`c.yaml:8:13: pipelines.b.mode: pipeline intents is of mode: events on the same database: a database has one log of events, put both into one pipeline`}},
		{"tables among the events", `topic: "{database}.public.{category}"`, `b: {tables: ["public.*"]}`, []string{`c.yaml:8:3: pipelines.b.topic: table "public.*" here and events of category "course" of pipeline intents get the same topic: set another topic`}},
		{"tables among the events, one by one", `topic: "{database}.public.{category}"`, `b: {tables: ["public.student", "public.course"]}`, []string{`c.yaml:8:3: pipelines.b.topic: table "public.course" here and events of category "course" of pipeline intents get the same topic: set another topic`}},
		{"progress of one among the events of the other", `topic: "e.{category}"`, `b: {tables: ["x.*"], progress_topic: e.course}`, []string{`c.yaml:8:40: pipelines.b.progress_topic: topic "e.course" is that of events of category "course" of pipeline intents too: set another`}},
		{"slot, publication and progress", `slot: {name: s}`, `b: {tables: ["x.*"], slot: {name: s}, publication: intents, progress_topic: _cdc.progress.intents}`, []string{
			`c.yaml:8:37: pipelines.b.slot.name: slot "s" is pipeline intents's too: a slot serves one reader, set another`,
			`c.yaml:8:54: pipelines.b.publication: publication "intents" is pipeline intents's too: each manages its own, set another`,
			`c.yaml:8:79: pipelines.b.progress_topic: topic "_cdc.progress.intents" is progress_topic of pipeline intents too: two pipelines never share a topic, set another`,
		}},

		{"rows beside events", `max_event: 1MiB`, `b: {tables: ["public.*"]}`, nil},
		{"rows of all schemas beside events", `topic: "{database}.log.of.{category}"`, `b: {tables: ["*.*"], exclude: ["es.*"]}`, nil},
		{"the store as rows", `topic: "{database}.log.of.{category}"`, `b: {tables: ["*.*"]}`, []string{`c.yaml:8:16: pipelines.b.tables[0]: "*.*" covers the event store of pipeline intents, which publishes it: write exclude: ["es.*"]`}},
		{"dead letters are of mode cdc", `topic: intents.dead-letter`, `b: {tables: ["public.*"]}`, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := first(tc.keys) + "  " + tc.second + "\n"
			got := faultsOf(t, text, nil)
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("of\n%s\n got %s\nwant %s", text, strings.Join(got, "\n     "), strings.Join(tc.want, "\n     "))
			}
		})
	}
}

// A configuration built in code is held to its mode too.
func TestModesWithoutFile(t *testing.T) {
	c := Default()
	c.Postgres.URL = "postgres://u@db/uni"
	c.Kafka.Brokers = []string{"k:9092"}
	rows, intents := DefaultPipeline("rows"), DefaultEventsPipeline("intents")
	rows.Tables = []string{"public.*"}
	c.Pipelines = map[string]*Pipeline{"rows": rows, "intents": intents}
	if err := c.Validate(); err != nil {
		t.Fatalf("refused: %v", err)
	}
	rows.MaxEvent, rows.Views = 1, map[string]*View{"v": {Mode: "x"}}
	intents.Tables, intents.Format, intents.Exclude = []string{"x"}, "debezium-json", []string{}
	intents.Verify = Verify{Every: time.Hour, Rate: 1, Dir: ""}
	intents.Events = map[string]*EventType{"none": nil, "x": {Stream: "a", Schema: 1}}
	intents.Reactions = map[string]*Reaction{"none": nil, "r": {When: Words{"x"}, Append: "select 1", From: "end"}}
	want := strings.Join([]string{
		"pipelines.intents.tables: belongs to mode: cdc, this pipeline is of mode: events: remove it",
		"pipelines.intents.format: belongs to mode: cdc, this pipeline is of mode: events: remove it",
		"pipelines.intents.verify.rate: belongs to mode: cdc, this pipeline is of mode: events: remove it",
		"pipelines.rows.max_event: belongs to mode: events, this pipeline is of mode: cdc: remove it",
		"pipelines.rows.views: belongs to mode: events, this pipeline is of mode: cdc: remove it",
	}, "\n")
	if err := c.Validate(); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// However it is printed, the URL of a view's database keeps its password.
func TestViewURLIsNeverPrinted(t *testing.T) {
	p := DefaultEventsPipeline("intents")
	v := View{Mode: "async", Database: "postgres://u:geheim@db/uni"}
	p.Views = map[string]*View{"v": &v}
	c := Default()
	c.Pipelines["intents"] = p
	d := p.Definitions()

	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("start", "config", c, "pipeline", p, "view", v, "url", v.Database, "definitions", d, "of view", d.Views[0])
	}
	asJSON, err := json.Marshal([]any{c, d})
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for name, out := range map[string]string{
		"slog": log.String(), "json": string(asJSON), "yaml": string(asYAML),
		"%v": fmt.Sprintf("%v %v %v", v, v.Database, d), "%+v": fmt.Sprintf("%+v %+v %+v", v, v.Database, d),
		"%#v": fmt.Sprintf("%#v %#v %#v", v, v.Database, d), "%s": fmt.Sprintf("%s %s", v.Database, d.Views), "%q": fmt.Sprintf("%q", v.Database),
	} {
		if strings.Contains(out, "geheim") {
			t.Errorf("%s shows a secret: %s", name, out)
		}
	}
	if !strings.Contains(string(asYAML), "postgres://u:***@db/uni") {
		t.Errorf("the printed configuration has no database: %s", asYAML)
	}
}

// The name a view's database has in the store is the one by which databases are
// compared here.
func TestDatabaseNameIsTheTarget(t *testing.T) {
	for _, url := range []string{
		"postgres://u:p@DB/uni", "postgresql://u:p%40@db:5433/u%20ni?sslmode=disable", "postgres://a,b:1/uni", "postgres://[::1]:7/uni",
		"postgres://[::1]/uni", "postgres:///uni?host=/run/postgresql", "postgres://db", "postgres://db?dbname=x",
		"postgres://u:p@db:5432/uni?options=-c%20x%3Da@b", "postgres://u@h/d?port=7", "postgres://u:p@h,h2/d?dbname=",
	} {
		target, err := parseURL(url)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		if got, want := (intent.View{Database: url}).DatabaseName(), target.hosts+"/"+target.database; got != want {
			t.Errorf("DatabaseName of %s is %q, want %q", url, got, want)
		}
	}
}
