package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A program that is built like cdc sees its wall clock jump while it runs, its
// monotonic clock does not.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	overlay, err := replaced(t.Context(), "", dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newClock(dir)
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte(`package main

import ("bufio"; "fmt"; "os"; "time")

func main() {
	begin := time.Now()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(time.Now().Unix(), int64(time.Since(begin)))
	}
}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), clockVariable+"="+c.path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, off := range []time.Duration{0, 48 * time.Hour, -2 * time.Hour, 0} {
		if err := c.set(off); err != nil {
			t.Fatal(err)
		}
		before := time.Now().Add(off).Unix()
		fmt.Fprintln(in)
		var wall, passed int64
		if !lines.Scan() {
			t.Fatalf("it ended: %v", lines.Err())
		}
		if _, err := fmt.Sscan(lines.Text(), &wall, &passed); err != nil {
			t.Fatal(err)
		}
		if after := time.Now().Add(off).Unix(); wall < before || wall > after {
			t.Errorf("off by %v: it says %d, want %d to %d", off, wall, before, after)
		}
		if d := time.Duration(passed); d < 0 || d > time.Hour {
			t.Errorf("off by %v: it says that %v have passed", off, d)
		}
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
