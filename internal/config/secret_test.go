package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func TestRedacted(t *testing.T) {
	for _, tc := range []struct{ url, want string }{
		{"", ""},
		{"postgres://cdc:geheim@db:5432/uni?sslmode=require", "postgres://cdc:***@db:5432/uni?sslmode=require"},
		{"postgres://cdc@db/uni", "postgres://cdc@db/uni"},
		{"postgres://db/uni", "postgres://db/uni"},
		{"postgres://db/uni?password=geheim&sslmode=disable&sslpassword=geheim", "postgres://db/uni?password=***&sslmode=disable&sslpassword=***"},
		{"postgres://cdc:gehe@im@db/uni", "postgres://cdc:***@db/uni"},
		{"postgres://cdc:gehe/im@db/uni", "postgres://cdc:***@db/uni"},
		{"postgres://cdc:gehe?im@db/uni", "postgres://cdc:***@db/uni"},
		{"postgres://gehe/im:x@db/uni", "postgres://:***@db/uni"},
		{"host=db password=geheim", "***"},
	} {
		if got := (Postgres{URL: tc.url}).Redacted(); got != tc.want {
			t.Errorf("Redacted(%q) = %q, want %q", tc.url, got, tc.want)
		}
	}
}

// However a configuration is printed, its secrets stay out.
func TestSecretsAreNeverPrinted(t *testing.T) {
	c := Default()
	c.Postgres.URL = "postgres://cdc:geheim@db/uni"
	c.Kafka.SASL = &SASL{Mechanism: "plain", Username: "cdc", Password: "geheim"}
	c.Pipelines["rows"] = DefaultPipeline("rows")
	c.Pipelines["rows"].Postgres = &Postgres{URL: "postgres://cdc:geheim@other/uni"}

	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		l := slog.New(h)
		l.Info("start", "config", c, "value", *c, "postgres", c.Postgres, "pointer", &c.Postgres, "sasl", c.Kafka.SASL, "kafka", c.Kafka, "pipeline", c.Pipelines["rows"])
	}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for name, out := range map[string]string{
		"slog": log.String(), "json": string(asJSON), "yaml": string(asYAML),
		"%v": fmt.Sprintf("%v %v %v", *c, c.Postgres, c.Kafka.SASL), "%+v": fmt.Sprintf("%+v %+v %+v", *c, c.Kafka, c.Pipelines["rows"]),
		"%#v": fmt.Sprintf("%#v %#v", c.Postgres, *c.Kafka.SASL), "%s": fmt.Sprintf("%s %s", c.Postgres, c.Kafka.SASL), "%q": fmt.Sprintf("%q", c.Postgres),
	} {
		if strings.Contains(out, "geheim") {
			t.Errorf("%s shows a secret: %s", name, out)
		}
	}
}

func TestBytes(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want Bytes
		text string
	}{
		{"0B", 0, "0B"}, {"1B", 1, "1B"}, {"64MiB", 64 << 20, "64MiB"}, {"1536KiB", 1536 << 10, "1536KiB"},
		{"2GiB", 2 << 30, "2GiB"}, {"1kB", 1000, "1000B"}, {"5MB", 5e6, "5000000B"}, {"64 MiB", 64 << 20, "64MiB"}, {"3072KiB", 3 << 20, "3MiB"},
	} {
		got, err := ParseBytes(tc.in)
		if err != nil || got != tc.want || got.String() != tc.text {
			t.Errorf("ParseBytes(%q) = %d, %v, printed %s; want %d, %s", tc.in, got, err, got, tc.want, tc.text)
		}
	}
	for _, in := range []string{"", "64", "MiB", "-1MiB", "1.5MiB", "1TiB", "64mib", "9223372036854775807GiB", "1 B B", "+ 1B"} {
		if got, err := ParseBytes(in); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", in, got)
		}
	}
}

// parseURL and Redacted see the same user part.
func TestURLTarget(t *testing.T) {
	for _, tc := range []struct{ url, hosts, database string }{
		{"postgres://u:p@DB/uni", "db:5432", "uni"},
		{"postgresql://u:p%40@db:5433/u%20ni?sslmode=disable", "db:5433", "u ni"},
		{"postgres://a,b:1/uni", "a:5432,b:1", "uni"},
		{"postgres://[::1]:7/uni", "[::1]:7", "uni"},
		{"postgres://[::1]/uni", "[::1]:5432", "uni"},
		{"postgres:///uni?host=/run/postgresql", ":5432?/run/postgresql:", "uni"},
		{"postgres://db", "db:5432", ""},
		{"postgres://db?dbname=x", "db:5432", "x"},
		{"postgres://u:p@db/uni?options=-c%20x%3Da@b", "db:5432", "uni"},
	} {
		got, err := parseURL(tc.url)
		if err != nil || got.hosts != tc.hosts || got.database != tc.database {
			t.Errorf("parseURL(%q) = %+v, %v; want %s %s", tc.url, got, err, tc.hosts, tc.database)
		}
	}
}
