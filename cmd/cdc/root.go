package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"cdc/internal/cdc"
	"cdc/internal/config"
)

// The exit codes; scripts depend on them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2 // the command line or the configuration
	exitEnvironment = 3 // something around the process is missing or not ready
	exitDifference  = 4 // a check or verification found a difference
)

// exitError is an error that says which code the process ends with.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usageError is a fault of the command line (%w works).
func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// environmentError is something missing or not ready around the process (%w works).
func environmentError(format string, args ...any) error {
	return &exitError{exitEnvironment, fmt.Errorf(format, args...)}
}

// surroundings gives an error of Postgres or Kafka its exit code: one that trying
// again may mend is about what is around the process.
func surroundings(err error) error {
	if err == nil || cdc.IsTerminal(err) {
		return err
	}
	return environmentError("%w", err)
}

// exitCode is what the process ends with after err.
func exitCode(err error) int {
	var e *exitError
	var c *config.Error
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &e):
		return e.code
	case errors.As(err, &c):
		return exitUsage
	}
	return exitFailed
}

// globals are the flags every command has.
type globals struct {
	config string
	output output
	// running: the command line was understood. An error from before is one of usage.
	running bool
}

// output is the value of -o.
type output string

const (
	outputTable output = "table"
	outputJSON  output = "json"
)

// String, Set and Type implement pflag.Value.
func (o *output) String() string { return string(*o) }

// Type is what help shows for the value.
func (o *output) Type() string { return "table|json" }

// Set takes the forms there are.
func (o *output) Set(s string) error {
	if v := output(s); v == outputTable || v == outputJSON {
		*o = v
		return nil
	}
	return errors.New("write table or json")
}

// execute runs a command line and returns the exit code. Results go to out,
// errors and the log to errOut.
func execute(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	g := &globals{output: outputTable}
	root := newRootCommand(g)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !g.running {
		err = usageError("%w\nsee %s --help", err, cmd.CommandPath())
	}
	if err != nil {
		fmt.Fprintln(errOut, describeError(err))
	}
	return exitCode(err)
}

// describeError is what a person reads. The faults of a configuration begin with
// file and line, so that editors find them: nothing is put before them.
func describeError(err error) string {
	var c *config.Error
	if errors.As(err, &c) {
		return c.Error()
	}
	return "cdc: " + strings.TrimSpace(err.Error())
}

func newRootCommand(g *globals) *cobra.Command {
	root := &cobra.Command{
		Use:   "cdc",
		Short: "Postgres rows and events to Kafka, exactly once",
		Long: `cdc reads PostgreSQL's logical replication stream and keeps two kinds of log in Kafka: tables, as compacted topics whose
latest record of each key is the row, and events, which say what somebody meant to do and are kept for ever.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 environment, 4 a check or verification found a difference.`,
		SilenceUsage:  true,
		SilenceErrors: true, // execute prints them, once
		// Runs when flags and arguments are understood, before every command.
		PersistentPreRun: func(*cobra.Command, []string) { g.running = true },
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&g.config, "config", "c", "cdc.yaml", "configuration file; config.example.yaml has every key")
	flags.VarP(&g.output, "output", "o", "form of results")
	_ = root.RegisterFlagCompletionFunc("output", // fails only for a flag that does not exist
		cobra.FixedCompletions([]string{string(outputTable), string(outputJSON)}, cobra.ShellCompDirectiveNoFileComp))
	demo := newDemoCommand(g)
	demo.AddCommand(newDemoPostgresCommand())
	root.AddCommand(
		newRunCommand(g), demo, newCheckCommand(g), newStatusCommand(g), newTopicsCommand(g),
		newTailCommand(g), newSnapshotCommand(g), newVerifyCommand(g), newRepairCommand(g), newEsCommand(g), newViewsCommand(g), newTxCommand(g), newDropCommand(g), newVersionCommand(g),
	)
	return root
}

// load reads the configuration and makes the logger it asks for, which writes to
// standard error.
func (g *globals) load(cmd *cobra.Command) (*config.Config, *slog.Logger, error) {
	cfg, err := config.Load(g.config)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, usageError("%w; name the file with --config, or write one from config.example.yaml", err)
	}
	if err != nil {
		return nil, nil, usageError("%w", err)
	}
	return cfg, newLogger(cmd.ErrOrStderr(), cfg.Log), nil
}

func newLogger(w io.Writer, c config.Log) *slog.Logger {
	opts := &slog.HandlerOptions{}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err == nil { // config allows slog's names alone
		opts.Level = level
	}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// print writes a result to standard output: v as JSON, or what table writes.
func (g *globals) print(cmd *cobra.Command, v any, table func(io.Writer) error) error {
	if g.output != outputJSON {
		return table(cmd.OutOrStdout())
	}
	return encodeJSON(cmd.OutOrStdout(), v, "  ")
}

// printLine writes one of many results: v as one line of JSON, or what table writes.
func (g *globals) printLine(cmd *cobra.Command, v any, table func(io.Writer) error) error {
	if g.output != outputJSON {
		return table(cmd.OutOrStdout())
	}
	return encodeJSON(cmd.OutOrStdout(), v, "")
}

// discard is the logger of commands that print what they do themselves.
func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func encodeJSON(w io.Writer, v any, indent string) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // for terminals and jq, not for browsers
	enc.SetIndent("", indent)
	return enc.Encode(v)
}
