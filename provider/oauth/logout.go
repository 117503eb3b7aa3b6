package oauth

import (
	"context"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

type logoutView struct {
	Client string // who asks, or ""
	Fields []formField
}

// A leave is a request to sign out, checked.
type leave struct {
	client *storage.Client // nil where nobody was named
	hint   *hint           // of an ID token for client; nil where there is none to trust
	back   *url.URL        // registered, with state; nil where there is none
}

// readLeave checks the parameters of RP-Initiated Logout 1.0, Section 2. A hint
// that cannot be trusted counts as absent, and spoils the way back (Section 4:
// "any operations requiring the information that failed to correctly validate
// MUST be aborted"): the patient is asked. A request that contradicts itself or
// what was registered is an ErrInvalid. logout_hint is ignored.
func (o *OAuth) readLeave(ctx context.Context, p url.Values) (leave, error) {
	var l leave
	spoilt := false
	if token := p.Get("id_token_hint"); token != "" {
		h, err := readHint(o.keys, token, o.issuer)
		if spoilt = err != nil; !spoilt {
			l.hint = &h
		}
	}
	id := p.Get("client_id")
	if l.hint != nil {
		// "the OP MUST verify that the Client Identifier matches the one used when
		// issuing the ID Token."
		if id != "" && !l.hint.audience(id) {
			return leave{}, web.Invalid("client_id", "is not whom the id_token_hint was issued to")
		} else if id == "" && len(l.hint.Audience) == 1 {
			id = l.hint.Audience[0]
		}
	}
	c, err := o.db.Client(ctx, id)
	if errors.Is(err, storage.ErrNotFound) {
		return leave{}, nil // nobody who could be trusted
	} else if err != nil {
		return leave{}, err
	}
	l.client = &c
	uri := p.Get("post_logout_redirect_uri")
	if uri == "" {
		return l, nil
	}
	// Section 3: "The OP also MUST NOT perform post-logout redirection if the
	// post_logout_redirect_uri value supplied does not exactly match one of the
	// previously registered post_logout_redirect_uris values."
	u, err := url.Parse(uri)
	if err != nil || !slices.Contains(c.PostLogoutRedirectURIs, uri) {
		return leave{}, web.Invalid("post_logout_redirect_uri", "is not registered for this client")
	}
	if !spoilt {
		l.back = u
		if state := p.Get("state"); state != "" {
			l.back = extended(u, url.Values{"state": {state}})
		}
	}
	return l, nil
}

// extended is u with more parameters; those it has stay as they are.
func extended(u *url.URL, more url.Values) *url.URL {
	longer := *u
	if longer.RawQuery != "" {
		longer.RawQuery += "&"
	}
	longer.RawQuery += more.Encode()
	return &longer
}

// ours reports whether the hint is about the session s: its sid says so, and its
// sub is what the client is told in that session. The sub is not compared with
// the patient, whom the client may know under another name (OpenID Connect Core,
// Section 8.1). A session that gave the client nothing is not the hint's.
func (o *OAuth) ours(ctx context.Context, l leave, s *storage.Session) (bool, error) {
	if l.hint == nil {
		return false, nil
	}
	g, err := o.db.SessionGrant(ctx, l.client.ID, s.ID)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	// A client may have been told the session's own id before it was given a sub of its own.
	named := l.hint.SID == g.SID() || l.hint.SID == s.ID
	return err == nil && named && g.PatientID == s.PatientID && g.Sub() == l.hint.Subject, err
}

// resent says that a form was sent on by a page of ours.
const resent = "resent"

// EndSession handles GET and POST /oauth2/logout. A client that shows an ID
// token of this very session is believed; otherwise the patient is asked, on
// a page outside /oauth2/ that other sites cannot post to (Section 6: "OPs SHOULD
// obtain explicit confirmation from the End-User").
func (o *OAuth) EndSession(w http.ResponseWriter, r *http.Request) error {
	read := web.Query
	if r.Method == http.MethodPost {
		read = web.Form
	}
	p, err := read(r)
	if err != nil {
		return err
	}
	r = spoken(r, p)
	l, err := o.readLeave(r.Context(), p)
	if err != nil {
		return err
	}
	s, signedIn := session.From(r.Context())
	switch {
	case l.hint != nil && signedIn:
		ours, err := o.ours(r.Context(), l, s)
		if err != nil {
			return err
		}
		if ours {
			return o.leave(w, r, l)
		}
	case l.hint != nil && r.Method == http.MethodPost && p.Get(resent) == "":
		return o.resend(w, r, l, p)
	case l.hint != nil:
		return o.leave(w, r, l)
	}
	q := url.Values{}
	for _, f := range l.fields(p) {
		q.Set(f.Name, f.Value)
	}
	return web.Redirect(w, r, "/logout?"+q.Encode())
}

// spoken is r, answered in the language that the client wishes for.
func spoken(r *http.Request, p url.Values) *http.Request {
	return r.WithContext(web.WithLang(r.Context(), p.Get("ui_locales")))
}

// fields are the parameters of p that the question needs. The hint has named the
// client, and a token has no place in an address.
func (l leave) fields(p url.Values) []formField {
	var out []formField
	if l.client != nil {
		out = append(out, formField{"client_id", l.client.ID})
	}
	names := []string{"ui_locales"}
	if l.back != nil {
		names = []string{"post_logout_redirect_uri", "state", "ui_locales"}
	}
	for _, k := range names {
		if v := p.Get(k); v != "" {
			out = append(out, formField{k, v})
		}
	}
	return out
}

// resend has the browser post the request again, from a page of ours: with a POST
// that begins at a client's page, it does not send our cookie (SameSite=Lax).
func (o *OAuth) resend(w http.ResponseWriter, r *http.Request, l leave, p url.Values) error {
	if l.back != nil {
		web.FormsLeave(w)
	}
	view := formPostView{Action: "/oauth2/logout", Fields: append(l.fields(p),
		formField{"id_token_hint", p.Get("id_token_hint")}, formField{resent, "1"})}
	return o.site.Render(w, r, http.StatusOK, "oauth_form_post", view)
}

// GetLogout handles GET /logout: the question.
func (o *OAuth) GetLogout(w http.ResponseWriter, r *http.Request) error {
	p, err := web.Query(r)
	if err != nil {
		return err
	}
	r = spoken(r, p)
	l, err := o.readLeave(r.Context(), p)
	if err != nil {
		return err
	}
	if _, ok := session.From(r.Context()); !ok && l.client == nil {
		return o.site.Render(w, r, http.StatusOK, "oauth_signed_out", signedOutView{})
	}
	view := logoutView{Fields: l.fields(p)}
	if l.client != nil {
		view.Client = l.client.Name
	}
	if l.back != nil {
		web.FormsLeave(w)
	}
	return o.site.Render(w, r, http.StatusOK, "oauth_logout", view)
}

// PostLogout handles POST /logout: the patient's yes.
func (o *OAuth) PostLogout(w http.ResponseWriter, r *http.Request) error {
	p, err := web.Form(r)
	if err != nil {
		return err
	}
	r = spoken(r, p)
	l, err := o.readLeave(r.Context(), p)
	if err != nil {
		return err
	}
	return o.leave(w, r, l)
}

type signedOutView struct {
	Frames []string
	// Back is registered, and may have a scheme that no template would trust.
	Back  template.URL
	After int // seconds
}

// framesFor is how long the frames of clients have before the page leads on.
const framesFor = 4

// leave ends the session, and with it the tokens that live no longer, and sends
// the browser back where that was registered: at once, or, where clients of the
// session sign out in a frame, after a page that shows these.
func (o *OAuth) leave(w http.ResponseWriter, r *http.Request, l leave) error {
	frames, err := o.frames(r.Context())
	if err != nil {
		return err
	}
	if err := session.End(w, r, o.db, o.issuer); err != nil {
		return err
	}
	web.Event(r.Context(), "auth.logout")
	if l.back != nil && len(frames) == 0 {
		w.Header().Set("Location", l.back.String())
		w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	view := signedOutView{Frames: frames, After: framesFor}
	if l.back != nil {
		view.Back = template.URL(l.back.String())
	}
	web.FrameSources(w, frames...)
	return o.site.Render(w, r, http.StatusOK, "oauth_signed_out", view)
}

// frames are the front-channel logout URIs of the clients of the session that is
// signed out (Front-Channel Logout 1.0, Section 3). Section 2: the OP "MAY add
// these query parameters", iss and sid, "and if either is included, both MUST be".
func (o *OAuth) frames(ctx context.Context) ([]string, error) {
	s, ok := session.From(ctx)
	if !ok {
		return nil, nil
	}
	clients, err := o.db.SessionClients(ctx, s.ID)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, c := range clients {
		u, err := url.Parse(c.Metadata.FrontchannelLogoutURI)
		if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
			continue // registers none
		}
		g, err := o.db.SessionGrant(ctx, c.ID, s.ID)
		if err != nil {
			return nil, err
		}
		out = append(out, extended(u, url.Values{"iss": {o.issuer}, "sid": {g.SID()}}).String())
	}
	return out, nil
}
