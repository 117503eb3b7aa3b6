package oauth

import (
	"context"
	"crypto/hmac"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// consentView is what the page oauth_consent shows.
type consentView struct {
	Request string
	Flow    web.Flow // the same, for who goes to another account
	// Account is the address of who is asked, Mark what says in the form that it was.
	Account, Mark string
	Client        string
	Origin        string // where the patient will be sent
	// Scopes are what is asked for and was not allowed before, Known what was.
	Scopes, Known []string
	Days          string // how long access lasts after the sign-out; "" for not at all
	// About are the client's own pages, checked when it was registered.
	ClientURI, PolicyURI, TOSURI string
}

// GetConsent handles GET /consent: what the client asks for, in plain words.
func (o *OAuth) GetConsent(w http.ResponseWriter, r *http.Request) error {
	_, flow, err := web.QueryFlow(r)
	if err != nil {
		return err
	}
	a, q, err := o.load(r, flow.Request)
	if errors.Is(err, storage.ErrSpent) {
		return web.Redirect(w, r, settled(flow, a))
	}
	if err != nil {
		return o.ended(w, r, a, err)
	}
	s, ok := session.From(r.Context())
	if !ok || q.fault != nil {
		return web.Redirect(w, r, flow.Done())
	}
	f, err := o.facts(r, q)
	if err != nil {
		return err
	}
	p, err := o.db.PatientByID(r.Context(), s.PatientID)
	if err != nil {
		return err
	}
	if q.device != "" {
		f.consent = nil
	}
	view := q.consentView(flow.Request, f.consent)
	view.Account, view.Mark, view.Flow = p.Email, o.mark(s, a), flow
	if q.device != "" {
		return o.site.Render(w, r, http.StatusOK, "oauth_device_consent", deviceView{view, q.device})
	}
	return o.site.Render(w, r, http.StatusOK, "oauth_consent", view)
}

// mark is what the page of consent to a says about who saw it.
func (o *OAuth) mark(s *storage.Session, a storage.AuthRequest) string {
	return hex.EncodeToString(o.db.MAC("consent-page", []byte(s.PatientID+" "+a.ID)))
}

// consentView tells what is new from what was allowed already.
func (q request) consentView(id string, before *storage.Consent) consentView {
	m := q.client.Metadata
	view := consentView{
		Request: id, Client: q.client.Name, Origin: q.redirect.Scheme + "://" + q.redirect.Host,
		ClientURI: m.ClientURI, PolicyURI: m.PolicyURI, TOSURI: m.TOSURI,
	}
	if q.redirect.Host == "" {
		view.Origin = q.redirect.Scheme
	}
	for _, s := range q.asks() {
		if q.allowed(before).Has(s) {
			view.Known = append(view.Known, s)
		} else {
			view.Scopes = append(view.Scopes, s)
		}
	}
	if q.scopes.Has("offline_access") {
		view.Days = strconv.Itoa(max(1, int(q.life().Hours()/24)))
	}
	return view
}

// PostConsent handles POST /consent: the patient allows or refuses. What is
// allowed is what the request asked for, not what the form says.
func (o *OAuth) PostConsent(w http.ResponseWriter, r *http.Request) error {
	form, flow, err := o.site.FormFlow(r)
	if err != nil {
		return err
	}
	a, q, err := o.load(r, flow.Request)
	if errors.Is(err, storage.ErrSpent) {
		return web.Redirect(w, r, settled(flow, a)) // pressed twice: the first press counts
	}
	if err != nil {
		return o.ended(w, r, a, err)
	}
	s, ok := session.From(r.Context())
	if !ok {
		return web.Redirect(w, r, flow.Done())
	}
	if !hmac.Equal([]byte(form.Get("mark")), []byte(o.mark(s, a))) {
		// The page was shown to somebody else, who had signed in in another tab: whoever
		// is signed in now is asked anew.
		web.Event(r.Context(), "oauth.consent.others_page")
		return web.Redirect(w, r, flow.Done())
	}
	f, err := o.facts(r, q)
	if err != nil {
		return err
	}
	now := storage.Now()
	if asked, err := next(q, f, now); err != nil || asked != stepConsent {
		// Answered already, or by a session that the request would not accept.
		return web.Redirect(w, r, flow.Done())
	}
	if q.device != "" {
		return o.answerDevice(w, r, flow, a, q, f, form.Get("decision"))
	}
	switch form.Get("decision") {
	case "allow":
		err = o.db.Tx(r.Context(), func(ctx context.Context) error {
			q, _, err := o.still(ctx, a, s, stepConsent)
			if err != nil {
				return err
			}
			return o.db.SaveConsent(ctx, s.PatientID, q.client, q.place(), q.asks(), now)
		})
		web.Event(r.Context(), "oauth.consent.given", "patient_id", s.PatientID)
	case "deny":
		err = o.db.DenyAuthRequest(r.Context(), a, now)
		web.Event(r.Context(), "oauth.consent.denied", "patient_id", s.PatientID)
	default:
		return web.Invalid("decision", "must be allow or deny")
	}
	if err != nil && !errors.Is(err, storage.ErrSpent) && !errors.Is(err, errMoved) {
		return err
	}
	return web.Redirect(w, r, flow.Done())
}
