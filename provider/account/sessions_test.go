package account

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/storage"
)

func TestEndingSessions(t *testing.T) {
	p := newPlace(t)
	ada, eve := p.patient("ada@example.org", ""), p.patient("eve@example.org", "")
	b, second, third := p.signedIn(ada, 0, session.Password), p.signedIn(ada, 0, session.Password), p.signedIn(ada, 0, session.Password)
	hers := p.signedIn(eve, 0, session.Password)
	client := p.app(ada, "Portal", "openid")
	bound, offline := p.grant(ada, client, second.session.ID, false, "openid"), p.grant(ada, client, second.session.ID, true, "openid")

	page := b.get("/account/sessions").is(200, "this browser", "192.0.2.7", "Firefox, Windows",
		"/account/sessions/"+second.session.ID+"/end", `action="/account/sessions/end-others"`)
	require.NotContains(t, page.body, hers.session.ID)
	b.post("/account/sessions/" + hers.session.ID + "/end").is(404)
	b.post("/account/sessions/X/end").is(404)
	hers.get("/account").is(200)

	b.post("/account/sessions/" + second.session.ID + "/end").to("/account/sessions")
	second.get("/account").to("/login?to=account")
	third.get("/account").is(200)
	_, err := p.db.Grant(t.Context(), bound.ID, storage.Now())
	require.ErrorIs(t, err, storage.ErrSpent)
	require.Contains(t, p.audited(ada), "grant.revoked grant:"+bound.ID)
	_, err = p.db.Grant(t.Context(), offline.ID, storage.Now())
	require.NoError(t, err, "an app that may act without a session still may")
	b.post("/account/sessions/" + second.session.ID + "/end").is(404)

	b.post("/account/sessions/end-others").to("/account/sessions")
	third.get("/account").to("/login?to=account")
	hers.get("/account").is(200)
	page = b.get("/account/sessions").is(200)
	require.NotContains(t, page.body, "end-others")

	out := b.post("/account/sessions/" + b.session.ID + "/end").to("/login")
	require.Contains(t, out.header.Get("Set-Cookie"), "Max-Age=0")
	b.get("/account").to("/login?to=account")
}

func TestBrowserOf(t *testing.T) {
	for ua, want := range map[string][2]string{
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0":                                                        {"Firefox", "Windows"},
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36 Edg/138.0.0.0":           {"Edge", "Windows"},
		"Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Mobile Safari/537.36":                            {"Chrome", "Android"},
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1": {"Safari", "iPhone"},
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15":                   {"Safari", "macOS"},
		"curl/8.5": {"", ""}, "": {"", ""},
	} {
		browser, system := browserOf(ua)
		require.Equal(t, want, [2]string{browser, system}, ua)
	}
}

func FuzzBrowserOf(f *testing.F) {
	f.Add("Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0")
	f.Fuzz(func(t *testing.T, ua string) {
		browser, system := browserOf(ua)
		require.LessOrEqual(t, len(browser)+len(system), 30)
	})
}
