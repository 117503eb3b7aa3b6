package storage_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
)

func TestNamesAndBirthDates(t *testing.T) {
	for name, good := range map[string]bool{
		"Ada": true, "  Ada\tMaria ": true, "O’Neill-Çelik": true, strings.Repeat("ü", 100): true,
		"": false, " ": false, strings.Repeat("a", 101): false, "<b>": false, "a\u202eb": false, "a\x07b": false,
		"علی\u200cرضا": true, "ශ්\u200dරී": true, "മോഹന്\u200d": true, "邉\U000e0102": true, "नरेन्द्र": true, "Nguyễn": true, "Ada 👩🏽": true,
		"a\u200bb": false, "A\u200dda": false, "Ada\u200c": false, "\u200cAda": false, "علی\u200c\u200cرضا": false, "a\ufe0f": false,
		"\u3164": false, "\u115f": false, "a\u034fb": false, "a\u00adb": false, "a\u2066b": false, "\u2800": false, "a\U000e0041": false,
		"\ue000": false, "\ufeffAda": false, "a\xffb": false,
	} {
		require.Equal(t, good, storage.GoodName(storage.NormalName(name)), "%q", name)
	}
	now := storage.Now()
	for day, good := range map[string]bool{
		"1975-12-10": true, "2000-02-29": true,
		"2001-02-29": false, "1879-12-31": false, "9999-01-01": false, "10.12.1975": false, "": false,
	} {
		require.Equal(t, good, storage.GoodBirthDate(day, now), day)
	}
}

func FuzzNormalName(f *testing.F) {
	f.Add("Ada  Byron")
	f.Add("علی\u200cرضا")
	f.Add("a\u200db\ufe0f")
	f.Fuzz(func(t *testing.T, raw string) {
		name := storage.NormalName(raw)
		require.Equal(t, name, storage.NormalName(name))
		if storage.Legible(name) {
			require.NotRegexp(t, `[a-zA-Z]\p{Cf}|^\p{Cf}`, name)
		}
	})
}

func TestPhones(t *testing.T) {
	for raw, want := range map[string]string{
		"+49 30 1234567": "+49301234567", "+49 (0)30 / 12 34-567": "+49301234567", "0049 30–1234567": "+49301234567",
		"(0049) (0)30 1234567": "+49301234567", "+1 (202) 555.0123": "+12025550123", "+123456": "+123456", "+123456789012345": "+123456789012345",
		"": "", "030 1234567": "", "+0301234567": "", "+12345": "", "+1234567890123456": "", "+49 30 call me": "", "++4930123456": "", "+49301234567,8": "",
	} {
		got := storage.NormalPhone(raw)
		require.Equal(t, want != "", storage.GoodPhone(got), "%q", raw)
		if want != "" {
			require.Equal(t, want, got)
		}
	}
}

func TestLinks(t *testing.T) {
	for link, good := range map[string]bool{
		"https://ada.example/": true, "https://ada.example:8443/a?b=c#d": true, "https://ada.example/" + strings.Repeat("a", 480): true,
		"https://bücher.example/ü": true,
		"":                         false, "http://ada.example/": false, "ada.example": false, "https://": false, "https:///a": false, "https://:443/": false,
		"https://a:b@ada.example/": false, "javascript:alert(1)": false, "https://ada.example/ b": false, "https://ada.example/\n": false,
		"https://ada.example/<b>": false, "https://ada.example/" + strings.Repeat("a", 481): false, "data:text/html,x": false,
	} {
		require.Equal(t, good, storage.GoodLink(link), "%q", link)
	}
}

func TestZones(t *testing.T) {
	for zone, good := range map[string]bool{
		"Europe/Berlin": true, "America/Argentina/Ushuaia": true, "UTC": true, "Etc/GMT+5": true,
		"": false, "Local": false, "europe/berlin": false, "Europe/Atlantis": false, "../etc/passwd": false, "/etc/localtime": false,
		"Europe/../Europe/Berlin": false, "Europe": false, "right/Europe/Berlin": false, "Europe/Berlin\x00": false,
	} {
		require.Equal(t, good, storage.GoodZone(zone), "%q", zone)
	}
}

func TestLines(t *testing.T) {
	require.Equal(t, "Hauptstr. 1\nHinterhaus", storage.NormalLines("  Hauptstr.  1\r\n\r\n\tHinterhaus\n"))
	require.True(t, storage.GoodLines("1\n2\n3\n4"))
	require.False(t, storage.GoodLines("1\n2\n3\n4\n5"))
	require.False(t, storage.GoodLines("1\n"+strings.Repeat("a", 101)))
	require.False(t, storage.GoodLines("a\x07b"))
}

// Every field of its own has a rule: what is wrong with it is told by its claim.
func TestFaultsOfWhatAPatientTells(t *testing.T) {
	require.Empty(t, storage.PatientMore{}.Faults())
	bad := storage.PatientMore{
		MiddleName: "<b>", Nickname: "<b>", PreferredUsername: "<b>", Profile: "x", Picture: "x", Website: "x", Gender: "<b>", Zoneinfo: "x",
		PhoneNumber: "x", Address: storage.Address{Street: "<b>", Locality: "<b>", Region: "<b>", PostalCode: "<b>", Country: "<b>"},
	}
	require.Equal(t, []string{
		"middle_name", "nickname", "preferred_username", "profile", "picture", "website", "gender", "zoneinfo", "phone_number",
		"street_address", "locality", "region", "postal_code", "country",
	}, bad.Normal().Faults())
	told := storage.PatientMore{
		MiddleName: " Augusta  King", Website: " https://ada.example/ ", Zoneinfo: "America/New York", PhoneNumber: "+44 (0)20 7946 0018",
		Address: storage.Address{Street: "12 St James's Square\r\nFlat 3", Locality: "London ", PostalCode: "SW1Y  4JH", Country: "GB"},
	}
	require.Equal(t, storage.PatientMore{
		MiddleName: "Augusta King", Website: "https://ada.example/", Zoneinfo: "America/New_York", PhoneNumber: "+442079460018",
		Address: storage.Address{Street: "12 St James's Square\nFlat 3", Locality: "London", PostalCode: "SW1Y 4JH", Country: "GB"},
	}, told.Normal())
	require.Empty(t, told.Normal().Faults())
}

func FuzzPatientMore(f *testing.F) {
	f.Add("+49 (0)30 123456")
	f.Add("https://ada.example/?q=ü")
	f.Add("Europe/Berlin")
	f.Add("12 St James's Square\r\nFlat 3")
	f.Fuzz(func(t *testing.T, raw string) {
		m := storage.PatientMore{
			MiddleName: raw, Website: raw, Zoneinfo: raw, PhoneNumber: raw, Address: storage.Address{Street: raw, Country: raw},
		}.Normal()
		require.Equal(t, m, m.Normal(), "a second time changes nothing")
		if len(m.Faults()) > 0 {
			return
		}
		v, err := m.Value()
		require.NoError(t, err)
		require.NotContains(t, v, `\u0000`, "PostgreSQL cannot keep it")
		var again storage.PatientMore
		require.NoError(t, again.Scan(v))
		require.Equal(t, m, again)
	})
}
