package sink

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdc/internal/cdc"
)

// Codes after which the same bytes go out again; 46 says they are there already.
func TestRetriableCodesAreResent(t *testing.T) {
	for _, code := range []*kerr.Error{
		kerr.CorruptMessage, kerr.UnknownTopicOrPartition, kerr.LeaderNotAvailable, kerr.NotLeaderForPartition,
		kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend,
		kerr.KafkaStorageError, kerr.UnknownServerError,
	} {
		t.Run(fmt.Sprint(code.Code), func(t *testing.T) {
			k := cluster(t, kfake.SeedTopics(3, "data"))
			w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p", RequestBytes: 1 << 10}, parts("data", 3))
			refuse := func() { // one partition refuses two batches
				k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "data", Partitions: []int32{1}, Err: code, Count: 2})
			}
			refuse() // its first ones
			n := uint64(0)
			for n < 500 {
				n++
				put(t, w, parts("data", 3)[n%3], n)
			}
			must(t, w.Flush(testContext(t)))
			refuse() // and some in the middle, with others behind them in flight
			for n < 1000 {
				n++
				put(t, w, parts("data", 3)[n%3], n)
			}
			must(t, w.Flush(testContext(t)))
			if w.Stats().Resends == 0 {
				t.Error("nothing was sent again")
			}
			onceInOrder(t, seen(t, k, "data", 1000), 1000)
		})
	}
}

func TestDuplicateIsSuccess(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p"}, parts("data", 1))
	h := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.DuplicateSequenceNumber})
	put(t, w, parts("data", 1)[0], 1)
	must(t, w.Flush(testContext(t)))
	if h.Hits() != 1 || w.Stats().Resends != 0 {
		t.Errorf("%d faults, %d resends; want 1 and 0", h.Hits(), w.Stats().Resends)
	}
}

func TestFinalCodesFailTheWriter(t *testing.T) {
	for _, c := range []struct {
		code     *kerr.Error
		want     error // errors.Is
		terminal string
	}{
		{kerr.OutOfOrderSequenceNumber, ErrNeedTakeOver, ""},
		{kerr.UnknownProducerID, ErrNeedTakeOver, ""},
		{kerr.InvalidTxnState, ErrNeedTakeOver, ""},
		{kerr.InvalidProducerIDMapping, ErrNeedTakeOver, ""},
		{kerr.InvalidProducerEpoch, ErrNeedTakeOver, ""},
		{kerr.ProducerFenced, ErrNeedTakeOver, ""},
		{kerr.TopicAuthorizationFailed, nil, "--topic 'data'"},
		{kerr.TransactionalIDAuthorizationFailed, nil, "--transactional-id 'p'"},
		{kerr.ClusterAuthorizationFailed, nil, "--cluster"},
		{kerr.UnsupportedCompressionType, nil, "compression"},
		{kerr.InvalidRecord, nil, "broker's log"},
		{kerr.PolicyViolation, nil, "broker's log"},
	} {
		t.Run(fmt.Sprint(c.code.Code), func(t *testing.T) {
			k := cluster(t, kfake.SeedTopics(1, "data"))
			w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p"}, parts("data", 1))
			k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: c.code, Count: -1})
			put(t, w, parts("data", 1)[0], 1)
			err := w.Flush(testContext(t))
			if c.want != nil {
				wantErr(t, err, c.want)
				return
			}
			var e *cdc.TerminalError
			if !errors.As(err, &e) || !strings.Contains(e.Mend, c.terminal) {
				t.Fatalf("got %v, want it terminal with %q", err, c.terminal)
			}
		})
	}
}

