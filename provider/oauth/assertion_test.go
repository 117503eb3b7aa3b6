package oauth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/outbound"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// A signer is a client that signs assertions.
type signer struct {
	storage.Client
	key jose.JSONWebKey
	alg jose.SignatureAlgorithm
}

// newKey is a private key for alg.
func newKey(t testing.TB, alg jose.SignatureAlgorithm, kid string) jose.JSONWebKey {
	t.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case jose.RS256, jose.PS256:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case jose.EdDSA, algEd25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	require.NoError(t, err)
	return jose.JSONWebKey{Key: key, KeyID: kid, Use: "sig"}
}

// setOf is the JWK Set with the public halves of keys.
func setOf(t testing.TB, keys ...jose.JSONWebKey) []byte {
	t.Helper()
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range keys {
		set.Keys = append(set.Keys, k.Public())
	}
	raw, err := json.Marshal(set)
	require.NoError(t, err)
	return raw
}

// signer registers a client that signs by alg, with changes.
func (h *house) signer(t testing.TB, alg jose.SignatureAlgorithm, change func(*storage.Client)) signer {
	t.Helper()
	s := signer{key: newKey(t, alg, "k1"), alg: alg}
	s.Client = storage.Client{
		Name: "Lab portal", AuthMethods: storage.Words{"private_key_jwt"}, RedirectURIs: storage.Strings{callback},
		GrantTypes: storage.Words{"authorization_code", "refresh_token", "client_credentials"}, Scopes: Scopes,
		CanIntrospect: true, FirstParty: true, Metadata: storage.ClientMetadata{JWKS: setOf(t, s.key)},
	}
	if change != nil {
		change(&s.Client)
	}
	require.NoError(t, h.db.CreateClient(context.Background(), &s.Client))
	return s
}

// claims are good ones, with changes; nil takes a claim away.
func (s signer) claims(change map[string]any) map[string]any {
	now := time.Now().Unix()
	c := map[string]any{
		"iss": s.ID, "sub": s.ID, "aud": issuer, "exp": now + 60, "iat": now, "jti": storage.NewHandle(""),
	}
	for k, v := range change {
		c[k] = v
		if v == nil {
			delete(c, k)
		}
	}
	return c
}

