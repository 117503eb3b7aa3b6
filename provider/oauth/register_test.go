package oauth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/pat-authenticate/patauth/provider/outbound"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

const initial = "an initial access token of some length"

// registering is a provider where clients may register as p says.
func registering(t testing.TB, db *storage.DB, p Registration) *house {
	t.Helper()
	h := build(t, db)
	h.registration, h.outbound = p, outbound.New(outbound.Config{})
	return h
}

// metadataOf is a good registration, with changes: nil takes a member away.
func metadataOf(change map[string]any) map[string]any {
	m := map[string]any{"client_name": "Portal", "redirect_uris": []string{callback}}
	maps.Copy(m, change)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	return m
}

// call is a request to the registration endpoints; a body that is no string is
// made JSON.
func (h *house) call(t testing.TB, method, path, token string, body any) (*httptest.ResponseRecorder, map[string]any) {
	t.Helper()
	text, ok := body.(string)
	if !ok && body != nil {
		b, err := json.Marshal(body)
		require.NoError(t, err)
		text = string(b)
	}
	r := httptest.NewRequest(method, path, strings.NewReader(text))
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	answer := map[string]any{}
	if w.Body.Len() > 0 {
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer), w.Body)
	}
	return w, answer
}

// registered registers a client and returns what it is told, and where its
// registration is.
func (h *house) registered(t testing.TB, change map[string]any) (answer map[string]any, at, token string) {
	t.Helper()
	w, answer := h.call(t, "POST", "/oauth2/register", h.registration.Token, metadataOf(change))
	require.Equal(t, 201, w.Code, w.Body)
	return answer, strings.TrimPrefix(answer["registration_client_uri"].(string), issuer), answer["registration_access_token"].(string)
}

func TestRegistrationIsOffUnlessItIsConfigured(t *testing.T) {
	h := registering(t, storagetest.SQLite(t), Registration{})
	for method, path := range map[string]string{
		"POST": "/oauth2/register", "GET": "/oauth2/register/" + h.portal.ID, "PUT": "/oauth2/register/" + h.portal.ID, "DELETE": "/oauth2/register/" + h.portal.ID,
	} {
		w, answer := h.call(t, method, path, initial, metadataOf(nil))
		require.Equal(t, 404, w.Code, method)
		require.Equal(t, "invalid_request", answer["error"])
	}
	endpoint := func() any {
		w := httptest.NewRecorder()
		h.Discovery().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		var doc map[string]any
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &doc))
		return doc["registration_endpoint"]
	}
	require.Nil(t, endpoint())
	for _, p := range []Registration{{Open: true}, {Token: initial}} {
		h.registration = p
		require.Equal(t, issuer+"/oauth2/register", endpoint())
	}
}

// RFC 7591, Section 3: the initial access token.
func TestTheInitialAccessToken(t *testing.T) {
	h := registering(t, storagetest.SQLite(t), Registration{Token: initial})
	before, err := h.db.ListClients(t.Context())
	require.NoError(t, err)
	for token, challenge := range map[string]string{
		"": `Bearer realm="patauth"`, "wrong": `Bearer realm="patauth", error="invalid_token"`, initial[1:]: `Bearer realm="patauth", error="invalid_token"`,
		initial + "x": `Bearer realm="patauth", error="invalid_token"`,
	} {
		w, _ := h.call(t, "POST", "/oauth2/register", token, metadataOf(nil))
		require.Equal(t, 401, w.Code, token)
		require.Equal(t, challenge, w.Header().Get("WWW-Authenticate"))
	}
	r := httptest.NewRequest("POST", "/oauth2/register", strings.NewReader("{}"))
	r.SetBasicAuth("", initial)
	status, _ := h.send(r)
	require.Equal(t, 401, status, "no other scheme")
	after, err := h.db.ListClients(t.Context())
	require.NoError(t, err)
	require.Len(t, after, len(before))
	w, _ := h.call(t, "POST", "/oauth2/register", initial, metadataOf(nil))
	require.Equal(t, 201, w.Code, w.Body)
	h.registration = Registration{Open: true}
	w, _ = h.call(t, "POST", "/oauth2/register", "", metadataOf(nil))
	require.Equal(t, 201, w.Code, w.Body)
}

// RFC 7591, Section 3.2.1, and the defaults of OpenID Connect Registration,
// Section 2.
func TestWhatARegistrationIsAnswered(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := registering(t, db, Registration{Token: initial})
		w, answer := h.call(t, "POST", "/oauth2/register", initial, metadataOf(map[string]any{"unknown": 1, "client_name#de": "Portal", "client_id": "mine"}))
		require.Equal(t, 201, w.Code, w.Body)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		require.Regexp(t, clientIDForm, answer["client_id"])
		require.Regexp(t, `^pa_cs_[\w-]{43}$`, answer["client_secret"])
		require.Regexp(t, `^pa_rg_[\w-]{43}$`, answer["registration_access_token"])
		require.Equal(t, issuer+"/oauth2/register/"+answer["client_id"].(string), answer["registration_client_uri"])
		require.InDelta(t, time.Now().Unix(), answer["client_id_issued_at"], 5)
		c, err := db.Client(t.Context(), answer["client_id"].(string))
		require.NoError(t, err)
		require.False(t, c.FirstParty || c.CanIntrospect)
		require.Equal(t, SecretMethods, c.AuthMethods, "in the header and in the body, where none was named")
		require.True(t, db.ClientSecretValid(&c, answer["client_secret"].(string)))
		for _, k := range []string{"client_id", "client_secret", "registration_access_token", "registration_client_uri", "client_id_issued_at"} {
			delete(answer, k)
		}
		require.Equal(t, map[string]any{
			"client_name": "Portal", "redirect_uris": []any{callback}, "application_type": "web", "subject_type": "pairwise",
			"token_endpoint_auth_method": "client_secret_basic", "client_secret_expires_at": 0.0, "grant_types": []any{"authorization_code"},
			"response_types": []any{"code"}, "id_token_signed_response_alg": "RS256", "scope": strings.ReplaceAll(joined(Scopes), " lab", ""),
		}, answer)

		full := metadataOf(map[string]any{
			"application_type": "native", "redirect_uris": []any{"com.example.app:/cb", "http://127.0.0.1/cb", "http://[::1]/cb", "http://localhost:8000/cb"},
			"post_logout_redirect_uris": []any{"com.example.app:/bye"}, "token_endpoint_auth_method": "none",
			"grant_types": []any{"authorization_code", "refresh_token"}, "response_types": []any{"code"}, "scope": "openid lab",
			"id_token_signed_response_alg": "ES256", "userinfo_signed_response_alg": "RS256", "introspection_signed_response_alg": "ES256",
			"subject_type": "public", "default_max_age": 0.0, "require_auth_time": true, "default_acr_values": []any{"phr"},
			"client_uri": "https://app.example/", "logo_uri": "https://app.example/logo.png", "policy_uri": "https://app.example/policy",
			"tos_uri": "https://app.example/tos", "contacts": []any{"ops@app.example"}, "initiate_login_uri": "https://app.example/login",
			"jwks_uri": "https://app.example/keys", "token_endpoint_auth_signing_alg": "Ed25519",
			"backchannel_logout_uri": "https://app.example/out", "backchannel_logout_session_required": true,
		})
		for _, named := range SecretMethods {
			_, answer := h.call(t, "POST", "/oauth2/register", initial, metadataOf(map[string]any{"token_endpoint_auth_method": named}))
			require.Equal(t, named, answer["token_endpoint_auth_method"])
			c, err := db.Client(t.Context(), answer["client_id"].(string))
			require.NoError(t, err)
			require.Equal(t, storage.Words{named}, c.AuthMethods, "who names one is held to it")
		}
		_, answer = h.call(t, "POST", "/oauth2/register", initial, full)
		require.NotContains(t, answer, "client_secret")
		require.NotContains(t, answer, "client_secret_expires_at")
		for k, v := range full {
			require.Equal(t, v, answer[k], k)
		}
	})
}

