//go:build !race

package cdctest

const raceEnabled = false
