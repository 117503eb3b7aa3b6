package oauth

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// rows removes the rows that will expire within some days, and says how many.
func (h *house) rows(t testing.TB) (n int) {
	t.Helper()
	for _, table := range []string{"auth_request", "oauth_code", "oauth_access", "oauth_refresh", "used_jti", "device"} {
		m, err := h.db.DeleteExpired(context.Background(), table, storage.Now().Add(72*time.Hour), 10000)
		require.NoError(t, err)
		n += m
	}
	return n
}

func TestARequestThatComesToNothingLeavesNoRow(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	for range 100 {
		b := h.browser(t)
		b.get("/oauth2/auth?" + ask(h.portal, oauth2.GenerateVerifier(), nil).Encode())
		b.do("POST", "/oauth2/auth", ask(h.portal, oauth2.GenerateVerifier(), nil))
		b.get("/oauth2/auth?" + ask(h.portal, oauth2.GenerateVerifier(), url.Values{"prompt": {"none"}}).Encode())
	}
	require.Zero(t, h.rows(t))
}

// A first visit may begin in many tabs at once, none of which has a cookie yet.
func TestEveryTabOfAFirstVisitEndsAtItsClient(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	b := h.browser(t)
	tabs := make([]*browser, 80)
	to := make([]string, len(tabs))
	var all sync.WaitGroup
	for i := range tabs {
		tabs[i] = h.browser(t)
		all.Go(func() {
			to[i] = tabs[i].do("GET", "/oauth2/auth?"+ask(h.portal, oauth2.GenerateVerifier(), url.Values{"state": {fmt.Sprint(i)}}).Encode(), nil).Header().Get("Location")
		})
	}
	all.Wait()
	for _, tab := range tabs {
		for name, value := range tab.cookies {
			b.cookies[name] = value
		}
	}
	require.Len(t, b.cookies, len(tabs))
	for _, at := range to {
		require.Contains(t, b.do("GET", at, nil).Header().Get("Location"), "/login?request=")
	}
	b.signIn("pwd")
	for i, at := range to {
		got := answer(t, b.do("GET", at, nil))
		require.NotEmpty(t, got.Get("code"))
		require.Equal(t, fmt.Sprint(i), got.Get("state"))
	}
	// What is too much goes with the next request, and later ones share what is left.
	for range 20 {
		require.NotEmpty(t, answer(t, b.get("/oauth2/auth?"+ask(h.portal, oauth2.GenerateVerifier(), nil).Encode())).Get("code"))
		require.LessOrEqual(t, len(b.cookies), 8+1)
	}
}

// OpenID Connect Core, Section 3.1.2.6: with prompt=none there is an answer, also
// to a frame that gets no cookies.
func TestAQuietRequestIsAnsweredAtOnce(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	quiet := func(b *browser, c storage.Client, more url.Values) url.Values {
		p := ask(c, oauth2.GenerateVerifier(), more)
		p.Set("prompt", "none")
		w := b.do("GET", "/oauth2/auth?"+p.Encode(), nil)
		require.Empty(t, w.Result().Cookies())
		u, err := url.Parse(w.Header().Get("Location"))
		require.NoError(t, err)
		return u.Query()
	}
	b := h.browser(t)
	require.Equal(t, "login_required", quiet(b, h.portal, nil).Get("error"))
	b.signIn("pwd")
	require.NotEmpty(t, quiet(b, h.portal, nil).Get("code"))

	// Anybody could be a public client on a loopback address (RFC 8252, Section
	// 8.6): it is enough that the patient has pressed the button since signing in.
	const loopback = "http://127.0.0.1:7777/cb"
	app := storage.Client{
		Name: "Desk", AuthMethods: storage.Words{"none"}, RedirectURIs: storage.Strings{"http://127.0.0.1/cb"},
		GrantTypes: storage.Words{"authorization_code"}, Scopes: Scopes,
	}
	require.NoError(t, h.db.CreateClient(context.Background(), &app))
	here := url.Values{"redirect_uri": {loopback}, "scope": {"openid"}}
	require.Equal(t, "consent_required", quiet(b, app, here).Get("error"))
	page := b.get("/oauth2/auth?" + ask(app, oauth2.GenerateVerifier(), here).Encode())
	require.Equal(t, 200, page.Code)
	_, after, _ := strings.Cut(page.Body.String(), `name="request" value="`)
	request, _, _ := strings.Cut(after, `"`)
	to := b.do("POST", "/consent", url.Values{"request": {request}, "decision": {"allow"}}).Header().Get("Location")
	require.Contains(t, b.do("GET", to, nil).Header().Get("Location"), "code=")
	require.NotEmpty(t, quiet(b, app, here).Get("code"))
	require.Equal(t, 200, b.get("/oauth2/auth?"+ask(app, oauth2.GenerateVerifier(), here).Encode()).Code, "where the patient can be asked, she is")
	b.signIn("pwd")
	require.Equal(t, "consent_required", quiet(b, app, here).Get("error"), "in another session")
}