// Programs on the patient's own machine know nothing of application_type; web is
// the default of the others.
func TestAClientOnLoopbackIsNative(t *testing.T) {
	h := registering(t, storagetest.SQLite(t), Registration{Token: initial})
	for kind, uris := range map[string][][]string{
		"native": {{"http://localhost:54545/callback"}, {"http://127.0.0.1/cb", "http://[::1]:8000/cb", "com.example.app:/cb"}},
		"web":    {{callback}},
	} {
		for _, list := range uris {
			answer, _, _ := h.registered(t, map[string]any{"redirect_uris": list})
			require.Equal(t, kind, answer["application_type"], list)
		}
	}
	for _, list := range [][]string{{callback, "http://localhost/cb"}, {"http://portal.example/cb"}, {"cursor://cb"}} {
		w, answer := h.call(t, "POST", "/oauth2/register", initial, metadataOf(map[string]any{"redirect_uris": list}))
		require.Equal(t, 400, w.Code, list)
		require.Equal(t, "invalid_redirect_uri", answer["error"])
	}
	w, _ := h.call(t, "POST", "/oauth2/register", initial, metadataOf(map[string]any{"redirect_uris": []string{"http://localhost/cb"}, "application_type": "web"}))
	require.Equal(t, 400, w.Code, "who says web means it")
}

func TestANameIsMadeWhereNoneIsSent(t *testing.T) {
	h := registering(t, storagetest.SQLite(t), Registration{Token: initial})
	for uri, name := range map[string]string{callback: "portal.example", "com.example.app:/cb": "com.example.app"} {
		kind := map[bool]string{true: "web", false: "native"}[uri == callback]
		answer, _, _ := h.registered(t, map[string]any{"client_name": nil, "redirect_uris": []string{uri}, "application_type": kind})
		require.Equal(t, name, answer["client_name"])
	}
}

