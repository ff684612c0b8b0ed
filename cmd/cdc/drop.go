package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cdc/internal/pipeline"
)

func newDropCommand(g *globals) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "drop PIPELINE",
		Short: "Remove a pipeline's slot, publication and progress; its topics stay",
		Long: `Drop removes what a pipeline keeps beside its topics: the replication slot, the publication and the progress topic.
Afterwards the slot holds no WAL any more. The next start of a pipeline of rows copies the tables again, and keys that are
gone by then are tombstoned; that of a pipeline of events numbers what came meanwhile and writes what the topics lack: the
store itself, schema es, is not touched. The pipeline must not be running.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			cfg, log, err := g.load(cmd)
			if err != nil {
				return err
			}
			p := cfg.Pipelines[args[0]]
			if p == nil {
				return usageError("no pipeline %q in the configuration; it has %s", args[0], strings.Join(cfg.PipelineNames(), ", "))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "drop slot %q, publication %q and topic %q\n", p.Slot.Name, p.Publication, p.ProgressTopic)
			if !yes && !confirmed(cmd) {
				return fmt.Errorf("nothing was dropped: answer yes, or give --yes")
			}
			sc, done, err := reach(cmd.Context(), cfg, true)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			if err := pipeline.Drop(cmd.Context(), pipelineConfig(cfg, p, sc, log)); err != nil {
				return surroundings(err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "dropped")
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// confirmed asks on the terminal; anything but yes is a no.
func confirmed(cmd *cobra.Command) bool {
	fmt.Fprint(cmd.OutOrStdout(), "go on? [yes/no] ")
	answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	return err == nil && strings.TrimSpace(answer) == "yes"
}
