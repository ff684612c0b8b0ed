package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// recoverCompaction undoes a compaction that was killed half-way. It says true
// when there was one and its backup is gone. It may itself be killed and run
// again: a partition is either still in the backup or already put back.
func (b *Broker) recoverCompaction() (interrupted bool, err error) {
	backup := b.path(backupName)
	if _, err := os.Stat(b.path(markerName)); errors.Is(err, fs.ErrNotExist) {
		if err := os.RemoveAll(backup); err != nil {
			return false, fmt.Errorf("remove backup of a finished compaction: %w", err)
		}
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("look for the marker of a compaction: %w", err)
	}
	parts, err := os.ReadDir(backup)
	if errors.Is(err, fs.ErrNotExist) {
		b.log.Error("an interrupted compaction left no backup: partitions may lack records", "dir", b.dir)
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read backup of an interrupted compaction: %w", err)
	}
	live := filepath.Join(b.logDir(), partsName)
	for _, part := range parts {
		if err := putBack(filepath.Join(backup, part.Name()), filepath.Join(live, part.Name())); err != nil {
			return false, fmt.Errorf("put back partition %q after an interrupted compaction: %w", part.Name(), err)
		}
	}
	if err := syncDir(live); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := b.unmark(); err != nil {
		return false, err
	}
	b.log.Warn("a compaction was interrupted; the log was put back as it was before", "dir", b.dir, "partitions", len(parts))
	return false, os.RemoveAll(backup)
}

func putBack(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// Interrupted says that a compaction was killed half-way before this start and
// could not be undone: partitions may lack records, or be empty. State topics are
// to be rebuilt by snapshot, history topics from the event store.
func (b *Broker) Interrupted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.interrupted
}

// ClearInterrupted forgets an interrupted compaction once its topics are rebuilt.
func (b *Broker) ClearInterrupted() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.interrupted {
		return nil
	}
	if err := b.unmark(); err != nil {
		return fmt.Errorf("clear interrupted compaction: %w", err)
	}
	b.interrupted = false
	return nil
}

// syncTree fsyncs every file and directory below and including dir.
func syncTree(dir string) error {
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncDir(path)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no partition has a record yet
	}
	return err
}

// syncDir fsyncs one directory or file.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}
