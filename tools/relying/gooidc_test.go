package relying

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// goOIDC discovers the provider with github.com/coreos/go-oidc. The context makes
// it and golang.org/x/oauth2 trust the house's certificate.
func goOIDC(t *testing.T, h *house) (context.Context, *oidc.Provider) {
	t.Helper()
	ctx := oidc.ClientContext(context.Background(), h.client)
	op, err := oidc.NewProvider(ctx, h.Issuer)
	require.NoError(t, err)
	return ctx, op
}

// signIn runs the code flow with every check that OpenID Connect Core, Section
// 3.1.3, and RFC 9207 leave to the client.
func signIn(t *testing.T, ctx context.Context, op *oidc.Provider, c oauth2.Config, b *browser, more ...oauth2.AuthCodeOption) (*oauth2.Token, *oidc.IDToken) {
	t.Helper()
	verifier, state, nonce := oauth2.GenerateVerifier(), oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	at := b.goes(c.AuthCodeURL(state, append(more, oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier))...))
	answer := at.Query()
	at.RawQuery = ""
	require.Equal(t, c.RedirectURL, at.String())
	require.Equal(t, state, answer.Get("state"))
	require.Equal(t, b.issuer, answer.Get("iss"))
	require.Len(t, answer, 3, "code, state, iss")
	token, err := c.Exchange(ctx, answer.Get("code"), oauth2.VerifierOption(verifier))
	require.NoError(t, err)
	id := verified(t, ctx, op, c, token)
	require.Equal(t, nonce, id.Nonce)
	require.Equal(t, b.patient, id.Subject)
	return token, id
}

func verified(t *testing.T, ctx context.Context, op *oidc.Provider, c oauth2.Config, token *oauth2.Token) *oidc.IDToken {
	t.Helper()
	raw, ok := token.Extra("id_token").(string)
	require.True(t, ok, "no ID token")
	id, err := op.VerifierContext(ctx, &oidc.Config{ClientID: c.ClientID}).Verify(ctx, raw)
	require.NoError(t, err)
	require.NoError(t, id.VerifyAccessToken(token.AccessToken))
	return id
}

