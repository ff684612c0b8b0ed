package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"cdc/internal/pgserver"
)

func newDemoPostgresCommand() *cobra.Command {
	var o pgserver.Options
	cmd := &cobra.Command{
		Use:   "postgres",
		Short: "Start a private PostgreSQL to try things with, until Ctrl-C",
		Long: `Postgres starts a PostgreSQL with logical replication on, on this machine alone and without a password. It finds the server
programs or fetches them. Its data stay in --dir.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			o.Notice = cmd.ErrOrStderr()
			o.Settings = map[string]string{"max_prepared_transactions": "20"} // for views in two databases
			s, err := pgserver.Start(cmd.Context(), o)
			if err != nil {
				return environmentError("%w", err)
			}
			defer func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), stopPostgres)
				defer cancel()
				err = errors.Join(err, s.Stop(ctx, "fast"))
			}()
			fmt.Fprintf(cmd.OutOrStdout(), "PostgreSQL %d in %s: %s\n", s.Version(), s.Dir(), s.URL("postgres"))
			select {
			case <-cmd.Context().Done():
				return nil
			case <-s.Done():
				return environmentError("PostgreSQL ended by itself")
			}
		},
	}
	cmd.Flags().StringVar(&o.Dir, "dir", "cdc-postgres", "data directory")
	cmd.Flags().IntVar(&o.Port, "port", 54321, "port on 127.0.0.1")
	cmd.Flags().StringVar(&o.Programs, "programs", "", "folder of PostgreSQL's server programs (default found, else fetched)")
	return cmd
}

// stopPostgres bounds the shutdown, its checkpoint included.
const stopPostgres = 30 * time.Second
