package pipeline

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
	"cdc/internal/format"
)

// check compares one table with its topic.
type check struct {
	c      *capture
	record TableRecord // as which the topic was filled
	topic  cdc.TopicState
	format *format.Format
	parts  []checkPart
	cmp    *compaction.Comparison

	rows rowSide

	mu     sync.Mutex
	why    string // not empty: unchecked
	mend   string
	remark string // of a table that is not unchecked

	samples []pendingSample
	found   cdc.Verification // once compared
}

// rowSide takes the rows of the table: one goroutine.
type rowSide struct {
	rel    *cdc.Relation
	enc    *format.Encoder
	digest *format.Digester
	writer *compaction.CompareWriter
	id     []byte
	over   bool // the check was given up for a row
}

// checkPart is one partition of the topic, read by one goroutine at a time.
type checkPart struct {
	tp     cdc.TopicPartition
	start  int64 // first offset when the reading began
	before int64 // end before the snapshot was begun
	end    int64 // read up to here so far
	last   cdc.Position
	// doubtful are records from before the snapshot whose values may be newer than
	// it: see doubt.
	doubtful map[int64]struct{}
	doubtAll bool // there were too many
}

// maxDoubtful bounds checkPart.doubtful.
const maxDoubtful = 100_000

func newCheck(l *life, c *capture) *check {
	return &check{c: c, format: l.format}
}

func (k *check) name() string { return k.c.table.FullName() }

// unchecked says why nothing can be said about the table, "" where it can.
func (k *check) unchecked() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.why
}

// giveUp ends the check without a verdict. The first reason stays.
func (k *check) giveUp(mend, format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.why == "" {
		k.why, k.mend = fmt.Sprintf(format, args...), mend
	}
}

// begin takes down where the topic stands.
func (k *check) begin(starts, before map[cdc.TopicPartition]int64) {
	var cut []string
	for i := range k.parts {
		p := &k.parts[i]
		p.start, p.before, p.end = starts[p.tp], before[p.tp], starts[p.tp]
		if p.start > 0 {
			cut = append(cut, fmt.Sprintf("%d at offset %d", i, p.start))
		}
	}
	if len(cut) > 0 {
		k.remark = "records were removed from the beginning of the topic: its partitions begin, " + strings.Join(cut, ", ")
	}
}

// row takes a row of the snapshot. A row that cannot be written in the format ends
// the check: the pipeline cannot have written it either.
func (k *check) row(c *cdc.Change) error {
	s := &k.rows
	if s.rel != c.Relation {
		enc, err := k.format.Compile(c.Relation)
		if err != nil {
			return fmt.Errorf("table %s: %w", k.name(), err)
		}
		s.rel, s.enc, s.digest = c.Relation, enc, k.format.NewDigester(enc.Columns())
	}
	if s.writer == nil {
		s.writer = k.cmp.Writer()
	}
	s.id = appendRowID(s.id[:0], c)
	err := s.enc.Encode(c, k)
	var bad *format.ValueError
	if errors.As(err, &bad) {
		s.over = true
		k.giveUp("", "a row cannot be written in this format: %s", bad)
		return nil
	}
	return err
}

// Emit implements format.Emitter for the row in hand.
func (k *check) Emit(r *cdc.Record) error {
	dig, _, _, err := k.rows.digest.Digest(r.Value)
	if err != nil {
		return fmt.Errorf("table %s: %w", k.name(), err)
	}
	return k.rows.writer.Row(r.Key, k.rows.id, dig)
}

// appendRowID appends the text of the key columns, each behind its length.
func appendRowID(dst []byte, c *cdc.Change) []byte {
	for _, at := range c.Relation.Key {
		dst = binary.AppendUvarint(dst, uint64(len(c.New[at].Data)))
		dst = append(dst, c.New[at].Data...)
	}
	return dst
}

// rowKey takes apart what appendRowID made.
func rowKey(id []byte) []string {
	var key []string
	for len(id) > 0 {
		n, width := binary.Uvarint(id)
		if width <= 0 || n > uint64(len(id)-width) {
			panic("pipeline: the id of a row is torn") // ours, and held in our own files
		}
		key = append(key, string(id[width:width+int(n)]))
		id = id[width+int(n):]
	}
	return key
}

// compare finds the differences, once both sides are read.
func (k *check) compare(ctx context.Context, r *verification) error {
	doubted := int64(0)
	v, err := k.cmp.Differences(func(d compaction.Difference) error {
		if d.Kind == compaction.DifferenceDifferent && k.doubts(d.Partition, d.Offset) {
			doubted++
			return nil
		}
		if len(k.samples) < verifySamples {
			k.samples = append(k.samples, pending(d))
		}
		if r.o.Difference == nil {
			return nil
		}
		out := VerifyDifference{Table: k.name(), Kind: d.Kind, Key: d.Key, Partition: d.Partition, Offset: d.Offset}
		if d.Kind != compaction.DifferenceGhost {
			out.Row = rowKey(d.ID)
		}
		return r.o.Difference(out)
	})
	if errors.Is(err, compaction.ErrTwoPartitions) {
		k.giveUp("", "%s", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("compare table %s: %w", k.name(), err)
	}
	k.found = v
	k.found.Different -= doubted
	k.found.Superseded += doubted
	k.found.Samples = k.show(ctx, r)
	if err := k.cmp.Close(); err != nil {
		return fmt.Errorf("compare table %s: %w", k.name(), err)
	}
	k.cmp = nil
	return ctx.Err()
}

// result is what is told of the check.
func (k *check) result(r *verification) Verified {
	v := k.found
	v.Pipeline, v.Subject, v.Topic = r.l.cfg.Name, k.name(), k.c.topic
	v.LSN, v.At, v.Took = r.at, time.Now().UTC(), time.Since(r.began)
	v.Why = k.remark
	switch {
	case k.why != "":
		v = cdc.Verification{Pipeline: v.Pipeline, Subject: v.Subject, Topic: v.Topic, LSN: v.LSN, At: v.At, Took: v.Took,
			Verdict: cdc.VerdictUnchecked, Why: k.why, Mend: k.mend}
	case v.Differences() > 0:
		v.Verdict = cdc.VerdictDifferent
		v.Mend = fmt.Sprintf("cdc repair --pipeline %s %s", r.l.cfg.Name, tableArgument(k.c.table))
	default:
		v.Verdict = cdc.VerdictEqual
	}
	ends := make(map[int32]int64, len(k.parts))
	for _, p := range k.parts {
		ends[p.tp.Partition] = p.end
	}
	return Verified{Verification: v, Ends: ends}
}

func (k *check) close(log *slog.Logger) {
	if k.cmp == nil {
		return
	}
	if err := k.cmp.Close(); err != nil {
		log.Warn("remove the files of a comparison", "table", k.name(), "error", err)
	}
	k.cmp = nil
}

// tableArgument writes a table as the command line takes it: names with anything
// but letters, digits and '_' in double quotes, and then all of it in single ones.
func tableArgument(t cdc.Table) string {
	quote := func(s string) string {
		for _, r := range s {
			if r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
				return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
			}
		}
		return s
	}
	s := quote(t.Namespace) + "." + quote(t.Name)
	if strings.Contains(s, `"`) {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}
