package download

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// CacheVariable names the environment variable that moves the cache.
const CacheVariable = "CDC_CACHE"

// rootCache is the cache of a process that is root: /root/.cache cannot be
// entered by the unprivileged user that PostgreSQL then runs as.
const rootCache = "/var/cache/cdc"

// CacheDir is where downloads are kept: $CDC_CACHE, else /var/cache/cdc for root,
// else "cdc" in the user's cache directory. It exists when CacheDir returns.
func CacheDir() (string, error) {
	dir := os.Getenv(CacheVariable)
	if dir == "" && os.Geteuid() == 0 {
		dir = rootCache
	}
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache directory: %w; set %s", err, CacheVariable)
		}
		dir = filepath.Join(base, "cdc")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w; set %s", err, CacheVariable)
	}
	return dir, nil
}

// Locked runs f while no other process runs one under the same name, so that two
// programs that miss the same file fetch it once. It blocks without limit: the
// other one's download has its own.
func Locked(name string, f func() error) (err error) {
	dir, err := CacheDir()
	if err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("lock the cache: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }() // closing unlocks
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
		if err == nil {
			return f()
		}
		if !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("lock the cache: %w", err)
		}
	}
}
