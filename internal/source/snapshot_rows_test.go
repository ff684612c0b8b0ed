package source

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdc"
)

// run feeds chunks to a sequence as Next does and returns "table:row mark".
func run(t *testing.T, pieces []int, chunks []chunk) (rows []string, marks []cdc.SnapshotMark) {
	t.Helper()
	q := &sequence{}
	for _, n := range pieces {
		q.tables = append(q.tables, sequenceTable{pieces: n})
	}
	take := func(r snapshotRow) {
		rows = append(rows, fmt.Sprintf("%d:%s", r.table, r.data))
		marks = append(marks, r.mark)
	}
	for {
		r, want, err := q.next()
		switch {
		case err != nil:
			t.Fatal(err)
		case want == haveRow:
			take(r)
			continue
		case want == freeChunk:
			c := q.release()
			for i := range c.data { // the buffer is somebody else's now
				c.data[i] = '#'
			}
			continue
		}
		if len(chunks) == 0 {
			if r, ok := q.last(); ok {
				take(r)
			}
			return rows, marks
		}
		c := chunks[0]
		chunks = chunks[1:]
		q.add(&c)
	}
}

func TestMarksOfSmallSnapshots(t *testing.T) {
	rows := func(s ...string) []byte { return []byte(strings.Join(s, "\n") + "\n") }
	for _, c := range []struct {
		name   string
		pieces []int
		chunks []chunk
		want   []cdc.SnapshotMark
	}{
		{"nothing", []int{0}, nil, nil},
		{"empty piece", []int{1}, []chunk{{done: true}}, nil},
		{"one row", []int{1}, []chunk{{data: rows("a"), done: true}}, []cdc.SnapshotMark{cdc.MarkLast}},
		{"two rows", []int{1}, []chunk{{data: rows("a", "b"), done: true}}, []cdc.SnapshotMark{cdc.MarkFirst, cdc.MarkLast}},
		{"two tables of one row", []int{1, 1}, []chunk{{data: rows("a"), done: true}, {table: 1, data: rows("b"), done: true}},
			[]cdc.SnapshotMark{cdc.MarkFirst, cdc.MarkLast}},
		{"three tables of one row, an empty one last", []int{1, 1, 1, 1}, []chunk{{data: rows("a"), done: true}, {table: 1, data: rows("b"), done: true}, {table: 2, data: rows("c"), done: true}, {table: 3, done: true}},
			[]cdc.SnapshotMark{cdc.MarkFirst, cdc.MarkLastInTable, cdc.MarkLast}},
		{"two tables of three", []int{1, 1}, []chunk{{data: rows("a", "b", "c"), done: true}, {table: 1, data: rows("d", "e", "f"), done: true}},
			[]cdc.SnapshotMark{cdc.MarkFirst, cdc.MarkTrue, cdc.MarkLastInTable, cdc.MarkFirstInTable, cdc.MarkTrue, cdc.MarkLast}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, got := run(t, c.pieces, c.chunks); !slices.Equal(got, c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
		})
	}
}

// Any interleaving of chunks gives every row once and the marks the rows'
// places call for.
func TestSequenceAgainstOracle(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 3))
	for range 2000 {
		pieces := make([]int, 1+rng.IntN(4))
		var queues [][]chunk // chunks of one piece keep their order
		var want []string
		for table := range pieces {
			pieces[table] = rng.IntN(4)
			for piece := range pieces[table] {
				var queue []chunk
				for n := range rng.IntN(4) {
					c := chunk{table: table}
					for r := range rng.IntN(3) {
						text := fmt.Sprintf("%d.%d.%d", piece, n, r)
						want = append(want, fmt.Sprintf("%d:%s", table, text))
						c.data = append(c.data, text+"\n"...)
					}
					queue = append(queue, c)
				}
				queues = append(queues, append(queue, chunk{table: table, done: true}))
			}
		}
		var chunks []chunk
		for len(queues) > 0 {
			i := rng.IntN(len(queues))
			chunks = append(chunks, queues[i][0])
			if queues[i] = queues[i][1:]; len(queues[i]) == 0 {
				queues = slices.Delete(queues, i, i+1)
			}
		}
		got, marks := run(t, pieces, chunks)
		if !slices.Equal(sorted(got), sorted(want)) {
			t.Fatalf("seed %d: got %v, want %v", seed, got, want)
		}
		for i, mark := range marks {
			if want := oracleMark(got, i); mark != want {
				t.Fatalf("seed %d: row %d of %v: got mark %d, want %d", seed, i, got, mark, want)
			}
		}
	}
}

func oracleMark(rows []string, i int) cdc.SnapshotMark {
	table := func(r string) string { return r[:strings.IndexByte(r, ':')] }
	same := func(r string) bool { return table(r) == table(rows[i]) }
	switch {
	case i == len(rows)-1:
		return cdc.MarkLast
	case i == 0:
		return cdc.MarkFirst
	case !slices.ContainsFunc(rows[i+1:], same):
		return cdc.MarkLastInTable
	case !slices.ContainsFunc(rows[:i], same):
		return cdc.MarkFirstInTable
	}
	return cdc.MarkTrue
}

func TestTornChunkIsAnError(t *testing.T) {
	q := &sequence{tables: []sequenceTable{{pieces: 1}}}
	q.add(&chunk{data: []byte("no newline")})
	if _, _, err := q.next(); err == nil {
		t.Fatal("got no error, want one")
	}
}
