package download

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// MirrorVariable names the environment variable with the address of a Maven
// repository to ask instead of Maven Central.
const MirrorVariable = "CDC_MAVEN_URL"

const central = "https://repo1.maven.org/maven2"

const (
	// sizeLimit bounds a download; the largest file we name has 25 MB.
	sizeLimit = 200 << 20
	// attempts and attemptLimit bound one file on a bad line.
	attempts     = 4
	attemptLimit = 5 * time.Minute
	// backoff before the second attempt; it doubles.
	backoff = time.Second
)

// Get makes sure that every artifact is in dir under its File name, each checked
// against its SHA-256. What is missing is taken from the local Maven repository
// (~/.m2) or downloaded; then one line about what is written to notice, which may
// be nil. It may be called concurrently, and by several processes at once.
func Get(ctx context.Context, dir, what string, list []Artifact, notice io.Writer) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make a directory for %s: %w", what, err)
	}
	told := false
	for _, a := range list {
		target := filepath.Join(dir, a.File())
		if check(target, a.SHA256) == nil {
			continue
		}
		if copyLocal(a, target) == nil {
			continue
		}
		if !told && notice != nil {
			_, _ = fmt.Fprintf(notice, "downloading %s from %s into %s\n", what, base(), dir)
			told = true
		}
		if err := fetch(ctx, a, target); err != nil {
			return fmt.Errorf("download %s: %w", what, err)
		}
	}
	return nil
}

func base() string {
	if mirror := os.Getenv(MirrorVariable); mirror != "" {
		return strings.TrimSuffix(mirror, "/")
	}
	return central
}

// check fails unless the file is there with that sum.
func check(path, sum string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return fmt.Errorf("%s: SHA-256 is %s, want %s", path, got, sum)
	}
	return nil
}

// copyLocal takes the file from the local Maven repository.
func copyLocal(a Artifact, target string) error {
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(home, ".m2", "repository", filepath.FromSlash(a.path())))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return store(f, a.SHA256, target)
}

// permanent marks an answer that asking again does not change.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// fetch downloads the file, with a few attempts.
func fetch(ctx context.Context, a Artifact, target string) error {
	wait := backoff
	for n := 1; ; n++ {
		err := fetchOnce(ctx, base()+"/"+a.path(), a.SHA256, target)
		if err == nil || n == attempts || ctx.Err() != nil || errors.As(err, new(permanent)) {
			return err
		}
		select {
		case <-time.After(wait):
			wait *= 2
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func fetchOnce(ctx context.Context, url, sum, target string) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, attemptLimit, fmt.Errorf("not finished after %v", attemptLimit))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return permanent{err}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, res.Body.Close())
		http.DefaultClient.CloseIdleConnections()
	}()
	if res.StatusCode != http.StatusOK {
		err := fmt.Errorf("GET %s: %s", url, res.Status)
		if res.StatusCode >= 400 && res.StatusCode < 500 && res.StatusCode != http.StatusTooManyRequests {
			return permanent{err}
		}
		return err
	}
	if err := store(res.Body, sum, target); err != nil {
		return fmt.Errorf("GET %s: %w", url, err)
	}
	return nil
}

// store writes r to target if it has that sum: first beside it, so that target
// is never half a file.
func store(r io.Reader, sum, target string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(target), ".part-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, sizeLimit+1))
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	if n > sizeLimit {
		return permanent{fmt.Errorf("more than %d bytes", sizeLimit)}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return fmt.Errorf("SHA-256 is %s, want %s", got, sum)
	}
	return os.Rename(f.Name(), target)
}
