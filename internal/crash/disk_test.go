package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// 116 and 123: the disks of Postgres, of its log too, and of the broker inside cdc
// are full for a while, under load. Nothing is lost, nothing is there twice.
func TestCase116Case123FullDisk(t *testing.T) {
	t.Parallel()
	if err := mountable(); err != nil {
		t.Skipf("no disk can be filled here: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	program, remove, err := build(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	l, err := newLane(program, true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	p := makePlan(4, kindEmbedded, limits{faults: []int{}})
	p.faults = []fault{
		{kind: faultDiskBroker, at: 5, hold: 500 * time.Millisecond},
		{number: 1, kind: faultDiskPG, at: 20, hold: 500 * time.Millisecond},
		{number: 2, kind: faultDiskPG, at: 40, hold: 500 * time.Millisecond, point: "pg_switch_wal", count: 1},
	}
	r, err := l.run(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	if r.failed() {
		t.Errorf("%s\n%s\n%s\n%s", r.plan, strings.Join(r.notes, "\n"), r.logs, strings.Join(r.violations, "\n"))
	}
}

// Where no disk can be filled no plan has that fault; elsewhere about one in
// twelve has.
func TestFullDisksAreDrawn(t *testing.T) {
	t.Parallel()
	const seeds = 2000
	for _, kafka := range []string{kindEmbedded, "fake", "4.4.0"} {
		full := func(f fault) bool { return f.kind == faultDiskPG || f.kind == faultDiskBroker }
		p := plan{kafka: kafka, sessions: [][]step{make([]step, 100)}}
		with := 0
		for seed := range uint64(seeds) {
			if slices.ContainsFunc(makeFaults(rand.New(rand.NewPCG(seed, 2)), p, false), full) {
				with++
			}
			if got := makeFaults(rand.New(rand.NewPCG(seed, 2)), p, true); slices.ContainsFunc(got, full) {
				t.Fatalf("seed %d: no disk can be filled, and one is among %v", seed, got)
			}
		}
		if with < seeds/20 || with > seeds/6 {
			t.Errorf("%s: %d of %d plans fill a disk, want about one in twelve", kafka, with, seeds)
		}
		t.Logf("%s: %d of %d plans fill a disk", kafka, with, seeds)
	}
}

// A volume is full when it is filled, has room when it is freed, and is gone when
// it is closed, with a file in it still open.
func TestVolume(t *testing.T) {
	t.Parallel()
	if err := mountable(); err != nil {
		t.Skipf("no volume can be had here: %v", err)
	}
	v, err := newVolume(probeVolume)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(v.dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	piece := make([]byte, probeVolume/4)
	for range 2 {
		if err := v.fill(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(piece, 0); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("write to a full disk: got %v, want %v", err, syscall.ENOSPC)
		}
	}
	if err := v.free(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(piece, 0); err != nil {
		t.Errorf("write after it was freed: %v", err)
	}
	if err := errors.Join(v.free(), v.close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(v.outer); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", v.outer, err)
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil || strings.Contains(string(mounts), v.dir) {
		t.Errorf("it is still mounted, or nobody knows: %v", err)
	}
}
