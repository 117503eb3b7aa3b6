package oauth

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ory/fosite"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// grantTypes lists what the token endpoint serves.
var grantTypes = []string{"authorization_code", "refresh_token", "client_credentials", grantDevice}

// redeemed names the parameter of what a grant redeems.
var redeemed = map[string]string{
	"authorization_code": "code", "refresh_token": "refresh_token", grantDevice: "device_code",
}

// onceOnly names what is redeemed, in grants of something for one use.
var onceOnly = map[string]string{"authorization_code": "code", grantDevice: "device"}

// Token handles POST /oauth2/token (RFC 6749, Section 3.2).
func (o *OAuth) Token(w http.ResponseWriter, r *http.Request) error {
	form, err := o.clientForm(r, "resource")
	if err != nil {
		return err
	}
	kind := form.Get("grant_type")
	if err := knownGrant(kind); err != nil {
		tokenRequests.WithLabelValues("unknown", protocol(err).Code).Inc()
		o.fail(w, r, err)
		return nil
	}
	web.Note(r.Context(), "grant_type", kind)
	// RFC 6749, Section 5.2, invalid_request: "The request is missing a required
	// parameter".
	if name := redeemed[kind]; name != "" && !form.Has(name) {
		err := fosite.ErrInvalidRequest.WithHintf("%s is missing.", name)
		tokenRequests.WithLabelValues(kind, protocol(err).Code).Inc()
		o.fail(w, r, err)
		return nil
	}
	r = r.WithContext(withCaller(r.Context()))
	answer, err := o.token(r, form)
	if errors.Is(err, storage.ErrSpent) && kind == "refresh_token" {
		// Another request with the same token was faster. Asking again finds
		// what that one left: the same successor for both.
		answer, err = o.token(r, form)
	}
	if err != nil {
		tokenRequests.WithLabelValues(kind, protocol(err).Code).Inc()
		o.fail(w, r, err)
		return nil
	}
	tokenRequests.WithLabelValues(kind, "ok").Inc()
	web.Event(r.Context(), "oauth.token.issued")
	writeJSON(w, http.StatusOK, answer)
	return nil
}

func knownGrant(kind string) error {
	if kind == "" {
		return fosite.ErrInvalidRequest.WithHint("grant_type is missing.")
	}
	for _, g := range grantTypes {
		if g == kind {
			return nil
		}
	}
	return fosite.ErrUnsupportedGrantType.WithHint("grant_type is not supported.")
}

// token runs fosite. Only the second half is one transaction: what the first
// half revokes because of a replay must stand although the request fails.
func (o *OAuth) token(r *http.Request, form url.Values) (map[string]any, error) {
	ctx := withRecall(r.Context())
	req := r.WithContext(ctx)
	req.Form, req.PostForm = form, form
	g := newGrant()
	ar, err := o.fosite.NewAccessRequest(ctx, req, g)
	if ar != nil && ar.GetClient() != nil && ar.GetClient().GetID() != "" {
		web.Note(ctx, "client_id", ar.GetClient().GetID())
	}
	if err != nil {
		return nil, err
	}
	if !ar.GetClient().GetGrantTypes().Has(form.Get("grant_type")) {
		return nil, fosite.ErrUnauthorizedClient.WithHint("The client may not use this grant.")
	}
	switch resources := form["resource"]; {
	case form.Get("grant_type") == "client_credentials":
		if err := o.grantToClient(ar, resources); err != nil {
			return nil, err
		}
	case len(resources) > 0:
		// RFC 8707, Section 2.2: the token is for those of the granted resources
		// that this request names.
		g := ar.GetSession().(*grant)
		if !subset(resources, g.Audience) {
			return nil, errTarget
		}
		g.audience = resources
	}
	var resp fosite.AccessResponder
	err = o.db.Tx(ctx, func(ctx context.Context) error {
		if err := o.stillMay(ctx, ar); err != nil {
			return err
		}
		var err error
		resp, err = o.fosite.NewAccessResponse(ctx, ar)
		return err
	})
	if err != nil {
		if kind := onceOnly[form.Get("grant_type")]; kind != "" && errors.Is(err, storage.ErrSpent) {
			// The code went to another request a moment ago: a replay all the same.
			// RFC 6749, Section 4.1.2: "SHOULD revoke (when possible) all tokens
			// previously issued based on that authorization code."
			if revoke := o.db.RevokeGrant(ctx, ar.GetID(), kind+" replayed", storage.Now()); revoke != nil {
				return nil, revoke
			}
			noteReplay(ctx, kind)
		}
		return nil, err
	}
	resp.SetTokenType("Bearer") // RFC 6750, Section 4
	resp.SetExpiresIn(time.Until(ar.GetSession().GetExpiresAt(fosite.AccessToken)).Round(time.Second))
	return resp.ToMap(), nil
}

