package oauth

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ory/fosite"

	"github.com/pat-authenticate/patauth/storage"
)

// shortLife bounds an access token that its resource server reads by itself,
// since it cannot be taken back sooner there, and one that opens health data,
// whatever the client has registered.
const shortLife = 10 * time.Minute

// atMost makes the access token end after life, if it would not sooner.
func (g *grant) atMost(life time.Duration) {
	if end := time.Now().Add(life); g.GetExpiresAt(fosite.AccessToken).After(end) {
		g.SetExpiresAt(fosite.AccessToken, end)
	}
}

// accessTokenAlg is how access tokens of c for audience are signed: "" makes
// them opaque. A resource server's wish comes before the client's.
func (o *OAuth) accessTokenAlg(ctx context.Context, c storage.Client, audience storage.Strings) (string, error) {
	if len(audience) == 1 && audience[0] == o.issuer { // the issuer's own endpoints ask the database
		return c.Metadata.AccessTokenSignedResponseAlg, nil
	}
	servers, err := o.db.ResourceServers(ctx)
	if err != nil {
		return "", err
	}
	for _, s := range servers {
		alg := s.Metadata.AccessTokenSignedResponseAlg
		if alg != "" && slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(s.Audience, a) }) {
			return alg, nil
		}
	}
	return c.Metadata.AccessTokenSignedResponseAlg, nil
}

// accessJWT makes an access token as RFC 9068, Section 2.2, wants it. It tells
// nothing about the patient beyond the sub.
func (o *OAuth) accessJWT(alg string, g *grant, r fosite.Requester) (string, error) {
	now := time.Now()
	claims := map[string]any{
		"iss": o.issuer, "sub": g.Sub(), "aud": []string(g.resources(r.GetGrantedAudience())),
		"client_id": r.GetClient().GetID(), "iat": now.Unix(), "exp": g.GetExpiresAt(fosite.AccessToken).Unix(),
		"jti": storage.NewID(),
	}
	if scopes := g.scopes(r.GetGrantedScopes()); len(scopes) > 0 {
		claims["scope"] = strings.Join(scopes, " ")
	}
	if g.PatientID != "" {
		// Section 2.2.1: "auth_time", "acr" and "amr".
		claims["auth_time"], claims["acr"], claims["amr"] = g.AuthTime.Unix(), g.ACR, g.AMR
	}
	// Section 2.1: "at+jwt".
	return o.keys.Sign(alg, "at+jwt", claims)
}

// accessToken finds the live access token that was presented. One that is a JWT
// must also verify: a key that was compromised takes its tokens with it.
// Errors are those of storage.AccessToken.
func (o *OAuth) accessToken(ctx context.Context, token string) (storage.AccessToken, storage.Grant, error) {
	if strings.Contains(token, ".") {
		if err := o.keys.Verify(token, "at+jwt", &struct{}{}); err != nil {
			return storage.AccessToken{}, storage.Grant{}, storage.ErrNotFound
		}
	}
	return o.db.AccessToken(ctx, storage.Digest(token), storage.Now())
}
