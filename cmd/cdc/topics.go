package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
	"cdc/internal/config"
	"cdc/internal/eventpipe"
	"cdc/internal/eventstore"
	"cdc/internal/history"
	"cdc/internal/pipeline"
	"cdc/internal/sink"
)

// topicPlan is the plan of one topic, as `cdc topics -o json` prints it.
type topicPlan struct {
	Pipeline   string `json:"pipeline"`
	Topic      string `json:"topic"`
	Policy     string `json:"policy"`
	Partitions int    `json:"partitions"`
	Step       string `json:"step"` // what is to be done; "" when the topic is as it must be
	Applied    bool   `json:"applied"`
}

func newTopicsCommand(g *globals) *cobra.Command {
	var apply bool
	cmd := &cobra.Command{
		Use:   "topics",
		Short: "Show what the pipelines' topics must be, and bring them there",
		Long: `Topics compares every topic of the configured pipelines with what it must be: partitions, cleanup policy, retention.
It prints what is to be done and changes nothing; --apply does it. A topic that cannot be brought in order without risk
to its records is refused, with the reason and the command that mends it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			cfg, _, err := g.load(cmd)
			if err != nil {
				return err
			}
			sc, done, err := reach(cmd.Context(), cfg, apply)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			var plans []topicPlan
			for _, name := range cfg.PipelineNames() {
				specs, steps, err := planTopics(cmd.Context(), cfg, cfg.Pipelines[name], sc, apply)
				if err != nil {
					return surroundings(fmt.Errorf("pipeline %s: %w", name, err))
				}
				todo := map[string]string{}
				for _, s := range steps {
					todo[s.Topic.Name] = s.String()
				}
				for _, s := range specs {
					plans = append(plans, topicPlan{
						Pipeline: name, Topic: s.Name, Policy: s.Policy.String(), Partitions: s.Partitions,
						Step: todo[s.Name], Applied: apply && todo[s.Name] != "",
					})
				}
			}
			return g.print(cmd, plans, func(w io.Writer) error { return writeTopics(w, plans) })
		},
	}
	cmd.Flags().BoolVar(&apply, "apply", false, "carry the steps out")
	return cmd
}

// planTopics plans the topics of a pipeline of either mode, and with apply brings
// them in order.
func planTopics(ctx context.Context, cfg *config.Config, p *config.Pipeline, sc sink.Config, apply bool) ([]cdc.TopicSpec, []compaction.Step, error) {
	if p.Mode == config.ModeCDC {
		return pipeline.Topics(ctx, pipelineConfig(cfg, p, sc, discard()), apply)
	}
	store, err := eventstore.Open(ctx, eventstore.Config{URL: cfg.PostgresFor(p).URL, Logger: discard()})
	if err != nil {
		return nil, nil, err
	}
	defer store.Close()
	hc, err := eventpipe.Publication(ctx, store, eventsConfig(cfg, p, sc, discard()))
	if err != nil {
		return nil, nil, err
	}
	return history.Topics(ctx, hc, apply)
}

func writeTopics(w io.Writer, plans []topicPlan) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "PIPELINE\tTOPIC\tPOLICY\tPARTITIONS\tSTEP")
	for _, p := range plans {
		step := p.Step
		switch {
		case step == "":
			step = "in order"
		case p.Applied:
			step = "done: " + step
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%s\n", p.Pipeline, p.Topic, p.Policy, p.Partitions, step)
	}
	return tw.Flush()
}
