package oauth

import (
	"errors"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ory/fosite"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// Introspect handles POST /oauth2/introspect (RFC 7662). Only clients that are
// registered for it may ask, and a token that is not for them is not active.
func (o *OAuth) Introspect(w http.ResponseWriter, r *http.Request) error {
	caller, token, err := o.aboutToken(w, r)
	if err != nil || token == "" {
		return err
	}
	if caller.Public() || !caller.CanIntrospect {
		o.fail(w, r, errMayNotIntrospect)
		return nil
	}
	answer, err := o.introspect(r, caller, token)
	if err == nil && acceptsIntrospectionJWT(r) {
		var jwt string
		if jwt, err = o.introspectionJWT(caller, answer); err == nil {
			writeJWT(w, introspectionJWT, jwt)
			return nil
		}
	}
	if err != nil {
		o.fail(w, r, err)
		return nil
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

// errMayNotIntrospect refuses a client that is who it says and is no resource
// server: another secret would not help it.
var errMayNotIntrospect = &fosite.RFC6749Error{
	ErrorField: "unauthorized_client", DescriptionField: "The client may not introspect tokens.", CodeField: http.StatusForbidden,
}

// introspectionJWT is the media type of a signed answer (RFC 9701, Section 4).
const introspectionJWT = "application/token-introspection+jwt"

func acceptsIntrospectionJWT(r *http.Request) bool {
	for _, part := range strings.Split(r.Header.Get("Accept"), ",") {
		if kind, _, err := mime.ParseMediaType(part); err == nil && kind == introspectionJWT {
			return true
		}
	}
	return false
}

// introspectionJWT signs an answer for caller (RFC 9701, Section 5). Section 6
// names RS256 where the caller has registered nothing.
func (o *OAuth) introspectionJWT(caller storage.Client, answer map[string]any) (string, error) {
	alg := caller.Metadata.IntrospectionSignedResponseAlg
	if alg == "" {
		alg = "RS256"
	}
	return o.keys.Sign(alg, "token-introspection+jwt", map[string]any{
		"iss": o.issuer, "aud": caller.ID, "iat": time.Now().Unix(), "token_introspection": answer,
	})
}

// aboutToken reads a client's request about a token. An empty token means that
// the request was answered.
func (o *OAuth) aboutToken(w http.ResponseWriter, r *http.Request) (caller storage.Client, token string, err error) {
	form, err := o.clientForm(r)
	if err != nil {
		return caller, "", err
	}
	caller, err = o.authenticate(r.Context(), r, form)
	if err != nil {
		o.fail(w, r, err)
		return caller, "", nil
	}
	web.Note(r.Context(), "client_id", caller.ID)
	if form.Get("token") == "" {
		o.fail(w, r, fosite.ErrInvalidRequest.WithHint("token is missing."))
	}
	return caller, form.Get("token"), nil
}

// introspect describes a live token; for anything else it says
// {"active": false} and no more (RFC 7662, Section 2.2).
func (o *OAuth) introspect(r *http.Request, caller storage.Client, token string) (map[string]any, error) {
	inactive := map[string]any{"active": false}
	t, g, err := o.accessToken(r.Context(), token)
	refresh := errors.Is(err, storage.ErrNotFound)
	if refresh {
		t, g, err = o.refreshAsToken(r, token)
	}
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrSpent) {
		return inactive, nil
	} else if err != nil {
		return nil, err
	}
	if !o.concerns(caller, t) {
		return inactive, nil
	}
	answer := map[string]any{
		"active": true, "iss": o.issuer, "client_id": t.ClientID, "scope": joined(t.Scopes),
		"aud": t.Audience, "iat": t.CreatedAt.Unix(), "exp": t.ExpiresAt.Unix(), "sub": t.ClientID,
	}
	if !refresh {
		answer["token_type"] = "Bearer"
	}
	if t.PatientID != "" {
		// RFC 9470, Section 6.2: how and when the patient was authenticated.
		answer["sub"], answer["acr"], answer["auth_time"] = g.Sub(), g.ACR, g.AuthTime.Unix()
		answer["sid"] = g.SID()
	}
	return answer, nil
}

// refreshAsToken finds a live refresh token, in the shape of an access token.
func (o *OAuth) refreshAsToken(r *http.Request, token string) (storage.AccessToken, storage.Grant, error) {
	now := storage.Now()
	t, err := o.db.RefreshToken(r.Context(), storage.Digest(token))
	if err != nil {
		return storage.AccessToken{}, storage.Grant{}, err
	}
	if t.UsedAt != nil || !now.Before(t.ExpiresAt) {
		return storage.AccessToken{}, storage.Grant{}, storage.ErrSpent
	}
	g, err := o.db.Grant(r.Context(), t.GrantID, now)
	return storage.AccessToken{
		GrantID: g.ID, ClientID: g.ClientID, PatientID: g.PatientID, SessionID: g.SessionID,
		Scopes: g.Scopes, Audience: g.Audience, CreatedAt: t.CreatedAt, ExpiresAt: t.ExpiresAt,
	}, g, err
}

// concerns reports whether t is the caller's own or meant for it: for the
// issuer's resource servers, or for a resource that it is registered to serve.
func (o *OAuth) concerns(caller storage.Client, t storage.AccessToken) bool {
	if t.ClientID == caller.ID {
		return true
	}
	for _, a := range t.Audience {
		if a == o.issuer || a == caller.ID || slices.Contains(caller.Audience, a) {
			return true
		}
	}
	return false
}
