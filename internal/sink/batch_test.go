package sink

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdc"
)

type wantRecord struct {
	r cdc.Record
	s cdc.Stamp
}

func randomBytes(r *rand.Rand, most int) []byte {
	switch r.IntN(5) {
	case 0:
		return nil
	case 1:
		return []byte{}
	}
	b := make([]byte, r.IntN(most)+1)
	for i := range b {
		b[i] = byte(r.IntN(4)) // compressible
	}
	return b
}

// What the encoder wrote is what the parser reads, for every codec.
func TestBatchRoundTrip(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var b batch
		b.reset(&Target{})
		var want []wantRecord
		for range 1 + r.IntN(300) {
			w := wantRecord{r: cdc.Record{Key: randomBytes(r, 20), Value: randomBytes(r, 400), Time: 1_700_000_000_000 + r.Int64N(1<<33) - 1<<32}}
			for range r.IntN(3) {
				w.r.Headers = append(w.r.Headers, cdc.Header{Key: strings.Repeat("h", r.IntN(100)), Value: randomBytes(r, 100)})
			}
			if r.IntN(4) > 0 {
				w.s = cdc.Stamp{Generation: cdc.Generation(r.Uint32()), Position: cdc.Position{Tx: cdc.LSN(r.Uint64()), Change: r.Uint32(), Record: r.Uint32()}}
			}
			stamped := w.s != cdc.Stamp{}
			before := len(b.buf)
			body, all := b.recordLen(&w.r, stamped)
			b.add(&w.r, w.s, stamped, body)
			if got := len(b.buf) - before; got != all {
				t.Fatalf("seed %d: record of %d bytes, recordLen said %d", seed, got, all)
			}
			want = append(want, w)
		}
		c := []codec{codecNone, codecSnappy, codecLZ4, codecZstd}[seed%4]
		b.pack(c)
		b.seal(producer{id: 4711, epoch: 3}, 99)
		h, rest, ok, err := splitBatch(append(slices.Clone(b.wire), "cut off"...))
		if err != nil || !ok || string(rest) != "cut off" {
			t.Fatalf("seed %d: split: ok %v, rest %q, err %v", seed, ok, rest, err)
		}
		if h.producer != (producer{4711, 3}) || h.count != int32(len(want)) || h.last != int64(len(want)-1) {
			t.Fatalf("seed %d: head %+v", seed, h)
		}
		it, _, err := h.iterate(nil)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		var m Message
		n := 0
		for it.next(&m, func(b []byte) string { return string(b) }) {
			w := want[n]
			headers := w.r.Headers
			if (w.s != cdc.Stamp{}) {
				headers = append([]cdc.Header{{Key: cdc.StampHeader, Value: cdc.AppendStamp(nil, w.s)}}, headers...)
			}
			got := wantRecord{r: cdc.Record{Key: m.Key, Value: m.Value, Time: m.Time, Headers: slices.Clone(m.Headers)}}
			if len(got.r.Headers) == 0 {
				got.r.Headers = nil
			}
			if !reflect.DeepEqual(got.r, cdc.Record{Key: w.r.Key, Value: w.r.Value, Time: w.r.Time, Headers: headers}) || m.Offset != int64(n) {
				t.Fatalf("seed %d: record %d at %d\ngot  %+v\nwant %+v", seed, n, m.Offset, got.r, w)
			}
			n++
		}
		if it.err() != nil || n != len(want) {
			t.Fatalf("seed %d: %d records, want %d: %v", seed, n, len(want), it.err())
		}
	}
}

func TestSequenceWraps(t *testing.T) {
	for _, c := range []struct{ s, n, want int32 }{
		{0, 5, 5}, {1<<31 - 1, 1, 0}, {1<<31 - 3, 10, 7}, {1<<31 - 2, 1, 1<<31 - 1},
	} {
		if got := nextSequence(c.s, c.n); got != c.want {
			t.Errorf("%d records from %d: next is %d, want %d", c.n, c.s, got, c.want)
		}
	}
}

// sealed is a batch of n records as it stands in a log at an offset.
func sealed(c codec, n int, value string) []byte {
	var b batch
	b.reset(&Target{})
	for i := range n {
		r := cdc.Record{Key: fmt.Append(nil, i), Value: []byte(value), Time: 1_700_000_000_000}
		body, _ := b.recordLen(&r, true)
		b.add(&r, stampAt(uint64(i)+1), true, body)
	}
	b.pack(c)
	b.seal(producer{1, 1}, 0)
	return slices.Clone(b.wire)
}

// drain reads all records of a stretch of a log and says what stopped it.
func drain(log []byte) (records int, err error) {
	for {
		h, rest, ok, err := splitBatch(log)
		if err != nil || !ok {
			return records, err
		}
		log = rest
		it, _, err := h.iterate(nil)
		if err != nil {
			return records, err
		}
		var m Message
		for it.next(&m, func(b []byte) string { return string(b) }) {
			records++
		}
		if it.err() != nil {
			return records, it.err()
		}
		h.marker()
	}
}

func FuzzRecordBatch(f *testing.F) {
	for _, c := range []codec{codecNone, codecSnappy, codecLZ4, codecZstd} {
		f.Add(sealed(c, 3, strings.Repeat("a", 50)), false)
		f.Add(sealed(c, 1, ""), true)
	}
	f.Add(bytes.Repeat([]byte{0}, 80), true)
	f.Fuzz(func(t *testing.T, log []byte, fix bool) {
		if fix && len(log) >= headerLen { // let lies get past the checksum
			fixChecksum(log)
		}
		_, _ = drain(log) // must neither panic nor take memory that is not there
	})
}
