package source

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cdc/internal/cdc"
	"cdc/internal/source/pgoutput"
)

// ErrProtocol is wrapped by errors about messages that are well formed and
// stand where they must not, or contradict what came before.
var ErrProtocol = errors.New("violation of the replication protocol")

// completer turns the stream's description of a table into a Relation; names
// are the types announced by Y messages. captured false: the table is none of ours.
type completer interface {
	complete(ctx context.Context, raw *pgoutput.Relation, names typeNames) (rel *cdc.Relation, captured bool, err error)
}

// assembler turns messages into events. It does no I/O of its own and keeps
// one of everything: an event is valid until the next message.
//
// Its states are outside (between C and B) and inside a transaction; skip says
// that the one it is inside of was already taken, so that only its relations
// are learnt.
type assembler struct {
	dec       pgoutput.Decoder
	completer completer
	from      cdc.LSN             // transactions that commit before it are left out
	prefixes  map[string]struct{} // of logical messages to deliver
	anyPrefix bool

	inTx     bool
	skip     bool
	lastEnd  cdc.LSN // end of the newest transaction of this connection: commits never go back
	prevEnd  cdc.LSN // end of the newest transaction, also from before this connection
	seen     cdc.LSN // everything before it has been received; never goes back
	index    uint32  // row changes of the transaction so far
	messages uint32  // logical messages of the transaction so far, whatever their prefix
	begun    pgoutput.Begin
	relation map[uint32]*known
	last     *known // of the newest row: rows of one table come in runs
	types    typeNames

	event    cdc.Event
	change   cdc.Change
	tx       cdc.Tx
	prefix   string   // of the newest delivered logical message: they repeat
	truncate []uint32 // tables of the current T message that have yet to be delivered
}

// known is a table the connection has described.
type known struct {
	raw      pgoutput.Relation // a copy
	rel      *cdc.Relation     // nil until the first row needs it
	captured bool
}

func newAssembler(c completer, from, prevEnd cdc.LSN, prefixes []string) *assembler {
	a := &assembler{
		completer: c, from: from, prevEnd: prevEnd, seen: from,
		relation: map[uint32]*known{}, types: typeNames{}, prefixes: map[string]struct{}{},
	}
	for _, p := range prefixes {
		a.prefixes[p] = struct{}{}
		a.anyPrefix = a.anyPrefix || p == "*"
	}
	return a
}