// Each kind of client signs a patient in, asks who it is, and stays signed in.
func TestGoOIDC(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx, op := goOIDC(t, h)
	b := h.patient(t, "grace@example.org")
	for i, kind := range []struct {
		name       string
		style      oauth2.AuthStyle
		registered string // redirect URI
		used       string
		flags      []string
	}{
		{"client_secret_basic", oauth2.AuthStyleInHeader, "https://portal.example/callback", "https://portal.example/callback", nil},
		{"client_secret_post", oauth2.AuthStyleInParams, "https://portal.example/callback", "https://portal.example/callback", []string{"--auth-method", "client_secret_post"}},
		// Tries the header first, and its code must outlive the refusal.
		{"client_secret_post found by trying", oauth2.AuthStyleAutoDetect, "https://portal.example/callback", "https://portal.example/callback", []string{"--auth-method", "client_secret_post"}},
		{"public page", oauth2.AuthStyleInParams, "https://app.example/", "https://app.example/", []string{"--public"}},
		{"public found by trying", oauth2.AuthStyleAutoDetect, "https://app.example/", "https://app.example/", []string{"--public"}},
		// RFC 8252, Section 7.3: the port is the app's choice at each start.
		{"app on loopback", oauth2.AuthStyleInParams, "http://127.0.0.1/callback", "http://127.0.0.1:49152/callback", []string{"--public"}},
		{"app on IPv6 loopback", oauth2.AuthStyleInParams, "http://[::1]/callback", "http://[::1]:49152/callback", []string{"--public"}},
		// RFC 8252, Section 7.1.
		{"app with a scheme", oauth2.AuthStyleInParams, "com.example.app:/callback", "com.example.app:/callback", []string{"--public"}},
	} {
		t.Run(kind.name, func(t *testing.T) {
			made := h.register(t, append([]string{"--redirect-uri", kind.registered, "--scope", "openid,profile,email,offline_access"}, kind.flags...)...)
			c := oauth2.Config{
				ClientID: made.ID, ClientSecret: made.Secret, Endpoint: op.Endpoint(), RedirectURL: kind.used,
				Scopes: []string{"openid", "profile", "email", "offline_access"},
			}
			c.Endpoint.AuthStyle = kind.style
			token, id := signIn(t, ctx, op, c, b)
			require.Equal(t, i+1, b.consented, "once for each client")

			info, err := op.UserInfo(ctx, oauth2.StaticTokenSource(token))
			require.NoError(t, err)
			require.Equal(t, id.Subject, info.Subject, "OpenID Connect Core, Section 5.3.2")
			require.Equal(t, b.email, info.Email)
			require.True(t, info.EmailVerified)

			fresh, err := c.TokenSource(ctx, &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
			require.NoError(t, err)
			require.NotEqual(t, token.RefreshToken, fresh.RefreshToken)
			again := verified(t, ctx, op, c, fresh)
			// OpenID Connect Core, Section 12.2.
			require.Equal(t, id.Issuer, again.Issuer)
			require.Equal(t, id.Subject, again.Subject)
			require.Equal(t, id.Audience, again.Audience)
		})
	}
}

// ID tokens verify whatever algorithm the client registered.
func TestGoOIDCEveryAlgorithm(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx, op := goOIDC(t, h)
	var says struct {
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	require.NoError(t, op.Claims(&says))
	require.Contains(t, says.Algorithms, "RS256", "OpenID Connect Discovery, Section 3")
	b := h.patient(t, "grace@example.org")
	for _, alg := range says.Algorithms {
		made := h.register(t, "--redirect-uri", "https://portal.example/callback", "--scope", "openid", "--id-token-alg", alg)
		c := oauth2.Config{ClientID: made.ID, ClientSecret: made.Secret, Endpoint: op.Endpoint(),
			RedirectURL: "https://portal.example/callback", Scopes: []string{"openid"}}
		token, _ := signIn(t, ctx, op, c, b)
		raw := token.Extra("id_token").(string)
		_, err := op.VerifierContext(ctx, &oidc.Config{ClientID: c.ClientID, SupportedSigningAlgs: []string{alg}}).Verify(ctx, raw)
		require.NoError(t, err, "signed with the algorithm that was registered, and no other")
	}
}

// What a portal does about a session that is not strong or not fresh enough
// (RFC 9470, Section 4), and which record is the patient's.
func TestGoOIDCStepUp(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx, op := goOIDC(t, h)
	made := h.register(t, "--redirect-uri", "https://portal.example/callback", "--scope", everything)
	c := oauth2.Config{ClientID: made.ID, ClientSecret: made.Secret, Endpoint: op.Endpoint(),
		RedirectURL: "https://portal.example/callback", Scopes: []string{"openid"}}
	b := h.patient(t, "grace@example.org")
	var claims struct {
		ACR string   `json:"acr"`
		AMR []string `json:"amr"`
		Lab *struct{ Authority, Record string }
	}
	_, id := signIn(t, ctx, op, c, b)
	require.NoError(t, id.Claims(&claims))
	require.Equal(t, "urn:patauth:acr:one-factor", claims.ACR)

	quiet := b.goes(c.AuthCodeURL("s", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()),
		oauth2.SetAuthURLParam("prompt", "none"), oauth2.SetAuthURLParam("acr_values", "urn:patauth:acr:two-factor"))).Query()
	require.Equal(t, "interaction_required", quiet.Get("error"))
	require.Equal(t, "s", quiet.Get("state"))
	require.Equal(t, h.Issuer, quiet.Get("iss"), "errors name their issuer as well (RFC 9207, Section 2)")

	_, id = signIn(t, ctx, op, c, b, oauth2.SetAuthURLParam("acr_values", "urn:patauth:acr:two-factor"))
	require.NoError(t, id.Claims(&claims))
	require.Equal(t, "urn:patauth:acr:two-factor", claims.ACR)
	require.Equal(t, []string{"pwd", "otp", "mfa"}, claims.AMR)

	// The scope lab needs the two factors by itself; the record is in the ID
	// token as soon as it is linked.
	c.Scopes = []string{"openid", "lab"}
	_, id = signIn(t, ctx, op, c, b)
	require.NoError(t, id.Claims(&claims))
	require.Nil(t, claims.Lab)
	lab := h.ActivationCodes[0]
	b.visit(h.Issuer + "/account/labs")
	b.submit("/account/labs", "activation-code", lab.Code, "bday", lab.BirthDate)
	_, id = signIn(t, ctx, op, c, b)
	require.NoError(t, id.Claims(&claims))
	require.Equal(t, lab.Authority, claims.Lab.Authority)
	require.Equal(t, lab.Record, claims.Lab.Record)
}

// A code that is not the client's, and one that comes twice.
func TestGoOIDCRefusals(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx, op := goOIDC(t, h)
	config := func() oauth2.Config {
		made := h.register(t, "--redirect-uri", "https://portal.example/callback", "--scope", everything)
		c := oauth2.Config{ClientID: made.ID, ClientSecret: made.Secret, Endpoint: op.Endpoint(),
			RedirectURL: "https://portal.example/callback", Scopes: []string{"openid", "offline_access"}}
		c.Endpoint.AuthStyle = oauth2.AuthStyleInHeader
		return c
	}
	mine, other := config(), config()
	b := h.patient(t, "grace@example.org")
	refused := func(err error, status int, code string) {
		t.Helper()
		var e *oauth2.RetrieveError
		require.ErrorAs(t, err, &e)
		require.Equal(t, code, e.ErrorCode)
		require.Equal(t, status, e.Response.StatusCode)
	}
	fresh := func() (code, verifier string) {
		verifier = oauth2.GenerateVerifier()
		return b.goes(mine.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier))).Query().Get("code"), verifier
	}

	code, verifier := fresh()
	_, err := other.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	refused(err, http.StatusBadRequest, "invalid_grant")

	code, _ = fresh()
	_, err = mine.Exchange(ctx, code, oauth2.VerifierOption(oauth2.GenerateVerifier()))
	refused(err, http.StatusBadRequest, "invalid_grant")

	code, verifier = fresh()
	token, err := mine.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	require.NoError(t, err)
	_, err = mine.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	refused(err, http.StatusBadRequest, "invalid_grant")
	_, err = op.UserInfo(ctx, oauth2.StaticTokenSource(token))
	require.ErrorContains(t, err, "401", "RFC 6749, Section 4.1.2: tokens of a code that was used twice are revoked")

	wrong := mine
	wrong.ClientSecret = "wrong"
	code, verifier = fresh()
	_, err = wrong.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	refused(err, http.StatusUnauthorized, "invalid_client")
}

