// Package cdc is the vocabulary of the service: positions in Postgres' log,
// relations and changes as the source reads them, records as the sink writes
// them. It imports the standard library alone and does no I/O, so every other
// package may import it.
package cdc