// message takes one message of the stream and returns the event it makes, nil
// for none.
func (a *assembler) message(ctx context.Context, x pgoutput.XLogData) (*cdc.Event, error) {
	if a.skip && len(x.Data) > 0 && isChange(x.Data[0]) {
		return nil, nil
	}
	tag, err := a.dec.Decode(x.Data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	switch tag {
	case pgoutput.TagInsert, pgoutput.TagUpdate, pgoutput.TagDelete:
		return a.row(ctx, tag, x.Start)
	case pgoutput.TagBegin:
		return nil, a.begin()
	case pgoutput.TagCommit:
		return a.commit()
	case pgoutput.TagOrigin:
		return nil, a.origin()
	case pgoutput.TagRelation:
		a.learn()
		return nil, nil
	case pgoutput.TagType:
		t := &a.dec.Type
		a.types[t.OID] = typeName{namespace: string(t.Namespace), name: string(t.Name)}
		return nil, nil
	case pgoutput.TagTruncate:
		return a.truncated(ctx, x.Start)
	case pgoutput.TagMessage:
		return a.logical()
	}
	return nil, fmt.Errorf("%w: message %q", ErrProtocol, byte(tag))
}

// isChange says that a message of this tag concerns nobody in a transaction
// that is left out.
func isChange(tag byte) bool {
	switch pgoutput.Tag(tag) {
	case pgoutput.TagInsert, pgoutput.TagUpdate, pgoutput.TagDelete, pgoutput.TagTruncate, pgoutput.TagMessage:
		return true
	}
	return false
}

func (a *assembler) begin() error {
	b := a.dec.Begin
	switch {
	case a.inTx:
		return fmt.Errorf("%w: transaction %d begins inside transaction %d", ErrProtocol, b.XID, a.begun.XID)
	case b.Final == 0 || b.Final < a.lastEnd:
		return fmt.Errorf("%w: transaction %d commits at %s, before the end %s of the one before it", ErrProtocol, b.XID, b.Final, a.lastEnd)
	}
	a.inTx, a.skip, a.begun, a.index, a.messages = true, b.Final < a.from, b, 0, 0
	a.tx = cdc.Tx{XID: b.XID, Final: b.Final, PrevEnd: a.prevEnd, CommitTime: pgoutput.UnixMicro(b.CommitTime), Origin: ""}
	return nil
}

func (a *assembler) commit() (*cdc.Event, error) {
	c := a.dec.Commit
	switch {
	case !a.inTx:
		return nil, fmt.Errorf("%w: commit at %s without a transaction", ErrProtocol, c.LSN)
	case c.LSN != a.begun.Final:
		return nil, fmt.Errorf("%w: transaction %d began with commit LSN %s and commits at %s", ErrProtocol, a.begun.XID, a.begun.Final, c.LSN)
	case c.End <= c.LSN:
		return nil, fmt.Errorf("%w: transaction %d commits at %s and ends at %s", ErrProtocol, a.begun.XID, c.LSN, c.End)
	}
	skipped := a.skip
	a.inTx, a.skip = false, false
	a.lastEnd = c.End
	a.prevEnd = max(a.prevEnd, c.End)
	a.seen = max(a.seen, c.End)
	if skipped {
		return nil, nil
	}
	a.event = cdc.Event{Kind: cdc.EventCommit, Tx: &a.tx, End: c.End}
	return &a.event, nil
}

func (a *assembler) origin() error {
	if !a.inTx {
		return fmt.Errorf("%w: origin outside a transaction", ErrProtocol)
	}
	a.tx.Origin, a.tx.OriginLSN = string(a.dec.Origin.Name), a.dec.Origin.LSN
	return nil
}

// learn keeps a table's description until a row needs it: in replay mode and
// for the leaves of a partitioned root none ever does. The server sends it
// again unchanged as often as it looks at the table anew, and after a change
// that does not show in it, so the old Relation is always completed again.
func (a *assembler) learn() {
	raw := a.dec.Relation
	raw.Namespace = slices.Clone(raw.Namespace)
	raw.Name = slices.Clone(raw.Name)
	raw.Columns = slices.Clone(raw.Columns)
	for i := range raw.Columns {
		raw.Columns[i].Name = slices.Clone(raw.Columns[i].Name)
	}
	a.relation[raw.ID] = &known{raw: raw}
	a.last = nil
}

func (a *assembler) lookup(ctx context.Context, id uint32) (*known, error) {
	if a.last != nil && a.last.raw.ID == id {
		return a.last, nil
	}
	k := a.relation[id]
	if k == nil {
		return nil, fmt.Errorf("%w: row of relation %d, which was not described", ErrProtocol, id)
	}
	if k.rel == nil {
		rel, captured, err := a.completer.complete(ctx, &k.raw, a.types)
		if err != nil {
			return nil, fmt.Errorf("describe table %s.%s: %w", k.raw.Namespace, k.raw.Name, err)
		}
		k.rel, k.captured = rel, captured
	}
	a.last = k
	return k, nil
}

// row makes the change of an insert, update or delete.
func (a *assembler) row(ctx context.Context, tag pgoutput.Tag, at cdc.LSN) (*cdc.Event, error) {
	if !a.inTx {
		return nil, fmt.Errorf("%w: row outside a transaction", ErrProtocol)
	}
	row := &a.dec.Row
	k, err := a.lookup(ctx, row.Relation)
	if err != nil {
		return nil, err
	}
	a.index++
	if !k.captured {
		return nil, nil
	}
	c := &a.change
	*c = cdc.Change{Relation: k.rel, Tx: &a.tx, LSN: at, Index: a.index, OldFull: row.Kind == pgoutput.OldFull}
	if tag != pgoutput.TagDelete {
		if len(row.New) != len(k.rel.Columns) {
			return nil, columnMismatch(k, len(row.New))
		}
		c.New = row.New
	}
	if row.Kind != pgoutput.OldNone {
		if len(row.Old) != len(k.rel.Columns) {
			return nil, columnMismatch(k, len(row.Old))
		}
		c.Old = row.Old
	}
	switch tag {
	case pgoutput.TagInsert:
		c.Op = cdc.OpInsert
	case pgoutput.TagUpdate:
		c.Op = cdc.OpUpdate
		if c.Old != nil {
			fillUnchanged(c, k.raw.Columns)
		}
	default:
		c.Op = cdc.OpDelete
	}
	a.event = cdc.Event{Kind: cdc.EventChange, Change: c, Tx: &a.tx}
	return &a.event, nil
}

func columnMismatch(k *known, n int) error {
	return fmt.Errorf("%w: row of %s.%s has %d columns, the table was described with %d",
		ErrProtocol, k.raw.Namespace, k.raw.Name, n, len(k.raw.Columns))
}

// fillUnchanged puts the true value where the new row says "unchanged": from
// the full old row, or, for a key stored out of line, from the old key.
func fillUnchanged(c *cdc.Change, cols []pgoutput.Column) {
	for i := range c.New {
		if c.New[i].Kind == cdc.Unchanged && (c.OldFull || cols[i].Identity) && c.Old[i].Kind == cdc.Text {
			c.New[i] = c.Old[i]
		}
	}
}

// truncated begins the delivery of a T message: one change a table.
func (a *assembler) truncated(ctx context.Context, at cdc.LSN) (*cdc.Event, error) {
	if !a.inTx {
		return nil, fmt.Errorf("%w: truncate outside a transaction", ErrProtocol)
	}
	a.truncate = a.dec.Truncate.Relations
	a.change.LSN = at
	return a.nextTruncated(ctx)
}

// pending says that the newest message has more events: ask nextTruncated.
func (a *assembler) pending() bool { return len(a.truncate) > 0 }

func (a *assembler) nextTruncated(ctx context.Context) (*cdc.Event, error) {
	for len(a.truncate) > 0 {
		id := a.truncate[0]
		a.truncate = a.truncate[1:]
		k, err := a.lookup(ctx, id)
		if err != nil {
			return nil, err
		}
		a.index++
		if !k.captured {
			continue
		}
		a.change = cdc.Change{Op: cdc.OpTruncate, Relation: k.rel, Tx: &a.tx, LSN: a.change.LSN, Index: a.index}
		a.event = cdc.Event{Kind: cdc.EventChange, Change: &a.change, Tx: &a.tx}
		return &a.event, nil
	}
	return nil, nil
}

// logical delivers a logical message of a configured prefix. One that is not
// transactional stands outside transactions, comes once even if its transaction
// rolls back, and is known by its LSN alone.
func (a *assembler) logical() (*cdc.Event, error) {
	m := &a.dec.Logical
	if m.Transactional != a.inTx {
		return nil, fmt.Errorf("%w: logical message at %s, transactional: %t, inside a transaction: %t",
			ErrProtocol, m.LSN, m.Transactional, a.inTx)
	}
	if !m.Transactional {
		a.seen = max(a.seen, m.LSN) // its end is a position to resume from like a transaction's
		if m.LSN <= a.from {
			return nil, nil
		}
	}
	if _, ok := a.prefixes[string(m.Prefix)]; !ok && (!a.anyPrefix || string(m.Prefix) == pulsePrefix) {
		if m.Transactional {
			a.messages++ // numbers do not depend on the configured prefixes
		}
		return nil, nil
	}
	if a.prefix != string(m.Prefix) {
		a.prefix = string(m.Prefix)
	}
	a.change = cdc.Change{
		Op: cdc.OpMessage, LSN: m.LSN, Prefix: a.prefix, Content: m.Content, Transactional: m.Transactional,
	}
	a.event = cdc.Event{Kind: cdc.EventChange, Change: &a.change}
	if m.Transactional {
		a.messages++
		a.change.Index, a.change.MessageIndex = a.index, a.messages
		a.change.Tx, a.event.Tx = &a.tx, &a.tx
	}
	return &a.event, nil
}

// keepalive takes the server's position; the event is nil inside a transaction.
func (a *assembler) keepalive(end cdc.LSN, asked bool) *cdc.Event {
	if a.inTx {
		return nil
	}
	a.seen = max(a.seen, end)
	a.event = cdc.Event{Kind: cdc.EventIdle, End: a.seen, Asked: asked}
	return &a.event
}

// tick says that time passed.
func (a *assembler) tick() *cdc.Event {
	a.event = cdc.Event{Kind: cdc.EventTick}
	return &a.event
}
