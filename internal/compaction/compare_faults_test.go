package compaction

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fill gives a comparison n rows, the half of which has an equal record.
func fill(t testing.TB, c *Comparison, n int) {
	t.Helper()
	w := c.Writer()
	for i := range n {
		feed(t, w, fed{row: true, key: fmt.Sprintf("key %d", i), dig: i})
		if i%2 == 0 {
			feed(t, w, fed{key: fmt.Sprintf("key %d", i), dig: i, partition: 1, offset: int64(i)})
		}
	}
}

func TestCompareDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(t.TempDir(), "none")} {
		if _, err := NewComparison(CompareOptions{Dir: dir}); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: got error %v, want one that names it", dir, err)
		}
	}
}

// What is on disk is gone when the comparison is closed, and has no name before.
func TestCompareLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	c := newTestComparison(t, CompareOptions{Memory: minCompareMemory, Dir: dir})
	var files []*os.File
	c.spill.create = func(dir string) (*os.File, error) {
		f, err := createSpillFile(dir)
		files = append(files, f)
		return f, err
	}
	fill(t, c, 2000)
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 || len(files) == 0 {
		t.Errorf("got %d files, names %v, error %v, want files without a name", len(files), names, err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, f := range files {
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("a file is open behind Close: got error %v", err)
		}
	}
	w := c.Writer()
	feed(t, w, fed{row: true, key: "k", dig: 1})
	if err := w.Flush(); !errors.Is(err, errCompareOver) {
		t.Errorf("flush behind Close: got error %v, want %v", err, errCompareOver)
	}
	if _, err := c.Differences(nil); !errors.Is(err, errCompareOver) {
		t.Errorf("differences behind Close: got error %v, want %v", err, errCompareOver)
	}
}

func TestCompareDiskFull(t *testing.T) {
	const dir = "/dev"
	c := newTestComparison(t, CompareOptions{Memory: minCompareMemory, Dir: dir})
	c.spill.create = func(string) (*os.File, error) { return os.OpenFile("/dev/full", os.O_RDWR, 0) }
	w := c.Writer()
	var err error
	for i := 0; err == nil && i < 100_000; i++ {
		err = w.Row([]byte(fmt.Sprintf("key %d", i)), nil, digest(i))
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got error %v, want ENOSPC and the directory", err)
	}
	if _, again := c.Differences(func(Difference) error { return nil }); again == nil || again.Error() != err.Error() {
		t.Errorf("differences of half of the entries: got error %v, want %v", again, err)
	}
}

// A damaged file is an error; it is never told apart as differences.
func TestCompareDamagedFile(t *testing.T) {
	tests := []struct {
		name   string
		damage func(f *os.File) error
	}{
		{"a byte of a payload", func(f *os.File) error { return flip(f, frameHeader+11) }},
		{"a byte of a checksum", func(f *os.File) error { return flip(f, 5) }},
		{"a length, a little", func(f *os.File) error { return flip(f, 0) }},
		{"a length, out of all bounds", func(f *os.File) error { return flip(f, 3) }},
		{"the end is cut", func(f *os.File) error {
			info, err := f.Stat()
			if err != nil {
				return err
			}
			return f.Truncate(info.Size() - 3)
		}},
		{"empty", func(f *os.File) error { return f.Truncate(0) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newTestComparison(t, CompareOptions{Memory: minCompareMemory})
			var file *os.File
			c.spill.create = func(dir string) (*os.File, error) {
				f, err := createSpillFile(dir)
				file = f
				return f, err
			}
			fill(t, c, 1000)
			if err := tt.damage(file); err != nil {
				t.Fatal(err)
			}
			v, err := c.Differences(func(Difference) error { return nil })
			if !errors.Is(err, errSpillDamaged) || v.Verdict != "" {
				t.Errorf("got verdict %q, error %v, want %v", v.Verdict, err, errSpillDamaged)
			}
		})
	}
}

func flip(f *os.File, at int64) error {
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 0x41
	_, err := f.WriteAt(b[:], at)
	return err
}

func TestCompareInterrupted(t *testing.T) {
	stop := errors.New("stop")
	for _, when := range []string{"spilling", "folding", "in fn"} {
		t.Run(when, func(t *testing.T) {
			var err error
			c := newTestComparison(t, CompareOptions{Memory: minCompareMemory, Err: func() error { return err }})
			w := c.Writer()
			for i := range 1000 {
				feed(t, w, fed{row: true, key: fmt.Sprintf("key %d", i), dig: i})
			}
			if when != "in fn" {
				err = stop
			}
			if when == "spilling" {
				var got error
				for i := 0; got == nil && i < 100_000; i++ {
					got = w.Row([]byte(fmt.Sprintf("more %d", i)), nil, digest(i))
				}
				if !errors.Is(got, stop) {
					t.Errorf("got error %v, want %v", got, stop)
				}
			}
			if _, got := c.Differences(func(Difference) error { return stop }); !errors.Is(got, stop) {
				t.Errorf("differences: got error %v, want %v", got, stop)
			}
		})
	}
}
