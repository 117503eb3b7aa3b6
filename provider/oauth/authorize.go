package oauth

import (
	"context"
	"encoding/base64"
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

// maxQuery bounds an authorization request, in bytes.
const maxQuery = 8 << 10

// Requests that are too long for an address are rare, and each leaves a row.
var (
	beginsOfNetwork = web.Rate{PerMinute: 60, Burst: 120}
	beginsOfAll     = web.Rate{PerMinute: 1200, Burst: 1200}
)

// Authorize handles GET and POST /oauth2/auth: it parses the request once and
// sends the browser to the dispatcher with its handle. Until the redirect URI is
// known to be the client's, an error is a page here, never a redirect
// (RFC 6749, Section 4.1.2.1).
func (o *OAuth) Authorize(w http.ResponseWriter, r *http.Request) error {
	var params url.Values
	var err error
	if r.Method == http.MethodPost {
		params, err = web.Form(r, "resource")
	} else {
		params, err = web.Query(r, "resource")
	}
	if err != nil {
		return err
	}
	if len(r.URL.RawQuery) > maxQuery || len(params.Encode()) > maxQuery {
		return web.ErrTooLarge
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
	q, err := o.parse(c, params)
	if err != nil {
		return o.failRedirect(w, r, q, err)
	}
	a := storage.NewAuthRequest(c.ID, params)
	if r.Method == http.MethodPost {
		// The browser sends no Lax cookie with another site's POST; it does with
		// the GET that follows (OpenID Connect Core, Section 3.1.2.1), and that
		// takes the request up.
		return o.lead(w, r, a)
	}
	return o.takeUp(w, r, a, q)
}

// takeUp begins the request in this browser. One that must show nothing is
// decided at once: it needs nothing of the browser but the session
// (OpenID Connect Core, Section 3.1.2.1, prompt). A handle that no browser has taken
// up may be in many hands, so each browser begins a request of its own: its id, and
// with it the code, is nobody else's.
func (o *OAuth) takeUp(w http.ResponseWriter, r *http.Request, a storage.AuthRequest, q request) error {
	a = storage.NewAuthRequest(a.ClientID, a.Params)
	q.requestedAt = a.RequestedAt
	if q.prompt.Has("none") {
		f, err := o.facts(r, q)
		if err == nil {
			_, err = next(q, f, a.RequestedAt)
		}
		if err != nil {
			return o.failRedirect(w, r, q, err)
		}
		return o.issue(w, r, a, q, f)
	}
	a.Binding = o.site.Bind(w, r)
	return o.lead(w, r, a)
}

// lead sends the browser to the dispatcher. What is too long for an address is
// kept here, at a pace.
func (o *OAuth) lead(w http.ResponseWriter, r *http.Request, a storage.AuthRequest) error {
	if !o.db.FitsHandle(a) {
		if err := o.begins.Pass(r); err != nil {
			return err
		}
		if err := o.db.StoreAuthRequest(r.Context(), &a); err != nil {
			return err
		}
	}
	return web.Redirect(w, r, "/oauth2/auth/"+o.db.Handle(a))
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

// load finds the request of a handle and checks that this browser began it.
func (o *OAuth) load(r *http.Request, handle string) (storage.AuthRequest, request, error) {
	a, err := o.db.AuthRequest(r.Context(), handle, storage.Now())
	if err != nil && !errors.Is(err, storage.ErrSpent) {
		return a, request{}, err
	}
	if !o.site.Bound(r, a.Binding) {
		web.Event(r.Context(), "oauth.flow.moved")
		return a, request{}, web.ErrDenied
	}
	if err != nil {
		return a, request{}, err
	}
	q, err := o.read(r.Context(), a)
	return a, q, err
}

// read is what a asks for, by what its client is now.
func (o *OAuth) read(ctx context.Context, a storage.AuthRequest) (request, error) {
	c, err := o.db.Client(ctx, a.ClientID)
	if err != nil {
		return request{}, err
	}
	if a.DeviceID != "" {
		return o.loadDevice(ctx, a, c)
	}
	// The client may have changed since: what was registered then must be now.
	if err := checkRedirect(c, a.Params.Get("redirect_uri")); err != nil {
		return request{}, err
	}
	web.Note(ctx, "client_id", c.ID)
	q, fault := o.parse(c, a.Params)
	q.requestedAt, q.denied, q.fault = a.RequestedAt, a.DeniedAt != nil, fault
	return q, nil
}

// Dispatch handles GET /oauth2/auth/{id}: it asks next and sends the browser
// there. Steps return here and never lead to one another.
func (o *OAuth) Dispatch(w http.ResponseWriter, r *http.Request) error {
	handle := mux.Vars(r)["id"]
	a, err := o.db.OpenAuthRequest(r.Context(), handle)
	if err == nil && a.Binding == nil && !a.Over(storage.Now()) {
		q, err := o.read(r.Context(), a)
		if err != nil {
			return err
		}
		if q.fault != nil {
			return o.failRedirect(w, r, q, q.fault)
		}
		return o.takeUp(w, r, a, q)
	}
	flow := web.Flow{Request: handle}
	a, q, err := o.load(r, handle)
	switch over := errors.Is(err, storage.ErrSpent); {
	case over && a.DeviceID != "":
		return web.Redirect(w, r, settled(flow, a))
	case over && a.IssuedAt != nil:
		return o.again(w, r, a)
	}
	if err != nil {
		return o.ended(w, r, a, err)
	}
	now := storage.Now()
	f, err := o.facts(r, q)
	if err != nil {
		return err
	}
	s, err := next(q, f, now)
	if err != nil {
		// Nothing was given away, so the client may be told as often as it asks.
		return o.failRedirect(w, r, q, err)
	}
	switch s {
	case stepLogin:
		// OpenID Connect Prompt Create 1.0, Section 4. Who has registered signs in.
		if q.prompt.Has("create") && !a.ActedAt.After(a.RequestedAt) {
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
	s, ok := session.From(r.Context())
	if !ok {
		return facts{}, nil
	}
	return o.factsOf(r.Context(), q, s)
}

// factsOf are the facts of a session.
func (o *OAuth) factsOf(ctx context.Context, q request, s *storage.Session) (facts, error) {
	f := facts{session: s}
	var err error
	if f.subject, err = o.subject(ctx, q.client, s.PatientID); err != nil {
		return f, err
	}
	f.sid = base64.RawURLEncoding.EncodeToString(o.db.MAC("sid", []byte(f.subject+" "+s.ID)))
	if f.second, err = session.Second(ctx, o.db, s.PatientID, q.need()); err != nil {
		return f, err
	}
	c, err := o.db.Consent(ctx, s.PatientID, q.client.ID)
	if err == nil {
		f.consent = &c
	} else if !errors.Is(err, storage.ErrNotFound) {
		return f, err
	}
	return f, nil
}

// errMoved says that what a request was decided on has changed while it was answered:
// the dispatcher decides anew.
var errMoved = errors.New("what was decided on has changed")

// still asks next once more, inside the transaction that acts on its answer, and holds
// what the answer rests on: session, client and consent. It returns request and facts
// as they are now; errMoved where the answer is another than want.
func (o *OAuth) still(ctx context.Context, a storage.AuthRequest, s *storage.Session, want step) (request, facts, error) {
	if err := o.db.HoldSession(ctx, s.ID); err != nil {
		return request{}, facts{}, errMoved
	}
	if err := o.db.HoldClient(ctx, a.ClientID); err != nil {
		return request{}, facts{}, err
	}
	if want == stepIssue {
		if err := o.db.HoldConsent(ctx, s.PatientID, a.ClientID); err != nil {
			return request{}, facts{}, err
		}
	}
	q, err := o.read(ctx, a)
	if err != nil {
		return q, facts{}, err
	}
	f, err := o.factsOf(ctx, q, s)
	if err != nil {
		return q, f, err
	}
	if got, err := next(q, f, storage.Now()); err != nil || got != want {
		return q, f, errMoved
	}
	return q, f, nil
}

// issue answers the request with a code, once: request, grant and code are one
// transaction.
func (o *OAuth) issue(w http.ResponseWriter, r *http.Request, a storage.AuthRequest, q request, f facts) error {
	now := storage.Now()
	g := newGrant()
	g.Grant, g.value = q.grant(f, now), o.codeOf(a.ID, f.session.ID)
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
		_, f, err := o.still(ctx, a, f.session, stepIssue)
		if err != nil {
			return err
		}
		if a.Binding != nil {
			if err := o.db.FinishAuthRequest(ctx, a, now); err != nil {
				return err
			}
		}
		g.Grant = q.grant(f, now)
		g.Grant.ID = ar.ID
		resp, err = o.fosite.NewAuthorizeResponse(ctx, ar, g)
		return err
	})
	if errors.Is(err, errMoved) || errors.Is(err, storage.ErrNotFound) || errors.Is(err, web.ErrInvalid) {
		return web.Redirect(w, r, web.Flow{Request: o.db.Handle(a)}.Done())
	}
	if errors.Is(err, storage.ErrSpent) {
		return o.again(w, r, a) // answered at this very moment
	}
	if err != nil {
		return o.failRedirect(w, r, q, err)
	}
	authorizations.WithLabelValues("ok").Inc()
	web.Event(r.Context(), "oauth.code.issued", "patient_id", g.PatientID)
	return o.respond(w, r, q, url.Values{"code": {resp.GetCode()}})
}

// again answers a request that has been answered. As long as the client has not
// redeemed the code, the same browser and session get the same answer: a second
// press, or a reload on a bad line. There is never a second code.
func (o *OAuth) again(w http.ResponseWriter, r *http.Request, a storage.AuthRequest) error {
	ctx, now := r.Context(), storage.Now()
	s, ok := session.From(ctx)
	if !ok {
		return o.ended(w, r, a, storage.ErrSpent)
	}
	code := o.codeOf(a.ID, s.ID)
	c, err := o.db.Code(ctx, storage.Digest(code))
	if err == nil && now.Before(c.ExpiresAt) {
		var g storage.Grant
		if g, err = o.db.Grant(ctx, c.GrantID, now); err == nil && g.SessionID == s.ID {
			q, err := o.read(ctx, a)
			if err != nil {
				return err
			}
			return o.respond(w, r, q, url.Values{"code": {code}})
		}
	}
	if err != nil && !errors.Is(err, storage.ErrSpent) && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	return o.ended(w, r, a, storage.ErrSpent)
}

// life is how long the grant of q lasts at most.
func (q request) life() time.Duration { return lifetime(q.client.Metadata.Lifetimes.Grant, grantLife) }

// grant is what a request whose needs are met gives its client.
func (q request) grant(f facts, now time.Time) storage.Grant {
	s := f.session
	g := storage.Grant{
		ID: storage.NewID(), ClientID: q.client.ID, PatientID: s.PatientID, SessionID: s.ID,
		Scopes: q.scopes, Audience: q.audience, Offline: q.scopes.Has("offline_access"), Claims: storage.JSON[storage.Claims]{V: q.claims},
		AuthTime: session.AuthTime(s), ACR: session.ACR(s), AMR: session.AMR(s),
		CreatedAt: now, ExpiresAt: now.Add(q.life()),
	}
	if f.subject != s.PatientID {
		// OpenID Connect Core, Section 8.1: no sector may learn from the sid, either,
		// that its patient is another sector's.
		g.Subject, g.ToldSID = f.subject, f.sid
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
