package pipeline

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/format"
	"cdc/internal/sink"
)

// Values read back for a record when the snapshot was taken already may be newer
// than it: such a record is doubted, and no other.
func TestVerifyDoubts(t *testing.T) {
	at := cdc.LSN(0x1000)
	stampOf := func(generation cdc.Generation, tx cdc.LSN) cdc.Header {
		return cdc.Header{Key: cdc.StampHeader, Value: cdc.AppendStamp(nil, cdc.Stamp{Generation: generation, Position: cdc.Position{Tx: tx, Change: 1, Record: 1}})}
	}
	for _, c := range []struct {
		name    string
		offset  int64
		headers []cdc.Header
		want    bool
	}{
		{"refilled while it was verified", 50, []cdc.Header{stampOf(7, 0xfff), {Key: format.HeaderRefilled}}, true},
		{"incomplete while it was verified", 50, []cdc.Header{stampOf(7, 0xfff), {Key: format.HeaderIncomplete}}, true},
		{"refilled before", 49, []cdc.Header{stampOf(7, 0xfff), {Key: format.HeaderRefilled}}, false},
		{"whole", 50, []cdc.Header{stampOf(7, 0xfff)}, false},
		{"behind the snapshot", 50, []cdc.Header{stampOf(7, 0x1000), {Key: format.HeaderRefilled}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := &check{parts: []checkPart{{before: 50}, {before: 0}}}
			m := &sink.Message{Offset: c.offset, Headers: c.headers}
			stamp, _, err := m.Stamp()
			if err != nil {
				t.Fatal(err)
			}
			if !standsBehind(stamp, 7, at) && m.Offset >= k.parts[0].before {
				k.parts[0].doubt(m)
			}
			if got := k.doubts(0, c.offset); got != c.want {
				t.Errorf("doubted: %t, want %t", got, c.want)
			}
			if k.doubts(1, c.offset) || k.doubts(-1, -1) {
				t.Error("a record of another partition, or none, is doubted")
			}
		})
	}
	p := checkPart{before: 50}
	for i := range int64(maxDoubtful + 1) {
		p.doubt(&sink.Message{Offset: 50 + i, Headers: []cdc.Header{{Key: format.HeaderRefilled}}})
	}
	k := &check{parts: []checkPart{p}}
	if len(p.doubtful) != maxDoubtful || !k.doubts(0, 50+maxDoubtful) || k.doubts(0, 49) {
		t.Errorf("of too many %d are held, want %d and all from 50 on doubted", len(p.doubtful), maxDoubtful)
	}
	if standsBehind(cdc.Stamp{Generation: 6, Position: cdc.Position{Tx: 0x2000}}, 7, at) {
		t.Error("a record of another generation stands behind the snapshot")
	}
}

// What a replay has written again is passed over, where replays happen.
func TestVerifyPassesReplaysOver(t *testing.T) {
	for _, c := range []struct {
		name    string
		replays bool
		txs     []cdc.LSN
		want    []bool
	}{
		{"exactly once", false, []cdc.LSN{1, 2, 1}, []bool{false, false, false}},
		{"at least once", true, []cdc.LSN{1, 2, 1, 2, 2, 3}, []bool{false, false, true, false, false, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := topicSide{p: &checkPart{}, generation: 7, replays: c.replays}
			var got []bool
			for _, tx := range c.txs {
				got = append(got, s.repeated(cdc.Stamp{Generation: 7, Position: cdc.Position{Tx: tx}}))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestRowKeyRoundTrip(t *testing.T) {
	for _, key := range [][]string{{"1"}, {""}, {"", "x", ""}, {"ü\x00", string(make([]byte, 300))}} {
		c := &cdc.Change{Relation: &cdc.Relation{}}
		for i, part := range key {
			c.Relation.Key = append(c.Relation.Key, len(key)-1-i) // the key's own order
			c.New = slices.Insert(c.New, 0, cdc.Value{Kind: cdc.Text, Data: []byte(part)})
		}
		if got := rowKey(appendRowID(nil, c)); !slices.Equal(got, key) {
			t.Errorf("got %q, want %q", got, key)
		}
	}
}

func TestTableArgument(t *testing.T) {
	for _, c := range []struct{ schema, table, want string }{
		{"public", "Orders_1", "public.Orders_1"},
		{"we ird", "t", `'"we ird".t'`},
		{"s", `a.b"c'd`, `'s."a.b""c'\''d"'`},
		{"s", "ü", `'s."ü"'`},
	} {
		if got := tableArgument(cdc.Table{Namespace: c.schema, Name: c.table}); got != c.want {
			t.Errorf("%s.%s: got %s, want %s", c.schema, c.table, got, c.want)
		}
	}
}

// A pace holds readers back once they are ahead of it, and lets go when they are
// told to stop.
func TestPace(t *testing.T) {
	if err := newPace(0).take(t.Context(), 1<<40); err != nil {
		t.Errorf("no limit: got %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	done := make(chan error, 1)
	p := newPace(1)
	go func() { done <- p.take(ctx, 1<<30) }() // 34 years
	select {
	case err := <-done:
		t.Fatalf("nobody was held back: %v", err)
	case <-time.After(50 * time.Millisecond): // long enough to see that it does not return at once
	}
	cancel(over)
	if err := <-done; !errors.Is(err, over) {
		t.Errorf("got %v, want the cause", err)
	}
}
