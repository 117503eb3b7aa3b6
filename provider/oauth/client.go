package oauth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v3"
	"github.com/ory/fosite"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// client shows a registered client to fosite.
type client struct{ storage.Client }

var (
	_ fosite.ResponseModeClient             = client{}
	_ fosite.ClientWithCustomTokenLifespans = client{}
)

func (c client) GetID() string                      { return c.ID }
func (c client) GetHashedSecret() []byte            { return nil }
func (c client) GetRedirectURIs() []string          { return c.RedirectURIs }
func (c client) GetGrantTypes() fosite.Arguments    { return fosite.Arguments(c.GrantTypes) }
func (c client) GetResponseTypes() fosite.Arguments { return fosite.Arguments{"code"} }
func (c client) GetScopes() fosite.Arguments        { return fosite.Arguments(c.Scopes) }
func (c client) IsPublic() bool                     { return c.Public() }
func (c client) GetAudience() fosite.Arguments      { return fosite.Arguments(c.Audience) }
func (c client) GetResponseModes() []fosite.ResponseModeType {
	return []fosite.ResponseModeType{fosite.ResponseModeQuery, fosite.ResponseModeFormPost}
}

// GetEffectiveLifespan is how long a token of the client lives.
func (c client) GetEffectiveLifespan(_ fosite.GrantType, kind fosite.TokenType, usual time.Duration) time.Duration {
	l := c.Metadata.Lifetimes
	return lifetime(map[fosite.TokenType]int{
		fosite.AccessToken: l.AccessToken, fosite.IDToken: l.IDToken, fosite.RefreshToken: l.RefreshIdle,
	}[kind], usual)
}

// lifetime is seconds, or the usual time where none were registered.
func lifetime(seconds int, usual time.Duration) time.Duration {
	if seconds <= 0 {
		return usual
	}
	return time.Duration(seconds) * time.Second
}

// errClient is the one answer to every failed client authentication, so that an
// unknown client and a wrong secret look alike.
var errClient = fosite.ErrInvalidClient.WithHint("Client authentication failed.")

// callerKey finds the client that a request was authenticated as: an assertion
// is good once, and the token endpoint may ask fosite twice.
type callerKey struct{}

func withCaller(ctx context.Context) context.Context {
	return context.WithValue(ctx, callerKey{}, &storage.Client{})
}

func (o *OAuth) authenticateFosite(ctx context.Context, r *http.Request, form url.Values) (fosite.Client, error) {
	caller, _ := ctx.Value(callerKey{}).(*storage.Client)
	if caller == nil {
		return nil, errors.New("client authenticated outside the token endpoint")
	}
	if caller.ID == "" {
		c, err := o.authenticate(ctx, r, form)
		if err != nil {
			return nil, err
		}
		*caller = c
	}
	return client{*caller}, nil
}

// A proof is what a request says of its client.
type proof struct {
	method, id, secret string
	// flaw is why no client can be known by it, for the log; "" where there is none.
	flaw string
}

// proofOf reads the proof of a request, which is made by one method.
// RFC 6749, Section 2.3: "The client MUST NOT use more than one authentication
// method in each request." A parameter without a value is none (Section 3.2), and
// neither is a password: Basic without one only names a public client.
func proofOf(r *http.Request, form url.Values) (proof, error) {
	header := r.Header.Get("Authorization")
	asserts := form.Has("client_assertion") || form.Has("client_assertion_type")
	switch {
	case asserts && (form.Has("client_secret") || header != ""), header != "" && form.Has("client_secret"):
		return proof{}, fosite.ErrInvalidRequest.WithHint("Use one client authentication method, not two.")
	case asserts:
		return proof{method: "private_key_jwt"}, nil
	case header != "":
		p := basic(r)
		if other := form.Get("client_id"); p.flaw == "" && other != "" && other != p.id {
			return p, fosite.ErrInvalidRequest.WithHint("client_id differs from the Authorization header.")
		}
		return p, nil
	case form.Has("client_secret"):
		return proof{method: "client_secret_post", id: form.Get("client_id"), secret: form.Get("client_secret")}, nil
	}
	return proof{method: "none", id: form.Get("client_id")}, nil
}

// basic reads the proof of the Authorization header.
func basic(r *http.Request) proof {
	p := proof{method: "client_secret_basic"}
	credentials, ok := authorization(r, "Basic")
	if !ok {
		p.flaw = "the Authorization header is not of the Basic scheme"
		return p
	}
	b, err := base64.StdEncoding.DecodeString(credentials)
	user, password, ok := strings.Cut(string(b), ":")
	// RFC 6749, Section 2.3.1: both parts are form-urlencoded.
	id, err1 := url.QueryUnescape(user)
	secret, err2 := url.QueryUnescape(password)
	if !ok || errors.Join(err, err1, err2) != nil {
		p.flaw = "the Authorization header is not well-formed"
		return p
	}
	if p.id, p.secret = id, secret; secret == "" {
		p.method = "none"
	}
	return p
}

