// Package recheck verifies a running pipeline from time to time.
package recheck
