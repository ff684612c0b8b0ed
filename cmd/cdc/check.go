package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
	"cdc/internal/config"
	"cdc/internal/eventlog"
	"cdc/internal/eventpipe"
	"cdc/internal/eventstore"
	"cdc/internal/sink"
	"cdc/internal/source"
)

// finding is one thing `cdc check` looked at.
type finding struct {
	Pipeline string `json:"pipeline,omitempty"`
	Result   string `json:"result"` // ok, warning, error
	What     string `json:"what"`
	Mend     string `json:"mend,omitempty"` // SQL, command or setting
}

func newCheckCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check configuration, Postgres, Kafka and rights; change nothing",
		Long: `Check looks at everything a start needs and prints, for each fault, the SQL, command or setting that mends it.
It exits with 0 when the pipelines can run, with 2 for a faulty configuration, with 3 when something around it is not ready.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := g.load(cmd)
			if err != nil {
				return err
			}
			found := check(cmd.Context(), cfg)
			if err := g.print(cmd, found, func(w io.Writer) error { return writeFindings(w, found) }); err != nil {
				return err
			}
			faults := 0
			for _, f := range found {
				if f.Result == "error" {
					faults++
				}
			}
			if faults > 0 {
				return environmentError("%d of %d checks failed", faults, len(found))
			}
			return nil
		},
	}
}

func check(ctx context.Context, cfg *config.Config) []finding {
	quiet := discard()
	found := []finding{{Result: "ok", What: "configuration"}}
	sc, err := sinkConfig(cfg, brokerAddresses(cfg), quiet)
	reachable := err == nil
	if err == nil {
		var client *sink.Client
		if client, err = sink.Dial(ctx, sc); err == nil {
			client.Close()
		}
	}
	switch {
	case err == nil:
		found = append(found, finding{Result: "ok", What: "kafka answers at " + strings.Join(sc.Brokers, ", ")})
	case cfg.Kafka.Embedded != nil:
		reachable = false
		found = append(found, finding{Result: "ok", What: "kafka.embedded: the broker runs inside cdc run"})
	default:
		reachable = false
		found = append(found, fault("", err, "Start the broker, or correct kafka.brokers (and kafka.tls, kafka.sasl) in the configuration."))
	}
	for _, name := range cfg.PipelineNames() {
		p := cfg.Pipelines[name]
		found = append(found, checkPipeline(ctx, cfg, p, sc, reachable)...)
	}
	return found
}

func checkPipeline(ctx context.Context, cfg *config.Config, p *config.Pipeline, sc sink.Config, reachable bool) []finding {
	from := sourceConfig(cfg, p, discard())
	var found []finding
	if p.Mode == config.ModeEvents {
		from = eventlog.SourceConfig(from)
		if found = checkEvents(ctx, cfg, p); len(found) > 0 && found[0].Result == "error" {
			return found // without a store there is nothing to look at
		}
	}
	found = append(found, checkSource(ctx, p.Name, from)...)
	if !reachable {
		return found
	}
	_, steps, err := planTopics(ctx, cfg, p, sc, false)
	if err != nil {
		// The same table, or the same Postgres, may have been at fault above.
		known := slices.ContainsFunc(found, func(f finding) bool { return f.Result == "error" })
		if f := fault(p.Name, err, ""); !slices.Contains(found, f) && (cdc.IsTerminal(err) || !known) {
			found = append(found, f)
		}
		return found
	}
	return append(found, finding{Pipeline: p.Name, Result: "ok", What: describeSteps(steps)})
}

// checkEvents looks at the event store and at what the configuration defines in it.
// Where the store itself is at fault that is the first finding.
func checkEvents(ctx context.Context, cfg *config.Config, p *config.Pipeline) []finding {
	store, err := eventstore.Open(ctx, eventstore.Config{URL: cfg.PostgresFor(p).URL, Logger: discard()})
	if err != nil {
		return []finding{fault(p.Name, err, "Start Postgres, or correct postgres.url in the configuration.")}
	}
	defer store.Close()
	found := []finding{{Pipeline: p.Name, Result: "ok", What: fmt.Sprintf("schema es is of version %d", eventstore.Version)}}
	faults, err := eventpipe.Check(ctx, store, p.Definitions())
	for _, f := range faults {
		found = append(found, finding{Pipeline: p.Name, Result: "error", What: f.Path + ": " + f.Text, Mend: "Correct it in the configuration."})
	}
	switch {
	case err != nil:
		found = append(found, fault(p.Name, err, ""))
	case len(faults) == 0:
		found = append(found, finding{Pipeline: p.Name, Result: "ok", What: "event types, folds, views and reactions can be installed as they are defined"})
	}
	return found
}

func checkSource(ctx context.Context, name string, sc source.Config) []finding {
	src, err := source.Open(ctx, sc)
	if err != nil {
		return []finding{fault(name, err, "Start Postgres, or correct postgres.url in the configuration.")}
	}
	defer func() { _ = src.Close() }()
	var found []finding
	for _, f := range src.Check(ctx) {
		result := "ok"
		if !f.OK {
			result = string(f.Level)
		}
		found = append(found, finding{Pipeline: name, Result: result, What: f.What, Mend: f.Mend})
	}
	return found
}

// describeSteps tells what a start will do to the topics.
func describeSteps(steps []compaction.Step) string {
	created, configured := 0, 0
	for _, s := range steps {
		if s.Kind == compaction.StepCreate {
			created++
		} else {
			configured++
		}
	}
	switch {
	case created+configured == 0:
		return "the topics are in order"
	case configured == 0:
		return fmt.Sprintf("%d topics will be created at the start", created)
	}
	return fmt.Sprintf("%d topics will be created and %d configured at the start; cdc topics shows how", created, configured)
}

// fault is an error as a finding; unless the error itself says what mends it,
// mend does.
func fault(name string, err error, mend string) finding {
	f := finding{Pipeline: name, Result: "error", What: plainError(err), Mend: mend}
	var t *cdc.TerminalError
	if errors.As(err, &t) {
		f.Mend = t.Mend
	}
	return f
}

func writeFindings(w io.Writer, found []finding) error {
	for _, f := range found {
		where := ""
		if f.Pipeline != "" {
			where = f.Pipeline + ": "
		}
		if _, err := fmt.Fprintf(w, "%-8s %s%s\n", f.Result, where, indent(f.What)); err != nil {
			return err
		}
		if f.Result != "ok" && f.Mend != "" {
			if _, err := fmt.Fprintf(w, "         %s\n", indent(f.Mend)); err != nil {
				return err
			}
		}
	}
	return nil
}

func indent(s string) string { return strings.ReplaceAll(s, "\n", "\n         ") }
