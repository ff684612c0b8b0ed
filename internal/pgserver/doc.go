// Package pgserver finds PostgreSQL's server programs, or fetches them, and runs
// a private cluster with them: for `cdc demo`, which needs nothing installed, and
// for the tests.
//
// Programs are looked for in this order: a directory named by the caller,
// pg_config on the PATH, the folders of the Linux distributions and of Homebrew.
// When none of them has the wanted version, the programs are downloaded once
// into the user's cache, checked against a SHA-256 that is part of this package.
//
// A cluster belongs to this process. It listens on 127.0.0.1 alone, trusts every
// connection from there, and dies with its parent (on Linux even when the parent
// is killed). PostgreSQL refuses to run as root, so under root the server runs as
// the user postgres, or nobody where that does not exist.
package pgserver
