// Package oauth is the protocol: OAuth 2.0 and OpenID Connect through fosite.
//
// An authorization request is parsed once and saved, bound to the browser
// (authorize.go). A pure function, next, names the first thing still missing,
// and the dispatcher redirects there: sign-in, second factor, consent. Each
// page proves its fact and returns to the dispatcher, until nothing is missing
// and fosite issues a code. There is no stored step: every fact carries its
// time, and a fact counts when it is newer than the request needs.
//
// fosite is composed by hand: code, refresh, client credentials and OpenID
// Connect, and our own device grant (device.go), over one store (store.go) that
// keeps digests only and spends codes and refresh tokens by conditional update.
// What fosite v0.49.0 gets wrong is mended in front of it or behind it, never
// inside.
package oauth

import (
	"context"
	"net/url"
	"slices"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/handler/openid"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/outbound"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// How long things live where the client has not registered otherwise.
const (
	codeLife    = time.Minute // for every client
	accessLife  = 10 * time.Minute
	idTokenLife = 10 * time.Minute
	// A refresh token that is not used for refreshIdle ends, and no rotation
	// outlives grantLife.
	refreshIdle = 14 * 24 * time.Hour
	grantLife   = 90 * 24 * time.Hour
)

// Config is what the protocol needs.
type Config struct {
	DB   *storage.DB
	Keys *keys.Keys
	Site *web.Site
	// PKCE says of which clients PKCE is demanded.
	PKCE PKCE
	// Registration says who may register clients.
	Registration Registration
	// Outbound reaches the servers of clients.
	Outbound *outbound.Client
}

// Registration is the policy of dynamic client registration (RFC 7591, Section 3).
type Registration struct {
	Open bool
	// Token is the initial access token; "" where none opens it.
	Token string
}

// OAuth answers the protocol's endpoints. It is safe for concurrent use.
type OAuth struct {
	db           *storage.DB
	keys         *keys.Keys
	site         *web.Site
	issuer       string
	pkce         PKCE
	registration Registration
	outbound     *outbound.Client
	clientKeys   *keySets
	devices      *web.Pace // of POST /oauth2/device
	begins       *web.Pace // of authorization requests that are too long for an address
	fosite       *fosite.Fosite
}

// New composes the provider.
func New(c Config) *OAuth {
	o := &OAuth{
		db: c.DB, keys: c.Keys, site: c.Site, issuer: c.Site.Issuer,
		pkce: c.PKCE, registration: c.Registration, outbound: c.Outbound,
		clientKeys: newKeySets(c.Outbound.Get),
		devices:    web.NewPace(devicesOfNetwork, devicesOfAll),
		begins:     web.NewPace(beginsOfNetwork, beginsOfAll),
	}
	o.fosite = o.compose()
	return o
}

// compose lists what fosite does here. The order matters: the proof needs the
// code, and OpenID Connect the access token. Implicit, hybrid and password grants are
// not composed (RFC 9700, Sections 2.1.2 and 2.4).
func (o *OAuth) compose() *fosite.Fosite {
	// One value for every storage interface: fosite looks for transactions by a
	// type assertion on it.
	store := &store{db: o.db}
	config := &fosite.Config{
		AuthorizeCodeLifespan: codeLife, AccessTokenLifespan: accessLife,
		RefreshTokenLifespan: refreshIdle, IDTokenLifespan: idTokenLife,
		IDTokenIssuer: o.issuer,
		// fosite asks for a state of some length; ours is optional and the
		// client's affair (RFC 6749, Section 4.1.1), so one is put in where the
		// request has none, and taken out of the answer.
		MinParameterEntropy:    1,
		OmitRedirectScopeParam: true,
		// Refresh tokens without offline_access end with the session.
		RefreshTokenScopes:           []string{},
		ScopeStrategy:                fosite.ExactScopeStrategy,
		AudienceMatchingStrategy:     o.matchAudience,
		RedirectSecureChecker:        func(_ context.Context, u *url.URL) bool { return secureRedirect(u) },
		ClientAuthenticationStrategy: o.authenticateFosite,
		// Set so that nothing is made lazily: fosite's getters write without locks.
		ClientSecretsHasher: noHasher{},
		JWKSFetcherStrategy: noFetcher{},
		AllowedPromptValues: []string{"none"},
		GlobalSecret:        o.db.Derive("fosite"), // not used by our token strategy
	}
	strategy := tokens{o}
	id := &openid.IDTokenHandleHelper{IDTokenStrategy: idTokens{o}}
	code := &oauth2.AuthorizeExplicitGrantHandler{
		AccessTokenStrategy: strategy, RefreshTokenStrategy: strategy, AuthorizeCodeStrategy: strategy,
		CoreStorage: store, TokenRevocationStorage: store, Config: config,
	}
	oidc := &openid.OpenIDConnectExplicitHandler{
		OpenIDConnectRequestStorage:   store,
		OpenIDConnectRequestValidator: openid.NewOpenIDConnectRequestValidator(nil, config),
		Config:                        config, IDTokenHandleHelper: id,
	}
	config.AuthorizeEndpointHandlers.Append(code)
	config.AuthorizeEndpointHandlers.Append(oidc)
	config.TokenEndpointHandlers.Append(code)
	config.TokenEndpointHandlers.Append(&proofHandler{o.db})
	config.TokenEndpointHandlers.Append(&refreshHandler{RefreshTokenGrantHandler: &oauth2.RefreshTokenGrantHandler{
		AccessTokenStrategy: strategy, RefreshTokenStrategy: strategy, TokenRevocationStorage: store, Config: config,
	}})
	config.TokenEndpointHandlers.Append(&oauth2.ClientCredentialsGrantHandler{
		HandleHelper: &oauth2.HandleHelper{AccessTokenStrategy: strategy, AccessTokenStorage: store, Config: config},
		Config:       config,
	})
	config.TokenEndpointHandlers.Append(&deviceHandler{
		o: o, store: store,
		access: &oauth2.HandleHelper{AccessTokenStrategy: strategy, AccessTokenStorage: store, Config: config},
	})
	config.TokenEndpointHandlers.Append(oidc)
	config.TokenEndpointHandlers.Append(&openid.OpenIDConnectRefreshHandler{IDTokenHandleHelper: id, Config: config})
	return fosite.NewOAuth2Provider(store, config)
}

// matchAudience compares audiences as strings (RFC 8707, Section 2). The issuer
// stands for its own resource servers and is open to every client.
func (o *OAuth) matchAudience(registered, asked []string) error {
	for _, a := range asked {
		if a != o.issuer && !slices.Contains(registered, a) {
			return errTarget
		}
	}
	return nil
}
