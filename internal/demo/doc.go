// Package demo shows the whole service on one machine, from nothing to records in
// topics, and proves the result: a private PostgreSQL, the embedded broker, a
// university under a live workload in both modes at once, a line for each change and
// each intent as a reader of the topics sees it, and at the end a comparison of
// everything with what it came from.
//
// Students, courses and feedback are rows of tables. Enrolments and waiting lists
// follow from events, which the workload appends in the transactions that write the
// rows; as inline views they are tables too. One pipeline captures all tables, another
// publishes the events: the same transactions, as what is and as what was meant.
//
// A run is, in this order:
//
//	folder    locked for this process; an earlier run in it is continued
//	postgres  found or fetched, started, store and university created and filled
//	daemon    broker and pipelines, built from the same file that a user would write
//	play      workload → PostgreSQL → topics → a line per change and intent;
//	          half-way a reaction and a view are added, and nothing else is touched
//	stop      no more transactions; the pipelines reach the last one, and what the
//	          reaction made of it; views are compared with a replay; the pipelines end
//	judge     read the topics, compact them, read them again; compare the topics of
//	          states with the tables, those of intents with the events of the store
//
// The comparison does not trust the code it judges: PostgreSQL turns each record of a
// state back into a row and compares that with the row it has, and compares each
// record of an intent, text by text, with the event as it writes it.
package demo
