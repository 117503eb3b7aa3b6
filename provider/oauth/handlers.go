package oauth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"regexp"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"

	"github.com/pat-authenticate/patauth/storage"
)

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
// RFC 9700, Section 4.8.2: a verifier is demanded exactly if there was a challenge.
func (h *proofHandler) HandleTokenEndpointRequest(ctx context.Context, r fosite.AccessRequester) error {
	if verifies(r.GetSession().(*grant).code.CodeChallenge, r.GetRequestForm().Get("code_verifier")) {
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

// refreshHandler is fosite's refresh grant, with scopes that can be narrowed.
type refreshHandler struct {
	*oauth2.RefreshTokenGrantHandler
}

// HandleTokenEndpointRequest checks the token and the scope.
// RFC 6749, Section 6: "The requested scope MUST NOT include any scope not
// originally granted by the resource owner."
func (h *refreshHandler) HandleTokenEndpointRequest(ctx context.Context, r fosite.AccessRequester) error {
	asked := storage.Words(r.GetRequestedScopes())
	if err := h.RefreshTokenGrantHandler.HandleTokenEndpointRequest(ctx, r); err != nil {
		return err
	}
	g := r.GetSession().(*grant)
	if !g.Scopes.Has(asked...) {
		return fosite.ErrInvalidScope.WithHint("The scope goes beyond what was granted.")
	}
	if len(asked) > 0 {
		g.narrowed = asked
	}
	return nil
}

// PopulateTokenEndpointResponse rotates the token.
func (h *refreshHandler) PopulateTokenEndpointResponse(ctx context.Context, r fosite.AccessRequester, resp fosite.AccessResponder) error {
	err := h.RefreshTokenGrantHandler.PopulateTokenEndpointResponse(ctx, r, resp)
	if err != nil {
		return err
	}
	if g := r.GetSession().(*grant); g.narrowed != nil {
		resp.SetScopes(fosite.Arguments(g.narrowed))
	}
	return nil
}
