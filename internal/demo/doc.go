// Package demo shows the whole service on one machine, from nothing to rows in
// topics, and proves the result: a private PostgreSQL, the embedded broker, a
// university under a live workload, a line for each change as a reader of the
// topics sees it, and at the end a comparison of every topic with its table.
//
// A run is, in this order:
//
//	folder    locked for this process; an earlier run in it is continued
//	postgres  found or fetched, started, the university created and filled
//	daemon    broker and pipelines, built from the same file that a user would write
//	play      workload → PostgreSQL → topics → a line per change
//	stop      no more transactions; the pipelines acknowledge the last one and end
//	judge     read the topics, compact them, read them again, compare with the tables
//
// The comparison does not trust the code it judges: PostgreSQL turns each record
// back into a row of the table and compares that with the row it has.
package demo
