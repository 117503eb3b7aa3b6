package oauth

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/mux"
	"github.com/ory/fosite"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// flowCookie binds authorization requests to one browser; all its tabs share it.
const flowCookie = "flow"

// maxQuery bounds an authorization request, in bytes.
const maxQuery = 8 << 10

// Authorize handles GET and POST /oauth2/auth: it parses the request once,
// saves it and sends the browser to the dispatcher. Until the redirect URI is
// known to be the client's, an error is a page here, never a redirect
// (RFC 6749, Section 4.1.2.1).
func (o *OAuth) Authorize(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		// The browser sends no Lax cookie with another site's POST; it does
		// with the GET that follows (OpenID Connect Core, Section 3.1.2.1).
		form, err := web.Form(r, "resource")
		if err != nil {
			return err
		}
		query := form.Encode()
		if len(query) > maxQuery {
			return web.ErrTooLarge
		}
		return web.Redirect(w, r, "/oauth2/auth?"+query)
	}
	if len(r.URL.RawQuery) > maxQuery {
		return web.ErrTooLarge
	}
	params, err := web.Query(r, "resource")
	if err != nil {
		return err
	}
	c, err := o.db.Client(r.Context(), params.Get("client_id"))
	if errors.Is(err, storage.ErrNotFound) {
		return web.Invalid("client_id", "is not registered")
	} else if err != nil {
		return err
	}
	web.Note(r.Context(), "client_id", c.ID)
	if err := checkRedirect(c, params.Get("redirect_uri")); err != nil {
		web.Event(r.Context(), "oauth.redirect.refused")
		return err
	}
	q, err := read(c, params, o.issuer, o.keys)
	if err != nil {
		return o.failRedirect(w, r, q, err)
	}
	browser, err := o.browser(w, r)
	if err != nil {
		return err
	}
	a := storage.AuthRequest{Binding: storage.Digest(browser), ClientID: c.ID, Params: params}
	if err := o.db.CreateAuthRequest(r.Context(), &a); err != nil {
		return o.failRedirect(w, r, q, err)
	}
	return web.Redirect(w, r, "/oauth2/auth/"+a.ID)
}

func checkRedirect(c storage.Client, uri string) error {
	if uri == "" {
		return web.Invalid("redirect_uri", "is missing")
	}
	u, err := url.Parse(uri)
	if err != nil || !matchRedirect(c, uri) || !secureRedirect(u) {
		return web.Invalid("redirect_uri", "is not registered for this client")
	}
	return nil
}

// browser is the secret in the flow cookie, set where there is none.
func (o *OAuth) browser(w http.ResponseWriter, r *http.Request) (string, error) {
	v, err := web.ReadCookie(r, o.issuer, flowCookie)
	if errors.Is(err, http.ErrNoCookie) {
		v, err = storage.NewHandle("pa_fl_"), nil
		http.SetCookie(w, web.Cookie(o.issuer, flowCookie, v, 0))
	}
	return v, err
}

// load finds the request of the path or form and checks that this browser began it.
func (o *OAuth) load(r *http.Request, id string) (storage.AuthRequest, request, error) {
	a, err := o.db.AuthRequest(r.Context(), id, storage.Now())
	if err != nil {
		return a, request{}, err
	}
	if err := o.began(r, a); err != nil {
		return a, request{}, err
	}
	c, err := o.db.Client(r.Context(), a.ClientID)
	if err != nil {
		return a, request{}, err
	}
	if a.DeviceID != "" {
		q, err := o.loadDevice(r.Context(), a, c)
		return a, q, err
	}
	// The client may have changed since: what was registered then must be now.
	if err := checkRedirect(c, a.Params.Get("redirect_uri")); err != nil {
		return a, request{}, err
	}
	web.Note(r.Context(), "client_id", c.ID)
	q, fault := read(c, a.Params, o.issuer, o.keys)
	q.requestedAt, q.denied, q.fault = a.RequestedAt, a.DeniedAt != nil, fault
	return a, q, nil
}

// began checks that this browser began a.
func (o *OAuth) began(r *http.Request, a storage.AuthRequest) error {
	browser, err := web.ReadCookie(r, o.issuer, flowCookie)
	if err != nil && !errors.Is(err, http.ErrNoCookie) {
		return err
	}
	if subtle.ConstantTimeCompare(storage.Digest(browser), a.Binding) != 1 {
		web.Event(r.Context(), "oauth.flow.moved")
		return web.ErrDenied
	}
	return nil
}

// Dispatch handles GET /oauth2/auth/{id}: it asks next and sends the browser
// there. Steps return here and never lead to one another.
func (o *OAuth) Dispatch(w http.ResponseWriter, r *http.Request) error {
	a, q, err := o.load(r, mux.Vars(r)["id"])
	if err != nil {
		return ended(w, r, a, err)
	}
	now := storage.Now()
	f, err := o.facts(r, q)
	if err != nil {
		return err
	}
	s, err := next(q, f, now)
	if err != nil {
		return o.finish(w, r, a, q, err)
	}
	flow := web.Flow{Request: a.ID}
	switch s {
	case stepLogin:
		// OpenID Connect Prompt Create 1.0, Section 4.
		if q.prompt.Has("create") {
			return web.Redirect(w, r, "/register"+flow.Query())
		}
		return web.Redirect(w, r, "/login"+flow.Query())
	case stepSecond:
		return web.Redirect(w, r, "/login/second"+flow.Query())
	case stepEnrol:
		return web.Redirect(w, r, "/login/enrol"+flow.Query())
	case stepConsent:
		return web.Redirect(w, r, "/consent"+flow.Query())
	}
	return o.issue(w, r, a, q, f)
}

