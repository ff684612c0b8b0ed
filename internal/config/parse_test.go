package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// minimal is the shortest configuration that loads.
const minimal = `postgres: {url: "postgres://u:pw@db/uni"}
kafka: {brokers: ["k:9092"]}
pipelines:
  rows:
    tables: ["public.*"]
`

func env(pairs map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := pairs[name]
		return v, ok
	}
}

// faultsOf parses and gives the faults as lines.
func faultsOf(t *testing.T, text string, vars map[string]string) []string {
	t.Helper()
	_, err := Parse("c.yaml", []byte(text), env(vars))
	if err == nil {
		return nil
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %T, want *Error: %v", err, err)
	}
	return strings.Split(err.Error(), "\n")
}

func TestMinimalTakesTheDefaults(t *testing.T) {
	c, err := Parse("c.yaml", []byte(minimal), env(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultPipeline("rows")
	want.Tables = []string{"public.*"}
	if got := c.Pipelines["rows"]; !reflect.DeepEqual(got, want) {
		t.Errorf("pipeline\n got %+v\nwant %+v", got, want)
	}
	if got := c.PostgresFor(want).URL; got != "postgres://u:pw@db/uni" {
		t.Errorf("url %q", got)
	}
	if got := c.ReplicationFor(want); got != -1 {
		t.Errorf("replication %d, want -1", got)
	}
	if err := c.Validate(); err != nil {
		t.Errorf("Validate after Parse: %v", err)
	}
}

func TestEveryKindOfValue(t *testing.T) {
	c, err := Parse("/etc/cdc/c.yaml", []byte(`
postgres: {url: "${URL}"}
kafka:
  embedded: {dir: data}
  min_isr: 1
admin: {listen: ""}
log: {level: debug, format: json}
pipelines:
  zeta-1:
    mode: cdc
    tables: [public.students, '"we ird"."a.b"', "sales.*_log?"]
    exclude: ["sales.tmp*"]
    columns: {public.students: &cols [id, name], 'a."b c"': [x]}
    key: {public.students: [id]}
    topic: "u.{schema}.{table}"
    partitions: ${PARTITIONS:-12}
    replication: 1
    topic_config: {segment.ms: 600000, compression.type: zstd}
    format: debezium-json
    debezium: {unknown: omit, name: srv}
    snapshot: {mode: never, workers: 2}
    toast: placeholder
    memory: 128MiB
    linger: 5ms
    compression: lz4
    slot: {name: z, failover: true}
    messages: {prefixes: [audit], topic: u.audit}
  alpha:
    postgres: {url: "postgres://other/archive"}
    tables: ["public.*"]
    topic: "archive.{table}"
    columns: {public.x: *cols}
`), env(map[string]string{"URL": "postgres://u@db/uni"}))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(c.PipelineNames(), " "), "zeta-1 alpha"; got != want {
		t.Errorf("names %q, want the file's order %q", got, want)
	}
	z, a := c.Pipelines["zeta-1"], c.Pipelines["alpha"]
	for _, tc := range []struct {
		name      string
		got, want any
	}{
		{"url from the environment", c.PostgresFor(z).URL, "postgres://u@db/uni"},
		{"url of a pipeline's own", c.PostgresFor(a).URL, "postgres://other/archive"},
		{"relative directory", c.Kafka.Embedded.Dir, "/etc/cdc/data"},
		{"default inside an optional section", c.Kafka.Embedded.Listen, "127.0.0.1:9092"},
		{"empty value", c.Admin.Listen, ""},
		{"default of a variable", z.Partitions, 12},
		{"size", z.Memory, Bytes(128 << 20)},
		{"duration", z.Linger, 5 * time.Millisecond},
		{"bool", z.Slot.Failover, true},
		{"slot", z.Slot.Name, "z"},
		{"publication of the name", z.Publication, "zeta_1"},
		{"number as text", z.TopicConfig["segment.ms"], "600000"},
		{"replication", c.ReplicationFor(z), 1},
		{"alias", strings.Join(a.Columns["public.x"], " "), "id name"},
		{"patterns for the source", strings.Join(z.Include(), " | "), "public.students | we ird.a.b | sales.*_log?"},
		{"excluded for the source", strings.Join(z.Excluded(), " | "), "sales.tmp*"},
		{"columns by table", z.ColumnsByTable(), map[string][]string{"public.students": {"id", "name"}, "a.b c": {"x"}}},
		{"key by table", z.KeyByTable(), map[string][]string{"public.students": {"id"}}},
		{"topic settings", c.TopicConfigFor(z), map[string]string{"segment.ms": "600000", "compression.type": "zstd", "min.insync.replicas": "1"}},
		{"topic settings of the cluster", c.TopicConfigFor(a), map[string]string{"min.insync.replicas": "1"}},
		{"progress", a.ProgressTopic, "_cdc.progress.alpha"},
		{"dead letters", a.DeadLetter, "alpha.dead-letter"},
	} {
		if !reflect.DeepEqual(tc.got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, tc.got, tc.want)
		}
	}
}

func TestFaults(t *testing.T) {
	// head ends before the pipeline's keys, which then stand on line 5 and later.
	const head = "postgres: {url: \"postgres://u:pw@db/uni\"}\nkafka: {brokers: [\"k:9092\"]}\npipelines:\n  rows:\n"
	pipe := func(lines ...string) string {
		return head + "    tables: [\"public.*\"]\n    " + strings.Join(lines, "\n    ") + "\n"
	}
	top := func(lines ...string) string { return minimal + strings.Join(lines, "\n") + "\n" }
	kafka := func(s string) string { return strings.Replace(minimal, `{brokers: ["k:9092"]}`, s, 1) }
	url := func(s string) string { return strings.Replace(minimal, `"postgres://u:pw@db/uni"`, s, 1) }
	two := func(second ...string) string {
		return minimal + "  more:\n    " + strings.Join(second, "\n    ") + "\n"
	}

	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		// The text.
		{"empty file", "", []string{"c.yaml: the file is empty: start from config.example.yaml"}},
		{"comments alone", "# nothing\n", []string{"c.yaml: the file is empty: start from config.example.yaml"}},
		{"null document", "---\n", []string{"c.yaml: the file is empty: start from config.example.yaml"}},
		{"not a mapping", "hello\n", []string{"c.yaml:1:1: want keys with values, found a single value"}},
		{"syntax", "postgres: {url: x\nkafka: [\n", []string{"c.yaml:1: not YAML: did not find expected ',' or '}'"}},
		{"tab", "log:\n\tlevel: info\n", []string{"c.yaml:2: not YAML: found character that cannot start any token"}},
		{"second document", minimal + "---\nlog: {}\n", []string{"c.yaml:6:1: a second document begins here: a configuration is one document, remove the ---"}},
		{"unknown anchor", top("log: *nope"), []string{"c.yaml: not YAML: unknown anchor 'nope' referenced"}},
		{"merge key", two("<<: {}", `tables: ["a.b"]`), []string{"c.yaml:7:5: pipelines.more: merge keys (<<) are not taken: write the keys out, or use an alias for a whole value"}},
		{"key that is a list", top("[a]: b"), []string{"c.yaml:6:1: a key must be a plain word, not a list"}},

		// Keys.
		{"unknown key, near", pipe("formt: json"), []string{`c.yaml:6:5: pipelines.rows.formt: unknown key "formt"; did you mean "format"?`}},
		{"unknown key, swapped letters", pipe("fromat: json"), []string{`c.yaml:6:5: pipelines.rows.fromat: unknown key "fromat"; did you mean "format"?`}},
		{"unknown key, case", pipe("Format: json"), []string{`c.yaml:6:5: pipelines.rows.Format: unknown key "Format"; did you mean "format"?`}},
		{"unknown key, far", top("log: {colour: red}"), []string{`c.yaml:6:7: log.colour: unknown key "colour"; known here: level, format`}},
		{"unknown section", top("metrics: {}"), []string{`c.yaml:6:1: metrics: unknown key "metrics"; known here: postgres, kafka, admin, log, pipelines`}},
		{"duplicate key", pipe("format: json", "partitions: 3", "format: json"), []string{"c.yaml:8:5: pipelines.rows.format: the key appears twice, first on line 6: remove one"}},
		{"duplicate pipeline", two(`tables: ["a.b"]`) + "  rows: {}\n", []string{"c.yaml:8:3: pipelines.rows: the key appears twice, first on line 4: remove one"}},
		{"keys of mode events", pipe("events: {}", "views: {}"), []string{
			"c.yaml:6:5: pipelines.rows.events: belongs to mode: events, this pipeline is of mode: cdc: remove it",
			"c.yaml:7:5: pipelines.rows.views: belongs to mode: events, this pipeline is of mode: cdc: remove it",
		}},
		{"erasure", top("erasure: {}"), []string{"c.yaml:6:1: erasure: erasure is not in this version: remove the key"}},

		// Types.
		{"list for a text", pipe("format: [json]"), []string{"c.yaml:6:13: pipelines.rows.format: want a text, found a list"}},
		{"text for a list", head + "    tables: public.*\n", []string{"c.yaml:5:13: pipelines.rows.tables: want a list such as [a, b], found a single value"}},
		{"text for a section", pipe("snapshot: initial"), []string{"c.yaml:6:15: pipelines.rows.snapshot: want keys with values, found a single value"}},
		{"list for pipelines", strings.Replace(minimal, "  rows:\n    tables:", "  - tables:", 1), []string{"c.yaml:4:3: pipelines: want keys with values, found a list"}},
		{"text for a number", pipe("partitions: many"), []string{`c.yaml:6:17: pipelines.rows.partitions: "many" is not a whole number`}},
		{"fraction for a number", pipe("partitions: 1.5"), []string{`c.yaml:6:17: pipelines.rows.partitions: "1.5" is not a whole number`}},
		{"yes for a bool", pipe("slot: {failover: yes}"), []string{`c.yaml:6:22: pipelines.rows.slot.failover: "yes" is neither true nor false`}},
		{"no value", pipe("format:"), []string{"c.yaml:6:12: pipelines.rows.format: has no value: write a text, or leave the key out for its default"}},
		{"no value for a section", top("admin:"), []string{"c.yaml:6:7: admin: has no value: write keys with values, or leave the key out for its default"}},
		{"empty pipeline", head, []string{"c.yaml:4:8: pipelines.rows: has no value: write keys with values, or leave the key out for its default"}},
		{"null in a list", head + "    tables: [~]\n", []string{"c.yaml:5:14: pipelines.rows.tables[0]: has no value: write a text, or leave the key out for its default"}},
		{"size without unit", pipe("memory: 64"), []string{`c.yaml:6:13: pipelines.rows.memory: "64" is not a size: write a whole number and B, KiB, MiB or GiB, as in 64MiB`}},
		{"size that overflows", pipe("memory: 9999999999GiB"), []string{`c.yaml:6:13: pipelines.rows.memory: "9999999999GiB" is not a size: write a whole number and B, KiB, MiB or GiB, as in 64MiB`}},
		{"duration without unit", pipe("linger: 10"), []string{`c.yaml:6:13: pipelines.rows.linger: "10" is not a duration: write a number and ms, s, m or h, as in 10s`}},

		// Values.
		{"value not allowed", pipe("delivery: exactly-ones"), []string{`c.yaml:6:15: pipelines.rows.delivery: "exactly-ones" is not one of exactly-once, at-least-once; did you mean "exactly-once"?`}},
		{"value not allowed, far", top("log: {level: loud}"), []string{`c.yaml:6:14: log.level: "loud" is not one of debug, info, warn, error`}},
		{"mode not known", pipe("mode: event"), []string{`c.yaml:6:11: pipelines.rows.mode: "event" is not one of cdc, events; did you mean "events"?`}},
		{"delivery transactional", pipe("delivery: transactional"), []string{"c.yaml:6:15: pipelines.rows.delivery: delivery: transactional is not in this version: write exactly-once or at-least-once"}},
		{"number too small", pipe("partitions: 0"), []string{`c.yaml:6:17: pipelines.rows.partitions: "0" is out of range: write a value from 1 to 10000`}},
		{"size too small", pipe("memory: 1KiB"), []string{`c.yaml:6:13: pipelines.rows.memory: "1KiB" is out of range: write a value from 4MiB to 64GiB`}},
		{"duration too long", pipe("linger: 1h"), []string{`c.yaml:6:13: pipelines.rows.linger: "1h0m0s" is out of range: write a value from 0s to 10s`}},

		// Environment.
		{"variable not set", url(`"postgres://u:${PGPASSWORD}@db/uni"`), []string{"c.yaml:1:17: postgres.url: environment variable PGPASSWORD is not set: set it, or write ${PGPASSWORD:-default}"}},
		{"two variables not set", pipe(`topic: "${A}.${B}"`), []string{
			"c.yaml:6:12: pipelines.rows.topic: environment variable A is not set: set it, or write ${A:-default}",
			"c.yaml:6:12: pipelines.rows.topic: environment variable B is not set: set it, or write ${B:-default}",
		}},
		{"variable not closed", pipe(`topic: "a.${B"`), []string{"c.yaml:6:12: pipelines.rows.topic: ${ is not closed: write ${NAME} or ${NAME:-default}, and $${ for a literal ${"}},
		{"variable without name", pipe(`topic: "a.${}"`), []string{"c.yaml:6:12: pipelines.rows.topic: ${} names no variable: write ${NAME} or ${NAME:-default}, and $${ for a literal ${"}},
		{"value of a variable is not repeated", pipe("format: ${SECRET}", "partitions: ${SECRET}", "slot: {name: \"${SECRET}\"}", "topic: ${SECRET}"), []string{
			"c.yaml:6:13: pipelines.rows.format: the value from the environment is not one of json, debezium-json",
			`c.yaml:7:17: pipelines.rows.partitions: "${SECRET}" with the environment filled in is not a whole number`,
			"c.yaml:8:18: pipelines.rows.slot.name: the value from the environment is not a slot name: Postgres takes 1 to 63 of a-z, 0-9 and '_'",
			"c.yaml:9:12: pipelines.rows.topic: the value from the environment gives no topic name: letters, digits, '.', '_' and '-' are allowed",
		}},

		// Postgres.
		{"no url", strings.Replace(minimal, "postgres: {url: \"postgres://u:pw@db/uni\"}", "log: {}", 1), []string{"c.yaml: postgres.url: is missing: write postgres://user:password@host:5432/database?sslmode=verify-full"}},
		{"empty url", url(`""`), []string{"c.yaml:1:17: postgres.url: is missing: write postgres://user:password@host:5432/database?sslmode=verify-full"}},
		{"empty url of a pipeline's own", pipe("postgres: {}"), []string{"c.yaml:6:15: pipelines.rows.postgres.url: is missing: write postgres://user:password@host:5432/database?sslmode=verify-full"}},
		{"not a url", url(`"host=db password=geheim"`), []string{"c.yaml:1:17: postgres.url: not a Postgres URL: write postgres://user:password@host:5432/database?sslmode=verify-full"}},
		{"at sign in the password", url(`"postgres://u:gehe@im@db/uni"`), []string{"c.yaml:1:17: postgres.url: the user or password holds '@' or '#' as it is: percent-encode it, '@' as %40 and '#' as %23"}},
		{"slash in the password", url(`"postgres://u:gehe/im@db/uni"`), []string{"c.yaml:1:17: postgres.url: an '@' stands behind the first '/' or '?': percent-encode them in the password, '/' as %2F and '?' as %3F, or in the database's name, '@' as %40"}},
		{"percent in the password", url(`"postgres://u:gehe%im@db/uni"`), []string{"c.yaml:1:17: postgres.url: the user or password holds '%' without two hexadecimal digits: write it as %25"}},
		{"bad port", url(`"postgres://u@db:x/uni"`), []string{"c.yaml:1:17: postgres.url: the port is not a number from 1 to 65535; percent-encode '/', '?' and '@' if they belong to the password"}},
		{"bare IPv6", url(`"postgres://u@::1/uni"`), []string{"c.yaml:1:17: postgres.url: an IPv6 address goes in brackets, as in [::1]:5432"}},
		{"bad sslmode", url(`"postgres://u@db/uni?sslmode=on"`), []string{`c.yaml:1:17: postgres.url: sslmode is not known: write one of disable, allow, prefer, require, verify-ca, verify-full`}},
		{"replication option", url(`"postgres://u@db/uni?replication=database"`), []string{`c.yaml:1:17: postgres.url: option "replication" is set by cdc itself: remove it`}},

		// Kafka and the servers.
		{"no brokers", kafka("{}"), []string{`c.yaml:2:8: kafka.brokers: no broker: write brokers: ["host:9092"], or embedded: {} for one inside this process`}},
		{"brokers and embedded", kafka(`{brokers: ["k:9092"], embedded: {}}`), []string{"c.yaml:2:40: kafka.embedded: kafka.brokers and kafka.embedded exclude each other: keep one"}},
		{"broker without port", kafka(`{brokers: [kafka]}`), []string{`c.yaml:2:19: kafka.brokers[0]: "kafka" is not host:port: write it as in 127.0.0.1:9092`}},
		{"broker twice", kafka(`{brokers: ["k:1", "k:1"]}`), []string{`c.yaml:2:26: kafka.brokers[1]: "k:1" is listed twice: remove one`}},
		{"certificate without key", kafka(`{brokers: ["k:1"], tls: {cert: c.pem}}`), []string{"c.yaml:2:32: kafka.tls: cert and key belong together: write both, or neither for no client certificate"}},
		{"sasl without password", kafka(`{brokers: ["k:1"], sasl: {mechanism: plain, username: u}}`), []string{"c.yaml:2:33: kafka.sasl.password: is missing or empty: write it, or remove sasl"}},
		{"sasl without mechanism", kafka(`{brokers: ["k:1"], sasl: {username: u, password: p}}`), []string{`c.yaml:2:33: kafka.sasl.mechanism: "" is not one of plain, scram-sha-256, scram-sha-512`}},
		{"replication 0", kafka(`{brokers: ["k:1"], replication: 0}`), []string{"c.yaml:2:40: kafka.replication: 0 copies hold nothing: write 1 or more, or -1 for the broker's default"}},
		{"in-sync replicas above the replicas", kafka(`{brokers: ["k:1"], replication: 2, min_isr: 3}`), []string{"c.yaml:2:52: kafka.min_isr: 3 in-sync replicas cannot come of 2: write at most kafka.replication"}},
		{"embedded with everything of a cluster", kafka(`{embedded: {listen: "0.0.0.0:9092"}, tls: {}, sasl: {mechanism: plain, username: u, password: p}, replication: 3}`), []string{
			`c.yaml:2:28: kafka.embedded.listen: "0.0.0.0:9092" can be reached from other machines, and there is no login: write 127.0.0.1:9092`,
			"c.yaml:2:50: kafka.tls: the embedded broker speaks no TLS: remove tls, it listens on this machine only",
			"c.yaml:2:60: kafka.sasl: the embedded broker has no login: remove sasl, it listens on this machine only",
			"c.yaml:2:119: kafka.replication: the embedded broker is one broker: write 1, or remove the key",
		}},
		{"admin on all addresses", top(`admin: {listen: ":8083"}`), []string{`c.yaml:6:17: admin.listen: ":8083" is not host:port: the host is missing or not a host, write it as in 127.0.0.1:8083`}},
		{"admin on a name", top(`admin: {listen: "myhost:8083"}`), []string{`c.yaml:6:17: admin.listen: "myhost:8083" can be reached from other machines, and there is no login: write 127.0.0.1:8083`}},
		{"admin on the broker's address", strings.Replace(minimal, `{brokers: ["k:9092"]}`, `{embedded: {listen: "127.0.0.1:8083"}}`, 1), []string{"c.yaml:2:28: kafka.embedded.listen: admin.listen has the same address: change one port"}},

		// Pipelines.
		{"no pipelines", "postgres: {url: \"postgres://u@db/uni\"}\nkafka: {brokers: [\"k:1\"]}\n", []string{"c.yaml: pipelines: there is no pipeline: add one, as in config.example.yaml"}},
		{"pipeline name", strings.Replace(minimal, "rows:", "My Rows:", 1), []string{`c.yaml:4:3: pipelines.My Rows: pipeline name "My Rows": write 1 to 63 of a-z, 0-9, '-' and '_'; it names the slot and the transactional id`, `c.yaml:4:3: pipelines.My Rows.dead_letter: topic template "My Rows.dead-letter": character ' ' is not allowed in a topic name (letters, digits, '.', '_', '-')`, `c.yaml:4:3: pipelines.My Rows.progress_topic: topic template "_cdc.progress.My Rows": character ' ' is not allowed in a topic name (letters, digits, '.', '_', '-')`}},
		{"no tables", head + "    format: json\n", []string{`c.yaml:4:3: pipelines.rows.tables: no tables: write those to capture, as in ["public.*"]`}},
		{"empty tables", head + "    tables: []\n", []string{`c.yaml:5:13: pipelines.rows.tables: no tables: write those to capture, as in ["public.*"]`}},
		{"table without schema", head + "    tables: [students]\n", []string{`c.yaml:5:14: pipelines.rows.tables[0]: table pattern "students": write schema.table, as in public.students`}},
		{"table with too many parts", head + "    tables: [a.b.c]\n", []string{`c.yaml:5:14: pipelines.rows.tables[0]: table pattern "a.b.c": ".c" is too much behind schema.table; put a name that holds a dot in double quotes`}},
		{"table with a space", head + "    tables: [\"a.b c\"]\n", []string{`c.yaml:5:14: pipelines.rows.tables[0]: table pattern "a.b c": a name that holds ' ' goes in double quotes`}},
		{"quote not closed", head + "    tables: ['a.\"b']\n", []string{`c.yaml:5:14: pipelines.rows.tables[0]: table pattern "a.\"b": a double quote is not closed`}},
		{"table twice, once quoted", head + "    tables: [a.b, '\"a\".\"b\"']\n", []string{`c.yaml:5:19: pipelines.rows.tables[1]: "\"a\".\"b\"" is listed twice: remove one`}},
		{"all excluded", pipe(`exclude: ["*.*"]`), []string{`c.yaml:5:14: pipelines.rows.tables[0]: exclude leaves nothing of "public.*": remove it here or there`}},
		{"slot name", pipe("slot: {name: My-Slot}"), []string{`c.yaml:6:18: pipelines.rows.slot.name: "My-Slot" is not a slot name: Postgres takes 1 to 63 of a-z, 0-9 and '_'`}},
		{"publication name", pipe("publication: \"" + strings.Repeat("p", 64) + "\""), []string{`c.yaml:6:18: pipelines.rows.publication: "` + strings.Repeat("p", 64) + `" is not a publication name: Postgres takes 1 to 63 bytes`}},
		{"placeholder", pipe(`topic: "{db}.{table}"`), []string{`c.yaml:6:12: pipelines.rows.topic: topic template "{db}.{table}": only {database}, {schema} and {table} are known`}},
		{"character of a topic", pipe(`topic: "a/{table}"`), []string{`c.yaml:6:12: pipelines.rows.topic: topic template "a/{table}": character '/' is not allowed in a topic name (letters, digits, '.', '_', '-')`}},
		{"one topic for all tables", pipe("topic: all"), []string{`c.yaml:6:12: pipelines.rows.topic: without {table} all tables of "public.*" get one topic: add {table}, or name one table`}},
		{"one topic for two tables", head + "    tables: [a.x, a.y]\n    topic: \"{schema}\"\n", []string{`c.yaml:6:12: pipelines.rows.topic: "a.x" and "a.y" get one topic: add {schema} and {table}`}},
		{"placeholder in a topic of its own", pipe(`dead_letter: "dead.{table}"`), []string{"c.yaml:6:18: pipelines.rows.dead_letter: a topic of its own has no placeholders: write its name"}},
		{"dead letters among the progress", pipe("dead_letter: x", "progress_topic: x"), []string{`c.yaml:7:21: pipelines.rows.progress_topic: topic "x" is dead_letter too: set another`}},
		{"dead letters among the rows", head + "    tables: [public.x]\n    topic: t\n    dead_letter: t\n", []string{`c.yaml:7:18: pipelines.rows.dead_letter: topic "t" is that of table "public.x" of pipeline rows too: set another`}},
		{"key with wildcard", pipe(`key: {"public.*": [id]}`), []string{"c.yaml:6:23: pipelines.rows.key[public.*]: wildcards are not taken here: name one table"}},
		{"key without columns", pipe("key: {public.a: []}"), []string{"c.yaml:6:21: pipelines.rows.key[public.a]: no columns: write a list such as [id, name]"}},
		{"key with a column twice", pipe("key: {public.a: [id, id]}"), []string{`c.yaml:6:26: pipelines.rows.key[public.a][1]: column "id" is listed twice: remove one`}},
		{"key column not published", pipe("columns: {public.a: [name]}", "key: {public.a: [id]}"), []string{`c.yaml:7:22: pipelines.rows.key[public.a][0]: key column "id" is not among the columns of public.a: add it there`}},
		{"one table by two names", pipe(`key: {public.a: [id], '"public".a': [id]}`), []string{`c.yaml:6:21: pipelines.rows.key[public.a]: "public".a and public.a are the same table: remove one`}},
		{"messages without topic", pipe("messages: {prefixes: [a]}"), []string{"c.yaml:6:15: pipelines.rows.messages.topic: is missing: write the topic messages go to, or remove messages"}},
		{"messages without prefixes", pipe("messages: {topic: a}"), []string{"c.yaml:6:15: pipelines.rows.messages.prefixes: no prefixes: write those to take, as in [audit], or remove messages"}},
		{"never snapshot, but resnapshot", pipe("snapshot: {mode: never}", "on_gap: resnapshot"), []string{"c.yaml:7:13: pipelines.rows.on_gap: resnapshot contradicts snapshot.mode: never; write on_gap: stop, or snapshot: {mode: initial}"}},
		{"placeholder in json", pipe("toast: placeholder"), []string{"c.yaml:6:12: pipelines.rows.toast: placeholder is Debezium's and needs format: debezium-json; write fill, omit or refuse"}},

		// Between pipelines.
		{"same slot, publication and topic", two(`tables: ["public.a*"]`, "slot: {name: rows}", "publication: rows"), []string{
			`c.yaml:6:3: pipelines.more.topic: tables "public.a*" here and "public.*" of pipeline rows get the same topic: set another topic, or exclude them in one of the pipelines`,
			`c.yaml:8:18: pipelines.more.slot.name: slot "rows" is pipeline rows's too: a slot serves one reader, set another`,
			`c.yaml:9:18: pipelines.more.publication: publication "rows" is pipeline rows's too: each manages its own, set another`,
		}},
		{"same slot by similar names", strings.Replace(minimal, "rows:", "a-b:", 1) + "  a_b: {tables: [\"x.*\"]}\n", []string{
			`c.yaml:6:3: pipelines.a_b.slot.name: slot "a_b" is pipeline a-b's too: a slot serves one reader, set another`,
			`c.yaml:6:3: pipelines.a_b.publication: publication "a_b" is pipeline a-b's too: each manages its own, set another`,
		}},
		{"same progress topic", two(`tables: ["x.*"]`, "progress_topic: _cdc.progress.rows"), []string{`c.yaml:8:21: pipelines.more.progress_topic: topic "_cdc.progress.rows" is progress_topic of pipeline rows too: two pipelines never share a topic, set another`}},
		{"same topic from two databases", two("postgres: {url: \"postgres://u@db/other\"}", `tables: ["public.*"]`, `topic: "uni.{schema}.{table}"`), []string{`c.yaml:9:12: pipelines.more.topic: tables "public.*" here and "public.*" of pipeline rows get the same topic: set another topic, or exclude them in one of the pipelines`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := faultsOf(t, tc.text, map[string]string{"SECRET": "geheim!"})
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("of\n%s\n got %s\nwant %s", tc.text, strings.Join(got, "\n     "), strings.Join(tc.want, "\n     "))
			}
			if all := strings.Join(got, "\n"); strings.Contains(all, "gehe") || strings.Contains(all, "pw") {
				t.Errorf("a message shows a secret: %s", all)
			}
		})
	}
}

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "ab", 2}, {"log", "log", 0}, {"lgo", "log", 1}, {"form", "from", 1},
		{"tabels", "tables", 1}, {"format", "formats", 1}, {"topics", "topic", 1}, {"kitten", "sitting", 3}, {"abc", "xyz", 3},
	} {
		if got := distance(tc.a, tc.b); got != tc.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
	if got := nearest("zzz", []string{"log", "kafka"}); got != "" {
		t.Errorf("nearest of nothing near: %q", got)
	}
	if got := nearest(strings.Repeat("log", 100), []string{"log"}); got != "" {
		t.Errorf("nearest of a very long word: %q", got)
	}
}