// A request that came by POST, and that no browser has taken up yet, may be opened
// by many: no two get the same code, however long after one another.
func TestACodeIsNobodysBeforeItIsIssued(t *testing.T) {
	for _, quiet := range []string{"none", ""} {
		h := build(t, storagetest.SQLite(t))
		to := h.browser(t).do("POST", "/oauth2/auth", ask(h.portal, oauth2.GenerateVerifier(), url.Values{"prompt": {quiet}})).Header().Get("Location")
		require.Regexp(t, "^/oauth2/auth/", to)
		codes := map[string]bool{}
		one, other := h.browser(t), h.browser(t)
		one.signIn("pwd")
		other.signIn("pwd")
		for _, b := range []*browser{one, other, one, other} {
			w := b.get(to)
			u, err := url.Parse(w.Header().Get("Location"))
			require.NoError(t, err)
			require.NotEmpty(t, u.Query().Get("code"), u.String())
			codes[u.Query().Get("code")] = true
		}
		require.Len(t, codes, 4)
	}
}

// headerBytes is the size of an answer's header as it goes over the line.
func headerBytes(w *httptest.ResponseRecorder) int {
	var b strings.Builder
	w.Result().Header.Write(&b)
	return b.Len() + len("HTTP/1.1 303 See Other\r\n\r\n")
}

// A proxy takes 4 KiB of header where nothing is configured, whatever was asked.
func TestALongRequestPassesAProxy(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	long := func(n int) url.Values { return url.Values{"unheard_of": {strings.Repeat("x", n)}} }
	for _, n := range []int{10, 500, 1000, 1500, 2500, 3500, 6000} {
		for _, method := range []string{"GET", "POST"} {
			b := h.browser(t)
			p := ask(h.portal, oauth2.GenerateVerifier(), long(n))
			var w *httptest.ResponseRecorder
			if method == "GET" {
				w = b.do("GET", "/oauth2/auth?"+p.Encode(), nil)
			} else {
				w = b.do("POST", "/oauth2/auth", p)
			}
			at := w.Header().Get("Location")
			for range 3 {
				require.Less(t, headerBytes(w), 4000, "%s %d", method, n)
				if strings.HasPrefix(at, "/login") {
					break
				}
				require.NotEmpty(t, at, "%s %d %d %s", method, n, w.Code, w.Body)
				w = b.do("GET", at, nil)
				at = w.Header().Get("Location")
			}
			require.Contains(t, at, "/login?request=", "%s %d", method, n)
			b.signIn("pwd")
			require.NotEmpty(t, answer(t, b.get("/oauth2/auth/"+strings.TrimPrefix(at, "/login?request="))).Get("code"))
		}
	}
	h.rows(t)
	// Ten times what one network may leave here.
	b, slow := h.browser(t), 0
	for range 10 * beginsOfNetwork.Burst {
		if b.do("POST", "/oauth2/auth", ask(h.portal, oauth2.GenerateVerifier(), long(3500))).Code == http.StatusTooManyRequests {
			slow++
		}
	}
	require.Greater(t, slow, 8*beginsOfNetwork.Burst)
	require.LessOrEqual(t, h.rows(t), 2*beginsOfNetwork.Burst)
	require.Equal(t, http.StatusSeeOther, b.do("GET", "/oauth2/auth?"+ask(h.portal, oauth2.GenerateVerifier(), nil).Encode(), nil).Code, "others are not held up")
}

// The refusal of a request object goes where and how the client asked for it.
func TestARefusedRequestObjectGoesByItsResponseMode(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	object := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "."
	}
	for _, c := range []struct{ outside, inside, state string }{
		{"form_post", `{}`, "s t/a+te"},
		{"", `{"response_mode":"form_post","state":"inside"}`, "inside"},
		{"query", `{"response_mode":"form_post"}`, "s t/a+te"},
		{"form_post", `no JSON`, "s t/a+te"},
	} {
		p := ask(h.portal, oauth2.GenerateVerifier(), url.Values{"request": {object(c.inside)}, "response_mode": {c.outside}})
		w := h.browser(t).do("GET", "/oauth2/auth?"+p.Encode(), nil)
		require.Equal(t, 200, w.Code)
		require.Contains(t, w.Body.String(), `action="`+callback+`"`)
		require.Contains(t, w.Body.String(), `name="error" value="request_not_supported"`)
		require.Contains(t, strings.ReplaceAll(w.Body.String(), "&#43;", "+"), `name="state" value="`+c.state+`"`)
	}
	p := ask(h.portal, oauth2.GenerateVerifier(), url.Values{"request": {object(`{"state":5,"response_mode":"query"}`)}})
	got := answer(t, h.browser(t).do("GET", "/oauth2/auth?"+p.Encode(), nil))
	require.Equal(t, "request_not_supported", got.Get("error"))
}

