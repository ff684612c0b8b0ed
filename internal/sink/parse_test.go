package sink

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"

	"cdc/internal/cdc"
)

func fixChecksum(batch []byte) {
	end := len(batch)
	if n := int(binary.BigEndian.Uint32(batch[atLength:])) + atLeaderEpoch; n >= headerLen && n <= end {
		end = n
	}
	binary.BigEndian.PutUint32(batch[atCRC:], crc32.Checksum(batch[atAttributes:end], castagnoli))
}

func TestLyingBatchesAreRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		lie  func(b []byte) []byte
		want string
	}{
		{"checksum", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, "checksum"},
		{"too short for a header", func(b []byte) []byte { binary.BigEndian.PutUint32(b[atLength:], 12); return b }, "record batch of 12 bytes"},
		{"negative length", func(b []byte) []byte { binary.BigEndian.PutUint32(b[atLength:], 0xfffffff0); return b }, "record batch of -16 bytes"},
		{"message set v1", func(b []byte) []byte { b[atMagic] = 1; return b }, "format v1"},
		{"message set v0", func(b []byte) []byte { b[atMagic] = 0; return b }, "format v0"},
		{"format of the future", func(b []byte) []byte { b[atMagic] = 3; return b }, "record batch format 3"},
		{"negative offset delta", func(b []byte) []byte { binary.BigEndian.PutUint32(b[atLastOffsetDelta:], 0xffffffff); return b }, "offset 0 to +-1"},
		{"more records than offsets", func(b []byte) []byte { binary.BigEndian.PutUint32(b[atCount:], 4); return b }, "4 records"},
		{"fewer records than bytes", func(b []byte) []byte { binary.BigEndian.PutUint32(b[atCount:], 2); return b }, "bytes too many"},
		{"more offsets than records is compaction", func(b []byte) []byte { binary.BigEndian.PutUint32(b[atLastOffsetDelta:], 9); return b }, ""},
		{"unknown codec", func(b []byte) []byte { b[atAttributes+1] = 7; return b }, "compression 7"},
		{"says snappy and is not", func(b []byte) []byte { b[atAttributes+1] = byte(codecSnappy); return b }, "snappy"},
		{"says zstd and is not", func(b []byte) []byte { b[atAttributes+1] = byte(codecZstd); return b }, "zstd"},
		{"says gzip and is not", func(b []byte) []byte { b[atAttributes+1] = byte(codecGzip); return b }, "gzip"},
		{"says lz4 and is not", func(b []byte) []byte { b[atAttributes+1] = byte(codecLZ4); return b }, "decompress"},
		{"record longer than the batch", func(b []byte) []byte { b[headerLen] = 0xfe; b[headerLen+1] = 0x7f; return b }, "bytes wanted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.lie(sealed(codecNone, 3, "value"))
			if c.name != "checksum" {
				fixChecksum(b)
			}
			_, err := drain(b)
			if c.want == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestTruncatedBatchIsNotABatch(t *testing.T) {
	whole := sealed(codecNone, 3, "value")
	for n := range whole {
		if _, _, ok, err := splitBatch(whole[:n]); ok || err != nil {
			t.Fatalf("%d of %d bytes: ok %v, err %v; want neither", n, len(whole), ok, err)
		}
	}
}

func TestDecompressionBombIsRefused(t *testing.T) {
	bomb := make([]byte, maxInflated+1)
	for _, c := range []codec{codecLZ4, codecZstd, codecSnappy} {
		packed := c.compress(nil, bomb)
		out, err := c.decompress(nil, packed)
		if err == nil {
			t.Errorf("codec %d: %d bytes became %d", c, len(packed), len(out))
		}
	}
}

func TestSnappyOfJavaIsRead(t *testing.T) {
	want := strings.Repeat("snappy in blocks ", 100)
	framed := append(slices.Clone(xerial), 0, 0, 0, 1, 0, 0, 0, 1)
	for _, part := range []string{want[:700], want[700:]} {
		block := s2.EncodeSnappy(nil, []byte(part))
		framed = append(binary.BigEndian.AppendUint32(framed, uint32(len(block))), block...)
	}
	got, err := codecSnappy.decompress(nil, framed)
	if err != nil || string(got) != want {
		t.Fatalf("got %q, %v", got, err)
	}
	for n := range framed {
		if n < len(xerial) {
			continue
		}
		_, _ = codecSnappy.decompress(nil, framed[:n]) // must not panic
	}
}

func FuzzFetchAnswer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, int16(11))
	f.Fuzz(func(t *testing.T, frame []byte, v int16) {
		v = fetchMin + (v&0x7fff)%(fetchMax-fetchMin+1)
		req := &fetchRequest{parts: []fetchPart{{tp: cdc.TopicPartition{Topic: "t"}}}}
		fs, err := parseFetch(frame, v, 1, req)
		if err == nil {
			for _, p := range fs {
				_, _ = drain(p.records)
			}
		}
	})
}

func FuzzProduceAnswer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, int16(8))
	f.Fuzz(func(t *testing.T, frame []byte, v int16) {
		v = produceMin + (v&0x7fff)%(produceMax-produceMin+1)
		b := &batch{target: &Target{tp: cdc.TopicPartition{Topic: "t"}}}
		out, err := parseProduce(frame, v, 1, []*batch{b}, nil)
		if err == nil && (len(out) != 1 || out[0].code == unanswered) {
			t.Fatalf("accepted an answer that leaves the batch out: %+v", out)
		}
	})
}

func TestProduceAnswerLeavesNothingOut(t *testing.T) {
	b := &batch{target: &Target{tp: cdc.TopicPartition{Topic: "t"}}}
	frame := []byte{0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0} // no topic at all
	if _, err := parseProduce(frame, 8, 9, []*batch{b}, nil); !errors.Is(err, errMalformed) {
		t.Fatalf("got %v, want %v", err, errMalformed)
	}
}
