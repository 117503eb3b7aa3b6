package oauth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func (h *house) tokens(t testing.TB, c storage.Client, secret string, change url.Values) map[string]any {
	t.Helper()
	code, verifier := h.code(t, c, change)
	status, body := h.post("/oauth2/token", c, secret, redeem(code, verifier))
	require.Equal(t, 200, status, body)
	return body
}

func claimsOf(t testing.TB, token any) map[string]any {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token.(string), ".")[1])
	require.NoError(t, err)
	var claims map[string]any
	require.NoError(t, json.Unmarshal(b, &claims))
	return claims
}

func TestTheIDTokenSaysWhatHappened(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	body := h.tokens(t, h.portal, h.secret, nil)
	require.Equal(t, "Bearer", body["token_type"])
	var trusted map[string]any
	require.NoError(t, h.keys.Verify(body["id_token"].(string), "JWT", &trusted))
	c := claimsOf(t, body["id_token"])
	require.Equal(t, issuer, c["iss"])
	require.Equal(t, h.patient.ID, c["sub"])
	require.Equal(t, h.portal.ID, c["aud"])
	require.Equal(t, "n", c["nonce"])
	require.Equal(t, "urn:patauth:acr:one-factor", c["acr"])
	require.Equal(t, []any{"pwd"}, c["amr"])
	require.NotEmpty(t, c["sid"])
	require.NotEmpty(t, c["at_hash"])
	require.InDelta(t, time.Now().Unix(), c["auth_time"], 5)

	// OpenID Connect Core, Section 12.2: the same at a refresh.
	status, next := h.post("/oauth2/token", h.portal, h.secret, refresh(body["refresh_token"]))
	require.Equal(t, 200, status, next)
	again := claimsOf(t, next["id_token"])
	for _, k := range []string{"iss", "sub", "aud", "auth_time", "sid", "acr"} {
		require.Equal(t, c[k], again[k], k)
	}
	require.NotContains(t, again, "nonce")
}

