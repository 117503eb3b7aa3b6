package oauth

import (
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/openid"
	"github.com/ory/fosite/token/jwt"

	"github.com/pat-authenticate/patauth/storage"
)

// grant is fosite's Session: what one authorization gave, as the store keeps
// it, and what one request makes of it. It is never serialised.
type grant struct {
	storage.Grant
	code    storage.Code // while a code is issued or redeemed
	value   string       // of the code that is issued
	expires map[fosite.TokenType]time.Time
	id      jwt.IDTokenClaims

	// narrowed are the scopes that a refresh asked for, and audience the resources
	// that this token is for, where those are fewer than granted.
	narrowed storage.Words
	audience storage.Strings
	// access is the access token of this answer, for the at_hash.
	access string
	// rotated is the refresh token made for this answer; retried says that it
	// was made for an earlier answer that the client lost.
	rotated string
	retried bool
}

var _ openid.Session = (*grant)(nil)

func newGrant() *grant { return &grant{expires: map[fosite.TokenType]time.Time{}} }

// SetExpiresAt sets the end of a token; no refresh token outlives its grant.
func (g *grant) SetExpiresAt(kind fosite.TokenType, t time.Time) {
	if end := g.Grant.ExpiresAt; kind == fosite.RefreshToken && !end.IsZero() && end.Before(t) {
		t = end
	}
	g.expires[kind] = t.UTC().Truncate(time.Microsecond)
}

// GetExpiresAt is the end of a token, or zero.
func (g *grant) GetExpiresAt(kind fosite.TokenType) time.Time { return g.expires[kind] }

// GetUsername is empty: no personal data goes into introspection.
func (g *grant) GetUsername() string { return "" }

// GetSubject is what the client calls the patient, or the client that acts for
// itself.
func (g *grant) GetSubject() string { return g.Sub() }

// resources are those that the access token of this answer is for.
func (g *grant) resources(granted fosite.Arguments) storage.Strings {
	if g.audience != nil {
		return g.audience
	}
	return storage.Strings(granted)
}

// scopes are those of the access token of this answer.
func (g *grant) scopes(granted fosite.Arguments) storage.Words {
	if g.narrowed != nil {
		return g.narrowed
	}
	return storage.Words(granted)
}

// Clone copies the grant.
func (g *grant) Clone() fosite.Session {
	c := *g
	c.expires = map[fosite.TokenType]time.Time{}
	for k, v := range g.expires {
		c.expires[k] = v
	}
	return &c
}

// IDTokenClaims is for fosite to write into; idTokens does not read it.
func (g *grant) IDTokenClaims() *jwt.IDTokenClaims {
	g.id.Subject = g.GetSubject()
	return &g.id
}

// IDTokenHeaders is empty: idTokens knows the algorithm.
func (g *grant) IDTokenHeaders() *jwt.Headers { return &jwt.Headers{} }
