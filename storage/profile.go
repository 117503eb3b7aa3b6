package storage

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// nameMax bounds a name in characters.
const nameMax = 100

// NormalName is the one spelling of a name: NFC, one line, single spaces.
func NormalName(raw string) string {
	return norm.NFC.String(strings.Join(strings.Fields(raw), " "))
}

// GoodName reports whether a name, as NormalName writes it, can be kept: not
// empty, of at most 100 characters, none of them invisible or markup.
func GoodName(name string) bool {
	return name != "" && utf8.RuneCountInString(name) <= nameMax && !strings.ContainsFunc(name, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || strings.ContainsRune("<>", r)
	})
}

// GoodBirthDate reports whether s is a day, YYYY-MM-DD, on which somebody alive
// may have been born.
func GoodBirthDate(s string, now time.Time) bool {
	d, err := time.Parse(time.DateOnly, s)
	return err == nil && d.Year() >= 1880 && !d.After(now)
}
