package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"

	"cdc/internal/broker"
	"cdc/internal/cdc"
	"cdc/internal/config"
	"cdc/internal/eventpipe"
	"cdc/internal/format"
	"cdc/internal/history"
	"cdc/internal/pipeline"
	"cdc/internal/sink"
	"cdc/internal/source"
)

// stack is what a configuration describes, built but for the pipelines not yet
// running.
type stack struct {
	broker    *broker.Broker // nil: a cluster outside this process
	sink      sink.Config
	pipelines []runner
	events    *eventpipe.Pipeline // that of mode: events, among pipelines; nil: none
}

// runner is a pipeline of either mode. Run blocks until it has ended and
// everything it started is gone; Status may be called at any time.
type runner interface {
	Run(ctx context.Context) error
	Status() cdc.Status
}

// build is the one place that turns configuration into components. The embedded
// broker, where configured, is running when it returns: close the stack.
func build(ctx context.Context, cfg *config.Config, log *slog.Logger) (*stack, error) {
	s := &stack{}
	var err error
	if e := cfg.Kafka.Embedded; e != nil {
		s.broker, err = broker.Start(ctx, broker.Config{Dir: e.Dir, Listen: e.Listen, Logger: log.With("component", "broker")})
		if err != nil {
			return nil, environmentError("%w", err)
		}
	}
	if s.sink, err = sinkConfig(cfg, s.address(cfg), log); err != nil {
		return nil, errors.Join(err, s.close())
	}
	names := cfg.PipelineNames()
	rows := len(slices.DeleteFunc(slices.Clone(names), func(name string) bool { return cfg.Pipelines[name].Mode != config.ModeCDC }))
	damage := newDamage(s.broker, rows)
	for _, name := range names {
		p := cfg.Pipelines[name]
		if p.Mode == config.ModeEvents {
			s.events = eventpipe.New(eventsConfig(cfg, p, s.sink, log))
			s.pipelines = append(s.pipelines, s.events)
			continue
		}
		pc := pipelineConfig(cfg, p, s.sink, log)
		pc.Rebuild, pc.Rebuilt = damage.claim()
		s.pipelines = append(s.pipelines, pipeline.New(pc))
	}
	return s, nil
}

// damage is what an interrupted compaction of the embedded broker did to the
// compacted topics: every pipeline of rows copies its tables again, and when all have done so the
// broker forgets it.
type damage struct {
	broker *broker.Broker // nil: none
	left   atomic.Int64   // pipelines still to copy
}

func newDamage(b *broker.Broker, pipelines int) *damage {
	d := &damage{}
	if b != nil && b.Interrupted() {
		d.broker = b
		d.left.Store(int64(pipelines))
	}
	return d
}

// claim gives one pipeline its part: whether it must copy, and whom to tell.
func (d *damage) claim() (rebuild func() bool, rebuilt func() error) {
	if d.broker == nil {
		return nil, nil
	}
	var done atomic.Bool
	return func() bool { return !done.Load() }, func() error {
		if done.Swap(true) || d.left.Add(-1) > 0 {
			return nil
		}
		return d.broker.ClearInterrupted()
	}
}

func (s *stack) address(cfg *config.Config) []string {
	if s.broker != nil {
		return []string{s.broker.Addr()}
	}
	return brokerAddresses(cfg)
}

// brokerAddresses are the brokers as another process reaches them.
func brokerAddresses(cfg *config.Config) []string {
	if e := cfg.Kafka.Embedded; e != nil {
		return []string{e.Listen}
	}
	return cfg.Kafka.Brokers
}

func (s *stack) close() error {
	if s.broker == nil {
		return nil
	}
	return s.broker.Close()
}

func sinkConfig(cfg *config.Config, brokers []string, log *slog.Logger) (sink.Config, error) {
	c := sink.Config{Brokers: brokers, ClientID: "cdc", Logger: log.With("component", "kafka")}
	if a := cfg.Kafka.SASL; a != nil {
		c.SASL = &sink.SASL{Mechanism: a.Mechanism, User: a.Username, Password: a.Password}
	}
	if t := cfg.Kafka.TLS; t != nil {
		var err error
		if c.TLS, err = tlsConfig(t); err != nil {
			return sink.Config{}, err
		}
	}
	return c, nil
}

func tlsConfig(t *config.TLS) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read kafka.tls.ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("kafka.tls.ca: no PEM certificate in %s", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read kafka.tls.cert and key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func sourceConfig(cfg *config.Config, p *config.Pipeline, log *slog.Logger) source.Config {
	return source.Config{
		URL:         cfg.PostgresFor(p).URL,
		Slot:        p.Slot.Name,
		Publication: p.Publication,
		Include:     p.Include(),
		Exclude:     p.Excluded(),
		Columns:     p.ColumnsByTable(),
		Key:         p.KeyByTable(),
		Failover:    p.Slot.Failover,
		Messages:    p.Messages.Prefixes,
		Logger:      log.With("pipeline", p.Name),
	}
}

func pipelineConfig(cfg *config.Config, p *config.Pipeline, sc sink.Config, log *slog.Logger) pipeline.Config {
	return pipeline.Config{
		Name:        p.Name,
		Source:      sourceConfig(cfg, p, log),
		Sink:        sc,
		Format:      format.Options{Format: p.Format, Server: p.Debezium.Name, Toast: p.Toast, Unknown: p.Debezium.Unknown},
		Writer:      sink.WriterConfig{Compression: p.Compression, Memory: int64(p.Memory), Linger: p.Linger},
		Topic:       p.Topic,
		Progress:    p.ProgressTopic,
		Partitions:  p.Partitions,
		Replication: cfg.ReplicationFor(p),
		TopicConfig: cfg.TopicConfigFor(p),
		Delivery:    pipeline.Delivery(p.Delivery),
		Snapshot:    pipeline.SnapshotMode(p.Snapshot.Mode),
		Workers:     p.Snapshot.Workers,
		Toast:       p.Toast,
		Truncate:    p.Truncate,
		Oversize:    p.Oversize,
		DeadLetter:  p.DeadLetter,
		OnGap:       p.OnGap,
		Hook:        failpointHook(),
		Messages:    messageTopic(p),
		Verify:      pipeline.VerifySchedule{Every: p.Verify.Every, Rate: int64(p.Verify.Rate), Dir: p.Verify.Dir},
		Logger:      log,
	}
}

func messageTopic(p *config.Pipeline) string {
	if len(p.Messages.Prefixes) == 0 {
		return ""
	}
	return p.Messages.Topic
}

func eventsConfig(cfg *config.Config, p *config.Pipeline, sc sink.Config, log *slog.Logger) eventpipe.Config {
	return eventpipe.Config{
		Name:        p.Name,
		Source:      sourceConfig(cfg, p, log),
		Definitions: p.Definitions(),
		Publication: historyConfig(cfg, p, sc, log),
		VerifyEvery: p.Verify.Every,
		Logger:      log,
	}
}

func historyConfig(cfg *config.Config, p *config.Pipeline, sc sink.Config, log *slog.Logger) history.Config {
	return history.Config{
		Name:        p.Name,
		Sink:        sc,
		Writer:      sink.WriterConfig{Compression: p.Compression, Memory: int64(p.Memory), Linger: p.Linger},
		Topic:       p.Topic,
		Progress:    p.ProgressTopic,
		Partitions:  p.Partitions,
		Replication: cfg.ReplicationFor(p),
		TopicConfig: cfg.TopicConfigFor(p),
		Delivery:    history.Delivery(p.Delivery),
		Logger:      log,
	}
}
