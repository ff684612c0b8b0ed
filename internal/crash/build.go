package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// mutant is a change of cdc's source that breaks one of its promises: the suite
// must find it.
type mutant struct {
	file     string // below the module
	old, new string // old is there once
}

// mutants by name.
var mutants = map[string]mutant{
	// The slot is confirmed to what was read, acknowledged or not.
	"confirm-early": {"internal/pipeline/stream.go", "		l.stream.Confirm(l.confirmed)\n	}\n	every", "		l.stream.Confirm(l.mark.End)\n	}\n	every"},
	// Of a transaction that was cut off, the rest is left out.
	"skip-too-much": {"internal/pipeline/route.go", "	if at.Compare(p.last) <= 0 {", "	if at.Tx <= p.last.Tx {"},
	// What a partition already holds is written again.
	"no-skip": {"internal/pipeline/route.go", "	if at.Compare(p.last) <= 0 {", "	if false {"},
	// A start does not fence the instance before it.
	"no-fence": {"internal/pipeline/begin.go", "	if l.cfg.Delivery == ExactlyOnce {", "	if false {"},
	// A copy that is begun anew leaves rows alive that have gone meanwhile.
	"no-ghosts": {"internal/pipeline/snapshot.go", "			if before[p.tp] <= starts[p.tp] {", "			if true {"},
}

func sabotages() []string { return slices.Sorted(maps.Keys(mutants)) }

// build builds cdc with fail points, sabotaged or not, and returns its path.
func build(ctx context.Context, sabotage string) (path string, remove func(), err error) {
	dir, remove, err := scratch()
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			remove()
		}
	}()
	path = filepath.Join(dir, "cdc")
	overlay, err := replaced(ctx, sabotage, dir)
	if err != nil {
		return "", nil, err
	}
	out, err := exec.CommandContext(ctx, "go", "build", "-tags", "failpoint", "-overlay", overlay, "-o", path, "cdc/cmd/cdc").CombinedOutput()
	if err != nil {
		return "", nil, fmt.Errorf("build cdc: %w\n%s", err, out)
	}
	return path, remove, nil
}

// replaced writes the files that are built in place of others, and returns an
// overlay for the build: the sources themselves stay as they are.
func replaced(ctx context.Context, sabotage, dir string) (overlay string, err error) {
	goroot, err := goSays(ctx, "env", "GOROOT")
	if err != nil {
		return "", err
	}
	files := map[string]string{filepath.Join(goroot, "src", "time", "crash_clock.go"): filepath.Join(dir, "clock.go")}
	if err := os.WriteFile(filepath.Join(dir, "clock.go"), clockSource, 0o600); err != nil {
		return "", err
	}
	if err := mutate(clockMutant, goroot, dir, files); err != nil {
		return "", err
	}
	if sabotage != "" {
		m, ok := mutants[sabotage]
		if !ok {
			return "", fmt.Errorf("-sabotage %q: want one of %s", sabotage, strings.Join(sabotages(), ", "))
		}
		module, err := goSays(ctx, "list", "-m", "-f", "{{.Dir}}", "cdc")
		if err != nil {
			return "", err
		}
		if err := mutate(m, module, dir, files); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": files})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

// goSays is a line that the go command prints.
func goSays(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", args...).Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// mutate writes a mutant of a file below root into dir and adds it to files.
func mutate(m mutant, root, dir string, files map[string]string) error {
	original := filepath.Join(root, m.file)
	source, err := os.ReadFile(original)
	if err != nil {
		return err
	}
	if n := bytes.Count(source, []byte(m.old)); n != 1 {
		return fmt.Errorf("%s: %q is there %d times, want once", original, m.old, n)
	}
	files[original] = filepath.Join(dir, strings.ReplaceAll(m.file, "/", "_"))
	return os.WriteFile(files[original], bytes.Replace(source, []byte(m.old), []byte(m.new), 1), 0o600)
}
