package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// abroad is a client whose callback does not keep the browser: it sends it on to
// another origin, as brokers and portals with a server of their own do.
type abroad struct {
	site      *httptest.Server // the client: /callback, /goodbye, /opener, /popup, /leave
	elsewhere *httptest.Server
	mu        sync.Mutex
	came      []*http.Request // what the client was asked, with its forms parsed
}

func newAbroad(t *testing.T) *abroad {
	a := &abroad{}
	a.elsewhere = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<p id="landed">%s</p>`, strings.TrimPrefix(r.URL.Path, "/"))
	}))
	t.Cleanup(a.elsewhere.Close)
	a.site = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		a.mu.Lock()
		a.came = append(a.came, r)
		a.mu.Unlock()
		w.Header().Set("Content-Type", "text/html")
		switch r.URL.Path {
		case "/opener":
			w.Header().Set("Cross-Origin-Opener-Policy", "same-origin-allow-popups")
			fmt.Fprint(w, `<button onclick="w = open(location.hash.slice(1), 'w', 'width=500,height=700')">Sign in</button><p id="heard"></p>
<script>addEventListener("message", (e) => { if (e.origin === origin && e.source === w && !w.closed) document.getElementById("heard").innerHTML = "<b>" + e.data + "</b>" })</script>`)
		case "/popup":
			fmt.Fprint(w, `<script>opener.postMessage(new URLSearchParams(location.search).get("state"), origin)</script>`)
		case "/leave":
			fmt.Fprint(w, `<form method="post"><button>Sign out</button></form><script>document.forms[0].action = location.hash.slice(1)</script>`)
		default:
			http.Redirect(w, r, a.elsewhere.URL+"/"+r.Form.Get("state"), http.StatusSeeOther)
		}
	}))
	t.Cleanup(a.site.Close)
	return a
}

// last is the last request for path.
func (a *abroad) last(t *testing.T, path string) *http.Request {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := len(a.came) - 1; i >= 0; i-- {
		if a.came[i].URL.Path == path {
			return a.came[i]
		}
	}
	require.Fail(t, "nobody came", path)
	return nil
}

// wanderer is a patient's browser at a house with a client that is abroad.
type wanderer struct {
	*person
	line   readyLine
	client clientView
	*abroad
}

const wandererMail, wandererPassword = "grace@example.org", "blue tulip kettle moon"

// args are of `patauth dev`.
func newWanderer(t *testing.T, p *person, args ...string) wanderer {
	t.Helper()
	data := t.TempDir()
	w := wanderer{person: p, abroad: newAbroad(t)}
	w.line, _ = inProcess(t, data, args...)
	w.client = must[clientView](t, nil, "client", "create", "--data", data, "--name", "Abroad", "--scope", "openid,profile,email,lab",
		"--redirect-uri", w.site.URL+"/callback", "--redirect-uri", w.site.URL+"/popup", "--post-logout-redirect-uri", w.site.URL+"/goodbye")
	_, err := patauthIn(t, nil, wandererPassword, "patient", "create", "--data", data, "--verified", "--password-stdin", "--email", wandererMail,
		"--given-name", "Grace", "--family-name", "Example", "--birth-date", "1975-12-10")
	require.NoError(t, err)
	return w
}

const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // RFC 7636, Appendix B

func (w wanderer) request(callback, state string, more ...string) string {
	q := url.Values{"response_type": {"code"}, "client_id": {w.client.ID}, "redirect_uri": {w.site.URL + callback}, "state": {state}, "nonce": {"n"},
		"scope": {"openid"}, "code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"}}
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return w.line.Issuer + "/oauth2/auth?" + q.Encode()
}

func (w wanderer) signIn() {
	w.t.Helper()
	w.fill("email", wandererMail)
	w.fill("current-password", wandererPassword)
	w.press(`form[action="/login"] button`)
}

// lands waits for the page of another origin that the callback led to.
func (w wanderer) lands(state string) {
	w.t.Helper()
	w.waits(w.elsewhere.URL+"/"+state, "#landed")
}

// Whatever form is the last one of ours, the browser reaches the client and where
// the client sends it. Chromium holds redirects after a form against form-action.
func TestFormsLeadThroughTheClientAndOn(t *testing.T) {
	w := newWanderer(t, newPerson(t))
	origin := []string{w.line.Issuer + "/"}

	// Consent is the last page.
	w.visit(w.request("/callback", "consent"))
	w.signIn()
	w.waits("/consent", "button[value=allow]")
	w.press("button[value=allow]")
	w.lands("consent")
	require.Equal(t, origin, w.last(t, "/callback").Header["Referer"], "of our addresses the client sees the origin")

	// Sign-in is.
	w.visit(w.request("/callback", "signin", "prompt", "login"))
	w.signIn()
	w.lands("signin")

	// No page of ours but the one that posts the answer, and the client knows whose it is.
	w.visit(w.request("/callback", "formpost", "response_mode", "form_post"))
	w.lands("formpost")
	r := w.last(t, "/callback")
	require.Equal(t, http.MethodPost, r.Method)
	require.Equal(t, w.line.Issuer, r.Header.Get("Origin"))
	require.Equal(t, origin, r.Header["Referer"])

	// Sign-in, and then the page that posts.
	w.visit(w.request("/callback", "signin-formpost", "response_mode", "form_post", "prompt", "login"))
	w.signIn()
	w.lands("signin-formpost")

	// A refusal is an answer, too.
	w.visit(w.request("/callback", "refusal", "prompt", "consent"))
	w.press("button[value=deny]")
	w.lands("refusal")
	require.Equal(t, "access_denied", w.last(t, "/callback").Form.Get("error"))

	// A second factor: set up on the way, then asked for.
	w.visit(w.request("/callback", "factor", "scope", "openid lab"))
	w.press(`a[href^="/login/enrol/passkey"]`)
	w.press(`form[data-passkey=create] button`)
	w.press("button[value=allow]")
	w.lands("factor")
	w.visit(w.line.Issuer + "/logout")
	w.press(`form[action="/logout"] button`)
	w.waits("/logout", `a[href="/login"]`)
	// This authenticator's holder is always there: the passkey needs no press.
	w.visit(w.request("/callback", "passkey", "scope", "openid lab"))
	w.lands("passkey")

	// Signing out: asked by us, and posted from the client's page.
	token := w.redeem()
	bye := url.Values{"client_id": {w.client.ID}, "post_logout_redirect_uri": {w.site.URL + "/goodbye"}, "state": {"asked"}}
	w.visit(w.line.Issuer + "/oauth2/logout?" + bye.Encode())
	w.waits("/logout", `form[action="/logout"] button`)
	w.press(`form[action="/logout"] button`)
	w.lands("asked")
	require.Equal(t, origin, w.last(t, "/goodbye").Header["Referer"])
	bye.Set("id_token_hint", token)
	bye.Set("state", "posted")
	w.visit(w.site.URL + "/leave#" + w.line.Issuer + "/oauth2/logout")
	w.run(fmt.Sprintf(`for (const [name, value] of new URLSearchParams(%q)) {
		const i = document.createElement("input"); i.type = "hidden"; i.name = name; i.value = value; document.forms[0].append(i) }`, bye.Encode()))
	w.press("button")
	w.lands("posted")
}

// redeem is the ID token of a code that nothing else was done with.
func (w wanderer) redeem() string {
	w.t.Helper()
	w.visit(w.request("/callback", "redeem"))
	w.lands("redeem")
	form := url.Values{"grant_type": {"authorization_code"}, "code": {w.last(w.t, "/callback").Form.Get("code")},
		"redirect_uri": {w.site.URL + "/callback"}, "code_verifier": {verifier}}
	r, err := http.NewRequest(http.MethodPost, w.line.Issuer+"/oauth2/token", strings.NewReader(form.Encode()))
	require.NoError(w.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(w.client.ID, w.client.Secret)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(w.t, err)
	defer resp.Body.Close()
	var tokens struct {
		IDToken string `json:"id_token"`
	}
	require.NoError(w.t, json.NewDecoder(resp.Body).Decode(&tokens))
	require.NotEmpty(w.t, tokens.IDToken)
	return tokens.IDToken
}

// The client's page opens a window for the sign-in and hears from it.
func TestSigningInInAWindowOfItsOwn(t *testing.T) {
	w := newWanderer(t, newPerson(t))
	w.visit(w.site.URL + "/opener#" + w.request("/popup", "from the window"))
	opened := chromedp.WaitNewTarget(w.ctx, func(info *target.Info) bool { return strings.HasPrefix(info.URL, w.line.Issuer+"/login") })
	w.press("button")
	ctx, stop := chromedp.NewContext(w.ctx, chromedp.WithTargetID(<-opened))
	defer stop()
	// It is attached to as long as the context of its first action lives.
	require.NoError(t, chromedp.Do(ctx, chromedp.WaitVisible(chromedp.CSS("#email"))))
	window := wanderer{person: &person{t: t, ctx: ctx}, line: w.line}
	window.signIn()
	window.press("button[value=allow]")
	w.do(chromedp.WaitVisible(chromedp.CSS("#heard b")))
	require.Contains(t, w.text(), "from the window")
}

// Where the issuer is neither https nor localhost, Chromium sends no Sec-Fetch-Site,
// like Safari before 16.4 anywhere: the guard has only Origin to go by.
func TestFormsOfBrowsersWithoutFetchMetadata(t *testing.T) {
	p := newPerson(t, "host-resolver-rules", "MAP id.lan.test 127.0.0.1")
	at := free(t)
	w := newWanderer(t, p, "--listen", at, "--issuer", "http://id.lan.test"+strings.TrimPrefix(at, "127.0.0.1"))
	var (
		mu   sync.Mutex
		sent []string // by the browser, with its forms
	)
	require.NoError(t, chromedp.Listen(w.ctx, func(e any) {
		if e, ok := e.(*network.EventRequestWillBeSentExtraInfo); ok {
			mu.Lock()
			defer mu.Unlock()
			if e.Headers["Host"] != strings.TrimPrefix(w.line.Issuer, "http://") {
				return
			}
			for k, v := range e.Headers {
				if k = strings.ToLower(k); k == "origin" || k == "sec-fetch-site" {
					sent = append(sent, k+" "+fmt.Sprint(v))
				}
			}
		}
	}))
	w.visit(w.request("/callback", "old"))
	w.signIn()
	w.press("button[value=allow]")
	w.lands("old")
	w.visit(w.request("/callback", "old-formpost", "response_mode", "form_post"))
	w.lands("old-formpost")
	require.Equal(t, w.line.Issuer, w.last(t, "/callback").Header.Get("Origin"))
	mu.Lock()
	defer mu.Unlock()
	require.Contains(t, sent, "origin "+w.line.Issuer)
	for _, h := range sent {
		require.NotContains(t, h, "sec-fetch-site", "or this test shows nothing")
	}
}

// run runs a script in the page.
func (w wanderer) run(script string) {
	w.t.Helper()
	_, err := chromedp.Run(w.ctx, chromedp.Evaluate[any](script))
	require.NoError(w.t, err)
}
