package main

import (
	"github.com/spf13/cobra"
)

func newRunCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the pipelines of a configuration until a signal ends them",
		Long: `Run starts every pipeline of the configuration and serves health, metrics and status at admin.listen.
SIGTERM or SIGINT stops in order within 10 seconds: what was read is acknowledged by Kafka, recorded, and confirmed to Postgres.
A pipeline that fails for good leaves the others running; the process ends when none is left, with 1 if one failed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, log, err := g.load(cmd)
			if err != nil {
				return err
			}
			return runDaemon(cmd.Context(), cfg, log, cmd.ErrOrStderr())
		},
	}
}
