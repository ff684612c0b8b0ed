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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"cdc/internal/cdctest"
)

func main() {
	cdctest.ServeBroker()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := suite(ctx, os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	case !ok:
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	seeds    int
	from     uint64
	seed     uint64
	kafka    []string
	jobs     int
	shrink   bool
	sabotage string
	verbose  bool
	limits   limits
}

func parseOptions(args []string) (options, error) {
	var o options
	var kafka, faults string
	f := flag.NewFlagSet("crash", flag.ContinueOnError)
	f.IntVar(&o.seeds, "seeds", 100, "how many seeds to run")
	f.Uint64Var(&o.from, "from", 1, "the first of them")
	f.Uint64Var(&o.seed, "seed", 0, "run this one alone")
	f.StringVar(&kafka, "kafka", "embedded,fake", "brokers, the seeds take turns: embedded (inside cdc), fake (beside it), 3.9.1, 4.4.0")
	f.IntVar(&o.jobs, "jobs", 4, "how many seeds at once, each with servers of its own")
	f.BoolVar(&o.shrink, "shrink", false, "with -seed: find the smallest schedule that fails")
	f.StringVar(&o.sabotage, "sabotage", "", "break cdc before it is built: "+strings.Join(sabotages(), ", "))
	f.BoolVar(&o.verbose, "v", false, "say what every seed did")
	f.IntVar(&o.limits.steps, "steps", 0, "cut every session down to so many steps")
	f.BoolVar(&o.limits.noDisk, "no-disk", false, "leave full disks out, as where none can be mounted: seeds then draw other faults")
	f.StringVar(&faults, "faults", "", "do these faults alone: numbers, or none")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q: no arguments are taken", f.Arg(0))
	}
	o.kafka = strings.Split(kafka, ",")
	if o.seed != 0 {
		o.from, o.seeds = o.seed, 1
	}
	if o.shrink && (o.seed == 0 || len(o.kafka) > 1) {
		return o, errors.New("-shrink needs -seed and one -kafka")
	}
	if o.jobs < 1 || o.seeds < 1 {
		return o, errors.New("-jobs and -seeds are 1 or more")
	}
	if faults != "" {
		o.limits.faults = []int{}
		for _, text := range strings.Split(faults, ",") {
			if text == "none" {
				continue
			}
			n, err := strconv.Atoi(text)
			if err != nil {
				return o, fmt.Errorf("-faults %q: numbers, or none", faults)
			}
			o.limits.faults = append(o.limits.faults, n)
		}
	}
	return o, nil
}

