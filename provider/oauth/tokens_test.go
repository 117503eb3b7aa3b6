package oauth

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

const results = "https://results.example"

// change registers c anew with what do makes of it.
func (h *house) change(t testing.TB, c *storage.Client, do func(*storage.Client)) {
	t.Helper()
	do(c)
	require.NoError(t, h.db.UpdateClient(context.Background(), c))
}

// headerOf is the JOSE header of a JWT.
func headerOf(t testing.TB, token any) jose.Header {
	t.Helper()
	jws, err := jose.ParseSignedCompact(token.(string), []jose.SignatureAlgorithm{"ES256", "RS256", "PS256", "EdDSA"})
	require.NoError(t, err)
	return jws.Signatures[0].Protected
}

func TestAccessTokensAreJWTsForWhoAsks(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	h.change(t, &h.portal, func(c *storage.Client) {
		c.Metadata.AccessTokenSignedResponseAlg = "RS256"
		c.Metadata.Lifetimes.AccessToken = 3600
	})
	body := h.tokens(t, h.portal, h.secret, url.Values{"scope": {"openid email"}})
	require.EqualValues(t, 600, body["expires_in"], "a JWT cannot be taken back sooner")
	require.Equal(t, "at+jwt", headerOf(t, body["access_token"]).ExtraHeaders["typ"])
	require.Equal(t, "RS256", headerOf(t, body["access_token"]).Algorithm)
	c := claimsOf(t, body["access_token"])
	require.Equal(t, issuer, c["iss"])
	require.Equal(t, h.patient.ID, c["sub"])
	require.Equal(t, []any{issuer}, c["aud"])
	require.Equal(t, h.portal.ID, c["client_id"])
	require.Equal(t, "openid email", c["scope"])
	require.Equal(t, "urn:patauth:acr:one-factor", c["acr"])
	require.Equal(t, []any{"pwd"}, c["amr"])
	require.NotEmpty(t, c["jti"])
	require.InDelta(t, time.Now().Unix(), c["iat"], 5)
	require.InDelta(t, time.Now().Add(10*time.Minute).Unix(), c["exp"], 5)
	require.InDelta(t, time.Now().Unix(), c["auth_time"], 5)
	for _, personal := range []string{"email", "name", "birthdate", "lab"} {
		require.NotContains(t, c, personal)
	}
	// It works at our own endpoints, and can be taken back there.
	status, info := h.userinfo(body["access_token"])
	require.Equal(t, 200, status, info)
	require.Equal(t, true, h.introspection(t, body["access_token"])["active"])
	status, _ = h.post("/oauth2/revoke", h.portal, h.secret, url.Values{"token": {body["access_token"].(string)}})
	require.Equal(t, 200, status)
	status, _ = h.userinfo(body["access_token"])
	require.Equal(t, 401, status)

	// No kind passes for another, whoever signed it.
	status, _ = h.userinfo(body["id_token"])
	require.Equal(t, 401, status)
	fresh := h.tokens(t, h.portal, h.secret, nil)
	b := h.browser(t)
	b.signIn("pwd")
	got := answer(t, b.get("/oauth2/auth?"+ask(h.portal, oauth2.GenerateVerifier(), url.Values{"id_token_hint": {fresh["access_token"].(string)}}).Encode()))
	require.Equal(t, "invalid_request", got.Get("error"), "an access token is no ID token hint")

	// The client itself: RFC 9068, Section 2.2, sub is the client.
	status, body = h.post("/oauth2/token", h.portal, h.secret, url.Values{"grant_type": {"client_credentials"}, "scope": {"results"}})
	require.Equal(t, 200, status)
	c = claimsOf(t, body["access_token"])
	require.Equal(t, h.portal.ID, c["sub"])
	require.NotContains(t, c, "acr")
}

func TestAResourceServerChoosesItsTokens(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	h.change(t, &h.server, func(c *storage.Client) {
		c.Audience = storage.Strings{results}
		c.Metadata.AccessTokenSignedResponseAlg = "ES256"
	})
	body := h.tokens(t, h.portal, h.secret, url.Values{"resource": {results}})
	require.Equal(t, []any{results}, claimsOf(t, body["access_token"])["aud"])
	require.Equal(t, true, h.introspection(t, body["access_token"])["active"], "it is for this server")
	status, _ := h.userinfo(body["access_token"])
	require.Equal(t, 401, status, "it is for another resource than ours")
	opaque := h.tokens(t, h.portal, h.secret, nil)
	require.True(t, strings.HasPrefix(opaque["access_token"].(string), prefixAccess))
}

