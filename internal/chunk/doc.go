// Package chunk decides where the rows of a table that is copied in chunks stand
// among the events of its stream.
package chunk
