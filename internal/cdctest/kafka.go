package cdctest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// KafkaVariable names the environment variable that selects the broker of the
// tests: empty is kfake, which speaks Kafka's protocol without a JVM; "3.9.1" and
// "4.4.0" are Apache Kafka.
const KafkaVariable = "CDC_TEST_KAFKA"

// Cluster is a broker for tests.
type Cluster struct {
	Brokers []string // addresses, for any client
	Prefix  string   // begins every topic, group and transactional id of the test: the broker may be shared
	Version string   // "" for kfake

	node node
}

// node is one kind of broker, on a port that stays the same.
type node interface {
	addr() string
	start(ctx context.Context) error // returns when clients are served
	kill()                           // SIGKILL; the data stay
	ended() <-chan struct{}          // closed when it has ended by itself; not to be asked after kill
	close()                          // ends it and removes its data
}

var sharedKafka struct {
	once sync.Once
	node node
	err  error
}

var prefixes atomic.Uint64

// Kafka is the broker that all tests of the binary share, with a prefix for this
// test. It is started by the first call and ended by Main. See PrivateKafka for
// one that can be killed.
func Kafka(t testing.TB) *Cluster {
	t.Helper()
	sharedKafka.once.Do(func() {
		sharedKafka.node, sharedKafka.err = startNode(false, "")
		if sharedKafka.err == nil {
			AtExit(sharedKafka.node.close)
		}
	})
	if sharedKafka.err != nil {
		t.Fatalf("%v", sharedKafka.err)
	}
	return newCluster(sharedKafka.node)
}

// PrivateKafka is a broker of this test alone, in a process of its own, to be
// killed and started again on the same port and data. It ends with the test.
func PrivateKafka(t testing.TB) *Cluster {
	t.Helper()
	n, err := startNode(true, "")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(n.close)
	return newCluster(n)
}

// ProxiedKafka is a private broker that tells its clients to come through the
// proxy. Its start needs the proxy to be healthy.
func ProxiedKafka(t testing.TB) (*Cluster, *Proxy) {
	t.Helper()
	p := NewProxy(t, "")
	n, err := startNode(true, p.Addr)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(n.close)
	p.SetTarget(n.addr())
	c := newCluster(n)
	c.Brokers = []string{p.Addr}
	return c, p
}

// MovingKafka is a private broker that its clients know by a name alone. Apache
// Kafka is such a client itself, of other addresses than ours: it is kfake always.
func MovingKafka(t testing.TB) (*Cluster, *Failover) {
	t.Helper()
	f := NewFailover(t, "")
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	n, err := startFakeProcess(ctx, f.Addr, "")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(n.close)
	for _, p := range f.proxies {
		p.SetTarget(n.addr())
	}
	c := newCluster(n)
	c.Brokers, c.Version = []string{f.Addr}, ""
	return c, f
}

func newCluster(n node) *Cluster {
	return &Cluster{
		Brokers: []string{n.addr()},
		Prefix:  fmt.Sprintf("t%d.", prefixes.Add(1)),
		Version: os.Getenv(KafkaVariable),
		node:    n,
	}
}

// startNode starts the broker that the environment asks for. A shared one may
// live in this process. advertise is the address that clients are told to use;
// "" is the broker's own.
func startNode(private bool, advertise string) (node, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	version := os.Getenv(KafkaVariable)
	switch {
	case version != "" && private:
		return startApache(ctx, version, advertise, "", "", brief)
	case version != "":
		return startApache(ctx, version, advertise, "", "")
	case private:
		return startFakeProcess(ctx, advertise, "")
	default:
		return startFake()
	}
}

// Kill ends the broker with SIGKILL. Only for a private one.
func (c *Cluster) Kill(t testing.TB) {
	t.Helper()
	if _, inProcess := c.node.(*fake); inProcess {
		t.Fatal("a shared broker cannot be killed; use PrivateKafka")
	}
	c.node.kill()
}

// Start starts the broker again after Kill, on the same port and data, and
// returns when it serves clients.
func (c *Cluster) Start(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if err := c.node.start(ctx); err != nil {
		t.Fatalf("%v", err)
	}
}

// Client makes an independent client, closed with the test.
func (c *Cluster) Client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.Brokers...)}, opts...)...)
	if err != nil {
		t.Fatalf("make Kafka client: %v", err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// CreateTopic makes a topic with a replication factor of one.
func (c *Cluster) CreateTopic(t testing.TB, topic string, partitions int32, configs map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), queryLimit)
	defer cancel()
	values := make(map[string]*string, len(configs))
	for name, value := range configs {
		values[name] = &value
	}
	admin := kadm.NewClient(c.Client(t))
	res, err := admin.CreateTopics(ctx, partitions, 1, values, topic)
	if err == nil {
		err = res[topic].Err
	}
	// The broker tells of it a little later than the controller has made it.
	for err == nil {
		var details kadm.TopicDetails
		if details, err = admin.ListTopics(ctx, topic); err == nil && len(details[topic].Partitions) == int(partitions) {
			return
		}
	}
	t.Fatalf("create topic %s: %v", topic, err)
}

// Topics lists the topics that begin with prefix.
func (c *Cluster) Topics(t testing.TB, prefix string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), queryLimit)
	defer cancel()
	details, err := kadm.NewClient(c.Client(t)).ListTopics(ctx)
	if err != nil {
		t.Fatalf("list topics: %v", err)
	}
	var names []string
	for _, name := range details.Names() {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}

// awaitBroker returns when the broker at addr answers as a cluster with a
// controller, which is later than its port being open.
func awaitBroker(ctx context.Context, addr string, ended <-chan struct{}) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RetryTimeout(time.Second))
	if err != nil {
		return fmt.Errorf("make Kafka client: %w", err)
	}
	defer cl.Close()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		// Asked of the seed, not of the broker it names: that may be a proxy.
		meta, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl.SeedBrokers()[0])
		if err == nil && len(meta.Brokers) > 0 && meta.ControllerID >= 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ended:
			return fmt.Errorf("start broker on %s: it ended", addr)
		case <-ctx.Done():
			return fmt.Errorf("wait for broker on %s: %w (last: %v)", addr, context.Cause(ctx), err)
		}
	}
}

// pollEvery is how often the kit asks where nothing tells it.
const pollEvery = 50 * time.Millisecond
