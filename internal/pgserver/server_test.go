//go:build unix

package pgserver

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"
)

// parentVariable makes the test binary a process that starts a server, says where,
// and waits to be killed.
const parentVariable = "PGSERVER_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentVariable) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	s, err := Start(context.Background(), Options{Settings: map[string]string{"fsync": "off"}})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(s.Dir())
	<-s.Done()
}

func TestServerDiesWithAKilledParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ties the life of a child to its parent's")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), parentVariable+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	dir, err := lines.ReadString('\n')
	dir = strings.TrimSpace(dir)
	if err != nil || !filepath.IsAbs(dir) {
		t.Fatalf("start a server in another process: %q, %v", dir, err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	pidFile := filepath.Join(dir, "postmaster.pid")
	if _, err := os.Stat(pidFile); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	// A postmaster in order removes its file as the last thing it does.
	for deadline := time.Now().Add(startLimit); ; time.Sleep(pollEvery) {
		if _, err := os.Stat(pidFile); os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server in %s outlives its parent", dir)
		}
	}
}

func value(t *testing.T, url, sql string) string {
	t.Helper()
	ctx := context.Background()
	conn, err := pgconn.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 {
		return ""
	}
	return string(last.Rows[0][0])
}

func TestStartStopRestart(t *testing.T) {
	ctx := context.Background()
	s, err := Start(ctx, Options{Settings: map[string]string{"fsync": "off", "application_name": `it's \ here`}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for sql, want := range map[string]string{
		"SHOW wal_level":        "logical",
		"SHOW server_encoding":  "UTF8",
		"SHOW lc_collate":       "C",
		"SHOW listen_addresses": "127.0.0.1",
		"SELECT reset_val FROM pg_settings WHERE name = 'application_name'": `it's \ here`,
	} {
		if strings.Contains(sql, "lc_collate") && s.Version() >= 16 {
			continue // no longer a setting
		}
		if got := value(t, s.URL("postgres"), sql); got != want {
			t.Errorf("%s: got %q, want %q", sql, got, want)
		}
	}
	value(t, s.URL("postgres"), "CREATE TABLE t(a int); INSERT INTO t VALUES (1)")
	port := s.Port()
	for _, mode := range []string{"smart", "fast", "immediate", "kill"} {
		if mode == "kill" {
			s.Kill()
		} else if err := s.Stop(ctx, mode); err != nil {
			t.Fatal(err)
		}
		if s.Done() != nil {
			t.Errorf("%s: the server still runs", mode)
		}
		if err := s.Restart(ctx); err != nil {
			t.Fatalf("after %s: %v", mode, err)
		}
		if got := value(t, s.URL("postgres"), "SELECT count(*) FROM t"); got != "1" || s.Port() != port {
			t.Errorf("after %s: got %s rows on port %d, want 1 on %d", mode, got, s.Port(), port)
		}
	}
	if err := s.Stop(ctx, "slow"); err == nil {
		t.Error("an unknown mode of Stop is accepted")
	}
}

func TestCloseRemovesATemporaryDirectory(t *testing.T) {
	s, err := Start(context.Background(), Options{Settings: map[string]string{"fsync": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := os.Stat(s.Dir()); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", s.Dir(), err)
	}
}

func TestStartRefuses(t *testing.T) {
	ctx := context.Background()
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := t.TempDir()
	if err := os.WriteFile(filepath.Join(old, "PG_VERSION"), []byte("9.6\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		for _, dir := range []string{full, old} { // t.TempDir's parent is of mode 0700
			if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name string
		opts Options
		want string
	}{
		{"a directory with other files", Options{Dir: full}, "not empty"},
		{"data of another version", Options{Dir: old}, "version 9.6"},
		{"an unknown version", Options{Version: "9"}, "want a major version from 14 to 18"},
		{"a directory without programs", Options{Programs: full}, "initdb"},
		{"a bad setting", Options{Settings: map[string]string{"no_such_setting": "1"}}, "no_such_setting"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := Start(ctx, test.opts)
			if err == nil {
				s.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want it to contain %q", err, test.want)
			}
		})
	}
}

func TestRootIsToldWhichDirectoryCannotBeEntered(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: the server runs as this user, so every directory of ours can be entered")
		return
	}
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Start(context.Background(), Options{Dir: filepath.Join(closed, "data")})
	if err == nil || !strings.Contains(err.Error(), "cannot enter") {
		t.Errorf("got %v, want it to name the directory that cannot be entered", err)
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": 15,
		"postgres (PostgreSQL) 18.4":                             18,
		"postgres (PostgreSQL) 19beta1":                          19,
		"postgres (PostgreSQL) ":                                 0,
		"":                                                       0,
	} {
		got, err := parseVersion(text)
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("%q: got %d, %v; want %d", text, got, err, want)
		}
	}
}
