package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

// signing is a provider that publishes one key.
type signing struct {
	*httptest.Server
	key jose.SigningKey
}

func newSigning(t *testing.T) *signing {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	s := &signing{key: jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: private, KeyID: "k"}}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/jwks" {
			json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: private.Public(), KeyID: "k", Algorithm: "ES256", Use: "sig"}}})
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"issuer": s.URL, "jwks_uri": s.URL + "/jwks", "id_token_signing_alg_values_supported": []string{"ES256"}})
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *signing) token(t *testing.T, typ string, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(s.key, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	require.NoError(t, err)
	payload, err := json.Marshal(claims)
	require.NoError(t, err)
	jws, err := signer.Sign(payload)
	require.NoError(t, err)
	token, err := jws.CompactSerialize()
	require.NoError(t, err)
	return token
}

// Back-Channel Logout 1.0, Sections 2.6 and 2.8.
func TestThePortalBelievesLogoutTokensOnly(t *testing.T) {
	op, stranger := newSigning(t), newSigning(t)
	p := newPortal("http://127.0.0.1:1", op.URL, "c-portal", "secret", op.Client())
	post := func(token string) int {
		r := httptest.NewRequest("POST", "/backchannel-logout", strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		p.handler().ServeHTTP(w, r)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		return w.Code
	}
	good := map[string]any{
		"iss": op.URL, "aud": "c-portal", "sub": "x", "sid": "s-1", "jti": "j-1", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		"events": map[string]any{logoutEvent: map[string]any{}},
	}
	with := func(k string, v any) map[string]any {
		claims := maps.Clone(good)
		claims["jti"] = "j-" + k
		claims[k] = v
		if v == nil {
			delete(claims, k)
		}
		return claims
	}
	p.visits["a"], p.visits["b"] = &visit{Claims: Claims{SID: "s-1"}}, &visit{Claims: Claims{SID: "s-2"}}
	for name, token := range map[string]string{
		"nothing":            "",
		"no token":           "a.b.c",
		"an ID token":        op.token(t, "JWT", good),
		"another key":        stranger.token(t, "logout+jwt", good),
		"another issuer":     op.token(t, "logout+jwt", with("iss", stranger.URL)),
		"another client":     op.token(t, "logout+jwt", with("aud", "c-other")),
		"expired":            op.token(t, "logout+jwt", with("exp", time.Now().Add(-time.Minute).Unix())),
		"with a nonce":       op.token(t, "logout+jwt", with("nonce", "")),
		"about nothing":      op.token(t, "logout+jwt", with("events", nil)),
		"about another fact": op.token(t, "logout+jwt", with("events", map[string]any{"https://event.example": map[string]any{}})),
		"of no session":      op.token(t, "logout+jwt", with("sid", nil)),
		"without jti":        op.token(t, "logout+jwt", with("jti", nil)),
	} {
		require.Equal(t, 400, post(token), name)
	}
	require.Len(t, p.visits, 2)
	token := op.token(t, "logout+jwt", good)
	require.Equal(t, 200, post(token))
	require.Nil(t, p.visits["a"])
	require.NotNil(t, p.visits["b"], "another session")
	require.Equal(t, 400, post(token), "taken before")
	away := newPortal("http://127.0.0.1:1", "http://127.0.0.1:1", "c-portal", "secret", http.DefaultClient)
	w := httptest.NewRecorder()
	away.handler().ServeHTTP(w, httptest.NewRequest("POST", "/backchannel-logout", nil))
	require.Equal(t, 503, w.Code, "the provider's keys are out of reach: once more, please")
	require.Equal(t, 200, post(op.token(t, "logout+jwt", with("aud", []string{"c-portal"}))), "nobody is signed in any more; that is as it should be")
}

func FuzzTypeOf(f *testing.F) {
	f.Add("eyJ0eXAiOiJsb2dvdXQrand0In0.e30.x")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) { typeOf(token) })
}

// Who signs out at the provider is signed out of the portal, too.
func TestDevTellsThePortal(t *testing.T) {
	line, _ := inProcess(t, t.TempDir())
	s := newSurfer(t)
	s.register(line, "grace@example.org")
	s.visit(line.Portal + "/sign-in")
	s.submit("/login", "email", "grace@example.org", "current-password", goodPassword)
	s.enrol(line)
	s.submit("/consent", "decision", "allow")
	require.Contains(t, s.body, "Grace Example")
	s.visit(line.Issuer + "/account")
	s.submit("/logout")
	require.Contains(t, s.body, "You are signed out")
	require.Eventually(t, func() bool {
		s.visit(line.Portal)
		return strings.Contains(s.body, `id="sign-in"`)
	}, 20*time.Second, 50*time.Millisecond)
}
