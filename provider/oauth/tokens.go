package oauth

import (
	"context"
	"encoding/base64"
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

// tokens makes opaque tokens of 256 random bits, and JWTs for those who asked
// for them (RFC 9068). What fosite calls a signature is the digest under which
// the store keeps the token, JWT or not; nothing needs an HMAC, since nothing but
// the stored digest makes a token valid here.
type tokens struct{ o *OAuth }

var _ oauth2.CoreStrategy = tokens{}

func signature(token string) string { return string(storage.Digest(token)) }

func (tokens) AccessTokenSignature(_ context.Context, t string) string   { return signature(t) }
func (tokens) RefreshTokenSignature(_ context.Context, t string) string  { return signature(t) }
func (tokens) AuthorizeCodeSignature(_ context.Context, t string) string { return signature(t) }

// GenerateAccessToken makes an access token of the form that its client or its
// resource server registered.
func (s tokens) GenerateAccessToken(ctx context.Context, r fosite.Requester) (string, string, error) {
	g, c := r.GetSession().(*grant), r.GetClient().(client)
	alg, err := s.o.accessTokenAlg(ctx, c.Client, g.resources(r.GetGrantedAudience()))
	if err != nil {
		return "", "", err
	}
	if alg != "" || g.ShowsLab() {
		g.atMost(shortLife)
	}
	g.access = storage.NewHandle(prefixAccess)
	if alg != "" {
		if g.access, err = s.o.accessJWT(alg, g, r); err != nil {
			return "", "", err
		}
	}
	return g.access, signature(g.access), nil
}

// GenerateAuthorizeCode makes the code of the authorization request that is being
// answered.
func (s tokens) GenerateAuthorizeCode(_ context.Context, r fosite.Requester) (string, string, error) {
	t := r.GetSession().(*grant).value
	return t, signature(t), nil
}

// codeOf is the code that answers an authorization request in a session, by their
// ids: 256 bits under a key of ours, kept nowhere, so that the same answer can be
// given again, and in another session it is another code.
func (o *OAuth) codeOf(request, sessionID string) string {
	return prefixCode + base64.RawURLEncoding.EncodeToString(o.db.MAC("authorization-code", []byte(request+" "+sessionID)))
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
