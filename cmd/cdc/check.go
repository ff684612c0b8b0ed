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
	"cdc/internal/pipeline"
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
		ofSource := checkSource(ctx, name, sourceConfig(cfg, p, quiet))
		found = append(found, ofSource...)
		if !reachable {
			continue
		}
		_, steps, err := pipeline.Topics(ctx, pipelineConfig(cfg, p, sc, quiet), false)
		if err != nil {
			// The same table, or the same Postgres, may have been at fault above.
			known := slices.ContainsFunc(ofSource, func(f finding) bool { return f.Result == "error" })
			if f := fault(name, err, ""); !slices.Contains(ofSource, f) && (cdc.IsTerminal(err) || !known) {
				found = append(found, f)
			}
			continue
		}
		found = append(found, finding{Pipeline: name, Result: "ok", What: describeSteps(steps)})
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
