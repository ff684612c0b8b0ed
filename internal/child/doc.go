// Package child runs server programs as children of this process: they die with
// it, can be killed with all they started, and the end of their log is kept for
// error messages.
package child