// What must not be refused: pipelines side by side that share nothing.
func TestPipelinesThatShareNothing(t *testing.T) {
	for name, second := range map[string]string{
		"other schema":               `{tables: ["sales.*"]}`,
		"other template":             `{tables: ["public.*"], topic: "b.{table}"}`,
		"excluded there":             `{tables: ["public.a"], exclude: [], topic: "{database}.{schema}.{table}"}`,
		"other database":             `{tables: ["public.*"], postgres: {url: "postgres://u@db/other"}}`,
		"same slot, other server":    `{tables: ["x.*"], slot: {name: rows}, publication: rows, postgres: {url: "postgres://u@db2/uni"}}`,
		"same publication, other db": `{tables: ["x.*"], publication: rows, postgres: {url: "postgres://u@db/other"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(minimal, `["public.*"]`, "[\"public.*\"]\n    exclude: [public.a]", 1) + "  more: " + second + "\n"
			if got := faultsOf(t, text, nil); got != nil {
				t.Errorf("refused:\n%s\n%s", text, strings.Join(got, "\n"))
			}
		})
	}
}

// The contract of names: what this version does not carry out is refused by
// name, everything else in it is taken.
func TestContract(t *testing.T) {
	const contract = `postgres: {url: "postgres://cdc:${PGPASSWORD}@db:5432/university?sslmode=verify-full"}
kafka:
  brokers: ["kafka:9092"]
  tls: {ca: ca.pem, cert: c.pem, key: k.pem}
  sasl: {mechanism: scram-sha-512, username: cdc, password: "${KAFKA_PASSWORD}"}
admin: {listen: "127.0.0.1:8083"}
log: {level: info, format: text}
pipelines:
  rows:
    mode: cdc
    tables: ["public.*"]
    exclude: ["public.schema_migrations"]
    topic: "university.{schema}.{table}"
    partitions: 6
    format: json
    debezium: {unknown: text}
    delivery: exactly-once
    snapshot: {mode: initial, workers: 4}
    toast: fill
    truncate: tombstones
    oversize: stop
    on_gap: stop
    key: {public.audit: [tenant, seq]}
    memory: 64MiB
`
	vars := map[string]string{"PGPASSWORD": "x", "KAFKA_PASSWORD": "y"}
	if got := faultsOf(t, contract, vars); got != nil {
		t.Errorf("refused:\n%s", strings.Join(got, "\n"))
	}
	intents := `  intents:
    mode: events
    topic: "university.events.{category}"
    events: {}
    state: {}
    views: {}
    reactions: {}
    snapshots: {}
`
	if got := faultsOf(t, contract+intents, vars); got != nil {
		t.Errorf("refused:\n%s", strings.Join(got, "\n"))
	}
	got := faultsOf(t, contract+intents+"erasure: {keys: {file: master.key}, places: []}\n", vars)
	want := []string{"c.yaml:33:1: erasure: erasure is not in this version: remove the key"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAllFaultsAtOnceInTheOrderOfTheFile(t *testing.T) {
	got := faultsOf(t, `postgres: {url: "postgres://u:${NO}@db/uni"}
kafka: {brokers: [k]}
log: {level: loud, levl: x}
pipelines:
  rows: {tables: [x], format: jsn, partitions: -1, memory: big}
`, nil)
	want := []string{"1:17", "2:19", "3:14", "3:20", "5:19", "5:31", "5:48", "5:60"}
	if len(got) != len(want) {
		t.Fatalf("got %d faults, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.HasPrefix(got[i], "c.yaml:"+want[i]+": ") {
			t.Errorf("fault %d is %q, want it at %s", i, got[i], want[i])
		}
	}
}

func TestEnvironment(t *testing.T) {
	vars := map[string]string{"A": "one", "EMPTY": "", "PW": `p@ss/w:rd #1%`, "NAME": "x}y: z\n- q"}
	for _, tc := range []struct{ in, url, plain string }{
		{"${A}", "one", "one"},
		{"x${A}y${A}", "xoneyone", "xoneyone"},
		{"${B:-two}", "two", "two"},
		{"${EMPTY:-two}", "two", "two"},
		{"${EMPTY}", "", ""},
		{"${B:-}", "", ""},
		{"${B:-a:-b}", "a:-b", "a:-b"},
		{"$${A}", "${A}", "${A}"},
		{"$A $ $$ }", "$A $ $$ }", "$A $ $$ }"},
		{"${NAME}", "x}y: z\n- q", "x}y: z\n- q"},
		{"postgres://u:${PW}@${A}/${A}?x=${PW}", "postgres://u:p%40ss%2Fw%3Ard%20%231%25@one/one?x=p@ss/w:rd #1%", "postgres://u:p@ss/w:rd #1%@one/one?x=p@ss/w:rd #1%"},
		{"postgres://${A}:${B:-a@b/c}@h/d", "postgres://one:a%40b%2Fc@h/d", "postgres://one:a@b/c@h/d"},
		{"postgres://${A}/d?x=a@${PW}", "postgres://one/d?x=a@p@ss/w:rd #1%", "postgres://one/d?x=a@p@ss/w:rd #1%"},
	} {
		d := &decoder{env: env(vars)}
		for _, isURL := range []bool{true, false} {
			want := tc.plain
			if isURL {
				want = tc.url
			}
			if got, ok := d.expand(tc.in, place{}, "p", isURL); got != want || !ok {
				t.Errorf("expand(%q, url %v) = %q, %v, want %q; %v", tc.in, isURL, got, ok, want, d.err())
			}
		}
	}
}

// A password with every character that means something in a URL arrives as it is.
func TestPasswordFromTheEnvironmentSurvives(t *testing.T) {
	text := strings.Replace(minimal, "u:pw@", "u:${PW}@", 1)
	c, err := Parse("c.yaml", []byte(text), env(map[string]string{"PW": "a@b:c/d?e#f%41 g+h&i=j\\k'\"ü"}))
	if err != nil {
		t.Fatal(err)
	}
	want := "postgres://u:a%40b%3Ac%2Fd%3Fe%23f%2541%20g%2Bh%26i%3Dj%5Ck%27%22%C3%BC@db/uni"
	if got := c.Postgres.URL; got != want {
		t.Errorf("url\n got %s\nwant %s", got, want)
	}
}

func TestAliasBomb(t *testing.T) {
	text := minimal + "  p: &p {key: {a.b: [" + strings.Repeat("x, ", 2000) + "x]}}\n"
	for i := range 50 {
		text += fmt.Sprintf("  q%d: *p\n", i)
	}
	got := faultsOf(t, text, nil)
	if !strings.Contains(strings.Join(got, "\n"), "aliases make this file too large") {
		t.Errorf("an alias bomb was walked to its end: %d faults, first %q", len(got), got[0])
	}
	if len(got) > maxFaults {
		t.Errorf("%d faults, want at most %d", len(got), maxFaults)
	}
}

func TestAliasOfItself(t *testing.T) {
	for _, text := range []string{"a: &a [*a]\n", "pipelines: &p {rows: *p}\n", "kafka: &k {brokers: *k, tls: *k, sasl: *k}\n"} {
		if got := faultsOf(t, text, nil); len(got) == 0 {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestFileTooLarge(t *testing.T) {
	got := faultsOf(t, strings.Repeat("#\n", maxFileSize/2+1), nil)
	if want := "c.yaml: the file is larger than 1MiB: is this the right file?"; len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLoad(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("error of a missing file: %v, want one that names it", err)
	}
	t.Setenv("PGPASSWORD", "x")
	c, err := Load(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.PipelineNames(), " "); got != "rows" {
		t.Errorf("pipelines %q, want rows", got)
	}
}

// A configuration built in code is judged by the same rules, without lines.
func TestValidateWithoutFile(t *testing.T) {
	c := Default()
	c.Postgres.URL = "postgres://u@db/uni"
	c.Kafka.Brokers = []string{"k:9092"}
	c.Pipelines["rows"] = DefaultPipeline("rows")
	c.Pipelines["none"] = nil
	c.Pipelines["rows"].Toast = "guess"
	want := "pipelines.rows.toast: \"guess\" is not one of fill, omit, placeholder, refuse\npipelines.rows.tables: no tables: write those to capture, as in [\"public.*\"]"
	if err := c.Validate(); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	p := c.Pipelines["rows"]
	p.Toast, p.Tables = "fill", []string{"public.*"}
	if err := c.Validate(); err != nil {
		t.Errorf("refused: %v", err)
	}
}

func TestPipelineLimit(t *testing.T) {
	c := Default()
	for i := range maxPipelines + 1 {
		name := fmt.Sprintf("p%d", i)
		c.Pipelines[name] = DefaultPipeline(name)
	}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "one process runs at most") {
		t.Errorf("%d pipelines: %v", len(c.Pipelines), err)
	}
}

// The embedded broker's default directory lies beside the file, as one that is
// written there does.
func TestDefaultPathsAreRelativeToTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	text := "postgres: {url: \"postgres://u@db/uni\"}\nkafka: {embedded: {}}\npipelines: {rows: {tables: [\"public.*\"]}}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Kafka.Embedded.Dir, filepath.Join(dir, "data", "broker"); got != want {
		t.Errorf("directory %q, want %q", got, want)
	}
}
