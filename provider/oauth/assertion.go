package oauth

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	// Names are compared with their case, and none may be there twice (RFC 7519,
	// Section 4).
	"github.com/go-jose/go-jose/v4/json"

	"github.com/pat-authenticate/patauth/storage"
)

// assertionType is what client_assertion_type says (RFC 7523, Section 2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// assertionAlgs are the algorithms that clients may sign with. None of them works
// with a shared secret (RFC 8725, Sections 3.1 and 3.2). The last two are one, by
// its old name and by that of RFC 9864, which go-jose v4.1.8 does not know.
var assertionAlgs = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA, algEd25519}

const algEd25519 = jose.SignatureAlgorithm("Ed25519")

// sameAlg is alg by the name that go-jose has for it.
func sameAlg(alg string) jose.SignatureAlgorithm {
	if alg == string(algEd25519) {
		return jose.EdDSA
	}
	return jose.SignatureAlgorithm(alg)
}

// ed25519Key verifies by either name.
type ed25519Key ed25519.PublicKey

// VerifyPayload verifies a signature for go-jose.
func (k ed25519Key) VerifyPayload(payload, signature []byte, alg jose.SignatureAlgorithm) error {
	if sameAlg(string(alg)) != jose.EdDSA || !ed25519.Verify(ed25519.PublicKey(k), payload, signature) {
		return jose.ErrCryptoFailure
	}
	return nil
}

const (
	maxAssertion = 16 << 10 // bytes
	maxJTI       = 256      // bytes
	// maxTries bounds the keys that an assertion without a kid is tried with.
	// OpenID Connect Core, Section 10.1, asks for a kid where there are several.
	maxTries = 4

	// assertionLife is how far ahead an assertion may expire: its jti is kept for
	// as long. FAPI 2.0, Section 5.3.2.1, too, wants them short.
	assertionLife = 5 * time.Minute
	// expirySkew and futureSkew are for clocks that differ. FAPI 2.0, Section
	// 5.3.2.1, Item 13: iat and nbf up to 10 s ahead are accepted, more than 60 s
	// ahead are not.
	expirySkew = 10 * time.Second
	futureSkew = time.Minute
)

// errAssertion is every reason not to trust an assertion. The reason is for the
// log; the client gets errClient.
var errAssertion = errors.New("assertion not trusted")

func distrust(reason string) error { return fmt.Errorf("%w: %s", errAssertion, reason) }

// byAssertion authenticates a client by a JWT that it has signed: the method
// private_key_jwt (OpenID Connect Core, Section 9; RFC 7523, Sections 2.2 and 3).
func (o *OAuth) byAssertion(ctx context.Context, r *http.Request, form url.Values) (storage.Client, error) {
	c, err := o.asserted(ctx, r, form, time.Now())
	if errors.Is(err, errAssertion) {
		return storage.Client{}, refuse(ctx, c, "private_key_jwt", err.Error())
	}
	if err == nil {
		storage.ActAs(ctx, storage.ActorClient(c.ID))
	}
	return c, err
}

// asserted is the client that the assertion of form proves; with errAssertion, it
// is the one that was named. The jti is spent last, so that nobody who cannot sign
// spends one.
func (o *OAuth) asserted(ctx context.Context, r *http.Request, form url.Values, now time.Time) (storage.Client, error) {
	if form.Get("client_assertion_type") != assertionType {
		return storage.Client{}, distrust("client_assertion_type is unknown")
	}
	a, flaw := parseAssertion(form.Get("client_assertion"))
	c, err := o.findClient(ctx, cmp.Or(a.claims.Subject, form.Get("client_id")))
	switch {
	case err != nil && !errors.Is(err, storage.ErrNotFound):
		return storage.Client{}, err
	case flaw != nil:
		return c, flaw
	case err != nil:
		return c, distrust("there is no such client")
	}
	// The endpoint that was called, the token endpoint, or the issuer.
	ours := []string{o.issuer, o.issuer + "/oauth2/token", o.issuer + r.URL.Path}
	if err := a.claims.check(ours, now); err != nil {
		return c, err
	}
	// RFC 7521, Section 4.2: the client_id "MUST identify the same client as is
	// identified by the client assertion".
	if id := form.Get("client_id"); id != "" && id != a.claims.Subject {
		return c, distrust("client_id names another client")
	}
	if err := o.verify(ctx, c, a, now); err != nil {
		return c, err
	}
	err = o.db.SpendJTI(ctx, c.ID, a.claims.ID, a.claims.usableUntil())
	if errors.Is(err, storage.ErrSpent) {
		return c, distrust("jti was used before")
	} else if err != nil {
		return storage.Client{}, fmt.Errorf("spend jti: %w", err)
	}
	return c, nil
}

// verify checks that c may use assertions and has signed a.
func (o *OAuth) verify(ctx context.Context, c storage.Client, a assertion, now time.Time) error {
	if !c.AuthMethods.Has("private_key_jwt") {
		return distrust("the client is not registered for private_key_jwt")
	}
	if alg := c.Metadata.TokenEndpointAuthSigningAlg; alg != "" && sameAlg(alg) != a.alg {
		return distrust("the client is registered for another alg")
	}
	keys, err := o.keysOf(ctx, c, a, now)
	if err != nil {
		return fmt.Errorf("%w: keys of the client: %w", errAssertion, err)
	}
	if len(keys) == 0 {
		return distrust("the client has no such key")
	}
	for _, key := range keys[:min(len(keys), maxTries)] {
		by := key.Key
		if public, ok := by.(ed25519.PublicKey); ok {
			by = ed25519Key(public)
		}
		if _, err := a.jws.Verify(by); err == nil {
			o.clientKeys.proved(c.Metadata.JWKSURI, now)
			return nil
		}
	}
	return distrust("the signature is not the client's")
}

