package source

import (
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Case 164: a pooler's refusal is explained. A fake, because no pooler can be
// installed with the tests; the answer is PgBouncer's.
func TestCase164Pooler(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b := pgproto3.NewBackend(c, c)
			if _, err := b.ReceiveStartupMessage(); err == nil {
				b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: row_security"})
				_ = b.Flush()
			}
			_ = c.Close()
		}
	}()
	defer func() { _ = ln.Close(); <-done }()
	_, err = Open(t.Context(), Config{URL: "postgres://u:secret@" + ln.Addr().String() + "/d?sslmode=disable", Slot: "s", Publication: "p"})
	wantTerminal(t, err, "pooler", "not to a connection pooler")
}

func TestCheckEncryption(t *testing.T) {
	for url, want := range map[string]Level{
		"postgres://u@127.0.0.1/d":                      "",
		"postgres://u@db.example/d":                     "", // verify-full by default
		"postgres://u@db.example/d?sslmode=disable":     LevelWarning,
		"postgres://u@db.example/d?sslmode=prefer":      LevelWarning,
		"postgres://u@db.example/d?sslmode=require":     LevelWarning,
		"postgres://u@db.example/d?sslmode=verify-full": "",
		"postgres://u@/d?host=/var/run&sslmode=disable": "",
	} {
		k := &checker{s: &Source{cfg: Config{URL: url}}}
		k.encryption()
		if len(k.findings) != 1 || k.findings[0].Level != want {
			t.Errorf("%s: got %+v, want level %q", url, k.findings, want)
		}
	}
}
