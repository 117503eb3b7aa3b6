package account

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/storage"
)

// told are all optional fields of the form, filled in as people do.
func told() map[string]string {
	return map[string]string{
		"tel": "+44 (0)20 7946 0018", "street-address": "12 St James's Square\r\n Flat  3\r\n", "postal-code": "SW1Y 4JH", "address-level2": "London",
		"address-level1": "Greater London", "country-name": "United Kingdom", "additional-name": "Augusta", "nickname": "Lovelace",
		"preferred-username": "ada", "sex": "female", "time-zone": "Europe/London", "url": "https://ada.example/",
		"photo": "https://people.example/ada.jpg", "public-profile": "https://people.example/ada",
	}
}

// send posts the form of ada's with those optional fields.
func (b *browser) send(optional map[string]string) page {
	b.t.Helper()
	form := []string{"given-name", "Ada", "family-name", "Byron", "bday", "1975-12-10", "language", ""}
	for name, value := range optional {
		form = append(form, name, value)
	}
	return b.post("/account/profile", form...)
}

func TestAPatientTellsMore(t *testing.T) {
	p := newPlace(t)
	ada := p.patient("ada@example.org", "")
	b := p.signedIn(ada, 0, session.Password)
	page := b.get("/account/profile").is(200, "<details>", "How you can be reached (optional)", `type="tel"`)
	for _, word := range []string{"tel", "street-address", "postal-code", "address-level2", "address-level1", "country-name"} {
		require.Contains(t, page.body, `autocomplete="`+word+`"`)
	}
	names := regexp.MustCompile(`<(?:input|select|textarea) id="([^"]+)" name="([^"]+)"`).FindAllStringSubmatch(page.body, -1)
	require.Len(t, names, 4+len(told()), "the form asks for each of them")

	b.send(told()).to("/account")
	got, err := p.db.PatientByID(t.Context(), ada.ID)
	require.NoError(t, err)
	require.True(t, got.UpdatedAt.After(ada.UpdatedAt))
	want := storage.PatientMore{
		MiddleName: "Augusta", Nickname: "Lovelace", PreferredUsername: "ada", Profile: "https://people.example/ada",
		Picture: "https://people.example/ada.jpg", Website: "https://ada.example/", Gender: "female", Zoneinfo: "Europe/London",
		PhoneNumber: "+442079460018", Address: storage.Address{
			Street: "12 St James's Square\nFlat 3", Locality: "London", Region: "Greater London", PostalCode: "SW1Y 4JH", Country: "United Kingdom",
		},
	}
	require.Equal(t, want, got.More)
	b.get("/account/profile").is(200, "<details open>", `value="+442079460018"`, "12 St James's Square\nFlat 3</textarea>", `value="female" selected`)

	b.send(nil).to("/account")
	got, err = p.db.PatientByID(t.Context(), ada.ID)
	require.NoError(t, err)
	require.Equal(t, want, got.More, "what a form did not ask for stays")

	empty := told()
	for name := range empty {
		empty[name] = " "
	}
	b.send(empty).to("/account")
	got, err = p.db.PatientByID(t.Context(), ada.ID)
	require.NoError(t, err)
	require.Zero(t, got.More, "what was told can be taken back")
}

// A mistake is told beside its field, and everything typed is still there.
func TestMistakesInWhatAPatientTells(t *testing.T) {
	p := newPlace(t)
	ada := p.patient("ada@example.org", "")
	b := p.signedIn(ada, 0, session.Password)
	for name, mistake := range map[string]struct{ value, text string }{
		"tel":                {"030 / 12345", "with its country code"},
		"street-address":     {"1\n2\n3\n4\n5", "at most four lines"},
		"postal-code":        {"<1>", "at most 100 characters"},
		"address-level2":     {strings.Repeat("a", 101), "at most 100 characters"},
		"address-level1":     {"<1>", "at most 100 characters"},
		"country-name":       {"<1>", "at most 100 characters"},
		"additional-name":    {"<1>", "at most 100 characters"},
		"nickname":           {"a\u202eb", "at most 100 characters"},
		"preferred-username": {"<1>", "at most 100 characters"},
		"sex":                {"<1>", "at most 100 characters"},
		"time-zone":          {"Local", "do not know this time zone"},
		"url":                {"http://ada.example/", "begins with https://"},
		"photo":              {"javascript:alert(1)", "begins with https://"},
		"public-profile":     {"https://a:b@ada.example/", "begins with https://"},
	} {
		form := told()
		form[name] = mistake.value
		page := b.send(form).is(422, "Please look at the marked fields", mistake.text, "<details open>")
		require.Equal(t, 2, strings.Count(page.body, `class="problem"`), name)
		require.Equal(t, 1, strings.Count(page.body, `aria-invalid="true"`), name)
		beside := regexp.MustCompile(`(?s)<label for="` + name + `">[^\n]*\n<p class="problem" role="alert">[^\n]*\n<(?:input|select|textarea) id="` + name + `"`)
		require.Regexp(t, beside, page.body)
		for _, typed := range form {
			require.Contains(t, page.body, typed, "nothing is lost: %s", name)
		}
	}
	got, err := p.db.PatientByID(t.Context(), ada.ID)
	require.NoError(t, err)
	require.Equal(t, ada, got, "nothing was written")
}

// A number that somebody vouched for is trusted only as long as it is the same.
func TestAnotherPhoneIsNotVerified(t *testing.T) {
	p := newPlace(t)
	ada := p.patient("ada@example.org", "")
	at := storage.Now()
	ada.More = storage.PatientMore{PhoneNumber: "+442079460018", PhoneVerifiedAt: &at, Gender: "agender"}
	require.NoError(t, p.db.UpdateProfile(t.Context(), ada))
	b := p.signedIn(ada, 0, session.Password)
	b.get("/account/profile").is(200, `<option value="agender" selected>agender</option>`)
	b.send(map[string]string{"tel": "+44 20 7946 0018", "sex": "agender"}).to("/account")
	got, err := p.db.PatientByID(t.Context(), ada.ID)
	require.NoError(t, err)
	require.NotNil(t, got.More.PhoneVerifiedAt)
	require.Equal(t, "agender", got.More.Gender)
	b.send(map[string]string{"tel": "+44 20 7946 0019"}).to("/account")
	got, err = p.db.PatientByID(t.Context(), ada.ID)
	require.NoError(t, err)
	require.Nil(t, got.More.PhoneVerifiedAt)
}
