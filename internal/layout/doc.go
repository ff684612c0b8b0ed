// Package layout holds the test of the rules that say which package may import which.
package layout
