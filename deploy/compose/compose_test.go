// Package compose tests the files that docker-compose.yml mounts.
package compose

import (
	"os"
	"strings"
	"testing"

	"cdc/internal/cdctest"
	"cdc/internal/config"
	"cdc/internal/eventpipe"
	"cdc/internal/eventstore"
)

func TestMain(m *testing.M) { cdctest.Main(m) }

func TestConfigurationIsValid(t *testing.T) {
	load(t)
}

func load(t *testing.T) *config.Config {
	t.Helper()
	t.Setenv("CDC_PASSWORD", "cdc")
	cfg, err := config.Load("cdc.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestDatabase runs init.sql as the image does, and then what cdc will do with
// the role it makes: publish the tables and read them.
func TestDatabase(t *testing.T) {
	text, err := os.ReadFile("init.sql")
	if err != nil {
		t.Fatal(err)
	}
	pg := cdctest.PrivatePostgres(t, nil) // roles belong to the server
	db := pg.Database(t)
	db.Exec(t, strings.Replace(string(text), "DATABASE university", "DATABASE "+db.Name, 1))
	db.Exec(t, `SET SESSION AUTHORIZATION cdc;
		CREATE PUBLICATION p FOR TABLE students, courses, enrolments, waiting_list, feedback`)
	got := db.Value(t, "SELECT count(*) FROM pg_publication_tables WHERE pubname = 'p'")
	if got != "5" {
		t.Errorf("published tables: got %s, want 5", got)
	}
	if got := db.Value(t, "SET SESSION AUTHORIZATION cdc; SELECT count(*) FROM enrolments"); got != "3" {
		t.Errorf("enrolments: got %s, want 3", got)
	}

	// cdc es init
	url := strings.Replace(db.URL, "postgres@", "cdc:cdc@", 1)
	if url == db.URL {
		t.Fatalf("no user postgres in %s", db.URL)
	}
	if _, err := eventstore.Init(t.Context(), url, eventstore.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	store, err := eventstore.Open(t.Context(), eventstore.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := eventpipe.Install(t.Context(), store, load(t).Pipelines["intents"].Definitions()); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `SET SESSION AUTHORIZATION cdc; CREATE PUBLICATION q FOR TABLE es.event`)
}
