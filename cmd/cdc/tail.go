package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"cdc/internal/cdc"
	"cdc/internal/sink"
)

// tailLine is one record as `cdc tail -o json` prints it.
type tailLine struct {
	Topic     string            `json:"topic"`
	Partition int32             `json:"partition"`
	Offset    int64             `json:"offset"`
	Time      time.Time         `json:"time"`
	Position  string            `json:"position,omitempty"`
	Key       string            `json:"key"`
	Value     *string           `json:"value"` // null: a tombstone
	Headers   map[string]string `json:"headers,omitempty"`
}

func newTailCommand(g *globals) *cobra.Command {
	var fromBeginning, follow bool
	cmd := &cobra.Command{
		Use:   "tail TOPIC",
		Short: "Print the records of a topic as they come",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			cfg, _, err := g.load(cmd)
			if err != nil {
				return err
			}
			sc, done, err := reach(cmd.Context(), cfg, false)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			client, err := sink.Dial(cmd.Context(), sc)
			if err != nil {
				return environmentError("%w", err)
			}
			defer client.Close()
			return tail(cmd.Context(), client, args[0], fromBeginning, follow, func(l tailLine) error {
				return g.printLine(cmd, l, func(w io.Writer) error { return writeTail(w, l) })
			})
		},
	}
	cmd.Flags().BoolVar(&fromBeginning, "from-beginning", false, "start with the oldest record instead of the next one")
	cmd.Flags().BoolVarP(&follow, "follow", "f", true, "go on when the end is reached; --follow=false stops there")
	return cmd
}

// tail prints what stands in the partitions of a topic from their start or end
// on; records of one partition in order, of different ones as they come.
func tail(ctx context.Context, c *sink.Client, topic string, fromBeginning, follow bool, print func(tailLine) error) error {
	states, err := c.Topics(ctx, topic)
	if err != nil {
		return err
	}
	n := states[topic].Partitions
	if n == 0 {
		return fmt.Errorf("topic %q does not exist", topic)
	}
	tps := make([]cdc.TopicPartition, n)
	for i := range tps {
		tps[i] = cdc.TopicPartition{Topic: topic, Partition: int32(i)}
	}
	starts, ends, err := c.Offsets(ctx, tps)
	if err != nil {
		return err
	}
	lines := make(chan tailLine)
	group, ctx := errgroup.WithContext(ctx)
	var readers errgroup.Group
	for _, tp := range tps {
		from := ends[tp]
		if fromBeginning {
			from = starts[tp]
		}
		readers.Go(func() error { return tailPartition(ctx, c, tp, from, ends[tp], follow, lines) })
	}
	group.Go(func() error {
		defer close(lines)
		return readers.Wait()
	})
	group.Go(func() error {
		for l := range lines {
			if err := print(l); err != nil {
				return err
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func tailPartition(ctx context.Context, c *sink.Client, tp cdc.TopicPartition, from, end int64, follow bool, lines chan<- tailLine) error {
	send := func(m *sink.Message) error {
		select {
		case lines <- lineOf(tp, m):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if !follow {
		return c.ReadAll(ctx, tp, from, end, send)
	}
	r := c.NewReader(tp, from)
	defer func() { _ = r.Close() }()
	for {
		m, err := r.Next(ctx)
		if err != nil {
			return err
		}
		if err := send(m); err != nil {
			return err
		}
	}
}

func lineOf(tp cdc.TopicPartition, m *sink.Message) tailLine {
	l := tailLine{Topic: tp.Topic, Partition: tp.Partition, Offset: m.Offset, Time: time.UnixMilli(m.Time).UTC(), Key: string(m.Key)}
	if m.Value != nil {
		v := string(m.Value)
		l.Value = &v
	}
	for _, h := range m.Headers {
		if h.Key == cdc.StampHeader {
			if s, err := cdc.ParseStamp(h.Value); err == nil {
				l.Position = s.Position.String()
				continue
			}
		}
		if l.Headers == nil {
			l.Headers = map[string]string{}
		}
		if utf8.Valid(h.Value) {
			l.Headers[h.Key] = string(h.Value)
		} else {
			l.Headers[h.Key] = fmt.Sprintf("%x", h.Value)
		}
	}
	return l
}

func writeTail(w io.Writer, l tailLine) error {
	value := "(tombstone)"
	if l.Value != nil {
		value = *l.Value
	}
	_, err := fmt.Fprintf(w, "%d/%d\t%s\t%s\t%s\n", l.Partition, l.Offset, l.Time.Format("15:04:05.000"), l.Key, value)
	return err
}
