package main

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/cdctest"
)

// client is an independent Kafka client, closed with the test.
func (r *rig) client() *kgo.Client {
	r.t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(r.brokers...))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c
}

// 47: the rows of a table with a name that needs quotes, as lines, as JSON, and
// as they come.
func TestCase047Tail(t *testing.T) {
	t.Parallel()
	r := onCluster(t)
	r.db.Exec(t, `CREATE SCHEMA "we ird"`, `CREATE TABLE "we ird"."T""a.b,c"("Id X" int PRIMARY KEY, "ü😀" text, "select" text)`,
		`INSERT INTO "we ird"."T""a.b,c" VALUES (1, 'ä', 's')`)
	p := r.start(r.yamlOf(r.pipeline(r.db.Name, `tables: ["\"we ird\".*"]`)))
	topic := r.db.Name + ".we_ird.T_a.b_c"
	r.records(topic, 1)
	r.db.Exec(t, `DELETE FROM "we ird"."T""a.b,c"`)
	r.records(topic, 2)

	code, out, errOut := command(t, "tail", topic, "--config", p.Config, "--from-beginning", "--follow=false")
	if code != 0 || strings.Count(out, "\n") != 2 || !strings.Contains(out, "\t{\"Id X\":1}\t{\"Id X\":1,\"ü😀\":\"ä\",\"select\":\"s\"}\n") || !strings.Contains(out, "\t{\"Id X\":1}\t(tombstone)\n") {
		t.Errorf("tail: %d\n%s%s", code, out, errOut)
	}
	_, out, _ = command(t, "tail", topic, "--config", p.Config, "--from-beginning", "--follow=false", "-o", "json")
	var lines []tailLine
	for line := range strings.Lines(out) {
		var l tailLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		lines = append(lines, l)
	}
	if len(lines) != 2 || lines[0].Topic != topic || lines[0].Headers["op"] != "r" || lines[0].Position == "" || lines[0].Value == nil || lines[1].Value != nil {
		t.Errorf("tail -o json: %+v", lines)
	}
	if code, out, _ := command(t, "tail", topic, "--config", p.Config, "--follow=false"); code != 0 || out != "" {
		t.Errorf("tail from the end prints %d %q", code, out)
	}
	if code, _, errOut := command(t, "tail", topic+"x", "--config", p.Config); code != exitFailed || !strings.Contains(errOut, "does not exist") {
		t.Errorf("tail of no topic: %d %s", code, errOut)
	}

	follow := cdctest.StartCommand(t, p.Dir, "tail", topic, "--config", p.Config, "--from-beginning")
	follow.WaitOutput(t, "(tombstone)")
	r.db.Exec(t, `INSERT INTO "we ird"."T""a.b,c" VALUES (2, 'neu', '')`)
	follow.WaitOutput(t, "neu")
	follow.Signal(t, syscall.SIGINT)
	if code := follow.Wait(t, stopPromise*3); code != 0 {
		t.Errorf("tail exits with %d after SIGINT\n%s", code, follow.Output())
	}
	p.Stop(t)
}