// Everything that is refused, in the code of RFC 7591, Section 3.2.2.
func TestWhatAClientMayNotRegister(t *testing.T) {
	h := registering(t, storagetest.SQLite(t), Registration{Token: initial})
	one, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	private := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: one}}}
	public := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: one.Public()}}}
	shared := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: []byte("a shared secret")}}}
	many := jose.JSONWebKeySet{Keys: slices.Repeat(public.Keys, maxKeys+1)}
	long, native := strings.Repeat("x", maxURI), "native"
	for _, row := range []struct {
		change map[string]any
		about  string
	}{
		{map[string]any{"redirect_uris": nil}, "redirect_uris"},
		{map[string]any{"client_name": "Riverside\u200b portal"}, "client_name"},
		{map[string]any{"redirect_uris": []string{}}, "redirect_uris"},
		{map[string]any{"redirect_uris": callback}, "redirect_uris"},
		{map[string]any{"redirect_uris": []any{callback, 7}}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"http://portal.example/cb"}}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{callback + "#f"}}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{callback + "#"}}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"https://u:p@portal.example/cb"}}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"https://*.example/cb"}}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"javascript:alert(1)"}}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"data:text/html,x"}}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"/cb"}}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"https:///cb"}}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"https://portal.example/c b"}}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"https://portal.example/\x00"}}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"https://portal.example/'\"><script>"}}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"https://portal.example/" + long}}, "redirect_uris"},
		{map[string]any{"redirect_uris": slices.Repeat([]string{callback}, maxURIs+1)}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"http://127.0.0.1/cb"}, "application_type": "web"}, "redirect_uris"},
		{map[string]any{"client_name": "Port\u200bal"}, "client_name"},
		{map[string]any{"client_name": " ID.example"}, "client_name"},
		{map[string]any{"client_name": "patient sign-in"}, "client_name"},
		{map[string]any{"redirect_uris": []string{"https://localhost/cb"}}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"com.example.app:/cb"}, "application_type": "web"}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{callback}, "application_type": native}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"myapp:/cb"}, "application_type": native}, "redirect_uris"},
		{map[string]any{"redirect_uris": []string{"http://10.0.0.1/cb"}, "application_type": native}, "redirect_uris"},
		{map[string]any{"application_type": "service"}, "application_type"},
		{map[string]any{"post_logout_redirect_uris": []string{"http://portal.example/"}}, "post_logout_redirect_uris"},
		{map[string]any{"response_types": []string{"code", "id_token"}}, "response_types"},
		{map[string]any{"response_types": []string{"token"}}, "response_types"},
		{map[string]any{"grant_types": []string{"client_credentials"}, "response_types": []string{"code"}}, "response_types"},
		{map[string]any{"grant_types": []string{"implicit"}}, "grant_types"},
		{map[string]any{"grant_types": []string{"password"}}, "grant_types"},
		{map[string]any{"grant_types": []string{"authorization_code refresh_token"}}, "grant_types"},
		{map[string]any{"grant_types": []string{"client_credentials"}, "token_endpoint_auth_method": "none"}, "grant_types"},
		{map[string]any{"token_endpoint_auth_method": "client_secret_jwt"}, "token_endpoint_auth_method"},
		{map[string]any{"token_endpoint_auth_method": "tls_client_auth"}, "token_endpoint_auth_method"},
		{map[string]any{"token_endpoint_auth_method": "private_key_jwt"}, "jwks"},
		{map[string]any{"token_endpoint_auth_method": "private_key_jwt", "jwks": public, "token_endpoint_auth_signing_alg": "HS256"}, "token_endpoint_auth_signing_alg"},
		{map[string]any{"jwks": public, "jwks_uri": "https://portal.example/keys"}, "jwks"},
		{map[string]any{"jwks": private}, "jwks"},
		{map[string]any{"jwks": shared}, "jwks"},
		{map[string]any{"jwks": many}, "jwks"},
		{map[string]any{"jwks": map[string]any{"keys": []any{}}}, "jwks"},
		{map[string]any{"jwks": "https://portal.example/keys"}, "jwks"},
		{map[string]any{"id_token_signed_response_alg": "none"}, "id_token_signed_response_alg"},
		{map[string]any{"id_token_signed_response_alg": "HS256"}, "id_token_signed_response_alg"},
		{map[string]any{"userinfo_signed_response_alg": "HS256"}, "userinfo_signed_response_alg"},
		{map[string]any{"introspection_signed_response_alg": "none"}, "introspection_signed_response_alg"},
		{map[string]any{"id_token_encrypted_response_alg": "RSA-OAEP"}, "id_token_encrypted_response_alg"},
		{map[string]any{"userinfo_encrypted_response_alg": "RSA-OAEP"}, "userinfo_encrypted_response_alg"},
		{map[string]any{"introspection_encrypted_response_alg": "RSA-OAEP"}, "introspection_encrypted_response_alg"},
		{map[string]any{"client_name": strings.Repeat("x", maxName+1)}, "client_name"},
		{map[string]any{"client_name": "  "}, "client_name"},
		{map[string]any{"client_name": "a\nb"}, "client_name"},
		{map[string]any{"client_name": "a\u202eb"}, "client_name"},
		{map[string]any{"client_name": []string{"a"}}, "client_name"},
		{map[string]any{"contacts": []string{"a\rb"}}, "contacts"},
		{map[string]any{"contacts": slices.Repeat([]string{"a"}, maxURIs+1)}, "contacts"},
		{map[string]any{"logo_uri": "http://portal.example/logo"}, "logo_uri"},
		{map[string]any{"logo_uri": "data:image/png;base64,AA"}, "logo_uri"},
		{map[string]any{"logo_uri": "javascript:alert(1)"}, "logo_uri"},
		{map[string]any{"logo_uri": "//portal.example/logo"}, "logo_uri"},
		{map[string]any{"policy_uri": "https://u@portal.example/"}, "policy_uri"},
		{map[string]any{"policy_uri": `https://portal.example/"onclick=alert(1)`}, "policy_uri"},
		{map[string]any{"tos_uri": "https://portal.example/" + long}, "tos_uri"},
		{map[string]any{"client_uri": "https://portal.example/#x"}, "client_uri"},
		{map[string]any{"initiate_login_uri": "http://127.0.0.1/"}, "initiate_login_uri"},
		{map[string]any{"jwks_uri": "http://169.254.169.254/keys"}, "jwks_uri"},
		{map[string]any{"backchannel_logout_uri": "http://portal.example/out"}, "backchannel_logout_uri"},
		{map[string]any{"backchannel_logout_uri": "https://portal.example/out#x"}, "backchannel_logout_uri"},
		{map[string]any{"backchannel_logout_session_required": true}, "backchannel_logout_session_required"},
		{map[string]any{"frontchannel_logout_uri": "https://other.example/out"}, "frontchannel_logout_uri"},
		{map[string]any{"frontchannel_logout_uri": "https://portal.example:8443/out"}, "frontchannel_logout_uri"},
		{map[string]any{"frontchannel_logout_session_required": true}, "frontchannel_logout_session_required"},
		{map[string]any{"default_max_age": -1}, "default_max_age"},
		{map[string]any{"default_max_age": 1.5}, "default_max_age"},
		{map[string]any{"default_max_age": 1e30}, "default_max_age"},
		{map[string]any{"default_max_age": 1 << 40}, "default_max_age"},
		{map[string]any{"default_acr_values": []string{"a b"}}, "default_acr_values"},
		{map[string]any{"default_acr_values": slices.Repeat([]string{"phr"}, maxWords+1)}, "default_acr_values"},
		{map[string]any{"subject_type": "ephemeral"}, "subject_type"},
		{map[string]any{"subject_type": "pairwise", "redirect_uris": []string{callback, "https://other.example/cb"}}, "subject_type"},
		{map[string]any{"subject_type": "pairwise", "redirect_uris": []string{"http://127.0.0.1/cb"}, "application_type": native}, "subject_type"},
		{map[string]any{"sector_identifier_uri": "http://portal.example/sector"}, "sector_identifier_uri"},
		{map[string]any{"sector_identifier_uri": "https://127.0.0.1:1/sector"}, "sector_identifier_uri"},
		{map[string]any{"scope": []string{"openid"}}, "scope"},
	} {
		name := fmt.Sprintf("%.120v", row.change)
		w, answer := h.call(t, "POST", "/oauth2/register", initial, metadataOf(row.change))
		want := "invalid_client_metadata"
		if row.about == "redirect_uris" {
			want = "invalid_redirect_uri"
		}
		require.Equal(t, 400, w.Code, name)
		require.Equal(t, want, answer["error"], name)
		require.Contains(t, answer["error_description"], row.about+": ", name)
		require.NotContains(t, answer["error_description"], "alert", "nothing is repeated")
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	}
	all, err := h.db.ListClients(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 3, "nothing was stored")
}

