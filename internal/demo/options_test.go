package demo

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cdc/internal/config"
)

func TestOptionsCheck(t *testing.T) {
	for _, tc := range []struct {
		name string
		o    Options
		want string
	}{
		{"rate", Options{Rate: mostRate + 1}, "rate 2001: want 1 to 2000 transactions per second"},
		{"negative rate", Options{Rate: -1}, "rate -1"},
		{"negative duration", Options{For: -time.Second}, "duration -1s"},
		{"negative addition", Options{Add: -time.Second}, "addition after -1s"},
		{"negative lines", Options{Lines: -1}, "lines -1"},
		{"negative transactions", Options{Transactions: -1}, "transactions -1"},
		{"nothing to run", Options{Out: io.Discard}, "no daemon"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := tc.o.Check(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	got, err := address("", taken)
	if err != nil || got == taken || !strings.HasPrefix(got, "127.0.0.1:") || strings.HasSuffix(got, ":0") {
		t.Errorf("the usual one is taken: got %q, %v, want a free port", got, err)
	}
	if got, err = address(taken, "127.0.0.1:1"); err != nil || got != taken {
		t.Errorf("a wanted one: got %q, %v, want %q as it is", got, err, taken)
	}
	if got, err = address("127.0.0.1:0", taken); err != nil || strings.HasSuffix(got, ":0") {
		t.Errorf("port 0: got %q, %v, want a port", got, err)
	}
}

// What is printed for users to start from is a valid configuration.
func TestExample(t *testing.T) {
	text, err := Example()
	if err != nil {
		t.Fatalf("example: %v", err)
	}
	cfg, err := config.Parse("cdc.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatalf("parse the example: %v\n%s", err, text)
	}
	p := cfg.Pipelines["rows"]
	if p == nil || p.Topic != "university.{table}" || cfg.Kafka.Embedded == nil || cfg.Kafka.Embedded.Listen != DefaultBroker || cfg.Admin.Listen != DefaultAdmin {
		t.Errorf("example says: %+v, %+v", cfg.Kafka, p)
	}
}

// The configuration of a run says where everything is, whatever the folder is called.
func TestConfigure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `a "b" \c # ${d}`)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const url = "postgres://postgres@127.0.0.1:17001/university?sslmode=disable"
	cfg, err := configure(dir, places{Postgres: url, Dir: brokerDir, Broker: "127.0.0.1:17002", Admin: "127.0.0.1:17003"})
	if err != nil {
		t.Fatalf("configure: %v", err)
	}
	if cfg.Postgres.URL != url || cfg.Kafka.Embedded.Listen != "127.0.0.1:17002" || cfg.Admin.Listen != "127.0.0.1:17003" {
		t.Errorf("got %q, %q, %q", cfg.Postgres.URL, cfg.Kafka.Embedded.Listen, cfg.Admin.Listen)
	}
	if got, want := cfg.Kafka.Embedded.Dir, filepath.Join(dir, brokerDir); got != want {
		t.Errorf("broker's directory: got %q, want %q", got, want)
	}
}
