package login

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// verifyView is what the page login_verify shows.
type verifyView struct {
	Token string
	// Password asks for the chosen password.
	Password bool
	Problem  string
}

// mailTries bounds the passwords tried with one mailed link.
const mailTries = 5

// GetVerify shows a button. GET /verify-email?token=ID.SECRET
//
// Nothing is spent by looking: mail scanners open every link.
func (l *Login) GetVerify(w http.ResponseWriter, r *http.Request) error {
	q, err := web.Query(r)
	if err != nil {
		return err
	}
	token := q.Get("token")
	c, all, err := l.mailed(r.Context(), token)
	if errors.Is(err, storage.ErrNotFound) || (err == nil && !c.Open(storage.Now())) {
		return l.showDeadLink(w, r)
	}
	if err != nil {
		return err
	}
	_, here := l.madeHere(r, all)
	return l.site.Render(w, r, http.StatusOK, "login_verify", verifyView{Token: token, Password: !here})
}

// PostVerify spends the token. POST /verify-email
//
// A link that is opened where nobody registered comes with the chosen password:
// somebody else may have registered this address, and a mailbox that confirms
// must not open the account to them.
func (l *Login) PostVerify(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	form, err := web.Form(r)
	if err != nil {
		return err
	}
	if err := l.gate.stranger(r); err != nil {
		return err
	}
	token := form.Get("token")
	c, all, err := l.mailed(ctx, token)
	reg, here := l.madeHere(r, all)
	if err == nil && !here {
		_, err = l.db.TryChallenge(ctx, KindVerifyEmail, c.ID, c.Digest, mailTries, storage.Now())
		if err == nil {
			ok, wrong := false, error(nil)
			for _, reg = range all {
				if ok, _, wrong = l.hasher.Verify(ctx, reg.PHC, form.Get("current-password")); ok || wrong != nil {
					break
				}
			}
			if wrong != nil {
				return errors.Join(wrong, l.db.UntryChallenge(ctx, KindVerifyEmail, c.ID))
			}
			if !ok {
				l.gate.failed(r)
				web.Event(ctx, "auth.verify_email.failed")
				return l.site.Render(w, r, http.StatusUnprocessableEntity, "login_verify", verifyView{token, true, "verify.wrong"})
			}
		}
	}
	var flow web.Flow
	if err == nil {
		flow, err = l.verify(ctx, c, reg)
	}
	if again, wrong := l.justVerified(ctx, c, err); wrong != nil {
		return wrong
	} else if again { // a second press, or its answer was lost
		flow, err = web.Flow{Request: reg.Request, To: reg.To}, nil
	}
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrSpent) {
		l.gate.failed(r)
		web.Event(ctx, "auth.verify_email.failed")
		return l.showDeadLink(w, r)
	}
	if err != nil {
		return fmt.Errorf("verify email: %w", err)
	}
	registrationSteps.WithLabelValues("verified").Inc()
	web.Event(ctx, "auth.verify_email.ok")
	flow = l.here(r, flow)
	return web.Redirect(w, r, "/verify-email/done"+flow.Query())
}

// GetVerified says that the address is confirmed. GET /verify-email/done
func (l *Login) GetVerified(w http.ResponseWriter, r *http.Request) error {
	_, flow, err := web.QueryFlow(r)
	if err != nil {
		return err
	}
	return l.site.Render(w, r, http.StatusOK, "login_verified", struct{ Flow web.Flow }{flow})
}

// mailed is the challenge of a mailed token, open or not, with the registrations
// that wait in it, the newest first; ErrNotFound where the token is not ours.
func (l *Login) mailed(ctx context.Context, token string) (storage.Challenge, []registration, error) {
	id, secret, ok := storage.ParseMailedToken(token)
	if !ok {
		return storage.Challenge{}, nil, storage.ErrNotFound
	}
	c, err := l.db.Challenge(ctx, KindVerifyEmail, id)
	if err != nil {
		return c, nil, err
	}
	if !hmac.Equal(c.Digest, storage.Digest(secret)) {
		return c, nil, storage.ErrNotFound
	}
	all, err := registrations(c)
	return c, all, err
}

// madeHere is the registration that this browser made.
func (l *Login) madeHere(r *http.Request, all []registration) (registration, bool) {
	handle, err := web.ReadCookie(r, l.site.Issuer, browserCookie)
	if err != nil {
		return registration{}, false
	}
	for _, reg := range all {
		if hmac.Equal(storage.Digest(handle), reg.Browser) {
			return reg, true
		}
	}
	return registration{}, false
}