// RFC 8707, Section 2.2.
func TestTokensAreForTheResourcesThatAreNamed(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	const other = "https://letters.example"
	h.change(t, &h.portal, func(c *storage.Client) { c.Audience = storage.Strings{results, other} })
	code, verifier := h.code(t, h.portal, url.Values{"resource": {results, issuer}})
	form := redeem(code, verifier)
	form["resource"] = []string{results}
	status, body := h.post("/oauth2/token", h.portal, h.secret, form)
	require.Equal(t, 200, status, body)
	status, _ = h.userinfo(body["access_token"])
	require.Equal(t, 401, status)
	require.Equal(t, map[string]any{"active": false}, h.introspection(t, body["access_token"]), "this server is not the audience")

	form = refresh(body["refresh_token"])
	form["resource"] = []string{issuer}
	status, body = h.post("/oauth2/token", h.portal, h.secret, form)
	require.Equal(t, 200, status, body)
	require.Equal(t, []any{issuer}, h.introspection(t, body["access_token"])["aud"])
	status, body = h.post("/oauth2/token", h.portal, h.secret, refresh(body["refresh_token"]))
	require.Equal(t, 200, status, body)
	require.Equal(t, []any{results, issuer}, h.introspection(t, body["access_token"])["aud"], "all that were granted")

	for _, bad := range []string{other, results + "/", "HTTPS://results.example", results + "/../"} {
		form = refresh(body["refresh_token"])
		form["resource"] = []string{bad}
		status, e := h.post("/oauth2/token", h.portal, h.secret, form)
		require.Equal(t, []any{400, "invalid_target"}, []any{status, e["error"]}, bad)
	}
}

func TestLifetimesAreTheClients(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	h.change(t, &h.portal, func(c *storage.Client) {
		c.Metadata.Lifetimes = storage.Lifetimes{AccessToken: 120, IDToken: 90, RefreshIdle: 3600, Grant: 7200}
	})
	h.change(t, &h.public, func(c *storage.Client) { c.Metadata.Lifetimes.AccessToken = 3600 })
	b, verifier := h.browser(t), oauth2.GenerateVerifier()
	b.signIn("pwd", "otp")
	for scope, want := range map[string]int{"openid": 3600, "openid lab": 600} {
		code := answer(t, b.get("/oauth2/auth?"+askFor(h.public, verifier, url.Values{"scope": {scope}}))).Get("code")
		_, body := h.post("/oauth2/token", h.public, "", redeem(code, verifier))
		require.EqualValues(t, want, body["expires_in"], "health data for ten minutes at most")
	}
	body := h.tokens(t, h.portal, h.secret, nil)
	require.EqualValues(t, 120, body["expires_in"])
	id := claimsOf(t, body["id_token"])
	require.EqualValues(t, 90, id["exp"].(float64)-id["iat"].(float64))
	rt := h.introspection(t, body["refresh_token"])
	require.InDelta(t, time.Now().Add(time.Hour).Unix(), rt["exp"], 5)
	g, err := h.db.Grant(context.Background(), h.grantOf(t, body), storage.Now())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(2*time.Hour), g.ExpiresAt, 5*time.Second)

	// No refresh outlives the grant.
	h.change(t, &h.portal, func(c *storage.Client) { c.Metadata.Lifetimes = storage.Lifetimes{Grant: 300} })
	body = h.tokens(t, h.portal, h.secret, nil)
	require.InDelta(t, time.Now().Add(5*time.Minute).Unix(), h.introspection(t, body["refresh_token"])["exp"], 5)
}

func (h *house) grantOf(t testing.TB, body map[string]any) string {
	t.Helper()
	rt, err := h.db.RefreshToken(context.Background(), storage.Digest(body["refresh_token"].(string)))
	require.NoError(t, err)
	return rt.GrantID
}

