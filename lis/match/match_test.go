package match_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/lis/match"
)

var now = time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)

func TestTextIsOneSpelling(t *testing.T) {
	for _, c := range [][2]string{
		{"MU\u0308LLER", "MÜLLER"},
		{"  Anna\u00a0 Maria ", "Anna Maria"},
		{"A\u200bnn\u202ea", "Anna"},
		{"", ""},
	} {
		require.Equal(t, c[1], match.Text(c[0]))
	}
}

func TestKeysFoldWhatDoesNotCount(t *testing.T) {
	for _, c := range [][2]string{
		{"Müller", "MULLER"},
		{"O'Brien", "obrien"},
		{"Weiß", "WEISS"},
		{"Meyer-Schmidt", "meyer schmidt"},
		{"JOSÉ", "Jose"},
	} {
		require.Equal(t, match.Key(c[0]), match.Key(c[1]), c)
	}
	require.NotEqual(t, match.Key("Мария"), match.Key("Maria"), "no transliteration")
}

func TestValuesKeepTheirZeros(t *testing.T) {
	require.Equal(t, "0012345", match.Value(" 0012 345\u200b", false))
	require.NotEqual(t, match.Value("12345", false), match.Value("0012345", false))
	require.Equal(t, match.Value("ab1", true), match.Value("AB1", true))
	require.NotEqual(t, match.Value("ab1", false), match.Value("AB1", false))
}

func TestBirthDates(t *testing.T) {
	for _, c := range []struct {
		in   string
		want match.Date
		err  error
	}{
		{"1980", match.Date{Text: "1980", Precision: "year"}, nil},
		{"198002", match.Date{Text: "1980-02", Precision: "month"}, nil},
		{"19800229", match.Date{Text: "1980-02-29", Precision: "day"}, nil},
		{"198002292330-0500", match.Date{Text: "1980-02-29", Precision: "day"}, nil},
		{"19800229000000.0000+0000", match.Date{Text: "1980-02-29", Precision: "day"}, nil},
		{"19810229", match.Date{}, match.ErrDate},
		{"19801301", match.Date{}, match.ErrDate},
		{"00000000", match.Date{}, match.ErrDate},
		{"18740101", match.Date{}, match.ErrDate},
		{"20990101", match.Date{}, match.ErrFuture},
		{"20250602", match.Date{Text: "2025-06-02", Precision: "day"}, nil},
		{"20250603", match.Date{}, match.ErrFuture},
		{"198002290", match.Date{}, match.ErrDate},
		{"19", match.Date{}, match.ErrDate},
		{"1980x", match.Date{}, match.ErrDate},
		{"29.02.1980", match.Date{}, match.ErrDate},
	} {
		got, err := match.ParseHL7Date(c.in, now)
		require.ErrorIs(t, err, c.err, c.in)
		require.Equal(t, c.want, got, c.in)
	}
}

func TestOverlayNeedsMoreThanACorrection(t *testing.T) {
	a := match.Person{FamilyKey: "muster", GivenKey: "anna", BirthDate: "1980-02-29", Sex: "female"}
	change := func(f func(*match.Person)) match.Person { b := a; f(&b); return b }
	require.False(t, match.Overlay(a, a))
	require.False(t, match.Overlay(a, change(func(b *match.Person) { b.FamilyKey = "other" })), "marriage")
	require.False(t, match.Overlay(a, change(func(b *match.Person) { b.BirthDate = "1980-02-28" })), "a typing error")
	require.False(t, match.Overlay(a, change(func(b *match.Person) { b.FamilyKey, b.GivenKey, b.Sex = "x", "y", "male" })))
	require.True(t, match.Overlay(a, change(func(b *match.Person) { b.FamilyKey, b.GivenKey, b.BirthDate = "x", "y", "1955-12-12" })))
	require.True(t, match.Overlay(a, change(func(b *match.Person) { b.BirthDate, b.Sex = "1955-12-12", "male" })))
	require.False(t, match.Overlay(a, match.Person{BirthDate: "1955-12-12"}), "what is not known does not differ")
}

func TestPlaceholders(t *testing.T) {
	require.True(t, match.Placeholder("DOE", "JOHN"))
	require.True(t, match.Placeholder("MUSTER", "Baby of Anna"))
	require.False(t, match.Placeholder("Doering", "Anna"))
}

func TestCheckDigits(t *testing.T) {
	require.True(t, match.CheckDigit("12345", "5", "M10"))
	require.False(t, match.CheckDigit("12345", "9", "M10"))
	require.True(t, match.CheckDigit("12345", "5", "M11"))
	require.False(t, match.CheckDigit("12345", "6", "M11"))
	require.False(t, match.CheckDigit("A1", "1", "M10"))
	require.True(t, match.CheckDigit("A1", "1", "ISO"), "a scheme that is not known verifies nothing")
	require.True(t, match.CheckDigit("12345", "", "M10"))
}

func FuzzParseHL7Date(f *testing.F) {
	for _, s := range []string{"19800229", "1980", "", "198002292330-0500", "٠١٢٣"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := match.ParseHL7Date(s, now)
		require.Equal(t, err != nil, d == match.Date{})
	})
}

func FuzzText(f *testing.F) {
	f.Add("MU\u0308LLER \u202e x")
	f.Fuzz(func(t *testing.T, s string) {
		once := match.Text(s)
		require.Equal(t, once, match.Text(once))
		match.Key(s)
		match.Placeholder(s, s)
	})
}
