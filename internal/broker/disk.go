package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A batch that kfake could not write is answered with an error, but its sequence
// number counts as used: the batch sent again is taken for a duplicate, and
// acknowledged; the one behind it is accepted, and leaves a hole. So a write must
// not fail. As long as there is warning of a full disk none is begun: requests
// that make the log grow are refused while less than diskReserve would be left,
// and clients try again. Where one fails all the same (something else took the
// room in that moment) kfake is stopped before it serves another request, and
// nothing leaves any more: only a start, which reads what is on the disk, mends
// that.
const (
	// diskReserve is more than all requests in work at once can write by a wide
	// margin: each connection has one, of about a megabyte.
	diskReserve = 16 << 20
	// diskAgain is when a disk is no longer called full: apart from diskReserve, so
	// that the log does not fill with both messages in turn.
	diskAgain = 2 * diskReserve
)

// ErrFailed says that a write to the log failed. The broker serves nothing more;
// start it again once there is room.
var ErrFailed = errors.New("the embedded broker has failed, it could not write its log; free space on its disk and start again")

var errFull = errors.New("the disk is full")

// disk knows whether there is room in a directory. Its methods may be called
// concurrently.
type disk struct {
	dir  string
	log  *slog.Logger
	free func(dir string) (uint64, error)
	full atomic.Bool
}

// freeSpace is what this user may still write below dir, in bytes.
func freeSpace(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("ask for the free space of %q: %w", dir, err)
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// admit says that a request of this key and size may be served. Where nobody
// knows what is free, it may.
func (d *disk) admit(key int16, size int64) error {
	if !grows(key) {
		return nil
	}
	free, err := d.free(d.dir)
	if err != nil {
		return nil
	}
	switch {
	case free < diskReserve+uint64(size):
		if !d.full.Swap(true) {
			d.log.Warn("the disk is full: the embedded broker refuses what would be written until space is freed", "dir", d.dir, "free", free, "reserve", diskReserve)
		}
		return errFull
	case free >= diskAgain+uint64(size) && d.full.CompareAndSwap(true, false):
		d.log.Info("the disk has room again: the embedded broker writes again", "dir", d.dir, "free", free)
	}
	return nil
}

// fits says that so many bytes can be written beside the reserve.
func (d *disk) fits(size uint64) error {
	free, err := d.free(d.dir)
	if err != nil || free >= diskReserve+size {
		return nil
	}
	return fmt.Errorf("%w: %d MiB are needed below %q, %d are free", errFull, (diskReserve+size)>>20, d.dir, free>>20)
}

// treeSize adds up the files below dir, in bytes.
func treeSize(dir string) (uint64, error) {
	var sum uint64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			sum += uint64(info.Size())
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // no partition has a record yet
	}
	return sum, err
}

// grows says that requests of a key append to a log. What deletes, and what
// groups note of their members, the reserve is for.
func grows(key int16) bool {
	switch kmsg.Key(key) {
	case kmsg.Produce, kmsg.OffsetCommit, kmsg.TxnOffsetCommit, kmsg.InitProducerID, kmsg.EndTxn, kmsg.CreateTopics, kmsg.CreatePartitions:
		return true
	}
	return false
}

// failure is closed once a write has failed.
type failure struct {
	once sync.Once
	done chan struct{}
}

// Failed is closed when a write to the log has failed, see ErrFailed. Whoever
// runs the broker ends then, so that it can be started again.
func (b *Broker) Failed() <-chan struct{} { return b.failure.done }

// fail has nothing leave any more and closes every connection.
func (b *Broker) fail() {
	b.failure.once.Do(func() {
		b.guard.silent.Store(true)
		close(b.failure.done)
		b.guard.shut()
	})
}