// RFC 7591, Section 3.1: the body is one JSON object.
func TestBodiesThatAreNoRegistration(t *testing.T) {
	h := registering(t, storagetest.SQLite(t), Registration{Open: true})
	good := `{"redirect_uris": ["https://portal.example/cb"]}`
	for _, row := range []struct {
		kind, body string
		status     int
	}{
		{"application/json; charset=utf-8", good, 201},
		{"application/json", `{"redirect_uris": ["https://other.example/"], "redirect_uris": ["https://portal.example/cb"]}`, 201},
		{"application/json", `{"redirect_uris": ["https://portal.example/cb"], "jwks": null, "default_max_age": null, "scope": null}`, 201},
		{"application/x-www-form-urlencoded", "redirect_uris=https://portal.example/cb", 415},
		{"text/plain", good, 415},
		{"", good, 415},
		{"application/json", good + strings.Repeat(" ", 64<<10), 413},
		{"application/json", "", 400},
		{"application/json", "null", 400},
		{"application/json", "[]", 400},
		{"application/json", good + good, 400},
		{"application/json", `{"redirect_uris": `, 400},
		{"application/json", `{"client_name": "` + "\xff" + `"}`, 400},
		{"application/json", strings.Repeat("[", 60_000), 400},
		{"application/json", `{"jwks": ` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000) + "}", 400},
	} {
		for _, chunked := range []bool{false, true} {
			r := httptest.NewRequest("POST", "/oauth2/register", strings.NewReader(row.body))
			if chunked {
				r.ContentLength = -1
			}
			r.Header.Set("Content-Type", row.kind)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, row.status, w.Code, "%s %.80s: %s", row.kind, row.body, w.Body)
			require.NotContains(t, w.Body.String(), "goroutine")
		}
	}
}

// Without an initial access token there is no health data, and no client that
// acts for itself.
func TestWhoRegistersWithoutATokenGetsLess(t *testing.T) {
	h := registering(t, storagetest.SQLite(t), Registration{Open: true})
	for _, row := range []map[string]any{
		{"scope": "openid lab"}, {"grant_types": []string{"client_credentials"}}, {"grant_types": []string{"authorization_code", grantDevice}},
	} {
		w, answer := h.call(t, "POST", "/oauth2/register", "", metadataOf(row))
		require.Equal(t, 400, w.Code, row)
		require.Contains(t, answer["error_description"], "clients that register by themselves")
	}
	answer, at, token := h.registered(t, map[string]any{"scope": "openid admin:everything results email openid"})
	require.Equal(t, "openid email", answer["scope"], "what nobody knows is ignored")

	// What an operator gave it stays, and what only operators give.
	_, err := h.db.ChangeClient(t.Context(), answer["client_id"].(string), func(c *storage.Client) {
		c.Scopes = append(c.Scopes, "lab", "results")
		c.GrantTypes = append(c.GrantTypes, "client_credentials")
		c.FirstParty, c.CanIntrospect, c.Audience = true, true, storage.Strings{"https://results.example"}
		c.Metadata.Lifetimes.AccessToken, c.Metadata.RequireACR = 300, "phr"
	})
	require.NoError(t, err)
	w, answer := h.call(t, "PUT", at, token, metadataOf(map[string]any{
		"client_id": answer["client_id"], "scope": "openid lab results", "grant_types": []string{"authorization_code", "client_credentials"},
	}))
	require.Equal(t, 200, w.Code, w.Body)
	require.Equal(t, "openid lab results", answer["scope"])
	require.NotContains(t, answer, "require_acr")
	c, err := h.db.Client(t.Context(), answer["client_id"].(string))
	require.NoError(t, err)
	require.True(t, c.FirstParty && c.CanIntrospect)
	require.Equal(t, 300, c.Metadata.Lifetimes.AccessToken)
	require.Equal(t, "phr", c.Metadata.RequireACR)
}

// Each piece of metadata is either the client's to choose or the operator's:
// a new one belongs into one of these lists.
func TestNobodyPromotesItself(t *testing.T) {
	ours := []string{"sector", "access_token_signed_response_alg", "require_acr", "require_pkce", "lifetimes", "was"}
	theirs := []string{
		"application_type", "jwks", "jwks_uri", "token_endpoint_auth_signing_alg", "subject_type", "sector_identifier_uri",
		"userinfo_signed_response_alg", "introspection_signed_response_alg", "default_max_age", "require_auth_time", "default_acr_values",
		"initiate_login_uri", "client_uri", "logo_uri", "policy_uri", "tos_uri", "contacts", "backchannel_logout_uri",
		"backchannel_logout_session_required", "frontchannel_logout_uri", "frontchannel_logout_session_required",
	}
	fields := reflect.TypeFor[storage.ClientMetadata]()
	for i := range fields.NumField() {
		name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ",")
		require.Contains(t, append(ours, theirs...), name)
	}
	h := registering(t, storagetest.SQLite(t), Registration{Token: initial})
	answer, _, _ := h.registered(t, map[string]any{
		"sector": "other.example", "access_token_signed_response_alg": "RS256", "require_acr": "phr", "require_pkce": true,
		"lifetimes": map[string]int{"access_token": 1 << 30}, "first_party": true, "FirstParty": true, "can_introspect": true,
		"audience": []string{"https://results.example"}, "origins": []string{"https://evil.example"}, "registration": "x", "secrets": []string{"x"},
	})
	for _, name := range ours {
		require.NotContains(t, answer, name)
	}
	c, err := h.db.Client(t.Context(), answer["client_id"].(string))
	require.NoError(t, err)
	require.False(t, c.FirstParty || c.CanIntrospect || c.Metadata.RequirePKCE)
	require.Equal(t, "portal.example", c.Metadata.Sector)
	require.Empty(t, c.Metadata.RequireACR+c.Metadata.AccessTokenSignedResponseAlg)
	require.Zero(t, c.Metadata.Lifetimes)
	require.Empty(t, append(c.Audience, c.Origins...))
}

