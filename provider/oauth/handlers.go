package oauth

import (
	"context"
	"errors"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/handler/pkce"

	"github.com/pat-authenticate/patauth/storage"
)

// pkceHandler is fosite's PKCE, with a code that a wrong verifier burns.
type pkceHandler struct {
	*pkce.Handler
	db *storage.DB
}

// HandleTokenEndpointRequest checks the verifier.
// RFC 9700, Section 4.8.2: a verifier is demanded exactly if there was a challenge.
func (h *pkceHandler) HandleTokenEndpointRequest(ctx context.Context, r fosite.AccessRequester) error {
	err := h.Handler.HandleTokenEndpointRequest(ctx, r)
	if err == nil || errors.Is(err, fosite.ErrUnknownRequest) {
		return err
	}
	burn := h.db.SpendCode(ctx, storage.Digest(r.GetRequestForm().Get("code")), storage.Now())
	if burn != nil && !errors.Is(burn, storage.ErrSpent) {
		return burn
	}
	return err
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
