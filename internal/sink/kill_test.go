package sink

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// service is the pipeline in small: rows 1, 2, 3, … to partition row mod 6. It
// knows what its source was told (confirmed), and nothing else across a take-over.
type service struct {
	t        *testing.T
	c        *Client
	w        *Writer
	tps      []cdc.TopicPartition
	last     map[cdc.TopicPartition]uint64 // where a partition ended at the take-over; asked for when first due
	leftOut  int
	answered atomic.Pointer[func()]
	killed   chan struct{} // closed when the broker is dead: no space will come
}

// progressLag is how many rows the progress record lies behind what is acknowledged.
const progressLag = 2000

// takeOver begins a new Writer on c and returns what the old one had confirmed:
// the progress record lies behind what is acknowledged.
func (s *service) takeOver(c *Client) (zombie *Writer, confirmed uint64) {
	s.t.Helper()
	zombie, s.c = s.w, c
	if zombie != nil {
		confirmed = uint64(zombie.Acked().End)
		confirmed -= min(confirmed, progressLag)
	}
	s.last = map[cdc.TopicPartition]uint64{}
	s.w = c.NewWriter(WriterConfig{TransactionalID: "case179", RequestBytes: 16 << 10, BatchBytes: 4 << 10, Memory: 1 << 20, Hook: func(p string) {
		if f := s.answered.Load(); p == HookProduceAfter && f != nil {
			(*f)()
		}
	}})
	must(s.t, s.w.TakeOver(testContext(s.t), s.tps))
	s.w.Start(context.Background())
	s.w.Mark(Mark{End: cdc.LSN(confirmed)})
	return zombie, confirmed
}

func (s *service) write(row uint64) {
	s.t.Helper()
	tp := s.tps[row%uint64(len(s.tps))]
	last, asked := s.last[tp]
	if !asked {
		stamp, _, err := s.w.LastStamp(testContext(s.t), tp)
		must(s.t, err)
		last = uint64(stamp.Position.Tx)
		s.last[tp] = last
	}
	if row > last {
		put(s.t, s.w, tp, row)
	} else {
		s.leftOut++
	}
	s.w.Mark(Mark{End: cdc.LSN(row)})
	for s.w.Full() {
		select {
		case <-s.w.Space():
		case <-s.killed:
			return
		case <-s.w.Failed():
			if s.killed == nil || !errors.Is(s.w.Err(), ErrNeedTakeOver) {
				s.t.Fatalf("row %d: %v", row, s.w.Err())
			}
			return // the broker is being killed
		}
	}
}

// The broker is killed -9 within two milliseconds of an answer, with five sets in
// flight. In some of the rounds the same instance goes on, in the others a new one
// takes over, and the old one wakes up as a zombie. Nobody sends a batch again
// whose answer was lost: Apache Kafka does not always know it again after a kill,
// kfake never does. CDC_TEST_KAFKA=4.4.0 runs it on Apache Kafka.
func TestCase179KilledAfterAnswer(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	k := cdctest.PrivateKafka(t)
	topic := k.Prefix + "data"
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, broker %q", seed, k.Version)
	rnd := rand.New(rand.NewPCG(seed, 0))
	connect := func() *Client { return dialConfig(t, Config{Brokers: k.Brokers}) }
	s := &service{t: t, tps: parts(topic, 6)}
	c := connect()
	must(t, c.CreateTopic(testContext(t), cdc.TopicSpec{Name: topic, Partitions: 6, Replication: 1}, nil))
	s.takeOver(c)
	row, highest := uint64(0), uint64(0)
	zombies, rode := 0, 0
	for round := range rounds {
		left := int32(30 + rnd.IntN(200))
		after := time.Duration(rnd.IntN(2000)) * time.Microsecond
		var count atomic.Int32
		kill, killed := make(chan struct{}), make(chan struct{})
		f := func() {
			if count.Add(1) == left {
				close(kill)
			}
		}
		s.killed = killed
		s.answered.Store(&f)
		go func() { <-kill; time.Sleep(after); k.Kill(t); close(killed) }()
		for dead := false; !dead; {
			row++
			s.write(row)
			select {
			case <-killed:
				dead = true
			default:
			}
		}
		s.answered.Store(nil)
		s.killed = nil
		highest = max(highest, row)
		if k.Version != "" && round%3 != 0 { // the same instance goes on
			k.Start(t)
			await(t, s.w.Failed(), "the end of a Writer without an answer")
			wantErr(t, s.w.Err(), ErrNeedTakeOver)
			must(t, s.w.Close())
			_, row = s.takeOver(s.c)
			rode++
			continue
		}
		if k.Version == "" {
			must(t, s.w.Close())
		}
		k.Start(t)
		zombie, confirmed := s.takeOver(connect())
		row = confirmed
		if k.Version != "" { // it has lost an answer, or is refused
			err := zombie.Flush(testContext(t))
			if err == nil {
				// Everything it held was acknowledged before the take-over.
				put(t, zombie, s.tps[round%6], 1<<40)
				err = zombie.Flush(testContext(t))
			}
			if !errors.Is(err, ErrFenced) && !errors.Is(err, ErrNeedTakeOver) {
				t.Errorf("the zombie says %v, want %v or %v", err, ErrFenced, ErrNeedTakeOver)
			}
			must(t, zombie.Close())
			zombies++
		}
	}
	for row < highest+1000 { // past everything that was ever written
		row++
		s.write(row)
	}
	must(t, s.w.Flush(testContext(t)))
	if got := uint64(s.w.Acked().End); got != row {
		t.Fatalf("acknowledged %d, want %d", got, row)
	}
	must(t, s.w.Close())
	t.Logf("%d kills, %d rows, %d left out as already there, %d zombies refused, %d rounds gone on from", rounds, row, s.leftOut, zombies, rode)
	if s.leftOut == 0 && !testing.Short() {
		t.Error("nothing was ever left out: nothing was tested")
	}
	onceInOrder(t, seenAt(t, k.Brokers, topic, int(row)), int(row))
}