// RFC 7592: a client reads, replaces and ends its registration.
func TestARegistrationsLife(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := registering(t, db, Registration{Token: initial})
		made, at, token := h.registered(t, map[string]any{"grant_types": []string{"authorization_code", "client_credentials"}, "policy_uri": "https://portal.example/policy"})
		other, othersAt, othersToken := h.registered(t, nil)
		id := made["client_id"].(string)

		// Section 2.1.
		w, read := h.call(t, "GET", at, token, nil)
		require.Equal(t, 200, w.Code, w.Body)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		secret := made["client_secret"].(string)
		delete(made, "client_secret") // which is not kept
		require.Equal(t, made, read)

		// An unknown client and a wrong token are the same.
		for _, x := range []struct{ at, token string }{
			{at, ""}, {at, "pa_rg_wrong"}, {at, initial}, {at, othersToken}, {othersAt, token}, {"/oauth2/register/" + h.portal.ID, token},
			{"/oauth2/register/c-" + strings.Repeat("A", 26), token}, {"/oauth2/register/nobody", token},
		} {
			for _, method := range []string{"GET", "PUT", "DELETE"} {
				w, _ := h.call(t, method, x.at, x.token, metadataOf(map[string]any{"client_id": id}))
				require.Equal(t, 401, w.Code, "%s %s", method, x.at)
				require.Contains(t, w.Header().Get("WWW-Authenticate"), "Bearer")
			}
		}

		// Section 2.2: replaced, not augmented; the secret is still the client's.
		put := metadataOf(map[string]any{"client_id": id, "client_secret": secret, "client_name": "Renamed", "grant_types": []string{"authorization_code", "client_credentials"}})
		w, answer := h.call(t, "PUT", at, token, put)
		require.Equal(t, 200, w.Code, w.Body)
		require.Equal(t, "Renamed", answer["client_name"])
		require.NotContains(t, answer, "policy_uri")
		require.NotContains(t, answer, "client_secret")
		require.Equal(t, token, answer["registration_access_token"])
		c, err := db.Client(t.Context(), id)
		require.NoError(t, err)
		status, body := h.post("/oauth2/token", c, secret, url.Values{"grant_type": {"client_credentials"}})
		require.Equal(t, 200, status, body)
		for _, row := range []struct {
			change map[string]any
			about  string
		}{
			{map[string]any{"client_id": nil}, "client_id"},
			{map[string]any{"client_id": other["client_id"]}, "client_id"},
			{map[string]any{"client_secret": "my own"}, "client_secret"},
			{map[string]any{"client_secret": ""}, "client_secret"},
			{map[string]any{"registration_access_token": token}, "registration_access_token"},
			{map[string]any{"registration_client_uri": issuer + at}, "registration_client_uri"},
			{map[string]any{"client_secret_expires_at": 0}, "client_secret_expires_at"},
			{map[string]any{"client_id_issued_at": 0}, "client_id_issued_at"},
			{map[string]any{"id_token_signed_response_alg": "none"}, "id_token_signed_response_alg"},
		} {
			bad := maps.Clone(put)
			maps.Copy(bad, row.change)
			w, answer := h.call(t, "PUT", at, token, bad)
			require.Equal(t, 400, w.Code, row)
			require.Equal(t, "invalid_client_metadata", answer["error"])
			require.Contains(t, answer["error_description"], row.about+": ")
		}
		_, unchanged := h.call(t, "GET", at, token, nil)
		require.Equal(t, answer, unchanged)

		// A client that stops using its secret has none; one that begins gets one.
		put["token_endpoint_auth_method"], put["grant_types"] = "none", []string{"authorization_code"}
		_, answer = h.call(t, "PUT", at, token, put)
		require.NotContains(t, answer, "client_secret_expires_at", answer)
		status, _ = h.post("/oauth2/token", c, secret, url.Values{"grant_type": {"client_credentials"}})
		require.Equal(t, 401, status)
		w, _ = h.call(t, "PUT", at, token, put)
		require.Equal(t, 400, w.Code, "it has no secret to show any more")
		put["token_endpoint_auth_method"], put["grant_types"] = "client_secret_post", []string{"authorization_code", "client_credentials"}
		delete(put, "client_secret")
		_, answer = h.call(t, "PUT", at, token, put)
		require.NotEqual(t, secret, answer["client_secret"])
		c.AuthMethods = storage.Words{"client_secret_post"}
		_, body = h.post("/oauth2/token", c, answer["client_secret"].(string), url.Values{"grant_type": {"client_credentials"}})
		require.Equal(t, true, h.introspection(t, body["access_token"])["active"], body)

		// Section 2.3: everything of it dies at once.
		w, _ = h.call(t, "DELETE", at, token, nil)
		require.Equal(t, 204, w.Code, w.Body)
		require.Empty(t, w.Body.String())
		require.Equal(t, map[string]any{"active": false}, h.introspection(t, body["access_token"]))
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			w, _ := h.call(t, method, at, token, put)
			require.Equal(t, 401, w.Code, method)
		}
		w, _ = h.call(t, "GET", othersAt, othersToken, nil)
		require.Equal(t, 200, w.Code, "others stay")
	})
}

