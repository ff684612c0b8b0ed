// Package api serves the event store over HTTP, for whatever does not speak SQL.
//
//	POST /v1/append                       append events to streams, all or none
//	GET  /v1/streams/{stream}             events of a stream: from, to
//	GET  /v1/streams/{stream}/state       its state: version or at
//	GET  /v1/log                          events in commit order: after, type, wait, limit
//	GET  /v1/views/{view}                 rows of a view: token, timeout, limit, and columns
//	GET  /v1/views/{view}/wait            204 once the view has applied an event: token, timeout
//
// # Append
//
// {"batches":[{"stream","expect","events":[{"id","type","schema","data","meta","subjects"}]}]}:
// expect is any (where it is missing), none, some or a version; a batch without
// events only checks its stream. The answer is {"streams":[{"stream","version"}],
// "duplicate","token"}. Appending the same ids again gives the same answer and
// changes nothing. An event without an id gets one here: to send it again would
// append it again. "behind" in the answer says that an inline view in another Postgres
// could not be reached at the end, and follows. Keys that are not known, keys given twice and anything behind the
// object are refused.
//
// # Names of streams
//
// A stream's name stands in the path as it is, slashes too: /v1/streams/course/ddia.
// Behind it /state, written like this, asks for the state. The stream course/state
// is written with its slash as %2F: /v1/streams/course%2Fstate; and its state is
// /v1/streams/course%2Fstate/state. Likewise a name with a double slash, or with a
// part that is a dot or two, which a client or this server would clean away.
//
// # Events and rows
//
// They come as NDJSON, a line each, while they are read: memory does not grow with
// their number, and no connection to Postgres waits for a slow client. An error in
// the middle is a last line {"error":…}, and the connection breaks off: an answer
// that ends as HTTP says is whole.
//
// The log is followed in two ways. NDJSON: the answer ends where the log ended when
// it began (header Cdc-Position); with wait it does not begin before there is
// something to say. The next request goes on after the last line's position, or,
// where fewer lines than limit came, after Cdc-Position. With Accept:
// text/event-stream it goes on: id is the position, event the type, data the event;
// a client that comes back sends Last-Event-ID, as browsers do by themselves.
//
// # Errors
//
// {"error":{"code","message",…}}, with what the code has to say beside it:
//
//	400 malformed    the request cannot be read: path and, in a body, byte offset
//	404 not-found    no such stream, view, event, fold or path
//	405 method       the path answers other methods
//	409 conflict     the stream has another version: stream, expected, actual
//	410 closed       the stream is closed: stream
//	403 cross-origin a page of another site asks, from a browser
//	413 too-large    the body is larger than this server takes
//	422 invalid      the store refuses it, now and whenever it comes again: path
//	425 too-early    the event waited for is of a transaction that is still open
//	503 busy         too many requests of this kind at once: try again
//	503 unavailable  the store cannot be reached, or is stopping: try again
//	504 timeout      the view has not applied the event in time
//	500 internal     what should not happen; the log of the daemon has it
package api
