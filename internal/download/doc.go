// Package download fetches files that are named and checked by this repository:
// each has a SHA-256 in the source, so it does not matter where the bytes come
// from. They are kept in the user's cache; a local Maven repository and a mirror
// are used where there is one.
package download
