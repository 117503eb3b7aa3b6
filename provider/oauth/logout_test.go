package oauth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

const bye = "https://portal.example/bye"

// visit is a browser signed in, and what the portal got.
type visit struct {
	*browser
	session storage.Session
	tokens  map[string]any
	hint    string
}

func (h *house) visit(t testing.TB, change url.Values) visit {
	t.Helper()
	b, verifier := h.browser(t), oauth2.GenerateVerifier()
	s := b.signIn("pwd")
	code := answer(t, b.get("/oauth2/auth?"+ask(h.portal, verifier, change).Encode())).Get("code")
	status, body := h.post("/oauth2/token", h.portal, h.secret, redeem(code, verifier))
	require.Equal(t, 200, status, body)
	return visit{b, s, body, body["id_token"].(string)}
}

// signedIn asks as a client would.
func (v visit) signedIn() bool {
	p := ask(v.h.portal, oauth2.GenerateVerifier(), url.Values{"prompt": {"none"}})
	return answer(v.t, v.get("/oauth2/auth?"+p.Encode())).Get("error") != "login_required"
}

// forged is an ID token about v's session with another header, key or claims.
func forged(t testing.TB, v visit, key jose.SigningKey, change map[string]any) string {
	t.Helper()
	_, claims := v.h.read(t, v.hint)
	for k, x := range change {
		claims[k] = x
	}
	payload, err := json.Marshal(claims)
	require.NoError(t, err)
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT"))
	require.NoError(t, err)
	jws, err := signer.Sign(payload)
	require.NoError(t, err)
	token, err := jws.CompactSerialize()
	require.NoError(t, err)
	return token
}

func newSigningKey(t testing.TB, kid string) (*ecdsa.PrivateKey, jose.SigningKey) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return private, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: private, KeyID: kid}}
}

// The outcomes of a logout request.
const (
	back    = "signed out, and sent back"
	out     = "signed out"
	first   = "asked first, then not sent back"
	sent    = "asked first, then sent back"
	refused = "an error page"
)