// keysOf are the keys of c that may have signed a.
func (o *OAuth) keysOf(ctx context.Context, c storage.Client, a assertion, now time.Time) ([]jose.JSONWebKey, error) {
	if len(c.Metadata.JWKS) > 0 {
		set, err := parseJWKS(c.Metadata.JWKS)
		return fitting(set, a.alg, a.kid), err
	}
	if c.Metadata.JWKSURI == "" {
		return nil, nil
	}
	return o.clientKeys.find(ctx, c.Metadata.JWKSURI, a.alg, a.kid, now)
}

// An assertion is what a client says of itself. Nothing in it is to be believed
// before its signature was verified.
type assertion struct {
	jws    *jose.JSONWebSignature
	alg    jose.SignatureAlgorithm // by sameAlg
	kid    string
	claims assertionClaims
}

// parseAssertion reads a signed JWT. Of its header, alg, kid and typ count: keys
// that are in it or that it points to are never looked at (RFC 8725, Section
// 3.10). Every failure is errAssertion.
func parseAssertion(raw string) (assertion, error) {
	if len(raw) > maxAssertion {
		return assertion{}, distrust("too long")
	}
	jws, err := jose.ParseSignedCompact(raw, assertionAlgs)
	if err != nil || len(jws.Signatures) != 1 {
		return assertion{}, distrust("not a JWT signed by an alg that we take")
	}
	h := jws.Signatures[0].Protected
	a := assertion{jws: jws, alg: sameAlg(h.Algorithm), kid: h.KeyID}
	// RFC 7515, Section 4.1.11: what is critical and not understood is refused.
	// RFC 7797, Section 7: JWTs "MUST NOT use "b64" with a "false" value".
	for _, name := range []jose.HeaderKey{"crit", "b64"} {
		if _, ok := h.ExtraHeaders[name]; ok {
			return assertion{}, distrust("it has crit or b64 in its header")
		}
	}
	// RFC 8725, Section 3.11: a JWT that says it is of another kind is not ours.
	switch typ := h.ExtraHeaders[jose.HeaderType].(type) {
	case nil:
	case string:
		if !strings.EqualFold(typ, "JWT") && !strings.EqualFold(typ, "client-authentication+jwt") {
			return assertion{}, distrust("typ is of another kind")
		}
	default:
		return assertion{}, distrust("typ is not a string")
	}
	if err := json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &a.claims); err != nil {
		return assertion{}, distrust("its claims are not well-formed")
	}
	return a, nil
}

// assertionClaims are the claims of RFC 7523, Section 3. Times are in seconds,
// and may have fractions (RFC 7519, Section 2, NumericDate).
type assertionClaims struct {
	Issuer    string       `json:"iss"`
	Subject   string       `json:"sub"`
	Audience  soleAudience `json:"aud"`
	Expires   *float64     `json:"exp"`
	NotBefore *float64     `json:"nbf"`
	IssuedAt  *float64     `json:"iat"`
	ID        string       `json:"jti"`
}

// soleAudience is an aud with one value, alone or in a list: an assertion that
// is good elsewhere, too, could be used here by those who got it there.
type soleAudience string

// UnmarshalJSON reads a string or a list of one.
func (s *soleAudience) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*s = soleAudience(one)
		return nil
	}
	var list []string
	if err := json.Unmarshal(b, &list); err != nil || len(list) != 1 {
		return errors.New("aud must have one value")
	}
	*s = soleAudience(list[0])
	return nil
}

// check holds the claims against RFC 7523, Section 3, at now. ours are the values
// of aud that stand for us.
func (c assertionClaims) check(ours []string, now time.Time) error {
	at := float64(now.UnixMicro()) / 1e6
	switch {
	case c.Issuer == "" || c.Issuer != c.Subject:
		return distrust("iss and sub must both be the client's id")
	case !slices.Contains(ours, string(c.Audience)):
		return distrust("aud is somebody else")
	case c.Expires == nil:
		return distrust("exp is missing")
	case *c.Expires <= at-expirySkew.Seconds():
		return distrust("it has expired")
	case *c.Expires > at+(assertionLife+expirySkew).Seconds():
		return distrust("exp is too far ahead")
	case c.NotBefore != nil && *c.NotBefore > at+futureSkew.Seconds():
		return distrust("nbf is ahead")
	case c.IssuedAt != nil && *c.IssuedAt > at+futureSkew.Seconds():
		return distrust("iat is ahead")
	case c.ID == "" || len(c.ID) > maxJTI:
		return distrust("jti is missing or too long")
	}
	return nil
}

// usableUntil is when claims that were checked are past every leeway.
func (c assertionClaims) usableUntil() time.Time {
	return time.UnixMicro(int64(*c.Expires * 1e6)).Add(expirySkew)
}
