// Package chunk decides where the rows of a table that is copied in chunks stand
// among the events of its stream, so that the table can be copied while it changes
// and while its events are written. It has no I/O, no goroutine and no clock.
//
// # What is promised
//
// Per key, the topic never goes back: the records of a key are written in the
// order of the states they show. When every event was written and every chunk
// taken, the last record of each key is the table's row, or says that there is
// none, and each row that was never changed was written.
//
// # The order of life
//
//	NewWindow  when a copy begins or is resumed; before Source.Settle
//	Event…     each event of the table, as it is written, chunk or no chunk
//	Open       the events' keys are tracked from here on (opened later, a chunk is
//	           refused for each event meanwhile, and nothing worse)
//	           a reader: snapshot S, the rows in S by key, then H, the log's end
//	Arrive     rows whose key has a tracked event not visible in S are dropped: a
//	           newer state was written. The others are buffered.
//	Event…     of a buffered key. Visible in S: the row is this state or a later
//	           one, it stays. Not visible: the row is written, then the event.
//	Ready      the stream has passed H: all that is visible in S was written
//	Take       the rows that are left, to be written now
//
// # Why marks in the log do not do
//
// Postgres hands a transaction to the stream when its commit record is flushed,
// and shows it to readers after that: with a synchronous standby long after. So
// an event may have been written before a row is read that does not show it, and
// no position in the log divides what a reader sees from what it does not. What
// divides it is the snapshot: a transaction is visible in S or it is not. That
// is asked by its id; the stream has 32 bits of it and the snapshot 64, so ids are
// compared modulo 2^32, as Postgres does.
//
// # The argument
//
// Let k be a key and r the row of k in S. A transaction that changes k waits until
// the one that changed it before is over, and it is over only when it is visible
// (ProcArrayEndTransaction comes before the locks are released). So the events of
// k in the order of the log are a group visible in S followed by a group that is
// not, and r is the state that the first group leaves behind. It is to be shown
// that r is written between the two groups, or not at all when an event of the
// second group was written.
//
// Events of the second group written before Open. Their keys are not tracked:
// that would have no bound. Their transactions are noted, each until some snapshot
// shows it visible, and with one left that S does not show, the chunk is refused.
// Of events written before NewWindow, by an earlier life of the process perhaps,
// nothing is noted: the caller begins the first chunk after Source.Settle, which
// returns when all transactions that had begun at its call are visible; they are
// visible in every later snapshot too.
//
// Between Open and Arrive. If the last event of k is not visible in S, r is
// dropped; else no event of the second group was written, see above on the order
// of the groups. One transaction a key is kept, of maxTracked keys; more, and
// the chunk is refused.
//
// Between Arrive and Take. The first event of the second group takes r with it,
// and r is written before it. At that time the first group is complete, because it
// comes first in the log. r is not thrown away instead: the event may lack columns
// that the update left alone (TOAST), and r is where they are.
//
// At Take. Every transaction visible in S has its commit record before H, because
// H was asked for after S; so the first group is complete when the stream has
// passed H, and none of the second was written, it would have taken r with it.
//
// A key change is an event of the old key and one of the new. A row deleted by
// the first group is not in S; by the second, its delete takes r with it.
//
// TRUNCATE is an event of all keys. Visible in S it is followed by the inserts of
// what is in S, and changes nothing here. Not visible, it empties the buffer, or
// drops all rows on arrival: what it removes need not be written first.
//
// A change of the table's shape spoils the chunk: its rows have the old one.
//
// # What the caller owes
//
//   - Event and Truncate are called for every event in the order it is written, and
//     what was told is written, or the window goes with the life of the process.
//   - Open is called before the reader begins, and when no reader of a dropped
//     chunk is under way: the answer of that one would be taken for this one's.
//   - The reader holds ACCESS SHARE on the table from before S until after H, so
//     that S, the rows and their columns are of one shape.
//   - Between Open and Arrive an event is written with all its columns: the row
//     that has them may be dropped for it. Where it cannot be: Spoil.
//   - When the stream's connection is lost, the chunk is dropped (Drop). A server
//     that crashed forgets commits that were not flushed, though S may show them,
//     and gives out their ids and their places in the log anew. What was noted
//     stays right: all that was streamed had been flushed.
//   - Between two chunks of one window fewer than 2^31 transactions begin. A copy
//     that rests (paused, or done) gets a new window and settles again.
package chunk
