package pgoutput

import (
	"encoding/binary"
	"fmt"
	"time"

	"cdc/internal/cdc"
)

// The first byte of a CopyData message from a walsender.
const (
	TagXLogData  = 'w'
	TagKeepalive = 'k'
)

// XLogData is a piece of the stream: one pgoutput message.
type XLogData struct {
	// Start is the write location of the message: a row's own WAL record, the
	// end of a commit, 0 for R, Y and a B with an origin. It is not monotonic
	// and not unique; never resume from it, confirm it or compare it.
	Start cdc.LSN
	Data  []byte // aliases the input
}

// Keepalive is the server's sign of life.
type Keepalive struct {
	// End is the end of the last WAL record the walsender has decoded: every
	// commit before it was put into the stream before this message. It goes
	// back after a reconnect.
	End   cdc.LSN
	Reply bool // the server wants a status at once
}

// ParseXLogData reads a CopyData payload that begins with TagXLogData.
func ParseXLogData(b []byte) (XLogData, error) {
	r := reader{b: b}
	tag := r.byte()
	x := XLogData{Start: cdc.LSN(r.uint64())}
	r.uint64() // "end of WAL on the server": equals Start in logical decoding
	r.uint64() // the server's clock
	if r.failed() {
		return XLogData{}, fmt.Errorf("decode XLogData header: %w", r.err)
	}
	if tag != TagXLogData {
		return XLogData{}, fmt.Errorf("decode XLogData header: tag %q", tag)
	}
	x.Data = b[r.at:]
	return x, nil
}

// ParseKeepalive reads a CopyData payload that begins with TagKeepalive.
func ParseKeepalive(b []byte) (Keepalive, error) {
	r := reader{b: b}
	tag := r.byte()
	k := Keepalive{End: cdc.LSN(r.uint64())}
	r.uint64() // the server's clock
	reply := r.byte()
	if tag != TagKeepalive {
		r.fail("tag %q", tag)
	}
	if reply > 1 {
		r.fail("reply flag %d", reply)
	}
	if err := r.finish(); err != nil {
		return Keepalive{}, fmt.Errorf("decode keepalive: %w", err)
	}
	k.Reply = reply == 1
	return k, nil
}

// Status is what the client tells the walsender. Zero means "nothing": all
// three positions are always sent as they are (pglogrepl replaces a zero Flush
// by Write, which confirms everything received).
type Status struct {
	Write cdc.LSN // received
	Flush cdc.LSN // durable here: never sent again
	Apply cdc.LSN // seen by readers
	Time  time.Time
	Reply bool // asks for a keepalive
}

// StatusSize is the length of an encoded Status.
const StatusSize = 34

// AppendStatus appends the standby status update ('r') to dst.
func AppendStatus(dst []byte, s Status) []byte {
	dst = append(dst, 'r')
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Write))
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Flush))
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Apply))
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Time.UnixMicro()-epoch))
	if s.Reply {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// epoch is 2000-01-01 UTC, where Postgres' clock begins, in Unix microseconds.
const epoch = 946_684_800_000_000

// UnixMicro turns a timestamp of the stream into microseconds since 1970-01-01 UTC.
func UnixMicro(ts int64) int64 { return ts + epoch }
