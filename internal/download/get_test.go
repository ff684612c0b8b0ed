package download

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

var content = []byte("a jar")

func artifact() Artifact {
	sum := sha256.Sum256(content)
	return Artifact{Group: "org.example", Name: "thing", Version: "1.0", SHA256: hex.EncodeToString(sum[:])}
}

// serve is a Maven repository that answers as told, and counts.
func serve(t *testing.T, answer func(n int64, w http.ResponseWriter)) *atomic.Int64 {
	t.Helper()
	var count atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if want := "/repo/org/example/thing/1.0/thing-1.0.jar"; r.URL.Path != want {
			t.Errorf("asked for %s, want %s", r.URL.Path, want)
		}
		answer(count.Add(1), w)
	}))
	t.Cleanup(server.Close)
	t.Setenv(MirrorVariable, server.URL+"/repo/")
	t.Setenv("HOME", t.TempDir())
	return &count
}

func TestGetDownloadsOnce(t *testing.T) {
	count := serve(t, func(_ int64, w http.ResponseWriter) { _, _ = w.Write(content) })
	dir := t.TempDir()
	var notice bytes.Buffer
	for range 2 {
		if err := Get(context.Background(), dir, "the thing", []Artifact{artifact()}, &notice); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(filepath.Join(dir, "thing-1.0.jar"))
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("got %q, %v; want %q", got, err, content)
	}
	if count.Load() != 1 || strings.Count(notice.String(), "\n") != 1 {
		t.Fatalf("got %d downloads and notice %q, want 1 and one line", count.Load(), notice.String())
	}
}

func TestGetReplacesADamagedFile(t *testing.T) {
	serve(t, func(_ int64, w http.ResponseWriter) { _, _ = w.Write(content) })
	dir := t.TempDir()
	path := filepath.Join(dir, "thing-1.0.jar")
	if err := os.WriteFile(path, []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Get(context.Background(), dir, "the thing", []Artifact{artifact()}, nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, content) {
		t.Fatalf("got %q, want %q", got, content)
	}
}

func TestGetPrefersTheLocalRepository(t *testing.T) {
	count := serve(t, func(_ int64, w http.ResponseWriter) { _, _ = w.Write(content) })
	a := artifact()
	local := filepath.Join(os.Getenv("HOME"), ".m2", "repository", a.path())
	if err := os.MkdirAll(filepath.Dir(local), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(local, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Get(context.Background(), t.TempDir(), "the thing", []Artifact{a}, nil); err != nil {
		t.Fatal(err)
	}
	if count.Load() != 0 {
		t.Fatalf("got %d downloads, want 0", count.Load())
	}
	// A local file with other content is not trusted.
	if err := os.WriteFile(local, []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Get(context.Background(), t.TempDir(), "the thing", []Artifact{a}, nil); err != nil {
		t.Fatal(err)
	}
	if count.Load() != 1 {
		t.Fatalf("got %d downloads, want 1", count.Load())
	}
}

func TestGetFailures(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(n int64, w http.ResponseWriter)
		want   string // in the error; "" for success
		asked  int64
	}{
		{"a missing file is not asked for again", func(_ int64, w http.ResponseWriter) { w.WriteHeader(404) }, "404", 1},
		{"a busy server is", func(n int64, w http.ResponseWriter) {
			if n == 1 {
				w.WriteHeader(503)
				return
			}
			_, _ = w.Write(content)
		}, "", 2},
		{"wrong bytes are", func(n int64, w http.ResponseWriter) {
			if n == 1 {
				_, _ = w.Write([]byte("a prox"))
				return
			}
			_, _ = w.Write(content)
		}, "", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			count := serve(t, test.answer)
			dir := t.TempDir()
			err := Get(context.Background(), dir, "the thing", []Artifact{artifact()}, nil)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want %q", err, test.want)
			}
			if count.Load() != test.asked {
				t.Errorf("asked %d times, want %d", count.Load(), test.asked)
			}
			entries, _ := os.ReadDir(dir)
			if want := len(entries); err != nil && want != 0 {
				t.Errorf("%d files left behind, want 0", want)
			}
		})
	}
}

func TestParseManifest(t *testing.T) {
	sum := artifact().SHA256
	for _, test := range []struct {
		text string
		want int // artifacts; -1 for an error
	}{
		{"# comment\n\norg.example:thing:1.0 " + sum + "\n", 1},
		{"org.example:thing:1.0", -1},
		{"org.example:thing " + sum, -1},
		{"org.example:../thing:1.0 " + sum, -1},
		{"org.example:thing:1.0 " + sum[1:], -1},
		{"org.example:thing:1.0 " + strings.ToUpper(sum), -1},
	} {
		list, err := ParseManifest(strings.NewReader(test.text))
		if got := len(list); err == nil && got != test.want || err != nil && test.want != -1 {
			t.Errorf("%q: got %d, %v; want %d", test.text, got, err, test.want)
		}
	}
}
