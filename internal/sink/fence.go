package sink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"
	"github.com/segmentio/kafka-go/protocol/endtxn"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/initproducerid"

	"cdc/internal/cdc"
)

// Limits of a take-over.
const (
	// takeOverPatience bounds each of its steps: a new cluster makes its
	// transaction log, and a killed coordinator's session expires, in tens of seconds.
	takeOverPatience = 2 * time.Minute
	// transactionTimeout is how long the empty transaction may stay open. It is
	// below every broker's transaction.max.timeout.ms default and far above what
	// thousands of partitions take.
	transactionTimeout = time.Minute
	// markerWait is how long a marker may take to be seen before the transaction
	// is done again; each partition adds a little.
	markerWait             = time.Second
	markerWaitPerPartition = time.Millisecond
	// fenceRounds bounds the transactions of one take-over.
	fenceRounds = 20
	// coordinatorKeyTransaction asks FindCoordinator for a transactional id.
	coordinatorKeyTransaction = 1
	// codeNotAttempted stands beside the code that matters: another partition of
	// the request was refused.
	codeNotAttempted = 55
)

// TakeOver makes this Writer the only one that can write to the partitions. It
// blocks until that is shown: the marker of its empty transaction has been seen
// in every one of them. All partitions the Writer will ever write to must be
// named. ErrFenced: another instance took over after this process did. It does
// nothing where there is no transactional id.
//
// The order matters. InitProducerId gives a new epoch: the coordinator refuses
// the older owner from then on, but the partitions do not know yet. The
// transaction's markers carry the epoch into every partition's log: from its
// marker on, a partition refuses batches of the old epoch, also where the new
// owner has written nothing. The coordinator may call a transaction complete
// whose markers it never wrote (Apache Kafka 4.3 and 4.4, a partition without a
// leader at that moment), so nobody is believed but the log.
func (w *Writer) TakeOver(ctx context.Context, tps []cdc.TopicPartition) error {
	txid := w.cfg.TransactionalID
	if txid == "" {
		return nil
	}
	w.mu.Lock()
	started := w.started
	w.mu.Unlock()
	if started {
		panic("sink: TakeOver of a Writer that runs")
	}
	if err := w.takeOver(ctx, txid, tps); err != nil {
		return fmt.Errorf("take over %q: %w", txid, w.explainTakeOver(err))
	}
	w.owned = true
	return nil
}

func (w *Writer) takeOver(ctx context.Context, txid string, tps []cdc.TopicPartition) error {
	own := w.c.producer(txid)
	err := w.c.initProducer(ctx, txid, own)
	if errors.Is(err, kafka.InvalidProducerIDMapping) && own != noProducer {
		// The coordinator has forgotten the id (transactional.id.expiration.ms): nobody owns it.
		own = noProducer
		err = w.c.initProducer(ctx, txid, own)
	}
	if err != nil {
		if own != noProducer && staleEpoch(codeOf(err)) {
			return w.c.fenced(txid, err)
		}
		return err
	}
	w.cfg.Hook(HookTakeoverInit)
	// Where a partition ends now, its marker comes behind.
	before, err := w.c.listOffsets(ctx, tps, offsetEnd, takeOverPatience)
	if err != nil {
		return err
	}
	missing := tps
	for round := 0; len(missing) > 0; round++ {
		if round == fenceRounds {
			return fmt.Errorf("no marker in %d partitions (%s first) after %d transactions", len(missing), missing[0], round)
		}
		w.owner = w.c.producer(txid)
		if err := w.emptyTransaction(ctx, txid, missing); err != nil {
			if code := codeOf(err); !staleEpoch(code) && code != kafka.InvalidTransactionState && code != kafka.InvalidProducerIDMapping {
				return err
			}
			// Another owner, or the coordinator ended the transaction itself (timeout)
			// and raised the epoch: our own id and epoch tell.
			if initErr := w.c.initProducer(ctx, txid, w.owner); initErr != nil {
				if staleEpoch(codeOf(initErr)) {
					return w.c.fenced(txid, err)
				}
				return initErr
			}
			missing = tps // markers of the old epoch do not count
			continue
		}
		if missing, err = w.awaitMarkers(ctx, missing, before); err != nil {
			return err
		}
	}
	w.owner = w.c.producer(txid)
	w.cfg.Hook(HookTakeoverMarker)
	return nil
}

