// Command bench measures cdc. Mode cdc against pg_recvlogical, PostgreSQL's own
// client, on the same WAL: rows per second, CPU and memory, with the rows discarded,
// in the embedded broker and in Apache Kafka. Mode events against a bare INSERT:
// appends, views, numbering, publication, memory. See docs/PERFORMANCE.md.
//
// It starts everything it needs: a private PostgreSQL cluster, the embedded
// broker and Apache Kafka in processes of their own, and itself once more for
// every measured run, so that CPU and peak memory are that run's alone. Times
// are printed, never asserted: the exit status is 0 unless a run fails or rows
// are missing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	what    []string // of rows, events
	work    workload
	sizes   eventSizes
	figures []string // of eventFigures
	rounds  int
	readers []string // of discard, embedded, kafka
	formats []string
	kafka   string // version of Apache Kafka, "" for none
	major   string // major version, "" for the one installed
	stream  int    // rows of the transaction of the memory run, 0: not run
	copied  int    // rows of the table of the memory run, 0: not run
	profile string // directory for CPU profiles, "" for none
}

// What can be measured.
const (
	whatRows   = "rows"   // mode: cdc
	whatEvents = "events" // mode: events
)

// sinks are the sinks that can be measured.
var sinks = []string{sinkDiscard, sinkEmbedded, sinkKafka}

func parseOptions(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	what := f.String("what", whatRows+","+whatEvents, "what is measured")
	f.IntVar(&o.work.inserts, "inserts", 300_000, "rows inserted by one transaction")
	f.IntVar(&o.work.updates, "updates", 150_000, "rows updated by one transaction, at most -inserts")
	f.IntVar(&o.work.single, "single", 50_000, "transactions that update one row each")
	f.IntVar(&o.rounds, "rounds", 3, "times every reader reads all of it, in turn")
	sinkNames := f.String("sinks", strings.Join(sinks, ","), "what cdc writes to; empty leaves the rounds out")
	formats := f.String("formats", "json,debezium-json", "what it writes")
	f.StringVar(&o.kafka, "kafka", "4.4.0", "version of Apache Kafka; empty does without")
	f.StringVar(&o.major, "pg", "", "major version of PostgreSQL; empty takes the newest installed")
	f.IntVar(&o.stream, "transaction", 2_000_000, "rows of the transaction that is streamed for its peak of memory; 0 leaves it out")
	f.IntVar(&o.copied, "copy", 5_000_000, "rows of the table that is copied for its peak of memory; 0 leaves it out")
	f.StringVar(&o.profile, "profile", "", "directory for a CPU profile of every run of cdc")
	figures := f.String("figures", strings.Join(eventFigures, ","), "events: which figures are taken")
	f.IntVar(&o.sizes.turns, "turns", 10, "events: turns that each way to append has")
	f.DurationVar(&o.sizes.turn, "turn", time.Second, "events: how long a turn is")
	f.IntVar(&o.sizes.commits, "commits", 150_000, "events: transactions of one event to be numbered")
	f.IntVar(&o.sizes.events, "events", 450_000, "events: further events of the log that is numbered, followed by views and published")
	f.IntVar(&o.sizes.timed, "timed", 1000, "events: appends whose way to a reader of the topic is timed")
	f.IntVar(&o.sizes.rebuilt, "rebuild", 1_000_000, "events: events of the log whose rebuild is looked at for memory; 0 leaves it out")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.what, o.readers, o.formats, o.figures = split(*what), split(*sinkNames), split(*formats), split(*figures)
	if o.kafka == "" {
		o.readers = slices.DeleteFunc(o.readers, func(s string) bool { return s == sinkKafka })
	}
	return o, o.validate(f.Args())
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

func (o *options) validate(rest []string) error {
	switch w := o.work; {
	case len(rest) > 0:
		return fmt.Errorf("argument %q: there are flags only", rest[0])
	case w.inserts < 1 || w.updates < 0 || w.single < 1 || w.updates > w.inserts:
		return errors.New("-inserts and -single must be positive, and -updates not more than -inserts")
	case o.rounds < 1:
		return errors.New("-rounds must be positive")
	case o.stream < 0 || o.copied < 0:
		return errors.New("-transaction and -copy must not be negative")
	}
	if len(o.what) == 0 {
		return errors.New("-what must name one at least")
	}
	for _, s := range o.what {
		if s != whatRows && s != whatEvents {
			return fmt.Errorf("-what %q: want some of %s,%s", s, whatRows, whatEvents)
		}
	}
	for _, s := range o.readers {
		if !slices.Contains(sinks, s) {
			return fmt.Errorf("-sinks %q: want some of %s", s, strings.Join(sinks, ","))
		}
	}
	if len(o.formats) == 0 {
		return errors.New("-formats must name one at least")
	}
	for _, s := range o.formats {
		if s != "json" && s != "debezium-json" {
			return fmt.Errorf("-formats %q: want json or debezium-json", s)
		}
	}
	for _, s := range o.figures {
		if !slices.Contains(eventFigures, s) {
			return fmt.Errorf("-figures %q: want some of %s", s, strings.Join(eventFigures, ","))
		}
	}
	return o.sizes.validate()
}

func main() {
	if kind := os.Getenv(childVariable); kind != "" {
		os.Exit(childMain(kind))
	}
	o, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	for _, part := range []struct {
		what string
		run  func(context.Context, options, io.Writer, io.Writer) error
	}{{whatRows, run}, {whatEvents, runEvents}} {
		if err == nil && slices.Contains(o.what, part.what) {
			err = part.run(ctx, o, os.Stdout, os.Stderr)
		}
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
