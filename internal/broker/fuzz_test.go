package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
)

// stream is a connection that has received everything it will.
type stream struct {
	net.Conn // nil: nothing else is called
	io.Reader
}

func (s stream) Read(p []byte) (int, error)       { return s.Reader.Read(p) }
func (s stream) SetReadDeadline(time.Time) error  { return nil }
func (s stream) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s stream) SetWriteDeadline(time.Time) error { return nil }

// Whatever a client sends, kfake sees a prefix of it that is made of frames with
// a good header, and what the guard counted as memory is given back.
func FuzzGuard(f *testing.F) {
	good := []byte{0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	f.Add(good, uint8(4))
	f.Add(append(bytes.Clone(good), good...), uint8(1))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), uint8(200))
	f.Add(append(bytes.Clone(good), 0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 1, 0, 0, 0, 1), uint8(16))
	f.Add(append(bytes.Clone(good), 0, 0, 1, 0, 0, 3, 0, 1, 0, 0, 0, 1, 9), uint8(7))
	f.Fuzz(func(t *testing.T, sent []byte, piece uint8) {
		g := &guard{log: slog.New(slog.DiscardHandler), disk: &disk{free: freeSpace}, ctx: context.Background(), memory: semaphore.NewWeighted(frameMemory)}
		g.known.Store(&versions{3: {0, 13}, 0: {3, 13}})
		c := &guardConn{Conn: stream{Reader: bytes.NewReader(sent)}, guard: g}
		var seen []byte
		buf := make([]byte, int(piece)+1)
		for {
			n, err := c.Read(buf)
			seen = append(seen, buf[:n]...)
			if err != nil {
				break
			}
		}
		if !bytes.HasPrefix(sent, seen) {
			t.Fatalf("handed out %x of %x", seen, sent)
		}
		for rest := seen; len(rest) > 0; {
			size, err := g.check([headSize]byte(rest))
			if err != nil {
				t.Fatalf("handed out a frame although %v: %x", err, rest)
			}
			if whole := int(size) + sizeBytes; whole <= len(rest) {
				rest = rest[whole:]
				continue
			}
			break // the connection ended within this frame
		}
		if !g.memory.TryAcquire(frameMemory) {
			t.Fatal("memory was not given back")
		}
		if len(seen) < len(sent) && len(sent)-len(seen) >= headSize {
			if _, err := g.check([headSize]byte(sent[len(seen):])); err == nil {
				t.Fatalf("stopped before a good frame: %x after %d bytes", sent, len(seen))
			}
		}
	})
}

func TestCheckBounds(t *testing.T) {
	g := new(guard)
	head := func(size uint32, key int16) (h [headSize]byte) {
		binary.BigEndian.PutUint32(h[:], size)
		binary.BigEndian.PutUint16(h[4:], uint16(key))
		return h
	}
	if _, err := g.check(head(minFrame, 3)); err == nil {
		t.Error("a request was let through before the broker had told its versions")
	}
	g.known.Store(&versions{3: {0, 13}})
	for size, want := range map[uint32]bool{minFrame - 1: false, minFrame: true, maxFrame: true, maxFrame + 1: false} {
		if _, err := g.check(head(size, 3)); (err == nil) != want {
			t.Errorf("frame of %d bytes: %v", size, err)
		}
	}
}
