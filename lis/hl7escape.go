package lis

import (
	"encoding/hex"
	"strings"
)

// unescape undoes the escape sequences of one leaf, once (HL7 v2, Section 2.7).
// Whatever cannot be undone stays as it is, and clean is false.
func (m *hl7) unescape(s string) (out string, clean bool) {
	e := string(m.d.escape)
	if !strings.Contains(s, e) {
		return s, true
	}
	clean = true
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, e)
		b.WriteString(before)
		if !found {
			return b.String(), clean
		}
		sequence, after, closed := strings.Cut(rest, e)
		if !closed {
			b.WriteString(e + rest)
			return b.String(), false
		}
		text, ok := m.sequence(sequence)
		if !ok {
			text, clean = e+sequence+e, false
		}
		b.WriteString(text)
		s = after
	}
}

// sequence is what stands between two escape characters.
func (m *hl7) sequence(s string) (string, bool) {
	switch s {
	case "F":
		return string(m.d.field), true
	case "S":
		return string(m.d.component), true
	case "T":
		return string(m.d.subcomponent), true
	case "R":
		return string(m.d.repetition), true
	case "E":
		return string(m.d.escape), true
	case "P":
		return string(m.d.truncation), m.d.truncation != 0
	case "H", "N": // highlighting
		return "", true
	}
	if strings.HasPrefix(s, ".") { // formatting
		return " ", true
	}
	if digits, ok := strings.CutPrefix(s, "X"); ok {
		raw, err := hex.DecodeString(digits)
		if err != nil || len(raw) == 0 {
			return "", false
		}
		text, ok := m.decode(raw)
		return text, ok && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f })
	}
	// Character set switches (\C, \M) and local sequences (\Z) are not undone.
	return "", false
}