// stillMay holds, in the transaction that issues tokens, what they rest on: the client
// as it was authenticated, and the grant.
func (o *OAuth) stillMay(ctx context.Context, ar fosite.AccessRequester) error {
	was := ar.GetClient().(client).Client
	if err := o.db.HoldClient(ctx, was.ID); errors.Is(err, storage.ErrNotFound) {
		return errClient
	} else if err != nil {
		return err
	}
	now, err := o.db.Client(ctx, was.ID)
	if err != nil {
		return err
	}
	for _, s := range was.Secrets.V {
		if was.UsesSecret() && !slices.ContainsFunc(now.Secrets.V, func(n storage.ClientSecret) bool { return bytes.Equal(n.Digest, s.Digest) }) {
			return errClient // taken away, perhaps the very one that was shown
		}
	}
	g := ar.GetSession().(*grant)
	switch {
	case !slices.Equal(now.AuthMethods, was.AuthMethods), !bytes.Equal(now.Metadata.JWKS, was.Metadata.JWKS), now.Metadata.JWKSURI != was.Metadata.JWKSURI:
		return errClient
	case !now.GrantTypes.Has(ar.GetGrantTypes()...):
		return fosite.ErrUnauthorizedClient.WithHint("The client may not use this grant.")
	case g.code.RedirectURI != "" && !matchRedirect(now, g.code.RedirectURI):
		return fosite.ErrInvalidGrant.WithHint("The redirect URI of the code is registered no more.")
	case !now.Scopes.Has(ar.GetGrantedScopes()...), !now.Scopes.Has(rests(g.Scopes, g.Claims.V)...):
		return fosite.ErrInvalidScope.WithHint("The client may not ask any more for what was granted.")
	case g.Grant.ID == "":
		return nil
	}
	if err := o.db.HoldGrant(ctx, g.Grant.ID); errors.Is(err, storage.ErrSpent) {
		return fosite.ErrInvalidGrant.WithHint("The grant has ended.")
	} else if err != nil {
		return err
	}
	return nil
}

// noteReplay tells operators that something for one use was presented again.
func noteReplay(ctx context.Context, kind string) {
	replays.WithLabelValues(kind).Inc()
	web.Event(ctx, "oauth."+kind+".replayed")
}

// grantToClient grants a client that acts for itself what it asked for.
// OpenID Connect's scopes are about a person, and there is none.
func (o *OAuth) grantToClient(ar fosite.AccessRequester, resources []string) error {
	g := ar.GetSession().(*grant)
	g.ClientID = ar.GetClient().GetID()
	for _, s := range ar.GetRequestedScopes() {
		if Scopes.Has(s) {
			return fosite.ErrInvalidScope.WithHintf("The scope %s is about a patient.", s)
		}
		ar.GrantScope(s)
	}
	if len(resources) == 0 {
		resources = []string{o.issuer}
	}
	if err := o.matchAudience(ar.GetClient().GetAudience(), resources); err != nil {
		return err
	}
	for _, a := range resources {
		ar.GrantAudience(a)
	}
	return nil
}

// subset reports whether all of some are among all.
func subset(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// clientForm reads the body of a client's own request. Credentials in the URL
// are refused (RFC 6749, Section 2.3.1), whatever they are.
func (o *OAuth) clientForm(r *http.Request, repeatable ...string) (url.Values, error) {
	form, err := web.Form(r, repeatable...)
	if err != nil {
		return nil, err
	}
	if strings.Contains(r.URL.RawQuery, "=") {
		return nil, web.Invalid("query", "parameters belong in the body")
	}
	return form, nil
}
