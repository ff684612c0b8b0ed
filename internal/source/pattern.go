package source

import "strings"

// matchTable says whether a pattern "schema.table" names a table. Names may hold
// dots themselves, so every dot of the pattern is tried as the one in between.
func matchTable(pattern, schema, name string) bool {
	for i := range len(pattern) {
		if pattern[i] == '.' && matchPart(pattern[:i], schema) && matchPart(pattern[i+1:], name) {
			return true
		}
	}
	return false
}

// matchPart matches one name against a pattern in which * stands for any
// characters and ? for one. It goes back to the last star only, so its time is
// bounded by the product of the two lengths whatever the pattern.
func matchPart(pattern, name string) bool {
	p, n := []rune(pattern), []rune(name)
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(n) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == n[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// isWild says that a pattern may stand for several tables.
func isWild(pattern string) bool { return strings.ContainsAny(pattern, "*?") }
