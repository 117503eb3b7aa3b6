package oauth

import (
	"errors"
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
	hint   *hint
	back   *url.URL // registered, with state; nil where there is none
}

// readLeave checks the parameters of RP-Initiated Logout 1.0, Section 2. What
// cannot be trusted counts as absent: the patient is asked, and not redirected.
func (o *OAuth) readLeave(r *http.Request, p url.Values) (leave, error) {
	var l leave
	if h, err := readHint(o.keys, p.Get("id_token_hint"), o.issuer); err == nil {
		l.hint = &h
	}
	id := p.Get("client_id")
	if l.hint != nil {
		// "the OP MUST verify that the Client Identifier matches the one used
		// when issuing the ID Token."
		if id != "" && !l.hint.audience(id) {
			l.hint = nil
		} else if id == "" && len(l.hint.Audience) == 1 {
			id = l.hint.Audience[0]
		}
	}
	if id == "" {
		return l, nil
	}
	c, err := o.db.Client(r.Context(), id)
	if errors.Is(err, storage.ErrNotFound) {
		l.hint = nil
		return l, nil
	} else if err != nil {
		return l, err
	}
	l.client = &c
	// Section 3: "the value MUST have been previously registered".
	if uri := p.Get("post_logout_redirect_uri"); uri != "" && slices.Contains(c.PostLogoutRedirectURIs, uri) {
		if u, err := url.Parse(uri); err == nil {
			if state := p.Get("state"); state != "" {
				q := u.Query()
				q.Set("state", state)
				u.RawQuery = q.Encode()
			}
			l.back = u
		}
	}
	return l, nil
}

// EndSession handles GET and POST /oauth2/logout. A client that shows an ID
// token of this very session is believed; otherwise the patient is asked, on
// a page outside /oauth2/ that other sites cannot post to.
func (o *OAuth) EndSession(w http.ResponseWriter, r *http.Request) error {
	read := web.Query
	if r.Method == http.MethodPost {
		read = web.Form
	}
	p, err := read(r)
	if err != nil {
		return err
	}
	l, err := o.readLeave(r, p)
	if err != nil {
		return err
	}
	s, signedIn := session.From(r.Context())
	if l.hint != nil && (!signedIn || (l.hint.Subject == s.PatientID && l.hint.SID == s.ID)) {
		return o.leave(w, r, l)
	}
	q := url.Values{}
	for _, k := range []string{"id_token_hint", "client_id", "post_logout_redirect_uri", "state"} {
		// The hint names the client; the token itself need not stay in the URL.
		if k != "id_token_hint" && p.Get(k) != "" {
			q.Set(k, p.Get(k))
		}
	}
	if l.client != nil {
		q.Set("client_id", l.client.ID)
	}
	return web.Redirect(w, r, "/logout?"+q.Encode())
}

// GetLogout handles GET /logout: the question.
func (o *OAuth) GetLogout(w http.ResponseWriter, r *http.Request) error {
	p, err := web.Query(r)
	if err != nil {
		return err
	}
	l, err := o.readLeave(r, p)
	if err != nil {
		return err
	}
	if _, ok := session.From(r.Context()); !ok && l.client == nil {
		return o.site.Render(w, r, http.StatusOK, "oauth_signed_out", nil)
	}
	view := logoutView{}
	if l.client != nil {
		view.Client = l.client.Name
	}
	for _, k := range []string{"client_id", "post_logout_redirect_uri", "state"} {
		if p.Get(k) != "" {
			view.Fields = append(view.Fields, formField{k, p.Get(k)})
		}
	}
	if l.back != nil {
		web.FormTarget(w, l.back.String())
	}
	return o.site.Render(w, r, http.StatusOK, "oauth_logout", view)
}

// PostLogout handles POST /logout: the patient's yes.
func (o *OAuth) PostLogout(w http.ResponseWriter, r *http.Request) error {
	p, err := web.Form(r)
	if err != nil {
		return err
	}
	l, err := o.readLeave(r, p)
	if err != nil {
		return err
	}
	return o.leave(w, r, l)
}

// leave ends the session, and with it the tokens that live no longer, and sends
// the browser back where that was registered.
func (o *OAuth) leave(w http.ResponseWriter, r *http.Request, l leave) error {
	if err := session.End(w, r, o.db, o.issuer); err != nil {
		return err
	}
	web.Event(r.Context(), "auth.logout")
	if l.back == nil {
		return o.site.Render(w, r, http.StatusOK, "oauth_signed_out", nil)
	}
	w.Header().Set("Location", l.back.String())
	w.WriteHeader(http.StatusSeeOther)
	return nil
}