// Whoever began a request is told why it goes no further, and led back to the client.
func TestAPageThatEndsARequestLeadsBack(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	ctx := context.Background()
	for _, c := range []struct{ initiate, home, back string }{
		{"https://portal.example/login?x=1", "https://portal.example/", `href="https://portal.example/login?iss=https%3A%2F%2Fid.example&amp;x=1"`},
		{"", "https://portal.example/", `href="https://portal.example/"`},
		{"", "", `href="/oauth2/auth?client_id=` + h.portal.ID + `&amp;code_challenge=`},
	} {
		h.portal.Metadata.InitiateLoginURI, h.portal.Metadata.ClientURI = c.initiate, c.home
		require.NoError(t, h.db.UpdateClient(ctx, &h.portal))
		b := h.browser(t)
		at := b.do("GET", "/oauth2/auth?"+ask(h.portal, oauth2.GenerateVerifier(), url.Values{"login_hint": {"ada@example.org"}}).Encode(), nil).Header().Get("Location")
		a, err := h.db.OpenAuthRequest(ctx, strings.TrimPrefix(at, "/oauth2/auth/"))
		require.NoError(t, err)

		late := a
		late.RequestedAt, late.ActedAt = a.RequestedAt.Add(-time.Hour), a.ActedAt.Add(-31*time.Minute)
		w := b.do("GET", "/oauth2/auth/"+h.db.Handle(late), nil)
		require.Equal(t, 410, w.Code)
		require.Contains(t, w.Body.String(), "You began to sign in to Portal")
		require.Contains(t, w.Body.String(), c.back)
		require.NotContains(t, w.Body.String(), "ada%40")
		// The patient does something about it after all, and it lives on.
		w = b.do("POST", "/consent", url.Values{"request": {h.db.Handle(late)}, "decision": {"allow"}})
		require.Contains(t, b.do("GET", w.Header().Get("Location"), nil).Header().Get("Location"), "/login?request=")
		late.RequestedAt = a.RequestedAt.Add(-24 * time.Hour)
		w = b.do("POST", "/consent", url.Values{"request": {h.db.Handle(late)}, "decision": {"allow"}})
		require.Equal(t, 410, b.do("GET", w.Header().Get("Location"), nil).Code, "but not for ever")

		// Another browser is told who it is, and nothing of what the client sent.
		w = h.browser(t).do("GET", at, nil)
		require.Equal(t, 403, w.Code)
		require.Contains(t, w.Body.String(), "This browser sent no cookie")
		require.NotContains(t, w.Body.String(), "code_challenge")
		other := h.browser(t)
		other.get("/oauth2/auth?" + ask(h.portal, oauth2.GenerateVerifier(), nil).Encode())
		w = other.do("GET", at, nil)
		require.Equal(t, 403, w.Code)
		require.Contains(t, w.Body.String(), "This was begun in another browser")
		require.NotContains(t, w.Body.String(), "code_challenge")
	}
}

// Fifty presses get one code, and there is none after the client has had it.
func TestFiftyPressesGetOneCode(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := build(t, db)
		b, verifier := h.browser(t), oauth2.GenerateVerifier()
		at := b.do("GET", "/oauth2/auth?"+ask(h.portal, verifier, nil).Encode(), nil).Header().Get("Location")
		b.signIn("pwd")
		codes := map[string]int{}
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 50 {
			tab := cloneCookies(b)
			all.Go(func() {
				u, _ := url.Parse(tab.do("GET", at, nil).Header().Get("Location"))
				mu.Lock()
				defer mu.Unlock()
				codes[u.Query().Get("code")]++
			})
		}
		all.Wait()
		require.Len(t, codes, 1)
		// Whoever signs in next in this browser is somebody else.
		next := cloneCookies(b)
		next.signIn("pwd")
		require.Equal(t, 410, next.do("GET", at, nil).Code)
		for code := range codes {
			status, body := h.post("/oauth2/token", h.portal, h.secret, redeem(code, verifier))
			require.Equal(t, 200, status, body)
		}
		w := b.do("GET", at, nil)
		require.Equal(t, 410, w.Code)
		require.Contains(t, w.Body.String(), "You have been sent back to Portal already")
	})
}
