package sink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"cdc/internal/cdc"
)

// SASL is how the client proves who it is.
type SASL struct {
	Mechanism string // plain, scram-sha-256, scram-sha-512
	User      string
	Password  string
}

// Config says how to reach a cluster.
type Config struct {
	Brokers     []string // host:port, at least one
	TLS         *tls.Config
	SASL        *SASL
	ClientID    string        // default "cdc"
	DialTimeout time.Duration // default 10s, TLS and SASL included
	Logger      *slog.Logger  // default: discards
}

// Client is a Kafka cluster. It is safe for concurrent use. It remembers, for its
// life, the producer id of every transactional id its Writers took over: keep one
// Client for all restarts of a pipeline, so that a newer owner is found out and
// not fenced in turn.
type Client struct {
	cfg       Config
	log       *slog.Logger
	mechanism sasl.Mechanism

	mu        sync.Mutex
	closed    bool
	brokers   map[int32]string // address by node id
	leaders   map[cdc.TopicPartition]int32
	conns     map[int32]*conn // for control requests; seed marks the one to a bootstrap address
	producers map[string]identity
	limits    map[string]int // largest batch a topic is known to take, where less than configured
}

// seed is the key in Client.conns of the connection to a bootstrap address.
const seed int32 = -1

// Limits of the client's patience. The caller's context may end it earlier.
const (
	// controlDeadline bounds the retries of a control request: a cluster without
	// a controller or coordinator for longer is down, which the caller reports.
	controlDeadline = 30 * time.Second
	// unknownDeadline bounds them where the topic is not known: its creation
	// reaches all brokers within moments, and a mistyped name never does.
	unknownDeadline = 5 * time.Second
	retryFirst      = time.Millisecond
	retryMost       = 250 * time.Millisecond
)

// Dial checks the configuration, connects to one of the brokers and returns the
// client. Close it when every Writer and Reader of it is closed.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	if len(cfg.Brokers) == 0 {
		return nil, errors.New("kafka: no broker address configured")
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "cdc"
	}
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = 10 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{
		cfg: cfg, log: cfg.Logger,
		brokers: map[int32]string{}, leaders: map[cdc.TopicPartition]int32{}, conns: map[int32]*conn{},
		producers: map[string]identity{}, limits: map[string]int{},
	}
	var err error
	if c.mechanism, err = mechanism(cfg.SASL); err != nil {
		return nil, err
	}
	if _, err := c.anyConn(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

func mechanism(s *SASL) (sasl.Mechanism, error) {
	if s == nil {
		return nil, nil
	}
	switch s.Mechanism {
	case "plain":
		return plain.Mechanism{Username: s.User, Password: s.Password}, nil
	case "scram-sha-256", "scram-sha-512":
		algo := scram.SHA256
		if s.Mechanism == "scram-sha-512" {
			algo = scram.SHA512
		}
		m, err := scram.Mechanism(algo, s.User, s.Password)
		if err != nil {
			return nil, fmt.Errorf("sasl %s of user %q: %w", s.Mechanism, s.User, err)
		}
		return m, nil
	}
	return nil, fmt.Errorf("sasl mechanism %q: want plain, scram-sha-256 or scram-sha-512", s.Mechanism)
}

// Close closes the client's own connections; those of Writers and Readers are
// theirs. It may be called more than once.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	conns := c.conns
	c.conns = map[int32]*conn{}
	c.mu.Unlock()
	for _, k := range conns {
		k.close()
	}
	return nil
}

// user names the principal for ACL commands: with a client certificate and no SASL it
// is, unless the broker has rules of its own, the certificate's subject.
func (c *Client) user() string {
	if c.cfg.SASL != nil {
		return c.cfg.SASL.User
	}
	if t := c.cfg.TLS; t != nil && len(t.Certificates) > 0 && len(t.Certificates[0].Certificate) > 0 {
		if leaf, err := x509.ParseCertificate(t.Certificates[0].Certificate[0]); err == nil {
			return leaf.Subject.String()
		}
	}
	return "ANONYMOUS"
}