func TestIDTokensInEveryAlgorithm(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	for _, alg := range keys.Algorithms {
		h.change(t, &h.portal, func(c *storage.Client) { c.IDTokenAlg = alg })
		body := h.tokens(t, h.portal, h.secret, nil)
		require.Equal(t, alg, headerOf(t, body["id_token"]).Algorithm)
		require.NoError(t, h.keys.Verify(body["id_token"].(string), "JWT", &struct{}{}))
		require.Equal(t, halfHash(alg, body["access_token"].(string)), claimsOf(t, body["id_token"])["at_hash"])
	}
}

// The values are those of OpenID Connect Core's own definition: the left half,
// base64url-encoded, of the hash that the algorithm uses.
func TestHalfHash(t *testing.T) {
	const token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y" // Core, Appendix A.3
	require.Equal(t, "77QmUPtjPfzWtF2AnpK9RQ", halfHash("RS256", token))
	require.Len(t, halfHash("EdDSA", token), 43, "half of SHA-512")
}

func TestUserInfoCanBeSigned(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	h.change(t, &h.portal, func(c *storage.Client) { c.Metadata.UserinfoSignedResponseAlg = "ES256" })
	body := h.tokens(t, h.portal, h.secret, url.Values{"scope": {"openid email"}})
	r := httptest.NewRequest("GET", "/oauth2/userinfo", nil)
	r.Header.Set("Authorization", "bearer "+body["access_token"].(string)) // RFC 9110, Section 11.1: in any case
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, 200, w.Code)
	require.Equal(t, "application/jwt", w.Header().Get("Content-Type"))
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	var claims map[string]any
	require.NoError(t, h.keys.Verify(w.Body.String(), "JWT", &claims))
	require.Equal(t, issuer, claims["iss"])
	require.Equal(t, h.portal.ID, claims["aud"])
	require.Equal(t, h.patient.ID, claims["sub"])
	require.Equal(t, "ada@example.org", claims["email"])
	_, err := readHint(h.keys, w.Body.String(), issuer)
	require.Error(t, err, "it does not pass for an ID token")
}

func TestIntrospectionCanBeSigned(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	body := h.tokens(t, h.portal, h.secret, nil)
	ask := func(token any) (map[string]any, *httptest.ResponseRecorder) {
		form := url.Values{"token": {token.(string)}, "client_id": {h.server.ID}, "client_secret": {h.serverSecret}}
		r := httptest.NewRequest("POST", "/oauth2/introspect", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Accept", "application/json;q=0.5, application/token-introspection+jwt")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, 200, w.Code, w.Body)
		require.Equal(t, "application/token-introspection+jwt", w.Header().Get("Content-Type"))
		var claims map[string]any
		require.NoError(t, h.keys.Verify(w.Body.String(), "token-introspection+jwt", &claims))
		return claims, w
	}
	claims, w := ask(body["access_token"])
	require.Equal(t, "RS256", headerOf(t, w.Body.String()).Algorithm, "RFC 9701, Section 6")
	require.Equal(t, issuer, claims["iss"])
	require.Equal(t, h.server.ID, claims["aud"])
	require.NotContains(t, claims, "sub", "RFC 9701, Section 5: nothing that would make it an access or ID token")
	require.NotContains(t, claims, "exp")
	answer := claims["token_introspection"].(map[string]any)
	require.Equal(t, true, answer["active"])
	require.Equal(t, h.patient.ID, answer["sub"])
	claims, _ = ask("junk")
	require.Equal(t, map[string]any{"active": false}, claims["token_introspection"])
	h.change(t, &h.server, func(c *storage.Client) { c.Metadata.IntrospectionSignedResponseAlg = "ES256" })
	_, w = ask(body["access_token"])
	require.Equal(t, "ES256", headerOf(t, w.Body.String()).Algorithm)
}

// OpenID Connect Core, Section 8: what one sector calls a patient says nothing
// to another, and every endpoint says the same.
func TestPairwiseSubjects(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := build(t, db)
		pairwise := func(sector string) func(*storage.Client) {
			return func(c *storage.Client) { c.Metadata.SubjectType, c.Metadata.Sector = "pairwise", sector }
		}
		h.change(t, &h.portal, pairwise("portal.example"))
		h.change(t, &h.public, pairwise("app.example"))
		body := h.tokens(t, h.portal, h.secret, nil)
		sub := claimsOf(t, body["id_token"])["sub"].(string)
		require.NotEqual(t, h.patient.ID, sub)
		require.Len(t, sub, 43)
		_, info := h.userinfo(body["access_token"])
		require.Equal(t, sub, info["sub"])
		require.Equal(t, sub, h.introspection(t, body["access_token"])["sub"])
		_, next := h.post("/oauth2/token", h.portal, h.secret, refresh(body["refresh_token"]))
		require.Equal(t, sub, claimsOf(t, next["id_token"])["sub"])
		require.Equal(t, sub, claimsOf(t, h.tokens(t, h.portal, h.secret, nil)["id_token"])["sub"], "for ever")
		other := h.tokens(t, h.public, "", nil)
		require.NotEqual(t, sub, claimsOf(t, other["id_token"])["sub"])

		// A hint is about the patient by the name that this client knows.
		b := h.browser(t)
		b.signIn("pwd")
		quiet := func(hint any) url.Values {
			return answer(t, b.get("/oauth2/auth?"+ask(h.portal, oauth2.GenerateVerifier(), url.Values{"prompt": {"none"}, "id_token_hint": {hint.(string)}}).Encode()))
		}
		require.NotEmpty(t, quiet(body["id_token"]).Get("code"))
		require.Equal(t, "invalid_request", quiet(other["id_token"]).Get("error"), "another client's")
	})
}