// emptyTransaction commits a transaction over the partitions with nothing in it.
func (w *Writer) emptyTransaction(ctx context.Context, txid string, tps []cdc.TopicPartition) error {
	w.c.setOpened(txid, time.Now())
	for at := 0; at < len(tps); at += partitionChunk {
		req := &addpartitionstotxn.Request{TransactionalID: txid, ProducerID: w.owner.id, ProducerEpoch: w.owner.epoch}
		topics := map[string]int{}
		for _, tp := range tps[at:min(at+partitionChunk, len(tps))] {
			i, ok := topics[tp.Topic]
			if !ok {
				i = len(req.Topics)
				topics[tp.Topic] = i
				req.Topics = append(req.Topics, addpartitionstotxn.RequestTopic{Name: tp.Topic})
			}
			req.Topics[i].Partitions = append(req.Topics[i].Partitions, tp.Partition)
		}
		err := w.c.coordinated(ctx, txid, func(k *conn) error {
			m, err := k.roundTrip(ctx, req)
			if err != nil {
				return err
			}
			res, ok := m.(*addpartitionstotxn.Response)
			if !ok {
				return fmt.Errorf("%w: %T", errMalformed, m)
			}
			return denied(addError(res), rightWrite, w.c.user(), txid, refusedTopics(res)...)
		})
		if err != nil {
			return err
		}
	}
	w.cfg.Hook(HookTakeoverAdded)
	if err := w.c.endTransaction(ctx, txid, w.owner); err != nil {
		return fmt.Errorf("end the empty transaction: %w", err)
	}
	w.c.setOpened(txid, time.Time{})
	w.cfg.Hook(HookTakeoverEnded)
	return nil
}

// addError is the refusal in an AddPartitionsToTxn answer that matters most: one
// that is final before one that passes.
func addError(res *addpartitionstotxn.Response) error {
	var worst error
	for _, t := range res.Results {
		for _, p := range t.Results {
			if p.ErrorCode == 0 || p.ErrorCode == codeNotAttempted && worst != nil {
				continue
			}
			err := fmt.Errorf("add %s/%d to the transaction: %w", t.Name, p.PartitionIndex, codeError(p.ErrorCode))
			if worst == nil || codeOf(worst) == codeNotAttempted || transient(worst) && !transient(err) {
				worst = err
			}
		}
	}
	return worst
}

// awaitMarkers waits until partitions hold a marker of this owner behind where
// they ended before, and returns those that do not in time.
func (w *Writer) awaitMarkers(ctx context.Context, tps []cdc.TopicPartition, before map[cdc.TopicPartition]int64) ([]cdc.TopicPartition, error) {
	deadline := time.Now().Add(markerWait + time.Duration(len(tps))*markerWaitPerPartition)
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		ends, err := w.c.listOffsets(ctx, tps, offsetEnd, takeOverPatience)
		if err != nil {
			return nil, err
		}
		var missing []cdc.TopicPartition
		seen, err := w.c.markers(ctx, tps, before, ends, w.owner)
		if err != nil {
			return nil, err
		}
		for _, tp := range tps {
			if !seen[tp] {
				missing = append(missing, tp)
			}
		}
		if len(missing) == 0 || time.Now().After(deadline) {
			return missing, nil
		}
		tps = missing
		sleep(ctx, wait)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%d partitions (%s first) without our marker: %w", len(missing), missing[0], context.Cause(ctx))
		}
	}
}

