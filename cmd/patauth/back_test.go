package main

import (
	"net/url"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// Wrong passwords, Back and reload in a real browser: no page asks for a form to be
// sent again, and the way to the app stays in the address.
func TestBackAndReload(t *testing.T) {
	d := startDev(t)
	p := newPerson(t)
	p.visit(d.Issuer + "/oauth2/auth?" + url.Values{
		"client_id": {d.Client.ID}, "redirect_uri": {d.Portal + "/callback"}, "response_type": {"code"}, "scope": {"openid"},
		"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"},
	}.Encode())
	p.waits("/login?request=", `form[action="/login"] button`)
	p.fill("email", "grace@example.org")
	for range 2 {
		p.fill("current-password", "not the right one")
		p.press(`form[action="/login"] button`)
		p.waits("problem=login.wrong", `.problem`)
	}
	chromedp.Run(p.ctx, chromedp.Evaluate[bool]("history.back(), true"))
	p.waits("/login?request=", `form[action="/login"] button`)
	p.do(chromedp.Reload())
	p.waits("/login?request=", `form[action="/login"] button`)
	require.NotContains(t, p.text(), "ERR_CACHE_MISS")
}