func TestUserInfo(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	body := h.tokens(t, h.portal, h.secret, url.Values{"scope": {"openid profile email offline_access unknown"}})
	status, info := h.userinfo(body["access_token"])
	require.Equal(t, 200, status)
	require.Equal(t, h.patient.ID, info["sub"])
	require.Equal(t, "Ada Example", info["name"])
	require.Equal(t, "1980-02-29", info["birthdate"])
	require.Equal(t, "ada@example.org", info["email"])
	require.Equal(t, false, info["email_verified"])
	require.NotContains(t, info, "lab")

	// A token of another kind is not an access token.
	for _, wrong := range []any{body["refresh_token"], body["id_token"], "pa_at_unknown"} {
		status, _ := h.userinfo(wrong)
		require.Equal(t, 401, status)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/oauth2/userinfo?access_token="+body["access_token"].(string), nil))
	require.Equal(t, 400, w.Code, "never from the URL")
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/oauth2/userinfo", nil))
	require.Equal(t, 401, w.Code)
	require.Equal(t, `Bearer realm="patauth"`, w.Header().Get("WWW-Authenticate"))
	r := httptest.NewRequest("POST", "/oauth2/userinfo", strings.NewReader("access_token="+body["access_token"].(string)))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, _ = h.send(r)
	require.Equal(t, 200, status)
}

func TestAWrongVerifierBurnsTheCode(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	for name, wrong := range map[string]func(url.Values){
		"another verifier": func(f url.Values) { f.Set("code_verifier", oauth2.GenerateVerifier()) },
		"no verifier":      func(f url.Values) { f.Del("code_verifier") },
		"a short one":      func(f url.Values) { f.Set("code_verifier", "short") },
	} {
		code, verifier := h.code(t, h.public, nil)
		form := redeem(code, verifier)
		wrong(form)
		status, body := h.post("/oauth2/token", h.public, "", form)
		require.Equal(t, 400, status, name)
		require.Equal(t, "invalid_grant", body["error"], name)
		// Neither without a verifier nor with the right one, afterwards.
		form.Del("code_verifier")
		status, _ = h.post("/oauth2/token", h.public, "", form)
		require.Equal(t, 400, status, name)
		status, _ = h.post("/oauth2/token", h.public, "", redeem(code, verifier))
		require.Equal(t, 400, status, name)
	}
}

func TestACodeBelongsToItsClientAndRedirectURI(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	code, verifier := h.code(t, h.public, nil)
	status, body := h.post("/oauth2/token", h.portal, h.secret, redeem(code, verifier))
	require.Equal(t, 400, status)
	require.Equal(t, "invalid_grant", body["error"])
	form := redeem(code, verifier)
	form.Set("redirect_uri", callback+"/x")
	status, _ = h.post("/oauth2/token", h.public, "", form)
	require.Equal(t, 400, status)
	status, body = h.post("/oauth2/token", h.public, "", redeem(code, verifier))
	require.Equal(t, 200, status, "another client's try has not spent it")
	// Nobody ends what is not theirs.
	status, _ = h.post("/oauth2/token", h.portal, h.secret, refresh(body["refresh_token"]))
	require.Equal(t, 400, status)
	status, _ = h.post("/oauth2/token", h.public, "", refresh(body["refresh_token"]))
	require.Equal(t, 200, status)
}

func TestRefreshNarrowsButNeverWidens(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	body := h.tokens(t, h.portal, h.secret, url.Values{"scope": {"openid email offline_access"}})
	form := refresh(body["refresh_token"])
	form.Set("scope", "openid profile")
	status, e := h.post("/oauth2/token", h.portal, h.secret, form)
	require.Equal(t, 400, status)
	require.Equal(t, "invalid_scope", e["error"])
	form.Set("scope", "openid")
	status, narrow := h.post("/oauth2/token", h.portal, h.secret, form)
	require.Equal(t, 200, status, narrow)
	require.Equal(t, "openid", narrow["scope"])
	_, info := h.userinfo(narrow["access_token"])
	require.NotContains(t, info, "email")
	// The next refresh may have it all again (RFC 6749, Section 6).
	status, wide := h.post("/oauth2/token", h.portal, h.secret, refresh(narrow["refresh_token"]))
	require.Equal(t, 200, status)
	require.Equal(t, "openid email offline_access", wide["scope"])
}

func TestRefreshAsksWhetherEverybodyIsStillThere(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	ctx := context.Background()
	body := h.tokens(t, h.portal, h.secret, nil)
	require.NoError(t, h.db.SetPatientDisabled(ctx, h.patient.ID, true))
	status, e := h.post("/oauth2/token", h.portal, h.secret, refresh(body["refresh_token"]))
	require.Equal(t, 400, status)
	require.Equal(t, "invalid_grant", e["error"])
	status, _ = h.userinfo(body["access_token"])
	require.Equal(t, 401, status)
}

func TestWithoutOfflineAccessTokensEndWithTheSession(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	b, verifier := h.browser(t), oauth2.GenerateVerifier()
	s := b.signIn("pwd")
	code := answer(t, b.get("/oauth2/auth?"+ask(h.portal, verifier, url.Values{"scope": {"openid"}}).Encode())).Get("code")
	status, body := h.post("/oauth2/token", h.portal, h.secret, redeem(code, verifier))
	require.Equal(t, 200, status)
	require.NoError(t, h.db.EndSession(context.Background(), s.PatientID, s.ID, storage.Now()))
	status, _ = h.post("/oauth2/token", h.portal, h.secret, refresh(body["refresh_token"]))
	require.Equal(t, 400, status)
	require.Equal(t, map[string]any{"active": false}, h.introspection(t, body["access_token"]))
}

func TestClientCredentials(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"results"}}
	status, body := h.post("/oauth2/token", h.portal, h.secret, form)
	require.Equal(t, 200, status, body)
	require.NotContains(t, body, "refresh_token")
	require.EqualValues(t, 600, body["expires_in"])
	got := h.introspection(t, body["access_token"])
	require.Equal(t, true, got["active"])
	require.Equal(t, h.portal.ID, got["sub"])
	require.Equal(t, []any{issuer}, got["aud"])
	status, _ = h.userinfo(body["access_token"])
	require.Equal(t, 401, status, "there is no patient behind it")

	form.Set("scope", "openid")
	status, body = h.post("/oauth2/token", h.portal, h.secret, form)
	require.Equal(t, []any{400, "invalid_scope"}, []any{status, body["error"]})
	form.Set("scope", "results")
	form.Set("resource", "https://results.example")
	_, body = h.post("/oauth2/token", h.portal, h.secret, form)
	require.Equal(t, map[string]any{"active": false}, h.introspection(t, body["access_token"]), "for another resource server")
	form.Set("resource", "https://elsewhere.example")
	status, body = h.post("/oauth2/token", h.portal, h.secret, form)
	require.Equal(t, []any{400, "invalid_target"}, []any{status, body["error"]})
	status, body = h.post("/oauth2/token", h.public, "", url.Values{"grant_type": {"client_credentials"}})
	require.Equal(t, 400, status, body)
}

