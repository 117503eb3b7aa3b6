package oauth

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// bare takes the proof and the nonce out of an authorization request.
func bare(more url.Values) url.Values {
	p := url.Values{"code_challenge": {""}, "code_challenge_method": {""}, "nonce": {""}}
	for k, v := range more {
		p[k] = v
	}
	return p
}

// asking sends an authorization request of c from a browser that is signed in.
func (h *house) asking(t *testing.T, c storage.Client, change url.Values) url.Values {
	t.Helper()
	b := h.browser(t)
	b.signIn("pwd")
	return answer(t, b.get("/oauth2/auth?"+askFor(c, oauth2.GenerateVerifier(), change)))
}

// RFC 9700, Section 2.1.1.
func TestOfWhomPKCEIsDemanded(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	held := h.portal
	held.ID, held.Metadata.RequirePKCE = "", true
	require.NoError(t, h.db.CreateClient(t.Context(), &held))
	keyed := h.portal
	keyed.ID, keyed.AuthMethods = "", storage.Words{"private_key_jwt"}
	require.NoError(t, h.db.CreateClient(t.Context(), &keyed))

	registered := h.portal // by itself
	registered.ID, registered.Registration = "", storage.Digest("pa_rg_x")
	require.NoError(t, h.db.CreateClient(t.Context(), &registered))

	nothing, nonce := bare(nil), bare(url.Values{"nonce": {"n"}})
	for _, row := range []struct {
		what   string
		client storage.Client
		change url.Values
		passes string // the policies under which it does
	}{
		{"PKCE", h.portal, url.Values{"nonce": {""}}, "always nonce public other"},
		{"PKCE of an app", h.public, url.Values{"nonce": {""}}, "always nonce public other"},
		{"nothing", h.portal, nothing, "public"},
		{"nothing, of a client with a key", keyed, nothing, "public"},
		{"a nonce", h.portal, nonce, "nonce public"},
		{"a nonce, of a client with a key", keyed, nonce, "nonce public"},
		{"nothing, of a client that registered itself", registered, nothing, "public"},
		{"a nonce, of a client that registered itself", registered, nonce, "nonce public"},
		{"a nonce that no ID token brings back", h.portal, bare(url.Values{"nonce": {"n"}, "scope": {"profile"}}), "public"},
		{"a nonce, of an app", h.public, nonce, ""},
		{"nothing, of an app", h.public, nothing, ""},
		{"a nonce, of a client that is held to more", held, nonce, ""},
		{"a method without challenge", h.portal, bare(url.Values{"nonce": {"n"}, "code_challenge_method": {"S256"}}), ""},
		{"a plain challenge", h.portal, url.Values{"code_challenge_method": {"plain"}}, ""},
		{"a challenge without method", h.portal, url.Values{"code_challenge_method": {""}}, ""},
		{"a short challenge", h.portal, url.Values{"code_challenge": {"short"}}, ""},
	} {
		for _, policy := range []PKCE{"always", "nonce", "public", "other"} {
			h.pkce = policy
			got := h.asking(t, row.client, row.change)
			if storage.Words(strings.Fields(row.passes)).Has(string(policy)) {
				require.NotEmpty(t, got.Get("code"), "%s under %s: %v", row.what, policy, got)
			} else {
				require.Equal(t, "invalid_request", got.Get("error"), "%s under %s", row.what, policy)
			}
		}
	}
}

// RFC 9700, Sections 2.1.1 and 4.8.2: whatever is demanded, who sent a challenge
// owes the verifier, who sent none may send no verifier, and a failure burns the
// code.
func TestPKCECannotBeTakenAway(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	code := func(change url.Values) string { return h.asking(t, h.portal, change).Get("code") }
	with := func(code, verifier string) (int, any) {
		form := redeem(code, verifier)
		if verifier == "" {
			form.Del("code_verifier")
		}
		status, body := h.post("/oauth2/token", h.portal, h.secret, form)
		return status, body["error"]
	}
	for _, policy := range PKCEs {
		h.pkce = policy
		c := code(nil)
		status, e := with(c, "")
		require.Equal(t, []any{400, "invalid_grant"}, []any{status, e}, "challenge without verifier")
		_, err := h.db.Code(t.Context(), storage.Digest(c))
		require.ErrorIs(t, err, storage.ErrSpent, "it is burnt")
	}
	for _, policy := range []PKCE{PKCENonce, PKCEPublic} {
		h.pkce = policy
		c := code(bare(url.Values{"nonce": {"n"}}))
		status, e := with(c, oauth2.GenerateVerifier())
		require.Equal(t, []any{400, "invalid_grant"}, []any{status, e}, "verifier without challenge")
		status, e = with(c, "")
		require.Equal(t, []any{400, "invalid_grant"}, []any{status, e}, "it is burnt")
	}

	// The nonce comes back, and only if it was sent.
	for nonce, change := range map[string]url.Values{"n": bare(url.Values{"nonce": {"n"}}), "": bare(nil)} {
		form := redeem(code(change), "")
		form.Del("code_verifier")
		status, body := h.post("/oauth2/token", h.portal, h.secret, form)
		require.Equal(t, 200, status, body)
		claims := claimsOf(t, body["id_token"])
		if nonce == "" {
			require.NotContains(t, claims, "nonce")
		} else {
			require.Equal(t, nonce, claims["nonce"])
		}
	}

	// A client that was made public, or is held to PKCE, between request and token.
	for _, change := range []func(*storage.Client){
		func(c *storage.Client) { c.Metadata.RequirePKCE = true },
		func(c *storage.Client) { c.AuthMethods = storage.Words{"none"} },
	} {
		was, c := h.portal, code(bare(nil))
		h.change(t, &h.portal, change)
		form := redeem(c, "")
		form.Del("code_verifier")
		secret := h.secret
		if h.portal.Public() {
			secret = ""
		}
		status, body := h.post("/oauth2/token", h.portal, secret, form)
		require.Equal(t, []any{400, "invalid_grant"}, []any{status, body["error"]})
		h.change(t, &h.portal, func(c *storage.Client) { *c = was })
	}
}
