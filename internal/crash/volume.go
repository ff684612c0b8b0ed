package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

const (
	// postgresVolume has room for the files of a server that lives over many seeds
	// (a seed's database and the log that its slot holds go with the seed; below 150
	// MiB were seen): what is full is full by a fault alone.
	postgresVolume = 768 << 20
	// brokerVolume is that of a broker. Apache Kafka deletes a topic's files a minute
	// after the topic, those of all seeds of that minute.
	brokerVolume = 768 << 20
	// probeVolume is mounted once to see whether mounting works.
	probeVolume = 1 << 20

	ballastName = "ballast"
	// ballastPiece is written at once. What is left at the end is less than a page.
	ballastPiece = 4 << 20
)

// volume is a file system of its own, in memory, that can be filled.
type volume struct {
	dir   string // of the volume; others write below it
	outer string // holds the mount point
}

// newVolume mounts a file system of so many bytes. The caller closes it.
func newVolume(size int64) (*volume, error) {
	outer, _, err := scratch()
	if err != nil {
		return nil, err
	}
	v := &volume{dir: filepath.Join(outer, "disk"), outer: outer}
	// Postgres runs as another user, and has to get to its directory.
	if err = os.Chmod(outer, 0o711); err == nil {
		err = os.Mkdir(v.dir, 0o755)
	}
	if err == nil {
		err = mountMemory(v.dir, size)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(outer))
	}
	return v, nil
}

// mountable says why no volume can be had; nil where one can.
func mountable() error {
	v, err := newVolume(probeVolume)
	if err != nil {
		return err
	}
	return v.close()
}

// fill writes the ballast until nothing more goes in.
func (v *volume) fill() (err error) {
	f, err := os.OpenFile(filepath.Join(v.dir, ballastName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if errors.Is(err, syscall.ENOSPC) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("fill a disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for piece := make([]byte, ballastPiece); ; {
		if _, err := f.Write(piece); errors.Is(err, syscall.ENOSPC) {
			return nil
		} else if err != nil {
			return fmt.Errorf("fill a disk: %w", err)
		}
	}
}

// free removes the ballast.
func (v *volume) free() error {
	if err := os.Remove(filepath.Join(v.dir, ballastName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("free a disk: %w", err)
	}
	return nil
}

// close unmounts it, at the latest when the last process has left it.
func (v *volume) close() error {
	if err := unmount(v.dir); err != nil {
		return err // what is below it stays where it is
	}
	return os.RemoveAll(v.outer)
}