// RP-Initiated Logout 1.0, Sections 2 to 4.
func TestLogoutRequests(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	stranger := storage.Client{Name: "Stranger", AuthMethods: storage.Words{"none"}, PostLogoutRedirectURIs: storage.Strings{"https://stranger.example/"}}
	require.NoError(t, h.db.CreateClient(t.Context(), &stranger))
	kid := storage.NewID()
	oldKey, retired := newSigningKey(t, kid)
	_, foreign := newSigningKey(t, kid+"x")
	public, err := json.Marshal(jose.JSONWebKey{Key: oldKey.Public(), KeyID: kid, Algorithm: "ES256", Use: "sig"})
	require.NoError(t, err)
	now := storage.Now()
	require.NoError(t, h.db.AddSigningKey(t.Context(), &storage.SigningKey{ID: kid, Alg: "ES256", State: "retired", Public: string(public), Private: []byte{}, CreatedAt: now, RetiredAt: &now}))
	require.NoError(t, h.keys.Refresh(t.Context()))
	none := func(v visit) string {
		parts := strings.Split(v.hint, ".")
		return "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0." + parts[1] + "."
	}
	for _, row := range []struct {
		name   string
		params func(v visit) url.Values
		want   string
		about  string // the parameter that an error page names
	}{
		{"hint, address and state", func(v visit) url.Values {
			return url.Values{"id_token_hint": {v.hint}, "post_logout_redirect_uri": {bye}, "state": {"s t"}}
		}, back, ""},
		{"hint, its client_id, and things we need not know", func(v visit) url.Values {
			return url.Values{"id_token_hint": {v.hint}, "client_id": {h.portal.ID}, "post_logout_redirect_uri": {bye}, "state": {"s t"}, "logout_hint": {"ada@example.org"}, "ui_locales": {"de"}, "x": {"y"}}
		}, back, ""},
		{"hint only", func(v visit) url.Values { return url.Values{"id_token_hint": {v.hint}} }, out, ""},
		{"hint and state, no address", func(v visit) url.Values { return url.Values{"id_token_hint": {v.hint}, "state": {"x"}} }, out, ""},
		{"an expired hint", func(v visit) url.Values {
			return url.Values{"id_token_hint": {forged(t, v, retired, map[string]any{"exp": 1, "iat": 0})}, "post_logout_redirect_uri": {bye}, "state": {"s t"}}
		}, back, ""},
		{"a hint of a retired key that is still published", func(v visit) url.Values {
			return url.Values{"id_token_hint": {forged(t, v, retired, nil)}}
		}, out, ""},
		{"nothing", func(visit) url.Values { return url.Values{} }, first, ""},
		{"an address of nobody", func(visit) url.Values { return url.Values{"post_logout_redirect_uri": {bye}, "state": {"x"}} }, first, ""},
		{"client_id and its address, no hint", func(visit) url.Values {
			return url.Values{"client_id": {h.portal.ID}, "post_logout_redirect_uri": {bye}, "state": {"s t"}}
		}, sent, ""},
		{"an unknown client_id", func(visit) url.Values {
			return url.Values{"client_id": {"c-nobody"}, "post_logout_redirect_uri": {bye}}
		}, first, ""},
		{"no token at all", func(visit) url.Values {
			return url.Values{"id_token_hint": {"a.b.c"}, "post_logout_redirect_uri": {bye}}
		}, first, ""},
		{"no token at all, of a known client", func(visit) url.Values {
			return url.Values{"id_token_hint": {"a.b.c"}, "client_id": {h.portal.ID}, "post_logout_redirect_uri": {bye}}
		}, first, ""},
		{"alg none", func(v visit) url.Values {
			return url.Values{"id_token_hint": {none(v)}, "client_id": {h.portal.ID}, "post_logout_redirect_uri": {bye}}
		}, first, ""},
		{"a hint that was changed", func(v visit) url.Values {
			return url.Values{"id_token_hint": {v.hint[:len(v.hint)-5] + "AAAAA"}, "post_logout_redirect_uri": {bye}}
		}, first, ""},
		{"a hint of a foreign key", func(v visit) url.Values {
			return url.Values{"id_token_hint": {forged(t, v, foreign, nil)}, "client_id": {h.portal.ID}, "post_logout_redirect_uri": {bye}}
		}, first, ""},
		{"a hint of another issuer", func(v visit) url.Values {
			return url.Values{"id_token_hint": {forged(t, v, retired, map[string]any{"iss": "https://other.example"})}, "post_logout_redirect_uri": {bye}}
		}, first, ""},
		{"an access token as the hint", func(v visit) url.Values { return url.Values{"id_token_hint": {v.tokens["access_token"].(string)}} }, first, ""},
		{"a hint of another session", func(v visit) url.Values {
			return url.Values{"id_token_hint": {h.visit(t, nil).hint}, "post_logout_redirect_uri": {bye}, "state": {"s t"}}
		}, sent, ""},
		{"a hint of another subject", func(v visit) url.Values {
			return url.Values{"id_token_hint": {forged(t, v, retired, map[string]any{"sub": "somebody"})}, "post_logout_redirect_uri": {bye}, "state": {"s t"}}
		}, sent, ""},
		{"a hint without session", func(v visit) url.Values {
			return url.Values{"id_token_hint": {forged(t, v, retired, map[string]any{"sid": ""})}}
		}, first, ""},
		{"a hint of a client that this session gave nothing", func(v visit) url.Values {
			return url.Values{"id_token_hint": {forged(t, v, retired, map[string]any{"aud": h.public.ID})}}
		}, first, ""},
		{"a hint of a client that is gone", func(v visit) url.Values {
			return url.Values{"id_token_hint": {forged(t, v, retired, map[string]any{"aud": "c-gone"})}, "post_logout_redirect_uri": {bye}}
		}, first, ""},
		{"a hint for several, none of them named", func(v visit) url.Values {
			return url.Values{"id_token_hint": {forged(t, v, retired, map[string]any{"aud": []string{h.portal.ID, "c-2"}})}, "post_logout_redirect_uri": {bye}}
		}, first, ""},
		{"a hint for several, one of them named", func(v visit) url.Values {
			return url.Values{"id_token_hint": {forged(t, v, retired, map[string]any{"aud": []string{h.portal.ID, "c-2"}})}, "client_id": {h.portal.ID}}
		}, out, ""},
		{"hint and client_id that do not match", func(v visit) url.Values {
			return url.Values{"id_token_hint": {v.hint}, "client_id": {stranger.ID}, "post_logout_redirect_uri": {"https://stranger.example/"}}
		}, refused, "client_id"},
		{"an address that is not registered", func(v visit) url.Values {
			return url.Values{"id_token_hint": {v.hint}, "post_logout_redirect_uri": {"https://evil.test/"}}
		}, refused, "post_logout_redirect_uri"},
		{"a registered address and a query", func(v visit) url.Values {
			return url.Values{"id_token_hint": {v.hint}, "post_logout_redirect_uri": {bye + "?x=y"}}
		}, refused, "post_logout_redirect_uri"},
		{"the address of another client", func(v visit) url.Values {
			return url.Values{"id_token_hint": {v.hint}, "post_logout_redirect_uri": {"https://stranger.example/"}}
		}, refused, "post_logout_redirect_uri"},
		{"a redirect URI is no address for this", func(v visit) url.Values {
			return url.Values{"id_token_hint": {v.hint}, "post_logout_redirect_uri": {callback}}
		}, refused, "post_logout_redirect_uri"},
		{"an address that is not registered, no hint", func(v visit) url.Values {
			return url.Values{"client_id": {h.portal.ID}, "post_logout_redirect_uri": {"https://evil.test/"}}
		}, refused, "post_logout_redirect_uri"},
		{"a parameter sent twice", func(v visit) url.Values {
			return url.Values{"id_token_hint": {v.hint, v.hint}}
		}, refused, "id_token_hint"},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			t.Run(row.name+" "+method, func(t *testing.T) {
				v := h.visit(t, nil)
				v.t = t
				stolen := cloneCookies(v.browser)
				params := row.params(v)
				var w *httptest.ResponseRecorder
				if method == http.MethodGet {
					w = v.do(method, "/oauth2/logout?"+params.Encode(), nil)
				} else {
					w = v.do(method, "/oauth2/logout", params)
				}
				location := w.Header().Get("Location")
				question := strings.HasPrefix(location, "/logout?")
				if question {
					require.NotContains(t, location, v.hint, "no token in an address of ours")
					w = v.get(location)
					require.Equal(t, 200, v.get(location).Code, "the question survives a reload")
				}
				switch row.want {
				case back:
					require.Equal(t, http.StatusSeeOther, w.Code)
					require.Equal(t, bye+"?state=s+t", location)
				case out:
					require.Equal(t, 200, w.Code)
					require.Contains(t, w.Body.String(), "You are signed out")
				case refused:
					require.Equal(t, 400, w.Code)
					require.Contains(t, w.Body.String(), row.about)
					require.Empty(t, w.Header().Get("Location"))
					require.True(t, v.signedIn())
					return
				case first, sent:
					require.True(t, question)
					require.True(t, v.signedIn(), "until the patient says yes")
					w = v.do(http.MethodPost, "/logout", fieldsOf(w.Body.String()))
					if row.want == sent {
						require.Equal(t, bye+"?state=s+t", w.Header().Get("Location"))
					} else {
						require.Equal(t, 200, w.Code)
						require.Empty(t, w.Header().Get("Location"))
					}
				}
				require.False(t, v.signedIn())
				require.False(t, visit{browser: stolen}.signedIn(), "a kept cookie is nobody's")
			})
		}
	}
}

