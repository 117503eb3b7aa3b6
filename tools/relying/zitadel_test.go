package relying

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/zitadel/oidc/v3/pkg/client/rp"
	"github.com/zitadel/oidc/v3/pkg/client/rs"
	cookies "github.com/zitadel/oidc/v3/pkg/http"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"golang.org/x/oauth2"
)

const (
	portal   = "https://portal.example/callback"
	resource = "https://results.example/api"
)

type (
	zitadelTokens = oidc.Tokens[*oidc.IDTokenClaims]
	zitadelInfo   = oidc.UserInfo
)

// zitadel makes a relying party of github.com/zitadel/oidc, which takes RS256 unless
// it is told to look at the metadata.
func zitadel(t *testing.T, h *house, c registered, style oauth2.AuthStyle, scopes ...string) rp.RelyingParty {
	t.Helper()
	party, err := rp.NewRelyingPartyOIDC(context.Background(), h.Issuer, c.ID, c.Secret, portal, scopes,
		rp.WithHTTPClient(h.client), rp.WithAuthStyle(style),
		rp.WithPKCEFromDiscovery(cookies.NewCookieHandler([]byte("a hash key of thirty-two bytes!!"), nil)))
	require.NoError(t, err)
	require.True(t, party.IsPKCE())
	return party
}

// zitadelSignIn sends b through the library's own handlers.
func zitadelSignIn(t *testing.T, party rp.RelyingParty, b *browser) (tokens *zitadelTokens, info *zitadelInfo) {
	t.Helper()
	begin := httptest.NewRecorder()
	rp.AuthURLHandler(func() string { return "a state" }, party)(begin, httptest.NewRequest("GET", "https://portal.example/login", nil))
	require.Equal(t, http.StatusFound, begin.Code, begin.Body)
	back := httptest.NewRequest("GET", b.goes(begin.Header().Get("Location")).String(), nil)
	for _, c := range begin.Result().Cookies() {
		back.AddCookie(c)
	}
	end := httptest.NewRecorder()
	rp.CodeExchangeHandler(rp.UserinfoCallback(
		func(_ http.ResponseWriter, _ *http.Request, got *zitadelTokens, _ string, _ rp.RelyingParty, i *zitadelInfo) {
			tokens, info = got, i
		}), party)(end, back)
	require.NotNil(t, tokens, "%d %s", end.Code, end.Body)
	return tokens, info
}

// A portal signs a patient in, stays signed in, lets go, and signs out.
func TestZitadel(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx := context.Background()
	b := h.patient(t, "grace@example.org")
	for _, kind := range []struct {
		name  string
		style oauth2.AuthStyle
		flags []string
	}{
		{"client_secret_basic", oauth2.AuthStyleInHeader, nil},
		{"client_secret_post", oauth2.AuthStyleInParams, []string{"--auth-method", "client_secret_post"}},
	} {
		t.Run(kind.name, func(t *testing.T) {
			made := h.register(t, append([]string{"--redirect-uri", portal, "--scope", everything,
				"--post-logout-redirect-uri", "https://portal.example/bye"}, kind.flags...)...)
			party := zitadel(t, h, made, kind.style, "openid", "profile", "email", "offline_access")
			tokens, info := zitadelSignIn(t, party, b)
			require.Equal(t, b.patient, tokens.IDTokenClaims.Subject)
			require.Equal(t, "Grace Example", info.Name)
			require.Equal(t, b.email, info.Email)
			require.True(t, bool(info.EmailVerified))

			fresh, err := rp.RefreshTokens[*oidc.IDTokenClaims](ctx, party, tokens.RefreshToken, "", "")
			require.NoError(t, err)
			require.NotEqual(t, tokens.RefreshToken, fresh.RefreshToken)
			require.Equal(t, tokens.IDTokenClaims.AuthTime, fresh.IDTokenClaims.AuthTime)
			// The answer may have been lost: for a minute the old token brings the
			// same successor.
			again, err := rp.RefreshTokens[*oidc.IDTokenClaims](ctx, party, tokens.RefreshToken, "", "")
			require.NoError(t, err)
			require.Equal(t, fresh.RefreshToken, again.RefreshToken)

			require.NoError(t, rp.RevokeToken(ctx, party, fresh.RefreshToken, "refresh_token"))
			_, err = rp.Userinfo[*zitadelInfo](ctx, fresh.AccessToken, "Bearer", b.patient, party)
			require.ErrorContains(t, err, "invalid_token")
			_, err = rp.RefreshTokens[*oidc.IDTokenClaims](ctx, party, fresh.RefreshToken, "", "")
			require.ErrorContains(t, err, "invalid_grant")

			// RP-Initiated Logout 1.0, Section 2: the browser goes, not the server;
			// rp.EndSession, which posts by itself, ends no session of a browser.
			at := b.goes(party.(interface{ GetEndSessionEndpoint() string }).GetEndSessionEndpoint() + "?" + url.Values{
				"id_token_hint": {fresh.IDToken}, "post_logout_redirect_uri": {"https://portal.example/bye"}, "state": {"s"},
			}.Encode())
			require.Equal(t, "https://portal.example/bye?state=s", at.String())
			b.visit(h.Issuer + "/account")
			require.Equal(t, "/login", b.at.Path)
		})
	}
}

