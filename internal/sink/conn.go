package sink

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// Limits of a connection.
const (
	// maxFrame bounds one response: a fetch of the largest batch a broker can be
	// configured to take (socket.request.max.bytes, 100 MiB) fits.
	maxFrame = 128 << 20
	// frameStep is how much memory is taken ahead of the bytes that have arrived.
	frameStep = 1 << 20
	// roundTripTimeout bounds a control request whose context has no earlier deadline.
	roundTripTimeout = 40 * time.Second
)

// errVersion says that the broker lacks something that cannot be done without.
var errVersion = errors.New("broker too old")

// conn is one connection to one broker. kafka-go dials it, with TLS, SASL and
// the negotiation of versions, and then hands it over for good: a pool with one
// request in flight is no way to pipeline.
type conn struct {
	pc       *protocol.Conn
	sock     net.Conn // the TCP socket under pc, for writev; nil under TLS
	versions map[protocol.ApiKey]int16
	clientID string

	mu    sync.Mutex // one control request at a time
	corr  int32      // last correlation id; owned by whoever sends
	frame []byte     // memory of the last control response
	// metadataMax is the broker's own newest version of Metadata, 0 until asked
	// for; owned by whoever sends.
	metadataMax int16
	once        sync.Once
	closed      chan struct{} // kafka-go's goroutine waits for it
}

// takeover is a kafka-go message that keeps the connection it is sent on.
type takeover struct {
	hand chan *conn    // where the connection goes
	gone chan struct{} // closed when nobody waits for it any more
	seen map[protocol.ApiKey]int16
}

// ApiKey is never sent: RawExchange takes the place of the request.
func (t *takeover) ApiKey() protocol.ApiKey { return protocol.Metadata }

// Required learns the versions that were negotiated.
func (t *takeover) Required(v map[protocol.ApiKey]int16) bool { t.seen = v; return true }

// RawExchange hands the connection over and holds kafka-go's goroutine until it is closed.
func (t *takeover) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	pc, ok := rw.(*protocol.Conn)
	if !ok {
		return nil, fmt.Errorf("kafka-go gave a %T for a connection", rw)
	}
	k := &conn{pc: pc, versions: t.seen, closed: make(chan struct{})}
	select {
	case t.hand <- k:
		<-k.closed
	case <-t.gone:
	}
	return nil, io.EOF // never back into kafka-go's pool
}

// connect opens a connection to the broker at addr.
func (c *Client) connect(ctx context.Context, addr string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	var mu sync.Mutex
	socks := map[string]net.Conn{} // by local address
	tr := &kafka.Transport{
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			nc, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err == nil {
				mu.Lock()
				socks[nc.LocalAddr().String()] = nc
				mu.Unlock()
			}
			return nc, err
		},
		DialTimeout:    c.cfg.DialTimeout,
		ClientID:       c.cfg.ClientID,
		TLS:            c.cfg.TLS,
		SASL:           c.mechanism,
		MetadataTTL:    time.Hour,  // this pool lives for one dial; its layout is never used
		MetadataTopics: []string{}, // none
		Context:        ctx,
	}
	t := &takeover{hand: make(chan *conn), gone: make(chan struct{})}
	trip := make(chan error, 1)
	tripCtx, endTrip := context.WithCancel(ctx)
	go func() {
		_, err := tr.RoundTrip(tripCtx, kafka.TCP(addr), t)
		trip <- err
	}()
	var k *conn
	var err error
	select {
	case k = <-t.hand:
		endTrip()
		<-trip
	case err = <-trip:
	}
	close(t.gone)
	endTrip()
	tr.CloseIdleConnections()
	mu.Lock()
	for local, nc := range socks { // kafka-go waits without a deadline in SASL: cut what it still holds
		if k == nil || local != k.pc.LocalAddr().String() {
			_ = nc.Close()
		} else if c.cfg.TLS == nil {
			k.sock = nc
		}
	}
	mu.Unlock()
	if err != nil {
		if ctx.Err() != nil && context.Cause(ctx) != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("connect to broker %s: %w", addr, err)
	}
	k.clientID = c.cfg.ClientID
	if err := k.pc.SetDeadline(time.Time{}); err != nil {
		k.close()
		return nil, fmt.Errorf("connect to broker %s: %w", addr, err)
	}
	return k, nil
}

