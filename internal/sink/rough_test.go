package sink

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"cdc/internal/cdc"
)

// rough is a network between the broker and us that can be cut: it stands on the
// broker's side, so what it takes away are answers to requests that were carried out.
type rough struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	rnd   *rand.Rand
	lose  float64       // share of answers lost, with their connection
	delay time.Duration // an answer is held back up to this
	cuts  int
}

func (r *rough) opt() kfake.Opt {
	return kfake.ListenFn(func(network, address string) (net.Listener, error) {
		l, err := net.Listen(network, address)
		return roughListener{l, r}, err
	})
}

func newRough(seed uint64) *rough {
	return &rough{conns: map[net.Conn]struct{}{}, rnd: rand.New(rand.NewPCG(seed, 2))}
}

func (r *rough) set(lose float64, delay time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lose, r.delay = lose, delay
}

// cut ends every connection there is.
func (r *rough) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.Close()
	}
}

func (r *rough) cutCount() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cuts
}

type roughListener struct {
	net.Listener
	r *rough
}

func (l roughListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.r.mu.Lock()
	l.r.conns[c] = struct{}{}
	l.r.mu.Unlock()
	return &roughConn{Conn: c, r: l.r}, nil
}

type roughConn struct {
	net.Conn
	r *rough
}

func (c *roughConn) Write(p []byte) (int, error) {
	c.r.mu.Lock()
	lose := c.r.lose > 0 && c.r.rnd.Float64() < c.r.lose
	var delay time.Duration
	if c.r.delay > 0 {
		delay = time.Duration(c.r.rnd.Int64N(int64(c.r.delay)))
	}
	if lose {
		c.r.cuts++
	}
	c.r.mu.Unlock()
	time.Sleep(delay) // the delay is what is tested, not a wait for something
	if lose {
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c *roughConn) Close() error {
	c.r.mu.Lock()
	delete(c.r.conns, c.Conn)
	c.r.mu.Unlock()
	return c.Conn.Close()
}

// Five sets in flight; answers come late, or are lost with their connection
// after the broker has appended the batches.
func TestCase190LateAndLostAnswers(t *testing.T) {
	for _, brokers := range []int{1, 3} {
		for _, id := range []string{"p", ""} {
			name := map[bool]string{true: "exactly once", false: "at least once"}[id != ""]
			t.Run(name+"/"+string(rune('0'+brokers))+" brokers", func(t *testing.T) {
				r := newRough(uint64(brokers))
				k := cluster(t, kfake.NumBrokers(brokers), kfake.SeedTopics(6, "data"), r.opt())
				c := dial(t, k)
				cfg := WriterConfig{TransactionalID: id, RequestBytes: 4 << 10, BatchBytes: 1 << 10}
				if id == "" {
					w := owner(t, c, cfg, parts("data", 6))
					r.set(0.05, 2*time.Millisecond)
					load(t, w, parts("data", 6), 5000)
					r.set(0, 0)
					if r.cutCount() == 0 || w.Stats().Resends == 0 {
						t.Fatalf("%d connections cut, %d batches sent again: nothing was tested", r.cutCount(), w.Stats().Resends)
					}
					atLeastOnce(t, k, 5000)
					return
				}
				r.set(0.02, time.Millisecond)
				lives := byPosition(t, c, cfg, parts("data", 6), 5000, func(uint64) {})
				r.set(0, 0)
				if lives == 1 {
					t.Fatalf("%d connections cut and no take-over: nothing was tested", r.cutCount())
				}
				onceInOrder(t, seen(t, k, "data", 5000), 5000)
			})
		}
	}
}

// atLeastOnce checks that no row is missing.
func atLeastOnce(t *testing.T, k *kfake.Cluster, n int) {
	t.Helper()
	c := dial(t, k)
	rows := map[uint64]bool{}
	start, end, err := c.Offsets(testContext(t), parts("data", 6))
	must(t, err)
	for _, tp := range parts("data", 6) {
		must(t, c.ReadAll(testContext(t), tp, start[tp], end[tp], func(m *Message) error {
			s, _, err := m.Stamp()
			rows[uint64(s.Position.Tx)] = true
			return err
		}))
	}
	if len(rows) != n {
		t.Errorf("%d rows, want %d", len(rows), n)
	}
}

func TestAllConnectionsCutUnderLoad(t *testing.T) {
	r := newRough(1)
	k := cluster(t, kfake.NumBrokers(2), kfake.SeedTopics(4, "data"), r.opt())
	c := dial(t, k)
	// Late answers and little memory: something is on its way at every cut.
	r.set(0, time.Millisecond)
	lives := byPosition(t, c, WriterConfig{TransactionalID: "p", RequestBytes: 2 << 10, BatchBytes: 1 << 10, Memory: 8 << 10}, parts("data", 4), 3000, func(row uint64) {
		if row%500 == 0 {
			r.cut()
		}
	})
	r.set(0, 0)
	onceInOrder(t, seen(t, k, "data", 3000), 3000)
	if lives == 1 {
		t.Error("no take-over: nothing was tested")
	}
}

// byPosition writes rows 1 to n as the pipeline does it: after a lost answer a new
// Writer takes over, asks each partition for its last record and leaves out what
// is there. It returns how many Writers that took.
func byPosition(t *testing.T, c *Client, cfg WriterConfig, tps []cdc.TopicPartition, n uint64, disturb func(row uint64)) (lives int) {
	t.Helper()
	confirmed := uint64(0)
	for confirmed < n {
		if lives++; lives > 300 {
			t.Fatalf("%d take-overs for %d rows of %d", lives, confirmed, n)
		}
		w := c.NewWriter(cfg)
		must(t, w.TakeOver(testContext(t), tps))
		w.Start(context.Background())
		w.Mark(Mark{End: cdc.LSN(confirmed)})
		err := func() error {
			last := map[cdc.TopicPartition]uint64{}
			for row := confirmed + 1; row <= n; row++ {
				tp := tps[row%uint64(len(tps))]
				if _, asked := last[tp]; !asked {
					s, _, err := w.LastStamp(testContext(t), tp)
					must(t, err)
					last[tp] = uint64(s.Position.Tx)
				}
				if row > last[tp] {
					put(t, w, tp, row)
				}
				w.Mark(Mark{End: cdc.LSN(row)})
				if row%7 == 0 {
					w.Handover()
				}
				for w.Full() {
					select {
					case <-w.Space():
					case <-w.Failed():
						return w.Err()
					}
				}
				disturb(row)
			}
			return w.Flush(testContext(t))
		}()
		confirmed = uint64(w.Acked().End)
		must(t, w.Close())
		if err != nil {
			wantErr(t, err, ErrNeedTakeOver)
		}
	}
	return lives
}

// A frame that announces more than it brings takes no memory for it.
func TestFrameBelievesBytesNotLengths(t *testing.T) {
	a, b := net.Pipe()
	go func() {
		_, _ = b.Write(binary.BigEndian.AppendUint32(nil, maxFrame)) // the reader may be gone
		_, _ = b.Write(make([]byte, 100))
		_ = b.Close()
	}()
	got, err := readFrame(a, nil)
	if err == nil || cap(got) > 2*frameStep {
		t.Fatalf("took %d bytes, error %v", cap(got), err)
	}
	for _, size := range []uint32{0, 3, maxFrame + 1, 1 << 31} {
		a, b := net.Pipe()
		go func() { _, _ = b.Write(binary.BigEndian.AppendUint32(nil, size)); _ = b.Close() }()
		if _, err := readFrame(a, nil); err == nil {
			t.Errorf("frame of %d bytes was accepted", size)
		}
	}
}
