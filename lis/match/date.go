package match

import (
	"errors"
	"time"
)

// ErrFuture is the error of a birth date that is still to come, ErrDate of one
// that no calendar has or nobody living can have.
var (
	ErrFuture = errors.New("birth date in the future")
	ErrDate   = errors.New("not a birth date")
)

// Date is a birth date as far as it is known.
type Date struct {
	Text      string // YYYY, YYYY-MM or YYYY-MM-DD
	Precision string // year, month or day
}

var precisions = []struct{ name, layout string }{
	{"year", "2006"}, {"month", "2006-01"}, {"day", time.DateOnly},
}

// oldest is the earliest birth date that is believed.
var oldest = time.Date(1875, 1, 1, 0, 0, 0, 0, time.UTC)

// ParseDate reads YYYY, YYYY-MM or YYYY-MM-DD. A day that exists only in other
// years, such as 1981-02-29, is ErrDate.
func ParseDate(s string, now time.Time) (Date, error) {
	for _, p := range precisions {
		if len(s) != len(p.layout) {
			continue
		}
		t, err := time.Parse(p.layout, s)
		switch {
		case err != nil || t.Before(oldest):
			return Date{}, ErrDate
		case t.After(now.Add(24 * time.Hour)):
			return Date{}, ErrFuture
		}
		return Date{s, p.name}, nil
	}
	return Date{}, ErrDate
}

// ParseHL7Date reads the birth date of an HL7 timestamp: YYYY, YYYYMM or its
// first eight digits. It is a local calendar date, which no time zone moves
// (HL7 v2, PID-7).
func ParseHL7Date(s string, now time.Time) (Date, error) {
	digits := 0
	for digits < len(s) && s[digits] >= '0' && s[digits] <= '9' {
		digits++
	}
	rest := s[digits:]
	if rest != "" && rest[0] != '.' && rest[0] != '+' && rest[0] != '-' {
		return Date{}, ErrDate
	}
	switch digits {
	case 4:
		return ParseDate(s[:4], now)
	case 6:
		return ParseDate(s[:4]+"-"+s[4:6], now)
	case 8, 10, 12, 14:
		return ParseDate(s[:4]+"-"+s[4:6]+"-"+s[6:8], now)
	}
	return Date{}, ErrDate
}
