package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The order of a compaction, all of it while kfake serves no request:
//
//  1. every segment gets a second name, a hard link, under backup
//  2. the marker is written and synced
//  3. kfake compacts: it removes the first names, then writes new files
//  4. the new files and their directories are synced
//  5. the marker is removed; from here on the new files count
//
// and then the backup goes. A start that finds the marker puts the backup back:
// what was there before 3 is there again, whole. A start that finds a backup
// without the marker removes it. Appending to a segment never happens while it
// has two names, because no request is served; 3 unlinks and never truncates.
const (
	backupName = "compaction-backup"
	markerName = "compaction-running"
	partsName  = "partitions" // kfake's own name
)

// ErrInterrupted says that a compaction was interrupted and could not be undone.
var ErrInterrupted = errors.New("an earlier compaction was interrupted and its backup is gone: partitions may lack records; rebuild state topics by snapshot and history topics from the event store, then clear the marker")

// Compact compacts every topic with cleanup.policy=compact, and applies
// retention where topics have one. No request is served meanwhile: about 0.7 s
// per 100 MB. It needs the disk space of the compacted topics once more, and
// memory for the survivors of the greatest partition. ctx is heeded until the
// compaction begins; from then on it runs to its end.
//
// After an error from the compaction itself (a full disk) the broker is closed;
// the next Start puts the log back as it was.
func (b *Broker) Compact(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return errors.New("compact: the broker is closed")
	case b.interrupted:
		return fmt.Errorf("compact: %w", ErrInterrupted)
	}
	if err := b.stopped(ctx, b.compactLocked); err != nil {
		if b.guard.silent.Load() {
			err = errors.Join(err, b.closeLocked())
		}
		return fmt.Errorf("compact: %w", err)
	}
	if err := os.RemoveAll(b.path(backupName)); err != nil {
		return fmt.Errorf("compact: remove backup: %w", err)
	}
	return nil
}

// stopped runs fn while kfake serves no request. kfake waits for a control
// function before it goes on and serves only its own admin calls meanwhile, so
// fn becomes one, and a request of ours sets it off.
func (b *Broker) stopped(ctx context.Context, fn func() error) error {
	var once sync.Once
	done := make(chan error, 1)
	run := func() { done <- fn() }
	b.kfake.ControlKey(int16(kmsg.DescribeCluster), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.kfake.DropControl()
		once.Do(run)
		return nil, nil, false
	})
	// Whatever happens to our request, fn must not run later.
	defer once.Do(func() {})
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", b.Addr())
	if err != nil {
		return fmt.Errorf("connect to ourselves: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	err = ask(context.WithoutCancel(ctx), conn, kmsg.NewPtrDescribeClusterRequest(), kmsg.NewPtrDescribeClusterResponse())
	once.Do(func() { done <- fmt.Errorf("stop the broker for a moment: %w", errors.Join(ctx.Err(), err)) })
	return <-done
}

// compactLocked runs inside kfake's loop.
func (b *Broker) compactLocked() error {
	size, err := treeSize(filepath.Join(b.logDir(), partsName))
	if err != nil {
		return err
	}
	if err := b.guard.disk.fits(size); err != nil {
		return err
	}
	if err := b.backUp(); err != nil {
		return err
	}
	if err := b.mark(); err != nil {
		return err
	}
	before := b.events.faults.Load()
	b.compacting.Store(true)
	b.kfake.Compact()
	b.compacting.Store(false)
	err = syncTree(filepath.Join(b.logDir(), partsName))
	if n := b.events.faults.Load() - before; n > 0 {
		err = errors.Join(err, fmt.Errorf("the broker reported %d faults", n))
	}
	if err == nil {
		err = b.unmark()
	}
	if err != nil {
		// The files may lack records that the backup has. What is appended from
		// now on will be gone after the next start: acknowledge nothing more.
		b.fail()
		b.log.Error("compaction failed; the next start puts the log back as it was", "dir", b.dir, "error", err)
	}
	return err
}

// backUp gives every file below partitions a second name.
func (b *Broker) backUp() error {
	backup := b.path(backupName)
	if err := os.RemoveAll(backup); err != nil {
		return fmt.Errorf("remove old backup: %w", err)
	}
	from := filepath.Join(b.logDir(), partsName)
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		to := filepath.Join(backup, rel)
		if d.IsDir() {
			return os.MkdirAll(to, 0o750)
		}
		return os.Link(path, to)
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = os.MkdirAll(backup, 0o750) // no partition has a record yet
	}
	if err != nil {
		return fmt.Errorf("link the segments to a backup (the file system must support hard links): %w", err)
	}
	return syncTree(backup)
}

func (b *Broker) path(name string) string { return filepath.Join(b.dir, name) }

func (b *Broker) mark() error {
	f, err := os.OpenFile(b.path(markerName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	_, err = f.WriteString("A compaction is running. While this file is here, the truth is in " + backupName + ".\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	return syncDir(b.dir)
}

func (b *Broker) unmark() error {
	if err := os.Remove(b.path(markerName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove marker: %w", err)
	}
	return syncDir(b.dir)
}
