package download

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"strings"
)

// Artifact is a file in a Maven repository.
type Artifact struct {
	Group, Name, Version string
	SHA256               string // of the jar, 64 lower-case hexadecimal digits
}

// File is the name of the jar.
func (a Artifact) File() string { return a.Name + "-" + a.Version + ".jar" }

// path is where every Maven repository keeps the jar.
func (a Artifact) path() string {
	return path.Join(strings.ReplaceAll(a.Group, ".", "/"), a.Name, a.Version, a.File())
}

// ParseManifest reads one artifact a line, "group:name:version sha256"; "#" begins
// a comment.
func ParseManifest(r io.Reader) ([]Artifact, error) {
	var list []Artifact
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if strings.TrimSpace(text) == "" {
			continue
		}
		a, err := parseArtifact(text)
		if err != nil {
			return nil, fmt.Errorf("line %d of the manifest: %w", n, err)
		}
		list = append(list, a)
	}
	return list, lines.Err()
}

func parseArtifact(text string) (Artifact, error) {
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return Artifact{}, fmt.Errorf("%q: want \"group:name:version sha256\"", text)
	}
	parts := strings.Split(fields[0], ":")
	if len(parts) != 3 {
		return Artifact{}, fmt.Errorf("%q: want group:name:version", fields[0])
	}
	for _, part := range parts {
		if part == "" || strings.ContainsAny(part, `/\`) || strings.Contains(part, "..") {
			return Artifact{}, fmt.Errorf("%q: want group:name:version", fields[0])
		}
	}
	if sum, err := hex.DecodeString(fields[1]); err != nil || len(sum) != 32 || strings.ToLower(fields[1]) != fields[1] {
		return Artifact{}, fmt.Errorf("%s: SHA-256 %q: want 64 lower-case hexadecimal digits", fields[0], fields[1])
	}
	return Artifact{Group: parts[0], Name: parts[1], Version: parts[2], SHA256: fields[1]}, nil
}
