package cdctest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Limits and sizes of a Quorum.
const (
	// quorumSize is the least that goes on without one of them.
	quorumSize = 3
	// quorumInSync is how many replicas must have a batch before it is acknowledged.
	quorumInSync = 2
	// quorumTries bounds the starts of a whole cluster: a port that was free may be
	// taken by the time a JVM has come up.
	quorumTries = 3
	// quorumWait bounds every wait for a state of the cluster; reaching it is a
	// failure. An election takes seconds, on a busy machine more.
	quorumWait = 3 * time.Minute
	// stopWait is what an orderly stop may take; a node without the others cannot
	// hand its partitions over and waits for a while.
	stopWait = time.Minute
)

// quorumOptions keep three JVMs small.
var quorumOptions = []string{"-Xms64m", "-Xmx192m", "-Xss512k", brief}

// quorumSettings: the cleaner's buffer alone would take 128 MB.
const quorumSettings = `log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
background.threads=2
`

// Quorum is three nodes of Apache Kafka, each broker and controller: topics have
// three replicas, of which two must have a batch before it is acknowledged. The
// nodes are numbered from 0. One at a time may be gone without much ado.
type Quorum struct {
	*Cluster // its Kill and Start are hidden by those of a node

	nodes  []*apache
	client *kgo.Client
}

var sharedQuorum struct {
	once  sync.Once
	nodes []*apache
	err   error
}

// KafkaQuorum is the cluster that all tests of the binary share, one after the
// other: they kill its nodes. The first call starts it, Main ends it. Nothing
// but Apache Kafka elects leaders, so without CDC_TEST_KAFKA the test is skipped,
// and says so. It is whole when it is returned, and made whole again when the
// test has ended.
func KafkaQuorum(t testing.TB) *Quorum {
	t.Helper()
	version := os.Getenv(KafkaVariable)
	if version == "" {
		t.Skipf("three nodes that elect leaders are Apache Kafka's: make test-kafka, or set %s", KafkaVariable)
	}
	sharedQuorum.once.Do(func() {
		sharedQuorum.nodes, sharedQuorum.err = startQuorum(version)
		AtExit(func() { closeAll(sharedQuorum.nodes) })
	})
	if sharedQuorum.err != nil {
		t.Fatalf("%v", sharedQuorum.err)
	}
	q := &Quorum{nodes: sharedQuorum.nodes, Cluster: &Cluster{Prefix: fmt.Sprintf("t%d.", prefixes.Add(1)), Version: version}}
	for _, n := range q.nodes {
		q.Brokers = append(q.Brokers, n.addr())
	}
	q.client = q.Client(t)
	q.Heal(t)
	return q
}

func startQuorum(version string) (nodes []*apache, err error) {
	for range quorumTries {
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		nodes, err = tryQuorum(ctx, version)
		cancel()
		if err == nil {
			return nodes, nil
		}
	}
	return nil, err
}

func tryQuorum(ctx context.Context, version string) (nodes []*apache, err error) {
	defer func() {
		if err != nil {
			closeAll(nodes)
			nodes = nil
		}
	}()
	var voters []string
	taken := map[int]bool{}
	for id := 1; id <= quorumSize; id++ {
		n, err := newApache(ctx, version, id, "")
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, n)
		for _, port := range []int{n.Port, n.ControllerPort} {
			if taken[port] {
				return nodes, fmt.Errorf("start three nodes of Kafka: port %d was chosen twice", port)
			}
			taken[port] = true
		}
		n.options, n.More, n.Replicas, n.InSync, n.Advertise = quorumOptions, quorumSettings, quorumSize, quorumInSync, n.addr()
		voters = append(voters, n.voter())
	}
	for _, n := range nodes {
		n.Voters = strings.Join(voters, ",")
	}
	// None is served before two are there.
	return nodes, together(nodes, func(n *apache) error {
		if err := n.format(ctx); err != nil {
			return err
		}
		return n.start(ctx)
	})
}

