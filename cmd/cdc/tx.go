package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"cdc/internal/cdc"
	"cdc/internal/config"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/pipeline"
	"cdc/internal/sink"
)

// action is one transaction, seen through both lenses, as `cdc tx -o json` prints it.
type action struct {
	Tx      uint32         `json:"tx"`
	LSN     cdc.LSN        `json:"lsn"` // start of its commit record
	Intents []intent.Event `json:"intents"`
	Rows    []rowChange    `json:"rows"`
}

// rowChange is a record of a compacted topic that the transaction wrote.
type rowChange struct {
	Topic    string       `json:"topic"`
	Position cdc.Position `json:"-"`
	Op       string       `json:"op"`
	Key      string       `json:"key"`
	Value    *string      `json:"value"` // null: a tombstone
}

// clockSlack is how far the clocks of Postgres and of a record's timestamp are
// trusted to agree.
const clockSlack = time.Minute

func newTxCommand(g *globals) *cobra.Command {
	f := &eventsFlags{g}
	return &cobra.Command{
		Use:   "tx ID",
		Short: "Show one transaction as what was meant and as the rows it changed",
		Long: `Tx shows the intents a transaction appended, and the records its row changes became in the compacted topics of this
configuration. ID is an event's id, a transaction id (header tx of every record), or position:N of the log.

Compaction removes a record once a later one of its key has come: what is shown of an old transaction is what is left.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, cfg *config.Config, _ *config.Pipeline) (err error) {
				a, err := lookUp(ctx, s, args[0])
				if err != nil {
					return err
				}
				sc, done, err := reach(ctx, cfg, false)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, done()) }()
				client, err := sink.Dial(ctx, sc)
				if err != nil {
					return environmentError("%w", err)
				}
				defer client.Close()
				if a.Rows, err = rowsOf(ctx, client, cfg, sc, a); err != nil {
					return err
				}
				return g.print(cmd, a, func(w io.Writer) error { return writeAction(ctx, w, s, a) })
			})
		},
	}
}

// lookUp finds the intents of a transaction.
func lookUp(ctx context.Context, s *eventstore.Store, id string) (*action, error) {
	var first *intent.Event
	if position, ok := strings.CutPrefix(id, "position:"); ok {
		n, err := strconv.ParseInt(position, 10, 64)
		if err != nil || n < 1 {
			return nil, usageError("%q: positions are numbers from 1", id)
		}
		_, err = s.Log(ctx, n-1, 1, nil, func(e *intent.Event) error { c := *e; first = &c; return nil })
		if err != nil {
			return nil, err
		}
		if first == nil || first.Position != n {
			return nil, refused("the log has no position %d yet", n)
		}
	} else if event, err := intent.ParseID(id); err == nil {
		if first, err = s.Event(ctx, event); err != nil {
			return nil, err
		}
		if first.Position == 0 {
			return nil, environmentError("event %s is not numbered yet: is cdc run running?", event)
		}
	}
	var tx uint32
	if first != nil {
		tx = first.Tx
	} else {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, usageError("%q is no event's id, no transaction id and no position:N", id)
		}
		tx = uint32(n)
	}
	events, err := s.EventsOfTx(ctx, tx)
	if err != nil {
		return nil, err
	}
	// Transaction ids come round again after four billion: the newest is meant,
	// unless an event says which.
	if first == nil && len(events) > 0 {
		first = &events[len(events)-1]
	}
	if first == nil {
		return nil, refused("transaction %d appended no event: cdc tail shows the records of row changes alone", tx)
	}
	events = slices.DeleteFunc(events, func(e intent.Event) bool { return e.LSN != first.LSN })
	return &action{Tx: tx, LSN: first.LSN, Intents: events}, nil
}

// rowsOf finds the records the transaction became, by the position every record
// carries: its first part is the start of the commit record.
func rowsOf(ctx context.Context, c *sink.Client, cfg *config.Config, sc sink.Config, a *action) ([]rowChange, error) {
	var tps []cdc.TopicPartition
	for _, name := range cfg.PipelineNames() {
		p := cfg.Pipelines[name]
		if p.Mode != "cdc" {
			continue
		}
		specs, _, err := pipeline.Topics(ctx, pipelineConfig(cfg, p, sc, discard()), false)
		if err != nil {
			return nil, fmt.Errorf("pipeline %s: %w", name, err)
		}
		for _, s := range specs {
			if s.Policy != cdc.PolicyState {
				continue
			}
			for i := range s.Partitions {
				tps = append(tps, cdc.TopicPartition{Topic: s.Name, Partition: int32(i)})
			}
		}
	}
	tps, err := existing(ctx, c, tps)
	if err != nil || len(tps) == 0 {
		return nil, err
	}
	since, err := c.OffsetsSince(ctx, tps, a.Intents[0].At.Add(-clockSlack).UnixMilli())
	if err != nil {
		return nil, err
	}
	_, end, err := c.Offsets(ctx, tps)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var rows []rowChange
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readersAtOnce)
	for _, tp := range tps {
		group.Go(func() error {
			err := c.ReadAll(ctx, tp, since[tp], end[tp], func(m *sink.Message) error {
				s, ok, err := m.Stamp()
				switch {
				case err != nil || !ok || s.Position.Tx < a.LSN:
					return err
				case s.Position.Tx > a.LSN: // positions ascend
					return errPassed
				}
				r := rowChange{Topic: tp.Topic, Position: s.Position, Key: string(m.Key), Op: opOf(m)}
				if m.Value != nil {
					v := string(m.Value)
					r.Value = &v
				}
				mu.Lock()
				defer mu.Unlock()
				rows = append(rows, r)
				return nil
			})
			if errors.Is(err, errPassed) {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(rows, func(a, b rowChange) int { return a.Position.Compare(b.Position) })
	return rows, nil
}

// readersAtOnce bounds the partitions read at a time: each takes a connection.
const readersAtOnce = 16

// errPassed ends the reading of a partition behind the transaction.
var errPassed = errors.New("behind the transaction")

// existing leaves out partitions of topics that are not there.
func existing(ctx context.Context, c *sink.Client, tps []cdc.TopicPartition) ([]cdc.TopicPartition, error) {
	var names []string
	for _, tp := range tps {
		if len(names) == 0 || names[len(names)-1] != tp.Topic {
			names = append(names, tp.Topic)
		}
	}
	states, err := c.Topics(ctx, names...)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(tps, func(tp cdc.TopicPartition) bool { return int(tp.Partition) >= states[tp.Topic].Partitions }), nil
}

// opOf is what a record did to its row.
func opOf(m *sink.Message) string {
	for _, h := range m.Headers {
		if h.Key == "op" {
			switch string(h.Value) {
			case "c":
				return "insert"
			case "u":
				return "update"
			case "d":
				return "delete"
			case "t":
				return "truncate"
			}
			return string(h.Value)
		}
	}
	if m.Value == nil {
		return "delete"
	}
	return "upsert"
}

func writeAction(ctx context.Context, w io.Writer, s *eventstore.Store, a *action) error {
	fmt.Fprintf(w, "transaction %d, committed at %s\n\nwhat was meant\n", a.Tx, a.LSN)
	tale := story{s}
	for i := range a.Intents {
		if err := tale.write(ctx, w, &a.Intents[i]); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "\nwhat it did to rows\n")
	if len(a.Rows) == 0 {
		_, err := fmt.Fprintln(w, "    nothing that the topics of this configuration still hold")
		return err
	}
	for _, r := range a.Rows {
		value := "(tombstone)"
		if r.Value != nil {
			value = *r.Value
		}
		if _, err := fmt.Fprintf(w, "%-8s %s  %s\n    %s\n", r.Op, r.Topic, r.Key, value); err != nil {
			return err
		}
	}
	return nil
}