// authorization are the credentials of the Authorization header, if it is of the
// scheme (RFC 9110, Section 11.4: one space or more between the two).
func authorization(r *http.Request, scheme string) (credentials string, ok bool) {
	is, credentials, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(is, scheme) {
		return "", false
	}
	return strings.Trim(credentials, " "), true
}

// authenticate finds out which client speaks.
func (o *OAuth) authenticate(ctx context.Context, r *http.Request, form url.Values) (storage.Client, error) {
	p, err := proofOf(r, form)
	switch {
	case err != nil:
		return storage.Client{}, err
	case p.method == "private_key_jwt":
		return o.byAssertion(ctx, r, form)
	}
	var c storage.Client
	if p.flaw == "" {
		c, err = o.findClient(ctx, p.id)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return storage.Client{}, err
		}
	}
	// Whoever is asked about, the same work is done.
	good := o.db.ClientSecretValid(&c, p.secret) || p.method == "none"
	switch {
	case p.flaw != "":
	case err != nil:
		p.flaw = "there is no such client"
	case !c.AuthMethods.Has(p.method) && p.method == "none":
		p.flaw = "the client has a method and used none"
	case !c.AuthMethods.Has(p.method):
		p.flaw = "the client is not registered for this method"
	case !good:
		p.flaw = "the secret is wrong"
	default:
		storage.ActAs(ctx, storage.ActorClient(c.ID))
		return c, nil
	}
	return storage.Client{}, refuse(ctx, c, p.method, p.flaw)
}

// refuse is the answer to who could not be authenticated, and tells the log why: c
// is the client that was named, zero where there is none of that id. An id that
// is nobody's is not repeated there, since it may be a secret in the wrong place.
func refuse(ctx context.Context, c storage.Client, method, cause string) error {
	if c.ID != "" {
		web.Note(ctx, "client_id", c.ID)
	}
	web.Note(ctx, "auth_method", method)
	web.Note(ctx, "cause", cause)
	return errClient
}

// findClient finds the client that a request names; storage.ErrNotFound where
// there is none. What is no text is no id, and the database need not be asked.
func (o *OAuth) findClient(ctx context.Context, id string) (storage.Client, error) {
	if !utf8.ValidString(id) || strings.ContainsRune(id, 0) {
		return storage.Client{}, storage.ErrNotFound
	}
	c, err := o.db.Client(ctx, id)
	if err != nil {
		return storage.Client{}, fmt.Errorf("find client: %w", err)
	}
	return c, nil
}

// matchRedirect reports whether uri is registered for c. It compares the raw
// strings (RFC 9700, Section 2.1); only the port of a registered loopback IP
// address may vary (RFC 8252, Section 7.3).
func matchRedirect(c storage.Client, uri string) bool {
	for _, registered := range c.RedirectURIs {
		if uri == registered {
			return true
		}
		if a, ok := withoutLoopbackPort(registered); ok {
			if b, ok := withoutLoopbackPort(uri); ok && a == b {
				return true
			}
		}
	}
	return false
}

// withoutLoopbackPort takes the port out of an http URI on a loopback address.
func withoutLoopbackPort(uri string) (string, bool) {
	rest, ok := strings.CutPrefix(uri, "http://")
	if !ok {
		return "", false
	}
	host, path, _ := strings.Cut(rest, "/")
	addr, err := netip.ParseAddrPort(host)
	if err != nil || !addr.Addr().IsLoopback() {
		ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if err != nil || !ip.IsLoopback() {
			return "", false
		}
		return ip.String() + "/" + path, true
	}
	return addr.Addr().String() + "/" + path, true
}

// RedirectAllowed reports whether uri may be registered as a redirect URI.
func RedirectAllowed(uri string) bool {
	u, err := url.Parse(uri)
	return err == nil && secureRedirect(u)
}

// secureRedirect reports whether a redirect URI may be registered and used:
// https, http on loopback only, or a private-use scheme with a dot
// (RFC 8252, Section 7.1). Fragments and user information are refused.
func secureRedirect(u *url.URL) bool {
	if u == nil || u.Fragment != "" || u.User != nil || strings.Contains(u.Host, "*") {
		return false
	}
	switch u.Scheme {
	case "https":
		return u.Hostname() != ""
	case "http":
		ip, err := netip.ParseAddr(u.Hostname())
		return u.Hostname() == "localhost" || (err == nil && ip.IsLoopback())
	}
	return strings.Contains(u.Scheme, ".")
}

// noHasher and noFetcher stand where fosite would make its own bcrypt hasher
// and HTTP fetcher; the authentication above uses neither.
type noHasher struct{}

func (noHasher) Hash(context.Context, []byte) ([]byte, error)  { return nil, errClient }
func (noHasher) Compare(context.Context, []byte, []byte) error { return errClient }

type noFetcher struct{}

func (noFetcher) Resolve(context.Context, string, bool) (*jose.JSONWebKeySet, error) {
	return nil, errClient
}