// OpenID Connect Core, Section 5.5.
func TestClaimsAreAskedForOneByOne(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	claims := func(v string) url.Values { return url.Values{"scope": {"openid"}, "claims": {v}} }
	body := h.tokens(t, h.portal, h.secret, claims(`{
		"userinfo": {"given_name": {"essential": true}, "nickname": null, "http://example.info/claims/groups": null, "email": {"extra": 1}},
		"id_token": {"auth_time": {"essential": true}, "family_name": null, "acr": {"values": ["urn:mace:incommon:iap:silver"]}},
		"other": 7}`))
	id := claimsOf(t, body["id_token"])
	require.Equal(t, "Example", id["family_name"])
	require.NotContains(t, id, "given_name")
	_, info := h.userinfo(body["access_token"])
	require.Equal(t, "Ada", info["given_name"])
	require.Equal(t, "ada@example.org", info["email"])
	require.NotContains(t, info, "family_name")
	require.NotContains(t, info, "nickname", "there is none")
	// The same after a refresh, and the scope says nothing more.
	require.Equal(t, "openid", body["scope"])

	ask := func(v string, factors ...string) url.Values {
		b := h.browser(t)
		b.signIn(factors...)
		w := b.get("/oauth2/auth?" + ask(h.portal, oauth2.GenerateVerifier(), url.Values{"scope": {"openid"}, "prompt": {"none"}, "claims": {v}}).Encode())
		return answer(t, w)
	}
	const two = "urn:patauth:acr:two-factor"
	for _, c := range []struct{ claims, factor, want string }{
		{`{"id_token": {"sub": {"value": "` + h.patient.ID + `"}}}`, "pwd", ""},
		{`{"id_token": {"sub": {"value": "somebody"}}}`, "pwd", "login_required"},
		{`{"userinfo": {"sub": {"values": ["somebody"]}}}`, "pwd", "login_required"},
		{`{"id_token": {"acr": {"essential": true, "value": "` + two + `"}}}`, "pwd", "interaction_required"},
		{`{"id_token": {"acr": {"essential": true, "values": ["unknown", "` + two + `"]}}}`, "pwd", "interaction_required"},
		{`{"id_token": {"acr": {"essential": true, "value": "unknown"}}}`, "pwd", "unmet_authentication_requirements"},
		{`{"id_token": {"acr": {"value": "unknown"}}}`, "pwd", ""},
		{`{"id_token": {"acr": null}}`, "pwd", ""},
		{`null`, "pwd", "invalid_request"},
		{`[]`, "pwd", "invalid_request"},
		{`{"id_token": []}`, "pwd", "invalid_request"},
		{`{"id_token": {"email": true}}`, "pwd", "invalid_request"},
		{`{`, "pwd", "invalid_request"},
		{strings.Repeat("[", 1000), "pwd", "invalid_request"},
		{`{"userinfo": {"x": null` + strings.Repeat(" ", 4096) + `}}`, "pwd", "invalid_request"},
	} {
		got := ask(c.claims, c.factor)
		require.Equal(t, c.want, got.Get("error"), c.claims)
		require.Equal(t, c.want == "", got.Has("code"), c.claims)
	}

	// Who names the class it knows is told that one.
	b, verifier := h.browser(t), oauth2.GenerateVerifier()
	b.signIn("passkey_uv")
	q := url.Values{"claims": {`{"id_token": {"acr": {"essential": true, "values": ["urn:patauth:acr:one-factor", "` + two + `"]}}}`}}
	code := answer(t, b.get("/oauth2/auth?"+askFor(h.portal, verifier, q))).Get("code")
	_, body = h.post("/oauth2/token", h.portal, h.secret, redeem(code, verifier))
	require.Equal(t, two, claimsOf(t, body["id_token"])["acr"])
}

