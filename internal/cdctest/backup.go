package cdctest

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"cdc/internal/pgserver"
)

// Backup is a copy of the data directory of a server that was stopped.
type Backup struct {
	dir     string
	version string
	extra   map[string]string
}

// Backup stops the server (fast), copies its data directory and starts it again.
func (p *PG) Backup(t testing.TB) *Backup {
	t.Helper()
	p.Halt(t)
	b := &Backup{dir: serverDir(t), version: fmt.Sprint(p.Version()), extra: p.extra}
	copyTree(t, p.Dir(), b.dir)
	p.Resume(t)
	return b
}

// Halt stops the server (fast): it can be restored, or started again by Resume.
func (p *PG) Halt(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if err := p.Stop(ctx, "fast"); err != nil {
		t.Fatal(err)
	}
}

// Resume starts the server again, on its port.
func (p *PG) Resume(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if err := p.Restart(ctx); err != nil {
		t.Fatal(err)
	}
}

// Restore puts the copy in the place of the server's data, as somebody does who
// restores a backup without its archive, and starts the server. With pointInTime
// it recovers to the end of the WAL that the copy has, and begins a new timeline.
func (p *PG) Restore(t testing.TB, b *Backup, pointInTime bool) {
	t.Helper()
	p.Halt(t)
	if err := os.RemoveAll(p.Dir()); err != nil {
		t.Fatal(err)
	}
	copyTree(t, b.dir, p.Dir())
	if pointInTime {
		b.write(t, p.Dir(), "recovery.signal", "")
		b.write(t, p.Dir(), "postgresql.auto.conf", "restore_command = 'false'\n")
	}
	p.Resume(t)
	for p.admin().Value(t, "SELECT pg_is_in_recovery()") != "f" {
		if t.Context().Err() != nil {
			t.Fatal("the restored server does not leave recovery")
		}
	}
}

// Standby starts a hot standby of primary on the copy. extra are its settings
// beyond those of the server that was copied.
func (b *Backup) Standby(t testing.TB, primary *PG, slot string, extra map[string]string) *PG {
	t.Helper()
	dir := serverDir(t)
	copyTree(t, b.dir, dir)
	b.write(t, dir, "standby.signal", "")
	all := maps.Clone(settings)
	maps.Copy(all, b.extra)
	maps.Copy(all, map[string]string{
		"primary_conninfo":  fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres", primary.Port()),
		"primary_slot_name": slot,
	})
	maps.Copy(all, extra)
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	s, err := pgserver.Start(ctx, pgserver.Options{Dir: dir, Version: b.version, Settings: all, Notice: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &PG{Server: s, extra: b.extra}
}

// write makes a small file of the data directory, owned as the directory is.
func (b *Backup) write(t testing.TB, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	own(t, b.dir, path)
}

// serverDir is a directory that the server's own user can reach, which a test's
// TempDir is not; it goes with the test.
func serverDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cdc-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// copyTree copies a directory with modes and owners.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			if err := os.MkdirAll(target, info.Mode().Perm()); err != nil {
				return err
			}
			if err := os.Chmod(target, info.Mode().Perm()); err != nil {
				return err
			}
		case d.Type().IsRegular():
			if err := copyFile(path, target, info.Mode().Perm()); err != nil {
				return err
			}
		default:
			return nil // the server leaves no other kind behind
		}
		own(t, path, target)
		return nil
	})
	if err != nil {
		t.Fatalf("copy %s: %v", from, err)
	}
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}

// own gives path the owner of another one.
func own(t testing.TB, like, path string) {
	t.Helper()
	info, err := os.Stat(like)
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := os.Lchown(path, int(s.Uid), int(s.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// WriteFile makes or replaces a small file in the data directory, readable by the
// server alone: a certificate, a key.
func (p *PG) WriteFile(t testing.TB, name, text string) {
	t.Helper()
	path := filepath.Join(p.Dir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	own(t, p.Dir(), path)
}