// markers says which partitions hold a marker of p in [before, ends).
func (c *Client) markers(ctx context.Context, tps []cdc.TopicPartition, before, ends map[cdc.TopicPartition]int64, p producer) (map[cdc.TopicPartition]bool, error) {
	seen := make(map[cdc.TopicPartition]bool, len(tps))
	var grown []cdc.TopicPartition
	for _, tp := range tps {
		if ends[tp] > before[tp] {
			grown = append(grown, tp)
		}
	}
	ours := func(h *batchHead) bool {
		if !h.control() || h.producer != p {
			return false
		}
		_, ok := h.marker()
		return ok
	}
	// Nearly always it is the last batch.
	err := c.tails(ctx, grown, ends, func(tp cdc.TopicPartition, h *batchHead) {
		if ours(h) {
			seen[tp] = true
		}
	})
	if err != nil {
		return nil, err
	}
	for _, tp := range grown {
		if seen[tp] {
			continue
		}
		// Somebody who cares for no owner wrote behind it, or it is not there yet.
		err := c.scan(ctx, tp, before[tp], ends[tp], func(h *batchHead) error {
			if ours(h) {
				seen[tp] = true
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return seen, nil
}

// initProducer asks for a new epoch of a transactional id and remembers it. own
// is the id and epoch held so far, noProducer where this process has none:
// without one, whoever holds it is fenced; with one, a newer owner shows itself
// by a refusal (KIP-360).
func (c *Client) initProducer(ctx context.Context, txid string, own producer) error {
	if own != noProducer {
		if err := c.stillOwner(ctx, txid, own); err != nil {
			return err
		}
	}
	return c.coordinated(ctx, txid, func(k *conn) error {
		if _, err := k.version(protocol.InitProducerId, 3); err != nil {
			return err
		}
		m, err := k.roundTrip(ctx, &initproducerid.Request{
			TransactionalID: txid, TransactionTimeoutMs: int32(transactionTimeout / time.Millisecond),
			ProducerID: own.id, ProducerEpoch: own.epoch,
		})
		if err != nil {
			return err
		}
		res, ok := m.(*initproducerid.Response)
		if !ok {
			return fmt.Errorf("%w: %T", errMalformed, m)
		}
		if err := codeError(res.ErrorCode); err != nil {
			return fmt.Errorf("init producer id: %w", err)
		}
		c.mu.Lock()
		c.producers[txid] = identity{producer: producer{id: res.ProducerID, epoch: res.ProducerEpoch}}
		c.mu.Unlock()
		return nil
	})
}

// stillOwner says by a stale epoch's error that a newer owner exists. Apache
// Kafka's InitProducerId says so itself; kfake's takes an old epoch for a
// recovery and raises it, which would fence the newer owner. So an EndTxn is
// tried first: nothing is in a transaction of ours, and every broker refuses one
// of an old epoch. It proves nothing where our transaction may have timed out,
// for then the coordinator raised the epoch itself.
func (c *Client) stillOwner(ctx context.Context, txid string, own producer) error {
	c.mu.Lock()
	opened := c.producers[txid].opened
	c.mu.Unlock()
	if !opened.IsZero() && time.Since(opened) > transactionTimeout/2 {
		return nil
	}
	if err := c.endTransaction(ctx, txid, own); err != nil && staleEpoch(codeOf(err)) {
		return err
	}
	return nil // any other refusal comes from InitProducerId again
}

// endTransaction commits what is open of a producer.
func (c *Client) endTransaction(ctx context.Context, txid string, p producer) error {
	return c.coordinated(ctx, txid, func(k *conn) error {
		m, err := k.roundTrip(ctx, &endtxn.Request{TransactionalID: txid, ProducerID: p.id, ProducerEpoch: p.epoch, Committed: true})
		if err != nil {
			return err
		}
		res, ok := m.(*endtxn.Response)
		if !ok {
			return fmt.Errorf("%w: %T", errMalformed, m)
		}
		return codeError(res.ErrorCode)
	})
}

// identity is what a client remembers of a transactional id.
type identity struct {
	producer
	opened time.Time // when a transaction was begun that is not known to have ended
}

// setOpened notes that a transaction begins (or has ended: zero).
func (c *Client) setOpened(txid string, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.producers[txid]; ok {
		p.opened = at
		c.producers[txid] = p
	}
}

// producer is the id and epoch this process holds for a transactional id.
func (c *Client) producer(txid string) producer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.producers[txid]; ok {
		return p.producer
	}
	return noProducer
}

// coordinated runs f with the connection to the coordinator of a transactional
// id, and again while the coordinator loads (14), is elected (15), moves (16),
// still writes the markers of the transaction before (51), or knows a topic not
// yet (3): those are waits, not errors.
func (c *Client) coordinated(ctx context.Context, txid string, f func(k *conn) error) error {
	node := int32(-1)
	return c.retry(ctx, takeOverPatience, func(int) error {
		if node < 0 {
			res, err := ask[*findcoordinator.Response](ctx, c, seed, &findcoordinator.Request{Key: txid, KeyType: coordinatorKeyTransaction})
			if err != nil {
				return err
			}
			if err := codeError(res.ErrorCode); err != nil {
				return fmt.Errorf("find the coordinator of %q: %w", txid, err)
			}
			node = res.NodeID
		}
		k, err := c.brokerConn(ctx, node)
		if err == nil {
			err = f(k)
		}
		if err != nil && !errors.Is(err, codeConcurrent) {
			node = -1
		}
		return err
	})
}

// fenced is the error of an instance that another one has replaced.
func (c *Client) fenced(txid string, cause error) error {
	return cdc.Terminal("fenced",
		fmt.Sprintf("This instance has stopped writing and nothing is lost. If no other instance is meant to run, find the one that uses the transactional id %q.", txid),
		"%w (%w)", ErrFenced, cause)
}

// explainTakeOver makes refusals of a take-over terminal where waiting does not help.
func (w *Writer) explainTakeOver(err error) error {
	err = denied(err, rightWrite, w.c.user(), w.cfg.TransactionalID)
	if errors.Is(err, errVersion) {
		return cdc.Terminal("broker-too-old", "Use Kafka 2.5 or newer, or set delivery: at-least-once.", "%w", err)
	}
	return err
}
