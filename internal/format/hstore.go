package format

import (
	"slices"
	"unicode/utf8"
)

// pair is an entry of an hstore; key and value lie in the parser's buffer.
type pair struct {
	key, value span
	isNull     bool
	bucket     uint32
}

type span struct{ from, to int }

// hstore writes an hstore. It keeps its buffers from value to value.
type hstore struct {
	buf   []byte
	pairs []pair
	text  []byte
	// Debezium writes the object as text inside a string, and its entries in the
	// order of a java.util.HashMap.
	debezium bool
}

func (h *hstore) append(dst, s []byte) ([]byte, error) {
	if err := h.parse(s); err != nil {
		return dst, err
	}
	if !h.debezium {
		return h.object(dst)
	}
	h.javaOrder()
	var err error
	if h.text, err = h.object(h.text[:0]); err != nil {
		return dst, err
	}
	return appendString(dst, h.text, true)
}

func (h *hstore) object(dst []byte) (_ []byte, err error) {
	dst = append(dst, '{')
	for i, p := range h.pairs {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendString(dst, h.buf[p.key.from:p.key.to], false); err != nil {
			return dst, err
		}
		dst = append(dst, ':')
		if p.isNull {
			dst = append(dst, "null"...)
		} else if dst, err = appendString(dst, h.buf[p.value.from:p.value.to], false); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// parse reads "key"=>"value", "other"=>NULL, the form that hstore_out writes.
func (h *hstore) parse(s []byte) (err error) {
	h.buf, h.pairs = h.buf[:0], h.pairs[:0]
	for len(s) > 0 {
		if len(h.pairs) > 0 {
			if len(s) < 2 || s[0] != ',' || s[1] != ' ' {
				return ErrMalformed
			}
			s = s[2:]
		}
		p := pair{}
		if p.key, s, err = h.quoted(s); err != nil {
			return err
		}
		if len(s) < 2 || s[0] != '=' || s[1] != '>' {
			return ErrMalformed
		}
		s = s[2:]
		if len(s) >= 4 && string(s[:4]) == "NULL" {
			p.isNull, s = true, s[4:]
		} else if p.value, s, err = h.quoted(s); err != nil {
			return err
		}
		h.pairs = append(h.pairs, p)
	}
	return nil
}

func (h *hstore) quoted(s []byte) (at span, rest []byte, err error) {
	if len(s) == 0 || s[0] != '"' {
		return at, nil, ErrMalformed
	}
	at.from = len(h.buf)
	buf, n, err := unquote(h.buf, s)
	if err != nil {
		return at, nil, err
	}
	h.buf, at.to = buf, len(buf)
	return at, s[n:], nil
}

// javaOrder sorts the pairs as a java.util.HashMap iterates over them: by bucket,
// within a bucket by insertion. The table starts with 16 buckets and doubles when
// more than three quarters are taken, which keeps the order within a bucket.
func (h *hstore) javaOrder() {
	buckets := uint32(16)
	for uint64(len(h.pairs)) > uint64(buckets)/4*3 {
		buckets *= 2
	}
	for i := range h.pairs {
		p := &h.pairs[i]
		hash := javaHash(h.buf[p.key.from:p.key.to])
		p.bucket = (hash ^ hash>>16) & (buckets - 1)
	}
	slices.SortStableFunc(h.pairs, func(a, b pair) int { return int(a.bucket) - int(b.bucket) })
}

// javaHash is String.hashCode: over UTF-16 units.
func javaHash(s []byte) (h uint32) {
	for len(s) > 0 {
		r, n := utf8.DecodeRune(s)
		s = s[n:]
		if r < 0x10000 {
			h = 31*h + uint32(r)
			continue
		}
		r -= 0x10000
		h = 31*h + uint32(0xD800+r>>10)
		h = 31*h + uint32(0xDC00+r&0x3FF)
	}
	return h
}