func askFor(c storage.Client, verifier string, change url.Values) string {
	return ask(c, verifier, change).Encode()
}

func TestAClaimBeyondTheClientsScopesIsNotGiven(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	h.change(t, &h.portal, func(c *storage.Client) { c.Scopes = storage.Words{"openid", "offline_access"} })
	body := h.tokens(t, h.portal, h.secret, url.Values{"claims": {`{"userinfo": {"email": {"essential": true}, "lab": null}}`}})
	_, info := h.userinfo(body["access_token"])
	require.Equal(t, map[string]any{"sub": h.patient.ID}, info)
}

// RFC 9470, Section 4, and what a client may register (OpenID Connect
// Registration 1.0, Section 2).
func TestAClientCanDemandMore(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	begin := func(factors ...string) string {
		b := h.browser(t)
		b.signIn(factors...)
		w := b.get("/oauth2/auth?" + askFor(h.portal, oauth2.GenerateVerifier(), nil))
		return w.Header().Get("Location")
	}
	h.change(t, &h.portal, func(c *storage.Client) { c.Metadata.RequireACR = "phr" })
	require.Contains(t, begin("pwd"), "/login/enrol")
	require.Contains(t, begin("pwd", "otp"), "/login/enrol")
	require.Contains(t, begin("passkey_uv"), "code=")
	h.change(t, &h.portal, func(c *storage.Client) { c.Metadata.RequireACR, c.Metadata.DefaultACRValues = "", []string{"x", "phr"} })
	require.Contains(t, begin("pwd", "otp"), "/login/enrol")
	zero := 0
	h.change(t, &h.portal, func(c *storage.Client) { c.Metadata = storage.ClientMetadata{DefaultMaxAge: &zero} })
	require.Contains(t, begin("pwd"), "/login?", "default_max_age")
}

// A session is raised, not replaced: the tokens of before stay good, and say
// what they said.
func TestStepUp(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	b, verifier := h.browser(t), oauth2.GenerateVerifier()
	s := b.signIn("pwd")
	code := answer(t, b.get("/oauth2/auth?"+askFor(h.portal, verifier, nil))).Get("code")
	_, weak := h.post("/oauth2/token", h.portal, h.secret, redeem(code, verifier))
	up := url.Values{"acr_values": {"urn:patauth:acr:two-factor"}}
	require.Contains(t, b.get("/oauth2/auth?"+askFor(h.portal, verifier, up)).Header().Get("Location"), "/login/enrol")

	raised := s
	raised.Factors, raised.AuthTime = storage.Factors{"pwd": s.AuthTime, "otp": storage.Now()}, storage.Now()
	handle := storage.NewHandle("pas_")
	raised.Digest = storage.Digest(handle)
	require.NoError(t, h.db.ReplaceSession(context.Background(), s.Digest, &raised))
	b.cookies[web.Cookie(issuer, web.SessionCookie, "", 0).Name] = handle
	code = answer(t, b.get("/oauth2/auth?"+askFor(h.portal, verifier, up))).Get("code")
	_, strong := h.post("/oauth2/token", h.portal, h.secret, redeem(code, verifier))
	before, after := claimsOf(t, weak["id_token"]), claimsOf(t, strong["id_token"])
	require.Equal(t, before["sid"], after["sid"])
	require.Equal(t, "urn:patauth:acr:two-factor", after["acr"])
	require.Equal(t, "urn:patauth:acr:one-factor", h.introspection(t, weak["access_token"])["acr"])
	require.Equal(t, "urn:patauth:acr:two-factor", h.introspection(t, strong["access_token"])["acr"])
}