// sign makes a JWT of claims, which may be JSON text already.
func (s signer) sign(t testing.TB, claims any, change func(*jose.SignerOptions)) string {
	t.Helper()
	if s.alg == algEd25519 { // which go-jose cannot sign by
		payload, err := json.Marshal(claims)
		require.NoError(t, err)
		input := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"Ed25519","kid":"`+s.key.KeyID+`"}`)) + "." +
			base64.RawURLEncoding.EncodeToString(payload)
		return input + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(s.key.Key.(ed25519.PrivateKey), []byte(input)))
	}
	options := &jose.SignerOptions{}
	if change != nil {
		change(options)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: s.alg, Key: s.key}, options)
	require.NoError(t, err)
	payload, ok := claims.([]byte)
	if !ok {
		payload, err = json.Marshal(claims)
		require.NoError(t, err)
	}
	jws, err := signer.Sign(payload)
	require.NoError(t, err)
	out, err := jws.CompactSerialize()
	require.NoError(t, err)
	return out
}

// good is a fresh assertion that nothing is wrong with.
func (s signer) good(t testing.TB) string { return s.sign(t, s.claims(nil), nil) }

// assert sends form with an assertion.
func (h *house) assert(path, assertion string, form url.Values) *httptest.ResponseRecorder {
	form = cloned(form)
	for k, v := range map[string]string{"client_assertion": assertion, "client_assertion_type": assertionType} {
		if !form.Has(k) {
			form.Set(k, v)
		}
	}
	r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

var forItself = url.Values{"grant_type": {"client_credentials"}}

// refused requires the one answer to every client that is not authenticated
// (RFC 6749, Section 5.2; RFC 7521, Section 4.2.1).
func (h *house) refused(t testing.TB, w *httptest.ResponseRecorder, name string) {
	t.Helper()
	r := httptest.NewRequest("POST", "/oauth2/token", strings.NewReader(forItself.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(h.portal.ID, "wrong")
	wrong := httptest.NewRecorder()
	h.ServeHTTP(wrong, r)
	require.Equal(t, 401, w.Code, "%s: %s", name, w.Body)
	require.Contains(t, w.Body.String(), `"invalid_client"`, name)
	require.Equal(t, wrong.Body.String(), w.Body.String(), name)
}

func TestEveryEndpointOfClientsTakesAssertions(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	for _, alg := range assertionAlgs {
		s := h.signer(t, alg, nil)
		require.Equal(t, 200, h.assert("/oauth2/token", s.good(t), forItself).Code, alg)
		for _, path := range []string{"/oauth2/introspect", "/oauth2/revoke"} {
			require.Equal(t, 200, h.assert(path, s.good(t), url.Values{"token": {"x"}}).Code, "%s %s", alg, path)
			w := h.assert(path, s.good(t)+"x", url.Values{"token": {"x"}})
			h.refused(t, w, path)
			require.Empty(t, w.Header().Get("WWW-Authenticate"), "no header was used")
		}
		code, verifier := h.code(t, s.Client, nil)
		w := h.assert("/oauth2/token", s.good(t), redeem(code, verifier))
		require.Equal(t, 200, w.Code, w.Body)
	}
}

func TestTheClaimsOfAnAssertion(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	s, other := h.signer(t, jose.ES256, nil), h.signer(t, jose.ES256, nil)
	now := time.Now().Unix()
	type claims = map[string]any
	for _, c := range []struct {
		name   string
		change claims
		good   bool
	}{
		{"as they should be", nil, true},
		{"unknown claims", claims{"more": claims{"a": 1}}, true},

		// RFC 7523, Section 3, Items 1 and 2; OpenID Connect Core, Section 9.
		{"no iss", claims{"iss": nil}, false},
		{"no sub", claims{"sub": nil}, false},
		{"neither", claims{"iss": nil, "sub": nil}, false},
		{"another iss", claims{"iss": other.ID}, false},
		{"another sub", claims{"sub": other.ID}, false},
		{"another client", claims{"iss": other.ID, "sub": other.ID}, false},
		{"unknown client", claims{"iss": "unknown", "sub": "unknown"}, false},
		{"iss is a list", claims{"iss": []string{s.ID}}, false},

		// Item 3: who it is for.
		{"aud is the token endpoint", claims{"aud": issuer + "/oauth2/token"}, true},
		{"aud is a list of one", claims{"aud": []string{issuer}}, true},
		{"aud is another of our endpoints", claims{"aud": issuer + "/oauth2/revoke"}, false},
		{"no aud", claims{"aud": nil}, false},
		{"empty aud", claims{"aud": ""}, false},
		{"aud is an empty list", claims{"aud": []string{}}, false},
		{"aud is a list of two", claims{"aud": []string{issuer, "https://elsewhere.example"}}, false},
		{"aud is us twice", claims{"aud": []string{issuer, issuer}}, false},
		{"aud is somebody else", claims{"aud": "https://elsewhere.example"}, false},
		{"aud with a slash", claims{"aud": issuer + "/"}, false},
		{"aud in capitals", claims{"aud": strings.ToUpper(issuer)}, false},
		{"aud is a number", claims{"aud": 1}, false},
		{"aud is the client", claims{"aud": s.ID}, false},

		// Items 4, 5 and 6: times.
		{"no exp", claims{"exp": nil}, false},
		{"exp is text", claims{"exp": fmt.Sprint(now + 60)}, false},
		{"expired a moment ago", claims{"exp": now - 5}, true},
		{"expired", claims{"exp": now - 11}, false},
		{"expired long ago", claims{"exp": 0}, false},
		{"expires with a fraction", claims{"exp": float64(now) + 59.5}, true},
		{"expires in five minutes", claims{"exp": now + 300}, true},
		{"expires in six minutes", claims{"exp": now + 360}, false},
		{"expires in seventy years", claims{"exp": now + 70*365*24*3600}, false},
		{"expires beyond all numbers", claims{"exp": 1e300}, false},
		{"exp below all numbers", claims{"exp": -1e300}, false},
		{"no iat", claims{"iat": nil}, true},
		{"iat and nbf a moment ahead", claims{"iat": now + 10, "nbf": now + 10}, true},
		{"iat ahead", claims{"iat": now + 70}, false},
		{"iat far ahead", claims{"iat": 1e300}, false},
		{"nbf ahead", claims{"nbf": now + 70}, false},
		{"nbf is text", claims{"nbf": "soon"}, false},

		// Item 7: jti.
		{"no jti", claims{"jti": nil}, false},
		{"empty jti", claims{"jti": ""}, false},
		{"jti is a number", claims{"jti": 7}, false},
		{"long jti", claims{"jti": strings.Repeat("j", 256)}, true},
		{"longer jti", claims{"jti": strings.Repeat("j", 257)}, false},
		{"jti with a NUL", claims{"jti": "a\x00b"}, true},
	} {
		w := h.assert("/oauth2/token", s.sign(t, s.claims(c.change), nil), forItself)
		if c.good {
			require.Equal(t, 200, w.Code, "%s: %s", c.name, w.Body)
			continue
		}
		h.refused(t, w, c.name)
	}
	// The endpoint that was called stands for us, too.
	for path, status := range map[string]int{"/oauth2/introspect": 200, "/oauth2/revoke": 401} {
		w := h.assert(path, s.sign(t, s.claims(claims{"aud": issuer + "/oauth2/introspect"}), nil), url.Values{"token": {"x"}})
		require.Equal(t, status, w.Code, path)
	}
	// RFC 7519, Section 4: no claim twice.
	twice, err := json.Marshal(s.claims(nil))
	require.NoError(t, err)
	twice = append([]byte(`{"sub":"`+other.ID+`",`), twice[1:]...)
	h.refused(t, h.assert("/oauth2/token", s.sign(t, twice, nil), forItself), "sub twice")
	for _, payload := range []string{"", "null", "[]", `"x"`, "{", "{}", strings.Repeat("[", 10000)} {
		h.refused(t, h.assert("/oauth2/token", s.sign(t, []byte(payload), nil), forItself), payload)
	}
}

func TestTheHeaderOfAnAssertion(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	s := h.signer(t, jose.ES256, nil)
	thief := signer{Client: s.Client, key: newKey(t, jose.ES256, "k1"), alg: jose.ES256}
	with := func(name string, value any) func(*jose.SignerOptions) {
		return func(o *jose.SignerOptions) { o.WithHeader(jose.HeaderKey(name), value) }
	}
	for _, c := range []struct {
		name   string
		by     signer
		change func(*jose.SignerOptions)
		good   bool
	}{
		{"typ JWT", s, with("typ", "JWT"), true},
		{"typ jwt", s, with("typ", "jwt"), true},
		{"typ client-authentication+jwt", s, with("typ", "client-authentication+jwt"), true},
		{"typ at+jwt", s, with("typ", "at+jwt"), false},
		{"typ dpop+jwt", s, with("typ", "dpop+jwt"), false},
		{"empty typ", s, with("typ", ""), false},
		{"typ is a number", s, with("typ", 1), false},
		{"unknown header", s, with("more", "x"), true},
		{"unknown kid", s, with("kid", "k2"), false},
		{"kid is a number", s, with("kid", 1), false},
		{"crit", s, with("crit", []string{"exp"}), false},
		{"empty crit", s, with("crit", []string{}), false},
		{"critical b64", s, func(o *jose.SignerOptions) { o.WithBase64(true).WithCritical("b64") }, false},
		{"b64", s, with("b64", true), false},
		{"b64 is false", s, with("b64", false), false},
		{"another key under the kid", thief, nil, false},
		{"its own key inside", thief, func(o *jose.SignerOptions) { o.EmbedJWK = true }, false},
		{"its own key elsewhere", thief, with("jku", "https://thief.example/keys"), false},
		{"its own certificate elsewhere", thief, with("x5u", "https://thief.example/keys"), false},
		{"a key elsewhere, but signed by the client", s, with("jku", "https://thief.example/keys"), true},
	} {
		w := h.assert("/oauth2/token", c.by.sign(t, s.claims(nil), c.change), forItself)
		if c.good {
			require.Equal(t, 200, w.Code, "%s: %s", c.name, w.Body)
			continue
		}
		h.refused(t, w, c.name)
	}

	b64 := base64.RawURLEncoding.EncodeToString
	payload, err := json.Marshal(s.claims(nil))
	require.NoError(t, err)
	der := setOf(t, s.key)
	hmac := signer{key: jose.JSONWebKey{Key: der, KeyID: "k1"}, alg: jose.HS256}
	good := s.good(t)
	for name, assertion := range map[string]string{
		"alg none":              b64([]byte(`{"alg":"none","kid":"k1"}`)) + "." + b64(payload) + ".",
		"no alg":                b64([]byte(`{"kid":"k1"}`)) + "." + b64(payload) + "." + b64([]byte("x")),
		"alg twice":             b64([]byte(`{"alg":"ES256","alg":"ES256"}`)) + "." + b64(payload) + "." + b64([]byte("x")),
		"the public key as MAC": hmac.sign(t, payload, nil),
		"no signature":          good[:strings.LastIndex(good, ".")+1],
		"another signature":     good[:strings.LastIndex(good, ".")+1] + b64(make([]byte, 64)),
		"too long":              s.sign(t, s.claims(map[string]any{"more": strings.Repeat("x", 12<<10)}), nil),
		"JSON serialization":    `{"payload":"` + b64(payload) + `","signatures":[]}`,
		"encrypted":             "a.b.c.d.e",
		"blank":                 " ",
		"junk":                  "x",
	} {
		h.refused(t, h.assert("/oauth2/token", assertion, forItself), name)
	}
	require.Equal(t, 200, h.assert("/oauth2/token", good, forItself).Code, "none of them has spent it")
}

// RFC 6749, Section 2.3: one method per request, and the one that is registered.
func TestOneMethodAndTheRegisteredOne(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	var secret string
	s := h.signer(t, jose.ES256, func(c *storage.Client) { secret = h.db.NewClientSecret(c) })
	post := func(form url.Values, user, password string) *httptest.ResponseRecorder {
		form = cloned(form)
		form.Set("grant_type", "client_credentials")
		r := httptest.NewRequest("POST", "/oauth2/token", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if user != "" {
			r.SetBasicAuth(user, password)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	proof := func() url.Values {
		return url.Values{"client_assertion": {s.good(t)}, "client_assertion_type": {assertionType}}
	}
	plus := func(form url.Values, name, value string) url.Values {
		form.Set(name, value)
		return form
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"with Basic":                   post(proof(), s.ID, secret),
		"with Basic of another client": post(proof(), h.portal.ID, h.secret),
		"with client_secret":           post(plus(plus(proof(), "client_id", s.ID), "client_secret", secret), "", ""),
		"a type and Basic":             post(url.Values{"client_assertion_type": {assertionType}}, h.portal.ID, h.secret),
	} {
		require.Equal(t, 400, w.Code, name)
		require.Contains(t, w.Body.String(), `"invalid_request"`, name)
	}
	bearer := httptest.NewRequest("POST", "/oauth2/token", strings.NewReader(plus(proof(), "grant_type", "client_credentials").Encode()))
	bearer.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	bearer.Header.Set("Authorization", "Bearer x")
	status, body := h.send(bearer)
	require.Equal(t, []any{400, "invalid_request"}, []any{status, body["error"]})

	secretOnly := h.signer(t, jose.ES256, func(c *storage.Client) { c.AuthMethods = storage.Words{"client_secret_basic"} })
	pinned := h.signer(t, jose.ES256, func(c *storage.Client) { c.Metadata.TokenEndpointAuthSigningAlg = "PS256" })
	keyless := h.signer(t, jose.ES256, func(c *storage.Client) { c.Metadata.JWKS = nil })
	broken := h.signer(t, jose.ES256, func(c *storage.Client) { c.Metadata.JWKS = []byte(`{"keys":1}`) })
	nothing := h.signer(t, jose.ES256, func(c *storage.Client) { c.AuthMethods = nil })
	gone := h.signer(t, jose.ES256, nil)
	require.NoError(t, h.db.DeleteClient(context.Background(), gone.ID, storage.Now()))
	sound := url.Values{"client_assertion_type": {assertionType}}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"no credentials":                   post(url.Values{"client_id": {s.ID}}, "", ""),
		"an empty assertion":               post(url.Values{"client_id": {s.ID}, "client_assertion": {""}}, "", ""),
		"its secret by Basic":              post(nil, s.ID, secret),
		"an empty secret by Basic":         post(nil, s.ID, ""),
		"its secret in the body":           post(url.Values{"client_id": {s.ID}, "client_secret": {secret}}, "", ""),
		"an empty secret in the body":      post(url.Values{"client_id": {s.ID}, "client_secret": {""}}, "", ""),
		"a type without an assertion":      post(plus(sound, "client_id", s.ID), "", ""),
		"an assertion without a type":      post(url.Values{"client_assertion": {s.good(t)}}, "", ""),
		"SAML":                             post(plus(proof(), "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"), "", ""),
		"another client_id":                post(plus(proof(), "client_id", h.portal.ID), "", ""),
		"registered for a secret":          post(plus(plus(sound, "client_assertion", secretOnly.good(t)), "client_id", ""), "", ""),
		"registered for another alg":       post(plus(sound, "client_assertion", pinned.good(t)), "", ""),
		"registered without a key":         post(plus(sound, "client_assertion", keyless.good(t)), "", ""),
		"registered with a broken set":     post(plus(sound, "client_assertion", broken.good(t)), "", ""),
		"registered for nothing":           post(plus(sound, "client_assertion", nothing.good(t)), "", ""),
		"nothing registered, nothing sent": post(url.Values{"client_id": {nothing.ID}}, "", ""),
		"nothing registered, empty secret": post(nil, nothing.ID, ""),
		"deleted":                          post(plus(sound, "client_assertion", gone.good(t)), "", ""),
	} {
		h.refused(t, w, name)
	}
	require.Equal(t, 200, post(plus(proof(), "client_id", s.ID), "", "").Code, "the same client_id")
	require.Equal(t, 400, post(url.Values{"client_assertion": {s.good(t), s.good(t)}}, "", "").Code, "two assertions")
}

// What is no text is no client, whichever way it comes; it is never our fault.
func TestAClientIDThatIsNoText(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := build(t, db)
		s := h.signer(t, jose.ES256, nil)
		h.refused(t, h.assert("/oauth2/token", s.sign(t, s.claims(map[string]any{"iss": "a\x00", "sub": "a\x00"}), nil), forItself), "NUL")
		for _, id := range []string{"%00", "%ff", "a%00"} {
			r := httptest.NewRequest("POST", "/oauth2/token", strings.NewReader(forItself.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.SetBasicAuth(id, "x")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			h.refused(t, w, id)
		}
	})
}

func TestAnAssertionCountsOnce(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	s, other := h.signer(t, jose.ES256, nil), h.signer(t, jose.ES256, nil)
	thief := signer{Client: s.Client, key: newKey(t, jose.ES256, "k1"), alg: jose.ES256}
	jti := func(change map[string]any) map[string]any {
		c := map[string]any{"jti": "one"}
		for k, v := range change {
			c[k] = v
		}
		return c
	}
	// Nothing that is refused spends the jti.
	for name, assertion := range map[string]string{
		"for somebody else": s.sign(t, s.claims(jti(map[string]any{"aud": "https://elsewhere.example"})), nil),
		"expired":           s.sign(t, s.claims(jti(map[string]any{"exp": 1})), nil),
		"ahead":             s.sign(t, s.claims(jti(map[string]any{"iat": time.Now().Unix() + 120})), nil),
		"by somebody else":  thief.sign(t, s.claims(jti(nil)), nil),
	} {
		h.refused(t, h.assert("/oauth2/token", assertion, forItself), name)
	}
	// A jti is the client's own.
	require.Equal(t, 200, h.assert("/oauth2/token", other.sign(t, other.claims(jti(nil)), nil), forItself).Code)
	good := s.sign(t, s.claims(jti(nil)), nil)
	require.Equal(t, 200, h.assert("/oauth2/token", good, forItself).Code)
	h.refused(t, h.assert("/oauth2/token", good, forItself), "again")
	h.refused(t, h.assert("/oauth2/revoke", good, url.Values{"token": {"x"}}), "elsewhere")
	h.refused(t, h.assert("/oauth2/token", s.sign(t, s.claims(jti(nil)), nil), forItself), "another assertion with its jti")
	// A request that fails later has spent it all the same.
	once := s.good(t)
	require.Equal(t, 400, h.assert("/oauth2/token", once, redeem("x", "y")).Code)
	h.refused(t, h.assert("/oauth2/token", once, forItself), "after a failure")
}

func TestFiftyUseOneAssertion(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := build(t, db)
		s := h.signer(t, jose.ES256, nil)
		once := s.good(t)
		var mu sync.Mutex
		statuses := map[int]int{}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				w := h.assert("/oauth2/token", once, forItself)
				mu.Lock()
				defer mu.Unlock()
				statuses[w.Code]++
			})
		}
		all.Wait()
		require.Equal(t, map[int]int{200: 1, 401: 49}, statuses)
	})
}

// The loser of a race on a refresh token is tried again within its request, with
// the one assertion it has.
func TestTwentyRefreshEachWithAnAssertion(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := build(t, db)
		s := h.signer(t, jose.ES256, nil)
		code, verifier := h.code(t, s.Client, nil)
		var first map[string]any
		require.NoError(t, json.Unmarshal(h.assert("/oauth2/token", s.good(t), redeem(code, verifier)).Body.Bytes(), &first))
		var mu sync.Mutex
		successors := map[any]int{}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				w := h.assert("/oauth2/token", s.good(t), refresh(first["refresh_token"]))
				var body map[string]any
				json.Unmarshal(w.Body.Bytes(), &body)
				mu.Lock()
				defer mu.Unlock()
				if w.Code != 200 {
					t.Errorf("%d %v", w.Code, body)
				}
				successors[body["refresh_token"]]++
			})
		}
		all.Wait()
		require.Len(t, successors, 1)
	})
}

func TestAnAssertionWithoutKid(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	s := h.signer(t, jose.ES256, nil)
	s.key.KeyID = ""
	require.Equal(t, 200, h.assert("/oauth2/token", s.good(t), forItself).Code)
	// Keys of other kinds and for other uses are passed over, and few are tried.
	keys := []jose.JSONWebKey{newKey(t, jose.EdDSA, "a"), newKey(t, jose.ES256, "b"), s.key}
	keys[1].Use = "enc"
	for range maxTries - 1 {
		keys = append([]jose.JSONWebKey{newKey(t, jose.ES256, "c")}, keys...)
	}
	s.Metadata.JWKS = setOf(t, keys...)
	require.NoError(t, h.db.UpdateClient(context.Background(), &s.Client))
	require.Equal(t, 200, h.assert("/oauth2/token", s.good(t), forItself).Code)
	s.Metadata.JWKS = setOf(t, append([]jose.JSONWebKey{newKey(t, jose.ES256, "d")}, keys...)...)
	require.NoError(t, h.db.UpdateClient(context.Background(), &s.Client))
	h.refused(t, h.assert("/oauth2/token", s.good(t), forItself), "too many keys and no kid")
	s.key.KeyID = "k1"
	s.Metadata.JWKS = setOf(t, append(keys, s.key)...)
	require.NoError(t, h.db.UpdateClient(context.Background(), &s.Client))
	require.Equal(t, 200, h.assert("/oauth2/token", s.good(t), forItself).Code, "a kid finds it among many")
	s.key.Use = "enc"
	s.Metadata.JWKS = setOf(t, s.key)
	require.NoError(t, h.db.UpdateClient(context.Background(), &s.Client))
	h.refused(t, h.assert("/oauth2/token", s.good(t), forItself), "a key for encryption")
}

// A site is where a client has its keys; the tests own its answer and count who asks.
type site struct {
	*httptest.Server
	answer atomic.Value // http.HandlerFunc
	asked  atomic.Int64
}

func newSite(t testing.TB, answer http.HandlerFunc) *site {
	s := &site{}
	s.answer.Store(answer)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		s.answer.Load().(http.HandlerFunc)(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func serve(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }
}

// hosted is a client with its keys at a site.
func (h *house) hosted(t testing.TB) (signer, *site) {
	t.Helper()
	h.clientKeys.get = outbound.New(outbound.Config{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}).Get
	at := newSite(t, http.NotFound)
	s := h.signer(t, jose.ES256, func(c *storage.Client) { c.Metadata = storage.ClientMetadata{JWKSURI: at.URL + "/keys"} })
	at.answer.Store(serve(setOf(t, s.key)))
	return s, at
}

// pass lets time go by for the sets that were fetched.
func (k *keySets) pass(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.sets {
		s.read, s.tried = s.read.Add(-d), s.tried.Add(-d)
	}
}

func TestKeysAreFetchedFromTheClient(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	s, at := h.hosted(t)
	works := func(s signer) bool { return h.assert("/oauth2/token", s.good(t), forItself).Code == 200 }
	for range 3 {
		require.True(t, works(s))
	}
	require.EqualValues(t, 1, at.asked.Load(), "one fetch serves for minutes")

	// The client has a new key (OpenID Connect Core, Section 10.1.1).
	next := signer{Client: s.Client, key: newKey(t, jose.ES256, "k2"), alg: jose.ES256}
	at.answer.Store(serve(setOf(t, s.key, next.key)))
	require.False(t, works(next), "the set was fetched just now")
	require.EqualValues(t, 1, at.asked.Load())
	h.clientKeys.pass(keysCooldown)
	require.True(t, works(next))
	require.True(t, works(s))
	require.EqualValues(t, 2, at.asked.Load())

	// Kids that nobody has make us fetch once a minute, whoever makes them up.
	stranger := signer{Client: s.Client, key: newKey(t, jose.ES256, ""), alg: jose.ES256}
	h.clientKeys.pass(keysCooldown)
	for i := range 20 {
		stranger.key.KeyID = fmt.Sprint("made up ", i)
		require.False(t, works(stranger))
	}
	require.EqualValues(t, 3, at.asked.Load())
	require.True(t, works(s), "and the client does not suffer")

	// The old key is gone.
	at.answer.Store(serve(setOf(t, next.key)))
	h.clientKeys.pass(keysRefresh)
	require.False(t, works(s))
	require.True(t, works(next))
	require.EqualValues(t, 4, at.asked.Load())

	// The client's server is away for a moment, then for longer, and comes back.
	up := at.answer.Load()
	at.answer.Store(http.HandlerFunc(http.NotFound))
	h.clientKeys.pass(keysRefresh)
	require.True(t, works(next), "the set is still good")
	require.True(t, works(next))
	require.EqualValues(t, 5, at.asked.Load())
	h.clientKeys.pass(keysCooldown)
	require.False(t, works(next))
	at.answer.Store(up)
	require.False(t, works(next), "the cooldown holds after failures, too")
	require.EqualValues(t, 6, at.asked.Load())
	h.clientKeys.pass(keysCooldown)
	require.True(t, works(next))
	require.EqualValues(t, 7, at.asked.Load())
}

func TestKeySetsThatAreOfNoUse(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	s, at := h.hosted(t)
	good := setOf(t, s.key)
	private, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{s.key}})
	require.NoError(t, err)
	var lines bytes.Buffer
	log := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&lines, nil)))
	defer slog.SetDefault(log)
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		cause  string
	}{
		{"missing", http.NotFound, "status 404"},
		{"elsewhere", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/good" {
				w.Write(good)
			}
			http.Redirect(w, r, "/good", http.StatusFound)
		}, "status 302"},
		{"oversized", serve(append(good, bytes.Repeat([]byte(" "), 1<<20)...)), "too long"},
		{"slow", func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Second):
			}
		}, "outbound request failed"},
		{"private", serve(private), "private key"},
		{"empty", serve([]byte(`{"keys":[]}`)), "no such key"},
		{"not JSON", serve([]byte("<html>")), "not a JWK Set"},
	} {
		h.clientKeys.sets = map[string]*keySet{}
		at.asked.Store(0)
		at.answer.Store(c.answer)
		lines.Reset()
		for range 3 {
			h.refused(t, h.assert("/oauth2/token", s.good(t), forItself), c.name)
		}
		require.EqualValues(t, 1, at.asked.Load(), c.name)
		require.Contains(t, lines.String(), c.cause, c.name)
		require.Contains(t, lines.String(), "client_id="+s.ID, c.name)
	}
}

func TestOneFetchServesAllWhoWait(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	s, at := h.hosted(t)
	at.answer.Store(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond)
		w.Write(setOf(t, s.key))
	}))
	// The first to ask gives up at once; the others are served all the same.
	impatient, cancel := context.WithCancel(context.Background())
	cancel()
	var all sync.WaitGroup
	for i := range 20 {
		ctx := context.Background()
		if i == 0 {
			ctx = impatient
		}
		all.Go(func() {
			keys, err := h.clientKeys.find(ctx, s.Metadata.JWKSURI, jose.ES256, "k1", time.Now())
			if err != nil || len(keys) != 1 {
				t.Errorf("%v %v", keys, err)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, at.asked.Load())
}

// Many jwks_uris are no way around the cooldown.
func TestFetchedSetsAreBounded(t *testing.T) {
	set, asked := setOf(t, newKey(t, jose.ES256, "k1")), 0
	k := newKeySets(func(context.Context, string) ([]byte, error) { asked++; return set, nil })
	find := func(i int, now time.Time) error {
		_, err := k.find(context.Background(), fmt.Sprint("https://portal.example/", i), jose.ES256, "k1", now)
		return err
	}
	now := time.Now()
	for i := range maxUnproven {
		require.NoError(t, find(i, now.Add(time.Duration(i)*time.Millisecond)))
	}
	now = now.Add(time.Second)
	for i := range 10 * maxUnproven {
		require.ErrorIs(t, find(maxUnproven+i, now), errCrowded)
	}
	require.NoError(t, find(0, now), "who is in stays in")
	require.Equal(t, maxUnproven, asked)
	now = now.Add(keysCooldown)
	require.NoError(t, find(maxUnproven, now))
	require.Len(t, k.sets, maxUnproven)
	require.NotContains(t, k.sets, "https://portal.example/0", "the oldest made room")
	require.Equal(t, maxUnproven+1, asked)
}

// Ten times as many jwks_uris as there is room for, named again as soon as their
// cooldown is over: the sets that clients work with stay, up to their share, and
// then the one that nobody used for longest goes.
func TestACrowdOfSetsDoesNotEvictThoseInUse(t *testing.T) {
	set := setOf(t, newKey(t, jose.ES256, "k1"))
	k := newKeySets(func(context.Context, string) ([]byte, error) { return set, nil })
	find := func(uri string, now time.Time) error {
		_, err := k.find(context.Background(), uri, jose.ES256, "k1", now)
		return err
	}
	now := time.Now()
	const own = maxFetched - maxUnproven
	for i := range own {
		uri := fmt.Sprint("https://clinic.example/", i)
		require.NoError(t, find(uri, now))
		k.proved(uri, now)
	}
	for range 5 { // minutes
		now = now.Add(61500 * time.Millisecond)
		for i := range 2 * maxFetched {
			_ = find(fmt.Sprint("https://crowd.example/", i), now)
		}
		for i := range own {
			uri := fmt.Sprint("https://clinic.example/", i)
			require.NoError(t, find(uri, now))
			k.proved(uri, now.Add(time.Duration(i)*time.Microsecond))
		}
		require.LessOrEqual(t, len(k.sets), maxFetched)
	}
	now = now.Add(keysCooldown)
	for i := range maxFetched {
		uri := fmt.Sprint("https://new.example/", i)
		require.NoError(t, find(uri, now))
		k.proved(uri, now)
		now = now.Add(time.Second)
	}
	require.NotContains(t, k.sets, "https://clinic.example/0")
	require.Len(t, k.sets, maxFetched)
}

// One network that names ever new jwks_uris leaves room for a client elsewhere.
func TestOneNetworkDoesNotFillTheSets(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	h.clientKeys.get = func(context.Context, string) ([]byte, error) { return []byte(`{"keys": []}`), nil }
	key := newKey(t, jose.ES256, "k1")
	ask := func(i int, addr string) {
		c := storage.Client{
			Name: "Crowd", AuthMethods: storage.Words{"private_key_jwt"}, GrantTypes: storage.Words{"client_credentials"},
			Metadata: storage.ClientMetadata{JWKSURI: fmt.Sprint("https://crowd.example/", i)},
		}
		require.NoError(t, h.db.CreateClient(t.Context(), &c))
		form := cloned(forItself)
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", signer{Client: c, key: key, alg: jose.ES256}.good(t))
		r := httptest.NewRequest("POST", "/oauth2/token", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.RemoteAddr = addr
		status, _ := h.send(r)
		require.Equal(t, 401, status)
	}
	for i := range 10 * newSetsOfNetwork.Burst {
		ask(i, "198.51.100.7:1")
	}
	require.InDelta(t, newSetsOfNetwork.Burst, len(h.clientKeys.sets), 15)
	ask(10000, "198.51.100.8:1")
	require.Contains(t, h.clientKeys.sets, "https://crowd.example/10000")
}

// Neither a client that cannot be found nor a jti that cannot be spent is the
// client's fault.
func TestAnAssertionWhileTheDatabaseIsAway(t *testing.T) {
	for name, cutFirst := range map[string]bool{"from the start": true, "after the signature": false} {
		t.Run(name, func(t *testing.T) {
			db, p := behindProxy(t)
			h := build(t, db)
			s, at := h.hosted(t)
			at.answer.Store(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				p.cut()
				w.Write(setOf(t, s.key))
			}))
			if cutFirst {
				p.cut()
			}
			for _, path := range []string{"/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"} {
				form := cloned(forItself)
				form.Set("token", "x")
				w := h.assert(path, s.good(t), form)
				require.Equal(t, 503, w.Code, "%s: %s", path, w.Body)
				require.NotEmpty(t, w.Header().Get("Retry-After"))
			}
			require.Equal(t, !cutFirst, at.asked.Load() == 1)
		})
	}
}

// RFC 9864 has another name for what EdDSA means here: who registers or says one of
// them may use both, in the header and in the JWK; no other key is good for either.
func TestEd25519HasTwoNames(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	names := []string{"EdDSA", "Ed25519"}
	for _, registered := range append(names, "") {
		for _, inSet := range append(names, "") {
			s := h.signer(t, algEd25519, nil)
			public := s.key.Public()
			public.Algorithm = inSet
			set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public}})
			require.NoError(t, err)
			h.change(t, &s.Client, func(c *storage.Client) {
				c.Metadata.JWKS, c.Metadata.TokenEndpointAuthSigningAlg = set, registered
			})
			for _, name := range names {
				s.alg = jose.SignatureAlgorithm(name)
				w := h.assert("/oauth2/token", s.good(t), forItself)
				require.Equal(t, 200, w.Code, "%s registered, %s in the set, %s said: %s", registered, inSet, name, w.Body)
				h.refused(t, h.assert("/oauth2/token", s.good(t)[:40]+"A"+s.good(t)[41:], forItself), "forged")
			}
		}
	}
	pinned := h.signer(t, algEd25519, func(c *storage.Client) { c.Metadata.TokenEndpointAuthSigningAlg = "ES256" })
	h.refused(t, h.assert("/oauth2/token", pinned.good(t), forItself), "registered for another alg")
	other, named := h.signer(t, jose.ES256, nil), h.signer(t, algEd25519, nil)
	named.ID = other.ID
	h.refused(t, h.assert("/oauth2/token", named.good(t), forItself), "a key of another kind")
}

func TestDiscoveryNamesAssertions(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	_, doc := h.send(httptest.NewRequest("GET", "/.well-known/openid-configuration", nil))
	for _, endpoint := range []string{"token", "introspection", "revocation"} {
		require.Contains(t, doc[endpoint+"_endpoint_auth_methods_supported"], "private_key_jwt")
		require.Equal(t, []any{"RS256", "PS256", "ES256", "EdDSA", "Ed25519"}, doc[endpoint+"_endpoint_auth_signing_alg_values_supported"])
	}
}

func FuzzAssertion(f *testing.F) {
	s := signer{Client: storage.Client{ID: "c"}, key: newKey(f, jose.EdDSA, "k1"), alg: jose.EdDSA}
	now := time.Now()
	f.Add(s.good(f))
	f.Add(s.sign(f, s.claims(map[string]any{"aud": []string{issuer}, "exp": 1e300}), nil))
	f.Add(s.sign(f, s.claims(nil), func(o *jose.SignerOptions) { o.WithHeader("typ", 1).WithHeader("b64", false) }))
	f.Add("e30.e30.")
	rfc9864 := s
	rfc9864.alg = algEd25519
	f.Add(rfc9864.good(f))
	f.Fuzz(func(t *testing.T, raw string) {
		a, err := parseAssertion(raw)
		if err != nil {
			require.ErrorIs(t, err, errAssertion)
			return
		}
		require.Contains(t, assertionAlgs, a.alg)
		require.NotEqual(t, algEd25519, a.alg, "one name for both")
		require.LessOrEqual(t, len(raw), maxAssertion)
		if _, err := a.jws.Verify(s.key.Public().Key); err == nil && a.alg != jose.EdDSA {
			t.Fatalf("%q was verified by another alg", raw)
		}
		c := a.claims
		if err := c.check([]string{issuer}, now); err != nil {
			require.ErrorIs(t, err, errAssertion)
			return
		}
		left := c.usableUntil().Sub(now)
		if c.Issuer == "" || c.Issuer != c.Subject || c.Audience != issuer || c.ID == "" || len(c.ID) > maxJTI || left <= 0 || left > 6*time.Minute {
			t.Fatalf("accepted %+v", c)
		}
	})
}
