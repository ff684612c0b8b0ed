package quorum

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"cdc/internal/cdc"
)

// 115: the leader of a busy partition is killed, which coordinates the pipeline's
// transactional id too: others lead and coordinate, and when the killed node is back
// it leads nothing at first.
func TestCase115LeaderKilled(t *testing.T) {
	r := begin(t)
	id := r.cfg.Name // the pipeline's transactional id
	coordinator := r.q.Coordinator(t, id)
	partition := int32(0)
	for p := range int32(partitions) { // new topics are spread over all nodes
		if r.q.Leader(t, r.topic("t"), p) == coordinator {
			partition = p
			break
		}
	}
	leader := r.q.Leader(t, r.topic("t"), partition)
	r.q.Kill(t, leader)
	r.q.Without(t, leader)
	if now := r.q.Leader(t, r.topic("t"), partition); now == leader {
		t.Fatalf("node %d is dead and leads partition %d", now, partition)
	}
	if now := r.q.Coordinator(t, id); now == leader {
		t.Fatalf("node %d is dead and coordinates %q", now, id)
	}
	r.flowing()
	r.q.Start(t, leader)
	r.flowing()
	r.settled()
}

// 115: the coordinator is killed in the middle of a take-over, with the transaction
// open, and in one the moment it has called the transaction committed.
func TestCase115CoordinatorMoves(t *testing.T) {
	r := begin(t)
	for _, point := range []string{"takeover-added", "takeover-ended"} {
		r.finish()
		coordinator := r.q.Coordinator(t, r.cfg.Name)
		var once sync.Once
		r.cfg.Hook = func(passed string) {
			if passed == point {
				once.Do(func() { r.q.Kill(t, coordinator) })
			}
		}
		r.start()
		r.cfg.Hook = nil
		r.flowing()
		r.q.Heal(t)
	}
	r.settled()
}

// 115: each node in turn is stopped in order and started again, as an upgrade does.
func TestCase115RollingRestart(t *testing.T) {
	r := begin(t)
	for node := range r.q.Nodes() {
		r.q.Stop(t, node)
		r.flowing()
		r.q.Start(t, node)
		r.q.Whole(t)
	}
	r.flowing()
	if s := r.p.Status(); s.State != cdc.StateStreaming {
		t.Errorf("state %s", s.State)
	}
	r.settled()
}

// 116: one replica too few: brokers refuse what they cannot replicate. Writes
// wait, nothing is confirmed, Postgres keeps its log; then it goes on by itself.
func TestCase116NotEnoughReplicas(t *testing.T) {
	r := begin(t)
	const node = 2
	r.q.Freeze(t, node)
	r.q.Without(t, node)
	r.flowing()
	mark := r.log.mark()
	r.minInSync("3")
	r.logged(mark, "Not Enough Replicas")
	// Something before this place was refused, and still is.
	r.heldBack(r.walEnd())
	r.q.Thaw(t, node)
	r.flowing()
	r.minInSync("2")
	r.settled()
}

// 116: two of three nodes are down: no leader can be elected, the one that is left
// cannot replicate, and the cluster has no controller.
func TestCase116TwoNodesDown(t *testing.T) {
	r := begin(t)
	left := r.q.Leader(t, r.topic("t"), 0)
	gone := []int{(left + 1) % r.q.Nodes(), (left + 2) % r.q.Nodes()}
	mark := r.log.mark()
	r.q.Kill(t, gone...)
	r.committed()
	end := r.walEnd()
	r.logged(mark, "starts again", "sending unacknowledged batches again")
	r.heldBack(end)
	r.q.Start(t, gone...)
	r.flowing()
	r.settled()
}

// A node is frozen with requests in hand for longer than anybody waits: others lead
// meanwhile. When it goes on it still believes to lead, and finishes what it had.
func TestCase115NodeFrozen(t *testing.T) {
	r := begin(t)
	leader := r.q.Leader(t, r.topic("t"), 0)
	mark := r.log.mark()
	r.q.Freeze(t, leader)
	r.q.Without(t, leader)
	r.logged(mark, "starts again")
	r.q.Thaw(t, leader)
	r.flowing()
	r.q.Whole(t)
	r.settled()
}

// committed waits until the writers have committed something more.
func (r *rig) committed() {
	r.t.Helper()
	const count = `SELECT count(*) FROM aud`
	before := r.db.Value(r.t, count)
	r.wait("a commit", func(cdc.Status) bool { return r.db.Value(r.t, count) != before })
}

// minInSync changes min.insync.replicas of the topics that rows are written to.
func (r *rig) minInSync(n string) {
	r.t.Helper()
	for deadline := time.Now().Add(waitLimit); ; {
		// A new client each time: it must not hold on to a controller that is frozen.
		err := func() error {
			ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
			defer cancel()
			res, err := kadm.NewClient(r.q.Client(r.t)).AlterTopicConfigs(ctx,
				[]kadm.AlterConfig{{Name: "min.insync.replicas", Value: &n}}, r.topic("t"), r.topic("aud"))
			for _, topic := range res {
				err = errors.Join(err, topic.Err)
			}
			return err
		}()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("set min.insync.replicas: %v", err)
		}
	}
}
