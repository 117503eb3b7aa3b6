package oauth

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/ory/fosite"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// oauthError is an error as the protocol tells it (RFC 6749, Sections 4.1.2.1
// and 5.2).
type oauthError struct {
	Status      int    `json:"-"`
	Code        string `json:"error"`
	Description string `json:"error_description,omitempty"`
}

// protocol turns any error into one of the protocol's. Our own sentinels are
// asked first, even inside fosite's errors: the loser of a race on a code gets
// server_error from fosite, yet the code is spent, and that is invalid_grant.
func protocol(err error) oauthError {
	switch {
	case web.Unavailable(err), errors.Is(err, keys.ErrNoKey):
		return oauthError{http.StatusServiceUnavailable, "temporarily_unavailable", "Try again in a moment."}
	case errors.Is(err, storage.ErrSpent):
		return oauthError{http.StatusBadRequest, "invalid_grant", "It was used, replaced or has expired."}
	case errors.Is(err, web.ErrLogin):
		return oauthError{http.StatusBadRequest, "login_required", "The patient is not signed in as needed."}
	case errors.Is(err, web.ErrConsent):
		return oauthError{http.StatusBadRequest, "consent_required", "The patient has not allowed this."}
	case errors.Is(err, web.ErrInteraction):
		return oauthError{http.StatusBadRequest, "interaction_required", "The patient must prove more."}
	case errors.Is(err, web.ErrDenied):
		return oauthError{http.StatusForbidden, "access_denied", "The patient said no."}
	}
	var rfc *fosite.RFC6749Error
	if !errors.As(err, &rfc) {
		return oauthError{http.StatusInternalServerError, "server_error", ""}
	}
	e := oauthError{rfc.CodeField, rfc.ErrorField, web.Describe(strings.TrimSpace(rfc.DescriptionField + " " + rfc.HintField))}
	switch e.Code {
	// fosite's own words for what the standards call otherwise.
	case "invalid_state", "insufficient_entropy", "scope_not_granted":
		e.Code, e.Status = "invalid_request", http.StatusBadRequest
	case "jti_known":
		e.Code, e.Status = "invalid_client", http.StatusUnauthorized
	case "request_unauthorized", "token_inactive", "token_expired", "token_signature_mismatch":
		e.Code, e.Status = "invalid_grant", http.StatusBadRequest
	case "server_error", "error", "misconfiguration":
		return oauthError{http.StatusInternalServerError, "server_error", ""}
	}
	return e
}

// fail answers a client's own request (token, revocation, introspection).
func (o *OAuth) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := protocol(err)
	web.Note(r.Context(), "error", e.Code)
	if e.Status >= 500 {
		web.Note(r.Context(), "cause", err.Error())
	}
	switch e.Status {
	case http.StatusUnauthorized:
		// RFC 6749, Section 5.2, asks for a challenge where the client used the header.
		// Elsewhere it would hide the error: libraries of scripts stop at a challenge.
		if r.Header.Get("Authorization") != "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="patauth"`)
		}
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "2")
	}
	if e.Code == "invalid_client" {
		web.Event(r.Context(), "auth.client.failed")
	}
	writeJSON(w, e.Status, e)
}

// stray reports whether err would send a browser to an address that anybody may have
// registered, without the patient having done anything: by a request that is wrong
// on purpose, say (RFC 9700, Section 4.11.2). The patient's own no is told, and so is
// what prompt=none asks, which is there to be answered without a page.
func (o *OAuth) stray(q request, err error) bool {
	if !o.registration.Open || q.client.Registration == nil || q.denied {
		return false
	}
	silent := errors.Is(err, web.ErrLogin) || errors.Is(err, web.ErrConsent) || errors.Is(err, web.ErrInteraction)
	return !q.prompt.Has("none") || !silent
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own maps and structs
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(b)
}

// failRedirect tells the client of an authorization error through its
// registered redirect URI; see stray for those who are not sent there.
func (o *OAuth) failRedirect(w http.ResponseWriter, r *http.Request, q request, err error) error {
	e := protocol(err)
	if o.stray(q, err) {
		if e.Status >= 500 {
			return err
		}
		authorizations.WithLabelValues(e.Code).Inc()
		web.Note(r.Context(), "error", err.Error())
		view := endedView{Why: "refused", Client: cmp.Or(q.redirect.Host, q.redirect.Scheme), Back: o.back(q.client)}
		return o.site.Render(w, r, http.StatusBadRequest, "oauth_ended", view)
	}
	authorizations.WithLabelValues(e.Code).Inc()
	web.Note(r.Context(), "error", e.Code)
	if e.Status >= 500 {
		web.Note(r.Context(), "cause", err.Error())
	}
	p := url.Values{"error": {e.Code}}
	if e.Description != "" {
		p.Set("error_description", e.Description)
	}
	return o.respond(w, r, q, p)
}
