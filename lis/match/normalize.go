// Package match compares what laboratories write about people: names, birth
// dates, record numbers. It decides nothing about links: two records that agree
// on everything may still be twins. It tells only what is the same text, what is
// the same name, and what is no name at all.
package match

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Text is the one spelling of a name's text: NFC, without format characters
// (zero width, bidirectional marks), blanks collapsed and trimmed.
func Text(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(unicode.Cf, r):
			return -1
		case unicode.IsSpace(r):
			return ' '
		}
		return r
	}, s)
	return norm.NFC.String(strings.Join(strings.Fields(s), " "))
}

// Key folds a name for comparison: compatibility forms, marks, case, blanks and
// punctuation do not count. It never transliterates.
func Key(s string) string {
	var b strings.Builder
	for _, r := range norm.NFKD.String(strings.ToLower(s)) {
		switch {
		case r == 'ß':
			b.WriteString("ss")
		case unicode.IsLetter(r), unicode.IsDigit(r):
			b.WriteRune(r)
		}
	}
	return norm.NFC.String(b.String())
}

// Value is the one spelling of a record number: blanks and format characters go,
// leading zeros stay. Case counts unless fold says otherwise.
func Value(s string, fold bool) string {
	s = strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cf, r) || unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
	if fold {
		s = strings.ToUpper(s)
	}
	return s
}

// placeholders are the names under which laboratories file people they cannot
// name, folded.
var placeholders = []string{"unknown", "unbekannt", "doe", "test", "testpatient", "anonymous", "anonym", "nn", "noname"}

// Placeholder reports whether a name stands for somebody unnamed: UNKNOWN, DOE,
// BABY OF …, TEST.
func Placeholder(family, given string) bool {
	for _, name := range []string{family, given} {
		key := Key(name)
		for _, p := range placeholders {
			if key == p {
				return true
			}
		}
		for _, p := range []string{"babyof", "babyboy", "babygirl"} {
			if strings.HasPrefix(key, p) {
				return true
			}
		}
	}
	return false
}
