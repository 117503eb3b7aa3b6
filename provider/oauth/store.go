package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/handler/openid"
	fositestorage "github.com/ory/fosite/storage"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// store shows our tables to fosite. It turns storage's sentinels into those
// fosite acts upon; everything else passes through wrapped.
type store struct{ db *storage.DB }

var (
	_ fosite.Storage                     = (*store)(nil)
	_ oauth2.CoreStorage                 = (*store)(nil)
	_ oauth2.TokenRevocationStorage      = (*store)(nil)
	_ openid.OpenIDConnectRequestStorage = (*store)(nil)
	_ fositestorage.Transactional        = (*store)(nil)
)

// A recall remembers what one request has read: fosite asks for the code four
// times. The conditional update, not the memory, decides who redeems it.
type recall struct {
	code  storage.Code
	grant storage.Grant
	err   error
}

type recallKey struct{}

func withRecall(ctx context.Context) context.Context {
	return context.WithValue(ctx, recallKey{}, &recall{})
}

// GetClient finds a client for fosite.
func (s *store) GetClient(ctx context.Context, id string) (fosite.Client, error) {
	c, err := s.db.Client(ctx, id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", fosite.ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	return client{c}, nil
}

// The two below serve fosite's own client authentication, which is replaced.
func (s *store) ClientAssertionJWTValid(context.Context, string) error { return fosite.ErrJTIKnown }
func (s *store) SetClientAssertionJWT(context.Context, string, time.Time) error {
	return fosite.ErrJTIKnown
}

// CreateAuthorizeCodeSession writes the grant and its code, PKCE and OpenID
// Connect data included: one row.
func (s *store) CreateAuthorizeCodeSession(ctx context.Context, signature string, r fosite.Requester) error {
	g := r.GetSession().(*grant)
	g.code.Digest, g.code.GrantID = []byte(signature), r.GetID()
	g.code.ExpiresAt = g.GetExpiresAt(fosite.AuthorizeCode)
	return s.db.CreateCode(ctx, g.Grant, g.code)
}

// GetAuthorizeCodeSession finds a code. A used one, and one whose grant has
// ended, come with ErrInvalidatedAuthorizeCode; one of another client is not
// found, so that nobody can revoke what is not theirs.
func (s *store) GetAuthorizeCodeSession(ctx context.Context, signature string, session fosite.Session) (fosite.Requester, error) {
	m, _ := ctx.Value(recallKey{}).(*recall)
	if m == nil {
		return nil, errors.New("code read outside the token endpoint")
	}
	if m.code.Digest == nil {
		m.code, m.err = s.db.Code(ctx, []byte(signature))
		if m.code.Digest != nil {
			var err error
			if m.grant, err = s.db.Grant(ctx, m.code.GrantID, storage.Now()); m.err == nil {
				m.err = err
			}
		}
	}
	if errors.Is(m.err, storage.ErrNotFound) || (m.code.Digest != nil && m.grant.ClientID != requestingClient(ctx)) {
		return nil, fosite.ErrNotFound
	}
	if m.err != nil && !errors.Is(m.err, storage.ErrSpent) {
		return nil, m.err
	}
	g, _ := session.(*grant)
	if g == nil {
		g = newGrant()
	}
	if g.code.Digest == nil { // keep what the request has set since
		g.Grant, g.code = m.grant, m.code
		g.SetExpiresAt(fosite.AuthorizeCode, m.code.ExpiresAt)
	}
	r, err := s.requester(ctx, g, url.Values{"redirect_uri": {m.code.RedirectURI}})
	if err != nil {
		return nil, err
	}
	if m.err != nil {
		return r, fosite.ErrInvalidatedAuthorizeCode
	}
	return r, nil
}

// InvalidateAuthorizeCodeSession spends the code: the second caller gets
// storage.ErrSpent.
func (s *store) InvalidateAuthorizeCodeSession(ctx context.Context, signature string) error {
	return s.db.SpendCode(ctx, []byte(signature), storage.Now())
}

// The OpenID Connect data are in the code's row: written with it, read with it,
// gone with it.
func (s *store) CreateOpenIDConnectSession(context.Context, string, fosite.Requester) error {
	return nil
}
func (s *store) DeleteOpenIDConnectSession(context.Context, string) error { return nil }

// GetOpenIDConnectSession answers for a code that carries the scope openid.
func (s *store) GetOpenIDConnectSession(_ context.Context, _ string, r fosite.Requester) (fosite.Requester, error) {
	if !r.GetGrantedScopes().Has("openid") {
		return nil, openid.ErrNoSessionFound
	}
	return r, nil
}

// CreateAccessTokenSession stores an access token.
func (s *store) CreateAccessTokenSession(ctx context.Context, signature string, r fosite.Requester) error {
	g := r.GetSession().(*grant)
	return s.db.CreateAccessToken(ctx, storage.AccessToken{
		Digest: []byte(signature), GrantID: g.Grant.ID, ClientID: r.GetClient().GetID(),
		PatientID: g.PatientID, SessionID: g.SessionID, Scopes: g.scopes(r.GetGrantedScopes()),
		Audience: g.resources(r.GetGrantedAudience()), CreatedAt: storage.Now(),
		ExpiresAt: g.GetExpiresAt(fosite.AccessToken),
	})
}

// CreateRefreshTokenSession stores a refresh token; one that is repeated is there.
func (s *store) CreateRefreshTokenSession(ctx context.Context, signature, _ string, r fosite.Requester) error {
	g := r.GetSession().(*grant)
	if g.retried {
		return nil
	}
	return s.db.CreateRefreshToken(ctx, storage.RefreshToken{
		Digest: []byte(signature), GrantID: g.Grant.ID, CreatedAt: storage.Now(),
		ExpiresAt: g.GetExpiresAt(fosite.RefreshToken),
	})
}

// GetRefreshTokenSession finds a refresh token. One that was replaced a moment
// ago, and whose successor nobody has used, is good once more for that same
// successor. Any other used one comes with ErrInactiveToken: reuse.
func (s *store) GetRefreshTokenSession(ctx context.Context, signature string, session fosite.Session) (fosite.Requester, error) {
	now := storage.Now()
	t, err := s.db.RefreshToken(ctx, []byte(signature))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, fosite.ErrNotFound
	} else if err != nil {
		return nil, err
	}
	row, err := s.db.Grant(ctx, t.GrantID, now)
	if errors.Is(err, storage.ErrSpent) || errors.Is(err, storage.ErrNotFound) || (err == nil && row.ClientID != requestingClient(ctx)) {
		return nil, fosite.ErrNotFound
	} else if err != nil {
		return nil, err
	}
	g, _ := session.(*grant)
	if g == nil {
		g = newGrant()
	}
	g.Grant = row
	g.SetExpiresAt(fosite.RefreshToken, t.ExpiresAt)
	r, err := s.requester(ctx, g, url.Values{})
	if err != nil || t.UsedAt == nil {
		return r, err
	}
	next, err := s.db.Successor(ctx, t, presented(ctx), now)
	if errors.Is(err, storage.ErrSpent) || errors.Is(err, storage.ErrSealed) {
		return r, fosite.ErrInactiveToken
	} else if err != nil {
		return nil, err
	}
	g.rotated, g.retried = next, true
	return r, nil
}

