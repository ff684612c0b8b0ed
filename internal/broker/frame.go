package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A request begins with its length (4 bytes, itself not counted), api key (2),
// version (2), correlation id (4), client id (2 and its bytes): Kafka's request
// header v1 and v2.
const (
	sizeBytes = 4
	headSize  = 12
	// minFrame is the shortest header: a null client id.
	minFrame = 10
	// maxFrame is Kafka's own default (socket.request.max.bytes).
	maxFrame = 100 << 20

	apiVersionsKey = 18
	learnTime      = 10 * time.Second
)

// versions is what the broker serves: api key → least and greatest version.
type versions map[int16][2]int16

// check reads a request's header and returns the frame's length without the
// length field itself.
func (g *guard) check(head [headSize]byte) (int64, error) {
	size := int64(binary.BigEndian.Uint32(head[:]))
	key := int16(binary.BigEndian.Uint16(head[4:]))
	version := int16(binary.BigEndian.Uint16(head[6:]))
	switch {
	case size < minFrame || size > maxFrame:
		return 0, fmt.Errorf("request of %d bytes, want %d to %d", size, minFrame, maxFrame)
	case key == apiVersionsKey && version >= 0:
		return size, nil // any version: the answer tells the client which it may use (KIP-511)
	}
	known := g.known.Load()
	if known == nil {
		return 0, errors.New("request before the broker was ready")
	}
	limits, ok := (*known)[key]
	if !ok {
		return 0, fmt.Errorf("request with unknown api key %d", key)
	}
	if version < limits[0] || version > limits[1] {
		return 0, fmt.Errorf("request with api key %d version %d, served are %d to %d", key, version, limits[0], limits[1])
	}
	return size, nil
}

// learn asks kfake itself which requests it serves, so that the guard's table is
// that of the version in use.
func (g *guard) learn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, learnTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", g.Addr().String())
	if err != nil {
		return fmt.Errorf("connect to the broker just started: %w", err)
	}
	defer conn.Close()
	resp := kmsg.NewPtrApiVersionsResponse()
	if err := ask(ctx, conn, kmsg.NewPtrApiVersionsRequest(), resp); err != nil {
		return fmt.Errorf("ask the broker just started for its versions: %w", err)
	}
	known := make(versions, len(resp.ApiKeys))
	for _, k := range resp.ApiKeys {
		known[k.ApiKey] = [2]int16{k.MinVersion, k.MaxVersion}
	}
	g.known.Store(&known)
	return nil
}

// ask sends one request in its version 0 and reads the answer.
func ask(ctx context.Context, conn net.Conn, req kmsg.Request, resp kmsg.Response) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	req.SetVersion(0)
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("cdc")).AppendRequest(nil, req, 1)
	if _, err := conn.Write(frame); err != nil {
		return err
	}
	head := make([]byte, 8)
	if _, err := io.ReadFull(conn, head); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head)
	if size < 4 || size > 1<<20 {
		return fmt.Errorf("answer of %d bytes", size)
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(conn, body); err != nil {
		return err
	}
	resp.SetVersion(0)
	return resp.ReadFrom(body)
}
