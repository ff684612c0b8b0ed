package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"cdc/internal/pipeline"
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
			cfg, log, err := g.load(cmd)
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
				specs, steps, err := pipeline.Topics(cmd.Context(), pipelineConfig(cfg, cfg.Pipelines[name], sc, log), apply)
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
