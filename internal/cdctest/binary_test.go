package cdctest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestOutputAwait(t *testing.T) {
	o := newOutput()
	go func() {
		_, _ = o.Write([]byte("one\ntwo words "))
		_, _ = o.Write([]byte("here\n"))
		o.end()
	}()
	line, err := o.await("words here", readyLimit)
	if err != nil || line != "two words here" {
		t.Errorf("got %q, %v; want the whole line", line, err)
	}
	if _, err := o.await("three", readyLimit); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("got %v, want that it ended", err)
	}
	if _, err := newOutput().await("x", time.Millisecond); err == nil || !strings.Contains(err.Error(), "not there") {
		t.Errorf("got %v, want that it is not there", err)
	}
}

func TestJavaMajor(t *testing.T) {
	for text, want := range map[string]int{
		"openjdk version \"17.0.15\" 2025-04-15\nOpenJDK": 17,
		"java version \"1.8.0_292\"":                      1,
		"openjdk version \"25\" 2025-09-16":               25,
		"bash: java: command not found":                   0,
	} {
		if got, _ := javaMajor(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

func TestRunCDC(t *testing.T) {
	out, _, code := RunCDC(t, t.TempDir(), "version")
	if code != 0 || !strings.HasPrefix(out, "cdc ") {
		t.Errorf("cdc version: got %q and exit code %d, want \"cdc …\" and 0", out, code)
	}
	if _, _, code := RunCDC(t, t.TempDir(), "no-such-command"); code != 2 {
		t.Errorf("an unknown command: got exit code %d, want 2", code)
	}
}

func TestStartCDC(t *testing.T) {
	db := Database(t)
	k := Kafka(t)
	db.Exec(t, "CREATE TABLE a(id int PRIMARY KEY, t text)", "INSERT INTO a VALUES (1, 'one')")
	admin := fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	config := fmt.Sprintf(`postgres: {url: %q}
kafka: {brokers: [%q]}
admin: {listen: %q}
pipelines:
  rows:
    tables: [public.a]
    topic: %q
    progress_topic: %q
    slot: {name: %q}
`, db.URL, k.Brokers[0], admin, k.Prefix+"{table}", k.Prefix+"progress", db.Name+"_rows")
	db.KeepSlot(db.Name + "_rows")
	p := StartCDC(t, config)
	p.WaitReady(t, admin)
	WaitRecords(t, k.Brokers, k.Prefix+"a", AtLeast(1))
	p.Kill9()
	db.Exec(t, "INSERT INTO a VALUES (2, 'two')")
	p = StartCDC(t, config)
	records := WaitRecords(t, k.Brokers, k.Prefix+"a", AtLeast(2))
	p.Stop(t)
	if len(Fold(records)) != 2 {
		t.Errorf("got %d keys, want 2", len(Fold(records)))
	}
}
