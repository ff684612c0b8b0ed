package eventstore

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Version is the version of schema es that this program makes and works with.
const Version = 1

// schemaFiles are the migrations. The files of schema/ itself lead to version 1,
// those of schema/2 from 1 to 2, and so on; of one version they run in the order
// of their names, as es_owner, in one transaction.
//
//go:embed schema
var schemaFiles embed.FS

// migration is the SQL that leads from a version to the next.
func migration(to int) (string, error) {
	dir := "schema"
	if to > 1 {
		dir = path.Join(dir, fmt.Sprint(to))
	}
	entries, err := fs.ReadDir(schemaFiles, dir)
	if err != nil {
		return "", fmt.Errorf("read the migration to version %d: %w", to, err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	var b strings.Builder
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		text, err := fs.ReadFile(schemaFiles, path.Join(dir, e.Name()))
		if err != nil {
			return "", fmt.Errorf("read the migration to version %d: %w", to, err)
		}
		b.Write(text)
		b.WriteByte('\n')
	}
	return b.String(), nil
}
