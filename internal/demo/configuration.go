package demo

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"

	"cdc/internal/config"
	"cdc/internal/intent"
)

//go:embed cdc.yaml.tmpl
var configText string

// addedText goes behind it: the reaction and the view that a run adds half-way.
//
//go:embed added.yaml
var addedText string

var configTemplate = template.Must(template.New("cdc.yaml").Parse(configText))

// configName is the file in the folder of a run that holds its configuration.
const configName = "cdc.yaml"

// places are the parts of the configuration that differ from run to run.
type places struct {
	Written  string
	Postgres string // connection string
	Dir      string // of the broker, relative to the file
	Broker   string // host:port
	Admin    string // host:port
	Added    bool   // with the reaction and the view that a run adds
}

// render writes the configuration; strings of Go and of YAML in double quotes
// agree on what a path or a URL can hold.
func (p places) render() (string, error) {
	p.Postgres, p.Dir = strconv.Quote(p.Postgres), strconv.Quote(p.Dir)
	p.Broker, p.Admin = strconv.Quote(p.Broker), strconv.Quote(p.Admin)
	var b strings.Builder
	if err := configTemplate.Execute(&b, p); err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	if p.Added {
		b.WriteString(addedText)
	}
	return b.String(), nil
}

// Example is the configuration that a run uses, with the usual ports and with what
// it adds on the way: what `cdc demo --print-config` prints.
func Example() (string, error) {
	return places{
		Written:  "Printed by `cdc demo --print-config`.",
		Postgres: "postgres://postgres@127.0.0.1:5432/" + database + "?sslmode=disable",
		Dir:      "data/broker",
		Broker:   DefaultBroker,
		Admin:    DefaultAdmin,
		Added:    true,
	}.render()
}

// configure writes the configuration of this run into its folder and reads it
// back, so that the run is exactly what the file says.
func configure(dir string, p places) (*config.Config, error) {
	p.Written = "Written by `cdc demo`."
	text, err := p.render()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, configName)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration of the demo: %w", err)
	}
	return cfg, nil
}

// definitions are those of the pipeline of events.
func definitions(cfg *config.Config) intent.Definitions {
	return cfg.Pipelines[intentsPipeline].Definitions()
}

// intentsPipeline is the pipeline of mode: events in the configuration.
const intentsPipeline = "intents"

// What addedText adds.
const (
	addedView     = "popularity"
	addedReaction = "offer-freed-place"
)