// What a patient allowed was to a name, and to where it led: a client that changes
// either asks again (RFC 7592, Section 2.2, is no way around the patient).
func TestAChangedRegistrationAsksThePatientAgain(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := registering(t, db, Registration{Token: initial})
		made, at, token := h.registered(t, map[string]any{"subject_type": "public"})
		c, err := db.Client(t.Context(), made["client_id"].(string))
		require.NoError(t, err)
		b := h.browser(t)
		b.signIn("pwd")
		// begin asks to be led to a redirect URI; led is where that leads, and with what.
		begin := func(to, prompt string) *httptest.ResponseRecorder {
			return b.get("/oauth2/auth?" + askFor(c, oauth2.GenerateVerifier(), url.Values{"redirect_uri": {to}, "scope": {"openid email"}, "prompt": {prompt}}))
		}
		led := func(w *httptest.ResponseRecorder, to string) url.Values {
			t.Helper()
			require.Equal(t, http.StatusSeeOther, w.Code, w.Body)
			u, err := url.Parse(w.Header().Get("Location"))
			require.NoError(t, err)
			require.Equal(t, to, u.Scheme+"://"+u.Host+u.Path)
			return u.Query()
		}
		isAsked := func(to, name string) {
			t.Helper()
			got := led(begin(to, "none"), to)
			require.Equal(t, "consent_required", got.Get("error"))
			require.False(t, got.Has("code"))
			page := begin(to, "")
			require.Equal(t, 200, page.Code)
			require.Empty(t, page.Header().Get("Location"))
			require.Contains(t, page.Body.String(), name+" would like to:")
			require.NotEmpty(t, led(b.press(asked(t, page), "allow"), to).Get("code"))
			require.NotEmpty(t, led(begin(to, "none"), to).Get("code"), "remembered")
		}
		put := func(change map[string]any) {
			t.Helper()
			w, _ := h.call(t, "PUT", at, token, metadataOf(map[string]any{"client_id": c.ID, "subject_type": "public"}))
			require.Equal(t, 200, w.Code, w.Body)
			body := metadataOf(map[string]any{"client_id": c.ID, "subject_type": "public"})
			maps.Copy(body, change)
			w, _ = h.call(t, "PUT", at, token, body)
			require.Equal(t, 200, w.Code, w.Body)
		}
		const moved, path = "https://moved.example/cb", "https://portal.example/elsewhere"
		isAsked(callback, "Portal")
		put(nil)
		require.NotEmpty(t, led(begin(callback, "none"), callback).Get("code"), "nothing has changed")
		put(map[string]any{"redirect_uris": []string{callback, path}})
		require.NotEmpty(t, led(begin(path, "none"), path).Get("code"), "the same host")
		put(map[string]any{"redirect_uris": []string{moved}})
		isAsked(moved, "Portal")
		put(map[string]any{"client_name": "City Hospital"})
		isAsked(callback, "City Hospital")
		put(map[string]any{"client_name": "City Hospital", "redirect_uris": []string{callback, moved}})
		isAsked(moved, "City Hospital")
	})
}

// Browsers of other sites register nobody: what changes a registration bears no
// Origin of a page.
func TestOtherSitesDoNotChangeRegistrations(t *testing.T) {
	h := registering(t, storagetest.SQLite(t), Registration{Token: initial})
	_, at, token := h.registered(t, nil)
	for _, method := range []string{"PUT", "DELETE"} {
		r := httptest.NewRequest(method, at, strings.NewReader("{}"))
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		status, answer := h.send(r)
		require.Equal(t, []any{400, "access_denied"}, []any{status, answer["error"]}, method)
	}
	w, _ := h.call(t, "GET", at, token, nil)
	require.Equal(t, 200, w.Code)
}

