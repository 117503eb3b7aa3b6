package account

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/storage"
)

var pages = []string{
	"/account", "/account/profile", "/account/labs", "/account/factors", "/account/sessions", "/account/apps",
}

func TestEveryPageInEveryLanguage(t *testing.T) {
	p := newPlace(t)
	ada := p.patient("ada@example.org", "")
	totp := p.factor(ada, storage.KindTOTP, "My phone")
	p.link(ada)
	p.app(ada, "Portal", "openid", "profile", "email", "lab", "offline_access", "unheard-of")
	b := p.signedIn(ada, 0, session.Password, session.TOTP)
	for _, path := range append(pages, "/account/factors/"+totp.ID+"/remove") {
		for _, lang := range []string{"en", "de"} {
			page := b.get(path, lang).is(200, `<html lang="`+lang+`">`, `href="/account/labs"`, `action="/logout"`)
			require.Equal(t, 1, strings.Count(page.body, "<h1>"), path)
			require.Equal(t, 1, strings.Count(page.body, `aria-current="page"`), path)
			require.NotContains(t, page.body, "AB123456", "a record number is masked")
			require.NotRegexp(t, `ZgotmplZ|%!|<no value>`, page.body)
			ids := map[string]bool{}
			for _, m := range regexp.MustCompile(`<label for="([^"]+)"`).FindAllStringSubmatch(page.body, -1) {
				require.False(t, ids[m[1]])
				ids[m[1]] = true
				require.Contains(t, page.body, `id="`+m[1]+`"`, "every label has its field")
			}
		}
	}
	b.get("/account").is(200, "Ada Byron", "10 December 1975", "ada@example.org", "City Lab", "••••3456", "My phone", "Firefox, Windows", "Portal",
		`href="/account/profile"`, `href="/account/labs"`, `href="/account/factors"`, `href="/account/sessions"`, `href="/account/apps"`)
	b.get("/account", "de").is(200, "10.12.1975", "Mein Konto")
	b.get("/account/labs").is(200, "City Lab", "••••3456", `action="/account/labs/unlink"`)
	b.get("/account/factors").is(200, "/login/enrol?to=factors", "/login/password?to=factors", "/account/factors/"+totp.ID+"/remove")
}

func TestThePatientsOwnLanguageCounts(t *testing.T) {
	p := newPlace(t)
	b := p.signedIn(p.patient("ada@example.org", "de"), 0, session.Password)
	b.get("/account", "en").is(200, `<html lang="de">`)
}

func TestEmptyAccount(t *testing.T) {
	p := newPlace(t)
	b := p.signedIn(p.patient("ada@example.org", ""), 0, session.Password)
	b.get("/account").is(200, "No laboratory record", "no second step", "No app has access")
	b.get("/account/factors").is(200, "no second step", "/login/enrol?to=factors")
	b.get("/account/apps").is(200, "No app has access")
}

func TestGuards(t *testing.T) {
	p := newPlace(t)
	ada := p.patient("ada@example.org", "")
	nobody, one := p.signedIn(ada, 0), p.signedIn(ada, 0, session.Password)
	flows := map[string]string{"/account/labs": "?to=labs", "/account/factors": "?to=factors"}
	for _, path := range pages {
		to := flows[path]
		if to == "" {
			to = "?to=account"
		}
		nobody.get(path).to("/login" + to)
		if path != "/account/labs" {
			one.get(path).is(200)
		}
	}
	one.get("/account/labs").to("/login/enrol?to=labs")
	one.post("/account/labs", "activation-code", "X", "bday", "1975-12-10").to("/login/enrol?to=labs")

	totp := p.factor(ada, storage.KindTOTP, "")
	for _, path := range pages {
		to := flows[path]
		if to == "" {
			to = "?to=account"
		}
		one.get(path).to("/login/second" + to)
	}
	one.post("/account/sessions/end-others").to("/login/second?to=account")
	one.post("/account/profile", "given-name", "Eve").to("/login/second?to=account")

	stale := p.signedIn(ada, 6*time.Minute, session.Password, session.TOTP)
	stale.get("/account/labs").is(200)
	stale.get("/account/factors").is(200)
	stale.post("/account/labs/unlink").to("/login?to=labs")
	stale.get("/account/factors/" + totp.ID + "/remove").to("/login?to=factors")
	stale.post("/account/factors/"+totp.ID+"/remove", "last", "yes").to("/login?to=factors")
	has, err := p.db.HasSecondFactor(t.Context(), ada.ID)
	require.NoError(t, err)
	require.True(t, has)
}

func TestProfile(t *testing.T) {
	p := newPlace(t)
	ada := p.patient("ada@example.org", "")
	b := p.signedIn(ada, 0, session.Password)
	b.get("/account/profile").is(200, `value="Ada"`, `value="1975-12-10"`, `autocomplete="bday"`, `autocomplete="family-name"`)
	good := []string{"given-name", " Ada  Maria ", "family-name", "King", "bday", "1815-12-10", "language", "de"}
	b.post("/account/profile", good...).is(422, "Please look at the marked fields", `value="Ada Maria"`, `value="King"`, `aria-invalid="true"`)
	good[5] = "1975-12-11"
	for field, bad := range map[int]string{1: "<b>", 3: "", 5: "tomorrow", 7: "xx"} {
		form := append([]string{}, good...)
		form[field] = bad
		b.post("/account/profile", form...).is(422)
	}
	got, err := p.db.PatientByID(t.Context(), ada.ID)
	require.NoError(t, err)
	require.Equal(t, ada, got, "nothing was written")

	b.post("/account/profile", good...).to("/account")
	b.get("/account").is(200, "Ada Maria King", "11.12.1975", `<html lang="de">`)
}

func TestAFormIsSentOnce(t *testing.T) {
	p := newPlace(t)
	b := p.signedIn(p.patient("ada@example.org", ""), 0, session.Password)
	r := b.post("/account/profile?given-name=Eve", "given-name", "")
	r.is(422)
	require.NotContains(t, r.body, "Eve", "a query is not a form")
}