// A portal is told by its server that the patient has signed out elsewhere
// (OpenID Connect Back-Channel Logout 1.0, Section 2.6).
func TestGoOIDCIsToldOfASignOut(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx, op := goOIDC(t, h)
	told := make(chan string, 4)
	cert, err := tls.LoadX509KeyPair(h.cert, h.key)
	require.NoError(t, err)
	listener := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		told <- r.PostFormValue("logout_token")
	}))
	listener.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	listener.StartTLS()
	t.Cleanup(listener.Close)
	made := h.register(t, "--redirect-uri", listener.URL+"/callback", "--scope", "openid",
		"--backchannel-logout-uri", listener.URL+"/told", "--backchannel-logout-session-required")
	c := oauth2.Config{ClientID: made.ID, ClientSecret: made.Secret, Endpoint: op.Endpoint(),
		RedirectURL: listener.URL + "/callback", Scopes: []string{"openid"}}
	b := h.patient(t, "grace@example.org")
	token, id := signIn(t, ctx, op, c, b)
	var claims struct {
		SID string `json:"sid"`
	}
	require.NoError(t, id.Claims(&claims))

	b.visit(h.Issuer + "/account")
	b.submit("/logout")
	select {
	case raw := <-told:
		logout, err := op.VerifierContext(ctx, &oidc.Config{ClientID: made.ID}).VerifyLogout(ctx, raw)
		require.NoError(t, err)
		require.Equal(t, id.Subject, logout.Subject)
		require.Equal(t, claims.SID, logout.SessionID)
	case <-time.After(20 * time.Second):
		t.Fatal("nobody told the portal")
	}
	_, err = op.UserInfo(ctx, oauth2.StaticTokenSource(token))
	require.ErrorContains(t, err, "401")
}