func (o *OAuth) facts(r *http.Request, q request) (facts, error) {
	var f facts
	s, ok := session.From(r.Context())
	if !ok {
		return f, nil
	}
	f.session = s
	var err error
	if f.subject, err = o.subject(r.Context(), q.client, s.PatientID); err != nil {
		return f, err
	}
	if f.second, err = session.Second(r.Context(), o.db, s.PatientID, q.need()); err != nil {
		return f, err
	}
	c, err := o.db.Consent(r.Context(), s.PatientID, q.client.ID)
	if err == nil {
		f.consent = &c
	} else if !errors.Is(err, storage.ErrNotFound) {
		return f, err
	}
	return f, nil
}

// finish ends a request with an error for the client.
func (o *OAuth) finish(w http.ResponseWriter, r *http.Request, a storage.AuthRequest, q request, cause error) error {
	if err := o.db.FinishAuthRequest(r.Context(), a.ID, storage.Now()); err != nil {
		return err
	}
	return o.failRedirect(w, r, q, cause)
}

// issue answers the request with a code, once: request, grant and code are one
// transaction.
func (o *OAuth) issue(w http.ResponseWriter, r *http.Request, a storage.AuthRequest, q request, f facts) error {
	now := storage.Now()
	g := newGrant()
	g.Grant = q.grant(f, now)
	g.code = storage.Code{
		RedirectURI: a.Params.Get("redirect_uri"), CodeChallenge: q.challenge, Nonce: q.nonce, RequestedAt: a.RequestedAt,
	}
	ar := fosite.NewAuthorizeRequest()
	ar.ID, ar.RequestedAt, ar.Client = g.Grant.ID, a.RequestedAt, client{q.client}
	ar.RedirectURI, ar.ResponseTypes, ar.State = q.redirect, fosite.Arguments{"code"}, q.state
	ar.RequestedScope, ar.GrantedScope = fosite.Arguments(q.scopes), fosite.Arguments(q.scopes)
	ar.RequestedAudience, ar.GrantedAudience = fosite.Arguments(q.audience), fosite.Arguments(q.audience)
	ar.Form = url.Values{"redirect_uri": {g.code.RedirectURI}}
	var resp fosite.AuthorizeResponder
	err := o.db.Tx(r.Context(), func(ctx context.Context) error {
		if err := o.db.FinishAuthRequest(ctx, a.ID, now); err != nil {
			return err
		}
		var err error
		resp, err = o.fosite.NewAuthorizeResponse(ctx, ar, g)
		return err
	})
	if errors.Is(err, storage.ErrSpent) {
		return err // answered already, in another tab perhaps: a page, not a second answer
	}
	if err != nil {
		return o.failRedirect(w, r, q, err)
	}
	authorizations.WithLabelValues("ok").Inc()
	web.Event(r.Context(), "oauth.code.issued", "patient_id", g.PatientID)
	return o.respond(w, r, q, url.Values{"code": {resp.GetCode()}})
}

// life is how long the grant of q lasts at most.
func (q request) life() time.Duration { return lifetime(q.client.Metadata.Lifetimes.Grant, grantLife) }

// grant is what a request whose needs are met gives its client.
func (q request) grant(f facts, now time.Time) storage.Grant {
	s := f.session
	g := storage.Grant{
		ID: storage.NewID(), ClientID: q.client.ID, PatientID: s.PatientID, SessionID: s.ID,
		Scopes: q.scopes, Audience: q.audience, Offline: q.scopes.Has("offline_access"), Claims: storage.JSON[storage.Claims]{V: q.claims},
		AuthTime: s.AuthTime, ACR: session.ACR(s), AMR: session.AMR(s),
		CreatedAt: now, ExpiresAt: now.Add(q.life()),
	}
	if f.subject != s.PatientID {
		g.Subject = f.subject
	}
	// Of the classes that are essential the strongest one that was reached: a
	// client that names what it knows is told nothing else.
	told := 0
	for _, w := range q.acr {
		if n := session.Strength(w); n > told && n <= session.Strength(session.ACR(s)) {
			told, g.ACR = n, w
		}
	}
	return g
}

// respond sends p to the client's redirect URI, with state as it came and iss
// (RFC 9207, Section 2). The redirect is a 303 (RFC 9700, Section 4.12).
func (o *OAuth) respond(w http.ResponseWriter, r *http.Request, q request, p url.Values) error {
	if q.state != "" {
		p.Set("state", q.state)
	}
	p.Set("iss", o.issuer)
	if q.mode == "form_post" {
		// OAuth 2.0 Form Post Response Mode, Section 2.
		web.FormsLeave(w)
		view := formPostView{Action: q.redirect.String()}
		for _, k := range []string{"code", "error", "error_description", "state", "iss"} {
			if p.Has(k) {
				view.Fields = append(view.Fields, formField{k, p.Get(k)})
			}
		}
		return o.site.Render(w, r, http.StatusOK, "oauth_form_post", view)
	}
	u := *q.redirect
	query := u.Query()
	for k, v := range p {
		query[k] = v
	}
	u.RawQuery = query.Encode()
	w.Header().Set("Location", u.String())
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

type formPostView struct {
	Action string
	Fields []formField
}

type formField struct{ Name, Value string }
