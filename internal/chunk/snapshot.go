package chunk

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Snapshot is what pg_current_snapshot() tells of a transaction's snapshot. The
// zero value is no snapshot: nothing is visible in it.
type Snapshot struct {
	xmin, xmax uint64   // 64-bit ids: epoch and 32-bit id
	xip        []uint64 // in progress, strictly ascending, xmin <= id < xmax
}

// idBits: ids are positive as int64, so that the distance of two never overflows.
// Postgres has given out none near 2^63.
const idBits = 63

// maxDistance is how far apart two transaction ids may be that Postgres compares:
// it stops giving out ids before the oldest one in use falls further behind
// (PostgreSQL documentation, "Preventing Transaction ID Wraparound Failures").
const maxDistance = 1 << 31

// ParseSnapshot reads the text form xmin:xmax:xip,…
func ParseSnapshot(text string) (Snapshot, error) {
	fail := func(why string) (Snapshot, error) {
		return Snapshot{}, fmt.Errorf("parse snapshot %.100q: %s: want what pg_current_snapshot() gives, as 10:20:10,14", text, why)
	}
	low, rest, ok := strings.Cut(text, ":")
	high, list, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 {
		return fail("not three parts")
	}
	xmin, err := strconv.ParseUint(low, 10, idBits)
	xmax, err2 := strconv.ParseUint(high, 10, idBits)
	if err != nil || err2 != nil {
		return fail("xmin or xmax is not a transaction id")
	}
	if xmin == 0 || xmin > xmax || xmax-xmin >= maxDistance {
		return fail("xmin and xmax do not fit")
	}
	s := Snapshot{xmin: xmin, xmax: xmax}
	if list == "" {
		return s, nil
	}
	s.xip = make([]uint64, 0, strings.Count(list, ",")+1)
	last := xmin - 1
	for part := range strings.SplitSeq(list, ",") {
		id, err := strconv.ParseUint(part, 10, idBits)
		if err != nil || id <= last || id >= xmax {
			return fail("the transactions in progress are not ids that ascend from xmin to xmax")
		}
		s.xip = append(s.xip, id)
		last = id
	}
	return s, nil
}

// Visible says whether a transaction that has committed, sooner or later, is
// visible in s. The stream has the low 32 bits of an id (Begin's xid, that of the
// transaction and never of a savepoint) and the snapshot all 64, so xid is taken
// for the id nearest to xmax, as Postgres itself compares.
func (s *Snapshot) Visible(xid uint32) bool {
	distance := int32(xid - uint32(s.xmax))
	if distance >= 0 || s.xmax == 0 {
		return false
	}
	id := int64(s.xmax) + int64(distance) // below zero: of no epoch, older than all
	if id < int64(s.xmin) {
		return true
	}
	_, running := slices.BinarySearch(s.xip, uint64(id))
	return !running
}

// XMin is the oldest transaction that was in progress, all 64 bits of its id; all
// before it are over.
func (s *Snapshot) XMin() uint64 { return s.xmin }

// String gives the text form of Postgres.
func (s *Snapshot) String() string {
	b := strconv.AppendUint(nil, s.xmin, 10)
	b = strconv.AppendUint(append(b, ':'), s.xmax, 10)
	for i, id := range s.xip {
		b = strconv.AppendUint(append(b, ":,"[min(i, 1)]), id, 10)
	}
	if len(s.xip) == 0 {
		b = append(b, ':')
	}
	return string(b)
}
