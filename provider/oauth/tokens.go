package oauth

import (
	"context"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"

	"github.com/pat-authenticate/patauth/storage"
)

// The kinds of handle, told apart by prefix (and found by secret scanners).
const (
	prefixCode    = "pa_ac_"
	prefixAccess  = "pa_at_"
	prefixRefresh = "pa_rt_"
)

// tokens makes opaque tokens of 256 random bits. What fosite calls a signature
// is the digest under which the store keeps the token; nothing needs an HMAC,
// since nothing but the stored digest makes a token valid.
type tokens struct{}

var _ oauth2.CoreStrategy = tokens{}

func signature(token string) string { return string(storage.Digest(token)) }

func (tokens) AccessTokenSignature(_ context.Context, t string) string   { return signature(t) }
func (tokens) RefreshTokenSignature(_ context.Context, t string) string  { return signature(t) }
func (tokens) AuthorizeCodeSignature(_ context.Context, t string) string { return signature(t) }

func (tokens) GenerateAccessToken(context.Context, fosite.Requester) (string, string, error) {
	t := storage.NewHandle(prefixAccess)
	return t, signature(t), nil
}

func (tokens) GenerateAuthorizeCode(context.Context, fosite.Requester) (string, string, error) {
	t := storage.NewHandle(prefixCode)
	return t, signature(t), nil
}

// GenerateRefreshToken makes a refresh token, or repeats the one that an
// earlier answer to the same token held.
func (tokens) GenerateRefreshToken(_ context.Context, r fosite.Requester) (string, string, error) {
	g := r.GetSession().(*grant)
	if !g.retried {
		g.rotated = storage.NewHandle(prefixRefresh)
	}
	return g.rotated, signature(g.rotated), nil
}

func (tokens) ValidateAccessToken(_ context.Context, r fosite.Requester, _ string) error {
	return unexpired(r, fosite.AccessToken)
}

func (tokens) ValidateRefreshToken(_ context.Context, r fosite.Requester, _ string) error {
	return unexpired(r, fosite.RefreshToken)
}

func (tokens) ValidateAuthorizeCode(_ context.Context, r fosite.Requester, _ string) error {
	return unexpired(r, fosite.AuthorizeCode)
}

func unexpired(r fosite.Requester, kind fosite.TokenType) error {
	if !time.Now().Before(r.GetSession().GetExpiresAt(kind)) {
		return fosite.ErrTokenExpired
	}
	return nil
}
