package oauth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/ory/fosite"

	"github.com/pat-authenticate/patauth/storage"
)

// PKCE says of which confidential clients a proof of possession of the code is
// demanded (RFC 7636). Public clients owe it always, and whoever sends a challenge
// is held to it. A value that is none of PKCEs demands it of all.
type PKCE string

// RFC 9700, Section 2.1.1: PKCE is "RECOMMENDED" for confidential clients, and
// confidential OpenID Connect clients "MAY use the nonce parameter and the
// respective Claim in the ID Token instead" (Section 4.5.3.2).
const (
	PKCEAlways PKCE = "always"
	// PKCENonce lets a request without PKCE pass that has a nonce and is OpenID
	// Connect's, so that the nonce comes back in an ID token.
	PKCENonce PKCE = "nonce"
	// PKCEPublic demands nothing of confidential clients.
	PKCEPublic PKCE = "public"
)

// PKCEs are all there are.
var PKCEs = []PKCE{PKCEAlways, PKCENonce, PKCEPublic}

// base64url(SHA-256) without padding: RFC 7636, Section 4.2.
var challengeForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// fault is what is wrong with the proof of an authorization request by c, in
// words for the client; "" where nothing is (RFC 7636, Section 4.4.1). S256 is
// the one method.
func (policy PKCE) fault(c storage.Client, p url.Values) string {
	challenge, method := p.Get("code_challenge"), p.Get("code_challenge_method")
	switch {
	case challenge == "" && method != "":
		return "code_challenge is missing beside code_challenge_method."
	case challenge != "" && method != "S256":
		return "code_challenge_method must be S256."
	case challenge != "" && !challengeForm.MatchString(challenge):
		return "code_challenge must be 43 characters of base64url."
	case challenge != "":
	case mustProve(c):
		return "code_challenge is missing: PKCE is required of this client."
	case policy == PKCEPublic:
	case policy != PKCENonce:
		return "code_challenge is missing: PKCE is required."
	case !slices.Contains(strings.Fields(p.Get("scope")), "openid"):
		return "code_challenge is missing: without the scope openid PKCE is required."
	case p.Get("nonce") == "":
		return "code_challenge and nonce are missing: one of them is required."
	}
	return ""
}

// mustProve reports whether c owes PKCE whatever the policy is.
func mustProve(c storage.Client) bool { return c.Public() || c.Metadata.RequirePKCE }

// proofHandler demands the verifier of the challenge that a code was issued
// with, in place of fosite's PKCE: whether a client must send a challenge is
// decided at the authorization endpoint, and a failed verifier burns the code.
// It comes after the code's own handler, which has read the code.
type proofHandler struct{ db *storage.DB }

var _ fosite.TokenEndpointHandler = (*proofHandler)(nil)

// CanSkipClientAuth is false: nobody redeems a code without saying who it is.
func (*proofHandler) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool { return false }

// CanHandleTokenEndpointRequest holds for codes.
func (*proofHandler) CanHandleTokenEndpointRequest(_ context.Context, r fosite.AccessRequester) bool {
	return r.GetGrantTypes().ExactOne("authorization_code")
}

// HandleTokenEndpointRequest checks the verifier.
// RFC 9700, Section 2.1.1: a verifier is "accepted only if a code_challenge
// parameter was present in the authorization request". A client that has come to
// owe PKCE since gets nothing for a code without challenge, either.
func (h *proofHandler) HandleTokenEndpointRequest(ctx context.Context, r fosite.AccessRequester) error {
	challenge := r.GetSession().(*grant).code.CodeChallenge
	owes := challenge == "" && mustProve(r.GetClient().(client).Client)
	if !owes && verifies(challenge, r.GetRequestForm().Get("code_verifier")) {
		return nil
	}
	err := h.db.SpendCode(ctx, storage.Digest(r.GetRequestForm().Get("code")), storage.Now())
	if err != nil && !errors.Is(err, storage.ErrSpent) {
		return err
	}
	return fosite.ErrInvalidGrant.WithHint("The code_verifier does not fit the code_challenge.")
}

// PopulateTokenEndpointResponse adds nothing.
func (*proofHandler) PopulateTokenEndpointResponse(context.Context, fosite.AccessRequester, fosite.AccessResponder) error {
	return nil
}

// RFC 7636, Section 4.1: 43 to 128 unreserved characters.
var verifierForm = regexp.MustCompile(`^[A-Za-z0-9._~-]{43,128}$`)

// verifies reports whether verifier is the one of challenge (RFC 7636, Section
// 4.6, S256), or both are absent.
func verifies(challenge, verifier string) bool {
	if challenge == "" || verifier == "" {
		return challenge == verifier
	}
	sum := sha256.Sum256([]byte(verifier))
	got := base64.RawURLEncoding.EncodeToString(sum[:])
	return verifierForm.MatchString(verifier) && subtle.ConstantTimeCompare([]byte(got), []byte(challenge)) == 1
}
