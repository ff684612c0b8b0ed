package source

import (
	"strings"
	"testing"
	"time"
)

func TestConnectionStrings(t *testing.T) {
	t.Setenv("PGSSLMODE", "")
	tests := []struct {
		name, url string
		verified  bool // TLS, the server's certificate checked, no plain text to fall back to
	}{
		{"another host", "postgres://u:p@db.example:5432/d", true},
		{"another host, keywords", "host=db.example user=u dbname=d", true},
		{"said so", "postgres://u:p@db.example:5432/d?sslmode=disable", false},
		{"this host", "postgres://u:p@127.0.0.1:5432/d", false},
		{"socket", "host=/var/run/postgresql user=u", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := parseURL(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			got := cfg.TLSConfig != nil && !cfg.TLSConfig.InsecureSkipVerify && cfg.TLSConfig.ServerName == cfg.Host
			for _, f := range cfg.Fallbacks {
				got = got && f.TLSConfig != nil
			}
			if got != tt.verified {
				t.Errorf("verified TLS: got %t, want %t", got, tt.verified)
			}
		})
	}
}

func TestPinnedParametersWin(t *testing.T) {
	cfg, err := parseURL("postgres://u@127.0.0.1/d?TimeZone=Asia/Kolkata&statement_timeout=5&application_name=x&work_mem=4MB&connect_timeout=3")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range pinned {
		if got := cfg.RuntimeParams[name]; got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if _, ok := cfg.RuntimeParams["TimeZone"]; ok || cfg.RuntimeParams["work_mem"] != "4MB" || cfg.ConnectTimeout != 3*time.Second {
		t.Errorf("got %v, connect timeout %s", cfg.RuntimeParams, cfg.ConnectTimeout)
	}
}

func TestCase168ErrorsHoldNoPassword(t *testing.T) {
	const secret = "s3cr3t"
	for _, url := range []string{
		"postgres://u:" + secret + "@127.0.0.1:1/d?sslmode=disable", // nobody listens there
		"postgres://u:" + secret + "/x@host:bad/d",
		"host=127.0.0.1 port=1 password=" + secret,
		"host=127.0.0.1 port=x password=" + secret,
		"postgres://u:" + secret + "@127.0.0.1:1/d?sslmode=perhaps",
	} {
		_, err := Open(t.Context(), Config{URL: url})
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("got %v, want an error without the password", err)
		}
	}
}