// A service gets a token of its own, and the server of the resource asks about it.
func TestZitadelService(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx := context.Background()
	service := h.register(t, "--grant", "client_credentials", "--scope", "results.read", "--audience", resource)
	server := h.register(t, "--grant", "client_credentials", "--scope", "results.read", "--audience", resource, "--can-introspect")
	other := h.register(t, "--grant", "client_credentials", "--audience", "https://other.example", "--can-introspect")

	token, err := rp.ClientCredentials(ctx, zitadel(t, h, service, oauth2.AuthStyleInHeader, "results.read"), url.Values{"resource": {resource}})
	require.NoError(t, err)
	require.Equal(t, "Bearer", token.TokenType)
	require.Empty(t, token.RefreshToken)

	ask := func(as registered) oidc.IntrospectionResponse {
		asking, err := rs.NewResourceServerClientCredentials(ctx, h.Issuer, as.ID, as.Secret, rs.WithClient(h.client))
		require.NoError(t, err)
		answer, err := rs.Introspect[oidc.IntrospectionResponse](ctx, asking, token.AccessToken)
		require.NoError(t, err)
		return answer
	}
	answer := ask(server)
	require.True(t, answer.Active)
	require.Equal(t, service.ID, answer.ClientID)
	require.Equal(t, service.ID, answer.Subject)
	require.Equal(t, oidc.Audience{resource}, answer.Audience)
	require.Equal(t, oidc.SpaceDelimitedArray{"results.read"}, answer.Scope)
	// RFC 7662, Section 2.2: no more than this to those whom it does not concern.
	require.Equal(t, map[string]any{"active": false}, ask(other).Claims)
}

// A device shows a code, and asks until the patient has allowed it (RFC 8628).
func TestZitadelDevice(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx := context.Background()
	made := h.register(t, "--public", "--grant", "urn:ietf:params:oauth:grant-type:device_code,refresh_token", "--scope", "openid,profile")
	party := zitadel(t, h, made, oauth2.AuthStyleInParams, "openid", "profile")
	b := h.patient(t, "grace@example.org")
	device, err := rp.DeviceAuthorization(ctx, []string{"openid", "profile"}, party, nil)
	require.NoError(t, err)
	require.Equal(t, h.Issuer+"/device", device.VerificationURI)
	b.goes(device.VerificationURIComplete)
	require.Equal(t, 1, b.consented)
	tokens, err := rp.DeviceAccessToken(ctx, device.DeviceCode, time.Second, party)
	require.NoError(t, err)
	claims, err := rp.VerifyTokens[*oidc.IDTokenClaims](ctx, tokens.AccessToken, tokens.IDToken, party.IDTokenVerifier())
	require.NoError(t, err)
	require.Equal(t, b.patient, claims.Subject)
	info, err := rp.Userinfo[*zitadelInfo](ctx, tokens.AccessToken, tokens.TokenType, b.patient, party)
	require.NoError(t, err)
	require.Equal(t, "Grace Example", info.Name)
}
