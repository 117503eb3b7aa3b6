package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
)

const keySet = `{"keys": [{"kty": "EC", "crv": "P-256", "kid": "1",
	"x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}` // RFC 7515, Appendix A.3

func TestWhatTheOperatorMayNotRegister(t *testing.T) {
	env := sqliteEnv(t)
	must[any](t, env, "migrate")
	private := file(t, "private.json", strings.Replace(keySet, `"kid"`, `"d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI", "kid"`, 1))
	good := []string{"--name", "x", "--redirect-uri", "https://a.example/cb"}
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--name", ""}, "--name: is required"},
		{[]string{"--redirect-uri", "http://portal.example.org/cb"}, "--redirect-uri: each must be https"},
		{[]string{"--redirect-uri", "https://a.example/#x"}, "--redirect-uri: each must be https"},
		{[]string{"--application-type", "web", "--redirect-uri", "http://127.0.0.1/cb"}, "--redirect-uri: a web client's"},
		{[]string{"--application-type", "native"}, "--redirect-uri: a native client's"},
		{[]string{"--grant", "password"}, "--grant: each must be one of"},
		{[]string{"--public", "--grant", "client_credentials"}, "--grant: client_credentials needs"},
		{[]string{"--public", "--auth-method", "client_secret_post"}, "--public: goes with --auth-method none"},
		{[]string{"--auth-method", "none,client_secret_basic"}, "--auth-method: none stands alone"},
		{[]string{"--auth-method", "private_key_jwt"}, "--jwks: private_key_jwt needs jwks or jwks_uri"},
		{[]string{"--auth-method", "private_key_jwt", "--jwks", "no/such/file"}, "--jwks: open"},
		{[]string{"--auth-method", "private_key_jwt", "--jwks", private}, "--jwks: the set holds a private key"},
		{[]string{"--jwks-uri", "http://a.example/keys"}, "--jwks-uri: must be https"},
		{[]string{"--id-token-alg", "none"}, "--id-token-alg: must be one of"},
		{[]string{"--id-token-alg", ""}, "--id-token-alg: is required"},
		{[]string{"--access-token-alg", "HS256"}, "--access-token-alg: must be one of"},
		{[]string{"--scope", `a\b`}, "--scope: each must be a scope"},
		{[]string{"--audience", "results"}, "--audience: each must be an absolute URI"},
		{[]string{"--origin", "https://a.example/"}, "--origin: each must be https://HOST"},
		{[]string{"--origin", "http://a.example"}, "--origin: each must be https://HOST"},
		{[]string{"--public", "--can-introspect"}, "--can-introspect: needs a client that authenticates"},
		{[]string{"--require-acr", "strong"}, "--require-acr: must be one of"},
		{[]string{"--access-token-life", "30s"}, "--access-token-life: must be between 1m0s and 24h0m0s"},
		{[]string{"--access-token-life", "25h"}, "--access-token-life: must be between"},
		{[]string{"--id-token-life", "-1h"}, "--id-token-life: must be between"},
		{[]string{"--refresh-idle", "9000h"}, "--refresh-idle: must be between"},
		{[]string{"--grant-life", "1s"}, "--grant-life: must be between"},
		{[]string{"--grant-life", "1500ms"}, "--grant-life: must be whole seconds"},
		{[]string{"--default-max-age", "-5s"}, "--default-max-age: must be a number"},
		{[]string{"--subject-type", "pairwise", "--redirect-uri", "com.example.app:/cb"}, "--subject-type: pairwise needs a sector_identifier_uri"},
		{[]string{"--sector-identifier-uri", "https://127.0.0.1:1/x"}, "--sector-identifier-uri: must lead to a JSON array"},
		{[]string{"--frontchannel-logout-uri", "https://b.example/out"}, "--frontchannel-logout-uri: must have scheme, host and port"},
	} {
		_, err := patauth(t, env, append(append([]string{"client", "create"}, good...), row.args...)...)
		require.ErrorContains(t, err, row.want, row.args)
	}
	_, err := patauth(t, env, "client", "create", "--name", "x")
	require.ErrorContains(t, err, "--redirect-uri: authorization_code needs one")
	_, err = patauth(t, env, "client", "create", "--redirect-uri", "http://a.example/", "--grant", "implicit")
	for _, each := range []string{"--name: ", "--redirect-uri: ", "--grant: "} {
		require.ErrorContains(t, err, each, "all at once")
	}
	require.Empty(t, must[[]clientView](t, env, "client", "list"))
}

