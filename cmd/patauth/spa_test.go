package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// The one page of an application without a server, on oidc-client-ts. It is its
// own callback, in the same window and in one that it opened.
const spa = `<!DOCTYPE html><meta charset="utf-8">
<button id="redirect">Sign in</button> <button id="popup">In a window</button>
<p id="is"></p>
<script src="/oidc-client-ts.js"></script>
<script>
const users = new oidc.UserManager({ authority: %q, client_id: %q, redirect_uri: location.origin + "/callback",
  scope: "openid profile email", loadUserInfo: true, automaticSilentRenew: false })
const shown = (how) => (user) => { if (user) document.getElementById("is").innerHTML = "<b class=" + how + "></b>" +
  [how, user.profile.sub, user.profile.email, user.token_type].join(" ") }
const failed = (e) => { document.getElementById("is").textContent = e }
document.getElementById("redirect").onclick = () => users.signinRedirect().catch(failed)
document.getElementById("popup").onclick = () => users.signinPopup({ prompt: "login" }).then(shown("popup"), failed)
if (location.pathname === "/callback") users.signinCallback().then(shown("redirect"), failed)
</script>`

// oidc-client-ts in a browser: a public client that knows issuer and id, on an
// origin of its own, asks by CORS for metadata, token and userinfo.
func TestAnApplicationWithoutAServer(t *testing.T) {
	packages := os.Getenv("PATAUTH_TEST_NODE")
	if packages == "" {
		t.Skip("no packages of npm: set PATAUTH_TEST_NODE or run make test")
	}
	library, err := os.ReadFile(filepath.Join(packages, "node_modules", "oidc-client-ts", "dist", "browser", "oidc-client-ts.min.js"))
	if os.IsNotExist(err) {
		t.Skip("no oidc-client-ts: `npm ci` in PATAUTH_TEST_NODE is older than tools/relying/testdata/node")
	}
	require.NoError(t, err)
	p := newPerson(t)
	data := t.TempDir()
	line, _ := inProcess(t, data)
	var client clientView
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".js") {
			w.Header().Set("Content-Type", "text/javascript")
			w.Write(library)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, spa, line.Issuer, client.ID)
	}))
	t.Cleanup(site.Close)
	client = must[clientView](t, nil, "client", "create", "--data", data, "--name", "Application", "--public", "--redirect-uri", site.URL+"/callback")
	require.Empty(t, client.Secret)
	_, err = patauthIn(t, nil, wandererPassword, "patient", "create", "--data", data, "--verified", "--password-stdin", "--email", wandererMail,
		"--given-name", "Grace", "--family-name", "Example", "--birth-date", "1975-12-10")
	require.NoError(t, err)

	signIn := wanderer{person: p, line: line}.signIn
	p.visit(site.URL)
	p.press("#redirect")
	signIn()
	p.press("button[value=allow]")
	p.waits("/callback", "#is b.redirect")
	require.Regexp(t, `redirect \S+ `+wandererMail+` Bearer`, p.text())

	p.visit(site.URL)
	opened := chromedp.WaitNewTarget(p.ctx, func(info *target.Info) bool { return strings.HasPrefix(info.URL, line.Issuer+"/login") })
	p.press("#popup")
	ctx, stop := chromedp.NewContext(p.ctx, chromedp.WithTargetID(<-opened))
	defer stop()
	require.NoError(t, chromedp.Do(ctx, chromedp.WaitVisible(chromedp.CSS("#email"))))
	window := wanderer{person: &person{t: t, ctx: ctx}, line: line}
	window.signIn()
	window.press("button[value=allow]") // asked again: anybody may say that he is a public client
	p.do(chromedp.WaitVisible(chromedp.CSS("#is b.popup")))
	require.Regexp(t, `popup \S+ `+wandererMail+` Bearer`, p.text())
}