// OpenID Connect Core, Section 8.1, and Registration, Section 5.
func TestSectors(t *testing.T) {
	h := registering(t, storagetest.SQLite(t), Registration{Token: initial})
	asked := 0
	documents := map[string]string{
		"/good": `["https://portal.example/cb", "https://other.example/cb", "http://127.0.0.1/cb", "https://more.example/"]`, "/few": `["https://portal.example/cb"]`,
		"/object": `{}`, "/mixed": `["https://portal.example/cb", 7]`, "/broken": `[`, "/empty": ``,
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		switch text, ok := documents[r.URL.Path]; {
		case r.URL.Path == "/away":
			http.Redirect(w, r, "/good", http.StatusFound)
		case !ok:
			http.NotFound(w, r)
		default:
			w.Write([]byte(text))
		}
	}))
	defer s.Close()
	h.outbound = outbound.New(outbound.Config{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	two := []string{callback, "https://other.example/cb"}
	for _, row := range []struct {
		change       map[string]any
		kind, sector string // "" is a refusal
	}{
		{nil, "pairwise", "portal.example"},
		{map[string]any{"subject_type": "public"}, "public", ""},
		{map[string]any{"redirect_uris": []string{"https://PORTAL.example/cb", "https://portal.example:8443/x"}}, "pairwise", "portal.example"},
		{map[string]any{"redirect_uris": two}, "public", ""},
		{map[string]any{"redirect_uris": two, "subject_type": "pairwise"}, "", ""},
		{map[string]any{"redirect_uris": two, "sector_identifier_uri": s.URL + "/good"}, "pairwise", "127.0.0.1"},
		{map[string]any{"redirect_uris": two, "sector_identifier_uri": s.URL + "/good", "subject_type": "public"}, "public", ""},
		{map[string]any{"redirect_uris": two, "sector_identifier_uri": s.URL + "/few"}, "", ""},
		{map[string]any{"redirect_uris": two, "sector_identifier_uri": s.URL + "/few", "subject_type": "public"}, "", ""},
		{map[string]any{"sector_identifier_uri": s.URL + "/object"}, "", ""},
		{map[string]any{"sector_identifier_uri": s.URL + "/mixed"}, "", ""},
		{map[string]any{"sector_identifier_uri": s.URL + "/broken"}, "", ""},
		{map[string]any{"sector_identifier_uri": s.URL + "/empty"}, "", ""},
		{map[string]any{"sector_identifier_uri": s.URL + "/away"}, "", ""},
		{map[string]any{"sector_identifier_uri": s.URL + "/missing"}, "", ""},
		{map[string]any{"redirect_uris": []string{"http://127.0.0.1/cb"}, "application_type": "native"}, "public", ""},
		{map[string]any{"redirect_uris": []string{"com.example.app:/cb"}, "application_type": "native"}, "public", ""},
		{map[string]any{"redirect_uris": []string{"http://127.0.0.1/cb"}, "application_type": "native", "sector_identifier_uri": s.URL + "/good"}, "pairwise", "127.0.0.1"},
		{map[string]any{"redirect_uris": nil, "grant_types": []string{"client_credentials"}}, "public", ""},
	} {
		w, answer := h.call(t, "POST", "/oauth2/register", initial, metadataOf(row.change))
		if row.kind == "" {
			require.Equal(t, 400, w.Code, row)
			require.Equal(t, "invalid_client_metadata", answer["error"])
			if uri, ok := row.change["sector_identifier_uri"]; ok {
				// One answer, whatever is at the address.
				require.Equal(t, "sector_identifier_uri: must lead to a JSON array that holds every redirect URI", answer["error_description"], uri)
			}
			continue
		}
		require.Equal(t, 201, w.Code, "%v %s", row, w.Body)
		require.Equal(t, row.kind, answer["subject_type"], row)
		c, err := h.db.Client(t.Context(), answer["client_id"].(string))
		require.NoError(t, err)
		require.Equal(t, row.sector, c.Metadata.Sector, row)
	}
	require.Equal(t, 11, asked)

	// What is wrong otherwise asks no server.
	w, _ := h.call(t, "POST", "/oauth2/register", initial, metadataOf(map[string]any{"sector_identifier_uri": s.URL + "/good", "application_type": "x"}))
	require.Equal(t, 400, w.Code)
	require.Equal(t, 11, asked)

	// New redirect URIs must be in the document, too.
	answer, at, token := h.registered(t, map[string]any{"sector_identifier_uri": s.URL + "/good"})
	put := metadataOf(map[string]any{"client_id": answer["client_id"], "sector_identifier_uri": s.URL + "/good", "redirect_uris": []string{callback, "https://more.example/"}})
	w, _ = h.call(t, "PUT", at, token, put)
	require.Equal(t, 200, w.Code, w.Body)
	put["redirect_uris"] = []string{callback, "https://evil.example/"}
	w, _ = h.call(t, "PUT", at, token, put)
	require.Equal(t, 400, w.Code)
}

// A client that has registered itself is one as any other. Its sub is its own.
func TestARegisteredClientSignsAPatientIn(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := registering(t, db, Registration{Open: true})
		hostile := `<script>alert("1")</script>`
		made, at, token := h.registered(t, map[string]any{
			"client_name": hostile, "grant_types": []string{"authorization_code", "refresh_token"},
			"client_uri": "https://portal.example/?a=1&b=2'", "policy_uri": "https://portal.example/policy", "tos_uri": "https://portal.example/tos",
			"logo_uri": "https://portal.example/logo.png",
		})
		c, err := db.Client(t.Context(), made["client_id"].(string))
		require.NoError(t, err)
		b, verifier := h.browser(t), oauth2.GenerateVerifier()
		b.signIn("pwd")
		page := b.get("/oauth2/auth?" + ask(c, verifier, nil).Encode())
		require.Equal(t, 200, page.Code, "the patient is asked")
		require.NotContains(t, page.Body.String(), "<script>alert")
		require.Contains(t, page.Body.String(), "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;")
		require.Contains(t, page.Body.String(), `href="https://portal.example/?a=1&amp;b=2%27"`)
		require.Contains(t, page.Body.String(), `href="https://portal.example/policy"`)
		require.NotContains(t, page.Body.String(), "logo.png", "nothing is loaded from the client")
		_, after, _ := strings.Cut(page.Body.String(), `name="request" value="`)
		id, _, _ := strings.Cut(after, `"`)
		code := answer(t, b.get(b.do("POST", "/consent", url.Values{"request": {id}, "decision": {"allow"}}).Header().Get("Location"))).Get("code")
		status, body := h.post("/oauth2/token", c, made["client_secret"].(string), redeem(code, verifier))
		require.Equal(t, 200, status, body)
		require.Equal(t, "RS256", headerOf(t, body["id_token"]).Algorithm)
		sub := claimsOf(t, body["id_token"])["sub"]
		require.Len(t, sub, 43, "pairwise")
		_, info := h.userinfo(body["access_token"])
		require.Equal(t, sub, info["sub"])
		out := b.get("/oauth2/logout?client_id=" + c.ID)
		require.Equal(t, 200, out.Code)
		require.NotContains(t, out.Body.String(), "<script>alert")

		// Another client of the same host knows the patient by the same name.
		second, _, _ := h.registered(t, map[string]any{"token_endpoint_auth_method": "none", "grant_types": []string{"authorization_code"}})
		again, err := db.Client(t.Context(), second["client_id"].(string))
		require.NoError(t, err)
		require.NoError(t, db.SaveConsent(t.Context(), h.patient.ID, again, storage.PlaceOf(callback), again.Scopes, storage.Now()))
		require.Equal(t, sub, claimsOf(t, h.tokens(t, again, "", nil)["id_token"])["sub"])

		// With the registration goes what it got.
		w, _ := h.call(t, "DELETE", at, token, nil)
		require.Equal(t, 204, w.Code)
		status, _ = h.userinfo(body["access_token"])
		require.Equal(t, 401, status)
		status, answer := h.post("/oauth2/token", c, made["client_secret"].(string), refresh(body["refresh_token"]))
		require.Equal(t, 401, status)
		require.Equal(t, "invalid_client", answer["error"])
	})
}

func TestARegisteredClientSignsForItself(t *testing.T) {
	h := registering(t, storagetest.SQLite(t), Registration{Token: initial})
	s := signer{key: newKey(t, jose.ES256, "k1"), alg: jose.ES256}
	made, at, token := h.registered(t, map[string]any{
		"grant_types": []string{"client_credentials"}, "token_endpoint_auth_method": "private_key_jwt", "redirect_uris": nil,
		"token_endpoint_auth_signing_alg": "ES256", "jwks": json.RawMessage(setOf(t, s.key)),
	})
	require.NotContains(t, made, "client_secret")
	require.Equal(t, []any{}, made["response_types"])
	s.ID = made["client_id"].(string)
	form := url.Values{"grant_type": {"client_credentials"}}
	require.Equal(t, 200, h.assert("/oauth2/token", s.good(t), form).Code)
	// With other keys registered, the old one is nobody's.
	put := maps.Clone(made)
	for _, k := range []string{"registration_access_token", "registration_client_uri", "client_id_issued_at"} {
		delete(put, k)
	}
	put["jwks"] = json.RawMessage(setOf(t, newKey(t, jose.ES256, "k2")))
	w, _ := h.call(t, "PUT", at, token, put)
	require.Equal(t, 200, w.Code, w.Body)
	require.Equal(t, 401, h.assert("/oauth2/token", s.good(t), form).Code)
}

