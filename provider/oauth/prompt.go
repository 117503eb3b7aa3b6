package oauth

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ory/fosite"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/storage"
)

// request is an authorization request, read from its parameters.
type request struct {
	client      storage.Client
	redirect    *url.URL
	mode        string // query or form_post
	state       string
	scopes      storage.Words
	audience    storage.Strings
	nonce       string
	challenge   string
	prompt      storage.Words
	maxAge      time.Duration // -1 where it was not sent
	subjects    []string      // whom id_token_hint and claims name; all must fit
	level       int           // factors that must have been proven
	phishing    bool
	acr         []string       // of which one must be told; empty where any will do
	claims      storage.Claims // asked for one by one
	requestedAt time.Time
	denied      bool
	device      string // the user code of the device that asks; "" where a browser does
	// fault is what is wrong with it by now: the client or our keys may have
	// changed since it came.
	fault error
}

// Scopes lists the scopes the provider knows; others are ignored
// (OpenID Connect Core, Section 3.1.2.1).
var Scopes = storage.Words{"openid", "profile", "email", "address", "phone", "offline_access", "lab"}

const (
	maxState = 2048
	maxNonce = 512
)

// parse checks the parameters of an authorization request by c. The redirect URI
// is known to be registered; what is wrong otherwise is told to the client by
// the error that comes back.
func (o *OAuth) parse(c storage.Client, p url.Values) (request, error) {
	q := request{client: c, mode: "query", state: p.Get("state"), nonce: p.Get("nonce"), maxAge: -1}
	q.redirect, _ = url.Parse(p.Get("redirect_uri"))
	mode := p.Get("response_mode")
	if p.Has("request") {
		mode, q.state = inRequest(p, "response_mode"), inRequest(p, "state")
	}
	switch m := mode; m {
	case "", "query":
	case "form_post":
		q.mode = m
	default:
		return q, fosite.ErrUnsupportedResponseMode.WithHint("response_mode must be query or form_post.")
	}
	bad := func(format string, args ...any) (request, error) {
		return q, fosite.ErrInvalidRequest.WithHint(fmt.Sprintf(format, args...))
	}
	switch {
	// OpenID Connect Core, Section 3.1.2.6.
	case p.Has("request"):
		return q, fosite.ErrRequestNotSupported
	case p.Has("request_uri"):
		return q, fosite.ErrRequestURINotSupported
	case p.Has("registration"):
		return q, fosite.ErrRegistrationNotSupported
	case p.Get("response_type") == "":
		return bad("response_type is missing.")
	case p.Get("response_type") != "code":
		return q, fosite.ErrUnsupportedResponseType.WithHint("response_type must be code.")
	case !c.GrantTypes.Has("authorization_code"):
		return q, fosite.ErrUnauthorizedClient.WithHint("The client may not use the authorization code grant.")
	case len(q.state) > maxState:
		return bad("state is longer than %d bytes.", maxState)
	case len(q.nonce) > maxNonce:
		return bad("nonce is longer than %d bytes.", maxNonce)
	}
	q.challenge = p.Get("code_challenge")
	if fault := o.pkce.fault(c, p); fault != "" {
		return bad("%s", fault)
	}
	q.prompt = strings.Fields(p.Get("prompt"))
	for _, x := range q.prompt {
		if !slices.Contains([]string{"none", "login", "consent", "select_account", "create"}, x) {
			return bad("prompt has an unknown value.")
		}
	}
	if q.prompt.Has("none") && len(q.prompt) > 1 {
		return bad("prompt=none stands alone.")
	}
	if d := c.Metadata.DefaultMaxAge; d != nil {
		q.maxAge = time.Duration(*d) * time.Second
	}
	if p.Has("max_age") {
		n, err := strconv.ParseUint(p.Get("max_age"), 10, 31)
		if err != nil {
			return bad("max_age must be a number of seconds.")
		}
		q.maxAge = time.Duration(n) * time.Second
	}
	var err error
	if q.scopes, err = scopesFor(c, strings.Fields(p.Get("scope"))); err != nil {
		return q, err
	}
	if q.audience, err = audienceFor(c, p["resource"], o.issuer); err != nil {
		return q, err
	}
	if hint := p.Get("id_token_hint"); hint != "" {
		h, err := readHint(o.keys, hint, o.issuer)
		if err != nil || !h.audience(c.ID) {
			return bad("id_token_hint is not an ID token of ours for this client.")
		}
		q.subjects = append(q.subjects, h.Subject)
	}
	claims, err := readClaims(p.Get("claims"))
	if err != nil {
		return q, err
	}
	q.claims = storage.Claims{IDToken: known(claims.IDToken, c.Scopes), UserInfo: known(claims.UserInfo, c.Scopes)}
	q.subjects = append(q.subjects, append(claims.IDToken["sub"].strings(), claims.UserInfo["sub"].strings()...)...)
	wishes := strings.Fields(p.Get("acr_values"))
	if len(wishes) == 0 {
		wishes = c.Metadata.DefaultACRValues
	}
	for _, w := range []*claimWish{claims.IDToken["acr"], claims.UserInfo["acr"]} {
		switch values := w.strings(); {
		case w == nil || len(values) == 0:
		case w.Essential:
			q.acr = values
		default:
			wishes = values
		}
	}
	return q, q.demand(c, wishes)
}

