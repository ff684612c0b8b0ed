package broker_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// requestVersion sends a request in the version it is set to and reads the answer.
func requestVersion(t *testing.T, addr string, req kmsg.Request) (kmsg.Response, error) {
	t.Helper()
	conn := dial(t, addr)
	defer conn.Close()
	if _, err := conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, 1)); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	body = body[4:]
	if resp.IsFlexible() {
		body = body[1:] // no header tags
	}
	return resp, resp.ReadFrom(body)
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func header(size int32, key, version int16) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(size))
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	return append(b, 0, 0, 0, 1, 0xff, 0xff)
}

// K7: whatever comes in on the port, the process lives, takes no memory for it
// and serves the others.
func TestBadFramesCloseTheConnection(t *testing.T) {
	b := start(t, t.TempDir())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, tt := range []struct {
		name  string
		frame []byte
	}{
		{"http", []byte("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{"tls", append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 64)...)},
		{"postgres", []byte{0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f, 0, 0, 0, 0}},
		{"api key unknown to everyone", header(10, 31_000, 0)},
		{"api key unknown to the broker", header(10, 4, 0)}, // LeaderAndIsr
		{"negative api key", header(10, -1, 0)},
		{"version too high", header(10, 3, 99)},
		{"version too low", header(10, 1, 3)}, // Fetch begins at 4
		{"negative version", header(10, 18, -1)},
		{"empty frame", header(0, 3, 0)},
		{"frame without a header", header(9, 3, 0)},
		{"frame of 2 GB", header(math.MaxInt32, 3, 0)},
		{"negative length", header(-1, 3, 0)},
		{"body that is no request", append(header(20, 3, 1), bytes.Repeat([]byte{0x7f}, 10)...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := dial(t, b.Addr())
			if _, err := conn.Write(tt.frame); err != nil {
				t.Fatal(err)
			}
			n, err := conn.Read(make([]byte, 1))
			if n != 0 || errors.Is(err, os.ErrDeadlineExceeded) || err == nil {
				t.Errorf("read %d bytes, error %v, want the connection closed", n, err)
			}
			alive(t, b.Addr())
		})
	}
	runtime.ReadMemStats(&after)
	if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 16 {
		t.Errorf("%d MiB allocated for bad frames", mib)
	}
}

func alive(t *testing.T, addr string) {
	t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(1)
	if _, err := requestVersion(t, addr, req); err != nil {
		t.Fatalf("the broker does not answer any more: %v", err)
	}
}

// A client that asks for versions in a version of the future is told the truth (KIP-511).
func TestFutureApiVersions(t *testing.T) {
	b := start(t, t.TempDir())
	conn := dial(t, b.Addr())
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "test", "1"
	req.NodeID = -1
	req.SetVersion(5)
	frame := kmsg.NewRequestFormatter().AppendRequest(nil, req, 7)
	binary.BigEndian.PutUint16(frame[6:], 99)
	conn.Write(frame)
	answer := make([]byte, 10)
	if _, err := io.ReadFull(conn, answer); err != nil {
		t.Fatal(err)
	}
	if code := binary.BigEndian.Uint16(answer[8:]); code != 35 {
		t.Errorf("code %d, want 35 UNSUPPORTED_VERSION", code)
	}
}

// Requests that were announced and never sent give their memory back when their
// connections go: ten times more of them than the limit holds.
func TestAbandonedFramesAreGivenBack(t *testing.T) {
	b := start(t, t.TempDir())
	for range 20 {
		conn := dial(t, b.Addr())
		conn.Write(header(100<<20, 3, 1))
		conn.(*net.TCPConn).CloseWrite()
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("connection stays open")
		}
		conn.Close()
	}
	alive(t, b.Addr())
}

// Requests that come in pieces, or several in one, are taken apart right.
func TestFramesInPieces(t *testing.T) {
	b := start(t, t.TempDir())
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(1)
	var stream []byte
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("a client with a name of some length"))
	for i := range 5 {
		stream = append(stream, f.AppendRequest(nil, req, int32(i))...)
	}
	for _, size := range []int{1, 3, 13, len(stream)} {
		conn := dial(t, b.Addr())
		go func() {
			for rest := stream; len(rest) > 0; rest = rest[min(size, len(rest)):] {
				conn.Write(rest[:min(size, len(rest))])
			}
		}()
		for i := range 5 {
			var head [8]byte
			if _, err := io.ReadFull(conn, head[:]); err != nil {
				t.Fatalf("pieces of %d, answer %d: %v", size, i, err)
			}
			if got := binary.BigEndian.Uint32(head[4:]); got != uint32(i) {
				t.Fatalf("pieces of %d: answer to %d, want to %d", size, got, i)
			}
			if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head[:])-4)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
