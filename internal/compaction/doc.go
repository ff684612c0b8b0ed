// Package compaction is the law of the two kinds of topic: which topic
// configuration keeps a state topic equal to its table and a history topic
// whole, the plan that brings a cluster there, the guard that watches it, and
// the fold that says what a compacted topic means.
package compaction
