package cdctest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Lossy is a network to a broker that understands Kafka's requests well enough to
// lose one of a kind, or the answer to it, together with the connection. To the
// client both look the same; to the broker they do not.
type Lossy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
	fault  loss
	lost   int
}

// loss is what to lose next.
type loss struct {
	key     int16
	carried bool // the request is carried out and its answer lost; else it never arrives
	skip    int  // requests of the kind to let pass first
	times   int
}

// lossyFrame bounds a request or an answer that passes.
const lossyFrame = 128 << 20

// LossyKafka is a private broker that tells its clients to come through a Lossy.
func LossyKafka(t testing.TB) (*Cluster, *Lossy) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start a lossy network: %v", err)
	}
	l := &Lossy{listener: listener, conns: map[net.Conn]struct{}{}}
	n, err := startNode(true, listener.Addr().String())
	if err != nil {
		_ = listener.Close()
		t.Fatalf("%v", err)
	}
	t.Cleanup(n.close)
	t.Cleanup(l.close)
	l.target = n.addr()
	l.wg.Go(l.accept)
	c := newCluster(n)
	c.Brokers = []string{listener.Addr().String()}
	return c, l
}

// LoseAnswers lets skip requests of a kind pass and loses the answers to the next
// ones: they were carried out.
func (l *Lossy) LoseAnswers(key kmsg.Key, skip, times int) {
	l.set(loss{key: key.Int16(), carried: true, skip: skip, times: times})
}

// LoseRequests lets skip requests of a kind pass and loses the next ones: they do
// not reach the broker.
func (l *Lossy) LoseRequests(key kmsg.Key, skip, times int) {
	l.set(loss{key: key.Int16(), skip: skip, times: times})
}

func (l *Lossy) set(f loss) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault, l.lost = f, 0
}

// Lost counts what was lost since the last call of LoseAnswers or LoseRequests.
func (l *Lossy) Lost() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// doomed decides on a request; carried says that only its answer is to be lost.
func (l *Lossy) doomed(key int16) (lose, carried bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := &l.fault
	if f.times == 0 || key != f.key {
		return false, false
	}
	if f.skip > 0 {
		f.skip--
		return false, false
	}
	f.times--
	l.lost++
	return true, f.carried
}

func (l *Lossy) close() {
	l.mu.Lock()
	l.closed = true
	for c := range l.conns {
		_ = c.Close()
	}
	l.mu.Unlock()
	_ = l.listener.Close()
	l.wg.Wait()
}

func (l *Lossy) accept() {
	for {
		client, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		l.wg.Go(func() { l.serve(client) })
	}
}

// keep remembers a connection, so that close ends it.
func (l *Lossy) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.conns[c] = struct{}{}
	}
	return !l.closed
}

func (l *Lossy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.DialTimeout("tcp", l.target, dialLimit)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	if !l.keep(client) || !l.keep(server) {
		return
	}
	dead := &doom{ids: map[uint32]bool{}}
	var answers sync.WaitGroup
	answers.Go(func() {
		for {
			frame, err := lossyRead(server, 4)
			// Whatever ends the answers ends the connection: one that is doomed too.
			if err != nil || dead.has(binary.BigEndian.Uint32(frame)) {
				break
			}
			if err := lossyWrite(client, frame); err != nil {
				break
			}
		}
		_ = client.Close()
		_ = server.Close()
	})
	for {
		frame, err := lossyRead(client, 8)
		if err != nil {
			break
		}
		// Request header: api key, its version, correlation id; an answer begins with that.
		lose, carried := l.doomed(int16(binary.BigEndian.Uint16(frame)))
		if lose && !carried {
			break
		}
		if lose {
			dead.add(binary.BigEndian.Uint32(frame[4:]))
		}
		if err := lossyWrite(server, frame); err != nil {
			break
		}
	}
	_ = client.Close()
	_ = server.Close()
	answers.Wait()
	l.mu.Lock()
	delete(l.conns, client)
	delete(l.conns, server)
	l.mu.Unlock()
}

// doom holds the correlation ids of a connection whose answers are to be lost.
type doom struct {
	mu  sync.Mutex
	ids map[uint32]bool
}

func (d *doom) add(id uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ids[id] = true
}

func (d *doom) has(id uint32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ids[id]
}

// lossyRead reads a request or an answer without its length, of least bytes.
func lossyRead(c net.Conn, least uint32) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < least || n > lossyFrame {
		return nil, errors.New("not a frame of Kafka's protocol")
	}
	frame := make([]byte, n)
	_, err := io.ReadFull(c, frame)
	return frame, err
}

func lossyWrite(c net.Conn, frame []byte) error {
	_, err := (&net.Buffers{binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame}).WriteTo(c)
	return err
}