func TestEverythingAboutAClient(t *testing.T) {
	env := append(sqliteEnv(t), "PATAUTH_OUTBOUND_NETWORKS=127.0.0.0/8")
	must[any](t, env, "migrate")
	sector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`["https://a.example/cb", "https://b.example/cb"]`))
	}))
	defer sector.Close()
	made := must[clientView](t, env, "client", "create", "--name", "Portal", "--redirect-uri", "https://a.example/cb", "--redirect-uri", "https://b.example/cb",
		"--application-type", "web", "--auth-method", "private_key_jwt", "--jwks", file(t, "keys.json", keySet), "--token-auth-alg", "ES256",
		"--subject-type", "pairwise", "--sector-identifier-uri", sector.URL, "--access-token-alg", "RS256", "--userinfo-alg", "ES256",
		"--introspection-alg", "ES256", "--id-token-alg", "RS256", "--require-acr", "phr", "--default-acr", "urn:patauth:acr:two-factor", "--default-max-age", "1h",
		"--origin", "https://page.example", "--backchannel-logout-uri", "https://a.example/back", "--backchannel-logout-session-required",
		"--frontchannel-logout-uri", "https://b.example/front", "--frontchannel-logout-session-required", "--access-token-life", "5m",
		"--id-token-life", "2m", "--refresh-idle", "24h", "--grant-life", "240h", "--require-pkce", "--logo-uri", "https://a.example/logo",
		"--policy-uri", "https://a.example/policy", "--tos-uri", "https://a.example/tos", "--client-uri", "https://a.example/", "--contact", "ops@a.example",
		"--initiate-login-uri", "https://a.example/login", "--audience", "https://api.example", "--audience", "urn:api:read", "--first-party")
	require.Empty(t, made.Secret, "the client has a key")
	age := 3600
	var keys json.RawMessage
	require.NoError(t, json.Unmarshal(made.Metadata.JWKS, &keys))
	require.Equal(t, storage.ClientMetadata{
		ApplicationType: "web", JWKS: keys, TokenEndpointAuthSigningAlg: "ES256", SubjectType: "pairwise", SectorIdentifierURI: sector.URL,
		Sector: "127.0.0.1", UserinfoSignedResponseAlg: "ES256", IntrospectionSignedResponseAlg: "ES256", DefaultMaxAge: &age,
		DefaultACRValues: storage.Strings{"urn:patauth:acr:two-factor"}, InitiateLoginURI: "https://a.example/login", ClientURI: "https://a.example/",
		LogoURI: "https://a.example/logo", PolicyURI: "https://a.example/policy", TOSURI: "https://a.example/tos", Contacts: storage.Strings{"ops@a.example"},
		BackchannelLogoutURI: "https://a.example/back", BackchannelLogoutSessionRequired: true, FrontchannelLogoutURI: "https://b.example/front",
		FrontchannelLogoutSessionRequired: true, AccessTokenSignedResponseAlg: "RS256", RequireACR: "phr", RequirePKCE: true,
		Lifetimes: storage.Lifetimes{AccessToken: 300, IDToken: 120, RefreshIdle: 86400, Grant: 864000},
	}, made.Metadata)
	require.Equal(t, []string{"https://page.example"}, made.Origins)
	require.True(t, made.FirstParty)
	require.Equal(t, made, must[clientView](t, env, "client", "show", made.ID))
	out, err := patauth(t, env, "client", "show", made.ID)
	require.NoError(t, err)
	for _, word := range []string{made.ID, "private_key_jwt", "https://page.example", `"sector":"127.0.0.1"`, `"grant":864000`} {
		require.Contains(t, out, word)
	}

	// Only what is given changes.
	changed := must[clientView](t, env, "client", "update", made.ID, "--name", "Renamed", "--require-pkce=false", "--policy-uri", "", "--default-max-age", "-1s", "--origin", "")
	want := made
	want.Name, want.Metadata.RequirePKCE, want.Metadata.PolicyURI, want.Metadata.DefaultMaxAge, want.Origins = "Renamed", false, "", nil, []string{}
	require.Equal(t, want, changed)
	// Another method needs a secret; what it needs no more goes by itself.
	changed = must[clientView](t, env, "client", "update", made.ID, "--auth-method", "client_secret_basic,client_secret_post", "--jwks", "")
	require.NotEmpty(t, changed.Secret)
	require.Empty(t, changed.Metadata.JWKS)
	require.Len(t, changed.SecretsMadeAt, 1)
	require.Empty(t, must[clientView](t, env, "client", "update", made.ID, "--name", "Again").Secret)
	// A change is checked as a whole, and asks the sector again.
	_, err = patauth(t, env, "client", "update", made.ID, "--redirect-uri", "https://c.example/cb")
	require.ErrorContains(t, err, "--frontchannel-logout-uri: ")
	_, err = patauth(t, env, "client", "update", made.ID, "--redirect-uri", "https://b.example/cb", "--redirect-uri", "https://c.example/cb")
	require.ErrorContains(t, err, "--sector-identifier-uri: ")
	_, err = patauth(t, env, "client", "update", made.ID, "--jwks", "no/such/file")
	require.ErrorContains(t, err, "--jwks: open")
	_, err = patauth(t, env, "client", "update", "nobody", "--name", "x")
	require.ErrorIs(t, err, storage.ErrNotFound)
	_, err = patauth(t, env, "client", "update", made.ID, "--typo", "x")
	require.Error(t, err)
	require.Equal(t, "Again", must[clientView](t, env, "client", "show", made.ID).Name)
}