// pooled returns the live control connection kept under key.
func (c *Client) pooled(key int32) (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("kafka client: %w", ErrClosed)
	}
	k := c.conns[key]
	if k != nil && k.broken() {
		delete(c.conns, key)
		k = nil
	}
	return k, nil
}

// keep puts a new connection under key. Where another goroutine was faster, its
// connection is used and k closed.
func (c *Client) keep(key int32, k *conn) (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		k.close()
		return nil, fmt.Errorf("kafka client: %w", ErrClosed)
	}
	if old := c.conns[key]; old != nil && !old.broken() {
		k.close()
		return old, nil
	}
	c.conns[key] = k
	return k, nil
}

// anyConn is a control connection to whichever broker answers: known ones first,
// then the configured addresses, in random order.
func (c *Client) anyConn(ctx context.Context) (*conn, error) {
	if k, err := c.pooled(seed); k != nil || err != nil {
		return k, err
	}
	c.mu.Lock()
	addrs := slices.Collect(maps.Values(c.brokers))
	c.mu.Unlock()
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	boot := slices.Clone(c.cfg.Brokers)
	rand.Shuffle(len(boot), func(i, j int) { boot[i], boot[j] = boot[j], boot[i] })
	for _, a := range boot {
		if !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	var errs []error
	for _, a := range addrs {
		k, err := c.connect(ctx, a)
		if err == nil {
			return c.keep(seed, k)
		}
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// brokerAddr is the address of a node, asked for where it is not known.
func (c *Client) brokerAddr(ctx context.Context, id int32) (string, error) {
	for range 2 {
		c.mu.Lock()
		addr, ok := c.brokers[id]
		c.mu.Unlock()
		if ok {
			return addr, nil
		}
		if _, err := c.refresh(ctx, []string{}); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("broker %d: %w", id, kafka.BrokerNotAvailable)
}

// brokerConn is the control connection to a node.
func (c *Client) brokerConn(ctx context.Context, id int32) (*conn, error) {
	if k, err := c.pooled(id); k != nil || err != nil {
		return k, err
	}
	k, err := c.dialNode(ctx, id)
	if err != nil {
		return nil, err
	}
	return c.keep(id, k)
}

// dialNode opens a new connection to a node, for the caller alone. A node that
// cannot be reached is forgotten: its address may have changed.
func (c *Client) dialNode(ctx context.Context, id int32) (*conn, error) {
	addr, err := c.brokerAddr(ctx, id)
	if err != nil {
		return nil, err
	}
	k, err := c.connect(ctx, addr)
	if err != nil {
		c.mu.Lock()
		delete(c.brokers, id)
		c.mu.Unlock()
		return nil, err
	}
	return k, nil
}

// retry calls f, with the number of the attempt from 0, until it succeeds, fails
// for good, or patience or the context ends. It waits between attempts, 1 ms at
// first and doubling.
func (c *Client) retry(ctx context.Context, patience time.Duration, f func(try int) error) error {
	begin := time.Now()
	wait := retryFirst
	for try := 0; ; try++ {
		err := f(try)
		if err == nil || !transient(err) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
		}
		limit := patience
		if codeOf(err) == kafka.UnknownTopicOrPartition && patience <= controlDeadline {
			limit = unknownDeadline
		}
		if time.Since(begin) > limit {
			return err
		}
		if c.isClosed() {
			return fmt.Errorf("kafka client: %w", ErrClosed)
		}
		sleep(ctx, wait)
		wait = min(2*wait, retryMost)
	}
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// ask sends one of kafka-go's requests to any broker, or to the node id, and
// gives the answer its type.
func ask[R protocol.Message](ctx context.Context, c *Client, id int32, req protocol.Message) (res R, err error) {
	var k *conn
	if id == seed {
		k, err = c.anyConn(ctx)
	} else {
		k, err = c.brokerConn(ctx, id)
	}
	if err != nil {
		return res, err
	}
	m, err := k.roundTrip(ctx, req)
	if err != nil {
		return res, err
	}
	res, ok := m.(R)
	if !ok {
		return res, fmt.Errorf("%s: %w: %T", req.ApiKey(), errMalformed, m)
	}
	return res, nil
}