// inRequest is a parameter as the request object has it, else as it stands beside
// that (RFC 9101, Section 6.3). A request object is refused, whoever signed it: this
// is only for the client to get the refusal where and how it expects it.
func inRequest(p url.Values, name string) string {
	var claims map[string]any
	parts := strings.Split(p.Get("request"), ".")
	if len(parts) != 3 {
		return p.Get(name)
	}
	if b, err := base64.RawURLEncoding.DecodeString(parts[1]); err != nil || json.Unmarshal(b, &claims) != nil {
		return p.Get(name)
	}
	if v, ok := claims[name].(string); ok {
		return v
	}
	return p.Get(name)
}

// demand works out what the session must prove: what lab data and the client
// demand, the first of the wished-for authentication contexts that we know, and
// one of those that are essential. Where we know none of these, that is an error
// (OpenID Connect Core, Section 5.5.1.1).
func (q *request) demand(c storage.Client, wishes []string) error {
	strength := session.Strength(c.Metadata.RequireACR)
	if q.asks().Has("lab") {
		strength = max(strength, session.Strength(session.ACRTwoFactor))
	}
	for _, w := range wishes {
		if n := session.Strength(w); n > 0 {
			strength = max(strength, n)
			break
		}
	}
	least := 0
	for _, w := range q.acr {
		if n := session.Strength(w); n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	if len(q.acr) > 0 && least == 0 {
		return errUnmet
	}
	strength = max(strength, least, 1)
	q.level, q.phishing = min(strength, 2), strength > 2
	return nil
}

// asks are the scopes that the patient must have allowed.
func (q request) asks() storage.Words { return rests(q.scopes, q.claims) }

// rests are the scopes that an authorization rests on: its own, and those of the
// claims asked for one by one.
func rests(scopes storage.Words, claims storage.Claims) storage.Words {
	all := append(storage.Words{}, scopes...)
	for _, name := range append(append([]string{}, claims.IDToken...), claims.UserInfo...) {
		if scope := scopeOf(name); !all.Has(scope) {
			all = append(all, scope)
		}
	}
	return all
}

// errTarget refuses a resource: RFC 8707, Section 2.
var errTarget = &fosite.RFC6749Error{
	ErrorField: "invalid_target", DescriptionField: "The resource is unknown or not open to the client.", CodeField: 400,
}

// errUnmet says that the authentication context that the client cannot do
// without is not to be had: OpenID Connect Core Error Code
// unmet_authentication_requirements 1.0, Section 1.
var errUnmet = &fosite.RFC6749Error{
	ErrorField: "unmet_authentication_requirements", DescriptionField: "The acr that is asked for cannot be reached.", CodeField: 400,
}

// scopesFor are the scopes we know of those that c asks for.
func scopesFor(c storage.Client, asked []string) (storage.Words, error) {
	var all storage.Words
	for _, s := range asked {
		if !Scopes.Has(s) || all.Has(s) {
			continue
		}
		if !c.Scopes.Has(s) {
			return all, fosite.ErrInvalidScope.WithHintf("The client may not ask for the scope %s.", s)
		}
		all = append(all, s)
	}
	return all, nil
}

// audienceFor is what the tokens of c are for: the resources that it asks for, or
// the issuer's own (RFC 8707, Section 2).
func audienceFor(c storage.Client, asked []string, issuer string) (storage.Strings, error) {
	for _, a := range asked {
		if a != issuer && !slices.Contains(c.Audience, a) {
			return nil, errTarget
		}
	}
	if len(asked) == 0 {
		return storage.Strings{issuer}, nil
	}
	return asked, nil
}
