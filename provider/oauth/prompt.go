package oauth

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ory/fosite"

	"github.com/pat-authenticate/patauth/provider/keys"
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
	subject     string        // of id_token_hint
	level       int           // factors that must have been proven
	phishing    bool
	requestedAt time.Time
	denied      bool
	// fault is what is wrong with it by now: the client or our keys may have
	// changed since it came.
	fault error
}

// Scopes lists the scopes the provider knows; others are ignored
// (OpenID Connect Core, Section 3.1.2.1).
var Scopes = storage.Words{"openid", "profile", "email", "offline_access", "lab"}

// base64url(SHA-256) without padding: RFC 7636, Section 4.2.
var challengeForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

const (
	maxState = 2048
	maxNonce = 512
)

// read checks the parameters of an authorization request by c. The redirect URI
// is known to be registered; what is wrong otherwise is told to the client by
// the error that comes back.
func read(c storage.Client, p url.Values, issuer string, k *keys.Keys) (request, error) {
	q := request{client: c, mode: "query", state: p.Get("state"), nonce: p.Get("nonce"), maxAge: -1}
	q.redirect, _ = url.Parse(p.Get("redirect_uri"))
	switch m := p.Get("response_mode"); m {
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
	// RFC 7636, Section 4.4.1; RFC 9700, Section 2.1.1: S256 for every client.
	q.challenge = p.Get("code_challenge")
	switch {
	case q.challenge == "":
		return bad("code_challenge is missing: PKCE is required.")
	case p.Get("code_challenge_method") != "S256":
		return bad("code_challenge_method must be S256.")
	case !challengeForm.MatchString(q.challenge):
		return bad("code_challenge must be 43 characters of base64url.")
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
	if p.Has("max_age") {
		n, err := strconv.ParseUint(p.Get("max_age"), 10, 31)
		if err != nil {
			return bad("max_age must be a number of seconds.")
		}
		q.maxAge = time.Duration(n) * time.Second
	}
	for _, s := range strings.Fields(p.Get("scope")) {
		if !Scopes.Has(s) || q.scopes.Has(s) {
			continue
		}
		if !c.Scopes.Has(s) {
			return q, fosite.ErrInvalidScope.WithHintf("The client may not ask for the scope %s.", s)
		}
		q.scopes = append(q.scopes, s)
	}
	q.audience = p["resource"]
	for _, a := range q.audience {
		if !slices.Contains(c.Audience, a) {
			return q, errTarget
		}
	}
	if len(q.audience) == 0 {
		q.audience = storage.Strings{issuer}
	}
	if hint := p.Get("id_token_hint"); hint != "" {
		h, err := readHint(k, hint, issuer)
		if err != nil || !h.audience(c.ID) {
			return bad("id_token_hint is not an ID token of ours for this client.")
		}
		q.subject = h.Subject
	}
	q.level, q.phishing = levelOf(q.scopes, strings.Fields(p.Get("acr_values")))
	return q, nil
}

// errTarget refuses a resource: RFC 8707, Section 2.
var errTarget = &fosite.RFC6749Error{
	ErrorField: "invalid_target", DescriptionField: "The resource is unknown or not open to the client.", CodeField: 400,
}

// levelOf is the number of factors that scopes and acr_values need. Lab data
// needs two. acr_values are wishes in order of preference; the first we know counts.
func levelOf(scopes storage.Words, acr []string) (level int, phishing bool) {
	level = 1
	for _, v := range acr {
		switch v {
		case session.ACROneFactor:
		case session.ACRTwoFactor:
			level = 2
		case session.ACRPhishingResistant:
			level, phishing = 2, true
		default:
			continue
		}
		break
	}
	if scopes.Has("lab") {
		level = 2
	}
	return level, phishing
}
