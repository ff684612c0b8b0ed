// Package reaction appends events when events happen: a query is run for every
// event of its types, and its rows are events.
//
// # Once
//
// A reaction goes through the log from its position, es.reaction.pos. For each event
// of its types, one transaction runs the query, appends its rows and moves the
// position, which it has compared with the one it knows: whoever else runs the
// reaction, and whatever is killed, an event is reacted to once. The ids of the rows
// are derived from the event's (reaction name/1, /2, …), so that a reaction which
// begins anew finds what it has appended before and leaves it as it is.
//
// # In order
//
// A reaction behind a view (after) waits until the view has applied the event, and
// also what the reaction itself appended last: else two cancellations that follow
// each other quickly would offer both places to the first in the waiting list. The
// query sees the view as it is then, which may be further.
//
// # Alone
//
// A query that fails, or gives events that the store refuses, stops its reaction and
// nothing else; es.reaction.error says at which event, and it is tried again, ever
// more seldom, until it passes or is configured anew.
//
// Reactions are no part of views: a view that is built again, from the same log,
// sets off nothing.
package reaction
