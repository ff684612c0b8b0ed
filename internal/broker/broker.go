package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Config says where a broker keeps its log and where it listens.
type Config struct {
	Dir string // created if missing; one process at a time
	// Listen is host:port on loopback, "127.0.0.1:9092"; port 0 takes a free one.
	Listen string
	// NoSync leaves writing to disk to the operating system: a crash of the
	// machine (not of the process) may then lose what was acknowledged. Syncing
	// costs two fsyncs a batch: 0.5 ms instead of 0.05 for a record alone, two
	// thirds of the throughput of full batches (BenchmarkProduce, SSD). As all
	// that cdc promises rests on what is acknowledged, it is the default.
	NoSync bool
	Logger *slog.Logger // nil: none

	free func(dir string) (uint64, error) // nil: freeSpace; tests have others
}

// clusterID is what clients see; it is one broker's, not a cluster's.
const clusterID = "cdc-embedded"

// Settings of kfake. Its cleaner's timer runs compaction and retention at a
// moment of its own, without the safety of Compact: its interval (milliseconds,
// one hundred years) never ends. Nothing expires unless a topic says so.
var brokerSettings = map[string]string{
	"log.cleaner.backoff.ms":     strconv.Itoa(100 * 365 * 24 * 60 * 60 * 1000),
	"log.retention.ms":           "-1",
	"log.retention.bytes":        "-1",
	"default.replication.factor": "1",
}

// Broker is a running broker. Its methods may be called concurrently.
type Broker struct {
	dir    string
	log    *slog.Logger
	lock   io.Closer
	events *events
	guard  *guard
	kfake  *kfake.Cluster

	failure    failure
	compacting atomic.Bool
	stuck      atomic.Bool // kfake's loop has been stopped for good

	mu          sync.Mutex // held by Compact, Close and ClearInterrupted: one at a time
	closed      bool
	interrupted bool
}

// Start opens or creates the log in cfg.Dir and listens. It returns when clients
// can connect. An interrupted compaction is undone first. ctx bounds the start only.
func Start(ctx context.Context, cfg Config) (*Broker, error) {
	if cfg.Dir == "" {
		return nil, errors.New("start broker: no data directory")
	}
	address, err := loopback(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.free == nil {
		cfg.free = freeSpace
	}
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	b := &Broker{dir: cfg.Dir, log: cfg.Logger, lock: lock, events: &events{log: cfg.Logger}, failure: failure{done: make(chan struct{})}}
	b.events.unwritten = b.unwritten
	if err := b.open(ctx, address, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("start broker in %q: %w", cfg.Dir, err), lock.Close())
	}
	return b, nil
}

func (b *Broker) open(ctx context.Context, address string, cfg Config) (err error) {
	if b.interrupted, err = b.recoverCompaction(); err != nil {
		return err
	}
	if b.guard, err = listen(ctx, address, &disk{dir: b.dir, log: b.log, free: cfg.free}); err != nil {
		return err
	}
	opts := []kfake.Opt{
		kfake.Ports(0), // one broker; the guard is its listener, whatever the port
		kfake.ListenFn(func(string, string) (net.Listener, error) { return b.guard, nil }),
		kfake.DataDir(b.logDir()),
		kfake.ClusterID(clusterID),
		kfake.DefaultNumPartitions(1),
		kfake.BrokerConfigs(brokerSettings),
		kfake.WithLogger(b.events),
	}
	if !cfg.NoSync {
		opts = append(opts, kfake.SyncWrites())
	}
	if b.kfake, err = kfake.NewCluster(opts...); err != nil {
		b.guard.shut()
		return err
	}
	if err := b.guard.learn(ctx); err != nil {
		b.kfake.Close()
		b.guard.shut()
		return err
	}
	return nil
}

// logDir is kfake's own directory inside the data directory.
func (b *Broker) logDir() string { return filepath.Join(b.dir, "log") }

// Addr is the address it listens on and tells clients.
func (b *Broker) Addr() string { return b.guard.Addr().String() }

// unwritten is called by kfake in its only loop.
func (b *Broker) unwritten() {
	b.log.Error("the log could not be written (is the disk full?): the embedded broker stops", "dir", b.dir)
	if b.compacting.Load() { // no request is served, and Compact waits for the loop
		b.fail()
		return
	}
	b.stuck.Store(true)
	b.fail()
	select {} // whatever kfake did next would rest on what was not written
}

// Close stops listening, saves what makes the next start quick and closes every
// connection. Nothing acknowledged depends on it.
func (b *Broker) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closeLocked()
}

func (b *Broker) closeLocked() error {
	if b.closed {
		return nil
	}
	b.closed = true
	if !b.stuck.Load() { // else its memory is not what the disk has, and must not be saved
		b.kfake.Close()
	}
	b.guard.shut()
	return b.lock.Close()
}
