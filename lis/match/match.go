package match

import "strings"

// Person is what two descriptions of people are compared by.
type Person struct {
	FamilyKey, GivenKey string // as Key writes them
	BirthDate           string
	Sex                 string
}

// Overlay reports whether b describes somebody else than a under the same record
// number: another birth date together with another name or another sex. What one
// of them does not know is no difference.
func Overlay(a, b Person) bool {
	name := differ(a.FamilyKey, b.FamilyKey) && differ(a.GivenKey, b.GivenKey) &&
		!strings.HasPrefix(a.GivenKey, b.GivenKey) && !strings.HasPrefix(b.GivenKey, a.GivenKey) // a second name
	return differ(a.BirthDate, b.BirthDate) && (name || differ(a.Sex, b.Sex))
}

func differ(a, b string) bool { return a != "" && b != "" && a != b }