// RotateRefreshToken spends the presented token: of several callers one wins,
// the rest get storage.ErrSpent.
func (s *store) RotateRefreshToken(ctx context.Context, _, _ string) error {
	r, _ := ctx.Value(fosite.AccessRequestContextKey).(fosite.AccessRequester)
	g := r.GetSession().(*grant)
	if g.retried {
		return nil
	}
	return s.db.RotateRefreshToken(ctx, presented(ctx), g.rotated, storage.Now())
}

// DeleteRefreshTokenSession keeps the row: a used token must stay recognisable.
func (s *store) DeleteRefreshTokenSession(context.Context, string) error { return nil }

// RevokeRefreshToken ends the grant, and with it every token of it: fosite calls
// it where a code or a refresh token was presented again. The patient is told of
// a refresh token; a code may come twice from a browser that went back.
func (s *store) RevokeRefreshToken(ctx context.Context, grantID string) error {
	if presented(ctx) == "" {
		noteReplay(ctx, "code")
		return s.RevokeAccessToken(ctx, grantID)
	}
	noteReplay(ctx, "refresh")
	return s.db.Tx(ctx, func(ctx context.Context) error {
		g, err := s.db.Grant(ctx, grantID, storage.Now())
		if errors.Is(err, storage.ErrSpent) {
			return nil // ended already, and told
		} else if err != nil {
			return err
		}
		if err := s.RevokeAccessToken(ctx, grantID); err != nil {
			return err
		}
		return s.db.Wish(ctx, queue.Notice{PatientID: g.PatientID, Notice: "token_reused"})
	})
}

// RevokeAccessToken ends the grant, and with it every token of it.
func (s *store) RevokeAccessToken(ctx context.Context, grantID string) error {
	return s.db.RevokeGrant(ctx, grantID, "replayed", storage.Now())
}

// GetAccessTokenSession and DeleteAccessTokenSession are not reached:
// introspection and revocation read storage themselves.
func (s *store) GetAccessTokenSession(context.Context, string, fosite.Session) (fosite.Requester, error) {
	return nil, fosite.ErrNotFound
}
func (s *store) DeleteAccessTokenSession(context.Context, string) error { return nil }

// BeginTX, Commit and Rollback join the transaction of the context.
func (s *store) BeginTX(ctx context.Context) (context.Context, error) { return s.db.Begin(ctx) }
func (s *store) Commit(ctx context.Context) error                     { return s.db.Commit(ctx) }
func (s *store) Rollback(ctx context.Context) error                   { return s.db.Rollback(ctx) }

// requester is a grant as fosite passes it around.
func (s *store) requester(ctx context.Context, g *grant, form url.Values) (fosite.Requester, error) {
	c, err := s.db.Client(ctx, g.ClientID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, fosite.ErrNotFound
	} else if err != nil {
		return nil, err
	}
	return &fosite.Request{
		ID: g.Grant.ID, RequestedAt: g.CreatedAt, Client: client{c}, Session: g, Form: form,
		RequestedScope: fosite.Arguments(g.Scopes), GrantedScope: fosite.Arguments(g.Scopes),
		RequestedAudience: fosite.Arguments(g.Audience), GrantedAudience: fosite.Arguments(g.Audience),
	}, nil
}

// requestingClient is the client that the token endpoint has authenticated.
func requestingClient(ctx context.Context) string {
	r, _ := ctx.Value(fosite.AccessRequestContextKey).(fosite.AccessRequester)
	if r == nil || r.GetClient() == nil {
		return ""
	}
	return r.GetClient().GetID()
}

// presented is the refresh token of the request.
func presented(ctx context.Context) string {
	r, _ := ctx.Value(fosite.AccessRequestContextKey).(fosite.AccessRequester)
	if r == nil {
		return ""
	}
	return r.GetRequestForm().Get("refresh_token")
}
