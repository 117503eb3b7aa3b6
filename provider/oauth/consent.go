package oauth

import (
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
	Client  string
	Origin  string // where the patient will be sent
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
	if _, ok := session.From(r.Context()); !ok || q.fault != nil {
		return web.Redirect(w, r, flow.Done())
	}
	f, err := o.facts(r, q)
	if err != nil {
		return err
	}
	if q.device != "" {
		return o.site.Render(w, r, http.StatusOK, "oauth_device_consent", deviceView{q.consentView(flow.Request, nil), q.device})
	}
	return o.site.Render(w, r, http.StatusOK, "oauth_consent", q.consentView(flow.Request, f.consent))
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
		if before != nil && before.Scopes.Has(s) {
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
		err = o.db.SaveConsent(r.Context(), s.PatientID, q.client.ID, q.asks(), now)
		web.Event(r.Context(), "oauth.consent.given", "patient_id", s.PatientID)
	case "deny":
		err = o.db.DenyAuthRequest(r.Context(), a, now)
		web.Event(r.Context(), "oauth.consent.denied", "patient_id", s.PatientID)
	default:
		return web.Invalid("decision", "must be allow or deny")
	}
	if err != nil && !errors.Is(err, storage.ErrSpent) {
		return err
	}
	return web.Redirect(w, r, flow.Done())
}
