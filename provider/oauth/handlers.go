package oauth

import (
	"context"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"

	"github.com/pat-authenticate/patauth/storage"
)

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