// suite runs the seeds. ok: no seed found anything.
func suite(ctx context.Context, args []string, out io.Writer) (ok bool, err error) {
	o, err := parseOptions(args)
	if err != nil {
		return false, err
	}
	leftOut := ""
	if !o.limits.noDisk {
		if err := mountable(); err != nil {
			o.limits.noDisk = true
			leftOut = fmt.Sprintf("disk-full is left out: %v\n", err)
		}
	}
	fmt.Fprint(out, leftOut)
	defer fmt.Fprint(out, leftOut)
	program, remove, err := build(ctx, o.sabotage)
	if err != nil {
		return false, err
	}
	defer remove()
	if o.shrink {
		return shrink(ctx, o, program, out)
	}
	s := &summary{out: out, options: o, began: time.Now()}
	next := make(chan uint64)
	var jobs sync.WaitGroup
	errs := make([]error, min(o.jobs, o.seeds))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range errs {
		jobs.Go(func() {
			if errs[i] = s.job(ctx, program, next); errs[i] != nil {
				cancel()
			}
		})
	}
	for i := range o.seeds {
		select {
		case next <- o.from + uint64(i):
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	jobs.Wait()
	s.print()
	if err := errors.Join(errs...); err != nil {
		return false, err
	}
	return len(s.failed) == 0, context.Cause(ctx)
}

// brokerOf is the broker of a seed: the seeds take turns.
func (o options) brokerOf(seed uint64) string { return o.kafka[int(seed%uint64(len(o.kafka)))] }

// again is the command that runs a plan again.
func (o options) again(p plan) string {
	text := fmt.Sprintf("go run ./internal/crash -seed %d -kafka %s", p.seed, p.kafka)
	if o.limits.steps > 0 {
		text += fmt.Sprintf(" -steps %d", o.limits.steps)
	}
	if o.limits.faults != nil {
		numbers := make([]string, len(o.limits.faults))
		for i, n := range o.limits.faults {
			numbers[i] = strconv.Itoa(n)
		}
		if len(numbers) == 0 {
			numbers = []string{"none"}
		}
		text += " -faults " + strings.Join(numbers, ",")
	}
	if o.limits.noDisk {
		text += " -no-disk"
	}
	if o.sabotage != "" {
		text += " -sabotage " + o.sabotage
	}
	return text
}

// summary adds up what the jobs found.
type summary struct {
	options
	out   io.Writer
	began time.Time

	mu                                                                sync.Mutex
	failed                                                            []uint64
	took                                                              []time.Duration
	changes, records, samples, hits, faults, copies, memoryKB, fenced int
	committed                                                         int64
}

func (s *summary) job(ctx context.Context, program string, seeds <-chan uint64) error {
	l, err := newLane(program, !s.limits.noDisk)
	if err != nil {
		return err
	}
	defer func() { l.close() }()
	for seed := range seeds {
		p := makePlan(seed, s.brokerOf(seed), s.limits)
		r, err := l.run(ctx, p)
		if err != nil && ctx.Err() == nil { // our own means: once more, with fresh ones
			s.mu.Lock()
			fmt.Fprintf(s.out, "seed %d: %v; it is run again on new servers\n", seed, err)
			s.mu.Unlock()
			l.close()
			if l, err = newLane(program, !s.limits.noDisk); err != nil {
				l = &lane{}
				return err
			}
			r, err = l.run(ctx, p)
		}
		if err != nil && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			text := ""
			if r != nil {
				text = "\n" + strings.Join(r.notes, "\n") + "\n" + r.logs
			}
			return fmt.Errorf("%srun it again: %s\n%w%s", p, s.again(p), err, text)
		}
		s.add(r)
	}
	return nil
}

func (s *summary) add(r *result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took = append(s.took, r.took)
	s.changes += r.changes
	s.records += r.records
	s.samples += r.samples
	s.hits += r.hits
	s.fenced += r.fenced
	s.copies += r.copies
	s.faults += len(r.plan.faults)
	s.committed += r.committed
	s.memoryKB = max(s.memoryKB, r.memory)
	if r.failed() {
		s.failed = append(s.failed, r.plan.seed)
		report(s.out, s.options, r)
	} else if s.verbose {
		fmt.Fprintf(s.out, "seed %d %s: %v, %d changes, %d records, %d samples; %s\n  %s\n", r.plan.seed, r.plan.kafka, r.took.Round(time.Millisecond), r.changes, r.records, r.samples, r.phases, strings.Join(r.notes, "\n  "))
	} else if n := len(s.took); n%progressEvery == 0 {
		fmt.Fprintf(s.out, "%d of %d seeds, %d failed, %v\n", n, s.seeds, len(s.failed), time.Since(s.began).Round(time.Second))
	}
}

// progressEvery is after how many seeds a line is printed.
const progressEvery = 20

// report says everything about a seed that found something.
func report(out io.Writer, o options, r *result) {
	fmt.Fprintf(out, "\n==== FAILED: %s", r.plan)
	for _, n := range r.notes {
		fmt.Fprintf(out, "note: %s\n", n)
	}
	fmt.Fprintf(out, "%s\n", r.logs)
	for _, v := range r.violations {
		fmt.Fprintf(out, "VIOLATION: %s\n", v)
	}
	fmt.Fprintf(out, "run it again: %s\n", o.again(r.plan))
}

func (s *summary) print() {
	if len(s.took) == 0 {
		return
	}
	slices.Sort(s.took)
	fmt.Fprintf(s.out, "%d seeds in %v (median %v, slowest %v): %d faults, %d fail points hit, %d instances fenced, %d copies while streaming; %d transactions, %d changes, %d records; %d samples of the slot; at most %d MiB\n",
		len(s.took), time.Since(s.began).Round(time.Second), s.took[len(s.took)/2].Round(time.Millisecond), s.took[len(s.took)-1].Round(time.Millisecond),
		s.faults, s.hits, s.fenced, s.copies, s.committed, s.changes, s.records, s.samples, s.memoryKB>>10)
	if len(s.failed) > 0 {
		slices.Sort(s.failed)
		fmt.Fprintf(s.out, "FAILED: seeds %v\n", s.failed)
	}
}
