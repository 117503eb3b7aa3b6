package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/outbound"
	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// Bounds of what a client may register.
const (
	maxName  = 100  // bytes
	maxURIs  = 20   // in each list
	maxURI   = 2048 // bytes
	maxWords = 50   // in each list of short words
	maxWord  = 254  // bytes
)

var (
	authMethods  = []string{"none", "client_secret_basic", "client_secret_post", "private_key_jwt"}
	subjectTypes = []string{"public", "pairwise"}
)

// SecretMethods are the ways to authenticate by a secret (RFC 6749, Section
// 2.3.1). A client that asks for none may use both: libraries differ in which they
// try first, and one request still carries one.
var SecretMethods = storage.Words{"client_secret_basic", "client_secret_post"}

// Fault is one thing that is wrong with a client to be registered.
type Fault struct {
	Parameter string // of the metadata (RFC 7591, Section 2)
	Why       string // a fixed phrase that repeats nothing of the value
}

// Error is the fault in words.
func (f Fault) Error() string { return f.Parameter + ": " + f.Why }

// Faults are everything that is wrong with a client to be registered.
type Faults []Fault

// Error is one line for each fault.
func (f Faults) Error() string {
	var lines []string
	for _, x := range f {
		lines = append(lines, x.Error())
	}
	return strings.Join(lines, "\n")
}

// about reports whether any of the faults is about parameter.
func (f Faults) about(parameter string) bool {
	return slices.ContainsFunc(f, func(x Fault) bool { return x.Parameter == parameter })
}

// CheckClient says everything that is wrong with a client to be registered, as
// Faults, and settles for which sector its pairwise subjects are made. The
// client's servers are reached through servers, so it is no call for a
// transaction.
func CheckClient(ctx context.Context, servers *outbound.Client, c *storage.Client) error {
	k := check{c: c, m: &c.Metadata, servers: servers}
	k.names()
	k.authentication()
	k.redirects()
	k.addresses()
	k.tokens()
	k.limits()
	if len(k.faults) == 0 {
		k.sector(ctx) // asks a server, so only for what is well otherwise
	}
	if len(k.faults) > 0 {
		return k.faults
	}
	return nil
}

// A check looks at one client.
type check struct {
	c       *storage.Client
	m       *storage.ClientMetadata
	servers *outbound.Client
	faults  Faults
}

// bad notes a fault, if it is one.
func (k *check) bad(is bool, parameter, format string, args ...any) {
	if is {
		k.faults = append(k.faults, Fault{parameter, fmt.Sprintf(format, args...)})
	}
}

// oneOf notes a value that is not in all; "" is none.
func (k *check) oneOf(parameter, value string, all []string) {
	k.bad(value != "" && !slices.Contains(all, value), parameter, "must be one of %s", strings.Join(all, ", "))
}

// few notes a list that is too long, or has a member that ok does not like.
func (k *check) few(parameter string, list []string, most int, why string, ok func(string) bool) {
	k.bad(len(list) > most, parameter, "at most %d", most)
	k.bad(slices.ContainsFunc(list, func(s string) bool { return !ok(s) }), parameter, "%s", why)
}

func (k *check) names() {
	k.bad(strings.TrimSpace(k.c.Name) == "" || len(k.c.Name) > maxName, "client_name", "is required, at most %d bytes", maxName)
	k.bad(!storage.Legible(k.c.Name), "client_name", "must have no invisible characters")
	k.few("contacts", k.m.Contacts, maxURIs, "each must be a line of text", func(s string) bool { return s != "" && len(s) <= maxWord && storage.Legible(s) })
}

func (k *check) authentication() {
	const method, grants = "token_endpoint_auth_method", "grant_types"
	c, m := k.c, k.m
	k.few(method, c.AuthMethods, len(authMethods), "must be one of "+strings.Join(authMethods, ", "), func(s string) bool { return slices.Contains(authMethods, s) })
	k.bad(len(c.AuthMethods) == 0, method, "is required")
	k.bad(c.Public() && len(c.AuthMethods) > 1, method, "none stands alone")
	k.bad(c.AuthMethods.Has("private_key_jwt") && len(c.AuthMethods) > 1, method, "private_key_jwt stands alone")
	alg := m.TokenEndpointAuthSigningAlg
	k.bad(alg != "" && !slices.Contains(assertionAlgs, jose.SignatureAlgorithm(alg)), "token_endpoint_auth_signing_alg", "must be one of %v", assertionAlgs)

	k.few(grants, c.GrantTypes, len(grantTypes), "each must be one of "+strings.Join(grantTypes, ", "), func(s string) bool { return slices.Contains(grantTypes, s) })
	k.bad(c.Public() && c.GrantTypes.Has("client_credentials"), grants, "client_credentials needs a client that authenticates")
	k.bad(c.Public() && c.CanIntrospect, "can_introspect", "needs a client that authenticates")

	// RFC 7591, Section 2: "The "jwks_uri" and "jwks" parameters MUST NOT both be
	// present in the same request or response."
	k.bad(len(m.JWKS) > 0 && m.JWKSURI != "", "jwks", "excludes jwks_uri")
	k.bad(c.AuthMethods.Has("private_key_jwt") && len(m.JWKS) == 0 && m.JWKSURI == "", "jwks", "private_key_jwt needs jwks or jwks_uri")
	if len(m.JWKS) > 0 {
		err := checkJWKS(m.JWKS)
		k.bad(err != nil, "jwks", "%v", err)
	}
}

