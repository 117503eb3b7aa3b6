package oauth

import (
	"slices"
	"time"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// A step is what an authorization request needs next.
type step int

const (
	stepIssue   step = iota // nothing: issue the code
	stepLogin               // sign in
	stepSecond              // prove the second factor
	stepEnrol               // set up a second factor
	stepConsent             // ask the patient
)

// facts are what is known when next is asked.
type facts struct {
	session *storage.Session // nil where nobody is signed in
	subject string           // what the client calls the patient of the session
	sid     string           // and the session, where that name is for its sector alone
	second  bool             // the patient has a second factor
	consent *storage.Consent // nil where nothing was allowed yet
}

// next names the first thing that q still needs, or the error that ends it.
// It is pure: the same request, facts and time give the same answer, so a
// reload, a second tab and the back button are no special cases. A fact counts
// when it is newer than q needs.
func next(q request, f facts, now time.Time) (step, error) {
	if q.fault != nil {
		return 0, q.fault
	}
	if q.denied {
		return 0, web.ErrDenied
	}
	quiet := q.prompt.Has("none")
	switch session.Missing(f.session, f.second, q.need(), now) {
	case session.StepLogin:
		return need(stepLogin, quiet, web.ErrLogin)
	case session.StepSecond:
		return need(stepSecond, quiet, web.ErrInteraction)
	case session.StepEnrol:
		return need(stepEnrol, quiet, web.ErrInteraction)
	}
	// OpenID Connect Core, Section 3.1.2.1, id_token_hint: "if the End-User
	// identified by the ID Token is not already logged in […] the Authorization
	// Server SHOULD return an error, such as login_required." Section 5.5.1 asks
	// the same of a sub in claims.
	if slices.ContainsFunc(q.subjects, func(s string) bool { return s != f.subject }) {
		return 0, web.ErrLogin
	}
	if q.wantsConsent(f) {
		return need(stepConsent, quiet, web.ErrConsent)
	}
	return stepIssue, nil
}

// need is the step s, or, where nothing may be shown, the error for it.
// OpenID Connect Core, Section 3.1.2.6.
func need(s step, quiet bool, err error) (step, error) {
	if quiet {
		return 0, err
	}
	return s, nil
}

// need says what the session must prove for q.
func (q request) need() session.Need {
	n := session.Need{Level: q.level, Phishing: q.phishing}
	// prompt=login, select_account and create ask for a sign-in that is newer
	// than the request; max_age for one that is at most so old when it came.
	if q.prompt.Has("login") || q.prompt.Has("select_account") || q.prompt.Has("create") {
		n.After = q.requestedAt
	} else if q.maxAge >= 0 {
		n.After = q.requestedAt.Add(-q.maxAge)
	}
	return n
}

// wantsConsent reports whether the patient must be asked.
func (q request) wantsConsent(f facts) bool {
	c := f.consent
	// A device is allowed by the press on the page that shows its code (RFC 8628,
	// Section 5.4), which answers it at once: nothing that was allowed otherwise
	// counts for it, be it newer or in another tab.
	if q.device != "" {
		return true
	}
	if q.prompt.Has("consent") || q.impersonable() {
		since := q.requestedAt
		if q.prompt.Has("none") {
			// Nobody can be asked now. It is enough that the patient has pressed the
			// button since signing in here.
			since = f.session.CreatedAt
		}
		return c == nil || c.GrantedAt.Before(since) || !q.allowed(c).Has(q.asks()...)
	}
	if q.client.FirstParty {
		return false
	}
	return !q.allowed(c).Has(q.asks()...)
}

// impersonable says that anybody could pose as the client: it has no secret,
// and its redirect URI proves nothing. RFC 8252, Section 8.6: such requests
// "SHOULD NOT" be processed "without user consent or interaction".
func (q request) impersonable() bool {
	return q.client.Public() && q.redirect.Scheme != "https"
}

// allowed are the scopes that c allows the client of q, as it is now and where q leads.
func (q request) allowed(c *storage.Consent) storage.Words { return c.Allows(q.client, q.place()) }

// place is where q leads; "" for a device.
func (q request) place() string {
	if q.device != "" {
		return ""
	}
	return storage.PlaceOf(q.redirect.String())
}
