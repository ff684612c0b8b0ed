package sink

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
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

// behind is what a progress record says when n is acknowledged.
func behind(n uint64) uint64 { return n - min(n, progressLag) }

// takeOver begins a new Writer on c and returns what the old one had confirmed, or
// what was confirmed before it if that is more.
func (s *service) takeOver(c *Client, told uint64) (zombie *Writer, confirmed uint64) {
	s.t.Helper()
	zombie, s.c, confirmed = s.w, c, told
	if zombie != nil {
		confirmed = max(told, behind(uint64(zombie.Acked().End)))
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

// 179: the broker is killed -9 within two milliseconds of an answer, or a while
// later, with five sets in flight. In half of the rounds the service is killed with
// it, a process of its own. In the others the same instance goes on, or a new one
// takes over and the old one wakes up as a zombie. Nobody sends a batch again whose
// answer was lost: Apache Kafka does not always know it again after a kill, kfake
// never does. CDC_TEST_KAFKA=4.4.0 runs it on Apache Kafka.
func TestCase179KilledAfterAnswer(t *testing.T) {
	k := cdctest.PrivateKafka(t)
	rounds := 20
	switch {
	case testing.Short():
		rounds = 4
	case k.Version != "" && k.Version != "4.4.0":
		rounds = 8 // the case is 4.4.0's
	}
	topic := k.Prefix + "data"
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, broker %q", seed, k.Version)
	rnd := rand.New(rand.NewPCG(seed, 0))
	connect := func() *Client { return dialConfig(t, Config{Brokers: k.Brokers}) }
	s := &service{t: t, tps: parts(topic, 6)}
	must(t, connect().CreateTopic(testContext(t), cdc.TopicSpec{Name: topic, Partitions: 6, Replication: 1}, nil))
	confirmed := uint64(0) // what the source was told so far
	together, zombies, rode := 0, 0, 0
	for round := range rounds {
		answers := 10 + rnd.IntN(60)
		after := time.Duration(rnd.IntN(2000)) * time.Microsecond
		if round%5 == 4 {
			after = time.Duration(rnd.IntN(50)) * time.Millisecond // any moment
		}
		if round%2 == 0 {
			v := spawnService(t, victimConfig{Brokers: k.Brokers, Topic: topic, Confirmed: confirmed, Answers: answers})
			v.answered(t)
			time.Sleep(after)
			k.Kill(t)
			v.kill()
			k.Start(t)
			confirmed = max(confirmed, behind(v.acked))
			s.leftOut += v.leftOut
			together++
			continue
		}
		s.writeUntilKilled(connect(), confirmed, answers, after, k)
		if k.Version == "" {
			must(t, s.w.Close())
			k.Start(t)
			confirmed = max(confirmed, behind(uint64(s.w.Acked().End)))
			continue
		}
		k.Start(t)
		if round%4 == 1 { // the same instance goes on
			await(t, s.w.Failed(), "the end of a Writer without an answer")
			wantErr(t, s.w.Err(), ErrNeedTakeOver)
			must(t, s.w.Close())
			_, confirmed = s.takeOver(s.c, confirmed)
			for row := confirmed + 1; row <= confirmed+500; row++ {
				s.write(row)
			}
			must(t, s.w.Close())
			rode++
			continue
		}
		zombie, told := s.takeOver(connect(), confirmed)
		confirmed = told
		zombies++
		err := zombie.Flush(testContext(t)) // it has lost an answer, or is refused
		if err == nil {
			// Everything it held was acknowledged before the take-over.
			put(t, zombie, s.tps[round%6], zombieRow)
			err = zombie.Flush(testContext(t))
		}
		if !errors.Is(err, ErrFenced) && !errors.Is(err, ErrNeedTakeOver) {
			t.Errorf("the zombie says %v, want %v or %v", err, ErrFenced, ErrNeedTakeOver)
		}
		must(t, zombie.Close())
		must(t, s.w.Close())
	}
	_, row := s.takeOver(connect(), confirmed)
	highest := uint64(0)
	for _, tp := range s.tps {
		stamp, _, err := s.w.LastStamp(testContext(t), tp)
		must(t, err)
		highest = max(highest, uint64(stamp.Position.Tx))
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
	t.Logf("%d kills, of the service too in %d; %d rows, %d left out as already there, %d zombies refused, %d rounds gone on from",
		rounds, together, row, s.leftOut, zombies, rode)
	if s.leftOut == 0 {
		t.Error("nothing was ever left out: nothing was tested")
	}
	onceInOrder(t, seenAt(t, k.Brokers, topic, int(row)), int(row))
}

// writeUntilKilled is a new instance on c that writes until the broker is dead:
// after so many answers and a while.
func (s *service) writeUntilKilled(c *Client, confirmed uint64, answers int, after time.Duration, k *cdctest.Cluster) {
	s.t.Helper()
	s.w = nil
	_, row := s.takeOver(c, confirmed)
	var count atomic.Int32
	kill, killed := make(chan struct{}), make(chan struct{})
	f := func() {
		if int(count.Add(1)) == answers {
			close(kill)
		}
	}
	s.killed = killed
	s.answered.Store(&f)
	go func() { <-kill; time.Sleep(after); k.Kill(s.t); close(killed) }()
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
}

// victimVariable holds a victimConfig: the test binary then is a service, to be
// killed.
const victimVariable = "SINK_TEST_VICTIM"

type victimConfig struct {
	Brokers   []string
	Topic     string
	Confirmed uint64
	Answers   int // after which it says so
}

// TestCase179Service is the service that dies with the broker, when the variable is
// set. Otherwise it is that service for a while, with nobody killed.
func TestCase179Service(t *testing.T) {
	cfg := victimConfig{Answers: 50}
	text := os.Getenv(victimVariable)
	if text != "" {
		must(t, json.Unmarshal([]byte(text), &cfg))
	} else {
		k := cdctest.Kafka(t)
		cfg.Brokers, cfg.Topic = k.Brokers, k.Prefix+"service"
		must(t, dialConfig(t, Config{Brokers: k.Brokers}).CreateTopic(testContext(t), cdc.TopicSpec{Name: cfg.Topic, Partitions: 6, Replication: 1}, nil))
	}
	// The broker dies first, and this process at any moment after: it never ends by itself.
	s := &service{t: t, tps: parts(cfg.Topic, 6), killed: make(chan struct{})}
	_, row := s.takeOver(dialConfig(t, Config{Brokers: cfg.Brokers}), cfg.Confirmed)
	say := func(a ...any) {
		if text != "" {
			fmt.Println(append([]any{"victim:"}, a...)...)
		}
	}
	var answers atomic.Int32
	f := func() {
		if int(answers.Add(1)) == cfg.Answers {
			say("answered")
		}
	}
	s.answered.Store(&f)
	for text != "" || int(answers.Load()) < cfg.Answers {
		row++
		s.write(row)
		if s.w.Err() != nil {
			await(t, make(chan struct{}), "the end of this process")
		}
		if row%100 == 0 {
			say(uint64(s.w.Acked().End), s.leftOut)
		}
	}
	must(t, s.w.Flush(testContext(t)))
	must(t, s.w.Close())
	onceInOrder(t, seenAt(t, cfg.Brokers, cfg.Topic, int(row)), int(row))
}

// victim is a service in a process of its own.
type victim struct {
	cmd     *exec.Cmd
	log     strings.Builder
	now     chan struct{} // closed when so many answers have come
	done    chan struct{} // closed when its output has ended
	acked   uint64        // the last it said; valid after kill, as is leftOut
	leftOut int
}

func spawnService(t *testing.T, cfg victimConfig) *victim {
	t.Helper()
	text, err := json.Marshal(cfg)
	must(t, err)
	v := &victim{cmd: exec.Command(os.Args[0], "-test.run=^TestCase179Service$"), now: make(chan struct{}), done: make(chan struct{})}
	v.cmd.Env = append(os.Environ(), victimVariable+"="+string(text))
	out, err := v.cmd.StdoutPipe()
	must(t, err)
	must(t, v.cmd.Start())
	go func() {
		defer close(v.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			switch line := lines.Text(); {
			case line == "victim: answered":
				close(v.now)
			default:
				if n, _ := fmt.Sscanf(line, "victim: %d %d", &v.acked, &v.leftOut); n != 2 {
					v.log.WriteString(line + "\n")
				}
			}
		}
	}()
	t.Cleanup(v.kill)
	return v
}

// answered waits until the moment it is to be killed after.
func (v *victim) answered(t *testing.T) {
	t.Helper()
	select {
	case <-v.now:
	case <-v.done:
		t.Fatalf("the service ended by itself\n%s", v.log.String())
	case <-time.After(testTimeout):
		t.Fatal("the service writes nothing")
	}
}

func (v *victim) kill() {
	_ = v.cmd.Process.Kill()
	<-v.done
	_ = v.cmd.Wait()
}