func TestIntrospectionIsForResourceServers(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	body := h.tokens(t, h.portal, h.secret, nil)
	got := h.introspection(t, body["access_token"])
	require.Equal(t, "openid offline_access", got["scope"])
	require.Equal(t, "urn:patauth:acr:one-factor", got["acr"])
	require.Equal(t, true, h.introspection(t, body["refresh_token"])["active"])
	require.Equal(t, map[string]any{"active": false}, h.introspection(t, "junk"))
	require.Equal(t, map[string]any{"active": false}, h.introspection(t, body["id_token"]))

	status, refusal := h.post("/oauth2/introspect", h.portal, h.secret, url.Values{"token": {body["access_token"].(string)}})
	require.Equal(t, []any{403, "unauthorized_client"}, []any{status, refusal["error"]}, "not registered for it")
	r := httptest.NewRequest("POST", "/oauth2/introspect", strings.NewReader("token="+body["access_token"].(string)))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", "Bearer "+body["access_token"].(string))
	status, _ = h.send(r)
	require.Equal(t, 401, status, "a patient's token does not authorize")
}

func TestRevocation(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	body := h.tokens(t, h.portal, h.secret, nil)
	status, _ := h.post("/oauth2/revoke", h.public, "", url.Values{"token": {body["refresh_token"].(string)}})
	require.Equal(t, 400, status, "another client's")
	require.Equal(t, true, h.introspection(t, body["access_token"])["active"])
	status, _ = h.post("/oauth2/revoke", h.portal, h.secret, url.Values{"token": {"unknown"}})
	require.Equal(t, 200, status)
	status, _ = h.post("/oauth2/revoke", h.portal, h.secret, url.Values{"token": {body["refresh_token"].(string)}, "token_type_hint": {"access_token"}})
	require.Equal(t, 200, status)
	audit, err := h.db.AuditOf(context.Background(), h.patient.ID, 1)
	require.NoError(t, err)
	require.Equal(t, "grant.revoked", audit[0].Event)
	require.NotEmpty(t, audit[0].RequestID, "the audit names the request")
	require.Equal(t, map[string]any{"active": false}, h.introspection(t, body["access_token"]))
	require.Equal(t, map[string]any{"active": false}, h.introspection(t, body["refresh_token"]))
}

func TestRevokingAnExpiredAccessTokenEndsItsGrant(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	h.change(t, &h.portal, func(c *storage.Client) { c.Metadata.Lifetimes.AccessToken = 1 })
	body := h.tokens(t, h.portal, h.secret, nil)
	require.Eventually(t, func() bool { return h.introspection(t, body["access_token"])["active"] == false }, 20*time.Second, 100*time.Millisecond)
	require.Equal(t, true, h.introspection(t, body["refresh_token"])["active"])
	status, _ := h.post("/oauth2/revoke", h.portal, h.secret, url.Values{"token": {body["access_token"].(string)}})
	require.Equal(t, 200, status)
	require.Equal(t, false, h.introspection(t, body["refresh_token"])["active"])
}