var hiddenFields = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)

// fieldsOf are the hidden fields of a page.
func fieldsOf(page string) url.Values {
	out := url.Values{}
	for _, f := range hiddenFields.FindAllStringSubmatch(page, -1) {
		out.Add(html.UnescapeString(f[1]), html.UnescapeString(f[2]))
	}
	return out
}

// A client that knows the patient under another name shows that name.
func TestTheHintsSubjectIsTheClientsOwn(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	v := h.visit(t, nil)
	c := h.listening(t, "", v.session, func(c *storage.Client, g *storage.Grant) { g.Subject = "known-as" })
	hint := func(sub string) string {
		token, err := h.keys.Sign("ES256", "JWT", map[string]any{"iss": issuer, "aud": c.ID, "sub": sub, "sid": v.session.ID, "exp": storage.Now().Unix()})
		require.NoError(t, err)
		return "/oauth2/logout?" + url.Values{"id_token_hint": {token}}.Encode()
	}
	require.Contains(t, v.get(hint(h.patient.ID)).Body.String(), `action="/logout"`, "not what this client is told")
	require.True(t, v.signedIn())
	v.get(hint("known-as"))
	require.False(t, v.signedIn())
}

// With a POST from a client's page the browser does not send the cookie; the
// page that answers sends it on.
func TestAPostFromAClientsPageSignsOut(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	v := h.visit(t, nil)
	bare := h.browser(t)
	w := bare.do(http.MethodPost, "/oauth2/logout", url.Values{"id_token_hint": {v.hint}, "post_logout_redirect_uri": {bye}, "state": {"x"}})
	require.Equal(t, 200, w.Code)
	require.Contains(t, w.Body.String(), `action="/oauth2/logout"`)
	require.NotContains(t, w.Header().Get("Content-Security-Policy"), "form-action")
	require.True(t, v.signedIn())
	fields := fieldsOf(w.Body.String())
	w = v.do(http.MethodPost, "/oauth2/logout", fields)
	require.Equal(t, bye+"?state=x", w.Header().Get("Location"))
	require.False(t, v.signedIn())
	require.Equal(t, bye+"?state=x", bare.do(http.MethodPost, "/oauth2/logout", fields).Header().Get("Location"), "who is nobody goes back, too")
}