func TestOriginsThatMayCall(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	h.change(t, &h.portal, func(c *storage.Client) { c.Origins = storage.Strings{"https://spa.example:8443"} })
	send := func(method, path, origin string) http.Header {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", "POST")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Header()
	}
	for _, path := range []string{"/oauth2/token", "/oauth2/userinfo", "/oauth2/revoke"} {
		for origin, want := range map[string]bool{
			"https://spa.example:8443": true, "https://portal.example": true, // of the public client's redirect URI
			"https://spa.example": false, "https://evil.test": false, "null": false, "*": false, `"`: false, "": false,
		} {
			for _, method := range []string{"OPTIONS", "POST"} {
				got := send(method, path, origin)
				require.Equal(t, want, got.Get("Access-Control-Allow-Origin") == origin && origin != "", method+path+origin)
				require.Empty(t, got.Get("Access-Control-Allow-Credentials"))
				require.Contains(t, got.Values("Vary"), "Origin")
			}
		}
	}
	for _, path := range []string{"/oauth2/auth", "/oauth2/introspect", "/consent", "/logout", "/oauth2/logout"} {
		require.Empty(t, send("GET", path, "https://portal.example").Get("Access-Control-Allow-Origin"), path)
		require.Empty(t, send("OPTIONS", path, "https://portal.example").Get("Access-Control-Allow-Origin"), path)
	}
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/jwks.json"} {
		require.Equal(t, "*", send("GET", path, "https://anybody.example").Get("Access-Control-Allow-Origin"))
	}
}

func TestConsentTellsWhatIsNew(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	h.change(t, &h.portal, func(c *storage.Client) {
		c.FirstParty = false
		c.Metadata.PolicyURI = `https://portal.example/privacy?"><script>`
	})
	b := h.browser(t)
	s := b.signIn("pwd")
	require.NoError(t, h.db.SaveConsent(context.Background(), s.PatientID, h.portal, storage.PlaceOf(callback), storage.Words{"openid", "profile"}, storage.Now()))
	page := b.get("/oauth2/auth?" + askFor(h.portal, oauth2.GenerateVerifier(), url.Values{
		"scope": {"openid profile offline_access"}, "claims": {`{"userinfo": {"email": null}}`},
	})).Body.String()
	known, fresh, ok := strings.Cut(page, "<h2>New</h2>")
	require.True(t, ok)
	require.Contains(t, known, "See your name")
	require.Contains(t, fresh, "See your e-mail address")
	require.Contains(t, fresh, "Keep this access")
	require.NotContains(t, fresh, "See your name")
	require.Contains(t, page, "at most 90 days")
	require.NotContains(t, page, "<script>\"")
	require.Contains(t, page, `href="https://portal.example/privacy?%22%3e%3cscript%3e"`)
}

func FuzzClaims(f *testing.F) {
	f.Add(`{"id_token": {"acr": {"essential": true, "values": ["a"]}}, "userinfo": {"email": null}}`)
	f.Add(`{"id_token": {"sub": {"value": 1}}}`)
	f.Fuzz(func(t *testing.T, raw string) {
		c, err := readClaims(raw)
		if err != nil {
			if e := protocol(err); e.Status != 400 || e.Code != "invalid_request" {
				t.Fatalf("%q is answered %d %s", raw, e.Status, e.Code)
			}
			return
		}
		if raw != "" && !json.Valid([]byte(raw)) {
			t.Fatalf("accepted %q", raw)
		}
		for _, name := range append(known(c.IDToken, Scopes), known(c.UserInfo, Scopes)...) {
			if scopeOf(name) == "" {
				t.Fatalf("%q is no claim", name)
			}
		}
	})
}
