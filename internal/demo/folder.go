package demo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// DefaultDir is where a run keeps its data when nothing else is said.
const DefaultDir = "data/demo"

// folder is the data folder of a run, held by this process.
type folder struct {
	dir       string // absolute
	lock      *os.File
	ours      bool // a demo ran here before
	continued bool // an earlier run left its cluster here
}

// openFolder chooses the folder, takes it for this process, and clears it where
// a fresh start is wanted. dir "" is DefaultDir, or a folder below the temporary
// directory where that cannot be used.
func openFolder(dir string, fresh bool) (*folder, error) {
	f, err := chooseFolder(dir)
	if err != nil {
		return nil, err
	}
	if err := f.take(); err != nil {
		return nil, err
	}
	if fresh {
		if err := f.clear(); err != nil {
			return nil, errors.Join(err, f.close())
		}
	}
	_, err = os.Stat(filepath.Join(f.postgres(), "PG_VERSION"))
	f.continued = err == nil
	return f, nil
}

func chooseFolder(dir string) (*folder, error) {
	wanted := dir
	if wanted == "" {
		wanted = DefaultDir
	}
	abs, err := filepath.Abs(wanted)
	if err != nil {
		return nil, fmt.Errorf("find folder %s: %w", wanted, err)
	}
	err = usable(abs)
	if err == nil {
		return &folder{dir: abs}, nil
	}
	if dir != "" {
		return nil, fmt.Errorf("use %s for the demo: %w", abs, err)
	}
	// The name carries the user, and the folder must be the user's own: anybody
	// may create names in the temporary directory.
	abs = filepath.Join(os.TempDir(), "cdc-demo-"+strconv.Itoa(os.Geteuid()))
	if err := usable(abs); err != nil {
		return nil, fmt.Errorf("use %s for the demo: %w; name another folder with --dir", abs, err)
	}
	info, err := os.Lstat(abs)
	if err != nil {
		return nil, fmt.Errorf("use %s for the demo: %w", abs, err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("use %s for the demo: it is not a folder of this user; name another with --dir", abs)
	}
	return &folder{dir: abs}, nil
}

// usable makes the folder and says whether it can be written. Under root the
// server runs as another user, who must be able to enter the folder and all above it.
func usable(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return err
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	for above := dir; ; above = filepath.Dir(above) {
		info, err := os.Stat(above)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("PostgreSQL refuses to run as root, and another user cannot enter %s (mode %v)", above, info.Mode().Perm())
		}
		if above == filepath.Dir(above) {
			return nil
		}
	}
}

// lockName is the file that marks a folder as a demo's and locks it.
const lockName = "demo.lock"

// take locks the folder; the lock ends with the process, however it ends.
func (f *folder) take() error {
	path := f.path(lockName)
	_, err := os.Stat(path)
	f.ours = err == nil
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("lock folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("another demo runs in %s: end it, or name another folder with --dir (%w)", f.dir, err), lock.Close())
	}
	f.lock = lock
	return nil
}

// clear removes what earlier runs left. Data in a folder where no demo has run
// are somebody else's and stay.
func (f *folder) clear() error {
	for _, dir := range []string{f.postgres(), f.broker()} {
		_, err := os.Lstat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if !f.ours {
			return fmt.Errorf("start fresh: %s was there before any demo, so it is not removed; name another folder with --dir", dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("start fresh: %w", err)
		}
	}
	return nil
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }
func (f *folder) postgres() string        { return f.path("postgres") }
func (f *folder) broker() string          { return f.path(brokerDir) }

// brokerDir is relative to the folder, as the configuration has it.
const brokerDir = "broker"

// version is the major version of the cluster that an earlier run left, "" for none.
func (f *folder) version() string {
	text, err := os.ReadFile(filepath.Join(f.postgres(), "PG_VERSION"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (f *folder) close() error { return f.lock.Close() }