func TestThePagesSpeakTheWishedLanguage(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	v := h.visit(t, nil)
	w := v.get("/oauth2/logout?ui_locales=fr+de")
	require.Equal(t, "de", w.Header().Get("Content-Language"), "before the patient's own")
	w = v.do(http.MethodPost, "/logout", fieldsOf(w.Body.String()))
	require.Equal(t, "de", w.Header().Get("Content-Language"))
	require.Contains(t, w.Body.String(), "Sie sind abgemeldet")
}

// What lives with the session dies with it; offline_access stays.
func TestTokensOfTheSessionDieWithIt(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := build(t, db)
		bound := h.visit(t, url.Values{"scope": {"openid"}})
		code := answer(t, bound.get("/oauth2/auth?"+ask(h.public, "v-of-at-least-forty-three-characters-aaaaaaa", nil).Encode())).Get("code")
		_, offline := h.post("/oauth2/token", h.public, "", redeem(code, "v-of-at-least-forty-three-characters-aaaaaaa"))
		require.Equal(t, true, h.introspection(t, bound.tokens["access_token"])["active"])

		var all sync.WaitGroup
		for range 10 { // pressed more than once
			all.Go(func() {
				b := cloneCookies(bound.browser)
				w := b.do(http.MethodGet, "/oauth2/logout?"+url.Values{"id_token_hint": {bound.hint}, "post_logout_redirect_uri": {bye}}.Encode(), nil)
				if w.Code != http.StatusSeeOther || w.Header().Get("Location") != bye {
					t.Error(w.Code, w.Header().Get("Location"))
				}
			})
		}
		all.Wait()
		require.Equal(t, map[string]any{"active": false}, h.introspection(t, bound.tokens["access_token"]))
		status, body := h.post("/oauth2/token", h.portal, h.secret, refresh(bound.tokens["refresh_token"]))
		require.Equal(t, 400, status)
		require.Equal(t, "invalid_grant", body["error"])
		require.Equal(t, true, h.introspection(t, offline["access_token"])["active"])
		status, _ = h.post("/oauth2/token", h.public, "", refresh(offline["refresh_token"]))
		require.Equal(t, 200, status)
	})
}

