package sink

import (
	"fmt"
	"net"
	"time"

	"github.com/segmentio/kafka-go/protocol"
)

// Limits of a pipe.
const (
	// answerGrace is what an answer may take beyond the time the broker was given:
	// its way, and the requests in front of it.
	answerGrace = 10 * time.Second
	// pipeIdle is after how long without a request a pipe is opened anew: brokers
	// close idle connections after ten minutes, proxies after five.
	pipeIdle = 4 * time.Minute
)

// pipe is a connection to a leader with several requests in flight. The sender
// writes; the pipe's own goroutine reads the answers, which come in order.
//
// A request enters fifo before it is written, and whatever happens then, the
// reading goroutine answers it exactly once: so every request that was counted
// in Writer.unanswered is counted out again.
type pipe struct {
	w       *Writer
	k       *conn
	version int16
	fifo    chan sent // never full: a set has one request a leader, and the window of sets is its capacity
	head    []byte
	bufs    net.Buffers
	used    time.Time
	done    chan struct{}
}

type sent struct {
	req  *request
	corr int32
}

func newPipe(w *Writer, k *conn) (*pipe, error) {
	least := int16(produceMin)
	if w.codec == codecZstd {
		least = produceMinZstd
	}
	v, err := k.version(protocol.Produce, least)
	if err != nil {
		return nil, err
	}
	p := &pipe{w: w, k: k, version: min(v, produceMax), fifo: make(chan sent, maxInFlight), used: time.Now(), done: make(chan struct{})}
	go p.read()
	return p, nil
}

// send writes one request. A failure closes the connection, and the reading
// goroutine reports it.
func (p *pipe) send(req *request) {
	p.used = time.Now()
	p.w.cfg.Hook(HookProduceBefore)
	p.head, p.bufs = p.k.appendProduce(p.head, p.bufs[:0], p.version, req.batches, p.w.cfg.RequestTimeout)
	p.fifo <- sent{req, p.k.corr}
	_ = p.k.pc.SetWriteDeadline(p.used.Add(p.w.cfg.RequestTimeout + answerGrace)) // fails on a closed connection only: so will the write
	bufs := p.bufs                                                                // WriteTo consumes the slice it is called on
	var err error
	if p.k.sock != nil {
		_, err = bufs.WriteTo(p.k.sock)
	} else {
		_, err = bufs.WriteTo(p.k.pc)
	}
	if err != nil {
		p.k.close()
	}
}

// read answers requests until the pipe is shut.
func (p *pipe) read() {
	defer close(p.done)
	var frame []byte
	var res []produced
	var broken error
	for s := range p.fifo {
		if broken == nil {
			frame, res, broken = p.answer(s, frame, res)
		}
		if broken != nil {
			p.k.close()
			p.w.answered(s.req, nil, broken)
			continue
		}
		p.w.answered(s.req, res, nil)
	}
}

func (p *pipe) answer(s sent, frame []byte, res []produced) ([]byte, []produced, error) {
	_ = p.k.pc.SetReadDeadline(time.Now().Add(p.w.cfg.RequestTimeout + answerGrace)) // fails on a closed connection only: so will the read
	frame, err := readFrame(p.k.pc, frame[:0])
	if err != nil {
		return frame, res, fmt.Errorf("produce to %s: %w", p.k.pc.RemoteAddr(), err)
	}
	p.w.cfg.Hook(HookProduceAfter)
	res, err = parseProduce(frame, p.version, s.corr, s.req.batches, res)
	if err != nil {
		return frame, res, fmt.Errorf("produce to %s: %w", p.k.pc.RemoteAddr(), err)
	}
	return frame, res, nil
}

// shut closes the connection and waits until every request is answered.
func (p *pipe) shut() {
	p.k.close()
	close(p.fifo)
	<-p.done
}