// together runs f for all nodes at once.
func together(nodes []*apache, f func(*apache) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(nodes))
	for i, n := range nodes {
		wg.Go(func() { errs[i] = f(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func closeAll(nodes []*apache) {
	for _, n := range nodes {
		n.close()
	}
}

// Nodes is how many there are.
func (q *Quorum) Nodes() int { return len(q.nodes) }

// Kill ends nodes with SIGKILL, all at once.
func (q *Quorum) Kill(t testing.TB, nodes ...int) {
	t.Helper()
	_ = together(q.pick(nodes), func(n *apache) error { n.kill(); return nil })
}

// Stop ends a node in order, with SIGTERM: it hands its partitions over first.
func (q *Quorum) Stop(t testing.TB, node int) {
	t.Helper()
	n := q.nodes[node]
	if err := n.proc.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("stop node %d: %v", node, err)
	}
	select {
	case <-n.proc.Done():
		n.proc = nil
	case <-time.After(stopWait):
		t.Fatalf("node %d does not stop\n%s", node, n.log.Tail())
	}
}

// Start starts nodes again, all at once, on the same ports and data, and returns
// when they serve clients. Their replicas may still lag behind: see Whole.
func (q *Quorum) Start(t testing.TB, nodes ...int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if err := together(q.pick(nodes), func(n *apache) error { return n.start(ctx) }); err != nil {
		t.Fatalf("%v", err)
	}
}

// Freeze stops a node where it stands (SIGSTOP): its connections stay open, and
// nothing comes from them.
func (q *Quorum) Freeze(t testing.TB, node int) { q.signal(t, node, syscall.SIGSTOP) }

// Thaw lets it go on.
func (q *Quorum) Thaw(t testing.TB, node int) { q.signal(t, node, syscall.SIGCONT) }

func (q *Quorum) signal(t testing.TB, node int, sig syscall.Signal) {
	t.Helper()
	if err := q.nodes[node].proc.Signal(sig); err != nil {
		t.Fatalf("signal %v to node %d: %v", sig, node, err)
	}
}

func (q *Quorum) pick(nodes []int) []*apache {
	var picked []*apache
	for _, i := range nodes {
		picked = append(picked, q.nodes[i])
	}
	return picked
}

// Heal starts what does not run and returns when the cluster is whole.
func (q *Quorum) Heal(t testing.TB) {
	t.Helper()
	var gone []int
	for i, n := range q.nodes {
		if n.proc == nil {
			gone = append(gone, i)
			continue
		}
		q.Thaw(t, i)
	}
	q.Start(t, gone...)
	q.Whole(t)
}

// Whole returns when all nodes say that every partition has a leader and all of
// its replicas are in sync.
func (q *Quorum) Whole(t testing.TB) {
	t.Helper()
	all := make([]int, len(q.nodes))
	for i := range all {
		all[i] = i
	}
	q.await(t, "the cluster to be whole", func(ctx context.Context) error {
		for _, i := range all {
			if err := q.agrees(ctx, i, func(p kmsg.MetadataResponseTopicPartition) bool { return len(p.ISR) == len(p.Replicas) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// Without returns when the nodes that are left have seen that a node is gone:
// it is in sync nowhere, and every partition has a leader.
func (q *Quorum) Without(t testing.TB, node int) {
	t.Helper()
	id := int32(q.nodes[node].ID)
	q.await(t, fmt.Sprintf("node %d to be out", node), func(ctx context.Context) error {
		for i := range q.nodes {
			if i == node {
				continue
			}
			if err := q.agrees(ctx, i, func(p kmsg.MetadataResponseTopicPartition) bool {
				for _, replica := range p.ISR {
					if replica == id {
						return false
					}
				}
				return true
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// agrees asks a node for what it knows of all partitions.
func (q *Quorum) agrees(ctx context.Context, node int, ok func(kmsg.MetadataResponseTopicPartition) bool) error {
	meta, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, q.client.SeedBrokers()[node])
	if err != nil {
		return fmt.Errorf("ask node %d: %w", node, err)
	}
	for _, topic := range meta.Topics {
		for _, p := range topic.Partitions {
			if p.Leader < 0 || !ok(p) {
				return fmt.Errorf("node %d: partition %d of %s has leader %d and %v in sync", node, p.Partition, *topic.Topic, p.Leader, p.ISR)
			}
		}
	}
	return nil
}

// Leader is the node that leads a partition, as the nodes that run agree.
func (q *Quorum) Leader(t testing.TB, topic string, partition int32) int {
	t.Helper()
	return q.agreed(t, fmt.Sprintf("a leader of %s/%d", topic, partition), func(ctx context.Context, b *kgo.Broker) (int32, error) {
		req := kmsg.NewPtrMetadataRequest()
		of := kmsg.NewMetadataRequestTopic()
		of.Topic = &topic
		req.Topics = append(req.Topics, of)
		meta, err := req.RequestWith(ctx, b)
		if err != nil {
			return 0, err
		}
		for _, p := range meta.Topics[0].Partitions {
			if p.Partition == partition {
				return p.Leader, kerr.ErrorForCode(p.ErrorCode)
			}
		}
		return 0, fmt.Errorf("no such partition: %w", kerr.ErrorForCode(meta.Topics[0].ErrorCode))
	})
}

// Coordinator is the node that coordinates a transactional id, as the nodes that
// run agree.
func (q *Quorum) Coordinator(t testing.TB, id string) int {
	t.Helper()
	return q.agreed(t, "a coordinator of "+id, func(ctx context.Context, b *kgo.Broker) (int32, error) {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorType, req.CoordinatorKeys = 1, []string{id} // 1: of transactions
		res, err := req.RequestWith(ctx, b)
		if err != nil {
			return 0, err
		}
		if len(res.Coordinators) != 1 {
			return 0, fmt.Errorf("%d coordinators in the answer", len(res.Coordinators))
		}
		return res.Coordinators[0].NodeID, kerr.ErrorForCode(res.Coordinators[0].ErrorCode)
	})
}

// agreed asks every node that runs, and none of what a client remembers, until
// all name the same node.
func (q *Quorum) agreed(t testing.TB, what string, f func(context.Context, *kgo.Broker) (int32, error)) (node int) {
	t.Helper()
	q.await(t, what, func(ctx context.Context) error {
		id := int32(-1)
		for i, n := range q.nodes {
			if n.proc == nil {
				continue
			}
			named, err := f(ctx, q.client.SeedBrokers()[i])
			if err != nil {
				return fmt.Errorf("ask node %d: %w", i, err)
			}
			if id >= 0 && named != id {
				return fmt.Errorf("nodes name %d and %d", id, named)
			}
			id = named
		}
		var err error
		node, err = q.node(id)
		return err
	})
	return node
}

// node is the index of a node by the id it has in the cluster.
func (q *Quorum) node(id int32) (int, error) {
	for i, n := range q.nodes {
		if int32(n.ID) == id {
			return i, nil
		}
	}
	return 0, fmt.Errorf("node %d is not of this cluster", id)
}

// await repeats f until it succeeds.
func (q *Quorum) await(t testing.TB, what string, f func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), quorumWait)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		once, cancel := context.WithTimeout(ctx, onceWait)
		err := f(once)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("wait for %s: %v; last: %v", what, context.Cause(ctx), err)
		}
	}
}

// onceWait bounds one question to a cluster that is being hurt.
const onceWait = 5 * time.Second
