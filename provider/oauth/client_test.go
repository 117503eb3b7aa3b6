package oauth

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
)

func TestRedirectURIsAreComparedAsStrings(t *testing.T) {
	c := storage.Client{RedirectURIs: storage.Strings{
		"https://portal.example/cb", "http://127.0.0.1/cb", "http://[::1]:8000/cb", "com.example.app:/cb",
	}}
	for uri, want := range map[string]bool{
		"https://portal.example/cb":           true,
		"https://portal.example/cb/":          false,
		"https://portal.example/cb?x=1":       false,
		"https://portal.example:443/cb":       false,
		"https://PORTAL.example/cb":           false,
		"https://portal.example.evil.test/cb": false,
		"https://portal.example@evil.test/cb": false,
		"https://portal.example/%63b":         false,
		"http://portal.example/cb":            false,
		"http://127.0.0.1/cb":                 true,
		"http://127.0.0.1:49152/cb":           true, // RFC 8252, Section 7.3
		"http://127.0.0.1:49152/cb?x":         false,
		"https://127.0.0.1:49152/cb":          false,
		"http://u@127.0.0.1:1/cb":             false,
		"http://127.0.0.2:1/cb":               false,
		"http://localhost:1/cb":               false,
		"http://[::1]:9/cb":                   true,
		"com.example.app:/cb":                 true,
		"":                                    false,
	} {
		require.Equal(t, want, matchRedirect(c, uri), uri)
	}
}

func TestRedirectURIsThatMayBeUsed(t *testing.T) {
	for uri, want := range map[string]bool{
		"https://portal.example/cb": true, "http://127.0.0.1:1/cb": true, "http://localhost/cb": true, "com.example.app:/cb": true,
		"http://portal.example/cb": false, "javascript:alert(1)": false, "data:text/html,x": false,
		"https://u:p@portal.example/cb": false, "https://portal.example/cb#f": false, "https://*.example/cb": false, "https:///cb": false,
	} {
		u, err := url.Parse(uri)
		require.NoError(t, err)
		require.Equal(t, want, secureRedirect(u), uri)
	}
}

func FuzzRedirect(f *testing.F) {
	c := storage.Client{RedirectURIs: storage.Strings{"https://portal.example/cb", "http://127.0.0.1/cb"}}
	f.Add("https://portal.example/cb")
	f.Add("http://127.0.0.1:80/cb")
	f.Add("http://127.0.0.1:80@evil.test/cb")
	f.Fuzz(func(t *testing.T, uri string) {
		if !matchRedirect(c, uri) {
			return
		}
		u, err := url.Parse(uri)
		if err != nil {
			return // refused by the caller
		}
		if host := u.Hostname(); u.User != nil || u.Path != "/cb" || u.RawQuery != "" || (host != "portal.example" && host != "127.0.0.1") {
			t.Fatalf("%q leads to %q", uri, host)
		}
	})
}

func FuzzRead(f *testing.F) {
	c := storage.Client{ID: "c", GrantTypes: storage.Words{"authorization_code"}, Scopes: Scopes}
	f.Add("response_type=code&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256&scope=openid&max_age=0")
	f.Add("prompt=none login")
	f.Add("response_type=code&scope=openid&nonce=n")
	f.Add("response_type=code&scope=openid&code_challenge_method=S256")
	f.Add("response_type=code&scope=profile&nonce=n")
	f.Fuzz(func(t *testing.T, query string) {
		p, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		p.Del("id_token_hint") // needs keys; see FuzzVerify of provider/keys
		for _, policy := range append(PKCEs, "") {
			for _, method := range []string{"none", "client_secret_basic"} {
				c.AuthMethods = storage.Words{method}
				q, err := (&OAuth{issuer: "https://issuer.example", pkce: policy}).parse(c, p)
				if e := protocol(err); err != nil && (e.Status < 400 || e.Status >= 500) {
					t.Fatalf("%q is answered %d", query, e.Status)
				}
				if err != nil {
					continue
				}
				proven := challengeForm.MatchString(q.challenge)
				tied := proven || (q.challenge == "" && method != "none" &&
					(policy == PKCEPublic || (policy == PKCENonce && q.nonce != "" && q.scopes.Has("openid"))))
				if !tied || !Scopes.Has(q.scopes...) || q.maxAge < -1 {
					t.Fatalf("%s accepted %q of a client with %s", policy, query, method)
				}
			}
		}
	})
}
