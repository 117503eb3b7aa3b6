package oauth

import (
	"errors"
	"net/http"
	"strings"

	"github.com/ory/fosite"

	"github.com/pat-authenticate/patauth/storage"
)

// Revoke handles POST /oauth2/revoke (RFC 7009). An unknown token is answered
// like a revoked one; only an absent database is an error.
func (o *OAuth) Revoke(w http.ResponseWriter, r *http.Request) error {
	caller, token, err := o.aboutToken(w, r)
	if err != nil || token == "" {
		return err
	}
	if err := o.revoke(r, caller, token); err != nil {
		o.fail(w, r, err)
		return nil
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return nil
}

// revoke ends the caller's own token. Section 2.1: with a refresh token go all
// access tokens of the same grant; with an access token goes the grant as well,
// so that a patient who signs out of a portal is out.
func (o *OAuth) revoke(r *http.Request, caller storage.Client, token string) error {
	ctx, now := r.Context(), storage.Now()
	t, _, err := o.db.AccessToken(ctx, storage.Digest(token), now)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		rt, err := o.db.RefreshToken(ctx, storage.Digest(token))
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		g, err := o.db.Grant(ctx, rt.GrantID, now)
		if errors.Is(err, storage.ErrSpent) || errors.Is(err, storage.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		if g.ClientID != caller.ID {
			return errOthersToken
		}
		return o.db.RevokeGrant(ctx, g.ID, "revoked by client", now)
	case errors.Is(err, storage.ErrSpent) && t.ClientID == caller.ID && t.GrantID != "":
		// Most sign-outs come after the end of an access token's ten minutes.
		return o.db.RevokeGrant(ctx, t.GrantID, "revoked by client", now)
	case errors.Is(err, storage.ErrSpent):
		return nil
	case err != nil:
		return err
	case t.ClientID != caller.ID:
		return errOthersToken
	case t.GrantID == "":
		return o.db.RevokeAccessToken(ctx, t.Digest, now)
	}
	return o.db.RevokeGrant(ctx, t.GrantID, "revoked by client", now)
}

// errOthersToken refuses to revoke what another client holds. Section 2.1: "If
// this validation fails, the request is refused and the client is informed of
// the error".
var errOthersToken = fosite.ErrInvalidRequest.WithHint("The token was not issued to this client.")

func joined(w storage.Words) string { return strings.Join(w, " ") }
