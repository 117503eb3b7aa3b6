package storage

import (
	"database/sql/driver"
	"net/url"
	"regexp"
	"strings"
	"time"
	_ "time/tzdata" // a time zone is known wherever the binary runs
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// PatientMore is what a patient may tell besides, under the names of the
// standard claims (OpenID Connect Core, Section 5.1). No query asks for it; the
// zero value is what a patient has that told nothing.
type PatientMore struct {
	MiddleName        string `json:"middle_name,omitempty"`
	Nickname          string `json:"nickname,omitempty"`
	PreferredUsername string `json:"preferred_username,omitempty"`
	Profile           string `json:"profile,omitempty"` // https URLs
	Picture           string `json:"picture,omitempty"`
	Website           string `json:"website,omitempty"`
	Gender            string `json:"gender,omitempty"`       // female, male or another word
	Zoneinfo          string `json:"zoneinfo,omitempty"`     // Europe/Berlin
	PhoneNumber       string `json:"phone_number,omitempty"` // +493012345 (E.164)
	// PhoneVerifiedAt is nil unless an operator vouches for the number; another
	// number has to be verified anew.
	PhoneVerifiedAt *time.Time `json:"phone_verified_at,omitempty"`
	Address         Address    `json:"address,omitzero"`
}

// Address is a postal address (Section 5.1.1).
type Address struct {
	Street     string `json:"street_address,omitempty"` // may have several lines
	Locality   string `json:"locality,omitempty"`
	Region     string `json:"region,omitempty"`
	PostalCode string `json:"postal_code,omitempty"`
	Country    string `json:"country,omitempty"` // a name or a code
}

// Value writes m as JSON text.
func (m PatientMore) Value() (driver.Value, error) { return JSON[patientMore]{patientMore(m)}.Value() }

// Scan reads m from JSON text.
func (m *PatientMore) Scan(src any) error {
	var j JSON[patientMore]
	err := j.Scan(src)
	*m = PatientMore(j.V)
	return err
}

// patientMore is PatientMore without methods.
type patientMore PatientMore

// Normal is m in its one spelling.
func (m PatientMore) Normal() PatientMore {
	for _, s := range []*string{
		&m.MiddleName, &m.Nickname, &m.PreferredUsername, &m.Gender,
		&m.Address.Locality, &m.Address.Region, &m.Address.PostalCode, &m.Address.Country,
	} {
		*s = NormalName(*s)
	}
	for _, s := range []*string{&m.Profile, &m.Picture, &m.Website} {
		*s = strings.TrimSpace(*s)
	}
	m.Zoneinfo = strings.ReplaceAll(NormalName(m.Zoneinfo), " ", "_")
	m.PhoneNumber = NormalPhone(m.PhoneNumber)
	m.Address.Street = NormalLines(m.Address.Street)
	return m
}

// Faults are the claims of m, as Normal writes it, that cannot be kept. What was
// not told is no fault.
func (m PatientMore) Faults() []string {
	var out []string
	for _, x := range []struct {
		claim, value string
		good         func(string) bool
	}{
		{"middle_name", m.MiddleName, GoodName},
		{"nickname", m.Nickname, GoodName},
		{"preferred_username", m.PreferredUsername, GoodName},
		{"profile", m.Profile, GoodLink},
		{"picture", m.Picture, GoodLink},
		{"website", m.Website, GoodLink},
		{"gender", m.Gender, GoodName},
		{"zoneinfo", m.Zoneinfo, GoodZone},
		{"phone_number", m.PhoneNumber, GoodPhone},
		{"street_address", m.Address.Street, GoodLines},
		{"locality", m.Address.Locality, GoodName},
		{"region", m.Address.Region, GoodName},
		{"postal_code", m.Address.PostalCode, GoodName},
		{"country", m.Address.Country, GoodName},
	} {
		if x.value != "" && !x.good(x.value) {
			out = append(out, x.claim)
		}
	}
	return out
}

// nameMax bounds a name in characters, linesMax how many lines of that length
// there may be, linkMax an URL in bytes.
const (
	nameMax  = 100
	linesMax = 4
	linkMax  = 500
)

// NormalName is the one spelling of a name: NFC, one line, single spaces.
func NormalName(raw string) string {
	return norm.NFC.String(strings.Join(strings.Fields(raw), " "))
}

// GoodName reports whether a name, as NormalName writes it, can be kept: not
// empty, of at most 100 characters, none of them invisible or markup.
func GoodName(name string) bool {
	return name != "" && utf8.RuneCountInString(name) <= nameMax && Legible(name) && !strings.ContainsFunc(name, func(r rune) bool {
		return strings.ContainsRune("<>", r)
	})
}

// joined are the scripts whose words may need U+200C and U+200D to be spelt right,
// varied those with characters that a variation selector chooses a form of.
var (
	joined = []*unicode.RangeTable{
		unicode.Arabic, unicode.Syriac, unicode.Mongolian, unicode.Nko, unicode.Devanagari, unicode.Bengali, unicode.Gurmukhi,
		unicode.Gujarati, unicode.Oriya, unicode.Tamil, unicode.Telugu, unicode.Kannada, unicode.Malayalam, unicode.Sinhala,
		unicode.Tibetan, unicode.Myanmar, unicode.Khmer,
	}
	varied = []*unicode.RangeTable{unicode.Han, unicode.Mongolian, unicode.Phags_Pa, unicode.So}
)

// Legible reports whether a line of text has nothing in it that could make a page
// show something else than it says: nothing invisible, and nothing that turns the
// direction of what follows. A joiner or a variation selector belongs to a character
// before it that makes use of such (compare RFC 5892, Appendices A.1 and A.2); after
// any other it is invisible too.
func Legible(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	before := rune(0)
	for _, r := range s {
		switch {
		case r == '\u200c', r == '\u200d':
			if !unicode.In(before, joined...) {
				return false
			}
		case unicode.Is(unicode.Variation_Selector, r):
			if !unicode.In(before, varied...) {
				return false
			}
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp,
			unicode.Other_Default_Ignorable_Code_Point, unicode.Noncharacter_Code_Point), r == '\u2800':
			return false
		}
		before = r
	}
	return true
}

