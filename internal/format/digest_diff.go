package format

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"cdc/internal/cdc"
)

const (
	// diffText is the number of bytes of a value that a difference shows: enough to
	// know it by, and a few of them still make a readable message.
	diffText = 256
	// diffLead is how much of what two long values share is shown before the first
	// byte in which they differ.
	diffLead = 64
	ellipsis = "…"
)

// diffColumn compares one column; nil is one that is absent.
func diffColumn(name string, source, target []byte) (cdc.ColumnDiff, bool) {
	if bytes.Equal(source, target) || isNull(source) && isNull(target) {
		return cdc.ColumnDiff{}, false
	}
	shared := 0
	for shared < len(source) && shared < len(target) && source[shared] == target[shared] {
		shared++
	}
	// Both sides are cut at the same place, so that they can be laid side by side.
	from := 0
	if max(len(source), len(target)) > diffText && shared > diffLead {
		from = runeStart(source, shared-diffLead)
	}
	return cdc.ColumnDiff{Column: name, Source: excerpt(source, from), Target: excerpt(target, from)}, true
}

// excerpt is at most diffText bytes of a value beginning at from, with an ellipsis
// where something was cut off.
func excerpt(raw []byte, from int) string {
	end, before, after := len(raw), "", ""
	if from > 0 {
		before = ellipsis
	}
	if end-from > diffText {
		end, after = runeStart(raw, from+diffText), ellipsis
	}
	return before + strings.ToValidUTF8(string(raw[from:end]), "\uFFFD") + after
}

// runeStart is the start of the character that at lies in.
func runeStart(s []byte, at int) int {
	for back := 0; back < utf8.UTFMax && at-back > 0; back++ {
		if utf8.RuneStart(s[at-back]) {
			return at - back
		}
	}
	return at
}
