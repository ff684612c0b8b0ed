//go:build unix

package pgserver

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/xi2/xz"

	"cdc/internal/download"
)

// manifest names the programs that can be fetched, with their checksums.
//
//go:embed programs.txt
var manifest []byte

// fetchedMajor is fetched when any version will do.
const fetchedMajor = 17

const (
	// extractedLimit and entriesLimit bound what an archive may unpack to; the
	// largest of ours has 70 MB in 1,200 files.
	extractedLimit = 400 << 20
	entriesLimit   = 10_000
)

// locate finds the programs, or fetches them.
func locate(ctx context.Context, opts Options) (Programs, error) {
	p, ok, err := Find(ctx, opts.Programs, opts.Version)
	if err != nil || ok {
		return p, err
	}
	return fetch(ctx, opts.Version, opts.Notice)
}

// fetch downloads and unpacks the programs, unless the cache has them.
func fetch(ctx context.Context, version string, notice io.Writer) (Programs, error) {
	major, err := parseWanted(version)
	if err != nil {
		return Programs{}, err
	}
	if major == 0 {
		major = fetchedMajor
	}
	artifact, err := published(major)
	if err != nil {
		return Programs{}, err
	}
	cache, err := download.CacheDir()
	if err != nil {
		return Programs{}, err
	}
	name := strings.TrimSuffix(artifact.File(), ".jar")
	dir := filepath.Join(cache, name)
	err = download.Locked(name, func() error {
		if _, err := os.Stat(dir); err == nil {
			return nil
		}
		what := "PostgreSQL " + artifact.Version
		if err := download.Get(ctx, cache, what, []download.Artifact{artifact}, notice); err != nil {
			return err
		}
		jar := filepath.Join(cache, artifact.File())
		if err := unpack(jar, dir); err != nil {
			return fmt.Errorf("unpack %s: %w", jar, err)
		}
		return os.Remove(jar)
	})
	if err != nil {
		return Programs{}, fmt.Errorf("no PostgreSQL %d is installed, and: %w; install its server package (with contrib), for example apt-get install postgresql", major, err)
	}
	return inspect(ctx, filepath.Join(dir, "bin"))
}

// published picks the programs of a major version for this platform.
func published(major int) (download.Artifact, error) {
	platform := runtime.GOOS + "-" + runtime.GOARCH
	if runtime.GOARCH == "arm64" {
		platform += "v8"
	}
	advice := fmt.Sprintf("install PostgreSQL %d's server programs with your package manager", major)
	if musl, _ := filepath.Glob("/lib/ld-musl-*"); len(musl) > 0 {
		return download.Artifact{}, fmt.Errorf("no PostgreSQL %d is installed, and the ones to download need glibc: %s", major, advice)
	}
	list, err := download.ParseManifest(bytes.NewReader(manifest))
	if err != nil {
		return download.Artifact{}, err
	}
	for _, a := range list {
		if a.Name == "embedded-postgres-binaries-"+platform && strings.HasPrefix(a.Version, strconv.Itoa(major)+".") {
			return a, nil
		}
	}
	return download.Artifact{}, fmt.Errorf("no PostgreSQL %d is installed, and there is none to download for %s: %s", major, platform, advice)
}

// unpack makes dir of the .txz in the jar, all or nothing.
func unpack(jar, dir string) (err error) {
	archive, err := zip.OpenReader(jar)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	for _, f := range archive.File {
		if !strings.HasSuffix(f.Name, ".txz") {
			continue
		}
		part, err := os.MkdirTemp(filepath.Dir(dir), ".part-*")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(part) }() // nothing, once renamed
		if err := os.Chmod(part, 0o755); err != nil {
			return err
		}
		txz, err := f.Open()
		if err != nil {
			return err
		}
		if err := errors.Join(untar(txz, part), txz.Close()); err != nil {
			return err
		}
		return os.Rename(part, dir)
	}
	return errors.New("it holds no .txz")
}

// untar writes below dir alone: os.Root refuses every name and link that leads
// out of it.
func untar(txz io.Reader, dir string) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	plain, err := xz.NewReader(txz, 0)
	if err != nil {
		return err
	}
	archive := tar.NewReader(io.LimitReader(plain, extractedLimit))
	for range entriesLimit {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			// What follows the last entry holds the checksums.
			_, err := io.Copy(io.Discard, io.LimitReader(plain, extractedLimit))
			return err
		}
		if err != nil {
			return err
		}
		if err := entry(root, h, archive); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return fmt.Errorf("more than %d files", entriesLimit)
}

func entry(root *os.Root, h *tar.Header, content io.Reader) error {
	name := filepath.Clean(h.Name)
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fs.FileMode(h.Mode)&0o755|0o444)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	default:
		return fmt.Errorf("entry of type %q is not expected", h.Typeflag)
	}
}
