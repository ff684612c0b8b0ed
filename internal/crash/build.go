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
	args := []string{"build", "-tags", "failpoint", "-o", path}
	if sabotage != "" {
		overlay, err := sabotaged(ctx, sabotage, dir)
		if err != nil {
			return "", nil, err
		}
		args = append(args, "-overlay", overlay)
	}
	out, err := exec.CommandContext(ctx, "go", append(args, "cdc/cmd/cdc")...).CombinedOutput()
	if err != nil {
		return "", nil, fmt.Errorf("build cdc: %w\n%s", err, out)
	}
	return path, remove, nil
}

// sabotaged writes the mutant's file and returns an overlay for the build: the
// source itself stays as it is.
func sabotaged(ctx context.Context, name, dir string) (overlay string, err error) {
	m, ok := mutants[name]
	if !ok {
		return "", fmt.Errorf("-sabotage %q: want one of %s", name, strings.Join(sabotages(), ", "))
	}
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "cdc").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	original := filepath.Join(strings.TrimSpace(string(module)), m.file)
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	if n := bytes.Count(source, []byte(m.old)); n != 1 {
		return "", fmt.Errorf("sabotage %s: the text to change is %d times in %s, want once", name, n, m.file)
	}
	changed := filepath.Join(dir, "mutant.go")
	if err := os.WriteFile(changed, bytes.Replace(source, []byte(m.old), []byte(m.new), 1), 0o600); err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}