// 122: a clock that is wrong is set right some day: the Writer fails, the pipeline
// does not stop, and what is made next has a time of then.
func TestCase122ClockTooFarFromTheBrokers(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p"}, parts("data", 1))
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidTimestamp})
	put(t, w, parts("data", 1)[0], 1)
	if err := w.Flush(testContext(t)); err == nil || cdc.IsTerminal(err) || !strings.Contains(err.Error(), "message.timestamp.after.max.ms") {
		t.Fatalf("got %v, want an error that passes and names the setting", err)
	}
	next := owner(t, dial(t, k), WriterConfig{TransactionalID: "p"}, parts("data", 1))
	put(t, next, parts("data", 1)[0], 1)
	must(t, next.Flush(testContext(t)))
	onceInOrder(t, seen(t, k, "data", 1), 1)
}

func TestTakeOverDeniedNamesTheCommand(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.TransactionalIDAuthorizationFailed})
	err := dial(t, k).NewWriter(WriterConfig{TransactionalID: "p"}).TakeOver(testContext(t), parts("data", 1))
	var e *cdc.TerminalError
	if !errors.As(err, &e) || !strings.Contains(e.Mend, "kafka-acls.sh") || !strings.Contains(e.Mend, "--transactional-id 'p'") {
		t.Fatalf("got %v", err)
	}
}

func TestRetriesEndAtTheDeadline(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p", RetryDeadline: 50 * time.Millisecond}, parts("data", 1))
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	put(t, w, parts("data", 1)[0], 1)
	err := w.Flush(testContext(t))
	wantErr(t, err, kafkaNotEnough)
	if cdc.IsTerminal(err) || errors.Is(err, ErrNeedTakeOver) {
		t.Errorf("%v: want an error that passes", err)
	}
}

// Leaders move under load, with five sets in flight and answers that come late.
func TestLeadersMoveUnderLoad(t *testing.T) {
	r := newRough(3)
	k := cluster(t, kfake.NumBrokers(3), kfake.SeedTopics(6, "data"), r.opt())
	w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p", RequestBytes: 2 << 10, BatchBytes: 1 << 10}, parts("data", 6))
	r.set(0, time.Millisecond)
	tps := parts("data", 6)
	for i := range 4000 {
		put(t, w, tps[i%6], uint64(i)+1)
		if i%50 == 0 {
			w.Handover()
		}
		if i%100 == 0 {
			must(t, k.MoveTopicPartition("data", int32(i/100%6), int32(i/100%3)))
		}
	}
	must(t, w.Flush(testContext(t)))
	if w.Stats().Resends == 0 {
		t.Error("nothing was sent again: nothing was tested")
	}
	r.set(0, 0)
	onceInOrder(t, seen(t, k, "data", 4000), 4000)
}

// The acknowledged prefix stops at the slowest partition.
func TestCase190AckedStopsAtTheSlowestPartition(t *testing.T) {
	k := cluster(t, kfake.NumBrokers(2), kfake.SeedTopics(2, "data"))
	must(t, k.MoveTopicPartition("data", 0, 0))
	must(t, k.MoveTopicPartition("data", 1, 1))
	w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p"}, parts("data", 2))
	open := make(chan struct{})
	var held atomic.Bool
	k.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if k.CurrentNode() == 1 {
			held.Store(true)
			k.SleepControl(func() { <-open })
		}
		return nil, nil, false
	})
	put(t, w, parts("data", 2)[1], 1) // held back
	w.Mark(Mark{End: 1})
	w.Handover()
	for n := uint64(2); n <= 4; n++ { // answered at once
		put(t, w, parts("data", 2)[0], n)
		w.Mark(Mark{End: cdc.LSN(n)})
		w.closeOpen()
	}
	c := dial(t, k)
	for ctx := testContext(t); ; { // until the broker has the other three
		_, end, err := c.Offsets(ctx, parts("data", 2)[:1])
		must(t, err)
		if end[parts("data", 2)[0]] >= 4 { // marker and three records
			break
		}
	}
	if got := w.Acked().End; got != 0 || !held.Load() {
		t.Errorf("acknowledged %v while the first record is not", got)
	}
	close(open)
	must(t, w.Flush(testContext(t)))
	if got := w.Acked().End; got != 4 {
		t.Errorf("acknowledged %v, want 0/4", got)
	}
}