func TestClientAuthentication(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	cc := "grant_type=client_credentials"
	send := func(body string, change func(*http.Request)) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/oauth2/token", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if change != nil {
			change(r)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	basic := func(id, secret string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(id, secret) }
	}
	wrong := send(cc, basic(h.portal.ID, "wrong"))
	unknown := send(cc, basic("unknown", "wrong"))
	// RFC 6749, Section 5.2: a challenge for who used the header.
	for w, challenge := range map[*httptest.ResponseRecorder]string{
		wrong: `Basic realm="patauth"`, unknown: `Basic realm="patauth"`,
		send(cc, func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }):         `Basic realm="patauth"`,
		send(cc, func(r *http.Request) { r.Header.Set("Authorization", "Basic !") }):          `Basic realm="patauth"`,
		send(cc, basic(h.portal.ID, "")):                                                      `Basic realm="patauth"`,
		send(cc+"&client_id="+h.portal.ID, nil):                                               "",
		send(cc, nil):                                                                         "",
		send(cc+"&client_id="+h.portal.ID+"&client_secret="+h.secret, nil):                    "", // registered for Basic only
		send(cc+"&client_id="+h.portal.ID+"&client_secret=", nil):                             "",
		send(cc+"&client_id="+h.portal.ID+"&client_assertion=x&client_assertion_type=y", nil): "",
	} {
		require.Equal(t, 401, w.Code, w.Body)
		require.Equal(t, challenge, w.Header().Get("WWW-Authenticate"))
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		require.Contains(t, w.Body.String(), `"invalid_client"`)
	}
	require.Equal(t, wrong.Body.String(), unknown.Body.String(), "nobody learns which clients exist")

	two := send(cc+"&client_secret="+h.secret, basic(h.portal.ID, h.secret))
	require.Equal(t, 400, two.Code)
	other := send(cc+"&client_id="+h.public.ID, basic(h.portal.ID, h.secret))
	require.Equal(t, 400, other.Code)
	inURL := send(cc, func(r *http.Request) { r.URL.RawQuery = "client_id=" + h.portal.ID + "&client_secret=" + h.secret })
	require.Equal(t, 400, inURL.Code)

	// RFC 6749, Section 3.2: what has no value was not sent. RFC 9110, Section 11.4:
	// one space or more.
	for _, w := range []*httptest.ResponseRecorder{
		send(cc+"&client_secret=", basic(h.portal.ID, h.secret)),
		send(cc+"&client_secret=&client_assertion=&client_assertion_type=&client_id=", basic(h.portal.ID, h.secret)),
		send(cc, func(r *http.Request) {
			basic(h.portal.ID, h.secret)(r)
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), " ", "   ", 1))
		}),
	} {
		require.Equal(t, 200, w.Code, w.Body)
	}
	// A public client has no secret, and may say so.
	for _, w := range []*httptest.ResponseRecorder{
		send("grant_type=refresh_token&refresh_token=x&client_id="+h.public.ID+"&client_secret=", nil),
		send("grant_type=refresh_token&refresh_token=x", basic(h.public.ID, "")),
		send("grant_type=refresh_token&refresh_token=x&client_secret=&client_id="+h.public.ID, basic(h.public.ID, "")),
	} {
		require.Contains(t, w.Body.String(), `"invalid_grant"`, "it is known")
	}
	require.Contains(t, send("grant_type=refresh_token&refresh_token=x", basic(h.public.ID, "x")).Body.String(), `"invalid_client"`)

	// Two secrets live at once; a third retires the first.
	c := h.portal
	second := h.db.NewClientSecret(&c)
	require.True(t, h.db.ClientSecretValid(&c, h.secret) && h.db.ClientSecretValid(&c, second))
	h.db.NewClientSecret(&c)
	require.False(t, h.db.ClientSecretValid(&c, h.secret))
	require.False(t, h.db.ClientSecretValid(&storage.Client{}, ""), "no secret matches no secret")
}

