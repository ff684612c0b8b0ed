package demo

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dataDir is a folder that another user can enter, which t.TempDir under root is not.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cdc-demo-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("15\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFolder(t *testing.T) {
	dir := dataDir(t)
	f, err := openFolder(dir, true)
	if err != nil {
		t.Fatalf("open an empty folder: %v", err)
	}
	if f.continued || f.version() != "" {
		t.Errorf("empty folder: got continued %v, version %q", f.continued, f.version())
	}
	if _, err := openFolder(dir, false); err == nil || !strings.Contains(err.Error(), "another demo runs in "+dir) {
		t.Errorf("open it twice: got %v, want that another demo runs there", err)
	}
	touch(t, filepath.Join(f.postgres(), "PG_VERSION"))
	touch(t, filepath.Join(f.broker(), "log", "x"))
	if err := f.close(); err != nil {
		t.Fatalf("close: %v", err)
	}

	f, err = openFolder(dir, false)
	if err != nil {
		t.Fatalf("open it again: %v", err)
	}
	if !f.continued || f.version() != "15" {
		t.Errorf("a folder with a cluster: got continued %v, version %q, want true, 15", f.continued, f.version())
	}
	if err := f.close(); err != nil {
		t.Fatalf("close: %v", err)
	}

	f, err = openFolder(dir, true)
	if err != nil {
		t.Fatalf("open it fresh: %v", err)
	}
	defer f.close()
	if f.continued {
		t.Error("a fresh start continues")
	}
	for _, gone := range []string{f.postgres(), f.broker()} {
		if _, err := os.Stat(gone); !os.IsNotExist(err) {
			t.Errorf("%s after a fresh start: got %v, want that it is gone", gone, err)
		}
	}
}

// A fresh start removes only what a demo has made.
func TestFolderLeavesOthersAlone(t *testing.T) {
	dir := dataDir(t)
	theirs := filepath.Join(dir, "postgres", "PG_VERSION")
	touch(t, theirs)
	_, err := openFolder(dir, true)
	if err == nil || !strings.Contains(err.Error(), "was there before any demo") {
		t.Errorf("got %v, want a refusal", err)
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Errorf("somebody's data after a refused start: %v", err)
	}
}

func TestFolderRefusesWhatItCannotUse(t *testing.T) {
	dir := dataDir(t)
	touch(t, filepath.Join(dir, "file"))
	if _, err := openFolder(filepath.Join(dir, "file", "below"), false); err == nil {
		t.Error("a folder below a file: got nil, want an error")
	}
	if os.Geteuid() != 0 {
		return
	}
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := openFolder(filepath.Join(closed, "data"), false); err == nil || !strings.Contains(err.Error(), "another user cannot enter "+closed) {
		t.Errorf("a folder that the server's user cannot enter: got %v, want that said", err)
	}
}

// Without a wish, the second choice lies below the temporary directory.
func TestFolderFallsBack(t *testing.T) {
	dir, temporary := dataDir(t), dataDir(t)
	t.Setenv("TMPDIR", temporary)
	t.Chdir(dir)
	touch(t, filepath.Join(dir, "data")) // data/demo cannot be made
	f, err := openFolder("", false)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer f.close()
	if filepath.Dir(f.dir) != temporary {
		t.Errorf("folder: got %s, want one in %s", f.dir, temporary)
	}
}