// close gives the connection up. It may be called at any time, more than once.
func (k *conn) close() {
	k.once.Do(func() {
		_ = k.pc.Close() // nothing to flush; the peer sees the end
		close(k.closed)
	})
}

// broken says that the connection cannot be used any more.
func (k *conn) broken() bool {
	select {
	case <-k.closed:
		return true
	default:
		return false
	}
}

// version is the negotiated version of an API, which must be at least min.
func (k *conn) version(key protocol.ApiKey, min int16) (int16, error) {
	v, ok := k.versions[key]
	if !ok || v < min {
		return 0, fmt.Errorf("%w: %s v%d is needed (Kafka 2.5 or newer)", errVersion, key, min)
	}
	return v, nil
}

// exchange runs f, which writes one request and reads its answer, with the
// connection to itself and bounded by ctx. After an error of f the connection is
// closed: what the broker still sends cannot be told apart.
func (k *conn) exchange(ctx context.Context, f func() error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	deadline := time.Now().Add(roundTripTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = k.pc.SetDeadline(deadline) // fails on a closed connection only: so will f
	stop := context.AfterFunc(ctx, k.close)
	err := f()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		k.close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	return err
}

// roundTrip sends one of kafka-go's requests and returns its answer.
func (k *conn) roundTrip(ctx context.Context, req protocol.Message) (res protocol.Message, err error) {
	v, err := k.version(req.ApiKey(), 0)
	if err != nil {
		return nil, err
	}
	err = k.exchange(ctx, func() error {
		k.corr++
		if err := protocol.WriteRequest(k.pc, v, k.corr, k.clientID, req); err != nil {
			return err
		}
		if k.frame, err = readFrame(k.pc, k.frame[:0]); err != nil {
			return err
		}
		res, err = decodeResponse(k.frame, k.corr, req.ApiKey(), v)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.ApiKey(), err)
	}
	return res, nil
}

// decodeResponse lets kafka-go decode a frame. Its decoder believes lengths: what
// it does with a lie must not take the process down.
func decodeResponse(frame []byte, corr int32, key protocol.ApiKey, version int16) (res protocol.Message, err error) {
	defer func() {
		if p := recover(); p != nil {
			res, err = nil, fmt.Errorf("%w: %v", errMalformed, p)
		}
	}()
	prefix := binary.BigEndian.AppendUint32(nil, uint32(len(frame)))
	got, res, err := protocol.ReadResponse(io.MultiReader(bytes.NewReader(prefix), bytes.NewReader(frame)), key, version)
	if err != nil {
		return nil, err
	}
	if got != corr {
		return nil, fmt.Errorf("%w: answer to request %d, want %d", errMalformed, got, corr)
	}
	return res, nil
}

// readFrame reads one response, without its size, behind dst. Memory grows with
// the bytes that arrive, not with the size that is announced.
func readFrame(r io.Reader, dst []byte) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return dst, err
	}
	left := int(int32(binary.BigEndian.Uint32(size[:])))
	if left < 4 || left > maxFrame {
		return dst, fmt.Errorf("%w: response of %d bytes", errMalformed, left)
	}
	for left > 0 {
		n := min(left, max(frameStep, cap(dst)-len(dst)))
		at := len(dst)
		if cap(dst)-at < n {
			grown := make([]byte, at, max(at+n, min(2*at, at+left)))
			copy(grown, dst)
			dst = grown
		}
		dst = dst[:at+n]
		if _, err := io.ReadFull(r, dst[at:]); err != nil {
			return dst[:at], err
		}
		left -= n
	}
	return dst, nil
}

// request begins a request of our own framing (header v1): the size is left open.
func (k *conn) request(b []byte, key protocol.ApiKey, version int16) []byte {
	k.corr++
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(k.corr))
	return appendString(b, k.clientID)
}
