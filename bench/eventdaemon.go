package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/child"
	"cdc/internal/eventpipe"
	"cdc/internal/eventstore"
	"cdc/internal/history"
	"cdc/internal/intent"
	"cdc/internal/pipeline"
	"cdc/internal/sink"
	"cdc/internal/source"
	"cdc/internal/view"
)

// daemonJob is what a daemon of a pipeline of mode: events is told.
type daemonJob struct {
	URL       string
	Brokers   []string // nobody there: numbering and views alone
	Prefix    string   // of topics
	Elsewhere string   // URL of another database, "" for none: holds the view of that name
}

// The views of the log.
const (
	viewHere      = "places"    // every event
	viewSeldom    = "farewells" // one event in ten
	viewElsewhere = "elsewhere" // every event, in another Postgres
)

// nobody is an address where no broker answers.
const nobody = "127.0.0.1:1"

func seldomView() intent.View {
	v := simpleView(viewSeldom, intent.Async)
	v.When = map[string]string{cancelled: v.When[cancelled]}
	return v
}

func (j daemonJob) definitions() intent.Definitions {
	d := intent.Definitions{MaxEvent: 1 << 20, Events: universityEvents()}
	if j.Elsewhere != "" {
		v := simpleView(viewElsewhere, intent.Async)
		v.Database = j.Elsewhere
		d.Views = append(d.Views, v)
	}
	return d
}

// install brings definitions into a store.
func install(ctx context.Context, url string, d intent.Definitions) error {
	store, err := eventstore.Open(ctx, eventstore.Config{URL: url})
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = eventpipe.Install(ctx, store, d)
	return err
}

// slotName names slot and publication.
const slotName = "bench_events"

func (j daemonJob) config() eventpipe.Config {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	return eventpipe.Config{
		Name:        "bench",
		Source:      source.Config{URL: j.URL, Slot: slotName, Publication: slotName, Logger: log},
		Definitions: j.definitions(),
		Publication: history.Config{
			Sink:   sink.Config{Brokers: j.Brokers, ClientID: "cdc", Logger: log},
			Writer: sink.WriterConfig{Compression: "none", Memory: 64 << 20},
			Topic:  j.Prefix + ".{category}", Progress: "_cdc.progress." + j.Prefix, Partitions: partitions, Replication: -1,
			Delivery: history.ExactlyOnce,
		},
		Logger: log,
	}
}

// sample is how a daemon stands at a moment.
type sample struct {
	At        time.Time
	CPU       time.Duration // of the process since its start
	Memory    int64         // bytes resident
	Streaming bool          // numbering has caught up and waits for more
	Head      int64
	Published int64
	Views     map[string]int64 // position of each view that follows the log, by name of its part
	Error     string
}

// sampleEvery is how often a daemon tells of itself.
const sampleEvery = 10 * time.Millisecond

// serveDaemon is the daemon as a process: told on its first line what to do, it
// tells how it stands until nobody holds its input any more.
func serveDaemon(in io.Reader, out io.Writer) error {
	pipeline.TightHeap()
	lines := bufio.NewReader(in)
	text, err := lines.ReadString('\n')
	if err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	var j daemonJob
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		cancel()
	}()
	p := eventpipe.New(j.config())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	enc := json.NewEncoder(out)
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			if err := enc.Encode(sampleOf(p.Status())); err != nil {
				cancel()
				return errors.Join(err, <-done)
			}
		}
	}
}

func sampleOf(s cdc.Status) sample {
	m := sample{At: time.Now(), CPU: used(), Memory: resident("self", "VmRSS:"), Views: map[string]int64{}, Error: s.Error}
	if s.Log == nil {
		return m
	}
	m.Head, m.Published = s.Log.Head, s.Log.Published
	for _, p := range s.Log.Parts {
		name, isView := strings.CutPrefix(p.Name, "view ")
		switch {
		case isView:
			m.Views[name] = p.Position
		case p.Name == "numbering":
			m.Streaming = p.State == cdc.StateStreaming
		}
		if p.Error != "" && p.Name != "publication" {
			m.Error = p.Name + ": " + p.Error
		}
	}
	return m
}