// Front-Channel Logout 1.0, Sections 2 and 3.
func TestClientsSignOutInFrames(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	frontchannel := func(uri string) func(*storage.Client, *storage.Grant) {
		return func(c *storage.Client, _ *storage.Grant) { c.Metadata.FrontchannelLogoutURI = uri }
	}
	page := func(change url.Values, before func(visit)) (visit, *httptest.ResponseRecorder) {
		v := h.visit(t, nil)
		before(v)
		p := url.Values{"id_token_hint": {v.hint}}
		for k, x := range change {
			p[k] = x
		}
		return v, v.do(http.MethodGet, "/oauth2/logout?"+p.Encode(), nil)
	}
	withFrames := func(v visit) {
		h.listening(t, "", v.session, frontchannel("https://a.example/out?tenant=a%2Fb"))
		h.listening(t, "", v.session, frontchannel("https://a.example/other"))
		h.listening(t, "", v.session, frontchannel("https://b.example:8443/out"))
		h.listening(t, "", h.browser(t).signIn("pwd"), frontchannel("https://elsewhere.example/out"))
		gone := h.listening(t, "", v.session, frontchannel("https://gone.example/out"))
		require.NoError(t, h.db.DeleteClient(t.Context(), gone.ID, storage.Now()))
	}
	v, w := page(url.Values{"post_logout_redirect_uri": {bye}, "state": {`"x&y`}}, withFrames)
	require.Equal(t, 200, w.Code)
	frames := regexp.MustCompile(`<iframe src="([^"]*)" [^>]* hidden></iframe>`).FindAllStringSubmatch(w.Body.String(), -1)
	var sources []string
	for _, f := range frames {
		sources = append(sources, html.UnescapeString(f[1]))
	}
	more := url.Values{"iss": {issuer}, "sid": {v.session.ID}}.Encode()
	require.ElementsMatch(t, []string{
		"https://a.example/out?tenant=a%2Fb&" + more, "https://a.example/other?" + more, "https://b.example:8443/out?" + more,
	}, sources)
	csp := w.Header().Get("Content-Security-Policy")
	require.ElementsMatch(t, []string{"https://a.example", "https://b.example:8443"},
		strings.Fields(regexp.MustCompile(`; frame-src ([^;]*)$`).FindStringSubmatch(csp)[1]), "these origins and no other")
	require.Contains(t, csp, "default-src 'none'")
	require.Equal(t, "strict-origin", w.Header().Get("Referrer-Policy"))
	to := bye + "?" + url.Values{"state": {`"x&y`}}.Encode()
	require.Contains(t, html.UnescapeString(w.Body.String()), `<meta http-equiv="refresh" content="4; url=`+to+`">`)
	require.Contains(t, html.UnescapeString(w.Body.String()), `<a class="button" href="`+to+`">`)
	require.NotContains(t, w.Body.String(), "ZgotmplZ")
	require.False(t, v.signedIn())
	again := v.do(http.MethodGet, "/oauth2/logout?"+url.Values{"id_token_hint": {v.hint}, "post_logout_redirect_uri": {bye}}.Encode(), nil)
	require.Equal(t, bye, again.Header().Get("Location"), "a reload goes on")

	_, w = page(nil, withFrames)
	require.Contains(t, w.Body.String(), "<iframe")
	require.NotContains(t, w.Body.String(), "refresh")
	require.Contains(t, w.Body.String(), `href="/login"`)

	_, w = page(url.Values{"post_logout_redirect_uri": {bye}}, func(visit) {})
	require.Equal(t, bye, w.Header().Get("Location"), "without frames nothing is in the way")
	require.NotContains(t, w.Header().Get("Content-Security-Policy"), "frame-src")

	// The patient's own sign-out shows them, too, and an app's address is kept.
	h.portal.PostLogoutRedirectURIs = storage.Strings{"com.example.app:/bye"}
	require.NoError(t, h.db.UpdateClient(t.Context(), &h.portal))
	v = h.visit(t, nil)
	withFrames(v)
	w = v.do(http.MethodPost, "/logout", url.Values{"client_id": {h.portal.ID}, "post_logout_redirect_uri": {"com.example.app:/bye"}})
	require.Contains(t, w.Body.String(), "<iframe")
	require.Contains(t, w.Body.String(), `url=com.example.app:/bye">`)
	require.Contains(t, w.Body.String(), `href="com.example.app:/bye"`)
}