// Where anybody may register an address, nobody is led there by a request that is
// wrong on purpose (RFC 9700, Section 4.11.2), or that its client has made so since.
func TestAStrangersClientIsNoWayOut(t *testing.T) {
	for _, open := range []bool{true, false} {
		h := registering(t, storagetest.SQLite(t), Registration{Open: open, Token: initial})
		if open {
			h.registration.Token = ""
		}
		answer, _, _ := h.registered(t, map[string]any{"client_uri": "https://portal.example/"})
		params := func(change ...string) url.Values {
			v := url.Values{
				"client_id": {answer["client_id"].(string)}, "redirect_uri": {callback}, "scope": {"openid"},
				"response_type": {"code"}, "code_challenge": {strings.Repeat("x", 43)}, "code_challenge_method": {"S256"},
			}
			for i := 0; i < len(change); i += 2 {
				v.Set(change[i], change[i+1])
			}
			return v
		}
		get := func(path string) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			return w
		}
		stays := func(w *httptest.ResponseRecorder, what string) {
			t.Helper()
			if !open {
				require.Regexp(t, "^"+callback, w.Header().Get("Location"), what)
				return
			}
			require.Equal(t, 400, w.Code, what)
			require.Empty(t, w.Header().Get("Location"), what)
			require.Contains(t, w.Body.String(), "portal.example", what)
		}
		stays(get("/oauth2/auth?"+params("response_type", "x").Encode()), "a response_type of nobody's")
		stays(get("/oauth2/auth?"+params("prompt", "none", "request", "x").Encode()), "wrong, and silent besides")
		w := get("/oauth2/auth?" + params("response_type", "x", "response_mode", "form_post").Encode())
		require.Equal(t, !open, strings.Contains(w.Body.String(), `data-submit="now"`), "by a form neither")

		w = get("/oauth2/auth?" + params("prompt", "none").Encode())
		require.Regexp(t, "^"+callback+`\?.*error=login_required`, w.Header().Get("Location"), "a right one is answered without a page")

		w = httptest.NewRecorder()
		r := httptest.NewRequest("POST", "/oauth2/auth", strings.NewReader(params().Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		h.ServeHTTP(w, r)
		handle := w.Header().Get("Location")
		require.Regexp(t, "^/oauth2/auth/", handle)
		_, err := h.db.ChangeClient(t.Context(), answer["client_id"].(string), func(c *storage.Client) { c.GrantTypes = storage.Words{"refresh_token"} })
		require.NoError(t, err)
		stays(get(handle), "right once, and wrong since")
	}
}

func TestOpenRegistrationIsPaced(t *testing.T) {
	h := registering(t, storagetest.SQLite(t), Registration{Open: true})
	ctx := context.Background()
	spend := func(what, whom string, n int) {
		for range n {
			require.NoError(t, h.db.CountAttempt(ctx, what, whom, registrationsOfAll, time.Hour, storage.Now()))
		}
	}
	answer, at, token := h.registered(t, nil)
	spend("register", "192.0.2.1", registrationsOfOne-1) // httptest's address
	w, _ := h.call(t, "POST", "/oauth2/register", "", metadataOf(nil))
	require.Equal(t, 429, w.Code)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
	spend("reregister", answer["client_id"].(string), changesOfOne)
	w, _ = h.call(t, "PUT", at, token, metadataOf(map[string]any{"client_id": answer["client_id"]}))
	require.Equal(t, 429, w.Code)
	w, _ = h.call(t, "GET", at, token, nil)
	require.Equal(t, 200, w.Code)
	spend("register", "", registrationsOfAll-1)
	_, err := h.register(httptest.NewRequest("POST", "/oauth2/register", nil))
	require.ErrorContains(t, err, "slow down")
	h.registration = Registration{Token: initial}
	w, _ = h.call(t, "POST", "/oauth2/register", initial, metadataOf(nil))
	require.Equal(t, 201, w.Code, "who has the token need not wait")
}

func TestRegistrationWithoutTheDatabase(t *testing.T) {
	db, p := behindProxy(t)
	h := registering(t, db, Registration{Token: initial})
	answer, at, token := h.registered(t, nil)
	p.cut()
	// First what begins with a transaction, on a connection that was lost in the pool.
	for _, method := range []string{"POST", "GET", "PUT", "DELETE"} {
		path, bears := at, token
		if method == "POST" {
			path, bears = "/oauth2/register", initial
		}
		r := httptest.NewRequest(method, path, strings.NewReader(`{"redirect_uris": ["`+callback+`"], "client_id": "`+answer["client_id"].(string)+`"}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+bears)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, 503, w.Code, method)
		require.NotEmpty(t, w.Header().Get("Retry-After"), method)
	}
}

func TestRegistrationsAreAudited(t *testing.T) {
	h := registering(t, storagetest.SQLite(t), Registration{Token: initial})
	answer, at, token := h.registered(t, nil)
	id := answer["client_id"].(string)
	h.call(t, "PUT", at, token, metadataOf(map[string]any{"client_id": id}))
	h.call(t, "DELETE", at, token, nil)
	events, err := h.db.AuditOf(t.Context(), "", 100)
	require.NoError(t, err)
	var seen []string
	for _, e := range events {
		if e.Object == "client:"+id {
			require.Equal(t, "client:"+id, e.Actor)
			require.NotEmpty(t, e.RequestID)
			seen = append(seen, e.Event)
		}
	}
	require.Equal(t, []string{"client.deleted", "client.updated", "client.registered"}, seen)
}

// Whatever is sent is answered with a client or with what is wrong.
func FuzzRegister(f *testing.F) {
	h := registering(f, storagetest.SQLite(f), Registration{Token: initial})
	for _, body := range []string{
		`{"redirect_uris": ["https://portal.example/cb"], "jwks": {"keys": [{"kty": "EC", "crv": "P-256", "x": "", "y": ""}]}}`,
		`{"redirect_uris": ["com.example.app:/cb"], "application_type": "native", "default_max_age": 9223372036854775808}`,
		`{"redirect_uris": ["https://portal.example/cb"], "token_endpoint_auth_signing_alg": "Ed25519", "require_pkce": true, "pkce_exempt": true}`,
		`{"client_name": "\u200bPortal\ufe0f", "redirect_uris": ["http://localhost:54545/callback"]}`,
		`{"client_name": "\ud800\u0000", "scope": "openid", "contacts": ["\u202e"]}`, `{"sector_identifier_uri": "https://127.0.0.1/"}`, `{`, `null`, `[]`, "",
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", "/oauth2/register", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+initial)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case 201:
			var made information
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &made))
			c, err := h.db.Client(context.Background(), made.ClientID)
			require.NoError(t, err)
			require.False(t, c.FirstParty || c.CanIntrospect || c.Metadata.RequirePKCE)
			for _, uri := range c.RedirectURIs {
				require.True(t, RedirectAllowed(uri), uri)
			}
		case 400, 413:
		default:
			t.Fatalf("%q is answered %d %s", body, w.Code, w.Body)
		}
	})
}