// checkJWKS says what is wrong with the JWK Set of a client: it must hold a key
// that the client can be known by.
func checkJWKS(raw json.RawMessage) error {
	set, err := parseJWKS(raw)
	if err == nil && len(set.Keys) == 0 {
		err = errors.New("there is no key in it that we can use")
	}
	return err
}

func (k *check) redirects() {
	const redirects = "redirect_uris"
	c, m := k.c, k.m
	k.oneOf("application_type", m.ApplicationType, []string{"web", "native"})
	k.bad(c.GrantTypes.Has("authorization_code") && len(c.RedirectURIs) == 0, redirects, "authorization_code needs one")
	why := "each must be https, or http on a loopback address, or of a private-use scheme with a dot; without fragment, user information and wildcard"
	for _, x := range []struct {
		parameter string
		list      []string
	}{{redirects, c.RedirectURIs}, {"post_logout_redirect_uris", c.PostLogoutRedirectURIs}} {
		k.few(x.parameter, x.list, maxURIs, why, func(uri string) bool { return plainURI(uri) && RedirectAllowed(uri) })
		// OpenID Connect Registration, Section 2, application_type: no client_id is
		// shared by clients of both kinds.
		foreign := slices.ContainsFunc(x.list, func(uri string) bool { return !fitsType(m.ApplicationType, uri) })
		k.bad(foreign && m.ApplicationType == "web", x.parameter, "a web client's are https and not on localhost")
		k.bad(foreign && m.ApplicationType == "native", x.parameter, "a native client's are of a private-use scheme, or http on a loopback address")
	}
	k.few("origins", c.Origins, maxURIs, "each must be https://HOST or https://HOST:PORT", func(s string) bool {
		o, err := originOf(s)
		return err == nil && o == s && strings.HasPrefix(s, "http") && RedirectAllowed(s)
	})
	k.few("audience", c.Audience, maxURIs, "each must be an absolute URI without fragment", func(s string) bool {
		u, err := url.Parse(s) // RFC 8707, Section 2
		return err == nil && plainURI(s) && u.IsAbs() && (u.Host != "" || u.Opaque != "")
	})
}

// plainURI reports whether s has the length and the characters of a URI without
// fragment (RFC 3986, Section 2).
func plainURI(s string) bool {
	return len(s) <= maxURI && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("\"#<>\\^`{|}", r)
	})
}

// fitsType reports whether a client of the type may have the redirect URI.
func fitsType(kind, uri string) bool {
	u, err := url.Parse(uri)
	if err != nil {
		return true // and is told of otherwise
	}
	switch kind {
	case "web":
		return u.Scheme == "https" && !loopback(u.Hostname())
	case "native":
		return u.Scheme != "https"
	}
	return true
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || (err == nil && ip.IsLoopback())
}

// addresses are those that a browser is sent to or that we ask.
func (k *check) addresses() {
	m := k.m
	for _, x := range []struct{ parameter, uri string }{
		{"client_uri", m.ClientURI}, {"logo_uri", m.LogoURI}, {"policy_uri", m.PolicyURI}, {"tos_uri", m.TOSURI},
		{"initiate_login_uri", m.InitiateLoginURI}, {"jwks_uri", m.JWKSURI}, {"sector_identifier_uri", m.SectorIdentifierURI},
		{"backchannel_logout_uri", m.BackchannelLogoutURI}, {"frontchannel_logout_uri", m.FrontchannelLogoutURI},
	} {
		k.bad(x.uri != "" && (!plainURI(x.uri) || !k.servers.Allowed(x.uri)), x.parameter,
			"must be https, without fragment and user information, at most %d bytes", maxURI)
	}
	// OpenID Connect Front-Channel Logout 1.0, Section 2: "The domain, port, and
	// scheme of this URL MUST be the same as that of a registered Redirection URI
	// value."
	front, err := originOf(m.FrontchannelLogoutURI)
	k.bad(m.FrontchannelLogoutURI != "" && (err != nil || !slices.ContainsFunc(k.c.RedirectURIs, func(uri string) bool {
		o, err := originOf(uri)
		return err == nil && o == front
	})), "frontchannel_logout_uri", "must have scheme, host and port of a redirect URI")
	k.bad(m.BackchannelLogoutSessionRequired && m.BackchannelLogoutURI == "", "backchannel_logout_session_required", "needs backchannel_logout_uri")
	k.bad(m.FrontchannelLogoutSessionRequired && m.FrontchannelLogoutURI == "", "frontchannel_logout_session_required", "needs frontchannel_logout_uri")
}

