//go:build unix

package pgserver

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cdc/internal/download"
)

func untarFile(t *testing.T, name string) (dir string, err error) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	dir = filepath.Join(t.TempDir(), "outer", "inner")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, untar(f, dir)
}

func TestUntar(t *testing.T) {
	dir, err := untarFile(t, "good.txz")
	if err != nil {
		t.Fatal(err)
	}
	p, err := inspect(context.Background(), filepath.Join(dir, "bin"))
	if err == nil || !strings.Contains(err.Error(), "initdb") {
		t.Errorf("got %v, %v; want an error about initdb, which the archive lacks", p, err)
	}
	if link, err := os.Readlink(filepath.Join(dir, "lib", "libpq.so")); err != nil || link != "libpq.so.5.17" {
		t.Errorf("link: got %q, %v; want libpq.so.5.17", link, err)
	}
	info, err := os.Stat(filepath.Join(dir, "bin", "postgres"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode: got %v, %v; want 0755", info, err)
	}
}

func TestUntarStaysInside(t *testing.T) {
	for _, name := range []string{"climbs.txz", "link-climbs.txz", "twice.txz", "device.txz"} {
		t.Run(name, func(t *testing.T) {
			dir, err := untarFile(t, name)
			if err == nil {
				t.Error("no error")
			}
			for _, outside := range []string{filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
				if _, err := os.Stat(filepath.Join(outside, "evil")); err == nil {
					t.Errorf("it wrote %s/evil", outside)
				}
			}
		})
	}
}

func TestUntarRefusesATruncatedArchive(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "good.txz"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range text {
		if err := untar(strings.NewReader(string(text[:n])), t.TempDir()); err == nil {
			t.Errorf("the first %d of %d bytes are accepted", n, len(text))
		}
	}
}

func TestManifestIsWhole(t *testing.T) {
	list, err := download.ParseManifest(strings.NewReader(string(manifest)))
	if err != nil {
		t.Fatal(err)
	}
	const platforms, majors = 4, newestMajor - oldestMajor + 1
	if len(list) != platforms*majors {
		t.Errorf("got %d programs, want %d", len(list), platforms*majors)
	}
}