// Answers to a failed authentication are alike; the operator's log is not. What is no
// client's id is not repeated there: people paste secrets into the wrong field.
func TestTheLogSaysWhyAClientWasRefused(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	s := h.signer(t, jose.ES256, nil)
	var log bytes.Buffer
	was := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(&log, nil)))
	defer slog.SetDefault(was)
	const secret = "pa_cs_in-the-wrong-field"
	in := func(id, secret string) url.Values { return url.Values{"client_id": {id}, "client_secret": {secret}} }
	assertion := func(a string, more url.Values) url.Values {
		form := url.Values{"client_assertion": {a}, "client_assertion_type": {assertionType}}
		maps.Copy(form, more)
		return form
	}
	now := time.Now().Unix()
	for _, row := range []struct {
		form                  url.Values
		header                string // NAME:SECRET for Basic, or all of it
		client, method, cause string
	}{
		{nil, h.portal.ID + ":" + secret, h.portal.ID, "client_secret_basic", "the secret is wrong"},
		{nil, h.portal.ID + ":", h.portal.ID, "none", "the client has a method and used none"},
		{in(h.portal.ID, h.secret), "", h.portal.ID, "client_secret_post", "the client is not registered for this method"},
		{url.Values{"client_id": {h.portal.ID}}, "", h.portal.ID, "none", "the client has a method and used none"},
		{in(h.public.ID, secret), "", h.public.ID, "client_secret_post", "the client is not registered for this method"},
		{nil, secret + ":" + h.secret, "", "client_secret_basic", "there is no such client"},
		{in(secret, h.secret), "", "", "client_secret_post", "there is no such client"},
		{url.Values{"client_id": {secret + "\n\"}"}}, "", "", "none", "there is no such client"},
		{nil, "", "", "none", "there is no such client"},
		{nil, "Bearer " + secret, "", "client_secret_basic", "the Authorization header is not of the Basic scheme"},
		{nil, "Basic " + secret, "", "client_secret_basic", "the Authorization header is not well-formed"},
		{assertion(s.sign(t, s.claims(map[string]any{"exp": now - 60}), nil), nil), "", s.ID, "private_key_jwt", "assertion not trusted: it has expired"},
		{assertion(s.sign(t, s.claims(map[string]any{"exp": now + 3600}), nil), nil), "", s.ID, "private_key_jwt", "assertion not trusted: exp is too far ahead"},
		{assertion(s.sign(t, s.claims(map[string]any{"aud": secret}), nil), nil), "", s.ID, "private_key_jwt", "assertion not trusted: aud is somebody else"},
		{assertion(s.sign(t, s.claims(map[string]any{"iss": secret, "sub": secret}), nil), nil), "", "", "private_key_jwt", "assertion not trusted: there is no such client"},
		{assertion(secret, nil), "", "", "private_key_jwt", "assertion not trusted: not a JWT signed by an alg that we take"},
		{assertion(secret, url.Values{"client_id": {s.ID}}), "", s.ID, "private_key_jwt", "assertion not trusted: not a JWT signed by an alg that we take"},
		{assertion(s.sign(t, s.claims(map[string]any{"iss": h.portal.ID, "sub": h.portal.ID}), nil), nil), "", h.portal.ID, "private_key_jwt", "assertion not trusted: the client is not registered for private_key_jwt"},
	} {
		for _, path := range []string{"/oauth2/token", "/oauth2/introspect", "/oauth2/revoke", "/oauth2/device"} {
			form := url.Values{"grant_type": {"client_credentials"}, "token": {"x"}}
			maps.Copy(form, row.form)
			r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if id, secret, ok := strings.Cut(row.header, ":"); ok {
				r.SetBasicAuth(id, secret)
			} else if row.header != "" {
				r.Header.Set("Authorization", row.header)
			}
			log.Reset()
			status, body := h.send(r)
			require.Equal(t, []any{401, "invalid_client"}, []any{status, body["error"]}, "%s %+v", path, row)
			var line struct {
				Event, Cause string
				Client       string `json:"client_id"`
				Method       string `json:"auth_method"`
			}
			require.NoError(t, json.Unmarshal(log.Bytes(), &line), "one line: %s", &log)
			require.Equal(t, []string{"auth.client.failed", row.client, row.method, row.cause},
				[]string{line.Event, line.Client, line.Method, line.Cause}, path)
			require.NotContains(t, log.String(), secret)
			require.NotContains(t, log.String(), h.secret)
		}
	}
}