// originOf is scheme, host and port of an address (RFC 6454, Section 6.1).
func originOf(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "", errors.New("there is no host")
	}
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return u.Scheme + "://" + host, nil
}

// tokens are how they are signed and what they may say.
func (k *check) tokens() {
	c, m := k.c, k.m
	k.bad(c.IDTokenAlg == "", "id_token_signed_response_alg", "is required")
	k.oneOf("id_token_signed_response_alg", c.IDTokenAlg, keys.Algorithms)
	k.oneOf("userinfo_signed_response_alg", m.UserinfoSignedResponseAlg, keys.Algorithms)
	k.oneOf("introspection_signed_response_alg", m.IntrospectionSignedResponseAlg, keys.Algorithms)
	k.oneOf("access_token_signed_response_alg", m.AccessTokenSignedResponseAlg, keys.Algorithms)
	k.oneOf("subject_type", m.SubjectType, subjectTypes)
	k.few("scope", c.Scopes, maxWords, "each must be a scope", scopeToken)
	k.few("default_acr_values", m.DefaultACRValues, maxWords, "each must be a word", scopeToken)
	k.bad(m.RequireACR != "" && session.Strength(m.RequireACR) == 0, "require_acr", "must be one of acr_values_supported")
}

// scopeToken holds for the scope-token of RFC 6749, Section 3.3.
func scopeToken(s string) bool {
	return s != "" && len(s) <= maxWord && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}

func (k *check) limits() {
	d := k.m.DefaultMaxAge
	k.bad(d != nil && (*d < 0 || *d > math.MaxInt32), "default_max_age", "must be a number of seconds")
	const day = 24 * time.Hour
	for _, x := range []struct {
		parameter   string
		seconds     int
		least, most time.Duration
	}{
		{"access_token_life", k.m.Lifetimes.AccessToken, time.Minute, day},
		{"id_token_life", k.m.Lifetimes.IDToken, time.Minute, day},
		{"refresh_idle", k.m.Lifetimes.RefreshIdle, 5 * time.Minute, 366 * day},
		{"grant_life", k.m.Lifetimes.Grant, 5 * time.Minute, 366 * day},
	} {
		life := time.Duration(x.seconds) * time.Second
		k.bad(x.seconds != 0 && (life < x.least || life > x.most), x.parameter, "must be between %v and %v", x.least, x.most)
	}
}

// sector settles whom pairwise subjects are made for (OpenID Connect Core,
// Section 8.1): the host of the sector_identifier_uri or, without one, the one
// host that all redirect URIs are on.
func (k *check) sector(ctx context.Context) {
	m := k.m
	m.Sector = soleHost(k.c.RedirectURIs)
	if m.SectorIdentifierURI != "" {
		u, _ := url.Parse(m.SectorIdentifierURI) // which addresses has liked
		m.Sector = strings.ToLower(u.Hostname())
		// OpenID Connect Registration, Section 5: "The values registered in
		// redirect_uris MUST be included in the elements of the array, or
		// registration MUST fail." One answer to every failure: who named the
		// address need not learn what is there.
		k.bad(!vouches(ctx, k.servers, m.SectorIdentifierURI, k.c.RedirectURIs), "sector_identifier_uri",
			"must lead to a JSON array that holds every redirect URI")
	}
	if m.SubjectType != "pairwise" {
		m.Sector = ""
		return
	}
	k.bad(m.Sector == "", "subject_type", "pairwise needs a sector_identifier_uri, unless all redirect URIs are https on one host")
}

// vouches reports whether the document at address lists all of uris.
func vouches(ctx context.Context, servers *outbound.Client, address string, uris []string) bool {
	raw, err := servers.Get(ctx, address)
	if err != nil {
		web.Note(ctx, "cause", err.Error())
		return false
	}
	var listed []string
	return json.Unmarshal(raw, &listed) == nil && subset(uris, listed)
}

// soleHost is the host that all of uris share; "" where there are several, or one
// that is everybody's, as loopback is.
func soleHost(uris []string) string {
	sole := ""
	for i, uri := range uris {
		u, err := url.Parse(uri)
		if err != nil || u.Scheme != "https" {
			return ""
		}
		host := strings.ToLower(u.Hostname())
		if loopback(host) || (i > 0 && host != sole) {
			return ""
		}
		sole = host
	}
	return sole
}
