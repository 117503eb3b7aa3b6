package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// passwordView is what the page login_password shows.
type passwordView struct {
	Flow     web.Flow
	Email    string            // for password managers
	Problems map[string]string // field → key
}

// GetPassword offers to change the password. GET /login/password
func (l *Login) GetPassword(w http.ResponseWriter, r *http.Request) error {
	_, flow, err := web.QueryFlow(r)
	if err != nil {
		return err
	}
	s, ok, err := l.mayEnrol(w, r, flow)
	if !ok {
		return err
	}
	p, err := l.db.PatientByID(r.Context(), s.PatientID)
	if err != nil {
		return err
	}
	return l.site.Render(w, r, http.StatusOK, "login_password", passwordView{Flow: flow, Email: p.Email})
}

// PostPassword changes the password: who knows the old one, and has just signed
// in at the highest level of the account, may. Every other session ends.
// POST /login/password
func (l *Login) PostPassword(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	form, flow, err := l.site.FormFlow(r)
	if err != nil {
		return err
	}
	s, ok, err := l.mayEnrol(w, r, flow)
	if !ok {
		return err
	}
	if err := l.gate.member(r); err != nil {
		return err
	}
	p, err := l.db.PatientByID(ctx, s.PatientID)
	if err != nil {
		return err
	}
	password := form.Get("new-password")
	v := passwordView{Flow: flow, Email: p.Email, Problems: map[string]string{}}
	if key := passwordProblem(password, p.GivenName, p.FamilyName, p.Email, l.site.Issuer); key != "" {
		v.Problems["new-password"] = key
		return l.site.Render(w, r, http.StatusUnprocessableEntity, "login_password", v)
	}
	who, err := l.candidate(r, p.Email)
	if err != nil {
		return err
	}
	if ok, err = l.proves(ctx, &who, form.Get("current-password")); err != nil {
		return err
	}
	if !ok {
		web.Event(ctx, "auth.password_change.failed")
		v.Problems["current-password"] = "login.password.current"
		return l.site.Render(w, r, http.StatusUnprocessableEntity, "login_password", v)
	}
	phc, err := l.hasher.Hash(ctx, password)
	if err != nil {
		return l.takeBack(ctx, who, err)
	}
	err = l.db.Tx(ctx, func(ctx context.Context) error {
		now := storage.Now()
		if err := l.stillEnrols(ctx, s); err != nil {
			return err
		}
		// Of two changes the second was proven by a password that is none any more.
		if err := l.db.CredentialSucceeded(ctx, who.credential.ID, now); err != nil {
			return err
		}
		if err := l.db.SetPassword(ctx, p.ID, phc, now); err != nil {
			return err
		}
		who, err := l.candidate(r.WithContext(ctx), p.Email)
		if err != nil {
			return err
		}
		if err := l.db.EndSessions(ctx, p.ID, s.ID, now); err != nil {
			return err
		}
		if err := l.db.Wish(ctx, queue.Notice{PatientID: p.ID, Notice: "password_changed"}); err != nil {
			return err
		}
		_, err = l.sessions.Raise(ctx, w, r, session.Proof{Credential: who.credential.ID, Factors: []string{session.Password}})
		return err
	})
	if errors.Is(err, web.ErrLogin) {
		if err := l.takeBack(ctx, who, nil); err != nil {
			return err
		}
		return web.Redirect(w, r, "/login"+flow.Query())
	}
	if errors.Is(err, storage.ErrNotFound) {
		v.Problems["current-password"] = "login.password.current"
		return l.site.Render(w, r, http.StatusUnprocessableEntity, "login_password", v)
	}
	if err != nil {
		return l.takeBack(ctx, who, fmt.Errorf("change password: %w", err))
	}
	web.Event(ctx, "auth.password_changed")
	return web.Redirect(w, r, flow.Done())
}
