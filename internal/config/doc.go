// Package config reads the one YAML file the daemon is configured by: strictly,
// with every fault of the file reported at once, each with its line, its column
// and what to write instead. It does no other I/O: whether a server can be
// reached or a certificate be read is found out by who needs it.
//
// The way of a file: Parse turns the text into YAML nodes, decode walks them
// along the Go structs (a struct tag is the whole schema: there is no second
// list of keys to forget), defaults are filled in from Default and
// DefaultPipeline, and Validate judges the result. Validate alone serves a
// Config built in code; its faults then have paths but no lines.
//
// A pipeline is of one of two modes, and its keys of the other one are faults. What
// a pipeline of mode: events says of events is judged by internal/intent, whose
// faults come at the places of the keys.
package config