// resident is a line of a process' status, in bytes; 0 where there is no /proc.
func resident(pid, name string) int64 {
	text, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

// daemon is a running one.
type daemon struct {
	process *child.Process
	hold    *os.File
	samples chan sample
	tell    sync.WaitGroup
}

func startDaemon(j daemonJob) (*daemon, error) {
	fail := func(err error) (*daemon, error) { return nil, fmt.Errorf("start a daemon: %w", err) }
	text, err := json.Marshal(j)
	if err != nil {
		return fail(err)
	}
	in, hold, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	answer, out, err := os.Pipe()
	if err != nil {
		return fail(errors.Join(err, in.Close(), hold.Close()))
	}
	d := &daemon{hold: hold, samples: make(chan sample, 100)}
	cmd, err := self(childDaemon, in, out)
	if err == nil {
		d.process, err = child.Start(cmd, child.User{}, syscall.SIGTERM)
	}
	err = errors.Join(err, in.Close(), out.Close()) // the child has its own
	if err == nil {
		_, err = fmt.Fprintf(hold, "%s\n", text)
	}
	if err != nil {
		return fail(errors.Join(err, hold.Close(), answer.Close()))
	}
	d.tell.Go(func() {
		defer close(d.samples)
		defer func() { _ = answer.Close() }()
		dec := json.NewDecoder(answer)
		for {
			var s sample
			if dec.Decode(&s) != nil {
				return // it has ended
			}
			d.samples <- s
		}
	})
	return d, nil
}

// errorLasts is how long a part may stand still: a build that was replaced fails once,
// and a part that starts again is allowed to.
const errorLasts = 10 * time.Second

// follow reads samples until one is the last, and returns all.
func (d *daemon) follow(ctx context.Context, last func(s sample) bool) ([]sample, error) {
	var all []sample
	var failing time.Time // zero: not
	for {
		select {
		case s, ok := <-d.samples:
			switch {
			case !ok:
				<-d.process.Done()
				return all, fmt.Errorf("the daemon has ended: %v", d.process.Err())
			case s.Error == "":
				failing = time.Time{}
			case failing.IsZero():
				failing = s.At
			case s.At.Sub(failing) > errorLasts:
				return all, fmt.Errorf("the daemon stands still: %s", s.Error)
			}
			all = append(all, s)
			if last(s) {
				return all, nil
			}
		case <-ctx.Done():
			return all, context.Cause(ctx)
		}
	}
}

// drain drops samples until the function that is returned is called.
func (d *daemon) drain() (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case _, ok := <-d.samples:
				if !ok {
					return
				}
			case <-end:
				return
			}
		}
	}()
	return func() { close(end); <-done }
}

func (d *daemon) stop() {
	_ = d.hold.Close()
	for range d.samples {
	}
	d.tell.Wait()
	<-d.process.Done()
}

// progressRate is how fast a position moved, from the first sample that says it began
// to the first at the target. A sample comes late by sampleEvery at most.
func progressRate(all []sample, began func(s sample) bool, to int64, position func(s sample) int64) (perSecond float64, cpu time.Duration) {
	first := -1
	for i, s := range all {
		if first < 0 && began(s) {
			first = i
		}
		if first >= 0 && position(s) >= to {
			took := s.At.Sub(all[first].At)
			if i == first || took <= 0 {
				return 0, 0
			}
			return float64(position(s)-position(all[first])) / took.Seconds(), s.CPU - all[first].CPU
		}
	}
	return 0, 0
}

// rebuild makes a build of a view beside the live one and returns its name as a part.
func rebuild(ctx context.Context, store *eventstore.Store, v intent.View) (string, error) {
	build, err := view.Build(ctx, store, v, universityEvents())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s (build %d)", v.Name, build), nil
}
