package oauth

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// UserInfo handles GET and POST /oauth2/userinfo (OpenID Connect Core, Section 5.3).
func (o *OAuth) UserInfo(w http.ResponseWriter, r *http.Request) error {
	token, err := bearer(r)
	if err != nil {
		return err
	}
	if token == "" {
		// RFC 6750, Section 3.1: no error code where no token was sent.
		unauthorized(w, "")
		return nil
	}
	t, g, err := o.accessToken(r.Context(), token)
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrSpent) ||
		(err == nil && (t.PatientID == "" || !slices.Contains(t.Audience, o.issuer))) {
		web.Event(r.Context(), "oauth.token.refused")
		unauthorized(w, `, error="invalid_token", error_description="The access token is unknown, expired, revoked or for another resource"`)
		return nil
	} else if err != nil {
		return err
	}
	web.Note(r.Context(), "client_id", g.ClientID)
	if !t.Scopes.Has("openid") {
		w.Header().Set("WWW-Authenticate", `Bearer realm="patauth", error="insufficient_scope", scope="openid"`)
		writeJSON(w, http.StatusForbidden, oauthError{Code: "insufficient_scope"})
		return nil
	}
	claims, err := o.about(r.Context(), t.PatientID, t.Scopes, open(g, t.Scopes, g.Claims.V.UserInfo))
	if err != nil {
		return err
	}
	claims["sub"] = g.Sub() // Section 5.3.2: the same as in the ID token
	c, err := o.db.Client(r.Context(), g.ClientID)
	if err != nil {
		return err
	}
	alg := c.Metadata.UserinfoSignedResponseAlg
	if alg == "" {
		writeJSON(w, http.StatusOK, claims)
		return nil
	}
	// Section 5.3.2: "If signed, the UserInfo Response MUST contain the Claims iss
	// (issuer) and aud (audience) as members."
	claims["iss"], claims["aud"], claims["iat"] = o.issuer, c.ID, time.Now().Unix()
	jwt, err := o.keys.Sign(alg, "JWT", claims)
	if err != nil {
		return err
	}
	writeJWT(w, "application/jwt", jwt)
	return nil
}

// writeJWT answers with a signed JWT.
func writeJWT(w http.ResponseWriter, contentType, jwt string) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.Write([]byte(jwt))
}

func unauthorized(w http.ResponseWriter, detail string) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="patauth"`+detail)
	if detail == "" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	writeJSON(w, http.StatusUnauthorized, oauthError{Code: "invalid_token"})
}

// bearer takes the access token from the Authorization header or, in a POST,
// from the body (RFC 6750, Sections 2.1 and 2.2); never from the URL.
func bearer(r *http.Request) (string, error) {
	if r.URL.Query().Has("access_token") {
		return "", web.Invalid("access_token", "does not belong in the URL")
	}
	token, inHeader := bearerHeader(r)
	if r.Method != http.MethodPost || r.ContentLength == 0 {
		return token, nil
	}
	form, err := web.Form(r)
	switch {
	case inHeader && errors.Is(err, web.ErrUnsupportedMediaType):
		return token, nil // a body of another kind holds no token
	case err != nil:
		return "", err
	case inHeader && form.Has("access_token"):
		// RFC 6750, Section 3.1: to use "more than one method for including an access
		// token" is invalid_request.
		return "", web.Invalid("access_token", "is in the header and in the body")
	case inHeader:
		return token, nil
	}
	return form.Get("access_token"), nil
}

// bearerHeader takes a token from the Authorization header.
func bearerHeader(r *http.Request) (token string, ok bool) { return authorization(r, "Bearer") }
