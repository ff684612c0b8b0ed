// Package view keeps tables that follow from the log of events: it compiles, checks
// and installs their definitions, keeps them up to date, and builds them anew.
//
// A view is a table and one SQL statement per type of event. The same text runs
// wherever the view is written, as part of two functions in a schema of the build:
//
//	es_b7.apply     takes events as arrays and applies them in their order: async
//	                views, and every build until it is live
//	es_b7.on_event  the trigger of es.event that applies one: live inline views
//
// # Builds
//
// What is in es.view is builds of views. A build is
//
//	building  beside the live one, or alone: it follows the log, nobody reads it
//	live      its table is views.<name>, which everybody reads; at most one of a name
//	retired   replaced; its table is gone
//
// A new view is live at once while the store is empty, and else as soon as its
// first build has caught up: readers never see one that is half full. A view whose
// definition changes keeps its live build until a new one, made beside it, is put
// in its place (Switch).
//
// # Position
//
// es.view.pos is written in the transaction that applies events, and is compared
// when it is: every event up to it is applied, none after it, whoever applies and
// whatever is killed. For a view in another Postgres this holds of es_remote.view
// there; es.view.pos here follows and is never ahead. A live inline view needs no
// position: its rows are committed with the event.
//
// # Faults
//
// A statement that fails stops its view and no other: the events before are applied,
// es.view.error names event and statement, and the event is tried again, ever more
// seldom, until it passes. In a live inline view it fails the append instead.
package view
