package pgserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Programs is a directory with PostgreSQL's server programs.
type Programs struct {
	Dir   string // holds initdb and postgres
	Major int    // 15 for PostgreSQL 15.18
}

// folders are the places where packages put server programs that are not on the
// PATH: Debian, Red Hat (PGDG), Alpine, Homebrew on both kinds of Mac, Postgres.app.
var folders = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/libexec/postgresql*",
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
	"/usr/local/pgsql/bin",
	"/usr/bin",
}

// Oldest and newest major versions that Start accepts: older ones lack what
// logical replication needs here, newer ones are not tested.
const (
	oldestMajor = 14
	newestMajor = 18
)

// Find looks for installed programs of the wanted major version ("" or "0": the
// newest supported one). dir, if set, is the only place it looks. It returns
// ok=false when there is none; an error only when dir was given and is of no use.
func Find(ctx context.Context, dir, version string) (p Programs, ok bool, err error) {
	want, err := parseWanted(version)
	if err != nil {
		return Programs{}, false, err
	}
	if dir != "" {
		p, err = inspect(ctx, dir)
		if err != nil {
			return Programs{}, false, fmt.Errorf("use PostgreSQL programs in %s: %w", dir, err)
		}
		if want != 0 && p.Major != want {
			return Programs{}, false, fmt.Errorf("use PostgreSQL programs in %s: they are version %d, want %d", dir, p.Major, want)
		}
		return p, true, nil
	}
	var found []Programs
	for _, candidate := range candidates(ctx) {
		p, err := inspect(ctx, candidate)
		if err != nil || p.Major < oldestMajor || p.Major > newestMajor {
			continue
		}
		if want == 0 || p.Major == want {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return Programs{}, false, nil
	}
	return slices.MaxFunc(found, func(a, b Programs) int { return a.Major - b.Major }), true, nil
}

// parseWanted reads Options.Version; 0 means any.
func parseWanted(version string) (int, error) {
	if version == "" {
		return 0, nil
	}
	major, err := strconv.Atoi(version)
	if err != nil || major < oldestMajor || major > newestMajor {
		return 0, fmt.Errorf("PostgreSQL version %q: want a major version from %d to %d", version, oldestMajor, newestMajor)
	}
	return major, nil
}

// candidates lists directories worth inspecting, each once.
func candidates(ctx context.Context) []string {
	var dirs []string
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range folders {
		matches, err := filepath.Glob(pattern)
		if err == nil {
			dirs = append(dirs, matches...)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// inspect reads the version of the programs in dir.
func inspect(ctx context.Context, dir string) (Programs, error) {
	for _, name := range []string{"initdb", "postgres"} {
		info, err := os.Stat(filepath.Join(dir, name+exeSuffix()))
		if err != nil {
			return Programs{}, err
		}
		if info.IsDir() {
			return Programs{}, fmt.Errorf("%s is a directory", name)
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"+exeSuffix()), "--version").Output()
	if err != nil {
		return Programs{}, fmt.Errorf("run postgres --version: %w", err)
	}
	major, err := parseVersion(string(out))
	if err != nil {
		return Programs{}, err
	}
	return Programs{Dir: dir, Major: major}, nil
}

// parseVersion reads "postgres (PostgreSQL) 15.18 (Debian …)".
func parseVersion(text string) (int, error) {
	_, rest, ok := strings.Cut(text, "(PostgreSQL) ")
	if !ok {
		return 0, fmt.Errorf("read version of postgres from %q: want \"postgres (PostgreSQL) N…\"", text)
	}
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	major, err := strconv.Atoi(rest[:end])
	if err != nil {
		return 0, fmt.Errorf("read version of postgres from %q: no number", text)
	}
	return major, nil
}

func exeSuffix() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}
