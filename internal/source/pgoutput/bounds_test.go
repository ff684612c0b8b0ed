package pgoutput_test

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"
	"unsafe"

	"cdc/internal/cdc"
	"cdc/internal/source/pgoutput"
	"cdc/internal/source/pgoutput/pgoutputtest"
)

// footprint is the memory that a decoder has taken; everything else aliases the
// message. A value takes at least one byte of the message and 32 here, and append
// may take twice that; columns and tables take more bytes of the message each.
func footprint(d *pgoutput.Decoder) int {
	return (cap(d.Row.Old)+cap(d.Row.New))*int(unsafe.Sizeof(cdc.Value{})) +
		cap(d.Relation.Columns)*int(unsafe.Sizeof(pgoutput.Column{})) +
		cap(d.Truncate.Relations)*int(unsafe.Sizeof(uint32(0)))
}

// footprintLimit is 64 bytes a byte of the message, and what append begins with.
func footprintLimit(msg []byte) int { return 64*len(msg) + 256 }

// 169, 170: every message, cut at every byte, with a lie at every place: it is
// refused, or it is what its bytes say. It never panics, and never takes memory
// that its bytes do not account for.
func TestCase169Case170LiesCostNothing(t *testing.T) {
	lies := func(size int) [][]byte {
		return [][]byte{
			{0xFF, 0xFF, 0xFF, 0xFF}, {0x7F, 0xFF, 0xFF, 0xFF}, {0x80, 0, 0, 0}, {0x10, 0, 0, 0},
			binary.BigEndian.AppendUint32(nil, uint32(size)), binary.BigEndian.AppendUint32(nil, uint32(size+1)),
			{0xFF, 0xFF}, {0x7F, 0xFF}, {6, 0x40}, {6, 0x41}, // 1600 columns, and one more
			{0}, {0xFF}, {'t'}, {'n'},
		}
	}
	tried := 0
	for _, s := range samples {
		whole := pgoutputtest.Message(s.tag, &s.d)
		for cut := 1; cut <= len(whole); cut++ {
			for at := range cut {
				for _, lie := range lies(len(whole)) {
					if at+len(lie) > cut {
						continue
					}
					msg := bytes.Clone(whole[:cut])
					copy(msg[at:], lie)
					tried++
					var d pgoutput.Decoder
					tag, err := d.Decode(msg)
					if got := footprint(&d); got > footprintLimit(msg) {
						t.Errorf("%s: %x takes %d bytes for %d", s.name, msg, got, len(msg))
					}
					if err != nil {
						continue
					}
					if again := pgoutputtest.Message(tag, &d); !bytes.Equal(again, msg) {
						t.Errorf("%s: %x was accepted and says %x", s.name, msg, again)
					}
				}
			}
		}
	}
	if tried < 10_000 {
		t.Errorf("%d messages tried: nothing was tested", tried)
	}
}

// What is taken for a moment counts too: errors, and nothing else.
func TestCase170AllocationIsBoundedByTheMessage(t *testing.T) {
	const forTheError = 2 << 10
	for _, s := range samples {
		whole := pgoutputtest.Message(s.tag, &s.d)
		for at := 1; at < len(whole); at++ {
			for _, lie := range [][]byte{{0xFF, 0xFF, 0xFF, 0xFF}, {0x7F, 0xFF, 0xFF, 0xFF}, {0x7F, 0xFF}} {
				msg := bytes.Clone(whole)
				copy(msg[at:], lie)
				limit := uint64(4*footprintLimit(msg) + forTheError) // append takes 1, 2, 4, ... on its way
				got := allocated(limit, func() { _, _ = new(pgoutput.Decoder).Decode(msg) })
				if got > limit {
					t.Errorf("%s: %x took %d bytes, want at most %d", s.name, msg, got, limit)
				}
			}
		}
	}
}

// allocated is what f allocates. Others may allocate at the same time, so one that
// seems to be above the limit is tried again.
func allocated(limit uint64, f func()) (least uint64) {
	for try := range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; try == 0 || n < least {
			least = n
		}
		if least <= limit {
			break
		}
	}
	return least
}
