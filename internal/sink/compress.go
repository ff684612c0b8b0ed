package sink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// codec is the compression of a record batch: the low three bits of its attributes.
type codec int16

const (
	codecNone   codec = 0
	codecGzip   codec = 1
	codecSnappy codec = 2
	codecLZ4    codec = 3
	codecZstd   codec = 4
)

// maxInflated bounds what one batch may become when decompressed. A batch that
// we wrote has at most BatchBytes or one record; Kafka's default for a batch is
// 1 MiB compressed. Beyond this a batch is a decompression bomb or needs a
// consumer with more memory than we promise to stay in.
const maxInflated = 128 << 20

// parseCodec reads the name of a codec that a Writer can use; "" is none.
func parseCodec(name string) (codec, error) {
	switch name {
	case "", "none":
		return codecNone, nil
	case "snappy":
		return codecSnappy, nil
	case "lz4":
		return codecLZ4, nil
	case "zstd":
		return codecZstd, nil
	}
	return 0, fmt.Errorf("compression %q: want none, snappy, lz4 or zstd", name)
}

// zstdWindow is the size of a compressed batch: a larger window costs memory and finds nothing more.
const zstdWindow = 256 << 10

var zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(zstdWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
})

var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxInflated), zstd.WithDecodeAllCapLimit(false))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
})

var lz4Writers = sync.Pool{New: func() any {
	w := lz4.NewWriter(nil)
	if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb)); err != nil {
		panic(err) // the option is a constant
	}
	return w
}}

// appender is an io.Writer that appends.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

// compress appends the compressed form of src to dst.
func (c codec) compress(dst, src []byte) []byte {
	switch c {
	case codecSnappy:
		n := s2.MaxEncodedLen(len(src))
		if cap(dst)-len(dst) < n {
			grown := make([]byte, len(dst), len(dst)+n)
			copy(grown, dst)
			dst = grown
		}
		out := s2.EncodeSnappy(dst[len(dst):cap(dst)], src)
		return dst[:len(dst)+len(out)]
	case codecLZ4:
		w := lz4Writers.Get().(*lz4.Writer)
		a := appender{dst}
		w.Reset(&a)
		_, err := w.Write(src)
		if err = errors.Join(err, w.Close()); err != nil {
			panic(err) // appender never fails
		}
		lz4Writers.Put(w)
		return a.b
	case codecZstd:
		return zstdEncoder().EncodeAll(src, dst)
	}
	return append(dst, src...)
}

// decompress appends the decompressed form of src to dst, at most maxInflated bytes.
func (c codec) decompress(dst, src []byte) ([]byte, error) {
	switch c {
	case codecNone:
		return append(dst, src...), nil
	case codecGzip:
		r, err := gzip.NewReader(bytes.NewReader(src))
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return readBounded(dst, r)
	case codecSnappy:
		return unsnappy(dst, src)
	case codecLZ4:
		return readBounded(dst, lz4.NewReader(bytes.NewReader(src)))
	case codecZstd:
		out, err := zstdDecoder().DecodeAll(src, dst)
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return out, nil
	}
	return nil, fmt.Errorf("%w: compression %d is unknown", errMalformed, c)
}

// errInflated says that a batch is larger than maxInflated.
var errInflated = fmt.Errorf("batch has more than %d bytes when decompressed", maxInflated)

func readBounded(dst []byte, r io.Reader) ([]byte, error) {
	a := appender{dst}
	n, err := io.Copy(&a, io.LimitReader(r, maxInflated+1))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	if n > maxInflated {
		return nil, errInflated
	}
	return a.b, nil
}

// xerial is the framing that Java's snappy library puts around its blocks:
// magic, version, compatible version, then blocks with a length each.
var xerial = []byte("\x82SNAPPY\x00")

func unsnappy(dst, src []byte) ([]byte, error) {
	if !bytes.HasPrefix(src, xerial) {
		return unsnappyBlock(dst, src, maxInflated)
	}
	if len(src) < len(xerial)+8 {
		return nil, fmt.Errorf("%w: snappy header cut off", errMalformed)
	}
	left := maxInflated
	for src = src[len(xerial)+8:]; len(src) > 0; {
		if len(src) < 4 {
			return nil, fmt.Errorf("%w: snappy block length cut off", errMalformed)
		}
		n := int64(binary.BigEndian.Uint32(src))
		if src = src[4:]; n > int64(len(src)) {
			return nil, fmt.Errorf("%w: snappy block of %d bytes, %d left", errMalformed, n, len(src))
		}
		had := len(dst)
		var err error
		if dst, err = unsnappyBlock(dst, src[:n], left); err != nil {
			return nil, err
		}
		left -= len(dst) - had
		src = src[n:]
	}
	return dst, nil
}

func unsnappyBlock(dst, src []byte, limit int) ([]byte, error) {
	n, err := s2.DecodedLen(src)
	if err != nil {
		return nil, fmt.Errorf("snappy: %w", err)
	}
	if n > limit {
		return nil, errInflated
	}
	// A snappy block expands at most 64 bytes per 3 (a copy element), so the
	// length is checked against the bytes at hand before it is believed.
	if n > 64*len(src) {
		return nil, fmt.Errorf("%w: snappy block of %d bytes says it holds %d", errMalformed, len(src), n)
	}
	if cap(dst)-len(dst) < n {
		grown := make([]byte, len(dst), len(dst)+n)
		copy(grown, dst)
		dst = grown
	}
	out, err := s2.Decode(dst[len(dst):len(dst)+n], src)
	if err != nil {
		return nil, fmt.Errorf("snappy: %w", err)
	}
	return dst[:len(dst)+len(out)], nil
}
