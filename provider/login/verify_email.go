package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// GetVerify shows a button. GET /verify-email?token=ID.SECRET
//
// Nothing is spent by looking: mail scanners open every link.
func (l *Login) GetVerify(w http.ResponseWriter, r *http.Request) error {
	q, err := web.Query(r)
	if err != nil {
		return err
	}
	token := q.Get("token")
	if _, _, ok := storage.ParseMailedToken(token); !ok {
		return l.showDeadLink(w, r)
	}
	return l.site.Render(w, r, http.StatusOK, "login_verify", struct{ Token string }{token})
}

// PostVerify spends the token. POST /verify-email
func (l *Login) PostVerify(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	form, err := web.Form(r)
	if err != nil {
		return err
	}
	if err := l.gate.pass(r); err != nil {
		return err
	}
	id, secret, ok := storage.ParseMailedToken(form.Get("token"))
	if !ok {
		return l.showDeadLink(w, r)
	}
	flow, err := l.verify(ctx, id, secret)
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrSpent) {
		l.gate.failed(r)
		web.Event(ctx, "auth.verify_email.failed")
		return l.showDeadLink(w, r)
	}
	if err != nil {
		return fmt.Errorf("verify email: %w", err)
	}
	registrations.WithLabelValues("verified").Inc()
	web.Event(ctx, "auth.verify_email.ok")
	return l.site.Render(w, r, http.StatusOK, "login_verified", struct{ Flow web.Flow }{flow})
}

// verify spends the challenge and makes its registration the account. Whatever
// the account had before is gone with it: it was not the mailbox that bound it.
func (l *Login) verify(ctx context.Context, id, secret string) (web.Flow, error) {
	var reg registration
	err := l.db.Tx(ctx, func(ctx context.Context) error {
		now := storage.Now()
		c, err := l.db.SpendChallenge(ctx, KindVerifyEmail, id, storage.Digest(secret), now)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(c.Data, &reg); err != nil {
			return fmt.Errorf("registration: %w", err)
		}
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
		if err := l.db.UpdateProfile(ctx, p.ID, reg.Given, reg.Family, reg.BirthDate, reg.Locale); err != nil {
			return err
		}
		if err := l.db.SetPassword(ctx, p.ID, reg.PHC, now); err != nil {
			return err
		}
		return l.db.MarkEmailVerified(ctx, p.ID, now)
	})
	return web.Flow{Request: reg.Request, To: reg.To}, err
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
	q, err := web.Query(r)
	if err != nil {
		return err
	}
	flow, err := web.FlowOf(q)
	if err != nil {
		return err
	}
	return l.site.Render(w, r, http.StatusOK, "login_resend", resendView{Flow: flow})
}

// PostResend sends the mail again, if there is one to send. The answer does not
// say. POST /verify-email/resend
func (l *Login) PostResend(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	form, err := web.Form(r)
	if err != nil {
		return err
	}
	flow, err := web.FlowOf(form)
	if err != nil {
		return err
	}
	if err := l.gate.pass(r); err != nil {
		return err
	}
	email, err := storage.ParseEmail(form.Get("email"))
	if err != nil {
		return l.site.Render(w, r, http.StatusUnprocessableEntity, "login_resend",
			resendView{Flow: flow, Email: form.Get("email"), Problem: "register.problem.email"})
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
	return l.showCheckMail(w, r, flow)
}
