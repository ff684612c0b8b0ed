package cdctest

import (
	"context"
	"maps"
	"os"
	"sync"
	"testing"
	"time"

	"cdc/internal/pgserver"
)

// VersionVariable names the environment variable that selects PostgreSQL's major
// version for the tests: "14" to "18"; empty takes what is installed.
const VersionVariable = "CDC_TEST_PG"

// startLimit bounds the start of a server, its download included.
const startLimit = 5 * time.Minute

// settings of every test server. Nothing here outlives a test, so nothing is
// synced; the rest is what the cases need.
var settings = map[string]string{
	"fsync":                     "off",
	"full_page_writes":          "off",
	"wal_level":                 "logical",
	"max_connections":           "200",
	"max_replication_slots":     "50",
	"max_wal_senders":           "50",
	"max_prepared_transactions": "20",
	"track_commit_timestamp":    "on",
	"shared_buffers":            "64MB",
	"log_min_messages":          "warning",
}

// PG is a PostgreSQL server for tests.
type PG struct {
	*pgserver.Server
	extra map[string]string // settings beyond the kit's
}

var shared struct {
	once sync.Once
	pg   *PG
	err  error
}

// Postgres is the server that all tests of the binary share. It is started by
// the first call and ended by Main. Do not stop it; see PrivatePostgres.
func Postgres(t testing.TB) *PG {
	t.Helper()
	shared.once.Do(func() {
		shared.pg, shared.err = startPostgres(nil, "")
		if shared.err == nil {
			AtExit(shared.pg.Close)
		}
	})
	if shared.err != nil {
		t.Fatalf("%v", shared.err)
	}
	return shared.pg
}

// PrivatePostgres is a server of this test alone, to be stopped, killed and
// restarted; extra overrides the kit's settings. It ends with the test.
func PrivatePostgres(t testing.TB, extra map[string]string) *PG {
	t.Helper()
	pg, err := startPostgres(extra, "")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(pg.Close)
	return pg
}

// startPostgres starts a server in dir; "" is a temporary directory.
func startPostgres(extra map[string]string, dir string) (*PG, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	all := maps.Clone(settings)
	maps.Copy(all, extra)
	s, err := pgserver.Start(ctx, pgserver.Options{
		Dir:      dir,
		Version:  os.Getenv(VersionVariable),
		Settings: all,
		Notice:   os.Stderr,
	})
	if err != nil {
		return nil, err
	}
	return &PG{Server: s, extra: extra}, nil
}
