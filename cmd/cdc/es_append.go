package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"cdc/internal/config"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

func newEsAppendCommand(f *eventsFlags) *cobra.Command {
	var id, expect, meta, actor, correlation, causation string
	cmd := &cobra.Command{
		Use:   "append STREAM TYPE DATA",
		Short: "Append one event to a stream",
		Long: `Append adds one event; DATA is a JSON object, or - for standard input. Appending the same --id again changes nothing and
answers as the first time. The token it prints waits for views: cdc views wait VIEW TOKEN.`,
		Example: `  cdc es append course/ddia student-enrolled '{"course":"ddia","student":"ada"}' --expect none --actor ada`,
		Args:    cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			e := intent.NewEvent{ID: intent.NewID(), Type: args[1], Data: json.RawMessage(args[2])}
			if args[2] == "-" {
				data, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxEventInput+1))
				if err != nil {
					return fmt.Errorf("read DATA: %w", err)
				}
				if len(data) > maxEventInput {
					return usageError("DATA on standard input is larger than %s", size(maxEventInput))
				}
				e.Data = data
			}
			if !json.Valid(e.Data) {
				return usageError("DATA is not JSON: write an object, as in '{\"course\":\"ddia\"}'")
			}
			if id != "" {
				var err error
				if e.ID, err = intent.ParseID(id); err != nil {
					return usageError("--id: %w", err)
				}
			}
			expected, err := intent.ParseExpect(expect)
			if err != nil {
				return usageError("--expect: %w", err)
			}
			if e.Meta, err = metaOf(meta, actor, correlation, causation); err != nil {
				return err
			}
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, _ *config.Config, _ *config.Pipeline) error {
				r, err := s.Append(ctx, []intent.Batch{{Stream: args[0], Expect: expected, Events: []intent.NewEvent{e}}})
				if err != nil {
					return err
				}
				return f.print(cmd, r, func(w io.Writer) error {
					note := ""
					if r.Duplicate {
						note = ", stored already"
					}
					for _, v := range r.Streams {
						fmt.Fprintf(w, "%s is at version %d%s\n", v.Stream, v.Version, note)
					}
					_, err := fmt.Fprintf(w, "token %s\n", r.Token)
					return err
				})
			})
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "the event's id, a UUID (default a new one)")
	cmd.Flags().StringVar(&expect, "expect", "any", "version the stream must have: a number, none, some or any")
	cmd.Flags().StringVar(&meta, "meta", "", "further metadata, a JSON object")
	cmd.Flags().StringVar(&actor, "actor", "", "who does it")
	cmd.Flags().StringVar(&correlation, "correlation", "", "what it all belongs to")
	cmd.Flags().StringVar(&causation, "causation", "", "id of the event it follows from")
	return cmd
}

// maxEventInput bounds what is read from standard input: the largest event that
// max_event allows, and some.
const maxEventInput = 64 << 20

func metaOf(meta, actor, correlation, causation string) (json.RawMessage, error) {
	m := map[string]json.RawMessage{}
	if meta != "" {
		if err := json.Unmarshal([]byte(meta), &m); err != nil {
			return nil, usageError("--meta is not a JSON object: %w", err)
		}
	}
	for key, v := range map[string]string{intent.MetaActor: actor, intent.MetaCorrelation: correlation, intent.MetaCausation: causation} {
		if v != "" {
			text, err := json.Marshal(v)
			if err != nil {
				return nil, fmt.Errorf("encode metadata: %w", err)
			}
			m[key] = text
		}
	}
	if len(m) == 0 {
		return nil, nil
	}
	return json.Marshal(m)
}

func newEsCloseCommand(f *eventsFlags) *cobra.Command {
	var expect string
	cmd := &cobra.Command{
		Use:   "close STREAM",
		Short: "Close a stream: nothing can be appended to it any more",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			expected, err := intent.ParseExpect(expect)
			if err != nil {
				return usageError("--expect: %w", err)
			}
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, _ *config.Config, _ *config.Pipeline) error {
				if err := s.CloseStream(ctx, args[0], expected); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is closed\n", args[0])
				return err
			})
		},
	}
	cmd.Flags().StringVar(&expect, "expect", "any", "version the stream must have: a number, none, some or any")
	return cmd
}
