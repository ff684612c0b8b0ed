// Package eventpipe runs a pipeline of mode: events.
//
//	es.append ─▶ es.event ─▶ WAL ─▶ numbering ─▶ es.log ─┬▶ publication ─▶ topics
//	      └ inline views, in the same transaction        ├▶ views
//	                                                     └▶ reactions ─▶ es.append
//
// The parts are supervised one by one: an error that can pass starts a part again
// after a pause, one that cannot ends that part alone, and readiness says so. Only
// numbering touches the slot, and it writes to Postgres alone: whatever happens to
// Kafka, to a view or to a reaction, no WAL is held and the log goes on.
package eventpipe
