// Package intent is the vocabulary of event sourcing: events as they are
// appended and read, and the definitions of event types, folds, views and
// reactions. It holds rules and no I/O, and imports the standard library and
// internal/cdc alone.
package intent