func TestDiscoveryNamesTheLogouts(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	_, doc := h.send(httptest.NewRequest("GET", "/.well-known/openid-configuration", nil))
	for _, k := range []string{"backchannel_logout_supported", "backchannel_logout_session_supported", "frontchannel_logout_supported", "frontchannel_logout_session_supported"} {
		require.Equal(t, true, doc[k], k)
	}
	require.Equal(t, issuer+"/oauth2/logout", doc["end_session_endpoint"])
}

// No logout request is our fault, and none leads anywhere but to the registered
// address.
func FuzzLogoutHint(f *testing.F) {
	h := build(f, storagetest.SQLite(f))
	good := h.visit(f, nil).hint
	f.Add(good, h.portal.ID, bye, "x", "de")
	f.Add(good, "", "https://evil.test/", "", "")
	f.Add(good[:len(good)-3]+"AAA", h.portal.ID, bye, "", "")
	f.Add("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.e30.", "", bye, "\x00", "")
	f.Add("", h.portal.ID, "//evil.test", "&state=y", strings.Repeat("de ", 100))
	f.Fuzz(func(t *testing.T, hint, client, uri, state, locales string) {
		p := url.Values{"id_token_hint": {hint}, "client_id": {client}, "post_logout_redirect_uri": {uri}, "state": {state}, "ui_locales": {locales}}
		b := h.browser(t)
		b.signIn("pwd")
		for _, request := range []struct{ method, path string }{
			{"GET", "/oauth2/logout"}, {"POST", "/oauth2/logout"}, {"GET", "/logout"}, {"POST", "/logout"}, {"POST", "/oauth2/logout"},
		} {
			var w *httptest.ResponseRecorder
			if request.method == "GET" {
				w = b.do("GET", request.path+"?"+p.Encode(), nil)
			} else {
				w = b.do("POST", request.path, p)
			}
			if w.Code >= 500 {
				t.Fatalf("%s %s: %d", request.method, request.path, w.Code)
			}
			to := w.Header().Get("Location")
			if to != "" && to != bye && !strings.HasPrefix(to, bye+"?state=") && !strings.HasPrefix(to, "/logout?") {
				t.Fatalf("%s %s leads to %q", request.method, request.path, to)
			}
			if a := regexp.MustCompile(`<a class="button" href="(http[^"]*)"`).FindStringSubmatch(w.Body.String()); a != nil && !strings.HasPrefix(a[1], bye) {
				t.Fatalf("a link to %q", a[1])
			}
		}
	})
}

func FuzzReadHint(f *testing.F) {
	h := build(f, storagetest.SQLite(f))
	v := h.visit(f, nil)
	f.Add(v.hint)
	f.Add(v.hint[:len(v.hint)-2])
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		got, err := readHint(h.keys, token, issuer)
		if err == nil && (got.SID != v.session.ID || got.Subject != h.patient.ID) {
			t.Fatalf("%q is taken for ours", token)
		}
	})
}