func TestSecretsAreRotatedAndClientsDeleted(t *testing.T) {
	env := sqliteEnv(t)
	must[any](t, env, "migrate")
	made := must[clientView](t, env, "client", "create", "--name", "Portal", "--redirect-uri", "https://a.example/cb")
	app := must[clientView](t, env, "client", "create", "--name", "App", "--public", "--redirect-uri", "https://app.example/cb")
	require.Equal(t, []string{"https://app.example"}, app.Origins)
	moved := must[clientView](t, env, "client", "update", app.ID, "--redirect-uri", "https://moved.example/cb")
	require.Equal(t, []string{"https://moved.example"}, moved.Origins)

	second := must[clientView](t, env, "client", "rotate-secret", made.ID)
	third := must[clientView](t, env, "client", "rotate-secret", made.ID)
	require.Len(t, third.SecretsMadeAt, 2)
	require.NotContains(t, []string{made.Secret, second.Secret}, third.Secret)
	works := func(secret string) bool {
		config, err := loadConfig("", env)
		require.NoError(t, err)
		db, err := openDB(t.Context(), config)
		require.NoError(t, err)
		defer db.Close()
		c, err := db.Client(t.Context(), made.ID)
		require.NoError(t, err)
		return db.ClientSecretValid(&c, secret)
	}
	require.Equal(t, []bool{false, true, true}, []bool{works(made.Secret), works(second.Secret), works(third.Secret)})
	last := must[clientView](t, env, "client", "rotate-secret", made.ID, "--only")
	require.Equal(t, []bool{false, false, true}, []bool{works(second.Secret), works(third.Secret), works(last.Secret)})
	_, err := patauth(t, env, "client", "rotate-secret", app.ID)
	require.ErrorContains(t, err, "does not authenticate by a secret")

	require.Equal(t, made.ID, must[map[string]string](t, env, "client", "delete", made.ID)["deleted"])
	require.NotNil(t, must[clientView](t, env, "client", "show", made.ID).DisabledAt)
	out, err := patauth(t, env, "client", "list")
	require.NoError(t, err)
	require.Regexp(t, made.ID+`.*operator\s+deleted`, out)
	for _, args := range [][]string{{"delete", made.ID}, {"update", made.ID}, {"rotate-secret", made.ID}} {
		_, err := patauth(t, env, append([]string{"client"}, args...)...)
		require.ErrorIs(t, err, storage.ErrNotFound, args)
	}
}
