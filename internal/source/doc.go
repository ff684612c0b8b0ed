// Package source reads Postgres: the logical replication stream, the slot and
// the publication it comes from, the tables behind it and their first snapshot.
//
// The stream has one owner. Whoever calls Stream.Next reads the connection and
// writes the standby status on it, so a slow sink never trips
// wal_sender_timeout (it calls Stream.Tick instead of Next) and no message is
// ever half written. What the owner sees, in the order of the database's
// commits:
//
//	EventChange …  the changes of one transaction, between its B and its C
//	EventCommit    its end: the position to resume from and to confirm
//	EventIdle      nothing is open and the server has sent everything up to End
//	EventTick      time passed; do the housekeeping
//
// Positions: a transaction is known by the start of its commit record
// (final_lsn), resumed and confirmed at the end of it (end_lsn). A row's own
// LSN is information and is never compared.
package source
