package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"time"

	"cdc/internal/broker"
	"cdc/internal/child"
	"cdc/internal/pipeline"
)

// childVariable makes this program one of its own children.
const childVariable = "CDC_BENCH_CHILD"

// The children.
const (
	childBroker   = "broker"   // serves until its standard input ends
	childPipeline = "pipeline" // one measured run
	childDaemon   = "daemon"   // of mode: events, until its standard input ends
)

func childMain(kind string) int {
	var err error
	switch kind {
	case childBroker:
		err = serveBroker(os.Stdin, os.Stdout)
	case childPipeline:
		err = serveRun(os.Stdin, os.Stdout)
	case childDaemon:
		err = serveDaemon(os.Stdin, os.Stdout)
	default:
		err = fmt.Errorf("%s=%q: no such child", childVariable, kind)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// self is this program as one of its children.
func self(kind string, stdin io.Reader, stdout io.Writer) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), childVariable+"="+kind)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, os.Stderr
	return cmd, nil
}

// measured runs a pipeline in a process of its own.
func measured(ctx context.Context, j job) (outcome, error) {
	var o outcome
	in, err := json.Marshal(j)
	if err != nil {
		return o, fmt.Errorf("run %s: %w", j.Name, err)
	}
	var out strings.Builder
	cmd, err := self(childPipeline, strings.NewReader(string(in)), &out)
	if err != nil {
		return o, err
	}
	p, err := child.Start(cmd, child.User{}, syscall.SIGKILL)
	if err != nil {
		return o, fmt.Errorf("run %s: %w", j.Name, err)
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.KillTree()
		return o, context.Cause(ctx)
	}
	if p.Err() != nil {
		return o, fmt.Errorf("run %s: %w", j.Name, p.Err())
	}
	if err := json.Unmarshal([]byte(out.String()), &o); err != nil {
		return o, fmt.Errorf("run %s: read its result: %w", j.Name, err)
	}
	return o, nil
}

func serveRun(in io.Reader, out io.Writer) error {
	pipeline.TightHeap()
	var j job
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	o, err := j.run(context.Background())
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(o)
}

// outcome is what a measured run gives.
type outcome struct {
	Changes  uint64        // read
	Records  uint64        // appended
	Restarts uint64        // lives after the first
	Took     time.Duration // from the start of streaming to the last acknowledgement
	CPU      time.Duration // of the process in that time
	Peak     int64         // bytes of memory, the most of its whole life
}

// statusEvery is how often a run is asked how far it has come.
const statusEvery = 5 * time.Millisecond

// run runs the pipeline to the end of the job. The clock starts where the
// pipeline opens its stream or snapshot, behind the take-over.
func (j job) run(ctx context.Context) (outcome, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	m := &meter{profile: j.Profile, name: j.Name}
	cfg := j.config()
	cfg.Hook = func(point string) {
		if point == "stream-start" || point == "snapshot-begin" {
			m.start()
		}
	}
	p := pipeline.New(cfg)
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for ended := false; !ended; {
		select {
		case err := <-done:
			if err == nil && !j.Copy {
				err = fmt.Errorf("pipeline ended at %s, want %s", p.Status().Acked, j.Until)
			}
			if err != nil {
				return outcome{}, fmt.Errorf("pipeline %s: %w", j.Name, err)
			}
			ended = true
		case <-tick.C:
			ended = !j.Copy && j.finished(p.Status())
		}
	}
	o, err := m.stop()
	s := p.Status()
	o.Changes, o.Records, o.Restarts = s.Changes, s.Records, s.Restarts
	if !j.Copy {
		stop()
		err = errors.Join(err, <-done)
	}
	o.Peak = peak()
	return o, err
}

// meter measures this process between two points.
type meter struct {
	profile string // directory, "" for none
	name    string

	mu   sync.Mutex
	at   time.Time
	cpu  time.Duration
	file *os.File
	err  error
}

// start starts the clock; a second start changes nothing.
func (m *meter) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.at.IsZero() {
		return
	}
	if m.profile != "" {
		if m.file, m.err = os.Create(filepath.Join(m.profile, m.name+".pprof")); m.err == nil {
			m.err = pprof.StartCPUProfile(m.file)
		}
	}
	m.at, m.cpu = time.Now(), used()
}

func (m *meter) stop() (outcome, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := outcome{Took: time.Since(m.at), CPU: used() - m.cpu}
	if m.file != nil {
		pprof.StopCPUProfile()
		m.err = errors.Join(m.err, m.file.Close(), m.allocations())
	}
	if m.at.IsZero() {
		return o, errors.New("the run ended before it began")
	}
	return o, m.err
}

// allocations writes what was allocated in all, and what is still in use.
func (m *meter) allocations() error {
	runtime.GC() // the profile is as old as the last collection
	f, err := os.Create(filepath.Join(m.profile, m.name+".allocs.pprof"))
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}

// used is the CPU time of this process so far.
func used() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// peak is the most memory this process has ever had resident, in bytes. Where
// there is no /proc it is the system's own account of it.
func peak() int64 {
	if n := resident("self", "VmHWM:"); n > 0 {
		return n
	}
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	if runtime.GOOS == "darwin" { // in bytes there
		return r.Maxrss
	}
	return r.Maxrss << 10
}

// serveBroker is the embedded broker as a process: it tells its address and
// serves until nobody holds its input any more.
func serveBroker(in io.Reader, out io.Writer) error {
	dir, err := os.MkdirTemp("", "cdc-bench-broker-")
	if err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b, err := broker.Start(context.Background(), broker.Config{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, b.Addr())
	_, err = io.Copy(io.Discard, in)
	return errors.Join(err, b.Close())
}

// startBroker starts the embedded broker as a process.
func startBroker() (addr string, stop func(), err error) {
	fail := func(err error) (string, func(), error) {
		return "", nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	in, hold, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	answer, out, err := os.Pipe()
	if err != nil {
		return fail(errors.Join(err, in.Close(), hold.Close()))
	}
	var p *child.Process
	cmd, err := self(childBroker, in, out)
	if err == nil {
		p, err = child.Start(cmd, child.User{}, syscall.SIGTERM)
	}
	err = errors.Join(err, in.Close(), out.Close()) // the child has its own
	if err == nil {
		_, err = fmt.Fscanln(answer, &addr) // ends with the child where that fails
	}
	if err = errors.Join(err, answer.Close()); err != nil {
		return fail(errors.Join(err, hold.Close()))
	}
	return addr, func() {
		_ = hold.Close()
		<-p.Done()
	}, nil
}
