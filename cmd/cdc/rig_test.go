package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// rig is a database, brokers and the configuration of the program between them.
// Pipeline, slot, publication and topics are named after the database, so that
// tests share servers.
type rig struct {
	t       *testing.T
	db      *cdctest.DB
	brokers []string
	admin   string // address of the admin server
	url     string
	kafka   string // section kafka of the configuration
}

// onCluster makes one on the shared servers.
func onCluster(t *testing.T) *rig {
	t.Helper()
	return rigOn(t, cdctest.Database(t), cdctest.Kafka(t).Brokers)
}

func rigOn(t *testing.T, db *cdctest.DB, brokers []string) *rig {
	t.Helper()
	db.KeepSlot(db.Name)
	return &rig{
		t: t, db: db, brokers: brokers, admin: address(cdctest.FreePort(t)), url: db.URL,
		kafka: fmt.Sprintf("{brokers: [%q]}", brokers[0]),
	}
}

// embedded makes one with the broker inside the program.
func embedded(t *testing.T) *rig {
	t.Helper()
	listen := address(cdctest.FreePort(t))
	r := rigOn(t, cdctest.Database(t), []string{listen})
	r.kafka = fmt.Sprintf("{embedded: {listen: %q}}", listen)
	return r
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// yaml is the configuration of one pipeline over all tables; more are lines of
// the pipeline.
func (r *rig) yaml(more ...string) string {
	return r.yamlOf(r.pipeline(r.db.Name, append([]string{`tables: ["public.*"]`}, more...)...))
}

// yamlOf is the configuration with these pipelines.
func (r *rig) yamlOf(pipelines ...string) string {
	return fmt.Sprintf("postgres: {url: %q}\nkafka: %s\nadmin: {listen: %q}\nlog: {level: debug}\npipelines:\n%s", r.url, r.kafka, r.admin, strings.Join(pipelines, ""))
}

func (r *rig) pipeline(name string, lines ...string) string {
	text := "  " + name + ":\n    partitions: 3\n    topic: \"" + name + ".{schema}.{table}\"\n"
	for _, l := range lines {
		text += "    " + l + "\n"
	}
	return text
}

func (r *rig) topic(table string) string { return r.db.Name + ".public." + table }

// start runs the program until its pipeline streams and is ready.
func (r *rig) start(yaml string) *cdctest.Proc {
	r.t.Helper()
	p := cdctest.StartCDC(r.t, yaml)
	p.WaitOutput(r.t, "replication started")
	p.WaitReady(r.t, r.admin)
	return p
}

// records waits until a topic holds n records or more.
func (r *rig) records(topic string, n int) []cdctest.Record {
	r.t.Helper()
	return cdctest.WaitRecords(r.t, r.brokers, topic, cdctest.AtLeast(n))
}

// once checks that no position is there twice and all rise within their partition.
func once(t *testing.T, records []cdctest.Record) {
	t.Helper()
	last := map[int32]cdc.Position{}
	for _, r := range records {
		h, _ := r.Header(cdc.StampHeader)
		s, err := cdc.ParseStamp(h)
		if err != nil {
			t.Fatalf("partition %d offset %d: %v", r.Partition, r.Offset, err)
		}
		if !last[r.Partition].Before(s.Position) {
			t.Errorf("partition %d offset %d: position %s after %s", r.Partition, r.Offset, s.Position, last[r.Partition])
		}
		last[r.Partition] = s.Position
	}
}

// get asks the admin server and returns status and body.
func (r *rig) get(path string) (int, string) {
	r.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + r.admin + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// answered runs a command line with an answer on its standard input.
func answered(t *testing.T, answer string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = execute(t.Context(), args, strings.NewReader(answer), &o, &e)
	return code, o.String(), e.String()
}

// findings runs `cdc check` and returns what went wrong, without what is well.
func findings(t *testing.T, path string, code int) []finding {
	t.Helper()
	got, out, errOut := command(t, "check", "--config", path, "-o", "json")
	if got != code {
		t.Fatalf("check exits with %d, want %d\n%s%s", got, code, out, errOut)
	}
	var all, wrong []finding
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for _, f := range all {
		if f.Result != "ok" {
			wrong = append(wrong, f)
		}
	}
	return wrong
}