func TestBadTokenRequests(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	send := func(kind, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/oauth2/token", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	const form = "application/x-www-form-urlencoded"
	for _, c := range []struct {
		name, kind, body string
		status           int
		code             string
	}{
		{"no body", form, "", 400, "invalid_request"},
		{"unknown grant", form, "grant_type=magic", 400, "unsupported_grant_type"},
		{"password grant", form, "grant_type=password&username=a&password=b", 400, "unsupported_grant_type"},
		{"twice", form, "grant_type=client_credentials&grant_type=client_credentials", 400, "invalid_request"},
		{"json", "application/json", "{}", 415, "invalid_request"},
		{"multipart", "multipart/form-data; boundary=x", "--x--", 415, "invalid_request"},
		{"no kind", "", "grant_type=client_credentials", 415, "invalid_request"},
		{"large", form, "grant_type=" + strings.Repeat("a", 65<<10), 413, "invalid_request"},
		{"junk code", form, "grant_type=authorization_code&code=%00&client_id=" + h.public.ID, 400, "invalid_request"},
		{"no code", form, "grant_type=authorization_code&client_id=" + h.public.ID, 400, "invalid_request"},
		{"a code of no value", form, "grant_type=authorization_code&code=&client_id=" + h.public.ID, 400, "invalid_request"},
		{"no refresh token", form, "grant_type=refresh_token&client_id=" + h.public.ID, 400, "invalid_request"},
		{"no device code", form, "grant_type=" + url.QueryEscape(grantDevice) + "&client_id=" + h.public.ID, 400, "invalid_request"},
		{"unknown code", form, "grant_type=authorization_code&code=x&client_id=" + h.public.ID, 400, "invalid_grant"},
		{"unknown refresh token", form, "grant_type=refresh_token&refresh_token=x&client_id=" + h.public.ID, 400, "invalid_grant"},
	} {
		w := send(c.kind, c.body)
		require.Equal(t, c.status, w.Code, c.name)
		require.Contains(t, w.Body.String(), `"`+c.code+`"`, c.name)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/oauth2/token", nil))
	require.Equal(t, 405, w.Code)
}

func TestAnUnverifiedRedirectURIIsNeverFollowed(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	b := h.browser(t)
	for name, change := range map[string]url.Values{
		"client_id":    {"client_id": {"<script>alert(1)</script>"}},
		"redirect_uri": {"redirect_uri": {"https://evil.test/cb"}},
	} {
		for _, w := range []*httptest.ResponseRecorder{
			b.do("GET", "/oauth2/auth?"+ask(h.portal, "v", change).Encode(), nil),
			b.do("POST", "/oauth2/auth", ask(h.portal, "v", change)),
		} {
			require.Equal(t, 400, w.Code)
			require.Empty(t, w.Header().Get("Location"))
			require.Contains(t, w.Header().Get("Content-Type"), "text/html")
			require.Contains(t, w.Body.String(), name, "the page names the parameter")
			require.NotContains(t, w.Body.String(), "<script>alert")
		}
	}
	w := b.do("GET", "/oauth2/auth?"+ask(h.portal, "v", nil).Encode()+"&state=again", nil)
	require.Equal(t, 400, w.Code, "a parameter sent twice")
}

func TestAuthorizationErrorsGoToTheClient(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	long := strings.Repeat("x", 9<<10)
	for _, c := range []struct {
		name, param, value, code string
	}{
		{"no response type", "response_type", "", "invalid_request"},
		{"implicit", "response_type", "token", "unsupported_response_type"},
		{"hybrid", "response_type", "code id_token", "unsupported_response_type"},
		{"fragment", "response_mode", "fragment", "unsupported_response_mode"},
		{"no PKCE", "code_challenge", "", "invalid_request"},
		{"plain PKCE", "code_challenge_method", "plain", "invalid_request"},
		{"short challenge", "code_challenge", "abc", "invalid_request"},
		{"request object", "request", "eyJhbGciOiJub25lIn0.e30.", "request_not_supported"},
		{"request URI", "request_uri", "https://portal.example/r", "request_uri_not_supported"},
		{"registration", "registration", "{}", "registration_not_supported"},
		{"prompt", "prompt", "dance", "invalid_request"},
		{"prompt none and login", "prompt", "none login", "invalid_request"},
		{"negative max_age", "max_age", "-1", "invalid_request"},
		{"junk max_age", "max_age", "soon", "invalid_request"},
		{"foreign hint", "id_token_hint", "x.y.z", "invalid_request"},
		{"unknown resource", "resource", "https://elsewhere.example", "invalid_target"},
		{"quiet and signed out", "prompt", "none", "login_required"},
		{"long state", "state", strings.Repeat("s", 3000), "invalid_request"},
	} {
		w := h.browser(t).get("/oauth2/auth?" + ask(h.portal, oauth2.GenerateVerifier(), url.Values{c.param: {c.value}}).Encode())
		got := answer(t, w)
		require.Equal(t, c.code, got.Get("error"), c.name)
		require.Empty(t, got.Get("code"), c.name)
	}
	w := h.browser(t).do("GET", "/oauth2/auth?"+ask(h.portal, "v", url.Values{"nonce": {long}}).Encode(), nil)
	require.Equal(t, 413, w.Code)
}

func TestStateComesBackAsItWas(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	for _, state := range []string{"", "a", "ä/+ %20&=?#", strings.Repeat("s", 1024)} {
		b := h.browser(t)
		b.signIn("pwd")
		got := answer(t, b.get("/oauth2/auth?"+ask(h.portal, oauth2.GenerateVerifier(), url.Values{"state": {state}}).Encode()))
		require.NotEmpty(t, got.Get("code"))
		require.Equal(t, state, got.Get("state"))
		require.Equal(t, state != "", got.Has("state"))
	}
}

func TestARequestStaysInItsBrowser(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	mine := h.browser(t)
	first := mine.do("GET", "/oauth2/auth?"+ask(h.portal, oauth2.GenerateVerifier(), nil).Encode(), nil).Header().Get("Location")
	second := mine.do("GET", "/oauth2/auth?"+ask(h.portal, oauth2.GenerateVerifier(), nil).Encode(), nil).Header().Get("Location")
	other := h.browser(t)
	other.signIn("pwd")
	require.Equal(t, 403, other.do("GET", first, nil).Code, "moved to another browser")

	// Two tabs, one sign-in; a reload asks the same again, until it is answered.
	require.Contains(t, mine.do("GET", first, nil).Header().Get("Location"), "/login?request=")
	require.Contains(t, mine.do("GET", first, nil).Header().Get("Location"), "/login?request=")
	mine.signIn("pwd")
	code := answer(t, mine.do("GET", first, nil)).Get("code")
	require.NotEmpty(t, code)
	require.NotEmpty(t, answer(t, mine.do("GET", second, nil)).Get("code"))
	require.Equal(t, 403, other.do("GET", first, nil).Code)
}

func TestConsentIsAskedAndRemembered(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	c := storage.Client{
		Name: `Dr. "No" <b>`, AuthMethods: storage.Words{"client_secret_basic"}, RedirectURIs: storage.Strings{callback},
		GrantTypes: storage.Words{"authorization_code"}, Scopes: Scopes,
	}
	require.NoError(t, h.db.CreateClient(context.Background(), &c))
	b := h.browser(t)
	b.signIn("pwd")
	begin := func(scope string) *httptest.ResponseRecorder {
		return b.get("/oauth2/auth?" + ask(c, oauth2.GenerateVerifier(), url.Values{"scope": {scope}}).Encode())
	}
	decide := func(w *httptest.ResponseRecorder, decision string) *httptest.ResponseRecorder {
		_, after, _ := strings.Cut(w.Body.String(), `name="request" value="`)
		id, _, _ := strings.Cut(after, `"`)
		return b.get(b.do("POST", "/consent", url.Values{"request": {id}, "decision": {decision}}).Header().Get("Location"))
	}
	page := begin("openid email")
	require.Equal(t, 200, page.Code)
	require.Contains(t, page.Body.String(), "Dr. &#34;No&#34; &lt;b&gt;")
	require.Contains(t, page.Body.String(), "See your e-mail address")
	require.NotContains(t, page.Header().Get("Content-Security-Policy"), "form-action")
	require.Equal(t, "access_denied", answer(t, decide(page, "deny")).Get("error"))
	require.NotEmpty(t, answer(t, decide(begin("openid email"), "allow")).Get("code"))
	require.NotEmpty(t, answer(t, begin("openid")).Get("code"), "less than was allowed")
	require.Equal(t, 200, begin("openid profile").Code, "more than was allowed")
	require.NoError(t, h.db.RevokeConsent(context.Background(), h.patient.ID, c.ID, storage.Now()))
	require.Equal(t, 200, begin("openid").Code)
}

func TestTheAnswerCanBeAForm(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	b := h.browser(t)
	b.signIn("pwd")
	w := b.get("/oauth2/auth?" + ask(h.portal, oauth2.GenerateVerifier(), url.Values{"response_mode": {"form_post"}, "state": {`"><script>`}}).Encode())
	require.Equal(t, 200, w.Code)
	require.Contains(t, w.Body.String(), `action="`+callback+`"`)
	require.Contains(t, w.Body.String(), `name="code" value="pa_ac_`)
	require.NotContains(t, w.Body.String(), `"><script>"`)
	require.NotContains(t, w.Header().Get("Content-Security-Policy"), "form-action")
}

func TestLabDataNeedsTwoFactors(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	b := h.browser(t)
	b.signIn("pwd")
	begin := "/oauth2/auth?" + ask(h.portal, oauth2.GenerateVerifier(), url.Values{"scope": {"openid lab"}}).Encode()
	require.Contains(t, b.get(begin).Header().Get("Location"), "/login/enrol?request=")
	b.signIn("pwd", "otp")
	require.NotEmpty(t, answer(t, b.get(begin)).Get("code"))
}

func TestSignOut(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	bye := "https://portal.example/bye"
	signedIn := func() (*browser, string) {
		b, verifier := h.browser(t), oauth2.GenerateVerifier()
		b.signIn("pwd")
		code := answer(t, b.get("/oauth2/auth?"+ask(h.portal, verifier, nil).Encode())).Get("code")
		_, body := h.post("/oauth2/token", h.portal, h.secret, redeem(code, verifier))
		return b, body["id_token"].(string)
	}
	quiet := func(b *browser) string {
		return answer(t, b.get("/oauth2/auth?"+ask(h.portal, oauth2.GenerateVerifier(), url.Values{"prompt": {"none"}}).Encode())).Get("error")
	}
	// The client shows an ID token of this session.
	b, hint := signedIn()
	old := cloneCookies(b)
	w := b.get("/oauth2/logout?" + url.Values{"id_token_hint": {hint}, "post_logout_redirect_uri": {bye}, "state": {"x y"}}.Encode())
	require.Equal(t, http.StatusSeeOther, w.Code)
	require.Equal(t, bye+"?state=x+y", w.Header().Get("Location"))
	require.Equal(t, "login_required", quiet(b))
	require.Equal(t, "login_required", quiet(old), "a kept cookie is nobody's")

	// Without a hint, with a foreign one, or with one of another session: the patient is asked.
	_, others := signedIn()
	for _, p := range []url.Values{{}, {"id_token_hint": {"a.b.c"}}, {"id_token_hint": {others}, "post_logout_redirect_uri": {bye}}} {
		b, _ := signedIn()
		w := b.get("/oauth2/logout?" + p.Encode())
		require.Equal(t, 200, w.Code)
		require.Contains(t, w.Body.String(), `action="/logout"`)
		require.Empty(t, quiet(b), "still signed in")
	}
	// An address that is not registered is not followed.
	b, hint = signedIn()
	w = b.get("/oauth2/logout?" + url.Values{"id_token_hint": {hint}, "post_logout_redirect_uri": {"https://evil.test/"}}.Encode())
	require.Equal(t, 400, w.Code)
	require.Contains(t, w.Body.String(), "post_logout_redirect_uri")
	require.Empty(t, w.Header().Get("Location"))
	// The patient's own yes.
	b, _ = signedIn()
	w = b.do("POST", "/logout", url.Values{"client_id": {h.portal.ID}, "post_logout_redirect_uri": {bye}})
	require.Equal(t, bye, w.Header().Get("Location"))
	require.Equal(t, "login_required", quiet(b))
}

func cloneCookies(b *browser) *browser {
	c := b.h.browser(b.t)
	for k, v := range b.cookies {
		c.cookies[k] = v
	}
	return c
}

func TestDiscoveryNamesTheIssuer(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	r := httptest.NewRequest("GET", "/.well-known/openid-configuration", nil)
	status, doc := h.send(r)
	require.Equal(t, 200, status)
	require.Equal(t, issuer, doc["issuer"])
	require.Equal(t, []any{"code"}, doc["response_types_supported"])
	require.Equal(t, []any{"S256"}, doc["code_challenge_methods_supported"])
	for k, v := range doc {
		if strings.HasSuffix(k, "_endpoint") || k == "jwks_uri" {
			u, err := url.Parse(v.(string))
			require.NoError(t, err)
			require.Equal(t, issuer, u.Scheme+"://"+u.Host)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", u.Path, nil))
			require.NotEqual(t, 404, w.Code, k)
		}
	}
}

// A proxy stands before a database and can be cut.
type proxy struct {
	net.Listener
	to    string
	mu    sync.Mutex
	conns []net.Conn
}

func (p *proxy) serve() {
	for {
		c, err := p.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", p.to)
		if err != nil {
			c.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, c, up)
		p.mu.Unlock()
		go io.Copy(up, c)
		go io.Copy(c, up)
	}
}

func (p *proxy) cut() {
	p.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
}

// behindProxy is a PostgreSQL database that can be cut off.
func behindProxy(t *testing.T) (*storage.DB, *proxy) {
	t.Helper()
	dsn, err := url.Parse(storagetest.PostgresURL(t))
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{Listener: l, to: dsn.Host}
	go p.serve()
	dsn.Host = l.Addr().String()
	return storagetest.Open(t, dsn.String()), p
}

// Without the database a client is told to come back, and nothing else: not that
// its secret is wrong, its token inactive or revoked. The public keys stay.
func TestAnAbsentDatabase(t *testing.T) {
	db, p := behindProxy(t)
	h := build(t, db)
	body := h.tokens(t, h.portal, h.secret, nil)
	b := h.browser(t)
	b.signIn("pwd")
	p.cut()
	for _, path := range []string{"/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"} {
		form := refresh(body["refresh_token"])
		form.Set("token", body["access_token"].(string))
		r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(h.portal.ID, h.secret)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, 503, w.Code, path+w.Body.String())
		require.NotEmpty(t, w.Header().Get("Retry-After"))
	}
	status, _ := h.userinfo(body["access_token"])
	require.Equal(t, 503, status)
	require.Equal(t, 503, b.do("GET", "/oauth2/auth?"+ask(h.portal, "v", nil).Encode(), nil).Code)
	for _, path := range []string{"/.well-known/jwks.json", "/.well-known/openid-configuration"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		require.Equal(t, 200, w.Code)
	}
}
