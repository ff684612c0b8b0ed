package intent

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
)

// ID is an event's id: a UUID. The zero value is none.
type ID [16]byte

// NewID makes a UUID of version 7: in the order of their making to a millisecond,
// which keeps the store's index compact.
func NewID() ID {
	var id ID
	rand.Read(id[:]) // never fails (crypto/rand)
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(time.Now().UnixMilli()))
	copy(id[:6], ms[2:])
	return id.mark(7)
}

// Derive makes the UUID of version 5 of a name in the space of id: the same from
// the same, so that what follows from an event can be appended only once.
func (id ID) Derive(name string) ID {
	h := sha1.New() // RFC 9562 prescribes it; nothing rests on its strength
	h.Write(id[:])
	h.Write([]byte(name))
	var out ID
	copy(out[:], h.Sum(nil))
	return out.mark(5)
}

func (id ID) mark(version byte) ID {
	id[6] = id[6]&0x0f | version<<4
	id[8] = id[8]&0x3f | 0x80
	return id
}

// IsZero says that there is no id.
func (id ID) IsZero() bool { return id == ID{} }

func (id ID) String() string {
	var b [36]byte
	for i, at := range [...]int{0, 9, 14, 19, 24} {
		from, to := [...]int{0, 4, 6, 8, 10}[i], [...]int{4, 6, 8, 10, 16}[i]
		hex.Encode(b[at:], id[from:to])
		if at > 0 {
			b[at-1] = '-'
		}
	}
	return string(b[:])
}

// ParseID reads the canonical form, in either case.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, notID(s)
	}
	plain := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(id[:], []byte(plain)); err != nil {
		return ID{}, notID(s)
	}
	return id, nil
}

// notID does not repeat a text of any length: it comes from outside.
func notID(s string) error {
	const enough = 64
	if len(s) > enough {
		s = s[:enough] + "…"
	}
	return fmt.Errorf("%q is not a UUID, as in 018f4e2c-7b1a-7c3d-9e5f-0a1b2c3d4e5f", s)
}

// MarshalText and UnmarshalText give an ID its canonical form in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}