// verify spends the challenge and makes the registration that was proven the
// account. Whatever the account had before is gone with it: it was not the mailbox
// that bound it.
func (l *Login) verify(ctx context.Context, c storage.Challenge, reg registration) (web.Flow, error) {
	err := l.db.Tx(ctx, func(ctx context.Context) error {
		now := storage.Now()
		c, err := l.db.SpendChallenge(ctx, KindVerifyEmail, c.ID, c.Digest, now)
		if err != nil {
			return err
		}
		if err := l.db.LockPatient(ctx, c.PatientID); err != nil {
			return err
		}
		storage.ActAs(ctx, storage.ActorPatient(c.PatientID))
		p, err := l.db.PatientByID(ctx, c.PatientID)
		if err != nil {
			return err
		}
		if p.DisabledAt != nil || p.EmailVerifiedAt != nil || p.Email != reg.Email {
			return storage.ErrSpent
		}
		all, err := l.db.Credentials(ctx, p.ID)
		if err != nil {
			return err
		}
		for _, old := range all {
			if err := l.db.RevokeCredential(ctx, p.ID, old.ID, now); err != nil {
				return err
			}
		}
		if err := l.db.EndSessions(ctx, p.ID, "", now); err != nil {
			return err
		}
		p.GivenName, p.FamilyName, p.BirthDate, p.Locale = reg.Given, reg.Family, reg.BirthDate, reg.Locale
		p.More = storage.PatientMore{}
		if err := l.db.UpdateProfile(ctx, p); err != nil {
			return err
		}
		if err := l.db.SetPassword(ctx, p.ID, reg.PHC, now); err != nil {
			return err
		}
		return l.db.MarkEmailVerified(ctx, p.ID, now)
	})
	return web.Flow{Request: reg.Request, To: reg.To}, err
}

// justVerified reports whether err is because c was spent a moment ago, and for good:
// its patient is verified.
func (l *Login) justVerified(ctx context.Context, c storage.Challenge, err error) (bool, error) {
	if !errors.Is(err, storage.ErrSpent) || c.ID == "" {
		return false, nil
	}
	if c, err = l.db.Challenge(ctx, KindVerifyEmail, c.ID); err != nil {
		return false, err
	}
	if c.SpentAt == nil || storage.Now().Sub(*c.SpentAt) > storage.PressOverlap {
		return false, nil
	}
	p, err := l.db.PatientByID(ctx, c.PatientID)
	return p.EmailVerifiedAt != nil, err
}

// here is flow where it began in this browser, else none: a mail is read where it
// is read, and a request that is moved goes nowhere.
func (l *Login) here(r *http.Request, flow web.Flow) web.Flow {
	if flow.Request == "" {
		return flow
	}
	a, err := l.db.OpenAuthRequest(r.Context(), flow.Request)
	if err != nil || !l.site.Bound(r, a.Binding) {
		return web.Flow{}
	}
	return l.site.Acted(flow)
}

// showDeadLink says that a link is used, old or mistyped, whichever it is.
func (l *Login) showDeadLink(w http.ResponseWriter, r *http.Request) error {
	return l.site.Render(w, r, http.StatusGone, "login_dead_link", nil)
}

// resendView is what the page login_resend shows.
type resendView struct {
	Flow    web.Flow
	Email   string
	Problem string
}

// GetResend offers the mail again. GET /verify-email/resend
func (l *Login) GetResend(w http.ResponseWriter, r *http.Request) error {
	_, flow, err := web.QueryFlow(r)
	if err != nil {
		return err
	}
	return l.site.Render(w, r, http.StatusOK, "login_resend", resendView{Flow: flow})
}

// PostResend sends the mail again, if there is one to send. The answer does not
// say. POST /verify-email/resend
func (l *Login) PostResend(w http.ResponseWriter, r *http.Request) error {
	ctx, begin := r.Context(), time.Now()
	form, flow, err := l.site.FormFlow(r)
	if err != nil {
		return err
	}
	if err := l.gate.guess(r); err != nil {
		return err
	}
	email, err := storage.ParseEmail(form.Get("email"))
	if err != nil {
		return l.site.Render(w, r, http.StatusUnprocessableEntity, "login_resend",
			resendView{Flow: flow, Email: form.Get("email"), Problem: "register.problem.email"})
	}
	if err := l.gate.mails.Pass(r); err != nil {
		return err
	}
	p, err := l.db.PatientByEmail(ctx, email)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if err == nil && p.EmailVerifiedAt == nil && p.DisabledAt == nil {
		if err := l.remind(ctx, p); err != nil {
			return fmt.Errorf("resend: %w", err)
		}
	}
	evenly(ctx, begin)
	return web.Redirect(w, r, "/verify-email/sent"+flow.Query())
}