// NormalLines is the one spelling of a text of several lines: each as NormalName
// writes it, none of them empty.
func NormalLines(raw string) string {
	var lines []string
	for line := range strings.Lines(strings.ReplaceAll(raw, "\r", "\n")) {
		if line = NormalName(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// GoodLines reports whether a text, as NormalLines writes it, can be kept: up to
// four lines, each good as a name is.
func GoodLines(text string) bool {
	lines := strings.Split(text, "\n")
	for _, line := range lines {
		if !GoodName(line) {
			return false
		}
	}
	return len(lines) <= linesMax
}

// GoodBirthDate reports whether s is a day, YYYY-MM-DD, on which somebody alive
// may have been born.
func GoodBirthDate(s string, now time.Time) bool {
	d, err := time.Parse(time.DateOnly, s)
	return err == nil && d.Year() >= 1880 && !d.After(now)
}

// NormalPhone is a phone number without what people write to make it readable.
// A leading 00 is the + of an international number; the (0) in +49 (0)30 is only
// dialled inside the country.
func NormalPhone(raw string) string {
	s := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.Is(unicode.Pd, r) || unicode.Is(unicode.Cf, r) || r == '/' || r == '.' {
			return -1
		}
		return r
	}, raw)
	digits := strings.NewReplacer("(", "", ")", "")
	if n := digits.Replace(s); strings.HasPrefix(n, "+") || strings.HasPrefix(n, "00") {
		s = strings.Replace(s, "(0)", "", 1)
	}
	s = digits.Replace(s)
	if rest, ok := strings.CutPrefix(s, "00"); ok {
		s = "+" + rest
	}
	return s
}

// phoneForm is E.164: a country code, which never begins with 0, and at most 15
// digits in all.
var phoneForm = regexp.MustCompile(`^\+[1-9][0-9]{5,14}$`)

// GoodPhone reports whether s is an international number as NormalPhone writes it.
func GoodPhone(s string) bool { return phoneForm.MatchString(s) }

// GoodLink reports whether s is an absolute https URL of at most 500 bytes that
// carries no password.
func GoodLink(s string) bool {
	u, err := url.Parse(s)
	return err == nil && len(s) <= linkMax && u.Scheme == "https" && u.Hostname() != "" && u.User == nil &&
		Legible(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || strings.ContainsRune(`<>"\`, r)
	})
}

// zoneForm is a name of the IANA time zone database, which is also a path.
var zoneForm = regexp.MustCompile(`^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$`)

// GoodZone reports whether the IANA time zone database has a zone of that name.
func GoodZone(name string) bool {
	if !zoneForm.MatchString(name) || name == "Local" { // Go's name for the machine's own
		return false
	}
	_, err := time.LoadLocation(name)
	return err == nil
}
