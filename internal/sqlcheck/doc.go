// Package sqlcheck tells what a SQL statement of a definition does, so that the
// same events give the same rows whenever and wherever they are applied.
//
// Nothing is guessed from the text: the statement becomes the body of a temporary
// function in the SQL-standard form (BEGIN ATOMIC, PostgreSQL 14), which the server
// parses when the function is created. The parsed tree is read back from
// pg_proc.prosqlbody; the functions, operators, aggregates, casts and relations in
// it are looked up in the catalogue and judged. Nothing is executed, and the
// function is gone when the check returns.
//
// Refused: what gives another answer the next time (volatile functions), what tells
// the clock, the session or the server (now(), current_user, current_setting, …),
// functions of other schemas that are not immutable, relations the caller does not
// allow, system columns, and commands the caller does not allow. Allowed beside
// immutable functions are those stable functions of PostgreSQL that depend on
// nothing but their arguments and on settings that every caller pins (time zone,
// date style).
//
// Not seen: a user's function that is declared immutable and is not; a text that is
// turned into a time while the statement runs and says 'now'; rows picked by a LIMIT
// without a full ORDER BY. Comparing a view with a replay shows them.
package sqlcheck
